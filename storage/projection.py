"""What a record changes in the tables that visits are read from, in the transaction that writes the record.

Here is also refused what cannot follow from what is already on record: a gate request without an authorized
decision, an answer without a question, anything of a visit that never started.

Without I/O: :func:`project` changes rows that it is handed: a database's, by statements
(:func:`in_database`), or plain dictionaries (:class:`VisitRows`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from operator import itemgetter
from typing import Any, Final, Protocol

import orjson

from storage.base import StorageRefused
from storage.steps import Sql, Step
from visits.audit import Draft

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True)
_AMOUNT: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
"""Money: below what a column can hold in billionths."""

# --------------------------------------------------------------------------------------------------------
# The tables, and what is done to them
# --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Table:
    """What names a row, the visit first, and all columns."""

    key: tuple[str, ...]
    columns: tuple[str, ...]


def _columns(names: str) -> tuple[str, ...]:
    return tuple(names.split())


TABLES: Final[Mapping[str, Table]] = {
    "visits": Table(
        ("id",),
        _columns(
            "id tenant started_at ended_at outcome reason provider intent visitor_name apartment resident"
            " gate_requested_at gate_answered_at gate_opened gate_detail cost cost_usd currency"
            " cost_complete service decision verdict"
        ),
    ),
    "legs": Table(
        ("visit", "leg"),
        _columns("visit leg seq role endpoint peer provider connected_at ended_at reason recording"),
    ),
    "turns": Table(
        ("visit", "seq"),
        _columns("visit seq leg speaker text started_ms ended_ms response_ms interrupted heard_ms"),
    ),
    "tool_calls": Table(
        ("visit", "seq"),
        _columns("visit seq leg call name arguments called_at answered_at result ms status"),
    ),
    "decisions": Table(("visit",), _columns("visit seq at decision evidence reason")),
    "reviews": Table(("visit",), _columns("visit seq at reviewer verdict note")),
}
"""The tables that follow from the records."""

Row = dict[str, Any]


@dataclass(slots=True)
class Told:
    """What of a record anything can follow from: a :class:`visits.audit.Draft` that costs little.

    One is filled anew for each record of a large log: that is quicker than making one each time.
    """

    tenant: str = ""
    visit: str = ""
    at: str = ""
    kind: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


Record = Draft | Told


class Rows(Protocol):
    """The rows that a record may change."""

    def get(self, table: str, key: tuple[Any, ...]) -> Row | None:
        """The row of that key, or None."""

    def latest_call(self, visit: str, leg: str, call: str) -> Row | None:
        """The latest unanswered tool call of that leg and id, or None."""

    def insert(self, table: str, row: Row) -> None:
        """A new row; columns that it does not name are NULL."""

    def update(self, table: str, key: tuple[Any, ...], row: Row) -> None:
        """New values in the row of that key, which is there."""


def project(record: Record, seq: int, rows: Rows) -> None:
    """Change what follows from record number ``seq``. Raises :class:`StorageRefused`: nothing is changed."""
    if not record.visit:
        return
    visit = rows.get("visits", (record.visit,))
    if record.kind == "visit.started":
        if visit is not None:
            raise _refuse(record, "it started before")
        _visit_started(record, rows)
        return
    if visit is None:
        raise StorageRefused(f"a {record.kind} record of visit {record.visit}, which never started")
    if visit["tenant"] != record.tenant:
        raise StorageRefused(f"visit {record.visit} is not a visit of tenant {record.tenant!r}")
    change = CHANGES.get(record.kind)
    if change is not None:
        change(record, seq, visit, rows)


# --------------------------------------------------------------------------------------------------------
# In a database
# --------------------------------------------------------------------------------------------------------


class _Statements:
    """The rows that were read for a record, and the statements that change them."""

    def __init__(self) -> None:
        self.read: dict[tuple[str, tuple[Any, ...]], Row] = {}
        self.call: Row | None = None
        self.made: list[Sql] = []

    def get(self, table: str, key: tuple[Any, ...]) -> Row | None:
        return self.read.get((table, key))

    def latest_call(self, visit: str, leg: str, call: str) -> Row | None:
        return self.call

    def insert(self, table: str, row: Row) -> None:
        values = tuple(map(_storable, row.values()))
        self.made.append(Sql(_insert(table, tuple(row)), values, writes=True))

    def update(self, table: str, key: tuple[Any, ...], row: Row) -> None:
        values = (*map(_storable, row.values()), *key)
        self.made.append(Sql(_update(table, tuple(row)), values, writes=True))


def in_database(record: Draft, seq: int) -> Step[None]:
    """The same as statements: first those that read what :func:`project` asks for, then those that change."""
    if not record.visit:
        return
    rows = _Statements()
    keys: list[tuple[str, tuple[Any, ...]]] = [("visits", (record.visit,))]
    if (table := READS.get(record.kind)) is not None:
        keys.append((table, (record.visit, record.data["leg"]) if table == "legs" else (record.visit,)))
    for name, key in keys:
        for found in (yield Sql(_select(name), key)):
            rows.read[name, key] = dict(zip(TABLES[name].columns, found, strict=True))
    if record.kind == "tool.answered":
        calls = TABLES["tool_calls"].columns
        latest = Sql(
            f"SELECT {', '.join(calls)} FROM tool_calls WHERE visit = $1 AND leg = $2 AND call = $3"
            " AND answered_at IS NULL ORDER BY seq DESC LIMIT 1",
            (record.visit, record.data["leg"], record.data["call"]),
        )
        for found in (yield latest):
            rows.call = dict(zip(calls, found, strict=True))
    project(record, seq, rows)
    for statement in rows.made:  # noqa: UP028 - a list can't be sent rows
        yield statement


def _storable(value: Any) -> Any:
    # PostgreSQL has no zero character in a text; the record itself keeps it, as an escape.
    return value.replace("\0", "\ufffd") if isinstance(value, str) and "\0" in value else value


def _all_storable(row: Row) -> Row:
    return {name: _storable(value) for name, value in row.items()}


@cache
def _select(table: str) -> str:
    told = TABLES[table]
    return f"SELECT {', '.join(told.columns)} FROM {table} WHERE {_is(told.key, 1)}"


@cache
def _insert(table: str, columns: tuple[str, ...]) -> str:
    places = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})"


@cache
def _update(table: str, columns: tuple[str, ...]) -> str:
    changes = ", ".join(f"{column} = ${n}" for n, column in enumerate(columns, 1))
    return f"UPDATE {table} SET {changes} WHERE {_is(TABLES[table].key, len(columns) + 1)}"


def _is(key: tuple[str, ...], first: int) -> str:
    return " AND ".join(f"{column} = ${n}" for n, column in enumerate(key, first))


# --------------------------------------------------------------------------------------------------------
# In dictionaries
# --------------------------------------------------------------------------------------------------------


Undo = list[tuple[str, tuple[Any, ...], Row | None]]
"""Tables, keys, and the rows that were there."""


class VisitRows:
    """The rows of visits, in memory."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[tuple[Any, ...], Row]] = {name: {} for name in TABLES}
        self.zeroes = True
        """Whether a text of the next record may hold the zero character."""
        self._done: Undo = []

    def apply(self, record: Record, seq: int) -> Undo:
        """What follows from a record; how to undo it. Raises :class:`StorageRefused`: nothing is changed."""
        self._done = []
        project(record, seq, self)
        return self._done

    def undo(self, done: Undo) -> None:
        """Have it as it was before the last :meth:`apply`, which returned this."""
        for table, key, row in reversed(done):
            if row is None:
                del self.tables[table][key]
            else:
                self.tables[table][key] = row

    def get(self, table: str, key: tuple[Any, ...]) -> Row | None:
        """See :class:`Rows`."""
        return self.tables[table].get(key)

    def latest_call(self, visit: str, leg: str, call: str) -> Row | None:
        """See :class:`Rows`."""
        for row in reversed(self.tables["tool_calls"].values()):  # in the order of their numbers
            if (
                row["call"] == call
                and row["leg"] == leg
                and row["visit"] == visit
                and row["answered_at"] is None
            ):
                return row
        return None

    def insert(self, table: str, row: Row) -> None:
        """See :class:`Rows`. The columns of what is kept are in the table's order."""
        whole = _BLANK[table] | (_all_storable(row) if self.zeroes else row)
        key = _KEY_OF[table](whole)
        self._done.append((table, key, None))
        self.tables[table][key] = whole

    def update(self, table: str, key: tuple[Any, ...], row: Row) -> None:
        """See :class:`Rows`."""
        rows = self.tables[table]
        before = rows[key]
        self._done.append((table, key, before))
        rows[key] = before | (_all_storable(row) if self.zeroes else row)


class PassingRows(VisitRows):
    """The same for who goes through a log once: nothing is undone, so that a row is changed in its place."""

    def insert(self, table: str, row: Row) -> None:
        """See :class:`Rows`."""
        whole = _BLANK[table] | (_all_storable(row) if self.zeroes else row)
        self.tables[table][_KEY_OF[table](whole)] = whole

    def update(self, table: str, key: tuple[Any, ...], row: Row) -> None:
        """See :class:`Rows`."""
        self.tables[table][key].update(_all_storable(row) if self.zeroes else row)


def _key_of(key: tuple[str, ...]) -> Callable[[Row], tuple[Any, ...]]:
    """What gives a row's key: quicker than to go through the names each time."""
    if len(key) > 1:
        return itemgetter(*key)
    (only,) = key
    return lambda row: (row[only],)


_KEY_OF: Final = {name: _key_of(table.key) for name, table in TABLES.items()}
_BLANK: Final[Mapping[str, Row]] = {name: dict.fromkeys(table.columns) for name, table in TABLES.items()}


# --------------------------------------------------------------------------------------------------------
# What follows from each kind
# --------------------------------------------------------------------------------------------------------


def _refuse(record: Record, why: str) -> StorageRefused:
    return StorageRefused(f"a {record.kind} record of visit {record.visit} is refused: {why}")


def _json(value: object) -> str:
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    except TypeError:  # an integer that is too long for it
        return _ENCODER.encode(value)


def _ms(data: Mapping[str, Any], name: str) -> float | None:
    value = data.get(name)
    if value is None or value.__class__ is float:
        return value
    try:
        return float(value)
    except OverflowError:
        raise StorageRefused(
            f"{name}: found a number that no column can hold; allowed: milliseconds"
        ) from None


def _visit_started(record: Record, rows: Rows) -> None:
    about = record.data
    service = about.get("service")
    rows.insert(
        "visits",
        {
            "id": record.visit,
            "tenant": record.tenant,
            "started_at": record.at,
            "provider": about.get("provider"),
            "service": service if isinstance(service, str) else None,
        },
    )


def _leg_connected(record: Record, seq: int, visit: Row, rows: Rows) -> None:
    data = record.data
    if rows.get("legs", (record.visit, data["leg"])) is not None:
        raise _refuse(record, f"leg {data['leg']!r:.60} connected before")
    rows.insert(
        "legs",
        {
            "visit": record.visit,
            "leg": data["leg"],
            "seq": seq,
            "role": data["role"],
            "endpoint": data.get("endpoint"),
            "peer": data.get("peer"),
            "provider": data.get("provider"),
            "connected_at": record.at,
        },
    )


def _leg_ended(record: Record, seq: int, visit: Row, rows: Rows) -> None:
    data = record.data
    leg = rows.get("legs", (record.visit, data["leg"]))
    if leg is None or leg["ended_at"] is not None:
        raise _refuse(record, f"leg {data['leg']!r:.60} is not connected")
    row = {"ended_at": record.at, "reason": data["reason"], "recording": data.get("recording")}
    rows.update("legs", (record.visit, data["leg"]), row)


def _turn(record: Record, seq: int, visit: Row, rows: Rows) -> None:
    data = record.data
    rows.insert(
        "turns",
        {
            "visit": record.visit,
            "seq": seq,
            "leg": data["leg"],
            "speaker": data["speaker"],
            "text": data["text"],
            "started_ms": _ms(data, "started_ms"),
            "ended_ms": _ms(data, "ended_ms"),
            "response_ms": _ms(data, "response_ms"),
            "interrupted": int(bool(data.get("interrupted"))),
            "heard_ms": _ms(data, "heard_ms"),
        },
    )


def _tool_called(record: Record, seq: int, visit: Row, rows: Rows) -> None:
    data = record.data
    rows.insert(
        "tool_calls",
        {
            "visit": record.visit,
            "seq": seq,
            "leg": data["leg"],
            "call": data["call"],
            "name": data["name"],
            "arguments": _json(data["arguments"]),
            "called_at": record.at,
        },
    )


def _tool_answered(record: Record, seq: int, visit: Row, rows: Rows) -> None:
    # Providers number their calls anew in each session: the answer is that of the latest call of this id.
    data = record.data
    call = rows.latest_call(record.visit, data["leg"], data["call"])
    if call is None:
        raise _refuse(record, f"no call {data['call']!r:.60} waits for an answer")
    row = {"answered_at": record.at, "result": _json(data["result"]), "ms": _ms(data, "ms")}
    rows.update("tool_calls", (record.visit, call["seq"]), {**row, "status": data["status"]})


def _dial_started(record: Record, seq: int, visit: Row, rows: Rows) -> None:
    if known := _known(record):
        rows.update("visits", (record.visit,), known)


def _known(record: Record) -> Row:
    """What a record says about who came for whom."""
    data = record.data
    return {
        name: value
        for name in ("intent", "visitor_name", "apartment", "resident")
        if isinstance(value := data.get(name), str) and value
    }


def _decision(record: Record, seq: int, visit: Row, rows: Rows) -> None:
    if visit["ended_at"] is not None:
        raise _refuse(record, "the visit is over")
    decision = rows.get("decisions", (record.visit,))
    if decision is not None:
        raise _refuse(record, f"it was decided before ({decision['decision']})")
    data = record.data
    row = {"visit": record.visit, "seq": seq, "at": record.at, "decision": data["decision"]}
    rows.insert("decisions", {**row, "evidence": _json(data["evidence"]), "reason": data.get("reason")})
    rows.update("visits", (record.visit,), {"decision": data["decision"]})


def _gate_requested(record: Record, seq: int, visit: Row, rows: Rows) -> None:
    if visit["ended_at"] is not None:
        raise _refuse(record, "the visit is over")
    decision = rows.get("decisions", (record.visit,))
    if decision is None or decision["decision"] != "authorized":
        raise _refuse(record, "no authorized decision is on record")
    if visit["gate_requested_at"] is not None:
        raise _refuse(record, "the gate was requested before")
    rows.update("visits", (record.visit,), {"gate_requested_at": record.at})


def _gate_answered(record: Record, seq: int, visit: Row, rows: Rows) -> None:
    if visit["gate_requested_at"] is None or visit["gate_answered_at"] is not None:
        raise _refuse(record, "no request waits for the gate's answer")
    row = {"gate_answered_at": record.at, "gate_opened": int(bool(record.data["opened"]))}
    rows.update("visits", (record.visit,), {**row, "gate_detail": record.data["detail"]})


def _visit_cost(record: Record, seq: int, visit: Row, rows: Rows) -> None:
    if visit["ended_at"] is not None:
        raise _refuse(record, "the visit is over")
    data = record.data
    row = {"cost": _billionths(record, "amount"), "cost_usd": _billionths(record, "usd")}
    row |= {"currency": data["currency"], "cost_complete": int(bool(data["complete"] and data["final"]))}
    rows.update("visits", (record.visit,), row)


def _billionths(record: Record, name: str) -> int:
    """An amount of money as a whole number."""
    text = record.data[name]
    if not _AMOUNT.fullmatch(text):
        raise _refuse(record, f"{name} is not an amount such as 0.0125")
    return int(Decimal(text).scaleb(9))


def _visit_recovered(record: Record, seq: int, visit: Row, rows: Rows) -> None:
    if visit["ended_at"] is not None:
        raise _refuse(record, "the visit is over")


def _visit_ended(record: Record, seq: int, visit: Row, rows: Rows) -> None:
    if visit["ended_at"] is not None:
        raise _refuse(record, "the visit is over")
    data = record.data
    row = {"ended_at": record.at, "outcome": data["outcome"], "reason": data.get("reason")}
    rows.update("visits", (record.visit,), {**_known(record), **row})


def _visit_reviewed(record: Record, seq: int, visit: Row, rows: Rows) -> None:
    said = rows.get("reviews", (record.visit,))
    data = record.data
    row = {"seq": seq, "at": record.at, "reviewer": data["by"], "verdict": data["verdict"]}
    row["note"] = data.get("note", "")
    if said is None:
        rows.insert("reviews", {"visit": record.visit, **row})
    else:
        rows.update("reviews", (record.visit,), row)
    rows.update("visits", (record.visit,), {"verdict": data["verdict"]})


CHANGES: Final[Mapping[str, Callable[[Record, int, Row, Rows], None]]] = {
    "leg.connected": _leg_connected,
    "leg.ended": _leg_ended,
    "turn": _turn,
    "tool.called": _tool_called,
    "tool.answered": _tool_answered,
    "dial.started": _dial_started,
    "decision": _decision,
    "gate.requested": _gate_requested,
    "gate.answered": _gate_answered,
    "visit.cost": _visit_cost,
    "visit.recovered": _visit_recovered,
    "visit.ended": _visit_ended,
    "visit.reviewed": _visit_reviewed,
}
"""The kinds that change a table, beside ``visit.started``; all others are in the audit log alone."""

READS: Final[Mapping[str, str]] = {
    "leg.connected": "legs",
    "leg.ended": "legs",
    "decision": "decisions",
    "gate.requested": "decisions",
    "visit.reviewed": "reviews",
}
"""By kind, the table of which its change reads a row, beside the visit's own; a leg's is its leg's."""
