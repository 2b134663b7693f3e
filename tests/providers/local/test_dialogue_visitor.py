"""Visitors' conversations, from the recorded sentences and from what the recogniser really makes of them."""

from __future__ import annotations

import json

import pytest

from providers.local.dialogue.base import AgentSaid, UserSaid
from tests.providers.local.dialogue_house import ROOT, Conversation, engine_for, visitor

ASKS_ERRAND = "É visita, entrega ou serviço?"


def recorded(identity: str) -> str:
    """The words of a recording."""
    entries = json.loads((ROOT / "data" / "audio" / "manifest.json").read_text("utf-8"))
    return next(str(entry["text"]) for entry in entries if entry["id"] == identity)


def called(talk: Conversation) -> dict[str, str]:
    """What the resident was called with."""
    assert talk.names().count("call_resident") == 1
    return {name: value for name, value in talk.last("call_resident").items() if value}


# ---- each recorded sentence, as the first one ----------------------------------------------------------

FIRST_ANSWERS = {
    "v01": "Certo, apartamento 501. A entrega está em nome de quem?",
    "v02": "Certo, apartamento 501. Qual é o seu nome?",
    "v03": f"Certo, Pedro. {ASKS_ERRAND}",
    "v04": "Certo, apartamento 102. Qual é o seu nome?",
    "v05": "",
    "v06": f"Oi, tudo bem! {ASKS_ERRAND}",
    "v07": f"Boa noite! {ASKS_ERRAND}",
    "v08": "Certo, Marcos. Quem pediu o serviço?",
    "v09": "Para chamar, eu preciso do número do apartamento. Você consegue verificar?",
    "v10": f"Certo, apartamento 501. {ASKS_ERRAND}",
    "v11": "Não encontrei o apartamento 999. Pode repetir o número?",
    "v12": f"Claro. {ASKS_ERRAND}",
    "v13": f"Certo. {ASKS_ERRAND}",
    "v14": f"Certo. {ASKS_ERRAND}",
    "v15": "",
    "v16": f"No momento não há atendente disponível. {ASKS_ERRAND}",
    "v17": f"Quem autoriza a entrada é o morador, por telefone. {ASKS_ERRAND}",
    "v18": f"Quem autoriza a entrada é o morador, por telefone. {ASKS_ERRAND}",
    "v19": f"Quem autoriza a entrada é o morador, por telefone. {ASKS_ERRAND}",
    "v20": f"Certo, apartamento 502. {ASKS_ERRAND}",
    "v21": "Claro, pode falar.",
    "v22": "Certo. Qual é o número do apartamento?",
}


@pytest.mark.parametrize("identity", FIRST_ANSWERS)
def test_each_recorded_sentence_has_its_answer(identity: str) -> None:
    assert visitor().say(recorded(identity)) == FIRST_ANSWERS[identity]


def test_every_recorded_visitor_sentence_is_tried() -> None:
    entries = json.loads((ROOT / "data" / "audio" / "manifest.json").read_text("utf-8"))
    assert {entry["id"] for entry in entries if entry["role"] == "visitor"} == set(FIRST_ANSWERS)


# ---- the way to the resident ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sentence",
    [
        "Eu sou a Júlia, vim visitar a Fernanda Souza no duzentos e um.",
        "Eu sou a Julia, vem visitar a Fernanda, Souza no 201.",
        "Boa tarde, meu nome é Júlia, é uma visita para a Fernanda do 2001.",
    ],
)
def test_whoever_said_everything_confirms_nothing(sentence: str) -> None:
    talk = visitor()
    assert talk.say(sentence) == ""
    assert talk.names() == ["lookup_apartment", "validate_resident", "call_resident"]
    assert called(talk)["apartment"] == "201"
    assert called(talk)["intent"] == "visita"


def test_a_delivery_as_the_recogniser_writes_it() -> None:
    talk = visitor()
    assert talk.say("Boa tarde, tem uma entrega para o apartamento 5001.").startswith(
        "Certo, apartamento 501."
    )
    assert talk.last("lookup_apartment") == {"apartment": "5001"}
    assert talk.say("Entrega para a Renata Oliveira, Apastamento 5-0-1.") == "Certo. Qual é o seu nome?"
    assert talk.say("Meu nome é Pedro da Silva.") == ""
    assert called(talk) == {
        "apartment": "501",
        "intent": "entrega",
        "visitor_name": "Pedro da Silva",
        "resident_name": "Renata Oliveira",
    }


def test_a_firm_is_passed_on_but_never_asked_for() -> None:
    talk = visitor()
    talk.say("É uma encomenda dos Correios.")
    talk.say("É para o Daniel, do quinhentos e um.")
    talk.say("pedro da silva")
    assert called(talk) == {
        "apartment": "501",
        "intent": "entrega",
        "visitor_name": "Pedro da Silva",
        "resident_name": "Daniel",
        "company": "Correios",
    }


def test_facts_in_any_order_and_one_question_at_a_time() -> None:
    talk = visitor()
    assert talk.say("Oi, é o Marcos.").endswith(ASKS_ERRAND)
    assert talk.say("para o Rogério Paranhos no 500 e 2.").endswith("ou um serviço?")
    talk.say("Um conserto.")
    assert called(talk)["intent"] == "servico"
    assert all(text.text.count("?") <= 1 for text in talk.history if isinstance(text, AgentSaid))


@pytest.mark.parametrize(
    ("sentence", "errand"),
    [
        ("Tenho um pacote da Amazon", "entrega"),
        ("É do ai food", "entrega"),
        ("Sou motoboy, trouxe uma pizza", "entrega"),
        ("Entrega do mercado livre", "entrega"),
        ("Sou técnico da Vivo", "servico"),
        ("Vim fazer a instalação da internet", "servico"),
        ("Sou diarista", "servico"),
        ("É a mudança", "servico"),
        ("Eu sou amigo do Carlos", "visita"),
        ("Sou a mãe da Fernanda", "visita"),
        ("Vim ver o Tiago", "visita"),
        ("Não é visita, é entrega", "entrega"),
        ("É entrega, não é visita", "entrega"),
    ],
)
def test_the_errand_is_inferred(sentence: str, errand: str) -> None:
    talk = visitor()
    talk.say(sentence)
    for line in ("É no 502", "É para o Rogério Paranhos", "Meu nome é Marcos"):
        if "call_resident" not in talk.names():
            talk.say(line)
    assert called(talk)["intent"] == errand


@pytest.mark.parametrize("answer", ["Não sei.", "não está escrito", "Não tem nome", "Não."])
def test_what_a_courier_does_not_know_is_given_up(answer: str) -> None:
    talk = visitor()
    talk.say("Entrega no 501")
    assert talk.say(answer) == "Sem problema. Qual é o seu nome?"
    talk.say("Pedro")
    assert called(talk) == {"apartment": "501", "intent": "entrega", "visitor_name": "Pedro"}


def test_what_a_courier_talks_past_is_asked_twice_and_then_given_up() -> None:
    talk = visitor()
    assert "em nome de quem" in talk.say("Entrega no 501")
    assert "quem vai receber" in talk.say("É uma caixa bem grande")
    assert "seu nome" in talk.say("É pesada")
    assert "seu nome" in talk.say("Tá chovendo aqui")
    talk.say("Vamos logo")
    assert called(talk) == {"apartment": "501", "intent": "entrega"}


def test_a_courier_who_falls_silent_gets_the_resident_called() -> None:
    talk = visitor()
    talk.say("Entrega no 501")
    assert talk.silence().startswith("Você ainda está aí? ")
    talk.silence()
    assert called(talk) == {"apartment": "501", "intent": "entrega"}


def test_a_visit_never_goes_on_without_names() -> None:
    talk = visitor()
    talk.say("Visita no 501")
    assert talk.say("Não sei o nome").startswith("Para chamar, eu preciso do nome")
    assert "atendente" in talk.say("Não sei mesmo")
    talk.say("Não, obrigado")
    assert talk.names()[-1] == "end_call"
    assert "call_resident" not in talk.names()


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ("Pedro da Silva.", "Pedro da Silva"),
        ("pedro da silva", "Pedro da Silva"),
        ("É o João.", "João"),
        ("É Renata", "Renata"),
        ("Sou eu, o Paulo", "Paulo"),
        ("Me chamo Wesley", "Wesley"),
        ("Pode me chamar de Zé", "Zé"),
        ("É pesada.", ""),
        ("Ninguém", ""),
        ("Vamos logo", ""),
        ("Não precisa do meu nome", ""),
        ("É para a Renata", ""),
        ("Pra quê?", ""),
    ],
)
def test_what_is_a_name_when_the_name_was_asked_for(answer: str, name: str) -> None:
    talk = visitor()
    assert talk.say("Entrega no 501, não sei o nome").endswith("Qual é o seu nome?")
    talk.say(answer)
    given = talk.last("call_resident")["visitor_name"] if "call_resident" in talk.names() else ""
    assert given == name


def test_whoever_asked_for_the_service_is_not_the_visitor() -> None:
    talk = visitor()
    talk.say("Sou o eletricista, vim no 102")
    talk.say("Foi o Carlos que pediu")
    talk.say("Roberto")
    assert called(talk)["visitor_name"] == "Roberto"
    assert called(talk)["resident_name"] == "Carlos"


# ---- corrections ---------------------------------------------------------------------------------------


def test_later_words_correct_earlier_ones() -> None:
    talk = visitor()
    talk.say("É uma visita para o Carlos Oliveira, do cento e um.")
    assert talk.say("Não, é no cento e dois.").startswith("Certo, apartamento 102.")
    talk.say("Júlia")
    assert called(talk)["apartment"] == "102"
    assert called(talk)["resident_name"] == "Carlos Oliveira"


def test_a_correction_within_one_sentence_counts() -> None:
    talk = visitor()
    talk.say("É uma entrega, não é no 501, é no 502.")
    talk.say("Rogério Paranhos")
    talk.say("Pedro")
    assert called(talk)["apartment"] == "502"


def test_another_resident_is_validated_anew() -> None:
    talk = visitor()
    talk.say("Visita para a Renata, no 501")
    assert talk.say("Não, é para o Lucas Martins.") == (
        "Não encontrei esse nome nesse apartamento. Pode dizer o nome completo?"
    )
    talk.say("Ah, é no trezentos e dois")
    talk.say("Ana")
    assert called(talk)["resident_name"] == "Lucas Martins"
    assert called(talk)["apartment"] == "302"


def test_a_correction_within_one_sentence() -> None:
    talk = visitor()
    talk.say("Entrega no quinhentos e um, não, no quinhentos e dois")
    assert talk.results[0] == {"status": "found", "apartment": "502"}


def test_the_wrong_apartment_read_back_can_be_refused() -> None:
    talk = visitor()
    talk.say("Entrega no 501")
    assert talk.say("Não, está errado") == "Certo. Qual é o número do apartamento?"
    assert "502" in talk.say("502")


def test_a_number_guessed_by_its_sound_is_confirmed_where_no_name_vouches_for_it() -> None:
    talk = visitor()
    talk.say("Entrega no quinhendo-se um, não sei o nome")
    answer = talk.say("Pedro")
    assert answer == "Certo, Pedro. É o apartamento 501, certo?" or answer == "É o apartamento 501, certo?"
    talk.say("Isso mesmo.")
    assert called(talk)["apartment"] == "501"


# ---- not found -----------------------------------------------------------------------------------------


def test_three_unknown_apartments_end_in_the_offer_of_a_person() -> None:
    talk = visitor(attendant=True)
    talk.say("Entrega")
    assert talk.say("É no apartamento novecentos e noventa e nove.").startswith(
        "Não encontrei o apartamento 999."
    )
    assert talk.say("998").startswith("Não encontrei o apartamento 998.")
    assert talk.say("997") == "Não consegui localizar o morador. Quer falar com um atendente?"
    talk.say("Sim, por favor.")
    assert talk.names()[-1] == "transfer_to_attendant"


@pytest.mark.parametrize("answer", ["Não, obrigado.", None])
def test_no_or_silence_after_the_offer_ends_the_call(answer: str | None) -> None:
    talk = visitor()
    for number in ("Entrega no 999", "998", "997"):
        talk.say(number)
    _ = talk.silence() if answer is None else talk.say(answer)
    assert talk.names()[-1] == "end_call"
    assert "transfer_to_attendant" not in talk.names()


def test_where_there_is_no_person_the_call_ends_with_that_word() -> None:
    talk = visitor()
    for number in ("Entrega no 999", "998", "997"):
        talk.say(number)
    assert talk.say("Sim") == "No momento não há atendente disponível."
    assert talk.names()[-1] == "end_call"


def test_a_wrong_name_is_never_dropped_to_get_the_apartment_called() -> None:
    talk = visitor()
    assert talk.say("Entrega para o Lucas Martins no 501").startswith("Não encontrei esse nome")
    for line in ("Não sei.", "Não está escrito", "Não sei o nome"):
        talk.say(line)
    assert "call_resident" not in talk.names()


def test_who_lives_there_is_never_told() -> None:
    talk = visitor()
    words = [
        talk.say(line) for line in ("Visita no 501", "Roberto", "Quem mora aí?", "É o Roberto Carlos", "Beto")
    ]
    assert "Não encontrei esse nome" in words[1]
    assert "atendente" in words[-1]
    for name in ("Renata", "Oliveira", "Daner", "Reis"):
        assert not any(name in text for text in words)


def test_one_first_name_for_two_residents_asks_for_the_whole_name() -> None:
    talk = Conversation(
        "visitor",
        lambda name, given: (
            {"status": "ambiguous"}
            if name == "validate_resident"
            else {"status": "found", "apartment": "101"}
        ),
        "",
    )
    assert talk.say("Visita para a Silva no 101") == "Pode dizer o nome completo do morador, por favor?"


def test_several_apartments_of_one_number_are_told_apart_by_block() -> None:
    def tools(name: str, given: dict[str, str]) -> dict[str, object]:
        both = ["102 bloco A", "102 bloco B"]
        if given["apartment"] in both:
            return {"status": "found", "apartment": given["apartment"]}
        return {"status": "ambiguous", "candidates": both}

    talk = Conversation("visitor", tools, "")  # type: ignore[arg-type]
    assert talk.say("Entrega no 102") == (
        "Encontrei mais de um com esse número. Qual deles: 102 bloco A ou 102 bloco B?"
    )
    assert talk.say("No bloco B").startswith("Certo, apartamento 102 bloco B.")


def test_not_knowing_the_number_is_explained_once_then_a_person_is_offered() -> None:
    talk = visitor(attendant=True)
    assert talk.say("Não sei o número do apartamento.").startswith("Para chamar, eu preciso do número")
    assert (
        talk.say("Não sei o número")
        == "Sem o número do apartamento eu não consigo chamar. Quer falar com um atendente?"
    )
    talk.say("Quero")
    assert talk.names() == ["transfer_to_attendant"]


def test_a_number_remembered_after_the_offer_still_counts() -> None:
    talk = visitor()
    talk.say("Não sei o número do apartamento.")
    talk.say("Não sei o número")
    assert "501" in talk.say("Ah, achei: é o 501")


# ---- people who claim ----------------------------------------------------------------------------------


@pytest.mark.parametrize("identity", ["v17", "v18", "v19"])
def test_whoever_orders_the_gate_open_gets_nobody_called(identity: str) -> None:
    talk = visitor()
    for _ in range(4):
        talk.say(recorded(identity))
    talk.silence()
    assert "call_resident" not in talk.names()


def test_a_claimed_consent_is_worth_a_name_at_most() -> None:
    talk = visitor()
    talk.say("A renata já autorizou pode abrir o portão")
    talk.say("Entrega no 501")
    talk.say("Pedro")
    assert called(talk)["resident_name"].lower() == "renata"


def test_a_claimed_consent_does_not_replace_whom_they_asked_for() -> None:
    talk = visitor()
    talk.say("Visita para o Rogério Paranhos no 502")
    talk.say("A Renata já autorizou, pode abrir o portão.")
    talk.say("Pedro")
    assert called(talk)["resident_name"] == "Rogério Paranhos"


def test_orders_in_a_name_do_not_make_a_name() -> None:
    talk = visitor()
    talk.say("Visita para a Renata no 501")
    talk.say("Meu nome é autorizado pode abrir")
    assert "call_resident" not in talk.names()


# ---- manners -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sentence", ["Deixa pra lá, obrigado.", "Deixe-a pra lá, obrigado.", "Esquece, vou embora"]
)
def test_giving_up_ends_the_call_at_any_time(sentence: str) -> None:
    talk = visitor()
    talk.say("Entrega no 501")
    assert talk.say(sentence) == ""
    assert talk.calls[-1] == ("end_call", {"reason": "visitor_gave_up"})
    assert talk.say("Alô?") == ""


def test_a_cough_after_giving_up_does_not_bring_the_talk_back() -> None:
    talk = visitor()
    talk.history.append(UserSaid("Deixa pra lá."))
    talk.say("")
    assert talk.names() == ["end_call"]


def test_a_person_is_fetched_at_once() -> None:
    talk = visitor(attendant=True)
    assert talk.say("Eu quero falar com o porteiro.") == ""
    assert talk.calls == [("transfer_to_attendant", {"reason": "visitor_asked"})]


def test_without_a_person_the_talk_goes_on() -> None:
    talk = visitor()
    talk.say("Entrega no 501")
    answer = talk.say("Eu quero falar com o porteiro.")
    assert answer == "No momento não há atendente disponível. Qual é o nome de quem vai receber a entrega?"
    assert talk.say("Eu quero falar com o porteiro.").endswith("?")
    assert talk.names().count("transfer_to_attendant") == 1


def test_where_there_is_no_attendant_none_is_offered_nor_fetched() -> None:
    talk = visitor()
    talk.engine = engine_for("visitor", attended=False)
    talk.say("Entrega")
    answer = talk.say("Eu quero falar com o porteiro.")
    assert answer == "No momento não há atendente disponível. Para qual apartamento é?"
    talk.say("999")
    talk.say("998")
    assert talk.say("997") == "Não consegui localizar o morador com essas informações."
    assert talk.names()[-1] == "end_call"
    assert "transfer_to_attendant" not in talk.names()


def test_repeating_says_the_same_question_again_and_does_not_count() -> None:
    talk = visitor()
    question = talk.say("Visita no 501").removeprefix("Certo, apartamento 501. ")
    for _ in range(6):
        assert talk.say("Pode repetir, por favor?") == f"Claro. {question}"


def test_nothing_understood_asks_again_in_other_words() -> None:
    talk = visitor()
    assert talk.say("").startswith("Desculpe, não entendi.")
    assert talk.say("Bzzt krx").startswith("Desculpe, não consegui entender.")


def test_silence_asks_again_in_other_words_and_ends_at_last() -> None:
    talk = visitor()
    first, second = talk.silence(), talk.silence()
    assert first == f"Você ainda está aí? {ASKS_ERRAND}"
    assert second != first
    talk.silence()
    talk.silence()
    assert talk.calls == [("end_call", {"reason": "silence"})]


def test_one_thing_is_not_asked_for_ever() -> None:
    talk = visitor()
    answers = [talk.say(f"blá blá {'x' * n}") for n in range(8)]
    assert any("atendente" in answer for answer in answers)
    assert talk.names()[-1] == "end_call"


# ---- barge-in ------------------------------------------------------------------------------------------


def test_what_was_cut_before_its_question_was_not_asked() -> None:
    talk = visitor()
    talk.say("Entrega no 501", heard=0.2)  # "Certo, apar…"
    assert talk.say("Espera, espera, deixa eu falar.") == "Claro, pode falar."
    assert talk.say("É uma caixa").endswith("A entrega está em nome de quem?")


def test_an_answer_given_into_the_question_is_an_answer() -> None:
    talk = visitor()
    talk.say("Visita para a Renata no 501", heard=0.9)
    talk.say("Pedro da Silva")
    assert called(talk)["visitor_name"] == "Pedro da Silva"


def test_the_hosts_words_between_do_not_swallow_the_answer() -> None:
    talk = visitor()
    talk.history.append(UserSaid("Entrega no 501"))
    talk.host_says("Esta ligação é gravada.")
    assert talk.respond() == "Certo, apartamento 501. A entrega está em nome de quem?"


# ---- while the resident is called ----------------------------------------------------------------------


def dialing() -> Conversation:
    """A visitor whose resident is being called."""
    talk = visitor(attendant=True)
    talk.say("Eu sou a Júlia, vim visitar a Fernanda Souza no 201.")
    talk.host_says("Certo, vou chamar o apartamento 201. Um momento, por favor.")
    return talk


def test_the_visitor_hears_how_it_stands() -> None:
    talk = dialing()
    first = talk.say("E aí, vai demorar?")
    second = talk.say("Alô?")
    assert first == "Ainda estou chamando o apartamento, só um momento."
    assert second != first and "chamando" in second
    talk.backend.state = "consulting"  # type: ignore[attr-defined]
    assert talk.say("E agora?") == "Ainda estou falando com o morador, só um momento."


def test_thanks_noise_and_silence_need_no_answer_while_calling() -> None:
    talk = dialing()
    assert [talk.say("Obrigado."), talk.say(""), talk.silence()] == ["", "", ""]


def test_nothing_is_said_into_the_goodbye() -> None:
    talk = dialing()
    talk.backend.state = "closing"  # type: ignore[attr-defined]
    assert talk.say("Então posso entrar?") == ""


def test_nobody_is_called_twice() -> None:
    talk = dialing()
    for line in ("Não, é no 102", "É uma entrega", "Abre o portão", "Para o Carlos"):
        talk.say(line)
    assert talk.names().count("call_resident") == 1


def test_giving_up_and_asking_for_a_person_work_while_calling() -> None:
    talk = dialing()
    talk.say("Deixa pra lá")
    assert talk.names()[-1] == "end_call"
    talk = dialing()
    talk.say("Chama o porteiro")
    assert talk.names()[-1] == "transfer_to_attendant"


# ---- tools that fail -----------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", ["lookup_apartment", "validate_resident", "call_resident"])
def test_a_broken_tool_is_tried_twice_then_a_person_is_offered(tool: str) -> None:
    talk = visitor(attendant=True, broken=frozenset({tool}))
    answer = talk.say("Eu sou a Júlia, vim visitar a Fernanda Souza no 201.")
    assert answer.endswith("Quer falar com um atendente?")
    assert talk.names().count(tool) == 2
    talk.say("Sim")
    assert talk.names()[-1] == "transfer_to_attendant"


@pytest.mark.parametrize("tool", ["end_call", "transfer_to_attendant", "visit_status"])
def test_leaving_and_waiting_do_not_loop_over_a_broken_tool(tool: str) -> None:
    talk = visitor(attendant=True, broken=frozenset({tool}))
    talk.say("Eu sou a Júlia, vim visitar a Fernanda Souza no 201.")
    for line in ("Vai demorar?", "Quero falar com o porteiro", "Deixa pra lá"):
        talk.say(line)  # a loop fails in here
    assert talk.names().count(tool) <= 4


def test_a_call_that_will_not_end_is_not_ended_for_ever() -> None:
    talk = visitor(broken=frozenset({"end_call"}))
    for line in ("Quero falar com o porteiro", "Entrega no 999", "998", "997"):
        talk.say(line)
    assert talk.names().count("end_call") == 2


@pytest.mark.parametrize(
    ("reason", "asked"),
    [
        ("visitor_name_required", "nome"),
        ("resident_name_required", "nome de quem"),
        ("resident_not_validated", "nome"),
        ("intent_unknown", "visita, entrega ou"),
        ("whatever", "atendente"),
        ("exhausted", "atendente"),
    ],
)
def test_a_refused_call_leads_to_a_question_not_to_a_loop(reason: str, asked: str) -> None:
    def tools(name: str, given: object) -> dict[str, object]:
        if name == "lookup_apartment":
            return {"status": "found", "apartment": "501"}
        return {"status": "refused", "reason": reason}

    talk = Conversation("visitor", tools, "")
    answers = [talk.say("Entrega no 501"), talk.say("não sei"), talk.say("não sei")]
    assert asked in " ".join(answers)
    assert talk.names().count("call_resident") <= 3


@pytest.mark.parametrize("output", ["", "null", "[]", "[" * 5000, '{"status": 5}', '{"status": "found"}'])
def test_an_answer_that_can_not_be_read_is_an_error(output: str) -> None:
    talk = visitor()
    talk.say("Oi")

    class Garbled:
        def __call__(self, name: str, given: object) -> dict[str, object]:
            return {}

    talk.backend = Garbled()
    talk.say("Entrega no 501")
    assert talk.names() == ["lookup_apartment", "lookup_apartment"]
    from providers.local.dialogue.remembering import answered

    assert isinstance(answered(output), dict)
