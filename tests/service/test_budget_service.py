"""A tenant whose budget is spent: visitors hear a sentence in our own voice, no session and no gate opens."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from structlog.testing import capture_logs

from providers.announcer import Announcer, OwnVoice
from providers.base import Event, Failed, SessionConfig
from providers.local.speech import SpeechError
from tests.service.doorman import AGREES, ASKS, Cast, Part
from tests.service.household import Household, household, listens, until, with_cast
from tests.service.served import read, serving

PART = Part(ASKS, AGREES)
LITTLE = {"daily_budget": "0.001"}
"""Less than one reply costs."""
REFUSED_WITHIN_S = 2.0
"""The dialplan takes a call that ended sooner for one that was refused, and rings its attendant."""


async def test_the_visit_that_spends_the_budget_goes_on_and_the_next_is_turned_away(tmp_path: Path) -> None:
    async with Cast(PART) as cast:
        tenants = {"jardim": with_cast(cast, cost=LITTLE), "bosque": with_cast(cast)}
        async with household(tmp_path, tenants) as house:
            first, second = uuid4(), uuid4()
            await house.visit("jardim", visit=first)
            assert await house.outcome(first) == ("authorized", "opened", True)  # not cut off for money

            opened = len(cast.doormen)
            with capture_logs() as logs:
                await turned_away(house, second)
            assert len(cast.doormen) == opened  # nobody was asked for anything
            (line,) = [line for line in logs if line["event"] == "budget.spent"]
            assert (line["period"], line["budget"], line["currency"]) == ("day", "0.001", "USD")

            other = uuid4()
            await house.visit("bosque", visit=other)
            assert await house.outcome(other) == ("authorized", "opened", True)  # each has its own
        async with household(tmp_path, tenants) as house:  # a restart forgets nothing
            await turned_away(house, uuid4())


async def turned_away(house: Household, visit: UUID) -> None:
    """A visitor comes, hears a sentence and is hung up on."""

    async def hears(phone: Any) -> None:
        await phone.wait_for_speech(timeout_s=10)
        await listens(phone)

    phone = await house.visit("jardim", hears, visit=visit)
    assert phone.closed.result().kind == "hangup"
    assert await house.outcome(visit) == ("unreachable", "budget_spent", None)
    records = await house.records(visit)
    kinds = [record.kind for record in records]
    assert "gate.requested" not in kinds and "dial.started" not in kinds and "tool.called" not in kinds
    (joined,) = [record for record in records if record.kind == "leg.connected"]
    assert joined.data["provider"] == "announcement"
    (said,) = [record.data for record in records if record.kind == "turn"]
    assert said["speaker"] == "agent" and "não está disponível" in said["text"]
    assert said["heard_ms"] > 3000 and not said["interrupted"]
    *_, cost = [record.data for record in records if record.kind == "visit.cost"]
    assert (cost["amount"], cost["complete"]) == ("0", True)


async def test_a_budget_that_is_spent_while_a_visit_runs_is_spent_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.host.COST_S", 0.1)
    async with (
        Cast(Part(exact_ms=6000)) as cast,
        household(tmp_path, {"jardim": with_cast(cast, cost=LITTLE)}) as house,
    ):
        running, next_one = uuid4(), uuid4()
        async with house.phone("jardim", running):
            # The first reckoning may come before the greeting has cost anything.
            await until(
                lambda: any(one.data["amount"] != "0" for one in house.of(running, "visit.cost")),
                what="the cost so far",
            )
            await turned_away(house, next_one)
            assert house.service.visit(running) is not None  # and it goes on
        assert await house.service.visit_over(running, 10)


async def test_workers_share_what_is_spent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTEIRO_TENANTS__JARDIM__COST__DAILY_BUDGET", "0.001")
    async with Cast(PART) as cast, serving(tmp_path, cast, service="workers = 2") as served:

        async def ended(visit: UUID) -> tuple[list[str], dict[str, Any]]:
            async with asyncio.timeout(30):
                while True:
                    kinds, last = await read(tmp_path, visit)
                    if kinds[-1] == "visit.ended":
                        return kinds, last
                    await asyncio.sleep(0.2)

        first, *others = (uuid4() for _ in range(3))
        async with await served.phone(first) as phone:
            await phone.wait_for_speech(timeout_s=20)
            await phone.wait_for_quiet(300)
        assert (await ended(first))[1]["reason"] == "visitor_hung_up"
        opened = len(cast.doormen)
        async with await served.phone(others[0]) as one, await served.phone(others[1]) as other:
            await asyncio.wait({one.closed, other.closed}, timeout=40)  # one with each worker
        for visit in others:
            kinds, last = await ended(visit)
            assert last["reason"] == "budget_spent" and "gate.requested" not in kinds
        assert len(cast.doormen) == opened


async def test_without_a_voice_of_our_own_the_pbx_has_the_call_back_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def mute(self: OwnVoice, sentence: str) -> bytes:
        raise SpeechError("there is none")

    monkeypatch.setattr(OwnVoice, "say", mute)
    async with Cast(PART) as cast, household(tmp_path, {"jardim": with_cast(cast, cost=LITTLE)}) as house:
        await house.visit("jardim")
        visit = uuid4()
        phone = await house.visit("jardim", listens, visit=visit)
        assert phone.closed.result().kind == "hangup"
        view = await house.service.storage.visit(str(visit))
        assert view is not None and view.summary.ended_at is not None
        assert (view.summary.outcome, view.summary.reason) == ("unreachable", "budget_spent")
        (ended,) = [r for r in await house.records(visit) if r.kind == "leg.ended"]
        (joined,) = [r for r in await house.records(visit) if r.kind == "leg.connected"]
        lasted = datetime.fromisoformat(ended.at) - datetime.fromisoformat(joined.at)
        assert lasted.total_seconds() < REFUSED_WITHIN_S


async def test_our_own_voice_says_a_sentence_whole_and_tells_where_it_can_t() -> None:
    voice = OwnVoice(None)
    try:
        pcm = np.frombuffer(await voice.say("Olá, aqui é da portaria."), "<i2")
        assert len(pcm) > 24000 and np.abs(pcm.astype(int)).max() > 3000
    finally:
        voice.close()
    session = Announcer(OwnVoice(Path("/nowhere/voice.onnx"))).open(SessionConfig("", []))
    session.say_exactly("Olá.")
    events: list[Event] = []
    await session.run(events.append)
    await session.close()
    (failed,) = [event for event in events if isinstance(event, Failed)]
    assert (failed.kind, failed.code) == ("session", "no_voice") and "/nowhere" in failed.message
