"""The front's side: keeps the workers running, gives them their calls, and tidies up behind one that died."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal, Protocol
from uuid import UUID

import structlog

from bridge.calls import RegisteredCall
from bridge.endpoints.audio_stream import AudioStreamEndpoint
from bridge.endpoints.base import Endpoint, LegSink, Refusal
from bridge.model_server import ModelServerAddress
from bridge.runner import Places, Placing
from bridge.settings import Settings, SettingsError
from bridge.tenants import Problems, Version
from bridge.watch import Seen
from bridge.workers.channel import Channel, channel_pair
from bridge.workers.lending import Given, Lending
from bridge.workers.messages import (
    MAX_BYTES,
    Expect,
    Expects,
    Failed,
    Furnish,
    Furnished,
    HangUp,
    Install,
    Known,
    LegGone,
    MessageError,
    Numbered,
    Ping,
    Pong,
    Ready,
    Saw,
    Stop,
    Take,
    VisitOver,
    endpoint_kind,
    for_front,
)
from bridge.workers.order import ChangeOrder, WorkerOrder
from bridge.workers.routes import Routes, RoutesError
from bridge.workers.sightings import read_batch
from storage.base import Storage, StorageError
from visits.audit import stamp

PROCESS = "bridge.workers.process"
"""The module that a worker runs."""
START_S = 60.0
"""A worker loads everything that visits need, on a machine that may be busy."""
STOP_S = 30.0
"""How long a worker may take to end its visits and itself."""
RESTART_S = (0.5, 1.0, 2.0, 5.0)
"""Pauses before a worker is started again, the last for every further time."""
STEADY_S = 60.0
"""Having run for so long, it starts anew with the shortest pause."""
PING_S = 5.0
UNANSWERED = 4
"""So many pings without a word, and a worker is taken for dead: its callers have long heard nothing."""
MOST_WAITING = 64
"""Calls and other things that wait for a worker to read them, before it gets no further call."""
LAST_WORDS_S = 1.0
"""From a process's end to the end of what it said."""
FURNISH_S = 20.0
"""How long a worker may take to make a change of tenants ready."""
PIECE_BYTES = MAX_BYTES // 2
"""Of a change's order, in one packet."""
MOST_NUMBERED = 200
"""Versions in one packet."""
RECOVER_PAUSES_S = (0.0, 1.0, 5.0)
"""Before each attempt to close a dead worker's visits in the audit log."""

log = structlog.get_logger(__name__)


class Watches(Protocol):
    """Who is told what is seen in visits; :class:`bridge.live.Hub`."""

    def watch(self, seen: Seen, worker: int = 0) -> None:
        """Something happened."""

    def missed(self, tenant: str, count: int) -> None:
        """So many things were seen and could not be told."""


class WorkerError(RuntimeError):
    """A worker did not start; the text says why."""


@dataclass(slots=True)
class _Worker:
    """A running worker."""

    number: int
    process: asyncio.subprocess.Process
    ready: asyncio.Future[None]
    closed: asyncio.Future[None]
    """Done when its end of the channel is gone."""
    furnishing: dict[int, asyncio.Future[Problems]] = field(default_factory=dict)
    """Changes that it has not answered."""
    installed: set[int] = field(default_factory=set)
    """Those of them that are in force all the same: it was not ready when they were made."""
    unanswered: int = 0
    """Pings since it last said something."""

    def kill(self) -> None:
        """End it at once, where it has not ended by itself."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()


class WorkerPool:
    """Runs visits in other processes; see :class:`bridge.runner.Runner`."""

    def __init__(
        self,
        settings: Settings,
        lock: Callable[[], int],
        process: str = PROCESS,
        *,
        watches: Watches,
        on_over: Callable[[UUID], None] = lambda visit: None,
    ) -> None:
        """
        Args:
            lock: gives the file descriptor of the database's lock, which workers hold as well: where the
                front is killed, no other service may begin before the last of them is gone.
            process: the module that a worker runs.
            watches: told of what is seen in the workers' visits.
            on_over: told of each visit that is over.
        """
        self._settings = settings
        self._watches = watches
        self._on_over = on_over
        self._lock = lock
        self._module = process
        self.routes = Routes()
        """Who runs what."""
        self._workers: dict[int, _Worker] = {}
        self._channels: dict[int, Channel] = {}
        self._keepers: dict[int, asyncio.Task[None]] = {}
        self._restarting: set[int] = set()
        """Workers that died, and what they left is closed."""
        self._pinging: asyncio.Task[None] | None = None
        self._storage: Storage | None = None
        self._places: dict[str, Placing] = {}
        self._models: ModelServerAddress | None = None
        self._changing = asyncio.Lock()
        """Held while a change is made ready and decided on: no worker is started in between."""
        self._serial = 0
        self._ending = False
        self._no_visits = asyncio.Event()
        self._no_visits.set()

    # ----------------------------------------------------------------------------------------------------
    # Start
    # ----------------------------------------------------------------------------------------------------

    async def start(
        self, storage: Storage, places: Mapping[str, Placing], models: ModelServerAddress | None
    ) -> None:
        """See :class:`bridge.runner.Runner`.

        Raises:
            SettingsError: what the settings name can't be used.
            WorkerError: a worker did not start.
            OSError: no process could be made.
        """
        self._storage, self._places, self._models = storage, dict(places), models
        numbers = range(1, self._settings.service.worker_count + 1)
        started = await asyncio.gather(*map(self._begin, numbers), return_exceptions=True)
        for failure in started:
            if failure is not None:
                raise failure
        self._pinging = asyncio.create_task(self._ping(), name="pings of the workers")

    async def _begin(self, number: int) -> None:
        """Start a worker, and keep it running."""
        worker = await self._launch(number)
        self._keepers[number] = asyncio.create_task(self._kept(worker), name=f"keeper of worker {number}")

    async def _launch(self, number: int) -> _Worker:
        """Start a worker, and wait until it takes calls."""
        ours, theirs = channel_pair()
        try:
            control = theirs.fileno()
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", self._module),
                stdin=asyncio.subprocess.PIPE,
                pass_fds=(control, self._lock()),
                start_new_session=True,  # Ctrl-C is for the front, which tells the workers
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        loop = asyncio.get_running_loop()
        worker = _Worker(number, process, loop.create_future(), loop.create_future())
        async with self._changing:  # what changes after the order comes over the channel
            order = WorkerOrder.of(number, control, self._settings, self._places, self._models)
            self._channels[number] = Channel(
                ours,
                lambda packet, given: self._heard(worker, packet, given),
                lambda why: self._hung_up(worker, why),
            )
        self._workers[number] = worker
        try:
            await self._until_ready(worker, order)
        except BaseException:
            worker.kill()
            await self._bury(worker)
            raise
        log.info("worker.ready", number=number, pid=process.pid)
        return worker

    async def _until_ready(self, worker: _Worker, order: WorkerOrder) -> None:
        assert worker.process.stdin is not None
        worker.process.stdin.write(order.model_dump_json().encode())
        worker.process.stdin.write_eof()
        try:
            async with asyncio.timeout(START_S):
                await worker.ready
        except TimeoutError:
            raise WorkerError(f"worker {worker.number} was not ready after {START_S:g} s") from None

    async def _kept(self, worker: _Worker) -> None:
        """Start a worker again whenever it dies."""
        deaths = 0
        while True:
            began = asyncio.get_running_loop().time()
            status = await worker.process.wait()
            lost = await self._bury(worker)
            if self._ending:
                return
            log.error("worker.died", number=worker.number, status=status, visits=lost)
            deaths = 0 if asyncio.get_running_loop().time() - began >= STEADY_S else deaths + 1
            worker, deaths = await self._again(worker.number, deaths)

    async def _again(self, number: int, deaths: int) -> tuple[_Worker, int]:
        self._restarting.add(number)
        while True:
            await asyncio.sleep(RESTART_S[min(max(deaths, 1), len(RESTART_S)) - 1])
            try:
                worker = await self._launch(number)
            except (WorkerError, SettingsError, OSError) as error:
                deaths += 1
                log.error("worker.not_started", number=number, reason=str(error))
            else:
                self._restarting.discard(number)
                return worker, deaths

    async def _bury(self, worker: _Worker) -> list[str]:
        """A worker's process has ended, or is about to: close in the audit log what it left open."""
        await worker.process.wait()
        await asyncio.wait({worker.closed}, timeout=LAST_WORDS_S)
        self._workers.pop(worker.number, None)
        if channel := self._channels.pop(worker.number, None):
            channel.close()
        lost = self.routes.lost(worker.number)
        for visit in lost:
            self._on_over(visit)
        visits = [str(visit) for visit in lost]
        if visits:
            await self._recover(worker.number, visits)
        self._look_for_visits()
        return visits

    async def _recover(self, number: int, visits: list[str]) -> None:
        assert self._storage is not None
        why = f"worker {number} of the service ended while the visit was running"
        for pause in RECOVER_PAUSES_S:
            await asyncio.sleep(pause)
            try:
                closed = await self._storage.recover(stamp(datetime.now(UTC)), visits=visits, why=why)
            except StorageError as error:
                log.error("visits.not_recovered", number=number, visits=visits, reason=str(error))
            else:
                log.warning("visits.recovered", count=len(closed), visits=closed)
                return

    async def _ping(self) -> None:
        """Kill workers that hang: they are started again as if they had died by themselves."""
        while True:
            await asyncio.sleep(PING_S)
            for worker in tuple(self._workers.values()):
                if not worker.ready.done():
                    continue
                if worker.unanswered >= UNANSWERED:
                    log.error("worker.hangs", number=worker.number, seconds=worker.unanswered * PING_S)
                    worker.kill()
                worker.unanswered += 1
                with contextlib.suppress(ConnectionError):  # it is gone, and its keeper is on the way
                    self._channels[worker.number].send(Ping())

    # ----------------------------------------------------------------------------------------------------
    # What workers say
    # ----------------------------------------------------------------------------------------------------

    def _heard(self, worker: _Worker, packet: bytes, given: object) -> None:
        if given is not None:
            raise MessageError("found a connection from a worker; allowed is none")
        message, raw = for_front(packet)
        worker.unanswered = 0
        number = worker.number
        match message:
            case Ready():
                worker.ready.set_result(None)
                self._join(worker)
            case Furnished(serial=serial, problems=problems):
                self._furnished(worker, serial, problems)
            case Failed(problems=problems, of_settings=of_settings):
                text = f"worker {number}: {'; '.join(problems)}"
                worker.ready.set_exception(SettingsError(problems) if of_settings else WorkerError(text))
            case Expects(visit=visit, attempt=attempt):
                self.routes.expects(number, visit, attempt)
                self._channels[number].send(Known(attempt=attempt))
            case LegGone(number=leg):
                self.routes.leg_gone(number, leg)
            case VisitOver(number=leg):
                self._on_over(self.routes.visit_over(number, leg))
                self._look_for_visits()
            case Saw(dropped=dropped):
                for tenant, count in dropped.items():
                    self._watches.missed(tenant, count)
                for seen in read_batch(raw):
                    self._watches.watch(seen, number)
            case Pong():
                pass

    def _hung_up(self, worker: _Worker, why: str) -> None:
        """The channel is over: whatever the worker still is, it gets no call any more.

        Most likely its process has ended; one that has not is killed. Not at once: to kill a process that has
        just ended takes its status from asyncio, which waits for it.
        """
        self.routes.left(worker.number)
        if not worker.closed.done():
            worker.closed.set_result(None)
        for answer in worker.furnishing.values():
            if not answer.done():
                answer.set_result({})  # the next one begins with it
        if not worker.ready.done():
            worker.ready.set_exception(
                WorkerError(f"worker {worker.number} ended ({why}); its log above says more")
            )
        elif not self._ending:
            log.warning("worker.hung_up", number=worker.number, reason=why)
        asyncio.get_running_loop().call_later(LAST_WORDS_S, worker.kill)

    def _join(self, worker: _Worker) -> None:
        """Give a worker calls, once it has every change that it was told of."""
        if worker.ready.done() and not worker.furnishing and not worker.closed.done():
            self.routes.joined(worker.number)

    def _furnished(self, worker: _Worker, serial: int, problems: dict[str, list[str]]) -> None:
        answer = worker.furnishing.pop(serial, None)
        if answer is None:
            raise MessageError(f"found an answer to the change {serial}; allowed: one, to what was asked")
        if not answer.done():
            answer.set_result({name: tuple(lines) for name, lines in problems.items()})
        if problems and serial in worker.installed:
            log.error("worker.change_failed", number=worker.number, problems=problems)
            worker.kill()  # it started while the others took it; the next one begins with it
            return
        self._join(worker)

    def _look_for_visits(self) -> None:
        if not self.routes.visits:
            self._no_visits.set()

    # ----------------------------------------------------------------------------------------------------
    # Changes
    # ----------------------------------------------------------------------------------------------------

    async def furnish(self, places: Places, models: ModelServerAddress | None) -> PoolFurnished:
        """See :class:`bridge.runner.Runner`. Every worker that takes calls must have it ready."""
        order = await asyncio.to_thread(lambda: ChangeOrder.of(places, models).model_dump_json().encode())
        await self._changing.acquire()
        try:
            self._serial += 1
            serial = self._serial
            asked = {}
            for worker in tuple(self._workers.values()):
                answer = self._ask_to_furnish(worker, serial, order)
                if worker.ready.done():
                    asked[worker.number] = answer
                await asyncio.sleep(0)  # a large one is many packets
            return PoolFurnished(self, serial, places, models, await self._answers(asked))
        except BaseException:
            self.decided(serial, keep=False)
            raise

    def _ask_to_furnish(self, worker: _Worker, serial: int, order: bytes) -> asyncio.Future[Problems]:
        answer: asyncio.Future[Problems] = asyncio.get_running_loop().create_future()
        worker.furnishing[serial] = answer
        try:
            for begin in range(0, len(order), PIECE_BYTES):
                piece, last = order[begin : begin + PIECE_BYTES], begin + PIECE_BYTES >= len(order)
                self._channels[worker.number].send(Furnish(serial=serial, last=last), piece)
        except ConnectionError:  # it is gone; the next one begins with the change
            answer.set_result({})
        return answer

    @staticmethod
    async def _answers(asked: Mapping[int, asyncio.Future[Problems]]) -> Problems:
        if asked:
            await asyncio.wait(asked.values(), timeout=FURNISH_S)
        problems: Problems = {}
        for number, answer in asked.items():
            if not answer.done():
                return {"": (f"worker {number} did not have it ready in {FURNISH_S:g} s",)}
            problems |= answer.result()
        return problems

    def decided(self, serial: int, *, keep: bool) -> None:
        """Have a change in force in every worker, or let go; for :class:`PoolFurnished`."""
        for worker in tuple(self._workers.values()):
            if keep and serial in worker.furnishing:
                worker.installed.add(serial)
            with contextlib.suppress(ConnectionError):  # it is gone, and its keeper is on the way
                self._channels[worker.number].send(Install(serial=serial, keep=keep))
        self._changing.release()

    def install(self, places: Places, models: ModelServerAddress | None) -> None:
        """What workers begin with from now on; for :class:`PoolFurnished`."""
        self._models = models
        for name, placing in places.items():
            self._places.pop(name, None)
            if placing is not None:
                self._places[name] = placing

    def numbered(self, versions: Mapping[str, Version]) -> None:
        """See :class:`bridge.runner.Runner`."""
        for name, version in versions.items():
            if (placing := self._places.get(name)) is not None:
                self._places[name] = replace(placing, one=replace(placing.one, version=version))
        told = [(name, (each.number or 0, each.digest)) for name, each in versions.items()]
        for begin in range(0, len(told), MOST_NUMBERED):
            message = Numbered(versions=dict(told[begin : begin + MOST_NUMBERED]))
            for channel in tuple(self._channels.values()):
                with contextlib.suppress(ConnectionError):  # it is gone, and its keeper is on the way
                    channel.send(message)

    def visits_of(self, tenant: str | None) -> frozenset[UUID]:
        """See :class:`bridge.runner.Runner`."""
        return self.routes.visits_of(tenant)

    def expects(self, tenant: str, endpoint: Endpoint) -> bool:
        """See :class:`bridge.runner.Runner`."""
        return self.routes.owner(tenant, endpoint.call_id) is not None

    # ----------------------------------------------------------------------------------------------------
    # Calls
    # ----------------------------------------------------------------------------------------------------

    def expect(self, call: RegisteredCall, within_s: float) -> None:
        """See :class:`bridge.runner.Runner`: the worker that will be given the call opens its session."""
        worker = self.routes.coming(call.uuid)
        if worker is None or self._channels[worker].queued >= MOST_WAITING:
            return
        with contextlib.suppress(ConnectionError):  # it is gone, and its keeper is on the way
            self._channels[worker].send(Expect(call=call, within_s=within_s))
        asyncio.get_running_loop().call_later(within_s, self.routes.not_coming, call.uuid)

    def visitor(
        self, tenant: str, endpoint: Endpoint, call: RegisteredCall | None
    ) -> LegSink | Refusal | None:
        """See :class:`bridge.runner.Runner`: to the worker that expects it, or has the fewest calls."""
        worker = self.routes.for_visitor(endpoint.call_id)
        if worker is None:
            return Refusal("no worker is running")
        number = self.routes.visitor(worker, tenant, endpoint.call_id)
        self._no_visits.clear()
        refusal = self._give(worker, number, "visitor", tenant, endpoint, call)
        if refusal is not None:
            self._on_over(self.routes.visit_over(worker, number))
            self._look_for_visits()
        return refusal

    def resident(self, tenant: str, endpoint: Endpoint) -> LegSink | Refusal | None:
        """See :class:`bridge.runner.Runner`: to the worker whose visit may expect it, which then decides."""
        worker = self.routes.owner(tenant, endpoint.call_id)
        if worker is None:
            return Refusal(f"no running dial of {tenant} expects the id {endpoint.call_id}")
        try:
            number = self.routes.resident(worker, tenant)
        except RoutesError as error:  # it is just going, and its visits with it
            return Refusal(str(error))
        return self._give(worker, number, "resident", tenant, endpoint, None)

    def _give(
        self,
        worker: int,
        number: int,
        role: Literal["visitor", "resident"],
        tenant: str,
        endpoint: Endpoint,
        call: RegisteredCall | None,
    ) -> Refusal | None:
        """Give a worker the connection of a call."""
        assert isinstance(endpoint, Lending)
        channel = self._channels[worker]
        call_id = endpoint.call_id

        def send(given: Given) -> None:
            take = Take(
                number=number,
                role=role,
                tenant=tenant,
                endpoint=endpoint_kind(endpoint.kind),
                call_id=call_id,
                host=given.host,
                port=given.port,
                call=call,
                stream=endpoint.form if isinstance(endpoint, AudioStreamEndpoint) else None,
            )
            channel.send(take, given.raw, given.connection)

        try:
            if channel.queued >= MOST_WAITING:
                raise ConnectionError("it does not read")
            endpoint.give(send)
        except (OSError, MessageError) as error:
            self.routes.leg_gone(worker, number)
            return Refusal(f"worker {worker} can't be given the call: {error}")
        log.debug("call.given", number=worker, call_id=str(call_id), peer=endpoint.peer)
        return None

    @property
    def visits(self) -> int:
        """See :class:`bridge.runner.Runner`."""
        return self.routes.visits

    def runs(self, visit: UUID) -> bool:
        """See :class:`bridge.runner.Runner`."""
        return self.routes.runs(visit)

    def hang_up(self, visit: UUID, leg: str | None, by: str) -> bool:
        """See :class:`bridge.runner.Runner`."""
        worker = self.routes.runs_at(visit)
        if worker is None:
            return False
        with contextlib.suppress(ConnectionError):  # it is gone, and its visits end with it
            self._channels[worker].send(HangUp(visit=visit, leg=leg, by=by))
        return True

    def open_legs(self, tenant: str | None = None) -> int:
        """See :class:`bridge.runner.Runner`."""
        return self.routes.open_legs(tenant)

    def not_ready(self) -> list[str]:
        """See :class:`bridge.runner.Runner`."""
        return [] if self.routes.workers else ["workers_down"]

    @property
    def pids(self) -> Mapping[int, int]:
        """The processes of the workers that run, by their numbers."""
        return {number: worker.process.pid for number, worker in self._workers.items()}

    # ----------------------------------------------------------------------------------------------------
    # Stop
    # ----------------------------------------------------------------------------------------------------

    async def quiet(self) -> None:
        """See :class:`bridge.runner.Runner`."""
        await self._no_visits.wait()

    async def end(self, reason: str) -> None:
        """See :class:`bridge.runner.Runner`. The workers end with their visits."""
        self._ending = True
        if self._pinging is not None:
            self._pinging.cancel()
        for number in self._restarting:
            self._keepers[number].cancel()
        for worker in tuple(self._workers.values()):
            try:
                self._channels[worker.number].send(Stop(reason=reason))
            except ConnectionError:
                worker.kill()
        await self._until_kept(STOP_S)
        for worker in tuple(self._workers.values()):
            log.error("worker.stop_late", number=worker.number, seconds=STOP_S)
            worker.kill()
        await self._until_kept(STOP_S)

    async def _until_kept(self, timeout_s: float) -> None:
        """Wait until every worker is gone and what it left is closed."""
        if keepers := set(self._keepers.values()):
            await asyncio.wait(keepers, timeout=timeout_s)

    async def stop(self) -> None:
        """See :class:`bridge.runner.Runner`."""
        for keeper in self._keepers.values():
            keeper.cancel()
        if self._keepers:
            await asyncio.wait(set(self._keepers.values()))
        self._keepers.clear()


@dataclass(frozen=True, slots=True)
class PoolFurnished:
    """See :class:`bridge.runner.Furnished`."""

    pool: WorkerPool
    serial: int
    places: Places
    models: ModelServerAddress | None
    problems: Problems

    def commit(self) -> None:
        """See :class:`bridge.runner.Furnished`. A worker hears of it before it gets the next call."""
        self.pool.install(self.places, self.models)
        self.pool.decided(self.serial, keep=True)

    async def undo(self) -> None:
        """See :class:`bridge.runner.Furnished`."""
        self.pool.decided(self.serial, keep=False)
