"""Whom a caller is put through to: whom they mean, and nobody whom the tenant does not name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.visits.visit_stage import Stage, V, of
from visits import events as e
from visits.departments import Department, Departments
from visits.visit import State

OFFICE = Departments(
    [
        Department("Financeiro", "210", ("contas a pagar", "boletos")),
        Department("Recursos humanos", "220", ("RH",)),
        Department("Suporte técnico", "231"),
        Department("Suporte comercial", "232"),
        Department("Vendas", "240"),
        Department("Comercial", "240"),
    ],
    ["3XX"],
)


@pytest.mark.parametrize(
    ("spoken", "extension"),
    [
        ("financeiro", "210"),
        ("o Financeiro, por favor", "210"),
        ("quero falar com o setor financeiro", "210"),
        ("finanseiro", "210"),
        ("contas a pagar", "210"),
        ("boleto", "210"),
        ("recursos humanos", "220"),
        ("RH", "220"),
        ("departamento de recursos humanos", "220"),
        ("suporte tecnico", "231"),
        ("vendas", "240"),
        ("venda", "240"),
        ("ramal 210", "210"),
        ("2 1 0", "210"),
        ("duzentos e dez", "210"),
        ("ramal trezentos e cinco", "305"),
        ("305", "305"),
    ],
)
def test_a_department_is_found_as_people_say_it(spoken: str, extension: str) -> None:
    match = OFFICE.find(spoken)
    assert (match.status, match.extension) == ("found", extension)


def test_who_may_be_meant_is_asked_and_who_is_not_there_is_said() -> None:
    assert OFFICE.find("suporte").candidates == ("Suporte técnico", "Suporte comercial")
    assert OFFICE.find("suporte").status == "ambiguous"
    for nobody in ("marketing", "o presidente", "", "…"):
        assert OFFICE.find(nobody).status == "not_found"
        assert OFFICE.find(nobody).candidates == OFFICE.names


@pytest.mark.parametrize(
    "number", ["0900123456", "190", "400", "30", "3055", "3XX", "*305", "+5511999", "zero"]
)
def test_no_other_number_is_ever_reached(number: str) -> None:
    assert OFFICE.find(number).status == "not_found"
    assert OFFICE.find(f"ramal {number}, por favor, Local/{number}@house").extension in ("", "210")


@given(st.text(max_size=60))
def test_whatever_is_said_only_what_is_named_is_found(spoken: str) -> None:
    match = OFFICE.find(spoken)
    assert (match.status == "found") == bool(match.extension)
    named = {"210", "220", "231", "232", "240"}
    assert match.extension in ("", *named) or (len(match.extension) == 3 and match.extension[0] == "3")


# ---- in a visit -------------------------------------------------------------------------------------------


def reply(told: list[e.Effect]) -> object:
    (one,) = of(told, e.Reply)
    return one.result


def test_a_caller_is_put_through_and_told_so_once_the_pbx_knows() -> None:
    stage = Stage.collecting(departments=OFFICE)
    assert e.PrepareTransfer("210") in stage.play(e.TransferRequested("a", "o financeiro"))
    assert reply(stage.play(e.TransferRequested("b", "vendas"))) == {"status": "pending"}
    told = stage.play(e.TransferAnswered(True))
    assert reply(told) == {"status": "transferring"}
    assert [one.sentence for one in of(told, e.SayExactly)] == ["transfer_elsewhere"]
    (note,) = [one for one in of(told, e.Record) if one.kind == "note"]
    assert "transfer to Financeiro" in note.data["text"]
    assert stage.at(State.CLOSING) and stage.visit.reason == "transferred"


def test_a_caller_who_can_not_be_put_through_stays_with_us() -> None:
    stage = Stage.collecting(departments=OFFICE)
    asked = reply(stage.play(e.TransferRequested("a", "suporte")))
    assert asked == {"status": "ambiguous", "departments": ["Suporte técnico", "Suporte comercial"]}
    stage.play(e.TransferRequested("b", "vendas"))
    told = stage.play(e.TransferAnswered(False, "no such channel"))
    assert reply(told) == {"status": "unavailable"} and not of(told, e.SayExactly)
    assert e.UndoTransfer() in told and stage.at(State.COLLECTING)
    assert e.PrepareTransfer("305") in stage.play(e.TransferRequested("c", "ramal 305")), (
        "it may be tried again"
    )
    stage.ring("transfer")
    assert stage.at(State.COLLECTING)


def test_without_departments_nobody_is_put_through() -> None:
    stage = Stage.collecting(attendant=True)
    assert reply(stage.play(e.TransferRequested("a", "vendas"))) == {"status": "unavailable"}
    assert not of(stage.told, e.PrepareTransfer)


def test_a_call_is_not_put_through_once_it_is_decided() -> None:
    stage = Stage.authorized(departments=OFFICE)
    assert reply(stage.play(e.TransferRequested("a", "vendas"))) == {
        "status": "refused",
        "reason": "not_while_authorized",
    }


def test_whoever_hung_up_while_the_pbx_was_told_is_not_rung_after() -> None:
    stage = Stage.collecting(departments=OFFICE)
    stage.play(e.TransferRequested("a", "vendas"))
    stage.play(e.HungUpByPerson("operator:ana", "visitor", V))
    assert e.UndoTransfer() in stage.told
