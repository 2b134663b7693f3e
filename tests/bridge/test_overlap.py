"""A sound of the caller's while we speak: when we pause, go on, and give way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio.frames import FRAME_BYTES
from audio.vad import SpeechOffset, SpeechOnset, VoiceActivity
from bridge.overlap import (
    AGAIN_S,
    ANSWER_S,
    PAUSE_S,
    QUIET_MS,
    SPEECH_MS,
    UNHEARD_S,
    WORDS_S,
    Overlap,
    Verdict,
)
from tests.audio.test_vad import RECORDINGS, at_level, model, over_the_line, recording, white

SHORT = ("r01", "r02", "r06", "r13")
"""Sim. Não. Quem é? Alô?"""


def resumed(began: float = 10.0, turns: tuple[str, ...] = ()) -> Overlap:
    overlap = Overlap(began, turns)
    assert overlap.judge(began + 0.6, speech_ms=300, quiet_ms=QUIET_MS) is Verdict.RESUME
    return overlap


def judged(overlap: Overlap, now: float) -> Verdict:
    return overlap.judge(now, speech_ms=0, quiet_ms=0)


def test_a_short_sound_is_waited_for_and_then_we_go_on() -> None:
    overlap = Overlap(10.0, ())
    assert overlap.judge(10.1, speech_ms=100, quiet_ms=0) is Verdict.WAIT
    assert overlap.judge(10.5, speech_ms=300, quiet_ms=QUIET_MS - 1) is Verdict.WAIT
    assert overlap.judge(10.6, speech_ms=300, quiet_ms=QUIET_MS) is Verdict.RESUME
    assert not overlap.paused


def test_who_goes_on_speaking_gets_the_turn() -> None:
    assert Overlap(10.0, ()).judge(10.7, speech_ms=SPEECH_MS + 1, quiet_ms=0) is Verdict.GIVE_WAY


def test_a_pause_ends_even_where_the_callers_audio_stops_coming() -> None:
    overlap = Overlap(10.0, ())
    assert overlap.judge(10.0 + PAUSE_S, speech_ms=300, quiet_ms=0) is Verdict.WAIT
    assert overlap.judge(10.01 + PAUSE_S, speech_ms=300, quiet_ms=0) is Verdict.GIVE_WAY


def test_what_the_provider_heard_nothing_of_is_over_after_a_while() -> None:
    overlap = resumed()
    assert judged(overlap, 10.6 + UNHEARD_S) is Verdict.WAIT
    assert judged(overlap, 10.7 + UNHEARD_S) is Verdict.OVER


def test_a_backchannel_is_over_once_its_words_are_known() -> None:
    overlap = resumed(turns=("i1",))
    assert overlap.concerns("i1")
    overlap.backchannel("i1", 11.5)
    assert judged(overlap, 11.5) is Verdict.OVER


def test_a_turn_whose_words_never_come_gets_its_answer() -> None:
    overlap = resumed()
    overlap.turn_began("i1", 10.7)
    assert judged(overlap, 10.7 + WORDS_S) is Verdict.WAIT
    assert judged(overlap, 10.8 + WORDS_S) is Verdict.GIVE_WAY


def test_a_backchannel_over_the_end_of_a_question_answers_it() -> None:
    assert resumed().answers(10.6 + ANSWER_S / 2)
    assert not resumed().answers(10.7 + ANSWER_S)
    assert not Overlap(10.0, ()).answers(10.1)


def test_who_speaks_again_at_once_wants_the_turn_and_later_it_is_another_sound() -> None:
    assert not resumed().again(10.7, 10.6 + AGAIN_S / 2)
    overlap = resumed()
    assert overlap.again(12.0, 10.6 + AGAIN_S)
    assert overlap.paused and overlap.began == 12.0


def test_while_we_pause_a_second_onset_is_no_new_pause() -> None:
    assert not Overlap(10.0, ()).again(10.2, 10.3)


EVENTS = st.lists(
    st.tuples(
        st.floats(0.0, 0.5),
        st.sampled_from(["turn", "words", "again", ""]),
        st.integers(0, 700),
        st.integers(0, 300),
    ),
    max_size=40,
)


@given(EVENTS)
def test_whatever_comes_it_is_settled_in_bounded_time(events: list[tuple[float, str, int, int]]) -> None:
    overlap, now, last = Overlap(0.0, ()), 0.0, 0.0
    for number, (after, what, speech_ms, quiet_ms) in enumerate(events):
        now += after
        if what == "turn":
            overlap.turn_began(f"i{number}", now)
        elif what == "words" and overlap.concerns(f"i{number - 1}"):
            overlap.backchannel(f"i{number - 1}", now)
        elif what == "again" and overlap.again(now, now):
            last = now
        if overlap.judge(now, speech_ms=speech_ms, quiet_ms=quiet_ms) in (Verdict.GIVE_WAY, Verdict.OVER):
            return
        assert not overlap.paused or now - last <= PAUSE_S, "silent for longer than a pause may be"
    verdict = judged(overlap, now + PAUSE_S + 0.1)
    assert not overlap.paused or verdict is Verdict.GIVE_WAY
    assert verdict is Verdict.GIVE_WAY or judged(overlap, now + PAUSE_S + WORDS_S + 1) in (
        Verdict.GIVE_WAY,
        Verdict.OVER,
    )


# -- with the local VAD, on recorded speech -----------------------------------------------------------------


def verdict_on(name: str) -> tuple[Verdict, float]:
    """What a recording is taken for before its words are known, and how long it kept us silent (ms)."""
    speech = at_level(recording(name), -20)
    sound = np.concatenate((np.zeros(8000), speech, np.zeros(8000)))
    pcm = over_the_line(sound + white(len(sound) / 8000, -65))
    voice, overlap, began = VoiceActivity(model()), None, 0.0
    for place in range(0, len(pcm), FRAME_BYTES):
        now = (place + FRAME_BYTES) / 16000
        for event in voice.feed(pcm[place : place + FRAME_BYTES]):
            if isinstance(event, SpeechOnset) and overlap is None:
                overlap, began = Overlap(event.at / 8000, ()), now
        if overlap is not None:
            verdict = overlap.judge(now, speech_ms=voice.speech_ms, quiet_ms=voice.quiet_ms)
            if verdict is not Verdict.WAIT:
                return verdict, (now - began) * 1000
    raise AssertionError("it was never settled")


@pytest.mark.parametrize("name", [name for name in RECORDINGS if name.startswith(SHORT)])
def test_a_recorded_short_word_lets_us_go_on_soon_after_it(name: str) -> None:
    verdict, silent_ms = verdict_on(name)
    assert verdict is Verdict.RESUME
    assert 400 < silent_ms < 700


@pytest.mark.parametrize("name", [name for name in RECORDINGS if not name.startswith(SHORT)][::5])
def test_a_recorded_sentence_is_given_way_to_and_not_talked_into(name: str) -> None:
    assert verdict_on(name)[0] is Verdict.GIVE_WAY


def test_a_quiet_that_is_taken_for_the_end_is_one() -> None:
    voice = VoiceActivity(model())
    pcm = over_the_line(np.concatenate((at_level(recording("r01-leticia.wav"), -20), np.zeros(1600))))
    events = []
    for place in range(0, len(pcm), FRAME_BYTES):
        events += voice.feed(pcm[place : place + FRAME_BYTES])
        if voice.quiet_ms >= QUIET_MS:
            break
    assert [type(one) for one in events] == [SpeechOnset]
    assert isinstance(events[0], SpeechOnset)
    spoken_ms = voice.speech_ms
    voice.end_now()
    voice.end_now()
    (ended,) = voice.take()
    assert isinstance(ended, SpeechOffset)
    assert (ended.at - events[0].at) / 8 == spoken_ms
    assert (voice.speaking, voice.speech_ms, voice.quiet_ms) == (False, 0, 0)
