"""What somebody who may do little tries, to have more than that, or to take it from the others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from bridge.http.access import Caller
from bridge.http.tenants import told
from bridge.runner import LocalRunner
from bridge.service import Service
from storage.paging import cursor_of
from tests.http.people import logged_in, make_operator, make_tenant, served
from tests.service.household import until


@pytest.fixture
async def ana(tmp_path: Path) -> AsyncIterator[tuple[Service, httpx2.AsyncClient]]:
    """The manager of `bosque`, who is logged in: what changes something has its headers already."""
    async with served(tmp_path) as (service, client):
        await make_tenant(service, "bosque")
        await make_operator(service, "ana", "manager", "bosque")
        await until(lambda: "bosque" in service.tenancy.current)
        client.headers.update(await logged_in(client, "ana"))
        yield service, client


async def put(client: httpx2.AsyncClient, **content: Any) -> httpx2.Response:
    """Have the house's settings be these."""
    seen = await client.get("/v1/tenants/bosque")
    headers = {"If-Match": seen.headers["etag"]}
    return await client.put("/v1/tenants/bosque", json=content, headers=headers)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("greeting", "Aqui é da {portaria}."),
        ("greeting", "Bom dia {"),
        ("greeting", "{0}"),
        ("goodbye", "{condominio.__class__.__init__.__globals__}"),
        ("goodbye", "{condominio!r}"),
        ("greeting", "{condominio:>999999999}"),
        ("greeting", "{condominio:>{condominio}}"),
        ("greeting", "{condominio}" * 200),
        ("name", "Condomínio " * 20),
        ("name", "Condomínio\nBosque"),
        ("prompt_extra", "Não abra. " * 3000),
    ],
)
async def test_a_house_says_nothing_that_no_call_could_say(
    ana: tuple[Service, httpx2.AsyncClient], field: str, value: str
) -> None:
    _, client = ana
    answer = await put(client, **{field: value})
    assert answer.status_code == 422 and answer.json()["problems"][0]["field"] == field


async def test_a_tenant_that_cannot_be_made_keeps_nobody_elses_changes_waiting(
    ana: tuple[Service, httpx2.AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    service, client = ana
    made = LocalRunner._condominium

    def made_or_not(self: LocalRunner, placing: Any, *rest: Any) -> Any:
        if placing.one.tenant.name == "Broken":
            raise RuntimeError("a fault of ours")
        return made(self, placing, *rest)

    monkeypatch.setattr(LocalRunner, "_condominium", made_or_not)
    assert (await put(client, name="Broken")).status_code == 200
    await make_tenant(service, "cedro")
    await until(lambda: "cedro" in service.tenancy.current)
    assert service.tenancy.current["bosque"].name == "Condomínio Bosque"
    assert "can't be made ready" in service.tenancy.refused["bosque"][0]
    assert (await put(client, name="Condomínio do Bosque")).status_code == 200
    await until(lambda: service.tenancy.current["bosque"].name == "Condomínio do Bosque")


async def test_no_other_tenants_name_is_told_where_one_begins_like_ones_own() -> None:
    caller = Caller("ana", "operator", "manager", "bosque", frozenset())
    line = "tenants.bosque.numbers: found '7', which tenants.bosque-dois has, and tenants.cedro"
    said = "tenants.bosque.numbers: found '7', which another tenant has, and another tenant"
    assert told(line, "bosque", caller) == said
    assert told(line, "bosque", replace(caller, tenant=None)) == line


def nested(deep: int) -> Any:
    """Lists in each other."""
    value: Any = 1
    for _ in range(deep):
        value = [value]
    return value


async def test_what_is_odd_is_refused_and_is_no_fault_of_ours(
    ana: tuple[Service, httpx2.AsyncClient],
) -> None:
    _, client = ana
    for content in ({"limits": nested(900)}, {"consent": {"keys": nested(900)}}, {"greeting": nested(40)}):
        assert (await put(client, **content)).status_code == 422
    token = {"csrf_token": client.headers["X-CSRF-Token"], "version": "1"}
    for toml in ("a = " + "[" * 3000, "a" + ".a" * 20_000 + " = 1", "a = 1 #" + "x" * 70_000):
        answer = await client.post("/console/tenants/bosque/toml", data={**token, "toml": toml})
        assert answer.status_code == 422, toml[:40]
    for path in (
        f"tenants/bosque/history/{'9' * 5000}",
        "tenants/bosque/history/-1",
        "tenants/bosque/directory?q=%00",
        f"visits?after={cursor_of('x' + chr(0), 'y')}",
        f"visits?after={cursor_of(chr(0xD800), 'y')}",
        f"tenants/bosque/directory?after={cursor_of(2**70)}",
        "visits?resident=%00&visitor=%ED%A0%80",
    ):
        answer = await client.get(f"/console/{path}")
        assert answer.status_code in (200, 400, 404, 422), (path[:60], answer.status_code)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/tenants/bosque/directory", b"[" + b"[]," * 3_000_000 + b"[]]"),
        ("/v1/tenants/bosque/directory", b"[[" + b"[]," * 3_000_000 + b"[]]]"),
        ("/v1/tenants/bosque/directory/import", b"[" + b"[]," * 3_000_000 + b"[]]"),
        ("/console/tenants/bosque/directory/import", b"a=" + b"%41" * 3_000_000),
        ("/console/tenants/bosque/toml", b"toml=" + b"%5B" * 80_000),
    ],
    ids=["many", "one", "import", "form", "toml"],
)
async def test_no_body_holds_up_the_calls_while_it_is_read(
    ana: tuple[Service, httpx2.AsyncClient], path: str, body: bytes
) -> None:
    """The loop wants to wake up every 10 ms: how much this process computes until it does, at worst."""
    _, client = ana
    kind = "application/json" if body.startswith(b"[") else "application/x-www-form-urlencoded"
    headers = {"Content-Type": kind, "If-Match": '"0"'}
    if "/console/" in path:
        del client.headers["X-CSRF-Token"]  # it is looked for in the form
    worst = 0.0

    async def watch() -> None:
        nonlocal worst
        while True:
            began = time.process_time()
            await asyncio.sleep(0.01)
            worst = max(worst, time.process_time() - began)

    async def in_pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 65536):
            yield body[at : at + 65536]
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    method = "PUT" if path.endswith("/directory") else "POST"
    answer = await client.request(method, path, content=in_pieces(), headers=headers)
    watching.cancel()
    assert answer.status_code in (400, 403, 413, 422), answer.text[:200]
    assert worst < 0.6  # the collector takes a part of it; read in one piece it is 2 s


async def test_whoever_floods_us_with_connections_keeps_nobody_else_out(
    ana: tuple[Service, httpx2.AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    service, client = ana
    monkeypatch.setattr("bridge.http.server.MAX_CONNECTIONS", 20)
    log_in = b"POST /v1/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    flood = []
    for number in range(40):
        reader, writer = await asyncio.open_connection("127.0.0.1", service.http_port)
        writer.write(b"GET / HTTP/1.1\r\nX: " if number % 2 else log_in + b"Content-Length: 99\r\n\r\n{")
        flood.append((reader, writer))
        if number == 15:  # who has shown who they are stays
            following = client.stream("GET", "/v1/events")
            events = (await following.__aenter__()).aiter_lines()
            await anext(events)
    assert (await client.get("/v1/me")).json()["id"] == "ana"
    service.hub.tell("bosque", "call.registered", {"uuid": "x"})
    async with asyncio.timeout(5):
        while "call.registered" not in await anext(events):
            pass
    await following.__aexit__(None, None, None)
    for _, writer in flood:
        writer.close()
