"""What importing a directory would change in the one that a tenant has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.importing.directories import plan_directory, read_directory
from bridge.importing.plan import Change, Plan
from visits.directory import Contact, Directory

EXAMPLE = Path(__file__).parents[2] / "data" / "apartamentos.json"
OLD: list[dict[str, Any]] = [
    {
        "apartment_number": "101",
        "residents": [
            {"name": "Ana Silva", "voip_number": ["1"], "quiet_hours": ["22:00-07:00"]},
            {"name": "Bia Dias", "do_not_call": True, "voip_number": ["2"]},
        ],
        "voip_number": "10",
        "standing_authorisations": [{"name": "Maria Prado"}],
    },
    {"apartment_number": "102", "residents": ["Caio Melo"], "voip_number": "12"},
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    there = tmp_path / "directory.json"
    there.write_text(json.dumps(OLD), encoding="utf-8")
    return there


def plan(text: str, file: Path, *, replacing: bool = False) -> Plan:
    return plan_directory(read_directory(text.encode(), "x"), "jardim", file, replacing=replacing)


def written(plan: Plan, file: Path) -> Directory:
    content = plan.files[file]
    assert content is not None
    return Directory.from_records(json.loads(content))


def acts(plan: Plan) -> list[tuple[str, str]]:
    return [(one.action, one.name) for one in plan.changes]


def test_the_example_comes_in_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "new" / "directory.json"
    made = plan(EXAMPLE.read_text("utf-8"), file)
    assert {one.action for one in made.changes} == {"create"} and len(made.changes) == 10
    assert written(made, file) == Directory.from_records(json.loads(EXAMPLE.read_bytes()))


def test_what_is_the_same_is_left_and_nothing_is_written(file: Path) -> None:
    made = plan(json.dumps(OLD), file)
    assert acts(made) == [("leave", "101"), ("leave", "102")] and not made.files


def test_others_stay_and_so_does_what_a_sheet_can_not_say(file: Path) -> None:
    made = plan("Apto;Morador;Telefone\n101;Ana Silva;3\n101;Davi Reis;4\n103;Elisa Lima;5\n", file)
    assert made.changes == (
        Change(
            "change", "apartment", "jardim", "101", ("+ Davi Reis", "- Bia Dias", "numbers: 10, 1, 2 → 3, 4")
        ),
        Change("leave", "apartment", "jardim", "102"),
        Change("create", "apartment", "jardim", "103", ("Elisa Lima: 5",)),
    )
    old = Directory.from_records(OLD).apartments[0]
    first = written(made, file).apartments[0]
    assert first.residents == ("Ana Silva", "Davi Reis")
    assert first.contacts == (
        Contact("Ana Silva", ("3",), old.contacts[0].quiet),
        Contact("Davi Reis", ("4",)),
    )
    assert first.standing == old.standing


def test_an_import_never_takes_back_that_somebody_is_not_to_be_called(file: Path) -> None:
    made = plan("Apto;Morador;Telefone;Não ligar\n101;Bia Dias;9;não\n", file)
    assert written(made, file).apartments[0].contacts == (Contact("Bia Dias", ("9",), (), True),)


def test_replacing_leaves_what_the_sheet_says_and_nothing_else(file: Path) -> None:
    text = "Apto;Morador;Ramal\n101;Ana Silva;10\n"
    made = plan(text, file, replacing=True)
    assert acts(made) == [("change", "101"), ("remove", "102")]
    assert written(made, file).apartments == read_directory(text.encode(), "x").apartments


def test_with_one_wrong_line_nothing_is_planned(file: Path) -> None:
    made = plan("Apto;Morador;Ramal\n101;Ana;1\n;Bia;2\n104;Caio;\n", file)
    assert [str(one) for one in made.problems] == ["x: linha 3: falta o apartamento"]
    assert not made.changes and not made.files


def test_every_wrong_entry_of_a_json_has_its_problem(file: Path) -> None:
    entries: list[Any] = [OLD[1], {**OLD[1], "residents": []}, 7, OLD[1]]
    texts = [str(one) for one in plan(json.dumps(entries), file).problems]
    assert [text.partition(",")[0] for text in texts] == [
        "x: entry 2: residents must be a list of full names",
        "x: entry 3: must be an object with apartment_number",
        "x: entry 4: apartment '102' is already entry 1; each may appear once",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[", "x: not valid JSON: "),
        ("[" * 100_000, "x: not valid JSON: "),
        ("[]", "x: the directory is empty"),
    ],
)
def test_what_is_no_directory_is_refused(text: str, problem: str, file: Path) -> None:
    (found,) = plan(text, file).problems
    assert str(found).startswith(problem)


def test_a_tenants_directory_that_can_not_be_read_is_not_overwritten(file: Path) -> None:
    file.write_text("{", encoding="utf-8")
    made = plan(json.dumps(OLD), file)
    assert "the tenant's directory can't be read" in str(made.problems[0]) and not made.files


@given(st.binary(max_size=80) | st.text(max_size=60).map(lambda text: f"[{text}]".encode()))
def test_any_bytes_give_problems_or_apartments(content: bytes) -> None:
    read = read_directory(content, "x")
    assert bool(read.problems) != bool(read.apartments) or read.problems
