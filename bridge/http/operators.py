"""`/v1/operators`: the people who log in."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request

from bridge.http.access import SCOPES_OF, Caller, allowed, missing, now
from bridge.http.description import problems
from bridge.http.keys import check_rank
from bridge.http.params import (
    TENANT,
    TEXT,
    Body,
    Cursor,
    IdPath,
    Limit,
    PageOf,
    TenantQuery,
    page_of,
    part_of,
)
from bridge.http.problems import Problem, refused_fields
from bridge.http.route import GuardedRoute
from bridge.http.sessions import LogIns
from bridge.http.tenants import Tenants
from bridge.passwords import LONGEST, SHORTEST, password_problem
from storage.catalogue import AlreadyThere, Operator, Role

Keeper = Annotated[Caller, allowed("access:write", role="manager")]
LOGIN = r"^[a-z0-9][a-z0-9_.@+-]{0,79}$"
Name = Annotated[str, Field(max_length=80, pattern=TEXT)]
Password = Annotated[str, Field(min_length=SHORTEST, max_length=LONGEST)]


class NewOperator(Body):
    """Somebody who is to log in."""

    login: Annotated[str, Field(pattern=LOGIN)]
    name: Name = ""
    password: Password
    role: Role
    tenant: Annotated[str, Field(pattern=TENANT)] | None = None
    """Whose things they see; null: everybody's."""


class OperatorChange(Body):
    """What of an operator is to be another; null: as it is."""

    name: Name | None = None
    role: Role | None = None
    disabled: bool | None = None


class PasswordChange(Body):
    """Another password."""

    password: Password
    current: Annotated[str, Field(max_length=LONGEST)] = ""
    """For one's own: the one that it takes the place of."""


class ShownOperator(BaseModel):
    """An operator."""

    login: str
    name: str
    role: Role
    tenant: str | None
    disabled: bool
    created_at: str


class Operators:
    """What the resources of this file do."""

    def __init__(self, tenants: Tenants, log_ins: LogIns) -> None:
        self._tenants = tenants
        self._log_ins = log_ins

    async def all(self, caller: Caller, tenant: str | None) -> list[Operator]:
        """The operators that a caller may look after."""
        return await self._tenants.catalogue.operators(caller.filtered(tenant))

    async def one(self, caller: Caller, login: str) -> Operator:
        """An operator that the caller may look after. Raises :class:`Problem`."""
        found = await self._tenants.catalogue.operator(login)
        if found is None or caller.tenant not in (None, found.tenant):
            raise missing("operator")
        return found

    async def add(self, caller: Caller, wanted: NewOperator) -> Operator:
        """Have somebody log in. Raises :class:`Problem`."""
        await check_rank(self._tenants, caller, wanted.role, wanted.tenant)
        _check_scopes(caller, wanted.role)
        _check_password(wanted.password)
        kept = await self._log_ins.hashed(wanted.password)
        try:
            return await self._tenants.catalogue.add_operator(
                wanted.login,
                name=wanted.name,
                password_hash=kept,
                role=wanted.role,
                tenant=wanted.tenant,
                by=caller.by,
                at=now(),
            )
        except AlreadyThere:
            detail = f"login: found {wanted.login!r}, which somebody has; allowed: another"
            raise Problem(409, detail) from None

    async def change(self, caller: Caller, login: str, change: OperatorChange) -> Operator:
        """Change what is given. Raises :class:`Problem`."""
        operator = await self._below(caller, login)
        if caller.kind == "operator" and caller.id == login and (change.role or change.disabled):
            raise Problem(409, "found your own role; allowed: that somebody else changes it")
        if change.role is not None:
            await check_rank(self._tenants, caller, change.role, operator.tenant)
            _check_scopes(caller, change.role)
        return await self._tenants.catalogue.change_operator(
            login,
            name=change.name,
            role=change.role,
            disabled=change.disabled,
            by=caller.by,
            at=now(),
        )

    async def set_password(self, caller: Caller, login: str, change: PasswordChange, address: str) -> None:
        """Another password; all sessions of that operator end. One's own needs the current one.

        Raises:
            Problem: it may not be one, the current one is another, or it is not theirs to change.
        """
        _check_password(change.password)
        if caller.kind == "operator" and caller.id == login:
            try:
                await self._log_ins.operator(login, change.current, address)
            except Problem as problem:
                if problem.status != 401:
                    raise
                detail = "found another than yours; allowed: yours"
                raise refused_fields([{"field": "current", "detail": detail}]) from None
        else:
            if not (caller.may("access:write") and caller.at_least("manager")):
                raise missing("operator")
            await self._below(caller, login)
        kept = await self._log_ins.hashed(change.password)
        await self._tenants.catalogue.set_password(login, kept, by=caller.by, at=now())

    async def _below(self, caller: Caller, login: str) -> Operator:
        """An operator whom the caller may change: nobody above them."""
        operator = await self.one(caller, login)
        if not caller.at_least(operator.role):
            raise Problem(403, f"found an {operator.role}; allowed: up to your own role, {caller.role}")
        _check_scopes(caller, operator.role)
        return operator


def _check_scopes(caller: Caller, role: Role) -> None:
    # A narrowed key would else get round its limits by a person who has none.
    if beyond := SCOPES_OF[role] - caller.scopes:
        raise Problem(403, f"role: found {role}, who has {min(beyond)}; allowed are your own scopes")


def _check_password(password: str) -> None:
    if (problem := password_problem(password)) is not None:
        raise refused_fields([{"field": "password", "detail": problem}])


def router(operators: Operators) -> APIRouter:
    """The resources of this file."""
    routes = APIRouter(prefix="/operators", tags=["access"], route_class=GuardedRoute)

    @routes.get("", responses=problems(404))
    async def page(
        caller: Keeper, tenant: TenantQuery = None, limit: Limit = 50, after: Cursor = None
    ) -> PageOf[ShownOperator]:
        """The operators that the caller may look after, by their logins."""
        every = await operators.all(caller, tenant)
        return page_of(part_of(every, lambda one: one.login, after, limit), shown)

    @routes.post("", status_code=201, responses=problems(409))
    async def add(caller: Keeper, wanted: NewOperator) -> ShownOperator:
        """Have somebody log in."""
        return shown(await operators.add(caller, wanted))

    @routes.get("/{login}", responses=problems(404))
    async def one(caller: Keeper, login: IdPath) -> ShownOperator:
        """One operator."""
        return shown(await operators.one(caller, login))

    @routes.patch("/{login}", responses=problems(404, 409))
    async def change(caller: Keeper, login: IdPath, wanted: OperatorChange) -> ShownOperator:
        """Change an operator; whoever is disabled is out at once."""
        return shown(await operators.change(caller, login, wanted))

    @routes.put("/{login}/password", status_code=204, responses=problems(404))
    async def password(
        caller: Annotated[Caller, allowed()], login: IdPath, wanted: PasswordChange, request: Request
    ) -> None:
        """Another password: one's own, by the current one, or that of somebody whom one looks after.

        All sessions of that operator end, one's own too.
        """
        address = request.client.host if request.client else ""
        await operators.set_password(caller, login, wanted, address)

    return routes


def shown(operator: Operator) -> ShownOperator:
    """An operator as they are shown."""
    return ShownOperator(
        login=operator.login,
        name=operator.name,
        role=operator.role,
        tenant=operator.tenant,
        disabled=operator.disabled,
        created_at=operator.created_at,
    )
