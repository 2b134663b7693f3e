"""Charts of what visits came to: by day and outcome, how soon we reply, what it costs, when people come."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

from starlette.responses import Response
from starlette.routing import Route

from bridge.http.console.drawing import Cell, Chart, columns, curves, heat, percentile
from bridge.http.console.language import Language
from bridge.http.console.periods import begin_of
from bridge.http.console.site import Asked, Site, Times
from storage.figures import RESPONSE_STEP_MS, Figures
from visits.events import Outcome
from visits.hours import DAYS

PERIODS: Final = (7, 30, 90)
"""Days."""
USUAL: Final = 30
COLOURS: Final = 6
"""Of lines, before they begin anew."""


@dataclass(frozen=True)
class Charts:
    """All that the page draws."""

    visits: Chart
    outcomes: tuple[tuple[str, int], ...]
    total: int
    responses: Chart | None
    providers: tuple[tuple[str, str, str, str], ...]
    """A provider's colour, name, and p50 and p95 of the whole period."""
    costs: tuple[tuple[str, Chart, str], ...]
    hours: tuple[Cell, ...]
    days: tuple[tuple[str, tuple[str, ...]], ...]
    """The same as a table: a day, and its numbers."""


def routes(site: Site) -> list[Route]:
    """The pages of this file."""

    async def charts(asked: Asked) -> Response:
        tenant = asked.caller.filtered(asked.query("tenant") or None)
        period = next((days for days in PERIODS if str(days) == asked.query("days")), USUAL)
        zone = Times(asked.t, site.tenants()).zone(tenant)
        last = datetime.now(zone).date()
        first = last - timedelta(days=period - 1)
        figures = await asked.service.storage.figures(
            None if tenant is None else (tenant,),
            begin_of(first, zone),
            begin_of(last + timedelta(days=1), zone),
        )
        drawn = await asyncio.to_thread(draw, figures, first, last, zone, asked.t)
        return await asked.show(
            "charts.html",
            charts=drawn,
            tenant=tenant or "",
            period=period,
            periods=PERIODS,
            tenants=site.seen_by(asked.caller),
            weekdays=DAYS,
        )

    return [site.page("/charts", charts, "visits:read")]


def draw(figures: Figures, first: date, last: date, zone: ZoneInfo, t: Language) -> Charts:
    """The charts of some days, by a house's clock."""
    days = [first + timedelta(days=at) for at in range((last - first).days + 1)]
    place = {day: at for at, day in enumerate(days)}
    names = [f"{day:%d/%m}" if t.code == "pt-BR" else f"{day:%m-%d}" for day in days]
    outcomes = [str(each) for each in Outcome]
    by_outcome = {each: [0.0] * len(days) for each in (*outcomes, "running")}
    by_hour: Counter[tuple[int, int]] = Counter()
    for (hour, outcome), count in figures.visits.items():
        at = _local(hour, zone)
        by_hour[at.weekday(), at.hour] += count
        if at.date() in place:
            by_outcome.setdefault(outcome or "running", [0.0] * len(days))[place[at.date()]] += count
    words = {each: t.of("outcome", each) for each in by_outcome}
    by_outcome = {each: values for each, values in by_outcome.items() if any(values)}
    responses, providers = _responses(figures, place, names, zone, t)

    def said(day: int, hour: int, count: int) -> str:
        return f"{t(f'day.{DAYS[day]}')} {hour:02}:00 · {t('charts.n_visits', n=count)}"

    return Charts(
        visits=columns(names, by_outcome, lambda value: t.number(value), words, whole=True),
        outcomes=tuple((each, int(sum(values))) for each, values in by_outcome.items()),
        total=int(sum(sum(values) for values in by_outcome.values())),
        responses=responses,
        providers=providers,
        costs=_costs(figures, place, names, zone, t),
        hours=heat(by_hour, said),
        days=tuple(
            (names[at], tuple(t.number(values[at]) for values in by_outcome.values()))
            for at in range(len(days))
        ),
    )


def _responses(
    figures: Figures, place: dict[date, int], names: list[str], zone: ZoneInfo, t: Language
) -> tuple[Chart | None, tuple[tuple[str, str, str, str], ...]]:
    by_day: dict[str, list[Counter[int]]] = {}
    for (hour, provider), counts in figures.responses.items():
        day = _local(hour, zone).date()
        if day in place:
            by_day.setdefault(provider or "—", [Counter() for _ in names])[place[day]].update(counts)
    if not by_day:
        return None, ()

    def seconds(value: float) -> str:
        return f"{t.number(value / 1000, 1 if value >= 100 or not value else 2)} s"

    series = []
    told = []
    for at, (provider, counts_of) in enumerate(sorted(by_day.items())):
        kind = f"c{at % COLOURS}"
        whole: Counter[int] = sum(counts_of, Counter())
        shares = []
        for share, word, dashed in ((0.5, "p50", False), (0.95, "p95", True)):
            values = [percentile(counts, share, RESPONSE_STEP_MS) for counts in counts_of]
            series.append((kind, f"{provider} {word}", dashed, values))
            shares.append(seconds(percentile(whole, share, RESPONSE_STEP_MS) or 0.0))
        told.append((kind, provider, shares[0], shares[1]))
    return curves(names, series, seconds), tuple(told)


def _costs(
    figures: Figures, place: dict[date, int], names: list[str], zone: ZoneInfo, t: Language
) -> tuple[tuple[str, Chart, str], ...]:
    by_currency: dict[str, list[Decimal]] = {}
    for (hour, currency), cost in figures.costs.items():
        day = _local(hour, zone).date()
        if day in place:
            by_currency.setdefault(currency, [Decimal(0)] * len(names))[place[day]] += cost
    return tuple(
        (
            currency,
            columns(
                names,
                {"cost": [float(cost) for cost in costs]},
                lambda value: t.money(str(round(value, 9))),
                {"cost": currency},
            ),
            t.money(sum(costs, Decimal(0))),
        )
        for currency, costs in sorted(by_currency.items())
        if any(costs)
    )


def _local(hour: str, zone: ZoneInfo) -> datetime:
    return datetime.fromisoformat(f"{hour}:00:00").replace(tzinfo=UTC).astimezone(zone)
