"""A session without a VAD of its own is told by the leg when its caller speaks."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast
from uuid import uuid4

import pytest

from audio.hearing import Ears
from audio.line import Line
from audio.vad import VadModel
from bridge.clock import Clock
from bridge.costs.account import Account, Currency
from bridge.costs.prices import known_prices
from bridge.endpoints.base import Endpoint
from bridge.leg import Leg
from bridge.runner import silero_onnx
from bridge.softphone import load_wav
from providers.base import AudioDelta, Capabilities, Heard, ItemStarted, Session
from visits.events import Role

SPEECH = load_wav(Path(__file__).parents[2] / "data" / "audio" / "v05-leticia.wav")
SILENCE = bytes(16000)


class Told:
    """A session that keeps what it is told."""

    capabilities = Capabilities(
        input_rate=8000, output_rate=8000, truncation=False, exact_speech=False, owns_turns=False
    )
    busy = False

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.quiet_ms: list[int] = []
        self.audio = 0
        self.began_at: list[int] = []

    def send_audio(self, pcm: bytes) -> None:
        self.audio += len(pcm)

    def caller_began(self) -> None:
        self.heard.append("began")
        self.began_at.append(self.audio // 16)

    def interrupt(self, heard: Heard | None) -> None:
        self.heard.append(f"interrupted at {heard.item}" if heard is not None else "interrupted")

    def caller_ended(self, quiet_ms: int) -> None:
        self.heard.append("ended")
        self.quiet_ms.append(quiet_ms)


class Deaf:
    """An endpoint that nobody listens to."""

    def play(self, pcm: bytes) -> None:
        """A frame."""


class Call:
    """A leg, the ears that hear for it, and its session."""

    def __init__(self) -> None:
        self.ears = Ears(VadModel(silero_onnx()))
        self.session = Told()
        self.leg = Leg(
            role=Role.VISITOR,
            name="visitor",
            attempt=uuid4(),
            endpoint=cast(Endpoint, Deaf()),
            clock=Clock(),
            visit_started=asyncio.get_running_loop().time(),
            ear=self.ears.ear(),
            tape=None,
            account=Account(known_prices(), Currency(), "local"),
            message_ms=20,
            silence_s=10,
            post=lambda *_: None,
        )
        self.leg.join(cast(Session, self.session))

    def hears(self, pcm: bytes) -> None:
        for at in range(0, len(pcm), 320):
            self.leg.audio_in(pcm[at : at + 320], 8000)
            self.ears.run()
            self.leg.tick(0)


async def test_a_turn_begins_and_ends_by_our_vad() -> None:
    call = Call()
    call.hears(SILENCE + SPEECH + SILENCE)
    heard = call.session.heard
    assert heard[0] == "began" and heard[-1] == "ended"
    assert heard.count("began") == heard.count("ended")
    assert 1000 <= call.session.began_at[0] <= 1500, "ms: within the half second that is kept for it"
    assert call.session.quiet_ms[-1] == pytest.approx(450, abs=64)


async def test_who_speaks_over_us_is_a_turn_before_what_they_interrupt_is_forgotten() -> None:
    call = Call()
    call.leg._on(ItemStarted("response", "item", None))
    call.leg._on(AudioDelta("item", b"\x00\x10" * 8000 * 20))
    call.hears(SILENCE + SPEECH[:16000])
    assert call.session.heard == ["began", "interrupted at item"]


async def test_what_a_caller_says_to_the_other_is_no_turn_of_the_models() -> None:
    call = Call()
    call.hears(SILENCE + SPEECH[:16000])
    assert call.session.heard == ["began"]
    call.leg.connect(hears=Line(), speaks=Line())
    assert call.session.heard == ["began", "ended"]
    call.hears(SILENCE + SPEECH[:16000])
    assert "began" not in call.session.heard[2:]
    call.leg.disconnect()
    assert call.session.heard[-1] == "began", "who is speaking then speaks to the model"
