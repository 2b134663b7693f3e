"""The gate that a tenant's settings name is the gate that it gets."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.amqp import Brokers
from bridge.gates.base import GateOrder
from bridge.gates.build import build_gate
from bridge.gates.http import HttpGate
from bridge.gates.record import KEPT, RecordGate
from bridge.gates.template import PLACEHOLDERS, check, escape, fill
from bridge.settings import Settings, SettingsError, build


def settings_with(gate: dict[str, Any], environ: dict[str, str] | None = None) -> Settings:
    return build(
        {"tenants": {"jardim": {"directory": "x.json", "gate": gate}}}, base=Path("/"), environ=environ
    )


async def test_the_recording_gate_keeps_each_order_and_no_more_than_it_should() -> None:
    gate = RecordGate()
    orders = [GateOrder(str(n), "jardim", "101", datetime.now(UTC)) for n in range(KEPT + 5)]
    answers = [await gate.open(order) for order in orders]
    assert list(gate.orders) == orders[5:]
    assert all(answer.opened and not answer.unknown for answer in answers)


def test_without_a_gate_nothing_but_a_record_is_made() -> None:
    settings = build({"tenants": {"jardim": {"directory": "x.json"}}}, base=Path("/"))
    assert isinstance(build_gate(settings.tenants["jardim"], settings.secret, Brokers().lease()), RecordGate)


def test_an_http_gate_is_made_with_its_secrets() -> None:
    auth = {"kind": "digest", "username_env": "U", "password_env": "P"}
    gate = {"kind": "http", "url": "http://10.0.0.9/", "auth": auth}
    settings = settings_with(gate, {"U": "porteiro", "P": "x"})
    assert isinstance(build_gate(settings.tenants["jardim"], settings.secret, Brokers().lease()), HttpGate)


def test_a_gate_without_its_secret_is_not_made() -> None:
    auth = {"kind": "digest", "username_env": "U", "password_env": "P"}
    settings = settings_with({"kind": "http", "url": "http://10.0.0.9/", "auth": auth}, {"U": "porteiro"})
    with pytest.raises(SettingsError, match=r"tenants\.jardim\.gate\.auth\.password_env.*P is not set"):
        build_gate(settings.tenants["jardim"], settings.secret, Brokers().lease())


def test_a_gate_whose_certificate_is_rubbish_is_not_made(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("rubbish")
    gate = {"kind": "http", "url": "https://10.0.0.9/", "ca_file": str(tmp_path / "ca.pem")}
    settings = settings_with(gate)
    with pytest.raises(SettingsError, match=r"ca_file.*PEM"):
        build_gate(settings.tenants["jardim"], settings.secret, Brokers().lease())


@pytest.mark.parametrize("template", ["{apartament}", "{visit}{door}"])
def test_a_placeholder_that_nothing_fills_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match="placeholders"):
        check(template)


def test_the_braces_of_json_are_no_placeholders() -> None:
    template = '{"actions": [{"action": "door", "parameters": "door=1"}], "flat": "{apartment}"}'
    check(template)
    filled = fill(template, dict.fromkeys(PLACEHOLDERS, "101"), "json")
    assert filled == '{"actions": [{"action": "door", "parameters": "door=1"}], "flat": "101"}'


@given(st.text(max_size=30))
def test_a_value_stays_a_value(value: str) -> None:
    import json
    import urllib.parse
    from xml.etree import ElementTree

    value = value.encode("utf-8", "replace").decode()
    assert json.loads(fill('{"a": "{apartment}"}', {"apartment": value}, "json")) == {"a": value}
    query = urllib.parse.urlsplit(fill("http://x/?a={apartment}&b=1", {"apartment": value}, "url")).query
    assert urllib.parse.parse_qsl(query, keep_blank_values=True) == [("a", value), ("b", "1")]
    xml = ElementTree.fromstring(fill('<a b="{apartment}"/>', {"apartment": value}, "xml"))
    assert len(xml) == 0 and set(xml.attrib) == {"b"}
    assert "\n" not in escape(value, "header") and "\r" not in escape(value, "header")


def test_a_value_is_not_read_for_placeholders_again() -> None:
    assert fill("{apartment}", {"apartment": "{password}", "password": "x"}, "text") == "{password}"
