"""What is read in place of the records is what the records say; and a log that lost its end shows it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.projection import TABLES, VisitRows
from storage.rebuild import compare
from storage.schema import connect
from storage.store import SqlStorage
from storage.versions import scripts
from tests.storage.places import Edited, Place, Shell, SqlitePlace
from tests.storage.test_store import TENANT, Visit, whole_visit
from visits.audit import AuditRecord, Fault, Head, StoredRecord, canonical, digest, draft, seal, stamp

NOW = stamp(datetime(2026, 11, 21, 20, tzinfo=UTC))


NUMBERS = ("response_ms", "heard_ms", "ms", "gate_opened", "cost", "cost_usd", "cost_complete")
"""Columns that hold numbers and may be NULL."""


COMPUTED = {"visitor_words", "resident_words"}
"""Columns that the database computes from others: nobody can change them."""


def other(column: str, value: Any) -> Any:
    """A value that a column of this one's type can hold, and that is not it."""
    if value is None:
        return 1 if column in NUMBERS else "1"
    return value + 1 if isinstance(value, int | float) else f"{value}x"


async def test_every_column_of_every_row_is_compared(shell: Shell, storage: SqlStorage) -> None:
    visit = await whole_visit(storage)
    await Visit(storage, "outro").begin()
    assert await storage.verify() == []
    await shell.drop_triggers()
    changed = 0
    for table, told in TABLES.items():
        key = told.key
        for row in await shell.rows(f"SELECT * FROM {table} WHERE {key[0]} = $1", visit.id):
            row = {name: value for name, value in row.items() if name not in COMPUTED}
            assert set(row) == set(told.columns)
            keys = tuple(row[name] for name in key)
            where = " AND ".join(f"{name} = ${n}" for n, name in enumerate(key, 2))
            for column in sorted(set(row) - set(key)):
                change = f"UPDATE {table} SET {column} = $1 WHERE {where}"
                new = other(column, row[column])
                assert await shell.run(change, new, *keys) == 1
                faults = await storage.verify()
                assert [(f.kind, f.place, f.visit) for f in faults] == [
                    ("row-changed", f"{table}.{column}", visit.id)
                ]
                assert faults[0].tenant == TENANT
                assert repr(new) in faults[0].detail
                assert await shell.run(change, row[column], *keys) == 1
                changed += 1
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
    visit, told, records = str(uuid4()), VisitRows(), list[StoredRecord]()
    previous: AuditRecord | None = None
    for kind, about in (("visit.started", {}), ("tool.called", data)):
        made = draft(tenant=TENANT, visit=visit, at=NOW, kind=kind, data=about)
        previous = made.sealed(previous)
        told.apply(made, previous.seq)
        records.append(stored(previous))
    assert compare(visit, records, told.tables) == []
    (call,) = told.tables["tool_calls"].values()
    call["arguments"] = canonical({**json.loads(call["arguments"]), "a": "changed"})
    expected = [] if value == "changed" else ["tool_calls.arguments"]
    assert [fault.place for fault in compare(visit, records, told.tables)] == expected


@pytest.mark.parametrize(
    ("sql", "kind", "which"),
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
    shell: Shell, storage: SqlStorage, sql: str, kind: str, which: str
) -> None:
    await whole_visit(storage)
    await shell.drop_triggers()
    assert await shell.run(sql) == 1
    faults = await storage.verify()
    assert (kind, which) in [(fault.kind, fault.place) for fault in faults]
    assert {fault.tenant for fault in faults} == {TENANT}
    assert await storage.verify(TENANT) == faults
    assert await storage.verify("outro") == []


async def test_a_changed_record_is_named_once_and_not_again_for_each_row(
    shell: Shell, storage: SqlStorage
) -> None:
    await whole_visit(storage)
    await shell.drop_triggers()
    await shell.run("UPDATE audit SET data = replace(data, 'opened', 'refused') WHERE kind = 'visit.ended'")
    assert [fault.kind for fault in await storage.verify()] == ["changed"]


# --------------------------------------------------------------------------------------------------------
# The end of a chain
# --------------------------------------------------------------------------------------------------------


async def forget(shell: Shell, tenant: str) -> None:
    """Take a tenant away, with all that the tables know of it."""
    visits = f"(SELECT id FROM visits WHERE tenant = '{tenant}')"
    for table in ("legs", "turns", "tool_calls", "decisions"):
        await shell.run(f"DELETE FROM {table} WHERE visit IN {visits}")
    for table in ("visits", "audit", "audit_personal", "heads"):
        await shell.run(f"DELETE FROM {table} WHERE tenant = '{tenant}'")


async def test_a_tenant_that_is_gone_shows_in_the_services_own_chain(
    shell: Shell, storage: SqlStorage
) -> None:
    await whole_visit(storage)
    await Visit(storage, "outro").begin()
    heads = {tenant: str(head) for tenant, head in (await storage.heads()).items()}
    await storage.append("", "", NOW, "service.stopped", {"heads": heads})
    await shell.drop_triggers()
    await forget(shell, TENANT)
    (fault,) = await storage.verify()
    assert (fault.kind, fault.tenant, fault.seq, fault.until) == ("truncated", TENANT, 1, 15)
    assert await storage.verify("outro") == []
    # Whoever rewrites that chain too is found by nothing within: only a head that is kept elsewhere.
    await forget(shell, "")
    assert await storage.verify() == []
    (fault,) = await storage.verify(expected_heads={TENANT: Head.parse(heads[TENANT])})
    assert (fault.kind, fault.tenant) == ("truncated", TENANT)


@pytest.mark.parametrize(
    ("sql", "seqs"), [("DELETE FROM heads", (1, 15)), ("UPDATE heads SET seq = 9", (10, 15))]
)
async def test_a_note_that_is_gone_or_set_back_is_found(
    shell: Shell, storage: SqlStorage, sql: str, seqs: tuple[int, int]
) -> None:
    await whole_visit(storage)
    await shell.drop_triggers()
    await shell.run(sql)
    faults = [fault for fault in await storage.verify() if fault.kind == "forged"]
    assert [(fault.seq, fault.until) for fault in faults] == [seqs]


@pytest.mark.parametrize(
    "sql", ["DELETE FROM heads", "UPDATE heads SET seq = 9", "UPDATE heads SET tenant = 'x'"]
)
async def test_the_database_refuses_edits_of_the_notes(shell: Shell, storage: SqlStorage, sql: str) -> None:
    await whole_visit(storage)
    with pytest.raises(Edited):
        await shell.run(sql)
    assert await storage.verify() == []


async def put(shell: Shell, record: AuditRecord) -> None:
    """Write a record past the service."""
    kept = stored(record)
    places = ", ".join(f"${n}" for n in range(1, 9))
    columns = "seq, tenant, visit, at, kind, data, previous, hash"
    await shell.run(f"INSERT INTO audit ({columns}) VALUES ({places})", *kept[:8])


def stored(record: AuditRecord) -> StoredRecord:
    r = record
    text = canonical(r.data)
    return StoredRecord(r.seq, r.tenant, r.visit, r.at, r.kind, text, r.previous, r.hash)


async def rewritten(shell: Shell, drafts: list[tuple[str, dict[str, Any]]]) -> list[AuditRecord]:
    """A whole chain put in place by somebody who knows how it is made."""
    await shell.drop_triggers()
    await forget(shell, TENANT)
    visit, records = str(uuid4()), list[AuditRecord]()
    for kind, data in drafts:
        scope = "" if kind.startswith("service") else visit
        tenant = TENANT if scope else ""
        made = seal(
            records[-1] if records else None, tenant=tenant, visit=scope, at=NOW, kind=kind, data=data
        )
        records.append(made)
        await put(shell, made)
    last = records[-1]
    await shell.run("INSERT INTO heads VALUES ($1, $2, $3)", last.tenant, last.seq, last.hash)
    return records


async def test_a_sound_chain_that_tells_what_cannot_be_is_found(shell: Shell, storage: SqlStorage) -> None:
    await rewritten(shell, [("visit.started", {}), ("gate.requested", {})])
    (fault,) = await storage.verify()
    assert (fault.kind, fault.seq, fault.tenant) == ("impossible", 2, TENANT)
    assert "no authorized decision" in fault.detail


async def test_a_sound_chain_with_a_number_where_a_text_must_be_is_found(
    shell: Shell, storage: SqlStorage
) -> None:
    legs = [("leg.connected", {"leg": name, "role": "visitor"}) for name in ("a", "b")]
    *_, last = await rewritten(shell, [("visit.started", {}), *legs])
    forged = replace(last, data={**last.data, "leg": 5})
    forged = replace(forged, hash=digest(forged))
    await shell.run("DELETE FROM audit WHERE seq = 3")
    await put(shell, forged)
    await shell.run("UPDATE heads SET hash = $1", forged.hash)
    legs_of = [fault for fault in await storage.verify() if fault.place.startswith("legs")]
    assert ("row-missing", "row (5): the records give it, it is gone") in [
        (fault.kind, fault.detail) for fault in legs_of
    ]


async def test_a_note_in_the_services_chain_that_is_no_head_is_found(
    shell: Shell, storage: SqlStorage
) -> None:
    await rewritten(shell, [("service.started", {"heads": {TENANT: "yesterday"}})])
    (fault,) = await storage.verify()
    assert (fault.kind, fault.seq, fault.tenant) == ("impossible", 1, "")


async def test_all_the_heads_that_were_noted_are_held_against_the_chain(
    storage: SqlStorage,
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


async def test_a_comparison_that_is_given_up_goes_on_alone_to_its_end(storage: SqlStorage) -> None:
    """The thread may be in the midst of it: what it works with must not be taken from it."""
    for _ in range(8):
        await whole_visit(storage)
    for step in range(60):
        given_up = asyncio.create_task(storage.verify())
        await asyncio.sleep(step / 5000)
        given_up.cancel()
        await asyncio.wait({given_up})
    assert await storage.verify() == []


async def test_a_log_that_grows_meanwhile_has_no_faults(place: Place, storage: SqlStorage) -> None:
    async with await place.open(read_only=True) as reader:
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


async def test_a_database_of_the_first_version_gets_its_heads(tmp_path: Path) -> None:
    place = SqlitePlace(tmp_path / "porteiro.db")
    first, *later = scripts("sqlite")
    connect(place.path, read_only=False, busy_s=5, scripts=[first]).close()
    shell = await place.shell()
    for tenant, seqs in (("a", 3), ("b", 1)):
        before: AuditRecord | None = None
        for _ in range(seqs):
            before = seal(before, tenant=tenant, visit="", at=NOW, kind="note", data={})
            await put(shell, before)
    connect(place.path, read_only=False, busy_s=5, scripts=[first, *later]).close()
    assert [(row["tenant"], row["seq"]) for row in await shell.rows("SELECT * FROM heads")] == [
        ("a", 3),
        ("b", 1),
    ]
    await shell.close()
