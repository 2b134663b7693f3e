"""How both legs' policies read a history: what to say next is a pure function of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, Protocol, TypeVar

from providers.local.dialogue.base import (
    AgentSaid,
    Call,
    CallAnswered,
    CallMade,
    History,
    Say,
    SystemSaid,
    UserSaid,
)
from providers.local.dialogue.remembering import SILENCE, Reply, is_ours
from visits.words import fold


class Memory(Protocol):
    """What a policy makes of a history, entry by entry."""

    def hear(self, text: str) -> None: ...
    def host_said(self, text: str, /) -> None: ...
    def silence(self) -> None: ...
    def call(self, made: CallMade) -> None: ...
    def answer(self, call_id: str, output: str) -> None: ...


MemoryT = TypeVar("MemoryT", bound=Memory)


class Policy(ABC, Generic[MemoryT]):
    """What is said and called on one leg; a pure function of the history."""

    def respond(self, history: History) -> list[Say | Call]:
        """What comes next after this history."""
        reply = self._decide(self._remember(history))
        return [*([Say(reply.text)] if reply.text else []), *reply.calls]

    def _remember(self, history: History) -> MemoryT:
        """Fold the history. What we said is known again by deciding anew what we would have said there."""
        memory = self._blank()
        for entry in history:
            match entry:
                case UserSaid(text):
                    memory.hear(text)
                case AgentSaid(text) if text.strip():
                    reply = self._decide(memory)
                    if is_ours(text, reply.text):
                        self._said(memory, reply, text)
                    else:
                        memory.host_said(text)
                case SystemSaid(text) if fold(text).startswith(SILENCE):
                    memory.silence()
                case CallMade():
                    memory.call(entry)
                case CallAnswered(call_id, output):
                    memory.answer(call_id, output)
                case _:
                    pass  # a note that asks for nothing
        return memory

    @abstractmethod
    def _blank(self) -> MemoryT:
        """The memory of an empty history."""

    @abstractmethod
    def _said(self, memory: MemoryT, reply: Reply, heard: str) -> None:
        """A reply of ours was heard, or enough of it to speak over it."""

    @abstractmethod
    def _decide(self, memory: MemoryT) -> Reply:
        """The one place where the order of things is laid down."""
