"""`GET /v1/providers`: how the voice models' providers stand, by tenant: state, latency, cost. No keys."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Final, Literal, Protocol

from fastapi import APIRouter
from pydantic import BaseModel

from bridge.costs.account import plain
from bridge.costs.budget import begins, spent_in
from bridge.http.access import Caller, allowed
from bridge.http.description import problems
from bridge.http.params import Cursor, Limit, PageOf, TenantQuery
from bridge.http.route import GuardedRoute
from bridge.live import Hub
from bridge.settings import Tenant
from storage.base import ResponseTime, Storage
from storage.paging import key_of, page_of
from visits.audit import stamp

LAST_VISITS: Final = 50
"""Of a tenant: what its latency is reckoned from."""


class Behind(Protocol):
    """What this resource needs of the service."""

    hub: Hub

    @property
    def storage(self) -> Storage:
        """Visits, and what they cost."""

    @property
    def tenants(self) -> Mapping[str, Tenant]:
        """The tenants in force."""


class ProviderView(BaseModel):
    """One provider of a tenant, the first one first."""

    provider: str
    model: str
    state: Literal["well", "failing", "passed_over", "unknown"]
    """`passed_over`: another is tried first for a while. `unknown`: nobody has tried it since the start."""
    code: str
    """Why it is not well."""
    since: str | None
    passed_over_s: float
    response_p50_ms: float | None
    """From the end of a caller's turn to our first sound, in the last visits that began with it."""
    response_p95_ms: float | None
    responses: int
    """How many turns that is."""


class ProvidersOfTenant(BaseModel):
    """A tenant's providers, and what its visits have cost since midnight there."""

    tenant: str
    providers: list[ProviderView]
    cost_today: str
    currency: str
    visits_today: int
    """Those that cost anything."""


def router(service: Behind) -> APIRouter:
    """The resources of this file."""
    routes = APIRouter(tags=["providers"], route_class=GuardedRoute)

    @routes.get("/providers", responses=problems(404, 422))
    async def providers(
        caller: Annotated[Caller, allowed("providers:read")],
        tenant: TenantQuery = None,
        limit: Limit = 50,
        after: Cursor = None,
    ) -> PageOf[ProvidersOfTenant]:
        """How each tenant's providers stand, how quickly they answered lately, and today's cost."""
        only = caller.filtered(tenant)
        behind = key_of(after, str)[0] if after is not None else ""
        found = [
            one for name, one in sorted(service.tenants.items()) if name > behind and only in (None, name)
        ]
        page = page_of(found, limit, lambda one: (one.id,))
        return PageOf(items=[await _of_tenant(service, one) for one in page.items], next=page.next)

    return routes


async def _of_tenant(service: Behind, tenant: Tenant) -> ProvidersOfTenant:
    since = stamp(begins("day", datetime.now(UTC), tenant.timezone))
    spending = await service.storage.spending(tenant.id, since)
    times = await service.storage.response_times(tenant.id, LAST_VISITS)
    currency = tenant.cost.in_currency
    return ProvidersOfTenant(
        tenant=tenant.id,
        providers=[
            _view(service.hub, tenant.id, place, account.provider, account.model, times)
            for place, (_, account) in enumerate(tenant.accounts)
        ],
        cost_today=plain(spent_in(currency, spending)),
        currency=currency.code,
        visits_today=sum(one.visits for one in spending),
    )


def _view(
    hub: Hub, tenant: str, place: int, name: str, model: str, times: Sequence[ResponseTime]
) -> ProviderView:
    standing = hub.provider(tenant, place)
    own = sorted(one.ms for one in times if one.provider == name)
    return ProviderView(
        provider=name,
        model=model,
        state=standing.state if standing is not None else "unknown",
        code=standing.code if standing is not None else "",
        since=standing.at if standing is not None else None,
        passed_over_s=standing.passed_over_s if standing is not None else 0.0,
        response_p50_ms=percentile(own, 0.5),
        response_p95_ms=percentile(own, 0.95),
        responses=len(own),
    )


def percentile(ordered: Sequence[float], part: float) -> float | None:
    """The value that so much of them does not exceed (nearest rank); None where there are none."""
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)] if ordered else None
