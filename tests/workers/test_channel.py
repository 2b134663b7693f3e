"""The channel between two processes: packets and connections, a side that does not read, the end."""

from __future__ import annotations

import asyncio
import socket
from uuid import uuid4

import pytest

from bridge.workers.channel import MAX_QUEUED, Channel, ChannelError, channel_pair
from bridge.workers.messages import MAX_BYTES, Known, MessageError, Ping, packed
from tests.service.household import until


class Side:
    """One end, and what it heard."""

    def __init__(self, end: socket.socket) -> None:
        self.packets: list[bytes] = []
        self.given: list[socket.socket] = []
        self.over: list[str] = []
        self.channel = Channel(end, self._packet, self.over.append)

    def _packet(self, packet: bytes, given: socket.socket | None) -> None:
        if packet.startswith(b"bad"):
            raise ValueError("found something bad")
        self.packets.append(packet)
        if given is not None:
            self.given.append(given)


async def test_packets_arrive_whole_and_in_order_with_their_connections() -> None:
    here, there = map(Side, channel_pair())
    ours, theirs = socket.socketpair()
    sent = [Known(attempt=uuid4()) for _ in range(200)]
    for message in sent[:100]:
        here.channel.send(message, b"\n\0raw")
    here.channel.send(Ping(), given=theirs)
    for message in sent[100:]:
        here.channel.send(message, b"\n\0raw")
    await until(lambda: len(there.packets) == 201)
    expected = [packed(each, b"\n\0raw") for each in sent]
    assert there.packets == [*expected[:100], packed(Ping()), *expected[100:]]
    assert theirs.fileno() == -1, "it is the other side's now"
    (given,) = there.given
    assert not given.get_inheritable()
    given.sendall(b"through")
    assert ours.recv(10) == b"through"
    for each in (ours, given):
        each.close()
    here.channel.close()
    await until(lambda: there.over)
    assert there.over == ["the other side is gone"] and there.channel.closed
    assert here.over == [], "who closes it is not told"


async def test_what_has_no_room_waits_and_then_goes_out() -> None:
    here, there = channel_pair()
    sender = Side(here)
    for _ in range(3000):
        sender.channel.send(Ping(), bytes(1000))
    assert sender.channel.queued > 1000
    reader = Side(there)
    await until(lambda: len(reader.packets) == 3000)
    await until(lambda: not sender.channel.queued)
    sender.channel.close()
    reader.channel.close()


async def test_a_side_that_never_reads_is_given_up() -> None:
    here, there = channel_pair()
    sender = Side(here)
    ours, theirs = socket.socketpair()
    sender.channel.send(Ping())
    while sender.channel.queued < MAX_QUEUED:
        sender.channel.send(Ping(), bytes(200))
    with pytest.raises(ChannelError, match="does not read"):
        sender.channel.send(Ping())
    with pytest.raises(ChannelError):
        sender.channel.send(Ping(), given=theirs)
    assert ours.recv(1) == b"", "a connection that can't be given is closed"
    sender.channel.close()
    with pytest.raises(ChannelError, match="closed"):
        sender.channel.send(Ping())
    ours.close()
    there.close()


async def test_what_is_too_long_or_bad_ends_nothing_but_the_channel() -> None:
    here, there = channel_pair()
    receiver = Side(there)
    with pytest.raises(MessageError):
        receiver.channel.send(Ping(), bytes(MAX_BYTES))
    assert not receiver.channel.closed
    here.send(b"bad news")
    await until(lambda: receiver.over)
    assert receiver.over == ["ValueError: found something bad"]
    here.close()
    here, there = channel_pair()
    receiver = Side(there)
    here.send(bytes(MAX_BYTES + 1))
    await until(lambda: receiver.over)
    assert str(MAX_BYTES) in receiver.over[0] and receiver.packets == []
    here.close()


async def test_a_side_that_is_killed_is_missed_at_once() -> None:
    here, there = channel_pair()
    process = await asyncio.create_subprocess_exec("sleep", "60", pass_fds=(there.fileno(),))
    there.close()
    side = Side(here)
    process.kill()
    await process.wait()
    await until(lambda: side.over, 2)
