"""What happens in a running visit, for those who watch it: the demo, the hub of `bridge/live.py`.

Watching is never part of the work: a watcher is called synchronously from the host, must not block, and
nothing depends on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

PASSING = frozenset({"speaking", "partial"})
"""Kinds that the next of their kind, or a turn, makes void: what can't be told in time need not be told."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One thing that happened.

    Attributes:
        visit: the visit's id; empty: it is of the tenant, and of no visit.
        at_ms: since the visit began.
        kind: a kind of the audit log's (`visits/audit.py`), or `barge_in`, `pause`, `state`, `floor`,
            `speaking` (who talks on a leg: `caller` or `agent`, on or off), `partial` (what somebody has said
            of a turn so far), `provider.state` (see `providers/breaker.py`).
        data: as recorded.
        tenant: whose visit it is.
    """

    visit: str
    at_ms: float
    kind: str
    data: Mapping[str, Any] = field(default_factory=dict)
    tenant: str = ""


Watcher = Callable[[Seen], None]
