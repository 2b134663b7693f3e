"""What a leg says was said, and heard, where its provider repeats itself or is replaced in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest

from audio.hearing import Ears
from audio.vad import VadModel
from bridge.clock import Clock
from bridge.costs.account import Account, Currency
from bridge.costs.prices import known_prices
from bridge.endpoints.base import Endpoint
from bridge.leg import Leg, SessionBroke, SessionReplaced
from bridge.runner import silero_onnx
from bridge.softphone import load_wav
from providers.base import (
    AudioDelta,
    AudioDone,
    Capabilities,
    Event,
    Failed,
    ItemStarted,
    Lost,
    Ready,
    Replaced,
    ResponseDone,
    Session,
    SpeechStarted,
    SpeechStopped,
    Transcript,
    TranscriptFailed,
)
from visits.events import Role, Said, SentencePlayed, SessionLost

SPEECH = load_wav(Path(__file__).parents[2] / "data" / "audio" / "v05-leticia.wav")
SILENCE = bytes(16000)
BRIEFING = "A Letícia está na portaria, para o apartamento 501. Autoriza a entrada?"
CAREFREE = Capabilities(
    input_rate=8000, output_rate=8000, truncation=False, exact_speech=False, owns_turns=False
)
TO_THE_LETTER = replace(CAREFREE, exact_speech=True)

SAID = "Incorrect API key provided: sk-proj-abcdef1234567890"


@dataclass
class Speaker:
    """A session that says nothing by itself, and an endpoint that nobody listens to."""

    capabilities: Capabilities
    busy: bool = False
    audio: list[bytes] = field(default_factory=list)

    def send_audio(self, pcm: bytes) -> None:
        self.audio.append(pcm)

    def say_exactly(self, text: str) -> str:
        return "receipt"

    def play(self, pcm: bytes) -> None:
        """A frame."""


class Call:
    """A resident's leg, and what it posted."""

    def __init__(self, capabilities: Capabilities) -> None:
        self.ears = Ears(VadModel(silero_onnx()))
        self.session = Speaker(capabilities)
        self.posted: list[Any] = []
        self.leg = Leg(
            role=Role.RESIDENT,
            name="resident-1",
            attempt=uuid4(),
            endpoint=cast(Endpoint, self.session),
            clock=Clock(),
            visit_started=asyncio.get_running_loop().time(),
            ear=self.ears.ear(),
            tape=None,
            account=Account(known_prices(), Currency(), "local"),
            message_ms=20,
            silence_s=10,
            post=lambda _, what: self.posted.append(what),
        )
        self.leg.join(cast(Session, self.session))

    def happens(self, *events: Event) -> None:
        for event in events:
            self.leg._on(event)

    def hears(self, pcm: bytes) -> None:
        for at in range(0, len(pcm), 320):
            self.leg.audio_in(pcm[at : at + 320], 8000)
            self.ears.run()
            self.leg.tick(0)

    @property
    def said(self) -> list[Said]:
        return [one for one in self.posted if isinstance(one, Said)]

    def played(self) -> bool:
        (one,) = (one for one in self.posted if isinstance(one, SentencePlayed))
        return one.complete


@pytest.mark.parametrize(
    "first", [Transcript("caller", "turn", "pode", final=True), TranscriptFailed("turn", "no words")]
)
async def test_words_that_come_again_were_said_no_later_and_by_nobody_else(first: Event) -> None:
    """Else an old "pode" becomes the answer to a briefing, as soon as the resident makes a sound."""
    call = Call(CAREFREE)
    call.happens(SpeechStarted("turn"), SpeechStopped("turn"), first)  # our VAD heard nobody
    await asyncio.sleep(0.05)
    call.hears(SILENCE + SPEECH[:16000])  # now it does
    call.happens(Transcript("caller", "turn", "pode", final=True))
    again = call.said[-1]
    assert not again.voiced
    assert again.began < 0.05


async def test_a_turn_that_begins_anew_is_dated_anew() -> None:
    call = Call(CAREFREE)
    call.happens(SpeechStarted("turn"), Transcript("caller", "turn", "", final=True))
    await asyncio.sleep(0.05)
    call.hears(SILENCE + SPEECH[:16000])
    call.happens(SpeechStarted("turn"), Transcript("caller", "turn", "pode", final=True))
    assert call.said[-1].voiced


@pytest.mark.parametrize(
    "end", [Failed("session", "key_refused", SAID), Lost("openai", "key_refused", SAID), Replaced("p", SAID)]
)
async def test_a_key_that_a_provider_repeats_is_not_on_record(end: Event) -> None:
    call = Call(CAREFREE)
    call.happens(end)
    (told,) = [one for one in call.posted if isinstance(one, SessionLost | SessionBroke | SessionReplaced)]
    assert "Incorrect API key" in told.reason and "abcdef" not in told.reason


def _says(text: str, sound: Sequence[bytes]) -> list[Event]:
    begin: list[Event] = [ItemStarted("response", "item", "receipt")]
    pieces: list[Event] = [AudioDelta("item", pcm) for pcm in sound]
    return [*begin, *pieces, Transcript("agent", "item", text, final=True), AudioDone("item")]


@pytest.mark.parametrize(
    ("first", "then", "text", "complete"),
    [
        (CAREFREE, TO_THE_LETTER, "O Carlos está na portaria. Autoriza a entrada?", False),
        (CAREFREE, TO_THE_LETTER, BRIEFING, True),
        (TO_THE_LETTER, CAREFREE, "", True),
    ],
)
async def test_whose_word_counts_for_a_sentence_is_the_one_who_said_it(
    first: Capabilities, then: Capabilities, text: str, complete: bool
) -> None:
    """The next session's promise to say what it is asked to says nothing of the one before."""
    call = Call(first)
    call.leg.say_exactly(BRIEFING, "briefing", protected=True)
    call.happens(*_says(text, [b"\x00\x10" * 8000] * 4))
    call.session.capabilities = then
    call.happens(Lost("openai", "went_away", "the connection broke"), Ready(then))
    for _ in range(50 * 4 + 5):
        call.leg.tick(0)
    call.happens(ResponseDone("response", "receipt", "completed", {}))
    assert call.played() is complete
