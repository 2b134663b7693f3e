"""A log that is verified in several processes: the same faults as in one, whichever database it is."""

from __future__ import annotations

import os

import pytest

from storage.address import Database
from storage.base import StorageUnavailable
from storage.store import SqlStorage
from storage.verifying import _spans, verify_all
from tests.storage.places import Place, PostgresPlace, Shell, SqlitePlace
from tests.storage.test_store import TENANT, whole_visit
from visits.audit import Head


def database(place: Place) -> Database:
    if isinstance(place, PostgresPlace):
        return Database(url=place.url)
    assert isinstance(place, SqlitePlace)
    return Database(file=place.path)


async def test_several_processes_find_what_one_finds(
    place: Place, shell: Shell, storage: SqlStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.verifying.WORTH_IT", 1)
    visits = [await whole_visit(storage) for _ in range(6)]
    other = (await storage.append("outro", "", "2026-11-21T13:05:00.000250+00:00", "note", {})) is not None
    assert other and await verify_all(database(place), 2) == []
    await shell.drop_triggers()
    await shell.run("UPDATE audit SET data = '{}' WHERE tenant = $1 AND seq = 3", TENANT)
    await shell.run("UPDATE turns SET text = 'x' WHERE visit = $1", visits[4].id)
    await shell.run("DELETE FROM audit WHERE tenant = 'outro'")
    gone = {"gone": Head(3, "0" * 64)}
    faults = await verify_all(database(place), 2, gone)
    assert {(fault.kind, fault.tenant, fault.place) for fault in faults} == {
        ("changed", TENANT, ""),
        ("row-changed", TENANT, "turns.text"),
        ("truncated", "outro", ""),
        ("truncated", "gone", ""),
    }
    assert sorted(map(str, faults)) == sorted(map(str, await storage.verify(expected_heads=gone)))


def die() -> None:
    os._exit(7)


async def test_a_process_that_dies_while_it_verifies_is_an_error_and_no_sound_log(
    place: Place, storage: SqlStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await whole_visit(storage)
    monkeypatch.setattr("storage.verifying.WORTH_IT", 1)
    monkeypatch.setattr("storage.verifying._alone", die)
    with pytest.raises(StorageUnavailable, match="a process that verified it was ended"):
        await verify_all(database(place), 2)


def test_chains_are_shared_out_by_their_size() -> None:
    sizes = {"a": 1, "b": 1, "c": 90, "d": 5, "e": 50, "f": 1}
    assert _spans(sizes, 3) == [("a", "c"), ("d", "e"), ("f", "f")]
    assert _spans({}, 3) == []
    assert _spans({"": 1}, 3) == [("", "")]


async def test_pages_of_any_size_find_the_same(
    shell: Shell, storage: SqlStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        await whole_visit(storage)
    await storage.append("outro", "", "2026-11-21T13:05:00.000250+00:00", "note", {"about": "x", "text": "y"})
    await shell.drop_triggers()
    (word,) = await shell.rows("SELECT * FROM audit_personal WHERE tenant = 'outro'")
    for tenant, seq in ((TENANT, 1), (TENANT, 4711), ("jardinz", 1), ("outro", 2)):
        await shell.run(
            "INSERT INTO audit_personal (tenant, seq, salt, data) VALUES ($1, $2, $3, $4)",
            tenant,
            seq,
            word["salt"],
            word["data"],
        )
    await shell.run("DELETE FROM audit WHERE tenant = $1 AND seq = 3", TENANT)
    faults = await storage.verify()
    added = [(fault.tenant, fault.seq) for fault in faults if fault.kind == "personal-added"]
    assert sorted(added) == [(TENANT, 1), (TENANT, 3), (TENANT, 4711), ("jardinz", 1), ("outro", 2)]
    for page in (1, 3):
        monkeypatch.setattr("storage.store.PAGE", page)
        assert await storage.verify() == faults
