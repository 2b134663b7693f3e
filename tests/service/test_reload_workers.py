"""Tenants change while workers run visits: each worker has the change before it gets the next call."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from uuid import uuid4

from storage.sqlite import SqliteStorage
from tests.ports import listens
from tests.service.changing import Folder
from tests.service.doorman import Cast
from tests.service.household import until
from tests.service.served import PART, Served, read, serving, until_consulted
from tests.service.test_workers import TWO, pid_of, says_yes, workers_of


async def in_force(served: Served, change: str) -> None:
    """Wait until a tenant has changed in this way."""
    await until(
        lambda: any(line["change"] == change for line in served.lines("settings.in_force")), what=change
    )


async def greeted_by(served: Served, place: Path, cast: Cast) -> None:
    """A visitor who calls now talks with a model of that cast, and hangs up."""
    models, visit = len(cast.models), uuid4()
    async with await served.phone(visit) as phone:
        await phone.wait_for_speech(timeout_s=15)
        assert len(cast.models) == models + 1
        phone.hang_up()


async def test_workers_take_changes_over_and_keep_those_that_run(tmp_path: Path) -> None:
    async with Cast(PART) as old, Cast(PART) as new, serving(tmp_path, old, options=TWO) as served:
        file, visit = tmp_path / "porteiro.toml", uuid4()
        text = file.read_text()
        async with await served.phone(visit) as visitor:
            resident = await until_consulted(served, visitor)
            Folder.write(file, text.replace(old.url, new.url))
            await in_force(served, "changed")
            for _ in range(3):  # on either worker
                await greeted_by(served, tmp_path, new)
            Folder.write(
                file, text.replace(old.url, new.url).replace('provider = "openai"', 'provider = "x"')
            )
            assert (await served.line("settings.refused"))["tenant"] == "jardim"
            async with resident:
                await says_yes(resident)
                await asyncio.wait({visitor.closed}, timeout=20)
            assert len(old.models) == 2, "its resident's too is where it began"
        (worker,) = workers_of(served)[str(visit)]
        os.kill(pid_of(served, 3 - worker), signal.SIGKILL)
        await until(lambda: len(served.lines("worker.ready")) == 3, 60, "another worker")
        for _ in range(2):
            await greeted_by(served, tmp_path, new)
        # Gone, and another one in its place, on the same ports.
        opened = await served.line("tenant.open")
        ports = "".join(f"{role}_port = {opened[f'{role}_port']}\n" for role in ("visitor", "resident"))
        cedro = text.replace("[tenants.jardim]\n", f"[tenants.cedro]\n{ports}")
        Folder.write(file, cedro)
        await in_force(served, "gone")
        assert listens(opened["visitor_port"])
        await greeted_by(served, tmp_path, old)
        served.process.send_signal(signal.SIGTERM)
        assert await served.ends(40) == 0
        assert len(served.lines("worker.hung_up")) == 1, "the one that was killed, and no other"
    kinds, last = await read(tmp_path, visit)
    assert kinds.count("gate.answered") == 1 and last["outcome"] == "authorized"
    async with await SqliteStorage.open(tmp_path / "data" / "porteiro.db", read_only=True) as storage:
        begun = [record async for record in storage.audit(kinds=["visit.started"])]
        assert [record.tenant for record in begun].count("cedro") == 1
        numbers = [dict(record.data)["settings"]["version"] for record in begun if record.tenant == "jardim"]
        assert sorted(numbers) == [1, 2, 2, 2, 2, 2]
