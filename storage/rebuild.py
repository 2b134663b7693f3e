"""Builds a visit's rows anew from its records, and says where the tables that are read say something else.

Lists and pages are read from tables that follow from the audit log (:mod:`storage.projection`). The log's
chain of hashes does not cover them: an ``UPDATE`` there would be believed. This finds it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final

from storage.base import StorageRefused
from storage.projection import project
from storage.schema import statements
from visits.audit import AuditRecord, Draft, Fault, FaultKind, intact

KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "visits": ("id",),
    "legs": ("visit", "leg"),
    "turns": ("visit", "seq"),
    "tool_calls": ("visit", "seq"),
    "decisions": ("visit",),
}
"""The tables that follow from the records, and what names a row; the visit comes first."""

JSON: Final = frozenset({"arguments", "result", "evidence"})
"""The columns that hold JSON."""

Row = dict[str, Any]
Rows = dict[tuple[Any, ...], Row]


class Rebuild:
    """Compares visits, one after the other. Made and used in one thread."""

    def __init__(self, scripts: Sequence[str]) -> None:
        """``scripts``: the schema's versions, as the database's own."""
        self._empty = sqlite3.connect(":memory:", isolation_level=None)
        for script in scripts:
            for statement in statements(script):
                self._empty.execute(statement)

    def close(self) -> None:
        """Let go of the memory."""
        self._empty.close()

    def compare(
        self, connection: sqlite3.Connection, visit: str, records: Sequence[AuditRecord]
    ) -> list[Fault]:
        """The faults of a visit's rows.

        Args:
            connection: of the database; the caller has begun a transaction, so that it stands still.
            visit: the visit's id, as rows and records name it.
            records: all the records that name it, in their order.
        """
        if not all(intact(record) for record in records):
            return []  # the chain's own check names them; nothing sound is left to compare with
        tenant = records[0].tenant if records else _tenant(connection, visit)
        if not records:
            return _unfounded(connection, visit, tenant)
        self._empty.execute("BEGIN")  # what is written here is for this visit only, and is never kept
        try:
            for record in records:
                try:
                    project(self._empty, _draft(record), record.seq)
                except (StorageRefused, sqlite3.Error, LookupError, TypeError, ValueError) as error:
                    detail = f"it can't follow from the records before it: {error}"
                    return [Fault("impossible", record.tenant, record.seq, record.seq, visit, detail)]
            return [
                fault
                for table in KEYS
                for fault in _differences(
                    table, visit, tenant, _rows(connection, table, visit), _rows(self._empty, table, visit)
                )
            ]
        finally:
            self._empty.execute("ROLLBACK")


def visits_after(connection: sqlite3.Connection, last: str, limit: int) -> list[str]:
    """The next ids of visits that a record or a row names, in their order."""
    parts = ["SELECT visit AS name FROM audit WHERE visit > :last"]
    parts += [f"SELECT {key[0]} FROM {table} WHERE {key[0]} > :last" for table, key in KEYS.items()]
    sql = f"{' UNION '.join(parts)} ORDER BY name LIMIT :limit"
    return [row[0] for row in connection.execute(sql, {"last": last, "limit": limit})]


def _draft(record: AuditRecord) -> Draft:
    return Draft(record.tenant, record.visit, record.at, record.kind, record.data, "")


def _tenant(connection: sqlite3.Connection, visit: str) -> str:
    row = connection.execute("SELECT tenant FROM visits WHERE id = ?", (visit,)).fetchone()
    return str(row[0]) if row else ""


def _rows(connection: sqlite3.Connection, table: str, visit: str) -> Rows:
    key = KEYS[table]
    found = connection.execute(f"SELECT * FROM {table} WHERE {key[0]} = ?", (visit,))
    columns = [column[0] for column in found.description]
    rows = [dict(zip(columns, values, strict=True)) for values in found]
    return {tuple(row[name] for name in key): row for row in rows}


def _unfounded(connection: sqlite3.Connection, visit: str, tenant: str) -> list[Fault]:
    """One fault for all the rows of a visit without any record."""
    tables = {table: len(_rows(connection, table, visit)) for table in KEYS}
    held = ", ".join(f"{count} in {table}" for table, count in tables.items() if count)
    detail = f"there are rows ({held}), and no record of this visit"
    return [_fault("row-added", next(t for t, n in tables.items() if n), visit, tenant, detail)]


def _differences(table: str, visit: str, tenant: str, kept: Rows, told: Rows) -> list[Fault]:
    faults = []
    for key in sorted(kept.keys() | told.keys()):
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
