"""The conversation against a strict agent, without a socket: any order, any fault, and nothing is lost."""

from __future__ import annotations

import contextlib
import json
from collections import deque
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers import elevenlabs_messages as wire
from providers.base import (
    AudioDelta,
    AudioDone,
    Event,
    Failed,
    Heard,
    Interrupted,
    ItemStarted,
    Ready,
    ResponseDone,
    ResponseStarted,
    SessionConfig,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
    ToolCallCancelled,
    Transcript,
    TranscriptFailed,
)
from providers.conversing import MalformedMessage, SessionOver
from providers.elevenlabs_conversation import Conversation
from providers.formats import PCMU
from tests.simulators.elevenlabs import Call, Faults, Model, Refused, Reply, Say

T = TypeVar("T")
CONFIG = SessionConfig(instructions="Você é o porteiro da {{casa}}.", tools=[])
GREETING = Reply((Say(300, "Boa tarde!"),))


class Pair:
    """A conversation and an agent that talk to each other when they are told to; time is ours."""

    def __init__(self, *replies: Reply, faults: Faults | None = None, first: str = "") -> None:
        self.model = Model(deque(replies), faults or Faults())
        self.events: list[Event] = []
        self.to_model: list[bytes] = []
        self.now = 100.0
        self.conversation = Conversation(
            CONFIG, "", PCMU, self.events.append, self.to_model.append, lambda: self.now
        )
        self.receipt = self.conversation.say_exactly(first) if first else ""
        self.model.receive(json.loads(self.conversation.open()))
        self.exchange()

    def exchange(self) -> None:
        """Everything that is under way arrives."""
        while self.to_model or self.model.out:
            while self.to_model:
                self.deliver()
            while self.model.out:
                message = json.dumps(self.model.out.popleft()).encode()
                self.conversation.receive(wire.decode(message))

    def deliver(self) -> None:
        """One message arrives at the model."""
        message = json.loads(self.to_model.pop(0))
        try:
            self.model.receive(message)
        except Refused:
            # An answer may cross the news that nobody waits for it any more.
            if message.get("tool_call_id") not in self.model.gone:
                raise

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            assert self.model.step(), "the model has nothing to say"
            self.exchange()

    def settle(self) -> None:
        """The model says all that it has to say, and it is played."""
        self.exchange()
        while self.model.step() or self.play():
            self.exchange()

    def play(self) -> bool:
        """What came is played; False: nothing waits for that."""
        due = self.conversation._timers.get("played")
        if due is None:
            return False
        self.wait(due - self.now)
        return True

    def wait(self, seconds: float) -> None:
        """Time passes, and what is due by then is done."""
        until = self.now + seconds
        while (due := self.conversation.deadline) is not None and due <= until:
            self.now = max(self.now, due)
            self.conversation.elapse()
            self.exchange()
        self.now = until

    def speak(self, text: str = "Boa tarde.") -> None:
        """The caller says something, and both VADs hear it."""
        self.model.said.append(text)
        self.conversation.caller_began()
        self.model.caller_starts()
        self.exchange()
        self.conversation.caller_ended(200)
        self.model.caller_ends()

    def busy(self) -> bool:
        return self.conversation.busy

    def of(self, kind: type[T]) -> list[T]:
        return [e for e in self.events if isinstance(e, kind)]

    def done(self) -> list[tuple[str | None, str]]:
        return [(e.receipt, e.status) for e in self.of(ResponseDone)]

    def audio_ms(self, item: str) -> int:
        return sum(len(e.pcm) for e in self.of(AudioDelta) if e.item == item) // 16


@pytest.fixture
def pair() -> Pair:
    return Pair()


def test_the_configuration_is_what_the_vendor_takes_and_what_we_mean(pair: Pair) -> None:
    assert pair.model.started["conversation_config_override"] == {
        "agent": {
            # A variable that the agent lacks would end the conversation.
            "prompt": {"prompt": "Você é o porteiro da { {casa}}."},
            "first_message": "",
            "language": "pt-br",
        }
    }
    (ready,) = pair.events
    assert isinstance(ready, Ready)
    can = ready.capabilities
    assert (can.input_rate, can.output_rate, can.input_encoding, can.output_encoding) == (
        8000,
        8000,
        "pcmu",
        "pcmu",
    )
    assert can.owns_turns and not can.truncation and not can.exact_speech and not can.resumption


def test_the_format_is_what_the_agent_says() -> None:
    pair = Pair(GREETING, faults=Faults(input_format="pcm_16000", output_format="pcm_24000"), first="Olá!")
    can = pair.of(Ready)[0].capabilities
    assert (can.input_rate, can.output_rate, can.output_encoding) == (16000, 24000, "pcm")
    pair.settle()
    assert sum(len(e.pcm) for e in pair.of(AudioDelta)) == 300 * 48
    with pytest.raises(SessionOver, match=r"'pcm_44100'; configure one of ulaw_8000") as caught:
        Pair(faults=Faults(output_format="pcm_44100"))
    assert caught.value.code == "unsupported_format"


def test_the_greeting_is_the_agents_first_message() -> None:
    pair = Pair(GREETING, first="Boa tarde! Aqui é da portaria.")
    assert pair.busy()
    pair.settle()
    agent = pair.model.started["conversation_config_override"]["agent"]
    assert agent["first_message"] == "Boa tarde! Aqui é da portaria." and pair.model.texts == []
    assert pair.of(ItemStarted)[0].receipt == pair.receipt
    assert pair.done() == [(pair.receipt, "completed")] and not pair.busy()
    assert pair.audio_ms(pair.of(ItemStarted)[0].item) == 300
    assert [e.text for e in pair.of(Transcript) if e.final] == ["Boa tarde! Aqui é da portaria."]


def test_a_turn_is_heard_and_replied_to_in_order(pair: Pair) -> None:
    pair.speak("É uma entrega.")
    pair.settle()
    kinds = [e.type for e in pair.events if e.type != "audio_delta"]
    assert kinds == [
        "ready",
        "speech_started",
        "speech_stopped",
        "transcript",
        "response_started",
        "item_started",
        "transcript",
        "audio_done",
        "transcript",
        "response_done",
    ]
    said = pair.of(Transcript)[0]
    assert (said.role, said.text, said.final) == ("caller", "É uma entrega.", True)
    assert said.item == pair.of(SpeechStarted)[0].item == pair.of(SpeechStopped)[0].item
    assert not pair.busy() and pair.model.violations == []


def test_a_pause_within_a_turn_does_not_end_it(pair: Pair) -> None:
    pair.conversation.caller_began()
    pair.conversation.caller_ended(200)
    pair.wait(3)
    pair.conversation.caller_began()
    pair.wait(5)
    pair.conversation.caller_ended(200)
    pair.model.transcribe("Boa… tarde.")
    pair.exchange()
    assert len(pair.of(SpeechStarted)) == 1 and len(pair.of(SpeechStopped)) == 2
    assert not pair.of(TranscriptFailed)


def test_words_that_come_while_the_caller_speaks_again_are_of_what_they_said_before(pair: Pair) -> None:
    pair.conversation.caller_began()
    pair.conversation.caller_ended(200)
    pair.conversation.caller_began()
    pair.model.transcribe("Boa tarde.")
    pair.exchange()
    pair.conversation.caller_ended(200)
    pair.model.transcribe("Apartamento 501.")
    pair.exchange()
    turns = [e.item for e in pair.of(SpeechStarted)]
    assert [(e.item, e.text) for e in pair.of(Transcript)] == [
        (turns[0], "Boa tarde."),
        (turns[1], "Apartamento 501."),
    ]


def test_a_sound_without_words_is_said_to_be_one(pair: Pair) -> None:
    pair.conversation.caller_began()
    pair.conversation.caller_ended(200)
    pair.wait(3.9)
    assert not pair.of(TranscriptFailed)
    pair.wait(0.2)
    assert [e.item for e in pair.of(TranscriptFailed)] == [pair.of(SpeechStarted)[0].item]
    pair.model.transcribe("Oi?")
    pair.exchange()
    assert pair.of(Transcript)[0].text == "Oi?", "late, but no word is lost"
    assert pair.of(Transcript)[0].item != pair.of(SpeechStarted)[0].item


def test_what_we_say_in_the_callers_place_is_nothing_that_they_said() -> None:
    """It would be evidence of what a resident wants."""
    pair = Pair(faults=Faults(echoes=True))
    pair.conversation.speak_about("O visitante disse: pode abrir o portão.")
    pair.conversation.say_exactly("Posso autorizar a entrada?")
    pair.settle()
    assert len(pair.model.texts) == 2
    assert [e for e in pair.of(Transcript) if e.role == "caller"] == []


def test_exact_words_come_first_and_each_alone(pair: Pair) -> None:
    about = pair.conversation.speak_about("O morador não atende.")
    also = pair.conversation.speak_about("Ele vai chamar de novo.")
    words = pair.conversation.say_exactly("Boa tarde!")
    pair.settle()
    assert pair.done() == [(about, "completed"), (words, "completed"), (also, "completed")]
    assert "«Boa tarde!»" in pair.model.texts[1] and pair.model.interruptions == 0
    assert all(text.startswith("[Aviso do sistema") for text in pair.model.texts)


def test_nothing_is_asked_for_while_something_is_played() -> None:
    """It would be interrupted there, and here."""
    pair = Pair(GREETING, first="Boa tarde!")
    while pair.model.step():
        pair.exchange()
    about = pair.conversation.speak_about("O morador não atende.")
    pair.wait(0.45)
    assert pair.done() == [(pair.receipt, "completed")] and pair.model.texts == [] and pair.busy()
    pair.wait(0.1)
    assert len(pair.model.texts) == 1
    pair.settle()
    assert pair.done()[-1] == (about, "completed") and not pair.of(Interrupted)


def test_what_is_to_be_spoken_about_is_one_reply() -> None:
    pair = Pair(first="Boa tarde!")
    about = pair.conversation.speak_about("O morador não atende.")
    also = pair.conversation.speak_about("Ele vai chamar de novo.")
    pair.settle()
    assert pair.done() == [(pair.receipt, "completed"), (about, "completed")]
    assert pair.of(ResponseStarted)[1].also == (also,)


def test_a_note_is_told_at_once_and_asks_for_nothing() -> None:
    pair = Pair(Reply((Say(500),)), first="Boa tarde!")
    pair.step(2)
    pair.conversation.note("O morador ligou de volta.")
    pair.settle()
    assert pair.model.notes == ["O morador ligou de volta."] and pair.model.interruptions == 0
    assert pair.done() == [(pair.receipt, "completed")]


def test_nothing_is_asked_for_while_the_caller_speaks_but_not_for_ever(pair: Pair) -> None:
    pair.conversation.caller_began()
    words = pair.conversation.say_exactly("Um momento.")
    pair.wait(9.9)
    assert pair.model.texts == []
    pair.wait(0.2)
    assert len(pair.model.texts) == 1, "a stuck VAD must not swallow it"
    pair.settle()
    assert (words, "completed") in pair.done()
    pair.conversation.caller_ended(200)
    pair.wait(5)
    pair.conversation.caller_began()
    pair.conversation.caller_ended(200)
    pair.conversation.say_exactly("Pois não?")
    pair.wait(1.4)
    assert len(pair.model.texts) == 1, "what they said may be coming"
    pair.wait(0.2)
    assert len(pair.model.texts) == 2


def test_what_was_asked_for_and_had_not_begun_is_asked_for_again_after_a_turn(pair: Pair) -> None:
    words = pair.conversation.say_exactly("Um momento.")
    pair.exchange()
    pair.speak()
    pair.settle()
    assert [receipt for receipt, _ in pair.done()] == [None, words]
    assert len(pair.model.texts) == 2


@pytest.mark.parametrize("late", [False, True])
def test_a_text_that_comes_behind_the_sound_belongs_to_it(late: bool) -> None:
    pair = Pair(GREETING, faults=Faults(text_last=True, completes=not late), first="Boa tarde!")
    if late:
        pair.step(6)
        pair.wait(2)
        assert [e.type for e in pair.events][-1] == "response_done", "it would have been played"
    pair.settle()
    (item,) = pair.of(ItemStarted)
    said = [e for e in pair.of(Transcript) if e.role == "agent" and e.final]
    assert {e.item for e in said} == {item.item} and said[-1].text == "Boa tarde!"
    assert pair.done() == [(pair.receipt, "completed")]


def test_an_agent_that_does_not_say_when_it_is_through_is_when_its_sound_would_be_played() -> None:
    pair = Pair(Reply((Say(1000),)), faults=Faults(completes=False), first="Boa tarde!")
    pair.settle()
    assert pair.done() == [] and pair.busy()
    pair.wait(1.7)
    assert pair.done() == []
    pair.wait(0.2)
    assert pair.done() == [(pair.receipt, "completed")] and len(pair.of(AudioDone)) == 1
    pair.speak()
    pair.settle()
    pair.speak()
    pair.settle()
    pair.wait(3)
    assert len(pair.of(ItemStarted)) == 3, "the next one's text ends it as well"


def test_a_reply_that_stops_in_the_middle_is_over_some_time() -> None:
    pair = Pair(GREETING, Reply((Say(400),), endless=True), first="Boa tarde!")
    pair.settle()
    pair.conversation.speak_about("Fale.")
    pair.settle()
    pair.wait(9)
    assert pair.busy()
    pair.wait(2)
    assert pair.of(ResponseDone)[-1].status == "incomplete" and not pair.busy()
    assert len(pair.of(AudioDone)) == 1


def test_a_reply_that_never_comes_is_not_waited_for(pair: Pair) -> None:
    pair.model.replies.append(Reply((), endless=True))
    about = pair.conversation.speak_about("Fale.")
    pair.settle()
    pair.wait(7.9)
    assert pair.busy()
    pair.wait(0.2)
    assert pair.done() == [(about, "failed")] and not pair.busy()
    pair.model.replies.append(Reply(()))
    pair.conversation.speak_about("Fale.")
    pair.settle()
    assert pair.done()[-1][1] == "incomplete" and "said nothing" in pair.of(ResponseDone)[-1].detail


# -- barge-in ------------------------------------------------------------------------------------------------

LONG = Reply((Say(2000, "Boa tarde, com quem o senhor deseja falar agora?"),))


@pytest.mark.parametrize(
    ("corrects", "told"),
    [(0.0, False), (0.3, False), (1.0, True), (None, True)],
    ids=["forgets it all", "remembers what was heard", "remembers all", "says nothing"],
)
def test_a_barge_in_is_silent_and_the_agent_knows_what_was_heard(corrects: float | None, told: bool) -> None:
    pair = Pair(
        LONG, faults=Faults(corrects=corrects), first="Boa tarde, com quem o senhor deseja falar agora?"
    )
    pair.step(30)
    item = pair.of(ItemStarted)[0].item
    before = len(pair.of(AudioDelta))
    waiting = AudioDelta(item, b"\0\0")
    pair.conversation.interrupt(Heard(item, 600))
    assert not pair.conversation.passes(waiting), "nor is what waited to be played"
    pair.step(2)
    assert len(pair.of(AudioDelta)) == before, "until the agent hears the caller too"
    pair.conversation.caller_began()
    pair.model.caller_starts()
    pair.exchange()
    assert pair.done() == [(pair.receipt, "cancelled")] and len(pair.of(Interrupted)) == 1
    pair.wait(1.1)
    assert bool(pair.model.notes) is told
    if told:
        assert "só ouviu: «Boa tarde,»" in pair.model.notes[0]
    pair.conversation.caller_ended(200)
    pair.model.caller_ends()
    pair.settle()
    assert pair.done()[-1] == (None, "completed"), "the turn has its reply"
    assert pair.model.violations == []


def test_the_agent_interrupts_itself_and_what_was_heard_is_asked_of_the_leg() -> None:
    pair = Pair(LONG, faults=Faults(corrects=1.0), first="Boa tarde, com quem o senhor deseja falar agora?")
    pair.step(20)
    pair.model.caller_starts()
    pair.exchange()
    kinds = [e.type for e in pair.events]
    assert kinds.index("interrupted") < kinds.index("response_done")
    assert pair.done() == [(pair.receipt, "incomplete")] and not pair.of(AudioDone)
    pair.conversation.interrupt(Heard(pair.of(ItemStarted)[0].item, 0))
    pair.wait(1)
    assert "não ouviu" in pair.model.notes[0]


def test_late_sound_of_what_was_interrupted_is_dropped_by_its_number() -> None:
    pair = Pair(LONG, first="Boa tarde!")
    pair.step(5)
    pair.model.interrupt()
    late = {"audio_base_64": "AAAA", "event_id": pair.model._ids - 3}
    pair.exchange()
    before = len(pair.of(AudioDelta))
    pair.conversation.receive(wire.decode(json.dumps({"type": "audio", "audio_event": late}).encode()))
    assert len(pair.of(AudioDelta)) == before and len(pair.of(ResponseStarted)) == 1


def test_of_an_item_that_was_heard_the_agent_is_told_nothing() -> None:
    pair = Pair(GREETING, first="Boa tarde!")
    pair.settle()
    pair.conversation.interrupt(Heard(pair.of(ItemStarted)[0].item, 300))
    pair.wait(2)
    assert pair.model.notes == []


def test_what_waits_behind_an_interrupted_item_is_not_muted_unless_it_was_dropped() -> None:
    """A protected sentence: the leg plays it on."""
    pair = Pair(LONG, first="Boa tarde!")
    pair.settle()
    pair.model.replies.append(Reply((Say(400),)))
    words = pair.conversation.say_exactly("O portão vai abrir.")
    pair.play()
    pair.step(3)
    pair.conversation.interrupt(Heard(pair.of(ItemStarted)[0].item, 100))
    pair.settle()
    assert (words, "completed") in pair.done()
    assert pair.audio_ms(pair.of(ItemStarted)[1].item) == 400


def test_a_reply_that_was_stopped_for_a_sound_that_was_none_is_asked_for_again(pair: Pair) -> None:
    pair.model.replies.append(LONG)
    pair.speak()
    pair.exchange()
    pair.step(2)
    pair.conversation.caller_began()
    pair.conversation.interrupt(None)
    pair.settle()
    assert pair.of(ResponseDone)[-1].status == "cancelled" and not pair.busy()
    pair.conversation.caller_ended(200)
    pair.wait(5)
    pair.settle()
    assert "repita o que ia dizer" in pair.model.texts[-1]
    assert pair.of(ResponseDone)[-1].status == "completed"


def test_a_phantom_interruption_stops_what_plays_and_nothing_else(pair: Pair) -> None:
    pair.model.phantom()
    pair.exchange()
    assert [e.type for e in pair.events] == ["ready", "interrupted"] and not pair.busy()
    pair.speak()
    pair.settle()
    assert pair.done() == [(None, "completed")]


# -- turns that are not the model's --------------------------------------------------------------------------


@pytest.mark.parametrize("reply", [True, False])
def test_the_reply_to_a_turn_in_doubt_waits_until_the_doubt_is_settled(reply: bool) -> None:
    pair = Pair(Reply((Say(200), Call(call_id="a"))))
    pair.conversation.doubt_turn()
    pair.speak("Ahã.")
    pair.settle()
    assert not pair.of(ResponseStarted) and not pair.of(ToolCall) and pair.busy()
    pair.conversation.settle_turn(reply)
    pair.settle()
    pair.wait(9)
    assert bool(pair.of(AudioDelta)) is bool(pair.of(ToolCall)) is reply
    if not reply:
        assert pair.model.answers["a"]["status"] == "refused"
        assert any("não ouviu" in note for note in pair.model.notes)
        assert not pair.busy()
    assert pair.model.violations == []


@pytest.mark.parametrize("reply", [True, False])
def test_an_interruption_in_doubt_counts_once_that_is_settled(reply: bool) -> None:
    pair = Pair(LONG, first="Boa tarde!")
    pair.step(10)
    pair.conversation.doubt_turn()
    pair.speak("Ahã.")
    pair.settle()
    assert not pair.of(Interrupted)
    pair.conversation.settle_turn(reply)
    assert bool(pair.of(Interrupted)) is reply


def test_a_reply_that_nobody_wants_is_not_heard_and_its_calls_do_not_run() -> None:
    pair = Pair(Reply((Say(200), Call(name="authorize_entry", call_id="a"), Say(200))))
    pair.conversation.auto_reply(False)
    pair.speak()
    pair.settle()
    assert not pair.of(ResponseStarted) and not pair.of(ToolCall) and not pair.busy()
    assert pair.model.answers["a"]["status"] == "refused"
    assert [e for e in pair.of(Transcript) if e.role == "caller"], "the words are known"
    words = pair.conversation.say_exactly("Um momento.")
    pair.settle()
    assert pair.of(ResponseDone)[-1].receipt == words
    pair.conversation.auto_reply(True)
    pair.speak()
    pair.settle()
    assert len(pair.of(ResponseDone)) == 2


def test_words_that_are_asked_for_interrupt_a_reply_that_nobody_wants() -> None:
    pair = Pair(LONG)
    pair.conversation.auto_reply(False)
    pair.speak()
    pair.exchange()
    pair.step(5)
    words = pair.conversation.say_exactly("Um momento.")
    pair.settle()
    assert pair.model.interruptions == 1 and pair.done() == [(words, "completed")]
    assert not pair.of(Interrupted), "that was us"


# -- tools ---------------------------------------------------------------------------------------------------


def test_a_tool_is_called_once_and_its_answer_is_explicit() -> None:
    pair = Pair(Reply((Say(200, "Vou ver."), Call(call_id="a", times=2), Say(200, "Achei."))))
    pair.speak()
    pair.settle()
    (call,) = pair.of(ToolCall)
    assert (call.id, call.name, json.loads(call.arguments)) == ("a", "lookup_apartment", {"apartment": "501"})
    assert pair.busy()
    pair.conversation.answer(call, {})
    pair.settle()
    assert pair.model.answers == {"a": {}} and not pair.busy()
    assert [e.text for e in pair.of(Transcript) if e.role == "agent" and e.final] == ["Vou ver.", "Achei."]
    pair.conversation.answer(call, {"status": "ok"})
    pair.conversation.answer(ToolCall("a", "lookup_apartment", "{}", 2), {"status": "ok"})
    pair.settle()
    assert pair.model.violations == []


def test_calls_that_were_made_together_are_answered_in_any_order() -> None:
    pair = Pair(Reply((Call(call_id="a"), Call(call_id="b"), Say(200))))
    pair.speak()
    pair.settle()
    first, second = pair.of(ToolCall)
    pair.conversation.answer(second, {"status": "ok"})
    pair.settle()
    assert not pair.of(AudioDelta) and pair.busy()
    pair.conversation.answer(first, {"status": "ok"})
    pair.settle()
    assert pair.of(AudioDelta) and not pair.busy()


@pytest.mark.parametrize("completes", [True, False])
def test_a_tool_may_take_long_and_something_be_said_meanwhile(completes: bool) -> None:
    pair = Pair(
        Reply((Say(300, "Vou chamar."), Call(call_id="a"), Say(300, "Chamei."))),
        Reply((Say(300),)),
        faults=Faults(completes=completes),
    )
    pair.speak()
    pair.settle()
    (call,) = pair.of(ToolCall)
    about = pair.conversation.speak_about("Está chamando.")
    pair.wait(30)
    assert pair.busy() and pair.model.texts == [], "the response stands still, and is not over"
    pair.conversation.answer(call, {"status": "dialing"})
    pair.settle()
    pair.wait(3)
    pair.settle()
    pair.wait(3)
    assert pair.done()[-1] == (about, "completed") and not pair.busy()


def test_of_an_answer_that_is_to_be_followed_by_nothing_nothing_is_heard() -> None:
    pair = Pair(Reply((Say(100, "Vou chamar."), Call(call_id="a"), Say(500, "Chamei!"))))
    pair.speak()
    pair.settle()
    pair.conversation.answer(pair.of(ToolCall)[0], {"status": "dialing"}, "never")
    assert not pair.busy()
    pair.settle()
    assert [e.text for e in pair.of(Transcript) if e.role == "agent" and e.final] == ["Vou chamar."]
    assert any("não ouviu" in note for note in pair.model.notes)


def test_a_call_that_is_not_waited_for_any_more_is_cancelled_and_its_answer_dropped() -> None:
    pair = Pair(Reply((Call(call_id="a"), Say(200, "Não consegui."))))
    pair.speak()
    pair.settle()
    (call,) = pair.of(ToolCall)
    pair.model.give_up("a")
    pair.settle()
    assert [e.id for e in pair.of(ToolCallCancelled)] == ["a"]
    pair.conversation.answer(call, {"status": "ok"})
    pair.settle()
    assert pair.model.violations == [] and pair.model.answers == {} and not pair.busy()
    assert pair.of(AudioDelta), "the model goes on without it"


def test_a_call_in_an_interrupted_reply_is_cancelled_with_it() -> None:
    pair = Pair(Reply((Say(1000), Call(call_id="a"))))
    pair.speak()
    pair.settle()
    pair.conversation.interrupt(Heard(pair.of(ItemStarted)[0].item, 100))
    pair.speak("Não!")
    pair.settle()
    assert [e.id for e in pair.of(ToolCallCancelled)] == ["a"]
    pair.conversation.answer(pair.of(ToolCall)[0], {"status": "ok"})
    pair.settle()
    assert pair.model.violations == [] and not pair.busy()


def test_a_tool_that_waits_for_no_answer_is_a_fault_of_the_configuration() -> None:
    pair = Pair(Reply((Call(waits=False),)))
    pair.speak()
    with pytest.raises(SessionOver, match="lookup_apartment waits for no response") as caught:
        pair.settle()
    assert caught.value.code == "tool_misconfigured"


# -- the rest ------------------------------------------------------------------------------------------------


def test_a_ping_is_answered_with_its_number(pair: Pair) -> None:
    event = pair.model.ping()
    pair.exchange()
    assert pair.model.received[-1] == {"type": "pong", "event_id": event} and pair.model.violations == []


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"type": "error", "error_event": {"code": 1008, "error_type": "override_error"}}, "refused"),
        ({"type": "error", "message": "received 1002 This request exceeds your quota limit."}, "quota"),
        (
            {"type": "error", "error_event": {"code": 1000, "error_type": "max_duration_exceeded"}},
            "time_over",
        ),
        ({"type": "error"}, "refused"),
    ],
)
def test_an_error_ends_the_session_in_plain_words(pair: Pair, message: Any, code: str) -> None:
    with pytest.raises(SessionOver) as caught:
        pair.conversation.receive(wire.decode(json.dumps(message).encode()))
    assert caught.value.code == code


def test_an_error_of_the_clients_doing_is_told_and_the_session_goes_on(pair: Pair) -> None:
    message = {"type": "client_error", "error_event": {"code": 400, "message": "no such thing"}}
    pair.conversation.receive(wire.decode(json.dumps(message).encode()))
    (failed,) = pair.of(Failed)
    assert failed.kind == "request" and "no such thing" in failed.message


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("Override for field 'first_message' is not allowed by config.", "override_refused"),
        ("A voice with voice_id X was not found.", "unsupported_voice"),
        ("The AI agent you are trying to reach does not exist.", "unknown_model"),
        ("The AI agent you are trying to reach appears to be misconfigured", "agent_misconfigured"),
        ("This request exceeds your quota limit.", "quota"),
        ("[quota_exceeded]", "quota"),
        ("Maximum concurrent conversations reached", "rate_limit"),
        ("Could not authorize", "key_refused"),
        ("Language et is not supported", "unsupported_language"),
        ("Request error", None),
    ],
)
def test_a_close_is_told_in_plain_words(reason: str, code: str | None) -> None:
    found = wire.close_refusal(1008, reason)
    assert (found and found[0]) == code
    if found is not None:
        assert reason in found[1]


def test_an_override_that_the_agent_does_not_allow_is_named() -> None:
    found = wire.close_refusal(1008, "Override for field 'prompt' is not allowed by config.")
    assert found is not None and "allow the override of prompt in the agent's security settings" in found[1]


@pytest.mark.parametrize("secure", [True, False])
def test_an_address_without_tls_is_none_where_the_key_went_over_tls(secure: bool) -> None:
    assert wire.signed_url(b'{"signed_url":"wss://x/y"}', secure) == "wss://x/y"
    for body in (b"", b"[]", b'{"signed_url":7}', b'{"signed_url":"https://x"}', b'{"signed_url":"ws://x"}'):
        with contextlib.nullcontext() if b"ws://x" in body and not secure else pytest.raises(SessionOver):
            wire.signed_url(body, secure)


frames = st.one_of(
    st.binary(max_size=60),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from([*wire.ServerMessage.__struct_fields__, "event_id", "audio_base_64", "x"]),
                inner,
            )
        ),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode()),
)


@settings(max_examples=300)
@given(frames)
def test_any_bytes_are_a_message_or_malformed(frame: bytes) -> None:
    pair = Pair()
    with contextlib.suppress(MalformedMessage, SessionOver):
        pair.conversation.receive(wire.decode(frame))


says = st.builds(Say, ms=st.integers(0, 400), text=st.sampled_from(["Pois não?", "Vou ver agora mesmo.", ""]))
calls = st.builds(Call, times=st.integers(1, 2))
replies = st.builds(Reply, st.lists(says | calls, max_size=3).map(tuple), st.booleans())
STEPS = (
    "model model model to_model to_us say about note barge silence begins ends hears words auto manual doubt "
    "settle answer give_up phantom ping wait"
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(replies, max_size=6),
    st.lists(st.sampled_from(STEPS.split()), max_size=40),
    st.randoms(use_true_random=False),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, 0.0, 1.0]),
)
def test_any_order_of_events_comes_to_its_end(
    scripted: list[Reply],
    walk: list[str],
    chance: Any,
    completes: bool,
    text_last: bool,
    corrects: float | None,
) -> None:
    """No violation, each receipt comes back once, no call runs twice, nothing stays owed."""
    faults = Faults(completes=completes, text_last=text_last, corrects=corrects)
    pair = Pair(*scripted, faults=faults, first=chance.choice(["", "Boa tarde!"]))
    conversation, model = pair.conversation, pair.model
    receipts = [pair.receipt] if pair.receipt else []
    answered: set[str] = set()

    def answer() -> None:
        for call in pair.of(ToolCall):
            if call.id not in answered:
                answered.add(call.id)
                told = any(gone.id == call.id for gone in pair.of(ToolCallCancelled))
                before = len(pair.to_model)
                conversation.answer(call, {"ok": True}, chance.choice(["now", "idle", "never"]))
                assert not (told and len(pair.to_model) > before), "nobody waits for that"
                return

    for step in walk:
        match step:
            case "model":
                model.step()
            case "to_model" if pair.to_model:
                pair.deliver()
            case "to_us" if model.out:
                conversation.receive(wire.decode(json.dumps(model.out.popleft()).encode()))
            case "say":
                receipts.append(conversation.say_exactly("Um momento."))
            case "about":
                receipts.append(conversation.speak_about("Há novidades."))
            case "note":
                conversation.note("Nada de novo.")
            case "barge":
                items = [e.item for e in pair.of(ItemStarted)]
                if items:
                    at = chance.randrange(len(items))
                    conversation.interrupt(Heard(items[at], chance.randrange(500), tuple(items[at + 1 :])))
            case "silence":
                conversation.interrupt(None)
            case "begins":
                conversation.caller_began()
            case "ends":
                conversation.caller_ended(200)
            case "hears" if not model.speaking:
                model.caller_starts()
            case "words" if model.speaking:
                model.caller_ends()
            case "auto":
                conversation.auto_reply(True)
            case "manual":
                conversation.auto_reply(False)
            case "doubt":
                conversation.doubt_turn()
            case "settle":
                conversation.settle_turn(chance.random() < 0.5)
            case "answer":
                answer()
            case "give_up" if model.calls and model.active:
                model.give_up(chance.choice(sorted(model.calls)))
            case "phantom":
                model.phantom()
            case "ping":
                model.ping()
            case "wait":
                pair.wait(chance.choice([0.3, 1.0, 3.0]))
    conversation.caller_ended(200)
    conversation.settle_turn(True)
    for _ in range(60):
        pair.settle()
        answer()
        pair.wait(3)
        if not (conversation.busy or pair.to_model or model.out):
            break
    assert not conversation.busy, "something is owed, and nothing moves"
    pair.wait(60)
    assert conversation.deadline is None
    assert [v for v in model.violations if v.removesuffix(" is not open") not in model.gone] == []
    called = [e.id for e in pair.of(ToolCall)]
    assert len(called) == len(set(called))
    back = [r for e in pair.of(ResponseStarted) for r in ([e.receipt, *e.also] if e.receipt else [])]
    back += [e.receipt for e in pair.of(ResponseDone) if not e.response and e.receipt]
    assert sorted(back) == sorted(receipts), "each receipt comes back once"
    begun = [e.response for e in pair.of(ResponseStarted)]
    ended = [e.response for e in pair.of(ResponseDone) if e.response]
    assert sorted(begun) == sorted(ended), "what began ends, once"
