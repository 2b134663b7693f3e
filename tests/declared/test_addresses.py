"""Where a tool may connect: nowhere inside, unless the settings say so; never where the gate is moved."""

from __future__ import annotations

import ipaddress

import pytest

from bridge.declared.addresses import NotAllowed, allowed_addresses, reachable

PUBLIC = ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
INSIDE = ["127.0.0.1", "10.0.0.5", "192.168.1.1", "172.16.0.1", "::1", "fd00::1", "::ffff:10.0.0.5"]
NEVER = [
    *("169.254.169.254", "fe80::1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1"),
    *("0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255"),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_reachable(address: str) -> None:
    assert reachable(ipaddress.ip_address(address), private=False)


@pytest.mark.parametrize("address", [*INSIDE, "64:ff9b::a00:5", "2002:a00:5::1", "100.64.0.1"])
def test_what_is_inside_is_not_unless_the_settings_say_so(address: str) -> None:
    assert not reachable(ipaddress.ip_address(address), private=False)
    if address in INSIDE:
        assert reachable(ipaddress.ip_address(address), private=True)


@pytest.mark.parametrize("address", NEVER)
@pytest.mark.parametrize("private", [False, True])
def test_some_addresses_never_are(address: str, private: bool) -> None:
    assert not reachable(ipaddress.ip_address(address), private=private)


async def test_a_name_that_stands_for_this_machine_is_not_followed_there() -> None:
    with pytest.raises(NotAllowed, match="no address that may be connected to"):
        await allowed_addresses("localhost", 443, private=False, apart_from=())
    assert await allowed_addresses("localhost", 443, private=True, apart_from=())


@pytest.mark.parametrize("guarded", [("127.0.0.1", None), ("localhost", None), ("::ffff:127.0.0.1", 80)])
async def test_nothing_connects_to_where_the_gate_is_moved(guarded: tuple[str, int | None]) -> None:
    with pytest.raises(NotAllowed, match="where the gate is moved"):
        await allowed_addresses("127.0.0.1", 80, private=True, apart_from=[guarded])
    away = [("127.0.0.1", 8088), ("127.0.0.2", None), ("no-such-host.invalid", 8088)]
    assert await allowed_addresses("127.0.0.1", 80, private=True, apart_from=away)


async def test_while_nobody_knows_where_the_gate_is_nothing_connects_anywhere() -> None:
    """Its name may stand for that very address, and be known again a moment later."""
    gate = ("no-such-host.invalid", None)
    with pytest.raises(NotAllowed, match=r"no-such-host\.invalid"):
        await allowed_addresses("127.0.0.1", 80, private=True, apart_from=[gate])
