"""Brings tenants into force in a running service: their ports, what their visits need, and whose a call is.

Everything that may fail, or takes time, comes first, beside what is there (:meth:`Installation.prepare`);
then all of it changes at one moment. What only visits of an earlier version need is let go when the last of
them is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from bridge.calls import CallRegistry
from bridge.doors import Door, Doors, Plan
from bridge.model_server import ModelServerError
from bridge.model_servers import ModelServer, ModelServers, Needs
from bridge.runner import Furnished, Placing, ResidentPort, Runner
from bridge.settings import Tenant, embedded
from bridge.tenants import Changed, Problems, TenantInForce, Version

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Leftover:
    """What is let go when some visits are over."""

    visits: set[UUID]
    release: Callable[[], None]


@dataclass(slots=True)
class Ready:
    """A change for which everything is ready; see :class:`bridge.tenants.Prepared`."""

    installation: Installation
    changed: Changed
    plan: Plan
    furnished: Furnished | None = None
    models: ModelServer | None = None
    """A new model server."""
    problems: Problems = field(default_factory=dict)

    def commit(self) -> None:
        """See :class:`bridge.tenants.Prepared`."""
        self.installation.commit(self)

    async def undo(self) -> None:
        """See :class:`bridge.tenants.Prepared`."""
        await self.installation.undo(self)


class Installation:
    """See :class:`bridge.tenants.Installer`.

    Args:
        in_force: the tenants in force.
        route: has the WebSocket channels of a tenant accepted, or no longer (None).
        unroute: no longer accepts those of the residents whom earlier versions of a tenant have called.
    """

    def __init__(
        self,
        doors: Doors,
        runner: Runner,
        calls: CallRegistry,
        models: ModelServers,
        in_force: Mapping[str, TenantInForce],
        *,
        route: Callable[[str, TenantInForce | None], None],
        unroute: Callable[[str], None],
    ) -> None:
        self._doors = doors
        self._runner = runner
        self._calls = calls
        self._models = models
        self._in_force = in_force
        self._route = route
        self._unroute = unroute
        self._leftovers: set[_Leftover] = set()
        self._ending: set[asyncio.Task[None]] = set()

    # ---- Make ready ------------------------------------------------------------------------------------

    async def prepare(self, changed: Changed) -> Ready:
        """See :class:`bridge.tenants.Installer`."""
        tenants = {name: one.tenant if one is not None else None for name, one in changed.items()}
        ready = Ready(self, changed, Plan(tenants))
        try:
            await self._prepare(ready, tenants)
        except BaseException:
            await self.undo(ready)
            raise
        return ready

    async def _prepare(self, ready: Ready, tenants: Mapping[str, Tenant | None]) -> None:
        await self._doors.plan(ready.plan)
        ready.problems |= ready.plan.problems
        if ready.problems:
            return
        places: dict[str, Placing | None] = {}
        for name, one in ready.changed.items():
            port = resident_port(ready.plan.doors["resident", name]) if one is not None else None
            places[name] = Placing(one, port) if one is not None and port is not None else None
        address = self._models.current.address if self._models.current is not None else None
        after = self._after(ready.changed)
        needs = Needs.of(after.values())
        users = [name for name, one in after.items() if _uses_model_server(one.tenant)]
        if needs.any and (self._models.current is None or not self._models.current.does_for(needs)):
            try:
                ready.models = await self._models.start(needs)
            except (ModelServerError, OSError) as error:
                ready.problems |= self._blamed(ready.changed, users, str(error))
                return
            address = ready.models.address
            for name in users:  # all of them move
                if name not in places:
                    places[name] = Placing(after[name], resident_port(self._doors.door(name, "resident")))
        ready.furnished = await self._runner.furnish(places, address)
        for name, lines in ready.furnished.problems.items():
            if name in ready.changed:
                ready.problems[name] = lines
            else:
                ready.problems |= self._blamed(ready.changed, users if name else (), "; ".join(lines))

    def _after(self, changed: Changed) -> dict[str, TenantInForce]:
        after = {**self._in_force, **changed}
        return {name: one for name, one in after.items() if one is not None}

    @staticmethod
    def _blamed(changed: Changed, users: Iterable[str], why: str) -> Problems:
        """Whom a failure keeps out that is not one tenant's: who needs the model server, or all."""
        names = [name for name in users if name in changed] or list(changed)
        return {name: (f"tenants.{name}: {why}",) for name in names}

    async def undo(self, ready: Ready) -> None:
        """Let go of what was made ready."""
        if ready.furnished is not None:
            await ready.furnished.undo()
        await self._doors.undo(ready.plan)
        if ready.models is not None:
            await self._models.end(ready.models)

    # ---- Change ----------------------------------------------------------------------------------------

    def commit(self, ready: Ready) -> None:
        """Have a change in force from now on."""
        assert ready.furnished is not None
        # Whoever runs now has the earlier version.
        running = {name: self._runner.visits_of(name) for name in ready.changed}
        everybody = self._runner.visits_of(None)
        ready.furnished.commit()
        releases = self._doors.commit(ready.plan, [name for name, visits in running.items() if visits])
        for name, release in releases:
            self._when_over(running[name], release)
        after = self._after(ready.changed)
        self._calls.assign({name: one.tenant.numbers for name, one in after.items()})
        for name, one in ready.changed.items():
            self._route(name, one)
            self._when_over(running[name], _bound(self._unroute, name))
            if one is not None:
                self.say_open(name, one)
        self._change_models(ready.models, after, everybody)

    def _change_models(
        self, new: ModelServer | None, after: Mapping[str, TenantInForce], running: frozenset[UUID]
    ) -> None:
        old = self._models.current
        if new is None and (old is None or any(_uses_model_server(one.tenant) for one in after.values())):
            return
        self._models.current = new
        if old is not None:
            self._when_over(running, _bound(self._end_later, old))

    def _end_later(self, server: ModelServer) -> None:
        self._spawn(self._models.end(server))

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def say_open(self, name: str, one: TenantInForce) -> None:
        """Where a tenant's calls come in."""
        log.info(
            "tenant.open",
            tenant=name,
            visitor_port=self._doors.of(name, "visitor").port,
            resident_port=self._doors.of(name, "resident").port,
            provider=one.tenant.provider,
        )

    def numbered(self, versions: Mapping[str, Version]) -> None:
        """See :class:`bridge.tenants.Installer`."""
        self._runner.numbered(versions)

    # ---- What is let go later --------------------------------------------------------------------------

    def _when_over(self, visits: Iterable[UUID], release: Callable[[], None]) -> None:
        leftover = _Leftover(set(visits), release)
        if leftover.visits:
            self._leftovers.add(leftover)
        else:
            release()

    def over(self, visit: UUID) -> None:
        """A visit does not run any more."""
        for leftover in tuple(self._leftovers):
            leftover.visits.discard(visit)
            if not leftover.visits:
                self._leftovers.discard(leftover)
                leftover.release()

    async def stop(self) -> None:
        """Wait for what is just being let go."""
        if self._ending:
            await asyncio.wait(self._ending)


def resident_port(door: Door) -> ResidentPort:
    """Where a door's calls come in."""
    server = door.server
    return ResidentPort(tuple(map(_reachable, server.ports)), server.port)


def _reachable(host: str) -> str:
    """An address to connect to, for one that is listened on."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _uses_model_server(tenant: Tenant) -> bool:
    return any(embedded(account) for _, account in tenant.accounts)


def _bound(what: Callable[..., None], *arguments: object) -> Callable[[], None]:
    return lambda: what(*arguments)


__all__ = ["Installation", "Ready", "resident_port"]
