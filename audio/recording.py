"""The recording of one leg: the caller on the left, ours on the right, sample by sample; and its WAV header.

The clock of a recording is what we played: we send one frame each 20 ms from the first moment on, whatever
happens, so our samples count the call's time. The caller's audio comes on the caller's clock, in bursts and
with gaps; :class:`StereoTimeline` lays it beside ours.
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np

RATE: Final = 8000
"""Samples a second, on both sides of a recording."""

SAMPLE: Final = 2
"""Bytes a sample: little-endian signed 16-bit."""

FRAME: Final = 2 * SAMPLE
"""Bytes of one stereo frame."""

HEADER: Final = 44
"""Bytes of the WAV header."""

MAX_FRAMES: Final = (0xFFFF_FFFF - HEADER) // FRAME
"""What a WAV file's 32-bit sizes can hold: 37 hours."""

SLACK_MS: Final = 200
"""How far the caller's audio may lie before or behind our clock, in milliseconds."""


class StereoTimeline:
    """Lays what was heard beside what was played.

    The caller's audio goes where the last of it ended, so that it is never torn by jitter, but never further
    than ``slack`` from our clock:

    - It has fallen more than ``slack`` behind (the caller sent nothing for a while, or its clock is slow):
      silence is put in and it goes on half as far behind, so that the next frame's jitter tears nothing.
      ``padded`` counts that silence.
    - It has run more than ``slack`` ahead (the caller's clock is fast, or it floods us): what does not fit is
      left out, and ``dropped`` counts it. At a clock 100 ppm fast that is one sample in 10,000, which nobody
      hears.

    So the two sides are never apart by more than ``slack``, the recording never gets longer than the call by
    more than that, and memory stays bounded as long as :meth:`take` is called. A burst after a stall of the
    network up to ``slack`` long lands where it belongs, without a gap.
    """

    def __init__(self, slack_ms: int = SLACK_MS) -> None:
        """``slack_ms``: the bound on both sides, in milliseconds."""
        if slack_ms < 0:
            raise ValueError("the slack of a recording cannot be negative")
        self._slack = slack_ms * RATE // 1000
        self._ours = bytearray()
        self._theirs = bytearray()
        self._base = 0
        """The first sample that was not taken yet: both buffers begin there."""
        self._finished = False
        self._fell_behind = False
        """Silence was put in since the caller's last sound."""
        self.padded = 0
        """Samples of silence that were put into the caller's side."""
        self.dropped = 0
        """Samples of the caller's that were left out."""

    @property
    def clock(self) -> int:
        """Samples played so far: the time of the call."""
        return self._base + len(self._ours) // SAMPLE

    @property
    def position(self) -> int:
        """Where the caller's next sample goes if it comes in time."""
        return self._base + len(self._theirs) // SAMPLE

    def played(self, frame: bytes) -> None:
        """What went out to the caller; advances the clock by its length. ValueError on half a sample."""
        self._check(frame)
        self._ours += frame

    def heard(self, pcm: bytes) -> None:
        """What came from the caller. Raises ValueError on half a sample."""
        self._check(pcm)
        if self._fell_behind or self.position < self.clock - self._slack:
            self._pad_to(self.clock - self._slack // 2)
            self._fell_behind = False
        room = self.clock + self._slack - self.position
        samples = len(pcm) // SAMPLE
        if samples > room:
            self.dropped += samples - room
            pcm = pcm[: room * SAMPLE]
        self._theirs += pcm

    def take(self) -> bytes:
        """The stereo frames that nothing can change any more, interleaved; each is given once."""
        if self.position < self.clock - self._slack:
            self._pad_to(self.clock - self._slack)
            self._fell_behind = True
        return self._cut(min(self.clock, self.position))

    def finish(self) -> bytes:
        """The rest, up to the later end of both sides; the shorter is padded. Nothing may follow."""
        end = max(self.clock, self.position)
        self._finished = True
        self._pad_to(end)
        self._ours += bytes((end - self.clock) * SAMPLE)
        return self._cut(end)

    def _check(self, pcm: bytes) -> None:
        if self._finished:
            raise ValueError("the recording is finished")
        if len(pcm) % SAMPLE:
            raise ValueError(f"{len(pcm)} bytes are not whole 16-bit samples")

    def _pad_to(self, sample: int) -> None:
        missing = sample - self.position
        if missing > 0:
            self.padded += missing
            self._theirs += bytes(missing * SAMPLE)

    def _cut(self, end: int) -> bytes:
        count = end - self._base
        stereo = np.empty((count, 2), dtype="<i2")
        # The views must be gone before the buffers shrink: a bytearray that is looked at refuses to.
        stereo[:, 0] = np.frombuffer(self._theirs, dtype="<i2", count=count)
        stereo[:, 1] = np.frombuffer(self._ours, dtype="<i2", count=count)
        del self._theirs[: count * SAMPLE]
        del self._ours[: count * SAMPLE]
        self._base = end
        return stereo.tobytes()


def wav_header(frames: int) -> bytes:
    """The 44 bytes before ``frames`` stereo frames of 8 kHz 16-bit PCM.

    A recorder writes the header for 0 frames first, and again over it after every flush, once the frames are
    in the file. A file that was cut off by a crash is then a sound WAV file up to its last flush: players go
    by the header's sizes, and what lies behind is ignored.

    Raises:
        ValueError: more than :data:`MAX_FRAMES`.
    """
    if not 0 <= frames <= MAX_FRAMES:
        raise ValueError(f"a WAV file holds up to {MAX_FRAMES} frames, not {frames}")
    size = frames * FRAME
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        HEADER - 8 + size,
        b"WAVE",
        b"fmt ",
        16,
        1,  # PCM
        2,  # channels
        RATE,
        RATE * FRAME,
        FRAME,
        8 * SAMPLE,
        b"data",
        size,
    )
