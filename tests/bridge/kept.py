"""A catalogue of tenants in memory, for the tests of who reads one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from bridge.tenants import digest_of
from storage.base import StorageUnavailable
from storage.catalogue import Catalogue, Changes, SettingsVersion, StoredDirectory
from visits.directory import Directory


class Kept:
    """What a running service asks of a :class:`storage.catalogue.Catalogue`, and no more."""

    def __init__(self) -> None:
        self.away = False
        self.looks = 0
        self._counter = 1
        self._tenants: dict[str, tuple[int, SettingsVersion]] = {}
        self._directories: dict[str, tuple[int, StoredDirectory]] = {}
        self.noted: list[tuple[str, str]] = []

    def as_catalogue(self) -> Catalogue:
        """Itself, for whoever wants the whole."""
        return cast(Catalogue, self)

    def put(self, tenant: str, content: Mapping[str, Any] | None) -> None:
        """Have settings in force; None: none."""
        self._counter += 1
        version = 1 + (self._tenants[tenant][1].version if tenant in self._tenants else 0)
        digest = digest_of(content) if content is not None else ""
        new = SettingsVersion(tenant, version, "", "", "database", content, digest)
        self._tenants[tenant] = self._counter, new

    def put_directory(self, tenant: str, records: list[dict[str, Any]]) -> None:
        """Have a directory."""
        self._counter += 1
        version = 1 + (self._directories[tenant][1].version if tenant in self._directories else 0)
        directory = Directory.from_records(records)
        self._directories[tenant] = self._counter, StoredDirectory(tenant, version, "", "", directory)

    def _look(self) -> None:
        self.looks += 1
        if self.away:
            raise StorageUnavailable("away", "the database is away")

    async def counter(self) -> int:
        """See :class:`Catalogue`."""
        self._look()
        return self._counter

    async def changes_since(self, counter: int) -> Changes:
        """See :class:`Catalogue`."""
        self._look()
        changed = [one for at, one in self._tenants.values() if at > counter]
        return Changes(
            self._counter,
            tuple(one for one in changed if one.content is not None),
            tuple(one.tenant for one in changed if one.content is None),
            {name: one.version for name, (at, one) in self._directories.items() if at > counter},
        )

    async def directory(self, tenant: str) -> StoredDirectory | None:
        """See :class:`Catalogue`."""
        self._look()
        return self._directories[tenant][1] if tenant in self._directories else None

    async def note_version(
        self, tenant: str, content: Mapping[str, Any], source: str, *, at: str
    ) -> SettingsVersion:
        """See :class:`Catalogue`."""
        self._look()
        if (tenant, digest_of(content)) not in self.noted[-1:]:
            self.noted.append((tenant, digest_of(content)))
        number = sum(name == tenant for name, _ in self.noted)
        return SettingsVersion(tenant, number, at, "", source, content, digest_of(content))
