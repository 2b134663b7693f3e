"""The store on both databases: what is on record is read, what cannot be is refused, edits are found."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import uuid4

import pytest

from storage.base import Storage, StorageClosed, StorageError, StorageRefused, StorageUnavailable
from storage.store import PAGE, SqlStorage
from tests.storage.places import Edited, Place, Shell
from visits.audit import AuditRecord, Head, stamp

START = datetime(2026, 11, 21, 13, 5, tzinfo=UTC)
TENANT = "jardim"


class Visit:
    """Writes the records of one visit, a second apart."""

    def __init__(self, storage: Storage, tenant: str = TENANT, start: datetime = START) -> None:
        self.storage = storage
        self.tenant = tenant
        self.id = str(uuid4())
        self._start = start
        self._clock: Iterator[int] = count()

    async def write(self, kind: str, **data: Any) -> AuditRecord | None:
        at = stamp(self._start + timedelta(seconds=next(self._clock)))
        record: AuditRecord | None = await self.storage.append(self.tenant, self.id, at, kind, data)
        return record

    async def begin(self) -> Visit:
        await self.write("visit.started", provider="local")
        await self.write(
            "leg.connected", leg="visitor", role="visitor", endpoint="audiosocket", peer="127.0.0.1"
        )
        return self

    async def decide(self, decision: str = "authorized") -> Visit:
        await self.write("decision", decision=decision, evidence=[{"by": "voice", "text": "Pode entrar"}])
        return self


async def records(storage: SqlStorage, **filters: Any) -> list[AuditRecord]:
    return [record async for record in storage.audit(**filters)]


async def whole_visit(storage: SqlStorage) -> Visit:
    visit = await Visit(storage).begin()
    write = visit.write
    turn = {
        "leg": "visitor",
        "speaker": "caller",
        "text": "É no quinhentos e um",
        "started_ms": 900,
        "ended_ms": 2100,
    }
    await write("turn", **turn)
    await write("tool.called", leg="visitor", call="c1", name="lookup_apartment", arguments={"spoken": "501"})
    await write(
        "tool.answered",
        leg="visitor",
        call="c1",
        name="lookup_apartment",
        result={"apartment": "501"},
        ms=3.5,
        status="ok",
    )
    await write("dial.started", attempt="a1", number=1, apartment="501")
    await write("leg.connected", leg="a1", role="resident")
    await write("dial.ended", attempt="a1", outcome="answered", detail="")
    await write("briefing.played", attempt="a1")
    await write("evidence", attempt="a1", by="voice", text="Pode entrar")
    await visit.decide()
    await write("gate.requested", apartment="501")
    await write("gate.answered", opened=True, detail="200 OK")
    await write("leg.ended", leg="a1", reason="goodbye", recording="jardim/x.wav")
    await write("visit.ended", outcome="authorized", reason="opened", visitor_name="João", intent="visita")
    return visit


# --------------------------------------------------------------------------------------------------------
# What is read
# --------------------------------------------------------------------------------------------------------


async def test_a_visit_is_read_as_it_was_told(storage: SqlStorage) -> None:
    visit = await whole_visit(storage)
    view = await storage.visit(visit.id)
    assert view is not None
    summary = view.summary
    assert (summary.outcome, summary.decision, summary.gate_opened) == ("authorized", "authorized", True)
    assert (summary.apartment, summary.visitor_name, summary.intent) == ("501", "João", "visita")
    assert summary.gate_detail == "200 OK" and summary.gate_requested_at is not None
    assert [(leg.leg, leg.role, leg.reason, leg.recording) for leg in view.legs] == [
        ("visitor", "visitor", None, None),
        ("a1", "resident", "goodbye", "jardim/x.wav"),
    ]
    (turn,) = view.turns
    assert (turn.text, turn.role, turn.ended_ms, turn.interrupted) == (
        "É no quinhentos e um",
        "visitor",
        2100,
        False,
    )
    (call,) = view.tool_calls
    assert (call.arguments, call.result, call.ms, call.status) == (
        {"spoken": "501"},
        {"apartment": "501"},
        3.5,
        "ok",
    )
    assert view.decision is not None and view.decision.evidence == [{"by": "voice", "text": "Pode entrar"}]
    assert await storage.visits() == [summary]
    assert await storage.verify() == []


async def test_what_was_appended_is_what_is_read_back(storage: SqlStorage) -> None:
    visit = Visit(storage)
    written = [
        await visit.write("visit.started"),
        await visit.write("note", text="ção \u0000 \U0001f600 '\"", n=[1.5]),
    ]
    assert await records(storage) == written


async def test_visits_are_listed_by_what_is_asked(storage: SqlStorage) -> None:
    early = await Visit(storage, start=START).begin()
    late = await Visit(storage, start=START + timedelta(hours=2)).begin()
    other = await Visit(storage, tenant="outro", start=START + timedelta(hours=1)).begin()
    await late.write("visit.ended", outcome="abandoned")

    async def ids(**filters: Any) -> list[str]:
        return [visit.id for visit in await storage.visits(**filters)]

    assert await ids() == [late.id, other.id, early.id]
    assert await ids(tenant=TENANT) == [late.id, early.id]
    assert await ids(since=stamp(START + timedelta(hours=1))) == [late.id, other.id]
    assert await ids(until=stamp(START + timedelta(hours=1))) == [early.id]
    assert await ids(outcome="abandoned") == [late.id]
    assert await ids(limit=1, offset=1) == [other.id]
    assert [visit.id for visit in await storage.open_visits()] == [early.id, other.id]
    assert [visit.id for visit in await storage.open_visits(["outro"])] == [other.id]
    assert await storage.open_visits([]) == []
    assert await storage.visit_exists(early.id) and not await storage.visit_exists(str(uuid4()))
    assert await storage.visit(str(uuid4())) is None
    assert await storage.find_visits(early.id[:8]) == [early.id]
    assert await storage.find_visits("%") == []


async def test_records_are_read_by_what_is_asked_over_many_pages(storage: SqlStorage) -> None:
    one, two = await Visit(storage).begin(), await Visit(storage, tenant="outro").begin()
    await asyncio.gather(*(visit.write("note", text=str(n)) for n in range(PAGE) for visit in (one, two)))
    everything = await records(storage)
    assert len(everything) == 2 * PAGE + 4
    assert [(r.tenant, r.seq) for r in everything] == sorted((r.tenant, r.seq) for r in everything)
    assert await records(storage, tenant=TENANT) == [r for r in everything if r.tenant == TENANT]
    assert await records(storage, visit=two.id) == [r for r in everything if r.visit == two.id]
    assert len(await records(storage, kinds=["leg.connected", "visit.started"])) == 4
    assert await records(storage, kinds=[]) == []
    assert await records(storage, since=stamp(START + timedelta(days=1))) == []
    assert await storage.verify() == []
    heads = await storage.heads()
    assert heads == {t: Head(PAGE + 2, everything[i].hash) for t, i in ((TENANT, PAGE + 1), ("outro", -1))}


async def test_a_reader_with_its_own_connection_sees_a_running_service(
    place: Place, storage: SqlStorage
) -> None:
    visit = await Visit(storage).begin()
    async with await place.open(read_only=True) as reader:
        assert len(await records(reader)) == 2
        await visit.write("note", text="while it is open")
        assert len(await records(reader)) == 3
        assert await reader.verify() == []
        with pytest.raises(StorageUnavailable, match="reading only") as caught:
            await reader.append(TENANT, visit.id, stamp(START), "note", {})
        assert caught.value.reason == "read-only"


async def test_a_closed_database_can_be_read_only(place: Place) -> None:
    async with await place.open() as storage:
        await Visit(storage).begin()
    async with await place.open(read_only=True) as reader:
        assert len(await records(reader)) == 2


# --------------------------------------------------------------------------------------------------------
# What is refused
# --------------------------------------------------------------------------------------------------------


async def test_a_refused_record_leaves_no_trace(storage: SqlStorage) -> None:
    visit = await Visit(storage).begin()
    before = await records(storage), await storage.visit(visit.id)
    with pytest.raises(StorageRefused):
        await visit.write("gate.requested")
    with pytest.raises(StorageRefused):
        await visit.write("turn", leg="visitor", speaker="caller", text="x", started_ms=10**400, ended_ms=0)
    with pytest.raises(StorageRefused):
        await visit.write("door.opened")
    assert (await records(storage), await storage.visit(visit.id)) == before


async def test_the_gate_is_asked_only_after_an_authorized_decision_and_once(storage: SqlStorage) -> None:
    undecided = await Visit(storage).begin()
    denied = await (await Visit(storage).begin()).decide("denied")
    authorized = await (await Visit(storage).begin()).decide()
    for visit in (undecided, denied):
        with pytest.raises(StorageRefused, match="no authorized decision"):
            await visit.write("gate.requested")
    with pytest.raises(StorageRefused):
        await authorized.write("gate.answered", opened=True, detail="")
    await authorized.write("gate.requested")
    with pytest.raises(StorageRefused, match="before"):
        await authorized.write("gate.requested")
    await authorized.write("gate.answered", opened=False, detail="timeout")
    with pytest.raises(StorageRefused):
        await authorized.write("gate.answered", opened=True, detail="")


async def test_of_many_gate_requests_at_once_one_gets_through(storage: SqlStorage) -> None:
    visit = await (await Visit(storage).begin()).decide()
    answers = await asyncio.gather(
        *(visit.write("gate.requested") for _ in range(20)), return_exceptions=True
    )
    assert sum(isinstance(answer, AuditRecord) for answer in answers) == 1
    assert sum(isinstance(answer, StorageRefused) for answer in answers) == 19
    assert await storage.verify() == []


async def test_a_visit_is_decided_and_ended_once(storage: SqlStorage) -> None:
    visit = await (await Visit(storage).begin()).decide("denied")
    with pytest.raises(StorageRefused, match="decided before"):
        await visit.decide("authorized")
    await visit.write("visit.ended", outcome="denied")
    with pytest.raises(StorageRefused):
        await visit.write("visit.ended", outcome="authorized")
    with pytest.raises(StorageRefused):
        await visit.write("visit.started")
    await visit.write("leg.ended", leg="visitor", reason="late, but true")


async def test_nothing_is_decided_after_the_end(storage: SqlStorage) -> None:
    visit = await Visit(storage).begin()
    await visit.write("visit.ended", outcome="abandoned")
    with pytest.raises(StorageRefused, match="over"):
        await visit.decide()
    late = await (await Visit(storage).begin()).decide()
    await late.write("visit.ended", outcome="failed")
    with pytest.raises(StorageRefused, match="over"):
        await late.write("gate.requested")


async def test_nothing_is_told_of_a_visit_that_never_started_or_is_another_tenants(
    storage: SqlStorage,
) -> None:
    with pytest.raises(StorageRefused, match="never started"):
        await Visit(storage).write("note", text="x")
    visit = await Visit(storage).begin()
    with pytest.raises(StorageRefused, match="not a visit of"):
        await storage.append("outro", visit.id, stamp(START), "note", {})


async def test_an_answer_needs_its_call_and_a_leg_ends_once(storage: SqlStorage) -> None:
    visit = await Visit(storage).begin()
    call = {"leg": "visitor", "call": "c1", "name": "visit_status"}
    answer = {**call, "result": {}, "ms": 1, "status": "ok"}
    with pytest.raises(StorageRefused):
        await visit.write("tool.answered", **answer)
    await visit.write("tool.called", **call, arguments={})
    await visit.write("tool.answered", **answer)
    with pytest.raises(StorageRefused):
        await visit.write("tool.answered", **answer)
    await visit.write("tool.called", **call, arguments={})  # another session's first call has the same id
    await visit.write("tool.answered", **answer)
    with pytest.raises(StorageRefused):
        await visit.write("leg.ended", leg="nobody", reason="x")
    await visit.write("leg.ended", leg="visitor", reason="x")
    with pytest.raises(StorageRefused):
        await visit.write("leg.ended", leg="visitor", reason="x")


async def test_one_refused_record_does_not_cost_the_others_that_share_its_commit(
    storage: SqlStorage,
) -> None:
    visit = await Visit(storage).begin()
    kinds = ["note", "gate.requested", "note", "visit.recovered", "note"]
    writes = [visit.write(kind, **({"reason": "", "gate": "x"} if "." in kind else {})) for kind in kinds]
    answers = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(answer) for answer in answers] == [
        AuditRecord,
        StorageRefused,
        AuditRecord,
        StorageRefused,
        AuditRecord,
    ]
    assert [record.kind for record in await records(storage)][2:] == ["note"] * 3
    assert await storage.verify() == []


# --------------------------------------------------------------------------------------------------------
# Recovery
# --------------------------------------------------------------------------------------------------------


async def test_visits_that_a_crash_left_open_are_closed_as_failed(place: Place) -> None:
    async with await place.open() as storage:
        ended = await whole_visit(storage)
        plain = await Visit(storage).begin()
        asked = await (await Visit(storage).begin()).decide()
        await asked.write("gate.requested")
        opened = await (await Visit(storage).begin()).decide()
        await opened.write("gate.requested")
        await opened.write("gate.answered", opened=True, detail="")
        other = await Visit(storage, tenant="outro").begin()
    async with await place.open() as storage:
        assert set(await storage.recover(stamp(START), [TENANT])) == {plain.id, asked.id, opened.id}
        assert await storage.recover(stamp(START)) == [other.id]
        assert await storage.recover(stamp(START)) == []
        gates = {r.visit: r.data["gate"] for r in await records(storage, kinds=["visit.recovered"])}
        assert gates == {
            plain.id: "untouched",
            asked.id: "unknown",
            opened.id: "opened",
            other.id: "untouched",
        }
        outcomes = {visit.id: visit.outcome for visit in await storage.visits()}
        assert outcomes == {ended.id: "authorized", **dict.fromkeys(gates, "failed")}
        asked.storage = storage
        with pytest.raises(StorageRefused):
            await asked.write("gate.requested")
        assert await storage.verify() == []


# --------------------------------------------------------------------------------------------------------
# Edits
# --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE audit SET data = '{}'",
        "UPDATE audit SET at = at WHERE seq = 1",
        "DELETE FROM audit",
        "DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit)",
        "INSERT INTO audit SELECT tenant, 3, visit, at, 'note', '{}', previous, hash FROM audit WHERE seq=3",
        "INSERT INTO audit SELECT tenant, 5, visit, at, 'note', '{}', hash, hash FROM audit WHERE seq=3",
        "INSERT INTO audit SELECT tenant, 4, visit, at, 'note', data, previous, hash FROM audit WHERE seq=3",
        "INSERT INTO audit SELECT tenant, 4, visit, at, kind, data, hash, hash FROM audit WHERE seq = 1",
        "INSERT INTO audit SELECT 'new', 2, visit, at, 'note', '{}', previous, hash FROM audit WHERE seq = 1",
        "UPDATE heads SET seq = 9",
        "DELETE FROM heads",
    ],
)
async def test_the_database_refuses_edits_of_the_audit_log(
    shell: Shell, storage: SqlStorage, sql: str
) -> None:
    visit = await Visit(storage).begin()
    await visit.write("note", text="third")
    before = await records(storage)
    with pytest.raises(Edited):
        await shell.run(sql)
    assert await records(storage) == before
    assert await storage.verify() == []


@pytest.mark.parametrize(
    ("sql", "fault"),
    [
        ("UPDATE audit SET data = replace(data, 'denied', 'authorized') WHERE seq = 3", ("changed", 3)),
        ("UPDATE audit SET data = data || ' ' WHERE seq = 3", ("changed", 3)),
        ("UPDATE audit SET data = 'nonsense' WHERE seq = 3", ("changed", 3)),
        ("UPDATE audit SET at = '2026' WHERE seq = 2", ("changed", 2)),
        ("UPDATE audit SET seq = 100 WHERE seq = 2", ("missing", 2)),
        ("DELETE FROM audit WHERE seq = 3", ("missing", 3)),
        ("DELETE FROM audit WHERE seq = 1", ("missing", 1)),
        ("UPDATE audit SET previous = hash WHERE seq = 4", ("changed", 4)),
    ],
)
async def test_an_edit_by_somebody_who_removed_the_triggers_is_found(
    shell: Shell, storage: SqlStorage, sql: str, fault: tuple[str, int]
) -> None:
    visit = await Visit(storage).begin()
    await visit.decide("denied")
    await visit.write("visit.ended", outcome="denied")
    await shell.drop_triggers()
    assert await shell.run(sql) == 1
    faults = await storage.verify()
    assert (faults[0].kind, faults[0].seq, faults[0].tenant) == (*fault, TENANT)


async def test_a_cut_tail_is_found_with_an_anchor_even_when_the_whole_chain_is_gone(
    shell: Shell, storage: SqlStorage
) -> None:
    visit = await Visit(storage).begin()
    await visit.decide("denied")
    heads = await storage.heads()
    await shell.drop_triggers()
    await shell.run("DELETE FROM audit WHERE seq = 3")
    # What the database notes itself shows it, until somebody makes that fit as well.
    found = await storage.verify()
    assert {(fault.kind, fault.seq, fault.place, fault.visit) for fault in found} == {
        ("truncated", 3, "", ""),
        ("personal-added", 3, "", ""),
        ("row-added", 0, "decisions", visit.id),
        ("row-changed", 0, "visits.decision", visit.id),
    }
    await shell.run("DELETE FROM audit_personal WHERE seq = 3")
    await shell.run("UPDATE heads SET (seq, hash) = (SELECT seq, hash FROM audit WHERE seq = 2)")
    await shell.run("DELETE FROM decisions")
    await shell.run("UPDATE visits SET decision = NULL")
    assert await storage.verify() == []
    (fault,) = await storage.verify(expected_heads=heads)
    assert (fault.kind, fault.seq) == ("truncated", 3)
    for table in ("audit", "audit_personal", "heads", "legs", "visits"):
        await shell.run(f"DELETE FROM {table}")
    assert await storage.verify() == []
    (fault,) = await storage.verify(expected_heads=heads)
    assert (fault.kind, fault.seq, fault.until) == ("truncated", 1, 3)


async def test_closing_finishes_what_waits_and_accepts_nothing_more(place: Place) -> None:
    storage = await place.open()
    visit = await Visit(storage).begin()
    writes = [asyncio.create_task(visit.write("note")) for _ in range(50)]
    await asyncio.sleep(0)
    await storage.close()
    await storage.close()
    assert all(isinstance(record, AuditRecord) for record in await asyncio.gather(*writes))
    with pytest.raises(StorageClosed):
        await visit.write("note")
    with pytest.raises(StorageError):
        await storage.visits()
    async with await place.open(read_only=True) as reader:
        assert len(await records(reader)) == 52


async def test_how_quickly_we_answered_in_the_last_visits(storage: SqlStorage) -> None:
    for number, tenant in enumerate(("jardim", "jardim", "bosque", "jardim")):
        visit = await Visit(storage, tenant, START + timedelta(hours=number)).begin()
        turn = {"leg": "visitor", "text": "Oi.", "started_ms": 1.0, "ended_ms": 2.0}
        await visit.write("turn", **turn, speaker="caller")
        await visit.write("turn", **turn, speaker="agent", response_ms=100.0 + number)
        await visit.write("leg.connected", leg="resident-1", role="resident", provider="openai")
        await visit.write(
            "turn", **{**turn, "leg": "resident-1"}, speaker="agent", response_ms=200.0 + number
        )
    found = await storage.response_times("jardim", 2)
    assert sorted((one.provider or "", one.ms) for one in found) == [
        ("", 101.0),
        ("", 103.0),
        ("openai", 201.0),
        ("openai", 203.0),
    ]
    assert await storage.response_times("praia", 10) == []
