"""The OpenAI Realtime (GA) protocol's messages: how ours are written, and what its refusals mean. No state.

Field names are those of the openai SDK's ``types.realtime`` (3.52).
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, Protocol, TypeVar

import msgspec
import orjson

from providers.base import Line, PastCall, SessionConfig, ToolSpec, TurnDetection
from providers.conversing import MalformedMessage
from providers.formats import PCM24, AudioFormat, UnknownFormat, format_of

NoiseReduction = Literal["near_field", "far_field"]

EXACT_INSTRUCTIONS: Mapping[str, str] = {
    "pt": "Diga exatamente, palavra por palavra, sem acrescentar nada: «{text}»",
    "en": "Say exactly this, word for word, adding nothing: «{text}»",
    "es": "Di exactamente, palabra por palabra, sin añadir nada: «{text}»",
}
"""How exact words are asked for, by the session's language; the model server of our own looks for the «»."""

BENIGN_ERRORS = frozenset(
    {"response_cancel_not_active", "conversation_already_has_active_response", "item_already_truncated"}
)
"""Error codes that report a race and nothing else."""

SESSION_ERRORS: Mapping[str, str] = {
    "session_expired": "the session reached the provider's time limit",
    "insufficient_quota": "the account's quota is used up",
    "invalid_api_key": "the key was refused",
    "model_not_found": "the model is not known there",
    "account_deactivated": "the account is deactivated",
}
"""Error codes after which nothing more can come of this session, in plain words."""

BILLED = "model_server.billed"
"""The type of the event with which the model server of our own says what others are to be paid; its ``usage``
holds the fields of :class:`providers.base.Usage`."""

SESSION_ERROR = "session_error"
"""The type of an error after which nothing more can come of this session. The model server of our own has it;
its code and words are those of :class:`providers.base.Failed` already."""

_HTTP_REFUSALS: Mapping[int, tuple[str, str]] = {
    401: ("key_refused", "the key was refused"),
    403: ("key_refused", "the key is not allowed to use this model"),
    404: ("unknown_model", "the address or the model is not known there"),
    429: ("rate_limit", "too many requests"),
}

_BODY_REFUSALS: Mapping[bytes, tuple[str, str]] = {
    b"insufficient_quota": ("quota", "the account's quota is used up"),
    b"DeploymentNotFound": ("unknown_model", "there is no deployment of this name"),
    b"model_not_found": ("unknown_model", "the model is not known there"),
}
"""Error codes in the body of a refusal, which say more than its status. The second one is Azure's."""


PARALLEL_CALLS: Final = ("gpt-realtime-2",)
"""How the names begin of the models that reason: they alone have ``parallel_tool_calls``."""

_APPEND = b'{"type":"input_audio_buffer.append","audio":"'


@dataclass(frozen=True, slots=True)
class Paid:
    """Who is paid, and for which models.

    Attributes:
        provider: as ``data/prices.toml`` names them.
        transcription_model: empty where the caller's words are in the price of the reply.
    """

    provider: str
    model: str
    transcription_model: str


class Dialect(Protocol):
    """What differs between the servers that speak this protocol: words, and never who says what when."""

    @property
    def audio(self) -> AudioFormat:
        """What is asked for, both ways."""

    @property
    def exact_speech(self) -> bool:
        """See :attr:`providers.base.Capabilities.exact_speech`."""

    @property
    def patience_s(self) -> float | None:
        """See :attr:`providers.base.Capabilities.patience_s`."""

    @property
    def paid(self) -> Paid | None:
        """Who is paid, and for what; None: the server says so itself (:data:`BILLED`)."""

    def session_update(self, config: SessionConfig) -> dict[str, Any]:
        """The whole configuration."""

    def confirmed_formats(self, session: Mapping[str, Any]) -> tuple[AudioFormat, AudioFormat]:
        """The formats of the caller's and of the model's audio, as ``session.updated`` has them.

        Raises:
            UnknownFormat: one of them is not confirmed, or nobody here can read it.
        """

    def response_create(
        self, tag: str, receipt: str | None, exact: str | None, language: str
    ) -> dict[str, Any]:
        """Ask for a response; ``tag`` comes back in its metadata and, if it is refused, as the event's id."""

    def past(self, line: Line | PastCall) -> list[dict[str, Any]]:
        """The items that tell the model of what was said or done before; no reply is asked for."""

    def decode_delta(self, frame: bytes) -> Delta | None:
        """One frame as a piece of speech, the short way; None: :func:`decode` will tell."""


@dataclass(frozen=True, slots=True)
class Wire:
    """The protocol as OpenAI itself speaks it; what is configured beside :class:`SessionConfig`."""

    voice: str
    transcription_model: str
    noise_reduction: NoiseReduction | None
    audio: AudioFormat = PCM24
    """What is asked for, both ways; see :func:`confirmed_formats`."""
    provider: str = "openai"
    model: str = ""
    """Named for the bill alone: the address has it."""
    itemised: bool = False
    """The server says itself who is paid."""
    parallel_calls: bool = False
    """Whether several tools may be called at once is said; see :func:`takes_parallel_calls`."""
    patience_s: float | None = None
    exact_speech: ClassVar[bool] = False

    @property
    def paid(self) -> Paid | None:
        """See :class:`Dialect`."""
        return None if self.itemised else Paid(self.provider, self.model, self.transcription_model)

    def session_update(self, config: SessionConfig) -> dict[str, Any]:
        """See :func:`session_update`."""
        return session_update(config, self)

    def confirmed_formats(self, session: Mapping[str, Any]) -> tuple[AudioFormat, AudioFormat]:
        """See :func:`confirmed_formats`."""
        return confirmed_formats(session, self.audio)

    def response_create(
        self, tag: str, receipt: str | None, exact: str | None, language: str
    ) -> dict[str, Any]:
        """See :func:`response_create`."""
        return response_create(tag, receipt, exact, language)

    def past(self, line: Line | PastCall) -> list[dict[str, Any]]:
        """See :func:`past`."""
        return past(line)

    def decode_delta(self, frame: bytes) -> Delta | None:
        """See :func:`decode_delta`."""
        return decode_delta(frame)


# -- ours ----------------------------------------------------------------------------------------------------


def encode(message: Mapping[str, Any]) -> bytes:
    """A message as the text frame that carries it, in UTF-8."""
    return orjson.dumps(message)


def audio_append(audio: bytes) -> bytes:
    """``input_audio_buffer.append`` of audio in the session's format.

    Written by hand: there are up to fifty of them a second on each leg.
    """
    return b"".join((_APPEND, b2a_base64(audio, newline=False), b'"}'))


def audio_append_message(audio: bytes) -> dict[str, Any]:
    """The same as :func:`audio_append`, not yet encoded."""
    return {"type": "input_audio_buffer.append", "audio": b2a_base64(audio, newline=False).decode()}


def session_update(config: SessionConfig, wire: Wire) -> dict[str, Any]:
    """The whole configuration. Turns are detected there (or by our VAD); responses are asked for here.

    ``SessionConfig.temperature`` has no field in the GA protocol and is not sent.
    """
    audio = dict(wire.audio.wire)
    transcription = {"model": wire.transcription_model, "language": config.language}
    if config.transcription_prompt:
        transcription["prompt"] = config.transcription_prompt
    output: dict[str, Any] = {"format": audio}
    if voice := config.voice or wire.voice:
        output["voice"] = voice
    parallel = {"parallel_tool_calls": True} if wire.parallel_calls else {}
    return {
        "type": "session.update",
        "event_id": "configure_1",
        "session": {
            "type": "realtime",
            "output_modalities": ["audio"],
            "instructions": config.instructions,
            "audio": {
                "input": {
                    "format": audio,
                    "noise_reduction": {"type": wire.noise_reduction} if wire.noise_reduction else None,
                    "transcription": transcription,
                    "turn_detection": _turn_detection(config.turn_detection),
                },
                "output": output,
            },
            "tools": [function_tool(tool) for tool in config.tools],
            "tool_choice": "auto",
            **parallel,
            "max_output_tokens": max(1, min(4096, config.max_output_tokens)),
        },
    }


def _turn_detection(turns: TurnDetection) -> dict[str, Any] | None:
    if turns.kind == "local":
        return None
    ours = {"create_response": False, "interrupt_response": False}
    if turns.kind == "semantic_vad":
        return {"type": "semantic_vad", "eagerness": turns.eagerness, **ours}
    return {
        "type": "server_vad",
        "threshold": turns.threshold,
        "prefix_padding_ms": turns.prefix_padding_ms,
        "silence_duration_ms": turns.silence_duration_ms,
        **ours,
    }


def takes_parallel_calls(model: str) -> bool:
    """Whether a model knows ``parallel_tool_calls``; the others refuse the whole configuration over it."""
    return model.startswith(PARALLEL_CALLS)


def function_tool(tool: ToolSpec) -> dict[str, Any]:
    """A tool as a session's configuration has it."""
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.parameters),
    }


def exact_instructions(text: str, language: str) -> str:
    """What asks the model for exactly these words."""
    return EXACT_INSTRUCTIONS.get(language, EXACT_INSTRUCTIONS["en"]).format(text=text)


def response_create(
    tag: str, receipt: str | None, exact: str | None = None, language: str = "pt"
) -> dict[str, Any]:
    """Ask for a response; ``tag`` comes back in its metadata and, where it is refused, as the event's id."""
    metadata = {"create": tag}
    if receipt is not None:
        metadata["receipt"] = receipt
    response: dict[str, Any] = {"metadata": metadata}
    if exact is not None:
        response |= {"instructions": exact_instructions(exact, language), "tool_choice": "none"}
    return {"type": "response.create", "event_id": tag, "response": response}


def response_cancel(event_id: str, response: str | None) -> dict[str, Any]:
    """Cancel a response; without a name: whichever runs."""
    message = {"type": "response.cancel", "event_id": event_id}
    if response is not None:
        message["response_id"] = response
    return message


def item_truncate(event_id: str, item: str, audio_end_ms: int) -> dict[str, Any]:
    """Have the model remember only the first ``audio_end_ms`` of its item."""
    return {
        "type": "conversation.item.truncate",
        "event_id": event_id,
        "item_id": item,
        "content_index": 0,
        "audio_end_ms": audio_end_ms,
    }


def item_delete(event_id: str, item: str) -> dict[str, Any]:
    """Have the model forget an item."""
    return {"type": "conversation.item.delete", "event_id": event_id, "item_id": item}


def system_note(event_id: str, text: str) -> dict[str, Any]:
    """Tell the model something."""
    (item,) = past(Line("system", text))
    return item_create(event_id, item)


_ROLES: Mapping[str, str] = {"caller": "user", "agent": "assistant", "system": "system"}


def past(line: Line | PastCall, assistant: str = "output_text") -> list[dict[str, Any]]:
    """What was said or done before, as items of a conversation.

    Args:
        assistant: the type of an assistant's text.
    """
    if isinstance(line, PastCall):
        called = {
            "type": "function_call",
            "call_id": line.id,
            "name": line.name,
            "arguments": line.arguments,
        }
        return [called, _call_output(line.id, line.result)]
    kind = assistant if line.speaker == "agent" else "input_text"
    content = [{"type": kind, "text": line.text}]
    return [{"type": "message", "role": _ROLES[line.speaker], "content": content}]


def item_create(event_id: str, item: Mapping[str, Any]) -> dict[str, Any]:
    """Put an item into the conversation."""
    return {"type": "conversation.item.create", "event_id": event_id, "item": dict(item)}


def _call_output(call: str, result: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call, "output": orjson.dumps(dict(result)).decode()}


def call_output(event_id: str, call: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """Answer a function call."""
    return item_create(event_id, _call_output(call, result))


# -- theirs --------------------------------------------------------------------------------------------------


class Delta(msgspec.Struct, tag_field="type", tag="response.output_audio.delta", frozen=True, gc=False):
    """``response.output_audio.delta``: what is used of it."""

    response_id: str
    item_id: str
    delta: bytes
    """Audio in the confirmed format; the decoder reads base64."""


D = TypeVar("D", bound=msgspec.Struct)

_HEAD = 256
"""A message's type comes within so many bytes; where it doesn't, it is decoded the long way."""


def delta_decoder(kind: type[D]) -> Callable[[bytes], D | None]:
    """Reads one frame as a piece of speech, in a third of the time that :func:`decode` and base64 take.

    It gives None for what is none, or none that is as it should be: :func:`decode` will tell.
    """
    mark = f'"{kind.__struct_config__.tag}"'.encode()
    decode_it = msgspec.json.Decoder(kind).decode

    def decode_delta(frame: bytes) -> D | None:
        if frame.find(mark, 0, _HEAD) < 0:
            return None
        try:
            return decode_it(frame)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None

    return decode_delta


decode_delta = delta_decoder(Delta)


def decode(frame: bytes) -> dict[str, Any]:
    """One frame as a message.

    Raises:
        MalformedMessage: not JSON, not an object, or without a ``type``.
    """
    try:
        message = orjson.loads(frame)
    except orjson.JSONDecodeError as exc:
        raise MalformedMessage(f"not JSON ({len(frame)} bytes)") from exc
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise MalformedMessage("no object with a type")
    return message


def confirmed_formats(session: Mapping[str, Any], asked: AudioFormat) -> tuple[AudioFormat, AudioFormat]:
    """The formats of the caller's and of the model's audio, as ``session.updated`` confirms them.

    Servers have been seen to confirm one format and send another; only what is confirmed counts, never what
    was asked for.

    Raises:
        UnknownFormat: one of them is not confirmed, or nobody here can read it.
    """
    audio = session.get("audio") or {}
    return _confirmed(audio, "input", asked), _confirmed(audio, "output", asked)


def _confirmed(audio: Mapping[str, Any], side: str, asked: AudioFormat) -> AudioFormat:
    confirmed = (audio.get(side) or {}).get("format")
    if not confirmed:
        raise UnknownFormat(
            f"the provider did not confirm the {side} audio format; {asked.wire['type']} was asked for"
        )
    try:
        return format_of(confirmed)
    except UnknownFormat as unknown:
        raise UnknownFormat(f"the {side} audio format that the provider confirmed: {unknown}") from unknown


def http_refusal(status: int, body: bytes) -> tuple[str, str]:
    """Code and plain words for a handshake that was answered with an HTTP status."""
    for mark, (code, words) in _BODY_REFUSALS.items():
        if mark in body:
            return code, f"{words} (HTTP {status})"
    code, words = _HTTP_REFUSALS.get(status, ("refused", "the provider refused the connection"))
    if status >= 500:
        code, words = "unavailable", "the provider is out of order"
    return code, f"{words} (HTTP {status})"
