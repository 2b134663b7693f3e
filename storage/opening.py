"""Opens the store that an address names."""

from __future__ import annotations

import asyncio
from pathlib import Path

from storage.address import Database
from storage.identity import service_id
from storage.sqlite import SqliteStorage
from storage.store import SqlStorage


async def open_storage(
    database: Database,
    *,
    service: Path | None = None,
    read_only: bool = False,
    deadline_s: float = 5.0,
) -> SqlStorage:
    """Open it. Raises as :meth:`SqliteStorage.open` and :meth:`PostgresStorage.open` do.

    Args:
        service: for a service, the directory that holds its id.
    """
    if database.file is not None:
        return await SqliteStorage.open(database.file, read_only=read_only, deadline_s=deadline_s)
    from storage.postgresql import PostgresStorage  # loads asyncpg, which most services never need

    storage = await PostgresStorage.open(
        database.url, database.password, read_only=read_only, deadline_s=deadline_s
    )
    if service is not None:
        storage.service = await asyncio.to_thread(service_id, service)
    return storage
