"""Understands one sentence of a visitor's: the facts in it and what it does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from providers.local.dialogue.lexicon import (
    ACTS,
    DELIVERS,
    FIRMS,
    GREETINGS,
    HINTED_ERRANDS,
    NAMED_ERRANDS,
    NAMED_FIRM,
    NEGATED,
    NO_NAMES,
    WHOLE_ACTS,
    Act,
)
from visits.facts import clean_name
from visits.names import person_mentions
from visits.spoken_numbers import apartment_mentions
from visits.words import fold, words

SMALL = frozenset({"de", "da", "do", "das", "dos", "e"})
"""Words inside a name that stay small."""

MAX_NAME_WORDS = 6
"""A longer "name" is a sentence."""


@dataclass(frozen=True, slots=True)
class Apartment:
    """An apartment as it was said.

    Attributes:
        spoken: what the directory is asked for.
        sure: False when the number had to be guessed by its sound.
        label: the number for reading out.
    """

    spoken: str
    sure: bool
    label: str


@dataclass(frozen=True, slots=True)
class Heard:
    """A sentence, understood.

    Attributes:
        plain: folded, without signs.
        errand: the errand that was named; empty if none was.
        hint: the errand that may be guessed.
        apartment: the last apartment mentioned.
        own_name: how the visitor introduced themselves.
        sought: whom the visitor asked for.
        loose: a name that could be either's.
        firm: a company.
        acts: what the sentence does.
        greeting: the key of the phrase that answers its greeting; empty if there is none.
    """

    plain: str
    errand: str = ""
    hint: str = ""
    apartment: Apartment | None = None
    own_name: str = ""
    sought: str = ""
    loose: str = ""
    firm: str = ""
    acts: frozenset[Act] = field(default_factory=frozenset)
    greeting: str = ""


@lru_cache(maxsize=1024)
def understand(text: str) -> Heard:
    """Everything that can be told from one sentence by itself, without what was asked before."""
    plain = " ".join(word.text for word in words(text))
    if not plain:
        return Heard("")
    firm = _firm(text, plain)
    own, sought, loose = _names(text)
    named = _errand(plain, NAMED_ERRANDS)
    hint = _errand(plain, HINTED_ERRANDS) or _errand_of(firm)
    return Heard(
        plain=plain,
        errand=named,
        hint=hint,
        apartment=_apartment(text),
        own_name=own,
        sought=sought,
        loose=loose,
        firm=firm,
        acts=_acts(plain),
        greeting=next((key for key, pattern in GREETINGS if pattern.search(plain)), "ola"),
    )


def _acts(plain: str) -> frozenset[Act]:
    found = {act for act, pattern in ACTS.items() if pattern.search(plain)}
    found |= {act for act, pattern in WHOLE_ACTS.items() if pattern.match(plain)}
    return frozenset(found)


def _errand(plain: str, table: dict[str, re.Pattern[str]]) -> str:
    """The errand that is mentioned last and not denied ("não é visita, é entrega")."""
    best = (-1, "")
    for errand, pattern in table.items():
        for match in pattern.finditer(plain):
            if match.start() > best[0] and not NEGATED.search(plain[: match.start()]):
                best = (match.start(), errand)
    return best[1]


def _firm(text: str, plain: str) -> str:
    named = NAMED_FIRM.search(text)
    if named is not None:
        return clean_name(named[1])
    return next((firm for firm, pattern in FIRMS.items() if pattern.search(plain)), "")


def _errand_of(firm: str) -> str:
    if not firm:
        return ""
    return "entrega" if firm in DELIVERS else "servico" if firm in FIRMS else ""


MAX_SPOKEN: Final = 120
"""Characters that lookup_apartment takes; of a longer sentence the end counts."""


def _apartment(text: str) -> Apartment | None:
    """The apartment of a sentence; where several are named, the sentence itself.

    Which of them is meant is the directory's to tell: "não é no 501, é no 502" is a correction, "501 ou 502"
    a doubt.
    """
    mentions = apartment_mentions(text)
    if not mentions:
        return None
    last = mentions[-1]
    label = f"{last.number} bloco {last.block}" if last.block else last.number
    several = len({(mention.number, mention.block) for mention in mentions}) > 1
    return Apartment(text.strip()[-MAX_SPOKEN:] if several else label, last.exact, label)


# --------------------------------------------------------------------------------------------------------
# Names
# --------------------------------------------------------------------------------------------------------


def _names(text: str) -> tuple[str, str, str]:
    """The visitor's own name, the one asked for, and one that may be either's."""
    own = sought = loose = ""
    for mention in person_mentions(text):
        name = a_name(mention.text)
        if not name:
            continue
        if mention.kind == "self":
            own = name
        elif mention.kind == "other":
            sought = name
        elif _written_as_name(text, mention.text):
            loose = loose or name
    return own, sought, loose


def _written_as_name(text: str, name: str) -> bool:
    """Whether a name that nothing explains looks like one: "É Renata", "renata", but not "É pesada"."""
    return (
        name[:1].isupper() or not text.strip()[:1].isupper() or f" a {name}" in text or f" o {name}" in text
    )


def a_name(text: str) -> str:
    """``text`` where it can be a person's name, cleaned for reading out; otherwise empty."""
    name = clean_name(text)
    parts = [fold(part) for part in name.split()]
    telling = [part for part in parts if part not in NO_NAMES]
    foreign = _firm("", " ".join(parts)) != ""
    if foreign or len(parts) > MAX_NAME_WORDS or not any(len(part) > 1 for part in telling):
        return ""
    return _capitalised(name.split()) if name.islower() else name


def _capitalised(parts: Sequence[str]) -> str:
    return " ".join(part if fold(part) in SMALL else part.capitalize() for part in parts)
