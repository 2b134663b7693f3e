"""`GET /v1/route`: what FreeSWITCH's script is told of a call; the stream that it then makes is let in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import httpx2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridge.endpoints.stream_ticket import HOLDS_S, holds, ticket
from tests.endpoints.test_audio_stream_service import DOMAIN, OTHER, freeswitch, refused
from tests.http.people import bearer, make_key
from tests.ports import free_port
from tests.service.doorman import ASKS, Cast, Part
from tests.service.household import Household, household, until
from tests.simulators.audio_stream import Started, start

ENVIRON = {"STREAM_TOKEN": "of jardim", "API_KEY": "a-key-of-21-characters", "ESL_PASSWORD": "a password"}
ELSEWHERE = {
    "kind": "freeswitch",
    "dial_string": "sofia/gateway/city/{number}",
    "stream_url": "wss://edge.example:8443",
}


@asynccontextmanager
async def two_houses(
    data: Path, own: dict[str, Any] | None = None, **service: Any
) -> AsyncIterator[tuple[Household, httpx2.AsyncClient]]:
    """`jardim`, whose streams show a token, and `bosque`, of which the address is enough."""
    async with Cast(Part(ASKS)) as cast:
        tenants = {
            "jardim": freeswitch(cast, token_env="STREAM_TOKEN", **(own or {})) | {"numbers": ["8001"]},
            "bosque": freeswitch(cast, OTHER, sample_rate=16000, channels=2, playback="fork")
            | {"dialer": ELSEWHERE, "esl": {"port": free_port(), "password_env": "ESL_PASSWORD"}},
        }
        async with household(data, tenants, environ=ENVIRON, http_port=0, **service) as house:
            base = f"http://127.0.0.1:{house.service.http_port}"
            async with httpx2.AsyncClient(base_url=base, timeout=10) as client:
                yield house, client


async def asked(client: httpx2.AsyncClient, status: int = 200, **params: Any) -> dict[str, Any]:
    params = {"call": str(uuid4()), "domain_uuid": str(DOMAIN)} | params
    answer = await client.get("/v1/route", params={name: one for name, one in params.items() if one})
    assert answer.status_code == status, answer.text
    return dict(answer.json())


@pytest.mark.parametrize("own_port", [True, False])
async def test_the_stream_that_is_named_is_let_in_for_its_call_alone(tmp_path: Path, own_port: bool) -> None:
    more: dict[str, Any] = {"audio_stream_port": 0} if own_port else {}
    async with two_houses(tmp_path, **more) as (house, client):
        call = uuid4()
        way = await asked(client, call=str(call))
        port = house.service.audio_stream_port if own_port else house.service.http_port
        stream, token = way.pop("stream").split("?token=")
        assert stream == f"ws://127.0.0.1:{port}/stream/{DOMAIN}/{call}"
        assert way == {
            "tenant": "jardim",
            "mode": "realtime",
            "expires_in_s": HOLDS_S,
            "playback": "auto",
            "sample_rate": "8k",
            "mix": "mono",
        }
        assert ENVIRON["STREAM_TOKEN"] not in token

        another = stream.replace(str(call), str(uuid4())) + f"?token={token}"
        assert await refused(another) == (1008, "found no valid token")
        running = await start("base64", Started(f"{stream}?token={token}"))
        await until(lambda: house.service.open_legs("jardim") == 1, what="the leg")
        await running.end()

        by_number = await asked(client, domain_uuid=None, number="8001")
        assert by_number["tenant"] == "jardim"
        other = await asked(client, domain_uuid=str(OTHER))
        assert (other["sample_rate"], other["mix"], other["playback"]) == ("16k", "stereo", "fork")
        where = urlsplit(other["stream"])
        assert (where.scheme, where.netloc) == ("wss", "edge.example:8443"), "as its settings have it"
        assert where.query == "" and other["expires_in_s"] == 0


async def test_whoever_has_a_tenants_key_is_told_of_its_domain_alone(tmp_path: Path) -> None:
    async with two_houses(tmp_path, http_key_env="API_KEY") as (house, client):
        await asked(client, 401)
        client.headers = httpx2.Headers(bearer(await make_key(house.service, "pbx", "bosque")))
        assert (await asked(client, domain_uuid=str(OTHER)))["tenant"] == "bosque"
        others, nobodys = await asked(client, 404), await asked(client, 404, domain_uuid=str(uuid4()))
        assert others == nobodys, "a stranger does not learn which domains there are"
        await asked(client, 404, domain_uuid=None, number="8001")
        for scope, status in (("calls:read", 403), ("calls:write", 200)):
            client.headers = httpx2.Headers(bearer(await make_key(house.service, "manager", scopes=(scope,))))
            await asked(client, status)


async def test_modes_that_need_no_stream_are_told_while_none_would_be_taken(tmp_path: Path) -> None:
    for own, mode in (({"mode": "legacy"}, "legacy"), ({"enabled": False}, "attendant")):
        async with two_houses(tmp_path / mode, own) as (house, client):
            house.service._draining = True  # what SIGTERM sets
            way = await asked(client)
            assert (way["mode"], way["stream"], way["expires_in_s"]) == (mode, "", 0)
            assert "draining" in (await asked(client, 503, domain_uuid=str(OTHER)))["detail"]
    async with two_houses(tmp_path, max_calls=1) as (house, client):
        running = await start("base64", Started((await asked(client))["stream"]))
        await until(lambda: house.service.open_legs() == 1, what="the leg")
        assert "full" in (await asked(client, 503))["detail"]
        await running.end()
        await until(lambda: house.service.open_legs() == 0, what="its end")
        await asked(client)


async def test_what_is_asked_wrongly_is_refused(tmp_path: Path) -> None:
    async with two_houses(tmp_path) as (_, client):
        await asked(client, 422, call="8001")
        await asked(client, 422, call=None)
        await asked(client, 422, domain_uuid="jardim")
        assert "one of them" in (await asked(client, 422, domain_uuid=None))["detail"]
        await asked(client, 404, domain_uuid=None, number="9999")
        await asked(client, 422, number="80\n01")
        for host in ("[::1]:8082", "a_b"):
            refused = await client.get(
                "/v1/route", params={"call": str(uuid4()), "domain_uuid": str(DOMAIN)}, headers={"Host": host}
            )
            assert refused.status_code == 422, host


# ---- Tickets -------------------------------------------------------------------------------------------

CALL = UUID("3f0d9a52-7c51-4f0e-9d43-6a1d2a6f7f10")
TICKET = ticket("a token", DOMAIN, CALL, now=1000.0)


@given(
    st.floats(0, 1e6),
    st.sampled_from(["a token", "another"]),
    st.sampled_from([DOMAIN, OTHER]),
    st.sampled_from([CALL, UUID(int=1)]),
)
@example(1000.0, "a token", DOMAIN, CALL)
@example(1000.0 + HOLDS_S, "a token", DOMAIN, CALL)
def test_a_ticket_holds_for_its_call_and_its_minute(now: float, token: str, domain: UUID, call: UUID) -> None:
    own = (token, domain, call) == ("a token", DOMAIN, CALL) and 999 <= now <= 1000 + HOLDS_S
    assert holds(TICKET, token, domain, call, now=now) is own


@settings(max_examples=50)
@given(st.integers(0, len(TICKET) - 1), st.characters(), st.text())
def test_no_other_text_is_a_ticket(at: int, other: str, made_up: str) -> None:
    for given_text in (TICKET[:at] + other + TICKET[at + 1 :], made_up):
        if given_text != TICKET:
            assert not holds(given_text, "a token", DOMAIN, CALL, now=1000.0)
