"""When an event is tried, tried again, and given up; how many at once. Without I/O, clock or chance."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from storage.outbox import Due, Outgoing

AT_ONCE: Final = 4
"""Events of one tenant that are sent at the same time, each of another visit."""
IN_TROUBLE: Final = 1
"""Likewise, while the last one was not taken."""
FIRST_PAUSE_S: Final = 5.0
"""Before the second attempt; doubled for each further one, and half of it by chance."""
LONGEST_PAUSE_S: Final = 3600.0
LEAST_ATTEMPTS: Final = 5
"""Nothing is given up before, however old it is: the service may have been down itself."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an attempt.

    Attributes:
        taken: a 2xx.
        words: for people and for the record: a status, or what failed. Never a word of the answer itself.
        gone: the receiver wants this event never again (410).
        after_s: not before so many seconds, says the receiver (``Retry-After``).
    """

    taken: bool
    words: str
    gone: bool = False
    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Taken:
    """It was told: it can be forgotten."""


@dataclass(frozen=True, slots=True)
class Again:
    """It is tried again, not before then."""

    next_at: datetime


@dataclass(frozen=True, slots=True)
class GivenUp:
    """It is tried no more."""


Verdict = Taken | Again | GivenUp


def verdict(event: Outgoing, answer: Answer, *, now: datetime, give_up: timedelta, chance: float) -> Verdict:
    """What follows from an answer.

    Args:
        event: as it was before this attempt.
        answer: what became of it.
        now: when the answer came.
        give_up: how old an event may become.
        chance: from 0 to 1; so that many events do not come back at the same moment.
    """
    if answer.taken:
        return Taken()
    old = now - datetime.fromisoformat(event.since) >= give_up
    if answer.gone or (old and event.attempts + 1 >= LEAST_ATTEMPTS):
        return GivenUp()
    return Again(now + timedelta(seconds=pause_s(event.attempts, answer.after_s, chance)))


def pause_s(attempts: int, after_s: float, chance: float) -> float:
    """Seconds to the next attempt, after so many before this one."""
    doubled: float = FIRST_PAUSE_S * 2.0 ** min(attempts, 20)
    usual = min(doubled, LONGEST_PAUSE_S) * (0.5 + chance / 2)
    return max(usual, min(after_s, LONGEST_PAUSE_S))


@dataclass(slots=True)
class Lane:
    """What of one tenant is being sent. No tenant's events ever wait for another's."""

    trouble: bool = False
    """The last answer was none, or a refusal."""
    _flying: set[str] = field(default_factory=set)
    """The visits of which an event is on its way."""

    @property
    def flying(self) -> int:
        """How many events are on their way."""
        return len(self._flying)

    @property
    def room(self) -> int:
        """How many more may be sent now."""
        return max(0, (IN_TROUBLE if self.trouble else AT_ONCE) - self.flying)

    @property
    def visits(self) -> frozenset[str]:
        """The visits of which an event is on its way."""
        return frozenset(self._flying)

    def start(self, due: Iterable[Due], before: frozenset[str]) -> list[Due]:
        """Those of these that go now: one of a visit, as many as there is room for.

        Args:
            due: what the outbox said.
            before: :attr:`visits` before it was asked. What has landed since may be among ``due`` still.
        """
        started = []
        for one in due:
            if self.room and one.event.visit not in self._flying | before:
                self._flying.add(one.event.visit)
                started.append(one)
        return started

    def land(self, visit: str, *, taken: bool) -> None:
        """What was on its way has its answer, and that is kept."""
        self._flying.remove(visit)
        self.trouble = not taken


__all__ = ["Again", "Answer", "GivenUp", "Lane", "Taken", "Verdict", "pause_s", "verdict"]
