"""Both sides of a recording lie where they were in the call, whatever the caller's clock and network do."""

from __future__ import annotations

import io
import wave

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from audio.recording import FRAME, HEADER, MAX_FRAMES, RATE, SLACK_MS, StereoTimeline, wav_header

SLACK = SLACK_MS * RATE // 1000
TICK = 160
Samples = npt.NDArray[np.int16]


class Source:
    """Samples that are all different (for 30,000), and none of them silence."""

    def __init__(self) -> None:
        self.given = 0

    def next(self, count: int) -> bytes:
        numbers = np.arange(self.given, self.given + count) % 30_000 + 1
        self.given += count
        return numbers.astype("<i2").tobytes()


def sides(stereo: bytes) -> tuple[Samples, Samples]:
    both = np.frombuffer(stereo, dtype="<i2").reshape(-1, 2)
    return both[:, 0], both[:, 1]


def numbers(count: int, start: int = 0) -> list[int]:
    return [int(n) for n in np.arange(start, start + count) % 30_000 + 1]


def test_the_caller_is_left_and_we_are_right() -> None:
    timeline = StereoTimeline()
    for _ in range(3):
        timeline.played(np.full(TICK, 7, "<i2").tobytes())
        timeline.heard(np.full(TICK, -7, "<i2").tobytes())
    left, right = sides(timeline.take() + timeline.finish())
    assert left.tolist() == [-7] * 3 * TICK
    assert right.tolist() == [7] * 3 * TICK


def test_a_caller_who_was_silent_on_the_wire_goes_on_where_the_call_is() -> None:
    timeline, caller = StereoTimeline(), Source()
    timeline.heard(caller.next(TICK))
    timeline.played(bytes(2 * 10 * RATE))
    timeline.heard(caller.next(TICK))
    left, _ = sides(timeline.finish())
    place = 10 * RATE - SLACK // 2
    assert left[:TICK].tolist() == numbers(TICK)
    assert left[place : place + TICK].tolist() == numbers(TICK, TICK)
    assert np.count_nonzero(left) == 2 * TICK
    assert timeline.padded >= place - TICK and timeline.dropped == 0


def test_the_first_words_after_a_silence_on_the_wire_are_not_torn() -> None:
    """Their frames come up to 100 ms late, each as it likes; the recording is taken meanwhile."""
    timeline, caller = StereoTimeline(), Source()
    pieces = []
    for tick in range(200):
        timeline.played(bytes(2 * TICK))
        pieces.append(timeline.take())
        for _ in range({103: 1, 106: 3, 108: 2, 112: 4}.get(tick, int(tick > 112))):
            timeline.heard(caller.next(TICK))
    left, _ = sides(b"".join(pieces) + timeline.finish())
    spoken = np.trim_zeros(left)
    assert spoken.tolist() == numbers(len(spoken))


def test_a_stall_of_the_network_shorter_than_the_slack_leaves_no_mark() -> None:
    timeline, caller, ours = StereoTimeline(), Source(), Source()
    waiting: list[bytes] = []
    for tick in range(200):
        timeline.played(ours.next(TICK))
        waiting.append(caller.next(TICK))
        if not 50 <= tick < 50 + SLACK // TICK - 1:
            for frame in waiting:
                timeline.heard(frame)
            waiting.clear()
    left, right = sides(timeline.finish())
    assert left.tolist() == right.tolist()
    assert (timeline.padded, timeline.dropped) == (0, 0)


@pytest.mark.parametrize("extra", [-2, -1, 1, 2])
def test_ten_minutes_with_a_wrong_clock_stay_aligned_and_keep_their_length(extra: int) -> None:
    # One sample in 160 is a clock 6,250 ppm off: sixty times worse than the worst sound card.
    timeline, caller = StereoTimeline(), Source()
    written = 0
    for _ in range(10 * 60 * 50):
        timeline.played(bytes(2 * TICK))
        timeline.heard(caller.next(TICK + extra))
        assert abs(timeline.position - timeline.clock) <= SLACK
        written += len(timeline.take()) // FRAME
    written += len(timeline.finish()) // FRAME
    length = 10 * 60 * RATE
    assert length <= written <= length + SLACK
    lost = timeline.dropped if extra > 0 else timeline.padded
    assert lost == pytest.approx(abs(extra) * 10 * 60 * 50, abs=SLACK + TICK)
    assert (timeline.padded if extra > 0 else timeline.dropped) == 0


def test_a_flood_is_cut_to_the_slack() -> None:
    timeline = StereoTimeline()
    timeline.played(bytes(2 * TICK))
    timeline.heard(Source().next(100 * RATE))
    assert timeline.position == TICK + SLACK
    assert timeline.dropped == 100 * RATE - TICK - SLACK


def test_half_a_sample_and_anything_after_the_end_is_refused() -> None:
    timeline = StereoTimeline()
    for side in (timeline.played, timeline.heard):
        with pytest.raises(ValueError, match="whole"):
            side(b"\0\0\0")
    timeline.finish()
    for side in (timeline.played, timeline.heard):
        with pytest.raises(ValueError, match="finished"):
            side(b"\0\0")


steps = st.lists(
    st.tuples(st.sampled_from(["played", "heard", "take"]), st.integers(0, 1200)), min_size=1, max_size=60
)


@given(steps, st.sampled_from([0, 1, 20, 200]))
def test_nothing_is_moved_torn_or_made_up(history: list[tuple[str, int]], slack_ms: int) -> None:
    timeline, caller, ours = StereoTimeline(slack_ms), Source(), Source()
    slack = slack_ms * RATE // 1000
    taken = b""
    for step, count in history:
        if step == "played":
            timeline.played(ours.next(count))
        elif step == "heard":
            timeline.heard(caller.next(count))
            assert abs(timeline.position - timeline.clock) <= slack
        else:
            taken += timeline.take()
            assert len(taken) // FRAME >= timeline.clock - slack
    left, right = sides(taken + timeline.finish())
    assert len(left) <= ours.given + slack
    assert right[: ours.given].tolist() == numbers(ours.given)
    assert not right[ours.given :].any()
    heard = left[left != 0].tolist()
    assert len(heard) == caller.given - timeline.dropped
    assume(caller.given < 30_000)
    assert heard == sorted(heard)
    assert int(np.count_nonzero(left == 0)) == timeline.padded


@given(steps)
def test_what_was_taken_is_final(history: list[tuple[str, int]]) -> None:
    """Taking early and often gives the same recording as taking once at the end."""
    often, once = StereoTimeline(), StereoTimeline()
    sources = Source(), Source(), Source(), Source()
    taken = b""
    for step, count in history:
        if step == "played":
            often.played(sources[0].next(count))
            once.played(sources[1].next(count))
        elif step == "heard":
            often.heard(sources[2].next(count))
            once.heard(sources[3].next(count))
        else:
            taken += often.take()
    assert taken + often.finish() == once.finish()
    assert (often.padded, often.dropped) == (once.padded, once.dropped)


@given(st.lists(st.integers(0, SLACK - TICK), min_size=1, max_size=100))
def test_jitter_below_the_slack_leaves_every_sample_at_its_place(delays: list[int]) -> None:
    """Frame *n* is spoken at tick *n* and comes up to the slack later, in order, as TCP brings it."""
    timeline, caller, ours = StereoTimeline(), Source(), Source()
    arrivals = np.maximum.accumulate([(n + 1) * TICK + delay for n, delay in enumerate(delays)])
    come = 0
    while come < len(delays):
        timeline.played(ours.next(TICK))
        while come < len(delays) and arrivals[come] <= ours.given:
            timeline.heard(caller.next(TICK))
            come += 1
    left, right = sides(timeline.finish())
    spoken = len(delays) * TICK
    assert left[:spoken].tolist() == right[:spoken].tolist()
    assert timeline.dropped == 0


@given(st.integers(0, 5000))
def test_the_header_is_one_that_players_read(frames: int) -> None:
    sound = Source().next(2 * frames)
    with wave.open(io.BytesIO(wav_header(frames) + sound + b"cut off in the mid")) as file:
        assert file.getparams()[:4] == (2, 2, RATE, frames)
        assert file.readframes(frames + 100) == sound
    assert len(wav_header(frames)) == HEADER


def test_a_file_longer_than_a_header_can_say_is_refused() -> None:
    assert len(wav_header(MAX_FRAMES)) == HEADER
    for frames in (-1, MAX_FRAMES + 1):
        with pytest.raises(ValueError):
            wav_header(frames)
