"""A scripted server of Deepgram's ``/v1/listen`` and ``/v1/speak``, strict, that misbehaves on command.

What the vendor would refuse is refused and kept in ``violations``: unknown parameters and values, a key of
another kind, half samples, text that is no message. Every message that it sends is checked against
deepgram-sdk's types. What is heard comes from ``hear``, which may be a real recogniser, or from
``transcripts``, one a Finalize.
"""

from __future__ import annotations

import asyncio
import json
import typing
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal

from aiohttp import WSMsgType, web
from deepgram.listen.v1.types.listen_v1error import ListenV1Error
from deepgram.listen.v1.types.listen_v1metadata import ListenV1Metadata
from deepgram.listen.v1.types.listen_v1results import ListenV1Results
from deepgram.types.listen_v1encoding import ListenV1Encoding
from deepgram.types.listen_v1model import ListenV1Model
from deepgram.types.speak_v1encoding import SpeakV1Encoding
from deepgram.types.speak_v1model import SpeakV1Model
from deepgram.types.speak_v1sample_rate import SpeakV1SampleRate

from tests.simulators.chat_speech import tone

Message = dict[str, Any]

KEY = "dg-key"
LANGUAGES = frozenset({"pt", "pt-BR", "pt-PT", "en", "es", "multi"})


def _values(annotation: Any) -> frozenset[str]:
    """The values that the SDK names."""
    literal = next(one for one in typing.get_args(annotation) if typing.get_origin(one) is Literal)
    return frozenset(typing.get_args(literal))


LISTEN_MODELS, SPEAK_MODELS = _values(ListenV1Model), _values(SpeakV1Model)
_SAMPLE_BYTES = {"linear16": 2, "mulaw": 1, "alaw": 1}
_CONFIGURED = ("model", "language", "encoding", "sample_rate", "channels", "interim_results", "punctuate")
_LISTEN = frozenset(
    (*_CONFIGURED, "endpointing", "keyterm", "smart_format", "numerals", "tag", "mip_opt_out")
)
_SPEAK = frozenset(
    {"model", "encoding", "sample_rate", "container", "speed", "bit_rate", "tag", "mip_opt_out"}
)


@dataclass
class Faults:
    """How the server misbehaves."""

    refuse: tuple[int, bytes] | None = None
    accept_delay_s: float = 0.0
    silent: bool = False
    """No result ever comes."""
    silent_to: int = 0
    """So many connections are silent before all is well."""
    late_s: float = 0.0
    """Before each final result."""
    interim_only: bool = False
    unmarked: bool = False
    """Final results don't say that they are from a Finalize."""
    close_at: int | None = None
    """With this Finalize of the server's life (the first is 1) it closes in place of an answer."""
    close_with: tuple[int, bytes] = (1011, b"NET-0000")
    garbage_at: int | None = None
    """With this one it sends half a message."""
    error_at: int | None = None
    idle_s: float = 10.0
    """Without sound or KeepAlive for so long it closes (NET-0001)."""
    confidence: float = 0.97
    speak_stall: bool = False
    """The second piece of speech never comes."""
    speak_type: str = "audio/l16;rate=24000"


Hear = Callable[[bytes, str, int], Awaitable[str]]
"""What sound says: bytes, encoding, rate."""


@dataclass
class Simulator:
    """A server on loopback; ``async with`` it."""

    transcripts: deque[str] = field(default_factory=deque)
    hear: Hear | None = None
    faults: Faults = field(default_factory=Faults)
    voice: Callable[[str], bytes] = tone
    violations: list[str] = field(default_factory=list)
    queries: list[dict[str, list[str]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    """Types of the messages that came."""
    seconds: float = 0.0
    """Of sound that came, in all: what would be billed."""
    sound: bytes = b""
    """All of it."""
    said: list[str] = field(default_factory=list)
    hung_up: int = 0
    url: str = ""
    _finalizes: int = 0

    async def __aenter__(self) -> Simulator:
        application = web.Application()
        application.router.add_get("/v1/listen", self._listen)
        application.router.add_post("/v1/speak", self._speak)
        self._runner = web.AppRunner(application, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    # -- both ------------------------------------------------------------------------------------------------

    def _refusal(self, request: web.Request, known: frozenset[str]) -> web.Response | None:
        faults = self.faults
        if faults.refuse is not None:
            return web.Response(status=faults.refuse[0], body=faults.refuse[1])
        if request.headers.get("Authorization") != f"Token {KEY}":
            error = {"err_code": "INVALID_AUTH", "err_msg": "Invalid credentials.", "request_id": "r"}
            return web.json_response(error, status=401)
        if unknown := set(request.query) - known:
            return self._bad(f"unknown parameter {sorted(unknown)[0]}")
        return None

    def _bad(self, why: str) -> web.Response:
        self.violations.append(why)
        error = {"err_code": "Bad Request", "err_msg": f"Bad Request: {why}", "request_id": "r"}
        return web.json_response(error, status=400)

    # -- listen ----------------------------------------------------------------------------------------------

    def _listen_refusal(self, request: web.Request) -> web.Response | None:
        if (refused := self._refusal(request, _LISTEN)) is not None:
            return refused
        query = request.query
        if query.get("model") not in LISTEN_MODELS or query.get("language", "en") not in LANGUAGES:
            self.violations.append("model")
            error = {"err_code": "Bad Request", "err_msg": "Bad Request: No such model/language/tier"}
            return web.json_response(error, status=400)
        if query.get("encoding") not in _values(ListenV1Encoding) & set(_SAMPLE_BYTES):
            return self._bad("encoding")
        if not query.get("sample_rate", "").isdigit():
            return self._bad("sample_rate: needed with an encoding")
        if "keyterm" in query and not query["model"].startswith("nova-3"):
            return self._bad("keyterm: nova-3 alone")
        if query.get("endpointing", "false") != "false" and not query["endpointing"].isdigit():
            return self._bad("endpointing")
        return None

    async def _listen(self, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(self.faults.accept_delay_s)
        if (refused := self._listen_refusal(request)) is not None:
            return refused
        self.queries.append({name: request.query.getall(name) for name in request.query})
        silent = self.faults.silent or len(self.queries) <= self.faults.silent_to
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        stream = _Stream(self, socket, request.query["encoding"], int(request.query["sample_rate"]), silent)
        while True:
            try:
                message = await socket.receive(self.faults.idle_s)
            except TimeoutError:
                await socket.close(code=1011, message=b"NET-0001")
                return socket
            if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
                return socket
            if not await stream.take(message.data):
                return socket

    # -- speak -----------------------------------------------------------------------------------------------

    async def _speak(self, request: web.Request) -> web.StreamResponse:
        if (refused := self._refusal(request, _SPEAK)) is not None:
            return refused
        query = request.query
        if query.get("model") not in SPEAK_MODELS:
            self.violations.append("model")
            error = {"err_code": "Bad Request", "err_msg": "Bad Request: No such model"}
            return web.json_response(error, status=400)
        if query.get("encoding") not in _values(SpeakV1Encoding) or query.get("container") != "none":
            return self._bad("encoding, container")
        if query.get("sample_rate") not in _values(SpeakV1SampleRate):
            return self._bad("sample_rate")
        body = await request.json()
        if set(body) != {"text"} or not 0 < len(body["text"]) <= 2000:
            return self._bad("text")
        self.said.append(body["text"])
        response = web.StreamResponse(headers={"Content-Type": self.faults.speak_type})
        await response.prepare(request)
        sound = self.voice(body["text"])
        try:
            for at in range(0, len(sound), 4801):
                if self.faults.speak_stall and at:
                    while request.transport is not None and not request.transport.is_closing():
                        await asyncio.sleep(0.01)
                    self.hung_up += 1
                    return response
                await response.write(sound[at : at + 4801])
            await response.write_eof()
        except ConnectionResetError:
            self.hung_up += 1
        return response


class _Stream:
    """One connection."""

    def __init__(
        self, owner: Simulator, socket: web.WebSocketResponse, encoding: str, rate: int, silent: bool
    ) -> None:
        self._owner, self._socket = owner, socket
        self._encoding, self._rate, self._silent = encoding, rate, silent
        self._sound = b""
        """Since the last final result."""
        self._start = 0.0

    @property
    def _held_s(self) -> float:
        return len(self._sound) / _SAMPLE_BYTES[self._encoding] / self._rate

    async def take(self, data: bytes | str) -> bool:
        """A message; False: the connection is over."""
        owner = self._owner
        if isinstance(data, bytes):
            if not data or len(data) % _SAMPLE_BYTES[self._encoding]:
                owner.violations.append(f"{len(data)} bytes of sound")
            before = self._held_s
            self._sound += data
            owner.sound += data
            owner.seconds += self._held_s - before
            if int(before) != int(self._held_s):  # an interim result each second
                await self._result(owner.transcripts[0] if owner.transcripts else "", final=False)
            return True
        message = json.loads(data)
        kind = message.get("type")
        if set(message) != {"type"} or kind not in ("KeepAlive", "Finalize", "CloseStream"):
            owner.violations.append(f"a text that is no message: {data[:80]}")
            error = {"type": "Error", "variant": "SchemaError", "description": "could not be parsed"}
            ListenV1Error.model_validate(error)
            await self._socket.send_str(json.dumps({**error, "message": data}))
            return True
        owner.texts.append(kind)
        if kind == "CloseStream":
            metadata = {"type": "Metadata", "transaction_key": "deprecated", "request_id": "r", "sha256": "0"}
            metadata |= {"created": "2026-11-21T00:00:00Z"}
            ListenV1Metadata.model_validate({**metadata, "duration": self._start, "channels": 1})
            await self._socket.send_str(json.dumps({**metadata, "duration": self._start, "channels": 1}))
            await self._socket.close()
            return False
        return await self._finalize() if kind == "Finalize" else True

    async def _finalize(self) -> bool:
        owner, faults = self._owner, self._owner.faults
        owner._finalizes += 1
        if owner._finalizes == faults.close_at:
            await self._socket.close(code=faults.close_with[0], message=faults.close_with[1])
            return False
        if owner._finalizes == faults.garbage_at:
            await self._socket.send_str('{"type":"Results","channel_ind')
            return True
        if owner._finalizes == faults.error_at:
            error = {"type": "Error", "variant": "Internal", "description": "something went wrong"}
            await self._socket.send_str(json.dumps(error))
            return True
        if self._held_s < 0.1:  # "not guaranteed if there is no significant amount of audio"
            return True
        if owner.hear is not None:
            text = await owner.hear(self._sound, self._encoding, self._rate)
        else:
            text = owner.transcripts.popleft() if owner.transcripts else ""
        await asyncio.sleep(faults.late_s)
        await self._result(text, final=not faults.interim_only)
        return True

    async def _result(self, text: str, *, final: bool) -> None:
        if self._silent:
            return
        words, length = text.split(), self._held_s
        step = length / (len(words) + 1)
        confidence = self._owner.faults.confidence
        said = [
            {
                "word": word.lower().strip(".,?!"),
                "start": self._start + step * (index + 0.5),
                "end": self._start + step * (index + 1),
                "confidence": confidence,
                "punctuated_word": word,
            }
            for index, word in enumerate(words)
        ]
        alternative = {"transcript": text, "confidence": confidence if words else 0.0, "words": said}
        info = {"name": "nova-3", "version": "2026", "arch": "nova-3"}
        message = {
            "type": "Results",
            "channel_index": [0, 1],
            "duration": length,
            "start": self._start,
            "is_final": final,
            "speech_final": False,
            "channel": {"alternatives": [alternative]},
            "metadata": {"request_id": "r", "model_info": info, "model_uuid": "u"},
            "from_finalize": final and not self._owner.faults.unmarked,
        }
        ListenV1Results.model_validate(message)
        if final:
            self._start, self._sound = self._start + length, b""
        await self._socket.send_str(json.dumps(message))
