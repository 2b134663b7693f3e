"""Hands a visitor's call over to the attendant: the PBX's dialplan does it, once our leg is hung up.

It goes by two variables of the visitor's channel (see `served` in asterisk/extensions.conf), which only the
Asterisk Manager can set: AudioSocket carries nothing back but sound.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from bridge.asterisk_manager import AsteriskManager, ManagerError, build_manager
from bridge.pbx import Speaks, Transfers, TransfersByPbx
from bridge.settings import Attendant, Tenant

PREPARE_S = 4.0
"""For both variables; less than the visit waits (`visits.visit.TRANSFER_S`)."""
WHOM = "PORTEIRO_ATTENDANT"
THEN = "PORTEIRO_THEN"
NOBODY = "nobody"
"""A value of the second that the dialplan does nothing for."""


class Transfer:
    """The way to one tenant's attendant and departments through Asterisk."""

    def __init__(self, attendant: Attendant | None, manager: AsteriskManager) -> None:
        self._attendant = attendant.extension if attendant is not None else ""
        self._manager = manager

    async def prepare(self, channel: str, to: str = "", speaks: Speaks | None = None) -> str:
        """Have the attendant rung once this channel's call with us is over.

        Args:
            to: the extension to ring in the attendant's place.
            speaks: is not heard: here whoever picks up is connected at once.

        Returns:
            Why that can't be, in a few words for the audit log; empty where it will be.
        """
        # The second is what the dialplan goes by: with the first alone nothing happens.
        if not (extension := to or self._attendant):
            return "there is no attendant"
        dial = extension if "/" in extension else f"PJSIP/{extension}"
        return await self._set(channel, {WHOM: dial, THEN: "attendant"})

    async def undo(self, channel: str) -> str:
        """Have nobody rung once this channel's call with us is over.

        Returns:
            Why it is not known that nobody will be, in a few words; empty where nobody will.
        """
        return await self._set(channel, {THEN: NOBODY})

    async def _set(self, channel: str, variables: Mapping[str, str]) -> str:
        try:
            async with asyncio.timeout(PREPARE_S):
                for name, value in variables.items():
                    await self._manager.set_variable(channel, name, value)
        except ManagerError as error:
            return str(error)
        except TimeoutError:
            return f"{self._manager.name} did not do it in {PREPARE_S:g} s"
        return ""


def build_transfer(
    tenant: Tenant, secret: Callable[[str | None], str | None], freeswitch: Transfers | None = None
) -> Transfers | None:
    """The way to a tenant's attendant and departments; None where its settings name none.

    Args:
        secret: looks an environment variable up (:meth:`Settings.secret`).
        freeswitch: the tenant's, where it has one.

    Raises:
        SettingsError: the Manager's password is not set.
    """
    manager = build_manager(tenant, secret)
    if not (tenant.attendant or tenant.departments or tenant.extensions):
        return None
    asterisk = None if manager is None else Transfer(tenant.attendant, manager)
    if asterisk is None or freeswitch is None:
        return asterisk or freeswitch
    return TransfersByPbx(asterisk, freeswitch)
