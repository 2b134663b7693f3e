"""Shows a visit as it happens, one line a thing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bridge.watch import Seen

WHO = {
    ("visitor", "caller"): ("visitante", "cyan"),
    ("visitor", "agent"): ("porteiro → visitante", "green"),
    ("resident", "caller"): ("morador", "magenta"),
    ("resident", "agent"): ("porteiro → morador", "green"),
}
STATES = {
    "collecting": "collecting who, why and where",
    "validated": "the resident is known",
    "dialing": "calling the resident",
    "consulting": "asking the resident",
    "connected": "visitor and resident talk to each other",
    "authorized": "authorized",
    "closing": "saying goodbye",
    "ended": "ended",
}


class Story:
    """A watcher that prints."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def watch(self, seen: Seen) -> None:
        """A watcher."""
        line = self._line(seen.kind, seen.data)
        if line is None:
            return
        who, what = line
        row = Table.grid(padding=(0, 1))
        row.add_column(width=9, justify="right")
        row.add_column(width=22, justify="right")
        row.add_column(ratio=1)
        row.add_row(Text(f"{seen.at_ms / 1000:.2f} s", style="dim"), who, what)
        self._console.print(row)

    def _line(self, kind: str, data: Mapping[str, Any]) -> tuple[Text, Text] | None:
        match kind:
            case "turn":
                return _turn(data)
            case "tool.called":
                return _mark("→", f"{data['name']} {_json(data['arguments'])}", "yellow")
            case "tool.answered":
                return _mark("←", f"{data['name']} {_json(data['result'])} ({data['ms']:.0f} ms)", "yellow")
            case "barge_in":
                quiet, heard = data["speech_to_silence_ms"], data["heard_ms"]
                return _mark("⚡", f"barge-in: silent after {quiet:.0f} ms, {heard:.0f} ms heard", "red")
            case "state" if data["state"] in STATES:
                return _mark("·", STATES[data["state"]], "blue")
            case "dial.started":
                return _mark("☎", f"attempt {data['number']}", "blue")
            case "dial.ended":
                return _mark("☎", str(data["outcome"]), "blue")
            case "evidence":
                said = data.get("text") or data.get("key")
                return _mark("✔", f"evidence by {data['by']}: {said!r} reads as {data['reading']}", "bold")
            case "decision":
                return _mark("✔", f"decision: {data['decision']}", "bold")
            case "gate.answered":
                gate = "opened" if data["opened"] else "NOT opened"
                return _mark("▣", f"gate {gate}: {data['detail']}", "bold")
            case "visit.ended":
                return _mark("■", f"{data['outcome']} ({data.get('reason') or ''})", "bold")
            case _:
                return None


def _turn(data: Mapping[str, Any]) -> tuple[Text, Text]:
    leg = "visitor" if data["leg"] == "visitor" else "resident"
    who, colour = WHO[leg, str(data["speaker"])]
    said = Text(str(data["text"]), style=colour)
    if data.get("response_ms") is not None:
        said.append(f"  [{data['response_ms'] / 1000:.1f} s]", style="bright_black")
    if data.get("interrupted"):
        said.append("  [interrupted]", style="red")
    return Text(who, style=colour), said


def _mark(sign: str, text: str, style: str) -> tuple[Text, Text]:
    return Text(sign, style=style), Text(text, style=style)


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
