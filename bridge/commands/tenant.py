"""`porteiro tenant`: the tenants that are kept in the database, and what their settings were."""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bridge.commands.audit import new_console, write_json
from bridge.commands.catalogue import (
    SOUND,
    Refused,
    add_places,
    author,
    carry_out,
    log_on_stderr,
    now,
    opened_catalogue,
)
from bridge.commands.table import table_of
from bridge.importing.tenants import TENANT_ID
from bridge.settings import Settings, load
from bridge.showing import safe
from bridge.tenants import Tenancy
from storage.catalogue import Catalogue, SettingsVersion

MAX_BYTES = 256 * 1024
"""A tenant's settings are a page or two."""
VERSIONS = 200
"""How many of them `history` shows."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its options."""
    parser = subparsers.add_parser(
        "tenant",
        help="the tenants that are kept in the database",
        description="Tenants of the database, beside those of the settings files. What is set is checked "
        "with all other tenants first; a running service has it in force within a second. Each change is in "
        "the audit log, with this machine's user as `by`. See docs/tenants.md.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|show|set|remove|history")
    list_ = actions.add_parser("list", help="all tenants, those of the files too")
    list_.add_argument("--json", action="store_true", help="as a JSON array")
    show = actions.add_parser("show", help="one tenant's settings as JSON, which `set` reads")
    set_ = actions.add_parser("set", help="have settings in force: a new tenant's, or in place of others")
    remove = actions.add_parser("remove", help="the tenant, and its directory; its visits stay")
    history = actions.add_parser("history", help="every version that was in force, the latest first")
    for action in (show, set_, remove, history):
        action.add_argument("tenant", type=_tenant, metavar="ID")
    show.add_argument("--version", type=_version, help="as they were in that version")
    set_.add_argument(
        "file", metavar="FILE", help="TOML or JSON of what [tenants.ID] holds; - reads standard input"
    )
    set_.add_argument("--expected", type=_version, help="only where this version is in force; 0: none")
    history.add_argument("--json", action="store_true", help="as a JSON array, with the settings")
    for action in (set_, remove):
        action.add_argument("--dry-run", action="store_true", help="show what would be done, and do nothing")
    for action in (list_, show, set_, remove, history):
        add_places(action)
    parser.set_defaults(run=run)


def _tenant(text: str) -> str:
    if not TENANT_ID.fullmatch(text):
        raise argparse.ArgumentTypeError(f"found {text!r}; allowed: a to z, digits, _ and -")
    return text


def _version(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"found {text!r}; allowed: a version's number")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Do what was asked; the exit status."""
    return carry_out("tenant", args, partial(_run, args))


async def _run(args: argparse.Namespace) -> int:
    async with opened_catalogue(args) as catalogue:
        match args.action:
            case "list":
                await _list(catalogue, args)
            case "show":
                await _show(catalogue, args)
            case "history":
                await _history(catalogue, args)
            case "set":
                await _set(catalogue, args)
            case _:
                await _remove(catalogue, args)
    return SOUND


# --------------------------------------------------------------------------------------------------------
# Reading
# --------------------------------------------------------------------------------------------------------


async def _list(catalogue: Catalogue, args: argparse.Namespace) -> None:
    rows = [
        {
            "id": one.tenant,
            "name": (one.content or {}).get("name", ""),
            "kept_in": "the database",
            "version": one.version,
            "at": one.at,
            "by": one.by,
        }
        for one in await catalogue.tenants()
    ]
    settings = load(args.config)
    rows += [
        {
            "id": tenant.id,
            "name": tenant.name,
            "kept_in": settings.source,
            "version": None,
            "at": None,
            "by": None,
        }
        for tenant in settings.tenants.values()
    ]
    rows.sort(key=lambda row: str(row["id"]))
    if args.json:
        write_json(rows)
        return
    columns = ("id", "name", "kept in", "version", "at", "by")
    shown = (("" if each is None else str(each) for each in row.values()) for row in rows)
    new_console().print(table_of(columns, shown))


async def _show(catalogue: Catalogue, args: argparse.Namespace) -> None:
    found = await catalogue.tenant(args.tenant)
    if args.version is not None:
        found = await catalogue.version(args.tenant, args.version)
    if found is None or found.content is None:
        which = "" if args.version is None else f" in version {args.version}"
        raise Refused(f"the database keeps no tenant {args.tenant!r}{which}")
    write_json(found.content)


async def _history(catalogue: Catalogue, args: argparse.Namespace) -> None:
    versions = (await catalogue.history(args.tenant, limit=VERSIONS)).items
    if not versions:
        raise Refused(f"the database knows no version of a tenant {args.tenant!r}")
    if args.json:
        write_json([_as_json(one) for one in versions])
        return
    rows = (
        (str(one.version), one.at, one.by, one.source, "removed" if one.content is None else one.digest[:12])
        for one in versions
    )
    new_console().print(table_of(("version", "at", "by", "source", "digest"), rows))


def _as_json(one: SettingsVersion) -> dict[str, Any]:
    said = {"version": one.version, "at": one.at, "by": one.by, "source": one.source}
    return {**said, "digest": one.digest, "settings": one.content}


# --------------------------------------------------------------------------------------------------------
# Changing
# --------------------------------------------------------------------------------------------------------


async def _set(catalogue: Catalogue, args: argparse.Namespace) -> None:
    content = read_settings(_text(args.file), args.tenant)
    now_in_force = await catalogue.tenant(args.tenant)
    version = 0 if now_in_force is None else now_in_force.version
    if args.expected is not None and args.expected != version:
        raise Refused(f"tenant {args.tenant!r}: found version {version}; expected {args.expected}")
    await check(catalogue, load(args.config), {args.tenant: content})
    before = {} if now_in_force is None or now_in_force.content is None else now_in_force.content
    lines = differences(before, content)
    for line in lines:
        sys.stdout.write(f"{safe(line)}\n")
    if args.dry_run or not lines:
        sys.stdout.write(f"{args.tenant}: {'nothing was written' if lines else 'nothing differs'}\n")
        return
    # Of just the version that was compared with: nobody's change goes down unseen.
    new = await catalogue.put_tenant(args.tenant, content, expected=version, by=author(), at=now())
    sys.stdout.write(f"{args.tenant}: version {new.version}\n")


async def _remove(catalogue: Catalogue, args: argparse.Namespace) -> None:
    found = await catalogue.tenant(args.tenant)
    if found is None:
        raise Refused(f"the database keeps no tenant {args.tenant!r}")
    stored = await catalogue.directory(args.tenant)
    apartments = 0 if stored is None else len(stored.directory.apartments)
    sys.stdout.write(f"- {args.tenant}, and {apartments} apartments of its directory\n")
    if args.dry_run:
        sys.stdout.write(f"{args.tenant}: nothing was written\n")
        return
    await catalogue.remove_tenant(args.tenant, expected=found.version, by=author(), at=now())


async def check(
    catalogue: Catalogue, settings: Settings, changes: Mapping[str, Mapping[str, Any] | None]
) -> None:
    """See to it that tenants can be as they are wanted, beside all others. Raises :class:`Refused`."""
    tenancy = Tenancy(settings)
    with log_on_stderr():
        await tenancy.open(catalogue)
        problems = await tenancy.propose(changes)
    if problems:
        raise Refused("\n".join(problems))


def _text(file: str) -> bytes:
    if file == "-":
        content = sys.stdin.buffer.read(MAX_BYTES + 1)
    else:
        with Path(file).open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise Refused(f"{file}: found more than {MAX_BYTES} bytes; allowed: a tenant's settings")
    return content


def read_settings(content: bytes, tenant: str) -> dict[str, Any]:
    """A tenant's settings out of TOML or JSON: its own alone, or a file with just its table.

    Raises:
        Refused: it is neither, or of other tenants.
    """
    try:
        text = content.decode()
        tree: Any = json.loads(text) if text.lstrip()[:1] == "{" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused(f"found neither TOML nor JSON: {error}") from None
    if set(tree) == {"tenants"} and isinstance(tree["tenants"], dict):
        if set(tree["tenants"]) != {tenant}:
            found = ", ".join(map(str, tree["tenants"])) or "none"
            raise Refused(f"found settings of {found}; allowed: of {tenant} alone")
        tree = tree["tenants"][tenant]
    if not isinstance(tree, dict) or not tree:
        raise Refused("found no settings; allowed: what [tenants.ID] holds")
    return _plain(tree)


def _plain(tree: dict[str, Any]) -> dict[str, Any]:
    """The same in JSON's own types: TOML has dates, which no setting is."""
    try:
        plain: dict[str, Any] = json.loads(json.dumps(tree, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise Refused(f"found what JSON can't hold: {error}") from None
    return plain


def differences(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> list[str]:
    """What differs, a line each: ``~ limits.attempts: 2 → 3``."""
    lines = []
    for name in sorted({*old, *new}):
        where = f"{path}{name}"
        if name not in new:
            lines.append(f"- {where}: {_short(old[name])}")
        elif name not in old:
            lines.append(f"+ {where}: {_short(new[name])}")
        elif isinstance(old[name], Mapping) and isinstance(new[name], Mapping):
            lines += differences(old[name], new[name], f"{where}.")
        elif old[name] != new[name]:
            lines.append(f"~ {where}: {_short(old[name])} → {_short(new[name])}")
    return lines


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:59]}…"
