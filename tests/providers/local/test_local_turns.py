"""Turn detection: a turn holds what was said, noise holds none, and how audio is cut up changes nothing."""

from __future__ import annotations

import wave
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio.vad import VadModel
from providers.local.turns import (
    MAX_MANUAL_MS,
    MAX_TURN_MS,
    PAUSE_MS,
    BufferFull,
    Change,
    InputBuffer,
    Paused,
    Resumed,
    Started,
    Stopped,
    Vad,
)
from providers.local.vad import load_vad
from tests.providers.local.local_wire import ROOT, wide

Recording = Callable[[str], npt.NDArray[np.int16]]
_MODEL = load_vad()


def _hear(buffer: InputBuffer, pcm: bytes, step: int = 960) -> list[Change]:
    return [event for at in range(0, len(pcm), step) for event in buffer.append(pcm[at : at + step])]


def _feed(buffer: InputBuffer, pcm: bytes) -> list[Started | Stopped]:
    """Where turns began and ended."""
    return [event for event in _hear(buffer, pcm) if isinstance(event, Started | Stopped)]


@pytest.mark.parametrize("stem", ["r01-grave", "r02-leticia", "r03-grave", "v13-leticia", "r17-leticia"])
def test_a_turn_holds_all_that_was_said(vad: VadModel, recording: Recording, stem: str) -> None:
    said = recording(stem)
    found = _feed(InputBuffer(vad, Vad(silence_duration_ms=900)), wide(said, 0.5, 1.5))
    assert [type(event) for event in found] == [Started, Stopped]
    started, stopped = found
    assert isinstance(stopped, Stopped)
    loud = np.flatnonzero(np.abs(said) > 600) / 8 + 500
    assert started.at_ms <= loud[0] + 40
    assert stopped.at_ms >= loud[-1]
    assert (
        len(stopped.pcm) == (stopped.at_ms - started.at_ms) * 48
        or abs(len(stopped.pcm) / 48 - (stopped.at_ms - started.at_ms)) <= 1
    )


def test_the_session_s_settings_are_honoured(vad: VadModel, recording: Recording) -> None:
    pcm = wide(recording("r05-leticia"), 1.0, 1.5)
    starts, ends = {}, {}
    for padding, silence in ((0, 300), (300, 300), (300, 900)):
        found = _feed(InputBuffer(vad, Vad(0.5, padding, silence)), pcm)
        starts[padding], ends[silence] = found[0].at_ms, found[-1].at_ms
    assert starts[0] - starts[300] == 300
    assert 560 <= ends[900] - ends[300] <= 640
    assert not _feed(InputBuffer(vad, Vad(threshold=1.0)), pcm)


@pytest.mark.parametrize("kind", ["silence", "hiss", "clicks", "ringing"])
def test_noise_is_no_turn(vad: VadModel, kind: str) -> None:
    rng, time = np.random.default_rng(2), np.arange(80_000) / 8000
    clicks = np.zeros(80_000)
    clicks[rng.integers(0, 80_000, 40)] = 20_000
    sound = {
        "silence": np.zeros(80_000),
        "hiss": rng.normal(0, 1000, 80_000),
        "clicks": clicks,
        "ringing": 8000 * np.sin(2 * np.pi * 425 * time) * (time % 5 < 1),
    }[kind]
    buffer = InputBuffer(vad, Vad())
    assert not _feed(buffer, wide(sound.astype(np.int16)))
    assert buffer.held_ms < 600  # and what nobody said is not kept


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, 20_000), min_size=1, max_size=40))
def test_how_audio_is_cut_into_messages_changes_nothing(cuts: list[int]) -> None:
    pcm = _spoken()
    whole = _hear(InputBuffer(_MODEL, Vad()), pcm)
    buffer, found, at = InputBuffer(_MODEL, Vad()), list[Change](), 0
    while at < len(pcm):
        step = 2 * cuts[len(found) % len(cuts)]
        found += buffer.append(pcm[at : at + step])
        at += step
    assert found == whole and len(whole) == 3


def _spoken() -> bytes:
    with wave.open(str(ROOT / "data" / "audio" / "r03-leticia.wav")) as source:
        return wide(np.frombuffer(source.readframes(source.getnframes()), "<i2").astype(np.int16))


def test_a_pause_is_told_before_the_end_and_taken_back_when_the_caller_goes_on(
    vad: VadModel, recording: Recording
) -> None:
    gap = np.zeros(8 * (PAUSE_MS + 150), np.int16)
    said = np.concatenate([recording("r01-leticia"), gap, recording("r09-leticia")])
    found = _hear(InputBuffer(vad, Vad(silence_duration_ms=1500)), wide(said, 0.5, 2.5))
    kinds = [type(event) for event in found]
    assert kinds[0] is Started and kinds[-2:] == [Paused, Stopped]
    assert Resumed in kinds and kinds.count(Paused) == kinds.count(Resumed) + 1
    paused, stopped = found[-2:]
    assert isinstance(paused, Paused) and isinstance(stopped, Stopped)
    assert stopped.pcm.startswith(paused.pcm)
    assert 0 < (len(stopped.pcm) - len(paused.pcm)) / 48 <= 1500 - PAUSE_MS + 64


def test_time_is_counted_over_turns_and_clears(vad: VadModel, recording: Recording) -> None:
    buffer = InputBuffer(vad, Vad())
    pcm = wide(recording("r04-leticia"))
    first = _feed(buffer, pcm)
    buffer.clear()
    second = _feed(buffer, pcm)
    shift = second[0].at_ms - first[0].at_ms
    assert abs(shift - len(pcm) / 48) <= 40
    assert buffer.written == len(pcm)  # two times len/2 samples


def test_a_clear_ends_a_turn_that_has_begun(vad: VadModel, recording: Recording) -> None:
    buffer = InputBuffer(vad, Vad())
    pcm = wide(recording("r09-leticia"))
    _feed(buffer, pcm[: len(pcm) // 2])
    before = buffer.speaking
    buffer.clear()
    assert (before, buffer.speaking, buffer.held_ms) == (True, False, 0)
    assert not _feed(buffer, bytes(48_000))


def test_a_caller_who_never_stops_is_cut_into_turns(vad: VadModel, recording: Recording) -> None:
    said = recording("v08-leticia")
    endless = np.tile(said[800:-800], 10)[: 8000 * 40]
    buffer = InputBuffer(vad, Vad(silence_duration_ms=3000))
    turns = [event for event in _feed(buffer, wide(endless)) if isinstance(event, Stopped)]
    assert turns and all(len(turn.pcm) / 48 <= MAX_TURN_MS + 64 for turn in turns)


def test_without_turn_detection_the_buffer_has_a_bound(vad: VadModel) -> None:
    buffer = InputBuffer(vad, None)
    second = bytes(48_000)
    for _ in range(MAX_MANUAL_MS // 1000):
        buffer.append(second)
    with pytest.raises(BufferFull):
        buffer.append(second)
    assert len(buffer.take()) == MAX_MANUAL_MS * 48
    assert buffer.append(second) == [] and buffer.held_ms == 1000
