"""A directory out of a spreadsheet's rows: headings in Portuguese or English, any lines an apartment.

Nothing is guessed and nothing half-read: each line that can't be understood gives a problem, in Portuguese,
and with any problem nothing is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from bridge.dialing.ari_numbers import HOST, NUMBER
from bridge.importing.plan import Problem
from bridge.importing.tables import Row
from visits.directory import Apartment, Contact, read_label
from visits.hours import Hours, read_hours
from visits.name_likeness import name_words
from visits.words import fold

_HEADING_ROWS = 20
"""How far down the headings may stand: a title and a date come before them."""
MAX_NAME = 120
T = TypeVar("T")


class Column(StrEnum):
    """What a column holds."""

    APARTMENT = "apartment"
    BLOCK = "block"
    RESIDENT = "resident"
    PHONE = "phone"
    """The resident's, where the line names one; else the apartment's."""
    LINE = "line"
    """The apartment's."""
    QUIET = "quiet"
    DO_NOT_CALL = "do_not_call"


def _names(text: str) -> frozenset[str]:
    return frozenset(" ".join(name.split()) for name in text.split(","))


_HEADINGS = {
    Column.APARTMENT: _names(
        "apartamento, apartamentos, apto, aptos, apt, ap, unidade, unid, casa, numero do apartamento, "
        "no apartamento, no apto, no do apto, no do apartamento, no da unidade, numero da unidade, "
        "apartment, apartment number, apartment no, flat, unit, unit number"
    ),
    Column.BLOCK: _names("bloco, bl, torre, predio, edificio, block, tower, building"),
    Column.RESIDENT: _names(
        "morador, moradores, morador a, moradora, nome, nomes, nome completo, nome do morador, "
        "nome dos moradores, residente, residentes, condomino, condominos, proprietario, inquilino, "
        "resident, residents, resident name, name, names, full name, tenant, owner"
    ),
    Column.PHONE: _names(
        "telefone, telefones, fone, fones, tel, tels, celular, celulares, whatsapp, celular whatsapp, "
        "telefone celular, contato, contatos, numero de telefone, phone, phones, phone number, mobile, cell, "
        "cell phone, telephone"
    ),
    Column.LINE: _names(
        "ramal, ramais, voip, sip, interfone, ramal interno, ramal voip, numero voip, voip number, "
        "numero sip, sip number, sip uri, extension, extensions, intercom"
    ),
    Column.QUIET: _names(
        "horario de silencio, horarios de silencio, silencio, nao ligar entre, quiet hours, quiet"
    ),
    Column.DO_NOT_CALL: _names("nao ligar, nao perturbe, nao perturbar, do not call, do not disturb, dnd"),
}
_BY_HEADING = {name: column for column, names in _HEADINGS.items() for name in names}
_SEVERAL = re.compile(r"[;/|,\n]+")
_SIP = re.compile(r"(?:sips?:)?([^@]*)@(.*)", re.IGNORECASE)
_YES = frozenset(["sim", "s", "x", "yes", "y", "true", "verdadeiro", "1"])
_NO = frozenset(["nao", "n", "no", "false", "falso", "0", "-"])


@dataclass(frozen=True, slots=True)
class Sheet:
    """What was read. With any problem, ``apartments`` is not to be used."""

    apartments: tuple[Apartment, ...]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Person:
    dial: list[str] = field(default_factory=list)
    quiet: list[Hours] = field(default_factory=list)
    do_not_call: bool = False


@dataclass(slots=True)
class _Home:
    """An apartment while its lines are read."""

    line: int
    dial: list[str] = field(default_factory=list)
    people: dict[str, _Person] = field(default_factory=dict)

    def person(self, name: str) -> _Person:
        """Theirs, however the name is spelt: "JOÃO" and "Joao" are one resident."""
        known = next((other for other in self.people if fold(other) == fold(name)), name)
        return self.people.setdefault(known, _Person())


class _BadLine(ValueError):
    """A line can't be understood; the message is Portuguese."""


def heading(text: str) -> Column | None:
    """What a column with this heading holds; None: nothing that is wanted."""
    plain = " ".join(re.sub(r"[^a-z0-9]+", " ", fold(text)).split())
    return _BY_HEADING.get(plain) or _BY_HEADING.get(plain.rstrip("0123456789 "))


def likeness(rows: Sequence[Row]) -> int:
    """How many columns are known in the row that knows most."""
    return max((_known(row) for row in rows[:_HEADING_ROWS]), default=0)


def _known(row: Row) -> int:
    return sum(heading(cell) is not None for cell in row.cells)


def read_sheet(rows: Sequence[Row], source: str) -> Sheet:
    """The apartments that a spreadsheet lists.

    Args:
        rows: of `tables.read_table`.
        source: the file, as problems name it.
    """
    top = next((n for n, row in enumerate(rows[:_HEADING_ROWS]) if _is_heading(row)), None)
    if top is None:
        return Sheet((), (Problem(source, "", _no_heading(rows)),))
    columns = [heading(cell) for cell in rows[top].cells]
    unused = [cell for cell in rows[top].cells if cell and heading(cell) is None]
    notes = (f"{source}: colunas que não são usadas: {', '.join(unused)}",) if unused else ()
    homes: dict[tuple[str, str | None], _Home] = {}
    problems = []
    for row in rows[top + 1 :]:
        try:
            _read_line(row, columns, rows[top].cells, homes)
        except _BadLine as error:
            problems.append(Problem(source, f"linha {row.line}", str(error)))
    wrong = bool(problems)
    for (number, block), home in homes.items():
        if not wrong and not home.dial and not any(person.dial for person in home.people.values()):
            where = Apartment(number, block, (), ()).label
            text = f"apartamento {where} sem telefone nem ramal"
            problems.append(Problem(source, f"linha {home.line}", text))
    if not homes and not problems:
        problems.append(
            Problem(source, f"linha {rows[top].line}", "não há nenhum apartamento abaixo dos títulos")
        )
    return Sheet(tuple(_apartment(key, home) for key, home in homes.items()), tuple(problems), notes)


def _is_heading(row: Row) -> bool:
    columns = {heading(cell) for cell in row.cells}
    return {Column.APARTMENT, Column.RESIDENT} <= columns


def _no_heading(rows: Sequence[Row]) -> str:
    found = ", ".join(repr(cell[:40]) for cell in rows[0].cells[:8]) if rows else "uma planilha vazia"
    return (
        f"faltam os títulos das colunas: encontrei {found}; preciso de uma linha com apartamento e morador, "
        "e telefone ou ramal"
    )


def _read_line(
    row: Row,
    columns: Sequence[Column | None],
    titles: Sequence[str],
    homes: dict[tuple[str, str | None], _Home],
) -> None:
    """Add what a line says to its apartment; nothing of it where any of it is wrong."""
    cells: dict[Column, list[str]] = {column: [] for column in Column}
    for place, cell in enumerate(row.cells):
        if place >= len(columns) or not titles[place]:
            if cell:
                raise _BadLine(f"há um valor na coluna {place + 1}, que não tem título: {cell[:40]!r}")
            continue
        if (column := columns[place]) is not None and cell:
            cells[column].append(cell)
    key = _apartment_of(cells[Column.APARTMENT], cells[Column.BLOCK])
    where = Apartment(*key, (), ()).label
    names = [_name(part) for cell in cells[Column.RESIDENT] for part in _parts(cell)]
    if not names:
        raise _BadLine(f"falta o morador do apartamento {where}")
    phones = [_number(part) for cell in cells[Column.PHONE] for part in _parts(cell)]
    lines = [_number(part) for cell in cells[Column.LINE] for part in _parts(cell)]
    quiet = [_hours(part) for cell in cells[Column.QUIET] for part in _parts(cell)]
    silent = any(_flag(cell) for cell in cells[Column.DO_NOT_CALL])
    if (quiet or silent) and not (phones and len(names) == 1):
        raise _BadLine(
            "o horário de silêncio e o 'não ligar' valem para o telefone de um morador: no apartamento "
            f"{where} escreva um morador por linha, com o telefone dele"
        )
    home = homes.setdefault(key, _Home(row.line))
    people = [home.person(name) for name in names]
    if len(people) == 1:
        person = people[0]
        _add(person.dial, phones)
        _add(person.quiet, quiet)
        person.do_not_call |= silent
    else:
        _add(home.dial, phones)
    _add(home.dial, lines)


def _add(known: list[T], more: Sequence[T]) -> None:
    known.extend(one for one in dict.fromkeys(more) if one not in known)


def _parts(cell: str) -> list[str]:
    return [part.strip() for part in _SEVERAL.split(cell) if part.strip()]


def _apartment_of(numbers: Sequence[str], blocks: Sequence[str]) -> tuple[str, str | None]:
    if not numbers:
        raise _BadLine("falta o apartamento")
    written = numbers[0]
    if blocks:
        block = re.sub(r"^(?:bloco|bl|torre)\b\.?\s*", "", fold(blocks[0]))
        written = f"{written} bloco {block}"
    key = read_label(written)
    if key is None or len(numbers) > 1:
        raise _BadLine(
            f"apartamento {' '.join(numbers)[:40]!r}{f' do bloco {blocks[0][:20]!r}' if blocks else ''} não "
            "reconhecido; escreva como 102, 102 bloco B, B-102 ou cobertura 2"
        )
    return key


def _name(text: str) -> str:
    name = " ".join(text.split())
    if len(name) > MAX_NAME or not name_words(name) or re.search(r"[\d@]", name) or not name.isprintable():
        raise _BadLine(f"{name[:40]!r} não parece o nome de um morador")
    return name


def _number(text: str) -> str:
    """What the dialers can call: digits, an extension's name, a SIP address."""
    if uri := _SIP.fullmatch(text):
        if NUMBER.fullmatch(uri[1]) and HOST.fullmatch(uri[2]):
            return text
    else:
        digits = re.sub(r"[\s().-]", "", text)
        if re.fullmatch(r"\+?[0-9*#]{1,20}", digits, re.ASCII) and re.search(r"[0-9]", digits):
            return digits
        if NUMBER.fullmatch(text) and re.search(r"[0-9]", text):
            return text
    raise _BadLine(
        f"número {text[:40]!r} não reconhecido; escreva um ramal (1003), um telefone (11 98888-7777) ou um "
        "endereço SIP (sip:102@condominio.local)"
    )


def _hours(text: str) -> Hours:
    try:
        return read_hours(text)
    except ValueError:
        raise _BadLine(f"horário {text[:40]!r} não reconhecido; escreva como 22:00-07:00") from None


def _flag(text: str) -> bool:
    word = fold(text).strip()
    if word in _YES | _NO:
        return word in _YES
    raise _BadLine(f"{text[:40]!r} em 'não ligar' não reconhecido; escreva sim ou não")


def _apartment(key: tuple[str, str | None], home: _Home) -> Apartment:
    """The apartment as the directory has it."""
    contacts = tuple(
        Contact(name, tuple(person.dial), tuple(person.quiet), person.do_not_call)
        for name, person in home.people.items()
        if person.dial
    )
    return Apartment(*key, tuple(home.people), tuple(home.dial), contacts)


__all__ = ["Column", "Sheet", "heading", "likeness", "read_sheet"]
