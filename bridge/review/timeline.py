"""A visit on one time line, out of its records: who was connected when, who spoke, what was decided on what.

Without I/O. All times are milliseconds on the visit's clock, which begins with `visit.started`. Records may
be an older version's, or edited by somebody: what isn't there, or isn't of its kind's shape, is left out,
never guessed.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from bridge.review.model import (
    BargeIn,
    Briefing,
    Call,
    Cost,
    Decision,
    Dial,
    Evidence,
    Gate,
    Lane,
    Moment,
    Pause,
    Role,
    Span,
    Stretch,
    Timeline,
)
from bridge.review.rules import rules
from storage.base import VisitView
from visits.audit import AuditRecord, intact

LONGEST_MS: Final = 24 * 3600 * 1000.0
"""No visit is longer; what claims to be later is shown there."""
SAME_MS: Final = 2.0
"""Evidence and its turn say when it began, each rounded in its own way."""
LONGEST_LEAD_MS: Final = 500.0
"""What is more than that is no lead, but a clock that was set."""
PAUSE_SLACK_MS: Final = 400.0
"""A word for which we paused was heard to begin so long before at most."""

Data = Mapping[str, Any]


def timeline(view: VisitView, records: Iterable[AuditRecord]) -> Timeline:
    """The time line of a visit.

    Args:
        view: the visit as its tables have it.
        records: all its records, in the order of their numbers.
    """
    return _Reading(view, list(records)).timeline()


# --------------------------------------------------------------------------------------------------------
# What a record says, if it says it
# --------------------------------------------------------------------------------------------------------


def _text(data: Data, name: str) -> str | None:
    value = data.get(name)
    return value if isinstance(value, str) else None


def _number(data: Data, name: str) -> float | None:
    return _finite(data.get(name))


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _within(ms: float) -> float:
    return min(max(ms, 0.0), LONGEST_MS)


def _role(text: str | None) -> Role:
    return "visitor" if text == "visitor" else "resident"


class _Reading:
    """The records of one visit, being read."""

    def __init__(self, view: VisitView, records: list[AuditRecord]) -> None:
        self._view = view
        self._records = records
        self._start = _moment(view.summary.started_at)
        self._lead_ms = 0.0
        self._latest_ms = LONGEST_MS
        self._roles = {leg.leg: _role(leg.role) for leg in view.legs}
        self._by_kind: dict[str, list[AuditRecord]] = {}
        for record in records:
            self._by_kind.setdefault(record.kind, []).append(record)
        self._lead_ms = self._lead()
        self._latest_ms = self._latest()

    def timeline(self) -> Timeline:
        """All of it."""
        summary = self._view.summary
        evidence = self._evidence()
        decision = self._decision(evidence)
        over = self._first("visit.ended")
        read = Timeline(
            visit=summary.id,
            tenant=summary.tenant,
            started_at=summary.started_at,
            settings_version=self._settings_version(),
            running=summary.ended_at is None,
            length_ms=0.0,
            outcome=summary.outcome,
            reason=summary.reason,
            end_ms=self._at(over) if over is not None else None,
            lanes=self._lanes(),
            spans=self._spans(evidence, decision),
            barge_ins=self._barge_ins(),
            pauses=self._pauses(),
            calls=self._calls(),
            dials=self._dials(),
            briefings=self._briefings(),
            evidence=evidence,
            decision=decision,
            gate=self._gate(),
            stages=self._stages(),
            connected=self._connected(),
            lost=self._lost(),
            costs=self._costs(),
            moments=tuple(
                self._as_moment(one)
                for one in self._records
                if one.kind not in DRAWN and (over is None or one.seq < over.seq)
            ),
            rules=(),
            changed=tuple(one.seq for one in self._records if not intact(one)),
            tested_by=self._tested_by(),
        )
        orders = [one.seq for one in self._of("gate.requested")]
        return replace(read, length_ms=_length(read), rules=tuple(rules(read, orders)))

    # ---- records -----------------------------------------------------------------------------------------

    def _of(self, *kinds: str) -> list[AuditRecord]:
        if len(kinds) == 1:
            return self._by_kind.get(kinds[0], [])
        return [record for record in self._records if record.kind in kinds]

    def _first(self, kind: str) -> AuditRecord | None:
        return next(iter(self._of(kind)), None)

    def _at(self, record: AuditRecord) -> float:
        at = _moment(record.at)
        if at is None or self._start is None:
            return 0.0
        ms = _within((at - self._start).total_seconds() * 1000 + self._lead_ms)
        return min(ms, self._latest_ms)

    def _latest(self) -> float:
        """The last thing known of a visit that a crash left open: it was closed hours later, maybe."""
        recovered = self._first("visit.recovered")
        if recovered is None:
            return LONGEST_MS
        before = [self._at(one) for one in self._records if one.seq < recovered.seq]
        ends = [_number(one.data, "ended_ms") or 0.0 for one in self._of("turn")]
        return _within(max(*before, *ends, 0.0, 0.0))

    def _lead(self) -> float:
        """By how much the visit's clock began before `visit.started` was on record.

        A turn is put on record after its end; one that seems to be there before tells how much at least.
        """
        ends = [(_number(turn.data, "ended_ms"), self._at(turn)) for turn in self._of("turn")]
        lead = max((end - at for end, at in ends if end is not None), default=0.0)
        return lead if 0 < lead <= LONGEST_LEAD_MS else 0.0

    def _settings_version(self) -> int | None:
        started = self._first("visit.started")
        told = started.data.get("settings") if started is not None else None
        number = _number(told, "version") if isinstance(told, Mapping) else None
        return int(number) if number is not None else None

    def _tested_by(self) -> str | None:
        started = self._first("visit.started")
        if started is None or started.data.get("test") is not True:
            return None
        return _text(started.data, "tested_by") or ""

    def _leg(self, record: AuditRecord) -> str:
        return _text(record.data, "leg") or ""

    def _as_moment(self, record: AuditRecord) -> Moment:
        return Moment(
            record.seq, record.kind, _text(record.data, "leg"), self._at(record), _in_words(record.data)
        )

    # ---- legs --------------------------------------------------------------------------------------------

    def _lanes(self) -> tuple[Lane, ...]:
        ended = {self._leg(one): one for one in reversed(self._of("leg.ended"))}
        failed = {self._leg(one): one for one in reversed(self._of("recording.failed"))}
        lanes = {}
        for record in self._of("leg.connected"):
            name = self._leg(record)
            if name in lanes:
                continue
            opened = _number(record.data, "opened_ms")
            start = _within(opened) if opened is not None else self._at(record)
            last = ended.get(name)
            end = max(start, self._at(last)) if last is not None else None
            lanes[name] = Lane(
                seq=record.seq,
                leg=name,
                role=_role(_text(record.data, "role")),
                start_ms=start,
                end_ms=end,
                end_seq=last.seq if last is not None else None,
                reason=_text(last.data, "reason") if last is not None else None,
                provider=_text(record.data, "provider"),
                endpoint=_text(record.data, "endpoint"),
                recording_ms=start,
                recorded=_text(last.data, "recording") is not None if last is not None else None,
                recording_failed=_text(failed[name].data, "reason") if name in failed else None,
            )
        return tuple(lanes.values())

    def _role_of(self, leg: str) -> Role:
        return self._roles.get(leg) or ("visitor" if leg == "visitor" else "resident")

    # ---- who spoke ---------------------------------------------------------------------------------------

    def _spans(self, evidence: Sequence[Evidence], decision: Decision | None) -> tuple[Span, ...]:
        counted = set(decision.evidence) if decision is not None else set()
        grounds = {one.turn for one in evidence if one.seq in counted}
        pauses: dict[str, list[tuple[float, float]]] = {}
        for pause in self._pauses():
            pauses.setdefault(pause.leg, []).append((pause.at_ms, pause.at_ms + pause.ms))
        for each in pauses.values():
            each.sort()
        spans = []
        for record in self._of("turn"):
            data, leg = record.data, self._leg(record)
            start, end = _number(data, "started_ms"), _number(data, "ended_ms")
            start = _within(start) if start is not None else self._at(record)
            caller = _text(data, "speaker") == "caller"
            spans.append(
                Span(
                    seq=record.seq,
                    leg=leg,
                    role=self._role_of(leg),
                    speaker="caller" if caller else "agent",
                    text=_text(data, "text") or "",
                    start_ms=start,
                    end_ms=max(start, _within(end)) if end is not None else start,
                    response_ms=_number(data, "response_ms"),
                    interrupted=data.get("interrupted") is True,
                    heard_ms=_number(data, "heard_ms"),
                    backchannel=caller and _in_a_pause(start, pauses.get(leg, [])),
                    evidence=record.seq in grounds,
                )
            )
        return tuple(sorted(spans, key=lambda span: (span.start_ms, span.seq)))

    def _barge_ins(self) -> tuple[BargeIn, ...]:
        return tuple(
            BargeIn(
                record.seq,
                self._leg(record),
                self._role_of(self._leg(record)),
                _within(_number(record.data, "ended_ms") or 0.0),
                _number(record.data, "speech_to_silence_ms"),
                _number(record.data, "heard_ms"),
            )
            for record in self._of("turn")
            if record.data.get("interrupted") is True and _text(record.data, "speaker") == "agent"
        )

    def _pauses(self) -> tuple[Pause, ...]:
        found = []
        for record in self._of("turn"):
            told = record.data.get("pauses")
            for pause in told if isinstance(told, list) else ():
                match pause:
                    case [at, ms] if (began := _finite(at)) is not None and (
                        lasted := _finite(ms)
                    ) is not None:
                        leg = self._leg(record)
                        found.append(
                            Pause(record.seq, leg, self._role_of(leg), _within(began), _within(lasted))
                        )
        return tuple(found)

    # ---- tools, calls, gate ------------------------------------------------------------------------------

    def _calls(self) -> tuple[Call, ...]:
        open_calls: dict[tuple[str, str], list[AuditRecord]] = {}
        answers: dict[int, AuditRecord] = {}
        made = []
        for record in self._of("tool.called", "tool.answered"):
            key = (self._leg(record), _text(record.data, "call") or "")
            if record.kind == "tool.called":
                open_calls.setdefault(key, []).append(record)
                made.append(record)
            elif open_calls.get(key):  # providers number their calls anew in each session
                answers[open_calls[key].pop().seq] = record
        return tuple(self._call(record, answers.get(record.seq)) for record in made)

    def _call(self, called: AuditRecord, answered: AuditRecord | None) -> Call:
        leg, at = self._leg(called), self._at(called)
        return Call(
            seq=called.seq,
            leg=leg,
            role=self._role_of(leg),
            name=_text(called.data, "name") or "",
            arguments=called.data.get("arguments"),
            at_ms=at,
            end_ms=max(at, self._at(answered)) if answered is not None else None,
            result=answered.data.get("result") if answered is not None else None,
            ms=_number(answered.data, "ms") if answered is not None else None,
            status=_text(answered.data, "status") if answered is not None else None,
        )

    def _dials(self) -> tuple[Dial, ...]:
        ended: dict[str, AuditRecord] = {}
        for record in self._of("dial.ended"):
            ended.setdefault(_text(record.data, "attempt") or "", record)
        dials = []
        for record in self._of("dial.started"):
            attempt = _text(record.data, "attempt") or ""
            last, at = ended.get(attempt), self._at(record)
            number = _number(record.data, "number")
            dials.append(
                Dial(
                    seq=record.seq,
                    attempt=attempt,
                    number=int(number) if number is not None else None,
                    apartment=_text(record.data, "apartment"),
                    at_ms=at,
                    end_ms=max(at, self._at(last)) if last is not None else None,
                    outcome=_text(last.data, "outcome") if last is not None else None,
                    detail=_text(last.data, "detail") if last is not None else None,
                    leg=self._leg_of(attempt),
                )
            )
        return tuple(dials)

    def _leg_of(self, attempt: str) -> str | None:
        """The leg that a dial attempt became; None where there is none by its name."""
        if attempt in self._roles:
            return attempt
        for record in self._of("dial.started"):
            if _text(record.data, "attempt") == attempt:
                number = _number(record.data, "number")
                name = f"resident-{int(number)}" if number is not None else ""
                return name if name in self._roles else None
        return None

    def _briefings(self) -> tuple[Briefing, ...]:
        attempts = [(one, _text(one.data, "attempt") or "") for one in self._of("briefing.played")]
        return tuple(
            Briefing(one.seq, attempt, self._leg_of(attempt), self._at(one)) for one, attempt in attempts
        )

    def _evidence(self) -> tuple[Evidence, ...]:
        found = []
        for record in self._of("evidence"):
            data = record.data
            leg = self._leg_of(_text(data, "attempt") or "")
            began = _number(data, "began_s")
            at = _within(began * 1000) if began is not None else self._at(record)
            text = _text(data, "text")
            found.append(
                Evidence(
                    seq=record.seq,
                    attempt=_text(data, "attempt") or "",
                    leg=leg,
                    role=self._role_of(leg) if leg is not None else None,
                    by=_text(data, "by") or "",
                    text=text,
                    key=_text(data, "key"),
                    reading=_text(data, "reading"),
                    at_ms=at,
                    turn=self._turn_of(leg, text, at) if leg is not None and text is not None else None,
                )
            )
        return tuple(found)

    def _turn_of(self, leg: str, text: str, at_ms: float) -> int | None:
        """The record of the turn in which that was said."""
        for record in self._of("turn"):
            data = record.data
            if self._leg(record) == leg and data.get("speaker") == "caller" and data.get("text") == text:
                began = _number(data, "started_ms")
                if began is not None and abs(began - at_ms) <= SAME_MS:
                    return record.seq
        return None

    def _decision(self, evidence: Sequence[Evidence]) -> Decision | None:
        record = self._first("decision")
        if record is None:
            return None
        cited = record.data.get("evidence")
        cited = [one for one in cited if isinstance(one, Mapping)] if isinstance(cited, list) else []
        told = {one.seq: one.data for one in self._of("evidence")}
        rests = tuple(one.seq for one in evidence if any(_is_cited(told[one.seq], each) for each in cited))
        return Decision(
            record.seq,
            self._at(record),
            _text(record.data, "decision") or "",
            _text(record.data, "reason"),
            rests,
        )

    def _gate(self) -> Gate | None:
        order, answer = self._first("gate.requested"), self._first("gate.answered")
        if order is None:
            return None
        at = self._at(order)
        said = answer.data if answer is not None else {}
        opened = said.get("opened")
        return Gate(
            seq=order.seq,
            at_ms=at,
            gate=_text(order.data, "gate"),
            end_ms=max(at, self._at(answer)) if answer is not None else None,
            opened=opened if isinstance(opened, bool) else None,
            unknown=said.get("unknown") is True,
            detail=_text(said, "detail"),
        )

    # ---- stretches ---------------------------------------------------------------------------------------

    def _stages(self) -> tuple[Stretch, ...]:
        """What the visit was at, as far as the records tell it."""
        last_dial = max((one.seq for one in self._of("dial.started")), default=0)
        stages: list[Stretch] = []
        for record in self._records:
            name = _stage(record, last_dial)
            if name is None or (stages and stages[-1].name == name):
                continue
            at = max(self._at(record), stages[-1].start_ms if stages else 0.0)
            if stages:
                stages[-1] = _ended(stages[-1], at)
            stages.append(Stretch(record.seq, name, None, at, None))
            if name == "over":
                break
        return tuple(one for one in stages if one.name != "over")

    def _connected(self) -> tuple[Stretch, ...]:
        return self._stretches("parties.connected", "parties.ended", lambda _: None)

    def _lost(self) -> tuple[Stretch, ...]:
        return self._stretches("session.lost", "session.replaced", self._leg)

    def _stretches(
        self, begins: str, ends: str, leg_of: Callable[[AuditRecord], str | None]
    ) -> tuple[Stretch, ...]:
        found: list[Stretch] = []
        for record in self._of(begins, ends):
            leg = leg_of(record)
            open_ = next((n for n, one in enumerate(found) if one.leg == leg and one.end_ms is None), None)
            if record.kind == begins:
                if open_ is None:
                    detail = _in_words(record.data)
                    found.append(Stretch(record.seq, begins, leg, self._at(record), None, detail))
            elif open_ is not None:
                one = found[open_]
                detail = f"{one.detail}; {_in_words(record.data)}" if one.detail else _in_words(record.data)
                found[open_] = _ended(one, max(one.start_ms, self._at(record)), detail)
        return tuple(found)

    def _costs(self) -> tuple[Cost, ...]:
        return tuple(
            Cost(
                record.seq,
                self._at(record),
                _text(record.data, "amount") or "",
                _text(record.data, "currency") or "",
                record.data.get("complete") is True,
                record.data.get("final") is True,
            )
            for record in self._of("visit.cost")
        )


DRAWN: Final = frozenset(
    {
        "visit.started",
        "leg.connected",
        "leg.ended",
        "session.lost",
        "session.replaced",
        "turn",
        "tool.called",
        "tool.answered",
        "dial.started",
        "dial.ended",
        "briefing.played",
        "parties.connected",
        "parties.ended",
        "evidence",
        "decision",
        "gate.requested",
        "gate.answered",
        "visit.cost",
        "visit.ended",
        "recording.closed",
        "visit.reviewed",
    }
)
"""Kinds of records that have a place of their own; the others, as long as the visit runs, are moments."""


def _moment(at: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(at)
    except (ValueError, TypeError):
        return None
    return moment if moment.tzinfo is not None else None


def _in_words(data: Data) -> str:
    """A record's own words: what else it says of itself besides whose it is."""
    told = [str(value) for name in ("by", "reason", "detail", "about", "text") if (value := data.get(name))]
    return ": ".join(told)


def _in_a_pause(began: float, pauses: Sequence[tuple[float, float]]) -> bool:
    """Whether something that began then is what we paused for; `pauses` in order."""
    after = bisect_right(pauses, (began + PAUSE_SLACK_MS, math.inf))
    return after > 0 and began <= pauses[after - 1][1]


def _is_cited(evidence: Data, cited: Data) -> bool:
    """Whether a decision's entry is this evidence: all that it says of it is so."""
    return bool(cited) and all(evidence.get(name) == value for name, value in cited.items())


def _ended(one: Stretch, at: float, detail: str | None = None) -> Stretch:
    return Stretch(one.seq, one.name, one.leg, one.start_ms, at, one.detail if detail is None else detail)


def _stage(record: AuditRecord, last_dial: int) -> str | None:
    """What the visit is at from this record on; None: what it was at before."""
    match record.kind:
        case "visit.started":
            return "talking"
        case "dial.started":
            return "calling"
        case "dial.ended" if record.data.get("outcome") == "answered":
            return "asking"
        case "dial.ended" if record.seq > last_dial:
            return "closing"
        case "parties.connected":
            return "connected"
        case "parties.ended":
            return "asking"
        case "decision":
            return "gate" if record.data.get("decision") == "authorized" else "closing"
        case "gate.answered":
            return "closing"
        case "visit.ended" | "visit.recovered":
            return "over"
    return None


def _length(read: Timeline) -> float:
    """The latest of all times."""
    return max((ms for ms in _times(read) if ms is not None), default=0.0)


def _times(read: Timeline) -> Iterator[float | None]:
    yield read.end_ms
    for lane in read.lanes:
        yield from (lane.start_ms, lane.end_ms)
    yield from (span.end_ms for span in read.spans)
    yield from (pause.at_ms + pause.ms for pause in read.pauses)
    yield from (barge_in.at_ms for barge_in in read.barge_ins)
    for call in read.calls:
        yield from (call.at_ms, call.end_ms)
    for dial in read.dials:
        yield from (dial.at_ms, dial.end_ms)
    yield from (briefing.at_ms for briefing in read.briefings)
    yield from (evidence.at_ms for evidence in read.evidence)
    for stretch in (*read.stages, *read.connected, *read.lost):
        yield from (stretch.start_ms, stretch.end_ms)
    yield from (cost.at_ms for cost in read.costs)
    yield from (moment.at_ms for moment in read.moments)
    if read.decision is not None:
        yield read.decision.at_ms
    if read.gate is not None:
        yield from (read.gate.at_ms, read.gate.end_ms)
