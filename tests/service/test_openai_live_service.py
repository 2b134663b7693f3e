"""A visitor on a real telephone with OpenAI Live, in real time: greeted, interrupts, is answered."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from pathlib import Path
from uuid import uuid4

from bridge.softphone import Softphone, load_wav
from tests.service.household import AUDIO, household, until
from tests.simulators.openai_live import KEY, Call, Delegate, Faults, Message, Model, Reply, Say, Simulator

SPEECH = load_wav(AUDIO / "v21-leticia.wav")


async def test_a_visitor_is_greeted_interrupts_and_is_answered(tmp_path: Path) -> None:
    faults = Faults(pace_s=0.1)
    async with Simulator(faults=faults) as server:
        tenant = {"provider": "openai-live", "base_url": server.url}
        async with household(tmp_path, {"jardim": tenant}, environ={"OPENAI_API_KEY": KEY}) as house:
            visit = uuid4()
            async with house.phone("jardim", visit) as phone:
                await phone.wait_for_speech(timeout_s=10)
                await phone.wait_for_quiet(400, timeout_s=20)
                model = server.model
                model.replies.append(Reply((Say(10_000, "Boa tarde, " * 40),)))
                model.said.append("Apartamento quinhentos e um.")
                phone.say_nowait(SPEECH)
                await phone.wait_for_speech(timeout_s=10)
                phone.say_nowait(SPEECH)
                await until(lambda: house.of(visit, "barge_in"), 8, "the barge-in")
                await until(lambda: model.yielded, 5, "the model falls silent for the caller")
                await phone.wait_for_quiet(400, timeout_s=10)
                await phone.wait_for_speech(timeout_s=10)
                await phone.wait_for_quiet(400, timeout_s=10)
            await house.service.visit_over(visit)
            turns = [one.data for one in house.of(visit, "turn")]
            greeting, *_ = [one for one in turns if one["speaker"] == "agent"]
    assert not greeting["interrupted"], "whoever answers at once answers after it"
    assert "Apartamento quinhentos e um." in [one["text"] for one in turns if one["speaker"] == "caller"]
    assert model.violations == []


class Doorman(Model):
    """One that says what it is asked to say, and for each turn of a caller's does the next thing."""

    def begin(self, asked: str = "") -> None:
        """What was asked for, or the next thing."""
        if not asked and self._mine:
            self._items.append(self._mine.popleft())
        else:
            super().begin(asked)

    def _on_start(self, message: Message) -> None:
        super()._on_start(message)
        tools = message["session"]["delegation"]["responses"]["tools"]
        resident = "authorize_entry" in {tool["name"] for tool in tools}
        self.said.append("Pode liberar." if resident else "É o Pedro, para a Renata do 501.")
        self._mine = deque([Delegate((AUTHORIZE if resident else CALL,))])


ARGUMENTS = {
    "apartment": "501",
    "intent": "visita",
    "visitor_name": "Pedro",
    "resident_name": "Renata Oliveira",
}
CALL = Call("call_resident", json.dumps(ARGUMENTS), "call_1")
AUTHORIZE = Call("authorize_entry", "{}", "call_1")
YES = load_wav(AUDIO / "r01-leticia.wav")


async def agrees(phone: Softphone) -> None:
    """A resident who hears the briefing and says yes, as soon as it is over."""
    await phone.wait_for_speech(timeout_s=20)
    await phone.wait_for_quiet(500, timeout_s=30)
    await phone.say(YES)
    await asyncio.wait({phone.closed})


async def test_a_visit_to_the_opened_gate(tmp_path: Path) -> None:
    async with Simulator(faults=Faults(pace_s=0.1), make=Doorman) as server:
        tenant = {"provider": "openai-live", "base_url": server.url}
        async with household(tmp_path, {"jardim": tenant}, environ={"OPENAI_API_KEY": KEY}) as house:
            visit = uuid4()
            house.residents[visit] = agrees
            await house.visit("jardim", visit=visit)
            assert await house.outcome(visit) == ("authorized", "opened", True)
    assert [model.violations for model in server.models] == [[], []]
