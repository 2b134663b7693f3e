"""A visit goes on over another session, or another provider; nothing rests on what was not really heard."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from websockets.asyncio.server import ServerConnection

from bridge.softphone import Softphone
from tests.service.doorman import AGREES, ASKS, Cast, Doorman, Part
from tests.service.household import HELLO, Household, household, until, with_cast
from tests.simulators.openai_realtime import Faults

LONG = Part(ASKS, AGREES, exact_ms=800)
"""Eight events into a connection its greeting is under way."""
SORRY = "Desculpe a demora."


async def consents(phone: Softphone) -> None:
    """A resident who hears the briefing out and says yes."""
    await phone.wait_for_speech(timeout_s=10)
    await phone.wait_for_quiet(400, timeout_s=20)
    await phone.say(HELLO)
    await asyncio.wait({phone.closed})


def replaced(house: Household, visit: UUID) -> list[tuple[str, str, str]]:
    """(leg, provider, code) of each session that took another's place."""
    seen = [one.data for one in house.of(visit, "session.replaced")]
    return [(one["leg"], one["provider"], one["reason"].partition(":")[0]) for one in seen]


FIRST: dict[str, tuple[str, Faults]] = {
    "closes-1011": ("went_away", Faults(cut_after=8, cut="close")),
    "breaks-1006": ("went_away", Faults(cut_after=8, cut="abort")),
    "sends-garbage": ("protocol_error", Faults(cut_after=8, cut="garbage")),
    "rate-limit": ("rate_limit", Faults(refuse=(429, b'{"error":{"code":"rate_limit_exceeded"}}'))),
    "wrong-key": ("key_refused", Faults(refuse=(401, b'{"error":{"code":"invalid_api_key"}}'))),
}
"""What becomes of the sessions of a tenant's first provider."""


async def test_a_visit_whose_provider_fails_is_brought_to_its_end_by_the_next_one(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        bad = {
            name: await stack.enter_async_context(Cast(LONG, faults=faults))
            for name, (_, faults) in FIRST.items()
        }
        bad["refused"] = await stack.enter_async_context(Cast(LONG))
        good = {name: await stack.enter_async_context(Cast(LONG)) for name in bad}
        tenants = {
            name: with_cast(
                cast,
                limits={"ring_s": 5.0, "silence_s": 60.0},
                fallback=[{"provider": "openai", "base_url": good[name].url}],
            )
            for name, cast in bad.items()
        }
        tenants["refused"]["base_url"] = "http://127.0.0.1:9/v1"
        house = await stack.enter_async_context(household(tmp_path, tenants))

        async def visit(name: str) -> None:
            visit = uuid4()
            house.residents[visit] = consents
            await house.visit(name, visit=visit)
            assert await house.outcome(visit) == ("authorized", "opened", True), name
            code = FIRST[name][0] if name in FIRST else "unreachable"
            ((first, _, why), *others) = replaced(house, visit)
            assert (first, why) == ("visitor", code), name
            later = {why for leg, _, why in others if leg == "resident-1"}
            assert later and later <= {code, "passed_over"}, (name, others)
            (briefed,) = house.of(visit, "briefing.played")
            assert briefed
            visitors, residents = (
                [d for d in good[name].doormen if d.role == r] for r in ("visitor", "resident")
            )
            assert all(doorman.violations == [] for doorman in good[name].doormen), name
            assert "Em que posso ajudar" in " ".join(visitors[0].said[:2])
            assert sum("Autoriza a entrada" in text for text in residents[0].said) == 1
            assert (visitors[0].said[0] == SORRY) == (name == "stalls"), (
                "who had to wait is told that we are sorry"
            )

        await asyncio.gather(*(visit(name) for name in tenants))


class OnceFaulty(Cast):
    """Only its first connection misbehaves."""

    async def _serve(self, socket: ServerConnection) -> None:
        if self.models:
            self.faults.cut_after = None
        await super()._serve(socket)


async def test_a_model_that_stalls_is_replaced_and_who_had_to_wait_is_told_that_we_are_sorry(
    tmp_path: Path,
) -> None:
    visit, stall = uuid4(), Faults(cut_after=8, cut="stall")
    async with (
        OnceFaulty(LONG, faults=stall) as cast,
        household(tmp_path, {"jardim": with_cast(cast)}) as house,
    ):

        async def talk(phone: Softphone) -> None:
            await until(lambda: "collecting" in house.states(visit), 15, "the greeting's end")
            await phone.say(HELLO)

        await house.visit("jardim", talk, visit=visit)
        assert await house.outcome(visit) == ("authorized", "opened", True)
        assert replaced(house, visit) == [("visitor", "openai", "stalled")]
        first, second = [doorman for doorman in cast.doormen if doorman.role == "visitor"]
        assert second.said[:2] == [SORRY, first.said[0]]
        await until(lambda: cast.open_connections == 0, what="the end of all connections")


Moment = Callable[[Household, UUID, Cast], bool]


def resident_model(cast: Cast) -> Doorman | None:
    return next((doorman for doorman in cast.doormen if doorman.role == "resident" and doorman.session), None)


def briefing_begun(house: Household, visit: UUID, cast: Cast) -> bool:
    doorman = resident_model(cast)
    return doorman is not None and any(item.ms >= 200 for item in doorman.items.values())


def briefing_heard(house: Household, visit: UUID, cast: Cast) -> bool:
    return bool(house.of(visit, "briefing.played"))


@pytest.mark.parametrize(
    ("moment", "codes"),
    [
        (briefing_begun, {"visitor": 1011, "resident": None}),
        (briefing_heard, {"visitor": None, "resident": 1011}),
    ],
)
async def test_a_consultation_survives_the_loss_of_either_session(
    tmp_path: Path, moment: Moment, codes: dict[str, int | None]
) -> None:
    """Each in the middle of the briefing, and after it; one tenant for each leg that loses its session."""
    async with AsyncExitStack() as stack:
        part = Part(ASKS, AGREES)
        casts = {
            role: await stack.enter_async_context(Cast(part, faults=Faults(pace_s=0.05)))
            for role in ("visitor", "resident")
        }
        tenants = {role: with_cast(cast) for role, cast in casts.items()}
        house = await stack.enter_async_context(household(tmp_path, tenants))

        async def visit(role: str) -> None:
            cast, visit, ready = casts[role], uuid4(), asyncio.Event()

            async def talk(phone: Softphone) -> None:
                await ready.wait()
                await until(lambda: briefing_heard(house, visit, cast), 20, "the briefing")
                await phone.wait_for_quiet(400, timeout_s=20)
                await phone.say(HELLO)
                await asyncio.wait({phone.closed})

            house.residents[visit] = talk
            going = asyncio.create_task(house.visit(role, visit=visit))
            await until(lambda: moment(house, visit, cast), 20, "the moment")
            (lost,) = [doorman for doorman in cast.doormen if doorman.role == role]
            await cast.end(lost, codes[role])
            await until(lambda: replaced(house, visit), what="another session")
            ready.set()
            await going
            await check(house, cast, role, visit, moment)

        await asyncio.gather(*(visit(role) for role in casts))


async def check(house: Household, cast: Cast, role: str, visit: UUID, moment: Moment) -> None:
    assert await house.outcome(visit) == ("authorized", "opened", True)
    leg = "visitor" if role == "visitor" else "resident-1"
    assert replaced(house, visit) == [(leg, "openai", "went_away")]
    kinds = await house.kinds(visit)
    assert (
        kinds.count("session.lost") == kinds.count("session.replaced") == kinds.count("briefing.played") == 1
    )
    models = [doorman for doorman in cast.doormen if doorman.role == role]
    assert len(models) == 2 and all(doorman.violations == [] for doorman in cast.doormen)
    told: list[dict[str, Any]] = [
        one["item"] for one in models[1].received if one["type"].endswith("item.create")
    ]
    if role == "visitor":
        assert [item["name"] for item in told if item["type"] == "function_call"] == ["call_resident"]
        calls = [one for one in await house.records(visit) if one.kind == "tool.called"]
        assert [one.data["name"] for one in calls].count("call_resident") == 1, "nothing is done again"
    if role == "resident" and moment is briefing_begun:
        again = kinds.index("briefing.played") > kinds.index("session.replaced")
        assert again, "half a briefing, and the other half from another session, is none"
        assert ["Autoriza a entrada" in model.said[0] for model in models] == [True, True]
    if role == "resident" and moment is briefing_heard:
        assert not any("Autoriza a entrada" in text for text in models[1].said), "it is not said again"
        spoken = [item["content"][0]["text"] for item in told if item.get("role") == "assistant"]
        assert any("Autoriza a entrada" in text for text in spoken), "but the new session knows of it"
