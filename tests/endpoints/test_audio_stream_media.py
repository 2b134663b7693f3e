"""What comes up of a stream, and the pacing of what goes down to modules with clocks of their own."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.endpoints.audio_stream_control import KILL_AUDIO, ControlError, Playback, StreamForm
from bridge.endpoints.audio_stream_media import (
    FRAME_S,
    MAX_MEDIA_BYTES,
    MOST_FRAMES,
    RATE_S,
    RESYNC_S,
    Downstream,
    RateGuard,
    caller_of,
)

WAYS: tuple[Playback, ...] = ("binary", "fork", "base64")
VOICE = np.full(160, 3000, "<i2").tobytes()
SILENCE = bytes(320)


# ---- Up ------------------------------------------------------------------------------------------------


def test_the_caller_is_on_the_left() -> None:
    both = np.array([1, -9, 2, -9, 3, -9], "<i2").tobytes()
    assert caller_of(StreamForm(channels=2), both) == np.array([1, 2, 3], "<i2").tobytes()
    assert caller_of(StreamForm(), both) == both


@pytest.mark.parametrize(("channels", "wrong"), [(1, 321), (2, 322), (2, 321), (1, 1)])
def test_part_of_a_sample_is_an_error(channels: int, wrong: int) -> None:
    with pytest.raises(ControlError, match=f"{wrong} bytes"):
        caller_of(StreamForm(channels=channels), bytes(wrong))
    with pytest.raises(ControlError, match="up to"):
        caller_of(StreamForm(channels=channels), bytes(MAX_MEDIA_BYTES + channels * 2))


@pytest.mark.parametrize("real", [0.25, 0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("message_ms", [20, 100])
def test_another_rate_than_was_said_is_found(real: float, message_ms: int) -> None:
    guard = RateGuard(StreamForm(rate=16_000))

    def comes() -> None:
        for n in range(1000 // message_ms * 6):
            guard.takes(message_ms / 1000 * real, n * message_ms / 1000)

    if real == 1.0:
        comes()
    else:
        with pytest.raises(ControlError, match="sample_rate"):
            comes()


@given(st.lists(st.floats(0, 2.0), max_size=6))
def test_a_network_that_stalled_is_not_another_rate(stalls: list[float]) -> None:
    """All of what was held comes at once behind each stall."""
    guard = RateGuard(StreamForm())
    now, sent = 0.0, 0
    for stall in [*stalls, 0.1, 0.1, 0.1, RATE_S]:
        now += stall
        while sent * FRAME_S <= now:
            guard.takes(FRAME_S, now)
            sent += 1


# ---- Down ----------------------------------------------------------------------------------------------


@dataclass
class Module:
    """What plays: one frame each 20 ms, on a clock that begins somewhere between two of ours."""

    playback: Playback
    phase_s: float = 0.0
    gathered: bytes = b""
    threshold: int = 2 * 320 * 4
    queue: bytearray = field(default_factory=bytearray)
    heard: bytearray = field(default_factory=bytearray)
    deepest: int = 0
    ticks: int = 0
    clear: bool = False

    def until(self, now: float) -> None:
        while self.ticks * FRAME_S + self.phase_s <= now:
            self.ticks += 1
            if self.clear:
                self.clear = False
                self.queue.clear()
            played = bytes(self.queue[:320])
            del self.queue[:320]
            self.heard += played.ljust(320, b"\0")

    def take(self, message: bytes | str) -> None:
        if message == KILL_AUDIO:
            self.clear = True
        elif isinstance(message, str):
            self.queue += base64.b64decode(json.loads(message)["data"]["audioData"])
        elif self.playback == "fork":
            self.gathered += message
            if len(self.gathered) >= self.threshold:
                self.threshold = 2 * 320 * 2
                self.queue += self.gathered
                self.gathered = b""
        else:
            self.queue += message
        self.deepest = max(self.deepest, (len(self.queue) + len(self.gathered)) // 320)

    @property
    def voice_ms(self) -> float:
        return float((np.frombuffer(bytes(self.heard), "<i2") == 3000).sum()) / 8


@dataclass
class Line:
    """A leg's clock, ours, and the module."""

    down: Downstream
    module: Module
    now: float = 0.0

    def play(self, frames: int, pcm: bytes) -> None:
        for _ in range(frames):
            self.now += FRAME_S
            self.module.until(self.now)
            for message in self.down.play(pcm, self.now):
                self.module.take(message)

    def flush(self) -> float:
        self.module.until(self.now)
        messages, unheard_s = self.down.flush(self.now)
        for message in messages:
            self.module.take(message)
        return unheard_s


def line(playback: Playback, phase_s: float = 0.0) -> Line:
    return Line(Downstream(StreamForm(), playback), Module(playback, phase_s))


PHASES = st.floats(0.001, 0.019)


@pytest.mark.parametrize("playback", WAYS)
@given(phase_s=PHASES, pause=st.integers(0, 70))
@settings(max_examples=30, deadline=None)
def test_speech_is_heard_whole_and_without_a_gap(playback: Playback, phase_s: float, pause: int) -> None:
    made = line(playback, phase_s)
    made.play(pause, SILENCE)
    made.play(150, VOICE)
    made.play(40, SILENCE)
    assert made.module.voice_ms == 150 * 20
    samples = np.frombuffer(bytes(made.module.heard), "<i2")
    at = np.flatnonzero(samples == 3000)
    gaps = (at[-1] - at[0] + 1 - len(at)) / 160
    assert gaps <= 3, "frames of silence within: the cushion, where speech is the very first"
    assert made.module.deepest <= MOST_FRAMES
    assert made.down.frames_dropped == 0


@pytest.mark.parametrize("playback", WAYS)
@given(phase_s=PHASES, before=st.integers(0, 60), spoken=st.integers(1, 120), after=st.integers(0, 20))
@settings(max_examples=60, deadline=None)
def test_what_was_heard_before_a_barge_in_is_known(
    playback: Playback, phase_s: float, before: int, spoken: int, after: int
) -> None:
    made = line(playback, phase_s)
    made.play(before, SILENCE)
    made.play(spoken, VOICE)
    unheard_ms = made.flush() * 1000
    made.play(30, SILENCE)
    believed = spoken * 20 - unheard_ms
    assert abs(max(0.0, believed) - made.module.voice_ms) <= 40, "to two frames"
    heard = made.module.voice_ms
    made.play(100 + after, SILENCE)
    assert made.module.voice_ms == heard, "nothing of it is heard later"


def test_mod_audio_fork_is_left_with_nothing_that_killaudio_does_not_reach() -> None:
    made = line("fork")
    for spoken in range(1, 40):
        made.play(spoken, VOICE)
        made.flush()
        assert made.module.gathered == b""
        made.play(20, SILENCE)


@pytest.mark.parametrize("playback", WAYS)
def test_a_network_that_stalled_is_forgotten_in_the_next_long_pause(playback: Playback) -> None:
    made = line(playback)
    made.play(50, VOICE)
    made.module.queue += SILENCE * 15  # it ran dry meanwhile, and what was held up lies there on top
    made.play(int(RESYNC_S / FRAME_S) + 60, SILENCE)
    made.module.deepest = 0
    made.play(50, VOICE)
    assert made.module.deepest <= 8


def test_sixteen_kilohertz_and_stereo() -> None:
    down = Downstream(StreamForm("base64", 16_000, 2), "base64")
    (message,) = down.play(VOICE, 0.02)
    assert isinstance(message, str)
    data = json.loads(message)["data"]
    pcm = np.frombuffer(base64.b64decode(data["audioData"]), "<i2").reshape(-1, 2)
    assert data["sampleRate"] == 16_000 and len(pcm) % 320 == 0
    assert (pcm[:, 0] == pcm[:, 1]).all()
