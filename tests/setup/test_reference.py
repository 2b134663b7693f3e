"""What is written about the settings is what the settings are."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import get_args
from uuid import UUID

import pytest
from elevenlabs.types import ClientToolConfigInput, LiteralJsonSchemaProperty
from pydantic import BaseModel

from bridge.settings import (
    AmqpDialer,
    AmqpGate,
    AriDialer,
    DtmfGate,
    FreeswitchDialer,
    HttpGate,
    build,
    load,
    read_env_file,
)
from tools.registry import porteiro_tools
from visits.events import Role

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "porteiro.example.toml"


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("settings_reference", ROOT / "setup" / "reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["settings_reference"] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    return module


def test_the_written_reference_is_current(reference: ModuleType) -> None:
    advice = "run .venv/bin/python setup/reference.py"
    assert (ROOT / ".env.example").read_text(encoding="utf-8") == reference.env_example(), advice
    document = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert document == reference.with_tables(document), advice
    tools = (ROOT / "docs" / "elevenlabs-tools.json").read_text(encoding="utf-8")
    assert tools == reference.elevenlabs_tools(), advice


def test_an_elevenlabs_agent_is_given_every_tool_as_the_vendor_writes_them(reference: ModuleType) -> None:
    made = [one["tool_config"] for one in json.loads(reference.elevenlabs_tools())]
    registry = porteiro_tools()
    assert {one["name"] for one in made} == {tool.name for role in Role for tool in registry.of(role)}
    for one in made:
        kind = one.pop("type")
        parsed = ClientToolConfigInput.model_validate(one)
        assert kind == "client" and parsed.expects_response and not parsed.model_extra
        assert parsed.parameters is not None and not parsed.parameters.model_extra
        for declared in (parsed.parameters.properties or {}).values():
            assert isinstance(declared, LiteralJsonSchemaProperty)
            assert declared.description and not declared.model_extra


def test_every_setting_is_explained(reference: ModuleType) -> None:
    settings = [*reference.service_settings(), *reference.tenant_settings(), *reference.fallback_settings()]
    settings += reference.tool_settings()
    assert len(settings) > 50
    assert [setting.path for setting in settings if not setting.about] == []


DIALER, GATE = "PORTEIRO_TENANTS__JARDIM__DIALER__", "PORTEIRO_TENANTS__JARDIM__GATE__"
KINDS = {
    (GATE, "http"): {"URL": "http://10.0.0.9/"},
    (GATE, "amqp"): {},
    (GATE, "dtmf"): {"DIGITS": "9"},
    (DIALER, "ari"): {"PASSWORD_ENV": "ARI_PASSWORD", "URL": "http://127.0.0.1:8088/ari"},
    (DIALER, "amqp"): {"VISIT_UUID_ON_RESIDENT_PORT": "true"},
    (DIALER, "freeswitch"): {"DIAL_STRING": "user/{number}"},
}
"""What must be given for each kind that has settings of its own."""


def own_variables(table: str, kind: str) -> set[str]:
    """The variables that a kind of gate or dialer reads."""
    parts: list[type[BaseModel]] = (
        [HttpGate, AmqpGate, DtmfGate] if table == GATE else [AriDialer, AmqpDialer, FreeswitchDialer]
    )
    (part,) = [one for one in parts if get_args(one.model_fields["kind"].annotation) == (kind,)]
    return {f"{table}{name.upper()}" for name in part.model_fields}


def test_every_variable_of_the_example_is_one_that_the_service_reads(tmp_path: Path) -> None:
    """Uncommented, the whole of `.env.example` is accepted: no name in it is wrong.

    A gate or dialer of one kind has no use for what belongs to another: each kind is tried with its own.
    """
    text = re.sub(r"(?m)^#([A-Z_]+=)", r"\1", (ROOT / ".env.example").read_text(encoding="utf-8"))
    (tmp_path / ".env").write_text(text, encoding="utf-8")
    environ = read_env_file(tmp_path / ".env")
    del environ["PORTEIRO_CONFIG"]
    (tmp_path / "porteiro.toml").write_text("")
    defaults = build({"tenants": {"jardim": {"directory": "x.json"}}}, base=tmp_path)
    read: set[str] = set()
    for gate, dialer in (("http", "ari"), ("amqp", "amqp"), ("dtmf", "freeswitch")):
        given = {"PORTEIRO_TENANTS__JARDIM__DIRECTORY": "x.json",
                 "PORTEIRO_TENANTS__JARDIM__ATTENDANT__EXTENSION": "9",
                 "PORTEIRO_TENANTS__JARDIM__FREESWITCH__DOMAIN_UUID": str(UUID(int=1)),
                 "PORTEIRO_TENANTS__JARDIM__ESL__PASSWORD_ENV": "ESL_PASSWORD",
                 "PORTEIRO_TENANTS__JARDIM__WEBHOOKS__URL": "https://house.example/events",
                 "PORTEIRO_TENANTS__JARDIM__WEBHOOKS__SECRET_ENV": "WEBHOOK_SECRET",
                 "PORTEIRO_TENANTS__JARDIM__MANAGER__PASSWORD_ENV": "AMI_PASSWORD"}  # fmt: skip
        own = dict(environ)
        for table, kind in ((GATE, gate), (DIALER, dialer)):
            given |= {f"{table}KIND": kind} | {f"{table}{key}": v for key, v in KINDS[table, kind].items()}
            fields = own_variables(table, kind)
            # What lies deeper (gate.auth.kind) belongs to the field above it.
            own = {
                name: value
                for name, value in own.items()
                if not name.startswith(table) or table + name[len(table) :].partition("__")[0] in fields
            }
        settings = load(tmp_path / "porteiro.toml", own | given)
        read |= set(own)
        assert settings.service == defaults.service
        assert settings.tenants["jardim"].limits == defaults.tenants["jardim"].limits
        assert settings.tenants["jardim"].required == defaults.tenants["jardim"].required
    assert set(environ) - read == set()


def test_the_example_loads_and_its_directory_is_there() -> None:
    settings = load(EXAMPLE, {})
    assert list(settings.tenants) == ["jardim"]
    assert [line for line in settings.problems_at_start() if "models_dir" not in line] == []


def test_the_example_loads_with_all_that_it_only_shows(tmp_path: Path) -> None:
    """Each line that is commented out is a setting: with what they replace taken away, all load.

    Another `kind` begins another way to write a table; each is tried.
    """
    tables: dict[str, list[dict[str, str]]] = {}
    here: list[dict[str, str]] = []
    for line in EXAMPLE.read_text(encoding="utf-8").splitlines():
        shown = re.sub(r"^# (?=\[|[a-z_]+ = )", "", line)
        if shown.startswith("["):
            here = tables.setdefault(shown, [{}])
        elif match := re.match(r"([a-z_]+) = (.*)", shown):
            if match[1] == "kind" and "kind" in here[-1]:
                here.append({})
            here[-1][match[1]] = match[2]
    gates, dialers = [], []
    for way in range(max(map(len, tables.values()))):
        text = "".join(
            f"{table}\n"
            + "".join(f"{key} = {value}\n" for key, value in ways[min(way, len(ways) - 1)].items())
            for table, ways in tables.items()
        )
        (tmp_path / "porteiro.toml").write_text(text, encoding="utf-8")
        tenant = load(tmp_path / "porteiro.toml", {}).tenants["jardim"]
        gates.append(tenant.gate.kind)
        dialers.append(tenant.dialer.kind)
        assert tenant.provider == "openai"
        assert tenant.attendant is not None and tenant.attendant.extension == "attendant"
    assert gates == ["record", "http", "amqp", "dtmf"]
    assert dialers == ["ari", "amqp", "amqp", "amqp"]


def test_the_three_lines_of_the_manual_are_enough(tmp_path: Path) -> None:
    manual = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```toml\n(.*?)```", manual, re.DOTALL)
    assert len(blocks) == 4
    assert len(blocks[0].splitlines()) == 3
    (tmp_path / "porteiro.toml").write_text(blocks[0] + blocks[1], encoding="utf-8")
    fallback = load(tmp_path / "porteiro.toml", {}).tenants["jardim"].fallback
    assert [each.provider for each in fallback] == ["gemini", "local"]
    (tmp_path / "porteiro.toml").write_text("".join(blocks[:3]), encoding="utf-8")
    assert load(tmp_path / "porteiro.toml", {}).tenants["jardim"].gate.kind == "http"
    (tmp_path / "porteiro.toml").write_text("".join(blocks), encoding="utf-8")
    assert load(tmp_path / "porteiro.toml", {}).tenants["jardim"].dialer.kind == "ari"
