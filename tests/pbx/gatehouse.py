"""A real service behind Asterisk: says which visit a call became, whose turn it is, and what came of it."""

from __future__ import annotations

import asyncio
import os
import time
import wave
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TextIO
from uuid import UUID

import numpy as np

from bridge.demo.people import Floor, act
from bridge.demo.report import report
from bridge.demo.script import Step, step
from bridge.demo.stage import DATA, TENANT, stage_settings
from bridge.dialing.base import DialOrder
from bridge.dialing.simulated import Answers, Resident, SimulatedDialer
from bridge.service import Service
from bridge.softphone import Softphone
from bridge.watch import Seen
from tests.pbx.phone import Call
from tests.pbx.rtp import Samples

TURN_S = 60.0
"""How long a caller waits for their turn."""
END_S = 90.0
OWN = Path(__file__).parent / "recordings"
"""Sentences that data/audio has not, in the voice of the local model server."""
WRITTEN_S = 10.0


def recording(name: str) -> Path:
    """A recorded sentence, by its name: `v01-leticia`, or one of our own."""
    own = OWN / f"{name}.wav"
    return own if own.is_file() else DATA / "audio" / f"{name}.wav"


@dataclass(frozen=True, slots=True)
class Leg:
    """Our own recording of a leg: what we heard, and what we played, sample by sample."""

    heard: Samples
    played: Samples


class Gatehouse:
    """A service on free ports. An asynchronous context.

    Args:
        out: where it keeps everything.
        model_log: where the embedded model server's log goes.
        simulated: whether the resident is simulated, with the script `resident`; else the tenant's settings
            say who calls residents.
        websocket_port: where Asterisk's WebSocket channels are taken; None: nowhere.
        http_port: where calls are registered; None: nowhere.
        tenant: the tenant's settings, in place of the demo's.
    """

    def __init__(
        self,
        out: Path,
        model_log: TextIO | None = None,
        *,
        simulated: bool = True,
        websocket_port: int | None = None,
        http_port: int | None = None,
        **tenant: Any,
    ) -> None:
        settings = stage_settings(out, **tenant)
        ports = {"websocket_port": websocket_port, "http_port": http_port}
        service = settings.service.model_copy(update=ports)
        self.settings = settings.model_copy(update={"service": service})
        self.floor = Floor()
        self.resident: Sequence[Step] = ()
        self.answers = Answers.YES
        self.visits: asyncio.Queue[UUID] = asyncio.Queue()
        self.seen: list[Seen] = []
        self.zero: dict[str, float] = {}
        """The monotonic second at which each visit began."""
        self.service = Service(
            self.settings,
            watchers=(self.floor.watch, self._watch),
            dialers={TENANT: SimulatedDialer(self._resident)} if simulated else None,
            model_log=model_log,
        )

    async def __aenter__(self) -> Self:
        """Start it."""
        await self.service.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop it."""
        await self.service.stop()

    @property
    def address(self) -> str:
        """Where Asterisk streams visitors' calls to."""
        return f"127.0.0.1:{self.service.ports(TENANT)[0]}"

    def _watch(self, seen: Seen) -> None:
        self.seen.append(seen)
        if seen.visit and seen.visit not in self.zero:
            self.zero[seen.visit] = time.monotonic() - seen.at_ms / 1000
            self.visits.put_nowait(UUID(seen.visit))

    def _resident(self, order: DialOrder) -> Resident:
        async def talk(phone: Softphone) -> None:
            await act(phone, self.floor.of(order.visit, "resident"), self.resident)

        return Resident(self.answers, rings_s=1.0, talk=talk)

    def resident_says(self, *steps: str) -> None:
        """What the next residents do: names of recordings, `key:1`, `hangup`."""
        self.resident = [
            step(text if ":" in text or text == "hangup" else str(recording(text))) for text in steps
        ]

    def times(self, visit: UUID, kind: str) -> int:
        """How often something happened in a visit."""
        return sum(seen.visit == str(visit) and seen.kind == kind for seen in self.seen)

    async def next_visit(self, timeout_s: float = 10.0) -> UUID:
        """The visit that the next call becomes.

        Raises:
            TimeoutError: none began.
        """
        async with asyncio.timeout(timeout_s):
            return await self.visits.get()

    async def talk(self, call: Call, visit: UUID, *says: str, role: str = "visitor") -> None:
        """Do something on a telephone each time that it is this role's turn; stops where the call ends.

        Args:
            says: names of recordings, `key:1`, `hangup`.
        """
        turn = self.floor.of(visit, role)
        for what in says:
            await call.unless_over(turn.wait(), TURN_S)
            if call.closed.done():
                return
            assert turn.is_set(), f"it never was the {role}'s turn for {what}"
            turn.clear()
            if what == "hangup":
                await call.hang_up()
            elif what.startswith("key:"):
                call.press(what.removeprefix("key:"))
            else:
                await call.say(recording(what))

    async def over(self, visit: UUID) -> Mapping[str, Any]:
        """Wait for a visit's end; what the audit log says of it.

        Raises:
            TimeoutError: it did not end.
        """
        await self.ended(visit)
        return await self.report(visit)

    async def ended(self, visit: UUID) -> None:
        """Wait for a visit's end.

        Raises:
            TimeoutError: it did not end.
        """
        if not await self.service.visit_over(visit, END_S):
            raise TimeoutError(f"the visit {visit} has not ended in {END_S:g} s")

    async def report(self, visit: UUID) -> Mapping[str, Any]:
        """What the audit log, read whole, says of a visit that is over. Running calls would hear the work."""
        return await report(self.service.storage, str(visit), self.settings.service.recordings_path, ())

    async def leg(self, visit: UUID, role: str = "visitor") -> Leg:
        """Our recording of a leg of a visit that is over, once the recorder's thread has closed the file.

        Raises:
            TimeoutError: it has not.
        """
        root = self.settings.service.recordings_path
        await until(lambda: bool(self._complete(root, visit, role)), WRITTEN_S, f"the recording of {visit}")
        (path,) = self._complete(root, visit, role)
        with wave.open(str(path), "rb") as file:
            stereo = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
        return Leg(stereo[:, 0], stereo[:, 1])

    @staticmethod
    def _complete(root: Path, visit: UUID, role: str) -> list[Path]:
        """The recordings that this process no longer holds open."""
        held = {os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()}
        return [path for path in root.rglob(f"{visit}-{role}*.wav") if str(path.resolve()) not in held]


async def until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait for something.

    Raises:
        TimeoutError: it did not come.
    """
    try:
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.02)
    except TimeoutError as error:
        raise TimeoutError(f"waited {timeout_s:g} s for {what}") from error
