"""Erasing a person who asks for it: the visits that say something of them, and what those have of people."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from pydantic import ValidationError
from starlette.responses import Response
from starlette.routing import Route

from bridge.http.access import missing
from bridge.http.console.site import Asked, Form, Site
from bridge.http.console.wrong import invalid
from bridge.http.erasure import ErasureRequest
from bridge.http.problems import Problem
from bridge.retention import DIGITS, erase_visits, find_person, remove_recordings
from storage.base import VisitSummary

SEARCH_S: Final = 20.0
"""How long is looked for somebody: all that is kept of a tenant's visits is read."""
MOST: Final = 200
"""So many visits are shown and erased at once; the rest is found again after that."""


@dataclass(frozen=True, slots=True)
class Told:
    """A visit that says something of whom was looked for."""

    visit: VisitSummary
    kinds: tuple[str, ...] = ()


@dataclass(slots=True)
class Search:
    """Who is looked for, and what was found."""

    tenant: str = ""
    name: str = ""
    number: str = ""
    visit: str = ""
    reason: str = ""
    found: Sequence[Told] | None = None
    """None: nobody was looked for."""
    more: bool = False
    wrong: Sequence[str] = ()


def routes(site: Site, recordings: Callable[[], Path]) -> list[Route]:
    """The pages of this file.

    Args:
        recordings: the directory of all recordings.
    """

    async def look(asked: Asked) -> Response:
        search = Search(
            tenant=asked.query("tenant", 80),
            name=asked.query("name", 80),
            number=asked.query("number", 80),
            visit=asked.query("visit", 80),
        )
        seen = site.seen_by(asked.caller)
        search.tenant = search.tenant or (next(iter(seen)) if len(seen) == 1 else "")
        await _find(asked, search)
        return await _show(asked, search)

    async def erase(asked: Asked) -> Response:
        form = await asked.form()
        search = Search(
            tenant=form.one("tenant"),
            name=form.one("name"),
            number=form.one("number"),
            reason=form.one("reason"),
        )
        asked.caller.own(search.tenant)
        visits = await _meant(asked, search.tenant, form)
        try:
            reason = ErasureRequest.model_validate({"reason": search.reason}).reason
        except ValidationError as error:
            search.wrong = invalid(asked.t, error)
        if not visits:
            search.wrong = [*search.wrong, asked.t("erasure.none_chosen")]
        if form.one("sure") != "true":
            search.wrong = [*search.wrong, asked.t("erasure.not_sure")]
        if search.wrong:
            search.found = [Told(visit) for visit in visits]
            return await _show(asked, search, status=422)
        storage = asked.service.storage
        done = await erase_visits(
            storage,
            search.tenant,
            [visit.id for visit in visits],
            by=asked.caller.by,
            more={"reason": reason} if reason else None,
        )
        await remove_recordings(storage, recordings(), storage.service)
        if done.refused:
            raise Problem(409, "found records of these visits that were changed; see the audit log's verify")
        return asked.see("/erasure", "erased")

    return [
        site.page("/erasure", look, "visits:review", role="manager"),
        site.page("/erasure", erase, "visits:review", role="manager", methods="POST"),
    ]


async def _find(asked: Asked, search: Search) -> None:
    """The visits that are meant: the one that the address names, or those that name somebody."""
    if search.visit:
        view = await asked.service.storage.visit(_id(search.visit))
        if view is None or not asked.caller.sees(view.summary.tenant):
            raise missing("visit")
        search.tenant, search.found = view.summary.tenant, [Told(view.summary)]
        return
    if not search.name and not search.number:
        return
    if not search.tenant:
        search.wrong = [asked.t("erasure.whose")]
    elif search.number and sum(map(str.isdigit, search.number)) < DIGITS:
        search.wrong = [asked.t("erasure.digits", n=DIGITS)]
    else:
        asked.caller.own(search.tenant)
        try:
            async with asyncio.timeout(SEARCH_S):
                await _look_through(asked, search)
        except TimeoutError:
            search.wrong = [asked.t("erasure.too_long")]


async def _look_through(asked: Asked, search: Search) -> None:
    found: list[Told] = []
    storage = asked.service.storage
    async for one in find_person(storage, search.tenant, name=search.name, number=search.number):
        if len(found) == MOST:
            search.more = True
            break
        view = await storage.visit(one.visit)
        if view is not None:
            found.append(Told(view.summary, one.kinds))
    search.found = found


async def _meant(asked: Asked, tenant: str, form: Form) -> list[VisitSummary]:
    """The visits that a form names. Raises :class:`Problem` for one that can't be erased."""
    visits = []
    for id in form.all("visit")[:MOST]:
        view = await asked.service.storage.visit(_id(id))
        if view is None or view.summary.tenant != tenant:
            raise missing("visit")
        if view.summary.ended_at is None:
            raise Problem(409, "found a visit that is running; allowed: one that has ended")
        visits.append(view.summary)
    return visits


def _id(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise missing("visit") from None


async def _show(asked: Asked, search: Search, status: int = 200) -> Response:
    given: dict[str, Any] = {"search": search, "tenants": asked.site.seen_by(asked.caller), "most": MOST}
    return await asked.show("erasure.html", status=status, **given)
