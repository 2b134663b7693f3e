"""For the tests of the model server: its events held against the SDK's types, and a scripted engine."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import orjson
import soxr
from openai.types.realtime import RealtimeServerEvent
from pydantic import BaseModel
from websockets.asyncio.client import ClientConnection, connect

from providers.local.dialogue.base import AgentSaid, Call, CallAnswered, History, Say, UserSaid

ROOT = Path(__file__).parents[3]

_CLASSES: dict[str, type[BaseModel]] = {
    name: kind
    for kind in get_args(get_args(RealtimeServerEvent)[0])
    for name in get_args(kind.model_fields["type"].annotation)
}
_OF_THE_REAL_ONE = {"session.id", "session.object"}
"""Fields that the service sends and the SDK's types don't name."""


def checked(event: dict[str, Any]) -> BaseModel:
    """The event as the SDK's own type; no field may be wrong, and none unknown to it."""
    parsed = _CLASSES[event["type"]].model_validate(event)
    unknown = set(_extras(parsed, "")) - _OF_THE_REAL_ONE
    assert not unknown, f"{event['type']} has fields that the SDK does not know: {unknown}"
    return parsed


def _extras(value: Any, path: str) -> list[str]:
    if isinstance(value, BaseModel):
        mine = [f"{path}{name}" for name in value.model_extra or {}]
        fields = ((name, getattr(value, name)) for name in type(value).model_fields)
        return mine + [extra for name, field in fields for extra in _extras(field, f"{path}{name}.")]
    if isinstance(value, list):
        return [extra for one in value for extra in _extras(one, path)]
    return []


class Client:
    """A raw client that holds every event it gets against the SDK's types."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.seen: list[dict[str, Any]] = []

    async def send(self, event_type: str, **fields: Any) -> None:
        await self.connection.send(json.dumps({"type": event_type, **fields}))

    async def next(self, timeout_s: float = 15.0) -> dict[str, Any]:
        async with asyncio.timeout(timeout_s):
            event: dict[str, Any] = orjson.loads(await self.connection.recv())
        checked(event)
        self.seen.append(event)
        return event

    async def until(self, event_type: str, timeout_s: float = 15.0) -> dict[str, Any]:
        """The next event of this type; what comes before it is in :attr:`seen`."""
        while (event := await self.next(timeout_s))["type"] != event_type:
            assert event["type"] != "error" or event_type == "error", event
        return event

    async def error(self) -> dict[str, Any]:
        error: dict[str, Any] = (await self.until("error"))["error"]
        return error

    async def hear(self, pcm: bytes) -> None:
        """Write audio as a leg does, 20 ms a message, without waiting for real time."""
        for start in range(0, len(pcm), 960):
            audio = base64.b64encode(pcm[start : start + 960]).decode()
            await self.send("input_audio_buffer.append", audio=audio)

    def types(self) -> list[str]:
        return [event["type"] for event in self.seen]

    def audio_of(self, item_id: str) -> bytes:
        return b"".join(
            base64.b64decode(event["delta"])
            for event in self.seen
            if event["type"] == "response.output_audio.delta" and event["item_id"] == item_id
        )


@asynccontextmanager
async def client(url: str, **headers: str) -> AsyncIterator[Client]:
    """Connected and greeted."""
    async with connect(
        f"{url}/realtime?model=test", compression=None, additional_headers=headers or None, max_size=None
    ) as connection:
        made = Client(connection)
        created = await made.next()
        assert created["type"] == "session.created"
        yield made


def wide(narrow: npt.NDArray[np.int16], before_s: float = 0.3, after_s: float = 1.2) -> bytes:
    """A recording at 8 kHz as a client sends it: 24 kHz, faint noise around it."""
    noise = np.random.default_rng(5)
    before, after = (noise.normal(0, 8, int(8000 * seconds)) for seconds in (before_s, after_s))
    joined = np.concatenate([before, narrow, after]).astype(np.int16)
    return np.asarray(soxr.resample(joined, 8000, 24000)).astype("<i2").tobytes()


class Script:
    """An engine that shows what it was given, and looks apartments up."""

    def __init__(self) -> None:
        self.instructions, self.tools = "", list[str]()

    def configure(self, instructions: str, tools: Sequence[Mapping[str, Any]]) -> None:
        if instructions == "unusable":
            raise ValueError("no role")
        self.instructions = instructions
        self.tools = [tool["name"] for tool in tools]

    def respond(
        self, history: History, response_instructions: str | None, tool_choice: str
    ) -> list[Say | Call]:
        if response_instructions == "unusable":
            raise ValueError("no role")
        if response_instructions is not None:
            return [Say(response_instructions)]
        last = history[-1] if history else None
        if isinstance(last, CallAnswered):
            return [Say(f"A resposta foi {last.output}.")]
        if isinstance(last, UserSaid) and last.text == "o que ouvi?":
            heard = [entry.text for entry in history if isinstance(entry, AgentSaid)]
            return [Say("|".join(heard) or "nada")]
        if isinstance(last, UserSaid) and last.text == "ferramentas?":
            return [Say(f"{','.join(self.tools)} {tool_choice} {self.instructions}")]
        if isinstance(last, UserSaid) and ("501" in last.text or "quinhentos" in last.text):
            return [Say("Um momento."), Call("lookup_apartment", {"number": "501"})]
        if isinstance(last, UserSaid):
            return [Say(f"Ouvi: {last.text}.")]
        return [Say("Boa tarde, portaria. Em que posso ajudar?")]
