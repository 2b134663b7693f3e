"""Recorded visits with turns by our own VAD: they end as they must, and their silence is not sent."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge.demo.script import step
from bridge.demo.stage import DATA, Cast, Stage, stage_settings

pytestmark = pytest.mark.timeout(300)


def says(name: str) -> Any:
    return step(str(DATA / "audio" / f"{name}.wav"))


DELIVERY = Cast([says(f"{name}-leticia") for name in ("v01", "v10", "v03")], [says("r03-grave")])
REFUSED = Cast([says("v05-leticia")], [says("r04-leticia")])


async def _play(out: Path) -> tuple[Mapping[str, Any], ...]:
    settings = stage_settings(out, turn_detection={"kind": "local"})
    with (out / "model.log").open("w") as log:
        async with Stage(settings, log=log) as stage:
            return await asyncio.gather(stage.play(DELIVERY), stage.play(REFUSED))


def test_recorded_visits_end_as_they_must_and_most_of_their_audio_is_not_sent(tmp_path: Path) -> None:
    with capture_logs() as logs:
        delivery, refused = asyncio.run(_play(tmp_path))
    assert (delivery["outcome"], delivery["gate_opened"]) == ("authorized", True)
    assert (refused["outcome"], refused["gate_opened"]) == ("denied", False)
    spared = [line for line in logs if line["event"] == "session.silence_spared"]
    assert len(spared) == 4
    for line in spared:
        share = line["spared_s"] / (line["sent_s"] + line["spared_s"])
        assert share > 0.5, "a line says more than it listens"
