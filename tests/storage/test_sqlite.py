"""What is SQLite's own: the file and its rights, other programs' files, the thread, other writers."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from storage.base import StorageClosed, StorageError, StorageTimeout, StorageUnavailable
from storage.filters import VisitFilter
from storage.sqlite import SqliteReader, SqliteStorage
from tests.storage.test_store import Visit, records


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "porteiro.db"


@pytest.fixture
async def storage(path: Path) -> AsyncIterator[SqliteStorage]:
    async with await SqliteStorage.open(path) as opened:
        yield opened


def direct(path: Path) -> sqlite3.Connection:
    """Somebody with the file and a SQLite shell."""
    return sqlite3.connect(path, isolation_level=None)


def content_of(path: Path) -> bytes:
    return path.read_bytes()


async def test_only_its_owner_can_read_the_database(path: Path, storage: SqliteStorage) -> None:
    await Visit(storage).begin()
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {"porteiro.db": 0o600, "porteiro.db-wal": 0o600, "porteiro.db-shm": 0o600}


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE OR REPLACE audit SET seq = 1",
        "INSERT OR REPLACE INTO audit SELECT tenant, seq, visit, at, 'note', '{}', previous, hash FROM audit",
        "REPLACE INTO audit SELECT tenant, 4, visit, at, kind, data, hash, hash FROM audit WHERE seq = 1",
        "INSERT INTO audit SELECT tenant, 4, visit, at, 'note', x'00', hash, hash FROM audit WHERE seq = 3",
    ],
)
async def test_sqlites_own_ways_to_edit_are_refused_too(path: Path, storage: SqliteStorage, sql: str) -> None:
    visit = await Visit(storage).begin()
    await visit.write("note", text="third")
    before = await records(storage)
    shell = direct(path)
    with pytest.raises(sqlite3.IntegrityError):
        shell.execute(sql)
    shell.close()
    assert await records(storage) == before


# --------------------------------------------------------------------------------------------------------
# Opening, waiting, closing
# --------------------------------------------------------------------------------------------------------


async def test_commits_wait_for_the_disk(storage: SqliteStorage) -> None:
    def pragmas(connection: sqlite3.Connection) -> list[Any]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    assert await storage._worker.run(pragmas, write=False, deadline_s=5) == ["wal", 2, 1]


async def test_a_database_of_a_newer_version_is_left_alone(path: Path) -> None:
    async with await SqliteStorage.open(path) as storage:
        await Visit(storage).begin()
    shell = direct(path)
    shell.execute("PRAGMA user_version = 99")
    shell.close()
    before = content_of(path)
    for read_only in (False, True):
        with pytest.raises(StorageUnavailable, match="newer version of Porteiro \\(schema 99") as caught:
            await SqliteStorage.open(path, read_only=read_only)
        assert caught.value.reason == "newer"
    assert content_of(path) == before


@pytest.mark.parametrize("content", [b"this is a text file, not a database\n" * 100, None])
async def test_a_file_of_another_program_is_left_alone(path: Path, content: bytes | None) -> None:
    path.parent.mkdir()
    if content is None:
        shell = direct(path)
        shell.execute("CREATE TABLE recipes (name TEXT)")
        shell.close()
    else:
        path.write_bytes(content)  # noqa: ASYNC240 - nothing else runs
    before = content_of(path)
    with pytest.raises(StorageUnavailable) as caught:
        await SqliteStorage.open(path)
    assert caught.value.reason == "not-ours"
    assert str(path) in str(caught.value)
    assert content_of(path) == before


async def test_a_path_that_cannot_be_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, read_only in (
        (tmp_path / "file" / "x.db", False),
        (tmp_path, False),
        (tmp_path / "none.db", True),
        (tmp_path / "?mode=memory&x#.db", True),
    ):
        with pytest.raises(StorageUnavailable) as caught:
            await SqliteStorage.open(path, read_only=read_only)
        assert str(path) in str(caught.value)


async def test_a_path_with_signs_of_a_uri_is_that_file(tmp_path: Path) -> None:
    path = tmp_path / "a?mode=memory&x#%41.db"
    async with await SqliteStorage.open(path) as storage:
        await Visit(storage).begin()
    assert path.exists()


async def test_another_writer_that_does_not_let_go_costs_an_error_and_not_the_loop(path: Path) -> None:
    async with await SqliteStorage.open(path, busy_s=0.05) as storage:
        visit = await Visit(storage).begin()
        shell = direct(path)
        shell.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageUnavailable) as caught:
            await visit.write("note")
        assert caught.value.reason == "busy"
        assert len(await records(storage)) == 2
        shell.execute("ROLLBACK")
        shell.close()
        await visit.write("note")
        assert await storage.verify() == []


async def test_what_missed_its_deadline_while_it_waited_is_never_written(path: Path) -> None:
    async with await SqliteStorage.open(path, busy_s=1.0, deadline_s=0.2) as storage:
        visit = await Visit(storage).begin()
        shell = direct(path)
        shell.execute("BEGIN IMMEDIATE")
        first = asyncio.create_task(visit.write("note", text="in the thread already"))
        await asyncio.sleep(0.05)
        waiting = [asyncio.create_task(visit.write("note", text="waiting")) for _ in range(5)]
        for task in (first, *waiting):
            with pytest.raises(StorageTimeout):
                await task
        shell.execute("ROLLBACK")
        shell.close()
        storage._deadline_s = 5
        await visit.write("note", text="after")
        texts = [record.data["text"] for record in await records(storage, kinds=["note"])]
        assert texts[-1] == "after" and "waiting" not in texts


async def test_a_cancelled_append_that_waited_is_never_written(path: Path) -> None:
    async with await SqliteStorage.open(path, busy_s=2.0) as storage:
        visit = await Visit(storage).begin()
        shell = direct(path)
        shell.execute("BEGIN IMMEDIATE")
        blocker = asyncio.create_task(visit.write("note", text="blocker"))
        await asyncio.sleep(0.05)
        task = asyncio.create_task(visit.write("note", text="cancelled"))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        shell.execute("ROLLBACK")
        shell.close()
        await blocker
        assert [record.data["text"] for record in await records(storage, kinds=["note"])] == ["blocker"]


async def test_the_loop_runs_on_while_the_disk_is_waited_for(path: Path) -> None:
    async with await SqliteStorage.open(path, busy_s=0.5) as storage:
        visit = await Visit(storage).begin()
        shell = direct(path)
        shell.execute("BEGIN IMMEDIATE")
        task = asyncio.create_task(visit.write("note"))
        ticks = 0
        while not task.done():
            await asyncio.sleep(0.01)
            ticks += 1
        shell.close()
        with pytest.raises(StorageUnavailable):
            await task
        assert ticks > 10


async def test_too_many_waiting_operations_are_refused_at_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.worker.MAX_WAITING", 10)
    async with await SqliteStorage.open(path) as storage:
        visit = await Visit(storage).begin()
        shell = direct(path)
        shell.execute("BEGIN IMMEDIATE")
        tasks = [asyncio.create_task(visit.write("note")) for _ in range(30)]
        await asyncio.sleep(0.1)
        shell.execute("ROLLBACK")
        shell.close()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, StorageUnavailable)]
        assert 10 <= len(refused) <= 20 and {error.reason for error in refused} == {"overloaded"}
        assert len(await records(storage)) == 2 + 30 - len(refused)


async def test_a_bug_in_the_thread_fails_whoever_waits_and_all_who_come(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    crashes: list[object] = []
    monkeypatch.setattr("threading.excepthook", crashes.append)
    monkeypatch.setattr("storage.store.in_database", broken)
    storage = await SqliteStorage.open(path, deadline_s=0.3)
    with pytest.raises(StorageError):
        await Visit(storage).begin()
    with pytest.raises(StorageClosed):
        await Visit(storage).begin()
    assert len(crashes) == 1


async def test_a_bug_in_what_is_looked_up_is_told_to_whoever_asked_and_to_nobody_else(
    storage: SqliteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("a bug")

    visit = await Visit(storage).begin()
    with monkeypatch.context() as patched:
        patched.setattr("storage.store.visits_on_page", broken)
        with pytest.raises(ValueError, match="a bug"):
            await storage.visit_page(VisitFilter())
    await visit.write("note", text="goes on")
    assert [record.data["text"] for record in await records(storage, kinds=["note"])] == ["goes on"]


async def test_what_a_visit_writes_does_not_wait_for_all_that_is_looked_up(storage: SqliteStorage) -> None:
    visit = await Visit(storage).begin()
    order: list[str] = []

    async def look(number: int) -> None:
        def slowly(_: sqlite3.Connection) -> None:
            time.sleep(0.05)

        await storage._worker.run(slowly, write=False, deadline_s=5)
        order.append(f"look {number}")

    looks = [asyncio.create_task(look(number)) for number in range(6)]
    await asyncio.sleep(0.07)  # the second one runs
    await visit.write("note")
    order.append("written")
    await asyncio.gather(*looks)
    assert order.index("written") <= 3 and len(order) == 7


async def test_who_reads_in_the_thread_that_asks_reads_beside_a_service_and_writes_nothing(
    path: Path, storage: SqliteStorage
) -> None:
    other = path.parent / "other.db"
    with direct(other) as shell:
        shell.execute("CREATE TABLE recipes (name TEXT)")
    with pytest.raises(StorageUnavailable, match="of another program"):
        await SqliteReader.open(other)
    visit = await Visit(storage).begin()
    async with await SqliteReader.open(path) as reader:
        assert await records(reader) == await records(storage)
        await visit.decide()
        assert await records(reader) == await records(storage)
        with pytest.raises(StorageUnavailable, match="for reading only"):
            await Visit(reader).begin()
        with direct(path) as shell:
            shell.execute("DROP TABLE reviews")
        with pytest.raises(StorageUnavailable, match="no such table: reviews"):
            await reader.visit(visit.id)
