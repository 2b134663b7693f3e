"""``porteiro audit …``: reading and checking the audit log, beside a running service too."""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TextIO, get_args

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bridge.commands.audit_recordings import look_at_recordings
from bridge.commands.audit_story import cost_in_words, story
from bridge.commands.table import table_of
from bridge.http.console.language import LANGUAGES, read_languages
from bridge.review.looking import Reviews
from bridge.review.picture import ZOOMS
from bridge.settings import SettingsError, load, usable_cpus
from bridge.showing import safe
from storage.address import Database, database_of
from storage.base import Storage, StorageError, VisitSummary, VisitView
from storage.opening import open_storage
from storage.verifying import verify_all
from visits.audit import KINDS, AuditError, AuditRecord, Head, Outcome, intact, stamp

SOUND, FAULTY, UNUSABLE = 0, 1, 2
"""Exit codes: all well; a fault, or nothing found; the log can't be read."""

_FORMULA: Final = tuple("=+-@\t\r\n＝＋－＠")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}


# --------------------------------------------------------------------------------------------------------
# The arguments
# --------------------------------------------------------------------------------------------------------


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``audit`` and what is below it. :func:`run` needs ``args.db``: from ``--db``, or set afterwards."""
    audit = subparsers.add_parser("audit", help="read and check the audit log")
    actions = audit.add_subparsers(
        dest="action", required=True, metavar="list|show|picture|verify|head|export"
    )

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", metavar="FILE", help="default: $PORTEIRO_CONFIG, then ./porteiro.toml")
    add_database(common)
    common.add_argument("--tenant", help="only this tenant")
    span = argparse.ArgumentParser(add_help=False)
    span.add_argument("--since", type=moment, help="from then on: 2026-11-21, 2026-11-21T08:30, 90m, 12h, 7d")
    span.add_argument("--until", type=moment, help="up to then")

    list_ = actions.add_parser("list", parents=[common, span], help="the visits, the latest first")
    list_.add_argument("--outcome", choices=get_args(Outcome), help="only visits that ended so")
    list_.add_argument("--limit", type=_count, default=50, help="at most so many (default 50)")
    _add_formats(list_, "a JSON array", "CSV")

    show = actions.add_parser("show", parents=[common], help="one visit's whole story")
    show.add_argument("visit", help="its id, or the beginning of it")
    _add_formats(show, "one JSON object")

    drawn = actions.add_parser("picture", parents=[common], help="one visit's time line as a picture (SVG)")
    drawn.add_argument("visit", help="its id, or the beginning of it")
    drawn.add_argument(
        "--recordings",
        type=Path,
        metavar="DIR",
        help="where they lie (default: where the settings say; with --db, `recordings` beside the file)",
    )
    drawn.add_argument("--language", choices=LANGUAGES, default=LANGUAGES[0], help="of its words")
    drawn.add_argument("--zoom", type=int, choices=ZOOMS, default=ZOOMS[0], help="how wide it is")
    drawn.add_argument("--out", type=Path, metavar="FILE.svg", help="instead of standard output")

    verify = actions.add_parser(
        "verify",
        parents=[common],
        help="check the log and all that rests on it; exit 1 on a fault",
        description="Checks each tenant's chain of hashes, the tables that `list` and `show` read against "
        "the records, and the recordings' files against their SHA-256 in the log. Exits with 1 on a fault.",
    )
    verify.add_argument(
        "--head",
        type=_anchor,
        action="append",
        default=[],
        metavar="TENANT=SEQ:HASH",
        help="what an earlier `audit head` printed (repeatable): shows also what was cut from the end, or "
        "written anew by somebody thorough",
    )
    verify.add_argument(
        "--heads", type=Path, metavar="FILE", help="a file of such lines, which was kept somewhere else"
    )
    files = verify.add_mutually_exclusive_group()
    files.add_argument(
        "--recordings", type=Path, metavar="DIR", help="where they lie (default: where the settings say)"
    )
    files.add_argument("--no-recordings", action="store_true", help="leave the recordings' files alone")
    _add_formats(verify, "one JSON object")

    head = actions.add_parser(
        "head",
        parents=[common],
        help="print each chain's last record, to be kept somewhere else",
        description="Prints TENANT=SEQ:HASH for each chain. Whoever may write to the database can also "
        "compute it anew; a head that was kept where they can't reach shows it: `audit verify --heads FILE`.",
    )
    _add_formats(head, "one JSON object")

    export = actions.add_parser("export", parents=[common, span], help="the records themselves")
    export.add_argument("--visit", help="only this visit's")
    export.add_argument(
        "--kind", action="append", choices=sorted(KINDS), help="only of this kind (repeatable)"
    )
    export.add_argument("--out", type=Path, help="write to this file (mode 0600) instead of standard output")
    _add_formats(export, "a JSON object a line (the default)", "CSV")


def _add_formats(parser: argparse.ArgumentParser, as_json: str, as_csv: str | None = None) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--json", action="store_true", help=f"as {as_json}")
    if as_csv is not None:
        group.add_argument("--csv", action="store_true", help=f"as {as_csv}; cells can't act as formulas")


def add_database(parser: argparse.ArgumentParser) -> None:
    """The option ``--db``; without it ``args.db`` is None."""
    parser.add_argument(
        "--db",
        type=_database,
        metavar="FILE|URL",
        help="the database: SQLite's file, or postgresql://… (default: the one in the settings)",
    )


def _database(text: str) -> Database:
    if "://" not in text:
        return Database(file=Path(text))
    try:
        return database_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"found {text!r}; allowed: {error}") from None


def moment(text: str) -> str:
    """A time as records carry it, out of what people write. Without a zone it is this machine's."""
    ago = re.fullmatch(r"(\d{1,6})([mhd])", text)
    try:
        if ago:
            return stamp(datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])}))
        return stamp(datetime.fromisoformat(text).astimezone())
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time such as 2026-11-21, 2026-11-21T08:30 or 12h"
        ) from None


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1000000")
    return int(text)


def _anchor(text: str) -> tuple[str, Head]:
    tenant, separator, head = text.rpartition("=")
    try:
        if separator:
            return tenant, Head.parse(head)
    except AuditError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    raise argparse.ArgumentTypeError(f"{text!r} is not TENANT=SEQ:HASH")


# --------------------------------------------------------------------------------------------------------
# Running
# --------------------------------------------------------------------------------------------------------


def run(args: argparse.Namespace) -> int:
    """Do what was asked, and return the exit code: :data:`SOUND`, :data:`FAULTY` or :data:`UNUSABLE`."""
    try:
        if args.db is None:
            _take_usual_places(args)
        return asyncio.run(_run(args))
    except _Unusable as error:
        sys.stderr.write(f"{error}\n")
        return UNUSABLE
    except StorageError as error:
        sys.stderr.write(f"porteiro audit: {safe(str(error))}\n")
        return UNUSABLE
    except BrokenPipeError:
        # The reader (head, less) had enough. What Python flushes at exit must go somewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SOUND
    except OSError as error:
        sys.stderr.write(f"porteiro audit: {error}\n")
        return UNUSABLE


async def _run(args: argparse.Namespace) -> int:
    async with opened(args.db) as storage:
        if args.action == "list":
            return await _list(storage, args)
        if args.action == "show":
            return await _show(storage, args)
        if args.action == "picture":
            return await _picture(storage, args)
        if args.action == "verify":
            return await _verify(storage, args)
        if args.action == "head":
            return await _head(storage, args)
        return await _export(storage, args)


@asynccontextmanager
async def opened(database: Database) -> AsyncIterator[Storage]:
    storage = await open_storage(database, read_only=True, deadline_s=60)
    try:
        yield storage
    finally:
        await storage.close()


def new_console() -> Console:
    # In a pipe there is no width to keep to, and a table cut to 80 columns is of no use.
    return Console(width=None if sys.stdout.isatty() else 200, highlight=False)


def write_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


async def _known(storage: Storage, tenant: str | None) -> bool:
    """Whether the tenant that was asked for has records; says which have where it has none."""
    tenants = await storage.tenants()
    if tenant is None or tenant in tenants:
        return True
    others = ", ".join(safe(name) for name in tenants if name) or "none yet"
    sys.stderr.write(f"porteiro audit: tenant {safe(tenant)!r} has no records; allowed: {others}\n")
    return False


async def _list(storage: Storage, args: argparse.Namespace) -> int:
    if not await _known(storage, args.tenant):
        return FAULTY
    visits = await storage.visits(
        tenant=args.tenant, since=args.since, until=args.until, outcome=args.outcome, limit=args.limit
    )
    if args.json:
        write_json([asdict(visit) for visit in visits])
    elif args.csv:
        names = [field.name for field in fields(VisitSummary)]
        write_csv(sys.stdout, names, (asdict(visit) for visit in visits))
    elif visits:
        new_console().print(_visits_table(visits))
    if not visits:  # beside what a program reads
        sys.stderr.write("porteiro audit: no visit matches\n")
    return SOUND


def _visits_table(visits: Iterable[VisitSummary]) -> Table:
    rows = []
    for visit in visits:
        started = datetime.fromisoformat(visit.started_at)
        lasted = ""
        if visit.ended_at is not None:
            lasted = f"{(datetime.fromisoformat(visit.ended_at) - started).total_seconds():.0f}"
        cells = (
            visit.id,
            f"{started.astimezone():%Y-%m-%d %H:%M:%S}",
            lasted,
            visit.tenant,
            visit.intent,
            visit.visitor_name,
            visit.apartment,
            visit.decision,
            _gate(visit),
            cost_in_words(visit),
            visit.outcome or "running",
        )
        rows.append([cell or "–" for cell in cells])
    columns = (
        "visit", "started", "s", "tenant", "intent", "visitor", "apt", "decision", "gate", "cost", "outcome",
    )  # fmt: skip
    return table_of(columns, rows, right=("s", "cost"))


def _gate(visit: VisitSummary) -> str:
    if visit.gate_requested_at is None:
        return "–"
    if visit.gate_opened is None:
        return "no answer"
    return "opened" if visit.gate_opened else "not opened"


async def _one(storage: Storage, args: argparse.Namespace) -> VisitView | None:
    """The visit whose id begins as asked for; says why there is none."""
    found = await storage.find_visits(args.visit.lower()) if args.visit else []
    if len(found) != 1:
        several = f"begins {len(found)} visits or more: " + ", ".join(found)
        sys.stderr.write(f"porteiro audit: {safe(args.visit)!r} {several if found else 'is no visit here'}\n")
        return None
    view = await storage.visit(found[0])
    if view is None or args.tenant not in (None, view.summary.tenant):
        sys.stderr.write(f"porteiro audit: {found[0]} is no visit of tenant {safe(args.tenant or '')!r}\n")
        return None
    return view


async def _picture(storage: Storage, args: argparse.Namespace) -> int:
    if (view := await _one(storage, args)) is None:
        return FAULTY
    if args.out is not None and _is_the_log(args.out, args.db):
        sys.stderr.write(f"porteiro audit: --out: found {args.out}, the audit log; allowed: another file\n")
        return UNUSABLE
    beside = args.db.file.parent / "recordings" if args.db.file is not None else Path("var/recordings")
    reviews = Reviews(lambda: storage, args.recordings or beside)
    looked = await reviews.look(view.summary.id, lambda _: True)
    if looked is None:  # erased at this moment
        return FAULTY
    for leg, reason in looked.missing.items():
        sys.stderr.write(f"porteiro audit: {safe(leg)} is drawn without its sound: {reason}\n")
    zone = datetime.now().astimezone().tzinfo or UTC
    drawn = reviews.draw(looked, read_languages()[args.language], zoom=args.zoom, zone=zone, alone=True)
    if args.out is None:
        sys.stdout.write(f"{drawn}\n")
        return SOUND
    with _for_the_owner(args.out) as file:
        file.write(f"{drawn}\n")
    return SOUND


async def _show(storage: Storage, args: argparse.Namespace) -> int:
    if (view := await _one(storage, args)) is None:
        return FAULTY
    records = [record async for record in storage.audit(visit=view.summary.id)]
    sound = all(intact(record) for record in records)
    if args.json:
        write_json({"visit": asdict(view), "records": [asdict(r) for r in records], "intact": sound})
    else:
        console = new_console()
        for part in story(view, records):
            console.print(part)
    return SOUND if sound else FAULTY


async def _verify(storage: Storage, args: argparse.Namespace) -> int:
    anchors: dict[str, set[Head]] = {}
    for tenant, head in [*args.head, *(_read_heads(args.heads) if args.heads else ())]:
        anchors.setdefault(tenant, set()).add(head)
    if args.tenant not in anchors and not await _known(storage, args.tenant):
        return FAULTY
    heads = await _heads(storage, args.tenant)
    if args.tenant is None:
        faults = await verify_all(args.db, usable_cpus(), anchors)
    else:
        faults = await storage.verify(args.tenant, expected_heads=anchors)
    recordings = await look_at_recordings(storage, args.recordings, args.tenant)
    faults += recordings.faults
    erased = await storage.erased_visits(args.tenant)
    if args.json:
        chains = [{"tenant": t, "records": head.seq, "head": str(head)} for t, head in heads.items()]
        files = {
            "sound": recordings.sound,
            "erased": recordings.erased,
            "unsealed": recordings.unsealed,
        }
        found = [asdict(fault) for fault in faults]
        write_json(
            {
                "ok": not faults,
                "chains": chains,
                "erased_visits": erased,
                "recordings": files,
                "faults": found,
            }
        )
        return FAULTY if faults else SOUND
    console = new_console()
    faulty = {fault.tenant for fault in faults}
    for tenant, head in heads.items():
        mark, style = ("✗", "red") if tenant in faulty else ("✓", "green")
        name = safe(tenant) or "(the service itself)"
        console.print(Text(f"{mark} {name}: {head.seq} records, head {tenant}={head}", style), soft_wrap=True)
    for fault in faults:
        console.print(Text(f"  {safe(str(fault))}", "red"), soft_wrap=True)
    if recordings.sound:
        console.print(f"Recordings that are what the log says: {recordings.sound}.")
    if recordings.erased:
        console.print(f"Recordings that were erased, on record: {recordings.erased}.")
    if erased:
        console.print(f"Visits of which something was erased, on record: {erased}.")
    if recordings.unsealed:
        console.print(f"Recordings without a digest in the log, which prove nothing: {recordings.unsealed}.")
    if not faults:
        console.print("Every chain is sound. Keep `porteiro audit head` elsewhere: it finds what is cut off.")
    return FAULTY if faults else SOUND


async def _heads(storage: Storage, tenant: str | None) -> dict[str, Head]:
    heads = await storage.heads()
    return {name: head for name, head in heads.items() if tenant in (None, name)}


async def _head(storage: Storage, args: argparse.Namespace) -> int:
    if not await _known(storage, args.tenant):
        return FAULTY
    heads = await _heads(storage, args.tenant)
    if args.json:
        write_json({tenant: str(head) for tenant, head in heads.items()})
    else:
        sys.stdout.writelines(f"{safe(tenant)}={head}\n" for tenant, head in heads.items())
    return SOUND


def _read_heads(file: Path) -> list[tuple[str, Head]]:
    """The heads in a file of `audit head` lines; empty ones and those that begin with # are passed over."""
    heads = []
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            heads.append(_anchor(line))
        except argparse.ArgumentTypeError as error:
            raise _Unusable(f"porteiro audit: --heads: {file}, line {number}: {error}") from None
    return heads


# --------------------------------------------------------------------------------------------------------
# Export
# --------------------------------------------------------------------------------------------------------


class _Unusable(Exception):
    """What was asked for can't be begun; the text says why."""


def _take_usual_places(args: argparse.Namespace) -> None:
    """The database, and the recordings, of the settings or of the defaults.

    Raises:
        _Unusable: there is none.
    """
    try:
        settings = load(args.config)
    except SettingsError as error:
        raise _Unusable(str(error)) from None
    args.db = settings.database
    if args.db.file is not None and not args.db.file.exists():
        raise _Unusable(f"porteiro audit: there is no audit log at {args.db} yet; name another with --db")
    wanted = args.action == "picture" or (args.action == "verify" and not args.no_recordings)
    if wanted and args.recordings is None:
        args.recordings = settings.service.recordings_path


async def _export(storage: Storage, args: argparse.Namespace) -> int:
    if not await _known(storage, args.tenant):
        return FAULTY
    if args.visit is not None and not await storage.visit_exists(args.visit):
        sys.stderr.write(
            f"porteiro audit: {safe(args.visit)!r} is no visit here; allowed: a whole id, as `audit list` "
            "shows it\n"
        )
        return FAULTY
    records = storage.audit(
        tenant=args.tenant, visit=args.visit, since=args.since, until=args.until, kinds=args.kind
    )
    if args.out is None:
        await _write_records(sys.stdout, records, as_csv=args.csv)
        return SOUND
    if _is_the_log(args.out, args.db):
        sys.stderr.write(f"porteiro audit: --out: found {args.out}, the audit log; allowed: another file\n")
        return UNUSABLE
    with _for_the_owner(args.out) as file:
        await _write_records(file, records, as_csv=args.csv)
    return SOUND


def _for_the_owner(path: Path) -> TextIO:
    """A new file for people's names and words: nobody else may read it."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    return open(handle, "w", encoding="utf-8", newline="")


def _is_the_log(out: Path | str, database: Database) -> bool:
    """Whether writing there would destroy what is to be exported."""
    if (db := database.file) is None:
        return False
    return Path(out).resolve() in {Path(f"{db}{suffix}").resolve() for suffix in ("", "-wal", "-shm")}


async def _write_records(out: TextIO, records: AsyncIterator[AuditRecord], *, as_csv: bool) -> None:
    if as_csv:
        names = [field.name for field in fields(AuditRecord)]
        write_csv(out, names, ())
        async for record in records:
            write_csv(out, names, [asdict(record)], header=False)
        return
    async for record in records:
        out.write(json.dumps(asdict(record), ensure_ascii=False, separators=(",", ":")) + "\n")


def write_csv(
    out: TextIO, names: list[str], rows: Iterable[Mapping[str, Any]], *, header: bool = True
) -> None:
    writer = csv.writer(out, lineterminator="\n")
    if header:
        writer.writerow(names)
    for row in rows:
        writer.writerow([cell(row[name]) for name in names])


def cell(value: object) -> str:
    """A value as a CSV cell that a spreadsheet will not take for a formula.

    What visitors say ends up in these files, and ``=HYPERLINK(…)`` in a cell acts on whoever opens them. A
    cell that begins as a formula would gets an apostrophe before it, as OWASP advises.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text
