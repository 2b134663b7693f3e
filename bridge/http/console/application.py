"""The console as one ASGI application, below `/console`: which path leads where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute

from bridge.http.audit import Log
from bridge.http.console import (
    audit,
    charts,
    directory,
    entrance,
    erasure,
    live,
    people,
    tenants,
    test_calls,
    visit,
    visits,
)
from bridge.http.console.page import Pages
from bridge.http.console.site import Behind, Site
from bridge.http.directory import Directories
from bridge.http.keys import Keys
from bridge.http.operators import Operators
from bridge.http.sessions import LogIns
from bridge.http.tenants import Tenants
from bridge.review.looking import Reviews
from storage.base import StorageError


@dataclass(frozen=True)
class Parts:
    """What pages share with the resources of the API: the same is done, whoever asks."""

    log_ins: LogIns
    reviews: Reviews
    tenants: Tenants
    directories: Directories
    log: Log
    operators: Operators
    keys: Keys
    recordings: Callable[[], Path]
    """The directory of all recordings."""


def console(service: Behind, parts: Parts) -> Starlette:
    """All pages. A new group of them is a file beside this one, whose routes are added here."""
    site = Site(Pages(), service)
    routes: list[BaseRoute] = [
        *site.pages.assets.routes(),
        *entrance.routes(site, parts.log_ins),
        *live.routes(site),
        *visits.routes(site),
        *visit.routes(site, parts.reviews),
        *erasure.routes(site, parts.recordings),
        *charts.routes(site),
        *test_calls.routes(site),
        *audit.routes(site, parts.log),
        *tenants.routes(site, parts.tenants),
        *directory.routes(site, parts.tenants, parts.directories),
        *people.routes(site, parts.operators, parts.keys),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={
            HTTPException: site.of_problem,
            StorageError: site.of_storage,
            Exception: site.of_fault,
        },
    )
    app.router.redirect_slashes = False  # it would send browsers wherever an address says
    return app
