"""Turns that our VAD detects, in OpenAI's protocol: what is sent, in which order, and what isn't."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import AsyncOpenAI

from providers import openai_realtime
from providers.access import Access
from providers.azure_openai import azure_openai_settings
from providers.azure_voicelive_messages import VoiceLiveWire
from providers.base import (
    AudioDelta,
    AudioSent,
    Failed,
    Heard,
    Ready,
    ResponseDone,
    SparesSilence,
    SpeechStarted,
    SpeechStopped,
    TakesTurns,
    Transcript,
    TranscriptFailed,
    TurnDetection,
)
from providers.openai_realtime import OpenAIProvider, OpenAISettings, OpenAITurnsSession
from tests.simulators.azure_voicelive import VoiceLiveModel
from tests.simulators.openai_realtime import Faults, Model, Reply, Say, Simulator
from tests.simulators.pair import CONFIG, STEPS, Pair, go, replies
from tests.simulators.talk import Talk, failures

LOCAL = replace(CONFIG, turn_detection=TurnDetection(kind="local", silence_duration_ms=500))
MS = b"\x01\x00" * 24
"""A millisecond of a caller's sound."""


@pytest.fixture
def pair() -> Pair:
    pair = Pair(Reply((Say(400),)), config=LOCAL)
    pair.settle()
    return pair


def sent(pair: Pair) -> list[str]:
    """What went to the model since it was configured: the last words of the types."""
    return [message["type"].rpartition(".")[2] for message in pair.model.received[1:]]


def test_the_server_detects_no_turns_and_nothing_is_sent_between_them(pair: Pair) -> None:
    assert pair.model.session["audio"]["input"]["turn_detection"] is None
    for _ in range(100):
        pair.conversation.send_audio(MS * 20)
    pair.settle()
    assert sent(pair) == []
    assert pair.conversation.audio_sent == AudioSent(0.0, 1.5), "half a second is kept"


def test_a_turn_is_half_a_second_its_audio_and_a_commit_and_then_the_reply_is_asked_for(pair: Pair) -> None:
    for _ in range(100):
        pair.conversation.send_audio(MS * 20)
    pair.conversation.caller_began()
    pair.conversation.send_audio(b"\x02\x00" * 24 * 300)
    pair.conversation.turn_over()
    pair.conversation.send_audio(MS * 20)
    pair.settle()
    assert sent(pair) == ["clear", "append", "append", "commit", "create"]
    assert pair.model.turns == {"user_1": MS * 500 + b"\x02\x00" * 24 * 300}
    assert [e.item for e in pair.of(SpeechStarted)] == [e.item for e in pair.of(SpeechStopped)] == ["turn_1"]
    assert Transcript("caller", "turn_1", "Boa tarde.", final=True) in pair.events
    assert [e.status for e in pair.of(ResponseDone)] == ["completed"]
    assert pair.conversation.audio_sent == AudioSent(0.8, 1.5)
    assert pair.model.violations == []


def test_silence_that_stands_for_our_own_echo_is_not_sent_as_a_beginning(pair: Pair) -> None:
    for _ in range(30):
        pair.conversation.send_audio(bytes(960))
    pair.conversation.send_audio(MS * 20)
    pair.conversation.caller_began()
    pair.conversation.send_audio(MS * 200)
    pair.conversation.turn_over()
    pair.settle()
    assert pair.model.turns == {"user_1": MS * 220}


def test_who_speaks_over_us_is_heard_first_and_then_the_rest_is_forgotten() -> None:
    pair = Pair(Reply((Say(400), Say(400), Say(400))), config=LOCAL, faults=Faults(late_deltas=3))
    pair.conversation.speak_about("Comece.")
    pair.until(lambda: any(e.item == "say_2" for e in pair.of(AudioDelta)))
    pair.conversation.send_audio(MS * 500)
    pair.conversation.caller_began()
    pair.conversation.interrupt(Heard("say_1", 123, ("say_2",)))
    came = len(pair.of(AudioDelta))
    pair.conversation.send_audio(MS * 300)
    pair.conversation.turn_over()
    assert [m["type"].rpartition(".")[2] for m in pair.to_model] == [
        *["clear", "append", "cancel", "truncate", "delete"],
        *["append", "commit"],
    ], "no create while the old response is not done"
    pair.settle()
    assert sent(pair)[-1] == "create"
    assert [e for e in pair.of(AudioDelta)[came:] if e.item.startswith("say_1") or e.item == "say_2"] == []
    assert pair.model.truncated == {"say_1": 123} and pair.model.deleted == ["say_2"]
    assert [e.status for e in pair.of(ResponseDone)] == ["cancelled", "completed"]
    assert pair.model.violations == []


def test_too_little_for_a_turn_is_none_and_gets_no_reply(pair: Pair) -> None:
    pair.conversation.caller_began()
    pair.conversation.send_audio(MS * 99)
    pair.conversation.turn_over()
    pair.settle()
    assert sent(pair) == ["clear", "append", "clear"]
    assert pair.of(TranscriptFailed) == [TranscriptFailed("turn_1", "too short")]
    assert not pair.conversation.busy and pair.conversation.patience is None


def test_a_turn_that_the_server_would_not_take_has_no_words(pair: Pair) -> None:
    pair.model.faults.refuse_commits = True
    pair.conversation.caller_began()
    pair.conversation.send_audio(MS * 300)
    pair.conversation.turn_over()
    pair.settle()
    assert [e.item for e in pair.of(TranscriptFailed)] == ["turn_1"]
    assert [(e.kind, e.code) for e in pair.of(Failed)] == [("request", "input_audio_buffer_commit_empty")]
    assert not pair.conversation.busy


def test_words_that_overtake_their_commit_are_that_turns(pair: Pair) -> None:
    pair.conversation.caller_began()
    pair.conversation.send_audio(MS * 300)
    pair.conversation.turn_over()
    kind = "conversation.item.input_audio_transcription.completed"
    pair.conversation.receive({"type": kind, "item_id": "user_1", "transcript": "Bom dia."})
    pair.conversation.receive({"type": "input_audio_buffer.committed", "item_id": "user_1"})
    assert Transcript("caller", "turn_1", "Bom dia.", final=True) in pair.events


def test_who_speaks_before_the_session_is_up_is_heard_from_a_second_before() -> None:
    pair = Pair(config=LOCAL)
    pair.conversation.caller_began()
    for _ in range(100):
        pair.conversation.send_audio(MS * 20)
    assert [m["type"] for m in pair.to_model] == ["session.update"]
    pair.settle()
    pair.conversation.turn_over()
    pair.settle()
    assert [len(pcm) // len(MS) for pcm in pair.model.turns.values()] == [1000]
    assert [type(e) for e in pair.events[:2]] == [Ready, SpeechStarted]


def test_what_was_said_before_the_session_was_up_is_no_turn() -> None:
    pair = Pair(config=LOCAL)
    pair.conversation.caller_began()
    pair.conversation.turn_over()
    pair.settle()
    assert sent(pair) == [] and [type(e) for e in pair.events] == [Ready]


def test_the_same_in_voicelives_words() -> None:
    dialect = VoiceLiveWire("gpt-5-mini", "francisca")
    pair = Pair(config=LOCAL, dialect=dialect, model=VoiceLiveModel)
    pair.settle()
    assert pair.model.session["turn_detection"] is None
    pair.conversation.caller_began()
    pair.conversation.send_audio(b"\x01\x00" * 8 * 300)
    pair.conversation.turn_over()
    pair.settle()
    assert [len(pcm) for pcm in pair.model.turns.values()] == [16 * 300]
    assert len(pair.model.creates) == 1 and pair.model.violations == []


@given(
    st.lists(replies, max_size=5),
    st.integers(0, 2),
    st.integers(0, 2),
    st.booleans(),
    st.lists(st.sampled_from([*STEPS.split(), "sound", "starts", "ends", "cut", "sound"]), max_size=60),
    st.randoms(use_true_random=False),
)
@settings(max_examples=500, deadline=None)
def test_whatever_crosses_no_turn_is_refused_and_no_response_asked_for_too_early(
    script: list[Reply], late: int, busy: int, no_metadata: bool, walk: list[str], chance: Any
) -> None:
    faults = Faults(late_deltas=late, busy_creates=busy, ignore_metadata=no_metadata)
    pair = Pair(*script, config=LOCAL, faults=faults)
    go(pair, [*walk, "ends"], chance, busy=bool(busy), local=True)
    began, ended = pair.of(SpeechStarted), pair.of(SpeechStopped)
    assert [e.item for e in began] == [e.item for e in ended]
    worded = [e.item for e in pair.events if isinstance(e, Transcript) and e.role == "caller" and e.final]
    lost = [e.item for e in pair.of(TranscriptFailed)]
    assert sorted(worded + lost) == sorted(e.item for e in began), "each turn has its words, or none, once"
    appended = [m for m in pair.model.received if m["type"] == "input_audio_buffer.append"]
    seconds = sum(len(base64.b64decode(m["audio"])) for m in appended) / 48000
    assert pair.conversation.audio_sent.sent_s == pytest.approx(seconds)


# -- the session -------------------------------------------------------------------------------------------


async def talking(server: Simulator, **more: Any) -> Talk[OpenAITurnsSession]:
    session = OpenAIProvider(OpenAISettings(api_key="sk-test", base_url=server.url, **more)).open(LOCAL)
    assert isinstance(session, OpenAITurnsSession)
    assert isinstance(session, TakesTurns) and isinstance(session, SparesSilence)
    talk = Talk(session)
    await talk.a(Ready)
    return talk


async def test_a_pause_shorter_than_a_turns_end_does_not_end_it() -> None:
    async with Simulator() as server:
        talk = await talking(server)
        session = talk.session
        session.caller_began()
        session.send_audio(MS * 200)
        session.caller_ended(480)
        session.caller_began()
        await asyncio.sleep(0.1)
        assert not [e for e in talk.events if isinstance(e, SpeechStopped)]
        session.send_audio(MS * 200)
        session.caller_ended(480)
        session.send_audio(MS * 20)
        await talk.a(ResponseDone)
        assert [len(pcm) // len(MS) for pcm in server.model.turns.values()] == [420]
        assert session.audio_sent() == AudioSent(0.42, 0.0)
        await session.close()
        await talk.end()
        assert server.model.violations == []


async def test_of_what_never_stops_sounding_the_beginning_is_heard_and_the_rest_is_a_turn_without_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(openai_realtime, "LONGEST_TURN_S", 0.3)
    async with Simulator() as server:
        talk = await talking(server)
        talk.session.caller_began()
        async with asyncio.timeout(5):
            while not server.model.turns:
                talk.session.send_audio(MS * 20)
                await asyncio.sleep(0.01)
        for _ in range(10):
            talk.session.send_audio(MS * 20)
        await asyncio.sleep(0.05)
        assert not server.model.creates, "they still speak"
        talk.session.caller_ended(500)
        lost = await talk.a(TranscriptFailed)
        assert (lost.item, lost.reason) == ("turn_2", "the turn was too long")
        await talk.a(ResponseDone)
        assert len(server.model.turns) == 1 and len(server.model.creates) == 1
        assert server.model.audio == sum(len(pcm) for pcm in server.model.turns.values())
        await talk.session.close()
        await talk.end()
        assert server.model.violations == []


async def test_a_session_that_is_closed_in_the_middle_of_a_turn_leaves_no_timer() -> None:
    async with Simulator() as server:
        talk = await talking(server)
        talk.session.caller_began()
        talk.session.send_audio(MS * 20)
        talk.session.caller_ended(0)
        await talk.session.close()
        talk.session.caller_began()
        talk.session.caller_ended(0)
        await talk.end()
        assert talk.session._turn_end is None and talk.session._longest is None


async def test_another_format_than_was_asked_for_is_sent_in_that_format() -> None:
    async with Simulator(faults=Faults(formats={"input": {"type": "audio/pcmu"}})) as server:
        session = OpenAIProvider(OpenAISettings(api_key="sk-test", base_url=server.url)).open(LOCAL)
        talk = Talk(session)
        session.send_audio(MS * 200)
        await talk.a(Ready)
        assert isinstance(session, OpenAITurnsSession) and session.capabilities.input_rate == 8000
        session.caller_began()
        session.send_audio(b"\x01\x00" * 8 * 300)
        session.caller_ended(500)
        await talk.a(ResponseDone)
        assert [len(pcm) for pcm in server.model.turns.values()] == [16 * 300]
        await session.close()
        await talk.end()


# -- the simulator, by the vendor's own client -------------------------------------------------------------


async def test_the_vendors_client_commits_turns_as_we_do() -> None:
    async with Simulator() as server:
        client = AsyncOpenAI(api_key="k", base_url=server.url)
        async with client.realtime.connect(model="gpt-realtime-2.1") as connection:
            await connection.session.update(
                session={
                    "type": "realtime",
                    "parallel_tool_calls": True,
                    "audio": {"input": {"turn_detection": None}, "output": {"voice": "marin"}},
                }
            )
            await connection.input_audio_buffer.append(audio=base64.b64encode(MS * 50).decode())
            await connection.input_audio_buffer.commit()
            await connection.input_audio_buffer.clear()
            await connection.input_audio_buffer.append(audio=base64.b64encode(MS * 150).decode())
            await connection.input_audio_buffer.commit()
            await connection.response.create()
            seen = []
            async for event in connection:
                seen.append(event.type)
                if event.type == "response.done":
                    break
        assert seen.index("error") < seen.index("input_audio_buffer.cleared")
        assert seen.index("input_audio_buffer.committed") < seen.index("response.created")
        assert [len(pcm) for pcm in server.model.turns.values()] == [150 * len(MS)]
        assert len(server.model.violations) == 1, "50 ms are no turn"
        await client.close()


# -- parallel calls ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "told"), [("gpt-realtime-2.1", True), ("gpt-realtime-2.1-mini", True), ("gpt-realtime", None)]
)
async def test_parallel_calls_are_said_to_models_that_know_them(model: str, told: bool | None) -> None:
    async with Simulator() as server:
        talk = await talking(server, model=model)
        assert server.model.session.get("parallel_tool_calls") is told
        await talk.session.close()
        assert failures(await talk.end()) == []


def test_a_deployments_name_says_nothing_of_its_model() -> None:
    access = Access(api_key="k", base_url="https://x.openai.azure.com", model="gpt-realtime-2")
    assert azure_openai_settings(access).deployment


def test_a_model_that_does_not_know_parallel_calls_refuses_them_all() -> None:
    model = Model()
    model.model = "gpt-realtime"
    model.receive({"type": "session.update", "session": {"type": "realtime", "parallel_tool_calls": True}})
    assert model.violations and not model.session
