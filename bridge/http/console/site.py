"""What all pages share: who asks, the menu, the texts, forms, and what is shown where something is wrong.

A page is a coroutine that is given :class:`Asked` and answers; :meth:`Site.page` says who may see it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final, Protocol
from urllib.parse import quote, urlencode
from zoneinfo import ZoneInfo

import structlog
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bridge.http.access import CSRF_FIELD, Caller, Guard, Scope, form_pairs, missing
from bridge.http.console.language import Language
from bridge.http.console.page import ROOT, Notice, Pages, see
from bridge.http.console.wrong import refused
from bridge.http.problems import Problem
from bridge.live import Hub
from bridge.rehearsal import Rehearsals
from bridge.settings import Tenant
from bridge.showing import safe
from bridge.tenants import Tenancy
from storage.base import Storage, StorageError, StorageRefused
from storage.catalogue import Catalogue, KeyRole

ZONE: Final = ZoneInfo("America/Sao_Paulo")
"""Of what is no tenant's."""

log = structlog.get_logger(__name__)


class Behind(Protocol):
    """What the pages need of the service."""

    tenancy: Tenancy
    hub: Hub
    rehearsals: Rehearsals

    @property
    def storage(self) -> Storage:
        """Visits and the audit log."""

    @property
    def catalogue(self) -> Catalogue:
        """Tenants, directories, operators, keys."""


@dataclass(frozen=True)
class Entry:
    """One line of the menu."""

    title: str
    path: str
    icon: str
    current: bool


@dataclass(frozen=True)
class Group:
    """Some lines of the menu, with a title above them."""

    title: str
    entries: tuple[Entry, ...]


MENU: Final[tuple[tuple[str, tuple[tuple[str, str, str, Scope, KeyRole], ...]], ...]] = (
    ("menu.work", (
        ("menu.live", "/", "live", "calls:read", "viewer"),
        ("menu.visits", "/visits", "visits", "visits:read", "viewer"),
        ("menu.charts", "/charts", "charts", "visits:read", "viewer"),
        ("menu.audit", "/audit", "audit", "audit:read", "viewer"),
        ("menu.test", "/test-call", "call", "calls:write", "reviewer"),
    )),
    ("menu.houses", (
        ("menu.tenants", "/tenants", "tenants", "tenants:read", "viewer"),
    )),
    ("menu.access", (
        ("menu.operators", "/operators", "operators", "access:write", "manager"),
        ("menu.keys", "/keys", "keys", "access:write", "manager"),
    )),
)  # fmt: skip
"""Title, path below the root, picture, and who sees it."""


class Form(Mapping[str, Sequence[str]]):
    """What a form said: every value of each name."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name, []).append(value)

    def __getitem__(self, name: str) -> Sequence[str]:
        return self._values[name]

    def __iter__(self) -> Any:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def one(self, name: str) -> str:
        """The last value of a name, without spaces around it; empty where there is none."""
        return self._values[name][-1].strip() if name in self._values else ""

    def all(self, name: str) -> list[str]:
        """Every value of a name that is not empty."""
        return [value.strip() for value in self._values.get(name, ()) if value.strip()]


@dataclass(frozen=True)
class Asked:
    """A request for a page, by somebody who may see it."""

    site: Site
    request: Request
    caller: Caller

    @property
    def t(self) -> Language:
        """What is said, in their language."""
        return self.site.pages.language(self.request)

    @property
    def service(self) -> Behind:
        """What the page is about."""
        return self.site.service

    def path(self, name: str) -> str:
        """A part of the address, as the route names it. Raises :class:`Problem` for what names nothing."""
        text = str(self.request.path_params[name])
        if not text.isprintable():
            raise missing("page")
        return text

    def number(self, name: str) -> int:
        """A part of the address that is a number. Raises :class:`Problem`."""
        text = self.path(name)
        if not text.isascii() or not text.isdecimal() or len(text) > 9:
            raise missing("page")
        return int(text)

    def query(self, name: str, most: int = 200) -> str:
        """A value of the address's query, without spaces around it; empty where there is none to be shown."""
        text = self.request.query_params.get(name, "").strip()[:most]
        return text if text.isprintable() else ""

    def filters(self, names: Iterable[str]) -> dict[str, str]:
        """What the address says of each filter of a list; empty where nothing."""
        return {name: self.query(name, 80) for name in names}

    async def form(self) -> Form:
        """What the form said. Raises :class:`Problem` where it is none."""
        return await read_form(self.request)

    async def show(self, template: str, /, *, status: int = 200, **given: Any) -> Response:
        """A page of the site's, with the menu."""
        return await self.site.show(self.request, self.caller, template, status=status, **given)

    async def names(self) -> Callable[[str], str]:
        """How whoever did something is spoken of, by what records call them."""
        operators = await self.service.catalogue.operators()
        return partial(who_did, self.t, {one.login: one.name for one in operators})

    def see(self, path: str, done: str = "") -> Response:
        """Go and look there; ``done`` says what was done: a text of the area `done`."""
        return see(f"{ROOT}{path}{'&' if '?' in path else '?'}done={done}" if done else f"{ROOT}{path}")


Page = Callable[[Asked], Coroutine[Any, Any, Response]]


class Site:
    """All pages together."""

    def __init__(self, pages: Pages, service: Behind) -> None:
        self.pages = pages
        self.service = service

    def page(
        self, path: str, page: Page, *scopes: Scope, role: KeyRole = "viewer", methods: str = "GET"
    ) -> Route:
        """A route to a page, for operators who have these scopes and this role, or one above it."""

        async def answer(request: Request) -> Response:
            caller = await Guard(scopes, role)(request)
            if caller.kind != "operator":
                raise Problem(403, "found a key; allowed: an operator's session")
            return await page(Asked(self, request, caller))

        return Route(path, answer, methods=methods.split())

    # ----------------------------------------------------------------------------------------------------
    # What a page is given
    # ----------------------------------------------------------------------------------------------------

    async def show(
        self, request: Request, caller: Caller, template: str, /, *, status: int = 200, **given: Any
    ) -> Response:
        """A page with the menu, for whoever asks."""
        t = self.pages.language(request)
        done = self.done(request)
        tenants = self.tenants()
        notices = (Notice("good", done),) if done else ()
        given = {
            "who": caller,
            "csrf": caller.csrf,
            "csrf_field": CSRF_FIELD,
            "menu": self._menu(caller, request.url.path),
            "notices": notices,
            "when": Times(t, tenants),
            "title_of": partial(title_of, tenants),
            **given,
        }
        return await self.pages.show(request, template, status=status, **given)

    def done(self, request: Request) -> str:
        """What a form before this page did, by the word in its address; empty where none is said."""
        t, word = self.pages.language(request), request.query_params.get("done", "")
        return t(f"done.{word}") if t.has(f"done.{word}") else ""

    def _menu(self, caller: Caller, path: str) -> list[Group]:
        groups = []
        for title, lines in MENU:
            entries = tuple(
                Entry(name, ROOT + at, icon, _is_current(path.removeprefix(ROOT), at))
                for name, at, icon, scope, role in lines
                if caller.may(scope) and caller.at_least(role)
            )
            if entries:
                groups.append(Group(title, entries))
        return groups

    def tenants(self) -> Mapping[str, Tenant]:
        """The tenants in force."""
        return self.service.tenancy.current

    def seen_by(self, caller: Caller) -> dict[str, str]:
        """The tenants that somebody may see, by their ids: how they are spoken of."""
        return {name: one.title for name, one in sorted(self.tenants().items()) if caller.sees(name)}

    # ----------------------------------------------------------------------------------------------------
    # Where something is wrong
    # ----------------------------------------------------------------------------------------------------

    async def of_problem(self, request: Request, error: Exception) -> Response:
        """The page for a request that is not carried out; whoever is not known is asked who they are."""
        assert isinstance(error, HTTPException)
        if error.status_code == 401:
            return see(log_in_path(request))
        return await self._error(request, error.status_code, str(error.detail), error.headers)

    async def of_storage(self, request: Request, error: Exception) -> Response:
        """The page where the database can't be asked, or refuses."""
        assert isinstance(error, StorageError)
        if isinstance(error, StorageRefused):  # a cursor that nobody gave, for one
            return await self._error(request, 400, str(error))
        log.warning("http.storage_failed", error=str(error))
        return await self._error(request, 503, "")

    async def of_fault(self, request: Request, _: Exception) -> Response:
        """The page where we failed; the log has the rest."""
        return await self._error(request, 500, "")

    async def _error(
        self, request: Request, status: int, detail: str, headers: Mapping[str, str] | None = None
    ) -> Response:
        known = status if self.pages.language(request).has(f"error.{status}.title") else 500
        told = refused(self.pages.language(request), detail)
        given: dict[str, Any] = {"code": status, "known": known, "detail": detail, "told": told}
        caller: Caller | None = request.scope.get("porteiro.caller")
        if caller is None or caller.kind != "operator":
            answer: Response = await self.pages.show(request, "error_bare.html", status=status, **given)
        else:
            answer = await self.show(request, caller, "error.html", status=status, **given)
        for name, value in (headers or {}).items():
            answer.headers[name] = value
        return answer


def title_of(tenants: Mapping[str, Tenant], tenant: str) -> str:
    """How a tenant is spoken of; by its id where it is not in force."""
    known = tenants.get(tenant)
    return known.title if known is not None else tenant


def who_did(t: Language, names: Mapping[str, str], by: str) -> str:
    """An operator by their name, a program's key by its id; what else records name as they name it."""
    kind, colon, id = by.partition(":")
    if kind == "operator" and colon:
        return safe(names.get(id, id))
    return t(f"by.{kind}", id=safe(id)) if t.has(f"by.{kind}") else safe(by)


class Times:
    """Moments as people read them, by the clock of the house that they are of."""

    def __init__(self, t: Language, tenants: Mapping[str, Tenant]) -> None:
        self._t = t
        self._tenants = tenants

    def zone(self, tenant: str | None) -> ZoneInfo:
        """A tenant's time zone."""
        known = self._tenants.get(tenant or "")
        return ZONE if known is None else ZoneInfo(known.timezone)

    def __call__(self, at: str | None, tenant: str | None = None, *, seconds: bool = False) -> str | Markup:
        """Day and time, as an element that says the moment to programs too."""
        if not at:
            return "—"
        moment = datetime.fromisoformat(at)
        told = self._t.moment(moment, self.zone(tenant), seconds=seconds)
        return Markup('<time datetime="{}">{}</time>').format(at, told)

    def clock(self, at: str | None, tenant: str | None = None) -> str | Markup:
        """The time of day alone."""
        if not at:
            return "—"
        told = self._t.clock(datetime.fromisoformat(at), self.zone(tenant), seconds=True)
        return Markup('<time datetime="{}">{}</time>').format(at, told)

    def lasted(self, began: str, ended: str | None) -> str:
        """How long it took; empty while it lasts."""
        if not ended:
            return ""
        span = datetime.fromisoformat(ended) - datetime.fromisoformat(began)
        return self._t.duration(span.total_seconds())


async def read_form(request: Request) -> Form:
    """A form's fields.

    Raises:
        Problem: it is no form, or too long.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Problem(415, f"content-type: found {kind[:80]!r}; allowed: a form")
    return Form(await form_pairs(request))


def log_in_path(request: Request) -> str:
    """The log-in page, which leads back to what was asked for where that can be asked for again."""
    here = request.url.path
    if request.method != "GET" or here == f"{ROOT}/":
        return f"{ROOT}/login"
    query = f"?{request.url.query}" if request.url.query else ""
    return f"{ROOT}/login?next={quote(here + query, safe='')}"


def looked_for(said: Mapping[str, str], after: str | None) -> dict[str, Any]:
    """What a list's page shows of its filters, and what its links take along."""
    told = {name: value for name, value in said.items() if value}
    return {"said": said, "filtered": bool(told), "query": urlencode(told), "later": after is not None}


def _is_current(path: str, entry: str) -> bool:
    return path == entry if entry == "/" else path == entry or path.startswith(f"{entry}/")
