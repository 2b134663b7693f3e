"""Tells how well a spoken name fits a person's full name, by its sound in Brazilian Portuguese.

Which apartment somebody lives in is ``directory.py``'s matter; finding names in a sentence is
``names.py``'s.
"""

from __future__ import annotations

from itertools import combinations

from rapidfuzz import fuzz

from visits.everyday_words import ARTICLES, JOINING, TITLES
from visits.phonetics import blurred, ends_like_other_gender, sound
from visits.words import fold, words

THRESHOLD = 75.0
"""From this score on two names count as the same."""

_BLURRED = 12.0
"""What it costs that only the voicing tells two names apart."""
_OTHER_GENDER = 60.0
"""Fernando and Fernanda sound almost alike, but are two people."""
_UNLISTED = 10.0
"""What each spoken word costs that a full name of fewer words does not hold: a second surname."""
_SURNAME_ALONE = 10.0
"""What it costs that an inexact word stands for a surname: "Silvia" is a name of her own, not a Silva."""


def name_words(name: str) -> tuple[str, ...]:
    """The words of a name that count: without titles, articles and "de", "da", "dos"."""
    kept = [word for word in words(name) if word.text not in JOINING and word.text.isalpha()]
    while len(kept) > 1 and kept[0].text in TITLES | ARTICLES:
        kept = kept[1:]
    return tuple(word.raw for word in kept)


def name_score(spoken: str, resident: str) -> float:
    """How well a spoken name fits a resident's full name, 0 to 100; from :data:`THRESHOLD` on it is them.

    Every spoken word has to find its own word of the full name, in order. Where more than one is spoken, the
    first must fit a given name: whoever shares only the surname is somebody else.
    """
    full = name_words(resident)
    if not full:
        return 0.0
    return max((_aligned(reading, full) for reading in _respelled(name_words(spoken))), default=0.0)


def _respelled(spoken: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The words as written, and with a stray vowel taken as the end of the word before ("Fernando a")."""
    readings = [tuple(word for word in spoken if len(word) > 1)]
    for index in range(1, len(spoken)):
        if len(spoken[index]) == 1 and fold(spoken[index]) in "aeo":
            merged = spoken[index - 1].rstrip("aeiouAEIOU") + spoken[index]
            rest = (*spoken[: index - 1], merged, *spoken[index + 1 :])
            readings.append(tuple(word for word in rest if len(word) > 1))
    return [reading for reading in readings if reading]


def _aligned(spoken: tuple[str, ...], full: tuple[str, ...]) -> float:
    """The best in-order assignment of spoken words to words of the full name."""
    if len(spoken) == 1 or len(full) == 1:
        score = max(_alone(spoken[0], full, place) for place in range(len(full)))
        return max(0.0, score - _UNLISTED * (len(spoken) - 1))
    best = 0.0
    fewest = 2 if len(spoken) > len(full) else len(spoken)
    for count in range(min(fewest, len(full)), min(len(spoken), len(full)) + 1):
        for rest in combinations(spoken[1:], count - 1):
            score = max(_in_places((spoken[0], *rest), full, places) for places in _places(full, count))
            best = max(best, score - _UNLISTED * (len(spoken) - count))
    return best


def _alone(word: str, full: tuple[str, ...], place: int) -> float:
    """One word against one word of the full name; the first name is what people mean first."""
    surname = place == len(full) - 1 and place > 0
    score = word_score(word, full[place], given=not surname)
    if surname and score < 100.0:
        score -= _SURNAME_ALONE
    return score - 0.5 if place and score >= THRESHOLD else score


def _places(full: tuple[str, ...], count: int) -> list[tuple[int, ...]]:
    """Which words of the full name ``count`` spoken ones may be: the first of them a given name."""
    return [places for places in combinations(range(len(full)), count) if places[0] < len(full) - 1]


def _in_places(spoken: tuple[str, ...], full: tuple[str, ...], places: tuple[int, ...]) -> float:
    """The mean of the words' scores; the worst of them where that one does not fit."""
    scores = [
        word_score(word, full[place], given=place < len(full) - 1)
        for word, place in zip(spoken, places, strict=True)
    ]
    return sum(scores) / len(scores) if min(scores) >= THRESHOLD else min(scores)


def word_score(spoken: str, name: str, *, given: bool = True) -> float:
    """How well one spoken word fits one word of a name, 0 to 100.

    Args:
        spoken: the word heard.
        name: the word of the full name.
        given: it is a given name, which may be shortened (Rô, Bia, Paulinha).
    """
    heard, meant = sound(spoken), sound(name)
    if not heard or not meant:
        return 0.0
    if heard == meant:
        return 100.0
    if ends_like_other_gender(heard, meant):
        return _OTHER_GENDER
    score = max(_similarity(heard, meant), _similarity(blurred(heard), blurred(meant)) - _BLURRED)
    return max(score, _nickname_score(spoken, heard, meant)) if given else score


def _similarity(heard: str, meant: str) -> float:
    """Likeness of two sounds; beginnings are heard best, so a different one counts against it."""
    ratio = fuzz.ratio(heard, meant)
    if heard[0] != meant[0]:
        ratio -= 15.0
    return max(0.0, min(100.0, ratio * 2.0 - 100.0)) if ratio < 100 else 100.0


def _nickname_score(spoken: str, heard: str, meant: str) -> float:
    """Short forms by rule: a truncated name, a diminutive, a doubled syllable, the end of a long name."""
    if 2 <= len(heard) <= 4 and _begins(meant, heard):
        return 88.0
    stem = _diminutive_stem(fold(spoken))
    if stem is not None and _fits_gender(fold(spoken), meant) and (stem == meant or _begins(meant, stem)):
        return 88.0
    half = len(heard) // 2
    if len(heard) == 4 and heard[:half] == heard[half:] and heard[:half] in meant:
        return 80.0
    if 4 <= len(heard) < len(meant) and meant.endswith(heard):
        return 80.0
    return 0.0


def _begins(meant: str, short: str) -> bool:
    """Whether a name begins with a short form (which is not the whole of it)."""
    if len(short) >= len(meant):
        return False
    if short.endswith(("u", "i")) and len(short) == 2 and meant.startswith(short[0]):
        return meant[1] in ("o" if short[1] == "u" else "e") + short[1]
    return meant.startswith(short)


def _fits_gender(diminutive: str, meant: str) -> bool:
    """Paulinho is no Paula; names that end neither in -a nor in -o take either ending."""
    end = diminutive.rstrip("s")[-1:]
    return not (meant.endswith("a") and end == "o") and not (meant.endswith("u") and end == "a")


_DIMINUTIVES = ("inhos", "inhas", "inho", "inha", "ito", "ita", "ao")


def _diminutive_stem(word: str) -> str | None:
    """The sounds that are left of "Paulinha", "Luquinhas", "Joãozinho", "Carlão" without the ending."""
    for ending in ("zinho", "zinha", "zinhos", "zinhas"):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return sound(word.removesuffix(ending))
    for ending in _DIMINUTIVES:
        stem = word.removesuffix(ending)
        if stem != word and len(stem) >= 2:
            # A vowel is put back, so that the last consonant sounds as it does within the name.
            hard = {"qu": stem[:-2] + "ka", "gu": stem[:-2] + "ga"}.get(stem[-2:])
            return sound(hard or stem + ("i" if stem.endswith("c") else "a"))[:-1]
    return None
