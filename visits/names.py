"""Finds the people whom a sentence names, and tells the speaker's own name from the others.

Capitals help, but recognisers leave them out; so a name is known by what stands around it ("meu nome é ...",
"visitar a ...", "a ... já autorizou") and by not being an everyday word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from visits.everyday_words import (
    AFTER_NAME,
    ARTICLES,
    COMMON,
    COMPANIES,
    JOINING,
    OTHER,
    RELATIONS,
    SELF,
    TITLES,
    WEAK,
)
from visits.spoken_numbers import NUMBER_WORDS, apartment_mentions, is_apartment_word
from visits.words import Word, words

_NOT_NAMES = COMMON | TITLES | frozenset(NUMBER_WORDS)

_ANSWERS = frozenset({("e",), ("nao", "e"), ("e", "o"), ("e", "a"), ("nao", "e", "o"), ("nao", "e", "a")})
"""What stands before a name in the answer to a question: "é o Marcos" may be either side's name."""


@dataclass(frozen=True, slots=True)
class NameMention:
    """A person named in a sentence.

    Attributes:
        text: the name as it was written, without title.
        kind: ``self`` the speaker's own name, ``other`` somebody they ask for or speak of, ``unknown`` a name
            that nothing in the sentence explains (such as the bare answer to a question).
    """

    text: str
    kind: Literal["self", "other", "unknown"]


def person_mentions(text: str) -> list[NameMention]:
    """The people whom a sentence names, in order of appearance."""
    sentence = words(text)
    found = []
    for first, last in _runs(text, sentence):
        kind = _kind(sentence, first, last)
        if kind is not None:
            found.append(NameMention(_written(text, sentence, first, last), kind))
    return found


def possible_names(text: str) -> list[str]:
    """Everything in a text that could be a name, for a text that is known to hold one."""
    sentence = words(text)
    return [_written(text, sentence, first, last) for first, last in _runs(text, sentence)]


def _runs(text: str, sentence: Sequence[Word]) -> Iterator[tuple[int, int]]:
    """First and last word of every run of words that could be a name."""
    numbered = _number_words(text, sentence)
    index = 0
    while index < len(sentence):
        run = _name_run(sentence, index, numbered)
        if run is None:
            index += 1
            continue
        yield run
        index = run[1] + 1


def _number_words(text: str, sentence: Sequence[Word]) -> frozenset[int]:
    """Indexes of the words that belong to apartment numbers."""
    spans = [(mention.start, mention.end) for mention in apartment_mentions(text)]
    return frozenset(
        index
        for index, word in enumerate(sentence)
        if any(start <= word.start and word.end <= end for start, end in spans)
    )


def _written(text: str, sentence: Sequence[Word], first: int, last: int) -> str:
    """The name as the sentence has it, a comma that the recogniser put inside it taken out."""
    return " ".join(text[sentence[first].start : sentence[last].end].replace(",", " ").split())


def _like_name(word: Word) -> bool:
    """Whether a word can be (part of) a person's name."""
    if not word.text.isalpha() or len(word.text) < 2 or word.text in _NOT_NAMES:
        return False
    return not is_apartment_word(word.text)


def _name_run(sentence: Sequence[Word], first: int, numbered: frozenset[int]) -> tuple[int, int] | None:
    """First and last word of the name that begins at ``first``, or None."""
    if first in numbered or not _like_name(sentence[first]):
        return None
    last = first
    index = first + 1
    while index < len(sentence) and last - first < 6:
        word = sentence[index]
        if index in numbered or (word.pause_before and not _surname_after_comma(sentence, index)):
            break
        if _like_name(word) and word.text not in AFTER_NAME and _same_case(sentence[first], word):
            last = index
        elif not _joins(sentence, index, numbered):
            break
        index += 1
    garbled = last + 1 < len(sentence) and sentence[last + 1].gap == "-"
    return None if garbled else (first, last)


def _same_case(first: Word, word: Word) -> bool:
    """A name is written in capitals throughout or not at all: "Renata autorizada" is not one."""
    return word.capitalised == first.capitalised


def _joins(sentence: Sequence[Word], index: int, numbered: frozenset[int]) -> bool:
    """Whether "da" and the like stand inside a name; also a stray vowel ("Fernando a Souza")."""
    if index + 1 >= len(sentence) or index + 1 in numbered or sentence[index + 1].pause_before:
        return False
    following = sentence[index + 1]
    if not _like_name(following) or following.text in COMPANIES or following.text in AFTER_NAME:
        return False
    if sentence[index].text in JOINING:
        return _same_case(sentence[index - 1], following)
    return sentence[index].text in {"a", "o"} and following.capitalised and sentence[index - 1].capitalised


def _surname_after_comma(sentence: Sequence[Word], index: int) -> bool:
    """ "a Fernanda, Souza no 201": the recogniser put a comma where the speaker took a breath."""
    word = sentence[index]
    if word.gap.strip() != "," or not word.capitalised or word.text in COMPANIES or not _like_name(word):
        return False
    return index + 1 == len(sentence) or sentence[index + 1].text in {"no", "na", "do", "da"}


def _kind(sentence: Sequence[Word], first: int, last: int) -> Literal["self", "other", "unknown"] | None:
    """Whose name the run is; None where it is probably no name."""
    if any(word.text in COMPANIES for word in sentence[first : last + 1]):
        return None
    before = _before(sentence, first)
    if _ends_with(before, SELF) or _introduces_company(sentence, first, last):
        return "self"
    asked_for = _ends_with(before, OTHER) is not None
    capitalised = sentence[first].capitalised and (first > 0 or last + 1 == len(sentence))
    acts = last + 1 < len(sentence) and sentence[last + 1].text in AFTER_NAME
    answers = before in _ANSWERS
    introduced = first == 0 or (not answers and _ends_with(before, WEAK) is not None)
    if asked_for or (introduced and acts) or (capitalised and (acts or (introduced and first > 0))):
        return "other"
    alone = first == 0 and last + 1 == len(sentence) and last - first < 5
    return "unknown" if capitalised or alone or answers else None


def _before(sentence: Sequence[Word], first: int) -> tuple[str, ...]:
    """The folded words before a name, without its articles, titles and possessives."""
    end = first
    while end and sentence[end - 1].text in TITLES | RELATIONS:
        end -= 1
    if end > 1 and sentence[end - 1].text in ARTICLES and not sentence[end - 1].pause_before:
        shorter = tuple(word.text for word in sentence[: end - 1])
        if _ends_with(shorter, SELF) or _ends_with(shorter, OTHER):
            end -= 1
    return tuple(word.text for word in sentence[:end])


def _ends_with(before: tuple[str, ...], phrases: tuple[tuple[str, ...], ...]) -> tuple[str, ...] | None:
    """The longest of the phrases that ``before`` ends with."""
    fitting = [phrase for phrase in phrases if before[-len(phrase) :] == phrase]
    return max(fitting, key=len, default=None)


def _introduces_company(sentence: Sequence[Word], first: int, last: int) -> bool:
    """ "Pedro, da Amazon": someone who names themselves and their firm."""
    rest = sentence[last + 1 : last + 3]
    return (
        first == 0
        and len(rest) == 2
        and rest[0].text in {"da", "do", "dos", "das"}
        and (rest[1].text in COMPANIES)
    )
