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
from tests.pbx.listening import levels, speech
from tests.pbx.rtp import FRAME, RATE, Packet, Samples

Floats = npt.NDArray[np.float64]

SAME = 0.7
"""Correlation of 20 ms: G.711 leaves over 0.99; what is something else is below."""
PIECE = 4 * FRAME
"""Samples that are looked for where 20 ms are nowhere where any came before …"""
FOUND = 0.9
"""… and how alike they must be."""
MOVE = 1.5
"""What going on at another place costs, in frames that did not come: by chance one is like another."""
BESIDE = 6
"""Frames: gaps so near each other are told apart."""
NEAR = 3
"""Samples: so near a whole number of frames it is one."""
PAUSE = 4
"""Frames without speech: what slips there is not in the middle of a word."""
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
        put_into_speech_ms, left_out_of_speech_ms: the longest of it that is not in a pause.
        missing_share: how much of it did not come.
        gain_db: how much louder it came.
    """

    begins: int
    seconds: float
    missing_ms: float
    slips_ms: tuple[float, ...]
    put_into_speech_ms: float
    left_out_of_speech_ms: float
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
    lag = _place(said[first : first + FIRST], came, max(0, begin) + first, end) - first
    ours, theirs = _aligned(said, came, lag, first), came.astype(np.float64)
    loud = np.flatnonzero(levels(said) >= SPEECH_DBOV)
    loud = loud[[any(span.start <= frame * FRAME < span.end for span in spans) for frame in loud]]
    lags = _places(ours, theirs, loud, lag)
    likeness = np.array([[_at(ours, theirs, frame, each)[0] for each in lags] for frame in loud.tolist()])
    path = [lags[each] for each in _cheapest(likeness)]
    missing = np.zeros(len(said) // FRAME, bool)
    said_power = came_power = 0.0
    slips: list[float] = []
    in_speech = [0.0]
    for number, (frame, here) in enumerate(zip(loud.tolist(), path, strict=True)):
        if number and here != path[number - 1]:
            slips.append((here - path[number - 1]) / RATE * 1000)
            if frame - loud[number - 1] < PAUSE:
                in_speech.append(slips[-1])
        alike, one, other = _at(ours, theirs, frame, here)
        missing[frame] = alike < SAME
        if alike >= SAME:
            said_power, came_power = said_power + one, came_power + other
    gain = 10 * np.log10(came_power / said_power) if came_power and said_power else -130.0
    return Followed(
        path[0],
        len(loud) * FRAME / RATE,
        _longest(missing) * FRAME / RATE * 1000,
        tuple(slips),
        max(in_speech),
        max(_longest(missing) * FRAME / RATE * 1000, -min(in_speech)),
        float(missing.sum() / len(loud)),
        float(gain),
    )


def _aligned(said: Samples, came: Samples, lag: int, first: int) -> Floats:
    """What was said, moved by that part of a sample by which its beginning fits what came best."""
    spectrum = np.fft.rfft(said.astype(np.float64))
    turns = np.fft.rfftfreq(len(said))
    there = _cut(came.astype(np.float64), lag + first, FIRST)
    moved = [np.fft.irfft(spectrum * np.exp(-2j * np.pi * turns * shift), len(said)) for shift in SHIFTS]
    return max(moved, key=lambda each: float(_cut(each, first, FIRST) @ there))


def _at(ours: Floats, theirs: Floats, frame: int, lag: int) -> tuple[float, float, float]:
    """How alike 20 ms are to what came at a place; and the energy of both."""
    one, other = ours[frame * FRAME : (frame + 1) * FRAME], _cut(theirs, frame * FRAME + lag, FRAME)
    mine, its = float(one @ one), float(other @ other)
    return float(one @ other) / (mine * its + 1e-9) ** 0.5, mine, its


def _places(ours: Floats, theirs: Floats, loud: npt.NDArray[np.intp], first: int) -> list[int]:
    """By how many samples any of what was said is moved, in what came."""
    lags = [first]
    for frame in loud.tolist():
        piece = ours[frame * FRAME : frame * FRAME + PIECE]
        if len(piece) < PIECE or any(_at(ours, theirs, frame, lag)[0] >= SAME for lag in lags):
            continue
        begin = frame * FRAME + lags[-1] - REACH
        likeness = _likeness(piece, _cut(theirs, begin, len(piece) + 2 * REACH))
        lag = begin + int(likeness.argmax()) - frame * FRAME
        whole = first + round((lag - first) / FRAME) * FRAME
        lag = whole if abs(whole - lag) <= NEAR else lag
        if likeness.max() >= FOUND and lag not in lags:
            lags.append(lag)
    # Between two gaps that are near each other there may be too little to be looked for.
    steps = range(-BESIDE, BESIDE + 1) if len(lags) > 1 else ()
    return list(dict.fromkeys([*lags, *(lag + step * FRAME for lag in lags for step in steps)]))


def _cheapest(likeness: Floats) -> list[int]:
    """For each frame the place (a column) at which it came, so that the most came with the fewest moves."""
    cost, steps = np.zeros(likeness.shape[1]), []
    for each in likeness:
        best = int(cost.argmin())
        moved = cost > cost[best] + MOVE
        steps.append(np.where(moved, best, np.arange(len(cost))))
        cost = np.where(moved, cost[best] + MOVE, cost) + (each < SAME)
    path = [int(cost.argmin())]
    for step in reversed(steps[1:]):
        path.append(int(step[path[-1]]))
    return path[::-1]


def _place(part: Samples, came: Samples, begin: int, end: int | None) -> int:
    """At which sample of what came, between two, a part of what was said is best found."""
    last = len(came) if end is None else max(begin + 1, end)
    window = _cut(came.astype(np.float64), begin, last - begin + len(part))
    return begin + int(_likeness(part.astype(np.float64), window).argmax())


def _likeness(piece: Floats, window: Floats) -> Floats:
    """The correlation of a piece with each part of a window; where next to nothing came, next to none."""
    energy = np.concatenate(([0.0], np.cumsum(window**2)))
    there = energy[len(piece) :] - energy[: -len(piece)]
    size = 1 << (len(window) + len(piece)).bit_length()
    product = np.fft.irfft(np.fft.rfft(window, size) * np.conj(np.fft.rfft(piece, size)), size)
    own = float(piece @ piece) + 1.0
    likeness: Floats = product[: len(there)] / np.sqrt(np.maximum(there, own / 100) * own)
    return likeness


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
