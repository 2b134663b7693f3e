"""Says what is wrong with settings: one line a problem, with the path, what was found, what is allowed."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from bridge.annotations import is_table, members_of
from bridge.masking import masked

SECRET_NAME = re.compile(r"(^|_)(api_?key|access_?key|password|passwd|token|secret|senha)$", re.IGNORECASE)


TAGS = ("union_tag_invalid", "union_tag_not_found")
NUMERIC = ("int_", "float_", "decimal_", "greater_than", "less_than", "finite_number")
"""How the kinds of pydantic's errors begin that speak of numbers."""

PLAIN = {
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "tuple_type": "a list",
    "list_type": "a list",
    "string_type": "text",
    "path_type": "a path, as text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
}
"""What may stand in the settings, in their own words, by the kind of pydantic's error."""


class _Bool(str):
    """`true` or `false`, where it is not one that pydantic may take for a number."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def no_bools_for_numbers(model: type[BaseModel], data: Any) -> Any:
    """For a validator before all others: pydantic takes true for 1, and so a slip of the pen for a number."""
    if not isinstance(data, Mapping):
        return data
    return {name: _refusable(value, model.model_fields.get(str(name))) for name, value in data.items()}


def _refusable(value: Any, about: FieldInfo | None) -> Any:
    """The value; a bool where numbers alone are allowed as what is none."""
    members = members_of(about.annotation) if about is not None else []
    if isinstance(value, bool) and bool not in members and not {int, float, Decimal}.isdisjoint(members):
        return _Bool(str(value).lower())
    return value


class SettingsError(Exception):
    """The settings can't be used.

    Attributes:
        problems: one line each, none of which holds a secret.
        source: the file or the like that they were read from.
    """

    def __init__(self, problems: Sequence[str], source: str = "") -> None:
        self.problems = list(problems)
        self.source = source
        super().__init__("\n".join(self.problems))


def found_secrets(tree: Any, path: str = "") -> list[str]:
    """A problem for each value that looks like a secret written into the settings."""
    problems: list[str] = []
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            here = f"{path}.{name}" if path else str(name)
            if SECRET_NAME.search(str(name)) and not isinstance(value, Mapping):
                problems.append(
                    f"{here}: secrets don't belong in the settings; put it in an environment variable and "
                    f'name that: {name}_env = "…"'
                )
            else:
                problems += found_secrets(value, here)
    elif isinstance(tree, list):
        for number, value in enumerate(tree):
            problems += found_secrets(value, f"{path}.{number}")
    return problems


def problems_of(error: ValidationError, model: type[BaseModel], origins: Mapping[str, str]) -> list[str]:
    """The lines of a ValidationError of ``model``; ``origins``: which variable set a path, where one did."""
    lines: list[str] = []
    for problem in error.errors(include_url=False, include_input=True):
        kind, message = problem["type"], problem["msg"]
        names, part = _walk(model, problem["loc"])
        path = ".".join(names)
        if SECRET_NAME.search(names[-1] if names else "") and not isinstance(problem["input"], Mapping):
            continue  # found_secrets has said so, without the value
        if names[-1:] == ["id"] and kind == "string_pattern_mismatch":
            continue  # the name of the table is wrong, which has a line of its own
        if not path:
            lines += message.removeprefix("Value error, ").split("\n")
            continue
        if kind in TAGS:
            path += ".kind"
        variable = next((origins[p] for p in _upwards(path) if p in origins), "")
        where = f" (from {variable})" if variable else ""
        lines.append(f"{path}: {_found(problem, kind, names)}{where}{_allowed(problem, kind, part, names)}")
    return lines


def _found(problem: Any, kind: str, names: Sequence[str]) -> str:
    if kind in ("missing", "union_tag_not_found"):
        return "not set"
    if kind == "extra_forbidden":
        return "there is no such setting"
    if any(name.endswith("_env") for name in names):
        return "found something that is no variable's name"  # the secret itself, more often than not
    if kind == "union_tag_invalid":
        return f"found {masked(repr(problem['ctx']['tag']))}"
    shown = masked(repr(problem["input"]))
    if isinstance(problem["input"], bool):
        shown = str(problem["input"]).lower()
    elif isinstance(problem["input"], Mapping):
        shown = "a table"
    return f"found {shown if len(shown) <= 80 else shown[:77] + '…'}"


def _allowed(problem: Any, kind: str, part: type[BaseModel] | None, names: Sequence[str]) -> str:
    """What may stand there, as the end of a line."""
    if kind == "missing":
        about = part.model_fields.get(names[-1]) if part is not None else None
        return "; it must be given" if about is not None else ""
    if kind == "extra_forbidden":
        known = [name for name in part.model_fields if name != "id"] if part is not None else []
        return _suggestion(names[-1], known)
    message = problem["msg"]
    for prefix in ("Value error, ", "Input should be ", "Input should have ", "String should "):
        message = message.removeprefix(prefix)
    if kind == "literal_error":
        return f"; allowed: {message}{_hint(problem['input'], message)}"
    if kind == "union_tag_invalid":
        tags = problem["ctx"]["expected_tags"]
        return f"; allowed: {tags}{_hint(problem['ctx']['tag'], tags)}"
    if kind == "union_tag_not_found":
        return f"; it must be given{_kinds(part, names)}"
    if kind == "string_pattern_mismatch":
        message = f"text that matches {problem['ctx']['pattern']}"
    if kind == "too_short":
        message = "a list of at least one"
    return f"; allowed: {_range(part, names, kind) or PLAIN.get(kind, message)}"


def _hint(found: object, allowed: str) -> str:
    near = difflib.get_close_matches(str(found), re.findall(r"'([^']*)'", allowed), 1, 0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _kinds(part: type[BaseModel] | None, names: Sequence[str]) -> str:
    """The kinds that the table at the end of ``names`` may have."""
    annotation = part.model_fields[names[-1]].annotation if part is not None else None
    kinds = [tag for member in members_of(annotation) if is_table(member) for tag in _tags(member)]
    return f"; allowed: {', '.join(repr(kind) for kind in kinds)}" if kinds else ""


def _range(part: type[BaseModel] | None, names: Sequence[str], kind: str) -> str:
    """Both ends of what a number may be; empty where the setting is none, or has no ends."""
    about = part.model_fields.get(names[-1]) if part is not None else None
    if about is None or not kind.startswith(NUMERIC):
        return ""
    ends: dict[str, Any] = {}
    for constraint in _constraints(about):
        for end in ("ge", "gt", "le", "lt"):
            if (limit := getattr(constraint, end, None)) is not None:
                ends[end] = limit
    what = "a whole number" if int in members_of(about.annotation) else "a number"
    low = f"from {ends['ge']:g}" if "ge" in ends else f"above {ends['gt']:g}" if "gt" in ends else ""
    high = f"to {ends['le']:g}" if "le" in ends else f"below {ends['lt']:g}" if "lt" in ends else ""
    if low.startswith("above") and high:
        high = f"and {'up ' if high.startswith('to') else ''}{high}"
    return " ".join(word for word in (what, low, high) if word)


def _constraints(about: Any) -> Iterator[Any]:
    """What a field's type says of its values; also inside a union, as in ``Port | None``."""
    if isinstance(about, FieldInfo):
        for item in about.metadata:
            yield from _constraints(item)
        yield from _constraints(about.annotation)
    elif typing.get_origin(about) is typing.Annotated:
        for item in typing.get_args(about)[1:]:
            yield from _constraints(item)
    elif typing.get_origin(about) in (typing.Union, types.UnionType):
        for item in typing.get_args(about):
            yield from _constraints(item)
    else:
        yield about


def _suggestion(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 1, 0.6)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; allowed: {', '.join(known)}" if known else ""


def _upwards(path: str) -> Iterator[str]:
    """The path and all above it, nearest first."""
    while path:
        yield path
        path = path.rpartition(".")[0]


def _walk(model: type[BaseModel], loc: Sequence[str | int]) -> tuple[list[str], type[BaseModel] | None]:
    """The path as people write it, and the table that its last name stands in.

    pydantic's own location also names the member of a union and the `[key]` of a table; both are left out.
    """
    names: list[str] = []
    here: Any = model
    table: type[BaseModel] | None = model
    for step in loc:
        if step == "[key]":
            continue
        members = members_of(here)
        tagged = next((m for m in members if is_table(m) and step in _tags(m)), None)
        if tagged is not None and not any(is_table(m) and step in m.model_fields for m in members):
            here = tagged
            continue
        names.append(str(step))
        table = next((m for m in members if is_table(m)), None)
        here = _below(members, step)
    return names, table


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    kind = model.model_fields.get("kind")
    return typing.get_args(kind.annotation) if kind is not None else ()


def _below(members: Sequence[Any], step: str | int) -> Any:
    """The annotation of what ``step`` names inside one of ``members``; None where there is none."""
    for member in members:
        if is_table(member) and step in member.model_fields:
            return member.model_fields[step].annotation
        if typing.get_origin(member) is dict:
            return typing.get_args(member)[1]
        if typing.get_origin(member) is tuple:
            return typing.get_args(member)[0]
    return None
