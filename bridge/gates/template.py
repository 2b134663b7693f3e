"""Puts a visit's facts into a request: `{apartment}` and the like, escaped for where they stand."""

from __future__ import annotations

import json
import re
import urllib.parse
import xml.sax.saxutils
from collections.abc import Mapping
from typing import Literal

PLACEHOLDERS = ("visit", "apartment", "tenant", "at", "username", "password")
Place = Literal["url", "header", "json", "form", "xml", "text"]

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


def check(template: str) -> None:
    """Refuse a template with a placeholder that nothing fills.

    Only a lower-case word in braces is a placeholder: the braces of JSON stand as they are.

    Raises:
        ValueError: naming the placeholder and those that there are.
    """
    for name in _PLACEHOLDER.findall(template):
        if name not in PLACEHOLDERS:
            raise ValueError(
                f"the placeholders {', '.join(f'{{{p}}}' for p in PLACEHOLDERS)}, not {{{name}}}"
            )


def fill(template: str, values: Mapping[str, str], place: Place) -> str:
    """The template with each placeholder's value, escaped so that it can't become part of the structure."""
    return _PLACEHOLDER.sub(lambda match: escape(values[match[1]], place), template)


def escape(value: str, place: Place) -> str:
    """One value as it must be written at ``place``."""
    if place in ("url", "form"):
        # A dot is never quoted, but a value of dots alone would climb in the path.
        return urllib.parse.quote(value, safe="") if value.strip(".") else value.replace(".", "%2E")
    if place == "json":
        return json.dumps(value, ensure_ascii=False)[1:-1]
    if place == "xml":
        return xml.sax.saxutils.escape(_printable(value), {'"': "&quot;", "'": "&apos;"})
    if place == "header":
        return _printable(value).encode("ascii", "replace").decode()
    return _printable(value)


def _printable(value: str) -> str:
    """Without line ends and other control characters, which would begin a new header or break XML."""
    return "".join(char if char.isprintable() else " " for char in value)
