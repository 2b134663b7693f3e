"""Azure VoiceLive: its words, its voices, its address, against a simulator that knows its SDK's types."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from azure.ai.voicelive import models as sdk
from azure.ai.voicelive.aio import connect
from azure.core.credentials import AzureKeyCredential
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.softphone import load_wav
from providers import registry
from providers.access import Access
from providers.azure_voicelive import VoiceLiveProvider, VoiceLiveSettings
from providers.azure_voicelive_messages import BRAZILIAN, FORMATS, VoiceLiveWire
from providers.base import (
    AudioDelta,
    Failed,
    Heard,
    ItemStarted,
    Ready,
    ResponseDone,
    Session,
    SessionConfig,
    ToolCall,
    Transcript,
    TurnDetection,
)
from providers.conversing import SessionOver
from providers.formats import FormatName
from tests.simulators.azure_voicelive import API_VERSION, VoiceLiveModel, VoiceLiveSimulator
from tests.simulators.openai_realtime import Call, Faults, Reply, Say
from tests.simulators.pair import CONFIG, Pair, go, replies, steps
from tests.simulators.talk import Talk, failures

ACCESS = Access("azure-key", model="gpt-5-mini")
WIRE = VoiceLiveWire("gpt-5-mini", "pt-BR-FranciscaNeural")
TALK = load_wav(Path(__file__).parents[2] / "data" / "audio" / "v05-leticia.wav")


class VoiceLivePair(Pair):
    """See :class:`Pair`."""

    def __init__(
        self,
        *script: Reply,
        faults: Faults | None = None,
        config: SessionConfig = CONFIG,
        dialect: VoiceLiveWire = WIRE,
    ) -> None:
        super().__init__(*script, faults=faults, config=config, dialect=dialect, model=VoiceLiveModel)


def configured(dialect: VoiceLiveWire = WIRE, config: SessionConfig = CONFIG) -> dict[str, Any]:
    """The session as the server has taken it."""
    pair = VoiceLivePair(config=config, dialect=dialect)
    pair.settle()
    assert pair.model.violations == [] and [type(e) for e in pair.events] == [Ready]
    return pair.model.session


# -- what is configured --------------------------------------------------------------------------------------


def test_the_configuration_is_what_the_vendor_takes_and_what_we_mean() -> None:
    session = configured()
    assert "model" not in session
    assert session["voice"] == {"type": "azure-standard", "name": "pt-BR-FranciscaNeural"}
    assert (session["input_audio_format"], session["input_audio_sampling_rate"]) == ("pcm16", 8000)
    assert session["output_audio_format"] == "pcm16_8000hz"
    assert session["input_audio_noise_reduction"] == {"type": "azure_deep_noise_suppression"}
    assert session["input_audio_echo_cancellation"] == {"type": "server_echo_cancellation"}
    assert session["input_audio_transcription"] == {
        "model": "azure-speech",
        "language": "pt-BR",
        "phrase_list": ["Daner", "Giane"],
    }
    turns = session["turn_detection"]
    assert (turns["type"], turns["languages"]) == ("azure_semantic_vad_multilingual", ["pt-BR"])
    assert turns["remove_filler_words"] is False, "a resident's 'hum' counts"
    for ours in ("create_response", "interrupt_response", "auto_truncate"):
        assert turns[ours] is False, ours
    assert [tool["name"] for tool in session["tools"]] == ["lookup_apartment"]
    assert "interim_response" not in session


def test_what_a_tenant_chooses_is_configured() -> None:
    dialect = replace(
        WIRE, noise_suppression=False, echo_cancellation=False, interim_texts=("Um instante.", "Já vejo.")
    )
    turns = TurnDetection(threshold=0.4, silence_duration_ms=800, kind="server_vad")
    session = configured(dialect, replace(CONFIG, turn_detection=turns, temperature=0.5))
    assert "input_audio_noise_reduction" not in session
    assert "input_audio_echo_cancellation" not in session
    assert session["interim_response"]["texts"] == ["Um instante.", "Já vejo."]
    assert session["turn_detection"]["type"] == "server_vad"
    assert session["turn_detection"]["silence_duration_ms"] == 800
    assert session["temperature"] == 0.5


def test_realtime_models_have_another_recogniser() -> None:
    session = configured(replace(WIRE, model="gpt-realtime"))
    assert session["input_audio_transcription"] == {"model": "gpt-4o-transcribe", "language": "pt"}


@pytest.mark.parametrize("name", [*BRAZILIAN, *map(str.lower, BRAZILIAN)])
def test_brazilian_voices_go_by_their_first_names(name: str) -> None:
    assert configured(replace(WIRE, voice=name))["voice"]["name"] == f"pt-BR-{name.capitalize()}Neural"


def test_a_voice_that_there_is_not_is_told_apart() -> None:
    pair = VoiceLivePair(dialect=replace(WIRE, voice="pt-BR-NinguemNeural"))
    with pytest.raises(SessionOver, match="the voice is not known there") as caught:
        pair.settle()
    assert caught.value.code == "unsupported_voice"


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_asked_for_and_spoken_both_ways(name: FormatName) -> None:
    form = FORMATS[name]
    pair = VoiceLivePair(Reply((Say(200),)), dialect=replace(WIRE, audio=form))
    pair.conversation.speak_about("Alguém chegou.")
    pair.settle()
    can = pair.conversation.capabilities
    assert (can.input_rate, can.output_rate) == (form.rate, form.rate)
    assert can.input_encoding == can.output_encoding == form.encoding
    assert sum(len(e.pcm) for e in pair.of(AudioDelta)) == 200 * form.pcm_bytes_per_ms
    assert pair.model.format("input") is form and pair.model.violations == []


@pytest.mark.parametrize(
    ("formats", "words"),
    [
        ({"input": None}, "did not confirm the input"),
        ({"output": None}, "did not confirm the output"),
        ({"output": {"output_audio_format": "opus"}}, "found opus; allowed are pcm16_8000hz"),
        ({"input": {"input_audio_format": "pcm16", "input_audio_sampling_rate": 44100}}, "44100 Hz; allowed"),
    ],
)
def test_a_format_that_was_not_confirmed_ends_the_session(formats: Any, words: str) -> None:
    model = VoiceLiveModel()
    model.receive(WIRE.session_update(CONFIG))
    session = dict(model.session)
    for side, confirmed in formats.items():
        del session[f"{side}_audio_format"]
        session |= confirmed or {}
    pair = VoiceLivePair()
    with pytest.raises(SessionOver, match=words) as caught:
        pair.conversation.receive({"type": "session.updated", "session": session})
    assert caught.value.code == "unsupported_format"


def test_what_is_confirmed_counts_and_not_what_was_asked_for() -> None:
    pair = VoiceLivePair(
        Reply((Say(100),)),
        faults=Faults(formats={"output": {"output_audio_format": "pcm16"}}),
    )
    pair.conversation.speak_about("Alguém chegou.")
    pair.settle()
    assert pair.conversation.capabilities.output_rate == 24000
    assert sum(len(e.pcm) for e in pair.of(AudioDelta)) == 100 * 48


def test_speech_is_read_the_short_way() -> None:
    frame = b'{"type":"response.audio.delta","response_id":"r","item_id":"i","delta":"AQI="}'
    delta = WIRE.decode_delta(frame)
    assert delta is not None and (delta.item_id, delta.delta) == ("i", b"\x01\x02")
    assert WIRE.decode_delta(frame.replace(b"response.audio", b"response.output_audio")) is None


# -- exact sentences -----------------------------------------------------------------------------------------


def test_an_exact_sentence_is_read_out_as_it_stands() -> None:
    pair = VoiceLivePair()
    receipt = pair.conversation.say_exactly("Boa noite, «Jardim» das Acácias.")
    pair.settle()
    assert pair.conversation.capabilities.exact_speech
    assert isinstance(pair.model, VoiceLiveModel)
    assert pair.model.spoken == ["Boa noite, «Jardim» das Acácias."]
    assert [e.receipt for e in pair.of(ItemStarted)] == [receipt]
    said = [e.text for e in pair.of(Transcript) if e.final]
    assert said == ["Boa noite, «Jardim» das Acácias."]
    assert pair.model.violations == []


def test_the_models_own_voice_is_asked_and_not_relied_on() -> None:
    pair = VoiceLivePair(dialect=replace(WIRE, model="gpt-realtime", voice="marin"))
    pair.conversation.say_exactly("Boa noite.")
    pair.settle()
    assert not pair.conversation.capabilities.exact_speech
    (create,) = pair.model.creates
    assert "«Boa noite.»" in create["response"]["instructions"]
    assert "pre_generated_assistant_message" not in create["response"]
    assert pair.model.session["voice"] == {"type": "openai", "name": "marin"}


async def test_what_a_session_can_do_goes_by_its_own_voice() -> None:
    provider = VoiceLiveProvider(VoiceLiveSettings(replace(ACCESS, base_url="http://127.0.0.1:1")))
    session = provider.open(replace(CONFIG, voice="marin"))
    assert not session.capabilities.exact_speech
    await session.close()


# -- turns and faults ----------------------------------------------------------------------------------------


def test_a_barge_in_cancels_once_and_cuts_the_memory() -> None:
    pair = VoiceLivePair(Reply((Say(400), Say(400))), faults=Faults(late_deltas=2))
    pair.conversation.speak_about("Comece.")
    pair.until(lambda: sum(len(e.pcm) for e in pair.of(AudioDelta)) >= 450 * 16)
    item = pair.model.caller_starts()
    pair.exchange()
    pair.conversation.interrupt(Heard("say_1", 123, ("say_2",)))
    pair.model.caller_ends(item)
    before = len(pair.of(AudioDelta))
    pair.exchange()
    assert len(pair.of(AudioDelta)) == before
    assert [m["type"] for m in pair.model.received].count("response.cancel") == 1
    assert (pair.model.truncated, pair.model.deleted) == ({"say_1": 123}, ["say_2"])
    pair.settle()
    assert pair.model.violations == []


def test_a_reply_that_the_server_cut_off_by_itself_is_over_and_is_not_cancelled_again() -> None:
    pair = VoiceLivePair(Reply((Say(400),)))
    receipt = pair.conversation.speak_about("Comece.")
    pair.until(lambda: bool(pair.of(AudioDelta)))
    item = pair.model.phantom()
    pair.exchange()
    assert [(e.receipt, e.status) for e in pair.of(ResponseDone)] == [(receipt, "cancelled")]
    pair.conversation.interrupt(Heard("say_1", 20))
    pair.exchange()
    assert "response.cancel" not in [m["type"] for m in pair.model.received]
    pair.model.caller_ends(item, "")
    pair.settle()
    assert len(pair.model.creates) == 2 and pair.model.violations == []


def test_an_interim_text_comes_between_and_nothing_is_mixed_up() -> None:
    """However the server brings it: as a response of its own, or as an item before the reply's."""
    pair = VoiceLivePair(Reply((Call(call_id="a"),)), Reply((Say(80, "Um instante."),)), Reply((Say(200),)))
    pair.conversation.speak_about("Comece.")
    pair.settle()
    pair.model.start(None)
    pair.exchange()
    (call,) = pair.of(ToolCall)
    pair.conversation.answer(call, {"ok": True})
    pair.settle()
    assert [e.receipt for e in pair.of(ItemStarted)] == [None, None]
    assert [e.status for e in pair.of(ResponseDone)] == ["completed"] * 3
    assert not pair.conversation.busy and list(pair.model.answers) == ["a"]
    assert pair.model.violations == []


def test_a_warning_is_told_and_changes_nothing() -> None:
    pair = VoiceLivePair()
    pair.settle()
    assert isinstance(pair.model, VoiceLiveModel)
    pair.model.warn("reasoning_effort is not supported")
    pair.settle()
    assert pair.of(Failed) == [Failed("benign", "unsupported", "reasoning_effort is not supported")]


@given(
    st.lists(replies, max_size=5),
    st.integers(0, 2),
    st.integers(0, 2),
    st.lists(steps, max_size=60),
    st.randoms(use_true_random=False),
)
@settings(max_examples=150, deadline=None)
def test_conversations_with_faults(
    script: list[Reply], late: int, busy: int, walk: list[str], chance: Any
) -> None:
    """The property of OpenAI's conversation, in VoiceLive's words and with its exact sentences."""
    go(
        VoiceLivePair(*script, faults=Faults(late_deltas=late, busy_creates=busy)),
        walk,
        chance,
        busy=bool(busy),
    )


# -- over the socket -----------------------------------------------------------------------------------------


@asynccontextmanager
async def talking(
    server: VoiceLiveSimulator, access: Access = ACCESS, **deadlines: float
) -> AsyncIterator[Talk[Session]]:
    """A session with a server; closed at the end, and the server saw it go."""
    access = replace(access, base_url=access.base_url or server.resource)
    provider = VoiceLiveProvider(VoiceLiveSettings(access, **deadlines))
    talk: Talk[Session] = Talk(provider.open(CONFIG))
    try:
        yield talk
    finally:
        await talk.session.close()
        await talk.end()
        await server.until(lambda: not server.open_connections)


async def test_a_whole_exchange_at_eight_kilohertz() -> None:
    script = (Reply((Say(100, "Vou ver."), Call(call_id="a"), Call(call_id="b"))), Reply((Say(300),)))
    async with VoiceLiveSimulator(*script) as server, talking(server) as talk:
        ready = await talk.a(Ready)
        assert ready.capabilities.input_rate == ready.capabilities.output_rate == 8000
        (request,) = server.requests
        assert request.path == f"/voice-live/realtime?api-version={API_VERSION}&model=gpt-5-mini"
        assert request.headers["api-key"] == "azure-key" and "authorization" not in request.headers
        greeting = talk.session.say_exactly("Boa tarde!")
        await talk.a(ResponseDone, receipt=greeting)
        for at in range(0, len(TALK) // 640 * 640, 640):
            talk.session.send_audio(TALK[at : at + 640])
        await server.until(lambda: len(server.model.caller) >= len(TALK) // 640 * 640)
        assert server.model.caller == TALK[: len(TALK) // 640 * 640], "to the bit: nothing was resampled"
        server.model.caller_ends(server.model.caller_starts(), "Apartamento 501.")
        server.kick()
        for name in ("a", "b"):
            talk.session.answer(await talk.a(ToolCall, id=name), {"apartment": name})
        await talk.until(lambda events: sum(isinstance(e, ResponseDone) for e in events) == 3)
        assert server.voicelive.spoken == ["Boa tarde!"]
        assert set(server.model.answers) == {"a", "b"}
        assert server.model.violations == []
        assert not talk.session.busy


async def test_a_token_is_as_good_as_a_key(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("entra.token\n")
    access = Access(token_file=tmp_path / "token", model="gpt-realtime")
    async with VoiceLiveSimulator() as server:
        server.tokens = {"entra.token"}
        async with talking(server, access) as talk:
            await talk.a(Ready)
        assert server.requests[0].headers["authorization"] == "Bearer entra.token"


@pytest.mark.parametrize(
    ("access", "code", "words"),
    [
        (replace(ACCESS, api_key="another"), "key_refused", "the key was refused (HTTP 401)"),
        (replace(ACCESS, model="another"), "unknown_model", "the model is not known there (HTTP 404)"),
        (replace(ACCESS, voice="another"), "unsupported_voice", "the voice is not known there"),
        (replace(ACCESS, base_url="http://127.0.0.1:1"), "unreachable", "could not be reached"),
        (Access(token_file=Path("/nowhere/token"), model="m"), "no_token", "/nowhere/token: No such file"),
    ],
)
async def test_what_is_wrong_is_told_apart(access: Access, code: str, words: str) -> None:
    async with VoiceLiveSimulator() as server, talking(server, access) as talk:
        (failed,) = failures(await talk.end())
        assert failed.code == code and words in failed.message and "azure-key" not in failed.message


@pytest.mark.parametrize(
    ("faults", "code"),
    [
        (Faults(refuse=(429, b"")), "rate_limit"),
        (Faults(refuse=(429, b'{"error":{"code":"insufficient_quota"}}')), "quota"),
        (Faults(refuse=(302, b"")), "refused"),
        (Faults(refuse=(503, b"")), "unavailable"),
        (Faults(never_configure=True), "timeout"),
        (Faults(accept_delay_s=30), "timeout"),
    ],
)
async def test_a_server_that_does_not_take_us_is_one_failure(faults: Faults, code: str) -> None:
    async with (
        VoiceLiveSimulator(faults=faults) as server,
        talking(server, connect_timeout_s=0.5) as talk,
    ):
        (failed,) = await talk.end()
        assert isinstance(failed, Failed) and (failed.kind, failed.code) == ("session", code)
        faults.accept_delay_s = 0


@pytest.mark.parametrize(
    ("cut", "code"),
    [
        ("close", "went_away"),
        ("abort", "went_away"),
        ("half", "protocol_error"),
        ("garbage", "protocol_error"),
    ],
)
async def test_a_server_that_dies_mid_word_is_one_failure(cut: Any, code: str) -> None:
    faults = Faults(cut_after=8, cut=cut)
    async with VoiceLiveSimulator(Reply((Say(5000),)), faults=faults) as server, talking(server) as talk:
        talk.session.speak_about("Fale bastante.")
        assert [e.code for e in failures(await talk.end())] == [code]


async def test_the_sdk_talks_with_the_simulator() -> None:
    """The simulator is only worth something if the vendor's own client takes it for the vendor."""
    script = (Reply((Say(100, "Olá!"), Call(call_id="a"))), Reply((Say(60, "Pronto."),)))
    async with (
        VoiceLiveSimulator(*script) as server,
        connect(
            credential=AzureKeyCredential("azure-key"), endpoint=server.resource, model="gpt-5-mini"
        ) as connection,
    ):
        await connection.session.update(
            session=sdk.RequestSession(
                voice=sdk.AzureStandardVoice(name="pt-BR-FabioNeural"),
                output_audio_format=sdk.OutputAudioFormat.PCM16_8000_HZ,
                turn_detection=sdk.AzureSemanticVadMultilingual(languages=["pt-BR"]),
                input_audio_noise_reduction=sdk.AudioNoiseReduction(type="azure_deep_noise_suppression"),
                input_audio_echo_cancellation=sdk.AudioEchoCancellation(),
            )
        )
        await connection.input_audio_buffer.append(audio=base64.b64encode(bytes(960)).decode())
        await connection.response.create()
        seen: list[Any] = []

        async def until_done() -> None:
            async for event in connection:
                seen.append(event)
                if isinstance(event, sdk.ServerEventResponseDone):
                    return

        await until_done()
        await connection.conversation.item.create(
            item=sdk.FunctionCallOutputItem(call_id="a", output='{"ok":true}')
        )
        text = sdk.OutputTextContentPart(text="Boa tarde.")
        await connection.response.create(
            response=sdk.ResponseCreateParams(
                pre_generated_assistant_message=sdk.AssistantMessageItem(content=[text]),
                metadata={"create": "create_1"},
            )
        )
        await until_done()
        kinds = {type(event) for event in seen}
        assert {sdk.ServerEventSessionUpdated, sdk.ServerEventResponseOutputItemDone} <= kinds
        pcm = b"".join(e.delta for e in seen if isinstance(e, sdk.ServerEventResponseAudioDelta))
        assert set(np.frombuffer(pcm, "<i2")) == {16}
        assert server.voicelive.spoken == ["Boa tarde."]
        assert server.model.violations == []


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ({"type": "session.update", "session": {"model": "gpt-5-mini"}}, "the model belongs to the address"),
        ({"type": "session.update", "session": {"type": "realtime"}}, "unknown parameter"),
        ({"type": "session.update", "session": {"output_audio_format": "pcm24"}}, "'pcm24' is none of"),
        ({"type": "session.update", "session": {"turn_detection": {"type": "semantic_vad"}}}, "unknown type"),
        ({"type": "session.update", "session": {"temperature": "1"}}, "is no float"),
        (
            {
                "type": "session.update",
                "session": {"input_audio_format": "g711_ulaw", "input_audio_sampling_rate": 16000},
            },
            "G.711 has 8000 Hz",
        ),
        ({"type": "session.update"}, "missing parameter session.update.session"),
        ({"type": "input_audio_buffer.append", "audio": "AA=="}, "no whole samples"),
        ({"type": "response.create", "response": {"output_modalities": ["audio"]}}, "unknown parameter"),
        (
            {"type": "conversation.item.truncate", "item_id": "x", "content_index": 0, "audio_end_ms": 5},
            "x can't be truncated",
        ),
        (
            {"type": "conversation.item.create", "item": {"type": "message", "role": "robot", "content": []}},
            "unknown type",
        ),
        ({"type": "session.start"}, "unknown type"),
    ],
)
def test_the_simulator_refuses_what_the_vendor_would(message: Any, why: str) -> None:
    model = VoiceLiveModel()
    model.receive(message)
    assert why in "".join(model.violations)
    assert model.out[-1]["type"] == "error"


def test_the_registry_knows_it_and_says_what_it_lacks() -> None:
    access = replace(ACCESS, base_url="https://jardim.services.ai.azure.com/")
    assert registry.create("azure-voicelive", access).name == "azure-voicelive"
    url = VoiceLiveSettings(access).url
    assert url.startswith("wss://jardim.services.ai.azure.com/voice-live/realtime?api-version=")
    with pytest.raises(ValueError, match="'azure-voicelive': model is empty"):
        registry.create("azure-voicelive", replace(access, model=""))
