"""`POST /v1/visits/{visit}/erasure`: erases what a visit has of people."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from bridge.http.access import Caller, allowed
from bridge.http.description import problems
from bridge.http.params import TEXT, VisitPath
from bridge.http.problems import Problem
from bridge.http.route import GuardedRoute
from bridge.http.visits import own_visit
from bridge.retention import erase_visits, remove_recordings
from storage.base import Storage


class ErasureRequest(BaseModel):
    """Why it is asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    reason: Annotated[str, Field(max_length=200, pattern=TEXT)] = ""
    """Goes on record as it is: a request's number, nobody's name."""


class ErasureDone(BaseModel):
    """What went."""

    records: int
    """Records that lost what they said of people; 0 where it was erased before."""
    recordings: int
    sealed: int
    """Records of an older version, which keep it: it is sealed in their chain."""


def router(storage: Callable[[], Storage], recordings: Callable[[], Path]) -> APIRouter:
    """The resources of this file.

    Args:
        storage: the audit log.
        recordings: the directory of all recordings.
    """
    routes = APIRouter(tags=["visits"], route_class=GuardedRoute)

    @routes.post("/visits/{visit}/erasure", responses=problems(404, 409, 422))
    async def erase(
        visit: VisitPath,
        wanted: ErasureRequest,
        caller: Annotated[Caller, allowed("visits:review", role="manager")],
    ) -> ErasureDone:
        """Erase the names, numbers, words and recordings of a visit that has ended. It can't be undone.

        When it was, its apartment, the decision and the gate's answer stay on record, with who had it erased.
        """
        store = storage()
        view = await own_visit(store, caller, str(visit))
        if view.summary.ended_at is None:
            raise Problem(409, "found a visit that is running; allowed: one that has ended")
        more = {"reason": wanted.reason} if wanted.reason else None
        done = await erase_visits(store, view.summary.tenant, [str(visit)], by=caller.by, more=more)
        if done.refused:
            raise Problem(409, "found records of this visit that were changed; see the audit log's verify")
        await remove_recordings(store, recordings(), store.service)
        return ErasureDone(records=done.records, recordings=done.recordings, sealed=done.sealed)

    return routes
