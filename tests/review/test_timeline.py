"""A visit's time line: what it says of an ordinary visit, and that it says nothing wrong of any other."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any, get_args, get_origin
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, run_state_machine_as_test

from bridge.http.console.language import read_languages
from bridge.review.model import Rule, Timeline
from bridge.review.picture import ZOOMS, picture
from bridge.review.story import rows, sentence
from bridge.review.timeline import LONGEST_MS, timeline
from storage.base import StorageRefused
from storage.projection import VisitRows
from tests.review.visits import (
    ATTEMPT,
    HOSTILE,
    START,
    STORY,
    TENANT,
    VISIT,
    Told,
    evidence,
    sealed,
    turn,
    view_of,
)
from tests.visits.test_visit_rules import AnyOrder
from visits import events as e
from visits.audit import _FIELDS, KINDS, MAX_DATA_BYTES, AuditRecord, draft, stamp
from visits.events import Role

LANGUAGES = read_languages()
PT = LANGUAGES["pt-BR"]


def read(told: list[Told]) -> Timeline:
    records = sealed(told)
    return timeline(view_of(records), records)


def without(*kinds: str) -> list[Told]:
    return [one for one in STORY if one[1] not in kinds]


def instead(kind: str, **changes: Any) -> list[Told]:
    return [(at, name, {**data, **changes} if name == kind else data) for at, name, data in STORY]


def reading_as(reading: str) -> list[Told]:
    """The resident's words, read in another way."""
    changed = evidence(reading=reading)
    by_kind: dict[str, Any] = {
        "evidence": changed,
        "decision": {"decision": "authorized", "evidence": [changed]},
    }
    return [(at, kind, by_kind.get(kind, data)) for at, kind, data in STORY]


def held(line: Timeline) -> dict[str, bool | None]:
    return {rule.name: rule.held for rule in line.rules}


# ---- an ordinary visit ----------------------------------------------------------------------------------


def test_a_visit_is_told_as_it_was() -> None:
    line = read(STORY)
    assert not line.running and line.outcome == "authorized" and line.changed == ()
    assert line.settings_version == 7
    assert [(lane.leg, lane.start_ms, lane.recorded) for lane in line.lanes] == [
        ("visitor", 1.0, True),
        ("resident-1", 9858.0, False),
    ]
    assert [(one.leg, one.at_ms, one.speech_to_silence_ms) for one in line.barge_ins] == [
        ("visitor", 2437.0, 76.0)
    ]
    assert [span.text for span in line.spans if span.backchannel] == ["Ahã."]
    assert [span.text for span in line.spans if span.evidence] == ["Pode liberar."]
    assert [(call.name, call.status, call.ms) for call in line.calls] == [
        ("lookup_apartment", "found", 3.0),
        ("authorize_entry", "authorized", 330.0),
    ]
    assert [(dial.outcome, dial.leg) for dial in line.dials] == [("answered", "resident-1")]
    (said,) = line.evidence
    assert line.decision is not None and line.decision.evidence == (said.seq,)
    assert (said.leg, said.at_ms) == ("resident-1", 22913.0)
    assert said.turn == next(span.seq for span in line.spans if span.evidence)
    assert line.gate is not None and line.gate.opened is True
    assert [stage.name for stage in line.stages] == ["talking", "calling", "asking", "gate", "closing"]
    assert line.length_ms == pytest.approx(33_100, abs=50)


def test_the_rules_that_held_are_sentences_of_what_is_on_record() -> None:
    told = [sentence(rule, PT) for rule in read(STORY).rules]
    assert told == [
        "O morador foi chamado por nós (tentativa 1) e atendeu.",
        "O morador ainda estava na linha quando o portão recebeu a ordem.",
        "Ouviu o aviso inteiro, até o fim.",
        "Disse “Pode liberar.” 0,4 s depois do aviso: consentimento.",
        "Nada mais foi dito na ligação do morador antes da ordem.",
        "A decisão foi registrada antes da ordem ao portão.",
        "O portão recebeu uma única ordem.",
        "O portão confirmou que abriu, em 5 ms.",
        "Os registros conferem com os seus selos.",
    ]
    assert all(rule.held for rule in read(STORY).rules)


@pytest.mark.parametrize(
    ("told", "rule"),
    [
        (without("dial.started", "dial.ended"), "called"),
        (instead("dial.ended", outcome="no_answer"), "called"),
        (without("briefing.played"), "briefed"),
        (instead("briefing.played", attempt="another"), "briefed"),
        (reading_as("question"), "said_consent_after"),
        (instead("evidence", text="Outra coisa."), "nothing_consent"),
        (without("evidence"), "nothing_consent"),
        (instead("gate.answered", opened=False, unknown=True), "gate_unknown"),
        (instead("gate.answered", opened=False), "gate_refused"),
        (without("gate.answered"), "gate_silent"),
    ],
)
def test_what_is_not_on_record_did_not_hold(told: list[Told], rule: str) -> None:
    assert held(read(told))[rule] is False
    if rule.startswith("gate"):
        assert held(read(told))["said_consent_after"] is True


def test_words_of_the_visitor_are_no_consent() -> None:
    """Somebody wrote a record in which the visitor lets themselves in: the reviewer sees that it is none."""
    attempt = "visitor"
    said = {**evidence(), "attempt": attempt}
    told = [
        (
            at,
            kind,
            {**data, "attempt": attempt}
            if kind == "evidence"
            else {**data, "evidence": [said]}
            if kind == "decision"
            else data,
        )
        for at, kind, data in STORY
    ]
    found = held(read(told))
    assert found["said_consent"] is False and found["called"] is False and found["on_the_line"] is False


def test_what_was_said_after_the_consent_is_shown() -> None:
    more = turn("resident-1", "caller", "Não, espera!", 25.0, 26.0)
    at = next(n for n, one in enumerate(STORY) if one[1] == "tool.called" and one[2]["leg"] == "resident-1")
    found = read([*STORY[:at], more, *STORY[at:]])
    (rule,) = [rule for rule in found.rules if rule.name == "undisputed"]
    assert rule.held is None and sentence(rule, PT) == "Antes da ordem ainda disse: “Não, espera!”."


def test_a_changed_record_is_named() -> None:
    records = sealed(STORY)
    at = next(n for n, one in enumerate(records) if one.kind == "evidence")
    records[at] = replace(records[at], data={**records[at].data, "text": "Não."})
    line = timeline(view_of(sealed(STORY)), records)
    assert line.changed == (records[at].seq,)
    assert held(line)["sealed"] is False


def test_a_running_visit_goes_on() -> None:
    line = read(STORY[: next(n for n, one in enumerate(STORY) if one[1] == "gate.requested") + 1])
    assert line.running and line.end_ms is None and line.outcome is None
    assert [lane.end_ms for lane in line.lanes] == [None, None]
    assert line.stages[-1].end_ms is None
    assert held(line)["gate_silent"] is None


def test_a_key_and_a_refusal_are_told() -> None:
    key = {"attempt": ATTEMPT, "by": "key", "key": "2", "reading": "refusal", "began_s": 25.0}
    told = [
        one
        for one in without("gate.requested", "gate.answered")
        if one[1] not in ("evidence", "decision", "visit.ended")
    ]
    told += [
        (33.06, "evidence", key),
        (33.07, "decision", {"decision": "denied", "evidence": [key], "reason": "key"}),
    ]
    told += [(33.1, "visit.ended", {"outcome": "denied"})]
    line = read(told)
    assert [sentence(rule, PT) for rule in line.rules] == [
        "O morador recusou com a tecla 2.",
        "O portão não recebeu nenhuma ordem.",
        "Os registros conferem com os seus selos.",
    ]


def test_a_crash_does_not_stretch_the_picture_to_the_next_start() -> None:
    told: list[Told] = [one for one in STORY if one[0] < 25]
    told.append((40_000.0, "visit.recovered", {"reason": "the service ended", "gate": "untouched"}))
    told.append((40_000.1, "visit.ended", {"outcome": "failed"}))
    assert read(told).length_ms < 25_000


def test_a_review_years_later_is_no_part_of_the_visit() -> None:
    told = [*STORY, (86_400.0 * 300, "visit.reviewed", {"by": "operator:ana", "verdict": "right"})]
    assert read(told).length_ms == read(STORY).length_ms


# ---- any visit -------------------------------------------------------------------------------------------


def check(line: Timeline) -> None:
    """What is true of every time line."""
    assert json.loads(json.dumps(asdict(line), allow_nan=False))
    lasted: list[tuple[float, float | None]] = [(one.start_ms, one.end_ms) for one in line.lanes]
    lasted += [(one.start_ms, one.end_ms) for one in line.spans]
    lasted += [(one.start_ms, one.end_ms) for one in (*line.stages, *line.connected, *line.lost)]
    lasted += [(one.at_ms, one.end_ms) for one in line.calls]
    lasted += [(one.at_ms, one.end_ms) for one in line.dials]
    assert all(0 <= began <= (ended if ended is not None else math.inf) for began, ended in lasted)
    assert 0 <= line.length_ms <= 2 * LONGEST_MS
    assert all(span.end_ms <= line.length_ms for span in line.spans)
    assert [span.start_ms for span in line.spans] == sorted(span.start_ms for span in line.spans)
    seqs = {span.seq for span in line.spans}
    assert all(one.turn is None or one.turn in seqs for one in line.evidence)
    assert all(
        stage.end_ms == then.start_ms for stage, then in zip(line.stages, line.stages[1:], strict=False)
    )
    for language in LANGUAGES.values():
        for rule in line.rules:
            assert sentence(rule, language)


def show(line: Timeline, records: list[AuditRecord]) -> str:
    for language in LANGUAGES.values():
        rows(line, language)
    drawn = picture(line, view_of(records).summary, {}, PT, alone=True)
    ElementTree.fromstring(drawn)
    return drawn


class Recorded(AnyOrder):
    """Any order of events: what the visit puts on record, with what a host adds to it."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Told] = [(0.0, "visit.started", {})]
        self.told.append((0.0, "leg.connected", {"leg": "visitor", "role": "visitor"}))
        self.legs: set[str] = set()

    def happen(self, happening: e.Event) -> tuple[e.Effect, ...]:
        leg = self.visit.leg
        if isinstance(happening, e.DialAnswered) and self.visit.expects(happening.attempt):
            self.told.append((self.now, "leg.connected", {"leg": leg, "role": "resident"}))
            self.legs.add(leg)
        if isinstance(happening, e.Said) and (happening.role is Role.VISITOR or leg in self.legs):
            whose = "visitor" if happening.role is Role.VISITOR else leg
            ended = max(happening.began + 0.5, 0.5)
            self.told.append(turn(whose, "caller", happening.text, max(happening.began, 0.0), ended))
        return super().happen(happening)

    def check(self, effect: e.Effect, fresh: Any) -> None:
        super().check(effect, fresh)
        if isinstance(effect, e.Record):
            self.told.append((self.now, effect.kind, effect.data))

    def teardown(self) -> None:
        super().teardown()
        records = sealed(self.told)
        line = timeline(view_of(records), records)
        check(line)
        ordered = [one for one in self.told if one[1] == "gate.requested"]
        assert (line.gate is not None) == bool(ordered)
        if ordered:
            # What the visit's own rules ask for is what the reviewer is shown, and nothing else.
            found = {rule.name: rule.held for rule in line.rules}
            assert all(found[name] for name in ("called", "on_the_line", "briefed", "recorded_first", "once"))
            assert any(
                rule.held
                for rule in line.rules
                if rule.name in ("said_consent_after", "pressed_consent_after")
            )
            self.note("the gate was ordered")
        else:
            assert ("closed", True) in [(rule.name, rule.held) for rule in line.rules]


class Decided(Recorded):
    """As above, from the moment on at which a resident has let somebody in."""

    @initialize(key=st.sampled_from(["1", ""]), attendant=st.booleans(), calm=st.booleans())
    def begin(self, key: str, attendant: bool, calm: bool) -> None:
        super().begin((key, True), attendant, 2, 2, "briefed", calm)
        self.is_briefed(True)
        self.the_resident_speaks_as_one_does("Sim, pode entrar.", True, False)
        if "hold" in self.timers:
            self.timers.discard("hold")
            self.happen(e.TimerFired("hold"))


@pytest.mark.parametrize("machine", [Recorded, Decided])
def test_whatever_happens_the_gates_order_is_shown_with_what_it_rests_on(machine: type[Recorded]) -> None:
    machine.seen = Counter()
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=80,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
        ),
    )
    if machine is Decided:
        assert machine.seen["the gate was ordered"] > 20, machine.seen


texts = st.sampled_from(
    ["", "visitor", "resident-1", "resident", "a1", "1", "authorized", "consent", HOSTILE]
) | st.text(max_size=20)
numbers = st.integers(-(10**18), 10**18) | st.floats(allow_nan=False, allow_infinity=False)
anything = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


def of_hint(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type."""
    origin = get_origin(hint)
    options = get_args(hint)
    if origin is not None and str(origin).endswith("Literal"):
        return st.sampled_from(options)
    if hint is float:
        return numbers
    if hint is int:
        return st.integers(-(10**15), 10**15)
    if hint is bool:
        return st.booleans()
    if hint is str:
        return texts
    if hint is type(None):
        return st.none()
    if origin is list:
        return st.lists(st.lists(numbers, min_size=2, max_size=2) | anything, max_size=3)
    if origin is dict:
        return st.dictionaries(texts, texts, max_size=2)
    if options:
        return st.one_of([of_hint(option) for option in options])
    return anything


@st.composite
def any_told(draw: st.DrawFn) -> list[Told]:
    told: list[Told] = [(0.0, "visit.started", {})]
    kinds = st.sampled_from([name for name, kind in KINDS.items() if kind.scope == "visit"] + ["note"])
    for kind in draw(st.lists(kinds, max_size=14)):
        data = {
            name: draw(of_hint(field.hint))
            for name, field in _FIELDS[kind].items()
            if field.required or draw(st.booleans())
        }
        told.append((draw(st.floats(-100, 100_000)), kind, data))
    return told


@settings(max_examples=120, deadline=None)
@given(any_told())
def test_whatever_records_hold_they_are_told_and_drawn(told: list[Told]) -> None:
    kept: list[Told] = []
    possible = VisitRows()
    for one in told:
        record = draft_of(one)
        try:
            possible.apply(record, len(kept) + 1)
        except (StorageRefused, KeyError):
            continue
        kept.append(one)
    records = sealed(kept)
    line = timeline(view_of(records), records)
    check(line)
    assert "<script" not in show(line, records)


def draft_of(told: Told) -> Any:
    at = stamp(START + timedelta(seconds=told[0]))
    return draft(tenant=TENANT, visit=VISIT, at=at, kind=told[1], data=told[2])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(STORY) - 1), anything)
def test_edited_records_are_told_as_changed(at: int, instead_of: Any) -> None:
    records = sealed(STORY)
    data = instead_of if isinstance(instead_of, dict) else {"unreadable": str(instead_of)}
    records[at] = replace(records[at], data=data)
    line = timeline(view_of(sealed(STORY)), records)
    check(line)
    show(line, sealed(STORY))
    assert records[at].seq in line.changed


# ---- the picture -----------------------------------------------------------------------------------------


def test_hostile_words_are_shown_and_do_nothing() -> None:
    told = [
        (
            at,
            kind,
            {
                name: HOSTILE if name in ("text", "detail", "name", "visitor_name") else value
                for name, value in data.items()
            },
        )
        for at, kind, data in STORY
    ]
    records = sealed(told)
    line = timeline(view_of(records), records)
    drawn = show(line, records)
    assert "<script" not in drawn and "\x1b" not in drawn and "\u202e" not in drawn
    assert "&lt;script&gt;" in drawn and "\\u202e" in drawn
    root = ElementTree.fromstring(drawn)
    names = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert names <= {"svg", "title", "desc", "style", "rect", "line", "path", "text", "g"}


@pytest.mark.parametrize("code", LANGUAGES)
def test_a_picture_says_in_words_what_it_shows(code: str) -> None:
    records = sealed(STORY)
    line, t = timeline(view_of(records), records), LANGUAGES[code]
    for zoom in ZOOMS:
        root = ElementTree.fromstring(picture(line, view_of(records).summary, {}, t, zoom=zoom))
        about = {element.tag.rpartition("}")[2]: element.text or "" for element in root if element.tag}
        assert "Júlia" in about["title"] and "201" in about["title"]
        assert all(sentence(rule, t) in about["desc"] for rule in line.rules)
        assert not root.findall(".//{*}style") and "style=" not in ElementTree.tostring(root, "unicode")


def test_a_visit_of_a_thousand_turns_is_drawn_within_a_second() -> None:
    told: list[Told] = [*STORY[:2]]
    for n in range(1000):
        told.append(turn("visitor", "caller" if n % 2 else "agent", f"Frase {n}. " * 10, n * 3, n * 3 + 2.5))
    records = sealed([*told, *STORY[-1:]])
    began = time.process_time()
    line = timeline(view_of(records), records)
    read_s = time.process_time() - began
    drawn = picture(line, view_of(records).summary, {}, PT, zoom=16)
    told_rows = rows(line, PT)
    took_s = time.process_time() - began
    assert len(told_rows) >= 1000 and len(line.spans) == 1000
    assert len(drawn) < 2_000_000
    assert took_s < 3 and read_s < 1.5, (read_s, took_s)


def test_the_longest_record_is_shown_shortened() -> None:
    long = "a" * (MAX_DATA_BYTES - 200)
    told = [*STORY[:2], turn("visitor", "caller", long, 1, 2), *STORY[-1:]]
    records = sealed(told)
    drawn = show(timeline(view_of(records), records), records)
    assert len(drawn) < 60_000


def test_a_rule_that_nobody_wrote_a_sentence_for_is_none() -> None:
    names = {key.split(".")[2] for key in PT.texts if key.startswith("review.rule.")}
    with pytest.raises(KeyError):
        sentence(Rule("unheard_of", True), PT)
    assert {"called", "briefed", "once", "closed", "sealed"} <= names
