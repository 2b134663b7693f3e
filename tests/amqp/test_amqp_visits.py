"""Whole visits of a site that calls residents and opens its door through RabbitMQ."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from bridge.softphone import Softphone
from tests.amqp.rabbit import Rabbit, Wire
from tests.amqp.site import DOOR, TENANT, Site, site
from tests.service.doorman import Cast
from tests.service.household import listens, presses

pytestmark = pytest.mark.rabbitmq


@pytest.fixture
async def cast() -> AsyncIterator[Cast]:
    """The simulated voice model."""
    async with Cast() as made:
        yield made


async def denies(phone: Softphone) -> None:
    """A resident who refuses by key."""
    await presses(phone, "2")


async def notes(here: Site, visit: object) -> list[str]:
    """What a visit's records note."""
    records = await here.house.records(str(visit))
    return [str(record.data["text"]) for record in records if record.kind == "note"]


async def dials(here: Site, visit: object) -> list[tuple[str, str]]:
    """How a visit's attempts ended."""
    records = await here.house.records(str(visit))
    found = [record.data for record in records if record.kind == "dial.ended"]
    return [(str(data["outcome"]), str(data.get("detail", ""))) for data in found]


def without_properties(message: dict[str, Any]) -> dict[str, Any]:
    """A message as it was sent."""
    return {name: value for name, value in message.items() if name != "_"}


async def test_a_visitor_is_let_in_by_one_order_and_one_message(
    tmp_path: Path, rabbit: Rabbit, cast: Cast
) -> None:
    visit, began = uuid4(), int(time.time())
    async with site(tmp_path, rabbit, cast) as here:
        await here.house.visit(TENANT, visit=visit)
        assert await here.house.outcome(visit) == ("authorized", "opened", True)
        (order,) = here.calls.orders
        (message,) = await rabbit.take(DOOR)
        kinds = await here.house.kinds(visit)
        steps = ["dial.started", "decision", "gate.requested", "gate.answered"]
        assert [kind for kind in kinds if kind in steps] == steps
    asked = order["operation"].pop("timestamp")
    assert isinstance(asked, int) and began <= asked <= time.time()
    assert order == {
        "data": {"destiny": "IA", "guid": str(visit), "license": "123456789012", "origin": "1003030"},
        "operation": {"eventcode": "8001", "guid": f"cmd-{visit}", "msg": "", "type": "clicktocall"},
    }
    assert message["_"].delivery_mode == 2
    assert message["_"].message_id == str(visit)
    message = without_properties(message)
    assert began <= message.pop("timestamp") <= time.time()
    assert message == {
        "call_id": str(visit),
        "action": "authorize",
        "apartment": "501",
        "resident": "Renata Oliveira",
        "visitor": "Pedro",
        "intent_type": "visita",
        "authorization_result": "authorized",
    }


@pytest.mark.parametrize("told", [True, False])
async def test_a_refusal_is_told_where_the_site_wants_it_and_opens_nothing(
    tmp_path: Path, rabbit: Rabbit, cast: Cast, told: bool
) -> None:
    visit = uuid4()
    async with site(tmp_path, rabbit, cast, gate={"kind": "amqp", "tell_refusals": told}) as here:
        here.calls.answers = lambda _: (0.1, denies)
        await here.house.visit(TENANT, visit=visit)
        assert await here.house.outcome(visit) == ("denied", "resident_refused", None)
        messages = await rabbit.take(DOOR)
        noted = [text for text in await notes(here, visit) if "refusal" in text]
    assert [(one["action"], one["authorization_result"]) for one in messages] == [("deny", "denied")] * told
    assert [one["call_id"] for one in messages] == [str(visit)] * told
    assert len(noted) == told


async def test_nobody_answers_and_whoever_does_afterwards_is_a_stranger(
    tmp_path: Path, rabbit: Rabbit, cast: Cast
) -> None:
    visit = uuid4()
    async with site(tmp_path, rabbit, cast) as here:
        here.calls.answers = lambda _: None
        await here.house.visit(TENANT, visit=visit)
        assert await here.house.outcome(visit) == ("unreachable", "no_answer", None)
        assert [outcome for outcome, _ in await dials(here, visit)] == ["no_answer", "no_answer"]
        assert [order["data"]["guid"] for order in here.calls.orders] == [str(visit)] * 2
        async with here.house.resident_phone(TENANT, visit) as late:
            async with asyncio.timeout(2):
                await asyncio.wait({late.closed})
        assert await here.house.outcome(visit) == ("unreachable", "no_answer", None)
        assert await rabbit.take(DOOR) == []


async def test_who_takes_the_first_call_while_the_second_rings_decides_alone(
    tmp_path: Path, rabbit: Rabbit, cast: Cast
) -> None:
    """Both calls carry the visit's id. The late answer belongs to the apartment that is being called; the
    records say that it may have been either phone; who takes the second call then finds no running dial."""
    visit = uuid4()
    async with site(tmp_path, rabbit, cast) as here:
        here.calls.answers = lambda number: (5.6, presses) if number == 0 else (1.2, listens)
        await here.house.visit(TENANT, visit=visit)
        assert await here.house.outcome(visit) == ("authorized", "opened", True)
        assert [outcome for outcome, _ in await dials(here, visit)] == ["no_answer", "answered"]
        assert (
            "came with the visit's own id: this attempt's phone, or one of an earlier attempt"
            in await notes(here, visit)
        )
        legs = [record.data for record in await here.house.records(visit) if record.kind == "leg.connected"]
        assert [leg["leg"] for leg in legs] == ["visitor", "resident-2"]
        await asyncio.wait(here.calls.calls, timeout=5)
        assert here.calls.refused == [1]
        assert len(await rabbit.take(DOOR)) == 1


async def test_a_strangers_id_on_the_resident_port_is_no_answer(
    tmp_path: Path, rabbit: Rabbit, cast: Cast
) -> None:
    """Another visit's id, or an invented one, is let in by nothing that runs."""
    visit, other = uuid4(), uuid4()
    async with site(tmp_path, rabbit, cast) as here:

        async def intrudes(phone: Softphone) -> None:
            async with here.house.resident_phone(TENANT, other) as stranger:
                async with asyncio.timeout(2):
                    await asyncio.wait({stranger.closed})
            await denies(phone)

        here.calls.answers = lambda _: (0.1, intrudes)
        await here.house.visit(TENANT, visit=visit)
        assert await here.house.outcome(visit) == ("denied", "resident_refused", None)


async def test_a_broker_that_is_away_is_an_outcome_that_the_visitor_hears(
    tmp_path: Path, rabbit: Rabbit, wire: Wire, cast: Cast
) -> None:
    """The service starts all the same, and works once the broker is there."""
    await wire.close()
    url = rabbit.url(port=wire.port)
    async with site(tmp_path, rabbit, cast, url=url, dialer={"kind": "amqp", "timeout_s": 0.3}) as here:
        visit = uuid4()
        phone = await here.house.visit(TENANT, visit=visit)
        assert await here.house.outcome(visit) == ("unreachable", "failed", None)
        ended = await dials(here, visit)
        assert [outcome for outcome, _ in ended] == ["failed", "failed"]
        assert all(detail.startswith(f"RabbitMQ at 127.0.0.1:{wire.port} is away") for _, detail in ended)
        assert phone.closed.done()
        await wire.open()
        await asyncio.sleep(6)  # the longest pause between attempts
        visit = uuid4()
        await here.house.visit(TENANT, visit=visit)
        assert await here.house.outcome(visit) == ("authorized", "opened", True)
        assert len(await rabbit.take(DOOR)) == 1


@pytest.mark.parametrize("fault", ["wrong password", "no queue", "full queue"])
async def test_a_broker_that_takes_no_order_is_an_outcome_with_its_reason(
    tmp_path: Path, rabbit: Rabbit, cast: Cast, fault: str
) -> None:
    await rabbit.declare("full", **{"x-max-length": 0, "x-overflow": "reject-publish"})
    dialer: dict[str, Any] = {"kind": "amqp", "timeout_s": 1.0}
    url, said = rabbit.url(), ""
    if fault == "wrong password":
        url, said = rabbit.url("wrong-secret"), "refuses the login of guest"
    elif fault == "no queue":
        dialer["queue"], said = "nowhere", "has no queue nowhere"
    else:
        dialer["queue"], said = "full", "refused the message: queue full is full"
    async with site(tmp_path, rabbit, cast, url=url, dialer=dialer) as here:
        visit = uuid4()
        await here.house.visit(TENANT, visit=visit)
        assert await here.house.outcome(visit) == ("unreachable", "failed", None)
        ended = await dials(here, visit)
        assert [outcome for outcome, _ in ended] == ["failed", "failed"]
        assert all(said in detail and "wrong-secret" not in detail for _, detail in ended)


async def test_a_door_whose_confirmation_got_lost_is_told_of_as_not_known(
    tmp_path: Path, rabbit: Rabbit, wire: Wire, cast: Cast
) -> None:
    """The order for the resident's call is the first message; the wire is cut at the second, the door's."""
    wire.cut_after = 2
    async with site(tmp_path, rabbit, cast, url=rabbit.url(port=wire.port)) as here:
        visit = uuid4()
        await here.house.visit(TENANT, visit=visit)
        assert await here.house.outcome(visit) == ("authorized", "gate_failed", False)
        view = await here.house.service.storage.visit(str(visit))
        assert view is not None and "whether the queue has the message is not known" in str(
            view.summary.gate_detail
        )
        assert len(await rabbit.take(DOOR, 1.0)) == 1
