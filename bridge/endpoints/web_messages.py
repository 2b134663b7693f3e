"""What a client of `/ws/audio/{number}` and we say to each other, without I/O; see docs/browser-calls.md.

Sound is signed 16-bit little-endian mono PCM at 24 kHz, both ways: a binary message, or base64 in a JSON
text. Whatever a client sends is read with limits; what can't be read is a :class:`MessageError`, which ends
the call.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any, Final

import msgspec
import orjson

RATE: Final = 24_000
"""Samples per second."""
MAX_AUDIO_S: Final = 2.0
"""The longest sound in one message."""
MAX_AUDIO_BYTES: Final = int(MAX_AUDIO_S * RATE) * 2
MAX_MESSAGE_BYTES: Final = MAX_AUDIO_BYTES * 4 // 3 + 1024
"""Of any message: the longest sound in base64, and the JSON around it."""
MOST_SHOWN: Final = 80
"""Letters of what was found, in what is told of it."""

NORMAL: Final = 1000
NOT_READABLE: Final = 1007
NOT_ALLOWED: Final = 1008
PROVIDER_UNREACHABLE: Final = 1011
FULL: Final = 1013
NO_RIGHT: Final = 4401
UNKNOWN_NUMBER: Final = 4004
"""Close codes: those of RFC 6455 and its registry, and from 4000 on our own."""


class MessageError(ValueError):
    """A client sent what nobody can read; the text says what was found and what is allowed."""


class Sound(msgspec.Struct, frozen=True, tag="audio", forbid_unknown_fields=True):
    """What the caller says."""

    audio: bytes


class Key(msgspec.Struct, frozen=True, tag="key", forbid_unknown_fields=True):
    """A telephone's key: one of ``0-9A-D*#``."""

    key: str


class HangUp(msgspec.Struct, frozen=True, tag="hangup", forbid_unknown_fields=True):
    """The caller puts the phone down."""


class Answer(msgspec.Struct, frozen=True, tag="answer", forbid_unknown_fields=True):
    """Whoever plays the resident takes the call; with the token that the ringing gave."""

    token: str


Message = Sound | Key | HangUp | Answer

_READER: Final = msgspec.json.Decoder(Message)
_KEYS: Final = frozenset("0123456789ABCD*#")


def read_binary(data: bytes) -> Sound:
    """A binary message.

    Raises:
        MessageError: half a sample, or too much.
    """
    return _checked(Sound(data))


def read_text(text: str) -> Message:
    """A text message.

    Raises:
        MessageError: no JSON, an unknown type, fields that are wrong, half a sample, or too much.
    """
    try:
        message = _READER.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise MessageError(
            f"found {text[:MOST_SHOWN]!r} ({str(error)[:MOST_SHOWN]}); allowed: JSON objects of the types "
            "audio, key, hangup and answer"
        ) from None
    if isinstance(message, Key) and message.key not in _KEYS:
        raise MessageError(f"key: found {message.key[:MOST_SHOWN]!r}; allowed: one of 0-9 A-D * #")
    return _checked(message) if isinstance(message, Sound) else message


def _checked(sound: Sound) -> Sound:
    size = len(sound.audio)
    if size % 2:
        raise MessageError(f"audio: found {size} bytes; allowed: an even number, samples have 2 bytes")
    if size > MAX_AUDIO_BYTES:
        raise MessageError(f"audio: found {size} bytes; allowed are {MAX_AUDIO_BYTES}, {MAX_AUDIO_S:g} s")
    return sound


def sound_text(pcm: bytes) -> str:
    """What we say, as a text message."""
    return '{"type":"audio","audio":"' + b64encode(pcm).decode("ascii") + '"}'


def event_text(kind: str, /, **data: Any) -> str:
    """Something that happened, as a text message."""
    return orjson.dumps({"type": kind, **data}).decode()
