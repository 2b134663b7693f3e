"""`porteiro bench --hearing`: the situations of the goals, and the same figures each time."""

from __future__ import annotations

import pytest

from bench.hearing import Scene, run, scenes
from bridge.cli import main
from tests.audio.test_vad import model


def test_a_scene_gives_the_same_figures_each_time() -> None:
    scene = Scene("two callers", 0.5, caller=True, echo_db=-12)
    first, again = (run(model(), scene, seed=3).figures() for _ in range(2))
    assert first == again
    assert first["minutes"] == 0.5
    assert first["spoken"] >= first["caught"] > 0


def test_every_goal_has_its_scene() -> None:
    made = scenes(2)
    assert len({one.name for one in made}) == len(made) == 8
    assert {one.echo_db for one in made} == {None, -6, -18}
    assert all(one.minutes == 2 for one in made)


def test_minutes_that_make_no_sense_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--hearing", "--minutes", "0"]) == 1
    assert "found 0; allowed are 1 to 600" in capsys.readouterr().err
