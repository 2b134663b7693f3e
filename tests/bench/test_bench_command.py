"""`porteiro bench`, small: three real processes, and figures that can be true."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.children import Child, ChildError
from bench.clock import on_grid
from bench.run import Plan
from bridge.commands import bench
from bridge.settings import SettingsError, Tenant


def bench_arguments(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench.add_parser(parser.add_subparsers())
    return parser.parse_args(["bench", *given])


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """One run of two calls and four seconds, for all that is checked of it."""
    with pytest.MonkeyPatch.context() as patch:
        out = io.StringIO()
        patch.setattr("sys.stdout", out)
        assert bench.run(bench_arguments("--calls", "2", "--seconds", "4", "--record", "--json")) == 0
    result: dict[str, Any] = json.loads(out.getvalue())
    return result


def test_it_measured_the_calls_it_was_asked_for(found: dict[str, Any]) -> None:
    assert found["plan"] == {
        "calls": 2, "seconds": 4.0, "talk": 0.4, "record": True, "pace": 4.0,
        "provider_format": "pcm24", "workers": 1, "phases": 4,
    }  # fmt: skip
    assert 0 < found["cpu"]["ms_per_call_second"] < 1000
    for who in ("callers", "model"):
        assert 0 < found["load_cpu"][who]["ms_per_call_second"] < 100
    assert 50 < found["memory"]["idle_mb"] < 1000
    assert found["memory"]["loaded_mb"] >= found["memory"]["idle_mb"] * 0.8
    assert 0 < found["spoken_share"] <= 1


def test_frames_flowed_both_ways_at_real_time(found: dict[str, Any]) -> None:
    expected = 2 * 4 * 50
    assert abs(found["frames"] - expected) <= 0.1 * expected
    messages = expected * 20 / Tenant.model_fields["audio_message_ms"].default
    assert abs(found["latency_up_ms"]["total"]["count"] - messages) <= 0.1 * messages


def test_every_figure_is_one_that_can_be_true(found: dict[str, Any]) -> None:
    for part in ("latency_up_ms", "latency_down_ms"):
        assert found[part]["total"]["count"] > 0, part
        for values in found[part].values():
            assert values["p50"] <= values["p95"] <= values["p99"] <= values["max"], part
    # What the resampler keeps back is a property of it, however busy the machine is.
    assert found["latency_up_ms"]["algorithmic"]["p50"] == 2.0
    assert found["latency_up_ms"]["processing"]["p50"] > 0
    assert 0 <= found["latency_down_ms"]["grid"]["max"] <= 20
    assert found["frame_lateness_ms"]["p50"] >= 0


def test_no_sound_was_lost(found: dict[str, Any]) -> None:
    assert found["lost"]["up_ms"] == 0
    assert found["lost"]["frames_dropped_by_endpoint"] == 0
    assert found["lost"]["unmatched_marks"] == 0


def test_g711_goes_all_the_way_without_a_resampler(capsys: pytest.CaptureFixture[str]) -> None:
    given = ("--calls", "1", "--seconds", "3", "--provider-format", "pcmu", "--pace", "1", "--json")
    assert bench.run(bench_arguments(*given)) == 0
    found = json.loads(capsys.readouterr().out)
    up = found["latency_up_ms"]
    assert up["total"]["count"] > 50
    assert up["algorithmic"]["max"] == 0.0
    assert found["latency_down_ms"]["total"]["count"] + found["frames"] > 100
    assert found["lost"]["up_ms"] == 0 and found["lost"]["unmatched_marks"] == 0


def test_it_is_shown_to_people_as_well(found: dict[str, Any]) -> None:
    out = io.StringIO()
    bench.show(found, Console(file=out, width=120))
    shown = out.getvalue()
    assert "ms a call-second" in shown and "added latency up" in shown and "lost    " in shown


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (("--calls", "0"), "calls: found 0; allowed are 1 to 1000"),
        (("--seconds", "1"), "seconds: found 1; allowed are 2 to 36000"),
        (("--workers", "0"), "workers: found 0; allowed are 1 to 64"),
        (("--pace", "0.5"), "pace: found 0.5; allowed are 1 to 100"),
        (("--talk", "1.5"), "talk: found 1.5; allowed is more than 0, and at most 1"),
    ],
)
def test_what_makes_no_sense_is_refused(
    given: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.run(bench_arguments(*given)) == 1
    assert capsys.readouterr().err == f"porteiro bench: {complaint}\n"


def test_a_process_that_dies_is_named_with_what_it_said_last(tmp_path: Path) -> None:
    with (
        Child("bench.service_process", {}, tmp_path / "log") as child,
        pytest.raises(ChildError, match=r"bench\.service_process ended; (.|\n)*KeyError: 'folder'"),
    ):
        child.ready()


def test_its_settings_send_no_key_of_ours_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.service_process import settings

    monkeypatch.setenv("OPENAI_API_KEY", "a real one")
    given = settings(tmp_path, "http://127.0.0.1:1/v1", 3, 5.0, False)
    assert given.secret("OPENAI_API_KEY") == "bench"
    with pytest.raises(SettingsError):
        settings(tmp_path, "no url", 3, 5.0, False)


def test_a_plan_is_what_its_options_say() -> None:
    assert Plan(1, 2.0) == Plan(calls=1, seconds=2.0, talk=0.4, record=False)


# --------------------------------------------------------------------------------------------- --clock


def test_the_clock_is_measured_over_speech() -> None:
    with pytest.MonkeyPatch.context() as patch:
        out = io.StringIO()
        patch.setattr("sys.stdout", out)
        assert bench.run(bench_arguments("--clock", "--seconds", "3", "--json")) == 0
    found: dict[str, Any] = json.loads(out.getvalue())
    assert found["seconds"] == 3.0 and found["spoken_share"] > 0.95
    for times in (found["socket"], found["sleeper"]):
        assert abs(times["count"] - 150) <= 15
        assert 0 < times["near"] <= 1 and times["worst_ms"] > 0
    shown = Console(record=True, file=io.StringIO(), width=80)
    bench.show_clock(found, shown)
    assert f"{found['socket']['near']:.2%} of {found['socket']['count']}" in shown.export_text()


def test_the_grid_is_the_one_that_fits_best() -> None:
    places = [7.3 + number * 0.02 for number in range(100)]
    assert (whole := on_grid(places)).near == 1.0
    assert whole.count == 100 and whole.worst_ms == pytest.approx(0.0, abs=1e-6)
    places[10] += 0.004
    places[20] += 0.006
    places[30] -= 0.009
    grid = on_grid(places)
    assert grid.near == 0.98 and grid.worst_ms == pytest.approx(9.0)


@pytest.mark.parametrize("seconds", ["0", "1.9", "501"])
def test_so_much_speech_is_not_measured(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.run(bench_arguments("--clock", "--seconds", seconds)) == 1
    assert f"seconds: found {seconds}; allowed are 2 to 500" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------- --workers


def test_all_processes_of_the_service_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.run(bench_arguments("--calls", "2", "--seconds", "2", "--workers", "2", "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["memory"]["processes"] >= 3, "a front and two workers"
    assert found["frames"] > 100 and found["cpu"]["ms_per_call_second"] > 0
    assert "service_says" not in found, "nobody knows it of all of them"
    bench.show(found, Console(file=io.StringIO(), width=120))
