"""What a record changes in the tables that visits are read from, in the transaction that writes the record.

Here is also refused what cannot follow from what is already on record: a gate request without an authorized
decision, an answer without a question, anything of a visit that never started.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

from storage.base import StorageRefused
from visits.audit import Draft

_AMOUNT: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
"""Money: below what a column can hold in billionths."""

Change = Callable[[sqlite3.Connection, Draft, int], None]


def project(connection: sqlite3.Connection, record: Draft, seq: int) -> None:
    """Write what follows from record number ``seq``. Raises :class:`StorageRefused`, or SQLite's errors."""
    if not record.visit:
        return
    if record.kind != "visit.started":
        _check_visit(connection, record)
    change = CHANGES.get(record.kind)
    if change is not None:
        change(connection, record, seq)


def _check_visit(connection: sqlite3.Connection, record: Draft) -> None:
    row = connection.execute("SELECT tenant FROM visits WHERE id = ?", (record.visit,)).fetchone()
    if row is None:
        raise StorageRefused(f"a {record.kind} record of visit {record.visit}, which never started")
    if row[0] != record.tenant:
        raise StorageRefused(f"visit {record.visit} is not a visit of tenant {record.tenant!r}")


def _refuse(record: Draft, why: str) -> StorageRefused:
    return StorageRefused(f"a {record.kind} record of visit {record.visit} is refused: {why}")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _ms(data: Mapping[str, Any], name: str) -> float | None:
    value = data.get(name)
    return None if value is None else float(value)


def _visit_started(connection: sqlite3.Connection, record: Draft, seq: int) -> None:
    if connection.execute("SELECT 1 FROM visits WHERE id = ?", (record.visit,)).fetchone():
        raise _refuse(record, "it started before")
    connection.execute(
        "INSERT INTO visits (id, tenant, started_at, provider) VALUES (?, ?, ?, ?)",
        (record.visit, record.tenant, record.at, record.data.get("provider")),
    )


def _leg_connected(connection: sqlite3.Connection, record: Draft, seq: int) -> None:
    data = record.data
    known = "SELECT 1 FROM legs WHERE visit = ? AND leg = ?"
    if connection.execute(known, (record.visit, data["leg"])).fetchone():
        raise _refuse(record, f"leg {data['leg']!r:.60} connected before")
    connection.execute(
        "INSERT INTO legs (visit, leg, seq, role, endpoint, peer, provider, connected_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            record.visit,
            data["leg"],
            seq,
            data["role"],
            data.get("endpoint"),
            data.get("peer"),
            data.get("provider"),
            record.at,
        ),
    )


def _leg_ended(connection: sqlite3.Connection, record: Draft, seq: int) -> None:
    data = record.data
    changed = connection.execute(
        "UPDATE legs SET ended_at = ?, reason = ?, recording = ?"
        " WHERE visit = ? AND leg = ? AND ended_at IS NULL",
        (record.at, data["reason"], data.get("recording"), record.visit, data["leg"]),
    ).rowcount
    if not changed:
        raise _refuse(record, f"leg {data['leg']!r:.60} is not connected")


def _turn(connection: sqlite3.Connection, record: Draft, seq: int) -> None:
    data = record.data
    connection.execute(
        "INSERT INTO turns (visit, seq, leg, speaker, text, started_ms, ended_ms, response_ms, interrupted,"
        " heard_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            record.visit,
            seq,
            data["leg"],
            data["speaker"],
            data["text"],
            _ms(data, "started_ms"),
            _ms(data, "ended_ms"),
            _ms(data, "response_ms"),
            bool(data.get("interrupted")),
            _ms(data, "heard_ms"),
        ),
    )


def _tool_called(connection: sqlite3.Connection, record: Draft, seq: int) -> None:
    data = record.data
    connection.execute(
        "INSERT INTO tool_calls (visit, seq, leg, call, name, arguments, called_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (record.visit, seq, data["leg"], data["call"], data["name"], _json(data["arguments"]), record.at),
    )


def _tool_answered(connection: sqlite3.Connection, record: Draft, seq: int) -> None:
    # Providers number their calls anew in each session: the answer is that of the latest call of this id.
    data = record.data
    changed = connection.execute(
        "UPDATE tool_calls SET answered_at = ?, result = ?, ms = ?, status = ? WHERE visit = ? AND seq ="
        " (SELECT max(seq) FROM tool_calls WHERE visit = ? AND leg = ? AND call = ? AND answered_at IS NULL)",
        (
            record.at,
            _json(data["result"]),
            _ms(data, "ms"),
            data["status"],
            record.visit,
            record.visit,
            data["leg"],
            data["call"],
        ),
    ).rowcount
    if not changed:
        raise _refuse(record, f"no call {data['call']!r:.60} waits for an answer")


def _dial_started(connection: sqlite3.Connection, record: Draft, seq: int) -> None:
    _know(connection, record)


def _know(connection: sqlite3.Connection, record: Draft) -> None:
    """Keep what a record says about who came for whom."""
    for column in ("intent", "visitor_name", "apartment", "resident"):
        value = record.data.get(column)
        if isinstance(value, str) and value:
            connection.execute(f"UPDATE visits SET {column} = ? WHERE id = ?", (value, record.visit))


def _state(connection: sqlite3.Connection, record: Draft) -> tuple[bool, str | None, bool, bool]:
    """(ended, decision, gate requested, gate answered) of the record's visit."""
    row = connection.execute(
        "SELECT v.ended_at IS NOT NULL, d.decision, v.gate_requested_at IS NOT NULL,"
        " v.gate_answered_at IS NOT NULL"
        " FROM visits v LEFT JOIN decisions d ON d.visit = v.id WHERE v.id = ?",
        (record.visit,),
    ).fetchone()
    return bool(row[0]), row[1], bool(row[2]), bool(row[3])


def _decision(connection: sqlite3.Connection, record: Draft, seq: int) -> None:
    ended, decision, _, _ = _state(connection, record)
    if ended:
        raise _refuse(record, "the visit is over")
    if decision is not None:
        raise _refuse(record, f"it was decided before ({decision})")
    data = record.data
    connection.execute(
        "INSERT INTO decisions (visit, seq, at, decision, evidence, reason) VALUES (?, ?, ?, ?, ?, ?)",
        (record.visit, seq, record.at, data["decision"], _json(data["evidence"]), data.get("reason")),
    )


def _gate_requested(connection: sqlite3.Connection, record: Draft, seq: int) -> None:
    ended, decision, requested, _ = _state(connection, record)
    if ended:
        raise _refuse(record, "the visit is over")
    if decision != "authorized":
        raise _refuse(record, "no authorized decision is on record")
    if requested:
        raise _refuse(record, "the gate was requested before")
    connection.execute("UPDATE visits SET gate_requested_at = ? WHERE id = ?", (record.at, record.visit))


def _gate_answered(connection: sqlite3.Connection, record: Draft, seq: int) -> None:
    _, _, requested, answered = _state(connection, record)
    if not requested or answered:
        raise _refuse(record, "no request waits for the gate's answer")
    connection.execute(
        "UPDATE visits SET gate_answered_at = ?, gate_opened = ?, gate_detail = ? WHERE id = ?",
        (record.at, bool(record.data["opened"]), record.data["detail"], record.visit),
    )


def _visit_cost(connection: sqlite3.Connection, record: Draft, seq: int) -> None:
    if _state(connection, record)[0]:
        raise _refuse(record, "the visit is over")
    data = record.data
    connection.execute(
        "UPDATE visits SET cost = ?, cost_usd = ?, currency = ?, cost_complete = ? WHERE id = ?",
        (
            _billionths(record, "amount"),
            _billionths(record, "usd"),
            data["currency"],
            data["complete"] and data["final"],
            record.visit,
        ),
    )


def _billionths(record: Draft, name: str) -> int:
    """An amount of money as a whole number."""
    text = record.data[name]
    if not _AMOUNT.fullmatch(text):
        raise _refuse(record, f"{name} is not an amount such as 0.0125")
    return int(Decimal(text).scaleb(9))


def _visit_recovered(connection: sqlite3.Connection, record: Draft, seq: int) -> None:
    if _state(connection, record)[0]:
        raise _refuse(record, "the visit is over")


def _visit_ended(connection: sqlite3.Connection, record: Draft, seq: int) -> None:
    if _state(connection, record)[0]:
        raise _refuse(record, "the visit is over")
    _know(connection, record)
    connection.execute(
        "UPDATE visits SET ended_at = ?, outcome = ?, reason = ? WHERE id = ?",
        (record.at, record.data["outcome"], record.data.get("reason"), record.visit),
    )


CHANGES: Mapping[str, Change] = {
    "visit.started": _visit_started,
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
}
"""The kinds that change a table; all others are in the audit log alone."""
