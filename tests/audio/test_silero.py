"""Silero's network in numpy gives what onnxruntime makes of the same file."""

from __future__ import annotations

import subprocess
import sys
import wave
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio.silero import DIGEST, Floats, Silero, UnknownFile
from audio.vad import CONTEXT_SAMPLES, WINDOW_SAMPLES, OnnxNetwork, SpeechOnset, VadModel, VoiceActivity

AUDIO = Path(__file__).parents[2] / "data" / "audio"
RECORDINGS = sorted(AUDIO.glob("*.wav"))
SIZE = CONTEXT_SAMPLES + WINDOW_SAMPLES
CLOSE = 1e-4
"""So near must a probability be, and a state beside its size: the cells go beyond 100 in loud sound."""


def package_file(name: str) -> bytes:
    spec = find_spec("silero_vad")  # finding it is not importing it, which would demand torch
    assert spec is not None and spec.origin is not None
    return (Path(spec.origin).parent / "data" / name).read_bytes()


@cache
def silero() -> Silero:
    return Silero(package_file("silero_vad.onnx"))


@cache
def reference() -> OnnxNetwork:
    return OnnxNetwork(package_file("silero_vad.onnx"))


@cache
def speech() -> Floats:
    """All recordings, one after the other, at ±1."""
    parts = []
    for path in RECORDINGS:
        with wave.open(str(path)) as file:
            parts.append(np.frombuffer(file.readframes(file.getnframes()), "<i2"))
    whole: Floats = np.concatenate(parts).astype(np.float32)
    return whole * np.float32(1 / 32768)


def noisy(sound: Floats, level_db: float, noise_dbov: float) -> Floats:
    """As a line gives it: in 16 bits."""
    noise = np.random.default_rng(1).standard_normal(len(sound), np.float32)
    mixed: Floats = sound * np.float32(10 ** (level_db / 20)) + noise * np.float32(10 ** (noise_dbov / 20))
    return np.clip(np.rint(mixed * 32768), -32768, 32767) * np.float32(1 / 32768)


def steps(legs: Floats) -> list[Floats]:
    """The windows of [N, samples], each [N, 288]."""
    framed = np.pad(legs, ((0, 0), (CONTEXT_SAMPLES, 0)))
    count = legs.shape[1] // WINDOW_SAMPLES
    return [np.ascontiguousarray(framed[:, n * WINDOW_SAMPLES :][:, :SIZE]) for n in range(count)]


def fresh(legs: int) -> Floats:
    return np.zeros((2, legs, 128), np.float32)


def furthest(legs: Floats) -> tuple[float, float, float]:
    """Over all windows of [N, samples]: how far the probabilities and the states are from onnxruntime's, each
    network going on from its own states, and the share of speech."""
    ours, theirs = fresh(len(legs)), fresh(len(legs))
    off, states_off, spoken = 0.0, 0.0, []
    for windows in steps(legs):
        found, ours = silero().infer(windows, ours)
        wanted, theirs = reference().infer(windows, theirs)
        assert found.dtype == ours.dtype == np.float32
        assert (found.shape, ours.shape) == (wanted.shape, theirs.shape)
        off = max(off, float(np.abs(found - wanted).max()))
        states_off = max(states_off, float((np.abs(ours - theirs) / np.maximum(1, np.abs(theirs))).max()))
        spoken.append(float((wanted > 0.5).mean()))
    return off, states_off, float(np.mean(spoken))


# -- the same as onnxruntime -------------------------------------------------------------------------------


def test_all_recordings_at_any_level_in_any_noise_are_judged_alike() -> None:
    whole = speech()
    lines = [
        noisy(whole, level, noise)
        for level, noise in ((12.0, -90.0), (0.0, -30.0), (-20.0, -50.0), (-30.0, -90.0))
    ]
    length = len(whole) // 8
    off, states_off, spoken = furthest(np.concatenate([line[: 8 * length].reshape(8, -1) for line in lines]))
    assert off < CLOSE and states_off < CLOSE
    assert 0.3 < spoken < 0.9


def test_they_do_not_drift_apart_in_minutes() -> None:
    assert len(speech()) > 3 * 60 * 8000
    off, states_off, spoken = furthest(noisy(speech(), 0.0, -60.0)[np.newaxis])
    assert off < CLOSE and states_off < CLOSE
    assert 0.5 < spoken < 0.9


@pytest.mark.parametrize("sound", ["silence", "full scale", "a tone", "clicks"])
def test_what_no_speaker_says_is_judged_alike(sound: str) -> None:
    made = {
        "silence": np.zeros(80_000),
        "full scale": np.sign(np.random.default_rng(1).normal(size=80_000)),
        "a tone": np.sin(np.arange(80_000) * 0.7),
        "clicks": (np.arange(80_000) % 997 == 0).astype(np.float64),
    }[sound]
    off, states_off, _ = furthest(made.astype(np.float32)[np.newaxis])
    assert off < CLOSE and states_off < CLOSE


def test_no_decision_differs() -> None:
    class ByOnnxruntime(VadModel):
        def __init__(self) -> None:
            self._network = reference()

    decided: list[list[tuple[type, int]]] = []
    for model in (VadModel(package_file("silero_vad.onnx")), ByOnnxruntime()):
        activity = VoiceActivity(model)
        pcm = (noisy(speech(), -12.0, -50.0) * 32767).astype("<i2").tobytes()
        decided.append([(type(event), event.at) for event in activity.feed(pcm)])
    assert decided[0] == decided[1]
    assert sum(kind is SpeechOnset for kind, _ in decided[0]) > 50


# -- many at once ------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 100), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_together_is_as_alone_whatever_was_judged_before(batches: list[int], seed: int) -> None:
    """The network works in the same memory each time: nothing of one batch gets into the next."""
    rng = np.random.default_rng(seed)
    for legs in batches:
        places = rng.integers(0, len(speech()) - SIZE, legs)
        windows = np.array([speech()[place : place + SIZE] for place in places], np.float32).reshape(-1, SIZE)
        states = rng.normal(0, 1, (2, legs, 128)).astype(np.float32)
        given_windows, given_states = windows.copy(), states.copy()
        found, after = silero().infer(windows, states)
        assert found.shape == (legs,) and after.shape == (2, legs, 128)
        assert (windows == given_windows).all() and (states == given_states).all()
        for leg in {0, 29, 30, legs - 1} & set(range(legs)):
            alone, state = silero().infer(windows[leg : leg + 1], states[:, leg : leg + 1])
            assert found[leg] == pytest.approx(alone[0], abs=1e-5)
            assert np.abs(after[:, leg] - state[:, 0]).max() < 1e-5


def test_a_result_is_not_overwritten_by_the_next() -> None:
    windows = steps(speech()[np.newaxis, : 100 * WINDOW_SAMPLES])
    first, first_after = silero().infer(windows[50], fresh(1))
    kept, kept_after = first.copy(), first_after.copy()
    silero().infer(windows[80], first_after)
    assert (first == kept).all() and (first_after == kept_after).all()


@pytest.mark.parametrize(
    ("windows", "states"),
    [((2, 256), (2, 2, 128)), ((2, 1), (2, 2, 128)), ((2, SIZE), (2, 1, 128)), ((2, SIZE), (2, 3, 128)),
     ((SIZE,), (2, 1, 128)), ((1, SIZE), (1, 1, 128))],
)  # fmt: skip
def test_other_shapes_are_refused(windows: tuple[int, ...], states: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"found windows \(.*; allowed are \[N, 288\] and \[2, N, 128\]"):
        silero().infer(np.zeros(windows, np.float32), np.zeros(states, np.float32))


def test_threads_do_not_disturb_each_other() -> None:
    length = len(speech()) // 3
    thirds = [speech()[n * length :][: 300 * WINDOW_SAMPLES] for n in range(3)]

    def listen(sound: Floats) -> list[float]:
        states, found = fresh(1), []
        for windows in steps(sound[np.newaxis]):
            probabilities, states = silero().infer(windows, states)
            found.append(float(probabilities[0]))
        return found

    one_by_one = [listen(sound) for sound in thirds]
    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(listen, thirds)) == one_by_one


# -- which file --------------------------------------------------------------------------------------------


def test_the_installed_file_is_known_and_needs_no_onnxruntime() -> None:
    code = """
import sys
from providers.local.vad import load_vad
load_vad()
print("onnxruntime" in sys.modules)
"""
    run = [sys.executable, "-c", code]
    found = subprocess.run(run, capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout == "False\n"


def test_a_file_that_is_not_known_is_refused() -> None:
    known = package_file("silero_vad.onnx")
    for other in (
        package_file("silero_vad_op18_ifless.onnx"),
        known[:-1],
        known[:400] + b"\0" + known[401:],
        b"",
    ):
        with pytest.raises(UnknownFile, match=f"found the SHA-256 [0-9a-f]{{64}}; allowed is {DIGEST}"):
            Silero(other)


def test_a_file_that_is_not_known_is_run_by_onnxruntime() -> None:
    other = package_file("silero_vad_op18_ifless.onnx")
    states = fresh(1)
    spoken = 0
    by_model, by_file = VadModel(other), OnnxNetwork(other)
    for windows in steps(speech()[np.newaxis, : 100 * WINDOW_SAMPLES]):
        wanted, after = by_file.infer(windows, states)
        found, states = by_model.infer(windows, states)
        assert found[0] == wanted[0] and (states == after).all()
        spoken += int(found[0] > 0.5)
    assert spoken > 30
