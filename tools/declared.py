"""Makes a tool of what a tenant declares in its settings: its arguments validated like any other's.

What it asks of the visit is one thing: leave to ask outside (`visits.events.OutsideRequested`). Whatever is
answered there goes to the model that asked, and to nobody else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, create_model
from pydantic_core import SchemaError

from tools.registry import Tool
from visits.events import OutsideRequested, Role, ToolRequest

LARGEST: Final = 2**53
"""The largest number that every JSON reader takes as it is written."""
LONGEST: Final = 120
"""Characters of an argument that says nothing of its length."""


def declared_tool(name: str, description: str, roles: Iterable[Role], parameters: Mapping[str, Any]) -> Tool:
    """A tool that asks outside.

    Args:
        parameters: JSON schema of type `object`, whose properties are texts, numbers and booleans.
    """
    needed = parameters.get("required", ())
    properties: Mapping[str, Mapping[str, Any]] = parameters.get("properties", {})
    fields: dict[str, Any] = {
        argument: (annotation_of(schema), ... if argument in needed else None)
        for argument, schema in properties.items()
    }
    arguments = create_model(
        f"{name}_arguments", __config__=ConfigDict(extra="forbid", coerce_numbers_to_str=True), **fields
    )

    def build(call: str, role: Role, **given: Any) -> ToolRequest:
        there = {argument: value for argument, value in given.items() if value is not None}
        return OutsideRequested(call, role, name, there)

    schema = {
        "type": "object",
        "properties": {argument: dict(each) for argument, each in properties.items()},
        "required": list(needed),
        "additionalProperties": False,
    }
    return Tool(name, description, frozenset(roles), schema, arguments, build)


def annotation_of(schema: Mapping[str, Any]) -> Any:
    """The type of one argument. What is not said of it is bounded all the same."""
    kind = schema["type"]
    if kind == "boolean":
        return Annotated[bool, Field(strict=True)]
    if kind in ("integer", "number"):
        low, high = schema.get("minimum", -LARGEST), schema.get("maximum", LARGEST)
        number = int if kind == "integer" else float
        return Annotated[number, Field(strict=True, ge=low, le=high, allow_inf_nan=False)]
    if schema.get("enum"):
        return Literal[tuple(schema["enum"])]
    least, most = schema.get("minLength", 0), schema.get("maxLength", LONGEST)
    pattern = whole(schema["pattern"]) if schema.get("pattern") else None
    return Annotated[str, Field(min_length=least, max_length=most, pattern=pattern)]


def whole(pattern: str) -> str:
    """The pattern of a text that is one from its first character to its last."""
    return rf"\A(?:{pattern})\z"


def pattern_problem(pattern: str) -> str:
    """What is wrong with a pattern; empty where nothing is. It is Rust's: no text makes it slow."""
    try:
        for each in (pattern, whole(pattern)):  # alone as well: "a)|(b" is none
            TypeAdapter(Annotated[str, Field(pattern=each)])
    except SchemaError as error:
        return str(error).strip().splitlines()[-1]
    return ""


def argument_name_problem(name: str) -> str:
    """What is wrong with an argument's name; empty where nothing is."""
    if name in ("call", "role") or name.startswith("model_") or hasattr(BaseModel, name):
        return f"another name than {name!r}, which has a meaning of its own"
    return ""
