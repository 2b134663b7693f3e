"""Operators and API keys, and one's own account."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from pydantic import ValidationError
from starlette.responses import Response
from starlette.routing import Route

from bridge.http.access import LEVELS, SCOPES, SCOPES_OF, now
from bridge.http.console.page import Notice
from bridge.http.console.periods import bounds_of
from bridge.http.console.site import ZONE, Asked, Site
from bridge.http.console.wrong import invalid
from bridge.http.keys import Keys, MadeKey, NewKey
from bridge.http.operators import NewOperator, OperatorChange, Operators, PasswordChange
from bridge.http.params import part_of
from bridge.http.problems import Problem
from storage.paging import Page

T = TypeVar("T")
PER_PAGE: Final = 100
ROLES: Final = ("viewer", "reviewer", "manager", "admin")
KEY_ROLES: Final = (*ROLES, "pbx")


def routes(site: Site, operators: Operators, keys: Keys) -> list[Route]:
    """The pages of this file."""

    async def show_operators(
        asked: Asked, said: dict[str, str] | None = None, wrong: list[str] | None = None
    ) -> Response:
        return await asked.show(
            "operators.html",
            status=422 if wrong else 200,
            page=_page(asked, await operators.all(asked.caller, None), lambda one: one.login),
            later=bool(asked.query("after")),
            roles=_up_to(asked, ROLES),
            levels=LEVELS,
            tenants=site.seen_by(asked.caller),
            said=said or {},
            **_notices(wrong),
        )

    async def add_operator(asked: Asked) -> Response:
        form = await asked.form()
        said = {name: form.one(name) for name in ("login", "name", "role", "tenant")}
        try:
            wanted = NewOperator.model_validate(
                {
                    **said,
                    "login": said["login"].lower(),
                    "tenant": said["tenant"] or None,
                    "password": "".join(form.get("password", ())),
                }
            )
            await operators.add(asked.caller, wanted)
        except ValidationError as error:
            return await show_operators(asked, said, invalid(asked.t, error))
        except Problem as problem:
            return await show_operators(asked, said, _refused(problem))
        return asked.see("/operators", "saved")

    async def change_operator(asked: Asked) -> Response:
        form = await asked.form()
        login, what = asked.path("login"), form.one("what")
        try:
            if what == "role":
                change = OperatorChange.model_validate({"role": form.one("role")})
                await operators.change(asked.caller, login, change)
            elif what in ("disable", "enable"):
                change = OperatorChange(disabled=what == "disable")
                await operators.change(asked.caller, login, change)
            elif what == "password":
                new = PasswordChange.model_validate({"password": "".join(form.get("password", ()))})
                await operators.set_password(asked.caller, login, new, _address(asked))
            else:
                raise Problem(422, f"what: found {what[:20]!r}; allowed: role, disable, enable, password")
        except ValidationError as error:
            return await show_operators(asked, wrong=invalid(asked.t, error))
        except Problem as problem:
            return await show_operators(asked, wrong=_refused(problem))
        return asked.see("/operators", "saved")

    async def show_keys(
        asked: Asked,
        said: dict[str, Any] | None = None,
        wrong: list[str] | None = None,
        made: MadeKey | None = None,
    ) -> Response:
        return await asked.show(
            "keys.html",
            status=422 if wrong else 200,
            page=_page(asked, await keys.all(asked.caller, None), lambda key: key.id),
            later=bool(asked.query("after")),
            now=now(),
            roles=_up_to(asked, KEY_ROLES),
            levels=LEVELS,
            scopes=[scope for scope in SCOPES if scope in asked.caller.scopes],
            scopes_of={role: sorted(SCOPES_OF[role]) for role in SCOPES_OF},
            tenants=site.seen_by(asked.caller),
            said=said or {"scopes": ()},
            made=made,
            **_notices(wrong),
        )

    async def make_key(asked: Asked) -> Response:
        form = await asked.form()
        said: dict[str, Any] = {name: form.one(name) for name in ("name", "role", "tenant", "expires")}
        said["scopes"] = form.all("scopes")
        try:
            wanted = NewKey.model_validate(
                {
                    "name": said["name"],
                    "role": said["role"],
                    "tenant": said["tenant"] or None,
                    "scopes": said["scopes"] or None,
                    # To the end of the day that was named.
                    "expires_at": bounds_of("", said["expires"], ZONE)[1],
                }
            )
            made = await keys.make(asked.caller, wanted)
        except ValidationError as error:
            return await show_keys(asked, said, invalid(asked.t, error))
        except Problem as problem:
            return await show_keys(asked, said, _refused(problem))
        return await show_keys(asked, made=made)

    async def revoke(asked: Asked) -> Response:
        await keys.revoke(asked.caller, asked.path("id"))
        return asked.see("/keys", "revoked")

    async def account(asked: Asked, wrong: list[str] | None = None) -> Response:
        return await asked.show("account.html", status=422 if wrong else 200, **_notices(wrong))

    async def change_password(asked: Asked) -> Response:
        form = await asked.form()
        new, again = ("".join(form.get(name, ())) for name in ("password", "again"))
        if new != again:
            return await account(asked, [asked.t("account.differ")])
        try:
            change = PasswordChange.model_validate(
                {"password": new, "current": "".join(form.get("current", ()))}
            )
            await operators.set_password(asked.caller, asked.caller.id, change, _address(asked))
        except ValidationError as error:
            return await account(asked, invalid(asked.t, error))
        except Problem as problem:
            return await account(asked, _refused(problem))
        return asked.see("/login", "password")  # all sessions have ended

    async def first_operators(asked: Asked) -> Response:
        return await show_operators(asked)

    async def first_keys(asked: Asked) -> Response:
        return await show_keys(asked)

    async def first_account(asked: Asked) -> Response:
        return await account(asked)

    manages: dict[str, Any] = {"role": "manager"}
    return [
        site.page("/operators", first_operators, "access:write", **manages),
        site.page("/operators", add_operator, "access:write", methods="POST", **manages),
        site.page("/operators/{login}", change_operator, "access:write", methods="POST", **manages),
        site.page("/keys", first_keys, "access:write", **manages),
        site.page("/keys", make_key, "access:write", methods="POST", **manages),
        site.page("/keys/{id}/revoke", revoke, "access:write", methods="POST", **manages),
        site.page("/account", first_account),
        site.page("/account", change_password, methods="POST"),
    ]


def _page(asked: Asked, every: Sequence[T], key: Callable[[T], str]) -> Page[T]:
    """The page of a list that the address names."""
    return part_of(every, key, asked.query("after", 400) or None, PER_PAGE)


def _up_to(asked: Asked, roles: tuple[str, ...]) -> list[str]:
    """The roles that somebody may give: up to their own."""
    return [role for role in roles if LEVELS[role] <= LEVELS[asked.caller.role]]  # type: ignore[index]


def _address(asked: Asked) -> str:
    client = asked.request.client
    return client.host if client is not None else ""


def _notices(wrong: list[str] | None) -> dict[str, Any]:
    return {"notices": [Notice("bad", line) for line in wrong]} if wrong else {}


def _refused(problem: Problem) -> list[str]:
    """What is said of a form that was understood and refused."""
    if problem.status not in (403, 409, 422, 429):
        raise problem
    return [problem.detail]
