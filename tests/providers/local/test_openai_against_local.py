"""The OpenAI adapter and the model server of our own, through nothing but the protocol: one real exchange."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import soxr

from audio.vad import VadModel
from providers import registry
from providers.access import Access
from providers.base import (
    AudioDelta,
    AudioDone,
    Event,
    Failed,
    Ready,
    ResponseDone,
    ResponseStarted,
    Session,
    SessionConfig,
    ToolSpec,
    Transcript,
)
from providers.formats import FORMATS, FormatName
from providers.local.dialogue import new_engine
from providers.local.dialogue.base import at_once
from providers.local.listening import WholeTurns
from providers.local.recognition import Recogniser
from providers.local.server import ModelServer, ServerSettings
from providers.local.session import Parts
from providers.local.speech import Speaker
from tests.providers.local.dialogue_house import VISITOR_TOOLS, prompt

GREETING = "Boa tarde! Condomínio Jardim, com quem deseja falar?"
TOOLS = [ToolSpec(name, name, {"type": "object", "properties": {}}) for name in VISITOR_TOOLS]


async def speak(session: Session, sound: npt.NDArray[np.int16]) -> None:
    """The recording and a second of silence, as a telephone line would bring them: 20 ms at a time."""
    rate = session.capabilities.input_rate
    wide = soxr.resample(sound.astype(np.float32), 8000, rate).clip(-32768, 32767).astype("<i2").tobytes()
    line = wide + bytes(rate * 2)
    frame = rate // 50 * 2
    clock = asyncio.get_running_loop()
    due = clock.time()
    for at in range(0, len(line), frame):
        session.send_audio(line[at : at + frame])
        due += 0.02
        await asyncio.sleep(max(0.0, due - clock.time()))


@pytest.mark.parametrize("name", FORMATS)
async def test_a_greeting_a_turn_and_a_reply(
    name: FormatName,
    recogniser: Recogniser,
    speaker: Speaker,
    vad: VadModel,
    recording: Callable[[str], npt.NDArray[np.int16]],
) -> None:
    parts = Parts(WholeTurns(recogniser), speaker, vad, at_once(new_engine))
    async with ModelServer(parts, ServerSettings(token="segredo")).listening() as url:
        access = Access("segredo", base_url=url.replace("ws://", "http://"), format=name)
        session = registry.create("local", access).open(SessionConfig(prompt("visitor"), tools=TOOLS))
        receipt = session.say_exactly(GREETING)
        events: list[Event] = []

        news = asyncio.Event()

        def take(event: Event) -> None:
            events.append(event)
            news.set()

        async def until(kind: type[Event], times: int = 1) -> None:
            while sum(isinstance(e, kind) for e in events) < times:
                news.clear()
                await news.wait()
                assert not isinstance(events[-1], Failed), events[-1]

        taking = asyncio.create_task(session.run(take))
        async with asyncio.timeout(40):
            await until(ResponseDone)
            caller = asyncio.create_task(speak(session, recording("v09-leticia")))
            await until(ResponseDone, times=2)
            await caller
            await session.close()
            await taking
    assert isinstance(events[0], Ready)
    starts = [e for e in events if isinstance(e, ResponseStarted)]
    assert [e.receipt for e in starts] == [receipt, None]
    assert [e.status for e in events if isinstance(e, ResponseDone)] == ["completed", "completed"]
    finals = [e for e in events if isinstance(e, Transcript) and e.final]
    assert [e.role for e in finals] == ["agent", "caller", "agent"]
    assert finals[0].text == GREETING
    assert "número do apartamento" in finals[1].text
    for item in (finals[0].item, finals[2].item):
        pcm = b"".join(e.pcm for e in events if isinstance(e, AudioDelta) and e.item == item)
        assert len(pcm) > session.capabilities.output_rate, "half a second of speech at least"
        assert np.abs(np.frombuffer(pcm, "<i2").astype(np.int32)).max() > 1000, "and it can be heard"
        assert AudioDone(item) in events
