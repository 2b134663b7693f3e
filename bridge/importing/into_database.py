"""What an import would change in the database: tenants and directories there, and no files.

A tenant keeps what people set and the source does not name; what the source names is as the source says. That
a tenant is an import's is told by who wrote the version in force: what people changed last is theirs, and no
`--replace` removes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bridge.importing.clients import TABLES, read_clients
from bridge.importing.directories import taken_over
from bridge.importing.extensions import drafts_of, notes_of
from bridge.importing.plan import Action, Change, Plan, Problem, together
from bridge.importing.planning import Choices, Sources, extensions_of, unused_names
from bridge.importing.tenants import Source, TenantDraft, differences
from bridge.settings import Settings
from bridge.tenants import Tenancy
from storage.catalogue import Catalogue, NewSettings, SettingsVersion, StoredDirectory


@dataclass(frozen=True, slots=True)
class Kept:
    """What there is.

    Attributes:
        settings: as the files have them.
        tenants: of the database, by their ids.
        directory: of the tenant that a directory is imported for; None: none yet.
    """

    settings: Settings
    tenants: Mapping[str, SettingsVersion] = field(default_factory=dict)
    directory: StoredDirectory | None = None


async def look(catalogue: Catalogue, settings: Settings, choices: Choices) -> Kept:
    """See what there is. Raises :class:`storage.base.StorageError`."""
    return Kept(
        settings,
        {one.tenant: one for one in await catalogue.tenants()},
        await catalogue.directory(choices.tenant) if choices.tenant else None,
    )


async def checked(plan: Plan, kept: Kept, catalogue: Catalogue) -> Plan:
    """The plan, or what is wrong with the tenants as they would be, all together."""
    if plan.problems or not plan.tenants:
        return plan
    tenancy = Tenancy(kept.settings)
    await tenancy.open(catalogue)
    lines = await tenancy.propose({name: one.content for name, one in plan.tenants.items()})
    if not lines:
        return plan
    return Plan(problems=tuple(Problem("settings", "", line) for line in lines), notes=plan.notes)


async def carry_out(plan: Plan, catalogue: Catalogue, *, by: str, at: str, source: str) -> None:
    """Have it so: all of it, or nothing.

    Raises:
        ValueError: the plan has problems.
        StorageRefused: somebody changed the same meanwhile.
    """
    if plan.problems:
        raise ValueError(f"a plan with problems is not carried out: {plan.problems[0]}")
    if plan.tenants or plan.directories:
        await catalogue.put_all(plan.tenants, plan.directories, by=by, at=at, source=source)


def plan_into_database(sources: Sources, choices: Choices, kept: Kept) -> Plan:
    """One plan of all sources, or its problems. What it makes of tenants is not checked yet."""
    plans = []
    if sources.sheet is not None:
        plans.append(_plan_directory(sources, choices, kept))
    extensions = extensions_of(sources, choices)
    drafts: tuple[TenantDraft, ...] = ()
    if extensions is not None and extensions.problems:
        plans.append(Plan(problems=extensions.problems))
    elif extensions is not None:
        drafts = drafts_of(extensions.rows, choices.known_as, choices.provider)
        notes = [
            *unused_names(extensions.rows, sources.tables, choices),
            *notes_of(extensions.rows, kept.settings.service.listen),
        ]
        plans.append(Plan(notes=tuple(notes)))
        plans.append(_plan_tenants(drafts, "extension", choices, kept, {}))
    if "clients" in sources.tables:
        read = read_clients(
            *(sources.tables[table] for table in TABLES),
            known_as=choices.known_as,
            ports={**_ports(kept), **{one.id: _pair(one.settings) for one in drafts}},
            first_port=choices.first_port,
            provider=choices.provider,
        )
        plans.append(Plan(problems=read.problems, notes=read.notes))
        if not read.problems:
            before = plans[-2].tenants if extensions is not None else {}
            plans.append(_plan_tenants(read.drafts, "client", choices, kept, before))
    return together(plans)


def _plan_directory(sources: Sources, choices: Choices, kept: Kept) -> Plan:
    sheet, tenant = sources.sheet, choices.tenant
    assert sheet is not None
    if sheet.problems:
        return Plan(problems=sheet.problems, notes=sheet.notes)
    of_files = kept.settings.tenants.get(tenant)
    if of_files is not None and of_files.directory is not None:
        found = (
            f"found {of_files.directory}, which its settings name; allowed: import without --into database"
        )
        return Plan(problems=(Problem(f"tenants.{tenant}", "directory", found),))
    old = () if kept.directory is None else kept.directory.directory.apartments
    changes, whole = taken_over(sheet, tenant, old, replacing=choices.replacing)
    notes = sheet.notes
    if of_files is None and tenant not in kept.tenants:
        notes = (*notes, f"tenant {tenant} is not there yet; its directory waits for it")
    if all(change.action == "leave" for change in changes):
        return Plan(changes, notes=notes)
    version = 0 if kept.directory is None else kept.directory.version
    return Plan(changes, notes=notes, directories={tenant: (version, whole)})


def _plan_tenants(
    drafts: Sequence[TenantDraft],
    source: Source,
    choices: Choices,
    kept: Kept,
    planned: Mapping[str, NewSettings],
) -> Plan:
    """What it takes to have these tenants. ``planned``: what another source of the same import wants."""
    changes: list[Change] = []
    problems: list[Problem] = []
    wanted: dict[str, NewSettings] = {}
    by = f"import:{source}"
    for draft in drafts:
        if draft.id in kept.settings.tenants:
            found = f"found in {kept.settings.source}; allowed: --into files"
            problems.append(Problem(f"tenants.{draft.id}", "", found))
            continue
        if draft.id in planned:
            found = "found in two sources; allowed: one of them, or another name with --as"
            problems.append(Problem(f"tenants.{draft.id}", "", found))
            continue
        old = kept.tenants.get(draft.id)
        before = {} if old is None or old.content is None else old.content
        after = {**before, **draft.settings}
        if old is not None and after == before:
            changes.append(Change("leave", "tenant", draft.id, draft.id))
            continue
        action: Action = "create" if old is None else "change"
        changes.append(Change(action, "tenant", draft.id, draft.id, differences(before, after)))
        wanted[draft.id] = NewSettings(0 if old is None else old.version, after, by)
    if choices.replacing:
        ours = {draft.id for draft in drafts} | set(planned)
        for name, one in kept.tenants.items():
            if one.by == by and name not in ours:
                changes.append(Change("remove", "tenant", name, name))
                wanted[name] = NewSettings(one.version, None, by)
    return Plan(tuple(changes), tuple(problems), tenants=wanted)


def _ports(kept: Kept) -> dict[str, tuple[int, int]]:
    """The ports of all tenants that name both."""
    of_files = {one.id: (one.visitor_port, one.resident_port) for one in kept.settings.tenants.values()}
    contents = {name: one.content or {} for name, one in kept.tenants.items()}
    return of_files | {
        name: _pair(said) for name, said in contents.items() if {"visitor_port", "resident_port"} <= set(said)
    }


def _pair(settings: Mapping[str, Any]) -> tuple[int, int]:
    return settings["visitor_port"], settings["resident_port"]


__all__ = ["Kept", "carry_out", "checked", "look", "plan_into_database"]
