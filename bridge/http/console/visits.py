"""The list of visits: filters, pages, and what of it can be taken along."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import fields
from typing import Final

import orjson
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from bridge.http.access import missing
from bridge.http.audit import harmless
from bridge.http.console.page import HEADERS
from bridge.http.console.periods import bounds_of
from bridge.http.console.site import Asked, Site, Times, looked_for
from storage.base import VisitSummary
from storage.filters import VisitFilter
from storage.paging import MAX_PAGE
from tools.registry import porteiro_tools
from visits.events import Outcome, Role

PER_PAGE: Final = 50
KINDS: Final = {"csv": "text/csv", "jsonl": "application/jsonl"}
"""What a list can be taken along as."""
FILTERS: Final = (
    "tenant", "since", "until", "outcome", "decision", "review", "apartment", "resident", "visitor", "tool",
    "provider",
)  # fmt: skip
TOOLS: Final = sorted({tool.name for role in Role for tool in porteiro_tools().of(role)})
OUTCOMES: Final = ("running", *(str(each) for each in Outcome))
DECISIONS: Final = ("authorized", "denied", "none")
REVIEWS: Final = ("none", "any", "right", "wrong")


def routes(site: Site) -> list[Route]:
    """The pages of this file."""

    async def visits(asked: Asked) -> Response:
        said = asked.filters(FILTERS)
        after = asked.query("after", 400) or None
        wanted = wanted_visits(asked, said)
        page = await asked.service.storage.visit_page(wanted, after=after, limit=PER_PAGE)
        return await asked.show(
            "visits.html",
            page=page,
            **looked_for(said, after),
            tenants=site.seen_by(asked.caller),
            providers=sorted({one.provider for one in site.tenants().values()}),
            tools=TOOLS,
            outcomes=OUTCOMES,
            decisions=DECISIONS,
            reviews=REVIEWS,
            may_export=asked.caller.at_least("reviewer"),
            may_erase=asked.caller.may("visits:review") and asked.caller.at_least("manager"),
        )

    async def export(asked: Asked) -> Response:
        """All visits of a filter, page after page: a long one holds nobody up."""
        wanted = wanted_visits(asked, asked.filters(FILTERS))
        kind = asked.path("kind")
        if kind not in KINDS:
            raise missing("page")
        return StreamingResponse(
            _exported(asked, wanted, _table if kind == "csv" else _lines),
            media_type=KINDS[kind],
            headers={**HEADERS, "content-disposition": f'attachment; filename="visits.{kind}"'},
        )

    return [
        site.page("/visits", visits, "visits:read"),
        site.page("/visits.{kind}", export, "visits:read", role="reviewer"),
    ]


async def _exported(
    asked: Asked, wanted: VisitFilter, written: Callable[[Sequence[VisitSummary], bool], bytes]
) -> AsyncIterator[bytes]:
    after: str | None = None
    first = True
    while first or after is not None:
        page = await asked.service.storage.visit_page(wanted, after=after, limit=MAX_PAGE)
        yield await asyncio.to_thread(written, page.items, first)
        first, after = False, page.next


def _lines(visits: Sequence[VisitSummary], _: bool) -> bytes:
    """Visits as JSON, one a line."""
    return b"".join(orjson.dumps(visit, option=orjson.OPT_APPEND_NEWLINE) for visit in visits)


def _table(visits: Sequence[VisitSummary], first: bool) -> bytes:
    """Visits as a table that Excel in Portuguese reads, and takes none of for a formula."""
    text = io.StringIO()
    rows = csv.writer(text, delimiter=";", lineterminator="\r\n")
    names = [field.name for field in fields(VisitSummary)]
    if first:
        text.write("\ufeff")
        rows.writerow(names)
    rows.writerows([harmless(getattr(visit, name)) for name in names] for visit in visits)
    return text.getvalue().encode()


def wanted_visits(asked: Asked, said: dict[str, str]) -> VisitFilter:
    """The filter that an address names; what is none of a list's values is any."""
    tenant = asked.caller.filtered(said["tenant"] or None)
    since, until = bounds_of(said["since"], said["until"], Times(asked.t, asked.site.tenants()).zone(tenant))
    review = said["review"]
    return VisitFilter(
        tenants=None if tenant is None else (tenant,),
        since=since,
        until=until,
        outcomes=(said["outcome"],) if said["outcome"] in OUTCOMES else (),
        decision=said["decision"] if said["decision"] in DECISIONS else "",
        reviewed={"none": False, "any": True}.get(review),
        verdict=review if review in ("right", "wrong") else "",
        apartment=said["apartment"],
        resident=said["resident"],
        visitor=said["visitor"],
        tool=said["tool"],
        provider=said["provider"],
    )
