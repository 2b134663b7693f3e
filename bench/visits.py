"""`porteiro bench --visits`: how long callers wait for an answer, over whole visits on recorded speech.

The visits are played one after the other, as people do them: the real service, AudioSocket on both legs, the
local model server. What is measured is what the audit log says of each turn of ours: the time from the last
sound of the caller's turn, as the local VAD heard it, to the first frame of ours that went out. Greetings and
sentences that answer nobody have no such time.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import uvloop

from bench.figures import spread
from bench.run import machine
from bridge import log as logs
from bridge.demo.script import Key, Say, Step
from bridge.demo.stage import DATA, Cast, Stage, stage_settings
from bridge.dialing.simulated import Answers


@dataclass(frozen=True, slots=True)
class Scene:
    """A visit, by the names of recordings and by keys (`1`), and the outcome that it must have.

    What is measured is worth nothing where a visit took another course.
    """

    name: str
    outcome: str
    visitor: Sequence[str]
    resident: Sequence[str]

    @property
    def cast(self) -> Cast:
        """Who takes part."""
        return Cast(_steps(self.visitor), _steps(self.resident), Answers.YES)


SCENES = (
    Scene("delivery", "authorized", ("v01-leticia", "v10-leticia", "v03-leticia"), ("r03-grave",)),
    Scene("delivery, the other voice", "authorized", ("v02-grave", "v03-grave"), ("r03-leticia",)),
    Scene("visit", "authorized", ("v05-leticia",), ("r15-leticia",)),
    Scene("visit, the other voice", "authorized", ("v04-grave", "v03-grave"), ("r08-grave",)),
    Scene("service", "authorized", ("v08-grave", "v14-grave"), ("r19-leticia",)),
    Scene("the resident asks first", "authorized", ("v05-leticia",), ("r06-leticia", "r15-grave")),
    Scene("the resident wants a moment", "authorized", ("v05-leticia",), ("r12-leticia", "r08-leticia")),
    Scene("the resident presses the key", "authorized", ("v05-leticia",), ("r20-grave", "1")),
    Scene("the resident refuses", "denied", ("v05-leticia",), ("r05-grave",)),
)


def _steps(names: Sequence[str]) -> list[Step]:
    return [Key(name) if len(name) == 1 else Say(DATA / "audio" / f"{name}.wav") for name in names]


def measure_visits(tell: Callable[[str], None], scenes: Sequence[Scene] = SCENES) -> dict[str, Any]:
    """Play them. `tell` is told, in words, what goes on.

    Raises:
        SettingsError, StorageError, ModelServerError, OSError: the service does not start.
        TimeoutError: a visit did not end.
    """
    where = machine()
    with tempfile.TemporaryDirectory(prefix="porteiro-bench-") as folder:
        visits = uvloop.run(_play(Path(folder), scenes, tell))
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": version("porteiro"),
        "machine": where,
        "visits": visits,
        "response_ms": responses(visits),
    }


async def _play(out: Path, scenes: Sequence[Scene], tell: Callable[[str], None]) -> list[dict[str, Any]]:
    found = []
    with (out / "bench.log").open("w") as log, logs.configure("json", "info", log):
        tell("loading the speech models …")
        async with Stage(stage_settings(out), log=log) as stage:
            for scene in scenes:
                tell(f"{scene.name} …")
                found.append(_summary(scene, await stage.play(scene.cast)))
                await asyncio.sleep(1.0)  # the model server comes to rest
    return found


def _summary(scene: Scene, visit: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a visit's report."""
    return {
        "name": scene.name,
        "outcome": visit["outcome"],
        "expected": scene.outcome,
        "responses": [
            {"leg": turn["leg"], "text": turn["text"], "ms": turn["response_ms"]}
            for turn in visit["turns"]
            if turn["speaker"] == "agent" and turn["response_ms"] is not None
        ],
    }


def responses(visits: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | int | None]]:
    """The spread of all response times, and of those on each side's legs, in milliseconds."""
    times = [(answer["leg"], answer["ms"]) for visit in visits for answer in visit["responses"]]
    return {
        "all": spread((ms for _, ms in times), 0),
        "visitor": spread((ms for leg, ms in times if leg.startswith("visitor")), 0),
        "resident": spread((ms for leg, ms in times if leg.startswith("resident")), 0),
    }


def strays(visits: Sequence[Mapping[str, Any]]) -> list[str]:
    """The visits that ended otherwise than they must, in words."""
    return [
        f"{visit['name']}: ended as {visit['outcome']}, not as {visit['expected']}"
        for visit in visits
        if visit["outcome"] != visit["expected"]
    ]


__all__ = ["SCENES", "Scene", "measure_visits", "responses", "strays"]
