"""OpenAI Live over a real loopback WebSocket: it converses, fails plainly, leaves nothing."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import warnings
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openai import AsyncOpenAI
from structlog.testing import capture_logs

from audio.frames import TELEPHONE_RATE
from audio.resample import Resampler
from bridge.softphone import load_wav
from providers import openai_live_conversation, registry
from providers.access import Access
from providers.base import (
    AudioDelta,
    AudioDone,
    Failed,
    GoingAway,
    Heard,
    Ready,
    ResponseDone,
    SessionConfig,
    TakesTurns,
    ToolCall,
    ToolSpec,
    Transcript,
)
from providers.openai_live import LiveProvider, LiveSession, LiveSettings
from tests.simulators.openai_live import (
    KEY,
    LEVEL,
    PATH,
    Call,
    Delegate,
    Faults,
    Model,
    Reply,
    Say,
    Simulator,
)
from tests.simulators.talk import Talk, asked_in_vain, failures, leaving_nothing

TOOL = ToolSpec("lookup_apartment", "Procura.", {"type": "object", "properties": {}})
CONFIG = SessionConfig(instructions="Você é o porteiro.", tools=[TOOL])
DATA = Path(__file__).parents[2] / "data" / "audio"
SPEECH = load_wav(DATA / "v05-leticia.wav")


def talking(
    *replies: Reply, faults: Faults | None = None, ready: bool = True, **settings: Any
) -> AbstractAsyncContextManager[tuple[Simulator, Talk[LiveSession]]]:
    """A session on a simulator, of which nothing is left at the end."""

    def opened(server: Simulator) -> LiveSession:
        made = LiveSettings(**{"api_key": KEY, "base_url": server.url, **settings})
        return LiveProvider(made).open(CONFIG)

    return leaving_nothing(Simulator(*replies, faults=faults), opened, ready=ready, tasks=("openai-live",))


def speak(session: LiveSession, pcm: bytes = SPEECH) -> None:
    """The caller says something, and is quiet."""
    session.caller_began()
    rate = session.capabilities.input_rate
    pcm = Resampler(TELEPHONE_RATE, rate).process(pcm)
    frame = rate // 50 * 2
    for at in range(0, len(pcm), frame):
        session.send_audio(pcm[at : at + frame])
    session.caller_ended(600)


async def hush(session: LiveSession, server: Simulator) -> None:
    """The line goes on, without a word; by then the model fell silent, if it spoke."""
    await server.until(lambda: server.model.caller)
    heard_at = server.model.position_ms
    await server.until(lambda: server.model.position_ms > heard_at + 500)
    session.send_audio(bytes(session.capabilities.input_rate * 2))


async def test_it_asks_the_right_address_with_the_key_and_says_what_it_can() -> None:
    async with talking() as (server, talk):
        assert server.requests[0].path == PATH
        assert server.requests[0].headers["Authorization"] == f"Bearer {KEY}"
        can = talk.session.capabilities
        assert (can.input_rate, can.output_rate, can.queue_limit_ms) == (24000, 24000, 200)
        assert can.owns_turns and not can.truncation and not can.exact_speech and not can.resumption
        assert talk.events == [Ready(can)]
        assert isinstance(talk.session, TakesTurns)
        asked = server.model.received[0]["session"]
        backend = asked["delegation"]["responses"]
        assert backend["model"] == "gpt-6-luna" and backend["tools"][0]["name"] == "lookup_apartment"
        assert asked["instructions"].startswith("Você é o porteiro.") and "delegue" in asked["instructions"]
        assert backend["instructions"].startswith("Você é o porteiro.") and asked["store"] is False


@pytest.mark.parametrize("format", ["pcm24", "pcm16", "pcmu", "pcma"])
async def test_a_whole_exchange_in_each_format(format: str) -> None:
    replies = (
        Reply((Say(300, "Boa tarde!"),)),
        Reply((Say(200, "Vou ver.", 600), Delegate((Call(call_id="a"), Call(call_id="b"))))),
        Reply((Say(200, "Achei."),)),
    )
    async with talking(*replies, format=format) as (server, talk):
        greeting = talk.session.say_exactly("Boa tarde!")
        busy = talk.session.busy
        assert busy
        await talk.a(ResponseDone, receipt=greeting, status="completed")
        server.model.said.append("Apartamento quinhentos e um.")
        speak(talk.session)
        await hush(talk.session, server)
        for name in ("a", "b"):
            talk.session.answer(await talk.a(ToolCall, id=name), {"status": "ok"})
        await talk.a(Transcript, role="caller", final=True, text="Apartamento quinhentos e um.")
        await talk.a(Transcript, role="agent", final=True, text="Achei.")
        assert server.model.violations == [] and set(server.model.answers) == {"a", "b"}
        sent = Resampler(TELEPHONE_RATE, talk.session.capabilities.input_rate).process(SPEECH)
        if format.startswith("pcm") and len(format) == 5:
            assert server.model.caller.startswith(sent), "every sample arrived, and as it was"
        else:
            assert len(server.model.caller) >= len(sent)
        first = next(e.item for e in talk.events if isinstance(e, AudioDone))
        pcm = b"".join(e.pcm for e in talk.events if isinstance(e, AudioDelta) and e.item == first)
        loud = np.abs(np.frombuffer(pcm, "<i2")) > LEVEL // 2
        assert loud.sum() == 300 * talk.session.capabilities.output_rate // 1000
        await talk.until(lambda _: not talk.session.busy)


async def test_the_format_that_is_confirmed_counts() -> None:
    other = {"type": "audio/pcmu", "rate": 8000}
    async with talking(faults=Faults(format=other)) as (server, talk):
        assert (talk.session.capabilities.input_rate, talk.session.capabilities.output_encoding) == (
            8000,
            "pcmu",
        )
        speak(talk.session)
        await server.until(lambda: len(server.model.caller) >= len(SPEECH))
        assert server.model.violations == []
    async with talking(faults=Faults(format={"type": "audio/pcm", "rate": 24000})) as (_, talk):
        assert talk.session.capabilities.input_rate == 24000


async def test_a_barge_in_silences_the_reply_at_once_and_the_model_yields() -> None:
    async with talking(Reply((Say(60_000),)), faults=Faults(pace_s=0.005)) as (server, talk):
        talk.session.speak_about("Fale bastante.")
        first = await talk.a(AudioDelta)
        talk.session.interrupt(Heard(first.item, 30))
        after = len(talk.events)
        speak(talk.session)
        await hush(talk.session, server)
        await talk.a(ResponseDone, status="cancelled")
        await talk.a(ResponseDone, status="completed", receipt=None)
        late = [e for e in talk.events[after:] if isinstance(e, AudioDelta) and e.item == first.item]
        assert not late and server.model.yielded == 1 and server.model.violations == []


async def test_intents_before_ready_go_out_in_order() -> None:
    async with talking(faults=Faults(accept_delay_s=0.3), ready=False) as (server, talk):
        talk.session.note("Chove.")
        greeting = talk.session.say_exactly("Boa tarde!")
        talk.session.send_audio(SPEECH[:320])
        await talk.a(ResponseDone, receipt=greeting, status="completed")
        await server.until(lambda: server.model.caller)
        kinds = [m["type"].removeprefix("session.") for m in server.model.received[:4]]
        assert kinds == ["start", "thinking.append", "commentary.append", "input_audio.append"]
        assert server.model.violations == []


@pytest.mark.parametrize(
    ("settings", "faults", "code", "words"),
    [
        ({"api_key": "wrong"}, Faults(), "key_refused", "the key was refused"),
        ({"model": "gpt-9"}, Faults(), "unknown_model", "the model is not known there: session.model"),
        ({"backend_model": "gpt-9"}, Faults(), "unknown_model", "session.delegation.responses.model"),
        ({"voice": "Ze"}, Faults(), "unsupported_voice", "the voice is not known there"),
        ({}, Faults(start_error=("credit_balance_exhausted", "")), "quota", "quota is used up"),
        ({}, Faults(start_error=("rate_limit_exceeded", "")), "rate_limit", "too many sessions"),
        ({}, Faults(start_error=("invalid_value", "session.x")), "configuration_refused", "session.x"),
        ({}, Faults(refuse=(403, b"")), "key_refused", "not allowed"),
        ({}, Faults(refuse=(404, b"")), "unknown_model", "the address or the model is not known there"),
        ({}, Faults(refuse=(429, b"")), "rate_limit", "too many requests"),
        ({}, Faults(refuse=(429, b'{"error":{"code":"insufficient_quota"}}')), "quota", "quota is used up"),
        ({}, Faults(refuse=(503, b"")), "unavailable", "out of order (HTTP 503)"),
        ({"connect_timeout_s": 0.3}, Faults(never_configure=True), "timeout", "no confirmed configuration"),
        ({}, Faults(format={"type": "audio/pcmu", "rate": 16000}), "unsupported_format", "at 16000 Hz"),
        ({}, Faults(odd_audio=True), "protocol_error", "no whole samples"),
    ],
)
async def test_what_is_wrong_is_told_apart(
    settings: dict[str, Any], faults: Faults, code: str, words: str
) -> None:
    async with talking(faults=faults, ready=False, **settings) as (_, talk):
        talk.session.say_exactly("Boa tarde!")
        events = await talk.end()
        (failed,) = failures(events)
        assert failed.code == code and words in failed.message and events[-1] == failed
        assert "wrong" not in failed.message and KEY not in failed.message


async def test_nobody_there(unused_tcp_port: int) -> None:
    settings = LiveSettings(api_key="k", base_url=f"http://127.0.0.1:{unused_tcp_port}/v1")
    talk = Talk(LiveProvider(settings).open(CONFIG))
    (event,) = await talk.end()
    assert isinstance(event, Failed) and (event.kind, event.code) == ("session", "unreachable")
    await talk.session.close()


@pytest.mark.parametrize(("cut", "words"), [("close", "1011 (keepalive ping timeout)"), ("abort", "broke")])
@pytest.mark.parametrize("after", [1, 3, 9])
async def test_a_connection_that_breaks_ends_the_session(cut: Any, words: str, after: int) -> None:
    async with talking(Reply((Say(500),)), faults=Faults(cut=cut, cut_after=after), ready=False) as (_, talk):
        talk.session.say_exactly("Boa tarde!")
        (failed,) = failures(await talk.end())
        assert failed.code == "went_away" and words in failed.message


@pytest.mark.parametrize("cut", ["half", "garbage"])
async def test_what_makes_no_sense_ends_the_session(cut: Any) -> None:
    async with talking(faults=Faults(cut=cut, cut_after=3), ready=False) as (_, talk):
        talk.session.say_exactly("Boa tarde!")
        events = await talk.end()
        assert [f.code for f in failures(events)] == ["protocol_error"] and events[-1] == failures(events)[0]
        talk.session.send_audio(SPEECH[:640])
        speak(talk.session, SPEECH[:640])
        asked_in_vain(talk.session)
        await asyncio.sleep(0.02)
        assert not talk.session.busy and not talk.session._control and talk.session._timer is None
        assert talk.events == events


async def test_a_server_that_falls_silent_in_a_word_leaves_an_incomplete_sentence() -> None:
    faults = Faults(cut="stall", cut_after=8)
    async with talking(Reply((Say(5000),)), faults=faults, close_timeout_s=0.4) as (_, talk):
        said = talk.session.say_exactly("Boa tarde!")
        done = await talk.a(ResponseDone, receipt=said)
        assert done.status == "incomplete" and not failures(talk.events)


async def test_a_server_whose_stream_stands_still_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_live_conversation, "STREAM_S", 0.5)
    faults = Faults(cut="stall", cut_after=60)
    async with talking(faults=faults, close_timeout_s=0.4) as (_, talk):
        while not talk.ended.is_set():
            talk.session.send_audio(bytes(960))
            await asyncio.sleep(0.02)
        assert [f.code for f in failures(talk.events)] == ["stalled"]


async def test_the_end_of_a_session_is_announced_and_told() -> None:
    async with talking(faults=Faults(expires_in_s=30), going_away_s=120) as (server, talk):
        notice = await talk.a(GoingAway)
        assert 28 <= notice.in_s <= 30
        server.model.close("expired")
        (failed,) = failures(await talk.end())
        assert failed.code == "session_expired" and "time limit" in failed.message


async def test_what_is_billed_is_in_the_log_after_the_end() -> None:
    with capture_logs() as lines:
        async with talking() as (server, talk):
            await server.until(lambda: server.model.position_ms >= 1000)
            await talk.session.close()
            assert server.model.received[-1] == {"type": "session.close"}
    (line,) = [line for line in lines if line["event"] == "session.billed"]
    assert line["seconds"] >= 1.0
    (billed,) = talk.session.time_billed()
    assert (billed.provider, billed.model, billed.seconds) == ("openai-live", "gpt-live-1", line["seconds"])
    assert talk.session.time_billed() == ()  # all of it was told
    assert talk.session.busy is False and failures(talk.events) == []


async def test_a_server_that_does_not_say_goodbye_is_left() -> None:
    with capture_logs() as lines:
        async with talking(faults=Faults(no_goodbye=True), close_timeout_s=0.4):
            pass
    assert "session.close_unconfirmed" in [line["event"] for line in lines]


async def test_a_server_that_takes_nothing_more_is_given_up() -> None:
    faults = Faults(deaf=True)
    async with talking(faults=faults, stall_timeout_s=0.3, close_timeout_s=0.5) as (_, talk):

        async def flood() -> None:
            while not talk.ended.is_set():
                talk.session.send_audio(SPEECH[:64_000] * 2)
                await asyncio.sleep(0.001)

        await asyncio.wait_for(flood(), 10)
        assert [f.code for f in failures(talk.events)] == ["send_stalled"]


async def test_late_audio_is_let_go() -> None:
    async with talking() as (server, talk):
        socket = talk.session._socket
        assert socket is not None
        socket.pause_writing()
        talk.session.send_audio(b"\x02\x00" * 480)
        await asyncio.sleep(1.05)
        talk.session.send_audio(b"\x01\x00" * 480)
        socket.resume_writing()
        await server.until(lambda: server.model.caller)
        assert server.model.caller == b"\x01\x00" * 480 and talk.session.audio_let_go == 960


async def test_events_are_for_one_consumer_and_what_it_raises_comes_back() -> None:
    async with talking() as (_, talk):
        with pytest.raises(RuntimeError):
            await talk.session.run(talk.events.append)
    async with Simulator(Reply((Say(5000),))) as server:
        session = LiveProvider(LiveSettings(api_key=KEY, base_url=server.url)).open(CONFIG)
        session.say_exactly("Fale bastante.")

        def take(event: object) -> None:
            if isinstance(event, AudioDelta):
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(session.run(take), 5)
        assert not session.busy
        await session.close()
        await server.until(lambda: not server.open_connections)


async def test_a_fault_of_ours_is_a_failed_session_and_a_line_in_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with talking(faults=Faults(pace_s=0.05)) as (_, talk):
        with capture_logs() as lines:
            monkeypatch.setattr(talk.session._conversation, "receive", lambda _: 1 / 0)
            events = await talk.end()
        assert [f.code for f in failures(events)] == ["internal"]
        assert "session_fault" in [line["event"] for line in lines]


@pytest.mark.parametrize("moment", [0.0, 0.001, 0.005, 0.02, 0.05])
async def test_closing_at_any_moment_leaves_nothing(moment: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with talking(Reply((Say(1000),)), faults=Faults(pace_s=0.005), ready=False) as (_, talk):
            talk.session.say_exactly("Boa tarde!")
            if moment:
                await asyncio.sleep(moment)
            await talk.session.close()
            await talk.session.close()
            assert failures(await talk.end()) == [], "a close of our own is no failure"
        gc.collect()


async def test_settings_make_a_session_by_the_providers_name() -> None:
    async with Simulator() as server:
        access = Access(
            api_key=KEY, base_url=server.url, voice="cedar", backend_model="gpt-6.1-terra", format="pcmu"
        )
        talk = Talk(registry.create("openai-live", access).open(CONFIG))
        await talk.a(Ready)
        asked = server.model.received[0]["session"]
        assert asked["audio"] == {
            "format": {"type": "audio/pcmu", "rate": 8000},
            "output": {"voice": "cedar"},
        }
        assert asked["delegation"]["responses"]["model"] == "gpt-6.1-terra"
        await talk.session.close()
    with pytest.raises(ValueError, match="api_key is empty"):
        registry.create("openai-live", Access())
    with pytest.raises(ValueError, match=r"found the format 'pcm8'; allowed: pcm24, pcm16, pcmu, pcma"):
        registry.create("openai-live", Access(api_key="k", format="pcm8"))
    assert "secret" not in repr(LiveSettings(api_key="secret"))


async def test_the_official_sdk_talks_with_the_simulator() -> None:
    """The simulator is only worth something if the vendor's own client takes it for the vendor."""
    replies = (Reply((Say(200, "Olá!"), Delegate((Call(),)))), Reply((Say(100, "Achei."),)))
    async with Simulator(*replies) as server:
        client = AsyncOpenAI(api_key=KEY, base_url=server.url)
        async with client.live.connect() as live:
            function = {"type": "function", "name": "lookup_apartment"}
            responses = {"model": "gpt-6-luna", "tools": [function]}
            await live.session.start(
                session={
                    "model": "gpt-live-1",
                    "audio": {"format": {"type": "audio/pcm", "rate": 16000}},
                    "delegation": {"type": "responses", "responses": responses},  # type: ignore[typeddict-item]
                }
            )
            started = await live.recv()
            assert started.type == "session.started" and started.session.audio is not None
            await live.session.thinking.append(content="Chove.", delegation_id=None)
            await live.session.commentary.append(content="Cumprimente.", delegation_id=None)
            await live.session.input_audio.append(audio=base64.b64encode(bytes(640)).decode())
            seen: list[str] = []
            sound = b""
            words = ""
            async for event in live:
                seen.append(event.type)
                match event.type:
                    case "session.output_audio.delta":
                        sound += base64.b64decode(event.delta)
                    case "session.output_transcript.delta":
                        words += event.delta
                    case "response.event" if event.event["type"] == "response.output_item.done":
                        item: Any = event.event["item"]
                        output = json.dumps({"status": "ok"})
                        await live.response.item.create(
                            item={
                                "type": "function_call_output",
                                "call_id": item["call_id"],
                                "output": output,
                            }
                        )
                    case "response.event" if (
                        event.event["type"] == "response.completed" and "Achei" not in words
                    ):
                        if not server.model.answers:
                            await server.until(lambda: server.model.answers)
                            await live.response.create()
                    case "session.closed":
                        assert event.reason == "close_requested" and event.usage.seconds > 0
                        break
                if "Achei." in words and "close" not in seen:
                    seen.append("close")
                    await live.session.close()
        assert words == "Olá!Achei." and "session.delegation.created" in seen
        assert np.abs(np.frombuffer(sound, "<i2")).max() == LEVEL
        assert server.model.violations == []


START: dict[str, Any] = {
    "type": "session.start",
    "session": {
        "model": "gpt-live-1",
        "delegation": {"type": "responses", "responses": {"model": "gpt-6-luna"}},
    },
}
THINK: dict[str, Any] = {"type": "session.thinking.append", "content": "x", "delegation_id": None}
OUTPUT: dict[str, Any] = {
    "type": "response.item.create",
    "item": {"type": "function_call_output", "call_id": "x", "output": "{}"},
}


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([START, START], "comes first, and once"),
        ([THINK], "comes first, and once"),
        ([{**START, "session": {**START["session"], "turn_detection": {}}}], "Unknown parameter"),
        ([START, {"type": "input_audio_buffer.append", "audio": "AAA="}], "found type"),
        ([START, {"type": "session.input_audio.append", "audio": "AAAA"}], "no whole samples"),
        ([START, {"type": "session.input_audio.append", "audio": "?"}], "no base64"),
        ([START, {"type": "session.commentary.append", "content": "x"}], "delegation_id"),
        ([START, THINK | {"delegation_id": "delegation_1"}], "no delegation_id"),
        ([START, THINK | {"content": "x" * 2000}], "2000 characters"),
        ([START, OUTPUT], "is not open"),
        ([START, {"type": "response.create"}], "no response waits"),
        ([{**START, "session": {"model": "gpt-live-1"}}, OUTPUT], "requires Responses delegation"),
        ([START, THINK], ""),
    ],
)
def test_the_simulator_refuses_what_the_vendor_would(messages: list[Any], why: str) -> None:
    model = Model()
    for message in messages:
        model.receive(message)
    assert bool(model.violations) is bool(why) is any(m["type"] == "error" for m in model.out)
    assert why in "".join(model.violations)
