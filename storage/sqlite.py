"""Storage in one SQLite file: nothing to install, durable at every commit, readable beside the service."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from storage.base import (
    DecisionView,
    LegView,
    Spending,
    Storage,
    StorageRefused,
    StorageUnavailable,
    ToolCallView,
    TurnView,
    VisitSummary,
    VisitView,
)
from storage.projection import project
from storage.rebuild import Rebuild, visits_after
from storage.schema import connect, migrations
from storage.worker import Worker
from visits.audit import Anchors, AuditError, AuditRecord, Draft, Fault, Head, Verifier, decode, draft, intact

T = TypeVar("T")

PAGE: Final = 500
"""Records read at once: a few milliseconds, in which no write is done."""

VISITS_PAGE: Final = 10
"""Visits compared at once, likewise."""

_RECORD: Final = "SELECT seq, tenant, visit, at, kind, data, previous, hash FROM audit"
_SUMMARY: Final = (
    "SELECT v.id, v.tenant, v.started_at, v.ended_at, v.outcome, v.reason, v.provider, v.intent,"
    " v.visitor_name, v.apartment, v.resident, d.decision, v.gate_requested_at, v.gate_answered_at,"
    " v.gate_opened, v.gate_detail, v.cost, v.currency, v.cost_complete"
    " FROM visits v LEFT JOIN decisions d ON d.visit = v.id"
)


class SqliteStorage(Storage):
    """See :class:`storage.base.Storage`. Made by :meth:`open`."""

    def __init__(self, path: Path, worker: Worker, *, read_only: bool, deadline_s: float) -> None:
        """Use :meth:`open`."""
        self.path = path
        self._worker = worker
        self._read_only = read_only
        self._deadline_s = deadline_s

    @classmethod
    async def open(
        cls, path: Path, *, read_only: bool = False, deadline_s: float = 5.0, busy_s: float = 2.0
    ) -> Self:
        """Open the database at ``path``; without ``read_only`` make it, or bring it up to date.

        Args:
            path: the file; ``-wal`` and ``-shm`` files appear beside it.
            read_only: never writes; works beside a running service.
            deadline_s: seconds that any operation may take, opening included.
            busy_s: seconds to wait for another process that is writing; less than ``deadline_s``.

        Raises:
            StorageUnavailable: missing, not ours, of another version, full, read-only …
            StorageTimeout: it took longer than the deadline.
        """
        scripts = migrations()
        worker = Worker(path, lambda: connect(path, read_only=read_only, busy_s=busy_s, scripts=scripts))
        await worker.start(deadline_s)
        return cls(path, worker, read_only=read_only, deadline_s=deadline_s)

    async def __aenter__(self) -> Self:
        """The store itself; it is closed at the end of the block."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.close()

    async def close(self) -> None:
        """See :meth:`Storage.close`."""
        await self._worker.stop(self._deadline_s)

    # ---- writing ---------------------------------------------------------------------------------------

    async def append(
        self, tenant: str, visit: str, at: str, kind: str, data: Mapping[str, object]
    ) -> AuditRecord:
        """See :meth:`Storage.append`. Appends that wait at the same time share one commit."""
        # Checked and copied here, in the caller's task: nobody can change the data while it waits.
        record = _draft(tenant, visit, at, kind, data)
        return await self._write(partial(_append, record=record))

    async def recover(
        self,
        at: str,
        tenants: Collection[str] | None = None,
        *,
        visits: Collection[str] | None = None,
        why: str = "the service ended while the visit was running",
    ) -> list[str]:
        """See :meth:`Storage.recover`. All in one transaction."""
        only = None if visits is None else frozenset(visits)
        return await self._write(partial(_recover, at=at, tenants=tenants, visits=only, why=why))

    # ---- reading ---------------------------------------------------------------------------------------

    async def visits(
        self,
        *,
        tenant: str | None = None,
        since: str | None = None,
        until: str | None = None,
        outcome: str | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[VisitSummary]:
        """See :meth:`Storage.visits`."""
        where, values = _where(
            {
                "v.tenant = ?": tenant,
                "v.started_at >= ?": since,
                "v.started_at < ?": until,
                "v.outcome = ?": outcome,
            }
        )
        sql = f"{_SUMMARY}{where} ORDER BY v.started_at DESC, v.id LIMIT ? OFFSET ?"
        return await self._read(partial(_summaries, sql=sql, values=[*values, limit, offset]))

    async def spending(self, tenant: str, since: str) -> list[Spending]:
        """See :meth:`Storage.spending`."""
        sql = (
            "SELECT currency, sum(cost), sum(cost_usd), count(*) FROM visits"
            " WHERE tenant = ? AND started_at >= ? AND cost IS NOT NULL GROUP BY currency ORDER BY currency"
        )
        rows = await self._rows(sql, [tenant, since])
        return [Spending(row[0], _amount(row[1]), _amount(row[2]), row[3]) for row in rows]

    async def visit(self, visit_id: str) -> VisitView | None:
        """See :meth:`Storage.visit`."""
        return await self._read(partial(_view, visit=visit_id))

    async def visit_exists(self, visit_id: str) -> bool:
        """See :meth:`Storage.visit_exists`."""
        return bool(await self._rows("SELECT 1 FROM visits WHERE id = ?", [visit_id]))

    async def find_visits(self, prefix: str, limit: int = 10) -> list[str]:
        """See :meth:`Storage.find_visits`."""
        # A range, not LIKE: it uses the key, and no character of the prefix means anything.
        sql = "SELECT id FROM visits WHERE id >= ? AND id < ? ORDER BY id LIMIT ?"
        return [row[0] for row in await self._rows(sql, [prefix, prefix + "\U0010ffff", limit])]

    async def audit(
        self,
        *,
        tenant: str | None = None,
        visit: str | None = None,
        since: str | None = None,
        until: str | None = None,
        kinds: Collection[str] | None = None,
    ) -> AsyncIterator[AuditRecord]:
        """See :meth:`Storage.audit`."""
        conditions: dict[str, object] = {
            "tenant = ?": tenant,
            "visit = ?": visit,
            "at >= ?": since,
            "at < ?": until,
        }
        if kinds is not None:
            conditions["kind IN (SELECT value FROM json_each(?))"] = json.dumps(sorted(kinds))
        last = ("", 0)
        while True:
            where, values = _where({**conditions, "(tenant, seq) > (?, ?)": last})
            rows = await self._rows(f"{_RECORD}{where} ORDER BY tenant, seq LIMIT {PAGE}", values)
            for row in rows:
                yield _record(row)
            if len(rows) < PAGE:
                return
            last = (rows[-1][1], rows[-1][0])

    async def tenants(self) -> list[str]:
        """See :meth:`Storage.tenants`."""
        return list(await self.heads())

    async def heads(self) -> dict[str, Head]:
        """See :meth:`Storage.heads`."""
        return await self._read(_heads)

    async def open_visits(self, tenants: Collection[str] | None = None) -> list[VisitSummary]:
        """See :meth:`Storage.open_visits`."""
        return await self._read(partial(_open_visits, tenants=tenants))

    async def verify(
        self, tenant: str | None = None, *, expected_heads: Mapping[str, Anchors] | None = None
    ) -> list[Fault]:
        """See :meth:`Storage.verify`. Beside a running service: it reads in pages, each at one moment."""
        # The notes before the chains: those may grow meanwhile, and a note that is too old is no fault.
        anchors, faults = await self._read(_noted_heads)
        for name, heads in (expected_heads or {}).items():
            anchors.setdefault(name, set()).update((heads,) if isinstance(heads, Head) else heads or ())
        chains = sorted({*await self.tenants(), *anchors}) if tenant is None else [tenant]
        for chain in chains:
            faults += await self._verify_chain(chain, anchors.get(chain, set()))
        faults += [fault for fault in await self._read(_unnoted) if fault.tenant in chains]
        return faults + await self._verify_rows(tenant)

    async def _verify_chain(self, tenant: str, anchors: Collection[Head]) -> list[Fault]:
        verifier = Verifier(tenant, anchors)
        seq: int | None = -(2**63)  # whatever someone put there, below 1 too
        while seq is not None:
            seq = await self._read(partial(_verify_page, tenant=tenant, after=seq, verifier=verifier))
        return verifier.finish()

    async def _verify_rows(self, tenant: str | None) -> list[Fault]:
        faults: list[Fault] = []
        last: str | None = ""
        while last is not None:
            last, found = await self._read(partial(_compare_page, after=last))
            faults += [fault for fault in found if tenant in (None, fault.tenant)]
        return faults

    # ---- both ------------------------------------------------------------------------------------------

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._read_only:
            raise StorageUnavailable("read-only", f"{self.path} was opened for reading only")
        return await self._worker.run(work, write=True, deadline_s=self._deadline_s)

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._worker.run(work, write=False, deadline_s=self._deadline_s)

    async def _rows(self, sql: str, values: list[object]) -> list[tuple[Any, ...]]:
        return await self._read(lambda connection: connection.execute(sql, values).fetchall())


# --------------------------------------------------------------------------------------------------------
# In the worker's thread
# --------------------------------------------------------------------------------------------------------


def _draft(tenant: str, visit: str, at: str, kind: str, data: Mapping[str, object]) -> Draft:
    try:
        return draft(tenant=tenant, visit=visit, at=at, kind=kind, data=data)
    except AuditError as error:
        raise StorageRefused(str(error)) from error


def _append(connection: sqlite3.Connection, record: Draft) -> AuditRecord:
    # BEGIN IMMEDIATE came before this: no other process can put a record behind the head that is read here.
    head = connection.execute(
        "SELECT seq, hash FROM audit WHERE tenant = ? ORDER BY seq DESC LIMIT 1", (record.tenant,)
    ).fetchone()
    sealed = record.sealed(Head(*head) if head else None)
    project(connection, record, sealed.seq)
    connection.execute(
        "INSERT INTO audit (seq, tenant, visit, at, kind, data, previous, hash)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            sealed.seq,
            sealed.tenant,
            sealed.visit,
            sealed.at,
            sealed.kind,
            record.text,
            sealed.previous,
            sealed.hash,
        ),
    )
    return sealed


def _recover(
    connection: sqlite3.Connection,
    at: str,
    tenants: Collection[str] | None,
    visits: Collection[str] | None,
    why: str,
) -> list[str]:
    open_ = [each for each in _open_visits(connection, tenants) if visits is None or each.id in visits]
    for visit in open_:
        if visit.gate_requested_at is None:
            gate = "untouched"
        elif visit.gate_opened is None:
            gate = "unknown"
        else:
            gate = "opened" if visit.gate_opened else "refused"
        for kind, data in (
            ("visit.recovered", {"reason": why, "gate": gate}),
            ("visit.ended", {"outcome": "failed", "reason": "recovered"}),
        ):
            _append(connection, _draft(visit.tenant, visit.id, at, kind, data))
    return [visit.id for visit in open_]


def _where(conditions: Mapping[str, object]) -> tuple[str, list[object]]:
    """The WHERE of all conditions that have a value, and the values (a tuple fills several places)."""
    used = {text: value for text, value in conditions.items() if value is not None}
    values: list[object] = []
    for value in used.values():
        values += value if isinstance(value, tuple) else [value]
    return (" WHERE " + " AND ".join(used) if used else ""), values


def _record(row: tuple[Any, ...]) -> AuditRecord:
    seq, tenant, visit, at, kind, data, previous, own = row
    return AuditRecord(seq, tenant, visit, at, kind, decode(data), previous, own)


def _verify_page(connection: sqlite3.Connection, tenant: str, after: int, verifier: Verifier) -> int | None:
    """Check the next page of a chain. The number to go on after; None at the end."""
    sql = f"{_RECORD} WHERE tenant = ? AND seq > ? ORDER BY seq LIMIT {PAGE}"
    rows = connection.execute(sql, (tenant, after)).fetchall()
    for row in rows:
        verifier.feed(_record(row))
    return rows[-1][0] if len(rows) == PAGE else None


def _heads(connection: sqlite3.Connection) -> dict[str, Head]:
    # Hops from tenant to tenant along the key, instead of reading every record for a GROUP BY.
    sql = (
        "WITH RECURSIVE names(name) AS (SELECT min(tenant) FROM audit UNION ALL"
        " SELECT (SELECT min(tenant) FROM audit WHERE tenant > name) FROM names WHERE name IS NOT NULL)"
        " SELECT name, seq, hash FROM names JOIN audit ON tenant = name"
        " AND seq = (SELECT max(seq) FROM audit WHERE tenant = name)"
    )
    return {name: Head(seq, own) for name, seq, own in connection.execute(sql)}


@contextmanager
def _one_moment(connection: sqlite3.Connection) -> Iterator[None]:
    """All that is read inside is of the same moment, whoever writes meanwhile."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")


def _noted_heads(connection: sqlite3.Connection) -> tuple[dict[str, set[Head]], list[Fault]]:
    """The heads that the database notes itself, by tenant: in a table, and in the service's own chain."""
    noted: dict[str, set[Head]] = {}
    faults = []
    for name, seq, own in connection.execute("SELECT tenant, seq, hash FROM heads"):
        noted.setdefault(name, set()).add(Head(seq, own))
    starts = f"{_RECORD} WHERE tenant = '' AND kind IN ('service.started', 'service.stopped') ORDER BY seq"
    for record in map(_record, connection.execute(starts)):
        try:
            heads = record.data.get("heads", {}).items() if intact(record) else ()
            for name, text in heads:
                noted.setdefault(name, set()).add(Head.parse(text))
        except (AuditError, AttributeError, TypeError):
            detail = "the heads that it notes are none: no service wrote it"
            faults.append(Fault("impossible", "", record.seq, record.seq, "", detail))
    return noted, faults


def _unnoted(connection: sqlite3.Connection) -> list[Fault]:
    """Ends of chains that the table of heads does not know of."""
    with _one_moment(connection):
        noted = dict(connection.execute("SELECT tenant, seq FROM heads").fetchall())
        ends = _heads(connection)
    return [
        Fault(
            "forged",
            name,
            noted.get(name, 0) + 1,
            head.seq,
            "",
            "the table of heads does not know of them: they came another way, or somebody changed that table",
        )
        for name, head in ends.items()
        if head.seq > noted.get(name, 0)
    ]


def _compare_page(connection: sqlite3.Connection, after: str) -> tuple[str | None, list[Fault]]:
    """Compare the next visits with their records. The visit to go on after, None at the end; the faults."""
    faults: list[Fault] = []
    # The rebuild begins and ends here, in this thread: whoever asked may have given up meanwhile.
    with _one_moment(connection), closing(Rebuild(migrations())) as rebuild:
        visits = visits_after(connection, after, VISITS_PAGE)
        for visit in visits:
            rows = connection.execute(f"{_RECORD} WHERE visit = ? ORDER BY tenant, seq", (visit,))
            faults += rebuild.compare(connection, visit, [_record(row) for row in rows])
    return (visits[-1] if len(visits) == VISITS_PAGE else None), faults


def _summaries(connection: sqlite3.Connection, sql: str, values: list[object]) -> list[VisitSummary]:
    return [_summary(row) for row in connection.execute(sql, values)]


def _summary(row: tuple[Any, ...]) -> VisitSummary:
    values = list(row)
    values[14] = None if row[14] is None else bool(row[14])
    values[16] = None if row[16] is None else f"{_amount(row[16]):f}"
    values[18] = None if row[18] is None else bool(row[18])
    return VisitSummary(*values)


def _amount(billionths: int) -> Decimal:
    return Decimal(billionths).scaleb(-9)


def _open_visits(connection: sqlite3.Connection, tenants: Collection[str] | None) -> list[VisitSummary]:
    conditions: dict[str, object] = {}
    if tenants is not None:
        conditions["v.tenant IN (SELECT value FROM json_each(?))"] = json.dumps(sorted(tenants))
    where, values = _where(conditions)
    clause = f"{where} AND v.ended_at IS NULL" if where else " WHERE v.ended_at IS NULL"
    return _summaries(connection, f"{_SUMMARY}{clause} ORDER BY v.started_at, v.id", values)


def _view(connection: sqlite3.Connection, visit: str) -> VisitView | None:
    found = _summaries(connection, f"{_SUMMARY} WHERE v.id = ?", [visit])
    if not found:
        return None
    decision = connection.execute(
        "SELECT decision, evidence, reason, at, seq FROM decisions WHERE visit = ?", (visit,)
    ).fetchone()
    return VisitView(
        summary=found[0],
        legs=_legs(connection, visit),
        turns=_turns(connection, visit),
        tool_calls=_tool_calls(connection, visit),
        decision=None
        if decision is None
        else DecisionView(decision[0], json.loads(decision[1]), *decision[2:]),
    )


def _legs(connection: sqlite3.Connection, visit: str) -> tuple[LegView, ...]:
    sql = (
        "SELECT leg, role, endpoint, peer, provider, connected_at, ended_at, reason, recording"
        " FROM legs WHERE visit = ? ORDER BY seq"
    )
    return tuple(LegView(*row) for row in connection.execute(sql, (visit,)))


def _turns(connection: sqlite3.Connection, visit: str) -> tuple[TurnView, ...]:
    sql = (
        "SELECT t.seq, t.leg, l.role, t.speaker, t.text, t.started_ms, t.ended_ms, t.response_ms,"
        " t.interrupted, t.heard_ms"
        " FROM turns t LEFT JOIN legs l ON l.visit = t.visit AND l.leg = t.leg"
        " WHERE t.visit = ? ORDER BY t.started_ms, t.seq"
    )
    rows = [[*row[:8], bool(row[8]), row[9]] for row in connection.execute(sql, (visit,))]
    return tuple(TurnView(*row) for row in rows)


def _tool_calls(connection: sqlite3.Connection, visit: str) -> tuple[ToolCallView, ...]:
    sql = (
        "SELECT c.seq, c.leg, l.role, c.call, c.name, c.arguments, c.called_at, c.answered_at, c.result,"
        " c.ms, c.status FROM tool_calls c LEFT JOIN legs l ON l.visit = c.visit AND l.leg = c.leg"
        " WHERE c.visit = ? ORDER BY c.seq"
    )
    return tuple(_tool_call(row) for row in connection.execute(sql, (visit,)))


def _tool_call(row: tuple[Any, ...]) -> ToolCallView:
    seq, leg, role, call, name, arguments, called_at, answered_at, result, ms, status = row
    answer = None if result is None else json.loads(result)
    return ToolCallView(
        seq, leg, role, call, name, json.loads(arguments), called_at, answered_at, answer, ms, status
    )
