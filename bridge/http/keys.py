"""`/v1/keys`: the API keys of programs, each shown once."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from bridge.http.access import (
    SCOPES_OF,
    Caller,
    Scope,
    allowed,
    digest,
    missing,
    new_key,
    now,
    whole_key,
)
from bridge.http.description import problems
from bridge.http.params import (
    TENANT,
    TEXT,
    Body,
    Cursor,
    IdPath,
    Limit,
    Moment,
    PageOf,
    TenantQuery,
    as_stamp,
    page_of,
    part_of,
)
from bridge.http.problems import Problem, refused_fields
from bridge.http.route import GuardedRoute
from bridge.http.tenants import Tenants
from storage.catalogue import ApiKey, KeyRole

Keeper = Annotated[Caller, allowed("access:write", role="manager")]


class NewKey(Body):
    """A key to be made."""

    name: Annotated[str, Field(min_length=1, max_length=80, pattern=TEXT)]
    """What it is for."""
    role: KeyRole
    scopes: Annotated[tuple[Scope, ...], Field(max_length=20)] | None = None
    """Fewer than the role's; null: all of them."""
    tenant: Annotated[str, Field(pattern=TENANT)] | None = None
    """Whose things it sees; null: everybody's."""
    expires_at: Moment | None = None


class ShownKey(BaseModel):
    """A key, without its secret."""

    id: str
    name: str
    role: KeyRole
    scopes: list[str] | None
    tenant: str | None
    created_at: str
    created_by: str
    expires_at: str | None
    revoked_at: str | None
    used_at: str | None
    holds: bool
    """Whether it is neither revoked nor expired."""


class MadeKey(ShownKey):
    """A new key: the only time that it is shown."""

    key: str
    """For `Authorization: Bearer KEY`."""


class Keys:
    """What the resources of this file do."""

    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants

    async def all(self, caller: Caller, tenant: str | None) -> list[ApiKey]:
        """The keys that a caller may look after, the latest first."""
        return await self._tenants.catalogue.keys(caller.filtered(tenant))

    async def make(self, caller: Caller, wanted: NewKey) -> MadeKey:
        """Make a key. Raises :class:`Problem` where it could do more than its maker, or is of no use."""
        await check_rank(self._tenants, caller, wanted.role, wanted.tenant)
        scopes = SCOPES_OF[wanted.role] if wanted.scopes is None else frozenset(wanted.scopes)
        if beyond := scopes - SCOPES_OF[wanted.role]:
            detail = (
                f"found {min(beyond)}; allowed are the role's: {', '.join(sorted(SCOPES_OF[wanted.role]))}"
            )
            raise refused_fields([{"field": "scopes", "detail": detail}])
        if beyond := scopes - caller.scopes:
            raise Problem(403, f"scopes: found {min(beyond)}, which you have not; allowed are your own")
        expires_at = as_stamp(wanted.expires_at)
        at = now()
        if expires_at is not None and expires_at <= at:
            raise refused_fields(
                [{"field": "expires_at", "detail": "found a time that is over; allowed: later"}]
            )
        id, secret = new_key()
        key = await self._tenants.catalogue.add_key(
            id,
            digest(secret),
            name=wanted.name,
            role=wanted.role,
            scopes=None if wanted.scopes is None else sorted(set(wanted.scopes)),
            tenant=wanted.tenant,
            expires_at=expires_at,
            by=caller.by,
            at=at,
        )
        return MadeKey(**shown_key(key).model_dump(), key=whole_key(id, secret))

    async def one(self, caller: Caller, id: str) -> ApiKey:
        """A key that the caller may look after. Raises :class:`Problem`."""
        found = await self._tenants.catalogue.key(id)
        if found is None or caller.tenant not in (None, found[0].tenant):
            raise missing("key")
        return found[0]

    async def revoke(self, caller: Caller, id: str) -> ApiKey:
        """Have a key hold no longer. Raises :class:`Problem`."""
        key = await self.one(caller, id)
        if not caller.at_least(key.role):
            raise Problem(403, f"found a key of an {key.role}; allowed: up to {caller.role}")
        if key.revoked_at is not None:
            return key
        return await self._tenants.catalogue.revoke_key(id, by=caller.by, at=now())


async def check_rank(tenants: Tenants, caller: Caller, role: KeyRole, tenant: str | None) -> None:
    """See to it that a caller gives nobody more than they have themselves.

    Raises:
        Problem: a role above theirs, or of more tenants; no such tenant.
    """
    if not caller.at_least(role):
        raise Problem(403, f"role: found {role}; allowed: up to your own, {caller.role}")
    if tenant is None and not caller.unbound:
        raise Problem(403, f"tenant: found none; allowed: your own, {caller.tenant}")
    if tenant is not None and not (caller.sees(tenant) and await tenants.is_there(tenant)):
        raise refused_fields([{"field": "tenant", "detail": f"found {tenant!r}; allowed: one that you see"}])


def shown_key(key: ApiKey) -> ShownKey:
    """A key as it is shown."""
    return ShownKey(
        id=key.id,
        name=key.name,
        role=key.role,
        scopes=None if key.scopes is None else list(key.scopes),
        tenant=key.tenant,
        created_at=key.created_at,
        created_by=key.created_by,
        expires_at=key.expires_at,
        revoked_at=key.revoked_at,
        used_at=key.used_at,
        holds=key.holds(now()),
    )


def router(keys: Keys) -> APIRouter:
    """The resources of this file."""
    routes = APIRouter(prefix="/keys", tags=["access"], route_class=GuardedRoute)

    @routes.get("", responses=problems(404))
    async def page(
        caller: Keeper, tenant: TenantQuery = None, limit: Limit = 50, after: Cursor = None
    ) -> PageOf[ShownKey]:
        """The keys that the caller may look after, the latest first; revoked and expired ones too."""
        every = await keys.all(caller, tenant)
        return page_of(part_of(every, lambda key: key.id, after, limit), shown_key)

    @routes.post("", status_code=201)
    async def make(caller: Keeper, wanted: NewKey) -> MadeKey:
        """Make a key. `key` is shown this once."""
        return await keys.make(caller, wanted)

    @routes.get("/{id}", responses=problems(404))
    async def one(caller: Keeper, id: IdPath) -> ShownKey:
        """One key."""
        return shown_key(await keys.one(caller, id))

    @routes.delete("/{id}", responses=problems(404))
    async def revoke(caller: Keeper, id: IdPath) -> ShownKey:
        """Revoke a key: it is of no use from now on, for ever."""
        return shown_key(await keys.revoke(caller, id))

    return routes
