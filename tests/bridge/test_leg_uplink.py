"""What a caller says reaches the session whole, so much at a time as a message is to hold."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast
from uuid import uuid4

import numpy as np
import pytest

from audio.hearing import Ear
from audio.vad import VadModel, VoiceActivity
from bridge.clock import MANY_LEGS, STRAIN_TICKS, STRAINED_MS, Clock
from bridge.costs.account import Account, Currency
from bridge.costs.prices import known_prices
from bridge.endpoints.base import Endpoint
from bridge.leg import Leg
from bridge.runner import silero_onnx
from providers.base import Capabilities, Session
from visits.events import Role


class Collecting:
    """A session that keeps what it is sent."""

    capabilities = Capabilities(
        input_rate=8000, output_rate=8000, truncation=True, exact_speech=False, owns_turns=False
    )

    def __init__(self) -> None:
        self.messages: list[bytes] = []

    def send_audio(self, pcm: bytes) -> None:
        """Audio."""
        self.messages.append(pcm)


def a_leg(clock: Clock, message_ms: int) -> tuple[Leg, Collecting]:
    """A leg whose endpoint does nothing."""
    endpoint = cast(Endpoint, object())
    leg = Leg(
        role=Role.VISITOR,
        name="visitor",
        attempt=uuid4(),
        endpoint=endpoint,
        clock=clock,
        visit_started=asyncio.get_running_loop().time(),
        ear=Ear(VoiceActivity(VadModel(silero_onnx()))),
        tape=None,
        account=Account(known_prices(), Currency(), "local"),
        message_ms=message_ms,
        silence_s=10,
        post=lambda *_: None,
    )
    session = Collecting()
    leg.join(cast(Session, session))
    return leg, session


def sound(frames: int) -> list[bytes]:
    """Frames that tell themselves apart."""
    return [np.full(160, n, "<i2").tobytes() for n in range(frames)]


@pytest.mark.parametrize(("message_ms", "sizes"), [(20, {20}), (40, {40}), (60, {60}), (50, {60})])
async def test_a_message_holds_what_the_tenant_asks_for(message_ms: int, sizes: set[int]) -> None:
    leg, session = a_leg(Clock(), message_ms)
    frames = sound(60)
    for frame in frames:
        leg.audio_in(frame, 8000)
    assert b"".join(session.messages) == b"".join(frames)
    assert {len(message) // 16 for message in session.messages} == sizes


async def test_among_many_legs_a_message_holds_60_ms() -> None:
    clock = Clock()
    leg, session = a_leg(clock, 40)
    others = [a_leg(clock, 40)[0] for _ in range(MANY_LEGS)]
    frames = sound(12)
    for other in others:
        clock.add(other)
    for frame in frames[:6]:
        leg.audio_in(frame, 8000)
    clock.discard(others[0])
    for frame in frames[6:]:
        leg.audio_in(frame, 8000)
    assert b"".join(session.messages) == b"".join(frames)
    assert [len(message) // 16 for message in session.messages] == [60, 60, 40, 40, 40]


async def test_while_ticks_are_late_a_message_holds_60_ms() -> None:
    clock = Clock()
    leg, session = a_leg(clock, 20)
    told: Mapping[str, Any] = {"late": STRAINED_MS * 2, "calm": 0.0}
    frames = sound(24)
    sizes = []
    for frame, mood in zip(frames, ["calm"] * 6 + ["late"] * 12 + ["calm"] * 6, strict=True):
        for _ in range(3 * STRAIN_TICKS):
            clock.note(told[mood])
        leg.audio_in(frame, 8000)
    sizes = [len(message) // 16 for message in session.messages]
    assert sizes == [20] * 6 + [60] * 4 + [20] * 6
    assert b"".join(session.messages) == b"".join(frames)
