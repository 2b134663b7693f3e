"""Reads phrases and data rules out of a session's instructions: the engine has no sentence of its own.

The instructions are Markdown. A heading ``# Frases`` begins the phrases, ``# Dados`` the data rules; each
holds lines ``- key: text`` and ends at the next heading. A section may come more than once: a later line
replaces an earlier one of the same key, so that a tenant's additions at the end of a prompt can put a
phrase in other words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

PHRASES = "frases"
DATA = "dados"

_HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*$")
_LINE = re.compile(r"^\s*-\s*(\w+)\s*:\s*(.*?)\s*$")
_FIELD = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class PhraseBook:
    """The phrases of one role, all there and with no field that the engine can't fill."""

    phrases: Mapping[str, str]

    def say(self, key: str, **fields: str) -> str:
        """The phrase ``key`` with its fields filled.

        What fills a field is a caller's words or a tool's: braces in it stay as they are.
        """
        return _FIELD.sub(lambda match: fields[match[1]], self.phrases[key])


@dataclass(frozen=True, slots=True)
class Needs:
    """What one kind of errand needs: facts without which nobody is called, and facts only asked for."""

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()


def section(instructions: str, name: str) -> dict[str, str]:
    """The ``- key: text`` lines of every section called ``name``, whatever its case; none: empty."""
    found: dict[str, str] = {}
    inside = False
    for line in instructions.splitlines():
        heading = _HEADING.match(line)
        if heading is not None:
            inside = heading[1].casefold() == name
        elif inside and (entry := _LINE.match(line)) is not None:
            found[entry[1]] = entry[2]
    return found


def read_phrases(instructions: str, wanted: Mapping[str, frozenset[str]]) -> PhraseBook:
    """The phrases under ``# Frases``.

    Args:
        instructions: a session's instructions.
        wanted: every key that the role needs, with the fields that the engine fills in it.

    Raises:
        ValueError: names the phrases that are missing or empty, or that ask for a field nobody fills.
    """
    found = section(instructions, PHRASES)
    missing = sorted(key for key in wanted if not found.get(key))
    if missing:
        raise ValueError(f"the instructions' section '# Frases' lacks these phrases: {', '.join(missing)}")
    strange = sorted(
        f"{key}: {{{field}}}"
        for key, fields in wanted.items()
        for field in set(_FIELD.findall(found[key])) - fields
    )
    if strange:
        raise ValueError(f"phrases with a field that is never filled: {', '.join(strange)}")
    return PhraseBook({key: found[key] for key in wanted})


def read_needs(instructions: str, errands: tuple[str, ...], facts: tuple[str, ...]) -> dict[str, Needs]:
    """The rules under ``# Dados``: ``- entrega: apartamento; perguntar: morador, nome``.

    Raises:
        ValueError: an errand has no rule, or a rule names a fact that is none.
    """
    found = section(instructions, DATA)
    missing = [errand for errand in errands if errand not in found]
    if missing:
        raise ValueError(f"the instructions' section '# Dados' lacks these errands: {', '.join(missing)}")
    return {errand: _needs(errand, found[errand], facts) for errand in errands}


def _needs(errand: str, rule: str, facts: tuple[str, ...]) -> Needs:
    required, _, rest = rule.partition(";")
    label, _, optional = rest.partition(":")
    if rest.strip() and label.strip() != "perguntar":
        raise ValueError(f"'# Dados', {errand}: expected 'perguntar:' after ';', found {rest.strip()!r}")
    needs = Needs(_names(required), _names(optional))
    unknown = [name for name in (*needs.required, *needs.optional) if name not in facts]
    if unknown:
        raise ValueError(f"'# Dados', {errand}: {', '.join(unknown)} is none of {', '.join(facts)}")
    return needs


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip(" .") for name in text.split(",") if name.strip(" ."))
