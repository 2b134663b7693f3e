"""Writes `.env.example` and the tables of docs/settings.md from the settings tree, so that both stay true.

And docs/elevenlabs-tools.json from the tools: what an ElevenLabs agent has to be given.

`.venv/bin/python setup/reference.py` writes them; a test fails where somebody forgot to.
"""

from __future__ import annotations

import json
import sys
import typing
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from bridge.annotations import is_table, members_of
from bridge.settings import (
    ENV_PREFIX,
    AnswerField,
    AriDialer,
    Attendant,
    DeclaredTool,
    Esl,
    Fallback,
    HttpGate,
    Manager,
    Parameter,
    PlainDialer,
    RecordGate,
    Service,
    Tenant,
)
from tools.registry import Tool, porteiro_tools
from visits.events import Role

ROOT = Path(__file__).resolve().parent.parent
TENANT = "jardim"
BEGIN, END = "<!-- from setup/reference.py: begin -->", "<!-- end -->"

SECRETS = """\
# The environment of the service, with everything that can be set in it. Copy it to `.env` beside
# porteiro.toml, where the service reads it itself; what the process already has in its environment wins.
# An empty value counts as not set. Settings are better kept in porteiro.toml; secrets belong here alone.

# --- secrets, by the names that porteiro.toml gives them (in settings that end in _env)

# The key of a tenant whose provider is openai or openai-live and that names no other variable
OPENAI_API_KEY=

# The key of a tenant whose provider is azure-openai and that names neither another variable nor a token_file
AZURE_OPENAI_API_KEY=

# The same where the provider is azure-voicelive
AZURE_VOICELIVE_API_KEY=

# The key of a tenant whose provider is gemini and that names no other variable
GEMINI_API_KEY=

# The same where the provider is elevenlabs
ELEVENLABS_API_KEY=
# The same where the provider is pipeline, for parts that are Deepgram's; OpenAI's have OPENAI_API_KEY
DEEPGRAM_API_KEY=

# The password of the PostgreSQL user that service.database_url names, where it has one
PGPASSWORD=

# --- where the settings are

# The settings file
#PORTEIRO_CONFIG=porteiro.toml
"""


@dataclass(frozen=True)
class Setting:
    """One leaf of the tree."""

    path: tuple[str, ...]
    kind: str
    default: str | None
    """As an environment variable has it; None: it must be given."""
    about: str

    @property
    def variable(self) -> str:
        return ENV_PREFIX + "__".join(self.path).upper()


def leaves(model: type[BaseModel], path: tuple[str, ...]) -> Iterator[Setting]:
    """The leaves below one table, in the order of its declaration."""
    for name, field in model.model_fields.items():
        if model is Tenant and name == "id":
            continue
        tables = [member for member in members_of(field.annotation) if is_table(member)]
        if not tables:
            yield Setting((*path, name), _kind(field), _default(field), _about(field, model, name))
            continue
        tables.sort(key=lambda table: table is RecordGate)  # a gate's kind must be given: HttpGate's says so
        yield from _merged([list(leaves(table, (*path, name))) for table in tables])


def _merged(kinds: list[list[Setting]]) -> Iterator[Setting]:
    """The leaves of a table that comes in several kinds; `kind` itself once, with all that it may be.

    Its default is that of the first kind, its explanation the first that there is.
    """
    shown: dict[tuple[str, ...], Setting] = {}
    for setting in (each for leaves_of_kind in kinds for each in leaves_of_kind):
        first = shown.setdefault(setting.path, setting)
        if first is not setting:
            values = " or ".join(dict.fromkeys([*first.kind.split(" or "), *setting.kind.split(" or ")]))
            shown[setting.path] = replace(first, kind=values, about=first.about or setting.about)
    yield from shown.values()


def service_settings() -> list[Setting]:
    return list(leaves(Service, ("service",)))


def tenant_settings() -> list[Setting]:
    return list(leaves(Tenant, ("tenants", TENANT)))


def fallback_settings() -> list[Setting]:
    return list(leaves(Fallback, ("fallback",)))


def tool_settings() -> list[Setting]:
    """A declared tool's, with those of one argument and of one field of its answer."""
    found: list[Setting] = []
    for each in leaves(DeclaredTool, ("tool",)):
        if each.path[1:] == ("parameters", "properties"):
            found += leaves(Parameter, (*each.path, "NAME"))
        elif each.path[1] != "parameters" or each.path[-1] == "required":
            found.append(each)
        if each.path[-1] == "answer":
            found += leaves(AnswerField, ("tool", "answer"))
    return found


def _kind(field: FieldInfo) -> str:
    """What may stand there, in a word or two."""
    names = [_name(member) for member in members_of(field.annotation) if member is not type(None)]
    rules = {type(rule).__name__: rule for rule in field.metadata}
    low = f"{rules['Ge'].ge}" if "Ge" in rules else f"above {rules['Gt'].gt}" if "Gt" in rules else ""
    high = f"to {rules['Le'].le}" if "Le" in rules else f"below {rules['Lt'].lt}" if "Lt" in rules else ""
    bounds = f", {low} {high}" if low and high else ""
    return " or ".join(dict.fromkeys(names)) + bounds


def _name(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin is tuple:
        return "list"
    if origin is dict:
        return "table"
    words = {str: "text", int: "whole number", bool: "true or false", Path: "path"}
    words |= {float: "number", Decimal: "number"}
    return words.get(annotation, "value")


def _default(field: FieldInfo) -> str | None:
    if field.default is PydanticUndefined:
        return None
    return _text(field.default)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(str(each) for each in value)
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)  # the keys of a table may be a StrEnum's: text to JSON
    return f"{value:g}" if isinstance(value, float) else str(value)


def _about(field: FieldInfo, model: type[BaseModel], name: str) -> str:
    special = {
        (HttpGate, "kind"): "`record` opens nothing and has no further settings; `http` asks a device; "
        "`amqp` tells the site's own system through a RabbitMQ queue; `dtmf` plays digits to the intercom.",
        (PlainDialer, "kind"): f"{PlainDialer.model_fields['kind'].description} `ari`: Asterisk calls the "
        "resident, as `url` and what follows it say; they belong to that kind alone. `amqp`: a click-to-call "
        "system does, by a message as `url_env` and what follows it say. `freeswitch`: FreeSWITCH does, as "
        "`dial_string`, `domain` and what follows that say; it needs `esl` and `freeswitch`.",
        (AriDialer, "dial_string"): f"{AriDialer.model_fields['dial_string'].description} With FreeSWITCH: "
        "`user/{number}@{domain}`, this kind's default, or `sofia/gateway/NAME/{number}`; one phone.",
        (Attendant, "extension"): f"{Attendant.model_fields['extension'].description} Needed where there is "
        "an attendant; so is manager.password_env, or esl.password_env.",
        (Manager, "password_env"): f"{Manager.model_fields['password_env'].description} Needed by a gate of "
        "kind `dtmf` and by an attendant where Asterisk has the calls.",
        (Esl, "password_env"): f"{Esl.model_fields['password_env'].description} Needed by a dialer of kind "
        "`freeswitch`, and by a gate of kind `dtmf` and an attendant where FreeSWITCH has the calls.",
    }
    return " ".join((special.get((model, name)) or field.description or "").split())


def env_example() -> str:
    """The text of `.env.example`."""
    parts = [SECRETS, "# --- the service\n"]
    parts += [_env_lines(setting) for setting in service_settings()]
    parts.append(f"# --- a tenant, here the one of [tenants.{TENANT}]\n")
    parts += [_env_lines(setting) for setting in tenant_settings()]
    return "\n".join(parts)


def _env_lines(setting: Setting) -> str:
    about = setting.about.replace("`", "") or setting.path[-1].replace("_", " ").capitalize()
    return f"# {about}\n#{setting.variable}={setting.default or ''}\n"


def tables() -> str:
    """The tables of docs/settings.md."""
    parts = []
    for title, settings, skip in (
        ("`[service]`", service_settings(), 1),
        (f"`[tenants.{TENANT}]`, one table for each tenant", tenant_settings(), 2),
        (f"`[[tenants.{TENANT}.fallback]]`, one table for each", fallback_settings(), 1),
        (f"`[tenants.{TENANT}.tools.NAME]`, one table for each", tool_settings(), 1),
    ):
        rows = [
            f"| `{'.'.join(each.path[skip:])}` | {each.kind} | {_shown(each)} | {each.about} |"
            for each in settings
        ]
        parts.append(
            f"### {title}\n\n| setting | is | default | |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
        )
    return "\n".join(parts)


def _shown(setting: Setting) -> str:
    if setting.default is None and setting.path[-1] not in ("visitor_port", "resident_port"):
        return "must be given"
    return f"`{setting.default}`" if setting.default else ""


def with_tables(document: str) -> str:
    """docs/settings.md with its tables renewed."""
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables()}\n{END}{after}"


TOOL_TIMEOUT_S = 20
"""So long an agent waits for an answer of ours; we wait for six seconds at most."""


def elevenlabs_tools() -> str:
    """The bodies of ElevenLabs' `POST /v1/convai/tools`, one a tool: its configuration as a client tool."""
    registry = porteiro_tools()
    tools = {one.name: one for role in Role for one in registry.of(role)}
    return json.dumps([_elevenlabs_tool(one) for one in tools.values()], ensure_ascii=False, indent=2) + "\n"


def _elevenlabs_tool(tool: Tool) -> dict[str, Any]:
    """Its schemas know a type, a description and what is required; the rest is validated here in any case."""
    only = "" if len(tool.roles) > 1 else f" Only in a call with the {next(iter(tool.roles)).value}."
    properties = {
        name: {"type": declared["type"], "description": declared["description"]}
        for name, declared in tool.parameters["properties"].items()
    }
    return {
        "tool_config": {
            "type": "client",
            "name": tool.name,
            "description": tool.description + only,
            "parameters": {
                "type": "object",
                "properties": properties,
                "required": tool.parameters.get("required", []),
            },
            "expects_response": True,
            "response_timeout_secs": TOOL_TIMEOUT_S,
        }
    }


def main() -> int:
    (ROOT / ".env.example").write_text(env_example(), encoding="utf-8")
    document = ROOT / "docs" / "settings.md"
    document.write_text(with_tables(document.read_text(encoding="utf-8")), encoding="utf-8")
    (ROOT / "docs" / "elevenlabs-tools.json").write_text(elevenlabs_tools(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
