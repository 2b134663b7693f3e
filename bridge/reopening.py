"""A tenant's ports, closed and opened again when somebody asks: once none of its calls runs, never before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from bridge.doors import ROLES, Doors

LOOK_S = 0.5
"""So often it is looked whether the tenant's calls are over."""
RETRY_S = 5.0
"""After which a port is tried once more that could not be had."""

log = structlog.get_logger(__name__)


class Reopening:
    """The tenants whose ports are to be reopened.

    Args:
        open_legs: how many calls of a tenant run.
    """

    def __init__(self, doors: Doors, open_legs: Callable[[str], int]) -> None:
        self._doors = doors
        self._open_legs = open_legs
        self._waiting: dict[str, asyncio.Task[None]] = {}

    async def reopen(self, tenant: str) -> bool:
        """Do so now, where none of its calls runs (True), or as soon as that is so (False).

        Raises:
            KeyError: it listens on no port.
        """
        self._doors.door(tenant, "visitor")
        if not self._open_legs(tenant) and tenant not in self._waiting:
            try:
                await self._now(tenant)
            except OSError as error:
                log.error("tenant.not_reopened", tenant=tenant, reason=str(error))
            else:
                return True
        if tenant not in self._waiting:
            task = asyncio.create_task(self._when_quiet(tenant), name=f"reopening {tenant}")
            self._waiting[tenant] = task
            task.add_done_callback(lambda _: self._waiting.pop(tenant, None))
        return False

    async def _when_quiet(self, tenant: str) -> None:
        pause_s = LOOK_S
        while True:
            await asyncio.sleep(pause_s)
            if self._open_legs(tenant):
                continue
            try:
                await self._now(tenant)
            except OSError as error:
                log.error("tenant.not_reopened", tenant=tenant, reason=str(error))
                pause_s = RETRY_S
            except KeyError:  # the tenant is gone, and its ports with it
                return
            else:
                return

    async def _now(self, tenant: str) -> None:
        for role in ROLES:
            await self._doors.of(tenant, role).reopen()
        log.info("tenant.reopened", tenant=tenant)

    async def stop(self) -> None:
        """Reopen nothing any more."""
        if tasks := set(self._waiting.values()):
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
