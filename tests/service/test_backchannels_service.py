"""A caller says a short word while we talk: we pause, and go on if it was nothing. A "não" is never lost."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest

from bridge.softphone import Softphone, load_wav
from tests.service.doorman import ASKS, LOWEST, Cast, Part, Turn
from tests.service.household import AUDIO, Household, household, with_cast
from tests.simulators.openai_realtime import Call, Reply, Say

YES = load_wav(AUDIO / "r01-leticia.wav")
NO = load_wav(AUDIO / "r02-leticia.wav")
GREETING_MS = 4000
EDGE_MS = 8.0
"""Where the resampler begins and ends, and for 5 ms after a pause, the level is on its way up or down."""
QUESTION: dict[str, Any] = {"greeting": "Com quem deseja falar?", "recording": {"enabled": False}}


@dataclass
class Heard:
    """What became of a greeting over which a visitor said something."""

    visit: UUID
    ours_ms: float
    silences_ms: list[float]
    """Within it."""
    creates: int
    truncated: dict[str, int]
    said: list[str]
    """What the visitor is on record with."""


async def spoken_over(house: Household, cast: Cast, tenant: str, sound: bytes, after_s: float) -> Heard:
    """A visit whose visitor says something ``after_s`` into the greeting, and nothing else."""
    visit = uuid4()
    async with house.phone(tenant, visit) as phone:
        await phone.wait_for_speech(timeout_s=10)
        doorman = cast.doormen[-1]
        await asyncio.sleep(after_s)
        await phone.say(sound)
        await asyncio.sleep(GREETING_MS / 1000 - after_s + 1.5)
        heard = np.frombuffer(bytes(phone.heard), "<i2").astype(np.int32)
    await house.service.visit_over(visit)
    assert doorman.violations == []
    ours = np.flatnonzero(abs(heard - LOWEST) < 100)
    turns = [one.data for one in await house.records(visit) if one.kind == "turn"]
    return Heard(
        visit,
        len(ours) / 8,
        [float(gap) / 8 for gap in np.diff(ours) if gap > 80],
        len(doorman.creates),
        dict(doorman.truncated),
        [turn["text"] for turn in turns if turn["speaker"] == "caller"],
    )


async def test_a_short_word_over_the_greeting(tmp_path: Path) -> None:
    """Five visitors at once, told apart by what they are taken to have said, and by the house's choice."""
    reply = Reply((Say(400, "Pois não."),))
    stories: dict[str, tuple[Turn, bytes, float, dict[str, Any]]] = {
        "along": (Turn("Ahã.", reply), YES, 0.4, {}),
        "refusal": (Turn("Não.", reply), NO, 0.4, {}),
        "nothing": (Turn("", reply), YES, 0.4, {}),
        "stop": (Turn("Ahã.", reply), YES, 0.4, {"backchannels": "stop"}),
        "answer": (Turn("Sim.", reply), YES, 2.6, QUESTION),
    }
    async with AsyncExitStack() as stack:
        casts = {
            name: await stack.enter_async_context(Cast(Part([turn], exact_ms=GREETING_MS, piece_ms=200)))
            for name, (turn, _, _, _) in stories.items()
        }
        tenants = {name: with_cast(casts[name], **own) for name, (_, _, _, own) in stories.items()}
        house = await stack.enter_async_context(household(tmp_path, tenants))
        heard = await asyncio.gather(
            *(
                spoken_over(house, casts[name], name, sound, after_s)
                for name, (_, sound, after_s, _) in stories.items()
            )
        )
    found = dict(zip(stories, heard, strict=True))

    for name in ("along", "nothing", "answer"):
        one = found[name]
        assert abs(one.ours_ms - GREETING_MS) <= EDGE_MS, (name, "all of it is heard, and nothing twice")
        (silence,) = one.silences_ms
        assert 250 <= silence <= 750, (name, silence)
        assert one.truncated == {}, (name, "the model's words stand")
        (paused,) = house.of(one.visit, "pause")
        assert abs(paused.data["pause_ms"] - silence) <= 25, name
        assert house.of(one.visit, "barge_in") == []
        (pauses,) = [turn.data["pauses"] for turn in house.of(one.visit, "turn") if "pauses" in turn.data]
        assert [ms for _, ms in pauses] == [paused.data["pause_ms"]], "the reviewer sees it too"
        assert pauses[0][0] == pytest.approx(paused.at_ms - paused.data["pause_ms"], abs=60)
    assert found["along"].creates == found["nothing"].creates == 1, "the greeting alone was asked for"
    assert found["answer"].creates == 2, "what is said over the end of a question is its answer"

    refused = found["refusal"]
    assert len(refused.silences_ms) == 1 and refused.ours_ms < GREETING_MS - 500
    assert refused.creates == 2, "it is answered"
    assert abs(refused.truncated["say_1"] - refused.ours_ms) <= 45
    assert len(house.of(refused.visit, "pause")) == len(house.of(refused.visit, "barge_in")) == 1

    stopped = found["stop"]
    assert stopped.silences_ms == [] and stopped.ours_ms < 1500
    assert stopped.creates == 2 and list(stopped.truncated) == ["say_1"]
    assert house.of(stopped.visit, "pause") == []

    assert [found[name].said for name in stories] == [["Ahã."], ["Não."], [], ["Ahã."], ["Sim."]]


async def test_a_residents_short_refusal_over_the_doorman_is_heard_and_stands(tmp_path: Path) -> None:
    asked = Turn("Alô?", Reply((Say(4000, "É o Pedro, para uma visita. Ele pode entrar?"),)))
    refuses = Turn("Não.", Reply((Call("deny_entry", "{}"),)))

    async def resident(phone: Softphone) -> None:
        await phone.wait_for_speech(timeout_s=10)
        await phone.wait_for_quiet(400, timeout_s=20)  # the briefing
        await phone.say(YES)
        await phone.wait_for_speech(timeout_s=10)
        await asyncio.sleep(0.4)
        await phone.say(NO)
        await asyncio.wait({phone.closed})

    cast = Cast(Part(ASKS, [asked, refuses]))
    async with cast, household(tmp_path, {"jardim": with_cast(cast)}) as house:
        visit = uuid4()
        house.residents[visit] = resident
        await house.visit("jardim", visit=visit)
        assert await house.outcome(visit) == ("denied", "resident_refused", None)
        (evidence,) = [one.data for one in await house.records(visit) if one.kind == "evidence"]
        assert (evidence["by"], evidence["text"]) == ("voice", "Não.")
        assert [one.data["leg"] for one in house.of(visit, "pause")] == ["resident-1"]
