"""A scripted server of the Gemini Live protocol, as strict as the vendor's, that misbehaves on command.

:class:`Model` is the protocol without a socket; :class:`Simulator` puts it behind a loopback WebSocket. Every
message in either direction is checked against google-genai's own types. What the vendor would refuse closes
the connection with the vendor's code, and is kept in ``Model.violations``.
"""

from __future__ import annotations

import asyncio
import base64
import http
import json
import ssl
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pydantic
from google.genai import types
from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.simulators.serving import Serving

Message = dict[str, Any]

KEY = "AIza-test"
MODELS = frozenset({"models/gemini-3.8-live"})
VOICES = frozenset({"Kore", "Puck"})
PATH = "/ws/google.ai.generativelanguage.v1.GenerativeService.BidiGenerateContent"
OUT_RATE = 24000
TOO_LOUD = 4000
"""Mean magnitude of more than a second that no speech of ours has: it is in another format."""
INVALID = "Request contains an invalid argument."


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
    """A function call. ``times``: how often it is made. Calls side by side come in one message."""

    name: str = "lookup_apartment"
    args: dict[str, Any] = field(default_factory=lambda: {"apartment": "501"})
    call_id: str = ""
    times: int = 1
    partial: bool = False
    """More of it would follow, and never does."""


@dataclass(frozen=True)
class Reply:
    """What one response consists of, and how it ends. No items: the model says nothing."""

    items: tuple[Say | Call, ...] = (Say(),)
    reason: str = ""
    interrupted: bool = False
    """The server interrupts itself after the items, with nobody's doing."""
    silent: bool = False
    """Not even its end comes."""
    endless: bool = False
    """Its audio comes, and its end never does."""


@dataclass
class Faults:
    """How the server misbehaves. ``cut`` comes after ``cut_after`` messages of a connection."""

    refuse: tuple[int, bytes] | None = None
    accept_delay_s: float = 0.0
    never_configure: bool = False
    close_on_setup: tuple[int, str] | None = None
    cut_after: int | None = None
    cut: Literal["close", "abort", "half", "garbage", "stall"] = "abort"
    cut_with: tuple[int, str] = (1011, "Internal error encountered.")
    cuts: int = 1_000_000
    """How many connections are cut."""
    deaf: bool = False
    """Stops reading once it is configured."""
    no_resume: bool = False
    """Handles are refused with 1007."""
    no_handles: bool = False
    audio_with_calls: bool = True
    """False: audio while a call is open closes the connection (1008), as some models do."""
    blocking: bool = False
    """A response stands still until its calls are answered."""
    mime: str = f"audio/pcm;rate={OUT_RATE}"
    finished: bool = False
    """The last piece of a transcript says that it is the last."""
    pace_s: float = 0.0


# -- the protocol, without a socket --------------------------------------------------------------------------


@dataclass
class _Active:
    reply: Reply
    messages: Iterator[Message]
    waits: set[str] = field(default_factory=set)
    """Calls that it stands still for."""
    generated: bool = False


class Model:
    """Takes client messages in, gives server messages by ``out``; :meth:`step` goes on with a response."""

    level = 16
    """Of every sample that is spoken."""

    def __init__(
        self,
        replies: deque[Reply] | None = None,
        faults: Faults | None = None,
        handles: dict[str, int] | None = None,
    ) -> None:
        self.replies = replies if replies is not None else deque()
        self.faults = faults or Faults()
        self.handles = handles if handles is not None else {}
        self.out: deque[Message] = deque()
        self.received: list[Message] = []
        self.violations: list[str] = []
        self.setup: Message = {}
        self.resumed: str | None = None
        self.texts: list[tuple[str, str, bool]] = []
        """What came as text: role, text, and whether a reply was asked for."""
        self.said: deque[str] = deque()
        """What the caller's next turns say; without it "Boa tarde."."""
        self.caller = b""
        """PCM at 16 kHz that came within turns."""
        self.turns: list[bytes] = []
        self.speaking = False
        self.calls: dict[str, str] = {}
        """Open calls: id → name."""
        self.cancelled: set[str] = set()
        self.answers: dict[str, tuple[Message, str]] = {}
        """Call → result and scheduling."""
        self.interruptions = 0
        self.on_setup: Callable[[], None] = lambda: None
        """Called when the session is set up."""
        self._expects_history = False
        self._automatic = True
        self._owed = 0
        self._active: _Active | None = None
        self._ids = 0
        self._loudness = self._samples = 0
        self._turn = b""

    def id(self, kind: str) -> str:
        """A new name, unlike any of another connection."""
        self._ids += 1
        return f"{kind}_{id(self) % 100_000}_{self._ids}"

    def emit(self, **message: Any) -> None:
        """Send a message; one that the SDK's types don't allow is this simulator's own fault."""
        types.LiveServerMessage.model_validate(message)
        self.out.append(message)

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
        try:
            message = json.loads(json.dumps(message))
            turns = _both(message.get("setup") or {}, "realtimeInputConfig", "realtime_input_config")
            config = types.RealtimeInputConfig.model_validate(turns or {})
            parsed = types.LiveClientMessage.model_validate(message)
        except pydantic.ValidationError as error:
            raise self._no(f"{error.errors()[0]['loc']} {error.errors()[0]['msg']}") from error
        parts = [name for name in type(parsed).model_fields if getattr(parsed, name) is not None]
        if len(parts) != 1:
            raise self._no(f"one of a message's parts, and not {parts}")
        if bool(self.setup) is (parts == ["setup"]):
            raise self._no("setup comes first, and once")
        if parsed.setup is not None:
            self._on_setup(parsed.setup, config, message["setup"])
        elif parsed.client_content is not None:
            self._on_content(parsed.client_content)
        elif parsed.realtime_input is not None:
            self._on_input(parsed.realtime_input)
        elif parsed.tool_response is not None:
            for response in parsed.tool_response.function_responses or []:
                self._on_response(response)

    def _no(self, why: str, code: int = 1007, reason: str = INVALID) -> Refused:
        self.violations.append(why)
        return Refused(code, reason)

    def _on_setup(self, setup: types.LiveClientSetup, turns: types.RealtimeInputConfig, raw: Message) -> None:
        faults = self.faults
        if faults.close_on_setup is not None:
            raise Refused(*faults.close_on_setup)
        if setup.model not in MODELS:
            what = (
                f"{setup.model} is not found for API version v1, or is not supported for bidiGenerateContent."
            )
            raise Refused(1008, what)
        generation = setup.generation_config or types.GenerationConfig()
        if generation.response_modalities != [types.Modality.AUDIO]:
            raise self._no("this model answers with audio alone")
        if generation.thinking_config is not None or generation.enable_affective_dialog is not None:
            raise self._no("this model has no such field")
        voice = (generation.speech_config or types.SpeechConfig()).voice_config or types.VoiceConfig()
        name = (voice.prebuilt_voice_config or types.PrebuiltVoiceConfig()).voice_name
        if name is not None and name not in VOICES:
            raise Refused(
                1007, f"Requested voice api_name '{name}' is not available for model {setup.model}."
            )
        for tool in setup.tools or []:
            for function in (tool.function_declarations if isinstance(tool, types.Tool) else None) or []:
                if not function.name:
                    raise self._no("a function without a name")
        resumption = setup.session_resumption
        if resumption is not None and resumption.handle is not None:
            if faults.no_resume or resumption.handle not in self.handles:
                raise Refused(1007, "Invalid session handle.")
            self.resumed = resumption.handle
        elif resumption is not None and "handle" in (raw.get("sessionResumption") or {}):
            raise self._no("an empty handle")
        if faults.never_configure:
            return
        self.setup = raw
        detection = turns.automatic_activity_detection
        self._automatic = detection is None or not detection.disabled
        history = setup.history_config
        self._expects_history = history is not None and bool(history.initial_history_in_client_content)
        self.emit(setupComplete={})
        if resumption is not None:
            self.give_handle()
        self.on_setup()

    def give_handle(self, resumable: bool = True) -> None:
        """A session resumption update."""
        if self.faults.no_handles:
            return
        handle = self.id("handle") if resumable else ""
        if resumable:
            self.handles[handle] = len(self.texts)
        self.emit(sessionResumptionUpdate={"newHandle": handle, "resumable": resumable})

    def _on_content(self, content: types.LiveClientContent) -> None:
        for turn in content.turns or []:
            if turn.role not in ("user", "model") or not turn.parts:
                raise self._no(f"a turn of role {turn.role!r} with {len(turn.parts or [])} parts")
            for part in turn.parts:
                if not part.text:
                    raise self._no("a part without text")
                self.texts.append((turn.role, part.text, bool(content.turn_complete)))
        if not content.turn_complete:
            return
        if self._expects_history:
            self._expects_history = False
            return
        self.interrupt()
        self.start()

    def _on_input(self, given: types.LiveClientRealtimeInput) -> None:
        if self._expects_history:
            raise self._no("realtime input before the history")
        fields = [name for name in type(given).model_fields if getattr(given, name) is not None]
        if len(fields) != 1 or fields[0] not in (
            "audio",
            "activity_start",
            "activity_end",
            "audio_stream_end",
        ):
            raise self._no(f"realtime input of {fields}")
        if given.activity_start is not None or given.activity_end is not None:
            if self._automatic:
                raise self._no("activity signals while automatic activity detection is on", 1007)
            if (given.activity_start is not None) is self.speaking:
                raise self._no("activity starts once and ends once")
        if given.activity_start is not None:
            self.speaking = True
            self._turn = b""
            self.interrupt()
        elif given.activity_end is not None:
            self.speaking = False
            self.turns.append(self._turn)
            self.hear(self._turn)
        elif given.audio is not None:
            self._on_audio(given.audio)

    def _on_audio(self, blob: types.Blob) -> None:
        pcm = blob.data or b""
        if blob.mime_type != "audio/pcm;rate=16000":
            raise self._no(f"audio of {blob.mime_type!r}")
        if not pcm or len(pcm) % 2:
            raise self._no(f"{len(pcm)} bytes are no whole samples")
        if not self._automatic and not self.speaking:
            raise self._no("audio while nobody speaks")
        if self.calls and not self.faults.audio_with_calls:
            raise self._no("audio while a call is open", 1008, "Operation is not implemented, or supported.")
        self._loudness += int(np.abs(np.frombuffer(pcm, "<i2").astype(np.int64)).sum())
        self._samples += len(pcm) // 2
        if self._samples >= 16000 and self._loudness > TOO_LOUD * self._samples:
            raise self._no("this is no PCM at 16 kHz")
        self.caller += pcm
        self._turn += pcm

    def hear(self, pcm: bytes) -> None:
        """A turn of the caller's is over: its words, and a reply."""
        self.transcribe(self.said.popleft() if self.said else "Boa tarde.")
        self.start()

    def transcribe(self, text: str) -> None:
        """What the caller said; the vendor sends it in pieces, whenever it is ready."""
        head, blank, tail = text.rpartition(" ")
        pieces = [piece for piece in (head + blank, tail) if piece]
        for piece in pieces:
            last = self.faults.finished and piece is pieces[-1]
            said: Message = {"text": piece} | ({"finished": True} if last else {})
            self.emit(serverContent={"inputTranscription": said})

    def _on_response(self, response: types.FunctionResponse) -> None:
        call = response.id or ""
        if call in self.cancelled:
            raise self._no(f"{call} was cancelled", 1008, "Requested entity was not found.")
        if call not in self.calls or response.name != self.calls[call]:
            raise self._no(f"{call} of {response.name} is not open", 1008, "Requested entity was not found.")
        if not isinstance(response.response, dict) or not response.response:
            raise self._no(f"{call}: an empty response")
        del self.calls[call]
        scheduling = response.scheduling.value if response.scheduling else "WHEN_IDLE"
        self.answers[call] = (response.response, scheduling)
        if self._active is not None and call in self._active.waits:
            self._active.waits.discard(call)
        elif scheduling == "INTERRUPT":
            self.interrupt()
            self.start()
        elif scheduling != "SILENT":
            self._owed += 1

    # -- responses

    def interrupt(self) -> None:
        """Whatever is being said is over."""
        if self._active is None:
            return
        self._active = None
        self.interruptions += 1
        self.emit(serverContent={"interrupted": True})
        self.emit(serverContent={"turnComplete": True})

    def phantom(self) -> None:
        """An interruption that nobody made, while nothing is said."""
        self.emit(serverContent={"interrupted": True})

    def cancel(self, *calls: str) -> None:
        """The model no longer wants these answers."""
        for call in calls:
            self.calls.pop(call, None)
            self.cancelled.add(call)
        self.emit(toolCallCancellation={"ids": list(calls)})

    def go_away(self, seconds: float) -> None:
        """The connection will be closed."""
        self.emit(goAway={"timeLeft": f"{seconds:g}s"})

    def start(self) -> None:
        """Begin a response."""
        reply = self.replies.popleft() if self.replies else Reply()
        active = self._active = _Active(reply, iter(()))
        active.messages = self._generate(reply, active)

    def step(self) -> bool:
        """Go on with the running response by one message; False: none can go on."""
        active = self._active
        if active is None:
            if not self._owed or self.speaking:
                return False
            self._owed = 0
            self.start()
            return True
        if active.waits:
            return False
        message = next(active.messages, None)
        if message is not None:
            self.emit(**message)
            return True
        if active.reply.endless or active.reply.silent:
            return False
        self._active = None
        if active.reply.interrupted:
            self.emit(serverContent={"interrupted": True})
        usage = {
            "promptTokenCount": 10,
            "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 10}],
            "responseTokenCount": 20,
            "responseTokensDetails": [{"modality": "AUDIO", "tokenCount": 20}],
            "totalTokenCount": 30,
        }
        end: Message = {"turnComplete": True}
        if active.reply.reason:
            end["turnCompleteReason"] = active.reply.reason
        self.emit(serverContent=end, usageMetadata=usage)
        if not self.faults.no_handles and "sessionResumption" in self.setup:
            self.give_handle()
        return True

    def _generate(self, reply: Reply, active: _Active) -> Iterator[Message]:
        items = deque(reply.items)
        while items:
            if isinstance(items[0], Say):
                yield from self._say(items.popleft())  # type: ignore[arg-type]
                continue
            calls: list[Message] = []
            while items and isinstance(items[0], Call):
                call = items.popleft()
                assert isinstance(call, Call)
                name = call.call_id or self.id("call")
                made: Message = {"id": name, "name": call.name, "args": call.args}
                if call.partial:
                    made["willContinue"] = True
                else:
                    self.calls[name] = call.name
                calls += [made] * call.times
                if self.faults.blocking:
                    active.waits.add(name)
            yield {"toolCall": {"functionCalls": calls}}
        if not reply.interrupted and reply.items and not reply.endless:
            active.generated = True
            yield {"serverContent": {"generationComplete": True}}

    def _say(self, say: Say) -> Iterator[Message]:
        words: Message = {"outputTranscription": {"text": say.text}}
        left = say.ms
        while left > 0:
            piece = min(left, say.piece_ms)
            left -= piece
            pcm = np.full(piece * OUT_RATE // 1000, self.level, "<i2").tobytes()
            audio = {"mimeType": self.faults.mime, "data": base64.b64encode(pcm).decode()}
            # The fields of one message are not exclusive of each other.
            yield {"serverContent": {"modelTurn": {"parts": [{"inlineData": audio}]}, **words}}
            words = {}


def _both(message: Message, *names: str) -> Any:
    """A field that the SDK itself writes beside its type, taken out."""
    found = [message.pop(name) for name in names if name in message]
    return found[0] if found else None


# -- the socket ----------------------------------------------------------------------------------------------


class Simulator(Serving[Model]):
    """``async with Simulator(...) as server``: serves at ``server.url``; one :class:`Model` a connection.

    ``make``: makes another kind of model for each connection. ``tls``: the SDK comes over TLS alone.
    """

    def __init__(
        self,
        *replies: Reply,
        faults: Faults | None = None,
        make: Callable[[deque[Reply], Faults, dict[str, int]], Model] = Model,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(tls=tls)
        self._replies = deque(replies)
        self.make = make
        self.faults = faults or Faults()
        self.handles: dict[str, int] = {}
        self.sockets: list[ServerConnection] = []
        self._cuts = 0

    @property
    def violations(self) -> list[str]:
        """Of all connections."""
        return [one for model in self.models for one in model.violations]

    async def _greet(self, connection: ServerConnection, request: Request) -> Response | None:
        self.requests.append(request)
        await self._pause(self.faults.accept_delay_s)
        refuse = self.faults.refuse
        if request.path != PATH:
            refuse = (404, b"")
        if refuse is None:
            return None
        status, body = refuse
        headers = Headers({"Content-Length": str(len(body)), "Connection": "close"})
        return Response(status, http.HTTPStatus(status).phrase, headers, body)

    async def _serve(self, socket: ServerConnection) -> None:
        model = self.make(self._replies, self.faults, self.handles)
        self.models.append(model)
        self.sockets.append(socket)
        wake = self._wake[id(model)] = asyncio.Event()
        self.open_connections += 1
        speaker = asyncio.create_task(self._speak(socket, model, wake), name="simulator-speaker")
        assert socket.request is not None
        try:
            if socket.request.headers.get("x-goog-api-key") != KEY:
                raise Refused(1007, "API key not valid. Please pass a valid API key.")
            async for frame in socket:
                model.receive(json.loads(frame))
                wake.set()
                self._news.set()
                if self.faults.deaf and model.setup:
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

    async def _speak(self, socket: ServerConnection, model: Model, wake: asyncio.Event) -> None:
        sent = 0
        try:
            while True:
                while model.out:
                    if sent == self.faults.cut_after and self._cuts < self.faults.cuts:
                        self._cuts += 1
                        await self._cut(socket, model.out[0])
                    # The vendor sends its JSON in binary frames.
                    await socket.send(json.dumps(model.out.popleft()).encode())
                    sent += 1
                await asyncio.sleep(self.faults.pace_s)
                if not model.step() and not model.out:
                    wake.clear()
                    await wake.wait()
        except ConnectionClosed:
            return

    async def _cut(self, socket: ServerConnection, message: Message) -> None:
        """The end that the script wants, in the middle of things."""
        match self.faults.cut:
            case "close":
                await socket.close(*self.faults.cut_with)
            case "abort":
                socket.transport.abort()
            case "half":
                frame = json.dumps(message).encode()
                await socket.send(frame[: len(frame) // 2])
            case "garbage":
                await socket.send(json.dumps({"serverContent": {"modelTurn": 7}}).encode())
            case "stall":
                await self._pause(3600)
