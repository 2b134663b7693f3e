"""Which of a tenant's settings whoever is bound to it may see and change: those that the house decides.

All else needs somebody who answers for all tenants: a URL, a file, a port or a variable's name in the wrong
hands would give away another tenant's secret, or open another's gate.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Final

HOUSE_FIELDS: Final = (
    "name",
    "language",
    "timezone",
    "voice",
    "greeting",
    "goodbye",
    "goodbyes",
    "hold_audio",
    "prompt_extra",
    "required",
    "recording",
    "limits",
    "consent",
    "backchannels",
    "attendant",
)
"""Top-level settings of which a house decides all, or all but what is below."""
_NOT_OF: Final = {"limits": ("max_calls",), "hold_audio": ("file",)}
"""What it does not decide of them."""
_ONLY_OF: Final = {"attendant": ("name",)}
"""All that it does decide of them."""


def house_part(content: Mapping[str, Any]) -> dict[str, Any]:
    """What of a tenant's settings the house decides."""
    part: dict[str, Any] = {}
    for field in HOUSE_FIELDS:
        if field not in content:
            continue
        value = content[field]
        if isinstance(value, Mapping):
            value = {name: below for name, below in value.items() if _decides(field, name)}
            if not value and field in _ONLY_OF:
                continue
        part[field] = value
    return copy.deepcopy(part)


def merged(stored: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The stored settings with the house's part replaced by what is given, all of which is the house's."""
    whole = {field: value for field, value in stored.items() if field not in HOUSE_FIELDS}
    for field in HOUSE_FIELDS:
        kept = _others_part(field, stored.get(field))
        if field in given and isinstance(given[field], Mapping):
            whole[field] = {**kept, **given[field]}
        elif field in given:
            whole[field] = given[field]
        elif kept:
            whole[field] = kept
    return copy.deepcopy(whole)


def not_the_houses(given: Mapping[str, Any]) -> Iterator[str]:
    """The fields of what is given that the house does not decide, by their paths."""
    for field, value in given.items():
        if field not in HOUSE_FIELDS:
            yield field
        elif isinstance(value, Mapping):
            yield from (f"{field}.{name}" for name in value if not _decides(field, name))
        elif field in _ONLY_OF:
            yield field


def _others_part(field: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {}
    return {name: below for name, below in value.items() if not _decides(field, name)}


def _decides(field: str, name: str) -> bool:
    if field in _ONLY_OF:
        return name in _ONLY_OF[field]
    return name not in _NOT_OF.get(field, ())
