"""Transfers in which whoever picks up hears first what it is about; what becomes of them where that fails."""

from __future__ import annotations

import asyncio
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from bridge.sound_files import SoundDirectory
from providers.local.speech import SpeechError
from tests.esl.test_esl_visits import Site, site
from tests.service.doorman import Part, Turn
from tests.service.household import until
from tests.simulators.freeswitch import Channel, Person
from tests.simulators.openai_realtime import Call, Reply


async def no_voice(*_: object) -> bytes:
    raise SpeechError("no voice here")


async def slow_voice(*_: object) -> bytes:
    await asyncio.sleep(4)
    return b""


def no_space(*_: object) -> str:
    raise OSError(28, "No space left on device")


async def handed_over(at: Site, person: Person) -> Channel:
    """A visitor who asks for the attendant, once the two hear each other."""
    at.switch.people["9000"] = person
    visitor = await at.visitor(visit := uuid4())
    async with asyncio.timeout(40):
        await person.connected.wait()
    assert visitor.transferred == "9000" and not visitor.over.is_set()
    visitor.hang_up()
    assert await at.over(visit) == ("unreachable", "attendant", None)
    return visitor


@asynccontextmanager
async def announcing(tmp_path: Path) -> AsyncIterator[Site]:
    part = Part((Turn("Quero falar com alguém.", Reply((Call("transfer_to_attendant", "{}"),))),))
    attendant = {"extension": "9000", "announce": True}
    async with site(tmp_path, part=part, sounds=True, attendant=attendant) as at:
        yield at


async def test_an_attendant_hears_who_it_is_and_then_the_visitor(tmp_path: Path) -> None:
    """A telephone that sends early media does not have it played while it rings."""
    person = Person(after_s=0.3, early=True)
    async with announcing(tmp_path) as at:
        visitor = await handed_over(at, person)
        assert not person.lost
        (file,) = (tmp_path / "sounds").iterdir()
        assert visitor.variables["bridge_pre_execute_bleg_data"] == str(file)
        with wave.open(str(file)) as opened:
            assert person.heard == opened.readframes(opened.getnframes())
        samples = np.frombuffer(person.heard, np.int16)
        assert 1.5 < len(samples) / 8000 < 8 and np.abs(samples).max() > 2000, "a sentence, and to be heard"


@pytest.mark.parametrize("what", ["voice", "slow voice", "file", "variables", "silence"])
async def test_a_visitor_is_sent_on_unannounced_where_the_announcement_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    person = Person()
    async with announcing(tmp_path) as at:
        if what == "voice":
            monkeypatch.setattr("providers.announcer.OwnVoice.say", no_voice)
        elif what == "slow voice":
            monkeypatch.setattr("providers.announcer.OwnVoice.say", slow_voice)
        elif what == "file":
            monkeypatch.setattr(SoundDirectory, "write", no_space)
        else:
            at.switch.refused["uuid_setvar_multi"] = None if what == "silence" else "-ERR no"
        await handed_over(at, person)
        assert not person.heard and not [*(tmp_path / "sounds").iterdir()]


async def test_an_announcement_that_nobody_is_to_hear_goes(tmp_path: Path) -> None:
    """The visitor hangs up in our goodbye."""
    async with announcing(tmp_path) as at:
        visitor = await at.visitor(visit := uuid4())
        await until(lambda: [*(tmp_path / "sounds").iterdir()], 20, "the file")
        visitor.hang_up()
        await at.over(visit)
        await until(lambda: not [*(tmp_path / "sounds").iterdir()], 5, "the file's end")
