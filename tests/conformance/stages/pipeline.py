"""The pipeline: our own model server between Deepgram's recognition, a language model and OpenAI's voice."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, ClassVar

import numpy as np

from bridge.model_server import ModelServerAddress
from bridge.settings import Settings, build
from bridge.tenant_provider import pipeline_of
from providers.local.pipeline import PipelineSpec, RecognitionSpec, SpeechSpec, make_parts
from providers.local.server import ModelServer, ServerSettings
from providers.local.session import Parts
from providers.local.vad import load_vad
from tests.conformance.stage import BROKEN, Call, Refusal, Reply, Say, Stage
from tests.conformance.stages.openai import RealtimeStage
from tests.simulators import chat_speech, deepgram

TOKEN = "segredo"
LEVEL = 3000
"""Of what is spoken."""


class Services:
    """The services that a pipeline asks, and the model server that asks them."""

    def __init__(self, script: Sequence[Reply], pace_s: float) -> None:
        self.script = deque(script)
        self.lasts = {item.text: item.ms for reply in script for item in reply if isinstance(item, Say)}
        self.chat = chat_speech.Simulator(think=self._think, voice=self._voice)
        self.chat.faults.pace_s = pace_s
        self.deepgram = deepgram.Simulator()
        self.parts: dict[str, Parts] = {}
        """By the tenant's id."""
        self.url = ""
        self.open_connections = 0
        self._said: Counter[str] = Counter()
        """What the model has said, and what was said without it."""
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Services:
        await self._open.enter_async_context(self.chat)
        await self._open.enter_async_context(self.deepgram)
        self.parts["spare"] = parts_of(
            PipelineSpec(RecognitionSpec("deepgram"), speech=SpeechSpec("openai", model="m", voice="v"))
        )
        server = ModelServer(None, ServerSettings(token=TOKEN), self.parts)
        listening = await self._open.enter_async_context(server.listening())
        self.url = listening.replace("ws://", "http://")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait (five seconds at most) for it."""
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.005)

    async def _think(
        self, messages: Sequence[chat_speech.Message], tools: Sequence[str]
    ) -> chat_speech.Reply:
        """The script; without what was read out in its place."""
        read_out = Counter(str(m["content"]) for m in messages if m["role"] == "assistant") - self._said
        while self.script and (text := _only_text(self.script[0])) and read_out[text] > 0:
            self.script.popleft()
            read_out[text] -= 1
            self._said[text] += 1
        items = self.script.popleft() if self.script else (Say(),)
        text = " ".join(item.text for item in items if isinstance(item, Say))
        self._said[text] += 1
        # They are told by their place: none can come twice.
        calls = [item for item in items if isinstance(item, Call)]
        return chat_speech.Reply(text, tuple(chat_speech.Call(one.name, _arguments(one)) for one in calls))

    def _voice(self, text: str) -> bytes:
        """A sentence, as long as its part of what was to be said."""
        whole, ms = next(((one, ms) for one, ms in self.lasts.items() if text in one), (text, 200))
        count = chat_speech.RATE * ms * len(text) // len(whole) // 1000
        return np.full(count, LEVEL, "<i2").tobytes()


def _only_text(reply: Reply) -> str:
    return reply[0].text if len(reply) == 1 and isinstance(reply[0], Say) else ""


def _arguments(call: Call) -> str:
    return BROKEN if call.arguments is None else json.dumps(call.arguments)


def parts_of(spec: PipelineSpec) -> Parts:
    """What the model server has for a tenant; nothing of it runs in the server's own process."""

    def elsewhere(*_: object) -> Any:
        raise AssertionError("no part of this pipeline is in the model server's own process")

    return make_parts(spec, load_vad(), elsewhere, elsewhere)


class Pipeline(Stage):
    """Parts of a tenant's choice."""

    server: Services
    name = "pipeline"
    key = chat_speech.KEY
    hears_all = False
    late_refusals = True
    emulated: ClassVar[Mapping[str, str]] = {"lost connection": RealtimeStage.emulated["lost connection"]}
    beyond: ClassVar[Mapping[str, str]] = {
        "tool cancelled": RealtimeStage.beyond["tool cancelled"],
        "phantom interruption": "the model server is our own, and interrupts nothing by itself",
        "another format": "the model server is our own, and confirms what it is asked for",
    }

    def simulator(self, replies: Sequence[Reply], pace_s: float) -> Services:
        return Services(replies, pace_s)

    def tenant(self) -> dict[str, Any]:
        chat, listen = self.server.chat.url, self.server.deepgram.url
        parts: dict[str, dict[str, Any]] = {
            "recognition": {"kind": "deepgram", "base_url": listen, "key_env": "DEEPGRAM"},
            "dialogue": {"kind": "chat", "base_url": chat, "model": "gpt-5-mini", "key_env": "KEY"},
            "speech": {"kind": "openai", "base_url": chat, "model": "gpt-4o-mini-tts", "voice": "coral"},
        }
        parts["speech"]["key_env"] = "KEY"
        changes = dict(self.changes)
        for part, changed in changes.pop("parts", {}).items():
            parts[part] |= changed
        return {"directory": "x", "provider": self.name, "pipeline": parts, **changes}

    def made(self) -> Settings:
        secrets = {"KEY": self.key, "DEEPGRAM": deepgram.KEY, "WRONG": "wrong-key"}
        settings = build({"tenants": {"jardim": self.tenant()}}, environ=secrets)
        jardim = settings.tenants["jardim"]
        self.server.parts["jardim"] = parts_of(pipeline_of(jardim, settings.secret))
        return settings

    @property
    def embedded(self) -> ModelServerAddress | None:
        return ModelServerAddress(self.server.url, TOKEN)

    @property
    def violations(self) -> list[str]:
        found = [*self.server.chat.violations, *self.server.deepgram.violations]
        wanted = self.changes.get("parts", {}).get("speech", {}).get("voice")  # a voice that there isn't
        return [one for one in found if wanted is None or not one.endswith(": voice")]

    @property
    def caller(self) -> bytes:
        return self.server.deepgram.sound

    @property
    def verbatim(self) -> list[str]:
        return [" ".join(self.server.chat.said)]

    @property
    def texts(self) -> list[str]:
        return [str(message["content"]) for message in self._messages if message["role"] != "assistant"]

    @property
    def told(self) -> str:
        return " ".join(str(message.get("content")) for message in self._messages)

    @property
    def answers(self) -> Mapping[str, Any]:
        found = [message for message in self._messages if message["role"] == "tool"]
        return {message["tool_call_id"]: json.loads(message["content"]) for message in found}

    @property
    def _messages(self) -> list[chat_speech.Message]:
        requests = self.server.chat.requests
        return requests[-1]["messages"] if requests else []

    def caller_will_say(self, words: str) -> None:
        self.server.deepgram.transcripts.append(words)

    def caller_ends(self, words: str) -> None:
        """The model server's VAD hears it."""

    def limit_rate(self) -> None:
        self.server.chat.faults.refuse = (429, b'{"error":{"code":"rate_limit_exceeded"}}')

    def will_close_in(self, seconds: float) -> None:
        """No warning comes; the adapter knows how long a session may last."""
        self.limits = {"session_limit_s": 2 * seconds, "going_away_s": seconds}

    def refuse(self, why: Refusal) -> None:
        match why:
            case "key":
                self.changes["parts"] = {"speech": {"key_env": "WRONG"}}
            case "model":
                self.changes["parts"] = {"speech": {"model": "tts-0"}}
            case "voice":
                self.changes["parts"] = {"speech": {"voice": "ninguem"}}
            case "rate":
                self.server.chat.faults.refuse = (429, b'{"error":{"code":"rate_limit_exceeded"}}')
            case "quota":
                self.server.chat.faults.refuse = (429, b'{"error":{"code":"insufficient_quota"}}')

    def is_call(self, message: bytes) -> bool:
        return b'"response.output_item.done"' in message and b'"function_call"' in message
