"""The benchmark's arithmetic, on logs whose every latency is known beforehand."""

from __future__ import annotations

from array import array

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio.frames import FRAME_SAMPLES
from audio.resample import Resampler
from bench import media
from bench.callers import FRAME_S, Log
from bench.figures import (
    ModelLog,
    Window,
    barge_ins,
    cpu,
    downlink,
    gaps,
    lateness,
    of_calls,
    spread,
    uplink,
)

ALWAYS = Window(0.0, 1e9)
HELD_BACK = 16
"""Samples of the caller's, as the service's resampler does: 2 ms."""


def talked(frames: int, at: float = 100.0) -> Log:
    """A log of frames sent every 20 ms, with a mark in frame 10."""
    return Log(sent=array("d", (at + n * FRAME_S for n in range(frames))), marks=[10 * FRAME_SAMPLES])


def model_of(log: Log, delay_s: float, *, skipped: int = 4, lost: int = 0) -> ModelLog:
    """What a model server would have noted that never got the first `skipped` frames, and from frame 20 on
    lost so many samples."""
    times, counts = [], []
    for frame in range(skipped, len(log.sent)):
        samples = (frame + 1 - skipped) * FRAME_SAMPLES - HELD_BACK - (lost if frame >= 20 else 0)
        times.append(log.sent[frame] + delay_s)
        counts.append(samples * media.RATIO)
    marks = [
        (mark - skipped * FRAME_SAMPLES - (lost if mark >= 20 * FRAME_SAMPLES else 0)) * media.RATIO
        + media.mark_lead()
        for mark in log.marks
    ]
    return ModelLog(times, counts, marks)


def heard(pattern: str, at: float = 100.0) -> Log:
    """A log of frames that came every 20 ms; `x` is audible, `.` is silence."""
    arrived = array("d", (at + n * FRAME_S for n in range(len(pattern))))
    return Log(arrived=arrived, audible=bytearray(c == "x" for c in pattern))


@given(delay_ms=st.floats(0.0, 19.0), skipped=st.integers(0, 9))
def test_the_way_up_is_told_apart_into_its_parts(delay_ms: float, skipped: int) -> None:
    log = talked(100)
    up = uplink(log, model_of(log, delay_ms / 1000, skipped=skipped), ALWAYS)
    assert len(up.total) == 100 - skipped
    assert up.algorithmic == pytest.approx([2.0] * len(up.algorithmic))
    assert up.processing == pytest.approx([delay_ms] * len(up.processing), abs=1e-6)
    assert up.lost_ms == 0


def test_sound_that_is_lost_on_the_way_up_is_noticed_and_does_not_count_as_latency() -> None:
    log = talked(100)
    log.marks.append(50 * FRAME_SAMPLES)
    up = uplink(log, model_of(log, 0.001, lost=2 * FRAME_SAMPLES), Window(log.sent[50], 1e9))
    assert up.lost_ms == 40
    assert max(up.processing) == pytest.approx(1.0, abs=1e-6)


def test_without_a_mark_there_is_no_figure() -> None:
    log = talked(100)
    log.marks.clear()
    assert len(uplink(log, model_of(log, 0.001), ALWAYS).total) == 0


@pytest.mark.parametrize("cut", [0, 1, 37, 159])
def test_the_mark_is_found_where_it_was_sent_through_a_real_resampler(cut: int) -> None:
    stream = bytes(2 * (1000 + cut)) + media.mark() + bytes(2000)
    samples = np.frombuffer(Resampler(8000, media.MODEL_RATE).process(stream), "<i2")
    found = int(np.argmax(samples >= media.MARK_LEVEL))
    assert round((found - media.mark_lead()) / media.RATIO) == 1000 + cut


def test_the_way_down_waits_for_the_grid_and_no_longer() -> None:
    log = heard("....xxxx")
    model = ModelLog(replies=[(log.arrived[4] - 0.013, "item", 80)])
    down = downlink(log, model, ALWAYS)
    assert down.grid == pytest.approx([13.0])
    assert down.processing == pytest.approx([0.0], abs=1e-6)


def test_each_further_piece_is_timed_from_when_its_turn_came() -> None:
    log = heard("...." + "x" * 30)
    log.arrived[24] += 0.007
    began = log.arrived[4] - 0.005
    # The second waits for its turn and is late then, the third comes too late itself.
    deltas = [(began, 0, 0), (began + 0.05, 0, 20 * 480), (log.arrived[29] - 0.003, 0, 25 * 480)]
    down = downlink(log, ModelLog(replies=[(began, "item", 600)], deltas=deltas), ALWAYS)
    assert down.each_piece == pytest.approx([7.0, 0.0], abs=1e-6)


def test_a_piece_behind_a_gap_is_not_timed() -> None:
    log = heard("....xxxxx.xxxxxxxxxx")
    began = log.arrived[4] - 0.005
    deltas = [(began, 0, 0), (began + 0.05, 0, 10 * 480)]
    down = downlink(log, ModelLog(replies=[(began, "item", 600)], deltas=deltas), ALWAYS)
    assert down.each_piece == []


def test_a_reply_that_is_not_heard_is_counted() -> None:
    log = heard("." * 200)
    down = downlink(log, ModelLog(replies=[(log.arrived[4], "item", 80)]), ALWAYS)
    assert (down.total, down.unheard) == ([], 1)


def test_a_late_frame_is_late_and_the_others_are_not() -> None:
    log = heard("." * 50)
    log.arrived[20] += 0.007
    late = lateness(log, ALWAYS)
    assert late[20] == pytest.approx(7.0)
    assert sorted(late)[-2] == pytest.approx(0.0, abs=1e-6)


def test_a_frame_that_was_lost_spoils_no_more_than_its_minute() -> None:
    log = heard("." * 6000)
    for number in range(2000, 6000):
        log.arrived[number] += 0.02
    late = lateness(log, ALWAYS)
    assert list(late[:2000]) == pytest.approx([0.0] * 2000, abs=1e-6)
    assert list(late[2000:3000]) == pytest.approx([20.0] * 1000, abs=1e-6)
    assert list(late[3000:]) == pytest.approx([0.0] * 3000, abs=1e-6)


def test_silence_in_a_reply_is_a_gap_and_silence_between_two_is_none() -> None:
    assert gaps(heard("..xx..xx.xx.........xxxx..."), ALWAYS) == 3


def test_a_barge_in_lasts_from_the_first_sound_to_the_last_frame_of_ours() -> None:
    log = heard("....xxxxxxxxxx.........")
    log.sent = log.arrived[:]
    sample = 8 * FRAME_SAMPLES + 40  # 15 ms before its frame is complete
    log.says.append((6, 10, sample, True))
    found = barge_ins(log, ALWAYS)
    assert found.silent_after == pytest.approx([5 * 20 + 15])
    assert found.unheeded == 0


def test_a_barge_in_that_is_not_heeded_is_counted_as_such() -> None:
    log = heard("x" * 200)
    log.sent = log.arrived[:]
    log.says.append((20, 10, 20 * FRAME_SAMPLES, True))
    assert barge_ins(log, ALWAYS).unheeded == 1


def test_who_speaks_after_the_reply_did_not_barge_in() -> None:
    log = heard("xxxx" + "." * 60)
    log.sent = log.arrived[:]
    log.says.append((30, 10, 30 * FRAME_SAMPLES, True))
    found = barge_ins(log, ALWAYS)
    assert (found.silent_after, found.unheeded) == ([], 0)


def test_all_calls_come_together() -> None:
    logs = [talked(100), talked(100)]
    for log in logs:
        log.arrived, log.audible = log.sent[:], bytearray(100)
        log.says.append((50, 25, 50 * FRAME_SAMPLES, False))
    window = Window(logs[0].sent[0], logs[0].sent[0] + 2.0)
    found = of_calls(logs, [model_of(logs[0], 0.001), model_of(logs[1], 0.003)], window)
    assert found["latency_up_ms"]["total"] == {
        "count": 192, "p50": 3.0, "p95": 5.0, "p99": 5.0, "max": 5.0
    }  # fmt: skip
    assert found["frames"] == 200
    assert found["spoken_share"] == 0.25
    assert not any(found["lost"].values())


@given(st.lists(st.floats(0, 1000), min_size=1))
def test_a_spread_rises_and_ends_in_the_largest(values: list[float]) -> None:
    found = spread(values)
    shares = [found[name] for name in ("p50", "p95", "p99", "max")]
    assert shares == sorted(shares, key=lambda value: value or 0.0)
    assert found["max"] == round(max(values), 2)
    assert found["count"] == len(values)


def test_percentiles_are_by_nearest_rank() -> None:
    assert spread(range(1, 101)) == {"count": 100, "p50": 50, "p95": 95, "p99": 99, "max": 100}
    assert spread([7]) == {"count": 1, "p50": 7, "p95": 7, "p99": 7, "max": 7}
    assert spread([]) == {"count": 0, "p50": None, "p95": None, "p99": None, "max": None}


def test_cpu_is_for_each_second_of_each_call() -> None:
    before = {"user_s": 1.0, "system_s": 0.5, "at": 10.0, "waits": 100}
    after = {"user_s": 1.6, "system_s": 0.7, "at": 14.0, "waits": 300}
    found = cpu(before, after, call_seconds=8.0)
    assert found == {
        "ms_per_call_second": 100.0,
        "user_ms_per_call_second": 75.0,
        "system_ms_per_call_second": 25.0,
        "share_of_a_core": 0.2,
        "waits_per_second": 50.0,
    }


def test_the_recordings_are_fit_for_it() -> None:
    says, replies = media.says(), media.replies()
    assert len(says) >= 10 and len(replies) >= 4
    for say in says:
        loudest = np.abs(np.frombuffer(b"".join(say.frames), "<i2").astype(int)).max()
        assert loudest < media.MARK_LEVEL
        assert 0 < say.onset < len(say.frames) * FRAME_SAMPLES
    wide = [Resampler(media.MODEL_RATE, 8000).process(reply) for reply in (*replies, media.greeting())]
    for reply in (*wide, *media.replies(8000), media.greeting(8000)):
        down = np.frombuffer(reply, "<i2")
        frames = down[: len(down) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
        assert frames.any(axis=1).all(), "a frame of the reply could be taken for a gap"
