"""A recorded visit with turns by our own VAD: it ends as it must, and its silence is not sent."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge.demo.script import step
from bridge.demo.stage import DATA, Cast, Stage, stage_settings
from visits.visit import VisitRules

pytestmark = pytest.mark.timeout(300)


def says(name: str) -> Any:
    return step(str(DATA / "audio" / f"{name}.wav"))


DELIVERY = Cast([says(f"{name}-leticia") for name in ("v01", "v10", "v03")], [says("r03-grave")])


async def _play(out: Path) -> Mapping[str, Any]:
    settings = stage_settings(out, turn_detection={"kind": "local"})
    with (out / "model.log").open("w") as log:
        async with Stage(settings, log=log) as stage:
            return await stage.play(DELIVERY)


def test_a_recorded_visit_ends_as_it_must_and_most_of_its_audio_is_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Recognition may take longer than a visit waits for words, on a machine that does other work as well.
    monkeypatch.setattr("bridge.house.VisitRules", partial(VisitRules, transcript_s=30.0))
    with capture_logs() as logs:
        delivery = asyncio.run(_play(tmp_path))
    assert (delivery["outcome"], delivery["gate_opened"]) == ("authorized", True)
    spared = [line for line in logs if line["event"] == "session.silence_spared"]
    assert {line["leg"] for line in spared} == {"visitor", "resident-1"}
    sent_s, spared_s = (sum(line[key] for line in spared) for key in ("sent_s", "spared_s"))
    assert sent_s > 8, "what was said"
    assert spared_s > 0.7 * (sent_s + spared_s), "a caller listens for longer than they speak"
