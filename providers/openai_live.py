"""Sessions with OpenAI Live (gpt-live-1): connection, deadlines, order.

What is said over the connection is :mod:`providers.openai_live_conversation`'s. The openai SDK opens it
(address, authentication) as a :class:`providers.websocket.WebSocket`. No reconnecting here: the protocol has
no resumption, and a session that lost its connection is over.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import structlog
from openai import AsyncOpenAI, OpenAIError
from openai.types.websocket_connection_options import WebSocketConnectionOptions
from websockets.exceptions import ConnectionClosed, WebSocketException

from providers import openai_live_messages as wire
from providers.base import Capabilities, Event, GoingAway, Ready, SessionConfig
from providers.conversing import MalformedMessage
from providers.formats import FormatName
from providers.openai_live_conversation import Conversation
from providers.openai_realtime import OPENAI_URL
from providers.session import MAX_WAITING, STALE_S, ConversingSession
from providers.websocket import (
    Limits,
    Listener,
    Stalled,
    WebSocket,
    connect_options,
    is_secure,
    lost_in_words,
    not_opened,
    stalled_in_words,
)

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LiveSettings:
    """How to reach OpenAI Live, and how long to wait for it.

    Attributes:
        api_key: sent as a bearer token.
        base_url: ``http(s)://…/v1``; the address of sessions is below it.
        backend_model: the model beside the voice that calls our tools.
        connect_timeout_s: from opening to the confirmed configuration.
        stall_timeout_s: how long the server may refuse to take what we send.
        format: of the audio that is asked for, both ways.
        going_away_s: so long before the session expires GoingAway comes.
    """

    api_key: str = field(repr=False)
    base_url: str = OPENAI_URL
    model: str = "gpt-live-1"
    voice: str = "marin"
    backend_model: str = "gpt-6-luna"
    connect_timeout_s: float = 5.0
    close_timeout_s: float = 2.0
    stall_timeout_s: float = 5.0
    format: FormatName = "pcm24"
    going_away_s: float = 120.0


class LiveProvider:
    """Opens sessions; one client for all of them."""

    name = "openai-live"

    def __init__(self, settings: LiveSettings) -> None:
        self._settings = settings
        self._client = AsyncOpenAI(api_key=settings.api_key, base_url=settings.base_url)
        self._limits = Limits(
            open_s=settings.connect_timeout_s,
            close_s=settings.close_timeout_s,
            stall_s=settings.stall_timeout_s,
        )
        self._context = ssl.create_default_context() if is_secure(settings.base_url) else None

    def open(self, config: SessionConfig) -> LiveSession:
        """See :class:`providers.base.Provider`. Needs a running event loop."""
        return LiveSession(self._settings, config, self._connect)

    async def _connect(self, listener: Listener) -> None:
        options = connect_options(self._settings.base_url, listener, self._limits, self._context)
        # The SDK hands on more than its type names.
        await self._client.live.connect(
            websocket_connection_options=cast(WebSocketConnectionOptions, options)
        ).enter()


class LiveSession(ConversingSession[Conversation]):
    """See :class:`providers.base.Session` and ``TakesTurns``, and :class:`providers.websocket.Listener`."""

    def __init__(
        self,
        settings: LiveSettings,
        config: SessionConfig,
        connect: Callable[[Listener], Coroutine[Any, Any, None]],
    ) -> None:
        self._settings = settings
        self._connect = connect
        self._socket: WebSocket | None = None
        self._ready = asyncio.Event()
        """The configuration is confirmed, or the session is over."""
        self._closed = asyncio.Event()
        """The provider told that it ended the session, and what is billed; or the connection is gone."""
        self._control: deque[bytes] = deque()
        self._audio: deque[tuple[float, bytes]] = deque()
        self._flushing = False
        """Audio is going to be sent at the end of the loop's turn."""
        self._due: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.audio_let_go = 0
        """Bytes of the caller's audio that were never sent."""
        asked = wire.FORMATS[settings.format]
        start = wire.session_start(config, settings.model, settings.voice, settings.backend_model, asked)
        now = asyncio.get_running_loop().time
        conversation = Conversation(config, start, asked, self._emit, self._queue, now)
        self._input = asked
        """The format of the audio that waits."""
        super().__init__("openai-live", conversation, settings.close_timeout_s)

    @property
    def capabilities(self) -> Capabilities:
        """See :class:`providers.base.Session`."""
        return self._conversation.capabilities

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

    def _send_audio(self, pcm: bytes) -> None:
        now = self._loop.time()
        self._audio.append((now, pcm))
        self._let_go(now)
        if not self._flushing:
            # At the end of the loop's turn: a loop that is late gets many frames at once, for one message.
            self._flushing = True
            self._loop.call_soon(self._flush)

    # -- what the socket calls -------------------------------------------------------------------------------

    def opened(self, socket: WebSocket) -> None:
        """See :class:`providers.websocket.Listener`."""
        self._socket = socket
        if not self._over:
            socket.send_text(wire.encode(self._conversation.start))

    def received(self, message: bytes) -> None:
        """See :class:`providers.websocket.Listener`. The hot path."""
        if self._over:
            self._last_words(message)
            return
        with self._delivery.together():
            if self._take(message):
                self._arm()
                if self._conversation.ready and not self._ready.is_set():
                    self._ready.set()
                    self._flush()

    def _receive(self, message: bytes) -> None:
        self._conversation.receive(message)

    def _last_words(self, message: bytes) -> None:
        """We ended the session; of what still comes only the bill counts."""
        try:
            kind, told = wire.decode(message)
        except MalformedMessage as malformed:
            log.info("session.closing", malformed=str(malformed))
            return
        if isinstance(told, wire.Closed | wire.UsageUpdated):
            self._conversation.seconds = told.usage.seconds
        if kind == "session.closed":
            self._closed.set()

    def writable(self) -> None:
        """See :class:`providers.websocket.Listener`."""
        self._flush()

    def lost(self, closed: ConnectionClosed) -> None:
        """See :class:`providers.websocket.Listener`."""
        self._closed.set()
        if self._over:
            return
        if isinstance(closed.__cause__, Stalled):
            self._fail("send_stalled", stalled_in_words(self._settings.stall_timeout_s))
        else:
            self._fail("went_away", lost_in_words(closed))

    # -- what the conversation gives out ---------------------------------------------------------------------

    def _passes(self, event: Event) -> bool:
        if not super()._passes(event):
            return False
        if isinstance(event, Ready):
            self._agree()
        return True

    def _agree(self) -> None:
        """From here on :meth:`send_audio` is given audio at the confirmed rate; what waits is at another."""
        if self._conversation.audio is not self._input:
            self.audio_let_go += sum(len(pcm) for _, pcm in self._audio)
            self._audio.clear()
            self._input = self._conversation.audio

    def _hold(self, on: bool) -> None:
        if self._socket is not None:
            self._socket.hold(on)

    def _queue(self, message: Mapping[str, Any]) -> None:
        if self._over:
            return
        if len(self._control) >= MAX_WAITING:
            self._fail("send_stalled", f"{len(self._control)} messages wait to be sent")
            return
        self._control.append(wire.encode(message))
        self._flush()

    def _flush(self) -> None:
        """Send what waits: messages first, then the audio, in one piece."""
        self._flushing = False
        socket = self._socket
        if socket is None or self._over or not self._ready.is_set():
            return
        while self._control and socket.writable:
            socket.send_text(self._control.popleft())
        self._let_go(self._loop.time())
        if self._audio and self._input is self._conversation.audio and socket.writable:
            pcm = self._audio[0][1] if len(self._audio) == 1 else b"".join([pcm for _, pcm in self._audio])
            self._audio.clear()
            socket.send_text(wire.audio_append(self._input.encode(pcm)))

    def _let_go(self, now: float) -> None:
        """Drop and count audio that waited too long."""
        while self._audio and now - self._audio[0][0] > STALE_S:
            self.audio_let_go += len(self._audio.popleft()[1])

    def _arm(self) -> None:
        """Set the clock to what the conversation waits for."""
        due = None if self._over else self._conversation.deadline
        if due == self._due:
            return
        if self._timer is not None and (due is None or self._timer.when() > due):
            self._timer.cancel()
            self._timer = None
        self._due = due
        if due is not None and self._timer is None:
            self._timer = self._loop.call_at(due, self._elapse)

    def _elapse(self) -> None:
        self._due = self._timer = None
        if not self._over:
            with self._delivery.together():
                self._conversation.elapse()
            self._arm()

    def _finish(self) -> None:
        super()._finish()
        self._control.clear()
        self.audio_let_go += sum(len(pcm) for _, pcm in self._audio)
        self._audio.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._due = None
        self._ready.set()

    # -- the session's task ----------------------------------------------------------------------------------

    async def _run(self) -> None:
        """From opening the connection to the end of the session; every way out leaves through here."""
        going_away: asyncio.TimerHandle | None = None
        settings = self._settings
        try:
            async with asyncio.timeout(settings.connect_timeout_s):
                await self._connect(self)
                await self._ready.wait()
            going_away = self._warn_in_time()
            await self._ended.wait()
        except TimeoutError:
            self._fail("timeout", f"no confirmed configuration after {settings.connect_timeout_s:g} s")
        except (OSError, WebSocketException, OpenAIError) as refused:
            self._fail(*not_opened(refused, wire.http_refusal))
        finally:
            if going_away is not None:
                going_away.cancel()
            if not self._over:
                self._fail("internal", "the session broke down by a fault of ours")
            if self._socket is not None:
                await self._part(self._socket)

    def _warn_in_time(self) -> asyncio.TimerHandle | None:
        """GoingAway comes before the provider ends the session, which it announces once, at its beginning."""
        expires_at = self._conversation.expires_at
        if expires_at is None:
            return None
        left = max(0.0, expires_at - time.time())
        notice = min(left, self._settings.going_away_s)
        return self._loop.call_later(left - notice, self._emit, GoingAway(notice))

    async def _part(self, socket: WebSocket) -> None:
        """Say goodbye, hear what is billed, and be gone."""
        try:
            if self._conversation.ready and not (self._conversation.closed or self._closed.is_set()):
                socket.send_text(wire.CLOSE)
                async with asyncio.timeout(self._settings.close_timeout_s / 2):
                    await self._closed.wait()
        except TimeoutError:
            log.info("session.close_unconfirmed")
        finally:
            log.info("session.billed", seconds=self._conversation.seconds)
            await socket.hang_up()


__all__ = ["LiveProvider", "LiveSession", "LiveSettings"]
