"""A model's call is arbitrary text from outside: it is validated, run once, answered once, or refused."""

import json
from typing import Annotated, Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from tools.registry import (
    MAX_ARGUMENTS,
    MAX_PROBLEM,
    MAX_PROBLEMS,
    Calls,
    Refused,
    Registry,
    Repeated,
    porteiro_tools,
    tool,
)
from visits import events as e
from visits.events import Role

REGISTRY = porteiro_tools()
VISITOR_TOOLS = {
    "lookup_apartment",
    "validate_resident",
    "call_resident",
    "visit_status",
    "transfer_to_attendant",
    "transfer_call",
}
RESIDENT_TOOLS = {"visit_details", "ask_visitor", "connect_parties", "authorize_entry", "deny_entry"}
BOTH = {"end_call"}
NAMES = sorted(VISITOR_TOOLS | RESIDENT_TOOLS | BOTH)
GOOD: dict[str, dict[str, str]] = {
    "lookup_apartment": {"apartment": "501"},
    "validate_resident": {"apartment": "501", "name": "Daner"},
    "call_resident": {"apartment": "501", "intent": "entrega"},
    "ask_visitor": {"question": "De que empresa?"},
    "transfer_call": {"to": "financeiro"},
}


def refusal(request: object) -> str:
    assert isinstance(request, Refused)
    assert request.result["status"] == "error"
    return str(request.result["message"])


def ask(name: str, arguments: str, role: Role = Role.VISITOR) -> object:
    return REGISTRY.request(role, "c1", name, arguments)


# ---- what is offered to whom ------------------------------------------------------------------------------


def test_each_role_is_offered_its_own_tools() -> None:
    assert {one.name for one in REGISTRY.of(Role.VISITOR)} == VISITOR_TOOLS | BOTH
    assert {one.name for one in REGISTRY.of(Role.RESIDENT)} == RESIDENT_TOOLS | BOTH


@pytest.mark.parametrize("name", sorted(RESIDENT_TOOLS))
def test_the_visitors_model_can_never_call_a_residents_tool(name: str) -> None:
    told = refusal(ask(name, json.dumps(GOOD.get(name, {})), Role.VISITOR))
    assert name in told
    assert not any(f" {theirs}" in told for theirs in RESIDENT_TOOLS), "what there is elsewhere is not told"


@pytest.mark.parametrize("name", sorted(VISITOR_TOOLS))
def test_the_residents_model_can_never_call_a_visitors_tool(name: str) -> None:
    refusal(ask(name, json.dumps(GOOD.get(name, {})), Role.RESIDENT))


def test_every_request_of_the_visits_alphabet_has_its_tool() -> None:
    made = set()
    for role in Role:
        for one in REGISTRY.of(role):
            request = REGISTRY.request(role, "c1", one.name, json.dumps(GOOD.get(one.name, {})))
            assert not isinstance(request, Refused)
            assert request.call == "c1"
            made.add(type(request))
    assert made == set(get_args(e.ToolRequest)) - {e.OutsideRequested}, "which a tenant's own tools make"


def test_end_call_carries_the_role_of_its_leg_and_not_of_its_arguments() -> None:
    for role in Role:
        assert ask("end_call", '{"reason": "engano"}', role) == e.EndRequested("c1", role, "engano")
        assert "role" in refusal(ask("end_call", '{"role": "visitor"}', role))
        assert "call" in refusal(ask("end_call", '{"call": "c9"}', role))


# ---- the schema -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_an_object_that_takes_nothing_else(name: str) -> None:
    one = next(one for role in Role for one in REGISTRY.of(role) if one.name == name)
    schema = one.parameters
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert not {"call", "role", "title"} & set(schema) | {"call", "role"} & set(schema["properties"])
    assert set(schema.get("required", ())) == {
        key for key, value in schema["properties"].items() if "default" not in value
    }
    for value in schema["properties"].values():
        assert value["type"] == "string"
        assert value["description"]
        assert value["maxLength"] <= 200
        assert "title" not in value
    assert json.loads(json.dumps(schema)) == schema
    assert one.description and "\n" not in one.description


def test_a_schema_comes_from_the_signature() -> None:
    @tool(Role.VISITOR)
    def ring(
        call: str, role: Role, often: Annotated[int, Field(ge=1)], loud: bool = False
    ) -> e.StatusRequested:
        """Ring the
        bell."""
        assert (often, loud) == (2, True)
        return e.StatusRequested(call)

    assert (ring.name, ring.description) == ("ring", "Ring the bell.")
    assert ring.parameters["required"] == ["often"]
    assert ring.parameters["properties"]["often"] == {"minimum": 1, "type": "integer"}
    assert ring.parameters["properties"]["loud"] == {"default": False, "type": "boolean"}
    registry = Registry([ring, *REGISTRY.of(Role.RESIDENT)])
    assert registry.request(Role.VISITOR, "c", "ring", '{"often": 2, "loud": true}') == e.StatusRequested("c")
    assert "often" in refusal(registry.request(Role.VISITOR, "c", "ring", '{"often": 0}'))


def test_a_tool_that_a_model_could_not_understand_is_a_fault_at_start() -> None:
    def undescribed(call: str, role: Role) -> e.StatusRequested:
        return e.StatusRequested(call)

    def without_role(call: str) -> e.StatusRequested:
        """Something."""
        return e.StatusRequested(call)

    with pytest.raises(TypeError, match="docstring"):
        tool(Role.VISITOR)(undescribed)
    with pytest.raises(TypeError, match="first two"):
        tool(Role.VISITOR)(without_role)


def test_a_registry_without_a_roles_tools_or_with_one_twice_is_a_fault_at_start() -> None:
    both = REGISTRY.of(Role.VISITOR)
    with pytest.raises(ValueError, match="two tools"):
        Registry([*both, both[0]])
    with pytest.raises(ValueError, match="resident"):
        Registry([one for one in both if one.name != "end_call"])
    with pytest.raises(ValueError, match="visitor"):
        Registry([])


# ---- the arguments ----------------------------------------------------------------------------------------


def test_arguments_reach_the_request() -> None:
    given = {"apartment": 501, "intent": "visita", "visitor_name": "Pedro", "resident_name": "Daner"}
    assert ask("call_resident", json.dumps(given)) == e.CallRequested(
        "c1", "501", "visita", "Pedro", "Daner", ""
    )


def test_null_means_left_out_where_leaving_out_is_allowed() -> None:
    given = '{"apartment": "501", "intent": "visita", "company": null}'
    assert ask("call_resident", given) == e.CallRequested("c1", "501", "visita")
    assert "intent" in refusal(ask("call_resident", '{"apartment": "501", "intent": null}'))
    assert "secret" in refusal(
        ask("call_resident", '{"apartment": "501", "intent": "visita", "secret": null}')
    )


def test_no_arguments_are_an_empty_object() -> None:
    assert ask("visit_status", "") == e.StatusRequested("c1")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("{", "no JSON"),
        ("nada", "no JSON"),
        ('{"apartment": "501"} e mais', "no JSON"),
        ("[]", "arguments"),
        ("null", "arguments"),
        ('"501"', "arguments"),
        ("501", "arguments"),
        ("NaN", "arguments"),
        ("{}", "apartment"),
        ('{"apartment": null}', "apartment"),
        ('{"apartment": ["501"]}', "apartment"),
        ('{"apartment": {"number": "501"}}', "apartment"),
        ('{"apartment": true}', "apartment"),
        ('{"apartment": "\\ud800"}', "apartment"),
        ('{"apartment": "501", "open_gate": true}', "open_gate"),
        (json.dumps({"apartment": "5" * 121}), "apartment"),
        (json.dumps({"apartment": "5" * MAX_ARGUMENTS}), "at most"),
        ('{"apartment": ' + "9" * 4000 + "}", "apartment"),
        ("[" * 4000, "arguments"),
        ('{"apartment": ' + "[" * 2000 + "]" * 2000 + "}", "a"),
    ],
)
def test_what_is_wrong_is_told_and_never_run(arguments: str, told: str) -> None:
    assert told in refusal(ask("lookup_apartment", arguments))


@pytest.mark.parametrize("name", ["", "open_gate", "authorize", "lookup_apartment ", "__class__", "x" * 500])
def test_a_tool_that_there_is_not_is_refused_with_those_that_there_are(name: str) -> None:
    told = refusal(ask(name, "{}"))
    assert "lookup_apartment" in told
    assert len(told) < 400


def test_a_refusal_repeats_only_a_little_of_what_the_model_wrote() -> None:
    many = {f"{'x' * 90}{index}": 1 for index in range(30)}
    assert len(refusal(ask("lookup_apartment", json.dumps(many)))) <= MAX_PROBLEMS * (MAX_PROBLEM + 2)


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
ARGUMENT_NAMES = [
    "apartment",
    "name",
    "intent",
    "visitor_name",
    "resident_name",
    "company",
    "question",
    "reason",
]


@given(st.sampled_from(list(Role)), st.sampled_from(NAMES) | st.text(), st.text() | JSON.map(json.dumps))
def test_no_text_of_a_model_raises(role: Role, name: str, arguments: str) -> None:
    request = REGISTRY.request(role, "c", name, arguments)
    assert isinstance(request, Refused) or request.call == "c"


@given(
    st.sampled_from(list(Role)),
    st.sampled_from(NAMES),
    st.dictionaries(st.sampled_from(ARGUMENT_NAMES), JSON | st.text(max_size=20), max_size=5),
)
@settings(max_examples=200)
def test_what_is_accepted_are_short_texts_for_the_right_role(
    role: Role, name: str, given: dict[str, Any]
) -> None:
    request = REGISTRY.request(role, "c", name, json.dumps(given))
    if isinstance(request, Refused):
        return
    assert name in {one.name for one in REGISTRY.of(role)}
    for field in type(request).__dataclass_fields__:
        value = getattr(request, field)
        assert isinstance(value, str)
        assert len(value) <= 200


# ---- once -------------------------------------------------------------------------------------------------


def test_a_call_is_run_once_and_answered_once() -> None:
    calls = Calls(REGISTRY, Role.RESIDENT)
    assert calls.begin("c1", "authorize_entry", "{}") == e.AuthorizeRequested("c1")
    assert calls.begin("c1", "authorize_entry", "{}") == Repeated(None)
    assert list(calls.unanswered) == ["c1"]
    assert calls.settle("c1", {"status": "not_yet"})
    assert not calls.settle("c1", {"status": "authorized"}), "the first answer stands"
    assert calls.begin("c1", "deny_entry", "{}") == Repeated({"status": "not_yet"})
    assert not calls.unanswered


def test_a_refused_call_is_answered_by_its_refusal() -> None:
    calls = Calls(REGISTRY, Role.VISITOR)
    refused = calls.begin("c1", "authorize_entry", "{}")
    told = refusal(refused)
    assert calls.begin("c1", "lookup_apartment", '{"apartment": "501"}') == Repeated(
        {"status": "error", "message": told}
    )
    assert not calls.settle("c1", {})
    assert not calls.unanswered


def test_an_answer_to_no_call_is_not_sent() -> None:
    assert not Calls(REGISTRY, Role.VISITOR).settle("c1", {"status": "found"})


def test_even_an_empty_answer_is_one() -> None:
    calls = Calls(REGISTRY, Role.VISITOR)
    calls.begin("c1", "visit_status", "{}")
    assert calls.settle("c1", {})
    assert not calls.settle("c1", {"status": "late"})
    assert calls.begin("c1", "visit_status", "{}") == Repeated({})


@given(st.lists(st.tuples(st.sampled_from(["begin", "settle"]), st.sampled_from("abc")), max_size=20))
def test_however_calls_and_answers_come_each_is_run_and_answered_once(steps: list[tuple[str, str]]) -> None:
    calls = Calls(REGISTRY, Role.VISITOR)
    run: list[str] = []
    answered: list[str] = []
    for step, call in steps:
        if step == "begin":
            if isinstance(calls.begin(call, "visit_status", "{}"), e.StatusRequested):
                run.append(call)
        elif calls.settle(call, {"call": call}):
            answered.append(call)
    assert len(set(run)) == len(run)
    assert len(set(answered)) == len(answered)
    assert set(calls.unanswered) == set(run) - set(answered)
