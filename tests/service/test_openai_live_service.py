"""A visitor on a real telephone with OpenAI Live, in real time: greeted, interrupts, is answered."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from bridge.softphone import load_wav
from tests.service.household import AUDIO, household, until
from tests.simulators.openai_live import KEY, Faults, Reply, Say, Simulator

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
