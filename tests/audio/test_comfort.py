"""A model's sound that runs dry: what is heard then is a quiet line, without a click at either edge."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio.comfort import EDGE_SAMPLES, LEVEL_DBOV, begun_softly, comfort, faded_in, is_comfort
from audio.frames import FRAME_BYTES, FRAME_SAMPLES, level_dbov, samples_of, saturated
from audio.playout import Playout
from audio.vad import SpeechOnset, VoiceActivity
from tests.audio.test_vad import model

HZ = 400.0
PEAK = 8000.0


def sine(samples: int) -> bytes:
    return saturated(PEAK * np.sin(2 * np.pi * HZ * np.arange(samples) / 8000))


def steepest(pcm: bytes) -> float:
    """The largest step between two samples."""
    return float(np.abs(np.diff(samples_of(pcm).astype(np.float64))).max())


def test_the_noise_is_soft_the_same_each_time_and_digital_silence_nowhere() -> None:
    frames = [comfort(number) for number in range(200)]
    assert frames == [comfort(number) for number in range(200)]
    assert abs(level_dbov(b"".join(frames)) - LEVEL_DBOV) < 0.2
    assert all(len(frame) == FRAME_BYTES and any(frame) for frame in frames)
    assert all(abs(level_dbov(frame) - LEVEL_DBOV) < 2.5 for frame in frames)


def test_nobody_takes_it_for_speech() -> None:
    voice = VoiceActivity(model())
    events = [event for number in range(500) for event in voice.feed(comfort(number))]
    assert not [event for event in events if isinstance(event, SpeechOnset)]


@pytest.mark.parametrize("before", range(320, 360, 3))
def test_a_gap_clicks_nowhere_in_the_tone(before: int) -> None:
    playout, pcm = Playout(), sine(4 * FRAME_SAMPLES)
    playout.push("a", pcm[: 2 * before])
    frames = [playout.next_frame() for _ in range(5)]
    assert [is_comfort(frame) for frame in frames] == [False, False, True, True, True]
    heard = b"".join(frames)
    playout.push("a", pcm[2 * before :])
    playout.end("a")
    while playout.pending_samples:
        heard += playout.next_frame()
    assert playout.underruns == 1 and playout.underrun_frames == 3
    assert steepest(heard) <= steepest(pcm) * 1.1, "no step that the tone itself has not"
    assert playout.ledger("a").complete and playout.ledger("a").played == 4 * FRAME_SAMPLES
    gap = heard[2 * FRAME_BYTES + 2 * EDGE_SAMPLES : 5 * FRAME_BYTES]
    assert abs(level_dbov(gap) - LEVEL_DBOV) < 1.5


def test_after_a_pause_the_sound_comes_back_softly_and_whole() -> None:
    playout, pcm = Playout(), sine(4 * FRAME_SAMPLES)
    playout.push("a", pcm)
    playout.end("a")
    playout.next_frame()
    assert playout.pause()
    playout.next_frame()
    playout.resume()
    rest = b"".join(playout.next_frame() for _ in range(3))
    assert rest[2 * EDGE_SAMPLES :] == pcm[FRAME_BYTES + 2 * EDGE_SAMPLES :]
    assert abs(int(samples_of(rest)[0])) <= 1


def test_a_gap_before_anything_was_heard_is_noise_alone() -> None:
    assert begun_softly(b"", comfort(3)) == comfort(3)


@given(st.lists(st.integers(-32768, 32767), max_size=200))
def test_what_is_faded_in_keeps_its_length_its_signs_and_its_rest(values: list[int]) -> None:
    pcm = np.array(values, "<i2").tobytes()
    wave, was = samples_of(faded_in(pcm)).astype(int), samples_of(pcm).astype(int)
    assert len(wave) == len(was)
    assert (wave[EDGE_SAMPLES:] == was[EDGE_SAMPLES:]).all()
    assert (np.abs(wave) <= np.abs(was)).all() and (wave * was >= 0).all()
