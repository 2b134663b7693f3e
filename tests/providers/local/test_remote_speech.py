"""Speech by a service: streamed, kept, broken off where nobody listens, and its faults in plain words."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from providers.base import Usage
from providers.local.remote_speech import DeepgramSpeech, OpenAISpeech, RemoteSpeaker
from providers.local.speech import Sound
from providers.local.stage import StageError
from tests.simulators import chat_speech, deepgram
from tests.simulators.chat_speech import Faults, tone

SENTENCE = "Um momento, por favor, vou **verificar**."
SPOKEN = "Um momento, por favor, vou verificar."


def openai(url: str, **changes: Any) -> OpenAISpeech:
    settings = {"base_url": url, "model": "gpt-4o-mini-tts", "voice": "coral", "api_key": chat_speech.KEY}
    return OpenAISpeech(**{**settings, **changes})


async def said(
    speaker: RemoteSpeaker, sentence: str = SENTENCE, speed: float = 1.0, bills: list[Usage] | None = None
) -> list[Sound]:
    bill = ([] if bills is None else bills).append
    async with aclosing(speaker.stream(sentence, speed, bill)) as pieces:
        return [piece async for piece in pieces]


def whole(sounds: list[Sound]) -> bytes:
    return b"".join(one.pcm for one in sounds)


async def test_a_sentence_comes_in_pieces_of_whole_samples_and_is_paid_once() -> None:
    async with chat_speech.Simulator() as server:
        speaker = RemoteSpeaker(openai(server.url))
        bills: list[Usage] = []
        first, second = await said(speaker, bills=bills), await said(speaker, bills=bills)
        assert bills == [Usage("127.0.0.1", "gpt-4o-mini-tts", "speech", characters=len(SPOKEN))]
        await said(speaker, speed=1.2)
        assert await said(speaker, " — ") == [Sound(b"", last=True)], "nobody says a dash"
        await speaker.close()
        assert len(first) > 3 and not any(len(one.pcm) % 2 for one in first)
        assert [one.last for one in first] == [False] * (len(first) - 1) + [True]
        assert whole(first) == whole(second) == tone(server.said[0])
        assert server.said[0] == SPOKEN and len(server.said) == 2, "the second time nobody is asked"
        assert server.violations == []


async def test_deepgram_speaks_too() -> None:
    async with deepgram.Simulator() as server:
        speaker = RemoteSpeaker(DeepgramSpeech(server.url, "aura-2-celeste-es", deepgram.KEY))
        await speaker.check()
        assert whole(await said(speaker)) == tone(SPOKEN)
        assert whole(await said(speaker, "Sim.", 1.1)) == tone("Sim.")
        await speaker.close()
        assert server.violations == []


@pytest.mark.parametrize("service", ["openai", "deepgram"])
async def test_who_stops_listening_hangs_up(service: str) -> None:
    async with chat_speech.Simulator(faults=Faults(after=1)) as chat, deepgram.Simulator() as dg:
        dg.faults.speak_stall = True
        speaker = RemoteSpeaker(
            openai(chat.url)
            if service == "openai"
            else DeepgramSpeech(dg.url, "aura-2-celeste-es", deepgram.KEY)
        )
        async with aclosing(speaker.stream(SENTENCE, 1.0, lambda _: None)) as pieces:
            async for piece in pieces:
                assert piece.pcm
                break
        async with asyncio.timeout(2):
            while chat.hung_up + dg.hung_up == 0:
                await asyncio.sleep(0.01)
        assert speaker.cache.counts.bytes == 0, "half a sentence is not kept"
        await speaker.close()


@pytest.mark.parametrize(
    ("faults", "changes", "code", "words"),
    [
        (Faults(), {"api_key": "x"}, "key_refused", "the key was refused"),
        (Faults(), {"model": "tts-9"}, "unknown_model", "the model is not known there"),
        (Faults(), {"voice": "ze"}, "unsupported_voice", "the voice is not known there"),
        (Faults(refuse=(429, b"{}")), {}, "rate_limit", "too many requests"),
        (Faults(refuse=(402, b"{}")), {}, "quota", "credit is used up"),
        (Faults(delay_s=2), {}, "timeout", "no sound for 0.6 s"),
        (Faults(after=1, then="stall"), {}, "timeout", "no sound for 0.4 s"),
        (Faults(after=1, then="cut"), {}, "went_away", "the connection broke"),
        (Faults(after=0, then="end"), {}, "protocol_error", "sent no sound"),
        (Faults(speech_format="audio/mpeg"), {}, "unsupported_format", "sent audio/mpeg"),
        (Faults(speech_header=b"RIFF...."), {}, "unsupported_format", "another format"),
        (Faults(), {"base_url": "http://127.0.0.1:1/v1"}, "unreachable", "could not be reached"),
    ],
)
async def test_a_fault_is_told_in_plain_words(
    faults: Faults, changes: dict[str, Any], code: str, words: str
) -> None:
    async with chat_speech.Simulator(faults=faults) as server:
        speaker = RemoteSpeaker(openai(server.url, **changes), first_s=0.6, next_s=0.4)
        with pytest.raises(StageError) as failed:
            await said(speaker)
        await speaker.close()
    assert failed.value.code == code
    assert str(failed.value).startswith("speech (127.0.0.1:") and words in str(failed.value)
    assert chat_speech.KEY not in str(failed.value)


async def test_a_fault_that_passes_is_asked_over_once() -> None:
    async with chat_speech.Simulator(faults=Faults(refuse=(500, b""), times=1)) as server:
        speaker = RemoteSpeaker(openai(server.url))
        assert whole(await said(speaker)) == tone(SPOKEN)
        await speaker.close()


async def test_speech_without_an_end_is_no_speech() -> None:
    async with chat_speech.Simulator(voice=lambda _: bytes(2 * 24000 * 61)) as server:
        speaker = RemoteSpeaker(openai(server.url))
        with pytest.raises(StageError, match="more than 60 s"):
            await said(speaker)
        await speaker.close()
