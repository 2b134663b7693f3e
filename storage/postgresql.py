"""Storage in PostgreSQL: several services may share one database; a chain has one writer at a time.

A chain is locked by an advisory lock of the transaction that appends to it: no second writer reads its head
meanwhile, in whichever process or machine. Appends that wait at the same time are one transaction, and share
what it waits for: the lock, the disk.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self, TypeVar

import asyncpg

from storage.address import place_of
from storage.base import (
    Reason,
    StorageClosed,
    StorageError,
    StorageRefused,
    StorageTimeout,
    StorageUnavailable,
)
from storage.postgresql_schema import check_version
from storage.records import INSERT, INSERT_PERSONAL
from storage.steps import Asked, LockChain, Rows, Sql, Step, carry_out_async
from storage.store import ALONE, Heads, SqlStorage, Write

T = TypeVar("T")

MAX_WAITING: Final = 4096
"""Appends that may wait; the next one is refused at once."""
MAX_GROUP: Final = 256
"""Appends that share a transaction."""
READERS: Final = 4
"""Connections for reading, made when they are needed."""
IDLE_S: Final = 60.0
"""A reading connection that nobody needed for so long is closed."""

_CHAINS: Final = "porteiro audit "
"""What a chain's advisory lock is named by, with its tenant."""

_REASONS: Final[dict[str, Reason]] = {
    "08": "away",
    "28": "away",
    "3D": "missing",
    "40": "busy",
    "53": "overloaded",
    "54": "io",
    "55": "busy",
    "57": "away",
    "58": "io",
    "XX": "corrupt",
    "25006": "read-only",
    "42501": "read-only",
    "53100": "full",
    "57014": "busy",
}
"""By SQLSTATE, or its class: https://www.postgresql.org/docs/current/errcodes-appendix.html."""


def storage_error(error: Exception, place: str) -> StorageError:
    """What asyncpg raised, in our words."""
    if isinstance(error, StorageError):
        return error
    state = getattr(error, "sqlstate", None) or ""
    if isinstance(error, OverflowError) or state[:2] in ("22", "23"):
        return StorageRefused(f"{place}: {error}")
    if isinstance(error, TimeoutError):
        return StorageTimeout(f"{place}: no answer in time")
    if state:
        reason = _REASONS.get(state) or _REASONS.get(state[:2], "io")
        return StorageUnavailable(reason, f"{place}: {error} (SQLSTATE {state})")
    return StorageUnavailable("away", f"{place}: {type(error).__name__}: {error}")


async def connect(url: str, password: str | None, deadline_s: float, *, planned_anew: bool = False) -> Any:
    """A connection. What it is in the midst of when we are gone, the server ends by itself.

    ``planned_anew``: each statement for the values that it has. A plan that is to serve a tenant with ten
    records and one with a million reads, for a page of the latter's, all that it has.
    """
    limit_ms = str(int(deadline_s * 1000))
    connection = await asyncpg.connect(
        url,
        password=password,
        timeout=deadline_s,
        command_timeout=deadline_s,
        server_settings={
            "application_name": "porteiro",
            "statement_timeout": limit_ms,
            "lock_timeout": limit_ms,
            "idle_in_transaction_session_timeout": limit_ms,
            "jit": "off",  # compiling a page's statement takes ten times as long as the page
            "plan_cache_mode": "force_custom_plan" if planned_anew else "auto",
        },
    )
    # An answer means "on the disk", whatever the server is set to; what promises more stays as it is.
    try:
        await connection.execute(
            "SELECT set_config('synchronous_commit', 'on', false)"
            " WHERE current_setting('synchronous_commit') = 'off'"
        )
    except BaseException:
        connection.terminate()
        raise
    return connection


@asynccontextmanager
async def session(url: str, password: str | None, deadline_s: float) -> AsyncIterator[Any]:
    """A connection for a while, outside any store. Raises :class:`StorageError`, whatever fails inside."""
    place = place_of(url)
    try:
        connection = await connect(url, password, deadline_s)
        try:
            yield connection
        finally:
            await _close(connection, deadline_s)
    except ERRORS as error:
        raise storage_error(error, place) from error
    except ValueError as error:
        raise StorageUnavailable("missing", f"{place}: {error}") from error


ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""All that talking to a server raises, a deadline's TimeoutError (an OSError) included."""


@dataclass(slots=True, eq=False)
class _Job:
    write: Write[Any]
    tenants: tuple[str, ...]
    done: asyncio.Future[Any]


_Records = dict[str, list[tuple[Any, ...]]]
"""What is left to a transaction's end, by statement."""


class _Undone(Exception):
    """A group can't be committed as it is: each of its jobs is to have a transaction of its own."""


class PostgresStorage(SqlStorage):
    """See :class:`storage.base.Storage`. Made by :meth:`open`."""

    def __init__(self, url: str, password: str | None, *, read_only: bool, deadline_s: float) -> None:
        """Use :meth:`open`."""
        self.place = place_of(url)
        self._url = url
        self._password = password
        self._read_only = read_only
        self._at_once = ALONE if read_only else 1
        self._deadline_s = deadline_s
        self._loop = asyncio.get_running_loop()
        self._readers: Any = None
        self._reading: set[asyncio.Task[Any]] = set()
        self._waiting: deque[_Job] = deque()
        self._wake = asyncio.Event()
        self._closing = False
        self._writer: asyncio.Task[None] | None = None
        self._connection: Any = None
        """The writer's."""

    @classmethod
    async def open(
        cls, url: str, password: str | None = None, *, read_only: bool = False, deadline_s: float = 5.0
    ) -> Self:
        """Open the database of a URL, ``postgresql://user@host:port/name``; TLS by ``?sslmode=verify-full``.

        Args:
            url: with all that libpq and asyncpg take.
            password: where the URL has none.
            read_only: never writes.
            deadline_s: seconds that any operation may take, opening included.

        Raises:
            StorageUnavailable: it can't be reached, or is of another version.
            StorageTimeout: it took longer than the deadline.
        """
        storage = cls(url, password, read_only=read_only, deadline_s=deadline_s)
        try:
            async with asyncio.timeout(deadline_s):
                async with session(url, password, deadline_s) as connection:
                    await check_version(connection, storage.place)
                await storage._make_readers()
        except TimeoutError as error:
            raise storage_error(error, storage.place) from error
        storage._writer = asyncio.create_task(storage._write_all(), name=f"writer to {storage.place}")
        return storage

    async def _make_readers(self) -> None:
        self._readers = await asyncpg.create_pool(
            min_size=0,
            max_size=READERS,
            max_inactive_connection_lifetime=IDLE_S,
            connect=lambda *_, **__: connect(
                # Who only reads reads all of it, by the same few statements.
                self._url,
                self._password,
                self._deadline_s,
                planned_anew=not self._read_only,
            ),
        )

    async def close(self) -> None:
        """See :meth:`Storage.close`."""
        self._closing = True
        self._wake.set()
        if self._writer is not None:
            _, late = await asyncio.wait({self._writer}, timeout=self._deadline_s)
            if late:
                self._writer.cancel()
                await asyncio.wait(late)
        for job in self._waiting:
            _fail(job, StorageClosed(f"{self.place} is closed"))
        self._waiting.clear()
        if self._connection is not None:
            await _close(self._connection, self._deadline_s)
            self._connection = None
        if self._reading:
            await asyncio.wait(self._reading, timeout=self._deadline_s)
        if self._readers is not None:
            await _close(self._readers, self._deadline_s)

    # ---- reading ---------------------------------------------------------------------------------------

    async def _read(self, read: Callable[[], Step[T]]) -> T:
        return await self._read_as(read, self._at_one_moment)

    async def _rows(self, sql: str, values: tuple[Any, ...] = ()) -> Rows:
        # One statement sees one moment by itself: no round for a transaction's begin, and none for its end.
        return await self._read_as(lambda: _only(Sql(sql, values)), self._as_it_is)

    async def _read_as(self, read: Callable[[], Step[T]], how: Callable[[Any], Any]) -> T:
        if self._closing:
            raise StorageClosed(f"{self.place} is closed")
        # A task of its own: whoever gives up leaves the connection to it, and never cuts it off in its midst.
        task = self._loop.create_task(self._reading_one(read, how), name=f"read of {self.place}")
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)
        task.add_done_callback(_retrieve)
        return await asyncio.shield(task)

    async def _reading_one(self, read: Callable[[], Step[T]], how: Callable[[Any], Any]) -> T:
        try:
            async with (
                asyncio.timeout(self._deadline_s),
                self._readers.acquire() as connection,
                how(connection),
            ):
                return await carry_out_async(read(), partial(_execute, connection))
        except (*ERRORS, OverflowError) as error:
            raise storage_error(error, self.place) from error

    @staticmethod
    def _at_one_moment(connection: Any) -> Any:
        return connection.transaction(isolation="repeatable_read", readonly=True)

    @staticmethod
    def _as_it_is(connection: Any) -> Any:
        return nullcontext()

    # ---- writing ---------------------------------------------------------------------------------------

    async def _write(self, write: Write[T], tenants: tuple[str, ...]) -> T:
        if self._closing:
            raise StorageClosed(f"{self.place} is closed")
        if self._read_only:
            raise StorageUnavailable("read-only", f"{self.place} was opened for reading only")
        if self._writer is None or self._writer.done():  # a bug ended it: nothing is written any more
            raise StorageClosed(f"{self.place}: nothing writes to it")
        if len(self._waiting) >= MAX_WAITING:
            raise StorageUnavailable("overloaded", f"{self.place}: {MAX_WAITING} operations wait already")
        job = _Job(write, tenants, self._loop.create_future())
        self._waiting.append(job)
        self._wake.set()
        try:
            async with asyncio.timeout(self._deadline_s):
                result: T = await job.done
        except TimeoutError:
            raise StorageTimeout(f"{self.place}: not done within {self._deadline_s} s") from None
        return result

    async def _write_all(self) -> None:
        """The one task that writes: group after group, until it is closed and nothing waits."""
        while True:
            if not self._waiting:
                if self._closing:
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            taken = [self._waiting.popleft() for _ in range(min(MAX_GROUP, len(self._waiting)))]
            # Whoever gave up (a deadline, a cancelled task) was told that nothing is written: so it must be.
            # By tenant: whoever locks several chains does so in the same order, in every process.
            group = sorted((job for job in taken if not job.done.done()), key=lambda job: job.tenants)
            try:
                await self._do(group)
            finally:  # also where a bug ends this task: nobody is left waiting
                for job in group:
                    _fail(job, StorageTimeout(f"{self.place}: nobody knows whether it was written"))

    async def _do(self, group: list[_Job]) -> None:
        groups = [[job] for job in group if len(job.tenants) > 1]
        if plain := [job for job in group if len(job.tenants) <= 1]:
            groups.append(plain)
        for each in groups:
            try:
                await self._commit(each)
            except _Undone:
                for job in each:
                    await self._commit([job])

    async def _commit(self, group: list[_Job]) -> None:
        """Do jobs in one transaction, and tell how it went."""
        committing = False
        outcomes: list[tuple[_Job, Any]] = []
        try:
            async with asyncio.timeout(self._deadline_s):
                if self._connection is None or self._connection.is_closed():
                    self._connection = await connect(self._url, self._password, self._deadline_s)
                await self._connection.execute("BEGIN")
                heads: Heads = {}
                records: _Records = {INSERT: [], INSERT_PERSONAL: []}
                for job in group:
                    outcomes.append((job, await self._one(job, heads, records, alone=len(group) == 1)))
                await self._insert(records, alone=len(group) == 1)
                committing = True
                await self._connection.execute("COMMIT")
        except _Undone:
            await self._roll_back()
            raise
        except (*ERRORS, OverflowError) as error:
            told = storage_error(error, self.place)
            if isinstance(told, StorageRefused):
                await self._roll_back()
            else:
                self._drop()
            if committing and not isinstance(told, StorageRefused):
                told = StorageTimeout(f"{self.place}: nobody knows whether it was written: {error}")
            for job in group:
                _fail(job, told)
            return
        except StorageError as error:  # a job's own, alone in its transaction
            await self._roll_back()
            _fail(group[0], error)
            return
        for job, result in outcomes:
            if isinstance(result, StorageError):
                _fail(job, result)
            elif not job.done.done():
                job.done.set_result(result)

    async def _insert(self, records: _Records, *, alone: bool) -> None:
        """Write the audit records of a transaction, all in one round; then what is kept beside them."""
        try:
            for text, values in records.items():
                if values:
                    await self._connection.executemany(text, values)
        except asyncpg.PostgresError as error:
            if not alone and isinstance(storage_error(error, self.place), StorageRefused):
                raise _Undone from error
            raise

    async def _one(self, job: _Job, heads: Heads, records: _Records, *, alone: bool) -> Any:
        """One job of a transaction: its result, or its refusal where it had written nothing.

        Its audit records are left to :meth:`_insert`: nothing in a transaction reads what it has appended.
        """
        wrote = False

        async def execute(asked: Asked) -> Rows:
            nonlocal wrote
            wrote = wrote or (not isinstance(asked, LockChain) and asked.writes)
            if isinstance(asked, Sql) and asked.text in records:
                records[asked.text].append(asked.values)
                return ()
            return await _execute(self._connection, asked)

        try:
            return await carry_out_async(job.write(heads), execute)
        except StorageRefused as refusal:
            if alone or wrote:
                raise refusal if alone else _Undone from refusal
            return refusal
        except asyncpg.PostgresError as error:
            if not alone and isinstance(storage_error(error, self.place), StorageRefused):
                raise _Undone from error
            raise
        except OverflowError as error:
            if not alone:
                raise _Undone from error
            raise

    async def _roll_back(self) -> None:
        """End the transaction; a connection that can't is given up."""
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._connection.execute("ROLLBACK")
        except ERRORS:
            self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


async def _close(connection: Any, deadline_s: float) -> None:
    """Take leave of the server; without it where it is gone, or silent."""
    try:
        async with asyncio.timeout(deadline_s):
            await connection.close()
    except ERRORS:
        connection.terminate()


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Whoever waited was told, or has given up."""
    if not task.cancelled():
        task.exception()


def _fail(job: _Job, error: StorageError) -> None:
    if not job.done.done():
        job.done.set_exception(error)


def chain_key(tenant: str) -> int:
    """The number of a chain's advisory lock. Two chains of one number would wait for each other, no more."""
    return int.from_bytes(hashlib.sha256(f"{_CHAINS}{tenant}".encode()).digest()[:8], "big", signed=True)


def _only(sql: Sql) -> Step[Rows]:
    return (yield sql)


async def _execute(connection: Any, asked: Asked) -> Rows:
    if isinstance(asked, LockChain):
        await connection.fetchval("SELECT pg_advisory_xact_lock($1)", chain_key(asked.tenant))
        return ()
    rows: Rows = await connection.fetch(asked.text, *asked.values)
    return rows


__all__ = ["PostgresStorage", "connect", "storage_error"]
