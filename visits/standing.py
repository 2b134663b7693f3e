"""Standing authorisations: who a resident expects, on which days, in which hours, until when.

Data and a rule when one fits. It opens nothing: a visit tells the resident of it, who decides as ever.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime

from visits.hours import DAYS, Hours
from visits.name_likeness import THRESHOLD, name_score, name_words


@dataclass(frozen=True, slots=True)
class StandingAuthorisation:
    """One that an apartment has given.

    Attributes:
        name: the visitor or the company that it is for.
        days: days of the week, 0 is Monday; empty: every day.
        hours: None: at any time. Hours that pass midnight belong to the day on which they begin.
        until: the last day on which it holds; None: until it is taken back.
        call_resident: whether the resident wants to be called all the same. Kept for the record: today
            every visit calls the resident, whatever stands here.
    """

    name: str
    days: frozenset[int] = frozenset()
    hours: Hours | None = None
    until: date | None = None
    call_resident: bool = True

    def holds(self, at: datetime) -> bool:
        """Whether it holds then, by the tenant's own clock."""
        day = at if self.hours is None else self.hours.day_of(at)
        if day is None:
            return False
        return (not self.days or day.weekday() in self.days) and (
            self.until is None or day.date() <= self.until
        )

    def names(self, spoken: str) -> bool:
        """Whether a name that a visitor gave is this one's.

        A part of a name is not enough: "Maria" is not "Maria Aparecida da Silva", but "Maria da Silva" is.
        """
        needed = min(2, len(name_words(self.name)))
        return len(name_words(spoken)) >= needed and name_score(spoken, self.name) >= THRESHOLD

    def __str__(self) -> str:
        days = "every day" if not self.days else ", ".join(DAYS[day] for day in sorted(self.days))
        until = "" if self.until is None else f" until {self.until.isoformat()}"
        return f"{self.name}: {days}{'' if self.hours is None else f' {self.hours}'}{until}"


def fitting(
    authorisations: Iterable[StandingAuthorisation], names: Iterable[str], at: datetime
) -> StandingAuthorisation | None:
    """The first that holds then and is for one of these names; empty names fit none."""
    given = [name for name in names if name]
    return next((one for one in authorisations if one.holds(at) and any(map(one.names, given))), None)


__all__ = ["StandingAuthorisation", "fitting"]
