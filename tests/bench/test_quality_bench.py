"""`porteiro bench --quality`: its bounds are kept, and each of its measures tells good sound from bad."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from audio import resample
from audio.frames import SILENCE, samples_of, saturated
from audio.g711 import ulaw_decode, ulaw_encode
from audio.playout import Playout
from bench import quality
from bridge.cli import main
from providers.local.models import default_sources, fetch, models_root, verified_dir
from providers.local.recognition import Recogniser
from tests.audio.test_vad import model

COARSE_HZ = 350
ROOT = Path(__file__).parents[2]


def figures() -> dict[str, quality.Figure]:
    return {figure.name: figure for figure in quality.sound_figures(COARSE_HZ, seconds=1.0)}


def broken() -> set[str]:
    return {name for name, figure in figures().items() if not figure.kept}


def test_the_service_keeps_every_bound() -> None:
    assert broken() == set()


def test_a_filter_that_lets_through_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shorter one, as quick resamplers have it: its slope is four times as wide."""
    monkeypatch.setattr(resample, "_HALF_WIDTH", 4)
    resample._kernel.cache_clear()
    try:
        assert {
            "images up, beyond 4.6 kHz",
            "aliases down, from beyond 4.6 kHz",
            "ripple up, 50 Hz to 3.4 kHz",
            "ripple down, 50 Hz to 3.4 kHz",
        } <= broken()
    finally:
        resample._kernel.cache_clear()


def test_a_filter_that_is_too_long_is_felt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resample, "_HALF_WIDTH", 32)
    resample._kernel.cache_clear()
    try:
        assert broken() == {"delay up", "delay down"}
    finally:
        resample._kernel.cache_clear()


def test_a_frame_that_is_lost_is_a_gap_and_a_click(monkeypatch: pytest.MonkeyPatch) -> None:
    played = Playout.next_frame
    count = 0

    def forgetful(playout: Playout) -> bytes:
        nonlocal count
        count += 1
        frame = played(playout)
        return SILENCE if count % 20 == 0 else frame

    monkeypatch.setattr(Playout, "next_frame", forgetful)
    assert {
        "samples that cutting up has changed",
        "the loudest click in a tone, both ways",
        "THD+N, both ways",
    } <= broken()


def test_distortion_is_measured_as_it_is() -> None:
    clean = samples_of(quality.tone(quality.REFERENCE_HZ, 8000, 1.0)).astype(np.float64)
    third = np.sin(3 * 2 * np.pi * quality.REFERENCE_HZ * np.arange(8000) / 8000)
    one_percent = saturated(clean + 0.01 * abs(clean).max() * third)
    assert quality.thd_n(one_percent) == pytest.approx(-40, abs=0.1)


@pytest.mark.parametrize(
    ("wanted", "got", "errors"),
    [
        ("pode liberar", "pode liberar", 0),
        ("pode liberar", "pode", 1),
        ("pode", "não pode", 1),
        ("pode liberar", "pogi liberar", 1),
        ("sim", "", 1),
        ("", "sim", 1),
    ],
)
def test_words_are_counted_as_wrong_once_each(wanted: str, got: str, errors: int) -> None:
    assert quality.word_errors(wanted.split(), got.split()) == errors


def test_every_line_leaves_speech_as_long_as_it_was_and_does_something_to_it() -> None:
    said = quality.spoken(1)[0].pcm
    made = quality.lines()
    for name, line in made.items():
        assert len(line(said)) == len(said), name
        assert (line(said) == said) == (name == "as recorded")
    assert made["mu-law"](said) == ulaw_decode(ulaw_encode(said))


@pytest.mark.parametrize("count", [1, 2, 21, 83, 84])
def test_as_many_recordings_as_were_asked_for_each_once(count: int) -> None:
    chosen = quality.spoken(count)
    assert len(chosen) == count == len({one.pcm for one in chosen})


def test_the_bridge_costs_the_recogniser_no_words() -> None:
    """A tiny part: two sentences through mu-law. The command takes more, over more kinds of lines."""
    root = models_root(None, cwd=ROOT, environ=os.environ)
    fetch(root, default_sources(None))
    recogniser = Recogniser(verified_dir(root), model(), threads=2)
    try:
        found = quality.recognised(recogniser, "mu-law", quality.lines()["mu-law"], quality.spoken(2))
    finally:
        recogniser.close()
    assert found.words >= 8
    assert found.bridged >= 0.75
    assert found.bridged >= found.direct - 0.15


def test_the_command_prints_the_tones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--quality", "--recordings", "0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kept"] and found["words"] == [] and len(found["sound"]) == 14


def test_recordings_that_there_are_not_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--quality", "--recordings", "85"]) == 1
    assert "found 85; allowed are 0 to 84" in capsys.readouterr().err
