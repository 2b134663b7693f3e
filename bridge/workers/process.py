"""A worker: a process that runs visits whose calls the front accepts. Started by :mod:`bridge.workers.pool`.

It ends when the front tells it to, and when the front is gone: then its visits end closed. Signals are the
front's to answer; a service manager may send them to all processes alike.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

import structlog
import uvloop

from bridge import collector
from bridge import log as logs
from bridge.dialing.base import Dialer, DialOrder, DialResult
from bridge.endpoints.asterisk_websocket import AsteriskWebsocketLimits
from bridge.endpoints.asterisk_websocket_server import AsteriskWebsocketServer
from bridge.endpoints.audio_stream import stream_limits
from bridge.endpoints.audio_stream_server import AudioStreamServer
from bridge.endpoints.audiosocket import AudioSocketLimits, AudioSocketServer
from bridge.endpoints.base import Endpoint, LegSink, Refusal
from bridge.runner import LocallyFurnished, LocalRunner
from bridge.settings import Settings, SettingsError
from bridge.tenants import Version
from bridge.watch import Watcher
from bridge.workers.adopting import Adopted, AdoptedAudioSocket, AdoptedStream, AdoptedWeb, AdoptedWebsocket
from bridge.workers.channel import Channel, end_of
from bridge.workers.lending import Given
from bridge.workers.messages import (
    Expect,
    Expects,
    Failed,
    Furnish,
    Furnished,
    HangUp,
    Install,
    Known,
    LegGone,
    Message,
    MessageError,
    Numbered,
    Ping,
    Pong,
    Ready,
    Saw,
    Stop,
    Take,
    VisitOver,
    for_worker,
)
from bridge.workers.order import ChangeOrder, WorkerOrder
from bridge.workers.sightings import Sightings
from storage.base import Storage, StorageError
from storage.opening import open_storage
from visits.events import DialOutcome

MOST_LINES = 20
"""Problems of a change that the front is told."""
MOST_QUEUED = 32
"""Packets that wait for the front to read them, before what was seen waits as well, and is let go."""
KNOWN_S = 1.0
"""How long the front may take to note a dial attempt."""

log = structlog.get_logger(__name__)


class AnnouncedDialer:
    """A dialer that first tells the front with which id the resident's call will come back."""

    def __init__(self, dialer: Dialer, announce: Callable[[DialOrder], asyncio.Future[None]]) -> None:
        self._dialer = dialer
        self._announce = announce

    async def start(self) -> None:
        """See :class:`bridge.dialing.base.Dialer`."""
        await self._dialer.start()

    async def stop(self) -> None:
        """See :class:`bridge.dialing.base.Dialer`."""
        await self._dialer.stop()

    async def dial(self, order: DialOrder) -> DialResult:
        """See :class:`bridge.dialing.base.Dialer`."""
        try:
            async with asyncio.timeout(KNOWN_S):
                await self._announce(order)
        except (TimeoutError, ConnectionError):
            return DialResult(DialOutcome.FAILED, "the front process did not note the attempt in time")
        return await self._dialer.dial(order)


class Worker:
    """One worker, in its process."""

    def __init__(self, order: WorkerOrder, settings: Settings, watchers: Sequence[Watcher] = ()) -> None:
        """`settings`: those of `order`."""
        self._order = order
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._sightings = Sightings(self._loop.call_later, self._tell_what_was_seen)
        self.runner = LocalRunner(
            settings,
            watchers=(self._sightings.watch, *watchers),
            around_dialer=lambda dialer: AnnouncedDialer(dialer, self._announce),
            on_over=self._over,
        )
        self._storage: Storage | None = None
        self._audiosocket = AudioSocketServer(
            settings.service.listen,
            0,
            allowed=settings.service.peers,
            accept=self._accept,
            limits=AudioSocketLimits(handshake_s=settings.service.handshake_s),
            intake=self.runner.intake,
        )
        """Listens on nothing: it has the connections that the front gives."""
        self._websocket = AsteriskWebsocketServer(
            settings.service.listen,
            0,
            allowed=settings.service.peers,
            routes={},
            limits=AsteriskWebsocketLimits(handshake_s=settings.service.handshake_s),
            intake=self.runner.intake,
        )
        """Likewise."""
        self._streams = AudioStreamServer(
            settings.service.listen,
            0,
            allowed=settings.service.peers,
            limits=stream_limits(settings.service.handshake_s),
            intake=self.runner.intake,
        )
        """Likewise."""
        self._begun: dict[UUID, int] = {}
        """Running visits, and the numbers of the calls that they began with."""
        self._answered: set[int] = set()
        """Visitors' calls that became visits, and are not over."""
        self._announced: dict[UUID, asyncio.Future[None]] = {}
        self._adopting: set[asyncio.Task[None]] = set()
        self._stopping: asyncio.Future[str] = self._loop.create_future()
        self._started = asyncio.Event()
        """From here on changes can be made ready."""
        self._pieces: list[bytes] = []
        self._furnishing: dict[int, asyncio.Task[None]] = {}
        self._furnished: dict[int, LocallyFurnished] = {}
        self._decided: dict[int, bool] = {}
        """Changes that the front has decided on before they were ready here."""
        self._channel = Channel(end_of(order.control), self._heard, self._front_gone)

    async def run(self, started: Callable[[LocalRunner], None] = lambda runner: None) -> int:
        """Run visits until it is told to stop; the process's status.

        Args:
            started: told when calls can come.
        """
        try:
            await self._start()
            self._started.set()
            while self._furnishing:  # what changed since our order was given
                await asyncio.wait(set(self._furnishing.values()))
            self._tell(Ready())
            collector.settle()
            started(self.runner)
            await self.runner.end(await self._stopping)
        except SettingsError as error:
            self._tell(Failed(problems=list(error.problems), of_settings=True))
            return 1
        except (StorageError, OSError) as error:
            self._tell(Failed(problems=[str(error)], of_settings=False))
            return 1
        finally:
            await self._stop()
        return 0

    async def _start(self) -> None:
        self._storage = await open_storage(
            self._settings.database, service=self._settings.service.journal_path, front=False
        )
        await self.runner.start(self._storage, self._order.places(), self._order.tenants.models)

    async def _stop(self) -> None:
        for task in (*self._adopting, *self._furnishing.values()):
            task.cancel()
        await self._audiosocket.stop()
        await self._websocket.stop()
        await self._streams.stop()
        await self.runner.stop()
        if self._storage is not None:
            await self._storage.close()
        self._channel.close()

    # ---- What the front says ---------------------------------------------------------------------------

    def _heard(self, packet: bytes, connection: socket.socket | None) -> None:
        message, raw = for_worker(packet)
        if (connection is not None) is not isinstance(message, Take):
            raise MessageError("found a call or a connection alone; allowed: one with the other")
        match message:
            case Take():
                assert connection is not None
                self._take(message, Given(connection, raw, message.host, message.port))
            case Expect(call=call, within_s=within_s):
                self.runner.expect(call, within_s)
            case HangUp(visit=visit, leg=leg, by=by):
                self.runner.hang_up(visit, leg, by)
            case Furnish(serial=serial, last=last):
                self._pieces.append(raw)
                if last:
                    pieces, self._pieces = self._pieces, []
                    task = self._loop.create_task(self._furnish(serial, b"".join(pieces)), name="change")
                    self._furnishing[serial] = task
                    task.add_done_callback(lambda _: self._furnishing.pop(serial))
            case Install(serial=serial, keep=keep):
                self._decide(serial, keep=keep)
            case Numbered(versions=versions):
                self.runner.numbered({name: Version(*each) for name, each in versions.items()})
            case Known(attempt=attempt):
                known = self._announced.get(attempt)
                if known is not None and not known.done():
                    known.set_result(None)
            case Stop(reason=reason):
                self._stop_for(reason)
            case Ping():
                self._tell(Pong())

    async def _furnish(self, serial: int, order: bytes) -> None:
        """Make a change of tenants ready."""
        await self._started.wait()
        problems: Mapping[str, Sequence[str]] = {}
        try:
            change = await asyncio.to_thread(ChangeOrder.model_validate_json, order)
            service = self._settings.service
            places = await asyncio.to_thread(change.as_places, service, self._order.worker)
            furnished = await self.runner.furnish(places, change.models)
        except SettingsError as error:  # the front has the same settings, and took them
            problems = {"": error.problems}
        else:
            self._furnished[serial] = furnished
            problems = furnished.problems
        told = {name: list(lines)[:MOST_LINES] for name, lines in list(problems.items())[:MOST_LINES]}
        self._tell(Furnished(serial=serial, problems=told))
        if serial in self._decided:
            self._decide(serial, keep=self._decided.pop(serial))

    def _decide(self, serial: int, *, keep: bool) -> None:
        """The front has decided: a change is in force from now on, or is not to be."""
        furnished = self._furnished.pop(serial, None)
        if furnished is None and serial in self._furnishing:
            self._decided[serial] = keep
        elif furnished is not None and keep:
            furnished.commit()
        elif furnished is not None:
            task = self._loop.create_task(furnished.undo(), name="undo of a change")
            self._adopting.add(task)
            task.add_done_callback(self._adopting.discard)

    def _front_gone(self, why: str) -> None:
        log.error("worker.front_gone", reason=why)
        self._stop_for("the service's front process is gone")

    def _stop_for(self, reason: str) -> None:
        if not self._stopping.done():
            self._stopping.set_result(reason)

    def _tell(self, message: Message) -> None:
        """Tell the front, as long as there is one."""
        if not self._channel.closed:
            self._channel.send(message)

    def _tell_what_was_seen(self) -> None:
        """Nothing waits for it: where the front does not read it comes later, and less of it."""
        if self._channel.closed:
            return
        if self._channel.queued > MOST_QUEUED:
            self._sightings.soon()
            return
        for dropped, batch in self._sightings.batches():
            self._channel.send(Saw(dropped=dropped), batch)

    # ---- Calls -----------------------------------------------------------------------------------------

    def _take(self, take: Take, given: Given) -> None:
        task = self._loop.create_task(self._adopt(take, given), name=f"call {take.number}")
        self._adopting.add(task)
        task.add_done_callback(self._adopting.discard)

    async def _adopt(self, take: Take, given: Given) -> None:
        given.connection.setblocking(False)
        try:
            _, endpoint = await self._loop.connect_accepted_socket(
                lambda: self._endpoint(take, given), given.connection
            )
        except OSError as error:
            log.warning("call.not_adopted", call_id=str(take.call_id), error=error.strerror)
            given.connection.close()
            self._gone(take)
        else:
            endpoint.begin()

    def _endpoint(self, take: Take, given: Given) -> Adopted:
        if take.endpoint == "audiosocket":
            return AdoptedAudioSocket(self._audiosocket, take, given, lambda: self._gone(take))
        if take.endpoint in ("websocket", "browser", "simulated"):
            return AdoptedWeb(self._audiosocket, take, given, lambda: self._gone(take))
        if take.endpoint == "audio_stream":
            return AdoptedStream(self._streams, self._accept, take, given, lambda: self._gone(take))
        return AdoptedWebsocket(self._websocket, self._accept, take, given, lambda: self._gone(take))

    def _accept(self, endpoint: Endpoint) -> LegSink | Refusal | None:
        """The front has let the call in; whether a visit expects it is known here alone."""
        assert isinstance(endpoint, Adopted)
        take = endpoint.take
        if endpoint.call_id != take.call_id:
            return Refusal(f"found the call {endpoint.call_id}, and the front said {take.call_id}")
        if take.role == "resident":
            return self.runner.resident(take.tenant, endpoint)
        answer = self.runner.visitor(take.tenant, endpoint, take.call)
        if not isinstance(answer, Refusal):
            self._begun[take.call_id] = take.number
            self._answered.add(take.number)
        return answer

    def _gone(self, take: Take) -> None:
        """A connection is gone. A visitor's that never became a visit takes the visit along."""
        self._tell(LegGone(number=take.number))
        if take.role == "visitor" and take.number not in self._answered:
            self._tell(VisitOver(number=take.number))
        self._answered.discard(take.number)

    def _over(self, visit: UUID) -> None:
        self._tell_what_was_seen()  # its end is known before it is over
        self._tell(VisitOver(number=self._begun.pop(visit)))

    def _announce(self, order: DialOrder) -> asyncio.Future[None]:
        """Done when the front knows of the attempt."""
        known: asyncio.Future[None] = self._loop.create_future()
        self._announced[order.attempt] = known
        known.add_done_callback(lambda _: self._announced.pop(order.attempt, None))
        self._channel.send(Expects(visit=order.visit, attempt=order.attempt))
        return known


async def serve(
    order: WorkerOrder,
    settings: Settings,
    *,
    watchers: Sequence[Watcher] = (),
    started: Callable[[LocalRunner], None] = lambda runner: None,
) -> int:
    """Run a worker to its end; see :meth:`Worker.run`."""
    return await Worker(order, settings, watchers).run(started)


def main(
    *, watchers: Sequence[Watcher] = (), started: Callable[[LocalRunner], None] = lambda runner: None
) -> int:
    """Run a worker by the order on standard input.

    Args:
        watchers: told of everything that happens in its visits.
        started: told when calls can come. For programs that measure workers: they run a module of their own.
    """
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)
    order = WorkerOrder.model_validate_json(sys.stdin.buffer.read())
    settings = order.settings()
    written = settings.service.log
    with logs.configure(written.format, written.level, worker=order.worker):
        return uvloop.run(serve(order, settings, watchers=watchers, started=started))


if __name__ == "__main__":
    sys.exit(main())
