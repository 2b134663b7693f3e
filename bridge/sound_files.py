"""The files that a channel plays our sound from: written, ordered one behind the other, stopped, deleted.

They lie in a directory that FreeSWITCH reads (`esl.sounds`), under names of our own making: the channel's
UUID and a number. Writing is done in threads. At most a handful are there for each call; what a crash left
behind is deleted at the next start.

They are not played by ``uuid_broadcast``: it reads five frames before each file (``lead-frames`` in
switch_ivr_broadcast), which would be 100 ms of silence in the middle of words. ``sendmsg`` queues the same
``playback`` on the channel without them, and ``uuid_break … all`` stops and drops it just so.
"""

from __future__ import annotations

import asyncio
import re
import time
import wave
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog

from bridge import esl_commands as commands
from bridge.endpoints.audio_stream_files import FilePlayer
from bridge.endpoints.base import FRAME_RATE
from bridge.esl import EslConnection, EslError
from bridge.esl_frames import Event

MOST_WAITING = 6
"""Segments that wait to be written; one more is let go."""
ASKING_S = 1.0
"""For FreeSWITCH to take one."""

OLD_S = 60.0
"""No file that is still to be played is so old."""

_UUID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_OURS = re.compile(rf"{_UUID}-[0-9]{{1,9}}\.wav")
_ANNOUNCEMENT = re.compile(rf"announcement-{_UUID}\.wav")
ANNOUNCEMENT_OLD_S = 600.0
"""No announcement (`announcement.py`) that is still to be played is so old: somebody's telephone may ring."""

log = structlog.get_logger(__name__)


class SoundDirectory:
    """Where the files of one tenant lie.

    Args:
        ours: the directory, as we see it.
        theirs: the same, as FreeSWITCH sees it.
    """

    def __init__(self, ours: Path, theirs: str) -> None:
        self.ours = ours
        self.theirs = theirs.rstrip("/")

    def sweep(self) -> None:
        """Delete what a crash left behind; what other workers have there now is younger. Blocks."""
        now = time.time()
        try:
            for path in self.ours.iterdir():
                oldest_s = _oldest_s(path.name)
                if oldest_s is not None and path.stat().st_mtime < now - oldest_s:
                    path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("sounds.not_swept", directory=str(self.ours), reason=str(error))

    def write(self, name: str, pcm: bytes) -> str:
        """Write a file; its path as FreeSWITCH sees it. Blocks.

        Raises:
            OSError: it can't be written.
        """
        # "x": a file or link of somebody else's is not written over.
        with (self.ours / name).open("xb") as raw, wave.open(raw, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(FRAME_RATE)
            file.writeframes(pcm)
        return f"{self.theirs}/{name}"

    def delete(self, name: str) -> None:
        """Delete a file, where it is there. Blocks."""
        (self.ours / name).unlink(missing_ok=True)


def _oldest_s(name: str) -> float | None:
    """How old a file of ours may be that is still to be played; None: it is not ours."""
    if _OURS.fullmatch(name):
        return OLD_S
    return ANNOUNCEMENT_OLD_S if _ANNOUNCEMENT.fullmatch(name) else None


class CallSounds:
    """The sounds of one call: what its player has played.

    Args:
        lost: told, once, why something that was to be heard won't be.
    """

    def __init__(
        self,
        directory: SoundDirectory,
        connection: EslConnection,
        channel: UUID,
        lost: Callable[[str], None],
    ) -> None:
        self.player = FilePlayer(self)
        self._lost: Callable[[str], None] | None = lost
        self._directory = directory
        self._connection = connection
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._orders: asyncio.Queue[tuple[int, int, bytes]] = asyncio.Queue(MOST_WAITING)
        self._round = 0
        """How often it was stopped: what was ordered before that is not played."""
        self._names: dict[int, str] = {}
        """Files that are there."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._writer = self._loop.create_task(self._write(), name=f"sounds of {channel}")

    # ---- What the player wants -------------------------------------------------------------------------

    def play(self, number: int, pcm: bytes) -> None:
        """See :class:`~bridge.endpoints.audio_stream_files.Sounds`."""
        try:
            self._orders.put_nowait((self._round, number, pcm))
        except asyncio.QueueFull:
            self._loop.call_soon(self._failed, number, "too many wait to be written")

    def stop(self) -> None:
        """See :class:`~bridge.endpoints.audio_stream_files.Sounds`."""
        self._round += 1
        self._spawn(self._stop(tuple(self._names)))

    def unheard(self, number: int) -> None:
        """See :class:`~bridge.endpoints.audio_stream_files.Sounds`."""
        self._drop(number)
        self._loop.call_soon(self._say_lost, "FreeSWITCH took a file and did not begin it")

    async def _stop(self, numbers: tuple[int, ...]) -> None:
        try:
            await self._connection.api(commands.silence(self._channel), ASKING_S)
        except EslError as error:
            log.warning("sounds.not_stopped", channel=str(self._channel), reason=str(error))
        for number in numbers:  # of those that only waited nobody tells
            self._drop(number)

    async def _write(self) -> None:
        while True:
            turn, number, pcm = await self._orders.get()
            if turn != self._round:
                continue
            name = f"{self._channel}-{number}.wav"
            try:
                self._names[number] = name
                path = await asyncio.to_thread(self._directory.write, name, pcm)
                if turn == self._round:
                    await self._connection.play(self._channel, path, ASKING_S)
                else:
                    self._drop(number)
            except (OSError, EslError, ValueError) as error:
                self._failed(number, str(error))

    def _failed(self, number: int, reason: str) -> None:
        log.warning("sounds.not_played", channel=str(self._channel), reason=reason)
        self._drop(number)
        if self.player.failed(number):
            self._say_lost(reason)

    def _say_lost(self, reason: str) -> None:
        lost, self._lost = self._lost, None
        if lost is not None:
            lost(reason)

    # ---- What FreeSWITCH says --------------------------------------------------------------------------

    def esl_event(self, event: Event) -> None:
        """Something that the channel played began, or is over."""
        name = event.headers.get("Playback-File-Path", "").rpartition("/")[2]
        if not _OURS.fullmatch(name) or not name.startswith(str(self._channel)):
            return
        number = int(name[37:-4])
        if event.name == "PLAYBACK_START":
            self.player.started(number, self._loop.time())
        else:
            broken = event.headers.get("Playback-Status", "done") != "done"
            self.player.ended(number, broken, self._loop.time())
            self._drop(number)

    # ---- The end ---------------------------------------------------------------------------------------

    def _drop(self, number: int) -> None:
        if (name := self._names.pop(number, None)) is not None:
            self._spawn(self._delete(name))

    async def _delete(self, name: str) -> None:
        try:
            await asyncio.to_thread(self._directory.delete, name)
        except OSError as error:
            log.warning("sounds.not_deleted", file=name, reason=str(error))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work, name=f"sounds of {self._channel}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Nothing is played any more: the files go."""
        self._writer.cancel()
        await asyncio.wait({self._writer})
        for number in tuple(self._names):
            self._drop(number)
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=ASKING_S)


__all__ = ["CallSounds", "SoundDirectory"]
