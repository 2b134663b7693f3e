"""The seam between the model server and its dialogue engine: the history in, words and calls out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


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


class DialogueEngine(Protocol):
    """One conversation's mind, one object a session: quick (milliseconds), a pure function of its input."""

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
