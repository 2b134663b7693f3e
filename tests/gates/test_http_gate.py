"""A door over HTTP: it is asked once, and only what means "opened" counts as opened."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bridge.gates.base import GateAnswer, GateOrder
from bridge.gates.http import HttpGate, at_path, judge
from bridge.settings import GateSuccess
from bridge.settings import HttpGate as HttpGateSettings

ORDER = GateOrder(
    visit="6e0c7a4e-52a2-4a38-8f0b-3d2c5b3c9a11",
    tenant="jardim",
    apartment="101",
    at=datetime(2026, 11, 21, 12, 0, tzinfo=UTC),
)
SECRETS = {"GATE_USER": "porteiro", "GATE_PASSWORD": "s3nh@/x"}
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"
DOOR = Path(__file__).with_name("door.pem")
NONCE = 'Digest realm="door", qop="auth", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", algorithm={}'


@dataclass
class Device:
    """A door controller: gives each request the next answer of its list, and keeps what it was asked."""

    answers: list[bytes | Callable[[bytes], bytes]]
    delay_s: float = 0.0
    hang: bool = False
    digest: bool = False
    port: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)
    calls: dict[asyncio.Task[Any], asyncio.StreamWriter] = field(default_factory=dict)
    requests: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.calls[task] = writer
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", head)
                body = await reader.readexactly(int(length[1])) if length else b""
                self.requests.append(head + body)
                if self.hang:
                    await self.over.wait()
                await asyncio.sleep(self.delay_s)
                answer = self.answers[min(len(self.requests), len(self.answers)) - 1]
                payload = answer(head) if callable(answer) else answer
                writer.write(payload)
                await writer.drain()
                if b"Content-Length" not in payload:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def stop(self) -> None:
        self.over.set()
        for writer in self.calls.values():
            writer.close()
        await asyncio.gather(*self.calls)
        for writer in self.calls.values():
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    @property
    def openings(self) -> list[bytes]:
        """Requests that would have moved the door: with a digest device, the authorized ones."""
        return [r for r in self.requests if not self.digest or b"authorization: digest" in r.lower()]


@asynccontextmanager
async def running(device: Device, tls: bool = False) -> AsyncIterator[Device]:
    context = None
    if tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(DOOR)
    server = await asyncio.start_server(device.serve, "127.0.0.1", 0, ssl=context)
    device.port = server.sockets[0].getsockname()[1]
    try:
        yield device
    finally:
        server.close()
        await device.stop()


def gate_for(port: int, **changes: Any) -> HttpGate:
    tree: dict[str, Any] = {
        "kind": "http",
        "url": f"http://127.0.0.1:{port}/open",
        "timeout_s": 2.0,
        **changes,
    }
    return HttpGate(HttpGateSettings.model_validate(tree), lambda name: SECRETS.get(name or ""))


async def ask(device: Device, **changes: Any) -> GateAnswer:
    async with running(device):
        return await gate_for(device.port, **changes).open(ORDER)


def plain(status: int, body: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


def challenge(algorithm: str = "MD5") -> bytes:
    header = NONCE.format(algorithm).encode()
    return b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: %s\r\nContent-Length: 2\r\n\r\nno" % header


# ------------------------------------------------------------------------------------------ what it asks


async def test_the_request_is_what_the_settings_say() -> None:
    device = Device([OK])
    answer = await ask(
        device,
        method="PUT",
        headers={"X-Visit": "{visit}"},
        headers_env={"X-Key": "GATE_PASSWORD"},
        body='{"apartment": "{apartment}", "tenant": "{tenant}", "at": "{at}"}',
    )
    assert answer.opened and not answer.unknown, answer
    (request,) = device.requests
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"PUT /open HTTP/1.1\r\n")
    assert f"X-Visit: {ORDER.visit}".encode() in head
    assert b"X-Key: s3nh@/x" in head
    assert b"Content-Type: application/json" in head
    assert body == b'{"apartment": "101", "tenant": "jardim", "at": "2026-11-21T12:00:00+00:00"}'


@pytest.mark.parametrize(
    ("apartment", "target"),
    [
        ("101", "101"),
        ("../reboot", "..%2Freboot"),
        ("1?x=1&y#z", "1%3Fx%3D1%26y%23z"),
        ("1 B", "1%20B"),
        ("é", "%C3%A9"),
    ],
)
async def test_an_apartment_stays_within_its_place_in_the_url(apartment: str, target: str) -> None:
    device = Device([OK])
    async with running(device):
        gate = gate_for(
            device.port, url=f"http://127.0.0.1:{device.port}/door/{{apartment}}/open?n={{apartment}}"
        )
        await gate.open(GateOrder(ORDER.visit, ORDER.tenant, apartment, ORDER.at))
    assert device.requests[0].split(b" ")[1] == f"/door/{target}/open?n={target}".encode()


async def test_an_apartment_of_dots_does_not_climb_in_the_url() -> None:
    device = Device([OK])
    async with running(device):
        gate = gate_for(device.port, url=f"http://127.0.0.1:{device.port}/door/{{apartment}}/open")
        await gate.open(GateOrder(ORDER.visit, ORDER.tenant, "..", ORDER.at))
    assert device.requests[0].startswith(b"POST /door/%2E%2E/open ")


async def test_an_apartment_adds_no_header_and_no_json() -> None:
    device = Device([OK])
    async with running(device):
        gate = gate_for(device.port, headers={"X-Apartment": "{apartment}"}, body='{"a": "{apartment}"}')
        evil = '1", "all": "doors\r\nX-Evil: 1'
        await gate.open(GateOrder(ORDER.visit, ORDER.tenant, evil, ORDER.at))
    head, _, body = device.requests[0].partition(b"\r\n\r\n")
    assert b"\r\nX-Evil" not in head
    assert body == b'{"a": "1\\", \\"all\\": \\"doors\\r\\nX-Evil: 1"}'


async def test_credentials_for_a_device_that_wants_them_in_the_url_are_escaped() -> None:
    device = Device([OK])
    async with running(device):
        gate = gate_for(
            device.port,
            method="GET",
            url=f"http://127.0.0.1:{device.port}/fcgi/do?action=OpenDoor&UserName={{username}}&Password={{password}}",
            auth={"username_env": "GATE_USER", "password_env": "GATE_PASSWORD"},
        )
        await gate.open(ORDER)
    assert device.requests[0].startswith(
        b"GET /fcgi/do?action=OpenDoor&UserName=porteiro&Password=s3nh%40%2Fx "
    )


async def test_basic_credentials_go_with_the_only_request() -> None:
    device = Device([OK])
    answer = await ask(
        device, auth={"kind": "basic", "username_env": "GATE_USER", "password_env": "GATE_PASSWORD"}
    )
    assert answer.opened
    (request,) = device.requests
    assert b"Authorization: Basic cG9ydGVpcm86czNuaEAveA==" in request


DIGEST = {"kind": "digest", "username_env": "GATE_USER", "password_env": "GATE_PASSWORD"}


@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256", "MD5-sess"])
async def test_a_digest_challenge_is_answered_once(algorithm: str) -> None:
    device = Device([challenge(algorithm), OK], digest=True)
    answer = await ask(device, auth=DIGEST)
    assert answer.opened, answer
    assert len(device.requests) == 2
    assert b'username="porteiro"' in device.requests[1]
    assert len(device.openings) == 1


async def test_a_wrong_password_is_not_tried_again() -> None:
    device = Device([challenge()], digest=True)
    answer = await ask(device, auth=DIGEST)
    assert answer == GateAnswer(False, "the device answered 401", answer.ms)
    assert len(device.requests) == 2


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"WWW-Authenticate: Basic\r\n",
        b"WWW-Authenticate: Digest rubbish\r\n",
        b"WWW-Authenticate: Digest \r\n",
        b'WWW-Authenticate: Digest realm="x", nonce="y", algorithm=NONE\r\n',
        b'WWW-Authenticate: Digest realm="x", nonce="y", qop="auth-int"\r\n',
    ],
)
async def test_a_challenge_that_cannot_be_answered_is_an_answer(header: bytes) -> None:
    device = Device([b"HTTP/1.1 401 No\r\n" + header + b"Content-Length: 0\r\n\r\n"], digest=True)
    answer = await ask(device, auth=DIGEST)
    assert not answer.opened and not answer.unknown
    assert len(device.requests) == 1


# ------------------------------------------------------------------------------- what counts as opened


@pytest.mark.parametrize(
    ("answer", "success", "opened", "unknown"),
    [
        (plain(200, b"OK"), {}, True, False),
        (plain(204), {"status": [200, 204]}, True, False),
        (plain(200, b"OK\r\n"), {"body_contains": "OK"}, True, False),
        (plain(200, b'{"success": true}'), {"json_path": "success", "json_equals": True}, True, False),
        (plain(200, b'{"r": [{"v": 7}]}'), {"json_path": "r.0.v", "json_equals": 7}, True, False),
        # the device said no, in whatever way it has
        (plain(200, b"Error: locked"), {"body_contains": "OK"}, False, False),
        (plain(200, b'{"success": false}'), {"json_path": "success", "json_equals": True}, False, False),
        (plain(200, b'{"success": 1}'), {"json_path": "success", "json_equals": True}, False, False),
        (plain(200, b'{"other": true}'), {"json_path": "success", "json_equals": True}, False, False),
        (plain(403), {}, False, False),
        (plain(404), {}, False, False),
        # it may have opened; nobody but a person may try again
        (plain(204), {}, False, True),
        (plain(302), {}, False, True),
        (plain(500), {}, False, True),
        (plain(200, b"<html>"), {"json_path": "success", "json_equals": True}, False, True),
        (plain(200, b"[" * 60_000), {"json_path": "success", "json_equals": True}, False, True),
        (b"SSH-2.0-OpenSSH_9.2\r\n", {}, False, True),
        (b"\x00\xff" * 500, {}, False, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nOK", {}, False, True),
        (b"", {}, False, True),
    ],
)
async def test_what_an_answer_means(
    answer: bytes, success: dict[str, Any], opened: bool, unknown: bool
) -> None:
    device = Device([answer])
    if b"Content-Length: 50" in answer:
        device.answers = [answer.replace(b"Content-Length", b"content-length")]  # and hangs up after it
    got = await ask(device, success=success)
    assert (got.opened, got.unknown) == (opened, unknown), got
    assert len(device.requests) == 1


async def test_a_redirect_is_not_followed() -> None:
    device = Device([b"HTTP/1.1 307 X\r\nLocation: /open\r\nContent-Length: 0\r\n\r\n"])
    assert not (await ask(device)).opened
    assert len(device.requests) == 1


async def test_a_dead_device_is_closed_and_known_to_be() -> None:
    async with running(Device([OK])) as device:
        port = device.port
    answer = await gate_for(port).open(ORDER)
    assert answer == GateAnswer(False, "the device can't be reached", answer.ms)


async def test_a_slow_device_is_left_at_the_deadline_and_the_door_is_unknown() -> None:
    device = Device([OK], hang=True)
    answer = await ask(device, timeout_s=0.3)
    assert answer == GateAnswer(False, "no answer in 0.3 s", answer.ms, unknown=True)
    assert 250 <= answer.ms < 2000
    assert len(device.requests) == 1


async def test_a_device_that_drips_its_answer_is_left_at_the_deadline() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(40):
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.05)
        writer.close()
        over.set()

    over = asyncio.Event()
    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    answer = await gate_for(server.sockets[0].getsockname()[1], timeout_s=0.3).open(ORDER)
    server.close()
    await over.wait()
    assert not answer.opened and answer.unknown and answer.ms < 1500


async def test_an_endless_answer_is_read_only_so_far() -> None:
    device = Device([b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 5_000_000])
    answer = await ask(device, success={"body_contains": "OK"})
    assert not answer.opened


async def test_a_device_whose_certificate_is_not_trusted_is_not_asked() -> None:
    device = Device([OK])
    async with running(device, tls=True):
        answer = await gate_for(device.port, url=f"https://127.0.0.1:{device.port}/open").open(ORDER)
    assert answer == GateAnswer(False, "the device's certificate is not trusted", answer.ms)
    assert device.requests == []


@pytest.mark.parametrize("trust", [{"ca_file": str(DOOR)}, {"verify_tls": False}])
async def test_a_device_that_signs_its_own_certificate_can_be_trusted(trust: dict[str, Any]) -> None:
    device = Device([OK])
    async with running(device, tls=True):
        answer = await gate_for(device.port, url=f"https://127.0.0.1:{device.port}/open", **trust).open(ORDER)
    assert answer.opened, answer


async def test_a_device_that_hangs_in_the_handshake_was_not_asked() -> None:
    device = Device([OK])
    async with running(device):
        url = f"https://127.0.0.1:{device.port}/open"
        answer = await gate_for(device.port, url=url, timeout_s=0.3).open(ORDER)
    assert answer == GateAnswer(False, "the device can't be reached", answer.ms)
    assert device.requests == []


async def test_no_secret_is_in_the_answer() -> None:
    for answers in ([plain(500, b"s3nh@/x")], [b"s3nh@/x\r\n\r\n"]):
        answer = await ask(
            Device(list(answers)),
            url="http://127.0.0.1:1/{password}",
            auth={"username_env": "GATE_USER", "password_env": "GATE_PASSWORD"},
        )
        assert "s3nh" not in answer.detail


# ------------------------------------------------------------------------------------------- for all


ANSWERS = st.one_of(
    st.sampled_from(
        [OK, challenge(), challenge("SHA-256"), challenge("garbage"), plain(307), plain(503), b""]
    ),
    st.binary(max_size=60),
    st.binary(max_size=40).map(lambda raw: b"HTTP/1.1 " + raw + b"\r\n\r\n"),
    st.binary(max_size=40).map(
        lambda raw: b"HTTP/1.1 401 X\r\nWWW-Authenticate: Digest " + raw + b"\r\nContent-Length: 0\r\n\r\n"
    ),
)


@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(answers=st.lists(ANSWERS, min_size=1, max_size=4), digest=st.booleans())
def test_whatever_the_device_answers_the_door_is_asked_once(answers: list[Any], digest: bool) -> None:
    device = Device(answers, digest=digest)
    answer = asyncio.run(ask(device, timeout_s=1.0, **({"auth": DIGEST} if digest else {})))
    assert len(device.openings) <= 1
    assert len(device.requests) <= (2 if digest else 1)
    if answer.opened:
        assert device.requests and b" 200 " in b"".join(answers)
        assert not answer.unknown


@given(body=st.binary(max_size=200), status=st.integers(200, 599), path=st.sampled_from(["", "a", "a.0.b"]))
def test_judging_never_raises(body: bytes, status: int, path: str) -> None:
    success = GateSuccess(json_path=path, json_equals=True if path else None)
    opened, detail, unknown = judge(success, status, body)
    assert detail
    assert not (opened and unknown)
    assert not opened or status == 200


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    ),
    st.text(alphabet="a0.²-", min_size=1, max_size=6),
)
def test_a_path_never_raises(document: Any, path: str) -> None:
    at_path(document, path)
