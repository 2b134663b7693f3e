"""What an adapter's conversation is to the session around its socket. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from providers.base import Event, Heard, Speak, ToolCall


class SessionOver(Exception):
    """Nothing more can come of this session.

    Attributes:
        code: one word, for logs and for choosing what to do next.
        message: plain words.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class MalformedMessage(ValueError):
    """The server sent something that is not a message of its protocol."""


class Conversing(Protocol):
    """The intents of :class:`providers.base.Session`, and what the session asks."""

    @property
    def busy(self) -> bool: ...

    def passes(self, event: Event) -> bool:
        """Whether an event that waited still counts."""

    def interrupt(self, heard: Heard | None) -> None: ...
    def auto_reply(self, on: bool) -> None: ...
    def doubt_turn(self) -> None: ...
    def settle_turn(self, reply: bool) -> None: ...
    def note(self, text: str) -> None: ...
    def speak_about(self, text: str) -> str: ...
    def say_exactly(self, text: str) -> str: ...
    def answer(self, call: ToolCall, result: Mapping[str, Any], speak: Speak) -> None: ...
