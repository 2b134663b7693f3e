"""The two databases as the tests see them: opened as a store, and by somebody who has a shell to them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import asyncpg

from storage.postgresql import PostgresStorage
from storage.sqlite import SqliteStorage
from storage.store import SqlStorage

Edited = (sqlite3.IntegrityError, asyncpg.IntegrityConstraintViolationError)
"""What a database says to who edits the audit log."""


class Shell(Protocol):
    """Somebody with a shell to the database."""

    async def run(self, sql: str, *values: Any) -> int:
        """Do it; how many rows it was about."""

    async def rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        """Its rows, by the names of their columns."""

    async def drop_triggers(self) -> None:
        """Take every guard away."""

    async def close(self) -> None: ...


class Place(Protocol):
    """A database."""

    dialect: str

    async def open(self, *, read_only: bool = False, deadline_s: float = 30.0) -> SqlStorage: ...

    async def shell(self) -> Shell: ...


class SqliteShell:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    async def run(self, sql: str, *values: Any) -> int:
        return self.connection.execute(sql.replace("$", "?"), values).rowcount

    async def rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        found = self.connection.execute(sql.replace("$", "?"), values)
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found]

    async def drop_triggers(self) -> None:
        for (name,) in self.connection.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'trigger'"
        ).fetchall():
            self.connection.execute(f"DROP TRIGGER {name}")
        self.connection.execute("PRAGMA ignore_check_constraints = ON")  # a decision of a third sort

    async def close(self) -> None:
        self.connection.close()


class SqlitePlace:
    dialect = "sqlite"

    def __init__(self, path: Path) -> None:
        self.path = path

    async def open(self, *, read_only: bool = False, deadline_s: float = 30.0) -> SqlStorage:
        return await SqliteStorage.open(self.path, read_only=read_only, deadline_s=deadline_s)

    async def shell(self) -> Shell:
        return SqliteShell(sqlite3.connect(self.path, isolation_level=None))


class PostgresShell:
    def __init__(self, connection: Any) -> None:
        self.connection = connection

    async def run(self, sql: str, *values: Any) -> int:
        said: str = await self.connection.execute(sql, *values)
        last = said.split()[-1]
        return int(last) if last.isdigit() else -1

    async def rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        found: Sequence[Any] = await self.connection.fetch(sql, *values)
        return [dict(row) for row in found]

    async def drop_triggers(self) -> None:
        await self.connection.execute("SET session_replication_role = replica")  # for this shell
        await self.connection.execute(
            "ALTER TABLE decisions DROP CONSTRAINT IF EXISTS decisions_decision_check"
        )

    async def close(self) -> None:
        await self.connection.close()


class PostgresPlace:
    dialect = "postgresql"

    def __init__(self, url: str) -> None:
        self.url = url

    async def open(self, *, read_only: bool = False, deadline_s: float = 30.0) -> SqlStorage:
        return await PostgresStorage.open(self.url, read_only=read_only, deadline_s=deadline_s)

    async def shell(self) -> Shell:
        return PostgresShell(await asyncpg.connect(self.url))
