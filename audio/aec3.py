"""WebRTC's echo canceller AEC3, out of livekit's package: a tenant's choice in place of our own filter.

It takes frames of 10 ms, finds the delay by itself, and suppresses what its filter leaves of the echo: little
is left half a second after a call's start. Some of a caller who speaks over us is suppressed with it.

What livekit 1.2 was measured to cost: 0.2 s and 13 MB to import; 13 MB and four idle threads for its runtime;
0.5 MB a leg; 135 µs for a block of 20 ms, of which 30 are the four calls into the library. Its runtime does
not outlive a fork.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from audio.frames import FRAME_BYTES, SILENCE, TELEPHONE_RATE

_TEN_MS: Final = TELEPHONE_RATE // 100
_MOST_SKIPPED: Final = 50
"""Frames of a standstill that it is told of; after a second it has to find the delay anew in any case."""


def available() -> bool:
    """Whether livekit's package is installed."""
    return find_spec("livekit") is not None and find_spec("livekit.rtc") is not None


class Aec3:
    """One leg's canceller. Both directions are whole blocks of 20 ms."""

    def __init__(self) -> None:
        """
        Raises:
            ImportError: livekit isn't installed, or its native library can't be loaded.
        """
        from livekit import rtc  # only where a tenant wants it

        self._frame = rtc.AudioFrame
        self._module = rtc.AudioProcessingModule(echo_cancellation=True)

    def played(self, frame: bytes, skipped: int = 0) -> None:
        """A block went out; ``skipped`` before it never did."""
        for _ in range(min(skipped, _MOST_SKIPPED)):
            self._played(SILENCE)
        self._played(frame)

    def _played(self, frame: bytes) -> None:
        for place in range(0, FRAME_BYTES, 2 * _TEN_MS):
            piece = bytearray(frame[place : place + 2 * _TEN_MS])
            self._module.process_reverse_stream(self._frame(piece, TELEPHONE_RATE, 1, _TEN_MS))

    def heard(self, block: bytes) -> bytes:
        """What is left of a block that came in."""
        left = bytearray()
        for place in range(0, FRAME_BYTES, 2 * _TEN_MS):
            piece = bytearray(block[place : place + 2 * _TEN_MS])
            self._module.process_stream(self._frame(piece, TELEPHONE_RATE, 1, _TEN_MS))
            left += piece
        return bytes(left)
