"""Two services on one PostgreSQL: one log for both, and each closes its own crash's visits alone."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from bridge.commands.check import database_trouble
from bridge.service import Service
from storage.identity import service_id
from storage.postgresql import PostgresStorage
from tests.postgres import Postgres
from tests.service.doorman import AGREES, ASKS, Cast, Part
from tests.service.household import household, settings, with_cast
from visits.audit import stamp


async def test_services_that_share_a_database_close_their_own_crashs_visits_alone(
    tmp_path: Path, postgres_url: str
) -> None:
    mine, others = str(uuid4()), str(uuid4())
    crashed = service_id(tmp_path / "one" / "journal")
    async with await PostgresStorage.open(postgres_url) as storage:
        for left, service in ((mine, crashed), (others, "another")):
            await storage.append(
                "jardim", left, stamp(datetime.now(UTC)), "visit.started", {"service": service}
            )
    async with Cast(Part(ASKS, AGREES)) as cast:
        tenants = {"jardim": with_cast(cast)}
        async with (
            household(tmp_path / "one", tenants, database_url=postgres_url) as one,
            household(tmp_path / "two", tenants, database_url=postgres_url) as two,
        ):
            first, second = uuid4(), uuid4()
            for visit, house in ((first, one), (second, two)):
                await house.visit("jardim", visit=visit)
                assert (await house.outcome(visit))[0] == "authorized"
            assert one.service.storage.service != two.service.storage.service
            assert await one.service.storage.verify() == []
    async with await PostgresStorage.open(postgres_url) as storage:
        outcomes = {each.id: each.outcome for each in await storage.visits()}
        assert outcomes == {mine: "failed", others: None, str(first): "authorized", str(second): "authorized"}
        assert await storage.verify() == []


async def test_workers_share_the_services_database(tmp_path: Path, postgres_url: str) -> None:
    service = Service(settings(tmp_path, {"jardim": {}}, {}, database_url=postgres_url, workers=2))
    await service.start()
    assert service.pool is not None and len(service.pool.pids) == 2
    journals = {file.name.partition("-")[0] for file in (tmp_path / "journal").glob("*.journal")}
    assert journals == {"service", "worker"}
    await service.stop()
    async with await PostgresStorage.open(postgres_url) as storage:
        kinds = [record.kind async for record in storage.audit(tenant="")]
        assert kinds == ["service.started", "service.stopped"]


async def test_check_says_what_keeps_the_database_from_being_used(
    postgres: Postgres, tmp_path: Path, postgres_url: str
) -> None:
    empty = await postgres.make("template1")
    for url, said in (
        (postgres_url, ""),
        (empty, "run `porteiro db upgrade`"),
        ("postgresql://porteiro@127.0.0.1:9/x", "127.0.0.1:9/x"),
    ):
        trouble = await database_trouble(settings(tmp_path, {"jardim": {}}, {}, database_url=url))
        assert trouble is not None and said in trouble and bool(trouble) is bool(said)
    assert await database_trouble(settings(tmp_path, {"jardim": {}}, {})) is None
