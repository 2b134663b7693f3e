"""`porteiro webhook …`: what tenants' own systems are still to be told, and what is to be sent again."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import UTC, datetime

from rich.table import Table
from rich.text import Text

from bridge.commands.audit import FAULTY, SOUND, UNUSABLE, add_database, new_console, write_json
from bridge.settings import SettingsError, load
from bridge.showing import safe
from storage.address import Database
from storage.base import StorageError
from storage.opening import open_storage
from storage.outbox import Outbox, Outgoing
from storage.paging import MAX_PAGE
from visits.audit import stamp

DEADLINE_S = 60.0
AT_ONCE = 20
"""Events that are resent in one transaction: visits that run write meanwhile."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its options."""
    parser = subparsers.add_parser("webhook", help="what other systems are still to be told of visits")
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|resend")
    for action, words in (
        ("list", "list the events that wait, and those that were given up"),
        ("resend", "send again what was given up, or at once what waits"),
    ):
        one = actions.add_parser(
            action, help=words, description=f"To {words}. Works beside the service. See docs/webhooks.md."
        )
        one.add_argument("--tenant", required=action == "resend", help="whose events")
        if action == "list":
            one.add_argument("--given-up", action="store_true", help="only those")
            one.add_argument("--json", action="store_true", help="as one JSON object")
        else:
            one.add_argument(
                "--event", action="append", default=[], help="an event's id (repeatable); else all given up"
            )
        one.add_argument("--config", metavar="FILE", help="default: $PORTEIRO_CONFIG, then ./porteiro.toml")
        add_database(one)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Do what was asked; the exit status."""
    try:
        database = args.db or load(args.config).database
        return asyncio.run(_run(args, database))
    except (SettingsError, StorageError, ValueError) as error:
        sys.stderr.write(f"porteiro webhook: {safe(str(error))}\n")
        return UNUSABLE


async def _run(args: argparse.Namespace, database: Database) -> int:
    reads = args.action == "list"
    async with await open_storage(database, read_only=reads, deadline_s=DEADLINE_S) as storage:
        if reads:
            given_up = True if args.given_up else None
            return _show([one async for one in _all(storage.outbox, args.tenant, given_up)], args.json)
        return await _resend(storage.outbox, args)


async def _all(outbox: Outbox, tenant: str | None, given_up: bool | None) -> AsyncIterator[Outgoing]:
    after: str | None = None
    while True:
        page = await outbox.page(
            None if tenant is None else [tenant], given_up=given_up, after=after, limit=MAX_PAGE
        )
        for one in page.items:
            yield one
        if page.next is None:
            return
        after = page.next


def _show(events: list[Outgoing], as_json: bool) -> int:
    if as_json:
        write_json({"events": [{"id": one.id, **asdict(one)} for one in events]})
        return SOUND
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("tenant", "event", "since", "attempts", "answer", "next"):
        table.add_column(column)
    for one in events:
        coming = "given up" if one.given_up_at is not None else one.next_at[:19] or "now"
        cells = (one.tenant, one.id, one.since[:19], str(one.attempts), one.answer or "–", coming)
        table.add_row(*(Text(safe(cell)) for cell in cells))
    new_console().print(table)
    return SOUND


async def _resend(outbox: Outbox, args: argparse.Namespace) -> int:
    if args.event:
        seqs = [await _seq(outbox, args.tenant, event) for event in args.event]
    else:
        seqs = [one.seq async for one in _all(outbox, args.tenant, True)]
    if not seqs:
        sys.stderr.write("porteiro webhook: nothing of this tenant was given up\n")
        return FAULTY
    count = 0
    for start in range(0, len(seqs), AT_ONCE):
        some, at = seqs[start : start + AT_ONCE], stamp(datetime.now(UTC))
        count += await outbox.resend(args.tenant, some, by=f"cli:{getpass.getuser()}", at=at)
    sys.stdout.write(f"{count} events are sent again by the service.\n")
    return SOUND


async def _seq(outbox: Outbox, tenant: str, event: str) -> int:
    found = await outbox.find(event)
    if found is None or found.tenant != tenant:
        raise ValueError(
            f"--event: found {event!r}; allowed: one of `porteiro webhook list --tenant {tenant}`"
        )
    return found.seq
