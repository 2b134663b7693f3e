"""`/ws/test-calls/{id}/{role}`: the two telephones of a test call that somebody made at the console.

They are for that operator's own pages. The visitor's begins the visit; the resident's waits until it rings,
and is answered with the token that the ringing brings: it stands for the id of the dial attempt, and holds
once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Final, Protocol
from uuid import UUID

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from bridge.endpoints.web_messages import (
    NO_RIGHT,
    NORMAL,
    NOT_ALLOWED,
    NOT_READABLE,
    RATE,
    UNKNOWN_NUMBER,
    Answer,
    HangUp,
    MessageError,
    event_text,
)
from bridge.http.audio import Calls, Closed, Conversation, origin_of, permitted, receive, send, serve
from bridge.live import LiveEvent
from bridge.rehearsal import NotRingingError, Rehearsal, Rehearsals
from bridge.rehearsing import Director
from bridge.tenants import Tenancy

SHOWN: Final = frozenset(
    {
        "state",
        "turn",
        "barge_in",
        "tool.called",
        "tool.answered",
        "dial.started",
        "dial.ended",
        "evidence",
        "decision",
        "gate.answered",
        "leg.ended",
        "visit.ended",
        "visit.over",
    }
)
"""What a page is shown of its visit."""


class Behind(Calls, Protocol):
    """What test calls need of the service."""

    rehearsals: Rehearsals
    tenancy: Tenancy


def routes(service: Behind) -> list[WebSocketRoute]:
    """The resources of this file."""
    director = Director(service)

    async def visitor(websocket: WebSocket) -> None:
        await serve(websocket, lambda: _visitor(service, director, websocket))

    async def resident(websocket: WebSocket) -> None:
        await serve(websocket, lambda: _resident(service, websocket))

    return [
        WebSocketRoute("/ws/test-calls/{id:uuid}/visitor", visitor),
        WebSocketRoute("/ws/test-calls/{id:uuid}/resident", resident),
    ]


async def _rehearsal(service: Behind, websocket: WebSocket) -> Rehearsal:
    """The test call that is meant, where it is the caller's own.

    Raises:
        Closed: it is not.
    """
    caller = await permitted(websocket, "reviewer")
    if caller.kind != "operator":
        raise Closed(NO_RIGHT, f"found a {caller.kind}; allowed: an operator's session")
    id: UUID = websocket.path_params["id"]
    found = service.rehearsals.get(id, caller.by, now=asyncio.get_running_loop().time())
    if found is None or not caller.sees(found.tenant):
        raise Closed(UNKNOWN_NUMBER, "found no such test call of yours; allowed: one made within the hour")
    return found


async def _visitor(service: Behind, director: Director, websocket: WebSocket) -> Closed:
    """The visitor's telephone, from the ring to the end."""
    rehearsal = await _rehearsal(service, websocket)
    if rehearsal.begun:
        raise Closed(NOT_ALLOWED, "found a test call that has begun; allowed: a new one")
    rehearsal.begun = True
    director.follow(rehearsal, _only_key(service, rehearsal.tenant))
    origin = origin_of(websocket, "browser")
    with contextlib.closing(service.hub.subscribe(rehearsal.tenant, SHOWN)) as events:
        line = await service.web_visitor(rehearsal.tenant, rehearsal.id, origin, tested_by=rehearsal.by)
        talk = Conversation(websocket, line, events, rehearsal.id, "visitor", shown)
        await talk.send_text(_ready(rehearsal))
        return await talk.run()


def _only_key(service: Behind, tenant: str) -> str:
    """The key that authorises where no word does; "" where words do."""
    one = service.tenancy.in_force.get(tenant)
    return one.tenant.consent.authorize_key if one is not None and not one.tenant.consent.by_voice else ""


async def _resident(service: Behind, websocket: WebSocket) -> Closed:
    """The resident's telephone: rings, is answered or not, perhaps more than once."""
    rehearsal = await _rehearsal(service, websocket)
    if rehearsal.resident != "browser":
        raise Closed(NOT_ALLOWED, f"found a resident who {rehearsal.resident}; allowed: one in a browser")
    with contextlib.closing(service.hub.subscribe(rehearsal.tenant, SHOWN)) as events:
        attempt = await _answered(websocket, rehearsal)
        origin = origin_of(websocket, "browser")
        line = await service.web_resident(rehearsal.tenant, attempt, origin)
        talk = Conversation(websocket, line, events, rehearsal.id, "resident", shown)
        await talk.send_text(_ready(rehearsal))
        return await talk.run()


async def _answered(websocket: WebSocket, rehearsal: Rehearsal) -> UUID:
    """The dial attempt that was answered.

    Raises:
        Closed: the client is gone, or sent something else.
    """
    telling = asyncio.create_task(_ring(websocket, rehearsal), name=f"ringing of {rehearsal.id}")
    try:
        while True:
            try:
                message = await receive(websocket)
            except MessageError as error:
                raise Closed(NOT_READABLE, str(error)) from None
            match message:
                case Answer(token):
                    try:
                        return rehearsal.answer(token)
                    except NotRingingError as error:
                        await send(websocket, event_text("error", detail=str(error)))
                case HangUp():
                    raise Closed(NORMAL, "hung up")
                case _:
                    raise Closed(NOT_ALLOWED, "found sound before the call was answered; allowed: answer")
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)


async def _ring(websocket: WebSocket, rehearsal: Rehearsal) -> None:
    """Tell the page whether its telephone rings, whenever that changes."""
    while True:
        change, token = rehearsal.change, rehearsal.ringing
        await send(websocket, event_text("ringing", token=token) if token else event_text("quiet"))
        await change.wait()


def _ready(rehearsal: Rehearsal) -> str:
    return event_text("ready", visit=str(rehearsal.id), tenant=rehearsal.tenant, rate=RATE)


def shown(event: LiveEvent) -> Iterable[str]:
    """What a page is shown of its visit: both legs, what the model called, and what was decided."""
    if event.kind == "barge_in":
        yield event_text("interrupted", leg=event.data["leg"])
    elif event.kind != "visit.over":
        yield event_text("event", kind=event.kind, data=event.data)


__all__ = ["routes"]
