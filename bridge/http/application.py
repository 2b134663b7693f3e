"""The HTTP API as one ASGI application: which path leads where, and what holds for all of them."""

from __future__ import annotations

from typing import Any, Protocol

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from bridge.http import (
    audio,
    audit,
    calls,
    directory,
    erasure,
    events,
    health,
    keys,
    older,
    operators,
    providers,
    rehearsals,
    review,
    running,
    sessions,
    switch,
    tenants,
    visits,
    webhooks,
)
from bridge.http.access import Access
from bridge.http.console import site
from bridge.http.console.application import Parts, console
from bridge.http.console.page import ROOT
from bridge.http.description import PATH, describe
from bridge.http.problems import Problem, of_fault, of_problem, of_routing, of_storage, of_validation
from bridge.http.recordings import Recordings
from bridge.http.verifying import Verifying
from bridge.tenants import Tenancy
from storage.base import Storage, StorageError
from storage.catalogue import Catalogue


class Behind(
    calls.Registrar,
    switch.Switch,
    health.Readiness,
    running.Follows,
    providers.Behind,
    older.Behind,
    rehearsals.Behind,
    review.Behind,
    site.Behind,
    Protocol,
):
    """What the API needs of the service."""

    tenancy: Tenancy

    @property
    def storage(self) -> Storage:
        """Visits, the audit log, the catalogue."""

    @property
    def catalogue(self) -> Catalogue:
        """What the database keeps beside the audit log."""


def application(service: Behind, key: str | None, *, local: bool = False) -> FastAPI:
    """The whole API. A new group of resources is a file beside this one, with a router that is added here.

    Args:
        key: of `service.http_key_env`.
        local: whether whoever is on this machine may register calls without a key.
    """
    app = FastAPI(
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers={
            Problem: of_problem,
            HTTPException: of_routing,
            RequestValidationError: of_validation,
            StorageError: of_storage,
            Exception: of_fault,
        },
    )
    app.state.access = Access(lambda: service.catalogue, key, local=local)
    app.state.log_ins = log_ins = sessions.LogIns(service)
    reviews = review.reviews_of(service)
    houses = tenants.Tenants(service)
    directories, own_keys = directory.Directories(houses), keys.Keys(houses)
    staff = operators.Operators(houses, log_ins)
    log = audit.Log(lambda: service.storage)
    recordings = Recordings(lambda: service.settings.service.recordings_path)
    app.include_router(health.router(service))
    for router in (
        sessions.router(log_ins),
        calls.router(service),
        switch.router(service),
        running.router(service),
        events.router(service),
        providers.router(service),
        review.router(service, reviews),
        tenants.router(houses),
        directory.router(directories),
        visits.router(lambda: service.storage, recordings),
        erasure.router(lambda: service.storage, lambda: service.settings.service.recordings_path),
        audit.router(log, Verifying(lambda: service.settings.database)),
        keys.router(own_keys),
        operators.router(staff),
        webhooks.router(lambda: service.storage),
    ):
        app.include_router(router, prefix="/v1")
    app.include_router(older.router(service))
    made: dict[str, Any] = {}

    async def openapi(_: Request) -> Response:
        if not made:
            made.update(describe(app))
        return JSONResponse(made)

    async def home(_: Request) -> Response:
        return RedirectResponse(f"{ROOT}/")

    app.router.routes.extend([*audio.routes(service), *rehearsals.routes(service)])
    app.add_route(PATH, openapi, ["GET"])
    for path in ("/", ROOT):
        app.add_route(path, home, ["GET"])
    parts = Parts(
        log_ins,
        reviews,
        houses,
        directories,
        log,
        staff,
        own_keys,
        lambda: service.settings.service.recordings_path,
    )
    app.mount(ROOT, console(service, parts))
    return app
