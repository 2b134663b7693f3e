"""The conversation against a strict model, without a socket: any order, any fault, and nothing is lost."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers import openai_messages as wire
from providers.azure_voicelive_messages import VoiceLiveWire
from providers.base import (
    AudioDelta,
    Failed,
    Heard,
    ItemStarted,
    Line,
    PastCall,
    Ready,
    ResponseDone,
    ResponseStarted,
    Tokens,
    ToolCall,
    Transcript,
    TranscriptFailed,
    TurnDetection,
    Usage,
)
from providers.conversing import MalformedMessage, SessionOver
from providers.openai_conversation import Conversation
from tests.simulators.azure_voicelive import VoiceLiveModel
from tests.simulators.openai_realtime import BYTES_PER_MS, Call, Faults, Model, Reply, Say
from tests.simulators.pair import CONFIG, WIRE, Pair, go, replies, steps

KEYS = ["response", "item", "item_id", "response_id", "id", "error", "delta", "metadata", "session", "type"]


@pytest.fixture
def pair() -> Pair:
    return Pair()


def audio_ms(pair: Pair, item: str) -> int:
    return sum(len(e.pcm) for e in pair.of(AudioDelta) if e.item == item) // BYTES_PER_MS


def test_the_configuration_is_what_the_vendor_takes_and_what_we_mean(pair: Pair) -> None:
    pair.settle()
    assert pair.model.violations == []
    assert [type(e) for e in pair.events] == [Ready]
    heard = pair.model.session["audio"]["input"]
    assert heard["turn_detection"]["create_response"] is False
    assert heard["turn_detection"]["interrupt_response"] is False
    expected = {"model": "gpt-transcribe", "language": "pt", "prompt": "Daner, Giane"}
    assert heard["transcription"] == expected
    assert pair.model.session["output_modalities"] == ["audio"]
    assert pair.model.session["tools"][0]["name"] == "lookup_apartment"


def test_what_is_said_may_end_a_turn_as_well_as_silence() -> None:
    turns = TurnDetection(kind="semantic_vad", eagerness="high", silence_duration_ms=900)
    pair = Pair(config=replace(CONFIG, turn_detection=turns))
    pair.settle()
    assert pair.model.session["audio"]["input"]["turn_detection"] == {
        "type": "semantic_vad",
        "eagerness": "high",
        "create_response": False,
        "interrupt_response": False,
    }
    assert pair.model.violations == []


def test_a_reply_that_the_server_cut_off_by_itself_is_over() -> None:
    pair = Pair(Reply((Say(400),)))
    receipt = pair.conversation.speak_about("Comece.")
    pair.until(lambda: audio_ms(pair, "say_1") == 100)
    item = pair.model.phantom()
    pair.exchange()
    assert [(e.receipt, e.status) for e in pair.of(ResponseDone)] == [(receipt, "cancelled")]
    pair.model.caller_ends(item, "")
    pair.settle()
    assert len(pair.model.creates) == 2 and pair.model.violations == []


@pytest.mark.parametrize("side", ["input", "output"])
def test_a_format_that_was_not_confirmed_ends_the_session(side: str) -> None:
    pair = Pair(faults=Faults(formats={side: None}))
    with pytest.raises(SessionOver, match=side) as caught:
        pair.settle()
    assert caught.value.code == "unsupported_format"
    assert pair.events == []


def test_a_refused_configuration_ends_the_session() -> None:
    pair = Pair(faults=Faults(configure_error="invalid_value"))
    with pytest.raises(SessionOver, match="refused the configuration"):
        pair.settle()


def test_a_turn_is_replied_to_and_told_in_order(pair: Pair) -> None:
    pair.settle()
    item = pair.model.caller_starts()
    pair.model.caller_ends(item, "Boa tarde, é uma entrega.")
    pair.settle()
    assert len(pair.model.creates) == 1 and pair.model.violations == []
    kinds = [e.type for e in pair.events if e.type != "audio_delta"]
    assert kinds == [
        "ready",
        "speech_started",
        "speech_stopped",
        "transcript",
        "transcript",
        "usage",
        "response_started",
        "item_started",
        "transcript",
        "audio_done",
        "transcript",
        "response_done",
        "usage",
    ]
    assert Transcript("caller", item, "Boa tarde, é uma entrega.", final=True) in pair.events
    done = pair.of(ResponseDone)[0]
    assert (done.status, done.usage["total_tokens"], done.receipt) == ("completed", 30, None)
    assert audio_ms(pair, pair.of(ItemStarted)[0].item) == 200


def test_what_is_billed_is_told_of_the_reply_and_of_the_transcription(pair: Pair) -> None:
    pair.model.caller_ends(pair.model.caller_starts(), "Boa tarde.")
    pair.settle()
    assert pair.of(Usage) == [
        Usage("openai", "gpt-transcribe", "transcription", seconds=1.0),
        Usage("openai", WIRE.model, "reply", Tokens(1, 3, 5, 4, 2, 15)),
    ]


@given(usage=st.none() | st.lists(st.integers()) | st.text() | st.dictionaries(st.text(), st.text()))
def test_a_bill_that_makes_no_sense_ends_nothing(usage: Any) -> None:
    pair = Pair()
    pair.exchange()
    conversation = pair.conversation
    item = {"type": "conversation.item.input_audio_transcription.completed", "item_id": "i", "transcript": ""}
    conversation.receive({**item, "usage": usage})
    conversation.receive({"type": "response.created", "response": {"id": "r"}})
    done = {"id": "r", "status": "completed", "usage": usage}
    conversation.receive({"type": "response.done", "response": done})
    assert [one.complete for one in pair.of(Usage)] == [False, False]
    assert pair.of(ResponseDone)[-1].status == "completed"


def test_a_transcription_that_failed_is_told(pair: Pair) -> None:
    pair.model.caller_ends(pair.model.caller_starts(), None)
    pair.settle()
    assert [e.reason for e in pair.of(TranscriptFailed)] == ["nothing understood"]


@pytest.mark.parametrize("ignore_metadata", [False, True])
def test_receipts_come_back_on_what_they_asked_for(ignore_metadata: bool) -> None:
    pair = Pair(faults=Faults(ignore_metadata=ignore_metadata))
    greeting = pair.conversation.say_exactly("Boa tarde, condomínio Jardim.")
    news = pair.conversation.speak_about("O morador atendeu.")
    more = pair.conversation.speak_about("O morador tem uma pergunta.")
    pair.settle()
    assert [e.receipt for e in pair.of(ResponseStarted)] == [greeting, news]
    assert [e.also for e in pair.of(ResponseStarted)] == [(), (more,)]
    assert [e.receipt for e in pair.of(ItemStarted)] == [greeting, news]
    assert [e.receipt for e in pair.of(ResponseDone)] == [greeting, news]
    exact = pair.model.creates[0]["response"]
    assert "«Boa tarde, condomínio Jardim.»" in exact["instructions"] and exact["tool_choice"] == "none"
    assert pair.model.violations == []


def test_a_note_is_told_without_a_reply(pair: Pair) -> None:
    pair.conversation.note("O morador está ocupado.")
    pair.settle()
    assert pair.model.creates == [] and not pair.conversation.busy
    item = pair.model.received[-1]["item"]
    assert item["role"] == "system" and item["content"][0]["text"] == "O morador está ocupado."


def test_parallel_calls_run_once_and_are_answered_once_after_done() -> None:
    calls = (Call(call_id="a", times=3), Call(call_id="b"), Call(call_id="c", status="incomplete"))
    pair = Pair(Reply((Say(50), *calls)))
    pair.conversation.speak_about("Comece.")
    pair.until(lambda: len(pair.of(ToolCall)) == 2)
    first, second = pair.of(ToolCall)
    assert (first.id, second.id, first.epoch) == ("a", "b", 1)
    pair.conversation.answer(first, {"apartment": "501"})
    pair.conversation.answer(first, {"apartment": "999"})
    pair.settle()
    assert list(pair.model.answers) == ["a"] and len(pair.model.creates) == 1
    pair.conversation.answer(second, {"apartment": "502"})
    pair.conversation.answer(ToolCall("zzz", "x", "{}", 1), {})
    pair.conversation.answer(ToolCall("b", "x", "{}", 2), {})
    pair.settle()
    assert pair.model.answers == {"a": '{"apartment":"501"}', "b": '{"apartment":"502"}'}
    assert len(pair.model.creates) == 2 and pair.model.violations == []


def test_a_barge_in_cuts_the_model_s_memory_at_what_was_heard() -> None:
    pair = Pair(Reply((Say(400), Say(400), Say(400))), faults=Faults(late_deltas=3))
    pair.conversation.speak_about("Comece.")
    pair.until(lambda: audio_ms(pair, "say_2") == 100)
    pair.conversation.interrupt(Heard("say_1", 123, ("say_2",)))
    before = len(pair.of(AudioDelta))
    pair.settle()
    assert len(pair.of(AudioDelta)) == before, "late audio of a cancelled reply"
    assert pair.model.truncated == {"say_1": 123}
    assert pair.model.deleted == ["say_2"]
    assert [e.status for e in pair.of(ResponseDone)] == ["cancelled"]
    assert [m["type"] for m in pair.model.received].count("response.cancel") == 1
    assert pair.model.violations == []


@pytest.mark.parametrize(
    ("ms", "truncated", "deleted"), [(0, {}, ["say_1"]), (99_999, {"say_1": 100}, []), (-5, {}, ["say_1"])]
)
def test_what_was_heard_is_clamped_to_what_was_received(ms: int, truncated: Any, deleted: Any) -> None:
    pair = Pair(Reply((Say(400),)))
    pair.conversation.speak_about("Comece.")
    pair.until(lambda: audio_ms(pair, "say_1") == 100)
    pair.conversation.interrupt(Heard("say_1", ms))
    pair.settle()
    assert (pair.model.truncated, pair.model.deleted) == (truncated, deleted)
    assert pair.model.violations == []


def test_a_reply_that_was_generated_but_not_played_is_cut_without_a_cancel() -> None:
    pair = Pair(Reply((Say(400), Say(400))))
    pair.conversation.speak_about("Comece.")
    pair.settle()
    waiting = next(e for e in pair.of(AudioDelta) if e.item == "say_2")
    assert pair.conversation.passes(waiting)
    pair.conversation.interrupt(Heard("say_1", 150))
    pair.conversation.interrupt(Heard("say_1", 150))
    assert not pair.conversation.passes(waiting), "audio that still waited to be taken"
    pair.settle()
    assert pair.model.truncated == {"say_1": 150}
    assert pair.model.deleted == ["say_2"]
    assert "response.cancel" not in [m["type"] for m in pair.model.received]
    benign = pair.of(Failed)
    assert [e.kind for e in benign] == ["benign"], "the second truncation is no failure"


def test_a_barge_in_before_anything_was_heard_forgets_the_reply() -> None:
    pair = Pair(Reply((Say(400),)))
    pair.conversation.speak_about("Comece.")
    pair.until(lambda: audio_ms(pair, "say_1") == 100)
    pair.conversation.interrupt(None)
    pair.settle()
    assert pair.model.deleted == ["say_1"] and pair.model.violations == []


def test_a_reply_that_is_asked_for_but_not_begun_is_cancelled_unheard() -> None:
    pair = Pair()
    pair.exchange()
    pair.conversation.speak_about("Comece.")
    pair.conversation.interrupt(None)
    pair.settle()
    assert pair.of(AudioDelta) == [] and pair.of(ItemStarted) == []
    assert [e.status for e in pair.of(ResponseDone)] == ["cancelled"]
    assert pair.model.violations == []


def run_ahead(pair: Pair) -> None:
    """The model has said everything before it hears another word of ours; nothing of it has arrived yet."""
    while pair.to_model:
        pair.model.receive(pair.to_model.pop(0))
    while pair.model.step():
        pass


def test_what_was_under_way_when_we_cancelled_is_neither_played_nor_remembered() -> None:
    pair = Pair(Reply((Say(100), Say(100))))
    pair.conversation.speak_about("Comece.")
    pair.until(lambda: audio_ms(pair, "say_1") == 50)
    run_ahead(pair)
    pair.conversation.interrupt(Heard("say_1", 20))
    pair.settle()
    assert audio_ms(pair, "say_1") == 50 and audio_ms(pair, "say_2") == 0
    assert [e.item for e in pair.of(ItemStarted)] == ["say_1"]
    assert pair.model.truncated == {"say_1": 20} and pair.model.deleted == ["say_2"]
    assert [(e.kind, e.code) for e in pair.of(Failed)] == [("benign", "response_cancel_not_active")]
    assert pair.model.violations == [] and not pair.conversation.busy


def test_a_reply_cancelled_before_it_was_announced_is_never_heard() -> None:
    pair = Pair(Reply((Say(100),)))
    pair.exchange()
    pair.conversation.speak_about("Comece.")
    run_ahead(pair)
    pair.conversation.interrupt(None)
    pair.settle()
    assert pair.of(AudioDelta) == [] and pair.of(ItemStarted) == []
    assert pair.model.deleted == ["say_1"]
    assert not pair.conversation.busy


def test_nothing_to_cancel_means_that_the_reply_is_over() -> None:
    pair = Pair(Reply((Say(100),)))
    pair.conversation.speak_about("Comece.")
    pair.until(lambda: audio_ms(pair, "say_1") == 50)
    pair.conversation.interrupt(None)
    error = {"code": "response_cancel_not_active", "message": "Cancellation failed: no active response"}
    pair.conversation.receive({"type": "error", "error": error})
    assert not pair.conversation.busy


def test_a_configuration_that_is_confirmed_twice_is_one_ready(pair: Pair) -> None:
    pair.model.receive(pair.conversation.open())
    pair.settle()
    assert pair.events == pair.of(Ready) and len(pair.events) == 1


def test_busy_is_benign_and_the_request_is_asked_again() -> None:
    pair = Pair(faults=Faults(busy_creates=1))
    receipt = pair.conversation.say_exactly("Boa tarde.")
    pair.settle()
    assert [(e.kind, e.code) for e in pair.of(Failed)] == [
        ("benign", "conversation_already_has_active_response")
    ]
    assert [e.receipt for e in pair.of(ResponseDone)] == [None, receipt]
    assert len(pair.model.creates) == 1 and pair.model.violations == []


def test_a_request_that_was_refused_releases_whoever_waits_for_it(pair: Pair) -> None:
    pair.settle()
    receipt = pair.conversation.say_exactly("Boa tarde.")
    create = pair.to_model.pop()
    pair.model.refuse(create, "invalid_value", "no", violation=False)
    pair.settle()
    assert [(e.kind, e.message) for e in pair.of(Failed)] == [("request", "no")]
    assert pair.of(ResponseDone) == [ResponseDone("", receipt, "failed", {}, "no")]
    assert not pair.conversation.busy


@pytest.mark.parametrize(
    ("reply", "detail"),
    [
        (Reply(status="incomplete"), "max_output_tokens"),
        (Reply(status="failed", error="rate_limit_exceeded"), "rate_limit_exceeded"),
    ],
)
def test_a_reply_that_broke_off_says_why(reply: Reply, detail: str) -> None:
    pair = Pair(reply)
    pair.conversation.speak_about("Comece.")
    pair.settle()
    assert [(e.status, e.detail) for e in pair.of(ResponseDone)] == [(reply.status, detail)]


def test_a_used_up_quota_ends_the_session() -> None:
    pair = Pair(Reply(status="failed", error="insufficient_quota"))
    pair.conversation.speak_about("Comece.")
    with pytest.raises(SessionOver, match="quota"):
        pair.settle()


def test_with_auto_reply_off_the_host_has_the_turn(pair: Pair) -> None:
    pair.conversation.auto_reply(False)
    pair.model.caller_ends(pair.model.caller_starts())
    pair.settle()
    assert pair.model.creates == []


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
        max_leaves=8,
    ),
    st.sampled_from(sorted(Conversation._HANDLERS)),
)
@settings(max_examples=500, deadline=None)
def test_whatever_a_server_sends_is_taken_or_refused_as_malformed(body: Any, kind: str) -> None:
    pair = Pair()
    message = {**(body if isinstance(body, dict) else {"response": body}), "type": kind}
    with contextlib.suppress(MalformedMessage, SessionOver):
        pair.conversation.receive(message)


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_frame_is_a_message_or_malformed(frame: bytes) -> None:
    with contextlib.suppress(MalformedMessage):
        assert isinstance(wire.decode(frame)["type"], str)


@given(
    st.lists(replies, max_size=5),
    st.integers(0, 2),
    st.integers(0, 2),
    st.booleans(),
    st.lists(steps, max_size=60),
    st.randoms(use_true_random=False),
)
@settings(max_examples=1000, deadline=None)
def test_a_thousand_conversations_with_faults(
    script: list[Reply], late: int, busy: int, no_metadata: bool, walk: list[str], chance: Any
) -> None:
    """Messages cross in any order: the vendor never has a reason to refuse, and all receipts return."""
    pair = Pair(*script, faults=Faults(late_deltas=late, busy_creates=busy, ignore_metadata=no_metadata))
    go(pair, walk, chance, busy=bool(busy))


HISTORY = (
    Line("caller", "É do quinhentos e um."),
    Line("agent", "Certo, um momento."),
    PastCall("call_7", "lookup_apartment", '{"apartment":"501"}', {"status": "found"}),
    Line("system", "O visitante espera."),
)


@pytest.mark.parametrize("dialect", [WIRE, VoiceLiveWire("gpt-5-mini", "francisca")])
def test_a_session_that_goes_on_with_a_conversation_is_told_it_first_and_asks_for_nothing(
    dialect: wire.Dialect,
) -> None:
    model = Model if dialect is WIRE else VoiceLiveModel
    pair = Pair(config=replace(CONFIG, history=HISTORY), dialect=dialect, model=model)
    pair.settle()
    pair.conversation.note("depois")
    pair.settle()
    assert pair.model.violations == [] and pair.model.creates == []
    items = [one["item"] for one in pair.model.received if one["type"] == "conversation.item.create"]
    assert [item.get("role") or item["type"] for item in items] == [
        *("user", "assistant", "function_call", "function_call_output", "system", "system")
    ]
    assert [item["content"][0]["text"] for item in items if "content" in item] == [
        *("É do quinhentos e um.", "Certo, um momento.", "O visitante espera.", "depois")
    ]
    assert pair.conversation.capabilities.history


@pytest.mark.parametrize("announced", [True, False])
def test_a_reply_of_which_nothing_comes_is_asked_for_once_more(announced: bool) -> None:
    """Whether the server lost our create or what it announced: the receipt comes back once, with words."""
    pair = Pair(Reply((Say(text="Perdida"),)), Reply((Say(text="Um momento."),)))
    pair.exchange()
    receipt = pair.conversation.say_exactly("Um momento.")
    assert [one["type"] for one in pair.to_model] == ["response.create"]
    if announced:
        pair.model.receive(pair.to_model.pop(0))
        pair.conversation.receive(pair.model.out.popleft())
    else:
        pair.to_model.clear()
    assert pair.conversation.ask_again()
    pair.settle()
    assert not pair.conversation.busy and pair.model.violations == []
    assert [(done.receipt, done.status) for done in pair.of(ResponseDone) if done.receipt] == [
        (receipt, "completed")
    ]
    (item,) = pair.of(ItemStarted)
    assert item.receipt == receipt
    assert not pair.conversation.ask_again(), "nothing is waited for"


def test_a_reply_that_has_begun_to_be_heard_is_not_asked_for_again(pair: Pair) -> None:
    pair.conversation.say_exactly("Um momento.")
    pair.until(lambda: bool(pair.of(AudioDelta)))
    assert not pair.conversation.ask_again()
    pair.settle()
    assert len(pair.model.creates) == 1
