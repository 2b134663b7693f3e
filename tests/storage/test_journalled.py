"""A database that goes away: what was said to be kept is in its chain afterwards, once and in order."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.base import StorageError, StorageRefused, StorageTimeout, StorageUnavailable
from storage.journalled import JournalledStorage
from storage.postgresql import PostgresStorage
from storage.store import Write
from tests.postgres import Postgres
from tests.storage.test_store import START, TENANT, Visit, records
from visits.audit import AuditRecord, stamp


class Faulty(JournalledStorage):
    """A store whose database and journal fail as they are told."""

    faults: list[str]
    """For the next writes: "" none, "before" nothing is written, "after" it is, and nobody says so."""
    full: bool

    async def _write(self, write: Write[Any], tenants: tuple[str, ...]) -> Any:
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "before":
            raise StorageUnavailable("away", "it went away")
        answer = await super()._write(write, tenants)
        if fault == "after":
            raise StorageTimeout("nobody knows")
        return answer

    async def journal_fails(self) -> None:
        self._journal._broken = "as it was told" if self.full else ""


def journals(directory: Path) -> list[Path]:
    return list(directory.glob("*.journal"))


async def until_back(storage: JournalledStorage) -> None:
    async with asyncio.timeout(30):
        while storage.warnings:
            await asyncio.sleep(0.01)


FAULTS = st.sampled_from(["", "", "before", "after"])


@pytest.mark.usefixtures("postgres")
@given(
    st.lists(FAULTS, max_size=40),
    st.lists(st.sets(st.integers(0, 11), max_size=3), min_size=3, max_size=3),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_fails_when_what_was_kept_is_in_the_chain_once_and_in_order(
    postgres: Postgres, tmp_path: Path, faults: list[str], full: list[set[int]]
) -> None:
    """`full`: at which of each visit's records the journal fails."""
    tenant = f"t{uuid4().hex[:8]}"

    async def run() -> None:
        url = await shared(postgres)
        storage = await Faulty.open_for(url, None, tmp_path / tenant)
        storage.faults, storage.full = list(faults), False
        kept: dict[str, list[tuple[str, Any]]] = {}
        asked: list[str] = []

        async def visit(fails: set[int]) -> None:
            told = Visit(storage, tenant)
            script: list[tuple[str, dict[str, Any]]] = [
                ("visit.started", {}),
                ("leg.connected", {"leg": "visitor", "role": "visitor"}),
                *(("note", {"text": str(n)}) for n in range(3)),
                ("decision", {"decision": "authorized", "evidence": []}),
                ("gate.requested", {}),
                ("gate.requested", {}),
                ("gate.answered", {"opened": True, "detail": "ok"}),
                ("note", {"text": "after"}),
                ("visit.ended", {"outcome": "authorized"}),
                ("decision", {"decision": "denied", "evidence": []}),
            ]
            for number, (kind, data) in enumerate(script):
                storage.full = number in fails
                await storage.journal_fails()
                try:
                    await told.write(kind, **data)
                except StorageError:
                    if kind in ("visit.started", "decision") and number < 6:
                        return  # a host does nothing more
                    continue
                kept.setdefault(told.id, []).append((kind, data))
                if kind == "gate.requested":
                    asked.append(told.id)

        await asyncio.gather(*(visit(fails) for fails in full))
        storage.full = False
        await storage.journal_fails()
        storage.faults = []
        await until_back(storage)
        assert await storage.verify(tenant) == []
        assert len(asked) == len(set(asked))
        for visit_id, told in kept.items():
            found = [
                (r.kind, {k: v for k, v in r.data.items() if k != "service"})
                for r in await records(storage, visit=visit_id)
            ]
            rest = iter(found)
            assert all(one in rest for one in told), (told, found)  # all of it, in order
            assert len([one for one in found if one[0] == "gate.requested"]) <= 1
            assert len(found) == len({repr(one) for one in found})
        await storage.close()
        assert journals(tmp_path / tenant) == []

    asyncio.run(run())


async def shared(postgres: Postgres) -> str:
    """One database for all examples."""
    if not hasattr(postgres, "shared"):
        postgres.shared = await postgres.make()  # type: ignore[attr-defined]
    return str(postgres.shared)  # type: ignore[attr-defined]


async def test_what_the_database_would_refuse_is_refused_while_it_is_away(
    postgres_url: str, tmp_path: Path
) -> None:
    storage = await Faulty.open_for(postgres_url, None, tmp_path)
    storage.faults, storage.full = [], False
    visit = await Visit(storage).begin()
    storage.faults = ["before"] * 1000
    assert await visit.write("note", text="the first that waits") is None
    assert storage.warnings == ["database_away"]
    for kind, data in (
        ("gate.requested", {}),
        ("visit.started", {}),
        ("gate.answered", {"opened": True, "detail": ""}),
        ("leg.connected", {"leg": "visitor", "role": "visitor"}),
    ):
        with pytest.raises(StorageRefused):
            await visit.write(kind, **data)
    with pytest.raises(StorageRefused, match="never started"):
        await Visit(storage).write("note", text="of nobody")
    await visit.decide("authorized")
    answers = await asyncio.gather(
        *(visit.write("gate.requested") for _ in range(10)), return_exceptions=True
    )
    assert [answer for answer in answers if not isinstance(answer, StorageRefused)] == [None]
    storage.faults = []
    await until_back(storage)
    assert [r.kind for r in await records(storage, visit=visit.id)] == [
        "visit.started",
        "leg.connected",
        "note",
        "decision",
        "gate.requested",
    ]
    assert await storage.verify() == []
    await storage.close()


async def test_a_record_that_can_be_kept_nowhere_is_an_error_and_said(
    postgres_url: str, tmp_path: Path
) -> None:
    storage = await Faulty.open_for(postgres_url, None, tmp_path)
    storage.faults, storage.full = [], True
    visit = await (await Visit(storage).begin()).decide()
    storage.faults = ["before"] * 1000
    await storage.journal_fails()
    with pytest.raises(StorageUnavailable):
        await visit.write("gate.requested")
    assert storage.troubles == ["nothing_durable"]
    storage.full = False
    await storage.journal_fails()
    storage.faults = []
    await until_back(storage)
    assert storage.troubles == []
    assert "gate.requested" not in [r.kind for r in await records(storage)]
    await storage.close()


async def test_what_a_dead_service_journalled_is_written_before_its_visits_are_closed(
    postgres_url: str, tmp_path: Path
) -> None:
    storage = await Faulty.open_for(postgres_url, None, tmp_path)
    storage.faults, storage.full = [], False
    visit = await (await Visit(storage).begin()).decide()
    storage.faults = ["before"] * 1000
    await visit.write("gate.requested")
    service = storage.service
    await storage.close()
    (left,) = journals(tmp_path)
    left.rename(tmp_path / "service-1.journal")  # another process's, by its name
    again = await JournalledStorage.open_for(postgres_url, None, tmp_path)
    assert again.service == service is not None
    assert await again.recover(stamp(START), [TENANT], services=[service]) == [visit.id]
    kinds = [(r.kind, r.data.get("gate")) for r in await records(again, visit=visit.id)]
    assert kinds[-3:] == [("gate.requested", None), ("visit.recovered", "unknown"), ("visit.ended", None)]
    await again.close()
    assert journals(tmp_path) == []


async def test_a_journalled_record_that_can_follow_no_more_is_kept_as_a_note(
    postgres_url: str, tmp_path: Path
) -> None:
    storage = await Faulty.open_for(postgres_url, None, tmp_path)
    storage.faults, storage.full = [], False
    visit = await Visit(storage).begin()
    storage.faults = ["before"] * 1000
    await visit.decide("denied")
    async with await PostgresStorage.open(postgres_url) as other:
        await other.recover(stamp(START), [TENANT])
    storage.faults = []
    await until_back(storage)
    last = (await records(storage, visit=visit.id))[-1]
    assert (last.kind, last.data["about"], last.data["kind"]) == ("note", "journal", "decision")
    assert last.data["data"]["decision"] == "denied"
    assert await storage.verify() == []
    await storage.close()


async def test_a_real_server_that_is_killed_stopped_and_frozen_under_visits_loses_nothing(
    own_postgres: Postgres, tmp_path: Path
) -> None:
    url = await own_postgres.make()
    storage = await JournalledStorage.open_for(url, None, tmp_path, deadline_s=0.5)
    told: dict[str, list[str]] = {}
    over = asyncio.Event()

    async def visit(number: int) -> None:
        one = await Visit(storage, f"t{number % 2}").begin()
        mine = told.setdefault(one.id, ["visit.started", "leg.connected"])
        while not over.is_set():
            await one.write("note", text=str(len(mine)))
            mine.append("note")
            await asyncio.sleep(0.02)
        await one.decide()
        await one.write("gate.requested")
        await one.write("visit.ended", outcome="authorized")
        mine += ["decision", "gate.requested", "visit.ended"]

    visits = [asyncio.create_task(visit(number)) for number in range(6)]
    for outage in ("kill", "kill", "freeze"):
        await asyncio.sleep(0.3)
        await asyncio.to_thread(getattr(own_postgres, outage))
        await asyncio.sleep(0.8)
        assert storage.warnings == ["database_away"] and storage.troubles == []
        await asyncio.to_thread(own_postgres.thaw if outage == "freeze" else own_postgres.start)
        await until_back(storage)
    await asyncio.to_thread(own_postgres.kill)
    await asyncio.sleep(0.1)
    over.set()
    await asyncio.gather(*visits)  # decided, and the gate asked, by the journal alone
    await asyncio.to_thread(own_postgres.start)
    await until_back(storage)
    assert await storage.verify() == []
    for visit_id, kinds in told.items():
        assert [r.kind for r in await records(storage, visit=visit_id)] == kinds
    await storage.close()


async def test_a_service_starts_while_its_database_is_away(own_postgres: Postgres, tmp_path: Path) -> None:
    url = await own_postgres.make()
    storage = await JournalledStorage.open_for(url, None, tmp_path)
    left = await Visit(storage).begin()
    service = storage.service
    assert service is not None
    await storage.close()
    await asyncio.to_thread(own_postgres.kill)
    storage = await JournalledStorage.open_for(url, None, tmp_path)
    assert storage.warnings == ["database_away"]
    later = stamp(START.replace(year=2027))
    with pytest.raises(StorageUnavailable, match="when it is back"):
        await storage.recover(later, [TENANT], services=[service])
    table = {"visitor_port": 9101}
    for refused in (
        storage.catalogue.changes_since(0),
        storage.catalogue.put_tenant(TENANT, table, expected=None, by="operator:ana", at=later),
    ):
        with pytest.raises(StorageUnavailable):
            await refused
    running = Visit(storage, start=START.replace(year=2028))
    await running.begin()
    await asyncio.to_thread(own_postgres.start)
    await until_back(storage)
    async with asyncio.timeout(10):
        while (view := await storage.visit(left.id)) is None or view.summary.outcome is None:
            await asyncio.sleep(0.02)
    assert view.summary.outcome == "failed"
    found = await storage.visit(running.id)
    assert found is not None and found.summary.outcome is None
    assert await storage.catalogue.tenants() == []
    await storage.catalogue.put_tenant(TENANT, table, expected=0, by="operator:ana", at=later)
    await storage.close()


async def test_visits_of_a_service_that_was_not_seen_for_long_are_closed_by_another(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.journalled.LOOK_S", 0.05)
    dead = await JournalledStorage.open_for(postgres_url, None, tmp_path / "dead")
    await asyncio.sleep(0.3)
    visit = await Visit(dead).begin()
    await dead.close()
    monkeypatch.setattr("storage.journalled.LEASE_S", 0.5)
    storage = await JournalledStorage.open_for(postgres_url, None, tmp_path / "alive")
    mine = await Visit(storage).begin()
    async with asyncio.timeout(10):
        while (view := await storage.visit(visit.id)) is None or view.summary.outcome is None:
            await asyncio.sleep(0.05)
    assert view.summary.outcome == "failed"
    running = await storage.visit(mine.id)
    assert running is not None and running.summary.outcome is None
    assert isinstance(await mine.write("note", text="still there"), AuditRecord)
    await storage.close()
