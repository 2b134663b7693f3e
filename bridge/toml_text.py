"""Writes a tree of plain values as TOML, which people read and edit; `tomllib` reads it back as it was."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def toml_text(tree: Mapping[str, Any]) -> str:
    """The tree as TOML: plain values first, then the tables. What is None says nothing and is left out.

    Raises:
        ValueError: a value that TOML has no word for.
    """
    return "\n".join(_table(tree, ())).strip("\n") + "\n" if tree else ""


def _table(tree: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    below = {name: value for name, value in tree.items() if _is_table(value) or _is_tables(value)}
    for name, value in tree.items():
        if name not in below and value is not None:
            yield from _plain(name, value)
    for name, value in below.items():
        place = (*path, name)
        heading = ".".join(map(_key, place))
        if isinstance(value, Mapping):
            yield from ("", f"[{heading}]")
            yield from _table(value, place)
        else:
            for row in value:
                yield from ("", f"[[{heading}]]")
                yield from _table(row, place)


def _plain(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, str) and "\n" in value and "'''" not in value and _is_printable(value):
        # A first line end behind the quotes is no part of the text.
        yield f"{_key(name)} = '''\n{value}'''"
    else:
        yield f"{_key(name)} = {_value(value)}"


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_tables(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _is_printable(text: str) -> bool:
    return all(char in "\n\t" or (ord(char) >= 0x20 and ord(char) != 0x7F) for char in text)


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _text(name)


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return _float(value)
        case str():
            return _text(value)
        case Mapping():
            inside = [f"{_key(name)} = {_value(one)}" for name, one in value.items() if one is not None]
            return f"{{{', '.join(inside)}}}"
        case Sequence():
            return f"[{', '.join(_value(one) for one in value)}]"
        case _:
            raise ValueError(f"found {type(value).__name__}; allowed: what JSON has, but null in a list")


def _float(value: float) -> str:
    if value != value or abs(value) == float("inf"):
        return str(value)
    text = repr(value)
    return text if any(char in text for char in ".en") else f"{text}.0"


def _text(value: str) -> str:
    # JSON's texts are TOML's, but for the one control character that JSON lets stand.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


__all__ = ["toml_text"]
