"""The ear: what the model hears while we talk, and that no caller's word loses its beginning."""

from __future__ import annotations

from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio.echo import EchoGuard
from audio.frames import FRAME_BYTES, SILENCE, saturated
from audio.hearing import OPENING_MS, PRE_ROLL_MS, Ear, Ears, Uplink
from audio.vad import SpeechOnset, VadBatch
from bench.hearing import at_level
from tests.audio.test_vad import RECORDINGS, model, over_the_line, recording, true_onset, white

TALK = saturated(at_level(np.tile(recording("v01-grave.wav"), 4), -20))
PRE_ROLL_BYTES = PRE_ROLL_MS * 16


def converse(
    ear: Ear, batch: VadBatch, heard: bytes, *, we_talk: bool, every: int = 1
) -> tuple[bytes, list[int]]:
    """What the model gets while ``heard`` comes in, and where onsets were found, in bytes of ``heard``.

    The voice is judged at every so-manieth frame: ticks are late on a machine that has much to do.
    """
    given_on, onsets = b"", []
    for place in range(0, len(heard), FRAME_BYTES):
        if place // FRAME_BYTES % every == 0:
            batch.run()
        onsets += [place for event in ear.take() if isinstance(event, SpeechOnset)]
        frame = TALK[place : place + FRAME_BYTES] if we_talk and not onsets else SILENCE
        ear.played(frame, 0, ours=we_talk and not onsets)
        given_on += ear.heard(heard[place : place + FRAME_BYTES])
    return given_on, onsets


def an_ear(batch: VadBatch, gated: bool = True) -> Ear:
    return Ear(batch.voice(), guard=EchoGuard(), gated=gated)


def test_while_we_talk_the_model_hears_silence_and_not_our_echo() -> None:
    batch = VadBatch(model())
    echo = over_the_line(np.frombuffer(TALK, "<i2") * 0.5)[: 320 * 250]
    heard, onsets = converse(an_ear(batch), batch, echo, we_talk=True)
    assert onsets == []
    assert heard == bytes(len(echo))
    plain, _ = converse(an_ear(batch, gated=False), batch, echo, we_talk=True)
    assert plain == echo


def test_while_we_are_silent_the_model_hears_everything_as_it_is() -> None:
    batch = VadBatch(model())
    sound = over_the_line(np.concatenate((white(1, -50), recording("v03-leticia.wav"))))
    heard, _ = converse(an_ear(batch), batch, sound, we_talk=False)
    assert heard == sound


@pytest.mark.parametrize("name", RECORDINGS[::9])
def test_who_speaks_over_us_is_heard_by_the_model_from_the_first_sound(name: str) -> None:
    batch = VadBatch(model())
    speech = at_level(recording(name), -18)
    begins = 24000
    sound = over_the_line(np.concatenate((np.zeros(begins), speech)) + white(3 + len(speech) / 8000, -65))
    sound = sound[: len(sound) // FRAME_BYTES * FRAME_BYTES]
    heard, onsets = converse(an_ear(batch), batch, sound, we_talk=True)
    first = 2 * (begins + true_onset(speech))
    assert first < onsets[0] < first + PRE_ROLL_BYTES, "within the pre-roll"
    # Silence while nobody spoke, then the 400 ms before, then all the rest, whole and once.
    whole = sound[onsets[0] - PRE_ROLL_BYTES :]
    assert heard == bytes(onsets[0]) + whole
    assert sound[first:] in heard


def test_when_the_way_opens_by_itself_the_last_of_what_was_kept_back_is_given_once() -> None:
    batch = VadBatch(model())
    ear = an_ear(batch)
    murmur = over_the_line(white(1, -50))
    converse(ear, batch, murmur, we_talk=True)
    for _ in range(30):
        ear.played(SILENCE, 0, ours=False)
    assert ear.heard(murmur[:320]) == murmur[-OPENING_MS * 16 :] + murmur[:320]
    assert ear.heard(murmur[320:640]) == murmur[320:640]


@pytest.mark.parametrize("every", [1, 5])
@pytest.mark.parametrize("after_ms", range(200, 481, 20))
def test_a_word_that_begins_when_our_echo_is_about_to_be_over_keeps_its_beginning(
    after_ms: int, every: int
) -> None:
    """People answer just then: the way opens by itself while their first sound is still to be judged."""
    batch = VadBatch(model())
    ear = an_ear(batch)
    converse(ear, batch, over_the_line(white(2, -65)), we_talk=True)
    speech = at_level(recording("v05-leticia.wav"), -30)
    sound = over_the_line(np.concatenate((np.zeros(after_ms * 8 - true_onset(speech)), speech)))
    sound = sound[: len(sound) // FRAME_BYTES * FRAME_BYTES]
    heard, onsets = converse(ear, batch, sound, we_talk=False, every=every)
    assert onsets
    assert sound[after_ms * 16 :] in heard


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=2000)), max_size=40))
def test_the_uplink_gives_each_byte_once_and_the_last_400_ms_of_what_it_kept(
    steps: list[tuple[bool, bytes]],
) -> None:
    uplink, kept = Uplink(), b""
    for closes, pcm in steps:
        pcm = pcm[: len(pcm) // 2 * 2]
        if closes:
            assert uplink.closed(pcm) == bytes(len(pcm))
            kept += pcm
        else:
            assert uplink.open() == kept[-PRE_ROLL_BYTES:]
            kept = b""


def test_without_a_guard_and_a_gate_an_ear_changes_nothing() -> None:
    batch = VadBatch(model())
    sound = over_the_line(recording("v02-leticia.wav"))
    sound = sound[: len(sound) // FRAME_BYTES * FRAME_BYTES]
    heard, onsets = converse(Ear(batch.voice()), batch, sound, we_talk=True)
    assert heard == sound
    assert onsets


def test_who_else_is_there_makes_no_difference_to_a_leg() -> None:
    """Four legs with an echo each, their callers at other times, lost frames, and one that leaves early."""
    together, alone = Ears(model()), VadBatch(model())
    pairs = [(together.ear(guard=EchoGuard()), an_ear(alone, gated=False)) for _ in range(4)]
    speech = at_level(recording("v03-leticia.wav"), -18)
    events: list[list[tuple[type, int]]] = [[] for _ in range(8)]
    for step in range(500):
        together.run()
        alone.run()
        for number, ears in enumerate(pairs):
            begins = 48000 + 8000 * number
            now = 160 * step
            caller = speech[max(0, now - begins) :][: 160 if now >= begins else 0]
            frame = TALK[320 * step + 3200 * number :][:320]
            echo = 0.5 * np.frombuffer(TALK[max(0, 320 * (step - 4) + 3200 * number) :][:320], "<i2")
            heard = saturated(echo + np.pad(caller, (0, 160 - len(caller))))
            for which, ear in enumerate(ears):
                events[2 * number + which] += [(type(event), event.at) for event in ear.take()]
                ear.played(frame, 30 if step == 200 else 0, ours=True)
                if (step + number) % 97 and not ear.voice.closed:
                    ear.heard(heard)
                if step == 250 and number == 3:
                    ear.close()
    assert events[0::2] == events[1::2]
    assert all(events[:6])


def test_a_guard_that_breaks_down_costs_its_own_leg_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    ears = Ears(model())
    broken, well = EchoGuard(), EchoGuard()
    legs = [ears.ear(guard=guard) for guard in (broken, well)]
    speech = over_the_line(at_level(recording("v03-leticia.wav"), -18))
    sound = [
        speech[at : at + FRAME_BYTES]
        for at in range(0, len(speech) // FRAME_BYTES * FRAME_BYTES, FRAME_BYTES)
    ]
    for number, frame in enumerate(sound):
        if number == 3:
            monkeypatch.setattr(broken, "begin", Mock(side_effect=ValueError("a fault")))
        for leg in legs:
            leg.played(TALK[:FRAME_BYTES], 0, ours=False)
            leg.heard(frame)
        ears.run()
    with pytest.raises(ValueError, match="a fault"):
        legs[0].take()
    assert legs[1].take(), "the other one hears who speaks"
    assert legs[1].voice.samples_fed == len(sound) * 160
