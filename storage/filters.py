"""Which visits, and which audit records, a list shows. What is None, or empty, is any."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class VisitFilter:
    """Visits of which all of this is so.

    Attributes:
        tenants: of one of these; an empty collection: of none.
        since: started then or later; as ``visits.audit.stamp`` writes it.
        until: started before then.
        outcomes: ended so; ``running``: not yet ended.
        resident: this is in the name of whoever they came for; upper case and accents are all the same.
        visitor: likewise in the visitor's name.
        apartment: the apartment, by its label ("102 bloco B") or by its number in all blocks ("102").
        tool: a tool of this name was called.
        decision: ``authorized`` or ``denied``; ``none``: nothing was decided.
        reviewed: a person has judged it, or nobody has.
        verdict: what the last review says: ``right`` or ``wrong``.
        provider: whose model began the visit.
    """

    tenants: Collection[str] | None = None
    since: str | None = None
    until: str | None = None
    outcomes: Collection[str] = ()
    resident: str = ""
    visitor: str = ""
    apartment: str = ""
    tool: str = ""
    decision: str = ""
    reviewed: bool | None = None
    verdict: str = ""
    provider: str = ""


@dataclass(frozen=True, slots=True)
class RecordFilter:
    """Audit records of which all of this is so.

    Attributes:
        tenants: in the chains of these; "" is the service's own; an empty collection: in none.
        since: ``at`` is then or later.
        until: ``at`` is before then.
        kinds: of one of these kinds.
        tool: a call or an answer of the tool of this name.
        visit: of this visit.
        outcomes: of visits that ended so; as :attr:`VisitFilter.outcomes`.
        resident: of visits to somebody in whose name this is; as :attr:`VisitFilter.resident`.
        visitor: of visits of somebody in whose name this is.
    """

    tenants: Collection[str] | None = None
    since: str | None = None
    until: str | None = None
    kinds: Collection[str] = ()
    tool: str = ""
    visit: str = ""
    outcomes: Collection[str] = ()
    resident: str = ""
    visitor: str = ""


__all__ = ["RecordFilter", "VisitFilter"]
