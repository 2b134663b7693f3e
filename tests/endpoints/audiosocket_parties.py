"""Both ends of an AudioSocket call for the tests: legs that play on the 20 ms grid, peers that misbehave."""

from __future__ import annotations

import asyncio
import inspect
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any
from uuid import UUID, uuid4

import pytest
import uvloop

from bridge.endpoints.allow_list import Network
from bridge.endpoints.audiosocket import AudioSocketEndpoint, AudioSocketLimits, AudioSocketServer
from bridge.endpoints.audiosocket_frames import encode_uuid
from bridge.endpoints.base import EndpointClosed, LegSink, Refusal
from bridge.softphone import SILENCE, Softphone

LOOPBACK: tuple[Network, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
TONE = struct.pack("<160h", *[8000, -8000] * 80)


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on asyncio's own event loop and on uvloop: their transports are not the same."""

    def run(event_loop_of: Callable[[], asyncio.AbstractEventLoop], **arguments: object) -> None:
        with asyncio.Runner(loop_factory=event_loop_of) as runner:
            runner.run(test(**arguments))

    given = list(inspect.signature(test).parameters.values())
    own = inspect.Parameter("event_loop_of", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    run.__name__, run.__doc__ = test.__name__, test.__doc__
    run.__dict__["__signature__"] = inspect.Signature([own, *given])
    loops = [asyncio.SelectorEventLoop, uvloop.new_event_loop]
    return pytest.mark.parametrize("event_loop_of", loops, ids=["asyncio", "uvloop"])(run)


async def until(condition: Callable[[], object], timeout_s: float = 5.0) -> None:
    """Look every few milliseconds."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it never came"
        await asyncio.sleep(0.005)


class Leg:
    """A leg without a model: plays silence, then whatever it is told, every 20 ms by absolute deadlines."""

    def __init__(self, endpoint: AudioSocketEndpoint) -> None:
        self.endpoint = endpoint
        self.heard: list[tuple[bytes, int]] = []
        self.keys: list[str] = []
        self.closed: list[EndpointClosed] = []
        self.over = asyncio.Event()
        self.to_play: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time()
        self._ticks = 0
        self._loop.call_soon(self._tick)

    def _tick(self) -> None:
        if self.closed:
            return
        self.endpoint.play(self.to_play.pop(0) if self.to_play else SILENCE)
        self._ticks += 1
        self._loop.call_at(self._start + self._ticks * 0.02, self._tick)

    def audio_in(self, pcm: bytes, rate: int) -> None:
        self.heard.append((pcm, rate))

    def key_pressed(self, digit: str) -> None:
        self.keys.append(digit)

    def endpoint_closed(self, reason: EndpointClosed) -> None:
        self.closed.append(reason)
        self.over.set()


@dataclass
class Service:
    """A server with its legs."""

    server: AudioSocketServer
    legs: dict[UUID, Leg] = field(default_factory=dict)

    @property
    def port(self) -> int:
        return self.server.port

    async def leg(self, call_id: UUID) -> Leg:
        """The leg of a call, once it is there."""
        await until(lambda: call_id in self.legs)
        return self.legs[call_id]

    async def ending(self, call_id: UUID) -> EndpointClosed:
        """How a call ended, which its leg was told exactly once."""
        leg = await self.leg(call_id)
        async with asyncio.timeout(10):
            await leg.over.wait()
        await asyncio.sleep(0.05)
        assert len(leg.closed) == 1
        return leg.closed[0]


@asynccontextmanager
async def serving(
    *,
    hosts: Sequence[str] = ("127.0.0.1",),
    allowed: Sequence[Network] = LOOPBACK,
    limits: AudioSocketLimits | None = None,
    accept: Callable[[AudioSocketEndpoint], LegSink | Refusal | None] | None = None,
) -> AsyncIterator[Service]:
    """A running server. ``accept`` may decide on a call; on None it is taken by a :class:`Leg`."""

    def take(endpoint: AudioSocketEndpoint) -> LegSink | Refusal:
        decided = accept(endpoint) if accept else None
        if decided is not None:
            return decided
        leg = service.legs[endpoint.call_id] = Leg(endpoint)
        return leg

    service = Service(AudioSocketServer(hosts, 0, allowed=allowed, accept=take, limits=limits))
    await service.server.start()
    try:
        yield service
    finally:
        await service.server.stop()
        assert service.server.calls == service.server.waiting == 0


@asynccontextmanager
async def undisturbed_call(service: Service, host: str = "127.0.0.1") -> AsyncIterator[Softphone]:
    """A good call beside what happens in the block: it must not lose a frame or leave its 20 ms grid."""
    loop = asyncio.get_running_loop()
    async with Softphone(host, service.port, uuid4()) as phone:
        leg = await service.leg(phone.call_id)
        began = loop.time()
        yield phone
        await asyncio.sleep(max(0.0, 0.2 - (loop.time() - began)))
        assert not phone.closed.done(), f"the good call ended: {phone.closed.result()}"
        heard, seconds = len(phone.arrivals), loop.time() - began
        gaps = sorted(b - a for a, b in zip(phone.arrivals, phone.arrivals[1:], strict=False))
        assert abs(heard - seconds * 50) <= 10, f"{heard} frames in {seconds:.2f} s"
        # Wide enough for a busy machine; what hinders a call for real keeps it waiting much longer.
        assert gaps[len(gaps) // 2] < 0.03 and gaps[-1] < 0.5, f"gaps of {gaps[-3:]} s"
        assert not leg.closed and leg.endpoint.frames_dropped == 0
        assert abs(len(leg.heard) - phone.frames_sent) <= 10


class Peer:
    """A bare connection that sends what it likes and reads when it likes."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        host, port = connection.getsockname()[:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @classmethod
    async def connect(
        cls,
        port: int,
        host: str = "127.0.0.1",
        *,
        source: str | None = None,
        receive_buffer: int | None = None,
    ) -> Peer:
        connection = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        connection.setblocking(False)
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source is not None:
            connection.bind((source, 0))
        try:
            await asyncio.get_running_loop().sock_connect(connection, (host, port))
        except OSError:
            connection.close()
            raise
        return cls(connection)

    @classmethod
    async def call(cls, port: int, **where: Any) -> tuple[Peer, UUID]:
        """Connect and send a UUID."""
        peer, call_id = await cls.connect(port, **where), uuid4()
        await peer.send(encode_uuid(call_id))
        return peer, call_id

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def send_until_closed(self, data: bytes, times: int) -> None:
        """Send, whether or not anybody still listens."""
        try:
            for _ in range(times):
                await self.send(data)
        except (ConnectionResetError, BrokenPipeError):
            return

    async def read_to_end(self, timeout_s: float = 5.0) -> bytes:
        """All that comes until the server closes; raises ConnectionResetError where it resets."""
        got = bytearray()
        async with asyncio.timeout(timeout_s):
            while piece := await asyncio.get_running_loop().sock_recv(self.socket, 65536):
                got += piece
        return bytes(got)

    async def is_cut_off(self, timeout_s: float = 5.0) -> bytes:
        """What came before the server ended the connection, in whichever way."""
        try:
            return await self.read_to_end(timeout_s)
        except ConnectionResetError:
            return b""

    def reset(self) -> None:
        """Close with a reset, as a close with unread data does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        self.socket.close()


def lines_about(logs: Sequence[Any], about: str | UUID) -> list[dict[str, Any]]:
    """The log's lines of one connection, by its address or its call."""
    return [dict(line) for line in logs if str(about) in (line.get("peer"), line.get("call_id"))]


async def the_line_about(logs: Sequence[Any], about: str | UUID) -> dict[str, Any]:
    """The one line of a connection: it must come, and stay the only one."""
    await until(lambda: lines_about(logs, about), 10)
    await asyncio.sleep(0.05)
    lines = lines_about(logs, about)
    assert len(lines) == 1, lines
    assert lines[0]["event"] == "audiosocket.closed"
    return lines[0]
