"""`/v1/tenants`: the tenants, their settings, and every version of those that was in force."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Annotated, Any, Final, Protocol

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel

from bridge.http.access import Caller, allowed, missing, now
from bridge.http.description import problems
from bridge.http.params import (
    Cursor,
    Limit,
    Needed,
    PageOf,
    TenantPath,
    page_of,
    tag,
)
from bridge.http.problems import FieldProblem, Problem, refused_fields
from bridge.http.rights import HOUSE_FIELDS, house_part, merged, not_the_houses
from bridge.http.route import GuardedRoute
from bridge.masking import MASK, masked
from bridge.settings import with_policy
from bridge.tenants import Tenancy
from storage.catalogue import Catalogue, Clash, Conflict, NotThere, SettingsVersion
from storage.paging import cursor_of, key_of

CHANGES: Final = problems(409, 412, 428)
MOST_DEEP: Final = 16
"""Tables and lists in each other, in a tenant's settings."""


class Holder(Protocol):
    """What the tenants need of the service."""

    @property
    def catalogue(self) -> Catalogue:
        """Where tenants are kept."""

    tenancy: Tenancy
    """The tenants in force."""


class TenantSummary(BaseModel):
    """One tenant in a list."""

    id: str
    name: str
    in_force: bool
    """Whether calls are taken for it."""
    version: int | None
    """Of the settings in force; None where the database does not number them yet."""
    kept_in: str | None
    """The file that holds it; None: the database, where it can be changed from here."""
    problems: list[str]
    """Why its newest settings can't be used."""


class TenantSettings(TenantSummary):
    """One tenant with its settings."""

    whole: bool
    """False: `content` has what the house decides, which is all that the caller may see and change."""
    content: dict[str, Any]
    """What a table `[tenants.ID]` holds."""


class Version(BaseModel):
    """One version of a tenant's settings."""

    version: int
    at: str
    by: str
    source: str
    """`database`, or the file."""
    digest: str
    """SHA-256 of the whole content as canonical JSON; empty where the tenant was removed."""
    content: dict[str, Any] | None
    """None: the tenant was removed."""


class Tenants:
    """What the resources of a tenant have in common: who there is, and where they are kept."""

    def __init__(self, holder: Holder) -> None:
        self._holder = holder

    @property
    def catalogue(self) -> Catalogue:
        """Where tenants are kept."""
        return self._holder.catalogue

    @property
    def tenancy(self) -> Tenancy:
        """The tenants in force."""
        return self._holder.tenancy

    def file_of(self, tenant: str) -> str | None:
        """The file that keeps a tenant; None: no file does."""
        one = self.tenancy.in_force.get(tenant)
        return one.kept_in or None if one is not None else None

    def _file_for(self, caller: Caller, tenant: str) -> str | None:
        """The same, for whoever asks: where the service keeps its files is no matter of one house."""
        file = self.file_of(tenant)
        return file if file is None or caller.unbound else PurePath(file).name

    async def is_there(self, tenant: str) -> bool:
        """Whether there is such a tenant, in force or not."""
        return self.file_of(tenant) is not None or await self.catalogue.tenant(tenant) is not None

    async def must_be_there(self, caller: Caller, tenant: str) -> None:
        """Raises :class:`Problem`: 404 where there is no such tenant, or it is another's."""
        caller.own(tenant)
        if not await self.is_there(tenant):
            raise missing("tenant")

    async def settings(self, caller: Caller, tenant: str) -> TenantSettings:
        """A tenant as a caller may see it: its newest settings. Raises :class:`Problem`."""
        caller.own(tenant)
        stored = await self.catalogue.tenant(tenant)
        one = self.tenancy.in_force.get(tenant)
        if stored is not None and stored.content is not None:
            content = dict(stored.content)
        elif one is not None and one.kept_in:
            content = one.tenant.model_dump(mode="json", exclude_unset=True, exclude={"id"})
        else:
            raise missing("tenant")
        return TenantSettings(
            **self._summary(caller, tenant, stored).model_dump(),
            whole=caller.unbound,
            content=shown_to(caller, as_written_now(content)),
        )

    def page(self, caller: Caller, after: str | None, limit: int) -> PageOf[TenantSummary]:
        """Tenants that a caller may see, by their ids: those in force, and those that were refused."""
        behind = key_of(after, str)[0] if after is not None else ""
        every = {*self.tenancy.in_force, *self.tenancy.refused} - {""}
        names = sorted(name for name in every if name > behind and caller.sees(name))
        shown = [self._summary(caller, name) for name in names[:limit]]
        return PageOf(items=shown, next=cursor_of(shown[-1].id) if len(names) > limit else None)

    def _summary(self, caller: Caller, tenant: str, stored: SettingsVersion | None = None) -> TenantSummary:
        one = self.tenancy.in_force.get(tenant)
        written = None if stored is None or stored.content is None else stored.content.get("name")
        name = one.tenant.title if one is not None else written
        number = None if one is None else one.version.number
        return TenantSummary(
            id=tenant,
            name=name if isinstance(name, str) and name else tenant,
            in_force=one is not None,
            version=number if stored is None else stored.version,
            kept_in=self._file_for(caller, tenant),
            problems=[told(line, tenant, caller) for line in self.tenancy.refused.get(tenant, ())],
        )

    async def put(
        self, caller: Caller, tenant: str, given: Mapping[str, Any], expected: int
    ) -> tuple[SettingsVersion, bool]:
        """Have settings in force, as far as the caller decides them; and whether the tenant is new.

        Raises:
            Problem: they may not, they are wrong, or somebody else was quicker.
        """
        stored = await self._changeable(caller, tenant, creating=expected == 0)
        # In a thread: the event loop may carry calls.
        content = await asyncio.to_thread(_wanted, caller, given, stored)
        if wrong := await self.tenancy.propose({tenant: content}):
            raise refused_fields([_field_problem(told(line, tenant, caller), tenant) for line in wrong])
        try:
            version = await self.catalogue.put_tenant(
                tenant, content, expected=expected, by=caller.by, at=now()
            )
        except Conflict as error:
            raise changed_meanwhile(error) from None
        except Clash as error:
            detail = str(error) if caller.unbound else f"{error.kind} {error.value!r} is another tenant's"
            raise refused_fields([{"field": f"{error.kind}s", "detail": detail}]) from None
        return version, stored is None

    async def remove(self, caller: Caller, tenant: str, expected: int) -> None:
        """Remove a tenant. Raises as :meth:`put`."""
        if not caller.rules:
            caller.own(tenant)
            raise Problem(403, "found somebody who does not answer for all tenants; allowed: an admin of all")
        if await self._changeable(caller, tenant, creating=False) is None:
            raise missing("tenant")
        try:
            await self.catalogue.remove_tenant(tenant, expected=expected, by=caller.by, at=now())
        except Conflict as error:
            raise changed_meanwhile(error) from None
        except NotThere:
            raise missing("tenant") from None

    async def _changeable(self, caller: Caller, tenant: str, *, creating: bool) -> SettingsVersion | None:
        """The settings that are stored, where the caller may change them."""
        caller.own(tenant)
        if file := self._file_for(caller, tenant):
            raise Problem(409, f"found a tenant that is kept in {file}; allowed: those of the database")
        stored = await self.catalogue.tenant(tenant)
        if stored is None and not caller.rules:
            raise missing("tenant")
        if stored is None and not creating:
            raise missing("tenant")
        return stored


def as_written_now(content: Mapping[str, Any]) -> dict[str, Any]:
    """A tenant's settings in the names that they have now, as far as they can be read."""
    consent = content.get("consent")
    if not isinstance(consent, Mapping):
        return dict(content)
    try:
        return {**content, "consent": with_policy(consent)}
    except ValueError:  # it was refused for that, and whoever mends it must see it
        return dict(content)


def shown_to(caller: Caller, content: Mapping[str, Any]) -> dict[str, Any]:
    """What of a tenant's settings a caller sees; a URL's secrets only whoever may write them."""
    if not caller.unbound:
        return house_part(content)
    return dict(content) if caller.rules else {name: _masked(value) for name, value in content.items()}


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, Mapping):
        return {name: _masked(below) for name, below in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(each) for each in value]
    return value


def _unmasked(given: Any, stored: Any, path: str = "") -> Any:
    """What is given, with what was only shown masked as it is stored.

    Raises:
        Problem: a text was changed of which a part was not shown.
    """
    if isinstance(given, Mapping) and isinstance(stored, Mapping):
        below = f"{path}." if path else ""
        return {name: _unmasked(value, stored.get(name), f"{below}{name}") for name, value in given.items()}
    if isinstance(given, list) and isinstance(stored, list):
        kept = [*stored, *[None] * (len(given) - len(stored))]
        return [_unmasked(one, kept[at], f"{path}.{at}") for at, one in enumerate(given)]
    if not isinstance(given, str) or not isinstance(stored, str) or masked(stored) == stored:
        return given
    if given == masked(stored):
        return stored
    if MASK in given:
        detail = f"found a text with {MASK} in place of what is not shown to you; allowed: the text as it "
        raise refused_fields([{"field": path, "detail": f"{detail}was shown, or another without {MASK}"}])
    return given


def _wanted(caller: Caller, given: Mapping[str, Any], stored: SettingsVersion | None) -> dict[str, Any]:
    """All the settings that a caller wants who gives some of them.

    Args:
        stored: what is in force; it stays as far as it is not the caller's to decide.

    Raises:
        Problem: they give what is not theirs, or nobody's.
    """
    if not _is_flat(given, MOST_DEEP):
        detail = f"found tables or lists more than {MOST_DEEP} deep in each other; allowed are fewer"
        raise refused_fields([{"field": "", "detail": detail}])
    if caller.rules:
        if "directory" in given:
            detail = "found a file; allowed: none, /directory is it"
            raise refused_fields([{"field": "directory", "detail": detail}])
        return dict(given)
    if foreign := list(not_the_houses(given)):
        detail = f"is not the house's to decide; allowed are {', '.join(HOUSE_FIELDS)}"
        raise refused_fields([{"field": path, "detail": detail} for path in foreign])
    assert stored is not None and stored.content is not None  # :meth:`Tenants._changeable`
    if caller.unbound:
        given = _unmasked(given, stored.content)
    return merged(stored.content, given)


def _is_flat(value: Any, most: int) -> bool:
    """Whether nothing in it is deeper than that."""
    below = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return not below or (most > 0 and all(_is_flat(each, most - 1) for each in below))


def told(line: str, tenant: str, caller: Caller) -> str:
    """A line about a tenant's settings, without other tenants' names for whoever is bound to one."""
    if caller.unbound:
        return line
    return re.sub(rf"tenants\.(?!{re.escape(tenant)}(?![a-z0-9_-]))[a-z0-9_-]+", "another tenant", line)


def _field_problem(line: str, tenant: str) -> FieldProblem:
    field, _, detail = line.partition(": ")
    own = f"tenants.{tenant}"
    if not detail or not field.startswith((own, "service")):
        return {"field": "", "detail": line}
    return {"field": field.removeprefix(own).removeprefix("."), "detail": detail}


def changed_meanwhile(error: Conflict) -> Problem:
    """What is answered to who has not seen the last version."""
    return Problem(
        412, f"found version {error.found}, not {error.expected}: somebody else changed it", tag(error.found)
    )


def router(tenants: Tenants) -> APIRouter:
    """The resources of this file."""
    routes = APIRouter(tags=["tenants"], route_class=GuardedRoute)

    @routes.get("/tenants")
    async def tenants_page(
        caller: Annotated[Caller, allowed("tenants:read")], limit: Limit = 50, after: Cursor = None
    ) -> PageOf[TenantSummary]:
        """The tenants that the caller may see, by their ids."""
        return tenants.page(caller, after, limit)

    @routes.get("/tenants/{tenant}", responses=problems(404))
    async def one(
        caller: Annotated[Caller, allowed("tenants:read")], tenant: TenantPath, response: Response
    ) -> TenantSettings:
        """One tenant with its settings. `ETag` is the version that a change must name."""
        found = await tenants.settings(caller, tenant)
        response.headers.update(tag(found.version or 0))
        return found

    @routes.put(
        "/tenants/{tenant}", responses=problems(404) | CHANGES | {201: {"description": "The tenant is new"}}
    )
    async def put(
        caller: Annotated[Caller, allowed("tenants:write", role="manager")],
        tenant: TenantPath,
        content: dict[str, Any],
        expected: Needed,
        response: Response,
    ) -> TenantSettings:
        """Have other settings in force, for the next call within a second; all of them, not a part.

        Whoever is bound to a tenant gives what the house decides, and the rest stays.
        """
        version, new = await tenants.put(caller, tenant, content, expected)
        response.headers.update(tag(version.version))
        response.status_code = 201 if new else 200
        return await tenants.settings(caller, tenant)

    @routes.delete("/tenants/{tenant}", status_code=204, responses=problems(404) | CHANGES)
    async def remove(
        caller: Annotated[Caller, allowed("tenants:write", role="admin")],
        tenant: TenantPath,
        expected: Needed,
    ) -> None:
        """Remove a tenant and its directory. Its visits, its audit log and all versions stay."""
        await tenants.remove(caller, tenant, expected)

    @routes.get("/tenants/{tenant}/history", responses=problems(404))
    async def history(
        caller: Annotated[Caller, allowed("tenants:read")],
        tenant: TenantPath,
        limit: Limit = 50,
        after: Cursor = None,
    ) -> PageOf[Version]:
        """The versions of a tenant's settings, the latest first."""
        caller.own(tenant)
        page = await tenants.catalogue.history(tenant, after=after, limit=limit)
        if not page.items and after is None:
            await tenants.must_be_there(caller, tenant)
        return page_of(page, lambda version: _shown(version, caller))

    @routes.get("/tenants/{tenant}/history/{version}", responses=problems(404))
    async def version(
        caller: Annotated[Caller, allowed("tenants:read")],
        tenant: TenantPath,
        version: Annotated[int, Path(ge=1, le=10**9)],
    ) -> Version:
        """One version of a tenant's settings."""
        caller.own(tenant)
        found = await tenants.catalogue.version(tenant, version)
        if found is None:
            raise missing("version")
        return _shown(found, caller)

    return routes


def _shown(version: SettingsVersion, caller: Caller) -> Version:
    content = version.content
    if content is not None:
        content = shown_to(caller, content)
    return Version(
        version=version.version,
        at=version.at,
        by=version.by,
        source=version.source,
        digest=version.digest,
        content=content,
    )
