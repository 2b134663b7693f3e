"""Sockets that are read with the tick: nothing is lost, and who leaves is read by the event loop again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from uuid import uuid4

import pytest

from audio.frames import SILENCE
from bridge.endpoints.audiosocket import AudioSocketEndpoint, AudioSocketServer
from bridge.endpoints.audiosocket_frames import encode_audio, encode_hangup, encode_key, encode_uuid
from bridge.endpoints.base import EndpointClosed, LegSink, Refusal
from bridge.endpoints.intake import Intake


class Listener:
    """A leg that notes what it is given."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.keys: list[str] = []
        self.closed: EndpointClosed | None = None

    def audio_in(self, pcm: bytes, rate: int) -> None:
        """Sound."""
        assert rate == 8000
        self.heard += pcm

    def key_pressed(self, digit: str) -> None:
        """A key."""
        self.keys.append(digit)

    def endpoint_closed(self, reason: EndpointClosed) -> None:
        """The end."""
        self.closed = reason


class Line:
    """A call to a server whose calls are read when the test says so."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, intake: Intake) -> None:
        self.reader, self.writer, self.intake = reader, writer, intake
        self.leg = Listener()
        self.endpoint: AudioSocketEndpoint | None = None

    async def send(self, data: bytes) -> None:
        """Have it arrive."""
        self.writer.write(data)
        await self.writer.drain()
        await asyncio.sleep(0.05)


@asynccontextmanager
async def line() -> AsyncIterator[Line]:
    """A call that has begun."""
    intake = Intake()
    made: list[Line] = []

    def accept(endpoint: AudioSocketEndpoint) -> LegSink | Refusal:
        made[0].endpoint = endpoint
        return made[0].leg

    server = AudioSocketServer(
        ["127.0.0.1"], 0, allowed=[ip_network("127.0.0.0/8")], accept=accept, intake=intake
    )
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    made.append(Line(reader, writer, intake))
    try:
        await made[0].send(encode_uuid(uuid4()))
        assert len(intake) == 1
        yield made[0]
    finally:
        writer.close()
        await server.stop()
        assert len(intake) == 0
        intake.close()


def sound(number: int) -> bytes:
    """A frame that is like no other."""
    return number.to_bytes(2, "little") * 160


async def test_nothing_is_read_before_the_tick_and_all_of_it_then() -> None:
    async with line() as call:
        await call.send(b"".join(encode_audio(sound(n)) for n in range(1, 4)) + encode_key("5"))
        assert not call.leg.heard
        call.intake.run()
        assert bytes(call.leg.heard) == sound(1) + sound(2) + sound(3)
        assert call.leg.keys == ["5"]
        call.intake.run()
        assert len(call.leg.heard) == 3 * len(SILENCE)


@pytest.mark.parametrize("cut", [1, 2, 3, 100, 322])
async def test_a_frame_may_come_in_two_pieces(cut: int) -> None:
    async with line() as call:
        frame = encode_audio(sound(7))
        await call.send(frame[:cut])
        call.intake.run()
        assert not call.leg.heard
        await call.send(frame[cut:] + encode_audio(sound(8)))
        call.intake.run()
        await call.send(encode_audio(sound(9)))
        call.intake.run()
        assert bytes(call.leg.heard) == sound(7) + sound(8) + sound(9)


async def test_a_backlog_longer_than_the_buffer_is_read_at_one_tick() -> None:
    async with line() as call:
        frames = [encode_audio(sound(n)) for n in range(200)]  # 4 s, 64 kB
        await call.send(b"".join(frames))
        call.intake.run()
        assert bytes(call.leg.heard) == b"".join(sound(n) for n in range(200))


@pytest.mark.parametrize("last", [b"", encode_hangup(), b"\x42\x00\x00"])
async def test_who_hangs_up_or_breaks_the_protocol_ends_as_ever(last: bytes) -> None:
    async with line() as call:
        await call.send(encode_audio(sound(1)) + last)
        call.writer.write_eof()
        await asyncio.sleep(0.05)
        call.intake.run()
        call.intake.run()
        await asyncio.sleep(0.05)
        assert bytes(call.leg.heard) == sound(1)
        assert call.leg.closed is not None
        assert call.leg.closed.kind == ("protocol_error" if last.startswith(b"\x42") else "hangup")
        assert len(call.intake) == 0


async def test_after_our_hang_up_the_peers_close_is_seen_without_a_tick() -> None:
    async with line() as call:
        assert call.endpoint is not None
        call.endpoint.hang_up()
        assert len(call.intake) == 0
        assert await call.reader.readexactly(3) == encode_hangup()
        call.writer.close()
        await asyncio.sleep(0.05)
        assert call.leg.closed == EndpointClosed("local", "hung up by us")


async def test_a_connection_that_is_reset_ends() -> None:
    async with line() as call:
        call.writer.transport.abort()
        await asyncio.sleep(0.05)
        call.intake.run()
        await asyncio.sleep(0.05)
        assert call.leg.closed is not None
        assert call.leg.closed.kind == "hangup"
