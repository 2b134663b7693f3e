"""A person can be erased, and the chain still verifies; nothing else can be taken out or put back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from storage.base import StorageRefused
from storage.sqlite import SqliteStorage
from storage.store import SqlStorage
from tests.storage.places import Edited, Place, Shell
from tests.storage.test_store import START, TENANT, Visit, records, whole_visit
from visits.audit import ErasedScope, Fault, draft, intact, stamp
from visits.personal import ERASED

AT = stamp(START.replace(year=2027))
OF_PEOPLE = ("João", "joao", "Pode entrar", "quinhentos", "spoken", "127.0.0.1")
"""What a whole visit says of people."""


async def erase(
    storage: SqlStorage, *visits: Visit, scope: ErasedScope = "visit", by: str = "operator:ana"
) -> Any:
    ids = [visit.id for visit in visits]
    return await storage.erase(
        visits[0].tenant, ids, scope=scope, kind="person.erased", by=by, at=AT, more={"reason": "asked"}
    )


async def everything(shell: Shell) -> str:
    """All that the database holds."""
    found = []
    for table in ("audit", "audit_personal", "visits", "legs", "turns", "tool_calls", "decisions"):
        found += await shell.rows(f"SELECT * FROM {table}")
    return json.dumps(found, ensure_ascii=False)


def places(faults: list[Fault]) -> list[tuple[str, int, str]]:
    return [(fault.kind, fault.seq, fault.place) for fault in faults]


async def test_the_chain_says_nothing_of_people(shell: Shell, storage: SqlStorage) -> None:
    await whole_visit(storage)
    sealed = json.dumps(await shell.rows("SELECT * FROM audit"), ensure_ascii=False)
    kept = await everything(shell)
    for words in OF_PEOPLE:
        assert words not in sealed and words in kept


async def test_an_erased_visit_is_gone_and_the_chain_is_sound(
    place: Place, shell: Shell, storage: SqlStorage
) -> None:
    visit, other = await whole_visit(storage), await whole_visit(storage)
    before = await storage.to_erase(TENANT, [visit.id], "visit")
    what = await erase(storage, visit)
    assert what == before
    assert (what.visits, what.records, what.sealed) == ((visit.id,), 7, 0)
    assert what.recordings == ("jardim/x.wav",)
    assert await storage.verify() == []
    assert await storage.recordings_to_remove(None) == ["jardim/x.wav"]
    for reader in (storage, await place.open(read_only=True)):
        view = await reader.visit(visit.id)
        assert view is not None and view.decision is not None
        # What somebody answers for stands ...
        assert (view.summary.outcome, view.summary.decision, view.summary.gate_opened) == (
            "authorized",
            "authorized",
            True,
        )
        assert view.summary.apartment == "501" and view.summary.intent == "visita"
        assert view.decision.evidence == [{"by": "voice", "text": ERASED}]
        # ... and who it was is gone.
        assert view.summary.visitor_name == ERASED
        assert [turn.text for turn in view.turns] == [ERASED]
        assert [(call.name, call.arguments, call.result) for call in view.tool_calls] == [
            ("lookup_apartment", ERASED, ERASED)
        ]
        told = await records(reader, visit=visit.id)
        assert all(map(intact, told)) and {record.personal for record in told} == {"", "erased"}
        assert not any(words in str(record) for record in told for words in OF_PEOPLE)
    await reader.close()
    left = await shell.rows("SELECT * FROM turns WHERE visit = $1", visit.id)
    assert [row["text"] for row in left] == [ERASED]
    assert [one.scope for one in await storage.erasures(visit.id)] == ["visit"]
    kept = await storage.visit(other.id)
    assert kept is not None and kept.summary.visitor_name == "João"
    (record,) = [record async for record in storage.audit(kinds=["person.erased"])]
    assert record.data == {
        "by": "operator:ana",
        "scope": "visit",
        "visits": [visit.id],
        "removed": {"records": 7, "recordings": 1},
        "reason": "asked",
    }
    # Twice is once.
    assert (await erase(storage, visit)).visits == ()
    assert len([r async for r in storage.audit(kinds=["person.erased"])]) == 1


async def test_an_erased_word_is_nowhere_on_the_disk(tmp_path: Path) -> None:
    file = tmp_path / "porteiro.db"
    async with await SqliteStorage.open(file) as storage:
        visit = await whole_visit(storage)
    assert b"quinhentos" in file.read_bytes()
    async with await SqliteStorage.open(file) as storage:
        await erase(storage, visit)
    assert not file.with_name("porteiro.db-wal").exists()
    assert not any(words.encode() in file.read_bytes() for words in OF_PEOPLE)


async def test_transcripts_go_first_and_names_later(shell: Shell, storage: SqlStorage) -> None:
    visit = await whole_visit(storage)
    await erase(storage, visit, scope="transcripts")
    view = await storage.visit(visit.id)
    assert view is not None and [turn.text for turn in view.turns] == [ERASED]
    assert view.summary.visitor_name == "João" and view.legs[0].peer == "127.0.0.1"
    assert await storage.verify() == [] and await storage.recordings_to_remove(None) == []
    await erase(storage, visit, scope="recordings")
    assert await storage.recordings_to_remove(None) == ["jardim/x.wav"]
    assert (await erase(storage, visit, scope="visit")).records == 2
    view = await storage.visit(visit.id)
    assert view is not None and view.summary.visitor_name == ERASED
    assert await storage.verify() == []
    kept = await everything(shell)
    assert not any(words in kept for words in OF_PEOPLE)
    await storage.recording_removed("jardim/x.wav")
    assert await storage.recordings_to_remove(None) == []


async def test_what_comes_after_an_erasure_is_kept_until_the_next(storage: SqlStorage) -> None:
    visit = await whole_visit(storage)
    await erase(storage, visit)
    await visit.write("note", text="Maria telefonou")
    assert await storage.verify() == []
    assert [record.data async for record in storage.audit(kinds=["note"])] == [{"text": "Maria telefonou"}]
    assert (await erase(storage, visit)).records == 1
    assert [record.data async for record in storage.audit(kinds=["note"])] == [{"text": ERASED}]
    assert await storage.verify() == []


async def test_only_ended_visits_of_the_tenant_are_erased(storage: SqlStorage) -> None:
    running, visit = await Visit(storage).begin(), await whole_visit(storage)
    other = await Visit(storage, "outro").begin()
    for wrong in (running, other):
        with pytest.raises(StorageRefused):
            await storage.erase(
                TENANT, [visit.id, wrong.id], scope="visit", kind="person.erased", by="x", at=AT
            )
    view = await storage.visit(visit.id)
    assert view is not None and view.summary.visitor_name == "João"
    assert await storage.verify() == []


async def test_a_record_of_an_older_version_keeps_what_it_sealed_and_is_counted(
    shell: Shell, storage: SqlStorage
) -> None:
    visit = await whole_visit(storage)
    head = (await storage.heads())[TENANT]
    old = draft(tenant=TENANT, visit=visit.id, at=AT, kind="note", data={"text": "Maria"}).sealed(head)
    await shell.run(
        "INSERT INTO audit (seq, tenant, visit, at, kind, data, previous, hash)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        *(old.seq, TENANT, visit.id, AT, "note", '{"text":"Maria"}', old.previous, old.hash),
    )
    assert await storage.verify() == []
    assert (await erase(storage, visit)).sealed == 1
    assert await storage.verify() == []
    assert [record.data async for record in storage.audit(kinds=["note"])] == [{"text": "Maria"}]


# --------------------------------------------------------------------------------------------------------
# Tampering
# --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE audit_personal SET data = '{}'",
        "DELETE FROM audit_personal",
        "DELETE FROM audit_personal WHERE seq = 3",
        "INSERT INTO erasures VALUES ('v', 'visit', 'jardim', 3, '2026')",
    ],
)
async def test_the_database_refuses_what_no_record_erased(
    shell: Shell, storage: SqlStorage, sql: str
) -> None:
    await whole_visit(storage)
    with pytest.raises(Edited):
        await shell.run(sql)
    assert await storage.verify() == []


@pytest.mark.parametrize("sql", ["UPDATE erasures SET seq = 99", "DELETE FROM erasures"])
async def test_the_database_keeps_what_was_erased(shell: Shell, storage: SqlStorage, sql: str) -> None:
    await erase(storage, await whole_visit(storage))
    with pytest.raises(Edited):
        await shell.run(sql)
    assert await storage.verify() == []


async def test_a_word_that_was_changed_is_named(shell: Shell, storage: SqlStorage) -> None:
    visit = await whole_visit(storage)
    await shell.drop_triggers()
    await shell.run(
        "UPDATE audit_personal SET data = replace(data, 'Pode entrar', 'Não pode') WHERE seq = $1", 10
    )
    (fault,) = await storage.verify()
    assert (fault.kind, fault.seq, fault.visit, fault.tenant) == ("personal-changed", 10, visit.id, TENANT)
    assert not intact((await records(storage, visit=visit.id))[9])


async def test_what_is_gone_without_a_record_is_named(shell: Shell, storage: SqlStorage) -> None:
    await erase(storage, await whole_visit(storage), scope="transcripts")
    await whole_visit(storage)
    await shell.drop_triggers()
    await shell.run("DELETE FROM audit_personal WHERE seq IN ($1, $2)", 2, 19)
    faults = [fault for fault in await storage.verify() if fault.kind == "personal-missing"]
    assert [fault.seq for fault in faults] == [2, 19]


async def test_what_is_back_after_its_erasure_is_named(shell: Shell, storage: SqlStorage) -> None:
    visit = await whole_visit(storage)
    (turn,) = await shell.rows("SELECT * FROM audit_personal WHERE seq = 3")
    await erase(storage, visit)
    insert = "INSERT INTO audit_personal (tenant, seq, salt, data) VALUES ($1, $2, $3, $4)"
    await shell.run(insert, turn["tenant"], 3, turn["salt"], turn["data"])
    await shell.run(insert, turn["tenant"], 4711, turn["salt"], turn["data"])
    await shell.run(insert, turn["tenant"], 8, turn["salt"], turn["data"])
    found = places(await storage.verify())
    assert ("personal-kept", 3, "") in found
    assert ("personal-added", 4711, "") in found and ("personal-added", 8, "") in found


async def test_an_erasure_that_is_not_on_record_is_named(shell: Shell, storage: SqlStorage) -> None:
    visit, other = await whole_visit(storage), await whole_visit(storage)
    await erase(storage, visit)
    await shell.drop_triggers()
    await shell.run("UPDATE erasures SET visit = $1", other.id)
    found = [(f.kind, f.place, f.visit) for f in await storage.verify() if f.place == "erasures"]
    assert sorted(found) == [("row-added", "erasures", other.id), ("row-missing", "erasures", visit.id)]
    await shell.run("DELETE FROM erasures")
    (fault,) = await storage.verify()
    assert (fault.kind, fault.place, fault.visit) == ("row-missing", "erasures", visit.id)


async def test_a_visit_whose_records_were_changed_is_not_erased(shell: Shell, storage: SqlStorage) -> None:
    visit = await whole_visit(storage)
    await shell.drop_triggers()
    await shell.run("UPDATE audit SET at = 'x' WHERE seq = 3")
    with pytest.raises(StorageRefused, match="audit verify"):
        await erase(storage, visit)
    assert await storage.recordings_to_remove(None) == []
