"""Which of several services on one database sends a tenant's events. Without I/O: times come in.

Whoever sends counts on in the database. Whoever sees another's count stand still for long takes over. Each
measures spans of time by its own clock alone: clocks that differ do no harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

COUNT_S: Final = 5.0
"""So often whoever sends counts on."""
TAKE_OVER_S: Final = 45.0
"""A count that stood still for so long is nobody's: longer than COUNT_S, what the database may take to say
what is due, and what an event may take then."""


@dataclass(slots=True)
class Lease:
    """One tenant's, as one service knows it."""

    beat: int = 0
    """How far the count was when it was last seen, or made."""
    held_since: float | None = None
    """When our count was last begun; None: we do not send."""
    _sender: str = ""
    _seen_since: float | None = None
    """Since when the count stands where it does, as far as we know."""

    def see(self, sender: str, beat: int, now: float, *, me: str) -> None:
        """What the database says: who sends, and how far they have counted."""
        if self.held_since is not None and (sender, beat) != (me, self.beat):
            self.held_since = None  # somebody has taken over
        if self._seen_since is None or (sender, beat) != (self._sender, self.beat):
            self._sender, self.beat, self._seen_since = sender, beat, now

    def free(self, now: float, *, me: str) -> bool:
        """Whether we may take it: nobody's, an earlier run's of ours, or one that stands still."""
        if self._sender in ("", me):
            return True
        return self._seen_since is not None and now - self._seen_since >= TAKE_OVER_S

    @property
    def held(self) -> bool:
        """Whether we send. Asked once :meth:`stale` says no."""
        return self.held_since is not None

    def stale(self, now: float) -> bool:
        """Whether it is time to count on."""
        return self.held_since is None or now - self.held_since >= COUNT_S

    def counted(self, beat: int | None, began: float, *, me: str) -> None:
        """We counted, from that time on; None: somebody was quicker."""
        if beat is None:
            self.held_since = None
            return
        self.beat, self.held_since, self._sender, self._seen_since = beat, began, me, began

    def let_go(self) -> None:
        """We send nothing more."""
        self.held_since = None


__all__ = ["COUNT_S", "TAKE_OVER_S", "Lease"]
