"""What the settings say of a value, in the words of whoever reads it.

The settings speak English: "found 'x'; allowed: a whole number from 1 to 10". What is said by a rule is said
in the page's language here; what a setting alone says stays as it is.
"""

from __future__ import annotations

import re
from typing import Final

from pydantic import ValidationError

from bridge.http.console.language import Language

_SAID: Final = re.compile(r"found (?P<found>.*?); (?:allowed: )?(?P<allowed>.*)", re.DOTALL)
_NUMBER: Final = re.compile(
    r"(?P<what>a whole number|a number)"
    r"(?: (?:from (?P<ge>\S+)|above (?P<gt>\S+)))?"
    r"(?: (?:and )?(?:up )?(?:to (?P<le>\S+)|below (?P<lt>\S+)))?"
)
_CHOICE: Final = re.compile(r"'[^']*'(?:(?:, | or )'[^']*')*")
_WHAT: Final = {
    "a table": "table",
    "a list": "list",
    "text": "text",
    "true or false": "flag",
    "a list of at least one": "one",
    "a time zone's name, such as America/Sao_Paulo": "zone",
}


def in_words(t: Language, said: str) -> str:
    """One complaint, in that language as far as it has words for it."""
    if said == "not set; it must be given":
        return t("wrong.missing")
    parts = _SAID.fullmatch(said)
    if parts is None:
        return said
    return t("wrong.found", found=parts["found"], allowed=_allowed(t, parts["allowed"]))


def invalid(t: Language, error: ValidationError) -> list[str]:
    """What is wrong with a form's fields, a line each."""
    lines = []
    for one in error.errors(include_url=False, include_input=False):
        ends = one.get("ctx", {})
        match one["type"]:
            case "missing":
                why = t("wrong.missing")
            case "string_too_short" | "too_short":
                why = t("wrong.too_short", n=ends["min_length"])
            case "string_too_long" | "too_long":
                why = t("wrong.too_long", n=ends["max_length"])
            case _:
                why = one["msg"].removeprefix("Value error, ")
        name = next((part for part in reversed(one["loc"]) if isinstance(part, str)), "")
        lines.append(f"{t.of('form', name)}: {why}")
    return lines


def _allowed(t: Language, text: str) -> str:
    if text in _WHAT:
        return t(f"wrong.{_WHAT[text]}")
    if (number := _NUMBER.fullmatch(text)) is not None:
        words = [t("wrong.whole" if "whole" in number["what"] else "wrong.number")]
        words += [
            t(f"wrong.{end}", value=number[end])
            for end in ("ge", "gt", "le", "lt")
            if number[end] is not None
        ]
        return " ".join(words)
    if _CHOICE.fullmatch(text):
        return text.replace(" or ", f" {t('wrong.or')} ")
    return text
