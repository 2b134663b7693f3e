"""What a visit costs is in the audit log, exact, and what it has cost so far while it runs."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from bridge import host
from tests.service.doorman import AGREES, ASKS, Cast, Doorman, Part
from tests.service.household import Household, household, listens, until, with_cast

PART = Part(ASKS, AGREES)
REPLY = Decimal("0.001214")
"""(1 · 4 + 3 · 0.40 + 5 · 24 + 4 · 32 + 2 · 0.40 + 15 · 64) / 1,000,000: the simulator's reply in dollars."""
TRANSCRIPT = Decimal("0.000075")
"""A second of gpt-transcribe."""
BRL = {"currency": "BRL", "per_usd": "5.4"}


async def costs(house: Household, visit: UUID) -> list[dict[str, Any]]:
    return [dict(one.data) for one in await house.records(visit) if one.kind == "visit.cost"]


async def test_a_visit_s_cost_is_on_record_to_the_cent(tmp_path: Path) -> None:
    async with Cast(PART) as cast, household(tmp_path, {"jardim": with_cast(cast, cost=BRL)}) as house:
        visit = uuid4()
        await house.visit("jardim", visit=visit)
        assert await house.outcome(visit) == ("authorized", "opened", True)
        replies = sum(len(doorman.responses_done) for doorman in cast.doormen)
        assert replies >= 6  # greeting, call, briefing, decision, two goodbyes
        usd = replies * REPLY + TRANSCRIPT

        (cost,) = await costs(house, visit)
        assert (Decimal(cost["usd"]), cost["complete"], cost["unknown"]) == (usd, True, [])
        assert Decimal(cost["amount"]) == usd * Decimal("5.4") and cost["currency"] == "BRL"
        reply, transcription = sorted(cost["usage"], key=lambda line: line["purpose"])
        assert reply == {
            "provider": "openai",
            "model": "gpt-realtime-2.1",
            "purpose": "reply",
            "text_in": replies,
            "text_cached": 3 * replies,
            "text_out": 5 * replies,
            "audio_in": 4 * replies,
            "audio_cached": 2 * replies,
            "audio_out": 15 * replies,
            "usd": str(replies * REPLY),
        }
        assert transcription["seconds"] == 1.0
        kinds = await house.kinds(visit)
        assert kinds[-2:] == ["visit.cost", "visit.ended"]

        view = await house.service.storage.visit(str(visit))
        assert view is not None and view.summary.cost is not None
        assert Decimal(view.summary.cost) == usd * Decimal("5.4")
        assert (view.summary.currency, view.summary.cost_complete) == ("BRL", True)
        (spent,) = await house.service.storage.spending("jardim", "2000")
        assert (spent.currency, spent.usd, spent.visits) == ("BRL", usd, 1)


async def test_a_running_visit_counts_and_one_that_is_cut_off_is_a_lower_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "COST_S", 0.1)
    async with Cast(Part(exact_ms=8000)) as cast, household(tmp_path, {"jardim": with_cast(cast)}) as house:
        visit = uuid4()
        running = asyncio.create_task(house.visit("jardim", listens, visit=visit))
        # The first reckoning may come before the greeting has cost anything.
        await until(
            lambda: any(one.data["amount"] != "0" for one in house.of(visit, "visit.cost")),
            what="the cost so far",
        )
        (spent,) = await house.service.storage.spending("jardim", "2000")
        assert spent.cost == REPLY  # of the greeting, which is generated long before it is said
        view = await house.service.storage.visit(str(visit))
        assert view is not None and view.summary.cost_complete is False
        running_host = house.service.visit(visit)
        assert running_host is not None
        await running_host.end("the test is over")
        await running
        *_, last = await costs(house, visit)
        assert last["final"] and Decimal(last["usd"]) >= REPLY


async def test_a_model_without_a_price_costs_nobody_knows_what(tmp_path: Path) -> None:
    async with (
        Cast(PART) as cast,
        household(tmp_path, {"jardim": with_cast(cast, model="gpt-of-tomorrow")}) as house,
    ):
        visit = uuid4()
        await house.visit("jardim", visit=visit)
        (cost,) = await costs(house, visit)
        assert cost["complete"] is False and Decimal(cost["usd"]) == TRANSCRIPT
        assert cost["unknown"] == ["openai gpt-of-tomorrow: no price"]
        assert {line["usd"] for line in cost["usage"]} == {None, str(TRANSCRIPT)}


class Silent(Doorman):
    """A model that tells nothing of what it bills for its replies."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.usage = None


async def test_a_provider_that_does_not_say_what_it_bills_is_not_free(tmp_path: Path) -> None:
    async with (
        Cast(PART, model=Silent) as cast,
        household(tmp_path, {"jardim": with_cast(cast)}) as house,
    ):
        visit = uuid4()
        await house.visit("jardim", visit=visit)
        assert await house.outcome(visit) == ("authorized", "opened", True)
        (cost,) = await costs(house, visit)
        assert not cost["complete"] and Decimal(cost["usd"]) == TRANSCRIPT
        assert cost["unknown"] == ["openai gpt-realtime-2.1: not all of its reply was told"]
