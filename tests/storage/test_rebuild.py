"""What is read in place of the records is what the records say; and a log that lost its end shows it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.projection import project
from storage.rebuild import KEYS, Rebuild
from storage.schema import connect, migrations
from storage.sqlite import SqliteStorage
from tests.storage.test_sqlite import TENANT, Visit, direct, whole_visit
from visits.audit import AuditRecord, Fault, Head, canonical, decode, draft, seal, stamp

NOW = stamp(datetime(2026, 11, 21, 20, tzinfo=UTC))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "porteiro.db"


@pytest.fixture
async def storage(path: Path) -> AsyncIterator[SqliteStorage]:
    async with await SqliteStorage.open(path, deadline_s=30) as opened:
        yield opened


def other(value: Any) -> Any:
    """A value that a column of this one's type can hold, and that is not it."""
    if value is None:
        return 1
    return value + 1 if isinstance(value, int | float) else f"{value}x"


async def test_every_column_of_every_row_is_compared(path: Path, storage: SqliteStorage) -> None:
    visit = await whole_visit(storage)
    await Visit(storage, "outro").begin()
    assert await storage.verify() == []
    shell = direct(path)
    shell.execute("PRAGMA ignore_check_constraints = ON")  # a decision of a third sort
    changed = 0
    for table, key in KEYS.items():
        found = shell.execute(f"SELECT * FROM {table} WHERE {key[0]} = ?", (visit.id,))
        columns = [column[0] for column in found.description]
        for row in found.fetchall():
            values = dict(zip(columns, row, strict=True))
            where = " AND ".join(f"{name} = :{name}" for name in key)
            for column in set(columns) - set(key):
                change = f"UPDATE {table} SET {column} = :new WHERE {where}"
                assert shell.execute(change, {**values, "new": other(values[column])}).rowcount == 1
                faults = await storage.verify()
                assert [(f.kind, f.place, f.visit) for f in faults] == [
                    ("row-changed", f"{table}.{column}", visit.id)
                ]
                assert faults[0].tenant == TENANT
                assert repr(other(values[column])) in faults[0].detail
                shell.execute(change, {**values, "new": values[column]})
                changed += 1
    shell.close()
    assert changed > 40
    assert await storage.verify() == []


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
@settings(max_examples=60, deadline=None)
def test_whatever_a_model_says_in_whichever_order_is_no_fault(value: Any) -> None:
    """Only a real visit showed it: a record's keys are sorted, a row's are as they came."""
    data = {"leg": "visitor", "call": "c", "name": "n", "arguments": {"z": value, "a": value}}
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for script in migrations():
        connection.executescript(script)
    rebuild = Rebuild(migrations())
    visit, records = str(uuid4()), list[AuditRecord]()
    for kind, about in (("visit.started", {}), ("tool.called", data)):
        made = draft(tenant=TENANT, visit=visit, at=NOW, kind=kind, data=about)
        sealed = made.sealed(records[-1] if records else None)
        project(connection, made, sealed.seq)
        records.append(replace(sealed, data=decode(made.text)))
    assert rebuild.compare(connection, visit, records) == []
    connection.execute("UPDATE tool_calls SET arguments = json_set(arguments, '$.a', 'changed')")
    assert [fault.place for fault in rebuild.compare(connection, visit, records)] == ["tool_calls.arguments"]
    rebuild.close()
    connection.close()


@pytest.mark.parametrize(
    ("sql", "kind", "place"),
    [
        ("DELETE FROM turns", "row-missing", "turns"),
        ("DELETE FROM decisions", "row-missing", "decisions"),
        ("UPDATE legs SET leg = 'other' WHERE role = 'resident'", "row-missing", "legs"),
        (
            "INSERT INTO turns SELECT visit, 99, leg, speaker, 'Pode', 1, 2, 3, 0, 0 FROM turns",
            "row-added",
            "turns",
        ),
        (
            "INSERT INTO visits (id, tenant, started_at) VALUES ('6f1c', 'jardim', '2026')",
            "row-added",
            "visits",
        ),
    ],
)
async def test_a_row_that_is_gone_or_one_too_many_is_found(
    path: Path, storage: SqliteStorage, sql: str, kind: str, place: str
) -> None:
    await whole_visit(storage)
    shell = direct(path)
    assert shell.execute(sql).rowcount == 1
    shell.close()
    faults = await storage.verify()
    assert (kind, place) in [(fault.kind, fault.place) for fault in faults]
    assert {fault.tenant for fault in faults} == {TENANT}
    assert await storage.verify(TENANT) == faults
    assert await storage.verify("outro") == []


async def test_a_changed_record_is_named_once_and_not_again_for_each_row(
    path: Path, storage: SqliteStorage
) -> None:
    await whole_visit(storage)
    shell = direct(path)
    shell.execute("DROP TRIGGER audit_is_not_changed")
    shell.execute("UPDATE audit SET data = replace(data, 'João', 'Ana') WHERE kind = 'visit.ended'")
    shell.close()
    assert [fault.kind for fault in await storage.verify()] == ["changed"]


# --------------------------------------------------------------------------------------------------------
# The end of a chain
# --------------------------------------------------------------------------------------------------------


def unlocked(path: Path) -> sqlite3.Connection:
    """Somebody who takes every guard away first."""
    shell = direct(path)
    for (name,) in shell.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
        shell.execute(f"DROP TRIGGER {name}")
    return shell


def forget(shell: sqlite3.Connection, tenant: str) -> None:
    """Take a tenant away, with all that the tables know of it."""
    visits = f"(SELECT id FROM visits WHERE tenant = '{tenant}')"
    for table in ("legs", "turns", "tool_calls", "decisions"):
        shell.execute(f"DELETE FROM {table} WHERE visit IN {visits}")
    for table in ("visits", "audit", "heads"):
        shell.execute(f"DELETE FROM {table} WHERE tenant = '{tenant}'")


async def test_a_tenant_that_is_gone_shows_in_the_services_own_chain(
    path: Path, storage: SqliteStorage
) -> None:
    await whole_visit(storage)
    await Visit(storage, "outro").begin()
    heads = {tenant: str(head) for tenant, head in (await storage.heads()).items()}
    await storage.append("", "", NOW, "service.stopped", {"heads": heads})
    shell = unlocked(path)
    forget(shell, TENANT)
    (fault,) = await storage.verify()
    assert (fault.kind, fault.tenant, fault.seq, fault.until) == ("truncated", TENANT, 1, 15)
    assert await storage.verify("outro") == []
    # Whoever rewrites that chain too is found by nothing within: only a head that is kept elsewhere.
    forget(shell, "")
    shell.close()
    assert await storage.verify() == []
    (fault,) = await storage.verify(expected_heads={TENANT: Head.parse(heads[TENANT])})
    assert (fault.kind, fault.tenant) == ("truncated", TENANT)


@pytest.mark.parametrize(
    ("sql", "seqs"), [("DELETE FROM heads", (1, 15)), ("UPDATE heads SET seq = 9", (10, 15))]
)
async def test_a_note_that_is_gone_or_set_back_is_found(
    path: Path, storage: SqliteStorage, sql: str, seqs: tuple[int, int]
) -> None:
    await whole_visit(storage)
    shell = unlocked(path)
    shell.execute(sql)
    shell.close()
    faults = [fault for fault in await storage.verify() if fault.kind == "forged"]
    assert [(fault.seq, fault.until) for fault in faults] == [seqs]


@pytest.mark.parametrize(
    "sql", ["DELETE FROM heads", "UPDATE heads SET seq = 9", "UPDATE heads SET tenant = 'x'"]
)
async def test_the_database_refuses_edits_of_the_notes(path: Path, storage: SqliteStorage, sql: str) -> None:
    await whole_visit(storage)
    shell = direct(path)
    with pytest.raises(sqlite3.IntegrityError):
        shell.execute(sql)
    shell.close()
    assert await storage.verify() == []


def put(shell: sqlite3.Connection, record: AuditRecord) -> None:
    """Write a record past the service."""
    shell.execute(
        "INSERT INTO audit (tenant, seq, visit, at, kind, data, previous, hash) VALUES (?,?,?,?,?,?,?,?)",
        (
            record.tenant,
            record.seq,
            record.visit,
            record.at,
            record.kind,
            canonical(record.data),
            record.previous,
            record.hash,
        ),
    )


def rewritten(path: Path, drafts: list[tuple[str, dict[str, Any]]]) -> list[AuditRecord]:
    """A whole chain put in place by somebody who knows how it is made."""
    shell = unlocked(path)
    forget(shell, TENANT)
    visit, records = str(uuid4()), list[AuditRecord]()
    for kind, data in drafts:
        scope = "" if kind.startswith("service") else visit
        tenant = TENANT if scope else ""
        made = seal(
            records[-1] if records else None, tenant=tenant, visit=scope, at=NOW, kind=kind, data=data
        )
        records.append(made)
        put(shell, made)
    last = records[-1]
    shell.execute("INSERT INTO heads VALUES (?, ?, ?)", (last.tenant, last.seq, last.hash))
    shell.close()
    return records


async def test_a_sound_chain_that_tells_what_cannot_be_is_found(path: Path, storage: SqliteStorage) -> None:
    rewritten(path, [("visit.started", {}), ("gate.requested", {})])
    (fault,) = await storage.verify()
    assert (fault.kind, fault.seq, fault.tenant) == ("impossible", 2, TENANT)
    assert "no authorized decision" in fault.detail


async def test_a_note_in_the_services_chain_that_is_no_head_is_found(
    path: Path, storage: SqliteStorage
) -> None:
    rewritten(path, [("service.started", {"heads": {TENANT: "yesterday"}})])
    (fault,) = await storage.verify()
    assert (fault.kind, fault.seq, fault.tenant) == ("impossible", 1, "")


async def test_all_the_heads_that_were_noted_are_held_against_the_chain(
    path: Path, storage: SqliteStorage
) -> None:
    """A chain that was written anew fits what was noted after that; what was noted before tells."""
    visit = await Visit(storage).begin()
    early = (await storage.heads())[TENANT]
    await visit.write("note", text="x")
    late = (await storage.heads())[TENANT]
    assert await storage.verify(expected_heads={TENANT: [early, late]}) == []
    wrong = Head(early.seq, "0" * 64)
    (fault,) = await storage.verify(expected_heads={TENANT: [wrong, late]})
    assert (fault.kind, fault.seq) == ("rewritten", 2)


# --------------------------------------------------------------------------------------------------------
# Beside a running service
# --------------------------------------------------------------------------------------------------------


async def test_a_comparison_that_is_given_up_goes_on_alone_to_its_end(storage: SqliteStorage) -> None:
    """The thread may be in the midst of it: what it works with must not be taken from it."""
    for _ in range(8):
        await whole_visit(storage)
    for step in range(60):
        given_up = asyncio.create_task(storage.verify())
        await asyncio.sleep(step / 5000)
        given_up.cancel()
        await asyncio.wait({given_up})
    assert await storage.verify() == []


async def test_a_log_that_grows_meanwhile_has_no_faults(path: Path, storage: SqliteStorage) -> None:
    async with await SqliteStorage.open(path, read_only=True, deadline_s=30) as reader:
        found: list[Fault] = []
        looks = 0

        async def look() -> None:
            nonlocal looks
            while True:
                found.extend(await reader.verify())
                looks += 1

        looking = asyncio.create_task(look())
        written = 0
        while looks < 5 and written < 100:
            await whole_visit(storage)
            written += 1
        looking.cancel()
        await asyncio.wait({looking})
    assert looks >= 2
    assert found == []


def test_a_database_of_the_first_version_gets_its_heads(path: Path) -> None:
    first, *later = migrations()
    old = connect(path, read_only=False, busy_s=5, scripts=[first])
    for tenant, seqs in (("a", 3), ("b", 1)):
        before: AuditRecord | None = None
        for _ in range(seqs):
            before = seal(before, tenant=tenant, visit="", at=NOW, kind="note", data={})
            put(old, before)
    old.close()
    new = connect(path, read_only=False, busy_s=5, scripts=[first, *later])
    assert new.execute("SELECT tenant, seq FROM heads").fetchall() == [("a", 3), ("b", 1)]
    new.close()
