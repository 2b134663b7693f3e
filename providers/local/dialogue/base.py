"""The seam between the model server and what it talks with: the history in, words and calls out."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from providers.base import Usage


@dataclass(frozen=True, slots=True)
class UserSaid:
    """A turn of the caller, as it was recognised. Empty: sound was heard, but no words in it."""

    text: str


@dataclass(frozen=True, slots=True)
class AgentSaid:
    """What we said, as it was *heard*: cut at the word where the caller spoke over it."""

    text: str


@dataclass(frozen=True, slots=True)
class SystemSaid:
    """A note from the host, put into the conversation by a message item of role ``system``."""

    text: str


@dataclass(frozen=True, slots=True)
class CallMade:
    """A function call that we asked for. ``arguments`` is JSON text, as it went out."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class CallAnswered:
    """What the host answered to a call. ``output`` is its text, verbatim (JSON by our own tools' custom)."""

    call_id: str
    output: str


Entry = UserSaid | AgentSaid | SystemSaid | CallMade | CallAnswered
History = Sequence[Entry]
"""The conversation in its order, oldest first."""


@dataclass(frozen=True, slots=True)
class Say:
    """Words to be spoken."""

    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """A function of the session's tools to be called."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class WrittenCall:
    """The same in a language model's own words: ``arguments`` is text that whoever runs the tool checks."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Began:
    """The first token is there; nothing is to be said yet."""


@dataclass(frozen=True, slots=True)
class Used:
    """What a language model counted, in tokens. ``cached`` is part of ``input``."""

    input: int
    output: int
    cached: int = 0


Part = Began | Say | Call | WrittenCall | Used


class CutShort(Exception):
    """The reply ends before its end; ``reason`` is the protocol's."""

    def __init__(self, reason: Literal["max_output_tokens", "content_filter"]) -> None:
        super().__init__(reason)
        self.reason = reason


_EXACT: Final = re.compile(r"^[^«»]{0,200}:\s*«(.*)»\s*$", re.DOTALL)
"""How exact words are asked for, in any language: ``Diga exatamente, palavra por palavra: «…»``."""


def exact_words(response_instructions: str | None) -> str | None:
    """The words that a response is to say exactly; None where it is to find its own."""
    exact = _EXACT.match(response_instructions or "")
    return None if exact is None else exact[1].strip()


class Dialogue(Protocol):
    """One session's conversation partner, one object a session."""

    def configure(self, instructions: str, tools: Sequence[Mapping[str, Any]]) -> None:
        """Take over the session's instructions and tools (``{"type": "function", "name": …}`` as in the
        protocol). Called whenever a session's update changes one of them.

        Raises:
            ValueError: it can't work with these; what was configured before stays in force.
        """

    def reply(
        self, history: History, response_instructions: str | None, tool_choice: str
    ) -> AsyncGenerator[Part, None]:
        """What one response holds, each part as soon as it is known; closing the iterator stops the work.

        Args:
            history: everything so far.
            response_instructions: those of this one response, in place of the session's; None: none given.
            tool_choice: ``auto``, ``none``, ``required``, or the name of the one function to call.

        Raises:
            ValueError: it was never configured with anything that it can work with.
            CutShort: no more comes, although there was more to say.
            providers.local.stage.StageError: it can't be asked, or broke off.
        """


class DialogueEngine(Protocol):
    """A :class:`Dialogue` that knows its whole reply at once: quick (milliseconds), a pure function."""

    def configure(self, instructions: str, tools: Sequence[Mapping[str, Any]]) -> None:
        """Take over the session's instructions and tools (``{"type": "function", "name": …}`` as in the
        protocol). Called whenever a session's update changes one of them.

        Raises:
            ValueError: the engine can't work with these; what was configured before stays in force.
        """

    def respond(
        self, history: History, response_instructions: str | None, tool_choice: str
    ) -> list[Say | Call]:
        """What one response holds: at most one :class:`Say`, and any calls, in their order.

        Args:
            history: everything so far; the engine keeps nothing from earlier calls.
            response_instructions: those of this one response, in place of the session's; None: none given.
            tool_choice: ``auto``, ``none``, ``required``, or the name of the one function to call.

        Raises:
            ValueError: it was never configured with anything that it can work with.
        """


class AtOnce:
    """An engine as a :class:`Dialogue`."""

    def __init__(self, engine: DialogueEngine) -> None:
        self._engine = engine

    def configure(self, instructions: str, tools: Sequence[Mapping[str, Any]]) -> None:
        """See :class:`Dialogue`."""
        self._engine.configure(instructions, tools)

    async def reply(
        self, history: History, response_instructions: str | None, tool_choice: str
    ) -> AsyncGenerator[Part, None]:
        """See :class:`Dialogue`."""
        for part in self._engine.respond(history, response_instructions, tool_choice):
            yield part


NewDialogue = Callable[[Callable[[Usage], None]], Dialogue]
"""Makes a dialogue for a session, which is told what is to be paid."""


def at_once(new_engine: Callable[[], DialogueEngine]) -> NewDialogue:
    """The same of what makes an engine: it costs nothing."""
    return lambda bill: AtOnce(new_engine())
