"""The chat completions protocol's messages: what a conversation is in them, and what a streamed reply holds.

No I/O. Field names are those of the openai SDK's ``types.chat`` (3.52), which most other vendors and local
servers follow. A call is answered right behind the message that made it: the protocol refuses anything else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from openai.types.chat import ChatCompletionChunk

from providers.local.dialogue.base import (
    AgentSaid,
    Began,
    CallAnswered,
    CallMade,
    CutShort,
    History,
    Part,
    Say,
    SystemSaid,
    Used,
    UserSaid,
    WrittenCall,
)
from providers.local.spoken import SentenceStream

Message = dict[str, Any]

UNHEARD: Final = "(fala que não deu para entender)"
"""What stands for a turn whose words are not known."""
UNANSWERED: Final = '{"status": "pending"}'
"""What stands for an answer that did not come yet."""
MAX_CALLS: Final = 16
MAX_ARGUMENTS: Final = 64 * 1024
"""Characters."""


class Malformed(Exception):
    """The reply makes no sense; the text says why."""


def chat_messages(instructions: str, history: History) -> list[Message]:
    """The whole conversation, oldest first."""
    answers = {entry.call_id: entry.output for entry in history if isinstance(entry, CallAnswered)}
    messages: list[Message] = [{"role": "system", "content": instructions}] if instructions else []
    calls: list[CallMade] = []
    said: AgentSaid | None = None
    for entry in (*history, None):
        if isinstance(entry, CallMade):
            calls.append(entry)
            continue
        if calls:
            messages += _calls(said, calls, answers)
            calls, said = [], None
        if isinstance(entry, CallAnswered):
            continue
        if said is not None:
            messages.append({"role": "assistant", "content": said.text})
            said = None
        match entry:
            case AgentSaid():
                said = entry  # with the calls that follow it, it is one message
            case UserSaid(text):
                messages.append({"role": "user", "content": text or UNHEARD})
            case SystemSaid(text):
                messages.append({"role": "system", "content": text})
    return messages


def _calls(
    said: AgentSaid | None, calls: Sequence[CallMade], answers: Mapping[str, str]
) -> Iterator[Message]:
    yield {
        "role": "assistant",
        "content": said.text if said is not None else None,
        "tool_calls": [
            {
                "id": call.call_id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in calls
        ],
    }
    for call in calls:
        content = answers.get(call.call_id, UNANSWERED)
        yield {"role": "tool", "tool_call_id": call.call_id, "content": content}


def chat_request(
    model: str, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], choice: str
) -> dict[str, Any]:
    """What is asked, beside that it be streamed.

    Args:
        tools: as a session's configuration has them.
        choice: ``auto``, ``none``, ``required``, or the name of the one function to call.
    """
    request: dict[str, Any] = {"model": model, "messages": list(messages)}
    if tools:
        names = ("name", "description", "parameters")
        functions = [{name: tool[name] for name in names if tool.get(name)} for tool in tools]
        request["tools"] = [{"type": "function", "function": function} for function in functions]
        named = {"type": "function", "function": {"name": choice}}
        request["tool_choice"] = choice if choice in ("auto", "none", "required") else named
    return request


# -- the streamed reply --------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Call:
    id: str
    name: str = ""
    arguments: str = ""


class Reading:
    """One streamed reply: chunks in, parts out. Calls come at its end, where they are known to be whole."""

    def __init__(self) -> None:
        self._sentences = SentenceStream()
        self._calls: dict[int, _Call] = {}
        self._began = False
        self._finish = ""
        self._used: Used | None = None
        self.usage: object = None
        """What is billed, in the vendor's words; None: not told."""

    def take(self, chunk: ChatCompletionChunk) -> list[Part]:
        """What a chunk completes.

        Raises:
            Malformed: it is none.
        """
        try:
            return list(self._take(chunk))
        except (AttributeError, TypeError, ValueError, KeyError, IndexError) as error:
            raise Malformed(f"a piece that lacks what it must have ({error!r})") from error

    def _take(self, chunk: ChatCompletionChunk) -> Iterator[Part]:
        if (usage := chunk.usage) is not None:
            self.usage = usage.model_dump()
            cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else 0
            self._used = Used(int(usage.prompt_tokens), int(usage.completion_tokens), int(cached or 0))
        if not chunk.choices:
            return
        choice = chunk.choices[0]
        delta = choice.delta
        text = (delta.content or "") + (delta.refusal or "")
        if (text or delta.tool_calls) and not self._began:
            self._began = True
            yield Began()
        for sentence in self._sentences.feed(text):
            yield Say(sentence)
        for piece in delta.tool_calls or ():
            self._take_call(piece)
        if choice.finish_reason is not None:
            self._finish = str(choice.finish_reason)

    def _take_call(self, piece: Any) -> None:
        index, name = piece.index, piece.id or ""
        if index is None:  # some servers leave it out: a new id is a new call
            last = max(self._calls, default=-1)
            index = last if last >= 0 and name in ("", self._calls[last].id) else last + 1
        if index not in self._calls and len(self._calls) >= MAX_CALLS:
            raise Malformed(f"more than {MAX_CALLS} calls in one reply")
        call = self._calls.setdefault(int(index), _Call(name))
        if piece.function is not None:
            call.name = call.name or piece.function.name or ""
            call.arguments += piece.function.arguments or ""
        if len(call.arguments) > MAX_ARGUMENTS:
            raise Malformed(f"a call with more than {MAX_ARGUMENTS} characters of arguments")

    def end(self) -> list[Part]:
        """The rest, where the stream has come to its end.

        Raises:
            Malformed: it broke off, or holds a call without a name.
        """
        if not self._finish:
            raise Malformed("the reply broke off")
        parts: list[Part] = [Say(sentence) for sentence in self._sentences.rest()]
        if self.cut_short is None:
            for _, call in sorted(self._calls.items()):
                if not call.name:
                    raise Malformed("a call without a name")
                parts.append(WrittenCall(call.name, call.arguments or "{}"))
        if self._used is not None:
            parts.append(self._used)
        return parts

    @property
    def cut_short(self) -> CutShort | None:
        """Why there was more to say; its calls may be cut off as well, and are never made."""
        if self._finish == "length":
            return CutShort("max_output_tokens")
        return CutShort("content_filter") if self._finish == "content_filter" else None
