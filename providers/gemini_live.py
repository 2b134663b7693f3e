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
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import structlog
from websockets.exceptions import ConnectionClosed, WebSocketException

from providers import gemini_messages as wire
from providers.base import AudioSent, Capabilities, Event, SessionConfig
from providers.gemini_conversation import CAPABILITIES, Conversation
from providers.session import MAX_WAITING, STALE_S, ConversingSession
from providers.tls import system_tls
from providers.websocket import (
    Limits,
    Stalled,
    WebSocket,
    connect_websocket,
    is_secure,
    lost_in_words,
    not_opened,
    stalled_in_words,
    why,
)

log = structlog.stdlib.get_logger(__name__)

GEMINI_URL: Final = "https://generativelanguage.googleapis.com"
_PATH: Final = "/ws/google.ai.generativelanguage.{version}.GenerativeService.BidiGenerateContent"
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
    opens_ahead = True

    def __init__(self, settings: GeminiSettings) -> None:
        self._settings = settings
        self._context = system_tls() if is_secure(settings.base_url) else None

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


class GeminiSession(ConversingSession[Conversation]):
    """See :class:`providers.base.Session`, TakesTurns and SparesSilence."""

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
        self._link: _Link | None = None
        self._waiting: deque[tuple[float | None, bytes]] = deque()
        """Messages to be sent; audio with the time at which it came."""
        self._due: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._leaving: asyncio.TimerHandle | None = None
        self._losses: deque[float] = deque(maxlen=_MAX_LOSSES)
        self.audio_let_go = 0
        """Bytes of messages with the caller's audio that were never sent."""
        now = asyncio.get_running_loop().time
        conversation = Conversation(config, settings.model, settings.voice, self._emit, self._queue, now)
        super().__init__("gemini", conversation, settings.close_timeout_s)

    @property
    def capabilities(self) -> Capabilities:
        """See :class:`providers.base.Session`."""
        return CAPABILITIES

    @property
    def epoch(self) -> int:
        """Counts the connections."""
        return self._conversation.epoch

    def _send_audio(self, pcm: bytes) -> None:
        self._conversation.send_audio(pcm)

    def audio_sent(self) -> AudioSent:
        """See :class:`providers.base.SparesSilence`."""
        return self._conversation.audio_sent

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

    # -- what a connection calls -----------------------------------------------------------------------------

    def opened(self, link: _Link) -> None:
        """The handshake is done."""
        if link is self._link and not self._over and link.socket is not None:
            link.socket.send_text(self._conversation.open())

    def received(self, link: _Link, message: bytes) -> None:
        """A message came. The hot path."""
        if self._over or link is not self._link:
            return
        with self._delivery.together():
            if self._take(message):
                if self._conversation.ready and not link.settled.is_set():
                    link.settled.set()
                    self._flush()
                self._arm()

    def _receive(self, message: bytes) -> None:
        self._conversation.receive(wire.decode(message))

    def writable(self, link: _Link) -> None:
        """The socket takes messages again."""
        if link is self._link:
            self._flush()

    # -- what the conversation gives out ---------------------------------------------------------------------

    def _emit(self, event: Event) -> None:
        if not self._over and event.type == "going_away":
            self._leave_in(event.in_s)
        super()._emit(event)

    def _hold(self, on: bool) -> None:
        if self._link is not None and self._link.socket is not None:
            self._link.socket.hold(on)

    def _queue(self, message: bytes, audio: bool) -> None:
        if self._over:
            return
        if len(self._waiting) >= MAX_WAITING:
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
            if came is not None and self._loop.time() - came > STALE_S:
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
        super()._finish()
        self._waiting.clear()
        for timer in (self._timer, self._leaving):
            if timer is not None:
                timer.cancel()
        self._timer = self._leaving = self._due = None
        if self._link is not None:
            self._link.settled.set()
            self._link.ended.set()

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
        finally:
            if not self._over:
                self._fail("internal", "the session broke down by a fault of ours")

    async def _settle(self, link: _Link) -> tuple[str, str] | None:
        """Open a connection and have it configured. Returns why there is none; None: well, or try again."""
        settings = self._settings
        try:
            async with asyncio.timeout(settings.connect_timeout_s):
                key = {"x-goog-api-key": settings.api_key}
                await connect_websocket(settings.url, key, link, self._limits, self._context)
                await link.settled.wait()
        except TimeoutError:
            return "timeout", f"no confirmed configuration after {settings.connect_timeout_s:g} s"
        except (OSError, WebSocketException) as error:
            return not_opened(error, wire.http_refusal)
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
                return "send_stalled", stalled_in_words(self._settings.stall_timeout_s)
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
    return ("went_away" if theirs is None else code), lost_in_words(closed)
