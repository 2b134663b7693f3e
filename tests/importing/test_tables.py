"""Spreadsheet files as rows: encodings, delimiters, line numbers, and files that are wrong or too large."""

from __future__ import annotations

import io
import zipfile
from contextlib import suppress
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import Workbook

from bridge.importing.sheet import likeness
from bridge.importing.tables import MAX_BYTES, MAX_ROWS, TableError, read_table

LINES = [["Apto", "Morador", "Ramal"], ["101", "Conceição Araújo", "1001"], ["102", "João", "1002"]]


def csv_of(delimiter: str) -> str:
    return "\r\n".join(delimiter.join(line) for line in LINES)


def xlsx(rows: list[list[object]], *, before: int = 0) -> bytes:
    book = Workbook()
    for _ in range(before):
        book.create_sheet(index=0).append(["Resumo"])
    sheet = book.worksheets[-1]
    for row in rows:
        sheet.append(row)
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def repacked(content: bytes, part: str, old: bytes, new: bytes) -> bytes:
    """The same XLSX with a piece of one part replaced."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as given,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made,
    ):
        for name in given.namelist():
            data = given.read(name)
            if name == part:
                assert old in data
                data = data.replace(old, new)
            made.writestr(name, data)
    return out.getvalue()


def cells(content: bytes) -> list[list[str]]:
    return [list(row.cells) for row in read_table(content, likeness)]


@pytest.mark.parametrize("delimiter", list(";,\t|"))
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
def test_a_csv_in_any_usual_writing(delimiter: str, encoding: str) -> None:
    assert cells(csv_of(delimiter).encode(encoding)) == LINES


def test_an_xlsx_and_the_sheet_in_it_that_holds_the_directory() -> None:
    assert cells(xlsx([list(line) for line in LINES])) == LINES
    assert cells(xlsx([list(line) for line in LINES], before=2)) == LINES


def test_numbers_of_an_xlsx_are_what_people_see() -> None:
    rows: list[list[object]] = [
        ["Apto", "Morador", "Ramal"],
        [101, "Ana", 11988887777],
        ["1", True, date(2026, 2, 1)],
    ]
    assert cells(xlsx(rows))[1:] == [["101", "Ana", "11988887777"], ["1", "sim", "data 01/02/2026"]]


def test_lines_count_through_empty_and_broken_ones() -> None:
    text = 'Condomínio Jardim\n\nApto;Morador;Ramal\n101;"Ana\nMaria";1\n\n102;Bia;2\n'
    assert [row.line for row in read_table(text.encode(), likeness)] == [1, 3, 4, 7]
    rows: list[list[object]] = [["Jardim"], [], ["Apto", "Morador"], [], [], [101, "Ana"]]
    assert [row.line for row in read_table(xlsx(rows), likeness)] == [1, 3, 6]


@pytest.mark.parametrize(
    ("content", "message", "line"),
    [
        (b'Apto;Morador\n101;Ana\n102;"Bia\n103;Caio\n', "aspas", 3),
        (b"\x81\x8d\x8f", "não é um arquivo de texto", 0),
        (b"%PDF-1.4\0\0", "não é um arquivo de texto", 0),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "Excel antigo", 0),
        (b"PK\x03\x04 and nothing", "não consegui abrir a planilha", 0),
        (b"a;b\n" * (MAX_ROWS + 1), f"passa de {MAX_ROWS} linhas", MAX_ROWS + 1),
        (b";" * 300 + b"x", "a linha tem 301 colunas", 1),
        (b"x" * (MAX_BYTES + 1), "o limite é", 0),
    ],
)
def test_a_wrong_file_says_why_and_where(content: bytes, message: str, line: int) -> None:
    with pytest.raises(TableError, match=message) as caught:
        read_table(content, likeness)
    assert caught.value.line == line


SHEET = "xl/worksheets/sheet1.xml"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'r="C3"', b'r="C1048576"', "passa de 20000 linhas"),
        (b'r="C3"', b"r = 'XFD3'", "passa de 200 colunas"),
        (b'<c r="C3"', b"<c", "não é um .xlsx comum"),
        (b"<sheetData>", b"<sheetData>" + b" " * 70_000_000, "passa de 60000000 bytes"),
    ],
)
def test_a_small_file_that_would_fill_the_memory_is_refused(old: bytes, new: bytes, message: str) -> None:
    content = repacked(xlsx([list(line) for line in LINES]), SHEET, old, new)
    assert len(content) < 200_000
    with pytest.raises(TableError, match=message):
        read_table(content, likeness)


def test_other_kinds_of_zip_are_refused() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.writestr("content.xml", "<office/>")
    with pytest.raises(TableError, match=r"não é um \.xlsx comum"):
        read_table(out.getvalue(), likeness)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "ignore")))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    with suppress(TableError):
        assert all(any(row.cells) for row in read_table(content, likeness))


BOOK = xlsx([list(line) for line in LINES])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_damage_to_an_xlsx_is_read_or_refused(data: st.DataObject) -> None:
    content = bytearray(BOOK)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    with suppress(TableError):
        read_table(bytes(content[: data.draw(st.integers(len(BOOK) // 2, len(BOOK)))]), likeness)


PARTS = ["xl/workbook.xml", SHEET, "xl/styles.xml", "xl/_rels/workbook.xml.rels"]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(PARTS), st.data())
def test_any_damage_within_an_xlsx_is_read_or_refused(part: str, data: st.DataObject) -> None:
    with zipfile.ZipFile(io.BytesIO(BOOK)) as archive:
        whole = archive.read(part)
    begin = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(begin, min(len(whole), begin + 40)))
    instead = data.draw(
        st.binary(max_size=20) | st.sampled_from([b'"', b"<", b"</c>", b"&#0;", b"-1", b"99999999999"])
    )
    damaged = whole[:begin] + instead + whole[end:]
    with suppress(TableError):
        read_table(repacked(BOOK, part, whole, damaged), likeness)
