"""What the Asterisk Manager does to the visitor's channel, with a real Asterisk and SIP telephones.

Digits that open the intercom's own relay are heard at the intercom once each; a visitor who asks for a person
gets one. The doorman's model is scripted, the resident simulated: what is tried here is the telephony.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
import pytest_asyncio

from bridge.asterisk_manager import AsteriskManager, ManagerAddress
from bridge.asterisk_manager_check import ManagerUnfit, manager_behind
from tests.pbx.asterisk import EXAMPLES, Asterisk
from tests.pbx.installation import Installation
from tests.pbx.listening import tone, tone_seconds
from tests.pbx.operator_desk import OperatorDesk
from tests.pbx.phone import Call, Ended, Phone
from tests.ports import free_port
from tests.service.doorman import AGREES, ASKS, Cast, Part, Turn
from tests.service.household import HELLO, Household, household, until, with_cast
from tests.simulators.openai_realtime import Call as ToolCall
from tests.simulators.openai_realtime import Reply

pytestmark = [pytest.mark.pbx, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

PASSWORD = {"AMI_PASSWORD": "change-me-ami", "WRONG_PASSWORD": "not it"}

VISITS = Part(ASKS, AGREES)
WANTS_A_PERSON = Part(
    (Turn("Quero falar com o porteiro.", Reply((ToolCall("transfer_to_attendant", "{}"),))),)
)
GATE_CLOSED = "e pode continuar fechado"
QUIET = 300
"""No sample beyond this: a line on which nobody speaks. Our scripted voice has 2000 and more."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def asterisk(run_asterisk: Callable[..., Asterisk]) -> Asterisk:
    """Asterisk with the example configuration, but no attendant of its own: settings name ours."""
    return await asyncio.to_thread(run_asterisk, ATTENDANT="")


def manager(asterisk: Asterisk, **differs: Any) -> dict[str, Any]:
    """The tenant's settings of the Manager."""
    url = f"http://127.0.0.1:{asterisk.ports.http}"
    return {"url": url, "password_env": "AMI_PASSWORD", **differs}


async def calls(
    asterisk: Asterisk,
    house: Household,
    tenant: str,
    phone: Phone,
    extension: str,
    *,
    registered: bool = True,
) -> tuple[Call, UUID]:
    """A call of the intercom's to a tenant, which the dialplan registers, and the visit that it became."""
    known = {one.visit for one in house.seen}
    api = house.service.http_port if registered else free_port()
    for name, value in (
        ("PORTEIRO", f"127.0.0.1:{house.service.ports(tenant)[0]}"),
        ("PORTEIRO_API", f"http://127.0.0.1:{api}"),
        ("PORTEIRO_TENANT", tenant),
    ):
        await asterisk.ask(f"dialplan set global {name} {value}")
    call = await phone.call(extension)
    await call.wait_answered()
    await until(lambda: {one.visit for one in house.seen} - known, what="the visit")
    (visit,) = {one.visit for one in house.seen} - known
    return call, UUID(visit)


async def speaks(house: Household, call: Call, visit: UUID) -> None:
    """The visitor says something, once greeted."""
    await house.greeted(visit)
    await call.say(HELLO)


async def notes(house: Household, visit: UUID) -> str:
    """What the audit log notes of a visit."""
    return "\n".join(r.data["text"] for r in await house.records(visit) if r.kind == "note")


async def gate_answer(house: Household, visit: UUID) -> Mapping[str, Any]:
    """What the audit log says that the gate answered; once."""
    (record,) = [one for one in await house.records(visit) if one.kind == "gate.answered"]
    return record.data


def loudest(call: Call, begin: int = 0) -> int:
    """The highest level that a telephone heard, from a sample on."""
    samples = call.heard().samples[begin:]
    return int(np.abs(samples.astype(np.int32)).max()) if len(samples) else 0


async def assert_they_talk(one: Call, other: Call) -> None:
    """Two people hear each other, and nothing else."""
    since = [len(call.heard().samples) for call in (one, other)]
    assert loudest(other) < QUIET, "the attendant heard somebody before the visitor spoke"
    await asyncio.gather(one.say(tone(500, 1.0)), other.say(tone(900, 1.0)))
    await asyncio.sleep(0.3)
    assert tone_seconds(one.heard().samples[since[0] :], 900) > 0.8
    assert tone_seconds(other.heard().samples[since[1] :], 500) > 0.8
    ends = [len(call.heard().samples) for call in (one, other)]
    await asyncio.sleep(1.0)
    assert loudest(one, ends[0]) < QUIET and loudest(other, ends[1]) < QUIET


# ---- The intercom's own relay ------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", ["portaria", "portaria16"])
async def test_no_sound_of_ours_goes_out_while_a_digit_is_played(
    asterisk: Asterisk, intercom: Phone, extension: str
) -> None:
    """Asterisk holds our sound back for a digit's length: nothing masks it, and all else is heard."""
    url = f"http://127.0.0.1:{asterisk.ports.http}"
    manager = AsteriskManager(ManagerAddress(url, "porteiro", "change-me-ami"))
    async with OperatorDesk() as desk:
        await asterisk.ask(f"dialplan set global PORTEIRO {desk.address}")
        call = await intercom.call(extension)
        await call.wait_answered()
        line = await desk.next_line()
        line.to_say += tone(700, 10.0)
        await call.wait_for_speech(since=call.answered_at)
        channels = [each.name for each in await asterisk.channels()]
        (visitor,) = [name for name in channels if name.startswith("PJSIP/intercom")]
        for digit in "9#":
            await manager.play_digit(visitor, digit, 400)
            await call.wait_for_speech(since=time.monotonic())
        assert call.keys == ["9", "#"]
        numbers = [packet.sequence for packet in call.sound.packets]
        # A digit's events are numbered with the sound: one gap a digit means that nothing came between them.
        gaps = [lost for before, after in pairwise(numbers) if (lost := (after - before - 1) % (1 << 16))]
        assert len(gaps) == 2 and min(gaps) >= 400 / 20 - 5, gaps
        await call.hang_up()
    assert not await asterisk.quiet()


async def test_the_digits_are_heard_at_the_intercom_once_each(
    asterisk: Asterisk, intercom: Phone, tmp_path: Path
) -> None:
    kinds = {"one": ("9", "portaria"), "more": ("#5w0", "portaria16")}
    async with Cast(VISITS) as cast:
        tenants = {
            name: with_cast(cast, gate={"kind": "dtmf", "digits": digits}, manager=manager(asterisk))
            for name, (digits, _) in kinds.items()
        }
        async with household(tmp_path, tenants, environ=PASSWORD, http_port=0) as house:
            placed = [
                await calls(asterisk, house, name, intercom, extension)
                for name, (_, extension) in kinds.items()
            ]
            await asyncio.gather(*(speaks(house, call, visit) for call, visit in placed))
            for (call, visit), (digits, _) in zip(placed, kinds.values(), strict=True):
                assert await call.wait_closed(40) == Ended("them")
                assert call.keys == [digit for digit in digits if digit != "w"]
                assert await house.service.visit_over(visit, 10)
                assert await house.outcome(visit) == ("authorized", "opened", True)
                answer = await gate_answer(house, visit)
                assert "digits were played on PJSIP/intercom-" in answer["detail"]
    assert not await asterisk.quiet()


async def test_a_gate_whose_digits_are_not_played_is_told_of_as_closed(
    asterisk: Asterisk, intercom: Phone, tmp_path: Path
) -> None:
    unheard = {
        "wrong-password": (manager(asterisk, password_env="WRONG_PASSWORD"), "refused the user porteiro"),
        "down": (manager(asterisk, url=f"http://127.0.0.1:{free_port()}"), "connection refused"),
        "unregistered": (manager(asterisk), "not registered"),
        "gone": (manager(asterisk), "Channel not found"),
    }
    async with Cast(VISITS) as cast:
        tenants = {
            name: with_cast(cast, gate={"kind": "dtmf", "digits": "wwwwww9"}, manager=how)
            for name, (how, _) in unheard.items()
        }
        async with household(tmp_path, tenants, environ=PASSWORD, http_port=0) as house:
            placed = {
                name: await calls(
                    asterisk, house, name, intercom, "portaria", registered=name != "unregistered"
                )
                for name in unheard
            }
            await asyncio.gather(*(speaks(house, call, visit) for call, visit in placed.values()))
            call, visit = placed["gone"]
            await until(lambda: house.of(visit, "gate.requested"), 30, "the gate's order")
            await call.hang_up()  # 3 s before the digit
            for name, (call, visit) in placed.items():
                assert await call.wait_closed(40) == Ended("us" if name == "gone" else "them")
                assert call.keys == []
                assert await house.service.visit_over(visit, 10)
                assert await house.outcome(visit) == ("authorized", "gate_failed", False)
                answer = await gate_answer(house, visit)
                assert unheard[name][1] in answer["detail"]
                assert "unknown" not in answer, "nothing of it was carried out"
                for secret in PASSWORD.values():
                    assert secret not in str(answer)
        told = Counter(one.role for one in cast.doormen for text in one.said if GATE_CLOSED in text)
        assert told == {"visitor": len(unheard) - 1, "resident": len(unheard)}, "who is left is told"
    assert not await asterisk.quiet()


# ---- The attendant -----------------------------------------------------------------------------------------


async def test_a_visitor_who_wants_a_person_gets_one(
    asterisk: Asterisk, intercom: Phone, attendant: Phone, tmp_path: Path
) -> None:
    async with Cast(WANTS_A_PERSON) as cast:
        own = with_cast(cast, attendant={"extension": "attendant"}, manager=manager(asterisk))
        async with household(tmp_path, {"jardim": own}, environ=PASSWORD, http_port=0) as house:
            call, visit = await calls(asterisk, house, "jardim", intercom, "portaria")
            await speaks(house, call, visit)
            theirs = await attendant.next_call(20)
            await theirs.wait_answered()
            assert await house.service.visit_over(visit, 10), "we are gone before the two hear each other"
            assert any(
                "transferir você para um atendente" in text for one in cast.doormen for text in one.said
            )
            await assert_they_talk(call, theirs)
            await call.hang_up()
            assert await theirs.wait_closed() == Ended("them")
            assert await house.outcome(visit) == ("unreachable", "attendant", None)
            assert "the PBX rings them" in await notes(house, visit)
    assert not await asterisk.quiet()


async def test_whom_the_gate_left_standing_gets_the_attendant(
    asterisk: Asterisk, intercom: Phone, attendant: Phone, tmp_path: Path
) -> None:
    gate = {"kind": "http", "url": f"http://127.0.0.1:{free_port()}/open"}
    async with Cast(VISITS) as cast:
        own = with_cast(
            cast, gate=gate, attendant={"extension": "PJSIP/attendant"}, manager=manager(asterisk)
        )
        async with household(tmp_path, {"jardim": own}, environ=PASSWORD, http_port=0) as house:
            call, visit = await calls(asterisk, house, "jardim", intercom, "portaria16")
            await speaks(house, call, visit)
            theirs = await attendant.next_call(30)
            await theirs.wait_answered()
            await assert_they_talk(call, theirs)
            await theirs.hang_up()
            assert await call.wait_closed() == Ended("them")
            assert await house.service.visit_over(visit, 10)
            assert await house.outcome(visit) == ("authorized", "gate_failed", False)
    assert not await asterisk.quiet()


async def test_where_the_manager_is_down_the_visitor_hears_that_nobody_can_be_reached(
    asterisk: Asterisk, intercom: Phone, attendant: Phone, tmp_path: Path
) -> None:
    down = manager(asterisk, url=f"http://127.0.0.1:{free_port()}")
    async with Cast(WANTS_A_PERSON) as cast:
        own = with_cast(cast, attendant={"extension": "attendant"}, manager=down)
        async with household(tmp_path, {"jardim": own}, environ=PASSWORD, http_port=0) as house:
            call, visit = await calls(asterisk, house, "jardim", intercom, "portaria")
            await speaks(house, call, visit)
            await until(lambda: house.of(visit, "tool.answered"), 20, "the tool's answer")
            (answered,) = house.of(visit, "tool.answered")
            assert answered.data["result"] == {"status": "unavailable"}
            assert not call.closed.done(), "the visitor is not cut off"
            await call.hang_up()
            assert await house.service.visit_over(visit, 10)
            assert "connection refused" in await notes(house, visit)
        assert not any("transferir" in text for one in cast.doormen for text in one.said)
    assert not await asterisk.quiet()
    assert attendant.incoming.empty()


# ---- porteiro check ----------------------------------------------------------------------------------------


async def test_check_says_what_to_do_where_the_manager_would_not_act(
    installation: Installation, asterisk: Asterisk
) -> None:
    url = f"http://127.0.0.1:{asterisk.ports.http}"
    assert await manager_behind(ManagerAddress(url, "porteiro", "change-me-ami")) == (
        f"the Asterisk Manager at {url}"
    )
    for address, advice in (
        (
            ManagerAddress(url, "porteiro", "wrong"),
            r"refused the user porteiro.*\[porteiro\] in manager\.conf",
        ),
        (ManagerAddress(url, "nobody", "wrong"), r"refused the user nobody.*a user that is not there"),
        (ManagerAddress(f"{url}/ari", "porteiro", "x"), r"webenabled = yes.*without /ari"),
        (ManagerAddress(f"http://127.0.0.1:{free_port()}", "porteiro", "x"), r"refused; is Asterisk running"),
    ):
        with pytest.raises(ManagerUnfit, match=advice):
            await manager_behind(address)


async def test_check_says_what_a_manager_conf_lacks(installation: Installation) -> None:
    lacking = {
        "webenabled = yes": ("", r"has no /arawman.*webenabled = yes"),
        "write = call": ("write = system", r"PlayDTMF and Setvar; set write = call in \[porteiro\]"),
        "permit = 127.0.0.1/255.255.255.255": ("", r"refused|from here"),
    }
    for line, (instead, advice) in lacking.items():
        assert line in (EXAMPLES / "manager.conf").read_text()
        with tempfile.TemporaryDirectory() as folder:
            examples = Path(shutil.copytree(EXAMPLES, Path(folder, "asterisk")))
            text = (examples / "manager.conf").read_text().replace(line, instead)
            (examples / "manager.conf").write_text(text)
            asterisk = Asterisk(installation, examples=examples)
            await asyncio.to_thread(asterisk.__enter__)
            try:
                url = f"http://127.0.0.1:{asterisk.ports.http}"
                with pytest.raises(ManagerUnfit, match=advice):
                    await manager_behind(ManagerAddress(url, "porteiro", "change-me-ami"))
            finally:
                await asyncio.to_thread(asterisk.__exit__)
