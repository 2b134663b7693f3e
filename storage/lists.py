"""Lists of visits and of records, a page at a time: which rows are on a page.

However much there is, a page takes about as long: rows are found along an index in the list's own order, with
all columns in it that a filter asks for.
"""

from __future__ import annotations

from typing import Any, Final

from storage.filters import RecordFilter, VisitFilter
from storage.paging import Page, checked_limit, key_of, page_of
from storage.steps import Sql, Step, escaped, where
from visits.audit import KINDS

FEW: Final = 500
"""Visits that a rare tool was called in: up to so many are looked at one by one."""
CHAINS: Final = 20
"""Up to so many tenants' chains are read side by side; of more, all chains are."""

_ACCENTS: Final = str.maketrans(
    "ÁÀÂÃÉÊÍÓÔÕÚÜÇáàâãéêíóôõúüç",
    "aaaaeeiooouucaaaaeeiooouuc",
)
"""What the columns `visitor_words` and `resident_words` make of a name, beside ASCII's lower case."""
_LOWER: Final = str.maketrans({chr(upper): chr(upper + 32) for upper in range(ord("A"), ord("Z") + 1)})


def visits_on_page(wanted: VisitFilter, after: str | None, limit: int) -> Step[Page[tuple[str, str]]]:
    """The starts and ids of visits, the latest first."""
    conditions: list[tuple[str, Any]] = [
        ("v.tenant IN ?", None if wanted.tenants is None else tuple(sorted(wanted.tenants))),
        ("v.started_at >= ?", wanted.since),
        ("v.started_at < ?", wanted.until),
        ("v.provider = ?", wanted.provider or None),
        ("(v.started_at, v.id) < (?, ?)", None if after is None else key_of(after, str, str)),
    ]
    conditions += _outcome_and_names(wanted)
    if wanted.decision == "none":
        conditions.append(("v.decision IS NULL", ()))
    elif wanted.decision:
        conditions.append(("v.decision = ?", wanted.decision))
    if wanted.reviewed is not None:
        conditions.append((f"v.verdict IS {'NOT ' if wanted.reviewed else ''}NULL", ()))
    if wanted.verdict:
        conditions.append(("v.verdict = ?", wanted.verdict))
    if wanted.apartment:
        of_number = f"{escaped(wanted.apartment)} %"
        conditions.append(
            ("(v.apartment = ? OR v.apartment LIKE ? ESCAPE '\\')", (wanted.apartment, of_number))
        )
    if wanted.tool:
        conditions.append((yield from _called(wanted.tool)))
    clause, found = where(conditions)
    rows = yield Sql(
        f"SELECT v.started_at, v.id FROM visits v{clause} ORDER BY v.started_at DESC, v.id DESC"
        f" LIMIT {checked_limit(limit) + 1}",
        found,
    )
    return page_of([(row[0], row[1]) for row in rows], limit, lambda row: row)


def _outcome_and_names(wanted: VisitFilter | RecordFilter) -> list[tuple[str, Any]]:
    conditions = [_outcome(wanted)] if wanted.outcomes else []
    for column, text in (("visitor_words", wanted.visitor), ("resident_words", wanted.resident)):
        for word in text.translate(_ACCENTS).translate(_LOWER).split():
            conditions.append((f"v.{column} LIKE ? ESCAPE '\\'", f"%{escaped(word)}%"))
    return conditions


def _outcome(wanted: VisitFilter | RecordFilter) -> tuple[str, Any]:
    ended = tuple(sorted(set(wanted.outcomes) - {"running"}))
    places = ", ".join("?" * len(ended))
    parts = [f"v.outcome IN ({places})"] if ended else []
    if "running" in wanted.outcomes:
        parts.append("v.outcome IS NULL")
    return f"({' OR '.join(parts)})", ended


def _called(tool: str) -> Step[tuple[str, Any]]:
    """The condition that a tool was called: by naming the visits where they are few."""
    few = yield from _few_called(tool)
    if few is not None:
        return "v.id IN ?", few
    return _any("tool_calls c WHERE c.visit = v.id AND c.name = ?"), tool


def _any(rows: str) -> str:
    """The condition that there are such rows. Of an EXISTS PostgreSQL would first read all that there are."""
    return f"(SELECT count(*) FROM {rows}) > 0"


def _few_called(tool: str) -> Step[tuple[str, ...] | None]:
    """The visits that a tool was called in; None: they are many."""
    some = f"SELECT DISTINCT visit FROM tool_calls WHERE name = $1 LIMIT {FEW + 1}"
    rows = yield Sql(some, (tool,))
    return tuple(row[0] for row in rows) if len(rows) <= FEW else None


# --------------------------------------------------------------------------------------------------------
# Records
# --------------------------------------------------------------------------------------------------------


def records_on_page(wanted: RecordFilter, after: str | None, limit: int) -> Step[Page[tuple[str, str, int]]]:
    """The times, tenants and numbers of records, the latest first."""
    checked_limit(limit)
    of_all: list[tuple[str, Any]] = [
        ("at >= ?", wanted.since),
        ("at < ?", wanted.until),
        ("(at, tenant, seq) < (?, ?, ?)", None if after is None else key_of(after, str, str, int)),
    ]
    if wanted.tool:
        called = "tool_calls c WHERE c.visit = audit.visit AND c.seq = audit.seq AND c.name = ?"
        of_all.append((_any(called), wanted.tool))
    visits: tuple[str, ...] | None = None
    if of_visits := _outcome_and_names(wanted):
        visits = yield from _few_visits(wanted, of_visits)
        if visits is None:
            of_all.append(_of_such_a_visit(of_visits))
    order = "ORDER BY at DESC, tenant DESC, seq DESC"
    few = (yield from _few_called(wanted.tool)) if wanted.tool else None
    if visits is not None:
        few = visits if few is None else tuple(sorted({*visits} & {*few}))
    branches, of_each = _branches(wanted, few)
    # Once for all branches: with hundreds of tenants there would be more values than a statement may have.
    shared, values = where([*of_each, *of_all])
    parts: list[str] = []
    for branch in branches:
        clause, more = where(branch, len(values))
        # A page's worth of each branch is enough, and is read along an index in this order.
        found = f"audit{clause}{shared.replace(' WHERE ', ' AND ', 1)}"
        part = f"SELECT at, tenant, seq FROM {found} {order} LIMIT {limit + 1}"
        parts.append(f"SELECT at, tenant, seq FROM ({part}) AS of_{len(parts)}")
        values += more
    if not parts:
        return Page(())
    rows = yield Sql(f"{' UNION ALL '.join(parts)} {order} LIMIT {limit + 1}", values)
    return page_of([(row[0], row[1], row[2]) for row in rows], limit, lambda row: row)


def _few_visits(wanted: RecordFilter, conditions: list[tuple[str, Any]]) -> Step[tuple[str, ...] | None]:
    """The visits that records are wanted of, where they are few; else None."""
    tenants = None if wanted.tenants is None else tuple(sorted(set(wanted.tenants)))
    clause, values = where([("v.tenant IN ?", tenants), *conditions])
    rows = yield Sql(f"SELECT v.id FROM visits v{clause} LIMIT {FEW + 1}", values)
    return tuple(row[0] for row in rows) if len(rows) <= FEW else None


def _of_such_a_visit(conditions: list[tuple[str, Any]]) -> tuple[str, tuple[str, ...]]:
    """The condition that a record's visit is so."""
    texts = " AND ".join(text for text, _ in conditions)
    values = [each for _, value in conditions for each in (value if isinstance(value, tuple) else (value,))]
    return _any(f"visits v WHERE v.id = audit.visit AND {texts}"), tuple(values)


_Conditions = list[tuple[str, Any]]


def _branches(wanted: RecordFilter, few: tuple[str, ...] | None) -> tuple[list[_Conditions], _Conditions]:
    """The conditions by which records are found, each along one index; and those of all of them.

    No record is in two branches. ``few``: the visits that they can be of, where those are few.

    What only filters is a text with '' behind it: neither database takes an index for that, of which each
    would take the wrong one at times.
    """
    kinds = set(wanted.kinds or KINDS)
    if wanted.tool:
        kinds &= {"tool.called"}
    only_kinds = ("kind || '' IN ?", tuple(sorted(kinds)) if wanted.kinds or wanted.tool else None)
    tenants = None if wanted.tenants is None else tuple(sorted(set(wanted.tenants)))
    only_tenants = ("tenant || '' IN ?", tenants)
    if few is not None:
        return [[("visit IN ?", few), ("visit = ?", wanted.visit or None)]], [only_kinds, only_tenants]
    if wanted.visit:
        return [[("visit = ?", wanted.visit)]], [only_kinds, only_tenants]
    if tenants is not None and len(tenants) <= CHAINS:
        return [[("tenant = ?", tenant)] for tenant in tenants], [only_kinds]
    return [[("kind = ?", kind)] for kind in sorted(kinds)], [only_tenants]


__all__ = ["records_on_page", "visits_on_page"]
