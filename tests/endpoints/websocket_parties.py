"""Who takes part in the tests of both kinds of WebSocket: legs without a model, and how their calls end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from uuid import UUID

from bridge.endpoints.base import FRAME_BYTES, EndpointClosed
from bridge.endpoints.websocket_connection import WebsocketConnection
from tests.endpoints.audiosocket_parties import until

EndpointT = TypeVar("EndpointT", bound=WebsocketConnection)


class Leg(Generic[EndpointT]):
    """A leg without a model: plays what it is told, else silence, every 20 ms by absolute deadlines."""

    def __init__(self, endpoint: EndpointT) -> None:
        self.endpoint = endpoint
        self.heard: list[tuple[bytes, int]] = []
        self.keys: list[str] = []
        self.closed: list[EndpointClosed] = []
        self.to_play: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time()
        self._ticks = 0
        self._loop.call_soon(self._tick)

    @property
    def sound(self) -> bytes:
        """All that it heard."""
        return b"".join(pcm for pcm, _ in self.heard)

    def _tick(self) -> None:
        if self.closed:
            return
        self.endpoint.play(self.to_play.pop(0) if self.to_play else bytes(FRAME_BYTES))
        self._ticks += 1
        self._loop.call_at(self._start + self._ticks * 0.02, self._tick)

    def audio_in(self, pcm: bytes, rate: int) -> None:
        self.heard.append((pcm, rate))

    def key_pressed(self, digit: str) -> None:
        self.keys.append(digit)

    def endpoint_closed(self, reason: EndpointClosed) -> None:
        self.closed.append(reason)


@dataclass
class Legs(Generic[EndpointT]):
    """The legs of a server, by their calls."""

    legs: dict[UUID, Leg[EndpointT]] = field(default_factory=dict)

    async def leg(self, call: UUID) -> Leg[EndpointT]:
        await until(lambda: call in self.legs)
        return self.legs[call]

    async def ending(self, call: UUID) -> EndpointClosed:
        """How a call ended, which its leg was told exactly once."""
        leg = await self.leg(call)
        await until(lambda: leg.closed, 10)
        await asyncio.sleep(0.05)
        assert len(leg.closed) == 1
        return leg.closed[0]
