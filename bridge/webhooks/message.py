"""What an event says, made from its visit's records: the same at each attempt. See docs/webhooks.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson

from storage.base import StorageRefused
from storage.outbox import Outgoing
from storage.projection import Row, Told, VisitRows
from visits.audit import AuditRecord, intact
from visits.personal import ERASED

EVENTS: Final = {
    "visit.started": "visit.started",
    "visit.decided": "decision",
    "visit.ended": "visit.ended",
}
"""The kinds of records that events tell of, by the events' names."""
NAMES: Final = {kind: name for name, kind in EVENTS.items()}


class NotTellableError(Exception):
    """The records of an event are not what was sealed, or not there: nobody is told of it."""


def body_of(event: Outgoing, records: Sequence[AuditRecord], *, personal: bool) -> bytes:
    """An event as JSON.

    Args:
        event: which one.
        records: its visit's up to its own, which is the last; see :data:`storage.outbox.TELLING`.
        personal: whether it names people. What is erased is null.

    Raises:
        NotTellableError: see there.
    """
    if not records or records[-1].seq != event.seq or not all(map(intact, records)):
        raise NotTellableError(f"the records of event {event.id} are not what was sealed; see `audit verify`")
    rows = VisitRows()
    try:
        for record in records:
            told = Told(record.tenant, record.visit, record.at, record.kind, record.data)
            rows.apply(told, record.seq)
    except (StorageRefused, LookupError, TypeError, ValueError) as error:
        raise NotTellableError(f"the records of event {event.id} can't follow each other: {error}") from error
    visit = rows.tables["visits"][event.visit,]
    first, last = records[0], records[-1]
    data: dict[str, Any] = {
        "visit": event.visit,
        "tenant": event.tenant,
        "record": event.seq,
        "started_at": visit["started_at"],
        "test": first.data.get("test") is True,
        "apartment": visit["apartment"],
        "intent": visit["intent"],
    }
    if event.kind != "visit.started":
        data |= _decided(rows, event.visit)
    if event.kind == "visit.ended":
        data |= {"outcome": visit["outcome"], "reason": visit["reason"], "gate": _gate(visit)}
    if personal:
        data["personal"] = {
            "caller_id": _kept(first.data.get("caller_id")),
            "visitor_name": _kept(visit["visitor_name"]),
            "resident": _kept(visit["resident"]),
        }
    return orjson.dumps({"type": NAMES[event.kind], "timestamp": last.at, "data": data})


def _decided(rows: VisitRows, visit: str) -> dict[str, Any]:
    """What was decided, and whether by words or a key; nulls where nothing was."""
    row = rows.get("decisions", (visit,))
    if row is None:
        return {"decision": None, "decided_by": None}
    evidence = orjson.loads(row["evidence"])
    by = evidence[0].get("by") if evidence and isinstance(evidence[0], dict) else None
    return {"decision": row["decision"], "decided_by": by}


def _gate(visit: Row) -> str | None:
    """What the gate did: null where it was not asked."""
    if visit["gate_requested_at"] is None:
        return None
    if visit["gate_opened"] is None:
        return "unknown"
    return "opened" if visit["gate_opened"] else "refused"


def _kept(said: object) -> str | None:
    """What is said of a person; None where nothing is, or nothing any more."""
    return said if isinstance(said, str) and said and said != ERASED else None


__all__ = ["EVENTS", "NAMES", "NotTellableError", "body_of"]
