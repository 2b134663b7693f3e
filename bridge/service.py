"""What runs, in which order it starts, drains and stops."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from typing import Any, TextIO, cast
from uuid import UUID

import structlog
from starlette.types import ASGIApp

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
from bridge.doors import ROLES, DoorRole, Doors
from bridge.endpoints.asterisk_websocket import AsteriskWebsocketLimits
from bridge.endpoints.asterisk_websocket_server import (
    AsteriskWebsocketServer,
    IncomingEndpoint,
    Route,
)
from bridge.endpoints.audio_stream import AudioStreamEndpoint, stream_limits
from bridge.endpoints.audio_stream_control import StreamForm
from bridge.endpoints.audio_stream_server import PREFIX, AudioStreamServer, Domain, IncomingStream
from bridge.endpoints.audiosocket import AudioSocketEndpoint, AudioSocketLimits, AudioSocketServer
from bridge.endpoints.base import Endpoint, LegSink, Refusal
from bridge.endpoints.stream_ticket import HOLDS_S, ticket
from bridge.endpoints.web import NotTakenError, Origin, WebCall, WebLine, connect
from bridge.endpoints.websocket_connection import tls_of
from bridge.host import VisitHost
from bridge.http.application import application
from bridge.http.bounds import Bounds
from bridge.http.calls import Registration
from bridge.http.description import Methods
from bridge.http.server import HttpServer, behind_proxies
from bridge.http.switch import Way
from bridge.installation import Installation, resident_port
from bridge.live import Hub, follow_readiness
from bridge.model_server import ModelServerAddress, ModelServerProcess
from bridge.model_servers import ModelServers, Needs
from bridge.rehearsal import Rehearsals
from bridge.reopening import Reopening
from bridge.retention import RetentionKeeper
from bridge.runner import LocalRunner, Placing, Runner
from bridge.settings import FreeswitchDialer, Settings, SettingsError, Tenant
from bridge.tenants import IN_DATABASE, Tenancy, TenantInForce
from bridge.tenants_copy import FILE as COPY
from bridge.watch import Watcher
from bridge.webhooks.sender import Backlog, WebhookSender
from bridge.workers.lending import LendingAudioSocket, LendingStream, LendingWeb, LendingWebsocket
from bridge.workers.pool import PROCESS, WorkerPool
from storage.base import Storage, StorageError, StorageUnavailable
from storage.catalogue import NOTIFICATIONS, Catalogue
from storage.lock import DatabaseLock
from storage.opening import open_storage
from visits.audit import stamp

log = structlog.get_logger(__name__)


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
                settings, watchers=(self.hub.watch, *watchers), dialers=dialers, on_over=self._over
            )
        else:
            self._runner = WorkerPool(
                settings, self._lock_handle, worker_process, watches=self.hub, on_over=self._over
            )
        self._following: asyncio.Task[None] | None = None
        self._retention: asyncio.Task[None] | None = None
        self._webhooks: WebhookSender | None = None
        self._sending: asyncio.Task[None] | None = None
        self.tenancy = Tenancy(settings, settings.service.data_dir / COPY)
        """The tenants in force."""
        self.tenancy.subscribe(self.hub.settings_changed)
        self._models = ModelServers(settings, model_log)
        self._lock: DatabaseLock | None = None
        self._storage: Storage | None = None
        self._doors = Doors(self._server, self._take, lambda *came: self._runner.expects(*came))
        self._reopening = Reopening(self._doors, self.open_legs)
        self._websocket: AsteriskWebsocketServer | None = None
        self._streams: AudioStreamServer | None = None
        self._http: HttpServer | None = None
        self._open_to_visitors = False
        self._draining = False
        self._calls = CallRegistry(
            {}, expires_s=settings.service.registration_s, most=settings.service.max_registrations
        )
        self._installation = Installation(
            self._doors,
            self._runner,
            self._calls,
            self._models,
            self.tenancy.in_force,
            route=self._route,
            unroute=self._unroute,
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
        await self.tenancy.open(self.catalogue, self._listening())
        await self._recover(self._storage)
        await self._open_doors("resident")
        await self.tenancy.number()
        in_force = self.tenancy.in_force
        # Before the first visitor: it knows from when on its tenants' events are wanted.
        self._webhooks = WebhookSender(self._storage, lambda: self.tenancy.in_force)
        self.tenancy.subscribe(self._webhooks.changed)
        self._calls.assign({name: one.tenant.numbers for name, one in in_force.items()})
        places = {
            name: Placing(one, resident_port(self._doors.door(name, "resident")))
            for name, one in in_force.items()
        }
        await self._runner.start(self._storage, places, await self._start_models())
        self._make_streams()
        await self._open_http()
        await self._open_doors("visitor")
        for name, one in in_force.items():
            self._installation.say_open(name, one)
        await self._open_websocket()
        await self._open_streams()
        self._open_to_visitors = True
        self._following = asyncio.create_task(follow_readiness(self.hub, self), name="readiness")
        keeper = RetentionKeeper(
            self._storage, lambda: self.tenancy.current, settings.service.recordings_path
        )
        self._retention = asyncio.create_task(keeper.run(), name="retention")
        self._sending = asyncio.create_task(self._webhooks.run(), name="webhooks")
        await self._record_itself(self._storage, "service.started", {"version": version("porteiro")})
        self.tenancy.start(self._installation)

    def _listening(self) -> Callable[[Callable[[], None]], Awaitable[None]] | None:
        """How the database tells of changes; None: it must be asked."""
        database = self.settings.database
        if database.file is not None:
            return None
        # It loads asyncpg, which most services never need.
        from storage.notices import listen

        return lambda heard: listen(database, NOTIFICATIONS, heard)

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
                stamp(datetime.now(UTC)), tuple(self.tenancy.current), services=mine
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
        needs = Needs.of(self.tenancy.in_force.values())
        if not needs.any:
            return None
        self._models.current = await self._models.start(needs)
        return self._models.current.address

    async def _open_doors(self, role: DoorRole) -> None:
        """Listen for one role's calls of all tenants.

        Raises:
            OSError: a port that the files name can't be had. Who is in the database is refused then.
        """
        for name, one in tuple(self.tenancy.in_force.items()):
            try:
                await self._doors.open(role, one.tenant)
            except OSError as error:
                if one.kept_in != IN_DATABASE or role == "visitor":
                    raise
                self.tenancy.refuse(name, f"tenants.{name}.{role}_port: {error.strerror or error}")

    def _server(self, port: int, accept: Callable[[Endpoint], LegSink | Refusal | None]) -> AudioSocketServer:
        """What listens on a port."""
        service = self.settings.service
        return AudioSocketServer(
            service.listen,
            port,
            allowed=service.peers,
            accept=accept,
            limits=AudioSocketLimits(handshake_s=service.handshake_s),
            intake=self._local.intake if self._local else None,
            endpoint=LendingAudioSocket if self.pool else AudioSocketEndpoint,
        )

    def _take(self, role: DoorRole, tenant: str, endpoint: Endpoint) -> LegSink | Refusal | None:
        """A call came in."""
        return (self._visitor if role == "visitor" else self._resident)(tenant, endpoint)

    def _over(self, visit: UUID) -> None:
        """A visit does not run any more."""
        self.hub.over(visit)
        self._installation.over(visit)

    def _route(self, name: str, one: TenantInForce | None) -> None:
        """Have a tenant's WebSockets accepted from now on, or (None) no more visitors of it."""
        self._route_streams(name, one)
        if self._websocket is None:
            return
        if one is None:
            self._websocket.remove_route(_websocket_path(name, "visitor"))
            return
        tenant = one.tenant
        credentials = None
        if tenant.websocket_username_env is not None:
            credentials = (
                one.secret(tenant.websocket_username_env) or "",
                one.secret(tenant.websocket_password_env) or "",
            )
        for role in ROLES:
            route = Route(partial(self._take, role, name), credentials)
            self._websocket.set_route(_websocket_path(name, role), route)

    def _unroute(self, name: str) -> None:
        """The last visit of an earlier version of a tenant is over."""
        if self._streams is not None:
            self._streams.drop_former(name)
        if self._websocket is not None and name not in self.tenancy.in_force:
            self._websocket.remove_route(_websocket_path(name, "resident"))

    async def _open_websocket(self) -> None:
        """The one port for the WebSocket channels of all tenants, where it is set."""
        service = self.settings.service
        if service.websocket_port is None:
            return
        tls = self._websocket_tls()
        self._websocket = AsteriskWebsocketServer(
            service.listen,
            service.websocket_port,
            allowed=service.peers,
            routes={},
            limits=AsteriskWebsocketLimits(handshake_s=service.handshake_s),
            tls=tls,
            intake=self._local.intake if self._local else None,
            endpoint=LendingWebsocket if self.pool else IncomingEndpoint,
        )
        for name, one in self.tenancy.in_force.items():
            self._route(name, one)
        await self._websocket.start()
        log.info("websocket.open", port=self._websocket.port, tls=tls is not None)

    def _websocket_tls(self) -> ssl.SSLContext | None:
        """What the ports for WebSockets speak; None: in clear."""
        service = self.settings.service
        if service.websocket_certificate is None or service.websocket_key is None:
            return None
        try:
            return tls_of(service.websocket_certificate, service.websocket_key)
        except OSError as error:
            raise SettingsError([f"service.websocket_certificate: can't be used: {error}"]) from error

    def _make_streams(self) -> None:
        """What takes FreeSWITCH's streams, on whichever port they come."""
        service = self.settings.service
        self._streams = AudioStreamServer(
            service.listen,
            service.audio_stream_port or 0,
            allowed=service.peers,
            limits=stream_limits(service.handshake_s),
            tls=self._websocket_tls() if service.audio_stream_port is not None else None,
            intake=self._local.intake if self._local else None,
            endpoint=LendingStream if self.pool else IncomingStream,
        )

    async def _open_streams(self) -> None:
        """Let FreeSWITCH's streams in, and listen on their own port where it is set."""
        assert self._streams is not None
        for name, one in self.tenancy.in_force.items():
            self._route_streams(name, one)
        if self.settings.service.audio_stream_port is None:
            return
        await self._streams.start()
        tls = self.settings.service.websocket_certificate is not None
        log.info("audio_stream.open", port=self._streams.port, tls=tls)

    def _route_streams(self, name: str, one: TenantInForce | None) -> None:
        """Have a tenant's streams accepted from now on, or (None) those of called residents alone."""
        if self._streams is None:
            return
        set_up = None if one is None else one.tenant.freeswitch
        if one is None or set_up is None:
            self._streams.retire(name)
            return
        form = StreamForm(set_up.playback, set_up.sample_rate, set_up.channels)
        token = None if set_up.token_env is None else one.secret(set_up.token_env) or ""
        uuid = UUID(set_up.domain_uuid)
        self._streams.set_domain(name, uuid, Domain(name, partial(self._stream, name, uuid), form, token))

    def _stream(self, tenant: str, domain: UUID, endpoint: AudioStreamEndpoint) -> LegSink | Refusal | None:
        """A stream of FreeSWITCH's came in: a resident who was called, or else a visitor."""
        if self._runner.expects(tenant, endpoint):
            return self._resident(tenant, endpoint)
        if endpoint.metadata is not None and endpoint.metadata.called:  # too late, or made anew
            return Refusal(f"no running dial of {tenant} expects the id {endpoint.call_id}")
        own = self.tenancy.current.get(tenant)
        if own is None or own.freeswitch is None or UUID(own.freeswitch.domain_uuid) != domain:
            return Refusal(f"no visitor of {tenant} is taken in this domain any more")
        if not own.freeswitch.enabled:
            return Refusal(f"tenants.{tenant}.freeswitch.enabled is false")
        return self._visitor(tenant, endpoint)

    async def _open_http(self) -> None:
        """The HTTP API, where its port is set."""
        service = self.settings.service
        if service.http_port is None or not service.http_on:
            return
        key = self.settings.secret(service.http_key_env)
        api = application(self, key, local=not service.http_public)
        app: ASGIApp = Bounds(api, api.state.access, Methods(api))
        if service.http_proxies:
            app = behind_proxies(app, service.http_proxies)
        tls = None
        if service.http_certificate is not None and service.http_key_file is not None:
            tls = (service.http_certificate, service.http_key_file)
        assert self._streams is not None
        self._http = HttpServer(
            app, service.http_listen, service.http_port, tls, beside={PREFIX: self._streams.make}
        )
        try:
            await self._http.start()
        except ValueError as error:
            raise SettingsError([f"service.http_certificate: can't be used: {error}"]) from error
        log.info("http.open", port=self._http.port, tls=tls is not None)
        await self._say_how_to_get_in()

    async def _say_how_to_get_in(self) -> None:
        """There is no default password: whoever has just installed this is told how to make an operator."""
        # A database that is away has a warning of its own, and holds nobody up.
        with contextlib.suppress(StorageUnavailable):
            if not await self.catalogue.operators():
                log.warning("operator.none", command="porteiro operator add LOGIN --role admin")

    # ----------------------------------------------------------------------------------------------------
    # Calls
    # ----------------------------------------------------------------------------------------------------

    def _visitor(self, tenant: str, endpoint: Endpoint) -> LegSink | Refusal | None:
        """A visitor's call came in."""
        own = self.tenancy.current.get(tenant)
        if own is None or self._draining:
            return Refusal(f"no visitor of {tenant} is taken now")
        if self._runner.runs(endpoint.call_id):
            return Refusal(f"a visit with the id {endpoint.call_id} is running")
        if full := self._why_full(tenant):
            return Refusal(full)
        try:
            call = self._calls.claim(endpoint.call_id, tenant, now=asyncio.get_running_loop().time())
        except WrongTenantError as error:
            return Refusal(str(error))
        if call is None and own.registration == "optional" and isinstance(endpoint, AudioStreamEndpoint):
            call = _told(endpoint, tenant)
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
        allowed = self.tenancy.current[tenant].limits.max_calls
        if (legs := self.open_legs(tenant)) >= allowed:
            return f"{legs} calls of {tenant} are running; tenants.{tenant}.limits.max_calls allows {allowed}"
        return ""

    def owner(self, number: str) -> str | None:
        """The tenant whose number it is; None: nobody's."""
        try:
            return self._calls.owner(number)
        except UnknownTenantError:
            return None

    def way(self, call: UUID, domain: UUID | None, dialled: str) -> Way | None:
        """The way of a call that FreeSWITCH has; see :class:`bridge.http.switch.Switch`."""
        assert self._streams is not None
        name = self.owner(dialled) if domain is None else self._streams.tenant_of(domain)
        one = None if name is None else self.tenancy.in_force.get(name)
        if name is None or one is None or one.tenant.freeswitch is None:
            return None
        own = one.tenant.freeswitch
        dialer, token = one.tenant.dialer, None if own.token_env is None else one.secret(own.token_env)
        uuid = UUID(own.domain_uuid)
        return Way(
            tenant=name,
            mode=own.mode if own.enabled else "attendant",
            path=f"{PREFIX}{uuid}/{call}",
            playback=own.playback,
            sample_rate=own.sample_rate,
            channels=own.channels,
            place=dialer.stream_url if isinstance(dialer, FreeswitchDialer) else "",
            ticket="" if token is None else ticket(token, uuid, call, now=time.time()),
            expires_s=0.0 if token is None else HOLDS_S,
            port=self.audio_stream_port,
            tls=self.settings.service.websocket_certificate is not None,
            refused=", ".join(self.not_ready()) or self._why_full(name),
        )

    async def web_visitor(
        self, tenant: str, call_id: UUID, origin: Origin, *, dialled: str = "", tested_by: str = ""
    ) -> WebLine:
        """A visitor's call over the HTTP port; see :class:`bridge.http.audio.Calls`."""
        if not self._open_to_visitors:
            raise NotTakenError("found a service that takes no calls now; /ready says why")
        if tenant not in self.tenancy.current:
            raise NotTakenError(f"found the tenant {tenant}, which is gone; allowed: one that is there")
        if full := self._why_full(tenant):
            raise NotTakenError(full)
        now = asyncio.get_running_loop().time()
        try:
            self._calls.register(call_id, tenant=tenant, dialled=dialled, tested_by=tested_by, now=now)
        except RegistrationError as error:
            raise NotTakenError(str(error)) from None
        return await self._web_call(tenant, "visitor", call_id, origin)

    async def web_resident(self, tenant: str, attempt: UUID, origin: Origin) -> WebLine:
        """A resident's call over the HTTP port; see :class:`bridge.http.audio.Calls`."""
        return await self._web_call(tenant, "resident", attempt, origin)

    async def _web_call(self, tenant: str, role: DoorRole, call_id: UUID, origin: Origin) -> WebLine:
        try:
            server = self._doors.of(tenant, role)
        except KeyError:
            raise NotTakenError(f"found no {role} port of {tenant}: it is gone, or changes now") from None
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
        own = self.tenancy.current[call.tenant].limits
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
            "no_tenants": self._open_to_visitors and not self.tenancy.current,
            "model_server_down": self.model_server is not None and not self.model_server.ready,
        }
        found = [reason for reason, holds in reasons.items() if holds] + self._runner.not_ready()
        return found + (self._storage.troubles if self._storage is not None else [])

    def warnings(self) -> list[str]:
        """What is amiss although visitors are taken; see :class:`bridge.http.health.Readiness`."""
        stored = self._storage.warnings if self._storage is not None else []
        told = self._webhooks.warnings if self._webhooks is not None else []
        return stored + self.tenancy.warnings + told

    def backlog(self) -> Backlog | None:
        """What tenants' own systems are still to be told; see :class:`bridge.http.health.Readiness`."""
        return self._webhooks.backlog if self._webhooks is not None else None

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
        return self._doors.of(tenant, "visitor").port, self._doors.of(tenant, "resident").port

    async def reopen(self, tenant: str) -> bool:
        """Close a tenant's ports and open them again; see :meth:`bridge.reopening.Reopening.reopen`."""
        return await self._reopening.reopen(tenant)

    @property
    def websocket_port(self) -> int | None:
        """The port for WebSocket channels, as it is listened on."""
        return self._websocket.port if self._websocket is not None else None

    @property
    def audio_stream_port(self) -> int | None:
        """The port for FreeSWITCH's streams, as it is listened on."""
        if self._streams is None or self.settings.service.audio_stream_port is None:
            return None
        return self._streams.port

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
        """The settings of the tenants in force, by their ids."""
        return self.tenancy.current

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
        return self._models.current.process if self._models.current is not None else None

    # ----------------------------------------------------------------------------------------------------
    # Stop
    # ----------------------------------------------------------------------------------------------------

    def _close_to_visitors(self) -> None:
        self._open_to_visitors = False
        self._draining = True

    async def drain(self) -> None:
        """Take no new visitor, and let the visits that run come to their end, for `service.drain_s`."""
        self._close_to_visitors()
        await self.tenancy.stop()
        await self._reopening.stop()
        self._doors.close_to_visitors()
        if self._websocket is not None:
            for tenant in self.tenancy.current:
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
        await self.tenancy.stop()
        await self._reopening.stop()
        await self._runner.end("the service stops")
        if self._following is not None:
            self._following.cancel()
            self._following = None
        if self._retention is not None:
            self._retention.cancel()
            await asyncio.wait({self._retention})
            self._retention = None
        if self._sending is not None and self._webhooks is not None:
            self._webhooks.close()  # after the visits: it tells how the last ones ended
            await asyncio.wait({self._sending})
            self._sending = None
        self.hub.close()  # else its readers would hold the server up
        if self._http is not None:  # late: until here it says that we are draining
            await self._http.stop()
            self._http = None
        if self._websocket is not None:
            await self._websocket.stop()
            self._websocket = None
        if self._streams is not None:
            await self._streams.stop()
            self._streams = None
        await self._doors.stop()
        await self._runner.stop()
        await self._installation.stop()
        await self._models.stop()
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


def _told(endpoint: AudioStreamEndpoint, tenant: str) -> RegisteredCall | None:
    """What a stream's metadata says of its call, as a registration would."""
    said = endpoint.metadata
    if said is None or not (said.caller_id or said.extension):
        return None
    return RegisteredCall(endpoint.call_id, tenant, caller_id=said.caller_id, dialled=said.extension)


def _websocket_path(tenant: str, role: str) -> str:
    """Where Asterisk's WebSocket channels find a tenant."""
    return f"/asterisk/{tenant}/{role}"


__all__ = ["Service"]
