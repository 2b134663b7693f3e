"""Gemini Live over a real loopback WebSocket: it converses, reconnects, fails plainly, leaves nothing."""

from __future__ import annotations

import asyncio
import gc
import ssl
import subprocess
import warnings
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from google import genai
from google.genai import types
from structlog.testing import capture_logs

from audio.frames import TELEPHONE_RATE
from audio.resample import Resampler
from bridge.softphone import load_wav
from providers import gemini_live, registry
from providers.access import Access
from providers.base import (
    AudioDelta,
    Failed,
    GoingAway,
    Heard,
    Ready,
    ResponseDone,
    SessionConfig,
    SpeechStarted,
    TakesTurns,
    ToolCall,
    ToolCallCancelled,
    ToolSpec,
    Transcript,
)
from providers.gemini_live import GeminiProvider, GeminiSession, GeminiSettings
from tests.simulators.gemini_live import KEY, PATH, Call, Faults, Model, Refused, Reply, Say, Simulator
from tests.simulators.talk import Talk, asked_in_vain, failures, leaving_nothing

TOOL = ToolSpec("lookup_apartment", "Procura.", {"type": "object", "properties": {}})
CONFIG = SessionConfig(instructions="Você é o porteiro.", tools=[TOOL])
DATA = Path(__file__).parents[2] / "data" / "audio"
SPEECH = Resampler(TELEPHONE_RATE, 16000).process(load_wav(DATA / "v05-leticia.wav"))
FRAME = b"\x01\x00" * 320


def talking(
    *replies: Reply, faults: Faults | None = None, ready: bool = True, **settings: Any
) -> AbstractAsyncContextManager[tuple[Simulator, Talk[GeminiSession]]]:
    """A session on a simulator, of which nothing is left at the end."""

    def opened(server: Simulator) -> GeminiSession:
        made = GeminiSettings(**{"api_key": KEY, "base_url": server.url, **settings})
        return GeminiProvider(made).open(CONFIG)

    return leaving_nothing(Simulator(*replies, faults=faults), opened, ready=ready, tasks=("gemini",))


def speak(session: GeminiSession, pcm: bytes = SPEECH) -> None:
    """The caller says something."""
    session.caller_began()
    for at in range(0, len(pcm), len(FRAME)):
        session.send_audio(pcm[at : at + len(FRAME)])
    session.caller_ended(600)


async def test_it_asks_the_right_address_with_the_key_and_says_what_it_can() -> None:
    async with talking() as (server, talk):
        assert server.requests[0].path == PATH
        assert server.requests[0].headers["x-goog-api-key"] == KEY
        can = talk.session.capabilities
        assert (can.input_rate, can.output_rate) == (16000, 24000)
        assert can.resumption and not can.truncation and not can.exact_speech
        assert talk.events == [Ready(can)]
        assert isinstance(talk.session, TakesTurns)
        assert talk.session._link is not None and talk.session._link.socket is not None
        assert talk.session._link.socket.ping_interval is None, "it answers pings after 30 s at times"


async def test_a_whole_exchange() -> None:
    call = Reply((Say(100, "Vou ver."), Call(call_id="a"), Call(call_id="b")))
    async with talking(Reply((Say(300, "Boa tarde!"),)), call) as (server, talk):
        greeting = talk.session.say_exactly("Boa tarde!")
        busy = talk.session.busy
        assert busy
        await talk.a(ResponseDone, receipt=greeting)
        server.model.said.append("Apartamento quinhentos e um.")
        speak(talk.session)
        for name in ("a", "b"):
            talk.session.answer(await talk.a(ToolCall, id=name), {"status": "ok"})
        await talk.until(lambda events: sum(isinstance(e, ResponseDone) for e in events) == 3)
        await talk.a(Transcript, role="caller", final=True, text="Apartamento quinhentos e um.")
        assert {call: when for call, (_, when) in server.model.answers.items()} == {
            "a": "SILENT",
            "b": "WHEN_IDLE",
        }
        assert server.model.turns == [SPEECH], "every sample arrived, and as it was"
        assert server.violations == []
        assert not talk.session.busy
        first = next(e.item for e in talk.events if isinstance(e, AudioDelta))
        pcm = b"".join(e.pcm for e in talk.events if isinstance(e, AudioDelta) and e.item == first)
        assert len(pcm) == 300 * 48


async def test_pieces_that_end_within_a_sample_arrive_as_whole_samples() -> None:
    async with talking() as (server, talk):
        talk.session.caller_began()
        for size in (1, 3, 2, 7, 0, 1):
            talk.session.send_audio(b"\x00" * size)
        await server.until(lambda: len(server.model.caller) == 14)
        assert server.violations == []


async def test_a_barge_in_silences_the_reply_at_once() -> None:
    async with talking(Reply((Say(5000),)), faults=Faults(pace_s=0.005)) as (server, talk):
        talk.session.speak_about("Fale bastante.")
        first = await talk.a(AudioDelta)
        talk.session.interrupt(Heard(first.item, 30))
        after = len(talk.events)
        speak(talk.session)
        await talk.a(ResponseDone, status="cancelled")
        done = await talk.a(ResponseDone, status="completed")
        late = [e for e in talk.events[after:] if isinstance(e, AudioDelta) and e.item == first.item]
        assert not late and done.receipt is None
        assert server.model.interruptions == 1 and server.violations == []


async def test_intents_before_ready_go_out_in_order() -> None:
    async with talking(faults=Faults(accept_delay_s=0.3), ready=False) as (server, talk):
        greeting = talk.session.say_exactly("Boa tarde!")
        talk.session.note("Chove.")
        speak(talk.session, FRAME)
        await talk.a(ResponseDone, receipt=greeting)
        await server.until(lambda: server.model.turns)
        assert server.violations == []


@pytest.mark.parametrize(
    ("settings", "faults", "code", "words"),
    [
        ({"api_key": "wrong"}, Faults(), "key_refused", "the key was refused"),
        ({"model": "gemini-9"}, Faults(), "unknown_model", "the model is not known there"),
        ({"voice": "Ze"}, Faults(), "unsupported_voice", "the voice is not known there"),
        (
            {},
            Faults(
                close_on_setup=(1011, "You exceeded your current quota, please check your plan and billing.")
            ),
            "quota",
            "the account's quota is used up",
        ),
        (
            {},
            Faults(close_on_setup=(1011, "RESOURCE_EXHAUSTED")),
            "rate_limit",
            "too many sessions or requests",
        ),
        (
            {},
            Faults(close_on_setup=(1007, "Request contains an invalid argument.")),
            "configuration_refused",
            "code 1007 (Request contains",
        ),
        ({}, Faults(refuse=(400, b"API key not valid.")), "key_refused", "the key was refused (HTTP 400)"),
        ({}, Faults(refuse=(403, b"")), "key_refused", "not allowed"),
        ({}, Faults(refuse=(404, b"")), "unknown_model", "the address or the model is not known there"),
        ({}, Faults(refuse=(429, b"")), "rate_limit", "too many requests"),
        ({}, Faults(refuse=(429, b"Quota exceeded for metric")), "quota", "quota is used up (HTTP 429)"),
        ({}, Faults(refuse=(503, b"")), "unavailable", "out of order (HTTP 503)"),
        ({"connect_timeout_s": 0.3}, Faults(never_configure=True), "timeout", "no confirmed configuration"),
        ({}, Faults(mime="audio/pcm;rate=48000"), "unsupported_format", "rate=24000"),
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
    settings = GeminiSettings(api_key="k", base_url=f"http://127.0.0.1:{unused_tcp_port}")
    talk = Talk(GeminiProvider(settings).open(CONFIG))
    (event,) = await talk.end()
    assert isinstance(event, Failed) and (event.kind, event.code) == ("session", "unreachable")
    await talk.session.close()


@pytest.mark.parametrize("resumes", [True, False])
async def test_a_connection_that_is_to_be_closed_is_left_in_a_quiet_moment(resumes: bool) -> None:
    async with talking(faults=Faults(no_resume=not resumes)) as (server, talk):
        first = talk.session.say_exactly("Boa tarde!")
        server.model.go_away(30)
        await talk.a(GoingAway, in_s=30.0)
        await talk.a(ResponseDone, receipt=first, status="completed")
        await server.until(lambda: len(server.models) == (2 if resumes else 3) and server.model.setup)
        after = talk.session.say_exactly("Pois não?")
        await talk.a(ResponseDone, receipt=after, status="completed")
        assert talk.session.epoch == 2 and (server.model.resumed is not None) is resumes
        told = [text for role, text, _ in server.model.texts if role == "model"]
        assert (told != []) is not resumes, "as text, where it would not resume (1007)"
        assert server.violations == [] and not failures(talk.events)


async def test_a_connection_that_is_to_be_closed_is_left_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async with talking(Reply((Call(call_id="a"),))) as (server, talk):
        talk.session.speak_about("Comece.")
        call = await talk.a(ToolCall)
        server.model.go_away(3.2)
        server.kick()
        await talk.a(ToolCallCancelled, id="a")
        talk.session.answer(call, {"status": "ok"})
        await server.until(lambda: len(server.models) == 2 and server.model.texts)
        assert server.model.answers == {} and server.violations == []


@pytest.mark.parametrize("cut", ["close", "abort"])
@pytest.mark.parametrize("after", [2, 3, 6, 9])
async def test_a_connection_that_breaks_is_replaced(cut: Any, after: int) -> None:
    faults = Faults(cut=cut, cut_after=after, cuts=1)
    async with talking(Reply((Say(500),)), faults=faults) as (server, talk):
        said = talk.session.say_exactly("Boa tarde!")
        await server.until(lambda: len(server.models) == 2 and server.model.setup)
        also = talk.session.say_exactly("Pois não?")
        await talk.a(ResponseDone, receipt=also, status="completed")
        (how,) = [e.status for e in talk.events if isinstance(e, ResponseDone) and e.receipt == said]
        assert how in ("completed", "incomplete") and not failures(talk.events)
        assert talk.session.epoch == 2 and server.violations == []


async def test_a_turn_during_which_the_connection_broke_goes_on_over_the_next() -> None:
    async with talking() as (server, talk):
        talk.session.caller_began()
        talk.session.send_audio(FRAME)
        await server.until(lambda: server.model.caller)
        server.sockets[0].transport.abort()
        await talk.until(lambda events: sum(isinstance(e, SpeechStarted) for e in events) == 2)
        for _ in range(10):
            talk.session.send_audio(FRAME)
            await asyncio.sleep(0.005)
        talk.session.caller_ended(600)
        await server.until(lambda: len(server.models) == 2 and server.model.turns)
        assert server.model.turns == [FRAME * 10] and server.violations == []


async def test_connections_that_break_again_and_again_end_the_session() -> None:
    async with talking(faults=Faults(cut="close", cut_after=2), ready=False) as (server, talk):
        talk.session.say_exactly("Boa tarde!")
        events = await talk.end()
        assert [f.code for f in failures(events)] == ["went_away"]
        assert "1011 (Internal error encountered.)" in failures(events)[0].message
        assert len(server.models) == gemini_live._MAX_LOSSES + 1
        assert len([e for e in events if isinstance(e, Ready)]) == 1


async def test_a_key_that_is_withdrawn_is_not_tried_again() -> None:
    faults = Faults(cut="close", cut_after=2, cut_with=(1008, "Your API key was reported as leaked."))
    async with talking(faults=faults, ready=False) as (server, talk):
        talk.session.say_exactly("Boa tarde!")
        assert [f.code for f in failures(await talk.end())] == ["key_refused"]
        assert len(server.models) == 1


@pytest.mark.parametrize("cut", ["half", "garbage"])
async def test_what_makes_no_sense_ends_the_session(cut: Any) -> None:
    async with talking(faults=Faults(cut=cut, cut_after=3), ready=False) as (_, talk):
        talk.session.say_exactly("Boa tarde!")
        events = await talk.end()
        assert [f.code for f in failures(events)] == ["protocol_error"] and events[-1] == failures(events)[0]
        talk.session.send_audio(FRAME)
        speak(talk.session, FRAME)
        asked_in_vain(talk.session)
        await asyncio.sleep(0.02)
        assert not talk.session.busy and not talk.session._waiting and talk.session._timer is None
        assert talk.events == events


async def test_a_server_that_takes_nothing_more_is_given_up() -> None:
    faults = Faults(deaf=True)
    async with talking(faults=faults, stall_timeout_s=0.3, close_timeout_s=0.5) as (_, talk):
        talk.session.caller_began()

        async def flood() -> None:
            while not talk.ended.is_set():
                talk.session.send_audio(FRAME * 200)
                await asyncio.sleep(0.001)

        await asyncio.wait_for(flood(), 10)
        assert [f.code for f in failures(talk.events)] == ["send_stalled"]


async def test_late_audio_is_let_go_and_the_order_is_kept() -> None:
    """Between the beginning of a turn and its end nothing overtakes."""
    async with talking() as (server, talk):
        talk.session.caller_began()
        link = talk.session._link
        assert link is not None and link.socket is not None
        link.socket.pause_writing()
        talk.session.send_audio(b"\x02\x00" * 320)
        await asyncio.sleep(1.05)
        talk.session.send_audio(FRAME)
        talk.session.caller_ended(600)
        link.socket.resume_writing()
        await server.until(lambda: server.model.turns)
        assert server.model.turns == [FRAME] and server.violations == []
        assert talk.session.audio_let_go > len(FRAME)


async def test_events_are_for_one_consumer_and_what_it_raises_comes_back() -> None:
    async with talking() as (_, talk):
        with pytest.raises(RuntimeError):
            await talk.session.run(talk.events.append)
    async with Simulator(Reply((Say(5000),))) as server:
        session = GeminiProvider(GeminiSettings(api_key=KEY, base_url=server.url)).open(CONFIG)
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
    async with talking() as (server, talk):
        monkeypatch.setattr(talk.session._conversation, "receive", lambda _: 1 / 0)
        with capture_logs() as lines:
            server.model.phantom()
            server.kick()
            events = await talk.end()
        assert [f.code for f in failures(events)] == ["internal"]
        assert [line["event"] for line in lines] == ["session_fault"]


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
        provider = registry.create("gemini", Access(api_key=KEY, base_url=server.url, voice="Puck"))
        talk = Talk(provider.open(CONFIG))
        await talk.a(Ready)
        speech = server.model.setup["generationConfig"]["speechConfig"]
        assert speech["voiceConfig"]["prebuiltVoiceConfig"] == {"voiceName": "Puck"}
        await talk.session.close()
    with pytest.raises(ValueError, match="api_key is empty"):
        registry.create("gemini", Access())
    with pytest.raises(ValueError, match=r"found the format 'pcmu'; allowed: pcm16"):
        registry.create("gemini", Access(api_key="k", format="pcmu"))
    assert "secret" not in repr(GeminiSettings(api_key="secret"))


def tls(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The two sides of a certificate that nobody signed."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    theirs.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return theirs, ssl.create_default_context(cafile=str(folder / "cert.pem"))


async def test_the_official_sdk_talks_with_the_simulator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The simulator is only worth something if the vendor's own client takes it for the vendor."""
    theirs, ours = await asyncio.to_thread(tls, tmp_path)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    replies = (Reply((Say(100, "Olá!"), Call(call_id="a"))), Reply((Say(50),)))
    async with Simulator(*replies, tls=theirs) as server:
        options = types.HttpOptions(base_url=server.url, async_client_args={"ssl": ours})
        client = genai.Client(api_key=KEY, http_options=options)
        config = types.LiveConnectConfig(
            response_modalities=[types.Modality.AUDIO],
            realtime_input_config=types.RealtimeInputConfig(
                automatic_activity_detection=types.AutomaticActivityDetection(disabled=True)
            ),
            session_resumption=types.SessionResumptionConfig(),
            input_audio_transcription=types.AudioTranscriptionConfig(),
        )
        async with client.aio.live.connect(model="gemini-3.8-live", config=config) as live:
            await live.send_realtime_input(activity_start=types.ActivityStart())
            await live.send_realtime_input(audio=types.Blob(data=FRAME, mime_type="audio/pcm;rate=16000"))
            await live.send_realtime_input(activity_end=types.ActivityEnd())
            turn = [message async for message in live.receive()]
            words = [m.server_content.input_transcription for m in turn if m.server_content]
            assert "".join((w.text or "") for w in words if w) == "Boa tarde."
            assert sum(len(m.data or b"") for m in turn) == 100 * 48
            (call,) = [m.tool_call for m in turn if m.tool_call]
            assert call.function_calls is not None and call.function_calls[0].args == {"apartment": "501"}
            response = types.FunctionResponse(id="a", name="lookup_apartment", response={"status": "ok"})
            await live.send_tool_response(function_responses=[response])
            again = [message async for message in live.receive()]
            assert sum(len(m.data or b"") for m in again) == 50 * 48
            await live.send_client_content(
                turns=types.Content(role="user", parts=[types.Part(text="Olá")]), turn_complete=True
            )
            assert [message async for message in live.receive()]
        assert server.violations == []


SETUP: dict[str, Any] = {
    "model": "models/gemini-3.8-live",
    "generationConfig": {"responseModalities": ["AUDIO"]},
    "realtimeInputConfig": {"automaticActivityDetection": {"disabled": True}},
}


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([{"setup": SETUP, "clientContent": {}}], "one of a message's parts"),
        ([{"setup": SETUP}, {"setup": SETUP}], "setup comes first"),
        ([{"realtimeInput": {"activityStart": {}}}], "setup comes first"),
        ([{"setup": SETUP | {"voice": "Kore"}}], "Extra inputs"),
        ([{"setup": SETUP | {"sessionResumption": {"handle": None}}}], "an empty handle"),
        ([{"setup": SETUP}, {"realtimeInput": {"activityEnd": {}}}], "activity starts once"),
        (
            [{"setup": SETUP}, {"realtimeInput": {"activity_start": {}}}, {"realtimeInput": {"text": "x"}}],
            "['text']",
        ),
        (
            [{"setup": SETUP}, {"realtimeInput": {"audio": {"data": "AAA=", "mimeType": "audio/pcm"}}}],
            "audio of",
        ),
        (
            [
                {"setup": SETUP},
                {"realtimeInput": {"audio": {"data": "AAA=", "mimeType": "audio/pcm;rate=16000"}}},
            ],
            "while nobody speaks",
        ),
        (
            [{"setup": SETUP}, {"clientContent": {"turns": [{"role": "system", "parts": [{"text": "x"}]}]}}],
            "role",
        ),
        (
            [{"setup": SETUP}, {"toolResponse": {"functionResponses": [{"id": "x", "response": {}}]}}],
            "not open",
        ),
        ([{"setup": SETUP}, {"realtimeInput": {"activityStart": {}}}], ""),
    ],
)
def test_the_simulator_refuses_what_the_vendor_would(messages: list[Any], why: str) -> None:
    model = Model()
    refused = False
    for message in messages:
        try:
            model.receive(message)
        except Refused:
            refused = True
    assert refused is bool(why) is bool(model.violations)
    assert why in "".join(model.violations)
