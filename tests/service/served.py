"""`porteiro serve` as a process with a log, and people who call it, for the tests of it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

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
http_listen = []
drain_s = 30
{service}
log = {{ format = "json", level = "debug" }}

[tenants.jardim]
name = "Condomínio Jardim"
directory = "{directory}"
provider = "openai"
base_url = "{url}"
recording = {{ enabled = true }}
{tenant}
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
        await until(lambda: self.process.returncode is not None or self.lines(event), 90, event)
        assert self.lines(event), self._log.read_text()
        return self.lines(event)[0]

    async def phone(self, visit: UUID) -> Softphone:
        """A visitor's telephone."""
        return Softphone("127.0.0.1", (await self.line("tenant.open"))["visitor_port"], visit)

    async def resident(self, visit: UUID | None = None) -> Softphone:
        """The telephone of the resident who is being called, by a visit or by the first that does."""

        def dials() -> list[dict[str, Any]]:
            return [
                line
                for line in self.lines("dial.waiting_for_somebody")
                if visit is None or line["visit"] == str(visit)
            ]

        await until(dials, 30, "the dial")
        asked = dials()[0]["answer_with"]
        found = re.search(r"--port (\d+) --uuid (\S+) --microphone$", asked)
        assert found is not None
        return Softphone("127.0.0.1", int(found[1]), UUID(found[2]))

    async def ends(self, within_s: float) -> int:
        """Its exit status."""
        return await asyncio.wait_for(self.process.wait(), within_s)


@asynccontextmanager
async def serving(
    place: Path,
    cast: Cast,
    name: str = "serve",
    *,
    service: str = "",
    tenant: str = "",
    options: Sequence[str] = (),
) -> AsyncIterator[Served]:
    """Start it, and see to it that it is gone afterwards.

    Args:
        service: further lines of its settings' table.
        tenant: likewise of its tenant's.
        options: of the command.
    """
    config = place / "porteiro.toml"
    config.write_text(
        CONFIG.format(
            directory=ROOT / "data" / "apartamentos.json", url=cast.url, service=service, tenant=tenant
        )
    )
    log = place / f"{name}.log"
    with log.open("w") as to:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bridge.cli", "serve", "--config", str(config), *options),
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
    return await served.resident(visitor.call_id)


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
