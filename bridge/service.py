"""What runs, in which order it starts, drains and stops."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TextIO
from uuid import UUID

import structlog

from audio.hearing import Ears
from audio.vad import VadModel
from bridge.amqp import Brokers
from bridge.calls import (
    AlreadyRegisteredError,
    CallRegistry,
    NotTakingCallsError,
    RegisteredCall,
    WrongTenantError,
)
from bridge.clock import Clock
from bridge.dialing.base import Dialer
from bridge.dialing.build import Dialers
from bridge.endpoints.asterisk_websocket import AsteriskWebsocketLimits
from bridge.endpoints.asterisk_websocket_server import AsteriskWebsocketServer, Route, tls_of
from bridge.endpoints.audiosocket import AudioSocketLimits, AudioSocketServer, Refusal
from bridge.endpoints.base import Endpoint, LegSink
from bridge.endpoints.intake import Intake
from bridge.gates.build import build_gate
from bridge.host import VisitHost
from bridge.house import Condominium, House
from bridge.http.application import application
from bridge.http.calls import Registration
from bridge.http.server import HttpServer
from bridge.log import bound
from bridge.model_server import ModelServerAddress, ModelServerProcess
from bridge.recorder import Recorder
from bridge.sentences import Sentences
from bridge.settings import Settings, SettingsError, Tenant
from bridge.transfer import build_transfer
from bridge.watch import Watcher
from providers.base import Provider
from providers.openai_realtime import OpenAISettings
from providers.registry import create
from storage.base import StorageError
from storage.lock import DatabaseLock
from storage.sqlite import SqliteStorage
from tools.registry import porteiro_tools
from visits.audit import stamp
from visits.directory import Directory

STOP_S = 10.0
"""How long visits may take to end once they are told to."""

log = structlog.get_logger(__name__)


def silero_onnx() -> bytes:
    """Silero's model out of the silero-vad package, without importing it: that would need torch.

    Raises:
        FileNotFoundError: the package, or its file, is not installed.
    """
    found = importlib.util.find_spec("silero_vad")
    places = (found.submodule_search_locations if found else None) or []
    for place in places:
        file = Path(place, "data", "silero_vad.onnx")
        if file.is_file():
            return file.read_bytes()
    raise FileNotFoundError("the package silero-vad is not installed, or lacks data/silero_vad.onnx")


@dataclass(slots=True)
class _Gatehouse:
    """A tenant's ports, and the visits that run there."""

    place: Condominium
    visitors: AudioSocketServer
    residents: AudioSocketServer


class Service:
    """The whole service in one process."""

    def __init__(
        self,
        settings: Settings,
        *,
        watchers: Sequence[Watcher] = (),
        dialers: Mapping[str, Dialer] | None = None,
        model_log: TextIO | None = None,
    ) -> None:
        """
        Args:
            watchers: told of everything that happens in visits.
            dialers: in place of those that the settings name, by tenant.
            model_log: where the embedded model server's log goes; None: to our standard error.
        """
        self.settings = settings
        self._watchers = tuple(watchers)
        self._dialers = dict(dialers or {})
        self._brokers = Brokers()
        self._make_dialers = Dialers(settings.secret, self._brokers)
        self._model_log = model_log
        self._lock: DatabaseLock | None = None
        self._storage: SqliteStorage | None = None
        self._recorder: Recorder | None = None
        self._model_server: ModelServerProcess | None = None
        self._clock = Clock()
        self._intake = Intake()
        self._house: House | None = None
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
        self._visits: dict[UUID, VisitHost] = {}
        self._tasks: dict[UUID, asyncio.Task[None]] = {}

    # ----------------------------------------------------------------------------------------------------
    # Start
    # ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start everything; what was started is stopped again where something fails.

        Raises:
            SettingsError: what the settings need is not there; all problems at once.
            StorageError: the audit log can't be opened, or another service answers for it.
            ModelServerError: the embedded model server does not start.
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
        self._lock = await asyncio.to_thread(DatabaseLock.take, settings.service.database_path)
        self._storage = await SqliteStorage.open(settings.service.database_path)
        await self._recover(self._storage)
        self._recorder = Recorder(settings.service.recordings_path)
        self._house = House(
            self._clock,
            self._storage,
            self._recorder,
            porteiro_tools(),
            Ears(VadModel(silero_onnx())),
            self._watchers,
        )
        address = None
        if any(tenant.provider == "local" and not tenant.base_url for tenant in settings.tenants.values()):
            self._model_server = ModelServerProcess(
                settings.service.model_server,
                settings.service.models_path,
                self._model_log,
                settings.service.log if self._model_log is None else None,
            )
            address = await self._model_server.start()
        for tenant in settings.tenants.values():
            await self._furnish(tenant, address)
        # After all that takes long (clients, certificates), and before the first visitor: from here on ticks
        # come in time.
        self._clock.start(self._before_each_tick)
        await self._open_http()
        for gatehouse in self._gatehouses.values():
            await self._open(gatehouse)
        await self._open_websocket()
        self._open_to_visitors = True
        await self._record_itself(self._storage, "service.started", {"version": version("porteiro")})

    def _before_each_tick(self) -> None:
        """Hear what all callers said since the last."""
        assert self._house is not None
        self._intake.run()
        self._house.ears.run()

    async def _record_itself(self, storage: SqliteStorage, kind: str, data: Mapping[str, object]) -> None:
        """A record of the service's own chain, with the heads of the tenants' chains: a witness within."""
        heads = {tenant: str(head) for tenant, head in (await storage.heads()).items() if tenant}
        await storage.append("", "", stamp(datetime.now(UTC)), kind, {**data, "heads": heads})

    async def _recover(self, storage: SqliteStorage) -> None:
        """Close in the audit log what an earlier run left open: nothing of it is ever taken up again."""
        closed = await storage.recover(stamp(datetime.now(UTC)), tuple(self.settings.tenants))
        if closed:
            log.warning("visits.recovered", count=len(closed), visits=closed)

    async def _furnish(self, tenant: Tenant, address: ModelServerAddress | None) -> None:
        """All that a tenant's visits need; visitors are let in later."""
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
                intake=self._intake,
            )

        visitors, residents = server(tenant.visitor_port, "visitor"), server(tenant.resident_port, "resident")
        await residents.start()
        place = Condominium(
            tenant,
            Directory.from_records(json.loads(tenant.directory.read_bytes())),
            Sentences.load(tenant.language, tenant.title, greeting=tenant.greeting, goodbye=tenant.goodbye),
            self._provider(tenant, address),
            self._dialers.get(tenant.id) or self._make_dialers.build(tenant),
            build_gate(tenant, self.settings.secret, self._brokers),
            tuple(_reachable(host) for host in residents.ports),
            residents.port,
            build_transfer(tenant, self.settings.secret),
        )
        self._gatehouses[tenant.id] = _Gatehouse(place, visitors, residents)
        await place.dialer.start()

    async def _open(self, gatehouse: _Gatehouse) -> None:
        await gatehouse.visitors.start()
        log.info(
            "tenant.open",
            tenant=gatehouse.place.id,
            visitor_port=gatehouse.visitors.port,
            resident_port=gatehouse.residents.port,
            provider=gatehouse.place.settings.provider,
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
            intake=self._intake,
        )
        await self._websocket.start()
        log.info("websocket.open", port=self._websocket.port, tls=tls is not None)

    async def _open_http(self) -> None:
        """The HTTP API, where its port is set."""
        service = self.settings.service
        if service.http_port is None:
            return
        key = self.settings.secret(service.http_key_env)
        self._http = HttpServer(application(self, key), service.http_listen, service.http_port)
        await self._http.start()
        log.info("http.open", port=self._http.port, key=key is not None)

    def _provider(self, tenant: Tenant, address: ModelServerAddress | None) -> Provider:
        if tenant.provider == "local" and not tenant.base_url:
            assert address is not None
            return create(
                "local",
                OpenAISettings(
                    api_key=address.token,
                    base_url=address.base_url,
                    model="porteiro",
                    voice="",
                    format=tenant.provider_format,
                ),
            )
        default = OpenAISettings(api_key=self.settings.secret(tenant.key_variable) or "")
        return create(
            tenant.provider,
            replace(
                default,
                base_url=tenant.base_url or default.base_url,
                model=tenant.model or default.model,
                voice=tenant.voice or default.voice,
                format=tenant.provider_format,
            ),
        )

    # ----------------------------------------------------------------------------------------------------
    # Calls
    # ----------------------------------------------------------------------------------------------------

    def _visitor(self, tenant: str, endpoint: Endpoint) -> LegSink | Refusal:
        """A visitor's call came in."""
        assert self._house is not None
        place = self._gatehouses[tenant].place
        if endpoint.call_id in self._visits:
            return Refusal(f"a visit with the id {endpoint.call_id} is running")
        if (legs := self.open_legs()) >= self.settings.service.max_calls:
            return Refusal(
                f"{legs} calls are running; service.max_calls allows {self.settings.service.max_calls}"
            )
        allowed = place.settings.limits.max_calls
        if (legs := self.open_legs(tenant)) >= allowed:
            return Refusal(
                f"{legs} calls of {tenant} are running; tenants.{tenant}.limits.max_calls allows {allowed}"
            )
        try:
            call = self._calls.claim(endpoint.call_id, tenant, now=asyncio.get_running_loop().time())
        except WrongTenantError as error:
            return Refusal(str(error))
        if call is None and place.settings.registration == "required":
            return Refusal(
                f"the call {endpoint.call_id} is not registered, or was more than "
                f"{self.settings.service.registration_s:g} s ago; tenants.{tenant}.registration is required"
            )
        host = VisitHost(self._house, place, endpoint, call)
        self._visits[endpoint.call_id] = host
        with bound(tenant=tenant, visit=host.id):
            task = asyncio.get_running_loop().create_task(host.run(), name=f"visit {endpoint.call_id}")
        self._tasks[endpoint.call_id] = task
        task.add_done_callback(lambda _: self._forget(endpoint.call_id))
        return host.visitor

    def register_call(self, registration: Registration) -> tuple[RegisteredCall, float]:
        """Note a call that will come; see :class:`bridge.http.calls.Registrar`."""
        if not self._open_to_visitors:
            raise NotTakingCallsError("found a service that takes no calls now; /ready says why")
        if registration.uuid in self._visits:
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
        return call, self._calls.left_s(call, now=now)

    def not_ready(self) -> list[str]:
        """Why no visitor would be taken now; see :class:`bridge.http.health.Readiness`."""
        reasons = {
            "draining": self._draining,
            "starting": not self._open_to_visitors and not self._draining,
            "full": self.open_legs() >= self.settings.service.max_calls,
            "model_server_down": self._model_server is not None and not self._model_server.ready,
        }
        return [reason for reason, holds in reasons.items() if holds]

    def _forget(self, visit: UUID) -> None:
        self._visits.pop(visit, None)
        self._tasks.pop(visit, None)

    def _resident(self, tenant: str, endpoint: Endpoint) -> LegSink | Refusal:
        """A resident's call came in. Never refused for being one too many: it belongs to a running visit."""
        came = endpoint.call_id
        for host in self._visits.values():
            attempt = host.visit.attempt
            if host.place.id != tenant or attempt is None:
                continue
            by_visit = host.place.settings.dialer.visit_uuid_on_resident_port and came == host.visit.id
            if (came == attempt or by_visit) and host.visit.expects(attempt) and not host.claimed(attempt):
                return host.resident_arrived(endpoint, attempt)
        return Refusal(f"no running dial of {tenant} expects the id {came}")

    def open_legs(self, tenant: str | None = None) -> int:
        """Calls that run, of one tenant or of all."""
        return sum(
            host.open_legs for host in self._visits.values() if tenant is None or host.place.id == tenant
        )

    def visit(self, visit: UUID) -> VisitHost | None:
        """A running visit."""
        return self._visits.get(visit)

    async def visit_over(self, visit: UUID, timeout_s: float = 60.0) -> bool:
        """Wait until a visit has ended and let everything go; False where it has not in time."""
        task = self._tasks.get(visit)
        if task is None:
            return True
        done, _ = await asyncio.wait({task}, timeout=timeout_s)
        return bool(done)

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
    def clock(self) -> Clock:
        """The tick, for its figures."""
        return self._clock

    @property
    def storage(self) -> SqliteStorage:
        """The audit log."""
        assert self._storage is not None
        return self._storage

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
        for gatehouse in self._gatehouses.values():
            gatehouse.visitors.stop_accepting()
            if self._websocket is not None:
                self._websocket.close_route(_websocket_path(gatehouse.place.id, "visitor"))
        tasks = set(self._tasks.values())
        if tasks:
            log.info("service.draining", visits=len(tasks), seconds=self.settings.service.drain_s)
            await asyncio.wait(tasks, timeout=self.settings.service.drain_s)

    async def stop(self) -> None:
        """End what is left, closed, and let everything go. More than once is harmless."""
        self._close_to_visitors()
        for host in tuple(self._visits.values()):
            await host.end("the service stops")
        if tasks := set(self._tasks.values()):
            _, late = await asyncio.wait(tasks, timeout=STOP_S)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=STOP_S)
        if self._http is not None:  # late: until here it says that we are draining
            await self._http.stop()
            self._http = None
        if self._websocket is not None:
            await self._websocket.stop()
            self._websocket = None
        for gatehouse in self._gatehouses.values():
            await gatehouse.visitors.stop()
            await gatehouse.residents.stop()
            await gatehouse.place.dialer.stop()
        self._gatehouses.clear()
        await self._brokers.stop()
        self._clock.stop()
        self._intake.close()
        if self._model_server is not None:
            await self._model_server.stop()
            self._model_server = None
        if self._recorder is not None:
            await self._recorder.stop()
            self._recorder = None
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


__all__ = ["Service", "silero_onnx"]
