"""Who may ask what: every resource, as the application names them, by everybody who might try."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from bridge.http import access, sessions, throttle
from bridge.http.access import LEVELS, SCOPES_OF, Guard, digest
from bridge.http.application import application
from bridge.http.description import Resource, resources
from bridge.service import Service
from storage.catalogue import KeyRole
from tests.http.people import (
    PASSWORD,
    bearer,
    in_s,
    logged_in,
    make_key,
    make_operator,
    make_tenant,
    now,
    served,
)
from tests.service.household import settings

PUBLIC = {
    ("GET", "/health"),
    ("GET", "/ready"),
    ("POST", "/v1/login"),
}
"""What anybody may ask."""
ENDLESS = "text/event-stream"
"""The type of an answer that does not end by itself."""
SECRETS = re.compile(r"\$argon2|traceback|\.py\b|secret_hash|password_hash|sqlite|postgres", re.IGNORECASE)
"""What stands in no answer."""


def every_resource() -> list[Resource]:
    """As the application has them: one that is new can't be forgotten here."""
    service = Service(settings(Path("/nowhere"), {"jardim": {}}, {}))
    return sorted(resources(application(service, None)), key=lambda one: (one.path, one.method))


RESOURCES = every_resource()
GUARDED = [one for one in RESOURCES if (one.method, one.path) not in PUBLIC]
NAMES = [f"{one.method} {one.path}" for one in RESOURCES]


def needed(resource: Resource) -> tuple[set[str], KeyRole]:
    """The scopes and the least role that a resource asks for."""
    scopes: set[str] = {scope for guard in resource.guards for scope in guard.scopes}
    return scopes, max((guard.role for guard in resource.guards), key=LEVELS.__getitem__)


def filled(path: str, tenant: str, **more: str) -> str:
    """A path with something in each of its places."""
    places = {
        "tenant": tenant,
        "visit": str(uuid4()),
        "leg": "visitor",
        "label": "101",
        "version": "1",
        "id": "0123456789ab",
        "event": f"{uuid4()}-ended",
        "login": "nobody",
        **more,
    }
    return re.sub(r"\{(\w+)\}", lambda found: places[found[1]], path)


@dataclass(frozen=True)
class Answer:
    """What was answered; the text is empty for what does not end by itself."""

    status_code: int
    headers: httpx2.Headers
    text: str

    def json(self) -> Any:
        """What the text says."""
        return json.loads(self.text)


@dataclass
class House:
    """The service, and somebody who asks it without a key."""

    service: Service
    client: httpx2.AsyncClient

    async def ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, **more: Any
    ) -> Answer:
        """Ask, and see that nothing leaks."""
        async with self.client.stream(method, path, headers=headers, **more) as streamed:
            endless = streamed.headers.get("content-type", "").startswith(ENDLESS)
            text = "" if endless else (await streamed.aread()).decode()
            answer = Answer(streamed.status_code, streamed.headers, text)
        assert answer.status_code < 500, answer.text
        assert not SECRETS.search(answer.text), answer.text
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "content-security-policy" in answer.headers and "cache-control" in answer.headers
        return answer


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """A service with tenants `jardim` (of the files) and `bosque` (of the database)."""
    async with served(tmp_path) as (service, client):
        yield House(service, client)


def test_every_resource_is_guarded_but_for_those_that_are_meant_for_anybody() -> None:
    assert {(one.method, one.path) for one in RESOURCES if not one.guards} == PUBLIC
    assert all(isinstance(guard, Guard) for one in GUARDED for guard in one.guards)


async def test_nobody_gets_anything_without_a_key_that_holds(tmp_path: Path) -> None:
    # With a proxy before it nobody is a program on this machine.
    async with served(tmp_path, http_proxies=["192.0.2.1"]) as (service, client):
        await nothing_without_a_key(House(service, client))


async def nothing_without_a_key(house: House) -> None:
    """Ask for everything with what is no key."""
    key = await make_key(house.service, "admin")
    wrong = {
        "none": {},
        "revoked": bearer(await make_key(house.service, "admin", revoked=True)),
        "expired": bearer(await make_key(house.service, "admin", expires_at=in_s(-1))),
        "of another secret": bearer(f"{key[:-1]}{'0' if key[-1] != '0' else '1'}"),
        "of nobody": bearer(f"porteiro_ffffffffffff_{'0' * 64}"),
        "without its prefix": bearer(key.removeprefix("porteiro_")),
        "in another scheme": {"Authorization": f"Basic {key}"},
        "of no session": {"Cookie": f"porteiro_session={'A' * 43}"},
        "of the other cookie": {"Cookie": f"__Host-porteiro_session={'A' * 43}"},
    }
    for resource in GUARDED:
        path = filled(resource.path, "jardim")
        for what, headers in wrong.items():
            answer = await house.ask(resource.method, path, headers, content=b"{")
            assert answer.status_code == 401, (resource.method, path, what, answer.text)
            assert answer.headers["www-authenticate"] == "Bearer"
        assert (await house.ask(resource.method, path, bearer(key))).status_code != 401


async def test_each_role_may_what_its_scopes_say_and_a_key_may_be_narrowed(house: House) -> None:
    keys = {role: bearer(await make_key(house.service, role)) for role in SCOPES_OF}
    narrow = bearer(await make_key(house.service, "admin", scopes=("visits:read",)))
    for resource in GUARDED:
        scopes, least = needed(resource)
        path = filled(resource.path, "jardim")
        for role, headers in keys.items():
            answer = await house.ask(resource.method, path, headers, content=b"{")
            allowed = scopes <= SCOPES_OF[role] and LEVELS[role] >= LEVELS[least]
            assert (answer.status_code == 403) != allowed, (resource.method, path, role, answer.text)
        answer = await house.ask(resource.method, path, narrow, content=b"{")
        assert (answer.status_code == 403) != (scopes <= {"visits:read"}), (resource.method, path)


async def test_another_tenants_things_are_not_there(house: House) -> None:
    """Whatever names something of jardim is answered to bosque as if it named nothing at all."""
    await make_tenant(house.service, "bosque")
    other = bearer(await make_key(house.service, "admin", "bosque"))
    theirs = await make_key(house.service, "viewer", "jardim")
    await make_operator(house.service, "joana", "viewer", "jardim")
    visit = str(uuid4())
    start = {"endpoint": "test", "provider": "local"}
    await house.service.storage.append("jardim", visit, now(), "visit.started", start)
    named = {"id": theirs.split("_")[1], "login": "joana", "visit": visit}
    bodies: dict[str, dict[str, Any]] = {"PUT": {}, "PATCH": {}, "POST": {}}
    for resource in GUARDED:
        if "{" not in resource.path:
            continue
        real = filled(resource.path, "jardim", **named)
        nothing = filled(resource.path, "nirgends")
        told = []
        for path in (real, nothing):
            headers = {**other, "If-Match": '"1"'}
            body = bodies.get(resource.method)
            answer = await house.ask(resource.method, path, headers, json=body)
            assert answer.status_code in (404, 403, 415, 422), (resource.method, path, answer.text)
            told.append((answer.status_code, answer.text))
        assert told[0] == told[1], resource.path
    for path in (
        "/v1/tenants",
        "/v1/visits",
        "/v1/calls",
        "/v1/audit",
        "/v1/audit/heads",
        "/v1/audit/export?format=jsonl",
        "/v1/keys",
        "/v1/operators",
    ):
        answer = await house.ask("GET", path, other)
        assert answer.status_code == 200, (path, answer.text)
        assert not re.search("jardim|Jardim|joana|Joana", answer.text), (path, answer.text)
        if not path.endswith("/heads") and path != "/v1/tenants":
            with_filter = f"{path}{'&' if '?' in path else '?'}tenant=jardim"
            assert (await house.ask("GET", with_filter, other)).status_code == 404, path
    refused = await house.ask("POST", "/v1/calls", other, json={"uuid": str(uuid4()), "tenant": "jardim"})
    assert (refused.status_code, refused.json()["detail"]) == (
        422,
        "tenant: found 'jardim'; allowed: bosque",
    )


async def test_whoever_may_see_all_sees_the_services_own_chain_only_as_an_administrator(
    house: House,
) -> None:
    viewer = bearer(await make_key(house.service, "viewer"))
    admin = bearer(await make_key(house.service, "admin"))
    seen = [each["kind"] for each in (await house.ask("GET", "/v1/audit", admin)).json()["items"]]
    assert "service.started" in seen
    for headers, status in ((viewer, 404), (admin, 200)):
        assert (await house.ask("GET", "/v1/audit?service=true", headers)).status_code == status
    told = (await house.ask("GET", "/v1/audit", viewer)).json()["items"]
    assert all(each["tenant"] for each in told)
    assert "service.started" not in (await house.ask("GET", "/v1/audit/heads", viewer)).text


# ---- Operators and their sessions ------------------------------------------------------------------------


async def test_whoever_logs_in_has_a_session_until_they_leave_or_are_disabled(house: House) -> None:
    client = house.client
    await make_operator(house.service, "maria", "manager", "jardim")
    answer = await client.post("/v1/login", json={"login": " Maria", "password": PASSWORD})
    assert answer.status_code == 200, answer.text
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "Path=/" in cookie and "Secure" not in cookie
    me = (await client.get("/v1/me")).json()
    assert (me["id"], me["kind"], me["role"], me["tenant"]) == ("maria", "operator", "manager", "jardim")
    assert me["csrf_token"] == answer.json()["csrf_token"] and len(me["csrf_token"]) >= 43
    session = dict(client.cookies)["porteiro_session"]
    rows = await house.service.storage._rows("SELECT id_hash FROM operator_sessions")  # type: ignore[attr-defined]
    assert [row[0] for row in rows] == [digest(session)] and session not in str(rows)

    headers = {"X-CSRF-Token": me["csrf_token"], "Origin": str(client.base_url)}
    assert (await client.post("/v1/logout", headers=headers)).status_code == 204
    client.cookies.clear()
    client.cookies.set("porteiro_session", session)
    assert (await client.get("/v1/me")).status_code == 401  # the id itself is of no use any more

    client.cookies.clear()
    await logged_in(client, "maria")
    assert (await client.get("/v1/me")).status_code == 200
    await house.service.catalogue.change_operator("maria", disabled=True, by="command:test", at=now())
    assert (await client.get("/v1/me")).status_code == 401
    client.cookies.clear()
    again = await client.post("/v1/login", json={"login": "maria", "password": PASSWORD})
    assert again.status_code == 401


async def test_a_session_changes_things_from_our_own_pages_with_its_token_only(house: House) -> None:
    client = house.client
    await make_operator(house.service, "maria", "admin")
    right = await logged_in(client, "maria")
    own = right["Origin"]
    body = {"name": "a key", "role": "viewer"}
    assert (await client.post("/v1/keys", json=body, headers=right)).status_code == 201
    wrong: list[dict[str, str]] = [
        {},
        {"Origin": own},
        {"X-CSRF-Token": right["X-CSRF-Token"]},
        {**right, "X-CSRF-Token": ""},
        {**right, "X-CSRF-Token": right["X-CSRF-Token"][:-1]},
        {**right, "X-CSRF-Token": "é"},
        {**right, "Origin": "null"},
        {**right, "Origin": "https://evil.example"},
        {**right, "Origin": own.replace("http:", "https:")},
        {**right, "Origin": f"{own}.evil.example"},
        {**right, "Host": "evil.example"},
    ]
    for resource in GUARDED:
        if resource.method == "GET":
            continue
        for headers in wrong:
            raw = [(name.encode(), value.encode()) for name, value in headers.items()]
            answer = await client.request(
                resource.method, filled(resource.path, "jardim"), headers=raw, content=b"{}"
            )
            assert answer.status_code == 403, (resource.method, resource.path, headers, answer.text)
    assert len((await client.get("/v1/keys")).json()["items"]) == 1
    # A key is sent by programs alone: no page elsewhere can make a browser send it.
    client.cookies.clear()
    key = bearer(await make_key(house.service, "admin"))
    assert (await client.post("/v1/keys", json=body, headers=key)).status_code == 201


async def test_log_ins_of_another_site_are_refused(house: House) -> None:
    await make_operator(house.service, "maria", "viewer")
    body = {"login": "maria", "password": PASSWORD}
    for origin in ("null", "https://evil.example"):
        answer = await house.ask("POST", "/v1/login", {"Origin": origin}, json=body)
        assert answer.status_code == 403 and "set-cookie" not in answer.headers
    form = await house.ask("POST", "/v1/login", data=body)
    assert form.status_code == 415


async def test_whoever_guesses_waits_whether_or_not_there_is_such_an_account(house: House) -> None:
    await make_operator(house.service, "maria", "viewer")
    answers: dict[str, list[tuple[int, str]]] = {}
    for login in ("maria", "nobody"):
        said = answers.setdefault(login, [])
        for _ in range(7):
            answer = await house.ask("POST", "/v1/login", json={"login": login, "password": "not the one"})
            said.append((answer.status_code, answer.text))
    assert answers["maria"] == answers["nobody"]
    assert [status for status, _ in answers["maria"]] == [401] * 5 + [429] * 2
    # Nor does the right password help before the time is over; then it does.
    body = {"login": "maria", "password": PASSWORD}
    assert (await house.ask("POST", "/v1/login", json=body)).status_code == 429
    await asyncio.sleep(1.1)
    assert (await house.ask("POST", "/v1/login", json=body)).status_code == 200


async def test_many_guesses_at_once_are_counted_before_any_is_checked(house: House) -> None:
    await make_operator(house.service, "maria", "viewer")
    body = {"login": "maria", "password": "not the one"}
    asked = [house.ask("POST", "/v1/login", json=body) for _ in range(12)]
    statuses = [answer.status_code for answer in await asyncio.gather(*asked)]
    assert statuses.count(401) <= throttle.ACCOUNT.free and statuses.count(429) >= 7
    assert throttle.ACCOUNT.free + 1 < sessions.MOST_WAITING


async def test_an_address_that_tries_many_accounts_waits_too(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(throttle.ADDRESS.free):
        body = {"login": f"somebody-{number}", "password": "not the one"}
        assert (await house.ask("POST", "/v1/login", json=body)).status_code == 401
    await make_operator(house.service, "maria", "viewer")
    right = {"login": "maria", "password": PASSWORD}
    answer = await house.ask("POST", "/v1/login", json=right)
    assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1


async def test_programs_on_this_machine_register_calls_without_a_key_and_nobody_elses_page_does(
    house: House,
) -> None:
    async def register(**headers: str) -> int:
        body = {"uuid": str(uuid4()), "tenant": "jardim"}
        return (await house.ask("POST", "/v1/calls", headers, json=body)).status_code

    assert await register() == 201
    for name, value in (
        ("Origin", str(house.client.base_url)),
        ("Sec-Fetch-Site", "cross-site"),
        ("X-Forwarded-For", "127.0.0.1"),
        ("Forwarded", "for=127.0.0.1"),
        ("Via", "1.1 proxy"),
    ):
        assert await register(**{name: value}) == 401
    assert (await house.ask("GET", "/v1/visits")).status_code == 401


async def test_so_many_requests_of_one_caller_run_at_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "MOST_AT_ONCE", 2)
    one, other = (await make_key(house.service, "viewer"), await make_key(house.service, "viewer"))
    async with (
        house.client.stream("GET", "/v1/events", headers=bearer(one)) as first,
        house.client.stream("GET", "/v1/events", headers=bearer(one)) as second,
    ):
        assert (first.status_code, second.status_code) == (200, 200)
        assert (await house.ask("GET", "/v1/me", bearer(one))).status_code == 429
        assert (await house.ask("GET", "/v1/me", bearer(other))).status_code == 200
    async with asyncio.timeout(5):
        while (await house.ask("GET", "/v1/me", bearer(one))).status_code != 200:
            await asyncio.sleep(0.02)
