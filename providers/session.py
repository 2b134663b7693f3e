"""What the sessions of all adapters share: the intents, the events' way to who takes them, the end."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import structlog

from providers.base import Event, Failed, Heard, Speak, ToolCall
from providers.conversing import Conversing, MalformedMessage, SessionOver
from providers.delivery import Delivery

log = structlog.stdlib.get_logger(__name__)

STALE_S = 1.0
"""Audio that waited longer than this is let go: late words are worse than missing ones."""
MAX_WAITING = 1000
"""Messages that may wait to be sent; more means that nothing is being sent."""

C = TypeVar("C", bound=Conversing)


class ConversingSession(ABC, Generic[C]):
    """A session around a conversation, of which the subclass has the connections.

    One task (:meth:`_run`) opens them, waits for the end and closes; it ends before :meth:`close` returns.
    All else happens in the calls of the socket, of the leg and of timers.
    """

    def __init__(self, provider: str, conversation: C, close_timeout_s: float) -> None:
        """The task begins with the event loop's next turn, when the subclass is complete."""
        self._close_timeout_s = close_timeout_s
        self._loop = asyncio.get_running_loop()
        self._conversation = conversation
        self._delivery = Delivery(self._loop, self._passes, self._hold, self._finish)
        self._over = False
        self._ended = asyncio.Event()
        self._odd = b""
        self._runner = asyncio.create_task(self._run(), name=f"{provider}-session")
        self._runner.add_done_callback(_report)

    # -- the subclass's --------------------------------------------------------------------------------------

    @abstractmethod
    async def _run(self) -> None:
        """From opening a connection to the end of the session."""

    @abstractmethod
    def _send_audio(self, pcm: bytes) -> None:
        """Whole samples of the caller's, at least one."""

    @abstractmethod
    def _receive(self, message: bytes) -> None:
        """Have the conversation take what came."""

    @abstractmethod
    def _hold(self, on: bool) -> None:
        """Read nothing for now, or read on."""

    @abstractmethod
    def _arm(self) -> None:
        """Set the clock to what the conversation waits for, where that is new."""

    def _passes(self, event: Event) -> bool:
        """Whether an event that waited still counts."""
        return self._conversation.passes(event)

    def _finish(self) -> None:
        """Nothing goes in or out any more."""
        self._over = True
        self._ended.set()

    # -- the seam --------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """See :class:`providers.base.Session`."""
        return not self._over and self._conversation.busy

    @property
    def over(self) -> bool:
        """See :class:`providers.base.Session`."""
        return self._over

    async def run(self, take: Callable[[Event], None]) -> None:
        """See :class:`providers.base.Session`."""
        self._delivery.begin(take)
        await self._ended.wait()
        self._delivery.end()

    def send_audio(self, pcm: bytes) -> None:
        """See :class:`providers.base.Session`."""
        if self._over:
            return
        if self._odd or len(pcm) & 1:
            pcm = self._odd + pcm
            whole = len(pcm) & ~1
            pcm, self._odd = pcm[:whole], pcm[whole:]
        if pcm:
            self._send_audio(pcm)

    def interrupt(self, heard: Heard | None) -> None:
        """See :class:`providers.base.Session`."""
        if not self._over:
            self._conversation.interrupt(heard)
            self._arm()

    def auto_reply(self, on: bool) -> None:
        """See :class:`providers.base.Session`."""
        if not self._over:
            self._conversation.auto_reply(on)

    def doubt_turn(self) -> None:
        """See :class:`providers.base.Session`."""
        if not self._over:
            self._conversation.doubt_turn()

    def settle_turn(self, reply: bool) -> None:
        """See :class:`providers.base.Session`."""
        if not self._over:
            self._conversation.settle_turn(reply)
            self._arm()

    def note(self, text: str) -> None:
        """See :class:`providers.base.Session`."""
        if not self._over:
            self._conversation.note(text)
            self._arm()

    def speak_about(self, text: str) -> str:
        """See :class:`providers.base.Session`."""
        receipt = self._conversation.speak_about(text)
        self._arm()
        return receipt

    def say_exactly(self, text: str) -> str:
        """See :class:`providers.base.Session`."""
        receipt = self._conversation.say_exactly(text)
        self._arm()
        return receipt

    def answer(self, call: ToolCall, result: Mapping[str, Any], speak: Speak = "now") -> None:
        """See :class:`providers.base.Session`."""
        if not self._over:
            self._conversation.answer(call, result, speak)
            self._arm()

    async def close(self) -> None:
        """See :class:`providers.base.Session`."""
        self._delivery.clear()
        self._finish()
        if not self._runner.done():
            self._runner.cancel()
            await asyncio.wait({self._runner}, timeout=self._close_timeout_s + 1)

    # -- for the subclass ------------------------------------------------------------------------------------

    def _take(self, message: bytes) -> bool:
        """A message came; False where it ended the session."""
        try:
            self._receive(message)
        except SessionOver as over:
            self._fail(over.code, over.message)
        except MalformedMessage as malformed:
            self._fail("protocol_error", f"the provider sent something that makes no sense: {malformed}")
        except Exception as error:
            log.error("session_fault", exc_info=error)
            self._fail("internal", "the session broke down by a fault of ours")
        else:
            return True
        return False

    def _emit(self, event: Event) -> None:
        if not self._over:
            self._delivery.add(event)

    def _fail(self, code: str, message: str) -> None:
        self._emit(Failed("session", code, message))
        self._finish()


def _report(runner: asyncio.Task[None]) -> None:
    """A fault of ours is told to the log; to the leg it was a failed session."""
    if not runner.cancelled() and (fault := runner.exception()) is not None:
        log.error("session_fault", exc_info=fault)
