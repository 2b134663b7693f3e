"""What a resident's words and keys mean as the answer to "posso liberar a entrada?".

A false CONSENT opens a gate; any other mistake asks once more. So consent has to be spotless, and everything
else is read generously. The sentence is cut into *signs* (:class:`_Sign`), left to right, longest first:

- a *permission* ("pode entrar", "libera", "autorizo", "deixa o rapaz subir"), a *yes* ("sim", "claro", "não
  tem problema"), *may* ("pode" by itself) or *agreement*, which is weaker ("ok", "tá bom");
- *ours*: what we say ourselves and a telephone on loudspeaker gives back ("autoriza a entrada", "entrada
  autorizada"); a consent only behind a yes ("sim, autoriza") or beside a permission;
- a *negation*, which turns the permission it stands before or right behind into a *refusal* ("não pode
  abrir", "libera não"); alone in its clause it is one itself; sayings that refuse ("de jeito nenhum", "fala
  que eu não estou");
- *doubt* ("acho", "talvez", "não sei"), a *question* ("quem", "qual", a question mark), *wait*, *hello*,
  *desk* (leave it at the front desk), *repeat* ("não entendi");
- *taint*: conditions, reports, other times, limits ("se", "ela disse", "amanhã", "só", "mas"), every word
  that this file does not know, small words where they cannot stand ("ão autorizo", "pode entrar com"),
  somebody at home who is spoken to ("entra, menino"), and what else is let go ("libera o meu carro");
- *thanks*, and *statements* ("conheço", "é sim"), which go with a permission but do not make one;
- the rest is *filler*: known words that change nothing ("por favor", "o entregador", "agora").

Then, in this order:

1. No words, noise, or a sentence that recognisers invent in silence: NOTHING.
2. The desk is asked for, and no permission to enter given: DESK.
3. The last decisive sign is a refusal: REFUSAL, unless a question, doubt or wait comes after it.
4. "Não entendi": UNCLEAR. A question anywhere: QUESTION. Wait said last: WAIT.
5. Permission, yes, may or agreement is CONSENT only if none of the above was found at all: no negation left
   over, no refusal, doubt, question, wait, desk or taint. What is less than a permission must stand clear:
   "alô, sim" only answers the telephone, "tá bom, tchau" ends it, "sim, conheço" and "sim, é ela" answer
   something else. So beside a yes or agreement only the lightest fillers are borne ("sim, moço, por favor").
6. Nothing but greetings: HELLO. Everything else: UNCLEAR.

Misspellings: a refusal is also understood when a word of it is only near ("não autorilou", "dejeito
nenhum"), consent never is, with one exception: "pode" with one letter too many, opening the sentence and
directly before its verb ("podre liberar"). No word that refuses, asks or reports is spelt like that, so
nothing but a misheard "pode" can be meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from rapidfuzz import fuzz

from visits.consent_words import (
    AFTER_BARE_MODAL,
    ALLOW_ME,
    ALLOWED,
    ARTICLES,
    BEFORE_KIN,
    CERTAIN,
    CLIPPED,
    COME,
    COMMANDS,
    DOORS,
    ENTER,
    ENTERING,
    FAREWELLS,
    FILLERS,
    HESITATIONS,
    INCOMPLETE,
    INVENTED,
    JOINING,
    KIN,
    LET,
    LIGHT,
    MODALS,
    NASAL,
    NEGATIONS,
    NOISES,
    NOT_LET,
    OPEN,
    OPENING,
    OTHERS,
    OWN,
    PERMISSION_WORDS,
    PHRASES,
    PLACES,
    SELVES,
    SEND,
    TAGS,
    TAINTS,
    THINGS,
    Kind,
)
from visits.words import Word, words


class Reading(StrEnum):
    """What an answer means."""

    CONSENT = "consent"
    REFUSAL = "refusal"
    QUESTION = "question"
    WAIT = "wait"
    HELLO = "hello"
    DESK = "desk"
    """Leave it at the front desk: neither consent to enter nor a plain refusal."""
    UNCLEAR = "unclear"
    NOTHING = "nothing"


def key_reading(digit: str, authorize_key: str = "1", deny_key: str = "2") -> Reading:
    """What a pressed key means: CONSENT, REFUSAL, or UNCLEAR for every other key."""
    if not digit or authorize_key == deny_key:
        return Reading.UNCLEAR
    if digit == authorize_key:
        return Reading.CONSENT
    return Reading.REFUSAL if digit == deny_key else Reading.UNCLEAR


def classify(text: str) -> Reading:
    """What these words mean as the answer to "posso liberar a entrada?". Total: never raises on any text."""
    sentence = words(text)
    if _is_nothing(sentence):
        return Reading.NOTHING
    return _verdict(_Reader(sentence, text[sentence[-1].end :]).signs(), [word.text for word in sentence])


@dataclass(frozen=True, slots=True)
class _Sign:
    """The meaning of words ``first`` to ``last`` (inclusive)."""

    kind: Kind
    first: int
    last: int


_ASSENTS = frozenset({Kind.PERMISSION, Kind.YES, Kind.MAY, Kind.AGREED})
_DENIABLE = _ASSENTS | {Kind.OURS}
_BY_FIRST_WORD: dict[str, list[tuple[tuple[str, ...], Kind]]] = {}
for _kind, _sayings in PHRASES.items():
    for _saying in _sayings:
        _BY_FIRST_WORD.setdefault(_saying[0], []).append((_saying, _kind))
_REFUSING = tuple(
    joined for joined in ("".join(saying) for saying in PHRASES[Kind.REFUSAL]) if len(joined) >= 11
)
"""Sayings that refuse, without spaces, as far as they are long enough to be known by their sound."""


def _is_nothing(sentence: Sequence[Word]) -> bool:
    """No words, noise, thanks and farewells alone, or what recognisers invent in silence."""
    if all(word.text in HESITATIONS | NOISES | FAREWELLS for word in sentence):
        return True
    said = " ".join(word.text for word in sentence)
    return any(fuzz.ratio(said, invented) >= 88 for invented in INVENTED)


# --------------------------------------------------------------------------------------------------------
# Words to signs
# --------------------------------------------------------------------------------------------------------


class _Reader:
    """Reads one sentence into signs; each method tries one construction at one word."""

    def __init__(self, sentence: Sequence[Word], tail: str) -> None:
        self._words = sentence
        self._texts = tuple(word.text for word in sentence)
        self._gaps_after = (*(word.gap for word in sentence[1:]), tail)
        self._signs: list[_Sign] = []

    def signs(self) -> list[_Sign]:
        """All signs in order, negations resolved."""
        index = 0
        clause = 0
        while index < len(self._texts):
            sign = self._sign(index)
            self._signs.append(sign)
            index = sign.last + 1
            if "?" in "".join(self._gaps_after[sign.first : index]):
                self._close_question(clause, sign.last)
            if self._pause_after(sign.last):
                clause = len(self._signs)
        self._signs = [self._mistrusted(position) for position in range(len(self._signs))]
        return self._negated()

    def _sign(self, index: int) -> _Sign:
        for construction in (self._let, self._modal, self._phrase, self._misheard_modal, self._permission):
            sign = construction(index)
            if sign is not None:
                return sign
        return _Sign(self._word_kind(index), index, index)

    # ----- constructions

    def _phrase(self, index: int) -> _Sign | None:
        """The longest known phrase that begins here, not torn apart by a full stop or question mark."""
        found: _Sign | None = None
        for phrase, kind in _BY_FIRST_WORD.get(self._texts[index], ()):
            last = index + len(phrase) - 1
            if self._texts[index : last + 1] != phrase or self._torn(index, last):
                continue
            if found is None or last > found.last:
                found = _Sign(kind, index, last)
        return None if found is None else self._checked(found)

    def _checked(self, sign: _Sign) -> _Sign | None:
        """A phrase in its place: "pois não pode" is no greeting, "tudo bem" after "oi" is one."""
        said = self._texts[sign.first : sign.last + 1]
        previous = self._signs[-1].kind if self._signs else None
        if said == ("pois", "nao") and not self._pause_after(sign.last):
            return _Sign(Kind.FILLER, sign.first, sign.first)
        if said == ("tudo", "bem") and previous is Kind.HELLO:
            return _Sign(Kind.HELLO, sign.first, sign.last)
        if sign.kind is Kind.OURS and not self._ours(sign):
            return None
        if (
            said[:2] == ("que", "e")
            and previous is Kind.PERMISSION
            and self._text(sign.first + 2) in OWN | {"ele", "ela", "o", "a", "para", "pra", "gente"}
        ):
            return _Sign(Kind.FILLER, sign.first, sign.first)
        if said == ("tchau",) and not any(one.kind in _ASSENTS for one in self._signs):
            return _Sign(Kind.STATEMENT, sign.first, sign.last)
        if said == ("autorizou", "sim") and sign.first > 0:
            return _Sign(Kind.TAINT, sign.first, sign.first)
        if said[:3] == ("nao", "tem", "problema") and self._text(sign.last + 1) == "nao":
            spoken_as_one = not self._words[sign.last + 1].pause_before and self._pause_after(sign.last + 1)
            at_end = sign.last + 2 == len(self._texts) and not self._torn(sign.first, sign.last + 1)
            at_end = at_end or spoken_as_one
            return _Sign(sign.kind, sign.first, sign.last + 1) if at_end else sign
        return sign

    def _ours(self, sign: _Sign) -> bool:
        """Whether it may be our own voice: nothing goes on behind our question but its "sim ou não"."""
        if self._texts[sign.first] == "autoriza":
            bare = sign.first == sign.last
            goes_on = {"", "sim", "nao", "ou"} - (
                {"sim"} if bare and not self._pause_after(sign.last) else set()
            )
            return self._begins_clause(sign.first) and self._text(sign.last + 1) in goes_on
        return self._text(sign.first - 1) not in {"ta", "esta"}

    def _modal(self, index: int) -> _Sign | None:
        """ "pode" with what it permits: "pode sim entrar", "pode ir subindo"; "pode" alone is a yes."""
        if self._texts[index] not in MODALS:
            return None
        at = index + 1
        while self._text(at) in {"sim", "ja", "tambem", "ele", "ela"} and not self._torn(index, at):
            at += 1
        verb = self._text(at)
        if self._torn(index, at):
            verb = ""
        if verb in {"ir", "estar"} and self._text(at + 1) in ENTERING | OPENING:
            return self._permits(index, at + 1)
        if verb in ENTER | OPEN | CLIPPED:
            return self._permits(index, at)
        if verb in LET | SEND:
            return self._let(at, opening=index)
        if self._phrase_at(index, "pode ser"):
            return None
        bare = self._pause_after(index) or self._text(index + 1) in AFTER_BARE_MODAL
        bare = bare and self._text(index - 1) not in {"voce", "voces", "gente", "eu"}
        return _Sign(Kind.MAY if bare else Kind.TAINT, index, index)

    def _let(self, index: int, opening: int | None = None) -> _Sign | None:
        """ "deixa o rapaz subir", "pode mandar subir": somebody is let or sent in."""
        text = self._texts[index]
        if text not in LET | SEND or (opening is None and text in {"deixar", "mandar"}):
            return None
        first = index if opening is None else opening
        commands = opening is not None or text == "deixo" or self._begins_clause(index)
        for at in range(index + 1, min(index + 6, len(self._texts))):
            if self._pause_after(at - 1):
                break
            whom = self._texts[index + 1 : at]
            clipped = not whom or whom in {("ele",), ("ela",)}
            if self._texts[at] in ENTER or (self._texts[at] in COME | CLIPPED and clipped):
                return self._permits(first, at) if commands else None
            if not self._may_be_let(at):
                break
        return self._phrase(index) or _Sign(Kind.TAINT, first, index)

    def _may_be_let(self, at: int) -> bool:
        """Whether a word can be (part of) who is let in: not "eu", "quem", "não", nor what is left of it."""
        text = self._texts[at]
        if text in TAINTS | NEGATIONS | NOT_LET:
            return False
        if self._words[at].gap == "-":
            return True  # "deixe-o entrar"
        phrase = self._phrase(at)
        if phrase is not None and phrase.kind is not Kind.FILLER:
            return False
        # "pode deixar de entrar", "deixa ão entrar"; a true article has a noun behind it.
        return not (text in INCOMPLETE | NASAL and self._text(at + 1) in ENTER)

    def _misheard_modal(self, index: int) -> _Sign | None:
        """ "Podre liberar": see the head of the file."""
        text = self._texts[index]
        opens = all(sign.kind is Kind.FILLER for sign in self._signs)
        if not opens or len(text) != 5 or text in {"poder", "podem", "podia"} or len(self._texts) > index + 4:
            return None
        misheard = any(text[:cut] + text[cut + 1 :] == "pode" for cut in range(len(text)))
        if misheard and self._text(index + 1) in ENTER | OPEN and not self._pause_after(index):
            return self._permits(index, index + 1)
        return None

    def _permission(self, index: int) -> _Sign | None:
        """ "autorizo", "liberado", "abre": permission in one word."""
        text = self._texts[index]
        if text in ALLOW_ME | ALLOWED:
            to = index + (2 if self._text(index + 1) in {"ele", "ela"} else 1)
            enters = self._text(to) == "a" and self._text(to + 1) in ENTER and not self._torn(index, to + 1)
            return self._permits(index, to + 1 if enters else index)
        if text in COMMANDS:
            return self._permits(index, index) if self._begins_clause(index) else None
        inside = set(self._texts[index : self._clause_end(index) + 1]) & {
            "para",
            "pra",
            "pro",
            "no",
            "na",
            "em",
        }
        if text in COME and self._begins_clause(index) and self._after_come(index) and not inside:
            return self._permits(index, index)
        return None

    def _permits(self, first: int, last: int) -> _Sign:
        """A permission, unless its object shows that something else is permitted ("pode abrir o pacote")."""
        verb = self._texts[last]
        following = self._text(last + 1) if not self._pause_after(last) else ""
        opens_else = verb.startswith("ab") and following in ARTICLES and self._text(last + 2) not in DOORS
        passes = verb == "passar" and following in ARTICLES | {"para", "pra", "pro"}
        if opens_else or passes or self._lets_go(last) or self._left_to_others(first, verb):
            return _Sign(Kind.TAINT, first, last)
        return _Sign(Kind.PERMISSION, first, last)

    def _lets_go(self, verb: int) -> bool:
        """Whether what is let go is no visitor: "libera o meu carro", "sobe o elevador", "libera eu"."""
        if self._pause_after(verb):
            return False
        text, following = self._texts[verb], self._text(verb + 1)
        if following in SELVES or (following == "a" and self._text(verb + 2) == "mim"):
            return True
        if following in {"pelo", "pela"}:
            return text in ALLOWED
        at = verb + (2 if following in ARTICLES else 1)
        if self._text(at) in OWN:
            return self._text(at + 1) in THINGS
        return (
            text in ENTER | COME | ENTERING and following in ARTICLES and self._text(at) in THINGS - {"carro"}
        )

    def _left_to_others(self, first: int, verb: str) -> bool:
        """ "Meu marido pode autorizar": somebody else may do it; but "é minha mãe pode liberar"."""
        if verb not in OPEN | OPENING | CLIPPED or self._text(first - 1) not in OTHERS:
            return False
        at = first
        while at and not self._words[at].pause_before:
            at -= 1
            if self._texts[at] == "e":
                return False
        return at < first

    def _word_kind(self, index: int) -> Kind:
        """A word that begins no construction."""
        text = self._texts[index]
        if text in NEGATIONS or (text.startswith("nao") and len(text) > 3):
            return Kind.NEGATION
        if text == "que":
            return self._that(index)
        if text in {"no", "na", "nos", "nas"}:
            return Kind.FILLER if self._text(index + 1) in PLACES else Kind.TAINT
        if text in TAINTS or (text in KIN and self._text(index - 1) not in BEFORE_KIN):
            return Kind.TAINT
        if text == "la" and self._text(index - 1) in COMMANDS | OPEN:
            return Kind.FILLER
        if text in FILLERS:
            return Kind.FILLER
        return Kind.TAINT

    def _that(self, index: int) -> Kind:
        """ "claro que pode", "pode subir que eu espero"; otherwise "que" begins somebody's reported words."""
        if self._text(index - 1) in CERTAIN or any(sign.kind is Kind.PERMISSION for sign in self._signs):
            return Kind.FILLER
        if index + 1 == len(self._texts) and "?" in self._gaps_after[index]:
            return Kind.QUESTION
        return Kind.TAINT

    # ----- where words stand

    def _text(self, index: int) -> str:
        return self._texts[index] if 0 <= index < len(self._texts) else ""

    def _pause_after(self, index: int) -> bool:
        return index + 1 >= len(self._texts) or self._words[index + 1].pause_before

    def _torn(self, first: int, last: int) -> bool:
        """Whether a full stop or question mark stands between these words (a comma is only breath)."""
        last = min(last, len(self._texts) - 1)
        return any(mark in self._gaps_after[at] for at in range(first, last) for mark in ".!?…;\n")

    def _clause_end(self, index: int) -> int:
        while not self._pause_after(index):
            index += 1
        return index

    def _phrase_at(self, index: int, phrase: str) -> bool:
        said = tuple(phrase.split())
        return self._texts[index : index + len(said)] == said

    def _begins_clause(self, index: int) -> bool:
        """Whether a verb form is a command here: nobody stands before it who does it ("ela libera")."""
        if index == 0 or self._words[index].pause_before:
            return True
        previous = self._signs[-1] if self._signs else None
        if previous is None or previous.kind in _ASSENTS | {Kind.HELLO, Kind.NEGATION}:
            return True
        openers = {
            "ah",
            "entao",
            "olha",
            "e",
            "ta",
            "isso",
            "uhum",
            "aham",
            "favor",
            "gentileza",
            "ja",
            "bom",
            "eh",
            "oxe",
            "uai",
            "bah",
            "mim",
            "hum",
            "logo",
        }
        return self._texts[index - 1] in openers

    def _after_come(self, index: int) -> bool:
        """ "Entra.", "sobe logo", but not "entre nós"."""
        return self._pause_after(index) or self._text(index + 1) in {
            "ai",
            "logo",
            "sim",
            "por",
            "entao",
            "nao",
            "ja",
            "e",
            "moco",
            "agora",
        }

    # ----- after the walk

    def _mistrusted(self, position: int) -> _Sign:
        """A filler where it cannot be one: it may be what is left of a "não" ("ão autorizo", "libera ão")."""
        sign = self._signs[position]
        if sign.kind is not Kind.FILLER or sign.first != sign.last:
            return sign
        text = self._texts[sign.last]
        if self._pause_after(sign.last):
            wrong = text in INCOMPLETE or (text in JOINING and sign.last + 1 == len(self._texts))
        else:
            before_verb = self._signs[position + 1].kind in _DENIABLE
            before_verb = before_verb or self._texts[sign.last + 1] in {"esta", "ta", "to", "estou", "e"}
            wrong = text in INCOMPLETE | NASAL and before_verb
        return _Sign(Kind.TAINT, sign.first, sign.last) if wrong else sign

    def _close_question(self, clause: int, last: int) -> None:
        """A question mark: the clause asks, unless it only greets or is a tag after a refusal ("tá?")."""
        kinds = {sign.kind for sign in self._signs[clause:]}
        texts = self._texts[self._signs[clause].first : last + 1] if clause < len(self._signs) else ()
        greets = Kind.HELLO in kinds and kinds <= {Kind.HELLO, Kind.FILLER, Kind.YES, Kind.AGREED}
        tag = set(texts) <= TAGS and any(
            sign.kind in {Kind.REFUSAL, Kind.NEGATION} for sign in self._signs[:clause]
        )
        if greets or texts == ("sim",):
            self._signs[clause:] = [_Sign(Kind.HELLO, sign.first, sign.last) for sign in self._signs[clause:]]
        elif tag:
            self._signs[clause:] = [
                _Sign(Kind.FILLER, sign.first, sign.last) for sign in self._signs[clause:]
            ]
        elif Kind.REPEAT not in kinds:
            self._signs.append(_Sign(Kind.QUESTION, last, last))

    def _negated(self) -> list[_Sign]:
        """Each negation joined with what it denies."""
        done: list[_Sign] = []
        position = 0
        while position < len(self._signs):
            sign = self._signs[position]
            if sign.kind is not Kind.NEGATION:
                done.append(sign)
                position += 1
                continue
            denied = self._denied(position)
            if denied is not None:
                done.append(_Sign(Kind.REFUSAL, sign.first, self._signs[denied].last))
                position = denied + 1
                continue
            follows = bool(done) and done[-1].kind in _DENIABLE | {Kind.REFUSAL}
            close = follows and not self._words[sign.first].pause_before
            refuses = self._pause_after(sign.last) or close or self._is_misspelt_refusal(sign.first)
            done.append(_Sign(Kind.REFUSAL if refuses else Kind.NEGATION, sign.first, sign.last))
            position += 1
        if any(sign.kind in {Kind.TAINT, Kind.NEGATION} for sign in done) and self._sounds_like_refusal():
            done.append(_Sign(Kind.REFUSAL, len(self._texts) - 1, len(self._texts) - 1))
        return done

    def _denied(self, position: int) -> int | None:
        """The permission that a negation stands before, with nothing but fillers between and no pause."""
        if self._pause_after(self._signs[position].last):
            return None
        for at in range(position + 1, len(self._signs)):
            if self._signs[at].kind in _DENIABLE:
                return at
            if self._signs[at].kind is not Kind.FILLER or self._pause_after(self._signs[at].last):
                return None
        return None

    def _is_misspelt_refusal(self, index: int) -> bool:
        """ "não autorilou": a negation, then a word near one that permits."""
        if self._texts[index].startswith("nao") and len(self._texts[index]) > 3:
            return _near_permission(self._texts[index][3:])
        for at in range(index + 1, min(index + 4, len(self._texts))):
            if self._words[at].pause_before:
                return False
            if _near_permission(self._texts[at]):
                return True
        return False

    def _sounds_like_refusal(self) -> bool:
        """ "Dejeito nenhum": a saying that refuses, its words run together by the recogniser."""
        joined = "".join(self._texts)
        return any(
            len(joined) >= len(saying) - 1 and fuzz.partial_ratio(saying, joined) >= 92
            for saying in _REFUSING
        )


def _near_permission(text: str) -> bool:
    """Whether a word is "deixa", "autorizo", or one misspelt; short words resemble too much for that."""
    if text in PERMISSION_WORDS:
        return True
    known = (word for word in PERMISSION_WORDS if len(word) >= 6)
    return len(text) >= 6 and any(fuzz.ratio(text, word) >= 75 for word in known)


# --------------------------------------------------------------------------------------------------------
# Signs to a reading
# --------------------------------------------------------------------------------------------------------


def _last(signs: Iterable[_Sign], *kinds: Kind) -> int:
    """Where the last sign of these kinds ends; -1 for none."""
    return max((sign.last for sign in signs if sign.kind in kinds), default=-1)


def _verdict(signs: list[_Sign], texts: Sequence[str]) -> Reading:
    """The rules of the head of the file, in their order."""
    kinds = {sign.kind for sign in signs}
    if Kind.DESK in kinds:
        return Reading.UNCLEAR if Kind.PERMISSION in kinds else Reading.DESK
    refusal = _last(signs, Kind.REFUSAL)
    if refusal >= 0 and refusal >= _last(signs, *_DENIABLE):
        if _last(signs, Kind.QUESTION) > refusal:
            return Reading.QUESTION
        if _last(signs, Kind.WAIT) > refusal:
            return Reading.WAIT
        return Reading.UNCLEAR if _last(signs, Kind.DOUBT, Kind.REPEAT) > refusal else Reading.REFUSAL
    if Kind.REPEAT in kinds:
        return Reading.UNCLEAR
    if Kind.QUESTION in kinds:
        return Reading.QUESTION
    if Kind.WAIT in kinds:
        return Reading.WAIT if _last(signs, Kind.WAIT) > _last(signs, *_ASSENTS) else Reading.UNCLEAR
    if kinds & _ASSENTS:
        return _spotless(signs, texts)
    if Kind.HELLO in kinds and kinds <= {Kind.HELLO, Kind.FILLER}:
        return Reading.HELLO
    return Reading.UNCLEAR


def _spotless(signs: list[_Sign], texts: Sequence[str]) -> Reading:
    """Rule 5: CONSENT if nothing speaks against it and the assent is clear enough for what goes with it."""
    kinds = {sign.kind for sign in signs}
    allowed = {*_ASSENTS, Kind.FILLER}
    if Kind.PERMISSION in kinds:
        allowed |= {Kind.HELLO, Kind.THANKS, Kind.STATEMENT, Kind.OURS}
    elif Kind.MAY in kinds:
        allowed |= {Kind.THANKS, Kind.STATEMENT}
    elif Kind.YES in kinds:
        allowed |= {Kind.THANKS}
    if _ours_behind_yes(signs):
        allowed |= {Kind.OURS}
    light = kinds & {Kind.PERMISSION, Kind.MAY} or all(_is_light(sign, texts) for sign in signs)
    return Reading.CONSENT if kinds <= allowed and light else Reading.UNCLEAR


def _ours_behind_yes(signs: list[_Sign]) -> bool:
    """ "Sim, autoriza a entrada" is an answer; "autoriza a entrada, sim" may be the end of our question."""
    first = min((sign.first for sign in signs if sign.kind is Kind.OURS), default=-1)
    last = _last(signs, Kind.YES, Kind.MAY, Kind.AGREED)
    return 0 <= last < first


def _is_light(sign: _Sign, texts: Sequence[str]) -> bool:
    """Whether a sign is no filler, or one that a mere yes may have with it."""
    said = texts[sign.first : sign.last + 1]
    return sign.kind is not Kind.FILLER or set(said) <= LIGHT or list(said) == ["sem", "duvida"]


__all__ = ["Reading", "classify", "key_reading"]
