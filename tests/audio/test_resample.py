"""Resampling: any chunking gives the same bits, nothing is lost, shifted, aliased or wrapped."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio.frames import CEILING, KNEE
from audio.resample import _COEFFICIENT_BITS, RATES, Resampler, _kernel, low_pass

LIVE = [(8000, 24000), (24000, 8000), (8000, 16000), (16000, 8000)]
PAIRS = list(itertools.product(RATES, RATES))
USUAL = [pair for pair in PAIRS if max(pair) <= 48000]


def whole(pcm: bytes, pair: tuple[int, int]) -> bytes:
    resampler = Resampler(*pair)
    return resampler.process(pcm) + resampler.flush()


def sine(hz: float, rate: int, seconds: float = 1.0, amplitude: float = 16000) -> bytes:
    at = np.arange(round(rate * seconds)) / rate
    return np.rint(amplitude * np.sin(2 * np.pi * hz * at)).astype("<i2").tobytes()


def samples(pcm: bytes) -> npt.NDArray[np.float64]:
    return np.frombuffer(pcm, "<i2").astype(np.float64)


def amplitude_at(pcm: bytes, hz: float, rate: int) -> float:
    """Of the component at ``hz``, away from the ends."""
    middle = samples(pcm)[rate // 10 : -rate // 10]
    window = np.blackman(len(middle))
    turn = np.exp(-2j * np.pi * hz * np.arange(len(middle)) / rate)
    return float(2 * abs(np.dot(middle * window, turn)) / window.sum())


def db(ratio: float) -> float:
    return 20 * math.log10(max(ratio, 1e-9))


@pytest.mark.parametrize("pair", [*LIVE, (8000, 22050), (44100, 8000)])
@settings(max_examples=30, deadline=None)
@given(
    stretches=st.lists(st.tuples(st.booleans(), st.integers(1, 900)), min_size=1, max_size=6),
    chunk=st.integers(100, 1000),
    seed=st.integers(0, 2**32 - 1),
)
def test_silence_that_is_not_computed_is_the_silence_that_would_be(
    pair: tuple[int, int], stretches: list[tuple[bool, int]], chunk: int, seed: int
) -> None:
    chance = np.random.default_rng(seed)
    sound = [chance.integers(-9000, 9000, count) * loud for loud, count in stretches]
    pcm = np.concatenate(sound).astype("<i2").tobytes()
    by_sample, by_chunk = Resampler(*pair), Resampler(*pair)
    # One sample at a time, more is kept than comes: all of it is computed but the start.
    alone = [by_sample.process(pcm[at : at + 2]) for at in range(0, len(pcm), 2)]
    cut = [by_chunk.process(pcm[at : at + 2 * chunk]) for at in range(0, len(pcm), 2 * chunk)]
    assert b"".join(cut) + by_chunk.flush() == b"".join(alone) + by_sample.flush()


@pytest.mark.parametrize("pair", LIVE)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_how_a_stream_is_cut_changes_not_one_bit(pair: tuple[int, int], data: st.DataObject) -> None:
    seed = data.draw(st.integers(0, 2**32 - 1))
    cuts = data.draw(st.lists(st.integers(0, 700), max_size=30))
    pcm = np.random.default_rng(seed).integers(-32768, 32768, 3000).astype("<i2").tobytes()
    resampler = Resampler(*pair)
    out, rest = b"", pcm
    for cut in cuts:
        out += resampler.process(rest[: 2 * cut])
        rest = rest[2 * cut :]
    out += resampler.process(rest) + resampler.flush()
    assert out == whole(pcm, pair)


@pytest.mark.parametrize("pair", PAIRS)
def test_every_pair_is_seamless_exact_in_length_and_as_late_as_it_says(pair: tuple[int, int]) -> None:
    from_rate, to_rate = pair
    pcm = np.random.default_rng(5).integers(-32768, 32768, from_rate // 5 + 7).astype("<i2").tobytes()
    resampler = Resampler(*pair)
    chunk = from_rate // 50 * 2
    out, latest = b"", 0.0
    for start in range(0, len(pcm), chunk):
        out += resampler.process(pcm[start : start + chunk])
        received = min(start + chunk, len(pcm))
        latest = max(latest, received / from_rate - len(out) / to_rate)
    assert 500 * latest <= resampler.delay_ms + 1e-6
    out += resampler.flush()
    assert out == whole(pcm, pair)
    assert len(out) // 2 == math.ceil(len(pcm) // 2 * to_rate / from_rate)


@pytest.mark.parametrize("pair", LIVE)
def test_the_live_path_holds_back_exactly_2_ms(pair: tuple[int, int]) -> None:
    from_rate, to_rate = pair
    resampler = Resampler(*pair)
    assert resampler.delay_ms == 2.0
    given_out = sum(len(resampler.process(bytes(from_rate // 25))) // 2 for _ in range(50))
    assert 1 - given_out / to_rate == pytest.approx(0.002, abs=1e-9)


@pytest.mark.parametrize("pair", [pair for pair in USUAL if pair[0] != pair[1]])
def test_a_sound_stays_at_its_instant(pair: tuple[int, int]) -> None:
    """A raised-cosine pulse of 10 ms around 100 ms has its centre of mass at 100 ms before and after."""
    from_rate, to_rate = pair
    at = np.arange(from_rate // 5) / from_rate
    pulse = np.where(abs(at - 0.1) < 0.005, 0.5 + 0.5 * np.cos((at - 0.1) * 2 * np.pi / 0.01), 0) * 20000
    out = samples(whole(np.rint(pulse).astype("<i2").tobytes(), pair))
    centre = np.dot(out, np.arange(len(out))) / out.sum() / to_rate
    assert centre == pytest.approx(0.1, abs=0.00002)


@pytest.mark.parametrize("pair", LIVE)
@pytest.mark.parametrize("hz", [50, 300, 1000, 2000, 3000, 3400])
def test_the_telephone_band_passes_within_0_2_db(pair: tuple[int, int], hz: int) -> None:
    out = whole(sine(hz, pair[0]), pair)
    assert abs(db(amplitude_at(out, hz, pair[1]) / 16000)) < 0.2


@pytest.mark.parametrize("to_rate", [16000, 24000, 48000])
@pytest.mark.parametrize("hz", [300, 1000, 2000, 3000, 3400])
def test_images_are_50_db_down(to_rate: int, hz: int) -> None:
    out = whole(sine(hz, 8000), (8000, to_rate))
    for image in {8000 - hz, min(8000 + hz, to_rate - 8000 - hz)} - {hz}:
        assert db(amplitude_at(out, image, to_rate) / 16000) < -50


@pytest.mark.parametrize("from_rate", [16000, 24000, 48000])
@pytest.mark.parametrize("hz", [4600, 5000, 6100, 7000, 7900])
def test_aliases_are_50_db_down(from_rate: int, hz: int) -> None:
    out = whole(sine(hz, from_rate), (from_rate, 8000))
    assert db(amplitude_at(out, 8000 - hz, 8000) / 16000) < -50


@pytest.mark.parametrize("ratio", [2, 3, 6])
def test_the_filter_is_what_its_file_says(ratio: int) -> None:
    taps = low_pass(ratio) / ratio
    assert len(taps) == 32 * ratio + 1
    assert np.array_equal(taps, taps[::-1])
    # At 8 kHz as the lower rate, on a grid of 10 Hz up to the shared rate's half.
    response = abs(np.fft.rfft(taps, 800 * ratio))
    assert 20 * np.log10(abs(response[:341])).max() < 0.05
    assert 20 * np.log10(abs(response[:341])).min() > -0.05
    assert 20 * np.log10(response[460:].max()) < -70


@pytest.mark.parametrize("pair", USUAL)
def test_every_sum_is_exact_in_a_double(pair: tuple[int, int]) -> None:
    """Or else the order of additions, which differs from chunk to chunk, would show now and then."""
    common = math.gcd(*pair)
    whole_numbers = _kernel(pair[1] // common, pair[0] // common)._matrix * 2.0**_COEFFICIENT_BITS
    assert np.array_equal(whole_numbers, np.rint(whole_numbers))
    assert np.abs(whole_numbers).sum(axis=0).max() * 32768 < 2**53


@pytest.mark.parametrize("pair", [pair for pair in USUAL if pair[0] != pair[1]])
@pytest.mark.parametrize("value", [1, 12345, -32768, 32767])
def test_a_constant_stays_that_constant(pair: tuple[int, int], value: int) -> None:
    out = samples(whole(np.full(pair[0] // 10, value, dtype="<i2").tobytes(), pair))
    edge = pair[1] // 100
    assert set(out[edge:-edge]) == {value}


@pytest.mark.parametrize("pair", LIVE)
def test_what_overshoots_saturates_and_never_wraps(pair: tuple[int, int]) -> None:
    square = np.where(np.arange(pair[0] // 4) // (pair[0] // 500) % 2, -32768, 32767).astype("<i2")
    out = samples(whole(square.tobytes(), pair))
    nearest = np.minimum(np.arange(len(out)) * pair[0] // pair[1], len(square) - 1)
    far_from_edges = abs(np.diff(np.concatenate(([0], out)))) < 2000
    assert {out.max(), out.min()} == {32767, -32768}
    assert np.all(np.sign(out[far_from_edges]) == np.sign(square[nearest][far_from_edges]))


def test_up_and_down_again_gives_the_speech_back() -> None:
    rng = np.random.default_rng(9)
    spectrum = np.fft.rfft(rng.normal(0, 1, 16000))
    spectrum[int(3400 / 8000 * 16000) :] = 0
    speech = np.fft.irfft(spectrum)
    speech *= 6000 / speech.std()
    before = np.rint(speech)
    for rate in (16000, 24000):
        there = whole(before.astype("<i2").tobytes(), (8000, rate))
        after = samples(whole(there, (rate, 8000)))
        error = (after - before)[200:-200]
        assert db(float(error.std()) / 6000) < -45


@pytest.mark.parametrize("rate", RATES)
def test_equal_rates_hand_the_very_bytes_on(rate: int) -> None:
    resampler = Resampler(rate, rate)
    pcm = sine(440, rate, 0.02)
    assert resampler.process(pcm) is pcm
    assert resampler.flush() == b""
    assert resampler.delay_ms == 0


def test_after_a_flush_a_new_stream_begins_clean() -> None:
    resampler = Resampler(24000, 8000)
    first = np.full(2400, 30000, dtype="<i2").tobytes()
    resampler.process(first)
    resampler.flush()
    second = sine(700, 24000, 0.1)
    assert resampler.process(second) + resampler.flush() == whole(second, (24000, 8000))


def test_a_stream_of_nothing_is_nothing() -> None:
    resampler = Resampler(8000, 24000)
    assert resampler.process(b"") == b""
    assert resampler.flush() == b""


def test_a_first_chunk_shorter_than_the_delay_gives_nothing_yet() -> None:
    resampler = Resampler(8000, 24000)
    assert resampler.process(bytes(2 * 16)) == b""
    assert len(resampler.flush()) == 2 * 48


@pytest.mark.parametrize("pair", [(8000, 24000), (8000, 8000)])
def test_half_a_sample_is_an_error_and_spoils_nothing(pair: tuple[int, int]) -> None:
    resampler = Resampler(*pair)
    pcm = sine(500, 8000, 0.1)
    out = resampler.process(pcm[:300])
    with pytest.raises(ValueError, match="whole number"):
        resampler.process(bytes(3))
    assert out + resampler.process(pcm[300:]) + resampler.flush() == whole(pcm, pair)


def test_an_unknown_rate_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="cannot resample 11000 Hz"):
        Resampler(8000, 11000)


def test_hours_of_a_stream_keep_no_more_than_the_filters_length() -> None:
    resampler = Resampler(24000, 16000)
    for _ in range(2000):
        resampler.process(bytes(961 * 2))
    assert len(resampler._kept) < 300


@pytest.mark.parametrize("pair", LIVE)
def test_limited_peaks_are_bent_and_never_cut_off(pair: tuple[int, int]) -> None:
    """A sine 6 dB over full scale, clipped as a model's voice may be: filtered, it peaks higher still."""
    hz = 440.0
    clipped = np.clip(2 * samples(sine(hz, pair[0], amplitude=32767)), -32768, 32767).astype("<i2").tobytes()
    plain = samples(whole(clipped, pair))
    resampler = Resampler(*pair, limit=True)
    soft = samples(resampler.process(clipped) + resampler.flush())
    quiet = abs(plain) <= KNEE
    assert np.array_equal(soft[quiet], plain[quiet])
    assert abs(soft).max() <= CEILING
    flat = np.flatnonzero(abs(plain) >= 32767)
    assert len(flat) > 100, "else this shows nothing"
    assert len(set(abs(soft[flat]))) > 3, "a flat top"


@given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(1, 700), max_size=20))
@settings(max_examples=30, deadline=None)
def test_how_a_limited_stream_is_cut_changes_not_one_bit(seed: int, cuts: list[int]) -> None:
    pcm = np.random.default_rng(seed).integers(-32768, 32768, 3000).astype("<i2").tobytes()
    once, cut = Resampler(24000, 8000, limit=True), Resampler(24000, 8000, limit=True)
    out, rest = b"", pcm
    for size in cuts:
        out += cut.process(rest[: 2 * size])
        rest = rest[2 * size :]
    assert out + cut.process(rest) + cut.flush() == once.process(pcm) + once.flush()
