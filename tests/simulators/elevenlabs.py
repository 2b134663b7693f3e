"""A scripted server of ElevenLabs Agents, as strict as the vendor's contract, that misbehaves on command.

:class:`Model` is the socket's protocol without a socket; :class:`Simulator` puts it, and the request for a
signed address, behind a loopback port. Every message in either direction is checked against the contract of
the socket (``@elevenlabs/types`` 0.23) or, where it has them, the Python SDK's types. What the vendor would
refuse closes the connection, and is kept in ``Model.violations``.
"""

from __future__ import annotations

import asyncio
import base64
import http
import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, get_args
from urllib.parse import parse_qs, urlsplit

import numpy as np
from elevenlabs.types import ConversationInitiationClientDataRequestInput, TtsOutputFormat
from pydantic import BaseModel
from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from audio.g711 import ulaw_decode, ulaw_encode
from tests.simulators.serving import Serving

Message = dict[str, Any]

KEY = "xi-test"
AGENT = "agent_porteiro"
VOICES = frozenset({"voice_bia"})
LANGUAGES = frozenset({"pt-br", "en"})
SIGN = "/v1/convai/conversation/get-signed-url"
TALK = "/v1/convai/conversation"
LOUD = 400
"""Mean magnitude from which our VAD calls it speech."""
SPEECH_MS, QUIET_MS = 200, 600
"""So much of it is somebody speaking; so much quiet ends a turn."""
TOO_LOUD = 12_000
"""Mean magnitude of more than a second that no speech of ours has: it is in another format."""

OPTIONAL = "?"
CLIENT: dict[str, Message] = {
    "pong": {"event_id": int},
    "user_message": {"text": str},
    "user_activity": {},
    "contextual_update": {"text": str, "context_id?": str},
    "client_tool_result": {"tool_call_id": str, "result": str, "is_error": bool},
}
"""What a client may send, beside its first message and audio."""
SERVER: dict[str, Message] = {
    "audio": {"audio_event": {"audio_base_64": str, "event_id": int}},
    "user_transcript": {"user_transcription_event": {"user_transcript": str, "event_id": int}},
    "agent_response": {"agent_response_event": {"agent_response": str, "event_id": int}},
    "agent_response_correction": {
        "agent_response_correction_event": {
            "original_agent_response": str,
            "corrected_agent_response": str,
            "event_id": int,
        }
    },
    "agent_response_complete": {"agent_response_complete_event": {"event_id": int}},
    "interruption": {"interruption_event": {"event_id": int}},
    "conversation_initiation_metadata": {
        "conversation_initiation_metadata_event": {
            "conversation_id": str,
            "agent_output_audio_format": str,
            "user_input_audio_format": str,
        }
    },
    "client_tool_call": {
        "client_tool_call": {
            "tool_name": str,
            "tool_call_id": str,
            "parameters": dict,
            "event_id": int,
            "expects_response?": bool,
        }
    },
    "agent_tool_response": {
        "agent_tool_response": {
            "tool_name": str,
            "tool_call_id": str,
            "tool_type": str,
            "is_error": bool,
            "is_called": bool,
            "event_id": int,
        }
    },
    "vad_score": {"vad_score_event": {"vad_score": float}},
    "ping": {"ping_event": {"event_id": int, "ping_ms?": int}},
    "error": {"error_event": {"code": int, "message?": str, "error_type?": str, "reason?": str}},
}


def problem(shape: Any, value: Any, path: str) -> str | None:
    """What is wrong with a value by a shape of the tables above, or None."""
    if not isinstance(shape, dict):
        well = isinstance(value, shape) and not (shape is int and isinstance(value, bool))
        return None if well else f"{path}: {value!r} is no {shape.__name__}"
    if not isinstance(value, dict):
        return f"{path}: no object"
    names = {name.removesuffix(OPTIONAL): name for name in shape}
    for name in value:
        if name not in names:
            return f"unknown field {path}.{name}"
    for name, named in names.items():
        if name not in value:
            if named == name:
                return f"missing field {path}.{name}"
        elif found := problem(shape[named], value[name], f"{path}.{name}"):
            return found
    return None


def _unknown(parsed: BaseModel, path: str = "") -> str | None:
    """A field that the SDK's type has let pass and does not know."""
    for name in parsed.model_extra or {}:
        return f"unknown field {path}{name}"
    for name in type(parsed).model_fields:
        value = getattr(parsed, name)
        if isinstance(value, BaseModel) and (found := _unknown(value, f"{path}{name}.")):
            return found
    return None


class Refused(Exception):
    """The server closes the connection."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


# -- the script ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Say:
    """``ms`` of speech, sent in pieces of ``piece_ms``."""

    ms: int = 200
    text: str = "Pois não?"
    piece_ms: int = 50


@dataclass(frozen=True)
class Call:
    """A tool call. ``times``: how often it is made. Those side by side are waited for together."""

    name: str = "lookup_apartment"
    args: dict[str, Any] = field(default_factory=lambda: {"apartment": "501"})
    call_id: str = ""
    times: int = 1
    waits: bool = True


@dataclass(frozen=True)
class Reply:
    """What one response consists of, and how it ends. No items: the model says nothing."""

    items: tuple[Say | Call, ...] = (Say(),)
    endless: bool = False
    """What is said comes, and its end never does."""


@dataclass
class Faults:
    """How the server misbehaves. ``cut`` comes after ``cut_after`` messages of a connection."""

    refuse: tuple[int, bytes] | None = None
    """The request for an address."""
    signed_url: str | None = None
    """The address that is given instead."""
    accept_delay_s: float = 0.0
    never_configure: bool = False
    close_on_start: tuple[int, str] | None = None
    allowed: frozenset[str] = frozenset({"prompt", "first_message", "language", "voice_id"})
    """What the agent lets a call override."""
    input_format: str = "ulaw_8000"
    output_format: str = "ulaw_8000"
    completes: bool = True
    """Says when a response is complete."""
    text_last: bool = False
    """A response's text comes behind its sound."""
    corrects: float | None = 0.0
    """Of an interrupted response it remembers so much of the words; None: no correction comes."""
    yields_aloud: bool = True
    """Says that a text interrupted it."""
    echoes: bool = False
    """Returns texts as if they had been spoken."""
    deaf: bool = False
    """Stops reading once it has begun."""
    cut_after: int | None = None
    cut: Literal["close", "error", "flat_error", "abort", "half", "garbage", "stall"] = "abort"
    cut_with: tuple[int, str] = (1011, "Internal error.")
    pace_s: float = 0.0


# -- the protocol, without a socket --------------------------------------------------------------------------


@dataclass
class _Active:
    messages: Iterator[Message]
    reply: Reply
    text: str = ""
    """What it says now."""
    sent: bool = False
    """Some of that was heard, for all that the server knows."""
    waits: set[str] = field(default_factory=set)


class Model:
    """Takes client messages in, gives server messages by ``out``; :meth:`step` goes on with a response."""

    level = 16
    """Of every sample that is spoken."""

    def __init__(self, replies: deque[Reply] | None = None, faults: Faults | None = None) -> None:
        self.replies = replies if replies is not None else deque()
        self.faults = faults or Faults()
        self.out: deque[Message] = deque()
        self.received: list[Message] = []
        self.violations: list[str] = []
        self.started: Message = {}
        """The client's first message."""
        self.notes: list[str] = []
        self.texts: list[str] = []
        self.said: deque[str] = deque()
        """What the caller's next turns say; without it "Boa tarde."."""
        self.caller = b""
        """PCM of all that came."""
        self.speaking = False
        self.calls: dict[str, str] = {}
        """Open calls: id → name."""
        self.answers: dict[str, Message] = {}
        self.gone: set[str] = set()
        """Calls that are not waited for any more."""
        self.pings: set[int] = set()
        self.interruptions = 0
        self._active: _Active | None = None
        self._ids = 0
        self._loudness = self._samples = 0
        self._loud_ms = self._quiet_ms = 0.0

    def id(self) -> int:
        """A new event's number."""
        self._ids += 1
        return self._ids

    def emit(self, kind: str, **message: Any) -> None:
        """Send a message; one that the contract doesn't allow is this simulator's own fault."""
        found = problem(SERVER[kind], message, kind)
        assert found is None, found
        self.out.append({"type": kind, **message})

    @property
    def active(self) -> bool:
        """A response is running."""
        return self._active is not None

    # -- what a client sends

    def receive(self, message: Message) -> None:
        """One message of the client.

        Raises:
            Refused: the vendor would close the connection.
        """
        self.received.append(message)
        kind = message.get("type")
        if kind == "conversation_initiation_client_data":
            self._on_start(message)
        elif not self.started:
            raise self._no(f"{kind} before the conversation was initiated")
        elif set(message) == {"user_audio_chunk"}:
            self._on_audio(message["user_audio_chunk"])
        elif kind not in CLIENT:
            raise self._no(f"unknown message {kind!r}")
        else:
            values = {name: value for name, value in message.items() if name != "type"}
            if found := problem(CLIENT[kind], values, kind):
                raise self._no(found)
            getattr(self, f"_on_{kind}")(message)

    def _no(self, why: str, code: int = 1008, reason: str = "Invalid message received") -> Refused:
        self.violations.append(why)
        return Refused(code, reason)

    def _on_start(self, message: Message) -> None:
        if self.started:
            raise self._no("the conversation was initiated")
        values = {name: value for name, value in message.items() if name != "type"}
        parsed = ConversationInitiationClientDataRequestInput.model_validate(values)
        if found := _unknown(parsed):
            raise self._no(found)
        if self.faults.close_on_start is not None:
            raise Refused(*self.faults.close_on_start)
        override = values.get("conversation_config_override") or {}
        agent, tts = override.get("agent") or {}, override.get("tts") or {}
        for name in (*agent, *tts):
            if name not in self.faults.allowed:
                raise Refused(1008, f"Override for field '{name}' is not allowed by config.")
        if tts.get("voice_id", "voice_bia") not in VOICES:
            raise Refused(1008, f"A voice with voice_id {tts['voice_id']} was not found.")
        if agent.get("language", "en") not in LANGUAGES:
            raise Refused(1008, f"Language {agent['language']} is not supported by the agent")
        if self.faults.never_configure:
            return
        self.started = message
        allowed = get_args(get_args(TtsOutputFormat)[0])
        assert {self.faults.input_format, self.faults.output_format} <= set(allowed)
        self.emit(
            "conversation_initiation_metadata",
            conversation_initiation_metadata_event={
                "conversation_id": "conv_1",
                "agent_output_audio_format": self.faults.output_format,
                "user_input_audio_format": self.faults.input_format,
            },
        )
        if first := agent.get("first_message"):
            scripted = self.replies.popleft() if self.replies else Reply()
            items = tuple(Say(i.ms, first, i.piece_ms) if isinstance(i, Say) else i for i in scripted.items)
            self.start(Reply(items, scripted.endless))

    def _on_audio(self, chunk: Any) -> None:
        try:
            data = base64.b64decode(chunk, validate=True)
        except (TypeError, ValueError):
            raise self._no("audio that is no base64") from None
        ulaw = self.faults.input_format == "ulaw_8000"
        if not data or (not ulaw and len(data) % 2):
            raise self._no(f"{len(data)} bytes are no whole samples")
        pcm = ulaw_decode(data) if ulaw else data
        rate = int(self.faults.input_format.partition("_")[2])
        samples = np.frombuffer(pcm, "<i2").astype(np.int64)
        self._loudness += int(np.abs(samples).sum())
        self._samples += samples.size
        if self._samples >= rate and self._loudness > TOO_LOUD * self._samples:
            raise self._no(f"this is no {self.faults.input_format}")
        self.hear(pcm, rate)

    def hear(self, pcm: bytes, rate: int) -> None:
        """The caller's audio, as PCM."""
        self.caller += pcm
        samples = np.frombuffer(pcm, "<i2").astype(np.int64)
        for at in range(0, samples.size, rate // 50):
            frame = samples[at : at + rate // 50]
            self._listen(float(np.abs(frame).mean()), frame.size * 1000 / rate)

    def _listen(self, level: float, ms: float) -> None:
        """Our VAD."""
        if level >= LOUD:
            self._loud_ms, self._quiet_ms = self._loud_ms + ms, 0.0
        else:
            self._quiet_ms += ms
            if not self.speaking and self._quiet_ms > SPEECH_MS:
                self._loud_ms = 0.0
        if not self.speaking and self._loud_ms >= SPEECH_MS:
            self.caller_starts()
        elif self.speaking and self._quiet_ms >= QUIET_MS:
            self._loud_ms = 0.0
            self.caller_ends()

    def caller_starts(self) -> None:
        """The caller speaks: whatever is said is over."""
        self.speaking = True
        self.interrupt()

    def caller_ends(self) -> None:
        """A turn of the caller's is over: its words, and a reply."""
        self.speaking = False
        self.transcribe(self.said.popleft() if self.said else "Boa tarde.")
        self.start()

    def transcribe(self, text: str) -> None:
        """What the caller said, or is taken to have said."""
        event = {"user_transcript": text, "event_id": self.id()}
        self.emit("user_transcript", user_transcription_event=event)

    def _on_user_message(self, message: Message) -> None:
        self.texts.append(message["text"])
        if self.faults.echoes:
            self.transcribe(message["text"])
        self.interrupt(aloud=self.faults.yields_aloud)
        self.start()

    def _on_contextual_update(self, message: Message) -> None:
        self.notes.append(message["text"])

    def _on_user_activity(self, message: Message) -> None:
        """Nothing to do."""

    def _on_pong(self, message: Message) -> None:
        if message["event_id"] not in self.pings:
            raise self._no(f"a pong to no ping: {message['event_id']}")
        self.pings.discard(message["event_id"])

    def _on_client_tool_result(self, message: Message) -> None:
        call = message["tool_call_id"]
        untold = [one["agent_tool_response"] for one in self.out if one["type"] == "agent_tool_response"]
        if any(one["tool_call_id"] == call for one in untold):
            return  # they could not know that nobody waits for it any more
        if call not in self.calls:
            raise self._no(f"{call} is not open")
        if not isinstance(json.loads(message["result"] or "null"), dict) or message["is_error"]:
            raise self._no(f"{call}: the model would not learn what came of it")
        del self.calls[call]
        self.answers[call] = json.loads(message["result"])
        self._settled(call)

    def _settled(self, call: str) -> None:
        if self._active is not None:
            self._active.waits.discard(call)

    # -- what it does by itself

    def ping(self) -> int:
        """Ask whether somebody is there."""
        event = self.id()
        self.pings.add(event)
        self.emit("ping", ping_event={"event_id": event, "ping_ms": 40})
        return event

    def interrupt(self, *, aloud: bool = True) -> None:
        """Whatever is being said is over."""
        active, self._active = self._active, None
        if active is None:
            return
        self.interruptions += 1
        for call in active.waits:
            self.calls.pop(call, None)
            self.gone.add(call)
            self._tool_told(call)
        if not aloud:
            return
        self.phantom()
        if self.faults.corrects is not None and active.sent:
            words = active.text.split()
            event = {
                "original_agent_response": active.text,
                "corrected_agent_response": " ".join(words[: round(len(words) * self.faults.corrects)]),
                "event_id": self.id(),
            }
            self.emit("agent_response_correction", agent_response_correction_event=event)

    def phantom(self) -> None:
        """An interruption, whoever made it."""
        self.emit("interruption", interruption_event={"event_id": self.id()})

    def give_up(self, call: str) -> None:
        """A call was not answered in time: the model goes on without."""
        name = self.calls.pop(call)
        self.gone.add(call)
        self._tool_told(call, name)
        self._settled(call)

    def _tool_told(self, call: str, name: str = "lookup_apartment") -> None:
        event = {
            "tool_name": name,
            "tool_call_id": call,
            "tool_type": "client",
            "is_error": True,
            "is_called": True,
            "event_id": self.id(),
        }
        self.emit("agent_tool_response", agent_tool_response=event)

    def start(self, reply: Reply | None = None) -> None:
        """Begin a response."""
        if reply is None:
            reply = self.replies.popleft() if self.replies else Reply()
        self._active = active = _Active(iter(()), reply)
        active.messages = self._generate(active)

    def step(self) -> bool:
        """Go on with the running response by one message; False: none can go on."""
        active = self._active
        if active is None or active.waits:
            return False
        message = next(active.messages, None)
        if message is not None:
            self.emit(**message)
            return True
        if active.reply.endless:
            return False
        self._active = None
        if self.faults.completes:
            self.emit("agent_response_complete", agent_response_complete_event={"event_id": self.id()})
        return True

    def _generate(self, active: _Active) -> Iterator[Message]:
        items = deque(active.reply.items)
        while items:
            item = items.popleft()
            if isinstance(item, Say):
                yield from self._say(item, active)
                continue
            calls = [item] * item.times
            while items and isinstance(items[0], Call):
                call = items.popleft()
                assert isinstance(call, Call)
                calls += [call] * call.times
            yield from self._call(calls, active)

    def _call(self, calls: list[Call], active: _Active) -> Iterator[Message]:
        """Side by side: the response stands still until the last of them is answered."""
        names = [call.call_id or f"call_{self.id()}" for call in calls]
        for at, (call, name) in enumerate(zip(calls, names, strict=True)):
            if call.waits and name not in names[:at]:
                self.calls[name] = call.name
            if at == len(calls) - 1:
                active.waits = set(names) & set(self.calls)
            event: Message = {"tool_name": call.name, "tool_call_id": name, "parameters": call.args}
            event |= {"event_id": self.id(), "expects_response": call.waits}
            yield {"kind": "client_tool_call", "client_tool_call": event}

    def _say(self, say: Say, active: _Active) -> Iterator[Message]:
        active.text, active.sent = say.text, False
        text: Message = {"agent_response": say.text, "event_id": self.id()}
        told: Message = {"kind": "agent_response", "agent_response_event": text}
        if not self.faults.text_last:
            yield told
        left = say.ms
        while left > 0:
            piece = min(left, say.piece_ms)
            left -= piece
            active.sent = True
            event = {"audio_base_64": base64.b64encode(self._sound(piece)).decode(), "event_id": self.id()}
            yield {"kind": "audio", "audio_event": event}
        if self.faults.text_last:
            yield told

    def _sound(self, ms: int) -> bytes:
        rate = int(self.faults.output_format.partition("_")[2])
        pcm = np.full(ms * rate // 1000, self.level, "<i2").tobytes()
        return ulaw_encode(pcm) if self.faults.output_format == "ulaw_8000" else pcm


# -- the port ------------------------------------------------------------------------------------------------


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
        super().__init__()
        self._replies = deque(replies)
        self.make = make
        self.faults = faults or Faults()
        self.sockets: list[ServerConnection] = []
        self._signatures: set[str] = set()
        self._signed = 0

    @property
    def violations(self) -> list[str]:
        """Of all connections."""
        return [one for model in self.models for one in model.violations]

    async def _greet(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer the request for an address; let a conversation begin."""
        self.requests.append(request)
        asked = urlsplit(request.path)
        if asked.path == TALK:
            return None
        await self._pause(self.faults.accept_delay_s)
        agent = parse_qs(asked.query).get("agent_id", [""])[0]
        if self.faults.refuse is not None:
            return _answer(*self.faults.refuse)
        if asked.path != SIGN:
            return _answer(404, b'{"detail":"Not Found"}')
        if request.headers.get("xi-api-key") != KEY:
            return _refusal(401, "invalid_api_key", "Invalid API key")
        if agent != AGENT:
            return _refusal(404, "document_not_found", f"Document with id {agent} not found.")
        self._signed += 1
        signature = f"cvtkn_{self._signed}"
        self._signatures.add(signature)
        url = f"ws{self.url.removeprefix('http')}{TALK}?agent_id={agent}&conversation_signature={signature}"
        return _answer(200, json.dumps({"signed_url": self.faults.signed_url or url}).encode())

    async def _serve(self, socket: ServerConnection) -> None:
        model = self.make(self._replies, self.faults)
        self.models.append(model)
        self.sockets.append(socket)
        wake = self._wake[id(model)] = asyncio.Event()
        self.open_connections += 1
        self._news.set()
        speaker = asyncio.create_task(self._speak(socket, model, wake), name="simulator-speaker")
        try:
            self._admit(socket)
            async for frame in socket:
                model.receive(json.loads(frame))
                wake.set()
                self._news.set()
                if self.faults.deaf and model.started:
                    await self._pause(3600)
        except Refused as refused:
            await socket.close(refused.code, refused.reason[:120])
        except ConnectionClosed:
            model.received.append({"(connection lost)": True})
        finally:
            self.open_connections -= 1
            self._news.set()
            speaker.cancel()
            await asyncio.wait({speaker})

    def _admit(self, socket: ServerConnection) -> None:
        """A signature opens one conversation."""
        assert socket.request is not None
        query = parse_qs(urlsplit(socket.request.path).query)
        signature = query.get("conversation_signature", [""])[0]
        if signature not in self._signatures:
            raise Refused(1008, "Could not authorize: the conversation signature is not valid.")
        self._signatures.discard(signature)

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

    async def _cut(self, socket: ServerConnection, message: Message) -> None:
        """The end that the script wants, in the middle of things."""
        code, reason = self.faults.cut_with
        match self.faults.cut:
            case "close":
                await socket.close(code, reason)
            case "error":
                event = {"code": code, "message": reason, "error_type": "unknown"}
                await socket.send(json.dumps({"type": "error", "error_event": event}))
                await socket.close(code, reason)
            case "flat_error":
                await socket.send(json.dumps({"type": "error", "message": f"received {code} {reason}"}))
                await socket.close(code, "")
            case "abort":
                socket.transport.abort()
            case "half":
                frame = json.dumps(message)
                await socket.send(frame[: len(frame) // 2])
            case "garbage":
                await socket.send(json.dumps({"type": "audio", "audio_event": {"event_id": "?"}}))
            case "stall":
                await self._pause(3600)


def _answer(status: int, body: bytes) -> Response:
    headers = Headers({"Content-Length": str(len(body)), "Connection": "close"})
    return Response(status, http.HTTPStatus(status).phrase, headers, body)


def _refusal(status: int, code: str, message: str) -> Response:
    return _answer(status, json.dumps({"detail": {"status": code, "message": message}}).encode())
