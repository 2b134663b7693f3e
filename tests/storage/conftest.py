"""Every test of the store that asks for `place` runs on SQLite and on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.store import SqlStorage
from tests.postgres import Postgres
from tests.storage.places import Place, PostgresPlace, Shell, SqlitePlace


@pytest.fixture(params=["sqlite", "postgresql"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty database."""
    if request.param == "sqlite":
        return SqlitePlace(tmp_path / "data" / "porteiro.db")
    server: Postgres = request.getfixturevalue("postgres")
    return PostgresPlace(await server.make())


@pytest.fixture
async def storage(place: Place) -> AsyncIterator[SqlStorage]:
    """Its store, open."""
    async with await place.open() as opened:
        yield opened


@pytest.fixture
async def shell(place: Place, storage: SqlStorage) -> AsyncIterator[Shell]:
    """Somebody with a shell to it."""
    opened = await place.shell()
    yield opened
    await opened.close()
