"""The recordings of a visit on its clock: found in the recordings' directory, mixed as they are asked for.

What is played begins where the visit begins: silence comes before a leg that was connected later. A player's
time is the visit's time then, whichever legs it plays. Everything here reads files: it belongs in a thread.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from audio.recording import FRAME, HEADER, MAX_FRAMES, RATE, wav_header
from bridge.recorder import recording_name
from bridge.review.model import Lane, Timeline
from storage.base import VisitView

CHUNK_FRAMES: Final = 16_384
"""Frames that are read and mixed at a time: two seconds."""
_FORMAT: Final = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 2, RATE, RATE * FRAME, FRAME, 16)


class NoRecording(Exception):
    """There is no such recording, or what lies there is none; the text says which."""


@dataclass(frozen=True, slots=True)
class Track:
    """One leg's recording, on the visit's clock."""

    leg: str
    role: str
    path: Path
    frames: int
    """Stereo frames in the file: the caller on the left, ours on the right."""
    start: int
    """The frame of the visit's clock on which it begins."""
    version: tuple[int, int]
    """Changes when the file does."""

    @property
    def end(self) -> int:
        """The frame after its last one."""
        return self.start + self.frames


def tracks(root: Path, view: VisitView, read: Timeline) -> tuple[list[Track], dict[str, str]]:
    """The recordings of a visit that are there, and why each of the others is not, by leg.

    Args:
        root: the directory of all recordings; nothing outside it is read, wherever links lead.
        view: the visit.
        read: its time line.
    """
    named = {leg.leg: leg.recording for leg in view.legs}
    found: list[Track] = []
    missing: dict[str, str] = {}
    for lane in read.lanes:
        names = _names(view, lane, named.get(lane.leg), read)
        if not names:
            missing[lane.leg] = "not_recorded"
            continue
        try:
            found.append(_first_of(root, names, lane))
        except NoRecording as error:
            missing[lane.leg] = str(error)
    return found, missing


def _names(view: VisitView, lane: Lane, named: str | None, read: Timeline) -> list[Path]:
    """Where a leg's recording may be: where the record says; before that, where the recorder puts it."""
    if named is not None:
        return [Path(named)]
    if lane.end_ms is not None or lane.recorded is False:
        return []
    began = datetime.fromisoformat(read.started_at) + timedelta(milliseconds=lane.start_ms)
    days = dict.fromkeys((began.date(), (began - timedelta(seconds=5)).date()))
    return [recording_name(view.summary.tenant, day, view.summary.id, lane.leg) for day in days]


def _first_of(root: Path, names: Sequence[Path], lane: Lane) -> Track:
    for name in names[:-1]:
        try:
            return _track(root, name, lane)
        except NoRecording:
            continue
    return _track(root, names[-1], lane)


def _track(root: Path, name: Path, lane: Lane) -> Track:
    try:
        base = root.resolve()
        path = (base / name).resolve(strict=True)
    except (OSError, RuntimeError, ValueError):  # gone; links in a circle; a name that no file can have
        raise NoRecording("missing") from None
    if not path.is_relative_to(base):
        raise NoRecording("missing")
    handle = _open(path)
    try:
        told = os.fstat(handle)
        frames = _frames(os.pread(handle, HEADER, 0), told.st_size)
    finally:
        os.close(handle)
    start = round(lane.recording_ms * RATE / 1000)
    return Track(lane.leg, lane.role, path, frames, start, (told.st_size, told.st_mtime_ns))


def _open(path: Path) -> int:
    """A descriptor of a plain file. Raises :class:`NoRecording`."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        raise NoRecording("missing") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise NoRecording("missing")
    return handle


def _frames(header: bytes, size: int) -> int:
    """How many frames a file of our format holds."""
    if len(header) < HEADER or header[:4] != b"RIFF" or header[8:12] != b"WAVE" or header[12:36] != _FORMAT:
        raise NoRecording("unreadable")
    if header[36:40] != b"data":
        raise NoRecording("unreadable")
    (said,) = struct.unpack_from("<I", header, 40)
    return int(min(said, size - HEADER)) // FRAME


# --------------------------------------------------------------------------------------------------------
# What is heard
# --------------------------------------------------------------------------------------------------------


class Mix:
    """A WAV file that exists only as it is read: one leg, or several mixed.

    One leg: the caller on the left, ours on the right, as recorded. Several: all that was heard on the
    visitor's leg on the left, on the resident's on the right.
    """

    def __init__(self, found: Sequence[Track]) -> None:
        """`found`: at least one."""
        self._tracks = list(found)
        self._frames = min(max(track.end for track in found), MAX_FRAMES)

    def __len__(self) -> int:
        """Its length in bytes."""
        return HEADER + self._frames * FRAME

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` up to `end`, in pieces.

        A file that got shorter, or went away, is silence from there on: the length was promised already.
        """
        if start < HEADER:
            yield wav_header(self._frames)[start : min(end, HEADER)]
        first, last = max(start, HEADER) - HEADER, max(end, HEADER) - HEADER
        with ExitStack() as stack:
            open_tracks = list(self._open_tracks(stack))
            at = first // FRAME
            while at * FRAME < last:
                until = min(at + CHUNK_FRAMES, -(-last // FRAME))
                piece = self._mixed(open_tracks, at, until)
                yield piece[max(0, first - at * FRAME) : last - at * FRAME]
                at = until

    def _open_tracks(self, stack: ExitStack) -> Iterator[tuple[Track, int]]:
        for track in self._tracks:
            try:
                handle = _open(track.path)
            except NoRecording:
                continue
            stack.callback(os.close, handle)
            yield track, handle

    def _mixed(self, open_tracks: Sequence[tuple[Track, int]], start: int, end: int) -> bytes:
        total = np.zeros((end - start, 2), dtype=np.int32)
        for track, handle in open_tracks:
            frames = _piece(track, handle, start, end)
            at = max(start, track.start) - start
            if len(self._tracks) == 1:
                total[at : at + len(frames)] += frames
            else:
                total[at : at + len(frames), 0 if track.role == "visitor" else 1] += frames.sum(
                    axis=1, dtype=np.int32
                )
        return np.clip(total, -32768, 32767).astype("<i2").tobytes()


def _piece(track: Track, handle: int, start: int, end: int) -> NDArray[np.int16]:
    """The frames of a track that lie between two of the visit's."""
    first, last = max(start, track.start) - track.start, min(end, track.end) - track.start
    if last <= first:
        return np.zeros((0, 2), dtype=np.int16)
    data = os.pread(handle, (last - first) * FRAME, HEADER + first * FRAME)
    return np.frombuffer(data[: len(data) // FRAME * FRAME], dtype="<i2").reshape(-1, 2)
