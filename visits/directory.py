"""A tenant's apartments and residents, found by what a visitor says.

Nothing is ever guessed: an apartment is found when a reading of the spoken number exists, not when one is
near; a resident is matched when the name sounds like theirs, and two who fit alike are ambiguous.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal, TypeVar

from visits.hours import DAYS, Hours, read_day, read_hours
from visits.name_likeness import THRESHOLD, name_score, name_words
from visits.names import NameMention, person_mentions, possible_names
from visits.spoken_numbers import Mention, apartment_mentions
from visits.standing import StandingAuthorisation
from visits.words import PAUSES, fold, words

_CORRECTIONS = frozenset({"nao", "desculpa", "desculpe", "alias", "perdao", "digo", "quer", "errei", "ops"})
_BEFORE_NUMBER = frozenset(
    {"e", "no", "na", "o", "a", "do", "da", "ao", "para", "pro", "apartamento", "apto", "ap"}
)
_LIKE = 6.0
"""Two residents whose scores differ by less than this are alike."""


class DirectoryError(ValueError):
    """The directory's data is wrong; the message names the entry, what was found and what is allowed."""


@dataclass(frozen=True, slots=True)
class Contact:
    """How one resident is reached, where the directory says more of them than a name.

    Attributes:
        resident: the full name, as in `Apartment.residents`.
        dial: the resident's own numbers, in the order to try; empty: the apartment's alone.
        quiet: hours in which these numbers are not called.
        do_not_call: they are never called.
    """

    resident: str
    dial: tuple[str, ...] = ()
    quiet: tuple[Hours, ...] = ()
    do_not_call: bool = False

    def callable_at(self, at: datetime | None) -> bool:
        """Whether they may be called then. Where the time is not known, any quiet hours count."""
        if self.do_not_call:
            return False
        return not self.quiet if at is None else all(hours.day_of(at) is None for hours in self.quiet)


@dataclass(frozen=True, slots=True)
class Apartment:
    """One apartment.

    Attributes:
        number: digits without leading zeros, ``"cobertura"`` or ``"cobertura 2"``.
        block: ``"B"``, ``"2"``, ``"NORTE"``; None where the condominium has none.
        residents: full names.
        dial: what to call, in order of preference: SIP URIs or extensions.
        contacts: at most one a resident; who has none is reached by `dial`.
        standing: whom the apartment expects; opens nothing (`visits/standing.py`).
    """

    number: str
    block: str | None
    residents: tuple[str, ...]
    dial: tuple[str, ...]
    contacts: tuple[Contact, ...] = ()
    standing: tuple[StandingAuthorisation, ...] = ()

    @property
    def label(self) -> str:
        """For people: ``"102"``, ``"102 bloco B"``."""
        return self.number if self.block is None else f"{self.number} bloco {self.block}"

    def every_number(self, resident: str) -> tuple[str, ...]:
        """All there are, each once: of the resident asked for, of the apartment, of the other residents."""
        asked = [one for one in self.contacts if one.resident == resident]
        others = [one for one in self.contacts if one.resident != resident]
        order = [number for one in asked for number in one.dial]
        order += self.dial
        order += [number for one in others for number in one.dial]
        return tuple(dict.fromkeys(order))

    def numbers(self, resident: str, at: datetime | None) -> tuple[str, ...]:
        """What to call for a visitor, in the order to try.

        Who is not to be called at that time is passed over; the apartment's own numbers are the household's
        and stay, unless the resident who must not be called has the same.

        Args:
            resident: as the directory writes the name; empty where the visitor named nobody.
            at: the tenant's time; None where it is not known.
        """
        barred = {number for one in self.contacts if not one.callable_at(at) for number in one.dial}
        return tuple(number for number in self.every_number(resident) if number not in barred)


@dataclass(frozen=True, slots=True)
class ApartmentMatch:
    """What a spoken number led to.

    Attributes:
        status: ``found``: exactly one apartment. ``ambiguous``: several; ask which. ``not_found``: none, or
            nothing like a number was said.
        apartment: the one found, else None.
        candidates: those that fit, in the directory's order; with ``not_found`` those of the same number in
            another block than was said.
        exact: False when the number had to be guessed by its sound: confirm it.
    """

    status: Literal["found", "ambiguous", "not_found"]
    apartment: Apartment | None
    candidates: tuple[Apartment, ...]
    exact: bool = True


@dataclass(frozen=True, slots=True)
class ResidentMatch:
    """What a spoken name led to: ``score`` is 0 to 100, a match is 75 or more."""

    status: Literal["match", "ambiguous", "no_match"]
    resident: str | None
    score: float


@dataclass(frozen=True, slots=True)
class Directory:
    """The apartments of one tenant."""

    apartments: tuple[Apartment, ...]

    @classmethod
    def from_records(cls, records: Any) -> Directory:
        """Read the list of ``{"apartment_number", "residents", "voip_number"}`` that installations keep.

        A resident is a name, or an object with ``name``, ``voip_number``, ``quiet_hours`` and
        ``do_not_call``; an entry may have ``standing_authorisations``. See docs/import.md.

        Raises:
            DirectoryError: naming the entry, what was found there and what is allowed.
        """
        if not isinstance(records, Sequence) or isinstance(records, str | bytes):
            raise DirectoryError(f"the directory must be a list of apartments, found {_shown(records)}")
        if not records:
            raise DirectoryError("the directory is empty; it needs at least one apartment")
        apartments = tuple(_apartment(position, record) for position, record in enumerate(records, 1))
        seen: dict[tuple[str, str | None], int] = {}
        for position, apartment in enumerate(apartments, 1):
            first = seen.setdefault((apartment.number, apartment.block), position)
            if first != position:
                again = f"apartment {apartment.label!r} is already entry {first}"
                raise DirectoryError(f"entry {position}: {again}; each may appear once")
        return cls(apartments)

    def records(self) -> list[dict[str, Any]]:
        """What :meth:`from_records` reads as this directory."""
        return [_as_record(apartment) for apartment in self.apartments]

    def find_apartment(self, spoken: str) -> ApartmentMatch:
        """The apartment that a sentence names. See :class:`ApartmentMatch`."""
        mentions = apartment_mentions(spoken)
        if not mentions:
            return ApartmentMatch("not_found", None, ())
        if len(mentions) == 1:
            return self._resolve(mentions[0])
        return self._resolve_several(spoken, mentions)

    def match_resident(self, apartment: Apartment, spoken: str) -> ResidentMatch:
        """The resident of the apartment whom a name or a sentence means. See :class:`ResidentMatch`."""
        names = _spoken_names(spoken)
        ranked = sorted(
            (
                (max((name_score(name, resident) for name in names), default=0.0), resident)
                for resident in apartment.residents
            ),
            key=lambda pair: -pair[0],
        )
        if not ranked or ranked[0][0] < THRESHOLD:
            return ResidentMatch("no_match", None, round(ranked[0][0], 1) if ranked else 0.0)
        score, resident = ranked[0]
        if len(ranked) > 1 and ranked[1][0] >= THRESHOLD and score - ranked[1][0] < _LIKE:
            return ResidentMatch("ambiguous", None, round(score, 1))
        return ResidentMatch("match", resident, round(score, 1))

    def _resolve(self, mention: Mention) -> ApartmentMatch:
        """One mention: the first reading that exists decides."""
        for reading in mention.readings:
            numbered = tuple(one for one in self.apartments if one.number == reading)
            fitting = tuple(one for one in numbered if mention.block in (None, one.block))
            if len(fitting) == 1:
                return ApartmentMatch("found", fitting[0], fitting, mention.exact)
            if fitting:
                return ApartmentMatch("ambiguous", None, fitting, mention.exact)
            if numbered:
                return ApartmentMatch("not_found", None, numbered, mention.exact)
        return ApartmentMatch("not_found", None, ())

    def _resolve_several(self, spoken: str, mentions: list[Mention]) -> ApartmentMatch:
        """Several numbers: a correction's last one counts; otherwise they must all mean the same."""
        mentions = [mention for mention in mentions if not _denied(spoken, mention)] or mentions[-1:]
        last = self._resolve(mentions[-1])
        if len(mentions) == 1:
            return last
        between = words(spoken[mentions[-2].end : mentions[-1].start])
        if last.status == "not_found" or any(word.text in _CORRECTIONS for word in between):
            return last
        candidates: dict[Apartment, None] = {}
        for mention in mentions:
            candidates.update(dict.fromkeys(self._resolve(mention).candidates))
        if len(candidates) == 1:
            return last
        return ApartmentMatch("ambiguous", None, tuple(candidates))


def _denied(spoken: str, mention: Mention) -> bool:
    """Whether the sentence says that it is *not* this apartment: "não é no 501"."""
    before = words(spoken[: mention.start])[-4:]
    if not before or any(mark in PAUSES for mark in spoken[before[-1].end : mention.start]):
        return False
    for word in reversed(before):
        if word.text == "nao":
            return True
        if word.pause_before or word.text not in _BEFORE_NUMBER:
            return False
    return False


def _spoken_names(spoken: str) -> list[str]:
    """The names to try: those asked for in a sentence, or the words themselves."""
    mentions = person_mentions(spoken)
    others = [mention.text for mention in mentions if mention.kind == "other"]
    if others:
        return others
    unknown = [mention.text for mention in mentions if mention.kind == "unknown"]
    if unknown or mentions:
        return unknown
    return possible_names(spoken) or [spoken]


# --------------------------------------------------------------------------------------------------------
# Records
# --------------------------------------------------------------------------------------------------------

_FIELDS = ("apartment_number", "residents", "voip_number", "standing_authorisations")
_NEEDED = _FIELDS[:2]
_RESIDENT = ("name", "voip_number", "quiet_hours", "do_not_call")
_STANDING = ("name", "days", "hours", "until", "call_resident")
_DIALS = "a SIP URI or extension, or a list"
_LABELS = 'a number with an optional block, such as "102", "102 bloco B", "B-102" or "cobertura 2"'
T = TypeVar("T")


def _shown(value: object) -> str:
    """A value as it is shown in an error: its type and a short form of it."""
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def _apartment(position: int, record: object) -> Apartment:
    """One entry; ``position`` counts from 1, as people do."""
    entry = f"entry {position}"
    if not isinstance(record, Mapping):
        raise DirectoryError(f"{entry}: must be an object with {', '.join(_FIELDS)}, found {_shown(record)}")
    _only(entry, record, _FIELDS, _NEEDED)
    number, block = _label(entry, record["apartment_number"])
    people = [_resident(entry, one) for one in _items(entry, "residents", record, "a list of full names")]
    residents = tuple(one.resident for one in people)
    contacts = tuple(one for one in people if one != Contact(one.resident))
    if twice := next((name for name in residents if contacts and residents.count(name) > 1), None):
        raise DirectoryError(f"{entry}: resident {twice!r} is there twice; each may appear once")
    if "voip_number" in record or not any(one.dial for one in contacts):
        dials = _dials(entry, record, needed=not any(one.dial for one in contacts))
    else:
        dials = ()
    expected = _sequence(entry, "standing_authorisations", record.get("standing_authorisations", ()))
    standing = [_standing(entry, one) for one in expected]
    return Apartment(number, block, residents, dials, contacts, tuple(standing))


def _only(entry: str, record: Mapping[Any, Any], fields: Sequence[str], needed: Sequence[str]) -> None:
    """Refuse fields that are missing, and those that nothing reads."""
    for name in needed:
        if name not in record:
            raise DirectoryError(f"{entry}: {name} is missing; found only {', '.join(map(str, record))}")
    if unknown := [str(name) for name in record if name not in fields]:
        raise DirectoryError(f"{entry}: unknown field {unknown[0]!r}; allowed are {', '.join(fields)}")


def _label(entry: str, value: object) -> tuple[str, str | None]:
    """Number and block of an ``apartment_number``."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    read = read_label(text) if isinstance(text, str) else None
    if read is None:
        raise DirectoryError(f"{entry}: apartment_number must be {_LABELS}, found {_shown(value)}")
    return read


def read_label(text: str) -> tuple[str, str | None] | None:
    """Number and block of an apartment as a directory writes it ("Apto. 102 bloco B"); None: it is none."""
    mentions = apartment_mentions(f"apartamento {text}")
    if len(mentions) != 1 or not re.search(r"\d|cobertura", fold(text)):
        return None
    covered = f"apartamento {text}"[mentions[0].start : mentions[0].end]
    rest = [word.text for word in words(f"apartamento {text}".replace(covered, " ", 1))]
    if any(word not in {"apartamento", "apto", "ap", "casa", "unidade"} for word in rest):
        return None
    return mentions[0].number, mentions[0].block


def _resident(entry: str, value: object) -> Contact:
    """A full name, or an object with it and more."""
    if isinstance(value, Mapping):
        _only(f"{entry}: resident", value, _RESIDENT, ("name",))
        name = value["name"]
    else:
        name, value = value, {}
    if not isinstance(name, str) or not name.strip():
        raise DirectoryError(
            f"{entry}: residents must be a list of full names, or of objects with {', '.join(_RESIDENT)}; "
            f"found {_shown(name)} in it"
        )
    name = name.strip()
    if not name_words(name):
        raise DirectoryError(f"{entry}: resident {name!r} holds no name")
    entry = f"{entry}: resident {name!r}"
    hours = value.get("quiet_hours", ())
    hours = [hours] if isinstance(hours, str) else _sequence(entry, "quiet_hours", hours)
    return Contact(
        name,
        _dials(entry, value, needed=False) if "voip_number" in value else (),
        tuple(_read(entry, "quiet_hours", read_hours, one) for one in hours),
        _flag(entry, value, "do_not_call", default=False),
    )


def _standing(entry: str, value: object) -> StandingAuthorisation:
    entry = f"{entry}: standing authorisation"
    if not isinstance(value, Mapping):
        raise DirectoryError(f"{entry}: must be an object with {', '.join(_STANDING)}, found {_shown(value)}")
    _only(entry, value, _STANDING, ("name",))
    name = value["name"]
    if not isinstance(name, str) or not name_words(name):
        raise DirectoryError(f"{entry}: name must be a visitor's or a company's, found {_shown(name)}")
    days = _sequence(entry, "days", value.get("days", ()))
    return StandingAuthorisation(
        name.strip(),
        frozenset(_read(entry, "days", read_day, day) for day in days),
        _read(entry, "hours", read_hours, value["hours"]) if "hours" in value else None,
        _read(entry, "until", _date, value["until"]) if "until" in value else None,
        _flag(entry, value, "call_resident", default=True),
    )


def _read(entry: str, name: str, read: Callable[[str], T], value: object) -> T:
    """What ``read`` makes of a text; it says what is allowed where that is none."""
    try:
        if isinstance(value, str):
            return read(value)
        allowed = "text"
    except ValueError as error:
        allowed = str(error)
    raise DirectoryError(f"{entry}: {name}: found {_shown(value)}; allowed: {allowed}")


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError("a date such as 2026-12-31") from None


def _flag(entry: str, record: Mapping[Any, Any], name: str, *, default: bool) -> bool:
    value = record.get(name, default)
    if not isinstance(value, bool):
        raise DirectoryError(f"{entry}: {name}: found {_shown(value)}; allowed: true or false")
    return value


def _sequence(entry: str, name: str, value: object) -> Sequence[Any]:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise DirectoryError(f"{entry}: {name} must be a list, found {_shown(value)}")
    return value


def _items(entry: str, name: str, record: Mapping[Any, Any], allowed: str) -> Sequence[Any]:
    value = record[name]
    if not isinstance(value, Sequence) or isinstance(value, str | bytes) or not value:
        raise DirectoryError(f"{entry}: {name} must be {allowed}, found {_shown(value)}")
    return value


def _dials(entry: str, record: Mapping[Any, Any], *, needed: bool) -> tuple[str, ...]:
    """What to call; empty only where that is not needed."""
    if "voip_number" not in record:
        raise DirectoryError(f"{entry}: voip_number is missing; found only {', '.join(map(str, record))}")
    value = record["voip_number"]
    value = [value] if isinstance(value, str) else value
    allowed = isinstance(value, Sequence) and not isinstance(value, bytes)
    if not allowed or (needed and not value):
        raise DirectoryError(f"{entry}: voip_number must be {_DIALS}, found {_shown(value)}")
    for item in value:
        if not isinstance(item, str) or not item.strip():
            raise DirectoryError(f"{entry}: voip_number must be {_DIALS}, found {_shown(item)} in it")
    return tuple(item.strip() for item in value)


def _as_record(apartment: Apartment) -> dict[str, Any]:
    """The entry that :func:`_apartment` reads as this apartment."""
    contacts = {one.resident: one for one in apartment.contacts}
    record: dict[str, Any] = {
        "apartment_number": apartment.label,
        "residents": [
            _contact_record(contacts[name]) if name in contacts else name for name in apartment.residents
        ],
        "voip_number": apartment.dial[0] if len(apartment.dial) == 1 else list(apartment.dial),
    }
    if apartment.standing:
        record["standing_authorisations"] = [_standing_record(one) for one in apartment.standing]
    return record


def _contact_record(contact: Contact) -> dict[str, Any]:
    record: dict[str, Any] = {"name": contact.resident}
    if contact.dial:
        record["voip_number"] = list(contact.dial)
    if contact.quiet:
        record["quiet_hours"] = [str(hours) for hours in contact.quiet]
    if contact.do_not_call:
        record["do_not_call"] = True
    return record


def _standing_record(one: StandingAuthorisation) -> dict[str, Any]:
    record: dict[str, Any] = {"name": one.name}
    if one.days:
        record["days"] = [DAYS[day] for day in sorted(one.days)]
    if one.hours is not None:
        record["hours"] = str(one.hours)
    if one.until is not None:
        record["until"] = one.until.isoformat()
    if not one.call_resident:
        record["call_resident"] = False
    return record


__all__ = [
    "Apartment",
    "ApartmentMatch",
    "Contact",
    "Directory",
    "DirectoryError",
    "NameMention",
    "ResidentMatch",
    "person_mentions",
    "read_label",
]
