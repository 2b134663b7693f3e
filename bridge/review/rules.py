"""The rules that held, as sentences: made out of what is on record, not out of what should have happened."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bridge.review.model import Decision, Evidence, Gate, Lane, Rule, Timeline


def rules(read: Timeline, orders: Sequence[int]) -> Iterator[Rule]:
    """What the records show of the rules by which a gate opens (visits/visit.py has them).

    Args:
        read: the visit, but for its rules.
        orders: the numbers of the orders that the gate was given.
    """
    for dial in read.dials:
        if dial.outcome not in (None, "answered"):
            facts: dict[str, str | float | int] = {
                "number": dial.number or 0,
                "outcome": dial.outcome or "",
            }
            yield Rule("not_reached", True, dial.at_ms, (dial.seq,), facts)
    decided = read.decision
    grounds = [one for one in read.evidence if decided is not None and one.seq in decided.evidence]
    if decided is not None and decided.decision == "denied":
        yield _words(grounds[-1] if grounds else None, "refusal", decided, None)
    if orders or (decided is not None and decided.decision == "authorized"):
        yield from _of_opening(read, grounds[-1] if grounds else None, orders)
    else:
        yield Rule("closed", True)
    yield Rule("sealed", not read.changed, None, read.changed, {"n": len(read.changed)})


def _of_opening(read: Timeline, ground: Evidence | None, orders: Sequence[int]) -> Iterator[Rule]:
    attempt = ground.attempt if ground is not None else ""
    before = ground.seq if ground is not None else 0
    answered = [d for d in read.dials if d.attempt == attempt and d.outcome == "answered" and d.seq < before]
    yield _by(
        "called", answered, lambda dial: {"number": dial.number or 0, "apartment": dial.apartment or ""}
    )
    yield _by("on_the_line", _legs_of(read, ground, orders), lambda _: {})
    briefed = [one for one in read.briefings if one.attempt == attempt and one.seq < before]
    yield _by("briefed", briefed, lambda one: {"at_s": round(one.at_ms / 1000, 1)})
    yield _words(ground, "consent", read.decision, briefed[0].at_ms if briefed else None)
    if ground is not None and ground.text is not None:
        yield _undisputed(read, ground)
    if read.decision is not None:
        first = bool(orders) and read.decision.seq < orders[0]
        yield Rule("recorded_first", first, read.decision.at_ms, (read.decision.seq, *orders))
    else:
        yield Rule("recorded_first", False, None, tuple(orders))
    yield Rule("once", len(orders) == 1, None, tuple(orders), {"n": len(orders)})
    if read.gate is not None:
        yield _of_gate(read.gate, read.running)


def _by(name: str, found: Sequence[Any], facts: Callable[[Any], Mapping[str, str | float | int]]) -> Rule:
    if not found:
        return Rule(name, False)
    one = found[0]
    at = one.start_ms if isinstance(one, Lane) else one.at_ms
    return Rule(name, True, at, (one.seq,), facts(one))


def _legs_of(read: Timeline, ground: Evidence | None, orders: Sequence[int]) -> list[Lane]:
    """The resident's leg of the evidence, where it was connected until the gate had its order."""
    if ground is None:
        return []
    until = orders[0] if orders else ground.seq
    return [
        lane
        for lane in read.lanes
        if lane.leg == ground.leg
        and lane.role == "resident"
        and lane.seq < ground.seq
        and (lane.end_seq is None or lane.end_seq > until)
    ]


def _words(
    ground: Evidence | None, reading: str, decision: Decision | None, briefed_ms: float | None
) -> Rule:
    """What was said or pressed, and whether it was read as that."""
    if ground is None:
        return Rule(f"nothing_{reading}", False, decision.at_ms if decision is not None else None)
    name = f"{'pressed' if ground.key is not None else 'said'}_{reading}"
    facts: dict[str, str | float | int] = {"words": ground.key or ground.text or ""}
    if briefed_ms is not None:
        facts["after_s"] = round(max(0.0, ground.at_ms - briefed_ms) / 1000, 1)
        name += "_after"
    held = None if ground.reading is None else ground.reading == reading and ground.role == "resident"
    records = (ground.seq,) if ground.turn is None else (ground.turn, ground.seq)
    return Rule(name, held, ground.at_ms, records, facts)


def _undisputed(read: Timeline, ground: Evidence) -> Rule:
    """Whether the resident said anything more before the order."""
    until = read.gate.at_ms if read.gate is not None else math.inf
    more = [
        span
        for span in read.spans
        if (span.leg, span.speaker) == (ground.leg, "caller")
        and span.seq != ground.turn
        and ground.at_ms < span.start_ms <= until
    ]
    if not more:
        return Rule("undisputed", True, ground.at_ms)
    words = " … ".join(span.text for span in more)
    return Rule("undisputed", None, more[0].start_ms, tuple(span.seq for span in more), {"words": words})


def _of_gate(gate: Gate, running: bool) -> Rule:
    if gate.end_ms is None:
        return Rule("gate_silent", None if running else False, gate.at_ms, (gate.seq,))
    facts: dict[str, str | float | int] = {"ms": round(gate.end_ms - gate.at_ms), "detail": gate.detail or ""}
    if gate.opened:
        return Rule("gate_opened", True, gate.end_ms, (gate.seq,), facts)
    return Rule("gate_unknown" if gate.unknown else "gate_refused", False, gate.end_ms, (gate.seq,), facts)
