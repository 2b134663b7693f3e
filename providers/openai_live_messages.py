"""The OpenAI Live protocol's messages: ours are written, theirs are read, refusals put in words. No state.

Field names are those of the openai SDK's ``types.live`` (3.52).
"""

from __future__ import annotations

from binascii import b2a_base64
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec
import orjson

from providers import openai_messages
from providers.base import Line, PastCall, SessionConfig
from providers.conversing import MalformedMessage
from providers.formats import PCM16, PCM24, PCMA, PCMU, AudioFormat, FormatName, UnknownFormat
from providers.openai_messages import EXACT_INSTRUCTIONS, delta_decoder, function_tool
from providers.usage import timed

FORMATS: Final[Mapping[FormatName, AudioFormat]] = {one.name: one for one in (PCM24, PCM16, PCMU, PCMA)}
MAX_CONTENT: Final = 1200
"""Characters of an appended text: it may have 500 tokens, and Portuguese has three to four letters each."""

MAX_HISTORY: Final = 128
"""Messages that a session may begin with."""
MAX_HISTORY_LETTERS: Final = 20_000
"""Of all of them together: they may have 8,192 tokens."""

T = TypeVar("T")

_APPEND = b'{"type":"session.input_audio.append","audio":"'


@dataclass(frozen=True, slots=True)
class Words:
    """What the models are told beside the tenant's instructions, by the session's language."""

    live: str
    backend: str
    note: str
    about: str
    unheard: str
    heard: str
    result: str


_WORDS: Mapping[str, Words] = {
    "pt": Words(
        live="Fale sempre em português do Brasil. Você mesmo não tem ferramentas: quando precisar de uma, "
        "delegue, e nunca anuncie um resultado antes de ele voltar. O que um aviso do sistema manda dizer "
        "exatamente, diga palavra por palavra, sem acrescentar nada.",
        backend="Você não fala com a pessoa: quem fala é o modelo de voz, que lhe delega tarefas. Chame as "
        "ferramentas que a conversa pede e devolva em uma frase o que resultou. Não invente resultados.",
        note="[Aviso do sistema, não é fala de quem está na linha] {text}",
        about="[Aviso do sistema, não é fala de quem está na linha] {text}\nFale disso agora.",
        unheard="A pessoa não ouviu a sua última fala.",
        heard="A pessoa interrompeu você. Da sua última fala ela só ouviu: «{text}»",
        result="Resultado de {tool}: {text}. Não fale disso agora; espere o próximo aviso.",
    ),
    "es": Words(
        live="Habla siempre en español. Tú no tienes herramientas: cuando necesites una, delega, y nunca "
        "anuncies un resultado antes de que vuelva. Lo que un aviso del sistema mande decir exactamente, "
        "dilo palabra por palabra, sin añadir nada.",
        backend="No hablas con la persona: habla el modelo de voz, que te delega tareas. Llama a las "
        "herramientas que pide la conversación y devuelve en una frase el resultado. No inventes resultados.",
        note="[Aviso del sistema, no lo dice quien está en la línea] {text}",
        about="[Aviso del sistema, no lo dice quien está en la línea] {text}\nHabla de esto ahora.",
        unheard="La persona no oyó lo último que dijiste.",
        heard="La persona te interrumpió. De lo último que dijiste solo oyó: «{text}»",
        result="Resultado de {tool}: {text}. No hables de esto ahora; espera el próximo aviso.",
    ),
    "en": Words(
        live="You have no tools yourself: where you need one, delegate, and never announce a result before "
        "it is back. What a system notice has you say exactly, say word for word, adding nothing.",
        backend="You do not talk to the person: the voice model does, and delegates tasks to you. Call the "
        "tools that the conversation asks for and give back in a sentence what came of it. Invent nothing.",
        note="[System notice, not said by the person on the line] {text}",
        about="[System notice, not said by the person on the line] {text}\nSpeak about it now.",
        unheard="The person did not hear what you said last.",
        heard="The person interrupted you. Of what you said last they heard only: «{text}»",
        result="Result of {tool}: {text}. Do not speak about it now; wait for the next notice.",
    ),
}


def words(language: str) -> Words:
    """The texts of a language; English for those that are not here."""
    return _WORDS.get(language, _WORDS["en"])


def exact(text: str, language: str) -> str:
    """What asks the voice for exactly these words."""
    return EXACT_INSTRUCTIONS.get(language, EXACT_INSTRUCTIONS["en"]).format(text=text)


# -- ours ----------------------------------------------------------------------------------------------------

encode = openai_messages.encode


def audio_append(audio: bytes) -> bytes:
    """``session.input_audio.append``. Written by hand: there are up to fifty of them a second on each leg."""
    return b"".join((_APPEND, b2a_base64(audio, newline=False), b'"}'))


def format_wire(audio: AudioFormat) -> dict[str, Any]:
    """A format as this protocol names it: the rate is always told."""
    return {"type": f"audio/{audio.encoding}", "rate": audio.rate}


def session_start(
    config: SessionConfig, model: str, voice: str, backend_model: str, audio: AudioFormat
) -> dict[str, Any]:
    """The whole configuration, which can't be changed afterwards.

    Delegation to ``responses``, not to ``client``: only there a model calls our tools by name. A client's
    delegation carries no task, only that there is one.
    """
    said = words(config.language)
    output: dict[str, Any] = {}
    if name := config.voice or voice:
        output["output"] = {"voice": name}
    backend: dict[str, Any] = {
        "model": backend_model,
        "instructions": _together(config.instructions, said.backend),
        "parallel_tool_calls": True,
    }
    if config.tools:
        backend["tools"] = [function_tool(tool) for tool in config.tools]
    session = {
        "model": model,
        "instructions": _together(config.instructions, said.live),
        "audio": {"format": format_wire(audio), **output},
        "delegation": {"type": "responses", "responses": backend},
        "store": False,
    }
    if config.history:
        session["input"] = past(config.history)
    return {"type": "session.start", "event_id": "start", "session": session}


def past(lines: Sequence[Line | PastCall]) -> list[dict[str, Any]]:
    """A conversation as the messages that a session begins with: the newest that there is room for.

    They are texts alone: a call and its outcome are told as one.
    """
    messages: deque[dict[str, Any]] = deque()
    left = MAX_HISTORY_LETTERS
    for line in reversed(lines):
        if isinstance(line, PastCall):
            line = Line(
                "system", f"{line.name} {line.arguments} → {orjson.dumps(dict(line.result)).decode()}"
            )
        left -= len(line.text)
        if left < 0 or len(messages) == MAX_HISTORY:
            break
        if line.text:
            role, kind = _SPEAKERS[line.speaker]
            messages.appendleft({"role": role, "content": [{"type": kind, "text": line.text}]})
    return list(messages)


_SPEAKERS: Mapping[str, tuple[str, str]] = {
    "caller": ("user", "input_text"),
    "agent": ("assistant", "output_text"),
    "system": ("developer", "input_text"),
}


def _together(*texts: str) -> str:
    return "\n\n".join(text for text in texts if text)


def append(channel: str, event_id: str, content: str) -> dict[str, Any]:
    """Tell the voice something: ``thinking`` keeps it to itself, ``commentary`` is spoken about."""
    return {
        "type": f"session.{channel}.append",
        "event_id": event_id,
        "delegation_id": None,  # must be told; where the provider's own model is delegated to, it is null
        "content": content,
    }


def pieces(text: str) -> list[str]:
    """A text in parts that may each be appended, cut where a word ends."""
    parts: list[str] = []
    while len(text) > MAX_CONTENT:
        cut = text.rfind(" ", 1, MAX_CONTENT + 1)
        cut = MAX_CONTENT if cut < 0 else cut
        parts.append(text[:cut])
        text = text[cut:].lstrip()
    return [*parts, text] if text else parts


def call_output(event_id: str, call: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """Answer a function call of the delegated model's."""
    item = {"type": "function_call_output", "call_id": call, "output": orjson.dumps(dict(result)).decode()}
    return {"type": "response.item.create", "event_id": event_id, "item": item}


def response_create(event_id: str) -> dict[str, Any]:
    """Have the delegated model go on, once all its calls are answered."""
    return {"type": "response.create", "event_id": event_id}


CLOSE: Final = encode({"type": "session.close"})


# -- theirs --------------------------------------------------------------------------------------------------


class Delta(msgspec.Struct, tag_field="type", tag="session.output_audio.delta", frozen=True, gc=False):
    """A piece of the voice's stream, in the confirmed format."""

    delta: bytes
    """The decoder reads base64."""


decode_delta = delta_decoder(Delta)


class _Audio(msgspec.Struct):
    format: dict[str, Any] | None = None


class _Resource(msgspec.Struct):
    expires_at: float
    audio: _Audio | None = None


class Started(msgspec.Struct):
    """``session.started``."""

    session: _Resource


class Appended(msgspec.Struct):
    """A text is on the session's timeline."""

    client_event_id: str | None = None


class Said(msgspec.Struct):
    """A piece of a transcript; the times are of the session."""

    delta: str
    start_ms: int
    end_ms: int


class ResponseEvent(msgspec.Struct):
    """An event of the delegated model's response."""

    event: dict[str, Any]
    delegation_id: str | None = None


class Billed(msgspec.Struct):
    """A message with what is billed."""

    usage: Any = None
    """Of any shape: a bill that can't be read must not end the session."""

    @property
    def seconds(self) -> float:
        """Of the whole session so far; 0 where that is not told."""
        told = self.usage.get("seconds") if isinstance(self.usage, dict) else None
        return timed("", "", "session", told).seconds


class UsageUpdated(Billed):
    """``session.usage.updated``."""


class Closed(Billed, kw_only=True):
    """``session.closed``."""

    reason: str


class _ErrorBody(msgspec.Struct):
    code: str | None = None
    message: str | None = None
    client_event_id: str | None = None
    param: str | None = None


class ErrorEvent(msgspec.Struct):
    """``error``."""

    error: _ErrorBody


class FunctionCall(msgspec.Struct):
    """An item of the delegated model's: a completed call."""

    call_id: str
    name: str
    arguments: str
    status: str = ""


ServerMessage = Started | Appended | Said | ResponseEvent | UsageUpdated | Closed | ErrorEvent | Delta

_KINDS: Mapping[str, type[ServerMessage]] = {
    "session.started": Started,
    "session.commentary.appended": Appended,
    "session.input_transcript.delta": Said,
    "session.output_transcript.delta": Said,
    "session.output_audio.delta": Delta,
    "response.event": ResponseEvent,
    "session.usage.updated": UsageUpdated,
    "session.closed": Closed,
    "error": ErrorEvent,
}
"""What is used of the protocol. The rest is passed over."""


def decode(frame: bytes) -> tuple[str, ServerMessage | None]:
    """One frame: its type, and its message where that is one we use.

    Raises:
        MalformedMessage: not JSON, no object with a type, or a field that is not as it must be.
    """
    raw = openai_messages.decode(frame)
    kind = _KINDS.get(raw["type"])
    return raw["type"], None if kind is None else _convert(raw, kind)


def function_call(item: Mapping[str, Any]) -> FunctionCall | None:
    """The call that an output item is; None: it is something else, or was not completed.

    Raises:
        MalformedMessage: a call without a name, an id or arguments.
    """
    if item.get("type") != "function_call" or item.get("status") != "completed":
        return None
    return _convert(item, FunctionCall)


def _convert(raw: Mapping[str, Any], kind: type[T]) -> T:
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        raise MalformedMessage(f"{raw['type']}: {error}") from error


def confirmed(started: Started) -> AudioFormat:
    """The format of both sides' audio, as ``session.started`` has it.

    Raises:
        UnknownFormat: it is not told, or nobody here can read it.
    """
    wire = started.session.audio.format if started.session.audio is not None else None
    if not wire:
        raise UnknownFormat("the provider did not confirm an audio format")
    for one in FORMATS.values():
        if wire == format_wire(one):
            return one
    allowed = ", ".join(f"{one.encoding} at {one.rate} Hz" for one in FORMATS.values())
    raise UnknownFormat(f"found {wire.get('type')} at {wire.get('rate')} Hz; allowed are {allowed}")


# -- what their refusals mean --------------------------------------------------------------------------------

http_refusal = openai_messages.http_refusal

_CODES: Mapping[str, tuple[str, str]] = {
    "invalid_api_key": ("key_refused", "the key was refused"),
    "model_not_found": ("unknown_model", "the model is not known there"),
    "insufficient_quota": ("quota", "the account's quota is used up"),
    "credit_balance_exhausted": ("quota", "the account's quota is used up"),
    "rate_limit_exceeded": ("rate_limit", "too many sessions or requests"),
    "session_expired": ("session_expired", "the session reached the provider's time limit"),
    "account_deactivated": ("account_deactivated", "the account is deactivated"),
}

_REASONS: Mapping[str, tuple[str, str]] = {
    "expired": ("session_expired", "the session reached the provider's time limit"),
    "content": ("content_refused", "the provider's safety filter ended the session"),
}


def lasting_error(error: ErrorEvent, *, started: bool) -> tuple[str, str] | None:
    """Code and plain words for an error that ends the session; None: the session goes on."""
    body = error.error
    if (known := _CODES.get(body.code or "")) is not None:
        return known[0], f"{known[1]}: {body.message}"
    if started:
        return None
    param = body.param or ""
    if "voice" in param:
        return "unsupported_voice", f"the voice is not known there: {body.message}"
    if param.endswith("model"):
        return "unknown_model", f"the model is not known there: {body.message}"
    return "configuration_refused", f"the provider refused the configuration: {body.message}"


def closed_in_words(closed: Closed) -> tuple[str, str]:
    """Code and plain words for a session that the provider ended."""
    return _REASONS.get(closed.reason, ("went_away", f"the provider ended the session ({closed.reason})"))
