"""`/v1/calls` and `/v1/events` of a real service: who sees what runs, who hangs up, and what streams do."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

import httpx2
import pytest

from bridge.http import events
from bridge.http.access import now
from bridge.http.calls import Registration
from bridge.live import QUEUED_EVENTS
from bridge.watch import Seen
from tests.http.streams import follow, key_for
from tests.service.doorman import AGREES, ASKS, Cast, Part
from tests.service.household import Household, household, listens, until, with_cast

PART = Part(ASKS, AGREES)


@asynccontextmanager
async def api(data: Path) -> AsyncIterator[tuple[Household, httpx2.AsyncClient]]:
    """A service with two tenants, and whoever asks it."""
    async with Cast(PART) as cast:
        tenants = {"jardim": with_cast(cast, numbers=["9000"]), "bosque": with_cast(cast)}
        environ = {"API_KEY": "a-key-of-21-characters"}  # so that nobody is let in for being on this machine
        async with household(data, tenants, environ=environ, http_key_env="API_KEY", http_port=0) as house:
            url = f"http://127.0.0.1:{house.service.http_port}"
            limits = httpx2.Limits(max_connections=200)
            async with httpx2.AsyncClient(base_url=url, timeout=20, limits=limits) as client:
                yield house, client


@asynccontextmanager
async def consulted(house: Household, tenant: str = "jardim") -> AsyncIterator[UUID]:
    """A visit whose resident hears us out and says nothing."""
    visit = uuid4()
    house.residents[visit] = listens
    running = asyncio.create_task(house.visit(tenant, visit=visit))
    try:
        await until(lambda: "briefing.played" in [one.kind for one in house.of(visit)], 20, "the briefing")
        yield visit
    finally:
        host = house.service.visit(visit)
        if host is not None:
            host.hang_up(None, "test:end")
        await running


async def test_what_runs_and_hanging_it_up(tmp_path: Path) -> None:
    async with api(tmp_path) as (house, client), consulted(house) as visit:
        service = house.service
        viewer, reviewer = (
            await key_for(service, "viewer", "jardim"),
            await key_for(service, "reviewer", "jardim"),
        )
        stranger, pbx = await key_for(service, "admin", "bosque"), await key_for(service, "pbx")
        narrow = await key_for(service, "admin", None, ("visits:read",))

        page = (await client.get("/v1/calls", headers=viewer)).json()
        assert page["next"] is None
        (shown,) = page["items"]
        assert (shown["id"], shown["tenant"], shown["state"]) == (str(visit), "jardim", "consulting")
        assert [(leg["name"], leg["role"], leg["ended"]) for leg in shown["legs"]] == [
            ("visitor", "visitor", ""),
            ("resident-1", "resident", ""),
        ]
        assert any(turn["speaker"] == "caller" for turn in shown["turns"])
        assert shown["tool_calls"][0]["name"] == "call_resident"
        one = await client.get(f"/v1/calls/{visit}", headers=viewer)
        assert one.json()["id"] == str(visit)

        # Nobody else's.
        for headers in (stranger, await key_for(service, "viewer", "bosque")):
            assert (await client.get("/v1/calls", headers=headers)).json()["items"] == []
            assert (await client.get("/v1/calls?tenant=jardim", headers=headers)).status_code == 404
            assert (await client.get(f"/v1/calls/{visit}", headers=headers)).status_code == 404
        assert (await client.delete(f"/v1/calls/{visit}", headers=stranger)).status_code == 404
        for headers in (pbx, narrow, viewer):
            assert (await client.delete(f"/v1/calls/{visit}", headers=headers)).status_code == 403
            leg = await client.delete(f"/v1/calls/{visit}/legs/visitor", headers=headers)
            assert leg.status_code == 403
        for headers in (pbx, narrow):
            assert (await client.get("/v1/calls", headers=headers)).status_code == 403
            assert (await client.get("/v1/events", headers=headers)).status_code == 403
        for path in ("/v1/calls", f"/v1/calls/{visit}", "/v1/events"):
            assert (await client.get(path)).status_code == 401
        assert (await client.delete(f"/v1/calls/{visit}")).status_code == 401
        assert "visit.hung_up" not in await house.kinds(visit)

        # What is not there.
        for path in (f"/v1/calls/{uuid4()}", f"/v1/calls/{visit}/legs/resident-2"):
            assert (await client.delete(path, headers=reviewer)).status_code == 404
        for path in ("/v1/calls/nonsense", f"/v1/calls/{visit}/legs/all"):
            assert (await client.delete(path, headers=reviewer)).status_code == 422

        gone = await client.delete(f"/v1/calls/{visit}/legs/resident-1", headers=reviewer)
        assert (gone.status_code, gone.content) == (204, b"")
        await until(lambda: service.hub.visit(visit) is None, 15, what="its end")
        (record,) = [each for each in await house.records(visit) if each.kind == "visit.hung_up"]
        key = reviewer["Authorization"].split("_")[1]
        assert record.data == {"by": f"key:{key}", "leg": "resident-1"}
        assert (await house.outcome(visit))[:2] == ("unreachable", "hung_up_by_person")
        assert (await client.delete(f"/v1/calls/{visit}", headers=reviewer)).status_code == 404


async def test_pages_of_what_runs(tmp_path: Path) -> None:
    async with api(tmp_path) as (house, client):
        admin = await key_for(house.service, "viewer")
        async with AsyncExitStack() as phones:
            for tenant in ("jardim", "bosque", "jardim"):
                await phones.enter_async_context(house.phone(tenant, uuid4()))
            await until(lambda: len(house.service.hub.running()) == 3, what="the visits")
            found: list[str] = []
            after = ""
            while True:
                page = (await client.get(f"/v1/calls?limit=1{after}", headers=admin)).json()
                found += [each["id"] for each in page["items"]]
                if page["next"] is None:
                    break
                after = f"&after={page['next']}"
            assert found == [one.id for one in house.service.hub.running()]
            mine = (await client.get("/v1/calls?tenant=bosque", headers=admin)).json()["items"]
            assert [each["tenant"] for each in mine] == ["bosque"]


async def test_a_stream_tells_a_visit_as_it_happens_and_nothing_of_others(tmp_path: Path) -> None:
    async with api(tmp_path) as (house, client):
        service = house.service
        mine, theirs = await key_for(service, "viewer", "jardim"), await key_for(service, "viewer", "bosque")
        async with follow(client, mine) as stream, follow(client, theirs, "?kinds=visit.started") as other:
            async with consulted(house) as visit:
                started = await stream.until("visit.started")
                assert (started.data["tenant"], started.data["visit"]) == ("jardim", str(visit))
                assert started.id and started.data["at"].endswith("+00:00")
                greeting = [await stream.next()]
                while greeting[-1] is not None and greeting[-1].kind != "turn":
                    greeting.append(await stream.next())
                told = {one.kind: one for one in greeting if one is not None}
                assert {"leg.connected", "speaking", "partial", "turn"} <= set(told)
                assert told["speaking"].data["data"]["who"] == "agent"
                assert (told["speaking"].id, told["partial"].id) == ("", "")
                said = told["turn"].data["data"]
                assert said["speaker"] == "agent"
                assert said["text"].startswith(told["partial"].data["data"]["text"])
                await stream.until("dial.started")
            ended = await stream.until("visit.ended")
            assert ended.data["data"]["reason"] == "hung_up_by_person"
            assert (await stream.until("visit.over")).data["visit"] == str(visit)
            service.register_call(Registration(uuid=uuid4(), tenant="jardim", dialled="9000"))
            registered = await stream.until("call.registered")
            assert registered.data["data"]["dialled"] == "9000"

            async with house.phone("bosque", uuid4()) as phone:
                heard = await other.next()
                assert heard is not None and heard.data["tenant"] == "bosque", "the first thing it ever hears"
                phone.hang_up()

            # Who comes back with the last id gets what was missed.
            again = {**mine, "Last-Event-ID": ended.id}
            async with follow(client, again) as back:
                first, second = await back.next(), await back.next()
                assert first is not None and second is not None
                assert [first.kind, second.kind] == ["visit.over", "call.registered"]
            async with follow(client, {**mine, "Last-Event-ID": "0123456789ab-3"}, "?kinds=turn") as lost:
                gap = await lost.next()
                assert gap is not None and (gap.kind, gap.data["data"]) == ("lost", {"count": None})
        await until(lambda: service.hub.readers == 0, what="the readers' end")


async def test_a_stream_of_one_visit_or_of_kinds(tmp_path: Path) -> None:
    async with api(tmp_path) as (house, client):
        viewer = await key_for(house.service, "viewer")
        visit = uuid4()
        query = f"?visit={visit}&kinds=visit.started,visit.over&tenant=jardim"
        async with follow(client, viewer, query) as stream:
            for each in (uuid4(), visit):
                async with house.phone("jardim", each) as phone:
                    await until(partial(house.of, each, "visit.started"), what="the visit")
                    phone.hang_up()
            started, over = await stream.next(), await stream.next()
            assert started is not None and over is not None
            assert [started.kind, over.kind] == ["visit.started", "visit.over"]
            assert {started.data["visit"], over.data["visit"]} == {str(visit)}
        for query, status in (
            ("?kinds=nonsense", 422),
            ("?kinds=", 422),
            ("?visit=x", 422),
            ("?tenant=../x", 422),
        ):
            answer = await client.get(f"/v1/events{query}", headers=viewer)
            assert answer.status_code == status, query


async def test_a_stream_beats_and_says_that_it_was_closed_with_its_key_or_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.2)
    async with api(tmp_path) as (house, client):
        service = house.service
        key, other = await key_for(service, "viewer"), await key_for(service, "viewer")
        async with follow(client, key, "?kinds=turn") as stream, follow(client, other, "?kinds=turn") as last:
            for _ in range(3):
                await stream.beat(2)
            await service.catalogue.revoke_key(key["Authorization"].split("_")[1], by="test:x", at=now())
            closed = await stream.until("closed")
            assert closed.data == {"reason": "the key or session does not hold any more"}
            assert await stream.next() is None
            stopping = asyncio.create_task(service.stop())
            assert (await last.until("closed")).data == {"reason": "the service stops"}
            assert await last.next() is None
            await asyncio.wait_for(stopping, 15)


async def test_only_so_many_streams_of_one_caller(tmp_path: Path) -> None:
    async with api(tmp_path) as (house, client):
        one, other = await key_for(house.service, "viewer"), await key_for(house.service, "viewer")
        async with AsyncExitStack() as streams:
            for _ in range(events.MOST_STREAMS):
                await streams.enter_async_context(follow(client, one))
            await until(lambda: house.service.hub.readers == events.MOST_STREAMS)
            answer = await client.get("/v1/events", headers=one)
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "5")
            await streams.enter_async_context(follow(client, other))
        await until(lambda: house.service.hub.readers == 0)
        async with follow(client, one):
            pass


async def test_who_reads_too_slowly_is_told_what_they_lost_and_holds_nothing(tmp_path: Path) -> None:
    async with api(tmp_path) as (house, _):
        viewer = await key_for(house.service, "viewer")
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", house.service.http_port))
        key = viewer["Authorization"]
        head = f"GET /v1/events?kinds=note HTTP/1.1\r\nHost: x\r\nAuthorization: {key}\r\n\r\n"
        slow.sendall(head.encode())
        await until(lambda: house.service.hub.readers == 1, what="the reader")
        (reader,) = house.service.hub._readers
        total = 20 * QUEUED_EVENTS
        for number in range(total):
            house.service.hub.watch(Seen("v", 0, "note", {"text": f"{number} " + "x" * 500}, "jardim"))
            if number % 100 == 0:
                await asyncio.sleep(0.15)
        assert len(reader._waiting) <= QUEUED_EVENTS
        slow.setblocking(False)
        loop = asyncio.get_running_loop()
        got = b""
        while b'"text":"%d ' % (total - 1) not in got:
            got += await asyncio.wait_for(loop.sock_recv(slow, 65536), 10)
        slow.close()
        lost = sum(int(part.split(b"}")[0]) for part in got.split(b'"data":{"count":')[1:])
        assert lost > 0 and got.count(b"event: note") + lost == total
        await until(lambda: house.service.hub.readers == 0, what="its end")
