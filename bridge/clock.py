"""The 20 ms tick that paces every leg, and the one instant at which their sockets are read.

An idle processor charges 75–170 µs for every wake-up, and more for the cold caches after it, so legs share
theirs: up to `SHARED_LEGS` all tick at one instant, more at two, 10 ms apart, and hundreds at `PHASES`, 5 ms
apart, so that none waits for the last. An instant without legs is none, and a clock without legs sleeps.

Deadlines are absolute (start + n × 20 ms): lateness never adds up. A tick that comes late by whole frames is
made good two frames a tick, so that a phone's jitter buffer is not hit by a burst; what is late by more than
`GIVE_UP_FRAMES` is let go, and each leg is told how many frames it never played.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import structlog

FRAME_S: Final = 0.020
PHASES: Final = 4
SHARED_LEGS: Final = 24
"""So many legs share one instant: to work for all of them takes a millisecond or two."""
GIVE_UP_FRAMES: Final = 10
"""A backlog of 200 ms is not made good: the loop stood still, and everything in it with it."""

STRAINED_MS: Final = 5.0
STRAIN_TICKS: Final = 50
"""How late ticks are is taken over so many of them."""
MANY_LEGS: Final = 64
"""From so many on a process counts as strained, even if it keeps up: what it saves, nobody misses."""

ROUNDING: Final = 1e-6
"""A tick on its place of the grid counts as there, whatever the floats say."""

log = structlog.get_logger(__name__)


class Ticking(Protocol):
    """What the clock paces."""

    def tick(self, skipped: int) -> None:
        """Play one frame. `skipped` frames before it were never played."""

    def fail(self, error: Exception) -> None:
        """`tick` raised; end this leg. The others go on."""


class Clock:
    """Ticks every leg every 20 ms."""

    def __init__(self) -> None:
        self.lateness_ms: deque[float] = deque(maxlen=30_000)
        """How late each tick began: the last ten minutes, or with many legs a quarter of that."""
        self._late_ms = 0.0
        """What is usual lately."""
        self.frames_skipped = 0
        """Frames that were let go, of each instant's grid."""
        self._before: Callable[[], object] | None = None
        self._phases = tuple(_Phase(self, number * FRAME_S / PHASES) for number in range(PHASES))
        self._of: dict[int, _Phase] = {}

    @property
    def strained(self) -> bool:
        """There are many legs, or ticks have been coming late for a while: who can do with less does."""
        return len(self._of) >= MANY_LEGS or self._late_ms > STRAINED_MS

    def note(self, late_ms: float) -> None:
        """A tick began so late."""
        self.lateness_ms.append(late_ms)
        self._late_ms += (late_ms - self._late_ms) / STRAIN_TICKS

    def start(self, before: Callable[[], object] | None = None) -> None:
        """Begin to tick. `before`: done once for all legs before any play; its fault ends them all."""
        self._before = before
        origin = asyncio.get_running_loop().time()
        for phase in self._phases:
            phase.start(origin)

    def stop(self) -> None:
        """Tick no more."""
        for phase in self._phases:
            phase.stop()

    def add(self, leg: Ticking) -> None:
        """From the next tick on, this leg plays."""
        if id(leg) in self._of:
            return
        phase = self._place()
        self._of[id(leg)] = phase
        phase.add(leg)

    def _place(self) -> _Phase:
        """Where one more leg ticks: with the others while they are few, else where the fewest do."""
        legs = len(self._of)
        if legs < SHARED_LEGS:
            return max(self._phases, key=len)
        return min(self._phases if legs >= PHASES * SHARED_LEGS else self._phases[::2], key=len)

    def discard(self, leg: Ticking) -> None:
        """This leg plays no more."""
        phase = self._of.pop(id(leg), None)
        if phase is not None:
            phase.discard(leg)

    def prepare(self) -> None:
        """What is done before any leg of an instant plays."""
        if self._before is None:
            return
        try:
            self._before()
        except Exception as error:  # noqa: BLE001 - without it no leg can go on, but the clock must
            for phase in self._phases:
                phase.fail_all(error)

    def fail(self, leg: Ticking, error: Exception) -> None:
        """End a leg that can't be ticked."""
        self.discard(leg)
        leg.fail(error)


class _Phase:
    """The legs that tick at one instant of every 20 ms."""

    def __init__(self, clock: Clock, offset_s: float) -> None:
        self._clock = clock
        self._offset_s = offset_s
        self._legs: dict[int, Ticking] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handle: asyncio.TimerHandle | None = None
        self._origin = 0.0
        self._due = 0.0

    def __len__(self) -> int:
        return len(self._legs)

    def start(self, origin: float) -> None:
        """Tick at whole frames after `origin` and this phase's offset, while there are legs."""
        self._loop = asyncio.get_running_loop()
        self._origin = origin + self._offset_s
        self._wake()

    def stop(self) -> None:
        """Tick no more."""
        self._loop = None
        self._sleep()

    def add(self, leg: Ticking) -> None:
        """One more leg."""
        self._legs[id(leg)] = leg
        self._wake()

    def discard(self, leg: Ticking) -> None:
        """One less."""
        self._legs.pop(id(leg), None)
        if not self._legs:
            self._sleep()

    def fail_all(self, error: Exception) -> None:
        """End every leg."""
        for leg in tuple(self._legs.values()):
            self._clock.fail(leg, error)

    def _wake(self) -> None:
        if self._loop is None or self._handle is not None or not self._legs:
            return
        elapsed = self._loop.time() - self._origin
        self._due = self._origin + (math.floor(elapsed / FRAME_S + ROUNDING) + 1) * FRAME_S
        self._handle = self._loop.call_at(self._due, self._tick)

    def _sleep(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _tick(self) -> None:
        assert self._loop is not None
        clock, handle, due = self._clock, self._handle, self._due
        late = self._loop.time() - due
        clock.note(late * 1000)
        behind = int(late / FRAME_S + ROUNDING)
        skipped = 0
        if behind > GIVE_UP_FRAMES:
            skipped = behind
            clock.frames_skipped += skipped
            due += skipped * FRAME_S
            behind = 0
            log.warning("clock.stood_still", late_ms=round(late * 1000), frames=skipped, legs=len(self._legs))
        clock.prepare()
        self._play(skipped)
        due += FRAME_S
        if behind:
            self._play(0)
            due += FRAME_S
        if self._handle is not handle:
            return  # the last leg went, and this phase sleeps, or has been woken since
        # Still behind, the next tick comes at the next place of the grid, not at once: that were the burst.
        self._due = due
        self._handle = self._loop.call_at(due + max(0, behind - 1) * FRAME_S, self._tick)

    def _play(self, skipped: int) -> None:
        for leg in tuple(self._legs.values()):
            try:
                leg.tick(skipped)
            except Exception as error:  # noqa: BLE001 - one leg's fault must not silence the others
                self._clock.fail(leg, error)
