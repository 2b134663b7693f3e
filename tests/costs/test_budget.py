"""Budgets: spent is spent, nothing less is; days and months are the tenant's; the warning comes once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, cast
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from bridge.costs.account import Currency
from bridge.costs.budget import NEARLY, Period, Purse, begins, spent_in
from storage.base import Spending, Storage, StorageTimeout
from storage.sqlite import SqliteStorage
from visits.audit import stamp

BRL = Currency("BRL", Decimal("5.4"))
SAO_PAULO = "America/Sao_Paulo"
money = st.decimals(0, 10_000, places=9)
limits = st.decimals("0.01", 10_000, places=2)
moments = st.integers(0, 6 * 365 * 24 * 60).map(
    lambda minutes: datetime(2024, 1, 2, tzinfo=UTC) + timedelta(minutes=minutes)
)
zones = st.sampled_from([SAO_PAULO, "UTC", "America/New_York", "Asia/Kathmandu", "America/Noronha"])


class Ledger:
    """A store of which only what was spent is asked."""

    def __init__(self, visits: Sequence[tuple[datetime, Decimal]]) -> None:
        self.visits = visits

    async def spending(self, tenant: str, since: str) -> list[Spending]:
        cost = sum((cost for at, cost in self.visits if stamp(at) >= since), Decimal(0))
        return [Spending("BRL", cost, cost, len(self.visits))]


def purse(daily: str | Decimal | None = None, monthly: str | Decimal | None = None, **own: Any) -> Purse:
    amounts = {"daily": daily, "monthly": monthly}
    return Purse(
        "jardim",
        own.get("timezone", SAO_PAULO),
        BRL,
        **{name: None if given is None else Decimal(given) for name, given in amounts.items()},
    )


async def ask(of: Purse, spent: Sequence[tuple[datetime, Decimal]], now: datetime) -> str:
    return await of.why_closed(cast(Storage, Ledger(spent)), now)


@given(spent=money, limit=limits)
async def test_a_budget_is_closed_when_it_is_spent_and_not_before(spent: Decimal, limit: Decimal) -> None:
    now = datetime(2026, 11, 21, 15, tzinfo=UTC)
    why = await ask(purse(daily=limit), [(now, spent)], now)
    assert why == ("budget_spent" if spent >= limit else "")


@given(
    daily=limits,
    monthly=limits,
    now=moments,
    visits=st.lists(st.tuples(st.integers(0, 40 * 24 * 60), money), max_size=8),
    timezone=zones,
)
async def test_a_day_s_spending_ends_with_the_day_and_a_month_s_with_the_month(
    daily: Decimal, monthly: Decimal, now: datetime, visits: list[tuple[int, Decimal]], timezone: str
) -> None:
    made = [(now - timedelta(minutes=minutes), cost) for minutes, cost in visits]
    zone = ZoneInfo(timezone)
    today = now.astimezone(zone).date()
    of_day = sum((c for at, c in made if at.astimezone(zone).date() == today), Decimal(0))
    this_month = [c for at, c in made if at.astimezone(zone).timetuple()[:2] == (today.year, today.month)]
    spent = of_day >= daily or sum(this_month, Decimal(0)) >= monthly
    why = await ask(purse(daily, monthly, timezone=timezone), made, now)
    assert bool(why) is spent


@given(now=moments, timezone=zones)
def test_a_period_begins_at_midnight_there_and_not_after_now(now: datetime, timezone: str) -> None:
    periods: tuple[Period, Period] = ("month", "day")
    for period in periods:
        began = begins(period, now, timezone)
        local = began.astimezone(ZoneInfo(timezone))
        assert began <= now and began.tzinfo is UTC
        assert local.date() == now.astimezone(ZoneInfo(timezone)).date().replace(
            day=1 if period == "month" else now.astimezone(ZoneInfo(timezone)).day
        )
    assert begins("month", now, timezone) <= begins("day", now, timezone)


def test_midnight_is_the_tenant_s() -> None:
    late = datetime(2026, 12, 1, 2, 59, tzinfo=UTC)  # 23:59 of 30 November in São Paulo
    assert begins("day", late, SAO_PAULO) == datetime(2026, 11, 30, 3, tzinfo=UTC)
    assert begins("month", late, SAO_PAULO) == datetime(2026, 11, 1, 3, tzinfo=UTC)
    assert begins("month", late + timedelta(minutes=1), SAO_PAULO) == datetime(2026, 12, 1, 3, tzinfo=UTC)


def test_what_was_reckoned_in_another_currency_counts_by_its_dollars() -> None:
    spending = [Spending("BRL", Decimal("10"), Decimal("2"), 3), Spending("USD", Decimal(1), Decimal(1), 1)]
    assert spent_in(BRL, spending) == Decimal("15.4")


async def test_little_left_is_told_once_a_period_and_nothing_left_each_time() -> None:
    now = datetime(2026, 11, 21, 15, tzinfo=UTC)
    of = purse(daily="10")
    with capture_logs() as logs:
        assert await ask(of, [(now, Decimal("7.99"))], now) == ""
        assert logs == []
        for _ in range(3):
            assert await ask(of, [(now, 10 * NEARLY)], now) == ""
        assert [line["event"] for line in logs] == ["budget.nearly_spent"]
        assert (logs[0]["spent"], logs[0]["budget"], logs[0]["period"]) == ("8", "10", "day")
        tomorrow = now + timedelta(days=1)
        await ask(of, [(tomorrow, Decimal(9))], tomorrow)
        assert len(logs) == 2
        for _ in range(2):
            assert await ask(of, [(now, Decimal(10))], now) == "budget_spent"
    assert [line["event"] for line in logs[2:]] == ["budget.spent"] * 2


async def test_without_a_budget_nothing_is_asked() -> None:
    assert await purse().why_closed(cast(Storage, None), datetime.now(UTC)) == ""


async def test_where_nobody_knows_what_was_spent_nothing_more_is() -> None:
    class Late(Ledger):
        async def spending(self, tenant: str, since: str) -> list[Spending]:
            raise StorageTimeout("too late")

    with capture_logs() as logs:
        why = await purse(monthly="1").why_closed(cast(Storage, Late([])), datetime.now(UTC))
    assert why == "budget_unknown" and [line["log_level"] for line in logs] == ["error"]


@pytest.mark.parametrize("cost", ["0.3", "123456789.123456789"])
async def test_spending_is_read_from_the_database_exact(tmp_path: Path, cost: str) -> None:
    file = tmp_path / "p.db"
    at = "2026-11-21T13:05:00.000250+00:00"
    data = {"amount": "0.1", "currency": "BRL", "usd": "0.02", "final": False, "complete": True}
    async with await SqliteStorage.open(file) as storage:
        for tenant in ("jardim", "jardim", "bosque"):
            visit = str(uuid4())
            await storage.append(tenant, visit, at, "visit.started", {})
            for amount in ("0.1", cost):  # the last one counts
                more = {**data, "amount": amount, "unknown": [], "usage": []}
                await storage.append(tenant, visit, at, "visit.cost", more)
        assert await storage.verify() == []
    async with await SqliteStorage.open(file, read_only=True) as storage:
        (spent,) = await storage.spending("jardim", "2026-11-21")
        assert spent == Spending("BRL", 2 * Decimal(cost), Decimal("0.04"), 2)
        assert await storage.spending("jardim", "2026-11-22") == []
        (one,) = await storage.visits(tenant="bosque")
        assert one.cost is not None and Decimal(one.cost) == Decimal(cost) and one.cost_complete is False
