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
from providers.base import Event, Failed, Ready, Session, Tokens, Usage
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


class Leaving(Timed):
    """One that ends by itself, and takes its time to be closed."""

    def __init__(self) -> None:
        super().__init__()
        self.ended, self.closing, self.closed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def run(self, take: Callable[[Event], None]) -> None:
        self.take = take
        await self.ended.wait()

    async def close(self) -> None:
        self.closing.set()
        await self.closed.wait()
        await super().close()


def a_leg(account: Account) -> Leg:
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
    return leg


async def bill_of(session: Told, talk: Callable[[Leg], Any], provider: str = "openai") -> Account:
    account = Account(known_prices(), Currency(), provider)
    leg = a_leg(account)
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


async def talks_to(leg: Leg, session: Told) -> asyncio.Task[None]:
    """The leg joins a session; the task is over once that is closed."""
    leg.join(cast(Session, session))
    running = asyncio.create_task(leg.run(cast(Session, session)))
    await asyncio.sleep(0)
    return running


async def test_a_session_that_is_lost_tells_the_end_of_its_bill_though_the_call_is_over_meanwhile() -> None:
    account, session = Account(known_prices(), Currency(), "openai-live"), Leaving()
    leg = a_leg(account)
    running = await talks_to(leg, session)
    session.take(Failed("session", "went_away", "gone"))
    session.ended.set()
    await session.closing.wait()
    leg.bill_time()
    assert account.bill().usd == Decimal("0.025"), "30 s, so far"
    leg.endpoint_closed(EndpointClosed("hangup", ""))
    leg.leave()
    session.closed.set()
    await running
    assert account.bill().usd == Decimal("0.03"), "and six more"


async def test_a_session_that_is_left_for_another_is_closed_heard_no_more_and_billed_by_itself() -> None:
    account, first, second = Account(known_prices(), Currency(), "openai"), Told(), Told()
    leg = a_leg(account)
    running = await talks_to(leg, first)
    first.take(Ready(CAPABILITIES))
    first.take(Failed("session", "stalled", "nothing came"))
    speechless = [leg.speechless]
    after = await talks_to(leg, second)
    first.take(Failed("session", "late", "it is not over by itself"))
    speechless.append(leg.speechless)
    assert speechless == [True, False], "what the first one says is nothing to the second"
    second.take(REPLY)
    await asyncio.wait({running})
    assert running.cancelled() and not after.done()
    leg.leave()
    await asyncio.wait({after})
    assert account.bill().usd == 64
    assert account.bill().unknown == ("openai: a session told nothing of what it costs",)
