"""Our own voice in what a leg hears: taken out as far as it can be predicted, and bounded where it can't.

A door station's loudspeaker sounds into its microphone, a hybrid reflects. What comes back is what we played,
20 to 400 ms later (jitter buffers, the network, the air). Two things tell it from a caller:

*Prediction.* A filter learns the way back, and what it predicts is taken out: `audio/canceller.py`.

*A bound.* How loud what is left was, without the street's noise, beside what we played when that echo began,
in the last second or two of our talk in which no caller was heard. Nothing below that and a margin counts as
a caller. It falls as soon as the filter gets better, and rises slowly: what is louder of a sudden is rather
a caller than an echo. Before anything is learnt, what comes back is taken for an echo as loud as the profile
says.

Both need the two directions in step: played and heard blocks are paired by their number. What stays out of
step for a second is paired anew, and the filter moved along.

Where for 400 ms of our talk so little came in that the least bound there is suffices, the filter rests: a
line without echo needs none. :class:`_Rest` says what wakes it.

Measured on a busy machine, for a block while our echo comes back: 80 µs each with eight legs worked on
together, 200 alone; 10 µs where the filter rests (`python -m bench.cold`). `porteiro bench --hearing`
measures how well it hears.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from audio.canceller import BLOCKS, KEPT, Canceller, Played, Work, cancel
from audio.frames import (
    FLOOR_DBOV,
    FRAME_BYTES,
    FRAME_SAMPLES,
    FULL_SCALE,
    SILENCE,
    energy,
    samples_of,
    saturated,
)

_SLACK: Final = 1
"""Blocks by which the heard may come early before they are paired anew."""
_JITTER: Final = 2
"""Blocks by which they may be early for good; more is a standstill's backlog, which the clock makes good."""
_PATIENCE: Final = 50
"""Blocks, a second, after which a lag counts as lasting."""

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

_CALLING: Final = 10
"""Blocks, 200 ms, of quiet that a caller hardly leaves within a sentence."""
_WORD: Final = 5
"""Blocks, 100 ms: what is loud for less is no matter."""
_LASTING: Final = 50
"""Blocks, a second, for which our voice does not go on where it is a caller's that comes in."""


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


@dataclass(slots=True, eq=False)
class _Block:
    """What was heard in 20 ms."""

    pcm: bytes
    number: int
    """Of the played block that it is paired with."""
    moved: int
    """By how many blocks the directions were paired anew just before."""
    speaking: bool
    level_dbov: float = FLOOR_DBOV
    near_dbov: float = FLOOR_DBOV
    """Of the loudest that echoes in it, by where the echo is known to be."""
    loudest_dbov: float = FLOOR_DBOV
    """Of the loudest that may echo in it, wherever the echo is."""


class _Rest:
    """Whether a leg's filter rests, because there is nothing to take out.

    It does once it was quiet for 400 ms while we talked. A caller who speaks over us does not wake it, an
    echo that comes up does: what is loud while we talk and ends with our voice, or before, may be our echo.
    What goes on when nothing of ours can come back any more is a caller. An echo that did not stop us is
    known by its going on for a second.
    """

    def __init__(self) -> None:
        self._quiet = 0
        """Blocks of our talk, one after the other, in which it was quiet."""
        self._loud = 0
        """While it rests: blocks of our talk in which it was not, and that nobody has answered for."""
        self.resting = False

    def over_us(self, quiet: bool) -> None:
        """A block in which our talk would be heard; ``quiet``: the least bound there is suffices for it."""
        self._quiet = self._quiet + 1 if quiet else 0
        if not self.resting:
            self.resting = self._quiet > BLOCKS
            return
        self._loud += not quiet
        if self._quiet >= _CALLING:
            self._ended()
        elif self._loud >= _LASTING:
            self.wake()

    def beside_us(self, quiet: bool) -> None:
        """A block in which nothing of ours would be heard that counts."""
        if self._loud and quiet:
            self._ended()
        self._loud = 0

    def _ended(self) -> None:
        if self._loud >= _WORD:
            self.wake()
        self._loud = 0

    def wake(self) -> None:
        """There is something to take out, perhaps."""
        self.resting = False
        self._quiet = self._loud = 0


def work_off(guards: Sequence[EchoGuard]) -> None:
    """Work on all blocks that wait, of all legs together: at eight legs 40 % of what each alone would cost.

    Which legs are there makes no difference to any of them.
    """
    while waiting := [guard for guard in guards if guard.waiting]:
        works = [(guard, work) for guard in waiting if (work := guard.begin()) is not None]
        if works:
            cancel([work for _, work in works])
        for guard, work in works:
            guard.finish(work)


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
        self._part = b""
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
        self._rest = _Rest()
        self._working: _Block | None = None
        self._interruptions: deque[int] = deque(maxlen=_TOO_OFTEN)
        """When we were interrupted, in blocks in which something could come back."""
        self._spoke = False
        self.begun_anew = 0
        """How often what was learnt was forgotten."""
        self.moved = 0
        """How often the directions were paired anew."""

    def played(self, frame: bytes, skipped: int = 0) -> None:
        """A frame went out; ``skipped`` before it never did."""
        for _ in range(min(skipped, KEPT)):
            self.output.add(SILENCE)
        self.output.count += max(0, skipped - KEPT)
        self.output.add(frame)
        if self._before is not None and not self.output.silent(0):
            self._before.played(frame, skipped)

    def heard(self, pcm8k: bytes, *, speaking: bool) -> list[tuple[bytes, float]]:
        """What came in, worked on at once. As :meth:`hear` and :meth:`take` otherwise."""
        self.hear(pcm8k, speaking=speaking)
        work_off((self,))
        return self.take()

    def hear(self, pcm8k: bytes, *, speaking: bool) -> None:
        """What came in; its blocks, as they are complete, wait to be worked on where our echo may be in them.

        Args:
            pcm8k: of any length.
            speaking: a caller is being heard: nothing is learnt about how loud the echo is.

        Raises:
            ValueError: ``pcm8k`` holds half a sample. Nothing of it is taken.
        """
        if not self._part and len(pcm8k) == FRAME_BYTES:
            self._hear_block(pcm8k, speaking)
            return
        samples_of(pcm8k)
        pcm = self._part + pcm8k
        whole = len(pcm) - len(pcm) % FRAME_BYTES
        for place in range(0, whole, FRAME_BYTES):
            self._hear_block(pcm[place : place + FRAME_BYTES], speaking)
        self._part = pcm[whole:]

    def _hear_block(self, block: bytes, speaking: bool) -> None:
        number, moved = self._pair()
        output = self.output
        if not self.waiting and output.silent(max(0, output.count - 1 - number)):
            self._silent_block(block, moved, speaking)
            return
        if self._before is not None and not output.silent(0):
            block = self._before.heard(block)
        self.waiting.append(_Block(block, number, moved, speaking))

    def _silent_block(self, block: bytes, moved: int, speaking: bool) -> None:
        """One in which nothing of ours can come back: there is nothing to work on."""
        if moved and self._canceller is not None:
            self._canceller.move(moved)
        self._rest.beside_us(not speaking)
        self._note(None, speaking)
        self._done.append((block, FLOOR_DBOV))

    def take(self) -> list[tuple[bytes, float]]:
        """What was worked on since this was last asked.

        Returns:
            For each block what is left of it, and the level in dBov up to which that may be our echo.
        """
        done, self._done = self._done, []
        return done

    def begin(self) -> Work | None:
        """The block that waited longest, for :func:`cancel` and :meth:`finish`; None: it is done already."""
        block = self.waiting.popleft()
        lag = self.output.count - 1 - block.number
        if self.output.silent(max(0, lag)):
            self._silent_block(block.pcm, block.moved, block.speaking)
            return None
        if block.moved and self._canceller is not None:
            self._canceller.move(block.moved)
        # What lags behind by more than is remembered is nobody's echo that could be told.
        canceller = self._canceller if 0 <= lag <= KEPT - BLOCKS else None
        located = canceller.located if canceller is not None else None
        loudest = self.output.loudest(max(0, lag), None)
        near = loudest if located is None else self.output.loudest(max(0, lag), located)
        block.level_dbov = _dbov(energy(block.pcm))
        block.near_dbov, block.loudest_dbov = _dbov(near), _dbov(loudest)
        if canceller is None or self._rests(block):
            self._bound(block, block.pcm, block.level_dbov)
            return None
        self._working = block
        telling = block.near_dbov >= _TELLING_DBOV and not block.speaking
        return Work(self.output, lag, canceller, samples_of(block.pcm).astype(np.float32), telling)

    def _rests(self, block: _Block) -> bool:
        """Whether the filter has nothing to do; where it rests from now on it lets go of all it knew."""
        near, rest, rested = block.near_dbov, self._rest, self._rest.resting
        least = max(near + _LEAST_GAIN_DB - self._profile.margin_db, _INAUDIBLE_DBOV)
        if near >= _TELLING_DBOV:
            rest.over_us(block.level_dbov <= least and (rested or self.gain_db <= _LEAST_OF_ECHO_DB))
        else:
            rest.beside_us(block.level_dbov <= least)
        if rest.resting and not rested:
            assert self._canceller is not None
            if self._canceller.located is not None:
                self._located()
            self._canceller.forget()
            self.output.rest()
        return rest.resting

    def finish(self, work: Work) -> None:
        """Take what became of the block that :meth:`begin` gave."""
        block, self._working = self._working, None
        assert block is not None
        if work.found:
            self._located()
        left = work.left
        if left is None:
            self._bound(block, block.pcm, block.level_dbov)
        else:
            self._bound(block, saturated(left.astype(np.float64)), _dbov(float(np.dot(left, left))))

    def _bound(self, block: _Block, left: bytes, level: float) -> None:
        """Up to which level what is left, which has this one, may be our echo; and learn from it."""
        near, loudest = block.near_dbov, block.loudest_dbov
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
        elif not 0 <= lag <= _SLACK and len(self._lags) == _PATIENCE:
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
                self._rest.wake()
                self.begun_anew += 1
        self._spoke = speaking

    @property
    def _echoes(self) -> bool:
        """There is an echo for all that is known: a canceller before us doesn't say."""
        return self._canceller is None or self._canceller.located is not None

    def _located(self) -> None:
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
