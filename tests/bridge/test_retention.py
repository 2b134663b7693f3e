"""What tenants have kept long enough goes, and what somebody asks to have erased; nothing else does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bridge.cli import main
from bridge.retention import (
    RetentionKeeper,
    carry_out,
    erase_visits,
    find_person,
    remove_recordings,
)
from bridge.settings import Settings, Tenant, load
from storage.base import StorageRefused
from storage.sqlite import SqliteStorage
from tests.storage.test_store import START, TENANT, Visit, whole_visit
from visits.personal import ERASED

FILE = "jardim/x.wav"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A service's settings: 30 days for recordings, 100 for transcripts, 200 for visits."""
    (tmp_path / "ap.json").write_text(
        '[{"apartment_number": "501", "residents": ["João"], "voip_number": "1"}]'
    )
    file = tmp_path / "porteiro.toml"
    file.write_text(
        f"""
[service]
data_dir = "{tmp_path}"
[tenants.{TENANT}]
directory = "{tmp_path}/ap.json"
visitor_port = 0
resident_port = 0
recording = {{ retention_days = 30 }}
retention = {{ transcripts_days = 100, visits_days = 200 }}
"""
    )
    monkeypatch.chdir(tmp_path)
    return file


@pytest.fixture
def settings(config: Path) -> Settings:
    return load(str(config))


@pytest.fixture
def tenant(settings: Settings) -> Tenant:
    return settings.tenants[TENANT]


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[SqliteStorage]:
    async with await SqliteStorage.open(tmp_path / "porteiro.db") as opened:
        yield opened


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    root = tmp_path / "recordings"
    (root / "jardim").mkdir(parents=True)
    (root / FILE).write_bytes(b"RIFF")
    return root


def after(days: float) -> datetime:
    return START + timedelta(days=days)


async def summary(storage: SqliteStorage, visit: Visit) -> tuple[str | None, str, str | None]:
    view = await storage.visit(visit.id)
    assert view is not None
    return view.summary.visitor_name, view.turns[0].text, view.summary.decision


async def test_each_thing_goes_at_its_time(storage: SqliteStorage, tenant: Tenant, recordings: Path) -> None:
    visit, running = await whole_visit(storage), await Visit(storage).begin()
    young = await Visit(storage, start=after(150)).begin()
    await young.write("visit.ended", outcome="abandoned", visitor_name="Ana")
    words = "É no quinhentos e um"
    expected = {
        29: ("João", words, True),
        31: ("João", words, False),
        101: ("João", ERASED, False),
        201: (ERASED, ERASED, False),
    }
    for days, (name, text, there) in expected.items():
        planned = await carry_out(storage, tenant, now=after(days), by="service", dry_run=True)
        found = await carry_out(storage, tenant, now=after(days), by="service")
        assert found == planned
        await remove_recordings(storage, recordings, None)
        assert await summary(storage, visit) == (name, text, "authorized")
        assert (recordings / FILE).exists() is there
        # Again there is nothing to do.
        again = await carry_out(storage, tenant, now=after(days), by="service")
        assert sum(one.visits for one in again.values()) == 0
        assert await storage.verify() == []
    view = await storage.visit(running.id)
    assert view is not None and view.legs[0].peer == "127.0.0.1"
    view = await storage.visit(young.id)
    assert view is not None and view.summary.visitor_name == "Ana"
    told = [record.data async for record in storage.audit(kinds=["retention.carried_out"])]
    assert [(one["scope"], one["visits"], one["by"]) for one in told] == [
        ("recordings", [visit.id], "service"),
        ("transcripts", [visit.id], "service"),
        ("visit", [visit.id], "service"),
    ]


async def test_nothing_goes_where_all_is_kept_for_good(storage: SqliteStorage, tenant: Tenant) -> None:
    await whole_visit(storage)
    for_good = tenant.model_copy(
        update={
            "retention": tenant.retention.model_copy(update={"transcripts_days": 0, "visits_days": 0}),
            "recording": tenant.recording.model_copy(update={"retention_days": 0}),
        }
    )
    assert await carry_out(storage, for_good, now=after(36_500), by="service") == {}


async def test_many_visits_go_in_small_transactions(storage: SqliteStorage, tenant: Tenant) -> None:
    visits = [await whole_visit(storage) for _ in range(11)]
    found = await carry_out(storage, tenant, now=after(300), by="service")
    assert {scope: one.visits for scope, one in found.items()} == {
        "visit": 11,
        "transcripts": 0,
        "recordings": 0,
    }
    told = [record.data async for record in storage.audit(kinds=["retention.carried_out"])]
    assert max(len(one["visits"]) for one in told) <= 4
    assert sorted(each for one in told for each in one["visits"]) == sorted(visit.id for visit in visits)
    assert await storage.verify() == []


# --------------------------------------------------------------------------------------------------------
# Files
# --------------------------------------------------------------------------------------------------------


async def test_a_crash_between_the_record_and_the_file_is_finished_later(
    storage: SqliteStorage, recordings: Path
) -> None:
    visit = await whole_visit(storage)
    await erase_visits(storage, TENANT, [visit.id], by="operator:ana")
    assert (recordings / FILE).exists()  # here the process died
    assert await remove_recordings(storage, recordings, None) == 1
    assert not (recordings / FILE).exists()
    await erase_visits(storage, TENANT, [visit.id], by="operator:ana")
    assert await storage.recordings_to_remove(None) == []
    assert await remove_recordings(storage, recordings, None) == 0


async def test_or_after_the_file_was_removed_and_before_that_was_noted(
    storage: SqliteStorage, recordings: Path
) -> None:
    visit = await whole_visit(storage)
    await erase_visits(storage, TENANT, [visit.id], by="operator:ana")
    (recordings / FILE).unlink()
    assert await remove_recordings(storage, recordings, None) == 1
    assert await storage.recordings_to_remove(None) == []


@pytest.mark.parametrize("name", ["../outside.wav", "/{}/outside.wav", "link/outside.wav"])
async def test_nothing_outside_the_recordings_is_removed(
    storage: SqliteStorage, recordings: Path, tmp_path: Path, name: str
) -> None:
    outside = tmp_path / "outside.wav"
    outside.write_bytes(b"mine")
    (recordings / "link").symlink_to(tmp_path)
    visit = await Visit(storage).begin()
    await visit.write("leg.ended", leg="visitor", reason="x", recording=name.format(tmp_path))
    await visit.write("visit.ended", outcome="abandoned")
    await erase_visits(storage, TENANT, [visit.id], by="operator:ana")
    assert await remove_recordings(storage, recordings, None) == 0
    assert outside.read_bytes() == b"mine"
    assert len(await storage.recordings_to_remove(None)) == 1


async def test_another_services_recordings_are_left_to_it(storage: SqliteStorage, recordings: Path) -> None:
    storage.service = "6f1c2e34-0000-4000-8000-00000000abcd"
    visit = await whole_visit(storage)
    await erase_visits(storage, TENANT, [visit.id], by="operator:ana")
    for other in (None, "6f1c2e34-0000-4000-8000-00000000abce"):
        assert await remove_recordings(storage, recordings, other) == 0
    assert (recordings / FILE).exists()
    assert await remove_recordings(storage, recordings, storage.service) == 1


# --------------------------------------------------------------------------------------------------------
# On request
# --------------------------------------------------------------------------------------------------------


async def test_a_person_is_found_by_whatever_was_said_of_them(storage: SqliteStorage) -> None:
    named, called = await whole_visit(storage), await Visit(storage).begin()
    await called.write("note", text="ligar para (11) 98765-4321")
    other = await Visit(storage, "outro").begin()
    await other.write("note", text="João 11987654321")

    async def found(**who: str) -> dict[str, tuple[str, ...]]:
        return {one.visit: one.kinds async for one in find_person(storage, TENANT, **who)}

    assert await found(name="joao") == {named.id: ("visit.ended",)}
    assert await found(name="QUINHENTOS") == {named.id: ("turn",)}
    assert await found(number="+98765 4321") == {called.id: ("note",)}
    assert await found(name="Maria") == {}
    for wrong in ({"number": "123"}, {"name": " "}, {}):
        with pytest.raises(ValueError, match="number"):
            await found(**wrong)
    await erase_visits(storage, TENANT, [named.id], by="operator:ana")
    assert await found(name="João") == {}


async def test_a_visit_that_cannot_be_erased_holds_no_other_up(storage: SqliteStorage) -> None:
    visits = [await whole_visit(storage), await Visit(storage).begin(), await whole_visit(storage)]
    found = await erase_visits(storage, TENANT, [visit.id for visit in visits], by="operator:ana")
    assert found.visits == 2 and [line[:36] for line in found.refused] == [visits[1].id]
    assert "still running" in found.refused[0]
    with pytest.raises(StorageRefused):
        await storage.erase(
            "outro", [visits[0].id], scope="visit", kind="person.erased", by="x", at=START.isoformat()
        )


# --------------------------------------------------------------------------------------------------------
# By itself, and by command
# --------------------------------------------------------------------------------------------------------


async def test_the_service_does_it_once_a_night(
    storage: SqliteStorage, settings: Settings, recordings: Path
) -> None:
    visit = await whole_visit(storage)
    noon = after(31).replace(hour=15, tzinfo=UTC)
    now = [noon]
    keeper = RetentionKeeper(storage, lambda: settings.tenants, recordings, clock=lambda: now[0])
    await keeper.look()
    assert (recordings / FILE).exists()
    now[0] = noon.replace(hour=6, minute=10)  # ten past three in São Paulo
    await keeper.look()
    assert not (recordings / FILE).exists()
    again = await whole_visit(storage)
    await keeper.look()
    assert await storage.erasures(again.id) == []
    now[0] += timedelta(days=1)
    await keeper.look()
    assert [one.scope for one in await storage.erasures(again.id)] == ["recordings"]
    assert [one.scope for one in await storage.erasures(visit.id)] == ["recordings"]


def porteiro(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(arguments)
    said = capsys.readouterr()
    return status, said.out, said.err


async def one_visit(tmp_path: Path) -> Visit:
    async with await SqliteStorage.open(tmp_path / "porteiro.db") as storage:
        return await whole_visit(storage)


@pytest.fixture
async def visit(tmp_path: Path) -> Visit:
    return await one_visit(tmp_path)


def test_the_commands_find_show_ask_and_erase(
    config: Path, visit: Visit, recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> tuple[int, Any, str]:
        return porteiro(capsys, *arguments, "--config", str(config))

    status, out, _ = run("person", "find", "--tenant", TENANT, "--name", "joão")
    assert status == 0 and visit.id in out and "visit.ended" in out
    status, out, _ = run("person", "erase", "--tenant", TENANT, "--name", "joão", "--dry-run")
    assert status == 0 and "1 visit would lose" in out and (recordings / FILE).exists()
    status, _, err = run("person", "erase", "--tenant", TENANT, "--name", "joão")
    assert status == 1 and "say --yes" in err and (recordings / FILE).exists()
    status, out, err = run("person", "erase", "--tenant", TENANT, "--visit", visit.id, "--yes", "--json")
    assert status == 0
    assert json.loads(out) == {
        "dry_run": False,
        "visits": 1,
        "records": 7,
        "recordings": 1,
        "files_removed": 1,
        "sealed": 0,
        "refused": [],
    }
    assert not (recordings / FILE).exists()
    assert run("person", "find", "--tenant", TENANT, "--name", "joão")[0] == 1
    assert run("person", "erase", "--tenant", TENANT)[0] == 2
    assert run("person", "erase", "--tenant", TENANT, "--visit", "x", "--yes")[0] == 2
    status, out, _ = porteiro(capsys, "audit", "verify")
    assert status == 0 and "Visits of which something was erased, on record: 1." in out
    status, out, _ = porteiro(capsys, "audit", "show", visit.id)
    assert status == 0 and ERASED in out and "João" not in out
    status, out, _ = porteiro(capsys, "audit", "picture", visit.id)
    assert status == 0 and ERASED in out and "João" not in out


def test_retention_by_command(
    config: Path, visit: Visit, recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(config.read_text().replace("transcripts_days = 100", "transcripts_days = 36500"))
    status, out, _ = porteiro(capsys, "retention", "run", "--dry-run", "--json", "--config", str(config))
    told = json.loads(out)["tenants"][TENANT]
    assert status == 0 and told["recordings"]["days"] == 30 and told["transcripts"]["days"] == 36500
    status, out, _ = porteiro(capsys, "retention", "run", "--config", str(config))
    assert status == 0 and TENANT in out
    assert porteiro(capsys, "retention", "run", "--tenant", "x", "--config", str(config))[0] == 2
