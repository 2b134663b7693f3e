"""`GET /health` and `GET /ready`: for whoever restarts the service, and for whoever sends it calls."""

from __future__ import annotations

from importlib.metadata import version
from typing import Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


class Readiness(Protocol):
    """Who knows whether a visitor would be taken now."""

    def not_ready(self) -> list[str]:
        """Why none would, in fixed words; empty where one would."""

    def warnings(self) -> list[str]:
        """What somebody should look after although visitors are taken, in fixed words."""


def routes(service: Readiness) -> list[Route]:
    """The resources of this file. They need no key: they tell nothing of anybody."""

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok", "version": version("porteiro")})

    async def ready(_: Request) -> Response:
        reasons = service.not_ready()
        told = {"ready": not reasons, "reasons": reasons, "warnings": service.warnings()}
        return JSONResponse(told, 503 if reasons else 200)

    return [Route("/health", health, methods=["GET"]), Route("/ready", ready, methods=["GET"])]
