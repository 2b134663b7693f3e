"""The store's operations, written once for SQLite and PostgreSQL: each is a step that either carries out."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from functools import cache, partial
from itertools import pairwise
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar

from storage.base import (
    Counted,
    DecisionView,
    Due,
    Erasure,
    LegView,
    ResponseTime,
    ReviewView,
    Spending,
    Storage,
    StorageRefused,
    ToolCallView,
    TurnView,
    VisitSummary,
    VisitView,
)
from storage.catalogue import Catalogue
from storage.erasing import (
    PersonalCheck,
    back_between,
    counted,
    due,
    erased,
    erasures_between,
    erasures_of,
)
from storage.figures import Figures, add_figures, stretches
from storage.filters import RecordFilter, VisitFilter
from storage.lists import records_on_page, visits_on_page
from storage.paging import Page
from storage.projection import TABLES, in_database
from storage.rebuild import compare
from storage.records import BESIDE, INSERT, INSERT_PERSONAL, RECORD, SEALED
from storage.scan import AT_ONCE, Kept, Scan
from storage.steps import LockChain, Rows, Sql, Step, where
from visits.audit import (
    Anchors,
    AuditError,
    AuditRecord,
    Draft,
    ErasedScope,
    Fault,
    Head,
    StoredRecord,
    Verifier,
    draft,
    intact,
)
from visits.personal import SALT_BYTES

if TYPE_CHECKING:
    from storage.outbox import Outbox

T = TypeVar("T")

PAGE: Final = 500
"""Records read at once: a few milliseconds, in which SQLite does no write."""

VISITS_PAGE: Final = 20
"""Visits compared at once, likewise."""

ALONE: Final = 20
"""How many times as much PostgreSQL's store reads at once that was opened for reading only: fewer rounds.

SQLite's has none to spare, and what fits a processor's cache is read a fifth quicker.
"""

LAST: Final = "\U0010ffff"
"""Behind every visit's id."""

CUTS: Final = ("", *"123456789abcdef", LAST)
"""Of the visits' ids, which are UUIDs: sixteen parts of one size."""

_SUMMARY: Final = (
    "SELECT v.id, v.tenant, v.started_at, v.ended_at, v.outcome, v.reason, v.provider, v.intent,"
    " v.visitor_name, v.apartment, v.resident, v.decision, v.gate_requested_at, v.gate_answered_at,"
    " v.gate_opened, v.gate_detail, v.cost, v.currency, v.cost_complete, v.verdict FROM visits v"
)

Heads = dict[str, Head | None]
"""The ends of the chains that a transaction has locked, as far as it has come."""

Write = Callable[[Heads], Step[T]]
"""Begins a step that appends; called anew where its transaction has to be repeated."""


class SqlStorage(Storage):
    """See :class:`storage.base.Storage`. What a database has to add is below the last line."""

    _at_once: int = 1
    """How many pages `verify` reads at once."""

    async def __aenter__(self) -> Self:
        """The store itself; it is closed at the end of the block."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.close()

    @property
    def catalogue(self) -> Catalogue:
        """See :attr:`Storage.catalogue`."""
        from storage.catalogue_store import SqlCatalogue  # it rests on this file

        return SqlCatalogue(self)

    @property
    def outbox(self) -> Outbox:
        """See :attr:`Storage.outbox`."""
        from storage.outbox import Outbox  # it rests on this file

        return Outbox(self)

    # ---- writing ---------------------------------------------------------------------------------------

    async def append(
        self, tenant: str, visit: str, at: str, kind: str, data: Mapping[str, object]
    ) -> AuditRecord:
        """See :meth:`Storage.append`. Appends that wait at the same time share one commit."""
        # Checked and copied here, in the caller's task: nobody can change the data while it waits.
        record = self._checked(tenant, visit, at, kind, data)
        return await self._write(partial(appended, record), (tenant,))

    def _checked(self, tenant: str, visit: str, at: str, kind: str, data: Mapping[str, object]) -> Draft:
        if self.service is not None and kind == "visit.started":
            data = {**data, "service": self.service}
        return checked(tenant, visit, at, kind, data, salt=token_hex(SALT_BYTES))

    async def recover(
        self,
        at: str,
        tenants: Collection[str] | None = None,
        *,
        visits: Collection[str] | None = None,
        services: Collection[str] | None = None,
        why: str = "the service ended while the visit was running",
    ) -> list[str]:
        """See :meth:`Storage.recover`. All in one transaction."""
        chains = await self.tenants() if tenants is None else tenants
        only = None if visits is None else frozenset(visits)
        return await self._write(partial(_recovered, at, tenants, only, services, why), tuple(sorted(chains)))

    async def erase(
        self,
        tenant: str,
        visits: Collection[str],
        *,
        scope: ErasedScope,
        kind: Literal["person.erased", "retention.carried_out"],
        by: str,
        at: str,
        more: Mapping[str, str] | None = None,
    ) -> Counted:
        """See :meth:`Storage.erase`. All in one transaction."""
        write = partial(_erased, tenant, tuple(visits), scope, kind, by, at, dict(more or {}))
        return await self._write(write, (tenant,))

    async def recording_removed(self, recording: str) -> None:
        """See :meth:`Storage.recording_removed`."""
        await self._write(partial(_recording_removed, recording), ())

    # ---- reading ---------------------------------------------------------------------------------------

    async def to_erase(self, tenant: str, visits: Collection[str], scope: ErasedScope) -> Counted:
        """See :meth:`Storage.to_erase`."""
        return await self._read(partial(counted, tenant, tuple(visits), scope))

    async def due(self, tenant: str, scope: ErasedScope, before: str, after: tuple[str, str]) -> Due:
        """See :meth:`Storage.due`."""
        return await self._read(partial(due, tenant, scope, before, after))

    async def erasures(self, visit_id: str) -> list[Erasure]:
        """See :meth:`Storage.erasures`."""
        return await self._read(partial(erasures_of, visit_id))

    async def erased_visits(self, tenant: str | None = None) -> int:
        """See :meth:`Storage.erased_visits`."""
        clause, values = where((("tenant = ?", tenant),))
        return int((await self._rows(f"SELECT count(DISTINCT visit) FROM erasures{clause}", values))[0][0])

    async def recordings_to_remove(self, service: str | None) -> list[str]:
        """See :meth:`Storage.recordings_to_remove`."""
        sql = "SELECT recording FROM recordings_to_remove WHERE service IS NULL OR service = $1"
        return [row[0] for row in await self._rows(f"{sql} ORDER BY recording", (service,))]

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
        clause, values = where(
            (
                ("v.tenant = ?", tenant),
                ("v.started_at >= ?", since),
                ("v.started_at < ?", until),
                ("v.outcome = ?", outcome),
            )
        )
        places = f"LIMIT ${len(values) + 1} OFFSET ${len(values) + 2}"
        sql = f"{_SUMMARY}{clause} ORDER BY v.started_at DESC, v.id {places}"
        return [_summary(row) for row in await self._rows(sql, (*values, limit, offset))]

    async def visit_page(
        self, wanted: VisitFilter, *, after: str | None = None, limit: int = 50
    ) -> Page[VisitSummary]:
        """See :meth:`Storage.visit_page`."""
        return await self._read(partial(_visit_page, wanted, after, limit))

    async def record_page(
        self, wanted: RecordFilter, *, after: str | None = None, limit: int = 50
    ) -> Page[AuditRecord]:
        """See :meth:`Storage.record_page`."""
        return await self._read(partial(_record_page, wanted, after, limit))

    async def spending(self, tenant: str, since: str) -> list[Spending]:
        """See :meth:`Storage.spending`."""
        rows = await self._rows(
            "SELECT currency, CAST(sum(cost) AS BIGINT), CAST(sum(cost_usd) AS BIGINT), count(*) FROM visits"
            " WHERE tenant = $1 AND started_at >= $2 AND cost IS NOT NULL"
            " GROUP BY currency ORDER BY currency",
            (tenant, since),
        )
        return [Spending(row[0], _amount(row[1]), _amount(row[2]), row[3]) for row in rows]

    async def response_times(self, tenant: str, visits: int) -> list[ResponseTime]:
        """See :meth:`Storage.response_times`."""
        rows = await self._rows(
            "SELECT l.provider, t.response_ms"
            " FROM (SELECT id FROM visits WHERE tenant = $1 ORDER BY started_at DESC LIMIT $2) v"
            " JOIN turns t ON t.visit = v.id JOIN legs l ON l.visit = t.visit AND l.leg = t.leg"
            " WHERE t.response_ms IS NOT NULL",
            (tenant, visits),
        )
        return [ResponseTime(*row) for row in rows]

    async def figures(self, tenants: Collection[str] | None, since: str, until: str) -> Figures:
        """See :meth:`Storage.figures`. Part by part: others have their turn in between."""
        figures = Figures()
        for begin, end in stretches(since, until):
            await self._read(partial(add_figures, figures, tenants, begin, end))
        return figures

    async def visit(self, visit_id: str) -> VisitView | None:
        """See :meth:`Storage.visit`."""
        return await self._read(partial(_view, visit_id))

    async def visit_exists(self, visit_id: str) -> bool:
        """See :meth:`Storage.visit_exists`."""
        return bool(await self._rows("SELECT 1 FROM visits WHERE id = $1", (visit_id,)))

    async def find_visits(self, prefix: str, limit: int = 10) -> list[str]:
        """See :meth:`Storage.find_visits`."""
        # A range, not LIKE: it uses the key, and no character of the prefix means anything.
        sql = "SELECT id FROM visits WHERE id >= $1 AND id < $2 ORDER BY id LIMIT $3"
        return [row[0] for row in await self._rows(sql, (prefix, prefix + LAST, limit))]

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
        conditions: list[tuple[str, Any]] = [
            ("a.tenant = ?", tenant),
            ("a.visit = ?", visit),
            ("a.at >= ?", since),
            ("a.at < ?", until),
            ("a.kind IN ?", None if kinds is None else tuple(sorted(kinds))),
        ]
        last = ("", 0)
        while True:
            clause, values = where([*conditions, ("(a.tenant, a.seq) > (?, ?)", last)])
            rows = await self._rows(f"{RECORD}{clause} ORDER BY a.tenant, a.seq LIMIT {PAGE}", values)
            for row in rows:
                yield StoredRecord(*row).read()
            if len(rows) < PAGE:
                return
            last = (rows[-1][1], rows[-1][0])

    async def tenants(self) -> list[str]:
        """See :meth:`Storage.tenants`."""
        return list(await self.heads())

    async def heads(self) -> dict[str, Head]:
        """See :meth:`Storage.heads`."""
        return await self._read(_heads)

    async def open_visits(
        self, tenants: Collection[str] | None = None, services: Collection[str] | None = None
    ) -> list[VisitSummary]:
        """See :meth:`Storage.open_visits`."""
        return await self._read(partial(_open_visits, tenants, services))

    async def verify(
        self, tenant: str | None = None, *, expected_heads: Mapping[str, Anchors] | None = None
    ) -> list[Fault]:
        """See :meth:`Storage.verify`. Beside a running service: it reads in pages, each at one moment."""
        anchors, faults = await self.anchors(expected_heads)
        chains = sorted({*await self.tenants(), *anchors}) if tenant is None else [tenant]
        if chains:
            faults += await self.verify_chains(chains[0], chains[-1], anchors)
        faults += [fault for fault in await self.verify_ends() if fault.tenant in chains]
        for after, last in pairwise(CUTS):
            faults += await self.verify_unfounded(after, last)
        return [fault for fault in dict.fromkeys(faults) if tenant in (None, fault.tenant)]

    async def anchors(
        self, expected: Mapping[str, Anchors] | None = None
    ) -> tuple[dict[str, set[Head]], list[Fault]]:
        """The heads that the database notes itself, with those of ``expected``; and what is wrong in them.

        Before the chains are read: those may grow meanwhile, and a note that is too old is no fault.
        """
        anchors, faults = await self._read(_noted_heads)
        for name, heads in (expected or {}).items():
            anchors.setdefault(name, set()).update((heads,) if isinstance(heads, Head) else heads or ())
        return anchors, faults

    async def verify_chains(
        self, first: str, last: str, anchors: Mapping[str, Collection[Head]]
    ) -> list[Fault]:
        """Check the chains from one tenant's to another's, what is beside them, and what follows from them.

        One after the other in one stream of records; what is not clear then is compared visit by visit.
        """
        scan = Scan({name: Verifier(name, heads) for name, heads in anchors.items() if first <= name <= last})
        after: tuple[str, int] | None = (first, -(2**63))  # whatever someone put there, below 1 too
        while after is not None:
            after = await self._read(partial(_scan_page, scan, after, last, PAGE * self._at_once))
        faults = scan.finish()
        faults += await self._read(partial(_personal_faults, scan.checks, first, last))
        return faults + await self._compared(sorted(scan.unclear - {""}))

    async def verify_ends(self) -> list[Fault]:
        """Ends of chains that the table of heads does not know of."""
        return await self._read(_unnoted)

    async def verify_unfounded(self, after: str, last: str) -> list[Fault]:
        """Rows of visits behind one id, up to another, that no record names."""
        return await self._compared(await self._read(partial(_unfounded, after, last)))

    async def _compared(self, visits: Sequence[str]) -> list[Fault]:
        """Compare visits with all their records, each at one moment."""
        faults: list[Fault] = []
        for start in range(0, len(visits), VISITS_PAGE):
            some = visits[start : start + VISITS_PAGE]
            faults += await self._read(partial(_compare_visits, some))
        return faults

    async def _rows(self, sql: str, values: tuple[Any, ...] = ()) -> Rows:
        return await self._read(partial(_only, Sql(sql, values)))

    # ---- what a database adds --------------------------------------------------------------------------

    @abstractmethod
    async def _write(self, write: Write[T], tenants: tuple[str, ...]) -> T:
        """Carry a step out in a transaction that appends to these chains; it is durable when this returns."""

    @abstractmethod
    async def _read(self, read: Callable[[], Step[T]]) -> T:
        """Carry a step out that only reads, all of it at one moment."""


# --------------------------------------------------------------------------------------------------------
# Steps that write
# --------------------------------------------------------------------------------------------------------


def checked(
    tenant: str, visit: str, at: str, kind: str, data: Mapping[str, object], *, salt: str | None = None
) -> Draft:
    """What is to be appended; see ``visits.audit.draft``. Raises :class:`StorageRefused`."""
    try:
        return draft(tenant=tenant, visit=visit, at=at, kind=kind, data=data, salt=salt)
    except AuditError as error:
        raise StorageRefused(str(error)) from error


def appended(record: Draft, heads: Heads) -> Step[AuditRecord]:
    """The record, sealed behind its chain's head and written with all that follows from it."""
    head = yield from locked(record.tenant, heads)
    sealed = record.sealed(head)
    yield from in_database(record, sealed.seq)
    fields = (sealed.seq, sealed.tenant, sealed.visit, sealed.at, sealed.kind, record.text)
    yield Sql(INSERT, (*fields, sealed.previous, sealed.hash), writes=True)
    if record.personal is not None:
        yield Sql(INSERT_PERSONAL, (sealed.tenant, sealed.seq, *record.personal), writes=True)
    heads[record.tenant] = Head(sealed.seq, sealed.hash)
    return sealed


def appended_once(record: Draft, heads: Heads) -> Step[AuditRecord | None]:
    """The same; nothing where just this record is there already: None."""
    yield from locked(record.tenant, heads)
    same = "SELECT 1 FROM audit WHERE visit = $1 AND tenant = $2 AND at = $3 AND kind = $4 AND data = $5"
    if (yield Sql(same, (record.visit, record.tenant, record.at, record.kind, record.text))):
        return None
    return (yield from appended(record, heads))


def locked(tenant: str, heads: Heads) -> Step[Head | None]:
    """The end of a chain that nobody else appends to any more."""
    if tenant not in heads:
        yield LockChain(tenant)
        last = "SELECT seq, hash FROM audit WHERE tenant = $1 ORDER BY seq DESC LIMIT 1"
        rows = yield Sql(last, (tenant,))
        heads[tenant] = Head(*rows[0]) if rows else None
    return heads[tenant]


def _erased(
    tenant: str,
    visits: tuple[str, ...],
    scope: ErasedScope,
    kind: str,
    by: str,
    at: str,
    more: Mapping[str, str],
    heads: Heads,
) -> Step[Counted]:
    yield from locked(tenant, heads)
    what = yield from counted(tenant, visits, scope)
    if what.visits:
        data = {"by": by, "scope": scope, "visits": list(what.visits), "removed": what.removed, **more}
        sealed = yield from appended(checked(tenant, "", at, kind, data), heads)
        yield from erased(tenant, what.visits, scope, sealed.seq, at)
    return what


def _recording_removed(recording: str, heads: Heads) -> Step[None]:
    yield Sql("DELETE FROM recordings_to_remove WHERE recording = $1", (recording,), writes=True)


def _recovered(
    at: str,
    tenants: Collection[str] | None,
    visits: Collection[str] | None,
    services: Collection[str] | None,
    why: str,
    heads: Heads,
) -> Step[list[str]]:
    found = yield from _open_visits(tenants, services)
    open_ = [each for each in found if visits is None or each.id in visits]
    # The chains first, in everybody's order; then what is still open, whoever closed it meanwhile.
    for tenant in sorted({each.tenant for each in open_}):
        yield from locked(tenant, heads)
    wanted = {each.id for each in open_}
    still = [each for each in (yield from _open_visits(tenants, services)) if each.id in wanted]
    for visit in still:
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
            yield from appended(checked(visit.tenant, visit.id, at, kind, data), heads)
    return [visit.id for visit in still]


# --------------------------------------------------------------------------------------------------------
# Steps that read
# --------------------------------------------------------------------------------------------------------


def _only(sql: Sql) -> Step[Rows]:
    return (yield sql)


def _summary(row: Any) -> VisitSummary:
    values = list(row)
    values[14] = None if row[14] is None else bool(row[14])
    values[16] = None if row[16] is None else f"{_amount(row[16]):f}"
    values[18] = None if row[18] is None else bool(row[18])
    return VisitSummary(*values)


def _amount(billionths: int) -> Decimal:
    return Decimal(billionths).scaleb(-9)


def _visit_page(wanted: VisitFilter, after: str | None, limit: int) -> Step[Page[VisitSummary]]:
    page = yield from visits_on_page(wanted, after, limit)
    clause, values = where((("v.id IN ?", tuple(id_ for _, id_ in page.items)),))
    rows = yield Sql(f"{_SUMMARY}{clause} ORDER BY v.started_at DESC, v.id DESC", values)
    return Page(tuple(_summary(row) for row in rows), page.next)


def _record_page(wanted: RecordFilter, after: str | None, limit: int) -> Step[Page[AuditRecord]]:
    page = yield from records_on_page(wanted, after, limit)
    if not page.items:
        return Page(())
    # No list of pairs: SQLite would read the whole log for one.
    keys = " OR ".join(f"(a.tenant = ${n} AND a.seq = ${n + 1})" for n in range(1, 2 * len(page.items), 2))
    rows = yield Sql(
        f"{RECORD} WHERE {keys} ORDER BY a.at DESC, a.tenant DESC, a.seq DESC",
        tuple(part for _, tenant, seq in page.items for part in (tenant, seq)),
    )
    return Page(tuple(StoredRecord(*row).read() for row in rows), page.next)


def _open_visits(
    tenants: Collection[str] | None, services: Collection[str] | None
) -> Step[list[VisitSummary]]:
    clause, values = where(
        (
            ("v.tenant IN ?", None if tenants is None else tuple(sorted(tenants))),
            ("v.service IN ?", None if services is None else tuple(sorted(services))),
        )
    )
    open_ = f"{clause} AND v.ended_at IS NULL" if clause else " WHERE v.ended_at IS NULL"
    rows = yield Sql(f"{_SUMMARY}{open_} ORDER BY v.started_at, v.id", values)
    return [_summary(row) for row in rows]


def _view(visit: str) -> Step[VisitView | None]:
    found = yield Sql(f"{_SUMMARY} WHERE v.id = $1", (visit,))
    if not found:
        return None
    legs = yield Sql(
        "SELECT leg, role, endpoint, peer, provider, connected_at, ended_at, reason, recording"
        " FROM legs WHERE visit = $1 ORDER BY seq",
        (visit,),
    )
    turns = yield Sql(
        "SELECT t.seq, t.leg, l.role, t.speaker, t.text, t.started_ms, t.ended_ms, t.response_ms,"
        " t.interrupted, t.heard_ms"
        " FROM turns t LEFT JOIN legs l ON l.visit = t.visit AND l.leg = t.leg"
        " WHERE t.visit = $1 ORDER BY t.started_ms, t.seq",
        (visit,),
    )
    calls = yield Sql(
        "SELECT c.seq, c.leg, l.role, c.call, c.name, c.arguments, c.called_at, c.answered_at, c.result,"
        " c.ms, c.status FROM tool_calls c LEFT JOIN legs l ON l.visit = c.visit AND l.leg = c.leg"
        " WHERE c.visit = $1 ORDER BY c.seq",
        (visit,),
    )
    decisions = yield Sql(
        "SELECT decision, evidence, reason, at, seq FROM decisions WHERE visit = $1", (visit,)
    )
    reviews = yield Sql("SELECT verdict, note, reviewer, at, seq FROM reviews WHERE visit = $1", (visit,))
    return VisitView(
        summary=_summary(found[0]),
        legs=tuple(LegView(*row) for row in legs),
        turns=tuple(_turn(*row) for row in turns),
        tool_calls=tuple(map(_tool_call, calls)),
        decision=next((DecisionView(d[0], json.loads(d[1]), d[2], d[3], d[4]) for d in decisions), None),
        review=next((ReviewView(*row) for row in reviews), None),
    )


def _turn(*row: Any) -> TurnView:
    values = list(row)
    values[8] = bool(row[8])
    return TurnView(*values)


def _tool_call(row: Any) -> ToolCallView:
    seq, leg, role, call, name, arguments, called_at, answered_at, result, ms, status = row
    answer = None if result is None else json.loads(result)
    return ToolCallView(
        seq, leg, role, call, name, json.loads(arguments), called_at, answered_at, answer, ms, status
    )


def _heads() -> Step[dict[str, Head]]:
    # Hops from tenant to tenant along the key, instead of reading every record for a GROUP BY.
    rows = yield Sql(
        "WITH RECURSIVE names(name) AS (SELECT min(tenant) FROM audit UNION ALL"
        " SELECT (SELECT min(tenant) FROM audit WHERE tenant > name) FROM names WHERE name IS NOT NULL)"
        " SELECT name, seq, hash FROM names JOIN audit ON tenant = name"
        " AND seq = (SELECT max(seq) FROM audit WHERE tenant = name) ORDER BY name"
    )
    return {name: Head(seq, own) for name, seq, own in rows}


# --------------------------------------------------------------------------------------------------------
# Steps that check
# --------------------------------------------------------------------------------------------------------


def _scan_page(scan: Scan, after: tuple[str, int], last: str, page: int) -> Step[tuple[str, int] | None]:
    """Check the next page of records. The tenant and number to go on after; None at the end."""
    rows = yield Sql(
        f"{SEALED} WHERE (a.tenant, a.seq) > ($1, $2) AND a.tenant <= $3"
        f" ORDER BY a.tenant, a.seq LIMIT {page}",
        (*after, last),
    )
    over = len(rows) < page
    until = (last, 2**63 - 1) if over else (rows[-1][1], rows[-1][0])
    beside = yield Sql(
        f"{BESIDE} WHERE (p.tenant, p.seq) > ($1, $2) AND (p.tenant, p.seq) <= ($3, $4)", (*after, *until)
    )
    scan.feed(rows, beside)
    if over:
        scan.end_of_chain()
    while visits := scan.ready(1 if over else AT_ONCE):
        scan.compare(visits, (yield from _rows_of(visits)))
    return None if over else (rows[-1][1], rows[-1][0])


def _rows_of(visits: list[str]) -> Step[Kept]:
    """The rows of at most so many visits, by table and visit."""
    wanted = tuple(visits + visits[-1:] * (AT_ONCE - len(visits)))  # always one and the same statement
    tables: dict[str, dict[str, list[Sequence[Any]]]] = {}
    for name in TABLES:
        of: dict[str, list[Sequence[Any]]] = {}
        for row in (yield Sql(_rows_in(name), wanted)):
            of.setdefault(row[0], []).append(row)
        tables[name] = of
    return tables


@cache
def _rows_in(table: str) -> str:
    """The rows of :data:`AT_ONCE` visits; the visit's column is the first of each table."""
    told = TABLES[table]
    places = ", ".join(f"${n}" for n in range(1, AT_ONCE + 1))
    columns, key = ", ".join(told.columns), ", ".join(told.key)
    return f"SELECT {columns} FROM {table} WHERE {told.key[0]} IN ({places}) ORDER BY {key}"


def _personal_faults(checks: Mapping[str, PersonalCheck], first: str, last: str) -> Step[list[Fault]]:
    """What is wrong beside the chains that were looked at."""
    kept = yield from erasures_between(first, last)
    back = yield from back_between(first, last)
    for tenant in {*kept, *back} - checks.keys():
        checks = {**checks, tenant: PersonalCheck(tenant)}
    faults = []
    for tenant in sorted(checks):
        faults += checks[tenant].finish(kept.get(tenant, ()), back.get(tenant, ()))
    return faults


def _noted_heads() -> Step[tuple[dict[str, set[Head]], list[Fault]]]:
    """The heads that the database notes itself, by tenant: in a table, and in the service's own chain."""
    noted: dict[str, set[Head]] = {}
    faults = []
    for name, seq, own in (yield Sql("SELECT tenant, seq, hash FROM heads")):
        noted.setdefault(name, set()).add(Head(seq, own))
    starts = f"{RECORD} WHERE a.tenant = '' AND a.kind IN ('service.started', 'service.stopped')"
    starts += " ORDER BY a.seq"
    for row in (yield Sql(starts)):
        record = StoredRecord(*row).read()
        try:
            heads = record.data.get("heads", {}).items() if intact(record) else ()
            for name, text in heads:
                noted.setdefault(name, set()).add(Head.parse(text))
        except (AuditError, AttributeError, TypeError):
            detail = "the heads that it notes are none: no service wrote it"
            faults.append(Fault("impossible", "", record.seq, record.seq, "", detail))
    return noted, faults


def _unnoted() -> Step[list[Fault]]:
    """Ends of chains that the table of heads does not know of."""
    rows = yield Sql("SELECT tenant, seq FROM heads")
    noted: dict[str, int] = {row[0]: row[1] for row in rows}
    ends = yield from _heads()
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


def _unfounded(after: str, last: str) -> Step[list[str]]:
    """Visits of which there are rows, and no record or no row in the table of visits."""
    found: set[str] = set()
    for name, table in TABLES.items():
        key = table.key[0]
        # The bounds once more, for PostgreSQL, which else goes through all visits up to there.
        visit = f"visits WHERE id = of.{key} AND id > $1 AND id <= $2"
        there = f"audit WHERE visit = of.{key}" if name == "visits" else visit
        rows = yield Sql(
            f"SELECT DISTINCT of.{key} FROM {name} of WHERE of.{key} > $1 AND of.{key} <= $2"
            f" AND NOT EXISTS (SELECT 1 FROM {there})",
            (after, last),
        )
        found.update(row[0] for row in rows)
    return sorted(found)


def _compare_visits(visits: Sequence[str]) -> Step[list[Fault]]:
    """Compare visits with all the records that name them."""
    faults: list[Fault] = []
    for visit in visits:
        rows = yield Sql(f"{RECORD} WHERE a.visit = $1 ORDER BY a.tenant, a.seq", (visit,))
        kept = {}
        for name, table in TABLES.items():
            columns = ", ".join(table.columns)
            of = yield Sql(f"SELECT {columns} FROM {name} WHERE {table.key[0]} = $1", (visit,))
            kept[name] = _by_visit(table.columns, table.key, of).get(visit, {})
        faults += compare(visit, [StoredRecord(*row) for row in rows], kept)
    return faults


def _by_visit(
    columns: tuple[str, ...], key: tuple[str, ...], rows: Iterable[Any]
) -> dict[str, dict[tuple[Any, ...], dict[str, Any]]]:
    """Rows by their visit, and by their key."""
    found: dict[str, dict[tuple[Any, ...], dict[str, Any]]] = {}
    for values in rows:
        row = dict(zip(columns, values, strict=True))
        found.setdefault(row[key[0]], {})[tuple(row[name] for name in key)] = row
    return found
