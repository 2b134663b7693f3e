"""Where somebody's say begins and ends in a stream that never stops: by its level alone.

A full-duplex model sends its silence as well, and says nowhere that it is through. Its silence is silent (no
room, no line), so a level tells it from speech; a caller's audio is another matter (`audio/vad.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

import numpy as np

from audio.frames import SAMPLE_BYTES

WINDOW_MS: Final = 20
LOUD_DBOV: Final = -45.0
"""RMS of a window. Speech is at -30 to -15; what a codec makes of silence is below -70."""
LOUD_WINDOWS: Final = 2
"""So many windows one after the other begin an utterance: a click is none."""
LEAD_MS: Final = 80
"""So much of what came before belongs to it: soft first sounds, and a cushion for what comes late."""

_LOUD_SQUARE: Final = float((32768 * 10 ** (LOUD_DBOV / 20)) ** 2)

Found = Literal["began", "ended"] | bytes
"""What :meth:`Utterances.feed` gives: a beginning, pieces of sound, an end."""


class Utterances:
    """One stream of 16-bit PCM. Does no I/O and reads no clock."""

    def __init__(self, rate: int, quiet_ms: int) -> None:
        """
        Args:
            rate: samples per second.
            quiet_ms: so much quiet ends an utterance. May be changed at any time.
        """
        self.quiet_ms = quiet_ms
        self.speaking = False
        self.loud_until_ms = 0
        """The stream's time at which it was loud last."""
        self._bytes = rate * WINDOW_MS // 1000 * SAMPLE_BYTES
        self._lead = rate * (LEAD_MS + LOUD_WINDOWS * WINDOW_MS) // 1000 * SAMPLE_BYTES
        """Of an utterance, when it is known to be one."""
        self._before = b""
        """The last of what was no utterance."""
        self._rest = b""
        self._windows = 0
        self._loud = self._quiet = 0
        """Windows of the kind, one after the other."""

    @property
    def at_ms(self) -> int:
        """How much of the stream there has been."""
        return self._windows * WINDOW_MS

    def feed(self, pcm: bytes) -> Iterator[Found]:
        """The stream goes on. To be taken to its end; the end of an utterance comes with the last of it."""
        pcm = self._rest + pcm
        count = len(pcm) // self._bytes
        self._rest = pcm[count * self._bytes :]
        if not count:
            return
        samples = np.frombuffer(pcm, "<i2", count * self._bytes // SAMPLE_BYTES).astype(np.float32)
        square = samples.reshape(count, -1)
        loud = (square * square).mean(axis=1) > _LOUD_SQUARE
        begin = 0
        for window in range(count):
            self._count(bool(loud[window]))
            end = (window + 1) * self._bytes
            if not self.speaking and self._loud >= LOUD_WINDOWS:
                self.speaking = True
                yield "began"
                yield (self._before + pcm[begin:end])[-self._lead :].rjust(self._lead, b"\x00")
                begin = end
            elif self.speaking and self._quiet * WINDOW_MS >= self.quiet_ms:
                self.speaking = False
                if end > begin:
                    yield pcm[begin:end]
                self._before, begin = b"", end
                yield "ended"
        left = pcm[begin : count * self._bytes]
        if self.speaking and left:
            yield left
        elif not self.speaking:
            self._before = (self._before + left)[-self._lead :]

    def _count(self, loud: bool) -> None:
        self._windows += 1
        if loud:
            self._loud += 1
            self._quiet = 0
            self.loud_until_ms = self.at_ms
        else:
            self._quiet += 1
            self._loud = 0

    def stop(self) -> None:
        """The stream broke off: an utterance that had begun is over."""
        self.speaking = False
        self._loud = self._quiet = 0
        self._rest = b""
        self._before = b""


def without_pauses(pcm: bytes, rate: int) -> bytes:
    """The same without the windows that are not loud; what is less than a window at its end is kept."""
    step = rate * WINDOW_MS // 1000 * SAMPLE_BYTES
    whole = len(pcm) // step * step
    if not whole:
        return pcm
    samples = np.frombuffer(pcm, "<i2", whole // SAMPLE_BYTES).astype(np.float32)
    loud = (samples * samples).reshape(whole // step, -1).mean(axis=1) > _LOUD_SQUARE
    if loud.all():
        return pcm
    kept = [pcm[at * step : (at + 1) * step] for at in np.flatnonzero(loud)]
    return b"".join(kept) + pcm[whole:]


__all__ = ["LEAD_MS", "LOUD_DBOV", "LOUD_WINDOWS", "WINDOW_MS", "Utterances", "without_pauses"]
