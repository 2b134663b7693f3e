"""`/ws/audio/{number}`: a visitor's call over a WebSocket, by dialled number; see docs/browser-calls.md.

The client's side of one call is :class:`Conversation`, which the console's test calls use too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Literal, Protocol
from uuid import UUID, uuid4

import structlog
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from bridge.endpoints.flow import KEY_S, LEAST_FRAME_S, FloodGuard
from bridge.endpoints.web import LineEnded, NotTakenError, Origin, WebKind, WebLine
from bridge.endpoints.web_messages import (
    FULL,
    NO_RIGHT,
    NORMAL,
    NOT_ALLOWED,
    NOT_READABLE,
    PROVIDER_UNREACHABLE,
    RATE,
    UNKNOWN_NUMBER,
    HangUp,
    Key,
    Message,
    MessageError,
    Sound,
    event_text,
    read_binary,
    read_text,
    sound_text,
)
from bridge.http.access import Caller, Guard
from bridge.http.problems import Problem
from bridge.live import Hub, LiveEvent, Subscription
from storage.base import StorageError
from storage.catalogue import KeyRole

SEND_S: Final = 5.0
"""For a client to take what it is sent."""
ENDED_S: Final = 6.0
"""From the end of a call to the end of its visit, whose outcome the client is told."""
WAIT_S: Final = 30.0
"""Between two looks at whether anything happened; nothing depends on it."""
FLOOD_FACTOR: Final = 3.0
FLOOD_WINDOW_S: Final = 4.0
"""As for a PBX: 12 s of sound at once, and three times real time for long."""
MAX_REASON_BYTES: Final = 123
"""Of a close frame's reason (RFC 6455, 5.5.1)."""
TOLD: Final = frozenset({"turn", "barge_in", "visit.ended", "visit.over", "leg.ended"})
"""What a caller is told of their own call."""

log = structlog.get_logger(__name__)


class Calls(Protocol):
    """Who takes calls."""

    hub: Hub
    """What happens in running visits."""

    def owner(self, number: str) -> str | None:
        """The tenant whose number it is; None: nobody's."""

    async def web_visitor(
        self, tenant: str, call_id: UUID, origin: Origin, *, dialled: str = "", tested_by: str = ""
    ) -> WebLine:
        """Begin a visit; its id is the call's.

        Raises:
            NotTakenError: no call can be taken now.
            OSError: no file descriptor is left.
        """

    async def web_resident(self, tenant: str, attempt: UUID, origin: Origin) -> WebLine:
        """Bring a resident's call, known by the id of the dial attempt. Whether one is expected shows later:
        a call that nobody expects ends at once.

        Raises:
            NotTakenError: the tenant is gone.
            OSError: no file descriptor is left.
        """


class Closed(Exception):
    """Ends a call over a WebSocket.

    Args:
        code: a close code.
        reason: for whoever reads it; cut where it is too long for a close frame.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason

    @property
    def brief(self) -> str:
        """The reason, as a close frame has room for it."""
        return self.reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore")


def routes(calls: Calls) -> list[WebSocketRoute]:
    """The resources of this file."""

    async def call(websocket: WebSocket) -> None:
        await serve(websocket, lambda: _visit(calls, websocket))

    return [WebSocketRoute("/ws/audio/{number}", call)]


async def serve(websocket: WebSocket, work: Callable[[], Awaitable[Closed]]) -> None:
    """Take a connection, do the work, and close it as that says, or as it raises."""
    await websocket.accept()  # before that no close code reaches a browser
    try:
        end = await work()
    except Closed as closed:
        end = closed
    except NotTakenError as error:
        end = Closed(FULL, str(error))
    except OSError as error:
        log.warning("web_call.not_taken", reason=str(error))
        end = Closed(FULL, "the service has no room for a call; its log says why")
    with contextlib.suppress(WebSocketDisconnect, RuntimeError, TimeoutError):  # it is gone already
        async with asyncio.timeout(SEND_S):
            await websocket.close(end.code, end.brief)


async def permitted(websocket: WebSocket, role: KeyRole = "pbx") -> Caller:
    """Who calls, where they may.

    Raises:
        Closed: they may not.
    """
    try:
        return await Guard(("calls:write",), role)(websocket)
    except Problem as problem:
        raise Closed(NO_RIGHT if problem.status in (401, 403) else FULL, problem.detail) from None
    except StorageError:
        raise Closed(FULL, "found no database to look the caller up in; allowed: again, later") from None


def origin_of(websocket: WebSocket, kind: WebKind) -> Origin:
    """Where a connection comes from."""
    client = websocket.client
    return Origin(kind, client.host, client.port) if client is not None else Origin(kind, "", 0)


async def _visit(calls: Calls, websocket: WebSocket) -> Closed:
    """One visitor's call, from its number to its end."""
    caller = await permitted(websocket)
    number = websocket.path_params["number"]
    tenant = calls.owner(number)
    if tenant is None or not caller.sees(tenant):
        raise Closed(UNKNOWN_NUMBER, f"found the number {number[:40]!r}; allowed: a tenant's number")
    form = websocket.query_params.get("audio", "binary")
    if form not in ("binary", "base64"):
        raise Closed(NOT_ALLOWED, f"audio: found {form[:40]!r}; allowed: binary and base64")
    visit = uuid4()
    # Before the visit begins: nothing of it is missed.
    with contextlib.closing(calls.hub.subscribe(tenant, TOLD)) as events:
        line = await calls.web_visitor(tenant, visit, origin_of(websocket, "websocket"), dialled=number)
        log.info("web_call.begins", tenant=tenant, visit=str(visit), by=caller.by)
        talk = Conversation(websocket, line, events, visit, "visitor", own_call, base64=form == "base64")
        await talk.send_text(event_text("ready", visit=str(visit), tenant=tenant, rate=RATE))
        return await talk.run()


def own_call(event: LiveEvent) -> Iterable[str]:
    """What a caller is told of their own call."""
    match event.kind:
        case "turn":
            data = event.data
            yield event_text("transcript", speaker=data["speaker"], text=data["text"])
        case "barge_in":
            yield event_text("interrupted")


class Conversation:
    """The client's side of one call: sound both ways, what is told of it, and its end.

    Args:
        line: opened; it is hung up at the end.
        events: what happens to visits of the tenant.
        visit: the call's.
        role: which leg of it this is.
        told: what the client is told of an event of that visit, in text messages.
        base64: the client is sent its sound as JSON.
    """

    def __init__(
        self,
        websocket: WebSocket,
        line: WebLine,
        events: Subscription,
        visit: UUID,
        role: Literal["visitor", "resident"],
        told: Callable[[LiveEvent], Iterable[str]],
        *,
        base64: bool = False,
    ) -> None:
        self._websocket = websocket
        self._line = line
        self._events = events
        self._visit = str(visit)
        self._role = role
        self._told = told
        self._base64 = base64
        self._flood = FloodGuard(FLOOD_FACTOR, FLOOD_WINDOW_S)
        self._outcome: str | None = None

    async def run(self) -> Closed:
        """Talk until either side ends the call; how the connection is to be closed."""
        telling = asyncio.create_task(self._tell(), name=f"events of {self._visit}")
        talking = {
            asyncio.create_task(work, name=f"{self._role} of {self._visit}")
            for work in (self._listen(), self._speak(), self._line.pump())
        }
        try:
            await asyncio.wait(talking, return_when=asyncio.FIRST_COMPLETED)
            return await self._end({task for task in talking if task.done()}, telling)
        finally:
            self._line.hang_up()
            for task in (*talking, telling):
                task.cancel()
            await asyncio.gather(*talking, telling, return_exceptions=True)

    async def _end(self, done: set[asyncio.Task[None]], telling: asyncio.Task[None]) -> Closed:
        """How it ended, out of what was first to end; `telling` goes on until the outcome is known."""
        ends = [task.exception() for task in done]
        for end in ends:
            if isinstance(end, Closed):
                return end
        for end in ends:
            if end is not None and not isinstance(end, LineEnded):
                raise end
        await asyncio.wait({telling}, timeout=ENDED_S)
        await self.send_text(event_text("ended", outcome=self._outcome))
        if self._outcome == "failed":
            return Closed(PROVIDER_UNREACHABLE, "the visit failed; its audit log says why")
        return Closed(NORMAL, "the call is over")

    async def send_text(self, text: str) -> None:
        """Send a text message.

        Raises:
            Closed: the client takes nothing, or is gone.
        """
        await send(self._websocket, text)

    async def _speak(self) -> None:
        """What is said to the caller, to the client."""
        while True:
            pcm = await self._line.hear()
            if self._base64:
                await send(self._websocket, sound_text(pcm))
            else:
                await send(self._websocket, pcm)

    async def _listen(self) -> None:
        """What the client says, to the call."""
        while True:
            try:
                message = await receive(self._websocket)
            except MessageError as error:
                await self.send_text(event_text("error", detail=str(error)))
                raise Closed(NOT_READABLE, str(error)) from None
            match message:
                case Sound(audio):
                    self._count(max(LEAST_FRAME_S, len(audio) / (2 * RATE)))
                    await self._line.say(audio)
                case Key(key):
                    self._count(KEY_S)
                    self._line.press(key)
                case HangUp():
                    raise Closed(NORMAL, "hung up")
                case _:
                    self._count(KEY_S)

    def _count(self, seconds: float) -> None:
        """Count what came against real time.

        Raises:
            Closed: it is too much.
        """
        if not self._flood.takes(seconds, asyncio.get_running_loop().time()):
            raise Closed(NOT_ALLOWED, self._flood.complaint)

    async def _tell(self) -> None:
        """What happens in the visit, to the client; until the visit is over, or the service stops."""
        while not self._events.over:
            for event in await self._events.take(WAIT_S):
                if event.visit == self._visit and await self._told_of(event):
                    return

    async def _told_of(self, event: LiveEvent) -> bool:
        """Whether that was the last."""
        if event.kind == "visit.ended":
            self._outcome = event.data.get("outcome")
        for text in self._told(event):
            await self.send_text(text)
        return event.kind in ("visit.ended", "visit.over") or self._ends_resident(event)

    def _ends_resident(self, event: LiveEvent) -> bool:
        """The resident's call is over, though the visit may go on: they are not kept for its end."""
        return self._role == "resident" and event.kind == "leg.ended" and event.data["leg"] != "visitor"


async def send(websocket: WebSocket, message: str | bytes) -> None:
    """Send a message.

    Raises:
        Closed: the client takes nothing, or is gone.
    """
    try:
        async with asyncio.timeout(SEND_S):
            if isinstance(message, str):
                await websocket.send_text(message)
            else:
                await websocket.send_bytes(message)
    except TimeoutError:
        raise Closed(NOT_ALLOWED, f"found a client that reads nothing for {SEND_S:g} s") from None
    except WebSocketDisconnect:
        raise Closed(NORMAL, "the client is gone") from None


async def receive(websocket: WebSocket) -> Message:
    """The client's next message.

    Raises:
        MessageError: nobody can read it.
        Closed: the client is gone.
    """
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise Closed(NORMAL, "the client is gone")
    data, text = message.get("bytes"), message.get("text")
    return read_binary(data) if data is not None else read_text(text or "")
