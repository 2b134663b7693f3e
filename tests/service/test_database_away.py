"""A PostgreSQL that goes away during calls: visits finish, and the gate opens on what is journalled."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from structlog.testing import capture_logs

from bridge.gates.base import Gate
from bridge.softphone import Softphone
from storage.journalled import JournalledStorage
from tests.postgres import Postgres
from tests.service.doorman import AGREES, ASKS, Cast, Part
from tests.service.household import HELLO, Household, Talk, household, until, with_cast
from tests.service.test_storage_failures import CountingGate


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> CountingGate:
    made = CountingGate()

    def build(*_: object) -> Gate:
        return made

    monkeypatch.setattr("bridge.runner.build_gate", build)
    return made


def once_greeted(house: Household, visit: UUID, then: Talk) -> Talk:
    """A visitor who says what they want, after something else has happened."""

    async def talk(phone: Softphone) -> None:
        await house.greeted(visit)
        await then(phone)
        await phone.say(HELLO)

    return talk


async def test_visits_go_on_without_the_database_and_the_gate_opens_on_the_journal(
    tmp_path: Path, own_postgres: Postgres, gate: CountingGate
) -> None:
    url = await own_postgres.make()
    async with (
        Cast(Part(ASKS, AGREES)) as cast,
        household(tmp_path, {"jardim": with_cast(cast)}, database_url=url) as house,
    ):
        storage = house.service.storage
        assert isinstance(storage, JournalledStorage)

        async def it_dies(_: Softphone) -> None:
            await asyncio.to_thread(own_postgres.kill)

        during, without, after = uuid4(), uuid4(), uuid4()
        with capture_logs() as logs:
            await house.visit("jardim", once_greeted(house, during, it_dies), visit=during)
            assert house.service.warnings() == ["database_away"] and house.service.not_ready() == []
            await house.visit("jardim", visit=without)  # begins and ends while it is away
        assert [order.visit for order in gate.orders] == [str(during), str(without)]
        assert len([line for line in logs if line["event"] == "storage.away"]) == 1

        async def nothing_is_durable(_: Softphone) -> None:
            storage._journal._broken = "as a disk would"

        await house.visit("jardim", once_greeted(house, after, nothing_is_durable), visit=after)
        assert house.service.not_ready() == ["nothing_durable"]
        assert len(gate.orders) == 2
        storage._journal._broken = ""
        await asyncio.to_thread(own_postgres.start)
        await until(lambda: not house.service.warnings(), what="the database")
        for visit in (during, without):
            assert await house.outcome(visit) == ("authorized", "opened", True)
        assert "gate.requested" not in await house.kinds(after)


async def test_a_service_starts_without_its_database(tmp_path: Path, own_postgres: Postgres) -> None:
    url = await own_postgres.make()
    await asyncio.to_thread(own_postgres.kill)
    async with (
        Cast(Part(ASKS, AGREES)) as cast,
        household(tmp_path, {"jardim": with_cast(cast)}, database_url=url) as house,
    ):
        visit = uuid4()
        await house.visit("jardim", visit=visit)
        assert house.service.warnings() == ["database_away"]
        await asyncio.to_thread(own_postgres.start)
        await until(lambda: not house.service.warnings(), what="the database")
        assert (await house.outcome(visit))[0] == "authorized"
        assert [r.kind async for r in house.service.storage.audit(tenant="")] == ["service.started"]
