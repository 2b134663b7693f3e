"""`porteiro check` on the network of this machine: the service's own ports, and the gate."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bridge import ports_check
from bridge.commands.check import neighbours
from bridge.service import Service
from bridge.settings import Settings
from tests.ports import free_port
from tests.service.household import settings as settings_for

SECRETS = {"WS_USER": "asterisk", "WS_PASSWORD": "a password"}
GUARDED = {"websocket_username_env": "WS_USER", "websocket_password_env": "WS_PASSWORD"}


def house(data: Path, *, gate: dict[str, Any] | None = None, **service: Any) -> Settings:
    """One tenant, with ports of its own and a WebSocket port."""
    ports = {name: free_port() for name in ("visitor_port", "resident_port", "websocket_port")}
    tenant = {**GUARDED, **({"gate": gate} if gate else {})}
    return settings_for(data, {"jardim": tenant}, SECRETS, **{**ports, **service})


@pytest.fixture
def self_signed(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that nobody vouches for, and its key."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=gate"]
    made += ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(certificate), "-keyout", str(key)]
    subprocess.run(made, check=True, capture_output=True)
    return certificate, key


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[None]:
    service = Service(settings)
    await service.start()
    try:
        yield
    finally:
        await service.stop()


@asynccontextmanager
async def somebody(port: int, says: bytes | None) -> AsyncIterator[None]:
    """Another program on a port; None: one that never answers."""
    over = asyncio.Event()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if says is None:
            await over.wait()
        else:
            await reader.readline()
            writer.write(says)
        writer.close()

    server = await asyncio.start_server(meet, "127.0.0.1", port)
    try:
        yield
    finally:
        over.set()
        server.close()


async def test_before_the_start_the_ports_are_free(tmp_path: Path) -> None:
    settings = house(tmp_path)
    answers, troubles = await neighbours(settings)
    assert not troubles
    free = "is free; `porteiro serve` will listen on it"
    assert answers == [
        f"jardim: visitors, port {settings.tenants['jardim'].visitor_port}: {free}",
        f"jardim: residents, port {settings.tenants['jardim'].resident_port}: {free}",
        f"Asterisk's WebSocket channels, port {settings.service.websocket_port}: {free}",
    ]


async def test_a_running_service_answers_on_all_of_them(tmp_path: Path) -> None:
    settings = house(tmp_path)
    async with running(settings):
        answers, troubles = await neighbours(settings)
    assert not troubles
    assert len(answers) == 3 and all(line.endswith(": answers") for line in answers)


async def test_the_port_for_freeswitchs_streams_is_asked_too(tmp_path: Path) -> None:
    settings = house(tmp_path, audio_stream_port=free_port())
    port = settings.service.audio_stream_port
    assert port is not None
    async with running(settings):
        answers, troubles = await neighbours(settings)
    assert not troubles
    assert f"FreeSWITCH's audio streams, port {port}: answers" in answers
    async with somebody(port, b"HTTP/1.1 404 Not Found\r\n\r\n"):
        _, (trouble,) = await neighbours(settings)
    assert trouble.startswith("service.audio_stream_port: FreeSWITCH's audio streams, port ")
    assert "answers 404 for /stream/" in trouble


async def test_a_running_service_answers_over_tls(tmp_path: Path, self_signed: tuple[Path, Path]) -> None:
    certificate, key = self_signed
    settings = house(tmp_path, websocket_certificate=str(certificate), websocket_key=str(key))
    async with running(settings):
        answers, troubles = await neighbours(settings)
        assert not troubles and answers[-1].endswith(": answers")
        certificate.write_text("no certificate")
        _, troubles = await neighbours(settings)
    assert len(troubles) == 1 and "service.websocket_certificate can't be used" in troubles[0]


async def test_a_program_that_takes_leave_as_we_do_is_not_taken_for_the_service(tmp_path: Path) -> None:
    settings = house(tmp_path)
    port = settings.tenants["jardim"].visitor_port
    async with somebody(port, b""):
        _, troubles = await neighbours(settings)
    assert troubles == [
        f"tenants.jardim.visitor_port: jardim: visitors, port {port}: another program has it: no porteiro "
        f"serves with {tmp_path / 'porteiro.db'} now; stop that program, or choose another port"
    ]


async def test_a_service_that_runs_with_another_password_is_said(tmp_path: Path) -> None:
    settings = house(tmp_path)
    async with running(settings):
        settings._environ = {**SECRETS, "WS_PASSWORD": "a new one"}
        _, troubles = await neighbours(settings)
    assert len(troubles) == 1 and "a new one" not in troubles[0]
    assert "refuses the user and password of jardim; restart it with WS_USER and WS_PASSWORD" in troubles[0]


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "answers 404 for /asterisk/jardim/visitor; restart the service"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "answers no HTTP for /asterisk/jardim/visitor"),
        (b"x" * 100_000, "answers no HTTP"),
        (b"", "answers no HTTP"),
        (None, "gave no answer in 0.3 s; restart the service, or free the port"),
    ],
)
async def test_another_program_on_the_websocket_port_is_said(
    says: bytes | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports_check, "ANSWER_S", 0.3)
    settings = house(tmp_path)
    assert settings.service.websocket_port is not None
    async with somebody(settings.service.websocket_port, says):
        answers, (trouble,) = await neighbours(settings)
    assert trouble.startswith("service.websocket_port: Asterisk's WebSocket channels, port ")
    assert words in trouble
    assert len(answers) == 2


@pytest.mark.parametrize("role", ["visitor", "resident"])
async def test_a_port_that_hangs_is_said(role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports_check, "ANSWER_S", 0.3)
    settings = house(tmp_path)
    async with somebody(getattr(settings.tenants["jardim"], f"{role}_port"), None):
        _, (trouble,) = await neighbours(settings)
    assert trouble.startswith(f"tenants.jardim.{role}_port: jardim: {role}s, port ")
    assert "gave no answer in 0.3 s" in trouble


async def test_an_address_of_another_machine_is_said(tmp_path: Path) -> None:
    _, troubles = await neighbours(house(tmp_path, listen=["192.0.2.1"]))
    assert len(troubles) == 3
    assert all("name addresses of this machine in service.listen" in trouble for trouble in troubles)


# ---------------------------------------------------------------------------------------------- the gate


def gate(url: str, **own: Any) -> dict[str, Any]:
    return {"kind": "http", "url": url, **own}


async def test_a_gate_that_takes_connections_is_well_and_is_asked_nothing(tmp_path: Path) -> None:
    port, read = free_port(), asyncio.get_running_loop().create_future()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            read.set_result(await reader.read())
        except ConnectionResetError:
            read.set_result(b"")
        writer.close()

    server = await asyncio.start_server(meet, "127.0.0.1", port)
    url = f"http://127.0.0.1:{port}/open?door=1"
    answers, troubles = await neighbours(house(tmp_path, gate=gate(url)))
    assert not troubles
    where = f"jardim: the gate at http://127.0.0.1:{port} takes connections; nothing was asked of it"
    assert where in answers
    assert await asyncio.wait_for(read, 5) == b""
    server.close()


async def test_a_gate_that_is_off_is_said(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}/open"
    _, (trouble,) = await neighbours(house(tmp_path, gate=gate(url)))
    assert trouble.startswith("tenants.jardim.gate: the gate at http://127.0.0.1:")
    assert "does not answer: Connection refused; is it switched on" in trouble


async def test_a_gate_with_a_certificate_of_its_own_is_said(
    tmp_path: Path, self_signed: tuple[Path, Path]
) -> None:
    certificate, key = self_signed
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=tls)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/open"
    _, (trouble,) = await neighbours(house(tmp_path, gate=gate(url)))
    assert "has a certificate that is not trusted" in trouble and "gate.ca_file" in trouble
    _, troubles = await neighbours(house(tmp_path, gate=gate(url, ca_file=str(certificate))))
    assert not troubles
    server.close()
