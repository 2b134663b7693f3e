"""`porteiro retention run`: erases what tenants have kept long enough, as the service does every night."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from bridge.commands.audit import FAULTY, SOUND, UNUSABLE, add_database, new_console, write_json
from bridge.commands.table import table_of
from bridge.retention import carry_out, limits_of, remove_recordings
from bridge.settings import Settings, SettingsError, load
from bridge.showing import safe
from bridge.tenants import Tenancy
from storage.address import Database
from storage.base import StorageError
from storage.identity import known_service
from storage.opening import open_storage

DEADLINE_S = 60.0


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its options."""
    parser = subparsers.add_parser("retention", help="erase what was kept long enough")
    actions = parser.add_subparsers(dest="action", required=True, metavar="run")
    one = actions.add_parser(
        "run",
        help="erase it now",
        description="Erases what each tenant has kept for longer than they say "
        "(recording.retention_days, retention.transcripts_days, retention.visits_days). The service does the "
        "same every night. Works beside it. See docs/privacy.md.",
    )
    one.add_argument("--tenant", help="only this tenant")
    one.add_argument("--dry-run", action="store_true", help="only say what would go")
    one.add_argument("--config", metavar="FILE", help="default: $PORTEIRO_CONFIG, then ./porteiro.toml")
    add_database(one)
    one.add_argument("--json", action="store_true", help="as one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    try:
        settings = load(args.config)
        return asyncio.run(_run(args, settings, args.db or settings.database))
    except (SettingsError, StorageError) as error:
        sys.stderr.write(f"porteiro retention: {safe(str(error))}\n")
        return UNUSABLE


async def _run(args: argparse.Namespace, settings: Settings, database: Database) -> int:
    told: dict[str, Any] = {}
    files = 0
    async with await open_storage(database, read_only=args.dry_run, deadline_s=DEADLINE_S) as storage:
        tenancy = Tenancy(settings)
        await tenancy.open(storage.catalogue)
        if args.tenant is not None and args.tenant not in tenancy.current:
            allowed = ", ".join(sorted(tenancy.current))
            sys.stderr.write(f"porteiro retention: found --tenant {args.tenant}; allowed: {allowed}\n")
            return UNUSABLE
        for tenant in [one for name, one in tenancy.current.items() if args.tenant in (None, name)]:
            found = await carry_out(
                storage, tenant, now=datetime.now(UTC), by=f"cli:{getpass.getuser()}", dry_run=args.dry_run
            )
            days = limits_of(tenant)
            told[tenant.id] = {scope: {"days": days[scope], **asdict(one)} for scope, one in found.items()}
        if not args.dry_run:
            service = await asyncio.to_thread(known_service, Path(settings.service.journal_path))
            files = await remove_recordings(storage, settings.service.recordings_path, service)
    if args.json:
        write_json({"dry_run": args.dry_run, "tenants": told, "files_removed": files})
    else:
        new_console().print(_table(told))
        if not args.dry_run:
            sys.stdout.write(f"{files} files of recordings removed.\n")
    refused = [line for one in told.values() for scope in one.values() for line in scope["refused"]]
    for line in refused:
        sys.stderr.write(f"porteiro retention: not erased: {safe(line)}\n")
    return FAULTY if refused else SOUND


def _table(told: dict[str, Any]) -> Table:
    counts = ("kept for days", "visits", "records", "recordings")
    rows = (
        (tenant, scope, *(str(one[name]) for name in ("days", "visits", "records", "recordings")))
        for tenant, scopes in told.items()
        for scope, one in scopes.items()
    )
    return table_of(("tenant", "what", *counts), rows, right=counts)
