"""A visit of a tenant whose provider is a pipeline: through the service and its model server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from tests.service.household import HELLO, household, until
from tests.simulators import chat_speech, deepgram
from tests.simulators.chat_speech import Reply


async def answers(messages: Sequence[chat_speech.Message], tools: Sequence[str]) -> Reply:
    """A doorman who says what he heard."""
    return Reply(f"Ouvi: {messages[-1]['content']}")


async def test_a_visitor_is_greeted_heard_and_answered(tmp_path: Path) -> None:
    async with chat_speech.Simulator(think=answers) as chat, deepgram.Simulator() as dg:
        dg.transcripts.append("Oi, tudo bem?")
        pipeline = {
            "recognition": {"kind": "deepgram", "base_url": dg.url},
            "dialogue": {"kind": "chat", "base_url": chat.url, "model": "gpt-5-mini", "key_env": "CHAT_KEY"},
            "speech": {"kind": "deepgram", "base_url": dg.url, "voice": "aura-2-celeste-es"},
        }
        keys = {"CHAT_KEY": chat_speech.KEY, "DEEPGRAM_API_KEY": deepgram.KEY}
        with (tmp_path / "model.log").open("w") as log:
            async with household(
                tmp_path,
                {"jardim": {"provider": "pipeline", "pipeline": pipeline}},
                environ=keys,
                model_log=log,
                models_dir=str(tmp_path / "no-weights-are-needed"),
            ) as house:
                visit = uuid4()
                async with house.phone("jardim", visit) as phone:
                    await phone.wait_for_speech(timeout_s=20)
                    await phone.wait_for_quiet(400, timeout_s=30)
                    await phone.say(HELLO)
                    await until(lambda: "Ouvi: Oi, tudo bem?" in " ".join(dg.said))
                    await phone.wait_for_speech(timeout_s=10)
                    await asyncio.sleep(0.5)
                assert await house.service.visit_over(visit)
                assert (await house.outcome(visit))[0] == "abandoned"
        assert chat.violations == dg.violations == []
        assert {tool["function"]["name"] for tool in chat.requests[0]["tools"]} >= {"lookup_apartment"}
        told = (tmp_path / "model.log").read_text()
    assert not any(key in told for key in keys.values()) and "tudo bem" not in told
