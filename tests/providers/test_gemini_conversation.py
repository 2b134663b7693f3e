"""The conversation against a strict model, without a socket: any order, any fault, and nothing is lost."""

from __future__ import annotations

import contextlib
import json
from collections import deque
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers import gemini_messages as wire
from providers.base import (
    AudioDelta,
    AudioDone,
    AudioSent,
    Event,
    GoingAway,
    Heard,
    ItemStarted,
    Ready,
    ResponseDone,
    ResponseStarted,
    SessionConfig,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
    ToolCallCancelled,
    ToolSpec,
    Transcript,
    TranscriptFailed,
    TurnDetection,
)
from providers.conversing import MalformedMessage, SessionOver
from providers.gemini_conversation import BYTES_PER_MS, Conversation
from tests.simulators.gemini_live import Call, Faults, Model, Reply, Say

T = TypeVar("T")
TOOL = ToolSpec("lookup_apartment", "Procura.", {"type": "object", "properties": {}})
CONFIG = SessionConfig(
    instructions="Você é o porteiro.",
    tools=[TOOL],
    transcription_prompt="Portaria. Daner, Giane",
    turn_detection=TurnDetection(silence_duration_ms=600),
)
FRAME = b"\x01\x00" * 320  # 20 ms at 16 kHz


class Pair:
    """A conversation and a model that talk to each other when they are told to; time is ours."""

    def __init__(self, *replies: Reply, faults: Faults | None = None, ready: bool = True) -> None:
        self.replies = deque(replies)
        self.faults = faults or Faults()
        self.handles: dict[str, int] = {}
        self.models: list[Model] = []
        self.events: list[Event] = []
        self.to_model: list[bytes] = []
        self.now = 100.0
        self.conversation = Conversation(
            CONFIG, "gemini-3.8-live", "Kore", self.events.append, self.send, lambda: self.now
        )
        self.connect()
        if ready:
            self.exchange()

    def send(self, message: bytes, audio: bool) -> None:
        assert audio is (b'"audio"' in message[:40])
        self.to_model.append(message)

    @property
    def model(self) -> Model:
        return self.models[-1]

    def speaking(self) -> bool:
        """The model knows that the caller speaks."""
        return self.model.speaking

    def busy(self) -> bool:
        return self.conversation.busy

    def connect(self) -> None:
        self.models.append(Model(self.replies, self.faults, self.handles))
        self.to_model.clear()
        self.to_model.append(self.conversation.open())

    def lose(self) -> None:
        """The connection breaks, and another one is there."""
        self.conversation.connection_lost()
        self.connect()

    def exchange(self) -> None:
        """Everything that is under way arrives."""
        while self.to_model or self.model.out:
            while self.to_model:
                self.model.receive(json.loads(self.to_model.pop(0)))
            while self.model.out:
                message = json.dumps(self.model.out.popleft()).encode()
                self.conversation.receive(wire.decode(message))

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            assert self.model.step(), "the model has nothing to say"
            self.exchange()

    def settle(self) -> None:
        """The model says all that it has to say."""
        self.exchange()
        while self.model.step():
            self.exchange()

    def wait(self, seconds: float) -> None:
        """Time passes, and what is due by then is done."""
        until = self.now + seconds
        while (due := self.conversation.deadline) is not None and due <= until:
            self.now = max(self.now, due)
            self.conversation.elapse()
            self.exchange()
        self.now = until

    def speak(self, frames: int = 10) -> None:
        """The caller says something; their turn is over."""
        self.conversation.caller_began()
        for _ in range(frames):
            self.conversation.send_audio(FRAME)
        self.conversation.caller_ended(600)

    def of(self, kind: type[T]) -> list[T]:
        return [e for e in self.events if isinstance(e, kind)]

    @property
    def notes(self) -> list[str]:
        return [text for _, text, reply in self.model.texts if not reply]


@pytest.fixture
def pair() -> Pair:
    return Pair()


def audio_ms(pair: Pair, item: str) -> int:
    return sum(len(e.pcm) for e in pair.of(AudioDelta) if e.item == item) // BYTES_PER_MS


def test_the_configuration_is_what_the_vendor_takes_and_what_we_mean(pair: Pair) -> None:
    setup = pair.model.received[0]["setup"]
    assert [type(e) for e in pair.events] == [Ready]
    assert setup["model"] == "models/gemini-3.8-live"
    assert setup["realtimeInputConfig"]["automaticActivityDetection"] == {"disabled": True}
    transcription = setup["inputAudioTranscription"]
    assert transcription == {"languageCodes": ["pt-BR"], "customVocabulary": ["Portaria", "Daner", "Giane"]}
    assert setup["tools"][0]["functionDeclarations"][0]["name"] == "lookup_apartment"
    assert setup["sessionResumption"] == {} and "historyConfig" not in setup


def test_a_turn_is_heard_with_its_beginning_and_replied_to_in_order(pair: Pair) -> None:
    for _ in range(100):
        pair.conversation.send_audio(FRAME)
    assert pair.to_model == [], "silence is not sent"
    pair.model.said.append("Boa tarde, é uma entrega.")
    pair.speak(10)
    pair.settle()
    assert pair.model.violations == []
    (turn,) = pair.model.turns
    assert len(turn) == 16000 + 10 * len(FRAME), "half a second from before it was noticed"
    assert pair.conversation.audio_sent == AudioSent(0.7, 1.5)
    pair.wait(1)
    kinds = [e.type for e in pair.events if e.type != "audio_delta"]
    assert kinds == [
        "ready",
        "speech_started",
        "speech_stopped",
        "transcript",
        "transcript",
        "response_started",
        "item_started",
        "transcript",
        "audio_done",
        "usage",
        "transcript",
        "response_done",
        "transcript",
    ]
    (said,) = [e for e in pair.of(Transcript) if e.role == "caller" and e.final]
    assert said.text == "Boa tarde, é uma entrega."
    assert said.item == pair.of(SpeechStarted)[0].item == pair.of(SpeechStopped)[0].item
    assert not pair.busy()
    assert pair.of(ResponseDone)[0].usage["totalTokenCount"] == 30


def test_a_pause_within_a_turn_does_not_end_it(pair: Pair) -> None:
    pair.conversation.caller_began()
    pair.conversation.send_audio(FRAME)
    pair.conversation.caller_ended(450)
    pair.wait(0.1)
    pair.conversation.caller_began()
    pair.conversation.send_audio(FRAME)
    pair.conversation.caller_ended(450)
    pair.exchange()
    assert pair.speaking()
    pair.wait(0.16)
    pair.settle()
    assert len(pair.model.turns) == 1 and len(pair.of(SpeechStarted)) == 1


def test_exact_words_come_first_and_each_alone(pair: Pair) -> None:
    about = pair.conversation.speak_about("O morador não atende.")
    also = pair.conversation.speak_about("Ele vai chamar de novo.")
    words = pair.conversation.say_exactly("Boa tarde!")
    pair.settle()
    done = [e.receipt for e in pair.of(ResponseDone)]
    assert done == [about, words, also] and pair.model.violations == []
    assert "«Boa tarde!»" in pair.model.texts[1][1]
    assert pair.model.interruptions == 0, "each waited for the end of the one before"


def test_what_is_to_be_spoken_about_is_one_reply(pair: Pair) -> None:
    words = pair.conversation.say_exactly("Boa tarde!")
    about = pair.conversation.speak_about("O morador não atende.")
    also = pair.conversation.speak_about("Ele vai chamar de novo.")
    pair.settle()
    assert [e.receipt for e in pair.of(ResponseDone)] == [words, about]
    assert pair.of(ResponseStarted)[1].also == (also,)


def test_a_barge_in_is_silent_at_once_and_the_model_learns_what_was_heard() -> None:
    pair = Pair(Reply((Say(1000, "Boa tarde, com quem o senhor deseja falar?"),)))
    receipt = pair.conversation.speak_about("Alguém chegou.")
    pair.exchange()
    pair.step(10)
    item = pair.of(ItemStarted)[0].item
    before = len(pair.of(AudioDelta))
    waiting = AudioDelta(item, b"\0\0")
    pair.conversation.interrupt(Heard(item, 400))
    assert not pair.conversation.passes(waiting), "nor is what waited to be played"
    pair.conversation.caller_began()
    pair.settle()
    assert pair.model.interruptions == 1
    assert len(pair.of(AudioDelta)) == before
    assert pair.of(ResponseDone)[0].status == "cancelled" and pair.of(ResponseDone)[0].receipt == receipt
    (note,) = pair.notes
    assert "só ouviu: «Boa»" in note
    pair.conversation.caller_ended(600)
    pair.settle()
    assert pair.of(ResponseDone)[1].status == "completed", "the turn has its reply"
    assert pair.model.violations == []


def test_of_an_item_that_nobody_heard_the_model_is_told_so_and_of_one_that_all_heard_nothing() -> None:
    pair = Pair()
    for ms, told in ((0, True), (200, False)):
        pair.conversation.speak_about("Alguém chegou.")
        pair.settle()
        pair.conversation.interrupt(Heard(pair.of(ItemStarted)[-1].item, ms))
        pair.exchange()
        assert any("não ouviu" in note for note in pair.notes) is told
        pair.model.texts.clear()


def test_a_turn_waits_for_a_sentence_that_is_being_written() -> None:
    """A protected sentence: the leg does not interrupt it, so nothing that we send may."""
    pair = Pair(Reply((Say(1000),)))
    words = pair.conversation.say_exactly("O portão vai abrir.")
    pair.exchange()
    pair.step(3)
    pair.conversation.caller_began()
    for _ in range(5):
        pair.conversation.send_audio(FRAME)
    pair.exchange()
    assert not pair.speaking() and len(pair.of(SpeechStarted)) == 1, "we know of it, the server does not"
    while not pair.of(AudioDone):
        pair.step()
    assert pair.speaking() and pair.model.caller == FRAME * 5
    assert audio_ms(pair, pair.of(ItemStarted)[0].item) == 1000
    pair.settle()
    assert (pair.of(ResponseDone)[0].receipt, pair.of(ResponseDone)[0].status) == (words, "completed")
    assert pair.model.violations == []


def test_a_turn_does_not_wait_for_ever() -> None:
    pair = Pair(Reply((Say(400),), endless=True))
    words = pair.conversation.say_exactly("O portão vai abrir.")
    pair.settle()
    pair.conversation.caller_began()
    for _ in range(600):
        pair.conversation.send_audio(FRAME)
    pair.wait(4.9)
    assert not pair.speaking()
    pair.wait(0.2)
    assert pair.speaking() and len(pair.model.caller) == 10 * 32000, "the last ten seconds"
    pair.settle()
    assert [(e.receipt, e.status) for e in pair.of(ResponseDone)] == [(words, "incomplete")]


@pytest.mark.parametrize("reply", [True, False])
def test_the_reply_to_a_turn_in_doubt_waits_until_the_doubt_is_settled(reply: bool) -> None:
    pair = Pair(Reply((Say(200), Call(call_id="a"))))
    pair.conversation.doubt_turn()
    pair.speak()
    pair.settle()
    assert not pair.of(ResponseStarted) and not pair.of(ToolCall) and pair.busy()
    pair.conversation.settle_turn(reply)
    pair.settle()
    assert bool(pair.of(AudioDelta)) is bool(pair.of(ResponseDone)) is bool(pair.of(ToolCall)) is reply
    if not reply:
        assert pair.model.answers["a"][0]["status"] == "refused" and pair.model.answers["a"][1] == "SILENT"
        assert any("não ouviu" in note for note in pair.notes)
        assert not pair.busy()
    assert pair.model.violations == []


def test_a_reply_that_nobody_wants_is_not_heard_and_its_calls_do_not_run() -> None:
    pair = Pair(Reply((Say(200), Call(name="authorize_entry", call_id="a"))))
    pair.conversation.auto_reply(False)
    pair.speak()
    pair.settle()
    assert not pair.of(ResponseStarted) and not pair.of(ToolCall) and not pair.busy()
    assert pair.model.answers["a"][1] == "SILENT"
    pair.wait(2)
    assert [e for e in pair.of(Transcript) if e.final and e.role == "caller"], "the words are known"
    words = pair.conversation.say_exactly("Um momento.")
    pair.settle()
    assert pair.of(ResponseDone)[-1].receipt == words
    pair.conversation.auto_reply(True)
    pair.speak()
    pair.settle()
    assert len(pair.of(ResponseDone)) == 2


def test_words_that_are_asked_for_interrupt_a_reply_that_nobody_wants() -> None:
    pair = Pair(Reply((Say(5000),)))
    pair.conversation.auto_reply(False)
    pair.speak()
    pair.exchange()
    pair.step(2)
    words = pair.conversation.say_exactly("Um momento.")
    pair.settle()
    assert pair.model.interruptions == 1
    assert [(e.receipt, e.status) for e in pair.of(ResponseDone)] == [(words, "completed")]


def test_parallel_calls_are_answered_once_each_and_the_last_asks_for_the_reply() -> None:
    pair = Pair(Reply((Say(100), Call(call_id="a", times=2), Call(call_id="b"))))
    pair.conversation.speak_about("Comece.")
    pair.settle()
    calls = pair.of(ToolCall)
    assert [c.id for c in calls] == ["a", "b"], "a repeated call runs once"
    assert json.loads(calls[0].arguments) == {"apartment": "501"}
    pair.conversation.answer(calls[0], {"status": "ok"})
    pair.conversation.answer(calls[0], {"status": "ok"})
    pair.settle()
    assert pair.model.answers["a"][1] == "SILENT" and pair.busy()
    pair.conversation.answer(calls[1], {"status": "ok"}, "never")
    pair.settle()
    assert pair.model.answers["b"][1] == "WHEN_IDLE"
    assert len(pair.of(ResponseDone)) == 2 and not pair.busy()
    assert pair.model.violations == []


def test_a_call_whose_arguments_are_not_complete_does_not_run() -> None:
    pair = Pair(Reply((Call(call_id="a", partial=True),)))
    pair.conversation.speak_about("Comece.")
    pair.settle()
    assert not pair.of(ToolCall) and not pair.busy()


def test_a_model_that_stands_still_for_a_call_goes_on_with_its_answer() -> None:
    pair = Pair(Reply((Call(call_id="a"), Say(200))), faults=Faults(blocking=True))
    pair.conversation.speak_about("Comece.")
    pair.settle()
    pair.conversation.answer(pair.of(ToolCall)[0], {"status": "ok"})
    pair.settle()
    assert [e.status for e in pair.of(ResponseDone)] == ["completed"]
    pair.wait(2)
    assert not pair.busy(), "its reply has been given"


def test_a_cancelled_call_is_reported_and_never_answered() -> None:
    pair = Pair(Reply((Call(call_id="a"),)))
    pair.conversation.speak_about("Comece.")
    pair.settle()
    (call,) = pair.of(ToolCall)
    pair.model.cancel("a")
    pair.exchange()
    assert pair.of(ToolCallCancelled) == [ToolCallCancelled("a")]
    pair.conversation.answer(call, {"status": "ok"})
    pair.settle()
    assert pair.model.answers == {} and pair.model.violations == [] and not pair.busy()


def test_news_wait_for_a_tool_but_not_for_ever() -> None:
    pair = Pair(Reply((Call(call_id="a"),)))
    pair.conversation.speak_about("Comece.")
    pair.settle()
    news = pair.conversation.speak_about("E então?")
    pair.settle()
    assert pair.of(ResponseDone)[-1].receipt != news
    pair.wait(2.1)
    pair.settle()
    assert pair.of(ResponseDone)[-1].receipt == news


def test_no_audio_goes_out_while_a_call_is_open() -> None:
    """Some models close the connection then (1008)."""
    pair = Pair(Reply((Call(call_id="a"),)), faults=Faults(audio_with_calls=False))
    pair.conversation.speak_about("Comece.")
    pair.settle()
    pair.conversation.caller_began()
    pair.conversation.send_audio(FRAME)
    pair.exchange()
    assert not pair.speaking()
    pair.conversation.answer(pair.of(ToolCall)[0], {"status": "ok"}, "never")
    pair.exchange()
    assert pair.speaking() and pair.model.caller == FRAME and pair.model.violations == []


def test_an_interruption_that_nobody_made_is_an_incomplete_reply_and_no_more() -> None:
    pair = Pair(Reply((Say(100),), interrupted=True), Reply())
    first, second = pair.conversation.say_exactly("Um."), pair.conversation.say_exactly("Dois.")
    pair.settle()
    assert [(e.receipt, e.status) for e in pair.of(ResponseDone)] == [
        (first, "incomplete"),
        (second, "completed"),
    ]
    pair.model.phantom()
    pair.exchange()
    pair.speak()
    pair.settle()
    assert pair.of(ResponseDone)[-1].status == "completed"


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (Reply(()), "incomplete"),
        (Reply((), silent=True), "failed"),
        (Reply((Say(100),), reason="RESPONSE_REJECTED"), "incomplete"),
    ],
)
def test_a_reply_that_does_not_come_is_told(reply: Reply, status: str) -> None:
    pair = Pair(reply)
    words = pair.conversation.say_exactly("Um.")
    also = pair.conversation.say_exactly("Dois.")
    pair.settle()
    pair.wait(6)
    pair.settle()
    assert [(e.receipt, e.status) for e in pair.of(ResponseDone)] == [(words, status), (also, "completed")]
    assert not pair.busy()


def test_a_stuck_vad_does_not_swallow_a_greeting(pair: Pair) -> None:
    pair.conversation.caller_began()
    words = pair.conversation.say_exactly("Boa tarde!")
    pair.exchange()
    pair.wait(10.1)
    pair.settle()
    assert words in [e.receipt for e in pair.of(ResponseDone)] and pair.model.violations == []


def test_late_words_are_not_lost_and_a_turn_without_words_says_so(pair: Pair) -> None:
    pair.model.said.append("")
    pair.speak()
    pair.settle()
    pair.wait(3.1)
    assert [e.item for e in pair.of(TranscriptFailed)] == [pair.of(SpeechStarted)[0].item]
    pair.model.transcribe("não!")
    pair.exchange()
    pair.wait(1)
    last = pair.of(Transcript)[-1]
    assert (last.text, last.final) == ("não!", True) and last.item != pair.of(SpeechStarted)[0].item


def test_words_that_are_marked_as_the_last_are_final_at_once() -> None:
    pair = Pair(faults=Faults(finished=True))
    pair.speak()
    pair.exchange()
    assert [e.text for e in pair.of(Transcript) if e.final] == ["Boa tarde."]


def test_the_going_away_is_told_with_its_time(pair: Pair) -> None:
    pair.model.go_away(57.5)
    pair.exchange()
    assert pair.of(GoingAway) == [GoingAway(57.5)] and pair.conversation.going_away


def test_another_format_than_the_documented_one_ends_the_session() -> None:
    pair = Pair(faults=Faults(mime="audio/pcm;rate=16000"))
    pair.conversation.say_exactly("Um.")
    with pytest.raises(SessionOver, match="rate=24000"):
        pair.settle()


def test_the_next_connection_takes_up_where_the_last_one_ended(pair: Pair) -> None:
    pair.speak()
    pair.settle()
    pair.wait(1)
    pair.exchange()
    handle = pair.conversation.handle
    assert handle is not None
    pair.lose()
    about = pair.conversation.speak_about("Ela voltou.")
    pair.settle()
    assert pair.model.resumed == handle and pair.conversation.epoch == 2
    assert len(pair.of(Ready)) == 1
    assert pair.of(ResponseDone)[-1].receipt == about and pair.model.violations == []


def test_without_a_handle_the_conversation_is_told_as_text() -> None:
    pair = Pair(Reply((Say(1000, "Boa tarde, com quem deseja falar?"),)), faults=Faults(no_handles=True))
    pair.conversation.say_exactly("Boa tarde!")
    pair.settle()
    pair.conversation.interrupt(Heard(pair.of(ItemStarted)[0].item, 500))
    pair.model.said.append("Com o Daner.")
    pair.speak()
    pair.settle()
    pair.wait(1)
    pair.lose()
    pair.settle()
    told = [(role, text) for role, text, _ in pair.model.texts]
    assert ("user", "Com o Daner.") in told
    assert ("model", "Boa tarde, com") in told, "of what was interrupted, what was heard"
    assert not pair.model.active and pair.model.violations == [], "a history asks for no reply"


def test_what_was_under_way_when_the_connection_broke_is_settled() -> None:
    pair = Pair(Reply((Call(call_id="a"),)), Reply((Say(1000),)))
    pair.conversation.speak_about("Comece.")
    pair.settle()
    (call,) = pair.of(ToolCall)
    running = pair.conversation.say_exactly("Um.")
    pair.exchange()
    pair.step(3)
    waiting = pair.conversation.say_exactly("Dois.")
    pair.conversation.caller_began()
    pair.lose()
    assert pair.of(ToolCallCancelled) == [ToolCallCancelled("a")]
    assert (pair.of(ResponseDone)[-1].receipt, pair.of(ResponseDone)[-1].status) == (running, "incomplete")
    pair.conversation.send_audio(FRAME)
    pair.conversation.caller_ended(600)
    pair.conversation.answer(call, {"status": "ok"})
    pair.settle()
    pair.wait(2)
    pair.settle()
    assert pair.model.answers == {} and pair.model.violations == []
    assert waiting in [e.receipt for e in pair.of(ResponseDone) if e.status == "completed"]
    assert pair.model.turns == [FRAME]
    assert any("caiu e voltou" in text for _, text, _ in pair.model.texts)


def test_words_of_a_turn_that_the_broken_connection_had_are_lost_and_said_to_be(pair: Pair) -> None:
    pair.conversation.caller_began()
    pair.exchange()
    pair.lose()
    first, second = (e.item for e in pair.of(SpeechStarted))
    assert [e.item for e in pair.of(TranscriptFailed)] == [first]
    pair.conversation.send_audio(FRAME)
    pair.conversation.caller_ended(600)
    pair.settle()
    pair.wait(1)
    assert [e.item for e in pair.of(Transcript) if e.final and e.role == "caller"] == [second]


REPLIES = st.builds(
    Reply,
    st.lists(st.one_of(st.builds(Say, st.just(120)), st.builds(Call)), max_size=3).map(tuple),
    interrupted=st.booleans(),
    silent=st.sampled_from([False, False, False, True]),
    endless=st.sampled_from([False, False, False, True]),
)
DEEDS = st.sampled_from(
    [
        *(
            "step",
            "step",
            "step",
            "exchange",
            "exchange",
            "began",
            "ended",
            "audio",
            "exact",
            "about",
            "note",
        ),
        *(
            "answer",
            "cancel",
            "interrupt",
            "interrupt none",
            "auto on",
            "auto off",
            "doubt",
            "settle",
            "lose",
        ),
        *("phantom", "wait", "resumable", "words"),
    ]
)


@settings(max_examples=100, deadline=None)
@given(replies=st.lists(REPLIES, max_size=5), deeds=st.lists(DEEDS, max_size=60), blocking=st.booleans())
def test_whatever_happens_in_whatever_order_the_vendor_takes_it_and_nothing_stays_owed(
    replies: list[Reply], deeds: list[str], blocking: bool
) -> None:
    pair = Pair(*replies, faults=Faults(blocking=blocking), ready=False)
    conversation = pair.conversation
    receipts: list[str] = []
    answered: set[str] = set()

    def answer_all() -> None:
        for call in pair.of(ToolCall):
            if call.id not in answered:
                conversation.answer(call, {"status": "ok"})
                answered.add(call.id)

    def do(deed: str) -> None:
        items = pair.of(ItemStarted)
        calls = list(pair.model.calls)
        match deed:
            case "step":
                pair.model.step()
            case "exchange":
                pair.exchange()
            case "began":
                conversation.caller_began()
            case "ended":
                conversation.caller_ended(600)
            case "audio":
                conversation.send_audio(FRAME)
            case "exact":
                receipts.append(conversation.say_exactly("Palavras."))
            case "about":
                receipts.append(conversation.speak_about("Algo."))
            case "note":
                conversation.note("Chove.")
            case "answer":
                answer_all()
            case "cancel" if calls and not blocking:
                pair.model.cancel(calls[0])
                pair.exchange()  # an answer that crosses a cancellation is the vendor's to forgive
            case "interrupt" if items:
                conversation.interrupt(Heard(items[-1].item, 60))
            case "interrupt none":
                conversation.interrupt(None)
            case "auto on" | "auto off":
                conversation.auto_reply(deed == "auto on")
            case "doubt":
                conversation.doubt_turn()
            case "settle":
                conversation.settle_turn(True)
            case "lose":
                if conversation.ready:
                    pair.lose()
            case "phantom":
                pair.model.phantom()
            case "wait":
                pair.exchange()
                pair.wait(1.0)
            case "resumable" if pair.model.setup:
                pair.model.give_handle(resumable=False)
            case "words" if pair.model.setup:
                pair.model.transcribe("Sim.")

    for deed in deeds:
        do(deed)
        assert pair.model.violations == []
    conversation.settle_turn(True)
    conversation.caller_ended(600)
    for _ in range(8):
        pair.settle()
        answer_all()
        pair.settle()
        pair.wait(11)
    assert [one for model in pair.models for one in model.violations] == []
    assert not conversation.busy and conversation.quiet and conversation.deadline is None
    ended = [e.receipt for e in pair.of(ResponseDone) if e.receipt]
    told = ended + [r for e in pair.of(ResponseStarted) if e.receipt in ended for r in e.also]
    assert set(told) >= set(receipts), "whoever waits for a receipt learns what became of it"
    assert len(ended) == len(set(ended)), "once"
    started = [e.response for e in pair.of(ResponseStarted)]
    assert len(started) == len(set(started)) == len({e.response for e in pair.of(ResponseDone) if e.response})
    turns = [e.item for e in pair.of(SpeechStarted)]
    known = {e.item for e in pair.of(Transcript) if e.role == "caller" and e.final}
    assert set(turns) <= known | {e.item for e in pair.of(TranscriptFailed)}, (
        "each turn's words, or their loss"
    )
    calls = [e.id for e in pair.of(ToolCall)]
    assert len(calls) == len(set(calls)), "no call runs twice"


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8), st.just("57s")),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(
                st.sampled_from(
                    [
                        *("setupComplete", "serverContent", "toolCall", "toolCallCancellation", "goAway"),
                        *(
                            "sessionResumptionUpdate",
                            "usageMetadata",
                            "modelTurn",
                            "parts",
                            "inlineData",
                            "data",
                        ),
                        *("mimeType", "functionCalls", "id", "name", "args", "ids", "timeLeft", "newHandle"),
                        *("resumable", "turnComplete", "interrupted", "inputTranscription", "text"),
                    ]
                ),
                inner,
                max_size=5,
            ),
        ),
        max_leaves=12,
    )
)
def test_no_message_breaks_anything(message: Any) -> None:
    pair = Pair()
    with contextlib.suppress(MalformedMessage, SessionOver):
        pair.conversation.receive(wire.decode(json.dumps(message).encode()))
    assert pair.of(Ready)


@given(st.binary(max_size=60))
def test_no_bytes_break_anything(frame: bytes) -> None:
    with contextlib.suppress(MalformedMessage):
        wire.decode(frame)
