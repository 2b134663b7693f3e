"""A service that is killed at any instant loses no record that it was told is kept, and opens nothing twice.

A writer process plays visits with the real store as a host does: nothing happens before its record is
durable. What it was told, and each opening of the gate, it says at once by a pipe. It is killed at random
instants, and the next one begins as a service does: it closes what is open, and takes nothing of it up again.
"""

from __future__ import annotations

import asyncio
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from storage.journalled import JournalledStorage
from storage.store import SqlStorage
from tests.postgres import Postgres
from tests.storage.places import Place, PostgresPlace, SqlitePlace
from tests.storage.test_store import records

ROOT = Path(__file__).parents[2]
KILLS = 100
"""On each database."""
WITHOUT = 30
"""While the database is away."""

WRITER = """
# Told a number on its standard input it forks; the child plays visits until it is killed, or so many in each
# of its tasks. With "alone" it is the only one that writes. Its parent waits for its end.
import asyncio, logging, os, sys
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import structlog

from storage.address import Database
from storage.base import StorageRefused, StorageUnavailable
from storage.opening import open_storage
from visits.audit import stamp

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
where, journal = sys.argv[1:]
now = lambda: stamp(datetime.now(UTC))

def say(text):
    os.write(1, (text + "\\n").encode())

async def told(storage, tenant, visit, kind, data):
    await storage.append(tenant, visit, now(), kind, data)
    say(f"kept {visit} {kind} {data.get('text', '')}")

async def gate(storage, tenant, visit):
    await told(storage, tenant, visit, "gate.requested", {})
    say(f"opened {visit}")
    await told(storage, tenant, visit, "gate.answered", {"opened": True, "detail": ""})

async def visits(storage, tenant, limit):
    while limit:
        limit -= 1
        visit = str(uuid4())
        await told(storage, tenant, visit, "visit.started", {})
        for n in range(3):
            await told(storage, tenant, visit, "note", {"text": f"{n}" + "x" * 300})
        await told(storage, tenant, visit, "decision", {"decision": "authorized", "evidence": []})
        await gate(storage, tenant, visit)
        await told(storage, tenant, visit, "visit.ended", {"outcome": "authorized"})

async def tidy_up(storage):
    try:
        mine = (storage.service,) if storage.service else None
        for visit in await storage.recover(now(), services=mine):
            try:  # what was open is nobody's any more: its gate least of all
                await gate(storage, "t0", visit)
            except StorageRefused:
                pass
    except StorageUnavailable:
        assert storage.warnings

async def main(limit, alone):
    database = Database(url=where) if journal else Database(file=Path(where))
    directory = Path(journal) if journal else None
    async with await open_storage(database, service=directory, deadline_s=30) as storage:
        if alone:
            await tidy_up(storage)
        say("ready")
        await asyncio.gather(*(visits(storage, f"t{n % 2}", limit) for n in range(6)))

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        asyncio.run(main(int(line.split()[0]), "alone" in line))
        os._exit(0)
    say(f"child {child}")
    _, status = os.waitpid(child, 0)
    say(f"dead {os.waitstatus_to_exitcode(status)}")
"""


@dataclass
class Heard:
    """What a writer said."""

    kept: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    opened: Counter[str] = field(default_factory=Counter)
    child: int = 0
    ready: bool = False
    ends: list[int] = field(default_factory=list)

    def line(self, line: str) -> None:
        match line.split(" "):
            case ["kept", visit, kind, text]:
                self.kept[(visit, kind, text[:1])] += 1
            case ["opened", visit]:
                self.opened[visit] += 1
            case ["child", pid]:
                self.child = int(pid)
            case ["ready"]:
                self.ready = True
            case ["dead", status]:
                self.ends.append(int(status))
            case other:
                raise AssertionError(other)


class Writer:
    """The process, and the lines that it says."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._rest = b""

    def go(self, limit: int, *, alone: bool) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{limit} {'alone' if alone else ''}\n".encode())
        self.process.stdin.flush()

    def listen(self, heard: Heard, seconds: float) -> None:
        """What comes within so long; returns as soon as something does."""
        assert self.process.stdout is not None
        if select.select([self.process.stdout], [], [], seconds)[0]:
            *lines, self._rest = (self._rest + os.read(self.process.stdout.fileno(), 1 << 20)).split(b"\n")
            for line in lines:
                heard.line(line.decode())

    def kill_at_random(self, heard: Heard) -> None:
        """Have a child play visits, and kill it at a random instant of its first tenths of a second."""
        heard.child, heard.ready, heard.ends = 0, False, []
        give_up = time.monotonic() + 60
        kill_at: float | None = None
        at_its_start = random.random() < 0.1
        self.go(1_000_000, alone=True)
        while not heard.ends:
            assert time.monotonic() < give_up, "the writer says nothing"
            if kill_at is None and heard.child and (heard.ready or at_its_start):
                kill_at = time.monotonic() + random.uniform(0, 0.08)
            if kill_at is not None and time.monotonic() >= kill_at and heard.child:
                os.kill(heard.child, signal.SIGKILL)
                heard.child = 0
            self.listen(heard, 0.004)
        assert heard.ends == [-signal.SIGKILL]


@contextmanager
def writer(place: Place, journal: Path) -> Iterator[Writer]:
    if isinstance(place, PostgresPlace):
        arguments = [place.url, str(journal)]
    else:
        assert isinstance(place, SqlitePlace)
        arguments = [str(place.path), ""]
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, *arguments], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        yield Writer(process)
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


def kills(place: Place, journal: Path, heard: Heard, count: int) -> None:
    with writer(place, journal) as killed:
        for _ in range(count):
            killed.kill_at_random(heard)


async def check(storage: SqlStorage, heard: Heard) -> None:
    """All that was said to be kept is there, once; the gate opened on a record, and never twice."""
    assert heard.opened and await storage.verify() == []
    stored = Counter(
        (record.visit, record.kind, str(record.data.get("text", ""))[:1])
        for record in await records(storage)
        if record.visit
    )
    assert heard.kept <= stored
    assert {count for (_, kind, _), count in stored.items() if kind != "note"} == {1}
    assert set(heard.opened.values()) == {1}
    assert {visit for visit, kind, _ in stored if kind == "gate.requested"} >= set(heard.opened)


@pytest.mark.slow
async def test_a_service_that_is_killed_at_any_instant_loses_nothing_and_opens_nothing_twice(
    place: Place, tmp_path: Path
) -> None:
    heard = Heard()
    await asyncio.to_thread(kills, place, tmp_path / "journal", heard, KILLS)
    async with await place.open() as storage:
        await check(storage, heard)
        assert {each.id for each in await storage.visits(limit=100_000)} == {
            record.visit for record in await records(storage, kinds=["visit.started"])
        }
        await storage.recover("2027-11-21T13:05:00.000250+00:00")
        assert await storage.open_visits() == []
        assert await storage.verify() == []


@pytest.mark.slow
async def test_the_same_while_the_database_is_away(own_postgres: Postgres, tmp_path: Path) -> None:
    place = PostgresPlace(await own_postgres.make())
    heard = Heard()
    await asyncio.to_thread(own_postgres.kill)
    await asyncio.to_thread(kills, place, tmp_path / "journal", heard, WITHOUT)
    await asyncio.to_thread(own_postgres.start)
    await asyncio.to_thread(kills, place, tmp_path / "journal", heard, 5)
    storage = await JournalledStorage.open_for(place.url, None, tmp_path / "journal")
    await storage.close()
    async with await place.open() as reader:
        await check(reader, heard)


async def test_processes_that_write_at_once_make_one_chain(place: Place, tmp_path: Path) -> None:
    async with await place.open():
        pass  # the tables are there

    def both() -> Heard:
        heard = Heard()
        with writer(place, tmp_path / "one") as one, writer(place, tmp_path / "two") as two:
            for each in (one, two):
                each.go(4, alone=False)
            give_up = time.monotonic() + 60
            while len(heard.ends) < 2:
                assert time.monotonic() < give_up
                for each in (one, two):
                    each.listen(heard, 0.01)
            assert heard.ends == [0, 0]
        return heard

    heard = await asyncio.to_thread(both)
    async with await place.open() as storage:
        await check(storage, heard)
        # Two processes, six tasks each, four visits each of eight records.
        assert sum(heard.kept.values()) == 2 * 6 * 4 * 8
        heads = await storage.heads()
        assert sum(head.seq for head in heads.values()) >= 2 * 6 * 4 * 8
