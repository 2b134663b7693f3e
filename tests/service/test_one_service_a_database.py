"""Two services on one database: the second does not start, and the first one's visits stay what they are."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from storage.base import StorageUnavailable
from storage.lock import DatabaseLock, in_use, lock_file
from storage.sqlite import SqliteStorage
from visits.audit import stamp

ROOT = Path(__file__).parents[2]
CONFIG = f"""
[service]
listen = ["127.0.0.1"]
visitor_port = 0
resident_port = 0
http_listen = []
log = {{ format = "json" }}

[tenants.jardim]
directory = "{ROOT / "data" / "apartamentos.json"}"
provider = "openai"
base_url = "http://127.0.0.1:9"
"""


def porteiro(place: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bridge.cli", *words],
        cwd=place,
        env={**os.environ, "OPENAI_API_KEY": "a-secret-key", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def serving(place: Path) -> Iterator[tuple[subprocess.Popen[str], list[dict[str, object]]]]:
    """A service that is ready, and the lines that it logged until then."""
    lines: list[dict[str, object]] = []
    with porteiro(place, "serve") as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                lines.append(json.loads(line))
                if lines[-1]["event"] == "service.ready":
                    break
            else:
                raise AssertionError(f"it did not start: {lines}")
            yield process, lines
        finally:
            process.kill()


async def test_a_second_service_does_not_start_and_the_first_ones_visits_stay_open(tmp_path: Path) -> None:
    (tmp_path / "porteiro.toml").write_text(CONFIG)
    database = tmp_path / "var" / "porteiro.db"
    visit = str(uuid4())
    with serving(tmp_path) as (first, _):
        async with await SqliteStorage.open(database) as storage:  # a visit, as the running service writes it
            await storage.append("jardim", visit, stamp(datetime.now(UTC)), "visit.started", {})
        second = porteiro(tmp_path, "serve")
        _, said = second.communicate(timeout=60)
        assert second.returncode == 1
        assert f"porteiro can't start: {database} is in use: another porteiro, process {first.pid}," in said
        reading = porteiro(tmp_path, "audit", "list", "--json")
        listed, _ = reading.communicate(timeout=60)
        assert reading.returncode == 0
        (found,) = json.loads(listed)
        assert (found["id"], found["outcome"]) == (visit, None)
        assert in_use(database) == f"process {first.pid}"
        first.send_signal(signal.SIGKILL)
        first.wait(10)
    assert in_use(database) is None
    with serving(tmp_path) as (_, lines):  # the lock went with the process; its visit is a crash's now
        recovered = [line["visits"] for line in lines if line["event"] == "visits.recovered"]
        assert recovered == [[visit]]
        async with await SqliteStorage.open(database, read_only=True) as storage:
            # Each start notes how far the tenants' chains went, in the service's own chain.
            noted = [record.data["heads"] async for record in storage.audit(kinds=["service.started"])]
            first_noted, second_noted = noted
            assert first_noted["jardim"].startswith("1:")  # which settings it began with
            assert second_noted == {"jardim": str((await storage.heads())["jardim"])}


def test_a_lock_is_one_databases_whatever_it_is_called(tmp_path: Path) -> None:
    database = tmp_path / "porteiro.db"
    alias = tmp_path / "alias.db"
    alias.symlink_to(database)
    lock = DatabaseLock.take(database)
    with pytest.raises(StorageUnavailable, match=f"process {os.getpid()},") as caught:
        DatabaseLock.take(alias, patience_s=0)
    assert caught.value.reason == "in-use"
    DatabaseLock.take(tmp_path / "other.db", patience_s=0).release()
    lock.release()
    lock.release()
    DatabaseLock.take(alias, patience_s=0).release()


def test_a_service_that_just_goes_is_waited_for(tmp_path: Path) -> None:
    database = tmp_path / "porteiro.db"
    holder = DatabaseLock.take(database)
    child = os.fork()
    if child == 0:  # inherits the lock, and lets go of it with its end
        time.sleep(0.3)
        os._exit(0)
    holder.release()
    DatabaseLock.take(database, patience_s=30).release()
    os.waitpid(child, 0)


def test_a_place_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageUnavailable, match=r"file/porteiro\.db\.lock"):
        DatabaseLock.take(tmp_path / "file" / "porteiro.db")
    assert in_use(tmp_path / "porteiro.db") is None
    assert not lock_file(tmp_path / "porteiro.db").exists()
