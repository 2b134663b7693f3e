"""A FreeSWITCH that dies, or whose event socket does, in mid-visit: it ends closed, and that is said."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from uuid import uuid4

import pytest

from bridge.softphone import load_wav
from tests.esl.test_esl_visits import PHONE, presses, site
from tests.service.doorman import ASKS, Part, Turn
from tests.service.household import AUDIO, until
from tests.simulators.audio_stream import Kind
from tests.simulators.freeswitch import Channel, Phone
from tests.simulators.openai_realtime import Call, Reply

WANTS_A_PERSON = Turn("Eu quero falar com o porteiro.", Reply((Call("transfer_to_attendant", "{}"),)))


@pytest.mark.parametrize("kind", ["base64", "file"])
async def test_a_switch_that_dies_in_mid_visit_opens_nothing_and_is_there_for_the_next(
    tmp_path: Path, kind: Kind
) -> None:
    gate = {"kind": "dtmf", "digits": "9", "duration_ms": 50}
    async with site(tmp_path, kind, gate=gate) as at:
        answered: list[Channel] = []
        at.switch.phones[PHONE] = Phone(answered=answered.append)
        await at.visitor(visit := uuid4())
        await until(lambda: answered and answered[0].stream is not None, 15, "the resident")
        await at.switch.die()
        outcome, _, opened = await at.over(visit)
        assert outcome in ("abandoned", "unreachable") and opened is None, "by whose end came first"
        assert not [one for one in await at.house.kinds(visit) if one in ("decision", "gate.requested")]
        assert at.house.service.open_legs() == 0

        await at.switch.open(at.switch.port)
        await until(lambda: at.switch.listeners == 1, 10, "the connection")
        at.switch.phones[PHONE] = Phone(answered=presses("1"))
        visitor = await at.visitor(visit := uuid4())
        assert (await at.over(visit))[::2] == ("authorized", True) and visitor.digits == "9"


async def test_an_event_socket_that_is_away_is_said_and_the_call_is_ended_once_it_is_back(
    tmp_path: Path,
) -> None:
    """Nobody can be called, and nobody's telephone can be rung in the place of us: the visitor hears so."""
    part = Part((WANTS_A_PERSON, *ASKS))
    async with site(tmp_path, part=part, attendant={"extension": "9000"}, limits={"ring_s": 5.0}) as at:
        url = at.url(visit := uuid4())
        channel = await at.switch.call_in(str(visit), url, json.dumps({"playback": "base64"}))
        await at.house.greeted(visit)
        await at.switch.shut()
        stream = channel.stream
        assert stream is not None
        stream.to_say = load_wav(AUDIO / "v16-leticia.wav")
        doorman = at.cast.doormen[-1]
        await until(lambda: doorman.answers, 10, "the answer to the model")
        assert [json.loads(text)["status"] for text in doorman.answers.values()] == ["unavailable"]
        await asyncio.sleep(0.5)
        stream.to_say = load_wav(AUDIO / "v04-leticia.wav")
        await until(lambda: at.house.of(visit, "visit.ended"), 30, "the end")
        assert (await at.house.outcome(visit))[0] == "unreachable"
        assert any("Não consegui completar a ligação" in text for text in doorman.said)
        assert not channel.over.is_set() and not channel.transferred
        await at.switch.open(at.switch.port)
        await until(lambda: channel.over.is_set(), 10, "the end of the channel")


async def test_who_could_not_hear_the_briefing_can_not_agree(tmp_path: Path) -> None:
    """Files are played over the event socket: once that is away nothing is heard, and nothing counts."""
    async with site(tmp_path, "file") as at:
        answered: list[Channel] = []
        at.switch.phones[PHONE] = Phone(answered=answered.append)
        visitor = await at.visitor(visit := uuid4())
        await until(lambda: answered and answered[0].stream is not None, 15, "the resident")
        stream = answered[0].stream
        assert stream is not None
        await until(lambda: stream.heard_as_speech_ms() > 200, 15, "the briefing")
        await at.switch.shut()
        for _ in range(2):
            await asyncio.sleep(3)
            stream.to_say = load_wav(AUDIO / "r03-grave.wav")
        await until(lambda: at.house.of(visit, "visit.ended"), 30, "the end")
        assert (await at.house.outcome(visit))[2] is None
        assert not [one for one in await at.house.kinds(visit) if one in ("decision", "gate.requested")]
        assert visitor.stream is not None
        assert stream.closed[0] == visitor.stream.closed[0] == 1011, "so the dialplan has the attendant ring"
        await at.switch.open(at.switch.port)
        await until(lambda: answered[0].over.is_set(), 10, "the end of the resident's call")
