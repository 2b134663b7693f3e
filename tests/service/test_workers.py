"""`porteiro serve --workers 2`: real processes, calls that find the right one, and what a death leaves."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
import numpy as np
import orjson
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from bridge.service import Service
from bridge.settings import SettingsError
from bridge.softphone import Softphone, load_wav
from bridge.workers import pool
from storage.sqlite import SqliteStorage
from tests.endpoints.test_asterisk_websocket_service import start
from tests.service.doorman import Cast, Part
from tests.service.household import HELLO, ROOT, settings, until, with_cast
from tests.service.served import (
    PART,
    Served,
    hears_the_briefing,
    read,
    serving,
    until_consulted,
)
from tests.webhooks.receiver import SECRET, Receiver

TWO = ("--workers", "2")
YES = ROOT / "data" / "audio" / "r03-leticia.wav"


def workers_of(served: Served, event: str = "leg.opened") -> dict[str, set[int]]:
    """The workers that logged an event, by visit."""
    found: dict[str, set[int]] = {}
    for line in served.lines(event):
        found.setdefault(line["visit"], set()).add(line["worker"])
    return found


def pid_of(served: Served, worker: int) -> int:
    """The process of a worker, the last that was ready."""
    pid: int = [line["pid"] for line in served.lines("worker.ready") if line["number"] == worker][-1]
    return pid


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def refused(served: Served, port: int, call: UUID) -> None:
    """A call that is hung up without a leg."""
    legs = len(served.lines("leg.opened"))
    async with Softphone("127.0.0.1", port, call) as phone:
        await asyncio.wait({phone.closed}, timeout=5)
        assert phone.closed.result().kind == "hangup"
    assert len(served.lines("leg.opened")) == legs


# ---- Every call finds its worker -----------------------------------------------------------------------


async def a_resident_reaches_the_worker_that_dialled(place: Path, cast: Cast) -> None:
    """And one process of all tells the house's own system of all visits."""
    one, other = uuid4(), uuid4()
    async with Receiver() as receiver:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HOOK", SECRET)
            table = f'webhooks = {{ url = "{receiver.url}", secret_env = "HOOK" }}'
            await _two_visits(place, cast, table, one, other)
        told = {
            visit: [got.id for got in receiver.got if got.visit == visit] for visit in (str(one), str(other))
        }
        assert told == {
            visit: [f"{visit}-{word}" for word in ("started", "decided", "ended")] for visit in told
        }
    for visit in (one, other):
        kinds, last = await read(place, visit)
        assert kinds.count("gate.answered") == 1
        assert last["outcome"] == "authorized"
        assert [kind for kind in kinds if kind == "leg.connected"] == ["leg.connected"] * 2


async def _two_visits(place: Path, cast: Cast, table: str, one: UUID, other: UUID) -> None:
    async with serving(place, cast, tenant=table, options=TWO) as served:
        port = (await served.line("tenant.open"))["resident_port"]
        async with await served.phone(one) as first, await served.phone(other) as second:
            residents = await asyncio.gather(until_consulted(served, first), until_consulted(served, second))
            assert {frozenset(each) for each in workers_of(served).values()} == {
                frozenset({1}),
                frozenset({2}),
            }
            for wrong in (uuid4(), one, other):  # no id of ours, and the visits' own, which nobody allowed
                await refused(served, port, wrong)
            served.process.send_signal(signal.SIGTERM)  # whom a visit has called is let in all the same
            await served.line("service.draining")
            for resident in reversed(residents):  # in another order than they were called in
                await resident.__aenter__()
            await until(lambda: len(served.lines("leg.opened")) == 4, what="the residents' legs")
            await refused(served, port, residents[0].call_id)  # an attempt has one leg
            await asyncio.gather(*(says_yes(resident) for resident in residents))
            await asyncio.wait({first.closed, second.closed}, timeout=20)
            for resident in residents:
                await resident.__aexit__(None, None, None)
        assert await served.ends(15) == 0
        assert all(len(workers) == 1 for workers in workers_of(served).values())
        assert [line["event"] for line in served.lines()][-1] == "service.stopped"


async def says_yes(resident: Softphone) -> None:
    await hears_the_briefing(resident)
    await resident.say(YES)


# ---- A worker dies -------------------------------------------------------------------------------------


async def a_dead_worker_takes_its_own_calls_alone(place: Path, cast: Cast) -> None:
    one, other = uuid4(), uuid4()
    async with serving(place, cast, options=TWO) as served:
        async with await served.phone(one) as first, await served.phone(other) as second:
            residents = await asyncio.gather(until_consulted(served, first), until_consulted(served, second))
            async with residents[0], residents[1]:
                await hears_the_briefing(residents[1])
                (doomed,) = workers_of(served)[str(one)]
                os.kill(pid_of(served, doomed), signal.SIGKILL)
                await asyncio.wait({first.closed, residents[0].closed}, timeout=5)
                assert not first.closed.result().orderly
                assert not second.closed.done()
                died = await served.line("worker.died")
                assert (died["number"], died["visits"]) == (doomed, [str(one)])
                await until(lambda: len(served.lines("worker.ready")) == 3, 60, "another worker")
                # The dead visit's ids are worth nothing, with its old worker and with the new one.
                port = (await served.line("tenant.open"))["resident_port"]
                for gone in (residents[0].call_id, one):
                    await refused(served, port, gone)
                third = uuid4()
                async with await served.phone(third) as newcomer:
                    await newcomer.wait_for_speech(timeout_s=15)
                    assert workers_of(served)[str(third)] == {doomed}, "it has the fewest calls"
                    newcomer.hang_up()
                await residents[1].say(YES)
                await asyncio.wait({second.closed}, timeout=20)
                assert second.closed.result().kind == "hangup"

        # What the other call was played: a frame each 20 ms, through all of this. What a machine that stood
        # still cost stands in the log.
        def closed() -> list[dict[str, Any]]:
            return [line for line in served.lines("audiosocket.closed") if line.get("visit") == str(other)]

        await until(lambda: len(closed()) == 2, what="the end of both its legs")
        for line in closed():
            assert line["frames_dropped"] == 0
            still = [each for each in served.lines("clock.stood_still") if each["worker"] == line["worker"]]
            assert line["frames_sent"] + sum(each["frames"] for each in still) >= line["seconds"] * 50 - 25
        served.process.send_signal(signal.SIGTERM)
        assert await served.ends(15) == 0
    kinds, last = await read(place, one)
    assert kinds[-2:] == ["visit.recovered", "visit.ended"]
    assert (last["outcome"], last["reason"]) == ("failed", "recovered")
    assert not {"decision", "gate.requested"} & set(kinds)
    kinds, last = await read(place, other)
    assert last["outcome"] == "authorized" and "visit.recovered" not in kinds
    _, last = await read(place, third)
    assert last["outcome"] == "abandoned"


async def a_dead_front_takes_its_workers_along(place: Path, cast: Cast) -> None:
    visit = uuid4()
    async with serving(place, cast, "first", options=TWO) as served:
        async with await served.phone(visit) as visitor:
            resident = await until_consulted(served, visitor)
            async with resident:
                await hears_the_briefing(resident)
                workers = [pid_of(served, number) for number in (1, 2)]
                served.process.kill()
                await until(lambda: not any(map(alive, workers)), 10, "the workers' end")
                await asyncio.wait({visitor.closed, resident.closed}, timeout=5)
                assert visitor.closed.done() and resident.closed.done()
        await served.ends(5)
    kinds, last = await read(place, visit)
    assert (last["outcome"], last["reason"]) == ("failed", "the service's front process is gone")
    assert not {"decision", "gate.requested"} & set(kinds)
    async with serving(place, cast, "second") as served:  # the lock went with the last worker
        assert served.lines("visits.recovered") == []
        served.process.send_signal(signal.SIGTERM)
        assert await served.ends(15) == 0


Story = Callable[[Path, Cast], Awaitable[None]]


@pytest.mark.parametrize(
    "story",
    [
        a_resident_reaches_the_worker_that_dialled,
        a_dead_worker_takes_its_own_calls_alone,
        a_dead_front_takes_its_workers_along,
    ],
)
async def test_several_processes_are_one_service(tmp_path: Path, story: Story) -> None:
    async with Cast(PART) as cast:
        await story(tmp_path, cast)


# ---- The front in this process -------------------------------------------------------------------------


@asynccontextmanager
async def front(place: Path, cast: Cast, **service: Any) -> AsyncIterator[Service]:
    """A running service with two workers."""
    own = with_cast(cast, dialer={"kind": "manual"})
    tenants = {"jardim": own, "bosque": {**own, "limits": {"max_calls": 1}}}
    running = Service(settings(place, tenants, {}, workers=2, **service))
    await running.start()
    try:
        yield running
    finally:
        await running.stop()


async def test_limits_and_registrations_hold_for_all_workers_together(tmp_path: Path) -> None:
    async with Cast(Part(exact_ms=20_000)) as cast, AsyncExitStack() as stack:
        service = await stack.enter_async_context(front(tmp_path, cast, max_calls=3, http_port=0))
        url = f"http://127.0.0.1:{service.http_port}"
        client = await stack.enter_async_context(httpx2.AsyncClient(base_url=url, timeout=10))

        async def comes(tenant: str, visit: UUID) -> Softphone:
            phone = Softphone("127.0.0.1", service.ports(tenant)[0], visit)
            return await stack.enter_async_context(phone)

        async def turned_away(tenant: str, visit: UUID) -> None:
            phone = await comes(tenant, visit)
            await asyncio.wait({phone.closed}, timeout=5)
            assert phone.closed.done()

        registered = uuid4()
        said = {"uuid": str(registered), "tenant": "jardim", "caller_id": "11 5555"}
        assert (await client.post("/v1/calls", data=said)).status_code == 201
        await until(lambda: len(cast.models) == 1, what="the session that a worker opened ahead")
        await turned_away("bosque", registered)  # it is another tenant's
        first = await comes("jardim", registered)
        await until(lambda: cast.model.creates, what="the greeting")
        assert len(cast.models) == 1, "the worker that opened it has the call"
        second = await comes("bosque", uuid4())
        await until(lambda: service.open_legs() == 2)
        assert (service.open_legs("jardim"), service.open_legs("bosque")) == (1, 1)
        assert (await client.post("/v1/calls", data=said)).status_code == 409, "that visit runs"
        await turned_away("jardim", registered)
        await turned_away("bosque", uuid4())  # one of its own is all that it may have
        third = await comes("jardim", uuid4())
        await until(lambda: service.open_legs() == 3)
        answer = await client.get("/ready")
        assert (answer.status_code, answer.json()["reasons"]) == (503, ["full"])
        await turned_away("jardim", uuid4())
        for phone in (first, second, third):
            assert not phone.closed.done()
            phone.hang_up()
        await until(lambda: service.open_legs() == 0)
        assert (await client.get("/ready")).status_code == 200
        assert len(await service.storage.visits()) == 3, "the others never were visits"
        started = await anext(service.storage.audit(visit=str(registered)))
        assert started.data["caller_id"] == "11 5555"


# ---- WebSocket -----------------------------------------------------------------------------------------

DOOR = ROOT / "tests" / "gates" / "door.pem"
"""A certificate and its key."""


class Channel:
    """Asterisk's side of a WebSocket channel: it sends what it has at its pace, and keeps what it hears."""

    def __init__(self, connection: ClientConnection) -> None:
        self.heard = bytearray()
        self.commands: list[str] = []
        self.to_say = b""
        self.connection = connection
        self.ended = asyncio.gather(self._read(), self._run())

    async def _read(self) -> None:
        with suppress(ConnectionClosed):
            async for message in self.connection:
                if isinstance(message, bytes):
                    self.heard += message
                    continue
                command = orjson.loads(message)
                self.commands.append(command["command"])
                if command["command"] == "MARK_MEDIA":
                    event = {"event": "MEDIA_MARK_PROCESSED", "correlation_id": command["correlation_id"]}
                    await self.connection.send(orjson.dumps(event).decode())

    async def _run(self) -> None:
        with suppress(ConnectionClosed):
            while True:
                frame, self.to_say = self.to_say[:320].ljust(320, b"\0"), self.to_say[320:]
                await self.connection.send(frame)
                await asyncio.sleep(0.02)

    @property
    def speech(self) -> int:
        """Bytes heard that are no silence."""
        return int(np.count_nonzero(np.frombuffer(bytes(self.heard[: len(self.heard) // 2 * 2]), "<i2"))) * 2


@asynccontextmanager
async def channel(service: Service, role: str, call: UUID, first: bytes = b"") -> AsyncIterator[Channel]:
    """A channel that names its call, and says something in the same breath."""
    tls = None
    if service.settings.service.websocket_certificate is not None:
        tls = ssl.create_default_context(cafile=str(DOOR))
        tls.check_hostname = False
    url = f"{'ws' if tls is None else 'wss'}://127.0.0.1:{service.websocket_port}/asterisk/jardim/{role}"
    async with connect(url, compression=None, ssl=tls) as connection:
        for each in (first, start(call)) if first else (start(call),):
            await connection.send(each)
        yield Channel(connection)


def attempts(service: Service) -> dict[UUID, int]:
    """The dial attempts that the front knows of, and their visits' numbers."""
    assert service.pool is not None
    return dict(service.pool.routes.attempts)


@pytest.mark.parametrize("tls", [False, True])
async def test_websocket_channels_find_their_workers(tmp_path: Path, tls: bool) -> None:
    """Two visits, one on each worker; each of their residents comes over a WebSocket too."""
    own = {"websocket_certificate": str(DOOR), "websocket_key": str(DOOR)} if tls else {}
    async with Cast(PART) as cast, front(tmp_path, cast, websocket_port=0, **own) as service:
        visits = [uuid4(), uuid4()]
        async with AsyncExitStack() as stack:
            # Audio that came before the channel said which call it is goes along to the worker.
            early = b"\x01\0" * 160
            visitors = [
                await stack.enter_async_context(channel(service, "visitor", each, early)) for each in visits
            ]
            for visitor in visitors:
                await until(lambda: visitor.speech > 3000, 15, "the greeting")  # noqa: B023
            await asyncio.sleep(0.4)
            for visitor in visitors:
                visitor.to_say = load_wav(HELLO)
            await until(lambda: len(attempts(service)) == 2, 20, "both dials")
            assert {service.pool.routes.owner("jardim", each) for each in visits} == {1, 2}  # type: ignore[union-attr]
            async with channel(service, "resident", uuid4()) as nobody:
                await asyncio.wait({nobody.ended}, timeout=5)
                assert nobody.connection.close_code == 1008
            residents = [
                await stack.enter_async_context(channel(service, "resident", each))
                for each in reversed(attempts(service))
            ]
            for resident in residents:
                await until(lambda: resident.speech > 0, 15, "the briefing")  # noqa: B023
                assert resident.commands == ["ANSWER"] or "ANSWER" in resident.commands
            await until(lambda: service.open_legs() == 4)
            assert {len(await legs(service, each)) for each in visits} == {2}
            residents[0].connection.transport.abort()  # one line is cut; the others hear nothing of it
            await until(lambda: service.open_legs() <= 3, 5, "the end of that leg alone")
            heard = len(residents[1].heard)
            await until(lambda: len(residents[1].heard) > heard + 16_000, 5, "a second more")
        await until(lambda: service.open_legs() == 0, 10, "the end")
        assert await service.storage.verify() == []


async def legs(service: Service, visit: UUID) -> list[str]:
    """The legs of a visit that are on record, once there are two."""
    for _ in range(500):
        view = await service.storage.visit(str(visit))
        if view is not None and len(view.legs) == 2:
            return [f"{leg.role} {leg.endpoint} {leg.peer}" for leg in view.legs]
        await asyncio.sleep(0.01)
    raise AssertionError("the second leg is not on record")


# ---- Workers that do not start, or hang ----------------------------------------------------------------


async def test_a_worker_that_hangs_is_ended_and_another_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "PING_S", 0.8)
    async with Cast(Part(exact_ms=20_000)) as cast, front(tmp_path, cast) as service:
        assert service.pool is not None
        before = dict(service.pool.pids)
        visit = uuid4()
        async with Softphone("127.0.0.1", service.ports("jardim")[0], visit) as phone:
            await phone.wait_for_speech(timeout_s=15)
            hung = service.pool.routes.owner("jardim", visit)
            assert hung is not None
            os.kill(before[hung], signal.SIGSTOP)
            await until(lambda: phone.closed.done(), 10, "the end of its call")
        others = service.pool
        await until(lambda: others.pids.get(hung, before[hung]) != before[hung], 60, "another worker")
        await until(lambda: others.routes.workers == 2, 60, "its being ready")
        after = others.pids
        assert after[hung] != before[hung] and after[3 - hung] == before[3 - hung]
        view = await service.storage.visit(str(visit))
        assert view is not None and view.summary.outcome == "failed"
        assert await service.storage.verify() == []


async def test_what_a_worker_cannot_use_is_said_as_the_service_says_it(tmp_path: Path) -> None:
    broken = {"gate": {"kind": "http", "url": "https://door/open", "ca_file": str(ROOT / "LICENSE")}}
    said = []
    for workers in (1, 2):
        async with Cast() as cast:
            service = Service(settings(tmp_path, {"jardim": with_cast(cast, **broken)}, {}, workers=workers))
            with pytest.raises(SettingsError) as error:
                await service.start()
            said.append(error.value.problems)
    assert said[0] == said[1] and "gate.ca_file" in said[0][0]


async def test_a_process_that_is_no_worker_is_an_error_at_the_start(tmp_path: Path) -> None:
    async with Cast() as cast:
        given = settings(tmp_path, {"jardim": with_cast(cast)}, {}, workers=2)
        service = Service(given, worker_process="json.tool")
        with pytest.raises(pool.WorkerError, match="worker 1 ended"):
            await service.start()
        with pytest.raises(ValueError, match="with one worker"):
            Service(given, watchers=(print,))
    async with await SqliteStorage.open(tmp_path / "porteiro.db", read_only=True) as storage:
        assert await storage.visits() == []
