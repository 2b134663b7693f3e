"""A declared tool's arguments are validated like any other's, and all that it asks for is to ask outside."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.declared import LARGEST, LONGEST, argument_name_problem, declared_tool, pattern_problem
from tools.registry import Refused, Registry, Tool, built_in_names, porteiro_tools
from visits.events import OutsideRequested, Role

SCHEMA: dict[str, Any] = {
    "properties": {
        "cpf": {"type": "string", "description": "x", "pattern": "[0-9]{11}"},
        "kind": {"type": "string", "description": "x", "enum": ["boleto", "nota"]},
        "days": {"type": "integer", "description": "x", "minimum": 1, "maximum": 30},
        "sum": {"type": "number", "description": "x"},
        "urgent": {"type": "boolean", "description": "x"},
        "text": {"type": "string", "description": "x"},
    },
    "required": ["cpf"],
}


def made(name: str = "lookup_customer", roles: tuple[Role, ...] = (Role.VISITOR,)) -> Tool:
    return declared_tool(name, "Procura.", roles, SCHEMA)


REGISTRY = porteiro_tools([made()])


def asked(given: object, role: Role = Role.VISITOR) -> object:
    text = given if isinstance(given, str) else json.dumps(given)
    return REGISTRY.request(role, "c1", "lookup_customer", text)


def test_what_is_well_asks_outside_and_nothing_else() -> None:
    whole: dict[str, Any] = {
        "cpf": "12345678901",
        "kind": "nota",
        "days": 3,
        "sum": 2.5,
        "urgent": True,
        "text": "Olá",
    }
    alone: dict[str, Any] = {"cpf": "12345678901"}
    for given_ in (alone, whole):
        assert asked(given_) == OutsideRequested("c1", Role.VISITOR, "lookup_customer", given_)
    left_out = {"cpf": "12345678901", "kind": None, "days": None}
    assert asked(left_out) == OutsideRequested("c1", Role.VISITOR, "lookup_customer", {"cpf": "12345678901"})


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"cpf": "1234567890"},
        {"cpf": "12345678901\n"},
        {"cpf": "12345678901", "kind": "carta"},
        {"cpf": "12345678901", "days": 31},
        {"cpf": "12345678901", "days": True},
        {"cpf": "12345678901", "days": "3"},
        {"cpf": "12345678901", "sum": 1e300},
        '{"cpf": "12345678901", "sum": NaN}',
        '{"cpf": "12345678901", "sum": 1e999}',
        {"cpf": "12345678901", "urgent": "yes"},
        {"cpf": "12345678901", "text": "x" * (LONGEST + 1)},
        {"cpf": "12345678901", "url": "http://evil.example"},
        {"cpf": ["12345678901"]},
        '{"cpf": "12345678901", "text": "\\ud800"}',
    ],
)
def test_what_is_not_is_refused(wrong: object) -> None:
    refused = asked(wrong)
    assert isinstance(refused, Refused) and refused.result["status"] == "error"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=200),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=3), below, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(st.sampled_from([*SCHEMA["properties"], "role", "x"]), VALUES, max_size=7)
    | st.dictionaries(st.just("cpf"), st.just("12345678901")).flatmap(
        lambda base: st.fixed_dictionaries(
            {"cpf": st.just("12345678901")}, optional={"text": VALUES, "sum": VALUES}
        )
    )
)
def test_any_arguments_are_refused_or_bounded(arguments: dict[str, object]) -> None:
    request = asked(arguments)
    if isinstance(request, Refused):
        return
    assert isinstance(request, OutsideRequested) and set(request.arguments) <= set(SCHEMA["properties"])
    for value in request.arguments.values():
        assert isinstance(value, str | int | float | bool)
        assert len(value) <= LONGEST if isinstance(value, str) else abs(value) <= LARGEST


def test_a_role_that_is_not_named_has_no_such_tool() -> None:
    assert isinstance(asked({"cpf": "12345678901"}, Role.RESIDENT), Refused)


@pytest.mark.parametrize("name", sorted(built_in_names()))
def test_no_tool_of_ours_can_be_declared_anew(name: str) -> None:
    with pytest.raises(ValueError, match=f"two tools are named {name}"):
        porteiro_tools([made(name)])


def test_its_schema_is_what_was_declared_and_takes_nothing_else() -> None:
    (tool,) = [one for one in REGISTRY.of(Role.VISITOR) if one.name == "lookup_customer"]
    assert tool.parameters == {**SCHEMA, "type": "object", "additionalProperties": False}
    assert isinstance(REGISTRY, Registry)


@given(st.text(max_size=20))
def test_any_pattern_is_a_pattern_or_has_a_problem(pattern: str) -> None:
    if pattern_problem(pattern):
        return
    schema = {"properties": {"a": {"type": "string", "description": "x", "pattern": pattern}}}
    declared_tool("any_tool", "x", [Role.VISITOR], schema)


@pytest.mark.parametrize("pattern", ["(?=a)", "a)|(b", "[", "(?P<n>a", "a{99999999}"])
def test_what_is_no_pattern_is_said(pattern: str) -> None:
    assert pattern_problem(pattern)


@pytest.mark.parametrize("name", ["call", "role", "json", "copy", "model_fields", "model_x"])
def test_names_with_a_meaning_of_their_own_are_taken(name: str) -> None:
    assert argument_name_problem(name)
    assert not argument_name_problem("cpf")
