"""Apartment numbers as people say them and recognisers write them, and the numbers that are none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visits.spoken_numbers import apartment_mentions, collapsed

UNITS = ["", "um", "dois", "três", "quatro", "cinco", "seis", "sete", "oito", "nove"]
TEENS = [
    *("dez", "onze", "doze", "treze", "quatorze"),
    *("quinze", "dezesseis", "dezessete", "dezoito", "dezenove"),
]
TENS = ["-", "-", "vinte", "trinta", "quarenta", "cinquenta", "sessenta", "setenta", "oitenta", "noventa"]
HUNDREDS = [
    *("-", "cento", "duzentos", "trezentos", "quatrocentos"),
    *("quinhentos", "seiscentos", "setecentos", "oitocentos", "novecentos"),
]
DIGITS = ["zero", *UNITS[1:]]


def parts(number: int) -> list[str]:
    """The words of a number below 1000 that "e" joins."""
    if number == 100:
        return ["cem"]
    found = []
    if number >= 100:
        found.append(HUNDREDS[number // 100])
    rest = number % 100
    if 10 <= rest < 20:
        return [*found, TEENS[rest - 10]]
    if rest >= 20:
        found.append(TENS[rest // 10])
    if rest % 10:
        found.append(UNITS[rest % 10])
    return found


def spelled(number: int) -> str:
    """A number as it is said: 1502 is "mil quinhentos e dois"."""
    below = " e ".join(parts(number % 1000))
    if number < 1000:
        return below
    thousands = "mil" if number < 2000 else f"{' e '.join(parts(number // 1000))} mil"
    joint = " e " if 0 < number % 1000 < 100 or number % 1000 % 100 == 0 else " "
    return f"{thousands}{joint}{below}" if below else thousands


def only(text: str) -> str:
    """The plain reading of the one mention in a text."""
    (mention,) = apartment_mentions(text)
    return mention.number


@pytest.mark.parametrize("number", [*range(1, 1000), *range(1000, 10000, 7)])
def test_every_number_is_understood_composed(number: int) -> None:
    assert only(f"apartamento {spelled(number)}") == str(number)


@pytest.mark.parametrize("number", range(10, 3000, 3))
def test_every_number_is_understood_digit_by_digit(number: int) -> None:
    words = [DIGITS[int(digit)] for digit in str(number)]
    assert only(f"no {' '.join(words)}") == str(number)
    assert only(f"no {'-'.join(str(number))}") == str(number)
    assert only(f"no {' '.join(str(number))}") == str(number)
    assert only(f"no {', '.join(words)}.") == str(number)


@pytest.mark.parametrize("number", [n for n in range(101, 1000) if n % 100])
def test_the_glued_writing_of_a_number_keeps_it_as_an_alternative(number: int) -> None:
    (mention,) = apartment_mentions(f"apartamento {number // 100 * 100}{number % 100}")
    assert str(number) in mention.alternatives


@pytest.mark.parametrize("number", [n for n in range(101, 1000) if n % 100])
def test_half_digits_half_words(number: int) -> None:
    hundred, rest = number // 100 * 100, number % 100
    assert only(f"no {hundred} e {rest}.") == str(number)
    assert only(f"no {hundred} e {' e '.join(parts(rest))}") == str(number)


@pytest.mark.parametrize(
    ("text", "number", "alternatives", "block"),
    [
        ("Boa tarde, tem uma entrega para o apartamento 5001.", "5001", ("501",), None),
        ("vem visitar a Fernanda, Souza no 2001", "2001", ("201",), None),
        ("no 50012", "50012", ("512",), None),
        ("no 500201", "521", (), None),
        ("no 10002", "10002", ("1002",), None),
        ("mil e dois", "1002", (), None),
        ("apartamento 1.001", "1001", ("101",), None),
        ("apartamento 5.001", "5001", ("501",), None),
        ("102 bloco B", "102", (), "B"),
        ("bloco B 102", "102", (), "B"),
        ("no bloco B, apartamento 102", "102", (), "B"),
        ("apartamento cento e dois do bloco bê", "102", (), "B"),
        ("cento e dois bloco dê", "102", (), "D"),
        ("102 torre norte", "102", (), "NORTE"),
        ("bloco dois apartamento cento e dois", "102", (), "2"),
        ("bloco 2, 102", "102", (), "2"),
        ("bloco dois cento e dois", "102", (), "2"),
        ("102B", "102", (), "B"),
        ("B-102", "102", (), "B"),
        ("102-A", "102", (), "A"),
        ("É no 102 A.", "102", (), "A"),
        ("no 102 a Maria está esperando", "102", (), None),
        ("apto. 12", "12", (), None),
        ("ap 7", "7", (), None),
        ("apartamento um", "1", (), None),
        ("casa dois, por favor", "2", (), None),
        ("é no três.", "3", (), None),
        ("dez zero um", "1001", (), None),
        ("doze zero dois", "1202", (), None),
        ("meia zero um", "601", (), None),
        ("um meia dois", "162", (), None),
        ("a partamento 501", "501", (), None),
        ("Apastamento 5-0-1.", "501", (), None),
        ("Eu sou o morador do 500 e um pode autorizar a minha entrada.", "501", (), None),
        ("no 500 e 2.", "502", (), None),
        ("no 522.", "522", (), None),
        ("zero um zero dois", "102", (), None),
        ("cobertura", "cobertura", (), None),
        ("na cobertura dois", "cobertura 2", ("2",), None),
        ("cobertura 1502", "cobertura 1502", ("1502",), None),
        ("quinhentos e um por favor", "501", (), None),
        ("501, por favor", "501", (), None),
        ("no quinhentos e um para a Renata", "501", (), None),
        ("vinte e um", "21", (), None),
    ],
)
def test_a_mention(text: str, number: str, alternatives: tuple[str, ...], block: str | None) -> None:
    (mention,) = apartment_mentions(text)
    assert (mention.number, mention.alternatives, mention.block) == (number, alternatives, block)
    assert mention.exact


@pytest.mark.parametrize(
    "text",
    [
        "",
        "um momento",
        "só um minuto",
        "uma entrega",
        "é um técnico",
        "tenho uma encomenda",
        "Eu sou um amigo dela",
        "são dois pacotes",
        "2 pacotes",
        "tenho 12 caixas",
        "vinte reais",
        "R$ 50",
        "às 15 horas",
        "às duas e meia",
        "meia hora",
        "em 10 minutos",
        "daqui a 5 minutos",
        "no 5º andar",
        "quinto andar",
        "vaga 12",
        "99999-1234",
        "meu telefone é 11 99999 1234",
        "50%",
        "do que em Ando-Ci-1.",
        "Não sei o número do apartamento.",
        "nós dois",
        "duas pessoas",
        "zero",
        "sei lá",
        "um",
        "uma",
        "meia",
    ],
)
def test_what_is_no_apartment(text: str) -> None:
    assert apartment_mentions(text) == []


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("do quinhendo-se um.", "501"),
        ("É para o Daniel, do quinhando-se um.", "501"),
        ("no dusentos e um", "201"),
        ("seicentos e dois", "602"),
        ("no setessentos e dois", "702"),
    ],
)
def test_a_misspelt_hundred_is_read_but_not_sure(text: str, number: str) -> None:
    (mention,) = apartment_mentions(text)
    assert (mention.number, mention.exact) == (number, False)


@pytest.mark.parametrize("word", ["documentos", "presentes", "recentes", "assentos", "encomenda"])
def test_other_words_are_no_hundreds(word: str) -> None:
    assert apartment_mentions(f"são {word} dela") == []


def test_a_word_between_two_hundreds_is_not_guessed() -> None:
    assert all(mention.number not in {"600", "700"} for mention in apartment_mentions("seiscentas etecentos"))


def test_several_mentions_stand_in_order_with_their_spans() -> None:
    text = "não é no 501, é no quinhentos e dois do bloco B"
    mentions = apartment_mentions(text)
    assert [mention.number for mention in mentions] == ["501", "502"]
    assert [text[mention.start : mention.end] for mention in mentions] == [
        "501",
        "quinhentos e dois do bloco B",
    ]
    assert [mention.block for mention in mentions] == [None, "B"]


def test_counts_do_not_hide_the_apartment() -> None:
    assert only("tenho 2 pacotes para o 501") == "501"
    assert only("uma entrega de duas caixas no cento e um") == "101"
    assert only("cheguei às 15 horas, é no 302") == "302"


@pytest.mark.parametrize(
    ("digits", "glued"),
    [("5001", ("501",)), ("2001", ("201",)), ("501", ()), ("202", ()), ("1000", ()), ("500201", ("521",))],
)
def test_collapsed(digits: str, glued: tuple[str, ...]) -> None:
    assert collapsed(digits) == glued


@given(st.text())
def test_any_text_can_be_searched(text: str) -> None:
    for mention in apartment_mentions(text):
        assert 0 <= mention.start < mention.end <= len(text)
        assert mention.number


FRAGMENTS = [
    "500",
    "e",
    "um",
    "0",
    "cento",
    "bloco",
    "B",
    "mil",
    "-",
    ",",
    "apartamento",
    "a",
    "cobertura",
    "5o",
]


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=8).map(" ".join))
def test_any_mix_of_number_words_can_be_searched(text: str) -> None:
    for mention in apartment_mentions(text):
        assert 0 <= mention.start < mention.end <= len(text)
        assert all(reading and len(reading) <= 15 for reading in mention.readings)
        assert mention.number not in mention.alternatives
