"""Whether a sentence was said as it was asked for.

A realtime model that is asked for exact words may add, leave out or change some. Where a rule rests on a
sentence having been said (the briefing), the transcript of what was said is held against what was asked for.

Likeness in per cent is no measure for that. In the twelve briefings, filled with real names (rapidfuzz's
ratio over folded words): another visitor's name 97 to 98, another resident's 92 to 99, the two names swapped
89 to 95, another apartment 99, "não autoriza a entrada?" 98, the question left out 91 to 94; and the same
briefing with the apartment's number in words 92 to 95. So it is done word by word: every word must be there,
in its order, and no other one, but for small words that carry nothing. What is refused wrongly is said again;
what passes wrongly is a resident's consent to something else.
"""

from __future__ import annotations

from visits.spoken_numbers import apartment_mentions
from visits.words import Word, words

_SMALL = frozenset(
    {"a", "o", "as", "os", "um", "uma", "de", "da", "do", "das", "dos", "e", "em", "na", "no", "ao", "para"}
    | {"por", "favor", "que", "ola", "oi", "alo", "bom", "boa", "dia", "tarde", "noite", "senhor", "senhora"}
)
"""Folded words that may be left out or added; never one that denies, and none that is written as a name."""
_SPOKEN = {"ta": "esta", "pra": "para", "pro": "para", "apto": "apartamento", "ap": "apartamento"}


MIN_MS_PER_CHARACTER = 25.0
"""Sound that is shorter than that, by its text's characters, is no speech.

espeak-ng takes 73 to 75 ms a character of a briefing at its own pace and 47 at one and a half times that
(measured 2026-11-21, all twelve); nobody follows three times as fast.
"""


def long_enough(asked: str, heard_ms: float) -> bool:
    """Whether a sentence can have been spoken in that time.

    The transcript is the provider's word for what it sent; how much was played is ours. Without this a
    provider that sends all the words and a tenth of a second of sound has briefed somebody who heard nothing.
    """
    return heard_ms >= MIN_MS_PER_CHARACTER * len(asked.strip())


def said_as_asked(asked: str, said: str) -> bool:
    """Whether `said` carries `asked`: the same words in the same order.

    Case, accents, punctuation and small words are forgiven, and so is an apartment's number in words ("501",
    "quinhentos e um", "cinco zero um"); another number, name or company is another sentence. False where
    nothing was asked for.
    """
    wanted, given = _tokens(asked), _tokens(said)
    if not any(not small for _, small in wanted):
        return False
    # Which lengths of `given` can be explained by the words of `wanted` so far.
    reached = _over_small({0}, given)
    for text, small in wanted:
        taken = {at + 1 for at in reached if at < len(given) and given[at][0] == text}
        reached = _over_small(taken | (reached if small else set()), given)
    return len(given) in reached


def _over_small(reached: set[int], given: list[tuple[str, bool]]) -> set[int]:
    """From each place also all that small words lead to."""
    found = set(reached)
    for at in range(len(given)):
        if at in found and given[at][1]:
            found.add(at + 1)
    return found


def _tokens(text: str) -> list[tuple[str, bool]]:
    """Each word in its plain form, and whether it is small; an apartment's number and block are one word."""
    mentions = apartment_mentions(text)
    tokens: list[tuple[str, bool]] = []
    for word in words(text):
        inside = next((one for one in mentions if one.start <= word.start < one.end), None)
        if inside is None:
            plain = _SPOKEN.get(word.text, word.text)
            tokens.append((plain, word.text in _SMALL and not _written_as_name(word)))
        elif word.start == inside.start:
            tokens.append((f"{inside.number}/{inside.block}", False))
    return tokens


def _written_as_name(word: Word) -> bool:
    """ "Oi" and "Boa Vista" within a sentence are names, "Olá" at its beginning is none."""
    return word.capitalised and word.start > 0 and not word.pause_before
