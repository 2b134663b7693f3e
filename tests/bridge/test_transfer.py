"""What the PBX is told of the attendant, and how that is taken back.

That the dialplan goes by it is tried in tests/pbx/test_pbx_manager.py and test_pbx_dialplan.py.
"""

from __future__ import annotations

from pathlib import Path

from bridge.settings import Attendant
from bridge.transfer import NOBODY, THEN, WHOM, Transfer
from tests.bridge.test_asterisk_manager import CHANNEL, REFUSED, SET, pbx

DIALPLAN = Path("asterisk/extensions.conf")


async def test_the_pbx_is_told_whom_and_then_that_and_may_be_told_otherwise() -> None:
    async with pbx(SET, SET, SET) as (manager, here):
        transfer = Transfer(Attendant(extension="attendant"), manager)
        assert await transfer.prepare(CHANNEL) == ""
        assert await transfer.undo(CHANNEL) == ""
        told = [(one["Channel"], one["Variable"], one["Value"]) for one in here.asked]
        assert told == [
            (CHANNEL, WHOM, "PJSIP/attendant"),
            (CHANNEL, THEN, "attendant"),
            (CHANNEL, THEN, NOBODY),
        ]


async def test_what_cannot_be_taken_back_is_said() -> None:
    async with pbx(REFUSED) as (manager, _):
        transfer = Transfer(Attendant(extension="attendant"), manager)
        assert "Channel not found" in await transfer.undo(CHANNEL)


def test_the_dialplan_does_nothing_for_nobody() -> None:
    lines = [line for line in DIALPLAN.read_text().splitlines() if f"${{{THEN}}}" in line]
    assert lines and all(f'"${{{THEN}}}"="attendant"]?' in line for line in lines)
    assert NOBODY not in ("attendant", "")
