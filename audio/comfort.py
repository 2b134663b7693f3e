"""What is heard where a model's sound runs dry within an item: soft noise, and no click at its edges.

Digital silence in the middle of a word sounds like a call that broke off, and a sample that jumps to zero
clicks. The noise is a fixed table: the same in every run, and a frame of it costs nothing.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from audio.frames import FRAME_SAMPLES, FULL_SCALE, SAMPLE_BYTES, samples_of, saturated

LEVEL_DBOV: Final = -60.0
"""Of the noise: what a quiet line has, and 6 dB above what the VAD takes for a sound at all."""
EDGE_SAMPLES: Final = 40
"""How long a fade takes: 5 ms."""
_SEED: Final = 20_000
_FRAMES: Final = 53
"""A second of noise, and a prime: nothing that repeats with the frames is heard."""

_DOWN: Final = np.cos(np.linspace(0.0, np.pi / 2, EDGE_SAMPLES, endpoint=False)) ** 2
_UP: Final = np.sin(np.linspace(0.0, np.pi / 2, EDGE_SAMPLES, endpoint=False)) ** 2


def _noise() -> tuple[bytes, ...]:
    chance = np.random.default_rng(_SEED)
    wave = chance.normal(0.0, FULL_SCALE * 10 ** (LEVEL_DBOV / 20), (_FRAMES, FRAME_SAMPLES))
    return tuple(saturated(frame) for frame in wave)


_NOISE: Final = _noise()
_TAIL_BYTES: Final = (FRAME_SAMPLES - EDGE_SAMPLES) * SAMPLE_BYTES
"""What a fade leaves as it is."""
_TAILS: Final = frozenset(frame[-_TAIL_BYTES:] for frame in _NOISE)


def comfort(number: int) -> bytes:
    """A frame of noise; ``number`` counts a gap's frames, or any others."""
    return _NOISE[number % _FRAMES]


def second_of_comfort() -> bytes:
    """All of the noise, to be looped: a little more than a second."""
    return b"".join(_NOISE)


def is_comfort(frame: bytes) -> bool:
    """Whether a frame is one of a gap's, its first one included. For who counts gaps at the other end."""
    return frame[-_TAIL_BYTES:] in _TAILS


def begun_softly(last: bytes, noise: bytes) -> bytes:
    """A gap's first frame: what was heard last, on its way to zero, and the noise.

    Args:
        last: PCM that ends with the sample that went out last; empty: nothing did.
        noise: the frame.
    """
    if not last:
        return noise
    wave = samples_of(noise).astype(np.float64)
    wave[:EDGE_SAMPLES] += float(samples_of(last[-SAMPLE_BYTES:])[0]) * _DOWN
    return saturated(wave)


def faded_in(pcm: bytes) -> bytes:
    """Sound that comes after a gap: the same samples, the first 5 ms rising."""
    wave = samples_of(pcm).astype(np.float64)
    edge = min(EDGE_SAMPLES, len(wave))
    wave[:edge] *= _UP[:edge]
    return saturated(wave)
