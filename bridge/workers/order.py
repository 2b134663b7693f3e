"""What a worker is told at its start, on its standard input, and of each change: what the front found out.

Not in a file and not in the command line, where others could read it: there are secrets in it. And not read
anew by each worker: one that is started again must not find other settings than the rest have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field

from bridge.model_server import ModelServerAddress
from bridge.runner import Places, Placing, ResidentPort
from bridge.settings import AriDialer, Service, Settings, Tenant, Written, build
from bridge.tenants import TenantInForce, Version
from visits.directory import Directory


class _Order(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class TenantOrder(_Order):
    """One tenant."""

    table: dict[str, Any]
    """Its settings, without what nobody set: some of it counts only where somebody did."""
    secrets: dict[str, str]
    """The environment variables that they name, those that are set."""
    directory: list[dict[str, Any]]
    version: int | None
    digest: str
    residents: ResidentPort

    @classmethod
    def of(cls, placing: Placing) -> Self:
        """What the front tells of it."""
        one = placing.one
        return cls(
            table=one.tenant.model_dump(mode="json", exclude_unset=True),
            secrets=dict(one.secrets),
            directory=one.directory.records(),
            version=one.version.number,
            digest=one.version.digest,
            residents=placing.residents,
        )

    def placing(self, name: str, service: Service, worker: int) -> Placing:
        """The front's tenant, as it is for this worker.

        Raises:
            SettingsError: it is none.
        """
        tenant = _own(Written({}).one(name, self.table, service), worker)
        directory = Directory.from_records(self.directory) if self.directory else Directory(())
        one = TenantInForce(tenant, directory, Version(self.version, self.digest), secrets=self.secrets)
        return Placing(one, self.residents)


class ChangeOrder(_Order):
    """Tenants that are new or changed, or (None) gone."""

    places: dict[str, TenantOrder | None]
    models: ModelServerAddress | None

    @classmethod
    def of(cls, places: Places, models: ModelServerAddress | None) -> Self:
        """What the front tells the workers."""
        told = {name: None if one is None else TenantOrder.of(one) for name, one in places.items()}
        return cls(places=told, models=models)

    def as_places(self, service: Service, worker: int) -> dict[str, Placing | None]:
        """The front's tenants, as they are for this worker.

        Raises:
            SettingsError: they are none.
        """
        return {
            name: None if one is None else one.placing(name, service, worker)
            for name, one in self.places.items()
        }


class WorkerOrder(_Order):
    """The start of one worker."""

    worker: Annotated[int, Field(ge=1)]
    control: Annotated[int, Field(ge=3)]
    """The file descriptor of its end of the channel."""
    service: dict[str, Any]
    """The service's settings."""
    secrets: dict[str, str]
    """The environment variables that they name, those that a worker needs and that are set."""
    tenants: ChangeOrder

    @classmethod
    def of(
        cls,
        worker: int,
        control: int,
        settings: Settings,
        places: Mapping[str, Placing],
        models: ModelServerAddress | None,
    ) -> Self:
        """What the front tells a worker."""
        password = settings.secret(settings.service.database_password_env)
        return cls(
            worker=worker,
            control=control,
            service=settings.service.model_dump(mode="json"),
            secrets={} if password is None else {settings.service.database_password_env: password},
            tenants=ChangeOrder.of(places, models),
        )

    def settings(self) -> Settings:
        """The front's settings, without the tenants.

        Raises:
            SettingsError: they are none.
        """
        return build({"service": self.service}, environ=self.secrets)

    def places(self) -> dict[str, Placing]:
        """The tenants of the start, as they are for this worker.

        Raises:
            SettingsError: they are none.
        """
        found = self.tenants.as_places(self.settings().service, self.worker)
        return {name: one for name, one in found.items() if one is not None}


def _own(tenant: Tenant, worker: int) -> Tenant:
    """Asterisk sends the events of a Stasis application to one connection: each worker has its own."""
    if not isinstance(tenant.dialer, AriDialer):
        return tenant
    dialer = tenant.dialer.model_copy(update={"app": f"{tenant.dialer.app}-{worker}"})
    return tenant.model_copy(update={"dialer": dialer})
