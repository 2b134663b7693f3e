"""Runs visits: the seam behind the service's ports, and the runner whose visits run in this process."""

from __future__ import annotations

import asyncio
import importlib.util
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
from bridge.amqp import Brokers, Lease
from bridge.calls import RegisteredCall
from bridge.clock import Clock
from bridge.costs.budget import Purse
from bridge.costs.prices import Prices, PricesError, known_prices
from bridge.declared.calls import build_outside, registry_of
from bridge.dialing.base import Dialer
from bridge.dialing.build import Dialers
from bridge.endpoints.audio_stream import AudioStreamEndpoint
from bridge.endpoints.base import Endpoint, LegSink, Refusal
from bridge.endpoints.intake import Intake
from bridge.gates.build import build_gate
from bridge.hold_audio import hold_sound
from bridge.host import VisitHost
from bridge.house import Condominium, House
from bridge.log import bound
from bridge.model_server import ModelServerAddress
from bridge.recorder import Recorder
from bridge.rehearsal import rehearsed
from bridge.sentences import Sentences
from bridge.settings import Settings, SettingsError
from bridge.tenant_provider import providers_of
from bridge.tenants import Problems, TenantInForce, Version
from bridge.transfer import build_transfer
from bridge.watch import Seen, Watcher
from providers.announcer import Announcer, OwnVoice
from providers.breaker import Standing
from providers.failover import FailoverProvider, OneMoment
from storage.base import Storage

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


@dataclass(frozen=True, slots=True)
class Placing:
    """A tenant, and where its residents' calls come in."""

    one: TenantInForce
    residents: ResidentPort


Places = Mapping[str, Placing | None]
"""By tenant; None: it is gone."""


class Furnished(Protocol):
    """Tenants for whose visits everything is there, and which are not in force yet."""

    @property
    def problems(self) -> Problems:
        """Why some can't be, by tenant."""

    def commit(self) -> None:
        """The next visits are these tenants'. Those that run keep what they have."""

    async def undo(self) -> None:
        """Let go of what was made."""


class Runner(Protocol):
    """Runs the visits of all tenants. Who is let in, and how many, is decided before it is asked."""

    async def start(
        self, storage: Storage, places: Mapping[str, Placing], models: ModelServerAddress | None
    ) -> None:
        """Make all that visits need; no call comes before it is done.

        Args:
            places: by tenant.
            models: the embedded model server, where a tenant uses it.

        Raises:
            SettingsError: what the settings name can't be used.
        """

    async def furnish(self, places: Places, models: ModelServerAddress | None) -> Furnished:
        """Make ready what visits of other tenants, or of others versions of them, need."""

    def numbered(self, versions: Mapping[str, Version]) -> None:
        """Versions of tenants have got their numbers."""

    def visits_of(self, tenant: str | None) -> frozenset[UUID]:
        """The visits that run, of one tenant or of all."""

    def expects(self, tenant: str, endpoint: Endpoint) -> bool:
        """Whether a visit of a tenant may wait for this resident's call."""

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
            settings: the service's; the tenants come with :meth:`start` and :meth:`furnish`.
            watchers: told of everything that happens in visits.
            dialers: in place of those that the settings name, by tenant, whatever their version.
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
        self._make_dialers = Dialers()
        self._recorder: Recorder | None = None
        self._ahead = Ahead()
        self._coming: dict[UUID, asyncio.Task[None]] = {}
        """Calls of which it is being found out whether a session may be opened for them."""
        self._house: House | None = None
        self._prices: Prices
        self._voice = OwnVoice(settings.service.model_server.piper_voice)
        self._places: dict[str, Condominium] = {}
        self._leases: dict[Condominium, Lease] = {}
        """The brokers that each uses; of those too that are in force no more and whose visits run."""
        self._versions: dict[str, Version] = {}
        self._letting_go: set[asyncio.Task[None]] = set()
        self._visits: dict[UUID, VisitHost] = {}
        self._tasks: dict[UUID, asyncio.Task[None]] = {}

    # ----------------------------------------------------------------------------------------------------
    # Start, and change
    # ----------------------------------------------------------------------------------------------------

    async def start(
        self, storage: Storage, places: Mapping[str, Placing], models: ModelServerAddress | None
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
            Ears(VadModel(silero_onnx())),
            Announcer(self._voice),
            self._voice,
            self._ahead,
            self._watchers,
        )
        made = await self.furnish(places, models)
        if made.problems:
            await made.undo()
            raise SettingsError([line for lines in made.problems.values() for line in lines])
        made.commit()
        # After all that takes long (clients, certificates): from here on ticks come in time.
        self.clock.start(self._before_each_tick)

    def _before_each_tick(self) -> None:
        """Hear what all callers said since the last."""
        assert self._house is not None
        self.intake.run()
        self._house.ears.run()

    async def furnish(self, places: Places, models: ModelServerAddress | None) -> LocallyFurnished:
        """See :class:`Runner`."""
        made: dict[str, Condominium | None] = {}
        problems: Problems = {}
        for name, placing in places.items():
            if placing is None:
                made[name] = None
                continue
            lease = self._brokers.lease()
            try:
                place = await asyncio.to_thread(self._condominium, placing, models, lease)
            except SettingsError as error:
                await lease.end()
                problems[name] = tuple(error.problems)
            except Exception as error:  # a fault of ours, which is not to keep the others' settings waiting
                await lease.end()
                log.error("tenant.not_made", tenant=name, error=type(error).__name__, exc_info=error)
                problems[name] = (f"tenants.{name}: it can't be made ready; the service's log says why",)
            else:
                made[name] = place
                self._leases[place] = lease
                lease.start()
                await place.dialer.start()
                if place.switchboard is not None:
                    await place.switchboard.start()
        versions = {name: placing.one.version for name, placing in places.items() if placing is not None}
        return LocallyFurnished(self, made, versions, problems)

    def _condominium(
        self, placing: Placing, models: ModelServerAddress | None, brokers: Lease
    ) -> Condominium:
        """All that a tenant's visits need, made in a thread: certificates and sentences are read.

        Raises:
            SettingsError: what the settings name can't be used.
        """
        one, tenant = placing.one, placing.one.tenant
        sentences = Sentences.load(
            tenant.language,
            tenant.title,
            greeting=tenant.greeting,
            goodbyes=tenant.own_goodbyes,
            reception=tenant.kind == "reception",
        )
        apology = sentences.say("sorry_for_the_wait", None, {})
        one_moment = OneMoment(self._voice, sentences.say("one_moment", None, {}))
        switchboard = self._make_dialers.switchboard(tenant, one.secret)
        dialer = self._dialers.get(tenant.id) or self._make_dialers.build(
            tenant, one.secret, brokers, switchboard
        )
        return Condominium(
            tenant,
            one.directory,
            sentences,
            self._watched(tenant.id, providers_of(tenant, one.secret, models, apology, one_moment)),
            self._around_dialer(dialer),
            build_gate(tenant, one.secret, brokers, switchboard),
            placing.residents.hosts,
            placing.residents.port,
            self._prices.before(tenant.cost.prices),
            Purse.of(tenant),
            registry_of(tenant),
            build_outside(tenant, one.secret),
            hold_sound(tenant),
            build_transfer(tenant, one.secret, switchboard),
            switchboard,
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

    def install(self, made: Mapping[str, Condominium | None], versions: Mapping[str, Version]) -> None:
        """Have the next visits be these tenants'; for :class:`LocallyFurnished`."""
        for name, place in made.items():
            old = self._places.pop(name, None)
            if place is not None:
                self._places[name] = place
                self._versions[name] = versions[name]
            if old is not None:
                if isinstance(old.provider, FailoverProvider):  # nobody asks any more how that one stands
                    old.provider.watch(lambda standing: None)
                self._let_go_if_unused(old)

    def _let_go_if_unused(self, place: Condominium) -> None:
        """What a place holds open is closed with the last visit of one that is in force no more."""
        if self._places.get(place.id) is place or place not in self._leases:
            return
        if all(host.place is not place for host in self._visits.values()):
            task = asyncio.get_running_loop().create_task(self.let_go(place), name=f"end of {place.id}")
            self._letting_go.add(task)
            task.add_done_callback(self._letting_go.discard)

    async def let_go(self, place: Condominium) -> None:
        """Close what a place holds open. More than once is harmless."""
        lease = self._leases.pop(place, None)
        if lease is not None:
            if place.id not in self._dialers:
                await place.dialer.stop()
            if place.switchboard is not None:
                await place.switchboard.stop()
            await lease.end()

    def numbered(self, versions: Mapping[str, Version]) -> None:
        """See :class:`Runner`."""
        self._versions |= {name: version for name, version in versions.items() if name in self._places}

    # ----------------------------------------------------------------------------------------------------
    # Calls
    # ----------------------------------------------------------------------------------------------------

    def expect(self, call: RegisteredCall, within_s: float) -> None:
        """See :class:`Runner`."""
        place = self._places.get(call.tenant)
        if place is not None and place.provider.opens_ahead and call.uuid not in self._coming:
            task = asyncio.get_running_loop().create_task(
                self._open_ahead(place, call, within_s), name=f"opening for {call.uuid}"
            )
            self._coming[call.uuid] = task
            task.add_done_callback(lambda done: self._opened_ahead(call, done))

    def _opened_ahead(self, call: RegisteredCall, task: asyncio.Task[None]) -> None:
        self._coming.pop(call.uuid, None)
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error(
                "session.not_opened", call_id=str(call.uuid), exc_info=fault
            )  # it is when the call comes

    async def _open_ahead(self, place: Condominium, call: RegisteredCall, within_s: float) -> None:
        assert self._house is not None
        if await place.purse.why_closed(self._house.storage, datetime.now(UTC)):
            return
        config = place.visitor_session(channel=call.channel)
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
        if (place := self._places.get(tenant)) is None:
            return Refusal(f"there is no tenant {tenant} any more")
        if call is not None and call.tested_by:
            place = rehearsed(place, self._around_dialer)
        host = VisitHost(self._house, place, endpoint, call, self._versions[tenant])
        self._visits[endpoint.call_id] = host
        with bound(tenant=tenant, visit=host.id):
            task = asyncio.get_running_loop().create_task(host.run(), name=f"visit {endpoint.call_id}")
        self._tasks[endpoint.call_id] = task
        task.add_done_callback(lambda _: self._forget(endpoint.call_id))
        return host.visitor

    def _forget(self, visit: UUID) -> None:
        host = self._visits.pop(visit, None)
        self._tasks.pop(visit, None)
        self._on_over(visit)
        if host is not None:
            self._let_go_if_unused(host.place)

    def resident(self, tenant: str, endpoint: Endpoint) -> LegSink | Refusal | None:
        """See :class:`Runner`. Never refused for being one too many: it belongs to a running visit."""
        expected = self._dial(tenant, endpoint)
        if expected is None:
            return Refusal(f"no running dial of {tenant} expects the id {endpoint.call_id}")
        host, attempt = expected
        return host.resident_arrived(endpoint, attempt)

    def expects(self, tenant: str, endpoint: Endpoint) -> bool:
        """See :class:`Runner`."""
        return self._dial(tenant, endpoint) is not None

    def _dial(self, tenant: str, endpoint: Endpoint) -> tuple[VisitHost, UUID] | None:
        """The visit that waits for a resident's call with that id, and its dial attempt."""
        came = endpoint.call_id
        # Streams have one way in for visitors and residents, and modules connect again by themselves: with
        # the visit's own id it is the visitor.
        is_stream = isinstance(endpoint, AudioStreamEndpoint)
        for host in self._visits.values():
            attempt = host.visit.attempt
            if host.place.id != tenant or attempt is None:
                continue
            by_visit = host.place.settings.dialer.visit_uuid_on_resident_port and came == host.visit.id
            named = came == attempt or (by_visit and not is_stream)
            if named and host.visit.expects(attempt) and not host.claimed(attempt):
                return host, attempt
        return None

    def visits_of(self, tenant: str | None) -> frozenset[UUID]:
        """See :class:`Runner`."""
        return frozenset(
            visit for visit, host in self._visits.items() if tenant is None or host.place.id == tenant
        )

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
        if self._letting_go:
            await asyncio.wait(self._letting_go)
        for place in tuple(self._leases):
            await self.let_go(place)
        self._places.clear()
        for dialer in self._dialers.values():
            await dialer.stop()
        await self._brokers.stop()
        self._voice.close()
        self.clock.stop()
        self.intake.close()
        if self._recorder is not None:
            await self._recorder.stop()
            self._recorder = None


@dataclass(frozen=True, slots=True)
class LocallyFurnished:
    """See :class:`Furnished`."""

    runner: LocalRunner
    made: Mapping[str, Condominium | None]
    versions: Mapping[str, Version]
    problems: Problems

    def commit(self) -> None:
        """See :class:`Furnished`."""
        self.runner.install(self.made, self.versions)

    async def undo(self) -> None:
        """See :class:`Furnished`."""
        for place in self.made.values():
            if place is not None:
                await self.runner.let_go(place)


__all__ = ["STOP_S", "Furnished", "LocalRunner", "Places", "Placing", "ResidentPort", "Runner", "silero_onnx"]
