"""Sessions with a server that speaks OpenAI's Realtime protocol (GA): connection, deadlines, order.

What is said over the connection is :mod:`providers.openai_conversation`'s. The openai SDK opens it (address,
authentication) as a :class:`providers.websocket.WebSocket`, whose messages come and go without a task. No
reconnecting here: a session that lost its connection is over.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from openai import AsyncOpenAI, Omit, OpenAIError
from openai.types.websocket_connection_options import WebSocketConnectionOptions
from websockets.exceptions import ConnectionClosed, WebSocketException

from providers import openai_messages as wire
from providers.access import AccessError
from providers.base import (
    Capabilities,
    Event,
    GoingAway,
    Ready,
    SessionConfig,
)
from providers.formats import FORMATS, FormatName
from providers.openai_conversation import Conversation
from providers.sequencer import Patience, Waiting
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

OPENAI_URL = "https://api.openai.com/v1"

_PATIENCE_S: Mapping[Waiting, float] = {Waiting.BARGE_IN: 1.5, Waiting.SPEECH: 10.0, Waiting.TOOLS: 2.0}
"""How long the sequencer's waits may last."""


@dataclass(frozen=True, slots=True)
class OpenAISettings:
    """How to reach a server that speaks this protocol, and how long to wait for it.

    Attributes:
        api_key: sent as a bearer token.
        base_url: ``http(s)://…/v1``; the realtime address is below it.
        noise_reduction: ``near_field`` for handsets, ``far_field`` for door stations, None for none.
        connect_timeout_s: from opening to the confirmed configuration.
        stall_timeout_s: how long the server may refuse to take what we send.
        format: of the audio that is asked for, both ways.
        session_limit_s: after how long the server ends a session, without a warning of its own; GoingAway
            comes ``going_away_s`` before.
        headers, query: added to the connection's request.
        authentication: gives the headers that say who we are, anew for each connection; None: the key does.
    """

    api_key: str = field(repr=False)
    base_url: str = OPENAI_URL
    model: str = "gpt-realtime-2.1"
    voice: str = "marin"
    transcription_model: str = "gpt-transcribe"
    noise_reduction: wire.NoiseReduction | None = "far_field"
    connect_timeout_s: float = 5.0
    close_timeout_s: float = 2.0
    stall_timeout_s: float = 5.0
    format: FormatName = "pcm24"
    session_limit_s: float = 3600.0
    going_away_s: float = 120.0
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    authentication: Callable[[], Coroutine[Any, Any, Mapping[str, str]]] | None = field(
        default=None, repr=False
    )


class Deadlines(Protocol):
    """What a session must know of its provider's settings; see :class:`OpenAISettings`."""

    @property
    def connect_timeout_s(self) -> float: ...
    @property
    def close_timeout_s(self) -> float: ...
    @property
    def stall_timeout_s(self) -> float: ...
    @property
    def session_limit_s(self) -> float: ...
    @property
    def going_away_s(self) -> float: ...


class OpenAIProvider:
    """Opens sessions; one client for all of them. ``name`` is the provider's in settings and records."""

    def __init__(self, settings: OpenAISettings, name: str = "openai") -> None:
        self.name = name
        self._settings = settings
        self._client = AsyncOpenAI(
            api_key=settings.api_key, base_url=settings.base_url, default_headers=dict(settings.headers)
        )
        self._limits = Limits(
            open_s=settings.connect_timeout_s,
            close_s=settings.close_timeout_s,
            stall_s=settings.stall_timeout_s,
        )
        self._context = ssl.create_default_context() if is_secure(settings.base_url) else None

    def open(self, config: SessionConfig) -> OpenAISession:
        """See :class:`providers.base.Provider`. Needs a running event loop."""
        return OpenAISession(self.name, self._settings, self._dialect(), config, self._connect)

    def _dialect(self) -> wire.Dialect:
        settings = self._settings
        return wire.Wire(
            settings.voice,
            settings.transcription_model,
            settings.noise_reduction,
            FORMATS[settings.format],
        )

    async def _connect(self, listener: Listener) -> None:
        """Open a connection for a session, which is told of it as its listener."""
        options = connect_options(self._settings.base_url, listener, self._limits, self._context)
        headers: dict[str, str | Omit] = {}
        if self._settings.authentication is not None:
            # Without Omit the SDK would send its own key as well.
            headers = {"Authorization": Omit(), **await self._settings.authentication()}
        await self._client.realtime.connect(
            model=self._settings.model,
            extra_query=dict(self._settings.query),
            extra_headers=headers,
            # The SDK hands on more than its type names.
            websocket_connection_options=cast(WebSocketConnectionOptions, options),
        ).enter()


class OpenAISession(ConversingSession[Conversation]):
    """See :class:`providers.base.Session`, and for the socket :class:`providers.websocket.Listener`."""

    def __init__(
        self,
        provider: str,
        settings: Deadlines,
        dialect: wire.Dialect,
        config: SessionConfig,
        connect: Callable[[Listener], Coroutine[Any, Any, None]],
        epoch: int = 1,
    ) -> None:
        self._settings = settings
        self._connect = connect
        self._socket: WebSocket | None = None
        self._ready = asyncio.Event()
        """The configuration is confirmed, or the session is over."""
        self._control: deque[bytes] = deque()
        self._audio: deque[tuple[float, bytes]] = deque()
        self._audio_bytes = 0
        self._input = dialect.audio
        """The format of the audio that waits."""
        self._flushing = False
        """Audio is going to be sent at the end of the loop's turn."""
        self._waiting: Patience | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.audio_let_go = 0
        """Bytes of the caller's audio that were never sent."""
        self._decode_delta = dialect.decode_delta
        conversation = Conversation(config, dialect, epoch, self._emit, self._queue)
        super().__init__(provider, conversation, settings.close_timeout_s)

    @property
    def capabilities(self) -> Capabilities:
        """See :class:`providers.base.Session`."""
        return self._conversation.capabilities

    def _send_audio(self, pcm: bytes) -> None:
        now = self._loop.time()
        self._audio.append((now, pcm))
        self._audio_bytes += len(pcm)
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
            socket.send_text(wire.encode(self._conversation.open()))

    def received(self, message: bytes) -> None:
        """See :class:`providers.websocket.Listener`. The hot path."""
        if self._over:
            return
        with self._delivery.together():
            if self._take(message):
                self._arm()
                if self._conversation.ready and not self._ready.is_set():
                    self._ready.set()
                    self._flush()

    def _receive(self, message: bytes) -> None:
        delta = self._decode_delta(message)
        if delta is not None:
            self._conversation.receive_audio(delta.response_id, delta.item_id, delta.delta)
        else:
            self._conversation.receive(wire.decode(message))

    def writable(self) -> None:
        """See :class:`providers.websocket.Listener`."""
        self._flush()

    def lost(self, closed: ConnectionClosed) -> None:
        """See :class:`providers.websocket.Listener`."""
        if isinstance(closed.__cause__, Stalled):
            self._fail("send_stalled", stalled_in_words(self._settings.stall_timeout_s))
        else:
            self._fail("went_away", lost_in_words(closed))

    # -- what the conversation gives out ---------------------------------------------------------------------

    def _passes(self, event: Event) -> bool:
        """Audio that was interrupted while it waited must not be played after all."""
        if not super()._passes(event):
            return False
        if isinstance(event, Ready):
            self._agree()
        return True

    def _hold(self, on: bool) -> None:
        if self._socket is not None:
            self._socket.hold(on)

    def _queue(self, message: dict[str, Any]) -> None:
        if self._over:
            return
        if len(self._control) >= MAX_WAITING:
            self._fail("send_stalled", f"{len(self._control)} messages wait to be sent")
            return
        self._control.append(wire.encode(message))
        self._flush()

    def _flush(self) -> None:
        """Send what waits: messages first (a cancel must overtake audio), then the audio, in one piece."""
        self._flushing = False
        socket = self._socket
        if socket is None or self._over or not self._ready.is_set():
            return
        while self._control and socket.writable:
            socket.send_text(self._control.popleft())
        self._let_go(self._loop.time())
        if self._audio and self._input is self._conversation.input and socket.writable:
            pcm = self._audio[0][1] if len(self._audio) == 1 else b"".join([pcm for _, pcm in self._audio])
            self._audio.clear()
            self._audio_bytes = 0
            socket.send_text(wire.audio_append(self._input.encode(pcm)))

    def _let_go(self, now: float) -> None:
        """Drop and count audio that waited too long."""
        while self._audio and now - self._audio[0][0] > STALE_S:
            late = len(self._audio.popleft()[1])
            self._audio_bytes -= late
            self.audio_let_go += late

    def _arm(self) -> None:
        """Start the clock of what the sequencer waits for, where that is new."""
        patience = None if self._over else self._conversation.patience
        if patience == self._waiting:
            return
        self._waiting = patience
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if patience is not None:
            self._timer = self._loop.call_later(_PATIENCE_S[patience.kind], self._out_of_patience, patience)

    def _out_of_patience(self, patience: Patience) -> None:
        if not self._over:
            self._conversation.give_up(patience)
            self._arm()

    def _agree(self) -> None:
        """From here on :meth:`send_audio` is given audio at the confirmed rate; what waits is at another."""
        if self._conversation.input is not self._input:
            self.audio_let_go += self._audio_bytes
            self._audio.clear()
            self._audio_bytes = 0
            self._input = self._conversation.input

    def _finish(self) -> None:
        super()._finish()
        self._control.clear()
        self.audio_let_go += self._audio_bytes
        self._audio.clear()
        self._audio_bytes = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
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
            going_away = self._loop.call_later(
                max(0.0, settings.session_limit_s - settings.going_away_s),
                self._emit,
                GoingAway(settings.going_away_s),
            )
            await self._ended.wait()
        except TimeoutError:
            self._fail("timeout", f"no confirmed configuration after {settings.connect_timeout_s:g} s")
        except AccessError as unknown:
            self._fail("no_token", str(unknown))
        except (OSError, WebSocketException, OpenAIError) as refused:
            self._fail(*not_opened(refused, wire.http_refusal))
        finally:
            if going_away is not None:
                going_away.cancel()
            if not self._over:
                self._fail("internal", "the session broke down by a fault of ours")
            if self._socket is not None:
                await self._socket.hang_up()
