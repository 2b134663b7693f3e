"""A session whose events are collected, for the tests of every adapter over its simulator."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from providers.base import Event, Failed, Heard, Ready, Session, ToolCall

S = TypeVar("S", bound=Session)
A = TypeVar("A", bound="Adapted")
V = TypeVar("V", bound="Simulator")


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


class Simulator(Protocol):
    """What is asked of a provider's simulator here."""

    @property
    def faults(self) -> Any: ...
    @property
    def open_connections(self) -> int: ...
    async def until(self, condition: Callable[[], object]) -> Any: ...
    async def __aenter__(self) -> Any: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Adapted(Session, Protocol):
    """An adapter's session, with what is looked at when it is over."""

    _runner: asyncio.Task[None]
    _close_timeout_s: float


@asynccontextmanager
async def leaving_nothing(
    server: V, opened: Callable[[V], A], *, ready: bool, tasks: tuple[str, ...]
) -> AsyncIterator[tuple[V, Talk[A]]]:
    """A session on a simulator. At the end: closed, no task of it left, and the server saw it go.

    Args:
        opened: makes the session.
        ready: wait until the session is.
        tasks: what the names of its tasks begin with.
    """
    before = asyncio.all_tasks()
    async with server:
        session = opened(server)
        talk = Talk(session)
        try:
            if ready:
                await talk.a(Ready)
            yield server, talk
        finally:
            began = time.monotonic()
            await session.close()
            assert time.monotonic() - began < session._close_timeout_s + 1
            await talk.end()
            runner = session._runner
            assert runner.cancelled() or runner.exception() is None
            if not server.faults.deaf:
                await server.until(lambda: not server.open_connections)
    await asyncio.sleep(0)
    left = {t for t in asyncio.all_tasks() - before if t.get_name().startswith(tasks)}
    assert not left, left


def asked_in_vain(session: Session) -> None:
    """All that can be asked of a session, once it is over."""
    session.interrupt(Heard("item_1", 10))
    session.note("Ninguém ouve.")
    session.auto_reply(False)
    session.doubt_turn()
    session.settle_turn(True)
    session.say_exactly("Ninguém ouve.")
    session.speak_about("Ninguém ouve.")
    session.answer(ToolCall("a", "x", "{}", 1), {})


def failures(events: list[Event]) -> list[Failed]:
    """Those that ended the session."""
    return [e for e in events if isinstance(e, Failed) and e.kind == "session"]
