"""The audit log: its records by filters, and whether its chains are whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

from starlette.responses import Response
from starlette.routing import Route

from bridge.http.audit import Log, RecordFilters
from bridge.http.console.language import Language
from bridge.http.console.page import in_json
from bridge.http.console.periods import bounds_of
from bridge.http.console.site import Asked, Site, Times, looked_for
from bridge.http.console.visits import OUTCOMES, TOOLS
from visits.audit import KINDS, AuditRecord

PER_PAGE: Final = 100
FILTERS: Final = ("tenant", "since", "until", "kind", "tool", "outcome", "resident", "visitor", "visit")
SERVICE: Final = "-"
"""As a tenant: the service's own chain."""


def routes(site: Site, log: Log) -> list[Route]:
    """The pages of this file."""

    async def records(asked: Asked) -> Response:
        said = asked.filters(FILTERS)
        after = asked.query("after", 400) or None
        filters = _filters(asked, said)
        wanted = await log.wanted(asked.caller, filters)
        page = await asked.service.storage.record_page(wanted, after=after, limit=PER_PAGE)
        return await asked.show(
            "audit.html",
            page=page,
            **looked_for(said, after),
            export=urlencode(filters.model_dump(mode="json", exclude_defaults=True), doseq=True),
            tenants=_chains(site, asked),
            kinds=sorted(KINDS),
            tools=TOOLS,
            outcomes=OUTCOMES,
            may_export=asked.caller.at_least("reviewer"),
            line=partial(line_of, asked.t, await asked.names()),
        )

    return [site.page("/audit", records, "audit:read")]


def _chains(site: Site, asked: Asked) -> dict[str, str]:
    """The chains that somebody may choose among."""
    chains = site.seen_by(asked.caller)
    return {**chains, SERVICE: asked.t("audit.service")} if asked.caller.rules else chains


def _filters(asked: Asked, said: dict[str, str]) -> RecordFilters:
    """The filter that an address names; what is none of a list's values is any."""
    of_service = said["tenant"] == SERVICE
    tenant = None if of_service else said["tenant"] or None
    zone = Times(asked.t, asked.site.tenants()).zone(tenant or asked.caller.tenant)
    since, until = bounds_of(said["since"], said["until"], zone)
    given: dict[str, Any] = {
        "tenant": tenant if tenant is None else asked.caller.own(tenant),
        "service": of_service,
        "since": since,
        "until": until,
        "kind": [said["kind"]] if said["kind"] in KINDS else [],
        "tool": said["tool"] if said["tool"] in TOOLS else "",
        "outcome": [said["outcome"]] if said["outcome"] in OUTCOMES else [],
        "resident": said["resident"],
        "visitor": said["visitor"],
        "visit": _uuid(said["visit"]),
    }
    return RecordFilters.model_validate(given)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


DULL: Final = frozenset(
    {"digest", "heads", "usage", "call", "started_ms", "ended_ms", "response_ms", "heard_ms", "sha256"}
)
"""What a line leaves out: the whole record stands behind it."""


VALUES: Final[Mapping[str, str]] = {
    "outcome": "outcome",
    "decision": "decision",
    "intent": "intent",
    "role": "role_of",
    "speaker": "role_of",
}
"""Fields whose values have words of their own, and in which area of the texts."""


def line_of(t: Language, called: Callable[[str], str], record: AuditRecord) -> str:
    """What a record says, in one line: names and values, the longest ones shortened."""
    parts = []
    for name, value in record.data.items():
        if name in DULL or value in (None, "", [], {}):
            continue
        text = _told(t, called, record.kind, name, value)
        parts.append(f"{t.of('record', name)}: {text[:80]}{'…' if len(text) > 80 else ''}")
    return " · ".join(parts[:6])


def _told(t: Language, called: Callable[[str], str], kind: str, name: str, value: Any) -> str:
    if isinstance(value, bool):
        return t("frame.yes" if value else "frame.no")
    if not isinstance(value, str):
        return in_json(value).strip("[]{}")
    if name == "leg":
        role, _, number = value.partition("-")
        return f"{t.of('role_of', role)} {number}".strip()
    if name in ("by", "tested_by") and kind != "evidence":
        return called(value)
    area = VALUES.get(name)
    if name == "outcome" and kind == "dial.ended":
        area = "review.dial"
    elif name == "reason" and kind == "leg.ended":
        area = "review.ended"
    elif name == "reason" and kind == "visit.ended":
        area = "why_ended"
    return t.of(area, value) if area is not None else value
