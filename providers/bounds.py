"""How much a model may say, and in which form: what a session gives is held to it before anybody else has it.

A provider's words end up in the record, in the log and in the next session's history, and each of its events
is work for the visit. No I/O; ``providers/failover.py`` asks, for every provider.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from providers.base import (
    AudioDone,
    Event,
    Failed,
    ItemStarted,
    ResponseDone,
    ResponseStarted,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
    ToolCallCancelled,
    Transcript,
    TranscriptFailed,
)
from providers.conversing import MalformedMessage

MAX_NAME: Final = 256
"""Longest name of an item, a response or a call, in characters; the vendors' have up to 64."""
MAX_TOOL: Final = 64
"""Longest name of a tool, as the vendors allow them."""
MAX_ARGUMENTS: Final = 8_192
"""So much of a call's arguments is kept, in characters: more than any tool reads."""
MAX_WORDS: Final = 5_000
"""Longest text of one turn or one item, in characters: four minutes of speech."""
MAX_REASON: Final = 300
"""Longest words of a provider about what went wrong, in characters; it may quote what it was sent."""
MAX_AHEAD_S: Final = 300.0
"""So much sound may wait to be heard; no visit lasts longer by default."""
WINDOW_S: Final = 5.0
MAX_EVENTS: Final = 2_000
"""Events that are no sound, within :data:`WINDOW_S`; a quick model that writes as it speaks has 300."""
CALLS_S: Final = 60.0
MAX_CALLS: Final = 60
"""Tool calls within :data:`CALLS_S`: each is answered, and on record twice."""


def bounded(event: Event) -> Event:
    """The event as it may go on.

    What somebody said in more words than can be is a turn without words: half of it might be taken for all.

    Raises:
        MalformedMessage: it isn't what its type says.
    """
    match event:
        case Transcript():
            _check(event.item)
            if not isinstance(event.text, str):
                raise MalformedMessage(f"a transcript that is no text: {type(event.text).__name__}")
            if len(event.text) <= MAX_WORDS:
                return event
            if event.role == "caller" and event.final:
                return TranscriptFailed(event.item, f"more than {MAX_WORDS} characters for one turn")
            return replace(event, text=event.text[:MAX_WORDS])
        case ItemStarted() | AudioDone() | SpeechStarted() | SpeechStopped():
            _check(event.item)
        case TranscriptFailed():
            _check(event.item)
            return replace(event, reason=in_short(event.reason))
        case ResponseStarted():
            _check(event.response)
        case ResponseDone():
            _check(event.response)
            return replace(event, detail=in_short(event.detail))
        case ToolCallCancelled():
            _check(event.id)
        case ToolCall():
            return _call(event)
        case Failed():
            return replace(event, code=in_short(event.code), message=in_short(event.message))
    return event


def in_short(reason: object) -> str:
    """A provider's words about itself: one line, and not too long."""
    text = " ".join(str(reason)[: 4 * MAX_REASON].split())
    return text if len(text) <= MAX_REASON else f"{text[: MAX_REASON - 1]}…"


def _call(call: ToolCall) -> ToolCall:
    _check(call.id)
    if not isinstance(call.name, str):
        raise MalformedMessage(f"a tool's name that is no text: {type(call.name).__name__}")
    arguments: object = call.arguments
    if arguments is None:  # how some say that there are none
        arguments = ""
    if not isinstance(arguments, str):
        raise MalformedMessage(f"a tool's arguments that are no text: {type(arguments).__name__}")
    return replace(call, name=call.name[:MAX_TOOL], arguments=arguments[:MAX_ARGUMENTS])


def _check(name: object) -> None:
    if not isinstance(name, str):
        raise MalformedMessage(f"a name that is no text: {type(name).__name__}")
    if len(name) > MAX_NAME:
        raise MalformedMessage(f"a name of {len(name)} characters; allowed are {MAX_NAME}")


class Rate:
    """Counts what comes, within windows of a fixed length."""

    def __init__(self, most: int, within_s: float) -> None:
        self._most = most
        self._within_s = within_s
        self._since = 0.0
        self._count = 0

    def exceeded(self, now: float) -> bool:
        """One more came. Whether that is one too many."""
        if now - self._since >= self._within_s:
            self._since, self._count = now, 0
        self._count += 1
        return self._count > self._most


__all__ = [
    "CALLS_S",
    "MAX_AHEAD_S",
    "MAX_ARGUMENTS",
    "MAX_CALLS",
    "MAX_EVENTS",
    "MAX_NAME",
    "MAX_REASON",
    "MAX_TOOL",
    "MAX_WORDS",
    "WINDOW_S",
    "Rate",
    "bounded",
    "in_short",
]
