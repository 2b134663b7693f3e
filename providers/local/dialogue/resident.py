"""The resident's leg: understands yes, no and questions, and asks until one of the first two is clear."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from providers.local.dialogue.base import (
    Call,
    CallMade,
)
from providers.local.dialogue.phrases import PhraseBook
from providers.local.dialogue.policy import Policy
from providers.local.dialogue.remembering import (
    CALL_TRIES,
    NOTHING,
    Reply,
    answered,
    text_of,
)
from visits.consent import Reading, classify
from visits.facts import clean_sentence
from visits.words import fold, words

MARK: Final = "authorize_entry"
"""The tool by which a session is known to be a resident's."""

MAX_SILENCES = 4
"""From here on a silent resident is left to the host, which gives up by its own clock."""

_ERRANDS: Final = ("visita", "entrega", "servico")
_WHO: Final = {
    f"quem_{errand}{suffix}": frozenset({"destino", *fields})
    for errand in _ERRANDS
    for suffix, fields in {
        "": (),
        "_nome": ("visitante",),
        "_empresa": ("empresa",),
        "_nome_empresa": ("visitante", "empresa"),
    }.items()
}
PHRASES: Final[Mapping[str, frozenset[str]]] = {
    **_WHO,
    **dict.fromkeys(
        (
            *("aqui_e", "sem_resposta", "sem_conexao", "espero", "portaria", "nao_entendi", "nao_entendi_2"),
            *("autoriza", "duvida", "silencio", "silencio_2", "falha"),
        ),
        frozenset(),
    ),
    "destino": frozenset({"apartamento"}),
    "destino_morador": frozenset({"morador", "apartamento"}),
    "da_empresa": frozenset({"empresa"}),
    "qual_e": frozenset({"coisa"}),
}
"""Every phrase that this leg needs, with the fields that are filled in it."""


_THEM: Final = (
    r"(?:el[ea]s?|quem (?:esta|ta)|(?:[oa]s? |ess[ea] |est[ea] )?(?:entregador\w*|motoboy|rapaz|moc[oa]"
    r"|menin[oa]|garot[oa]|visitante|visita|pessoa|pessoal|homem|cara|senhor\w*|tecnic[oa]|prestador\w*|motorista|carteiro"
    r"|instalador\w*|encanador\w*|eletricista))"
)
"""The visitor, as a resident speaks of them; nobody of the house is among these."""
_MAY_I: Final = (
    r"(?:(?:me )?deix(?:a|e|ar)(?: eu| me)?|(?:eu )?(?:quero|queria|preciso|prefiro|posso|podia|poderia)"
    r"|(?:eu )?gostaria de|da (?:pra|para)(?: eu)?|tem como(?: eu)?)"
)
_PUT: Final = r"(?:conect[ae]|pass[ae]|transfere|transfira|coloc[ae]|coloque|bot[ae]|poe|ponha)"


class Ask:
    """What a resident's sentence asks for, beside yes and no."""

    WHO: Final = re.compile(
        r"\bquem\b(?! (?:mandou|enviou|pediu|vai|autorizou))|\b(?:qual|que) apartamento\b|\bpara onde\b"
        r"|\b(?:do )?que se trata\b|\be (?:o )?que\b$|^(?:o )?que e(?: isso)?$|\bqual (?:e )?o motivo\b"
        r"|^(?:oi |alo )?que (?:esta|ta) ai$"
    )
    """Also "Que é?" and "Que está aí?", as recognisers write "Quem é?" and "Quem está aí?"."""
    WHO_SPEAKS: Final = re.compile(r"\bquem (?:que )?(?:fala|falando|ta falando|esta falando)\b")
    FIRM: Final = re.compile(
        r"\b(?:que|qual)(?: e)?(?: a| o)? (?:empresa|loja|firma|companhia)\b|\b(?:de|da) onde\b"
    )
    AGAIN: Final = re.compile(
        r"\bnao (?:entendi|ouvi|escutei)\b|\brepet(?:e|ir|iu|a)\b|\bfal[ae]r? de novo\b"
        r"|^(?:o que|como|hein|oi como)$"
    )
    PASS_ON: Final = re.compile(r"^(?:\w+ ){0,2}?pergunt(?:a|e|ar)\b")
    TALK: Final = re.compile(
        rf"(?<!nao )(?<!nem )\b(?:{_MAY_I} (?:falar|conversar) (?:\w+ )?com {_THEM}"
        rf"|me (?:{_PUT}|liga) (?:com|para|pra|pro|por) ?{_THEM}"
        rf"|{_PUT} (?:{_THEM}|com {_THEM}) (?:na linha|no telefone|no interfone|aqui|para mim|pra mim|comigo)"
        rf"|pode(?:ria)? (?:me )?(?:conectar|passar|transferir|ligar) (?:com|para|pra|pro|a)? ?{_THEM})\b"
    )
    """To talk to the visitor. "Fala com ele que …" is no such wish, nor is "não quero falar com ele"."""
    MISTAKE: Final = re.compile(
        r"\bnumero errado\b|\bengano\b|\bnao moro (?:mais )?(?:ai|nesse|no)\b|\bapartamento errado\b"
    )


_EXPLICIT: Final = re.compile(
    r"\bautoriz\w+|\bliber\w+|\babr(?:a|e|ir|indo)\b|\b(?:entr(?:a|e|ar)|sub(?:a|ir)|sobe|pass(?:a|e|ar)|vir)\b"
    r"|\bmand(?:a|e|ar)\b"
)
"""Words that name what they allow: they need no question to be an answer to."""

_ASKS_CONSENT: Final = re.compile(
    r"autoriz|liber|sim ou nao|abr(?:o|ir)\b|(?:posso|pode|deix\w+) (?:\w+ )?(?:entrar|subir)"
)


@dataclass(slots=True)
class Turn:
    """What the resident said last, and what was done upon it."""

    text: str
    called: set[str] = field(default_factory=set)

    @property
    def reading(self) -> Reading:
        return classify(self.text)

    @property
    def plain(self) -> str:
        return " ".join(word.text for word in words(self.text))


@dataclass(slots=True)
class ResidentMemory:
    """All that was understood, said and called on one resident's leg."""

    turn: Turn | None = None
    details: Mapping[str, Any] | None = None
    pending: dict[str, CallMade] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    not_yet: str = ""
    """Why the host did not carry out the last request; until it was spoken of."""
    failed: str = ""
    """The tool that just failed; until it was spoken of."""
    consent_asked: bool = False
    """Our last words were a question to which "sim" opens the gate."""
    asking: int = 0
    """The visitor is being asked: host's sentences (that it asks, the answer) that are still to come."""
    begun: bool = False
    over: bool = False
    idle: bool = False
    silences: int = 0
    misheard: int = 0

    def hear(self, text: str) -> None:
        """Take in what the resident said. The last sentence alone counts, noise after it included."""
        self.turn = Turn(text)
        self.begun = True
        self.idle = False
        self.not_yet = self.failed = ""
        self.failures.clear()
        if self.turn.reading is not Reading.NOTHING:
            self.silences = 0

    def call(self, made: CallMade) -> None:
        """A call of ours went out."""
        self.pending[made.call_id] = made
        if self.turn is not None:
            self.turn.called.add(made.name)

    def answer(self, call_id: str, output: str) -> None:
        """A call of ours was answered. An answer to a call that we don't know is nobody's."""
        made = self.pending.pop(call_id, None)
        if made is None:
            return
        self.idle = False
        result = answered(output)
        status = text_of(result, "status")
        if made.name == "visit_details" and "intent" in result:
            self.details = result
        elif status in ("authorized", "denied", "ending"):
            self.over = True
        elif status == "not_yet":
            self.not_yet = text_of(result, "reason") or "unclear"
        elif status == "asked":
            self.asking = 2
        elif status == "connecting":
            pass  # the host says so, and speaks first when the two have talked
        else:
            self.failures[made.name] += 1
            self.failed = made.name

    def said(self, reply: Reply, heard: str) -> None:
        """The resident heard a reply of ours, or enough of it to speak over it."""
        if self.turn is None:
            self.silences += 1
        self.misheard = self.misheard + 1 if reply.kind == "misheard" else 0
        self.not_yet = self.failed = ""
        self.turn = None
        self._after_words(heard)

    def host_said(self, heard: str) -> None:
        """Words went out that are not ours: the briefing, the visitor's answer.

        They answer a turn upon which a call was made; any other is still ours to answer.
        """
        if self.turn is not None and self.turn.called:
            self.turn = None
        self._after_words(heard)
        self.asking = 0 if self.consent_asked else max(0, self.asking - 1)

    def _after_words(self, heard: str) -> None:
        self.begun = True
        self.idle = True
        sentences = [part for part in re.split(r"[.!?:]+", fold(heard)) if part.strip()]
        self.consent_asked = bool(sentences) and _ASKS_CONSENT.search(sentences[-1]) is not None

    def silence(self) -> None:
        """The host noted that the resident says nothing."""
        self.turn = None
        self.idle = True


class ResidentPolicy(Policy[ResidentMemory]):
    """What is said and called on a resident's leg; a pure function of the history."""

    def __init__(self, book: PhraseBook) -> None:
        self._say = book.say

    def _blank(self) -> ResidentMemory:
        return ResidentMemory()

    def _said(self, memory: ResidentMemory, reply: Reply, heard: str) -> None:
        memory.said(reply, heard)

    # ---- what comes next ---------------------------------------------------------------------------------

    def _decide(self, memory: ResidentMemory) -> Reply:
        if memory.over or not memory.begun:
            return NOTHING
        turn = memory.turn
        if turn is None:
            return self._nudge(memory) if memory.idle else NOTHING
        if turn.called and any(made.name in turn.called for made in memory.pending.values()):
            return NOTHING
        return self._after_call(memory, turn) or self._answer(memory, turn)

    def _nudge(self, memory: ResidentMemory) -> Reply:
        """Nobody answers: ask again, in other words, then with the keys."""
        if memory.silences >= MAX_SILENCES or memory.asking:
            return NOTHING
        return Reply(self._say("silencio" if memory.silences == 0 else "silencio_2"))

    def _after_call(self, memory: ResidentMemory, turn: Turn) -> Reply | None:
        """What a call came to that was made upon this turn."""
        if memory.not_yet == "no_briefing":
            return self._who(memory, turn)
        if memory.not_yet:
            doubtful = memory.not_yet in ("consent_heard", "refusal")
            return Reply(self._say("duvida" if doubtful else "nao_entendi"), kind="misheard")
        if memory.failed == "ask_visitor":
            return Reply(self._say("sem_resposta"))
        if memory.failed == "connect_parties":
            return Reply(self._say("sem_conexao"))
        if memory.failed and memory.failed != "visit_details":
            return Reply(self._say("falha"))
        if turn.called & {"ask_visitor", "connect_parties"}:
            return NOTHING  # the host says what is done, and what comes of it
        return None

    def _answer(self, memory: ResidentMemory, turn: Turn) -> Reply:
        """What the resident's words call for."""
        reading, plain = turn.reading, turn.plain
        if Ask.MISTAKE.search(plain) and reading is not Reading.CONSENT:
            return self._call(turn, "end_call", reason="wrong_number")
        if reading is not Reading.CONSENT and Ask.TALK.search(fold(turn.text)):
            return self._call(turn, "connect_parties")
        match reading:
            case Reading.CONSENT:
                return self._consented(memory, turn)
            case Reading.REFUSAL:
                return self._call(turn, "deny_entry", reason="resident_refused")
            case Reading.WAIT:
                return Reply(self._say("espero"))
            case Reading.DESK:
                return Reply(self._say("portaria"))
            case Reading.HELLO:
                return self._who(memory, turn)
            case Reading.NOTHING:
                return self._misheard(memory)
        if Ask.AGAIN.search(plain):
            return self._who(memory, turn)
        if reading is Reading.QUESTION or Ask.PASS_ON.search(plain):
            return self._question(memory, turn)
        return self._misheard(memory)

    def _consented(self, memory: ResidentMemory, turn: Turn) -> Reply:
        """A bare "sim" answers the question of consent and no other ("Vou perguntar." "Tá bom.")."""
        if not memory.consent_asked and not _EXPLICIT.search(turn.plain):
            return NOTHING if memory.asking else Reply(self._say("duvida"))
        return self._call(turn, "authorize_entry")

    def _misheard(self, memory: ResidentMemory) -> Reply:
        return Reply(self._say("nao_entendi" if memory.misheard == 0 else "nao_entendi_2"), kind="misheard")

    def _call(self, turn: Turn, tool: str, **given: str) -> Reply:
        """A call, once a turn: what failed is asked about, not tried again behind the resident's back."""
        return NOTHING if tool in turn.called else Reply(calls=(Call(tool, given),))

    # ---- questions ---------------------------------------------------------------------------------------

    def _question(self, memory: ResidentMemory, turn: Turn) -> Reply:
        plain = turn.plain
        if Ask.PASS_ON.search(plain):
            return self._pass_on(turn)
        if Ask.FIRM.search(plain):
            return self._firm(memory, turn)
        return self._who(memory, turn) if Ask.WHO.search(plain) else self._pass_on(turn)

    def _pass_on(self, turn: Turn) -> Reply:
        return self._call(turn, "ask_visitor", question=self._put_to_visitor(turn.text))

    def _firm(self, memory: ResidentMemory, turn: Turn) -> Reply:
        """The firm, where the visitor named it; else the visitor is asked."""
        if self._lacks_details(memory):
            return Reply(calls=(Call("visit_details", {}),))
        firm = text_of(memory.details or {}, "company")
        return Reply(self._say("da_empresa", empresa=firm)) if firm else self._pass_on(turn)

    def _lacks_details(self, memory: ResidentMemory) -> bool:
        return memory.details is None and memory.failures["visit_details"] < CALL_TRIES

    def _who(self, memory: ResidentMemory, turn: Turn) -> Reply:
        """Who is at the gate, what for, and the question again."""
        if self._lacks_details(memory):
            return Reply(calls=(Call("visit_details", {}),))
        details = memory.details or {}
        errand = text_of(details, "intent")
        if errand not in _ERRANDS:
            return Reply(self._say("falha" if memory.failed else "autoriza"))
        text = self._described(details, errand)
        asked_who = turn.reading is Reading.QUESTION and Ask.WHO.search(turn.plain)
        asked_us = Ask.WHO_SPEAKS.search(turn.plain)
        return Reply(text if asked_who and not asked_us else f"{self._say('aqui_e')} {text}")

    def _described(self, details: Mapping[str, Any], errand: str) -> str:
        name, firm = text_of(details, "visitor_name"), text_of(details, "company")
        apartment, resident = text_of(details, "apartment"), text_of(details, "resident")
        target = (
            self._say("destino_morador", morador=resident, apartamento=apartment)
            if resident
            else self._say("destino", apartamento=apartment)
        )
        key = f"quem_{errand}{'_nome' if name else ''}{'_empresa' if firm else ''}"
        return self._say(key, destino=target, visitante=name, empresa=firm)

    def _put_to_visitor(self, text: str) -> str:
        """A question about the visitor, put to them: "pergunta o nome dele" → "qual é o seu nome?"."""
        question = clean_sentence(text)
        question = _LEAD_IN.sub("", question)
        question = _HIS.sub(lambda m: f"{m[1]} {_YOUR[m[1].lower()]} {m[2]}", question)
        question = _HE.sub(lambda m: "vocês" if m[0].lower().endswith("s") else "você", question)
        question = question.strip(" .,;:!?")
        if _BARE_THING.match(question):
            return clean_sentence(self._say("qual_e", coisa=question))
        return f"{question}?" if question else clean_sentence(text)


_LEAD_IN: Final = re.compile(
    r"^.{0,24}?\bpergunt(?:a|e|ar)\b(?:,? (?:então|aí|por favor))?"
    r"(?: (?:pra|para|a) (?:ele|ela|eles|elas|o \w+|a \w+))?"
    r"(?: por favor)?[,:]? *",
    re.IGNORECASE,
)
_HIS: Final = re.compile(r"\b([oa]) (\w+) (?:dele|dela)\b", re.IGNORECASE)
_YOUR: Final = {"o": "seu", "a": "sua"}
_HE: Final = re.compile(r"\b(?:eles|elas|ele|ela)\b", re.IGNORECASE)
_BARE_THING: Final = re.compile(r"^(?:o|a|os|as) (?!que\b)\w+(?: \w+){0,3}$", re.IGNORECASE)
