"""The one 20 ms tick that paces every leg.

An idle processor charges 75–170 µs for every wake-up, so all legs share one. Deadlines are absolute (start +
n × 20 ms): lateness never adds up. A tick that comes late by whole frames is made good two frames a tick, so
that a phone's jitter buffer is not hit by a burst; what is late by more than `GIVE_UP_FRAMES` is let go, and
each leg is told how many frames it never played.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

import structlog

FRAME_S = 0.020
GIVE_UP_FRAMES = 10
"""A backlog of 200 ms is not made good: the loop stood still, and everything in it with it."""

ROUNDING = 1e-6
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
        self._legs: dict[int, Ticking] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handle: asyncio.TimerHandle | None = None
        self._due = 0.0
        self.lateness_ms: deque[float] = deque(maxlen=30_000)
        """How late each tick began, the last ten minutes."""
        self.frames_skipped = 0
        self._before: Callable[[], object] | None = None

    def start(self, before: Callable[[], object] | None = None) -> None:
        """Begin to tick. `before`: done once for all legs before they play; its fault ends them all."""
        self._before = before
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + FRAME_S
        self._handle = self._loop.call_at(self._due, self._tick)

    def stop(self) -> None:
        """Tick no more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def add(self, leg: Ticking) -> None:
        """From the next tick on, this leg plays."""
        self._legs[id(leg)] = leg

    def discard(self, leg: Ticking) -> None:
        """This leg plays no more."""
        self._legs.pop(id(leg), None)

    def _tick(self) -> None:
        assert self._loop is not None
        late = self._loop.time() - self._due
        self.lateness_ms.append(late * 1000)
        behind = int(late / FRAME_S + ROUNDING)
        skipped = 0
        if behind > GIVE_UP_FRAMES:
            skipped = behind
            self.frames_skipped += skipped
            self._due += skipped * FRAME_S
            behind = 0
            log.warning("clock.stood_still", late_ms=round(late * 1000), frames=skipped)
        self._prepare()
        self._play(skipped)
        self._due += FRAME_S
        if behind:
            self._play(0)
            self._due += FRAME_S
        # Still behind, the next tick comes at the next place of the grid, not at once: that were the burst.
        missing = max(0, behind - 1)
        self._handle = self._loop.call_at(self._due + missing * FRAME_S, self._tick)

    def _prepare(self) -> None:
        if self._before is None:
            return
        try:
            self._before()
        except Exception as error:  # noqa: BLE001 - without it no leg can go on, but the clock must
            for leg in tuple(self._legs.values()):
                self._fail(leg, error)

    def _play(self, skipped: int) -> None:
        for leg in tuple(self._legs.values()):
            try:
                leg.tick(skipped)
            except Exception as error:  # noqa: BLE001 - one leg's fault must not silence the others
                self._fail(leg, error)

    def _fail(self, leg: Ticking, error: Exception) -> None:
        self.discard(leg)
        leg.fail(error)
