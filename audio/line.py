"""What one caller says on its way to the other's ear: a short queue between two clocks.

One side pushes as its telephone sends, the other takes 20 ms with each of our ticks. Nothing is buffered
ahead: a frame waits for the next tick and no longer. One that comes too late for its tick leaves a gap once,
and from then on the queue is as deep as the lateness asks for. It never grows beyond that:

1. What was not needed for a whole second (:data:`SETTLE_FRAMES`) is let go, one frame at a time: a telephone
   whose clock runs fast, a burst after a standstill.
2. More than :data:`MOST_FRAMES` never wait: the oldest go.

A frame that sounds like a telephone's key is taken as silence (:mod:`audio.keys`): nobody presses the other's
keys.

For every line, always: pushed = taken + waiting + dropped, in samples.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from audio.frames import FRAME_BYTES, SAMPLE_BYTES, SILENCE
from audio.keys import sounds_like_key

MOST_FRAMES: Final = 5
"""100 ms, the jitter that telephones on a bad network have."""
SETTLE_FRAMES: Final = 50


class Line:
    """One direction. Not thread-safe; does no I/O and reads no clock."""

    def __init__(self) -> None:
        self._waiting = bytearray()
        self._least: deque[int] = deque(maxlen=SETTLE_FRAMES)
        """How much was left each time that a frame had been taken."""
        self.dropped_samples = 0
        """Let go because more was waiting than was needed."""
        self.gaps = 0
        """Frames of silence because nothing had come in time, once there had been something."""
        self.key_frames = 0
        """Frames of silence because they sounded like a telephone's key."""
        self._begun = False

    def push(self, pcm: bytes) -> None:
        """What the one side said, at 8 kHz, any number of samples.

        Raises:
            ValueError: ``pcm`` holds half a sample. Nothing of it is taken.
        """
        if len(pcm) % SAMPLE_BYTES:
            raise ValueError(f"{len(pcm)} bytes are not a whole number of 16-bit samples")
        self._waiting += pcm
        self._drop(len(self._waiting) - MOST_FRAMES * FRAME_BYTES)

    def next_frame(self) -> bytes:
        """The next 20 ms for the other side, always :data:`FRAME_BYTES` bytes."""
        if len(self._waiting) < FRAME_BYTES:
            self.gaps += self._begun
            self._least.clear()
            return SILENCE
        self._begun = True
        frame = bytes(self._waiting[:FRAME_BYTES])
        del self._waiting[:FRAME_BYTES]
        self._least.append(len(self._waiting))
        if len(self._least) == SETTLE_FRAMES and min(self._least) >= FRAME_BYTES:
            self._drop(FRAME_BYTES)
            self._least.clear()
        if sounds_like_key(frame):
            self.key_frames += 1
            return SILENCE
        return frame

    @property
    def waiting_samples(self) -> int:
        """What was pushed and not yet taken."""
        return len(self._waiting) // SAMPLE_BYTES

    def _drop(self, surplus: int) -> None:
        if surplus > 0:
            del self._waiting[:surplus]
            self.dropped_samples += surplus // SAMPLE_BYTES
