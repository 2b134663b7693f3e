"""Calls residents through a click-to-call system that takes its orders from a RabbitMQ queue.

The system rings the resident and connects the answered call to our resident port. It can carry one id, the
visit's own, and it says nothing back: busy, rejected, not there, all of it looks like nobody answering. An
order can't be called off either. One that nobody took within the ring time expires in its queue; a phone that
rings on after the visitor has left is, once answered, refused at the resident port.

Both attempts of a visit carry the same id, so a resident who takes the first call while the second attempt
runs is taken for the second's. That is safe: every attempt of a visit calls the same apartment, whoever
answers hears the briefing and decides, and once one has answered the next finds no running dial (rule 2 of
`visits/visit.py`). Which phone it was the records can't tell, and they say so.
"""

from __future__ import annotations

import asyncio

import orjson

from bridge.amqp import Broker, Letter, seconds
from bridge.dialing.amqp_message import fill
from bridge.dialing.ari_numbers import endpoint_of
from bridge.dialing.base import DialOrder, DialResult
from bridge.settings import AmqpDialer as AmqpDialerSettings
from visits.events import DialOutcome


class AmqpDialer:
    """Calls residents of one tenant."""

    def __init__(self, settings: AmqpDialerSettings, broker: Broker) -> None:
        """`broker`: shared, and stopped by whoever made it."""
        self._settings = settings
        self._broker = broker

    async def start(self) -> None:
        """See :class:`bridge.dialing.base.Dialer`."""
        self._broker.start()

    async def stop(self) -> None:
        """See :class:`bridge.dialing.base.Dialer`."""

    async def dial(self, order: DialOrder) -> DialResult:
        """See :class:`bridge.dialing.base.Dialer`."""
        began = asyncio.get_running_loop().time()
        try:
            number = endpoint_of("{number}", order.number)
        except ValueError as error:
            return DialResult(DialOutcome.INVALID, str(error))
        posted = await self._broker.post(self._letter(order, number), self._settings.timeout_s)
        if not posted.confirmed:
            return DialResult(DialOutcome.FAILED, posted.detail)
        await asyncio.sleep(began + order.ring_s - asyncio.get_running_loop().time())
        return DialResult(DialOutcome.NO_ANSWER, "nobody called the resident port")

    def _letter(self, order: DialOrder, number: str) -> Letter:
        values: dict[str, str | int] = {
            "visit": str(order.visit),
            "attempt": str(order.attempt),
            "number": number,
            "address": order.number,
            "tenant": order.tenant,
            "license": self._settings.license,
            "timestamp": seconds(),
        }
        body = orjson.dumps(fill(self._settings.message, values))
        return Letter(
            str(order.attempt), body, self._settings.queue, self._settings.exchange, expires_s=order.ring_s
        )
