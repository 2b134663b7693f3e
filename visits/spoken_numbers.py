"""Finds apartment numbers in what people say, and in what speech recognisers make of it.

How a number is read:

- *Composed*: "quinhentos e um", "500 e 1", "mil e dois" add up.
- *Digit by digit*: "cinco zero um", "5-0-1", "cinco meia dois" ("meia" is six) stand side by side.
- *Glued*: recognisers write the parts of a composed number one after the other, "5001" for "quinhentos e um",
  "2001" for "duzentos e um". Such a number keeps its plain reading and gets 501 or 201 as an alternative.
- *Misspelt hundreds*: "quinhendo-se um" still sounds like one hundred and like no other; the mention is then
  marked as not exact, so that a dialogue can ask.

What is a number at all: "um" and "uma" are articles unless an apartment word stands before them; a number
that counts something ("dois pacotes", "20 minutos", "às 15") is not an apartment.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from rapidfuzz import fuzz

from visits.phonetics import blurred, sound
from visits.words import Word, words

MAX_DIGITS = 5
"""Longer numbers are telephone numbers, documents or tracking codes."""

UNITS = {
    "zero": 0, "um": 1, "uma": 1, "dois": 2, "duas": 2, "tres": 3, "quatro": 4,
    "cinco": 5, "seis": 6, "meia": 6, "sete": 7, "oito": 8, "nove": 9,
}  # fmt: skip
TEENS = {
    "dez": 10, "onze": 11, "doze": 12, "treze": 13, "quatorze": 14, "catorze": 14, "quinze": 15,
    "dezesseis": 16, "dezasseis": 16, "dezessete": 17, "dezassete": 17, "dezoito": 18, "dezenove": 19,
    "dezanove": 19,
}  # fmt: skip
TENS = {
    "vinte": 20, "trinta": 30, "quarenta": 40, "cinquenta": 50, "sessenta": 60, "setenta": 70,
    "oitenta": 80, "noventa": 90,
}  # fmt: skip
HUNDREDS = {
    "cem": 100, "cento": 100, "duzentos": 200, "trezentos": 300, "quatrocentos": 400, "quinhentos": 500,
    "seiscentos": 600, "setecentos": 700, "oitocentos": 800, "novecentos": 900,
}  # fmt: skip
_HUNDREDS_SOUND = tuple(
    (value, blurred(sound(name)).rstrip("s")) for name, value in HUNDREDS.items() if value > 100
)
NUMBER_WORDS = {**UNITS, **TEENS, **TENS, **HUNDREDS, "mil": 1000}

_APARTMENT_WORDS = frozenset(
    {"apartamento", "apartamentos", "apto", "apt", "ap", "ape", "unidade", "casa", "numero"}
)
_BLOCK_WORDS = frozenset({"bloco", "bl", "torre", "predio", "edificio"})
_NOT_APARTMENTS = frozenset(
    {"andar", "piso", "vaga", "garagem", "as", "telefone", "celular", "cpf", "rg", "r"}
)
_CONNECTORS = frozenset({"do", "da", "no", "na", "de", "o", "a", "e", "em"})
_AFTER_NUMBER = frozenset({"por", "para", "pra", "sim"})
_PLURAL_BUT_NOT_COUNTED = frozenset(
    {
        "dos",
        "das",
        "nos",
        "nas",
        "mas",
        "pois",
        "depois",
        "mais",
        "aos",
        "as",
        "os",
        "tras",
        "antes",
        "apos",
        "ates",
    }
)
_LETTER_NAMES = {
    "be": "B", "ce": "C", "efe": "F", "ge": "G", "aga": "H", "jota": "J", "ele": "L", "eme": "M", "ene": "N",
    "pe": "P", "que": "Q", "erre": "R", "esse": "S", "te": "T", "ve": "V", "xis": "X",
}  # fmt: skip
_COUNTED = frozenset({"hora", "minuto", "pacote", "reais", "real", "andar", "porcento", "vezes", "anos"})
_GLUED_LABEL = re.compile(r"^([a-z]?)(\d+)([a-z]?)$")


@dataclass(frozen=True, slots=True)
class Mention:
    """One apartment that may have been meant.

    Attributes:
        number: the plain reading, digits without leading zeros; or ``"cobertura"``, ``"cobertura 2"``.
        alternatives: other readings, likeliest first; right only where the plain one does not exist.
        block: ``"B"``, ``"2"``, ``"NORTE"``, or None when none was said.
        start: index of the first character of the mention (its block included) in the sentence.
        end: index after the last one.
        exact: False when a misspelt word had to be guessed by its sound.
    """

    number: str
    alternatives: tuple[str, ...]
    block: str | None
    start: int
    end: int
    exact: bool = True

    @property
    def readings(self) -> tuple[str, ...]:
        """The plain reading, then the alternatives."""
        return (self.number, *self.alternatives)


@dataclass(frozen=True, slots=True)
class _Part:
    """A word read as a number: its value, how its digits are written, and whether its spelling was sure."""

    value: int
    digits: str
    written: bool
    exact: bool = True


@dataclass(frozen=True, slots=True)
class _Run:
    """Words ``first`` to ``last`` (inclusive) that make one number."""

    first: int
    last: int
    groups: tuple[tuple[_Part, ...], ...]
    """Parts joined by "e" stand in one group; groups stand side by side."""


def apartment_mentions(text: str) -> list[Mention]:
    """Every apartment that the sentence may mean, in order of appearance."""
    sentence = words(text)
    blocks = _blocks(sentence)
    taken = {index for first, last, _ in blocks for index in range(first, last + 1)}
    mentions: list[tuple[int, int, Mention]] = []
    index = 0
    while index < len(sentence):
        if index in taken:
            index += 1
            continue
        found = (
            _penthouse(sentence, index, taken) or _glued(sentence, index) or _number(sentence, index, taken)
        )
        if found is not None and text[found[2].end : found[2].end + 1] != "%":
            mentions.append(found)
            index = found[1] + 1
            continue
        run = _run(sentence, index, taken)
        index = index + 1 if run is None else run.last + 1  # the rest of a refused number is refused with it
    return _with_blocks(sentence, mentions, blocks)


# --------------------------------------------------------------------------------------------------------
# One word, one run
# --------------------------------------------------------------------------------------------------------


def _part(word: Word) -> _Part | None:
    """The number that one word is, or None."""
    if word.text.isascii() and word.text.isdigit():
        return _Part(int(word.text), word.text, written=True)
    if word.text in NUMBER_WORDS:
        value = NUMBER_WORDS[word.text]
        return _Part(value, str(value), written=False)
    hundred = _sounds_like_hundred(word.text)
    return None if hundred is None else _Part(hundred, str(hundred), written=False, exact=False)


@lru_cache(maxsize=4096)
def _sounds_like_hundred(text: str) -> int | None:
    """A misspelt "quinhentos": it sounds near one hundred, and clearly farther from the others."""
    if len(text) < 7:
        return None
    heard = blurred(sound(text)).rstrip("s")
    ranked = sorted(((fuzz.ratio(heard, said), value) for value, said in _HUNDREDS_SOUND), reverse=True)
    (best, value), (second, _) = ranked[0], ranked[1]
    return value if best >= 83 and best - second >= 10 else None


def _run(sentence: tuple[Word, ...], first: int, taken: set[int]) -> _Run | None:
    """The longest number that begins at ``first``."""
    part = None if first in taken else _part(sentence[first])
    if part is None:
        return None
    groups: list[list[_Part]] = [[part]]
    last = first
    while True:
        step = _next_part(sentence, last, groups[-1][-1], taken)
        if step is None:
            return _Run(first, last, tuple(tuple(group) for group in groups))
        index, following, joined = step
        if joined:
            groups[-1].append(following)
        else:
            groups.append([following])
        last = index


def _next_part(
    sentence: tuple[Word, ...], last: int, before: _Part, taken: set[int]
) -> tuple[int, _Part, bool] | None:
    """The part after word ``last``: its index, itself, and whether it adds up with the part before."""
    index = last + 1
    if index >= len(sentence) or index in taken:
        return None
    link = sentence[index]
    says_and = link.text == "e" or (link.text == "se" and not before.exact)
    if says_and:
        index += 1
        if index >= len(sentence) or index in taken or sentence[index].pause_before:
            return None
    elif _is_thousands_point(before, link):
        pass
    elif any(mark in link.gap for mark in ".;!?…\n") or ("," in link.gap and not _digitish(before)):
        return None
    following = _part(sentence[index])
    if following is None:
        return None
    adds_up = _adds_up(before, following)
    if says_and:
        return (index, following, True) if adds_up else None
    joined = adds_up and not before.written and not following.written
    return (index, following, joined)


def _is_thousands_point(before: _Part, link: Word) -> bool:
    """``1.001``: one number, written with the point that Portuguese puts after the thousands."""
    return link.gap == "." and before.written and len(link.text) == 3 and link.text.isdigit()


def _digitish(part: _Part) -> bool:
    return part.value < 10


def _adds_up(before: _Part, following: _Part) -> bool:
    """Whether "before e following" is a Portuguese numeral: 500 e 1, 20 e 1, 2 mil, but not 5 e 1."""
    if following.value == 1000 and not following.written:
        return 1 < before.value < 1000
    trailing = len(before.digits) - len(before.digits.rstrip("0"))
    if following.value == 0 or before.value < 20:
        return False
    return trailing >= len(str(following.value))


# --------------------------------------------------------------------------------------------------------
# Readings
# --------------------------------------------------------------------------------------------------------


def _compose(group: tuple[_Part, ...]) -> int:
    """The sum of one group; "mil" multiplies what stands before it."""
    total = 0
    for position, part in enumerate(group):
        thousands = part.value == 1000 and not part.written and position > 0
        total = total * 1000 if thousands else total + part.value
    return total


def _readings(run: _Run) -> tuple[str, ...]:
    """The plain reading of a run, then its alternatives; empty when it is too long for an apartment."""
    texts = [str(_compose(group)) if len(group) > 1 else group[0].digits for group in run.groups]
    plain = "".join(texts)
    # Only recognisers glue: who says "mil e dois" or "5 0 0 1" means just that.
    glued = any(part.written and len(part.digits) >= 3 for group in run.groups for part in group)
    candidates = [plain, *(collapsed(plain) if glued else ())]
    canonical = [str(int(candidate)) for candidate in candidates]
    readable = [candidate for candidate in canonical if len(candidate) <= MAX_DIGITS and candidate != "0"]
    return tuple(dict.fromkeys(readable)) if len(plain) <= MAX_DIGITS + 2 else ()


def collapsed(digits: str) -> tuple[str, ...]:
    """What a number with glued parts was before: ``"5001"`` → ``("501",)``, ``"500201"`` → ``("521",)``.

    The head must be round by at least two places ("vinte e dois" is never written 202, "cento e dois" is
    written 1002).
    """
    found = []
    for cut in range(3, len(digits)):
        head, tail = digits[:cut], digits[cut:]
        zeros = len(head) - len(head.rstrip("0"))
        if zeros < 2 or tail.startswith("0") or head.startswith("0"):
            continue
        tails = [tail] if len(tail) <= zeros else []
        if len(tail) == 3 and tail[1] == "0" and tail[0] != "1" and tail[2] != "0":
            tails.append(tail[0] + tail[2])
        found += [str(int(head) + int(rest)) for rest in tails if len(rest) <= zeros]
    return tuple(dict.fromkeys(found))


# --------------------------------------------------------------------------------------------------------
# Which numbers are apartments
# --------------------------------------------------------------------------------------------------------

_Found = tuple[int, int, Mention]


def _number(sentence: tuple[Word, ...], index: int, taken: set[int]) -> _Found | None:
    """A number that is an apartment: first word, last word, mention."""
    run = _run(sentence, index, taken)
    if run is None:
        return None
    readings = _readings(run)
    if not readings or not _is_apartment(sentence, run):
        return None
    exact = all(part.exact for group in run.groups for part in group)
    start, end = sentence[run.first].start, sentence[run.last].end
    return run.first, run.last, Mention(readings[0], readings[1:], None, start, end, exact)


def _glued(sentence: tuple[Word, ...], index: int) -> _Found | None:
    """``102B`` and ``B102``: a number and its block in one word."""
    word = sentence[index]
    match = _GLUED_LABEL.match(word.text)
    if match is None or not (match[1] or match[3]) or (match[1] and match[3]):
        return None
    digits = str(int(match[2]))
    if len(match[2]) > MAX_DIGITS or digits == "0" or match[3] in {"o", "h"}:
        return None  # 5o is a floor, 15h a time
    block = (match[1] or match[3]).upper()
    alternatives = tuple(str(int(other)) for other in collapsed(digits))
    return index, index, Mention(digits, alternatives, block, word.start, word.end)


def _penthouse(sentence: tuple[Word, ...], index: int, taken: set[int]) -> _Found | None:
    """ "cobertura", "cobertura 2"; "cobertura 1502" may be apartment 1502."""
    if sentence[index].text not in {"cobertura", "cob"}:
        return None
    start = sentence[index].start
    following = index + 1
    if following < len(sentence) and sentence[following].text == "numero":
        following += 1
    run = _run(sentence, following, taken) if following < len(sentence) else None
    readings = _readings(run) if run is not None else ()
    article = run is not None and _lone_article(sentence, run) and not _ends_phrase(sentence, run.last)
    if run is None or not readings or article:
        if sentence[index].text == "cob":
            return None
        return index, index, Mention("cobertura", (), None, start, sentence[index].end)
    alternatives = (*(f"cobertura {other}" for other in readings[1:]), *readings)
    mention = Mention(f"cobertura {readings[0]}", alternatives, None, start, sentence[run.last].end)
    return index, run.last, mention


def is_apartment_word(text: str) -> bool:
    """Whether a folded word means "apartment", misspellings such as "partamento", "apastamento" included."""
    return text in _APARTMENT_WORDS or (len(text) >= 8 and fuzz.ratio(text, "apartamento") >= 80)


def _is_apartment(sentence: tuple[Word, ...], run: _Run) -> bool:
    """Whether a run of number words means an apartment rather than a count, a time or an article."""
    before = sentence[run.first - 1].text if run.first else ""
    if is_apartment_word(before):
        return not _lone_article(sentence, run) or _ends_phrase(sentence, run.last)
    if before in _NOT_APARTMENTS or _is_hyphenated_to_word(sentence, run.first) or _counts(sentence, run):
        return False
    value = sum(len(group[0].digits) for group in run.groups)
    only = len(run.groups) == 1 and len(run.groups[0]) == 1
    if only and not run.groups[0][0].written and run.groups[0][0].value < 10:
        return _small_number_fits(sentence, run, before)
    return value > 0


def _small_number_fits(sentence: tuple[Word, ...], run: _Run, before: str) -> bool:
    """ "no dois." is an apartment; "uma entrega", "são dois" and "meia" are not."""
    text = sentence[run.first].text
    if text in {"um", "uma", "duas", "meia", "zero"} or not _ends_phrase(sentence, run.last):
        return False
    return before in {"no", "do", "ao", "pro"} or len(sentence) == 1


def _lone_article(sentence: tuple[Word, ...], run: _Run) -> bool:
    return run.first == run.last and sentence[run.first].text in {"um", "uma", "meia", "duas"}


def _ends_phrase(sentence: tuple[Word, ...], index: int) -> bool:
    """Whether nothing that a number could belong to follows word ``index``."""
    if index + 1 >= len(sentence):
        return True
    following = sentence[index + 1]
    return following.pause_before or following.text in _CONNECTORS | _BLOCK_WORDS | _AFTER_NUMBER


def _is_hyphenated_to_word(sentence: tuple[Word, ...], index: int) -> bool:
    """``Ando-Ci-1``: the rest of a garbled word, not a number of its own."""
    word = sentence[index]
    before = sentence[index - 1] if index else None
    return before is not None and word.gap == "-" and before.text.isalpha() and len(before.text) > 1


def _counts(sentence: tuple[Word, ...], run: _Run) -> bool:
    """Whether the number counts what follows it: a plural noun directly after it, or an amount of money."""
    if run.last + 1 >= len(sentence):
        return False
    following = sentence[run.last + 1]
    if following.gap.strip():
        return following.gap.strip() == ":" and following.text.isdigit()
    if following.text in _COUNTED:
        return True
    plural = following.text.endswith("s") and len(following.text) > 3
    return plural and following.text not in _PLURAL_BUT_NOT_COUNTED and not following.capitalised


# --------------------------------------------------------------------------------------------------------
# Blocks
# --------------------------------------------------------------------------------------------------------

_Block = tuple[int, int, str]


def _blocks(sentence: tuple[Word, ...]) -> list[_Block]:
    """Every "bloco B", "torre dois", "bl. norte": first word, last word, name."""
    found: list[_Block] = []
    for index, (word, following) in enumerate(pairwise(sentence)):
        if word.text not in _BLOCK_WORDS or following.text in _BLOCK_WORDS:
            continue
        name = _block_name(following, last=index + 2 == len(sentence) or sentence[index + 2].pause_before)
        if name is not None:
            found.append((index, index + 1, name))
    return found


def _block_name(word: Word, *, last: bool) -> str | None:
    if len(word.text) == 1 or (word.text.isdigit() and len(word.text) <= 2):
        return word.text.upper().lstrip("0") or "0"
    if word.text in UNITS or word.text in TEENS:
        return str(NUMBER_WORDS[word.text])
    if word.text in _LETTER_NAMES:
        return _LETTER_NAMES[word.text]
    if word.text == "de":
        return "D" if word.raw.lower() == "dê" or last else None
    if word.text in _CONNECTORS or word.text.isdigit() or len(word.text) < 3:
        return None
    return None if is_apartment_word(word.text) or word.text in NUMBER_WORDS else word.text.upper()


def _with_blocks(sentence: tuple[Word, ...], mentions: list[_Found], blocks: list[_Block]) -> list[Mention]:
    """Give each mention the block that stands beside it."""
    free = list(blocks)
    done = []
    for first, last, mention in mentions:
        beside = next((block for block in free if _beside(sentence, first, last, block)), None)
        if beside is not None:
            free.remove(beside)
            start = min(mention.start, sentence[beside[0]].start)
            end = max(mention.end, sentence[beside[1]].end)
            mention = Mention(mention.number, mention.alternatives, beside[2], start, end, mention.exact)
        elif mention.block is None:
            mention = _with_bare_letter(sentence, first, last, mention)
        done.append(mention)
    return done


def _beside(sentence: tuple[Word, ...], first: int, last: int, block: _Block) -> bool:
    """Whether only small words stand between a number and a block."""
    between = range(last + 1, block[0]) if block[0] > last else range(block[1] + 1, first)
    small = all(sentence[i].text in _CONNECTORS or is_apartment_word(sentence[i].text) for i in between)
    return small and len(between) <= 3


def _with_bare_letter(sentence: tuple[Word, ...], first: int, last: int, mention: Mention) -> Mention:
    """ "102 B", "102-A", "B-102": a single letter is a block where it cannot be an article."""
    if last + 1 < len(sentence):
        letter = sentence[last + 1]
        close = letter.gap == "-" or (letter.gap == " " and _stands_alone(sentence, last + 1))
        if len(letter.text) == 1 and letter.text.isalpha() and close:
            return Mention(
                mention.number,
                mention.alternatives,
                letter.text.upper(),
                mention.start,
                letter.end,
                mention.exact,
            )
    if first:
        letter = sentence[first - 1]
        close = sentence[first].gap == "-" or (sentence[first].gap == " " and letter.text not in "aeo")
        if len(letter.text) == 1 and letter.text.isalpha() and close:
            return Mention(
                mention.number,
                mention.alternatives,
                letter.text.upper(),
                letter.start,
                mention.end,
                mention.exact,
            )
    return mention


def _stands_alone(sentence: tuple[Word, ...], index: int) -> bool:
    """Whether a letter after a number is no article of the next word."""
    if sentence[index].text not in "aeo":
        return True
    return sentence[index].capitalised and (index + 1 == len(sentence) or sentence[index + 1].pause_before)
