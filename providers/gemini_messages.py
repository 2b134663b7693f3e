"""The Gemini Live protocol's messages (``BidiGenerateContent``): how ours are written, how theirs are read.

No state. Field names are those of google-genai's ``types`` (3.4), which also write all of ours but the audio:
they know no field that the vendor does not. That the model ``gemini-3.8-live`` takes ``clientContent`` at any
time, and that ``turnComplete`` in it interrupts, is from the vendor's page of that model.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
import orjson
from google.genai import types
from pydantic import BaseModel

from providers.base import SessionConfig, ToolSpec
from providers.conversing import MalformedMessage

INPUT_RATE: Final = 16000
OUTPUT_RATE: Final = 24000
OUTPUT_MIME: Final = f"audio/pcm;rate={OUTPUT_RATE}"

_AUDIO = f'{{"realtimeInput":{{"audio":{{"mimeType":"audio/pcm;rate={INPUT_RATE}","data":"'.encode()
_LOCALES: Mapping[str, str] = {"pt": "pt-BR", "en": "en-US", "es": "es-ES"}


# -- ours ----------------------------------------------------------------------------------------------------


def audio(pcm: bytes) -> bytes:
    """``realtimeInput.audio`` of PCM at :data:`INPUT_RATE`. By hand: up to fifty a second on each leg."""
    return b"".join((_AUDIO, b2a_base64(pcm, newline=False), b'"}}}'))


def _encode(message: types.LiveClientMessage) -> bytes:
    return message.model_dump_json(by_alias=True, exclude_none=True).encode()


def setup(
    config: SessionConfig, model: str, voice: str, handle: str | None = None, *, history: bool = False
) -> bytes:
    """The first message of a connection. Turns are ours: its own VAD is off.

    Args:
        handle: of the session to resume.
        history: the next message is a conversation to begin with, see :func:`past`.
    """
    name = config.voice or voice
    speech = types.SpeechConfig(
        voice_config=types.VoiceConfig(prebuilt_voice_config=types.PrebuiltVoiceConfig(voice_name=name))
    )
    vocabulary = [
        phrase.strip() for phrase in re.split(r"[.,;?!]", config.transcription_prompt) if phrase.strip()
    ]
    instructions = types.Content(parts=[types.Part(text=config.instructions)])
    tools = types.Tool(function_declarations=[_tool(tool) for tool in config.tools])
    written = types.LiveClientSetup(
        model=model if "/" in model else f"models/{model}",
        generation_config=types.GenerationConfig(
            response_modalities=[types.Modality.AUDIO],
            max_output_tokens=config.max_output_tokens,
            temperature=config.temperature,
            speech_config=speech if name else None,
        ),
        system_instruction=instructions if config.instructions else None,
        tools=[tools] if config.tools else None,
        input_audio_transcription=types.AudioTranscriptionConfig(
            language_codes=[_LOCALES.get(config.language, config.language)],
            custom_vocabulary=vocabulary or None,
        ),
        output_audio_transcription=types.AudioTranscriptionConfig(),
        session_resumption=types.SessionResumptionConfig(handle=handle),
        context_window_compression=types.ContextWindowCompressionConfig(sliding_window=types.SlidingWindow()),
        history_config=types.HistoryConfig(initial_history_in_client_content=True) if history else None,
    )
    turns = types.RealtimeInputConfig(
        automatic_activity_detection=types.AutomaticActivityDetection(disabled=True),
        activity_handling=types.ActivityHandling.START_OF_ACTIVITY_INTERRUPTS,
        turn_coverage=types.TurnCoverage.TURN_INCLUDES_ONLY_ACTIVITY,
    )
    # The SDK writes this field as well, by another way: its type of the message lacks it.
    return orjson.dumps({"setup": _plain(written) | {"realtimeInputConfig": _plain(turns)}})


def _plain(value: BaseModel) -> dict[str, Any]:
    return value.model_dump(mode="json", by_alias=True, exclude_none=True)


def _tool(tool: ToolSpec) -> types.FunctionDeclaration:
    return types.FunctionDeclaration(
        name=tool.name, description=tool.description, parameters_json_schema=dict(tool.parameters)
    )


def activity(*, begins: bool) -> bytes:
    """The caller begins to speak, or is through."""
    return _START if begins else _END


_START = _encode(
    types.LiveClientMessage(
        realtime_input=types.LiveClientRealtimeInput(activity_start=types.ActivityStart())
    )
)
_END = _encode(
    types.LiveClientMessage(realtime_input=types.LiveClientRealtimeInput(activity_end=types.ActivityEnd()))
)


def text(text: str, *, reply: bool) -> bytes:
    """Tell the model something. With ``reply`` it answers, and whatever it was saying is over."""
    return past([("user", text)], complete=reply)


def past(turns: Iterable[tuple[str, str]], *, complete: bool = True) -> bytes:
    """A conversation of (role, text), the roles being ``user`` and ``model``."""
    contents = [types.Content(role=role, parts=[types.Part(text=words)]) for role, words in turns]
    content = types.LiveClientContent(turns=contents, turn_complete=complete)
    return _encode(types.LiveClientMessage(client_content=content))


def tool_response(call: str, name: str, result: Mapping[str, Any], *, reply: bool) -> bytes:
    """Answer a call; with ``reply`` the model speaks about it once it says nothing else."""
    when = types.FunctionResponseScheduling.WHEN_IDLE if reply else types.FunctionResponseScheduling.SILENT
    response = types.FunctionResponse(id=call, name=name, response=dict(result), scheduling=when)
    return _encode(
        types.LiveClientMessage(tool_response=types.LiveClientToolResponse(function_responses=[response]))
    )


# -- theirs --------------------------------------------------------------------------------------------------


class _Part(msgspec.Struct, rename="camel", gc=False):
    """A struct of the server's; what is not named is passed over."""


class Blob(_Part):
    data: bytes = b""
    """The decoder reads base64."""
    mime_type: str = ""


class ContentPart(_Part):
    inline_data: Blob | None = None
    thought: bool | None = None


class Content(_Part):
    parts: list[ContentPart] | None = None


class Transcription(_Part):
    text: str | None = None
    finished: bool | None = None


class ServerContent(_Part):
    model_turn: Content | None = None
    turn_complete: bool | None = None
    interrupted: bool | None = None
    generation_complete: bool | None = None
    input_transcription: Transcription | None = None
    output_transcription: Transcription | None = None
    turn_complete_reason: str | None = None


class FunctionCall(_Part):
    name: str
    id: str
    args: dict[str, Any] | None = None
    will_continue: bool | None = None
    partial_args: list[Any] | None = None


class ServerToolCall(_Part):
    function_calls: list[FunctionCall] | None = None


class Cancellation(_Part):
    ids: list[str] | None = None


class GoAway(_Part):
    time_left: str | None = None


class Resumption(_Part):
    new_handle: str | None = None
    resumable: bool | None = None


class ServerMessage(_Part):
    """A message of the server; its fields are not exclusive of each other."""

    setup_complete: dict[str, Any] | None = None
    server_content: ServerContent | None = None
    tool_call: ServerToolCall | None = None
    tool_call_cancellation: Cancellation | None = None
    usage_metadata: Any = None
    """Of any shape: a bill that can't be read must not end the session."""
    go_away: GoAway | None = None
    session_resumption_update: Resumption | None = None


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


def seconds(duration: str | None) -> float:
    """A protobuf duration (``"57.5s"``) in seconds; 0 where none is told.

    Raises:
        MalformedMessage: it is something else.
    """
    if not duration:
        return 0.0
    try:
        value = float(duration.removesuffix("s"))
    except ValueError:
        value = -1.0
    if not duration.endswith("s") or not 0 <= value < 1e6:
        raise MalformedMessage(f"found {duration!r}; a duration is for example '57.5s'")
    return value


# -- what their refusals mean --------------------------------------------------------------------------------

_REASONS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("api key", "unauthenticated", "permission denied"), "key_refused", "the key was refused"),
    (
        ("is not found for api version", "not supported for bidi"),
        "unknown_model",
        "the model is not known there",
    ),
    (("voice",), "unsupported_voice", "the voice is not known there"),
    (("quota", "billing"), "quota", "the account's quota is used up"),
    (("resource_exhausted", "rate limit", "concurrent"), "rate_limit", "too many sessions or requests"),
)
"""What a reason may hold, in small letters; code; plain words. The first that fits counts."""

LASTING = frozenset({"key_refused", "unknown_model", "unsupported_voice", "quota", "rate_limit"})
"""Codes after which another attempt would end the same way."""

_HTTP: Mapping[int, tuple[str, str]] = {
    401: ("key_refused", "the key was refused"),
    403: ("key_refused", "the key is not allowed to use this model"),
    404: ("unknown_model", "the address or the model is not known there"),
    429: ("rate_limit", "too many requests, or the quota is used up"),
}


def _by_reason(reason: str) -> tuple[str, str] | None:
    small = reason.lower()
    return next(((code, said) for signs, code, said in _REASONS if any(s in small for s in signs)), None)


def http_refusal(status: int, body: bytes) -> tuple[str, str]:
    """Code and plain words for a handshake that was answered with an HTTP status."""
    known = _by_reason(body.decode(errors="replace")) if status in (400, 429) else None
    code, said = known or _HTTP.get(status, ("refused", "the provider refused the connection"))
    if status >= 500:
        code, said = "unavailable", "the provider is out of order"
    return code, f"{said} (HTTP {status})"


def close_refusal(code: int | None, reason: str) -> tuple[str, str] | None:
    """Code and plain words for a close frame that tells of more than a broken connection; None: it doesn't.

    The vendor accepts the handshake with any key and any model, and says no by closing.
    """
    known = _by_reason(reason)
    if known is None or code not in (1007, 1008, 1011):
        return None
    return known[0], f"{known[1]} (code {code}: {reason})"
