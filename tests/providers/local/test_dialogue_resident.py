"""Residents' conversations: what is a yes, what is none, and what is asked before either."""

from __future__ import annotations

import json

import pytest

from providers.local.dialogue.base import AgentSaid, CallMade, UserSaid
from tests.providers.local.dialogue_house import BRIEFING, ROOT, Conversation, ResidentTools, resident

WHO = "É Pedro da Silva, com uma entrega para o apartamento 501. Autoriza a entrada?"
HERE = "Aqui é da portaria do Condomínio Jardim."


def manifest() -> dict[str, tuple[str, list[str]]]:
    """The recorded residents: words and tags by id."""
    entries = json.loads((ROOT / "data" / "audio" / "manifest.json").read_text("utf-8"))
    return {e["id"]: (e["text"], e["tags"]) for e in entries if e["role"] == "resident"}


@pytest.mark.parametrize("identity", manifest())
def test_each_recorded_sentence_has_its_outcome(identity: str) -> None:
    text, tags = manifest()[identity]
    talk = resident()
    answer = talk.say(text)
    if "authorize" in tags:
        assert (talk.names(), answer) == (["authorize_entry"], "")
    elif "deny" in tags:
        assert (talk.names(), answer) == (["deny_entry"], "")
    elif "question" in tags or "hello" in tags or "repeat" in tags:
        assert talk.names() == ["visit_details"]
        assert answer.endswith(WHO)
    else:
        assert talk.names() == []
        expected = {
            "wait": "Tudo bem, eu espero.",
            "leave-at-desk": "Para deixar na portaria, eu preciso abrir",
        }
        assert answer.startswith(
            next((expected[tag] for tag in tags if tag in expected), "Desculpe, não entendi.")
        )


def test_who_it_is_then_yes() -> None:
    talk = resident()
    assert talk.say("Quem é?") == WHO
    assert talk.say("Ah, pode deixar entrar.") == ""
    assert talk.names() == ["visit_details", "authorize_entry"]


def test_who_speaks_is_told_where_the_call_comes_from() -> None:
    assert resident().say("Oi, quem fala?") == f"{HERE} {WHO}"


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        (
            {"intent": "visita", "visitor_name": "Júlia", "resident": "Fernanda Souza", "apartment": "201"},
            "É Júlia, que veio visitar Fernanda Souza, do apartamento 201. Autoriza a entrada?",
        ),
        (
            {"visitor_name": "", "company": "Correios"},
            "É uma entrega da empresa Correios para o apartamento 501. Autoriza a entrada?",
        ),
        (
            {"visitor_name": ""},
            "É uma entrega para o apartamento 501, mas não sei o nome de quem trouxe. Autoriza a entrada?",
        ),
        (
            {"intent": "servico", "company": "Vivo"},
            "É Pedro da Silva, da empresa Vivo, que veio fazer um serviço para o apartamento 501. "
            "Autoriza a entrada?",
        ),
    ],
)
def test_who_it_is_says_what_is_known(details: dict[str, str], expected: str) -> None:
    assert resident(details).say("Quem é?") == expected


@pytest.mark.parametrize("heard", ["Que é?", "Quem é?", "Que está aí?", "O que é?", "Oi, quem está aí?"])
def test_who_it_is_is_told_however_the_question_was_heard(heard: str) -> None:
    assert resident().say(heard) == WHO


@pytest.mark.parametrize(
    ("said", "put"),
    [
        ("O que ele quer?", "O que você quer?"),
        ("Ele está sozinho?", "você está sozinho?"),
        ("Pergunta o nome dele.", "qual é o seu nome?"),
        ("Pergunta pra ela o que ela quer", "o que você quer?"),
        ("pergunta pra ele se ele está sozinho", "se você está sozinho?"),
        ("Quem mandou?", "Quem mandou?"),
    ],
)
def test_what_only_the_visitor_knows_is_put_to_the_visitor(said: str, put: str) -> None:
    talk = resident()
    assert talk.say(said) == ""
    assert talk.calls[-1] == ("ask_visitor", {"question": put})


@pytest.mark.parametrize(
    "said",
    [
        "Deixa eu falar com ele.",
        "Deixa eu falar com o entregador, por favor.",
        "Me conecta com o entregador.",
        "Quero falar com ela.",
        "Eu queria falar com a pessoa antes.",
        "Posso falar com ele?",
        "Dá pra falar direto com o rapaz?",
        "Me passa pro motoboy.",
        "Me passa pra ele.",
        "Bota ele na linha.",
        "Põe o rapaz no telefone.",
        "Pode me conectar com ele?",
        "Pode passar pra ela.",
        "Peraí, deixa eu falar com ele primeiro.",
        "Sim, mas deixa eu conversar com ela.",
        "Não, quero falar com ele antes.",
        "Tem como eu falar com quem está aí?",
    ],
)
def test_who_wants_to_talk_to_the_visitor_is_connected(said: str) -> None:
    talk = resident()
    assert talk.say(said) == ""
    assert talk.calls == [("connect_parties", {})]


@pytest.mark.parametrize(
    "said",
    [
        "Não quero falar com ele.",
        "Fala com ele que pode subir.",
        "Fala com ele que não.",
        "Deixa eu falar com meu marido.",
        "Deixa eu falar com a minha mãe, um momento.",
        "Quero falar com o síndico.",
        "Pode deixar entrar, depois eu falo com ele.",
        "Passa o recado para ele.",
    ],
)
def test_who_does_not_want_to_talk_to_the_visitor_is_not_connected(said: str) -> None:
    talk = resident()
    talk.say(said)
    assert "connect_parties" not in talk.names()


def test_who_comes_back_from_the_visitor_answers_the_question_that_is_put_then() -> None:
    talk = resident()
    talk.say("Deixa eu falar com ele.")
    talk.history.append(AgentSaid("Aqui é da portaria de novo. Autoriza a entrada, sim ou não?"))
    assert talk.say("Sim.") == ""
    assert talk.names() == ["connect_parties", "authorize_entry"]


def test_who_cannot_be_connected_is_offered_a_question() -> None:
    talk = resident(broken=frozenset({"connect_parties"}))
    assert talk.say("Deixa eu falar com ele.").startswith("Não consigo conectar vocês agora")


def test_the_firm_is_told_where_it_is_known_and_asked_for_where_it_is_not() -> None:
    assert (
        resident({"company": "Amazon"}).say("De que empresa?") == "É da empresa Amazon. Autoriza a entrada?"
    )
    talk = resident()
    talk.say("De que empresa?")
    assert talk.calls[-1] == ("ask_visitor", {"question": "De que empresa?"})


# ---- a yes to what? ------------------------------------------------------------------------------------


def asked() -> Conversation:
    """A resident whose question is being put to the visitor."""
    talk = resident()
    talk.say("O que ele quer?")
    talk.host_says("Certo, vou perguntar. Um momento, por favor.")
    return talk


@pytest.mark.parametrize("word", ["Tá bom.", "Ok.", "Sim.", "Certo."])
def test_agreeing_to_wait_is_not_consent(word: str) -> None:
    talk = asked()
    assert talk.say(word) == ""
    assert "authorize_entry" not in talk.names()
    talk.host_says("O visitante respondeu: é uma encomenda. Autoriza a entrada?")
    talk.say(word)
    assert talk.names()[-1] == "authorize_entry"


def test_words_that_name_what_they_allow_need_no_question() -> None:
    talk = asked()
    talk.say("Pode deixar e entrar, por favor.")
    assert talk.names()[-1] == "authorize_entry"


@pytest.mark.parametrize("word", ["Sim.", "Tá bom."])
def test_a_bare_agreement_after_a_pause_is_asked_about(word: str) -> None:
    talk = resident()
    assert talk.say("Só um momento.") == "Tudo bem, eu espero."
    assert talk.say(word) == "Só para ter certeza: posso liberar a entrada, sim ou não?"
    talk.say("Sim.")
    assert talk.names() == ["authorize_entry"]


def test_a_yes_into_the_first_half_of_the_question_is_asked_about() -> None:
    talk = Conversation("resident", ResidentTools(), BRIEFING[: len(BRIEFING) // 2])
    talk.say("Sim.")
    assert talk.names() == []


def test_the_last_sentence_counts() -> None:
    talk = resident()
    talk.history.append(UserSaid("Sim."))
    talk.say("Não, melhor não.")
    assert talk.names() == ["deny_entry"]


def test_a_no_while_the_yes_is_still_being_judged() -> None:
    talk = resident()
    talk.history += [
        UserSaid("Sim."),
        CallMade("c1", "authorize_entry", "{}"),
        UserSaid("Não, não autorizo!"),
    ]
    talk.respond()
    assert talk.names() == ["deny_entry"]


def test_a_yes_is_reported_once_however_often_we_are_asked() -> None:
    talk = resident()
    talk.history += [UserSaid("Sim."), CallMade("c1", "authorize_entry", "{}")]
    assert talk.respond() == ""
    assert talk.names() == []


@pytest.mark.parametrize("word", ["Sim.", "Não.", "É engano."])
def test_an_answer_that_makes_no_sense_is_not_called_for_again(word: str) -> None:
    talk = resident()
    talk.backend = lambda name, given: {"status": "asked"}
    talk.say(word)
    talk.respond()
    assert len(talk.calls) == 1


# ---- not yet -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["question", "refusal", "unclear", "no_answer", ""])
def test_not_yet_asks_again_so_that_yes_means_yes(reason: str) -> None:
    talk = resident(not_yet=[reason])
    assert talk.say("Sim.").endswith("Posso liberar a entrada, sim ou não?") or reason == "refusal"
    talk.say("Sim.")
    assert talk.names() == ["authorize_entry", "authorize_entry"]


def test_without_a_briefing_it_is_told_again() -> None:
    talk = resident(not_yet=["no_briefing"])
    assert talk.say("Sim.") == f"{HERE} {WHO}"


def test_a_broken_tool_is_not_retried_behind_the_residents_back() -> None:
    talk = resident(broken=frozenset({"authorize_entry"}))
    assert talk.say("Sim.") == "Desculpe, tive um problema por aqui. Posso liberar a entrada, sim ou não?"
    assert talk.names() == ["authorize_entry"]


def test_without_details_the_question_stands() -> None:
    talk = resident(broken=frozenset({"visit_details"}))
    assert talk.say("Quem é?").endswith("Posso liberar a entrada, sim ou não?")
    assert talk.names() == ["visit_details", "visit_details"]


# ---- silence and endings -------------------------------------------------------------------------------


def test_silence_asks_again_then_names_the_keys_then_leaves_it_to_the_host() -> None:
    talk = resident()
    words = [talk.silence() for _ in range(6)]
    assert words[0] == "Você ainda está aí? Posso liberar a entrada, sim ou não?"
    assert "tecle 1 para autorizar e 2 para negar" in words[1]
    assert words[-1] == ""
    assert talk.names() == []


def test_what_is_not_understood_twice_names_the_keys() -> None:
    talk = resident()
    assert talk.say("Blá blá.").endswith("sim ou não?")
    assert "tecle 1" in talk.say("")


def test_a_wrong_number_ends_the_call_without_a_decision() -> None:
    talk = resident()
    talk.say("É engano, não moro mais aí.")
    assert talk.names() == ["end_call"]


def test_after_the_decision_nothing_is_said() -> None:
    talk = resident()
    talk.say("Sim.")
    assert [talk.say("Obrigado."), talk.say("Não!"), talk.silence()] == ["", "", ""]
    assert talk.names() == ["authorize_entry"]


def test_before_the_first_word_it_is_the_hosts_turn() -> None:
    assert Conversation("resident", ResidentTools(), "").respond() == ""


def test_every_question_of_decision_asks_for_consent() -> None:
    talk = resident()
    for line in ("Hum, não sei.", "Alô?", "Pede para deixar na portaria.", "Quem é?", ""):
        said = talk.say(line)
        assert said.rstrip(".?").endswith(("Autoriza a entrada", "sim ou não", "2 para negar")), said
        assert isinstance(talk.history[-1], AgentSaid)
