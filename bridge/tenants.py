"""The tenants in force: what a call that comes now finds, where that comes from, and how it is changed.

A tenant is kept in the settings files or in the database (`storage.catalogue`). Both are watched. What has
changed is checked, tenant by tenant, in a thread; what clashes with others, or can't be had, is refused, and
the version before it stays in force. What is well is brought into force by whoever runs the calls
(:class:`Installer`), all of it at one moment.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import structlog

from bridge.settings import Service, Settings, SettingsError, Tenant, clashes_among, default_ports
from bridge.settings_disk import model_problems, tenant_problems
from bridge.settings_files import SettingsFiles, directory_in, mark
from bridge.tenants_copy import CopyError, entry, read_copy, write_copy
from storage.base import StorageError
from storage.catalogue import Catalogue, SettingsVersion
from visits.audit import canonical, stamp
from visits.directory import Directory

IN_DATABASE = ""
"""Where a tenant is kept that no file names."""
LOOK_S = 0.3
"""So often the files are looked at, and a database that tells nothing by itself is asked: a change is in
force after two looks, within a second. Each wakes three threads, whether there are calls or not."""
SLOW_LOOK_S = 5.0
"""So often a database is asked that tells by itself, and what was refused is tried again."""
AWAY_S = 1.0
"""Pause before a database that is away is asked again."""

Problems = dict[str, tuple[str, ...]]
"""What is wrong with tenants, by their ids: lines."""

log = structlog.get_logger(__name__)

# --------------------------------------------------------------------------------------------------------
# What is in force
# --------------------------------------------------------------------------------------------------------


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
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The environment variables that it names, those that are set."""
    table: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Its settings as they are written, with the ports."""
    mark: object = None
    """What changes with its directory."""

    @property
    def id(self) -> str:
        """The tenant's id."""
        return self.tenant.id

    def secret(self, variable: str | None) -> str | None:
        """As :meth:`bridge.settings.Settings.secret`, for the variables that this tenant names."""
        return (self.secrets.get(variable) or None) if variable else None


Changed = Mapping[str, TenantInForce | None]
"""Tenants that are new or changed, by their ids; None: gone."""


class Prepared(Protocol):
    """A change for which everything is ready."""

    @property
    def problems(self) -> Problems:
        """Why it can't be brought into force; empty where it can."""

    def commit(self) -> None:
        """Have it in force from now on."""

    async def undo(self) -> None:
        """Let go of what was made ready."""


class Installer(Protocol):
    """Who runs the calls of the tenants."""

    async def prepare(self, changed: Changed) -> Prepared:
        """Make ready all that a change needs; what is in force stays so."""

    def numbered(self, versions: Mapping[str, Version]) -> None:
        """Tenants' versions have got their numbers."""


Subscriber = Callable[[frozenset[str]], None]
"""Called on the event loop after a change, with the ids of the tenants that are new, changed or gone."""
Listening = Callable[[Callable[[], None]], Awaitable[None]]
"""Runs until cancelled, and calls what it is given whenever the database may say something new."""


class Tenancy:
    """The tenants in force."""

    def __init__(self, settings: Settings, copy: Path | None = None) -> None:
        """
        Args:
            settings: as they were at the start.
            copy: the file of the last good copy of what is in the database; None: there is none.
        """
        self.settings = settings
        """What holds for the whole process; its tenants are those that the files named at the start."""
        self._files = SettingsFiles(settings.written)
        self._read = SettingsFiles.split(settings.written)
        self._service_at_start = self._read.service
        self._copy = copy
        self._catalogue: Catalogue | None = None
        self._listening: Listening | None = None
        self._installer: Installer | None = None
        self._in_force: dict[str, TenantInForce] = {}
        self._current: dict[str, Tenant] = {}
        self._refused: Problems = {}
        self._subscribers: list[Subscriber] = []
        # What the database said last.
        self._counter: int | None = None
        self._stored: dict[str, SettingsVersion] = {}
        self._directories: dict[str, tuple[int, Directory]] = {}
        self._away = ""
        self._from_copy = False
        self._need_restart: tuple[str, ...] = ()
        # The watch.
        self._marks: tuple[object, ...] = ()
        """As the files were when they were read last."""
        self._directory_files: tuple[str, ...] = ()
        self._told = asyncio.Event()
        self._forced = False
        self._failed = False
        """The last change met a fault of ours; it is tried again."""
        self._changing = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        # The copy.
        self._copying: asyncio.Task[None] | None = None
        self._uncopied = False
        self._lines: dict[str, tuple[TenantInForce, str]] = {}
        """Each tenant's line in it."""

    # ---- What is in force ------------------------------------------------------------------------------

    @property
    def current(self) -> Mapping[str, Tenant]:
        """The settings of each tenant, by its id."""
        return MappingProxyType(self._current)

    @property
    def in_force(self) -> Mapping[str, TenantInForce]:
        """Everything about each tenant, by its id."""
        return MappingProxyType(self._in_force)

    @property
    def settings_now(self) -> Settings:
        """The service's settings with the tenants and the secrets of now."""
        return self.settings.with_tenants(self._current, self._read.written.environ)

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
        found = {
            "settings_refused": bool(self._refused) or self._failed,
            "settings_from_copy": self._from_copy,
            "settings_need_restart": bool(self._need_restart),
        }
        return [warning for warning, holds in found.items() if holds]

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
        at = stamp(datetime.now(UTC))
        proposed: dict[str, SettingsVersion | None] = {
            name: None if table is None else SettingsVersion(name, 0, at, "", "", table, "")
            for name, table in changes.items()
        }
        problems = await asyncio.to_thread(self._wrong_with, proposed)
        return [line for lines in problems.values() for line in lines]

    def _wrong_with(self, proposed: Mapping[str, SettingsVersion | None]) -> Problems:
        candidates: dict[str, TenantInForce | None] = {}
        problems: Problems = {}
        for name, one in proposed.items():
            try:
                candidates[name] = None if one is None else self._of_database(name, one, strict=False)
            except SettingsError as error:
                problems[name] = tuple(error.problems)
        return {**problems, **self._without_clashes(candidates)[1]}

    # ---- Start and stop --------------------------------------------------------------------------------

    async def open(self, catalogue: Catalogue | None, listening: Listening | None = None) -> None:
        """Find out who is in force at the start.

        Args:
            catalogue: what the database keeps; None: it keeps no tenants.
            listening: tells when it says something new; None: it must be asked.

        Raises:
            SettingsError: a tenant of the files can't be used.
        """
        self._catalogue, self._listening = catalogue, listening
        self._marks = await asyncio.to_thread(self._marks_now)
        if catalogue is not None and not await self._read_database() and self._copy is not None:
            await self._use_copy(self._copy)
        changed, refused = await asyncio.to_thread(self._survey)
        fatal = [line for name, lines in refused.items() if name in self._read.tables for line in lines]
        if fatal and not self._away:
            raise SettingsError(fatal, self.settings.source)
        self._install(changed)
        self._say_refused(refused)

    def refuse(self, tenant: str, problem: str) -> None:
        """A tenant of the start can't be brought into force after all; it is tried again."""
        self._in_force.pop(tenant)
        self._current.pop(tenant)
        self._say_refused({**self._refused, tenant: (problem,)})

    def start(self, installer: Installer) -> None:
        """From now on changes are brought into force."""
        self._installer = installer
        self._keep_copy()
        loop = asyncio.get_running_loop()
        self._tasks.append(loop.create_task(self._watch(), name="watch over the settings"))
        if self._listening is not None:
            work = _forever(self._listening, self._told.set)
            self._tasks.append(loop.create_task(work, name="the database's notices"))

    async def stop(self) -> None:
        """Change nothing any more. More than once is harmless."""
        self._installer = None
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if self._copying is not None:
            tasks.append(self._copying)
        if tasks:
            await asyncio.wait(tasks)
        async with self._changing:
            pass  # a change that somebody else asked for is carried through

    # ---- The watch -------------------------------------------------------------------------------------

    async def reload(self) -> None:
        """Read everything anew; what has changed and is well is in force when this returns."""
        async with self._changing:
            if self._installer is None:
                return
            self._marks = await asyncio.to_thread(self._marks_now)
            await self._read_files()
            await self._read_database()
            await self._change()

    def reload_soon(self) -> None:
        """Read everything anew as soon as may be, without waiting for it."""
        self._forced = True
        self._told.set()

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        seen, asked, tried = self._marks, loop.time(), loop.time()
        while True:
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._told.wait()
            except TimeoutError:
                pass
            now = loop.time()
            marks = await asyncio.to_thread(self._marks_now)
            # Looked at twice: whoever writes a file may not be through with it.
            files = marks == seen and marks != self._marks
            seen = marks
            pause = AWAY_S if self._away else SLOW_LOOK_S if self._listening is not None else LOOK_S
            database = self._told.is_set() or now - asked >= pause
            again = self._forced or (bool(self._refused or self._failed) and now - tried >= SLOW_LOOK_S)
            files, self._forced = files or self._forced, False
            self._told.clear()
            async with self._changing:
                try:
                    if files:
                        self._marks = marks
                        await self._read_files()
                    if database:
                        asked = now
                        database = await self._read_database()
                    if files or database or again:
                        tried = now
                        await self._change()
                except Exception as error:  # a fault of ours: what is in force stays, and is watched over
                    log.error("settings.not_followed", error=type(error).__name__, exc_info=error)
                    self._failed = True
                else:
                    self._failed = self._failed and not (files or database or again)

    def _marks_now(self) -> tuple[object, ...]:
        return self._files.marks(self._directory_files)

    async def _read_files(self) -> None:
        try:
            self._read = await asyncio.to_thread(self._files.read)
        except SettingsError as error:
            self._say_refused({**self._refused, "": tuple(error.problems)})
            return
        self._refused.pop("", None)
        self._look_at_service(self._read.service)

    def _look_at_service(self, service: Service) -> None:
        """Say what of the service's own settings counts after a restart alone."""
        old, new = self._service_at_start, service
        names = tuple(
            name
            for name in Service.model_fields
            if name not in ("visitor_port", "resident_port") and getattr(old, name) != getattr(new, name)
        )
        if names and names != self._need_restart:
            log.warning("settings.needs_restart", settings=[f"service.{name}" for name in names])
        self._need_restart = names

    async def _read_database(self) -> bool:
        """Whether it says something new, or can be asked again."""
        if self._catalogue is None:
            return False
        try:
            if self._counter is not None and await self._catalogue.counter() == self._counter:
                return self._back()
            changes = await self._catalogue.changes_since(self._counter or 0)
            directories = dict(self._directories)
            for tenant, version in (changes.directories or {}).items():
                if version == directories.get(tenant, (0, None))[0]:
                    continue
                found = await self._catalogue.directory(tenant) if version else None
                directories.pop(tenant, None)
                if found is not None:
                    directories[tenant] = found.version, found.directory
        except StorageError as error:
            if not self._away:
                log.warning("settings.database_away", reason=str(error))
            self._away = str(error) or type(error).__name__
            return False
        if self._counter is None:  # all there are: what the copy had beside them is gone
            self._stored.clear()
            directories = {
                name: one for name, one in directories.items() if name in (changes.directories or {})
            }
        self._stored |= {one.tenant: one for one in changes.tenants}
        for tenant in changes.removed:
            self._stored.pop(tenant, None)
        self._directories, self._counter = directories, changes.counter
        self._back()
        return True

    def _back(self) -> bool:
        """The database has answered; whether it was away."""
        was_away = bool(self._away)
        if was_away:
            log.info("settings.database_back")
        self._away, self._from_copy = "", False
        return was_away

    # ---- What has changed, and is it well? In a thread. -------------------------------------------------

    def _survey(self) -> tuple[dict[str, TenantInForce | None], Problems]:
        """What is to be in force now that is not, and what can't be."""
        candidates: dict[str, TenantInForce | None] = {}
        problems: Problems = {}
        # By id: where two want the same, every service gives it to the same one.
        for name in sorted({*self._read.tables, *self._stored}):
            try:
                found = self._found(name)
            except SettingsError as error:
                problems[name] = tuple(error.problems)
            else:
                if found is not self._in_force.get(name):
                    candidates[name] = found
        for name in self._in_force:
            if name not in self._read.tables and name not in self._stored:
                candidates[name] = None
        candidates, clashes = self._without_clashes(candidates)
        return candidates, {**problems, **clashes}

    def _found(self, name: str) -> TenantInForce:
        """A tenant as its source says now; what is in force where that is the same.

        Raises:
            SettingsError: it can't be used.
        """
        table, stored = self._read.tables.get(name), self._stored.get(name)
        if table is not None and stored is not None:
            raise SettingsError([_in_both(name, self._read.written.kept_in(name))])
        return self._of_files(name) if stored is None else self._of_database(name, stored)

    def _of_files(self, name: str) -> TenantInForce:
        table, kept_in = self._read.tables[name], self._read.written.kept_in(name)
        old = self._in_force.get(name)
        if old is not None and old.kept_in == kept_in and self._same(old, table):
            return old
        tenant = self._checked(name, table)
        version = Version(None, digest_of(table))
        if old is not None and old.version.digest == version.digest:
            version = old.version
        return self._with_directory(TenantInForce(tenant, Directory(()), version, kept_in, table=table))

    def _of_database(self, name: str, stored: SettingsVersion, *, strict: bool = True) -> TenantInForce:
        """`strict`: not where it is only proposed, and another of the same id may be in the files."""
        content = stored.content or {}
        if not strict and name in self._read.tables:
            raise SettingsError([_in_both(name, self._read.written.kept_in(name))])
        if "directory" in content:
            found = f"tenants.{name}.directory: found a file"
            raise SettingsError([f"{found}; allowed: none, its directory is in the database"])
        table = {**default_ports(self._read.written.tree.get("service")), **content}
        version = Version(stored.version, stored.digest)
        old = self._in_force.get(name)
        if (
            old is not None
            and (old.kept_in, old.version) == (IN_DATABASE, version)
            and self._same(old, table)
        ):
            return old
        tenant = self._checked(name, table)
        return self._with_directory(TenantInForce(tenant, Directory(()), version, table=table))

    def _same(self, old: TenantInForce, table: Mapping[str, Any]) -> bool:
        """Whether nothing has changed of a tenant that is in force."""
        return (
            old.table == table
            and old.secrets == self._secrets(old.tenant)
            and old.mark == self._directory_mark(old.tenant)
        )

    def _checked(self, name: str, table: Mapping[str, Any]) -> Tenant:
        tenant = self._read.written.one(name, table, self.settings.service)
        alone = self.settings.with_tenants({name: tenant}, self._read.written.environ)
        if problems := tenant_problems(tenant, alone) + model_problems(alone):
            raise SettingsError(problems)
        return tenant

    def _secrets(self, tenant: Tenant) -> dict[str, str]:
        environ = self._read.written.environ
        return {name: environ[name] for _, name in tenant.secret_variables if environ.get(name)}

    def _directory_mark(self, tenant: Tenant) -> object:
        if tenant.directory is not None:
            return mark(tenant.directory)
        return self._directories.get(tenant.id, (0, None))[0]

    def _with_directory(self, one: TenantInForce) -> TenantInForce:
        tenant = one.tenant
        found = self._directory_mark(tenant)
        if tenant.directory is not None:
            try:
                directory = directory_in(tenant.directory)
            except SettingsError as error:
                raise SettingsError(
                    [f"tenants.{tenant.id}.directory: {each}" for each in error.problems]
                ) from None
        elif tenant.id in self._directories:
            directory = self._directories[tenant.id][1]
        elif self._away:
            away = f"tenants.{tenant.id}.directory: not set, and the database that has it is away"
            raise SettingsError([f"{away}: {self._away}"])
        else:
            directory = Directory(())
        return replace(one, directory=directory, secrets=self._secrets(tenant), mark=found)

    def _without_clashes(
        self, candidates: Mapping[str, TenantInForce | None]
    ) -> tuple[dict[str, TenantInForce | None], Problems]:
        """Those that have nothing against each other and against the rest, which comes first.

        Who has a port or a number keeps it before all who want it, and files come before the database: no
        change in it keeps a service from starting.
        """

        def rank(name: str) -> tuple[bool, bool, str]:
            new, old = candidates[name], self._current.get(name)
            wants_more = new is not None and (old is None or not _claims(new.tenant) <= _claims(old))
            return wants_more, new is not None and new.kept_in == IN_DATABASE, name

        fitting = {name: candidates[name] for name in sorted(candidates, key=rank)}
        problems: dict[str, list[str]] = {}
        while True:
            kept = {name: tenant for name, tenant in self._current.items() if name not in fitting}
            new = {name: one.tenant for name, one in fitting.items() if one is not None}
            clashes = [
                (name, line)
                for name, line in clashes_among(self.settings.service, {**kept, **new})
                if name in new
            ]
            if not clashes:
                return fitting, {name: tuple(lines) for name, lines in problems.items()}
            for name, line in clashes:
                problems.setdefault(name, []).append(line)
                fitting.pop(name, None)

    # ---- Bringing it into force ------------------------------------------------------------------------

    async def _change(self) -> None:
        """Bring into force what has changed and is well; say what is not."""
        changed, refused = await asyncio.to_thread(self._survey)
        while changed and self._installer is not None:
            prepared = await self._installer.prepare(changed)
            if not prepared.problems:
                await self._bring_into_force(prepared, changed)
                break
            await prepared.undo()
            refused |= prepared.problems
            rest = {name: one for name, one in changed.items() if name not in prepared.problems}
            if len(rest) == len(changed):
                raise AssertionError(f"refused for others than those that change: {prepared.problems}")
            changed, clashes = await asyncio.to_thread(self._without_clashes, rest)
            refused |= clashes
        self._say_refused(refused if "" not in self._refused else {**refused, "": self._refused[""]})
        await self.number()

    def _install(self, changed: Changed) -> None:
        if not changed:
            return
        for name, one in changed.items():
            what = "gone" if one is None else "changed" if name in self._in_force else "new"
            if one is None:
                del self._in_force[name], self._current[name]
            else:
                self._in_force[name], self._current[name] = one, one.tenant
            if self._installer is not None:
                version = {} if one is None else one.version.as_record()
                log.info("settings.in_force", tenant=name, change=what, **version)
        named = {str(tenant.directory) for tenant in self._current.values() if tenant.directory is not None}
        self._directory_files = tuple(sorted(named))

    def _say_refused(self, refused: Problems) -> None:
        for name, lines in refused.items():
            if self._refused.get(name) != lines:
                stays = name in self._in_force or not name
                log.error("settings.refused", tenant=name, problems=list(lines), old_stays=stays)
        self._refused = dict(refused)

    async def _bring_into_force(self, prepared: Prepared, changed: Changed) -> None:
        try:
            new = {name: one for name, one in changed.items() if one is not None}
            versions = await self._noted(new)
        except BaseException:
            await prepared.undo()
            raise
        self._install(changed)
        prepared.commit()
        self._have_numbers(versions)
        self._keep_copy()
        for subscriber in tuple(self._subscribers):
            subscriber(frozenset(changed))

    async def number(self) -> None:
        """Have the database note those versions of the files that it has not, where it can."""
        self._have_numbers(await self._noted(self._in_force))

    async def _noted(self, tenants: Mapping[str, TenantInForce]) -> dict[str, Version]:
        """Versions with the numbers that the database gives them; none of those that have theirs."""
        versions: dict[str, Version] = {}
        if self._catalogue is None or self._away:
            return versions
        for name, one in tenants.items():
            if one.version.number is not None:
                continue
            try:
                noted = await self._catalogue.note_version(
                    name, one.table, one.kept_in, at=stamp(datetime.now(UTC))
                )
            except StorageError as error:
                log.warning("settings.version_not_noted", tenant=name, reason=str(error))
                break
            versions[name] = Version(noted.version, noted.digest)
        return versions

    def _have_numbers(self, versions: Mapping[str, Version]) -> None:
        for name, version in versions.items():
            self._in_force[name] = replace(self._in_force[name], version=version)
        if versions and self._installer is not None:
            self._installer.numbered(versions)

    # ---- The last good copy ----------------------------------------------------------------------------

    def _keep_copy(self) -> None:
        """Write down what the database said, where it is well."""
        if self._copy is None or self._catalogue is None or self._counter is None:
            return
        self._uncopied = True
        if self._copying is None or self._copying.done():
            self._copying = asyncio.get_running_loop().create_task(
                self._write_copy(self._copy), name="copy of the settings"
            )

    async def _write_copy(self, file: Path) -> None:
        while self._uncopied:
            self._uncopied = False
            try:
                await asyncio.to_thread(self._copy_to, file, dict(self._in_force))
            except OSError as error:
                log.error("settings.not_copied", file=str(file), reason=error.strerror)

    def _copy_to(self, file: Path, in_force: Mapping[str, TenantInForce]) -> None:
        old, self._lines = self._lines, {}
        for name, one in in_force.items():
            known = old.get(name)
            self._lines[name] = known if known is not None and known[0] is one else (one, _line(one))
        lines = [line for _, line in self._lines.values() if line]
        write_copy(file, self._database, stamp(datetime.now(UTC)), lines)

    async def _use_copy(self, file: Path) -> None:
        """The database is away at the start: what it said last counts, as far as anybody knows."""
        try:
            copy = await asyncio.to_thread(read_copy, file, self._database)
        except CopyError as error:
            log.error("settings.no_copy", file=str(file), reason=str(error))
            return
        self._from_copy = True
        self._stored, self._directories = dict(copy.tenants), dict(copy.directories)
        log.warning(
            "settings.from_copy", file=str(file), tenants=len(copy.tenants), written_at=copy.written_at
        )

    @property
    def _database(self) -> str:
        """Which database it is, for the copy: without a password that its URL may hold."""
        return hashlib.sha256(str(self.settings.service.database_url or "").encode()).hexdigest()


def _line(one: TenantInForce) -> str:
    """What the copy says of a tenant; empty where all of it is in files."""
    content = one.table if one.kept_in == IN_DATABASE else None
    directory = None
    if one.tenant.directory is None and isinstance(one.mark, int) and one.mark:
        directory = one.mark, one.directory
    if content is None and directory is None:
        return ""
    return entry(one.id, (one.version.number, one.version.digest), content, directory)


def _claims(tenant: Tenant) -> set[int | str]:
    """What no two tenants may have."""
    domain = set() if tenant.freeswitch is None else {tenant.freeswitch.domain_uuid}
    return {tenant.visitor_port, tenant.resident_port, *tenant.numbers, *domain}


def _in_both(name: str, file: str) -> str:
    return f"tenants.{name}: found in {file} and in the database; allowed: in one of them"


async def _forever(listening: Listening, told: Callable[[], None]) -> None:
    await listening(told)


def digest_of(content: Mapping[str, Any]) -> str:
    """SHA-256 of canonical JSON, in hex."""
    return hashlib.sha256(canonical(content).encode()).hexdigest()


__all__ = [
    "IN_DATABASE",
    "Changed",
    "Installer",
    "Prepared",
    "Problems",
    "Subscriber",
    "Tenancy",
    "TenantInForce",
    "Version",
    "digest_of",
]
