"""Tells a site's own door system through a RabbitMQ queue who is let in, and who is not.

One message a visit, and never a second: the order is on record before it comes here, a record of it can't be
made twice, and what has no confirmation is answered as not known. The message id is the visit's, for
consumers that want to make sure themselves.

That a door opened nobody says here: what is confirmed is that the message is in the queue. One that nobody
takes within `expires_s` is thrown away by the broker, since a door must not open to nobody when the site's
system comes back.
"""

from __future__ import annotations

import time
from typing import Literal

import orjson

from bridge.amqp import Broker, Letter, Posted
from bridge.gates.base import GateAnswer, GateOrder
from bridge.settings import AmqpGate as AmqpGateSettings

RESULTS = {"authorize": "authorized", "deny": "denied"}


class AmqpGate:
    """Orders one tenant's door through a queue."""

    def __init__(self, settings: AmqpGateSettings, broker: Broker) -> None:
        """`broker`: shared, started and stopped by whoever made it."""
        self._settings = settings
        self._broker = broker

    async def open(self, order: GateOrder) -> GateAnswer:
        """See :class:`bridge.gates.base.Gate`. Opened means: the order is in the queue."""
        began = time.perf_counter()
        posted = await self._post(order, "authorize")
        ms = round((time.perf_counter() - began) * 1000)
        return GateAnswer(posted.confirmed, posted.detail, ms, posted.unknown)

    async def refused(self, order: GateOrder) -> str:
        """See :class:`bridge.gates.base.HearsRefusals`."""
        if not self._settings.tell_refusals:
            return ""
        return (await self._post(order, "deny")).detail

    async def _post(self, order: GateOrder, action: Literal["authorize", "deny"]) -> Posted:
        body = {
            "call_id": order.visit,
            "action": action,
            "apartment": order.apartment,
            "resident": order.resident,
            "visitor": order.visitor,
            "intent_type": order.intent,
            "authorization_result": RESULTS[action],
            "timestamp": int(order.at.timestamp()),
        }
        settings = self._settings
        letter = Letter(
            order.visit, orjson.dumps(body), settings.queue, settings.exchange, settings.expires_s
        )
        return await self._broker.post(letter, settings.timeout_s)
