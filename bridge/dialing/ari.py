"""Calls residents through Asterisk's REST interface (ARI).

The phone's channel gets the attempt's id and is ordered into our Stasis application, which it enters when it
is answered. From there it is sent on into the dialplan, where `AudioSocket()` connects it to our port:

    [porteiro-resident]
    exten => s,1,AudioSocket(${ATTEMPT},${PORTEIRO_RESIDENT})
     same => n,Hangup()

An ARI bridge with an externalMedia channel would need no dialplan. It was tried against Asterisk 22.10.1, and
it leaves the phone behind, up and silent in Stasis, whenever our end of the audio is lost and nobody is there
to hang it up. In the dialplan either end takes the other along, even if this process dies.
"""

from __future__ import annotations

import asyncio
import math

from bridge.dialing.ari_attempt import Attempt, Step
from bridge.dialing.ari_connection import AriConnection, Call
from bridge.dialing.ari_numbers import endpoint_of
from bridge.dialing.ari_rest import AriError
from bridge.dialing.base import DialOrder, DialResult
from bridge.settings import AriDialer as AriDialerSettings
from visits.events import DialOutcome

READY_S = 3.0
"""So long an attempt waits for ARI's events where they are not there yet, or not again."""
LATE_S = 2.0
"""How much later than the ring time Asterisk may say how it ended."""
CONNECT_S = 3.0
"""After the answer: in that time Asterisk has connected to the resident port, or has hung up (its own time
limit for that is 2 s)."""


class AriDialer:
    """Calls residents of one tenant."""

    def __init__(self, settings: AriDialerSettings, connection: AriConnection) -> None:
        """`connection`: shared with the other tenants of the same ARI."""
        self._settings = settings
        self._ari = connection

    async def start(self) -> None:
        """See :class:`bridge.dialing.base.Dialer`."""
        await self._ari.start()

    async def stop(self) -> None:
        """See :class:`bridge.dialing.base.Dialer`."""
        await self._ari.stop()

    async def dial(self, order: DialOrder) -> DialResult:
        """See :class:`bridge.dialing.base.Dialer`. Returns up to CONNECT_S after the answer."""
        try:
            endpoint = endpoint_of(self._settings.dial_string, order.number)
        except ValueError as error:
            return DialResult(DialOutcome.INVALID, str(error))
        began = asyncio.get_running_loop().time()
        attempt = Attempt(endpoint)
        call = self._ari.follow(str(order.attempt))
        connected = False
        try:
            result = await self._ring(order, endpoint, attempt, call, began)
            connected = result.outcome is None
            return result
        finally:
            self._ari.release(call, over=connected or attempt.gone)

    async def _ring(
        self, order: DialOrder, endpoint: str, attempt: Attempt, call: Call, began: float
    ) -> DialResult:
        if not await self._ari.ready(READY_S):
            return DialResult(DialOutcome.FAILED, self._ari.trouble)
        spent = asyncio.get_running_loop().time() - began
        self._ari.originate(
            call,
            endpoint,
            ring_s=max(1, math.ceil(order.ring_s - spent)),
            caller_id=self._settings.caller_id,
            variables={"PORTEIRO_RESIDENT": self._address(order)},
        )
        step = await self._next(attempt, call, began + order.ring_s + LATE_S)
        if step is Step.CONNECT:
            return await self._connect(order, attempt, call, began)
        if isinstance(step, DialResult):
            return step
        if attempt.accepted:
            return DialResult(DialOutcome.NO_ANSWER, "Asterisk did not say how the call ended")
        return DialResult(DialOutcome.FAILED, "Asterisk did not say whether it takes the call")

    async def _connect(self, order: DialOrder, attempt: Attempt, call: Call, began: float) -> DialResult:
        try:
            await self._ari.leave_to_dialplan(call, self._settings.context)
        except AriError as error:
            return DialResult(DialOutcome.FAILED, f"the phone was answered, but {error}")
        # Within the host's own patience (ring time and 5 s): what it cuts off would be hung up.
        latest = began + order.ring_s + LATE_S + 2.0
        until = min(asyncio.get_running_loop().time() + CONNECT_S, latest)
        step = await self._next(attempt, call, until)
        return step if isinstance(step, DialResult) else DialResult(None)

    @staticmethod
    async def _next(attempt: Attempt, call: Call, until: float) -> Step | DialResult | None:
        """What is to be done next; None where nothing was by then."""
        try:
            async with asyncio.timeout_at(until):
                while True:
                    step = attempt.take(await call.things.get())
                    if step is not None:
                        return step
        except TimeoutError:
            return None

    def _address(self, order: DialOrder) -> str:
        """Where Asterisk finds our resident port."""
        host, port = self._settings.audiosocket_parts
        host = host or order.hosts[0]
        return f"[{host}]:{port or order.port}" if ":" in host else f"{host}:{port or order.port}"
