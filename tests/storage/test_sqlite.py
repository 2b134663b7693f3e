"""The store: what is on record is what is read, what cannot be is refused, and nobody edits the audit log."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from storage.base import (
    StorageClosed,
    StorageError,
    StorageRefused,
    StorageTimeout,
    StorageUnavailable,
)
from storage.sqlite import PAGE, SqliteStorage
from visits.audit import AuditRecord, Head, stamp

START = datetime(2026, 11, 21, 13, 5, tzinfo=UTC)
TENANT = "jardim"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "porteiro.db"


@pytest.fixture
async def storage(path: Path) -> AsyncIterator[SqliteStorage]:
    async with await SqliteStorage.open(path) as opened:
        yield opened


class Visit:
    """Writes the records of one visit, a second apart."""

    def __init__(self, storage: SqliteStorage, tenant: str = TENANT, start: datetime = START) -> None:
        self.storage = storage
        self.tenant = tenant
        self.id = str(uuid4())
        self._start = start
        self._clock: Iterator[int] = count()

    async def write(self, kind: str, **data: Any) -> AuditRecord:
        at = stamp(self._start + timedelta(seconds=next(self._clock)))
        return await self.storage.append(self.tenant, self.id, at, kind, data)

    async def begin(self) -> Visit:
        await self.write("visit.started", provider="local")
        await self.write(
            "leg.connected", leg="visitor", role="visitor", endpoint="audiosocket", peer="127.0.0.1"
        )
        return self

    async def decide(self, decision: str = "authorized") -> Visit:
        await self.write("decision", decision=decision, evidence=[{"by": "voice", "text": "Pode entrar"}])
        return self


async def records(storage: SqliteStorage, **filters: Any) -> list[AuditRecord]:
    return [record async for record in storage.audit(**filters)]


def direct(path: Path) -> sqlite3.Connection:
    """Somebody with the file and a SQLite shell."""
    return sqlite3.connect(path, isolation_level=None)


def content_of(path: Path) -> bytes:
    return path.read_bytes()


async def whole_visit(storage: SqliteStorage) -> Visit:
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


async def test_a_visit_is_read_as_it_was_told(storage: SqliteStorage) -> None:
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


async def test_what_was_appended_is_what_is_read_back(storage: SqliteStorage) -> None:
    visit = Visit(storage)
    written = [
        await visit.write("visit.started"),
        await visit.write("note", text="ção \u0000 \U0001f600 '\"", n=[1.5]),
    ]
    assert await records(storage) == written


async def test_visits_are_listed_by_what_is_asked(storage: SqliteStorage) -> None:
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


async def test_records_are_read_by_what_is_asked_over_many_pages(storage: SqliteStorage) -> None:
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
    path: Path, storage: SqliteStorage
) -> None:
    visit = await Visit(storage).begin()
    async with await SqliteStorage.open(path, read_only=True) as reader:
        assert len(await records(reader)) == 2
        await visit.write("note", text="while it is open")
        assert len(await records(reader)) == 3
        assert await reader.verify() == []
        with pytest.raises(StorageUnavailable, match="reading only") as caught:
            await reader.append(TENANT, visit.id, stamp(START), "note", {})
        assert caught.value.reason == "read-only"


async def test_a_closed_database_can_be_read_only(path: Path) -> None:
    async with await SqliteStorage.open(path) as storage:
        await Visit(storage).begin()
    async with await SqliteStorage.open(path, read_only=True) as reader:
        assert len(await records(reader)) == 2


async def test_only_its_owner_can_read_the_database(path: Path, storage: SqliteStorage) -> None:
    await Visit(storage).begin()
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {"porteiro.db": 0o600, "porteiro.db-wal": 0o600, "porteiro.db-shm": 0o600}


# --------------------------------------------------------------------------------------------------------
# What is refused
# --------------------------------------------------------------------------------------------------------


async def test_a_refused_record_leaves_no_trace(storage: SqliteStorage) -> None:
    visit = await Visit(storage).begin()
    before = await records(storage), await storage.visit(visit.id)
    with pytest.raises(StorageRefused):
        await visit.write("gate.requested")
    with pytest.raises(StorageRefused):
        await visit.write("turn", leg="visitor", speaker="caller", text="x", started_ms=10**400, ended_ms=0)
    with pytest.raises(StorageRefused):
        await visit.write("door.opened")
    assert (await records(storage), await storage.visit(visit.id)) == before


async def test_the_gate_is_asked_only_after_an_authorized_decision_and_once(storage: SqliteStorage) -> None:
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


async def test_of_many_gate_requests_at_once_one_gets_through(storage: SqliteStorage) -> None:
    visit = await (await Visit(storage).begin()).decide()
    answers = await asyncio.gather(
        *(visit.write("gate.requested") for _ in range(20)), return_exceptions=True
    )
    assert sum(isinstance(answer, AuditRecord) for answer in answers) == 1
    assert sum(isinstance(answer, StorageRefused) for answer in answers) == 19
    assert await storage.verify() == []


async def test_a_visit_is_decided_and_ended_once(storage: SqliteStorage) -> None:
    visit = await (await Visit(storage).begin()).decide("denied")
    with pytest.raises(StorageRefused, match="decided before"):
        await visit.decide("authorized")
    await visit.write("visit.ended", outcome="denied")
    with pytest.raises(StorageRefused):
        await visit.write("visit.ended", outcome="authorized")
    with pytest.raises(StorageRefused):
        await visit.write("visit.started")
    await visit.write("leg.ended", leg="visitor", reason="late, but true")


async def test_nothing_is_decided_after_the_end(storage: SqliteStorage) -> None:
    visit = await Visit(storage).begin()
    await visit.write("visit.ended", outcome="abandoned")
    with pytest.raises(StorageRefused, match="over"):
        await visit.decide()
    late = await (await Visit(storage).begin()).decide()
    await late.write("visit.ended", outcome="failed")
    with pytest.raises(StorageRefused, match="over"):
        await late.write("gate.requested")


async def test_nothing_is_told_of_a_visit_that_never_started_or_is_another_tenants(
    storage: SqliteStorage,
) -> None:
    with pytest.raises(StorageRefused, match="never started"):
        await Visit(storage).write("note", text="x")
    visit = await Visit(storage).begin()
    with pytest.raises(StorageRefused, match="not a visit of"):
        await storage.append("outro", visit.id, stamp(START), "note", {})


async def test_an_answer_needs_its_call_and_a_leg_ends_once(storage: SqliteStorage) -> None:
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
    storage: SqliteStorage,
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


async def test_visits_that_a_crash_left_open_are_closed_as_failed(path: Path) -> None:
    async with await SqliteStorage.open(path) as storage:
        ended = await whole_visit(storage)
        plain = await Visit(storage).begin()
        asked = await (await Visit(storage).begin()).decide()
        await asked.write("gate.requested")
        opened = await (await Visit(storage).begin()).decide()
        await opened.write("gate.requested")
        await opened.write("gate.answered", opened=True, detail="")
        other = await Visit(storage, tenant="outro").begin()
    async with await SqliteStorage.open(path) as storage:
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
        "UPDATE OR REPLACE audit SET seq = 1",
        "DELETE FROM audit",
        "DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit)",
        "INSERT OR REPLACE INTO audit SELECT tenant, seq, visit, at, 'note', '{}', previous, hash FROM audit",
        "REPLACE INTO audit SELECT tenant, 4, visit, at, kind, data, hash, hash FROM audit WHERE seq = 1",
        "INSERT INTO audit SELECT tenant, 5, visit, at, 'note', '{}', hash, hash FROM audit WHERE seq = 3",
        "INSERT INTO audit SELECT tenant, 4, visit, at, 'note', data, previous, hash FROM audit WHERE seq=3",
        "INSERT INTO audit SELECT 'new', 2, visit, at, 'note', '{}', previous, hash FROM audit WHERE seq = 1",
        "INSERT INTO audit SELECT tenant, 4, visit, at, 'note', x'00', hash, hash FROM audit WHERE seq = 3",
    ],
)
async def test_the_database_itself_refuses_edits_of_the_audit_log(
    path: Path, storage: SqliteStorage, sql: str
) -> None:
    visit = await Visit(storage).begin()
    await visit.write("note", text="third")
    before = await records(storage)
    shell = direct(path)
    with pytest.raises(sqlite3.IntegrityError):
        shell.execute(sql)
    shell.close()
    assert await records(storage) == before


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
    path: Path, storage: SqliteStorage, sql: str, fault: tuple[str, int]
) -> None:
    visit = await Visit(storage).begin()
    await visit.decide("denied")
    await visit.write("visit.ended", outcome="denied")
    shell = direct(path)
    shell.execute("DROP TRIGGER audit_is_not_changed")
    shell.execute("DROP TRIGGER audit_is_not_deleted")
    assert shell.execute(sql).rowcount == 1
    shell.close()
    faults = await storage.verify()
    assert (faults[0].kind, faults[0].seq, faults[0].tenant) == (*fault, TENANT)


async def test_a_cut_tail_is_found_with_an_anchor_even_when_the_whole_chain_is_gone(
    path: Path, storage: SqliteStorage
) -> None:
    visit = await Visit(storage).begin()
    await visit.decide("denied")
    heads = await storage.heads()
    shell = direct(path)
    shell.execute("DROP TRIGGER audit_is_not_deleted")
    shell.execute("DELETE FROM audit WHERE seq = 3")
    # What the database notes itself shows it, until somebody makes that fit as well.
    noted, row = await storage.verify()
    assert (noted.kind, noted.seq) == ("truncated", 3)
    assert (row.kind, row.place, row.visit) == ("row-added", "decisions", visit.id)
    shell.execute("DROP TRIGGER heads_go_on")
    shell.execute("UPDATE heads SET (seq, hash) = (SELECT seq, hash FROM audit WHERE seq = 2)")
    shell.execute("DELETE FROM decisions")
    assert await storage.verify() == []
    (fault,) = await storage.verify(expected_heads=heads)
    assert (fault.kind, fault.seq) == ("truncated", 3)
    shell.execute("DROP TRIGGER heads_are_not_deleted")
    for table in ("audit", "heads", "legs", "visits"):
        shell.execute(f"DELETE FROM {table}")
    shell.close()
    assert await storage.verify() == []
    (fault,) = await storage.verify(expected_heads=heads)
    assert (fault.kind, fault.seq, fault.until) == ("truncated", 1, 3)


# --------------------------------------------------------------------------------------------------------
# Opening, waiting, closing
# --------------------------------------------------------------------------------------------------------


async def test_commits_wait_for_the_disk(storage: SqliteStorage) -> None:
    def pragmas(connection: sqlite3.Connection) -> list[Any]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    assert await storage._read(pragmas) == ["wal", 2, 1]


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


async def test_closing_finishes_what_waits_and_accepts_nothing_more(path: Path) -> None:
    storage = await SqliteStorage.open(path)
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
    async with await SqliteStorage.open(path, read_only=True) as reader:
        assert len(await records(reader)) == 52


async def test_a_bug_in_the_thread_fails_whoever_waits_and_all_who_come(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    crashes: list[object] = []
    monkeypatch.setattr("threading.excepthook", crashes.append)
    monkeypatch.setattr("storage.sqlite.project", broken)
    storage = await SqliteStorage.open(path, deadline_s=0.3)
    with pytest.raises(StorageError):
        await Visit(storage).begin()
    with pytest.raises(StorageClosed):
        await Visit(storage).begin()
    assert len(crashes) == 1
