"""The ElevenLabs Agents protocol's messages: how ours are written, how theirs are read. No state.

Names are those of the vendor's contract of the socket (``@elevenlabs/types`` 0.23), which the Python SDK
(elevenlabs 2.78) has no types for, but for the first message. What is in its list of client events and not in
the contract (``agent_response_complete``) is as clients have met it.
"""

from __future__ import annotations

import json
import re
from binascii import b2a_base64
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import orjson

from providers.base import SessionConfig
from providers.conversing import MalformedMessage, SessionOver
from providers.formats import PCM8, PCM16, PCM24, PCMU, AudioFormat

FORMATS: Final[Mapping[str, AudioFormat]] = {
    "ulaw_8000": PCMU,
    "pcm_8000": PCM8,
    "pcm_16000": PCM16,
    "pcm_24000": PCM24,
}
"""By the vendor's names. It has others, which are of no use on a telephone."""

_LANGUAGES: Final[Mapping[str, str]] = {"pt": "pt-br"}

# -- ours ----------------------------------------------------------------------------------------------------


def opening(config: SessionConfig, voice: str, first_message: str) -> bytes:
    """The first message of a connection: what this call has in place of the agent's own.

    Args:
        voice: empty: the agent's.
        first_message: what the agent says at once, word for word; empty: it waits for the caller.
    """
    agent: dict[str, Any] = {
        "prompt": {"prompt": _literal(config.instructions)},
        "first_message": _literal(first_message),
        "language": _LANGUAGES.get(config.language, config.language),
    }
    override: dict[str, Any] = {"agent": agent}
    if config.voice or voice:
        override["tts"] = {"voice_id": config.voice or voice}
    return orjson.dumps(
        {"type": "conversation_initiation_client_data", "conversation_config_override": override}
    )


def _literal(text: str) -> str:
    """The vendor replaces ``{{name}}`` by a variable, and ends the conversation over one that it lacks."""
    return text.replace("{{", "{ {")


def audio(data: bytes) -> bytes:
    """The caller's audio, in the confirmed format. By hand: up to fifty a second on each leg."""
    return b"".join((b'{"user_audio_chunk":"', b2a_base64(data, newline=False), b'"}'))


def pong(event_id: int) -> bytes:
    """The answer to a ping."""
    return orjson.dumps({"type": "pong", "event_id": event_id})


def note(text: str) -> bytes:
    """Tell the model something. It neither interrupts nor asks for a reply."""
    return orjson.dumps({"type": "contextual_update", "text": text})


def user_message(text: str) -> bytes:
    """Say something in the caller's place. It interrupts, and asks for a reply."""
    return orjson.dumps({"type": "user_message", "text": text})


def tool_result(call: str, result: Mapping[str, Any]) -> bytes:
    """Answer a call.

    Always as JSON text, since clients take an empty result for a success. Never as an error: what an error
    says is kept from the model unless the agent is configured otherwise.
    """
    text = orjson.dumps(dict(result)).decode()
    return orjson.dumps(
        {"type": "client_tool_result", "tool_call_id": call, "result": text, "is_error": False}
    )


# -- theirs --------------------------------------------------------------------------------------------------


class Audio(msgspec.Struct, gc=False):
    event_id: int
    audio_base_64: bytes
    """The decoder reads base64."""


class UserTranscript(msgspec.Struct, gc=False):
    user_transcript: str


class AgentResponse(msgspec.Struct, gc=False):
    agent_response: str


class Correction(msgspec.Struct, gc=False):
    original_agent_response: str
    corrected_agent_response: str


class Numbered(msgspec.Struct, gc=False):
    """``interruption_event``, ``ping_event``, ``agent_response_complete_event``."""

    event_id: int


class Metadata(msgspec.Struct, gc=False):
    agent_output_audio_format: str
    user_input_audio_format: str


class ToolCallMade(msgspec.Struct, gc=False):
    tool_name: str
    tool_call_id: str
    parameters: dict[str, Any] = {}
    expects_response: bool = True


class ToolSettled(msgspec.Struct, gc=False):
    tool_call_id: str


class ErrorTold(msgspec.Struct, gc=False):
    message: str | None = None
    error_type: str | None = None
    reason: str | None = None


class ServerMessage(msgspec.Struct, gc=False):
    """A message of the server; ``type`` says which of its fields counts."""

    type: str
    audio_event: Audio | None = None
    user_transcription_event: UserTranscript | None = None
    agent_response_event: AgentResponse | None = None
    agent_response_correction_event: Correction | None = None
    agent_response_complete_event: Numbered | None = None
    interruption_event: Numbered | None = None
    ping_event: Numbered | None = None
    conversation_initiation_metadata_event: Metadata | None = None
    client_tool_call: ToolCallMade | None = None
    agent_tool_response: ToolSettled | None = None
    error_event: ErrorTold | None = None
    message: str | None = None
    """Of an error that comes without an ``error_event``."""


_decode = msgspec.json.Decoder(ServerMessage).decode


def decode(frame: bytes) -> ServerMessage:
    """One frame as a message.

    Raises:
        MalformedMessage: not JSON, or a field that is not as it must be.
    """
    try:
        return _decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedMessage(str(error)) from error


def format_of(name: str) -> AudioFormat:
    """The format that a conversation's metadata names.

    Raises:
        SessionOver: one that we don't take; only the agent's configuration can change it.
    """
    found = FORMATS.get(name)
    if found is None:
        allowed = ", ".join(FORMATS)
        raise SessionOver("unsupported_format", f"the agent speaks {name!r}; configure one of {allowed}")
    return found


def signed_url(body: bytes, secure: bool) -> str:
    """The address in the answer of ``get-signed-url``. It is a secret: whoever has it can open the session.

    Args:
        secure: it must be one with TLS.

    Raises:
        SessionOver: there is none such.
    """
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    url = answer.get("signed_url") if isinstance(answer, dict) else None
    schemes = ("wss://",) if secure else ("wss://", "ws://")
    if not isinstance(url, str) or not url.startswith(schemes):
        raise SessionOver(
            "protocol_error", f"the provider gave no address that begins with {' or '.join(schemes)}"
        )
    return url


# -- what their refusals mean --------------------------------------------------------------------------------

_OVERRIDE = re.compile(r"override for field '?(\w+)'? is not allowed", re.IGNORECASE)
_REASONS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("quota", "credits", "payment", "billing"), "quota", "the account's quota is used up"),
    (
        ("concurren", "rate limit", "rate_limit", "too many", "system_busy"),
        "rate_limit",
        "too many conversations or requests",
    ),
    (("voice",), "unsupported_voice", "the voice is not known there"),
    (("language",), "unsupported_language", "the agent does not speak this language"),
    (
        ("max_duration", "max duration", "maximum duration"),
        "time_over",
        "the agent's maximum duration is over; it must be longer than limits.max_visit_s",
    ),
    (
        ("api key", "api_key", "permission", "authoriz", "authentic", "signature", "token"),
        "key_refused",
        "the key was refused",
    ),
    (("misconfigured",), "agent_misconfigured", "the agent is misconfigured there"),
    (("does not exist", "not found", "not_found"), "unknown_model", "the agent is not known there"),
)
"""What a reason may hold, in small letters; code; plain words. The first that fits counts."""

_HTTP: Mapping[int, tuple[str, str]] = {
    401: ("key_refused", "the key was refused"),
    402: ("quota", "the account's quota is used up"),
    403: ("key_refused", "the key is not allowed to use this agent"),
    404: ("unknown_model", "the agent is not known there"),
    422: ("unknown_model", "the agent is not known there"),
    429: ("rate_limit", "too many requests"),
}


def refusal(reason: str) -> tuple[str, str] | None:
    """Code and plain words for what the vendor gave as its reason; None: it says nothing that we know."""
    if (refused := _OVERRIDE.search(reason)) is not None:
        field = refused.group(1)
        return "override_refused", (
            f"the agent does not let a call set its {field}: allow the override of {field} "
            "in the agent's security settings"
        )
    small = reason.lower()
    return next(((code, said) for signs, code, said in _REASONS if any(s in small for s in signs)), None)


def http_refusal(status: int, body: bytes) -> tuple[str, str]:
    """Code and plain words for a request, or a handshake, that was answered with an HTTP status."""
    known = refusal(body.decode(errors="replace")) if 400 <= status < 500 else None
    code, said = known or _HTTP.get(status, ("refused", "the provider refused the connection"))
    if status >= 500:
        code, said = "unavailable", "the provider is out of order"
    return code, f"{said} (HTTP {status})"


def told(message: ServerMessage) -> tuple[str, str]:
    """Code and plain words for an error that the server tells of before it closes."""
    error = message.error_event or ErrorTold()
    parts = (error.error_type, error.message, error.reason, message.message)
    reason = ": ".join(dict.fromkeys(part for part in parts if part)) or "it did not say why"
    code, said = refusal(reason) or ("refused", "the provider ended the conversation")
    return code, f"{said} ({reason})"


def close_refusal(code: int, reason: str) -> tuple[str, str] | None:
    """Code and plain words for a close frame; None: it tells of nothing more than a lost connection.

    The vendor takes the connection and says no by closing it, with several codes (1002, 1008, 3000).
    """
    if (known := refusal(reason)) is not None:
        return known[0], f"{known[1]} (code {code}: {reason})"
    if code == 1000:
        return "went_away", f"the agent ended the conversation (code {code}{f': {reason}' * bool(reason)})"
    return None
