"""Events on their way from a session to who takes them: in order, one at a time, never out of an intent."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from providers.base import Event

MAX_EVENTS = 2000
"""Events that may wait to be taken before we stop reading, so that the server is slowed by TCP."""


class Delivery:
    """See :meth:`providers.base.Session.run`, whose promises it keeps."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        passes: Callable[[Event], bool],
        hold: Callable[[bool], None],
        refused: Callable[[], None],
    ) -> None:
        """
        Args:
            passes: whether an event that waited still counts; asked once for each, as it is taken.
            hold: told to stop the reading, or to go on with it.
            refused: the consumer raised; :meth:`end` will raise it.
        """
        self._loop = loop
        self._passes = passes
        self._hold = hold
        self._refused = refused
        self._events: deque[Event] = deque()
        self._take: Callable[[Event], None] | None = None
        self._due = False
        """They are going to be delivered without anybody's doing."""
        self._delivering = False
        self._error: Exception | None = None

    def begin(self, take: Callable[[Event], None]) -> None:
        """From now on events go to ``take``.

        Raises:
            RuntimeError: somebody takes them already.
        """
        if self._take is not None:
            raise RuntimeError("a session's events can be taken once, by one consumer")
        self._take = take
        self.deliver()

    def end(self) -> None:
        """The session is over: the last events go out, and what the consumer raised is raised."""
        self.deliver()
        if self._error is not None:
            raise self._error

    def add(self, event: Event) -> None:
        """Something happened."""
        self._events.append(event)
        if not self._due:
            # Not at once: whoever gave an intent is not through with it.
            self._due = True
            self._loop.call_soon(self.deliver)

    def give(self, event: Event) -> None:
        """Something happened, and nobody is in the middle of an intent: it is delivered at once."""
        self._events.append(event)
        self.deliver()

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is added within is delivered at its end, and at once."""
        self._due = True
        try:
            yield
        finally:
            self.deliver()

    def clear(self) -> None:
        """What waits is for nobody."""
        self._events.clear()

    def deliver(self) -> None:
        """Give what happened to whoever takes it."""
        if self._delivering:
            return
        self._due = False
        if self._take is None:
            self._hold(len(self._events) >= MAX_EVENTS)
            return
        self._delivering = self._due = True
        try:
            while self._events:
                event = self._events.popleft()
                if self._passes(event):
                    self._take(event)
        except Exception as error:  # noqa: BLE001 - end() raises it, to the leg's own task
            self._error = error
            self._events.clear()
            self._refused()
        finally:
            self._delivering = self._due = False
        self._hold(False)
