"""Looks at the schema's version and changes it, whichever the database is."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

from storage.address import Database
from storage.base import StorageUnavailable
from storage.schema import connect as connect_sqlite
from storage.schema import trouble_with, unavailable
from storage.versions import scripts


async def current(database: Database, deadline_s: float) -> tuple[int, int]:
    """The schema's version and this program's; 0: there is no schema yet. Changes nothing.

    Raises:
        StorageError: the database can't be reached, or is another program's.
    """
    if database.file is not None:
        return await asyncio.to_thread(_sqlite_version, database.file), len(scripts("sqlite"))
    from storage import postgresql, postgresql_schema

    async with postgresql.session(database.url, database.password, deadline_s) as connection:
        return await postgresql_schema.version_of(connection), len(scripts("postgresql"))


async def upgrade(database: Database, deadline_s: float) -> tuple[int, int]:
    """Bring the schema to this program's version: the versions before and after.

    Raises:
        StorageError: it is newer, the database can't be reached, or is another program's.
    """
    if database.file is not None:
        return await asyncio.to_thread(_upgrade_sqlite, database.file)
    from storage import postgresql, postgresql_schema

    async with postgresql.session(database.url, database.password, deadline_s) as connection:
        return await postgresql_schema.upgrade(connection, str(database))


def _sqlite_version(path: Path) -> int:
    if not path.exists():
        return 0
    trouble = trouble_with(path)
    if trouble and "newer" not in trouble:
        raise StorageUnavailable("not-ours", f"{path}: {trouble}")
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            return int(connection.execute("PRAGMA user_version").fetchone()[0])
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise unavailable(error, path) from error


def _upgrade_sqlite(path: Path) -> tuple[int, int]:
    before = _sqlite_version(path)
    versions = scripts("sqlite")
    connect_sqlite(path, read_only=False, busy_s=5.0, scripts=versions).close()
    return before, len(versions)
