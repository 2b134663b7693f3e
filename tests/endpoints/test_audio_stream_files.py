"""Our sound in files: what is heard, when, and what the ledger is told; against a channel that plays them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.endpoints.audio_stream_files import MOST_FRAMES, FilePlayer
from bridge.endpoints.audio_stream_media import FRAME_S, SILENCE
from bridge.endpoints.base import FRAME_BYTES


def spoken(level: int) -> bytes:
    return np.full(160, level, "<i2").tobytes()


@dataclass
class Channel:
    """A channel that plays files behind one another; orders and events take their time, in frames."""

    takes: int = 1
    """From an order to FreeSWITCH's having it."""
    gap: int = 1
    """Frames between two files."""
    player: FilePlayer = field(init=False)
    now: float = 0.0
    heard: list[bytes] = field(default_factory=list)
    orders: deque[tuple[int, int | None, bytes]] = field(default_factory=deque)
    files: deque[list[object]] = field(default_factory=deque)
    breaks: bool = False
    tick: int = 0
    most_files: int = 0
    lost: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.player = FilePlayer(self)

    def play(self, number: int, pcm: bytes) -> None:
        self.orders.append((self.tick + self.takes, number, pcm))

    def stop(self) -> None:
        self.orders.append((self.tick + self.takes, None, b""))

    def unheard(self, number: int) -> None:
        self.lost.append(number)

    def step(self, frame: bytes) -> None:
        """20 ms: a frame of the leg's, and one of the channel's."""
        self.player.play(frame, self.now)
        while self.orders and self.orders[0][0] <= self.tick:
            _, number, pcm = self.orders.popleft()
            if number is None:
                running = self.files[0] if self.files else None
                self.files.clear()
                if running is not None and running[2]:
                    self.player.ended(int(str(running[0])), True, self.now)
                else:
                    self.breaks = True
            else:
                self.files.append([number, pcm, False, self.gap])
        self.most_files = max(self.most_files, len(self.files) + len(self.orders))
        self.heard.append(self.one())
        self.now += FRAME_S
        self.tick += 1

    def one(self) -> bytes:
        if not self.files:
            return SILENCE
        file = self.files[0]
        number, pcm, begun, gap = int(str(file[0])), file[1], file[2], int(str(file[3]))
        assert isinstance(pcm, bytes)
        if gap:
            file[3] = gap - 1
            return SILENCE
        if not begun:
            file[2] = True
            self.player.started(number, self.now)
            if self.breaks:
                self.breaks = False
                self.files.popleft()
                self.player.ended(number, True, self.now)
                return SILENCE
        frame, file[1] = pcm[:FRAME_BYTES], pcm[FRAME_BYTES:]
        if not file[1]:
            self.files.popleft()
            self.player.ended(number, False, self.now)
        return frame

    def frames(self) -> list[bytes]:
        return [frame for frame in self.heard if frame != SILENCE]


def test_a_say_is_heard_whole_in_its_order_and_soon() -> None:
    channel = Channel()
    says = [spoken(n) for n in range(1, 501)]
    for frame in says:
        channel.step(frame)
    for _ in range(100):
        channel.step(SILENCE)
    assert channel.frames() == says
    first = channel.heard.index(says[0])
    assert first <= 16, "320 ms"
    late = channel.heard.index(says[-1]) - 499
    assert late <= MOST_FRAMES and channel.player.held(channel.now) == 0
    holes = [at for at in range(first, len(channel.heard)) if channel.heard[at] == SILENCE and at < 499]
    assert len(holes) <= 35, "a frame between two files"
    assert channel.most_files <= 2


def test_a_pause_in_a_say_is_where_what_waits_is_made_good() -> None:
    channel = Channel()
    for _ in range(10):
        for n in range(1, 61):
            channel.step(spoken(n))
        for _ in range(8):
            channel.step(SILENCE)
    assert channel.player.frames_dropped == 0
    assert channel.player.held(channel.now) < 30


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(1, 80), st.integers(0, 40), st.booleans()), min_size=1, max_size=6),
    st.integers(0, 4),
    st.integers(0, 2),
)
def test_the_ledger_knows_what_was_heard(says: list[tuple[int, int, bool]], takes: int, gap: int) -> None:
    """Whatever is said, and broken off: to the time that orders and events take."""
    channel = Channel(takes, gap)
    level = 0
    for speech, silence, barged in says:
        while barged and (channel.files or channel.orders or channel.player.held(channel.now)):
            channel.step(SILENCE)
        given_, dropped = [], channel.player.frames_dropped
        for _ in range(speech):
            level += 1
            given_.append(spoken(level))
            channel.step(given_[-1])
        for _ in range(0 if barged else silence):
            channel.step(SILENCE)
        if barged:
            _, unheard_s = channel.player.flush(channel.now)
            now = set(channel.heard)
            for _ in range(takes + 3):
                channel.step(SILENCE)
            late = set(channel.heard) - now - {SILENCE}
            assert len(late) <= takes + 1, "silence comes with the order"
            heard = sum(frame in now for frame in given_)
            counted = len(given_) - (channel.player.frames_dropped - dropped) - unheard_s / FRAME_S
            assert abs(counted - heard) <= takes + gap + 3
            channel.step(SILENCE)
    for _ in range(200):
        channel.step(SILENCE)
    assert channel.player.held(channel.now) == 0
    order = channel.frames()
    assert order == sorted(order, key=lambda frame: int.from_bytes(frame[:2], "little"))


def test_what_follows_a_barge_in_is_not_broken_by_a_break_that_was_kept() -> None:
    """The file ends just before the order to stop it comes: the channel keeps the break for the next."""
    channel = Channel(takes=1)
    for n in range(1, 9):
        channel.step(spoken(n))
    for _ in range(60):
        channel.step(SILENCE)
    channel.breaks = True
    channel.player._careful = True
    says = [spoken(n) for n in range(100, 160)]
    for frame in says:
        channel.step(frame)
    for _ in range(80):
        channel.step(SILENCE)
    assert channel.frames()[-60:] == says


def test_segments_that_are_not_played_are_let_go() -> None:
    channel = Channel(takes=10_000)
    for n in range(1, 2000):
        channel.step(spoken(n))
    assert channel.player.held(channel.now) <= MOST_FRAMES + 1 and channel.player.frames_dropped > 1000
    assert channel.lost[:2] == [1, 2], "what never begins is said"
    channel = Channel()
    for n in range(1, 9):
        channel.step(spoken(n))
    assert channel.player.failed(1) and not channel.player.failed(1)
    assert channel.player.frames_dropped == 8
