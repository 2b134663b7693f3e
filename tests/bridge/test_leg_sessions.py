"""A leg whose session is lost joins another: what the first owed is not taken for what the second says."""

from __future__ import annotations

import asyncio
from typing import Any, cast
from uuid import uuid4

from audio.hearing import Ear
from audio.vad import VadModel, VoiceActivity
from bridge.clock import Clock
from bridge.costs.account import Account, Currency
from bridge.costs.prices import known_prices
from bridge.endpoints.base import Endpoint
from bridge.leg import Leg
from bridge.runner import silero_onnx
from providers.announcer import AnnouncerSession
from providers.base import Lost, Replaced
from providers.local.speech import RATE
from visits.events import Role, SentencePlayed


class Phone:
    """An endpoint that plays into the void."""

    def play(self, frame: bytes) -> None:
        """Nothing."""


class Voice:
    """Says anything in a second, or never."""

    def __init__(self, *, never: bool = False) -> None:
        self._never = never

    async def say(self, sentence: str) -> bytes:
        if self._never:
            await asyncio.Event().wait()
        return b"\x10\x00" * RATE


def a_leg(posted: list[Any]) -> Leg:
    leg = Leg(
        role=Role.VISITOR,
        name="visitor",
        attempt=None,
        endpoint=cast(Endpoint, Phone()),
        clock=Clock(),
        visit_started=asyncio.get_running_loop().time(),
        ear=Ear(VoiceActivity(VadModel(silero_onnx()))),
        tape=None,
        account=Account(known_prices(), Currency(), "local"),
        message_ms=40,
        silence_s=10,
        post=lambda _, what: posted.append(what),
    )
    leg.ids = {"leg": str(uuid4())}
    return leg


async def test_nothing_can_be_said_until_a_model_is_there_or_is_there_again() -> None:
    leg = a_leg([])
    speechless = [leg.speechless]
    leg.join(AnnouncerSession(Voice()))
    speechless.append(leg.speechless)
    leg._on(Lost("openai", "went_away", "gone"))
    speechless.append(leg.speechless)
    leg._on(Replaced("gemini", "went_away: gone"))
    speechless.append(leg.speechless)
    leg._on(Lost("gemini", "went_away", "gone"))
    leg.join(AnnouncerSession(Voice()))
    speechless.append(leg.speechless)
    assert speechless == [True, False, True, False, False]


async def test_what_the_first_session_owed_is_not_what_the_second_one_says() -> None:
    posted: list[Any] = []
    leg = a_leg(posted)
    running = []
    for voice, text, tag in ((Voice(never=True), "Bom dia.", "greeting"), (Voice(), "Até logo.", "goodbye")):
        session = AnnouncerSession(voice)
        leg.join(session)
        running.append(asyncio.create_task(leg.run(session)))
        await asyncio.sleep(0)
        leg.say_exactly(text, tag, protected=True)
    await asyncio.wait(running[:1], timeout=2)
    assert running[0].cancelled() and not running[1].done()
    for _ in range(100):
        leg.tick(0)
        await asyncio.sleep(0)
    assert [one for one in posted if isinstance(one, SentencePlayed)] == [
        SentencePlayed(Role.VISITOR, "goodbye", True)
    ]
    leg.leave()
    await asyncio.wait(running, timeout=2)
    assert all(task.done() for task in running)
