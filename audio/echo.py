"""Our own voice in what a leg hears: taken out as far as it can be predicted, and bounded where it can't.

A door station's loudspeaker sounds into its microphone, a hybrid reflects. What comes back is what we played,
20 to 400 ms later (jitter buffers, the network, the air). Two things tell it from a caller:

*Prediction.* A filter in the frequency domain, 20 blocks of 20 ms long, learns the path and predicts the
echo, which is subtracted. It is the block filter of Soo and Pang (MDF, 1990) with the step size of a Kalman
filter (Enzner and Vary, "Frequency-domain adaptive Kalman filter for acoustic echo control in hands-free
telephones", 2006; by blocks: Kuech, Mabande and Enzner, 2014): how far each weight may be off, beside what
no filter predicts. A caller who speaks meanwhile slows it down and does not lead it astray. Where the echo
begins is found first, by correlation, within a second: a filter that must learn four blocks and not twenty
has most of an echo 2 s after a call's start. Where a prediction would make a block louder, that block is
left as it was.

*A bound.* How loud what is left was, without the street's noise, beside what we played when that echo began,
in the last second or two of our talk in which no caller was heard. Nothing below that and a margin counts as
a caller. It falls as soon as the filter gets better, and rises slowly: what is louder of a sudden is rather
a caller than an echo. Before anything is learnt, what comes back is taken for an echo as loud as the profile
says.

Both need the two directions in step: played and heard blocks are paired by their number. What stays out of
step for a second is paired anew, and the filter moved along.

Where for 400 ms of our talk so little came in that the least bound there is suffices, the filter rests: a
line without echo needs none.

Measured on a busy machine, for a block while our echo comes back: 80 µs each with eight legs worked on
together, 200 alone; 25 µs where the filter rests, 10 where nothing of ours can come back. `porteiro bench
--hearing` measures how well it hears.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from audio.frames import (
    FLOOR_DBOV,
    FRAME_BYTES,
    FRAME_SAMPLES,
    FULL_SCALE,
    SILENCE,
    samples_of,
    saturated,
)

BLOCKS: Final = 20
"""Length of the filter: echoes of up to 400 ms, their reverberation included."""
_BINS: Final = FRAME_SAMPLES + 1
_KEPT: Final = 64
"""Played blocks that are remembered: the filter's, and as many as the heard ones may lag behind."""
_SLACK: Final = 1
"""Blocks by which the heard may come early before they are paired anew."""
_JITTER: Final = 2
"""Blocks by which they may be early for good; more is a standstill's backlog, which the clock makes good."""
_PATIENCE: Final = 50
"""Blocks, a second, after which a lag counts as lasting."""

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

_QUIET: Final = FRAME_SAMPLES * 100.0
"""Energy that a block is taken to have at least: −70 dBov."""
_AUDIBLE: Final = FRAME_SAMPLES * 1000.0
"""Energy of a block from which something can be told: −60 dBov."""
_ABSURD: Final = 100.0
"""A prediction with so much more energy, 20 dB, than what we played and than what is heard is no echo's."""

_STRETCH: Final = 15
"""Blocks, 300 ms of our talk, of which the loudest rest of our echo counts."""
_REMEMBERED: Final = 5
"""Stretches that are remembered."""
_DELAYED: Final = 15
"""Blocks after which one counts: had it been the begin of a caller's speech, that would be known by then."""
_RISE_DB: Final = 1.0
"""By so much at most the bound rises with each stretch, once enough are remembered: a filter that learns gets
better, and what is louder is rather a caller who speaks unnoticed."""
_STREET_SMOOTH: Final = 0.4
_STREET_BIAS: Final = 2.0
"""How much stronger a noise is than the least of its smoothed blocks."""
_SWELL_DB: Final = 4.0
"""So much louder still a street may be for a moment: on a line whose echo nobody found, that is no echo."""
_TELLING_DBOV: Final = -36.0
"""As loud must be what we played; beside something softer it is the street that is measured."""
_INAUDIBLE_DBOV: Final = -60.0
"""An echo that soft interrupts nobody."""
_MOST_GAIN_DB: Final = 6.0
"""An echo that is louder than this beside what we played is nobody's; so much is never learnt."""
_TOO_OFTEN: Final = 3
_TOO_SOON: Final = 250
"""So many interruptions within so many blocks, five seconds of our talk, are more than a caller's."""
_LEAST_GAIN_DB: Final = -25.0
"""However little came back so far: a path changes."""
_LEAST_OF_ECHO_DB: Final = -17.0
"""However well an echo was predicted so far."""
_RELEASE_DB: Final = 3.0
"""By so much at most the bound falls with each block: a voice detector goes on hearing speech for a while."""
_NOTHING: Final = np.zeros(FRAME_SAMPLES, np.float32)

_LEFT, _HEARD, _TAPS = range(3)
"""Rows of what is transformed together: what is left, what was heard, a block of the filter."""

Floats = npt.NDArray[np.float32]
Spectra = npt.NDArray[np.complex64]


@dataclass(frozen=True, slots=True)
class EchoProfile:
    """How careful a leg is about its own echo."""

    assumed_gain_db: float = 0.0
    """How much louder than what we played the echo is taken to be before anything is learnt."""
    margin_db: float = 9.0
    """By how much a caller must be louder than the loudest echo that was left lately."""

    def __post_init__(self) -> None:
        if not -40 <= self.assumed_gain_db <= 12:
            raise ValueError(f"assumed_gain_db: found {self.assumed_gain_db:g}; allowed are -40 to 12")
        if not 0 <= self.margin_db <= 24:
            raise ValueError(f"margin_db: found {self.margin_db:g}; allowed are 0 to 24")


class Before(Protocol):
    """Another canceller, which takes the echo out before the guard bounds what is left of it."""

    def played(self, frame: bytes, skipped: int = 0) -> None:
        """A block of 20 ms went out; ``skipped`` before it never did."""

    def heard(self, block: bytes) -> bytes:
        """What is left of a block of 20 ms that came in."""


class Played:
    """The blocks that were played last, newest first, as spectra and powers."""

    def __init__(self) -> None:
        # Each is written twice, so that any stretch of them lies in one piece.
        self._spectra: Spectra = np.zeros((2, _KEPT, _BINS), np.complex64)
        self._whitened: Spectra = np.zeros((2, _KEPT, _BINS), np.complex64)
        self._densities: Floats = np.zeros((2, _KEPT, _BINS), np.float32)
        self._powers: Floats = np.zeros((2, _KEPT), np.float32)
        self._row_spectra = self._spectra.reshape(2 * _KEPT, _BINS)
        self._row_whitened = self._whitened.reshape(2 * _KEPT, _BINS)
        self._row_densities = self._densities.reshape(2 * _KEPT, _BINS)
        self._row_powers = self._powers.reshape(2 * _KEPT)
        self._last: Floats = _NOTHING
        self._at = 0
        self._silent = _KEPT
        """How many of the newest are digital silence."""
        self.new: dict[int, tuple[Floats, Floats]] = {}
        """Blocks without a spectrum yet, by their place: each behind the one before it."""
        self.count = 0

    def add(self, frame: bytes) -> None:
        """One more block was played. It has no spectrum before :func:`work_off`."""
        self.count += 1
        self._at = place = (self._at - 1) % _KEPT
        self.new.pop(place, None)
        before = self._last
        if frame == SILENCE:
            self._silent += 1
            self._last = _NOTHING
        else:
            self._silent = 0
            self._last = samples_of(frame).astype(np.float32)
        if self._silent <= 1:
            self._powers[:, place] = np.dot(self._last, self._last)
            self.new[place] = before, self._last
        elif self._silent <= _KEPT + 1:  # then every block is silence, and says so already
            self._powers[:, place] = 0
            self._spectra[:, place] = 0
            self._whitened[:, place] = 0
            self._densities[:, place] = 0

    def transformed(self, place: int, spectrum: Spectra, whitened: Spectra, densities: Floats) -> None:
        """The spectrum of the new block there is known."""
        self._spectra[:, place] = spectrum
        self._whitened[:, place] = whitened
        self._densities[:, place] = densities

    def loudest_dbov(self, lag: int, located: int | None) -> float:
        """Of the blocks that may echo in what is paired with the one ``lag`` before the newest.

        ``located``: that many blocks before that one the echo begins; None: that isn't known.
        """
        if located is None:
            return _dbov(float(self._row_powers[self._at : self._at + lag + BLOCKS].max()))
        place = self._at + lag + located
        return _dbov(float(self._row_powers[max(self._at, place - 2) : place + _WIDTH + 1].max()))

    def silent(self, lag: int) -> bool:
        """Nothing sounded in the filter's length before the block that is ``lag`` before the newest."""
        return self._silent > lag + BLOCKS

    def spectra(self, lag: int) -> Spectra:
        """[BLOCKS, bins]: the block ``lag`` before the newest, and those before it."""
        return self._row_spectra[self._at + lag : self._at + lag + BLOCKS]

    def densities(self, lag: int) -> Floats:
        """[BLOCKS, bins]: the powers of those spectra."""
        return self._row_densities[self._at + lag : self._at + lag + BLOCKS]

    def whitened(self, lag: int) -> Spectra:
        """[BLOCKS, bins]: those spectra, all frequencies alike."""
        return self._row_whitened[self._at + lag : self._at + lag + BLOCKS]

    def energies(self, lag: int) -> Floats:
        """[BLOCKS]: their energies."""
        return self._row_powers[self._at + lag : self._at + lag + BLOCKS]


class Canceller:
    """One leg's adaptive filter. Samples are at the scale of 16-bit integers."""

    def __init__(self) -> None:
        self._constrained = 0
        self.diverged = 0
        """How often what was learnt was no echo's path, and was forgotten."""
        self.forget()

    def forget(self) -> None:
        """As at a call's start."""
        self._weights: Spectra = np.zeros((BLOCKS, _BINS), np.complex64)
        self._doubts: Floats = np.full((BLOCKS, _BINS), _ANYWHERE, np.float32)
        """How far off each weight may be, as a power."""
        self._near: Floats = np.zeros(_BINS, np.float32)
        """By frequency, the power lately of what no filter could have predicted."""
        self.located: int | None = None
        """The block of the filter in which the echo begins; None: not known."""
        self._correlations: Spectra = np.zeros((BLOCKS, _BINS), np.complex64)
        self._correlated = 0
        self._places: deque[int] = deque(maxlen=_MOVED)
        self._unexplained = 0
        """How many more blocks there were of which it took out little than of which it took out much."""

    def move(self, blocks: int) -> None:
        """What is heard is paired with what was played ``blocks`` later (negative: earlier) than before."""
        self._weights = _moved(self._weights, blocks, 0)
        self._doubts = _moved(self._doubts, blocks, _ELSEWHERE if self.located is not None else _ANYWHERE)
        self._correlations = _moved(self._correlations, blocks, 0)
        self._places.clear()
        if self.located is not None:
            place = self.located + blocks
            self.located = place if 0 <= place < BLOCKS else None

    def predict(self, spectra: Spectra, scratch: Spectra, pair: Spectra) -> None:
        """Into ``pair``: the echo's spectrum, and that of the filter's block whose turn it is."""
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

    def learn(self, spectra: Spectra, densities: Floats, error: Spectra, power: Floats, room: _Room) -> None:
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
        return self.located is None or self._unexplained > _PATIENCE // 2

    def explained(self, heard: float, left: float) -> None:
        """What the energy of a block with an echo in it was, and what is left of it."""
        was = self.searching
        change = 1 if left > 0.5 * heard else -1
        self._unexplained = min(max(self._unexplained + change, 0), _PATIENCE)
        if self.searching and not was:
            self._correlations[:] = 0
            self._correlated = 0
            self._places.clear()

    def search(self, whitened: Spectra, heard: Spectra, room: _Room) -> bool:
        """Look where the echo begins. Returns whether that was found, or found to be elsewhere than before.

        The two directions are correlated, all frequencies alike: that has a sharp peak at the path's delay
        within half a second of speech, long before the filter has learnt it.
        """
        scratch = room.scratch
        np.conjugate(whitened, out=scratch)
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


class _Room:
    """Where filters are worked on, one after the other, without allocating."""

    def __init__(self) -> None:
        self.scratch: Spectra = np.empty((BLOCKS, _BINS), np.complex64)
        self.step: Floats = np.empty((BLOCKS, _BINS), np.float32)
        self.spare: Floats = np.empty((BLOCKS, _BINS), np.float32)


@dataclass(slots=True, eq=False)
class _Block:
    """What was heard in 20 ms."""

    pcm: bytes
    number: int
    """Of the played block that it is paired with."""
    moved: int
    """By how many blocks the directions were paired anew just before."""
    speaking: bool


@dataclass(slots=True, eq=False)
class _Work:
    """A block with something of ours in it, perhaps, and what its canceller needs to know."""

    guard: EchoGuard
    block: _Block
    canceller: Canceller
    spectra: Spectra
    densities: Floats
    whitened: Spectra
    played: Floats
    heard: Floats
    level_dbov: float
    """Of the block."""
    near_dbov: float
    """Of the loudest that echoes in it, by where the echo is known to be."""
    loudest_dbov: float
    """Of the loudest that may echo in it, wherever the echo is."""


def _cancel(works: Sequence[_Work]) -> list[Floats | None]:
    """What is left of each block without the echo of what was played; None: no less than the block itself.

    Transforms and sums of all legs go together: each call costs more than what it computes for one.
    """
    count = len(works)
    scratch: Spectra = np.empty((BLOCKS, _BINS), np.complex64)
    pairs: Spectra = np.empty((count, 2, _BINS), np.complex64)
    for work, pair in zip(works, pairs, strict=True):
        work.canceller.predict(work.spectra, scratch, pair)
    # Beside the prediction, one block of each filter a time is made a linear filter again.
    predicted = np.fft.irfft(pairs).astype(np.float32, copy=False)
    echo, taps = predicted[:, 0, FRAME_SAMPLES:], predicted[:, 1, :FRAME_SAMPLES]
    heard = np.stack([work.heard for work in works])
    present, predictions = _sums(heard, heard), _sums(echo, echo)
    if sound := _sound(works, present, predictions):
        return sound
    error = heard - echo
    padded: Floats = np.zeros((count, 3, 2 * FRAME_SAMPLES), np.float32)
    padded[:, _LEFT, FRAME_SAMPLES:] = error
    padded[:, _HEARD, FRAME_SAMPLES:] = heard
    padded[:, _TAPS, :FRAME_SAMPLES] = taps
    spectra: Spectra = np.fft.rfft(padded).astype(np.complex64, copy=False)
    lefts = _sums(error, error)
    room = _Room()
    powers = _powers(spectra[:, _LEFT])
    for number, work in enumerate(works):
        canceller = work.canceller
        canceller.constrain(spectra[number, _TAPS])
        canceller.learn(work.spectra, work.densities, spectra[number, _LEFT], powers[number], room)
        if work.near_dbov < _TELLING_DBOV or work.block.speaking:
            continue
        canceller.explained(present[number], lefts[number])
        if canceller.searching and canceller.search(work.whitened, spectra[number, _HEARD], room):
            work.guard.located()
    return [error[number] if lefts[number] < present[number] else None for number in range(count)]


def _sound(
    works: Sequence[_Work], present: Sequence[float], predicted: Sequence[float]
) -> list[Floats | None]:
    """Where a filter has diverged: it forgets, its block is left alone, the others are done. Else nothing.

    Pure tones teach a filter anything beside their frequencies. Followed further it would overflow.
    """
    absurd = [
        not echo <= _ABSURD * max(heard, _QUIET)  # also what is no number
        and not echo <= _ABSURD * float(work.played.max())
        for work, heard, echo in zip(works, present, predicted, strict=True)
    ]
    if not any(absurd):
        return []
    others = [work for work, wrong in zip(works, absurd, strict=True) if not wrong]
    done = iter(_cancel(others) if others else ())
    for work, wrong in zip(works, absurd, strict=True):
        if wrong:
            work.canceller.diverged += 1
            work.canceller.forget()
    return [None if wrong else next(done) for wrong in absurd]


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
    sums: list[float] = np.einsum("lk,lk->l", one, other).tolist()
    return sums


def _powers(spectrum: Spectra) -> Floats:
    powers: Floats = spectrum.real**2 + spectrum.imag**2
    return powers


def work_off(guards: Sequence[EchoGuard]) -> None:
    """Work on all blocks that wait, of all legs together: at eight legs 40 % of what each alone would cost.

    Which legs are there makes no difference to any of them.
    """
    _transform([guard.output for guard in guards if guard.output.new])
    while waiting := [guard for guard in guards if guard.waiting]:
        works = [work for guard in waiting if (work := guard.begin()) is not None]
        for work, left in zip(works, _cancel(works) if works else (), strict=True):
            work.guard.finish(work, left)


def _transform(outputs: Sequence[Played]) -> None:
    """Give the new blocks of all legs their spectra."""
    pairs = [pair for output in outputs for pair in output.new.values()]
    if not pairs:
        return
    blocks: Floats = np.array(pairs).reshape(len(pairs), 2 * FRAME_SAMPLES)
    spectra: Spectra = np.fft.rfft(blocks).astype(np.complex64, copy=False)
    densities = _powers(spectra)
    whitened = spectra / (np.sqrt(densities) + _WHITENED)
    row = 0
    for output in outputs:
        for place in output.new:
            output.transformed(place, spectra[row], whitened[row], densities[row])
            row += 1
        output.new.clear()


class EchoGuard:
    """One leg's guard: what is left of what it hears, and up to which level that may be our own echo.

    Give it every frame that went out and everything that came in, as they happen. Either at once
    (:meth:`heard`), or with other legs' (:meth:`hear`, then :func:`work_off`, then :meth:`take`).
    """

    def __init__(self, profile: EchoProfile | None = None, *, before: Before | None = None) -> None:
        """``before``: takes the echo out in place of our filter; None: the filter does."""
        self._profile = profile or EchoProfile()
        self._before = before
        self.output = Played()
        self.waiting: deque[_Block] = deque()
        """Blocks that were heard and not worked on."""
        self._done: list[tuple[bytes, float]] = []
        self._canceller = Canceller() if before is None else None
        self._heard = 0
        self._shift: int | None = None
        """Played blocks minus heard blocks, where a heard one is paired with the newest played one."""
        self._lags: deque[int] = deque(maxlen=_PATIENCE)
        self._rest = b""
        """Less than a block."""
        self._candidates: deque[float | None] = deque()
        """How loud each block of the last 300 ms was beside what we played; None: it tells nothing."""
        self._stretch: list[float] = []
        self._left: deque[float] = deque(maxlen=_REMEMBERED)
        """How loud the loudest block of each stretch was beside what we played."""
        self._smoothed = 10 ** (FLOOR_DBOV / 10)
        self._levels: deque[float] = deque(maxlen=_PATIENCE)
        """What was left of late, as a power."""
        self._sounded = 0
        """For how many blocks there has been something that could come back."""
        self.gain_db = self._profile.assumed_gain_db
        """Up to how much louder than what we played something may be and still be its echo."""
        self._bound_dbov = FLOOR_DBOV
        self._clean = 0
        """For how many blocks of our talk the least bound there is has been enough without a prediction."""
        self._interruptions: deque[int] = deque(maxlen=_TOO_OFTEN)
        """When we were interrupted, in blocks in which something could come back."""
        self._spoke = False
        self.begun_anew = 0
        """How often what was learnt was forgotten."""
        self.moved = 0
        """How often the directions were paired anew."""

    def played(self, frame: bytes, skipped: int = 0) -> None:
        """A frame went out; ``skipped`` before it never did."""
        for _ in range(min(skipped, _KEPT)):
            self.output.add(SILENCE)
        self.output.count += max(0, skipped - _KEPT)
        self.output.add(frame)
        if self._before is not None and not self.output.silent(0):
            self._before.played(frame, skipped)

    def heard(self, pcm8k: bytes, *, speaking: bool) -> list[tuple[bytes, float]]:
        """What came in, worked on at once. As :meth:`hear` and :meth:`take` otherwise."""
        self.hear(pcm8k, speaking=speaking)
        work_off((self,))
        return self.take()

    def hear(self, pcm8k: bytes, *, speaking: bool) -> None:
        """What came in; its blocks, as they are complete, wait to be worked on.

        Args:
            pcm8k: of any length.
            speaking: a caller is being heard: nothing is learnt about how loud the echo is.

        Raises:
            ValueError: ``pcm8k`` holds half a sample. Nothing of it is taken.
        """
        if not self._rest and len(pcm8k) == FRAME_BYTES:
            self._hear_block(pcm8k, speaking)
            return
        samples_of(pcm8k)
        pcm = self._rest + pcm8k
        whole = len(pcm) - len(pcm) % FRAME_BYTES
        for place in range(0, whole, FRAME_BYTES):
            self._hear_block(pcm[place : place + FRAME_BYTES], speaking)
        self._rest = pcm[whole:]

    def _hear_block(self, block: bytes, speaking: bool) -> None:
        number, moved = self._pair()
        if self._before is not None and not self.output.silent(0):
            block = self._before.heard(block)
        self.waiting.append(_Block(block, number, moved, speaking))

    def take(self) -> list[tuple[bytes, float]]:
        """What was worked on since this was last asked.

        Returns:
            For each block what is left of it, and the level in dBov up to which that may be our echo.
        """
        done, self._done = self._done, []
        return done

    def begin(self) -> _Work | None:
        """The block that waited longest, for :func:`_cancel` and :meth:`finish`; None: it is done already."""
        block = self.waiting.popleft()
        if block.moved and self._canceller is not None:
            self._canceller.move(block.moved)
        lag = self.output.count - 1 - block.number
        if self.output.silent(max(0, lag)):
            self._note(None, block.speaking)
            self._done.append((block.pcm, FLOOR_DBOV))
            return None
        located = self._canceller.located if self._canceller is not None else None
        loudest = self.output.loudest_dbov(max(0, lag), None)
        near = loudest if located is None else self.output.loudest_dbov(max(0, lag), located)
        heard = samples_of(block.pcm).astype(np.float32)
        level = _dbov(float(np.dot(heard, heard)))
        if self._canceller is None or not 0 <= lag <= _KEPT - BLOCKS:
            self._bound(block, block.pcm, level, near, loudest)
            return None
        played = self.output.energies(lag)
        if near >= _TELLING_DBOV:
            least = level <= max(near + _LEAST_GAIN_DB - self._profile.margin_db, _INAUDIBLE_DBOV)
            self._clean = self._clean + 1 if least and self.gain_db <= _LEAST_OF_ECHO_DB else 0
        if self._clean > BLOCKS:
            if self._canceller.located is not None:
                self._canceller.forget()
                self.located()
            self._bound(block, block.pcm, level, near, loudest)
            return None
        return _Work(
            self,
            block,
            self._canceller,
            self.output.spectra(lag),
            self.output.densities(lag),
            self.output.whitened(lag),
            played,
            heard,
            level,
            near,
            loudest,
        )

    def finish(self, work: _Work, left: Floats | None) -> None:
        """``left`` is what is left of the block; None: all of it."""
        block, pcm, level = work.block, work.block.pcm, work.level_dbov
        if left is not None:
            pcm, level = saturated(left.astype(np.float64)), _dbov(float(np.dot(left, left)))
        self._bound(block, pcm, level, work.near_dbov, work.loudest_dbov)

    def _bound(self, block: _Block, left: bytes, level: float, near: float, loudest: float) -> None:
        """Up to which level what is left, which has this one, may be our echo; and learn from it."""
        self._sounded += 1
        self._watch(block.speaking)
        street = self._street(level)
        telling = near >= _TELLING_DBOV and self._sounded > BLOCKS
        swell = 0.0 if self._echoes else _SWELL_DB
        self._note(_less(level, street + swell) - near if telling else None, block.speaking)
        # Until something was measured beside what echoes, what is assumed holds beside all that may.
        bound = max(street, (near if self._left else loudest) + self.gain_db)
        self._bound_dbov = max(FLOOR_DBOV, bound, self._bound_dbov - _RELEASE_DB)
        self._done.append((left, self._bound_dbov))

    def _street(self, level: float) -> float:
        """Up to which level what is left was no echo: the least of the last second."""
        self._smoothed += _STREET_SMOOTH * (10 ** (level / 10) - self._smoothed)
        self._levels.append(self._smoothed)
        return 10 * math.log10(_STREET_BIAS * min(self._levels))

    def _pair(self) -> tuple[int, int]:
        """The number of the played block that belongs to the next heard one, and by how much that moved."""
        newest = self.output.count - 1
        if self._shift is None:
            self._shift = newest - _SLACK - self._heard
        lag = newest - self._heard - self._shift
        self._lags.append(lag)
        change = 0
        if -_JITTER <= lag < 0:
            change = lag
        elif len(self._lags) == _PATIENCE:
            change = min(0, max(self._lags)) or max(0, min(self._lags) - _SLACK)
        if change:
            self._shift += change
            self._lags.clear()
            self.moved += 1
        self._heard += 1
        return newest - lag + change, change

    def _watch(self, speaking: bool) -> None:
        """Begin anew where we were interrupted time and again: the path may have changed, and it is our echo.

        Until enough is learnt again, an echo as loud as is assumed at a call's start interrupts nobody; a
        caller who did interrupt us so often must be louder than that for a second.
        """
        if speaking and not self._spoke:
            self._interruptions.append(self._sounded)
            first = self._interruptions[0]
            if len(self._interruptions) == _TOO_OFTEN and self._sounded - first < _TOO_SOON:
                self._interruptions.clear()
                self._left.clear()
                self._stretch.clear()
                self.gain_db = max(self.gain_db, self._profile.assumed_gain_db)
                self.begun_anew += 1
        self._spoke = speaking

    @property
    def _echoes(self) -> bool:
        """There is an echo for all that is known: a canceller before us doesn't say."""
        return self._canceller is None or self._canceller.located is not None

    def located(self) -> None:
        """Where the echo begins is known now: what was measured before was measured beside something else."""
        self._candidates.clear()
        self._stretch.clear()
        self._left.clear()

    def _note(self, beside: float | None, speaking: bool) -> None:
        """Learn from the block of 300 ms ago, unless a caller has begun since."""
        if speaking:
            self._candidates.clear()
            return
        self._candidates.append(beside)
        if len(self._candidates) <= _DELAYED:
            return
        settled = self._candidates.popleft()
        if settled is None:
            return
        self._stretch.append(settled)
        if len(self._stretch) < _STRETCH:
            return
        self._left.append(max(self._stretch))
        self._stretch.clear()
        least = _LEAST_OF_ECHO_DB if self._echoes else _LEAST_GAIN_DB
        gain_db = min(max(max(self._left) + self._profile.margin_db, least), _MOST_GAIN_DB)
        if len(self._left) == _REMEMBERED:
            gain_db = min(gain_db, self.gain_db + _RISE_DB)
        self.gain_db = gain_db


def _less(level_dbov: float, noise_dbov: float) -> float:
    """The level without that noise."""
    rest = 10 ** (level_dbov / 10) - 10 ** (noise_dbov / 10)
    return max(FLOOR_DBOV, 10 * math.log10(rest)) if rest > 0 else FLOOR_DBOV


def _dbov(energy: float) -> float:
    """Level of a block of that energy."""
    if energy <= 0:
        return FLOOR_DBOV
    return max(FLOOR_DBOV, 10 * math.log10(energy / (FRAME_SAMPLES * FULL_SCALE**2)))
