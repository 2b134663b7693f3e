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
_UNKNOWN: Final = re.compile(r"there is no such setting(?:; did you mean (?P<like>.+)\?)?")
_NUMBER: Final = re.compile(
    r"(?P<what>a whole number|a number)"
    r"(?: (?:from (?P<ge>\S+)|above (?P<gt>\S+)))?"
    r"(?: (?:and )?(?:up )?(?:to (?P<le>\S+)|below (?P<lt>\S+)))?"
)
_LENGTH: Final = re.compile(r"(?P<what>one line|a sentence|a text) of up to (?P<n>\d+) characters")
_LENGTHS: Final = {"one line": "line", "a sentence": "sentence", "a text": "long_text"}
_CHOICE: Final = re.compile(r"'[^']*'(?:(?:, | or )'[^']*')*")
_WHAT: Final = {
    "a table": "table",
    "a list": "list",
    "text": "text",
    "true or false": "flag",
    "a list of at least one": "one",
    "a time zone's name, such as America/Sao_Paulo": "zone",
    "hours such as 22:00-07:00": "hours",
    "a date such as 2026-12-31": "date",
}
_OF_WHOM: Final = re.compile(r"resident (?P<whom>'[^']*'|\"[^\"]*\"): (?P<said>.*)", re.DOTALL)
_OF_FIELD: Final = re.compile(r"(?P<field>[a-z_]+): (?P<said>found .*)", re.DOTALL)
_ENTRY: Final = {
    re.compile(r"apartment_number must be .*, found str (?P<found>.*)", re.DOTALL): "apartment",
    re.compile(r"residents must be .*", re.DOTALL): "residents",
    re.compile(r"resident (?P<found>.*) is there twice; .*", re.DOTALL): "twice",
    re.compile(r"resident (?P<found>.*) holds no name", re.DOTALL): "no_name",
    re.compile(r"voip_number (?:must be|is missing).*", re.DOTALL): "dial",
    re.compile(r"(?:standing authorisation: )?name must be .*", re.DOTALL): "visitor",
}
"""What `visits.directory` says of an entry that a form can hold, and the page's words for it."""


_REFUSED: Final = {
    re.compile(
        r"found a (?:tenant|directory) that is kept in (?P<file>.*); allowed: those of the database"
    ): "file",
    re.compile(r"found version \d+, not \d+: somebody else changed it"): "changed",
    re.compile(r"found a visit that is running; .*"): "running",
    re.compile(r"found records of th.* that were changed; .*"): "records",
    re.compile(r"found a check that runs already; .*"): "checking",
    re.compile(r"found your own role; .*"): "own_role",
    re.compile(r"found an? \w+; allowed: (?:\w+ and above|up to (?:your own role, )?\w+)"): "role",
    re.compile(r"found an? \w+ without .*; allowed: whoever has it"): "role",
    re.compile(r"role: found .*; allowed.*|scopes: found .*; allowed are your own"): "role",
    re.compile(r"found somebody who does not answer for all tenants; .*"): "of_all",
    re.compile(r"tenant: found none; allowed: your own, (?P<own>.*)"): "own_tenant",
    re.compile(r"found (?P<n>\d+) apartments; allowed are (?P<most>\d+)"): "apartments",
    re.compile(r"found no such .*; allowed: one of your own"): "nothing",
    re.compile(r"is not the house's to decide; .*"): "not_the_house",
    re.compile(r"found a text with … in place of what is not shown to you; .*"): "masked",
    re.compile(r"found a file; allowed: none, /directory is it"): "directory",
    re.compile(r"(?P<what>port|number) '(?P<value>.*)' is (?:another tenant's|tenant '.*'s; .*)"): "taken",
    re.compile(r"goodbye or goodbyes\.authorized, not both"): "goodbyes",
    re.compile(r"sound = 'file' together with the file that it plays"): "hold_file",
    re.compile(r"authorize_key and deny_key must be two different keys"): "keys",
    re.compile(r"\{condominio\} alone in braces"): "braces",
    re.compile(r"per_usd as well: .*|per_usd = 1 for USD; .*"): "per_usd",
    re.compile(r"(?P<field>\w+) as well: provider '(?P<provider>.*)' needs it"): "provider_needs",
}
"""What is refused, and the page's words for it: `wrong.refused.*`."""


def refused(t: Language, said: str) -> str:
    """Why something is refused, in that language; "" where it has no words for it."""
    for pattern, name in _REFUSED.items():
        if (parts := pattern.fullmatch(said)) is not None:
            return t(f"wrong.refused.{name}", **parts.groupdict())
    return ""


def in_words(t: Language, said: str) -> str:
    """One complaint, in that language as far as it has words for it."""
    if told := refused(t, said):
        return told
    if said == "not set; it must be given":
        return t("wrong.missing")
    if (parts := _UNKNOWN.fullmatch(said)) is not None:
        return t("wrong.unknown_like" if parts["like"] else "wrong.unknown", like=parts["like"] or "")
    parts = _SAID.fullmatch(said)
    if parts is None:
        return said
    return t("wrong.found", found=parts["found"], allowed=_allowed(t, parts["allowed"]))


def of_entry(t: Language, said: str) -> str:
    """One complaint of a directory's entry, in that language as far as it has words for it."""
    said = said.removeprefix("standing authorisation: ")
    for pattern, name in _ENTRY.items():
        if (parts := pattern.fullmatch(said)) is not None:
            return t(f"wrong.entry.{name}", **parts.groupdict())
    if (parts := _OF_WHOM.fullmatch(said)) is not None:
        return f"{parts['whom'][1:-1]}: {of_entry(t, parts['said'])}"
    if (parts := _OF_FIELD.fullmatch(said)) is not None:
        why = parts["said"].replace("found str ", "found ", 1)
        return f"{t.of('form', parts['field'])}: {in_words(t, why)}"
    return in_words(t, said)


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
            case "string_pattern_mismatch":
                why = t("people.login_help" if one["loc"][-1] == "login" else "wrong.characters")
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
    if (length := _LENGTH.fullmatch(text)) is not None:
        return t(f"wrong.{_LENGTHS[length['what']]}", n=length["n"])
    if _CHOICE.fullmatch(text):
        return text.replace(" or ", f" {t('wrong.or')} ")
    return refused(t, text) or text
