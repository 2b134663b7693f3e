"""The console as one ASGI application, below `/console`: which path leads where."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute

from bridge.http.console import charts, entrance, live, test_calls, visit, visits
from bridge.http.console.page import Pages
from bridge.http.console.site import Behind, Site
from bridge.http.sessions import LogIns
from bridge.review.looking import Reviews
from storage.base import StorageError


def console(service: Behind, log_ins: LogIns, reviews: Reviews) -> Starlette:
    """All pages. A new group of them is a file beside this one, whose routes are added here."""
    site = Site(Pages(), service)
    routes: list[BaseRoute] = [
        *site.pages.assets.routes(),
        *entrance.routes(site, log_ins),
        *live.routes(site),
        *visits.routes(site),
        *visit.routes(site, reviews),
        *charts.routes(site),
        *test_calls.routes(site),
    ]
    return Starlette(
        routes=routes,
        exception_handlers={
            HTTPException: site.of_problem,
            StorageError: site.of_storage,
            Exception: site.of_fault,
        },
    )
