"""Which numbers a visit calls, in which order, and whom it leaves in peace."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.visits.visit_stage import Stage, V, of
from visits import events as e
from visits.directory import Apartment, Contact, Directory
from visits.events import DialOutcome
from visits.hours import DAY_MINUTES, Hours

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
NIGHT = NOON.replace(hour=23)
ANA = {"name": "Ana Prado", "voip_number": ["a1", "a2"]}
BIA = {"name": "Bia Prado", "voip_number": ["b1"], "quiet_hours": ["22:00-07:00"]}
HOME = {"apartment_number": "501", "residents": [ANA, BIA, "Caio Prado"], "voip_number": "home"}


def visit(at: datetime | None, resident: str = "", *, dial_attempts: int = 5, **home: Any) -> Stage:
    stage = Stage(dial_attempts=dial_attempts)
    stage.visit.directory = Directory.from_records([{**HOME, **home}])
    stage.play(e.Started(at=at), e.SentencePlayed(V, "greeting", True))
    stage.play(e.CallRequested(stage.call(), "501", "entrega", "Pedro", resident_name=resident))
    return stage


def dialled(stage: Stage) -> list[str]:
    """The numbers called where nobody answers, until the visit gives up."""
    while stage.visit.attempt is not None:
        stage.play(e.DialFailed(stage.attempt, DialOutcome.NO_ANSWER))
    return [one.number for one in of(stage.told, e.Dial)]


def test_the_resident_asked_for_then_the_apartment_then_the_others() -> None:
    assert dialled(visit(NOON, "Bia Prado", dial_attempts=4)) == ["b1", "home", "a1", "a2"]
    assert dialled(visit(NOON, "Ana Prado", dial_attempts=3)) == ["a1", "a2", "home"]
    assert dialled(visit(NOON, "Caio Prado", dial_attempts=2)) == ["home", "a1"]
    assert dialled(visit(NOON, dial_attempts=2)) == ["home", "a1"]


def test_in_quiet_hours_a_residents_own_numbers_stay_silent() -> None:
    assert dialled(visit(NIGHT, "Bia Prado", dial_attempts=4)) == ["home", "a1", "a2", "home"]


def test_who_is_not_to_be_called_is_called_at_no_time() -> None:
    never = {**BIA, "quiet_hours": [], "do_not_call": True}
    assert "b1" not in dialled(visit(NOON, "Bia Prado", residents=[ANA, never]))


def test_where_nobody_may_be_called_the_visit_ends_closed_and_says_so_on_record() -> None:
    stage = visit(NIGHT, residents=[BIA], voip_number=[])
    assert dialled(stage) == []
    notes = [one.data for one in of(stage.told, e.Record) if one.kind == "note"]
    expected = "numbers that are not called now, by quiet hours or do-not-call: 1"
    assert notes == [{"about": "dial", "text": expected}]
    stage.closes()
    assert stage.ended() == ("unreachable", "invalid")
    assert not stage.opened


def test_where_the_time_is_not_known_quiet_hours_are_taken_to_be_now() -> None:
    assert "b1" not in dialled(visit(None, "Bia Prado"))


def test_the_first_numbers_are_called_again_where_attempts_are_left() -> None:
    assert dialled(visit(NOON, residents=["Caio Prado"], dial_attempts=2)) == ["home", "home"]


numbers = st.lists(st.sampled_from("123456"), max_size=3).map(tuple)
hours = st.builds(Hours, st.integers(0, DAY_MINUTES - 1), st.integers(0, DAY_MINUTES))
contacts = st.builds(
    Contact, st.sampled_from(["Ana", "Bia"]), numbers, st.lists(hours, max_size=2).map(tuple), st.booleans()
)


@given(
    st.lists(contacts, max_size=2, unique_by=lambda one: one.resident).map(tuple),
    numbers,
    st.sampled_from(["", "Ana", "Bia"]),
    st.none() | st.datetimes(timezones=st.just(UTC)),
)
def test_nobody_is_called_who_is_not_to_be_called(
    people: tuple[Contact, ...], home: tuple[str, ...], asked: str, at: datetime | None
) -> None:
    apartment = Apartment("1", None, ("Ana", "Bia"), home, people)
    order = apartment.numbers(asked, at)
    assert len(order) == len(set(order))
    barred = {number for one in people if not one.callable_at(at) for number in one.dial}
    everything = {*home, *(number for one in people for number in one.dial)}
    assert set(order) == everything - barred


@pytest.mark.parametrize("asked", ["Ana", "Bia", ""])
def test_without_contacts_the_order_is_the_apartments(asked: str) -> None:
    assert Apartment("1", None, ("Ana", "Bia"), ("2", "1")).numbers(asked, None) == ("2", "1")
