"""The connection to an event socket, against FreeSWITCH as its sources have it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import pytest

from bridge import esl
from bridge import esl_commands as commands
from bridge.esl import EslAddress, EslConnection, EslError
from bridge.esl_frames import Event
from bridge.pbx import DigitsByPbx, PbxError
from bridge.settings import Attendant
from bridge.switchboard import Switchboard
from tests.service.household import until
from tests.simulators.freeswitch import PASSWORD, Channel, FreeSwitch, Phone

PHONE = "user/101@jardim.example"


class Heard:
    """What a follower is told."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.back: list[bool] = []

    def esl_event(self, event: Event) -> None:
        self.names.append(event.name)

    def esl_back(self, there: bool) -> None:
        self.back.append(there)


@asynccontextmanager
async def connected(password: str = PASSWORD) -> AsyncIterator[tuple[FreeSwitch, EslConnection]]:
    switch = FreeSwitch()
    await switch.open()
    connection = EslConnection(EslAddress("127.0.0.1", switch.port, password))
    await connection.start()
    try:
        yield switch, connection
    finally:
        await connection.stop()
        await switch.close()


async def called(switch: FreeSwitch, connection: EslConnection, channel: UUID, limit_s: float = 5) -> str:
    return await connection.job(commands.originate(channel, PHONE, {"originate_timeout": "3"}), limit_s)


async def test_a_call_from_its_ring_to_its_end() -> None:
    async with connected() as (switch, connection):
        assert await connection.ready(2)
        switch.phones[PHONE] = Phone(after_s=0.01)
        channel, heard, other = uuid4(), Heard(), uuid4()
        connection.follow(channel, heard)
        assert await called(switch, connection, other) == f"+OK {other}"
        assert await called(switch, connection, channel) == f"+OK {channel}"
        switch.channels[str(channel)].press("1")
        switch.channels[str(other)].press("2")
        await connection.api(commands.send_digit(channel, "9", 250))
        assert switch.channels[str(channel)].digits == "9"
        assert await connection.api(commands.silence(channel)) == "", "which says nothing"
        await connection.api(commands.kill(channel))
        assert await connection.api(commands.exists(channel)) == "false"
        await until(lambda: "CHANNEL_HANGUP" in heard.names, what="the hang-up")
        assert heard.names == ["CHANNEL_ANSWER", "DTMF", "CHANNEL_HANGUP"], "of this channel alone"
        connection.leave(channel, heard)
        with pytest.raises(EslError, match="No such channel") as error:
            await connection.api(commands.kill(channel))
        assert error.value.no_channel and not error.value.unknown


@pytest.mark.parametrize("cause", ["USER_BUSY", "CALL_REJECTED", "UNALLOCATED_NUMBER", "SUBSCRIBER_ABSENT"])
async def test_a_call_that_fails_says_its_cause(cause: str) -> None:
    async with connected() as (switch, connection):
        assert await connection.ready(2)
        switch.phones[PHONE] = Phone(cause=cause, after_s=0.01)
        with pytest.raises(EslError, match=cause):
            await called(switch, connection, uuid4())


async def test_who_is_not_let_in_is_told_why() -> None:
    async with connected(password="wrong") as (_, connection):
        await until(lambda: "refused the password" in connection.trouble)
        assert not await connection.ready(0.05)
        with pytest.raises(EslError, match="refused the password"):
            await connection.api("uptime")
    switch = FreeSwitch()
    switch.rude = True
    await switch.open()
    connection = EslConnection(EslAddress("127.0.0.1", switch.port, PASSWORD))
    await connection.start()
    await until(lambda: "apply-inbound-acl" in connection.trouble)
    await connection.stop()
    await switch.close()


async def test_a_lost_connection_is_made_anew_and_nobody_is_left_ringing() -> None:
    async with connected() as (switch, connection):
        assert await connection.ready(2)
        switch.phones[PHONE] = Phone(after_s=None)
        channel, heard = uuid4(), Heard()
        connection.follow(channel, heard)
        job = asyncio.create_task(called(switch, connection, channel))
        await until(lambda: str(channel) in switch.channels)
        await switch.shut("The system is being shut down.\n")
        with pytest.raises(EslError) as error:
            await job
        assert error.value.unknown
        connection.hang_up(channel)
        with pytest.raises(EslError):
            await connection.api("uptime")
        assert str(channel) in switch.channels, "it rings on, and nobody can tell it"
        await switch.open(switch.port)
        await until(lambda: str(channel) not in switch.channels, 5, "the hang-up")
        await until(lambda: heard.back != [], what="the look")
        switch.phones[PHONE] = Phone(after_s=0.01)
        assert await called(switch, connection, uuid4())


async def test_a_channel_that_comes_late_is_hung_up_too() -> None:
    """The kill overtakes the originate, which FreeSWITCH runs in a thread of its own."""
    async with connected() as (switch, connection):
        assert await connection.ready(2)
        channel = uuid4()

        async def late() -> None:
            await asyncio.sleep(0.3)
            switch.phones[PHONE] = Phone(after_s=0.01)
            await called(switch, connection, channel)
            await asyncio.sleep(0.3)

        job = asyncio.create_task(late())
        connection.hang_up(channel, job)
        await job
        await until(lambda: switch.made != [] and not switch.channels, 5, "the hang-up")


async def test_every_wait_has_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(esl, "CONNECT_S", 0.2)
    async with connected() as (switch, connection):
        assert await connection.ready(2)
        switch.phones[PHONE] = Phone(after_s=None)
        began = time.perf_counter()
        with pytest.raises(EslError, match=r"did not say in 0\.2 s") as error:
            await called(switch, connection, uuid4(), 0.2)
        assert error.value.unknown
        switch.mute = True
        with pytest.raises(EslError, match=r"no answer in 0\.2 s"):
            await connection.api("uptime", 0.2)
        await until(lambda: "gave no answer" in connection.trouble, 3, "a log-in without an answer")
        assert time.perf_counter() - began < 4
        switch.mute = False
        assert await connection.ready(4)


async def test_a_server_that_is_no_event_socket_is_none() -> None:
    async def http(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\n\n")
        writer.close()

    server = await asyncio.start_server(http, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    connection = EslConnection(EslAddress("127.0.0.1", port, PASSWORD))
    await connection.start()
    await until(lambda: "is none" in connection.trouble)
    await connection.stop()
    server.close()


async def test_no_second_command_comes_of_a_text() -> None:
    async with connected() as (switch, connection):
        assert await connection.ready(2)
        for text in ("uptime\n\napi shutdown", "uptime\r", "", "x" * 9000):
            with pytest.raises(ValueError, match="one line"):
                await connection.api(text)
        assert switch.commands == []


async def test_who_follows_while_the_events_are_asked_for_hears_of_them() -> None:
    switch = FreeSwitch()
    switch.slow_s = 0.2
    await switch.open()
    connection = EslConnection(EslAddress("127.0.0.1", switch.port, PASSWORD))
    await connection.start()
    await until(lambda: switch.listeners == 1)
    await asyncio.sleep(0.1)
    heard, channel = Heard(), uuid4()
    connection.follow(channel, heard)
    assert await connection.ready(2)
    Channel(switch, str(channel), {}).press("1")
    await until(lambda: heard.names == ["DTMF"], what="the key")
    await connection.stop()
    await switch.close()


async def test_a_channel_belongs_to_the_pbx_that_its_name_says() -> None:
    class Pbx:
        def __init__(self) -> None:
            self.played: list[str] = []

        async def play_digit(self, channel: str, digit: str, duration_ms: int) -> None:
            self.played.append(channel)

    asterisk, freeswitch, uuid = Pbx(), Pbx(), str(uuid4())
    both = DigitsByPbx(asterisk, freeswitch)
    await both.play_digit("PJSIP/intercom-00000001", "9", 250)
    await both.play_digit(uuid, "9", 250)
    await DigitsByPbx(asterisk, None).play_digit(uuid, "9", 250)
    assert (asterisk.played, freeswitch.played) == (["PJSIP/intercom-00000001", uuid], [uuid])
    async with connected() as (_, connection):
        board = Switchboard(connection, str(uuid4()), Attendant(extension="9000"))
        with pytest.raises(PbxError, match="no call that is streamed here"):
            await DigitsByPbx(None, board).play_digit("PJSIP/intercom-00000001", "9", 250)
        assert "no call" in await board.prepare("PJSIP/x") and "no call" in await board.undo(uuid)
