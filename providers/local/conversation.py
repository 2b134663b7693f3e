"""What a session remembers: its items in order, what of each was heard, and the history they make.

No I/O. Ids come in as arguments.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from providers.local.dialogue.base import (
    AgentSaid,
    CallAnswered,
    CallMade,
    Entry,
    SystemSaid,
    UserSaid,
)
from providers.local.protocol import (
    FunctionCallItem,
    FunctionOutputItem,
    MessageItem,
    RequestError,
)

_CALLER_MS_A_TOKEN: Final = 100
_AGENT_MS_A_TOKEN: Final = 50
_CHARS_A_TOKEN: Final = 4

ContentType = Literal["input_text", "input_audio", "output_text", "output_audio"]


@dataclass(slots=True)
class Spoken:
    """A sentence of an assistant's item and the audio of it that was sent."""

    text: str
    ms: float
    """How long all of it lasts."""
    sent_ms: float = 0.0


@dataclass(slots=True)
class Item:
    """One item of the conversation."""

    id: str
    type: Literal["message", "function_call", "function_call_output"]
    status: Literal["completed", "incomplete", "in_progress"] = "completed"
    role: Literal["system", "user", "assistant"] = "user"
    content: ContentType = "input_text"
    text: str | None = ""
    """The words; None: not recognised yet."""
    audio_ms: float = 0.0
    """Of the caller's audio."""
    spoken: list[Spoken] = field(default_factory=list)
    truncated_ms: int | None = None
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    output: str = ""

    # ------------------------------------------------------------------------------------ an agent's say

    @property
    def sent_ms(self) -> float:
        """Milliseconds of its audio that were sent."""
        return sum(sentence.sent_ms for sentence in self.spoken)

    @property
    def heard_ms(self) -> float:
        """What the client says was heard; all that was sent where it said nothing."""
        return self.sent_ms if self.truncated_ms is None else min(self.sent_ms, self.truncated_ms)

    def heard(self) -> str:
        """The words that were heard: whole ones, up to where the audio was cut."""
        if self.content != "output_audio":
            return self.text or ""
        if self.truncated_ms is None and self.status == "completed":
            return self.text or ""
        left, words = self.heard_ms, []
        for sentence in self.spoken:
            if left <= 0:
                break
            words.append(_first_part(sentence.text, left / sentence.ms if sentence.ms else 1.0))
            left -= sentence.ms
        return " ".join(part for part in words if part)

    def truncate(self, audio_end_ms: int) -> None:
        """Forget what comes after.

        Raises:
            RequestError: this is no audio of ours, or it is shorter than that already.
        """
        if self.type != "message" or self.content != "output_audio":
            raise RequestError(
                "Only assistant audio messages can be truncated.",
                code="invalid_item_type",
                param="item_id",
            )
        if audio_end_ms > self.sent_ms:
            raise RequestError(
                f"Audio content of {self.sent_ms:.0f}ms is already shorter than {audio_end_ms}ms",
                param="audio_end_ms",
            )
        if self.truncated_ms is not None and audio_end_ms > self.truncated_ms:
            raise RequestError(
                f"The item was truncated at {self.truncated_ms}ms already.",
                code="item_already_truncated",
                param="audio_end_ms",
            )
        self.truncated_ms = audio_end_ms

    # --------------------------------------------------------------------------------------- other shapes

    def entry(self) -> Entry | None:
        """The item as the dialogue engine sees it; None where there is nothing of it."""
        if self.type == "function_call":
            return CallMade(self.call_id, self.name, self.arguments)
        if self.type == "function_call_output":
            return CallAnswered(self.call_id, self.output)
        if self.role == "system":
            return SystemSaid(self.text or "")
        if self.role == "user":
            return UserSaid(self.text or "")
        heard = self.heard()
        return AgentSaid(heard) if heard else None

    def json(self) -> dict[str, Any]:
        """The item as the protocol shows it. Audio bytes are not kept, so they are not shown."""
        shown: dict[str, Any] = {
            "id": self.id,
            "object": "realtime.item",
            "type": self.type,
            "status": self.status,
        }
        if self.type == "function_call":
            return {**shown, "call_id": self.call_id, "name": self.name, "arguments": self.arguments}
        if self.type == "function_call_output":
            return {**shown, "call_id": self.call_id, "output": self.output}
        return {**shown, "role": self.role, "content": self._parts()}

    def _parts(self) -> list[dict[str, Any]]:
        if self.content == "input_audio":
            return [{"type": "input_audio", "transcript": self.text}]
        if self.role == "assistant" and not self.text:
            return []
        if self.content == "output_audio":
            return [{"type": "output_audio", "transcript": self.heard()}]
        return [{"type": self.content, "text": self.text}]

    def tokens(self) -> tuple[int, int]:
        """What it costs as context: (text tokens, audio tokens)."""
        if self.type != "message":
            return text_tokens(self.arguments + self.name + self.output), 0
        if self.content == "input_audio":
            return 0, audio_tokens(self.audio_ms, "caller")
        if self.content == "output_audio":
            return text_tokens(self.heard()), audio_tokens(self.heard_ms, "agent")
        return text_tokens(self.text or ""), 0


def _first_part(text: str, share: float) -> str:
    """The whole words within the first ``share`` (0…1) of a sentence: speech is about even in its letters."""
    if share >= 0.999:
        return text
    cut = int(len(text) * share)
    if cut < len(text) and not text[cut].isspace():
        cut = text.rfind(" ", 0, cut + 1)
    return text[: max(cut, 0)].rstrip()


def text_tokens(text: str) -> int:
    """About how many tokens a text is."""
    return -(-len(text) // _CHARS_A_TOKEN)


def audio_tokens(ms: float, who: Literal["caller", "agent"]) -> int:
    """How many tokens audio is: the caller's one per 100 ms, ours one per 50 ms."""
    return -(-int(ms) // (_CALLER_MS_A_TOKEN if who == "caller" else _AGENT_MS_A_TOKEN))


def item_from(new: MessageItem | FunctionCallItem | FunctionOutputItem, fresh_id: str) -> Item:
    """A client's item. ``fresh_id`` is used where it brought no id of its own."""
    if isinstance(new, FunctionCallItem):
        json_object(new.arguments)
        call = Item(new.id or fresh_id, "function_call", call_id=new.call_id or f"call_{fresh_id}")
        call.name, call.arguments = new.name, new.arguments
        return call
    if isinstance(new, FunctionOutputItem):
        return Item(new.id or fresh_id, "function_call_output", call_id=new.call_id, output=new.output)
    wanted = {"output_text", "text"} if new.role == "assistant" else {"input_text"}
    for index, part in enumerate(new.content):
        if part.type not in wanted:
            raise RequestError(
                f"Invalid value: '{part.type}'. A message of role '{new.role}' holds "
                f"'{'output_text' if new.role == 'assistant' else 'input_text'}'.",
                param=f"item.content[{index}].type",
            )
    item = Item(new.id or fresh_id, "message", role=new.role)
    item.content = "output_text" if new.role == "assistant" else "input_text"
    item.text = "\n".join(part.text for part in new.content)
    return item


def json_object(text: str) -> None:
    """Check that a call's arguments are a JSON object. Raises :class:`RequestError`."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise RequestError("The arguments are not valid JSON.", param="item.arguments") from error
    if not isinstance(value, dict):
        raise RequestError("The arguments are not a JSON object.", param="item.arguments")


class Conversation:
    """The items, in order."""

    def __init__(self, identity: str) -> None:
        self.id = identity
        self._items: dict[str, Item] = {}
        self._order: list[str] = []

    def __iter__(self) -> Iterator[Item]:
        return (self._items[identity] for identity in self._order)

    def __contains__(self, identity: str) -> bool:
        return identity in self._items

    def __len__(self) -> int:
        return len(self._order)

    def find(self, identity: str) -> Item:
        """The item. Raises :class:`RequestError` where there is none."""
        item = self._items.get(identity)
        if item is None:
            raise RequestError(
                f"Item with item_id not found: {identity[:64]!r}.", code="item_not_found", param="item_id"
            )
        return item

    def add(self, item: Item, after: str | None = None) -> str | None:
        """Add at the end, at the beginning (``root``) or after an item; returns the id before it.

        Raises:
            RequestError: the id is taken, ``after`` is not known, or it answers no call.
        """
        if item.id in self._items:
            raise RequestError(
                f"Item with id {item.id!r} exists already.", code="item_exists", param="item.id"
            )
        if item.type == "function_call_output" and not self._asked(item.call_id):
            raise RequestError(
                f"Tool call ID {item.call_id[:64]!r} not found in conversation.",
                code="invalid_tool_call_id",
                param="item.call_id",
            )
        place = len(self._order)
        if after == "root":
            place = 0
        elif after is not None:
            if after not in self._items:
                raise RequestError(
                    f"Previous item with id {after[:64]!r} not found.",
                    code="item_not_found",
                    param="previous_item_id",
                )
            place = self._order.index(after) + 1
        self._items[item.id] = item
        self._order.insert(place, item.id)
        return self._order[place - 1] if place else None

    def delete(self, identity: str) -> Item:
        """Forget an item. Raises :class:`RequestError` where there is none."""
        item = self.find(identity)
        del self._items[identity]
        self._order.remove(identity)
        return item

    def _asked(self, call_id: str) -> bool:
        return any(item.type == "function_call" and item.call_id == call_id for item in self._items.values())
