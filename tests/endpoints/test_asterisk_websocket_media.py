"""What goes down to Asterisk, against a model of its queue: not starved, not far ahead, gone at a flush."""

from __future__ import annotations

import math
import random
from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio.g711 import alaw_encode, ulaw_decode, ulaw_encode
from bridge.endpoints.asterisk_websocket_control import Form, MediaStart
from bridge.endpoints.asterisk_websocket_media import (
    FULL_FRAMES,
    MAX_MEDIA_BYTES,
    MOST_FRAMES,
    SILENCE,
    Downstream,
    format_of,
    pcm_of,
)
from bridge.endpoints.flow import ControlError

SIZES = {"ulaw": 160, "alaw": 160, "slin": 320, "slin16": 640}
SPEECH = (3000 * np.sin(np.arange(160) / 3)).astype("<i2").tobytes()


def start(name: str = "slin", size: int | None = None, ptime: int = 20) -> MediaStart:
    return MediaStart("c", "WebSocket/c/1", "1.1", name, SIZES[name] if size is None else size, ptime)


class Queue:
    """chan_websocket's queue: its timer takes a frame every 20 ms, or finds none; marks go with them."""

    def __init__(self, size: int = 320) -> None:
        self.size = size
        self.items: deque[bytes | str] = deque()
        self.taken: list[bytes | None] = []
        self.marks: list[str] = []

    def receive(self, messages: list[bytes | str]) -> None:
        for message in messages:
            if isinstance(message, bytes):
                assert 0 < len(message) <= MAX_MEDIA_BYTES and len(message) % self.size == 0
                self.items.extend(message[at : at + self.size] for at in range(0, len(message), self.size))
            elif message == "FLUSH_MEDIA":
                self.items.clear()
            elif message.startswith("MARK_MEDIA "):
                self.items.append(message.removeprefix("MARK_MEDIA "))

    @property
    def frames(self) -> int:
        return sum(isinstance(item, bytes) for item in self.items)

    def timer(self) -> None:
        self.marks.clear()
        while self.items and isinstance(self.items[0], str):
            self.marks.append(str(self.items.popleft()))
        taken = self.items.popleft() if self.items else None
        assert not isinstance(taken, str)
        self.taken.append(taken)


def run(down: Downstream, queue: Queue, ticks: list[tuple[float, bytes]], until: float) -> list[int]:
    """Play frames at their times against the queue's timer; how many frames it held at each of its ticks."""
    held = []
    pending = deque(ticks)
    timer = 0.0131
    while timer < until:
        while pending and pending[0][0] <= timer:
            at, frame = pending.popleft()
            queue.receive(down.play(frame, at))
        queue.timer()
        for mark in queue.marks:
            down.played(mark, timer)
        held.append(queue.frames)
        timer += 0.02
    return held


# ---- Formats -------------------------------------------------------------------------------------------


def test_the_formats_carry_what_was_said() -> None:
    for name, size in SIZES.items():
        down = Downstream(start(name), Form.PLAIN)
        media = b"".join(m for n in range(20) for m in down.play(SPEECH, n * 0.02) if isinstance(m, bytes))
        assert len(media) % size == 0 and len(media) // size >= 20
        pcm = np.frombuffer(pcm_of(down.format, media), "<i2").astype(float)
        level = math.sqrt(float(np.mean(pcm[len(pcm) // 2 :] ** 2)))
        assert level == pytest.approx(3000 / math.sqrt(2), rel=0.05), name


def test_what_comes_is_decoded_by_its_format() -> None:
    assert pcm_of(format_of(start("ulaw")), ulaw_encode(SPEECH)) == ulaw_decode(ulaw_encode(SPEECH))
    assert len(pcm_of(format_of(start("alaw")), alaw_encode(SPEECH))) == 320
    assert pcm_of(format_of(start("slin16")), SPEECH) == SPEECH
    with pytest.raises(ControlError, match="whole samples"):
        pcm_of(format_of(start("slin")), SPEECH[1:])


@pytest.mark.parametrize(
    "wrong",
    [
        MediaStart("c", "C", "1", "opus", 0, 20),
        start("slin", 0),  # passthrough
        start("slin", 321),
        start("slin", 320, 40),
        MediaStart("c", "C", "1", "g722", 160, 20),
    ],
)
def test_a_channel_that_we_cannot_serve_is_refused(wrong: MediaStart) -> None:
    with pytest.raises(ControlError, match="allowed is"):
        Downstream(wrong, Form.JSON)


@pytest.mark.parametrize(("ptime", "size"), [(10, 160), (30, 480), (40, 640), (60, 960)])
def test_other_packet_times_get_whole_frames(ptime: int, size: int) -> None:
    down, queue = Downstream(start("slin", size, ptime), Form.PLAIN), Queue(size)
    for n in range(60):
        queue.receive(down.play(SPEECH, n * 0.02))
    assert b"".join(item for item in queue.items if isinstance(item, bytes)).count(SPEECH) >= 57


# ---- Pacing --------------------------------------------------------------------------------------------


def test_a_steady_clock_keeps_two_to_three_frames_downstream() -> None:
    down, queue = Downstream(start(), Form.PLAIN), Queue()
    held = run(down, queue, [(n * 0.02, SPEECH if n % 50 > 10 else SILENCE) for n in range(3000)], 60)
    assert set(held[2:]) <= {1, 2, 3}
    assert None not in queue.taken[1:], "it was never starved"
    spoken = [frame for frame in queue.taken if frame == SPEECH]
    assert len(spoken) >= 3000 * 39 // 50 - 4 and down.frames_dropped == 0


@given(st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_jitter_of_ours_is_not_heard(seed: int) -> None:
    """Ticks up to 20 ms late: nothing is missing in a word, and nothing is doubled."""
    dice = random.Random(seed)
    numbered = [np.full(160, n + 1, "<i2").tobytes() for n in range(500)]
    frames = [SILENCE] * 5 + numbered
    ticks = [(n * 0.02 + dice.random() * 0.02, frame) for n, frame in enumerate(frames)]
    down, queue = Downstream(start(), Form.PLAIN), Queue()
    held = run(down, queue, ticks, 10)
    assert max(held) <= 4
    begun = queue.taken.index(numbered[0])
    heard = queue.taken[begun:]
    assert heard == numbered[: len(heard)] and len(heard) > 480


@pytest.mark.parametrize("drift", [0.9995, 1.0005])
def test_a_clock_that_runs_at_another_speed_is_followed(drift: float) -> None:
    """10 minutes with crystals 500 ppm apart: 15 frames too many, or too few, but for the pauses."""
    down, queue = Downstream(start(), Form.PLAIN), Queue()
    ticks = [(n * 0.02 * drift, SPEECH if n % 100 > 20 else SILENCE) for n in range(30_000)]
    held = run(down, queue, ticks, 29_000 * 0.02)
    assert max(held) <= FULL_FRAMES + 1
    assert queue.taken[5:].count(None) == 0
    assert down.frames_dropped == 0


def test_after_a_standstill_of_ours_the_cushion_is_there_again() -> None:
    """Our loop stands still for 300 ms, skips what it missed, and goes on."""
    ticks = [(n * 0.02, SPEECH) for n in range(100)] + [(n * 0.02, SPEECH) for n in range(115, 400)]
    down, queue = Downstream(start(), Form.PLAIN), Queue()
    held = run(down, queue, ticks, 8)
    assert queue.taken[98:115].count(None) >= 11  # the standstill itself
    assert None not in queue.taken[118:] and set(held[130:]) <= {1, 2, 3}


def test_a_burst_of_ours_is_worked_off_in_the_next_pause() -> None:
    """150 ms late and made good at once: late for a while, but the next pause is shorter by as much."""
    ticks = [(n * 0.02, SPEECH) for n in range(50)]
    ticks += [(1.15, SPEECH) for _ in range(7)] + [(n * 0.02, SPEECH) for n in range(58, 80)]
    ticks += [(n * 0.02, SILENCE) for n in range(80, 120)]
    down, queue = Downstream(start(), Form.PLAIN), Queue()
    held = run(down, queue, ticks, 2.4)
    assert max(held) <= FULL_FRAMES, "what is late waits with us"
    assert down.frames_dropped == 0 and sum(frame == SPEECH for frame in queue.taken) == 79
    last = max(n for n, frame in enumerate(queue.taken) if frame == SPEECH)
    assert 84 <= last <= 88, "it was late to the end"
    assert down.rest() == [], "and nothing of it waits behind the pause"


@given(
    st.lists(st.tuples(st.integers(1, 60), st.floats(0, 0.2)), max_size=12),
    st.lists(st.integers(0, 400), max_size=8),
)
@settings(max_examples=60, deadline=None)
def test_after_whatever_standstills_little_lies_downstream_and_nothing_is_lost(
    standstills: list[tuple[int, float]], pauses: list[int]
) -> None:
    """Our loop stands still again and again; the clock makes good two frames a tick. Speech has pauses."""
    late_from = 0.0
    stands: list[tuple[float, float]] = []
    for after, lasted in standstills:
        late_from += after * 0.02
        stands.append((late_from, late_from + lasted))
        late_from += lasted
    frames = [np.full(160, n + 1, "<i2").tobytes() for n in range(400)]
    for pause in sorted(pauses, reverse=True):
        frames[pause:pause] = [SILENCE] * 15
    ticks: list[tuple[float, bytes]] = []
    now = 0.0
    for n in range(len(frames)):
        now = max(now, n * 0.02)
        now = next((end for begin, end in stands if begin <= now < end), now)
        ticks.append((now, frames[n]))
        if len(ticks) > 1 and ticks[-2][0] == now:  # two were made good: the next at the next tick
            now += 0.02
    down, queue = Downstream(start(), Form.PLAIN), Queue()
    held = run(down, queue, ticks, ticks[-1][0] + 0.02)
    assert max(held) <= FULL_FRAMES + 1
    queue.receive(down.rest())
    spoken = [item for item in (*queue.taken, *queue.items) if isinstance(item, bytes) and item != SILENCE]
    expected = [frame for frame in frames if frame != SILENCE]
    if not down.frames_dropped:
        assert spoken == expected
    else:
        assert len(spoken) == len(expected) - down.frames_dropped


def test_what_would_be_heard_far_too_late_is_let_go() -> None:
    down, queue = Downstream(start(), Form.PLAIN), Queue()
    for _ in range(100):
        queue.receive(down.play(SPEECH, 1.0))
    assert queue.frames == FULL_FRAMES + 1
    assert down.frames_dropped >= 85
    queue.receive(down.rest())
    assert queue.frames <= MOST_FRAMES + 3


def test_a_flush_takes_what_waits_with_us_too() -> None:
    down, queue = Downstream(start(), Form.PLAIN), Queue()
    for _ in range(8):  # and one of silence before them
        queue.receive(down.play(SPEECH, 1.0))
    assert queue.frames == 4
    assert down.flush(1.0)[1] == pytest.approx(9 * 0.02)
    assert down.rest() == []
    queue.receive(["FLUSH_MEDIA", *down.play(SILENCE, 1.02)])
    assert set(queue.items) == {SILENCE}


def test_a_mark_that_lay_unread_while_we_stood_still_makes_nothing_more_of_what_is_held() -> None:
    """It says what Asterisk held when it wrote it, and Asterisk has played on."""
    down = Downstream(start(), Form.PLAIN)
    sent = [message for n in range(30) for message in down.play(SPEECH, n * 0.02)]
    mark = [message.removeprefix("MARK_MEDIA ") for message in sent if isinstance(message, str)][-1]
    before = down.held(0.58)
    now = 0.58 + 0.1
    down.played(mark, now)  # the tick is late as well, and comes behind it
    assert down.held(now) == max(0.0, before - 5)
    down.play(SPEECH, now)
    behind = down.held(now)
    down.played(mark, now + 0.01)
    assert down.held(now + 0.01) <= behind
    down.play(SPEECH, now + 0.02)
    down.play(SPEECH, now + 0.04)
    down.play(SPEECH, now + 0.14)  # over: what is read now was written just now
    assert down.held(now + 0.14) > 0


def test_marks_put_the_count_right() -> None:
    """Asterisk's timer began later than we thought: the model would run dry, the marks know better."""
    down = Downstream(start(), Form.PLAIN)
    sent = [message for n in range(30) for message in down.play(SPEECH, n * 0.02)]
    marks = [message.removeprefix("MARK_MEDIA ") for message in sent if isinstance(message, str)]
    assert len(marks) == 3
    frames = sum(len(message) // 320 for message in sent if isinstance(message, bytes))
    down.played(marks[0], 0.6)
    assert down.held(0.6) == pytest.approx(frames - int(marks[0]) - 0.5)
    for foreign in ("", "goodbye", "99999", "-1", "1" * 40, "²"):
        down.played(foreign, 0.6)
    assert down.held(0.6) == pytest.approx(frames - int(marks[0]) - 0.5)


# ---- Flush, XOFF ---------------------------------------------------------------------------------------


@given(st.integers(20, 300), st.floats(0, 0.02, exclude_max=True))
@settings(max_examples=60, deadline=None)
def test_after_a_flush_nothing_of_before_is_heard(ticks: int, late: float) -> None:
    down, queue = Downstream(start(), Form.PLAIN), Queue()
    run(down, queue, [(n * 0.02, SPEECH) for n in range(ticks)], ticks * 0.02)
    really = queue.frames
    commands, unheard_s = down.flush(ticks * 0.02 - 0.02 + late)
    assert commands == ["FLUSH_MEDIA"]
    assert abs(unheard_s / 0.02 - really) <= 2, "what nobody heard is known to two frames"
    queue.receive(list(commands))
    assert queue.frames == 0
    queue.taken.clear()
    for n in range(ticks, ticks + 50):
        queue.receive(down.play(SILENCE, n * 0.02))
        queue.timer()
    assert set(queue.taken) <= {None, SILENCE}
    assert queue.frames <= 3


def test_a_mark_from_before_a_flush_says_nothing() -> None:
    down = Downstream(start(), Form.PLAIN)
    sent = [message for n in range(30) for message in down.play(SPEECH, n * 0.02)]
    mark = next(m for m in sent if isinstance(m, str)).removeprefix("MARK_MEDIA ")
    down.flush(0.6)
    down.played(mark, 0.61)
    assert down.held(0.61) == 0


def test_a_paused_queue_goes_on_after_a_flush() -> None:
    down = Downstream(start(), Form.JSON)
    down.play(SPEECH, 0)
    down.paused = True
    assert down.held(5) == pytest.approx(2), "nothing leaves a paused queue"
    assert down.flush(5)[0] == ['{"command":"FLUSH_MEDIA"}', '{"command":"CONTINUE_MEDIA"}']
    assert down.flush(5) == (['{"command":"FLUSH_MEDIA"}'], 0.0)


def test_xoff_is_respected() -> None:
    down = Downstream(start(), Form.PLAIN)
    assert down.play(SPEECH, 0)
    down.hold_back(True)
    assert [down.play(SPEECH, n * 0.02) for n in range(1, 50)] == [[]] * 49
    assert down.frames_dropped == 49
    down.hold_back(False)
    assert down.play(SPEECH, 1)
