"""The HTTP API of a real service, asked over real sockets: who may, what is answered, what comes of it."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from structlog.testing import capture_logs

from bridge.calls import NotTakingCallsError
from bridge.http import server
from bridge.http.calls import Registration
from bridge.service import Service
from tests.service.doorman import AGREES, ASKS, Cast, Part
from tests.service.household import Household, household, listens, settings, until, with_cast
from tests.service.test_calls_at_the_door import is_refused, refusals

KEY = "a key of 21 characters"
PART = Part(ASKS, AGREES)
CHANNEL = "PJSIP/intercom-00000001"


@asynccontextmanager
async def api(
    data: Path, tenants: dict[str, dict[str, Any]] | None = None, **service: Any
) -> AsyncIterator[tuple[Household, httpx2.AsyncClient]]:
    """A service and whoever asks it, with the key where there is one."""
    environ = {"API_KEY": KEY.replace(" ", "-")}
    headers = {"Authorization": f"Bearer {environ['API_KEY']}"} if "http_key_env" in service else {}
    async with Cast(PART) as cast:
        each = {name: with_cast(cast, **own) for name, own in (tenants or {"jardim": {}}).items()}
        async with household(data, each, environ=environ, http_port=0, **service) as house:
            url = f"http://127.0.0.1:{house.service.http_port}"
            async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=10) as client:
                yield house, client


async def register(client: httpx2.AsyncClient, uuid: UUID, **said: str) -> httpx2.Response:
    """Register a call as the dialplan does, by a form."""
    return await client.post("/v1/calls", data={"uuid": str(uuid), **said})


async def comes(house: Household, tenant: str, visit: UUID) -> dict[str, Any]:
    """A call comes and is taken; what the record of its visit's start holds."""
    async with house.phone(tenant, visit) as phone:
        await until(lambda: house.of(visit, "visit.started"), what="the visit")
        phone.hang_up()
        await listens(phone)
    assert await house.service.visit_over(visit, 10)
    return dict(house.of(visit, "visit.started")[0].data)


# ---- A registered call ---------------------------------------------------------------------------------


async def test_what_was_registered_is_part_of_the_visit_and_of_no_other(tmp_path: Path) -> None:
    async with api(tmp_path) as (house, client):
        one, other = uuid4(), uuid4()
        said = {"caller_id": "José <11 5555-0001>", "dialled": "9000", "channel": CHANNEL}
        with capture_logs() as logs:
            answer = await register(client, one, **said)
            assert (answer.status_code, answer.json()) == (
                201,
                {"uuid": str(one), "tenant": "jardim", "expires_in_s": 60.0},
            )
            started = await comes(house, "jardim", one)
        assert {name: started[name] for name in said} == said
        (record,) = [each for each in await house.records(one) if each.kind == "visit.started"]
        assert {name: record.data[name] for name in said} == said
        (line,) = [line for line in logs if line["event"] == "visit.registered"]
        assert (line["channel"], line["dialled"], line["visit"]) == (CHANNEL, "9000", str(one))
        assert "5555" not in str(logs)  # who calls is for the audit log

        assert "channel" not in await comes(house, "jardim", other)  # optional: nobody registered this one
        assert await house.service.storage.verify() == []


async def test_the_host_of_a_visit_knows_its_call(tmp_path: Path) -> None:
    async with api(tmp_path) as (house, client):
        visit = uuid4()
        await register(client, visit, channel=CHANNEL, caller_id="201")
        async with house.phone("jardim", visit) as phone:
            await until(lambda: house.service.visit(visit))
            host = house.service.visit(visit)
            assert host is not None and host.call is not None and host.channel == CHANNEL
            assert (host.call.caller_id, host.call.tenant) == ("201", "jardim")
            again = await register(client, visit, channel=CHANNEL, caller_id="201")
            assert again.status_code == 409
            assert again.json()["detail"] == (
                f"uuid: found {visit}, under which a visit is running; allowed: one uuid a call"
            )
            phone.hang_up()
            await listens(phone)
        assert await house.service.visit_over(visit, 10)


async def test_required_refuses_who_was_not_registered_and_who_comes_late(tmp_path: Path) -> None:
    async with api(tmp_path, {"jardim": {"registration": "required"}}, registration_s=1) as (house, client):
        known, unknown, late = uuid4(), uuid4(), uuid4()
        assert (await register(client, late)).status_code == 201
        await asyncio.sleep(1.1)
        assert (await register(client, known)).status_code == 201
        await comes(house, "jardim", known)
        for call in (unknown, late, known):  # known: its registration is used up
            with capture_logs() as logs:
                assert (await is_refused(house.phone("jardim", call))).kind == "hangup"
            assert refusals(logs) == [
                f"the call {call} is not registered, or was more than 1 s ago; "
                "tenants.jardim.registration is required"
            ]
            assert len(logs) == 1
        assert len(await house.service.storage.visits()) == 1


async def test_a_call_that_is_registered_for_one_tenant_is_refused_at_another(tmp_path: Path) -> None:
    tenants: dict[str, dict[str, Any]] = {"jardim": {"numbers": ["9000"]}, "bosque": {"numbers": ["9100"]}}
    async with api(tmp_path, tenants) as (house, client):
        visit = uuid4()
        assert (await register(client, visit, dialled="9100")).json()["tenant"] == "bosque"
        with capture_logs() as logs:
            await is_refused(house.phone("jardim", visit))
        assert refusals(logs) == [
            f"found the call {visit} at jardim; it is registered for bosque: allowed is its port"
        ]
        assert (await comes(house, "bosque", visit))["dialled"] == "9100"


async def test_the_tenant_by_its_id_by_the_number_or_not_at_all(tmp_path: Path) -> None:
    tenants: dict[str, dict[str, Any]] = {"jardim": {"numbers": ["9000"]}, "bosque": {}}
    async with api(tmp_path, tenants, max_registrations=3) as (_, client):
        assert (await register(client, uuid4(), tenant="bosque", dialled="9000")).json()["tenant"] == "bosque"
        assert (await register(client, uuid4(), dialled="9000")).json()["tenant"] == "jardim"
        wrong = await register(client, uuid4(), tenant="praia")
        assert (wrong.status_code, wrong.headers["content-type"]) == (422, "application/problem+json")
        assert wrong.json()["status"] == 422 and wrong.json()["title"]
        assert wrong.json()["detail"] == "tenant: found 'praia'; allowed: bosque, jardim"
        assert (await register(client, uuid4(), dialled="9001")).status_code == 422
        uuid = uuid4()
        said = {"uuid": str(uuid), "tenant": "jardim", "channel": CHANNEL}
        assert (await client.post("/v1/calls", json=said)).status_code == 201
        assert (await client.post("/v1/calls", json=said)).status_code == 201  # said again: the same call
        other = await client.post("/v1/calls", json=said | {"channel": "PJSIP/intercom-00000002"})
        assert (other.status_code, other.json()["detail"]) == (
            409,
            f"uuid: found {uuid}, which is registered for another call; allowed: one uuid a call",
        )
        full = await register(client, uuid4(), tenant="jardim")
        assert (full.status_code, full.json()["detail"]) == (
            503,
            "found 3 calls registered that have not come; allowed are 3",
        )


# ---- Who may ask, and what ------------------------------------------------------------------------------


async def test_without_the_key_nothing_is_registered(tmp_path: Path) -> None:
    async with api(tmp_path, http_key_env="API_KEY") as (_, client):
        assert (await register(client, uuid4())).status_code == 201
        right = client.headers.pop("Authorization")
        body = json.dumps({"uuid": str(uuid4())})
        for authorization in (
            "",
            right[:-1],
            f"{right}x",
            right.removeprefix("Bearer "),
            "Bearer",
            "Bearer é",
        ):
            headers = [(b"Content-Type", b"application/json")]
            headers += [(b"Authorization", authorization.encode())] if authorization else []
            answer = await client.post("/v1/calls", content=body, headers=headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert "API_KEY" not in answer.text and right not in answer.text
        twice = [("Authorization", right), ("Authorization", right), ("Content-Type", "application/json")]
        assert (await client.post("/v1/calls", content=body, headers=twice)).status_code == 401
        assert (await client.get("/v1/me")).status_code == 401
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/ready")).json() == {
            "ready": True,
            "reasons": [],
            "warnings": [],
            "webhooks": None,
        }


async def test_other_paths_methods_and_types_are_problems(tmp_path: Path) -> None:
    async with api(tmp_path) as (_, client):
        resources = (("GET", "/nothing", 404), ("PUT", "/v1/calls", 405), ("POST", "/ready", 405))
        for method, path, status in resources:
            answer = await client.request(method, path)
            assert answer.status_code == answer.json()["status"] == status
            assert answer.headers["content-type"] == "application/problem+json"
            assert f"found {method}" in answer.json()["detail"]
        assert (await client.post("/v1/calls", content=b"x")).status_code == 415
        large = await client.post("/v1/calls", json={"uuid": "x" * 5000})
        assert (large.status_code, large.json()["detail"]) == (
            413,
            "found a body of more than 4096 bytes; allowed are 4096",
        )


# ---- Ready or not ---------------------------------------------------------------------------------------


def test_a_service_that_has_not_started_is_not_ready_and_takes_no_registration(tmp_path: Path) -> None:
    service = Service(settings(tmp_path, {"jardim": {}}, {}))
    assert service.not_ready() == ["starting"]
    with pytest.raises(NotTakingCallsError):
        service.register_call(Registration(uuid=uuid4()))


async def test_ready_says_full_and_draining_and_then_no_call_is_registered(tmp_path: Path) -> None:
    async with api(tmp_path, max_calls=1, drain_s=20) as (house, client):
        visit = uuid4()
        async with house.phone("jardim", visit) as phone:
            await until(lambda: house.service.open_legs() == 1)
            full = await client.get("/ready")
            assert (full.status_code, full.json()) == (
                503,
                {"ready": False, "reasons": ["full"], "warnings": [], "webhooks": None},
            )
            draining = asyncio.create_task(house.service.drain())
            await asyncio.sleep(0)
            gone = await client.get("/ready")
            assert (gone.status_code, gone.json()["reasons"]) == (503, ["draining", "full"])
            refused = await register(client, uuid4())
            assert (refused.status_code, refused.json()["detail"]) == (
                503,
                "found a service that takes no calls now; /ready says why",
            )
            assert (await client.get("/health")).json()["status"] == "ok"
            phone.hang_up()
            await listens(phone)
        await draining


# ---- Who holds the line ---------------------------------------------------------------------------------


async def test_whoever_is_slow_is_closed_and_nobody_waits_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEAD_S", 1.0)
    async with api(tmp_path) as (house, client):
        port = house.service.http_port
        slow = [b"", b"POST /v1/ca", b"POST /v1/calls HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{"]
        pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in slow]
        for (_, writer), said in zip(pairs, slow, strict=True):
            writer.write(said)
        assert (await client.get("/health")).status_code == 200
        async with asyncio.timeout(10):
            for reader, writer in pairs:
                try:
                    await reader.read()
                except ConnectionResetError:
                    pass
                finally:
                    writer.close()


async def test_more_connections_than_allowed_are_closed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 5)
    async with api(tmp_path) as (house, client):
        port = house.service.http_port
        pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(8)]

        async def is_closed(reader: asyncio.StreamReader) -> bool:
            try:
                return await asyncio.wait_for(reader.read(), 2) == b""
            except ConnectionResetError:
                return True
            except TimeoutError:
                return False

        closed = await asyncio.gather(*(is_closed(reader) for reader, _ in pairs))
        assert sum(closed) == 3
        for _, writer in pairs:
            writer.close()
        async with asyncio.timeout(10):
            while True:
                try:
                    assert (await client.get("/health")).status_code == 200
                    break
                except httpx2.HTTPError:
                    await asyncio.sleep(0.02)


async def test_what_is_no_http_is_answered_and_closed(tmp_path: Path) -> None:
    async with api(tmp_path) as (house, client):
        for said in (b"\x01\x00\x10" + b"x" * 16, b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", house.service.http_port)
            writer.write(said + b"\r\n\r\n")
            async with asyncio.timeout(10):
                assert (await reader.read()).startswith(b"HTTP/1.1 4")
            writer.close()
        assert (await client.get("/health")).status_code == 200


async def test_the_signals_stay_the_services_and_the_port_is_free_again(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    async with api(tmp_path) as (house, client):
        port = house.service.http_port
        assert (await client.get("/health")).headers["connection"] == "close"
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", port)
