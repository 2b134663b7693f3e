"""Sessions are open before the phone is answered: sooner heard, never wasted on who does not answer."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID, uuid4

import pytest
from structlog.testing import capture_logs

from bridge.dialing.base import DialOrder
from bridge.dialing.simulated import Answers, Resident, SimulatedDialer
from bridge.http.calls import Registration
from bridge.softphone import CallEnded, Softphone
from tests.service.doorman import Cast
from tests.service.household import HELLO, Household, household, presses, until, with_cast
from tests.service.test_calls_at_the_door import OnlyRings, asks_for_somebody
from tests.simulators.openai_realtime import Faults

OPENING_S = 0.4
"""What a simulated provider takes to accept a connection."""
SLOW_S = 2.0
"""What a slow one takes: longer than a resident is given to say hello."""


def register(house: Household, visit: UUID, tenant: str = "jardim", **said: Any) -> None:
    house.service.register_call(Registration(uuid=visit, tenant=tenant, **said))


async def heard_after_s(house: Household, visit: UUID) -> float:
    """From the answer to the first sound, as the telephone hears it; the caller hangs up then."""
    async with house.phone("jardim", visit) as phone:
        began = time.monotonic()
        await phone.wait_for_speech(timeout_s=10)
        took = time.monotonic() - began
    await house.service.visit_over(visit)
    return took


async def test_a_registered_visitor_is_greeted_sooner(tmp_path: Path) -> None:
    async with Cast(faults=Faults(accept_delay_s=OPENING_S)) as cast:
        async with household(tmp_path, {"jardim": with_cast(cast)}) as house:
            cold = [await heard_after_s(house, uuid4()) for _ in range(3)]
            warm = []
            for opened in range(3):
                visit = uuid4()
                register(house, visit)
                await until(lambda many=opened + 4: len(cast.models) == many, what="the session")  # type: ignore[misc]
                await until(lambda: cast.model.session, what="the configuration")
                assert cast.model.creates == [] and cast.model.audio == 0, "nobody is there to hear it"
                warm.append(await heard_after_s(house, visit))
        assert len(cast.models) == 6, "one session a call"
    sooner = statistics.median(cold) - statistics.median(warm)
    assert sooner > OPENING_S * 0.6
    assert not cast.open_connections


async def test_a_residents_session_opens_while_the_phone_rings(tmp_path: Path) -> None:
    took: list[float] = []

    async def answers(phone: Softphone) -> None:
        began = time.monotonic()
        await phone.wait_for_speech(timeout_s=10)
        took.append(time.monotonic() - began)
        await presses(phone)

    async with Cast() as cast:

        def resident(order: DialOrder) -> Resident:
            assert len(cast.models) == 1, "dialled as soon as it is asked for"
            return Resident(Answers.YES, rings_s=SLOW_S + 0.5, talk=answers)

        house_of = household(
            tmp_path, {"jardim": with_cast(cast)}, dialers={"jardim": SimulatedDialer(resident)}
        )
        async with house_of as house:
            visit = uuid4()
            async with house.phone("jardim", visit) as phone:
                await house.greeted(visit)
                cast.faults.accept_delay_s = SLOW_S
                await phone.say(HELLO)
                async with asyncio.timeout(40):
                    await asyncio.wait({phone.closed})
            assert await house.service.visit_over(visit)
            assert await house.outcome(visit) == ("authorized", "opened", True)
        assert [model.role for model in cast.doormen] == ["visitor", "resident"]
        assert all(model.violations == [] for model in cast.doormen)
    assert took[0] < SLOW_S, "the session was open already: what is waited for is the resident's own word"


@pytest.mark.parametrize("answers", [Answers.BUSY, Answers.NO])
async def test_a_resident_who_does_not_answer_costs_nothing(tmp_path: Path, answers: Answers) -> None:
    async with Cast() as cast:
        calls: list[DialOrder] = []

        def resident(order: DialOrder) -> Resident:
            calls.append(order)
            return Resident(answers, rings_s=0.5)

        tenant = with_cast(cast, limits={"ring_s": 5.0, "dial_attempts": 1})
        house_of = household(tmp_path, {"jardim": tenant}, dialers={"jardim": SimulatedDialer(resident)})
        async with house_of as house:
            visit = uuid4()
            async with house.phone("jardim", visit) as phone:
                await asks_for_somebody(house, phone, visit)
                await until(lambda: len(cast.models) == 2 and cast.doormen[1].session, what="the session")
                assert cast.doormen[1].role == "resident"
                await until(lambda: cast.open_connections == 1, 8, "its end, long before it expires")
                assert not phone.closed.done(), "the visitor is still being told"
            await house.service.visit_over(visit)
    assert len(calls) == 1
    types = {message["type"] for message in cast.doormen[1].received}
    assert types <= {"session.update", "(connection lost)"}, "nothing was said, nothing is billed"


async def test_the_visitor_hangs_up_while_it_rings_and_nothing_is_left_open(tmp_path: Path) -> None:
    async with Cast() as cast:
        house_of = household(tmp_path, {"jardim": with_cast(cast)}, dialers={"jardim": OnlyRings()})
        async with house_of as house:
            visit = uuid4()
            async with house.phone("jardim", visit) as phone:
                await asks_for_somebody(house, phone, visit)
                await until(lambda: len(cast.models) == 2, what="the resident's session")
            assert await house.service.visit_over(visit)
            await until(lambda: not cast.open_connections, 5, "the end of both sessions")


async def test_a_call_that_never_comes_and_one_that_comes_at_once_leave_nothing_open(tmp_path: Path) -> None:
    async with Cast(faults=Faults(accept_delay_s=0.2)) as cast:
        async with household(tmp_path, {"jardim": with_cast(cast)}, registration_s=1.0) as house:
            register(house, uuid4())
            visit = uuid4()
            register(house, visit)
            async with house.phone("jardim", visit) as phone:
                await phone.wait_for_speech(timeout_s=10)
                assert len(cast.models) == 2, "a session that is still being opened is taken as well"
            await house.service.visit_over(visit)
            await until(lambda: not cast.open_connections, 5, "the end of the one that never came")
            register(house, uuid4())
            await until(lambda: len(cast.models) == 3, what="one that the service's end closes")
        assert not cast.open_connections


async def test_who_could_not_be_let_in_has_no_session_opened(tmp_path: Path) -> None:
    async with Cast() as cast:
        tenant = with_cast(cast, limits={"max_calls": 1})
        async with household(tmp_path, {"jardim": tenant}) as house:
            register(house, uuid4())
            await until(lambda: len(cast.models) == 1, what="the first one's session")
            register(house, uuid4())
            await asyncio.sleep(0.2)
            assert len(cast.models) == 1


async def test_a_tenant_whose_budget_is_spent_has_no_session_opened(tmp_path: Path) -> None:
    async with Cast() as cast:
        tenant = with_cast(cast, cost={"daily_budget": "0.001"})
        async with household(tmp_path, {"jardim": tenant}) as house:
            await house.visit("jardim")
            opened, visit = len(cast.models), uuid4()
            register(house, visit)
            async with house.phone("jardim", visit) as phone:
                await phone.wait_for_speech(timeout_s=10)
            await house.service.visit_over(visit)
            assert len(cast.models) == opened


async def test_a_session_that_was_lost_while_it_waited_is_opened_anew(tmp_path: Path) -> None:
    async with Cast() as cast:
        async with household(tmp_path, {"jardim": with_cast(cast)}) as house:
            visit = uuid4()
            register(house, visit)
            await until(lambda: cast.models and cast.model.session, what="the session")
            cast.faults.cut_after, cast.faults.cut = 2, "abort"
            cast.model.emit(type="input_audio_buffer.cleared")
            cast.kick()
            await until(lambda: len(cast.models) > 1, what="its loss")
            cast.faults.cut_after = None
            async with house.phone("jardim", visit) as phone:
                await phone.wait_for_speech(timeout_s=10)
            await house.service.visit_over(visit)
        assert not cast.open_connections


@pytest.mark.parametrize("seed", [1, 2])
async def test_in_whatever_order_things_happen_no_session_is_left(tmp_path: Path, seed: int) -> None:
    """Calls that come or don't, residents who answer or don't, and everybody may hang up at any moment."""
    chance = Random(seed)

    async def stays(phone: Softphone, seconds: float) -> None:
        await asyncio.wait({phone.closed}, timeout=seconds)

    def resident(order: DialOrder) -> Resident:
        answers = chance.choice([Answers.YES, Answers.YES, Answers.BUSY, Answers.NO])
        seconds = chance.uniform(0, 3)
        return Resident(answers, rings_s=chance.uniform(0, 2.5), talk=lambda phone: stays(phone, seconds))

    async def visitor(house: Household) -> None:
        visit = uuid4()
        if chance.random() < 0.7:
            register(house, visit)
            await asyncio.sleep(chance.choice([0.0, 0.05, 0.5, 2.5]))
        if chance.random() < 0.2:
            return  # it never comes
        async with house.phone("jardim", visit) as phone:
            with contextlib.suppress(TimeoutError, CallEnded):
                async with asyncio.timeout(chance.choice([0.05, 0.3, 3.0, 5.0, 8.0])):
                    await house.greeted(visit)
                    await phone.say(HELLO)
                    await asyncio.wait({phone.closed})
        assert await house.service.visit_over(visit, 10)

    with capture_logs() as logs:
        async with Cast(faults=Faults(accept_delay_s=0.1)) as cast:
            tenant = with_cast(cast, limits={"ring_s": 5.0, "dial_attempts": 2})
            house_of = household(
                tmp_path,
                {"jardim": tenant},
                dialers={"jardim": SimulatedDialer(resident)},
                registration_s=2.0,
            )
            async with house_of as house:
                await asyncio.gather(*(visitor(house) for _ in range(10)))
                await until(lambda: not cast.open_connections, 10, "the end of all sessions")
            spoken_to = [model for model in cast.doormen if model.creates]
            assert all(model.violations == [] for model in cast.doormen)
    joined = [line for line in logs if line["event"] == "session.joined"]
    unneeded = [line for line in logs if line["event"] == "session.not_needed"]
    assert any(line["opened_ahead"] for line in joined) and unneeded
    assert len(spoken_to) <= len(joined), "nothing is said where nobody is"
    assert len(cast.models) <= len(joined) + len(unneeded)
