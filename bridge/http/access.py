"""Who asks, and what they may: API keys, operators' sessions, roles, scopes, and whose things are whose.

A resource names what it needs in its dependencies::

    @router.get("/visits")
    async def visits(caller: Annotated[Caller, allowed("visits:read")]) -> …:

and asks :meth:`Caller.own` before it shows anything of a tenant. Another tenant's thing is not there: 404.

Whoever asks by a session's cookie brings the session's token with every request that changes something, in
the header ``X-CSRF-Token`` or the form field ``csrf_token``, and comes from our own pages (``Origin``).
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final, Literal, cast, get_args
from urllib.parse import parse_qsl

from fastapi import Depends
from starlette.requests import HTTPConnection, Request

from bridge.http.multipart import Part, is_multipart, parts_of
from bridge.http.problems import Problem
from storage.catalogue import Catalogue, KeyRole, Operator
from visits.audit import stamp

Scope = Literal[
    "calls:read",
    "calls:write",
    "visits:read",
    "visits:review",
    "audit:read",
    "tenants:read",
    "tenants:write",
    "directory:read",
    "directory:write",
    "providers:read",
    "events:read",
    "access:write",
]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)

LEVELS: Final[dict[KeyRole, int]] = {"pbx": 0, "viewer": 1, "reviewer": 2, "manager": 3, "admin": 4}
"""Each role has all of those below it, but for `pbx`, which is apart: it registers calls."""

_VIEWER: Final[frozenset[Scope]] = frozenset(
    {
        "calls:read",
        "visits:read",
        "audit:read",
        "tenants:read",
        "directory:read",
        "providers:read",
        "events:read",
    }
)
_REVIEWER: Final[frozenset[Scope]] = _VIEWER | {"visits:review", "calls:write"}
_MANAGER: Final[frozenset[Scope]] = _REVIEWER | {"tenants:write", "directory:write", "access:write"}
SCOPES_OF: Final[dict[KeyRole, frozenset[Scope]]] = {
    "pbx": frozenset({"calls:write"}),
    "viewer": _VIEWER,
    "reviewer": _REVIEWER,
    "manager": _MANAGER,
    "admin": frozenset(SCOPES),
}

COOKIE: Final = "porteiro_session"
SECURE_COOKIE: Final = "__Host-porteiro_session"
"""Its name over HTTPS: browsers take one so called from nobody but this host."""
CSRF_HEADER: Final = "x-csrf-token"
CSRF_FIELD: Final = "csrf_token"
SESSION_S: Final = 12 * 3600
"""How long a log-in holds."""
MOST_FIELDS: Final = 2000
"""Of a form."""
MOST_FORM_BYTES: Final = 256 * 1024
"""Likewise; a file to be imported is sent as it is."""
LARGE_FORM: Final = 8 * 1024
"""Bytes of a form that take longer to read than anybody's audio may wait."""
MOST_AT_ONCE: Final = 16
"""Requests of one caller at the same time."""
_KEY_PREFIX: Final = "porteiro_"
_SAFE: Final = ("GET", "HEAD", "OPTIONS")
_FORM: Final = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        id: an operator's login, or a key's id; of ``service`` and ``local`` "".
        kind: ``service``: whoever has the key of `service.http_key_env`. ``local``: whoever is on this
            machine, where there is no such key. Both may register calls, and nothing else.
        tenant: whose things they may see; None: everybody's.
        csrf: the token of an operator's session; "" where there is none.
    """

    id: str
    kind: Literal["operator", "key", "service", "local"]
    role: KeyRole
    tenant: str | None
    scopes: frozenset[Scope]
    name: str = ""
    csrf: str = ""
    session: str = ""
    """SHA-256 of the session's id, in hexadecimal."""

    @property
    def by(self) -> str:
        """As the catalogue and the audit log name them."""
        return f"{self.kind}:{self.id}"

    @property
    def unbound(self) -> bool:
        """Whether all tenants are theirs."""
        return self.tenant is None

    @property
    def rules(self) -> bool:
        """Whether they may do everything: an administrator of all tenants."""
        return self.role == "admin" and self.tenant is None

    def may(self, *scopes: Scope) -> bool:
        """Whether they have all these scopes."""
        return self.scopes.issuperset(scopes)

    def at_least(self, role: KeyRole) -> bool:
        """Whether their role is this one, or above."""
        return LEVELS[self.role] >= LEVELS[role]

    def sees(self, tenant: str) -> bool:
        """Whether a tenant's things are shown to them; the service's own ("") to administrators of all."""
        return self.rules if tenant == "" else self.tenant in (None, tenant)

    def own(self, tenant: str, what: str = "tenant") -> str:
        """The tenant, where it is theirs to see. Whether there is one is not asked.

        Raises:
            Problem: 404, as where there is none.
        """
        if not self.sees(tenant):
            raise missing(what)
        return tenant

    def filtered(self, tenant: str | None) -> str | None:
        """The tenant that a list is of: the one that was asked for, or their own; None: all.

        Raises:
            Problem: 404, for another's.
        """
        if tenant is None:
            return self.tenant
        return self.own(tenant)


def caller_of(operator: Operator, *, csrf: str = "", session: str = "") -> Caller:
    """An operator, as one who asks."""
    return Caller(
        operator.login,
        "operator",
        operator.role,
        operator.tenant,
        SCOPES_OF[operator.role],
        name=operator.name,
        csrf=csrf,
        session=session,
    )


def missing(what: str) -> Problem:
    """What is answered for something that is not there, or not the caller's to see."""
    return Problem(404, f"found no such {what}; allowed: one of your own")


def now() -> str:
    """The time, as the catalogue takes it."""
    return stamp(datetime.now(UTC))


def digest(secret: str) -> str:
    """SHA-256 of a session's id or a key's secret, in hexadecimal: what is kept of it."""
    return sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def new_secret() -> str:
    """256 random bits, as text without anything that needs quoting."""
    return secrets.token_urlsafe(32)


def new_key() -> tuple[str, str]:
    """A new key's id and its secret."""
    return secrets.token_hex(6), secrets.token_hex(32)


def whole_key(id: str, secret: str) -> str:
    """A key as it is shown once, and sent with each request."""
    return f"{_KEY_PREFIX}{id}_{secret}"


class Access:
    """Finds out who asks.

    Args:
        catalogue: where operators, sessions and keys are.
        service_key: of `service.http_key_env`.
        local: whether whoever is on this machine may register calls without any.
    """

    def __init__(
        self, catalogue: Callable[[], Catalogue], service_key: str | None, *, local: bool = False
    ) -> None:
        self._catalogue = catalogue
        self._service_key = None if service_key is None else f"Bearer {service_key}".encode()
        self._local = local and service_key is None
        self._running: dict[str, int] = {}

    async def who(self, connection: HTTPConnection) -> Caller | None:
        """Who asks; None: somebody who brought nothing.

        Raises:
            Problem: they brought something that does not hold, or (by a cookie) from elsewhere.
        """
        given = [value for name, value in connection.scope["headers"] if name == b"authorization"]
        if given:
            return await self._by_key(given)
        session = connection.cookies.get(cookie_name(connection))
        if session is not None:
            return await self._by_session(connection, session)
        if self._local and _alone(connection):
            return Caller("", "local", "pbx", None, SCOPES_OF["pbx"])
        return None

    async def _by_key(self, given: list[bytes]) -> Caller:
        if len(given) > 1:
            raise unknown()
        # In a time that does not tell how much of it was right.
        if self._service_key is not None and hmac.compare_digest(given[0], self._service_key):
            return Caller("", "service", "pbx", None, SCOPES_OF["pbx"])
        scheme, _, token = given[0].decode("latin-1").partition(" ")
        id, _, secret = token.strip().removeprefix(_KEY_PREFIX).partition("_")
        if scheme.lower() != "bearer" or not token.startswith(_KEY_PREFIX) or not secret or not id.isalnum():
            raise unknown()
        catalogue = self._catalogue()
        found = await catalogue.key(id)
        expected = "" if found is None else found[1]
        right = hmac.compare_digest(digest(secret), expected)
        at = now()
        if found is None or not right or not found[0].holds(at):
            raise unknown()
        key = found[0]
        await catalogue.key_used(key, at)
        scopes = SCOPES_OF[key.role]
        if key.scopes is not None:
            scopes = scopes & frozenset(cast(tuple[Scope, ...], key.scopes))
        return Caller(key.id, "key", key.role, key.tenant, scopes, name=key.name)

    async def _by_session(self, connection: HTTPConnection, session: str) -> Caller:
        found = await self._catalogue().session(digest(session), at=now())
        if found is None:
            raise unknown()
        caller = caller_of(found.operator, csrf=found.csrf, session=digest(session))
        # A WebSocket is opened by a GET, from any page, with our cookie.
        if connection.scope["type"] == "websocket":
            check_origin(connection)
        elif connection.scope["method"] not in _SAFE:
            assert isinstance(connection, Request)
            check_origin(connection)
            await _check_token(connection, caller)
        return caller

    def begin(self, caller: Caller) -> Callable[[], None]:
        """Note that a request of theirs runs; what is returned notes its end.

        Those of a PBX are not counted: all its calls may come in one second, and each is answered at once.

        Raises:
            Problem: too many of them run.
        """
        if caller.role == "pbx":
            return lambda: None
        running = self._running.get(caller.by, 0)
        if running >= MOST_AT_ONCE:
            raise Problem(
                429,
                f"found {running} requests of yours that run; allowed are {MOST_AT_ONCE} at once",
                {"Retry-After": "1"},
            )
        self._running[caller.by] = running + 1

        def end() -> None:
            self._running[caller.by] -= 1
            if not self._running[caller.by]:
                del self._running[caller.by]

        return end


def unknown() -> Problem:
    """What is answered to whoever brings nothing that holds; always the same."""
    return Problem(
        401,
        "authorization: found no valid key or session; allowed: Bearer and an API key, or a log-in",
        {"WWW-Authenticate": "Bearer"},
    )


def is_secure(connection: HTTPConnection) -> bool:
    """Whether the request came over TLS, to us or to a proxy that is trusted."""
    return connection.scope["scheme"] in ("https", "wss")


def cookie_name(connection: HTTPConnection) -> str:
    """The name of the session's cookie."""
    return SECURE_COOKIE if is_secure(connection) else COOKIE


def check_origin(connection: HTTPConnection) -> None:
    """See to it that a browser sent this from one of our own pages.

    Raises:
        Problem: 403.
    """
    scheme = "https" if is_secure(connection) else "http"
    own = f"{scheme}://{connection.headers.get('host', '')}"
    origins = connection.headers.getlist("origin")
    if origins != [own]:
        raise Problem(403, "origin: found another site, or none; allowed: this service's own pages")


async def _check_token(request: Request, caller: Caller) -> None:
    given = request.headers.getlist(CSRF_HEADER)
    if not given and request.headers.get("content-type", "").partition(";")[0].strip().lower() == _FORM:
        given = [value for name, value in await form_pairs(request) if name == CSRF_FIELD]
    elif not given and is_multipart(request.headers.get("content-type", "")):
        parts = [part.content for part in await form_parts(request) if part.name == CSRF_FIELD]
        given = [content.decode("latin-1") for content in parts]
    if len(given) != 1 or not hmac.compare_digest(given[0].encode(), caller.csrf.encode()):
        raise Problem(403, f"{CSRF_HEADER}: found no valid token; allowed: the one of your session (/v1/me)")


async def form_parts(request: Request) -> list[Part]:
    """The fields of a form that carries a file. The request keeps its body for whoever reads it after this.

    Raises:
        Problem: it is no such form.
    """
    body = await request.body()
    try:  # in a thread: the event loop may carry calls
        return await asyncio.to_thread(parts_of, body, request.headers.get("content-type", ""))
    except ValueError as error:
        raise Problem(400, str(error)) from None


async def form_pairs(request: Request) -> list[tuple[str, str]]:
    """What a form says, name by name. The request keeps its body for whoever reads it after this.

    Raises:
        Problem: it is too long, or no form.
    """
    body = await request.body()
    if len(body) > MOST_FORM_BYTES:
        raise Problem(413, f"found a form of {len(body)} bytes; allowed are {MOST_FORM_BYTES}")
    try:
        if len(body) <= LARGE_FORM:
            return _read_form(body)
        return await asyncio.to_thread(_read_form, body)  # the event loop may carry calls
    except ValueError as error:
        raise Problem(
            400,
            f"found a body that is not a form ({type(error).__name__}); allowed are {MOST_FIELDS} fields",
        ) from None


def _read_form(body: bytes) -> list[tuple[str, str]]:
    return parse_qsl(
        body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS
    )


def _alone(connection: HTTPConnection) -> bool:
    """Whether it is a program on this machine that asks: no proxy passed it on, and no page sent it."""
    telling = ("forwarded", "x-forwarded-for", "x-real-ip", "via", "origin", "sec-fetch-site")
    return not any(name in connection.headers for name in telling)


@dataclass(frozen=True, slots=True)
class Guard:
    """Lets a request through whose caller may do this; see :func:`allowed`."""

    scopes: tuple[Scope, ...]
    role: KeyRole

    async def __call__(self, connection: HTTPConnection) -> Caller:
        """The caller.

        Raises:
            Problem: 401 or 403.
        """
        caller: Caller | None = connection.scope.get("porteiro.caller")
        if caller is None:
            access: Access = connection.scope["porteiro.access"]
            caller = await access.who(connection)
            if caller is None:
                raise unknown()
            if "porteiro.ends" in connection.scope:
                connection.scope["porteiro.ends"].append(access.begin(caller))
            connection.scope["porteiro.caller"] = caller
        refused = not caller.may(*self.scopes) or not caller.at_least(self.role)
        if refused and caller.kind == "local":
            raise unknown()
        if not caller.may(*self.scopes):
            needed = ", ".join(scope for scope in self.scopes if scope not in caller.scopes)
            raise Problem(403, f"found a {caller.role} without {needed}; allowed: whoever has it")
        if not caller.at_least(self.role):
            raise Problem(403, f"found a {caller.role}; allowed: {self.role} and above")
        return caller


def allowed(*scopes: Scope, role: KeyRole = "pbx") -> Any:
    """The dependency that lets through whoever has these scopes and this role, or one above it.

    It gives the :class:`Caller`. With no scope it is for everybody who is known.
    """
    return Depends(Guard(scopes, role))
