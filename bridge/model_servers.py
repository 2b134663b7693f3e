"""The embedded model server that the tenants need now, and earlier ones while visits talk with them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TextIO

from bridge.model_server import ModelServerAddress, ModelServerProcess
from bridge.settings import Settings, embedded
from bridge.tenant_provider import pipeline_of
from bridge.tenants import TenantInForce
from providers.local.pipeline import Pipelines


@dataclass(frozen=True, slots=True)
class Needs:
    """What tenants need a model server for."""

    pipelines: Pipelines
    """By tenant, with their keys."""
    local: bool
    """Whether there are sessions that are no pipeline's."""
    any: bool
    """Whether one is needed at all."""

    @classmethod
    def of(cls, tenants: Iterable[TenantInForce]) -> Needs:
        """Those of some tenants."""
        pipelines = {}
        own = [account for one in tenants for _, account in one.tenant.accounts if embedded(account)]
        for one in tenants:
            if one.tenant.has_pipeline:
                pipelines[one.id] = pipeline_of(one.tenant, one.secret)
        return cls(pipelines, any(account.provider == "local" for account in own), bool(own))


@dataclass(slots=True)
class ModelServer:
    """One that runs."""

    process: ModelServerProcess
    address: ModelServerAddress
    needs: Needs

    def does_for(self, needs: Needs) -> bool:
        """Whether it has what is needed; it may have more."""
        known = self.needs.pipelines
        return (self.needs.local or not needs.local) and all(
            known.get(name) == pipeline for name, pipeline in needs.pipelines.items()
        )


class ModelServers:
    """Starts them.

    Args:
        log_to: a real file for their log; None: our standard error.
    """

    def __init__(self, settings: Settings, log_to: TextIO | None) -> None:
        self._service = settings.service
        self._log_to = log_to
        self.current: ModelServer | None = None
        """The one that new visits talk with."""
        self._all: list[ModelServer] = []

    async def start(self, needs: Needs) -> ModelServer:
        """Start one beside those that run.

        Raises:
            ModelServerError: it ended, or was not ready in time.
            OSError: no process could be made.
        """
        settings = self._service.model_server
        if self._all and settings.port:  # which is taken
            settings = settings.model_copy(update={"port": 0})
        process = ModelServerProcess(
            settings,
            self._service.models_path,
            self._log_to,
            self._service.log if self._log_to is None else None,
            needs.pipelines,
            only_pipelines=not needs.local,
        )
        try:
            address = await process.start()
        except BaseException:
            await process.stop()
            raise
        server = ModelServer(process, address, needs)
        self._all.append(server)
        return server

    async def end(self, server: ModelServer) -> None:
        """End one. More than once is harmless."""
        if server in self._all:
            self._all.remove(server)
            await server.process.stop()

    async def stop(self) -> None:
        """End all."""
        self.current = None
        for server in tuple(self._all):
            await self.end(server)


__all__ = ["ModelServer", "ModelServers", "Needs"]
