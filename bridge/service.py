"""What runs, in which order it starts, drains and stops."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from typing import Any, TextIO, cast
from uuid import UUID

import structlog

from bridge.calls import (
    AlreadyRegisteredError,
    CallRegistry,
    NotTakingCallsError,
    RegisteredCall,
    RegistrationError,
    UnknownTenantError,
    WrongTenantError,
)
from bridge.clock import Clock
from bridge.dialing.base import Dialer
from bridge.endpoints.asterisk_websocket import AsteriskWebsocketLimits
from bridge.endpoints.asterisk_websocket_server import (
    AsteriskWebsocketServer,
    IncomingEndpoint,
    Route,
    tls_of,
)
from bridge.endpoints.audiosocket import (
    AudioSocketEndpoint,
    AudioSocketLimits,
    AudioSocketServer,
    Refusal,
)
from bridge.endpoints.base import Endpoint, LegSink
from bridge.endpoints.web import NotTakenError, Origin, WebCall, WebLine, connect
from bridge.host import VisitHost
from bridge.http.application import application
from bridge.http.bounds import Bounds
from bridge.http.calls import Registration
from bridge.http.server import HttpServer
from bridge.live import Hub, follow_readiness
from bridge.model_server import ModelServerAddress, ModelServerProcess
from bridge.rehearsal import Rehearsals
from bridge.retention import RetentionKeeper
from bridge.runner import LocalRunner, ResidentPort, Runner
from bridge.settings import Settings, SettingsError, Tenant
from bridge.tenant_provider import pipelines_of
from bridge.watch import Watcher
from bridge.workers.lending import LendingAudioSocket, LendingWeb, LendingWebsocket
from bridge.workers.pool import PROCESS, WorkerPool
from storage.base import Storage, StorageError, StorageUnavailable
from storage.catalogue import Catalogue
from storage.lock import DatabaseLock
from storage.opening import open_storage
from visits.audit import stamp

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Gatehouse:
    """A tenant's ports."""

    visitors: AudioSocketServer
    residents: AudioSocketServer


class Service:
    """The whole service: its ports, its audit log, who is let in; a runner runs the visits behind it."""

    def __init__(
        self,
        settings: Settings,
        *,
        watchers: Sequence[Watcher] = (),
        dialers: Mapping[str, Dialer] | None = None,
        model_log: TextIO | None = None,
        worker_process: str = PROCESS,
    ) -> None:
        """
        Args:
            watchers: told of everything that happens in visits.
            dialers: in place of those that the settings name, by tenant.
            model_log: where the embedded model server's log goes; None: to our standard error.
            worker_process: the module that a worker runs, where there is more than one.

        Raises:
            ValueError: watchers or dialers for visits that run in other processes.
        """
        if settings.service.worker_count > 1 and (watchers or dialers):
            raise ValueError("found watchers or dialers for several workers; allowed: with one worker")
        self.settings = settings
        self._local: LocalRunner | None = None
        self._runner: Runner
        self.hub = Hub(lambda visit, leg, by: self._runner.hang_up(visit, leg, by))
        """What runs now, for those who follow it."""
        self.rehearsals = Rehearsals()
        """Test calls that were made at the console."""
        if settings.service.worker_count == 1:
            self._local = self._runner = LocalRunner(
                settings, watchers=(self.hub.watch, *watchers), dialers=dialers, on_over=self.hub.over
            )
        else:
            self._runner = WorkerPool(settings, self._lock_handle, worker_process, watches=self.hub)
        self._following: asyncio.Task[None] | None = None
        self._retention: asyncio.Task[None] | None = None
        self._model_log = model_log
        self._lock: DatabaseLock | None = None
        self._storage: Storage | None = None
        self._model_server: ModelServerProcess | None = None
        self._gatehouses: dict[str, _Gatehouse] = {}
        self._websocket: AsteriskWebsocketServer | None = None
        self._http: HttpServer | None = None
        self._open_to_visitors = False
        self._draining = False
        self._calls = CallRegistry(
            {tenant.id: tenant.numbers for tenant in settings.tenants.values()},
            expires_s=settings.service.registration_s,
            most=settings.service.max_registrations,
        )

    # ----------------------------------------------------------------------------------------------------
    # Start
    # ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start everything; what was started is stopped again where something fails.

        Raises:
            SettingsError: what the settings need is not there; all problems at once.
            StorageError: the audit log can't be opened, or another service answers for it.
            ModelServerError: the embedded model server does not start.
            WorkerError: a worker does not start.
            OSError: a port can't be had.
        """
        problems = self.settings.problems_at_start()
        if problems:
            raise SettingsError(problems)
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        settings = self.settings
        # Before the recovery, which takes every open visit for one that a crash left behind.
        self._lock = await asyncio.to_thread(DatabaseLock.take, settings.service.locked_path)
        self._storage = await open_storage(settings.database, service=settings.service.journal_path)
        await self._recover(self._storage)
        for tenant in settings.tenants.values():
            await self._listen(tenant)
        await self._runner.start(self._storage, self._resident_ports(), await self._start_models())
        await self._open_http()
        for tenant in settings.tenants.values():
            await self._open(tenant)
        await self._open_websocket()
        self._open_to_visitors = True
        self._following = asyncio.create_task(follow_readiness(self.hub, self), name="readiness")
        keeper = RetentionKeeper(
            self._storage, lambda: self.settings.tenants, settings.service.recordings_path
        )
        self._retention = asyncio.create_task(keeper.run(), name="retention")
        await self._record_itself(self._storage, "service.started", {"version": version("porteiro")})

    def _lock_handle(self) -> int:
        """The database's lock, for the workers to hold as well."""
        assert self._lock is not None
        return self._lock.fileno()

    async def _record_itself(self, storage: Storage, kind: str, data: Mapping[str, object]) -> None:
        """A record of the service's own chain, with the heads of the tenants' chains: a witness within."""
        try:
            heads = {tenant: str(head) for tenant, head in (await storage.heads()).items() if tenant}
        except StorageUnavailable:
            if not storage.warnings:  # while the database is away the record waits, and witnesses nothing
                raise
            heads = {}
        await storage.append("", "", stamp(datetime.now(UTC)), kind, {**data, "heads": heads})

    async def _recover(self, storage: Storage) -> None:
        """Close in the audit log what an earlier run left open: nothing of it is ever taken up again."""
        mine = None if storage.service is None else (storage.service,)
        try:
            closed = await storage.recover(
                stamp(datetime.now(UTC)), tuple(self.settings.tenants), services=mine
            )
        except StorageUnavailable as error:
            if not storage.warnings:
                raise
            log.warning("visits.recovered_later", reason=str(error))
            return
        if closed:
            log.warning("visits.recovered", count=len(closed), visits=closed)

    async def _start_models(self) -> ModelServerAddress | None:
        """The embedded model server, where a tenant uses it."""
        settings = self.settings
        if not settings.needs_model_server:
            return None
        self._model_server = ModelServerProcess(
            settings.service.model_server,
            settings.service.models_path,
            self._model_log,
            settings.service.log if self._model_log is None else None,
            pipelines_of(settings),
            only_pipelines=not settings.needs_local_parts,
        )
        return await self._model_server.start()

    async def _listen(self, tenant: Tenant) -> None:
        """A tenant's ports; visitors are let in later."""
        service = self.settings.service
        limits = AudioSocketLimits(handshake_s=service.handshake_s)

        def server(port: int, accept: str) -> AudioSocketServer:
            take = self._visitor if accept == "visitor" else self._resident
            return AudioSocketServer(
                service.listen,
                port,
                allowed=service.peers,
                accept=lambda endpoint: take(tenant.id, endpoint),
                limits=limits,
                intake=self._local.intake if self._local else None,
                endpoint=LendingAudioSocket if self.pool else AudioSocketEndpoint,
            )

        visitors, residents = server(tenant.visitor_port, "visitor"), server(tenant.resident_port, "resident")
        self._gatehouses[tenant.id] = _Gatehouse(visitors, residents)
        await residents.start()

    def _resident_ports(self) -> dict[str, ResidentPort]:
        """Where each tenant's residents' calls come in."""
        return {
            name: ResidentPort(tuple(map(_reachable, each.residents.ports)), each.residents.port)
            for name, each in self._gatehouses.items()
        }

    async def _open(self, tenant: Tenant) -> None:
        gatehouse = self._gatehouses[tenant.id]
        await gatehouse.visitors.start()
        log.info(
            "tenant.open",
            tenant=tenant.id,
            visitor_port=gatehouse.visitors.port,
            resident_port=gatehouse.residents.port,
            provider=tenant.provider,
        )

    async def _open_websocket(self) -> None:
        """The one port for the WebSocket channels of all tenants, where it is set."""
        service = self.settings.service
        if service.websocket_port is None:
            return
        tls = None
        if service.websocket_certificate is not None and service.websocket_key is not None:
            try:
                tls = tls_of(service.websocket_certificate, service.websocket_key)
            except OSError as error:
                raise SettingsError([f"service.websocket_certificate: can't be used: {error}"]) from error
        routes: dict[str, Route] = {}
        for tenant in self.settings.tenants.values():
            credentials = None
            if tenant.websocket_username_env is not None:
                secret = self.settings.secret
                credentials = (
                    secret(tenant.websocket_username_env) or "",
                    secret(tenant.websocket_password_env) or "",
                )
            for role, take in (("visitor", self._visitor), ("resident", self._resident)):
                routes[_websocket_path(tenant.id, role)] = Route(partial(take, tenant.id), credentials)
        self._websocket = AsteriskWebsocketServer(
            service.listen,
            service.websocket_port,
            allowed=service.peers,
            routes=routes,
            limits=AsteriskWebsocketLimits(handshake_s=service.handshake_s),
            tls=tls,
            intake=self._local.intake if self._local else None,
            endpoint=LendingWebsocket if self.pool else IncomingEndpoint,
        )
        await self._websocket.start()
        log.info("websocket.open", port=self._websocket.port, tls=tls is not None)

    async def _open_http(self) -> None:
        """The HTTP API, where its port is set."""
        service = self.settings.service
        if service.http_port is None:
            return
        key = self.settings.secret(service.http_key_env)
        api = application(self, key, local=True)
        app = Bounds(api, api.state.access)
        self._http = HttpServer(app, service.http_listen, service.http_port)
        await self._http.start()
        log.info("http.open", port=self._http.port, key=key is not None)

    # ----------------------------------------------------------------------------------------------------
    # Calls
    # ----------------------------------------------------------------------------------------------------

    def _visitor(self, tenant: str, endpoint: Endpoint) -> LegSink | Refusal | None:
        """A visitor's call came in."""
        own = self.settings.tenants[tenant]
        if self._runner.runs(endpoint.call_id):
            return Refusal(f"a visit with the id {endpoint.call_id} is running")
        if full := self._why_full(tenant):
            return Refusal(full)
        try:
            call = self._calls.claim(endpoint.call_id, tenant, now=asyncio.get_running_loop().time())
        except WrongTenantError as error:
            return Refusal(str(error))
        if call is None and isinstance(endpoint, WebCall):  # whether it is a test is known by it alone
            return Refusal(f"the call {endpoint.call_id} came too late for its registration")
        if call is None and own.registration == "required":
            return Refusal(
                f"the call {endpoint.call_id} is not registered, or was more than "
                f"{self.settings.service.registration_s:g} s ago; tenants.{tenant}.registration is required"
            )
        return self._runner.visitor(tenant, endpoint, call)

    def _why_full(self, tenant: str) -> str:
        """Why a tenant's visitor can't be let in; "" where one can."""
        if (legs := self.open_legs()) >= self.settings.service.max_calls:
            return f"{legs} calls are running; service.max_calls allows {self.settings.service.max_calls}"
        allowed = self.settings.tenants[tenant].limits.max_calls
        if (legs := self.open_legs(tenant)) >= allowed:
            return f"{legs} calls of {tenant} are running; tenants.{tenant}.limits.max_calls allows {allowed}"
        return ""

    def owner(self, number: str) -> str | None:
        """The tenant whose number it is; None: nobody's."""
        try:
            return self._calls.owner(number)
        except UnknownTenantError:
            return None

    async def web_visitor(
        self, tenant: str, call_id: UUID, origin: Origin, *, dialled: str = "", tested_by: str = ""
    ) -> WebLine:
        """A visitor's call over the HTTP port; see :class:`bridge.http.audio.Calls`."""
        if not self._open_to_visitors:
            raise NotTakenError("found a service that takes no calls now; /ready says why")
        if full := self._why_full(tenant):
            raise NotTakenError(full)
        now = asyncio.get_running_loop().time()
        try:
            self._calls.register(call_id, tenant=tenant, dialled=dialled, tested_by=tested_by, now=now)
        except RegistrationError as error:
            raise NotTakenError(str(error)) from None
        return await self._web_call(self._gatehouses[tenant].visitors, call_id, origin)

    async def web_resident(self, tenant: str, attempt: UUID, origin: Origin) -> WebLine:
        """A resident's call over the HTTP port; see :class:`bridge.http.audio.Calls`."""
        return await self._web_call(self._gatehouses[tenant].residents, attempt, origin)

    async def _web_call(self, server: AudioSocketServer, call_id: UUID, origin: Origin) -> WebLine:
        made = LendingWeb(server, origin) if self.pool else WebCall(server, origin)
        line = WebLine(await connect(made), call_id)
        await line.open()
        return line

    def _resident(self, tenant: str, endpoint: Endpoint) -> LegSink | Refusal | None:
        """A resident's call came in."""
        return self._runner.resident(tenant, endpoint)

    def register_call(self, registration: Registration) -> tuple[RegisteredCall, float]:
        """Note a call that will come; see :class:`bridge.http.calls.Registrar`."""
        if not self._open_to_visitors:
            raise NotTakingCallsError("found a service that takes no calls now; /ready says why")
        if self._runner.runs(registration.uuid):
            raise AlreadyRegisteredError(
                f"uuid: found {registration.uuid}, under which a visit is running; allowed: one uuid a call"
            )
        now = asyncio.get_running_loop().time()
        call = self._calls.register(**dict(registration), now=now)
        log.info(
            "call.registered",
            tenant=call.tenant,
            call_id=str(call.uuid),
            channel=call.channel,
            dialled=call.dialled,
        )
        left_s = self._calls.left_s(call, now=now)
        told = {"uuid": str(call.uuid), "caller_id": call.caller_id, "dialled": call.dialled}
        self.hub.tell(call.tenant, "call.registered", told)
        if self._room_for(call, now):
            self._runner.expect(call, left_s)
        return call, left_s

    def _room_for(self, call: RegisteredCall, now: float) -> bool:
        """Whether all calls that are registered could come now: who can't be let in needs no session."""
        legs, waiting = self.open_legs, self._calls.waiting
        own = self.settings.tenants[call.tenant].limits
        return (
            legs() + waiting(now=now) <= self.settings.service.max_calls
            and legs(call.tenant) + waiting(call.tenant, now=now) <= own.max_calls
        )

    def not_ready(self) -> list[str]:
        """Why no visitor would be taken now; see :class:`bridge.http.health.Readiness`."""
        reasons = {
            "draining": self._draining,
            "starting": not self._open_to_visitors and not self._draining,
            "full": self.open_legs() >= self.settings.service.max_calls,
            "model_server_down": self._model_server is not None and not self._model_server.ready,
        }
        found = [reason for reason, holds in reasons.items() if holds] + self._runner.not_ready()
        return found + (self._storage.troubles if self._storage is not None else [])

    def warnings(self) -> list[str]:
        """What is amiss although visitors are taken; see :class:`bridge.http.health.Readiness`."""
        return self._storage.warnings if self._storage is not None else []

    def open_legs(self, tenant: str | None = None) -> int:
        """Calls that run, of one tenant or of all."""
        return self._runner.open_legs(tenant)

    def visit(self, visit: UUID) -> VisitHost | None:
        """A visit that runs in this process."""
        return self._own.visit(visit)

    async def visit_over(self, visit: UUID, timeout_s: float = 60.0) -> bool:
        """Wait until a visit in this process has ended and let everything go; False where not in time."""
        return await self._own.over(visit, timeout_s)

    def ports(self, tenant: str) -> tuple[int, int]:
        """A tenant's visitor and resident port, as they are listened on."""
        gatehouse = self._gatehouses[tenant]
        return gatehouse.visitors.port, gatehouse.residents.port

    @property
    def websocket_port(self) -> int | None:
        """The port for WebSocket channels, as it is listened on."""
        return self._websocket.port if self._websocket is not None else None

    @property
    def http_port(self) -> int | None:
        """The port of the HTTP API, as it is listened on."""
        return self._http.port if self._http is not None else None

    @property
    def _own(self) -> LocalRunner:
        """What runs visits in this process, where one does."""
        assert self._local is not None
        return self._local

    @property
    def pool(self) -> WorkerPool | None:
        """The workers, where there is more than one."""
        return self._runner if isinstance(self._runner, WorkerPool) else None

    @property
    def clock(self) -> Clock:
        """The tick of the visits in this process, for its figures."""
        return self._own.clock

    @property
    def tenants(self) -> Mapping[str, Tenant]:
        """The tenants in force, by their ids."""
        return self.settings.tenants

    @property
    def storage(self) -> Storage:
        """The audit log."""
        assert self._storage is not None
        return self._storage

    @property
    def catalogue(self) -> Catalogue:
        """Tenants, directories, operators and keys, as the database keeps them."""
        catalogue: Catalogue = cast(Any, self.storage).catalogue
        return catalogue

    @property
    def model_server(self) -> ModelServerProcess | None:
        """The embedded model server, where a tenant uses it."""
        return self._model_server

    # ----------------------------------------------------------------------------------------------------
    # Stop
    # ----------------------------------------------------------------------------------------------------

    def _close_to_visitors(self) -> None:
        self._open_to_visitors = False
        self._draining = True

    async def drain(self) -> None:
        """Take no new visitor, and let the visits that run come to their end, for `service.drain_s`."""
        self._close_to_visitors()
        for tenant, gatehouse in self._gatehouses.items():
            gatehouse.visitors.stop_accepting()
            if self._websocket is not None:
                self._websocket.close_route(_websocket_path(tenant, "visitor"))
        if visits := self._runner.visits:
            drain_s = self.settings.service.drain_s
            log.info("service.draining", visits=visits, seconds=drain_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(drain_s):
                    await self._runner.quiet()

    async def stop(self) -> None:
        """End what is left, closed, and let everything go. More than once is harmless."""
        self._close_to_visitors()
        await self._runner.end("the service stops")
        if self._following is not None:
            self._following.cancel()
            self._following = None
        if self._retention is not None:
            self._retention.cancel()
            await asyncio.wait({self._retention})
            self._retention = None
        self.hub.close()  # else its readers would hold the server up
        if self._http is not None:  # late: until here it says that we are draining
            await self._http.stop()
            self._http = None
        if self._websocket is not None:
            await self._websocket.stop()
            self._websocket = None
        for gatehouse in self._gatehouses.values():
            await gatehouse.visitors.stop()
            await gatehouse.residents.stop()
        self._gatehouses.clear()
        await self._runner.stop()
        if self._model_server is not None:
            await self._model_server.stop()
            self._model_server = None
        if self._storage is not None:
            try:
                await self._record_itself(self._storage, "service.stopped", {})
            except StorageError as error:
                log.warning("service.stop_not_recorded", error=str(error))
            await self._storage.close()
            self._storage = None
        if self._lock is not None:  # last: until here something may have been written
            self._lock.release()
            self._lock = None


def _websocket_path(tenant: str, role: str) -> str:
    """Where Asterisk's WebSocket channels find a tenant."""
    return f"/asterisk/{tenant}/{role}"


def _reachable(host: str) -> str:
    """An address to connect to, for one that is listened on."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


__all__ = ["Service"]
