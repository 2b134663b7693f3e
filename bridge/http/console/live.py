"""The running visits: a card for each, with what is said as it is said, and a button that hangs up.

`static/live.js` follows `/v1/events` and asks for a card anew when something in it has changed.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from starlette.responses import Response
from starlette.routing import Route

from bridge.http.access import missing
from bridge.http.console.site import Asked, Site
from bridge.http.problems import Problem
from bridge.live import NoSuchCallError, NotAnsweredError, RunningVisit


def routes(site: Site) -> list[Route]:
    """The pages of this file."""

    async def live(asked: Asked) -> Response:
        visits = asked.service.hub.running(asked.caller.tenant)
        return await asked.show("live.html", visits=visits, **_given(asked))

    async def card(asked: Asked) -> Response:
        return await asked.show("live_card.html", visit=_running(asked), **_given(asked))

    async def hang_up(asked: Asked) -> Response:
        visit = _running(asked)
        leg = (await asked.form()).one("leg") or None
        try:
            await asked.service.hub.hang_up(UUID(visit.id), leg, asked.caller.by)
        except NoSuchCallError:
            raise missing("call") from None
        except NotAnsweredError as error:
            raise Problem(503, str(error)) from None
        return asked.see("/", "hung_up")

    return [
        site.page("/", live, "calls:read"),
        site.page("/live/{visit}", card, "calls:read"),
        site.page("/live/{visit}/hang-up", hang_up, "calls:write", role="reviewer", methods="POST"),
    ]


def _running(asked: Asked) -> RunningVisit:
    """The running visit that the address names. Raises :class:`Problem`: none that is theirs."""
    found = asked.service.hub.visit(asked.path("visit"), asked.caller.tenant)
    if found is None:
        raise missing("call")
    return found


def _given(asked: Asked) -> dict[str, Any]:
    may = asked.caller.may("calls:write") and asked.caller.at_least("reviewer")
    return {"may_hang_up": may, "now": datetime.now(UTC), "began": datetime.fromisoformat}
