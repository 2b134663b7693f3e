"""What is said of a written Portuguese text: sentences, and abbreviations and signs in words."""

from __future__ import annotations

import re

_WORDS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), spoken)
    for pattern, spoken in (
        (r"\bSr\.?ª|\bSra\b\.?", "senhora"),
        (r"\bSr\b\.?", "senhor"),
        (r"\bDra\b\.?", "doutora"),
        (r"\bDr\b\.?", "doutor"),
        (r"\b(?:apto|apt|ap)\b\.?(?=\s*\d)", "apartamento"),
        (r"\bbl\b\.?(?=\s*\w\b)", "bloco"),
        (r"\bn[º°]\s*|\bnº\.?\s*", "número "),
        (r"R\$\s*(\d+(?:\.\d{3})*),00\b", r"\1 reais"),
        (r"R\$\s*(\d+(?:\.\d{3})*),(\d{2})\b", r"\1 reais e \2 centavos"),
        (r"R\$\s*(\d+(?:\.\d{3})*)", r"\1 reais"),
        (r"\biFood\b", "aifúdi"),
        # A dash between single digits is read as "menos".
        (r"(?<=\b\d)\s*[-–]\s*(?=\d\b)", ", "),
        (r"(?<=\d)\s*[-–]\s*(?=[A-Z]\b)", " "),
        (r"[*_#`~^|<>{}\[\]\\]+", " "),
    )
)
_EMPHASIS = re.compile(r"[*_~`]+")
_MARKS = re.compile(r"[*_#`~^|<>{}\[\]\\]+")
_END = re.compile(r"[.!?…]+[\"”')»]*([ \n])(?=\S)|\n(?=\S)")
"""Where a sentence may end: a sign, a space and what comes next; or a line's end."""
_NO_END = re.compile(
    r"\b(?:Sra?|Srta|Dra?|Profa?|Eng|Exm[oa]|Il[mt][oa]|Sto|Sta|S|apto|apt|ap|bl|ed|cj|cond|av|r|al|tv|pça|"
    r"rod|km|n|nº|no|núm|tel|ramal|obs|ex|p|pág|art|vs|aprox|máx|mín|cia|ltda|h|min|\d+º?|[A-Z])\.$",
    re.IGNORECASE,
)
"""Abbreviations, initials and numbers: what follows their point belongs to them."""
_OF_BOTH_KINDS = re.compile(
    r"\b(?:h|min|no|r|ramal|ltda|cia|ed|al|s|p|ex|\d+º?|(?:bloco|torre|ala|\d)[- ]?[a-z])\.$", re.IGNORECASE
)
"""Of these, what ends sentences too: "às 22 h.", "no apartamento 501." Before a capital it does."""
_SPACES = re.compile(r"\s+")
_LINES = re.compile(r"\s*\n\s*")
_BLANKS = re.compile(r"[^\S\n]+")
LONGEST = 220
"""Characters of a sentence beyond which it is cut at a comma, or at a space: speech must leave early."""


def spoken_form(text: str) -> str:
    """The text as it is read aloud: no signs, no abbreviations; "R$" is never spelt out."""
    for pattern, spoken in _WORDS:
        text = pattern.sub(spoken, text)
    return _SPACES.sub(" ", text).strip()


def without_marks(text: str) -> str:
    """The text without marks of layout, which nobody says; the rest a speech service reads by itself."""
    return _SPACES.sub(" ", _MARKS.sub(" ", _EMPHASIS.sub("", text))).strip()


def sentences(text: str) -> list[str]:
    """The text's sentences in order, spaces tidied, none empty, none longer than :data:`LONGEST`.

    Joined by single spaces they are the text again.
    """
    stream = SentenceStream()
    return [*stream.feed(text), *stream.rest()]


class SentenceStream:
    """The same of a text that is still being written: its sentences are the same, whatever its pieces are.

    A sentence is known to be over when the first sign of the next is there.
    """

    def __init__(self) -> None:
        self._held = ""
        """What no sentence was made of yet: single spaces, and line ends."""
        self._looked = 0
        """Characters of it in which no sentence ends."""

    def feed(self, piece: str) -> list[str]:
        """What is complete by now."""
        self._held = _BLANKS.sub(" ", _LINES.sub("\n", self._held + piece)).lstrip()
        found: list[str] = []
        while True:
            end = self._next_end()
            head = self._held[:end].rstrip()
            if len(head) > LONGEST:
                at = _cut_at(head)
                found.append(head[:at].rstrip())
                self._drop(at)
            elif end is not None:
                found.append(head)
                self._drop(end)
            else:
                return found

    def rest(self) -> list[str]:
        """What is left at the text's end."""
        left = self._held.strip()
        self._drop(len(self._held))
        return [left] if left else []

    def _drop(self, characters: int) -> None:
        self._held, self._looked = self._held[characters:].lstrip(), 0

    def _next_end(self) -> int | None:
        for match in _END.finditer(self._held, self._looked):
            if match[1] != " " or _ends(self._held[: match.start(1)], self._held[match.end()]):
                return match.end()
            self._looked = match.end()
        return None


def _ends(before: str, following: str) -> bool:
    """Whether a sentence ends with ``before``, which ends with a sign, when ``following`` comes next."""
    if not before.endswith("."):
        return True
    if following.islower():  # an abbreviation that nobody has listed
        return False
    if _NO_END.search(before) is None:
        return True
    return following.isupper() and _OF_BOTH_KINDS.search(before) is not None


def _cut_at(sentence: str) -> int:
    """Where a sentence that is too long is cut: at a comma, or at a space."""
    at = max(sentence.rfind(sign, 0, LONGEST) for sign in (", ", "; ", ": "))
    at = at + 1 if at > LONGEST // 4 else sentence.rfind(" ", 0, LONGEST)
    return at if at > 0 else LONGEST
