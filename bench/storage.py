"""`python -m bench.storage [DATABASE …]`: how quick the store is, with a million records in it.

Without arguments SQLite in a new file and PostgreSQL, a server of its own, one after the other. A database
can be named by its URL: what is empty is filled, and stays; what was filled before is measured as it is. Of
PostgreSQL it is one whose tables its user owns.

It is filled past the service with visits of fourteen records, over a thousand tenants, one of which has a
twentieth of them, and each of which has a directory of fifty residents; then the store itself is measured:
appends by how many visits write at once, what a call and the review look up, and `verify`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import resource
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_hex
from statistics import median
from typing import Any
from uuid import UUID

import uvloop
from rich.console import Console
from rich.table import Table

from storage.address import Database, database_of
from storage.base import StorageError
from storage.filters import RecordFilter, VisitFilter
from storage.maintenance import upgrade
from storage.opening import open_storage
from storage.postgresql import session
from storage.projection import TABLES, VisitRows
from storage.store import SqlStorage
from storage.verifying import verify_all
from tests.postgres import NoPostgres, Postgres
from visits.audit import Draft, Head, canonical, stamp
from visits.directory import Apartment
from visits.personal import COMMITMENT, SALT_BYTES, commitment, split

RECORDS = 1_000_000
TENANTS = 1_000
LARGE = "t0"
"""The tenant that has a twentieth of all visits."""
MADE = re.compile("|t[0-9]+|busy[0-9]")
"""The tenants that it makes, and the service's own chain."""
START = datetime(2026, 1, 1, tzinfo=UTC)
EVERY = timedelta(seconds=400)
SQLITE, POSTGRESQL = NEW = ("sqlite", "postgresql")
"""What names a new database."""
SERVER = ("shared_buffers=128MB", "autovacuum=on")
"""As PostgreSQL is set up where nobody sets it up; a commit is on the disk."""
GOALS_MS = {"call": 5, "review": 200}
"""What each look-up may take, but one in twenty."""
VERIFIED_A_SECOND = 100_000
AT_ONCE = (1, 10, 100)
APPENDS_S = 3.0
PROCESSES = sorted({1, len(os.sched_getaffinity(0))})
LOOKS = 30
BATCH = 2_000
"""Visits that are written at once while it is filled."""

APARTMENTS = 25
"""Of each tenant, with two residents each."""
DIRECTORIES_AT_ONCE = 20
SURNAMES = [
    f"{a}{b}"
    for a in ["Al", "Bar", "Cor", "Dan", "Es", "Fer", "Gon", "Lim"]
    for b in ["es", "da", "osa", "ino", "eira"]
]

CALL = {"leg": "visitor", "call": "c1", "name": "lookup_apartment"}
VISIT: tuple[tuple[str, dict[str, Any]], ...] = (
    ("visit.started", {"endpoint": "audiosocket", "provider": "openai", "language": "pt-BR"}),
    ("leg.connected", {"leg": "visitor", "role": "visitor", "endpoint": "audiosocket", "peer": "10.0.0.5"}),
    *(
        (
            "turn",
            {
                "leg": "visitor",
                "speaker": speaker,
                "text": "Oi, é a entrega do apartamento quinhentos e um, por favor.",
                "started_ms": 1000.0 * number,
                "ended_ms": 1000.0 * number + 900,
            },
        )
        for number, speaker in enumerate(("agent", "caller", "agent"), 1)
    ),
    (
        "tool.called",
        {**CALL, "arguments": {"spoken": "501"}},
    ),
    (
        "tool.answered",
        {**CALL, "result": {}, "ms": 2.5, "status": "ok"},
    ),
    ("dial.started", {"attempt": "a1", "number": 1, "apartment": "501"}),
    ("leg.connected", {"leg": "resident-1", "role": "resident"}),
    ("evidence", {"attempt": "a1", "by": "voice", "text": "Pode entrar"}),
    ("decision", {"decision": "authorized", "evidence": [{"by": "voice", "text": "Pode entrar"}]}),
    ("gate.requested", {"apartment": "501", "gate": "http"}),
    ("gate.answered", {"opened": True, "detail": "200 OK"}),
    ("visit.ended", {"outcome": "authorized", "reason": "opened", "visitor_name": "João"}),
)
NAMES = [f"{first} {last}" for first in ["Ana", "João", "Rui", "Sônia", "Caio"] for last in SURNAMES]
"""Two hundred visitors."""
PLACE = "0" * 64
"""Where a record's commitment to what it says of people is put."""


def _prepared(kind: str, data: dict[str, Any]) -> tuple[str, str]:
    """What a record seals, with a place for the commitment; and what is kept beside it, or ""."""
    public, taken = split(kind, data)
    return canonical({**public, **({COMMITMENT: PLACE} if taken else {})}), canonical(taken) if taken else ""


TEXTS = [_prepared(kind, data) for kind, data in VISIT]
ENDS = [
    (ended, _prepared("visit.ended", ended))
    for name in NAMES
    for ended in ({**VISIT[-1][1], "visitor_name": name},)
]


@dataclass
class Filler:
    """Makes visits, sealed into their chains, with the rows that follow."""

    heads: dict[str, Head] = field(default_factory=dict)
    made: int = 0

    def batch(self, visits: int) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]], VisitRows]:
        """The next visits' records, in the columns' order, what is kept beside them, and their rows."""
        records: list[tuple[Any, ...]] = []
        beside: list[tuple[Any, ...]] = []
        rows = VisitRows()
        for _ in range(visits):
            tenant = LARGE if self.made % 20 == 0 else f"t{self.made % TENANTS}"
            visit = str(UUID(int=(self.made * 0x9E3779B97F4A7C15F39CC0605CEDC835) % (1 << 128), version=4))
            start = START + self.made * EVERY
            denied = self.made % 50 == 0
            for number, ((kind, data), (text, personal)) in enumerate(zip(VISIT, TEXTS, strict=True)):
                if denied and kind in ("gate.requested", "gate.answered"):
                    kind, data, text, personal = "note", {}, "{}", ""
                salt = token_hex(SALT_BYTES)
                if kind == "visit.ended":
                    data, (text, personal) = ENDS[self.made % len(ENDS)]
                if personal:
                    text = text.replace(PLACE, commitment(salt, personal))
                at = stamp(start + timedelta(seconds=number))
                draft = Draft(tenant, visit, at, kind, data, text)
                sealed = draft.sealed(self.heads.get(tenant))
                self.heads[tenant] = Head(sealed.seq, sealed.hash)
                rows.apply(draft, sealed.seq)
                records.append((tenant, sealed.seq, visit, at, kind, text, sealed.previous, sealed.hash))
                if personal:
                    beside.append((tenant, sealed.seq, salt, personal))
            self.made += 1
        return records, beside, rows


def batches(
    filler: Filler, visits: int
) -> Iterator[tuple[list[tuple[Any, ...]], list[tuple[Any, ...]], VisitRows]]:
    while filler.made < visits:
        yield filler.batch(min(BATCH, visits - filler.made))


PERSONAL = ("tenant", "seq", "salt", "data")
AUDIT = ("tenant", "seq", "visit", "at", "kind", "data", "previous", "hash")


def fill_sqlite(file: Path, visits: int) -> None:
    """Past the store, with its guards off and its log's syncs as well."""
    filler = Filler()
    connection = sqlite3.connect(file, isolation_level=None)
    guards = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
    connection.execute("PRAGMA synchronous = OFF")
    for name, _ in guards:
        connection.execute(f"DROP TRIGGER {name}")
    for records, beside, rows in batches(filler, visits):
        connection.execute("BEGIN")
        connection.executemany(_insert("audit", AUDIT), records)
        connection.executemany(_insert("audit_personal", PERSONAL), beside)
        for name, table in TABLES.items():
            kept = [tuple(row.values()) for row in rows.tables[name].values()]
            connection.executemany(_insert(name, table.columns), kept)
        connection.execute("COMMIT")
    ends = [(tenant, head.seq, head.hash) for tenant, head in filler.heads.items()]
    connection.executemany(_insert("heads", ("tenant", "seq", "hash")), ends)
    for _, sql in guards:
        connection.execute(sql)
    connection.execute("UPDATE visits SET visitor_name = visitor_name")  # what a guard keeps beside it
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def _insert(table: str, columns: tuple[str, ...]) -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"


async def fill_postgres(database: Database, visits: int) -> None:
    """Past the store, with its guards off; with the statistics that autovacuum would gather."""
    filler = Filler()
    async with session(database.url, database.password, 600) as connection:
        for guarded in ("audit", "heads"):
            await connection.execute(f"ALTER TABLE {guarded} DISABLE TRIGGER USER")
        for records, beside, rows in batches(filler, visits):
            await connection.copy_records_to_table("audit", records=records, columns=AUDIT)
            await connection.copy_records_to_table("audit_personal", records=beside, columns=PERSONAL)
            for name, table in TABLES.items():
                kept = [tuple(row.values()) for row in rows.tables[name].values()]
                await connection.copy_records_to_table(name, records=kept, columns=table.columns)
        ends = [(tenant, head.seq, head.hash) for tenant, head in filler.heads.items()]
        await connection.copy_records_to_table("heads", records=ends, columns=("tenant", "seq", "hash"))
        for guarded in ("audit", "heads"):
            await connection.execute(f"ALTER TABLE {guarded} ENABLE TRIGGER USER")
        await connection.execute("VACUUM ANALYZE")


async def fill_directories(storage: SqlStorage) -> None:
    """Fifty thousand residents, through the catalogue."""
    for start in range(0, TENANTS, DIRECTORIES_AT_ONCE):
        directories = {
            f"t{number}": (
                0,
                [
                    Apartment(
                        number=str(100 + one),
                        block=None,
                        residents=tuple(NAMES[(number + one * 2 + which) % len(NAMES)] for which in (0, 1)),
                        dial=(f"sip:{100 + one}@t{number}",),
                    )
                    for one in range(1, APARTMENTS + 1)
                ],
            )
            for number in range(start, min(start + DIRECTORIES_AT_ONCE, TENANTS))
        }
        await storage.catalogue.put_all({}, directories, by="bench", at=_now())


# --------------------------------------------------------------------------------------------------------
# Measuring
# --------------------------------------------------------------------------------------------------------


async def appends(storage: SqlStorage, at_once: int, seconds: float) -> dict[str, float]:
    """Records a second where so many visits, of ten tenants, write as fast as they can; ms for one."""
    took: list[float] = []
    until = time.perf_counter() + seconds

    async def visit(number: int) -> None:
        name = str(UUID(int=time.time_ns() * 1000 + number, version=4))
        tenant = f"busy{number % 10}"
        await storage.append(tenant, name, _now(), "visit.started", {})
        done = 0.0
        while done < until:  # at least one, however busy the machine
            began = time.perf_counter()
            await storage.append(tenant, name, _now(), "note", {"text": "x" * 100})
            done = time.perf_counter()
            took.append(done - began)

    began = time.perf_counter()
    await asyncio.gather(*(visit(number) for number in range(at_once)))
    return {"a_second": len(took) / (time.perf_counter() - began), **_ms(took)}


def _now() -> str:
    return stamp(datetime.now(UTC))


def _ms(took: list[float]) -> dict[str, float]:
    ordered = sorted(took)
    return {"p50_ms": median(ordered) * 1000, "p95_ms": ordered[int(len(ordered) * 0.95)] * 1000}


async def looks(look: Callable[[int], Awaitable[object]]) -> dict[str, float]:
    """How long one takes, the first not counted: it prepares the statement."""
    await look(0)
    took = []
    for number in range(1, LOOKS + 1):
        began = time.perf_counter()
        await look(number)
        took.append(time.perf_counter() - began)
    return _ms(took)


Looks = dict[str, Callable[[int], Awaitable[object]]]


async def call_looks(storage: SqlStorage, visits: int) -> Looks:
    """What a call looks up, or waits for."""
    directory = await storage.catalogue.directory(LARGE)
    assert directory is not None
    apartment = directory.directory.apartments[-1]
    resident = apartment.residents[0]
    middle = stamp(START + visits * EVERY / 2)

    async def asked(number: int) -> None:
        match = directory.directory.find_apartment("é no apartamento cento e vinte e cinco, por favor")
        assert match.apartment == apartment
        assert directory.directory.match_resident(apartment, resident).resident == resident

    return {
        "apartment and resident, in memory": asked,
        "what its tenant spent": lambda n: storage.spending(f"t{n}", middle),
        "its tenant's directory, when it was changed": lambda n: storage.catalogue.directory(f"t{n}"),
    }


async def review_looks(storage: SqlStorage, visits: int) -> Looks:
    """What the review asks for: pages of fifty, and one visit."""
    some = [each.id for each in await storage.visits(limit=LOOKS + 1, offset=visits // 2)]
    middle = stamp(START + visits * EVERY / 2)
    hundred = tuple(f"t{number}" for number in range(0, TENANTS, max(1, TENANTS // 100)))

    def of_visits(**wanted: Any) -> Callable[[int], Awaitable[object]]:
        return lambda number: storage.visit_page(VisitFilter(**wanted), limit=50)

    def of_records(**wanted: Any) -> Callable[[int], Awaitable[object]]:
        return lambda number: storage.record_page(RecordFilter(**wanted), limit=50)

    return {
        "a whole visit": lambda n: storage.visit(some[n]),
        "visits: all": of_visits(),
        "visits: denied": of_visits(outcomes=("denied",), decision="denied"),
        "visits: of a visitor": of_visits(visitor="sonia goneira"),
        "visits: of a name that nobody has": of_visits(visitor="ninguem"),
        "visits: judged wrong, which none is": of_visits(verdict="wrong"),
        "visits: with a tool, of a name that nobody has": of_visits(tool=CALL["name"], visitor="ninguem"),
        "visits of a tenant: of a visitor": of_visits(tenants=(LARGE,), visitor="ana"),
        "visits of a tenant: an apartment, by time": of_visits(
            tenants=(LARGE,), apartment="501", since=middle
        ),
        "visits of a tenant: with a tool": of_visits(tenants=(LARGE,), tool=CALL["name"]),
        "visits of a hundred tenants: denied": of_visits(tenants=hundred, decision="denied"),
        "records: all": of_records(),
        "records: decisions, by time": of_records(kinds=("decision",), until=middle),
        "records: of visits that failed, which none did": of_records(outcomes=("failed",)),
        "records: of a visitor": of_records(visitor="sonia goneira"),
        "records of a tenant: of a tool": of_records(tenants=(LARGE,), tool=CALL["name"]),
        "records of a tenant: of a visitor": of_records(tenants=(LARGE,), visitor="ana"),
        "records of a tenant: of a kind that it has none of": of_records(
            tenants=(LARGE,), kinds=("visit.reviewed",)
        ),
        "records of a hundred tenants: all": of_records(tenants=hundred),
    }


async def measure(storage: SqlStorage, visits: int) -> dict[str, Any]:
    """All figures but those of `verify`."""
    found: dict[str, Any] = {"appends": {}}
    for name, made in (("call", call_looks), ("review", review_looks)):
        found[name] = {what: await looks(look) for what, look in (await made(storage, visits)).items()}
    for at_once in AT_ONCE:
        found["appends"][str(at_once)] = await appends(storage, at_once, APPENDS_S)
    return found


async def run(names: Sequence[str], records: int) -> dict[str, dict[str, Any]]:
    """Fill databases and measure them, one after the other.

    Args:
        names: URLs, or :data:`SQLITE` and :data:`POSTGRESQL` for new ones that are gone afterwards.
        records: how many they are filled with.
    """
    found = {}
    for name in names:
        async with _database(name) as database:
            found[name if name in NEW else str(database)] = await measure_database(database, records)
    return found


@asynccontextmanager
async def _database(name: str) -> AsyncIterator[Database]:
    if name == SQLITE:
        with tempfile.TemporaryDirectory(prefix="porteiro-bench-") as place:
            yield Database(file=Path(place) / "porteiro.db")
    elif name == POSTGRESQL:
        server = Postgres(SERVER)
        try:
            server.start()
            await server.make_template()
            yield Database(url=await server.make())
        finally:
            server.stop()
    else:
        yield database_of(name)


async def measure_database(database: Database, records: int) -> dict[str, Any]:
    """Fill a database where it is empty, and measure it.

    Raises:
        ValueError: it holds somebody's records: measuring would write to their log.
    """
    visits = records // len(VISIT)
    await upgrade(database, 60)
    began = time.perf_counter()
    async with await open_storage(database, deadline_s=120) as storage:
        filled = await storage.heads()
    if others := [name for name in filled if not MADE.fullmatch(name)]:
        raise ValueError(
            f"{database}: found records of tenant {others[0]!r}; allowed: none, or this command's"
        )
    if not filled:
        if database.file is None:
            await fill_postgres(database, visits)
        else:
            await asyncio.to_thread(fill_sqlite, database.file, visits)
    async with await open_storage(database, deadline_s=120) as storage:
        if not filled:
            await fill_directories(storage)
        filled_s = time.perf_counter() - began
        found = await measure(storage, visits)
        records = sum(head.seq for head in (await storage.heads()).values())
    found["verify"] = {str(n): await _verified(database, n, records) for n in PROCESSES}
    return {"records": records, "filled_s": None if filled else filled_s, "load": os.getloadavg()[1], **found}


async def _verified(database: Database, processes: int, records: int) -> dict[str, float]:
    """Records a second of so many processes, and the CPU that each record cost them.

    The CPU tells more where others share the machine. PostgreSQL's own is not in it.
    """
    began, cpu = time.perf_counter(), _cpu_s()
    assert await verify_all(database, processes) == []
    return {
        "a_second": records / (time.perf_counter() - began),
        "cpu_us": (_cpu_s() - cpu) / records * 1e6,
    }


def _cpu_s() -> float:
    """CPU time of this process, and of those that it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def missed(found: Mapping[str, Any]) -> list[str]:
    """Which goals a database missed."""
    slow = [
        f"{what}: {one['p95_ms']:.0f} ms, allowed are {goal}"
        for name, goal in GOALS_MS.items()
        for what, one in found[name].items()
        if one["p95_ms"] > goal
    ]
    quickest = max(one["a_second"] for one in found["verify"].values())
    if quickest < VERIFIED_A_SECOND:
        slow.append(f"verify: {quickest:,.0f} records a second, allowed are {VERIFIED_A_SECOND:,} or more")
    return slow


def show(all_found: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    """As a table, the databases side by side."""
    console.print(
        f"{TENANTS:,} tenants, {2 * APARTMENTS * TENANTS:,} residents, {PROCESSES[-1]} CPUs; milliseconds, "
        "p50 and p95"
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for name in all_found:
        table.add_column(name, justify="right")

    every = list(all_found.values())
    table.add_row("records", *(f"{found['records']:,}" for found in every))
    table.add_row("filled in, s", *("–" if (s := f["filled_s"]) is None else f"{s:.0f}" for f in every))
    table.add_row("load", *(f"{found['load']:.1f}" for found in every))
    for name in GOALS_MS:
        for what in every[0][name]:
            table.add_row(f"{name}: {what}", *(_two(found[name][what]) for found in every))
    for number in every[0]["appends"]:
        ones = [found["appends"][number] for found in every]
        words = f"append, {number} at once; a second"
        table.add_row(words, *(f"{_two(one)}; {one['a_second']:,.0f}" for one in ones))
    for number in every[0]["verify"]:
        ones = [found["verify"][number] for found in every]
        words = f"verify, {number} processes: µs of CPU a record; a second"
        table.add_row(words, *(f"{one['cpu_us']:.1f}; {one['a_second']:,.0f}" for one in ones))
    console.print(table)
    for name, found in all_found.items():
        for complaint in missed(found):
            console.print(f"missed: {name}: {complaint}")


def _two(one: Mapping[str, float]) -> str:
    return f"{one['p50_ms']:.1f}, {one['p95_ms']:.1f}"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.storage", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "database", nargs="*", default=NEW, help="a URL; sqlite: a new file; postgresql: a server of its own"
    )
    parser.add_argument("--records", type=int, default=RECORDS, help=f"default {RECORDS}")
    parser.add_argument("--json", action="store_true", help="the figures as JSON")
    arguments = parser.parse_args()
    try:
        found = uvloop.run(run(arguments.database, arguments.records))
    except (NoPostgres, StorageError, ValueError) as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 2
    if arguments.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        show(found, Console(highlight=False, width=None if sys.stdout.isatty() else 200))
    return 1 if any(map(missed, found.values())) else 0


if __name__ == "__main__":
    sys.exit(main())
