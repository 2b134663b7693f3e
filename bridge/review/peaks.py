"""How loud a recording is, over time: what a waveform is drawn from.

A recording is read once, in a thread, to the loudest sample of each 10 ms; that is kept in memory, for as
many recordings as fit. Columns of any width come from there.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from audio.recording import FRAME, HEADER, RATE
from bridge.review.sound import Track

BIN: Final = RATE // 100
"""Frames of which the loudest sample is kept: 10 ms."""
KEPT_BYTES: Final = 16 << 20
"""Of peaks in memory: 23 hours of recordings."""
WIDEST: Final = 8_000
"""Columns that may be asked for."""
_READ: Final = BIN * 2_000
"""Frames that are read at a time: 20 s."""

Columns = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Peaks:
    """The loudest samples, 0 to 255, one for each 10 ms of the recording."""

    caller: Columns
    ours: Columns


class PeaksCache:
    """Peaks of the recordings that were looked at last. Any number of threads may use it."""

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self._kept_bytes = kept_bytes
        self._known: OrderedDict[tuple[object, ...], Peaks] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def of(self, track: Track) -> Peaks:
        """A recording's peaks. A file that can't be read any more is silence."""
        key = (track.path, track.version)
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        peaks = _measure(track)
        with self._lock:
            if key not in self._known:
                self._known[key] = peaks
                self._bytes += _size(peaks)
            while self._bytes > self._kept_bytes and len(self._known) > 1:
                _, oldest = self._known.popitem(last=False)
                self._bytes -= _size(oldest)
        return peaks

    def columns(self, track: Track, length_ms: float, width: int) -> Peaks:
        """A recording's peaks in `width` columns that span the visit from its start to `length_ms`."""
        peaks = self.of(track)
        return Peaks(*(_columns(side, track, length_ms, width) for side in (peaks.caller, peaks.ours)))


def _size(peaks: Peaks) -> int:
    return peaks.caller.nbytes + peaks.ours.nbytes


def _measure(track: Track) -> Peaks:
    bins = -(-track.frames // BIN)
    loudest = np.zeros((bins, 2), dtype=np.uint8)
    try:
        with open(track.path, "rb", opener=_plainly) as file:
            file.seek(HEADER)
            at = 0
            while at < bins and (data := file.read(min(_READ, track.frames - at * BIN) * FRAME)):
                frames = np.frombuffer(data[: len(data) // FRAME * FRAME], dtype="<i2").reshape(-1, 2)
                whole = np.zeros((-(-len(frames) // BIN) * BIN, 2), dtype=np.int32)
                whole[: len(frames)] = np.abs(frames.astype(np.int32))
                top = whole.reshape(-1, BIN, 2).max(axis=1) >> 7
                loudest[at : at + len(top)] = np.minimum(top, 255)
                at += len(top)
    except (
        OSError
    ):  # it was there a moment ago: the picture has no wave then, and the page says why next time
        loudest[:] = 0
    return Peaks(loudest[:, 0].copy(), loudest[:, 1].copy())


def _plainly(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _columns(side: Columns, track: Track, length_ms: float, width: int) -> Columns:
    """Each bin goes into the columns that it touches; columns narrower than a bin share it."""
    columns = np.zeros(width, dtype=np.uint8)
    if length_ms <= 0 or not len(side):
        return columns
    edges = (np.arange(width + 1) * (length_ms * RATE / 1000 / width) - track.start) / BIN
    first = np.floor(edges[:-1] + 1e-9).astype(np.int64)
    last = np.maximum(np.ceil(edges[1:] - 1e-9).astype(np.int64), first + 1)
    inside = (last > 0) & (first < len(side))
    first, last = np.clip(first, 0, len(side) - 1), np.clip(last, 1, len(side))
    if not inside.any():
        return columns
    # reduceat takes pairs of bounds; what it gives for the gaps between them is thrown away.
    bounds = np.stack([first, np.maximum(last, first + 1)], axis=1).ravel()
    padded = np.append(side, np.uint8(0))
    columns[inside] = np.maximum.reduceat(padded, bounds)[::2][inside]
    return columns
