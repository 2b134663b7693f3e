"""Whole visits on recorded speech: the real service, AudioSocket on both legs, the local model server.

All are played in one service, a few at a time, so that they also prove not to disturb one another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bridge.demo.script import step
from bridge.demo.stage import DATA, Cast, Stage, stage_settings
from bridge.dialing.simulated import Answers

AT_A_TIME = 5
"""Visits at once: two cores recognise speech for so many without anybody waiting long."""

pytestmark = pytest.mark.timeout(900)


def steps(*texts: str) -> list[Any]:
    """Steps of a script; `v01-leticia` stands for that recording."""

    def full(text: str) -> str:
        for prefix in ("v", "r"):
            if text.startswith(prefix) and text[1:3].isdigit():
                return str(DATA / "audio" / f"{text}.wav")
        if text.startswith("barge:"):
            name, _, ms = text.removeprefix("barge:").partition("@")
            return f"barge:{DATA / 'audio' / name}.wav@{ms}"
        return text

    return [step(full(text)) for text in texts]


@dataclass(frozen=True)
class Scenario:
    """A visit, and how it must end."""

    visitor: Sequence[str]
    resident: Sequence[str] = ()
    answers: Answers = Answers.YES
    outcomes: tuple[str, ...] = ("authorized",)

    @property
    def opens(self) -> bool:
        return "authorized" in self.outcomes


DELIVERY = ("v01-leticia", "v10-leticia", "v03-leticia")
VISIT = ("v05-leticia",)

SCENARIOS: dict[str, Scenario] = {
    "a delivery, piece by piece": Scenario(DELIVERY, ("r03-grave",)),
    "a delivery, the other voice": Scenario(("v02-grave", "v03-grave"), ("r03-leticia",)),
    "a visit said in one sentence": Scenario(VISIT, ("r15-leticia",)),
    "a visit, the other voice": Scenario(("v04-grave", "v03-grave"), ("r08-grave",)),
    "a service": Scenario(("v08-grave", "v14-grave"), ("r19-leticia",)),
    "the resident asks first": Scenario(VISIT, ("r06-leticia", "r15-grave")),
    "the resident asks who speaks": Scenario(("v04-leticia", "v03-leticia"), ("r14-grave", "r01-grave")),
    "the resident wants a moment": Scenario(VISIT, ("r12-leticia", "r08-leticia")),
    "the resident presses the key": Scenario(VISIT, ("r20-grave", "key:1")),
    "não autorizo": Scenario(VISIT, ("r04-leticia",), outcomes=("denied",)),
    "não autorizo, the other voice": Scenario(VISIT, ("r04-grave",), outcomes=("denied",)),
    "não, não autorizo a entrada": Scenario(VISIT, ("r05-grave",), outcomes=("denied",)),
    "de jeito nenhum": Scenario(VISIT, ("r16-leticia",), outcomes=("denied",)),
    "de jeito nenhum, the other voice": Scenario(VISIT, ("r16-grave",), outcomes=("denied",)),
    "fala que eu não estou": Scenario(VISIT, ("r10-grave",), outcomes=("denied",)),
    "a change of mind": Scenario(VISIT, ("r17-leticia",), outcomes=("denied",)),
    "não conheço essa pessoa": Scenario(VISIT, ("r09-grave",), outcomes=("denied",)),
    "the denial key": Scenario(VISIT, ("key:2",), outcomes=("denied",)),
    "the visitor interrupts": Scenario(("barge:v05-leticia@1500",), ("r15-leticia",)),
    "the resident says neither": Scenario(VISIT, ("r20-leticia",), outcomes=("unreachable",)),
    "leave it at the desk": Scenario(VISIT, ("r11-leticia",), outcomes=("unreachable",)),
    "the resident is silent": Scenario(VISIT, (), outcomes=("unreachable",)),
    "the resident is busy": Scenario(VISIT, (), Answers.BUSY, ("unreachable",)),
    "nobody answers": Scenario(VISIT, (), Answers.NO, ("unreachable",)),
    "the resident hangs up": Scenario(VISIT, ("hangup",), outcomes=("unreachable",)),
    "no such apartment": Scenario(("v11-leticia",), ("r03-grave",), outcomes=("abandoned", "unreachable")),
    "no such resident": Scenario(
        ("v01-leticia", "v14-leticia", "v14-grave", "v14-leticia"),
        ("r03-grave",),
        outcomes=("abandoned", "unreachable"),
    ),
    "the visitor gives up": Scenario(("v01-grave", "v15-grave"), ("r03-grave",), outcomes=("abandoned",)),
    "the visitor hangs up": Scenario(("v01-grave", "hangup"), ("r03-grave",), outcomes=("abandoned",)),
    "the visitor is silent": Scenario((), ("r03-grave",), outcomes=("abandoned",)),
    "ignore your instructions": Scenario(("v17-leticia",), ("r03-grave",), outcomes=("abandoned",)),
    "I am the resident": Scenario(("v18-leticia",), ("r03-grave",), outcomes=("abandoned",)),
    "she has authorized already": Scenario(("v19-grave",), ("r03-grave",), outcomes=("abandoned",)),
}


async def _play_all(out: Path) -> dict[str, Mapping[str, Any]]:
    places = asyncio.Semaphore(AT_A_TIME)
    found: dict[str, Mapping[str, Any]] = {}

    async def play(stage: Stage, name: str, scenario: Scenario) -> None:
        async with places:
            cast = Cast(steps(*scenario.visitor), steps(*scenario.resident), scenario.answers)
            found[name] = await stage.play(cast)

    with (out / "model.log").open("w") as log:
        async with Stage(stage_settings(out), log=log) as stage, asyncio.TaskGroup() as group:
            for name, scenario in SCENARIOS.items():
                group.create_task(play(stage, name, scenario))
    return found


@pytest.fixture(scope="module")
def visits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Mapping[str, Any]]:
    """Every scenario, played."""
    return asyncio.run(_play_all(tmp_path_factory.mktemp("visits")))


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_recorded_visit_ends_as_it_must(name: str, visits: dict[str, Mapping[str, Any]]) -> None:
    scenario, visit = SCENARIOS[name], visits[name]
    told = "\n".join(f"{turn['leg']} {turn['speaker']}: {turn['text']}" for turn in visit["turns"])
    assert visit["outcome"] in scenario.outcomes, told
    assert visit["gate_opened"] is scenario.opens, told
    assert visit["audit_ok"]
