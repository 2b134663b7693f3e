"""Builds a visit's rows anew from its records, and says where the tables that are read say something else.

Lists and pages are read from tables that follow from the audit log (:mod:`storage.projection`). The log's
chain of hashes does not cover them: an ``UPDATE`` there would be believed. This finds it. Without I/O.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from storage.base import StorageRefused
from storage.projection import TABLES, Row, VisitRows
from visits.audit import Draft, Fault, FaultKind, StoredRecord, decode_sound, intact

JSON: Final = frozenset({"arguments", "result", "evidence"})
"""The columns that hold JSON."""

Rows = Mapping[tuple[Any, ...], Row]


def compare(
    visit: str, records: Sequence[StoredRecord], kept: Mapping[str, Rows], *, sound: bool = False
) -> list[Fault]:
    """The faults of a visit's rows.

    Args:
        visit: the visit's id, as rows and records name it.
        records: all the records that name it, in their order.
        kept: the visit's rows, by table and key. Of the same moment as the records.
        sound: each record was found to give its hash.
    """
    drafts = [told(record, sound=sound) for record in records]
    if None in drafts:
        return []  # the chain's own check names them; nothing sound is left to compare with
    if not records:
        return _unfounded(visit, kept)
    tenant = records[0].tenant
    rows_told = VisitRows()
    for record, draft in zip(records, drafts, strict=True):
        assert draft is not None  # looked for above
        try:
            rows_told.apply(draft, record.seq)
        except (StorageRefused, LookupError, TypeError, ValueError) as error:
            detail = f"it can't follow from the records before it: {error}"
            return [Fault("impossible", record.tenant, record.seq, record.seq, visit, detail)]
    return [
        fault
        for table, rows in rows_told.tables.items()
        if rows != kept[table]
        for fault in _differences(table, visit, tenant, kept[table], rows)
    ]


def told(record: StoredRecord, *, sound: bool) -> Draft | None:
    """The record, to be told once more as its readers see it; None where it is damaged."""
    public = decode_sound(record.text) if sound else record.plain_data()
    read = record.read() if public is None else record.told(public)
    if read.personal == "changed" or (public is None and not intact(read)):
        return None
    return Draft(record.tenant, record.visit, record.at, record.kind, read.data, record.text)


def _unfounded(visit: str, kept: Mapping[str, Rows]) -> list[Fault]:
    """One fault for all the rows of a visit without any record."""
    held = ", ".join(f"{len(rows)} in {table}" for table, rows in kept.items() if rows)
    tenant = next((str(row["tenant"]) for row in kept["visits"].values()), "")
    detail = f"there are rows ({held}), and no record of this visit"
    return [_fault("row-added", next(t for t in TABLES if kept[t]), visit, tenant, detail)]


def _differences(table: str, visit: str, tenant: str, kept: Rows, told: Rows) -> list[Fault]:
    faults = []
    for key in sorted(kept.keys() | told.keys(), key=_by_type):
        which = f" ({', '.join(str(part) for part in key[1:])})" if key[1:] else ""
        if key not in told:
            faults.append(_fault("row-added", table, visit, tenant, f"row{which}: no record gives it"))
        elif key not in kept:
            faults.append(
                _fault("row-missing", table, visit, tenant, f"row{which}: the records give it, it is gone")
            )
        else:
            faults += [
                _fault(
                    "row-changed",
                    f"{table}.{column}",
                    visit,
                    tenant,
                    f"row{which}: the table has {_short(kept[key].get(column))}, "
                    f"the records give {_short(value)}",
                )
                for column, value in told[key].items()
                if not _same(column, value, kept[key].get(column))
            ]
    return faults


def _by_type(key: tuple[Any, ...]) -> list[tuple[str, Any]]:
    """An order of any keys: somebody's record may have a number where a row has a text."""
    return [(part.__class__.__name__, part) for part in key]


def same_row(columns: Sequence[str], told: Sequence[Any], kept: Sequence[Any]) -> bool:
    """Whether a row holds what the records give."""
    return all(map(_same, columns, told, kept))


def _same(column: str, told: object, kept: object) -> bool:
    """Whether a column holds what the records give.

    JSON is compared by what it says: a record keeps its keys sorted, a row as they came.
    """
    if told == kept or column not in JSON:
        return told == kept
    try:
        return _sorted(told) == _sorted(kept)
    except (TypeError, ValueError):  # somebody's edit is no JSON
        return False


def _sorted(text: Any) -> str:
    return json.dumps(json.loads(text), sort_keys=True)


def _short(value: object) -> str:
    shown = "nothing" if value is None else repr(value)
    return shown if len(shown) <= 80 else shown[:79] + "…"


def _fault(kind: FaultKind, place: str, visit: str, tenant: str, detail: str) -> Fault:
    return Fault(kind, tenant, 0, 0, visit, detail, place)
