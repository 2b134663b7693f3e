"""The visitor's leg: finds out who came, for whom and why, and has the resident called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from providers.local.dialogue.base import (
    Call,
)
from providers.local.dialogue.lexicon import Act
from providers.local.dialogue.phrases import Needs, PhraseBook
from providers.local.dialogue.policy import Policy
from providers.local.dialogue.remembering import NOTHING, Reply, question_heard
from providers.local.dialogue.visitor_memory import (
    APARTMENT,
    ATTENDANT,
    CONFIRM,
    ERRAND,
    NAME,
    RESIDENT,
    VisitorMemory,
)

MARK: Final = "call_resident"
"""The tool by which a session is known to be a visitor's."""

TRANSFER: Final = "transfer_to_attendant"
"""The tool that is only given where a person can take the call over."""

ERRANDS: Final = ("visita", "entrega", "servico")
FACTS: Final = (APARTMENT, RESIDENT, NAME)

MAX_ASKED = 4
"""Times that one thing is asked for before the attendant is offered."""
MAX_OFFERED = 2
"""Times that the attendant is offered to someone who answers neither yes nor no."""
MAX_SILENCES = 3
"""Times that a silent visitor is spoken to in a row."""

_NO_FIELDS: Final = (
    "bom_dia", "boa_tarde", "boa_noite", "ola", "tudo_bem", "certo", "nome_completo",
    "nome_nao_encontrado", "preciso_apartamento", "preciso_morador", "preciso_nome", "por_que",
    "so_morador", "sem_problema", "nao_entendi", "nao_entendi_2", "repetir", "pode_falar", "espero",
    "ainda_ai", "ainda_ai_2", "um_momento", "chamando", "chamando_2", "falando", "falando_2",
    "nao_localizei", "sem_apartamento", "sem_dados", "falha", "falha_chamada", "sem_atendente",
)  # fmt: skip
_QUESTIONS: Final = tuple(
    f"perguntar_{fact}{again}"
    for fact in (ERRAND, APARTMENT, NAME, *(f"{RESIDENT}_{errand}" for errand in ERRANDS))
    for again in ("", "_2")
)
PHRASES: Final[Mapping[str, frozenset[str]]] = {
    **dict.fromkeys((*_NO_FIELDS, *_QUESTIONS), frozenset()),
    "certo_nome": frozenset({"nome"}),
    "certo_apartamento": frozenset({"apartamento"}),
    "confirmar_apartamento": frozenset({"apartamento"}),
    "apartamento_nao_encontrado": frozenset({"apartamento"}),
    "apartamento_ambiguo": frozenset({"opcoes"}),
}
"""Every phrase that this leg needs, with the fields that are filled in it."""


class VisitorPolicy(Policy[VisitorMemory]):
    """What is said and called on a visitor's leg; a pure function of the history."""

    def __init__(self, book: PhraseBook, needs: Mapping[str, Needs], *, attendant: bool) -> None:
        """`attendant`: there may be one; without, the phrases offer none."""
        self._say = book.say
        self._needs = needs
        self._attendant = attendant

    def _blank(self) -> VisitorMemory:
        return VisitorMemory(no_attendant="" if self._attendant else "told")

    def _said(self, memory: VisitorMemory, reply: Reply, heard: str) -> None:
        memory.said(reply, question_heard(heard, reply))

    # ---- what comes next ---------------------------------------------------------------------------------

    def _decide(self, memory: VisitorMemory) -> Reply:
        if memory.over:
            return NOTHING
        return (
            self._obey(memory)
            or (self._while_calling(memory) if memory.dialing else None)
            or self._wait_for_answer(memory)
            or self._without_attendant(memory)
            or self._after_offer(memory)
            or self._stuck(memory)
            or self._look_up(memory)
            or self._report(memory)
            or self._collect(memory)
            or self._call_resident(memory)
        )

    def _obey(self, memory: VisitorMemory) -> Reply | None:
        """Giving up and asking for a person are obeyed at once, whatever else is going on."""
        turn = memory.turn
        if turn is None or turn.done or turn.answered_by_host:
            return None
        if Act.ATTENDANT in turn.heard.acts and Act.NO not in turn.heard.acts:
            return self._transfer(memory, "visitor_asked") if not memory.no_attendant else None
        if Act.CANCEL in turn.heard.acts:
            return self._end(memory, "visitor_gave_up")
        return None

    def _while_calling(self, memory: VisitorMemory) -> Reply:
        """The apartment is being called or spoken to: say so, and only if the visitor said something."""
        turn = memory.turn
        if memory.no_attendant == "news":
            return Reply(self._say("sem_atendente"), kind="wait")
        if turn is None or not turn.heard.plain or Act.THANKS in turn.heard.acts or turn.answered_by_host:
            return NOTHING
        if not turn.asked_status:
            return Reply(calls=(Call("visit_status", {}),))
        again = "" if memory.waits % 2 == 0 else "_2"
        if memory.status in ("dialing", "error"):
            return Reply(self._say(f"chamando{again}"), kind="wait")
        if memory.status == "consulting":
            return Reply(self._say(f"falando{again}"), kind="wait")
        return NOTHING  # no answer yet, or the visit is ending: the host has the word

    def _wait_for_answer(self, memory: VisitorMemory) -> Reply | None:
        if not memory.pending:
            return None
        if memory.turn is None or memory.turn.acted:
            return NOTHING
        return Reply(self._say("um_momento"), kind="pending")

    # ---- a person instead of us --------------------------------------------------------------------------

    def _without_attendant(self, memory: VisitorMemory) -> Reply | None:
        """A transfer failed: say so; go on where that helps, else end."""
        if memory.no_attendant != "news":
            return None
        sorry = self._say("sem_atendente")
        if memory.exhausted or memory.stuck or memory.question == ATTENDANT:
            return Reply(sorry, calls=self._end(memory, "no_attendant").calls)
        fact = self._missing(memory)
        return Reply(sorry) if fact is None else self._joined(sorry, self._question(memory, fact), fact)

    def _after_offer(self, memory: VisitorMemory) -> Reply | None:
        """The attendant was offered; what was said to that?"""
        if memory.question != ATTENDANT:
            return None
        turn = memory.turn
        if turn is None:
            return self._end(memory, "silence") if memory.idle else None
        if turn.done:
            return NOTHING
        if turn.learned and not memory.exhausted:
            return None
        acts = turn.heard.acts
        if Act.YES in acts or Act.ATTENDANT in acts:
            return self._transfer(memory, "offer_accepted")
        if Act.NO in acts or Act.THANKS in acts or memory.asked[ATTENDANT] >= MAX_OFFERED:
            return self._end(memory, "offer_declined")
        return self._offer(memory, memory.offered or memory.stuck or "sem_dados")

    def _stuck(self, memory: VisitorMemory) -> Reply | None:
        if memory.exhausted:
            return self._offer(memory, "nao_localizei")
        return self._offer(memory, memory.stuck) if memory.stuck else None

    def _offer(self, memory: VisitorMemory, phrase: str) -> Reply:
        """Offer the attendant; where there is none, say why we can't go on, unless that was said."""
        if memory.no_attendant:
            end = self._end(memory, "no_attendant")
            return end if self._attendant else Reply(self._say(phrase), calls=end.calls)
        return Reply(self._say(phrase), asks=ATTENDANT, kind=phrase)

    def _transfer(self, memory: VisitorMemory, reason: str) -> Reply:
        """Hand over to a person; the host says so."""
        return self._leave(memory, TRANSFER, reason)

    def _end(self, memory: VisitorMemory, reason: str) -> Reply:
        """Hang up; the host says the goodbye."""
        return self._leave(memory, "end_call", reason)

    def _leave(self, memory: VisitorMemory, tool: str, reason: str) -> Reply:
        running = any(made.name == tool for made in memory.pending.values())
        return NOTHING if running or memory.failed(tool) else Reply(calls=(Call(tool, {"reason": reason}),))

    # ---- the facts ---------------------------------------------------------------------------------------

    def _look_up(self, memory: VisitorMemory) -> Reply | None:
        """Check what is known as soon as it is known."""
        if memory.spoken is not None and not memory.lookup:
            return Reply(calls=(Call("lookup_apartment", {"apartment": memory.spoken.spoken}),))
        if memory.apartment and memory.resident and not memory.validation:
            given = {"apartment": memory.apartment, "name": memory.resident}
            return Reply(calls=(Call("validate_resident", given),))
        return None

    def _report(self, memory: VisitorMemory) -> Reply | None:
        """Tell what the directory did not know, once."""
        if "lookup" not in memory.told and memory.spoken is not None:
            if memory.lookup == "not_found":
                label = memory.spoken.label
                text = self._say("apartamento_nao_encontrado", apartamento=label)
                return Reply(text, asks=APARTMENT)
            if memory.lookup == "ambiguous" and memory.candidates:
                options = _listed(memory.candidates)
                return Reply(self._say("apartamento_ambiguo", opcoes=options), asks=APARTMENT)
        if "validation" not in memory.told:
            if memory.validation == "no_match":
                return Reply(self._say("nome_nao_encontrado"), asks=RESIDENT)
            if memory.validation == "ambiguous":
                return Reply(self._say("nome_completo"), asks=RESIDENT)
        return None

    def _collect(self, memory: VisitorMemory) -> Reply | None:
        """Ask for the next thing that is missing."""
        fact = self._missing(memory)
        if fact is None:
            return None
        if memory.turn is None and memory.idle and memory.silences >= MAX_SILENCES:
            return self._end(memory, "silence")
        unsure = memory.turn.unsure if memory.turn is not None else ""
        if unsure == APARTMENT and memory.lookup != "found":
            fact = APARTMENT  # nothing else is of use without it
        required = fact not in self._optional(memory)
        if memory.asked[fact] >= MAX_ASKED or (required and memory.unknown_to_visitor[fact] >= 2):
            return self._offer(memory, "sem_apartamento" if fact in (APARTMENT, CONFIRM) else "sem_dados")
        if required and unsure == fact:
            return Reply(self._say(f"preciso_{fact}"), asks=fact)
        return self._ask(memory, fact)

    def _missing(self, memory: VisitorMemory) -> str | None:
        """The next fact to ask for; None when the resident can be called."""
        if not memory.errand:
            return ERRAND
        needs = self._needs[memory.errand]
        known = {
            APARTMENT: memory.lookup == "found",
            RESIDENT: bool(memory.resident) and memory.validation == "match",
            NAME: bool(memory.name),
        }
        required = [*needs.required, *sorted(memory.needed)]
        if APARTMENT not in required:
            required.insert(0, APARTMENT)
        if memory.resident:
            required.append(RESIDENT)  # a name that was given must be right
        asked_for = [fact for fact in needs.optional if not self._given_up(memory, fact)]
        missing = next((fact for fact in (*required, *asked_for) if not known[fact]), None)
        doubtful = not memory.confirmed and memory.validation != "match"
        return CONFIRM if missing is None and doubtful else missing

    def _optional(self, memory: VisitorMemory) -> tuple[str, ...]:
        """What the visitor may leave unsaid."""
        if not memory.errand:
            return ()
        forced = memory.needed | ({RESIDENT} if memory.resident else set())
        return tuple(fact for fact in self._needs[memory.errand].optional if fact not in forced)

    def _given_up(self, memory: VisitorMemory, fact: str) -> bool:
        silent = memory.turn is None and memory.idle and memory.silences >= 1
        return fact in memory.waived or memory.asked[fact] >= 2 or silent

    def _call_resident(self, memory: VisitorMemory) -> Reply:
        facts = {
            "apartment": memory.apartment,
            "intent": memory.errand,
            "visitor_name": memory.name,
            "resident_name": memory.resident,
            "company": memory.firm,
        }
        return Reply(calls=(Call("call_resident", facts),))

    # ---- asking ------------------------------------------------------------------------------------------

    def _ask(self, memory: VisitorMemory, fact: str) -> Reply:
        """A word on what was said, then the question."""
        turn = memory.turn
        acts = turn.heard.acts if turn is not None else frozenset()
        if turn is not None and not turn.learned and Act.GATE not in acts:
            if Act.SPEAK in acts:
                return Reply(self._say("pode_falar"), asks=memory.question, counts=False)
            if Act.WAIT in acts:
                return Reply(self._say("espero"), asks=memory.question, counts=False)
        again = Act.REPEAT in acts and not (turn is not None and turn.learned)
        prefix, kind = self._reaction(memory)
        reply = self._joined(prefix, self._question(memory, fact, repeated=again), fact)
        return Reply(reply.text, asks=fact, question_at=reply.question_at, counts=not again, kind=kind)

    def _question(self, memory: VisitorMemory, fact: str, *, repeated: bool = False) -> str:
        """The question for a fact; in other words where it was asked before, unless it is to be repeated."""
        if fact == CONFIRM:
            return self._say("confirmar_apartamento", apartamento=memory.apartment)
        key = f"perguntar_{fact}"
        if fact == RESIDENT:
            key += f"_{memory.errand}"
        times = memory.asked[fact] - repeated
        return self._say(key if times <= 0 or times % 2 == 0 else f"{key}_2")

    def _joined(self, prefix: str, question: str, fact: str) -> Reply:
        text = f"{prefix} {question}" if prefix else question
        return Reply(text, asks=fact, question_at=len(text) - len(question))

    def _reaction(self, memory: VisitorMemory) -> tuple[str, str]:
        """What is said before the question, and what kind of reply that makes it."""
        turn = memory.turn
        if turn is None:
            silent = self._say("ainda_ai" if memory.silences % 2 == 0 else "ainda_ai_2")
            return (silent, "silence") if memory.idle else ("", "")
        if Act.GATE in turn.heard.acts:
            return self._say("so_morador"), ""
        if Act.ATTENDANT in turn.heard.acts and memory.no_attendant:
            return self._say("sem_atendente"), ""
        return self._acknowledged(memory, turn.learned) if turn.learned else self._without_facts(memory)

    def _acknowledged(self, memory: VisitorMemory, learned: set[str]) -> tuple[str, str]:
        """Confirm in passing."""
        found = APARTMENT in learned and memory.apartment
        heard_otherwise = memory.spoken is not None and memory.spoken.label != memory.apartment
        if found and (NAME not in learned or heard_otherwise):
            return self._say("certo_apartamento", apartamento=memory.apartment), "acked_apartment"
        if NAME in learned:
            return self._say("certo_nome", nome=memory.name.split()[0]), ""
        return self._say("certo"), ""

    def _without_facts(self, memory: VisitorMemory) -> tuple[str, str]:
        """Answer a sentence that held no fact."""
        assert memory.turn is not None
        heard = memory.turn.heard
        if memory.turn.unsure:
            return self._say("sem_problema"), ""
        simple = (
            (Act.REPEAT, "repetir"),
            (Act.WHY, "por_que"),
            (Act.GREETING, heard.greeting),
            (Act.YES, "certo"),
            (Act.THANKS, "certo"),
        )
        key = next((key for act, key in simple if act in heard.acts), "")
        if key:
            return self._say(key), ""
        return self._say("nao_entendi" if memory.misheard % 2 == 0 else "nao_entendi_2"), "misheard"


def _listed(options: tuple[str, ...]) -> str:
    """ "102 bloco A, 102 bloco B ou 102 bloco C"."""
    *first, last = options
    return f"{', '.join(first)} ou {last}" if first else last
