"""G.711, the telephone's 8-bit code: µ-law and A-law, both ways, by table.

ITU-T G.711 (11/88) defines µ-law on 14-bit and A-law on 13-bit sign and magnitude. Here both are aligned to
the top of 16 bits, as everywhere in telephony. A value that lies on a decision value belongs to the interval
above it, and both signs are treated alike.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from audio.frames import samples_of

Codes = npt.NDArray[np.uint8]
Levels = npt.NDArray[np.int16]

ULAW_SILENCE: Final = 0xFF
ALAW_SILENCE: Final = 0xD5

_ULAW_BIAS: Final = 33
_ULAW_LARGEST: Final = 8158
"""The 14-bit magnitude from which on everything is the last interval (virtual decision value 8159)."""


def _ulaw_levels() -> Levels:
    """What each µ-law code stands for. On the wire all bits are inverted: silence is 0xFF."""
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    segment, step = (code >> 4) & 7, code & 15
    magnitude = (((2 * step + _ULAW_BIAS) << segment) - _ULAW_BIAS) << 2
    return np.where(code & 0x80, -magnitude, magnitude).astype("<i2")


def _alaw_levels() -> Levels:
    """What each A-law code stands for. On the wire even bits are inverted (0x55); a sign bit set is plus."""
    code = np.arange(256, dtype=np.int32) ^ 0x55
    segment, step = (code >> 4) & 7, code & 15
    low = 2 * step + 1
    magnitude = np.where(segment == 0, low, (low + 32) << np.maximum(segment - 1, 0)) << 3
    return np.where(code & 0x80, magnitude, -magnitude).astype("<i2")


def _all_samples() -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Every 16-bit value, ordered by its unsigned bit pattern: the values, and their magnitudes."""
    values = np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.int32)
    return values, np.abs(values)


def _segment_of(magnitude: npt.NDArray[np.int32], first: int) -> npt.NDArray[np.int32]:
    """How many of the seven segment borders ``first``, 2·first, 4·first … each magnitude has reached."""
    return np.searchsorted(first << np.arange(7), magnitude, side="right").astype(np.int32)


def _ulaw_codes() -> Codes:
    values, magnitude = _all_samples()
    biased = np.minimum(magnitude >> 2, _ULAW_LARGEST) + _ULAW_BIAS
    segment = _segment_of(biased, 64)
    step = (biased >> (segment + 1)) & 15
    code: Codes = (~(np.where(values < 0, 0x80, 0) | (segment << 4) | step) & 0xFF).astype(np.uint8)
    return code


def _alaw_codes() -> Codes:
    values, magnitude = _all_samples()
    small = np.minimum(magnitude >> 3, 4095)
    segment = _segment_of(small, 32)
    step = (small >> np.maximum(segment, 1)) & 15
    code: Codes = ((np.where(values < 0, 0, 0x80) | (segment << 4) | step) ^ 0x55).astype(np.uint8)
    return code


_ULAW_LEVELS: Final = _ulaw_levels()
_ALAW_LEVELS: Final = _alaw_levels()
_ULAW_CODES: Final = _ulaw_codes()
_ALAW_CODES: Final = _alaw_codes()


def ulaw_encode(pcm: bytes) -> bytes:
    """µ-law codes, one byte a sample.

    Raises:
        ValueError: ``pcm`` holds half a sample.
    """
    return _ULAW_CODES[samples_of(pcm).view(np.uint16)].tobytes()


def ulaw_decode(codes: bytes) -> bytes:
    """PCM of µ-law codes, two bytes a sample. Every byte is a valid code."""
    return _ULAW_LEVELS[np.frombuffer(codes, dtype=np.uint8)].tobytes()


def alaw_encode(pcm: bytes) -> bytes:
    """A-law codes, one byte a sample.

    Raises:
        ValueError: ``pcm`` holds half a sample.
    """
    return _ALAW_CODES[samples_of(pcm).view(np.uint16)].tobytes()


def alaw_decode(codes: bytes) -> bytes:
    """PCM of A-law codes, two bytes a sample. Every byte is a valid code."""
    return _ALAW_LEVELS[np.frombuffer(codes, dtype=np.uint8)].tobytes()
