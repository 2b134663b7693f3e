"""`porteiro serve` killed between the record of a door's order and its message, or its confirmation."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import aiormq
import pytest

from bridge.softphone import Softphone
from storage.sqlite import SqliteStorage
from tests.amqp.rabbit import Rabbit, Wire
from tests.amqp.site import CALLS, DOOR
from tests.service.doorman import Cast
from tests.service.household import HELLO, ROOT, until
from tests.service.test_gate_in_a_visit import kinds_on_disk

pytestmark = [pytest.mark.rabbitmq, pytest.mark.slow]

CONFIG = """
[service]
data_dir = "data"
listen = ["127.0.0.1"]
visitor_port = 0
resident_port = 0
http_listen = []
log = {{ format = "json" }}

[tenants.jardim]
directory = "{directory}"
provider = "openai"
base_url = "{url}"
dialer = {{ kind = "amqp" }}
gate = {{ kind = "amqp", timeout_s = 15.0 }}
"""


@pytest.fixture
async def cast() -> AsyncIterator[Cast]:
    """The simulated voice model."""
    async with Cast() as made:
        yield made


@asynccontextmanager
async def serving(
    place: Path, cast: Cast, url: str, name: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, tuple[int, int]]]:
    """A running `porteiro serve` and its visitor and resident port; killed at the end, as by a power cut."""
    config = place / "porteiro.toml"
    config.write_text(CONFIG.format(directory=ROOT / "data" / "apartamentos.json", url=cast.url))
    log = place / f"{name}.log"
    with log.open("w") as to:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bridge.cli", "serve", "--config", str(config)),
            cwd=place,
            env={**os.environ, "OPENAI_API_KEY": "k", "AMQP_URL": url, "PYTHONPATH": str(ROOT)},
            stderr=to,
        )
    try:
        await until(lambda: "service.ready" in log.read_text(), 40, "the service")
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        (here,) = [line for line in lines if line["event"] == "tenant.open"]
        yield process, (here["visitor_port"], here["resident_port"])
        assert "secret" not in log.read_text()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def ordered(rabbit: Rabbit) -> UUID:
    """The id in the order for a resident's call, once it is there."""
    async with rabbit.channel() as channel, asyncio.timeout(20):
        while True:
            message = await channel.basic_get(CALLS, no_ack=True)
            if isinstance(message.delivery, aiormq.spec.Basic.GetOk):
                return UUID(json.loads(message.body)["data"]["guid"])
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("left", [False, True], ids=["before the message", "before its confirmation"])
async def test_a_service_killed_over_a_doors_order_never_sends_it_again(
    tmp_path: Path, rabbit: Rabbit, wire: Wire, cast: Cast, left: bool
) -> None:
    visit, database = uuid4(), tmp_path / "data" / "porteiro.db"
    url = rabbit.url(port=wire.port)
    async with serving(tmp_path, cast, url, "first") as (process, (visitors, residents)):
        visitor = Softphone("127.0.0.1", visitors, visit)
        await visitor.__aenter__()
        await visitor.wait_for_speech(timeout_s=15)
        await visitor.wait_for_quiet(300)
        await visitor.say(HELLO)
        assert await ordered(rabbit) == visit
        resident = Softphone("127.0.0.1", residents, visit)
        await resident.__aenter__()
        await resident.wait_for_speech(timeout_s=15)
        await resident.wait_for_quiet(300)
        if left:
            wire.cut_after, wire.hold = wire.messages + 1, True
        else:
            await wire.close()
        resident.send_key("1")
        await until(lambda: "gate.requested" in kinds_on_disk(database, str(visit)), what="the record")
        if left:
            await until(lambda: wire.messages >= wire.cut_after, what="the message")
        else:
            await asyncio.sleep(0.3)
        process.kill()
        await process.wait()
        for phone in (visitor, resident):
            await phone.__aexit__(None, None, None)
    await wire.close()
    wire.hold = False
    await wire.open()
    async with serving(tmp_path, cast, url, "second"):
        await asyncio.sleep(2)
        messages = await rabbit.take(DOOR, 1.0)
    assert [(one["call_id"], one["action"]) for one in messages] == [(str(visit), "authorize")] * left
    async with await SqliteStorage.open(database, read_only=True) as storage:
        assert await storage.verify() == []
        view = await storage.visit(str(visit))
    assert view is not None
    assert (view.summary.outcome, view.summary.decision, view.summary.gate_opened) == (
        "failed",
        "authorized",
        None,
    )
