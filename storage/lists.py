"""Lists of visits and of records, a page at a time: which rows are on a page.

However much there is, a page takes about as long: rows are found along an index in the list's own order, and
where a condition is rarely so, along an index of that.
"""

from __future__ import annotations

from typing import Any, Final

from storage.filters import RecordFilter, VisitFilter
from storage.paging import Page, checked_limit, key_of, page_of
from storage.steps import Sql, Step, escaped, where
from visits.audit import KINDS

FEW: Final = 500
"""Visits that fit a rare condition: up to so many are looked at one by one."""
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
    if wanted.outcomes:
        conditions.append(_outcome(wanted))
    for column, text in (("visitor_words", wanted.visitor), ("resident_words", wanted.resident)):
        for word in text.translate(_ACCENTS).translate(_LOWER).split():
            conditions.append((f"v.{column} LIKE ? ESCAPE '\\'", f"%{escaped(word)}%"))
    if wanted.apartment:
        of_number = f"{escaped(wanted.apartment)} %"
        conditions.append(
            ("(v.apartment = ? OR v.apartment LIKE ? ESCAPE '\\')", (wanted.apartment, of_number))
        )
    for table, condition, values in _elsewhere(wanted):
        conditions.append((yield from _of_visits(table, condition, values)))
    for table, unwanted in (("decisions", wanted.decision == "none"), ("reviews", wanted.reviewed is False)):
        if unwanted:
            conditions.append((f"NOT EXISTS (SELECT 1 FROM {table} x WHERE x.visit = v.id)", ()))
    clause, found = where(conditions)
    rows = yield Sql(
        f"SELECT v.started_at, v.id FROM visits v{clause} ORDER BY v.started_at DESC, v.id DESC"
        f" LIMIT {checked_limit(limit) + 1}",
        found,
    )
    return page_of([(row[0], row[1]) for row in rows], limit, lambda row: row)


def _outcome(wanted: VisitFilter) -> tuple[str, Any]:
    ended = tuple(sorted(set(wanted.outcomes) - {"running"}))
    places = ", ".join("?" * len(ended))
    parts = [f"v.outcome IN ({places})"] if ended else []
    if "running" in wanted.outcomes:
        parts.append("v.ended_at IS NULL")
    return f"({' OR '.join(parts)})", ended


def _elsewhere(wanted: VisitFilter) -> list[tuple[str, str, tuple[str, ...]]]:
    """What has to be so in other tables: the table, the condition, its values."""
    found: list[tuple[str, str, tuple[str, ...]]] = []
    if wanted.tool:
        found.append(("tool_calls", "name = ?", (wanted.tool,)))
    if wanted.decision not in ("", "none"):
        found.append(("decisions", "decision = ?", (wanted.decision,)))
    if wanted.verdict:
        found.append(("reviews", "verdict = ?", (wanted.verdict,)))
    elif wanted.reviewed:
        found.append(("reviews", "visit > ''", ()))
    return found


def _of_visits(table: str, condition: str, values: tuple[str, ...]) -> Step[tuple[str, Any]]:
    """The condition that a visit has such a row: by naming the visits where they are few."""
    which = condition.replace("?", "$1")
    rows = yield Sql(f"SELECT DISTINCT visit FROM {table} WHERE {which} LIMIT {FEW + 1}", values)
    if len(rows) <= FEW:
        return "v.id IN ?", tuple(row[0] for row in rows)
    return f"EXISTS (SELECT 1 FROM {table} x WHERE x.visit = v.id AND x.{condition})", values


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
        called = "SELECT 1 FROM tool_calls c WHERE c.visit = audit.visit AND c.seq = audit.seq AND c.name = ?"
        of_all.append((f"EXISTS ({called})", wanted.tool))
    order = "ORDER BY at DESC, tenant DESC, seq DESC"
    parts: list[str] = []
    values: list[Any] = []
    for branch in _branches(wanted):
        clause, more = where([*branch, *of_all], len(values))
        # A page's worth of each branch is enough, and is read along an index in this order.
        part = f"SELECT at, tenant, seq FROM audit{clause} {order} LIMIT {limit + 1}"
        parts.append(f"SELECT at, tenant, seq FROM ({part}) AS of_{len(parts)}")
        values += more
    if not parts:
        return Page(())
    rows = yield Sql(f"{' UNION ALL '.join(parts)} {order} LIMIT {limit + 1}", tuple(values))
    return page_of([(row[0], row[1], row[2]) for row in rows], limit, lambda row: row)


def _branches(wanted: RecordFilter) -> list[list[tuple[str, Any]]]:
    """The conditions by which records are found, each along one index: no record is in two.

    What only filters is a text with '' behind it: neither database takes an index for that, of which each
    would take the wrong one at times.
    """
    kinds = set(wanted.kinds or KINDS)
    if wanted.tool:
        kinds &= {"tool.called"}
    only_kinds = ("kind || '' IN ?", tuple(sorted(kinds)) if wanted.kinds or wanted.tool else None)
    tenants = None if wanted.tenants is None else tuple(sorted(set(wanted.tenants)))
    only_tenants = ("tenant || '' IN ?", tenants)
    if wanted.visit:
        return [[("visit = ?", wanted.visit), only_kinds, only_tenants]]
    if tenants is not None and len(tenants) <= CHAINS:
        return [[("tenant = ?", tenant), only_kinds] for tenant in tenants]
    return [[("kind = ?", kind), only_tenants] for kind in sorted(kinds)]


__all__ = ["records_on_page", "visits_on_page"]
