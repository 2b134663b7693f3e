"""A resident's phone inside this process: rings, is answered or not, and calls back over real AudioSocket.

What a resident does is the business of whoever made the dialer (the demo); by itself it answers and listens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum

import structlog

from bridge.dialing.base import DialOrder, DialResult
from bridge.softphone import Softphone
from visits.events import DialOutcome

log = structlog.get_logger(__name__)


class Answers(StrEnum):
    """What a simulated resident does when the phone rings."""

    YES = "yes"
    NO = "no"
    BUSY = "busy"


async def listen(phone: Softphone) -> None:
    """Say nothing until the call is ended from the other side."""
    await asyncio.wait({phone.closed})


@dataclass(frozen=True, slots=True)
class Resident:
    """One simulated resident.

    Attributes:
        rings_s: for how long the phone rings before it is answered, or refused as busy.
        talk: what they do on the phone; the call ends when it returns, if it has not ended before.
    """

    answers: Answers = Answers.YES
    rings_s: float = 2.0
    talk: Callable[[Softphone], Awaitable[None]] = listen


class SimulatedDialer:
    """Calls phones that exist here only."""

    def __init__(self, resident: Callable[[DialOrder], Resident] = lambda order: Resident()) -> None:
        """`resident`: who is called by an order."""
        self._resident = resident
        self._calls: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """It needs nothing."""

    async def dial(self, order: DialOrder) -> DialResult:
        """Ring as told; an answered phone connects to the resident port with the attempt's id."""
        resident = self._resident(order)
        if resident.answers is Answers.NO:
            await asyncio.sleep(order.ring_s)
            return DialResult(DialOutcome.NO_ANSWER)
        await asyncio.sleep(min(resident.rings_s, order.ring_s))
        if resident.answers is Answers.BUSY:
            return DialResult(DialOutcome.BUSY)
        phone = Softphone(order.hosts[0], order.port, order.attempt)
        call = asyncio.get_running_loop().create_task(
            self._answer(phone, resident, str(order.visit)), name=f"resident {order.attempt}"
        )
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        return DialResult(None)

    async def _answer(self, phone: Softphone, resident: Resident, visit: str) -> None:
        try:
            async with phone:
                await resident.talk(phone)
        except ConnectionError as error:  # the service is stopping, or the other side hung up first
            log.info("simulated_phone.ended", visit=visit, reason=str(error))

    async def stop(self) -> None:
        """Put every phone down."""
        calls = tuple(self._calls)
        for call in calls:
            call.cancel()
        if calls:
            await asyncio.wait(calls, timeout=5.0)
