"""Cuts a Portuguese sentence into folded words, the form in which all of ``visits/`` reads speech.

Folded means: lower case, without accents. Recognisers write the same word now with, now without them, and
capitals at random; what they leave out cannot be what a decision rests on.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

_WORD = re.compile(r"(?:[^\W_]|[\u0300-\u036f])+")
PAUSES = frozenset(".,;:!?…\n")


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a sentence.

    Attributes:
        raw: as it was written.
        text: folded.
        start: index of its first character in the sentence.
        end: index after its last character.
        gap: what stands between the previous word (or the beginning) and this one, e.g. ``" "`` or ``"-"``.
    """

    raw: str
    text: str
    start: int
    end: int
    gap: str

    @property
    def pause_before(self) -> bool:
        """True when the recogniser heard a pause before this word (punctuation stands there)."""
        return any(char in PAUSES for char in self.gap)

    @property
    def capitalised(self) -> bool:
        """True when the word was written with a capital first letter."""
        return self.raw[:1].isupper()


@lru_cache(maxsize=4096)
def fold(text: str) -> str:
    """Lower case, without accents: ``"Não É"`` → ``"nao e"``."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(char for char in decomposed if not unicodedata.combining(char))


def words(text: str) -> tuple[Word, ...]:
    """The words of a sentence in order; punctuation is kept in :attr:`Word.gap`."""
    found = []
    previous_end = 0
    for match in _WORD.finditer(text):
        raw = match.group()
        found.append(Word(raw, fold(raw), match.start(), match.end(), text[previous_end : match.start()]))
        previous_end = match.end()
    return tuple(found)


def visible(text: str) -> str:
    """In one spelling, without characters that are neither seen nor spoken: those would hide a word."""
    seen = (char for char in unicodedata.normalize("NFKC", text) if unicodedata.category(char) != "Cf")
    return unicodedata.normalize("NFC", "".join(seen))


def is_latin(char: str) -> bool:
    """Whether it is a letter of the Latin script; others look like them and are read out otherwise."""
    return char.isalpha() and unicodedata.name(char, "").startswith("LATIN")
