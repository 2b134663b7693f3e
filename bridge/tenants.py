"""The tenants in force: what a call that comes now finds, and who is told when that changes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from bridge.settings import Settings, Tenant
from visits.audit import canonical
from visits.directory import Directory

IN_DATABASE = ""
"""Where a tenant is kept that no file names."""


@dataclass(frozen=True, slots=True)
class Version:
    """Which version of its settings a tenant has, for the record of a visit."""

    number: int | None
    """As the database counts them; None while it has not been asked."""
    digest: str
    """SHA-256 of the settings' canonical JSON, in hex."""

    def as_record(self) -> dict[str, object]:
        """What `visit.started` says of it."""
        number = {} if self.number is None else {"version": self.number}
        return {**number, "digest": self.digest}


@dataclass(frozen=True, slots=True)
class TenantInForce:
    """One tenant as it is now."""

    tenant: Tenant
    directory: Directory
    version: Version
    kept_in: str = IN_DATABASE
    """The file that holds its settings; "" for the database."""

    @property
    def id(self) -> str:
        """The tenant's id."""
        return self.tenant.id


Subscriber = Callable[[frozenset[str]], None]
"""Called on the event loop after a change, with the ids of the tenants that are new, changed or gone."""


class Tenancy:
    """The tenants in force."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        """What holds for the whole process; its tenants are those that the files name."""
        self._in_force: dict[str, TenantInForce] = {}
        self._refused: dict[str, tuple[str, ...]] = {}
        self._subscribers: list[Subscriber] = []

    @property
    def current(self) -> Mapping[str, Tenant]:
        """The settings of each tenant, by its id."""
        return {name: one.tenant for name, one in self._in_force.items()}

    @property
    def in_force(self) -> Mapping[str, TenantInForce]:
        """Everything about each tenant, by its id."""
        return MappingProxyType(self._in_force)

    @property
    def refused(self) -> Mapping[str, Sequence[str]]:
        """Tenants whose newest settings can't be used, and what is wrong with them: one line each.

        What is wrong with a whole file stands under "".
        """
        return MappingProxyType(self._refused)

    @property
    def warnings(self) -> list[str]:
        """What is amiss, in fixed words: ``settings_refused``, ``settings_from_copy``,
        ``settings_need_restart``."""
        return ["settings_refused"] if self._refused else []

    def version_of(self, tenant: str) -> Version:
        """The version that the next visit of a tenant runs with.

        Raises:
            KeyError: there is no such tenant.
        """
        return self._in_force[tenant].version

    def directory_of(self, tenant: str) -> Directory:
        """The directory that the next visit of a tenant looks people up in.

        Raises:
            KeyError: there is no such tenant.
        """
        return self._in_force[tenant].directory

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Have somebody told of changes; what is returned ends that."""
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    async def propose(self, changes: Mapping[str, Mapping[str, Any] | None]) -> list[str]:
        """What would be wrong with other settings of some database tenants; nothing is changed.

        Args:
            changes: by id, what its table `[tenants.ID]` would hold; None: the tenant goes.

        Returns:
            One line a problem: its setting, what was found, what is allowed. Empty: they can be used.
        """
        raise NotImplementedError

    async def reload(self) -> None:
        """Read everything anew; what has changed and is well is in force when this returns."""
        raise NotImplementedError


def digest_of(content: Mapping[str, Any]) -> str:
    """SHA-256 of canonical JSON, in hex."""
    return hashlib.sha256(canonical(content)).hexdigest()


__all__ = ["IN_DATABASE", "Subscriber", "Tenancy", "TenantInForce", "Version", "digest_of"]
