"""A session with one connection, and it ends with it: what waits to be sent, deadlines, the end in words.

What differs between the providers is how the connection is opened, its first message, how the caller's audio
is written, and what their refusals mean: the methods in the middle of :class:`ConnectedSession`.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from websockets.exceptions import ConnectionClosed, WebSocketException

from providers.access import AccessError
from providers.base import Capabilities, Event, Ready
from providers.conversing import Conversing, SessionOver
from providers.formats import AudioFormat
from providers.session import MAX_WAITING, STALE_S, ConversingSession
from providers.websocket import Listener, Stalled, WebSocket, lost_in_words, not_opened, stalled_in_words


class Waits(Protocol):
    """What a session must know of its provider's settings.

    Attributes:
        connect_timeout_s: from opening to the confirmed configuration.
        stall_timeout_s: how long the server may refuse to take what we send.
    """

    @property
    def connect_timeout_s(self) -> float: ...
    @property
    def close_timeout_s(self) -> float: ...
    @property
    def stall_timeout_s(self) -> float: ...


class ConfirmingConversation(Conversing, Protocol):
    """A conversation whose server confirms what it was asked for."""

    @property
    def ready(self) -> bool:
        """It did."""

    @property
    def input(self) -> AudioFormat:
        """The format of the caller's audio; once ready, the confirmed one."""

    @property
    def capabilities(self) -> Capabilities:
        """See :class:`providers.base.Session`."""


C = TypeVar("C", bound=ConfirmingConversation)
Connect = Callable[[Listener], Coroutine[Any, Any, None]]
"""Opens a connection for a session, which is told of it as its listener.

It may raise :class:`SessionOver` and :class:`AccessError`, besides what opening a connection raises.
"""


class ConnectedSession(ConversingSession[C]):
    """See :class:`providers.base.Session`, and for the socket :class:`providers.websocket.Listener`."""

    def __init__(self, provider: str, waits: Waits, conversation: C, connect: Connect) -> None:
        self._waits = waits
        self._connect = connect
        self._socket: WebSocket | None = None
        self._ready = asyncio.Event()
        """The configuration is confirmed, or the session is over."""
        self._control: deque[bytes] = deque()
        self._audio: deque[tuple[float, bytes]] = deque()
        self._audio_bytes = 0
        self._input = conversation.input
        """The format of the audio that waits."""
        self._flushing = False
        """Audio is going to be sent at the end of the loop's turn."""
        self.audio_let_go = 0
        """Bytes of the caller's audio that were never sent."""
        super().__init__(provider, conversation, waits.close_timeout_s)

    @property
    def capabilities(self) -> Capabilities:
        """See :class:`providers.base.Session`."""
        return self._conversation.capabilities

    # -- the subclass's --------------------------------------------------------------------------------------

    @abstractmethod
    def _opening(self) -> bytes:
        """The first message."""

    @abstractmethod
    def _append(self, audio: bytes) -> bytes:
        """The message with so much of the caller's audio, in the confirmed format."""

    @abstractmethod
    def _http_refusal(self, status: int, body: bytes) -> tuple[str, str]:
        """Code and plain words for a handshake that was answered with an HTTP status."""

    def _lost(self, closed: ConnectionClosed) -> tuple[str, str]:
        """Code and plain words for a connection that is over."""
        return "went_away", lost_in_words(closed)

    def _confirmed(self) -> None:
        """The session is up."""

    async def _part(self, socket: WebSocket) -> None:
        """The session is over: end its connection, in bounded time."""
        await socket.hang_up()

    # -- what the socket calls -------------------------------------------------------------------------------

    def opened(self, socket: WebSocket) -> None:
        """See :class:`providers.websocket.Listener`."""
        self._socket = socket
        if not self._over:
            socket.send_text(self._opening())

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

    def writable(self) -> None:
        """See :class:`providers.websocket.Listener`."""
        self._flush()

    def lost(self, closed: ConnectionClosed) -> None:
        """See :class:`providers.websocket.Listener`."""
        if isinstance(closed.__cause__, Stalled):
            self._fail("send_stalled", stalled_in_words(self._waits.stall_timeout_s))
        else:
            self._fail(*self._lost(closed))

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

    # -- what is to be sent ----------------------------------------------------------------------------------

    def _send_audio(self, pcm: bytes) -> None:
        now = self._loop.time()
        self._audio.append((now, pcm))
        self._audio_bytes += len(pcm)
        self._let_go(now)
        if not self._flushing:
            # At the end of the loop's turn: a loop that is late gets many frames at once, for one message.
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _queue(self, message: bytes) -> None:
        if self._over:
            return
        if len(self._control) >= MAX_WAITING:
            self._fail("send_stalled", f"{len(self._control)} messages wait to be sent")
            return
        self._control.append(message)
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
            socket.send_text(self._append(self._input.encode(pcm)))

    def _let_go(self, now: float) -> None:
        """Drop and count audio that waited too long."""
        while self._audio and now - self._audio[0][0] > STALE_S:
            late = len(self._audio.popleft()[1])
            self._audio_bytes -= late
            self.audio_let_go += late

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
        self._ready.set()

    # -- the session's task ----------------------------------------------------------------------------------

    async def _run(self) -> None:
        """From opening the connection to the end of the session; every way out leaves through here."""
        waits = self._waits
        try:
            async with asyncio.timeout(waits.connect_timeout_s):
                await self._connect(self)
                await self._ready.wait()
            if not self._over:
                self._confirmed()
            await self._ended.wait()
        except TimeoutError:
            self._fail("timeout", f"no confirmed configuration after {waits.connect_timeout_s:g} s")
        except AccessError as unknown:
            self._fail("no_token", str(unknown))
        except SessionOver as over:
            self._fail(over.code, over.message)
        except (OSError, WebSocketException) as refused:
            self._fail(*not_opened(refused, self._http_refusal))
        finally:
            if not self._over:
                self._fail("internal", "the session broke down by a fault of ours")
            if self._socket is not None:
                await self._part(self._socket)


__all__ = ["ConfirmingConversation", "Connect", "ConnectedSession", "Waits"]
