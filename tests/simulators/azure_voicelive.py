"""A scripted server of Azure VoiceLive, as strict as its SDK's types, that misbehaves on command.

What it has in common with OpenAI's protocol is the other simulator's. Every message in either direction is
checked against the types of azure-ai-voicelive: names, values, and no fields that they don't have.
"""

from __future__ import annotations

import datetime
import http
import json
import types
import typing
from enum import Enum
from functools import cache
from typing import Any, Literal, Self, Union, get_args, get_origin
from urllib.parse import parse_qs, urlsplit

from azure.ai.voicelive import models
from azure.ai.voicelive.models import _enums, _models
from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from providers.azure_voicelive_messages import VoiceLiveWire
from providers.formats import PCM24, AudioFormat, UnknownFormat
from tests.simulators.openai_realtime import Faults, Message, Model, Reply, Say, Simulator

MODELS = frozenset({"gpt-5-mini", "gpt-realtime"})
VOICES = frozenset(
    {f"pt-BR-{name}Neural" for name in ("Francisca", "Brenda", "Antonio", "Donato", "Fabio")} | {"marin"}
)
API_VERSION = "2026-07-15"

# -- the SDK's types as a schema -----------------------------------------------------------------------------

_NAMES = types.SimpleNamespace(**{**vars(_models), **vars(_enums), **vars(models)})
_SIMPLE: dict[Any, tuple[type, ...]] = {
    str: (str,),
    int: (int,),
    float: (int, float),
    bool: (bool,),
    bytes: (str,),
    datetime.datetime: (int, str),
}


@cache
def _rest_fields(kind: Any) -> dict[str, Any]:
    """What the SDK knows of one of its models' fields; it looks them up when the first one is made."""
    kind.__new__(kind)
    found: dict[str, Any] = kind._attr_to_rest_field
    return found


@cache
def _fields(kind: Any) -> dict[str, Any]:
    """The fields of one of the SDK's models by their names on the wire, with their annotations."""
    import azure.ai.voicelive._unions as unions

    names = {**vars(_NAMES), "_models": _NAMES, "_unions": unions}
    hints = typing.get_type_hints(kind, globalns=names)
    return {field._rest_name: hints[name] for name, field in _rest_fields(kind).items()}


def _concrete(kind: Any, value: Message) -> Any:
    """The subclass that a message's discriminators name; None: there is none such."""
    while mapping := kind.__dict__.get("__mapping__"):
        names = [f._rest_name for f in _rest_fields(kind).values() if f._is_discriminator]
        found = next((mapping[value[name]] for name in names if value.get(name) in mapping), None)
        if found is None or found is kind:
            return None if found is None else kind
        kind = found
    return kind


def problem(kind: Any, value: Any, path: str = "") -> str | None:
    """What is wrong with a value by an annotation of the SDK's, or None."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return None
    if origin in (Union, types.UnionType):
        listed = any(get_origin(one) is Literal or _is_enum(one) for one in arguments)
        kinds = [one for one in arguments if not (listed and one is str)]
        found = [problem(one, value, path) for one in kinds]
        return None if None in found else max((one for one in found if one), key=len)
    if kind is type(None):
        return None if value is None else f"{path}: not null"
    if origin is Literal or _is_enum(kind):
        allowed = [str(getattr(one, "value", one)) for one in arguments or kind]
        return None if value in allowed else f"{path}: {value!r} is none of {', '.join(allowed)}"
    if origin is list:
        if not isinstance(value, list):
            return f"{path}: no list"
        return next(
            filter(None, (problem(arguments[0], v, f"{path}.{i}") for i, v in enumerate(value))), None
        )
    if origin is dict:
        if not isinstance(value, dict):
            return f"{path}: no object"
        return next(filter(None, (problem(arguments[1], v, f"{path}.{k}") for k, v in value.items())), None)
    if kind in _SIMPLE:
        well = isinstance(value, _SIMPLE[kind]) and (kind is bool or not isinstance(value, bool))
        return None if well else f"{path}: {value!r} is no {kind.__name__}"
    return _model_problem(kind, value, path)


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum)


def _model_problem(kind: Any, value: Any, path: str) -> str | None:
    if not isinstance(value, dict):
        return f"{path}: no object"
    concrete = _concrete(kind, value)
    if concrete is None:
        return f"{path}: unknown type {value.get('type')!r}"
    fields = _fields(concrete)
    for name in value:
        if name not in fields:
            return f"unknown parameter {path}.{name}"
    for name, annotation in fields.items():
        if name not in value:
            if type(None) not in get_args(annotation):
                return f"missing parameter {path}.{name}"
            continue
        if found := problem(annotation, value[name], f"{path}.{name}"):
            return found
    return None


# -- the protocol, without a socket --------------------------------------------------------------------------

_OLD_NAMES = {
    "conversation.item.added": "conversation.item.created",
    "response.output_audio.delta": "response.audio.delta",
    "response.output_audio.done": "response.audio.done",
    "response.output_audio_transcript.delta": "response.audio_transcript.delta",
    "response.output_audio_transcript.done": "response.audio_transcript.done",
}


class VoiceLiveModel(Model):
    """See :class:`tests.simulators.openai_realtime.Model`."""

    def __init__(self, replies: list[Reply] | None = None, faults: Faults | None = None) -> None:
        super().__init__(replies, faults)
        self.spoken: list[str] = []
        """Texts that were read out as they stood."""
        self._given: str | None = None
        """What the next response is to read out."""

    def emit(self, **event: Any) -> None:
        """Send an event in VoiceLive's words; one that its types don't allow is our own fault."""
        event = {"event_id": self.id("event"), **event}
        event["type"] = _OLD_NAMES.get(event["type"], event["type"])
        match event["type"]:
            case "session.created":
                event["session"] = {"id": "sess_1"}
            case "conversation.item.input_audio_transcription.completed":
                del event["usage"]
            case "conversation.item.created":
                event["item"] = self._item(event["item"])
            case "response.done":
                event["response"]["usage"] = _usage()
                if event["response"]["status"] == "completed":
                    del event["response"]["status_details"]
        found = problem(_models.ServerEvent, event, event["type"])
        assert found is None, found
        self.out.append(event)

    @staticmethod
    def _item(item: Message) -> Message:
        """An item of the client's as the server returns it."""
        if item["type"] != "message":
            return {**item, "status": "completed"} if item["type"] == "function_call" else item
        content = [
            {"type": part["type"]} | ({"audio": ""} if part["type"] == "input_audio" else {})
            for part in item["content"]
        ]
        return {**item, "status": "completed", "content": content}

    def receive(self, message: Message) -> None:
        """One message of the client."""
        self.received.append(message)
        found = problem(_models.ClientEvent, message, message.get("type", ""))
        if found is not None:
            self.refuse(message, "invalid_value", found)
            return
        getattr(self, "_on_" + message["type"].replace(".", "_"))(message)

    @staticmethod
    def _detection(session: Message) -> Message | None:
        usual: Message = {"type": "server_vad"}
        found: Message | None = session.get("turn_detection", usual)
        return found

    def format(self, side: str) -> AudioFormat:
        """What audio of one side is spoken in."""
        try:
            return VoiceLiveWire("", "").confirmed_formats(self.session)[side == "output"]
        except UnknownFormat:
            return PCM24

    def _on_session_update(self, message: Message) -> None:
        if self.faults.never_configure:
            return
        if self.faults.configure_error:
            self.refuse(message, self.faults.configure_error, "as the test wants it", violation=False)
            return
        asked = json.loads(json.dumps(message["session"]))
        if "model" in asked:
            self.refuse(message, "invalid_value", "the model belongs to the address", param="session.model")
            return
        voice = asked.get("voice") or {"name": "marin"}
        if voice["name"] not in VOICES:
            why = f"The voice {voice['name']!r} is not supported."
            self.refuse(message, "invalid_voice", why, violation=False, param="session.voice")
            return
        if self.items and voice != self.session.get("voice"):
            self.refuse(message, "cannot_update_voice", "the voice is frozen after the first audio")
            return
        session = {**self.session, **asked, "id": "sess_1"}
        if session.get("input_audio_format", "pcm16") != "pcm16":
            rate = session.get("input_audio_sampling_rate")
            if rate not in (None, 8000):
                self.refuse(message, "invalid_value", f"G.711 has 8000 Hz, not {rate}")
                return
        for side, confirmed in self.faults.formats.items():
            for name in [name for name in session if name.startswith(f"{side}_audio_format")]:
                del session[name]
            session |= confirmed or {}
        self.session = session
        self.emit(type="session.updated", session=session)

    def _on_response_create(self, message: Message) -> None:
        response = message.get("response") or {}
        if self.active is not None and response.get("cancel_previous", True):
            self.violations.append("response.create cut off what was being said")
        given = response.get("pre_generated_assistant_message")
        self._given = "".join(part["text"] for part in given["content"]) if given is not None else None
        super()._on_response_create(message)

    def start(self, metadata: dict[str, str] | None) -> None:
        """Begin a response; one that was asked for with a text says that and nothing else."""
        if metadata is not None and self._given is not None:
            self.spoken.append(self._given)
            self.replies.appendleft(Reply((Say(max(200, 60 * len(self._given)), self._given),)))
            self._given = None
        super().start(metadata)

    def warn(self, message: str) -> None:
        """Something is not as it should be, and goes on."""
        self.emit(type="warning", warning={"code": "unsupported", "message": message})


def _usage() -> Message:
    cached = {"text_tokens": 0, "audio_tokens": 0, "image_tokens": 0}
    heard = {"cached_tokens": 0, "text_tokens": 10, "audio_tokens": 0, "image_tokens": 0}
    return {
        "total_tokens": 30,
        "input_tokens": 10,
        "output_tokens": 20,
        "input_token_details": heard | {"cached_tokens_details": cached},
        "output_token_details": {"text_tokens": 5, "audio_tokens": 15},
    }


# -- the socket ----------------------------------------------------------------------------------------------


class VoiceLiveSimulator(Simulator):
    """Takes whoever brings the key, or one of the tokens, and asks for a model that it has."""

    def __init__(self, *replies: Reply, faults: Faults | None = None) -> None:
        super().__init__(*replies, faults=faults, make=VoiceLiveModel)
        self.tokens: set[str] = set()

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        return self

    @property
    def resource(self) -> str:
        """The resource's address, as Azure's portal shows it."""
        return self.url.removesuffix("/v1")

    @property
    def voicelive(self) -> VoiceLiveModel:
        """The newest connection's model."""
        assert isinstance(self.model, VoiceLiveModel)
        return self.model

    async def _greet(self, connection: ServerConnection, request: Request) -> Response | None:
        return await super()._greet(connection, request) or self._refusal(request)

    def _refusal(self, request: Request) -> Response | None:
        address = urlsplit(request.path)
        query = parse_qs(address.query)
        query.pop("x-ms-client-sdk", None)
        keys, bearers = request.headers.get_all("api-key"), request.headers.get_all("authorization")
        by_token = not keys and len(bearers) == 1 and bearers[0].removeprefix("Bearer ") in self.tokens
        if address.path != "/voice-live/realtime" or query.get("api-version") != [API_VERSION]:
            return _refuse(404, "404", "Resource not found")
        if not by_token and (keys != ["azure-key"] or bearers):
            return _refuse(401, "401", "Access denied due to invalid subscription key or wrong API endpoint.")
        if set(query) != {"api-version", "model"} or query["model"][0] not in MODELS:
            return _refuse(404, "model_not_found", "The model is not supported.")
        return None


def _refuse(status: int, code: str, message: str) -> Response:
    body = json.dumps({"error": {"code": code, "message": message}}).encode()
    headers = Headers({"Content-Length": str(len(body)), "Connection": "close"})
    return Response(status, http.HTTPStatus(status).phrase, headers, body)
