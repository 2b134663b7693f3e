"""The table itself: what each state takes and what it ignores is written down here once more, by hand.

A new event, or a row that is forgotten or added by oversight, shows as a difference.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import get_args

import pytest

from tests.visits.visit_stage import R, Stage, V, of
from visits import events as e
from visits.events import DialOutcome, Event
from visits.visit import TABLE, TIMERS, State

TOOLS: frozenset[type] = frozenset(get_args(e.ToolRequest))
EVENTS: frozenset[type] = frozenset(get_args(e.Event))
NAMED: dict[str, type] = {kind.__name__: kind for kind in sorted(EVENTS, key=str)}

# What was said or played on a leg on which nothing rests yet, what was timed for another phase.
_NO_SPEECH: set[type] = {e.SpeechBegan, e.SpeechEnded, e.OurVoice, e.TurnLost}
_NO_RESIDENT: set[type] = {*_NO_SPEECH, e.Said, e.KeyPressed}
_NO_DIAL: set[type] = {e.DialFailed}
_NO_GATE: set[type] = {e.GateAnswered}

IGNORED: dict[State, set[type]] = {
    # An event in these sets changes nothing in this state, and must not.
    State.GREETING: {*_NO_RESIDENT, *_NO_DIAL, *_NO_GATE},
    State.COLLECTING: {*_NO_RESIDENT, *_NO_DIAL, *_NO_GATE, e.Started, e.SentencePlayed},
    State.VALIDATED: {*_NO_RESIDENT, *_NO_DIAL, *_NO_GATE, e.Started, e.SentencePlayed},
    State.DIALING: {*_NO_RESIDENT, *_NO_GATE, e.Started, e.SentencePlayed, e.SilenceElapsed},
    State.CONSULTING: {*_NO_DIAL, *_NO_GATE, e.Started},
    # What is said while the two are connected is nobody's but theirs.
    State.CONNECTED: {
        *_NO_DIAL,
        *_NO_GATE,
        e.Started,
        e.Said,
        e.TurnBegan,
        e.TurnLost,
        e.SilenceElapsed,
    },
    State.AUTHORIZED: {
        *_NO_SPEECH,
        *_NO_DIAL,
        e.Started,
        e.SentencePlayed,
        e.SilenceElapsed,
        e.TurnBegan,
    },
    State.CLOSING: {*_NO_SPEECH, *_NO_DIAL, e.Started, e.SilenceElapsed, e.TurnBegan, e.Broken},
    State.ENDED: set(EVENTS - TOOLS - {e.DialAnswered}),
}

_FOR_RESIDENT: set[type] = {
    e.DetailsRequested,
    e.QuestionRequested,
    e.ConnectRequested,
    e.AuthorizeRequested,
    e.DenyRequested,
}

REFUSED: dict[State, set[type]] = {
    # Tool requests that a state answers with "refused: not_while_…".
    State.GREETING: _FOR_RESIDENT,
    State.COLLECTING: _FOR_RESIDENT,
    State.VALIDATED: _FOR_RESIDENT,
    State.DIALING: {e.LookupRequested, e.ValidationRequested, *_FOR_RESIDENT},
    State.CONSULTING: {e.LookupRequested, e.ValidationRequested},
    State.CONNECTED: set(TOOLS),
    State.AUTHORIZED: set(TOOLS),
    State.CLOSING: set(TOOLS),
    State.ENDED: set(TOOLS),
}


@pytest.mark.parametrize("state", list(State))
def test_each_state_ignores_and_refuses_what_is_written_here_and_nothing_else(state: State) -> None:
    missing = {kind for kind in EVENTS if (state, kind) not in TABLE}
    assert missing - TOOLS == IGNORED[state]
    assert missing & TOOLS == REFUSED[state]


def test_no_row_is_about_something_that_is_no_event() -> None:
    assert {kind for _, kind in TABLE} <= EVENTS
    assert {kind for _, kind in TABLE} == EVENTS, "an event that no state takes"
    assert TOOLS <= EVENTS


def closing() -> Stage:
    stage = Stage.briefed()
    stage.play(e.KeyPressed(R, "2"))
    return stage


def closing_after_the_gate() -> Stage:
    stage = Stage.authorized()
    stage.ring("gate")
    return stage


def ended() -> Stage:
    stage = closing()
    stage.closes()
    return stage


def validated(**rules: bool) -> Stage:
    stage = Stage.collecting(**rules)
    stage.play(e.ValidationRequested("validated", "501", "Daner"))
    return stage


def ringing(**rules: bool) -> Stage:
    stage = Stage(**rules)
    stage.play(e.Started())
    return stage


SCENES: dict[State, Callable[[], Stage]] = {
    State.GREETING: ringing,
    State.COLLECTING: Stage.collecting,
    State.VALIDATED: validated,
    State.DIALING: Stage.dialing,
    State.CONSULTING: Stage.briefed,
    State.CONNECTED: Stage.connected,
    State.AUTHORIZED: Stage.authorized,
    State.CLOSING: closing_after_the_gate,
    State.ENDED: ended,
}


def sensible(kind: type, stage: Stage) -> list[Event]:
    """Events of this kind as they may really come, on each leg where it has one."""
    attempt = stage.visit.attempt or stage.visit.id
    ordered = stage.at(State.AUTHORIZED) or stage.at(State.CLOSING)
    events: dict[type, list[Event]] = {
        e.Started: [e.Started()],
        e.LookupRequested: [e.LookupRequested("x", "501")],
        e.ValidationRequested: [e.ValidationRequested("x", "501", "Daner")],
        e.CallRequested: [e.CallRequested("x", "501", "entrega", "Pedro")],
        e.StatusRequested: [e.StatusRequested("x")],
        e.DetailsRequested: [e.DetailsRequested("x")],
        e.QuestionRequested: [e.QuestionRequested("x", "De onde?")],
        e.ConnectRequested: [e.ConnectRequested("x")],
        e.AuthorizeRequested: [e.AuthorizeRequested("x")],
        e.DenyRequested: [e.DenyRequested("x")],
        e.AttendantRequested: [e.AttendantRequested("x")],
        e.TransferRequested: [e.TransferRequested("x", "financeiro")],
        e.EndRequested: [e.EndRequested("x", V)],
        e.OutsideRequested: [e.OutsideRequested("x", V, "lookup", {})],
        e.DialAnswered: [e.DialAnswered(attempt)],
        e.DialFailed: [e.DialFailed(attempt, DialOutcome.BUSY)],
        e.LegClosed: [e.LegClosed(V)],
        e.HungUpByPerson: [e.HungUpByPerson("operator:ana", "visitor", V)],
        e.SpeechBegan: [e.SpeechBegan(V), e.SpeechBegan(R)],
        e.SpeechEnded: [e.SpeechEnded(V), e.SpeechBegan(R), e.SpeechEnded(R)],
        e.OurVoice: [e.OurVoice(V, True), e.OurVoice(R, True)],
        e.TurnBegan: [e.TurnBegan(V, "x"), e.TurnBegan(R, "x")],
        e.Said: [
            e.Said(V, "x", "Oi.", stage.now, True),
            e.Said(R, "x", "Não autorizo." if ordered else "Sim, pode entrar.", stage.now, True),
        ],
        e.TurnLost: [e.TurnLost(V, "x"), e.TurnLost(R, "x")],
        e.KeyPressed: [e.KeyPressed(V, "1"), e.KeyPressed(R, "2" if ordered else "1")],
        e.SentencePlayed: [
            e.SentencePlayed(V, "greeting" if stage.at(State.GREETING) else "goodbye", True),
            e.SentencePlayed(R, "goodbye", True),
            e.SentencePlayed(R, "connecting", True),
        ],
        e.SilenceElapsed: [e.SilenceElapsed(V), e.SilenceElapsed(R)],
        e.GateAnswered: [e.GateAnswered(True)],
        e.TransferAnswered: [e.TransferAnswered(True)],
        e.SessionLost: [e.SessionLost(V)],
        e.TimerFired: [e.TimerFired(name) for state, name in TIMERS if stage.at(state)],
        e.Broken: [e.Broken("x")],
    }
    return events[kind]


def snapshot(stage: Stage) -> dict[str, object]:
    """All that the visit remembers, but the time."""
    state = {name: value for name, value in vars(stage.visit).items() if name not in ("_now", "_fresh")}
    return copy.deepcopy({name: value for name, value in state.items() if name not in ("directory", "rules")})


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("kind", NAMED.values(), ids=NAMED.keys())
def test_what_is_ignored_changes_nothing_and_what_is_taken_does_something(state: State, kind: type) -> None:
    stage = SCENES[state]()
    assert stage.at(state)
    stage.visit._silences[V] = 1  # a turn ends a silence
    if kind is e.SentencePlayed and state is State.CONNECTED:
        stage = Stage.briefed()
        stage.connect()
    if kind is e.SpeechEnded and state is State.CONNECTED:
        stage.play(e.SpeechBegan(R))
        assert stage.play(e.SpeechEnded(R)) == [] and not stage.visit._speaking
        return
    if kind is e.SentencePlayed and state is State.CONSULTING:
        stage.play(e.QuestionRequested("q", "De onde?"))
        assert of(stage.play(e.SentencePlayed(V, "question", True)), e.SetTimer)
        return
    before = snapshot(stage)
    told = stage.play(*sensible(kind, stage))
    if kind in IGNORED[state]:
        assert not told
        assert snapshot(stage) == before
    elif kind in REFUSED[state]:
        assert told == [e.Reply("x", {"status": "refused", "reason": f"not_while_{state.value}"}, "never")]
        assert snapshot(stage) == before
    else:
        assert told or snapshot(stage) != before


TIMED: dict[tuple[State, str], Callable[[], Stage]] = {
    (State.GREETING, "visit"): ringing,
    (State.COLLECTING, "visit"): Stage.collecting,
    (State.VALIDATED, "visit"): validated,
    (State.DIALING, "visit"): Stage.dialing,
    (State.CONSULTING, "visit"): Stage.briefed,
    (State.DIALING, "ring"): Stage.dialing,
    (State.DIALING, "still_calling"): Stage.dialing,
    (State.CONSULTING, "pickup"): Stage.answered,
    (State.CONSULTING, "words"): lambda: _played(e.TurnBegan(R, "i"), e.AuthorizeRequested("a")),
    (State.CONSULTING, "open_turn"): lambda: _played(e.TurnBegan(R, "i"), e.AuthorizeRequested("a")),
    (State.CONSULTING, "question"): lambda: _played(e.QuestionRequested("q", "De onde?")),
    (State.CONSULTING, "hold"): lambda: _held(),
    (State.CONSULTING, "no_quiet"): lambda: _held(),
    (State.CONSULTING, "consult"): Stage.briefed,
    (State.CONNECTED, "visit"): Stage.connected,
    (State.CONNECTED, "connecting"): lambda: _played(e.ConnectRequested("c")),
    (State.CONNECTED, "parting"): Stage.connected,
    (State.CONNECTED, "connected"): lambda: _parting(),
    (State.GREETING, "transfer"): lambda: _transferring(ringing(attendant=True)),
    (State.COLLECTING, "transfer"): lambda: _transferring(Stage.collecting(attendant=True)),
    (State.VALIDATED, "transfer"): lambda: _transferring(validated(attendant=True)),
    (State.DIALING, "transfer"): lambda: _transferring(Stage.dialing(attendant=True)),
    (State.CONSULTING, "transfer"): lambda: _transferring(Stage.briefed(attendant=True)),
    (State.CONNECTED, "transfer"): lambda: _stranded(Stage.connected(attendant=True)),
    (State.AUTHORIZED, "transfer"): lambda: _gate_failed(),
    (State.AUTHORIZED, "gate"): Stage.authorized,
    (State.CLOSING, "closing"): closing,
    (State.CLOSING, "last_words"): lambda: _stranded(Stage.collecting()),
}


def _played(*events: Event) -> Stage:
    stage = Stage.briefed()
    stage.play(*events)
    return stage


def _held() -> Stage:
    stage = Stage.briefed()
    stage.says("Pode entrar.")
    stage.play(e.AuthorizeRequested("a"))
    return stage


def _parting() -> Stage:
    stage = Stage.connected()
    stage.ring("parting")
    return stage


def _stranded(stage: Stage) -> Stage:
    stage.play(e.SessionLost(V))
    return stage


def _transferring(stage: Stage) -> Stage:
    stage.play(e.AttendantRequested("t"))
    return stage


def _gate_failed() -> Stage:
    stage = Stage.authorized(attendant=True)
    stage.play(e.GateAnswered(False, "503"))
    return stage


def test_each_timer_has_its_phases_and_no_other() -> None:
    assert set(TIMED) == set(TIMERS)


@pytest.mark.parametrize(("state", "name"), sorted(TIMED))
def test_each_timer_is_set_in_its_phase_and_does_something_there(state: State, name: str) -> None:
    stage = TIMED[state, name]()
    assert stage.at(state)
    assert name in stage.timers
    assert stage.ring(name)


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("name", sorted({name for _, name in TIMERS} | {"nonsense"}))
def test_a_timer_of_another_phase_does_nothing(state: State, name: str) -> None:
    if (state, name) in TIMERS:
        return
    stage = SCENES[state]()
    before = snapshot(stage)
    assert not stage.play(e.TimerFired(name))
    assert snapshot(stage) == before
