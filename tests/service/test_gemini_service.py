"""A visitor on a real telephone with Gemini: turns by our VAD, a barge-in, and a connection that breaks."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from bridge.softphone import load_wav
from tests.service.household import AUDIO, household, until
from tests.simulators.gemini_live import KEY, Model, Reply, Say, Simulator

SPEECH = load_wav(AUDIO / "v21-leticia.wav")
GREETING = Reply((Say(10_000, "Boa tarde, " * 40),))


class Loud(Model):
    """One that a telephone hears."""

    level = 3000


async def test_a_visitor_interrupts_is_understood_and_answered_over_two_connections(tmp_path: Path) -> None:
    async with Simulator(GREETING, Reply((Say(1000),)), Reply((Say(1000),)), make=Loud) as server:
        tenant = {"provider": "gemini", "base_url": server.url}
        async with household(tmp_path, {"jardim": tenant}, environ={"GEMINI_API_KEY": KEY}) as house:
            visit = uuid4()
            async with house.phone("jardim", visit) as phone:
                await phone.wait_for_speech(timeout_s=10)
                first = server.model
                assert first.caller == b"", "nothing is sent while nobody speaks"
                phone.say_nowait(SPEECH)
                await until(lambda: house.of(visit, "barge_in"), 5, "the barge-in")
                await until(lambda: first.turns, 10, "the end of the turn")
                heard_ms = sum(len(turn) for turn in first.turns) / 32
                assert heard_ms > len(SPEECH) / 16 * 0.8, "the turn came whole"
                assert any("só ouviu" in text or "não ouviu" in text for _, text, _ in first.texts)
                await phone.wait_for_speech(timeout_s=5)
                await phone.wait_for_quiet(400, timeout_s=10)
                server.sockets[0].transport.abort()
                await until(lambda: len(server.models) == 2 and server.model.setup, 5, "another connection")
                assert server.model.resumed is not None
                phone.say_nowait(SPEECH)
                await until(lambda: server.model.turns, 10, "the turn over the new connection")
                await phone.wait_for_speech(timeout_s=5)
            await house.service.visit_over(visit)
            said = [one.data["text"] for one in house.of(visit, "turn") if one.data["speaker"] == "caller"]
            assert "Boa tarde." in said
    assert server.violations == []
