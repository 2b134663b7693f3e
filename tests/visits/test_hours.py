"""Hours and days as people write them, and what time lies in them."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visits.hours import DAY_MINUTES, DAYS, Hours, read_day, read_hours

NIGHT = Hours(22 * 60, 7 * 60)
TUESDAY = datetime(2026, 11, 24, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    ["22:00-07:00", "22:00 - 7:00", "22h-7h", "22h às 7h", "das 22h00 às 7h00", "22 a 7", "22:00–07:00"],
)
def test_hours_as_people_write_them(text: str) -> None:
    assert read_hours(text) == NIGHT


@pytest.mark.parametrize("text", ["", "22", "22:60-7:00", "25h-7h", "24:00-07:00", "7:00-7:00", "de noite"])
def test_what_is_no_hours_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="hours such as 22:00-07:00"):
        read_hours(text)


@pytest.mark.parametrize(
    ("text", "day"),
    [("seg", 0), ("Terça-feira", 1), ("quartas", 2), ("thu", 3), ("Friday", 4), ("sábado", 5), ("dom", 6)],
)
def test_days_as_people_write_them(text: str, day: int) -> None:
    assert read_day(text) == day


@pytest.mark.parametrize("text", ["", "x", "segundo", "monday tuesday", "domicílio"])
def test_what_is_no_day_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a day of the week: mon"):
        read_day(text)


@given(st.text(max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(ValueError):
        assert isinstance(read_hours(text), Hours)
    with suppress(ValueError):
        assert read_day(text) in range(len(DAYS))


@given(st.integers(0, DAY_MINUTES - 1), st.integers(0, DAY_MINUTES))
def test_what_is_written_is_read_again(begin: int, end: int) -> None:
    if begin != end:
        assert read_hours(str(Hours(begin, end))) == Hours(begin, end)


@given(st.integers(0, DAY_MINUTES - 1), st.integers(0, DAY_MINUTES), st.integers(0, DAY_MINUTES - 1))
def test_a_minute_lies_in_the_hours_or_in_those_that_are_left(begin: int, end: int, minute: int) -> None:
    if begin == end or (begin, end) == (0, DAY_MINUTES):
        return
    at = TUESDAY + timedelta(minutes=minute)
    hours, rest = Hours(begin, end), Hours(end % DAY_MINUTES, begin or DAY_MINUTES)
    assert (hours.day_of(at) is None) != (rest.day_of(at) is None)


def test_hours_past_midnight_belong_to_the_day_on_which_they_began() -> None:
    late, early, noon = (TUESDAY + timedelta(hours=hour) for hour in (23, 6, 12))
    assert NIGHT.day_of(late) == late
    begun = NIGHT.day_of(early)
    assert begun is not None and begun.date() == TUESDAY.date() - timedelta(days=1)
    assert NIGHT.day_of(noon) is None
