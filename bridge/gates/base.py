"""The seam to whatever opens the door: one order, one answer, never an exception from a device."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class GateOrder:
    """Let one visitor in. It is in the audit log before a gate ever sees it."""

    visit: str
    """The visit's UUID."""
    tenant: str
    apartment: str
    """As the directory writes it."""
    at: datetime
    """When it was decided, with a time zone."""
    resident: str = ""
    """Who was asked for, as the directory writes it; empty where the visitor could not say."""
    visitor: str = ""
    """As the visitor said it; empty where it is not known."""
    intent: str = ""
    """What for: `visita`, `entrega` or `servico`."""
    channel: str = ""
    """The PBX's channel of the visitor's call, as it was registered; empty where it was not."""


@dataclass(frozen=True, slots=True)
class GateAnswer:
    """What the device did, as far as can be known."""

    opened: bool
    """The device said that it opened."""
    detail: str
    """Why, in a few words for the audit log; no secret is in it."""
    ms: int
    """How long it took."""
    unknown: bool = False
    """Not opened as far as the device said, but the order may have reached it. Only a person may try again:
    a gate that toggles would close on whoever is passing."""


class Gate(Protocol):
    """Opens one tenant's door."""

    async def open(self, order: GateOrder) -> GateAnswer:
        """Carry the order out, once, within the gate's own deadline.

        A device that can't be reached, is late, or answers nonsense is an answer with ``opened=False``, never
        an exception. Nothing is tried twice.
        """


@runtime_checkable
class HearsRefusals(Protocol):
    """A gate that wants to be told, too, of a visitor who is not let in. Nothing rests on it."""

    async def refused(self, order: GateOrder) -> str:
        """A resident refused, and it is on record. At most once a visit, within the gate's own deadline.

        Returns what became of it, in a few words for the audit log; empty where nobody was told. Never an
        exception from a device.
        """
