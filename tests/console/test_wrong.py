"""What is refused is said in the page's language, as far as anything is said of it."""

from __future__ import annotations

import pytest

from bridge.http.console.language import read_languages
from bridge.http.console.wrong import in_words, refused

PORTUGUESE = read_languages()["pt-BR"]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "found a tenant that is kept in porteiro.toml; allowed: those of the database",
            "Fica em porteiro.toml",
        ),
        ("found version 3, not 2: somebody else changed it", "Outra pessoa alterou"),
        ("found a manager; allowed: admin and above", "Seu perfil não permite"),
        ("found no such visit; allowed: one of your own", "Não existe, ou não é"),
        ("port '8080' is tenant 'jardim''s; allowed: one that is nobody's yet", "8080 já é de outro"),
        ("found a table; allowed: goodbye or goodbyes.authorized, not both", "preencha “Despedida” ou"),
        ("found a table; allowed: sound = 'file' together with the file that it plays", "falta o arquivo"),
        ("found '{x}'; allowed: {condominio} alone in braces", "entre chaves, só {condominio}"),
        ("is not the house's to decide; allowed are name", "Só um administrador de todos"),
        ("found 3000 apartments; allowed are 2000", "São 3000 apartamentos; o máximo é 2000."),
    ],
)
def test_refusals_are_in_portuguese(said: str, told: str) -> None:
    assert told in in_words(PORTUGUESE, said)


def test_what_nobody_has_words_for_stays_as_it_is() -> None:
    assert refused(PORTUGUESE, "something else") == ""
    assert in_words(PORTUGUESE, "something else") == "something else"
