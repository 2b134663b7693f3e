"""A service that does not talk: our real AudioSocket endpoint, and behind it whatever a test says.

It plays a frame every 20 ms, as our legs do, and keeps what it hears with its rate.
"""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Network
from typing import Self
from uuid import UUID

from bridge.endpoints.audiosocket import AudioSocketEndpoint, AudioSocketServer
from bridge.endpoints.base import FRAME_BYTES, FRAME_MS, EndpointClosed, Refusal

SILENCE = bytes(FRAME_BYTES)


class Line:
    """One call that came in; the leg of a call that says what it is told to."""

    def __init__(self, endpoint: AudioSocketEndpoint) -> None:
        self.endpoint = endpoint
        self.heard: dict[int, bytearray] = {}
        """What came, by its rate."""
        self.keys: list[str] = []
        self.closed: asyncio.Future[EndpointClosed] = asyncio.get_running_loop().create_future()
        self.to_say = bytearray()

    @property
    def call_id(self) -> UUID:
        """What Asterisk sent."""
        return self.endpoint.call_id

    def break_off(self) -> None:
        """Reset the connection without a word, as when our process is killed."""
        transport = self.endpoint._transport
        assert transport is not None
        transport.abort()

    def tick(self) -> None:
        """Play 20 ms."""
        frame = bytes(self.to_say[:FRAME_BYTES]).ljust(FRAME_BYTES, b"\0")
        del self.to_say[:FRAME_BYTES]
        self.endpoint.play(frame)

    def audio_in(self, pcm: bytes, rate: int) -> None:
        """The caller's sound."""
        self.heard.setdefault(rate, bytearray()).extend(pcm)

    def key_pressed(self, digit: str) -> None:
        """A key."""
        self.keys.append(digit)

    def endpoint_closed(self, reason: EndpointClosed) -> None:
        """The call is over."""
        self.closed.set_result(reason)


class OperatorDesk:
    """Takes AudioSocket calls, or refuses them all. An asynchronous context."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.refuses = refuses
        self.lines: asyncio.Queue[Line] = asyncio.Queue()
        self._open: list[Line] = []
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._server = AudioSocketServer(
            ["127.0.0.1"], 0, allowed=[IPv4Network("127.0.0.0/8")], accept=self._accept
        )

    async def __aenter__(self) -> Self:
        """Listen."""
        await self._server.start()
        self._due = asyncio.get_running_loop().time()
        self._tick()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Hang up, and close."""
        if self._timer is not None:
            self._timer.cancel()
        await self._server.stop()

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self._server.port}"

    async def next_line(self, timeout_s: float = 10.0) -> Line:
        """The next call.

        Raises:
            TimeoutError: none came.
        """
        async with asyncio.timeout(timeout_s):
            return await self.lines.get()

    def _accept(self, endpoint: AudioSocketEndpoint) -> Line | Refusal:
        if self.refuses:
            return Refusal("the desk takes no calls")
        line = Line(endpoint)
        self._open.append(line)
        self.lines.put_nowait(line)
        return line

    def _tick(self) -> None:
        for line in self._open:
            line.tick()
        self._due += FRAME_MS / 1000
        self._timer = asyncio.get_running_loop().call_at(self._due, self._tick)
