"""Voice activity: every sentence is heard to begin, and nothing else is.

Real parts: silero's model and the recorded sentences, with noise, level and µ-law added by computation. Where
speech truly begins is taken as the first 10 ms within 30 dB of a recording's loudest 10 ms.
"""

from __future__ import annotations

import wave
from copy import deepcopy
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidProtobuf

from audio import tones
from audio.frames import FRAME_BYTES, saturated
from audio.g711 import ulaw_decode, ulaw_encode
from audio.vad import (
    CONTEXT_SAMPLES,
    WINDOW_SAMPLES,
    SpeechOffset,
    SpeechOnset,
    VadModel,
    VadProfile,
    VoiceActivity,
)

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Event = SpeechOnset | SpeechOffset

AUDIO = Path(__file__).parents[2] / "data" / "audio"
RECORDINGS = sorted(path.name for path in AUDIO.glob("*.wav"))
LEAD = 8000
"""Samples of silence or noise before each sentence."""


@cache
def model() -> VadModel:
    spec = find_spec("silero_vad")  # finding it is not importing it, which would demand torch
    assert spec is not None and spec.origin is not None
    return VadModel((Path(spec.origin).parent / "data" / "silero_vad.onnx").read_bytes())


@cache
def recording(name: str) -> Doubles:
    with wave.open(str(AUDIO / name)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (8000, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float64)


def true_onset(speech: Doubles) -> int:
    tens = speech[: len(speech) // 80 * 80].reshape(-1, 80)
    levels = np.sqrt((tens**2).mean(axis=1))
    return int(np.argmax(levels > levels.max() * 10 ** (-30 / 20))) * 80


def at_level(sound: Doubles, dbov: float) -> Doubles:
    factor = 32768 * 10 ** (dbov / 20) / float(np.sqrt((sound**2).mean()))
    return sound * factor


def white(seconds: float, dbov: float, seed: int = 1) -> Doubles:
    return at_level(np.random.default_rng(seed).normal(0, 1, round(seconds * 8000)), dbov)


def over_the_line(sound: Doubles) -> bytes:
    return ulaw_decode(ulaw_encode(saturated(sound)))


def listen(pcm: bytes, activity: VoiceActivity, chunk: int = FRAME_BYTES) -> list[tuple[Event, int]]:
    """Events, each with how many samples had been fed when it came."""
    out: list[tuple[Event, int]] = []
    for start in range(0, len(pcm), chunk):
        events = activity.feed(pcm[start : start + chunk])
        out += [(event, activity.samples_fed) for event in events]
    return out


def onsets(pcm: bytes, profile: VadProfile | None = None) -> list[SpeechOnset]:
    heard = listen(pcm, VoiceActivity(model(), profile))
    return [event for event, _ in heard if isinstance(event, SpeechOnset)]


# -- speech is heard ---------------------------------------------------------------------------------------

VARIANTS = ["clean", "noise 10 dB", "noise 5 dB", "20 dB quieter"]


def varied(speech: Doubles, variant: str) -> Doubles:
    sound = np.concatenate((np.zeros(LEAD), speech, np.zeros(4800)))
    if variant == "20 dB quieter":
        return sound / 10
    if variant.startswith("noise"):
        below = float(variant.split()[1])
        speech_dbov = 20 * np.log10(np.sqrt((speech**2).mean()) / 32768)
        return sound + white(len(sound) / 8000, speech_dbov - below)
    return sound


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_sentence_is_heard_to_begin_and_soon(variant: str) -> None:
    assert len(RECORDINGS) == 84
    late, off = [], []
    for name in RECORDINGS:
        speech = recording(name)
        heard = listen(over_the_line(varied(speech, variant)), VoiceActivity(model()))
        assert heard, f"{name} ({variant}) was not heard"
        first, fed = heard[0]
        assert isinstance(first, SpeechOnset)
        begins = LEAD + true_onset(speech)
        late.append((fed - begins) / 8)
        off.append((first.at - begins) / 8)
    assert np.median(late) <= 90 and np.percentile(late, 90) <= 150, (
        np.median(late),
        np.percentile(late, 90),
    )
    # Never before the sound; the first window above the threshold begins near the truth.
    assert min(off) > -40 and np.median(off) < 25, (min(off), np.median(off))


def test_a_sentence_also_ends() -> None:
    for name in RECORDINGS:
        speech = recording(name)
        sound = np.concatenate((np.zeros(LEAD), speech, np.zeros(8000)))
        activity = VoiceActivity(model())
        heard = listen(over_the_line(sound), activity)
        last, fed = heard[-1]
        assert isinstance(last, SpeechOffset), name
        assert last.at < LEAD + len(speech) + 800
        # Said hangover_ms after where it ended, up to the end of the window and frame that complete it.
        assert 450 <= (fed - last.at) / 8 <= 450 + 32 + 20
        assert not activity.speaking


def test_the_level_of_an_onset_is_that_of_the_speech() -> None:
    for name in RECORDINGS[::7]:
        quiet, loud = (
            onsets(saturated(np.concatenate((np.zeros(LEAD), at_level(recording(name), dbov)))))[0].level_dbov
            for dbov in (-38.0, -18.0)
        )
        assert loud - quiet == pytest.approx(20, abs=3)


# -- and nothing else is -----------------------------------------------------------------------------------

NOT_SPEECH = {
    "digital silence": np.zeros(10 * 8000),
    "white noise -60": white(20, -60),
    "white noise -40": white(20, -40),
    "white noise -20": white(20, -20),
    "mains hum": at_level(np.sin(2 * np.pi * 60 * np.arange(80000) / 8000), -30),
    "ring-back": np.frombuffer(tones.ring_back() * 3, "<i2").astype(np.float64),
    "loud ring-back": np.frombuffer(tones.ring_back(-10) * 3, "<i2").astype(np.float64),
    "busy": np.frombuffer(tones.busy() * 20, "<i2").astype(np.float64),
    "hold sound": np.frombuffer(tones.hold() * 2, "<i2").astype(np.float64),
    "a click a second": np.tile(np.concatenate((np.full(8, 20000.0), np.zeros(7992))), 15),
}


@pytest.mark.parametrize("name", NOT_SPEECH)
def test_what_is_not_speech_is_not_an_onset(name: str) -> None:
    assert onsets(over_the_line(NOT_SPEECH[name])) == []


def test_a_key_may_be_taken_for_speech_but_seldom_and_only_while_it_sounds() -> None:
    """What the model does with tones, so that nobody relies on more: a DTMF event must overrule the VAD."""
    keys, taken = 0, 0
    for tone_ms in (70, 100, 200, 300):
        for level in (-25.0, -13.0, -6.0):
            for key in "0123456789*#":
                pcm = bytes(2 * LEAD) + tones.dtmf(key, tone_ms, 100, level) + bytes(2 * LEAD)
                sound = np.frombuffer(pcm, "<i2").astype(np.float64)
                events = [event for event, _ in listen(over_the_line(sound), VoiceActivity(model()))]
                keys, taken = keys + 1, taken + bool(events)
                if events:
                    first, last = events[0], events[-1]
                    assert isinstance(last, SpeechOffset), "it must end by itself"
                    assert first.at >= LEAD - WINDOW_SAMPLES
                    assert last.at <= LEAD + tone_ms * 8 + 2 * WINDOW_SAMPLES
    assert taken <= keys * 0.15, f"{taken} of {keys}"


# -- long runs ---------------------------------------------------------------------------------------------


def test_after_minutes_of_noise_every_sentence_is_still_heard() -> None:
    """Without resets the state drifts: after two minutes the same sentences are noticed later, or missed."""
    noise = over_the_line(white(120, -40))
    late: dict[str, list[float]] = {"reset": [], "drifted": []}
    for key, reset_after_ms in (("reset", 2000), ("drifted", 10**9)):
        used = VoiceActivity(model(), VadProfile(reset_after_ms=reset_after_ms))
        assert listen(noise, used, 16000) == []
        assert (55 <= used.resets <= 60) == (key == "reset")
        for name in RECORDINGS[::6]:
            activity = deepcopy(used, {id(model()): model()})
            speech = at_level(recording(name), -26)
            heard = listen(over_the_line(speech + white(len(speech) / 8000, -40, 2)), activity)
            assert heard or key == "drifted", name
            begins = used.samples_fed + true_onset(speech)
            late[key].append((heard[0][1] - begins) / 8 if heard else 10_000)
    assert np.median(late["reset"]) <= 100
    assert np.mean(late["reset"]) < np.mean(late["drifted"])


def test_distant_voices_do_not_become_onsets_by_the_resets() -> None:
    rng = np.random.default_rng(3)
    crowd = np.zeros(30 * 8000)
    for _ in range(20):
        voice = np.concatenate([recording(RECORDINGS[k]) for k in rng.integers(0, 84, 30)])
        crowd += np.resize(voice[rng.integers(0, 8000) :], len(crowd))
    assert onsets(over_the_line(at_level(crowd, -40))) == []


# -- echo --------------------------------------------------------------------------------------------------


def test_what_is_no_louder_than_our_echo_is_no_speech_but_the_caller_above_it_is() -> None:
    echo, caller = recording("v01-grave.wav"), recording("v03-leticia.wav")
    echo = at_level(echo, -42)
    sound = echo.copy()
    start = 8000
    sound[start : start + len(caller)] += at_level(caller, -20)
    for sounded, expected in ((echo, 0), (sound, 1)):
        activity = VoiceActivity(model())
        events: list[Event] = []
        pcm = over_the_line(sounded)
        for place in range(0, len(pcm), FRAME_BYTES):
            events += activity.feed(pcm[place : place + FRAME_BYTES], floor_dbov=-30)
        found = [event for event in events if isinstance(event, SpeechOnset)]
        assert len(found[:1]) == expected
        assert all(event.at >= start - WINDOW_SAMPLES for event in found)
    assert onsets(over_the_line(echo)), "without the floor the echo would have been a barge-in"


# -- the rules, on scripted probabilities ------------------------------------------------------------------


class Scripted(VadModel):
    """Gives the probabilities of a list, then zeros; remembers what it was asked."""

    def __init__(self, probabilities: list[float]) -> None:
        self.probabilities = list(probabilities)
        self.windows: list[Floats] = []
        self.fresh: list[bool] = []

    def infer(self, windows: Floats, states: Floats) -> tuple[Floats, Floats]:
        assert windows.shape == (1, CONTEXT_SAMPLES + WINDOW_SAMPLES)
        assert states.shape == (2, 1, 128)
        self.windows.append(windows[0].copy())
        self.fresh.append(not states.any())
        probability = self.probabilities.pop(0) if self.probabilities else 0.0
        return np.array([probability], np.float32), np.ones_like(states)


LOUD = np.full(WINDOW_SAMPLES, 3277, dtype="<i2").tobytes()
"""A window at −20 dBov."""


def run(probabilities: list[float], profile: VadProfile | None = None) -> list[Event]:
    activity = VoiceActivity(Scripted(probabilities), profile)
    return activity.feed(LOUD * len(probabilities))


def test_each_window_is_preceded_by_the_end_of_the_one_before() -> None:
    scripted = Scripted([])
    pcm = np.arange(3 * WINDOW_SAMPLES, dtype="<i2")
    activity = VoiceActivity(scripted)
    for start in range(0, len(pcm), 160):
        activity.feed(pcm[start : start + 160].tobytes())
    assert len(scripted.windows) == 3
    stream = np.concatenate((np.zeros(CONTEXT_SAMPLES), pcm / 32768)).astype(np.float32)
    for number, window in enumerate(scripted.windows):
        begin = number * WINDOW_SAMPLES
        assert np.array_equal(window, stream[begin : begin + CONTEXT_SAMPLES + WINDOW_SAMPLES])
    assert activity.samples_fed == len(pcm)


def test_two_windows_make_an_onset_dated_back_to_the_first() -> None:
    (onset,) = run([0.1, 0.6, 0.9])
    assert isinstance(onset, SpeechOnset)
    assert onset.at == WINDOW_SAMPLES
    assert onset.probability == pytest.approx(0.9)
    assert onset.level_dbov == pytest.approx(-20, abs=0.01)


@pytest.mark.parametrize(
    "probabilities",
    [[0.9], [0.9, 0.1] * 9, [0.49] * 9, [0.9, 0.34, 0.9], [0.4, 0.9], [0.9] + [0.4] * 9],
)
def test_a_blip_is_no_onset(probabilities: list[float]) -> None:
    assert run(probabilities) == []


def test_between_the_thresholds_what_was_goes_on() -> None:
    (onset,) = run([0.6, 0.4, 0.6] + [0.36] * 60)
    assert onset.at == 0
    assert run([0.36] * 60) == []


def test_a_pause_within_a_sentence_ends_nothing() -> None:
    # 450 ms are 14.06 windows: the fifteenth ends it.
    events = run([0.9] * 3 + [0.1] * 14 + [0.9] + [0.1] * 15)
    assert [type(event) for event in events] == [SpeechOnset, SpeechOffset]
    assert events[1].at == 18 * WINDOW_SAMPLES


def test_what_was_said_before_has_no_part_in_the_next_onset() -> None:
    soft = np.full(WINDOW_SAMPLES, 328, dtype="<i2").tobytes()
    activity = VoiceActivity(Scripted([0.9] * 5 + [0.1] * 15 + [0.9] * 2))
    events = activity.feed(soft * 5 + soft * 15 + LOUD * 2)
    assert [type(event) for event in events] == [SpeechOnset, SpeechOffset, SpeechOnset]
    assert [round(event.level_dbov) for event in events] == [-40, -40, -20]
    assert events[2].at == 20 * WINDOW_SAMPLES


def test_min_speech_is_a_matter_of_the_profile() -> None:
    assert [len(run([0.9] * n, VadProfile(min_speech_ms=96))) for n in (1, 2, 3)] == [0, 0, 1]
    assert len(run([0.9], VadProfile(min_speech_ms=32))) == 1


def test_digital_silence_is_no_speech_whatever_the_model_says() -> None:
    activity = VoiceActivity(Scripted([0.99] * 50))
    assert activity.feed(bytes(2 * WINDOW_SAMPLES * 50)) == []


def test_silence_ends_speech_whatever_the_model_says() -> None:
    activity = VoiceActivity(Scripted([0.99] * 50))
    events = activity.feed(LOUD * 10 + bytes(2 * WINDOW_SAMPLES * 20))
    assert [type(event) for event in events] == [SpeechOnset, SpeechOffset]
    assert events[1].at == 10 * WINDOW_SAMPLES


def fresh_windows(probabilities: list[float]) -> list[int]:
    scripted = Scripted(probabilities)
    VoiceActivity(scripted).feed(LOUD * len(probabilities))
    return [number for number, fresh in enumerate(scripted.fresh) if fresh]


def test_the_state_is_forgotten_after_two_seconds_of_clear_non_speech() -> None:
    # 2000 ms are 62.5 windows.
    assert fresh_windows([0.05] * 200) == [0, 63, 126, 189]


def test_the_state_is_kept_while_it_is_not_clear() -> None:
    assert fresh_windows([0.2] * 200) == [0]
    assert fresh_windows(([0.05] * 62 + [0.2]) * 3) == [0]
    assert fresh_windows([0.9] * 200) == [0]


def test_half_a_sample_is_an_error_and_nothing_of_it_is_taken() -> None:
    activity = VoiceActivity(Scripted([]))
    with pytest.raises(ValueError, match="whole number"):
        activity.feed(bytes(321))
    assert activity.samples_fed == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"onset_threshold": 0.3},
        {"reset_below": 0.4},
        {"onset_threshold": 1.0},
        {"min_speech_ms": 0},
        {"hangover_ms": -1},
        {"reset_after_ms": 0},
    ],
)
def test_a_profile_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        VadProfile(**wrong)  # type: ignore[arg-type]


@settings(deadline=None)
@given(st.lists(st.floats(0, 1, width=32), max_size=120), st.lists(st.integers(0, 900), max_size=40))
def test_onsets_and_offsets_alternate_in_order_however_the_stream_is_cut(
    probabilities: list[float], cuts: list[int]
) -> None:
    whole_activity = VoiceActivity(Scripted(probabilities))
    whole = whole_activity.feed(LOUD * len(probabilities))
    for number, event in enumerate(whole):
        assert isinstance(event, SpeechOffset if number % 2 else SpeechOnset)
    places = [event.at for event in whole]
    assert places == sorted(set(places))
    assert whole_activity.speaking == (len(whole) % 2 == 1)

    activity = VoiceActivity(Scripted(probabilities))
    rest, events = LOUD * len(probabilities), []
    for cut in cuts:
        events += activity.feed(rest[: 2 * cut])
        rest = rest[2 * cut :]
    events += activity.feed(rest)
    assert events == whole
    assert activity.samples_fed == whole_activity.samples_fed


# -- the model ---------------------------------------------------------------------------------------------


def test_many_legs_judged_together_are_judged_as_alone() -> None:
    size = CONTEXT_SAMPLES + WINDOW_SAMPLES
    speech = [np.resize(recording(name), 40 * WINDOW_SAMPLES + size) / 32768 for name in RECORDINGS[:6]]
    states = np.zeros((2, 6, 128), np.float32)
    alone = [np.zeros((2, 1, 128), np.float32) for _ in speech]
    spoke = 0
    for number in range(40):
        begin = number * WINDOW_SAMPLES
        windows = np.array([leg[begin : begin + size] for leg in speech], dtype=np.float32)
        together, states = model().infer(windows, states)
        assert together.shape == (6,)
        for leg in range(6):
            single, alone[leg] = model().infer(windows[leg : leg + 1], alone[leg])
            assert together[leg] == pytest.approx(single[0], abs=1e-4)
        spoke += int((together > 0.5).sum())
    assert 60 < spoke < 240


def test_what_is_no_model_is_an_error() -> None:
    with pytest.raises(InvalidProtobuf):
        VadModel(b"not a model")
