"""The list of visits: filters, pages, and what of it can be taken along."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode

from starlette.responses import Response
from starlette.routing import Route

from bridge.http.console.periods import bounds_of
from bridge.http.console.site import Asked, Site, Times
from storage.filters import VisitFilter
from tools.registry import porteiro_tools
from visits.events import Outcome, Role

PER_PAGE: Final = 50
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
        said = {name: asked.query(name, 80) for name in FILTERS}
        after = asked.query("after", 400) or None
        wanted = wanted_visits(asked, said)
        page = await asked.service.storage.visit_page(wanted, after=after, limit=PER_PAGE)
        told = {name: value for name, value in said.items() if value}
        return await asked.show(
            "visits.html",
            page=page,
            said=said,
            filtered=bool(told),
            query=urlencode(told),
            later=bool(after),
            tenants=site.seen_by(asked.caller),
            providers=sorted({one.provider for one in site.tenants().values()}),
            tools=TOOLS,
            outcomes=OUTCOMES,
            decisions=DECISIONS,
            reviews=REVIEWS,
        )

    return [site.page("/visits", visits, "visits:read")]


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
