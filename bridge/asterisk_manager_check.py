"""Asks an Asterisk Manager whether it would act on calls, for `porteiro check`: nothing changes."""

from __future__ import annotations

from bridge.asterisk_manager import AsteriskManager, ManagerAddress, ManagerError

NEEDED = frozenset({"PlayDTMF", "Setvar"})


class ManagerUnfit(Exception):
    """It would not do; the text says why and what to do."""


async def manager_behind(address: ManagerAddress) -> str:
    """Its name, once it has said that our user may ask for all that we need.

    Raises:
        ManagerUnfit: it does not answer, or does not let us.
    """
    manager = AsteriskManager(address)
    try:
        allowed = await manager.actions()
    except ManagerError as error:
        advice = {
            0: "is Asterisk running, and does its http.conf have enabled = yes with this address and port?",
            401: f"compare [{address.username}] in manager.conf with manager.username and its password; a "
            "user that is not there is refused alike",
            403: f"look at deny and permit of [{address.username}] in manager.conf",
            404: "does manager.conf have enabled = yes and webenabled = yes, and is the URL right (without "
            "/ari, with the prefix of http.conf where it has one)?",
        }.get(error.status, "Asterisk's own log says more")
        raise ManagerUnfit(f"{error}; {advice}") from None
    if missing := sorted(NEEDED - allowed):
        raise ManagerUnfit(
            f"{manager.name} answers, but does not let the user {address.username} ask for "
            f"{' and '.join(missing)}; set write = call in [{address.username}] of manager.conf"
        )
    return manager.name
