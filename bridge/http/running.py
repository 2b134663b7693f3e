"""`/v1/calls`: the visits that run, what each of them is at, and hanging up."""

from __future__ import annotations

from typing import Annotated, Protocol
from uuid import UUID

import structlog
from fastapi import APIRouter, Path
from starlette.responses import Response

from bridge.http.access import Caller, allowed, missing
from bridge.http.description import problems
from bridge.http.params import Cursor, Limit, PageOf, TenantQuery, VisitPath
from bridge.http.problems import Problem
from bridge.http.route import GuardedRoute
from bridge.live import Hub, NoSuchCallError, NotAnsweredError, RunningVisit
from storage.paging import key_of, page_of

log = structlog.get_logger(__name__)

LegPath = Annotated[
    str, Path(pattern=r"^(visitor|resident-[0-9]{1,3})$", description="`visitor`, `resident-1`")
]


class Follows(Protocol):
    """Who knows what runs."""

    hub: Hub


def router(service: Follows) -> APIRouter:
    """The resources of this file."""
    routes = APIRouter(tags=["calls"], route_class=GuardedRoute)

    @routes.get("/calls", responses=problems(404, 422))
    async def running(
        caller: Annotated[Caller, allowed("calls:read")],
        tenant: TenantQuery = None,
        limit: Limit = 50,
        after: Cursor = None,
    ) -> PageOf[RunningVisit]:
        """The visits that run now, the oldest first: legs, who speaks, last turns and tool calls, cost."""
        behind = key_of(after, str, str) if after is not None else ("", "")
        found = [
            one
            for one in sorted(service.hub.running(caller.filtered(tenant)), key=_key)
            if _key(one) > behind
        ]
        page = page_of(found, limit, _key)
        return PageOf(items=list(page.items), next=page.next)

    @routes.get("/calls/{visit}", responses=problems(404, 422))
    async def one(visit: VisitPath, caller: Annotated[Caller, allowed("calls:read")]) -> RunningVisit:
        """One visit that runs now. One that is over is under `/v1/visits`."""
        return _of_caller(service.hub, visit, caller)

    @routes.delete("/calls/{visit}", status_code=204, responses=problems(404, 422, 503))
    async def hang_up(
        visit: VisitPath, caller: Annotated[Caller, allowed("calls:write", role="reviewer")]
    ) -> Response:
        """Hang up all legs of a visit. It ends closed: whatever was said, the gate gets no order any more.

        Who did is on record before anything is hung up. An order that the gate already has can't be called
        back; what the gate answers is still recorded.
        """
        await hang_up_for(service.hub, caller, visit, None)
        return Response(status_code=204)

    @routes.delete("/calls/{visit}/legs/{leg}", status_code=204, responses=problems(404, 422, 503))
    async def hang_up_leg(
        visit: VisitPath, leg: LegPath, caller: Annotated[Caller, allowed("calls:write", role="reviewer")]
    ) -> Response:
        """Hang up one leg of a visit. Whoever is on the other one is told so, and the visit ends closed."""
        await hang_up_for(service.hub, caller, visit, leg)
        return Response(status_code=204)

    return routes


async def hang_up_for(hub: Hub, caller: Caller, visit: UUID, leg: str | None) -> None:
    """Have somebody hang up a leg of a visit of theirs, or all of it.

    Raises:
        Problem: 404 where there is no such thing of theirs; 503 where the visit does not answer.
    """
    running = _of_caller(hub, visit, caller)
    if leg is not None and running.leg(leg) is None:
        raise missing("open leg")
    log.info("visit.hang_up", tenant=running.tenant, visit=running.id, target=leg or "all", by=caller.by)
    try:
        await hub.hang_up(visit, leg, caller.by)
    except NoSuchCallError:
        raise missing("running visit") from None
    except NotAnsweredError as error:
        raise Problem(503, str(error)) from None


def _of_caller(hub: Hub, visit: UUID, caller: Caller) -> RunningVisit:
    found = hub.visit(visit, caller.tenant)
    if found is None:
        raise missing("running visit")
    return found


def _key(visit: RunningVisit) -> tuple[str, str]:
    return visit.since, visit.id
