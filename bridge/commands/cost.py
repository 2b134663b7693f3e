"""`porteiro cost`: what visits cost, by tenant and day or month, and how the budgets stand."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from rich.table import Table
from rich.text import Text

from bridge.commands.audit import (
    SOUND,
    UNUSABLE,
    add_database,
    moment,
    new_console,
    opened,
    write_csv,
    write_json,
)
from bridge.commands.catalogue import with_stored_tenants
from bridge.commands.table import table_of
from bridge.costs.account import plain
from bridge.costs.budget import Purse, Standing
from bridge.settings import Settings, SettingsError, load
from bridge.showing import safe
from storage.address import Database
from storage.base import Storage, StorageError, VisitSummary
from visits.audit import stamp

PAGE = 1000
NAMES = ("period", "tenant", "visits", "cost", "currency", "incomplete")
CENT = Decimal("0.01")


@dataclass(slots=True)
class _Row:
    """What one tenant's visits of a day or month cost, in one currency."""

    visits: int = 0
    cost: Decimal = Decimal(0)
    incomplete: int = 0
    """Visits that cost more than is known, or nobody knows what."""


Rows = dict[tuple[str, str, str], _Row]
"""By period, tenant and currency."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its options."""
    parser = subparsers.add_parser(
        "cost",
        help="what visits cost, by tenant and day or month",
        description="Sums what the audit log says that visits cost, by the days and months of each tenant's "
        "time zone; a visit belongs to the day on which it began. Works beside a running service.",
    )
    parser.add_argument("--by", choices=("day", "month"), default="day", help="default: day")
    parser.add_argument("--tenant", help="only this tenant")
    parser.add_argument(
        "--since", type=moment, help="from then on: 2026-11-01, 12h, 7d; default: the last 31 days, or 366"
    )
    parser.add_argument("--until", type=moment, help="up to then")
    parser.add_argument("--config", metavar="FILE", help="default: $PORTEIRO_CONFIG, then ./porteiro.toml")
    add_database(parser)
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--json", action="store_true", help="as one JSON object, with the budgets")
    group.add_argument("--csv", action="store_true", help="as CSV")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the sums; the exit status."""
    try:
        settings = load(args.config)
        database = args.db or settings.database
        if database.file is not None and not database.file.exists():
            sys.stderr.write(
                f"porteiro cost: there is no audit log at {database} yet; name another with --db\n"
            )
            return UNUSABLE
        return asyncio.run(_run(args, settings, database))
    except (SettingsError, StorageError) as error:
        sys.stderr.write(f"porteiro cost: {safe(str(error))}\n")
        return UNUSABLE


async def _run(args: argparse.Namespace, settings: Settings, database: Database) -> int:
    since = args.since or moment("31d" if args.by == "day" else "366d")
    async with opened(database) as storage:
        settings = await with_stored_tenants(settings, storage.catalogue)
        visits = [visit async for visit in _all(storage, args.tenant, since, args.until)]
        budgets = await _budgets(storage, settings, args.tenant)
    rows = summed(visits, args.by, {name: each.timezone for name, each in settings.tenants.items()})
    if args.json:
        standings = [_as_json(tenant, currency, one) for tenant, currency, one in budgets]
        write_json({"rows": list(_shown(rows)), "budgets": standings})
    elif args.csv:
        write_csv(sys.stdout, list(NAMES), _shown(rows))
    else:
        console = new_console()
        console.print(_table(rows))
        for tenant, currency, one in budgets:
            console.print(Text(_in_words(tenant, currency, one), "red" if one.used_up else ""))
    if not rows:
        sys.stderr.write("porteiro cost: no visit matches\n")
    return SOUND


async def _all(
    storage: Storage, tenant: str | None, since: str, until: str | None
) -> AsyncIterator[VisitSummary]:
    offset = 0
    # An end that stands still, or a visit that begins meanwhile would move the pages.
    until = until or stamp(datetime.now(UTC))
    while page := await storage.visits(tenant=tenant, since=since, until=until, limit=PAGE, offset=offset):
        for visit in page:
            yield visit
        offset += len(page)


async def _budgets(
    storage: Storage, settings: Settings, tenant: str | None
) -> list[tuple[str, str, Standing]]:
    found = []
    for name, each in settings.tenants.items():
        if each.cost.has_budget and tenant in (None, name):
            purse = Purse.of(each)
            standings = await purse.standings(storage, datetime.now(UTC))
            found += [(name, each.cost.currency, one) for one in standings]
    return found


def summed(visits: Iterable[VisitSummary], by: str, timezones: dict[str, str]) -> Rows:
    """Visits by period, tenant and currency, the latest period first.

    Args:
        timezones: by tenant; who is not there has this machine's.
    """
    rows: Rows = {}
    for visit in visits:
        zone = ZoneInfo(timezones[visit.tenant]) if visit.tenant in timezones else None
        began = datetime.fromisoformat(visit.started_at).astimezone(zone)
        period = f"{began:%Y-%m-%d}" if by == "day" else f"{began:%Y-%m}"
        row = rows.setdefault((period, visit.tenant, visit.currency or ""), _Row())
        row.visits += 1
        row.cost += Decimal(visit.cost or 0)
        row.incomplete += not visit.cost_complete
    return dict(sorted(rows.items(), key=lambda item: item[0], reverse=True))


def _shown(rows: Rows) -> Iterable[dict[str, Any]]:
    for (period, tenant, currency), row in rows.items():
        values = (period, tenant, row.visits, plain(row.cost), currency, row.incomplete)
        yield dict(zip(NAMES, values, strict=True))


def _table(rows: Rows) -> Table:
    shown = []
    for (period, tenant, currency), row in rows.items():
        least = "≥ " if row.incomplete else ""
        each = (row.cost / row.visits).quantize(CENT / 100)
        shown.append(
            (
                period,
                tenant,
                str(row.visits),
                f"{least}{row.cost.quantize(CENT)}",
                currency,
                f"{least}{each}",
                str(row.incomplete) if row.incomplete else "–",
            )
        )
    columns = ("period", "tenant", "visits", "cost", "", "a visit", "not all known")
    return table_of(columns, shown, right=("visits", "cost", "a visit", "not all known"))


def _in_words(tenant: str, currency: str, one: Standing) -> str:
    spent = f"{one.spent.quantize(CENT)} of {one.limit.quantize(CENT)} {currency}"
    state = ": used up, visitors get the attendant" if one.used_up else ""
    return f"{tenant}: this {one.period}'s budget: {spent}{state}"


def _as_json(tenant: str, currency: str, one: Standing) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "period": one.period,
        "since": one.since,
        "spent": plain(one.spent),
        "budget": plain(one.limit),
        "currency": currency,
        "used_up": one.used_up,
    }
