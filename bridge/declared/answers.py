"""What of a service's answer a model sees: the fields that the settings name, each cut short; no I/O.

An answer is material and never an instruction. The rest of it is not kept, not logged and not shown.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Any, Final, Protocol

import orjson

EVERY: Final = "*"
"""In a pointer: each item of a list."""
DEEPEST: Final = 10
"""Steps of a pointer."""
LONGEST_NUMBER: Final = 40


class Wanted(Protocol):
    """One field of an answer that is shown."""

    @property
    def name(self) -> str:
        """What the model knows it by."""

    @property
    def at(self) -> str:
        """JSON pointer (RFC 6901); `*` for each item of a list."""

    @property
    def max_chars(self) -> int:
        """Of each text."""

    @property
    def max_items(self) -> int:
        """Of a list."""


class Unreadable(ValueError):
    """The answer is not the JSON that was expected."""


def steps(pointer: str) -> tuple[str, ...]:
    """The steps of a JSON pointer. Raises ValueError with what is allowed."""
    if pointer and not pointer.startswith("/"):
        raise ValueError("a JSON pointer, such as /customer/name")
    names = tuple(step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:])
    if len(names) > DEEPEST or names.count(EVERY) > 1:
        raise ValueError(f"a JSON pointer of up to {DEEPEST} steps, one of them {EVERY} at most")
    return names


def read(body: bytes) -> Any:
    """An answer's JSON; None of an empty one.

    Raises:
        Unreadable: it is none, or nested too deep.
    """
    if not body.strip():
        return None
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Unreadable("the answer is no JSON") from None


def chosen(document: Any, wanted: Iterable[Wanted]) -> dict[str, Any]:
    """What a model sees, by name: texts, numbers, booleans, lists of them. What is not there is left out."""
    shown = {}
    for each in wanted:
        found = _shown(_at(document, steps(each.at), each.max_items), each)
        if found is not None:
            shown[each.name] = found
    return shown


def _at(here: Any, path: tuple[str, ...], most: int) -> Any:
    for place, step in enumerate(path):
        if step == EVERY:
            if not isinstance(here, list):
                return None
            below = [_at(item, path[place + 1 :], most) for item in here[:most]]
            return [one for one in below if one is not None]
        if isinstance(here, dict):
            here = here.get(step)
        elif isinstance(here, list) and step.isascii() and step.isdigit() and len(step) < 7:
            here = here[int(step)] if int(step) < len(here) else None
        else:
            return None
    return here


def _shown(value: Any, wanted: Wanted) -> Any:
    if isinstance(value, list) and EVERY in steps(wanted.at):
        items = [_plain(item, wanted.max_chars) for item in value[: wanted.max_items]]
        return [item for item in items if item is not None]
    return _plain(value, wanted.max_chars)


def _plain(value: Any, most: int) -> str | int | float | bool | None:
    """A text without what can't be seen, cut to so many characters; a number or a boolean as it is."""
    if isinstance(value, str):
        return _line(value, most)
    if isinstance(value, bool | int | float) and len(str(value)) <= LONGEST_NUMBER:
        return value
    return None


def _line(text: str, most: int) -> str:
    text = text[: 4 * most]  # what is cut away in any case is not looked through
    kept = "".join(
        " " if unicodedata.category(char)[0] in "ZC" else char for char in text if not _format(char)
    )
    line = " ".join(kept.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _format(char: str) -> bool:
    """Characters that turn or hide others, such as a right-to-left override."""
    return unicodedata.category(char) == "Cf"
