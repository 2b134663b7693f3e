"""The WebSocket endpoint on real sockets: whatever a peer does ends its own call, and harms no other."""

from __future__ import annotations

import asyncio
import base64
import os
import random
import socket
import ssl
import struct
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from structlog.testing import capture_logs
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidMessage

from bridge.endpoints.allow_list import Network
from bridge.endpoints.asterisk_websocket import (
    CALL_VARIABLE,
    AsteriskWebsocketEndpoint,
    AsteriskWebsocketLimits,
    ConnectError,
    connect_media,
)
from bridge.endpoints.asterisk_websocket_server import AsteriskWebsocketServer, Route
from bridge.endpoints.base import LegSink, Refusal, TakesBack
from bridge.endpoints.websocket_connection import tls_of
from tests.endpoints.audiosocket_parties import LOOPBACK, TONE, on_both_loops, until
from tests.endpoints.websocket_parties import Leg, Legs

PATH = "/asterisk/jardim/visitor"
SIZES = {"ulaw": 160, "alaw": 160, "slin": 320, "slin16": 640}


def media_start(call_id: UUID | None, name: str = "slin", **other: Any) -> str:
    variables = {f"__{CALL_VARIABLE}": str(call_id)} if call_id else {}
    tree = {
        "event": "MEDIA_START",
        "connection_id": "porteiro",
        "channel": "WebSocket/porteiro/0x1",
        "channel_id": "17.1",
        "format": name,
        "optimal_frame_size": SIZES[name],
        "ptime": 20,
        "channel_variables": variables,
    }
    return orjson.dumps(tree | other).decode()


@dataclass
class House(Legs[AsteriskWebsocketEndpoint]):
    """A server with its legs."""

    server: AsteriskWebsocketServer = field(kw_only=True)

    def url(self, path: str = PATH) -> str:
        return f"ws://127.0.0.1:{self.server.port}{path}"


@asynccontextmanager
async def serving(
    *,
    allowed: Sequence[Network] = LOOPBACK,
    limits: AsteriskWebsocketLimits | None = None,
    accept: Callable[[AsteriskWebsocketEndpoint], LegSink | Refusal | None] | None = None,
    credentials: tuple[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[House]:
    def take(endpoint: AsteriskWebsocketEndpoint) -> LegSink | Refusal:
        decided = accept(endpoint) if accept else None
        if decided is not None:
            return decided
        leg = house.legs[endpoint.call_id] = Leg(endpoint)
        return leg

    routes = {PATH: Route(take, credentials)}
    server = AsteriskWebsocketServer(["127.0.0.1"], 0, allowed=allowed, routes=routes, limits=limits, tls=tls)
    house = House(server=server)
    await server.start()
    try:
        yield house
    finally:
        await server.stop()
        assert server.calls == server.waiting == 0


class Channel:
    """What chan_websocket does with what it is sent, as far as these tests need it."""

    def __init__(self, connection: ClientConnection | ServerConnection) -> None:
        self.connection = connection
        self.media = bytearray()
        self.commands: list[str] = []
        self.answer_marks = True
        self._reading = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        with suppress(ConnectionClosed):
            async for message in self.connection:
                if isinstance(message, bytes):
                    self.media += message
                    continue
                self.commands.append(message)
                assert len(message) <= 128
                tree = orjson.loads(message) if message[0] == "{" else None
                if self.answer_marks and tree and tree["command"] == "MARK_MEDIA":
                    event = {"event": "MEDIA_MARK_PROCESSED", "channel_id": "1", **tree}
                    await self.connection.send(orjson.dumps(event).decode())
                if self.answer_marks and message.startswith("MARK_MEDIA "):
                    await self.connection.send("MEDIA_MARK_PROCESSED " + message.split()[1])

    async def close_code(self) -> int | None:
        async with asyncio.timeout(5):
            await self.connection.wait_closed()
        return self.connection.close_code

    async def end(self) -> None:
        await self.connection.close()
        await self._reading


@asynccontextmanager
async def calling(house: House, call_id: UUID, name: str = "slin", **options: Any) -> AsyncIterator[Channel]:
    async with connect(house.url(), compression=None, **options) as connection:
        channel = Channel(connection)
        await connection.send(media_start(call_id, name))
        try:
            yield channel
        finally:
            await channel.end()


@asynccontextmanager
async def undisturbed_call(house: House) -> AsyncIterator[None]:
    """A good call beside what happens in the block: it must not lose a frame, nor be late."""
    loop, call_id = asyncio.get_running_loop(), uuid4()
    async with calling(house, call_id) as channel:
        leg, began = await house.leg(call_id), loop.time()
        yield
        await asyncio.sleep(max(0.0, 0.2 - (loop.time() - began)))
        await channel.connection.send(TONE)
        await until(lambda: leg.heard)
        frames, seconds = len(channel.media) / 320, loop.time() - began
        assert abs(frames - seconds * 50) <= 12, f"{frames} frames in {seconds:.2f} s"
        assert not leg.closed and leg.endpoint.frames_dropped == 0


def lines(logs: Sequence[Any], call_id: UUID | None = None) -> list[dict[str, Any]]:
    return [
        dict(line)
        for line in logs
        if line["event"] == "asterisk_websocket.closed"
        and (call_id is None or line["call_id"] == str(call_id))
    ]


# ---- A good call ---------------------------------------------------------------------------------------


@on_both_loops
async def test_a_call_carries_audio_and_keys_both_ways() -> None:
    async with serving() as house:
        call_id = uuid4()
        async with calling(house, call_id) as channel:
            leg = await house.leg(call_id)
            assert isinstance(leg.endpoint, TakesBack)
            assert leg.endpoint.start is not None and leg.endpoint.start.channel == "WebSocket/porteiro/0x1"
            leg.to_play += [TONE] * 3
            await channel.connection.send(TONE + TONE)
            await channel.connection.send('{"event":"DTMF_END","digit":"7"}')
            await channel.connection.send([TONE[:100], TONE[100:]])  # in fragments
            await until(lambda: channel.media.count(TONE) == 3 and len(leg.heard) == 2)
            assert leg.heard == [(TONE + TONE, 8000), (TONE, 8000)] and leg.keys == ["7"]
            assert channel.commands[0] == '{"command":"ANSWER"}'
        ended = await house.ending(call_id)
        assert ended.kind == "hangup" and "1000" in ended.detail


async def test_plain_text_is_answered_in_plain_text_and_a_channels_id_may_name_the_call() -> None:
    """As ARI makes a channel with channelId = the attempt's UUID."""
    async with serving() as house, connect(house.url(), compression=None) as connection:
        call_id, channel = uuid4(), Channel(connection)
        await connection.send(
            f"MEDIA_START connection_id:c channel:WebSocket/c/0x1 channel_id:{call_id} format:ulaw "
            "optimal_frame_size:160 ptime:20"
        )
        leg = await house.leg(call_id)
        await connection.send(b"\xff" * 160)
        await connection.send(f"DTMF_END digit:* channel_id:{call_id}")
        await until(lambda: leg.keys == ["*"] and leg.heard == [(bytes(320), 8000)])
        await until(lambda: any(each.startswith("MARK_MEDIA ") for each in channel.commands))
        assert channel.commands[0] == "ANSWER" and set(channel.media) == {0xFF}
        leg.endpoint.hang_up()
        assert await channel.close_code() == 1000
        assert channel.commands[-2:] == ["MARK_MEDIA goodbye", "HANGUP"]
        await channel.end()
        assert (await house.ending(call_id)).kind == "local"


async def test_wideband_goes_up_as_it_is_and_down_in_whole_frames() -> None:
    async with serving() as house:
        call_id = uuid4()
        async with calling(house, call_id, "slin16") as channel:
            leg = await house.leg(call_id)
            await channel.connection.send(bytes(640))
            await until(lambda: leg.heard == [(bytes(640), 16_000)] and len(channel.media) > 6400)
            assert len(channel.media) % 640 == 0


async def test_audio_before_media_start_is_heard() -> None:
    async with serving() as house, connect(house.url(), compression=None) as connection:
        call_id, channel = uuid4(), Channel(connection)
        await connection.send(TONE)
        await connection.send(media_start(call_id))
        leg = await house.leg(call_id)
        await until(lambda: leg.heard == [(TONE, 8000)])
        await channel.end()


async def test_a_flush_goes_out_at_once_and_says_what_nobody_heard() -> None:
    async with serving() as house:
        call_id = uuid4()
        async with calling(house, call_id) as channel:
            leg = await house.leg(call_id)
            leg.to_play += [TONE] * 50
            await until(lambda: channel.media.count(TONE) > 10)
            leg.to_play.clear()
            assert 100 < leg.endpoint.flush() < 800, "two to three frames"
            await until(lambda: '{"command":"FLUSH_MEDIA"}' in channel.commands)
            heard = channel.media.count(TONE)
            await asyncio.sleep(0.1)
            assert channel.media.count(TONE) == heard
        assert leg.endpoint.flush() == 0


async def test_nothing_is_sent_between_xoff_and_xon() -> None:
    async with serving() as house:
        call_id = uuid4()
        async with calling(house, call_id) as channel:
            await house.leg(call_id)
            await until(lambda: len(channel.media) > 3200)
            await channel.connection.send('{"event":"MEDIA_XOFF"}')
            await asyncio.sleep(0.1)
            before = len(channel.media)
            await asyncio.sleep(0.2)
            assert len(channel.media) == before
            await channel.connection.send('{"event":"MEDIA_XON"}')
            await until(lambda: len(channel.media) > before)


async def test_a_hang_up_waits_for_the_last_words_but_not_for_ever() -> None:
    async with serving() as house:
        call_id = uuid4()
        async with calling(house, call_id) as channel:
            leg = await house.leg(call_id)
            channel.answer_marks = False
            began = asyncio.get_running_loop().time()
            leg.endpoint.hang_up()
            leg.endpoint.hang_up()
            assert leg.endpoint.ended
            assert await channel.close_code() == 1000
            assert 0.4 < asyncio.get_running_loop().time() - began < 1.5
            leg.endpoint.play(TONE)  # after the end it does nothing
        with pytest.raises(ValueError, match="320"):
            leg.endpoint.play(b"x")


async def test_a_hang_up_sends_what_waits_for_room_downstream_before_it() -> None:
    async with serving() as house:
        call_id = uuid4()
        async with calling(house, call_id) as channel:
            leg = await house.leg(call_id)
            for _ in range(8):  # what a clock makes good
                leg.endpoint.play(TONE)
            leg.endpoint.hang_up()
            assert await channel.close_code() == 1000
            assert channel.media.count(TONE) == 8


async def test_stop_hangs_up_every_call() -> None:
    async with serving() as house:
        calls = [uuid4() for _ in range(3)]
        async with calling(house, calls[0]), calling(house, calls[1]), calling(house, calls[2]) as last:
            for call_id in calls:
                await house.leg(call_id)
            await house.server.stop()
            assert await last.close_code() == 1000
        assert [(await house.ending(call_id)).kind for call_id in calls] == ["local"] * 3


# ---- Who may ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/asterisk/other/visitor", 404),
        ("/", 404),
        (PATH + "/", 404),
        (PATH + "?x=" + "y" * 3000, 101),
        ("//[", 400),
    ],
)
async def test_only_known_paths_lead_anywhere(path: str, status: int) -> None:
    with capture_logs() as logs:
        async with serving() as house:
            assert await http_status(house, path) == status
        assert len(lines(logs)) == 1


async def http_status(house: House, path: str, *headers: str) -> int:
    """What a handshake is answered with."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.server.port)
    key = base64.b64encode(os.urandom(16)).decode()
    head = [f"GET {path} HTTP/1.1", "Host: x", "Upgrade: websocket", "Connection: Upgrade"]
    head += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", *headers]
    writer.write(("\r\n".join(head) + "\r\n\r\n").encode())
    async with asyncio.timeout(5):
        line = await reader.readline()
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    return int(line.split()[1])


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ([], 401),
        (["Authorization: Basic " + base64.b64encode(b"asterisk:right").decode()], 101),
        (["Authorization: Basic " + base64.b64encode(b"asterisk:wrong").decode()], 401),
        (["Authorization: Basic " + base64.b64encode(b"other:right").decode()], 401),
        (["Authorization: Basic " + base64.b64encode(b":").decode()], 401),
        (["Authorization: Basic %%%"], 401),
        (["Authorization: Bearer right"], 401),
        (["Authorization: Basic " + base64.b64encode(b"asterisk:right").decode()] * 2, 401),
    ],
)
async def test_credentials_are_asked_for_and_checked(given: list[str], status: int) -> None:
    with capture_logs() as logs:
        async with serving(credentials=("asterisk", "right")) as house:
            assert await http_status(house, PATH, *given) == status
        assert "right" not in str(logs)


async def test_empty_credentials_do_not_open_the_door() -> None:
    async with serving(credentials=("", "")) as house:
        assert await http_status(house, PATH) == 401


async def test_other_addresses_are_turned_away_before_a_byte_is_read() -> None:
    with capture_logs() as logs:
        async with serving(allowed=[ip_network("10.0.0.0/8")]) as house:
            with pytest.raises((OSError, InvalidMessage)):
                await connect(house.url(), open_timeout=2)
            await until(lambda: lines(logs))
            assert lines(logs)[0]["reason"] == "refused" and lines(logs)[0]["bytes_received"] == 0
            assert "allowed are 10.0.0.0/8" in lines(logs)[0]["detail"]


async def test_a_closed_route_takes_nobody_new_and_lets_the_others_talk() -> None:
    async with serving() as house, undisturbed_call(house):
        house.server.close_route(PATH)
        assert await http_status(house, PATH) == 503


async def test_a_refused_call_was_never_answered() -> None:
    with capture_logs() as logs:
        async with serving(accept=lambda _: Refusal("nobody home")) as house:
            call_id = uuid4()
            async with calling(house, call_id) as channel:
                assert await channel.close_code() == 1008
                assert channel.commands == [] and not channel.media
        (line,) = lines(logs, call_id)
        assert (line["reason"], line["detail"]) == ("refused", "nobody home")


@pytest.mark.parametrize(
    "message",
    [
        media_start(None),
        media_start(None, channel_variables={CALL_VARIABLE: "no uuid"}),
        media_start(None, channel_variables={CALL_VARIABLE: str(uuid4()), f"_{CALL_VARIABLE}": str(uuid4())}),
        media_start(uuid4(), format="opus"),
        media_start(uuid4(), optimal_frame_size=0),
        '{"event":"DTMF_END","digit":"1"}',
        "nonsense",
        "",
    ],
)
async def test_what_does_not_begin_as_it_should_is_no_call(message: str) -> None:
    with capture_logs() as logs:
        async with serving() as house, undisturbed_call(house):
            async with connect(house.url(f"{PATH}?call={uuid4()}"), compression=None) as connection:
                await connection.send(message)
                channel = Channel(connection)
                assert await channel.close_code() == 1002
            assert len(house.legs) == 1
        assert sorted(line["reason"] for line in lines(logs)) == ["hangup", "protocol_error"]


async def test_our_own_fault_ends_one_call_and_is_logged_with_its_trace() -> None:
    def accept(endpoint: AsteriskWebsocketEndpoint) -> None:
        if endpoint.call_id == broken:
            raise RuntimeError("broken leg")

    broken = uuid4()
    with capture_logs() as logs:
        async with (
            serving(accept=accept) as house,
            undisturbed_call(house),
            calling(house, broken) as channel,
        ):
            assert await channel.close_code() == 1011
        (line,) = lines(logs, broken)
        assert line["log_level"] == "error" and isinstance(line["exc_info"], RuntimeError)


# ---- Limits --------------------------------------------------------------------------------------------

SHORT = AsteriskWebsocketLimits(handshake_s=0.2, idle_s=0.3, slow_reader_s=0.2, linger_s=0.3)


@pytest.mark.parametrize("sends", [b"", b"GET / HTTP/1.1\r\n", b"upgraded"])
async def test_a_connection_without_a_call_has_a_deadline(sends: bytes) -> None:
    with capture_logs() as logs:
        async with serving(limits=SHORT) as house:
            if sends == b"upgraded":
                async with connect(house.url(), compression=None) as connection:
                    assert await Channel(connection).close_code() == 1008
            else:
                reader, writer = await asyncio.open_connection("127.0.0.1", house.server.port)
                writer.write(sends)
                with suppress(ConnectionError):
                    async with asyncio.timeout(2):
                        assert await reader.read() == b""
                writer.close()
        assert [line["reason"] for line in lines(logs)] == ["timeout"]


async def test_a_silent_call_ends() -> None:
    async with serving(limits=SHORT) as house:
        call_id = uuid4()
        async with connect(house.url(), compression=None) as connection:
            channel = Channel(connection)
            channel.answer_marks = False
            await connection.send(media_start(call_id))
            assert await channel.close_code() == 1008
        assert (await house.ending(call_id)).kind == "timeout"


async def test_an_endless_http_request_is_cut_off() -> None:
    with capture_logs() as logs:
        async with serving() as house:
            reader, writer = await asyncio.open_connection("127.0.0.1", house.server.port)
            with suppress(ConnectionError):
                writer.write(
                    b"GET / HTTP/1.1\r\n" + b"".join(b"a%d: %s\r\n" % (n, b"x" * 400) for n in range(100))
                )
                await writer.drain()
                async with asyncio.timeout(2):
                    assert await reader.read() == b""
            writer.close()
        assert [line["reason"] for line in lines(logs)] == ["protocol_error"]


async def test_a_flood_is_cut_off_and_nobody_else_notices() -> None:
    """Of speech, of tiny messages, of pings, of empty fragments: all cost time, none may cost the others."""
    with capture_logs() as logs:
        async with serving() as house, undisturbed_call(house):
            floods: list[list[bytes]] = [
                [frame(0x2, bytes(16_000))] * 40,
                [frame(0x2, b"\0\0")] * 20_000,
                [frame(0x9, b"")] * 20_000,
                [frame(0x2, b"", fin=False)] + [frame(0x0, b"", fin=False)] * 20_000,
                [frame(0x1, b'{"event":"DTMF_END","digit":"1"}')] * 5_000,
            ]
            for flood in floods:
                call_id = uuid4()
                reader, writer = await upgraded(house)
                writer.write(frame(0x1, media_start(call_id).encode()))
                with suppress(ConnectionError):
                    for at in range(0, len(flood), 500):
                        writer.write(b"".join(flood[at : at + 500]))
                        await writer.drain()
                    async with asyncio.timeout(5):
                        while await reader.read(65_536):
                            pass
                writer.close()
                assert (await house.ending(call_id)).kind == "flood"
        assert len(lines(logs)) == 6


def frame(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """A client's frame, masked with zeros."""
    head = bytes([opcode | (0x80 if fin else 0)])
    if len(payload) < 126:
        head += bytes([0x80 | len(payload)])
    else:
        head += bytes([0x80 | 126]) + struct.pack(">H", len(payload))
    return head + bytes(4) + payload


async def upgraded(house: House) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection behind its handshake, for frames of our own making."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.server.port)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET {PATH} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def test_too_long_a_message_and_too_much_early_audio_are_refused() -> None:
    with capture_logs() as logs:
        async with serving() as house, undisturbed_call(house):
            async with connect(house.url(), compression=None) as connection:
                await connection.send(bytes(65_501))
                assert await Channel(connection).close_code() == 1009
            async with connect(house.url(), compression=None) as connection:
                for _ in range(5):
                    await connection.send(bytes(16_000))
                assert await Channel(connection).close_code() == 1002
        assert sorted(line["reason"] for line in lines(logs)) == [
            "hangup",
            "protocol_error",
            "protocol_error",
        ]


async def test_a_peer_that_does_not_read_ends_its_own_call() -> None:
    async with serving(limits=SHORT) as house:
        call_id = uuid4()
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", house.server.port))
        _, writer = await asyncio.open_connection(sock=connection, limit=1)
        key = base64.b64encode(os.urandom(16)).decode()
        writer.write(
            f"GET {PATH} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
            + frame(0x1, media_start(call_id).encode())
        )
        leg = await house.leg(call_id)
        for _ in range(3000):
            if leg.closed:
                break
            await asyncio.sleep(0.01)
            writer.write(frame(0x2, bytes(320)))
            leg.endpoint.play(TONE)  # beside the leg's own ticks, so as not to take minutes
            leg.endpoint._down._queue = 0.0  # type: ignore[union-attr]
        assert (await house.ending(call_id)).kind == "slow_reader"
        assert leg.endpoint.frames_dropped > 5
        writer.close()


async def test_silent_connections_cannot_keep_a_call_out() -> None:
    limits = AsteriskWebsocketLimits(waiting=8)
    async with serving(limits=limits) as house:
        idle = [await asyncio.open_connection("127.0.0.1", house.server.port) for _ in range(30)]
        await until(lambda: house.server.waiting == 8)
        async with undisturbed_call(house):
            pass
        for _, writer in idle:
            writer.close()


async def test_a_caller_in_a_crowd_of_silent_connections_from_its_own_address_is_answered() -> None:
    """All of them are there before the caller has said anything."""
    limits = AsteriskWebsocketLimits(handshake_s=10, spared_s=5)
    async with serving(limits=limits) as house:
        where = ("127.0.0.1", house.server.port)
        crowd = [socket.create_connection(where) for _ in range(100)]
        caller = socket.create_connection(where)
        crowd += [socket.create_connection(where) for _ in range(100)]
        await until(lambda: house.server.waiting == 201)
        call_id = uuid4()
        async with calling(house, call_id, sock=caller) as channel:
            await until(lambda: len(channel.media) > 3200)
            assert not (await house.leg(call_id)).closed
        for each in crowd:
            each.close()


async def test_a_reset_ends_the_call_with_one_line() -> None:
    with capture_logs() as logs:
        async with serving() as house:
            call_id = uuid4()
            _, writer = await upgraded(house)
            writer.write(frame(0x1, media_start(call_id).encode()))
            await house.leg(call_id)
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.close()
            assert (await house.ending(call_id)).kind == "network_error"
        assert len(lines(logs, call_id)) == 1


@pytest.mark.parametrize("seed", range(6))
async def test_no_interleaving_of_text_and_binary_breaks_another_call(seed: int) -> None:
    """Frames of any kind in any order and any cut: each such call ends or lives, with at most one line."""
    dice = random.Random(seed)
    texts = [b"", b"{", b"MEDIA_XOFF", b"MEDIA_XON", b"DTMF_END digit:1 channel_id:1", b"\xff", b"GET_STATUS"]
    texts += [
        b'{"event":"MEDIA_MARK_PROCESSED","correlation_id":"10"}',
        b'{"event":"MEDIA_XOFF"}',
        b"ERROR x",
    ]
    with capture_logs() as logs:
        async with serving(limits=AsteriskWebsocketLimits(handshake_s=1, linger_s=0.2)) as house:
            async with undisturbed_call(house):
                for _ in range(40):
                    await one_odd_call(house, dice, texts)
            await until(lambda: house.server.waiting == 0)
        for leg in house.legs.values():
            assert len(leg.closed) == 1
        assert len(lines(logs)) == 41
        assert not [line for line in logs if line["log_level"] == "error"]


async def one_odd_call(house: House, dice: random.Random, texts: list[bytes]) -> None:
    reader, writer = await upgraded(house)
    data = bytearray()
    start = frame(0x1, media_start(uuid4(), dice.choice(list(SIZES))).encode())
    for _ in range(dice.randrange(1, 25)):
        match dice.randrange(9):
            case 0 | 1:
                data += start
            case 2 | 3:
                data += frame(0x2, dice.randbytes(dice.choice((0, 1, 2, 160, 320, 640, 20_000))))
            case 4 | 5:
                data += frame(0x1, dice.choice(texts))
            case 6:
                data += frame(dice.choice((0x0, 0x1, 0x2)), dice.randbytes(9), fin=dice.random() < 0.5)
            case 7:
                data += frame(dice.choice((0x8, 0x9, 0xA)), dice.choice((b"", b"\x03\xe8", b"x")))
            case _:
                data += dice.randbytes(dice.randrange(1, 5)) if dice.random() < 0.3 else b""
    with suppress(OSError):
        while data:
            cut = dice.randrange(1, 3000)
            writer.write(bytes(data[:cut]))
            del data[:cut]
            await asyncio.sleep(0)
        if dice.random() < 0.5 and writer.can_write_eof():
            writer.write_eof()
        with suppress(TimeoutError):
            async with asyncio.timeout(0.02):
                await reader.read(1000)
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


# ---- TLS, and the other direction ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder / "cert.pem", folder / "key.pem"


@on_both_loops
async def test_tls(certificate: tuple[Path, Path]) -> None:
    trust = ssl.create_default_context(cafile=str(certificate[0]))
    async with serving(tls=tls_of(*certificate)) as house:
        call_id = uuid4()
        url = house.url().replace("ws://", "wss://")
        async with connect(url, compression=None, ssl=trust) as connection:
            channel = Channel(connection)
            await connection.send(media_start(call_id))
            leg = await house.leg(call_id)
            await connection.send(TONE)
            await until(lambda: leg.heard == [(TONE, 8000)] and len(channel.media) > 3200)
            leg.endpoint.hang_up()
            assert await channel.close_code() == 1000
            await channel.end()
        assert (await house.ending(call_id)).kind == "local"


def test_what_is_no_certificate_is_an_error_that_says_so(certificate: tuple[Path, Path]) -> None:
    with pytest.raises(OSError):
        tls_of(certificate[1], certificate[0])


@asynccontextmanager
async def asterisk_http(
    handler: Callable[[ServerConnection], Any],
) -> AsyncIterator[int]:
    async with serve(handler, "127.0.0.1", 0, compression=None) as server:
        yield next(iter(server.sockets)).getsockname()[1]


async def test_we_fetch_the_media_of_a_channel_that_waits() -> None:
    call_id, legs = uuid4(), list[Leg[AsteriskWebsocketEndpoint]]()
    channels: list[Channel] = []

    async def handler(connection: ServerConnection) -> None:
        assert connection.request is not None and connection.request.path == "/media/abc"
        assert connection.request.headers["Authorization"] == "Basic " + base64.b64encode(b"u:p").decode()
        channels.append(Channel(connection))
        await connection.send(media_start(None, "alaw"))
        await connection.send(b"\xd5" * 160)
        await connection.wait_closed()

    def accept(endpoint: AsteriskWebsocketEndpoint) -> LegSink:
        legs.append(Leg(endpoint))
        return legs[0]

    async with asterisk_http(handler) as port:
        url = f"ws://127.0.0.1:{port}/media/abc"
        endpoint = await connect_media(url, call_id=call_id, accept=accept, username="u", password="p")
        assert endpoint.call_id == call_id and endpoint is legs[0].endpoint
        await until(lambda: legs[0].heard and len(channels[0].media) > 1600)
        assert legs[0].heard[0][1] == 8000
        endpoint.hang_up()
        assert await channels[0].close_code() == 1000
        await until(lambda: legs[0].closed)
        assert legs[0].closed[0].kind == "local"


async def test_a_channel_that_is_not_there_is_said_so() -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.wait_closed()

    limits = AsteriskWebsocketLimits(handshake_s=0.3, linger_s=0.2)
    options: dict[str, Any] = {"call_id": uuid4(), "accept": lambda _: Refusal("no"), "limits": limits}
    async with asterisk_http(handler) as port:
        with pytest.raises(ConnectError, match="no MEDIA_START"):
            await connect_media(f"ws://127.0.0.1:{port}/media/x", **options)
    del options["limits"]  # the next ones are answered, on a busy machine a little later
    with pytest.raises(ConnectError):
        await connect_media(f"ws://127.0.0.1:{port}/media/x", **options)
    with pytest.raises(ValueError, match="URL"):
        await connect_media("nonsense", **options)
    async with serving() as house:
        with pytest.raises(ConnectError, match="404"):
            await connect_media(house.url("/media/gone"), **options)


async def test_a_refused_call_of_ours_is_an_error() -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.send(media_start(None))
        await connection.wait_closed()

    async with asterisk_http(handler) as port:
        with pytest.raises(ConnectError, match="not now"):
            await connect_media(
                f"ws://127.0.0.1:{port}/media/x", call_id=uuid4(), accept=lambda _: Refusal("not now")
            )
