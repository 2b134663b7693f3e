"""The telephone's own sounds: right pitch, cadence and level, and no clicks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from audio import tones
from audio.frames import level_dbov, peak, samples_of


def strongest(pcm: bytes, count: int) -> list[float]:
    """The ``count`` strongest frequencies, in Hz, ascending."""
    samples = samples_of(pcm).astype(float)
    spectrum = abs(np.fft.rfft(samples * np.hanning(len(samples)), 8000))
    found = []
    for _ in range(count):
        top = int(spectrum.argmax())
        found.append(float(top))
        spectrum[max(0, top - 30) : top + 31] = 0
    return sorted(found)


def bytes_at(seconds: float) -> int:
    return round(seconds * 8000) * 2


def jumps(pcm: bytes) -> npt.NDArray[np.float64]:
    """Steps from sample to sample, around the loop."""
    samples = samples_of(pcm).astype(np.float64)
    return np.abs(np.diff(samples, append=samples[:1]))


def test_ring_back_is_425_hz_one_second_on_four_off() -> None:
    pcm = tones.ring_back()
    assert len(pcm) == bytes_at(5)
    assert strongest(pcm[: bytes_at(1)], 1) == [425]
    assert pcm[bytes_at(1) :] == bytes(bytes_at(4))


def test_busy_is_a_quarter_second_on_and_off() -> None:
    pcm = tones.busy()
    assert len(pcm) == bytes_at(0.5)
    assert strongest(pcm[: bytes_at(0.25)], 1) == pytest.approx([425], abs=1)
    assert pcm[bytes_at(0.25) :] == bytes(bytes_at(0.25))


@pytest.mark.parametrize("level", [-40.0, -24.0, -10.0])
def test_a_tone_has_the_level_that_was_asked_for(level: float) -> None:
    middle = slice(bytes_at(0.1), bytes_at(0.9))
    assert level_dbov(tones.ring_back(level)[middle]) == pytest.approx(level, abs=0.1)
    swell = slice(bytes_at(0.95), bytes_at(1.05))
    assert level_dbov(tones.hold(level)[swell]) == pytest.approx(level, abs=2.0)


@pytest.mark.parametrize("sound", [tones.ring_back, tones.busy, tones.hold])
def test_loops_begin_and_end_in_silence_and_never_click(sound: object) -> None:
    assert callable(sound)
    pcm = sound(-20.0)
    samples = samples_of(pcm)
    assert samples[0] == 0 and abs(samples[-1]) <= 1
    # A steady tone's steepest step is 2π·f/8000 of its peak; a click would exceed it.
    assert jumps(pcm).max() <= 2 * np.pi * 530 / 8000 * peak(pcm) + 1


@pytest.mark.parametrize("key", tones.DTMF_KEYS)
def test_each_key_sounds_its_two_frequencies(key: str) -> None:
    pcm = tones.dtmf(key, tone_ms=200, pause_ms=50)
    place = tones.DTMF_KEYS.index(key)
    assert len(pcm) == bytes_at(0.25)
    expected = [tones.DTMF_LOW[place // 4], tones.DTMF_HIGH[place % 4]]
    assert strongest(pcm[: bytes_at(0.2)], 2) == pytest.approx(expected, abs=4)
    assert level_dbov(pcm[bytes_at(0.01) : bytes_at(0.19)]) == pytest.approx(-13, abs=0.3)


def test_keys_follow_one_another_with_pauses() -> None:
    pcm = tones.dtmf("1d", tone_ms=80, pause_ms=40)
    assert len(pcm) == bytes_at(0.24)
    assert pcm[bytes_at(0.08) : bytes_at(0.12)] == bytes(bytes_at(0.04))
    assert tones.dtmf("") == b""


def test_no_sound_clips_at_the_loudest_level_that_fits() -> None:
    assert peak(tones.ring_back(-3.1)) < 32768
    assert peak(tones.dtmf("5", level_dbov=-6.1)) <= 32767


def test_a_character_that_is_no_key_is_an_error() -> None:
    with pytest.raises(ValueError, match="'X' is no DTMF key"):
        tones.dtmf("12x")
