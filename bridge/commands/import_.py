"""`porteiro import`: directories and tenants out of spreadsheets and older systems."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from bridge.commands.audit import SOUND, UNUSABLE, new_console, write_json
from bridge.commands.catalogue import author, log_on_stderr, now
from bridge.importing import into_database
from bridge.importing.clients import TABLES
from bridge.importing.database import DatabaseError, Tables, check_url, connect, look
from bridge.importing.directories import read_directory
from bridge.importing.extensions import read_ramais
from bridge.importing.follow import follow
from bridge.importing.plan import Action, Plan, Problem
from bridge.importing.planning import Choices, Sources, plan_all
from bridge.importing.tables import MAX_BYTES
from bridge.importing.tenants import TENANT_ID
from bridge.importing.writer import BusyError, alone, carry_out
from bridge.settings import Settings, SettingsError, load, settings_file
from bridge.showing import safe
from providers.access import TERMS
from storage.address import place_of
from storage.base import StorageError
from storage.opening import open_storage

DEADLINE_S = 30.0
PROBLEMS = 1
"""The exit status where something can't be taken: then nothing was written."""
SIGNS: dict[Action, str] = {"create": "+", "change": "~", "remove": "-", "leave": "="}
STYLES: dict[Action, str] = {"create": "green", "change": "yellow", "remove": "red", "leave": ""}


class UsageError(Exception):
    """The command was given what does not go together."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its options."""
    parser = subparsers.add_parser(
        "import",
        help="directories and tenants out of spreadsheets and older systems",
        description="Reads directories (CSV, XLSX, apartamentos.json), ramais_config.json, and the tables "
        "extension_ia or clients of a PostgreSQL, and writes directory files and fragments of the settings "
        "(porteiro.d), or all of it to the database. Everything is checked first: with any problem nothing "
        "is written. See docs/import.md.",
    )
    parser.add_argument(
        "sources", nargs="+", metavar="SOURCE", help="a file, or postgresql://user@host/name (PGPASSWORD)"
    )
    parser.add_argument("--tenant", type=_tenant, help="whose the directory is")
    parser.add_argument(
        "--as",
        dest="known_as",
        metavar="ID=TENANT",
        action="append",
        default=[],
        help="what a condominium or client is called here; may be given again",
    )
    parser.add_argument("--provider", choices=sorted(TERMS), default="", help="of the tenants that come in")
    parser.add_argument(
        "--first-port", type=int, metavar="PORT", help="where ports begin for clients that have none"
    )
    parser.add_argument(
        "--into",
        choices=("files", "database"),
        default="files",
        help="where it goes: files of the settings (default), or the database, at once in force",
    )
    parser.add_argument("--replace", action="store_true", help="what the source does not have any more goes")
    parser.add_argument("--config", metavar="FILE", help="default: $PORTEIRO_CONFIG, then ./porteiro.toml")
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, and do nothing")
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    parser.add_argument(
        "--follow", action="store_true", help="keep in step with extension_ia until interrupted"
    )
    parser.set_defaults(run=run)


def _tenant(text: str) -> str:
    if not TENANT_ID.fullmatch(text):
        raise argparse.ArgumentTypeError(f"found {text!r}; allowed: a to z, digits, _ and -")
    return text


def run(args: argparse.Namespace) -> int:
    """Read, plan, show and write; the exit status."""
    try:
        choices = _choices(args)
        if args.follow:
            return asyncio.run(_follow(args, choices))
        sources = _read(args.sources)
        if sources.sheet is not None and not choices.tenant:
            raise UsageError("whose directory is it? Name the tenant: --tenant jardim")
        if args.into == "database":
            return asyncio.run(_import_into_database(args, sources, choices))
        return _import(args, sources, choices)
    except SettingsError as error:
        _complain(f"{error.source}: {line}" for line in error.problems)
    except (UsageError, DatabaseError, BusyError, StorageError) as error:
        _complain([str(error)])
    except OSError as error:
        _complain([f"{error.filename or 'a file'}: {error.strerror}"])
    return UNUSABLE


def _choices(args: argparse.Namespace) -> Choices:
    config = settings_file(args.config)
    if args.config and not config.exists():
        raise UsageError(f"{config}: no such file")
    known_as = {}
    for pair in args.known_as:
        key, equals, tenant = pair.partition("=")
        if not key or not equals or not TENANT_ID.fullmatch(tenant):
            raise UsageError(f"--as {pair}: allowed is ID=TENANT, such as 3=jardim")
        known_as[key] = tenant
    if args.first_port is not None and not 1 <= args.first_port <= 65534:
        raise UsageError(f"--first-port {args.first_port}: allowed are 1 to 65534")
    return Choices(config, args.tenant or "", known_as, args.provider, args.first_port, args.replace)


def _read(names: Sequence[str]) -> Sources:
    """All sources, each kind at most once."""
    sources = Sources()
    for name in names:
        if "://" in name:
            _once(not sources.tables, "database")
            sources = replace(sources, tables=asyncio.run(_tables(name)).rows)
            continue
        content = _content(Path(name))
        if content.lstrip()[:1] == b"{":
            _once(sources.ramais is None, "ramais_config.json")
            sources = replace(sources, ramais=read_ramais(content, Path(name).name))
        else:
            _once(sources.sheet is None, "directory")
            sources = replace(sources, sheet=read_directory(content, Path(name).name))
    return sources


def _once(first: bool, kind: str) -> None:
    if not first:
        raise UsageError(f"found a second {kind}; allowed is one at a time")


def _content(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(MAX_BYTES + 1)


async def _tables(url: str) -> Tables:
    check_url(url)
    connection = await connect(url)
    try:
        return await look(connection, ["extension_ia", *TABLES])
    finally:
        await connection.close(timeout=5)


def _import(args: argparse.Namespace, sources: Sources, choices: Choices) -> int:
    if args.dry_run:
        plan = plan_all(sources, choices)
    else:
        with alone(choices.config):
            plan = plan_all(sources, choices)
            if not plan.problems:
                carry_out(plan)
    return _told(args, plan)


async def _import_into_database(args: argparse.Namespace, sources: Sources, choices: Choices) -> int:
    return _told(args, await _into_database(load(args.config), sources, choices, args.sources, args.dry_run))


async def _into_database(
    settings: Settings, sources: Sources, choices: Choices, names: Sequence[str], dry_run: bool = False
) -> Plan:
    """Plan, check and carry out; the plan says what was, or what is wrong.

    Raises:
        StorageError: the database can't be asked, or somebody changed the same meanwhile.
    """
    async with await open_storage(settings.database, deadline_s=DEADLINE_S) as storage:
        catalogue = storage.catalogue
        kept = await into_database.look(catalogue, settings, choices)
        plan = into_database.plan_into_database(sources, choices, kept)
        with log_on_stderr():
            plan = await into_database.checked(plan, kept, catalogue)
        if not plan.problems and not dry_run:
            named = ", ".join(safe(place_of(name) if "://" in name else name) for name in names)
            await into_database.carry_out(plan, catalogue, by=author(), at=now(), source=named)
    return plan


def _told(args: argparse.Namespace, plan: Plan) -> int:
    """Show what was, or would be, done; the exit status."""
    done = not plan.problems and not args.dry_run
    if args.json:
        write_json({**plan.as_json(), "written": done})
    else:
        _show(plan, done)
    return PROBLEMS if plan.problems else SOUND


def _show(plan: Plan, done: bool) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("", "tenant", "", "what"):
        table.add_column(name)
    for one in plan.changes:
        if one.action != "leave":
            what = Text(safe("; ".join(one.details)))
            kind = one.name if one.kind == "apartment" else "settings"
            table.add_row(SIGNS[one.action], safe(one.tenant), safe(kind), what, style=STYLES[one.action])
    console = new_console()
    if table.row_count:
        console.print(table)
    counted = Counter(one.action for one in plan.changes)
    said = ", ".join(f"{SIGNS[action]} {action} {counted[action]}" for action in SIGNS if counted[action])
    console.print(said or "nothing", "" if done else "(nothing was written)", highlight=False)
    for note in plan.notes:
        console.print(Text(f"note: {safe(note)}"))
    _complain(map(str, plan.problems))


def _complain(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stderr.write(f"porteiro import: {safe(line)}\n")


# --------------------------------------------------------------------------------------------------------
# In step with extension_ia
# --------------------------------------------------------------------------------------------------------


async def _follow(args: argparse.Namespace, choices: Choices) -> int:
    if len(args.sources) != 1 or "://" not in args.sources[0] or args.dry_run:
        raise UsageError("--follow takes one database, postgresql://user@host/name, and no --dry-run")
    check_url(args.sources[0])
    keep = replace(choices, replacing=True)

    async def apply(rows: Sequence[Mapping[str, Any]]) -> None:
        if args.into == "files":
            await keep_in_step(rows, _files_of(keep), _say)
        else:
            await keep_in_step(rows, _database_of(args.config, args.sources, keep), _say)

    await follow(args.sources[0], apply, _say)
    return SOUND


Write = Callable[[Sources], Awaitable[Plan]]
"""Plans what there is to do, and does it where nothing is wrong."""


def _files_of(choices: Choices) -> Write:
    async def write(sources: Sources) -> Plan:
        with alone(choices.config):
            plan = plan_all(sources, choices)
            if not plan.problems:
                carry_out(plan)
        return plan

    return write


def _database_of(config: str | None, names: Sequence[str], choices: Choices) -> Write:
    async def write(sources: Sources) -> Plan:
        return await _into_database(load(config), sources, choices, names)

    return write


async def keep_in_step(rows: Sequence[Mapping[str, Any]], write: Write, say: Callable[[str], None]) -> None:
    """Have the settings as the table has them; where that can't be, they stay as they are and it is said."""
    if not rows:
        say("extension_ia holds no row: the settings stay as they are")
        return
    try:
        plan = await write(Sources(tables={"extension_ia": rows}))
    except SettingsError as error:
        plan = Plan(problems=tuple(Problem(error.source, "", line) for line in error.problems))
    except (BusyError, StorageError, OSError) as error:
        plan = Plan(problems=(Problem("settings", "", str(error)),))
    for one in plan.changes if not plan.problems else ():
        if one.action != "leave":
            say(f"{one.action} {one.tenant}: {'; '.join(one.details)}")
    for problem in plan.problems:
        say(f"{problem}; the settings stay as they are")


def _say(line: str) -> None:
    sys.stderr.write(f"porteiro import: {safe(line)}\n")
    sys.stderr.flush()
