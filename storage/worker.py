"""The one thread that talks to SQLite: takes jobs from the event loop, commits writes that wait together.

A commit waits for the disk (an fsync, milliseconds); ten visits that write at the same moment share one. No
job is answered before the commit that it is part of.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from storage.base import StorageClosed, StorageError, StorageRefused, StorageTimeout, StorageUnavailable
from storage.schema import unavailable

T = TypeVar("T")
Outcome = tuple["_Job", Any, Exception | None]

MAX_WAITING: Final = 4096
"""Jobs that may wait; the next one is refused at once."""

MAX_GROUP: Final = 256
"""Writes that share a commit."""


@dataclass(slots=True, eq=False)
class _Job:
    work: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any]
    write: bool


class Worker:
    """Runs jobs on a connection of its own, in one thread, for one event loop."""

    def __init__(self, path: Path, open_: Callable[[], sqlite3.Connection]) -> None:
        """``open_`` is called in the thread. Call :meth:`start` before anything else."""
        self._path = path
        self._open = open_
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._waiting: deque[_Job] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        # A daemon, so that a program that forgot to close its store still ends; SQLite is safe against that.
        self._thread = threading.Thread(target=self._run, name=f"storage {path.name}", daemon=True)

    async def start(self, deadline_s: float) -> None:
        """Open the database. Raises :class:`StorageError`; the thread has ended then, or will."""
        self._thread.start()
        try:
            async with asyncio.timeout(deadline_s):
                await self._opened
        except TimeoutError:
            raise StorageTimeout(f"{self._path}: not opened within {deadline_s} s") from None
        finally:
            if self._opened.cancelled():  # by the deadline, or by whoever cancelled us
                self._ask_to_stop()

    async def run(self, work: Callable[[sqlite3.Connection], T], *, write: bool, deadline_s: float) -> T:
        """Have ``work`` done. A write is inside a transaction, and committed when this returns.

        Raises:
            StorageTimeout: not done in time. A write that had not begun will not be done any more.
            StorageError: what ``work`` raised, or SQLite.
        """
        job = _Job(work, self._loop.create_future(), write)
        with self._wake:
            if self._stopping:
                raise StorageClosed(f"{self._path} is closed")
            if len(self._waiting) >= MAX_WAITING:
                raise StorageUnavailable("overloaded", f"{self._path}: {MAX_WAITING} operations wait already")
            self._waiting.append(job)
            self._wake.notify()
        try:
            async with asyncio.timeout(deadline_s):
                result: T = await job.future
        except TimeoutError:
            raise StorageTimeout(f"{self._path}: not done within {deadline_s} s") from None
        return result

    async def stop(self, deadline_s: float) -> None:
        """Do what waits, close the database, end the thread. Raises :class:`StorageTimeout`."""
        self._ask_to_stop()
        try:
            async with asyncio.timeout(deadline_s):
                await asyncio.shield(self._ended)
        except TimeoutError:
            raise StorageTimeout(f"{self._path}: not closed within {deadline_s} s") from None

    def _ask_to_stop(self) -> None:
        with self._wake:
            self._stopping = True
            self._wake.notify()

    # ---- in the thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            connection = self._open()
        except StorageError as error:
            self._tell(self._fail_opening, error)
            return
        self._tell(_succeed, self._opened, None)
        try:
            while group := self._take():
                self._do(connection, group)
        finally:  # also where a bug ends this thread: nobody is left waiting, and nothing more is accepted
            with self._wake:
                self._stopping = True
                left = list(self._waiting)
                self._waiting.clear()
            connection.close()
            closed = StorageClosed(f"{self._path} is closed")
            self._tell(self._settle, [(job, None, closed) for job in left])
            self._tell(_succeed, self._ended, None)

    def _take(self) -> list[_Job]:
        """The jobs to do next; none when it is time to end."""
        with self._wake:
            while not self._waiting and not self._stopping:
                self._wake.wait()
            return [self._waiting.popleft() for _ in range(min(MAX_GROUP, len(self._waiting)))]

    def _do(self, connection: sqlite3.Connection, group: list[_Job]) -> None:
        # Whoever gave up (a deadline, a cancelled task) was told that nothing is written: so it must be.
        wanted = [job for job in group if not job.future.cancelled()]
        writes = [job for job in wanted if job.write]
        if writes:
            self._tell(self._settle, self._commit(connection, writes))
        for job in wanted:
            if not job.write:
                # What visits write waits for one look-up at most, however many people look things up.
                if later := self._take_writes():
                    self._tell(self._settle, self._commit(connection, later))
                self._tell(self._settle, [self._read(connection, job)])

    def _take_writes(self) -> list[_Job]:
        """The writes that came meanwhile, and are still wanted."""
        with self._wake:
            writes = [job for job in self._waiting if job.write][:MAX_GROUP]
            for job in writes:
                self._waiting.remove(job)
        return [job for job in writes if not job.future.cancelled()]

    def _commit(self, connection: sqlite3.Connection, jobs: list[_Job]) -> list[Outcome]:
        try:
            connection.execute("BEGIN IMMEDIATE")
            outcomes = [self._write(connection, job) for job in jobs]
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            return [(job, None, unavailable(error, self._path)) for job in jobs]
        else:
            return outcomes
        finally:
            # Some errors (a full disk) end the transaction by themselves, others leave it open.
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _write(self, connection: sqlite3.Connection, job: _Job) -> Outcome:
        """One job of a group: what it did is undone if it is refused, and the others' stays."""
        connection.execute("SAVEPOINT job")
        try:
            result = job.work(connection)
        except (StorageError, sqlite3.IntegrityError, OverflowError, UnicodeEncodeError) as error:
            connection.execute("ROLLBACK TO job")
            connection.execute("RELEASE job")
            refusal = error if isinstance(error, StorageError) else StorageRefused(f"{self._path}: {error}")
            return job, None, refusal
        connection.execute("RELEASE job")
        return job, result, None

    def _read(self, connection: sqlite3.Connection, job: _Job) -> Outcome:
        try:
            return job, job.work(connection), None
        except StorageError as error:  # a step's own: a cursor that is none, rows that can't be read
            return job, None, error
        except sqlite3.Error as error:
            return job, None, unavailable(error, self._path)
        except (OverflowError, UnicodeEncodeError) as error:  # what no SQLite column can hold
            return job, None, StorageRefused(f"{self._path}: {error}")
        except Exception as error:  # noqa: BLE001 - it is told to whoever asked
            # A bug in what somebody only looks up is theirs: visits go on being written.
            return job, None, error

    def _tell(self, function: Callable[..., None], *args: Any) -> None:
        if not self._loop.is_closed():  # else nobody is left to be told
            self._loop.call_soon_threadsafe(function, *args)

    # ---- in the event loop -----------------------------------------------------------------------------

    def _fail_opening(self, error: StorageError) -> None:
        self._stopping = True
        if not self._opened.done():
            self._opened.set_exception(error)
        _succeed(self._ended, None)

    @staticmethod
    def _settle(outcomes: list[Outcome]) -> None:
        for job, result, error in outcomes:
            if job.future.done():
                continue
            if error is None:
                job.future.set_result(result)
            else:
                job.future.set_exception(error)


def _succeed(future: asyncio.Future[None], result: None) -> None:
    if not future.done():
        future.set_result(result)
