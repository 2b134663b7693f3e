"""The dialer that has FreeSWITCH call residents: every outcome, and nobody left behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import pytest
from websockets.asyncio.server import ServerConnection, serve

from bridge.dialing import esl
from bridge.dialing.base import DialOrder, DialResult
from bridge.dialing.esl import EslDialer
from bridge.dialing.esl_attempt import CAUSES
from bridge.endpoints.stream_ticket import holds
from bridge.esl import EslAddress, EslConnection
from bridge.settings import Freeswitch, FreeswitchDialer
from tests.service.household import until
from tests.simulators.audio_stream import Kind
from tests.simulators.freeswitch import PASSWORD, Channel, FreeSwitch, Phone
from visits.events import DialOutcome

PHONE = "user/101@jardim.example"
DOMAIN = "9d2f1c1e-4a1b-4f0e-8f5e-2f6f3a1b7c55"
Serves = Callable[[ServerConnection], object]


def order(ring_s: float = 2.0, number: str = "101") -> DialOrder:
    return DialOrder(uuid4(), uuid4(), "jardim", number, ("127.0.0.1",), 8081, ring_s)


class Site:
    """A FreeSWITCH, a dialer, and the port where streams come."""

    def __init__(self, switch: FreeSwitch, dialer: EslDialer, came: list[str]) -> None:
        self.switch = switch
        self.dialer = dialer
        self.came = came
        """Paths of the streams that came."""


@asynccontextmanager
async def site(*, kind: Kind = "base64", refuses: bool = False) -> AsyncIterator[Site]:
    came: list[str] = []

    async def takes(connection: ServerConnection) -> None:
        assert connection.request is not None
        came.append(connection.request.path)
        if not refuses:
            async for _ in connection:
                pass

    switch = FreeSwitch(kind)
    await switch.open()
    connection = EslConnection(EslAddress("127.0.0.1", switch.port, PASSWORD))
    async with serve(takes, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        settings = FreeswitchDialer(
            kind="freeswitch", domain="jardim.example", stream_url=f"ws://127.0.0.1:{port}"
        )
        stream = Freeswitch.model_validate({"domain_uuid": DOMAIN, "playback": kind})
        dialer = EslDialer(settings, stream, "a token/", 300, connection)
        await dialer.start()
        try:
            yield Site(switch, dialer, came)
        finally:
            await dialer.stop()
            await switch.close()


@pytest.mark.parametrize("kind", ["base64", "fork", "file"])
async def test_an_answered_phone_streams_under_the_attempts_id_until_its_stream_ends(kind: Kind) -> None:
    async with site(kind=kind) as at:
        at.switch.phones[PHONE] = Phone()
        one = order()
        assert await at.dialer.dial(one) == DialResult(None)
        ((path, _, shown),) = [path.partition("?token=") for path in at.came]
        assert path == f"/stream/{DOMAIN}/{one.attempt}"
        assert holds(shown, "a token/", UUID(DOMAIN), one.attempt, now=time.time()), "and no token in any log"
        channel = at.switch.channels[str(one.attempt)]
        silence = channel.variables.get("send_silence_when_idle")
        assert silence == ("-1" if kind == "fork" else None), "voxcom's fork sends by itself"
        assert ("playback_terminators" in channel.variables) is (kind == "file"), "* would end a file"
        assert channel.variables["park_timeout"] == "420", "what ends it if this process dies"
        assert channel.stream is not None and channel.stream.started.plays and not channel.over.is_set()
        await channel.stream.connection.close()
        await until(lambda: channel.over.is_set(), what="its end: closing a stream ends no call")


async def test_every_cause_has_its_outcome() -> None:
    async with site() as at:
        for cause, (outcome, _) in CAUSES.items():
            at.switch.phones[PHONE] = Phone(cause, 0.0)
            result = await at.dialer.dial(order())
            assert result.outcome is outcome and cause in result.detail
        assert not [one for one in at.switch.commands if one.startswith("uuid_kill")]


async def test_an_unknown_cause_a_silent_phone_and_a_number_that_is_none() -> None:
    async with site() as at:
        at.switch.phones[PHONE] = Phone("MANAGER_REQUEST", 0.0)
        assert (await at.dialer.dial(order())).outcome is DialOutcome.FAILED
        at.switch.phones[PHONE] = Phone(after_s=None)
        assert (await at.dialer.dial(order(1.0))).outcome is DialOutcome.NO_ANSWER
        for number in ("101,user/666", "101 &system", "{x=1}", "101@a:_:b", "", "a\nb"):
            assert (await at.dialer.dial(order(number=number))).outcome is DialOutcome.INVALID
        assert {phone for phone, _ in at.switch.rang} == {PHONE}


async def test_a_stream_that_never_comes_fails_and_hangs_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(esl, "CONNECT_S", 0.3)

    async def silent(*_: object) -> None:
        return None

    async with site() as at:
        at.switch.phones[PHONE] = Phone()
        monkeypatch.setattr(at.switch, "_streaming", silent)
        result = await at.dialer.dial(order())
        assert result.outcome is DialOutcome.FAILED and "did not come" in result.detail
        await until(lambda: not at.switch.channels, what="the hang-up")


async def test_a_stream_that_is_not_taken_fails_and_hangs_up() -> None:
    async with site(refuses=True) as at:
        at.switch.phones[PHONE] = Phone()
        await at.dialer.dial(order())  # it connects, and is sent away: the visit hears of no leg
        await until(lambda: not at.switch.channels, what="the hang-up")
        at.switch.modules.clear()
        result = await at.dialer.dial(order())
        assert result.outcome is DialOutcome.FAILED and "Command not found" in result.detail
        await until(lambda: not at.switch.channels, what="the hang-up")


@pytest.mark.parametrize("answers", [False, True])
async def test_an_attempt_that_is_given_up_leaves_nobody_behind(answers: bool) -> None:
    """Cancelled while it rings; and just as it is answered."""
    async with site() as at:
        answered = asyncio.Event()
        at.switch.phones[PHONE] = Phone(after_s=0.05 if answers else None, answered=lambda _: answered.set())
        one = order()
        task = asyncio.create_task(at.dialer.dial(one))
        await until(lambda: str(one.attempt) in at.switch.channels)
        if answers:
            await answered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not at.switch.channels, what="the hang-up")


async def test_a_lost_event_socket_fails_the_attempt_and_hangs_up_once_it_is_back() -> None:
    async with site() as at:
        at.switch.phones[PHONE] = Phone(after_s=None)
        task = asyncio.create_task(at.dialer.dial(order()))
        await until(lambda: at.switch.channels)
        await at.switch.shut()
        result = await task
        assert result.outcome is DialOutcome.FAILED and "not known" in result.detail
        assert at.switch.channels, "it rings on"
        await at.switch.open(at.switch.port)
        await until(lambda: not at.switch.channels, 5, "the hang-up")


async def test_who_hangs_up_before_the_stream_was_not_reached() -> None:
    async with site() as at:

        def hangs_up(channel: Channel) -> None:
            channel.hang_up()

        at.switch.phones[PHONE] = Phone(answered=hangs_up)
        result = await at.dialer.dial(order())
        assert result.outcome is DialOutcome.FAILED and "answered" in result.detail


async def test_a_switch_that_is_down_is_an_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(esl, "READY_S", 0.2)
    async with site() as at:
        await at.switch.shut()
        await asyncio.sleep(0.05)
        result = await at.dialer.dial(order())
        assert result.outcome is DialOutcome.FAILED and "event socket" in result.detail
