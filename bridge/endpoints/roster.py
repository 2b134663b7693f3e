"""Who is connected to a server: those that wait for a call, at most so many, and those that have one."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Generic, Protocol, TypeVar


class Guest(Protocol):
    """What a roster needs of a connection. It must be hashable by its identity."""

    host: str
    """The address that it comes from."""

    def give_way(self) -> None:
        """Leave, for a newer connection."""


GuestT = TypeVar("GuestT", bound=Guest)


class Roster(Generic[GuestT]):
    """The connections of one server.

    Args:
        most_waiting: connections without a call. One more makes the oldest of the address that has most of
            them give way: silent connections cannot keep a caller out.
    """

    def __init__(self, most_waiting: int) -> None:
        self._most_waiting = most_waiting
        self._waiting: dict[GuestT, None] = {}
        self._calls: set[GuestT] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def calls(self) -> int:
        """Connections that carry a call."""
        return len(self._calls)

    @property
    def waiting(self) -> int:
        """Connections that carry none: not yet, or refused and not yet gone."""
        return len(self._waiting)

    def everyone(self) -> tuple[GuestT, ...]:
        """All connections, those with a call first."""
        return (*self._calls, *self._waiting)

    async def emptied(self) -> None:
        """Return once nobody is connected. Without a deadline of its own."""
        await self._empty.wait()

    def arrived(self, guest: GuestT) -> None:
        """A connection, without a call so far. One too many makes another give way."""
        if len(self._waiting) >= self._most_waiting:
            hosts = Counter(each.host for each in self._waiting)
            busiest = max(hosts, key=hosts.__getitem__)
            oldest = next(each for each in self._waiting if each.host == busiest)
            del self._waiting[oldest]
            oldest.give_way()
        self._waiting[guest] = None
        self._empty.clear()

    def seated(self, guest: GuestT) -> None:
        """A connection became a call."""
        self._waiting.pop(guest, None)
        self._calls.add(guest)

    def left(self, guest: GuestT) -> None:
        """A connection is gone."""
        self._waiting.pop(guest, None)
        self._calls.discard(guest)
        if not self._waiting and not self._calls:
            self._empty.set()
