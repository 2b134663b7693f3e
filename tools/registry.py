"""Every tool alike: its schema from its signature, its arguments validated, each call run once.

A tool is a function from validated arguments to a request to the visit (`visits.events.ToolRequest`): it
decides nothing and touches nothing. `visits/visit.py` answers the request, the host records both.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from visits.events import Role, ToolRequest

DEADLINE_S = 6.0
"""Longest time from a call to its answer; more than the visit itself waits for a transcript."""
MAX_ARGUMENTS = 4_096
"""Longest arguments that are read, in characters. A security limit: they are a model's free text."""
MAX_PROBLEMS = 3
"""How many faults of one call's arguments a model is told."""
MAX_PROBLEM = 200
"""Longest description of one, in characters: it repeats what the model wrote."""


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool.

    Attributes:
        roles: whose model may call it; every other role is refused.
        parameters: JSON schema of its arguments, an object.
        build: makes the request from the call's id, the caller's role and the validated arguments.
    """

    name: str
    description: str
    roles: frozenset[Role]
    parameters: Mapping[str, Any]
    arguments: type[BaseModel]
    build: Callable[..., ToolRequest]


def tool(*roles: Role) -> Callable[[Callable[..., ToolRequest]], Tool]:
    """Make a tool of a function: name, description and schema come from its name, docstring and signature.

    The function takes `call` (the call's id) and `role` first; the rest are the model's arguments.
    """

    def make(function: Callable[..., ToolRequest]) -> Tool:
        description = " ".join((inspect.getdoc(function) or "").split())
        if not description:
            raise TypeError(f"tool {function.__name__} has no docstring; the model needs its description")
        signature = inspect.signature(function, eval_str=True)
        names = list(signature.parameters)
        if names[:2] != ["call", "role"]:
            raise TypeError(f"tool {function.__name__} takes {names}; its first two must be call and role")
        fields: dict[str, Any] = {
            name: (parameter.annotation, ... if parameter.default is parameter.empty else parameter.default)
            for name, parameter in list(signature.parameters.items())[2:]
        }
        arguments = create_model(
            f"{function.__name__}_arguments",
            __config__=ConfigDict(extra="forbid", coerce_numbers_to_str=True),
            **fields,
        )
        schema = arguments.model_json_schema()
        schema.pop("title", None)
        for declared in schema.get("properties", {}).values():
            declared.pop("title", None)
        schema.setdefault("properties", {})
        return Tool(function.__name__, description, frozenset(roles), schema, arguments, function)

    return make


@dataclass(frozen=True, slots=True)
class Refused:
    """A call that never reaches the visit, and what its model is told."""

    result: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Repeated:
    """A call that was made before. `result` is its answer, or None while it has none yet."""

    result: Mapping[str, Any] | None


class Registry:
    """The tools there are.

    Raises:
        ValueError: two tools of one name, or none for a role (a model that says it will transfer the call
            but was given no tool is a fault that must show at start and not in a call).
    """

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._tools: dict[str, Tool] = {}
        for one in tools:
            if one.name in self._tools:
                raise ValueError(f"two tools are named {one.name}")
            self._tools[one.name] = one
        for role in Role:
            if not self.of(role):
                raise ValueError(f"no tool is offered to the {role}'s model")

    @property
    def names(self) -> tuple[str, ...]:
        """All tools' names."""
        return tuple(self._tools)

    def of(self, role: Role) -> tuple[Tool, ...]:
        """The tools that a role's model may call."""
        return tuple(one for one in self._tools.values() if role in one.roles)

    def request(self, role: Role, call: str, name: str, arguments: str) -> ToolRequest | Refused:
        """What a model's call asks of the visit.

        Args:
            call: the call's id.
            arguments: the model's text, JSON as it should be.
        """
        found = self._tools.get(name)
        if found is None or role not in found.roles:
            offered = ", ".join(one.name for one in self.of(role))
            return _refused(f"no tool {name[:64]!r} here; there are: {offered}")
        if len(arguments) > MAX_ARGUMENTS:
            return _refused(f"the arguments have {len(arguments)} characters; at most {MAX_ARGUMENTS}")
        try:
            given = json.loads(arguments or "{}")
            validated = found.arguments.model_validate(_without_nulls(found, given))
        except json.JSONDecodeError as error:
            return _refused(f"the arguments are no JSON: {error.msg} at {error.pos}")
        except ValidationError as error:
            return _refused("; ".join(_problem(one) for one in error.errors()[:MAX_PROBLEMS]))
        except RecursionError:
            return _refused("the arguments are nested too deep")
        return found.build(
            call, role, **{name: getattr(validated, name) for name in found.arguments.model_fields}
        )


def _without_nulls(tool: Tool, given: Any) -> Any:
    """The arguments without the nulls by which models say that they leave an optional one out."""
    if not isinstance(given, dict):
        return given
    optional = {name for name, field in tool.arguments.model_fields.items() if not field.is_required()}
    return {name: value for name, value in given.items() if value is not None or name not in optional}


def _refused(message: str) -> Refused:
    return Refused({"status": "error", "message": message})


def _problem(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "arguments"
    return f"{where}: {error['msg']}"[:MAX_PROBLEM]


class Calls:
    """The calls that one leg's model has made: each is run once and answered once.

    The idempotency key is the call's id: a provider that delivers a call twice, or a session that was
    replaced and replayed, gets the first answer again and nothing happens anew.
    """

    def __init__(self, registry: Registry, role: Role) -> None:
        self._registry = registry
        self._role = role
        self._answers: dict[str, Mapping[str, Any] | None] = {}

    def begin(self, call: str, name: str, arguments: str) -> ToolRequest | Refused | Repeated:
        """A call arrives."""
        if call in self._answers:
            return Repeated(self._answers[call])
        request = self._registry.request(self._role, call, name, arguments)
        self._answers[call] = request.result if isinstance(request, Refused) else None
        return request

    def settle(self, call: str, result: Mapping[str, Any]) -> bool:
        """A call is answered. False where it was answered before (or never made): then nothing is sent."""
        if call not in self._answers or self._answers[call] is not None:
            return False
        self._answers[call] = result
        return True

    @property
    def unanswered(self) -> tuple[str, ...]:
        """The ids of the calls that have no answer yet, oldest first."""
        return tuple(call for call, answer in self._answers.items() if answer is None)


OF_CONDOMINIUMS = frozenset({"lookup_apartment", "validate_resident", "call_resident", "visit_status"})
"""What a visitor's model has no use for where there are no apartments: nobody is called there, and so nobody
can be asked, and nothing opened."""


def porteiro_tools(declared: Iterable[Tool] = (), *, reception: bool = False) -> Registry:
    """The doorman's tools, and those that a tenant declares.

    Args:
        reception: without :data:`OF_CONDOMINIUMS`.

    Raises:
        ValueError: a declared one has a name of the doorman's.
    """
    from tools.ask_visitor import ask_visitor
    from tools.authorize_entry import authorize_entry
    from tools.call_resident import call_resident
    from tools.connect_parties import connect_parties
    from tools.deny_entry import deny_entry
    from tools.end_call import end_call
    from tools.lookup_apartment import lookup_apartment
    from tools.transfer_call import transfer_call
    from tools.transfer_to_attendant import transfer_to_attendant
    from tools.validate_resident import validate_resident
    from tools.visit_details import visit_details
    from tools.visit_status import visit_status

    ours = (
        lookup_apartment,
        validate_resident,
        call_resident,
        visit_status,
        transfer_to_attendant,
        transfer_call,
        visit_details,
        ask_visitor,
        connect_parties,
        authorize_entry,
        deny_entry,
        end_call,
    )
    offered = [one for one in ours if not (reception and one.name in OF_CONDOMINIUMS)]
    return Registry((*offered, *declared))


@cache
def built_in_names() -> frozenset[str]:
    """The names that no declared tool may have."""
    return frozenset(porteiro_tools().names)
