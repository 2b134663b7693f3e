"""Calls over `/ws/audio/{number}`: whole visits, who may call, and what a client may send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from bridge.http.access import digest, new_key, whole_key
from tests.http.web_phone import WebPhone
from tests.service.doorman import AGREES, ASKS, Cast, Part
from tests.service.household import HELLO, Household, household, with_cast
from visits.audit import stamp

KEY = "a-key-of-21-characters"
RIGHT = {"Authorization": f"Bearer {KEY}"}
PART = Part(ASKS, AGREES)


@asynccontextmanager
async def site(data: Path, part: Part = PART, **service: Any) -> AsyncIterator[Household]:
    """A service with one tenant, whose number is 9000."""
    async with Cast(part) as cast:
        tenant = with_cast(cast, numbers=["9000"], recording={"enabled": True})
        options = {"http_port": 0, "http_key_env": "API_KEY", **service}
        async with household(data, {"jardim": tenant}, environ={"API_KEY": KEY}, **options) as house:
            yield house


def dial(house: Household, number: str = "9000", query: str = "", **options: Any) -> WebPhone:
    """A client that calls a number."""
    url = f"ws://127.0.0.1:{house.service.http_port}/ws/audio/{number}{query}"
    return WebPhone(url, options.pop("headers", RIGHT), **options)


async def visit_of(phone: WebPhone) -> UUID:
    """The visit that a client's call began."""
    async with asyncio.timeout(10):
        while not phone.of("ready"):
            await asyncio.sleep(0.01)
    return UUID(phone.of("ready")[0]["visit"])


@pytest.mark.parametrize("form", ["binary", "base64"])
async def test_a_whole_visit_over_a_websocket(form: str, tmp_path: Path) -> None:
    async with site(tmp_path) as house, dial(house, query=f"?audio={form}", base64=form == "base64") as phone:
        visit = await visit_of(phone)
        await house.greeted(visit)
        phone.say(HELLO)
        assert await phone.closed(40) == (1000, "the call is over")
        assert await house.service.visit_over(visit, 10)
        assert (await house.outcome(visit))[0::2] == ("authorized", True)
        (ended,) = phone.of("ended")
        assert ended["outcome"] == "authorized"
        assert {one["speaker"] for one in phone.of("transcript")} == {"agent", "caller"}
        assert phone.loud_s > 1.0
        assert (phone.texts_of_sound > 50) is (form == "base64")
        connected = house.of(visit, "leg.connected")[0].data
        assert (connected["endpoint"], connected["peer"].rpartition(":")[0]) == ("websocket", "127.0.0.1")
        started = house.of(visit, "visit.started")[0].data
        assert started["dialled"] == "9000" and "test" not in started


# ---- Who may call ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer another-key-of-21-char"},
        {"Authorization": "Basic " + KEY},
        {"Cookie": "porteiro_session=" + "x" * 43},
    ],
    ids=["nothing", "another key", "another scheme", "no session"],
)
async def test_who_may_not_call_is_told_so(headers: dict[str, str], tmp_path: Path) -> None:
    async with site(tmp_path) as house, dial(house, headers=headers) as phone:
        code, reason = await phone.closed()
        assert code == 4401 and "allowed" in reason
        assert not phone.events and not phone.heard
        assert house.service.open_legs() == 0


async def test_a_key_calls_where_its_tenant_and_its_scopes_let_it(tmp_path: Path) -> None:
    async with site(tmp_path) as house:
        at = stamp(datetime.now(UTC))

        async def key(tenant: str | None, scopes: tuple[str, ...] | None) -> dict[str, str]:
            id, secret = new_key()
            await house.service.catalogue.add_key(
                id,
                digest(secret),
                name="a program",
                role="reviewer",
                scopes=scopes,
                tenant=tenant,
                expires_at=None,
                by="tests",
                at=at,
            )
            return {"Authorization": f"Bearer {whole_key(id, secret)}"}

        for headers, code in [
            (await key("jardim", ("visits:read",)), 4401),
            (await key("elsewhere", None), 4004),
        ]:
            async with dial(house, headers=headers, talks=False) as phone:
                assert (await phone.closed())[0] == code
        async with dial(house, headers=await key("jardim", ("calls:write",))) as phone:
            await visit_of(phone)


async def test_an_unknown_number_is_told_so(tmp_path: Path) -> None:
    async with site(tmp_path) as house:
        for number in ("9001", "jardim", "%00", "9" * 300):
            async with dial(house, number) as phone:
                code, reason = await phone.closed()
                assert code == 4004 and "allowed: a tenant's number" in reason


async def test_an_unknown_form_is_told_so(tmp_path: Path) -> None:
    async with site(tmp_path) as house, dial(house, query="?audio=opus") as phone:
        assert await phone.closed() == (1008, "audio: found 'opus'; allowed: binary and base64")


async def test_a_full_service_says_so(tmp_path: Path) -> None:
    async with site(tmp_path, max_calls=1) as house, dial(house) as first:
        await house.greeted(await visit_of(first))
        async with dial(house) as second:
            assert await second.closed() == (1013, "1 calls are running; service.max_calls allows 1")
        assert house.service.open_legs() == 1


async def test_a_service_that_drains_says_so(tmp_path: Path) -> None:
    async with site(tmp_path) as house:
        await house.service.drain()
        async with dial(house) as phone:
            assert (await phone.closed())[0] == 1013


async def test_a_visit_without_a_provider_is_told_so(tmp_path: Path) -> None:
    tenant = {"numbers": ["9000"], "base_url": "http://127.0.0.1:9/v1"}
    options: dict[str, Any] = {"http_port": 0, "http_key_env": "API_KEY"}
    async with (
        household(tmp_path, {"jardim": tenant}, environ={"API_KEY": KEY}, **options) as house,
        dial(house) as phone,
    ):
        code, _ = await phone.closed(60)
        assert phone.of("ended")[0]["outcome"] == "failed" and code == 1011
        assert phone.loud_s > 0.5  # who was let down was told so


# ---- What a client may send ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (b"abc", "audio: found 3 bytes; allowed: an even number"),
        (b"\0" * 96002, "audio: found 96002 bytes; allowed are 96000"),
        ("hello", "allowed: JSON objects of the types audio, key, hangup and answer"),
        ('{"type":"dance"}', "allowed: JSON objects"),
        ('{"type":"audio","audio":"YWJj"}', "audio: found 3 bytes"),
        ('{"type":"audio","audio":"?"}', "allowed: JSON objects"),
        ('{"type":"audio","audio":"","rate":8000}', "allowed: JSON objects"),
        ('{"type":"key","key":"11"}', "key: found '11'; allowed: one of 0-9 A-D * #"),
        ("[" * 100_000, "allowed: JSON objects"),
    ],
)
async def test_what_nobody_can_read_ends_the_call_with_a_reason(
    message: str | bytes, said: str, tmp_path: Path
) -> None:
    async with site(tmp_path) as house, dial(house) as phone:
        visit = await visit_of(phone)
        await phone.socket.send(message)
        code, reason = await phone.closed()
        assert code == 1007 and reason
        assert said in phone.of("error")[0]["detail"] and len(phone.of("error")[0]["detail"]) < 400
        assert await house.service.visit_over(visit, 10)
        assert (await house.outcome(visit))[0] == "abandoned"


async def test_a_message_that_is_too_long_ends_the_call(tmp_path: Path) -> None:
    async with site(tmp_path) as house, dial(house) as phone:
        visit = await visit_of(phone)
        await phone.socket.send(bytes(500_000))
        assert (await phone.closed())[0] == 1009
        assert await house.service.visit_over(visit, 10)


async def test_a_flood_ends_the_call(tmp_path: Path) -> None:
    async with site(tmp_path) as house, dial(house, talks=False) as phone:
        visit = await visit_of(phone)
        for _ in range(5000):  # of a sample each: what counts is that each is a message
            await phone.socket.send(b"\0\0")
        code, reason = await phone.closed()
        assert code == 1008 and "real time" in reason
        assert await house.service.visit_over(visit, 10)


async def test_sound_that_comes_at_once_is_heard_in_its_time(tmp_path: Path) -> None:
    """Five seconds of it, which a client may send as one file; the next call is not disturbed."""
    async with site(tmp_path) as house, dial(house, talks=False) as phone:
        visit = await visit_of(phone)
        await house.greeted(visit)
        for _ in range(5):
            await phone.socket.send(bytes(48_000))
        await asyncio.sleep(1)
        leg = house.service.visit(visit)
        assert leg is not None
        received = leg.visitor.endpoint.bytes_received / 323 * 0.02
        assert 0.9 < received < 2.0, received
        await phone.send(type="hangup")
        assert await phone.closed() == (1000, "hung up")


async def test_who_reads_nothing_loses_the_call_and_nobody_else_notices(tmp_path: Path) -> None:
    async with site(tmp_path) as house, dial(house, talks=False) as phone:
        visit = await visit_of(phone)
        phone.socket.transport.pause_reading()
        assert await house.service.visit_over(visit, 60)
        ended = house.of(visit, "leg.ended")[0].data
        assert ended["reason"] in ("slow_reader", "hangup")
        phone.socket.transport.abort()


async def test_keys_and_a_client_that_is_gone(tmp_path: Path) -> None:
    async with site(tmp_path) as house:
        async with dial(house) as phone:
            visit = await visit_of(phone)
            await house.greeted(visit)
            await phone.send(type="key", key="5")
            phone.socket.transport.abort()
        assert await house.service.visit_over(visit, 10)
        assert (await house.outcome(visit))[0] == "abandoned"


async def test_a_call_is_given_to_a_worker(tmp_path: Path) -> None:
    from bridge.service import Service
    from tests.service.household import settings

    async with Cast(PART) as cast:
        tenant = with_cast(cast, numbers=["9000"], dialer={"kind": "manual"})
        options: dict[str, Any] = {"http_port": 0, "http_key_env": "API_KEY", "workers": 2}
        service = Service(settings(tmp_path, {"jardim": tenant}, {"API_KEY": KEY}, **options))
        await service.start()
        try:
            url = f"ws://127.0.0.1:{service.http_port}/ws/audio/9000"
            async with WebPhone(url, RIGHT) as phone:
                visit = await visit_of(phone)
                async with asyncio.timeout(20):
                    while phone.loud_s < 0.3 or not phone.of("transcript"):
                        await asyncio.sleep(0.05)
                assert service.open_legs("jardim") == 1
                await phone.send(type="hangup")
                assert await phone.closed() == (1000, "hung up")
            async with asyncio.timeout(20):
                while service.open_legs() or service.hub.visit(visit):
                    await asyncio.sleep(0.05)
            records = [each async for each in service.storage.audit(visit=str(visit))]
            (leg,) = [each.data for each in records if each.kind == "leg.connected"]
            assert leg["endpoint"] == "websocket" and leg["peer"].startswith("127.0.0.1:")
            assert records[-1].data["outcome"] == "abandoned"
        finally:
            await service.stop()
