"""Speech that comes in real time and late is caught up with in its pauses; no word of it is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest

from audio.hearing import Ear
from audio.utterances import without_pauses
from audio.vad import VadModel, VoiceActivity
from bridge.clock import Clock
from bridge.costs.account import Account, Currency
from bridge.costs.prices import known_prices
from bridge.endpoints.base import Endpoint
from bridge.leg import Leg
from bridge.runner import silero_onnx
from bridge.softphone import load_wav
from providers.base import AudioDelta, AudioDone, Capabilities, ItemStarted, ResponseDone, Session
from visits.events import Role

SPEECH = load_wav(Path(__file__).parents[2] / "data" / "audio" / "v05-leticia.wav")
CHUNK = 1600
"""Bytes: a tenth of a second."""


class Speaking:
    """A session that is only there to say what it can do."""

    busy = False

    def __init__(self, limit_ms: int) -> None:
        self.capabilities = Capabilities(
            input_rate=8000,
            output_rate=8000,
            truncation=False,
            exact_speech=False,
            owns_turns=True,
            queue_limit_ms=limit_ms,
        )

    def send_audio(self, pcm: bytes) -> None:
        """Audio."""


class Phone:
    """An endpoint that keeps what is played."""

    def __init__(self) -> None:
        self.played = b""

    def play(self, pcm: bytes) -> None:
        """A frame."""
        self.played += pcm


def a_leg(phone: Phone, limit_ms: int, posted: list[Any]) -> Leg:
    leg = Leg(
        role=Role.VISITOR,
        name="visitor",
        attempt=uuid4(),
        endpoint=cast(Endpoint, phone),
        clock=Clock(),
        visit_started=asyncio.get_running_loop().time(),
        ear=Ear(VoiceActivity(VadModel(silero_onnx()))),
        tape=None,
        account=Account(known_prices(), Currency(), "local"),
        message_ms=40,
        silence_s=10,
        post=lambda _, what: posted.append(what),
    )
    leg.join(cast(Session, Speaking(limit_ms)))
    return leg


@pytest.mark.parametrize("limit_ms", [200, 0])
async def test_what_came_late_is_caught_up_with_in_pauses(limit_ms: int) -> None:
    phone, posted = Phone(), list[Any]()
    leg = a_leg(phone, limit_ms, posted)
    pcm = SPEECH + bytes(8000) + SPEECH
    leg._on(ItemStarted("response_1", "item_1", None))
    late = 8 * CHUNK
    leg._on(AudioDelta("item_1", pcm[:late]))  # 800 ms at once, after the network stood still
    waiting = []
    for at in range(late, len(pcm), CHUNK):
        leg._on(AudioDelta("item_1", pcm[at : at + CHUNK]))
        for _ in range(5):
            leg.tick(0)
        waiting.append(leg._playout.pending_samples // 8)
    leg._on(AudioDone("item_1"))
    leg._on(ResponseDone("response_1", None, "completed", {}))
    for _ in range(60):
        leg.tick(0)
    assert leg._playout.ledger("item_1").complete
    heard = without_pauses(phone.played, 8000)
    assert len(heard) >= 0.98 * len(without_pauses(pcm, 8000)), "no word is lost"
    if limit_ms:
        assert waiting[0] >= 700 and max(waiting[len(waiting) // 2 :]) <= limit_ms + 100
    else:
        assert min(waiting) >= 690, "what may wait, waits"
