"""Many legs judged together: each as if it were alone, whoever else is there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio.frames import FRAME_BYTES, saturated
from audio.vad import (
    WINDOW_SAMPLES,
    Floats,
    SpeechOffset,
    SpeechOnset,
    VadBatch,
    VadModel,
    VadProfile,
    VoiceActivity,
)
from tests.audio.test_vad import (
    LEAD,
    RECORDINGS,
    at_level,
    model,
    over_the_line,
    recording,
    true_onset,
    white,
)

LONG_S = 1800
"""Half an hour of noise."""


class Echoing(VadModel):
    """A model that can be foreseen: its word depends on the window's loudest sample and on all before it."""

    def __init__(self) -> None:
        self.runs: list[int] = []

    def infer(self, windows: Floats, states: Floats) -> tuple[Floats, Floats]:
        self.runs.append(len(windows))
        after = (states * 0.5).astype(np.float32)
        after[0, :, 0] += windows.max(axis=1)
        return np.minimum(after[0, :, 0], 1), after


@st.composite
def calls(draw: st.DrawFn) -> tuple[list[bytes], list[tuple[int, int]]]:
    """What up to five legs hear, and how it comes: a leg's number and how many samples; -1: a tick."""
    legs = draw(st.integers(1, 5))
    chance = np.random.default_rng(draw(st.integers(0, 2**32)))
    sounds = []
    for _ in range(legs):
        levels = chance.choice([0, 300, 20000], size=draw(st.integers(0, 60)))
        sounds.append(np.repeat(levels, WINDOW_SAMPLES).astype("<i2").tobytes())
    pieces = draw(
        st.lists(
            st.one_of(
                st.tuples(st.integers(0, legs - 1), st.integers(0, 3000)),
                st.just((-1, 0)),
            ),
            max_size=60,
        )
    )
    return sounds, pieces


@settings(deadline=None)
@given(calls())
def test_batched_is_as_alone_whatever_the_order(made: tuple[list[bytes], list[tuple[int, int]]]) -> None:
    sounds, pieces = made
    together = Echoing()
    batch = VadBatch(together)
    voices = [batch.voice() for _ in sounds]
    events: list[list[SpeechOnset | SpeechOffset]] = [[] for _ in sounds]
    rest = list(sounds)

    def tick() -> None:
        before = sum(together.runs)
        assert batch.run() == sum(together.runs) - before
        for number, voice in enumerate(voices):
            events[number] += voice.take()

    for number, count in pieces:
        if number < 0:
            tick()
        else:
            voices[number].hear(rest[number][: 2 * count])
            rest[number] = rest[number][2 * count :]
    for number, voice in enumerate(voices):
        voice.hear(rest[number])
    tick()
    for number, sound in enumerate(sounds):
        alone = VoiceActivity(Echoing())
        assert alone.feed(sound) == events[number]
        assert alone.speaking == voices[number].speaking
        assert alone.samples_fed == voices[number].samples_fed


def test_one_run_serves_all_legs_and_a_backlog_takes_as_many_as_it_has_windows() -> None:
    counted = Echoing()
    batch = VadBatch(counted)
    voices = [batch.voice() for _ in range(4)]
    for number, voice in enumerate(voices):
        voice.hear(bytes(2 * WINDOW_SAMPLES * (number + 1)))
    assert batch.run() == 10
    assert counted.runs == [4, 3, 2, 1]
    assert batch.run() == 0


def test_a_leg_that_closes_is_judged_no_more_and_others_are() -> None:
    counted = Echoing()
    batch = VadBatch(counted)
    leaves, stays = batch.voice(), batch.voice()
    loud = np.full(4 * WINDOW_SAMPLES, 30000, "<i2").tobytes()
    leaves.hear(loud)
    stays.hear(loud)
    leaves.close()
    leaves.close()
    assert batch.run() == 4
    assert leaves.take() == []
    assert [type(event) for event in stays.take()] == [SpeechOnset]


def test_real_speech_on_twenty_legs_begins_and_ends_where_it_does_alone() -> None:
    batch = VadBatch(model())
    names = RECORDINGS[::4][:20]
    sounds = [
        over_the_line(np.concatenate((np.zeros(160 * n), recording(name), np.zeros(6000))))
        for n, name in enumerate(names)
    ]
    voices = [batch.voice() for _ in names]
    events: list[list[SpeechOnset | SpeechOffset]] = [[] for _ in names]
    for place in range(0, max(map(len, sounds)), FRAME_BYTES):
        for voice, sound in zip(voices, sounds, strict=True):
            voice.hear(sound[place : place + FRAME_BYTES])
        batch.run()
        for number, voice in enumerate(voices):
            events[number] += voice.take()
    for name, sound, found in zip(names, sounds, events, strict=True):
        alone = VoiceActivity(model()).feed(sound)
        assert [(type(one), one.at) for one in found] == [(type(one), one.at) for one in alone], name
        assert [one.probability for one in found] == pytest.approx(
            [one.probability for one in alone], abs=1e-3
        )
        assert found, name


def test_the_last_window_s_level_and_probability_are_there_to_see() -> None:
    voice = VadBatch(Echoing()).voice()
    assert (voice.probability, voice.level_dbov) == (0.0, -96.0)
    voice.feed(np.full(WINDOW_SAMPLES, 16384, "<i2").tobytes())
    assert voice.probability == pytest.approx(0.5)
    assert voice.level_dbov == pytest.approx(-6.02, abs=0.01)


@pytest.mark.slow
@pytest.mark.timeout(600)  # fifteen seconds of work, more on a busy machine
def test_after_half_an_hour_of_noise_speech_is_noticed_as_at_the_start() -> None:
    """Two noises, in one batch; then the same sentences as a leg hears that has only just begun."""
    batch = VadBatch(model())
    noises = {level: over_the_line(white(20, level, seed)) for seed, level in enumerate((-50.0, -40.0))}
    old = {level: batch.voice(VadProfile()) for level in noises}
    for _ in range(LONG_S // 20):
        for level, voice in old.items():
            voice.hear(noises[level])
        batch.run()
    for level, voice in old.items():
        assert voice.take() == [], level
        late: dict[bool, list[float]] = {True: [], False: []}
        for name in RECORDINGS[::7]:
            speech = at_level(recording(name), -20)
            sound = saturated(
                np.concatenate((white(1, level, 8), speech + white(len(speech) / 8000, level, 9)))
            )
            quiet = over_the_line(white(3, level, 5))
            for aged in (True, False):
                hearer = voice if aged else VoiceActivity(model())
                hearer.feed(quiet)
                start = hearer.samples_fed
                found = []
                for place in range(0, len(sound), FRAME_BYTES):
                    for event in hearer.feed(sound[place : place + FRAME_BYTES]):
                        found.append((event, hearer.samples_fed))
                onsets = [fed for event, fed in found if isinstance(event, SpeechOnset)]
                assert onsets, (name, level, aged)
                late[aged].append((onsets[0] - start - LEAD - true_onset(speech)) / 8)
        assert np.median(late[True]) <= np.median(late[False]) + 20, (level, late)
        assert max(late[True]) <= max(late[False]) + 64, (level, late)
