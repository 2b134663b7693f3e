"""What a leg's session costs reaches the visit's account: also late, by time, and what nobody told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Any, cast
from uuid import uuid4

from audio.hearing import Ear
from audio.vad import VadModel, VoiceActivity
from bridge.clock import Clock
from bridge.costs.account import Account, Currency
from bridge.costs.prices import known_prices
from bridge.endpoints.base import Endpoint, EndpointClosed
from bridge.leg import Leg
from bridge.runner import silero_onnx
from providers.announcer import CAPABILITIES
from providers.base import Event, Ready, Session, Tokens, Usage
from visits.events import Role

REPLY = Usage("openai", "gpt-realtime-2.1", "reply", Tokens(audio_out=1_000_000))


class Deaf:
    """An endpoint that does nothing."""


class Told:
    """A session whose events are the test's."""

    capabilities = CAPABILITIES

    def __init__(self, *, busy: bool = False) -> None:
        self.busy = busy
        self.take: Callable[[Event], None] = lambda event: None

    async def run(self, take: Callable[[Event], None]) -> None:
        self.take = take
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Nothing is open."""


class Timed(Told):
    """One that costs by its time."""

    seconds = 30.0

    def time_billed(self) -> tuple[Usage, ...]:
        seconds, self.seconds = self.seconds, 0.0
        return (Usage("openai-live", "gpt-live-1", "session", seconds=seconds),) if seconds else ()

    async def close(self) -> None:
        self.seconds += 6.0  # the last of it is told as it ends


async def bill_of(session: Told, talk: Callable[[Leg], Any], provider: str = "openai") -> Account:
    account = Account(known_prices(), Currency(), provider)
    leg = Leg(
        role=Role.VISITOR,
        name="visitor",
        attempt=None,
        endpoint=cast(Endpoint, Deaf()),
        clock=Clock(),
        visit_started=asyncio.get_running_loop().time(),
        ear=Ear(VoiceActivity(VadModel(silero_onnx()))),
        tape=None,
        account=account,
        message_ms=40,
        silence_s=10,
        post=lambda *_: None,
    )
    leg.ids = {"leg": str(uuid4())}
    leg.join(cast(Session, session))
    running = asyncio.create_task(leg.run(cast(Session, session)))
    await asyncio.sleep(0)
    talk(leg)
    running.cancel()
    await asyncio.wait({running})
    return account


async def test_what_comes_after_the_call_is_paid_all_the_same() -> None:
    session = Told()

    def talk(leg: Leg) -> None:
        session.take(REPLY)
        leg.endpoint_closed(EndpointClosed("hangup", ""))
        session.take(REPLY)

    assert (await bill_of(session, talk)).bill().usd == 128


async def test_time_is_billed_while_it_runs_and_at_the_end_once() -> None:
    session = Timed()
    told: list[Decimal] = []

    def talk(leg: Leg) -> None:
        for _ in range(2):
            leg.bill_time()
        told.append(session.seconds)  # type: ignore[arg-type]

    account = await bill_of(session, talk)
    assert told == [0.0]
    assert account.bill().usd == Decimal("0.03") and account.bill().complete  # 36 s of 0.05 a minute


async def test_a_reply_under_way_and_a_session_that_told_nothing_are_said() -> None:
    cut = Told(busy=True)
    assert (await bill_of(cut, lambda leg: cut.take(REPLY))).bill().unknown == (
        "openai: the last reply was cut short",
    )
    silent = Told()
    account = await bill_of(silent, lambda leg: silent.take(Ready(CAPABILITIES)))
    assert account.bill().unknown == ("openai: a session told nothing of what it costs",)
    free = Told(busy=True)
    assert (await bill_of(free, lambda leg: free.take(Ready(CAPABILITIES)), "local")).bill().complete
    never_up = Told()
    assert (await bill_of(never_up, lambda leg: None)).bill().complete
