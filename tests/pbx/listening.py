"""What a recording holds: speech, its level, tones, and how whole it came out of a telephone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bridge.softphone import SPEECH_DBOV
from tests.pbx.rtp import FRAME, RATE, Heard, Samples

PAUSE = 15
"""Frames: a shorter pause is within one stretch of speech."""
SHORTEST = 8
"""Frames: what is shorter is no speech."""
PIECE = RATE // 2
"""Samples that are laid over the other recording at a time."""
SLIP = RATE // 10
"""How far such a piece may have moved against the whole."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch, in samples."""

    start: int
    end: int

    @property
    def seconds(self) -> float:
        """How long it is."""
        return (self.end - self.start) / RATE


def levels(samples: Samples) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The level of each 20 ms, in dBov."""
    whole = samples[: len(samples) // FRAME * FRAME].astype(np.float64).reshape(-1, FRAME) / 32768
    power: np.ndarray[tuple[int], np.dtype[np.float64]] = 10 * np.log10((whole**2).mean(axis=1) + 1e-13)
    return power


def level(samples: Samples) -> float:
    """The level of what is speech in it, in dBov; -130 where nothing is."""
    loud = [each for each in levels(samples) if each >= SPEECH_DBOV]
    return float(10 * np.log10(np.mean(10 ** (np.array(loud) / 10)))) if loud else -130.0


def speech(samples: Samples) -> list[Span]:
    """Its stretches of speech, by the level alone."""
    spans: list[Span] = []
    for index in np.flatnonzero(levels(samples) >= SPEECH_DBOV).tolist():
        start = index * FRAME
        if spans and start - spans[-1].end <= PAUSE * FRAME:
            spans[-1] = Span(spans[-1].start, start + FRAME)
        else:
            spans.append(Span(start, start + FRAME))
    return [span for span in spans if span.end - span.start >= SHORTEST * FRAME]


def offset_of(part: Samples, whole: Samples) -> int:
    """At which sample of `whole` the beginning of `part` lies best (it may be negative)."""
    a, b = part.astype(np.float64), whole.astype(np.float64)
    size = 1 << (len(a) + len(b)).bit_length()
    product = np.fft.irfft(np.fft.rfft(b, size) * np.conj(np.fft.rfft(a, size)), size)
    best = int(product.argmax())
    return best if best < len(b) else best - size


@dataclass(frozen=True, slots=True)
class Comparison:
    """How what we played came out of a telephone.

    Attributes:
        offset: the sample of what was heard at which what was played begins.
        speech: stretches of speech in what was played, in its samples.
        worst_likeness: of any half second of speech, its correlation with what was heard there.
        longest_dropout_ms: the longest stretch of speech that did not come out.
        dropouts_ms: every one.
        gain_db: how much louder speech came out.
    """

    offset: int
    speech: Sequence[Span]
    worst_likeness: float
    longest_dropout_ms: float
    dropouts_ms: Sequence[float]
    gain_db: float


def compare(played: Samples, heard: Heard) -> Comparison:
    """Lay what we played over what the telephone heard."""
    offset = offset_of(played, heard.samples)
    spans = speech(played)
    worst, missing, gains = 1.0, np.zeros(len(played), bool), []
    for span in spans:
        for start in range(span.start, span.end, PIECE):
            piece = played[start : min(start + PIECE, span.end)]
            if len(piece) < SHORTEST * FRAME:
                continue
            there, likeness = _lay(piece, heard, start + offset)
            worst = min(worst, likeness)
            came = _cut(heard.samples, there, len(piece))
            present = _cut(heard.present, there, len(piece))
            missing[start : start + len(piece)] = ~present | _vanished(piece, came)
            gains.append(level(came) - level(piece))
    runs = _runs(missing)
    return Comparison(
        offset, spans, worst, max(runs, default=0.0), runs, float(np.median(gains)) if gains else -130.0
    )


def _lay(piece: Samples, heard: Heard, near: int) -> tuple[int, float]:
    """Where a piece lies in what was heard, and how alike the two are there."""
    window = _cut(heard.samples, near - SLIP, len(piece) + 2 * SLIP).astype(np.float64)
    ours = piece.astype(np.float64)
    energy = np.concatenate(([0.0], np.cumsum(window**2)))
    there = energy[len(piece) :] - energy[: -len(piece)]
    likeness = np.correlate(window, ours, "valid") / np.sqrt(there * (ours @ ours) + 1e-9)
    best = int(likeness.argmax())
    return near - SLIP + best, float(likeness[best])


def _cut(samples: np.ndarray, start: int, length: int) -> np.ndarray:
    """A part, with zeros where it reaches out of the whole."""
    out = np.zeros(length, samples.dtype)
    first, last = max(0, start), min(len(samples), start + length)
    if last > first:
        out[first - start : last - start] = samples[first:last]
    return out


def _vanished(ours: Samples, came: Samples) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Where we were speaking, and over 10 ms next to nothing came: 20 dB less than we said."""
    block = FRAME // 2
    out = np.zeros(len(ours), np.bool_)
    for start in range(0, len(ours) - block + 1, block):
        said = float(np.square(ours[start : start + block].astype(np.float64)).mean())
        got = float(np.square(came[start : start + block].astype(np.float64)).mean())
        if said > (32768 * 10 ** (SPEECH_DBOV / 20)) ** 2 and got < said / 100:
            out[start : start + block] = True
    return out


def _runs(missing: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> list[float]:
    edges = np.flatnonzero(np.diff(np.concatenate(([0], missing.astype(np.int8), [0]))))
    return [(b - a) / RATE * 1000 for a, b in zip(edges[::2], edges[1::2], strict=True)]


def tone(hertz: float, seconds: float, amplitude: float = 8000.0) -> bytes:
    """A tone, as 8 kHz PCM."""
    time = np.arange(round(seconds * RATE)) / RATE
    wave: bytes = (np.sin(2 * np.pi * hertz * time) * amplitude).astype("<i2").tobytes()
    return wave


def tone_seconds(samples: Samples, hertz: float) -> float:
    """For how long a tone of this pitch is by far the loudest in it."""
    frames = samples[: len(samples) // FRAME * FRAME].astype(np.float64).reshape(-1, FRAME)
    wave = np.exp(-2j * np.pi * hertz * np.arange(FRAME) / RATE)
    share = 2 * np.abs(frames @ wave) ** 2 / FRAME / ((frames**2).sum(axis=1) + 1e-9)
    loud = levels(samples) >= SPEECH_DBOV
    return float(np.count_nonzero((share > 0.8) & loud) * FRAME / RATE)
