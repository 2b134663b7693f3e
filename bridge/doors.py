"""The AudioSocket ports of the tenants: whose each is, and how that changes while calls run.

A port is one tenant's, for visitors or for residents. It may become another's without being closed in
between. Residents who were called under an earlier version of the settings come to the port of that version:
such a port stays open, and knows them by the id of their call, until the visits of that version are over.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from bridge.endpoints.audiosocket import AudioSocketServer
from bridge.endpoints.base import Endpoint, LegSink, Refusal
from bridge.settings import Tenant

DoorRole = Literal["visitor", "resident"]
ROLES: tuple[DoorRole, DoorRole] = ("visitor", "resident")
CLOSING_S = (0.01, 0.05, 0.2)
"""Pauses before a port that is taken is tried again: the change before may have left it, and an event loop
closes a socket some turns after it is told to."""
Take = Callable[[DoorRole, str, Endpoint], "LegSink | Refusal | None"]
"""Takes a call of a role for a tenant."""
Expects = Callable[[str, Endpoint], bool]
"""Whether a running visit of a tenant may wait for a resident's call."""


@dataclass(slots=True, eq=False)
class Door:
    """One port that is listened on."""

    server: AudioSocketServer
    owner: tuple[DoorRole, str] | None = None
    """Whose calls come here now."""
    former: list[str] = field(default_factory=list)
    """Tenants whose running visits have called residents who come here; one for each version."""

    @property
    def port(self) -> int:
        """Its number."""
        return self.server.port


@dataclass(slots=True)
class Plan:
    """What is to be whose, with the doors that were opened for it."""

    changed: Mapping[str, Tenant | None]
    doors: dict[tuple[DoorRole, str], Door] = field(default_factory=dict)
    opened: list[Door] = field(default_factory=list)
    problems: dict[str, tuple[str, ...]] = field(default_factory=dict)


class Doors:
    """All of them.

    Args:
        make: a server of that port, not started, which gives its calls to what it is given.
        take: takes the calls.
        expects: knows the residents.
    """

    def __init__(
        self,
        make: Callable[[int, Callable[[Endpoint], LegSink | Refusal | None]], AudioSocketServer],
        take: Take,
        expects: Expects,
    ) -> None:
        self._make = make
        self._take = take
        self._expects = expects
        self._doors: dict[tuple[DoorRole, str], Door] = {}
        self._tenants: dict[str, Tenant] = {}
        self._listening: set[Door] = set()
        self._draining: set[Door] = set()
        """Closed, with calls that run."""

    def of(self, tenant: str, role: DoorRole) -> AudioSocketServer:
        """A tenant's server.

        Raises:
            KeyError: it has none.
        """
        return self.door(tenant, role).server

    def door(self, tenant: str, role: DoorRole) -> Door:
        """A tenant's door.

        Raises:
            KeyError: it has none.
        """
        return self._doors[role, tenant]

    # ---- Start -----------------------------------------------------------------------------------------

    async def open(self, role: DoorRole, tenant: Tenant) -> None:
        """Open a tenant's door at the start of the service.

        Raises:
            OSError: the port can't be had.
        """
        door = await self._listen(_port(tenant, role))
        door.owner = role, tenant.id
        self._doors[role, tenant.id] = door
        self._tenants[tenant.id] = tenant

    async def _listen(self, port: int) -> Door:
        door = Door(self._make(port, lambda endpoint: self._came(door, endpoint)))
        for pause_s in CLOSING_S:
            try:
                await door.server.start()
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            await asyncio.sleep(pause_s)
        else:
            await door.server.start()
        self._listening.add(door)
        return door

    # ---- Change ----------------------------------------------------------------------------------------

    async def plan(self, plan: Plan) -> None:
        """Open what is needed beside what there is. What can't be had is among the plan's problems."""
        for name, tenant in plan.changed.items():
            for role in ROLES if tenant is not None else ():
                assert tenant is not None
                try:
                    plan.doors[role, name] = await self._door_for(plan, role, tenant)
                except OSError as error:
                    plan.problems[name] = (f"tenants.{name}.{role}_port: {error.strerror or error}",)
                    break

    async def _door_for(self, plan: Plan, role: DoorRole, tenant: Tenant) -> Door:
        port, old = _port(tenant, role), self._tenants.get(tenant.id)
        if old is not None and _port(old, role) == port:
            return self._doors[role, tenant.id]
        there = [door for door in self._listening if port and door.port == port]
        if not there:
            door = await self._listen(port)
            plan.opened.append(door)
            return door
        (door,) = there
        if door.owner is not None and not self._leaves(plan, *door.owner):
            raise OSError(f"found {port}, which tenants.{door.owner[1]} listens on; allowed: another port")
        return door

    def _leaves(self, plan: Plan, role: DoorRole, owner: str) -> bool:
        """Whether a tenant gives up a port."""
        if owner not in plan.changed:
            return False
        new = plan.changed[owner]
        return new is None or _port(new, role) != _port(self._tenants[owner], role)

    def commit(self, plan: Plan, still_called: Iterable[str]) -> list[tuple[str, Callable[[], None]]]:
        """Have calls come as planned.

        Args:
            still_called: tenants with running visits, among those that change.

        Returns:
            (tenant, what is to be called when those visits are over)
        """
        releases = []
        left: list[tuple[DoorRole, str, Door]] = []
        for name, tenant in plan.changed.items():
            for role in ROLES:
                old = self._doors.pop((role, name), None)
                if old is not None and old is not plan.doors.get((role, name)):
                    old.owner = None
                    left.append((role, name, old))
            self._tenants.pop(name, None)
            if tenant is not None:
                self._tenants[name] = tenant
        for key, door in plan.doors.items():
            door.owner = key
            self._doors[key] = door
        for role, name, door in left:
            if role == "resident" and name in still_called:
                door.former.append(name)
                releases.append((name, _releasing(self, door, name)))
            self._close_unused(door)
        return releases

    async def undo(self, plan: Plan) -> None:
        """Close what was opened for nothing."""
        for door in plan.opened:
            self._listening.discard(door)
            await door.server.stop()

    def release(self, door: Door, tenant: str) -> None:
        """The visits that called residents to this port are over."""
        door.former.remove(tenant)
        self._close_unused(door)

    def _close_unused(self, door: Door) -> None:
        if door.owner is None and not door.former and door in self._listening:
            self._listening.discard(door)
            door.server.stop_accepting()
            self._draining = {each for each in self._draining if each.server.calls or each.server.waiting}
            self._draining.add(door)

    # ---- Calls -----------------------------------------------------------------------------------------

    def _came(self, door: Door, endpoint: Endpoint) -> LegSink | Refusal | None:
        for tenant in door.former:
            if self._expects(tenant, endpoint):
                return self._take("resident", tenant, endpoint)
        if door.owner is None:
            return Refusal(f"port {door.port} is nobody's any more")
        role, tenant = door.owner
        return self._take(role, tenant, endpoint)

    # ---- The end ---------------------------------------------------------------------------------------

    def close_to_visitors(self) -> None:
        """Take no new visitor; residents still come."""
        for (role, _), door in self._doors.items():
            if role == "visitor" and not door.former:
                door.server.stop_accepting()

    async def stop(self) -> None:
        """Hang up every call, and close all."""
        for door in (*self._listening, *self._draining):
            await door.server.stop()
        self._listening.clear()
        self._draining.clear()
        self._doors.clear()
        self._tenants.clear()


def _releasing(doors: Doors, door: Door, tenant: str) -> Callable[[], None]:
    return lambda: doors.release(door, tenant)


def _port(tenant: Tenant, role: DoorRole) -> int:
    return tenant.visitor_port if role == "visitor" else tenant.resident_port


__all__ = ["ROLES", "Door", "DoorRole", "Doors", "Plan"]
