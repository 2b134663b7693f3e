"""Runs visits: the seam behind the service's ports, and the runner whose visits run in this process."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol
from uuid import UUID

import structlog

from audio.hearing import Ears
from audio.vad import VadModel
from bridge.ahead import Ahead
from bridge.amqp import Brokers
from bridge.calls import RegisteredCall
from bridge.clock import Clock
from bridge.costs.budget import Purse
from bridge.costs.prices import Prices, PricesError, known_prices
from bridge.dialing.base import Dialer
from bridge.dialing.build import Dialers
from bridge.endpoints.audiosocket import Refusal
from bridge.endpoints.base import Endpoint, LegSink
from bridge.endpoints.intake import Intake
from bridge.gates.build import build_gate
from bridge.host import VisitHost
from bridge.house import Condominium, House
from bridge.log import bound
from bridge.model_server import ModelServerAddress
from bridge.recorder import Recorder
from bridge.rehearsal import rehearsed
from bridge.sentences import Sentences
from bridge.settings import Settings, SettingsError, Tenant
from bridge.tenant_provider import providers_of
from bridge.transfer import build_transfer
from bridge.watch import Seen, Watcher
from providers.announcer import Announcer, OwnVoice
from providers.breaker import Standing
from providers.failover import FailoverProvider, OneMoment
from storage.base import Storage
from tools.registry import porteiro_tools
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


@dataclass(frozen=True, slots=True)
class ResidentPort:
    """Where a tenant's residents' calls come in: the addresses to connect to, and their port."""

    hosts: tuple[str, ...]
    port: int


class Runner(Protocol):
    """Runs the visits of all tenants. Who is let in, and how many, is decided before it is asked."""

    async def start(
        self, storage: Storage, residents: Mapping[str, ResidentPort], models: ModelServerAddress | None
    ) -> None:
        """Make all that visits need; no call comes before it is done.

        Args:
            residents: by tenant.
            models: the embedded model server, where a tenant uses it.

        Raises:
            SettingsError: what the settings name can't be used.
        """

    def expect(self, call: RegisteredCall, within_s: float) -> None:
        """A visitor's call is to come, where it comes at all: its session may be opened meanwhile."""

    def visitor(
        self, tenant: str, endpoint: Endpoint, call: RegisteredCall | None
    ) -> LegSink | Refusal | None:
        """Begin a visit with a visitor's call; None: another process has taken the connection over."""

    def resident(self, tenant: str, endpoint: Endpoint) -> LegSink | Refusal | None:
        """Join a resident's call to the visit that dialled it; None as with :meth:`visitor`."""

    @property
    def visits(self) -> int:
        """How many visits run."""

    def runs(self, visit: UUID) -> bool:
        """Whether a visit of this id runs."""

    def hang_up(self, visit: UUID, leg: str | None, by: str) -> bool:
        """Have a person hang up a leg of a visit, or (None) all of it.

        False: no such visit runs, or it has no such leg open. With several workers only the visit is known
        here: its worker does nothing where it has no such leg.
        """

    def open_legs(self, tenant: str | None = None) -> int:
        """Calls that run, of one tenant or of all."""

    def not_ready(self) -> list[str]:
        """Why no visit could begin now, in fixed words; empty where one could."""

    async def quiet(self) -> None:
        """Return once no visit of those that run now is left. Without a deadline of its own."""

    async def end(self, reason: str) -> None:
        """End the visits that run, closed, within seconds."""

    async def stop(self) -> None:
        """Let everything go. After :meth:`end`; more than once is harmless."""


class LocalRunner:
    """Runs visits in this process; see :class:`Runner`."""

    def __init__(
        self,
        settings: Settings,
        *,
        watchers: Sequence[Watcher] = (),
        dialers: Mapping[str, Dialer] | None = None,
        around_dialer: Callable[[Dialer], Dialer] = lambda dialer: dialer,
        on_over: Callable[[UUID], None] = lambda visit: None,
    ) -> None:
        """
        Args:
            watchers: told of everything that happens in visits.
            dialers: in place of those that the settings name, by tenant.
            around_dialer: put around each tenant's dialer.
            on_over: told of each visit that is over.
        """
        self.settings = settings
        self.clock = Clock()
        """The tick, for its figures."""
        self.intake = Intake()
        """Reads the sockets of calls at each tick; for the servers that have them."""
        self._watchers = tuple(watchers)
        self._dialers = dict(dialers or {})
        self._around_dialer = around_dialer
        self._on_over = on_over
        self._brokers = Brokers()
        self._make_dialers = Dialers(settings.secret, self._brokers)
        self._recorder: Recorder | None = None
        self._ahead = Ahead()
        self._coming: dict[UUID, asyncio.Task[None]] = {}
        """Calls of which it is being found out whether a session may be opened for them."""
        self._house: House | None = None
        self._prices: Prices
        self._voice = OwnVoice(settings.service.model_server.piper_voice)
        self._places: dict[str, Condominium] = {}
        self._visits: dict[UUID, VisitHost] = {}
        self._tasks: dict[UUID, asyncio.Task[None]] = {}

    # ----------------------------------------------------------------------------------------------------
    # Start
    # ----------------------------------------------------------------------------------------------------

    async def start(
        self, storage: Storage, residents: Mapping[str, ResidentPort], models: ModelServerAddress | None
    ) -> None:
        """See :class:`Runner`."""
        try:
            self._prices = known_prices(self.settings.service.prices_file)
        except PricesError as error:
            raise SettingsError([f"service.prices_file: {error}"]) from error
        self._recorder = Recorder(self.settings.service.recordings_path)
        self._house = House(
            self.clock,
            storage,
            self._recorder,
            porteiro_tools(),
            Ears(VadModel(silero_onnx())),
            Announcer(self._voice),
            self._ahead,
            self._watchers,
        )
        for tenant in self.settings.tenants.values():
            place = self._furnish(tenant, residents[tenant.id], models)
            self._places[tenant.id] = place
            await place.dialer.start()
        # After all that takes long (clients, certificates): from here on ticks come in time.
        self.clock.start(self._before_each_tick)

    def _before_each_tick(self) -> None:
        """Hear what all callers said since the last."""
        assert self._house is not None
        self.intake.run()
        self._house.ears.run()

    def _furnish(
        self, tenant: Tenant, residents: ResidentPort, models: ModelServerAddress | None
    ) -> Condominium:
        """All that a tenant's visits need."""
        sentences = Sentences.load(
            tenant.language, tenant.title, greeting=tenant.greeting, goodbye=tenant.goodbye
        )
        apology = sentences.say("sorry_for_the_wait", None, {})
        one_moment = OneMoment(self._voice, sentences.say("one_moment", None, {}))
        return Condominium(
            tenant,
            Directory.from_records(json.loads(tenant.directory.read_bytes())),
            sentences,
            self._watched(tenant.id, providers_of(tenant, self.settings.secret, models, apology, one_moment)),
            self._around_dialer(self._dialers.get(tenant.id) or self._make_dialers.build(tenant)),
            build_gate(tenant, self.settings.secret, self._brokers),
            residents.hosts,
            residents.port,
            self._prices.before(tenant.cost.prices),
            Purse.of(tenant),
            build_transfer(tenant, self.settings.secret),
        )

    def _watched(self, tenant: str, provider: FailoverProvider) -> FailoverProvider:
        """Tell the watchers how a tenant's providers stand."""
        names = [each.provider.name for each in provider.candidates]

        def told(standing: Standing) -> None:
            data = {"provider": names[standing.at], **asdict(standing)}
            for watcher in self._watchers:
                watcher(Seen("", 0.0, "provider.state", data, tenant))

        provider.watch(told)
        return provider

    # ----------------------------------------------------------------------------------------------------
    # Calls
    # ----------------------------------------------------------------------------------------------------

    def expect(self, call: RegisteredCall, within_s: float) -> None:
        """See :class:`Runner`."""
        if self._places[call.tenant].provider.opens_ahead and call.uuid not in self._coming:
            task = asyncio.get_running_loop().create_task(
                self._open_ahead(call, within_s), name=f"opening for {call.uuid}"
            )
            self._coming[call.uuid] = task
            task.add_done_callback(lambda done: self._opened_ahead(call, done))

    def _opened_ahead(self, call: RegisteredCall, task: asyncio.Task[None]) -> None:
        self._coming.pop(call.uuid, None)
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error(
                "session.not_opened", call_id=str(call.uuid), exc_info=fault
            )  # it is when the call comes

    async def _open_ahead(self, call: RegisteredCall, within_s: float) -> None:
        assert self._house is not None
        place = self._places[call.tenant]
        if await place.purse.why_closed(self._house.storage, datetime.now(UTC)):
            return
        config = place.visitor_session(self._house.tools, channel=call.channel)
        with bound(tenant=place.id, visit=str(call.uuid), leg="visitor"):
            self._ahead.open(call.uuid, within_s, config, place.provider.open)

    def visitor(
        self, tenant: str, endpoint: Endpoint, call: RegisteredCall | None
    ) -> LegSink | Refusal | None:
        """See :class:`Runner`."""
        assert self._house is not None
        if (opening := self._coming.get(endpoint.call_id)) is not None:
            opening.cancel()  # too late for it: the call is here
        if endpoint.call_id in self._visits:  # two visits of one id would share their records
            return Refusal(f"a visit with the id {endpoint.call_id} is running")
        place = self._places[tenant]
        if call is not None and call.tested_by:
            place = rehearsed(place, self._around_dialer)
        host = VisitHost(self._house, place, endpoint, call)
        self._visits[endpoint.call_id] = host
        with bound(tenant=tenant, visit=host.id):
            task = asyncio.get_running_loop().create_task(host.run(), name=f"visit {endpoint.call_id}")
        self._tasks[endpoint.call_id] = task
        task.add_done_callback(lambda _: self._forget(endpoint.call_id))
        return host.visitor

    def _forget(self, visit: UUID) -> None:
        self._visits.pop(visit, None)
        self._tasks.pop(visit, None)
        self._on_over(visit)

    def resident(self, tenant: str, endpoint: Endpoint) -> LegSink | Refusal | None:
        """See :class:`Runner`. Never refused for being one too many: it belongs to a running visit."""
        came = endpoint.call_id
        for host in self._visits.values():
            attempt = host.visit.attempt
            if host.place.id != tenant or attempt is None:
                continue
            by_visit = host.place.settings.dialer.visit_uuid_on_resident_port and came == host.visit.id
            if (came == attempt or by_visit) and host.visit.expects(attempt) and not host.claimed(attempt):
                return host.resident_arrived(endpoint, attempt)
        return Refusal(f"no running dial of {tenant} expects the id {came}")

    @property
    def visits(self) -> int:
        """See :class:`Runner`."""
        return len(self._visits)

    def runs(self, visit: UUID) -> bool:
        """See :class:`Runner`."""
        return visit in self._visits

    def open_legs(self, tenant: str | None = None) -> int:
        """See :class:`Runner`."""
        return sum(
            host.open_legs for host in self._visits.values() if tenant is None or host.place.id == tenant
        )

    def hang_up(self, visit: UUID, leg: str | None, by: str) -> bool:
        """See :class:`Runner`."""
        host = self._visits.get(visit)
        return host is not None and host.hang_up(leg, by)

    def not_ready(self) -> list[str]:
        """See :class:`Runner`."""
        return []

    def visit(self, visit: UUID) -> VisitHost | None:
        """A running visit."""
        return self._visits.get(visit)

    async def over(self, visit: UUID, timeout_s: float) -> bool:
        """Wait until a visit has ended and let everything go; False where it has not in time."""
        task = self._tasks.get(visit)
        if task is None:
            return True
        done, _ = await asyncio.wait({task}, timeout=timeout_s)
        return bool(done)

    # ----------------------------------------------------------------------------------------------------
    # Stop
    # ----------------------------------------------------------------------------------------------------

    async def quiet(self) -> None:
        """See :class:`Runner`."""
        if tasks := set(self._tasks.values()):
            await asyncio.wait(tasks)

    async def end(self, reason: str) -> None:
        """See :class:`Runner`."""
        for host in tuple(self._visits.values()):
            await host.end(reason)
        if tasks := set(self._tasks.values()):
            _, late = await asyncio.wait(tasks, timeout=STOP_S)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=STOP_S)

    async def stop(self) -> None:
        """See :class:`Runner`."""
        if opening := tuple(self._coming.values()):
            for task in opening:
                task.cancel()
            await asyncio.wait(opening)
        await self._ahead.end()
        for place in self._places.values():
            await place.dialer.stop()
        self._places.clear()
        await self._brokers.stop()
        self._voice.close()
        self.clock.stop()
        self.intake.close()
        if self._recorder is not None:
            await self._recorder.stop()
            self._recorder = None


__all__ = ["STOP_S", "LocalRunner", "ResidentPort", "Runner", "silero_onnx"]
