"""Audio formats: their names in settings and in OpenAI's Realtime protocol, and their bytes as PCM.

G.711 is what the telephone network itself speaks: with it nothing is resampled on our side, and a message is
a sixth as long. Field names are those of the openai SDK's ``types.realtime.realtime_audio_formats`` (3.52);
that protocol has no other rates than those in :data:`FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from audio.frames import SAMPLE_BYTES, TELEPHONE_RATE
from audio.g711 import alaw_decode, alaw_encode, ulaw_decode, ulaw_encode
from providers.base import Encoding

PCM_RATE: Final = 24000
"""Samples per second of ``audio/pcm``, the only rate that the protocol has for it."""

FormatName = Literal["pcm24", "pcm16", "pcm8", "pcmu", "pcma"]
"""In settings: PCM at 24, 16 or 8 kHz, µ-law, A-law. Which of them a provider has is its own matter."""


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """One format. ``encode`` and ``decode`` translate between whole samples of it and 16-bit PCM at ``rate``.

    Attributes:
        name: in settings.
        encoding: in :class:`providers.base.Capabilities`.
        rate: samples per second, of its PCM too.
        sample_bytes: of one sample on the wire.
        wire: as OpenAI's messages name it; empty where they can't.
    """

    name: FormatName
    encoding: Encoding
    rate: int
    sample_bytes: int
    wire: Mapping[str, Any]
    encode: Callable[[bytes], bytes]
    decode: Callable[[bytes], bytes]

    @property
    def pcm_bytes_per_ms(self) -> int:
        """Of its PCM."""
        return self.rate * SAMPLE_BYTES // 1000


def _as_it_is(pcm: bytes) -> bytes:
    return pcm


PCM24: Final = AudioFormat(
    "pcm24",
    "pcm",
    PCM_RATE,
    SAMPLE_BYTES,
    {"type": "audio/pcm", "rate": PCM_RATE},
    _as_it_is,
    _as_it_is,
)
PCM16: Final = AudioFormat("pcm16", "pcm", 16000, SAMPLE_BYTES, {}, _as_it_is, _as_it_is)
PCM8: Final = AudioFormat("pcm8", "pcm", TELEPHONE_RATE, SAMPLE_BYTES, {}, _as_it_is, _as_it_is)
PCMU: Final = AudioFormat("pcmu", "pcmu", TELEPHONE_RATE, 1, {"type": "audio/pcmu"}, ulaw_encode, ulaw_decode)
PCMA: Final = AudioFormat("pcma", "pcma", TELEPHONE_RATE, 1, {"type": "audio/pcma"}, alaw_encode, alaw_decode)
FORMATS: Final[Mapping[FormatName, AudioFormat]] = {one.name: one for one in (PCM24, PCMU, PCMA)}
"""Those of OpenAI's protocol, by their names in settings."""


class UnknownFormat(ValueError):
    """A format that nobody here can read; the text says what was found and what is allowed."""


def format_of(wire: Mapping[str, Any]) -> AudioFormat:
    """The format that a message names. A rate may be left out: each format has one.

    Raises:
        UnknownFormat: another one, or another rate.
    """
    for one in FORMATS.values():
        if wire.get("type") == one.wire["type"] and wire.get("rate") in (None, one.rate):
            return one
    rate = f" at {wire['rate']} Hz" if wire.get("rate") else ""
    allowed = ", ".join(f"{one.wire['type']} at {one.rate} Hz" for one in FORMATS.values())
    raise UnknownFormat(f"found {wire.get('type')}{rate}; allowed are {allowed}")
