"""What a visitor's conversation has come to: facts, results and what was asked, folded from the history.

Nothing here decides what to say; that is ``visitor.py``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from providers.local.dialogue.base import CallMade
from providers.local.dialogue.hearing import Apartment, Heard, understand
from providers.local.dialogue.lexicon import Act
from providers.local.dialogue.remembering import CALL_TRIES, Reply, answered, arguments, text_of
from visits.words import fold

ERRAND: Final = "motivo"
APARTMENT: Final = "apartamento"
RESIDENT: Final = "morador"
NAME: Final = "nome"
CONFIRM: Final = "confirmar"
ATTENDANT: Final = "atendente"

_BARE_COPULA = re.compile(r"^(?:nao )?(?:e|eh|foi) (?:o |a |do |da )?")
_SEEKS = re.compile(
    r"\b(?:para|pra|pro|com|visitar|visita|ver|procur\w+|cham\w+|pediu|mandou|autoriz\w+|de|do|da|foi)\b"
)
_INTRODUCES = re.compile(
    r"^(?:(?:oi|ola|alo|opa|bom dia|boa tarde|boa noite|tudo bem|aqui) )*(?:e|eh) (?:o |a )?([\w ]+)$"
)
_HOST_ASKS: Final = (
    (ATTENDANT, re.compile(r"atendente")),
    (NAME, re.compile(r"\bseu nome\b|como (?:voce )?se chama")),
    (RESIDENT, re.compile(r"nome|para quem|quem")),
    (APARTMENT, re.compile(r"apartamento|numero")),
    (ERRAND, re.compile(r"visita|entrega|servico|posso ajudar")),
)
"""What words that are not ours ask for (the host's, or another model's before us)."""


@dataclass(slots=True)
class Turn:
    """What the visitor said since we last answered."""

    heard: Heard
    learned: set[str]
    unsure: str = ""
    """The fact that the visitor says not to know."""
    acted: bool = False
    """A call was made upon it."""
    done: bool = False
    """What it orders (an end, a transfer) was carried out."""
    asked_status: bool = False
    answered_by_host: bool = False


@dataclass(slots=True)
class VisitorMemory:
    """All that was understood, said and called on one visitor's leg."""

    errand: str = ""
    name: str = ""
    resident: str = ""
    firm: str = ""
    spoken: Apartment | None = None
    """The apartment as it was last said."""
    apartment: str = ""
    """The apartment that the directory found for it."""
    lookup: str = ""
    """Result for `spoken`: empty until there is one."""
    candidates: tuple[str, ...] = ()
    validation: str = ""
    """Result for `apartment` and `resident`."""
    confirmed: bool = False
    needed: set[str] = field(default_factory=set)
    """Facts that the host demanded beyond the prompt's rules."""
    waived: set[str] = field(default_factory=set)
    unknown_to_visitor: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    """Errors of each tool in a row, since the visitor last spoke."""
    pending: dict[str, CallMade] = field(default_factory=dict)
    turn: Turn | None = None
    question: str = ""
    """What the visitor was last asked, and heard."""
    told_apartment: bool = False
    """Our last words named the apartment."""
    told: set[str] = field(default_factory=set)
    """Results (``lookup``, ``validation``) that the visitor was told of."""
    dialing: bool = False
    status: str = ""
    """Result of the last `visit_status`, until it was spoken of."""
    exhausted: bool = False
    stuck: str = ""
    """Key of the phrase that says why we can't go on without a person."""
    offered: str = ""
    """Key of the phrase by which the attendant was last offered."""
    no_attendant: str = ""
    """``news`` once a transfer failed; ``told`` once the visitor knows."""
    over: bool = False
    idle: bool = False
    """It was the visitor's turn, and they said nothing."""
    silences: int = 0
    misheard: int = 0
    waits: int = 0
    pending_waits: int = 0

    # ---- the visitor speaks ------------------------------------------------------------------------------

    def hear(self, text: str) -> None:
        """Take in what the visitor said."""
        heard = understand(text)
        if self.question in (NAME, RESIDENT):
            heard = _as_answer(heard, self.question)
        else:
            heard = _as_introduction(heard)
        before = self.turn
        if not heard.plain and before is not None and not before.answered_by_host:
            return  # a cough after the words: the words still stand
        self.silences = 0
        self.idle = False
        self.failures.clear()
        learned: set[str] = set() if before is None else set(before.learned)
        if not self.dialing:
            learned |= self._learn(heard)
            learned |= self._second_thoughts(heard, learned)
        if learned and not self.exhausted:
            self.stuck = ""
        self.turn = Turn(heard, learned, self._unsure(heard, learned))

    def _learn(self, heard: Heard) -> set[str]:
        """Take the facts over; later words replace earlier ones."""
        learned = set()
        if self._takes_errand(heard):
            learned.add(ERRAND)
        if heard.firm:
            self.firm = heard.firm
            learned.add("empresa")
        if heard.own_name:
            self.name = heard.own_name
            learned.add(NAME)
        sought = heard.sought or self._addressee(heard)
        if sought and self._takes_resident(heard):
            self._seek(sought)
            learned.add(RESIDENT)
        apartment = heard.apartment or self._candidate(heard.plain)
        if apartment is not None:
            learned.add(APARTMENT if self._go_to(apartment) else "again")
        return learned

    def _takes_errand(self, heard: Heard) -> bool:
        errand = heard.errand or (heard.hint if not self.errand or self.question == ERRAND else "")
        if not errand:
            return False
        self.errand = errand
        return True

    def _addressee(self, heard: Heard) -> str:
        """ "Entrega, Renata Oliveira, 501": a name in a delivery that nothing explains is the addressee's."""
        told = heard.errand or heard.apartment
        return heard.loose if heard.loose and told and self.errand == "entrega" else ""

    def _takes_resident(self, heard: Heard) -> bool:
        """Whoever claims that somebody allowed it names at most whom to ask, and only if none was named."""
        return Act.GATE not in heard.acts or not self.resident

    def _seek(self, resident: str) -> None:
        if resident != self.resident or self.validation not in ("", "match"):
            self.resident = resident
            self.validation = ""
            self.told.discard("validation")

    def _go_to(self, apartment: Apartment) -> bool:
        """Take an apartment over; False where it is the one that was found already."""
        if self.lookup == "found" and apartment.spoken in (
            self.apartment,
            self.spoken and self.spoken.spoken,
        ):
            return False
        self.spoken = apartment
        self.apartment = self.lookup = ""
        self.candidates = ()
        self.confirmed = apartment.sure
        self.told.discard("lookup")
        self._unvalidate()
        return True

    def _unvalidate(self) -> None:
        self.validation = ""
        self.told.discard("validation")

    def _candidate(self, plain: str) -> Apartment | None:
        """The one of several apartments whose own words ("bloco B") were said, or that was counted off."""
        if self.lookup != "ambiguous" or not self.candidates:
            return None
        said = set(plain.split())
        parts = [set(fold(candidate).split()) for candidate in self.candidates]
        common = set.intersection(*parts)
        fitting = [
            c for c, p in zip(self.candidates, parts, strict=True) if p - common and p - common <= said
        ]
        counted = [
            candidate
            for candidate, word in zip(self.candidates, ("primeiro", "segundo", "terceiro"), strict=False)
            if word in said
        ]
        chosen = fitting or counted
        return Apartment(chosen[0], True, chosen[0]) if len(chosen) == 1 else None

    def _second_thoughts(self, heard: Heard, learned: set[str]) -> set[str]:
        """What yes, no and "errado" do to the apartment."""
        asked = self.question == CONFIRM
        if asked and Act.YES in heard.acts:
            self.confirmed = True
            return {CONFIRM}
        rejected = asked and (Act.NO in heard.acts or Act.WRONG in heard.acts)
        corrected = self.told_apartment and Act.WRONG in heard.acts
        if APARTMENT in learned or not (rejected or corrected):
            return set()
        self.spoken, self.apartment, self.lookup = None, "", ""
        self._unvalidate()
        return {"correction"}

    def _unsure(self, heard: Heard, learned: set[str]) -> str:
        """The fact that the visitor does not know (or will not say), counted."""
        if self.dialing:
            return ""
        declined = Act.NO in heard.acts and self.question in (NAME, RESIDENT)
        topic = (_topic(heard.plain) or self.question) if Act.DONT_KNOW in heard.acts or declined else ""
        if topic not in (APARTMENT, RESIDENT, NAME) or topic in learned:
            return ""
        self.unknown_to_visitor[topic] += 1
        self.waived.add(topic)
        return topic

    # ---- our calls ---------------------------------------------------------------------------------------

    def call(self, made: CallMade) -> None:
        """A call of ours went out."""
        self.pending[made.call_id] = made
        if self.turn is None:
            return
        self.turn.acted = True
        if made.name in ("end_call", "transfer_to_attendant"):
            self.turn.done = True
        elif made.name == "visit_status":
            self.turn.asked_status = True
        elif made.name == "call_resident":
            self.turn = None

    def answer(self, call_id: str, output: str) -> None:
        """A call of ours was answered. An answer to a call that we don't know is nobody's."""
        made = self.pending.pop(call_id, None)
        if made is None:
            return
        self.idle = False
        result = answered(output)
        status = text_of(result, "status")
        take = {
            "lookup_apartment": self._looked_up,
            "validate_resident": self._validated,
            "call_resident": self._called,
            "visit_status": self._status,
            "transfer_to_attendant": self._transferred,
            "end_call": self._ended,
        }.get(made.name)
        if take is not None:
            take(made, result, status)

    def failed(self, tool: str) -> bool:
        """Whether a tool failed too often to be called again now."""
        return self.failures[tool] >= CALL_TRIES

    def _looked_up(self, made: CallMade, result: Mapping[str, Any], status: str) -> None:
        if self.spoken is None or text_of(arguments(made), "apartment") != self.spoken.spoken:
            return  # the visitor has corrected themselves meanwhile
        found = text_of(result, "apartment")
        if status == "found" and found:
            self.lookup, self.apartment = "found", found
        elif status in ("not_found", "exhausted"):
            self._lookup_failed(status)
        elif status == "ambiguous":
            names = result.get("candidates")
            self.lookup = "ambiguous"
            self.candidates = tuple(str(name) for name in names) if isinstance(names, list) else ()
        else:
            self._fail("lookup_apartment")

    def _lookup_failed(self, status: str) -> None:
        self.lookup = "not_found"
        self.exhausted |= status == "exhausted"

    def _validated(self, made: CallMade, _: Mapping[str, Any], status: str) -> None:
        given = arguments(made)
        if (text_of(given, "apartment"), text_of(given, "name")) != (self.apartment, self.resident):
            return
        if status in ("match", "no_match", "ambiguous"):
            self.validation = status
        elif status == "exhausted":
            self.validation = "no_match"
            self.exhausted = True
        else:
            self._fail("validate_resident")

    def _called(self, _: CallMade, result: Mapping[str, Any], status: str) -> None:
        if status in ("dialing", "already_dialing"):
            self.dialing = True
            return
        if status != "refused":
            self._fail("call_resident")
            return
        match text_of(result, "reason"):
            case "exhausted":
                self.exhausted = True
            case "apartment_unknown" | "not_found":
                self._lookup_failed("not_found")
                self.told.discard("lookup")
            case "resident_not_validated":
                self.validation = "no_match" if self.resident else ""
                self.told.discard("validation")
                self.needed.add(RESIDENT)
            case "resident_name_required" if not self.resident:
                self.needed.add(RESIDENT)
            case "visitor_name_required" if not self.name:
                self.needed.add(NAME)
            case "intent_unknown":
                self.errand = ""
            case _:
                self.failures["call_resident"] = CALL_TRIES
                self.stuck = "falha_chamada"

    def _status(self, _made: CallMade, _result: Mapping[str, Any], status: str) -> None:
        self.status = status or "error"

    def _transferred(self, _made: CallMade, _result: Mapping[str, Any], status: str) -> None:
        if status == "transferring":
            self.over = True
        else:
            self.no_attendant = "news"

    def _ended(self, _made: CallMade, _result: Mapping[str, Any], status: str) -> None:
        if status == "ending":
            self.over = True
        else:
            self._fail("end_call")

    def _fail(self, tool: str) -> None:
        self.failures[tool] += 1
        if tool != "end_call" and self.failed(tool):
            self.stuck = "falha_chamada" if tool == "call_resident" else "falha"

    # ---- our words ---------------------------------------------------------------------------------------

    def said(self, reply: Reply, question_heard: bool) -> None:
        """The visitor heard a reply of ours, or enough of it to speak over it."""
        if self.turn is None:
            self.silences += 1
        if reply.kind == "pending":
            self._wait_for_answers()
        self.misheard = self.misheard + 1 if reply.kind == "misheard" else 0
        self.waits += reply.kind == "wait"
        self.told_apartment = reply.kind == "acked_apartment"
        if self.lookup in ("not_found", "ambiguous"):
            self.told.add("lookup")
        if self.validation in ("no_match", "ambiguous"):
            self.told.add("validation")
        if self.no_attendant:
            self.no_attendant = "told"
        self.status = ""
        self.turn = None
        self.idle = True
        if reply.asks and question_heard:
            self.question = reply.asks
            self.offered = reply.kind if reply.asks == ATTENDANT else ""
            self.asked[reply.asks] += reply.counts

    def _wait_for_answers(self) -> None:
        """An answer that two replies have waited for will not come: the call counts as failed."""
        self.pending_waits += 1
        if self.pending_waits < CALL_TRIES:
            return
        self.pending_waits = 0
        for made in self.pending.values():
            self._fail(made.name)
        self.pending.clear()

    def host_said(self, text: str) -> None:
        """Words went out that are not ours: the host's own sentences."""
        if self.turn is None:
            self.idle = True
        else:
            self.turn.answered_by_host = True
        if "?" in text:
            plain = fold(text)
            self.question = next(
                (asks for asks, pattern in _HOST_ASKS if pattern.search(plain)), self.question
            )

    def silence(self) -> None:
        """The host noted that the visitor says nothing."""
        self.turn = None
        self.idle = True


def _topic(plain: str) -> str:
    """What a "não sei" is about, where it says so."""
    if re.search(r"\b(?:numero|apartamento|apto)\b", plain):
        return APARTMENT
    if re.search(r"\b(?:nome|quem|morador\w*|destinatari[oa])\b", plain):
        return RESIDENT
    return ""


def _as_answer(heard: Heard, question: str) -> Heard:
    """A bare name is an answer to what was asked: "Pedro da Silva", "É a Renata"."""
    name = heard.loose or _after_copula(heard, question)
    if not name and question == NAME and heard.sought and not _SEEKS.search(heard.plain):
        name = heard.sought  # "Sou eu, o Paulo."
    if not name:
        return heard
    if question == NAME:
        sought = "" if heard.sought == name else heard.sought
        return replace(heard, own_name=name, sought=sought, loose="")
    own = "" if heard.own_name == name else heard.own_name
    return replace(heard, sought=name, own_name=own, loose="")


def _as_introduction(heard: Heard) -> Heard:
    """ "Oi, é o Marcos." names the visitor, where nobody was asked for."""
    name = heard.loose or heard.sought
    introduced = _INTRODUCES.match(heard.plain)
    if not name or heard.own_name or introduced is None or introduced[1] != fold(name):
        return heard
    return replace(heard, own_name=name, sought="", loose="")


def _after_copula(heard: Heard, question: str) -> str:
    """The name in "é o Pedro", which by itself may be whoever was asked for."""
    copula = _BARE_COPULA.match(heard.plain)
    if copula is None or (question == NAME and "foi" in copula[0]):
        return ""
    rest = heard.plain[copula.end() :]
    return next((name for name in (heard.own_name, heard.sought) if name and rest.startswith(fold(name))), "")
