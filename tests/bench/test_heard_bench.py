"""`porteiro bench --heard`: the comparison, on logs whose every difference is known; then a small run."""

from __future__ import annotations

import argparse
import io
import json
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from bench.callers import FRAME_S, Log
from bench.figures import ModelLog
from bench.heard import Position, kept, positions
from bridge.commands import bench


def heard(pattern: str) -> Log:
    """A log of frames that came every 20 ms from 100 s on; `x` is audible, `.` is silence."""
    arrived = array("d", (100 + n * FRAME_S for n in range(len(pattern))))
    return Log(arrived=arrived, audible=bytearray(c == "x" for c in pattern))


def at(frame: float) -> float:
    return 100 + (frame + 0.5) * FRAME_S


@given(
    heard_frames=st.lists(st.integers(0, 60), min_size=1, max_size=8),
    off_ms=st.lists(st.integers(-40, 40), min_size=8, max_size=8),
    pause=st.integers(0, 7),
)
def test_each_barge_in_is_held_against_its_own_reply(
    heard_frames: list[int], off_ms: list[int], pause: int
) -> None:
    pattern, replies, told = "....", [], []
    for number, (frames, off) in enumerate(zip(heard_frames, off_ms, strict=False)):
        replies.append((at(len(pattern)), f"item_{number}", 3000.0))
        # We may have paused before we stopped: what was heard is heard, in one piece or in two.
        pattern += ".." + "x" * (frames // 2) + "." * pause + "x" * (frames - frames // 2)
        told.append((at(len(pattern)), f"item_{number}", frames * 20 + off))
        pattern += "." * 30
    found = positions(heard(pattern), ModelLog(replies=replies, truncations=told))
    assert [position.heard_ms for position in found] == [frames * 20 for frames in heard_frames]
    assert [position.off_ms for position in found] == off_ms[: len(heard_frames)]


def test_a_reply_that_is_sent_while_another_is_heard_is_heard_behind_it() -> None:
    # The first is heard to its end, the second cut off, the third, already there, is deleted.
    log = heard("...." + "x" * 50 + "x" * 20 + "." * 40)
    replies = [(at(3), "one", 1000.0), (at(10), "two", 2000.0), (at(20), "three", 600.0)]
    deltas = [(at(n), reply, 4800 * piece) for reply, n in ((0, 3), (1, 10), (2, 20)) for piece in range(3)]
    deltas += [(at(5), 0, 4800 * 3), (at(6), 0, 4800 * 4)]
    told = [(at(76), "two", 400), (at(76), "three", 0)]
    model = ModelLog(replies=replies, deltas=deltas, truncations=told)
    assert positions(log, model) == [Position(400, 400), Position(0, 0)]


def test_a_cancelled_reply_of_which_all_that_came_was_heard_is_no_longer_than_that() -> None:
    log = heard("...." + "x" * 10 + "...." + "x" * 20 + "." * 40)
    replies = [(at(3), "one", 3000.0), (at(15), "two", 2000.0)]
    model = ModelLog(replies=replies, deltas=[(at(3), 0, 0)], truncations=[(at(40), "two", 400)])
    assert positions(log, model) == [Position(400, 400)]


def test_what_comes_behind_the_truncation_was_heard_as_well() -> None:
    log = heard("...." + "x" * 20 + "." * 40)
    model = ModelLog(replies=[(at(3), "item", 3000.0)], truncations=[(at(14), "item", 220)])
    assert positions(log, model) == [Position(220, 400)]


def test_of_a_reply_that_was_deleted_before_its_first_sound_nothing_may_be_heard() -> None:
    model = ModelLog(replies=[], truncations=[(at(14), "item", 0)])
    assert positions(heard("." * 60), model) == [Position(0, 0)]


@pytest.mark.parametrize(
    ("barge_ins", "within", "errors", "good"),
    [
        (10, 10, {}, True),
        (10, 10, {"response_cancel_not_active": 1}, True),
        (10, 9, {}, False),
        (10, 10, {"invalid_value": 1}, False),
        (0, 0, {}, False),
    ],
)
def test_one_that_is_wrong_is_a_failure(
    barge_ins: int, within: int, errors: dict[str, int], good: bool
) -> None:
    found = {"barge_ins": barge_ins, "within_a_frame": within, "provider_errors": errors}
    assert kept(found) is good


def arguments(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench.add_parser(parser.add_subparsers())
    return parser.parse_args(["bench", *given])


def test_the_service_tells_the_model_what_was_heard(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.run(arguments("--heard", "3", "--calls", "3", "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["barge_ins"] >= 3
    assert found["within_a_frame"] == found["barge_ins"]
    assert found["heard_ms"]["max"] > 0
    shown = Console(record=True, file=io.StringIO(), width=120)
    bench.show_heard(found, shown)
    assert "told within a frame" in shown.export_text()


def test_no_barge_ins_are_no_measurement(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.run(arguments("--heard", "0")) == 1
    assert "heard: found 0; allowed are 1 to 100000" in capsys.readouterr().err
