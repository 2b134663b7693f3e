"""The seam between a visit and whatever calls the resident."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from visits.events import DialOutcome


@dataclass(frozen=True, slots=True)
class DialOrder:
    """One attempt.

    Attributes:
        attempt: the id that the resident's leg must come back with; minted for this attempt alone.
        visit: the visit's own id, for click-to-call systems that can carry no other.
        number: the dial string, as the directory has it.
        hosts: the addresses on which the resident port listens.
        port: the tenant's resident port.
        ring_s: how long the phone may ring.
    """

    attempt: UUID
    visit: UUID
    tenant: str
    number: str
    hosts: tuple[str, ...]
    port: int
    ring_s: float


@dataclass(frozen=True, slots=True)
class DialResult:
    """How an attempt ended. `outcome` None: answered; the resident's leg comes, or has come, by itself."""

    outcome: DialOutcome | None
    detail: str = ""


class Dialer(Protocol):
    """Calls residents."""

    async def start(self) -> None:
        """Connect to what it needs, in the background; what is down is no error. Once, before any dial."""

    async def stop(self) -> None:
        """Let everything go, and end what still rings. Once, after the last dial."""

    async def dial(self, order: DialOrder) -> DialResult:
        """Ring; return when the attempt was answered or failed.

        Never raises for what a telephone system does: an unreachable PBX is a `DialResult`. Cancelling the
        task gives the attempt up and leaves no ringing phone behind.
        """
