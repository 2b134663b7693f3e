"""The engine's own door: what it takes over, what it refuses with a clear word, and exact sentences."""

from __future__ import annotations

import time

import pytest

from providers.local.dialogue import new_engine
from providers.local.dialogue.base import AgentSaid, Entry, Say, UserSaid
from providers.local.dialogue.phrases import read_needs
from tests.providers.local.dialogue_house import (
    RESIDENT_TOOLS,
    VISITOR_TOOLS,
    Conversation,
    VisitorTools,
    engine_for,
    prompt,
    tools,
)

EXACT = "Diga exatamente, palavra por palavra, sem acrescentar nada: «O morador pergunta: de que empresa?»"


def test_exact_words_are_said_and_nothing_else() -> None:
    engine = engine_for("visitor")
    history = (UserSaid("Entrega para o quinhentos e um."),)
    assert engine.respond(history, EXACT, "none") == [Say("O morador pergunta: de que empresa?")]
    assert engine.respond(history, EXACT, "auto") == [Say("O morador pergunta: de que empresa?")]


def test_exact_words_may_hold_quotes_and_lines() -> None:
    text = "Ela disse «oi».\nCerto?"
    said = engine_for("resident").respond((), f"Diga exatamente, sem acrescentar nada: «{text}»", "none")
    assert said == [Say(text)]


@pytest.mark.parametrize("lead", ["Say exactly this, word for word:", "Di exactamente, sin añadir nada:"])
def test_exact_words_are_known_in_any_language(lead: str) -> None:
    assert engine_for("visitor").respond((), f"{lead} «Hi there.»", "none") == [Say("Hi there.")]


def test_exact_words_need_no_configuration_but_all_else_does() -> None:
    engine = new_engine()
    assert engine.respond((), EXACT, "none") == [Say("O morador pergunta: de que empresa?")]
    with pytest.raises(ValueError, match="no instructions"):
        engine.respond((UserSaid("Oi"),), None, "auto")


def test_other_response_instructions_change_nothing() -> None:
    engine = engine_for("visitor")
    history = (UserSaid("Boa noite."),)
    assert engine.respond(history, "Fale devagar.", "auto") == engine.respond(history, None, "auto")


def test_tool_choice_none_keeps_every_call_back() -> None:
    engine = engine_for("resident")
    history = (AgentSaid("Autoriza a entrada?"), UserSaid("Sim."))
    assert engine.respond(history, None, "auto") != []
    assert engine.respond(history, None, "none") == []
    assert engine.respond(history, None, "deny_entry") == []
    assert engine.respond(history, None, "authorize_entry") == engine.respond(history, None, "auto")


def test_instructions_without_phrases_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"# Frases.*perguntar_motivo"):
        new_engine().configure(
            "# Papel\nVocê é a portaria.\n" + _data_of(prompt("visitor")), tools(VISITOR_TOOLS)
        )


def test_one_missing_phrase_is_named() -> None:
    text = prompt("visitor").replace("- so_morador:", "- outra_coisa:")
    with pytest.raises(ValueError, match=r"lacks these phrases: so_morador$"):
        new_engine().configure(text, tools(VISITOR_TOOLS))


def test_a_field_that_nobody_fills_is_named() -> None:
    text = prompt("visitor").replace("Certo, {nome}.", "Certo, {apelido}.")
    with pytest.raises(ValueError, match=r"certo_nome: \{apelido\}"):
        new_engine().configure(text, tools(VISITOR_TOOLS))


def test_a_missing_data_rule_is_named() -> None:
    text = prompt("visitor").replace("- entrega: apartamento;", "- pacote: apartamento;")
    with pytest.raises(ValueError, match=r"# Dados.*entrega"):
        new_engine().configure(text, tools(VISITOR_TOOLS))


@pytest.mark.parametrize(
    "rule",
    ["apartamento, cpf", "apartamento; talvez: nome", "apartamento; perguntar: rg", "apartamento; nome"],
)
def test_a_data_rule_that_can_not_be_read_is_refused(rule: str) -> None:
    with pytest.raises(ValueError, match="visita"):
        read_needs(f"# Dados\n- visita: {rule}\n", ("visita",), ("apartamento", "nome"))


def test_the_role_follows_from_the_tools() -> None:
    with pytest.raises(ValueError, match="found neither"):
        new_engine().configure(prompt("visitor"), tools(["end_call"]))
    with pytest.raises(ValueError, match="found both"):
        new_engine().configure(prompt("visitor"), tools([*VISITOR_TOOLS, *RESIDENT_TOOLS]))


def test_what_was_configured_stays_when_an_update_is_refused() -> None:
    engine = engine_for("visitor")
    with pytest.raises(ValueError, match="neither"):
        engine.configure("", [])
    assert engine.respond((UserSaid("Boa noite."),), None, "auto") == [
        Say("Boa noite! É visita, entrega ou serviço?")
    ]


def test_a_tenants_additions_can_put_a_phrase_in_other_words() -> None:
    engine = new_engine()
    extra = "\n# Frases\n- perguntar_motivo: O que traz você aqui: visita, entrega ou serviço?\n"
    engine.configure(prompt("visitor") + extra, tools(VISITOR_TOOLS))
    said = engine.respond((UserSaid("Boa noite."),), None, "auto")
    assert said == [Say("Boa noite! O que traz você aqui: visita, entrega ou serviço?")]


def test_the_data_rules_are_the_prompts_not_the_engines() -> None:
    talk = Conversation("visitor", VisitorTools(), "")
    rules = prompt("visitor").replace(
        "- entrega: apartamento; perguntar: morador, nome", "- entrega: apartamento"
    )
    talk.engine.configure(rules, tools(VISITOR_TOOLS))
    talk.say("Entrega para o quinhentos e um.")
    assert talk.names() == ["lookup_apartment", "call_resident"]


def test_braces_in_what_a_caller_says_stay_words() -> None:
    engine = engine_for("visitor")
    said = engine.respond((UserSaid("Meu nome é {apartamento} {0} {nome}"),), None, "auto")
    assert len(said) == 1


def test_a_long_conversation_is_answered_in_milliseconds() -> None:
    engine = engine_for("visitor")
    turns: list[Entry] = [UserSaid("Espera, espera, deixa eu falar."), AgentSaid("Claro, pode falar.")]
    history = tuple(turns * 100)
    engine.respond(history, None, "auto")
    began = time.process_time()
    engine.respond(history, None, "auto")
    assert time.process_time() - began < 0.1


def _data_of(text: str) -> str:
    return text[text.index("# Dados") : text.index("# Frases")]
