"""What a client of the model server may send, checked at the border; and the errors it is answered with.

Source of the fields: the types of the official SDK (``openai.types.realtime``, GA names). What the protocol
knows but this server can't do is refused by name, not swallowed.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Final, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

RATE: Final = 24000


class RequestError(Exception):
    """A client event that is answered with an ``error`` event; the session goes on."""

    def __init__(
        self,
        message: str,
        *,
        code: str = "invalid_value",
        param: str | None = None,
        event_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.param = param
        self.event_id = event_id


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


# ------------------------------------------------------------------------------------- the session's parts


class PcmFormat(_Strict):
    """16-bit PCM at the protocol's one rate for it."""

    type: Literal["audio/pcm"] = "audio/pcm"
    rate: Literal[24000] = 24000


class UlawFormat(_Strict):
    """G.711 µ-law at 8 kHz."""

    type: Literal["audio/pcmu"]


class AlawFormat(_Strict):
    """G.711 A-law at 8 kHz."""

    type: Literal["audio/pcma"]


Format = Annotated[PcmFormat | UlawFormat | AlawFormat, Field(discriminator="type")]


class ServerVad(_Strict):
    """Turn detection by silence; the defaults are the protocol's."""

    type: Literal["server_vad"] = "server_vad"
    threshold: float = Field(default=0.5, ge=0.0, le=1.0)
    prefix_padding_ms: int = Field(default=300, ge=0, le=5000)
    silence_duration_ms: int = Field(default=500, ge=50, le=10_000)
    idle_timeout_ms: int | None = Field(default=None, ge=5000, le=30_000)
    create_response: bool = True
    interrupt_response: bool = True


class Transcription(_Strict):
    """Whether and how the caller's words are reported. ``model`` is noted, there is only one."""

    model: str | None = None
    language: str | None = Field(default=None, pattern=r"^[a-z]{2,3}$")
    prompt: str | None = Field(default=None, max_length=8000)
    keywords: list[str] | None = None


class NoiseReduction(_Strict):
    """Accepted since clients of the protocol send it; the recogniser here does best on the plain sound."""

    type: Literal["near_field", "far_field"] | None = None
    strength: float | None = None


class AudioInput(_Strict):
    format: Format = PcmFormat()
    transcription: Transcription | None = None
    noise_reduction: NoiseReduction | None = None
    turn_detection: ServerVad | None = ServerVad()


class AudioOutput(_Strict):
    format: Format = PcmFormat()
    voice: str = "default"
    speed: float = Field(default=1.0, ge=0.25, le=1.5)


class Audio(_Strict):
    input: AudioInput = AudioInput()
    output: AudioOutput = AudioOutput()


class FunctionTool(_Strict):
    type: Literal["function"]
    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)


class NamedChoice(_Strict):
    type: Literal["function"]
    name: str


ToolChoice = Literal["auto", "none", "required"] | NamedChoice
MaxTokens = Annotated[int, Field(ge=1, le=4096)] | Literal["inf"]
Modalities = Annotated[list[Literal["audio", "text"]], Field(min_length=1, max_length=1)]


class SessionSettings(_Strict):
    """The whole configuration of a session, as ``session.created`` and ``session.updated`` show it."""

    type: Literal["realtime"]
    model: str = ""
    output_modalities: Modalities = ["audio"]
    instructions: str = Field(default="", max_length=200_000)
    tools: list[FunctionTool] = Field(default_factory=list, max_length=128)
    tool_choice: ToolChoice = "auto"
    max_output_tokens: MaxTokens = "inf"
    audio: Audio = Audio()
    # Known to the protocol, without meaning for this engine: kept and shown, so that the client's own
    # configuration need not be another one for this server.
    include: list[Literal["item.input_audio_transcription.logprobs"]] | None = None
    tracing: Literal["auto"] | dict[str, Any] | None = None
    truncation: Literal["auto", "disabled"] | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning: dict[str, Any] | None = None


def updated(current: SessionSettings, patch: dict[str, Any]) -> SessionSettings:
    """The settings after an update that names only what changes.

    Raises:
        RequestError: an unknown field, a wrong value, another model.
    """
    _check(SessionSettings, patch, "session")
    if patch.get("model", current.model) != current.model:
        raise RequestError(
            f"The model can't be changed within a session; it is {current.model!r}.", param="session.model"
        )
    return _check(SessionSettings, _merged(current.model_dump(), patch), "session")


def _merged(current: Any, patch: Any) -> Any:
    if isinstance(current, dict) and isinstance(patch, dict):
        if patch.get("type", current.get("type")) != current.get("type"):
            return patch  # another kind of thing: nothing of the one before belongs to it
        return {**current, **{name: _merged(current.get(name), value) for name, value in patch.items()}}
    return patch


# ------------------------------------------------------------------------------------------------- items


class TextPart(_Strict):
    """A part of a message that a client puts into the conversation."""

    type: Literal["input_text", "output_text", "text"]
    text: str = Field(max_length=200_000)


class _ItemBase(_Strict):
    id: str | None = Field(default=None, min_length=1, max_length=64)
    object: Literal["realtime.item"] | None = None
    status: Literal["completed", "incomplete", "in_progress"] | None = None


class MessageItem(_ItemBase):
    type: Literal["message"]
    role: Literal["system", "user", "assistant"]
    content: list[TextPart] = Field(min_length=1)


class FunctionCallItem(_ItemBase):
    type: Literal["function_call"]
    name: str
    arguments: str
    call_id: str | None = None


class FunctionOutputItem(_ItemBase):
    type: Literal["function_call_output"]
    call_id: str
    output: str


class ItemReference(_Strict):
    type: Literal["item_reference"]
    id: str


NewItem = Annotated[MessageItem | FunctionCallItem | FunctionOutputItem, Field(discriminator="type")]
InputItem = Annotated[
    MessageItem | FunctionCallItem | FunctionOutputItem | ItemReference, Field(discriminator="type")
]


# -------------------------------------------------------------------------------------------- the events


class ResponseAudioOutput(_Strict):
    format: Format | None = None
    voice: str | None = None


class ResponseAudio(_Strict):
    output: ResponseAudioOutput = ResponseAudioOutput()


class ResponseParams(_Strict):
    conversation: Literal["auto", "none"] = "auto"
    instructions: str | None = Field(default=None, max_length=200_000)
    tools: list[FunctionTool] | None = None
    tool_choice: ToolChoice | None = None
    output_modalities: Modalities | None = None
    max_output_tokens: MaxTokens | None = None
    metadata: dict[str, Annotated[str, Field(max_length=512)]] | None = Field(default=None, max_length=16)
    input: list[InputItem] | None = None
    audio: ResponseAudio | None = None
    parallel_tool_calls: bool | None = None
    reasoning: dict[str, Any] | None = None


class _Event(_Strict):
    event_id: str | None = Field(default=None, max_length=512)


class SessionUpdate(_Event):
    type: Literal["session.update"]
    session: dict[str, Any]


class BufferAppend(_Event):
    type: Literal["input_audio_buffer.append"]
    audio: str

    def data(self) -> bytes:
        """The bytes. Raises :class:`RequestError` where they are not base64."""
        try:
            return base64.b64decode(self.audio, validate=True)
        except (binascii.Error, ValueError) as error:
            raise RequestError(f"The audio is not valid base64: {error}.", param="audio") from error


class BufferCommit(_Event):
    type: Literal["input_audio_buffer.commit"]


class BufferClear(_Event):
    type: Literal["input_audio_buffer.clear"]


class ItemCreate(_Event):
    type: Literal["conversation.item.create"]
    item: NewItem
    previous_item_id: str | None = None


class ItemRetrieve(_Event):
    type: Literal["conversation.item.retrieve"]
    item_id: str


class ItemDelete(_Event):
    type: Literal["conversation.item.delete"]
    item_id: str


class ItemTruncate(_Event):
    type: Literal["conversation.item.truncate"]
    item_id: str
    content_index: Literal[0]
    audio_end_ms: int = Field(ge=0)


class ResponseCreate(_Event):
    type: Literal["response.create"]
    response: ResponseParams = ResponseParams()


class ResponseCancel(_Event):
    type: Literal["response.cancel"]
    response_id: str | None = None


ClientEvent = (
    SessionUpdate
    | BufferAppend
    | BufferCommit
    | BufferClear
    | ItemCreate
    | ItemRetrieve
    | ItemDelete
    | ItemTruncate
    | ResponseCreate
    | ResponseCancel
)
_EVENTS: Final[dict[str, type[ClientEvent]]] = {
    "session.update": SessionUpdate,
    "input_audio_buffer.append": BufferAppend,
    "input_audio_buffer.commit": BufferCommit,
    "input_audio_buffer.clear": BufferClear,
    "conversation.item.create": ItemCreate,
    "conversation.item.retrieve": ItemRetrieve,
    "conversation.item.delete": ItemDelete,
    "conversation.item.truncate": ItemTruncate,
    "response.create": ResponseCreate,
    "response.cancel": ResponseCancel,
}


def parse(message: str) -> ClientEvent:
    """One client event.

    Raises:
        RequestError: it is none; ``event_id`` is the client's own where it gave one.
    """
    try:
        data = orjson.loads(message)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"The event is not valid JSON: {error}.", code="invalid_json") from error
    if not isinstance(data, dict):
        raise RequestError("The event is not a JSON object.", code="invalid_event")
    event_id = data.get("event_id") if isinstance(data.get("event_id"), str) else None
    kind = data.get("type")
    if not isinstance(kind, str):
        raise RequestError(
            "Missing required parameter: 'type'.",
            code="missing_required_parameter",
            param="type",
            event_id=event_id,
        )
    model = _EVENTS.get(kind)
    if model is None:
        known = ", ".join(f"'{name}'" for name in _EVENTS)
        raise RequestError(
            f"Invalid value: {kind[:80]!r}. Supported values are: {known}.", param="type", event_id=event_id
        )
    try:
        return _check(model, data, "")
    except RequestError as error:
        error.event_id = event_id
        raise


_Model = TypeVar("_Model", bound=BaseModel)
_CODES: Final = {"extra_forbidden": "unknown_parameter", "missing": "missing_required_parameter"}


def _check(model: type[_Model], data: Any, prefix: str) -> _Model:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        # One field a time, as the protocol has it: the most telling is an unknown one.
        problems = error.errors(include_url=False, include_input=False)
        first = next((one for one in problems if one["type"] == "extra_forbidden"), problems[0])
        # A format's type, which pydantic puts into the path, is no field of the client's.
        places = [str(place) for place in first["loc"] if not str(place).startswith("audio/")]
        param = ".".join([prefix, *places]).strip(".")
        code = _CODES.get(first["type"], "invalid_value")
        message = {
            "unknown_parameter": f"Unknown parameter: '{param}'.",
            "missing_required_parameter": f"Missing required parameter: '{param}'.",
        }.get(code, f"Invalid value for '{param}': {first['msg']}.")
        raise RequestError(message, code=code, param=param) from error
