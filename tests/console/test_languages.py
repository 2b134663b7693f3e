"""Both languages say everything, and nothing is said outside them."""

from __future__ import annotations

import re
import string
from html.parser import HTMLParser
from pathlib import Path

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.http.console import language
from bridge.http.console.language import LANGUAGES, choose, read_languages

CONSOLE = Path(language.__file__).parent
TEMPLATES = sorted((CONSOLE / "templates").glob("*.html"))
PYTHON = sorted(CONSOLE.glob("*.py"))
WORDLESS = {"Porteiro", "porteiro operator add ana --role admin", "CSV", "JSON", "TOML", "p50", "p95"}
"""What is called the same in every language."""
SPOKEN = ("alt", "title", "placeholder", "aria-label", "value", "data-label", "data-confirm", "data-done")
"""Attributes that people see or hear."""


IN_THE_CODE = "setting_help."
"""In English a setting's docstring is its help."""


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_both_have_every_text_with_the_same_values() -> None:
    first, *others = read_languages().values()
    both = {key: text for key, text in first.texts.items() if not key.startswith(IN_THE_CODE)}
    for other in others:
        assert set(both) == set(other.texts)
        for key, text in both.items():
            assert placeholders(text) == placeholders(other.texts[key]), key


def test_no_text_is_empty_or_markup() -> None:
    for each in read_languages().values():
        for key, text in each.texts.items():
            assert text.strip() == text != "", key
            assert not re.search(r"<\w|&\w+;", text), f"{key}: a text is no markup"


@pytest.mark.parametrize("path", [*TEMPLATES, *PYTHON], ids=lambda path: path.name)
def test_every_text_that_is_asked_for_is_there(path: Path) -> None:
    texts = read_languages()[LANGUAGES[0]].texts
    for key in re.findall(r"""\bt\(\s*["']([\w.]+)["']\s*[,)]""", path.read_text()):
        assert key in texts or f"{key}.other" in texts, key


class Said(HTMLParser):
    """What of a template's text is written in it."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        # An input's value that is never shown says nothing.
        unseen = any(("type", kind) in attributes for kind in ("hidden", "checkbox", "radio"))
        hidden = unseen or tag == "button"
        self.said += [
            value or ""
            for name, value in attributes
            if name in SPOKEN and not (name == "value" and (hidden or tag == "option"))
        ]

    def handle_data(self, data: str) -> None:
        self.said.append(data)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_words_stand_in_a_template(path: Path) -> None:
    tokens = jinja2.Environment().lex(path.read_text())
    said = Said()
    said.feed("".join(value for _, kind, value in tokens if kind == "data"))
    # What stands apart as attributes, to be put into tags, is no text.
    texts = [
        re.sub(r"\b(?:aria-describedby|aria-invalid)=\"[^\"]*\"|\bdisabled\b", "", one) for one in said.said
    ]
    words = {each.strip(" \n:—-–/()%×") for text in texts for each in text.split("·")}
    assert {each for each in words if re.search(r"[^\W\d_]", each)} <= WORDLESS


@pytest.mark.parametrize("path", sorted((CONSOLE / "static").glob("*.js")), ids=lambda path: path.name)
def test_no_portuguese_stands_in_a_script(path: Path) -> None:
    code = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("//"))
    assert not re.search(r"[à-öø-ÿÀ-ÖØ-Þ]", code)


def test_who_says_nothing_is_spoken_to_in_portuguese() -> None:
    assert choose(None, None) == "pt-BR"
    assert choose(None, "fr-CH, fr;q=0.9") == "pt-BR"
    assert choose(None, "en-GB,en;q=0.8") == "en"
    assert choose(None, "fr, en;q=0.5, pt;q=0.9") == "pt-BR"
    assert choose(None, "pt;q=0, en;q=0.1") == "en"


def test_what_was_chosen_counts_before_what_the_browser_asks_for() -> None:
    assert choose("en", "pt-BR") == "en"
    assert choose("../../etc", "en") == "en"


@given(st.text(), st.text())
def test_any_header_gives_a_language(cookie: str, header: str) -> None:
    assert choose(cookie, header) in LANGUAGES


def test_numbers_as_the_language_writes_them() -> None:
    languages = read_languages()
    assert languages["pt-BR"].number(1234.5, 1) == "1.234,5"
    assert languages["en"].number(1234.5, 1) == "1,234.5"
    assert languages["en"].duration(83) == "1:23"
    assert languages["en"].duration(3723) == "1:02:03"


def test_a_value_that_no_text_knows_is_shown_as_it_is() -> None:
    assert read_languages()["pt-BR"].of("outcome", "new kind") == "new kind"
