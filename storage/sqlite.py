"""Storage in one SQLite file: nothing to install, durable at every commit, readable beside the service."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from storage.base import StorageUnavailable
from storage.schema import connect, unavailable
from storage.steps import Asked, LockChain, Rows, Step, carry_out
from storage.store import SqlStorage, Write
from storage.versions import scripts
from storage.worker import Worker

T = TypeVar("T")

_PLACE: Final = re.compile(r"\$([0-9]+)")
_MAPPED: Final = 0x7FFF_0000
"""Bytes of a file that SQLite maps at most: https://www.sqlite.org/mmap.html."""


class SqliteStorage(SqlStorage):
    """See :class:`storage.base.Storage`. Made by :meth:`open`."""

    def __init__(self, path: Path, worker: Worker, *, read_only: bool, deadline_s: float) -> None:
        """Use :meth:`open`."""
        self.path = path
        self._worker = worker
        self._read_only = read_only
        self._deadline_s = deadline_s

    @classmethod
    async def open(
        cls, path: Path, *, read_only: bool = False, deadline_s: float = 5.0, busy_s: float = 2.0
    ) -> Self:
        """Open the database at ``path``; without ``read_only`` make it, or bring it up to date.

        Args:
            path: the file; ``-wal`` and ``-shm`` files appear beside it.
            read_only: never writes; works beside a running service.
            deadline_s: seconds that any operation may take, opening included.
            busy_s: seconds to wait for another process that is writing; less than ``deadline_s``.

        Raises:
            StorageUnavailable: missing, not ours, of another version, full, read-only …
            StorageTimeout: it took longer than the deadline.
        """
        versions = scripts("sqlite")
        worker = Worker(path, lambda: connect(path, read_only=read_only, busy_s=busy_s, scripts=versions))
        await worker.start(deadline_s)
        return cls(path, worker, read_only=read_only, deadline_s=deadline_s)

    async def close(self) -> None:
        """See :meth:`Storage.close`."""
        await self._worker.stop(self._deadline_s)

    async def _write(self, write: Write[T], tenants: tuple[str, ...]) -> T:
        if self._read_only:
            raise StorageUnavailable("read-only", f"{self.path} was opened for reading only")

        def work(connection: sqlite3.Connection) -> T:
            # BEGIN IMMEDIATE came before this: no other process can append to any chain meanwhile.
            return carry_out(write({}), _on(connection))

        return await self._worker.run(work, write=True, deadline_s=self._deadline_s)

    async def _read(self, read: Callable[[], Step[T]]) -> T:
        return await self._worker.run(partial(_at_one_moment, read), write=False, deadline_s=self._deadline_s)


class SqliteReader(SqlStorage):
    """The same file for a process that does nothing but read all of it, and waits for nothing else.

    It reads in the thread that asks: a thread of its own would cost as much as a tenth of the reading. Made
    by :meth:`open`.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        """Use :meth:`open`."""
        self.path = path
        self._connection = connection

    @classmethod
    async def open(cls, path: Path, *, busy_s: float = 2.0) -> Self:
        """Open the database at ``path``; it is never written to, and may be in use.

        Args:
            path: the file. It is mapped into memory: a disk that fails under it ends the process.
            busy_s: seconds to wait for another process that is just tidying up.

        Raises:
            StorageUnavailable: missing, not ours, of another version …
        """
        connection = connect(path, read_only=True, busy_s=busy_s, scripts=scripts("sqlite"))
        connection.execute(f"PRAGMA mmap_size = {_MAPPED}")
        return cls(path, connection)

    async def close(self) -> None:
        """See :meth:`Storage.close`."""
        self._connection.close()

    async def _write(self, write: Write[T], tenants: tuple[str, ...]) -> T:
        raise StorageUnavailable("read-only", f"{self.path} was opened for reading only")

    async def _read(self, read: Callable[[], Step[T]]) -> T:
        try:
            return _at_one_moment(read, self._connection)
        except sqlite3.Error as error:
            raise unavailable(error, self.path) from error


def _at_one_moment(read: Callable[[], Step[T]], connection: sqlite3.Connection) -> T:
    connection.execute("BEGIN")
    try:
        return carry_out(read(), _on(connection))
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _on(connection: sqlite3.Connection) -> Callable[[Asked], Rows]:
    def execute(asked: Asked) -> Rows:
        if isinstance(asked, LockChain):
            return ()
        rows: list[Any] = connection.execute(_as_sqlite(asked.text), asked.values).fetchall()
        return rows

    return execute


@lru_cache(maxsize=512)
def _as_sqlite(text: str) -> str:
    """A statement with its parameters as SQLite numbers them."""
    return _PLACE.sub(r"?\1", text)
