"""Sessions with Gemini Live (``BidiGenerateContent``): connections, one after the other, deadlines, order.

What is said over them is :mod:`providers.gemini_conversation`'s. A connection lasts about ten minutes: the
next is opened in a quiet moment after ``goAway``, with the newest handle that the server would resume from;
where it won't, the conversation is told anew as text. One that breaks is replaced in the same way.

The SDK opens no connection here: it has no way to be given another socket. It writes our messages.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import structlog
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from providers import gemini_messages as wire
from providers.base import (
    Capabilities,
    Event,
    Failed,
    Heard,
    SessionConfig,
    Speak,
    ToolCall,
)
from providers.delivery import Delivery
from providers.gemini_conversation import CAPABILITIES, Conversation, SessionOver
from providers.websocket import Limits, Stalled, WebSocket, connect_options, is_secure, why

log = structlog.stdlib.get_logger(__name__)

GEMINI_URL: Final = "https://generativelanguage.googleapis.com"
_PATH: Final = "/ws/google.ai.generativelanguage.{version}.GenerativeService.BidiGenerateContent"
_STALE_S = 1.0
"""Audio that waited longer than this is let go: late words are worse than missing ones."""
_MAX_WAITING = 1000
"""Messages that may wait to be sent; more means that nothing is being sent."""
_MAX_LOSSES = 3
"""So many connections may break within :data:`_LOSSES_S`; then the session is given up."""
_LOSSES_S = 60.0
_LEAVE_S = 3.0
"""So long before the server closes, the connection is left whatever is under way."""


@dataclass(frozen=True, slots=True)
class GeminiSettings:
    """How to reach Gemini Live, and how long to wait for it.

    Attributes:
        api_key: sent as ``x-goog-api-key``.
        base_url: ``http(s)://…`` without a path.
        model: without ``models/``.
        version: of the API, in the address.
        connect_timeout_s: from opening a connection to the confirmed configuration.
        stall_timeout_s: how long the server may refuse to take what we send.
    """

    api_key: str = field(repr=False)
    base_url: str = GEMINI_URL
    model: str = "gemini-3.8-live"
    voice: str = "Kore"
    version: str = "v1"
    connect_timeout_s: float = 5.0
    close_timeout_s: float = 2.0
    stall_timeout_s: float = 5.0

    @property
    def url(self) -> str:
        """Of the WebSocket."""
        parts = urlsplit(self.base_url)
        scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
        path = parts.path.rstrip("/") + _PATH.format(version=self.version)
        return urlunsplit((scheme, parts.netloc, path, "", ""))


class GeminiProvider:
    """Opens sessions."""

    name = "gemini"

    def __init__(self, settings: GeminiSettings) -> None:
        self._settings = settings
        self._context = ssl.create_default_context() if is_secure(settings.base_url) else None

    def open(self, config: SessionConfig) -> GeminiSession:
        """See :class:`providers.base.Provider`. Needs a running event loop."""
        return GeminiSession(self._settings, config, self._context)


class _Link:
    """One connection of a session's, and how it went. See :class:`providers.websocket.Listener`."""

    def __init__(self, session: GeminiSession) -> None:
        self._session = session
        self.socket: WebSocket | None = None
        self.settled = asyncio.Event()
        """The configuration is confirmed, or the connection is over."""
        self.ended = asyncio.Event()
        self.closed: ConnectionClosed | None = None

    def opened(self, socket: WebSocket) -> None:
        self.socket = socket
        self._session.opened(self)

    def received(self, message: bytes) -> None:
        self._session.received(self, message)

    def writable(self) -> None:
        self._session.writable(self)

    def lost(self, closed: ConnectionClosed) -> None:
        self.closed = closed
        self.settled.set()
        self.ended.set()


class GeminiSession:
    """See :class:`providers.base.Session` and :class:`providers.base.TakesTurns`.

    One task opens the connections and closes them; it ends before :meth:`close` returns. All else happens in
    the calls of the socket, of the leg and of timers.
    """

    def __init__(
        self, settings: GeminiSettings, config: SessionConfig, context: ssl.SSLContext | None
    ) -> None:
        self._settings = settings
        self._context = context
        self._limits = Limits(
            open_s=settings.connect_timeout_s,
            close_s=settings.close_timeout_s,
            stall_s=settings.stall_timeout_s,
            ping_s=None,  # it answers after 8 to 30 s at times, and lives
        )
        self._loop = asyncio.get_running_loop()
        self._link: _Link | None = None
        self._over = False
        self._waiting: deque[tuple[float | None, bytes]] = deque()
        """Messages to be sent; audio with the time at which it came."""
        self._odd = b""
        self._due: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._leaving: asyncio.TimerHandle | None = None
        self._losses: deque[float] = deque(maxlen=_MAX_LOSSES)
        self.audio_let_go = 0
        """Bytes of messages with the caller's audio that were never sent."""
        self._conversation = Conversation(
            config, settings.model, settings.voice, self._emit, self._queue, self._loop.time
        )
        self._delivery = Delivery(self._loop, self._conversation.passes, self._hold, self._finish)
        self._ended = asyncio.Event()
        self._runner = asyncio.create_task(self._run(), name="gemini-session")

    # -- the seam --------------------------------------------------------------------------------------------

    @property
    def capabilities(self) -> Capabilities:
        """See :class:`providers.base.Session`."""
        return CAPABILITIES

    @property
    def busy(self) -> bool:
        """See :class:`providers.base.Session`."""
        return not self._over and self._conversation.busy

    @property
    def epoch(self) -> int:
        """Counts the connections."""
        return self._conversation.epoch

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
            self._conversation.send_audio(pcm)

    def caller_began(self) -> None:
        """See :class:`providers.base.TakesTurns`."""
        if not self._over:
            self._conversation.caller_began()
            self._arm()

    def caller_ended(self, quiet_ms: int) -> None:
        """See :class:`providers.base.TakesTurns`."""
        if not self._over:
            self._conversation.caller_ended(quiet_ms)
            self._arm()

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
            await asyncio.wait({self._runner}, timeout=self._settings.close_timeout_s + 1)

    # -- what a connection calls -----------------------------------------------------------------------------

    def opened(self, link: _Link) -> None:
        """The handshake is done."""
        if link is self._link and not self._over and link.socket is not None:
            link.socket.send_text(self._conversation.open())

    def received(self, link: _Link, message: bytes) -> None:
        """A message came. The hot path."""
        if self._over or link is not self._link:
            return
        conversation = self._conversation
        with self._delivery.together():
            try:
                conversation.receive(wire.decode(message))
            except SessionOver as over:
                self._fail(over.code, over.message)
            except wire.MalformedMessage as malformed:
                self._fail("protocol_error", f"the provider sent something that makes no sense: {malformed}")
            except Exception as error:
                log.error("session_fault", exc_info=error)
                self._fail("internal", "the session broke down by a fault of ours")
            else:
                if conversation.ready and not link.settled.is_set():
                    link.settled.set()
                    self._flush()
                self._arm()

    def writable(self, link: _Link) -> None:
        """The socket takes messages again."""
        if link is self._link:
            self._flush()

    # -- what the conversation gives out ---------------------------------------------------------------------

    def _emit(self, event: Event) -> None:
        if self._over:
            return
        if event.type == "going_away":
            self._leave_in(event.in_s)
        self._delivery.add(event)

    def _hold(self, on: bool) -> None:
        if self._link is not None and self._link.socket is not None:
            self._link.socket.hold(on)

    def _queue(self, message: bytes, audio: bool) -> None:
        if self._over:
            return
        if len(self._waiting) >= _MAX_WAITING:
            self._fail("send_stalled", f"{len(self._waiting)} messages wait to be sent")
            return
        self._waiting.append((self._loop.time() if audio else None, message))
        self._flush()

    def _flush(self) -> None:
        """Send what waits, in its order: audio belongs between the beginning of a turn and its end."""
        link = self._link
        if self._over or link is None or link.socket is None or not self._conversation.ready:
            return
        while self._waiting and link.socket.writable:
            came, message = self._waiting.popleft()
            if came is not None and self._loop.time() - came > _STALE_S:
                self.audio_let_go += len(message)
            else:
                link.socket.send_text(message)

    def _arm(self) -> None:
        """Set the clock to what the conversation waits for, and leave a connection that will close."""
        due = None if self._over else self._conversation.deadline
        if due != self._due:
            self._due = due
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None if due is None else self._loop.call_at(due, self._elapse)
        if self._conversation.going_away and self._conversation.quiet and not self._over:
            self._leave()

    def _elapse(self) -> None:
        self._due = self._timer = None
        if not self._over:
            self._conversation.elapse()
            self._arm()

    def _leave_in(self, seconds: float) -> None:
        if self._leaving is None:
            self._leaving = self._loop.call_later(max(0.0, seconds - _LEAVE_S), self._leave)

    def _leave(self) -> None:
        """Have the next connection opened in the place of this one."""
        if self._link is not None:
            self._link.ended.set()

    def _finish(self) -> None:
        """Nothing goes in or out any more."""
        self._over = True
        self._waiting.clear()
        for timer in (self._timer, self._leaving):
            if timer is not None:
                timer.cancel()
        self._timer = self._leaving = self._due = None
        if self._link is not None:
            self._link.settled.set()
            self._link.ended.set()
        self._ended.set()

    def _fail(self, code: str, message: str) -> None:
        self._emit(Failed("session", code, message))
        self._finish()

    # -- the session's task ----------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Connection after connection, until the session is over; every way out leaves through here."""
        try:
            while not self._over:
                link = self._link = _Link(self)
                try:
                    refused = await self._settle(link)
                    if refused is None:
                        await link.ended.wait()
                        refused = self._parted(link)
                finally:
                    self._link = None
                    if link.socket is not None:
                        await link.socket.hang_up()
                if refused is not None:
                    self._fail(*refused)
        except Exception as error:
            log.error("session_fault", exc_info=error)
            raise
        finally:
            if not self._over:
                self._fail("internal", "the session broke down by a fault of ours")

    async def _settle(self, link: _Link) -> tuple[str, str] | None:
        """Open a connection and have it configured. Returns why there is none; None: well, or try again."""
        settings = self._settings
        try:
            async with asyncio.timeout(settings.connect_timeout_s):
                await connect(
                    settings.url,
                    additional_headers={"x-goog-api-key": settings.api_key},
                    **connect_options(settings.base_url, link, self._limits, self._context),
                )
                await link.settled.wait()
        except TimeoutError:
            return "timeout", f"no confirmed configuration after {settings.connect_timeout_s:g} s"
        except (OSError, WebSocketException) as error:
            return _not_opened(error)
        if self._conversation.ready or self._over:
            return None
        if self._conversation.handle is not None:
            log.info("session.not_resumed", reason=why(link.closed) if link.closed else None)
            self._conversation.forget_handle()
            link.ended.set()
            return None
        return _refused(link.closed, "configuration_refused")

    def _parted(self, link: _Link) -> tuple[str, str] | None:
        """A connection is over, or is to be left. Returns why no other follows."""
        if self._over:
            return None
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None
        if not self._conversation.ready:
            return None  # it would not resume
        self._waiting.clear()
        if link.closed is not None:
            if isinstance(link.closed.__cause__, Stalled):
                return "send_stalled", f"the provider took nothing for {self._settings.stall_timeout_s:g} s"
            refused = _refused(link.closed, "went_away")
            now = self._loop.time()
            if refused[0] in wire.LASTING:
                return refused
            if len(self._losses) == _MAX_LOSSES and now - self._losses[0] < _LOSSES_S:
                return refused
            self._losses.append(now)
            log.warning("session.connection_lost", reason=refused[1])
        self._conversation.connection_lost()
        self._arm()
        return None


def _refused(closed: ConnectionClosed | None, code: str) -> tuple[str, str]:
    """Code and plain words for a connection that the server closed."""
    theirs = closed.rcvd if closed is not None else None
    if theirs is not None and (known := wire.close_refusal(theirs.code, theirs.reason)) is not None:
        return known
    reason = why(closed) if closed is not None else None
    words = "the connection to the provider broke" if reason is None else f"the provider {reason}"
    return ("went_away" if theirs is None else code), words


def _not_opened(error: BaseException) -> tuple[str, str]:
    """Code and plain words for a connection that could not be opened."""
    if isinstance(error, InvalidStatus):
        return wire.http_refusal(error.response.status_code, bytes(error.response.body or b""))
    if isinstance(error, OSError):
        return "unreachable", f"the provider could not be reached: {error}"
    return "handshake_failed", f"no realtime connection could be opened: {error}"
