"""What happens in a running visit, for those who watch it: the demo, a console.

Watching is never part of the work: a watcher is called synchronously from the host, must not block, and
nothing depends on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Seen:
    """One thing that happened.

    Attributes:
        visit: the visit's id.
        at_ms: since the visit began.
        kind: a kind of the audit log's (`visits/audit.py`), or `barge_in`, `state`, `speaking`, `floor`.
        data: as recorded.
    """

    visit: str
    at_ms: float
    kind: str
    data: Mapping[str, Any] = field(default_factory=dict)


Watcher = Callable[[Seen], None]
