"""Test calls from the browser: somebody plays the visitor, and in another tab the resident too.

The pages hold two telephones; what they say to the service is in `bridge/http/rehearsals.py`.
"""

from __future__ import annotations

import asyncio
from typing import get_args
from uuid import UUID

from starlette.responses import Response
from starlette.routing import Route

from bridge.http.access import Scope, missing
from bridge.http.console.site import Asked, Site
from bridge.rehearsal import Rehearsal, Resident

RESIDENTS: tuple[Resident, ...] = get_args(Resident)
EVENTS = ("dial.started", "answered", "not_answered", "tool", "decision", "gate", "ended")
STATUSES = (
    "ready",
    "starting",
    "no_microphone",
    "calling",
    "talking",
    "waiting",
    "ringing",
    "over",
    "refused",
    "lost",
)


def routes(site: Site) -> list[Route]:
    """The pages of this file."""

    async def choose(asked: Asked) -> Response:
        return await _choose(asked)

    async def make(asked: Asked) -> Response:
        form = await asked.form()
        tenant, resident = form.one("tenant"), form.one("resident")
        wrong = {}
        if tenant not in site.seen_by(asked.caller):
            wrong["tenant"] = asked.t("test.wrong.tenant")
        if resident not in RESIDENTS:
            wrong["resident"] = asked.t("test.wrong.resident")
        if wrong:
            return await _choose(asked, tenant=tenant, resident=resident, wrong=wrong, status=422)
        chosen = next(each for each in RESIDENTS if each == resident)
        now = asyncio.get_running_loop().time()
        made = site.service.rehearsals.make(tenant, asked.caller.by, chosen, now=now)
        return asked.see(f"/test-call/{made.id}")

    async def visitor(asked: Asked) -> Response:
        return await _telephone(asked, "visitor")

    async def resident(asked: Asked) -> Response:
        return await _telephone(asked, "resident")

    async def _choose(
        asked: Asked,
        *,
        tenant: str = "",
        resident: str = "browser",
        wrong: dict[str, str] | None = None,
        status: int = 200,
    ) -> Response:
        return await asked.show(
            "test_call.html",
            status=status,
            tenants=site.seen_by(asked.caller),
            tenant=tenant or asked.query("tenant"),
            residents=RESIDENTS,
            resident=resident,
            wrong=wrong or {},
        )

    async def _telephone(asked: Asked, role: str) -> Response:
        test = _made(asked)
        settings = site.tenants()[test.tenant]
        return await asked.show(
            "test_call_telephone.html",
            test=test,
            role=role,
            keys=settings.consent if role == "resident" and settings.consent.by_key else None,
            words=_words(asked),
        )

    def _made(asked: Asked) -> Rehearsal:
        """The test call that the address names, where it is the caller's own."""
        id = UUID(str(asked.request.path_params["id"]))
        found = site.service.rehearsals.get(id, asked.caller.by, now=asyncio.get_running_loop().time())
        if found is None or found.tenant not in site.seen_by(asked.caller):
            raise missing("test call")
        return found

    def _words(asked: Asked) -> dict[str, str]:
        """What the page's script says, in the language of whoever asks."""
        t = asked.t
        outcomes = ("authorized", "denied", "unreachable", "abandoned", "failed")
        return (
            {f"status.{each}": t(f"test.status.{each}") for each in STATUSES}
            | {f"event.{each}": t(f"test.event.{each}") for each in EVENTS}
            | {f"speaker.{each}": t(f"test.speaker.{each}") for each in ("agent", "visitor", "resident")}
            | {f"decision.{each}": t(f"test.decision.{each}") for each in ("authorized", "denied")}
            | {f"outcome.{each}": t.of("outcome", each) for each in outcomes}
            | {"wordless": t("test.wordless")}
        )

    need: tuple[Scope, ...] = ("calls:write", "visits:read")
    return [
        site.page("/test-call", choose, *need, role="reviewer"),
        site.page("/test-call", make, *need, role="reviewer", methods="POST"),
        site.page("/test-call/{id:uuid}", visitor, *need, role="reviewer"),
        site.page("/test-call/{id:uuid}/resident", resident, *need, role="reviewer"),
    ]
