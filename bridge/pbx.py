"""What is asked of a PBX about a call that it carries for us, whichever PBX that is.

A tenant may have calls of an Asterisk and of a FreeSWITCH: whose a call is, its channel's name says.
Asterisk's has a slash (``PJSIP/intercom-00000001``), FreeSWITCH's is a UUID.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol
from uuid import UUID

Speaks = Callable[[], Coroutine[Any, Any, bytes]]
"""Says one sentence, as 16-bit mono PCM at 8 kHz (`announcement.spoken`)."""


class PbxError(Exception):
    """Something was not carried out, or nobody knows; the text is for people and holds no secret.

    Attributes:
        unknown: it may have been carried out.
    """

    def __init__(self, text: str, *, unknown: bool = False) -> None:
        super().__init__(text)
        self.unknown = unknown


class PlaysDigits(Protocol):
    """Plays DTMF digits on a call."""

    async def play_digit(self, channel: str, digit: str, duration_ms: int) -> None:
        """Play one digit to whoever is on a channel, and return when it has ended. Never tried twice.

        Raises:
            PbxError: it was not played, or nobody knows.
            ValueError: there is no such digit.
        """


class Transfers(Protocol):
    """The way to one tenant's attendant and departments. Both return in a few seconds."""

    async def prepare(self, channel: str, to: str = "", speaks: Speaks | None = None) -> str:
        """Have the attendant rung once this channel's call with us is over.

        Args:
            to: the extension to ring in the attendant's place.
            speaks: what they hear first, where the PBX can do that. Without it, or where it fails, they are
                connected at once.

        Returns:
            Why that can't be, in a few words for the audit log; empty where it will be.
        """

    async def undo(self, channel: str) -> str:
        """Have nobody rung once this channel's call with us is over.

        Returns:
            Why it is not known that nobody will be, in a few words; empty where nobody will.
        """


class DigitsByPbx:
    """Plays digits on the calls of two PBXs."""

    def __init__(self, asterisk: PlaysDigits | None, freeswitch: PlaysDigits | None) -> None:
        self._asterisk = asterisk
        self._freeswitch = freeswitch

    async def play_digit(self, channel: str, digit: str, duration_ms: int) -> None:
        """See :class:`PlaysDigits`."""
        freeswitch = self._asterisk is None or (self._freeswitch is not None and is_freeswitch(channel))
        pbx = self._freeswitch if freeswitch else self._asterisk
        if pbx is None:
            raise PbxError(f"no settings say how to reach the PBX of {channel}")
        await pbx.play_digit(channel, digit, duration_ms)


class TransfersByPbx:
    """The way to the attendant from the calls of two PBXs."""

    def __init__(self, asterisk: Transfers, freeswitch: Transfers) -> None:
        self._asterisk = asterisk
        self._freeswitch = freeswitch

    async def prepare(self, channel: str, to: str = "", speaks: Speaks | None = None) -> str:
        """See :class:`Transfers`."""
        pbx = self._freeswitch if is_freeswitch(channel) else self._asterisk
        return await pbx.prepare(channel, to, speaks)

    async def undo(self, channel: str) -> str:
        """See :class:`Transfers`."""
        return await (self._freeswitch if is_freeswitch(channel) else self._asterisk).undo(channel)


def is_freeswitch(channel: str) -> bool:
    """Whether a channel is FreeSWITCH's, by its name."""
    try:
        UUID(channel)
    except ValueError:
        return False
    return True


__all__ = ["DigitsByPbx", "PbxError", "PlaysDigits", "Speaks", "Transfers", "TransfersByPbx", "is_freeswitch"]
