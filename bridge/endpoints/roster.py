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


AT_ONCE = 8
PAUSE_S = 0.01
"""How many give way in one turn of the event loop, and when the next ones do: each costs a close and a log
line, and no call's next 20 ms shall wait for hundreds."""


class Roster(Generic[GuestT]):
    """The connections of one server.

    Silent connections cannot keep a caller out: where too many wait, the oldest of the address that has most
    of them give way. Nor can those that come in one crowd with it, from its own address too: nobody is asked
    to leave before they had the time to say which call they are.

    Args:
        most_waiting: connections without a call that are left to their deadline.
        crowd: connections without a call in all. Up to here the new ones are spared.
        spared_s: for how long a connection is new.
    """

    def __init__(self, most_waiting: int, *, crowd: int = 0, spared_s: float = 0.0) -> None:
        self._most_waiting = most_waiting
        self._crowd = crowd
        self._spared_s = spared_s
        self._waiting: dict[GuestT, float] = {}
        """In the order of their arrival, and when that was."""
        self._hosts: Counter[str] = Counter()
        """How many wait, by address."""
        self._calls: set[GuestT] = set()
        self._trimming: asyncio.TimerHandle | None = None
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
        self._waiting[guest] = asyncio.get_running_loop().time()
        self._hosts[guest.host] += 1
        self._empty.clear()
        if len(self._waiting) > self._most_waiting:
            self._trim()

    def seated(self, guest: GuestT) -> None:
        """A connection became a call."""
        self._drop(guest)
        self._calls.add(guest)

    def left(self, guest: GuestT) -> None:
        """A connection is gone."""
        self._drop(guest)
        self._calls.discard(guest)
        if not self._waiting and not self._calls:
            self._empty.set()

    def _drop(self, guest: GuestT) -> None:
        if self._waiting.pop(guest, None) is not None:
            self._hosts[guest.host] -= 1
            if not self._hosts[guest.host]:
                del self._hosts[guest.host]

    def _trim(self) -> None:
        """Have those give way that are too many, and not new; look again when the next may have to."""
        if self._trimming is not None:
            self._trimming.cancel()
            self._trimming = None
        loop = asyncio.get_running_loop()
        for _ in range(AT_ONCE):
            if len(self._waiting) <= self._most_waiting:
                return
            busiest = max(self._hosts, key=self._hosts.__getitem__)
            oldest = next(each for each in self._waiting if each.host == busiest)
            spared_s = self._waiting[oldest] + self._spared_s - loop.time()
            if spared_s > 0 and len(self._waiting) <= self._crowd:
                self._trimming = loop.call_later(spared_s, self._trim)
                return
            self._drop(oldest)
            oldest.give_way()
        self._trimming = loop.call_later(PAUSE_S, self._trim)
