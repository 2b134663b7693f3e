"""Sizes, lengths and levels of PCM."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio import frames, g711


def test_a_frame_is_20_ms_at_8_khz() -> None:
    assert (frames.FRAME_SAMPLES, frames.FRAME_BYTES) == (160, 320)
    assert bytes(320) == frames.SILENCE
    assert frames.ms_of(frames.SILENCE, frames.TELEPHONE_RATE) == 20


@pytest.mark.parametrize("rate", [8000, 16000, 24000, 44100, 48000])
def test_lengths_go_both_ways(rate: int) -> None:
    assert frames.bytes_of(20, rate) == rate // 50 * 2
    assert frames.ms_of(bytes(frames.bytes_of(250, rate)), rate) == pytest.approx(250)


def test_bytes_of_any_time_are_whole_samples() -> None:
    assert frames.bytes_of(0.07, 8000) == 2
    assert frames.bytes_of(1000 / 44100, 44100) == 2


def test_levels_are_against_a_full_scale_square_wave() -> None:
    square = np.tile(np.array([-32768, -32768], dtype="<i2"), 400).tobytes()
    assert frames.level_dbov(square) == pytest.approx(0, abs=1e-3)
    sine = (32767 * np.sin(2 * np.pi * np.arange(8000) * 1000 / 8000)).astype("<i2").tobytes()
    assert frames.level_dbov(sine) == pytest.approx(-3.01, abs=0.01)


@pytest.mark.parametrize("pcm", [b"", bytes(2), bytes(320)])
def test_silence_measures_the_floor_and_never_minus_infinity(pcm: bytes) -> None:
    assert frames.level_dbov(pcm) == frames.FLOOR_DBOV
    assert frames.peak(pcm) == 0


def test_the_quietest_sound_lies_above_the_floor() -> None:
    one = np.ones(160, dtype="<i2").tobytes()
    assert frames.level_dbov(one) == pytest.approx(20 * math.log10(1 / 32768), abs=1e-3)


def test_a_single_bit_in_a_second_measures_no_less_than_silence() -> None:
    assert frames.level_dbov(bytes(15998) + b"\x01\x00") == frames.FLOOR_DBOV


def test_the_peak_of_the_most_negative_sample_does_not_wrap() -> None:
    assert frames.peak(np.array([5, -32768, 7], dtype="<i2").tobytes()) == 32768


@pytest.mark.parametrize("measure", [frames.level_dbov, frames.peak, frames.samples_of])
def test_half_a_sample_is_an_error(measure: object) -> None:
    assert callable(measure)
    with pytest.raises(ValueError, match="whole number"):
        measure(bytes(321))


@given(st.lists(st.floats(-1e9, 1e9), max_size=50))
def test_what_is_too_loud_is_clipped_and_never_wraps(values: list[float]) -> None:
    out = np.frombuffer(frames.saturated(np.array(values, dtype=np.float64)), "<i2")
    expected = [min(32767, max(-32768, round(value))) for value in values]
    assert out.tolist() == expected


def limited(values: list[float]) -> list[int]:
    return [int(out) for out in np.frombuffer(frames.limited(np.array(values, dtype=np.float64)), "<i2")]


@given(st.lists(st.floats(allow_nan=False), max_size=50))
def test_no_peak_however_high_wraps_or_changes_its_sign(values: list[float]) -> None:
    for value, out in zip(values, limited(values), strict=True):
        assert abs(out) <= frames.CEILING
        assert out * value >= 0
        assert out == 0 or abs(out) <= abs(value) + 0.5


@given(st.lists(st.floats(-frames.KNEE, frames.KNEE), max_size=50))
def test_up_to_3_db_below_full_scale_nothing_is_changed(values: list[float]) -> None:
    assert limited(values) == [round(value) for value in values]


@given(st.floats(-1e5, 1e5), st.floats(0, 1e5))
def test_what_was_louder_never_comes_out_quieter(value: float, more: float) -> None:
    lower, higher = limited([value, value + more])
    assert lower <= higher


def test_the_bend_has_no_corner_and_no_flat_top_within_full_scale() -> None:
    every = np.arange(0, frames.FULL_SCALE, 64, dtype=np.float64)
    steps = np.diff(np.array(limited(every.tolist())))
    assert np.all(np.diff(steps) <= 1), "it only ever bends down"
    assert abs(np.diff(steps)).max() <= 2, "a corner"
    assert steps.min() >= 20, "a flat top"


@pytest.mark.parametrize("value", [frames.CEILING, -frames.CEILING])
def test_the_ceiling_goes_through_g711_unclipped(value: int) -> None:
    pcm = np.array([value], dtype="<i2").tobytes()
    assert abs(samples_in(g711.ulaw_decode(g711.ulaw_encode(pcm)))) == frames.CEILING
    assert abs(samples_in(g711.alaw_decode(g711.alaw_encode(pcm)))) > frames.CEILING - 512


def samples_in(pcm: bytes) -> int:
    return int(frames.samples_of(pcm)[0])


def test_nothing_is_limited_to_nothing() -> None:
    assert frames.limited(np.zeros(0)) == b""
