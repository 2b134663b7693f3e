"""Listening on one port of several addresses: the sockets that an endpoint's server accepts on."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Sequence

from bridge.log import get_logger

# Whichever server asks, the warning keeps the name that operators know it by.
_log = get_logger("audiosocket")

_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)

BACKLOG = 256
"""Connections that the kernel holds for us until they are accepted; an event loop takes them in one turn."""

SEND_BUFFER_BYTES = 16 * 1024
"""The kernel's send buffer (SO_SNDBUF). Left to itself Linux grows it to megabytes: minutes of speech that
can't be taken back when the caller interrupts."""

PORT_ATTEMPTS = 20
"""Draws of a port that is free on every address, where any port will do."""


async def open_listeners(hosts: Sequence[str], port: int) -> list[socket.socket]:
    """Sockets bound to the same port of every address that ``hosts`` stand for."""
    loop = asyncio.get_running_loop()
    addresses: dict[tuple[socket.AddressFamily, str], None] = {}
    for host in hosts:
        for family, _, _, _, address in await loop.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            addresses[family, str(address[0])] = None
    if not addresses:
        raise OSError(errno.EINVAL, "no address to listen on was given")
    for attempt in range(PORT_ATTEMPTS):
        try:
            return _bind_all(list(addresses), port)
        except OSError as error:
            # A port that one address had free may be taken on the next: another draw, where any will do.
            if port or error.errno != errno.EADDRINUSE or attempt == PORT_ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def _bind_all(addresses: Sequence[tuple[socket.AddressFamily, str]], port: int) -> list[socket.socket]:
    """Bind each address, the first to ``port`` and the others to the port that the first got."""
    beside_ipv4 = any(family == socket.AF_INET for family, _ in addresses)
    sockets: list[socket.socket] = []
    try:
        for family, host in addresses:
            try:
                listener = _bind(family, host, port, only_ipv6=beside_ipv4)
            except OSError as error:
                if beside_ipv4 and host in ("::", "::1") and error.errno in _NO_IPV6:
                    _log.warning("audiosocket.ipv6_unavailable", host=host, error=error.strerror)
                    continue
                raise OSError(
                    error.errno, f"cannot listen on {host} port {port}: {error.strerror}"
                ) from error
            sockets.append(listener)
            port = listener.getsockname()[1]
    except OSError:
        for listener in sockets:
            listener.close()
        raise
    return sockets


def _bind(family: socket.AddressFamily, host: str, port: int, *, only_ipv6: bool) -> socket.socket:
    """One bound socket; the connections that it accepts inherit its options (Linux and the BSDs)."""
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(only_ipv6))
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener
