"""Sentences of a text that is being written: Portuguese abbreviations and numbers don't end them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.local.spoken import LONGEST, SentenceStream, sentences, without_marks


@pytest.mark.parametrize(
    "text",
    [
        "O Sr. João está?",
        "A Dra. Ana e o Prof. Luís moram no apto. 12, bl. B.",
        "Fica na Av. Paulista, n. 1.000.",
        "São R$ 1.500,00 por mês.",
        "O J. Silva vem às 22 h. e sai cedo.",
        "Ligue para o ramal 12, p. ex. agora.",
        "O valor é 3.5, aprox. isso.",
    ],
)
def test_one_sentence_stays_one(text: str) -> None:
    assert sentences(text) == [text]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Moro no 501. Pode subir.", ["Moro no 501.", "Pode subir."]),
        ("Ele chega às 22 h. Depois fecha.", ["Ele chega às 22 h.", "Depois fecha."]),
        ("É no bloco B. Obrigado!", ["É no bloco B.", "Obrigado!"]),
        ("Sério?! Sim… Então… espere.", ["Sério?!", "Sim…", "Então…", "espere."]),
        ('Ele disse: "não." Certo.', ['Ele disse: "não."', "Certo."]),
        ("Primeiro isto\nDepois  aquilo", ["Primeiro isto", "Depois aquilo"]),
    ],
)
def test_sentences_end_where_they_end(text: str, parts: list[str]) -> None:
    assert sentences(text) == parts


pieces = st.lists(
    st.sampled_from(
        [
            "Sr",
            ".",
            " ",
            "João",
            "501",
            "R$ 1",
            ",",
            "!",
            "\n",
            "B",
            "  ",
            "olá",
            "…",
            '"',
            "palavra " * 30,
            "x" * 90,
        ]
    ),
    max_size=60,
)


@given(pieces, st.data())
def test_however_a_text_is_cut_its_sentences_are_the_same(parts: list[str], data: st.DataObject) -> None:
    text = "".join(parts)
    stream, found, at = SentenceStream(), list[str](), 0
    while at < len(text):
        size = data.draw(st.integers(1, 40))
        found += stream.feed(text[at : at + size])
        at += size
    found += stream.rest()
    assert found == sentences(text)
    assert all(part and len(part) <= LONGEST for part in found)
    assert "".join("".join(found).split()) == "".join(text.split()), "nothing is lost"


def test_a_sentence_is_given_as_soon_as_the_next_begins() -> None:
    stream = SentenceStream()
    assert stream.feed("Um momento. ") == []
    assert stream.feed("V") == ["Um momento."]
    assert stream.feed("ou verificar.") == [] and stream.rest() == ["Vou verificar."]


def test_marks_of_layout_are_not_said() -> None:
    assert without_marks("**Vou** `verificar` [aqui].") == "Vou verificar aqui ."
