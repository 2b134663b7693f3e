"""A visitor speaks over us: we fall silent, and the model remembers what the telephone really got of it."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np

from bridge.softphone import load_wav
from tests.service.doorman import LOWEST, Cast, Part
from tests.service.household import AUDIO, Household, household, until, with_cast

LANES = 4
TIMES_EACH = 5
FRAME_MS = 20.0
DOWNSTREAM_MS = 20.0
"""What may lie between the ledger and the telephone: a frame that is on its way."""
EDGE_MS = 2.0
"""Where the resampler begins, the level is still on its way up."""
SPEECH = load_wav(AUDIO / "v21-leticia.wav")
LEAD_S = float(np.argmax(abs(np.frombuffer(SPEECH, "<i2").astype(np.int32)) > 600)) / 8000
"""How long the recording takes to begin to speak."""
STORY = Part(exact_ms=10_000, piece_ms=200)
"""Ten seconds of greeting, sent in no time."""


@dataclass
class Interruption:
    """One barge-in, as the model, the watchers, the log and the telephone saw it. Milliseconds."""

    truncated: float
    posted_heard: float
    posted_silence: float
    recorded_heard: float
    received: float
    to_silence: float
    gaps: int
    heard_after: int


async def interrupt(house: Household, cast: Cast, tenant: str, after_s: float) -> Interruption:
    """A visit whose visitor speaks ``after_s`` into the greeting, and goes when we are silent."""
    visit = uuid4()
    async with house.phone(tenant, visit) as phone:
        await phone.wait_for_speech(timeout_s=10)
        doorman = cast.doormen[-1]
        await asyncio.sleep(after_s)
        spoke = time.monotonic() + LEAD_S
        phone.say_nowait(SPEECH)
        await until(lambda: doorman.truncated, 5, "the truncation")
        await asyncio.sleep(0.7)
        phone.be_silent()
        heard = np.frombuffer(bytes(phone.heard), "<i2").astype(np.int32)
        arrivals = list(phone.arrivals)
    await house.service.visit_over(visit)
    assert doorman.violations == []
    ours = abs(heard - LOWEST) < 100
    frames = np.asarray(ours[: len(ours) // 160 * 160].reshape(-1, 160).any(axis=1))
    first, last = int(np.argmax(frames)), len(frames) - 1 - int(np.argmax(frames[::-1]))
    (posted,) = house.of(visit, "barge_in")
    (turn,) = [r for r in await house.records(visit) if r.kind == "turn" and r.data["speaker"] == "agent"]
    assert turn.data["interrupted"] is True
    assert turn.data["speech_to_silence_ms"] == posted.data["speech_to_silence_ms"]
    return Interruption(
        truncated=float(doorman.truncated["say_1"]),
        posted_heard=float(posted.data["heard_ms"]),
        posted_silence=float(posted.data["speech_to_silence_ms"]),
        recorded_heard=float(turn.data["heard_ms"]),
        received=float(ours.sum()) / 8,
        to_silence=(arrivals[last] + 0.02 - spoke) * 1000,
        gaps=int((~frames[first:last]).sum()),
        heard_after=int((abs(heard[(last + 1) * 160 :]) > 0).sum()),
    )


async def test_the_model_remembers_what_the_telephone_got(tmp_path: Path) -> None:
    chance = random.Random(20261121)
    async with AsyncExitStack() as stack:
        casts = [await stack.enter_async_context(Cast(STORY)) for _ in range(LANES)]
        tenants = {f"lane-{n}": with_cast(cast) for n, cast in enumerate(casts)}
        house = await stack.enter_async_context(household(tmp_path, tenants))

        async def lane(number: int) -> list[Interruption]:
            found = []
            for _ in range(TIMES_EACH):
                after = chance.uniform(0.1, 1.5)
                found.append(await interrupt(house, casts[number], f"lane-{number}", after))
            return found

        found = [one for many in await asyncio.gather(*map(lane, range(LANES))) for one in many]
    assert len(found) == LANES * TIMES_EACH
    for one in found:
        assert abs(one.truncated - one.received) <= FRAME_MS + DOWNSTREAM_MS + EDGE_MS, one
        assert abs(one.posted_heard - one.truncated) <= 1.0, one
        assert one.recorded_heard == one.posted_heard, one
        assert (one.gaps, one.heard_after) == (0, 0), one  # once silent, nothing of it is heard again
    # What we remember must be true of each; how long it took is the machine's too, which may stand still.
    # Ours is counted from when the local VAD says that speech began, the telephone's from its level.
    timely = [
        one for one in found if 0 < one.to_silence < 600 and abs(one.posted_silence - one.to_silence) <= 150
    ]
    assert len(timely) >= 0.75 * len(found), found
    middle = sorted(one.to_silence for one in found)[len(found) // 2]
    assert middle < 350, found
