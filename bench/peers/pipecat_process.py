"""Pipecat under test, in a process and a virtual environment of its own, as its examples build it.

One pipeline a call: pipecat's WebSocket transport (FastAPI, uvicorn, uvloop), its silero VAD and its OpenAI
realtime service, with turns driven by that VAD as in its example `realtime-openai-locally-driven-turns.py`.
Ours is the serializer alone, which hands 8 kHz PCM on as it is: a call's sound is resampled by pipecat. Less
than its examples have: no metrics, no tools, no transcript log, no smart turn model.

It knows nothing of this project, whose packages its environment has not got: the few lines by which the
parent asks it are those of `bench.children`.
"""
# mypy: disable-error-code="import-not-found,misc,untyped-decorator"

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from typing import Any

import uvicorn
from fastapi import FastAPI, WebSocket
from loguru import logger
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.frames.frames import Frame, InputAudioRawFrame, LLMRunFrame, OutputAudioRawFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import (
    LLMContextAggregatorPair,
    LLMUserAggregatorParams,
)
from pipecat.serializers.base_serializer import FrameSerializer
from pipecat.services.openai.realtime.events import (
    AudioConfiguration,
    AudioInput,
    SessionProperties,
)
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.turns.user_start import VADUserTurnStartStrategy
from pipecat.turns.user_stop import SpeechTimeoutUserTurnStopStrategy
from pipecat.turns.user_turn_strategies import UserTurnStrategies
from pipecat.workers.runner import WorkerRunner

RATE = 8000
CHUNK_10_MS = 2
"""What is sent at a time: 20 ms, as to a telephone (pipecat's usual is 40 ms)."""


class RawPcm(FrameSerializer):
    """8 kHz signed 16-bit mono, as it is, in binary messages."""

    async def serialize(self, frame: Frame) -> bytes | None:
        """Sound goes out; of the rest the caller learns nothing."""
        return bytes(frame.audio) if isinstance(frame, OutputAudioRawFrame) else None

    async def deserialize(self, data: str | bytes) -> Frame | None:
        """Each message is sound."""
        return InputAudioRawFrame(audio=data, sample_rate=RATE, num_channels=1)


async def call(websocket: WebSocket, model_url: str) -> None:
    """One call, until the caller leaves."""
    transport = FastAPIWebsocketTransport(
        websocket=websocket,
        params=FastAPIWebsocketParams(
            audio_in_enabled=True,
            audio_out_enabled=True,
            audio_out_10ms_chunks=CHUNK_10_MS,
            serializer=RawPcm(),
        ),
    )
    model = OpenAIRealtimeLLMService(
        api_key="bench",
        base_url=model_url,
        settings=OpenAIRealtimeLLMService.Settings(
            system_instruction="Você é o porteiro.",
            session_properties=SessionProperties(
                audio=AudioConfiguration(input=AudioInput(turn_detection=False))
            ),
        ),
    )
    user, assistant = LLMContextAggregatorPair(
        LLMContext([{"role": "developer", "content": "Cumprimente."}]),
        realtime_service_mode=True,
        user_params=LLMUserAggregatorParams(
            vad_analyzer=SileroVADAnalyzer(),
            user_turn_strategies=UserTurnStrategies(
                start=[VADUserTurnStartStrategy()],
                stop=[SpeechTimeoutUserTurnStopStrategy(wait_for_transcript=False)],
            ),
        ),
    )
    worker = PipelineWorker(
        Pipeline([transport.input(), user, model, transport.output(), assistant]),
        params=PipelineParams(audio_in_sample_rate=RATE, audio_out_sample_rate=RATE),
        idle_timeout_secs=None,
    )

    @transport.event_handler("on_client_connected")
    async def connected(*_: Any) -> None:
        await worker.queue_frames([LLMRunFrame()])

    @transport.event_handler("on_client_disconnected")
    async def disconnected(*_: Any) -> None:
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


# --------------------------------------------------------------------------------------------------------
# What the benchmark asks
# --------------------------------------------------------------------------------------------------------


class Probe:
    """Answers as `bench.service_process.Probe` does, as far as the figures need it."""

    def __init__(self) -> None:
        self._taken: dict[str, dict[str, float]] = {}

    def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        """`{"snapshot": name, "at": monotonic}` takes one then, `{"report": …}` gives them all."""
        if "snapshot" in command:
            wait = max(0.0, command["at"] - time.monotonic())
            asyncio.get_running_loop().call_later(wait, self._snapshot, command["snapshot"])
            return {}
        return {"snapshots": self._taken}

    def _snapshot(self, name: str) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        self._taken[name] = {
            "at": time.monotonic(),
            "user_s": used.ru_utime,
            "system_s": used.ru_stime,
            "waits": used.ru_nvcsw,
        }


def say(what: dict[str, Any]) -> None:
    """One line to the parent."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def serve(model_url: str) -> None:
    """Take calls until the parent closes our input."""
    app = FastAPI()

    @app.websocket("/")
    async def taken(websocket: WebSocket) -> None:
        await websocket.accept()
        await call(websocket, model_url)

    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="warning", ws_per_message_deflate=False, lifespan="off"
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(), name="server")
    while not server.started:
        if serving.done():
            serving.result()
            raise RuntimeError("uvicorn ended before it took calls")
        await asyncio.sleep(0.05)
    say({"port": server.servers[0].sockets[0].getsockname()[1]})
    probe, rest, over = Probe(), b"", asyncio.Event()

    def read() -> None:
        nonlocal rest
        piece = os.read(sys.stdin.fileno(), 1 << 16)
        if not piece:
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            over.set()
            return
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            say(probe.answer(json.loads(line)))

    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), read)
    await over.wait()
    server.should_exit = server.force_exit = True
    await serving


def main() -> None:
    """`python pipecat_process.py '{"model_url": …}'`; started by `bench.peers.pipecat`."""
    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    asked = json.loads(sys.argv[1])
    config_loop = uvicorn.Config(FastAPI(), loop="uvloop").get_loop_factory()
    with asyncio.Runner(loop_factory=config_loop) as runner:
        runner.run(serve(asked["model_url"]))


if __name__ == "__main__":
    main()
