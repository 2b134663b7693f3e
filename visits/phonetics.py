"""How a name sounds in Brazilian Portuguese, so that spellings and mishearings of one name come together.

:func:`sound` writes a word with one letter a sound, coarsely: what spelling varies ("Thiago", "Luiz",
"Karlos", "Júlia") becomes equal, and what the telephone band or Brazilian speech blurs does too: a
syllable's final l, r and u ("Daniel", "Daner"), unstressed e and i, o and u, m and n before a consonant.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from visits.words import fold

_VOWELS = "aeiou"

# In order. The upper-case letters are sounds without a letter of their own: X "chave", N "ninho", L "filho",
# W the blurred end of a syllable in l, r or u, X and J also "ti" and "di".
_RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), sound)
    for pattern, sound in (
        (r"ph", "f"),
        (r"th", "t"),
        (r"[cs]h|tch", "X"),
        (r"x", "X"),
        (r"c(?=t)", ""),
        (r"lh", "L"),
        (r"nh", "N"),
        (r"ck|cq", "k"),
        (r"[sX]c(?=[ei])", "s"),
        (r"ç|c(?=[eiy])", "s"),
        (r"qu(?=[eiy])|[cq]", "k"),
        (r"gu(?=[eiy])", "G"),
        (r"g(?=[eiy])", "j"),
        (r"G", "g"),
        (r"h", ""),
        (r"w", "v"),
        (r"y", "i"),
        (r"([a-z])\1+", r"\1"),
        (r"z", "s"),
        (r"[mn](?![aeiou])", "n"),
        (r"(?<=[aeiou])[lru](?![aeiou])", "W"),
        (r"e(?=[aou])", "i"),
        (r"[ou]ao$", "ao"),
        (r"o(?=e)", "u"),
        (r"t(?=i)", "X"),
        (r"d(?=i)", "J"),
    )
)
_UNSTRESSED_END = ((re.compile(r"o(?=s?$)"), "u"), (re.compile(r"e(?=s?$)"), "i"))
_STRESSED_END = re.compile(r"[éêóô]s?$")


@lru_cache(maxsize=8192)
def sound(word: str) -> str:
    """The sounds of one word, e.g. ``"Thiago"`` and ``"Tiago"`` → ``"tiagu"``; ``""`` for a silent one."""
    text = "".join(char for char in fold(word) if char.isascii() and char.isalpha())
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    if not _STRESSED_END.search(unicodedata.normalize("NFC", word.lower())):
        for pattern, replacement in _UNSTRESSED_END:
            text = pattern.sub(replacement, text)
    return text


_BLUR = str.maketrans("bdgvjJl", "ptkfXXr")


def blurred(heard: str) -> str:
    """A sound without voicing, and with l for r: what the telephone band leaves of it (Renada, Rogélio)."""
    return heard.translate(_BLUR)


def ends_like_other_gender(one: str, other: str) -> bool:
    """Whether two sounds differ only in a final -a: Fernanda and Fernando, Daniela and Daniel."""
    if one == other:
        return False
    return _stem(one) == _stem(other) and (one[-1:] == "a") != (other[-1:] == "a")


def _stem(heard: str) -> str:
    stem = heard.rstrip(_VOWELS)
    return stem[:-1] + "l" if stem.endswith("W") else stem
