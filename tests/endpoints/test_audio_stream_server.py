"""The stream endpoint on real sockets: whatever a peer does ends its own call, and harms no other."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from bridge.endpoints.audio_stream import METADATA_S, AudioStreamEndpoint
from bridge.endpoints.audio_stream_control import StreamForm
from bridge.endpoints.audio_stream_server import AudioStreamServer, Domain
from bridge.endpoints.base import LegSink, Refusal, TakesBack
from bridge.endpoints.websocket_connection import WebsocketLimits
from tests.endpoints.audiosocket_parties import LOOPBACK, until
from tests.endpoints.websocket_parties import Leg, Legs
from tests.simulators.audio_stream import Started, start

DOMAIN = uuid4()


@dataclass
class House(Legs[AudioStreamEndpoint]):
    """A server with its legs."""

    server: AudioStreamServer = field(kw_only=True)

    def url(self, call: UUID) -> str:
        return f"ws://127.0.0.1:{self.server.port}/stream/{DOMAIN}/{call}"


@asynccontextmanager
async def serving(
    form: StreamForm | None = None,
    *,
    limits: WebsocketLimits | None = None,
    accept: Callable[[AudioStreamEndpoint], LegSink | Refusal | None] | None = None,
) -> AsyncIterator[House]:
    def take(endpoint: AudioStreamEndpoint) -> LegSink | Refusal | None:
        if accept is not None:
            return accept(endpoint)
        leg = house.legs[endpoint.call_id] = Leg(endpoint)
        return leg

    server = AudioStreamServer(["127.0.0.1"], 0, allowed=LOOPBACK, limits=limits)
    server.set_domain("jardim", DOMAIN, Domain("jardim", take, form or StreamForm()))
    house = House(server=server)
    await server.start()
    try:
        yield house
    finally:
        await server.stop()
        assert server.calls == server.waiting == 0


@asynccontextmanager
async def dialled(house: House, call: UUID, first: str | None = "{}") -> AsyncIterator[ClientConnection]:
    async with connect(house.url(call), compression=None) as connection:
        if first is not None:
            await connection.send(first)
        yield connection


async def closed_with(connection: ClientConnection) -> tuple[int | None, str]:
    """Code and reason that the server closes with."""
    with suppress(ConnectionClosed):
        async with asyncio.timeout(5):
            while True:
                await connection.recv()
    return connection.close_code, connection.close_reason or ""


async def test_the_caller_is_heard_in_pieces_of_any_length() -> None:
    ramp = np.arange(1600, dtype="<i2").tobytes()
    for mix, buffer_ms in (("mono", 20), ("stereo", 100)):
        form = StreamForm("binary", 16_000, 2 if mix == "stereo" else 1)
        async with serving(form) as house:
            started = Started(house.url(call := uuid4()), "{}", mix, 16_000, buffer_ms=buffer_ms)
            stream = await start("binary", started)
            stream.to_say = ramp
            leg = await house.leg(call)
            assert isinstance(leg.endpoint, TakesBack)
            await until(lambda: ramp in leg.sound, 5)  # noqa: B023
            assert {rate for _, rate in leg.heard} == {16_000}
            await stream.send_text('{"type":"dtmf","digit":"7"}')
            await until(lambda: leg.keys == ["7"])  # noqa: B023
            await stream.end()
            assert (await house.ending(call)).kind == "hangup"


async def test_audio_may_come_before_the_metadata_or_without_any() -> None:
    async with serving() as house:
        async with dialled(house, call := uuid4(), None) as connection:
            await connection.send(b"\1\0" * 160)
            await connection.send("{}")
            await connection.send(b"\2\0" * 160)
            leg = await house.leg(call)
            await until(lambda: len(leg.sound) == 640)
            assert leg.sound == b"\1\0" * 160 + b"\2\0" * 160
        async with dialled(house, call := uuid4(), None) as connection:
            began = asyncio.get_running_loop().time()
            await connection.send(b"\1\0" * 160)
            leg = await house.leg(call)
            assert asyncio.get_running_loop().time() - began >= METADATA_S - 0.02
            assert leg.sound == b"\1\0" * 160


@pytest.mark.parametrize(
    ("first", "then", "found"),
    [
        ("no JSON", None, "no JSON object"),
        ("[]", None, "no JSON object"),
        ("x" * 8193, None, "8193 bytes"),
        ('{"sample_rate":11025}', None, "another sample_rate"),
        ("{}", b"\0" * 321, "321 bytes"),
        ("{}", '{"type":"dtmf","digit":"x"}', "no proper digit"),
    ],
)
async def test_what_is_wrong_is_said_in_the_close_frame(
    first: str, then: bytes | str | None, found: str
) -> None:
    call, other = uuid4(), uuid4()
    async with (
        serving() as house,
        dialled(house, other),
        dialled(house, call, first) as connection,
    ):
        if then is not None:
            await connection.send(then)
        code, reason = await closed_with(connection)
        assert code == 1002 and found in reason
        if then is not None:
            assert (await house.ending(call)).kind == "protocol_error"
        assert not (await house.leg(other)).closed


async def test_another_rate_is_found_within_seconds() -> None:
    async with serving(StreamForm(rate=8000)) as house:
        stream = await start("binary", Started(house.url(call := uuid4()), "{}", rate=16_000))
        ending = await house.ending(call)
        assert ending.kind == "protocol_error" and "times the audio of 8000 Hz" in ending.detail
        await stream.end()


async def test_floods_end_their_own_call_alone() -> None:
    for message in ("hello", '{"type":"dtmf","digit":"1"}', b"", bytes(320)):
        async with serving() as house, dialled(house, uuid4()) as other:
            async with dialled(house, call := uuid4()) as connection:
                with suppress(ConnectionClosed, ConnectionError):
                    for _ in range(20_000):
                        await connection.send(message)
                assert (await house.ending(call)).kind == "flood"
            assert other.close_code is None


async def test_a_socket_that_dies_in_mid_frame_is_a_network_error() -> None:
    async with serving() as house, dialled(house, other := uuid4()):
        connection = await connect(house.url(call := uuid4()), compression=None)
        await connection.send("{}")
        leg = await house.leg(call)
        transport = connection.transport
        transport.write(b"\x82\xfe" + struct.pack(">H", 320) + b"mask" + bytes(100))
        await asyncio.sleep(0.05)
        transport.abort()
        assert (await house.ending(call)).kind == "network_error"
        assert not leg.heard
        assert not (await house.leg(other)).closed


async def test_noise_in_place_of_frames_harms_nobody() -> None:
    chance = random.Random(11)
    async with serving() as house, dialled(house, other := uuid4()):
        for n in range(30):
            reader, writer = await asyncio.open_connection("127.0.0.1", house.server.port)
            if n % 3:
                path = f"/stream/{DOMAIN}/{uuid4()}"
                request = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                request += "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
                writer.write(request.encode())
            writer.write(chance.randbytes(chance.randrange(1, 3000)))
            with suppress(ConnectionError, TimeoutError):
                await asyncio.wait_for(reader.read(2000), 0.1)
            writer.transport.abort()
        assert not (await house.leg(other)).closed


async def test_silence_before_the_call_is_not_waited_for_long() -> None:
    limits = WebsocketLimits(handshake_s=0.2)
    async with serving(limits=limits) as house, dialled(house, uuid4(), None) as connection:
        code, reason = await closed_with(connection)
        assert code == 1008 and "neither metadata nor audio" in reason


async def test_a_refusal_and_a_fault_of_ours_are_told() -> None:
    def fails(endpoint: AudioStreamEndpoint) -> LegSink:
        raise RuntimeError("ours")

    for accept, code in ((lambda _: Refusal("too many"), 1008), (fails, 1011)):
        async with serving(accept=accept) as house, dialled(house, uuid4()) as connection:
            assert (await closed_with(connection))[0] == code


async def test_our_goodbye_comes_behind_what_was_said() -> None:
    for kind in ("binary", "fork", "base64"):
        async with serving(StreamForm(kind)) as house:
            stream = await start(kind, Started(house.url(call := uuid4()), "{}", buffer_ms=60))
            leg = await house.leg(call)
            await asyncio.sleep(0.3)
            leg.to_play = [np.full(160, 5000, "<i2").tobytes()] * 25
            await until(lambda: not leg.to_play)  # noqa: B023
            leg.endpoint.hang_up()
            async with asyncio.timeout(3):
                await stream.connection.wait_closed()
            assert stream.closed == (1000, "hung up by us")
            await asyncio.sleep(0.1)
            stream._catch_up()
            assert stream.heard_ms(5000) == 500
            await stream.end()
            assert not stream.problems


async def test_a_key_that_comes_by_two_ways_counts_once() -> None:
    """A dialplan's script sends them over the stream, and the event socket tells of them too."""
    async with serving() as house:
        for first_by_channel in (True, False):
            call = uuid4()
            stream = await start("base64", Started(house.url(call), "{}"))
            await until(lambda: call in house.legs)  # noqa: B023
            leg = house.legs[call]
            if first_by_channel:
                leg.endpoint.channel_key("5")
            await stream.send_text('{"type":"dtmf","digit":"5"}')
            await until(lambda: leg.endpoint.bytes_received > 60)  # noqa: B023
            await asyncio.sleep(0.05)
            if not first_by_channel:
                leg.endpoint.channel_key("5")
            assert leg.keys == ["5"]
            leg.endpoint.channel_key("x")
            leg.endpoint.channel_key("")
            leg.endpoint.channel_key("a")
            assert leg.keys == (["5", "A"] if first_by_channel else ["5"])
            await stream.end()
            leg.endpoint.channel_key("5")
            assert len(leg.keys) <= 2, "nor after the end"


async def test_a_site_without_files_plays_none() -> None:
    async with serving() as house:
        stream = await start("base64", Started(house.url(uuid4()), '{"playback":"file"}'))
        async with asyncio.timeout(3):
            await stream.connection.wait_closed()
        assert stream.closed[0] == 1002 and "esl.sounds" in stream.closed[1] and house.legs == {}
        await stream.end()
    async with serving(StreamForm("file")) as house:
        stream = await start("base64", Started(house.url(uuid4()), "{}"))
        async with asyncio.timeout(3):
            await stream.connection.wait_closed()
        assert "esl.sounds" in stream.closed[1]
        await stream.end()
