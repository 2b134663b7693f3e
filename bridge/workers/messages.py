"""What the front and a worker say to each other: one JSON object a message, and what goes with a call.

A message is a packet of a Unix socket: a line of JSON, and behind it raw bytes. A call's connection comes
along as a file descriptor.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar, cast, get_args
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from bridge.calls import RegisteredCall
from bridge.endpoints.audio_stream_control import StreamForm

MAX_BYTES = 128 * 1024
"""Of a packet; Linux holds over 200 KB of them by default."""

T = TypeVar("T")
Number = Annotated[int, Field(ge=1)]


EndpointKind = Literal[
    "audiosocket", "asterisk_websocket", "audio_stream", "websocket", "browser", "simulated"
]
"""What carries a call that is given away; the last three come over the HTTP port."""


class MessageError(ValueError):
    """What came is no message."""


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


# ---- From the front ----


class Take(_Message):
    """A call for the worker: its connection, and behind the JSON what came on it so far."""

    kind: Literal["take"] = "take"
    number: Number
    role: Literal["visitor", "resident"]
    tenant: str
    endpoint: EndpointKind
    call_id: UUID
    host: str
    port: Annotated[int, Field(ge=0, le=65535)]
    """Where it comes from; the connection itself may not know."""
    call: RegisteredCall | None = None
    stream: StreamForm | None = None
    """Of an audio stream: what it holds, and how our audio goes back."""


class Expect(_Message):
    """A visitor's call is to come; see :meth:`bridge.runner.Runner.expect`."""

    kind: Literal["expect"] = "expect"
    call: RegisteredCall
    within_s: float


class Known(_Message):
    """The front knows of a dial attempt: a call that comes back with it finds the worker."""

    kind: Literal["known"] = "known"
    attempt: UUID


class HangUp(_Message):
    """A person hangs up a leg of a visit, or (None) all of it; see :meth:`bridge.host.VisitHost.hang_up`."""

    kind: Literal["hang_up"] = "hang_up"
    visit: UUID
    leg: str | None
    by: str


class Furnish(_Message):
    """Make ready a change of tenants: behind the JSON is a piece of its order (`ChangeOrder`)."""

    kind: Literal["furnish"] = "furnish"
    serial: Number
    last: bool
    """Whether this is the last piece."""


class Install(_Message):
    """The calls that come after this are those of the change; where not (`keep`), it is to be let go."""

    kind: Literal["install"] = "install"
    serial: Number
    keep: bool


class Numbered(_Message):
    """Versions of tenants have got their numbers."""

    kind: Literal["numbered"] = "numbered"
    versions: dict[str, tuple[int, str]]
    """By tenant: number and digest."""


class Stop(_Message):
    """End the visits that run, closed, and go."""

    kind: Literal["stop"] = "stop"
    reason: str


class Ping(_Message):
    """Is anybody there?"""

    kind: Literal["ping"] = "ping"


# ---- From a worker ----


class Ready(_Message):
    """It takes calls."""

    kind: Literal["ready"] = "ready"


class Failed(_Message):
    """It could not start."""

    kind: Literal["failed"] = "failed"
    problems: list[str]
    of_settings: bool


class Furnished(_Message):
    """A change is ready, or (with problems, by tenant) can't be."""

    kind: Literal["furnished"] = "furnished"
    serial: Number
    problems: dict[str, list[str]]


class Expects(_Message):
    """A visit is about to have a resident called; the worker waits for :class:`Known`."""

    kind: Literal["expects"] = "expects"
    visit: UUID
    attempt: UUID


class LegGone(_Message):
    """A call is over."""

    kind: Literal["leg_gone"] = "leg_gone"
    number: Number


class VisitOver(_Message):
    """The visit that began with a call is over, or never began."""

    kind: Literal["visit_over"] = "visit_over"
    number: Number


class Saw(_Message):
    """What was seen in its visits is behind the JSON; see `bridge/workers/sightings.py`."""

    kind: Literal["saw"] = "saw"
    dropped: dict[str, Annotated[int, Field(ge=1)]]
    """What was let go before it, by tenant."""


class Pong(_Message):
    """The answer to :class:`Ping`."""

    kind: Literal["pong"] = "pong"


ToWorker = Take | Expect | Known | HangUp | Furnish | Install | Numbered | Stop | Ping
ToFront = Ready | Failed | Furnished | Expects | LegGone | VisitOver | Saw | Pong
Message = ToWorker | ToFront

_TO_WORKER: TypeAdapter[ToWorker] = TypeAdapter(Annotated[ToWorker, Field(discriminator="kind")])
_TO_FRONT: TypeAdapter[ToFront] = TypeAdapter(Annotated[ToFront, Field(discriminator="kind")])


def endpoint_kind(kind: str) -> EndpointKind:
    """The kind of an endpoint.

    Raises:
        MessageError: it is none that can be given away.
    """
    for known in get_args(EndpointKind):
        if kind == known:
            return cast(EndpointKind, known)
    raise MessageError(f"found an endpoint {kind!r}; allowed: {', '.join(get_args(EndpointKind))}")


def packed(message: Message, raw: bytes = b"") -> bytes:
    """A packet.

    Raises:
        MessageError: it would be too long.
    """
    packet = message.model_dump_json().encode() + b"\n" + raw
    if len(packet) > MAX_BYTES:
        raise MessageError(f"found a packet of {len(packet)} bytes; allowed are {MAX_BYTES}")
    return packet


def for_worker(packet: bytes) -> tuple[ToWorker, bytes]:
    """A packet of the front's: the message, and the bytes behind it.

    Raises:
        MessageError: it is none.
    """
    head, _, raw = packet.partition(b"\n")
    return _read(_TO_WORKER, head), raw


def for_front(packet: bytes) -> tuple[ToFront, bytes]:
    """A packet of a worker's; as :func:`for_worker`."""
    head, _, raw = packet.partition(b"\n")
    return _read(_TO_FRONT, head), raw


def _read(adapter: TypeAdapter[T], head: bytes) -> T:
    try:
        return adapter.validate_json(head)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise MessageError(f"found no message ({first['type']}); allowed: the kinds of this side") from None
