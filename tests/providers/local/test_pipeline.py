"""A pipeline of parts through adapter and model server, on recorded speech: a turn, a call, a barge-in."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr
import structlog

from audio.g711 import ulaw_decode
from audio.vad import VadModel
from providers import registry
from providers.access import Access
from providers.base import (
    AudioDelta,
    AudioDone,
    Event,
    Failed,
    Heard,
    ItemStarted,
    Ready,
    ResponseDone,
    Session,
    SessionConfig,
    Tokens,
    ToolCall,
    ToolSpec,
    Transcript,
    Usage,
)
from providers.local.deepgram import Deepgram, DeepgramSettings
from providers.local.listening import WholeTurns
from providers.local.pipeline import (
    PREFIX,
    DialogueSpec,
    PipelineSpec,
    RecognitionSpec,
    SpeechSpec,
    make_parts,
)
from providers.local.recognition import Recogniser
from providers.local.server import ModelServer, ServerSettings
from providers.local.speech import EspeakVoice, Speaker, render
from tests.providers.local.conftest import Recording
from tests.simulators import chat_speech, deepgram
from tests.simulators.chat_speech import Call, Reply

GREETING = "Boa tarde! Condomínio Jardim, com quem deseja falar?"
TOOLS = [ToolSpec("lookup_apartment", "Procura.", {"type": "object", "properties": {}})]
CHAT_MODEL = "llama-3.3-70b-versatile"


class Caller:
    """A session and what came of it."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.events: list[Event] = []
        self._news = asyncio.Event()

    def take(self, event: Event) -> None:
        self.events.append(event)
        self._news.set()

    async def until(self, kind: type[Event], times: int = 1) -> Any:
        """The so manieth event of this kind."""
        while len(found := [e for e in self.events if isinstance(e, kind)]) < times:
            self._news.clear()
            await self._news.wait()
            if kind is not Failed:
                assert not isinstance(self.events[-1], Failed), self.events[-1]
        return found[times - 1]

    async def say(self, sound: Recording) -> None:
        """A recording and a second of silence, four times as fast as a line brings them."""
        rate = self.session.capabilities.input_rate
        wide = soxr.resample(sound.astype(np.float32), 8000, rate).clip(-32768, 32767).astype("<i2")
        line = wide.tobytes() + bytes(rate * 2)
        frame = rate // 50 * 2
        for at in range(0, len(line), frame):
            self.session.send_audio(line[at : at + frame])
            await asyncio.sleep(0.005)

    def said(self, role: str) -> list[str]:
        return [e.text for e in self.events if isinstance(e, Transcript) and e.role == role and e.final]


class House:
    """The services behind a pipeline, and its parts in this process."""

    def __init__(self, vad: VadModel, speaker: Speaker, whisper: Recogniser | None) -> None:
        self.chat, self.deepgram = chat_speech.Simulator(), deepgram.Simulator()
        self._vad, self._speaker, self._whisper = vad, speaker, whisper

    def spec(self, **kinds: Any) -> PipelineSpec:
        """By the parts' kinds; of each the simulator's."""
        recognition = RecognitionSpec(
            kind=kinds.get("recognition", "deepgram"), base_url=self.deepgram.url, api_key=deepgram.KEY
        )
        key = kinds.get("chat_key", chat_speech.KEY)
        dialogue = DialogueSpec("chat", self.chat.url, CHAT_MODEL, key)
        speech = {
            "espeak": SpeechSpec(),
            "openai": SpeechSpec(
                "openai", self.chat.url, "gpt-4o-mini-tts", "coral", api_key=chat_speech.KEY
            ),
            "deepgram": SpeechSpec(
                "deepgram", self.deepgram.url, voice="aura-2-celeste-es", api_key=deepgram.KEY
            ),
        }
        return PipelineSpec(recognition, dialogue, speech[kinds.get("speech", "openai")])

    @asynccontextmanager
    async def caller(self, **kinds: Any) -> AsyncIterator[Caller]:
        """Somebody on the line."""

        def whisper() -> WholeTurns:
            assert self._whisper is not None
            return WholeTurns(self._whisper)

        def voice(piper: Path | None) -> Speaker:
            assert piper is None
            return self._speaker

        async with self.chat, self.deepgram, asyncio.timeout(60):
            parts = make_parts(self.spec(**kinds), self._vad, whisper, voice)
            server = ModelServer(None, ServerSettings(token="segredo"), {"jardim": parts})
            async with server.listening() as url:
                access = Access("segredo", base_url=url.replace("ws://", "http://"), model=f"{PREFIX}jardim")
                session = registry.create("pipeline", access).open(
                    SessionConfig("Você é o porteiro.", tools=TOOLS, transcription_prompt="Renata Oliveira")
                )
                caller = Caller(session)
                taking = asyncio.create_task(session.run(caller.take))
                try:
                    yield caller
                finally:
                    await session.close()
                    await taking


@pytest.fixture
def house(vad: VadModel, speaker: Speaker) -> House:
    return House(vad, speaker, None)


async def think(messages: Sequence[chat_speech.Message], tools: Sequence[str]) -> Reply:
    """A doorman of few words."""
    last = messages[-1]
    if last["role"] == "tool":
        return Reply(f"Encontrei. {last['content']}")
    if "501" in last["content"] or "quinhentos" in last["content"]:
        return Reply("Um momento, por favor. Vou verificar agora.", (Call(),))
    return Reply(f"Ouvi: {last['content']}")


def spoken(text: str) -> bytes:
    return render(EspeakVoice(), text, 1.0)


@pytest.mark.parametrize(
    ("recognition", "speech"), [("whisper", "espeak"), ("deepgram", "deepgram"), ("deepgram", "openai")]
)
async def test_a_recorded_turn_is_understood_looked_up_and_answered(
    recognition: str,
    speech: str,
    vad: VadModel,
    speaker: Speaker,
    recogniser: Recogniser,
    recording: Callable[[str], Recording],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Behind Deepgram's simulator stands whisper, and espeak-ng behind both of the voices."""

    def patient(spec: RecognitionSpec) -> Deepgram:
        # Whisper on a busy machine is slower than Deepgram.
        return Deepgram(DeepgramSettings(spec.base_url, spec.api_key, words_s=30.0))

    monkeypatch.setattr("providers.local.pipeline.deepgram", patient)
    house = House(vad, speaker, recogniser)
    house.chat.think, house.chat.voice, house.deepgram.voice = think, spoken, spoken

    async def hear(sound: bytes, encoding: str, rate: int) -> str:
        pcm = sound if encoding == "linear16" else ulaw_decode(sound)
        return (await recogniser.recognise(pcm, rate, "pt", "Renata Oliveira")).text

    house.deepgram.hear = hear
    with structlog.testing.capture_logs() as logs:
        async with house.caller(recognition=recognition, speech=speech) as caller:
            caller.session.say_exactly(GREETING)
            await caller.until(ResponseDone)
            await caller.say(recording("v02-leticia"))
            call: ToolCall = await caller.until(ToolCall)
            assert (call.name, call.arguments) == ("lookup_apartment", '{"apartment": "501"}')
            await caller.until(ResponseDone, 2)
            caller.session.answer(call, {"found": True})
            done: ResponseDone = await caller.until(ResponseDone, 3)
    assert "Renata Oliveira" in caller.said("caller")[0]
    assert caller.said("agent") == [
        GREETING,
        "Um momento, por favor. Vou verificar agora.",
        'Encontrei. {"found":true}',
    ]
    bills = [e for e in caller.events if isinstance(e, Usage)]
    assert all(bill.complete for bill in bills)
    replies = [bill for bill in bills if bill.purpose == "reply"]
    assert [(one.provider, one.model) for one in replies] == [("127.0.0.1", CHAT_MODEL)] * 2
    assert replies[0].tokens == Tokens(text_in=388, text_cached=512, text_out=20)
    heard = sum(bill.seconds for bill in bills if bill.purpose == "transcription")
    assert heard == pytest.approx(house.deepgram.seconds, abs=0.1), "whisper costs nothing"
    spoken_for = sum(bill.characters for bill in bills if bill.purpose == "speech")
    assert spoken_for == sum(map(len, [*house.chat.said, *house.deepgram.said]))
    assert done.usage["input_tokens"] == 900 and done.usage["input_token_details"]["cached_tokens"] == 512
    for item in [e.item for e in caller.events if isinstance(e, ItemStarted)]:
        pcm = b"".join(e.pcm for e in caller.events if isinstance(e, AudioDelta) and e.item == item)
        assert len(pcm) > 24000 and np.abs(np.frombuffer(pcm, "<i2").astype(np.int32)).max() > 1000
        assert AudioDone(item) in caller.events
    assert house.chat.violations == house.deepgram.violations == []
    assert [m["role"] for m in house.chat.requests[-1]["messages"]] == [
        "system",
        "assistant",
        "user",
        "assistant",
        "tool",
    ]
    line = next(one for one in logs if one["event"] == "response done" and "words_ms" in one)
    assert 0 <= line["words_ms"] <= line["first_token_ms"] <= line["first_sentence_ms"]
    assert line["first_sentence_ms"] <= line["first_audio_ms"] < 15_000


async def test_a_barge_in_reaches_every_stage_and_the_model_remembers_what_was_heard(
    house: House, recording: Callable[[str], Recording]
) -> None:
    house.deepgram.transcripts = deque(["Quem é?", "Pode liberar."])
    house.chat.faults.pace_s = 0.01
    story = "Um momento. " + "Esta frase é longa, e a caixa de correio fica à direita da porta. " * 20
    house.chat.replies.append(Reply(story))
    async with house.caller() as caller:
        await caller.until(Ready)
        await caller.say(recording("r01-leticia"))
        item: ItemStarted = await caller.until(ItemStarted)
        await caller.until(AudioDelta, 5)
        assert house.chat.running, "the rest is still being written"
        caller.session.interrupt(Heard(item.item, 400))
        done: ResponseDone = await caller.until(ResponseDone)
        assert done.status == "cancelled"
        async with asyncio.timeout(2):
            while house.chat.hung_up == 0 or house.chat.running:
                await asyncio.sleep(0.01)
        said = len(house.chat.said)
        await caller.say(recording("r01-leticia"))
        await caller.until(ResponseDone, 2)
        assert len(house.chat.said) == said + 1, "nothing of the old reply is spoken any more"
    (remembered,) = [m for m in house.chat.requests[-1]["messages"] if m["role"] == "assistant"]
    assert story.startswith(remembered["content"]) and len(remembered["content"]) <= len("Um momento.")


async def test_parallel_calls_are_answered_together(
    house: House, recording: Callable[[str], Recording]
) -> None:
    house.deepgram.transcripts.append("501 ou 502.")
    house.chat.replies.append(Reply("", (Call(), Call(arguments='{"apartment": "502"}'))))
    async with house.caller() as caller:
        await caller.say(recording("r01-leticia"))
        await caller.until(ResponseDone)
        first, second = [e for e in caller.events if isinstance(e, ToolCall)]
        caller.session.answer(second, {"found": False})
        caller.session.answer(first, {"found": True})
        await caller.until(ResponseDone, 2)
    messages = house.chat.requests[-1]["messages"]
    assert [m["content"] for m in messages if m["role"] == "tool"] == ['{"found":true}', '{"found":false}']
    assert caller.said("agent") == ["Pois não?"] and house.chat.violations == []


async def test_a_tool_that_nobody_knows_is_the_bridges_to_refuse(
    house: House, recording: Callable[[str], Recording]
) -> None:
    house.deepgram.transcripts.append("Oi.")
    house.chat.replies.append(Reply("", (Call("open_gate", "{not json"),)))
    async with house.caller() as caller:
        await caller.say(recording("r01-leticia"))
        call: ToolCall = await caller.until(ToolCall)
        assert (call.name, call.arguments) == ("open_gate", "{not json")
        await caller.until(ResponseDone)
        caller.session.answer(call, {"error": "unknown tool"})
        await caller.until(ResponseDone, 2)
    assert house.chat.violations == []


@pytest.mark.parametrize(
    ("spoil", "code", "words"),
    [
        (lambda house: {"chat_key": "x"}, "key_refused", "language model (127.0.0.1:"),
        (lambda house: house.chat.faults.__setattr__("refuse", (503, b"")), "unavailable", "out of order"),
        (lambda house: house.chat.faults.__setattr__("after", 5), "timeout", "no word for 5 s"),
        (lambda house: house.deepgram.faults.__setattr__("refuse", (401, b"")), "key_refused", "recognition"),
        (
            lambda house: house.chat.faults.__setattr__("speech_format", "audio/mpeg"),
            "unsupported_format",
            "speech (127.0.0.1:",
        ),
    ],
)
async def test_a_stage_that_fails_is_the_sessions_end_in_plain_words(
    spoil: Callable[[House], dict[str, Any] | None],
    code: str,
    words: str,
    house: House,
    recording: Callable[[str], Recording],
) -> None:
    house.deepgram.transcripts.append("Oi.")
    async with house.caller(**(spoil(house) or {})) as caller:
        saying = asyncio.create_task(caller.say(recording("r01-leticia")))
        failed: Failed = await caller.until(Failed)
        await saying
    assert (failed.kind, failed.code) == ("session", code)
    assert words in failed.message


async def test_a_pipeline_that_is_not_there_is_an_unknown_model(vad: VadModel) -> None:
    async with ModelServer(None, ServerSettings(), {}).listening() as url:
        for model in (f"{PREFIX}bosque", "porteiro"):
            access = Access("x", base_url=url.replace("ws://", "http://"), model=model)
            session = registry.create("pipeline", access).open(SessionConfig("", tools=[]))
            caller = Caller(session)
            taking = asyncio.create_task(session.run(caller.take))
            async with asyncio.timeout(5):
                failed: Failed = await caller.until(Failed)
            await session.close()
            await taking
            assert failed.code == "unknown_model"
