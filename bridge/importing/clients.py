"""Clients of the older system: the tables `clients`, `client_sip_numbers` and `client_configurations`.

Each active client becomes a tenant with its numbers, its voice, and its instructions as `prompt_extra`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.importing.plan import Problem
from bridge.importing.tenants import TENANT_ID, TenantDraft, tenant_id

TABLES = ("clients", "client_sip_numbers", "client_configurations")
_NUMBER = re.compile(r"[A-Za-z0-9+*#._-]{1,80}")
MAX_INSTRUCTIONS = 20_000


@dataclass(frozen=True, slots=True)
class Clients:
    """What was read. With any problem it is not to be used."""

    drafts: tuple[TenantDraft, ...]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()


Rows = Sequence[Mapping[str, Any]]


def read_clients(
    clients: Rows,
    numbers: Rows,
    configurations: Rows,
    *,
    known_as: Mapping[str, str],
    ports: Mapping[str, tuple[int, int]],
    first_port: int | None,
    provider: str,
) -> Clients:
    """Tenants out of the rows of the three tables.

    Args:
        known_as: tenants' ids by client, for those that are not to have their name's.
        ports: visitor and resident port of the tenants that have some.
        first_port: from where on the others are given pairs that nobody has; None: they must have some.
        provider: of all of them. Without one no voice is taken over: voices are a provider's own.
    """
    problems: list[Problem] = []
    notes: list[str] = []
    drafts: dict[str, TenantDraft] = {}
    seen: set[str] = set()
    owned = _numbers(numbers, problems)
    configured = {_key(row): row for row in configurations}
    taken = {port for pair in ports.values() for port in pair}
    for row in sorted(clients, key=_key):
        key, title = _key(row), str(row.get("client_name") or "").strip()
        place = f"client {key}"
        name = known_as.get(key) or tenant_id(title) or tenant_id(f"client-{key}")
        pair = ports.get(name) or _free_pair(first_port, taken)
        again = key in seen
        seen.add(key)
        if row.get("active") is False:
            notes.append(f"{place} ({title}) is not active and is left out")
        elif again or not key:
            problems.append(Problem(TABLES[0], place, "client_id must be there, and one client's alone"))
        elif not TENANT_ID.fullmatch(name):
            text = f"found {name!r} for the tenant's id; allowed: a to z, digits, _ and -; name one with --as"
            problems.append(Problem(TABLES[0], place, text))
        elif name in drafts:
            text = f"would be the tenant {name}, which another client is; name another with --as"
            problems.append(Problem(TABLES[0], place, text))
        elif pair is None:
            text = f"the tenant {name} has no ports; give --first-port, from which on free ones are taken"
            problems.append(Problem(TABLES[0], place, text))
        else:
            taken.update(pair)
            settings = _settings(title, pair, owned.get(key, []), provider)
            settings |= _configured(configured.get(key, {}), place, provider, problems, notes)
            drafts[name] = TenantDraft(name, settings)
    problems += [
        Problem(table, f"client {key}", "there is no such client in the table clients")
        for table, keys in ((TABLES[1], list(owned)), (TABLES[2], list(configured)))
        for key in keys
        if key not in seen
    ]
    return Clients(tuple(drafts.values()), tuple(problems), tuple(notes))


def _key(row: Mapping[str, Any]) -> str:
    value = row.get("client_id")
    return "" if value is None else str(value).strip()


def _settings(
    title: str, ports: tuple[int, int], numbers: list[str], provider: str
) -> dict[str, str | int | list[str]]:
    settings: dict[str, str | int | list[str]] = {"visitor_port": ports[0], "resident_port": ports[1]}
    if title:
        settings["name"] = title
    if numbers:
        settings["numbers"] = numbers
    if provider:
        settings["provider"] = provider
    return settings


def _numbers(rows: Rows, problems: list[Problem]) -> dict[str, list[str]]:
    owned: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda one: str(one.get("sip_number"))):
        number = str(row.get("sip_number") or "").strip()
        if not _NUMBER.fullmatch(number):
            text = f"sip_number: found {number[:60]!r}; allowed: letters, digits and + * # . _ -"
            problems.append(Problem(TABLES[1], f"client {_key(row)}", text))
        elif row.get("active") is not False:
            owned.setdefault(_key(row), []).append(number)
    return owned


def _free_pair(first: int | None, taken: set[int]) -> tuple[int, int] | None:
    """Two ports side by side that nobody has."""
    for port in range(first, 65535) if first is not None else ():
        if not {port, port + 1} & taken:
            return port, port + 1
    return None


def _configured(
    row: Mapping[str, Any], place: str, provider: str, problems: list[Problem], notes: list[str]
) -> dict[str, str | int | list[str]]:
    settings: dict[str, str | int | list[str]] = {}
    voice, instructions = (str(row.get(name) or "").strip() for name in ("voice", "instructions"))
    if len(instructions) > MAX_INSTRUCTIONS:
        text = f"instructions: found {len(instructions)} characters; allowed are {MAX_INSTRUCTIONS}"
        problems.append(Problem(TABLES[2], place, text))
    elif instructions:
        settings["prompt_extra"] = instructions
        notes.append(f"{place}: instructions become prompt_extra, beside our own prompt: read them once")
    if voice and provider:
        settings["voice"] = voice
    elif voice:
        notes.append(f"{place}: voice {voice!r} is not taken over: say whose it is with --provider")
    for name in ("temperature", "max_tokens"):
        if row.get(name) is not None:
            notes.append(f"{place}: {name} {row[name]} is not taken over: there is no such setting")
    return settings


__all__ = ["TABLES", "Clients", "read_clients"]
