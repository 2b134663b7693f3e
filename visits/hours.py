"""Hours of the day and days of the week, as people write them: "22:00-07:00", "22h às 7h", "seg a sex"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from visits.words import fold

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
"""In the order of :meth:`datetime.weekday`."""

_DAY_STEMS = (
    ("mon", "seg"),
    ("tue", "ter"),
    ("wed", "qua"),
    ("thu", "qui"),
    ("fri", "sex"),
    ("sat", "sab"),
    ("sun", "dom"),
)
_DAY = re.compile(
    r"(?:(mon|tues|wednes|thurs|fri|satur|sun)days?|(mon|tue|wed|thu|fri|sat|sun)"
    r"|(segunda|terca|quarta|quinta|sexta)s?(?:[- ]?feiras?)?|(sabado|domingo)s?"
    r"|(seg|ter|qua|qui|sex|sab|dom))"
)
_TIME = r"(\d{1,2})(?:(?::|h)(\d{2}))?h?"
_HOURS = re.compile(rf"(?:das? |from )?{_TIME} ?(?:-|–|as|a|ate|to|until) ?(?:as )?{_TIME}")
DAY_MINUTES = 24 * 60


@dataclass(frozen=True, slots=True)
class Hours:
    """From one time of day to another, in minutes after midnight; the end is no part of it.

    An end that is not after the beginning lies on the next day: 22:00-07:00.
    """

    begin: int
    end: int

    def __str__(self) -> str:
        return f"{self.begin // 60:02}:{self.begin % 60:02}-{self.end // 60:02}:{self.end % 60:02}"

    def day_of(self, at: datetime) -> datetime | None:
        """The day on which the hours began that ``at`` lies in; None where it lies in none."""
        minute = at.hour * 60 + at.minute
        if self.begin < self.end:
            return at if self.begin <= minute < self.end else None
        if minute >= self.begin:
            return at
        return at - timedelta(days=1) if minute < self.end else None


def read_hours(text: str) -> Hours:
    """Hours as people write them.

    Raises:
        ValueError: saying what is allowed.
    """
    found = _HOURS.fullmatch(" ".join(fold(text).split()))
    if found is not None:
        begin, end = _minutes(found[1], found[2]), _minutes(found[3], found[4])
        if begin is not None and end is not None and begin != end and begin < DAY_MINUTES:
            return Hours(begin, end)
    raise ValueError("hours such as 22:00-07:00")


def _minutes(hour: str, minute: str | None) -> int | None:
    total = int(hour) * 60 + int(minute or 0)
    return total if int(minute or 0) < 60 and total <= DAY_MINUTES else None


def read_day(text: str) -> int:
    """A day of the week in English or Portuguese; 0 is Monday.

    Raises:
        ValueError: saying what is allowed.
    """
    folded = fold(text).strip()
    if _DAY.fullmatch(folded):
        for number, stems in enumerate(_DAY_STEMS):
            if folded.startswith(stems):
                return number
    raise ValueError(f"a day of the week: {', '.join(DAYS)}")


__all__ = ["DAYS", "Hours", "read_day", "read_hours"]
