"""`porteiro bench --hearing`: the situations of the goals, and the same figures each time."""

from __future__ import annotations

import numpy as np
import pytest

from audio.vad import VadProfile
from bench.hearing import Scene, modes, run, scenes
from bench.voice import crowd, measure_voice, missed_after_noise
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


def test_each_way_of_dealing_with_our_echo_has_its_figures_where_we_talk() -> None:
    assert {tuple(modes(one)) for one in scenes(2) if one.we_talk} == {("guard", "aec3", "none")}
    assert [modes(one) for one in scenes(2) if not one.we_talk] == [["guard"]]


def test_who_speaks_in_noise_is_heard_and_who_is_too_soft_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    found = missed_after_noise(model(), VadProfile(), each=14, seconds=5)
    assert (found["spoken"], found["missed"]) == (6, 0)
    monkeypatch.setattr("bench.voice.SPEECH_DBOV", -60.0)
    assert missed_after_noise(model(), VadProfile(), each=14, seconds=5)["missed"] == 6


def test_the_voice_detector_is_measured_with_and_without_forgetting() -> None:
    found = measure_voice(model(), minutes=1, each=28, noise_s=5)
    assert set(found) == {"forgets", "keeps"}
    for figures in found.values():
        assert figures["after_noise"]["missed"] == 0
        assert figures["crowd_of_20"]["minutes"] == 1


def test_a_crowd_is_as_loud_as_it_is_said_to_be() -> None:
    sound = crowd(10, 2, np.random.default_rng(1))
    assert len(sound) == 16000
    assert 20 * np.log10(np.sqrt((sound**2).mean()) / 32768) == pytest.approx(-40)


def test_minutes_that_make_no_sense_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--hearing", "--minutes", "0"]) == 1
    assert "found 0; allowed are 1 to 600" in capsys.readouterr().err
