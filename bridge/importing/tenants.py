"""What importing tenants would change: one fragment of the settings for each, in `porteiro.d`.

A fragment holds what its source says and no more: whatever porteiro.toml says of the same tenant counts
before it, so nothing that people wrote is ever touched. The file's name says the source:
`extension-jardim.toml`.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bridge.importing.plan import Change, Plan, Problem
from bridge.settings import (
    Settings,
    SettingsError,
    fragment_files,
    fragments_folder,
    load,
    written_tree,
)
from bridge.settings_disk import directory_problem
from visits.words import fold

Source = Literal["extension", "client"]
TENANT_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


@dataclass(frozen=True, slots=True)
class TenantDraft:
    """A tenant as a source knows it. ``settings``: by name, as the settings file has them."""

    id: str
    settings: Mapping[str, str | int | list[str]] = field(default_factory=dict)


def tenant_id(text: str) -> str:
    """A tenant's id out of a name: "Condomínio Jardim" → "condominio-jardim"; empty where nothing is left."""
    return re.sub(r"[^a-z0-9]+", "-", fold(text)).strip("-")[:63].rstrip("-")


def known_tenants(config: Path) -> dict[str, Mapping[str, Any]]:
    """What the settings file and its fragments say of each tenant, unchecked."""
    tenants: dict[str, Mapping[str, Any]] = {}
    for file in (*fragment_files(config), config):
        for name, said in _tenants(written_tree(file)).items():
            tenants[name] = {**tenants.get(name, {}), **said}
    return tenants


def directory_file(config: Path, tenant: str) -> Path:
    """Where a tenant's directory lies: where its settings say, else in `directories` beside them."""
    own = known_tenants(config).get(tenant, {}).get("directory")
    return config.parent / (own if isinstance(own, str) else f"directories/{tenant}.json")


def plan_tenants(
    drafts: Sequence[TenantDraft],
    source: Source,
    config: Path,
    *,
    removing: bool,
    written: Mapping[Path, bytes | None],
) -> Plan:
    """What it takes to have these tenants in the settings.

    Args:
        drafts: each tenant once.
        config: the settings file.
        removing: tenants that came from this source and are no more there go.
        written: directories that the same import writes.
    """
    folder = fragments_folder(config)
    own = _tenants(written_tree(config))
    old = {file: _written(file) for file in fragment_files(config) if file.name.startswith(f"{source}-")}
    changes, notes, problems = [], [], []
    files: dict[Path, bytes | None] = {}
    kept = set()
    for draft in drafts:
        file = folder / f"{source}-{draft.id}.toml"
        kept.add(file)
        settings = dict(draft.settings)
        mine = own.get(draft.id, {})
        if "directory" not in mine:
            settings["directory"] = f"directories/{draft.id}.json"
            problems += _without_directory(draft.id, config.parent / f"directories/{draft.id}.json", written)
        notes += [
            f"tenants.{draft.id}.{name}: {config.name} says {mine[name]!r}, which counts before {value!r}"
            for name, value in settings.items()
            if name in mine and mine[name] != value
        ]
        before = old.get(file)
        if before == settings:
            changes.append(Change("leave", "tenant", draft.id, draft.id))
            continue
        changes.append(
            Change(
                "create" if before is None else "change",
                "tenant",
                draft.id,
                draft.id,
                differences(before or {}, settings),
            )
        )
        files[file] = _fragment(draft.id, settings)
    for file in old:
        if file not in kept:
            name = file.stem.removeprefix(f"{source}-")
            changes.append(Change("remove" if removing else "leave", "tenant", name, name))
            if removing:
                files[file] = None
    return Plan(tuple(changes), tuple(problems), tuple(notes), files)


def settings_after(plan: Plan, config: Path) -> Settings | tuple[Problem, ...]:
    """The settings once a plan is carried out, or what is wrong with them then."""
    try:
        return load(config if config.exists() else None, planned=plan.files)
    except SettingsError as error:
        return tuple(Problem("settings", "", line) for line in error.problems)


def _without_directory(tenant: str, file: Path, written: Mapping[Path, bytes | None]) -> list[Problem]:
    """A tenant without a directory would keep the whole service from starting."""
    if written.get(file) is not None:
        return []
    trouble = directory_problem(file)
    if not trouble:
        return []
    advice = f"import it first, or with the same command: porteiro import FILE --tenant {tenant}"
    return [Problem(f"tenants.{tenant}", "directory", f"{file}: {trouble}; {advice}")]


def _tenants(tree: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    tenants = tree.get("tenants")
    if not isinstance(tenants, dict):
        return {}
    return {name: each for name, each in tenants.items() if isinstance(each, dict)}


def _written(file: Path) -> dict[str, Any]:
    """What a fragment says of its tenant; {} of one that can't be read, which is written anew."""
    try:
        tenants = _tenants(tomllib.loads(file.read_bytes().decode()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        return {}
    return dict(next(iter(tenants.values()), {}))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, ...]:
    """What differs between two tables of settings, a line each."""
    lines = []
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            was = f"{_short(old[name])} → " if name in old else ""
            lines.append(f"{name}: {was}{_short(new[name]) if name in new else 'as the default'}")
    return tuple(lines)


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _fragment(tenant: str, settings: Mapping[str, str | int | list[str]]) -> bytes:
    lines = [
        "# Written by `porteiro import`, which writes it anew. What porteiro.toml says of the same tenant",
        "# counts before this. Paths begin where those of porteiro.toml do.",
        f"[tenants.{tenant}]",
    ]
    lines += [f"{name} = {_toml(value)}" for name, value in sorted(settings.items())]
    return "\n".join((*lines, "")).encode()


def _toml(value: str | int | list[str]) -> str:
    """JSON's texts, numbers and lists are TOML's, but for the one control character that JSON lets stand."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


__all__ = [
    "Source",
    "TenantDraft",
    "differences",
    "directory_file",
    "known_tenants",
    "plan_tenants",
    "settings_after",
    "tenant_id",
]
