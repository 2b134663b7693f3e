"""A gate without a device: it keeps the orders that it gets, for the demo and for trying things out."""

from __future__ import annotations

from collections import deque

from bridge.gates.base import GateAnswer, GateOrder

KEPT = 1000


class RecordGate:
    """Answers that it opened; nothing moves. ``orders`` has the latest, oldest first."""

    def __init__(self) -> None:
        self.orders: deque[GateOrder] = deque(maxlen=KEPT)

    async def open(self, order: GateOrder) -> GateAnswer:
        self.orders.append(order)
        return GateAnswer(opened=True, detail="recorded; no device is attached", ms=0)
