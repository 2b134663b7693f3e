"""The intercom's own relay: opens by DTMF digits that the PBX plays on the visitor's call.

It plays them as RFC 4733 events, once each; Asterisk sends no sound of ours meanwhile. No digit is ever
repeated: an intercom that toggles would close on whoever is passing, and a code typed twice is another code.
Whether the door moved the intercom doesn't say: what is answered is that the digits were played to their end.
"""

from __future__ import annotations

import asyncio
import time

from bridge.gates.base import GateAnswer, GateOrder
from bridge.pbx import PbxError, PlaysDigits
from bridge.settings import DTMF_PAUSE_S
from bridge.settings import DtmfGate as DtmfGateSettings

ASKING_S = 5.0
"""For everything beside the digits' own time; together less than a visit waits (`VisitRules.gate_s`)."""
UNREGISTERED = "the call was not registered with its channel, so nothing is known to play the digits on"


class DtmfGate:
    """Opens a door by digits on the visitor's call."""

    def __init__(self, settings: DtmfGateSettings, pbx: PlaysDigits) -> None:
        self._settings = settings
        self._pbx = pbx

    async def open(self, order: GateOrder) -> GateAnswer:
        """See :class:`bridge.gates.base.Gate`. Opened means: the digits were played to their end."""
        if not order.channel:
            return GateAnswer(False, UNREGISTERED, 0)
        began = time.perf_counter()
        limit_s = self._settings.playing_s + ASKING_S
        played: list[str] = []
        unknown = False
        try:
            async with asyncio.timeout(limit_s):
                await self._play(order.channel, played)
            detail = f"the digits were played on {order.channel}"
        except PbxError as error:
            detail, unknown = str(error), error.unknown
        except TimeoutError:
            detail, unknown = f"the digits were not played in {limit_s:g} s", True
        wanted = sum(step != "w" for step in self._settings.digits)
        opened = len(played) == wanted
        if played and not opened:
            detail, unknown = f"{len(played)} of {wanted} digits were played, then: {detail}", True
        return GateAnswer(opened, detail, round((time.perf_counter() - began) * 1000), unknown)

    async def _play(self, channel: str, played: list[str]) -> None:
        """Play the digits; `played` grows by each that was heard to its end."""
        settings = self._settings
        for step in settings.digits:
            if step == "w":
                await asyncio.sleep(DTMF_PAUSE_S)
                continue
            if played:
                await asyncio.sleep(settings.gap_ms / 1000)
            await self._pbx.play_digit(channel, step, settings.duration_ms)
            played.append(step)
