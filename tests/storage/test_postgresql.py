"""What is PostgreSQL's own: several stores on one chain, the schema's version, a server that is not there."""

from __future__ import annotations

import asyncio
import io
import socket
from pathlib import Path
from types import SimpleNamespace

import asyncpg
import pytest

from bridge.commands.db import run as run_db
from storage.address import Database
from storage.base import StorageRefused, StorageTimeout, StorageUnavailable
from storage.maintenance import current, upgrade
from storage.postgresql import PostgresStorage, chain_key
from storage.versions import scripts
from tests.postgres import Postgres
from tests.storage.test_store import START, TENANT, Visit, records, whole_visit
from visits.audit import AuditRecord, stamp

NEWEST = len(scripts("postgresql"))


async def bare(postgres: Postgres) -> str:
    """A database without any tables."""
    return await postgres.make("template1")


async def test_several_services_that_append_at_once_make_one_chain(postgres_url: str) -> None:
    stores = [await PostgresStorage.open(postgres_url, deadline_s=60) for _ in range(4)]

    async def visit(store: PostgresStorage, tenant: str) -> None:
        told = await Visit(store, tenant).begin()
        for _ in range(8):
            await told.write("note", text="x")

    await asyncio.gather(*(visit(store, f"t{n % 2}") for store in stores for n in range(6)))
    heads = await stores[0].heads()
    assert {tenant: head.seq for tenant, head in heads.items()} == {"t0": 120, "t1": 120}
    assert await stores[1].verify() == []
    for store in stores:
        await store.close()


async def test_of_two_services_one_asks_the_gate(postgres_url: str) -> None:
    async with (
        await PostgresStorage.open(postgres_url) as one,
        await PostgresStorage.open(postgres_url) as two,
    ):
        visit = await (await Visit(one).begin()).decide()
        at = stamp(START)
        answers = await asyncio.gather(
            *(store.append(TENANT, visit.id, at, "gate.requested", {}) for store in (one, two) * 5),
            return_exceptions=True,
        )
        assert sum(isinstance(answer, AuditRecord) for answer in answers) == 1
        assert sum(isinstance(answer, StorageRefused) for answer in answers) == 9
        assert await one.verify() == []


async def test_what_the_database_refuses_costs_the_others_of_its_transaction_nothing(
    postgres_url: str,
) -> None:
    async with await PostgresStorage.open(postgres_url) as storage:
        visit = await Visit(storage).begin()
        answers = await asyncio.gather(
            visit.write("note", text="one"),
            storage.append("zero \0", "", stamp(START), "note", {}),
            visit.write("note", text="two"),
            return_exceptions=True,
        )
        assert [type(answer) for answer in answers] == [AuditRecord, StorageRefused, AuditRecord]
        assert [r.data["text"] for r in await records(storage, kinds=["note"])] == ["one", "two"]
        assert await storage.verify() == []


async def test_a_zero_character_that_somebody_said_is_kept_in_the_record(postgres_url: str) -> None:
    async with await PostgresStorage.open(postgres_url) as storage:
        visit = await Visit(storage).begin()
        about = {"leg": "visitor", "speaker": "caller", "started_ms": 1, "ended_ms": 2}
        record = await visit.write("turn", **about, text="a\0b")
        view = await storage.visit(visit.id)
        assert view is not None and view.turns[0].text == "a\ufffdb"
        assert (await records(storage, kinds=["turn"])) == [record]
        assert await storage.verify() == []


async def test_a_chain_that_somebody_holds_costs_an_error_and_not_the_service(postgres_url: str) -> None:
    async with await PostgresStorage.open(postgres_url, deadline_s=2) as storage:
        visit = await Visit(storage).begin()
        other = await asyncpg.connect(postgres_url)
        await other.execute("BEGIN")
        await other.fetchval("SELECT pg_advisory_xact_lock($1)", chain_key(TENANT))
        with pytest.raises((StorageTimeout, StorageUnavailable)):
            await visit.write("note", text="held")
        assert len(await records(storage)) == 2
        await other.close()
        await visit.write("note", text="free")
        assert (await records(storage, kinds=["note"]))[-1].data == {"text": "free"}
        assert await storage.verify() == []


async def test_a_commit_waits_for_the_disk_whatever_the_server_is_set_to(postgres: Postgres) -> None:
    url = await postgres.make()
    name = url.rpartition("/")[2]
    admin = await asyncpg.connect(url)
    await admin.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    await admin.close()
    async with await PostgresStorage.open(url) as storage:
        await whole_visit(storage)
        assert await storage._connection.fetchval("SHOW synchronous_commit") == "on"


# --------------------------------------------------------------------------------------------------------
# The schema
# --------------------------------------------------------------------------------------------------------


async def test_a_database_without_tables_or_of_another_version_is_refused_and_left_alone(
    postgres: Postgres,
) -> None:
    url = await bare(postgres)
    with pytest.raises(StorageUnavailable, match="porteiro db upgrade") as caught:
        await PostgresStorage.open(url)
    assert caught.value.reason == "older"
    assert await upgrade(Database(url=url), 30) == (0, NEWEST)
    assert await upgrade(Database(url=url), 30) == (NEWEST, NEWEST)
    async with await PostgresStorage.open(url) as storage:
        await whole_visit(storage)
    shell = await asyncpg.connect(url)
    for version, reason in ((NEWEST + 1, "newer"), (NEWEST - 1, "older")):
        await shell.execute("UPDATE porteiro_schema SET version = $1", version)
        with pytest.raises(StorageUnavailable) as caught:
            await PostgresStorage.open(url, read_only=True)
        assert caught.value.reason == reason
        assert await current(Database(url=url), 30) == (version, NEWEST)
    await shell.execute("UPDATE porteiro_schema SET version = $1", NEWEST + 1)
    with pytest.raises(StorageUnavailable, match="newer version"):
        await upgrade(Database(url=url), 30)
    await shell.close()


async def test_many_that_upgrade_at_once_make_one_schema(postgres: Postgres) -> None:
    url = await bare(postgres)
    done = await asyncio.gather(*(upgrade(Database(url=url), 60) for _ in range(5)))
    assert sorted(done) == [(0, NEWEST), *[(NEWEST, NEWEST)] * 4]


async def test_another_programs_tables_are_left_alone(postgres: Postgres) -> None:
    url = await bare(postgres)
    shell = await asyncpg.connect(url)
    await shell.execute("CREATE TABLE visits (recipe TEXT)")
    with pytest.raises(StorageUnavailable, match="another program") as caught:
        await upgrade(Database(url=url), 30)
    assert caught.value.reason == "not-ours"
    assert await shell.fetchval("SELECT to_regclass('audit')") is None
    await shell.close()


def test_the_command_says_and_changes_the_version(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = asyncio.run(bare(postgres))
    config = tmp_path / "porteiro.toml"
    monkeypatch.setenv("PORTEIRO_SERVICE__DATABASE_URL", url)
    config.write_text("")

    def db(action: str) -> tuple[int, str]:
        out = io.StringIO()
        return run_db(SimpleNamespace(action=action, config=str(config)), out), out.getvalue()  # type: ignore[arg-type]

    status, said = db("current")
    assert status == 1 and f"schema 0; this program needs {NEWEST}: run `porteiro db upgrade`" in said
    assert db("upgrade") == (0, f"{url}: schema 0 → {NEWEST}\n")
    assert db("upgrade") == (0, f"{url}: schema {NEWEST} already\n")
    assert db("current") == (0, f"{url}: schema {NEWEST}, which this program needs\n")
    monkeypatch.setenv("PORTEIRO_SERVICE__DATABASE_URL", f"sqlite:///{tmp_path}/own.db")
    assert db("current")[0] == 1
    assert db("upgrade")[0] == 0
    assert db("current")[0] == 0


# --------------------------------------------------------------------------------------------------------
# A server that is not there
# --------------------------------------------------------------------------------------------------------


async def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    with pytest.raises(StorageUnavailable) as caught:
        await PostgresStorage.open("postgresql://porteiro@127.0.0.1:9/none", "hunter2")
    assert caught.value.reason == "away"
    assert "127.0.0.1:9/none" in str(caught.value) and "hunter2" not in str(caught.value)


async def test_a_server_that_says_nothing_costs_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel connects, and nobody answers
        url = f"postgresql://porteiro@127.0.0.1:{silent.getsockname()[1]}/x"
        began = asyncio.get_running_loop().time()
        with pytest.raises(StorageTimeout):
            await PostgresStorage.open(url, deadline_s=0.3)
        assert asyncio.get_running_loop().time() - began < 3


async def test_a_database_that_does_not_exist_is_named(postgres: Postgres) -> None:
    with pytest.raises(StorageUnavailable, match="nowhere") as caught:
        await PostgresStorage.open(postgres.url("nowhere"))
    assert caught.value.reason == "missing"


async def test_connections_that_the_server_ended_are_made_anew(postgres_url: str) -> None:
    async with await PostgresStorage.open(postgres_url) as storage:
        visit = await Visit(storage).begin()
        assert len(await records(storage)) == 2
        shell = await asyncpg.connect(postgres_url)
        await shell.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await shell.close()
        done = 0
        for n in range(10):
            try:
                await visit.write("note", text=str(n))
                done += 1
            except (StorageUnavailable, StorageTimeout):
                continue
        assert done >= 9
        await asyncio.sleep(0.1)
        assert await storage.verify() == []
