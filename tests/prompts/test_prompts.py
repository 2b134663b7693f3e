"""Prompts and sentences are complete, hold no field that nobody fills and no question to which yes denies."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from providers.local.dialogue.phrases import PHRASES as SECTION
from providers.local.dialogue.phrases import read_needs, read_phrases, section
from providers.local.dialogue.resident import PHRASES as RESIDENT_PHRASES
from providers.local.dialogue.visitor import ERRANDS, FACTS
from providers.local.dialogue.visitor import PHRASES as VISITOR_PHRASES
from visits.consent import Reading, classify
from visits.words import fold

ROOT = Path(__file__).parents[2]
SENTENCES = tomllib.loads((ROOT / "prompts" / "sentences.pt-BR.toml").read_text("utf-8"))
PROMPTS = {
    role: (ROOT / "prompts" / f"{role}.pt-BR.md").read_text("utf-8") for role in ("visitor", "resident")
}
WANTED = {"visitor": VISITOR_PHRASES, "resident": RESIDENT_PHRASES}
PLACEHOLDERS = {
    "visitor": {"condominio", "saudacao", "agora", "extra"},
    "resident": {
        *("condominio", "agora", "extra", "visitante", "motivo", "apartamento", "morador", "empresa"),
        *("tecla_sim", "tecla_nao"),
    },
}
FILLED_BY_THE_HOST = {
    "calling": {"apartamento"},
    "question_to_visitor": {"pergunta"},
    "answer_to_resident": {"resposta"},
    "use_key": {"sim", "nao"},
    "key_only": {"sim", "nao"},
    "connecting_resident": {"sim", "nao", "volta"},
    "parting_resident": {"sim", "nao"},
    "destination": {"apartamento"},
    "expected": {"esperado"},
    "destination_resident": {"apartamento", "morador"},
    **{f"announcement_{errand}": {"apartamento"} for errand in ERRANDS},
    **{f"announcement_{errand}_company": {"apartamento", "empresa"} for errand in ERRANDS},
}
"""What the host fills, beside {condominio}, which it fills everywhere, and the briefings' fields."""
FIELD = re.compile(r"\{(\w+)\}")


@pytest.mark.parametrize("role", WANTED)
def test_the_engine_finds_every_phrase_and_needs_each(role: str) -> None:
    read_phrases(PROMPTS[role], WANTED[role])
    assert set(section(PROMPTS[role], SECTION)) == set(WANTED[role])


def test_every_errand_has_its_data_rule() -> None:
    needs = read_needs(PROMPTS["visitor"], ERRANDS, FACTS)
    assert needs["visita"].required == ("apartamento", "morador", "nome")
    assert needs["entrega"].optional == ("morador", "nome")
    assert needs["servico"].required == ("apartamento", "nome")


@pytest.mark.parametrize("role", PLACEHOLDERS)
def test_a_prompt_asks_for_nothing_that_the_host_does_not_fill(role: str) -> None:
    assert set(re.findall(r"\{\{ (\w+) \}\}", PROMPTS[role])) == PLACEHOLDERS[role]
    assert PROMPTS[role].count("{{") == len(re.findall(r"\{\{ \w+ \}\}", PROMPTS[role]))


def sentences_of_the_visit() -> set[str]:
    """Every sentence that the table of a visit asks the host for."""
    tree = ast.parse((ROOT / "visits" / "visit.py").read_text("utf-8"))
    asked: set[str] = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        values = [node.args[1]] if name in ("SayExactly", "Prompt") and len(node.args) > 1 else []
        if name == "_close":
            values += [given[leg] for leg in ("visitor", "resident") if leg in given]
        for value in values:
            asked |= {
                part.value
                for part in ast.walk(value)
                if isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value
            }
    return asked - {"briefing", "opened"}


def test_every_sentence_that_a_visit_asks_for_is_there() -> None:
    asked = sentences_of_the_visit()
    assert {"greeting", "calling", "use_key", "goodbye_denied"} <= asked
    assert asked <= set(SENTENCES)


def test_every_sentence_is_said_somewhere() -> None:
    """One that nobody asks for any more only makes its readers believe that it is said."""
    code = "".join((ROOT / path).read_text("utf-8") for path in ("visits/visit.py", "bridge/sentences.py"))
    code += "".join(
        (ROOT / path).read_text("utf-8") for path in ("bridge/host.py", "bridge/house.py", "bridge/runner.py")
    )
    composed = ("briefing_", "motive_", "transcription_", "announcement_")
    said = set(re.findall(r"""["'](\w+)["']""", code))
    unused = {key for key in SENTENCES if key not in said and not key.startswith(composed)}
    assert unused == set()


@pytest.mark.parametrize(
    "key", ["goodbye_resident_authorized", "gate_failed_resident", "gate_unknown_resident"]
)
def test_our_own_goodbye_given_back_by_a_telephone_is_no_refusal_that_comes_too_late(key: str) -> None:
    said = SENTENCES[key].split()
    for begin in range(len(said)):
        for end in range(begin + 1, len(said) + 1):
            part = " ".join(said[begin:end])
            assert classify(part) not in (Reading.REFUSAL, Reading.WAIT), part


def test_there_is_a_briefing_for_every_errand_with_and_without_names() -> None:
    for errand in ERRANDS:
        for suffix, fields in {
            "": set(),
            "_name": {"visitante"},
            "_company": {"empresa"},
            "_name_company": {"visitante", "empresa"},
        }.items():
            text = SENTENCES[f"briefing_{errand}{suffix}"]
            assert set(FIELD.findall(text)) == {"condominio", "destino", "aviso", *fields}
            assert text.endswith(".{aviso} Autoriza a entrada?")


@pytest.mark.parametrize("key", SENTENCES)
def test_a_sentence_holds_only_fields_that_are_filled(key: str) -> None:
    if key.startswith("briefing_"):
        return
    allowed = {"condominio"} | FILLED_BY_THE_HOST.get(key, set())
    assert set(FIELD.findall(SENTENCES[key])) <= allowed
    assert FILLED_BY_THE_HOST.get(key, set()) <= set(FIELD.findall(SENTENCES[key]))


def all_lines() -> list[str]:
    """Everything that may be said."""
    phrases = [text for prompt in PROMPTS.values() for text in section(prompt, SECTION).values()]
    return phrases + [text for key, text in SENTENCES.items() if not key.endswith("_note")]


def test_no_question_of_decision_turns_yes_into_no() -> None:
    for line in all_lines():
        for question in re.findall(r"[^.!?:]*\?", fold(line.replace("{aviso}", ""))):
            if "entrada" in question:
                assert re.match(r"\s*(?:autoriza|posso liberar) a entrada(?:, sim ou nao)?\?", question), line


def test_an_attendant_is_only_promised_where_one_was_told_to_come() -> None:
    """A tenant may have none: what such a visitor or resident may hear speaks of none."""
    promising = {key for key, text in SENTENCES.items() if "atendente" in fold(text)}
    assert promising == {"transfer", "gate_failed_transfer", "transfer_unserved", "transfer_failed"}
    phrases = section(PROMPTS["visitor"], SECTION)
    without = section((ROOT / "prompts" / "visitor_without_attendant.pt-BR.md").read_text("utf-8"), SECTION)
    offering = {key for key, text in phrases.items() if "atendente" in fold(text)} - {"sem_atendente"}
    assert set(without) == offering, "each offer is worded without one, and nothing else"
    assert not [text for text in without.values() if "atendente" in fold(text) or "?" in text]


def test_the_text_is_clean() -> None:
    for line in all_lines():
        assert line == " ".join(line.split())
        assert "..." not in line and " ," not in line and "!!" not in line
        assert not re.search(r"\b(?:ele|ela|senhor|senhora|bem-vind[oa])\b", line, re.IGNORECASE), line


def test_nothing_said_to_a_visitor_promises_the_gate_before_it_opens() -> None:
    for text in section(PROMPTS["visitor"], SECTION).values():
        assert not re.search(r"pode entrar|vou abrir|port[aã]o|liberad|autorizad", text, re.IGNORECASE), text
