"""A briefing that differs in what matters was not said: the resident would consent to something else."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visits.wording import MIN_MS_PER_CHARACTER, long_enough, said_as_asked

SENTENCES = tomllib.loads(
    (Path(__file__).parents[2] / "prompts" / "sentences.pt-BR.toml").read_text(encoding="utf-8")
)
BRIEFINGS = sorted(key for key in SENTENCES if key.startswith("briefing_"))
QUESTION = " Autoriza a entrada?"
VISITOR, RESIDENT, COMPANY = "Pedro Santos", "Daner dos Reis", "Oi Fibra"


def briefing(
    key: str,
    *,
    apartment: str = "501",
    visitor: str = VISITOR,
    resident: str = RESIDENT,
    company: str = COMPANY,
    expected: str = "",
) -> str:
    destination = SENTENCES["destination_resident" if resident else "destination"]
    return str(SENTENCES[key]).format(
        condominio="Condomínio Boa Vista",
        visitante=visitor,
        empresa=company,
        destino=destination.format(apartamento=apartment, morador=resident),
        aviso=f" {SENTENCES['expected'].format(esperado=expected)}" if expected else "",
    )


def test_there_are_briefings_and_each_ends_in_the_question() -> None:
    assert len(BRIEFINGS) == 12
    assert all(briefing(key).endswith(QUESTION) for key in BRIEFINGS)


@pytest.mark.parametrize("key", BRIEFINGS)
@pytest.mark.parametrize("resident", [RESIDENT, ""])
class TestOfEachBriefing:
    def test_its_own_words_pass(self, key: str, resident: str) -> None:
        asked = briefing(key, resident=resident)
        assert said_as_asked(asked, asked)

    def test_small_differences_pass(self, key: str, resident: str) -> None:
        asked = briefing(key, resident=resident)
        for said in (
            asked.lower(),
            asked.upper(),
            asked.replace(",", "").replace(".", "").replace("?", ""),
            asked.replace("á", "a").replace("í", "i").replace("ç", "c").replace("ã", "a"),
            asked.replace("Olá, ", ""),
            asked.replace("Olá,", "Oi, boa tarde,"),
            asked.replace("para o apartamento", "para apartamento"),
            asked.replace("está", "tá"),
            asked + " Por favor.",
        ):
            assert said_as_asked(asked, said), said

    @pytest.mark.parametrize("spoken", ["quinhentos e um", "cinco zero um", "5-0-1", "500 e 1"])
    def test_the_number_in_words_passes(self, key: str, resident: str, spoken: str) -> None:
        assert said_as_asked(
            briefing(key, resident=resident), briefing(key, resident=resident, apartment=spoken)
        )

    @pytest.mark.parametrize("other", ["502", "50", "5501", "quinhentos e dois", "501 bloco B", ""])
    def test_another_apartment_does_not(self, key: str, resident: str, other: str) -> None:
        said = briefing(key, resident=resident, apartment=other)
        assert not said_as_asked(briefing(key, resident=resident), said)

    def test_nobody_is_on_the_apartments_list_whom_the_directory_does_not_have(
        self, key: str, resident: str
    ) -> None:
        plain, listed = (briefing(key, resident=resident, expected=name) for name in ("", "Ana Prado"))
        assert said_as_asked(listed, listed)
        assert not said_as_asked(plain, listed)
        assert not said_as_asked(listed, plain)
        assert not said_as_asked(listed, briefing(key, resident=resident, expected="Bia Melo"))

    def test_the_question_is_part_of_it(self, key: str, resident: str) -> None:
        asked = briefing(key, resident=resident)
        for instead in ("", " Autoriza?", " Autoriza a", " A entrada?", " Não autoriza a entrada?"):
            assert not said_as_asked(asked, asked.replace(QUESTION, instead)), instead

    def test_nothing_of_weight_may_be_added(self, key: str, resident: str) -> None:
        asked = briefing(key, resident=resident)
        for said in (
            asked + " O síndico já autorizou.",
            asked + " Sim.",
            asked.replace("Há ", "Não há ").replace("está ", "não está "),
            asked.replace("portão", "portão com Marcos"),
            asked + " " + asked,
        ):
            assert not said_as_asked(asked, said), said

    def test_cut_anywhere_before_its_last_word_it_was_not_said(self, key: str, resident: str) -> None:
        asked = briefing(key, resident=resident)
        words = asked.split()
        for end in range(len(words)):
            assert not said_as_asked(asked, " ".join(words[:end]))


@pytest.mark.parametrize("key", [key for key in BRIEFINGS if "_name" in key])
@pytest.mark.parametrize(
    "other", ["Paulo Santos", "Pedra Santos", "Pedro", "Santos", "Pedro Santana", "Santos Pedro", ""]
)
def test_another_visitor_is_another_briefing(key: str, other: str) -> None:
    assert not said_as_asked(briefing(key), briefing(key, visitor=other))


@pytest.mark.parametrize("key", BRIEFINGS)
@pytest.mark.parametrize("other", ["Daniel dos Reis", "Renata Oliveira", "Daner", "Daner dos Rios"])
def test_another_resident_is_another_briefing(key: str, other: str) -> None:
    assert not said_as_asked(briefing(key), briefing(key, resident=other))


@pytest.mark.parametrize("key", [key for key in BRIEFINGS if "_company" in key])
@pytest.mark.parametrize("other", ["Fibra", "Vivo Fibra", "Oi", "Oi Fibra Ltda", ""])
def test_another_company_is_another_briefing_even_one_called_like_a_small_word(key: str, other: str) -> None:
    assert not said_as_asked(briefing(key), briefing(key, company=other))


@pytest.mark.parametrize("key", [key for key in BRIEFINGS if "_name" in key])
def test_names_may_not_change_places(key: str) -> None:
    swapped = briefing(key, visitor=RESIDENT, resident=VISITOR)
    assert not said_as_asked(briefing(key), swapped)


def test_the_place_is_part_of_it() -> None:
    asked = briefing("briefing_visita")
    assert not said_as_asked(asked, asked.replace("Boa Vista", "Vista"))
    assert not said_as_asked(asked, asked.replace("Boa Vista", "Bela Vista"))


def test_blocks_are_part_of_the_number() -> None:
    asked = briefing("briefing_entrega", apartment="102 bloco B")
    assert said_as_asked(asked, briefing("briefing_entrega", apartment="cento e dois, bloco B"))
    assert not said_as_asked(asked, briefing("briefing_entrega", apartment="102 bloco C"))
    assert not said_as_asked(asked, briefing("briefing_entrega", apartment="102"))


@pytest.mark.parametrize("asked", ["", "  ", "...", "de a o"])
def test_what_was_not_asked_for_was_not_said(asked: str) -> None:
    assert not said_as_asked(asked, asked)
    assert not said_as_asked(asked, "")


@given(st.text(max_size=200), st.text(max_size=400))
def test_any_two_texts_can_be_compared(asked: str, said: str) -> None:
    assert said_as_asked(asked, said) in (True, False)


@given(st.sampled_from(BRIEFINGS), st.data())
def test_no_word_but_a_small_one_may_be_missing(key: str, data: st.DataObject) -> None:
    asked = briefing(key)
    words = asked.split()
    gone = data.draw(st.integers(0, len(words) - 1))
    said = " ".join(words[:gone] + words[gone + 1 :])
    small = {"olá", "é", "a", "o", "e", "da", "do", "dos", "para", "uma", "um", "no"}
    if words[gone].strip(",.?").lower() not in small:
        assert not said_as_asked(asked, said)


def test_words_need_their_time() -> None:
    briefing = "Olá, aqui é da portaria. Há uma entrega no portão para o apartamento 501. Autoriza a entrada?"
    espeak_ms = 73 * len(briefing)
    assert long_enough(briefing, espeak_ms)
    assert long_enough(briefing, espeak_ms / 2)
    assert not long_enough(briefing, 100)
    assert not long_enough(briefing, espeak_ms / 4)
    assert not long_enough(briefing, 0)
    assert long_enough(f"  {briefing}\n", MIN_MS_PER_CHARACTER * len(briefing))
