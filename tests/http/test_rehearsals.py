"""The telephones of test calls: whose they are, that each rings once, and that nothing real is ever asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.rehearsal import MOST, WAITS_S, NotRingingError, Rehearsal, Rehearsals, Resident
from tests.console.login import PASSWORD, operator
from tests.http.web_phone import WebPhone
from tests.service.doorman import AGREES, ASKS, Cast, Part
from tests.service.household import HELLO, Household, household, with_cast

PART = Part(ASKS, AGREES)
REAL_GATE = {"kind": "http", "url": "http://127.0.0.1:9/open"}
KEY = "a-key-of-21-characters"


@asynccontextmanager
async def site(data: Path) -> AsyncIterator[Household]:
    """A service with two tenants, and people who may see one or both."""
    async with Cast(PART) as cast:
        tenants = {name: with_cast(cast, gate=REAL_GATE) for name in ("jardim", "lago")}
        options: dict[str, Any] = {"http_port": 0, "http_key_env": "API_KEY"}
        async with household(data, tenants, environ={"API_KEY": KEY}, **options) as house:
            await operator(house.service, "ana")
            await operator(house.service, "bia", "reviewer", "lago", name="Bia Reis")
            await operator(house.service, "caio", "viewer", "jardim", name="Caio Nunes")
            yield house


async def session(house: Household, login: str) -> dict[str, str]:
    """The headers with which an operator's own pages open a WebSocket."""
    url = f"http://127.0.0.1:{house.service.http_port}"
    async with httpx2.AsyncClient(base_url=url, timeout=20) as client:
        form = {"name": login, "password": PASSWORD, "next": "/console/"}
        answer = await client.post("/console/login", data=form, headers={"Origin": url})
        assert answer.status_code == 303, answer.text
        (cookie,) = [f"{each.name}={each.value}" for each in client.cookies.jar]
    return {"Cookie": cookie, "Origin": url}


def made(house: Household, by: str = "operator:ana", resident: Resident = "browser") -> Rehearsal:
    """A test call of the tenant `jardim`."""
    now = asyncio.get_running_loop().time()
    return house.service.rehearsals.make("jardim", by, resident, now=now)


def telephone(house: Household, id: UUID, role: str, headers: dict[str, str], **options: Any) -> WebPhone:
    """One of the two telephones."""
    url = f"ws://127.0.0.1:{house.service.http_port}/ws/test-calls/{id}/{role}"
    return WebPhone(url, headers, **options)


async def comes(phone: WebPhone, kind: str) -> dict[str, Any]:
    """The newest event of a type, once it is there."""
    async with asyncio.timeout(20):
        while not phone.of(kind):
            await asyncio.sleep(0.01)
    return phone.of(kind)[-1]


@pytest.mark.parametrize("role", ["visitor", "resident"])
async def test_the_telephones_are_their_makers_alone(role: str, tmp_path: Path) -> None:
    async with site(tmp_path) as house:
        ana = await session(house, "ana")
        elsewhere = {**ana, "Origin": "http://evil.example"}
        without = {"Cookie": ana["Cookie"]}
        test = made(house)
        for headers, code in [
            ({}, 4401),
            ({"Authorization": f"Bearer {KEY}"}, 4401),
            (elsewhere, 4401),
            (without, 4401),
            (await session(house, "caio"), 4401),
            (await session(house, "bia"), 4004),
        ]:
            async with telephone(house, test.id, role, headers, talks=False) as phone:
                assert (await phone.closed())[0] == code, headers
        async with telephone(house, uuid4(), role, ana, talks=False) as phone:
            assert (await phone.closed())[0] == 4004
        mine = made(house, by="operator:bia")  # of a tenant that she may not see
        async with telephone(house, mine.id, role, await session(house, "bia"), talks=False) as phone:
            assert (await phone.closed())[0] == 4004
        assert house.service.open_legs() == 0 and not test.begun


async def test_both_telephones_and_what_they_hold_against(tmp_path: Path) -> None:
    async with site(tmp_path) as house:
        ana = await session(house, "ana")
        test = made(house)
        async with (
            telephone(house, test.id, "resident", ana, talks=False) as waiting,
            telephone(house, test.id, "visitor", ana) as visitor,
        ):
            await house.greeted(test.id)
            async with telephone(house, test.id, "visitor", ana, talks=False) as second:
                assert (await second.closed())[0] == 1008
            assert waiting.of("quiet") and not waiting.of("ringing")
            await waiting.send(type="answer", token="a guess")
            assert "allowed: that of the last ringing" in (await comes(waiting, "error"))["detail"]
            visitor.say(HELLO)
            token = (await comes(waiting, "ringing"))["token"]
            await waiting.send(type="answer", token=token[:-1] + "é")
            async with telephone(house, test.id, "resident", ana, talks=False) as resident:
                assert (await comes(resident, "ringing"))["token"] == token
                await resident.send(type="answer", token=token)
                await comes(resident, "ready")
                resident.talk()
                await waiting.send(type="answer", token=token)  # it holds once
                async with asyncio.timeout(10):
                    while len(waiting.of("error")) < 3:
                        await asyncio.sleep(0.01)
                async with asyncio.timeout(30):
                    while not any("Autoriza a entrada" in str(each) for each in resident.of("event")):
                        await asyncio.sleep(0.05)
                await asyncio.sleep(0.5)
                resident.say(HELLO)
                assert (await resident.closed(30))[0] == 1000
            assert (await visitor.closed(30)) == (1000, "the call is over")
        assert visitor.of("ended")[0]["outcome"] == "authorized"
        assert await house.service.visit_over(test.id, 10)
        assert house.orders == []
        assert house.of(test.id, "gate.requested")[0].data["gate"] == "record"
        started = house.of(test.id, "visit.started")[0].data
        assert (started["test"], started["tested_by"]) == (True, "operator:ana")


async def test_a_resident_telephone_takes_no_sound_before_it_is_answered(tmp_path: Path) -> None:
    async with site(tmp_path) as house:
        ana = await session(house, "ana")
        async with telephone(house, made(house).id, "resident", ana, talks=False) as phone:
            await comes(phone, "quiet")
            await phone.socket.send(bytes(960))
            assert (await phone.closed())[0] == 1008
        async with telephone(
            house, made(house, resident="refuses").id, "resident", ana, talks=False
        ) as phone:
            assert (await phone.closed())[0] == 1008


# ---- What is kept of test calls --------------------------------------------------------------------------


@given(st.lists(st.sampled_from(["ring", "stop", "right", "old", "guess"]), max_size=12))
def test_a_token_answers_the_ringing_that_it_was_made_for_and_once(steps: list[str]) -> None:
    test = Rehearsal("jardim", "operator:ana", "browser", 0.0)
    ringing: UUID | None = None
    token, tokens = "", ["", "x"]
    for step in steps:
        change = test.change
        match step:
            case "ring":
                ringing = uuid4()
                test.ring(ringing)
                tokens.append(token) if token else None
                token = test.ringing
                assert token not in tokens and change.is_set()
            case "stop":
                test.stop_ringing()
                assert change.is_set() is (ringing is not None)
                ringing = None
            case "right" if ringing is not None:
                assert test.answer(token) == ringing
                ringing = None
            case _:
                given_token = {"right": token, "old": tokens[-1], "guess": "x"}[step]
                with pytest.raises(NotRingingError):
                    test.answer(given_token)
        assert bool(test.ringing) is (ringing is not None)


def test_test_calls_are_forgotten() -> None:
    kept = Rehearsals()
    first = kept.make("jardim", "operator:ana", "browser", now=0.0)
    assert kept.get(first.id, "operator:ana", now=WAITS_S - 1) is first
    assert kept.get(first.id, "operator:bia", now=1.0) is None
    assert kept.get(first.id, "operator:ana", now=WAITS_S) is None
    ids = [kept.make("jardim", "operator:ana", "browser", now=1.0).id for _ in range(MOST)]
    assert kept.get(first.id, "operator:ana", now=1.0) is None
    assert all(kept.get(id, "operator:ana", now=1.0) for id in ids)
