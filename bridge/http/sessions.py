"""`POST /v1/login` and `/v1/logout`, `GET /v1/me`: operators' sessions, and who one is."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Annotated, Protocol

import structlog
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from bridge.http.access import (
    SESSION_S,
    Caller,
    Scope,
    allowed,
    caller_of,
    check_origin,
    cookie_name,
    digest,
    is_secure,
    new_secret,
)
from bridge.http.description import problems
from bridge.http.problems import Problem
from bridge.http.route import GuardedRoute
from bridge.http.throttle import ACCOUNT, ADDRESS, Throttle, address_name
from bridge.passwords import LONGEST, hashed, matches
from storage.catalogue import Catalogue, KeyRole, Operator
from visits.audit import stamp

CHECKS_AT_ONCE = 1
"""Passwords that are checked at the same time: each takes a CPU from the calls for some 30 ms."""
MOST_WAITING = 16
"""Log-ins that wait for that. One more is turned down."""

log = structlog.get_logger(__name__)


class LogIn(BaseModel):
    """Who wants in."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    login: Annotated[str, Field(min_length=1, max_length=80)]
    password: Annotated[str, Field(min_length=1, max_length=LONGEST)]


class Me(BaseModel):
    """Who asks, and what they may."""

    id: str
    kind: str
    name: str
    role: KeyRole
    tenant: str | None
    scopes: list[Scope]
    csrf_token: str | None
    """What each request that changes something brings in `X-CSRF-Token`; None without a session."""


class Holder(Protocol):
    """What has the catalogue."""

    @property
    def catalogue(self) -> Catalogue:
        """Where the operators are."""


class LogIns:
    """Checks passwords: a few at once, and whoever guesses waits."""

    def __init__(self, holder: Holder) -> None:
        self._holder = holder
        self._accounts = Throttle(ACCOUNT)
        self._addresses = Throttle(ADDRESS)
        self._threads = ThreadPoolExecutor(CHECKS_AT_ONCE, "password")
        self._waiting = 0

    async def operator(self, login: str, password: str, address: str) -> Operator:
        """Who has this login and this password.

        Raises:
            Problem: 401 where nobody has, the same and as late whatever was wrong; 429 for who guesses; 503.
        """
        loop = asyncio.get_running_loop()
        login = login.strip().lower()
        counted = ((self._accounts, digest(login)), (self._addresses, address_name(address)))
        wait_s = max(throttle.wait_s(name, loop.time()) for throttle, name in counted)
        if wait_s > 0:
            log.warning("http.login_throttled", peer=address)
            raise Problem(
                429,
                f"found too many wrong log-ins; allowed again in {wait_s:.0f} s",
                {"Retry-After": f"{wait_s + 0.5:.0f}"},
            )
        if self._waiting >= MOST_WAITING:
            raise Problem(503, f"found {self._waiting} log-ins that wait; allowed are {MOST_WAITING}")
        for throttle, name in counted:
            throttle.tried(name, loop.time())
        self._waiting += 1
        try:
            found = await self._holder.catalogue.credentials(login)
            kept = None if found is None else found[1]
            right = await loop.run_in_executor(self._threads, matches, kept, password)
        except BaseException:
            for throttle, name in counted:
                throttle.undone(name)
            raise
        finally:
            self._waiting -= 1
        if found is None or not right or found[0].disabled:
            log.warning("http.login_refused", peer=address)
            raise Problem(401, "found no operator with this login and password; allowed: those of one")
        # An address is not forgiven its guesses for knowing one account.
        self._accounts.right(digest(login))
        self._addresses.undone(address_name(address))
        log.info("http.login", operator=found[0].login, peer=address)
        return found[0]

    async def hashed(self, password: str) -> str:
        """What is to be kept of a password."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, hashed, password)

    async def begin(self, request: Request, response: Response, login: str, password: str) -> Me:
        """Log an operator in: a new session, whose cookie goes with the response.

        Raises:
            Problem: see :meth:`operator`; 403 for a form of another site.
        """
        if "origin" in request.headers:
            check_origin(request)
        who = await self.operator(login, password, request.client.host if request.client else "")
        session, csrf = new_secret(), new_secret()
        at = datetime.now(UTC)
        until = stamp(at + timedelta(seconds=SESSION_S))
        await self._holder.catalogue.begin_session(
            digest(session), who.login, csrf, at=stamp(at), expires_at=until
        )
        response.set_cookie(
            cookie_name(request),
            session,
            max_age=SESSION_S,
            secure=is_secure(request),
            httponly=True,
            samesite="lax",
        )
        return me(caller_of(who, csrf=csrf))

    async def end(self, caller: Caller, request: Request, response: Response) -> None:
        """End a session: its id is of no use from now on."""
        await self._holder.catalogue.end_session(caller.session)
        response.delete_cookie(cookie_name(request), secure=is_secure(request), httponly=True, samesite="lax")


def me(caller: Caller) -> Me:
    """What a caller is told of themselves."""
    return Me(
        id=caller.id,
        kind=caller.kind,
        name=caller.name,
        role=caller.role,
        tenant=caller.tenant,
        scopes=sorted(caller.scopes),
        csrf_token=caller.csrf or None,
    )


def router(log_ins: LogIns) -> APIRouter:
    """The resources of this file."""
    routes = APIRouter(tags=["access"], route_class=GuardedRoute)

    @routes.post("/login", responses=problems(401, 403, 429, 503))
    async def login(request: Request, response: Response, who: LogIn) -> Me:
        """Log in: the answer brings the session's cookie, and the token for whatever changes something."""
        return await log_ins.begin(request, response, who.login, who.password)

    @routes.post("/logout", status_code=204)
    async def logout(request: Request, response: Response, caller: Annotated[Caller, allowed()]) -> None:
        """End one's session. A key has none: nothing happens."""
        if caller.session:
            await log_ins.end(caller, request, response)

    @routes.get("/me")
    async def who_am_i(caller: Annotated[Caller, allowed()]) -> Me:
        """Who asks, and what they may."""
        return me(caller)

    return routes
