"""ElevenLabs agents over a real loopback port: they converse, fail plainly, leave nothing."""

from __future__ import annotations

import asyncio
import gc
import json
import warnings
from base64 import b64encode
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from elevenlabs.client import ElevenLabs
from structlog.testing import capture_logs

from audio.g711 import ulaw_decode, ulaw_encode
from bridge.softphone import load_wav
from providers import registry
from providers.access import Access
from providers.base import (
    AudioDelta,
    BilledByTime,
    Failed,
    Heard,
    Interrupted,
    Ready,
    ResponseDone,
    SessionConfig,
    TakesTurns,
    ToolCall,
    ToolSpec,
    Transcript,
)
from providers.elevenlabs import ElevenLabsProvider, ElevenLabsSession, ElevenLabsSettings
from tests.simulators.elevenlabs import (
    AGENT,
    KEY,
    SIGN,
    Call,
    Faults,
    Model,
    Refused,
    Reply,
    Say,
    Simulator,
)
from tests.simulators.talk import Talk, asked_in_vain, failures, leaving_nothing

with warnings.catch_warnings():
    # The SDK names a class of websockets' that is on its way out.
    warnings.simplefilter("ignore", DeprecationWarning)
    from elevenlabs.conversational_ai.conversation import (
        AsyncAudioInterface,
        AsyncConversation,
        ClientTools,
        ConversationInitiationData,
    )

TOOL = ToolSpec("lookup_apartment", "Procura.", {"type": "object", "properties": {}})
CONFIG = SessionConfig(instructions="Você é o porteiro.", tools=[TOOL])
SPEECH = load_wav(Path(__file__).parents[2] / "data" / "audio" / "v05-leticia.wav")
FRAME = b"\x01\x00" * 160


def talking(
    *replies: Reply, faults: Faults | None = None, ready: bool = True, **settings: Any
) -> AbstractAsyncContextManager[tuple[Simulator, Talk[ElevenLabsSession]]]:
    """A session on a simulator, of which nothing is left at the end."""

    def opened(server: Simulator) -> ElevenLabsSession:
        given = {"api_key": KEY, "agent": AGENT, "base_url": server.url, "first_words_s": 0.0}
        return ElevenLabsProvider(ElevenLabsSettings(**{**given, **settings})).open(CONFIG)

    return leaving_nothing(Simulator(*replies, faults=faults), opened, ready=ready, tasks=("elevenlabs",))


def speak(session: ElevenLabsSession, pcm: bytes = SPEECH) -> None:
    """The caller says something, and falls silent."""
    session.caller_began()
    for at in range(0, len(pcm), len(FRAME)):
        session.send_audio(pcm[at : at + len(FRAME)])
    session.caller_ended(200)
    for _ in range(50):
        session.send_audio(bytes(len(FRAME)))


async def test_it_asks_for_an_address_with_the_key_and_connects_without() -> None:
    async with talking() as (server, talk):
        asked, connected = server.requests
        assert urlsplit(asked.path).path == SIGN and parse_qs(urlsplit(asked.path).query) == {
            "agent_id": [AGENT]
        }
        assert asked.headers["xi-api-key"] == KEY and "xi-api-key" not in connected.headers
        can = talk.session.capabilities
        assert (can.input_rate, can.output_rate, can.input_encoding) == (8000, 8000, "pcmu")
        assert can.owns_turns and not can.truncation and not can.exact_speech
        assert talk.events == [Ready(can)] and isinstance(talk.session, TakesTurns)


async def test_a_whole_exchange_with_the_agents_own_vad() -> None:
    call = Reply((Say(100, "Vou ver."), Call(call_id="a"), Call(call_id="b"), Say(100, "Achei.")))
    async with talking(Reply((Say(300),)), call, ready=False) as (server, talk):
        greeting = talk.session.say_exactly("Boa tarde!")
        busy = talk.session.busy
        assert busy
        await talk.a(ResponseDone, receipt=greeting)
        assert server.model.started["conversation_config_override"]["agent"]["first_message"] == "Boa tarde!"
        server.model.said.append("Apartamento quinhentos e um.")
        speak(talk.session)
        for name in ("a", "b"):
            talk.session.answer(await talk.a(ToolCall, id=name), {"status": "ok"})
        await talk.until(lambda events: sum(isinstance(e, ResponseDone) for e in events) == 3)
        await talk.a(Transcript, role="caller", final=True, text="Apartamento quinhentos e um.")
        assert server.model.answers == {"a": {"status": "ok"}, "b": {"status": "ok"}}
        expected = ulaw_decode(ulaw_encode(SPEECH))
        assert server.model.caller[: len(expected)] == expected, "every sample arrived, as µ-law has it"
        assert server.violations == [] and not talk.session.busy
        first = next(e.item for e in talk.events if isinstance(e, AudioDelta))
        pcm = b"".join(e.pcm for e in talk.events if isinstance(e, AudioDelta) and e.item == first)
        assert len(pcm) == 300 * 16


async def test_audio_that_waited_at_another_rate_than_the_confirmed_one_is_let_go() -> None:
    faults = Faults(accept_delay_s=0.2, input_format="pcm_16000", output_format="pcm_16000")
    async with talking(faults=faults, ready=False) as (server, talk):
        talk.session.send_audio(FRAME)
        await talk.a(Ready)
        talk.session.send_audio(FRAME * 2)
        await server.until(lambda: server.model.caller)
        assert server.model.caller == FRAME * 2 and talk.session.audio_let_go == len(FRAME)


async def test_pieces_that_end_within_a_sample_arrive_as_whole_samples() -> None:
    async with talking(faults=Faults(input_format="pcm_8000")) as (server, talk):
        for size in (1, 3, 2, 7, 0, 1):
            talk.session.send_audio(b"\x00" * size)
        await server.until(lambda: len(server.model.caller) == 14)
        assert server.violations == []


async def test_a_barge_in_silences_the_reply_at_once_and_the_agent_knows_what_was_heard() -> None:
    greeting = Reply((Say(5000, "Boa tarde, com quem deseja falar? " * 5),))
    async with talking(greeting, faults=Faults(pace_s=0.002, corrects=1.0), ready=False) as (server, talk):
        talk.session.say_exactly("Boa tarde, com quem deseja falar? " * 5)
        first = await talk.a(AudioDelta)
        talk.session.interrupt(Heard(first.item, 700))
        after = len(talk.events)
        speak(talk.session)
        await talk.a(Interrupted)
        await talk.a(ResponseDone, status="cancelled")
        done = await talk.a(ResponseDone, status="completed")
        late = [e for e in talk.events[after:] if isinstance(e, AudioDelta) and e.item == first.item]
        assert not late and done.receipt is None
        await server.until(lambda: server.model.notes)
        assert "só ouviu: «Boa tarde,»" in server.model.notes[0]
        assert server.model.interruptions == 1 and server.violations == []


async def test_intents_before_ready_go_out_in_order() -> None:
    async with talking(faults=Faults(accept_delay_s=0.3), ready=False) as (server, talk):
        greeting = talk.session.say_exactly("Boa tarde!")
        talk.session.note("Chove.")
        about = talk.session.speak_about("O elevador parou.")
        await talk.a(ResponseDone, receipt=greeting)
        await talk.a(ResponseDone, receipt=about)
        assert server.model.notes == ["Chove."] and "elevador" in server.model.texts[0]
        assert server.violations == []


@pytest.mark.parametrize("late", [False, True])
async def test_the_first_words_are_waited_for_and_not_for_long(late: bool) -> None:
    async with talking(first_words_s=0.3 if late else 3.0, ready=False) as (server, talk):
        await server.until(lambda: server.models)
        await asyncio.sleep(0.4 if late else 0.05)
        assert bool(server.model.started) is late
        greeting = talk.session.say_exactly("Boa tarde!")
        await talk.a(ResponseDone, receipt=greeting, status="completed")
        agent = server.model.started["conversation_config_override"]["agent"]
        assert agent["first_message"] == ("" if late else "Boa tarde!")
        assert len(server.model.texts) == late and server.violations == []


async def test_a_session_that_waits_for_its_first_words_can_be_closed() -> None:
    async with talking(first_words_s=3.0, ready=False) as (server, talk):
        await server.until(lambda: server.models)
        await talk.session.close()
        talk.session.say_exactly("Ninguém ouve.")
        assert server.model.received == [] and talk.session._waiting is None


async def test_the_time_that_it_is_open_is_billed() -> None:
    async with talking() as (_, talk):
        session = talk.session
        assert isinstance(session, BilledByTime)
        await asyncio.sleep(0.1)
        (first,) = session.time_billed()
        await asyncio.sleep(0.1)
        await session.close()
        (second,) = session.time_billed()
        await asyncio.sleep(0.05)
        assert session.time_billed() == (), "not after its end"
        assert 0.1 <= first.seconds < 1 and 0.1 <= second.seconds < 1 and not first.complete
    async with talking(faults=Faults(refuse=(401, b"")), ready=False) as (_, talk):
        await talk.end()
        assert talk.session.time_billed() == (), "nor is what never began"


async def test_a_reply_that_does_not_come_is_given_up_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("providers.elevenlabs_conversation._START_S", 0.1)
    async with talking(Reply((), endless=True)) as (_, talk):
        about = talk.session.speak_about("Fale.")
        await talk.a(ResponseDone, receipt=about, status="failed")


@pytest.mark.parametrize(
    ("settings", "faults", "code", "words"),
    [
        ({"api_key": "wrong"}, Faults(), "key_refused", "the key was refused (HTTP 401)"),
        ({"api_key": "chave-ç"}, Faults(), "key_refused", "characters that no key has"),
        ({"agent": "agent_9"}, Faults(), "unknown_model", "the agent is not known there (HTTP 404)"),
        ({"voice": "Ze"}, Faults(), "unsupported_voice", "the voice is not known there"),
        (
            {},
            Faults(allowed=frozenset({"prompt", "language"})),
            "override_refused",
            "allow the override of first_message in the agent's security settings",
        ),
        ({}, Faults(close_on_start=(3000, "[quota_exceeded]")), "quota", "the account's quota is used up"),
        (
            {},
            Faults(close_on_start=(1002, "Maximum concurrent calls reached")),
            "rate_limit",
            "too many conversations",
        ),
        ({}, Faults(close_on_start=(1011, "Internal")), "went_away", "code 1011 (Internal)"),
        ({}, Faults(refuse=(401, b'{"detail":{"status":"quota_exceeded"}}')), "quota", "used up (HTTP 401)"),
        ({}, Faults(refuse=(403, b"")), "key_refused", "not allowed to use this agent"),
        ({}, Faults(refuse=(422, b"")), "unknown_model", "HTTP 422"),
        ({}, Faults(refuse=(429, b"")), "rate_limit", "too many requests"),
        ({}, Faults(refuse=(307, b"")), "refused", "HTTP 307"),
        ({}, Faults(refuse=(503, b"quota")), "unavailable", "out of order (HTTP 503)"),
        ({}, Faults(refuse=(200, b"x" * 70_000)), "protocol_error", "more than 65536 bytes"),
        (
            {},
            Faults(signed_url="http://127.0.0.1:1/"),
            "protocol_error",
            "no address that begins with wss://",
        ),
        ({"connect_timeout_s": 0.3}, Faults(never_configure=True), "timeout", "no confirmed configuration"),
        ({"connect_timeout_s": 0.3}, Faults(accept_delay_s=2), "timeout", "no address to connect to"),
        ({}, Faults(output_format="pcm_44100"), "unsupported_format", "the agent speaks 'pcm_44100'"),
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
        assert "conversation_signature" not in failed.message


async def test_nobody_there(unused_tcp_port: int) -> None:
    settings = ElevenLabsSettings(api_key="k", agent="a", base_url=f"http://127.0.0.1:{unused_tcp_port}")
    talk = Talk(ElevenLabsProvider(settings).open(CONFIG))
    (event,) = await talk.end()
    assert isinstance(event, Failed) and (event.kind, event.code) == ("session", "unreachable")
    await talk.session.close()


@pytest.mark.parametrize(
    ("cut", "reason", "code", "words"),
    [
        ("close", (1011, "Internal error."), "went_away", "code 1011 (Internal error.)"),
        ("close", (1000, ""), "went_away", "the agent ended the conversation"),
        ("close", (1002, "This request exceeds your quota limit."), "quota", "the account's quota"),
        ("error", (1008, "This request exceeds your quota limit."), "quota", "the account's quota"),
        ("error", (1011, "LLM cascade failed"), "refused", "LLM cascade failed"),
        ("flat_error", (1002, "This request exceeds your quota limit."), "quota", "the account's quota"),
        ("error", (1000, "max_duration_exceeded"), "time_over", "longer than limits.max_visit_s"),
        ("abort", (1011, ""), "went_away", "the connection to the provider broke"),
        ("half", (1011, ""), "protocol_error", "makes no sense"),
        ("garbage", (1011, ""), "protocol_error", "makes no sense"),
    ],
)
async def test_a_connection_that_ends_ends_the_session(
    cut: Any, reason: tuple[int, str], code: str, words: str
) -> None:
    faults = Faults(cut=cut, cut_after=3, cut_with=reason)
    async with talking(faults=faults, ready=False) as (_, talk):
        talk.session.say_exactly("Boa tarde!")
        events = await talk.end()
        (failed,) = failures(events)
        assert failed.code == code and words in failed.message and events[-1] == failed
        talk.session.send_audio(FRAME)
        speak(talk.session, FRAME)
        asked_in_vain(talk.session)
        await asyncio.sleep(0.02)
        assert not talk.session.busy and not talk.session._control and talk.session._timer is None
        assert talk.events == events


async def test_a_server_that_takes_nothing_more_is_given_up() -> None:
    faults = Faults(deaf=True)
    async with talking(faults=faults, stall_timeout_s=0.3, close_timeout_s=0.5) as (_, talk):

        async def flood() -> None:
            while not talk.ended.is_set():
                talk.session.send_audio(FRAME * 400)
                await asyncio.sleep(0.001)

        await asyncio.wait_for(flood(), 10)
        assert [f.code for f in failures(talk.events)] == ["send_stalled"]


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
        access = Access(api_key=KEY, base_url=server.url, model=AGENT, voice="voice_bia", format="pcm16")
        talk = Talk(registry.create("elevenlabs", access).open(CONFIG))
        assert talk.session.capabilities.input_rate == 16000, "until the agent says otherwise"
        await talk.a(Ready)
        assert talk.session.capabilities.input_rate == 8000
        assert server.model.started["conversation_config_override"]["tts"] == {"voice_id": "voice_bia"}
        await talk.session.close()
    with pytest.raises(ValueError, match="model is empty"):
        registry.create("elevenlabs", Access(api_key="k"))
    with pytest.raises(ValueError, match=r"found the format 'pcma'; allowed: pcmu, pcm8, pcm16, pcm24"):
        registry.create("elevenlabs", Access(api_key="k", model="a", format="pcma"))
    assert "secret" not in repr(ElevenLabsSettings(api_key="secret", agent="a"))
    elsewhere = ElevenLabsSettings(
        api_key="k", agent="a&b", base_url="https://api.eu.residency.elevenlabs.io/"
    )
    assert elsewhere.signing_url == f"https://api.eu.residency.elevenlabs.io{SIGN}?agent_id=a%26b"


# -- the simulator -------------------------------------------------------------------------------------------


class Headset(AsyncAudioInterface):
    """The SDK's way to hear and be heard."""

    def __init__(self) -> None:
        self.heard = b""
        self.interruptions = 0
        self.say: Callable[[bytes], Awaitable[None]] | None = None

    async def start(self, input_callback: Callable[[bytes], Awaitable[None]]) -> None:
        self.say = input_callback

    async def stop(self) -> None:
        self.say = None

    async def output(self, audio: bytes) -> None:
        self.heard += audio

    async def interrupt(self) -> None:
        self.interruptions += 1


async def test_the_official_sdk_talks_with_the_simulator(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulator is only worth something if the vendor's own client takes it for the vendor."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    replies = (
        Reply((Say(100),)),
        Reply((Say(100, "Vou ver."), Call(call_id="a"), Say(50, "Achei."))),
        Reply((Say(5000, "Um momento, por favor."),), endless=True),
    )
    faults = Faults(input_format="pcm_16000", output_format="pcm_16000", corrects=0.5)
    headset, said, heard, corrected = Headset(), [], [], []

    async def agent(text: str) -> None:
        said.append(text)

    async def user(text: str) -> None:
        heard.append(text)

    async def correction(original: str, kept: str) -> None:
        corrected.append((original, kept))

    async def lookup(parameters: dict[str, Any]) -> str:
        return json.dumps({"status": "found", "apartment": parameters["apartment"]})

    async with Simulator(*replies, faults=faults) as server:
        client = await asyncio.to_thread(lambda: ElevenLabs(api_key=KEY, base_url=server.url))
        tools = ClientTools(loop=asyncio.get_running_loop())
        tools.register("lookup_apartment", lookup, is_async=True)
        override = {"agent": {"first_message": "Boa tarde!", "language": "pt-br"}}
        conversation = AsyncConversation(
            client,
            AGENT,
            requires_auth=True,
            audio_interface=headset,
            config=ConversationInitiationData(conversation_config_override=override),
            client_tools=tools,
            callback_agent_response=agent,
            callback_user_transcript=user,
            callback_agent_response_correction=correction,
        )
        await conversation.start_session()  # type: ignore[no-untyped-call]
        await server.until(lambda: server.models and server.model.started)
        async with asyncio.timeout(5):
            while said != ["Boa tarde!"] or len(headset.heard) < 100 * 32:
                await asyncio.sleep(0.005)
        model = server.model
        model.ping()
        server.kick()
        await server.until(lambda: not model.pings)
        assert headset.say is not None
        loud = (2000).to_bytes(2, "little") * 320
        for frame in [loud] * 20 + [bytes(640)] * 40:
            await headset.say(frame)
        await server.until(lambda: model.answers)
        assert model.answers == {"a": {"status": "found", "apartment": "501"}}
        async with asyncio.timeout(5):
            while "Achei." not in said:
                await asyncio.sleep(0.005)
        assert heard == ["Boa tarde."]
        await conversation.send_contextual_update("O morador ligou.")
        await conversation.send_user_message("Fale disso.")
        async with asyncio.timeout(5):
            while "Um momento, por favor." not in said or len(headset.heard) < 200 * 32:
                await asyncio.sleep(0.005)
        for frame in [loud] * 20:
            await headset.say(frame)
        async with asyncio.timeout(5):
            while not corrected:
                await asyncio.sleep(0.005)
        assert headset.interruptions == 1 and corrected == [("Um momento, por favor.", "Um momento,")]
        assert model.notes == ["O morador ligou."] and model.texts == ["Fale disso."]
        await conversation.end_session()  # type: ignore[no-untyped-call]
        assert await conversation.wait_for_session_end() == "conv_1"
        assert server.violations == []
        await server.until(lambda: not server.open_connections)


START: dict[str, Any] = {"type": "conversation_initiation_client_data", "conversation_config_override": {}}
OVERRIDE = {"agent": {"prompt": {"prompt": "x", "tone": "y"}}}
RESULT = {"type": "client_tool_result", "tool_call_id": "a", "result": "{}", "is_error": False}


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([{"user_audio_chunk": "AAAA"}], "before the conversation was initiated"),
        ([START, START], "was initiated"),
        ([START | {"voice": "x"}], "unknown field voice"),
        (
            [START | {"conversation_config_override": OVERRIDE}],
            "unknown field conversation_config_override.agent.prompt.tone",
        ),
        ([START, {"type": "session.update"}], "unknown message"),
        ([START, {"user_audio_chunk": "AAAA", "type": "user_audio"}], "unknown message"),
        ([START, {"user_audio_chunk": "?"}], "no base64"),
        ([START, {"user_audio_chunk": ""}], "no whole samples"),
        ([START, {"type": "user_message", "text": "x", "role": "user"}], "unknown field user_message.role"),
        ([START, {"type": "contextual_update"}], "missing field contextual_update.text"),
        ([START, {"type": "pong", "event_id": "1"}], "is no int"),
        ([START, {"type": "pong", "event_id": 1}], "a pong to no ping"),
        ([START, RESULT], "a is not open"),
        ([START, {"type": "user_activity"}], ""),
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


def test_the_simulator_hears_a_wrong_format() -> None:
    model = Model(faults=Faults(input_format="pcm_8000"))
    model.receive(START)
    chunk = b64encode(ulaw_encode(SPEECH)[: len(SPEECH) // 4 * 2]).decode()
    with pytest.raises(Refused):
        model.receive({"user_audio_chunk": chunk})
    assert model.violations == ["this is no pcm_8000"]


@pytest.mark.parametrize("result", ["", "not JSON", "7"])
def test_the_simulator_refuses_an_answer_that_says_nothing(result: str) -> None:
    model = Model(deque([Reply((Call(call_id="a"),))]))
    model.receive(START)
    model.start()
    model.step()
    with pytest.raises((Refused, ValueError)):
        model.receive(RESULT | {"result": result})
