"""A visitor on a real telephone with an ElevenLabs agent, whose own VAD hears them, and a barge-in."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from bridge.softphone import load_wav
from tests.service.household import AUDIO, household, until
from tests.simulators.elevenlabs import AGENT, KEY, Faults, Model, Reply, Say, Simulator

SPEECH = load_wav(AUDIO / "v21-leticia.wav")
GREETING = Reply((Say(10_000),))


class Loud(Model):
    """One that a telephone hears."""

    level = 3000


async def test_a_visitor_is_greeted_interrupts_is_understood_and_answered(tmp_path: Path) -> None:
    replies = (GREETING, Reply((Say(1000),)), Reply((Say(1000),)))
    async with Simulator(*replies, faults=Faults(corrects=1.0), make=Loud) as server:
        tenant = {"provider": "elevenlabs", "base_url": server.url, "model": AGENT}
        async with household(tmp_path, {"jardim": tenant}, environ={"ELEVENLABS_API_KEY": KEY}) as house:
            visit = uuid4()
            async with house.phone("jardim", visit) as phone:
                await phone.wait_for_speech(timeout_s=10)
                model = server.model
                greeting = model.started["conversation_config_override"]["agent"]["first_message"]
                assert greeting and model.texts == [], "word for word, and not asked for"
                phone.say_nowait(SPEECH)
                await until(lambda: house.of(visit, "barge_in"), 5, "the barge-in")
                await until(lambda: model.notes, 10, "what was heard of the greeting")
                assert "só ouviu" in model.notes[0] or "não ouviu" in model.notes[0]
                await until(lambda: not model.speaking, 10, "the end of the turn")
                await phone.wait_for_speech(timeout_s=5)
                await phone.wait_for_quiet(400, timeout_s=10)
                model.said.append("Apartamento quinhentos e um.")
                phone.say_nowait(SPEECH)
                await phone.wait_for_speech(timeout_s=10)
            await house.service.visit_over(visit)
            said = [one.data["text"] for one in house.of(visit, "turn") if one.data["speaker"] == "caller"]
            assert said[:2] == ["Boa tarde.", "Apartamento quinhentos e um."]
    assert server.violations == []
