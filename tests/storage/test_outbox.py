"""What is still to be told: noted with the record itself, in its visit's order; on both databases."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import outbox
from storage.base import StorageRefused
from storage.journalled import JournalledStorage
from storage.outbox import TOLD, Outgoing, event_id, event_of
from storage.postgresql import PostgresStorage
from storage.schema import statements
from storage.sqlite import _on
from storage.steps import Step, carry_out
from storage.store import SqlStorage, appended, checked
from storage.versions import scripts
from tests.storage.places import Shell
from tests.storage.test_store import START, TENANT, Visit, records, whole_visit
from visits.audit import stamp

AT = stamp(START)
LATER = stamp(START.replace(year=2027))


async def rows(storage: SqlStorage, *, given_up: bool | None = None) -> list[Outgoing]:
    """All of it, over pages of two."""
    found: list[Outgoing] = []
    after: str | None = None
    while True:
        page = await storage.outbox.page(given_up=given_up, after=after, limit=2)
        found += page.items
        if page.next is None:
            return found
        after = page.next


async def due(storage: SqlStorage, now: str = LATER) -> list[str]:
    """The kinds and visits whose turn it is."""
    return [one.event.id for one in await storage.outbox.due(TENANT, now, 50)]


async def test_what_is_told_is_noted_with_its_record_in_the_order_of_its_visit(
    storage: SqlStorage, shell: Shell
) -> None:
    await whole_visit(storage)
    assert await rows(storage) == []
    await storage.outbox.subscribe(TENANT, TOLD, since=LATER)
    one, other = await whole_visit(storage), await whole_visit(storage)
    with pytest.raises(StorageRefused):
        await one.write("visit.ended", outcome="failed")
    waiting = await rows(storage)
    assert [(each.visit, each.kind) for each in waiting] == [
        (visit.id, kind) for visit in (one, other) for kind in TOLD
    ]
    noted = {record.seq: record.kind for record in await records(storage) if record.kind in TOLD}
    assert {each.seq: each.kind for each in waiting}.items() <= noted.items()
    assert "João" not in json.dumps(await shell.rows("SELECT * FROM webhook_outbox"))
    # Nobody waits for another visit; each for what comes before it.
    assert await due(storage) == [event_id(visit.id, "visit.started") for visit in (one, other)]
    first, second = [each.event for each in await storage.outbox.due(TENANT, LATER, 50)]
    await storage.outbox.told(second)
    await storage.outbox.put_off(first, stamp(START.replace(year=2028)), "503")
    assert await due(storage) == [event_id(other.id, "decision")]
    assert await storage.outbox.turns() == {TENANT: ""}
    # What comes to a visit that waits, waits as well, without being looked at.
    assert {each.next_at for each in await rows(storage) if each.visit == one.id} == {
        stamp(START.replace(year=2028))
    }
    (still,) = [each for each in await rows(storage) if each.seq == first.seq]
    assert (still.attempts, still.answer) == (1, "503")
    assert (await storage.outbox.depth()).waiting == 5
    assert await storage.verify() == []


async def test_what_comes_to_a_visit_that_waits_waits_with_it(storage: SqlStorage) -> None:
    await storage.outbox.subscribe(TENANT, TOLD, since=AT)
    visit = await Visit(storage).begin()
    ((first, kept),) = [(one.event, one.records) for one in await storage.outbox.due(TENANT, LATER, 5)]
    assert [record.kind for record in kept] == ["visit.started"]
    await storage.outbox.put_off(first, LATER, "timeout")
    await visit.decide("denied")
    assert [(each.kind, each.next_at) for each in await rows(storage)] == [
        ("visit.started", LATER),
        ("decision", LATER),
    ]


async def test_what_is_given_up_is_on_record_and_can_be_sent_again(storage: SqlStorage) -> None:
    await storage.outbox.subscribe(TENANT, TOLD, since=AT)
    visit = await whole_visit(storage)
    ((first, _),) = [(one.event, one.records) for one in await storage.outbox.due(TENANT, LATER, 5)]
    await storage.outbox.give_up(first, LATER, "503")
    await storage.outbox.give_up(first, LATER, "503")  # as another sender may, that was late
    assert await due(storage) == [event_id(visit.id, "decision")]
    assert [each.id for each in await rows(storage, given_up=True)] == [first.id]
    assert (await storage.outbox.depth()).given_up == 1
    about = [record for record in await records(storage) if record.kind.startswith("webhook.")]
    assert [(each.kind, each.visit, each.data) for each in about] == [
        ("webhook.given_up", visit.id, {"event": first.id, "attempts": 1, "answer": "503"})
    ]
    found = await storage.outbox.find(first.id)
    assert found is not None and found.given_up_at == LATER
    assert await storage.outbox.resend(TENANT, [first.seq, 10_000], by="operator:ana", at=LATER) == 1
    assert await due(storage) == [first.id]  # before what followed it
    again = await storage.outbox.find(first.id)
    assert again is not None and (again.since, again.attempts, again.given_up_at) == (LATER, 0, None)
    assert (await records(storage))[-1].data == {"by": "operator:ana", "event": first.id}
    # What nobody asks for is let go of in the end.
    await storage.outbox.give_up(again, LATER, "503")
    await storage.outbox.forget_given_up(TENANT, LATER)
    assert (await storage.outbox.depth()).given_up == 1
    await storage.outbox.forget_given_up(TENANT, stamp(START.replace(year=2029)))
    assert await storage.outbox.find(first.id) is None
    assert await storage.verify() == []


async def test_who_begins_to_listen_gets_what_came_since_and_who_stops_gets_nothing(
    storage: SqlStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = await whole_visit(storage)
    late = Visit(storage, start=START.replace(hour=14))
    await late.begin()
    await storage.outbox.subscribe(TENANT, ["visit.started"], since=stamp(START.replace(hour=14)))
    await late.decide("denied")
    assert [each.id for each in await rows(storage)] == [event_id(late.id, "visit.started")]
    assert (await storage.outbox.subscriptions())[TENANT].kinds == {"visit.started"}
    await storage.outbox.subscribe(TENANT, ["decision"], since=LATER)
    assert await rows(storage) == []
    await early.write("note", text="later")
    await storage.outbox.subscribe(TENANT, TOLD, since=AT)  # what is noted already is not noted again
    assert {each.visit for each in await rows(storage)} == {early.id, late.id}
    monkeypatch.setattr(outbox, "AT_ONCE", 2)
    monkeypatch.setattr(outbox, "MOST_COUNTED", 2)
    assert (await storage.outbox.depth()).waiting == 2 < len(await rows(storage))
    await storage.outbox.unsubscribe(TENANT)
    assert await rows(storage) == [] and await storage.outbox.subscriptions() == {}
    assert await storage.verify() == []


async def test_what_is_erased_of_a_person_is_told_to_nobody(storage: SqlStorage) -> None:
    await storage.outbox.subscribe(TENANT, ["visit.ended"], since=AT)
    visit = await whole_visit(storage)

    async def said() -> Any:
        (one,) = await storage.outbox.due(TENANT, LATER, 5)
        return one.records[-1].data["visitor_name"]

    assert await said() == "João"
    await storage.erase(TENANT, [visit.id], scope="visit", kind="person.erased", by="operator:ana", at=LATER)
    assert await said() == "[apagado]"


async def test_one_of_many_takes_a_tenant_and_whoever_is_too_late_is_told_so(storage: SqlStorage) -> None:
    assert await storage.outbox.senders() == {}
    assert await storage.outbox.take(TENANT, "a", 0) == 1
    assert await storage.outbox.take(TENANT, "b", 0) is None
    assert await storage.outbox.take(TENANT, "a", 1) == 2
    assert await storage.outbox.take(TENANT, "b", 1) is None
    assert await storage.outbox.take(TENANT, "b", 2) == 3  # that a has stood still was seen
    assert await storage.outbox.take(TENANT, "a", 2) is None
    assert await storage.outbox.take(TENANT, "", 3) == 4
    assert await storage.outbox.senders() == {TENANT: ("", 4)}


async def test_what_was_journalled_is_noted_when_it_gets_its_place(tmp_path: Path, postgres_url: str) -> None:
    async with await JournalledStorage.open_for(postgres_url, None, tmp_path) as storage:
        await storage.outbox.subscribe(TENANT, TOLD, since=AT)
        storage._away = "it went away"
        visit = Visit(storage)
        assert await visit.write("visit.started") is None
    async with await JournalledStorage.open_for(postgres_url, None, tmp_path) as storage:
        assert await due(storage) == [event_id(visit.id, "visit.started")]
        # What a crash leaves is told as well, whoever closes it.
        assert await storage.recover(LATER) == [visit.id]
        assert [each.kind for each in await rows(storage)] == ["visit.started", "visit.ended"]
        service = (await storage.outbox.subscriptions())[TENANT].service
        assert service == storage.service
    async with await PostgresStorage.open(postgres_url) as storage:
        assert await storage.verify() == []


def test_an_events_id_says_which_it_is() -> None:
    visit = str(uuid4())
    for kind in TOLD:
        assert event_of(event_id(visit, kind)) == (visit, kind)
        UUID(event_id(visit, kind)[:36])
    for wrong in ("", visit, f"{visit}-opened", f"{visit.upper()}-ended", f"{visit}-ended\n"):
        with pytest.raises(StorageRefused, match="allowed is VISIT-started"):
            event_of(wrong)


# --------------------------------------------------------------------------------------------------------
# Any order of events, failures and second tries, against rows in a list
# --------------------------------------------------------------------------------------------------------


@dataclass
class Row:
    visit: str
    kind: str
    next_at: int = 0
    given_up: bool = False


@dataclass
class Model:
    """The same in a list."""

    rows: list[Row] = field(default_factory=list)

    def add(self, visit: str, kind: str) -> None:
        waits = [row.next_at for row in self.rows if row.visit == visit and not row.given_up]
        self.rows.append(Row(visit, kind, max(waits, default=0)))

    def heads(self, now: int) -> set[tuple[str, str]]:
        firsts: dict[str, Row] = {}
        for row in self.rows:
            if not row.given_up:
                firsts.setdefault(row.visit, row)
        return {(row.visit, row.kind) for row in firsts.values() if row.next_at <= now}


VISITS = [str(UUID(int=n)) for n in range(1, 4)]
DONE = st.tuples(st.sampled_from(["event", "told", "off", "up", "resend"]), st.integers(0, 8))


@given(st.lists(DONE, max_size=40))
@settings(max_examples=60, deadline=None)
def test_whatever_happens_the_turns_are_those_of_a_list(done: list[tuple[str, int]]) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for script in scripts("sqlite"):
            for statement in statements(script):
                connection.execute(statement)

        def run(step: Step[Any]) -> Any:
            return carry_out(step, _on(connection))

        model, begun = Model(), dict.fromkeys(VISITS, 0)
        run(outbox._subscribed(TENANT, TOLD, "", AT, {}))
        for now, (what, number) in enumerate(done, 1):
            visit = VISITS[number % 3]
            events = run(outbox._due(TENANT, f"{now:04}", 50))
            assert {(one.event.visit, one.event.kind) for one in events} == model.heads(now)
            if what == "event" and begun[visit] < 3:
                kind = TOLD[begun[visit]]
                begun[visit] += 1
                data = {"decision": "denied", "evidence": []} if kind == "decision" else {"outcome": "denied"}
                run(appended(checked(TENANT, visit, AT, kind, data, salt="00" * 16), {}))
                model.add(visit, kind)
            elif what == "resend":
                for row in (row for row in model.rows if row.visit == visit):
                    row.next_at, row.given_up = 0, False
                page = run(outbox._page(None, None, None, 50)).items
                run(outbox._resent(TENANT, [row.seq for row in page if row.visit == visit], "x:y", AT, {}))
            elif events and what != "event":
                event = events[number % len(events)].event
                (row,) = [r for r in model.rows if (r.visit, r.kind) == (event.visit, event.kind)]
                if what == "told":
                    model.rows.remove(row)
                    run(outbox._told(TENANT, event.seq, {}))
                elif what == "off":
                    run(outbox._put_off(event, f"{now + number:04}", "503", {}))
                    for later in model.rows[model.rows.index(row) :]:
                        if later.visit == row.visit and not later.given_up:
                            later.next_at = now + number
                else:
                    row.given_up = True
                    run(outbox._given_up(event, AT, "503", {}))
