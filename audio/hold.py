"""What a visitor hears while nobody speaks to them: ringing, a sound of ours, or a house's own out of a file.

A file is a WAV (PCM of 8 to 32 bits, or G.711; one or two channels, at a rate of `audio.resample.RATES`), or
G.711 or 16-bit PCM at 8 kHz without a header, as Asterisk keeps its music on hold. Here are its bytes alone:
who reads it, and when, is `bridge/hold_audio.py`'s matter.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from audio.frames import FULL_SCALE, SAMPLE_BYTES, TELEPHONE_RATE, samples_of, saturated
from audio.g711 import alaw_decode, ulaw_decode
from audio.resample import RATES, Resampler

MOST_BYTES: Final = 12_000_000
"""Of a file: a minute of 48 kHz in stereo."""
MOST_S: Final = 60.0
LEAST_S: Final = 0.5
"""How long a sound may last before it begins anew, in seconds."""

_PCM, _ALAW, _ULAW, _EXTENSIBLE = 1, 6, 7, 0xFFFE
_HEADERLESS: Final = {
    **dict.fromkeys((".ulaw", ".ul", ".pcmu"), "ulaw"),
    **dict.fromkeys((".alaw", ".al", ".pcma"), "alaw"),
    ".sln": "pcm",
}
"""How files are coded that say nothing of themselves, by how their names end."""

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class HoldSound:
    """A sound to be looped."""

    pcm: bytes = b""
    """8 kHz, 16 bits, one channel; empty: silence."""
    foreign: bool = False
    """It may hold voices, whose echo a model would answer. Tones and noise of ours hold none."""


class HoldSoundError(ValueError):
    """A file that can't be played; says what was found and what is allowed."""


def sound_of(content: bytes, suffix: str) -> HoldSound:
    """What a file holds.

    Args:
        suffix: how its name ends, with the dot.

    Raises:
        HoldSoundError: it is none that can be played.
    """
    if len(content) > MOST_BYTES:
        raise HoldSoundError(f"found {len(content)} bytes; allowed are {MOST_BYTES}")
    if content[:4] == b"RIFF":
        pcm = _wav(content)
    elif suffix.lower() in _HEADERLESS:
        pcm = _headerless(content, _HEADERLESS[suffix.lower()])
    else:
        names = ", ".join(_HEADERLESS)
        raise HoldSoundError(f"found no WAV; allowed: a WAV file, or one at 8 kHz without a header ({names})")
    seconds = len(pcm) / SAMPLE_BYTES / TELEPHONE_RATE
    if not LEAST_S <= seconds <= MOST_S:
        raise HoldSoundError(f"found {seconds:.1f} s of sound; allowed are {LEAST_S:g} to {MOST_S:g} s")
    return HoldSound(pcm, foreign=True)


def _headerless(content: bytes, coding: str) -> bytes:
    if coding == "ulaw":
        return ulaw_decode(content)
    if coding == "alaw":
        return alaw_decode(content)
    return content[: len(content) // SAMPLE_BYTES * SAMPLE_BYTES]


def _wav(content: bytes) -> bytes:
    coding, channels, rate, bits, data = _parts(content)
    if coding not in (_PCM, _ALAW, _ULAW):
        raise HoldSoundError(f"found a WAV of format {coding}; allowed: PCM (1), A-law (6) or µ-law (7)")
    if channels not in (1, 2):
        raise HoldSoundError(f"found {channels} channels; allowed are 1 or 2")
    if rate not in RATES:
        raise HoldSoundError(f"found {rate} samples a second; allowed are {', '.join(map(str, RATES))}")
    if bits not in ((8, 16, 24, 32) if coding == _PCM else (8,)):
        raise HoldSoundError(f"found {bits} bits a sample; allowed: PCM of 8, 16, 24 or 32, G.711 of 8")
    width = bits // 8 * channels
    if len(data) > MOST_S * rate * width:  # before it is unpacked to many times its size
        found = len(data) / rate / width
        raise HoldSoundError(f"found {found:.1f} s of sound; allowed are {LEAST_S:g} to {MOST_S:g} s")
    wave = _levels(data[: len(data) // width * width], coding, bits).reshape(-1, channels).mean(axis=1)
    pcm = saturated(wave * FULL_SCALE)
    if rate == TELEPHONE_RATE:
        return pcm
    resampler = Resampler(rate, TELEPHONE_RATE, limit=True)
    return resampler.process(pcm) + resampler.flush()


def _parts(content: bytes) -> tuple[int, int, int, int, bytes]:
    """Coding, channels, samples a second, bits a sample, and the samples of a WAV."""
    if content[8:12] != b"WAVE":
        raise HoldSoundError("found a RIFF file that is no WAV; allowed: a WAV file")
    form: tuple[int, int, int, int] | None = None
    at = 12
    while at + 8 <= len(content):
        name, size = content[at : at + 4], struct.unpack_from("<I", content, at + 4)[0]
        body = content[at + 8 : at + 8 + size]
        if name == b"fmt " and len(body) >= 16:
            coding, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", body)
            if coding == _EXTENSIBLE and len(body) >= 26:
                coding = struct.unpack_from("<H", body, 24)[0]
            form = (coding, channels, rate, bits)
        elif name == b"data" and form is not None:
            return (*form, body)
        at += 8 + size + size % 2
    raise HoldSoundError("found a WAV without its format, or without sound; allowed: a whole WAV file")


def _levels(data: bytes, coding: int, bits: int) -> Doubles:
    """Samples as -1 to 1, in the order in which they come."""
    if coding != _PCM:
        return samples_of(ulaw_decode(data) if coding == _ULAW else alaw_decode(data)) / FULL_SCALE
    if bits == 8:  # the one width that WAV stores without a sign
        return (np.frombuffer(data, np.uint8).astype(np.float64) - 128) / 128
    if bits == 24:
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        data, bits = wide.tobytes(), 32
    return np.frombuffer(data, f"<i{bits // 8}").astype(np.float64) / float(1 << (bits - 1))
