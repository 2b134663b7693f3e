"""Who is let in at the two ports: strangers, latecomers, doubles and one too many are not."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from structlog.testing import capture_logs

from bridge.dialing.base import DialOrder, DialResult
from bridge.endpoints.audiosocket_frames import encode_uuid
from bridge.softphone import PhoneClosed, Softphone
from tests.service.doorman import AGREES, ASKS, Cast, Part
from tests.service.household import HELLO, Household, household, presses, until, with_cast

PART = Part(ASKS, AGREES)


class OnlyRings:
    """A dialer whose phones ring until they are given up; the test makes the calls itself."""

    def __init__(self) -> None:
        self.orders: list[DialOrder] = []
        self.given_up: list[UUID] = []

    async def start(self) -> None:
        """It needs nothing."""

    async def stop(self) -> None:
        """It holds nothing."""

    async def dial(self, order: DialOrder) -> DialResult:
        """Ring."""
        self.orders.append(order)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.given_up.append(order.attempt)
            raise
        raise AssertionError("unreachable")


async def is_refused(phone: Softphone) -> PhoneClosed:
    """Call, and be hung up on at once."""
    async with phone:
        await asyncio.wait({phone.closed}, timeout=2)
        assert phone.closed.done(), "the call was taken"
        return phone.closed.result()


def refusals(logs: list[MutableMapping[str, Any]]) -> list[str]:
    """The reasons given, one for each refused call."""
    return [line["detail"] for line in logs if line.get("reason") == "refused"]


async def asks_for_somebody(house: Household, phone: Softphone, visit: UUID) -> None:
    """Say hello, so that the resident is called."""
    await house.greeted(visit)
    await phone.say(HELLO)


async def test_one_visitor_too_many_is_refused_and_the_running_visit_goes_on(tmp_path: Path) -> None:
    async with (
        Cast(PART) as cast,
        household(
            tmp_path,
            {"jardim": with_cast(cast, limits={"max_calls": 1}), "bosque": with_cast(cast)},
            max_calls=2,
        ) as house,
    ):
        first = uuid4()
        running = asyncio.create_task(house.visit("jardim", visit=first))
        await until(lambda: house.service.open_legs() == 1)
        with capture_logs() as logs:
            assert (await is_refused(house.phone("jardim", uuid4()))).kind == "hangup"
        assert refusals(logs) == ["1 calls of jardim are running; tenants.jardim.limits.max_calls allows 1"]
        assert len(logs) == 1
        assert "collecting" in house.states(first) or house.states(first) == []

        # The visit's own resident makes two; the service is full, and was never too full for them.
        await until(lambda: house.service.open_legs() == 2, what="the resident's leg")
        with capture_logs() as logs:
            assert (await is_refused(house.phone("bosque", uuid4()))).kind == "hangup"
        assert refusals(logs) == ["2 calls are running; service.max_calls allows 2"]
        await running
        assert await house.outcome(first) == ("authorized", "opened", True)

        again = uuid4()
        await house.visit("jardim", visit=again)  # the place is free again
        assert await house.outcome(again) == ("authorized", "opened", True)
        assert len(await house.service.storage.visits()) == 2  # the refused ones never were visits


async def test_200_connections_that_say_nothing_and_a_visit(tmp_path: Path) -> None:
    async with Cast(PART) as cast, household(tmp_path, {"jardim": with_cast(cast)}) as house:
        ports = house.service.ports("jardim")

        async def silent(port: int) -> None:
            address = ("127.0.0.2", 0)
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=address)
            try:
                assert await asyncio.wait_for(reader.read(), 20) == b""
            except ConnectionResetError:
                return
            finally:
                writer.close()

        visits = [uuid4(), uuid4()]
        early = asyncio.create_task(house.visit("jardim", visit=visits[0]))
        await until(lambda: house.service.open_legs() == 1)
        crowd = [asyncio.create_task(silent(port)) for port in ports for _ in range(100)]
        await asyncio.sleep(0.5)
        late = asyncio.create_task(house.visit("jardim", visit=visits[1]))  # in the midst of them
        for visit, running in zip(visits, (early, late), strict=True):
            phone = await running
            assert phone.closed.result().kind == "hangup"
            assert await house.outcome(visit) == ("authorized", "opened", True)
        await asyncio.wait_for(asyncio.gather(*crowd), 20)
        assert len(await house.service.storage.visits()) == 2


async def test_the_resident_port_knows_the_running_attempt_only(tmp_path: Path) -> None:
    rings = OnlyRings()
    limits = {"ring_s": 5.0, "dial_attempts": 2}
    async with (
        Cast(PART) as cast,
        household(
            tmp_path,
            {"jardim": with_cast(cast, limits=limits), "bosque": with_cast(cast)},
            dialers={"jardim": rings},
        ) as house,
    ):
        visit = uuid4()
        async with house.phone("jardim", visit) as visitor:
            with capture_logs() as logs:
                await is_refused(house.resident_phone("jardim", uuid4()))  # before anybody is called
                await asks_for_somebody(house, visitor, visit)
                await until(lambda: rings.orders)
                first = rings.orders[0].attempt
                await is_refused(house.resident_phone("jardim", uuid4()))
                await is_refused(house.resident_phone("jardim", visit))
                await is_refused(house.resident_phone("bosque", first))  # another tenant's port
                await until(lambda: len(rings.orders) == 2, what="the second attempt")
                await is_refused(house.resident_phone("jardim", first))
                assert rings.given_up == [first]
            assert len(refusals(logs)) == 5
            assert all("no running dial" in reason for reason in refusals(logs))
            assert "consulting" not in house.states(visit)

            second = rings.orders[1].attempt
            async with house.resident_phone("jardim", second) as resident:
                talk = asyncio.create_task(presses(resident))
                await until(lambda: "consulting" in house.states(visit))
                for stranger in (second, first, visit):  # one of them is a second phone for the same attempt
                    await is_refused(house.resident_phone("jardim", stranger))
                await asyncio.wait({visitor.closed}, timeout=20)
                await talk
        assert await house.service.visit_over(visit)
        assert await house.outcome(visit) == ("authorized", "opened", True)
        legs = [record.data["leg"] for record in await house.records(visit) if record.kind == "leg.connected"]
        assert legs == ["visitor", "resident-2"]


async def test_the_visits_own_id_counts_on_the_resident_port_where_the_tenant_says_so(tmp_path: Path) -> None:
    rings = OnlyRings()
    dialer = {"kind": "simulated", "visit_uuid_on_resident_port": True}
    async with (
        Cast(PART) as cast,
        household(tmp_path, {"jardim": with_cast(cast, dialer=dialer)}, dialers={"jardim": rings}) as house,
    ):
        visit = uuid4()
        async with house.phone("jardim", visit) as visitor:
            await is_refused(house.resident_phone("jardim", visit))  # nobody is being called yet
            await asks_for_somebody(house, visitor, visit)
            await until(lambda: rings.orders)
            async with house.resident_phone("jardim", visit) as resident:
                talk = asyncio.create_task(presses(resident))
                await until(lambda: "consulting" in house.states(visit))
                await is_refused(house.resident_phone("jardim", visit))
                await asyncio.wait({visitor.closed}, timeout=20)
                await talk
        assert await house.service.visit_over(visit)
        assert await house.outcome(visit) == ("authorized", "opened", True)


async def test_of_two_calls_with_one_attempts_id_in_the_same_instant_one_is_taken(tmp_path: Path) -> None:
    rings = OnlyRings()
    async with (
        Cast(PART) as cast,
        household(tmp_path, {"jardim": with_cast(cast)}, dialers={"jardim": rings}) as house,
    ):
        visit = uuid4()
        async with house.phone("jardim", visit) as visitor:
            await asks_for_somebody(house, visitor, visit)
            await until(lambda: rings.orders)
            lines = [
                await asyncio.open_connection("127.0.0.1", house.service.ports("jardim")[1]) for _ in range(2)
            ]
            with capture_logs() as logs:
                for _, writer in lines:
                    writer.write(encode_uuid(rings.orders[0].attempt))
                await until(lambda: refusals(logs), what="a refusal")
                await until(lambda: "consulting" in house.states(visit))
                assert house.service.open_legs() == 2
            assert len(refusals(logs)) == 1
            for _, writer in lines:
                writer.close()
            await asyncio.wait({visitor.closed}, timeout=20)
        assert await house.service.visit_over(visit)
        assert await house.outcome(visit) == ("unreachable", "resident_hung_up", None)


async def test_an_id_is_one_visit_only(tmp_path: Path) -> None:
    async with (
        Cast(PART) as cast,
        household(tmp_path, {"jardim": with_cast(cast), "bosque": with_cast(cast)}) as house,
    ):
        visit = uuid4()
        running = asyncio.create_task(house.visit("jardim", visit=visit))
        await until(lambda: house.service.open_legs() == 1)
        with capture_logs() as logs:
            for tenant in ("jardim", "bosque"):
                assert (await is_refused(house.phone(tenant, visit))).kind == "hangup"
        assert refusals(logs) == [f"a visit with the id {visit} is running"] * 2
        await running
        assert await house.outcome(visit) == ("authorized", "opened", True)
        before = await house.records(visit)
        sessions = len(cast.models)

        for tenant in ("jardim", "bosque"):
            with capture_logs() as logs:
                assert (await is_refused(house.phone(tenant, visit))).kind == "hangup"
                assert await house.service.visit_over(visit)
            failed = [line for line in logs if line["log_level"] in ("warning", "error")]
            assert [line["event"] for line in failed] == ["record.failed"]
            assert failed[0]["visit"] == str(visit)
        assert await house.records(visit) == before
        assert len(cast.models) == sessions  # nobody spoke with them
        assert await house.service.storage.verify() == []


async def test_a_peer_that_says_a_uuid_and_leaves_is_a_visit_that_ends(tmp_path: Path) -> None:
    async with Cast(PART) as cast, household(tmp_path, {"jardim": with_cast(cast)}) as house:
        visits = [uuid4() for _ in range(20)]
        for visit in visits:
            _, writer = await asyncio.open_connection("127.0.0.1", house.service.ports("jardim")[0])
            writer.write(encode_uuid(visit))
            writer.close()
        await until(lambda: all(house.of(visit, "visit.ended") for visit in visits))
        for visit in visits:
            assert await house.service.visit_over(visit)
            assert (await house.outcome(visit))[0] == "abandoned"
        await until(lambda: cast.open_connections == 0, what="the end of every session")
