"""Opens the store that an address names."""

from __future__ import annotations

from pathlib import Path

from storage.address import Database
from storage.sqlite import SqliteStorage
from storage.store import SqlStorage


async def open_storage(
    database: Database,
    *,
    service: Path | None = None,
    front: bool = True,
    read_only: bool = False,
    deadline_s: float = 5.0,
) -> SqlStorage:
    """Open it. Raises as :meth:`SqliteStorage.open` and :meth:`PostgresStorage.open` do.

    Args:
        service: for a service, the directory that holds its id and its journal.
        front: with it, whether this is the process that tidies up behind the service's others.
    """
    if database.file is not None:
        return await SqliteStorage.open(database.file, read_only=read_only, deadline_s=deadline_s)
    # They load asyncpg, which most services never need.
    from storage.journalled import JournalledStorage
    from storage.postgresql import PostgresStorage

    if service is None:
        return await PostgresStorage.open(
            database.url, database.password, read_only=read_only, deadline_s=deadline_s
        )
    return await JournalledStorage.open_for(database.url, database.password, service, front=front)
