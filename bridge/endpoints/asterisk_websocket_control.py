"""The control messages of Asterisk's WebSocket channel, without I/O: events read, commands written.

Text messages are control, binary ones are media. Both forms of control are spoken, JSON and plain text; the
first event of a connection shows which one the channel was made with, and commands go out in the same. Names
and fields are those of ``chan_websocket.c`` in Asterisk 22.10.1 and were held against the module itself.

Asterisk passes over a text message of ours that is longer than 128 bytes: none is ever made. The limits on
what it sends are security limits; each says what it protects.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import orjson

from bridge.endpoints.flow import ControlError

MAX_COMMAND_BYTES = 128
"""Asterisk ignores a longer text message (MAX_TEXT_MESSAGE_LEN)."""

MAX_EVENT_BYTES = 65_500
"""The longest event that is read. MEDIA_START carries all variables of the channel. Protects memory."""

MAX_VARIABLES = 1_000
"""Of a channel; more are refused. Protects memory and the time that reading them takes."""

MAX_FIELD_CHARS = 256
"""Of a name, an id, a format. Asterisk's channel names and ids are shorter than that. Protects the log."""

MAX_FRAME_BYTES = 65_500
"""An optimal_frame_size above it can't be sent in one message."""

MAX_PTIME_MS = 300
"""The longest packet time that any of Asterisk's codecs allows."""

MAX_COUNT = 1_000_000
"""Of frames in a queue. Protects arithmetic from absurd numbers."""

DTMF_DIGITS = "0123456789ABCD*#"

CORRELATION_ID = re.compile(r"[A-Za-z0-9_.:-]{1,48}")
"""What we use as an id: it means the same in both forms, and leaves room for the rest of the command."""


class Form(Enum):
    """How control messages are written on a connection."""

    JSON = "json"
    PLAIN = "plain-text"


class Command(Enum):
    """What a server may ask of the channel."""

    ANSWER = "ANSWER"
    HANGUP = "HANGUP"
    START_MEDIA_BUFFERING = "START_MEDIA_BUFFERING"
    STOP_MEDIA_BUFFERING = "STOP_MEDIA_BUFFERING"
    MARK_MEDIA = "MARK_MEDIA"
    FLUSH_MEDIA = "FLUSH_MEDIA"
    PAUSE_MEDIA = "PAUSE_MEDIA"
    CONTINUE_MEDIA = "CONTINUE_MEDIA"
    REPORT_QUEUE_DRAINED = "REPORT_QUEUE_DRAINED"
    GET_STATUS = "GET_STATUS"


_WITH_ID = (Command.STOP_MEDIA_BUFFERING, Command.MARK_MEDIA)


# --------------------------------------------------------------------------------------------------------
# Events
# --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MediaStart:
    """The first event: the channel is joined to this connection.

    Attributes:
        connection_id: the name in websocket_client.conf, or the UUID of an ``INCOMING`` channel.
        channel: the channel's name; ``channel_id`` its unique id, by which ARI knows it.
        format: what the binary messages hold, by Asterisk's name.
        optimal_frame_size: bytes of one frame; 0 in passthrough mode, where Asterisk re-frames nothing.
        ptime_ms: how long one frame lasts.
        variables: of the channel; plain text has none.
    """

    connection_id: str
    channel: str
    channel_id: str
    format: str
    optimal_frame_size: int
    ptime_ms: int
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DtmfEnd:
    """A key was let go."""

    digit: str


@dataclass(frozen=True, slots=True)
class MediaXoff:
    """Asterisk's queue is nearly full: send nothing until XON."""


@dataclass(frozen=True, slots=True)
class MediaXon:
    """Media may be sent again."""


@dataclass(frozen=True, slots=True)
class BufferingCompleted:
    """All media before STOP_MEDIA_BUFFERING has been played."""

    correlation_id: str


@dataclass(frozen=True, slots=True)
class MarkProcessed:
    """All media before the mark has been played."""

    correlation_id: str


@dataclass(frozen=True, slots=True)
class QueueDrained:
    """The queue ran empty after REPORT_QUEUE_DRAINED."""


@dataclass(frozen=True, slots=True)
class Status:
    """What Asterisk holds of ours, in frames, and in which state."""

    queue_length: int
    xon_level: int
    xoff_level: int
    queue_full: bool
    bulk_media: bool
    media_paused: bool


@dataclass(frozen=True, slots=True)
class ChannelError:
    """Asterisk could not do what was asked; the call goes on."""

    text: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """An event of a later Asterisk: passed over."""

    name: str


Event = (
    MediaStart
    | DtmfEnd
    | MediaXoff
    | MediaXon
    | BufferingCompleted
    | MarkProcessed
    | QueueDrained
    | Status
    | ChannelError
    | Unknown
)


# --------------------------------------------------------------------------------------------------------
# Commands
# --------------------------------------------------------------------------------------------------------


def command(form: Form, name: Command, correlation_id: str = "") -> str:
    """One command, ready to be sent as a text message.

    Raises:
        ValueError: an id where the command takes none, or one that is not like :data:`CORRELATION_ID`.
    """
    if correlation_id:
        if name not in _WITH_ID:
            raise ValueError(f"{name.value} takes no id")
        if not CORRELATION_ID.fullmatch(correlation_id):
            raise ValueError(f"an id is like {CORRELATION_ID.pattern}, not {correlation_id!r}")
    if form is Form.PLAIN:
        text = f"{name.value} {correlation_id}".rstrip()
    else:
        fields = {"command": name.value}
        if correlation_id:
            fields["correlation_id"] = correlation_id
        text = orjson.dumps(fields).decode()
    assert len(text) <= MAX_COMMAND_BYTES
    return text


# --------------------------------------------------------------------------------------------------------
# Reading events
# --------------------------------------------------------------------------------------------------------

_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_KEY = re.compile(r"(?:^| )([a-z][a-z_]*):")


def parse(message: bytes) -> tuple[Form, Event]:
    """One text message: the form it is in, and what it says.

    Raises:
        ControlError: it is no event; whatever a peer sends, nothing else is raised.
    """
    if not 0 < len(message) <= MAX_EVENT_BYTES:
        raise ControlError(f"a control message of {len(message)} bytes", f"1 to {MAX_EVENT_BYTES}")
    if message[:1] == b"{":
        return Form.JSON, _parse_json(message)
    try:
        text = message.decode()
    except UnicodeDecodeError:
        raise ControlError("a control message that is not UTF-8", "UTF-8") from None
    return Form.PLAIN, _parse_plain(text)


def _parse_json(message: bytes) -> Event:
    try:
        tree = orjson.loads(message)
    except orjson.JSONDecodeError:
        raise ControlError("a control message that is not JSON", "JSON, or plain text") from None
    name = tree.get("event")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ControlError("a control message without an event", "an event's name in capitals")
    return _event(name, tree)


def _parse_plain(text: str) -> Event:
    """``NAME``, then ``key:value`` pairs, or for two of the events the bare id."""
    name, _, rest = text.partition(" ")
    if not _NAME.fullmatch(name):
        raise ControlError("a control message without an event", "an event's name in capitals")
    if name in ("MEDIA_MARK_PROCESSED", "MEDIA_BUFFERING_COMPLETED"):
        return _event(name, {"correlation_id": rest})
    fields: dict[str, Any] = {}
    if name == "ERROR":  # its text may hold anything, what looks like a key too
        rest, _, fields["error_text"] = rest.partition("error_text:")
    keys = list(_KEY.finditer(rest))
    ends = [key.start() for key in keys[1:]] + [len(rest)]
    for this, end in zip(keys, ends, strict=False):
        fields.setdefault(this[1], rest[this.end() : end].rstrip())
    return _event(name, fields)


def _event(name: str, fields: Mapping[str, Any]) -> Event:
    read = _READERS.get(name)
    return read(fields) if read is not None else Unknown(name)


def _text(fields: Mapping[str, Any], key: str, *, empty: bool = False) -> str:
    value = fields.get(key)
    if value is None and empty:
        return ""
    if not isinstance(value, str) or len(value) > MAX_FIELD_CHARS or not (value or empty):
        raise ControlError(f"no proper {key}", f"text of 1 to {MAX_FIELD_CHARS} characters")
    return value


def _number(fields: Mapping[str, Any], key: str, least: int, most: int) -> int:
    value = fields.get(key)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 9:
        value = int(value)  # plain text
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ControlError(f"no proper {key}", f"a whole number, {least} to {most}")
    return value


def _flag(fields: Mapping[str, Any], key: str) -> bool:
    value = fields.get(key)
    if value not in (True, False, "true", "false"):
        raise ControlError(f"no proper {key}", "true or false")
    return value in (True, "true")


def _media_start(fields: Mapping[str, Any]) -> MediaStart:
    variables = fields.get("channel_variables") or {}
    if not isinstance(variables, dict) or len(variables) > MAX_VARIABLES:
        raise ControlError("improper channel_variables", f"a table of up to {MAX_VARIABLES}")
    return MediaStart(
        connection_id=_text(fields, "connection_id"),
        channel=_text(fields, "channel"),
        channel_id=_text(fields, "channel_id"),
        format=_text(fields, "format"),
        optimal_frame_size=_number(fields, "optimal_frame_size", 0, MAX_FRAME_BYTES),
        ptime_ms=_number(fields, "ptime", 1, MAX_PTIME_MS),
        variables={key: value for key, value in variables.items() if isinstance(value, str)},
    )


def _dtmf_end(fields: Mapping[str, Any]) -> DtmfEnd:
    digit = fields.get("digit")
    if not isinstance(digit, str) or len(digit) != 1 or digit.upper() not in DTMF_DIGITS:
        raise ControlError("no proper digit", f"one of {DTMF_DIGITS}")
    return DtmfEnd(digit.upper())


def _status(fields: Mapping[str, Any]) -> Status:
    return Status(
        queue_length=_number(fields, "queue_length", 0, MAX_COUNT),
        xon_level=_number(fields, "xon_level", 0, MAX_COUNT),
        xoff_level=_number(fields, "xoff_level", 0, MAX_COUNT),
        queue_full=_flag(fields, "queue_full"),
        bulk_media=_flag(fields, "bulk_media"),
        media_paused=_flag(fields, "media_paused"),
    )


_READERS: Mapping[str, Callable[[Mapping[str, Any]], Event]] = {
    "MEDIA_START": _media_start,
    "DTMF_END": _dtmf_end,
    "MEDIA_XOFF": lambda _: MediaXoff(),
    "MEDIA_XON": lambda _: MediaXon(),
    "MEDIA_BUFFERING_COMPLETED": lambda fields: BufferingCompleted(
        _text(fields, "correlation_id", empty=True)
    ),
    "MEDIA_MARK_PROCESSED": lambda fields: MarkProcessed(_text(fields, "correlation_id", empty=True)),
    "QUEUE_DRAINED": lambda _: QueueDrained(),
    "STATUS": _status,
    "ERROR": lambda fields: ChannelError(str(fields.get("error_text", ""))[:MAX_FIELD_CHARS]),
}
