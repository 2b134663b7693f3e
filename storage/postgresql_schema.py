"""The schema's version in PostgreSQL: every start looks at it, ``porteiro db upgrade`` alone changes it.

The version is a row of the table ``porteiro_schema``. All that an upgrade does is one transaction.
"""

from __future__ import annotations

from typing import Any, Final

import asyncpg

from storage.base import StorageUnavailable
from storage.versions import scripts

_LOCK: Final = int.from_bytes(b"Porteiro", "big")
"""Held by whoever upgrades: two at once would make the same tables."""


async def version_of(connection: Any) -> int:
    """The schema's version; 0 where there is none."""
    if await connection.fetchval("SELECT to_regclass('porteiro_schema')") is None:
        return 0
    return int(await connection.fetchval("SELECT version FROM porteiro_schema"))


async def check_version(connection: Any, place: str) -> None:
    """Raises :class:`StorageUnavailable` where the schema is not of this program's version."""
    version, newest = await version_of(connection), len(scripts("postgresql"))
    if version > newest:
        raise StorageUnavailable("newer", newer(place, version, newest))
    if version < newest:
        found = f"is of an older version (schema {version}" if version else "has no tables yet (schema 0"
        raise StorageUnavailable(
            "older", f"{place} {found}; this program needs {newest}): run `porteiro db upgrade`"
        )


def newer(place: str, version: int, newest: int) -> str:
    """What to say of a schema that a newer program made."""
    return (
        f"{place} was written by a newer version of Porteiro (schema {version}; this one knows up to "
        f"{newest}): run that version, or restore a backup from before it"
    )


async def upgrade(connection: Any, place: str) -> tuple[int, int]:
    """Bring the schema to the newest version, whole or not at all: the versions before and after.

    Raises:
        StorageUnavailable: it is newer than this program, or another program's tables are in the way.
    """
    versions = scripts("postgresql")
    async with connection.transaction():
        await connection.execute(f"SELECT pg_advisory_xact_lock({_LOCK})")
        version = await version_of(connection)
        if version > len(versions):
            raise StorageUnavailable("newer", newer(place, version, len(versions)))
        try:
            if version == 0:
                await connection.execute("CREATE TABLE porteiro_schema (version BIGINT NOT NULL)")
                await connection.execute("INSERT INTO porteiro_schema VALUES (0)")
            for script in versions[version:]:
                await connection.execute(script)
        except (asyncpg.DuplicateTableError, asyncpg.DuplicateObjectError) as error:
            raise StorageUnavailable(
                "not-ours", f"{place}: another program has a table of this name here: {error}"
            ) from error
        await connection.execute("UPDATE porteiro_schema SET version = $1", len(versions))
    return version, len(versions)
