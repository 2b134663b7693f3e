"""The HTTP API's settings, and what `porteiro check` and `porteiro health` say of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bridge.commands.check import neighbours, summary
from bridge.commands.health import ask, unwell
from bridge.service import Service
from bridge.settings import Settings, SettingsError, build
from tests.ports import free_port
from tests.service.household import settings as settings_for

KEY = "a-key-of-21-characters"


def house(data: Path, key: str = KEY, **service: Any) -> Settings:
    """One tenant, with ports of its own."""
    ports = {name: free_port() for name in ("visitor_port", "resident_port", "http_port")}
    return settings_for(data, {"jardim": {}}, {"API_KEY": key}, **{**ports, **service})


def problems(data: Path, tenants: dict[str, dict[str, Any]], **service: Any) -> list[str]:
    """What keeps such settings from being any."""
    with pytest.raises(SettingsError) as caught:
        settings_for(data, tenants, {}, **service)
    return caught.value.problems


def test_the_port_is_open_to_this_machine_unless_somebody_says_otherwise() -> None:
    service = build({}).service
    assert (service.http_port, service.http_listen) == (8082, ("127.0.0.1", "::1"))
    assert service.http_on and not service.http_public
    assert not build({"service": {"http_listen": []}}).service.http_on


@pytest.mark.parametrize(
    "said", [{"http_listen": ["0.0.0.0"]}, {"http_listen": ["127.0.0.1", "::"]}, {"http_proxies": ["::1"]}]
)
def test_where_others_can_ask_nobody_registers_calls_without_a_key(
    said: dict[str, Any], tmp_path: Path
) -> None:
    settings = house(tmp_path, **said)
    assert settings.service.http_public
    assert any("calls are registered with an API key" in line for line in summary(settings))


@pytest.mark.parametrize("name", ["http_certificate", "http_key_file"])
def test_a_certificate_and_its_key_go_together(name: str, tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, {"jardim": {}}, **{name: "x.pem"})
    assert problem.endswith("http_certificate and http_key_file go together")


@pytest.mark.parametrize("key", ["", "short", "with a space in between", "ção-ção-ção-ção-ção"])
def test_a_key_that_is_none_is_said_before_the_start_and_not_repeated(key: str, tmp_path: Path) -> None:
    (problem,) = house(tmp_path, key, http_key_env="API_KEY").problems_at_start()
    assert problem.startswith("service.http_key_env: the environment variable API_KEY ")
    assert not key or key not in problem


def test_a_port_a_number_and_a_tenant_are_one_owners(tmp_path: Path) -> None:
    tenants: dict[str, dict[str, Any]] = {"jardim": {"numbers": ["9000"]}, "bosque": {"numbers": ["9000"]}}
    said = problems(tmp_path, tenants, http_port=8083, websocket_port=8083)
    assert said == [
        "service.http_port: found 8083, which service.websocket_port has; allowed: another port",
        "tenants.bosque.numbers: found '9000', which tenants.jardim has; allowed: a number that is one "
        "tenant's alone",
    ]
    (said_of_port,) = problems(tmp_path, {"jardim": {"visitor_port": 8083}}, http_port=8083)
    assert said_of_port.startswith("tenants.jardim.visitor_port: found 8083, which service.http_port has")


def test_what_must_be_registered_needs_a_place_to_register(tmp_path: Path) -> None:
    (said,) = problems(tmp_path, {"jardim": {"registration": "required"}}, http_listen=[])
    assert said.startswith("tenants.jardim.registration: found 'required', and no service.http_listen")


async def test_check_and_health_know_a_service_that_runs_and_one_that_does_not(tmp_path: Path) -> None:
    settings = house(tmp_path, http_key_env="API_KEY")
    port = settings.service.http_port
    where = f"console and HTTP API on 127.0.0.1, ::1, port {port}"
    assert f"{where}; calls are registered with the key, or an API key" in summary(settings)
    answers, troubles = await neighbours(settings)
    assert not troubles
    assert f"the HTTP API, port {port}: is free; `porteiro serve` will listen on it" in answers
    lines = await asyncio.to_thread(unwell, settings)
    assert f"service.http_port: port {port} on 127.0.0.1: Connection refused" in lines

    service = Service(settings)
    await service.start()
    try:
        answers, troubles = await neighbours(settings)
        assert not troubles and f"the HTTP API, port {port}: answers" in answers
        assert await asyncio.to_thread(unwell, settings) == []
        settings._environ = {**settings._environ, "API_KEY": "another-key-altogether"}
        _, troubles = await neighbours(settings)
        assert troubles == [
            f"service.http_port: the HTTP API, port {port}: the running service refuses the key; restart it "
            "with API_KEY as it is now"
        ]
    finally:
        await service.stop()


@pytest.mark.parametrize(
    ("says", "check", "health"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "answers 404 for /v1/me", "/health answers 404"),
        (b"220 mail ready\r\n", "answers no HTTP for /v1/me", "no HTTP (BadStatusLine)"),
    ],
)
async def test_another_program_on_the_port_is_said(
    says: bytes, check: str, health: str, tmp_path: Path
) -> None:
    settings = house(tmp_path)
    port = settings.service.http_port
    assert port is not None

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(says)
        writer.close()

    other = await asyncio.start_server(meet, "127.0.0.1", port)
    try:
        _, troubles = await neighbours(settings)
        assert len(troubles) == 1
        assert troubles[0].startswith(
            f"service.http_port: the HTTP API, port {port}: whoever listens there {check}"
        )
        assert await asyncio.to_thread(ask, "127.0.0.1", port) == health
    finally:
        other.close()


async def test_a_port_that_is_taken_keeps_the_service_from_starting(tmp_path: Path) -> None:
    settings = house(tmp_path)
    other = await asyncio.start_server(
        lambda _, writer: writer.close(), "127.0.0.1", settings.service.http_port
    )
    service = Service(settings)
    try:
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {settings.service.http_port}"):
            await service.start()
    finally:
        await service.stop()
        other.close()
