"""From what was read of all sources to one plan, checked as a whole against the settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bridge.importing.clients import TABLES, read_clients
from bridge.importing.directories import plan_directory
from bridge.importing.extensions import (
    TABLE_NAMES,
    Extension,
    Extensions,
    collisions,
    drafts_of,
    notes_of,
    read_extensions,
)
from bridge.importing.plan import Plan, Problem, together
from bridge.importing.sheet import Sheet
from bridge.importing.tenants import (
    Source,
    TenantDraft,
    directory_file,
    known_tenants,
    plan_tenants,
    settings_after,
)

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Choices:
    """What the operator says beside the sources.

    Attributes:
        config: the settings file.
        tenant: whose a directory is.
        known_as: tenants' ids by condominium or client.
        provider: of the tenants that come in; empty: nothing is said of it.
        first_port: where ports begin for clients that have none; None: they must have some.
        replacing: what a source does not have any more goes.
    """

    config: Path
    tenant: str = ""
    known_as: Mapping[str, str] = field(default_factory=dict)
    provider: str = ""
    first_port: int | None = None
    replacing: bool = False


@dataclass(frozen=True, slots=True)
class Sources:
    """What was read, by kind; None: there was none of it."""

    sheet: Sheet | None = None
    ramais: Extensions | None = None
    tables: Mapping[str, Rows] = field(default_factory=dict)


def plan_all(sources: Sources, choices: Choices) -> Plan:
    """One plan of all sources, or its problems.

    Raises:
        SettingsError: a file of the settings as they are can't be read.
    """
    plans = []
    if sources.sheet is not None:
        file = directory_file(choices.config, choices.tenant)
        plans.append(plan_directory(sources.sheet, choices.tenant, file, replacing=choices.replacing))
    written = {file: content for plan in plans for file, content in plan.files.items()}
    extensions = extensions_of(sources, choices)
    drafts: tuple[TenantDraft, ...] = ()
    if extensions is not None:
        drafts = () if extensions.problems else drafts_of(extensions.rows, choices.known_as, choices.provider)
        plans.append(_tenants(drafts, "extension", extensions.problems, (), choices, written))
    if "clients" in sources.tables:
        read = read_clients(
            *(sources.tables[table] for table in TABLES),
            known_as=choices.known_as,
            ports={**_known_ports(choices.config), **{one.id: _pair(one.settings) for one in drafts}},
            first_port=choices.first_port,
            provider=choices.provider,
        )
        plans.append(_tenants(read.drafts, "client", read.problems, read.notes, choices, written))
    whole = together(plans)
    if whole.problems or (extensions is None and "clients" not in sources.tables):
        return whole
    settings = settings_after(whole, choices.config)
    if isinstance(settings, tuple):
        return replace(whole, problems=settings)
    rows = extensions.rows if extensions is not None else ()
    notes = [*unused_names(rows, sources.tables, choices), *notes_of(rows, settings.service.listen)]
    return replace(whole, notes=(*notes, *whole.notes))


def unused_names(rows: Sequence[Extension], tables: Mapping[str, Rows], choices: Choices) -> list[str]:
    """A slip of the pen in --as would have a tenant come in by another name."""
    there = {one.condominium for one in rows} | {str(row["client_id"]) for row in tables.get("clients", ())}
    unused = [f"{key}={tenant}" for key, tenant in choices.known_as.items() if key not in there]
    return [f"--as {each}: there is no such condominium or client" for each in unused]


def _tenants(
    drafts: Sequence[TenantDraft],
    source: Source,
    problems: tuple[Problem, ...],
    notes: tuple[str, ...],
    choices: Choices,
    written: Mapping[Path, bytes | None],
) -> Plan:
    if problems:
        return Plan(problems=problems, notes=notes)
    plan = plan_tenants(drafts, source, choices.config, removing=choices.replacing, written=written)
    return replace(plan, notes=(*notes, *plan.notes))


def _known_ports(config: Path) -> dict[str, tuple[int, int]]:
    """The ports of the tenants whose settings name both."""
    known = known_tenants(config).items()
    return {name: _pair(said) for name, said in known if {"visitor_port", "resident_port"} <= set(said)}


def extensions_of(sources: Sources, choices: Choices) -> Extensions | None:
    """Of the file and of the table together; an intercom in both is one."""
    found = [sources.ramais] if sources.ramais is not None else []
    if "extension_ia" in sources.tables:
        found.append(read_extensions(sources.tables["extension_ia"], TABLE_NAMES, "extension_ia"))
    if not found:
        return None
    rows = tuple(dict.fromkeys(row for each in found for row in each.rows))
    problems = tuple(problem for each in found for problem in each.problems)
    return Extensions(rows, problems or tuple(collisions(rows, choices.known_as, "extensions")))


def _pair(settings: Mapping[str, Any]) -> tuple[int, int]:
    return settings["visitor_port"], settings["resident_port"]


__all__ = ["Choices", "Sources", "extensions_of", "plan_all", "unused_names"]
