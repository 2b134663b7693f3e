"""What every request is held to: its size, its time, its way here, and the headers of its answer."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from bridge.http import bounds
from bridge.http.bounds import MAX_BODY_BYTES, MAX_QUERY_BYTES, MAX_UPLOAD_BYTES
from bridge.http.throttle import ACCOUNT, FORGOTTEN_S, MOST, Patience, Throttle, address_name
from bridge.service import Service
from tests.http.people import PASSWORD, bearer, logged_in, make_key, make_operator, make_tenant, served
from tests.http.test_access import House


async def raw(service: Service, request: str) -> str:
    """What is answered to these very bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.http_port)
    writer.write(request.encode())
    try:
        async with asyncio.timeout(10):
            return (await reader.read()).decode()
    finally:
        writer.close()


async def test_what_is_too_long_is_refused_before_it_is_all_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path) as (service, client):
        await make_tenant(service, "bosque")
        admin = bearer(await make_key(service, "admin"))
        house = House(service, client)
        json = {"Content-Type": "application/json"}
        for path, most in (
            ("/v1/keys", MAX_BODY_BYTES),
            ("/v1/tenants/bosque/directory/import", MAX_UPLOAD_BYTES),
        ):
            head = f"POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: {admin['Authorization']}\r\n"
            said = await raw(service, f"{head}Content-Length: {most + 1}\r\n\r\nx")
            assert said.startswith("HTTP/1.1 413") and str(most) in said

        async def in_pieces() -> AsyncIterator[bytes]:
            for _ in range(5):
                yield b"x" * 500

        monkeypatch.setattr(bounds, "MAX_BODY_BYTES", 2000)
        told = await house.ask("POST", "/v1/keys", {**admin, **json}, content=in_pieces())
        assert told.status_code == 413, told.text
        monkeypatch.undo()
        long = await house.ask("GET", f"/v1/visits?visitor={'x' * MAX_QUERY_BYTES}", admin)
        assert long.status_code == 414
        deep = await house.ask("POST", "/v1/keys", {**admin, **json}, content=b"[" * 200_000)
        assert deep.status_code in (400, 422)
        for number in (b"NaN", b"1e999", b'"\xff"', b"\xef\xbb\xbf{}"):
            body = b'{"name": %s, "role": "viewer"}' % number
            assert (await house.ask("POST", "/v1/keys", {**admin, **json}, content=body)).status_code in (
                400,
                422,
            )


async def test_a_body_that_does_not_come_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "BODY_S", 0.3)
    async with served(tmp_path) as (service, client):
        key = await make_key(service, "admin")
        head = f"POST /v1/keys HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n"
        said = await raw(service, f"{head}Content-Type: application/json\r\nContent-Length: 99\r\n\r\n{{")
        assert said.startswith("HTTP/1.1 408") and "found 1 bytes of a body" in said
        assert (await client.get("/health")).status_code == 200


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, and its key."""
    made, key = folder / "certificate.pem", folder / "key.pem"
    subject = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key)]
    subprocess.run([*command, "-out", str(made), *subject], check=True, capture_output=True)
    return made, key


async def test_over_tls_the_cookie_is_secure_and_browsers_are_told_to_stay_there(tmp_path: Path) -> None:
    made, key = certificate(tmp_path)
    tls: dict[str, Any] = {"http_certificate": str(made), "http_key_file": str(key)}
    async with served(tmp_path / "data", **tls) as (service, _):
        await make_operator(service, "maria", "viewer")
        url = f"https://127.0.0.1:{service.http_port}"
        trusted = ssl.create_default_context(cafile=str(made))
        async with httpx2.AsyncClient(base_url=url, verify=trusted, timeout=20) as client:
            answer = await client.post("/v1/login", json={"login": "maria", "password": PASSWORD})
            cookie = answer.headers["set-cookie"]
            assert cookie.startswith("__Host-porteiro_session=") and "Secure" in cookie
            assert "max-age" in answer.headers["strict-transport-security"]
            headers = {"X-CSRF-Token": answer.json()["csrf_token"], "Origin": url}
            assert (await client.post("/v1/logout", headers=headers)).status_code == 204


async def test_only_a_proxy_that_is_named_says_who_asks_and_how(tmp_path: Path) -> None:
    told = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https", "Host": "portaria.example"}
    async with served(tmp_path / "one", http_proxies=["127.0.0.0/8"]) as (service, client):
        await make_operator(service, "maria", "viewer")
        body = {"login": "maria", "password": PASSWORD}
        own = {**told, "Origin": "https://portaria.example"}
        answer = await client.post("/v1/login", json=body, headers=own)
        assert answer.status_code == 200 and "Secure" in answer.headers["set-cookie"]
        other = {**told, "Origin": "http://portaria.example"}
        assert (await client.post("/v1/login", json=body, headers=other)).status_code == 403
    async with served(tmp_path / "two") as (service, client):
        await make_operator(service, "maria", "viewer")
        answer = await client.post("/v1/login", json=body, headers=told)
        assert answer.status_code == 200 and "Secure" not in answer.headers["set-cookie"]
        await logged_in(client, "maria")


# ---- Throttling, by the clock ----------------------------------------------------------------------------


def test_the_wait_doubles_up_to_its_longest_and_is_forgotten() -> None:
    throttle = Throttle(Patience(free=2, longest_s=10))
    waits = []
    for _ in range(8):
        throttle.tried("a", 0.0)
        waits.append(throttle.wait_s("a", 0.0))
    assert waits == [0, 1, 2, 4, 8, 10, 10, 10]
    assert throttle.wait_s("a", 9.0) == 1.0 and throttle.wait_s("b", 0.0) == 0
    assert throttle.wait_s("a", FORGOTTEN_S + 1) == 0
    throttle.tried("a", FORGOTTEN_S + 1)
    assert throttle.wait_s("a", FORGOTTEN_S + 1) == 0
    throttle.right("a")
    assert throttle.wait_s("a", FORGOTTEN_S + 1) == 0


def test_what_was_our_own_fault_does_not_count_and_names_are_bounded() -> None:
    throttle = Throttle(ACCOUNT)
    for _ in range(50):
        throttle.tried("a", 0.0)
        throttle.undone("a")
    assert throttle.wait_s("a", 0.0) == 0
    for number in range(MOST + 10):
        throttle.tried(str(number), 0.0)
    assert len(throttle._records) == MOST


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("", ""),
    ],
)
def test_one_customer_of_ipv6_is_one_address(host: str, name: str) -> None:
    assert address_name(host) == name
