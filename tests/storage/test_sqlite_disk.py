"""A disk that is full or cannot be written: an error with a name, nothing half written, and it goes on."""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from storage.base import StorageUnavailable
from storage.sqlite import SqliteStorage

AT = "2026-11-21T13:05:00.000250+00:00"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True, timeout=10, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("this user may not mount a file system")
    yield place
    subprocess.run(["umount", str(place)], check=True, timeout=10)


@pytest.fixture
def frozen_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory that :func:`freeze` can make a read-only file system."""
    place = tmp_path / "frozen"
    place.mkdir()
    bind = ["mount", "--bind", str(place), str(place)]
    try:
        mounted = subprocess.run(bind, capture_output=True, timeout=10, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("this user may not mount a file system")
    yield place
    subprocess.run(["umount", str(place)], check=True, timeout=10)


def freeze(place: Path) -> None:
    subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True, timeout=10)


async def begun(storage: SqliteStorage) -> str:
    visit = str(uuid4())
    await storage.append("t", visit, AT, "visit.started", {})
    await storage.append("t", visit, AT, "decision", {"decision": "authorized", "evidence": []})
    return visit


async def fill(storage: SqliteStorage, visit: str) -> tuple[int, StorageUnavailable]:
    """Append until it fails: how many were stored, and the error."""
    for number in range(2000):
        try:
            await storage.append("t", visit, AT, "note", {"text": "x" * 4000})
        except StorageUnavailable as error:
            return number, error
    raise AssertionError("the disk never filled up")


@pytest.mark.platform
async def test_on_a_full_disk_no_gate_can_be_requested_and_all_goes_on_when_there_is_room(
    small_disk: Path,
) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(300_000))
    async with await SqliteStorage.open(small_disk / "x.db") as storage:
        visit = await begun(storage)
        notes, error = await fill(storage, visit)
        assert error.reason == "full"
        with pytest.raises(StorageUnavailable, match="full"):
            await storage.append("t", visit, AT, "note", {"text": "x" * 9000})
        kept = [record async for record in storage.audit()]
        assert await storage.verify() == []
        view = await storage.visit(visit)
        assert view is not None and view.summary.gate_requested_at is None
        ballast.unlink()
        record = await storage.append("t", visit, AT, "gate.requested", {})
        assert record.seq == len(kept) + 1 >= notes + 3
        assert await storage.verify() == []
    async with await SqliteStorage.open(small_disk / "x.db", read_only=True) as reader:
        assert len([record async for record in reader.audit()]) == len(kept) + 1
        assert await reader.verify() == []


@pytest.mark.platform
async def test_on_a_disk_that_was_full_from_the_start_the_error_says_so(small_disk: Path) -> None:
    free = shutil.disk_usage(small_disk).free
    (small_disk / "ballast").write_bytes(bytes(free))
    with pytest.raises(StorageUnavailable) as caught:
        await SqliteStorage.open(small_disk / "x.db")
    assert caught.value.reason == "full"


@pytest.mark.platform
async def test_a_read_only_disk_is_named_and_can_be_read(frozen_disk: Path) -> None:
    path = frozen_disk / "x.db"
    async with await SqliteStorage.open(path) as storage:
        await begun(storage)
    freeze(frozen_disk)
    with pytest.raises(StorageUnavailable) as caught:
        await SqliteStorage.open(path)
    assert caught.value.reason == "read-only"
    async with await SqliteStorage.open(path, read_only=True) as reader:
        assert await reader.verify() == []
        assert len([record async for record in reader.audit()]) == 2


async def test_a_file_that_may_not_grow_stops_the_writes_and_keeps_what_is_there(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with await SqliteStorage.open(tmp_path / "x.db") as storage:
        visit = await begun(storage)
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
        try:
            notes, error = await fill(storage, visit)
            assert error.reason in ("io", "full")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert (await storage.append("t", visit, AT, "gate.requested", {})).seq == notes + 3
        assert await storage.verify() == []
