"""Finds whom a caller wants to be put through to: a department as people say it, or an extension.

Only what the tenant names is ever found: whoever asks for another number gets none, however they ask.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from visits.name_likeness import THRESHOLD, name_score
from visits.spoken_numbers import apartment_mentions
from visits.words import words

CLOSE = 5.0
"""Departments whose scores are so near are not told apart."""


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_AROUND = _set(
    """
    setor departamento depto area secao equipe time pessoal ramal numero extensao
    eu quero queria gostaria preciso falar ligar transferir transfere transfira passar passa passe chamar
    com para pra pro ao aos por favor alguem alguma pessoa gentileza
    o a os as um uma do da dos das de no na nos nas me e
    """
)
"""Folded words that stand around a department's name and say nothing of which it is."""


@dataclass(frozen=True, slots=True)
class Department:
    """One that calls are put through to.

    Attributes:
        also: what else people call it.
    """

    name: str
    extension: str
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DepartmentMatch:
    """What was meant.

    Attributes:
        extension: set where exactly one fits.
        candidates: the names of those that fit, where several do; else of all.
    """

    status: Literal["found", "ambiguous", "not_found"]
    extension: str = ""
    name: str = ""
    candidates: tuple[str, ...] = ()


class Departments:
    """A tenant's departments, and the extensions that callers may ask for by number."""

    def __init__(self, departments: Sequence[Department], extensions: Sequence[str] = ()) -> None:
        """
        Args:
            extensions: numbers in which an X stands for any digit.
        """
        self._departments = tuple(departments)
        self._patterns = [re.compile(re.escape(one).replace("X", "[0-9]")) for one in extensions]

    def __bool__(self) -> bool:
        return bool(self._departments or self._patterns)

    @property
    def names(self) -> tuple[str, ...]:
        """The departments' names."""
        return tuple(one.name for one in self._departments)

    def find(self, spoken: str) -> DepartmentMatch:
        """Whom a caller's words mean."""
        if (number := _number(spoken)) and (match := self._by_number(number)) is not None:
            return match
        scores = [
            (max(_score(spoken, name) for name in (one.name, *one.also)), one) for one in self._departments
        ]
        best = max((score for score, _ in scores), default=0.0)
        fitting = [one for score, one in scores if score >= max(THRESHOLD, best - CLOSE)]
        if not fitting:
            return DepartmentMatch("not_found", candidates=self.names)
        if len({one.extension for one in fitting}) > 1:
            return DepartmentMatch("ambiguous", candidates=tuple(one.name for one in fitting))
        return DepartmentMatch("found", fitting[0].extension, fitting[0].name)

    def _by_number(self, number: str) -> DepartmentMatch | None:
        for one in self._departments:
            if one.extension == number:
                return DepartmentMatch("found", number, one.name)
        if any(pattern.fullmatch(number) for pattern in self._patterns):
            return DepartmentMatch("found", number)
        return None


def _number(spoken: str) -> str:
    """The extension in a caller's words; empty where there is none, or several."""
    digits = re.sub(r"[\s.-]", "", re.sub(r"(?i)\bramal\b", "", spoken))
    if re.fullmatch(r"[0-9*#]{1,20}", digits):
        return digits
    found = apartment_mentions(f"apartamento {spoken}")
    return found[0].number if len(found) == 1 else ""


def _score(spoken: str, name: str) -> float:
    return name_score(_bare(spoken), _bare(name))


def _bare(text: str) -> str:
    """A text without the words that stand around names; as it is where nothing else would be left."""
    kept = [word.raw for word in words(text) if word.text not in _AROUND]
    return " ".join(kept) or text
