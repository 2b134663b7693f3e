"""The two talk to each other, a consent is held for a moment, a refusal comes too late: examples."""

from __future__ import annotations

import pytest

from tests.visits.visit_stage import R, Stage, V, answer, of, records, said_to
from visits import events as e
from visits.visit import HOLD_S, NO_QUIET_S, PARTING_S, RETURN_KEYS, State

TALK: list[e.Event] = [
    e.SpeechBegan(R),
    e.TurnBegan(R, "talk"),
    e.SpeechEnded(R),
    e.Said(R, "talk", "Pode entrar.", 1e6, True),
]
"""What a model that should hear nothing may report all the same."""


# ---- being connected ---------------------------------------------------------------------------------------


def test_both_are_told_before_they_hear_each_other() -> None:
    stage = Stage.briefed()
    told = stage.connect()
    assert answer(told) == {"status": "connecting"}
    assert (said_to(told, V), said_to(told, R)) == (["connecting_visitor"], ["connecting_resident"])
    assert all(one.protected for one in of(told, e.SayExactly))
    assert of(told, e.SayExactly)[1].fields == {"sim": "1", "nao": "2", "volta": "0"}
    assert [e.AutoReply(V, False), e.AutoReply(R, False)] == of(told, e.AutoReply)
    assert e.HoldAudio(False) in told and "consult" not in stage.timers
    assert not stage.play(e.SentencePlayed(R, "connecting", True))
    told = stage.play(e.SentencePlayed(V, "connecting", True))
    assert records(told) == ["parties.connected"]
    assert told.index(of(told, e.Record)[0]) < told.index(e.Connect())


@pytest.mark.parametrize("role", [V, R])
def test_who_was_not_told_is_not_connected(role: e.Role) -> None:
    stage = Stage.briefed()
    stage.connect()
    told = stage.play(e.SentencePlayed(role, "connecting", False))
    assert stage.at(State.CONSULTING)
    assert said_to(told, R) == ["not_connected"]
    assert e.Connect() not in stage.told and e.Disconnect() not in stage.told
    stage.play(e.SentencePlayed(R, "back", True))
    stage.says("Pode entrar.")
    stage.authorize()
    assert stage.opened


def test_a_connection_that_is_never_announced_is_given_up() -> None:
    stage = Stage.briefed()
    stage.connect()
    assert said_to(stage.ring("connecting"), R) == ["not_connected"]
    assert not stage.play(e.SentencePlayed(V, "connecting", True)), "too late"


@pytest.mark.parametrize(
    ("stage", "reason"),
    [
        (lambda: Stage.answered(), "no_briefing"),
        (lambda: Stage.briefed(authorize_key="", deny_key=""), "no_keys"),
        (lambda: Stage.briefed(visit_s=50.0), "no_time"),
    ],
)
def test_who_cannot_decide_there_is_not_connected(stage: object, reason: str) -> None:
    assert callable(stage)
    scene: Stage = stage()
    assert answer(scene.connect()) == {"status": "refused", "reason": reason}
    assert scene.at(State.CONSULTING)


def test_who_is_being_handed_over_is_not_connected() -> None:
    stage = Stage.briefed(attendant=True)
    stage.play(e.AttendantRequested("a"))
    assert answer(stage.connect()) == {"status": "refused", "reason": "transferring"}


def test_a_question_that_is_open_is_dropped_and_its_answer_is_nobodys() -> None:
    stage = Stage.briefed()
    stage.play(e.QuestionRequested("q", "De onde?"))
    stage.connect()
    assert "question" not in stage.timers
    assert not stage.visitor_says("Sou da Vivo.")


def test_what_the_model_asked_for_before_is_answered() -> None:
    stage = Stage.briefed()
    stage.says("Pode entrar.")
    stage.play(e.AuthorizeRequested("a"))
    told = stage.connect()
    assert [(one.call, one.result["status"]) for one in of(told, e.Reply)] == [
        (of(told, e.Reply)[0].call, "connecting"),
        ("a", "not_yet"),
    ]
    assert "hold" not in stage.timers
    assert not stage.play(e.TimerFired("hold"))
    assert not stage.opened


# ---- while they talk ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [e.AuthorizeRequested("x"), e.DenyRequested("x"), e.EndRequested("x", R)])
def test_no_model_decides_while_they_talk(asked: e.Event) -> None:
    stage = Stage.connected()
    stage.play(*TALK)
    told = stage.play(asked)
    assert told == [e.Reply("x", {"status": "refused", "reason": "not_while_connected"}, "never")]
    assert stage.at(State.CONNECTED)


def test_the_key_authorizes_and_they_are_parted_first() -> None:
    stage = Stage.connected()
    told = stage.play(e.KeyPressed(R, "1"), after=12.0)
    assert records(told) == ["parties.ended", "evidence", "decision", "gate.requested"]
    assert told.index(e.Disconnect()) < told.index(of(told, e.OpenGate)[0])
    assert of(told, e.Record)[0].data["reason"] == "authorized"
    assert of(told, e.Record)[0].data["seconds"] == 12.0
    assert of(told, e.Record)[1].data["by"] == "key"


def test_the_key_counts_while_they_are_being_told() -> None:
    stage = Stage.briefed()
    stage.connect()
    told = stage.play(e.KeyPressed(R, "1"))
    assert of(told, e.OpenGate) and e.Disconnect() not in told


def test_the_other_key_denies() -> None:
    stage = Stage.connected()
    told = stage.play(e.KeyPressed(R, "2"))
    assert records(told) == ["evidence", "decision", "parties.ended"]
    assert said_to(told, V) == ["goodbye_denied"]
    stage.closes()
    assert stage.ended() == ("denied", "resident_refused")


@pytest.mark.parametrize("digit", ["1", "2", "0"])
def test_the_visitors_keys_are_nothing(digit: str) -> None:
    stage = Stage.connected()
    assert not stage.play(e.KeyPressed(V, digit))
    assert stage.at(State.CONNECTED)


def test_the_third_key_brings_the_doorman_back_who_asks_again() -> None:
    stage = Stage.connected()
    stage.play(*TALK)
    told = stage.play(e.KeyPressed(R, "0"))
    assert stage.at(State.CONSULTING)
    assert e.Disconnect() in told and records(told) == ["parties.ended"]
    assert (said_to(told, V), said_to(told, R)) == (["back_visitor"], ["back_resident"])
    assert e.AutoReply(R, True) in told and e.AutoReply(V, True) in told and e.HoldAudio(True) in told
    assert "consult" in stage.timers and {"parting", "connected"}.isdisjoint(stage.timers)
    assert answer(stage.authorize()) == {"status": "not_yet", "reason": "no_answer"}
    stage.play(e.SentencePlayed(R, "back", True))
    stage.says("Pode entrar.")
    stage.authorize()
    assert stage.opened


def test_what_began_before_the_question_is_over_is_no_answer_to_it() -> None:
    stage = Stage.connected()
    stage.play(e.SpeechBegan(R))
    stage.play(e.KeyPressed(R, "0"))
    began = stage.now
    stage.play(e.TurnBegan(R, "i"), e.SpeechEnded(R), e.SentencePlayed(R, "back", True))
    stage.play(e.Said(R, "i", "Pode entrar.", began, True))
    assert answer(stage.authorize()) == {"status": "not_yet", "reason": "no_answer"}


@pytest.mark.parametrize("keys", [("0", "9"), ("9", "0"), ("1", "0"), ("5", "0")])
def test_the_key_back_is_none_that_decides(keys: tuple[str, str]) -> None:
    stage = Stage.connected(authorize_key=keys[0], deny_key=keys[1])
    back = stage.visit.return_key
    assert back in RETURN_KEYS and back not in keys
    stage.play(e.KeyPressed(R, back))
    assert stage.at(State.CONSULTING)


def test_the_end_is_announced_and_then_the_resident_is_asked_again() -> None:
    stage = Stage.connected(connected_s=60.0)
    assert stage.timers["parting"] == pytest.approx(stage.now + 60.0 - PARTING_S)
    told = stage.ring("parting")
    assert (said_to(told, V), said_to(told, R)) == (["parting_visitor"], ["parting_resident"])
    told = stage.ring("connected")
    assert of(told, e.Record)[0].data["reason"] == "time_limit"
    assert of(told, e.Record)[0].data["seconds"] == 60.0
    assert said_to(told, R) == ["back_resident"]


def test_they_do_not_talk_beyond_the_visits_own_time() -> None:
    stage = Stage.connected(connected_s=600.0, visit_s=120.0)
    assert stage.timers["parting"] + PARTING_S < stage.timers["visit"]
    assert stage.ring("visit") and stage.visit.reason == "time_limit"
    assert e.Disconnect() in stage.told


@pytest.mark.parametrize(
    ("happens", "ending"),
    [
        (e.LegClosed(V), ("abandoned", "visitor_hung_up")),
        (e.Broken("stopped"), ("failed", "stopped")),
        (e.SessionLost(V), ("failed", "session_lost")),
    ],
)
def test_whatever_ends_it_parts_them_and_stays_closed(happens: e.Event, ending: tuple[str, str]) -> None:
    stage = Stage.connected()
    told = stage.play(happens)
    assert e.Disconnect() in told and "parties.ended" in records(told)
    assert not stage.opened
    stage.play(e.LegClosed(V), e.LegClosed(R, stage.visit.attempt))
    assert stage.ended() == ending


def test_a_resident_who_hangs_up_has_not_decided() -> None:
    stage = Stage.connected()
    told = stage.play(e.LegClosed(R, stage.attempt))
    assert said_to(told, V) == ["goodbye_undecided"]
    assert stage.visit.reason == "resident_hung_up"
    assert not stage.play(e.KeyPressed(R, "1"))


# ---- a consent is held for a moment ------------------------------------------------------------------------


def test_a_spoken_consent_is_held_and_a_key_is_not() -> None:
    stage = Stage.briefed()
    stage.says("Pode entrar.")
    assert stage.play(e.AuthorizeRequested("a")) == [
        e.SetTimer("no_quiet", NO_QUIET_S),
        e.SetTimer("hold", HOLD_S),
    ]
    assert not stage.opened
    assert of(stage.play(e.KeyPressed(R, "1")), e.OpenGate)


@pytest.mark.parametrize("begins", [e.SpeechBegan(R), e.TurnBegan(R, "second")])
@pytest.mark.parametrize(("then", "reason"), [("Não, espera!", "unclear"), ("Não autorizo.", "refusal")])
def test_a_refusal_that_begins_meanwhile_takes_it_back(begins: e.Event, then: str, reason: str) -> None:
    stage = Stage.briefed()
    stage.says("Pode…")
    stage.says("Pode entrar.")
    stage.play(e.AuthorizeRequested("a"))
    told = stage.play(begins)
    assert e.StopTimer("hold") in told and not stage.play(e.TimerFired("hold"))
    told = stage.play(e.SpeechEnded(R), e.Said(R, "second", then, stage.now, True))
    assert answer(told) == {"status": "not_yet", "reason": reason}
    assert not stage.opened


def test_quiet_that_our_own_voice_covers_is_none() -> None:
    stage = Stage.briefed()
    stage.says("Pode entrar.")
    stage.play(e.OurVoice(R, True))
    assert stage.play(e.AuthorizeRequested("a")) == [e.SetTimer("no_quiet", NO_QUIET_S)]
    assert not stage.play(e.TimerFired("hold")), "no moment of quiet has begun"
    assert stage.play(e.OurVoice(R, False)) == [e.SetTimer("hold", HOLD_S)]
    assert stage.play(e.OurVoice(R, True)) == [e.StopTimer("hold")]
    assert not stage.play(e.TimerFired("hold"))
    stage.play(e.OurVoice(R, False))
    assert answer(stage.quiet()) == {"status": "authorized"}
    assert stage.opened


def test_our_voice_on_the_visitors_leg_covers_nothing() -> None:
    stage = Stage.briefed()
    stage.says("Pode entrar.")
    stage.play(e.OurVoice(V, True), e.AuthorizeRequested("a"))
    assert answer(stage.quiet()) == {"status": "authorized"}


def test_a_refusal_over_our_voice_takes_the_held_consent_back() -> None:
    stage = Stage.briefed()
    stage.says("Pode entrar.")
    stage.play(e.OurVoice(R, True), e.AuthorizeRequested("a"))
    told = stage.says("Não, não autorizo.")
    assert answer(told) == {"status": "not_yet", "reason": "refusal"}
    assert not stage.opened
    assert not stage.play(e.OurVoice(R, False)) and not stage.play(e.TimerFired("no_quiet"))


def test_where_it_never_gets_quiet_the_gate_stays_closed_and_the_model_is_told() -> None:
    stage = Stage.briefed()
    stage.says("Pode entrar.")
    stage.play(e.OurVoice(R, True), e.AuthorizeRequested("a"))
    assert answer(stage.ring("no_quiet")) == {"status": "not_yet", "reason": "no_quiet"}
    assert not stage.play(e.OurVoice(R, False)) and not stage.play(e.TimerFired("hold"))
    assert not stage.opened


def test_more_of_the_same_meanwhile_is_held_anew_and_opens() -> None:
    stage = Stage.briefed()
    stage.says("Pode entrar.")
    stage.play(e.AuthorizeRequested("a"))
    stage.says("Pode, sim.")
    assert not stage.opened and "hold" in stage.timers
    assert answer(stage.quiet()) == {"status": "authorized"}
    assert stage.opened


def test_speech_meanwhile_whose_words_never_come_is_asked_about() -> None:
    stage = Stage.briefed()
    stage.says("Pode entrar.")
    stage.play(e.AuthorizeRequested("a"), e.SpeechBegan(R))
    assert answer(stage.ring("words")) == {"status": "not_yet", "reason": "no_answer"}
    assert not stage.opened


def test_a_question_to_the_visitor_meanwhile_is_no_consent() -> None:
    stage = Stage.briefed()
    stage.says("Pode entrar.")
    stage.play(e.AuthorizeRequested("a"), e.QuestionRequested("q", "De onde?"))
    assert answer(stage.quiet()) == {"status": "not_yet", "reason": "question"}


# ---- a refusal that comes too late -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "refuses",
    [
        e.Said(R, "late", "Não, não autorizo!", 0.0, True),
        e.Said(R, "late", "Não, espera!", 0.0, True),
        e.KeyPressed(R, "2"),
    ],
)
def test_a_refusal_while_the_gate_is_awaited_is_kept_and_answered(refuses: e.Event) -> None:
    stage = Stage.authorized()
    told = stage.play(refuses)
    (note,) = of(told, e.Record)
    assert note.data["text"].startswith("refused after the gate had its order")
    told = stage.play(e.GateAnswered(True, "200"))
    assert (said_to(told, V), said_to(told, R)) == (["goodbye_taken_back"], ["too_late_opened"])
    stage.closes()
    assert stage.ended() == ("authorized", "opened")


def test_a_refusal_before_a_gate_that_fails_is_answered_with_what_is_known() -> None:
    stage = Stage.authorized()
    stage.play(e.KeyPressed(R, "2"))
    told = stage.play(e.GateAnswered(False, "503"))
    assert (said_to(told, V), said_to(told, R)) == (["gate_failed"], ["too_late_failed"])


def test_a_refusal_at_the_goodbye_is_answered_before_the_call_ends() -> None:
    stage = Stage.authorized()
    stage.play(e.GateAnswered(True))
    told = stage.play(e.Said(R, "late", "Não autorizo!", stage.now, True))
    assert said_to(told, R) == ["too_late_opened"]
    assert not of(stage.play(e.SentencePlayed(R, "goodbye", True)), e.HangUp), "there is more to say"
    assert of(stage.play(e.SentencePlayed(R, "too_late", True)), e.HangUp)
    assert not stage.play(e.Said(R, "again", "Não autorizo!", stage.now, True)), "once is enough"


@pytest.mark.parametrize(
    "said",
    [
        e.Said(V, "v", "Não autorizo.", 0.0, True),
        e.Said(R, "r", "Não autorizo.", 0.0, False),
        e.Said(R, "r", "Obrigado, tchau.", 0.0, True),
        e.KeyPressed(V, "2"),
        e.KeyPressed(R, "1"),
    ],
)
def test_what_is_no_refusal_changes_nothing(said: e.Event) -> None:
    stage = Stage.authorized()
    assert not stage.play(said)
    assert said_to(stage.play(e.GateAnswered(True)), R) == ["goodbye_resident_authorized"]


def test_a_refusal_that_was_heard_in_time_is_answered_as_ever() -> None:
    stage = Stage.briefed()
    stage.says("Não autorizo.")
    stage.deny()
    assert not stage.play(e.Said(R, "late", "Não autorizo!", stage.now, True)), "no order was given"


def test_the_models_are_silent_once_the_gate_has_its_order() -> None:
    stage = Stage.briefed()
    told = stage.play(e.KeyPressed(R, "1"))
    assert told.index(e.AutoReply(R, False)) > told.index(of(told, e.OpenGate)[0])
