"""Has a test call played: tells whoever plays the resident that it rings, and plays what nobody plays.

Runs in the process that has the HTTP port, whichever process runs the visit: it knows of the visit what the
hub of running visits is told.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Final, Protocol
from uuid import UUID

import structlog

from audio.frames import TELEPHONE_RATE
from audio.resample import Resampler
from bridge.endpoints.web import LineEnded, NotTakenError, Origin, WebLine
from bridge.endpoints.web_messages import RATE
from bridge.live import Hub, LiveEvent, Subscription
from bridge.rehearsal import NotRingingError, Rehearsal
from bridge.softphone import load_wav

AUDIO: Final = Path(__file__).resolve().parents[1] / "data" / "audio"
SAYS: Final = {"authorizes": AUDIO / "r08-leticia.wav", "refuses": AUDIO / "r04-leticia.wav"}
"""What a played resident answers: "Pode deixar entrar, por favor." and "Não autorizo."."""
RINGS_S: Final = 2.0
"""Until a played resident answers the telephone."""
PIECE_MS: Final = 100
PIECE: Final = RATE * PIECE_MS // 1000 * 2
WAIT_S: Final = 30.0
"""Between two looks at whether anything happened; nothing depends on it."""
FOLLOWED: Final = frozenset({"dial.started", "dial.ended", "floor", "visit.ended", "visit.over"})
NOBODY: Final = Origin("simulated", "127.0.0.1", 0)

log = structlog.get_logger(__name__)


class Residents(Protocol):
    """Who takes the calls of residents."""

    hub: Hub

    async def web_resident(self, tenant: str, attempt: UUID, origin: Origin) -> WebLine:
        """See :class:`bridge.http.audio.Calls`."""


class Director:
    """Follows the test calls that run. Its tasks end with the hub, or with their visits."""

    def __init__(self, residents: Residents) -> None:
        self._residents = residents
        self._tasks: set[asyncio.Task[None]] = set()

    def follow(self, rehearsal: Rehearsal, key: str = "") -> None:
        """Play along from now on. Before the visit begins: nothing of it must be missed.

        Args:
            key: what a played resident presses who authorises; "" where they say it.
        """
        events = self._residents.hub.subscribe(rehearsal.tenant, FOLLOWED)
        play = _Play(self._residents, rehearsal, key)
        task = asyncio.get_running_loop().create_task(play.run(events), name=f"test call {rehearsal.id}")
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("test_call.failed", task=task.get_name(), exc_info=fault)


class _Play:
    """One test call, as it goes."""

    def __init__(self, residents: Residents, rehearsal: Rehearsal, key: str) -> None:
        self._residents = residents
        self._rehearsal = rehearsal
        self._key = key if rehearsal.resident == "authorizes" else ""
        self._turn = asyncio.Event()
        """It is the resident's turn to speak."""

    async def run(self, events: Subscription) -> None:
        """To the end of the visit."""
        with contextlib.closing(events):
            async with asyncio.TaskGroup() as group:
                played: list[asyncio.Task[None]] = []
                while not events.over:
                    for event in await events.take(WAIT_S):
                        if event.visit != str(self._rehearsal.id):
                            continue
                        if event.kind in ("visit.ended", "visit.over"):
                            events.end()
                            break
                        if self._rings(event) and self._rehearsal.resident in SAYS:
                            played.append(group.create_task(self._answer(), name="played resident"))
                self._rehearsal.stop_ringing()
                for task in played:
                    task.cancel()

    def _rings(self, event: LiveEvent) -> bool:
        """Take notice; whether the resident's telephone has begun to ring."""
        match event.kind:
            case "dial.started":
                self._rehearsal.ring(UUID(event.data["attempt"]))
                return True
            case "dial.ended":
                self._rehearsal.stop_ringing()
            case "floor" if event.data["role"] == "resident":
                self._turn.set()
        return False

    async def _answer(self) -> None:
        """Answer the telephone, hear the doorman out, and say it."""
        token = self._rehearsal.ringing
        await asyncio.sleep(RINGS_S)
        try:
            attempt = self._rehearsal.answer(token)
        except NotRingingError:
            return
        try:
            line = await self._residents.web_resident(self._rehearsal.tenant, attempt, NOBODY)
        except NotTakenError:
            return  # the tenant is gone: the telephone rings out
        self._turn.clear()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(line.pump())
                group.create_task(_listen(line))
                group.create_task(self._speak(line))
        except* LineEnded:
            pass  # the call is over
        finally:
            line.hang_up()

    async def _speak(self, line: WebLine) -> None:
        """Say it, or press the key, whenever it is the resident's turn; be silent until then, as telephones
        are: sound all the same."""
        said = await asyncio.to_thread(load_wav, SAYS[self._rehearsal.resident])
        loop = asyncio.get_running_loop()
        due = loop.time()
        waiting = b""
        while True:
            if self._turn.is_set():
                self._turn.clear()
                if self._key:
                    line.press(self._key)
                else:
                    waiting = Resampler(TELEPHONE_RATE, RATE).process(said)
            await line.say(waiting[:PIECE].ljust(PIECE, b"\0"))
            waiting = waiting[PIECE:]
            due += PIECE_MS / 1000
            await asyncio.sleep(max(0.0, due - loop.time()))


async def _listen(line: WebLine) -> None:
    """Hear what is said, and make nothing of it."""
    while True:
        await line.hear()
