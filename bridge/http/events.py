"""`GET /v1/events`: what happens, as it happens, as server-sent events (HTML's `EventSource`).

A stream ends when the service stops, and within a quarter of a minute of its caller's key or session being
revoked. Whoever reads too slowly is told how many events they lost; whoever does not read at all is cut off
by the server (`server.py`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection
from typing import Annotated, Any, Final
from uuid import UUID

import orjson
import structlog
from fastapi import APIRouter, Header, Query
from starlette.requests import Request
from starlette.responses import StreamingResponse

from bridge.http.access import Access, Caller, allowed
from bridge.http.description import problems
from bridge.http.params import TenantQuery
from bridge.http.problems import Problem
from bridge.http.route import GuardedRoute
from bridge.http.running import Follows
from bridge.live import EVENT_KINDS, Hub, LiveEvent, Subscription
from storage.base import StorageError

HEARTBEAT_S: Final = 15.0
"""So often at least something is sent; and so often it is asked whether the caller may still follow."""
MOST_STREAMS: Final = 8
"""Of one caller at the same time."""
RETRY_MS: Final = 3000
"""After which a browser whose stream broke asks again, by itself."""
MEDIA_TYPE: Final = "text/event-stream"

log = structlog.get_logger(__name__)

Kinds = Annotated[
    str | None,
    Query(
        pattern=r"^[a-z_.]+(,[a-z_.]+)*$",
        max_length=1000,
        description="Of these kinds alone, with commas between them: `turn,gate.answered`",
    ),
]
LastId = Annotated[
    str,
    Header(
        alias="last-event-id",
        max_length=80,
        description="The last id that was had: what came since is sent first, as far as it is known",
    ),
]


def router(service: Follows) -> APIRouter:
    """The resources of this file."""
    routes = APIRouter(tags=["events"], route_class=GuardedRoute)
    streams: Counter[str] = Counter()
    stream: dict[int | str, dict[str, Any]] = {
        200: {"description": "Events, until either side ends it", "content": {MEDIA_TYPE: {}}}
    }

    @routes.get("/events", response_class=StreamingResponse, responses={**problems(404, 422, 429), **stream})
    async def events(
        request: Request,
        caller: Annotated[Caller, allowed("events:read")],
        tenant: TenantQuery = None,
        visit: UUID | None = None,
        kinds: Kinds = None,
        last_event_id: LastId = "",
    ) -> StreamingResponse:
        """What happens in visits, and of calls that are registered, providers and the service's readiness.

        Each event's `data` is an object with `at`, `tenant`, `visit` and `data`. An event without an id is
        void a moment later, and not sent again. `lost` says how many events are missing (null: not known):
        `GET /v1/calls` then says what is. `closed` is the last one, and says why.
        """
        wanted = _known(kinds)
        own = caller.filtered(tenant)
        if streams[caller.by] >= MOST_STREAMS:
            raise Problem(
                429,
                f"found {MOST_STREAMS} streams of yours open; allowed are so many at once",
                {"Retry-After": "5"},
            )
        follower = _Follower(service.hub, request, caller, streams)
        sent = follower.follow(own, wanted, visit, last_event_id)
        return StreamingResponse(sent, media_type=MEDIA_TYPE, headers={"X-Accel-Buffering": "no"})

    return routes


class _Follower:
    """One stream."""

    def __init__(self, hub: Hub, request: Request, caller: Caller, streams: Counter[str]) -> None:
        self._hub = hub
        self._request = request
        self._caller = caller
        self._streams = streams
        self._asked_at = asyncio.get_running_loop().time()

    async def follow(
        self, tenant: str | None, kinds: Collection[str] | None, visit: UUID | None, after: str
    ) -> AsyncIterator[bytes]:
        """What is sent, piece by piece."""
        self._streams[self._caller.by] += 1
        reader = self._hub.subscribe(tenant, kinds, visit, after)
        log.info("events.followed", by=self._caller.by, tenant=tenant, readers=self._hub.readers)
        try:
            yield f"retry: {RETRY_MS}\n\n".encode()
            async for piece in self._pieces(reader):
                yield piece
        finally:
            reader.close()
            self._streams[self._caller.by] -= 1
            if not self._streams[self._caller.by]:
                del self._streams[self._caller.by]

    async def _pieces(self, reader: Subscription) -> AsyncIterator[bytes]:
        while not reader.over:
            taken = await reader.take(HEARTBEAT_S)
            if reason := await self._why_closed():
                yield _closed(reason)
                return
            # A comment, which no reader shows: proxies close what is silent, and who has gone shows by it.
            yield b"".join(map(_written, taken)) or b": nothing\n\n"
        yield _closed("the service stops")

    async def _why_closed(self) -> str:
        """Why the caller may not follow any more; empty: they may, or it was asked a moment ago."""
        now = asyncio.get_running_loop().time()
        if now - self._asked_at < HEARTBEAT_S:
            return ""
        self._asked_at = now
        access: Access = self._request.scope["porteiro.access"]
        try:
            caller = await access.who(self._request)
        except Problem:
            return "the key or session does not hold any more"
        except StorageError:
            return "whether the key or session holds can't be found out now"
        same = caller is not None and caller.by == self._caller.by and caller.tenant == self._caller.tenant
        if not same or caller is None or not caller.may("events:read"):
            return "the key or session may not follow any more"
        return ""


def _known(kinds: str | None) -> frozenset[str] | None:
    if kinds is None:
        return None
    wanted = frozenset(kinds.split(","))
    if unknown := sorted(wanted - EVENT_KINDS):
        raise Problem(422, f"kinds: found {unknown[0]!r}; allowed are {', '.join(sorted(EVENT_KINDS))}")
    return wanted


def _written(event: LiveEvent) -> bytes:
    """One event, as it is sent. JSON holds no line end."""
    about = orjson.dumps({"at": event.at, "tenant": event.tenant, "visit": event.visit})
    id_line = f"id: {event.id}\n" if event.id else ""
    head = f"{id_line}event: {event.kind}\ndata: ".encode()
    return head + about[:-1] + b',"data":' + event.json + b"}\n\n"


def _closed(reason: str) -> bytes:
    return b"event: closed\ndata: " + orjson.dumps({"reason": reason}) + b"\n\n"
