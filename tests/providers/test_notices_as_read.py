"""What the adapters tell a model in the caller's place is read by the simulators' brains as it is meant."""

from __future__ import annotations

import pytest

from providers.openai_live_messages import words as live_words
from providers.openai_messages import exact_instructions
from providers.words import words
from tests.simulators.brain import Notice, read_notice

SENTENCE = "Olá, aqui é da portaria.\nAutoriza a entrada?"
WORDS, LIVE = words("pt"), live_words("pt")


@pytest.mark.parametrize("mark", [WORDS.note, LIVE.note, "{text}"])
@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (exact_instructions(SENTENCE, "pt"), Notice(exact=SENTENCE)),
        (WORDS.heard.format(text="Olá,"), Notice(heard="Olá,")),
        (LIVE.heard.format(text="Olá,"), Notice(heard="Olá,")),
        (WORDS.unheard, Notice(heard="")),
        (LIVE.unheard, Notice(heard="")),
        ("[silêncio] Pergunte de novo.", Notice(note="[silêncio] Pergunte de novo.")),
    ],
)
def test_a_notice_is_read_as_it_is_meant(mark: str, text: str, meant: Notice) -> None:
    assert read_notice(mark.format(text=text)) == meant


@pytest.mark.parametrize("asks", [WORDS.reply, LIVE.about])
def test_what_is_to_be_spoken_about_is_told_without_the_asking(asks: str) -> None:
    assert read_notice(asks.format(text="O portão abriu.")) == Notice(note="O portão abriu.")
