"""Sessions with OpenAI Live (gpt-live-1): connection, deadlines, order.

What is said over the connection is :mod:`providers.openai_live_conversation`'s. The openai SDK opens it
(address, authentication) as a :class:`providers.websocket.WebSocket`. No reconnecting here: the protocol has
no resumption, and a session that lost its connection is over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import structlog
from openai import AsyncOpenAI, DefaultAsyncHttpxClient, OpenAIError
from openai.types.websocket_connection_options import WebSocketConnectionOptions
from websockets.exceptions import ConnectionClosed

from providers import openai_live_messages as wire
from providers.base import GoingAway, SessionConfig, Usage
from providers.connected import Connect, ConnectedSession
from providers.conversing import MalformedMessage, SessionOver
from providers.formats import FormatName
from providers.openai_live_conversation import Conversation
from providers.openai_realtime import OPENAI_URL
from providers.tls import system_tls
from providers.usage import timed
from providers.websocket import (
    Limits,
    Listener,
    WebSocket,
    connect_options,
    is_secure,
    not_opened,
    reaching,
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
    opens_ahead = False  # it speaks when it likes, and is billed by its time

    def __init__(self, settings: LiveSettings) -> None:
        self._settings = settings
        client = AsyncOpenAI(
            api_key=settings.api_key,
            base_url=settings.base_url,
            # Nothing is asked over it: the sessions are WebSockets. Its own would read all authorities anew.
            http_client=DefaultAsyncHttpxClient(verify=system_tls()),
        )
        # The SDK loads this part of itself when it is first asked for: here, and not while calls go on.
        self._live = client.live
        self._limits = Limits(
            open_s=settings.connect_timeout_s,
            close_s=settings.close_timeout_s,
            stall_s=settings.stall_timeout_s,
        )
        self._context = system_tls() if is_secure(settings.base_url) else None

    def open(self, config: SessionConfig) -> LiveSession:
        """See :class:`providers.base.Provider`. Needs a running event loop."""
        return LiveSession(self._settings, config, self._connect)

    async def _connect(self, listener: Listener) -> None:
        options = connect_options(self._settings.base_url, listener, self._limits, self._context)
        try:
            # The SDK hands on more than its type names.
            with reaching(self._settings.base_url):
                await self._live.connect(
                    websocket_connection_options=cast(WebSocketConnectionOptions, options)
                ).enter()
        except OpenAIError as error:
            raise SessionOver(*not_opened(error, wire.http_refusal)) from error


class LiveSession(ConnectedSession[Conversation]):
    """See :class:`providers.base.Session` and :class:`providers.base.TakesTurns`."""

    def __init__(self, settings: LiveSettings, config: SessionConfig, connect: Connect) -> None:
        self._settings = settings
        self._closed = asyncio.Event()
        """The provider told that it ended the session, and what is billed; or the connection is gone."""
        self._due: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._going_away: asyncio.TimerHandle | None = None
        asked = wire.FORMATS[settings.format]
        start = wire.session_start(config, settings.model, settings.voice, settings.backend_model, asked)
        now = asyncio.get_running_loop().time
        conversation = Conversation(config, start, asked, self._emit, self._queue_message, now)
        self._billed_s = 0.0
        super().__init__("openai-live", settings, conversation, connect)

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

    def time_billed(self) -> tuple[Usage, ...]:
        """See :class:`providers.base.BilledByTime`. The provider counts, and tells from time to time."""
        told_s = self._conversation.seconds
        fresh_s, self._billed_s = max(0.0, told_s - self._billed_s), max(told_s, self._billed_s)
        if not fresh_s:
            return ()
        return (timed("openai-live", self._settings.model, "session", fresh_s),)

    def _opening(self) -> bytes:
        return wire.encode(self._conversation.start)

    def _append(self, audio: bytes) -> bytes:
        self._conversation.sent_at = self._loop.time()
        return wire.audio_append(audio)

    def _http_refusal(self, status: int, body: bytes) -> tuple[str, str]:
        return wire.http_refusal(status, body)

    def _confirmed(self) -> None:
        """The provider tells once, at the beginning, when it will end the session."""
        left_s = max(0.0, (self._conversation.expires_at or 0.0) - time.time())
        notice_s = min(left_s, self._settings.going_away_s)
        self._going_away = self._loop.call_later(left_s - notice_s, self._emit, GoingAway(notice_s))

    # -- what the socket calls -------------------------------------------------------------------------------

    def received(self, message: bytes) -> None:
        """See :class:`providers.websocket.Listener`. The hot path."""
        if self._over:
            self._last_words(message)
        else:
            super().received(message)

    def _receive(self, message: bytes) -> None:
        self._conversation.receive(message)

    def _last_words(self, message: bytes) -> None:
        """We ended the session; of what still comes only the bill counts."""
        try:
            _, told = wire.decode(message)
        except MalformedMessage as malformed:
            log.info("session.closing", malformed=str(malformed))
            return
        if isinstance(told, wire.Closed | wire.UsageUpdated):
            self._conversation.seconds = max(self._conversation.seconds, told.seconds)
        if isinstance(told, wire.Closed):
            self._closed.set()

    def lost(self, closed: ConnectionClosed) -> None:
        """See :class:`providers.websocket.Listener`."""
        self._closed.set()
        if not self._over:
            super().lost(closed)

    # -- what the conversation gives out ---------------------------------------------------------------------

    def _queue_message(self, message: Mapping[str, Any]) -> None:
        if not self._over:
            self._queue(wire.encode(message))

    def _arm(self) -> None:
        """Set the clock to what the conversation waits for.

        A timer that is due too early is left: the time moves on with each piece of the model's stream.
        """
        due = None if self._over else self._conversation.deadline
        if due == self._due:
            return
        self._due = due
        if self._timer is not None and (due is None or self._timer.when() > due):
            self._timer.cancel()
            self._timer = None
        if due is not None and self._timer is None:
            self._timer = self._loop.call_at(due, self._elapse)

    def _elapse(self) -> None:
        self._due = self._timer = None
        if not self._over:
            with self._delivery.together():
                try:
                    self._conversation.elapse()
                except SessionOver as over:
                    self._fail(over.code, over.message)
            self._arm()

    def _finish(self) -> None:
        super()._finish()
        for timer in (self._timer, self._going_away):
            if timer is not None:
                timer.cancel()
        self._timer = self._going_away = self._due = None

    async def _part(self, socket: WebSocket) -> None:
        """Say goodbye, hear what is billed, and be gone."""
        conversation = self._conversation
        try:
            if conversation.ready and not conversation.closed and not self._closed.is_set():
                socket.send_text(wire.CLOSE)
                async with asyncio.timeout(self._settings.close_timeout_s / 2):
                    await self._closed.wait()
        except TimeoutError:
            log.info("session.close_unconfirmed")
        finally:
            log.info("session.billed", seconds=conversation.seconds)
            await super()._part(socket)


__all__ = ["LiveProvider", "LiveSession", "LiveSettings"]
