"""A real Asterisk calls the resident: each outcome has its name, and no channel or bridge is left in it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from bridge.dialing.ari import AriDialer
from bridge.dialing.ari_connection import AriConnection
from bridge.dialing.ari_rest import AriAddress, AriRest
from bridge.dialing.base import DialOrder, DialResult
from bridge.settings import AriDialer as AriSettings
from tests.dialing.resident_port import ResidentPort
from tests.pbx.asterisk import Asterisk
from tests.pbx.installation import find
from tests.pbx.phone import Phone, Picks
from visits.events import DialOutcome

pytestmark = pytest.mark.pbx

USER, PASSWORD = "porteiro", "change-me-ari"
"""Of the example ari.conf."""

DIALPLAN = """
[phones]
exten => answers,1,Ringing()
 same => n,Wait(0.5)
 same => n,Answer()
 same => n,Wait(60)
exten => answers-at-once,1,Answer()
 same => n,Wait(60)
exten => hangs-up-soon,1,Answer()
 same => n,Wait(1)
exten => rings,1,Ringing()
 same => n,Wait(60)
exten => silent,1,Wait(60)
exten => busy-tone,1,Busy(2)
exten => congested-tone,1,Congestion(2)
exten => _cause-.,1,Hangup(${EXTEN:6})
exten => gives-up,1,Hangup()
exten => forks,1,Dial(Local/rings@phones,1)
 same => n,Hangup(${HANGUPCAUSE})
exten => forks-busy,1,Dial(Local/cause-17@phones,5)
 same => n,Hangup(${HANGUPCAUSE})
exten => 501,1,Goto(answers,1)
"""
PHONES = """
[unreachable](phone)
aors = unreachable
[unreachable]
type = aor
contact = sip:unreachable@127.0.0.1:9
"""


@pytest.fixture(scope="module")
def pbx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asterisk]:
    site = {"extensions.conf": DIALPLAN, "pjsip.conf": PHONES}
    with Asterisk(find(), site=site, keep=Path(tmp_path_factory.mktemp("asterisk"))) as running:
        yield running


@dataclass
class Site:
    """A dialer, the Asterisk that it dials with and the port that answered phones come to."""

    pbx: Asterisk
    dialer: AriDialer
    port: ResidentPort

    def order(self, number: str, ring_s: float = 5.0) -> DialOrder:
        return DialOrder(uuid4(), uuid4(), "jardim", number, ("127.0.0.1",), self.port.port, ring_s)

    async def dial(self, number: str, ring_s: float = 5.0) -> DialResult:
        async with asyncio.timeout(ring_s + 5):
            return await self.dialer.dial(self.order(number, ring_s))


def connection(pbx: Asterisk, password: str = PASSWORD) -> AriConnection:
    return AriConnection(AriAddress(pbx.ari_url, USER, password, "porteiro"))


def dialer(pbx: Asterisk, **own: Any) -> AriDialer:
    chosen = {
        "kind": "ari",
        "url": pbx.ari_url,
        "password_env": "X",
        "dial_string": "Local/{number}@phones",
        **own,
    }
    return AriDialer(AriSettings.model_validate(chosen), connection(pbx))


@asynccontextmanager
async def site(pbx: Asterisk, **own: Any) -> AsyncIterator[Site]:
    """Everything that runs; in the end Asterisk must have nothing of it left."""
    dials = dialer(pbx, **own)
    async with ResidentPort() as port:
        await dials.start()
        try:
            yield Site(pbx, dials, port)
            await nothing_left(pbx)
        finally:
            await dials.stop()


async def nothing_left(pbx: Asterisk) -> None:
    """No channel, no bridge, and no subscription that would make Asterisk remember a channel."""
    assert await pbx.quiet(5.0) == []
    rest = AriRest(AriAddress(pbx.ari_url, USER, PASSWORD, "porteiro"), False)
    try:
        assert await rest.ask("GET", "/channels") == []
        assert await rest.ask("GET", "/bridges") == []
        app = await rest.ask("GET", "/applications/porteiro")
        assert app["channel_ids"] == []
    finally:
        await rest.close()


async def until(condition: Any, timeout_s: float = 5.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)


# --------------------------------------------------------------------------------------------- answered


@pytest.mark.parametrize("phone", ["answers", "answers-at-once"])
async def test_an_answered_phone_comes_to_the_resident_port_with_the_attempts_id(
    pbx: Asterisk, phone: str
) -> None:
    async with site(pbx) as here:
        what = here.order(phone)
        assert await here.dialer.dial(what) == DialResult(None)
        assert here.port.came == [what.attempt]
        assert what.attempt in here.port.calls, "it is still up"
        here.port.hang_up(what.attempt)


async def test_a_service_that_is_killed_leaves_no_phone_behind(pbx: Asterisk) -> None:
    async with site(pbx) as here:
        what = here.order("answers")
        assert await here.dialer.dial(what) == DialResult(None)
        here.port.die(what.attempt)


async def test_a_resident_who_hangs_up_ends_the_leg(pbx: Asterisk) -> None:
    async with site(pbx) as here:
        what = here.order("hangs-up-soon")
        began = time.monotonic()
        dialled = asyncio.ensure_future(here.dialer.dial(what))
        await until(lambda: here.port.came)
        await until(lambda: not here.port.calls)
        assert time.monotonic() - began < 3
        await dialled  # a failure, which a visit whose resident's leg has come does not hear


async def test_a_resident_port_that_nobody_listens_on_is_a_failure(pbx: Asterisk) -> None:
    async with site(pbx, audiosocket="127.0.0.1:9") as here:
        result = await here.dial("answers")
        assert result.outcome is DialOutcome.FAILED and "resident port" in result.detail


async def test_a_context_that_the_dialplan_lacks_is_a_failure(pbx: Asterisk) -> None:
    async with site(pbx, context="missing") as here:
        assert (await here.dial("answers")).outcome is DialOutcome.FAILED


# ----------------------------------------------------------------------------------------- not answered


@pytest.mark.parametrize(
    ("phone", "outcome"),
    [
        ("busy-tone", DialOutcome.BUSY),
        ("cause-17", DialOutcome.BUSY),
        ("forks-busy", DialOutcome.BUSY),
        ("congested-tone", DialOutcome.CONGESTION),
        ("cause-34", DialOutcome.CONGESTION),
        ("cause-21", DialOutcome.REJECTED),
        ("cause-19", DialOutcome.NO_ANSWER),
        ("cause-18", DialOutcome.NO_ANSWER),
        ("gives-up", DialOutcome.NO_ANSWER),
        ("cause-1", DialOutcome.INVALID),
        ("cause-20", DialOutcome.INVALID),
        ("no-such-extension", DialOutcome.INVALID),
        ("101&PJSIP/501", DialOutcome.INVALID),
    ],
)
async def test_a_phone_that_is_not_answered(pbx: Asterisk, phone: str, outcome: DialOutcome) -> None:
    async with site(pbx) as here:
        result = await here.dial(phone)
        assert result.outcome is outcome and result.detail
        assert here.port.came == []


@pytest.mark.parametrize("phone", ["rings", "silent", "forks"])
async def test_a_phone_that_rings_out(pbx: Asterisk, phone: str) -> None:
    async with site(pbx) as here:
        began = time.monotonic()
        assert (await here.dial(phone, ring_s=2)).outcome is DialOutcome.NO_ANSWER
        assert 0.9 < time.monotonic() - began < 3.5


@pytest.mark.parametrize(
    ("template", "number"),
    [
        ("PJSIP/{number}", "999"),
        ("PJSIP/{number}", "501"),  # in the example, and not registered
        ("PJSIP/{number}@trunk", "501"),
        ("Nothing/{number}", "501"),
        ("Local/{number}@nowhere", "501"),
    ],
)
async def test_what_asterisk_cant_dial_is_invalid(pbx: Asterisk, template: str, number: str) -> None:
    async with site(pbx, dial_string=template) as here:
        result = await here.dial(number)
        assert result.outcome is DialOutcome.INVALID


async def test_a_registered_phone_that_is_switched_off_rings_out(pbx: Asterisk) -> None:
    async with site(pbx, dial_string="PJSIP/{number}") as here:
        assert (await here.dial("unreachable", ring_s=1)).outcome is DialOutcome.NO_ANSWER


async def test_a_sip_address_is_dialled_by_its_user(pbx: Asterisk) -> None:
    async with site(pbx) as here:
        assert (await here.dial("sip:cause-17@condominio.local")).outcome is DialOutcome.BUSY


# ------------------------------------------------------------------------------------------ SIP phones


@asynccontextmanager
async def phone(pbx: Asterisk, picks: Picks = "answer", after_s: float = 0.3) -> AsyncIterator[Phone]:
    """The telephone of apartment 501 in the example pjsip.conf."""
    async with Phone(pbx.sip, "501", "change-me-501", picks=picks, after_s=after_s) as telephone:
        yield telephone


async def test_a_telephone_is_called_and_either_end_takes_the_other_along(pbx: Asterisk) -> None:
    async with site(pbx, dial_string="PJSIP/{number}") as here, phone(pbx) as resident:
        for ours in (True, False):
            what = here.order("sip:501@condominio.local")
            assert await here.dialer.dial(what) == DialResult(None)
            call = await resident.next_call()
            assert what.attempt in here.port.calls and not call.closed.done()
            if ours:
                here.port.hang_up(what.attempt)
            else:
                await call.hang_up()
            assert (await call.wait_closed(3)).by == ("them" if ours else "us")
            await until(lambda: not here.port.calls, 3)


@pytest.mark.parametrize(
    ("picks", "outcome"),
    [("busy", DialOutcome.BUSY), ("reject", DialOutcome.REJECTED), ("ring", DialOutcome.NO_ANSWER)],
)
async def test_a_telephone_that_is_not_picked_up(pbx: Asterisk, picks: Picks, outcome: DialOutcome) -> None:
    async with site(pbx, dial_string="PJSIP/{number}") as here, phone(pbx, picks) as resident:
        assert (await here.dial("501", ring_s=2)).outcome is outcome
        call = await resident.next_call()
        assert (await call.wait_closed(3)).by == ("them" if picks == "ring" else "us")


async def test_a_telephone_stops_ringing_when_the_visitor_leaves(pbx: Asterisk) -> None:
    async with site(pbx, dial_string="PJSIP/{number}") as here, phone(pbx, "ring") as resident:
        ringing = asyncio.ensure_future(here.dialer.dial(here.order("501", ring_s=30)))
        call = await resident.next_call()
        ringing.cancel()
        began = time.monotonic()
        assert (await call.wait_closed(3)).by == "them"
        assert time.monotonic() - began < 0.5
        await asyncio.wait({ringing})


# -------------------------------------------------------------------------------------------- given up


@pytest.mark.parametrize("phone", ["rings", "answers", "answers-at-once"])
@pytest.mark.parametrize("after_s", [0.0, 0.005, 0.02, 0.06, 0.3, 0.55, 1.0])
async def test_a_visitor_who_leaves_stops_the_ringing_whenever_that_is(
    pbx: Asterisk, phone: str, after_s: float
) -> None:
    async with site(pbx) as here:
        assert await here.dialer._ari.ready(5)
        ringing = asyncio.ensure_future(here.dialer.dial(here.order(phone)))
        await asyncio.sleep(after_s)
        ringing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ringing


async def test_ten_at_once_and_half_of_them_given_up(pbx: Asterisk) -> None:
    async with site(pbx) as here:
        orders = [here.order("answers") for _ in range(10)]
        dials = [asyncio.ensure_future(here.dialer.dial(one)) for one in orders]
        await asyncio.sleep(0.3)
        for dialled in dials[::2]:
            dialled.cancel()
        results = await asyncio.gather(*dials, return_exceptions=True)
        assert results[1::2] == [DialResult(None)] * 5
        assert set(here.port.calls) == {one.attempt for one in orders[1::2]}
        for call in tuple(here.port.calls):
            here.port.hang_up(call)


# ------------------------------------------------------------------------------------------- ARI unwell


async def test_a_wrong_password_is_an_outcome(pbx: Asterisk) -> None:
    chosen = AriSettings.model_validate({"kind": "ari", "url": pbx.ari_url, "password_env": "X"})
    dials = AriDialer(chosen, connection(pbx, "not the password"))
    await dials.start()
    result = await dials.dial(DialOrder(uuid4(), uuid4(), "jardim", "501", ("127.0.0.1",), 1, 5.0))
    await dials.stop()
    assert result.outcome is DialOutcome.FAILED
    assert "refused the user porteiro or its password" in result.detail


async def test_a_web_server_without_ari_is_an_outcome(pbx: Asterisk) -> None:
    url = pbx.ari_url.replace("/ari", "/nothing")
    chosen = AriSettings.model_validate({"kind": "ari", "url": url, "password_env": "X"})
    dials = AriDialer(chosen, AriConnection(AriAddress(url, USER, PASSWORD, "porteiro")))
    await dials.start()
    result = await dials.dial(DialOrder(uuid4(), uuid4(), "jardim", "501", ("127.0.0.1",), 1, 5.0))
    await dials.stop()
    assert result.outcome is DialOutcome.FAILED and "answered 404" in result.detail


async def _lose_events(dials: AriDialer) -> None:
    """The event socket breaks, as a network does that."""
    listener = dials._ari._listener
    assert listener is not None
    listener.cancel()
    await asyncio.wait({listener})
    dials._ari._disconnected("the cable was pulled")


async def test_an_answer_while_the_events_were_lost_still_connects(pbx: Asterisk) -> None:
    """Asterisk hangs up a phone that answers while our application is away, and that is a named end."""
    async with site(pbx) as here:
        what = here.order("answers")
        dialled = asyncio.ensure_future(here.dialer.dial(what))
        await asyncio.sleep(0.2)
        await _lose_events(here.dialer)
        here.dialer._ari._listener = asyncio.create_task(here.dialer._ari._listen(False))
        assert await dialled == DialResult(None)
        here.port.hang_up(what.attempt)


async def test_a_phone_that_answered_while_we_were_away_is_a_named_end(pbx: Asterisk) -> None:
    async with site(pbx) as here:
        dialled = asyncio.ensure_future(here.dialer.dial(here.order("answers")))
        await asyncio.sleep(0.2)
        await _lose_events(here.dialer)
        await asyncio.sleep(0.8)
        here.dialer._ari._listener = asyncio.create_task(here.dialer._ari._listen(False))
        result = await dialled
        assert result.outcome is DialOutcome.FAILED and "events" in result.detail


async def test_what_a_killed_service_left_ringing_is_hung_up_by_the_next(pbx: Asterisk) -> None:
    killed = dialer(pbx)
    await killed.start()
    assert await killed._ari.ready(5)
    order = DialOrder(uuid4(), uuid4(), "jardim", "rings", ("127.0.0.1",), 1, 30.0)
    ringing = asyncio.ensure_future(killed.dial(order))
    await asyncio.sleep(0.3)
    assert len(await pbx.channels()) == 2
    await _lose_events(killed)
    async with site(pbx):
        assert await pbx.quiet(5.0) == []
    ringing.cancel()
    await asyncio.wait({ringing})
    await killed.stop()
