"""A scripted server of OpenAI's Realtime protocol, as strict as the vendor's, that misbehaves on command.

:class:`Model` is the protocol without a socket; :class:`Simulator` puts it behind a loopback WebSocket. Every
message in either direction is checked against the openai SDK's own types, fields that they don't have
included. What the vendor would refuse is answered with the vendor's error and kept in ``Model.violations``.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import http
import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, get_args
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pydantic
from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent
from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from providers.formats import PCM24, AudioFormat, UnknownFormat, format_of
from tests.simulators.serving import Serving

Message = dict[str, Any]

BYTES_PER_MS = 48
"""Of PCM at 24 kHz, the format that is spoken unless another was asked for."""
MIN_COMMIT_MS = 100
TOO_LOUD = 4000
"""Mean magnitude over a second and more. Of our recordings none has more than 2800; read as PCM where they
were written in G.711, or the other way round, none has less than 4700."""


def _by_type(union: Any) -> dict[str, type[pydantic.BaseModel]]:
    """The SDK's union (``Annotated[Union[...], ...]``) as type name → class."""
    return {get_args(c.model_fields["type"].annotation)[0]: c for c in get_args(get_args(union)[0])}


CLIENT_TYPES = _by_type(RealtimeClientEvent)
SERVER_TYPES = _by_type(RealtimeServerEvent)


def unknown_fields(value: object, path: str = "") -> list[str]:
    """Fields that the SDK's types don't have; its models would let them pass."""
    if isinstance(value, pydantic.BaseModel):
        found = [f"{path}{name}" for name in value.model_extra or {}]
        for name in type(value).model_fields:
            found += unknown_fields(getattr(value, name), f"{path}{name}.")
        return found
    if isinstance(value, list):
        return [f for i, v in enumerate(value) for f in unknown_fields(v, f"{path}{i}.")]
    return []


def check(types: dict[str, type[pydantic.BaseModel]], message: Message) -> str | None:
    """What is wrong with a message by the SDK's types, or None."""
    model = types.get(message.get("type", ""))
    if model is None:
        return f"unknown type {message.get('type')!r}"
    try:
        parsed = model.model_validate(message)
    except pydantic.ValidationError as exc:
        return f"{message['type']}: {exc.errors()[0]['loc']} {exc.errors()[0]['msg']}"
    extra = unknown_fields(parsed)
    return f"{message['type']}: unknown parameter {extra[0]}" if extra else None


# -- the script ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Say:
    """An assistant's message of ``ms`` of audio, sent in pieces of ``piece_ms``."""

    ms: int = 200
    text: str = "Pois não?"
    piece_ms: int = 50


@dataclass(frozen=True)
class Call:
    """A function call. ``times``: how often its completion is announced."""

    name: str = "lookup_apartment"
    arguments: str = '{"apartment":"501"}'
    call_id: str = ""
    status: Literal["completed", "incomplete"] = "completed"
    times: int = 1


@dataclass(frozen=True)
class Reply:
    """What one response consists of, and how it ends."""

    items: tuple[Say | Call, ...] = (Say(),)
    status: Literal["completed", "incomplete", "failed"] = "completed"
    error: str = ""


@dataclass
class Faults:
    """How the server misbehaves. ``cut`` comes after ``cut_after`` server events of a connection."""

    refuse: tuple[int, bytes] | None = None
    accept_delay_s: float = 0.0
    never_configure: bool = False
    configure_error: str = ""
    configure_words: str = "as the test wants it"
    voices: frozenset[str] | None = None
    """The voices that are known; None: any."""
    formats: dict[str, Message | None] = field(default_factory=dict)
    """``input`` / ``output``: what is confirmed in the place of what was asked; None leaves it out."""
    cut_after: int | None = None
    cut: Literal["close", "abort", "half", "garbage", "stall"] = "abort"
    deaf: bool = False
    """Stops reading once it is configured."""
    late_deltas: int = 0
    """Audio deltas sent after a cancelled response's done."""
    ignore_metadata: bool = False
    busy_creates: int = 0
    """This many creates are refused as busy while a response that nobody asked for runs."""
    refuse_commits: bool = False
    """Commits find nothing in the buffer."""
    pace_s: float = 0.0
    """Between two events of a response."""


# -- the protocol, without a socket --------------------------------------------------------------------------


@dataclass
class _Sent:
    """An assistant's item as the server knows it."""

    response: str
    ms: float = 0.0


@dataclass
class _Active:
    id: str
    metadata: dict[str, str] | None
    reply: Reply
    events: Iterator[Message]
    item: str | None = None
    began: list[Message] = field(default_factory=list)


USAGE: Message = {
    "total_tokens": 30,
    "input_tokens": 10,
    "output_tokens": 20,
    "input_token_details": {
        "text_tokens": 4,
        "audio_tokens": 6,
        "cached_tokens": 5,
        "cached_tokens_details": {"text_tokens": 3, "audio_tokens": 2},
    },
    "output_token_details": {"text_tokens": 5, "audio_tokens": 15},
}
"""What each response costs here."""


class Model:
    """Takes client messages in, gives server events out by ``out``; :meth:`step` goes on with a response."""

    def __init__(self, replies: list[Reply] | None = None, faults: Faults | None = None) -> None:
        self.replies = deque(replies or [])
        self.faults = faults or Faults()
        self.out: deque[Message] = deque()
        self.received: list[Message] = []
        self.violations: list[str] = []
        self.session: Message = {}
        self.items: dict[str, _Sent] = {}
        self.usage: Message | None = USAGE
        self.transcription_usage: Message | None = {"type": "duration", "seconds": 1.0}
        self.deleted: list[str] = []
        self.truncated: dict[str, int] = {}
        self.calls: dict[str, str] = {}
        """Open calls: call → the response that made it."""
        self.answers: dict[str, str] = {}
        self.creates: list[Message] = []
        self.audio = 0
        """Bytes of the caller's audio that came."""
        self._loudness = self._samples = 0
        self.caller = b""
        """The same as PCM at its format's rate."""
        self.model = "gpt-realtime-2.1"
        """Which one was asked for."""
        self.buffer = b""
        """What was appended since the last commit or clear, as PCM; where the client detects the turns."""
        self.turns: dict[str, bytes] = {}
        """Turns that the client committed."""
        self.responses_done: list[str] = []
        self._active: _Active | None = None
        self._counts: dict[str, int] = {}
        self._busy_left = self.faults.busy_creates
        self._late: list[Message] = []
        self.emit(type="session.created", session={"type": "realtime"})

    def id(self, kind: str) -> str:
        """A new name."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        return f"{kind}_{self._counts[kind]}"

    def emit(self, **event: Any) -> None:
        """Send an event; one that the SDK's types don't allow is this simulator's own fault."""
        event = {"event_id": self.id("event"), **event}
        problem = check(SERVER_TYPES, event)
        assert problem is None, problem
        self.out.append(event)

    @property
    def active(self) -> str | None:
        """The running response."""
        return self._active.id if self._active else None

    # -- what a caller does

    def caller_starts(self) -> str:
        """Speech begins."""
        item = self.id("user")
        self.emit(type="input_audio_buffer.speech_started", audio_start_ms=0, item_id=item)
        return item

    def caller_ends(self, item: str, text: str | None = "Boa tarde.") -> None:
        """The turn ends; ``text`` None: the transcription fails."""
        self.caller_stops(item)
        self._transcribed(item, text)

    def caller_stops(self, item: str) -> None:
        """The turn ends; what was said is not known yet."""
        self.emit(type="input_audio_buffer.speech_stopped", audio_end_ms=1000, item_id=item)
        self._commit(item)

    def _commit(self, item: str) -> None:
        self.emit(type="input_audio_buffer.committed", item_id=item, previous_item_id=None)
        message = {"id": item, "type": "message", "role": "user", "content": [{"type": "input_audio"}]}
        self.emit(type="conversation.item.added", item=message)

    def _transcribed(self, item: str, text: str | None) -> None:
        """What was said in a turn; None: nobody knows."""
        kind = "conversation.item.input_audio_transcription."
        if text is None:
            error = {"code": "audio_unintelligible", "message": "nothing understood"}
            self.emit(type=kind + "failed", item_id=item, content_index=0, error=error)
            return
        self.emit(type=kind + "delta", item_id=item, content_index=0, delta=text)
        usage = self.transcription_usage
        self.emit(type=kind + "completed", item_id=item, content_index=0, transcript=text, usage=usage)

    def phantom(self) -> str:
        """The server hears speech where there was none, and cuts its own reply off."""
        item = self.caller_starts()
        if self._active is not None:
            self._finish("cancelled", {"type": "cancelled", "reason": "turn_detected"})
        return item

    # -- what a client sends

    def receive(self, message: Message) -> None:
        """One message of the client."""
        self.received.append(message)
        problem = check(CLIENT_TYPES, message)
        if problem is not None:
            self.refuse(message, "unknown_parameter", problem)
            return
        getattr(self, "_on_" + message["type"].replace(".", "_"))(message)

    def refuse(
        self, message: Message, code: str, why: str, violation: bool = True, param: str | None = None
    ) -> None:
        """The vendor's way of refusing."""
        if violation:
            self.violations.append(f"{message['type']}: {why}")
        error = {"type": "invalid_request_error", "code": code, "message": why}
        self.emit(type="error", error=error | {"event_id": message.get("event_id"), "param": param})

    def _on_session_update(self, message: Message) -> None:
        if self.faults.never_configure:
            return
        if self.faults.configure_error:
            self.refuse(message, self.faults.configure_error, self.faults.configure_words, violation=False)
            return
        session = json.loads(json.dumps(message["session"]))
        if session.get("parallel_tool_calls") is not None and not self.model.startswith("gpt-realtime-2"):
            why = f"parallel_tool_calls is not supported with {self.model}"
            self.refuse(message, "unsupported_parameter", why, param="session.parallel_tool_calls")
            return
        old = (self.session.get("audio") or {}).get("output", {}).get("voice")
        if self.items and old != session["audio"]["output"].get("voice"):
            self.refuse(message, "cannot_update_voice", "the voice is frozen after the first audio")
            return
        voice = session["audio"]["output"].get("voice")
        if self.faults.voices is not None and voice not in self.faults.voices:
            known = ", ".join(sorted(self.faults.voices))
            why = f"Invalid value: {voice!r}. Supported values are: {known}"
            self.refuse(message, "invalid_value", why, violation=False, param="session.audio.output.voice")
            return
        for side, confirmed in self.faults.formats.items():
            del session["audio"][side]["format"]
            if confirmed is not None:
                session["audio"][side]["format"] = confirmed
        self.session = session
        self.emit(type="session.updated", session=session)

    def _on_input_audio_buffer_append(self, message: Message) -> None:
        try:
            audio = base64.b64decode(message["audio"], validate=True)
        except binascii.Error:
            self.refuse(message, "invalid_value", "audio is not base64")
            return
        form = self.format("input")
        if not audio or len(audio) % form.sample_bytes:
            self.refuse(message, "invalid_value", f"{len(audio)} bytes are no whole samples")
            return
        self.audio += len(audio)
        pcm = form.decode(audio)
        self._loudness += int(np.abs(np.frombuffer(pcm, "<i2").astype(np.int64)).sum())
        self._samples += len(pcm) // 2
        if self._samples >= form.rate and self._loudness > TOO_LOUD * self._samples:
            self.refuse(message, "invalid_value", f"this is no {form.wire['type']}")
            return
        if self.manual:
            self.buffer += pcm
        self.hear(pcm, form.rate)

    @property
    def manual(self) -> bool:
        """The client says where a turn ends."""
        return self._detection(self.session) is None

    @staticmethod
    def _detection(session: Message) -> Message | None:
        """How turns are detected here."""
        usual: Message = {"type": "server_vad"}
        found: Message | None = ((session.get("audio") or {}).get("input") or {}).get("turn_detection", usual)
        return found

    def _on_input_audio_buffer_clear(self, message: Message) -> None:
        self.buffer = b""
        self.emit(type="input_audio_buffer.cleared")

    def _on_input_audio_buffer_commit(self, message: Message) -> None:
        held_ms = len(self.buffer) // (self.format("input").rate * 2 // 1000)
        if not self.manual or held_ms < MIN_COMMIT_MS or self.faults.refuse_commits:
            why = f"buffer too small. Expected at least 100ms of audio, but buffer only has {held_ms}ms"
            violation = not self.faults.refuse_commits
            self.refuse(message, "input_audio_buffer_commit_empty", why, violation)
            return
        item = self.id("user")
        self.turns[item], self.buffer = self.buffer, b""
        self._commit(item)
        self.transcribe(item)

    def transcribe(self, item: str) -> None:
        """Say what was said in a turn that the client committed."""
        self._transcribed(item, "Boa tarde.")

    def hear(self, pcm: bytes, rate: int) -> None:
        """The caller's audio, as PCM."""
        self.caller += pcm

    def format(self, side: str) -> AudioFormat:
        """What audio of one side is spoken in: what was confirmed, or else the protocol's usual one."""
        try:
            return format_of(((self.session.get("audio") or {}).get(side) or {}).get("format") or {})
        except UnknownFormat:
            return PCM24

    def _on_conversation_item_create(self, message: Message) -> None:
        item = message["item"]
        if item["type"] == "function_call":
            self.calls[item["call_id"]] = ""  # of another session
        if item["type"] == "function_call_output":
            call = item["call_id"]
            if call in self.answers:
                self.refuse(message, "invalid_tool_call_id", f"{call} was answered before")
                return
            if call not in self.calls:
                self.refuse(message, "invalid_tool_call_id", f"{call} is unknown")
                return
            if self.active == self.calls[call]:
                self.violations.append(f"{call} answered before its response was done")
            self.answers[call] = item["output"]
        self.emit(type="conversation.item.added", item={"id": self.id("item"), **item})

    def _on_conversation_item_truncate(self, message: Message) -> None:
        name, end = message["item_id"], message["audio_end_ms"]
        item = self.items.get(name)
        if item is None or message["content_index"] != 0:
            self.refuse(message, "item_truncate_invalid_item_id", f"{name} can't be truncated")
        elif not 0 < end <= item.ms:
            self.refuse(message, "invalid_value", f"{end} ms of {item.ms} ms in {name}")
        elif name in self.truncated:
            self.refuse(message, "item_already_truncated", f"{name} is truncated")
        else:
            self.truncated[name] = end
            event = {"item_id": name, "content_index": 0, "audio_end_ms": end}
            self.emit(type="conversation.item.truncated", **event)

    def _on_conversation_item_delete(self, message: Message) -> None:
        name = message["item_id"]
        if name not in self.items or name in self.deleted:
            self.refuse(message, "item_delete_invalid_item_id", f"{name} does not exist")
            return
        self.deleted.append(name)
        self.emit(type="conversation.item.deleted", item_id=name)

    def _on_response_create(self, message: Message) -> None:
        if self._active is None and self._busy_left:
            self._busy_left -= 1
            self.start(None)
        elif self._active is not None:
            self.violations.append("response.create while a response runs")
        if self._active is not None:
            code = "conversation_already_has_active_response"
            self.refuse(message, code, f"active: {self.active}", violation=False)
            return
        self.creates.append(message)
        self.start((message.get("response") or {}).get("metadata"))

    def _on_response_cancel(self, message: Message) -> None:
        active = self._active
        if active is None or message.get("response_id") not in (None, active.id):
            self.refuse(message, "response_cancel_not_active", "nothing to cancel", violation=False)
            return
        if active.item is not None:
            name = active.item
            self.emit(type="response.output_audio.done", **self._at(active.id, name))
            self._late = [self._delta(active.id, name, 20) for _ in range(self.faults.late_deltas)]
        self._finish("cancelled", {"type": "cancelled", "reason": "client_cancelled"})

    # -- responses

    def start(self, metadata: dict[str, str] | None) -> None:
        """Begin a response: asked for, or (as a server VAD would) by itself."""
        reply = self.replies.popleft() if self.replies else Reply()
        name = self.id("resp")
        if self.faults.ignore_metadata:
            metadata = None
        self._active = _Active(name, metadata, reply, self._generate(name, reply))
        response = {"id": name, "object": "realtime.response", "status": "in_progress", "output": []}
        self.emit(type="response.created", response=response | {"metadata": metadata})

    def step(self) -> bool:
        """Go on with the running response by one event; False: none runs."""
        if self._late:
            self.emit(**self._late.pop())
            return True
        active = self._active
        if active is None:
            return False
        event = next(active.events, None)
        if event is not None:
            self.emit(**event)
            return True
        reply = active.reply
        details: Message = {"type": reply.status}
        if reply.status == "incomplete":
            details["reason"] = "max_output_tokens"
        elif reply.status == "failed":
            details["error"] = {"type": "server_error", "code": reply.error or "server_error"}
        self._finish(reply.status, details)
        return True

    def _finish(self, status: str, details: Message) -> None:
        active = self._active
        assert active is not None
        self._active = None
        self.responses_done.append(active.id)
        response: Message = {"id": active.id, "object": "realtime.response", "status": status}
        response["usage"] = self.usage
        response |= {"status_details": details, "output": [], "metadata": active.metadata}
        self.emit(type="response.done", response=response)

    def _generate(self, response: str, reply: Reply) -> Iterator[Message]:
        for item in reply.items:
            if isinstance(item, Call):
                yield from self._call(response, item)
            else:
                yield from self._say(response, item)

    def _call(self, response: str, call: Call) -> Iterator[Message]:
        call_id = call.call_id or self.id("call")
        item = {"id": self.id("fc"), "type": "function_call", "name": call.name, "call_id": call_id}
        added = item | {"arguments": "", "status": "in_progress"}
        where: Message = {"response_id": response, "output_index": 0}
        yield {"type": "response.output_item.added", "item": added, **where}
        done = {"item_id": item["id"], "call_id": call_id, "arguments": call.arguments, "name": call.name}
        yield {"type": "response.function_call_arguments.done", **done, **where}
        for _ in range(call.times):
            if call.status == "completed":
                self.calls[call_id] = response
            item |= {"arguments": call.arguments, "status": call.status}
            yield {"type": "response.output_item.done", "item": dict(item), **where}

    def _say(self, response: str, say: Say) -> Iterator[Message]:
        name = self.id("say")
        yield self._say_begins(response, name)
        at = self._at(response, name)
        yield {"type": "response.output_audio_transcript.delta", "delta": say.text, **at}
        left = say.ms
        while left > 0:
            piece = min(left, say.piece_ms)
            yield self._delta(response, name, piece)
            left -= piece
        yield from self._say_ends(response, name, say.text)

    def _say_begins(self, response: str, name: str) -> Message:
        """An assistant's item begins, and is what the response is at."""
        assert self._active is not None
        self._active.item = name
        self.items[name] = _Sent(response)
        return {"type": "response.output_item.added", **self._message(response, name, "in_progress")}

    def _say_ends(self, response: str, name: str, text: str) -> Iterator[Message]:
        at = self._at(response, name)
        yield {"type": "response.output_audio.done", **at}
        yield {"type": "response.output_audio_transcript.done", "transcript": text, **at}
        assert self._active is not None
        self._active.item = None
        yield {"type": "response.output_item.done", **self._message(response, name, "completed")}

    def _message(self, response: str, name: str, status: str) -> Message:
        item = {"id": name, "type": "message", "role": "assistant", "content": [], "status": status}
        return {"item": item, "response_id": response, "output_index": 0}

    def _at(self, response: str, item: str) -> Message:
        return {"response_id": response, "item_id": item, "output_index": 0, "content_index": 0}

    def _delta(self, response: str, item: str, ms: int) -> Message:
        return self._piece(response, item, ms, self.level(16, ms))

    def _piece(self, response: str, item: str, ms: float, sound: bytes) -> Message:
        self.items[item].ms += ms
        audio = base64.b64encode(sound).decode()
        return {"type": "response.output_audio.delta", "delta": audio, **self._at(response, item)}

    def level(self, level: int, ms: int) -> bytes:
        """``ms`` of a constant, in the format of the model's audio."""
        form = self.format("output")
        return form.encode(np.full(ms * form.rate // 1000, level, "<i2").tobytes())


# -- the socket ----------------------------------------------------------------------------------------------


class Simulator(Serving[Model]):
    """``async with Simulator(...) as server``: serves at ``server.url``; one :class:`Model` a connection.

    ``make``: makes another kind of model for each connection.
    """

    def __init__(
        self,
        *replies: Reply,
        faults: Faults | None = None,
        make: Callable[[list[Reply], Faults], Model] = Model,
    ) -> None:
        super().__init__("/v1")
        self._replies = list(replies)
        self.make = make
        self.faults = faults or Faults()
        self._sockets: dict[int, ServerConnection] = {}

    async def end(self, model: Model, code: int | None) -> None:
        """End a model's connection in the middle of things, with a close code or (1006) with none."""
        socket = self._sockets[id(model)]
        if code is None:
            socket.transport.abort()
        else:
            await socket.close(code, "as the test wants it")

    async def _greet(self, connection: ServerConnection, request: Request) -> Response | None:
        self.requests.append(request)
        await self._pause(self.faults.accept_delay_s)
        if self.faults.refuse is None:
            return None
        status, body = self.faults.refuse
        headers = Headers({"Content-Length": str(len(body)), "Connection": "close"})
        return Response(status, http.HTTPStatus(status).phrase, headers, body)

    async def _serve(self, socket: ServerConnection) -> None:
        model = self.make(self._replies, self.faults)
        request = socket.request
        assert request is not None
        model.model = parse_qs(urlsplit(request.path).query).get("model", [""])[0]
        self.models.append(model)
        self._sockets[id(model)] = socket
        wake = self._wake[id(model)] = asyncio.Event()
        self.open_connections += 1
        speaker = asyncio.create_task(self._speak(socket, model, wake), name="simulator-speaker")
        try:
            async for frame in socket:
                assert isinstance(frame, str), "the vendor takes text frames"
                model.receive(json.loads(frame))
                wake.set()
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

    async def _speak(self, socket: ServerConnection, model: Model, wake: asyncio.Event) -> None:
        sent = 0
        try:
            while True:
                while model.out:
                    if sent == self.faults.cut_after:
                        await self._cut(socket, model.out[0])
                    await socket.send(json.dumps(model.out.popleft()))
                    sent += 1
                await asyncio.sleep(self.faults.pace_s)
                if not model.step() and not model.out:
                    wake.clear()
                    await wake.wait()
        except ConnectionClosed:
            return

    async def _cut(self, socket: ServerConnection, event: Message) -> None:
        """The end that the script wants, in the middle of things."""
        match self.faults.cut:
            case "close":
                await socket.close(1011, "keepalive ping timeout")
            case "abort":
                socket.transport.abort()
            case "half":
                frame = json.dumps(event)
                await socket.send(frame[: len(frame) // 2])
            case "garbage":
                await socket.send(json.dumps({"type": "response.created", "response": 7}))
            case "stall":
                await self._pause(3600)
