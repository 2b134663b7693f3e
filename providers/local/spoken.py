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
_END = re.compile(r"(?<=[.!?…])[\"”')]*\s+(?=\S)")
_SPACES = re.compile(r"\s+")
LONGEST = 220
"""Characters of a sentence beyond which it is cut at a comma, or at a space: speech must leave early."""


def spoken_form(text: str) -> str:
    """The text as it is read aloud: no signs, no abbreviations; "R$" is never spelt out."""
    for pattern, spoken in _WORDS:
        text = pattern.sub(spoken, text)
    return _SPACES.sub(" ", text).strip()


def sentences(text: str) -> list[str]:
    """The text's sentences in order, spaces tidied, none empty, none longer than :data:`LONGEST`.

    Joined by single spaces they are the text again.
    """
    found: list[str] = []
    for piece in _END.split(_SPACES.sub(" ", text).strip()):
        # "Sr. João" must not become two sentences.
        if found and re.search(r"\b(?:Sra?|Dra?|apto|apt|ap|bl|n)\.$", found[-1], re.IGNORECASE):
            found[-1] = f"{found[-1]} {piece}"
        elif piece:
            found.append(piece)
    return [part for sentence in found for part in _cut(sentence)]


def _cut(sentence: str) -> list[str]:
    parts = []
    while len(sentence) > LONGEST:
        at = max(sentence.rfind(sign, 0, LONGEST) for sign in (", ", "; ", ": "))
        at = at + 1 if at > LONGEST // 4 else sentence.rfind(" ", 0, LONGEST)
        if at <= 0:
            at = LONGEST
        parts.append(sentence[:at].strip())
        sentence = sentence[at:].strip()
    return [*parts, sentence] if sentence else parts
