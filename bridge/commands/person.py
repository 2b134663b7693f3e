"""`porteiro person …`: finds what is kept of a person who asks for it, and erases it."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import sys
from pathlib import Path
from typing import Any

from rich.table import Table

from bridge.commands.audit import (
    FAULTY,
    SOUND,
    UNUSABLE,
    add_database,
    new_console,
    write_json,
)
from bridge.commands.table import table_of
from bridge.retention import Erased, erase_visits, find_person, remove_recordings
from bridge.settings import Settings, SettingsError, load
from bridge.showing import safe
from storage.address import Database
from storage.base import Storage, StorageError
from storage.identity import known_service
from storage.opening import open_storage

DEADLINE_S = 60.0


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its options."""
    parser = subparsers.add_parser("person", help="find and erase what is kept of a person")
    actions = parser.add_subparsers(dest="action", required=True, metavar="find|erase")
    for action, words in (
        ("find", "list the visits that say something of a person"),
        ("erase", "erase what visits have of people: names, numbers, words, recordings"),
    ):
        one = actions.add_parser(
            action,
            help=words,
            description=f"To {words}. When a visit was, its apartment, the decision and the gate's answer "
            "stay on record, and the audit log still verifies. See docs/privacy.md.",
        )
        one.add_argument("--tenant", required=True, help="whose visits")
        one.add_argument("--visit", action="append", default=[], help="a visit's whole id (repeatable)")
        one.add_argument("--name", default="", help="all visits in which this name, or part of it, was said")
        one.add_argument("--number", default="", help="all visits that have this phone number")
        one.add_argument("--config", metavar="FILE", help="default: $PORTEIRO_CONFIG, then ./porteiro.toml")
        add_database(one)
        one.add_argument("--json", action="store_true", help="as one JSON object")
        if action == "erase":
            one.add_argument("--dry-run", action="store_true", help="only say what would go")
            one.add_argument("--yes", action="store_true", help="do not ask")
            one.add_argument(
                "--reason", default="", help="goes on record as it is: a request's number, nobody's name"
            )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Do what was asked; the exit status."""
    try:
        settings = load(args.config)
        database = args.db or settings.database
        if not args.visit and not args.name and not args.number:
            sys.stderr.write("porteiro person: found neither --visit nor --name nor --number; name one\n")
            return UNUSABLE
        return asyncio.run(_run(args, settings, database))
    except (SettingsError, StorageError, ValueError) as error:
        sys.stderr.write(f"porteiro person: {safe(str(error))}\n")
        return UNUSABLE


async def _run(args: argparse.Namespace, settings: Settings, database: Database) -> int:
    writes = args.action == "erase" and not args.dry_run
    async with await open_storage(database, read_only=not writes, deadline_s=DEADLINE_S) as storage:
        visits = await _visits(storage, args)
        if not visits:
            sys.stderr.write("porteiro person: no visit of this tenant matches\n")
            return FAULTY
        if not args.json:
            new_console().print(await _table(storage, visits))
        if args.action == "find":
            if args.json:
                write_json({"visits": {visit: list(kinds) for visit, kinds in visits.items()}})
            return SOUND
        if writes and not args.yes and not _agreed(len(visits)):
            sys.stderr.write("porteiro person: nothing was erased\n")
            return FAULTY
        return await _erase(storage, args, settings, list(visits))


async def _visits(storage: Storage, args: argparse.Namespace) -> dict[str, tuple[str, ...]]:
    """The visits that are meant, and where they say something of whom was asked for."""
    found: dict[str, tuple[str, ...]] = {}
    for visit in args.visit:
        view = await storage.visit(visit)
        if view is not None and view.summary.tenant == args.tenant:
            found[visit] = ()
        else:
            raise ValueError(f"--visit: found {visit!r}; allowed: a whole id of a visit of {args.tenant}")
    if args.name or args.number:
        async for one in find_person(storage, args.tenant, name=args.name, number=args.number):
            found[one.visit] = one.kinds
    return found


async def _table(storage: Storage, visits: dict[str, tuple[str, ...]]) -> Table:
    rows = []
    for visit, kinds in visits.items():
        view = await storage.visit(visit)
        if view is None:
            continue
        one = view.summary
        cells = (
            one.id,
            one.started_at[:16],
            one.visitor_name,
            one.resident,
            one.apartment,
            one.outcome or "running",
            ", ".join(kinds),
        )
        rows.append([cell or "–" for cell in cells])
    return table_of(("visit", "started", "visitor", "resident", "apt", "outcome", "named in"), rows)


def _agreed(visits: int) -> bool:
    """Whether whoever sits at the terminal agrees. Nobody is at a pipe: they don't."""
    if not sys.stdin.isatty():
        sys.stderr.write("porteiro person: nobody can be asked here; say --yes\n")
        return False
    sys.stderr.write(f"Erase what {visits} visits have of people? It can't be undone. [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes", "s", "sim")


async def _erase(storage: Storage, args: argparse.Namespace, settings: Settings, visits: list[str]) -> int:
    found = await erase_visits(
        storage,
        args.tenant,
        visits,
        by=f"cli:{getpass.getuser()}",
        more={"reason": args.reason} if args.reason else None,
        dry_run=args.dry_run,
    )
    files = 0
    if not args.dry_run:
        files = await remove_recordings(
            storage,
            settings.service.recordings_path,
            await asyncio.to_thread(known_service, Path(settings.service.journal_path)),
        )
    tell(found, files, dry_run=args.dry_run, as_json=args.json)
    return FAULTY if found.refused else SOUND


def tell(found: Erased, files: int, *, dry_run: bool, as_json: bool) -> None:
    """What went, or would, for people or for a program."""
    if as_json:
        told: dict[str, Any] = {
            "dry_run": dry_run,
            "visits": found.visits,
            "records": found.records,
            "recordings": found.recordings,
            "files_removed": files,
            "sealed": found.sealed,
            "refused": found.refused,
        }
        write_json(told)
        return
    verb = "would lose" if dry_run else "lost"
    sys.stdout.write(
        f"{_count(found.visits, 'visit')} {verb} what is known there of people: "
        f"{_count(found.records, 'record')}, {_count(found.recordings, 'recording')} "
        f"({_count(files, 'file')} removed now).\n"
    )
    if found.sealed:
        sys.stdout.write(
            f"{_count(found.sealed, 'record')} of an older version: it is sealed in the chain, and stays.\n"
        )
    for refusal in found.refused:
        sys.stderr.write(f"porteiro person: not erased: {safe(refusal)}\n")


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
