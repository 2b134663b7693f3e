"""A scripted server of the OpenAI Live protocol, as strict as the vendor's, that misbehaves on command.

:class:`Model` is the protocol without a socket; :class:`Simulator` puts it behind a loopback WebSocket. Every
message in either direction is checked against the openai SDK's own types, fields that they don't have
included. What the vendor would refuse is answered with an error and kept in ``Model.violations``.

The model's voice is one stream that never stops, silence included, and so are its ears: the caller is heard
where what they send is loud, and is answered after half a second of quiet.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import http
import json
import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import pydantic
from openai.types.live import BuiltInVoice, ClientEvent, ServerEvent
from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from providers.formats import AudioFormat
from providers.openai_live_messages import FORMATS, format_wire
from tests.simulators.openai_realtime import TOO_LOUD, _by_type, unknown_fields
from tests.simulators.serving import Serving

Message = dict[str, Any]

KEY = "sk-test"
MODELS = frozenset({"gpt-live-1"})
BACKENDS = frozenset({"gpt-6-luna", "gpt-6.1-terra"})
VOICES = frozenset(get_args(BuiltInVoice))
PATH = "/v1/live/sessions"
CHUNK_MS = 100
LEVEL = 3000
"""Of what is spoken."""
LOUD = 200
"""Mean magnitude above which the caller is heard."""
HEARD_MS = 20
"""So much of the caller is judged at a time."""
QUIET_MS = 500
"""So much quiet ends what a caller says."""
YIELD_MS = 200
"""A caller who is heard for so long is let speak."""
MAX_CONTENT = 1750
"""500 tokens, about."""

MS_PER_LETTER = 65
_EXACT = re.compile("«(.+?)»", re.DOTALL)

CLIENT_TYPES = _by_type(ClientEvent)
SERVER_TYPES = _by_type(ServerEvent)


# -- the script ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Say:
    """``ms`` of speech and then ``pause_ms`` of quiet. ``lag_ms``: its words come so much later."""

    ms: int = 300
    text: str = "Pois não?"
    pause_ms: int = 0
    lag_ms: int = 0


@dataclass(frozen=True)
class Call:
    """A function call. ``times``: how often it is told."""

    name: str = "lookup_apartment"
    arguments: str = '{"apartment":"501"}'
    call_id: str = "call_1"
    status: str = "completed"
    times: int = 1


@dataclass(frozen=True)
class Delegate:
    """A delegation whose first response makes these calls, and how that response ends."""

    calls: tuple[Call, ...] = ()
    status: Literal["completed", "failed", "incomplete", "silent"] = "completed"
    named: bool = True
    """The events name their delegation."""


@dataclass(frozen=True)
class Reply:
    """What the model does at one go."""

    items: tuple[Say | Delegate, ...] = (Say(),)


@dataclass
class Faults:
    """How the server misbehaves. ``cut`` comes after ``cut_after`` messages."""

    refuse: tuple[int, bytes] | None = None
    accept_delay_s: float = 0.0
    never_configure: bool = False
    start_error: tuple[str, str] | None = None
    """Code and parameter."""
    format: Message | None = None
    """Confirmed in place of the one asked for."""
    cut_after: int | None = None
    cut: Literal["close", "abort", "half", "garbage", "stall"] = "abort"
    deaf: bool = False
    """Stops reading once it is configured."""
    never_accepts: bool = False
    """What is to be spoken about is neither accepted nor said."""
    refuses_commentary: bool = False
    mute: bool = False
    """Accepts everything and says nothing."""
    only_speech: bool = False
    """Silence is not sent."""
    talks_over: bool = False
    """Doesn't yield to a caller."""
    odd_audio: bool = False
    """Half a sample."""
    pace_s: float = 0.002
    """For each tenth of a second of the stream."""
    expires_in_s: float = 3600.0
    no_goodbye: bool = False
    """Does not confirm the end of a session."""


# -- the protocol, without a socket --------------------------------------------------------------------------


@dataclass
class _Waiting:
    """A delegated response that waits for what its calls brought."""

    key: str | None
    calls: set[str] = field(default_factory=set)


class Model:
    """Takes client messages in, gives server messages by ``out``; :meth:`step` goes on with the stream."""

    def __init__(self, replies: deque[Reply] | None = None, faults: Faults | None = None) -> None:
        self.replies = replies if replies is not None else deque()
        self.faults = faults or Faults()
        self.out: deque[Message] = deque()
        self.received: list[Message] = []
        self.violations: list[str] = []
        self.session: Message = {}
        self.format: AudioFormat = FORMATS["pcm24"]
        self.said: deque[str] = deque()
        """What the caller's next turns say; without it "Boa tarde."."""
        self.caller = b""
        """What came of the caller, as PCM."""
        self.thinking: list[str] = []
        self.commentary: list[str] = []
        self.answers: dict[str, Message] = {}
        self.cancelled: set[str] = set()
        self.yielded = 0
        """How often the model fell silent for the caller."""
        self.position_ms = 0
        self.over = False
        """The session is closed."""
        self._items: deque[Say | Delegate] = deque()
        self._left_ms = 0
        """Of what is being said; then, below zero, of the pause after it."""
        self._pause_ms = 0
        self._words: deque[tuple[int, int, str]] = deque()
        """Words that come late: when, since when they were spoken, and what."""
        self._waiting: list[_Waiting] = []
        self._chunks: dict[bool, Message] = {}
        """What is sent while the model speaks, and while it doesn't."""
        self._ids = 0
        self._heard_ms = self._quiet_ms = 0
        self._loudness = self._samples = 0

    def id(self, kind: str) -> str:
        """A new name."""
        self._ids += 1
        return f"{kind}_{self._ids}"

    def emit(self, type: str, **fields: Any) -> None:
        """Send a message; one that the SDK's types don't allow is this simulator's own fault."""
        message: Message = {"type": type, **fields}
        if type != "session.output_audio.delta":
            message["event_id"] = self.id("event")
        parsed = SERVER_TYPES[type].model_validate(message)
        extra = unknown_fields(parsed)
        assert not extra, f"{type}: {extra}"
        self.out.append(message)

    # -- what a client sends

    def receive(self, message: Message) -> None:
        """One message of the client."""
        self.received.append(message)
        kind = message.get("type")
        if kind not in CLIENT_TYPES:
            self._refuse(message, "invalid_value", f"found type {kind!r}")
            return
        try:
            parsed = CLIENT_TYPES[kind].model_validate(message)
        except pydantic.ValidationError as error:
            self._refuse(message, "invalid_value", f"{error.errors()[0]['loc']} {error.errors()[0]['msg']}")
            return
        if extra := unknown_fields(parsed):
            self._refuse(message, "unknown_parameter", f"Unknown parameter: {extra[0]}", extra[0])
            return
        if (kind == "session.start") is bool(self.session):
            self._refuse(message, "invalid_event", "session.start comes first, and once")
            return
        match kind:
            case "session.start":
                self._on_start(message)
            case "session.input_audio.append":
                self._on_audio(message)
            case "session.commentary.append" | "session.thinking.append" | "session.instructions.append":
                self._on_append(message, kind.split(".")[1])
            case "response.item.create":
                self._on_item(message)
            case "response.create":
                self._on_create(message)
            case "session.close":
                self.close("close_requested")
            case _:
                self._refuse(message, "unsupported", f"{kind} is nothing that this house needs")

    def _refuse(self, message: Message, code: str, text: str, param: str | None = None) -> None:
        self.violations.append(f"{message.get('type')}: {text}")
        self.error(code, text, param, message.get("event_id"))

    def error(self, code: str, text: str, param: str | None = None, cause: str | None = None) -> None:
        """Send an error."""
        error: Message = {"code": code, "message": text, "type": "invalid_request_error"}
        if param is not None:
            error["param"] = param
        if cause is not None:
            error["client_event_id"] = cause
        self.emit("error", error=error)

    def _on_start(self, message: Message) -> None:
        session = message["session"]
        audio = session.get("audio") or {}
        faults = self.faults
        if faults.never_configure:
            return
        if faults.start_error is not None:
            self._no_start(message, faults.start_error[0], faults.start_error[1])
            return
        voice = (audio.get("output") or {}).get("voice", "marin")
        delegation = session.get("delegation") or {"type": "client"}
        past = session.get("input") or []
        if len(past) > 128 or any(len(one["content"]) != 1 for one in past):
            self._no_start(message, "invalid_value", "session.input")
        elif session["model"] not in MODELS:
            self._no_start(message, "model_not_found", "session.model")
        elif voice not in VOICES:
            self._no_start(message, "invalid_value", "session.audio.output.voice")
        elif delegation["type"] == "responses" and delegation["responses"]["model"] not in BACKENDS:
            self._no_start(message, "model_not_found", "session.delegation.responses.model")
        else:
            asked = audio.get("format") or format_wire(FORMATS["pcm24"])
            same = [one for one in FORMATS.values() if format_wire(one) == asked]
            if not same:
                self._no_start(message, "invalid_value", "session.audio.format")
                return
            confirmed = faults.format or asked
            self.format = next((one for one in FORMATS.values() if format_wire(one) == confirmed), same[0])
            self.session = {
                **session,
                "audio": {"format": confirmed, "output": {"voice": voice}},
                "id": self.id("sess"),
                "expires_at": int(time.time() + faults.expires_in_s),
                "status": "active",
            }
            self.emit("session.started", session=self.session, client_event_id=message.get("event_id", ""))

    def _no_start(self, message: Message, code: str, param: str) -> None:
        self.error(code, f"{param} is not as it must be", param, message.get("event_id"))
        self.over = True

    def _on_audio(self, message: Message) -> None:
        try:
            audio = base64.b64decode(message["audio"], validate=True)
        except binascii.Error:
            self._refuse(message, "invalid_value", "no base64")
            return
        if not audio or len(audio) % self.format.sample_bytes:
            self._refuse(message, "invalid_value", f"{len(audio)} bytes are no whole samples")
            return
        pcm = self.format.decode(audio)
        magnitude = np.abs(np.frombuffer(pcm, "<i2").astype(np.int64))
        self._loudness += int(magnitude.sum())
        self._samples += len(magnitude)
        if self._samples > self.format.rate and self._loudness > TOO_LOUD * self._samples:
            self._refuse(message, "invalid_value", "this is in another format")
            return
        self.hear(pcm)

    def hear(self, pcm: bytes) -> None:
        """The caller's audio, as PCM."""
        self.caller += pcm
        magnitude = np.abs(np.frombuffer(pcm, "<i2").astype(np.int64))
        window = self.format.rate * HEARD_MS // 1000
        for at in range(0, len(magnitude), window):
            heard = magnitude[at : at + window]
            self._hear(len(heard) * 1000 // self.format.rate, float(heard.mean()) > LOUD)

    def _hear(self, ms: int, loud: bool) -> None:
        if loud:
            self._heard_ms += ms
            self._quiet_ms = 0
            if self._heard_ms >= YIELD_MS and self._left_ms > 0 and not self.faults.talks_over:
                self.fall_silent()
            return
        self._quiet_ms += ms
        if self._heard_ms >= YIELD_MS and self._quiet_ms >= QUIET_MS:
            self._heard_ms = 0
            self.transcribe(self.said.popleft() if self.said else "Boa tarde.")
            self.begin()
        elif self._quiet_ms >= QUIET_MS:
            self._heard_ms = 0

    def fall_silent(self) -> None:
        """Let the caller speak."""
        self._left_ms = self._pause_ms = 0
        self._items.clear()
        self._words.clear()
        self.yielded += 1

    def transcribe(self, text: str) -> None:
        """What the caller said, in pieces."""
        head, blank, tail = text.rpartition(" ")
        for piece in (head + blank, tail):
            if piece:
                self._transcript("input", piece)

    def _transcript(self, side: str, text: str, start_ms: int | None = None) -> None:
        start = self.position_ms if start_ms is None else start_ms
        self.emit(f"session.{side}_transcript.delta", delta=text, start_ms=start, end_ms=start + CHUNK_MS)

    def _on_append(self, message: Message, channel: str) -> None:
        if "delegation_id" not in message:
            self._refuse(message, "missing_required_parameter", "delegation_id", "delegation_id")
            return
        if message["delegation_id"] is not None:
            self._refuse(message, "invalid_value", "no delegation_id with Responses delegation")
            return
        if not message["content"] or len(message["content"]) > MAX_CONTENT:
            self._refuse(message, "invalid_value", f"content of {len(message['content'])} characters")
            return
        if channel == "commentary":
            if self.faults.never_accepts:
                return
            if self.faults.refuses_commentary:
                self.error("server_busy", "not now", None, message.get("event_id"))
                return
            self.commentary.append(message["content"])
        else:
            self.thinking.append(message["content"])
        place = {"start_ms": self.position_ms, "end_ms": self.position_ms}
        self.emit(f"session.{channel}.appended", **place, client_event_id=message.get("event_id", ""))
        if channel == "commentary" and not self.faults.mute:
            self.begin(message["content"])

    def _on_item(self, message: Message) -> None:
        item = message["item"]
        if (self.session.get("delegation") or {}).get("type") != "responses":
            self._refuse(message, "invalid_event", "response.item.create requires Responses delegation.")
            return
        if item.get("type") != "function_call_output":
            self._refuse(message, "invalid_value", f"an item of type {item.get('type')!r}")
            return
        call = item["call_id"]
        for waiting in self._waiting:
            if call in waiting.calls:
                waiting.calls.discard(call)
                self.answers[call] = json.loads(item["output"])
                return
        why = "was cancelled" if call in self.cancelled else "is not open"
        self._refuse(message, "invalid_value", f"{call} {why}")

    def _on_create(self, message: Message) -> None:
        if any(waiting.calls for waiting in self._waiting):
            self._refuse(message, "function_call_outputs_required", "calls are not answered")
            return
        if not self._waiting:
            self._refuse(message, "invalid_event", "no response waits")
            return
        for waiting in self._waiting:
            self._response(waiting.key, (), "completed")
        self._waiting.clear()
        self.begin()

    # -- what the model does

    def begin(self, asked: str = "") -> None:
        """The next reply; without one, the exact words that were asked for, as fast as people speak."""
        if self.replies:
            self._items.extend(self.replies.popleft().items)
        elif (exact := _EXACT.search(asked)) is not None:
            self._items.append(Say(MS_PER_LETTER * len(exact[1]), exact[1]))
        else:
            self._items.append(Say())

    def close(self, reason: str) -> None:
        """The session is over."""
        self.over = True
        if self.faults.no_goodbye:
            return
        usage = {"seconds": self.position_ms / 1000}
        self.emit("session.closed", reason=reason, session=self.session, usage=usage)

    def cancel(self) -> None:
        """The delegated model gives up what it waits for."""
        for waiting in self._waiting:
            self.cancelled |= waiting.calls
            self._nested(waiting.key, {"type": "response.cancelled", "response": {"id": "resp_x"}})
        self._waiting.clear()

    def delegate(self, item: Delegate) -> None:
        """The voice hands a task to the delegated model."""
        key = self.id("delegation") if item.named else None
        delegation = {"id": key or self.id("delegation"), "type": "delegation", "target": "responses"}
        self.emit("session.delegation.created", delegation=delegation, offset_ms=self.position_ms)
        self._response(key, item.calls, item.status)
        completed = {call.call_id for call in item.calls if call.status == "completed"}
        if item.status == "completed" and completed:
            self._waiting.append(_Waiting(key, completed))
        elif item.status == "completed":
            self.begin()

    def _nested(self, key: str | None, event: Message) -> None:
        fields: Message = {} if key is None else {"delegation_id": key}
        self.emit("response.event", event=event, **fields)

    def _response(self, key: str | None, calls: tuple[Call, ...], status: str) -> None:
        name = self.id("resp")
        self._nested(key, {"type": "response.created", "response": {"id": name, "status": "in_progress"}})
        self._nested(key, {"type": "response.in_progress", "response": {"id": name}})
        for call in calls:
            item = {
                "type": "function_call",
                "id": self.id("fc"),
                "call_id": call.call_id,
                "name": call.name,
                "arguments": call.arguments,
                "status": call.status,
            }
            for _ in range(call.times):
                self._nested(key, {"type": "response.output_item.done", "item": item, "output_index": 0})
        if status != "silent":
            usage = {"input_tokens": 420, "output_tokens": 30, "total_tokens": 450}
            response = {"id": name, "status": status, "usage": usage, "output": []}
            self._nested(key, {"type": f"response.{status}", "response": response})

    def step(self) -> bool:
        """A tenth of a second of the stream; False: none comes."""
        if not self.session or self.over:
            return False
        speaking = self._left_ms > 0
        if not speaking and self._pause_ms <= 0 and self._items:
            item = self._items.popleft()
            if isinstance(item, Delegate):
                self.delegate(item)
                return True
            self._left_ms, self._pause_ms = item.ms, item.pause_ms
            speaking = item.ms > 0
            self._speak_words(item)
        if speaking:
            self._left_ms -= CHUNK_MS
        elif self._pause_ms > 0:
            self._pause_ms -= CHUNK_MS
        while self._words and self._words[0][0] <= self.position_ms:
            _, spoken, text = self._words.popleft()
            self._transcript("output", text, spoken)
        self.position_ms += CHUNK_MS
        if speaking or not self.faults.only_speech:
            self._chunk(speaking)
        if self.position_ms % 15_000 == 0:
            self.emit("session.usage.updated", usage={"seconds": self.position_ms / 1000})
        return True

    def _speak_words(self, say: Say) -> None:
        """Each word comes with its sound, or later."""
        words = re.findall(r"\S+\s*", say.text)
        for number, word in enumerate(words):
            at = self.position_ms + number * say.ms // len(words)
            self._words.append((at + say.lag_ms, at, word))

    def _chunk(self, speaking: bool) -> None:
        message = self._chunks.get(speaking)
        if message is None:
            count = self.format.rate * CHUNK_MS // 1000
            tone = np.where(np.arange(count) // 20 % 2, LEVEL, -LEVEL) if speaking else np.zeros(count)
            audio = self.format.encode(tone.astype("<i2").tobytes())
            if self.faults.odd_audio:
                audio = audio[:-1]
            self.emit("session.output_audio.delta", delta=base64.b64encode(audio).decode())
            self._chunks[speaking] = self.out[-1]
        else:
            self.out.append(message)


# -- the socket ----------------------------------------------------------------------------------------------


class Simulator(Serving[Model]):
    """``async with Simulator(...) as server``: serves at ``server.url``; one :class:`Model` a connection.

    ``make``: makes another kind of model for each connection.
    """

    def __init__(
        self,
        *replies: Reply,
        faults: Faults | None = None,
        make: Callable[[deque[Reply], Faults], Model] = Model,
    ) -> None:
        super().__init__("/v1")
        self._replies = deque(replies)
        self.make = make
        self.faults = faults or Faults()

    async def _greet(self, connection: ServerConnection, request: Request) -> Response | None:
        self.requests.append(request)
        await self._pause(self.faults.accept_delay_s)
        refuse = self.faults.refuse
        if refuse is None and request.path != PATH:
            refuse = (404, b"")
        if refuse is None and request.headers.get("Authorization") != f"Bearer {KEY}":
            refuse = (401, b'{"error":{"code":"invalid_api_key"}}')
        if refuse is None:
            return None
        status, body = refuse
        headers = Headers({"Content-Length": str(len(body)), "Connection": "close"})
        return Response(status, http.HTTPStatus(status).phrase, headers, body)

    async def _serve(self, socket: ServerConnection) -> None:
        model = self.make(self._replies, self.faults)
        self.models.append(model)
        self.open_connections += 1
        speaker = asyncio.create_task(self._speak(socket, model), name="simulator-speaker")
        try:
            async for frame in socket:
                assert isinstance(frame, str), "the vendor takes text frames"
                model.receive(json.loads(frame))
                self._news.set()
                if self.faults.deaf and model.session:
                    await self._pause(3600)
        except ConnectionClosed:
            model.received.append({"type": "(connection lost)"})
        finally:
            self.open_connections -= 1
            self._news.set()
            speaker.cancel()
            await asyncio.wait({speaker})

    async def _speak(self, socket: ServerConnection, model: Model) -> None:
        sent = 0
        with contextlib.suppress(ConnectionClosed):
            while True:
                while model.out:
                    if sent == self.faults.cut_after:
                        await self._cut(socket, model.out[0])
                    await socket.send(json.dumps(model.out.popleft()))
                    sent += 1
                if model.over and not self.faults.no_goodbye:
                    await socket.close(1000)
                    return
                await asyncio.sleep(self.faults.pace_s)
                model.step()
                self._news.set()

    async def _cut(self, socket: ServerConnection, message: Message) -> None:
        """The end that the script wants, in the middle of things."""
        match self.faults.cut:
            case "close":
                await socket.close(1011, "keepalive ping timeout")
            case "abort":
                socket.transport.abort()
            case "half":
                frame = json.dumps(message)
                await socket.send(frame[: len(frame) // 2])
            case "garbage":
                await socket.send(json.dumps({"type": "session.output_transcript.delta", "delta": 7}))
            case "stall":
                await self._pause(3600)
