"""Recordings come out whole; a disk that fails costs the recording and never the call."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
import wave
from collections.abc import AsyncIterator
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge.recorder import Recorder, Recording, RecordingClosed, RecordingFailure

ROOT = Path(__file__).parents[2]
DAY = date(2026, 11, 21)
VISIT = "6f1c2e34-0000-4000-8000-00000000abcd"
OURS, THEIRS = b"\x01\x00" * 160, b"\xff\xff" * 160


@pytest.fixture
async def recorder(tmp_path: Path) -> AsyncIterator[Recorder]:
    made = Recorder(tmp_path / "recordings", flush_s=0.02)
    yield made
    await made.stop()


def begin(
    recorder: Recorder, leg: str = "v1", failures: list[RecordingFailure] | None = None, **more: Any
) -> Recording:
    on_failed = None if failures is None else failures.append
    values = {"tenant": "jardim", "visit": VISIT, "leg": leg, "day": DAY, **more}
    return recorder.start(on_failed=on_failed, **values)


def talk(recording: Recording, frames: int) -> None:
    for _ in range(frames):
        recording.played(OURS)
        recording.heard(THEIRS)


def content(path: Path) -> tuple[int, bytes]:
    with wave.open(str(path)) as file:
        assert file.getparams()[:3] == (2, 2, 8000)
        return file.getnframes(), file.readframes(file.getnframes())


def files_below(place: Path) -> set[Path]:
    return {path for path in place.rglob("*") if path.is_file()}


async def until(condition: Any, seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_leg_is_in_its_file_from_end_to_end(recorder: Recorder, tmp_path: Path) -> None:
    recording = begin(recorder)
    talk(recording, 100)
    recording.close()
    assert await recording.finished()
    path = tmp_path / "recordings" / recording.relative
    assert str(recording.relative) == f"jardim/2026-11-21/{VISIT}-v1.wav"
    assert content(path) == (16_000, b"\xff\xff\x01\x00" * 16_000)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) & 0o077 == 0


def held(root: Path, recording: Recording) -> RecordingClosed:
    """What a recording's file holds, read by other means."""
    data = (root / recording.relative).read_bytes()
    return RecordingClosed(recording.leg, str(recording.relative), len(data), sha256(data).hexdigest())


async def test_a_complete_file_is_told_by_its_digest_which_the_writer_takes(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers: set[str] = set()
    real = os.pread

    def watched(*args: Any) -> bytes:
        readers.add(threading.current_thread().name)
        return real(*args)

    monkeypatch.setattr("bridge.recorder.os.pread", watched)
    monkeypatch.setattr("bridge.recorder.DIGEST_CHUNK", 1000)
    told: list[RecordingClosed] = []
    recording = begin(recorder, on_closed=told.append)
    talk(recording, 100)
    assert told == []
    recording.close()
    assert await recording.finished()
    assert told == [held(tmp_path / "recordings", recording)] and recording.result == told[0]
    assert readers == {"recorder"}  # never the event loop's thread


async def test_a_file_that_cannot_be_read_back_has_failed(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("bridge.recorder.os.pread", broken)
    failures: list[RecordingFailure] = []
    recording = begin(recorder, failures=failures)
    talk(recording, 10)
    recording.close()
    assert not await recording.finished()
    await until(lambda: failures)
    assert failures == [RecordingFailure("v1", "io", "Input/output error")] and recording.result is None


async def test_many_legs_at_once_do_not_mix(recorder: Recorder, tmp_path: Path) -> None:
    recordings = [begin(recorder, f"leg{n}") for n in range(20)]
    for _ in range(50):
        for number, recording in enumerate(recordings):
            recording.played(bytes([number, 0]) * 160)
            recording.heard(bytes([0, number]) * 160)
        await asyncio.sleep(0)
    assert await recorder.stop()
    for number, recording in enumerate(recordings):
        expected = bytes([0, number, number, 0]) * 50 * 160
        assert content(tmp_path / "recordings" / recording.relative) == (8000, expected)


async def test_stopping_completes_what_runs_and_refuses_what_comes(
    recorder: Recorder, tmp_path: Path
) -> None:
    recording = begin(recorder)
    talk(recording, 10)
    assert await recorder.stop()
    assert await recording.finished()
    assert content(tmp_path / "recordings" / recording.relative)[0] == 1600
    talk(recording, 10)  # the leg may go on for a moment
    failures: list[RecordingFailure] = []
    late = begin(recorder, "late", failures)
    talk(late, 1)
    assert not await late.finished()
    await until(lambda: failures)
    assert failures[0].reason == "stopped"


async def test_a_running_recording_can_be_listened_to(recorder: Recorder, tmp_path: Path) -> None:
    recording = begin(recorder)
    path = tmp_path / "recordings" / recording.relative
    talk(recording, 100)
    await until(lambda: path.exists() and path.stat().st_size > 44 + 100)
    frames, sound = content(path)
    assert sound == b"\xff\xff\x01\x00" * frames
    recording.close()


async def test_names_in_a_path_cannot_climb_out_of_the_directory(recorder: Recorder, tmp_path: Path) -> None:
    evil = ["../../evil", "..", ".", "", "a/b", "/etc/passwd", "a\0b", "\ud800", "Condomínio"]
    evil += ["x" * 5000, "x" * 5001]
    recordings = [begin(recorder, leg=name, tenant=name) for name in evil]
    for recording in recordings:
        talk(recording, 1)
        recording.close()
    assert [await recording.finished() for recording in recordings] == [True] * len(evil)
    written = files_below(tmp_path)
    assert written == {tmp_path / "recordings" / recording.relative for recording in recordings}
    assert len(written) == len(evil)


async def test_a_file_that_is_there_is_not_written_over(recorder: Recorder, tmp_path: Path) -> None:
    first, failures = begin(recorder), []  # type: ignore[var-annotated]
    talk(first, 5)
    first.close()
    assert await first.finished()
    second = begin(recorder, failures=failures)
    talk(second, 50)
    assert not await second.finished()
    await until(lambda: failures)
    assert failures[0].reason == "exists"
    assert content(tmp_path / "recordings" / first.relative)[0] == 800


async def test_a_place_that_cannot_be_ends_the_recording_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    recorder = Recorder(tmp_path / "file" / "below", flush_s=0.02)
    failures: list[RecordingFailure] = []
    recording = begin(recorder, failures=failures)
    talk(recording, 5)
    await until(lambda: failures)
    talk(recording, 5)
    assert (failures[0].reason, failures[0].leg) == ("io", "v1")
    assert await recorder.stop()


async def test_a_disk_that_fills_up_ends_the_recording_with_one_line_and_the_call_goes_on(
    recorder: Recorder, tmp_path: Path
) -> None:
    small, large, failures = begin(recorder, "small"), begin(recorder, "large"), []  # type: ignore[var-annotated]
    large = begin(recorder, "large", failures, tenant="outro", visit=VISIT)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_001, hard))
    try:
        with capture_logs() as lines:
            for _ in range(40):
                talk(large, 10)
                await asyncio.sleep(0.01)
            await until(lambda: failures)
            talk(large, 100)
            talk(small, 20)
            small.close()
            assert await small.finished()
            assert not await large.finished()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [failure.reason for failure in failures] == ["full"]
    assert large.failure == failures[0]
    (line,) = [line for line in lines if line["event"] == "recording failed"]
    assert (line["visit"], line["leg"], line["reason"]) == (VISIT, "large", "full")
    assert line.keys() == {"event", "log_level", "visit", "leg", "reason", "detail"}
    assert str(tmp_path) not in str(line)
    assert content(tmp_path / "recordings" / small.relative)[0] == 3200
    await until(lambda: large.result)  # what there is of it is told all the same
    assert large.result == held(tmp_path / "recordings", large)
    frames, sound = content(tmp_path / "recordings" / large.relative)
    assert 1600 <= frames <= 25_000
    assert sound == b"\xff\xff\x01\x00" * frames


@pytest.mark.platform
async def test_a_really_full_disk_too(tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    mount(place)
    try:
        recorder = Recorder(place, flush_s=0.02)
        failures: list[RecordingFailure] = []
        recording = begin(recorder, failures=failures)
        for _ in range(60):
            talk(recording, 5)
            await asyncio.sleep(0.01)
        await until(lambda: failures)
        assert failures[0].reason == "full"
        assert await recorder.stop()
        frames, sound = content(place / recording.relative)
        assert frames > 0 and sound == b"\xff\xff\x01\x00" * frames
    finally:
        subprocess.run(["umount", str(place)], check=True, timeout=10)  # noqa: ASYNC221 - nothing else runs


def mount(place: Path) -> None:
    command = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True, timeout=10, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("this user may not mount a file system")


async def test_a_disk_that_hangs_blocks_neither_the_audio_nor_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, hangs = threading.Event(), threading.Event()
    real = os.pwrite

    def hanging(*args: Any) -> int:
        hangs.set()
        release.wait(20)
        return real(*args)

    monkeypatch.setattr("bridge.recorder.os.pwrite", hanging)
    recorder = Recorder(tmp_path, flush_s=0.01, backlog_s=1)
    failures: list[RecordingFailure] = []
    recording = begin(recorder, failures=failures)
    talk(recording, 1)
    await until(hangs.is_set)
    started = time.monotonic()
    talk(recording, 500)
    assert time.monotonic() - started < 1
    await until(lambda: failures)
    assert failures == [RecordingFailure("v1", "slow", "more audio came than could be written")]
    assert not await recording.finished()
    assert not await recorder.stop(0.1)
    release.set()
    assert await recorder.stop()
    assert len(failures) == 1


async def test_half_a_sample_is_a_bug_of_the_caller(recorder: Recorder) -> None:
    recording = begin(recorder)
    with pytest.raises(ValueError, match="whole"):
        recording.heard(b"\0")


KILLED = textwrap.dedent(
    """
    import asyncio, sys
    from pathlib import Path
    from bridge.recorder import Recorder

    async def main():
        recorder = Recorder(Path(sys.argv[1]), flush_s=0.01)
        recording = recorder.start(tenant="t", visit="v", leg="l")
        print(recording.relative, flush=True)
        while True:
            recording.played(b"\\x01\\x00" * 160)
            recording.heard(b"\\xff\\xff" * 160)
            await asyncio.sleep(0.001)

    asyncio.run(main())
    """
)


def test_what_a_killed_process_recorded_is_readable_to_its_last_flush(tmp_path: Path) -> None:
    for pause in (0.05, 0.11, 0.17):
        place = tmp_path / str(pause)
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, str(place)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            path = place / process.stdout.readline().strip()
            give_up = time.monotonic() + 10
            while not (path.exists() and path.stat().st_size > 10_000):
                assert time.monotonic() < give_up
                time.sleep(0.005)
            time.sleep(pause)
            process.send_signal(signal.SIGKILL)
        frames, sound = content(path)
        assert frames >= 800
        assert sound == b"\xff\xff\x01\x00" * frames
