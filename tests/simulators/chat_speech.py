"""A scripted server of OpenAI's chat completions and speech, strict, that misbehaves on command.

Requests are checked against the openai SDK's own types. What the vendor would refuse is refused, and kept in
``violations``: unknown fields, an unknown model or voice, a call that is not answered right behind it, an
answer to no call, a tool choice without tools. Other vendors and local servers speak the same.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal

import numpy as np
import pydantic
from aiohttp import web
from openai.types.audio.speech_create_params import SpeechCreateParams
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam, ChatCompletionToolUnionParam
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming

Message = dict[str, Any]

KEY = "sk-chat"
MODELS = frozenset({"llama-3.3-70b-versatile", "gpt-5-mini"})
SPEECH_MODELS = frozenset({"gpt-4o-mini-tts"})
VOICES = frozenset({"coral", "marin"})
RATE = 24000

_MESSAGE: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(ChatCompletionMessageParam)
_TOOL: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(ChatCompletionToolUnionParam)
_FIELDS = {
    name for kind in CompletionCreateParamsStreaming.__mro__ for name in getattr(kind, "__annotations__", {})
} | set(CompletionCreateParamsStreaming.__annotations__)
_ROLES: dict[str, set[str]] = {
    "system": {"role", "content", "name"},
    "user": {"role", "content", "name"},
    "assistant": {"role", "content", "name", "refusal", "tool_calls", "audio"},
    "tool": {"role", "content", "tool_call_id"},
}


@dataclass(frozen=True)
class Call:
    """A tool call, its arguments in so many pieces."""

    name: str = "lookup_apartment"
    arguments: str = '{"apartment": "501"}'
    pieces: int = 3


@dataclass(frozen=True)
class Reply:
    """What one request is answered with: a text in pieces of ``piece`` characters, then calls."""

    text: str = "Pois não?"
    calls: tuple[Call, ...] = ()
    finish: str = ""
    """Empty: as the vendor does."""
    piece: int = 4


@dataclass
class Faults:
    """How the server misbehaves. ``times``: how many requests are refused before all is well again."""

    refuse: tuple[int, bytes] | None = None
    times: int = 1_000_000
    delay_s: float = 0.0
    """Before the first byte."""
    pace_s: float = 0.0
    """Between two pieces of a reply."""
    after: int | None = None
    """So many pieces of a reply come before ``then``."""
    then: Literal["stall", "cut", "half", "error", "garbage", "end"] = "stall"
    no_index: bool = False
    """Tool calls come without their index, each in one piece, as some servers have it."""
    keep_usage: bool = False
    """No usage at the end."""
    speech_format: str = "audio/pcm"
    speech_header: bytes = b""


class Refused(Exception):
    """The vendor answers with this status and error."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


Think = Callable[[Sequence[Message], Sequence[str]], Awaitable[Reply]]
"""The reply to a conversation, by the names of the tools that there are."""


def tone(text: str) -> bytes:
    """Something that can be heard, 60 ms for each character."""
    samples = np.arange(len(text) * RATE * 60 // 1000)
    return (np.sin(samples * 2 * np.pi * 220 / RATE) * 6000).astype("<i2").tobytes()


@dataclass
class Simulator:
    """A server on loopback; ``async with`` it."""

    replies: deque[Reply] = field(default_factory=deque)
    faults: Faults = field(default_factory=Faults)
    think: Think | None = None
    """Where no reply is scripted; None: "Pois não?"."""
    voice: Callable[[str], bytes] = tone
    requests: list[Message] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    hung_up: int = 0
    """Answers that the client did not wait for."""
    running: int = 0
    """Answers under way."""
    url: str = ""

    async def __aenter__(self) -> Simulator:
        application = web.Application()
        application.router.add_post("/v1/chat/completions", self._chat)
        application.router.add_post("/v1/audio/speech", self._speech)
        self._runner = web.AppRunner(application, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/v1"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    # -- both ------------------------------------------------------------------------------------------------

    async def _answered(
        self, request: web.Request, check: Callable[[Message], None]
    ) -> tuple[Message | None, web.Response | None]:
        """The request's body, or why it is refused."""
        faults = self.faults
        if faults.delay_s:
            await asyncio.sleep(faults.delay_s)
        if faults.refuse is not None and faults.times > 0:
            faults.times -= 1
            return None, web.Response(status=faults.refuse[0], body=faults.refuse[1])
        try:
            if request.headers.get("Authorization") != f"Bearer {KEY}":
                raise Refused(401, "invalid_api_key", "Incorrect API key provided.")
            body = await request.json()
            check(body)
        except Refused as refused:
            if refused.status == 400:
                self.violations.append(str(refused))
            error = {"message": str(refused), "type": "invalid_request_error", "code": refused.code}
            return None, web.json_response({"error": error}, status=refused.status)
        return body, None

    async def _stream(
        self, request: web.Request, kind: str, pieces: AsyncIterator[bytes]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": kind})
        await response.prepare(request)
        self.running += 1
        sent = 0
        try:
            async for piece in pieces:
                if self.faults.after is not None and sent >= self.faults.after:
                    await self._misbehave(request, response, piece)
                    return response
                await response.write(piece)
                sent += 1
                if self.faults.pace_s:
                    await asyncio.sleep(self.faults.pace_s)
                if _gone(request):
                    self.hung_up += 1
                    return response
            await response.write_eof()
        except ConnectionResetError:
            self.hung_up += 1
        finally:
            self.running -= 1
        return response

    async def _misbehave(self, request: web.Request, response: web.StreamResponse, piece: bytes) -> None:
        match self.faults.then:
            case "stall":
                while not _gone(request):
                    await asyncio.sleep(0.01)
                self.hung_up += 1
            case "cut":
                assert request.transport is not None
                request.transport.abort()
            case "half":
                await response.write(piece[: len(piece) // 2])
                await response.write_eof()
            case "garbage":
                await response.write(b'data: {"choices": [{"delta": 7}]}\n\n')
                await response.write_eof()
            case "error":
                error = {"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}}
                await response.write(b"data: " + json.dumps(error).encode() + b"\n\n")
                await response.write_eof()
            case "end":
                await response.write_eof()

    # -- chat ------------------------------------------------------------------------------------------------

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body, refused = await self._answered(request, self._check_chat)
        if body is None:
            assert refused is not None
            return refused
        self.requests.append(body)
        if self.replies:
            reply = self.replies.popleft()
        elif self.think is not None:
            names = [tool["function"]["name"] for tool in body.get("tools", [])]
            reply = await self.think(body["messages"], names)
        else:
            reply = Reply()
        return await self._stream(request, "text/event-stream", self._chunks(body, reply))

    def _check_chat(self, body: Message) -> None:
        if unknown := set(body) - _FIELDS:
            raise Refused(400, "unknown_parameter", f"Unrecognized request argument: {sorted(unknown)[0]}")
        if body.get("model") not in MODELS:
            raise Refused(404, "model_not_found", f"The model `{body.get('model')}` does not exist")
        if body.get("stream") is not True:
            raise Refused(400, "unsupported", "this server streams")
        tools = body.get("tools")
        try:
            for message in body["messages"]:
                role = message["role"]
                if unknown := set(message) - _ROLES[role]:
                    raise Refused(400, "unknown_parameter", f"{role}: unknown {sorted(unknown)[0]}")
                _consume(_MESSAGE.validate_python(message, strict=True))
            for tool in tools or ():
                _TOOL.validate_python(tool, strict=True)
        except (pydantic.ValidationError, KeyError) as error:
            raise Refused(400, "invalid_value", f"{error}") from error
        if tools == []:
            raise Refused(400, "invalid_value", "[] is too short - 'tools'")
        choice = body.get("tool_choice")
        if choice is not None and not tools:
            raise Refused(400, "invalid_value", "'tool_choice' is only allowed when 'tools' are specified")
        names = [tool["function"]["name"] for tool in tools or ()]
        if isinstance(choice, dict) and choice["function"]["name"] not in names:
            raise Refused(400, "invalid_value", f"the chosen tool is none of {names}")
        self._check_calls(body["messages"])

    def _check_calls(self, messages: Sequence[Message]) -> None:
        owed: list[str] = []
        for message in messages:
            if message["role"] == "tool":
                if message["tool_call_id"] not in owed:
                    raise Refused(400, "invalid_value", "a message of role 'tool' must answer a call")
                owed.remove(message["tool_call_id"])
                continue
            if owed:
                raise Refused(400, "invalid_value", f"no tool message for the call {owed[0]}")
            owed = [call["id"] for call in message.get("tool_calls") or ()]
        if owed:
            raise Refused(400, "invalid_value", f"no tool message for the call {owed[0]}")

    async def _chunks(self, body: Message, reply: Reply) -> AsyncIterator[bytes]:
        def chunk(delta: Message, finish: str | None = None) -> bytes:
            choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
            return _event(body, {"choices": choices})

        yield chunk({"role": "assistant", "content": ""})
        for at in range(0, len(reply.text), reply.piece):
            yield chunk({"content": reply.text[at : at + reply.piece]})
        for index, call in enumerate(reply.calls):
            head = {"id": f"call_{len(self.requests)}_{index}", "type": "function"}
            if self.faults.no_index:
                function = {"name": call.name, "arguments": call.arguments}
                yield _event(body, _unindexed({**head, "function": function}), check=False)
                continue
            first = {"index": index, **head, "function": {"name": call.name, "arguments": ""}}
            yield chunk({"tool_calls": [first]})
            size = -(-len(call.arguments) // call.pieces) or 1
            for at in range(0, len(call.arguments), size):
                piece = {"index": index, "function": {"arguments": call.arguments[at : at + size]}}
                yield chunk({"tool_calls": [piece]})
        yield chunk({}, reply.finish or ("tool_calls" if reply.calls else "stop"))
        if (body.get("stream_options") or {}).get("include_usage") and not self.faults.keep_usage:
            usage: Message = {"prompt_tokens": 900, "completion_tokens": 20, "total_tokens": 920}
            usage["prompt_tokens_details"] = {"cached_tokens": 512}
            yield _event(body, {"choices": [], "usage": usage})
        yield b"data: [DONE]\n\n"

    # -- speech ----------------------------------------------------------------------------------------------

    async def _speech(self, request: web.Request) -> web.StreamResponse:
        body, refused = await self._answered(request, self._check_speech)
        if body is None:
            assert refused is not None
            return refused
        self.said.append(body["input"])
        sound = self.faults.speech_header + self.voice(body["input"])
        return await self._stream(request, self.faults.speech_format, _in_pieces(sound))

    def _check_speech(self, body: Message) -> None:
        if unknown := set(body) - set(SpeechCreateParams.__annotations__):
            raise Refused(400, "unknown_parameter", f"Unrecognized request argument: {sorted(unknown)[0]}")
        if body.get("model") not in SPEECH_MODELS:
            raise Refused(404, "model_not_found", f"The model `{body.get('model')}` does not exist")
        if body.get("voice") not in VOICES:
            raise Refused(400, "invalid_value", f"Input should be one of {sorted(VOICES)}: voice")
        if body.get("response_format") != "pcm" or not 0 < len(body.get("input", "")) <= 4096:
            raise Refused(400, "invalid_value", "response_format or input")


async def _in_pieces(sound: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(sound), 4801):  # not whole samples, as a network has it
        yield sound[at : at + 4801]


def _unindexed(call: Message) -> Message:
    return {"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}]}


def _event(body: Message, fields: Message, *, check: bool = True) -> bytes:
    """A chunk; one that the SDK's types don't allow is this simulator's own fault."""
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
    message = {**base, **fields}
    if check:
        ChatCompletionChunk.model_validate(message)
    return b"data: " + json.dumps(message, ensure_ascii=False).encode() + b"\n\n"


def _consume(value: Any) -> None:
    """Look at all of it: pydantic checks what is iterated when it is."""
    if isinstance(value, dict):
        for one in value.values():
            _consume(one)
    elif not isinstance(value, str | bytes | int | float | None):
        for one in value:
            _consume(one)


def _gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()
