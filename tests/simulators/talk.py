"""A session whose events are collected, for the tests of every adapter over its simulator."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from providers.base import Event, Failed, Session

S = TypeVar("S", bound=Session)


class Talk(Generic[S]):
    """A session whose events are collected, and can be waited for."""

    def __init__(self, session: S) -> None:
        self.session = session
        self.events: list[Event] = []
        self.ended = asyncio.Event()
        self._news = asyncio.Event()
        self.consumer = asyncio.create_task(self._collect(), name="test-consumer")

    async def _collect(self) -> None:
        def take(event: Event) -> None:
            self.events.append(event)
            self._news.set()

        await self.session.run(take)
        self.ended.set()
        self._news.set()

    async def until(self, condition: Callable[[list[Event]], Any]) -> Any:
        """Wait for it, five seconds at most."""
        async with asyncio.timeout(5):
            while not (found := condition(self.events)):
                self._news.clear()
                await self._news.wait()
        return found

    async def a(self, kind: type[Any], **having: Any) -> Any:
        """The first event of this kind with these values."""

        def find(events: list[Event]) -> Event | None:
            same = (e for e in events if isinstance(e, kind))
            return next((e for e in same if all(getattr(e, k) == v for k, v in having.items())), None)

        return await self.until(find)

    async def end(self) -> list[Event]:
        """All events, once the session is over."""
        async with asyncio.timeout(8):
            await self.ended.wait()
        return self.events


def failures(events: list[Event]) -> list[Failed]:
    """Those that ended the session."""
    return [e for e in events if isinstance(e, Failed) and e.kind == "session"]
