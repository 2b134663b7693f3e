"""A resident's telephone on loudspeaker gives back what we say: no part of it may be read as consent.

Whatever run of words the recogniser makes of an echo, it is no answer to "autoriza a entrada?". What cannot
be told from an answer is listed with what else keeps it from opening.
"""

from __future__ import annotations

import re
from string import Formatter

import pytest

from bridge.sentences import Sentences
from visits.consent import Reading, classify
from visits.events import Role
from visits.facts import Facts, Intent

HOUSE = Sentences.load("pt-BR", "Edifício Girassol")
ERRANDS = [
    Facts(Intent.VISIT, "501", "Pedro", "Renata Oliveira", "Amazon"),
    Facts(Intent.SERVICE, "1203 bloco B", "Ana", "", "Claro", "Ana Prado"),
]
FIELDS = {
    "sim": "1",
    "nao": "2",
    "volta": "3",
    "pergunta": "De que empresa você é?",
    "resposta": "Sou o primo dela.",
    "esperado": "Ana Prado",
}
EXPLAINED = {
    "sim": 'the last words of our question are "sim ou não": said alone, it is the answer',
    "tudo bem": "where the resident asked to wait, and a goodbye on the visitor's leg",
    "certo": "we agree to ask the visitor or to connect the two: until that is over nothing counts",
    "claro": "a firm's name in the briefing: what begins before the briefing's end does not count",
}
"""Runs of words that are consent, and why they may be."""
AFTER_THE_DECISION = re.compile(r"goodbye_|gate_|too_late_|gate_unknown|transcription_")
"""Of no sentence of these keys the echo can be evidence: it is decided, or nobody says it."""


def runs(sentence: str) -> set[str]:
    """Every run of its words, as it stands and without its punctuation."""
    said = sentence.split()
    found = {" ".join(said[i:j]) for i in range(len(said)) for j in range(i + 1, len(said) + 1)}
    return found | {run.strip('?.,;:!"') for run in found} | {re.sub(r"[?.,;:!\"]", "", run) for run in found}


def consents(sentence: str) -> set[str]:
    """Those that would be consent."""
    return {re.sub(r"[?.,;:!\"]", "", r).lower() for r in runs(sentence) if classify(r) is Reading.CONSENT}


@pytest.mark.parametrize("key", sorted(k for k in HOUSE.sentences if not AFTER_THE_DECISION.match(k)))
@pytest.mark.parametrize("facts", ERRANDS, ids=["visita", "servico"])
def test_no_part_of_a_sentence_is_consent_when_it_comes_back(key: str, facts: Facts) -> None:
    found = {name for _, name, _, _ in Formatter().parse(HOUSE.sentences[key]) if name is not None}
    assert found <= {*FIELDS, *HOUSE._known(facts)}
    assert consents(HOUSE.say(key, facts, FIELDS)) <= set(EXPLAINED)


def test_an_announcement_has_the_errand_and_nobodys_name() -> None:
    said = [HOUSE.announcement(facts) for facts in (None, *ERRANDS, Facts(Intent.DELIVERY, "12", "Ana"))]
    assert said == [
        "Chamada do portão do Edifício Girassol. Vou passar para você.",
        "Chamada do portão do Edifício Girassol. É uma visita da empresa Amazon para o apartamento 501.",
        "Chamada do portão do Edifício Girassol. "
        "É alguém da empresa Claro para fazer um serviço no apartamento 1203 bloco B.",
        "Chamada do portão do Edifício Girassol. É uma entrega para o apartamento 12.",
    ]
    reception = Sentences.load("pt-BR", "Clínica Sol", reception=True)
    assert reception.announcement(None) == "Chamada para Clínica Sol. Vou passar para você."


def test_no_part_of_what_the_model_is_told_to_say_is_consent() -> None:
    phrases = re.findall(r"^- \w+: (.+)$", HOUSE.prompts[Role.RESIDENT], re.MULTILINE)
    assert len(phrases) >= 20
    for phrase in phrases:
        assert consents(phrase) <= set(EXPLAINED), phrase


@pytest.mark.parametrize(
    "halves", ["Autoriza a entrada", "autoriza", "Entrada sim ou não", "a entrada, sim ou não"]
)
def test_what_is_left_of_our_question_is_asked_again(halves: str) -> None:
    assert classify(halves) in {Reading.UNCLEAR, Reading.QUESTION}
    assert classify(f"{halves}?") is Reading.QUESTION


@pytest.mark.parametrize("answer", ["Sim", "Pode liberar", "Claro, pode abrir", "Autorizo"])
def test_a_consent_behind_our_own_echo_is_still_one(answer: str) -> None:
    assert classify(f"{answer}, autoriza a entrada.") is Reading.CONSENT
