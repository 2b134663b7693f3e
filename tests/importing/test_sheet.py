"""Directories from spreadsheets: headings, several lines an apartment, and an error for each wrong line."""

from __future__ import annotations

import csv
import io
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.importing.sheet import Column, Sheet, heading, likeness, read_sheet
from bridge.importing.tables import TableError, read_table
from visits.directory import Apartment, Contact, Directory
from visits.hours import Hours


def sheet(text: str) -> Sheet:
    return read_sheet(read_table(text.encode(), likeness), "lista.csv")


def problems(text: str) -> list[str]:
    read = sheet(text)
    assert read.problems
    return [f"{one.place}: {one.text}" for one in read.problems]


@pytest.mark.parametrize(
    ("title", "column"),
    [
        ("Apartamento", Column.APARTMENT),
        ("APTO.", Column.APARTMENT),
        ("Unidade", Column.APARTMENT),
        ("Nº do apto", Column.APARTMENT),
        ("Nº do apartamento", Column.APARTMENT),
        ("apartment_number", Column.APARTMENT),
        ("Bloco", Column.BLOCK),
        ("Morador(a)", Column.RESIDENT),
        ("Morador 2", Column.RESIDENT),
        ("Nome completo", Column.RESIDENT),
        ("Telefone1", Column.PHONE),
        ("Celular / WhatsApp", Column.PHONE),
        ("WhatsApp", Column.PHONE),
        ("Ramal", Column.LINE),
        ("voip_number", Column.LINE),
        ("Não ligar", Column.DO_NOT_CALL),
        ("Horário de silêncio", Column.QUIET),
        ("CPF", None),
        ("", None),
    ],
)
def test_headings(title: str, column: Column | None) -> None:
    assert heading(title) is column


def test_one_line_an_apartment() -> None:
    read = sheet("Apto;Moradores;Ramal\n101;Ana Silva / João Silva;1001, sip:101@casa\n102 B;Bia;1002\n")
    assert read == Sheet(
        (
            Apartment("101", None, ("Ana Silva", "João Silva"), ("1001", "sip:101@casa")),
            Apartment("102", "B", ("Bia",), ("1002",)),
        )
    )


def test_a_line_a_resident_with_their_own_phone() -> None:
    read = sheet(
        "Unidade,Bloco,Morador,Celular,Ramal,Horário de silêncio,Não ligar\n"
        "12,Torre 2,Ana Silva,(11) 98888-7777,2012,22h às 7h,\n"
        "12,2,JOÃO SILVA,+55 11 97777-6666,2012,,sim\n"
        "12,2,João Silva,1197000-0000,,,não\n"
    )
    assert not read.problems
    assert read.apartments == (
        Apartment(
            "12",
            "2",
            ("Ana Silva", "JOÃO SILVA"),
            ("2012",),
            (
                Contact("Ana Silva", ("11988887777",), (Hours(22 * 60, 7 * 60),)),
                Contact("JOÃO SILVA", ("+5511977776666", "11970000000"), (), True),
            ),
        ),
    )


def test_a_phone_beside_several_residents_is_the_apartments() -> None:
    (home,) = sheet("apto;morador 1;morador 2;telefone\n7;Ana;Bia;11 3333-4444\n").apartments
    assert home == Apartment("7", None, ("Ana", "Bia"), ("1133334444",))


def test_a_title_above_and_columns_that_are_not_used() -> None:
    read = sheet("Condomínio Jardim;;;\n;;;\nApto;CPF;Morador;Tel\n1;123;Ana;55\n")
    assert [one.number for one in read.apartments] == ["1"]
    assert read.notes == ("lista.csv: colunas que não são usadas: CPF",)


def test_every_wrong_line_says_what_is_wrong() -> None:
    assert problems(
        "Apto;Morador;Telefone;Silêncio;Não ligar\n"
        ";Ana;1;;\n"
        "portaria;Ana;1;;\n"
        "101;;1;;\n"
        "101;98888-7777;1;;\n"
        "101;Ana;maria;;\n"
        "101;Ana;1;de noite;\n"
        "101;Ana;1;;talvez\n"
        "101;Ana;1;;;sobra\n"
        "101;Ana / Bia;1;22h-7h;\n"
    ) == [
        "linha 2: falta o apartamento",
        "linha 3: apartamento 'portaria' não reconhecido; escreva como 102, 102 bloco B, B-102 ou "
        "cobertura 2",
        "linha 4: falta o morador do apartamento 101",
        "linha 5: '98888-7777' não parece o nome de um morador",
        "linha 6: número 'maria' não reconhecido; escreva um ramal (1003), um telefone (11 98888-7777) ou um "
        "endereço SIP (sip:102@condominio.local)",
        "linha 7: horário 'de noite' não reconhecido; escreva como 22:00-07:00",
        "linha 8: 'talvez' em 'não ligar' não reconhecido; escreva sim ou não",
        "linha 9: há um valor na coluna 6, que não tem título: 'sobra'",
        "linha 10: o horário de silêncio e o 'não ligar' valem para o telefone de um morador: no apartamento "
        "101 escreva um morador por linha, com o telefone dele",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Apto;Morador;Ramal\n101;Ana;\n101;Bia;\n", "linha 2: apartamento 101 sem telefone nem ramal"),
        ("Apto;Morador;Ramal\n", "linha 1: não há nenhum apartamento abaixo dos títulos"),
        ("Apto;Ramal\n101;1\n", ": faltam os títulos das colunas: encontrei 'Apto', 'Ramal'; preciso de uma"),
        ("", ": faltam os títulos das colunas: encontrei uma planilha vazia"),
    ],
)
def test_a_sheet_that_holds_no_directory(text: str, problem: str) -> None:
    (found,) = problems(text)
    assert found.startswith(problem)


cells = st.text(max_size=12) | st.sampled_from(
    ["101", "102 bloco B", "Ana Silva", "João; Bia", "11 98888-7777", "sip:1@casa", "22h-7h", "sim", "x", ""]
)
titles = st.sampled_from(
    ["Apto", "Bloco", "Morador", "Morador 2", "Telefone", "Ramal", "Silêncio", "Não ligar", "CPF", ""]
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(titles, max_size=8), st.lists(st.lists(cells, max_size=8), max_size=6), st.sampled_from(";,\t|")
)
def test_any_sheet_gives_problems_or_a_directory_that_the_service_reads(
    heads: list[str], rows: list[list[str]], delimiter: str
) -> None:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows([["Apto", "Morador", "Ramal", *heads], *rows])
    with suppress(TableError):
        read = read_sheet(read_table(out.getvalue().encode(), likeness), "x.csv")
        if not read.problems:
            directory = Directory(read.apartments)
            assert Directory.from_records(directory.records()) == directory
            assert all(home.numbers("", None) or home.contacts for home in read.apartments)


names = st.sampled_from(["Ana Prado", "Bruno Lima", "Carla Dias", "Davi Rocha", "Elisa Nunes", "Fábio Melo"])


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.tuples(st.integers(1, 9999), st.sampled_from(["", "A", "2", "Norte"])),
        st.lists(names, min_size=1, max_size=4, unique=True),
        min_size=1,
        max_size=12,
    ),
    st.booleans(),
)
def test_every_resident_of_a_sheet_is_found_afterwards(
    homes: dict[tuple[int, str], list[str]], several_lines: bool
) -> None:
    lines = ["Apartamento;Bloco;Morador;Ramal"]
    for (number, block), residents in homes.items():
        groups = [[one] for one in residents] if several_lines else [residents]
        lines += [f"{number};{block};{', '.join(group)};{number}" for group in groups]
    read = sheet("\n".join(lines))
    assert not read.problems
    directory = Directory.from_records(Directory(read.apartments).records())
    assert len(directory.apartments) == len(homes)
    for (number, block), residents in homes.items():
        found = directory.find_apartment(f"apartamento {number}{f' bloco {block}' if block else ''}")
        candidates = [found.apartment] if found.apartment else list(found.candidates)
        (home,) = [one for one in candidates if (one.block or "").lower() == block.lower()]
        for resident in residents:
            assert directory.match_resident(home, resident).resident == resident
