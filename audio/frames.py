"""What a piece of telephone audio is: its sizes, its lengths in time, its loudness.

Audio everywhere in this room is signed 16-bit little-endian mono PCM in ``bytes``. The telephone side runs at
8 kHz and moves in frames of 20 ms. Levels are in dBov: RMS against 32768, so that a full-scale square wave is
0 dBov and a full-scale sine −3.01 (ITU-T G.100.1).
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

FRAME_MS: Final = 20
TELEPHONE_RATE: Final = 8000
SAMPLE_BYTES: Final = 2
FRAME_SAMPLES: Final = TELEPHONE_RATE * FRAME_MS // 1000
FRAME_BYTES: Final = FRAME_SAMPLES * SAMPLE_BYTES
SILENCE: Final = bytes(FRAME_BYTES)
"""One frame of digital silence."""

FULL_SCALE: Final = 32768
FLOOR_DBOV: Final = -96.0
"""What silence measures. One least significant bit is −90.3 dBov; nothing that sounds lies below."""

KNEE: Final = FULL_SCALE * 10 ** (-3 / 20)
"""Up to −3 dBFS :func:`limited` leaves every sample as it is."""
CEILING: Final = 32124
"""What :func:`limited` comes near and never exceeds: µ-law's largest level, so that G.711 behind it clips
nothing either (A-law's is 32256; ITU-T G.711)."""

Samples = npt.NDArray[np.int16]
_PCM: Final = np.dtype("<i2")
"""An object, because numpy reads the name anew each time."""
_LOWEST: Final = np.array(-FULL_SCALE, dtype=np.float64)
_HIGHEST: Final = np.array(FULL_SCALE - 1, dtype=np.float64)
_LOWEST_BENT: Final = np.array(-2 * FULL_SCALE, dtype=np.float64)
_HIGHEST_BENT: Final = np.array(2 * FULL_SCALE - 1, dtype=np.float64)
# Arrays, because numpy converts a Python number anew, for longer than the comparison itself takes.


def _bent() -> Samples:
    """What each whole number up to twice full scale becomes; in the order of Python's indices, −1 last."""
    size = np.abs(np.fft.ifftshift(np.arange(-2 * FULL_SCALE, 2 * FULL_SCALE)).astype(np.float64))
    room = CEILING - KNEE
    curve = np.where(size > KNEE, KNEE + room * np.tanh((size - KNEE) / room), size)
    curve[2 * FULL_SCALE :] *= -1
    return np.rint(curve).astype("<i2")


_BENT: Final = _bent()


def samples_of(pcm: bytes) -> Samples:
    """A read-only view of the samples in ``pcm``.

    Raises:
        ValueError: ``pcm`` holds half a sample.
    """
    if len(pcm) % SAMPLE_BYTES:
        raise ValueError(f"{len(pcm)} bytes are not a whole number of 16-bit samples")
    return np.frombuffer(pcm, _PCM)


def is_silence(pcm: bytes) -> bool:
    """Whether every sample is zero: a look that costs next to nothing beside any arithmetic."""
    return pcm == bytes(len(pcm))


def energy(pcm: bytes) -> float:
    """The sum of the squares, in single precision.

    Raises:
        ValueError: ``pcm`` holds half a sample.
    """
    if is_silence(pcm):
        return 0.0
    samples = samples_of(pcm).astype(np.float32)
    return float(np.dot(samples, samples))


def saturated(values: npt.NDArray[np.float64]) -> bytes:
    """PCM of real-valued samples: rounded to the nearest (half to even), clipped, never wrapped."""
    whole = np.rint(values)
    np.maximum(whole, _LOWEST, out=whole)
    np.minimum(whole, _HIGHEST, out=whole)
    return whole.astype(_PCM).tobytes()


def limited(values: npt.NDArray[np.float64]) -> bytes:
    """PCM of real-valued samples: rounded to the nearest up to :data:`KNEE`, above that bent softly.

    For what people hear: a peak that is cut off flat crackles, one that is bent is a little less loud. The
    bend has the slope 1 and no curvature at the knee, and it never turns back: what was louder never comes
    out quieter. Each sample is bent by itself: nothing is delayed, and how a stream is cut changes nothing.
    """
    whole = np.rint(values)
    np.maximum(whole, _LOWEST_BENT, out=whole)
    np.minimum(whole, _HIGHEST_BENT, out=whole)
    return _BENT[whole.astype(np.intp)].tobytes()


def ms_of(pcm: bytes, rate: int) -> float:
    """How long ``pcm`` lasts, in milliseconds, at ``rate`` samples per second."""
    return len(pcm) * 1000 / (SAMPLE_BYTES * rate)


def bytes_of(ms: float, rate: int) -> int:
    """How many bytes ``ms`` milliseconds are at ``rate``: whole samples, rounded to the nearest."""
    return round(ms * rate / 1000) * SAMPLE_BYTES


def level_dbov(pcm: bytes) -> float:
    """RMS level in dBov, from 0 down to :data:`FLOOR_DBOV`, which is also what no samples at all measure."""
    samples = samples_of(pcm).astype(np.float32)
    if not samples.size:
        return FLOOR_DBOV
    mean_square = float(np.dot(samples, samples)) / samples.size
    if mean_square <= 0:
        return FLOOR_DBOV
    return max(FLOOR_DBOV, 10 * math.log10(mean_square / FULL_SCALE**2))


def peak(pcm: bytes) -> int:
    """The largest magnitude in ``pcm``, 0 to 32768."""
    samples = samples_of(pcm)
    if not samples.size:
        return 0
    return max(int(samples.max()), -int(samples.min()))
