"""Visits over FreeSWITCH's audio streams: two workers, settings that change. Whole ones are in tests/esl."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from websockets.exceptions import InvalidStatus

from bridge.service import Service
from bridge.softphone import load_wav
from tests.endpoints.test_audio_stream_service import DOMAIN, OTHER, freeswitch, refused, url
from tests.service.changing import Folder, running
from tests.service.doorman import Cast
from tests.service.household import HELLO, household, settings, until, with_cast
from tests.service.served import PART
from tests.service.test_calls_at_the_door import OnlyRings
from tests.service.test_workers import DOOR, attempts
from tests.simulators.audio_stream import Kind, Started, Stream, start


def said(kind: Kind) -> str:
    return json.dumps({"caller_id": "1001", "playback": kind})


async def quiet(stream: Stream, quiet_s: float = 0.3) -> None:
    """Wait until nothing has been heard for so long."""
    loop = asyncio.get_running_loop()
    heard, since = -1.0, loop.time()
    async with asyncio.timeout(20):
        while loop.time() - since < quiet_s:
            if (now := stream.heard_as_speech_ms()) != heard:
                heard, since = now, loop.time()
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("door", ["own", "tls", "http"])
async def test_streams_find_their_workers(tmp_path: Path, door: str) -> None:
    """Two visits, one on each worker; each of their residents comes over a stream too, with a ticket."""
    own: dict[str, Any] = {"http_port": 0} if door == "http" else {"audio_stream_port": 0}
    if door == "tls":
        own |= {"websocket_certificate": str(DOOR), "websocket_key": str(DOOR)}
    async with Cast(PART) as cast, AsyncExitStack() as stack:
        guarded = freeswitch(cast, channels=2, token_env="STREAM_TOKEN")
        tenants = {"jardim": guarded | {"dialer": {"kind": "manual"}}}
        service = Service(settings(tmp_path, tenants, {"STREAM_TOKEN": "abc"}, workers=2, **own))
        await service.start()
        stack.push_async_callback(service.stop)

        async def comes(call: UUID) -> Stream:
            port = service.http_port if door == "http" else service.audio_stream_port
            scheme = "wss" if door == "tls" else "ws"
            way = service.way(call, DOMAIN, "")
            assert way is not None
            address = f"{scheme}://127.0.0.1:{port}{way.path}?token={way.ticket}"
            made = Started(address, said("base64"), mix="stereo", buffer_ms=60, tls=trusting(door))
            stream = await start("base64", made)
            stack.push_async_callback(stream.end)
            return stream

        visits = [uuid4(), uuid4()]
        visitors = [await comes(each) for each in visits]
        for visitor in visitors:
            await until(lambda: visitor.heard_as_speech_ms() > 200, 15, "the greeting")  # noqa: B023
        await asyncio.sleep(0.4)
        for visitor in visitors:
            visitor.to_say = load_wav(HELLO)
        await until(lambda: len(attempts(service)) == 2, 20, "both dials")
        assert service.pool is not None
        assert {service.pool.routes.owner("jardim", each) for each in visits} == {1, 2}
        residents = [await comes(each) for each in reversed(attempts(service))]
        for resident in residents:
            await until(lambda: resident.heard_as_speech_ms() > 0, 15, "the briefing")  # noqa: B023
        await until(lambda: service.open_legs() == 4)
        residents[0].connection.transport.abort()  # one line is cut; the others hear nothing of it
        await until(lambda: service.open_legs() <= 3, 5, "the end of that leg alone")
        assert not any(stream.problems for stream in (*visitors, *residents))


def trusting(door: str) -> ssl.SSLContext | None:
    if door != "tls":
        return None
    context = ssl.create_default_context(cafile=str(DOOR))
    context.check_hostname = False
    return context


async def test_a_domain_comes_goes_and_moves_with_its_tenant(tmp_path: Path) -> None:
    folder = Folder(tmp_path, audio_stream_port=0)
    async with Cast() as cast, running(folder.file) as house:
        tenancy = house.service.tenancy

        async def answer(domain: UUID = DOMAIN) -> str:
            """Why a stream is not taken; empty where it is."""
            try:
                return (await refused(url(house, uuid4(), domain)))[1]
            except InvalidStatus as error:
                return str(error.response.status_code)

        def tenant(own: Mapping[str, Any] | None) -> None:
            table = {} if own is None else {"freeswitch": dict(own)}
            folder.tenant("jardim", **with_cast(cast, **table))

        nobodys = "found a domain_uuid that is no tenant's"
        assert await answer() == nobodys
        tenant({"domain_uuid": str(DOMAIN)})
        await until(lambda: "jardim" in tenancy.current, what="the tenant")
        visit = uuid4()
        visitor = await start("base64", Started(url(house, visit), said("base64")))
        await until(lambda: house.service.open_legs() == 1, what="the leg")
        before = tenancy.current["jardim"]
        tenant({"domain_uuid": str(OTHER), "enabled": False})
        await until(lambda: tenancy.current["jardim"] is not before, what="the change")
        assert "in this domain any more" in await answer(), "a resident may yet come there"
        assert await answer(OTHER) == "tenants.jardim.freeswitch.enabled is false"
        await visitor.end()
        assert await house.service.visit_over(visit)
        assert await answer() == nobodys
        before = tenancy.current["jardim"]
        tenant(None)
        await until(lambda: tenancy.current["jardim"] is not before, what="the change")
        assert await answer(OTHER) == nobodys


async def test_a_visitors_second_stream_is_never_the_resident(tmp_path: Path) -> None:
    """Modules connect again by themselves, and streams have one way in: there the visit's own id is the
    visitor's, whatever the site's click-to-call system does."""
    rings = OnlyRings()
    async with Cast(PART) as cast:
        dialer = {"kind": "simulated", "visit_uuid_on_resident_port": True}
        tenants = {"jardim": freeswitch(cast) | {"dialer": dialer}}
        async with household(tmp_path, tenants, audio_stream_port=0, dialers={"jardim": rings}) as house:
            visit = uuid4()
            visitor = await start("base64", Started(url(house, visit), said("base64")))
            await until(lambda: visitor.heard_as_speech_ms() > 200, 15, "the greeting")
            await asyncio.sleep(0.4)
            visitor.to_say = load_wav(HELLO)
            await until(lambda: rings.orders, 20, "the dial")
            code, reason = await refused(url(house, visit), metadata=said("base64"))
            assert code == 1008 and str(visit) in reason
            assert "consulting" not in house.states(visit)
            attempt = rings.orders[0].attempt
            phone = json.dumps({"direction": "outbound", "attempt": str(attempt), "playback": "base64"})
            resident = await start("base64", Started(url(house, attempt), phone))
            await until(lambda: "consulting" in house.states(visit), what="the resident")
            code, reason = await refused(url(house, attempt), metadata=phone)
            assert code == 1008 and "no running dial" in reason, "nor is the resident's a visitor"
            await resident.end()
            await visitor.end()
            assert await house.service.visit_over(visit)
            assert (await refused(url(house, attempt), metadata=phone))[0] == 1008, "too late"
            assert len(await house.service.storage.visits()) == 1
