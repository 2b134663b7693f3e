"""What a worker is told at its start, on its standard input: everything that the front has found out.

Not in a file and not in the command line, where others could read it: there are secrets in it. And not read
anew by each worker: one that is started again must not find other settings than the rest have.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field

from bridge.model_server import ModelServerAddress
from bridge.runner import ResidentPort
from bridge.settings import AriDialer, Settings, Tenant, build


class WorkerOrder(BaseModel):
    """The start of one worker."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    worker: Annotated[int, Field(ge=1)]
    control: Annotated[int, Field(ge=3)]
    """The file descriptor of its end of the channel."""
    tree: dict[str, Any]
    """The settings."""
    secrets: dict[str, str]
    """The environment variables that they name, those that are set."""
    residents: dict[str, ResidentPort]
    models: ModelServerAddress | None

    @classmethod
    def of(
        cls,
        worker: int,
        control: int,
        settings: Settings,
        residents: dict[str, ResidentPort],
        models: ModelServerAddress | None,
    ) -> Self:
        """What the front tells a worker."""
        # Tenants without what nobody set: some of it counts only where somebody did.
        tree = settings.model_dump(mode="json", exclude_unset=True)
        tree["service"] = settings.service.model_dump(mode="json")
        needed = {name for tenant in settings.tenants.values() for _, name in tenant.secret_variables}
        needed.add(settings.service.database_password_env)
        values = {name: settings.secret(name) for name in sorted(needed)}
        secrets = {name: value for name, value in values.items() if value is not None}
        return cls(
            worker=worker, control=control, tree=tree, secrets=secrets, residents=residents, models=models
        )

    def settings(self) -> Settings:
        """The front's settings, as they are for this worker.

        Raises:
            SettingsError: they are none.
        """
        settings = build(self.tree, environ=self.secrets)
        tenants = {name: self._own(tenant) for name, tenant in settings.tenants.items()}
        return settings.model_copy(update={"tenants": tenants})

    def _own(self, tenant: Tenant) -> Tenant:
        """Asterisk sends the events of a Stasis application to one connection: each worker has its own."""
        if not isinstance(tenant.dialer, AriDialer):
            return tenant
        dialer = tenant.dialer.model_copy(update={"app": f"{tenant.dialer.app}-{self.worker}"})
        return tenant.model_copy(update={"dialer": dialer})
