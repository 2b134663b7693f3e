"""What visits come to over time, for charts: counted by the database, a stretch of time at once.

Everything is by hours of UTC, so that whoever shows it can add up the days of any time zone that lies whole
hours from it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from storage.steps import Sql, Step, where
from visits.audit import stamp

RESPONSE_STEP_MS: Final = 20
"""How finely times of response are counted."""
STRETCH: Final = timedelta(hours=6)
"""Counted at once: a few milliseconds, in which SQLite does no write."""


@dataclass(slots=True)
class Figures:
    """Sums by the hours in which visits began: `2026-11-21T20`.

    Attributes:
        visits: how many, by hour and outcome; of those that run the outcome is "".
        costs: by hour and currency.
        responses: how often our side took how long to begin a reply, by hour and provider: the first
            millisecond of each stretch of :data:`RESPONSE_STEP_MS`, and how many replies began in it.
    """

    visits: Counter[tuple[str, str]] = field(default_factory=Counter)
    costs: dict[tuple[str, str], Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    responses: dict[tuple[str, str], Counter[int]] = field(default_factory=lambda: defaultdict(Counter))


def stretches(since: str, until: str) -> Iterator[tuple[str, str]]:
    """A span of time in parts that are counted one after the other."""
    at, end = datetime.fromisoformat(since), datetime.fromisoformat(until)
    while at < end:
        following = min(at + STRETCH, end)
        yield stamp(at), stamp(following)
        at = following


def add_figures(figures: Figures, tenants: Collection[str] | None, since: str, until: str) -> Step[None]:
    """Count the visits that began in one part, and add that."""
    clause, values = where(
        (
            ("v.tenant IN ?", None if tenants is None else tuple(sorted(tenants))),
            ("v.started_at >= ?", since),
            ("v.started_at < ?", until),
        )
    )
    hour = "substr(v.started_at, 1, 13)"
    rows: Any = yield Sql(
        f"SELECT {hour}, coalesce(v.outcome, ''), v.currency, count(*), CAST(sum(v.cost) AS BIGINT)"
        f" FROM visits v{clause} GROUP BY 1, 2, 3",
        values,
    )
    for at, outcome, currency, count, cost in rows:
        figures.visits[at, outcome] += count
        if currency is not None and cost is not None:
            figures.costs[at, currency] += Decimal(cost).scaleb(-9)
    step = RESPONSE_STEP_MS
    rows = yield Sql(
        f"SELECT {hour}, coalesce(v.provider, ''), CAST(t.response_ms AS BIGINT) / {step}, count(*)"
        f" FROM visits v JOIN turns t ON t.visit = v.id{clause}"
        " AND t.speaker = 'agent' AND t.response_ms IS NOT NULL GROUP BY 1, 2, 3",
        values,
    )
    for at, provider, slot, count in rows:
        figures.responses[at, provider][slot * step] += count


__all__ = ["RESPONSE_STEP_MS", "Figures", "add_figures", "stretches"]
