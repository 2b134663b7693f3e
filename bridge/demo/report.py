"""What a demo's visit amounts to, as one JSON object."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bridge.watch import Seen
from storage.base import Storage

NAMED = ("authorized", "denied", "unreachable", "abandoned")
"""The outcomes that count as a visit that came to its end."""


class Meter:
    """A watcher that keeps what is not in the audit log: the barge-ins."""

    def __init__(self) -> None:
        self._barge_ins: dict[str, list[dict[str, Any]]] = {}

    def watch(self, seen: Seen) -> None:
        """A watcher."""
        if seen.kind == "barge_in":
            self._barge_ins.setdefault(seen.visit, []).append(dict(seen.data))

    def barge_ins(self, visit: str) -> list[dict[str, Any]]:
        """A visit's barge-ins (leg, speech_to_silence_ms, heard_ms), in order."""
        return list(self._barge_ins.get(visit, ()))


async def report(
    storage: Storage, visit_id: str, recordings: Path, barge_ins: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Read a visit back from the audit log, and verify the log.

    Returns:
        `outcome`, `gate_opened`, `visit_id`, `visitor_name`, `intent`, `apartment`, `resident`, `tool_calls`
        (role, name, arguments, result, ms), `turns` (leg, speaker, text, started_ms, ended_ms, response_ms),
        `barge_ins` (leg, speech_to_silence_ms, heard_ms), `recordings`, `audit_ok`.
    """
    view = await storage.visit(visit_id)
    faults = await storage.verify()
    summary = view.summary if view is not None else None
    return {
        "outcome": (summary.outcome if summary else None) or "failed",
        "gate_opened": bool(summary and summary.gate_opened),
        "visit_id": visit_id,
        "visitor_name": (summary.visitor_name if summary else None) or None,
        "intent": summary.intent if summary else None,
        "apartment": summary.apartment if summary else None,
        "resident": (summary.resident if summary else None) or None,
        "tool_calls": [
            {
                "role": call.role,
                "name": call.name,
                "arguments": call.arguments,
                "result": call.result,
                "ms": call.ms,
            }
            for call in (view.tool_calls if view else ())
        ],
        "turns": [
            {
                "leg": turn.leg,
                "speaker": turn.speaker,
                "text": turn.text,
                "started_ms": turn.started_ms,
                "ended_ms": turn.ended_ms,
                "response_ms": turn.response_ms,
            }
            for turn in (view.turns if view else ())
        ],
        "barge_ins": list(barge_ins),
        "recordings": [
            str(recordings / leg.recording) for leg in (view.legs if view else ()) if leg.recording
        ],
        "audit_ok": view is not None and not faults,
    }
