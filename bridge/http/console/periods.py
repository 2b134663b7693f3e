"""Days as people name them, and the moments at which they begin and end by a house's clock."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from visits.audit import stamp


def read_day(text: str) -> date | None:
    """A day as a form's date field sends it; None for what is none."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return day if 2000 <= day.year < 3000 else None


def begin_of(day: date, zone: ZoneInfo) -> str:
    """When a day begins there, as records have it."""
    return stamp(datetime.combine(day, time(), zone).astimezone(UTC))


def bounds_of(first: str, last: str, zone: ZoneInfo) -> tuple[str | None, str | None]:
    """From the first day's beginning to the last one's end; None where no day is named."""
    begin, end = read_day(first), read_day(last)
    return (
        None if begin is None else begin_of(begin, zone),
        None if end is None else begin_of(end + timedelta(days=1), zone),
    )
