"""The files that a channel plays: bounded, in their directory alone, and gone afterwards."""

from __future__ import annotations

import asyncio
import os
import time
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from bridge.esl import EslAddress, EslConnection
from bridge.esl_frames import Event
from bridge.settings import SettingsError
from bridge.sound_files import MOST_WAITING, CallSounds, SoundDirectory
from tests.service.household import settings, until
from tests.simulators.freeswitch import PASSWORD, Channel, FreeSwitch

SPEECH = b"\x10\x10" * 160


@asynccontextmanager
async def sounds(directory: Path) -> AsyncIterator[tuple[Channel, CallSounds]]:
    switch = FreeSwitch("file")
    await switch.open()
    connection = EslConnection(EslAddress("127.0.0.1", switch.port, PASSWORD))
    await connection.start()
    assert await connection.ready(2)
    uuid = str(uuid4())
    channel = switch.channels[uuid] = Channel(switch, uuid, {})
    lost: list[str] = []
    made = CallSounds(SoundDirectory(directory, str(directory)), connection, UUID(uuid), lost.append)
    try:
        yield channel, made
    finally:
        await made.close()
        await connection.stop()
        await switch.close()


def say(made: CallSounds, frames: int) -> None:
    now = asyncio.get_running_loop().time()
    for _ in range(frames):
        made.player.play(SPEECH, now)


async def test_files_are_written_whole_ordered_and_deleted(tmp_path: Path) -> None:
    async with sounds(tmp_path) as (channel, made):
        say(made, 40)
        await until(lambda: len(channel.files) == 2, what="two files")
        first, second = channel.files
        with wave.open(first.path) as file:
            assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 8000)
            assert file.getnframes() % 160 == 0
        assert first.path < second.path and Path(first.path).parent == tmp_path
        for name in ("PLAYBACK_START", "PLAYBACK_STOP"):
            made.esl_event(Event({"Event-Name": name, "Playback-File-Path": first.path}))
        await until(lambda: not Path(first.path).exists(), what="the first one's end")
        made.player.flush(asyncio.get_running_loop().time())
        await until(lambda: not [*tmp_path.iterdir()], what="the end of all")
        assert channel.files == type(channel.files)(), "uuid_break dropped the other too"


async def test_nobody_elses_files_are_touched(tmp_path: Path) -> None:
    (tmp_path / "other.wav").write_bytes(b"x")
    aged = {f"{uuid4()}-7.wav": 3600, f"announcement-{uuid4()}.wav": 3600, f"{uuid4()}-8.wav": 0}
    ringing = f"announcement-{uuid4()}.wav"
    for name, age_s in (aged | {ringing: 120}).items():
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    directory = SoundDirectory(tmp_path, "/sounds/")
    directory.sweep()
    assert {*os.listdir(tmp_path)} == {"other.wav", ringing, *[name for name in aged if not aged[name]]}
    (tmp_path / ringing).unlink()
    async with sounds(tmp_path) as (channel, made):
        for path in (f"{tmp_path}/other.wav", f"{tmp_path}/{uuid4()}-1.wav", "", f"../{channel.uuid}-x.wav"):
            made.esl_event(Event({"Event-Name": "PLAYBACK_STOP", "Playback-File-Path": path}))
        assert len(os.listdir(tmp_path)) == 2


async def test_a_directory_that_is_not_there_costs_the_sound_and_nothing_else(tmp_path: Path) -> None:
    async with sounds(tmp_path / "gone") as (channel, made):
        say(made, 40)
        await until(lambda: made.player.frames_dropped > 0, what="the failure")
        assert not channel.files
    SoundDirectory(tmp_path / "gone", "/x").sweep()


async def test_what_is_not_written_in_time_does_not_pile_up(tmp_path: Path) -> None:
    async with sounds(tmp_path) as (_, made):
        for number in range(1000, 1000 + 3 * MOST_WAITING):
            made.play(number, SPEECH)
        assert made._orders.qsize() == MOST_WAITING


def test_a_directory_that_can_not_serve_keeps_the_service_from_starting(tmp_path: Path) -> None:
    (blank := tmp_path / "with blanks").mkdir()
    for ours, theirs, found in (
        (tmp_path / "none", "", "no directory"),
        (blank, "", "can't be told"),
        (blank, "/sounds", ""),
        (tmp_path, "", ""),
    ):
        esl = {"password_env": "ESL", "sounds": str(ours), "sounds_in_freeswitch": theirs}
        tenant = {"freeswitch": {"domain_uuid": str(uuid4()), "playback": "file"}, "esl": esl}
        made = settings(tmp_path, {"jardim": tenant}, {"ESL": "secret"})
        lines = [line for line in made.problems_at_start() if "esl.sounds" in line]
        assert bool(lines) == bool(found) and all(found in line for line in lines)
    with pytest.raises(SettingsError, match=r"esl\.sounds as well"):
        settings(tmp_path, {"jardim": tenant | {"esl": {"password_env": "ESL"}}}, {})


def test_an_announcement_needs_a_freeswitch_that_plays_it(tmp_path: Path) -> None:
    attendant = {"extension": "9000", "announce": True}
    esl = {"password_env": "ESL", "sounds": str(tmp_path)}
    freeswitch = {"freeswitch": {"domain_uuid": str(uuid4())}}
    manager = {"manager": {"password_env": "MANAGER"}}
    for tenant in (manager, freeswitch | {"esl": {"password_env": "ESL"}}):
        with pytest.raises(SettingsError, match=r"announce = true esl\.sounds as well.*Asterisk alone"):
            settings(tmp_path, {"jardim": tenant | {"attendant": attendant}}, {})
    settings(tmp_path, {"jardim": freeswitch | {"esl": esl, "attendant": attendant}}, {"ESL": "secret"})
