"""`/v1/webhooks`: what tenants' own systems are still to be told, and what is to be sent again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel

from bridge.http.access import Caller, allowed, missing, now
from bridge.http.description import problems
from bridge.http.params import Cursor, Limit, PageOf, TenantQuery, page_of
from bridge.http.route import GuardedRoute
from bridge.webhooks.message import NAMES
from storage.base import Storage
from storage.outbox import Outgoing

EventPath = Annotated[
    str,
    Path(
        pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}-(started|decided|ended)$",
        description="An event's id, as `webhook-id` has it",
    ),
]
GivenUpQuery = Annotated[bool | None, Query(description="Those that were given up, or those that wait")]


class ShownEvent(BaseModel):
    """An event that was not taken yet. What it says is read from its record when it is sent."""

    id: str
    tenant: str
    visit: str
    type: str
    since: str
    """When it happened, or was last to be sent again."""
    next_at: str | None
    """Not before then; null: at once."""
    attempts: int
    answer: str
    """What became of the last attempt."""
    given_up_at: str | None


class Resent(BaseModel):
    """It is tried anew."""

    id: str


def router(storage: Callable[[], Storage]) -> APIRouter:
    """The resources of this file."""
    routes = APIRouter(tags=["webhooks"], route_class=GuardedRoute)

    @routes.get("/webhooks", responses=problems(422))
    async def waiting(
        caller: Annotated[Caller, allowed("audit:read")],
        tenant: TenantQuery = None,
        given_up: GivenUpQuery = None,
        after: Cursor = None,
        limit: Limit = 50,
    ) -> PageOf[ShownEvent]:
        """Events that are still to be told, or were given up, by tenant and age."""
        only = caller.filtered(tenant)
        page = await storage().outbox.page(
            None if only is None else [only], given_up=given_up, after=after, limit=limit
        )
        return page_of(page, _shown)

    @routes.post("/webhooks/{event}/resend", responses=problems(404, 422))
    async def resend(
        event: EventPath, caller: Annotated[Caller, allowed("tenants:write", role="manager")]
    ) -> Resent:
        """Have an event sent at once, and tried for as long as a new one: given up or waiting."""
        outbox = storage().outbox
        found = await outbox.find(event)
        if found is None or not caller.sees(found.tenant):
            raise missing("event")
        await outbox.resend(found.tenant, [found.seq], by=caller.by, at=now())
        return Resent(id=event)

    return routes


def _shown(one: Outgoing) -> ShownEvent:
    return ShownEvent(
        id=one.id,
        tenant=one.tenant,
        visit=one.visit,
        type=NAMES[one.kind],
        since=one.since,
        next_at=one.next_at or None,
        attempts=one.attempts,
        answer=one.answer,
        given_up_at=one.given_up_at,
    )
