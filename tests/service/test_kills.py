"""A whole service is killed at two hundred random instants of its visits: nothing lost, nothing opened twice.

Real service, real calls, a real door that looks into the database at the moment it is asked. After each
kill a service is started on the same database and closes what was open; after the last one every record
that was ever said to be kept is looked for, the chain is verified, and each opened door has its decision.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from bridge.softphone import CallEnded, Softphone
from storage.address import Database
from storage.opening import open_storage
from storage.store import SqlStorage
from tests.service.doorman import Cast, Part, call_resident
from tests.service.doorman import Turn as Understood
from tests.service.household import HELLO, ROOT

KILLS = 100
"""On each database."""
LANES = 10
"""Services at a time."""
VISITS = 2
"""At a time, in each."""
LONGEST_S = 16.0
"""A visit lasts about twelve seconds; most instants of it lie in the briefing …"""
NEAR = (
    "visit.started",
    "leg.connected",
    "tool.called",
    "dial.started",
    "evidence",
    "decision",
    "gate.requested",
)
"""… so that half of the kills come within a tenth of a second after one of these records."""


@dataclass
class Door:
    """A gate's device: counts who asks, and what is on record then."""

    database: Database
    port: int = 0
    asked: Counter[str] = field(default_factory=Counter)
    too_early: list[tuple[str, list[str]]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One order."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            visit = head.split(" ", 2)[1].split("/")[-1]
            self.asked[visit] += 1
            async with await open_storage(self.database, read_only=True, deadline_s=30) as storage:
                kinds = [record.kind async for record in storage.audit(visit=visit)]
            if kinds[-1:] != ["gate.requested"] or "decision" not in kinds:
                self.too_early.append((visit, kinds))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            await writer.drain()
        writer.close()


class Lane:
    """One service after the other on a data directory of its own."""

    def __init__(self, number: int, forks: Forks, order: dict[str, Any]) -> None:
        self.number, self._forks, self._order = number, forks, order
        self.said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.kept: Counter[tuple[str, str]] = Counter()
        """(visit, kind) of the records that were said to be durable."""
        self.awaited = ""
        self.came = asyncio.Event()
        """A record of the kind that is awaited was said to be durable."""

    def keeps(self, visit: str, kind: str) -> None:
        """A record is said to be durable."""
        self.kept[visit, kind] += 1
        if kind == self.awaited:
            self.came.set()

    async def run(self, kills: int) -> None:
        """So many times: start, let visits run, kill. Then one that stops in order."""
        for _ in range(kills):
            pid, port = await self.start(then_stop=False)
            visits = [asyncio.create_task(self._visit(port)) for _ in range(VISITS)]
            await self._instant()
            os.kill(pid, signal.SIGKILL)
            await asyncio.gather(*visits)
        await self.start(then_stop=True)
        async with asyncio.timeout(30):
            assert (await self.said.get())["stopped"]

    async def _instant(self) -> None:
        """Wait for the one at which to kill."""
        self.came.clear()
        self.awaited = random.choice((*NEAR, *("",) * len(NEAR)))
        if not self.awaited:
            await asyncio.sleep(random.uniform(0, LONGEST_S))
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_S):
                await self.came.wait()
                await asyncio.sleep(random.uniform(0, 0.1))

    async def start(self, *, then_stop: bool) -> tuple[int, int]:
        """Start one: its process and its port."""
        self._forks.tell({**self._order, "lane": self.number, "then_stop": then_stop})
        async with asyncio.timeout(60):
            pid = (await self.said.get())["pid"]
            return pid, (await self.said.get())["port"]

    async def _visit(self, port: int) -> None:
        """Somebody at the gate, who says one thing and listens until nobody is there any more."""
        visit = uuid4() if random.random() < 0.3 else UUID(int=uuid4().int | 1)
        await asyncio.sleep(random.uniform(0, 1.5))
        with suppress(CallEnded, OSError, TimeoutError):
            async with Softphone("127.0.0.1", port, visit) as phone:
                await phone.wait_for_speech(timeout_s=10)
                await phone.wait_for_quiet(200, timeout_s=10)
                await phone.say(HELLO)
                await asyncio.wait({phone.closed}, timeout=30)


class Forks:
    """The process that forks services, and what they all say."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.lanes: list[Lane] = []

    def tell(self, order: dict[str, Any]) -> None:
        """Have a service forked."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")

    async def listen(self) -> None:
        """Until the process ends. A line that its writer's death cut off is none."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            said = json.loads(line)
            lane = self.lanes[said["lane"]]
            if "kept" in said:
                lane.keeps(said["visit"], said["kept"])
            else:
                lane.said.put_nowait(said)


@asynccontextmanager
async def forking() -> AsyncIterator[Forks]:
    """The process, listened to."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.service.killed"),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # a fork has no other threads
    )
    forks = Forks(process)
    listening = asyncio.create_task(forks.listen())
    try:
        yield forks
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await asyncio.wait_for(process.wait(), 30)
        await asyncio.wait_for(listening, 30)


async def check(storage: SqlStorage, kept: Counter[tuple[str, str]], door: Door) -> None:
    """Nothing that was kept is lost, nothing is open, no door was opened twice or without a decision."""
    assert await storage.verify() == []
    stored: Counter[tuple[str, str]] = Counter()
    decisions: dict[str, str] = {}
    async for record in storage.audit():
        if record.visit:
            stored[record.visit, record.kind] += 1
            if record.kind == "decision":
                decisions[record.visit] = record.data["decision"]
    assert kept and kept <= stored
    assert await storage.open_visits() == []
    assert door.too_early == []
    assert set(door.asked.values()) <= {1}
    assert {visit for visit, kind in stored if kind == "gate.requested"} >= set(door.asked)
    assert all(decisions[visit] == "authorized" and UUID(visit).int % 2 for visit in door.asked)


async def killing(tmp_path: Path, order: dict[str, Any], databases: list[Database]) -> None:
    """Kill services, on one database or one for each lane, and look at what is left."""
    part = Part((Understood("Oi, tudo bem?", call_resident()),), exact_ms=200)
    async with forking() as forks, Cast(part) as cast:
        doors = [Door(database) for database in databases]
        servers = [await asyncio.start_server(door.serve, "127.0.0.1", 0) for door in doors]
        for door, server in zip(doors, servers, strict=True):
            door.port = server.sockets[0].getsockname()[1]
        for number in range(LANES):
            data = tmp_path / f"lane-{number}"
            data.mkdir()
            port = doors[number % len(doors)].port
            gate = {"kind": "http", "method": "POST", "url": f"http://127.0.0.1:{port}/{{visit}}"}
            tenant = {"base_url": cast.url, "gate": gate}
            forks.lanes.append(Lane(number, forks, {**order, "data": str(data), "tenant": tenant}))
        await asyncio.gather(*(lane.run(KILLS // LANES) for lane in forks.lanes))
        for server in servers:
            server.close()
    for number, door in enumerate(doors):
        lanes = forks.lanes[number :: len(doors)]
        kept = sum((lane.kept for lane in lanes), Counter[tuple[str, str]]())
        async with await open_storage(door.database, read_only=True, deadline_s=30) as storage:
            await check(storage, kept, door)
    opened = sum(len(door.asked) for door in doors)
    assert opened >= KILLS // 10, "too few visits came to their gate"


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_a_service_killed_at_a_hundred_instants_on_sqlite(tmp_path: Path) -> None:
    databases = [Database(file=tmp_path / f"lane-{number}" / "porteiro.db") for number in range(LANES)]
    await killing(tmp_path, {"service": {}}, databases)


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_a_service_killed_at_a_hundred_instants_on_postgresql(
    tmp_path: Path, postgres_url: str
) -> None:
    """Ten services share it, each with a journal of its own."""
    await killing(tmp_path, {"service": {"database_url": postgres_url}}, [Database(url=postgres_url)])
