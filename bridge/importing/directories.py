"""What importing a directory would change, apartment by apartment, in a tenant's directory file.

A directory of JSON is read here, entry by entry; spreadsheets in `sheet.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bridge.importing.plan import Change, Plan, Problem
from bridge.importing.sheet import Sheet, likeness, read_sheet
from bridge.importing.tables import TableError, read_table
from visits.directory import Apartment, Contact, Directory, DirectoryError

MAX_ENTRIES = 20_000
MAX_ENTRY = 64 * 1024
"""Characters of one."""
_WHITE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


def read_directory(content: bytes, source: str) -> Sheet:
    """The apartments of a spreadsheet, or of a list of entries in JSON."""
    if content.lstrip()[:1] == b"[":
        try:
            return read_entries(entries_of(content), source)
        except ValueError as error:
            return Sheet((), (Problem(source, "", f"not valid JSON: {error}"),))
    try:
        return read_sheet(read_table(content, likeness), source)
    except TableError as error:
        return Sheet((), (Problem(source, f"linha {error.line}" if error.line else "", str(error)),))


def entries_of(content: bytes) -> list[Any]:
    """A list in JSON, entry by entry: read in one piece, a large one would hold up the whole process.

    Raises:
        ValueError: it is none, or too long; says where.
    """
    text = content.decode("utf-8-sig")
    entries: list[Any] = []
    at = _skipped(text, 0)
    if text[at : at + 1] != "[":
        raise ValueError("found no list; allowed: a list of apartments")
    at = _skipped(text, at + 1)
    if text[at : at + 1] == "]":
        at += 1
    else:
        while True:
            try:
                entry, length = _DECODER.raw_decode(text[at : at + MAX_ENTRY])
            except (ValueError, RecursionError):
                where = f"entry {len(entries) + 1}, character {at + 1}"
                allowed = f"an object of up to {MAX_ENTRY} characters"
                raise ValueError(f"{where}: found no entry; allowed: {allowed}") from None
            entries.append(entry)
            if len(entries) > MAX_ENTRIES:
                raise ValueError(f"found more than {MAX_ENTRIES} entries; allowed are so many")
            at = _skipped(text, at + length)
            mark, at = text[at : at + 1], _skipped(text, at + 1)
            if mark == "]":
                break
            if mark != ",":
                raise ValueError(f"character {at}: found {mark!r}; allowed: a comma, or the list's end")
    if _skipped(text, at) != len(text):
        raise ValueError(f"character {at + 1}: found more behind the list; allowed: nothing")
    return entries


def _skipped(text: str, at: int) -> int:
    """Where what is no white space begins."""
    found = _WHITE.match(text, at)
    return at if found is None else found.end()


def read_entries(entries: list[Any], source: str) -> Sheet:
    """The apartments of `apartamentos.json`; each wrong entry gives a problem of its own."""
    apartments: list[Apartment] = []
    problems = []
    places: dict[str, int] = {}
    for position, entry in enumerate(entries, 1):
        try:
            (apartment,) = Directory.from_records([entry]).apartments
        except DirectoryError as error:
            problems.append(Problem(source, f"entry {position}", str(error).removeprefix("entry 1: ")))
            continue
        if (first := places.setdefault(apartment.label, position)) != position:
            again = f"apartment {apartment.label!r} is already entry {first}; each may appear once"
            problems.append(Problem(source, f"entry {position}", again))
        apartments.append(apartment)
    if not entries:
        problems.append(Problem(source, "", "the directory is empty; it needs at least one apartment"))
    return Sheet(tuple(apartments), tuple(problems))


def plan_directory(sheet: Sheet, tenant: str, file: Path, *, replacing: bool) -> Plan:
    """What it takes to have a sheet's apartments in a tenant's directory.

    Apartments that the sheet does not have stay as they are. What a sheet can't say of an apartment that it
    has stays too: quiet hours, do-not-call, standing authorisations.

    Args:
        file: the tenant's directory; it need not be there.
        replacing: the sheet is all there is: other apartments go, and what it does not say as well.
    """
    if sheet.problems:
        return Plan(problems=sheet.problems, notes=sheet.notes)
    try:
        old = _old(file)
    except (OSError, ValueError) as error:
        return Plan(problems=(Problem(str(file), "", f"the tenant's directory can't be read: {error}"),))
    changes, whole = taken_over(sheet, tenant, old, replacing=replacing)
    files = {}
    if any(change.action != "leave" for change in changes) or not file.exists():
        text = json.dumps(Directory(whole).records(), ensure_ascii=False, indent=1)
        files[file] = f"{text}\n".encode()
    return Plan(changes, notes=sheet.notes, files=files)


def taken_over(
    sheet: Sheet, tenant: str, old: Sequence[Apartment], *, replacing: bool
) -> tuple[tuple[Change, ...], tuple[Apartment, ...]]:
    """What changes where a sheet without problems is taken over, and the apartments that there are then.

    Args:
        old: those that there are. What becomes of them, :func:`plan_directory` says.
    """
    known = {one.label: one for one in old}
    new = {one.label: one if replacing else _merged(known.get(one.label), one) for one in sheet.apartments}
    whole = new if replacing else {**known, **new}
    return tuple(_changes(tenant, known, whole)), tuple(whole.values())


def _old(file: Path) -> tuple[Apartment, ...]:
    if not file.exists():
        return ()
    return Directory.from_records(json.loads(file.read_bytes())).apartments


def _merged(old: Apartment | None, new: Apartment) -> Apartment:
    """The new apartment, with what was known of it and is no matter of a sheet."""
    if old is None:
        return new
    said = {one.resident: one for one in new.contacts}
    before = {one.resident: one for one in old.contacts}
    contacts = []
    for name in new.residents:
        was, now = before.get(name), said.get(name)
        contact = now or was
        if was is not None and now is not None:
            contact = Contact(name, now.dial, now.quiet or was.quiet, now.do_not_call or was.do_not_call)
        if contact is not None:
            contacts.append(contact)
    return replace(new, contacts=tuple(contacts), standing=new.standing or old.standing)


def _changes(tenant: str, old: dict[str, Apartment], new: dict[str, Apartment]) -> Iterable[Change]:
    for label, apartment in new.items():
        before = old.get(label)
        if before is None:
            yield Change("create", "apartment", tenant, label, _said(apartment))
        elif before == apartment:
            yield Change("leave", "apartment", tenant, label)
        else:
            yield Change("change", "apartment", tenant, label, _differences(before, apartment))
    for label in old:
        if label not in new:
            yield Change("remove", "apartment", tenant, label)


def _said(apartment: Apartment) -> tuple[str, ...]:
    numbers = apartment.every_number("")
    return (f"{', '.join(apartment.residents)}: {', '.join(numbers)}",)


def _differences(old: Apartment, new: Apartment) -> tuple[str, ...]:
    names = [f"+ {name}" for name in new.residents if name not in old.residents]
    names += [f"- {name}" for name in old.residents if name not in new.residents]
    before, now = old.every_number(""), new.every_number("")
    if before != now:
        names.append(f"numbers: {', '.join(before)} → {', '.join(now)}")
    return tuple(names or ("details of a resident, or the order",))


__all__ = ["MAX_ENTRIES", "entries_of", "plan_directory", "read_directory", "read_entries", "taken_over"]
