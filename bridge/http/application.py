"""The HTTP API as one ASGI application: which path leads where, and who may ask."""

from __future__ import annotations

import hmac
from typing import Protocol

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bridge.http import calls, health
from bridge.http.console.application import console
from bridge.http.console.page import ROOT
from bridge.http.problems import Problem, of_fault, of_problem, of_routing


class Behind(calls.Registrar, health.Readiness, Protocol):
    """What the API needs of the service."""


class BearerKey:
    """Lets a request through that brings the key, as `Authorization: Bearer KEY` (RFC 6750).

    Args:
        key: None: every request may pass; the settings see to it that then only this machine can ask.
    """

    def __init__(self, app: ASGIApp, key: str | None) -> None:
        self._app = app
        self._expected = None if key is None else f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI.

        Raises:
            Problem: it brings none, another, or several.
        """
        if self._expected is not None and not self._brings(scope, self._expected):
            raise Problem(
                401,
                "authorization: found no valid key; allowed: Bearer and the key of service.http_key_env",
                {"WWW-Authenticate": "Bearer"},
            )
        await self._app(scope, receive, send)

    @staticmethod
    def _brings(scope: Scope, expected: bytes) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        # In a time that does not tell how much of it was right.
        return len(given) == 1 and hmac.compare_digest(given[0], expected)


class KeptNowhere:
    """Tells browsers and proxies to keep no answer, but those that say themselves that they may be kept."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault("cache-control", "no-store")
            await send(message)

        await self._app(scope, receive, told)


def application(service: Behind, key: str | None) -> Starlette:
    """The whole API.

    Args:
        key: what a request under `/v1` must bring; None: nothing.
    """
    v1 = Mount("/v1", routes=calls.routes(service), middleware=[Middleware(BearerKey, key)])

    async def home(_: Request) -> Response:
        return RedirectResponse(f"{ROOT}/")

    return Starlette(
        routes=[*health.routes(service), v1, Mount(ROOT, console()), Route("/", home, methods=["GET"])],
        middleware=[Middleware(KeptNowhere)],
        exception_handlers={Problem: of_problem, HTTPException: of_routing, Exception: of_fault},
    )
