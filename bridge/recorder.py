"""Writes each leg's recording to a WAV file, from one thread; never holds a call up.

The event loop only appends what was played and heard to a recording's backlog, without waking anybody. The
writer thread comes by every half second, lays the audio out (``audio.recording``) and writes it. When the leg
is over it reads the file once more for its digest, which the audit log keeps. A recording that can't go on (a
full disk, or one so slow that the backlog is used up) ends, with one line in the log and a call of
``on_failed``; the call goes on.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote

import structlog

from audio.recording import FRAME, HEADER, RATE, SAMPLE, StereoTimeline, wav_header

log = structlog.get_logger(__name__)

FLUSH_S: Final = 0.5
"""How often the writer comes by: what a crash can cost of a recording."""

BACKLOG_S: Final = 15.0
"""Audio of one recording that may wait for a slow disk (about 480 KB), before that recording is given up."""

DIGEST_CHUNK: Final = 1 << 20

Reason = Literal["full", "io", "exists", "denied", "slow", "long", "stopped"]


@dataclass(frozen=True, slots=True)
class RecordingFailure:
    """Why a recording stopped early: the data of a ``recording.failed`` record, without anybody's name."""

    leg: str
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class RecordingClosed:
    """What a recording's file holds for good: the data of a ``recording.closed`` record."""

    leg: str
    recording: str
    """The file below the root of all recordings."""
    bytes: int
    sha256: str


def _component(text: str) -> str:
    """One name in a path out of any text: unlike texts stay unlike, and none climbs out of the directory."""
    raw = text.encode("utf-8", "surrogatepass")
    name = quote(raw, safe="")
    if len(name) > 120:  # file systems end at 255 bytes
        name = f"{name[:100]}%{sha256(raw).hexdigest()[:16]}"
    return name if name and not name.startswith(".") else f"%{name}"


def recording_name(tenant: str, day: date, visit: str, leg: str) -> Path:
    """The file of a leg's recording, below the root of all recordings; `day`: in UTC, when it began."""
    return Path(_component(tenant), day.isoformat(), f"{_component(f'{visit}-{leg}')}.wav")


def _reason(error: OSError) -> Reason:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "full"
    if error.errno == errno.EEXIST:
        return "exists"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "denied"
    return "io"


OnFailed = Callable[[RecordingFailure], None]
OnClosed = Callable[[RecordingClosed], None]


class Recording:
    """One leg's recording. Made by :meth:`Recorder.start`; all its methods are for the event loop.

    The event loop appends to ``_backlog`` and the writer takes from it: a deque is safe between two threads,
    and each of the two counters of bytes has one side that writes it.
    """

    def __init__(
        self,
        leg: str,
        file: _File,
        backlog_bytes: int,
        on_failed: OnFailed | None,
        on_closed: OnClosed | None,
    ) -> None:
        """Use :meth:`Recorder.start`."""
        self.leg = leg
        self.relative = file.relative
        self._file = file
        self._limit = backlog_bytes
        self._on_failed = on_failed
        self._on_closed = on_closed
        self._done = asyncio.Event()
        self._given = 0
        self._failure: RecordingFailure | None = None
        self._result: RecordingClosed | None = None
        self._closed = False

    @property
    def result(self) -> RecordingClosed | None:
        """What the complete file holds; None until then, and where the file could not be read for it."""
        return self._result

    @property
    def failure(self) -> RecordingFailure | None:
        """Why it stopped early; None while all is well."""
        return self._failure

    def played(self, frame: bytes) -> None:
        """What just went out to the caller: 8 kHz s16 mono. Never blocks; raises for half a sample only."""
        self._give(True, frame)

    def heard(self, pcm: bytes) -> None:
        """What just came from the caller: 8 kHz s16 mono, any length."""
        self._give(False, pcm)

    def close(self) -> None:
        """The leg is over; the writer completes the file. More than once is harmless."""
        if not self._closed:
            self._closed = True
            self._file.backlog.append(None)

    async def finished(self, deadline_s: float = 5.0) -> bool:
        """Wait for the file to be complete after :meth:`close`. False: it failed, or the deadline passed."""
        try:
            async with asyncio.timeout(deadline_s):
                await self._done.wait()
        except TimeoutError:
            return False
        return self._failure is None

    def _give(self, ours: bool, pcm: bytes) -> None:
        if self._closed or self._failure is not None or not pcm:
            return
        if len(pcm) % SAMPLE:
            raise ValueError(f"{len(pcm)} bytes are not whole 16-bit samples")
        self._given += len(pcm)
        if self._given - self._file.taken > self._limit:
            self._file.abandoned = True
            self._fail("slow", "more audio came than could be written")
            return
        self._file.backlog.append((ours, bytes(pcm)))

    def _fail(self, reason: Reason, detail: str) -> None:
        if self._failure is not None:
            return
        self._failure = RecordingFailure(self.leg, reason, detail)
        self._done.set()
        log.error("recording failed", visit=self._file.visit, leg=self.leg, reason=reason, detail=detail)
        if self._on_failed is not None:
            # Not from within played() and heard(): whoever is told must not hold the audio up.
            asyncio.get_running_loop().call_soon(self._on_failed, self._failure)

    def _end(self, error: tuple[Reason, str] | None, digest: _Digest | None) -> None:
        """The writer is through with the file."""
        if error is not None:
            self._fail(*error)
        self._closed = True
        if digest is not None:
            self._result = RecordingClosed(self.leg, str(self.relative), *digest)
            if self._on_closed is not None:
                self._on_closed(self._result)
        self._done.set()


_Digest = tuple[int, str]
"""(bytes, SHA-256 in hexadecimal) of a file."""


class _File:
    """One recording's file. After its making only the writer thread touches it, except where said."""

    def __init__(self, root: Path, relative: Path, visit: str) -> None:
        self.path = root / relative
        self.relative = relative
        self.visit = visit
        self.backlog: deque[tuple[bool, bytes] | None] = deque()
        """(ours, pcm), appended by the event loop; None: the leg is over."""
        self.taken = 0
        """Bytes that the writer took from the backlog; read by the event loop."""
        self.abandoned = False
        """Set by the event loop, which gave the recording up."""
        self._timeline = StereoTimeline()
        self._frames = 0
        self._handle: int | None = None

    def work(self, *, last: bool) -> bool:
        """Write what waits. True when the file is complete; ``last``: whether or not the leg is over.

        Raises OSError, and ValueError when the file is as long as a WAV file can be.
        """
        if self._handle is None:
            self._open()
        over = self._take_backlog() or last
        self._write(self._timeline.finish() if over else self._timeline.take())
        if over and self._handle is not None:
            os.fsync(self._handle)
        return over

    def digest(self) -> _Digest | None:
        """Of the file as it is; None where it was never made. The GIL is free for most of the time."""
        if self._handle is None:
            return None
        state, length = sha256(), 0
        while chunk := os.pread(self._handle, DIGEST_CHUNK, length):
            state.update(chunk)
            length += len(chunk)
        return length, state.hexdigest()

    def close(self) -> None:
        """Leave what is in the file as it is: a sound WAV file, up to the last flush where it failed."""
        handle, self._handle = self._handle, None
        self.backlog.clear()
        if handle is not None:
            os.close(handle)

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._handle = os.open(self.path, flags, 0o600)
        _write_all(self._handle, wav_header(0), 0)

    def _take_backlog(self) -> bool:
        """Lay out what waits. True when the leg is over."""
        while self.backlog:
            entry = self.backlog.popleft()
            if entry is None:
                return True
            ours, pcm = entry
            if ours:
                self._timeline.played(pcm)
            else:
                self._timeline.heard(pcm)
            self.taken += len(pcm)
        return False

    def _write(self, stereo: bytes) -> None:
        assert self._handle is not None
        if not stereo:
            return
        header = wav_header(self._frames + len(stereo) // FRAME)
        # First the sound, then the header that speaks of it: a crash in between costs this flush only.
        _write_all(self._handle, stereo, HEADER + self._frames * FRAME)
        _write_all(self._handle, header, 0)
        self._frames += len(stereo) // FRAME


def _write_all(handle: int, data: bytes, offset: int) -> None:
    """``pwrite`` until all is written: a disk that fills up first writes a part, and only then says so."""
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, offset)
        view, offset = view[written:], offset + written


class Recorder:
    """Writes all recordings of the service. Make it inside the event loop."""

    def __init__(self, root: Path, *, flush_s: float = FLUSH_S, backlog_s: float = BACKLOG_S) -> None:
        """Begin the writer thread.

        Args:
            root: the directory of all recordings; it is made when the first one starts.
            flush_s: seconds between two writings.
            backlog_s: seconds of one leg's audio (both sides) that may wait for the disk.
        """
        self._root = root
        self._flush_s = flush_s
        self._backlog_bytes = int(backlog_s * RATE) * 2 * SAMPLE
        self._loop = asyncio.get_running_loop()
        self._new: deque[tuple[_File, Recording]] = deque()
        self._stopping = threading.Event()
        self._ended = asyncio.Event()
        # A daemon: a writer that hangs on a dead disk must not keep the service from ending.
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def start(
        self,
        *,
        tenant: str,
        visit: str,
        leg: str,
        on_failed: OnFailed | None = None,
        on_closed: OnClosed | None = None,
        day: date | None = None,
    ) -> Recording:
        """Begin a leg's recording: ``<root>/<tenant>/<YYYY-MM-DD>/<visit>-<leg>.wav``, mode 0600.

        Never raises for the disk's sake: the file is made by the writer.

        Args:
            tenant: whose directory.
            visit: the visit's id.
            leg: the leg's name within the visit.
            on_failed: called on the event loop, at most once, when the recording stops early.
            on_closed: called on the event loop, at most once, when the file will not change any more; after
                a failure too, where there is a file.
            day: of the directory; today in UTC unless given.

        Returns:
            The recording. Its ``relative`` is the file below the root, for the ``leg.ended`` record.
        """
        name = recording_name(tenant, day or datetime.now(UTC).date(), visit, leg)
        file = _File(self._root, name, visit)
        recording = Recording(leg, file, self._backlog_bytes, on_failed, on_closed)
        if self._stopping.is_set():
            recording._end(("stopped", "the service is stopping"), None)
        else:
            self._new.append((file, recording))
        return recording

    async def stop(self, deadline_s: float = 5.0) -> bool:
        """Complete every file and end the writer. False: the deadline passed with files not complete.

        What those hold up to their last flush stays readable.
        """
        self._stopping.set()
        try:
            async with asyncio.timeout(deadline_s):
                await self._ended.wait()
        except TimeoutError:
            log.error("recordings not complete", deadline_s=deadline_s)
            return False
        return True

    # ---- in the writer thread --------------------------------------------------------------------------

    def _run(self) -> None:
        running: dict[_File, Recording] = {}
        last = False
        while not last:
            last = self._stopping.wait(self._flush_s)
            while self._new:
                file, recording = self._new.popleft()
                running[file] = recording
            for file in [file for file in running if self._serve(file, running[file], last)]:
                del running[file]
        self._tell(self._ended.set)

    def _serve(self, file: _File, recording: Recording, last: bool) -> bool:
        """Write one recording on. True when it is over, well or not."""
        error: tuple[Reason, str] | None = None
        try:
            over = file.abandoned or file.work(last=last)
        except OSError as failure:
            error = _reason(failure), failure.strerror or str(failure)
        except ValueError as failure:
            error = "long", str(failure)
        if error is None and not over:
            return False
        digest: _Digest | None = None
        try:
            digest = file.digest()
        except OSError as failure:
            error = error or (_reason(failure), failure.strerror or str(failure))
        try:
            file.close()
        except OSError as failure:
            error = error or (_reason(failure), failure.strerror or str(failure))
        self._tell(recording._end, error, digest)
        return True

    def _tell(self, function: Callable[..., None], *args: object) -> None:
        if not self._loop.is_closed():  # else nobody is left to be told
            self._loop.call_soon_threadsafe(function, *args)
