"""`GET /health` and `GET /ready`: for whoever restarts the service, and for whoever sends it calls."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version
from typing import Literal, Protocol

from fastapi import APIRouter, Response
from pydantic import BaseModel

from bridge.webhooks.sender import Backlog


class Readiness(Protocol):
    """Who knows whether a visitor would be taken now."""

    def not_ready(self) -> list[str]:
        """Why none would, in fixed words; empty where one would."""

    def warnings(self) -> list[str]:
        """What somebody should look after although visitors are taken, in fixed words."""

    def backlog(self) -> Backlog | None:
        """What tenants' own systems are still to be told; None: there is nobody to be told."""


class Health(BaseModel):
    """That the service runs."""

    status: Literal["ok"] = "ok"
    version: str


class Webhooks(BaseModel):
    """What tenants' own systems are still to be told."""

    waiting: int
    """1000: so many, or more."""
    oldest_s: float
    """How long the first of it waits; 0 where nothing does."""
    given_up: int
    """What nobody tries any more, and can be sent again."""


class Ready(BaseModel):
    """Whether a visitor would be taken now."""

    ready: bool
    reasons: list[str]
    """Why none would, in fixed words."""
    warnings: list[str]
    """What somebody should look after all the same, in fixed words."""
    webhooks: Webhooks | None = None
    """Null: there is nobody to be told."""


def router(service: Readiness) -> APIRouter:
    """The resources of this file. They need no key: they tell nothing of anybody."""
    routes = APIRouter(tags=["health"])

    @routes.get("/health")
    async def health() -> Health:
        """Whether the service runs."""
        return Health(version=version("porteiro"))

    @routes.get("/ready", responses={503: {"model": Ready, "description": "No visitor would be taken"}})
    async def ready(response: Response) -> Ready:
        """Whether a visitor would be taken now."""
        reasons = service.not_ready()
        if reasons:
            response.status_code = 503
        backlog = service.backlog()
        webhooks = None if backlog is None else Webhooks(**asdict(backlog))
        return Ready(ready=not reasons, reasons=reasons, warnings=service.warnings(), webhooks=webhooks)

    return routes
