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

Measured on a busy machine: 130 µs a block while something of ours can come back, 10 µs otherwise; most of it
is what numpy charges for five Fourier transforms. `porteiro bench --hearing` measures how well it hears.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from audio.frames import FLOOR_DBOV, FRAME_SAMPLES, FULL_SCALE, samples_of, saturated

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
_NOTHING: Final = np.zeros(FRAME_SAMPLES, np.int16)

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
        self._spectra: Spectra = np.zeros((2 * _KEPT, _BINS), np.complex64)
        self._densities: Floats = np.zeros((2 * _KEPT, _BINS), np.float32)
        self._powers: Floats = np.zeros(2 * _KEPT, np.float32)
        self._pair: Floats = np.zeros(2 * FRAME_SAMPLES, np.float32)
        self._at = 0
        self._silent = _KEPT
        """How many of the newest are digital silence."""
        self.count = 0

    def add(self, samples: npt.NDArray[np.int16]) -> None:
        """One more block was played."""
        self.count += 1
        self._at = (self._at - 1) % _KEPT
        self._silent = 0 if samples.any() else self._silent + 1
        for place in (self._at, self._at + _KEPT):
            self._powers[place] = 0
            self._spectra[place] = 0
            self._densities[place] = 0
        self._pair[:FRAME_SAMPLES] = self._pair[FRAME_SAMPLES:]
        self._pair[FRAME_SAMPLES:] = samples
        if self._silent > 1:
            return
        spectrum: Spectra = np.fft.rfft(self._pair).astype(np.complex64)
        new = self._pair[FRAME_SAMPLES:]
        power = float(np.dot(new, new))
        densities = _powers(spectrum)
        for place in (self._at, self._at + _KEPT):
            self._spectra[place] = spectrum
            self._densities[place] = densities
            self._powers[place] = power

    def loudest_dbov(self, lag: int) -> float:
        """Of the blocks up to the one that is ``lag`` before the newest, and of those it may still echo."""
        return _dbov(float(self._powers[self._at : self._at + lag + BLOCKS].max()))

    def silent(self, lag: int) -> bool:
        """Nothing sounded in the filter's length before the block that is ``lag`` before the newest."""
        return self._silent > lag + BLOCKS

    def spectra(self, lag: int) -> Spectra:
        """[BLOCKS, bins]: the block ``lag`` before the newest, and those before it."""
        return self._spectra[self._at + lag : self._at + lag + BLOCKS]

    def densities(self, lag: int) -> Floats:
        """[BLOCKS, bins]: the powers of those spectra."""
        return self._densities[self._at + lag : self._at + lag + BLOCKS]

    def energies(self, lag: int) -> Floats:
        """[BLOCKS]: their energies."""
        return self._powers[self._at + lag : self._at + lag + BLOCKS]


class Canceller:
    """One leg's adaptive filter. Samples are at the scale of 16-bit integers."""

    def __init__(self) -> None:
        self._padded: Floats = np.zeros((3, 2 * FRAME_SAMPLES), np.float32)
        self._pair: Spectra = np.zeros((2, _BINS), np.complex64)
        self._constrained = 0
        self.diverged = 0
        """How often what was learnt was no echo's path, and was forgotten."""
        self._forget()

    def _forget(self) -> None:
        """As at a call's start."""
        self._weights: Spectra = np.zeros((BLOCKS, _BINS), np.complex64)
        self._power: Floats = np.ones(_BINS, np.float32)
        """Of what was played lately, by frequency."""
        self._error_mean: Floats = np.zeros(_BINS, np.float32)
        self._echo_mean: Floats = np.zeros(_BINS, np.float32)
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

    def process(
        self, heard: Floats, spectra: Spectra, densities: Floats, played: Floats, *, learns: bool = True
    ) -> Floats:
        """What is left of a block when the echo of what was played is taken out; the block, if that is less.

        Args:
            heard: the block.
            spectra: of what was played, newest first.
            densities: their powers.
            played: their energies.
            learns: False while a caller speaks; before the filter is adapted it learns all the same.
        """
        weights, padded = self._weights, self._padded
        # Transforms go together, because each call costs more than what it computes. Beside the prediction,
        # one block a time is made a linear filter again, not a circular one.
        self._constrained = (self._constrained + 1) % BLOCKS
        self._pair[0] = (weights * spectra).sum(axis=0)
        self._pair[1] = weights[self._constrained]
        echo, taps = np.fft.irfft(self._pair)
        echo = echo[FRAME_SAMPLES:]
        present, predicted = float(np.dot(heard, heard)), float(np.dot(echo, echo))
        if not predicted <= _ABSURD * max(float(played.max()), present, _QUIET):  # also what is no number
            # Pure tones teach it anything beside their frequencies. Followed further it would overflow.
            self.diverged += 1
            self._forget()
            return heard
        error = heard - echo
        padded[0, FRAME_SAMPLES:] = error
        padded[1, FRAME_SAMPLES:] = echo
        padded[2, :FRAME_SAMPLES] = taps[:FRAME_SAMPLES]
        errors, echoes, weights[self._constrained] = np.fft.rfft(padded)
        energies = _Energies(
            float(played[0]),
            max(float(np.dot(error, error)), _QUIET),
            predicted,
            float(np.dot(echo, heard)),
        )
        powers = _powers(errors), _powers(echoes)
        self._power += (0.35 / BLOCKS) * (densities[0] - self._power) + 1
        leak = self._leak(*powers, energies)
        step = self._step(*powers, energies, leak)
        if step is not None and (learns or not self.adapted):
            self._learn(spectra, densities, step * errors)
        return error if energies.error < present else heard

    def _leak(self, errors: Floats, echoes: Floats, energies: _Energies) -> float:
        """Which share of the predicted echo's power is left: how far the two rise and fall together."""
        error_rise, echo_rise = errors - self._error_mean, echoes - self._echo_mean
        self._error_mean += _SMOOTH * error_rise
        self._echo_mean += _SMOOTH * echo_rise
        variance = math.sqrt(float(np.dot(echo_rise, echo_rise))) or 1.0
        correlation = float(np.dot(error_rise, echo_rise)) / variance
        alpha = min(_BETA * energies.echo / energies.error, _BETA_MOST)
        self._correlation += alpha * (correlation - self._correlation)
        self._variance = max(1.0, self._variance + alpha * (variance - self._variance))
        self._correlation = min(max(self._correlation, _LEAST_LEAK * self._variance), self._variance)
        return self._correlation / self._variance

    def _step(self, errors: Floats, echoes: Floats, energies: _Energies, leak: float) -> Floats | None:
        """How far to follow the error, by frequency; None: nothing can be learnt."""
        if not self.adapted and self._learnt > BLOCKS and leak > 0.03:
            self.adapted = True
        if self.adapted:
            residual = (0.0001 * energies.played + 3 * leak * energies.echo) / energies.error
            explained = energies.both**2 / (energies.error * energies.echo + 1)
            whole = 0.3 * min(0.5, max(residual, explained))
            errors = errors + 1
            share: Floats = 0.7 * np.minimum(leak * echoes, 0.5 * errors) / errors + whole
            return share
        if energies.played < _AUDIBLE:
            return None
        rate = min(0.5, 0.5 * energies.played / energies.error)
        self._learnt += rate
        return np.full(_BINS, rate, np.float32)

    def _learn(self, spectra: Spectra, densities: Floats, step: Spectra) -> None:
        """Follow the error; most where the filter already is, so that a short path is learnt soon."""
        weights = self._weights
        flat = weights.view(np.float32)
        shares = np.sqrt(np.einsum("bf,bf->b", flat, flat))
        shares += 1e-3
        shares += 0.1 * shares.max()
        shares /= shares.sum()
        step /= np.maximum(shares @ densities, 0.1 * self._power) + 10
        change = np.conj(spectra)
        change *= shares[:, None]
        change *= step
        weights += change


@dataclass(frozen=True, slots=True)
class _Energies:
    """Of one block: played, left, predicted; and how far the prediction was in what was heard."""

    played: float
    error: float
    echo: float
    both: float


def _powers(spectrum: Spectra) -> Floats:
    powers: Floats = spectrum.real**2 + spectrum.imag**2
    return powers


class EchoGuard:
    """One leg's guard: what is left of what it hears, and up to which level that may be our own echo.

    Give it every frame that went out and everything that came in, as they happen.
    """

    def __init__(self, profile: EchoProfile | None = None, *, cancels: bool = True) -> None:
        """``cancels``: whether to take the echo out; False where something before us has done so."""
        self._profile = profile or EchoProfile()
        self._played = Played()
        self._canceller = Canceller() if cancels else None
        self._heard = 0
        self._shift: int | None = None
        """Played blocks minus heard blocks, where a heard one is paired with the newest played one."""
        self._lags: deque[int] = deque(maxlen=_PATIENCE)
        self._waiting = np.zeros(0, np.int16)
        self._candidates: deque[float | None] = deque()
        """How loud each block of the last 300 ms was beside what we played; None: it tells nothing."""
        self._stretch: list[float] = []
        self._left: deque[float] = deque(maxlen=_REMEMBERED)
        """How loud the loudest block of each stretch was beside what we played."""
        self._sounded = 0
        """For how many blocks there has been something that could come back."""
        self.gain_db = self._profile.assumed_gain_db
        """Up to how much louder than what we played something may be and still be its echo."""
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
            self._played.add(_NOTHING)
        self._played.count += max(0, skipped - _KEPT)
        self._played.add(samples_of(frame))

    def heard(self, pcm8k: bytes, *, speaking: bool) -> list[tuple[bytes, float]]:
        """What came in, in whole blocks as they are complete.

        Args:
            pcm8k: of any length.
            speaking: a caller is being heard: nothing is learnt about how loud the echo is.

        Returns:
            For each block what is left of it, and the level in dBov up to which that may be our echo.

        Raises:
            ValueError: ``pcm8k`` holds half a sample. Nothing of it is taken.
        """
        self._waiting = np.concatenate((self._waiting, samples_of(pcm8k)))
        blocks = []
        while len(self._waiting) >= FRAME_SAMPLES:
            blocks.append(self._block(self._waiting[:FRAME_SAMPLES], speaking))
            self._waiting = self._waiting[FRAME_SAMPLES:]
        return blocks

    def _block(self, samples: npt.NDArray[np.int16], speaking: bool) -> tuple[bytes, float]:
        lag = self._lag()
        self._heard += 1
        if self._played.silent(max(0, lag)):
            self._note(None, speaking)
            return samples.tobytes(), FLOOR_DBOV
        left = samples.astype(np.float32)
        if self._canceller is not None and 0 <= lag <= _KEPT - BLOCKS:
            left = self._canceller.process(
                left,
                self._played.spectra(lag),
                self._played.densities(lag),
                self._played.energies(lag),
                learns=not speaking,
            )
        loudest = self._played.loudest_dbov(max(0, lag))
        self._sounded += 1
        self._watch(speaking)
        telling = loudest >= _TELLING_DBOV and self._sounded > BLOCKS
        self._note(_dbov(float(np.dot(left, left))) - loudest if telling else None, speaking)
        floor = max(FLOOR_DBOV, loudest + self.gain_db)
        return saturated(left.astype(np.float64)), floor

    def _lag(self) -> int:
        """How many blocks the one that belongs to the next heard block is older than the newest played."""
        newest = self._played.count - 1
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
            if self._canceller is not None:
                self._canceller.move(change)
        return lag - change

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
