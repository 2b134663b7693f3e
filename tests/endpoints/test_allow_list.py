"""Who may connect: what a list of networks means, and that it means the same to both servers."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.endpoints.allow_list import AllowList, Network
from bridge.endpoints.asterisk_websocket_server import AsteriskWebsocketServer
from bridge.endpoints.audiosocket import AudioSocketServer
from bridge.endpoints.base import Refusal
from tests.endpoints.audiosocket_parties import Peer


def admitted(networks: list[str], host: str) -> bool:
    return AllowList([ip_network(network) for network in networks]).admits(host)


@pytest.mark.parametrize(
    ("networks", "host", "expected"),
    [
        ([], "127.0.0.1", False),
        ([], "::1", False),
        (["10.0.0.0/8"], "10.1.2.3", True),
        (["10.0.0.0/8"], "11.0.0.1", False),
        (["10.0.0.0/8"], "::ffff:10.1.2.3", True),
        (["10.0.0.0/8"], "::ffff:11.0.0.1", False),
        (["10.0.0.0/8"], "::10.1.2.3", False),
        (["::ffff:10.0.0.0/104"], "10.1.2.3", True),
        (["::ffff:10.0.0.0/104"], "::ffff:10.1.2.3", True),
        (["::ffff:10.0.0.0/104"], "11.0.0.1", False),
        (["::ffff:0:0/96"], "11.0.0.1", True),
        (["::ffff:0:0/96"], "::1", False),
        (["0.0.0.0/0"], "11.0.0.1", True),
        (["0.0.0.0/0"], "::ffff:11.0.0.1", True),
        (["0.0.0.0/0"], "2001:db8::1", False),
        (["::/0"], "2001:db8::1", True),
        (["::/0"], "10.1.2.3", False),
        (["::/0"], "::ffff:10.1.2.3", False),
        (["::/80"], "::ffff:10.1.2.3", False),
        (["fe80::/10"], "fe80::1%lo", True),
        (["127.0.0.0/8"], "fe80::1%lo", False),
        (["192.0.2.1/32", "2001:db8::/32"], "2001:db8::1", True),
    ],
)
def test_what_a_list_means(networks: list[str], host: str, expected: bool) -> None:
    assert admitted(networks, host) is expected


@given(st.ip_addresses(v=4).map(IPv4Address), st.integers(0, 32), st.ip_addresses(v=4).map(IPv4Address))
def test_the_dress_of_neither_side_matters(network: IPv4Address, bits: int, host: IPv4Address) -> None:
    plain = ip_network((network, bits), strict=False)
    dressed = ip_network((IPv6Address(f"::ffff:{network}"), 96 + bits), strict=False)
    for one in (plain, dressed):
        for name in (str(host), f"::ffff:{host}"):
            assert AllowList([one]).admits(name) is (host in plain)


@given(st.ip_addresses(v=6), st.integers(0, 128), st.ip_addresses(v=4))
def test_only_networks_in_ipv4s_place_admit_ipv4(network: object, bits: int, host: object) -> None:
    six = ip_network((str(network), bits), strict=False)
    if AllowList([six]).admits(str(host)):
        assert six.subnet_of(ip_network("::ffff:0:0/96"))  # type: ignore[arg-type]


def test_what_is_no_address_is_an_error() -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        AllowList([]).admits("pbx.example")


async def test_both_servers_read_a_list_alike() -> None:
    """On real sockets: `::` shows an IPv4 peer in its IPv6 dress."""
    for networks, four, six in (("::/0", False, True), ("0.0.0.0/0", True, False)):
        allowed: list[Network] = [ip_network(networks)]
        first = AudioSocketServer(["::"], 0, allowed=allowed, accept=lambda _: Refusal("nobody is in"))
        second = AsteriskWebsocketServer(["::"], 0, allowed=allowed, routes={})
        for server in (first, second):
            await server.start()
            for host, expected in (("127.0.0.1", four), ("::1", six)):
                peer = await Peer.connect(server.port, host)
                if not expected:
                    assert await peer.is_cut_off() == b""
                else:
                    with pytest.raises(TimeoutError):
                        await peer.is_cut_off(0.2)
                peer.close()
            await server.stop()


def test_it_says_what_it_holds() -> None:
    assert str(AllowList([])) == "none"
    assert str(AllowList([ip_network("::ffff:10.0.0.0/104"), ip_network("::1")])) == "10.0.0.0/8, ::1/128"
