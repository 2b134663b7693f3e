"""Our own voice in what a leg hears, predicted by a filter that learns its way back, and taken out.

A filter in the frequency domain, 20 blocks of 20 ms long, learns the path and predicts the echo, which is
subtracted. It is the block filter of Soo and Pang (MDF, 1990) with the step size of a Kalman filter (Enzner
and Vary, "Frequency-domain adaptive Kalman filter for acoustic echo control in hands-free telephones", 2006;
by blocks: Kuech, Mabande and Enzner, 2014): how far each weight may be off, beside what no filter predicts.
A caller who speaks meanwhile slows it down and does not lead it astray. Where the echo begins is found first,
by correlation, within a second: a filter that must learn four blocks and not twenty has most of an echo 2 s
after a call's start. Where a prediction would make a block louder, that block is left as it was.

:func:`cancel` works on the blocks of many legs together. Samples are at the scale of 16-bit integers.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from audio.frames import FRAME_SAMPLES, SILENCE, energy, samples_of

BLOCKS: Final = 20
"""Length of the filter: echoes of up to 400 ms, their reverberation included."""
_BINS: Final = FRAME_SAMPLES + 1
KEPT: Final = 64
"""Played blocks that are remembered: the filter's, and as many as the heard ones may lag behind."""
_KEEPS: Final = 0.999**2
"""Which share of what is known of a path still holds a block later."""
_NEAR_SMOOTH: Final = 0.1
_LEAST_NEAR: Final = 1e3
_ANYWHERE: Final = 0.0125
"""How far off each weight may be before it is known where the echo begins: −6 dB, over all blocks."""
_AROUND: Final = (0.03, 0.3, 0.1, 0.03, 0.01)
"""The same for the block before the one where it begins, that one, and those after it."""
_ELSEWHERE: Final = 1e-4
_WIDTH: Final = len(_AROUND)
_WHITENED: Final = 1e3
"""Magnitudes well below this don't count when all frequencies are made alike: −60 dBov."""
_CORRELATED_KEEPS: Final = 0.98
_LOOKS: Final = 10
"""Every so many blocks the peak is looked for."""
_SALIENT: Final = 7.0
"""It must be so many times the correlation's root mean square."""
_MORE_SALIENT: Final = 1.4
"""It must be so many times as high as elsewhere, or as where the echo was before."""
_CONFIRMED: Final = 2
"""So often in succession it must be in the same place."""
_MOVED: Final = 5
"""The same before a place that was known is given up."""
_DOUBTED: Final = 50
"""So many blocks of which it took out little, more than of which it took out much, ask for the place anew."""
_QUIET: Final = FRAME_SAMPLES * 100.0
"""Energy that a block is taken to have at least: −70 dBov."""
_ABSURD: Final = 100.0
"""A prediction with so much more energy, 20 dB, than what we played and than what is heard is no echo's."""

_LEFT, _HEARD, _TAPS = range(3)
"""Rows of what is transformed together: what is left, what was heard, a block of the filter."""

Floats = npt.NDArray[np.float32]
Spectra = npt.NDArray[np.complex64]


class Played:
    """The blocks that were played last, newest first: their powers, and spectra where a filter works."""

    def __init__(self) -> None:
        self._frames = deque([SILENCE] * (KEPT + 1), maxlen=KEPT + 1)
        # Each is written twice, so that any stretch of them lies in one piece.
        self._energies = [0.0] * (2 * KEPT)
        """A list: the greatest of twenty is found sooner than by numpy."""
        self._at = 0
        self._silent = KEPT
        """How many of the newest are digital silence."""
        self.count = 0
        self._unseen = KEPT
        """How many of the newest have no spectrum."""
        self._spectra: Spectra
        self._densities: Floats
        self.rest()

    def add(self, frame: bytes) -> None:
        """One more block was played."""
        self.count += 1
        self._at = place = (self._at - 1) % KEPT
        self._frames.appendleft(frame)
        self._unseen = min(self._unseen + 1, KEPT)
        if frame == SILENCE:
            self._silent += 1
            if self._silent <= KEPT:  # then every energy is zero, and says so already
                self._energies[place] = self._energies[place + KEPT] = 0.0
        else:
            self._silent = 0
            self._energies[place] = self._energies[place + KEPT] = energy(frame)

    def rest(self) -> None:
        """No spectra are asked for now: they take 0.25 MB."""
        self._unseen = KEPT
        self._hold(0)

    def _hold(self, blocks: int) -> None:
        self._spectra = np.zeros((2, blocks, _BINS), np.complex64)
        self._densities = np.zeros((2, blocks, _BINS), np.float32)
        self._row_spectra = self._spectra.reshape(2 * blocks, _BINS)
        self._row_densities = self._densities.reshape(2 * blocks, _BINS)

    def loudest(self, lag: int, located: int | None) -> float:
        """Energy of the loudest block that may echo in what is paired with the one ``lag`` before the newest.

        ``located``: that many blocks before that one the echo begins; None: that isn't known.
        """
        if located is None:
            return max(self._energies[self._at : self._at + lag + BLOCKS])
        place = self._at + lag + located
        return max(self._energies[max(self._at, place - 2) : place + _WIDTH + 1])

    def silent(self, lag: int) -> bool:
        """Nothing sounded in the filter's length before the block that is ``lag`` before the newest."""
        return self._silent > lag + BLOCKS

    def spectra(self, lag: int) -> Spectra:
        """[BLOCKS, bins]: the block ``lag`` before the newest, and those before it; all seen by now."""
        return self._row_spectra[self._at + lag : self._at + lag + BLOCKS]

    def densities(self, lag: int) -> Floats:
        """[BLOCKS, bins]: the powers of those spectra."""
        return self._row_densities[self._at + lag : self._at + lag + BLOCKS]

    def greatest(self, lag: int) -> float:
        """Of the energies of those blocks."""
        return max(self._energies[self._at + lag : self._at + lag + BLOCKS])

    def unseen(self) -> list[tuple[bytes, bytes]]:
        """The blocks without a spectrum, newest first, each behind the one before it."""
        frames = self._frames
        return [(frames[place + 1], frames[place]) for place in range(self._unseen)]

    def seen(self, spectra: Spectra, densities: Floats) -> None:
        """What :meth:`unseen` gave has these spectra."""
        if not len(self._row_spectra):
            self._hold(KEPT)
        for place in range(self._unseen):
            row = (self._at + place) % KEPT
            self._spectra[:, row] = spectra[place]
            self._densities[:, row] = densities[place]
        self._unseen = 0


class Canceller:
    """One leg's adaptive filter."""

    def __init__(self) -> None:
        self._constrained = 0
        self.diverged = 0
        """How often what was learnt was no echo's path, and was forgotten."""
        self._weights: Spectra
        self._doubts: Floats
        """How far off each weight may be, as a power."""
        self._near: Floats
        """By frequency, the power lately of what no filter could have predicted."""
        self._correlations: Spectra
        self.located: int | None
        """The block of the filter in which the echo begins; None: not known."""
        self._places: deque[int] = deque(maxlen=_MOVED)
        self.forget()

    def forget(self) -> None:
        """As at a call's start. It takes no memory before it works again."""
        self._weights = self._correlations = np.empty((0, _BINS), np.complex64)
        self._doubts = np.empty((0, _BINS), np.float32)
        self.located = None
        self._correlated = 0
        self._places.clear()
        self._unexplained = 0
        """How many more blocks there were of which it took out little than of which it took out much."""

    def _begin(self) -> None:
        self._weights = np.zeros((BLOCKS, _BINS), np.complex64)
        self._correlations = np.zeros((BLOCKS, _BINS), np.complex64)
        self._doubts = np.full((BLOCKS, _BINS), _ANYWHERE, np.float32)
        self._near = np.zeros(_BINS, np.float32)

    def move(self, blocks: int) -> None:
        """What is heard is paired with what was played ``blocks`` later (negative: earlier) than before."""
        if not len(self._weights):
            return
        self._weights = _moved(self._weights, blocks, 0)
        self._doubts = _moved(self._doubts, blocks, _ELSEWHERE if self.located is not None else _ANYWHERE)
        self._correlations = _moved(self._correlations, blocks, 0)
        self._places.clear()
        if self.located is not None:
            place = self.located + blocks
            self.located = place if 0 <= place < BLOCKS else None

    def predict(self, spectra: Spectra, scratch: Spectra, pair: Spectra) -> None:
        """Into ``pair``: the echo's spectrum, and that of the filter's block whose turn it is."""
        if not len(self._weights):
            self._begin()
        np.multiply(self._weights, spectra, out=scratch)
        np.add.reduce(scratch, axis=0, out=pair[0])
        pair[1] = self._weights[self._turn]

    @property
    def _turn(self) -> int:
        """The block of the filter to be made a linear one next: every other time where the echo is."""
        if self.located is None or self._constrained % 2:
            return self._constrained // 2 % BLOCKS
        return (self.located - 1 + self._constrained // 2 % _WIDTH) % BLOCKS

    def constrain(self, block: Spectra) -> None:
        """That block as a linear filter again, not a circular one."""
        self._weights[self._turn] = block
        self._constrained += 2 if self.located is None else 1

    def learn(self, spectra: Spectra, densities: Floats, error: Spectra, power: Floats, room: Room) -> None:
        """Follow the error, as far as each weight may be off and what no filter predicts allows.

        Args:
            spectra: [BLOCKS, bins], of what was played.
            densities: their powers.
            error: [bins], the spectrum of what is left; ``power``, its power.
            room: to work in.
        """
        step, spare = room.step, room.spare
        np.multiply(self._doubts, densities, out=spare)
        expected = 0.5 * np.add.reduce(spare, axis=0)
        self._near += _NEAR_SMOOTH * (power - self._near)
        np.divide(self._doubts, expected + self._near + _LEAST_NEAR, out=step)
        np.multiply(step, densities, out=spare)
        spare *= -0.5 * _KEEPS
        spare += _KEEPS
        self._doubts *= spare
        scratch = room.scratch
        np.conjugate(spectra, out=scratch)
        scratch *= error
        scratch *= step
        self._weights += scratch
        np.square(self._weights.real, out=step)
        np.square(self._weights.imag, out=spare)
        step += spare
        step *= 1 - _KEEPS
        self._doubts += step

    @property
    def searching(self) -> bool:
        """Whether it is looking for where the echo begins."""
        return self.located is None or self._unexplained > _DOUBTED // 2

    def explained(self, heard: float, left: float) -> None:
        """What the energy of a block with an echo in it was, and what is left of it."""
        was = self.searching
        change = 1 if left > 0.5 * heard else -1
        self._unexplained = min(max(self._unexplained + change, 0), _DOUBTED)
        if self.searching and not was:
            self._correlations[:] = 0
            self._correlated = 0
            self._places.clear()

    def search(self, spectra: Spectra, densities: Floats, heard: Spectra, room: Room) -> bool:
        """Look where the echo begins. Returns whether that was found, or found to be elsewhere than before.

        The two directions are correlated, all frequencies alike: that has a sharp peak at the path's delay
        within half a second of speech, long before the filter has learnt it.
        """
        scratch, magnitudes = room.scratch, room.step
        np.sqrt(densities, out=magnitudes)
        magnitudes += _WHITENED
        np.conjugate(spectra, out=scratch)
        scratch /= magnitudes
        scratch *= heard / (np.abs(heard) + _WHITENED)
        self._correlations *= _CORRELATED_KEEPS
        self._correlations += scratch
        self._correlated += 1
        if self._correlated % _LOOKS:
            return False
        lags = np.fft.irfft(self._correlations)[:, :FRAME_SAMPLES]
        peaks = np.abs(lags).max(axis=1)
        place = int(peaks.argmax())
        if peaks[place] <= _SALIENT * math.sqrt(float(np.square(lags).mean())):
            return False
        self._places.append(place)
        rivals = peaks.copy()
        rivals[max(0, place - 1) : place + 2] = 0
        if self.located is not None:
            if self.located - 1 <= place < self.located + _WIDTH - 1:
                self._unexplained = 0
                return False
            rivals = peaks[max(0, self.located - 1) : self.located + _WIDTH - 1]
        enough = _CONFIRMED if self.located is None else _MOVED
        steady = len(self._places) >= enough and len(set(list(self._places)[-enough:])) == 1
        if not steady or peaks[place] < _MORE_SALIENT * rivals.max():
            return False
        self._locate(place)
        return True

    def _locate(self, place: int) -> None:
        """The echo begins in that block: most that may be off is there, and what is elsewhere isn't true."""
        self.located = place
        self._unexplained = 0
        doubts = np.full(BLOCKS, _ELSEWHERE, np.float32)
        for block, doubt in zip(range(place - 1, BLOCKS), _AROUND, strict=False):
            if block >= 0:
                doubts[block] = doubt
        self._weights[doubts == _ELSEWHERE] = 0
        self._doubts[:] = doubts[:, None]


class Room:
    """Where filters are worked on, one after the other, without allocating."""

    def __init__(self) -> None:
        self.scratch: Spectra = np.empty((BLOCKS, _BINS), np.complex64)
        self.step: Floats = np.empty((BLOCKS, _BINS), np.float32)
        self.spare: Floats = np.empty((BLOCKS, _BINS), np.float32)


@dataclass(slots=True, eq=False)
class Work:
    """A block with something of ours in it, perhaps, and what became of it."""

    output: Played
    lag: int
    """The block is paired with the played one so many before the newest."""
    canceller: Canceller
    heard: Floats
    telling: bool
    """What was played is loud enough, and no caller is heard: where the echo begins may be looked for."""
    left: Floats | None = None
    """Of the block, without the echo of what was played; None: all of it."""
    found: bool = False
    """It is known now where the echo begins, or that it does elsewhere."""


def cancel(works: Sequence[Work]) -> None:
    """Take the echo of what was played out of each leg's block.

    Transforms and sums of all legs go together: each call costs more than what it computes for one. Which
    legs are there makes no difference to any of them.
    """
    _transform([work.output for work in works])
    _cancel(works)


def _transform(outputs: Sequence[Played]) -> None:
    """Give the blocks of all legs their spectra."""
    unseen = [output.unseen() for output in outputs]
    pairs = [b"".join(pair) for blocks in unseen for pair in blocks]
    if not pairs:
        return
    blocks = samples_of(b"".join(pairs)).astype(np.float32).reshape(len(pairs), 2 * FRAME_SAMPLES)
    spectra: Spectra = np.fft.rfft(blocks).astype(np.complex64, copy=False)
    densities = _powers(spectra)
    row = 0
    for output, pairs_ in zip(outputs, unseen, strict=True):
        output.seen(spectra[row : row + len(pairs_)], densities[row : row + len(pairs_)])
        row += len(pairs_)


def _cancel(works: Sequence[Work]) -> None:
    count = len(works)
    room = Room()
    pairs: Spectra = np.empty((count, 2, _BINS), np.complex64)
    for work, pair in zip(works, pairs, strict=True):
        work.canceller.predict(work.output.spectra(work.lag), room.scratch, pair)
    # Beside the prediction, one block of each filter a time is made a linear filter again.
    predicted = np.fft.irfft(pairs).astype(np.float32, copy=False)
    echo, taps = predicted[:, 0, FRAME_SAMPLES:], predicted[:, 1, :FRAME_SAMPLES]
    heard = np.stack([work.heard for work in works])
    present, predictions = _sums(heard, heard), _sums(echo, echo)
    sound = _sound(works, present, predictions)
    if len(sound) < count:
        if sound:
            _cancel(sound)
        return
    error = heard - echo
    padded: Floats = np.zeros((count, 3, 2 * FRAME_SAMPLES), np.float32)
    padded[:, _LEFT, FRAME_SAMPLES:] = error
    padded[:, _HEARD, FRAME_SAMPLES:] = heard
    padded[:, _TAPS, :FRAME_SAMPLES] = taps
    spectra: Spectra = np.fft.rfft(padded).astype(np.complex64, copy=False)
    lefts = _sums(error, error)
    powers = _powers(spectra[:, _LEFT])
    for number, work in enumerate(works):
        canceller = work.canceller
        played, densities = work.output.spectra(work.lag), work.output.densities(work.lag)
        canceller.constrain(spectra[number, _TAPS])
        canceller.learn(played, densities, spectra[number, _LEFT], powers[number], room)
        if lefts[number] < present[number]:
            work.left = error[number]
        if work.telling:
            canceller.explained(present[number], lefts[number])
            if canceller.searching:
                work.found = canceller.search(played, densities, spectra[number, _HEARD], room)


def _sound(works: Sequence[Work], present: Sequence[float], predicted: Sequence[float]) -> list[Work]:
    """Those whose filter has not diverged; one that has forgets, and its block is left alone.

    Pure tones teach a filter anything beside their frequencies. Followed further it would overflow.
    """
    sound = []
    for work, heard, echo in zip(works, present, predicted, strict=True):
        # So written, what is no number counts as too much.
        believable = echo <= _ABSURD * max(heard, _QUIET) or echo <= _ABSURD * work.output.greatest(work.lag)
        if believable:
            sound.append(work)
        else:
            work.canceller.diverged += 1
            work.canceller.forget()
    return sound


def _moved(rows: npt.NDArray[Any], blocks: int, fill: float) -> npt.NDArray[Any]:
    """The rows so many places later (negative: earlier); the new ones have that value."""
    moved = np.full_like(rows, fill)
    if 0 <= blocks < BLOCKS:
        moved[blocks:] = rows[: BLOCKS - blocks]
    elif -BLOCKS < blocks < 0:
        moved[:blocks] = rows[-blocks:]
    return moved


def _sums(one: Floats, other: Floats) -> list[float]:
    """The inner product of each row with the other's."""
    sums: list[float] = np.vecdot(one, other).tolist()
    return sums


def _powers(spectrum: Spectra) -> Floats:
    powers: Floats = spectrum.real**2 + spectrum.imag**2
    return powers
