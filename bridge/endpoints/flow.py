"""What a peer may send and must read, without I/O: the guards against floods and slow readers, and the error.

Times are seconds. The guards only count: who asks ends the call, with the sentence that they give for the
log.
"""

from __future__ import annotations

from bridge.endpoints.base import FRAME_MS

LEAST_FRAME_S = 0.005
"""What the flood guard counts a frame as at least: real ones have 10 ms or more, tiny ones cost as much."""

KEY_S = 0.05
"""What the flood guard counts a key as: the shortest that a telephone sends."""

DEBT_PER_SENT = 0.25
"""How much of a dropped frame each sent one makes good: a peer that keeps losing over a fifth is too slow."""


class ControlError(ValueError):
    """A peer broke the protocol.

    Attributes:
        found: what came.
        allowed: what may come there.
    """

    def __init__(self, found: str, allowed: str) -> None:
        super().__init__(f"found {found}; allowed is {allowed}")
        self.found = found
        self.allowed = allowed


class FloodGuard:
    """Counts what comes against real time: a bucket that empties ``factor`` times as fast as a clock runs."""

    def __init__(self, factor: float, window_s: float) -> None:
        self.allowed_s = factor * window_s
        self._factor = factor
        self._window_s = window_s
        self._level = 0.0
        self._at = 0.0

    def takes(self, seconds: float, now: float) -> bool:
        """Count ``seconds`` of audio; False where it is more than there can be."""
        self._level = max(0.0, self._level - (now - self._at) * self._factor) + seconds
        self._at = now
        return self._level <= self.allowed_s

    @property
    def complaint(self) -> str:
        """What was found and what is allowed."""
        return (
            f"found audio that came faster than {self._factor:g} times real time for over "
            f"{self._window_s:g} s; allowed is real time, and {self.allowed_s:g} s at once"
        )


class SlowReaderGuard:
    """Counts the frames that found no room because the peer did not read, net of those that went out."""

    def __init__(self, allowed_s: float) -> None:
        self._allowed_s = allowed_s
        self._debt = 0.0
        self.unread = 0
        """Frames that were dropped."""

    def sent(self) -> None:
        """A frame went out."""
        if self._debt:
            self._debt = max(0.0, self._debt - DEBT_PER_SENT)

    def forgives(self) -> bool:
        """Count a dropped frame; False where it is one too many."""
        self.unread += 1
        self._debt += 1
        return self._debt * FRAME_MS < self._allowed_s * 1000

    @property
    def complaint(self) -> str:
        """What was found and what is allowed."""
        allowed = f"{self._allowed_s:g} s of them"
        return f"found {self.unread} frames that the peer did not read; allowed are {allowed}"
