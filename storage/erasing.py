"""Erases what visits have of people, and checks that nothing else is gone, changed or back again.

A visit is erased by a record of its tenant's chain, in one transaction with all that goes: what is kept
beside the chain (:mod:`visits.personal`), and what the tables repeat of it. Recordings are noted as to be
removed; whoever removes a file crosses it out, so that a crash in between is finished later.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final, get_args

from storage.base import Counted, Due, Erasure, StorageRefused
from storage.projection import TABLES, Row, VisitRows
from storage.rebuild import told
from storage.records import RECORD
from storage.steps import Rows, Sql, Step, where
from visits.audit import ERASURES, ErasedScope, Fault, FaultKind, StoredRecord, decode_sound
from visits.personal import (
    COMMITMENT,
    TRANSCRIPTS,
    blanked,
    commitment,
    committed,
    is_transcript,
    merged,
)

SCOPES: Final[tuple[ErasedScope, ...]] = get_args(ErasedScope)


# --------------------------------------------------------------------------------------------------------
# Erasing
# --------------------------------------------------------------------------------------------------------


def counted(tenant: str, visits: Collection[str], scope: ErasedScope) -> Step[Counted]:
    """What would go. Raises :class:`StorageRefused`: no ended visit of this tenant."""
    left, records, sealed, recordings = [], 0, 0, list[str]()
    covering = [scope] if scope == "visit" else [scope, "visit"]
    for visit in dict.fromkeys(visits):
        found = yield Sql("SELECT tenant, ended_at FROM visits WHERE id = $1", (visit,))
        if not found or found[0][0] != tenant:
            raise StorageRefused(f"{visit:.60} is no visit of tenant {tenant!r}")
        if found[0][1] is None:
            raise StorageRefused(f"visit {visit} is still running; erase it when it has ended")
        clause, values = where((("visit = ?", visit), ("scope IN ?", covering)))
        before = yield Sql(f"SELECT 1 FROM erasures{clause}", values)
        of_it, about = _kept(tenant, visit, scope)
        kept = yield Sql(f"SELECT seq {of_it}", about)
        if before and not kept:
            continue
        left.append(visit)
        if scope != "recordings":
            records += len(kept)
            sealed += yield from _sealed(tenant, visit, scope)
        if scope != "transcripts":
            rows = yield Sql(
                "SELECT recording FROM legs WHERE visit = $1 AND recording IS NOT NULL ORDER BY recording",
                (visit,),
            )
            recordings += [row[0] for row in rows]
    return Counted(tuple(left), records, sealed, tuple(recordings))


def erased(tenant: str, visits: Sequence[str], scope: ErasedScope, seq: int, at: str) -> Step[None]:
    """Have it gone, by the record of that number, which is written in the same transaction."""
    for visit in visits:
        yield Sql(
            "INSERT INTO erasures (visit, scope, tenant, seq, at) VALUES ($1, $2, $3, $4, $5)",
            (visit, scope, tenant, seq, at),
            writes=True,
        )
        if scope != "transcripts":
            yield Sql(
                "INSERT INTO recordings_to_remove (recording, service)"
                " SELECT DISTINCT l.recording, v.service FROM legs l JOIN visits v ON v.id = l.visit"
                " WHERE l.visit = $1 AND l.recording IS NOT NULL ON CONFLICT (recording) DO NOTHING",
                (visit,),
                writes=True,
            )
        if scope != "recordings":
            of_it, about = _kept(tenant, visit, scope)
            yield Sql(f"DELETE {of_it}", about, writes=True)
            yield from _rows_anew(visit)


def _kept(tenant: str, visit: str, scope: ErasedScope) -> tuple[str, tuple[Any, ...]]:
    """What is kept of a visit beside the chain, as far as the scope reaches: a FROM, and its values."""
    if scope == "recordings":
        return "FROM audit_personal WHERE 1 = 0", ()
    kinds = tuple(sorted(TRANSCRIPTS)) if scope == "transcripts" else None
    clause, values = where((("tenant = ?", tenant), ("visit = ?", visit), ("kind IN ?", kinds)))
    return f"FROM audit_personal WHERE tenant = $1 AND seq IN (SELECT seq FROM audit{clause})", values


def _sealed(tenant: str, visit: str, scope: ErasedScope) -> Step[int]:
    """How many records of older versions say something of people in what is sealed."""
    count = 0
    for row in (yield Sql(f"{RECORD} WHERE a.tenant = $1 AND a.visit = $2", (tenant, visit))):
        record = StoredRecord(*row)
        if scope == "visit" or is_transcript(record.kind):
            count += record.seals_persons()
    return count


def _rows_anew(visit: str) -> Step[None]:
    """Have the tables say what the visit's records say now."""
    records = yield Sql(f"{RECORD} WHERE a.visit = $1 ORDER BY a.tenant, a.seq", (visit,))
    rows = VisitRows()
    for values in records:
        record = StoredRecord(*values)
        draft = told(record, sound=False)
        if draft is None:
            raise StorageRefused(f"record {record.seq} of visit {visit} was changed: see `audit verify`")
        try:
            rows.apply(draft, record.seq)
        except (StorageRefused, LookupError, TypeError, ValueError) as error:
            raise StorageRefused(f"visit {visit}: {error}; see `audit verify`") from error
    for name, table in TABLES.items():
        columns = ", ".join(table.columns)
        kept = yield Sql(f"SELECT {columns} FROM {name} WHERE {table.key[0]} = $1", (visit,))
        for values in kept:
            row = dict(zip(table.columns, values, strict=True))
            key = tuple(row[column] for column in table.key)
            yield from _changed(name, table.key, key, row, rows.tables[name].get(key, row))


def _changed(table: str, key: tuple[str, ...], of: tuple[Any, ...], kept: Row, new: Row) -> Step[None]:
    changes = {column: value for column, value in new.items() if value != kept[column]}
    if not changes:
        return
    sets = ", ".join(f"{column} = ${n}" for n, column in enumerate(changes, 1))
    named = " AND ".join(f"{column} = ${n}" for n, column in enumerate(key, len(changes) + 1))
    yield Sql(f"UPDATE {table} SET {sets} WHERE {named}", (*changes.values(), *of), writes=True)


# --------------------------------------------------------------------------------------------------------
# What there is to erase
# --------------------------------------------------------------------------------------------------------


DUE_PAGE: Final = 200


def due(tenant: str, scope: ErasedScope, before: str, after: tuple[str, str]) -> Step[Due]:
    """The next visits of a tenant, by their start, that were not yet erased so far."""
    scopes = ("visit",) if scope == "visit" else (scope, "visit")
    recorded = " AND EXISTS (SELECT 1 FROM legs l WHERE l.visit = v.id AND l.recording IS NOT NULL)"
    places = ", ".join(f"${n}" for n in range(5, 5 + len(scopes)))
    rows = yield Sql(
        "SELECT v.id, v.started_at, v.ended_at IS NOT NULL AND NOT EXISTS ("
        f"SELECT 1 FROM erasures e WHERE e.visit = v.id AND e.scope IN ({places}))"
        f"{recorded if scope == 'recordings' else ''}"
        " FROM visits v WHERE v.tenant = $1 AND v.started_at < $2 AND (v.started_at, v.id) > ($3, $4)"
        f" ORDER BY v.started_at, v.id LIMIT {DUE_PAGE}",
        (tenant, before, *after, *scopes),
    )
    last = (rows[-1][1], rows[-1][0]) if len(rows) == DUE_PAGE else None
    return Due(tuple(row[0] for row in rows if row[2]), last)


def erasures_of(visit: str) -> Step[list[Erasure]]:
    """What was erased of a visit, the latest last."""
    rows = yield Sql(
        "SELECT visit, scope, seq, at FROM erasures WHERE visit = $1 ORDER BY seq, scope", (visit,)
    )
    return [Erasure(*row) for row in rows]


# --------------------------------------------------------------------------------------------------------
# Checking
# --------------------------------------------------------------------------------------------------------


class PersonalCheck:
    """What is kept beside one chain, held against it, record by record."""

    def __init__(self, tenant: str) -> None:
        self._tenant = tenant
        self._faults: list[Fault] = []
        self._gone: dict[str, list[tuple[int, bool]]] = {}
        """Records without what they were committed to, by visit: (number, whether it is a transcript's)."""
        self._told: set[Erasure] = set()
        self._last = 0

    @property
    def told(self) -> frozenset[Erasure]:
        """The erasures that the chain tells of, so far."""
        return frozenset(self._told)

    def feed(
        self,
        seq: int,
        visit: str,
        at: str,
        kind: str,
        salt: str | None,
        kept: str | None,
        public: dict[str, Any],
    ) -> dict[str, Any] | None:
        """The next record: what is kept beside it, and its sealed data, which is changed in place.

        Returns the data as its readers see it; None where it is not what was sealed.
        """
        self._last = seq
        sealed_on = public.get(COMMITMENT)
        if kept is None:
            if sealed_on is not None and committed(public) is not None:
                self._gone.setdefault(visit, []).append((seq, is_transcript(kind)))
                return blanked(kind, public)
            if kind in ERASURES:
                self._told.update(erasures_in(seq, at, public))
            return public
        try:
            if commitment(salt or "", kept) == sealed_on:
                return merged(public, decode_sound(kept))
        except (ValueError, TypeError, AttributeError):  # somebody's edit
            pass
        if sealed_on is None:
            self._add("personal-added", seq, visit, "nothing of it was sealed")
        else:
            self._add("personal-changed", seq, visit, "what is kept of it is not what was sealed")
        return None

    def unowned(self, numbers: Iterable[int]) -> None:
        """There is something beside records of these numbers, and no such record."""
        for seq in numbers:
            self._add("personal-added", seq, "", "there is no such record")

    def finish(self, kept: Collection[Erasure], back: Iterable[tuple[str, int]]) -> list[Fault]:
        """All the faults.

        Args:
            kept: the table of erasures of this tenant; of a later moment.
            back: (visit, number) of records that have what the table says is erased.
        """
        reach: dict[tuple[str, bool], int] = {}
        for visit, scope, seq, _ in self._told:
            for transcript in (True, False):
                if scope == "visit" or (scope == "transcripts" and transcript):
                    reach[visit, transcript] = max(seq, reach.get((visit, transcript), 0))
        for visit, gone in self._gone.items():
            for seq, transcript in gone:
                if reach.get((visit, transcript), 0) < seq:
                    self._add(
                        "personal-missing", seq, visit, "what was kept of it is gone, and no record erased it"
                    )
        for visit, seq in back:
            self._add("personal-kept", seq, visit, "what was erased of it is there again")
        known = {one for one in kept if one.seq <= self._last}
        for kind, ones in (("row-added", known - self._told), ("row-missing", self._told - known)):
            for one in sorted(ones):
                detail = f"row ({one.scope}, {one.seq}): no record gives it"
                if kind == "row-missing":
                    detail = f"row ({one.scope}, {one.seq}): the records give it, it is gone"
                self._faults.append(
                    Fault(kind, self._tenant, 0, 0, one.visit, detail, "erasures")  # type: ignore[arg-type]
                )
        return sorted(self._faults, key=lambda fault: fault.seq)

    def _add(self, kind: FaultKind, seq: int, visit: str, detail: str) -> None:
        self._faults.append(Fault(kind, self._tenant, seq, seq, visit, detail))


def erasures_in(seq: int, at: str, data: Any) -> set[Erasure]:
    """What a record of an erasure says that is erased."""
    visits, scope = data.get("visits"), data.get("scope")
    if not isinstance(visits, list) or scope not in SCOPES:
        return set()
    return {Erasure(visit, scope, seq, at) for visit in visits if isinstance(visit, str)}


def erasures_between(first: str, last: str) -> Step[dict[str, set[Erasure]]]:
    """The table of erasures, by tenant, from one tenant to another."""
    rows = yield Sql(
        "SELECT tenant, visit, scope, seq, at FROM erasures WHERE tenant >= $1 AND tenant <= $2",
        (first, last),
    )
    found: dict[str, set[Erasure]] = {}
    for tenant, *rest in rows:
        found.setdefault(tenant, set()).add(Erasure(*rest))
    return found


def back_between(first: str, last: str) -> Step[dict[str, list[tuple[str, int]]]]:
    """Records that have what the table of erasures says is erased, by tenant: visit and number."""
    kinds = ", ".join(f"${n}" for n in range(3, 3 + len(TRANSCRIPTS)))
    rows: Rows = yield Sql(
        # CROSS: in this order, for SQLite, which would else read the whole log: it has no statistics.
        "SELECT DISTINCT a.tenant, a.visit, a.seq"
        " FROM erasures e CROSS JOIN audit a CROSS JOIN audit_personal p"
        " WHERE a.visit = e.visit AND a.tenant = e.tenant AND a.seq < e.seq"
        " AND p.tenant = a.tenant AND p.seq = a.seq AND e.tenant >= $1 AND e.tenant <= $2"
        f" AND (e.scope = 'visit' OR (e.scope = 'transcripts' AND a.kind IN ({kinds})))",
        (first, last, *sorted(TRANSCRIPTS)),
    )
    found: dict[str, list[tuple[str, int]]] = {}
    for tenant, visit, seq in rows:
        found.setdefault(tenant, []).append((visit, seq))
    return found


__all__ = [
    "SCOPES",
    "PersonalCheck",
    "back_between",
    "counted",
    "due",
    "erased",
    "erasures_between",
    "erasures_in",
    "erasures_of",
]
