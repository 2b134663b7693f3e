"""Our own voice in what a leg hears: taken out as far as it can be predicted, and bounded where it can't.

A door station's loudspeaker sounds into its microphone, a hybrid reflects. What comes back is what we played,
20 to 400 ms later (jitter buffers, the network, the air). Two things tell it from a caller:

*Prediction.* A filter in the frequency domain, 20 blocks of 20 ms long, learns the path and predicts the
echo, which is subtracted. It is the block filter of Soo and Pang (MDF, 1990) with the step size of Valin ("On
adjusting the learning rate in frequency domain echo cancellation with double-talk", 2007, as in Speex). It
learns while the caller is silent; at a call's start, before it has learnt at all, always. Where a prediction
would make a block louder, that block is left as it was.

*A bound.* How loud what is left was beside what we played in the 400 ms before, in the last seconds of our
talk in which no caller was heard. Nothing below that and a margin counts as a caller. Before anything is
learnt, what comes back is taken for an echo as loud as the profile says.

Both need the two directions in step: played and heard blocks are paired by their number. What stays out of
step for a second is paired anew, and the filter moved along.

Where for 400 ms of our talk so little came in that the least bound there is suffices, the filter rests: a
line without echo needs none.

Measured on a busy machine, for a block while our echo comes back: 70 µs each with eight legs worked on
together, 170 alone; 15 µs where the filter rests, 10 where nothing of ours can come back. `porteiro bench
--hearing` measures how well it hears.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

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

# Valin's, for blocks of 20 ms at 8 kHz; powers at the scale of 16-bit samples.
_SMOOTH: Final = FRAME_SAMPLES / 8000
_BETA: Final = 2 * FRAME_SAMPLES / 8000
_BETA_MOST: Final = 0.5 * FRAME_SAMPLES / 8000
_LEAST_LEAK: Final = 0.005
_QUIET: Final = FRAME_SAMPLES * 100.0
"""Energy that what is left of a block is taken to have at least: −70 dBov."""
_AUDIBLE: Final = FRAME_SAMPLES * 1000.0
"""Energy of a played block from which something can be learnt: −60 dBov."""
_ABSURD: Final = 100.0
"""A prediction with so much more energy, 20 dB, than what we played and than what is heard is no echo's."""

_STRETCH: Final = 15
"""Blocks, 300 ms of our talk, of which the loudest rest of our echo counts."""
_REMEMBERED: Final = 12
"""Stretches that are remembered."""
_ENOUGH: Final = 1
"""Stretches from which on it is known how loud the echo is."""
_LOUDER_OF: Final = 0.8
"""Which of them counts: louder are the fewer in which a caller spoke unnoticed, not those of echo alone."""
_DELAYED: Final = 15
"""Blocks after which one counts: had it been the begin of a caller's speech, that would be known by then."""
_TELLING_DBOV: Final = -36.0
"""As loud must be what we played; beside something softer it is the street that is measured."""
_MOST_GAIN_DB: Final = 6.0
"""An echo that is louder than this beside what we played is nobody's; so much is never learnt."""
_TOO_OFTEN: Final = 3
_TOO_SOON: Final = 250
"""So many interruptions within so many blocks, five seconds of our talk, are more than a caller's."""
_LEAST_GAIN_DB: Final = -25.0
"""However well it was predicted so far: a path changes."""
_NOTHING: Final = np.zeros(FRAME_SAMPLES, np.float32)

_LEFT, _PREDICTED, _PLAYED = range(3)
"""Rows of what is kept of spectra: of what is left, of what was predicted, of what was played."""

Floats = npt.NDArray[np.float32]
Spectra = npt.NDArray[np.complex64]


@dataclass(frozen=True, slots=True)
class EchoProfile:
    """How careful a leg is about its own echo."""

    assumed_gain_db: float = -3.0
    """How much louder than what we played the echo is taken to be before anything is learnt."""
    margin_db: float = 9.0
    """By how much a caller must be louder than the loudest echo that was left lately."""

    def __post_init__(self) -> None:
        if not -40 <= self.assumed_gain_db <= 12:
            raise ValueError(f"assumed_gain_db: found {self.assumed_gain_db:g}; allowed are -40 to 12")
        if not 0 <= self.margin_db <= 24:
            raise ValueError(f"margin_db: found {self.margin_db:g}; allowed are 0 to 24")


class Played:
    """The blocks that were played last, newest first, as spectra and powers."""

    def __init__(self) -> None:
        # Each is written twice, so that any stretch of them lies in one piece.
        self._spectra: Spectra = np.zeros((2, _KEPT, _BINS), np.complex64)
        self._densities: Floats = np.zeros((2, _KEPT, _BINS), np.float32)
        self._powers: Floats = np.zeros((2, _KEPT), np.float32)
        self._row_spectra = self._spectra.reshape(2 * _KEPT, _BINS)
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
            self._densities[:, place] = 0

    def transformed(self, place: int, spectrum: Spectra, densities: Floats) -> None:
        """The spectrum of the new block there is known."""
        self._spectra[:, place] = spectrum
        self._densities[:, place] = densities

    def loudest_dbov(self, lag: int) -> float:
        """Of the blocks up to the one that is ``lag`` before the newest, and of those it may still echo."""
        return _dbov(float(self._row_powers[self._at : self._at + lag + BLOCKS].max()))

    def silent(self, lag: int) -> bool:
        """Nothing sounded in the filter's length before the block that is ``lag`` before the newest."""
        return self._silent > lag + BLOCKS

    def spectra(self, lag: int) -> Spectra:
        """[BLOCKS, bins]: the block ``lag`` before the newest, and those before it."""
        return self._row_spectra[self._at + lag : self._at + lag + BLOCKS]

    def densities(self, lag: int) -> Floats:
        """[BLOCKS, bins]: the powers of those spectra."""
        return self._row_densities[self._at + lag : self._at + lag + BLOCKS]

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
        self.means: Floats = np.zeros((3, _BINS), np.float32)
        """By frequency, the powers lately of what was left, of what was predicted and of what was played."""
        self.means[_PLAYED] = 1
        self._correlation = 1.0
        self._variance = 1.0
        self._learnt = 0.0
        self.adapted = False
        """It has learnt enough for its step size to be Valin's."""

    def move(self, blocks: int) -> None:
        """What is heard is paired with what was played ``blocks`` later (negative: earlier) than before."""
        moved = np.zeros_like(self._weights)
        if 0 <= blocks < BLOCKS:
            moved[blocks:] = self._weights[: BLOCKS - blocks]
        elif -BLOCKS < blocks < 0:
            moved[:blocks] = self._weights[-blocks:]
        self._weights = moved

    def predict(self, spectra: Spectra, scratch: Spectra, pair: Spectra) -> None:
        """Into ``pair``: the echo's spectrum, and that of the filter's block whose turn it is."""
        np.multiply(self._weights, spectra, out=scratch)
        np.add.reduce(scratch, axis=0, out=pair[0])
        pair[1] = self._weights[(self._constrained + 1) % BLOCKS]

    def constrain(self, block: Spectra) -> None:
        """That block as a linear filter again, not a circular one."""
        self._constrained = (self._constrained + 1) % BLOCKS
        self._weights[self._constrained] = block

    def leak(self, correlation: float, variance: float, energies: _Energies) -> float:
        """Which share of the predicted echo's power is left: how far the two rise and fall together."""
        alpha = min(_BETA * energies.echo / energies.error, _BETA_MOST)
        self._correlation += alpha * (correlation - self._correlation)
        self._variance = max(1.0, self._variance + alpha * (variance - self._variance))
        self._correlation = min(max(self._correlation, _LEAST_LEAK * self._variance), self._variance)
        return self._correlation / self._variance

    def step(self, energies: _Energies, leak: float) -> tuple[float, float] | None:
        """How far to follow the error: with this leak, and everywhere; None: nothing can be learnt."""
        if not self.adapted and self._learnt > BLOCKS and leak > 0.03:
            self.adapted = True
        if self.adapted:
            residual = (0.0001 * energies.played + 3 * leak * energies.echo) / energies.error
            explained = energies.both**2 / (energies.error * energies.echo + 1)
            return leak, 0.3 * min(0.5, max(residual, explained))
        if energies.played < _AUDIBLE:
            return None
        rate = min(0.5, 0.5 * energies.played / energies.error)
        self._learnt += rate
        return 0.0, rate

    def heard_nothing(self, played: float) -> None:
        """So little was heard that no filter is needed; that, too, is something learnt."""
        if played >= _AUDIBLE:
            self._learnt += 0.5

    def shares(self) -> Floats:
        """Which part of a change each block takes: most where the filter already is, so that a short path is
        learnt soon."""
        flat = self._weights.view(np.float32)
        shares: Floats = np.sqrt(np.einsum("bf,bf->b", flat, flat))
        shares += 1e-3
        shares += 0.1 * shares.max()
        shares /= shares.sum()
        return shares

    def learn(self, spectra: Spectra, shares: Floats, step: Spectra, scratch: Spectra) -> None:
        """Follow the error."""
        np.conjugate(spectra, out=scratch)
        scratch *= step
        parts = scratch.view(np.float32)
        parts *= shares[:, None]
        self._weights += scratch


class _Energies(NamedTuple):
    """Of one block: played, left, predicted; and how far the prediction was in what was heard."""

    played: float
    error: float
    echo: float
    both: float


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
    played: Floats
    heard: Floats
    level_dbov: float
    """Of the block."""
    loudest_dbov: float
    """Of what may still echo in it."""


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
    padded[:, _PREDICTED, FRAME_SAMPLES:] = echo
    padded[:, 2, :FRAME_SAMPLES] = taps
    spectra: Spectra = np.fft.rfft(padded).astype(np.complex64, copy=False)
    lefts, boths = _sums(error, error), _sums(echo, heard)
    energies = [
        _Energies(float(work.played[0]), max(left, _QUIET), prediction, both)
        for work, left, prediction, both in zip(works, lefts, predictions, boths, strict=True)
    ]
    for work, block in zip(works, spectra[:, 2], strict=True):
        work.canceller.constrain(block)
    _learn(works, spectra[:, _LEFT], _powers(spectra[:, :2]), energies, scratch)
    return [error[number] if energies[number].error < present[number] else None for number in range(count)]


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


def _learn(
    works: Sequence[_Work], errors: Spectra, powers: Floats, energies: Sequence[_Energies], scratch: Spectra
) -> None:
    """Have each filter follow its error. ``powers``: [legs, 2, bins], of what is left and was predicted."""
    means = np.stack([work.canceller.means for work in works])
    rises = powers - means[:, :2]
    means[:, :2] += _SMOOTH * rises
    means[:, _PLAYED] += (0.35 / BLOCKS) * (
        np.stack([work.densities[0] for work in works]) - means[:, _PLAYED]
    ) + 1
    variances = _sums(rises[:, _PREDICTED], rises[:, _PREDICTED])
    together = _sums(rises[:, _LEFT], rises[:, _PREDICTED])
    learning: list[int] = []
    steps: list[tuple[float, float]] = []
    for number, work in enumerate(works):
        canceller = work.canceller
        canceller.means[:] = means[number]
        variance = math.sqrt(variances[number]) or 1.0
        leak = canceller.leak(together[number] / variance, variance, energies[number])
        step = canceller.step(energies[number], leak)
        if step is not None and not (work.block.speaking and canceller.adapted):
            learning.append(number)
            steps.append(step)
    if not learning:
        return
    leaks, whole = np.array(steps, np.float32).T[:, :, None]
    least = powers[learning, _LEFT] + 1
    share = 0.7 * np.minimum(leaks * powers[learning, _PREDICTED], 0.5 * least) / least + whole
    shares = [works[number].canceller.shares() for number in learning]
    played = np.stack([mine @ works[number].densities for mine, number in zip(shares, learning, strict=True)])
    share /= np.maximum(played, 0.1 * means[learning, _PLAYED]) + 10
    changes = share * errors[learning]
    for number, mine, change in zip(learning, shares, changes, strict=True):
        works[number].canceller.learn(works[number].spectra, mine, change, scratch)


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
    row = 0
    for output in outputs:
        for place in output.new:
            output.transformed(place, spectra[row], densities[row])
            row += 1
        output.new.clear()


class EchoGuard:
    """One leg's guard: what is left of what it hears, and up to which level that may be our own echo.

    Give it every frame that went out and everything that came in, as they happen. Either at once
    (:meth:`heard`), or with other legs' (:meth:`hear`, then :func:`work_off`, then :meth:`take`).
    """

    def __init__(self, profile: EchoProfile | None = None, *, cancels: bool = True) -> None:
        """``cancels``: whether to take the echo out; False where something before us has done so."""
        self._profile = profile or EchoProfile()
        self.output = Played()
        self.waiting: deque[_Block] = deque()
        """Blocks that were heard and not worked on."""
        self._done: list[tuple[bytes, float]] = []
        self._canceller = Canceller() if cancels else None
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
        self._sounded = 0
        """For how many blocks there has been something that could come back."""
        self.gain_db = self._profile.assumed_gain_db
        """Up to how much louder than what we played something may be and still be its echo."""
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
            number, moved = self._pair()
            self.waiting.append(_Block(pcm8k, number, moved, speaking))
            return
        samples_of(pcm8k)
        pcm = self._rest + pcm8k
        whole = len(pcm) - len(pcm) % FRAME_BYTES
        for place in range(0, whole, FRAME_BYTES):
            number, moved = self._pair()
            self.waiting.append(_Block(pcm[place : place + FRAME_BYTES], number, moved, speaking))
        self._rest = pcm[whole:]

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
        loudest = self.output.loudest_dbov(max(0, lag))
        heard = samples_of(block.pcm).astype(np.float32)
        level = _dbov(float(np.dot(heard, heard)))
        if self._canceller is None or not 0 <= lag <= _KEPT - BLOCKS:
            self._bound(block, block.pcm, level, loudest)
            return None
        played = self.output.energies(lag)
        if loudest >= _TELLING_DBOV:
            least = level - loudest <= _LEAST_GAIN_DB - self._profile.margin_db
            self._clean = self._clean + 1 if least and self.gain_db <= _LEAST_GAIN_DB else 0
        if self._clean > BLOCKS:
            self._canceller.heard_nothing(float(played[0]))
            self._bound(block, block.pcm, level, loudest)
            return None
        spectra, densities = self.output.spectra(lag), self.output.densities(lag)
        return _Work(self, block, self._canceller, spectra, densities, played, heard, level, loudest)

    def finish(self, work: _Work, left: Floats | None) -> None:
        """``left`` is what is left of the block; None: all of it."""
        if left is None:
            self._bound(work.block, work.block.pcm, work.level_dbov, work.loudest_dbov)
        else:
            level = _dbov(float(np.dot(left, left)))
            self._bound(work.block, saturated(left.astype(np.float64)), level, work.loudest_dbov)

    def _bound(self, block: _Block, left: bytes, level: float, loudest: float) -> None:
        """Up to which level what is left, which has this one, may be our echo; and learn from it."""
        self._sounded += 1
        self._watch(block.speaking)
        telling = loudest >= _TELLING_DBOV and self._sounded > BLOCKS
        self._note(level - loudest if telling else None, block.speaking)
        self._done.append((left, max(FLOOR_DBOV, loudest + self.gain_db)))

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
        if len(self._left) >= _ENOUGH:
            loud = sorted(self._left)[int(_LOUDER_OF * len(self._left))]
            self.gain_db = min(max(loud + self._profile.margin_db, _LEAST_GAIN_DB), _MOST_GAIN_DB)


def _dbov(energy: float) -> float:
    """Level of a block of that energy."""
    if energy <= 0:
        return FLOOR_DBOV
    return max(FLOOR_DBOV, 10 * math.log10(energy / (FRAME_SAMPLES * FULL_SCALE**2)))
