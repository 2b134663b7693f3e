"""Call after call, and calls at once: none is silent in either direction, and none hears another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from uuid import UUID

import pytest
import pytest_asyncio

from tests.pbx.asterisk import Asterisk
from tests.pbx.gatehouse import Gatehouse
from tests.pbx.listening import speech, tone, tone_seconds
from tests.pbx.phone import INTERCOM, Call, Phone

pytestmark = [pytest.mark.pbx, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

IN_A_ROW = 30
AT_ONCE = 10
PITCHES = (450, 700, 950, 1200, 1450, 1700, 1950, 2200, 2450, 2700)
BURST_S = 0.6
LEAST_S = 0.5
"""Of a burst that must have come through; its first and last frame may be mixed with silence."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gatehouse(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gatehouse]:
    """A service with a simulated resident."""
    out = tmp_path_factory.mktemp("gatehouse")
    with (out / "model.log").open("w") as log:
        async with Gatehouse(out, log) as gatehouse:
            yield gatehouse


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def phone(gatehouse: Gatehouse, run_asterisk: Callable[..., Asterisk]) -> AsyncIterator[Phone]:
    """The intercom's telephone, on an Asterisk that knows the service."""
    asterisk = await asyncio.to_thread(run_asterisk, PORTEIRO=gatehouse.address)
    async with Phone(asterisk.sip, *INTERCOM) as phone:
        yield phone
    assert not await asterisk.quiet()


async def short_call(phone: Phone, pitch: int, extension: str = "portaria") -> Call:
    """Hear the greeting begin, say a tone, hang up."""
    call = await phone.call(extension)
    await call.wait_answered()
    await call.wait_for_speech(since=call.answered_at)
    await call.say(tone(pitch, BURST_S))
    await asyncio.sleep(0.3)
    await call.hang_up()
    return call


async def tones_heard(gatehouse: Gatehouse, visit: UUID) -> dict[int, float]:
    """Which of the tones we heard on a visit's leg, and for how many seconds."""
    heard = (await gatehouse.leg(visit)).heard
    seconds = {pitch: round(tone_seconds(heard, pitch), 2) for pitch in PITCHES}
    return {pitch: found for pitch, found in seconds.items() if found}


@pytest.mark.parametrize("number", range(IN_A_ROW))
async def test_call_after_call_is_heard_both_ways(gatehouse: Gatehouse, phone: Phone, number: int) -> None:
    pitch = PITCHES[number % len(PITCHES)]
    call = await short_call(phone, pitch)
    visit = await gatehouse.next_visit()
    await gatehouse.over(visit)
    assert speech(call.heard().samples)
    heard = await tones_heard(gatehouse, visit)
    assert list(heard) == [pitch] and heard[pitch] >= LEAST_S, heard


@pytest.mark.parametrize("extension", ["portaria", "portaria16"])
async def test_calls_at_once_are_heard_both_ways_and_apart(
    gatehouse: Gatehouse, phone: Phone, extension: str
) -> None:
    calls = await asyncio.gather(*(short_call(phone, pitch, extension) for pitch in PITCHES[:AT_ONCE]))
    visits = [await gatehouse.next_visit() for _ in range(AT_ONCE)]
    for visit in visits:
        await gatehouse.over(visit)
    assert all(speech(call.heard().samples) for call in calls)
    heard = sorted([list((await tones_heard(gatehouse, visit)).items()) for visit in visits])
    assert [[pitch for pitch, _ in tones] for tones in heard] == [[pitch] for pitch in PITCHES[:AT_ONCE]]
    assert all(seconds >= LEAST_S for tones in heard for _, seconds in tones), heard
