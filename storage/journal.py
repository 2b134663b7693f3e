"""Keeps records on the local disk until their database is back: an append-only file, synced and checksummed.

One file a process, locked while that runs: whoever gets the lock of another's file knows that its process is
gone. The file begins with a line that names the format; each entry is its length and its CRC-32 (4 bytes
each, big-endian) before the record: JSON of tenant, visit, at, kind, the canonical text of its whole data,
and the salt by which what is about a person will be kept apart in the database (null: it won't be).
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Self, TypeVar, TypeVarTuple, Unpack

import orjson

from storage.base import Reason, StorageRefused, StorageTimeout, StorageUnavailable
from storage.store import checked
from visits.audit import Draft, canonical

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

SUFFIX: Final = ".journal"
HEADER: Final = b"porteiro-journal-1\n"
MAX_ENTRY: Final = 2_000_000
"""Bytes: more than any record has (``visits.audit.MAX_DATA_BYTES``, escaped once more)."""
_REASONS: Final[dict[int, Reason]] = {errno.ENOSPC: "full", errno.EDQUOT: "full", errno.EROFS: "read-only"}


class InUse(Exception):
    """The process that the file belongs to runs."""


def encode(record: Draft) -> bytes:
    """A record as an entry."""
    text = record.text if record.personal is None else canonical(record.data)
    payload = orjson.dumps([record.tenant, record.visit, record.at, record.kind, text, record.salt])
    return len(payload).to_bytes(4, "big") + zlib.crc32(payload).to_bytes(4, "big") + payload


def decode(data: bytes) -> tuple[list[Draft], int]:
    """The records of whole entries, one after the other, and how many bytes they are."""
    records: list[Draft] = []
    at = 0
    while len(data) - at >= 8:
        length = int.from_bytes(data[at : at + 4], "big")
        payload = data[at + 8 : at + 8 + length]
        if length > MAX_ENTRY or len(payload) < length:
            break
        if zlib.crc32(payload) != int.from_bytes(data[at + 4 : at + 8], "big"):
            break
        record = _read(payload)
        if record is None:
            break
        records.append(record)
        at += 8 + length
    return records, at


def _read(payload: bytes) -> Draft | None:
    try:
        tenant, visit, moment, kind, text, *rest = orjson.loads(payload)
        data = json.loads(text)  # whole, however large its numbers
        return checked(tenant, visit, moment, kind, data, salt=rest[0] if rest else None)
    except (ValueError, TypeError, AttributeError, StorageRefused):
        return None


class Journal:
    """One file. Made by :meth:`open`; for one event loop."""

    def __init__(self, path: Path, handle: int, end: int) -> None:
        """Use :meth:`open`."""
        self.path = path
        self._handle = handle
        self._end = end
        self._broken = ""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"journal {path.stem}")
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._flushing: asyncio.Task[None] | None = None

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open or make the file, and cut off what a crash left half written. Blocks for the disk.

        What is cut off was never said to be kept; it is put beside the file, for people.

        Raises:
            InUse: another process has it.
            StorageUnavailable: it can't be written, or is something else.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unavailable(path, error) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return cls(path, handle, _sound_part(path, handle))
        except BlockingIOError:
            os.close(handle)
            raise InUse(str(path)) from None
        except OSError as error:
            os.close(handle)
            raise _unavailable(path, error) from error
        except BaseException:
            os.close(handle)
            raise

    @property
    def begin(self) -> int:
        """Where the first record stands."""
        return len(HEADER)

    @property
    def end(self) -> int:
        """Where the next record will stand; records that are on their way do not count."""
        return self._end

    @property
    def busy(self) -> bool:
        """Whether records are on their way."""
        return bool(self._waiting) or self._flushing is not None

    @property
    def broken(self) -> bool:
        """Whether it takes records no more: a write failed, and could not be undone."""
        return bool(self._broken)

    async def append(self, record: Draft, deadline_s: float) -> None:
        """Keep a record; it is on the disk when this returns. Those that wait together share one sync.

        Raises:
            StorageUnavailable: it is not kept (a full disk …).
            StorageTimeout: not known to be kept.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._waiting.append((encode(record), done))
        if self._flushing is None:
            self._flushing = loop.create_task(self._flush(), name=f"flush of {self.path.name}")
        try:
            async with asyncio.timeout(deadline_s):
                await done
        except TimeoutError:
            raise StorageTimeout(f"{self.path}: not written within {deadline_s} s") from None

    async def _flush(self) -> None:
        try:
            while self._waiting:
                taken, self._waiting = self._waiting, []
                # Whoever gave up was told that nothing is kept: so it must be.
                batch = [each for each in taken if not each[1].done()]
                data = b"".join(entry for entry, _ in batch)
                error: StorageUnavailable | None = None
                try:
                    await asyncio.get_running_loop().run_in_executor(self._thread, self._write, data)
                except OSError as failure:
                    error = _unavailable(self.path, failure)
                for _, done in batch:
                    if done.done():
                        continue
                    if error is None:
                        done.set_result(None)
                    else:
                        done.set_exception(error)
        finally:
            self._flushing = None

    async def read(self, begin: int, most: int) -> tuple[list[Draft], int]:
        """Records from a place on, of ``most`` bytes or one; and the place after them."""
        size = max(0, self._end - begin)
        data = await self._in_thread(os.pread, self._handle, min(size, most), begin)
        records, used = decode(data)
        if not records and len(data) < size:
            records, used = decode(await self._in_thread(os.pread, self._handle, min(size, MAX_ENTRY), begin))
        if not records and size:
            raise StorageUnavailable("corrupt", f"{self.path}: no record at byte {begin}")
        return records, begin + used

    async def clear(self) -> None:
        """Forget all records: they are elsewhere."""
        await self._in_thread(self._cut, len(HEADER))

    async def _in_thread(self, work: Callable[[Unpack[Ts]], T], *arguments: *Ts) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
        except OSError as error:
            raise _unavailable(self.path, error) from error

    async def close(self, *, remove: bool = False) -> None:
        """Let go of the file; with ``remove`` it goes as well. More than once is harmless."""
        if self._flushing is not None:
            await asyncio.wait({self._flushing})
        handle, self._handle = self._handle, -1
        if handle >= 0:
            if remove:
                self.path.unlink(missing_ok=True)  # before the lock ends: nobody else has opened it
            os.close(handle)
            self._thread.shutdown(wait=False)

    # ---- in the thread ---------------------------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        if self._broken:
            raise OSError(errno.EIO, self._broken)
        try:
            _write_all(self._handle, data, self._end)
            os.fdatasync(self._handle)
        except OSError as error:
            try:
                self._cut(self._end)
            except OSError:
                # What is behind the end may be kept or not: nothing that follows it could be relied on.
                self._broken = f"a write failed ({error.strerror}) and could not be undone"
            raise
        self._end += len(data)

    def _cut(self, end: int) -> None:
        os.ftruncate(self._handle, end)
        os.fdatasync(self._handle)
        self._end = end


def _write_all(handle: int, data: bytes, at: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(handle, rest, at)
        rest, at = rest[written:], at + written


def _sound_part(path: Path, handle: int) -> int:
    """Where the sound entries end; what is behind them is moved beside the file."""
    data = path.read_bytes()
    if len(data) < len(HEADER):  # new, or never got as far as its first line
        if not HEADER.startswith(data):
            raise StorageUnavailable("not-ours", f"{path} is a file of another program")
        _write_all(handle, HEADER, 0)
        os.fsync(handle)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)  # or a power cut takes the file's name with all that was kept in it
        finally:
            os.close(directory)
        return len(HEADER)
    if not data.startswith(HEADER):
        raise StorageUnavailable("not-ours", f"{path} is a file of another program")
    _, used = decode(data[len(HEADER) :])
    end = len(HEADER) + used
    if end < len(data):
        torn = path.with_name(f"{path.name}.torn")
        with torn.open("ab") as beside:
            beside.write(data[end:])
        os.ftruncate(handle, end)
        os.fsync(handle)
    return end


def _unavailable(path: Path, error: OSError) -> StorageUnavailable:
    reason: Reason = "read-only" if isinstance(error, PermissionError) else "io"
    reason = _REASONS.get(error.errno or 0, reason)
    return StorageUnavailable(reason, f"{path}: {error.strerror}")
