"""Where a declared tool may connect to.

The host is the settings', but what its name stands for is whoever answers for that name: each connection goes
to an address that was looked at first, and to no other.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Collection, Sequence
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


class NotAllowed(Exception):
    """No address of a host may be connected to; the text is for people."""


def reachable(address: Address, *, private: bool) -> bool:
    """Whether a tool may connect there.

    Args:
        private: addresses of this machine and of the site's own network are allowed as well. Link-local ones
            never are: that is where clouds keep their machines' credentials.
    """
    address = _meant(address)
    if address.is_multicast or address.is_unspecified or address.is_link_local:
        return False
    if private and (address.is_private or address.is_loopback):
        return not (isinstance(address, ipaddress.IPv4Address) and int(address) == 0xFFFFFFFF)
    return address.is_global and not address.is_reserved


def _meant(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, where it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1] or address


async def addresses_of(host: str, port: int) -> list[Address]:
    """A host's addresses, in the order to try. An address stands for itself.

    Raises:
        OSError: no such host is known.
    """
    try:
        return [ipaddress.ip_address(host.strip("[]"))]
    except ValueError:
        pass
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ipaddress.ip_address(str(each[4][0]).partition("%")[0]) for each in found))


async def allowed_addresses(
    host: str, port: int, *, private: bool, apart_from: Collection[tuple[str, int | None]]
) -> Sequence[Address]:
    """The addresses of a host that may be connected to, in the order to try.

    Args:
        apart_from: (host, port) of what moves the gate; None: whatever the port.

    Raises:
        NotAllowed: none of them may be.
        OSError: no such host is known.
    """
    found = await addresses_of(host, port)
    guarded = set()
    for name, at in apart_from:
        if at is None or at == port:
            guarded |= {_meant(each) for each in await _of_the_gate(name, port)}
    if guarded & {_meant(each) for each in found}:
        raise NotAllowed(f"{host} is where the gate is moved")
    fit = [each for each in found if reachable(each, private=private)]
    if not fit:
        raise NotAllowed(f"{host} has no address that may be connected to")
    return fit


async def _of_the_gate(host: str, port: int) -> list[Address]:
    try:
        return await addresses_of(host, port)
    except OSError:  # the tool's host may be that very machine, under another name
        raise NotAllowed(f"nobody knows now where {host} is, where the gate is moved") from None
