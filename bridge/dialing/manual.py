"""A dialer that dials nobody: it waits for somebody to call the resident port with the attempt's id.

For trying the service without a PBX (the log says which `porteiro call` answers), and for click-to-call
systems that call back by themselves.
"""

from __future__ import annotations

import asyncio

import structlog

from bridge.dialing.base import DialOrder, DialResult
from visits.events import DialOutcome

log = structlog.get_logger(__name__)


class ManualDialer:
    """Waits out the ring time; whoever answers does so by connecting to the resident port."""

    async def start(self) -> None:
        """It needs nothing."""

    async def stop(self) -> None:
        """It holds nothing."""

    async def dial(self, order: DialOrder) -> DialResult:
        """Say how to answer, and wait."""
        call = f"porteiro call --role resident --port {order.port} --uuid {order.attempt}"
        log.info(
            "dial.waiting_for_somebody",
            visit=str(order.visit),
            answer_with=f"{call} --microphone",
            instead_of_a_microphone="--say FILE.wav, or --key and the digit that authorizes",
            ring_s=order.ring_s,
        )
        await asyncio.sleep(order.ring_s)
        return DialResult(DialOutcome.NO_ANSWER, "nobody called the resident port")
