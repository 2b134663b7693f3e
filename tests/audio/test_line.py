"""The queue between two callers: what goes in comes out, in order, soon, and never more than must wait."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio.frames import FRAME_BYTES, FRAME_SAMPLES, SILENCE
from audio.line import MOST_FRAMES, SETTLE_FRAMES, Line


def numbered(first: int, samples: int) -> bytes:
    """Samples that count upwards from 1, so that each tells where it came from."""
    return b"".join(((first + n) % 32_000 + 1).to_bytes(2, "little") for n in range(samples))


def test_a_frame_waits_for_the_next_tick_and_no_longer() -> None:
    line = Line()
    for n in range(100):
        frame = numbered(n * FRAME_SAMPLES, FRAME_SAMPLES)
        line.push(frame)
        assert line.next_frame() == frame
        assert line.waiting_samples == 0
    assert (line.gaps, line.dropped_samples) == (0, 0)


def test_before_anybody_spoke_there_is_silence_and_no_gap() -> None:
    line = Line()
    assert [line.next_frame() for _ in range(3)] == [SILENCE] * 3
    assert line.gaps == 0
    line.push(bytes(2) * FRAME_SAMPLES)
    line.next_frame()
    assert line.next_frame() == SILENCE
    assert line.gaps == 1


def test_a_frame_that_came_late_costs_one_gap_and_then_waits_one_frame() -> None:
    line = Line()
    line.push(numbered(0, FRAME_SAMPLES))
    line.next_frame()
    assert line.next_frame() == SILENCE  # the second is late
    for n in range(1, 40):
        line.push(numbered(n * FRAME_SAMPLES, FRAME_SAMPLES))
        assert line.next_frame() == numbered(n * FRAME_SAMPLES, FRAME_SAMPLES)
    assert (line.gaps, line.dropped_samples) == (1, 0)


def test_a_burst_is_cut_to_what_may_wait_and_its_oldest_goes() -> None:
    line = Line()
    line.push(numbered(0, 20 * FRAME_SAMPLES))
    assert line.waiting_samples == MOST_FRAMES * FRAME_SAMPLES
    assert line.dropped_samples == (20 - MOST_FRAMES) * FRAME_SAMPLES
    assert line.next_frame() == numbered((20 - MOST_FRAMES) * FRAME_SAMPLES, FRAME_SAMPLES)


def test_what_a_burst_left_waiting_goes_within_seconds() -> None:
    line = Line()
    line.push(bytes(MOST_FRAMES * FRAME_BYTES))
    for _ in range(SETTLE_FRAMES * (MOST_FRAMES + 1)):
        line.push(SILENCE)
        line.next_frame()
    assert line.waiting_samples < FRAME_SAMPLES, "a frame that was never needed is still waiting"
    assert line.gaps == 0


@pytest.mark.parametrize("parts_per_million", [-300, 300])
def test_a_telephone_whose_clock_is_wrong_is_heard_without_growing_late(parts_per_million: int) -> None:
    line, owed, deepest = Line(), 0.0, 0
    for _ in range(10 * 60 * 50):  # ten minutes
        owed += FRAME_SAMPLES * (1 + parts_per_million / 1e6)
        if owed >= FRAME_SAMPLES:
            line.push(SILENCE)
            owed -= FRAME_SAMPLES
        if owed >= FRAME_SAMPLES:
            line.push(SILENCE)
            owed -= FRAME_SAMPLES
        line.next_frame()
        deepest = max(deepest, line.waiting_samples)
    assert deepest <= 2 * FRAME_SAMPLES
    assert line.gaps <= 10, "at most one a minute"
    assert line.dropped_samples <= 10 * FRAME_SAMPLES


def test_jitter_below_a_frame_costs_one_frame_of_waiting_and_one_gap() -> None:
    chance, line = random.Random(7), Line()
    arrivals = [n * 0.020 + chance.uniform(0.0, 0.019) for n in range(3000)]
    waits, sent, taken = [], 0, 0
    for tick in range(3000):
        now = tick * 0.020 + 0.010
        while sent < len(arrivals) and arrivals[sent] <= now:
            line.push(numbered(sent * FRAME_SAMPLES, FRAME_SAMPLES))
            sent += 1
        if line.next_frame() != SILENCE:
            waits.append(now - arrivals[taken])
            taken += 1
    assert line.gaps <= 2
    assert max(waits) <= 0.020 + 0.020 + 0.001, "one frame of queue beside the jitter"


@pytest.mark.parametrize("length", [1, 3, 321])
def test_half_a_sample_is_refused_and_nothing_of_it_taken(length: int) -> None:
    line = Line()
    with pytest.raises(ValueError, match="whole number of 16-bit samples"):
        line.push(bytes(length))
    assert line.waiting_samples == 0


@given(st.lists(st.one_of(st.none(), st.integers(0, 1500)), max_size=300))
def test_whatever_comes_is_heard_once_in_order_or_counted_as_dropped(steps: list[int | None]) -> None:
    line, pushed, heard = Line(), 0, bytearray()
    for step in steps:
        if step is None:
            frame = line.next_frame()
            assert len(frame) == FRAME_BYTES
            heard += frame if frame != SILENCE else b""
        else:
            line.push(numbered(pushed, step))
            pushed += step
        assert line.waiting_samples <= MOST_FRAMES * FRAME_SAMPLES
        assert pushed == len(heard) // 2 + line.waiting_samples + line.dropped_samples
    values = [int.from_bytes(heard[n : n + 2], "little") for n in range(0, len(heard), 2)]
    if pushed < 32_000:
        assert values == sorted(set(values)), "each once, in order"
