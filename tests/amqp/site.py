"""A condominium with a click-to-call system and a door system of its own, both behind RabbitMQ."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import aiormq
from aiormq.abc import DeliveredMessage

from bridge.service import Service
from bridge.softphone import CallEnded, Softphone
from bridge.watch import Seen
from tests.amqp.rabbit import Rabbit
from tests.service.doorman import Cast
from tests.service.household import Household, Talk, presses, settings, with_cast

TENANT = "jardim"
CALLS, DOOR = "api-to-voip1", "fila_autorizacao"


@dataclass
class ClickToCall:
    """The site's system that calls residents: takes orders, rings, connects who answers to the resident port.

    Attributes:
        answers: what the resident of the n-th order (from 0) does, and after how many seconds; None: nobody
            answers.
    """

    port: Callable[[], int]
    answers: Callable[[int], tuple[float, Talk] | None] = lambda _: (0.1, presses)
    orders: list[dict[str, Any]] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    """Orders whose answered call was not let in."""
    calls: list[asyncio.Task[None]] = field(default_factory=list)

    async def take(self, message: DeliveredMessage) -> None:
        """One order."""
        order = json.loads(message.body)
        number = len(self.orders)
        self.orders.append(order)
        if (answer := self.answers(number)) is not None:
            self.calls.append(asyncio.create_task(self._call(number, order, *answer)))

    async def _call(self, number: int, order: dict[str, Any], rings_s: float, talk: Talk) -> None:
        await asyncio.sleep(rings_s)
        began = time.monotonic()
        try:
            async with Softphone("127.0.0.1", self.port(), UUID(order["data"]["guid"])) as phone:
                await talk(phone)
                await asyncio.wait({phone.closed})
        except (CallEnded, OSError):
            pass
        if time.monotonic() - began < 0.5:
            self.refused.append(number)


@dataclass
class Site:
    """The running service, and the site's systems."""

    house: Household
    calls: ClickToCall
    rabbit: Rabbit


def tenant(cast: Cast, **own: Any) -> dict[str, Any]:
    """A tenant that works through RabbitMQ."""
    kinds = {"dialer": {"kind": "amqp", "license": "123456789012"}, "gate": {"kind": "amqp"}}
    return with_cast(cast, **{**kinds, **own})


@asynccontextmanager
async def site(data: Path, rabbit: Rabbit, cast: Cast, *, url: str = "", **own: Any) -> AsyncIterator[Site]:
    """The service with its own dialer and gate, and the site's click-to-call system at work."""
    seen: list[Seen] = []
    environ: Mapping[str, str] = {"AMQP_URL": url or rabbit.url()}
    service = Service(settings(data, {TENANT: tenant(cast, **own)}, environ), watchers=(seen.append,))
    house = Household(service, seen)
    calls = ClickToCall(lambda: service.ports(TENANT)[1])
    connection = await aiormq.connect(rabbit.url())
    channel = await connection.channel()
    await channel.basic_consume(CALLS, calls.take, no_ack=True)
    await service.start()
    try:
        yield Site(house, calls, rabbit)
    finally:
        await service.stop()
        for call in calls.calls:
            call.cancel()
        await asyncio.gather(*calls.calls, return_exceptions=True)
        await connection.close()
