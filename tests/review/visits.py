"""Visits for the review's tests: records, sealed, and the view that a store gives of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from storage.base import LegView, VisitSummary, VisitView
from storage.projection import VisitRows
from visits.audit import AuditRecord, draft, stamp

START = datetime(2026, 11, 21, 20, 38, 47, tzinfo=UTC)
VISIT = "6f1c2e34-0000-4000-8000-00000000abcd"
TENANT = "jardim"

Told = tuple[float, str, Mapping[str, Any]]
"""Seconds since the visit began, kind, data."""

ATTEMPT = "0cb74e57-4cd9-4fa6-a9b6-a38512cf74b0"
HOSTILE = "</text><script>alert(1)</script>]]>&\"'\x00\x1b[2J\u202e{who}"


def turn(leg: str, speaker: str, text: str, began: float, ended: float, **more: Any) -> Told:
    data = {
        "leg": leg,
        "speaker": speaker,
        "text": text,
        "started_ms": began * 1000,
        "ended_ms": ended * 1000,
    }
    return ended + 0.02, "turn", {**data, **more}


def evidence(**more: Any) -> Mapping[str, Any]:
    return {
        "attempt": ATTEMPT,
        "by": "voice",
        "text": "Pode liberar.",
        "reading": "consent",
        "began_s": 22.913,
        **more,
    }


STORY: list[Told] = [
    (
        0.0,
        "visit.started",
        {"endpoint": "audiosocket", "provider": "local", "settings": {"version": 7, "digest": "0"}},
    ),
    (0.001, "leg.connected", {"leg": "visitor", "role": "visitor", "opened_ms": 1.0}),
    turn(
        "visitor",
        "agent",
        "Olá, você ligou",
        0.04,
        2.437,
        interrupted=True,
        heard_ms=2380.0,
        speech_to_silence_ms=76.0,
    ),
    turn("visitor", "caller", "Eu sou a Júlia, vim visitar a Fernanda Souza no 201.", 1.82, 5.7),
    (
        7.8,
        "tool.called",
        {"leg": "visitor", "call": "1", "name": "lookup_apartment", "arguments": {"apartment": "201"}},
    ),
    (
        7.803,
        "tool.answered",
        {
            "leg": "visitor",
            "call": "1",
            "name": "lookup_apartment",
            "ms": 3.0,
            "status": "found",
            "result": {"status": "found", "apartment": "201"},
        },
    ),
    (7.85, "dial.started", {"attempt": ATTEMPT, "number": 1, "apartment": "201"}),
    (9.85, "dial.ended", {"attempt": ATTEMPT, "outcome": "answered"}),
    (9.86, "leg.connected", {"leg": "resident-1", "role": "resident", "opened_ms": 9858.0}),
    turn("visitor", "agent", "Certo, vou chamar o apartamento 201.", 7.9, 13.1, pauses=[[9000.0, 500.0]]),
    turn("visitor", "caller", "Ahã.", 8.9, 9.3),
    turn("resident-1", "agent", "Olá, aqui é da portaria.", 11.0, 22.44),
    (22.468, "briefing.played", {"attempt": ATTEMPT}),
    turn("resident-1", "caller", "Pode liberar.", 22.913, 23.9),
    (27.2, "tool.called", {"leg": "resident-1", "call": "1", "name": "authorize_entry", "arguments": {}}),
    (27.51, "evidence", evidence()),
    (27.515, "decision", {"decision": "authorized", "evidence": [evidence()]}),
    (27.52, "gate.requested", {"gate": "record"}),
    (27.525, "gate.answered", {"opened": True, "detail": "recorded"}),
    (
        27.53,
        "tool.answered",
        {
            "leg": "resident-1",
            "call": "1",
            "name": "authorize_entry",
            "ms": 330.0,
            "status": "authorized",
            "result": {"status": "authorized"},
        },
    ),
    turn("visitor", "agent", "Entrada autorizada.", 27.55, 31.8),
    (
        31.9,
        "leg.ended",
        {"leg": "visitor", "reason": "local", "recording": f"{TENANT}/2026-11-21/{VISIT}-visitor.wav"},
    ),
    (33.0, "leg.ended", {"leg": "resident-1", "reason": "hangup", "recording": None}),
    (
        33.05,
        "visit.cost",
        {
            "amount": "0.0123",
            "currency": "USD",
            "usd": "0.0123",
            "final": True,
            "complete": True,
            "unknown": [],
            "usage": [],
        },
    ),
    (
        33.1,
        "visit.ended",
        {
            "outcome": "authorized",
            "reason": "opened",
            "visitor_name": "Júlia",
            "apartment": "201",
            "intent": "visita",
        },
    ),
]
"""A visitor speaks over the greeting; the resident lets them in by a word."""


def sealed(told: Iterable[Told]) -> list[AuditRecord]:
    """Records of a visit."""
    records: list[AuditRecord] = []
    for seconds, kind, data in told:
        at = stamp(START + timedelta(seconds=seconds))
        made = draft(tenant=TENANT, visit=VISIT, at=at, kind=kind, data=data)
        records.append(made.sealed(records[-1] if records else None))
    return records


def view_of(records: Iterable[AuditRecord]) -> VisitView:
    """The visit as a store shows it: what the review reads of it."""
    rows = VisitRows()
    for record in records:
        made = draft(
            tenant=record.tenant, visit=record.visit, at=record.at, kind=record.kind, data=record.data
        )
        rows.apply(made, record.seq)
    (visit,) = rows.tables["visits"].values()
    names = VisitSummary.__dataclass_fields__
    known: dict[str, Any] = {name: visit.get(name) for name in names}
    known |= {"cost": None, "cost_complete": None, "decision": None}
    legs = []
    for leg in rows.tables["legs"].values():
        told: dict[str, Any] = {name: leg.get(name) for name in LegView.__dataclass_fields__}
        legs.append(LegView(**told))
    return VisitView(VisitSummary(**known), tuple(legs), (), (), None)
