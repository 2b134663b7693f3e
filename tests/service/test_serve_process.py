"""`porteiro serve` as a process: how it drains, stops and comes back, and what its log gives away."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from bridge.softphone import Softphone
from storage.sqlite import SqliteStorage
from tests.service.doorman import Cast, Part, Turn, authorize, call_resident
from tests.service.household import HELLO, ROOT, until

VISITOR_SAYS = "Boa tarde, sou a Berenice, trouxe jabuticabas para a Renata."
RESIDENT_SAYS = "Claro, pode liberar."
PART = Part(
    (Turn(VISITOR_SAYS, call_resident("501", "Berenice", "Renata Oliveira")),),
    (Turn(RESIDENT_SAYS, authorize()),),
)
PRIVATE = {*re.findall(r"\w{4,}", VISITOR_SAYS + RESIDENT_SAYS), "Oliveira", "Daner", "Reis", "1003030"}

CONFIG = """
[service]
data_dir = "data"
listen = ["127.0.0.1"]
visitor_port = 0
resident_port = 0
drain_s = 30
log = {{ format = "json", level = "debug" }}

[tenants.jardim]
name = "Condomínio Jardim"
directory = "{directory}"
provider = "openai"
base_url = "{url}"
recording = {{ enabled = true }}
"""


class Served:
    """A running `porteiro serve`."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self._log = log

    def lines(self, event: str | None = None) -> list[dict[str, Any]]:
        """The log's lines, of one event or all."""
        found = [json.loads(line) for line in self._log.read_text().splitlines()]
        return [line for line in found if event in (None, line["event"])]

    async def line(self, event: str) -> dict[str, Any]:
        """The first line of an event, once it is there."""
        await until(lambda: self.process.returncode is not None or self.lines(event), 30, event)
        assert self.lines(event), self._log.read_text()
        return self.lines(event)[0]

    async def phone(self, visit: UUID) -> Softphone:
        """A visitor's telephone."""
        return Softphone("127.0.0.1", (await self.line("tenant.open"))["visitor_port"], visit)

    async def resident(self) -> Softphone:
        """The telephone of the resident who is being called."""
        asked = (await self.line("dial.waiting_for_somebody"))["answer_with"]
        found = re.search(r"--port (\d+) --uuid (\S+) --microphone$", asked)
        assert found is not None
        return Softphone("127.0.0.1", int(found[1]), UUID(found[2]))

    async def ends(self, within_s: float) -> int:
        """Its exit status."""
        return await asyncio.wait_for(self.process.wait(), within_s)


@asynccontextmanager
async def serving(place: Path, cast: Cast, name: str = "serve") -> AsyncIterator[Served]:
    """Start it, and see to it that it is gone afterwards."""
    config = place / "porteiro.toml"
    config.write_text(CONFIG.format(directory=ROOT / "data" / "apartamentos.json", url=cast.url))
    log = place / f"{name}.log"
    with log.open("w") as to:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bridge.cli", "serve", "--config", str(config)),
            cwd=place,
            env={**os.environ, "OPENAI_API_KEY": "a-secret-key", "PYTHONPATH": str(ROOT)},
            stderr=to,
        )
    served = Served(process, log)
    try:
        await served.line("service.ready")
        yield served
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def until_consulted(served: Served, visitor: Softphone) -> Softphone:
    """From the greeting to a resident who is asked; their telephone."""
    await visitor.wait_for_speech(timeout_s=15)
    await visitor.wait_for_quiet(300)
    await visitor.say(HELLO)
    return await served.resident()


async def hears_the_briefing(resident: Softphone) -> None:
    """Wait until it is over."""
    await resident.wait_for_speech(timeout_s=15)
    await resident.wait_for_quiet(300)


async def read(place: Path, visit: UUID) -> tuple[list[str], dict[str, Any]]:
    """A visit's kinds and the data of its last record, from an audit log that verifies."""
    async with await SqliteStorage.open(place / "data" / "porteiro.db", read_only=True) as storage:
        assert await storage.verify() == []
        records = [record async for record in storage.audit(visit=str(visit))]
    return [record.kind for record in records], dict(records[-1].data)


async def a_signal_lets_the_running_visit_end_and_takes_no_other(tmp_path: Path, cast: Cast) -> None:
    visit = uuid4()
    async with serving(tmp_path, cast) as served:
        async with await served.phone(visit) as visitor:
            resident = await until_consulted(served, visitor)
            served.process.send_signal(signal.SIGTERM)
            await served.line("service.draining")
            with pytest.raises(ConnectionError):
                async with await served.phone(uuid4()):
                    pass
            async with resident:  # whom the visit called is still let in
                await hears_the_briefing(resident)
                await resident.say(ROOT / "data" / "audio" / "r03-leticia.wav")
                await asyncio.wait({visitor.closed}, timeout=20)
                assert visitor.closed.result().kind == "hangup"
        assert await served.ends(10) == 0
        assert [line["event"] for line in served.lines()][-1] == "service.stopped"
        check_log(served, visit)
    kinds, last = await read(tmp_path, visit)
    assert kinds.count("gate.answered") == 1
    assert last["outcome"] == "authorized"


def check_log(served: Served, visit: UUID) -> None:
    """The log of a whole visit: ids on its lines, and nothing of what was said or of who said it."""
    text = "\n".join(json.dumps(line, ensure_ascii=False) for line in served.lines())
    told = {word for word in PRIVATE if re.search(rf"\b{word}\b", text, re.IGNORECASE)}
    assert told == set()
    assert "a-secret-key" not in text
    apart = {"service.ready", "service.draining", "service.stopped", "tenant.open", "clock.stood_still"}
    of_visit = [line for line in served.lines() if line["event"] not in apart]
    assert {"leg.closed", "gate.answered", "dial.waiting_for_somebody"} <= {x["event"] for x in of_visit}
    for line in of_visit:
        assert (line["visit"], line["tenant"]) == (str(visit), "jardim"), line
    for event in ("leg.opened", "leg.closed", "audiosocket.closed"):
        assert {line["leg"] for line in of_visit if line["event"] == event} == {"visitor", "resident-1"}
    calls = {line["call_id"] for line in of_visit if line["event"] == "leg.opened"}
    assert calls == {line["call_id"] for line in of_visit if line["event"] == "audiosocket.closed"}


async def a_second_signal_ends_everything_closed(tmp_path: Path, cast: Cast) -> None:
    visit = uuid4()
    async with serving(tmp_path, cast) as served:
        async with await served.phone(visit) as visitor:
            resident = await until_consulted(served, visitor)
            async with resident:
                await hears_the_briefing(resident)
                served.process.send_signal(signal.SIGTERM)
                await served.line("service.draining")
                began = asyncio.get_running_loop().time()
                served.process.send_signal(signal.SIGTERM)
                await asyncio.wait({visitor.closed, resident.closed}, timeout=10)
                assert visitor.closed.result().kind == resident.closed.result().kind == "hangup"
        assert await served.ends(5) == 0
        assert asyncio.get_running_loop().time() - began < 4
    kinds, last = await read(tmp_path, visit)
    assert "gate.requested" not in kinds
    assert (last["outcome"], last["reason"]) == ("failed", "the service stops")


async def a_second_signal_does_not_wait_for_a_model_that_is_stuck(tmp_path: Path, _: Cast) -> None:
    visit = uuid4()
    async with (
        Cast(Part(exact_ms=60_000)) as cast,
        serving(tmp_path, cast) as served,
        await served.phone(visit) as visitor,
    ):
        await visitor.wait_for_speech(timeout_s=15)
        served.process.send_signal(signal.SIGTERM)
        await served.line("service.draining")
        served.process.send_signal(signal.SIGTERM)
        assert await served.ends(15) == 0
        await asyncio.wait({visitor.closed}, timeout=2)
        assert visitor.closed.result().kind == "hangup"
    kinds, last = await read(tmp_path, visit)
    assert kinds[-1] == "visit.ended"
    assert last["outcome"] == "failed"


async def a_kill_leaves_a_visit_that_the_next_start_closes(tmp_path: Path, cast: Cast) -> None:
    visit = uuid4()
    async with serving(tmp_path, cast, "first") as served:
        async with await served.phone(visit) as visitor:
            resident = await until_consulted(served, visitor)
            async with resident:
                await hears_the_briefing(resident)
                served.process.kill()
                await asyncio.wait({visitor.closed, resident.closed}, timeout=5)
                assert not visitor.closed.result().orderly
        await served.ends(5)
    before, _ = await read(tmp_path, visit)
    assert before[-1] != "visit.ended"
    async with serving(tmp_path, cast, "second") as served:
        recovered = await served.line("visits.recovered")
        assert recovered["visits"] == [str(visit)]
        # The old attempt's id is worth nothing to the new process.
        (line,) = served.lines("tenant.open")
        async with Softphone("127.0.0.1", line["resident_port"], resident.call_id) as late:
            await asyncio.wait({late.closed}, timeout=3)
            assert late.closed.result().kind == "hangup"
        served.process.send_signal(signal.SIGTERM)
        assert await served.ends(10) == 0
    kinds, last = await read(tmp_path, visit)
    assert kinds[:-2] == before
    assert kinds[-2:] == ["visit.recovered", "visit.ended"]
    assert last["outcome"] == "failed"
    assert not {"decision", "gate.requested", "gate.answered"} & set(kinds)


async def test_every_way_to_stop(tmp_path: Path) -> None:
    """All at once, each with a process and a provider of its own: most of it is waiting."""
    ways = (
        a_signal_lets_the_running_visit_end_and_takes_no_other,
        a_second_signal_ends_everything_closed,
        a_second_signal_does_not_wait_for_a_model_that_is_stuck,
        a_kill_leaves_a_visit_that_the_next_start_closes,
    )
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:  # the processes end before the casts
        for way in ways:
            place = tmp_path / way.__name__
            place.mkdir()
            cast = await stack.enter_async_context(Cast(PART))
            group.create_task(way(place, cast))
