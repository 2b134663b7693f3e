"""Extensions of the older system: `ramais_config.json`, the table `extension_ia` and its notifications.

One row is one intercom: the extension that visitors dial and the port its calls come to, the extension and
the port on which the resident's calls come back, and the condominium. Here it is a tenant's number and ports.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, TypeVar
from uuid import UUID

from bridge.importing.plan import Problem
from bridge.importing.tenants import TENANT_ID, TenantDraft, tenant_id

CHANNEL = "change_record_extension_ia"
MAX_ROWS = 100_000
_NUMBER = re.compile(r"[A-Za-z0-9+*#._-]{1,80}")

JSON_NAMES = ("id", "ramal_ia", "ramal_retorno", "ip_servidor", "porta_ia", "porta_retorno", "condominio_id")
TABLE_NAMES = (
    "extension_ia_id",
    "extension_ia_number",
    "extension_ia_return",
    "extension_ia_ip",
    "extension_ia_number_port",
    "extension_ia_return_port",
    "condominium_id",
)
"""The same seven things, in the same order."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Extension:
    """One intercom.

    Attributes:
        id: of the row.
        number: what visitors dial.
        return_number: the PBX's own way to the resident port; empty where it has none.
        ip: where the older system listened.
        condominium: its id.
    """

    id: str
    number: str
    return_number: str
    ip: str
    port: int
    return_port: int
    condominium: str


@dataclass(frozen=True, slots=True)
class Extensions:
    """What was read. With any problem it is not to be used."""

    rows: tuple[Extension, ...]
    problems: tuple[Problem, ...] = ()


def read_ramais(content: bytes, source: str) -> Extensions:
    """The rows of a `ramais_config.json`."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError) as error:
        return Extensions((), (Problem(source, "", f"not valid JSON: {error}"),))
    rows = tree.get("ramais") if isinstance(tree, Mapping) else None
    if not isinstance(rows, list):
        text = 'found no list "ramais"; allowed: {"ramais": [{"id": 1, "ramal_ia": "1001", …}]}'
        return Extensions((), (Problem(source, "", text),))
    return read_extensions(rows, JSON_NAMES, source)


def read_extensions(rows: Sequence[object], names: Sequence[str], source: str) -> Extensions:
    """Rows with the seven things, by names like :data:`JSON_NAMES`; a problem for each wrong row."""
    if len(rows) > MAX_ROWS:
        text = f"found {len(rows)} rows; allowed are {MAX_ROWS}"
        return Extensions((), (Problem(source, "", text),))
    found: list[Extension] = []
    problems = []
    seen: dict[str, int] = {}
    for position, row in enumerate(rows, 1):
        try:
            extension = _extension(row, names)
            if (first := seen.setdefault(extension.id, position)) != position:
                raise ValueError(f"{names[0]}: found {extension.id!r}, which row {first} has")
        except ValueError as error:
            problems.append(Problem(source, f"row {position}", str(error)))
        else:
            found.append(extension)
    return Extensions(tuple(found), tuple(problems))


def _extension(row: object, names: Sequence[str]) -> Extension:
    if not isinstance(row, Mapping):
        raise ValueError(f"found {_shown(row)}; allowed: an object with {', '.join(names)}")
    id_, number, return_number, ip, port, return_port, condominium = names
    read = Extension(
        _field(row, id_, _id, "a number or a text"),
        _field(row, number, _number, "an extension such as 1001"),
        _field(row, return_number, _number, "an extension such as 1002") if row.get(return_number) else "",
        _field(row, ip, _ip, "an IP address such as 10.0.0.5") if row.get(ip) else "",
        _field(row, port, _port, "1 to 65535"),
        _field(row, return_port, _port, "1 to 65535"),
        _field(row, condominium, _id, "a number or a text"),
    )
    if read.port == read.return_port:
        raise ValueError(f"{return_port}: found {read.port}, which {port} has; allowed: another port")
    return read


def _field(row: Mapping[Any, Any], name: str, read: Callable[[object], T | None], allowed: str) -> T:
    value = row.get(name)
    if value is None:
        raise ValueError(f"{name}: not set; it must be given")
    found = read(value)
    if found is None:
        raise ValueError(f"{name}: found {_shown(value)}; allowed: {allowed}")
    return found


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _text(value: object) -> str:
    """A whole number, a UUID or a text, as a text; empty: it is none of them."""
    if isinstance(value, str | UUID):
        return str(value).strip()
    if isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value():
        value = int(value)
    return (
        str(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**20 else ""
    )


def _id(value: object) -> str | None:
    text = _text(value)
    return text if text and len(text) <= 80 and text.isprintable() else None


def _number(value: object) -> str | None:
    text = _text(value)
    return text if _NUMBER.fullmatch(text) else None


def _ip(value: object) -> str | None:
    try:
        return str(ipaddress.ip_address(_text(value) or str(value)))
    except ValueError:
        return None


def _port(value: object) -> int | None:
    text = _text(value)
    port = int(text) if re.fullmatch(r"[0-9]{1,5}", text) else 0
    return port if 1 <= port <= 65535 else None


# --------------------------------------------------------------------------------------------------------
# Tenants
# --------------------------------------------------------------------------------------------------------


def drafts_of(
    extensions: Sequence[Extension], known_as: Mapping[str, str], provider: str
) -> tuple[TenantDraft, ...]:
    """A tenant for each condominium; a further one where it has further ports.

    A tenant has one pair of ports. Extensions of a condominium that share theirs are one tenant's numbers;
    the one with the lowest id gives the condominium's tenant its ports, and each other pair is a tenant of
    its own, named by its number as well: `condominio-3-1007`.

    Args:
        known_as: tenants' ids by condominium, for those that are not to be called `condominio-3`.
        provider: of all of them; empty: nothing is said of it.
    """
    drafts: dict[str, TenantDraft] = {}
    names = _names(extensions, known_as)
    for one in sorted(extensions, key=_order):
        name = names[_pair(one)]
        drafts[name] = _with(drafts.get(name), name, one, provider)
    return tuple(drafts.values())


Pair = tuple[str, int, int]
"""A condominium and its two ports: what is one tenant."""


def _pair(one: Extension) -> Pair:
    return one.condominium, one.port, one.return_port


def _names(extensions: Sequence[Extension], known_as: Mapping[str, str]) -> dict[Pair, str]:
    """The tenants' ids, not yet checked."""
    names: dict[Pair, str] = {}
    seen: set[str] = set()
    for one in sorted(extensions, key=_order):
        if _pair(one) not in names:
            name = known_as.get(one.condominium) or tenant_id(f"condominio-{one.condominium}")
            further = one.condominium in seen
            seen.add(one.condominium)
            names[_pair(one)] = tenant_id(f"{name}-{one.number}") if further else name
    return names


def _order(one: Extension) -> tuple[int, str]:
    return (int(one.id) if re.fullmatch(r"[0-9]{1,20}", one.id) else 10**20, one.id)


def _with(draft: TenantDraft | None, name: str, one: Extension, provider: str) -> TenantDraft:
    settings = dict(draft.settings) if draft is not None else {}
    numbers = settings.get("numbers", [])
    assert isinstance(numbers, list)
    settings |= {"visitor_port": one.port, "resident_port": one.return_port}
    settings["numbers"] = list(dict.fromkeys([*numbers, one.number]))
    if provider:
        settings["provider"] = provider
    return TenantDraft(name, settings)


def collisions(extensions: Sequence[Extension], known_as: Mapping[str, str], source: str) -> list[Problem]:
    """What would become one tenant without being one, and names that no tenant can have."""
    owners: dict[str, Pair] = {}
    problems = []
    for pair, name in _names(extensions, known_as).items():
        place = _place(pair)
        if not TENANT_ID.fullmatch(name):
            text = f"found {name!r}; allowed: letters a to z, digits, _ and -"
            problems.append(Problem(source, place, text))
        elif owners.setdefault(name, pair) != pair:
            text = f"would be the tenant {name}, which {_place(owners[name])} is; name another with --as"
            problems.append(Problem(source, place, text))
    return problems


def _place(pair: Pair) -> str:
    return f"condominium {pair[0]} (ports {pair[1]} and {pair[2]})"


def notes_of(extensions: Sequence[Extension], listen: Collection[str]) -> list[str]:
    """What of the rows has no place in the settings, and what does not fit to where the service listens."""
    notes = []
    returns = [one.return_number for one in extensions if one.return_number]
    if returns:
        notes.append(
            f"return extensions are the PBX's matter and are not taken over ({', '.join(returns[:5])}"
            f"{', …' if len(returns) > 5 else ''}): in its dialplan each must lead to its tenant's resident "
            "port"
        )
    everywhere = any(ipaddress.ip_address(address).is_unspecified for address in listen)
    strange = sorted({one.ip for one in extensions if one.ip and one.ip not in listen})
    if strange and not everywhere:
        notes.append(
            f"the PBX calls {', '.join(strange)}, and service.listen is {', '.join(listen)}: add the "
            "address, if it is this machine's"
        )
    return notes


# --------------------------------------------------------------------------------------------------------
# Notifications
# --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Notification:
    """That a row was changed. What counts is what the table says then."""

    action: Literal["INSERT", "UPDATE", "DELETE"]
    id: str
    """The row's; empty where the notification does not say."""


def read_notification(payload: str) -> Notification:
    """A notification on :data:`CHANNEL`: `{"action": "INSERT|UPDATE|DELETE", "data": {…}}`.

    Raises:
        ValueError: it is something else; the text says what was found.
    """
    try:
        tree = json.loads(payload)
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None
    action = tree.get("action") if isinstance(tree, Mapping) else None
    if action not in ("INSERT", "UPDATE", "DELETE"):
        raise ValueError(f"found action {_shown(action)}; allowed are INSERT, UPDATE, DELETE")
    data = tree.get("data")
    if not isinstance(data, Mapping):
        raise ValueError(f"found data {_shown(data)}; allowed: an object")
    return Notification(action, _text(data.get(TABLE_NAMES[0])))


__all__ = [
    "CHANNEL",
    "JSON_NAMES",
    "TABLE_NAMES",
    "Extension",
    "Extensions",
    "Notification",
    "collisions",
    "drafts_of",
    "notes_of",
    "read_extensions",
    "read_notification",
    "read_ramais",
]
