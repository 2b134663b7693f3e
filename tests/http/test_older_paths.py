"""`/api/*`: what programs of the older systems ask, and the answers that they know."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2

from bridge.http.access import now
from bridge.http.calls import Registration
from tests.http.streams import key_for
from tests.ports import free_port
from tests.service.doorman import AGREES, ASKS, Cast, Part
from tests.service.household import Household, household, until, with_cast

PART = Part(ASKS, AGREES)
JSON = dict[str, Any]


@asynccontextmanager
async def api(data: Path) -> AsyncIterator[tuple[Household, httpx2.AsyncClient, Cast]]:
    """Three extensions of two condominiums, and whoever asks."""
    async with Cast(PART) as cast:
        tenants = {
            "condominio-10": with_cast(cast, numbers=["1001", "1003"]),
            "jardim": with_cast(cast, numbers=["2001"]),
        }
        environ = {"API_KEY": "a-key-of-21-characters"}
        async with household(data, tenants, environ=environ, http_key_env="API_KEY", http_port=0) as house:
            url = f"http://127.0.0.1:{house.service.http_port}"
            async with httpx2.AsyncClient(base_url=url, timeout=20) as client:
                yield house, client, cast


def as_x_api_key(headers: dict[str, str]) -> dict[str, str]:
    return {"X-API-Key": headers["Authorization"].removeprefix("Bearer ")}


async def test_status_and_extensions(tmp_path: Path) -> None:
    async with api(tmp_path) as (house, client, _):
        key = as_x_api_key(await key_for(house.service, "viewer"))
        answer = (await client.get("/api/extensions", headers=key)).json()
        assert (answer["status"], answer["total"]) == ("success", 3)
        visitors, residents = house.service.ports("condominio-10")
        first = answer["extensions"][0]
        assert {**first, "id": 0} == {
            "id": 0,
            "ramal_ia": "1001",
            "ramal_retorno": "",
            "ip_servidor": "127.0.0.1",
            "porta_ia": visitors,
            "porta_retorno": residents,
            "condominio_id": 10,
        }
        assert isinstance(first["id"], int) and len({one["id"] for one in answer["extensions"]}) == 3
        assert answer["extensions"][2]["condominio_id"] == "jardim"

        visit = uuid4()
        house.service.register_call(Registration(uuid=visit, tenant="condominio-10", dialled="1003"))
        async with house.phone("condominio-10", visit) as phone:
            await until(lambda: house.service.hub.visit(visit), what="the visit")
            status = (await client.get("/api/status", headers=key)).json()
            shown = {one["ramal_ia"]: one for one in status["extensions"]}
            assert (status["status"], status["service"]) == ("success", "running")
            assert (status["total_extensions"], status["active_calls"]) == (3, 1)
            assert {number: one["calls"] for number, one in shown.items()} == {
                "1001": [],
                "1003": [str(visit)],
                "2001": [],
            }
            assert {one["status"] for one in shown.values()} == {"ativo"}
            assert {**first, "ip": first["ip_servidor"]}.items() - {("ip_servidor", "127.0.0.1")} <= shown[
                "1001"
            ].items()
            phone.hang_up()

        only = await key_for(house.service, "viewer", "jardim")
        assert [
            one["ramal_ia"]
            for one in (await client.get("/api/extensions", headers=only)).json()["extensions"]
        ] == ["2001"]


async def test_hangup_by_call_by_side_and_by_extension(tmp_path: Path) -> None:
    async with api(tmp_path) as (house, client, _):
        key = as_x_api_key(await key_for(house.service, "reviewer"))
        theirs = as_x_api_key(await key_for(house.service, "reviewer", "jardim"))

        async def hang_up(asked: JSON, headers: dict[str, str] = key) -> tuple[int, JSON]:
            answer = await client.post("/api/hangup", json=asked, headers=headers)
            return answer.status_code, answer.json()

        ways: list[JSON] = [{}, {"role": "visitor"}]
        for asked in ways:
            visit = uuid4()
            async with house.phone("condominio-10", visit) as phone:
                await until(partial(_has_leg, house, str(visit)), what="its leg")
                call = {"call_id": str(visit)}
                assert await hang_up(call, theirs) == (
                    404,
                    {"status": "error", "message": f"Sessão {visit} não encontrada"},
                )
                status, answer = await hang_up({**call, "role": "resident"})
                assert (status, answer["status"]) == (404, "error")
                status, answer = await hang_up({**call, **asked})
                assert (status, answer["status"]) == (200, "success")
                await asyncio.wait_for(asyncio.shield(phone.closed), 5)
            await asyncio.wait_for(house.service.visit_over(visit), 10)
            assert "visit.hung_up" in await house.kinds(visit)

        one, other = uuid4(), uuid4()
        house.service.register_call(Registration(uuid=one, tenant="condominio-10", dialled="1003"))
        async with house.phone("condominio-10", one) as first, house.phone("condominio-10", other) as second:
            await until(lambda: len(house.service.hub.running()) == 2, what="both")
            status, answer = await hang_up({"ramal": "1003"})
            assert (status, answer["message"]) == (200, "1 chamada(s) do ramal 1003 encerrada(s)")
            await asyncio.wait_for(asyncio.shield(first.closed), 5)
            assert not second.closed.done()
            id_of = (
                await client.get(
                    "/api/extensions", headers=as_x_api_key(await key_for(house.service, "viewer"))
                )
            ).json()
            status, _ = await hang_up({"extension_id": id_of["extensions"][0]["id"]})
            assert status == 200
            await asyncio.wait_for(asyncio.shield(second.closed), 5)

        assert (await hang_up({}))[0] == 400
        assert (await hang_up({"call_id": "x"}))[0] == 400
        assert (await hang_up({"call_id": str(uuid4()), "role": "porter"}))[0] == 400
        assert (await hang_up({"ramal": "9999"}))[0] == 404
        assert (await hang_up({"ramal": "1001"}, theirs))[0] == 404


def _has_leg(house: Household, visit: str) -> bool:
    shown = house.service.hub.visit(visit)
    return shown is not None and shown.leg("visitor") is not None


async def test_a_key_is_needed_and_one_that_may(tmp_path: Path) -> None:
    async with api(tmp_path) as (house, client, _):
        viewer, pbx = await key_for(house.service, "viewer"), await key_for(house.service, "pbx")
        reads, changes = ("/api/status", "/api/extensions"), ("/api/hangup", "/api/refresh", "/api/restart")
        body = {"call_id": str(uuid4()), "ramal": "1001"}
        for path in reads:
            wrong = [{}, {"X-API-Key": "x"}, {"X-API-Key": "porteiro_a_b"}, {"Authorization": "Bearer x"}]
            for headers in wrong:
                answer = await client.get(path, headers=headers)
                assert answer.status_code == 401 and answer.json()["status"] == "error"
            assert (await client.get(path, headers=pbx)).status_code == 403
            assert (await client.get(path, headers=viewer)).status_code == 200
            twice = [("X-API-Key", as_x_api_key(viewer)["X-API-Key"])] * 2
            assert (await client.get(path, headers=twice)).status_code == 401
        for path in changes:
            assert (await client.post(path, json=body)).status_code == 401
            for headers in (pbx, viewer):
                answer = await client.post(path, json=body, headers=headers)
                assert answer.status_code == 403 and set(answer.json()) == {"status", "message"}


async def test_refresh_reads_the_settings_at_once(tmp_path: Path) -> None:
    async with api(tmp_path) as (house, client, cast):
        admin = await key_for(house.service, "admin")
        nothing = (await client.post("/api/refresh", headers=admin)).json()
        assert nothing["status"] == "success"
        assert nothing["stats"] == {"removed": 0, "updated": 0, "added": 0, "total_active": 2}
        content = {
            "name": "Condomínio Novo",
            "numbers": ["3001"],
            "provider": "openai",
            "base_url": cast.url,
            "visitor_port": free_port(),
            "resident_port": free_port(),
            "dialer": {"kind": "simulated"},
        }
        await house.service.catalogue.put_tenant("novo", content, expected=None, by="test:x", at=now())
        answer = (await client.post("/api/refresh", headers=admin)).json()
        assert answer["stats"]["total_active"] == 3 and answer["stats"]["added"] <= 1
        numbers = (await client.get("/api/extensions", headers=admin)).json()["extensions"]
        assert [one["ramal_ia"] for one in numbers] == ["1001", "1003", "2001", "3001"]
        assert numbers[3]["porta_ia"] == content["visitor_port"]


async def test_restart_reopens_the_ports_once_no_call_runs(tmp_path: Path) -> None:
    async with api(tmp_path) as (house, client, _):
        manager = await key_for(house.service, "manager", "condominio-10")

        async def restart(asked: JSON) -> tuple[int, str]:
            answer = await client.post("/api/restart", json=asked, headers=manager)
            return answer.status_code, answer.json()["message"]

        ports = house.service.ports("condominio-10")
        assert await restart({"ramal": "1001"}) == (200, "Ramal 1001 reiniciado com sucesso")
        assert house.service.ports("condominio-10") == ports
        visit = uuid4()
        async with house.phone("condominio-10", visit) as phone:
            await until(lambda: house.service.hub.visit(visit), what="a visit on the ports as before")
            later = "Ramal 1001 será reiniciado quando suas chamadas terminarem"
            assert await restart({"ramal": "1001"}) == (200, later)
            assert await restart({"ramal": "1001"}) == (200, later)
            await asyncio.sleep(0.7)
            assert not phone.closed.done(), "no call is ended by it"
            waiting = house.service._reopening._waiting
            assert list(waiting) == ["condominio-10"]
            phone.hang_up()
        await until(lambda: not waiting, what="the restart")
        async with house.phone("condominio-10", uuid4()):
            await until(lambda: house.service.open_legs("condominio-10") == 1, what="the next call")
        assert await restart({"ramal": "2001"}) == (404, "Ramal 2001 não encontrado")
        assert await restart({}) == (400, "É necessário fornecer extension_id ou ramal")
