"""`porteiro bench --visits`: the times of a real visit, and that a visit gone astray is not passed over."""

from __future__ import annotations

import argparse
import json
from typing import Any

import pytest

from bench.run import machine
from bench.visits import SCENES, Scene, measure_visits, responses, strays
from bridge.commands import bench


def test_every_scene_has_its_recordings_and_an_outcome_of_the_resident() -> None:
    for scene in SCENES:
        assert scene.outcome in ("authorized", "denied")
        for step in (*scene.cast.visitor, *scene.cast.resident):
            file = getattr(step, "file", None)
            assert file is None or file.is_file(), scene.name


def test_a_visit_is_measured_and_its_outcome_held_against_what_it_must_be() -> None:
    """The resident refuses: the shortest visit that has answers on both legs."""
    told: list[str] = []
    scene = SCENES[-1]
    found = measure_visits(told.append, [scene])
    (visit,) = found["visits"]
    assert scene.name in told[-1]
    assert visit["outcome"] == "denied" and strays(found["visits"]) == []
    assert {answer["leg"].split("-")[0] for answer in visit["responses"]} == {"visitor", "resident"}
    everything = found["response_ms"]["all"]
    assert everything["count"] == len(visit["responses"]) >= 2
    assert 100 < everything["p50"] <= everything["p95"] <= everything["max"] < 30_000


def _visit(outcome: str, *answers: tuple[str, float]) -> dict[str, Any]:
    said = [{"leg": leg, "text": "", "ms": ms} for leg, ms in answers]
    return {"name": "a", "outcome": outcome, "expected": "authorized", "responses": said}


def test_what_the_times_amount_to() -> None:
    found = responses(
        [
            _visit("authorized", ("visitor", 900.4), ("visitor", 1100), ("resident-1", 1500)),
            _visit("denied", ("resident-2", 700)),
        ]
    )
    assert found["all"] == {"count": 4, "p50": 900.0, "p95": 1500.0, "p99": 1500.0, "max": 1500.0}
    assert found["visitor"]["count"] == 2 and found["resident"]["count"] == 2
    assert responses([])["all"]["max"] is None


@pytest.mark.parametrize(("outcome", "status"), [("authorized", 0), ("failed", 1)])
def test_a_visit_that_went_astray_is_said_and_fails_the_command(
    outcome: str, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = [_visit(outcome, ("visitor", 1000.0))]
    found = {
        "at": "2026-11-21",
        "machine": machine(),
        "visits": made,
        "response_ms": responses(made),
    }
    monkeypatch.setattr(bench, "measure_visits", lambda _: found)
    parser = argparse.ArgumentParser()
    bench.add_parser(parser.add_subparsers())
    assert bench.run(parser.parse_args(["bench", "--visits"])) == status
    shown = capsys.readouterr()
    assert "1000" in shown.out
    assert ("ended as failed, not as authorized" in shown.err) is bool(status)
    assert bench.run(parser.parse_args(["bench", "--visits", "--json"])) == status
    assert json.loads(capsys.readouterr().out)["response_ms"]["all"]["max"] == 1000


def test_a_scene_reads_keys_and_recordings() -> None:
    scene = Scene("x", "authorized", ("v05-leticia",), ("r20-grave", "1"))
    assert [type(step).__name__ for step in scene.cast.resident] == ["Say", "Key"]
