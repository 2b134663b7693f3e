"""Standing authorisations: when one fits; and that the resident hears of it and decides as ever."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from tests.visits.visit_stage import Stage, V, of, said_to
from visits import events as e
from visits.directory import Directory
from visits.hours import Hours, read_hours
from visits.standing import StandingAuthorisation, fitting
from visits.visit import State

TUESDAY = datetime(2026, 11, 24, 10, tzinfo=UTC)
MARIA = StandingAuthorisation(
    "Maria Aparecida da Silva", frozenset({1}), Hours(8 * 60, 12 * 60), date(2026, 12, 1)
)


@pytest.mark.parametrize(
    ("at", "holds"),
    [
        (TUESDAY, True),
        (TUESDAY.replace(hour=8), True),
        (TUESDAY.replace(hour=7, minute=59), False),
        (TUESDAY.replace(hour=12), False),
        (TUESDAY + timedelta(days=1), False),
        (TUESDAY + timedelta(days=7), True),
        (TUESDAY + timedelta(days=14), False),
    ],
)
def test_it_holds_on_its_days_in_its_hours_and_until_its_last_day(at: datetime, holds: bool) -> None:
    assert MARIA.holds(at) is holds


def test_without_days_hours_and_an_end_it_always_holds() -> None:
    always = StandingAuthorisation("Maria")
    assert all(always.holds(TUESDAY + timedelta(hours=hour)) for hour in range(0, 400, 7))


def test_a_night_counts_by_the_day_on_which_it_began() -> None:
    night = replace(MARIA, hours=read_hours("22:00-02:00"), until=date(2026, 11, 24))
    assert night.holds(TUESDAY.replace(hour=23))
    assert night.holds(TUESDAY.replace(hour=1) + timedelta(days=1))
    assert not night.holds(TUESDAY.replace(hour=1))


@pytest.mark.parametrize(
    ("spoken", "hers"),
    [
        ("Maria Aparecida da Silva", True),
        ("maria da silva", True),
        ("Maria Aparecida", True),
        ("Maria", False),
        ("Silva", False),
        ("Mariana da Silva", False),
        ("João da Silva", False),
        ("", False),
    ],
)
def test_whose_name_it_is(spoken: str, hers: bool) -> None:
    assert MARIA.names(spoken) is hers


def test_the_first_that_fits_counts_and_an_empty_name_fits_none() -> None:
    courier = StandingAuthorisation("Sedex")
    assert fitting([MARIA, courier], ("", "Sedex"), TUESDAY) == courier
    assert fitting([MARIA, courier], ("Maria da Silva", "Sedex"), TUESDAY) == MARIA
    assert fitting([MARIA, courier], ("", ""), TUESDAY) is None


def expecting(**standing: Any) -> Directory:
    return Directory.from_records(
        [
            {
                "apartment_number": "501",
                "residents": ["Renata Oliveira"],
                "voip_number": "1",
                "standing_authorisations": [{"name": "Maria da Silva", **standing}],
            }
        ]
    )


def visit(directory: Directory, at: datetime | None, visitor: str) -> Stage:
    stage = Stage()
    stage.visit.directory = directory
    stage.play(e.Started(at=at), e.SentencePlayed(V, "greeting", True))
    stage.play(e.CallRequested(stage.call(), "501", "servico", visitor))
    return stage


def notes(stage: Stage) -> list[str]:
    return [one.data["text"] for one in of(stage.told, e.Record) if one.kind == "note"]


def test_a_visit_records_it_and_tells_the_resident() -> None:
    stage = visit(expecting(days=["tue"], call_resident=False), TUESDAY, "Maria da Silva")
    assert notes(stage) == ["Maria da Silva: tue"]
    assert stage.visit.facts is not None and stage.visit.facts.standing == "Maria da Silva"
    stage.play(e.DialAnswered(stage.attempt))
    stage.ring("pickup")
    told = stage.play(e.SentencePlayed(e.Role.RESIDENT, "briefing", True), e.DetailsRequested("d"))
    (reply,) = of(told, e.Reply)
    assert reply.result["expected"] == "Maria da Silva"


def test_it_opens_nothing_and_spares_nobody_the_call() -> None:
    stage = visit(expecting(call_resident=False), TUESDAY, "Maria da Silva")
    assert stage.at(State.DIALING)
    stage.play(e.DialAnswered(stage.attempt))
    stage.ring("pickup")
    stage.play(e.SentencePlayed(e.Role.RESIDENT, "briefing", True), after=8.0)
    stage.authorize()
    assert not stage.opened and stage.at(State.CONSULTING)
    stage.says("Sim, pode entrar.")
    stage.authorize()
    assert stage.opened


@pytest.mark.parametrize(
    ("at", "visitor"),
    [(TUESDAY, "Maria"), (TUESDAY + timedelta(days=1), "Maria da Silva"), (None, "Maria da Silva")],
)
def test_where_none_fits_nothing_is_said_of_it(at: datetime | None, visitor: str) -> None:
    stage = visit(expecting(days=["tue"]), at, visitor)
    assert stage.visit.facts is not None and stage.visit.facts.standing == ""
    assert notes(stage) == []


def test_the_visitor_never_hears_of_it() -> None:
    told, untold = (visit(expecting(days=[day]), TUESDAY, "Maria da Silva") for day in ("tue", "wed"))
    assert said_to(told.told, V) == said_to(untold.told, V)
    assert of(told.told, e.Reply) == of(untold.told, e.Reply)
