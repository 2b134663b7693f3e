"""Whether all that was said came: two sounds laid side by side by what they hold, whenever it came.

A telephone's packets are put in the order of their numbers. So a thread that was late, the telephone's own
among them, changes nothing here: what is found is what was lost, came twice, or was silent meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bridge.softphone import SPEECH_DBOV
from tests.pbx.listening import levels, offset_of, speech
from tests.pbx.rtp import FRAME, RATE, Packet, Samples

Floats = npt.NDArray[np.float64]

SAME = 0.7
"""Correlation of 20 ms: G.711 leaves over 0.99; what is something else is below."""
FOUND = 0.6
BETTER = 0.15
"""A place elsewhere counts only where it is so much more alike than the one that was expected."""
PIECE = 15 * FRAME
"""Samples that are looked for where 20 ms did not come where they should."""
LEAST_PIECE = 5 * FRAME
REACH = RATE
"""How far they are looked for."""
FIRST = RATE
"""Samples of speech by which the whole is found."""
SHIFTS = (-0.5, -0.25, 0.0, 0.25, 0.5)
"""Of a sample: a path that changes the rate is late by a part of one."""


@dataclass(frozen=True, slots=True)
class Received:
    """What a telephone's packets hold, in the order of their numbers.

    Attributes:
        samples: 8 kHz; silence in place of a packet that never came.
        at: of each 20 ms of it, the monotonic second at which its packet came (that of the one before, where
            none came).
    """

    samples: Samples
    at: Sequence[float]

    def since(self, moment: float) -> Samples:
        """What came from a monotonic second on."""
        return self.samples[self.index(moment) :]

    def index(self, moment: float) -> int:
        """The sample that came at a monotonic second."""
        return int(np.searchsorted(np.maximum.accumulate(self.at), moment)) * FRAME


def in_order(packets: Sequence[Packet]) -> Received:
    """Put packets in the order of their numbers; a new source (RFC 3550's SSRC) goes on behind the last."""
    pieces: list[bytes] = []
    at: list[float] = []
    for run in _runs(packets):
        numbered: dict[int, Packet] = {}
        number = 0
        for packet in run:
            number += (packet.sequence - run[0].sequence - number + (1 << 15)) % (1 << 16) - (1 << 15)
            numbered.setdefault(number, packet)
        for each in range(min(numbered), max(numbered) + 1):
            found = numbered.get(each)
            pcm = bytes(2 * FRAME) if found is None else found.pcm
            pieces.append(pcm)
            at += [at[-1] if found is None else found.at] * (len(pcm) // (2 * FRAME))
    return Received(np.frombuffer(b"".join(pieces), "<i2"), at)


def _runs(packets: Sequence[Packet]) -> list[list[Packet]]:
    runs: dict[int, list[Packet]] = {}
    for packet in packets:
        runs.setdefault(packet.source, []).append(packet)
    return list(runs.values())


@dataclass(frozen=True, slots=True)
class Followed:
    """How what was said came.

    Attributes:
        begins: the sample of what came at which what was said begins.
        seconds: of speech in what was said.
        missing_ms: the longest stretch of it that did not come.
        slips_ms: where the rest came so much later (something was put in between, or came twice) or earlier
            (something was left out) than what was before.
        missing_share: how much of it did not come.
        gain_db: how much louder it came.
    """

    begins: int
    seconds: float
    missing_ms: float
    slips_ms: tuple[float, ...]
    missing_share: float
    gain_db: float

    @property
    def put_in_ms(self) -> float:
        """The longest that was put in between, or said twice, at one place."""
        return max(0.0, *self.slips_ms, 0.0)

    @property
    def left_out_ms(self) -> float:
        """The longest that was left out at one place, speech or pause."""
        return max(self.missing_ms, *(-slip for slip in self.slips_ms), 0.0)

    @property
    def ahead_ms(self) -> float:
        """How far ahead of its beginning any of it came: more was left out by then than put in."""
        return max(0.0, *(-sum(self.slips_ms[: count + 1]) for count in range(len(self.slips_ms))), 0.0)


def follow(said: Samples, came: Samples, begin: int = 0, end: int | None = None) -> Followed:
    """Lay what was said along what came, 20 ms by 20 ms.

    Args:
        said, came: 8 kHz.
        begin, end: between which samples of `came` it must begin.

    Raises:
        ValueError: nothing was said.
    """
    spans = speech(said)
    if not spans:
        raise ValueError(f"found no speech in {len(said) / RATE:.1f} s of what was said")
    first = spans[0].start
    part = said[first : first + FIRST]
    begin = max(0, begin)
    lag = offset_of(part, came[begin : None if end is None else end + first + FIRST]) + begin - first
    ours, theirs = _aligned(said, came, lag), came.astype(np.float64)
    loud = np.flatnonzero(levels(said) >= SPEECH_DBOV)
    loud = loud[[any(span.start <= frame * FRAME < span.end for span in spans) for frame in loud]]
    begins, slips, missing = lag, [], np.zeros(len(said) // FRAME, bool)
    said_power = came_power = 0.0
    for frame in loud.tolist():
        start = frame * FRAME
        piece = ours[start : start + FRAME]
        if _alike(piece, _cut(theirs, start + lag, FRAME)) < SAME:
            there = _elsewhere(ours[start : start + PIECE], theirs, start + lag)
            if there != start + lag:
                slips.append((there - start - lag) / RATE * 1000)
                lag = there - start
        got = _cut(theirs, start + lag, FRAME)
        if _alike(piece, got) < SAME:
            missing[frame] = True
        else:
            said_power += float(piece @ piece)
            came_power += float(got @ got)
    gain = 10 * np.log10(came_power / said_power) if came_power and said_power else -130.0
    return Followed(
        begins,
        len(loud) * FRAME / RATE,
        _longest(missing) * FRAME / RATE * 1000,
        tuple(slips),
        float(missing.sum() / len(loud)),
        float(gain),
    )


def _aligned(said: Samples, came: Samples, lag: int) -> Floats:
    """What was said, moved by that part of a sample by which it fits what came best."""
    spectrum = np.fft.rfft(said.astype(np.float64))
    turns = np.fft.rfftfreq(len(said))
    there = _cut(came.astype(np.float64), lag, len(said))
    moved = [np.fft.irfft(spectrum * np.exp(-2j * np.pi * turns * shift), len(said)) for shift in SHIFTS]
    return max(moved, key=lambda each: float(each @ there))


def _elsewhere(piece: Floats, came: Floats, expected: int) -> int:
    """Where a piece begins in what came, `expected` where that is as good as any place."""
    if len(piece) < LEAST_PIECE:
        return expected
    window = _cut(came, expected - REACH, len(piece) + 2 * REACH)
    energy = np.concatenate(([0.0], np.cumsum(window**2)))
    there = energy[len(piece) :] - energy[: -len(piece)]
    size = 1 << (len(window) + len(piece)).bit_length()
    product = np.fft.irfft(np.fft.rfft(window, size) * np.conj(np.fft.rfft(piece, size)), size)
    likeness = product[: len(there)] / np.sqrt(np.maximum(there, 1.0) * max(1.0, float(piece @ piece)))
    best = int(likeness.argmax())
    better = likeness[best] > max(FOUND, likeness[REACH] + BETTER)
    return expected - REACH + best if better else expected


def _alike(one: Floats, other: Floats) -> float:
    return float(one @ other / np.sqrt((one @ one) * (other @ other) + 1e-9))


def _cut(samples: Floats, start: int, length: int) -> Floats:
    """A part, with zeros where it reaches out of the whole."""
    out = np.zeros(length)
    first, last = max(0, start), min(len(samples), start + length)
    if last > first:
        out[first - start : last - start] = samples[first:last]
    return out


def _longest(missing: npt.NDArray[np.bool_]) -> int:
    """The longest run, in frames."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], missing.astype(np.int8), [0]))))
    return int(max(edges[1::2] - edges[::2], default=0))
