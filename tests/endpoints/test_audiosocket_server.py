"""The AudioSocket server on real sockets: whatever a peer does ends its own call, and harms no other.

What rests on a transport's behaviour is tested on both event loops that the service can run on.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Sequence
from ipaddress import ip_network
from typing import cast
from uuid import UUID, uuid4

import pytest
from structlog.testing import capture_logs

from bridge.endpoints.audiosocket import READ_BYTES, AudioSocketEndpoint, AudioSocketLimits, AudioSocketServer
from bridge.endpoints.audiosocket_frames import (
    HANGUP,
    SLIN8_HEADER,
    encode_audio,
    encode_error,
    encode_key,
    encode_uuid,
)
from bridge.endpoints.base import EndpointClosed, Refusal
from bridge.softphone import SILENCE, Softphone
from tests.endpoints.audiosocket_parties import (
    TONE,
    Leg,
    Peer,
    lines_about,
    on_both_loops,
    serving,
    the_line_about,
    undisturbed_call,
    until,
)

FRAME = encode_audio(TONE)


# ---- A good call ---------------------------------------------------------------------------------------


@on_both_loops
async def test_a_call_carries_audio_and_keys_both_ways() -> None:
    async with serving() as service:
        peer, call_id = await Peer.call(service.port)
        await peer.send(
            encode_audio(TONE) + encode_key("7") + encode_audio(bytes(640), 16000) + encode_key("#")
        )
        leg = await service.leg(call_id)
        leg.to_play.append(TONE)
        await asyncio.sleep(0.1)
        assert leg.endpoint.call_id == call_id
        assert leg.endpoint.kind == "audiosocket"
        assert leg.endpoint.peer == peer.address
        assert leg.heard == [(TONE, 8000), (bytes(640), 16000)]
        assert leg.keys == ["7", "#"]
        assert leg.endpoint.bytes_received == 19 + 323 + 4 + 643 + 4
        leg.endpoint.hang_up()
        wire = await peer.read_to_end()
        assert wire.endswith(HANGUP)
        assert wire.count(SLIN8_HEADER) == leg.endpoint.frames_sent == (len(wire) - 3) / 323
        assert SLIN8_HEADER + TONE in wire
        peer.close()


@on_both_loops
async def test_silence_flows_every_20_ms_from_the_uuid_on() -> None:
    async with serving() as service, undisturbed_call(service) as phone:
        await asyncio.sleep(0.6)
        assert phone.arrivals[0] - phone.started < 0.1
        assert set(phone.heard) == {0}


@on_both_loops
async def test_accept_is_asked_at_once_and_knows_the_call() -> None:
    asked: list[tuple[UUID, str, bool]] = []

    def accept(endpoint: AudioSocketEndpoint) -> None:
        asked.append((endpoint.call_id, endpoint.peer, endpoint.ended))

    async with serving(accept=accept) as service:
        call_id = UUID("0123456789abcdeffedcba9876543210")
        peer = await Peer.connect(service.port)
        await peer.send(bytes.fromhex("01 0010 0123456789abcdeffedcba9876543210"))
        await service.leg(call_id)
        assert asked == [(call_id, peer.address, False)]
        peer.close()


@on_both_loops
async def test_the_sockets_are_set_up_for_speech() -> None:
    async with serving(hosts=["127.0.0.1", "::1"]) as service:
        for host in ("127.0.0.1", "::1"):
            peer, call_id = await Peer.call(service.port, host=host)
            endpoint = (await service.leg(call_id)).endpoint
            transport = endpoint._transport
            assert transport is not None
            connection = transport.get_extra_info("socket")
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            # Linux doubles what is asked for; megabytes of it would be speech that can't be taken back.
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 64 * 1024
            peer.close()


@on_both_loops
async def test_ipv6_and_ipv4_share_one_free_port() -> None:
    with capture_logs() as logs:
        async with serving(hosts=["127.0.0.1", "::1"]) as service:
            assert service.server.ports == {"127.0.0.1": service.port, "::1": service.port}
            async with undisturbed_call(service, "::1") as six, undisturbed_call(service) as four:
                pass
        for phone, start in ((six, "[::1]:"), (four, "127.0.0.1:")):
            assert (await the_line_about(logs, phone.call_id))["peer"].startswith(start)


@on_both_loops
async def test_ipv4_in_its_ipv6_dress_is_recognised() -> None:
    """`::` alone takes IPv4 too; the kernel then shows 127.0.0.1 as ::ffff:127.0.0.1."""
    allowed = [ip_network("127.0.0.0/8")]
    async with serving(hosts=["::"], allowed=allowed) as service, undisturbed_call(service):
        (leg,) = service.legs.values()
        assert leg.endpoint.host == "::ffff:127.0.0.1"


async def test_a_taken_port_is_named() -> None:
    async with serving() as service:
        second = AudioSocketServer(["127.0.0.1"], service.port, allowed=[], accept=Leg)
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {service.port}: "):
            await second.start()


async def test_nobody_may_connect_where_nobody_is_allowed() -> None:
    with capture_logs() as logs:
        async with serving(allowed=[]) as service:
            peer = await Peer.connect(service.port)
            assert await peer.is_cut_off() == b""
            line = await the_line_about(logs, peer.address)
            assert line["detail"] == "found the address 127.0.0.1; allowed are none"
            peer.close()


# ---- Endings -------------------------------------------------------------------------------------------


@on_both_loops
async def test_our_hang_up_comes_behind_all_that_was_played_even_while_the_peer_talks() -> None:
    """A close with unread audio would reset the connection, and the peer would lose the goodbye's end."""
    with capture_logs() as logs:
        async with serving() as service:
            for _ in range(6):
                async with Softphone("127.0.0.1", service.port, uuid4()) as phone:
                    leg = await service.leg(phone.call_id)
                    await asyncio.sleep(0.03)
                    for _ in range(8):
                        leg.endpoint.play(TONE)
                    phone.say_nowait(TONE * 10)
                    leg.endpoint.hang_up()
                    leg.endpoint.hang_up()
                    leg.endpoint.play(TONE)
                    assert leg.closed == [], "the leg must not be called from within its own hang_up"
                    async with asyncio.timeout(2):
                        how = await phone.closed
                assert how.kind == "hangup"
                assert phone.heard.endswith(TONE * 8)
                assert len(phone.heard) == leg.endpoint.frames_sent * 320
                assert await service.ending(phone.call_id) == EndpointClosed("local", "hung up by us")
                assert (await the_line_about(logs, phone.call_id))["log_level"] == "info"


@on_both_loops
async def test_a_peer_that_closes_has_hung_up() -> None:
    with capture_logs() as logs:
        async with serving() as service, undisturbed_call(service):
            peer, call_id = await Peer.call(service.port)
            await service.leg(call_id)
            peer.close()
            ended = await service.ending(call_id)
            assert ended.kind == "hangup"
            line = await the_line_about(logs, call_id)
            assert line["log_level"] == "info" and line["reason"] == "hangup"


@on_both_loops
async def test_a_peer_that_closes_with_our_audio_unread_has_hung_up_too() -> None:
    """Asterisk just closes; with a frame of ours in its buffer the kernel makes that a reset."""
    async with serving() as service, undisturbed_call(service):
        peer, call_id = await Peer.call(service.port)
        await service.leg(call_id)
        await asyncio.sleep(0.05)
        peer.reset()
        assert (await service.ending(call_id)).kind == "hangup"


@on_both_loops
async def test_a_close_in_the_middle_of_a_frame_is_a_hang_up_that_says_so() -> None:
    async with serving() as service:
        peer, call_id = await Peer.call(service.port)
        await peer.send(FRAME[:100])
        await service.leg(call_id)
        peer.socket.shutdown(socket.SHUT_WR)
        assert await service.ending(call_id) == EndpointClosed(
            "hangup", "the peer closed the connection, 100 bytes into a frame"
        )
        peer.close()


@on_both_loops
async def test_a_peer_may_send_the_hang_up_frame() -> None:
    async with serving() as service:
        peer, call_id = await Peer.call(service.port)
        await peer.send(encode_key("1") + HANGUP + b"whatever")
        assert (await service.ending(call_id)).kind == "hangup"
        assert (await service.leg(call_id)).keys == ["1"]
        assert await peer.is_cut_off()
        peer.close()


@pytest.mark.parametrize(
    ("code", "kind"), [(0x01, "hangup"), (0x02, "network_error"), (0x04, "network_error")]
)
async def test_a_peer_may_report_an_error(code: int, kind: str) -> None:
    async with serving() as service:
        peer, call_id = await Peer.call(service.port)
        await peer.send(encode_error(code))
        ended = await service.ending(call_id)
        assert ended.kind == kind
        assert f"0x0{code}" in ended.detail
        peer.close()


@on_both_loops
async def test_a_peer_that_ignores_our_hang_up_is_left_after_the_linger() -> None:
    limits = AudioSocketLimits(linger_s=0.3)
    async with serving(limits=limits) as service:
        peer, call_id = await Peer.call(service.port)
        (await service.leg(call_id)).endpoint.hang_up()
        assert (await peer.read_to_end()).endswith(HANGUP)
        await asyncio.sleep(0.1)
        assert service.server.calls == 1
        await asyncio.sleep(0.4)
        assert service.server.calls == 0
        peer.close()


@on_both_loops
async def test_a_refused_call_gets_a_hang_up_and_one_line() -> None:
    with capture_logs() as logs:
        refuse = uuid4()

        def accept(endpoint: AudioSocketEndpoint) -> Refusal | None:
            return Refusal("no dial with this UUID is running") if endpoint.call_id == refuse else None

        async with serving(accept=accept) as service, undisturbed_call(service):
            peer = await Peer.connect(service.port)
            await peer.send(encode_uuid(refuse) + FRAME)
            assert await peer.read_to_end() == HANGUP
            peer.close()
            line = await the_line_about(logs, refuse)
            assert line["reason"] == "refused" and line["detail"] == "no dial with this UUID is running"
            assert refuse not in service.legs


@on_both_loops
async def test_stopping_refuses_new_calls_lets_old_ones_go_on_and_then_hangs_up() -> None:
    async with serving() as service, undisturbed_call(service):
        waiting = await Peer.connect(service.port)
        await asyncio.sleep(0.05)
        service.server.stop_accepting()
        await waiting.send(encode_uuid(uuid4()))
        assert await waiting.read_to_end() == HANGUP
        waiting.close()
        with pytest.raises(ConnectionRefusedError):
            await Peer.connect(service.port)
    async with serving() as service:
        phones = [Softphone("127.0.0.1", service.port, uuid4()) for _ in range(5)]
        for phone in phones:
            await phone.__aenter__()
            await service.leg(phone.call_id)
        await service.server.stop()
        assert service.server.calls == 0
        for phone in phones:
            assert (await phone.closed).kind == "hangup"
            assert (await service.ending(phone.call_id)).kind == "local"
            await phone.__aexit__(None, None, None)


@on_both_loops
async def test_a_port_is_opened_again_while_a_call_goes_on() -> None:
    async with serving() as service, undisturbed_call(service):
        port = service.port
        for _ in range(3):
            await service.server.reopen()
            assert service.server.port == port
            async with Softphone("127.0.0.1", port, uuid4()) as phone:
                await service.leg(phone.call_id)
        service.server.stop_accepting()
        await asyncio.sleep(0.1)
        with socket.create_server(("127.0.0.1", port)), pytest.raises(OSError, match=str(port)):
            await service.server.reopen()
        await service.server.reopen()


# ---- Peers that break the protocol ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("garbage", "found"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "kind 0x47 as the first frame"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "kind 0x16 as the first frame"),
        (b"\xff" * 5000, "kind 0xff as the first frame"),
        (FRAME, "kind 0x10 as the first frame"),
        (HANGUP, "kind 0x00 as the first frame"),
        (b"\x01\x00\x24" + b"6d6bc95a-0001-4000-8000-000000000000", "kind 0x01 with 36 bytes"),
    ],
)
async def test_a_wrong_first_frame_ends_that_connection_only(garbage: bytes, found: str) -> None:
    with capture_logs() as logs:
        async with serving() as service, undisturbed_call(service):
            peer = await Peer.connect(service.port)
            await peer.send(garbage)
            assert await peer.is_cut_off() == b""
            line = await the_line_about(logs, peer.address)
            assert line["reason"] == "protocol_error" and line["log_level"] == "warning"
            assert found in line["detail"] and "allowed is" in line["detail"]
            assert line["call_id"] is None
            assert len(service.legs) == 1
            peer.close()


@pytest.mark.parametrize(
    ("bad", "found"),
    [
        (b"\x10\xff\xff", "kind 0x10 with 65535 bytes"),
        (b"\x10\x01\x41" + bytes(321), "audio of 321 bytes"),
        (b"\x02\x00\x00", "kind 0x02"),
        (b"\x03\x00\x02##", "kind 0x03 with 2 bytes"),
        (b"\x03\x00\x01\x00", "the key 0x00"),
        (encode_uuid(UUID(int=7)), "a second UUID frame"),
        (b"\x00\x00\x01x", "kind 0x00 with 1 bytes"),
    ],
)
async def test_a_malformed_frame_ends_that_call_only(bad: bytes, found: str) -> None:
    with capture_logs() as logs:
        async with serving() as service, undisturbed_call(service):
            peer, call_id = await Peer.call(service.port)
            await peer.send(FRAME + encode_key("5") + bad + FRAME)
            ended = await service.ending(call_id)
            assert ended.kind == "protocol_error"
            assert found in ended.detail and "allowed is" in ended.detail
            leg = service.legs[call_id]
            assert leg.heard == [(TONE, 8000)] and leg.keys == ["5"], (
                "what came before it counts, nothing after"
            )
            line = await the_line_about(logs, call_id)
            assert line["peer"] == peer.address and line["detail"] == ended.detail
            assert await peer.is_cut_off()
            peer.close()


@on_both_loops
async def test_an_address_outside_the_networks_is_refused_before_a_byte_is_read() -> None:
    with capture_logs() as logs:
        async with serving(allowed=[ip_network("127.0.0.1/32")]) as service, undisturbed_call(service):
            peer = await Peer.connect(service.port, source="127.0.0.2")
            await peer.send_until_closed(encode_uuid(uuid4()) + FRAME, 1)
            assert await peer.is_cut_off() == b""
            line = await the_line_about(logs, peer.address)
            assert line["reason"] == "refused" and line["bytes_received"] == 0
            assert line["detail"] == "found the address 127.0.0.2; allowed are 127.0.0.1/32"
            assert len(service.legs) == 1
            peer.close()


# ---- Peers that say nothing ----------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", encode_uuid(UUID(int=7))[:18]], ids=["nothing", "half a frame"])
@on_both_loops
async def test_without_a_uuid_in_time_the_connection_ends(sent: bytes) -> None:
    limits = AudioSocketLimits(handshake_s=0.3)
    with capture_logs() as logs:
        async with serving(limits=limits) as service, undisturbed_call(service):
            peer = await Peer.connect(service.port)
            await peer.send(sent)
            await asyncio.sleep(0.1)
            assert lines_about(logs, peer.address) == []
            await peer.is_cut_off()
            line = await the_line_about(logs, peer.address)
            assert line["reason"] == "timeout"
            assert line["detail"] == f"found {len(sent)} bytes and no UUID frame; allowed are 0.3 s"
            peer.close()


@on_both_loops
async def test_the_handshake_deadline_does_not_follow_a_call() -> None:
    async with serving(limits=AudioSocketLimits(handshake_s=0.2)) as service, undisturbed_call(service):
        await asyncio.sleep(0.5)


@on_both_loops
async def test_a_silent_line_ends_after_the_idle_deadline_and_no_earlier() -> None:
    limits = AudioSocketLimits(idle_s=0.4)
    with capture_logs() as logs:
        async with serving(limits=limits) as service, undisturbed_call(service):
            peer, call_id = await Peer.call(service.port)
            for _ in range(3):
                await asyncio.sleep(0.2)
                await peer.send(FRAME)
            assert (await service.leg(call_id)).closed == []
            ended = await service.ending(call_id)
            assert ended == EndpointClosed("timeout", "found no byte; allowed is a silence of 0.4 s")
            assert (await the_line_about(logs, call_id))["reason"] == "timeout"
            assert (await peer.is_cut_off()).endswith(HANGUP)
            peer.close()


@on_both_loops
async def test_200_silent_connections_neither_exhaust_us_nor_keep_callers_out() -> None:
    limits = AudioSocketLimits(handshake_s=2, waiting=32, spared_s=0.1)
    with capture_logs() as logs:
        async with serving(limits=limits) as service, undisturbed_call(service):
            silent = await asyncio.gather(*(Peer.connect(service.port) for _ in range(200)))
            await until(lambda: service.server.waiting <= 32, 1.5)  # before the first deadline
            async with undisturbed_call(service):  # a new caller comes through in the thick of it
                await until(lambda: service.server.waiting == 0)
            for peer in silent:
                line = await_free_line(logs, peer.address)
                assert line["reason"] in ("refused", "timeout")
                peer.close()
            reasons = [await_free_line(logs, peer.address)["reason"] for peer in silent]
            # The 32 youngest were left to their deadline; one of those gave way to the new caller.
            assert reasons.count("timeout") in (31, 32)


@on_both_loops
async def test_callers_in_a_crowd_of_silent_connections_from_their_own_address_are_answered() -> None:
    """All of them are there before the callers have said who they are; who says it in time stays."""
    limits = AudioSocketLimits(handshake_s=10, spared_s=5)
    async with serving(limits=limits) as service, undisturbed_call(service):
        before = [await Peer.connect(service.port) for _ in range(100)]
        callers = [await Peer.connect(service.port) for _ in range(10)]
        behind = [await Peer.connect(service.port) for _ in range(100)]
        await until(lambda: service.server.waiting == 210)
        calls = [uuid4() for _ in callers]
        for peer, call_id in zip(callers, calls, strict=True):
            await peer.send(encode_uuid(call_id))
        for call_id in calls:
            leg = await service.leg(call_id)
            await until(lambda: leg.endpoint.frames_sent > 2)  # noqa: B023
            assert not leg.closed
        for peer in (*before, *callers, *behind):
            peer.close()


def await_free_line(logs: object, address: str) -> dict[str, object]:
    """The one line of a connection that is known to be over."""
    assert isinstance(logs, list)
    (line,) = lines_about(logs, address)
    return line


@on_both_loops
async def test_a_crowd_of_one_address_gives_way_before_the_connection_of_another() -> None:
    async with serving(limits=AudioSocketLimits(waiting=8)) as service:
        slow = await Peer.connect(service.port, source="127.0.0.7")
        crowd = [await Peer.connect(service.port, source="127.0.0.8") for _ in range(50)]
        call_id = uuid4()
        await slow.send(encode_uuid(call_id))
        assert (await service.leg(call_id)).endpoint.host == "127.0.0.7"
        for peer in (slow, *crowd):
            peer.close()


# ---- Peers that are too fast or too slow ---------------------------------------------------------------


@pytest.mark.parametrize(
    "flood",
    [FRAME * 50, encode_key("1") * 2000, encode_audio(b"\0\0") * 2000, encode_audio(bytes(46080), 192000) * 8,
     b"\x10\x00\x00" * 2000],
    ids=["speech", "keys", "single samples", "192 kHz", "empty audio"],
)  # fmt: skip
@on_both_loops
async def test_a_flood_ends_that_call_only(flood: bytes) -> None:
    limits = AudioSocketLimits(flood_window_s=0.5)
    with capture_logs() as logs:
        async with serving(limits=limits) as service, undisturbed_call(service):
            peer, call_id = await Peer.call(service.port)
            await peer.send_until_closed(flood, 100)
            ended = await service.ending(call_id)
            assert ended.kind == "flood" and "3 times real time" in ended.detail
            line = await the_line_about(logs, call_id)
            assert line["bytes_received"] < 700_000  # 1.5 s at the highest rate
            leg = service.legs[call_id]
            heard_s = sum(len(pcm) / 2 / rate for pcm, rate in leg.heard)
            assert heard_s <= 3 * 0.5 + 0.5, "the leg was spared what was over the limit"
            assert len(leg.keys) <= 40
            peer.close()


async def test_a_burst_after_a_stall_of_the_network_is_no_flood() -> None:
    async with serving() as service, undisturbed_call(service):
        peer, call_id = await Peer.call(service.port)
        await peer.send(FRAME * 500)  # ten seconds at once, by the default limits
        await asyncio.sleep(0.3)
        leg = await service.leg(call_id)
        assert leg.closed == [] and len(leg.heard) == 500
        peer.close()


async def test_a_long_call_in_real_time_is_no_flood() -> None:
    """What was heard is forgotten as time goes by: only the pace counts, never the length of a call."""
    async with serving(limits=AudioSocketLimits(flood_window_s=0.1)) as service, undisturbed_call(service):
        await asyncio.sleep(1.0)


@on_both_loops
async def test_one_read_takes_a_few_kilobytes_so_that_others_get_their_turn() -> None:
    sizes: list[int] = []

    class Watching(Leg):
        def audio_in(self, pcm: bytes, rate: int) -> None:
            super().audio_in(pcm, rate)
            if not sizes or sizes[-1] != self.endpoint.bytes_received:
                sizes.append(self.endpoint.bytes_received)

    async with serving(accept=Watching) as service:
        peer, _ = await Peer.call(service.port)
        await peer.send(FRAME * 400)
        await asyncio.sleep(0.2)
        steps = [b - a for a, b in zip([0, *sizes], sizes, strict=False)]
        assert len(steps) > 5 and max(steps) <= READ_BYTES
        peer.close()


@on_both_loops
async def test_a_peer_that_does_not_read_loses_frames_and_then_its_call() -> None:
    limits = AudioSocketLimits(slow_reader_s=0.5, idle_s=60)
    with capture_logs() as logs:
        async with serving(limits=limits) as service, undisturbed_call(service):
            peer, call_id = await Peer.call(service.port, receive_buffer=2048)
            leg = await service.leg(call_id)
            transport = leg.endpoint._transport
            assert transport is not None
            most = 0
            for _ in range(2000):  # far faster than the clock, to fill the kernel's buffers in a moment
                if leg.endpoint.ended:
                    break
                leg.endpoint.play(TONE)
                most = max(most, transport.get_write_buffer_size())
            ended = await service.ending(call_id)
            assert ended.kind == "slow_reader" and "did not read" in ended.detail
            assert most <= limits.write_buffer_bytes + 323
            line = await the_line_about(logs, call_id)
            assert line["frames_dropped"] == leg.endpoint.frames_dropped >= 25
            assert line["frames_sent"] == leg.endpoint.frames_sent > 0
            peer.close()


@on_both_loops
async def test_a_peer_that_reads_again_in_time_keeps_its_call_and_its_framing() -> None:
    async with serving() as service, undisturbed_call(service):
        peer, call_id = await Peer.call(service.port, receive_buffer=2048)
        leg = await service.leg(call_id)
        for _ in range(500):
            leg.endpoint.play(TONE)
            if leg.endpoint.frames_dropped > 20:
                break
        assert leg.endpoint.frames_dropped > 20 and not leg.endpoint.ended
        reading = asyncio.create_task(peer.read_to_end())
        await asyncio.sleep(0.3)
        dropped = leg.endpoint.frames_dropped
        await asyncio.sleep(0.2)
        assert leg.endpoint.frames_dropped == dropped, "nothing is lost any more"
        leg.endpoint.hang_up()
        wire = await reading
        whole = [wire[at : at + 323] for at in range(0, len(wire) - 3, 323)]
        assert set(whole) <= {SLIN8_HEADER + TONE, SLIN8_HEADER + SILENCE}
        assert wire[len(whole) * 323 :] == HANGUP
        assert len(whole) == leg.endpoint.frames_sent
        peer.close()


class Congested:
    """A connection that is full at every n-th look."""

    def __init__(self, transport: asyncio.Transport, full: Sequence[bool]) -> None:
        self._transport, self._full = transport, itertools.cycle(full)

    def get_write_buffer_size(self) -> int:
        return 1_000_000 if next(self._full) else 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)


@pytest.mark.parametrize(
    ("full", "ends"),
    [([True, False], True), ([True, False, False, False], True), ([True] + [False] * 9, False)],
    ids=["half lost", "a quarter lost", "a tenth lost"],
)
async def test_a_peer_that_keeps_losing_frames_loses_its_call(full: list[bool], ends: bool) -> None:
    """A single frame that got through must not start the count anew: half of the frames is no call."""
    async with serving(limits=AudioSocketLimits(slow_reader_s=1.0)) as service:
        peer, call_id = await Peer.call(service.port)
        endpoint = (await service.leg(call_id)).endpoint
        assert endpoint._transport is not None
        endpoint._transport = cast(asyncio.Transport, Congested(endpoint._transport, full))
        for _ in range(1000):
            endpoint.play(SILENCE)
        assert endpoint.ended is ends
        if ends:
            assert (await service.ending(call_id)).kind == "slow_reader"
        peer.close()


# ---- Legs that fail ------------------------------------------------------------------------------------


class Broken(Leg):
    """A leg with a fault in one place."""

    where = ""

    def audio_in(self, pcm: bytes, rate: int) -> None:
        super().audio_in(pcm, rate)
        if self.where == "audio_in":
            raise ZeroDivisionError("a fault of ours")

    def key_pressed(self, digit: str) -> None:
        super().key_pressed(digit)
        if self.where == "key_pressed":
            raise ZeroDivisionError("a fault of ours")

    def endpoint_closed(self, reason: EndpointClosed) -> None:
        super().endpoint_closed(reason)
        if self.where == "endpoint_closed":
            raise ZeroDivisionError("a fault of ours")


@pytest.mark.parametrize("where", ["accept", "audio_in", "key_pressed", "endpoint_closed"])
async def test_a_fault_of_ours_ends_that_call_only(where: str) -> None:
    broken: list[Broken] = []
    doomed = uuid4()

    def accept(endpoint: AudioSocketEndpoint) -> Leg | None:
        if endpoint.call_id != doomed:
            return None
        if where == "accept":
            raise ZeroDivisionError("a fault of ours")
        broken.append(Broken(endpoint))
        broken[0].where = where
        return broken[0]

    with capture_logs() as logs:
        async with serving(accept=accept) as service, undisturbed_call(service):
            peer = await Peer.connect(service.port)
            await peer.send(encode_uuid(doomed) + FRAME + FRAME + encode_key("1") + encode_key("2"))
            if where == "endpoint_closed":
                await asyncio.sleep(0.05)
                peer.close()
            else:
                assert (await peer.is_cut_off()).endswith(HANGUP)
            line = await the_line_about(logs, doomed)
            assert line["log_level"] == "error" and isinstance(line["exc_info"], ZeroDivisionError)
            if where == "endpoint_closed":
                assert line["reason"] == "hangup"
            else:
                assert line["reason"] == "local" and line["detail"] == "our side failed: ZeroDivisionError"
            for leg in broken:
                assert len(leg.closed) == 1
                assert len(leg.heard) == (1 if where == "audio_in" else 2), (
                    "no call into a leg after its fault"
                )
                assert leg.keys == {"key_pressed": ["1"], "audio_in": []}.get(where, ["1", "2"])
            peer.close()


@on_both_loops
async def test_a_leg_may_hang_up_while_it_is_made_and_still_hears_of_the_end() -> None:
    class Unwilling(Leg):
        def __init__(self, endpoint: AudioSocketEndpoint) -> None:
            super().__init__(endpoint)
            endpoint.hang_up()

    made: list[Unwilling] = []

    def accept(endpoint: AudioSocketEndpoint) -> Leg:
        made.append(Unwilling(endpoint))
        return made[0]

    with capture_logs() as logs:
        async with serving(accept=accept) as service:
            peer, call_id = await Peer.call(service.port)
            await peer.send(FRAME)
            assert await peer.read_to_end() == HANGUP
            peer.close()
            assert (await the_line_about(logs, call_id))["reason"] == "local"
            assert [ended.kind for ended in made[0].closed] == ["local"]
            assert made[0].heard == []


async def test_a_frame_of_another_length_is_the_callers_error() -> None:
    async with serving() as service, undisturbed_call(service):
        (leg,) = service.legs.values()
        with pytest.raises(ValueError, match="a frame has 320 bytes, not 319"):
            leg.endpoint.play(bytes(319))
