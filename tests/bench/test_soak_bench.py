"""`porteiro bench --soak`: what is said of growth, on curves that are known; the VAD's drift; a small run."""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from audio.vad import VadModel, VadProfile
from bench.drift import drift
from bench.growth import Growth, growth
from bench.heard import RACES
from bench.soak import ALLOWED_PER_HOUR, complaints, judged
from bridge.commands import bench
from bridge.runner import silero_onnx

TIMES = [10.0 * n for n in range(360)]


@given(slope=st.floats(-50, 50), level=st.floats(0, 500))
def test_a_straight_line_is_found_for_sure(slope: float, level: float) -> None:
    found = growth(TIMES, [level + slope * at / 3600 for at in TIMES])
    assert found.per_hour == pytest.approx(slope, abs=1e-6)
    assert found.sure == pytest.approx(0.0, abs=1e-6)
    assert found.last - found.first == pytest.approx(0.75 * slope, rel=0.02, abs=1e-6)


def test_what_comes_and_goes_does_not_grow_and_a_leak_in_it_does() -> None:
    wrong = 0
    for seed in range(40):
        chance = np.random.default_rng(seed)
        # Each sample resembles the last: calls are longer than the time between two.
        level = np.zeros(len(TIMES))
        for n in range(1, len(level)):
            level[n] = 0.7 * level[n - 1] + chance.normal(0, 1)
        wrong += growth(TIMES, list(100 + level)).exceeds(0.0)
        assert growth(TIMES, list(100 + level + 6 * np.asarray(TIMES) / 3600)).exceeds(1.0)
    assert wrong <= 4  # 2.5 % of them should, by chance


def test_too_few_samples_say_nothing() -> None:
    with pytest.raises(ValueError, match="found 15 samples; allowed are 16 or more"):
        growth(TIMES[:15], TIMES[:15])


def samples(leak_mb: float) -> list[dict[str, float]]:
    """An hour's, with a history that fills in its first ten minutes."""
    return [
        {
            "at_s": at,
            "rss_mb": 150 + min(at, 600) / 60 + leak_mb * at / 3600,
            "tasks": 50 + at % 30 / 10,
            "descriptors": 40.0,
            "threads": 9.0,
            "processes": 1.0,
        }
        for at in TIMES
    ]


def soaked(leak_mb: float, *, errors: Mapping[str, int] | None = None, after: int = 250) -> dict[str, Any]:
    grown = {
        name: {part: getattr(found, part) for part in Growth.__slots__}
        for name, found in judged(samples(leak_mb)).items()
    }
    assert grown.keys() == ALLOWED_PER_HOUR.keys()
    vad = {"before": {"spoken": 252, "heard": 252}, "after": {"spoken": 252, "heard": after}}
    return {"growth": grown, "provider_errors": errors or {}, "vad": vad}


def test_only_what_grows_is_complained_of() -> None:
    assert complaints(soaked(0.5)) == []
    assert complaints(soaked(3.0)) == ["rss_mb grows by 3.00 ± 0.00 an hour"]
    refused = {"invalid_value": 2, "response_cancel_not_active": 1}
    assert complaints(soaked(0.0, errors=refused)) == ["the provider refused 2 messages: invalid_value"]
    assert complaints(soaked(0.0, after=240)) == [
        "the VAD heard 240 of 252 onsets after the noise, 252 before"
    ]
    assert judged(samples(0.0)[:15]) == {}


def test_the_vad_hears_after_noise_as_before_because_it_forgets() -> None:
    model = VadModel(silero_onnx())
    found = drift(model, 0.3, recordings=6)
    assert found["before"]["heard"] >= 0.98 * found["before"]["spoken"]
    assert found["after"]["heard"] >= 0.98 * found["after"]["spoken"]
    never = drift(model, 0.3, VadProfile(reset_after_ms=10_000_000), recordings=6)
    assert never["after"]["heard"] < 0.97 * never["after"]["spoken"], "it would not have been noticed"


def arguments(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench.add_parser(parser.add_subparsers())
    return parser.parse_args(["bench", *given])


def test_calls_come_and_go(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.run(arguments("--soak", "--minutes", "0.3", "--calls", "4", "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["calls"] == 18 and found["replies"] >= 10 and not found["provider_errors"].keys() - RACES
    for sample in found["samples"]:
        assert sample["tasks"] > 0 and sample["rss_mb"] > 50 and sample["calls"] <= 9
    assert found["growth"] == {}
    shown = Console(record=True, file=io.StringIO(), width=120)
    bench.show_soak(found | {"growth": soaked(0.5)["growth"]}, shown)
    assert "rss mb" in shown.export_text()


def test_so_long_a_soak_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.run(arguments("--soak", "--minutes", "0.1")) == 1
    assert "minutes: found 0.1; allowed are 0.2 to 600" in capsys.readouterr().err
