"""A visit's story for people: every record of it in order, with the time since it started."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from bridge.showing import safe
from storage.base import VisitSummary, VisitView
from visits.audit import AuditRecord, intact

Data = Mapping[str, Any]
Line = tuple[str, str]
"""(text, rich style)"""


def story(view: VisitView, records: Iterable[AuditRecord]) -> list[RenderableType]:
    """What to print: who, the outcome, and then what happened, turns at the time when they began."""
    listed = list(records)
    if not listed:
        return [Text("There is no record of this visit.", "red")]
    roles = {leg.leg: leg.role for leg in view.legs}
    start = datetime.fromisoformat(view.summary.started_at)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(justify="right", style="dim", no_wrap=True)
    table.add_column(justify="right", style="dim", no_wrap=True)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for seconds, record in sorted(((_since(r, start), r) for r in listed), key=lambda pair: pair[0]):
        text, style = line(record)
        whose = str(record.data.get("leg", ""))
        cell = Text(safe(text), style)
        if not intact(record):
            cell = Text.assemble(("CHANGED AFTERWARDS: ", "bold red"), cell)
        table.add_row(f"#{record.seq}", f"{seconds:+.2f} s", safe(roles.get(whose, whose)), cell)
    return [_title(view), table]


def _since(record: AuditRecord, start: datetime) -> float:
    if record.kind == "turn" and isinstance(record.data.get("started_ms"), (int, float)):
        return float(record.data["started_ms"]) / 1000
    try:
        return (datetime.fromisoformat(record.at) - start).total_seconds()
    except (ValueError, TypeError):  # somebody's edit: shown where the visit starts, marked as changed
        return 0.0


def cost_in_words(visit: VisitSummary) -> str:
    """What a visit cost; empty where that is not on record."""
    if visit.cost is None:
        return ""
    amount = Decimal(visit.cost)
    shown = f"{amount.quantize(Decimal('0.0001'))} {visit.currency}"
    return shown if visit.cost_complete else f"≥ {shown}"


def _title(view: VisitView) -> Table:
    visit = view.summary
    started = f"{datetime.fromisoformat(visit.started_at).astimezone():%Y-%m-%d %H:%M:%S %Z}"
    rows = {
        "visit": visit.id,
        "tenant": visit.tenant,
        "started": started,
        "provider": visit.provider,
        "intent": visit.intent,
        "visitor": visit.visitor_name,
        "apartment": visit.apartment,
        "resident": visit.resident,
        "decision": visit.decision,
        "cost": cost_in_words(visit),
        "outcome": f"{visit.outcome or 'running'}{f' ({visit.reason})' if visit.reason else ''}",
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(style="bold")
    for name, value in rows.items():
        if value:
            table.add_row(name, Text(safe(value)))
    table.add_row("", "")
    return table


# --------------------------------------------------------------------------------------------------------
# One record, one line
# --------------------------------------------------------------------------------------------------------


def line(record: AuditRecord) -> Line:
    """A record in a few words. What does not have its kind's shape is shown as it is."""
    write = LINES.get(record.kind)
    try:
        if write is not None:
            return write(record.data)
    except (KeyError, TypeError, ValueError, AttributeError):
        # The store was edited: the reader sees exactly what is there.
        return f"{record.kind} {_json(record.data)}", "red"
    return f"{record.kind}{_rest(record.data)}", "dim"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": "), default=str)


def _rest(data: Data, *shown: str) -> str:
    left = [f"{name}={_json(value)}" for name, value in data.items() if name not in shown]
    return f"  {' '.join(left)}" if left else ""


def _turn(data: Data) -> Line:
    caller = data["speaker"] == "caller"
    notes = [f"{(data['ended_ms'] - data['started_ms']) / 1000:.1f} s"]
    if data.get("response_ms") is not None:
        notes.append(f"after {data['response_ms']:.0f} ms")
    if data.get("interrupted"):
        heard = data.get("heard_ms")
        notes.append("interrupted" if heard is None else f"interrupted, {heard:.0f} ms heard")
    return (
        f"{'caller' if caller else 'agent'}: “{data['text']}”  ({', '.join(notes)})",
        "cyan" if caller else "",
    )


def _tool_called(data: Data) -> Line:
    arguments = data["arguments"]
    if isinstance(arguments, Mapping):
        inside = ", ".join(f"{name}={_json(value)}" for name, value in arguments.items())
    else:
        inside = _json(arguments)
    return f"⚙ {data['name']}({inside})", "magenta"


def _tool_answered(data: Data) -> Line:
    return f"⚙ {data['name']} → {_json(data['result'])}  ({data['status']}, {data['ms']:.0f} ms)", "magenta"


def _evidence(data: Data) -> Line:
    said = f" “{data['text']}”" if "text" in data else f" key {data['key']}" if "key" in data else ""
    return f"evidence by {data['by']}:{said}{_rest(data, 'by', 'text', 'key', 'attempt')}", "yellow"


def _decision(data: Data) -> Line:
    style = "bold green" if data["decision"] == "authorized" else "bold red"
    return (
        f"DECISION: {data['decision']} on {_json(data['evidence'])}{_rest(data, 'decision', 'evidence')}",
        style,
    )


def _gate_answered(data: Data) -> Line:
    opened = data["opened"]
    how = "opened" if opened else "may have opened, nobody knows" if data.get("unknown") else "not opened"
    text = f"GATE {how}: {data['detail']}{_rest(data, 'opened', 'detail', 'unknown')}"
    return text, "bold green" if opened else "bold red"


def _cost(data: Data) -> Line:
    sums: dict[str, int] = {}
    for line in data["usage"]:
        for kind, count in line.items():
            if isinstance(count, int):
                sums[kind] = sums.get(kind, 0) + count
    used = ", ".join(f"{count} {kind}" for kind, count in sums.items())
    so_far = "cost" if data["final"] else "cost so far"
    least = "" if data["complete"] else "at least "
    missing = f"; unknown: {'; '.join(data['unknown'])}" if data["unknown"] else ""
    return f"{so_far}: {least}{data['amount']} {data['currency']}  ({used or 'nothing used'}){missing}", "dim"


LINES: Final[Mapping[str, Callable[[Data], Line]]] = {
    "visit.started": lambda data: (f"the visit starts{_rest(data)}", "bold"),
    "leg.connected": lambda data: (f"leg connected{_rest(data, 'leg', 'role')}", "blue"),
    "leg.ended": lambda data: (f"leg ended: {data['reason']}{_rest(data, 'leg', 'reason')}", "blue"),
    "session.lost": lambda data: (
        f"session lost: {data['reason']}{_rest(data, 'leg', 'reason')}",
        "red",
    ),
    "session.replaced": lambda data: (
        f"goes on with another session{_rest(data, 'leg')}",
        "blue",
    ),
    "turn": _turn,
    "tool.called": _tool_called,
    "tool.answered": _tool_answered,
    "dial.started": lambda data: (f"the resident's phone rings{_rest(data)}", "blue"),
    "dial.ended": lambda data: (f"ringing ended: {data['outcome']}{_rest(data, 'outcome')}", "blue"),
    "briefing.played": lambda data: ("the resident heard the briefing to its end", "yellow"),
    "parties.connected": lambda data: ("visitor and resident talk to each other", "yellow"),
    "parties.ended": lambda data: (
        f"visitor and resident talked for {data['seconds']:.1f} s{_rest(data, 'attempt', 'seconds')}",
        "yellow",
    ),
    "evidence": _evidence,
    "decision": _decision,
    "gate.requested": lambda data: (f"the gate is told to open{_rest(data)}", "bold"),
    "gate.answered": _gate_answered,
    "visit.cost": _cost,
    "visit.ended": lambda data: (f"the visit ends: {data['outcome']}{_rest(data, 'outcome')}", "bold"),
    "visit.recovered": lambda data: (
        f"found open after a crash: {data['reason']}; gate {data['gate']}",
        "bold red",
    ),
    "recording.closed": lambda data: (
        f"recording complete: {data['recording']}, {data['bytes']} bytes, SHA-256 {data['sha256']}",
        "dim",
    ),
    "recording.failed": lambda data: (
        f"recording failed: {data['reason']}{_rest(data, 'leg', 'reason')}",
        "red",
    ),
}
