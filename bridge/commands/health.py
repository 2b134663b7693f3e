"""`porteiro health`: says whether the running service answers, for whoever restarts it."""

from __future__ import annotations

import argparse
import asyncio
import http
import http.client
import ipaddress
import socket
import ssl
import sys
from typing import TextIO

from bridge.commands.catalogue import with_stored_tenants
from bridge.settings import Settings, SettingsError, load
from storage.base import StorageError
from storage.opening import open_storage

ANSWER_S = 3.0
"""A service whose event loop runs takes leave of us within milliseconds."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its options."""
    parser = subparsers.add_parser(
        "health",
        help="say whether the running service answers",
        description="Connects to each tenant's visitor port and leaves without a call; asks the HTTP API's "
        "/health where there is one. Exits with 1 where one does not answer.",
    )
    parser.add_argument("--config", metavar="FILE", help="default: $PORTEIRO_CONFIG, then ./porteiro.toml")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, out: TextIO | None = None) -> int:
    """Print one line a port that does not answer, or that all do; 1 where one does not."""
    out = sys.stdout if out is None else out
    try:
        settings = asyncio.run(_with_stored(load(arguments.config)))
    except SettingsError as error:
        out.write(f"{error}\n")
        return 1
    troubles = unwell(settings)
    out.writelines(f"{trouble}\n" for trouble in troubles)
    if not troubles:
        out.write("the service answers\n")
    return 1 if troubles else 0


async def _with_stored(settings: Settings) -> Settings:
    """With the tenants of the database, as far as it answers in time: the service runs without it too."""
    database = settings.database
    if database.file is not None and not database.file.exists():
        return settings
    try:
        async with await open_storage(database, read_only=True, deadline_s=ANSWER_S) as storage:
            return await with_stored_tenants(settings, storage.catalogue)
    except StorageError:
        return settings


def unwell(settings: Settings) -> list[str]:
    """One line for each visitor port that does not answer, and one where there is none at all."""
    host = _reachable(settings.service.listen[0])
    lines = []
    if not settings.tenants and not (settings.service.http_on and settings.service.http_port):
        lines.append("no tenant is set, and no service.http_listen: there is nobody to ask")
    for tenant in settings.tenants.values():
        trouble = probe(host, tenant.visitor_port)
        if trouble:
            lines.append(f"tenants.{tenant.id}: port {tenant.visitor_port} on {host}: {trouble}")
    service = settings.service
    if service.http_on and (port := service.http_port):
        host = _reachable(service.http_listen[0])
        if trouble := ask(host, port, tls=service.http_certificate is not None):
            lines.append(f"service.http_port: port {port} on {host}: {trouble}")
    return lines


def probe(host: str, port: int) -> str:
    """What is wrong at a port; empty where the service answers.

    We connect and close our half: the kernel would accept that for a service that hangs, so its own close is
    what we wait for. It writes one line of log, like for any caller who hangs up at once.
    """
    try:
        with socket.create_connection((host, port), ANSWER_S) as connection:
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass
    except ConnectionResetError:
        return ""  # also a goodbye
    except TimeoutError:
        return f"no answer in {ANSWER_S:g} s"
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


def ask(host: str, port: int, *, tls: bool = False) -> str:
    """What is wrong with the HTTP API; empty where its /health answers 200."""
    connection = http.client.HTTPConnection(host, port, timeout=ANSWER_S)
    if tls:
        unchecked = ssl.create_default_context()
        # It is asked by its address, which no certificate names; nothing is told to it.
        unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(host, port, timeout=ANSWER_S, context=unchecked)
    try:
        connection.request("GET", "/health")
        status = connection.getresponse().status
    except TimeoutError:
        return f"no answer in {ANSWER_S:g} s"
    except OSError as error:
        return error.strerror or type(error).__name__
    except http.client.HTTPException as error:
        return f"no HTTP ({type(error).__name__})"
    finally:
        connection.close()
    return "" if status == http.HTTPStatus.OK else f"/health answers {status}"


def _reachable(listen: str) -> str:
    """Where a listening address is reached from this machine."""
    address = ipaddress.ip_address(listen)
    if not address.is_unspecified:
        return listen
    return "127.0.0.1" if address.version == 4 else "::1"
