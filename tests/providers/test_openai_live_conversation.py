"""The OpenAI Live conversation against its simulator, without a socket and in a time of its own."""

from __future__ import annotations

import json
from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers import openai_live_messages as wire
from providers.base import (
    AudioDelta,
    AudioDone,
    Event,
    Failed,
    Heard,
    ItemStarted,
    Line,
    PastCall,
    Ready,
    ResponseDone,
    ResponseStarted,
    SessionConfig,
    SpeechStarted,
    SpeechStopped,
    Tokens,
    ToolCall,
    ToolCallCancelled,
    ToolSpec,
    Transcript,
    TranscriptFailed,
    Usage,
)
from providers.conversing import MalformedMessage, SessionOver
from providers.openai_live_conversation import EXACT_QUIET_MS, QUIET_MS, SAID_QUIET_MS, Conversation
from tests.simulators.openai_live import CHUNK_MS, LEVEL, Call, Delegate, Faults, Model, Reply, Say

TOOL = ToolSpec("lookup_apartment", "Procura.", {"type": "object", "properties": {}})
CONFIG = SessionConfig(instructions="Você é o porteiro.", tools=[TOOL])
STEP_S = CHUNK_MS / 1000


class Duet:
    """A conversation and the vendor's model; a step is a tenth of a second."""

    def __init__(self, *replies: Reply, faults: Faults | None = None, start: bool = True) -> None:
        self.now = 0.0
        self.model = Model(deque(replies), faults)
        self.events: list[Event] = []
        format = wire.FORMATS["pcm24"]
        first = wire.session_start(CONFIG, "gpt-live-1", "marin", "gpt-6-luna", format)
        self.talk = Conversation(
            CONFIG,
            first,
            format,
            self._emit,
            lambda message: self.model.receive(_plain(message)),
            lambda: self.now,
        )
        if start:
            self.model.receive(_plain(first))
            self.exchange()

    def _emit(self, event: Event) -> None:
        if self.talk.passes(event):
            self.events.append(event)

    def exchange(self) -> None:
        while self.model.out:
            self.talk.receive(json.dumps(self.model.out.popleft()).encode())

    def pass_ms(self, ms: int, caller: bool | None = False) -> None:
        """Time goes by; ``caller`` speaks or is quiet; None: they send nothing."""
        for _ in range(ms // CHUNK_MS):
            self.now += STEP_S
            if caller is not None:
                level = LEVEL if caller else 0
                pcm = (level.to_bytes(2, "little")) * (24 * CHUNK_MS)
                self.model.receive(json.loads(wire.audio_append(pcm)))
            self.model.step()
            self.exchange()
            if self.talk.deadline is not None and self.talk.deadline <= self.now:
                self.talk.elapse()
            self.exchange()

    def caller_says(self, ms: int = 800) -> None:
        self.talk.caller_began()
        self.pass_ms(ms, caller=True)
        self.pass_ms(200)
        self.talk.caller_ended(200)

    def of(self, kind: type[Any], **having: Any) -> list[Any]:
        return [
            e
            for e in self.events
            if isinstance(e, kind) and all(getattr(e, k) == v for k, v in having.items())
        ]

    def heard_ms(self, item: str) -> int:
        return sum(len(e.pcm) for e in self.of(AudioDelta, item=item)) // 48


def _plain(message: Any) -> Any:
    return json.loads(wire.encode(message))


def test_what_is_asked_for_is_the_next_utterance_and_ends_in_quiet() -> None:
    duet = Duet(Reply((Say(1500, "Boa tarde! "), Say(500, "Qual apartamento?"))))
    (ready,) = duet.events
    assert (
        isinstance(ready, Ready)
        and ready.capabilities.owns_turns
        and ready.capabilities.queue_limit_ms == 200
    )
    receipt = duet.talk.say_exactly("Boa tarde! Qual apartamento?")
    assert duet.talk.busy
    duet.pass_ms(2000)
    assert duet.talk.busy, "it may go on"
    duet.pass_ms(1200)
    kinds = [type(e) for e in duet.events[1:] if not isinstance(e, AudioDelta)]
    assert kinds == [ResponseStarted, ItemStarted, *[Transcript] * 5, AudioDone, ResponseDone]
    (done,) = duet.of(ResponseDone)
    assert (done.receipt, done.status) == (receipt, "completed") and "session_seconds" in done.usage
    assert duet.of(ItemStarted)[0].receipt == receipt
    assert duet.of(Transcript, final=True)[0].text == "Boa tarde! Qual apartamento?"
    heard = duet.heard_ms(duet.of(ItemStarted)[0].item)
    assert 2000 + SAID_QUIET_MS <= heard <= 2000 + SAID_QUIET_MS + 100, "all of it has been said"
    (asked,) = duet.model.commentary
    assert "«Boa tarde! Qual apartamento?»" in asked and not duet.talk.busy


SENTENCE = "Boa tarde! Qual apartamento, por favor, o visitante procura?"


@pytest.mark.parametrize(
    "reply",
    [
        Say(2000, "Boa tarde! Qual é o prédio?"),  # other words
        Say(2000, SENTENCE + " Diga."),  # more words
        Say(300, SENTENCE),  # no sound for so many
        Say(2000, SENTENCE, lag_ms=2500),  # words that come later
    ],
)
def test_what_is_not_yet_the_sentence_is_waited_for_longer(reply: Say) -> None:
    duet = Duet(Reply((reply,)))
    duet.talk.say_exactly(SENTENCE)
    duet.pass_ms(6000)
    heard = duet.heard_ms(duet.of(ItemStarted)[0].item)
    assert reply.ms + EXACT_QUIET_MS <= heard <= reply.ms + EXACT_QUIET_MS + 100


def test_words_that_run_ahead_of_their_sound_end_nothing() -> None:
    duet = Duet(Reply((Say(1000, "", pause_ms=500), Say(1000, ""))))
    duet.talk.say_exactly("Boa tarde! Qual apartamento?")
    duet.pass_ms(800)
    duet.model._transcript("output", "Boa tarde! Qual apartamento?", start_ms=5000)
    duet.pass_ms(4000)
    assert len(duet.of(ItemStarted)) == 1


def test_a_pause_ends_an_utterance_that_nobody_counts_the_words_of() -> None:
    duet = Duet(Reply((Say(500, "Boa tarde!", pause_ms=500), Say(500, "Pois não?"))))
    receipt = duet.talk.speak_about("Cumprimente.")
    duet.pass_ms(2500)
    one, two = duet.of(ItemStarted)
    assert (one.receipt, two.receipt) == (receipt, None)
    assert [e.text for e in duet.of(Transcript, final=True)] == ["Boa tarde!", "Pois não?"]
    assert duet.heard_ms(one.item) <= 500 + 80 + QUIET_MS + 20


def test_exact_words_come_before_other_things_and_one_at_a_time() -> None:
    duet = Duet(*[Reply((Say(300, name),)) for name in "abc"])
    about = duet.talk.speak_about("Chove.")
    also = duet.talk.speak_about("Venta.")
    exact = duet.talk.say_exactly("Um instante.")
    third = duet.talk.speak_about("Neva.")
    duet.pass_ms(6000)
    assert [e.receipt for e in duet.of(ResponseStarted)] == [about, exact, also]
    assert duet.of(ResponseStarted)[2].also == (third,)
    assert len(duet.model.commentary) == 3 and "Venta.\nNeva." in duet.model.commentary[2]
    assert duet.model.violations == [] and not duet.talk.busy


def test_what_the_model_says_by_itself_is_not_taken_for_what_was_asked() -> None:
    duet = Duet(Reply((Say(300, "Olá."),)), faults=Faults(never_accepts=True))
    receipt = duet.talk.say_exactly("Boa tarde!")
    duet.model.begin()
    duet.pass_ms(3000)
    assert [e.receipt for e in duet.of(ResponseStarted)] == [None]
    duet.pass_ms(6000)
    (done,) = duet.of(ResponseDone, receipt=receipt)
    assert done.status == "failed" and not duet.talk.busy


def test_what_is_refused_is_told() -> None:
    duet = Duet(faults=Faults(refuses_commentary=True))
    receipt = duet.talk.speak_about("Cumprimente.")
    duet.pass_ms(100)
    assert duet.of(Failed)[0].kind == "request"
    assert duet.of(ResponseDone, receipt=receipt)[0].status == "failed"


def test_a_caller_is_heard_and_answered() -> None:
    duet = Duet(Reply((Say(400, "Pois não?"),)))
    duet.model.said.append("Apartamento quinhentos e um.")
    duet.caller_says()
    assert [type(e) for e in duet.events[1:]] == [SpeechStarted]
    duet.pass_ms(500)
    assert isinstance(duet.events[2], SpeechStopped) or duet.of(SpeechStopped)
    assert duet.talk.busy, "it is about to speak"
    duet.pass_ms(2500)
    (words,) = duet.of(Transcript, role="caller", final=True)
    assert words.text == "Apartamento quinhentos e um."
    assert words.item == duet.of(SpeechStarted)[0].item
    assert duet.of(ResponseDone)[0].receipt is None and not duet.talk.busy


def test_a_sound_that_was_no_word_is_told_and_owed_no_reply_for_long() -> None:
    duet = Duet()
    duet.talk.caller_began()
    duet.talk.caller_ended(600)
    assert duet.talk.busy
    duet.pass_ms(4100)
    assert duet.of(TranscriptFailed) and not duet.talk.busy


def test_words_that_come_after_all_are_not_lost() -> None:
    duet = Duet()
    duet.model.transcribe("Alô?")
    duet.pass_ms(1000)
    assert [type(e) for e in duet.events[1:4]] == [SpeechStarted, SpeechStopped, Transcript]
    assert duet.of(Transcript, final=True)[0].text == "Alô?"


def test_a_barge_in_mutes_what_is_being_said_and_tells_the_model_what_was_heard() -> None:
    text = "O morador do apartamento quinhentos e um não atende no momento."
    duet = Duet(Reply((Say(5000, text),)), faults=Faults(talks_over=True))
    duet.talk.speak_about("Avise.")
    duet.pass_ms(1500)
    (started,) = duet.of(ItemStarted)
    duet.talk.caller_began()
    duet.talk.interrupt(Heard(started.item, 1000))
    assert not duet.talk.busy
    before = duet.heard_ms(started.item)
    duet.pass_ms(4500, caller=True)
    assert duet.heard_ms(started.item) == before
    (done,) = duet.of(ResponseDone)
    assert done.status == "cancelled" and not duet.of(AudioDone)
    (note,) = duet.model.thinking
    assert "só ouviu: «O morador" in note and "momento" not in note


def test_the_model_yields_and_what_it_says_next_is_heard() -> None:
    duet = Duet(Reply((Say(5000, "Falo muito."),)), Reply((Say(300, "Diga."),)))
    duet.talk.speak_about("Fale.")
    duet.pass_ms(1000)
    (started,) = duet.of(ItemStarted)
    duet.talk.caller_began()
    duet.pass_ms(100, caller=True)
    duet.talk.interrupt(Heard(started.item, 900))
    duet.pass_ms(700, caller=True)
    duet.pass_ms(200)
    duet.talk.caller_ended(200)
    duet.pass_ms(2000)
    assert duet.model.yielded == 1 and duet.model.thinking == [], "it knows what it said"
    assert [e.status for e in duet.of(ResponseDone)] == ["cancelled", "completed"]
    assert duet.heard_ms(duet.of(ItemStarted)[1].item) >= 300


def test_what_waited_to_be_played_and_was_dropped_is_told_as_well() -> None:
    duet = Duet(Reply((Say(1500, "Primeiro isto e depois aquilo."),)))
    duet.talk.speak_about("Fale.")
    duet.pass_ms(2500)
    (started,) = duet.of(ItemStarted)
    duet.talk.interrupt(Heard(started.item, 500))
    duet.talk.interrupt(Heard(started.item, 500))
    assert len(duet.model.thinking) == 1


def test_a_protected_sentence_is_not_muted_by_what_was_dropped_behind_it() -> None:
    duet = Duet(Reply((Say(2000, "Atenção."),)))
    receipt = duet.talk.say_exactly("Atenção.")
    duet.pass_ms(1000)
    duet.talk.interrupt(Heard("item_other", 0))
    duet.pass_ms(2500)
    assert duet.of(ResponseDone, receipt=receipt)[0].status == "completed"


def test_a_reply_that_nobody_wants_is_kept_and_its_calls_are_refused() -> None:
    duet = Duet(Reply((Say(1000, "Está autorizado!"), Delegate((Call(),)))))
    duet.talk.auto_reply(False)
    duet.caller_says()
    duet.pass_ms(3500)
    assert not duet.of(ItemStarted) and not duet.of(ToolCall) and not duet.of(AudioDelta)
    assert duet.of(Transcript, role="caller", final=True), "it is heard"
    assert duet.model.answers["call_1"]["status"] == "refused"
    assert any("não ouviu" in note for note in duet.model.thinking)
    duet.talk.auto_reply(True)
    duet.model.begin()
    duet.pass_ms(1500)
    assert duet.of(ItemStarted)


def test_the_models_words_find_their_sound() -> None:
    early = Duet(Reply((Say(300, "Um. "),)))
    early.model._transcript("output", "Olá. ")
    early.exchange()
    early.talk.speak_about("Fale.")
    early.pass_ms(1500)
    assert early.of(Transcript, final=True)[0].text == "Olá. Um."
    stale = Duet(Reply((Say(300, "Um. "),)))
    stale.model._transcript("output", "Olá. ")
    stale.pass_ms(3000)
    stale.talk.speak_about("Fale.")
    stale.pass_ms(1500)
    assert stale.of(Transcript, final=True)[0].text == "Um."
    late = Duet(Reply((Say(600, "Um.", pause_ms=600, lag_ms=1000), Say(600, "Dois."))))
    late.talk.speak_about("Fale.")
    late.pass_ms(3000)
    one, two = late.of(ItemStarted)
    assert [e.item for e in late.of(Transcript, text="Um.")] == [one.item]
    assert late.of(Transcript, final=True)[1].text == "Dois." and two


def test_a_stream_that_breaks_off_in_a_word_is_no_complete_sentence() -> None:
    duet = Duet(Reply((Say(500, "Boa"),)), faults=Faults(only_speech=True))
    receipt = duet.talk.say_exactly("Boa tarde!")
    duet.pass_ms(2500)
    (done,) = duet.of(ResponseDone, receipt=receipt)
    assert done.status == "incomplete" and not duet.of(AudioDone) and not duet.talk.busy


def test_a_stream_that_stands_still_ends_the_session_and_one_without_silence_does_not() -> None:
    duet = Duet()
    duet.pass_ms(3000)
    duet.model.over = True
    duet.talk.sent_at = duet.now
    duet.now += 4.9
    duet.talk.elapse()
    duet.now += 0.2
    duet.talk.elapse()  # nothing is sent either
    duet.now = duet.talk.sent_at = duet.now + 1.0
    with pytest.raises(SessionOver, match="stands still") as over:
        duet.talk.elapse()
    assert over.value.code == "stalled"
    gaps = Duet(faults=Faults(only_speech=True))
    gaps.talk.speak_about("Fale.")
    for _ in range(20):
        gaps.talk.sent_at = gaps.now
        gaps.pass_ms(1000)
    assert not gaps.of(Failed)


# -- tools ---------------------------------------------------------------------------------------------------


def test_calls_are_run_once_their_response_is_complete_and_it_goes_on_when_all_are_answered() -> None:
    calls = (Call(call_id="a", times=2), Call(call_id="b"), Call(call_id="c", status="incomplete"))
    duet = Duet(Reply((Delegate(calls),)), Reply((Say(300, "Achei."),)))
    duet.talk.speak_about("Procure.")
    duet.pass_ms(200)
    a, b = duet.of(ToolCall)
    assert (a.id, b.id) == ("a", "b") and json.loads(a.arguments) == {"apartment": "501"}
    assert duet.of(ResponseDone)[0].usage["total_tokens"] == 450
    duet.talk.answer(a, {"status": "ok"})
    duet.talk.answer(a, {"status": "again"})
    assert not [m for m in duet.model.received if m["type"] == "response.create"]
    duet.talk.answer(b, {"status": "ok"}, "idle")
    assert duet.talk.busy
    duet.pass_ms(2000)
    assert [m["type"] for m in duet.model.received if m["type"].startswith("response.")] == [
        "response.item.create",
        "response.item.create",
        "response.create",
    ]
    assert duet.model.answers == {"a": {"status": "ok"}, "b": {"status": "ok"}}
    assert duet.model.violations == [] and duet.of(Transcript, text="Achei.", final=True)


def test_two_delegations_go_on_when_the_calls_of_both_are_answered() -> None:
    duet = Duet(Reply((Delegate((Call(call_id="a"),)), Delegate((Call(call_id="b"),)))))
    duet.talk.speak_about("Procure.")
    duet.pass_ms(300)
    a, b = duet.of(ToolCall)
    duet.talk.answer(a, {"status": "ok"})
    duet.pass_ms(500)
    duet.talk.answer(b, {"status": "ok"}, "never")
    assert [m["type"] for m in duet.model.received].count("response.create") == 1
    assert duet.model.violations == []


def test_an_outcome_that_nobody_is_to_speak_about_is_told_silently() -> None:
    duet = Duet(Reply((Delegate((Call(),)),)), faults=Faults())
    duet.talk.speak_about("Ligue.")
    duet.pass_ms(200)
    (call,) = duet.of(ToolCall)
    duet.talk.answer(call, {"status": "dialing"}, "never")
    duet.pass_ms(500)
    assert not [m for m in duet.model.received if m["type"] == "response.create"]
    assert any("dialing" in note and "Não fale disso" in note for note in duet.model.thinking)
    assert duet.model.violations == []


def test_a_long_tool_does_not_hold_the_conversation_up() -> None:
    duet = Duet(Reply((Say(300, "Vou ver."), Delegate((Call(),)))), Reply((Say(300, "Pois não?"),)))
    duet.talk.speak_about("Procure.")
    duet.pass_ms(3000)
    (call,) = duet.of(ToolCall)
    assert not duet.talk.busy, "it is our turn, not the model's"
    duet.caller_says()
    duet.pass_ms(2000)
    assert duet.of(Transcript, text="Pois não?", final=True)
    duet.talk.answer(call, {"status": "ok"})
    duet.pass_ms(2000)
    assert duet.model.answers and duet.model.violations == []


@pytest.mark.parametrize("status", ["failed", "incomplete"])
def test_calls_of_a_response_that_failed_are_not_run(status: Any) -> None:
    duet = Duet(Reply((Delegate((Call(),), status),)))
    duet.talk.speak_about("Procure.")
    duet.pass_ms(500)
    assert not duet.of(ToolCall) and duet.of(Failed)[0].code == "delegation_failed"
    assert duet.of(ResponseDone)[0].status == status


def test_a_call_that_was_cancelled_is_not_answered() -> None:
    duet = Duet(Reply((Delegate((Call(),)),)))
    duet.talk.speak_about("Procure.")
    duet.pass_ms(200)
    (call,) = duet.of(ToolCall)
    duet.model.cancel()
    duet.exchange()
    assert duet.of(ToolCallCancelled) == [ToolCallCancelled("call_1")]
    duet.talk.answer(call, {"status": "ok"})
    duet.talk.answer(ToolCall("call_1", "x", "{}", 2), {})
    assert duet.model.answers == {} and duet.model.violations == []


def test_a_delegated_model_that_says_nothing_is_waited_for_no_longer_than_bearable() -> None:
    duet = Duet(Reply((Delegate((), "silent"),)))
    duet.model.begin()
    duet.pass_ms(500)
    assert duet.talk.busy
    duet.pass_ms(5000)
    assert not duet.talk.busy


def test_unnamed_delegations_work_as_well() -> None:
    duet = Duet(Reply((Delegate((Call(),), named=False),)))
    duet.model.begin()
    duet.pass_ms(200)
    (call,) = duet.of(ToolCall)
    duet.talk.answer(call, {"status": "ok"})
    duet.pass_ms(1000)
    assert duet.model.violations == [] and not duet.talk._works


# -- what makes no sense, and what ends it -------------------------------------------------------------------


def test_a_session_begins_with_what_was_said_before() -> None:
    lines = [Line("system", "Chove."), Line("caller", "Oi."), Line("agent", "Pois não?"), Line("agent", "")]
    assert wire.past(lines) == [
        {"role": "developer", "content": [{"type": "input_text", "text": "Chove."}]},
        {"role": "user", "content": [{"type": "input_text", "text": "Oi."}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "Pois não?"}]},
    ]
    (told,) = wire.past([PastCall("a", "lookup_apartment", '{"apartment":"501"}', {"status": "ok"})])
    assert told["role"] == "developer"
    assert told["content"][0]["text"] == 'lookup_apartment {"apartment":"501"} → {"status":"ok"}'
    assert len(wire.past([Line("caller", str(n)) for n in range(300)])) == 128
    newest = wire.past([Line("caller", "a" * 15_000), Line("caller", "b" * 15_000)])
    assert [message["content"][0]["text"][0] for message in newest] == ["b"]
    duet = Duet(start=False)
    config = SessionConfig(instructions="", tools=[], history=lines)
    first = wire.session_start(config, "gpt-live-1", "marin", "gpt-6-luna", wire.FORMATS["pcm24"])
    duet.model.receive(_plain(first))
    duet.exchange()
    assert duet.model.violations == [] and duet.of(Ready)[0].capabilities.history


def test_long_texts_are_told_in_pieces_that_the_server_takes() -> None:
    duet = Duet()
    text = "palavra " * 500
    duet.talk.note(text)
    duet.talk.speak_about(text)
    assert duet.model.violations == [] and len(duet.model.thinking) >= 6 and len(duet.model.commentary) == 1
    assert (
        " ".join(wire.pieces(text)) == text.strip() + " "
        or "".join(wire.pieces(text)).count("palavra") == 500
    )
    assert wire.pieces("x" * 3000) == ["x" * 1200, "x" * 1200, "x" * 600] and wire.pieces("") == []


@pytest.mark.parametrize(
    ("reason", "code"),
    [("expired", "session_expired"), ("content", "content_refused"), ("connection_lost", "went_away")],
)
def test_the_server_ends_it(reason: str, code: str) -> None:
    duet = Duet()
    duet.pass_ms(1000)
    duet.model.close(reason)
    with pytest.raises(SessionOver) as over:
        duet.exchange()
    assert over.value.code == code and duet.talk.closed and duet.talk.seconds == 1.0


@pytest.mark.parametrize(
    ("message", "where"),
    [
        ({"type": "session.output_transcript.delta", "delta": 7}, "session.output_transcript.delta"),
        ({"type": "session.output_audio.delta", "delta": "###"}, "session.output_audio.delta"),
        ({"type": "session.output_audio.delta", "delta": "AAAA"}, "no whole samples"),
        ({"type": "response.event", "event": []}, "response.event"),
        ({"type": "session.closed"}, "session.closed"),
        ({"kind": "session.closed"}, "type"),
        ([], "type"),
    ],
)
def test_what_makes_no_sense_is_told(message: Any, where: str) -> None:
    duet = Duet()
    with pytest.raises(MalformedMessage, match=where):
        duet.talk.receive(json.dumps(message).encode())


def test_a_call_without_a_name_is_malformed_and_other_messages_are_passed_over() -> None:
    duet = Duet()
    item = {"type": "function_call", "status": "completed", "call_id": "a"}
    event = {"type": "response.output_item.done", "item": item}
    with pytest.raises(MalformedMessage, match="name"):
        duet.talk.receive(json.dumps({"type": "response.event", "event": event}).encode())
    duet.talk.receive(b'{"type":"info","code":"x","message":"y"}')
    duet.talk.receive(b'{"type":"response.event","event":{"type":"response.output_text.delta"}}')
    assert [e for e in duet.events if not isinstance(e, Ready)] == []


@settings(max_examples=150, deadline=None)
@given(
    (st.binary(max_size=200) | st.text(max_size=200).map(str.encode)).filter(
        lambda frame: b'"type"' not in frame  # of a kind that nobody knows, and passed over
    )
)
def test_bytes_that_are_nothing_are_malformed(frame: bytes) -> None:
    with pytest.raises(MalformedMessage):
        Duet().talk.receive(frame)


def test_audio_before_the_session_was_started_is_malformed() -> None:
    with pytest.raises(MalformedMessage, match="before"):
        Duet(start=False).talk.receive(b'{"type":"session.output_audio.delta","delta":"AAA="}')


def test_a_format_that_nobody_can_read_ends_it() -> None:
    format = {"type": "audio/pcm", "rate": 16001}
    session = {"expires_at": 1, "audio": {"format": format}}
    message = json.dumps({"type": "session.started", "session": session}).encode()
    with pytest.raises(SessionOver, match="found audio/pcm at 16001 Hz; allowed are pcm at 24000"):
        Duet(start=False).talk.receive(message)
    with pytest.raises(SessionOver, match="did not confirm"):
        Duet(start=False).talk.receive(b'{"type":"session.started","session":{"expires_at":1}}')


# -- any order of anything -----------------------------------------------------------------------------------

ACTIONS = st.one_of(
    st.tuples(st.just("pass"), st.integers(1, 30)),
    st.tuples(st.just("speaks"), st.integers(1, 10)),
    st.tuples(st.sampled_from(["began", "ended", "exact", "about", "note", "doubt", "settle"]), st.just(0)),
    st.tuples(st.sampled_from(["auto", "answer", "never", "cancel", "interrupt"]), st.integers(0, 2000)),
)
REPLIES = st.lists(
    st.lists(
        st.builds(
            Say, st.integers(1, 30).map(lambda n: 100 * n), st.just("Sim."), st.sampled_from([0, 300, 900])
        )
        | st.builds(
            lambda n, status: Delegate(tuple(Call(call_id=f"call_{n}_{i}") for i in range(n % 3)), status),
            st.integers(0, 99),
            st.sampled_from(["completed", "completed", "failed", "incomplete", "silent"]),
        ),
        max_size=3,
    ).map(lambda items: Reply(tuple(items))),
    max_size=6,
)


@settings(max_examples=80, deadline=None)
@given(st.lists(ACTIONS, max_size=25), REPLIES, st.booleans(), st.booleans())
def test_whatever_happens(actions: list[Any], replies: list[Reply], over: bool, only: bool) -> None:
    duet = Duet(*replies, faults=Faults(talks_over=over, only_speech=only))
    talk, receipts, answered, silenced = duet.talk, [], set(), set()
    for action, number in actions:
        match action:
            case "pass":
                duet.pass_ms(number * CHUNK_MS)
            case "speaks":
                duet.pass_ms(number * CHUNK_MS, caller=True)
            case "began":
                talk.caller_began()
            case "ended":
                talk.caller_ended(300)
            case "exact":
                receipts.append(talk.say_exactly("Sim."))
            case "about":
                receipts.append(talk.speak_about("Fale."))
            case "note":
                talk.note("Chove.")
            case "doubt":
                talk.doubt_turn()
            case "settle":
                talk.settle_turn(True)
            case "auto":
                talk.auto_reply(number % 2 == 0)
            case "answer" | "never":
                for call in duet.of(ToolCall):
                    talk.answer(call, {"status": "ok"}, "never" if action == "never" else "now")
                    answered.add(call.id)
            case "cancel":
                duet.model.cancel()
            case "interrupt":
                items = duet.of(ItemStarted)
                talk.interrupt(Heard(items[-1].item, number) if items else None)
                if items:
                    silenced.add((items[-1].item, len(duet.events)))
        duet.exchange()
    talk.caller_ended(5000)
    duet.pass_ms(60_000, caller=None)
    for _ in range(10):
        duet.now += 10
        duet.pass_ms(3000, caller=None)
    assert duet.model.violations == []
    assert not talk.busy and not talk._timers.keys() - {"floor", "stream"}, "nothing is waited for for ever"
    done = [r for r in duet.of(ResponseDone) if r.receipt is not None]
    also = [receipt for e in duet.of(ResponseStarted) for receipt in e.also]
    assert sorted([e.receipt for e in done] + also) == sorted(receipts), "each receipt comes back once"
    calls = [e.id for e in duet.of(ToolCall)]
    assert len(calls) == len(set(calls))
    for item, at in silenced:
        assert not [e for e in duet.events[at:] if isinstance(e, AudioDelta) and e.item == item]
    open_item = ""
    for event in duet.events:
        match event:
            case ItemStarted():
                assert not open_item, "one at a time"
                open_item = event.item
            case AudioDelta():
                assert event.item == open_item
            case ResponseDone() if event.response.startswith("response_") and open_item:
                open_item = ""
    began, ended = duet.of(SpeechStarted), duet.of(SpeechStopped)
    settled = [e.item for e in duet.events if isinstance(e, TranscriptFailed)]
    settled += [e.item for e in duet.of(Transcript, role="caller", final=True)]
    assert [e.item for e in began] == [e.item for e in ended] and sorted(settled) == sorted(
        e.item for e in began
    )


def test_the_model_that_it_delegates_to_is_billed_by_its_tokens() -> None:
    duet = Duet()
    usage = {"input_tokens": 420, "input_tokens_details": {"cached_tokens": 20}, "output_tokens": 30}
    for kind, response in (
        ("response.created", {"id": "r"}),
        ("response.completed", {"id": "r", "usage": usage}),
    ):
        event = {"type": kind, "response": response}
        duet.talk.receive(json.dumps({"type": "response.event", "event": event}).encode())
    billed = [event for event in duet.events if isinstance(event, Usage)]
    assert billed == [Usage("openai", "gpt-6-luna", "reply", Tokens(400, 20, 30))]
