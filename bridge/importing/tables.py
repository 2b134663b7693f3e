"""A spreadsheet file as rows of texts: CSV with any usual delimiter and encoding, and XLSX.

Rows are numbered as people see them, from 1. Wrong files give one :class:`TableError`, in Portuguese: who
sends a spreadsheet is a condominium's administration.
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import islice

from python_calamine import CalamineError, CalamineWorkbook

MAX_BYTES = 10_000_000
"""Of a file. The largest condominiums have a few thousand apartments."""
MAX_ROWS = 20_000
MAX_COLUMNS = 200
MAX_UNPACKED = 60_000_000
"""Bytes of all parts of an XLSX file, which is a ZIP."""
DELIMITERS = ";,\t|"
_LOOKED_AT = 30
"""Rows by which the delimiter is judged."""
_PLACE = re.compile(rb"""\br\s*=\s*["']([A-Za-z]*)([0-9]+)["']""")
_CELL = re.compile(rb"<(?:\w+:)?c[\s/>]")
_UNUSUAL = "a planilha não é um .xlsx comum; salve de novo como .xlsx ou .csv"
_BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError)


class TableError(ValueError):
    """The file can't be read; the message is Portuguese. ``line``: where, 0: nowhere in particular."""

    def __init__(self, text: str, line: int = 0) -> None:
        super().__init__(text)
        self.line = line


@dataclass(frozen=True, slots=True)
class Row:
    """One row that holds something; ``line`` counts from 1, also through empty rows and broken lines."""

    line: int
    cells: tuple[str, ...]


def read_table(content: bytes, like: Callable[[Sequence[Row]], int]) -> list[Row]:
    """The rows of a CSV or XLSX file; which one it is, its content says.

    Args:
        content: of the whole file.
        like: how much its first rows look like what is wanted; chooses a CSV's delimiter and a workbook's
            sheet.

    Raises:
        TableError: it is neither, or holds too much.
    """
    if len(content) > MAX_BYTES:
        raise TableError(f"o arquivo tem {len(content)} bytes; o limite é {MAX_BYTES}")
    if content.startswith(b"PK\x03\x04"):
        return _xlsx(content, like)
    if content.startswith(b"\xd0\xcf\x11\xe0"):
        raise TableError("é um arquivo do Excel antigo (.xls); salve como .xlsx ou .csv")
    return _csv(_text(content), like)


# --------------------------------------------------------------------------------------------------------
# CSV
# --------------------------------------------------------------------------------------------------------


def _text(content: bytes) -> str:
    """The text, by its byte order mark, as UTF-8, or as Windows in Brazil and Western Europe writes it."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings: tuple[str, ...] = ("utf-16",)
    elif content.startswith(b"\xef\xbb\xbf"):
        encodings = ("utf-8-sig",)
    else:
        encodings = ("utf-8", "cp1252")
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            break
        return text
    raise TableError("não é um arquivo de texto; salve a planilha como CSV (UTF-8) ou .xlsx")


def _csv(text: str, like: Callable[[Sequence[Row]], int]) -> list[Row]:
    best = max(DELIMITERS, key=lambda delimiter: like(_first_rows(text, delimiter)))
    return list(_csv_rows(text, best))


def _first_rows(text: str, delimiter: str) -> list[Row]:
    """What is read before anything is wrong: a delimiter that is not the file's may make it so."""
    rows: list[Row] = []
    try:
        rows.extend(islice(_csv_rows(text, delimiter), _LOOKED_AT))
    except TableError:
        return rows
    return rows


def _csv_rows(text: str, delimiter: str) -> Iterator[Row]:
    # strict: a quote that is never closed would swallow the rest of the file in silence.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise TableError(f"aspas ou quebra de linha fora do lugar ({error})", line) from None
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            yield _row(line, [cell.strip() for cell in cells])
        line = reader.line_num + 1


def _row(line: int, cells: Sequence[str]) -> Row:
    if line > MAX_ROWS:
        raise TableError(f"a planilha passa de {MAX_ROWS} linhas", line)
    while cells and not cells[-1]:
        cells = cells[:-1]
    if len(cells) > MAX_COLUMNS:
        raise TableError(f"a linha tem {len(cells)} colunas; o limite é {MAX_COLUMNS}", line)
    return Row(line, tuple(cells))


# --------------------------------------------------------------------------------------------------------
# XLSX
# --------------------------------------------------------------------------------------------------------


def _xlsx(content: bytes, like: Callable[[Sequence[Row]], int]) -> list[Row]:
    _check_size(content)
    sheets: list[list[Row]] = []
    try:
        workbook = CalamineWorkbook.from_filelike(io.BytesIO(content))
        for number in range(len(workbook.sheet_names)):
            values = workbook.get_sheet_by_index(number).to_python(skip_empty_area=False)
            sheets.append(_xlsx_rows(values))
    except TableError:
        raise
    except (CalamineError, *_BROKEN_ZIP) as error:
        raise TableError(f"não consegui abrir a planilha ({error})") from None
    if not sheets:
        raise TableError("a pasta de trabalho não tem planilhas")
    return max(sheets, key=lambda rows: like(rows[:_LOOKED_AT]))


def _check_size(content: bytes) -> None:
    """Refuse what would not fit into memory: the reader makes a whole grid of a sheet, to its last cell."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = set(archive.namelist())
            # The reader goes by the content, and a grid of another kind can't be measured here.
            if "xl/workbook.xml" not in names or names & {"xl/workbook.bin", "content.xml"}:
                raise TableError(_UNUSUAL)
            if sum(part.file_size for part in archive.infolist()) > MAX_UNPACKED:
                raise TableError(f"a planilha passa de {MAX_UNPACKED} bytes depois de descompactada")
            for name in names:
                _check_grid(name, archive.read(name))
    except TableError:
        raise
    except (*_BROKEN_ZIP, NotImplementedError, RuntimeError) as error:
        raise TableError(f"não consegui abrir a planilha ({error})") from None


def _check_grid(name: str, part: bytes) -> None:
    if name.endswith(".xml") and b"\0" in part:  # XML of two bytes a character
        raise TableError(_UNUSUAL)
    if b"sheetData" not in part:
        return
    places = _PLACE.findall(part)
    if len(_CELL.findall(part)) > sum(bool(letters) for letters, _ in places):
        raise TableError(_UNUSUAL)  # cells that don't say where they are
    for letters, digits in places:
        if len(digits) > 7 or int(digits) > MAX_ROWS:
            raise TableError(f"a planilha passa de {MAX_ROWS} linhas")
        if _column(letters) > MAX_COLUMNS:
            raise TableError(f"a planilha passa de {MAX_COLUMNS} colunas")


def _column(letters: bytes) -> int:
    """The number of column `AB`, from 1; 0 without letters."""
    number = 0
    for letter in letters[:4].upper():
        number = number * 26 + letter - ord("A") + 1
    return number


def _xlsx_rows(values: Sequence[Sequence[object]]) -> list[Row]:
    rows = []
    for line, cells in enumerate(values, 1):
        texts = [_shown(cell).strip() for cell in cells]
        if any(texts):
            rows.append(_row(line, texts))
    return rows


def _shown(value: object) -> str:
    """A cell as its reader sees it."""
    if isinstance(value, bool):
        return "sim" if value else "não"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime | date):
        return f"data {value:%d/%m/%Y}"  # what Excel makes of "1-2": no number must come of it
    if isinstance(value, time | timedelta):
        return f"hora {value}"
    return str(value)


__all__ = ["MAX_BYTES", "MAX_COLUMNS", "MAX_ROWS", "Row", "TableError", "read_table"]
