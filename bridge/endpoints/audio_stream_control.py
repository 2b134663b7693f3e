"""The text messages of FreeSWITCH's audio streams, without I/O: what the module says, what it is told.

Three modules are meant, and each is told apart only by what it does with our audio: ``mod_audio_stream``
(amigniter's, and voxcom's fork of it) and ``mod_audio_fork`` (drachtio's and jambonz's). On connecting, each
sends the metadata that it was started with as one text message, where there is any, then the audio.
``uuid_audio_stream … send_text`` and ``… stop`` send further texts. Names, fields and lengths are those of
the modules' sources. The limits are security limits; each says what it protects.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

import orjson

from bridge.endpoints.flow import ControlError

MAX_METADATA_BYTES = 8_192
"""The modules keep the metadata in a buffer of this size (MAX_METADATA_LEN). Protects memory."""

MAX_TEXT_BYTES = 65_500
"""Of any later text. Protects memory."""

MAX_FIELD_CHARS = 256
"""Of a number or a name in the metadata. Protects the log and the audit."""

DTMF_DIGITS = "0123456789ABCD*#"

RATES = (8_000, 16_000)
"""Samples per second that a stream may have."""

Playback = Literal["binary", "fork", "base64", "file"]
"""What a module does with our audio.

``binary``: mod_audio_stream 1.0.3 with STREAM_PLAYBACK plays binary messages. ``fork``: mod_audio_fork plays
them too, and drops what it holds when it is told ``killAudio``. ``base64``: voxcom's fork plays
``streamAudio`` messages with raw audio. ``file``: mod_audio_stream as it is open plays nothing; the channel
plays files, over the event socket.
"""

Chosen = Literal["auto", "binary", "fork", "base64", "file"]
"""The same as a site sets it. ``auto``: as the stream shows it."""

KILL_AUDIO = '{"type":"killAudio"}'
"""Has mod_audio_fork drop what it holds, at its next frame."""


@dataclass(frozen=True, slots=True)
class StreamForm:
    """What a stream's binary messages hold, and how our audio goes back.

    Attributes:
        playback: see :data:`Chosen`.
        rate: samples per second, both ways.
        channels: of what comes up: 2, and the caller is on the left.
    """

    playback: Chosen = "auto"
    rate: int = 8_000
    channels: int = 1

    @property
    def frame_bytes(self) -> int:
        """Of one sample of every channel."""
        return 2 * self.channels

    def seconds(self, size: int) -> float:
        """How long so many bytes last."""
        return size / (self.rate * self.frame_bytes)


@dataclass(frozen=True, slots=True)
class Metadata:
    """What the dialplan says of a call. Nothing of it decides who may come in.

    Attributes:
        caller_id: the caller's number.
        extension: the number that was dialled.
        form: what the metadata said of the stream, over what the site has set.
        called: we had the phone called (``bridge/dialing/esl.py``): no visitor's.
    """

    caller_id: str
    extension: str
    form: StreamForm
    called: bool = False


@dataclass(frozen=True, slots=True)
class Key:
    """A key was pressed: ``{"type":"dtmf","digit":"1"}``, which a dialplan or script sends."""

    digit: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """A text that is not for us: passed over."""


def metadata_of(message: bytes, form: StreamForm) -> Metadata:
    """The first text message.

    Args:
        message: a JSON object. Of its fields ``caller_id``, ``extension``, ``playback``, ``sample_rate``,
            ``channels`` and ``attempt`` are read; others may be there.
        form: as the site has set it.

    Raises:
        ControlError: it is none; whatever a peer sends, nothing else is raised.
    """
    if not 0 < len(message) <= MAX_METADATA_BYTES:
        raise ControlError(f"metadata of {len(message)} bytes", f"1 to {MAX_METADATA_BYTES}")
    tree = _json(message)
    if not isinstance(tree, dict):
        raise ControlError("metadata that is no JSON object", "one JSON object, in UTF-8")
    return Metadata(
        caller_id=_field(tree, "caller_id"),
        extension=_field(tree, "extension"),
        form=_form(tree, form),
        called="attempt" in tree,
    )


def text_of(message: bytes) -> Key | Unknown:
    """A later text message.

    Raises:
        ControlError: it is too long, or a key that there is not.
    """
    if len(message) > MAX_TEXT_BYTES:
        raise ControlError(f"a text of {len(message)} bytes", f"up to {MAX_TEXT_BYTES}")
    tree = _json(message)
    if not isinstance(tree, dict) or tree.get("type") != "dtmf":
        return Unknown()
    digit = tree.get("digit")
    if not isinstance(digit, str) or len(digit) != 1 or digit.upper() not in DTMF_DIGITS:
        raise ControlError("no proper digit", f"one of {DTMF_DIGITS}")
    return Key(digit.upper())


def stream_audio(pcm: bytes, rate: int) -> str:
    """Audio as one ``streamAudio`` message.

    Args:
        pcm: little-endian signed 16-bit, with as many channels as the stream has.
        rate: voxcom's fork passes it over and plays at the stream's.
    """
    audio = base64.b64encode(pcm).decode()
    head = f'{{"type":"streamAudio","data":{{"audioDataType":"raw","sampleRate":{rate},"audioData":"'
    return f'{head}{audio}"}}}}'


# --------------------------------------------------------------------------------------------------------
# Reading
# --------------------------------------------------------------------------------------------------------

_PRINTABLE = re.compile(r"[^\x00-\x1f\x7f]*")


def _json(message: bytes) -> Any:
    try:
        return orjson.loads(message)
    except orjson.JSONDecodeError:
        return None


def _field(tree: Mapping[str, Any], key: str) -> str:
    """A number or a name; empty where there is none. FusionPBX's scripts write some numbers as numbers."""
    value = tree.get(key)
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or len(value) > MAX_FIELD_CHARS or not _PRINTABLE.fullmatch(value):
        raise ControlError(f"no proper {key}", f"printable text of up to {MAX_FIELD_CHARS} characters")
    return value


def _form(tree: Mapping[str, Any], form: StreamForm) -> StreamForm:
    rate = tree.get("sample_rate", form.rate)
    if isinstance(rate, bool) or rate not in RATES:
        raise ControlError("another sample_rate", " or ".join(map(str, RATES)))
    channels = tree.get("channels", form.channels)
    if isinstance(channels, bool) or channels not in (1, 2):
        raise ControlError("another number of channels", "1 or 2")
    playback = tree.get("playback", "auto")
    if playback not in get_args(Chosen):
        raise ControlError("another playback", ", ".join(get_args(Chosen)))
    if playback == "file" and form.playback != "file":
        raise ControlError(
            "playback of files, which is not set up here", "freeswitch.playback and esl.sounds"
        )
    if form.playback != "auto" or playback == "auto":  # what the site has set is what it has
        playback = form.playback
    return replace(form, playback=cast(Chosen, playback), rate=int(rate), channels=int(channels))


__all__ = [
    "KILL_AUDIO",
    "MAX_METADATA_BYTES",
    "MAX_TEXT_BYTES",
    "RATES",
    "Chosen",
    "ControlError",
    "Key",
    "Metadata",
    "Playback",
    "StreamForm",
    "Unknown",
    "metadata_of",
    "stream_audio",
    "text_of",
]
