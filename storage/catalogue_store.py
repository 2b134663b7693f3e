"""The catalogue in SQLite and PostgreSQL: each operation is a step that the store's database carries out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, TypeVar

from storage import counter, directories, operators, tenants
from storage.base import StorageRefused
from storage.catalogue import (
    ApiKey,
    Catalogue,
    Changes,
    KeyRole,
    NewSettings,
    NotThere,
    NumberKind,
    Operator,
    OperatorSession,
    Role,
    SettingsVersion,
    StoredApartment,
    StoredDirectory,
    StoredStanding,
    Verdict,
)
from storage.directories import checked_apartments
from storage.paging import Page
from storage.steps import CATALOGUE, Sql, Step
from storage.store import SqlStorage
from storage.tenants import all_put, content_of
from visits.audit import AuditRecord, stamp
from visits.directory import Apartment
from visits.standing import StandingAuthorisation

T = TypeVar("T")

USED_AGAIN: Final = timedelta(minutes=1)
"""How often it is noted that a key was used."""


class SqlCatalogue(Catalogue):
    """See :class:`storage.catalogue.Catalogue`. A store's ``catalogue``."""

    def __init__(self, store: SqlStorage) -> None:
        """``store``: whose database it is in."""
        self._store = store

    async def _read(self, step: Callable[..., Step[T]], *values: object) -> T:
        _check_texts(values)
        return await self._store._read(partial(step, *values))

    async def _change(self, step: Callable[..., Step[T]], *values: object) -> T:
        """Carry out a change, in a transaction of its own."""
        _check_texts(values)
        return await self._store._write(partial(step, *values), ("", CATALOGUE))

    # ---- changes ---------------------------------------------------------------------------------------

    async def counter(self) -> int:
        """See :meth:`Catalogue.counter`."""
        return await self._read(counter.counter)

    async def changes_since(self, counter: int) -> Changes:
        """See :meth:`Catalogue.changes_since`."""
        return await self._read(tenants.changes_since, counter)

    # ---- tenants ---------------------------------------------------------------------------------------

    async def put_tenant(
        self, tenant: str, content: Mapping[str, Any], *, expected: int | None, by: str, at: str
    ) -> SettingsVersion:
        """See :meth:`Catalogue.put_tenant`."""
        return await self._change(tenants.put, tenant, content_of(content), expected, by, at)

    async def remove_tenant(self, tenant: str, *, expected: int | None, by: str, at: str) -> SettingsVersion:
        """See :meth:`Catalogue.remove_tenant`."""
        return await self._change(tenants.removed, tenant, expected, by, at)

    async def put_all(
        self,
        tenants: Mapping[str, NewSettings],
        directories: Mapping[str, tuple[int, Iterable[Apartment]]],
        *,
        by: str,
        at: str,
        source: str = "",
    ) -> None:
        """See :meth:`Catalogue.put_all`."""
        contents = {
            name: (one.expected, None if one.content is None else content_of(one.content), one.by)
            for name, one in tenants.items()
        }
        homes = {
            name: (expected, await asyncio.to_thread(checked_apartments, tuple(apartments)))
            for name, (expected, apartments) in directories.items()
        }
        _check_texts([*contents, *homes])
        await self._change(all_put, contents, homes, by, at, source)

    async def tenant(self, tenant: str) -> SettingsVersion | None:
        """See :meth:`Catalogue.tenant`."""
        return next(iter(await self._read(tenants.in_force, tenant)), None)

    async def tenants(self) -> list[SettingsVersion]:
        """See :meth:`Catalogue.tenants`."""
        return await self._read(tenants.in_force)

    async def history(
        self, tenant: str, *, after: str | None = None, limit: int = 50
    ) -> Page[SettingsVersion]:
        """See :meth:`Catalogue.history`."""
        return await self._read(tenants.history, tenant, after, limit)

    async def version(self, tenant: str, version: int) -> SettingsVersion | None:
        """See :meth:`Catalogue.version`."""
        return await self._read(tenants.one_version, tenant, version)

    async def note_version(
        self, tenant: str, content: Mapping[str, Any], source: str, *, at: str
    ) -> SettingsVersion:
        """See :meth:`Catalogue.note_version`."""
        noted = content_of(content)
        last = await self._read(tenants.last_version, tenant)
        if last is not None and tenants.is_same(last, noted, source):
            return last  # as at nearly every start: nothing is written
        return await self._change(tenants.noted, tenant, noted, source, at)

    async def owner(self, kind: NumberKind, value: str) -> str | None:
        """See :meth:`Catalogue.owner`."""
        return await self._read(tenants.owner, kind, value)

    # ---- directories -----------------------------------------------------------------------------------

    async def directory(self, tenant: str) -> StoredDirectory | None:
        """See :meth:`Catalogue.directory`."""
        return await self._read(directories.directory, tenant)

    async def directory_versions(self) -> dict[str, int]:
        """See :meth:`Catalogue.directory_versions`."""
        return await self._read(directories.versions)

    async def replace_directory(
        self,
        tenant: str,
        apartments: Iterable[Apartment],
        *,
        expected: int | None,
        by: str,
        at: str,
        source: str = "",
    ) -> int:
        """See :meth:`Catalogue.replace_directory`."""
        # Labels are read as people say them, which takes a while for a thousand: not in the event loop.
        checked = await asyncio.to_thread(checked_apartments, tuple(apartments))
        author = directories.Author(by, at, expected, source)
        return await self._change(directories.replaced, tenant, checked, author)

    async def put_apartment(
        self, tenant: str, apartment: Apartment, *, expected: int | None, by: str, at: str, was: str = ""
    ) -> int:
        """See :meth:`Catalogue.put_apartment`."""
        (checked,) = checked_apartments((apartment,))
        author = directories.Author(by, at, expected)
        return await self._change(directories.put, tenant, checked, was, author)

    async def remove_apartment(
        self, tenant: str, label: str, *, expected: int | None, by: str, at: str
    ) -> int:
        """See :meth:`Catalogue.remove_apartment`."""
        author = directories.Author(by, at, expected)
        return await self._change(directories.removed, tenant, label, author)

    async def apartment(self, tenant: str, label: str) -> StoredApartment | None:
        """See :meth:`Catalogue.apartment`."""
        return await self._read(directories.one_apartment, tenant, label)

    async def find_apartments(
        self, tenant: str, text: str = "", *, after: str | None = None, limit: int = 50
    ) -> Page[StoredApartment]:
        """See :meth:`Catalogue.find_apartments`."""
        return await self._read(directories.apartments, tenant, text, after, limit)

    async def put_standing(
        self,
        tenant: str,
        apartment: str,
        authorisation: StandingAuthorisation,
        *,
        id: str = "",
        expected: int | None,
        by: str,
        at: str,
    ) -> tuple[str, int]:
        """See :meth:`Catalogue.put_standing`."""
        author = directories.Author(by, at, expected)
        _check_texts((authorisation.name,))
        return await self._change(directories.standing_put, tenant, apartment, authorisation, id, author)

    async def remove_standing(self, tenant: str, id: str, *, expected: int | None, by: str, at: str) -> int:
        """See :meth:`Catalogue.remove_standing`."""
        author = directories.Author(by, at, expected)
        return await self._change(directories.standing_removed, tenant, id, author)

    async def standing(
        self, tenant: str, apartment: str | None = None, *, after: str | None = None, limit: int = 50
    ) -> Page[StoredStanding]:
        """See :meth:`Catalogue.standing`."""
        return await self._read(directories.standing, tenant, apartment, after, limit)

    # ---- operators -------------------------------------------------------------------------------------

    async def add_operator(
        self,
        login: str,
        *,
        name: str,
        password_hash: str,
        role: Role,
        tenant: str | None,
        by: str,
        at: str,
    ) -> Operator:
        """See :meth:`Catalogue.add_operator`."""
        if not login or login != login.strip().lower():
            raise StorageRefused(f"an operator's login: found {login!r:.80}; allowed is lower case")
        new = Operator(login, name, role, tenant, disabled=False, created_at=at)
        _check_texts((login, name, tenant))
        return await self._change(operators.operator_added, new, password_hash, by)

    async def change_operator(
        self,
        login: str,
        *,
        name: str | None = None,
        role: Role | None = None,
        disabled: bool | None = None,
        by: str,
        at: str,
    ) -> Operator:
        """See :meth:`Catalogue.change_operator`."""
        return await self._change(operators.operator_changed, login, name, role, disabled, by, at)

    async def set_password(self, login: str, password_hash: str, *, by: str, at: str) -> None:
        """See :meth:`Catalogue.set_password`."""
        await self._change(operators.password_set, login, password_hash, by, at)

    async def operator(self, login: str) -> Operator | None:
        """See :meth:`Catalogue.operator`."""
        found = await self.credentials(login)
        return None if found is None else found[0]

    async def credentials(self, login: str) -> tuple[Operator, str] | None:
        """See :meth:`Catalogue.credentials`."""
        return await self._read(operators.credentials, login)

    async def operators(self, tenant: str | None = None) -> list[Operator]:
        """See :meth:`Catalogue.operators`."""
        return await self._read(operators.operators, tenant)

    async def begin_session(self, id_hash: str, login: str, csrf: str, *, at: str, expires_at: str) -> None:
        """See :meth:`Catalogue.begin_session`."""
        await self._change(operators.session_begun, id_hash, login, csrf, at, expires_at)

    async def session(self, id_hash: str, *, at: str) -> OperatorSession | None:
        """See :meth:`Catalogue.session`."""
        return await self._read(operators.session, id_hash, at)

    async def end_session(self, id_hash: str) -> None:
        """See :meth:`Catalogue.end_session`."""
        await self._change(operators.session_ended, id_hash)

    # ---- API keys --------------------------------------------------------------------------------------

    async def add_key(
        self,
        id: str,
        secret_hash: str,
        *,
        name: str,
        role: KeyRole,
        scopes: Collection[str] | None,
        tenant: str | None,
        expires_at: str | None,
        by: str,
        at: str,
    ) -> ApiKey:
        """See :meth:`Catalogue.add_key`."""
        values = (id, secret_hash, name, role, scopes, tenant, expires_at, by, at)
        return await self._change(operators.key_added, *values)

    async def key(self, id: str) -> tuple[ApiKey, str] | None:
        """See :meth:`Catalogue.key`."""
        return await self._read(operators.key, id)

    async def keys(self, tenant: str | None = None) -> list[ApiKey]:
        """See :meth:`Catalogue.keys`."""
        return await self._read(operators.keys, tenant)

    async def revoke_key(self, id: str, *, by: str, at: str) -> ApiKey:
        """See :meth:`Catalogue.revoke_key`."""
        return await self._change(operators.key_revoked, id, by, at)

    async def key_used(self, key: ApiKey, at: str) -> None:
        """See :meth:`Catalogue.key_used`."""
        before = stamp(datetime.fromisoformat(at) - USED_AGAIN)
        if key.used_at is None or key.used_at < before:
            await self._change(operators.key_used, key.id, at, before)

    # ---- reviews ---------------------------------------------------------------------------------------

    async def review(
        self, visit: str, verdict: Verdict, note: str, *, by: str, at: str
    ) -> AuditRecord | None:
        """See :meth:`Catalogue.review`."""
        tenant = await self._read(_tenant_of, visit)
        if tenant is None:
            raise NotThere(f"there is no visit {visit!r:.80}")
        data = {"by": by, "verdict": verdict, "note": note}
        return await self._store.append(tenant, visit, at, "visit.reviewed", data)


def _tenant_of(visit: str) -> Step[str | None]:
    rows = yield Sql("SELECT tenant FROM visits WHERE id = $1", (visit,))
    return rows[0][0] if rows else None


def _check_texts(values: Iterable[object]) -> None:
    """What no database takes is refused here. Raises :class:`StorageRefused`."""
    for value in values:
        if isinstance(value, str):
            if "\0" in value:
                raise StorageRefused(f"found a zero character in {value!r:.80}; allowed is text without one")
            try:
                value.encode()
            except UnicodeEncodeError:
                raise StorageRefused(f"found {value!r:.80}; allowed is text that UTF-8 can write") from None
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise StorageRefused(f"found {value}; allowed are numbers of 64 bits")


__all__ = ["SqlCatalogue"]
