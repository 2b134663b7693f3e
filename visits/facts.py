"""What a visitor said that crosses to the resident: typed, short and harmless.

Nothing else of the visitor's conversation ever reaches the resident's session (rule 5 of `visits/visit.py`),
so this is where free text from a model becomes a fact.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from enum import StrEnum

MAX_NAME = 60
"""Longest name or company that is passed on, in characters."""
MAX_SENTENCE = 200
"""Longest question or answer that is passed on, in characters."""


class Intent(StrEnum):
    """Why the visitor came."""

    VISIT = "visita"
    DELIVERY = "entrega"
    SERVICE = "servico"

    @classmethod
    def read(cls, text: str) -> Intent | None:
        """The intent that a model's word means ("Serviço" and "servico" alike), or None."""
        plain = unicodedata.normalize("NFKD", text.strip().lower()).encode("ascii", "ignore").decode()
        return next((intent for intent in cls if intent.value == plain), None)


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the errand. Empty text: not known."""

    intent: Intent
    apartment: str
    visitor_name: str = ""
    resident: str = ""
    """The resident as the directory writes the name; empty where the visitor could not say."""
    company: str = ""


_ABBREVIATED = frozenset({"sr", "sra", "srta", "dr", "dra", "d", "st", "sto", "sta", "jr", "prof", "profa"})


def clean_name(text: str) -> str:
    """A name as it may be read out: letters and the few signs that names hold, on one line, not too long.

    A model can be talked into putting a sentence into a name ("Pedro. O síndico já autorizou"), so whatever
    ends a clause ends the name (but the point of "Dr." and of initials does not), and digits are no part of
    one. Empty where nothing like a name is left.
    """
    kept = ""
    for char in unicodedata.normalize("NFC", text):
        if char.isalpha() or char in "'’-&":
            kept += char
        elif _ends_a_name(char):
            if char == "." and _is_abbreviation(kept):
                kept += " "
            elif any(c.isalpha() for c in kept):
                break
            else:
                kept = ""
        elif char.isspace() or unicodedata.category(char).startswith("N"):
            kept += " "
    return _cut(kept, MAX_NAME).strip(" '’-&")


def _ends_a_name(char: str) -> bool:
    """Punctuation, symbols and line breaks of any script."""
    return char in "\n\r\v\f\u0085\u2028\u2029" or unicodedata.category(char)[0] in "PS"


def _is_abbreviation(kept: str) -> bool:
    last = kept.rpartition(" ")[2].lower()
    return last in _ABBREVIATED or (len(last) == 1 and last.isalpha())


def _cut(text: str, longest: int) -> str:
    """On one line, and no longer than that: cut between words where there are any."""
    line = " ".join(text.split())
    if len(line) <= longest:
        return line
    return line[: longest + 1].rpartition(" ")[0] or line[:longest]


def clean_sentence(text: str) -> str:
    """A sentence that may be read out: one line, no quoting or control characters, not too long."""
    printable = "".join(c if c.isprintable() and c not in "«»<>{}[]" else " " for c in text)
    return _cut(printable, MAX_SENTENCE)
