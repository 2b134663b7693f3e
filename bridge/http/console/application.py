"""The console as one ASGI application, below `/console`: which path leads where."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bridge.http.console.language import COOKIE, LANGUAGES
from bridge.http.console.page import ROOT, Pages, local_path, see
from bridge.http.fields import read_fields
from bridge.http.problems import Problem

A_YEAR_S = 365 * 86400


def console() -> Starlette:
    """All pages."""
    pages = Pages()

    async def log_in(request: Request) -> Response:
        return await pages.show(request, "login.html", error=None, first_run=False, name="", next=f"{ROOT}/")

    async def language(request: Request) -> Response:
        """Remember which language somebody chose, and go back to where they were."""
        fields = await read_fields(request)
        chosen = fields.get("to")
        if chosen not in LANGUAGES:
            raise Problem(422, f"to: found {str(chosen)[:20]!r}; allowed: {' and '.join(LANGUAGES)}")
        answer = see(local_path(fields.get("next")))
        answer.set_cookie(COOKIE, chosen, max_age=A_YEAR_S, path=ROOT, httponly=True, samesite="lax")
        return answer

    return Starlette(
        routes=[
            *pages.assets.routes(),
            Route("/login", log_in, methods=["GET"]),
            Route("/language", language, methods=["POST"]),
        ]
    )
