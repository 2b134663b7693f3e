"""The service with its people around it: plays whole visits, one or many at a time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TextIO
from uuid import UUID, uuid4

from bridge.demo.people import Floor, act
from bridge.demo.report import Meter, report
from bridge.demo.script import Step
from bridge.dialing.base import DialOrder
from bridge.dialing.simulated import Answers, Resident, SimulatedDialer
from bridge.service import Service
from bridge.settings import Settings, build
from bridge.softphone import Softphone
from bridge.watch import Watcher

DATA = Path(__file__).resolve().parents[2] / "data"
TENANT = "demo"
LONGEST_S = 240.0
"""A visit that has not ended by then counts as failed."""


@dataclass(frozen=True, slots=True)
class Cast:
    """Who takes part in a visit, and what they do."""

    visitor: Sequence[Step]
    resident: Sequence[Step] = ()
    answers: Answers = Answers.YES


def stage_settings(out: Path, models: Path | None = None, **tenant: Any) -> Settings:
    """Settings for one tenant on free ports, that keeps everything in `out`.

    Args:
        tenant: in place of the demo tenant's own settings.

    Raises:
        SettingsError: they are not allowed.
    """
    service: dict[str, Any] = {
        "data_dir": str(out.resolve()),
        "visitor_port": 0,
        "resident_port": 0,
        "listen": ["127.0.0.1"],
        "http_port": None,
    }
    if models is not None:
        service["models_dir"] = str(models.resolve())
    demo: dict[str, Any] = {
        "name": "Condomínio Jardim das Flores",
        "directory": str(DATA / "apartamentos.json"),
        "recording": {"enabled": True},
        "limits": {"ring_s": 8.0},
        "dialer": {"kind": "simulated"},
    }
    return build({"service": service, "tenants": {TENANT: demo | tenant}}, environ=os.environ)


class Stage:
    """A running service on which visits are played. An asynchronous context."""

    def __init__(
        self, settings: Settings, *, watchers: Sequence[Watcher] = (), log: TextIO | None = None
    ) -> None:
        self._settings = settings
        self._floor = Floor()
        self._meter = Meter()
        self._casts: dict[UUID, Cast] = {}
        self.service = Service(
            settings,
            watchers=(*watchers, self._floor.watch, self._meter.watch),
            dialers={tenant: SimulatedDialer(self._resident) for tenant in settings.tenants},
            model_log=log,
        )

    async def __aenter__(self) -> Self:
        """Start the service; see `Service.start` for what it raises."""
        await self.service.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop it."""
        await self.service.stop()

    def _resident(self, order: DialOrder) -> Resident:
        cast = self._casts[order.visit]

        async def talk(phone: Softphone) -> None:
            await act(phone, self._floor.of(order.visit, "resident"), cast.resident)

        return Resident(cast.answers, talk=talk)

    async def play(self, cast: Cast, tenant: str = TENANT) -> Mapping[str, Any]:
        """One visit to a tenant from the ring to its end; what `report` says of it.

        Raises:
            TimeoutError: it did not end.
        """
        visit = uuid4()
        self._casts[visit] = cast
        port, _ = self.service.ports(tenant)
        async with Softphone("127.0.0.1", port, visit) as phone, asyncio.timeout(LONGEST_S):
            await act(phone, self._floor.of(visit, "visitor"), cast.visitor)
        await self.service.visit_over(visit)
        return await report(
            self.service.storage,
            str(visit),
            self._settings.service.recordings_path,
            self._meter.barge_ins(str(visit)),
        )
