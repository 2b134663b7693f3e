"""`GET /v1/route`: who answers a call that FreeSWITCH has, and where its audio goes; asked by its script."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal, Protocol
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel

from bridge.endpoints.audio_stream_control import Chosen
from bridge.http.access import Caller, allowed, is_secure, missing
from bridge.http.description import problems
from bridge.http.params import TEXT
from bridge.http.problems import Problem
from bridge.http.route import GuardedRoute
from bridge.settings import SwitchMode

_WHAT: Final = "domain or number of a tenant that takes FreeSWITCH's calls"

_HOST: Final = re.compile(r"[A-Za-z0-9.-]{1,253}")
"""All that mod_audio_stream takes for a host: no IPv6 address."""


@dataclass(frozen=True, slots=True)
class Way:
    """What a call finds.

    Attributes:
        path: of the stream's URL.
        place: what stands before it, `ws://HOST:PORT`, where the tenant's settings say that; "": they don't.
        ticket: what the stream shows, for this call and `expires_s` seconds; "": it needs none.
        port: a port that is for streams alone; None: they come to the HTTP port.
        tls: whether that port speaks TLS.
        refused: why no visitor would be taken now, where the mode is `realtime`.
    """

    tenant: str
    mode: SwitchMode
    path: str
    playback: Chosen
    sample_rate: int
    channels: int
    place: str = ""
    ticket: str = field(default="", repr=False)
    expires_s: float = 0.0
    port: int | None = None
    tls: bool = False
    refused: str = ""


class Switch(Protocol):
    """Who knows the way of a call."""

    def way(self, call: UUID, domain: UUID | None, dialled: str) -> Way | None:
        """The way of a call: of the domain's tenant, or of whose number was dialled; None: nobody's."""


class RouteView(BaseModel):
    """Who answers a call, and where its audio goes."""

    tenant: str
    mode: SwitchMode
    stream: str
    """The URL for the module's `start`, with what it must show; "" in another mode than `realtime`."""
    expires_in_s: float
    """For how long that holds; 0: it needs nothing to show."""
    playback: Chosen
    sample_rate: Literal["8k", "16k"]
    """As the module's `start` is told."""
    mix: Literal["mono", "stereo"]
    """Likewise."""


def router(switch: Switch) -> APIRouter:
    """The resources of this file."""
    routes = APIRouter(tags=["calls"], route_class=GuardedRoute)

    @routes.get("/route", responses=problems(404, 422, 503))
    async def route(
        request: Request,
        caller: Annotated[Caller, allowed("calls:write")],
        call: Annotated[UUID, Query(description="The channel's UUID")],
        domain_uuid: Annotated[
            UUID | None, Query(description="The tenant's domain; without it, whose the number is")
        ] = None,
        number: Annotated[str, Query(pattern=TEXT, max_length=80, description="What was dialled")] = "",
    ) -> RouteView:
        """Who answers a call, and where its audio goes. 503: no visitor would be taken now."""
        if domain_uuid is None and not number:
            raise Problem(422, "domain_uuid: found neither it nor number; allowed: one of them")
        way = switch.way(call, domain_uuid, number)
        if way is None:
            raise missing(_WHAT)
        caller.own(way.tenant, _WHAT)
        if way.mode == "realtime" and way.refused:
            raise Problem(503, way.refused, {"Retry-After": "5"})
        return RouteView(
            tenant=way.tenant,
            mode=way.mode,
            stream=_stream(request, way) if way.mode == "realtime" else "",
            expires_in_s=way.expires_s if way.mode == "realtime" else 0.0,
            playback=way.playback,
            sample_rate="8k" if way.sample_rate == 8000 else "16k",
            mix="mono" if way.channels == 1 else "stereo",
        )

    return routes


def _stream(request: Request, way: Way) -> str:
    """The stream's URL: as the settings have it, else at the host by which the PBX has just reached us."""
    shown = f"?token={way.ticket}" if way.ticket else ""
    if way.place:
        return f"{way.place}{way.path}{shown}"
    host, port = request.url.hostname or "", request.url.port
    if not _HOST.fullmatch(host):
        raise Problem(422, f"host: found {host[:80]!r}; allowed: a name or an IPv4 address")
    secure = is_secure(request)
    if way.port is not None:
        port, secure = way.port, way.tls
    place = host if port is None else f"{host}:{port}"
    return f"{'wss' if secure else 'ws'}://{place}{way.path}{shown}"
