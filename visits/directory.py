"""A tenant's apartments and residents, found by what a visitor says.

Nothing is ever guessed: an apartment is found when a reading of the spoken number exists, not when one is
near; a resident is matched when the name sounds like theirs, and two who fit alike are ambiguous.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from visits.name_likeness import THRESHOLD, name_score, name_words
from visits.names import NameMention, person_mentions, possible_names
from visits.spoken_numbers import Mention, apartment_mentions
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
class Apartment:
    """One apartment.

    Attributes:
        number: digits without leading zeros, ``"cobertura"`` or ``"cobertura 2"``.
        block: ``"B"``, ``"2"``, ``"NORTE"``; None where the condominium has none.
        residents: full names.
        dial: what to call, in order of preference: SIP URIs or extensions.
    """

    number: str
    block: str | None
    residents: tuple[str, ...]
    dial: tuple[str, ...]

    @property
    def label(self) -> str:
        """For people: ``"102"``, ``"102 bloco B"``."""
        return self.number if self.block is None else f"{self.number} bloco {self.block}"


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

_FIELDS = ("apartment_number", "residents", "voip_number")
_DIALS = "a SIP URI or an extension, or a list of them"
_LABELS = 'a number with an optional block, such as "102", "102 bloco B", "B-102" or "cobertura 2"'


def _shown(value: object) -> str:
    """A value as it is shown in an error: its type and a short form of it."""
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def _apartment(position: int, record: object) -> Apartment:
    """One entry; ``position`` counts from 1, as people do."""
    if not isinstance(record, Mapping):
        raise DirectoryError(
            f"entry {position}: must be an object with {', '.join(_FIELDS)}, found {_shown(record)}"
        )
    for name in _FIELDS:
        if name not in record:
            raise DirectoryError(
                f"entry {position}: {name} is missing; found only {', '.join(map(str, record))}"
            )
    unknown = [str(name) for name in record if name not in _FIELDS]
    if unknown:
        raise DirectoryError(
            f"entry {position}: unknown field {unknown[0]!r}; allowed are {', '.join(_FIELDS)}"
        )
    number, block = _label(position, record["apartment_number"])
    residents = _texts(position, "residents", record["residents"], "a list of full names")
    dial = record["voip_number"]
    dials = _texts(
        position,
        "voip_number",
        [dial] if isinstance(dial, str) else dial,
        "a SIP URI or extension, or a list",
    )
    for resident in residents:
        if not name_words(resident):
            raise DirectoryError(f"entry {position}: resident {resident!r} holds no name")
    return Apartment(number, block, residents, dials)


def _label(position: int, value: object) -> tuple[str, str | None]:
    """Number and block of an ``apartment_number``."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    mentions = apartment_mentions(f"apartamento {text}") if isinstance(text, str) else []
    if not isinstance(text, str) or len(mentions) != 1 or not re.search(r"\d|cobertura", fold(text)):
        raise DirectoryError(f"entry {position}: apartment_number must be {_LABELS}, found {_shown(value)}")
    covered = f"apartamento {text}"[mentions[0].start : mentions[0].end]
    rest = [word.text for word in words(f"apartamento {text}".replace(covered, " ", 1))]
    if any(word not in {"apartamento", "apto", "ap", "casa", "unidade"} for word in rest):
        raise DirectoryError(f"entry {position}: apartment_number must be {_LABELS}, found {_shown(value)}")
    return mentions[0].number, mentions[0].block


def _texts(position: int, name: str, value: object, allowed: str) -> tuple[str, ...]:
    """A non-empty list of non-empty strings."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes) or not value:
        raise DirectoryError(f"entry {position}: {name} must be {allowed}, found {_shown(value)}")
    for item in value:
        if not isinstance(item, str) or not item.strip():
            raise DirectoryError(f"entry {position}: {name} must be {allowed}, found {_shown(item)} in it")
    return tuple(item.strip() for item in value)


__all__ = [
    "Apartment",
    "ApartmentMatch",
    "Directory",
    "DirectoryError",
    "NameMention",
    "ResidentMatch",
    "person_mentions",
]
