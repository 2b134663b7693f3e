"""A visit in words, in the reader's language: the rules as sentences, and what happened as rows of a table.

The picture, the page and whoever can't see a picture are told the same from here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from bridge.http.console.language import Language
from bridge.review.model import Call, Cost, Dial, Evidence, Gate, Rule, Span, Timeline
from bridge.showing import safe

LONGEST: Final = 4_000
"""Characters of a text, arguments or a result that are shown; all of it is in the records."""


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that happened."""

    at_ms: float
    record: int
    kind: str
    """turn, call, dial, leg, lost, briefing, evidence, decision, gate, cost, note or over."""
    who: str
    """Whose side it is of: visitor, resident, agent, or "" for nobody's."""
    name: str
    words: str
    notes: tuple[str, ...] = ()
    fields: tuple[tuple[str, str], ...] = ()
    """Names and JSON."""
    stressed: bool = False
    """The decision rests on it."""
    mood: str = ""
    """good, bad, warn or ""."""


def shown(text: str | None) -> str:
    """Somebody's words, so that they can only be shown, and not without end."""
    told = safe(text or "")
    return told if len(told) <= LONGEST else f"{told[:LONGEST]}…"


def sentence(rule: Rule, t: Language) -> str:
    """A rule in words."""
    facts: dict[str, object] = {}
    for name, value in rule.facts.items():
        if isinstance(value, float):
            facts[name] = t.number(value, 1)
        elif isinstance(value, int):
            facts[name] = t.number(value)
        else:
            facts[name] = t.of("review.dial", value) if name == "outcome" else shown(value)
    held = {True: "yes", False: "no", None: "look"}[rule.held]
    return t(f"review.rule.{rule.name}.{held}").format_map(facts)


def amount(cost: Cost, t: Language) -> str:
    """What a visit cost by then."""
    try:
        value: Decimal | None = Decimal(cost.amount)
    except InvalidOperation:
        value = None
    told = t.money(value) if value is not None and value.is_finite() else shown(cost.amount)
    told = f"{shown(cost.currency)} {told}"
    return told if cost.complete else t("review.event.at_least", amount=told)


def gate_words(gate: Gate, t: Language) -> str:
    """What the gate answered, in a few words."""
    if gate.end_ms is None:
        return t("review.gate.silent")
    if gate.opened:
        return t("review.gate.opened", ms=t.number(gate.end_ms - gate.at_ms))
    return t("review.gate.unknown" if gate.unknown else "review.gate.refused")


def dial_words(dial: Dial, t: Language) -> str:
    """How a try ended."""
    return t.of("review.dial", shown(dial.outcome) if dial.outcome is not None else "running")


def evidence_words(one: Evidence, t: Language) -> str:
    """What was said or pressed, and how it was read."""
    by = "key" if one.key is not None else "voice"
    reading = t.of("review.reading", shown(one.reading))
    return t(f"review.event.evidence_{by}", words=shown(one.key or one.text), reading=reading)


def span_name(span: Span, t: Language) -> str:
    """Who says it."""
    return t(f"review.speaker.{span.role if span.speaker == 'caller' else f'to_{span.role}'}")


def rows(read: Timeline, t: Language, who: Callable[[str], str] | None = None) -> list[Row]:
    """What happened, in its order. ``who``: how people are spoken of; None: as records name them."""
    found = [
        *_of_legs(read, t),
        *_of_spans(read, t),
        *_of_decision(read, t),
        *_of_rest(read, t, who or shown),
    ]
    return sorted(found, key=lambda row: (row.at_ms, row.record))


def _of_legs(read: Timeline, t: Language) -> Iterator[Row]:
    for lane in read.lanes:
        who = t(f"review.lane.{lane.role}")
        notes = tuple(shown(each) for each in (lane.endpoint, lane.provider) if each)
        yield Row(lane.start_ms, lane.seq, "leg", lane.role, t("review.event.connected", who=who), "", notes)
        if lane.end_ms is not None and lane.end_seq is not None:
            told = t("review.event.ended", who=who, reason=t.of("review.ended", shown(lane.reason)))
            yield Row(lane.end_ms, lane.end_seq, "leg", lane.role, told, "")
    for dial in read.dials:
        attempt = t("review.dial.attempt", number=dial.number or "?")
        name = t("review.event.dial", attempt=attempt, outcome=dial_words(dial, t))
        mood = "" if dial.outcome in (None, "answered") else "warn"
        yield Row(dial.at_ms, dial.seq, "dial", "", name, shown(dial.detail), mood=mood)


def _of_spans(read: Timeline, t: Language) -> Iterator[Row]:
    barged = {one.seq: one for one in read.barge_ins}
    pauses: dict[int, list[float]] = {}
    for pause in read.pauses:
        pauses.setdefault(pause.seq, []).append(pause.ms)
    for span in read.spans:
        notes = []
        if span.response_ms is not None:
            notes.append(t("review.event.response", seconds=t.number(span.response_ms / 1000, 1)))
        if span.interrupted:
            by = t(f"review.lane.{span.role}").lower()
            notes.append(t("review.event.barged", by=by, who=by))
            if (silence := barged[span.seq].speech_to_silence_ms if span.seq in barged else None) is not None:
                notes.append(t("review.event.silence", ms=t.number(silence)))
            if span.heard_ms is not None:
                notes.append(t("review.event.heard", seconds=t.number(span.heard_ms / 1000, 1)))
        notes += [t("review.event.pause", ms=t.number(ms)) for ms in pauses.get(span.seq, ())]
        if span.backchannel:
            notes.append(t("review.event.backchannel"))
        yield Row(
            span.start_ms,
            span.seq,
            "turn",
            span.role if span.speaker == "caller" else "agent",
            span_name(span, t),
            shown(span.text),
            tuple(notes),
            stressed=span.evidence,
        )


def _of_decision(read: Timeline, t: Language) -> Iterator[Row]:
    for briefing in read.briefings:
        yield Row(briefing.at_ms, briefing.seq, "briefing", "resident", t("review.event.briefing"), "")
    for one in read.evidence:
        stressed = read.decision is not None and one.seq in read.decision.evidence
        # After the words themselves, which are a row of their own.
        yield Row(one.at_ms, one.seq, "evidence", "resident", evidence_words(one, t), "", stressed=stressed)
    if (decision := read.decision) is not None:
        word = t.of("review.decision", shown(decision.decision))
        mood = "good" if decision.decision == "authorized" else "bad"
        name = t("review.event.decision", decision=word)
        yield Row(decision.at_ms, decision.seq, "decision", "", name, shown(decision.reason), mood=mood)
    if (gate := read.gate) is not None:
        notes = (gate_words(gate, t), shown(gate.detail))
        mood = "good" if gate.opened else "bad" if gate.end_ms is not None else "warn"
        yield Row(
            gate.at_ms,
            gate.seq,
            "gate",
            "",
            t("review.gate.asked"),
            "",
            tuple(note for note in notes if note),
            mood=mood,
        )


def _of_rest(read: Timeline, t: Language, who: Callable[[str], str]) -> Iterator[Row]:
    yield from (_of_call(call, t) for call in read.calls)
    for stretch in read.connected:
        yield Row(
            stretch.start_ms, stretch.seq, "leg", "", t("review.event.parties"), "", (shown(stretch.detail),)
        )
    for stretch in read.lost:
        after = t("review.event.not_replaced")
        if stretch.end_ms is not None:
            seconds = t.number((stretch.end_ms - stretch.start_ms) / 1000, 1)
            after = t("review.event.replaced", seconds=seconds)
        notes = (after, shown(stretch.detail))
        yield Row(stretch.start_ms, stretch.seq, "lost", "", t("review.event.lost"), "", notes, mood="bad")
    told = ""
    for cost in read.costs:
        if cost.amount != told or cost.final:
            told = cost.amount
            name = t("review.event.final_cost" if cost.final else "review.event.cost", amount=amount(cost, t))
            yield Row(cost.at_ms, cost.seq, "cost", "", name, "")
    for moment in read.moments:
        name = t.of("review.kind", moment.kind)
        words = who(moment.detail) if moment.kind == "visit.hung_up" else moment.detail
        yield Row(moment.at_ms, moment.seq, "note", "", name, shown(words))
    if read.end_ms is not None:
        over = t("review.event.over", outcome=t.of("outcome", read.outcome).lower())
        reason = t.of("why_ended", shown(read.reason)) if read.reason is not None else ""
        yield Row(read.end_ms, _LAST, "over", "", over, reason)


_LAST: Final = 1 << 60
"""The end has the last word among what happened at the same time."""


def _of_call(call: Call, t: Language) -> Row:
    if call.status is None:
        notes = [t("review.event.unanswered")]
    else:
        notes = [shown(call.status)]
        if call.ms is not None:
            notes.append(t("review.event.answer", ms=t.number(call.ms)))
    fields = [(t("review.event.arguments"), as_json(call.arguments))]
    if call.end_ms is not None:
        fields.append((t("review.event.result"), as_json(call.result)))
    return Row(
        call.at_ms,
        call.seq,
        "call",
        "agent",
        t("review.event.call", tool=tool_name(call, t)),
        shown(call.name),
        tuple(notes),
        tuple(fields),
        mood="bad" if call.status in FAILED else "",
    )


FAILED: Final = frozenset({"invalid", "refused", "timeout", "failed", "cancelled", "error"})
"""What tools answer where they did not do what they were asked for."""


def tool_name(call: Call, t: Language) -> str:
    """What a tool does."""
    return t.of("review.tool", shown(call.name))


def as_json(value: Any) -> str:
    """JSON to be read by people."""
    return shown(json.dumps(value, ensure_ascii=False, separators=(", ", ": "), default=str))
