"""A person hangs up, at any moment, a leg or the visit: it is on record first, ends closed, and is let go."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.live import NoSuchCallError, RunningVisit
from bridge.service import Service
from bridge.softphone import CallEnded, PhoneClosed, Softphone
from tests.service.doorman import AGREES, ASKS, Cast, Part
from tests.service.household import HELLO, Household, household, listens, presses, until, with_cast
from tests.service.household import settings as service_settings
from tests.service.test_gate_in_a_visit import door, gate

PART = Part(ASKS, AGREES)
BY = "operator:ana"


async def hang_up(service: Service, visit: UUID, leg: str | None = None) -> bool:
    """Whether there was anything left to hang up."""
    try:
        await service.hub.hang_up(visit, leg, BY)
    except NoSuchCallError:
        return False
    return True


async def has_closed(phone: Softphone) -> PhoneClosed:
    await asyncio.wait({phone.closed}, timeout=5)
    assert phone.closed.done(), "the call goes on"
    return phone.closed.result()


async def nothing_opened_after_it(house: Household, visit: UUID) -> None:
    """The record says who hung up, and of nothing but an end after it."""
    records = await house.records(visit)
    kinds = [record.kind for record in records]
    at = kinds.index("visit.hung_up")
    assert records[at].data["by"] == BY
    assert not {"decision", "gate.requested", "dial.started", "parties.connected"} & set(kinds[at:])
    assert kinds[-1] == "visit.ended"
    assert kinds.count("leg.connected") == kinds.count("leg.ended")
    outcome, _, opened = await house.outcome(visit)
    assert (opened is True) == ("gate.requested" in kinds[:at])
    assert (outcome == "authorized") == ("gate.requested" in kinds[:at])


async def test_a_visit_is_hung_up_while_the_resident_is_asked(tmp_path: Path) -> None:
    async with Cast(PART) as cast, household(tmp_path, {"jardim": with_cast(cast)}) as house:
        visit = uuid4()
        house.residents[visit] = listens
        running = asyncio.create_task(house.visit("jardim", visit=visit))
        await until(lambda: "consulting" in house.states(visit), what="the resident")
        shown = house.service.hub.visit(visit)
        assert isinstance(shown, RunningVisit)
        assert (shown.tenant, shown.state) == ("jardim", "consulting")
        assert [leg.name for leg in shown.legs] == ["visitor", "resident-1"][: len(shown.legs)]
        assert await hang_up(house.service, visit)
        assert (await running).closed.result().kind == "hangup"
        assert await house.outcome(visit) == ("abandoned", "hung_up_by_person", None)
        await nothing_opened_after_it(house, visit)
        assert house.service.hub.running() == [] and house.service.open_legs() == 0
        assert not await hang_up(house.service, visit), "it is over"


@pytest.mark.parametrize(
    ("leg", "outcome"), [("visitor", "abandoned"), ("resident-1", "unreachable"), (None, "abandoned")]
)
async def test_who_is_on_the_other_leg_is_told(tmp_path: Path, leg: str | None, outcome: str) -> None:
    async with Cast(PART) as cast, household(tmp_path, {"jardim": with_cast(cast)}) as house:
        visit = uuid4()
        house.residents[visit] = listens
        running = asyncio.create_task(house.visit("jardim", visit=visit))
        await until(lambda: "briefing.played" in [one.kind for one in house.of(visit)], what="the briefing")
        said = {
            role: sum(len(one.said) for one in cast.doormen if one.role == role)
            for role in ("visitor", "resident")
        }
        assert await hang_up(house.service, visit, leg)
        await running
        assert (await house.outcome(visit))[:2] == (outcome, "hung_up_by_person")
        await nothing_opened_after_it(house, visit)
        told = {
            role
            for role in said
            if sum(len(one.said) for one in cast.doormen if one.role == role) > said[role]
        }
        assert told == {"visitor": {"resident"}, "resident-1": {"visitor"}, None: set()}[leg]


async def test_an_order_that_the_gate_has_is_not_called_back_and_its_answer_is_recorded(
    tmp_path: Path,
) -> None:
    async with Cast(PART) as cast, door(tmp_path / "porteiro.db", mute=True) as device:
        own = with_cast(cast, gate=gate(device, timeout_s=1.5))
        async with household(tmp_path, {"jardim": own}) as house:
            visit = uuid4()
            house.residents[visit] = presses
            running = asyncio.create_task(house.visit("jardim", visit=visit))
            await until(lambda: device.requests, 20, what="the order")
            assert await hang_up(house.service, visit)
            assert (await running).closed.result().kind == "hangup"
            kinds = await house.kinds(visit)
            assert kinds.index("gate.requested") < kinds.index("visit.hung_up") < kinds.index("gate.answered")
            assert len(device.requests) == 1
            assert (await house.outcome(visit))[0] == "authorized"


async def says_hello(phone: Softphone) -> None:
    """A visitor who may be hung up before they have said anything."""
    with suppress(CallEnded):
        await phone.wait_for_speech(timeout_s=10)
        await phone.wait_for_quiet(300)
        await phone.say(HELLO)


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.floats(0.0, 9.0), st.sampled_from([None, None, "visitor", "resident-1"])),
        min_size=6,
        max_size=8,
    )
)
def test_at_any_moment_nothing_opens_and_everything_is_closed(
    tmp_path_factory: pytest.TempPathFactory, moments: list[tuple[float, str | None]]
) -> None:
    async def one(house: Household, after_s: float, leg: str | None) -> None:
        visit = uuid4()
        house.residents[visit] = presses
        running = asyncio.create_task(house.visit("jardim", says_hello, visit=visit))
        await asyncio.sleep(after_s)
        done = await hang_up(house.service, visit, leg)
        if not done:  # over already, or no such leg (yet): then it goes on as it would
            await running
            assert "visit.hung_up" not in await house.kinds(visit)
            return
        phone = await running
        await has_closed(phone)
        await nothing_opened_after_it(house, visit)

    async def play() -> None:
        async with (
            Cast(PART) as cast,
            household(tmp_path_factory.mktemp("house"), {"jardim": with_cast(cast)}) as house,
        ):
            await asyncio.gather(*(one(house, after_s, leg) for after_s, leg in moments))
            assert house.service.hub.running() == [] and house.service.open_legs() == 0

    asyncio.run(play())


# ---- Several workers -----------------------------------------------------------------------------------


async def test_with_workers_the_front_knows_and_the_right_worker_hangs_up(tmp_path: Path) -> None:
    async with Cast(PART) as cast:
        service = Service(service_settings(tmp_path, {"jardim": with_cast(cast)}, {}, workers=2))
        await service.start()
        try:
            reader = service.hub.subscribe("jardim")
            one, other = uuid4(), uuid4()
            port = service.ports("jardim")[0]
            async with (
                Softphone("127.0.0.1", port, one) as first,
                Softphone("127.0.0.1", port, other) as second,
            ):
                await until(lambda: len(service.hub.running("jardim")) == 2, 15, what="both visits")
                assert service.hub.running("bosque") == []
                await until(lambda: all(_greeted(service, visit) for visit in (one, other)), 15)
                await first.say(HELLO)
                await until(lambda: _leg_is_there(service, one, "resident-1"), 20, what="the resident")
                shown = service.hub.visit(one)
                assert shown is not None and shown.tool_calls and shown.apartment == "501"
                with pytest.raises(NoSuchCallError):
                    await service.hub.hang_up(uuid4(), None, BY)
                await service.hub.hang_up(one, None, BY)
                await has_closed(first)
                await until(lambda: service.hub.visit(one) is None, what="its end")
                assert not second.closed.done(), "it is another worker's"
                await service.hub.hang_up(other, "visitor", BY)
                await has_closed(second)
            await until(lambda: not service.hub.running())
            kinds = [event.kind for event in await reader.take(1) if event.visit == str(one)]
            assert kinds[0] == "visit.started" and kinds[-2:] == ["visit.ended", "visit.over"]
            assert "visit.hung_up" in kinds and "turn" in kinds and "speaking" in kinds
            assert await service.storage.verify() == []
            for visit in (one, other):
                view = await service.storage.visit(str(visit))
                assert view is not None and view.summary.reason == "hung_up_by_person"
        finally:
            await service.stop()
        assert reader.over


async def test_visits_of_a_worker_that_died_are_shown_no_more(tmp_path: Path) -> None:
    async with Cast(PART) as cast:
        service = Service(service_settings(tmp_path, {"jardim": with_cast(cast)}, {}, workers=2))
        await service.start()
        try:
            visit = uuid4()
            async with Softphone("127.0.0.1", service.ports("jardim")[0], visit) as phone:
                await until(lambda: service.hub.visit(visit), 15, what="the visit")
                assert service.pool is not None
                (worker,) = [service.pool.routes.runs_at(visit)]
                assert worker is not None
                service.pool._workers[worker].kill()
                await has_closed(phone)
                await until(lambda: service.hub.visit(visit) is None, what="its end")
                with pytest.raises(NoSuchCallError):
                    await service.hub.hang_up(visit, None, BY)
        finally:
            await service.stop()


def _greeted(service: Service, visit: UUID) -> bool:
    shown = service.hub.visit(visit)
    return shown is not None and shown.state == "collecting"


def _leg_is_there(service: Service, visit: UUID, leg: str) -> bool:
    shown = service.hub.visit(visit)
    return shown is not None and shown.leg(leg) is not None
