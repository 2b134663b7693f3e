"""Pages of visits and of records: whatever is asked for, all of it comes once, in order, and nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from storage import lists
from storage.base import StorageRefused, VisitSummary
from storage.filters import RecordFilter, VisitFilter
from storage.paging import Page, cursor_of
from storage.store import SqlStorage
from tests.storage.places import Place, Shell
from tests.storage.test_store import Visit, records
from visits.audit import KINDS, AuditRecord, stamp
from visits.words import fold

START = datetime(2026, 11, 1, tzinfo=UTC)
TENANTS = ("jardim", "sol", "mar", "lua")
VISITORS = ("João da Silva", "JOÃO PEREIRA", "Ângela Conceição", "100% Entregas", "Zé_Ninguém", None)
RESIDENTS = ("Renata Albuquerque", "Luís Ângelo", "Marta", None)
APARTMENTS = ("102", "102 bloco B", "1021", "cobertura", None)
TOOLS = ("lookup_apartment", "call_resident", "deny_entry")
VISITS = 60


def at(minutes: float) -> str:
    return stamp(START + timedelta(minutes=minutes))


class Told:
    """One visit, as it was told: what a filter is held against."""

    def __init__(self, chance: random.Random, number: int) -> None:
        self.tenant = chance.choice(TENANTS)
        self.minutes = number // 3  # some begin at the same moment
        self.visitor = chance.choice(VISITORS)
        self.resident = chance.choice(RESIDENTS)
        self.apartment = chance.choice(APARTMENTS)
        self.tools = {tool for tool in TOOLS if chance.random() < 0.3}
        self.decision = chance.choice(("authorized", "denied", None))
        self.outcome = chance.choice(("authorized", "denied", "failed", None))
        self.provider = chance.choice(("local", "openai"))
        self.verdict = chance.choice(("right", "wrong", None, None))
        self.id = ""

    async def tell(self, storage: SqlStorage) -> None:
        visit = Visit(storage, self.tenant, START + timedelta(minutes=self.minutes))
        self.id = visit.id
        await visit.write("visit.started", provider=self.provider)
        await visit.write("leg.connected", leg="visitor", role="visitor")
        for call, tool in enumerate(sorted(self.tools)):
            await visit.write("tool.called", leg="visitor", call=str(call), name=tool, arguments={})
        who = {"visitor_name": self.visitor, "resident": self.resident, "apartment": self.apartment}
        if self.decision:
            await visit.write("decision", decision=self.decision, evidence=[])
        if self.outcome:
            await visit.write("visit.ended", outcome=self.outcome, **who)
        else:  # what is known of a running one
            self.visitor = None
            await visit.write(
                "dial.started", attempt="a", **{k: v for k, v in who.items() if v and k != "visitor_name"}
            )
        if self.verdict:
            await visit.write("visit.reviewed", by="operator:ana", verdict=self.verdict)

    def fits(self, wanted: VisitFilter) -> bool:
        started = at(self.minutes)
        number = (self.apartment or "").split(" ")[0]
        return all(
            (
                wanted.tenants is None or self.tenant in wanted.tenants,
                wanted.since is None or started >= wanted.since,
                wanted.until is None or started < wanted.until,
                not wanted.outcomes or (self.outcome or "running") in wanted.outcomes,
                _said(wanted.visitor, self.visitor),
                _said(wanted.resident, self.resident),
                wanted.apartment in ("", self.apartment, number),
                not wanted.tool or wanted.tool in self.tools,
                not wanted.decision or (self.decision or "none") == wanted.decision,
                wanted.reviewed is None or (self.verdict is not None) == wanted.reviewed,
                not wanted.verdict or self.verdict == wanted.verdict,
                not wanted.provider or self.provider == wanted.provider,
            )
        )


def _said(text: str, name: str | None) -> bool:
    return not text or (name is not None and all(word in fold(name) for word in fold(text).split()))


def _of_such(wanted: RecordFilter, visit: Told | None) -> bool:
    if not (wanted.outcomes or wanted.resident or wanted.visitor):
        return True
    like = VisitFilter(outcomes=wanted.outcomes, resident=wanted.resident, visitor=wanted.visitor)
    return visit is not None and visit.fits(like)


def any_visits(chance: random.Random) -> VisitFilter:
    """Some of all there can be asked for."""

    def some(value: Callable[[], Any], none: Any = "") -> Any:
        return value() if chance.random() < 0.25 else none

    return VisitFilter(
        tenants=some(lambda: chance.sample(TENANTS, chance.randint(0, 3)), None),
        since=some(lambda: at(chance.randint(-1, 21)), None),
        until=some(lambda: at(chance.randint(-1, 21)), None),
        outcomes=some(lambda: chance.sample(("authorized", "denied", "failed", "running"), 2), ()),
        visitor=some(lambda: chance.choice(("joao", "JOÃO silva", "%", "_", "conceição ângela", "x"))),
        resident=some(lambda: chance.choice(("luis", "É", "mar", "albuquerque renata", "ANGELO"))),
        apartment=some(lambda: chance.choice(("102", "102 bloco B", "1021", "%", "cobertura"))),
        tool=some(lambda: chance.choice((*TOOLS, "no_such_tool"))),
        decision=some(lambda: chance.choice(("authorized", "denied", "none"))),
        reviewed=some(lambda: chance.choice((True, False)), None),
        verdict=some(lambda: chance.choice(("right", "wrong"))),
        provider=some(lambda: chance.choice(("local", "openai", "gemini"))),
    )


async def all_visits(storage: SqlStorage, wanted: VisitFilter, limit: int) -> list[VisitSummary]:
    found: list[VisitSummary] = []
    after = None
    while True:
        page: Page[VisitSummary] = await storage.visit_page(wanted, after=after, limit=limit)
        assert len(page.items) <= limit
        found += page.items
        if (after := page.next) is None:
            return found


@pytest.mark.parametrize("few", [500, 3], ids=["rare", "common"])
async def test_any_filter_gives_the_visits_that_fit_and_no_others(
    storage: SqlStorage, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(lists, "FEW", few)
    chance = random.Random(7)
    told = [Told(chance, number) for number in range(VISITS)]
    for each in told:
        await each.tell(storage)
    seen = 0
    for _ in range(150):
        wanted = any_visits(chance)
        found = await all_visits(storage, wanted, chance.choice((1, 3, 50)))
        fitting = sorted(((at(each.minutes), each.id) for each in told if each.fits(wanted)), reverse=True)
        assert [(each.started_at, each.id) for each in found] == fitting, wanted
        seen += len(found)
    assert seen > 500
    verdicts = {each.id: each.verdict for each in told}
    assert {each.id: each.verdict for each in await all_visits(storage, VisitFilter(), 50)} == verdicts
    assert await storage.verify() == []


@pytest.mark.parametrize(("chains", "few"), [(20, 500), (1, 1)], ids=["by-tenant", "by-kind"])
async def test_any_filter_gives_the_records_that_fit_and_no_others(
    storage: SqlStorage, monkeypatch: pytest.MonkeyPatch, chains: int, few: int
) -> None:
    monkeypatch.setattr(lists, "CHAINS", chains)
    monkeypatch.setattr(lists, "FEW", few)
    chance = random.Random(8)
    told = [Told(chance, number) for number in range(20)]
    for each in told:
        await each.tell(storage)
    await storage.append("", "", at(0), "service.started", {})
    whole = await records(storage)
    visits = {each.id: each for each in told}

    def fits(record: AuditRecord, wanted: RecordFilter) -> bool:
        return all(
            (
                wanted.tenants is None or record.tenant in wanted.tenants,
                wanted.since is None or record.at >= wanted.since,
                wanted.until is None or record.at < wanted.until,
                not wanted.kinds or record.kind in wanted.kinds,
                not wanted.visit or record.visit == wanted.visit,
                not wanted.tool or (record.kind == "tool.called" and record.data["name"] == wanted.tool),
                _of_such(wanted, visits.get(record.visit)),
            )
        )

    seen = 0
    for _ in range(200):
        wanted = RecordFilter(
            tenants=chance.choice((None, None, [], ["jardim"], [""], ["sol", "mar", ""], TENANTS)),
            since=chance.choice((None, None, at(chance.randint(0, 8)))),
            until=chance.choice((None, None, at(chance.randint(0, 8)))),
            kinds=chance.choice(((), (), ["turn"], ["tool.called", "visit.ended"], sorted(KINDS))),
            tool=chance.choice(("", "", "", *TOOLS)),
            visit=chance.choice(("", "", chance.choice(told).id)),
            outcomes=chance.choice(((), (), ["denied"], ["running", "failed"])),
            resident=chance.choice(("", "", "", "luis", "RENATA")),
            visitor=chance.choice(("", "", "", "joao", "x")),
        )
        limit = chance.choice((1, 7, 200))
        found: list[AuditRecord] = []
        after = None
        while True:
            page = await storage.record_page(wanted, after=after, limit=limit)
            found += page.items
            if (after := page.next) is None:
                break
        fitting = sorted(
            (each for each in whole if fits(each, wanted)),
            key=lambda each: (each.at, each.tenant, each.seq),
            reverse=True,
        )
        assert found == fitting, wanted
        seen += len(found)
    assert seen > 300


async def test_an_operator_of_thousands_of_tenants_sees_a_page_of_theirs(storage: SqlStorage) -> None:
    """Each of them is one value of a statement, of which a database takes some thirty thousand."""
    chance = random.Random(9)
    for number in range(3):
        await Told(chance, number).tell(storage)
    tenants = [*TENANTS, *(f"t{number}" for number in range(3000))]
    page = await storage.record_page(RecordFilter(tenants=tenants), limit=200)
    assert list(page.items) == list((await storage.record_page(RecordFilter(), limit=200)).items)
    visits = await storage.visit_page(VisitFilter(tenants=tenants), limit=200)
    assert len(page.items) > 5 and len(visits.items) == 3


async def test_a_visit_that_comes_meanwhile_moves_no_page(storage: SqlStorage) -> None:
    for minutes in range(4):
        await Visit(storage, start=START + timedelta(minutes=minutes)).begin()
    first = await storage.visit_page(VisitFilter(), limit=2)
    await Visit(storage, start=START + timedelta(minutes=9)).begin()
    second = await storage.visit_page(VisitFilter(), limit=2, after=first.next)
    assert [each.started_at for each in (*first.items, *second.items)] == [at(n) for n in (3, 2, 1, 0)]
    assert second.next is None


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "nonsense",
        "é",
        "bnVsbA",
        cursor_of("a"),
        cursor_of("a", 1),
        cursor_of("\ud800", "b"),
        cursor_of("\0", "b"),
        "x" * 5000,
    ],
)
async def test_what_is_no_cursor_is_refused(storage: SqlStorage, cursor: str) -> None:
    with pytest.raises(StorageRefused, match="cursor"):
        await storage.visit_page(VisitFilter(), after=cursor)
    with pytest.raises(StorageRefused, match="cursor"):
        await storage.record_page(RecordFilter(), after=cursor)
    for limit in (0, 201, -1):
        with pytest.raises(StorageRefused, match="length"):
            await storage.visit_page(VisitFilter(), limit=limit)
        with pytest.raises(StorageRefused, match="length"):
            await storage.record_page(RecordFilter(), limit=limit)
    assert (await storage.visit_page(VisitFilter())).items == ()  # the store goes on


async def test_a_text_that_no_database_takes_finds_nothing_and_ends_nothing(storage: SqlStorage) -> None:
    for wanted in (
        VisitFilter(visitor="\ud800"),
        VisitFilter(tool="\ud800"),
        VisitFilter(apartment="\ud800"),
    ):
        with pytest.raises(StorageRefused):
            await storage.visit_page(wanted)
    with pytest.raises(StorageRefused):
        await storage.record_page(RecordFilter(tool="\ud800"))
    assert (await storage.visit_page(VisitFilter())).items == ()


async def test_names_of_visits_that_were_there_before_are_found_too(place: Place, shell: Shell) -> None:
    """What a name is searched by is the database's own, and follows whatever a row says."""
    async with await place.open() as storage:
        visit = await Visit(storage).begin()
        await visit.write("visit.ended", outcome="failed", visitor_name="Ângela")
        await shell.run("UPDATE visits SET visitor_name = 'Íris Ç' WHERE id = $1", visit.id)
        found = await storage.visit_page(VisitFilter(visitor="iris c"))
        assert [each.id for each in found.items] == [visit.id]
        assert (await storage.visit_page(VisitFilter(visitor="angela"))).items == ()
