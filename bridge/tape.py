"""Keeps the two sides of a leg's recording together where the event loop stood still.

After a standstill the caller's backlog is read in one go, before or after the clock says which frames were
never played (asyncio reads sockets first, libuv looks at timers first). A recording takes what was played for
its time, and holds the caller's side within 200 ms of it: laid down as they come, 400 ms of backlog would be
cut as a flood, or pushed back. So the silence of a standstill goes onto the tape frame by frame with the
backlog that belongs to it.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from audio.frames import FRAME_BYTES, SILENCE
from bridge.clock import GIVE_UP_FRAMES

PATIENCE_FRAMES = 5
"""So many ticks after a standstill the backlog has been read, or there is none."""


class Tape(Protocol):
    """What a leg's recording looks like from here."""

    def played(self, frame: bytes) -> None:
        """What went out."""

    def heard(self, pcm: bytes) -> None:
        """What came in."""

    def close(self) -> None:
        """The leg is over."""


class TapeHead:
    """Lays a leg's sound onto a tape."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._ahead = 0
        """Frames of a standstill on the tape which the clock has not told of yet."""
        self._waiting: deque[bytes] = deque()
        """What was played since a standstill, and waits for the caller's backlog."""
        self._patience = 0

    def heard(self, pcm: bytes, behind: int) -> None:
        """What came in; ``behind``: frames that should have been played since the last tick."""
        for _ in range(max(1, len(pcm) // FRAME_BYTES)):
            if self._waiting:
                self._tape.played(self._waiting.popleft())
            elif behind > GIVE_UP_FRAMES and self._ahead < behind:
                self._tape.played(SILENCE)
                self._ahead += 1
        self._tape.heard(pcm)

    def played(self, frame: bytes, skipped: int) -> None:
        """What went out, after ``skipped`` frames that never did."""
        if skipped:
            self._waiting.extend([SILENCE] * (skipped - self._ahead))
            self._patience = PATIENCE_FRAMES
        self._ahead = 0
        self._waiting.append(frame)
        if self._patience:
            self._patience -= 1
        else:
            self._catch_up()

    def close(self) -> None:
        """The leg is over."""
        self._catch_up()
        self._tape.close()

    def _catch_up(self) -> None:
        while self._waiting:
            self._tape.played(self._waiting.popleft())
