"""Sessions that are opened before anybody can be heard on them: while the phone still rings.

Each waits under the id of the call that is to come, and is taken by that call's leg or closed. Until it is
taken nothing is asked of it, so it says nothing; only providers with ``opens_ahead`` are asked for one, so it
costs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

import structlog

from providers.base import Session, SessionConfig

CLOSE_S = 8.0
"""How long the end waits for sessions to close; each has a deadline of its own, which is shorter."""

log = structlog.get_logger(__name__)


Opens = Callable[[SessionConfig], Session]
"""A provider's :meth:`providers.base.Provider.open`."""


@dataclass(slots=True)
class _Waiting:
    session: Session
    config: SessionConfig
    opens: Opens
    expiry: asyncio.TimerHandle


class Ahead:
    """The sessions that wait for their calls. Needs a running event loop once one is opened."""

    def __init__(self) -> None:
        self._waiting: dict[UUID, _Waiting] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def open(self, call: UUID, within_s: float, config: SessionConfig, opens: Opens) -> None:
        """Open a session for a call that comes within so long; where one waits for it already, that one does.

        Args:
            opens: the provider's :meth:`providers.base.Provider.open`.
        """
        if (known := self._waiting.get(call)) is not None:
            if (known.config, known.opens) == (config, opens) and not known.session.over:
                return
            self.close(call)
        expiry = asyncio.get_running_loop().call_later(within_s, self.close, call)
        try:
            self._waiting[call] = _Waiting(opens(config), config, opens, expiry)
        except BaseException:
            expiry.cancel()
            raise

    def take(self, call: UUID, config: SessionConfig, opens: Opens) -> Session | None:
        """A call's session, from now on the caller's to close.

        None: there is none; one that is over, was told something else than `config`, or is another provider's
        (the tenant's settings have changed since) is closed.
        """
        waiting = self._waiting.get(call)
        if waiting is None:
            return None
        if waiting.session.over or (waiting.config, waiting.opens) != (config, opens):
            self.close(call)
            return None
        del self._waiting[call]
        waiting.expiry.cancel()
        return waiting.session

    def close(self, call: UUID) -> None:
        """The call does not come. Nothing happens where no session waits for it."""
        waiting = self._waiting.pop(call, None)
        if waiting is None:
            return
        waiting.expiry.cancel()
        log.info("session.not_needed", call_id=str(call))
        closing = asyncio.get_running_loop().create_task(waiting.session.close(), name=f"closing for {call}")
        self._closing.add(closing)
        closing.add_done_callback(self._closed)

    @property
    def waiting(self) -> int:
        """How many sessions wait."""
        return len(self._waiting)

    async def end(self) -> None:
        """Close them all."""
        for call in tuple(self._waiting):
            self.close(call)
        if self._closing:
            _, late = await asyncio.wait(self._closing, timeout=CLOSE_S)
            if late:
                log.error("sessions.left", count=len(late))

    def _closed(self, closing: asyncio.Task[None]) -> None:
        self._closing.discard(closing)
        if not closing.cancelled() and (fault := closing.exception()) is not None:
            log.error("session.not_closed", error=type(fault).__name__, exc_info=fault)


__all__ = ["Ahead"]
