"""`/v1/visits`: what happened in each visit, and what it sounded like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.requests import Request

from bridge.http.access import Caller, allowed, missing
from bridge.http.description import problems
from bridge.http.params import (
    TEXT,
    WORD,
    Cursor,
    Limit,
    Moment,
    PageOf,
    TenantQuery,
    VisitPath,
    as_stamp,
    page_of,
)
from bridge.http.recordings import Recordings
from bridge.http.route import GuardedRoute
from storage.base import (
    DecisionView,
    LegView,
    ReviewView,
    Storage,
    ToolCallView,
    TurnView,
    VisitSummary,
    VisitView,
)
from storage.filters import VisitFilter

Reader = Annotated[Caller, allowed("visits:read")]
Outcome = Literal["authorized", "denied", "unreachable", "abandoned", "failed", "running"]
Words = Annotated[str, Query(max_length=80, pattern=TEXT)]
WAV: Final = "audio/wav"
BINARY: Final = {"type": "string", "format": "binary"}


class VisitFilters(BaseModel, extra="forbid"):
    """Which visits a list shows: those of which all of this is so."""

    tenant: TenantQuery = None
    since: Moment | None = None
    """Started then or later."""
    until: Moment | None = None
    """Started before then."""
    outcome: Annotated[list[Outcome], Query(max_length=6)] = []
    resident: Words = ""
    """This is in the name of whoever they came for."""
    visitor: Words = ""
    apartment: Words = ""
    """`102 bloco B`, or `102` in all blocks."""
    tool: Annotated[str, Query(pattern=rf"{WORD}|^$")] = ""
    """This tool was called."""
    decision: Literal["", "authorized", "denied", "none"] = ""
    reviewed: bool | None = None
    """Whether somebody has judged it."""
    verdict: Literal["", "right", "wrong"] = ""
    provider: Annotated[str, Query(max_length=40, pattern=TEXT)] = ""
    limit: Limit = 50
    after: Cursor = None

    def of(self, caller: Caller) -> VisitFilter:
        """For the store; of what the caller may see. Raises :class:`Problem`."""
        tenant = caller.filtered(self.tenant)
        return VisitFilter(
            tenants=None if tenant is None else (tenant,),
            since=as_stamp(self.since),
            until=as_stamp(self.until),
            outcomes=self.outcome,
            resident=self.resident,
            visitor=self.visitor,
            apartment=self.apartment,
            tool=self.tool,
            decision=self.decision,
            reviewed=self.reviewed,
            verdict=self.verdict,
            provider=self.provider,
        )


class WholeVisit(BaseModel):
    """Everything of one visit."""

    visit: VisitSummary
    legs: list[LegView]
    turns: list[TurnView]
    tool_calls: list[ToolCallView]
    decision: DecisionView | None
    review: ReviewView | None


async def own_visit(storage: Storage, caller: Caller, visit: str) -> VisitView:
    """A visit that the caller may see. Raises :class:`Problem`."""
    view = await storage.visit(visit)
    if view is None:
        raise missing("visit")
    caller.own(view.summary.tenant, "visit")
    return view


def router(storage: Callable[[], Storage], recordings: Recordings) -> APIRouter:
    """The resources of this file."""
    routes = APIRouter(tags=["visits"], route_class=GuardedRoute)

    @routes.get("/visits", responses=problems(404))
    async def visits(caller: Reader, filters: Annotated[VisitFilters, Query()]) -> PageOf[VisitSummary]:
        """Visits, the latest first."""
        page = await storage().visit_page(filters.of(caller), after=filters.after, limit=filters.limit)
        return page_of(page)

    @routes.get("/visits/{visit}", responses=problems(404))
    async def one(caller: Reader, visit: VisitPath) -> WholeVisit:
        """Everything of one visit: its legs, what was said, what was called and decided, and why."""
        view = await own_visit(storage(), caller, str(visit))
        return WholeVisit(
            visit=view.summary,
            legs=list(view.legs),
            turns=list(view.turns),
            tool_calls=list(view.tool_calls),
            decision=view.decision,
            review=view.review,
        )

    @routes.get(
        "/visits/{visit}/recordings/{leg}",
        response_class=Response,
        responses={
            200: {"description": "The whole file", "content": {WAV: {"schema": BINARY}}},
            206: {"description": "The part that `Range` asks for", "content": {WAV: {"schema": BINARY}}},
            **problems(404, 416),
        },
    )
    async def recording(
        caller: Reader,
        visit: VisitPath,
        leg: Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$", description="Its name: `visitor`")],
        request: Request,
    ) -> Response:
        """A leg's recording: stereo, the caller on the left, the doorman on the right, 8 kHz, 16 bit."""
        view = await own_visit(storage(), caller, str(visit))
        names = {each.leg: each.recording for each in view.legs}
        return await recordings.answer(view.summary.tenant, names.get(leg), request.headers.get("range"))

    return routes
