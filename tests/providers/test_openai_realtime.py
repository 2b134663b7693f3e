"""The adapter over a real loopback WebSocket: it converses, fails in plain words, leaves nothing behind."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import time
import warnings
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from openai import AsyncOpenAI
from openai.types.realtime import ResponseDoneEvent, SessionUpdatedEvent
from structlog.testing import capture_logs

from bridge.softphone import load_wav
from providers import delivery, openai_realtime, registry
from providers import openai_messages as wire
from providers.access import Access
from providers.base import (
    AudioDelta,
    Event,
    Failed,
    GoingAway,
    Heard,
    ItemStarted,
    Ready,
    ResponseDone,
    Session,
    SessionConfig,
    ToolCall,
    ToolSpec,
    TurnDetection,
)
from providers.formats import FORMATS, FormatName
from providers.openai_realtime import OpenAIProvider, OpenAISession, OpenAISettings
from providers.sequencer import Waiting
from providers.session import MAX_WAITING
from tests.simulators.openai_realtime import Call, Faults, Model, Reply, Say, Simulator
from tests.simulators.talk import Talk, failures, leaving_nothing

TOOL = ToolSpec("lookup_apartment", "Procura.", {"type": "object", "properties": {}})
CONFIG = SessionConfig(
    instructions="Você é o porteiro.", tools=[TOOL], turn_detection=TurnDetection(silence_duration_ms=500)
)
DATA = Path(__file__).parents[2] / "data" / "audio"
CHUNK = b"\x01\x00" * 480


def talking(
    *replies: Reply, faults: Faults | None = None, ready: bool = True, **settings: Any
) -> AbstractAsyncContextManager[tuple[Simulator, Talk[OpenAISession]]]:
    """A session on a simulator, of which nothing is left at the end."""

    def opened(server: Simulator) -> OpenAISession:
        made = OpenAISettings(api_key="sk-test", base_url=server.url, **settings)
        return OpenAIProvider(made).open(CONFIG)

    return leaving_nothing(Simulator(*replies, faults=faults), opened, ready=ready, tasks=("openai", "local"))


async def test_it_asks_the_right_address_with_the_key_and_model() -> None:
    headers = {"x-condominium": "jardim"}
    async with talking(model="gpt-realtime-2.1", headers=headers, query={"zone": "sa"}) as (server, talk):
        request = server.requests[0]
        assert request.path == "/v1/realtime?model=gpt-realtime-2.1&zone=sa"
        assert request.headers["authorization"] == "Bearer sk-test"
        assert request.headers["x-condominium"] == "jardim"
        assert server.model.violations == []
        assert server.model.session["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 500
        assert talk.events == [Ready(talk.session.capabilities)]


TALK = load_wav(DATA / "v05-leticia.wav")


@pytest.mark.parametrize("name", ["pcmu", "pcma"])
async def test_g711_is_sent_and_taken_as_the_telephone_has_it(name: FormatName) -> None:
    form = FORMATS[name]
    async with talking(Reply((Say(200),)), format=name) as (server, talk):
        can = talk.session.capabilities
        assert (can.input_rate, can.output_rate) == (8000, 8000)
        assert (can.input_encoding, can.output_encoding) == (name, name)
        for at in range(0, len(TALK) // 640 * 640, 320):
            talk.session.send_audio(TALK[at : at + 320])
        await server.until(lambda: len(server.model.caller) >= len(TALK) // 640 * 640)
        assert server.model.caller == form.decode(form.encode(TALK[: len(TALK) // 640 * 640]))
        assert server.model.audio == len(server.model.caller) // 2, "a byte a sample"
        talk.session.speak_about("Alguém chegou.")
        await talk.a(ResponseDone)
        pcm = b"".join(e.pcm for e in talk.events if isinstance(e, AudioDelta))
        assert len(pcm) == 200 * 16
        (item,) = {e.item for e in talk.events if isinstance(e, AudioDelta)}
        talk.session.interrupt(Heard(item, 120))
        await server.until(lambda: server.model.truncated)
        assert server.model.truncated == {item: 120}
        assert server.model.violations == []


async def test_a_server_that_confirms_another_format_than_was_asked_for_is_obeyed() -> None:
    formats: dict[str, Any] = {"input": {"type": "audio/pcma"}, "output": {"type": "audio/pcmu"}}
    async with talking(Reply((Say(200),)), faults=Faults(formats=formats), ready=False) as (server, talk):
        assert talk.session.capabilities.input_rate == 24000, "as it was asked for"
        talk.session.send_audio(bytes(960))
        ready = await talk.a(Ready)
        can = talk.session.capabilities
        assert ready == Ready(can)
        assert (can.input_encoding, can.input_rate) == ("pcma", 8000)
        assert (can.output_encoding, can.output_rate) == ("pcmu", 8000)
        talk.session.send_audio(TALK[:3200])
        await server.until(lambda: len(server.model.caller) >= 3200)
        assert server.model.caller == FORMATS["pcma"].decode(FORMATS["pcma"].encode(TALK[:3200]))
        assert talk.session.audio_let_go == 960, "at a rate that nobody reads"
        talk.session.speak_about("Alguém chegou.")
        await talk.a(ResponseDone)
        assert sum(len(e.pcm) for e in talk.events if isinstance(e, AudioDelta)) == 200 * 16
        assert server.model.violations == []


@pytest.mark.parametrize(
    ("spoken", "sent"), [("pcm24", "pcmu"), ("pcm24", "pcma"), ("pcmu", "pcm24"), ("pcma", "pcm24")]
)
def test_the_simulator_refuses_audio_in_another_format(spoken: FormatName, sent: FormatName) -> None:
    """Its own ears, on which the tests above rest."""
    model = Model()
    model.receive(wire.session_update(CONFIG, wire.Wire("marin", "gpt-transcribe", None, FORMATS[spoken])))
    pcm = TALK * 2 if sent != "pcm24" else np.repeat(np.frombuffer(TALK, "<i2"), 3).tobytes()
    audio = FORMATS[sent].encode(pcm)
    for at in range(0, len(audio) - 640, 640):
        model.receive(json.loads(wire.audio_append(audio[at : at + 640])))
    assert any(f"this is no {FORMATS[spoken].wire['type']}" in one for one in model.violations)


async def test_a_whole_exchange() -> None:
    call = Reply((Say(100, "Vou ver."), Call(call_id="a")))
    async with talking(Reply((Say(300, "Boa tarde!"),)), call) as (server, talk):
        greeting = talk.session.say_exactly("Boa tarde!")
        busy = talk.session.busy
        assert busy
        await talk.a(ResponseDone, receipt=greeting)
        for _ in range(50):
            talk.session.send_audio(CHUNK)
            await asyncio.sleep(0)
        server.model.caller_ends(server.model.caller_starts(), "Apartamento quinhentos e um.")
        server.kick()
        made = await talk.a(ToolCall, id="a")
        talk.session.answer(made, {"apartment": "501"})
        await talk.until(lambda events: sum(isinstance(e, ResponseDone) for e in events) == 3)
        assert server.model.answers == {"a": '{"apartment":"501"}'}
        assert server.model.audio == 50 * len(CHUNK), "every sample arrived"
        assert server.model.violations == []
        assert not talk.session.busy
        first = next(e.item for e in talk.events if isinstance(e, ItemStarted) and e.receipt == greeting)
        pcm = b"".join(e.pcm for e in talk.events if isinstance(e, AudioDelta) and e.item == first)
        assert len(pcm) == 300 * 48


async def test_pieces_that_end_within_a_sample_arrive_as_whole_samples() -> None:
    async with talking() as (server, talk):
        for size in (1, 3, 2, 7, 0, 1):
            talk.session.send_audio(b"\x00" * size)
        await server.until(lambda: server.model.audio == 14)
        assert server.model.violations == []


async def test_what_a_late_loop_gets_at_once_goes_in_one_message() -> None:
    async with talking() as (server, talk):
        for _ in range(10):
            talk.session.send_audio(CHUNK)
        await server.until(lambda: server.model.audio == 10 * len(CHUNK))
        kinds = [message["type"] for message in server.model.received[1:]]
        assert kinds == ["input_audio_buffer.append"]


async def test_a_barge_in_silences_the_reply_at_once() -> None:
    faults = Faults(pace_s=0.005, late_deltas=3)
    async with talking(Reply((Say(5000),)), faults=faults) as (server, talk):
        talk.session.speak_about("Fale bastante.")
        first = await talk.a(AudioDelta)
        talk.session.interrupt(Heard(first.item, 30))
        after = len(talk.events)
        await talk.a(ResponseDone, status="cancelled")
        assert not [e for e in talk.events[after:] if isinstance(e, AudioDelta)]
        await server.until(lambda: server.model.truncated)
        assert server.model.truncated == {first.item: 30}
        assert server.model.violations == []


async def test_intents_before_ready_go_out_in_order_and_stale_audio_does_not() -> None:
    async with talking(faults=Faults(accept_delay_s=1.3), ready=False) as (server, talk):
        began = time.monotonic()
        for _ in range(1000):
            talk.session.send_audio(CHUNK)
        assert time.monotonic() - began < 0.5, "sending never waits"
        greeting = talk.session.say_exactly("Boa tarde!")
        talk.session.note("Chove.")
        await asyncio.sleep(1.1)
        for _ in range(10):
            talk.session.send_audio(CHUNK)
        await talk.a(ResponseDone, receipt=greeting)
        await server.until(lambda: server.model.audio)
        assert server.model.audio == 10 * len(CHUNK)
        assert talk.session.audio_let_go == 1000 * len(CHUNK)
        kinds = [m["type"] for m in server.model.received]
        assert kinds[:3] == ["session.update", "response.create", "conversation.item.create"]
        assert server.model.violations == []


@pytest.mark.parametrize(
    ("status", "body", "code", "words"),
    [
        (401, b"", "key_refused", "the key was refused (HTTP 401)"),
        (403, b"", "key_refused", "not allowed"),
        (404, b"", "unknown_model", "the address or the model is not known there (HTTP 404)"),
        (429, b"", "rate_limit", "too many requests (HTTP 429)"),
        (404, b'{"error":{"code":"DeploymentNotFound"}}', "unknown_model", "no deployment of this name"),
        (
            429,
            b'{"error":{"code":"insufficient_quota"}}',
            "quota",
            "the account's quota is used up (HTTP 429)",
        ),
        (500, b"", "unavailable", "out of order (HTTP 500)"),
        (418, b"", "refused", "refused the connection (HTTP 418)"),
    ],
)
async def test_a_refusal_is_one_failure_in_plain_words(
    status: int, body: bytes, code: str, words: str
) -> None:
    async with talking(faults=Faults(refuse=(status, body)), ready=False) as (_, talk):
        events = await talk.end()
        assert len(events) == 1 and isinstance(events[0], Failed)
        assert (events[0].kind, events[0].code) == ("session", code)
        assert words in events[0].message and "sk-test" not in events[0].message


async def test_nobody_there(unused_tcp_port: int) -> None:
    settings = OpenAISettings(api_key="k", base_url=f"http://127.0.0.1:{unused_tcp_port}/v1")
    talk = Talk(OpenAIProvider(settings).open(CONFIG))
    (event,) = await talk.end()
    assert isinstance(event, Failed) and (event.kind, event.code) == ("session", "unreachable")
    await talk.session.close()


@pytest.mark.parametrize("faults", [Faults(accept_delay_s=30), Faults(never_configure=True)])
async def test_a_server_that_does_not_get_ready_is_given_up(faults: Faults) -> None:
    async with talking(faults=faults, ready=False, connect_timeout_s=0.3) as (_, talk):
        (event,) = await talk.end()
        assert isinstance(event, Failed) and (event.kind, event.code) == ("session", "timeout")
        faults.accept_delay_s = 0


@pytest.mark.parametrize(
    ("faults", "code"),
    [
        (Faults(configure_error="invalid_value"), "invalid_value"),
        (Faults(configure_error="model_not_found"), "model_not_found"),
        (Faults(formats={"output": None}), "unsupported_format"),
    ],
)
async def test_a_session_that_is_not_as_asked_fails(faults: Faults, code: str) -> None:
    async with talking(faults=faults, ready=False) as (_, talk):
        (event,) = await talk.end()
        assert isinstance(event, Failed) and (event.kind, event.code) == ("session", code)


@pytest.mark.parametrize(
    ("cut", "code"),
    [
        ("close", "went_away"),
        ("abort", "went_away"),
        ("half", "protocol_error"),
        ("garbage", "protocol_error"),
    ],
)
@pytest.mark.parametrize("after", [0, 1, 2, 5, 9])
async def test_a_server_that_dies_mid_word_is_one_failure_and_the_end(
    cut: Any, code: str, after: int
) -> None:
    async with talking(Reply((Say(500),)), faults=Faults(cut=cut, cut_after=after), ready=False) as (_, talk):
        talk.session.say_exactly("Boa tarde!")
        events = await talk.end()
        assert [f.code for f in failures(events)] == [code]
        assert events[-1] == failures(events)[0], "it is the last event"
        talk.session.send_audio(CHUNK)
        talk.session.interrupt(Heard("say_1", 10))
        talk.session.note("Ninguém ouve.")
        talk.session.auto_reply(False)
        talk.session.say_exactly("Ninguém ouve.")
        talk.session.speak_about("Ninguém ouve.")
        talk.session.answer(ToolCall("a", "x", "{}", 1), {})
        assert not talk.session.busy and not talk.session._control and not talk.session._audio
        assert talk.events == events


async def test_a_server_that_takes_nothing_more_is_given_up() -> None:
    faults = Faults(deaf=True)
    async with talking(faults=faults, stall_timeout_s=0.3, close_timeout_s=0.5) as (_, talk):

        async def flood() -> None:
            while not talk.ended.is_set():
                talk.session.send_audio(CHUNK * 40)
                await asyncio.sleep(0)

        await asyncio.wait_for(flood(), 10)
        assert [f.code for f in failures(talk.events)] == ["send_stalled"]
        assert talk.session.audio_let_go > 0


async def test_a_message_overtakes_audio_that_waits_for_a_slow_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    faults = Faults(deaf=True)
    async with talking(faults=faults, close_timeout_s=0.5) as (_, talk):
        socket = talk.session._socket
        assert socket is not None
        while socket.writable:
            talk.session.send_audio(CHUNK * 40)
            await asyncio.sleep(0)
        sent: list[bytes] = []
        monkeypatch.setattr(socket, "send_text", sent.append)
        talk.session.send_audio(CHUNK)
        talk.session.send_audio(CHUNK)
        talk.session.note("Chove.")
        assert sent == []
        socket.resume_writing()
        assert [orjson.loads(message)["type"] for message in sent] == [
            "conversation.item.create",
            "input_audio_buffer.append",
        ]
        assert len(orjson.loads(sent[1])["audio"]) == len(base64.b64encode(CHUNK * 2))


async def test_messages_that_pile_up_end_the_session() -> None:
    async with talking(faults=Faults(never_configure=True), ready=False) as (_, talk):
        for _ in range(MAX_WAITING):
            talk.session.note("x")
        assert not talk.ended.is_set()
        talk.session.note("x")
        await talk.end()
        assert [f.code for f in failures(talk.events)] == ["send_stalled"]


async def test_events_that_nobody_takes_slow_the_server_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "MAX_EVENTS", 20)
    async with Simulator(Reply((Say(60_000, piece_ms=20),))) as server:
        session = OpenAIProvider(OpenAISettings(api_key="k", base_url=server.url)).open(CONFIG)
        session.say_exactly("Fale por um minuto.")
        await asyncio.sleep(0.5)
        assert len(session._delivery._events) <= 25
        talk = Talk(session)
        await talk.a(ResponseDone)
        assert sum(len(e.pcm) for e in talk.events if isinstance(e, AudioDelta)) == 60_000 * 48
        await session.close()


async def test_a_caller_or_a_tool_that_keeps_silent_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(openai_realtime, "_PATIENCE_S", dict.fromkeys(Waiting, 0.1))
    async with talking(Reply((Call(call_id="slow"),))) as (server, talk):
        talk.session.speak_about("Comece.")
        await talk.a(ToolCall)
        await talk.a(ResponseDone)
        news = talk.session.speak_about("E então?")
        await talk.a(ResponseDone, receipt=news)
        talk.session.interrupt(None)
        words = talk.session.say_exactly("Alô?")
        await talk.a(ResponseDone, receipt=words)
        server.model.caller_starts()
        server.kick()
        await asyncio.sleep(0.05)
        more = talk.session.speak_about("Já falou demais.")
        await talk.a(ResponseDone, receipt=more)
        assert server.model.violations == []


async def test_the_end_of_a_session_is_announced() -> None:
    async with talking(session_limit_s=0.2, going_away_s=0.1) as (_, talk):
        assert (await talk.a(GoingAway)).in_s == 0.1


async def test_what_the_consumer_raises_ends_the_session_and_comes_back_to_it() -> None:
    async with Simulator(Reply((Say(5000),))) as server:
        session = OpenAIProvider(OpenAISettings(api_key="k", base_url=server.url)).open(CONFIG)
        session.say_exactly("Fale bastante.")
        taken: list[Event] = []

        def take(event: Event) -> None:
            taken.append(event)
            if isinstance(event, AudioDelta):
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(session.run(take), 5)
        assert isinstance(taken[-1], AudioDelta), "nothing comes after it"
        assert not session.busy
        await session.close()
        await server.until(lambda: not server.open_connections)


async def test_a_fault_of_ours_is_a_failed_session_and_a_line_in_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Simulator() as server:
        session = OpenAIProvider(OpenAISettings(api_key="k", base_url=server.url)).open(CONFIG)
        talk = Talk(session)
        await talk.a(Ready)
        monkeypatch.setattr(session._conversation, "receive", lambda _: 1 / 0)
        with capture_logs() as lines:
            server.model.caller_starts()
            server.kick()
            events = await talk.end()
            await session.close()
        assert [f.code for f in failures(events)] == ["internal"]
        assert [line["event"] for line in lines] == ["session_fault"]
        await server.until(lambda: not server.open_connections)


async def test_events_come_neither_out_of_an_intent_nor_after_the_end() -> None:
    async with talking(Reply((Say(300),)), faults=Faults(pace_s=0.002)) as (_, talk):
        within = False

        def watch(event: Event) -> None:
            assert not within
            seen.append(event)

        seen: list[Event] = []
        talk.session._delivery._take = watch
        waits = talk.session.say_exactly("Um.")
        also = talk.session.say_exactly("Dois.")
        within = True
        talk.session.interrupt(None)  # what was owed is dropped, which is an event
        within = False
        async with asyncio.timeout(5):
            while not {e.receipt for e in seen if isinstance(e, ResponseDone)} >= {waits, also}:
                await asyncio.sleep(0.005)
        talk.session.speak_about("Três.")
        async with asyncio.timeout(5):
            while not any(isinstance(e, AudioDelta) for e in seen):
                await asyncio.sleep(0)
        await talk.session.close()
        count = len(seen)
        await asyncio.sleep(0.02)
        assert len(seen) == count


async def test_events_are_for_one_consumer() -> None:
    async with talking() as (_, talk):
        with pytest.raises(RuntimeError):
            await talk.session.run(talk.events.append)


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
            events = await talk.end()
            assert failures(events) == [], "a close of our own is no failure"
        gc.collect()


async def test_a_server_that_does_not_close_is_left_in_time() -> None:
    async with talking(faults=Faults(deaf=True), close_timeout_s=0.4) as (_, talk):
        talk.session.note("x")
        await asyncio.sleep(0.05)


async def test_the_official_sdk_talks_with_the_simulator() -> None:
    """The simulator is only worth something if the vendor's own client takes it for the vendor."""
    async with Simulator(Reply((Say(100, "Olá!"),))) as server:
        client = AsyncOpenAI(api_key="k", base_url=server.url)
        async with client.realtime.connect(model="gpt-realtime-2.1") as connection:
            await connection.session.update(
                session={"type": "realtime", "audio": {"output": {"voice": "marin"}}}
            )
            await connection.input_audio_buffer.append(audio=base64.b64encode(CHUNK).decode())
            await connection.response.create(response={"instructions": "Diga olá."})
            seen = []
            async for event in connection:
                seen.append(event)
                if isinstance(event, ResponseDoneEvent):
                    break
        assert any(isinstance(e, SessionUpdatedEvent) for e in seen)
        assert "response.output_audio.delta" in [e.type for e in seen]
        assert server.model.violations == []
        await client.close()


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ({"type": "response.create", "voice": "marin"}, "unknown parameter voice"),
        (
            {"type": "session.update", "session": {"type": "realtime", "temperature": 1}},
            "session.temperature",
        ),
        ({"type": "input_audio_buffer.append", "audio": "AAA="}, ""),
        ({"type": "input_audio_buffer.append", "audio": "AA=="}, "no whole samples"),
        ({"type": "conversation.item.truncate", "item_id": "x", "content_index": 0, "audio_end_ms": 5}, "x"),
        ({"type": "conversation.item.delete", "item_id": "x"}, "x"),
        ({"type": "session.start"}, "unknown type"),
    ],
)
def test_the_simulator_refuses_what_the_vendor_would(message: Any, why: str) -> None:
    from tests.simulators.openai_realtime import Model

    model = Model()
    model.receive(message)
    assert bool(model.violations) is bool(why)
    assert why in "".join(model.violations)


def test_a_session_is_what_the_seam_says(unused_tcp_port: int) -> None:
    async def check() -> None:
        access = Access(base_url=f"http://127.0.0.1:{unused_tcp_port}/v1")
        session: Session = registry.create("local", access).open(CONFIG)
        assert session.capabilities.input_rate == session.capabilities.output_rate == 24000
        assert session.capabilities.truncation and not session.capabilities.exact_speech
        await session.close()

    asyncio.run(check())


def test_unknown_providers_and_missing_keys_are_told() -> None:
    with pytest.raises(ValueError, match=r"'acme' is unknown; allowed: local, pipeline, openai"):
        registry.create("acme", Access("k"))
    with pytest.raises(ValueError, match="'openai': api_key is empty"):
        registry.create("openai", Access())
    with pytest.raises(ValueError, match="'openai': found the format 'pcm8'; allowed: pcm24, pcmu, pcma"):
        registry.create("openai", Access("k", format="pcm8"))
    assert registry.create("local", Access(base_url="http://127.0.0.1:1/v1")).name == "local"
    assert "secret" not in repr(OpenAISettings(api_key="secret")) + repr(Access("secret"))
