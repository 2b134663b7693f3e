"""Test calls: a visit like any other, but that no real gate moves and no real telephone rings.

Somebody at the console plays the visitor, the resident, or both; what nobody plays is played from recordings.
The visit is told by its registration whose test it is (`bridge.calls.RegisteredCall.tested_by`), and runs by
the very same rules: the resident's leg must come with the id that was minted for the dial attempt. Here that
id is known to whoever made the test alone, by way of a token that holds for one answer.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, Literal
from uuid import UUID, uuid4

from bridge.dialing.base import Dialer, DialOrder, DialResult
from bridge.gates.record import RecordGate
from bridge.house import Condominium
from bridge.settings import PlainDialer
from bridge.settings import RecordGate as RecordGateSettings
from visits.events import DialOutcome

Resident = Literal["browser", "authorizes", "refuses", "no_answer"]
"""Who takes the resident's call: a page of the console, a recording that agrees or refuses, or nobody."""

WAITS_S: Final = 3600.0
"""How long a test call may wait for its visitor, and what is known of it may be asked for."""
MOST: Final = 200
"""Test calls that are kept at the same time; the oldest goes first."""


class WaitingDialer:
    """Calls nobody: whoever plays the resident was told by other means, and comes with the attempt's id."""

    async def start(self) -> None:
        """It needs nothing."""

    async def stop(self) -> None:
        """It holds nothing."""

    async def dial(self, order: DialOrder) -> DialResult:
        """Wait out the ring time."""
        await asyncio.sleep(order.ring_s)
        return DialResult(DialOutcome.NO_ANSWER, "nobody took the test call")


def rehearsed(place: Condominium, around_dialer: Callable[[Dialer], Dialer]) -> Condominium:
    """A tenant as a test call finds it: its own voice, directory and rules; no gate, telephone, attendant.

    Of the tools that it declares those alone are carried out that change nothing.
    """
    settings = place.settings.model_copy(update={"gate": RecordGateSettings(), "dialer": PlainDialer()})
    return replace(
        place,
        settings=settings,
        dialer=around_dialer(WaitingDialer()),
        gate=RecordGate(),
        outside=place.outside.in_rehearsal(),
        transfer=None,
    )


class NotRingingError(LookupError):
    """The resident's telephone does not ring, or somebody has answered it."""


@dataclass(slots=True)
class Rehearsal:
    """One test call.

    Attributes:
        id: of the visit that it becomes.
        by: who makes it, as the audit log names them.
        begun: its visitor has come; nobody can be it twice.
    """

    tenant: str
    by: str
    resident: Resident
    made_at: float
    id: UUID = field(default_factory=uuid4)
    begun: bool = False
    _attempt: UUID | None = None
    _token: str = ""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def ring(self, attempt: UUID) -> None:
        """The resident's telephone rings for this attempt."""
        self._set(attempt, secrets.token_urlsafe(32))

    @property
    def ringing(self) -> str:
        """The token that answers, while the telephone rings; "" while it doesn't."""
        return self._token

    def stop_ringing(self) -> None:
        """It rings no more."""
        if self._token:
            self._set(None, "")

    def _set(self, attempt: UUID | None, token: str) -> None:
        self._attempt, self._token = attempt, token
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    @property
    def change(self) -> asyncio.Event:
        """Set when the telephone begins to ring next, or stops. Ask for it before :attr:`ringing`."""
        return self._changed

    def answer(self, token: str) -> UUID:
        """Take the call: the id that the resident's leg must come with. The token holds no more.

        Raises:
            NotRingingError: nothing rings, or with another token.
        """
        attempt = self._attempt
        if attempt is None or not secrets.compare_digest(token.encode(), self._token.encode()):
            raise NotRingingError("found a token of no call that rings; allowed: that of the last ringing")
        self.stop_ringing()
        return attempt


class Rehearsals:
    """The test calls that were made. No I/O: time is an argument, in seconds of a steady clock."""

    def __init__(self) -> None:
        self._made: dict[UUID, Rehearsal] = {}

    def make(self, tenant: str, by: str, resident: Resident, *, now: float) -> Rehearsal:
        """A new one."""
        self._made = {
            id: one for id, one in tuple(self._made.items())[-(MOST - 1) :] if now - one.made_at < WAITS_S
        }
        made = Rehearsal(tenant, by, resident, now)
        self._made[made.id] = made
        return made

    def get(self, id: UUID, by: str, *, now: float) -> Rehearsal | None:
        """The one of that id that this person made; None where there is none."""
        found = self._made.get(id)
        if found is None or found.by != by or now - found.made_at >= WAITS_S:
            return None
        return found


__all__ = ["NotRingingError", "Rehearsal", "Rehearsals", "Resident", "WaitingDialer", "rehearsed"]
