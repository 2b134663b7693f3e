"""Recordings on the visit's clock: found in their directory alone, mixed, in parts, and as waves."""

from __future__ import annotations

import asyncio
import io
import os
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from audio.recording import FRAME, HEADER, RATE, wav_header
from bridge.http.problems import Problem
from bridge.http.review import _part
from bridge.recorder import Recorder, recording_name
from bridge.review.peaks import BIN, PeaksCache
from bridge.review.sound import CHUNK_FRAMES, Mix, Track, tracks
from bridge.review.timeline import timeline
from tests.review.visits import START, STORY, TENANT, VISIT, Told, sealed, view_of

Frames = NDArray[np.int16]


def noise(seconds: float, seed: int) -> Frames:
    return np.random.default_rng(seed).integers(-32768, 32767, (int(seconds * RATE), 2), dtype=np.int16)


def written(path: Path, frames: Frames) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(wav_header(len(frames)) + frames.astype("<i2").tobytes())
    return path


def track(path: Path, frames: Frames, start: int = 0, role: str = "visitor") -> Track:
    return Track(path.stem, role, written(path, frames), len(frames), start, (len(frames), 0))


def read_wav(data: bytes) -> Frames:
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (2, RATE, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)


def whole(mix: Mix) -> bytes:
    return b"".join(mix.read(0, len(mix)))


# ---- what is heard ----------------------------------------------------------------------------------------


def test_one_leg_is_heard_as_recorded_after_the_silence_before_it(tmp_path: Path) -> None:
    frames = noise(5, 1)
    mix = Mix([track(tmp_path / "a.wav", frames, start=1234)])
    heard = read_wav(whole(mix))
    assert len(heard) == 1234 + len(frames)
    assert not heard[:1234].any() and (heard[1234:] == frames).all()


def test_two_legs_are_mixed_each_on_its_side(tmp_path: Path) -> None:
    one, other = noise(5, 1) // 4, noise(3, 2) // 2
    other[0] = (32767, 32767)  # the sum is more than a sample holds
    mix = Mix([track(tmp_path / "a.wav", one), track(tmp_path / "b.wav", other, 8000, "resident")])
    heard = read_wav(whole(mix)).astype(int)
    assert len(heard) == len(one)
    assert (heard[:, 0] == one.astype(int).sum(axis=1)).all()
    expected = np.clip(other.astype(int).sum(axis=1), -32768, 32767)
    assert (heard[8000 : 8000 + len(other), 1] == expected).all()
    assert not heard[:8000, 1].any() and not heard[8000 + len(other) :, 1].any()


def test_any_part_is_the_same_part_of_the_whole(tmp_path: Path) -> None:
    mix = Mix(
        [
            track(tmp_path / "a.wav", noise(4.7, 1)),
            track(tmp_path / "b.wav", noise(2.3, 2), 9001, "resident"),
        ]
    )
    data = whole(mix)
    assert len(data) == len(mix) > HEADER + 2 * CHUNK_FRAMES * FRAME

    @settings(max_examples=80, deadline=None)
    @given(st.integers(0, len(mix)), st.integers(0, len(mix)))
    def parts(one: int, other: int) -> None:
        start, end = sorted((one, other))
        assert b"".join(mix.read(start, end)) == data[start:end]

    parts()


def test_a_file_that_goes_away_is_silence_of_the_promised_length(tmp_path: Path) -> None:
    lost = track(tmp_path / "a.wav", noise(2, 1))
    mix = Mix([lost])
    lost.path.write_bytes(lost.path.read_bytes()[: HEADER + 4000])
    assert len(whole(mix)) == len(mix)
    lost.path.unlink()
    assert len(whole(mix)) == len(mix) and not any(whole(mix)[HEADER:])


@pytest.mark.parametrize(
    ("wanted", "part"),
    [
        (None, None),
        ("bytes=0-", (0, 100)),
        ("bytes=10-19", (10, 20)),
        ("bytes=90-500", (90, 100)),
        ("bytes=-10", (90, 100)),
        ("bytes=-500", (0, 100)),
        ("bytes=5-4", None),
        ("bytes=0-1,3-4", None),
        ("bytes=-", None),
        ("items=0-1", None),
        ("bytes=٣-٤", None),
    ],
)
def test_a_range_is_read_as_the_standard_says(wanted: str | None, part: tuple[int, int] | None) -> None:
    assert _part(wanted, 100) == part


@pytest.mark.parametrize("wanted", ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=999999999999999-"])
def test_a_range_beyond_the_end_is_refused_with_the_length(wanted: str) -> None:
    with pytest.raises(Problem) as refused:
        _part(wanted, 100)
    assert refused.value.status == 416
    assert refused.value.headers is not None and refused.value.headers["Content-Range"] == "bytes */100"


# ---- where they are --------------------------------------------------------------------------------------


def found(root: Path, told: list[Told]) -> tuple[list[Track], dict[str, str]]:
    records = sealed(told)
    view = view_of(records)
    return tracks(root, view, timeline(view, records))


def recorded_as(name: str) -> list[Told]:
    return [
        (at, kind, {**data, "recording": name} if kind == "leg.ended" and data["leg"] == "visitor" else data)
        for at, kind, data in STORY
    ]


def test_a_recording_is_found_with_the_moment_at_which_it_began(tmp_path: Path) -> None:
    written(tmp_path / TENANT / "2026-11-21" / f"{VISIT}-visitor.wav", noise(2, 1))
    (one,), missing = found(tmp_path, STORY)
    assert (one.leg, one.frames, one.start) == ("visitor", 2 * RATE, 8)
    assert missing == {"resident-1": "not_recorded"}


def test_a_running_visits_recordings_are_found_where_they_are_written(tmp_path: Path) -> None:
    for leg in ("visitor", "resident-1"):
        written(tmp_path / recording_name(TENANT, START.date(), VISIT, leg), noise(1, 1))
    running = [one for one in STORY if one[0] < 20]
    assert [one.leg for one in found(tmp_path, running)[0]] == ["visitor", "resident-1"]


async def test_the_recorder_writes_where_the_review_looks(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, flush_s=0.01)
    recording = recorder.start(tenant=TENANT, visit=VISIT, leg="visitor", day=START.date())
    recording.played(bytes(3200))
    recording.heard(bytes(3200))
    recording.close()
    assert await recording.finished()
    await recorder.stop()
    running = [one for one in STORY if one[0] < 5]
    ((one,), _) = await asyncio.to_thread(found, tmp_path, running)
    assert one.frames == 1600


@pytest.mark.parametrize(
    "name", ["../outside.wav", "/etc/passwd", "a\0b.wav", "", ".", "gone.wav", "link.wav", "pipe", "x" * 5000]
)
def test_nothing_outside_the_recordings_is_read(tmp_path: Path, name: str) -> None:
    root = tmp_path / "recordings"
    root.mkdir()
    written(tmp_path / "outside.wav", noise(1, 1))
    (root / "link.wav").symlink_to(tmp_path / "outside.wav")
    os.mkfifo(root / "pipe")
    heard, missing = found(root, recorded_as(name))
    assert heard == [] and missing["visitor"] == "missing"


@pytest.mark.parametrize(
    "data", [b"", b"RIFF", wav_header(10)[:40], b"x" * 100, wav_header(5).replace(b"\x40\x1f", b"\x80\x3e")]
)
def test_what_is_no_recording_is_said_to_be_unreadable(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.wav").write_bytes(data)
    assert found(tmp_path, recorded_as("a.wav"))[1]["visitor"] == "unreadable"


def test_a_header_that_promises_more_than_there_is_promises_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav_header(10_000_000) + bytes(400))
    ((one,), _) = found(tmp_path, recorded_as("a.wav"))
    assert one.frames == 100 and len(whole(Mix([one]))) == HEADER + (100 + one.start) * FRAME


# ---- waves ----------------------------------------------------------------------------------------------


def clicks(at_s: list[float], length_s: float) -> Frames:
    """Silence with a loud moment of the caller's at each time, and of ours 0.1 s later."""
    frames = np.zeros((int(length_s * RATE), 2), dtype=np.int16)
    for at in at_s:
        frames[int(at * RATE) : int(at * RATE) + 40, 0] = 20_000
        frames[int((at + 0.1) * RATE) : int((at + 0.1) * RATE) + 40, 1] = -32_768
    return frames


@pytest.mark.parametrize("width", [1, 7, 100, 1000, 4000])
def test_a_wave_stands_where_its_sound_is(tmp_path: Path, width: int) -> None:
    times = [0.5, 3.21, 7.0]
    one = track(tmp_path / "a.wav", clicks(times, 8.0), start=2 * RATE)
    found = PeaksCache().columns(one, 12_000.0, width)
    for side, late in ((found.caller, 0.0), (found.ours, 0.1)):
        loud = set(np.nonzero(side)[0].tolist())
        expected = {int((2.0 + at + late) / 12.0 * width) for at in times}
        # A column that is narrower than 10 ms shares its bin with its neighbours.
        reach = max(1, -(-width * BIN // (12 * RATE)))
        assert all(any(abs(one - at) <= reach for one in loud) for at in expected)
        assert all(any(abs(one - at) <= reach for at in expected) for one in loud)
    assert found.caller.max() == 20_000 >> 7 and found.ours.max() == 255


def test_a_wave_is_the_same_at_any_width(tmp_path: Path) -> None:
    frames = noise(3, 5) // np.array([1, 3], dtype=np.int16)
    one = track(tmp_path / "a.wav", frames, start=0)
    cache = PeaksCache()
    assert cache.columns(one, 3000.0, 1).caller[0] == cache.of(one).caller.max()
    assert (cache.columns(one, 3000.0, 300).ours == cache.of(one).ours).all()


def test_waves_are_kept_within_bounds(tmp_path: Path) -> None:
    all_of_them = [track(tmp_path / f"{n}.wav", noise(1, n)) for n in range(6)]
    cache = PeaksCache(kept_bytes=3 * 200)
    for one in all_of_them:
        cache.of(one)
    assert cache._bytes <= 3 * 200 and len(cache._known) == 3
    kept = cache.of(all_of_them[-1])
    all_of_them[-1].path.unlink()
    assert cache.of(all_of_them[-1]) is kept
    assert not cache.of(Track("gone", "visitor", tmp_path / "gone.wav", 800, 0, (1, 1))).caller.any()
