"""A process that is killed while it writes loses nothing that it was told is stored."""

from __future__ import annotations

import os
import random
import select
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storage.sqlite import SqliteStorage

ROOT = Path(__file__).parents[2]

WRITER = textwrap.dedent(
    """
    # Told "go" it forks; the child appends as fast as it can from several tasks, in two tenants, and says
    # "tenant seq hash" for each record once append has returned. Its parent waits for its death.
    import asyncio, os, sys
    from datetime import UTC, datetime
    from pathlib import Path
    from uuid import uuid4
    from storage.sqlite import SqliteStorage
    from visits.audit import stamp

    def say(text):
        os.write(1, (text + "\\n").encode())

    async def one(storage, tenant, limit):
        visit = str(uuid4())
        at = lambda: stamp(datetime.now(UTC))
        record = await storage.append(tenant, visit, at(), "visit.started", {})
        while limit:
            limit -= 1
            say(f"{tenant} {record.seq} {record.hash}")
            record = await storage.append(tenant, visit, at(), "note", {"text": "x" * 300})
        say(f"{tenant} {record.seq} {record.hash}")

    async def main(limit):
        async with await SqliteStorage.open(Path(sys.argv[1]), deadline_s=30, busy_s=20) as storage:
            await asyncio.gather(*(one(storage, f"t{n % 2}", limit) for n in range(6)))

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            asyncio.run(main(int(line)))
            os._exit(0)
        say(f"child {child}")
        _, status = os.waitpid(child, 0)
        say(f"dead {os.waitstatus_to_exitcode(status)}")
    """
)


class Lines:
    """Reads a pipe by lines, with a deadline."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._rest = b""

    def read(self, seconds: float) -> list[list[str]]:
        """The complete lines that come within ``seconds`` (returns as soon as there are any)."""
        if not select.select([self._handle], [], [], seconds)[0]:
            return []
        *lines, self._rest = (self._rest + os.read(self._handle, 1 << 20)).split(b"\n")
        return [line.decode().split() for line in lines]


@contextmanager
def writer(path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Lines]]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        yield process, Lines(process.stdout.fileno())
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


def go(process: subprocess.Popen[bytes], limit: int) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{limit}\n".encode())
    process.stdin.flush()


def stored(path: Path) -> set[tuple[str, int, str]]:
    connection = sqlite3.connect(path)
    rows = set(connection.execute("SELECT tenant, seq, hash FROM audit"))
    connection.close()
    return rows


def write_until_killed(process: subprocess.Popen[bytes], lines: Lines) -> set[tuple[str, int, str]]:
    """Have a child write, kill it at a random instant, and return what it said is stored."""
    said: set[tuple[str, int, str]] = set()
    child = 0
    kill_at: float | None = None
    give_up = time.monotonic() + 30
    go(process, 1_000_000)
    while time.monotonic() < give_up:
        if kill_at is not None and time.monotonic() >= kill_at and child:
            os.kill(child, signal.SIGKILL)
            child = 0
        for line in lines.read(0.005):
            match line:
                case ["child", pid]:
                    child = int(pid)
                case ["dead", code]:
                    assert int(code) == -signal.SIGKILL
                    return said
                case [tenant, seq, own]:
                    said.add((tenant, int(seq), own))
        if said and kill_at is None:
            kill_at = time.monotonic() + random.uniform(0, 0.06)
    raise AssertionError("the writer says nothing")


async def test_nothing_that_was_acknowledged_is_lost_by_kills_at_any_instant(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    acknowledged: set[tuple[str, int, str]] = set()
    with writer(path) as (process, lines):
        for _ in range(20):
            acknowledged |= write_until_killed(process, lines)
            assert acknowledged <= stored(path)
    async with await SqliteStorage.open(path) as storage:
        assert await storage.verify() == []
        projected = {visit.id for visit in await storage.visits(limit=10_000)}
        assert projected == {record.visit async for record in storage.audit(kinds=["visit.started"])}
        assert set(await storage.recover("2026-11-21T13:05:00.000250+00:00")) == projected
        assert await storage.verify() == []


async def test_two_processes_that_write_at_once_make_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    acknowledged: list[tuple[str, int, str]] = []
    with writer(path) as (one, lines_one), writer(path) as (two, lines_two):
        go(one, 40)
        go(two, 40)
        codes: list[str] = []
        give_up = time.monotonic() + 60
        while len(codes) < 2:
            assert time.monotonic() < give_up
            for line in (*lines_one.read(0.01), *lines_two.read(0.01)):
                if line[0] == "dead":
                    codes.append(line[1])
                elif line[0] != "child":
                    acknowledged.append((line[0], int(line[1]), line[2]))
    assert codes == ["0", "0"]
    # Two processes, three tasks each in each tenant, 41 records each; and none was acknowledged twice.
    assert sorted(seq for tenant, seq, _ in acknowledged if tenant == "t0") == list(range(1, 2 * 3 * 41 + 1))
    assert len(acknowledged) == len(set(acknowledged)) == 2 * 6 * 41
    assert set(acknowledged) == stored(path)
    async with await SqliteStorage.open(path, read_only=True) as storage:
        assert await storage.verify() == []
