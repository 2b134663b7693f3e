"""The interface of the catalogue: what the database keeps beside the audit log, and who may do what.

Tenants with every version of their settings, directories, operators and their sessions, API keys, reviews.
``storage.catalogue`` of every store is one. A change and its audit record are one transaction: there is never
one without the other. What concerns a tenant is in the tenant's chain, all else in the service's own ("").

``by`` says who: ``operator:LOGIN``, ``key:ID`` or ``command:USER``. ``at`` is a text in UTC as
``visits.audit.stamp`` writes it. ``expected`` is the version that whoever changes it has seen (0: nothing is
there yet, None: whichever); where another is there, nothing is changed: :class:`Conflict`.

While a PostgreSQL is away nothing here can be read or changed: :class:`storage.base.StorageUnavailable`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from storage.base import StorageRefused
from storage.paging import Page
from visits.audit import AuditRecord
from visits.directory import Apartment, Directory
from visits.standing import StandingAuthorisation

NOTIFICATIONS: Final = "porteiro_catalogue"
"""PostgreSQL's channel: each change is notified when it is committed, with the counter as its payload."""

DATABASE: Final = "database"
"""The source of versions that were put here; others have their file."""

Role = Literal["admin", "manager", "reviewer", "viewer"]
KeyRole = Literal["admin", "manager", "reviewer", "viewer", "pbx"]
Verdict = Literal["right", "wrong"]
NumberKind = Literal["number", "port"]

# --------------------------------------------------------------------------------------------------------
# Errors. Nothing was changed.
# --------------------------------------------------------------------------------------------------------


class Conflict(StorageRefused):
    """Somebody else changed it meanwhile; ``found`` is the version that is there now, 0: none."""

    def __init__(self, what: str, expected: int, found: int) -> None:
        """``what`` names it for people."""
        super().__init__(f"{what} was changed meanwhile: found version {found}; expected {expected}")
        self.expected = expected
        self.found = found


class Clash(StorageRefused):
    """A number or a port belongs to another tenant."""

    def __init__(self, kind: NumberKind, value: str, owner: str) -> None:
        """``owner``: the tenant that has it."""
        super().__init__(f"{kind} {value!r} is tenant {owner!r}'s; allowed: one that is nobody's yet")
        self.kind = kind
        self.value = value
        self.owner = owner


class NotThere(StorageRefused):
    """There is no such tenant, apartment, operator, key or visit."""


class AlreadyThere(StorageRefused):
    """There is one of that name already."""


# --------------------------------------------------------------------------------------------------------
# What is read
# --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SettingsVersion:
    """One version of a tenant's settings.

    Attributes:
        version: from 1, without gaps, for each tenant.
        source: :data:`DATABASE`, or the file.
        content: what a ``[tenants.X]`` table holds; None: the tenant was removed.
        digest: SHA-256 of the content as canonical JSON, in hexadecimal; empty where it was removed.
    """

    tenant: str
    version: int
    at: str
    by: str
    source: str
    content: Mapping[str, Any] | None
    digest: str


@dataclass(frozen=True, slots=True)
class NewSettings:
    """What a tenant is to be.

    Attributes:
        expected: the version that was seen; 0: none.
        content: as in :class:`SettingsVersion`; None: it is to go.
        by: who wants it.
    """

    expected: int
    content: Mapping[str, Any] | None
    by: str


@dataclass(frozen=True, slots=True)
class StoredDirectory:
    """A tenant's directory, as the visits use it."""

    tenant: str
    version: int
    at: str
    by: str
    directory: Directory


@dataclass(frozen=True, slots=True)
class StoredApartment:
    """One apartment; ``position`` orders them within the directory."""

    tenant: str
    position: int
    apartment: Apartment


@dataclass(frozen=True, slots=True)
class StoredStanding:
    """One standing authorisation, and the label of the apartment that gave it."""

    tenant: str
    id: str
    apartment: str
    authorisation: StandingAuthorisation


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed behind a counter.

    Attributes:
        counter: where the next look begins.
        tenants: the settings in force of those that were put.
        removed: tenants that are gone.
        directories: the versions of the directories that changed.
    """

    counter: int
    tenants: tuple[SettingsVersion, ...] = ()
    removed: tuple[str, ...] = ()
    directories: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operator:
    """A person who logs in to the pages. ``tenant`` None: for all."""

    login: str
    name: str
    role: Role
    tenant: str | None
    disabled: bool
    created_at: str


@dataclass(frozen=True, slots=True)
class OperatorSession:
    """A log-in that holds; ``operator`` as they are now."""

    operator: Operator
    csrf: str
    began_at: str
    expires_at: str


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key, without its secret. ``scopes`` None: all of the role's."""

    id: str
    name: str
    role: KeyRole
    scopes: tuple[str, ...] | None
    tenant: str | None
    created_at: str
    created_by: str
    expires_at: str | None = None
    revoked_at: str | None = None
    used_at: str | None = None

    def holds(self, at: str) -> bool:
        """Whether it is neither revoked nor expired then."""
        return self.revoked_at is None and (self.expires_at is None or at < self.expires_at)


# --------------------------------------------------------------------------------------------------------
# The interface
# --------------------------------------------------------------------------------------------------------


class Catalogue(ABC):
    """What the database keeps beside the audit log.

    Every operation has a deadline, and raises :class:`storage.base.StorageError`. Whether a caller may do it,
    and whether settings are valid, is for whoever calls: the catalogue refuses what contradicts itself.
    """

    # ---- changes ---------------------------------------------------------------------------------------

    @abstractmethod
    async def counter(self) -> int:
        """The counter of changes: moved by every change of tenants, directories, operators and keys."""

    @abstractmethod
    async def changes_since(self, counter: int) -> Changes:
        """Tenants and directories that changed behind a counter, at one moment.

        All there are behind 0, and behind a counter that this database has not come to: it is a backup.
        """

    # ---- tenants ---------------------------------------------------------------------------------------

    @abstractmethod
    async def put_tenant(
        self, tenant: str, content: Mapping[str, Any], *, expected: int | None, by: str, at: str
    ) -> SettingsVersion:
        """Have a tenant's settings in force; the version that is, the same as before where nothing differs.

        The numbers and ports in it (``numbers``, ``visitor_port``, ``resident_port``) become the tenant's.

        Raises:
            Conflict: another version than ``expected`` is in force.
            Clash: a number or a port is another tenant's.
            StorageRefused: the content is not JSON, or too long.
        """

    @abstractmethod
    async def remove_tenant(self, tenant: str, *, expected: int | None, by: str, at: str) -> SettingsVersion:
        """Remove a tenant, and all apartments with it; its numbers are free. Its versions and visits stay.

        Raises:
            NotThere: there is none.
            Conflict: another version than ``expected`` is in force.
        """

    @abstractmethod
    async def put_all(
        self,
        tenants: Mapping[str, NewSettings],
        directories: Mapping[str, tuple[int, Iterable[Apartment]]],
        *,
        by: str,
        at: str,
        source: str = "",
    ) -> None:
        """Many changes in one transaction: all of them, or none. Numbers may move from one to another.

        Args:
            tenants: by their ids.
            directories: by their tenants, the version that is expected, and the apartments.
            by: who wants the directories.
            source: where they come from, for people.

        Raises:
            StorageRefused: as :meth:`put_tenant`, :meth:`remove_tenant` and :meth:`replace_directory`.
        """

    @abstractmethod
    async def tenant(self, tenant: str) -> SettingsVersion | None:
        """The settings in force of a tenant that is kept here; None: it is not, or was removed."""

    @abstractmethod
    async def tenants(self) -> list[SettingsVersion]:
        """All tenants that are kept here, by their ids."""

    @abstractmethod
    async def history(
        self, tenant: str, *, after: str | None = None, limit: int = 50
    ) -> Page[SettingsVersion]:
        """A tenant's versions, the latest first; of tenants of the files too."""

    @abstractmethod
    async def version(self, tenant: str, version: int) -> SettingsVersion | None:
        """One version of a tenant's settings."""

    @abstractmethod
    async def note_version(
        self, tenant: str, content: Mapping[str, Any], source: str, *, at: str
    ) -> SettingsVersion:
        """Note the settings in force of a tenant of the files; the last version where it is the same.

        Args:
            content: without secrets, which settings never hold: they name variables.
            source: the file, for people.
        """

    @abstractmethod
    async def owner(self, kind: NumberKind, value: str) -> str | None:
        """The tenant kept here that a number or a port belongs to."""

    # ---- directories -----------------------------------------------------------------------------------

    @abstractmethod
    async def directory(self, tenant: str) -> StoredDirectory | None:
        """A tenant's directory; None: there is none here."""

    @abstractmethod
    async def directory_versions(self) -> dict[str, int]:
        """The versions of all directories, by tenant."""

    @abstractmethod
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
        """Have these apartments, in this order, and no others; the version, as before where nothing differs.

        None at all is allowed: the directory stays, empty. A standing authorisation that an apartment had
        before keeps its id.

        Args:
            source: where they come from, for people: a file's name.

        Raises:
            Conflict: another version than ``expected`` is there.
            StorageRefused: a label twice.
        """

    @abstractmethod
    async def put_apartment(
        self, tenant: str, apartment: Apartment, *, expected: int | None, by: str, at: str, was: str = ""
    ) -> int:
        """Put one apartment, its standing authorisations with it; the directory's version.

        Args:
            was: the label of the apartment that it takes the place of; empty: the one of its own label, or a
                new one at the end.

        Raises:
            Conflict: another version of the directory than ``expected`` is there.
            NotThere: there is no apartment ``was``.
            AlreadyThere: another apartment has its label.
        """

    @abstractmethod
    async def remove_apartment(
        self, tenant: str, label: str, *, expected: int | None, by: str, at: str
    ) -> int:
        """Remove one apartment; the directory's version. Raises :class:`NotThere`, :class:`Conflict`."""

    @abstractmethod
    async def apartment(self, tenant: str, label: str) -> StoredApartment | None:
        """One apartment by its label."""

    @abstractmethod
    async def find_apartments(
        self, tenant: str, text: str = "", *, after: str | None = None, limit: int = 50
    ) -> Page[StoredApartment]:
        """Apartments in whose label and names each word of a text is, in the directory's order.

        Upper case and accents are all the same.
        """

    @abstractmethod
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
        """Put a standing authorisation of an apartment: its id, and the directory's version.

        Args:
            apartment: its label.
            id: of the one that it takes the place of; empty: a new one.

        Raises:
            NotThere: there is no such apartment, or it has no authorisation of that id.
            Conflict: another version of the directory than ``expected`` is there.
        """

    @abstractmethod
    async def remove_standing(self, tenant: str, id: str, *, expected: int | None, by: str, at: str) -> int:
        """Take one back; the directory's version. Raises :class:`NotThere`, :class:`Conflict`."""

    @abstractmethod
    async def standing(
        self, tenant: str, apartment: str | None = None, *, after: str | None = None, limit: int = 50
    ) -> Page[StoredStanding]:
        """A tenant's standing authorisations, or one apartment's, in the directory's order."""

    # ---- operators -------------------------------------------------------------------------------------

    @abstractmethod
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
        """A new operator. ``login`` is in lower case. Raises :class:`AlreadyThere`."""

    @abstractmethod
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
        """Change what is given; sessions of who is disabled end. Raises :class:`NotThere`."""

    @abstractmethod
    async def set_password(self, login: str, password_hash: str, *, by: str, at: str) -> None:
        """Another password; all sessions of that operator end. Raises :class:`NotThere`."""

    @abstractmethod
    async def operator(self, login: str) -> Operator | None:
        """One operator."""

    @abstractmethod
    async def credentials(self, login: str) -> tuple[Operator, str] | None:
        """An operator and the hash of the password, for a log-in."""

    @abstractmethod
    async def operators(self, tenant: str | None = None) -> list[Operator]:
        """Operators by their logins: of one tenant, or all of them."""

    @abstractmethod
    async def begin_session(self, id_hash: str, login: str, csrf: str, *, at: str, expires_at: str) -> None:
        """Note a log-in. Sessions that have expired by then are forgotten. Raises :class:`NotThere`.

        Args:
            id_hash: SHA-256 of the session's id, in hexadecimal.
        """

    @abstractmethod
    async def session(self, id_hash: str, *, at: str) -> OperatorSession | None:
        """A session that has not expired, of an operator who is not disabled."""

    @abstractmethod
    async def end_session(self, id_hash: str) -> None:
        """End it; one that is not there has ended."""

    # ---- API keys --------------------------------------------------------------------------------------

    @abstractmethod
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
        """A new key. ``secret_hash``: SHA-256 of its secret, in hexadecimal. Raises :class:`AlreadyThere`."""

    @abstractmethod
    async def key(self, id: str) -> tuple[ApiKey, str] | None:
        """A key, revoked and expired ones too, and the hash of its secret."""

    @abstractmethod
    async def keys(self, tenant: str | None = None) -> list[ApiKey]:
        """Keys, the latest first: of one tenant, or all of them; revoked and expired ones too."""

    @abstractmethod
    async def revoke_key(self, id: str, *, by: str, at: str) -> ApiKey:
        """It is of no use from now on; for ever. Raises :class:`NotThere`."""

    @abstractmethod
    async def key_used(self, key: ApiKey, at: str) -> None:
        """Note that it was used; at most once a minute, and nothing is written in between."""

    # ---- reviews ---------------------------------------------------------------------------------------

    @abstractmethod
    async def review(
        self, visit: str, verdict: Verdict, note: str, *, by: str, at: str
    ) -> AuditRecord | None:
        """A person's judgement of a visit: the last one counts, all are on record.

        What was said last is in ``VisitView.review``, all of it in the records ``visit.reviewed``. Returns as
        :meth:`storage.base.Storage.append` does.

        Raises:
            NotThere: there is no such visit.
        """


__all__ = [
    "DATABASE",
    "NOTIFICATIONS",
    "AlreadyThere",
    "ApiKey",
    "Catalogue",
    "Changes",
    "Clash",
    "Conflict",
    "KeyRole",
    "NewSettings",
    "NotThere",
    "NumberKind",
    "Operator",
    "OperatorSession",
    "Role",
    "SettingsVersion",
    "StoredApartment",
    "StoredDirectory",
    "StoredStanding",
    "Verdict",
]
