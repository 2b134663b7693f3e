"""A visit that an oracle watches while it runs."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from tests.visits.oracle import Oracle
from visits import events as e
from visits.visit import Visit


class Judged(Visit):
    """In the place of :class:`visits.visit.Visit`."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.oracle = Oracle()
        self.faults: list[str] = []
        """Rules that did not hold."""

    @classmethod
    def kept_in(cls, found: dict[str, Judged]) -> type[Judged]:
        """The same, each kept there by the visit's id."""

        class Kept(cls):  # type: ignore[valid-type,misc]
            def __init__(self, *args: Any) -> None:
                super().__init__(*args)
                found[str(self.id)] = self

        return Kept

    def handle(self, event: e.Event, *, now: float, fresh: UUID) -> tuple[e.Effect, ...]:
        """See :class:`visits.visit.Visit`."""
        was = self.state
        self.oracle.happens(event, now, was)
        effects = super().handle(event, now=now, fresh=fresh)
        try:
            self.oracle.judge_order(was, effects)
            for effect in effects:
                if isinstance(effect, e.OpenGate):
                    self.oracle.judge_opening(self.rules)
                    self.oracle.orders += 1
                self.oracle.asks_for(effect)
        except AssertionError as error:
            self.faults.append(str(error))
        return effects
