"""`/api/*`: the paths of the older systems, answered as their programs expect: same fields, in Portuguese.

An *extension* there (`ramal`) was one number that visitors dial, with its two ports, of one condominium: here
it is one number of a tenant, or a tenant that has none. Its `id` is a number made of the two, since a tenant
has none; it stays the same as long as they do. The PBX's own return extensions are not known here.

These programs brought no key at all. Now they need one, as `Authorization: Bearer` or `X-API-Key`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Mapping
from hashlib import sha256
from typing import Annotated, Any, Final, Literal, Protocol
from uuid import UUID

import structlog
from fastapi import APIRouter
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bridge.http.access import Caller, allowed
from bridge.http.description import problems
from bridge.http.problems import Problem
from bridge.http.route import GuardedRoute
from bridge.http.running import hang_up_for
from bridge.live import Hub, RunningVisit
from bridge.settings import Settings, Tenant
from bridge.tenants import Tenancy

KEY_HEADER: Final = b"x-api-key"
_CONDOMINIUM: Final = re.compile(r"condominio-([0-9]{1,18})(?:-.*)?")
"""A tenant that `porteiro import` made of an extension."""

log = structlog.get_logger(__name__)


class Behind(Protocol):
    """What these paths need of the service."""

    settings: Settings
    hub: Hub
    tenancy: Tenancy

    def not_ready(self) -> list[str]:
        """Why no visitor would be taken now; empty where one would."""

    def ports(self, tenant: str) -> tuple[int, int]:
        """A tenant's visitor and resident port. Raises :class:`KeyError`: it listens on none."""

    async def reopen(self, tenant: str) -> bool:
        """Have a tenant's ports closed and opened again, once none of its calls runs; whether that is now.

        Raises:
            KeyError: it listens on none.
        """


class Extension(BaseModel):
    """One number of a tenant, with its ports."""

    id: int
    ramal_ia: str
    ramal_retorno: str
    ip_servidor: str
    porta_ia: int
    porta_retorno: int
    condominio_id: int | str


class RunningExtension(BaseModel):
    """The same, with what runs on it."""

    id: int
    ramal_ia: str
    ramal_retorno: str
    ip: str
    porta_ia: int
    porta_retorno: int
    condominio_id: int | str
    status: Literal["ativo", "inativo"]
    active_calls: int
    calls: list[str]
    """The ids of the visits that run."""


class Status(BaseModel):
    """What runs."""

    status: Literal["success"] = "success"
    service: Literal["running", "not_ready"]
    active_calls: int
    total_extensions: int
    extensions: list[RunningExtension]


class Extensions(BaseModel):
    """All extensions."""

    status: Literal["success"] = "success"
    total: int
    extensions: list[Extension]


class Done(BaseModel):
    """It was done."""

    status: Literal["success"] = "success"
    message: str


class Stats(BaseModel):
    """What changed, in tenants."""

    removed: int
    updated: int
    added: int
    total_active: int


class Refreshed(Done):
    """The settings were read anew."""

    stats: Stats


class Error(BaseModel):
    """It was not done."""

    status: Literal["error"] = "error"
    message: str


class _Asked(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


class HangUpAsked(_Asked):
    """A call, or all calls of an extension."""

    call_id: UUID | None = None
    role: Literal["visitor", "resident"] | None = None
    ramal: Annotated[str, Field(max_length=80)] | None = None
    extension_id: int | None = None


class RestartAsked(_Asked):
    """An extension."""

    ramal: Annotated[str, Field(max_length=80)] | None = None
    extension_id: int | None = None


class OlderRoute(GuardedRoute):
    """A route whose key may come as `X-API-Key`, and whose errors look as they did."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler."""
        handle = super().get_route_handler()

        async def handle_older(request: Request) -> Response:
            _take_key(request)
            try:
                return await handle(request)
            except Problem as problem:
                return _error(problem.status, problem.detail, problem.headers)
            except RequestValidationError as error:
                first = error.errors()[0]
                field = ".".join(str(part) for part in first["loc"] if part != "body")
                return _error(400, f"{field or 'body'}: {first['msg']}")

        return handle_older


def _take_key(request: Request) -> None:
    """A key that came as `X-API-Key`, as if it had come as every other one."""
    headers: list[tuple[bytes, bytes]] = request.scope["headers"]
    keys = [value for name, value in headers if name == KEY_HEADER]
    if keys and not any(name == b"authorization" for name, _ in headers):
        request.scope["headers"] = [*headers, *((b"authorization", b"Bearer " + key) for key in keys)]


def _errors() -> dict[int | str, dict[str, Any]]:
    """What the description says of errors: those that come before a path is known look as all others do."""
    ours = {"application/json": {"schema": Error.model_json_schema()}}
    found = problems(400, 401, 403, 404, 408, 413, 415, 429, 503)
    return {status: {**said, "content": {**ours, **said["content"]}} for status, said in found.items()}


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse(Error(message=message).model_dump(), status, headers)


def router(service: Behind) -> APIRouter:
    """The resources of this file."""
    routes = APIRouter(tags=["older systems"], route_class=OlderRoute, prefix="/api", deprecated=True)
    errors = _errors()

    @routes.get("/status", responses=errors)
    async def status(caller: Annotated[Caller, allowed("calls:read")]) -> Status:
        """The extensions, and the calls that run on each."""
        found = _extensions(service, caller)
        shown = [_running(service, tenant, one) for tenant, one in found]
        return Status(
            service="not_ready" if service.not_ready() else "running",
            active_calls=len(service.hub.running(caller.tenant)),
            total_extensions=len(shown),
            extensions=shown,
        )

    @routes.get("/extensions", responses=errors)
    async def extensions(caller: Annotated[Caller, allowed("tenants:read")]) -> Extensions:
        """The extensions."""
        found = [one for _, one in _extensions(service, caller)]
        return Extensions(total=len(found), extensions=found)

    @routes.post("/hangup", responses=errors)
    async def hang_up(
        asked: HangUpAsked, caller: Annotated[Caller, allowed("calls:write", role="reviewer")]
    ) -> Done:
        """Hang up a call, one side of it (`role`), or all calls of an extension."""
        if asked.call_id is not None:
            return await _hang_up_call(service.hub, caller, asked.call_id, asked.role)
        if asked.ramal is None and asked.extension_id is None:
            raise Problem(400, "call_id é obrigatório (ou ramal, ou extension_id)")
        tenant, extension = _extension(service, caller, asked.ramal, asked.extension_id)
        calls = _calls_of(service, tenant, extension.ramal_ia)
        for call in calls:
            await hang_up_for(service.hub, caller, UUID(call.id), None)
        return Done(message=f"{len(calls)} chamada(s) do ramal {_called(extension)} encerrada(s)")

    @routes.post("/refresh", responses=errors)
    async def refresh(caller: Annotated[Caller, allowed("tenants:write", role="manager")]) -> Refreshed:
        """Read the settings anew, now. They are read by themselves as well, within a second of a change."""
        before = dict(service.tenancy.current)
        await service.tenancy.reload()
        now = service.tenancy.current
        log.info("settings.refreshed", by=caller.by)
        old, new = ({name for name in each if caller.sees(name)} for each in (before, now))
        stats = Stats(
            removed=len(old - new),
            updated=sum(before[name] != now[name] for name in old & new),
            added=len(new - old),
            total_active=len(new),
        )
        return Refreshed(message="Configurações atualizadas com sucesso", stats=stats)

    @routes.post("/restart", responses=errors)
    async def restart(
        asked: RestartAsked, caller: Annotated[Caller, allowed("tenants:write", role="manager")]
    ) -> Done:
        """Close an extension's ports and open them again: at once, or as soon as none of its calls runs.

        No call that runs is ended by it.
        """
        if asked.ramal is None and asked.extension_id is None:
            raise Problem(400, "É necessário fornecer extension_id ou ramal")
        tenant, extension = _extension(service, caller, asked.ramal, asked.extension_id)
        try:
            at_once = await service.reopen(tenant)
        except KeyError:
            raise Problem(404, f"Ramal {_called(extension)} não encontrado") from None
        log.info("tenant.reopen_asked", tenant=tenant, by=caller.by, at_once=at_once)
        how = "reiniciado com sucesso" if at_once else "será reiniciado quando suas chamadas terminarem"
        return Done(message=f"Ramal {_called(extension)} {how}")

    return routes


async def _hang_up_call(hub: Hub, caller: Caller, call: UUID, role: str | None) -> Done:
    visit = hub.visit(call, caller.tenant)
    if visit is None:
        raise Problem(404, f"Sessão {call} não encontrada")
    leg = None
    if role is not None:
        leg = next((each.name for each in visit.legs if each.role == role and not each.ended), None)
        if leg is None:
            raise Problem(404, f"Conexão ativa não encontrada para {call} ({role})")
    await hang_up_for(hub, caller, call, leg)
    return Done(message=f"Chamada {call} encerrada" + (f" ({role})" if role else ""))


# ---- Extensions ----------------------------------------------------------------------------------------


def _extensions(service: Behind, caller: Caller) -> list[tuple[str, Extension]]:
    """The extensions that a caller may see, with their tenants."""
    return [
        (name, _as_extension(service, tenant, number))
        for name, tenant in sorted(service.tenancy.current.items())
        if caller.sees(name)
        for number in tenant.numbers or ("",)
    ]


def _as_extension(service: Behind, tenant: Tenant, number: str) -> Extension:
    try:
        visitors, residents = service.ports(tenant.id)
    except KeyError:
        visitors, residents = tenant.visitor_port, tenant.resident_port
    known = _CONDOMINIUM.fullmatch(tenant.id)
    return Extension(
        id=int.from_bytes(sha256(f"{tenant.id}/{number}".encode()).digest()[:6]),
        ramal_ia=number,
        ramal_retorno="",
        ip_servidor=service.settings.service.listen[0],
        porta_ia=visitors,
        porta_retorno=residents,
        condominio_id=int(known[1]) if known else tenant.id,
    )


def _running(service: Behind, tenant: str, one: Extension) -> RunningExtension:
    calls = [call.id for call in _calls_of(service, tenant, one.ramal_ia)]
    try:
        service.ports(tenant)
        listens = True
    except KeyError:
        listens = False
    return RunningExtension(
        **one.model_dump(exclude={"ip_servidor"}),
        ip=one.ip_servidor,
        status="ativo" if listens else "inativo",
        active_calls=len(calls),
        calls=calls,
    )


def _calls_of(service: Behind, tenant: str, number: str) -> list[RunningVisit]:
    """What runs on an extension. A call of which the PBX said no number counts for the tenant's first."""
    numbers = service.tenancy.current[tenant].numbers
    first = not numbers or number == numbers[0]
    return [
        visit
        for visit in service.hub.running(tenant)
        if visit.dialled == number or (first and visit.dialled not in numbers)
    ]


def _extension(service: Behind, caller: Caller, number: str | None, id: int | None) -> tuple[str, Extension]:
    """The extension that is meant; a tenant's id is taken for a number as well.

    Raises:
        Problem: there is none.
    """
    for tenant, one in _extensions(service, caller):
        by_id = id is not None and one.id == id
        by_number = id is None and bool(number) and number in (one.ramal_ia, tenant)
        if by_id or by_number:
            return tenant, one
    raise Problem(404, f"Ramal {f'ID {id}' if id is not None else number} não encontrado")


def _called(extension: Extension) -> str:
    return extension.ramal_ia or f"ID {extension.id}"
