"""What a tenant may declare: bounded on every side, and nothing that comes near a gate."""

from __future__ import annotations

import contextlib
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.commands.check import summary
from bridge.declared.calls import movers_of_the_gate
from bridge.http.rights import not_the_houses
from bridge.settings import Settings, SettingsError, build
from tools.registry import built_in_names

TOOL: dict[str, Any] = {
    "description": "Procura um cliente.",
    "url": "https://crm.example/c/{cpf}",
    "parameters": {"properties": {"cpf": {"description": "O CPF."}}, "required": ["cpf"]},
    "answer": [{"name": "name", "at": "/name"}],
}


def declared(name: str = "lookup_customer", tenant: dict[str, Any] | None = None, **own: Any) -> Settings:
    return build({"tenants": {"jardim": {"tools": {name: {**TOOL, **own}}, **(tenant or {})}}})


def test_a_tool_is_what_was_declared() -> None:
    tool = declared().tenants["jardim"].tools["lookup_customer"]
    assert tool.roles == ("visitor",) and tool.host_and_port == ("crm.example", 443)
    assert tool.parameters.as_schema == {
        "type": "object",
        "properties": {"cpf": {"type": "string", "description": "O CPF."}},
        "required": ["cpf"],
    }


@pytest.mark.parametrize("name", [*sorted(built_in_names()), "Open", "x", "a-b", "a" * 60, ""])
def test_no_tool_takes_a_name_of_ours_or_one_that_models_do_not_take(name: str) -> None:
    with pytest.raises(SettingsError, match=r"tenants\.jardim\.tools"):
        declared(name)


MANY = {f"a{n}": {"description": "x"} for n in range(13)}


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"url": "http://crm.example/"}, "https://, or private_network = true"),
        ({"url": "https://{cpf}.example/"}, "without placeholders in it"),
        ({"method": "POST", "retries": 1}, "no retries"),
        ({"method": "PUT", "cache_s": 5}, "no cache_s"),
        ({"body": {"a": "b"}}, "no body: GET has none"),
        ({"timeout_s": 6}, "above 0 and up to 5"),
        ({"calls_per_visit": 21}, "from 1 to 20"),
        ({"headers": {"Authorization": "Bearer x"}}, "headers_env"),
        ({"headers": {"X-A": "1"}, "headers_env": {"x-a": "A"}}, "each header once"),
        ({"answer": [{"name": "a", "at": "/a"}] * 2}, "each name of answer once"),
        ({"answer": [{"name": "a", "at": "/a/*", "max_chars": 1000, "max_items": 20}]}, "up to 4000"),
        ({"parameters": {"properties": MANY}}, "at most 12"),
        ({"parameters": {"required": ["cpf"]}}, "names of properties"),
        (
            {"parameters": {"properties": {"cpf": {"description": "x", "maxLength": 9999}}}},
            "0 to 1000|1 to 1000",
        ),
        (
            {"parameters": {"properties": {"cpf": {"description": "x", "enum": []}}, "type": "array"}},
            "object",
        ),
        ({"parameters": {"additionalProperties": True}}, "False"),
        ({"roles": []}, "at least one"),
        ({"description": "\u202e"}, "tells the model"),
    ],
)
def test_what_goes_beyond_is_refused(own: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        declared(**own)


GATE = {"kind": "http", "url": "http://door.example/open"}


def test_no_tool_of_any_tenant_speaks_to_a_gate() -> None:
    with pytest.raises(SettingsError, match=r"found door\.example, where tenants\.jardim\.gate is"):
        declared(url="https://DOOR.example.:8443/{cpf}", tenant={"gate": GATE})
    with pytest.raises(SettingsError, match=r"tenants\.bosque\.tools\.lookup_customer\.url"):
        build(
            {
                "tenants": {
                    "jardim": {"gate": GATE},
                    "bosque": {
                        "visitor_port": 1,
                        "resident_port": 2,
                        "tools": {"lookup_customer": {**TOOL, "url": "https://door.example/"}},
                    },
                }
            }
        )


def test_what_moves_a_gate_is_known() -> None:
    text = """
    [tenants.a]
    gate = { kind = "amqp" }
    dialer = { kind = "ari", password_env = "P", url = "http://127.0.0.1:8088/ari" }
    manager = { password_env = "P", url = "https://pbx.example" }
    freeswitch = { domain_uuid = "9d2f1c1e-4a1b-4f0e-8f5e-2f6f3a1b7c55" }
    esl = { password_env = "P", host = "switch.example" }
    """
    tenant = build(tomllib.loads(text)).tenants["a"]
    assert movers_of_the_gate(
        tenant, lambda name: "amqp://u:p@broker.example/v" if name == "AMQP_URL" else ""
    ) == [
        ("broker.example", None),
        ("127.0.0.1", 8088),
        ("pbx.example", 443),
        ("switch.example", 8021),
    ]


def test_only_who_answers_for_all_tenants_declares_a_tool() -> None:
    assert list(not_the_houses({"tools": {}, "departments": {}, "extensions": [], "kind": "reception"})) == [
        "tools",
        "departments",
        "extensions",
        "kind",
    ]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("{cpf}"),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=8), below, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*TOOL, "method", "headers", "body", "roles", "retries"]), VALUES))
def test_whatever_is_declared_is_judged(own: dict[str, Any]) -> None:
    with contextlib.suppress(SettingsError):
        declared(**own)


# ---- receptions -------------------------------------------------------------------------------------------

OFFICE: dict[str, Any] = {"kind": "reception", "provider": "openai"}


def test_a_reception_needs_neither_a_directory_nor_a_gate() -> None:
    tenant = build({"tenants": {"prado": OFFICE}}).tenants["prado"]
    assert tenant.gate.kind == "record" and tenant.directory is None


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"gate": GATE}, "no gate"),
        ({"directory": "x.json"}, "no directory"),
        ({"dialer": {"kind": "amqp"}}, "no dialer"),
        ({"provider": "local"}, "a provider with a language model"),
        ({"fallback": [{"provider": "local"}]}, "a provider with a language model"),
        ({"provider": "pipeline"}, "a provider with a language model"),
        ({"departments": {"Vendas": {"extension": "1"}}}, "whom to put callers through to"),
        ({"extensions": ["2XX; rm"]}, "text that matches"),
        ({"departments": {"!": {"extension": "1"}}}, "a name with words in it"),
    ],
)
def test_what_a_reception_can_not_have_is_said(own: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        build({"tenants": {"prado": OFFICE | own}})


def test_the_manuals_examples_are_settings() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "tools.md").read_text(encoding="utf-8")
    examples = re.findall(r"```toml\n(.*?)```", manual, re.DOTALL)
    assert len(examples) == 2
    tenants = build(tomllib.loads("".join(examples))).tenants
    assert set(tenants["jardim"].tools) == {"create_ticket"}
    assert set(tenants["prado"].tools) == {"lookup_customer", "check_appointment"}
    assert {name for one in tenants.values() for _, name in one.secret_variables} == {
        *("OPENAI_API_KEY", "TICKETS_SIGNING_SECRET", "CRM_AUTHORIZATION", "AMI_PASSWORD")
    }


def test_a_check_says_what_may_be_asked_where() -> None:
    reception = build({"tenants": {"prado": {**OFFICE, "tools": {"lookup_customer": TOOL}}}})
    assert summary(reception)[-2:] == [
        "prado (prado): a reception, callers on port 8080, provider openai, calls not recorded",
        "prado: lookup_customer may be called for the visitor: GET at crm.example",
    ]
