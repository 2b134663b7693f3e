"""Sessions with an ElevenLabs agent: a signed address, one connection, deadlines.

What is said over it is :mod:`providers.elevenlabs_conversation`'s. The agent is the tenant's own, configured
at the vendor's: docs/providers.md says how. The SDK is not used: it knows a third of the socket's messages,
runs threads of its own, and has no way to be given another socket.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode, urlsplit, urlunsplit

import httpx2
from websockets.exceptions import ConnectionClosed

from providers import elevenlabs_messages as wire
from providers.base import SessionConfig, Usage
from providers.connected import Connect, ConnectedSession
from providers.conversing import SessionOver
from providers.elevenlabs_conversation import Conversation
from providers.formats import PCMU, AudioFormat
from providers.tls import system_tls
from providers.websocket import (
    Limits,
    Listener,
    WebSocket,
    connect_websocket,
    is_loopback,
    is_secure,
    unreachable_in_words,
)

ELEVENLABS_URL: Final = "https://api.elevenlabs.io"
_PATH: Final = "/v1/convai/conversation/get-signed-url"
_MAX_BODY = 64 * 1024


@dataclass(frozen=True, slots=True)
class ElevenLabsSettings:
    """How to reach an agent, and how long to wait for it.

    Attributes:
        api_key: sent as ``xi-api-key``, for the signed address alone.
        agent: its id.
        base_url: ``http(s)://…`` without a path; the vendor has others for data residency.
        voice: a voice's id; empty: the agent's.
        format: of the audio until the agent's own is known.
        first_words_s: so long after its beginning a session waits for the first exact words: the agent says
            them word for word only if they are in the first message.
        connect_timeout_s: from asking for the address to the conversation's metadata.
        stall_timeout_s: how long the server may refuse to take what we send.
    """

    api_key: str = field(repr=False)
    agent: str
    base_url: str = ELEVENLABS_URL
    voice: str = ""
    format: AudioFormat = PCMU
    first_words_s: float = 0.5
    connect_timeout_s: float = 5.0
    close_timeout_s: float = 2.0
    stall_timeout_s: float = 5.0

    @property
    def signing_url(self) -> str:
        """Where a signed address is asked for."""
        parts = urlsplit(self.base_url)
        query = urlencode({"agent_id": self.agent})
        return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") + _PATH, query, ""))


class ElevenLabsProvider:
    """Opens sessions. See :class:`providers.base.Provider`."""

    name = "elevenlabs"
    opens_ahead = False  # the agent speaks first, and is billed by its time

    def __init__(self, settings: ElevenLabsSettings) -> None:
        self._settings = settings
        self._limits = Limits(
            open_s=settings.connect_timeout_s,
            close_s=settings.close_timeout_s,
            stall_s=settings.stall_timeout_s,
        )
        self._secure = is_secure(settings.base_url)
        # Without TLS there is nobody to be trusted, and no authorities to be loaded.
        self._context = system_tls() if self._secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    def open(self, config: SessionConfig) -> ElevenLabsSession:
        """See :class:`providers.base.Provider`. Needs a running event loop."""
        return ElevenLabsSession(self._settings, config, self._connect)

    async def _connect(self, listener: Listener) -> None:
        status, body = await self._ask_for_address()
        if status != 200:
            raise SessionOver(*wire.http_refusal(status, body))
        url = wire.signed_url(body, secure=self._secure)
        context = self._context if is_secure(url) else None
        await connect_websocket(url, {}, listener, self._limits, context)

    async def _ask_for_address(self) -> tuple[int, bytes]:
        """Status and body of the answer. Redirects are not followed: they would take the key along."""
        settings = self._settings
        if not (settings.api_key.isascii() and settings.api_key.isprintable()):
            raise SessionOver("key_refused", "the key holds characters that no key has")
        # Its own deadline, a little before ours: it leaks the connection where a TLS handshake is cancelled.
        limit_s = 0.9 * settings.connect_timeout_s
        try:
            async with (
                httpx2.AsyncClient(
                    verify=self._context,
                    trust_env=not is_loopback(settings.base_url),
                    timeout=limit_s,
                ) as client,
                client.stream(
                    "GET", settings.signing_url, headers={"xi-api-key": settings.api_key}
                ) as answer,
            ):
                body = b""
                async for piece in answer.aiter_bytes():
                    body += piece
                    if len(body) > _MAX_BODY:
                        raise SessionOver("protocol_error", f"more than {_MAX_BODY} bytes for an address")
                return answer.status_code, body
        except httpx2.TimeoutException as late:
            raise SessionOver("timeout", f"no address to connect to after {limit_s:g} s") from late
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, OSError) as error:
            raise SessionOver("unreachable", unreachable_in_words(settings.base_url, error)) from error


class ElevenLabsSession(ConnectedSession[Conversation]):
    """See :class:`providers.base.Session`, ``TakesTurns`` and ``BilledByTime`` there."""

    def __init__(self, settings: ElevenLabsSettings, config: SessionConfig, connect: Connect) -> None:
        self._due: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._billed_until: float | None = None
        """None: nothing is billed yet."""
        self._over_at: float | None = None
        self._waiting: asyncio.TimerHandle | None = None
        """For the first words; the connection is there."""
        now = asyncio.get_running_loop().time
        self._words_by = now() + settings.first_words_s
        conversation = Conversation(config, settings.voice, settings.format, self._emit, self._queue, now)
        super().__init__("elevenlabs", settings, conversation, connect)

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
        """See :class:`providers.base.BilledByTime`.

        The agent's language model is billed beside the time, and what it costs is told nowhere.
        """
        if self._billed_until is None:
            return ()
        now = self._over_at if self._over_at is not None else self._loop.time()
        seconds, self._billed_until = now - self._billed_until, now
        if not seconds:
            return ()
        return (Usage("elevenlabs", "agent", "session", seconds=seconds, complete=False),)

    def _confirmed(self) -> None:
        self._billed_until = self._loop.time()

    def opened(self, socket: WebSocket) -> None:
        """See :class:`providers.websocket.Listener`."""
        left_s = self._words_by - self._loop.time()
        if self._conversation.has_first_words or left_s <= 0 or self._over:
            super().opened(socket)
        else:
            self._socket = socket
            self._waiting = self._loop.call_later(left_s, self._wait_no_longer)

    def say_exactly(self, text: str) -> str:
        """See :class:`providers.base.Session`."""
        receipt = super().say_exactly(text)
        if self._waiting is not None:
            self._wait_no_longer()
        return receipt

    def _wait_no_longer(self) -> None:
        assert self._waiting is not None and self._socket is not None
        self._waiting.cancel()
        self._waiting = None
        super().opened(self._socket)

    def _opening(self) -> bytes:
        return self._conversation.open()

    def _append(self, audio: bytes) -> bytes:
        return wire.audio(audio)

    def _http_refusal(self, status: int, body: bytes) -> tuple[str, str]:
        return wire.http_refusal(status, body)

    def _lost(self, closed: ConnectionClosed) -> tuple[str, str]:
        theirs = closed.rcvd
        known = wire.close_refusal(theirs.code, theirs.reason) if theirs is not None else None
        return known or super()._lost(closed)

    def _receive(self, message: bytes) -> None:
        self._conversation.receive(wire.decode(message))

    def _arm(self) -> None:
        """Set the clock to what the conversation waits for, where that is new."""
        due = None if self._over else self._conversation.deadline
        if due == self._due:
            return
        self._due = due
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if due is None else self._loop.call_at(due, self._elapse)

    def _elapse(self) -> None:
        self._due = self._timer = None
        if not self._over:
            self._conversation.elapse()
            self._arm()

    def _finish(self) -> None:
        super()._finish()
        if self._over_at is None:
            self._over_at = self._loop.time()
        for timer in (self._timer, self._waiting):
            if timer is not None:
                timer.cancel()
        self._timer = self._waiting = self._due = None


__all__ = ["ELEVENLABS_URL", "ElevenLabsProvider", "ElevenLabsSession", "ElevenLabsSettings"]
