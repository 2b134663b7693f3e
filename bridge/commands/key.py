"""`porteiro key`: API keys, with which other programs ask the HTTP API."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import get_args

from bridge.commands.audit import new_console, write_json
from bridge.commands.catalogue import SOUND, Refused, add_places, author, carry_out, now, opened_catalogue
from bridge.commands.table import table_of
from bridge.http.access import SCOPES, SCOPES_OF, digest, new_key, whole_key
from storage.catalogue import ApiKey, Catalogue, KeyRole
from visits.audit import stamp

MOST_DAYS = 3650


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its options."""
    parser = subparsers.add_parser(
        "key",
        help="API keys, with which other programs ask the HTTP API",
        description="API keys. The database holds a hash of a key's secret; the key itself is shown once, "
        "when it is made. Each change is in the audit log, with this machine's user as `by`.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="create|list|revoke")
    create = actions.add_parser("create", help="a new key, on standard output")
    create.add_argument("name", help="whose it is, for people: a program, a PBX")
    create.add_argument("--role", choices=get_args(KeyRole), required=True, help="what it may do")
    create.add_argument("--tenant", help="the one tenant that it is for; default: all")
    create.add_argument(
        "--scope", action="append", choices=SCOPES, help="only this of what the role may (repeatable)"
    )
    create.add_argument("--days", type=_days, help="how long it holds; default: until it is revoked")
    create.add_argument("--json", action="store_true", help="as a JSON object, with its id")
    add_places(create)
    list_ = actions.add_parser("list", help="all of them, without their secrets")
    list_.add_argument("--tenant", help="only those of this tenant")
    list_.add_argument("--json", action="store_true", help="as a JSON array")
    add_places(list_)
    revoke = actions.add_parser("revoke", help="make a key useless, at once and for ever")
    revoke.add_argument("id", help="as `list` shows it")
    add_places(revoke)
    parser.set_defaults(run=run)


def _days(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_DAYS:
        raise argparse.ArgumentTypeError(f"found {text!r}; allowed are 1 to {MOST_DAYS}")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Do what was asked; the exit status."""
    return carry_out("key", args, partial(_run, args))


async def _run(args: argparse.Namespace) -> int:
    async with opened_catalogue(args) as catalogue:
        if args.action == "list":
            _show(await catalogue.keys(args.tenant), as_json=args.json)
        elif args.action == "create":
            await _create(catalogue, args)
        else:
            await catalogue.revoke_key(args.id, by=author(), at=now())
    return SOUND


async def _create(catalogue: Catalogue, args: argparse.Namespace) -> None:
    role: KeyRole = args.role
    beyond = [scope for scope in args.scope or () if scope not in SCOPES_OF[role]]
    if beyond:
        allowed = ", ".join(sorted(SCOPES_OF[role]))
        raise Refused(f"--scope {beyond[0]}: the role {role} has not got it; allowed: {allowed}")
    id_, secret = new_key()
    expires = None if args.days is None else stamp(datetime.now(UTC) + timedelta(days=args.days))
    made = await catalogue.add_key(
        id_,
        digest(secret),
        name=args.name,
        role=role,
        scopes=args.scope,
        tenant=args.tenant,
        expires_at=expires,
        by=author(),
        at=now(),
    )
    if args.json:
        write_json({**asdict(made), "key": whole_key(id_, secret)})
        return
    sys.stdout.write(f"{whole_key(id_, secret)}\n")
    sys.stderr.write("porteiro key: this is the only time that it is shown\n")


def _show(keys: list[ApiKey], *, as_json: bool) -> None:
    at = now()
    if as_json:
        write_json([{**asdict(one), "holds": one.holds(at)} for one in keys])
        return
    columns = ("id", "name", "role", "only", "tenant", "made", "by", "expires", "used", "")
    rows = (
        (
            one.id,
            one.name,
            one.role,
            "" if one.scopes is None else " ".join(one.scopes),
            one.tenant or "all",
            one.created_at[:10],
            one.created_by,
            (one.expires_at or "")[:10],
            (one.used_at or "")[:16].replace("T", " "),
            "" if one.holds(at) else "revoked" if one.revoked_at else "expired",
        )
        for one in keys
    )
    new_console().print(table_of(columns, rows))
