"""Whether the ports that the PBX connects to can be had, or answer, for `porteiro check`.

It is asked before the service is started as well as beside a running one. Nothing is called: each connection
is ended before it says which call it is, which the service notes as one line of its log.
"""

from __future__ import annotations

import asyncio
import errno
import http
import os
import ssl
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bridge.endpoints.audio_stream_server import PREFIX
from bridge.endpoints.listening import open_listeners
from bridge.endpoints.websocket_connection import tls_of
from bridge.settings import Settings, Tenant
from storage.lock import in_use

ANSWER_S = 3.0
"""For one port. A service whose event loop runs takes leave of us within milliseconds."""

OURS = (http.HTTPStatus.UPGRADE_REQUIRED, http.HTTPStatus.SERVICE_UNAVAILABLE)
"""How our WebSocket port answers a request for a tenant's path that wants no WebSocket."""
WHO = "/v1/me"
"""Of the HTTP API: ours tells whoever may register calls who they are."""


class _Unwell(Exception):
    """The port is taken, and not by a service that would take the PBX's calls."""


@dataclass(frozen=True, slots=True)
class _Port:
    """One to listen on: what it is for, and which setting says so."""

    of: str
    number: int
    setting: str
    hosts: tuple[str, ...]
    listen: str = "service.listen"
    """The setting that has the hosts."""


async def look_at_ports(settings: Settings) -> tuple[list[str], list[str]]:
    """One line for each port that is well, and one for each that is not, with what to do."""
    answers: list[str] = []
    troubles: list[str] = []
    for port in _ports(settings):
        try:
            free = await _is_free(port)
            if not free:
                await _answers(settings, port)
        except _Unwell as error:
            troubles.append(f"{port.setting}: {port.of}, port {port.number}: {error}")
        else:
            state = "is free; `porteiro serve` will listen on it" if free else "answers"
            answers.append(f"{port.of}, port {port.number}: {state}")
    return answers, troubles


def _ports(settings: Settings) -> Iterator[_Port]:
    """All of them; one that is chosen at the start (0) can't be asked."""
    service = settings.service
    for tenant in settings.tenants.values():
        for role, number in (("visitor", tenant.visitor_port), ("resident", tenant.resident_port)):
            if number:
                setting = f"tenants.{tenant.id}.{role}_port"
                yield _Port(f"{tenant.id}: {role}s", number, setting, service.listen)
    if service.websocket_port:
        of = "Asterisk's WebSocket channels"
        yield _Port(of, service.websocket_port, "service.websocket_port", service.listen)
    if service.audio_stream_port:
        of = "FreeSWITCH's audio streams"
        yield _Port(of, service.audio_stream_port, "service.audio_stream_port", service.listen)
    if service.http_on and service.http_port:
        of, listen = "the HTTP API", "service.http_listen"
        yield _Port(of, service.http_port, "service.http_port", service.http_listen, listen)


async def _is_free(port: _Port) -> bool:
    """Whether the service could listen there.

    Raises:
        _Unwell: nobody does, and it could not either.
    """
    try:
        listeners = await open_listeners(port.hosts, port.number)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        raise _Unwell(f"{error.strerror or error}; {_advice(error, port)}") from None
    for listener in listeners:
        listener.close()
    return True


def _advice(error: OSError, port: _Port) -> str:
    if error.errno == errno.EACCES:
        return "choose a port above 1023, or give the service the right to this one"
    return f"name addresses of this machine in {port.listen}"


async def _answers(settings: Settings, port: _Port) -> None:
    """Ask whoever listens there.

    Raises:
        _Unwell: it is not a service that would take these calls.
    """
    host = _reachable(port.hosts[0])
    try:
        async with asyncio.timeout(ANSWER_S):
            if port.setting == "service.http_port":
                await _ask_http(settings, host, port.number)
            elif port.setting == "service.audio_stream_port":
                await _ask_streams(settings, host, port.number)
            elif port.setting == "service.websocket_port":
                for tenant in settings.tenants.values():
                    await _ask_websocket(settings, tenant, host, port.number)
            else:
                await _take_leave(host, port.number)
    except TimeoutError:
        raise _Unwell(
            f"whoever listens there gave no answer in {ANSWER_S:g} s; restart the service, or free the port"
        ) from None
    except OSError as error:
        raise _Unwell(
            f"it is taken, but at {host}: {_plain(error)}; stop the program that has it, or choose another"
        ) from None
    database = settings.service.locked_path
    if in_use(database) is None:  # many a program takes leave as politely
        raise _Unwell(
            f"another program has it: no porteiro serves with {database} now; stop that program, or choose "
            "another port"
        )


async def _take_leave(host: str, port: int) -> None:
    """Connect, close our half, and wait for the other side's end."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write_eof()
        while await reader.read(4096):
            pass
    except ConnectionResetError:
        return  # also a goodbye
    finally:
        writer.transport.abort()


async def _ask_http(settings: Settings, host: str, port: int) -> None:
    """Ask as the PBX does, but to register nothing.

    Raises:
        _Unwell: no call could be registered there.
        OSError: it can't be asked.
    """
    variable = settings.service.http_key_env
    key = settings.secret(variable)
    authorization = f"Authorization: Bearer {key}\r\n" if key else ""
    service = settings.service
    tls = _tls("service.http_certificate", service.http_certificate, service.http_key_file)
    status = await _status(host, port, WHO, tls, authorization)
    if status == http.HTTPStatus.OK:
        return
    if status == http.HTTPStatus.UNAUTHORIZED and not key and service.http_public:
        return  # whoever registers calls has an API key, which we have not
    if status == http.HTTPStatus.UNAUTHORIZED:
        holds = f"{variable} as it is now" if variable else "service.http_key_env as it is now"
        raise _Unwell(f"the running service refuses the key; restart it with {holds}")
    raise _Unwell(
        f"whoever listens there answers {status or 'no HTTP'} for {WHO}; restart the service with "
        "these settings, or stop the program that has the port"
    )


async def _ask_websocket(settings: Settings, tenant: Tenant, host: str, port: int) -> None:
    """Ask for a tenant's path as Asterisk does, but for no WebSocket.

    Raises:
        _Unwell: Asterisk would get no call through there.
        OSError: it can't be asked.
    """
    path = f"/asterisk/{tenant.id}/visitor"
    service = settings.service
    tls = _tls("service.websocket_certificate", service.websocket_certificate, service.websocket_key)
    status = await _status(host, port, path, tls, _authorization(settings, tenant))
    if status in OURS:
        return
    if status == http.HTTPStatus.UNAUTHORIZED:
        raise _Unwell(
            f"the running service refuses the user and password of {tenant.id}; restart it with "
            f"{tenant.websocket_username_env} and {tenant.websocket_password_env} as they are now"
        )
    raise _Unwell(
        f"whoever listens there answers {status or 'no HTTP'} for {path}; restart the service with these "
        "settings, or stop the program that has the port"
    )


async def _ask_streams(settings: Settings, host: str, port: int) -> None:
    """Ask for a stream as FreeSWITCH does, but for no WebSocket.

    Raises:
        _Unwell: FreeSWITCH would get no call through there.
        OSError: it can't be asked.
    """
    service = settings.service
    tls = _tls("service.websocket_certificate", service.websocket_certificate, service.websocket_key)
    status = await _status(host, port, PREFIX, tls, "")
    if status not in OURS:
        raise _Unwell(
            f"whoever listens there answers {status or 'no HTTP'} for {PREFIX}; restart the service with "
            "these settings, or stop the program that has the port"
        )


async def _status(host: str, port: int, path: str, tls: ssl.SSLContext | None, authorization: str) -> int:
    """The status of the answer to one request; 0 for what is no HTTP."""
    reader, writer = await asyncio.open_connection(host, port, ssl=tls)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n{authorization}\r\n".encode())
        words = (await reader.readline()).split()
    except ValueError:  # a line without an end
        return 0
    finally:
        writer.transport.abort()
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        return 0
    return int(words[1])


def _authorization(settings: Settings, tenant: Tenant) -> str:
    if tenant.websocket_username_env is None:
        return ""
    user = settings.secret(tenant.websocket_username_env) or ""
    password = settings.secret(tenant.websocket_password_env) or ""
    return f"Authorization: Basic {b64encode(f'{user}:{password}'.encode()).decode()}\r\n"


def _tls(setting: str, certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """For a connection to ourselves: whose certificate it is, we know.

    Raises:
        _Unwell: the service's certificate can't be used.
    """
    if certificate is None or key is None:
        return None
    try:
        tls_of(certificate, key)
    except OSError as error:
        raise _Unwell(f"{setting} can't be used: {_plain(error)}; name a PEM file and its key") from None
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _plain(error: OSError) -> str:
    """An error without its number."""
    if isinstance(error, ssl.SSLError) or error.errno is None:
        return str(error) or type(error).__name__
    return os.strerror(error.errno)


def _reachable(listen: str) -> str:
    """Where a listening address is reached from this machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen, listen)
