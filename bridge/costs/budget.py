"""A tenant's budgets: what was spent since midnight and since the month's first, and whether it is enough.

Days and months are those of the tenant's time zone; a visit belongs to the day on which it began. What was
spent is asked of the database when a call comes, so that it survives a restart, counts what other processes
spend, and running visits as far as they have gone. Calls that are taken at the same moment don't know of each
other: a budget can be passed by what they cost, and no visit is ever cut off for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, Literal
from zoneinfo import ZoneInfo

import structlog

from bridge.costs.account import Currency, plain
from bridge.settings import Tenant
from storage.base import Spending, Storage, StorageError
from visits.audit import stamp

NEARLY: Final = Decimal("0.8")
"""From this part of a budget on the log warns."""

Period = Literal["day", "month"]


@dataclass(frozen=True, slots=True)
class Standing:
    """How much of one budget is spent."""

    period: Period
    since: str
    spent: Decimal
    limit: Decimal

    @property
    def used_up(self) -> bool:
        """Nothing is left of it."""
        return self.spent >= self.limit

    @property
    def nearly(self) -> bool:
        """Little is left of it, or nothing."""
        return self.spent >= self.limit * NEARLY


def begins(period: Period, now: datetime, timezone: str) -> datetime:
    """When the day or month that ``now`` is in began there."""
    local = now.astimezone(ZoneInfo(timezone))
    day = 1 if period == "month" else local.day
    return datetime(local.year, local.month, day, tzinfo=ZoneInfo(timezone)).astimezone(UTC)


def spent_in(currency: Currency, spending: Iterable[Spending]) -> Decimal:
    """One sum. What was reckoned in another currency counts at today's rate."""
    return sum(
        (one.cost if one.currency == currency.code else one.usd * currency.per_usd for one in spending),
        Decimal(0),
    )


class Purse:
    """One tenant's budgets."""

    def __init__(
        self,
        tenant: str,
        timezone: str,
        currency: Currency,
        *,
        daily: Decimal | None,
        monthly: Decimal | None,
    ) -> None:
        self._tenant = tenant
        self._timezone = timezone
        self._currency = currency
        limits: dict[Period, Decimal | None] = {"day": daily, "month": monthly}
        self._limits = {period: limit for period, limit in limits.items() if limit is not None}
        self._warned: set[tuple[Period, str]] = set()
        self._log = structlog.get_logger(__name__).bind(tenant=tenant)

    @classmethod
    def of(cls, tenant: Tenant) -> Purse:
        """A tenant's, out of its settings."""
        cost = tenant.cost
        return cls(
            tenant.id,
            tenant.timezone,
            cost.in_currency,
            daily=cost.daily_budget,
            monthly=cost.monthly_budget,
        )

    async def standings(self, storage: Storage, now: datetime) -> list[Standing]:
        """How each budget stands.

        Raises:
            StorageError: what was spent is not known.
        """
        found = []
        for period, limit in self._limits.items():
            since = stamp(begins(period, now, self._timezone))
            spending = await storage.spending(self._tenant, since)
            found.append(Standing(period, since, spent_in(self._currency, spending), limit))
        return found

    async def why_closed(self, storage: Storage, now: datetime) -> str:
        """Why no new session may be opened, in a word for the record; empty where one may."""
        try:
            standings = await self.standings(storage, now)
        except StorageError as error:
            self._log.error("budget.unknown", error=type(error).__name__, reason=str(error))
            return "budget_unknown"
        for one in standings:
            self._warn(one)
        return "budget_spent" if any(one.used_up for one in standings) else ""

    def _warn(self, standing: Standing) -> None:
        """Once a period that little is left; and whenever nothing is, since a visitor is turned away."""
        told = {
            "period": standing.period,
            "spent": plain(standing.spent),
            "budget": plain(standing.limit),
            "currency": self._currency.code,
        }
        if standing.used_up:
            self._log.warning("budget.spent", **told)
        elif standing.nearly and (standing.period, standing.since) not in self._warned:
            self._warned.add((standing.period, standing.since))
            self._log.warning("budget.nearly_spent", **told)


__all__ = ["Period", "Purse", "Standing", "begins", "spent_in"]
