"""The sound of a telephone's key: found in whatever it comes, and not in speech."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio.frames import FRAME_BYTES, FRAME_SAMPLES, SILENCE, saturated
from audio.keys import sounds_like_key
from audio.line import Line
from audio.tones import DTMF_HIGH, DTMF_KEYS, DTMF_LOW, busy, dtmf, hold, ring_back
from bench.hearing import at_level
from tests.audio.test_vad import RECORDINGS, over_the_line, recording


def frames(pcm: bytes) -> list[bytes]:
    return [pcm[at : at + FRAME_BYTES] for at in range(0, len(pcm) - FRAME_BYTES + 1, FRAME_BYTES)]


@given(
    st.sampled_from(DTMF_LOW),
    st.sampled_from(DTMF_HIGH),
    st.floats(-0.035, 0.035),
    st.floats(-0.035, 0.035),
    st.floats(-8, 8),
    st.floats(-38, -6),
    st.floats(0, 6),
)
def test_every_key_that_a_receiver_accepts_is_found(
    low: float, high: float, low_off: float, high_off: float, apart_db: float, dbov: float, phase: float
) -> None:
    time = np.arange(FRAME_SAMPLES) / 8000
    tones = np.sin(2 * np.pi * low * (1 + low_off) * time) * 10 ** (apart_db / 20)
    tones += np.sin(2 * np.pi * high * (1 + high_off) * time + phase)
    assert sounds_like_key(over_the_line(at_level(tones, dbov)))


def test_of_speech_next_to_nothing_is_taken_for_a_key() -> None:
    heard = [frame for name in RECORDINGS for frame in frames(saturated(at_level(recording(name), -20)))]
    assert len(heard) > 10_000
    assert sum(map(sounds_like_key, heard)) < 0.004 * len(heard)


@pytest.mark.parametrize("sound", [SILENCE, ring_back(), busy(), hold()])
def test_what_the_pbx_sounds_is_no_key(sound: bytes) -> None:
    assert not any(map(sounds_like_key, frames(sound)))


@pytest.mark.parametrize("length", [0, 319, 318, 640])
def test_what_is_no_frame_is_an_error(length: int) -> None:
    with pytest.raises(ValueError, match=r"whole number|allowed are 160"):
        sounds_like_key(bytes(length))


@given(st.sampled_from(DTMF_KEYS), st.integers(0, FRAME_SAMPLES), st.integers(25, 300))
def test_no_receiver_on_the_other_side_of_a_line_hears_a_key(key: str, shift: int, length_ms: int) -> None:
    """Wherever the key begins within a frame: less than 23 ms of it in one piece, the least for a key."""
    line, passed = Line(), bytearray()
    for frame in frames(bytes(2 * shift) + dtmf(key, length_ms, 100) + SILENCE):
        line.push(frame)
        passed += line.next_frame()
    sounding = np.flatnonzero(np.frombuffer(passed, "<i2"))
    pieces = np.split(sounding, np.flatnonzero(np.diff(sounding) > 40) + 1)
    assert max(len(piece) for piece in pieces) < 23 * 8
    assert line.key_frames > 0


def test_speech_passes_a_line_as_it_is() -> None:
    line = Line()
    for frame in frames(saturated(at_level(recording(RECORDINGS[0]), -20))):
        line.push(frame)
        assert line.next_frame() == (SILENCE if sounds_like_key(frame) else frame)
