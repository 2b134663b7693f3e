"""What somebody who may do little tries, to have more than that, or to take it from the others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from bridge.runner import LocalRunner
from bridge.service import Service
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
        ("greeting", "{condominio}" * 100),
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
