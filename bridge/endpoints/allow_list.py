"""Who may connect: what ``service.allowed_peers`` means, for every endpoint the same.

A network of IPv4 addresses is the same in its IPv6 dress (``::ffff:10.0.0.0/104`` is ``10.0.0.0/8``), and so
is an address: a socket that takes both kinds shows 10.0.0.1 as ``::ffff:10.0.0.1``. Any other IPv6 network
holds IPv6 addresses alone: ``::/0`` is all of those and no IPv4 address; ``0.0.0.0/0`` is all of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

Network = IPv4Network | IPv6Network

MAPPED_BITS = 96
"""What comes before the IPv4 address in an IPv4-mapped one (RFC 4291, 2.5.5.2)."""


class AllowList:
    """The networks that may connect; none given, nobody may."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = tuple(_undressed(network) for network in networks)

    def __str__(self) -> str:
        return ", ".join(map(str, self._networks)) or "none"

    def admits(self, host: str) -> bool:
        """Whether an address may connect, as a socket names it (``fe80::1%eth0``).

        Raises:
            ValueError: it is no address.
        """
        address = ip_address(host.partition("%")[0])
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)


def _undressed(network: Network) -> Network:
    if isinstance(network, IPv6Network) and network.prefixlen >= MAPPED_BITS:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - MAPPED_BITS))
    return network
