"""Directories: apartments, residents, standing authorisations; what is asked of the database."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Final

from storage.base import StorageRefused, StorageUnavailable
from storage.catalogue import (
    AlreadyThere,
    Conflict,
    NotThere,
    StoredApartment,
    StoredDirectory,
    StoredStanding,
)
from storage.counter import moved
from storage.paging import Page, checked_limit, key_of, page_of
from storage.steps import CATALOGUE, LockChain, Sql, Step, escaped, insert
from storage.store import Heads, appended, checked, locked
from visits.directory import Apartment, Contact, Directory, DirectoryError
from visits.hours import read_hours
from visits.standing import StandingAuthorisation
from visits.words import fold

_SAID: Final = 100
"""How many apartments a record names."""
_STANDING: Final = "SELECT apartment, position, id, name, days, hours, until, call_resident"


@dataclass(frozen=True, slots=True)
class Placed:
    """An apartment in its place, with the ids of its standing authorisations."""

    position: int
    apartment: Apartment
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Author:
    """Who changes a directory, when, and from which version on."""

    by: str
    at: str
    expected: int | None
    source: str = ""


def checked_apartments(apartments: Iterable[Apartment]) -> tuple[Apartment, ...]:
    """Apartments as a directory would read them. Raises :class:`StorageRefused`, naming the entry."""
    records = Directory(tuple(apartments)).records()
    try:
        text = json.dumps(records, ensure_ascii=False)
        text.encode()
    except UnicodeEncodeError as error:
        raise StorageRefused(
            f"a directory: found text that UTF-8 can't write: {error.object!r:.60}"
        ) from None
    if "\\u0000" in text:
        raise StorageRefused("a directory: found a zero character; allowed is text without one")
    try:
        return Directory.from_records(records).apartments if records else ()
    except DirectoryError as error:
        raise StorageRefused(f"a directory: {error}") from error


# --------------------------------------------------------------------------------------------------------
# Reading
# --------------------------------------------------------------------------------------------------------


def directory(tenant: str) -> Step[StoredDirectory | None]:
    """A tenant's directory."""
    rows = yield Sql("SELECT version, at, author FROM directories WHERE tenant = $1", (tenant,))
    if not rows:
        return None
    placed = yield from _placed(tenant)
    version, at, by = rows[0]
    return StoredDirectory(tenant, version, at, by, Directory(tuple(each.apartment for each in placed)))


def versions() -> Step[dict[str, int]]:
    """The versions of all directories."""
    rows = yield Sql("SELECT tenant, version FROM directories ORDER BY tenant")
    return {row[0]: row[1] for row in rows}


def one_apartment(tenant: str, label: str) -> Step[StoredApartment | None]:
    """The apartment of a label."""
    found = yield from _placed(tenant, "label = ?", (label,))
    return StoredApartment(tenant, found[0].position, found[0].apartment) if found else None


def apartments(tenant: str, text: str, after: str | None, limit: int) -> Step[Page[StoredApartment]]:
    """A page of those in which each word of a text is."""
    wanted = [f"%{escaped(word)}%" for word in fold(text).split()]
    condition = " AND ".join(["position > ?", *["words LIKE ? ESCAPE '\\'"] * len(wanted)])
    behind = -1 if after is None else key_of(after, int)[0]
    found = yield from _placed(tenant, condition, (behind, *wanted), checked_limit(limit) + 1)
    rows = [StoredApartment(tenant, each.position, each.apartment) for each in found]
    return page_of(rows, limit, lambda each: (each.position,))


def standing(tenant: str, apartment: str | None, after: str | None, limit: int) -> Step[Page[StoredStanding]]:
    """A page of standing authorisations, in the directory's order."""
    behind = (-1, -1) if after is None else key_of(after, int, int)
    only = "" if apartment is None else " AND a.label = $5"
    rows = yield Sql(
        "SELECT s.apartment, s.position, s.id, s.name, s.days, s.hours, s.until, s.call_resident, a.label"
        " FROM standing_authorisations s"
        " JOIN apartments a ON a.tenant = s.tenant AND a.position = s.apartment"
        f" WHERE s.tenant = $1 AND (s.apartment, s.position) > ($2, $3){only}"
        " ORDER BY s.apartment, s.position LIMIT $4",
        (tenant, *behind, checked_limit(limit) + 1, *(() if apartment is None else (apartment,))),
    )
    page = page_of(rows, limit, lambda row: (row[0], row[1]))
    items = tuple(StoredStanding(tenant, row[2], row[8], _authorisation(row)) for row in page.items)
    return Page(items, page.next)


def _placed(
    tenant: str, condition: str = "", values: tuple[Any, ...] = (), limit: int | None = None
) -> Step[list[Placed]]:
    """Apartments in their order. ``condition`` has a ``?`` for each of the values."""
    for n in range(len(values)):
        condition = condition.replace("?", f"${n + 2}", 1)
    which = f" AND {condition}" if condition else ""
    most = "" if limit is None else f" LIMIT {limit}"
    rows = yield Sql(
        f"SELECT position, number, block, dial FROM apartments WHERE tenant = $1{which}"
        f" ORDER BY position{most}",
        (tenant, *values),
    )
    if not rows:
        return []
    # Of a page, or of one: what lies between its ends is read, and what is not on it passed over.
    span = (tenant, rows[0][0], rows[-1][0])
    between = "WHERE tenant = $1 AND apartment >= $2 AND apartment <= $3 ORDER BY apartment, position"
    residents: dict[int, list[Any]] = {}
    for row in (
        yield Sql(f"SELECT apartment, name, contact, dial, quiet, do_not_call FROM residents {between}", span)
    ):
        residents.setdefault(row[0], []).append(row)
    expected: dict[int, list[Any]] = {}
    for row in (yield Sql(f"{_STANDING} FROM standing_authorisations {between}", span)):
        expected.setdefault(row[0], []).append(row)
    try:
        return [_apartment(row, residents.get(row[0], ()), expected.get(row[0], ())) for row in rows]
    except (ValueError, TypeError) as error:  # somebody's edit
        raise StorageUnavailable("corrupt", f"the directory of tenant {tenant!r:.80}: {error}") from error


def _apartment(row: Any, residents: Sequence[Any], expected: Sequence[Any]) -> Placed:
    position, number, block, dial = row
    contacts = tuple(_contact(each) for each in residents if each[2])
    authorisations = tuple(_authorisation(each) for each in expected)
    apartment = Apartment(
        number,
        block,
        tuple(each[1] for each in residents),
        tuple(json.loads(dial)),
        contacts,
        authorisations,
    )
    return Placed(position, apartment, tuple(each[2] for each in expected))


def _contact(row: Any) -> Contact:
    _, name, _, dial, quiet, do_not_call = row
    hours = tuple(read_hours(each) for each in json.loads(quiet))
    return Contact(name, tuple(json.loads(dial)), hours, bool(do_not_call))


def _authorisation(row: Any) -> StandingAuthorisation:
    _, _, _, name, days, hours, until, call_resident = row[:8]
    return StandingAuthorisation(
        name,
        frozenset(json.loads(days)),
        None if hours is None else read_hours(hours),
        None if until is None else date.fromisoformat(until),
        bool(call_resident),
    )


# --------------------------------------------------------------------------------------------------------
# Writing
# --------------------------------------------------------------------------------------------------------


def replaced(tenant: str, new: Sequence[Apartment], author: Author, heads: Heads) -> Step[int]:
    """Have these apartments and no others."""
    version = yield from _begun(tenant, author, heads)
    old = yield from _placed(tenant)
    if version and [each.apartment for each in old] == list(new):
        return version
    ids = {
        (each.apartment.label, one): id_
        for each in old
        for one, id_ in zip(each.apartment.standing, each.ids, strict=True)
    }
    placed = [
        Placed(position, each, _ids(each, {one: ids.get((each.label, one)) for one in each.standing}))
        for position, each in enumerate(new)
    ]
    before = {each.apartment.label: each.apartment for each in old}
    after = {each.label: each for each in new}
    moved = yield from _changed(tenant, version, before, after, author, heads)
    yield from _cleared(tenant)
    yield from _written(tenant, placed)
    return moved


def emptied(tenant: str, changed: int, by: str, at: str, heads: Heads) -> Step[None]:
    """Remove all apartments; the catalogue is locked, and its counter moved."""
    rows = yield Sql("SELECT version FROM directories WHERE tenant = $1", (tenant,))
    old = yield from _placed(tenant)
    if rows and old:
        before = {each.apartment.label: each.apartment for each in old}
        yield from _said(tenant, rows[0][0] + 1, before, {}, Author(by, at, None), heads, {})
        yield from _versioned(tenant, rows[0][0] + 1, Author(by, at, None), changed)
        yield from _cleared(tenant)


def put(tenant: str, new: Apartment, was: str, author: Author, heads: Heads) -> Step[int]:
    """Put one apartment in the place of another, or at the end."""
    version = yield from _begun(tenant, author, heads)
    old = next(iter((yield from _placed(tenant, "label = ?", (was or new.label,)))), None)
    if old is None and was:
        raise NotThere(f"tenant {tenant!r:.80} has no apartment {was!r:.80}")
    if was not in ("", new.label) and (yield from _placed(tenant, "label = ?", (new.label,))):
        raise AlreadyThere(f"tenant {tenant!r:.80} has an apartment {new.label!r} already")
    if old is None:
        rows = yield Sql(
            "SELECT coalesce(max(position), -1) + 1 FROM apartments WHERE tenant = $1", (tenant,)
        )
        placed = Placed(rows[0][0], new, _ids(new, {}))
    else:
        if old.apartment == new:
            return version
        kept = dict(zip(old.apartment.standing, old.ids, strict=True))
        placed = Placed(old.position, new, _ids(new, kept))
    before = {} if old is None else {old.apartment.label: old.apartment}
    return (yield from _put_back(tenant, version, before, placed, author, heads))


def removed(tenant: str, label: str, author: Author, heads: Heads) -> Step[int]:
    """Remove one apartment."""
    version = yield from _begun(tenant, author, heads)
    old = yield from _placed(tenant, "label = ?", (label,))
    if not old:
        raise NotThere(f"tenant {tenant!r:.80} has no apartment {label!r:.80}")
    new = yield from _changed(tenant, version, {label: old[0].apartment}, {}, author, heads)
    yield from _cleared(tenant, old[0].position)
    return new


def standing_put(
    tenant: str,
    label: str,
    authorisation: StandingAuthorisation,
    known_as: str,
    author: Author,
    heads: Heads,
) -> Step[tuple[str, int]]:
    """Put a standing authorisation: its id, and the directory's version."""
    version = yield from _begun(tenant, author, heads)
    old = next(iter((yield from _placed(tenant, "label = ?", (label,)))), None)
    if old is None:
        raise NotThere(f"tenant {tenant!r:.80} has no apartment {label!r:.80}")
    if known_as and known_as not in old.ids:
        raise NotThere(f"apartment {label!r} has no standing authorisation {known_as!r:.80}")
    ids = list(old.ids)
    given = list(old.apartment.standing)
    if known_as:
        if given[ids.index(known_as)] == authorisation:
            return known_as, version
        given[ids.index(known_as)] = authorisation
    else:
        known_as = _new_id()
        ids.append(known_as)
        given.append(authorisation)
    new = Placed(old.position, replace(old.apartment, standing=tuple(given)), tuple(ids))
    before = {label: old.apartment}
    moved = yield from _put_back(tenant, version, before, new, author, heads, {"standing": known_as})
    return known_as, moved


def standing_removed(tenant: str, known_as: str, author: Author, heads: Heads) -> Step[int]:
    """Take a standing authorisation back."""
    version = yield from _begun(tenant, author, heads)
    rows = yield Sql(
        "SELECT apartment FROM standing_authorisations WHERE tenant = $1 AND id = $2", (tenant, known_as)
    )
    if not rows:
        raise NotThere(f"tenant {tenant!r:.80} has no standing authorisation {known_as!r:.80}")
    (old,) = yield from _placed(tenant, "position = ?", (rows[0][0],))
    left = [pair for pair in zip(old.ids, old.apartment.standing, strict=True) if pair[0] != known_as]
    apartment = replace(old.apartment, standing=tuple(one for _, one in left))
    new = Placed(old.position, apartment, tuple(id_ for id_, _ in left))
    before = {old.apartment.label: old.apartment}
    return (yield from _put_back(tenant, version, before, new, author, heads, {"standing": known_as}))


def _ids(apartment: Apartment, known: Mapping[StandingAuthorisation, str | None]) -> tuple[str, ...]:
    """The ids of an apartment's standing authorisations; one that is there twice has two."""
    left = dict(known)
    return tuple(left.pop(one, None) or _new_id() for one in apartment.standing)


def _new_id() -> str:
    return secrets.token_hex(8)


def _begun(tenant: str, author: Author, heads: Heads) -> Step[int]:
    """The version that is there, with everybody else kept out; 0: there is no directory yet."""
    yield from locked(tenant, heads)
    yield LockChain(CATALOGUE)
    rows = yield Sql("SELECT version FROM directories WHERE tenant = $1", (tenant,))
    found = int(rows[0][0]) if rows else 0
    if author.expected is not None and author.expected != found:
        raise Conflict(f"the directory of tenant {tenant!r:.80}", author.expected, found)
    return found


def _put_back(
    tenant: str,
    version: int,
    before: Mapping[str, Apartment],
    new: Placed,
    author: Author,
    heads: Heads,
    more: Mapping[str, str] | None = None,
) -> Step[int]:
    """Write one apartment in its place."""
    after = {new.apartment.label: new.apartment}
    moved = yield from _changed(tenant, version, before, after, author, heads, more)
    yield from _cleared(tenant, new.position)
    yield from _written(tenant, [new])
    return moved


def _changed(
    tenant: str,
    version: int,
    before: Mapping[str, Apartment],
    after: Mapping[str, Apartment],
    author: Author,
    heads: Heads,
    more: Mapping[str, str] | None = None,
) -> Step[int]:
    """The directory's next version, on record."""
    yield from _said(tenant, version + 1, before, after, author, heads, more or {})
    changed = yield from moved()
    yield from _versioned(tenant, version + 1, author, changed)
    return version + 1


def _said(
    tenant: str,
    version: int,
    before: Mapping[str, Apartment],
    after: Mapping[str, Apartment],
    author: Author,
    heads: Heads,
    more: Mapping[str, str],
) -> Step[None]:
    """What differs, on record: apartments by their labels, and nobody's name."""
    created = [label for label in after if label not in before]
    removed = [label for label in before if label not in after]
    changed = [label for label in after if label in before and before[label] != after[label]]
    data: dict[str, object] = {"by": author.by, "version": version, **more}
    data |= {"created": len(created), "changed": len(changed), "removed": len(removed)}
    data["apartments"] = [*created, *changed, *removed][:_SAID]
    if author.source:
        data["source"] = author.source
    yield from appended(checked(tenant, "", author.at, "directory.changed", data), heads)


def _versioned(tenant: str, version: int, author: Author, changed: int) -> Step[None]:
    yield Sql(
        "INSERT INTO directories (tenant, version, at, author, changed) VALUES ($1, $2, $3, $4, $5)"
        " ON CONFLICT (tenant) DO UPDATE SET version = excluded.version, at = excluded.at,"
        " author = excluded.author, changed = excluded.changed",
        (tenant, version, author.at, author.by, changed),
        writes=True,
    )


def _cleared(tenant: str, position: int | None = None) -> Step[None]:
    """Take away one apartment's rows, or all."""
    for table, column in (
        ("standing_authorisations", "apartment"),
        ("residents", "apartment"),
        ("apartments", "position"),
    ):
        if position is None:
            yield Sql(f"DELETE FROM {table} WHERE tenant = $1", (tenant,), writes=True)
        else:
            only = f"DELETE FROM {table} WHERE tenant = $1 AND {column} = $2"
            yield Sql(only, (tenant, position), writes=True)


def _written(tenant: str, placed: Sequence[Placed]) -> Step[None]:
    """Write apartments' rows."""
    homes = []
    people = []
    expected = []
    for each in placed:
        one = each.apartment
        words = fold(" ".join((one.label, *one.residents)))
        homes.append((tenant, each.position, one.label, one.number, one.block, json.dumps(one.dial), words))
        contacts = {contact.resident: contact for contact in one.contacts}
        for position, name in enumerate(one.residents):
            contact = contacts.get(name, Contact(name))
            quiet = json.dumps([str(hours) for hours in contact.quiet])
            said = (int(name in contacts), json.dumps(contact.dial), quiet, int(contact.do_not_call))
            people.append((tenant, each.position, position, name, *said))
        for position, (id_, given) in enumerate(zip(each.ids, one.standing, strict=True)):
            hours = None if given.hours is None else str(given.hours)
            until = None if given.until is None else given.until.isoformat()
            days = json.dumps(sorted(given.days))
            row = (id_, given.name, days, hours, until, int(given.call_resident))
            expected.append((tenant, each.position, position, *row))
    yield from insert("apartments", "tenant position label number block dial words", homes)
    yield from insert("residents", "tenant apartment position name contact dial quiet do_not_call", people)
    yield from insert(
        "standing_authorisations",
        "tenant apartment position id name days hours until call_resident",
        expected,
    )
