"""The visitor and the resident of the demo: each a softphone and a script.

Whose turn it is they know as people do, from what they hear; only that the other side has finished, and isn't
merely thinking, the service tells them (`floor`): the demo is quick, and never talks over itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

from bridge.demo.script import Barge, HangUp, Key, Say, Silence, Step
from bridge.softphone import CallEnded, Softphone
from bridge.watch import Seen

PATIENCE_S = 120.0
"""How long one waits for the other side to begin to speak."""


class Floor:
    """Says when it is a leg's caller's turn."""

    def __init__(self) -> None:
        self._given: dict[tuple[str, str], asyncio.Event] = {}

    def watch(self, seen: Seen) -> None:
        """A watcher."""
        if seen.kind == "floor":
            self.of(seen.visit, str(seen.data["role"])).set()

    def of(self, visit: UUID | str, role: str) -> asyncio.Event:
        """Set when it is this role's turn; whoever takes the turn clears it."""
        return self._given.setdefault((str(visit), role), asyncio.Event())


async def act(phone: Softphone, floor: asyncio.Event, script: Sequence[Step]) -> None:
    """Go through a script on a phone, then stay on the line until the other side ends the call."""
    playing = asyncio.create_task(_play(phone, floor, script), name="script")
    over = asyncio.ensure_future(asyncio.wait({phone.closed}))
    await asyncio.wait({playing, over}, return_when=asyncio.FIRST_COMPLETED)
    if playing.done():
        playing.result()
        await over
    playing.cancel()
    await asyncio.wait({playing})


async def _play(phone: Softphone, floor: asyncio.Event, script: Sequence[Step]) -> None:
    try:
        for step in script:
            await _do(phone, floor, step)
    except CallEnded:
        return  # the other side ended the call before the script was over: the caller sees how


async def _do(phone: Softphone, floor: asyncio.Event, step: Step) -> None:
    if isinstance(step, Barge):
        await phone.wait_for_speech(timeout_s=PATIENCE_S)
        await asyncio.sleep(step.after_ms / 1000)
        await phone.say(step.file)
        return
    await floor.wait()
    floor.clear()
    match step:
        case Say(file):
            await phone.say(file)
        case Key(digit):
            phone.send_key(digit)
        case Silence(seconds):
            await asyncio.sleep(seconds)
        case HangUp():
            phone.hang_up()
