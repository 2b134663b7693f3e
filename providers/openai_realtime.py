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

import structlog
from openai import AsyncOpenAI, Omit, OpenAIError
from openai.types.websocket_connection_options import WebSocketConnectionOptions
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from providers import openai_messages as wire
from providers.access import AccessError
from providers.base import (
    Capabilities,
    Event,
    Failed,
    GoingAway,
    Heard,
    Ready,
    SessionConfig,
    Speak,
    ToolCall,
)
from providers.formats import FORMATS, FormatName
from providers.openai_conversation import Conversation, SessionOver
from providers.sequencer import Patience, Waiting
from providers.websocket import Limits, Listener, Stalled, WebSocket, connect_options, is_secure, why

log = structlog.stdlib.get_logger(__name__)

OPENAI_URL = "https://api.openai.com/v1"

_STALE_S = 1.0
"""Audio that waited longer than this is let go: late words are worse than missing ones."""
_MAX_CONTROL = 1000
"""Messages that may wait to be sent; more means that nothing is being sent."""
_MAX_EVENTS = 2000
"""Events that may wait to be taken before we stop reading, so that the server is slowed by TCP."""
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


class OpenAISession:
    """See :class:`providers.base.Session`, and for the socket :class:`providers.websocket.Listener`.

    One task opens the connection, waits for the end and closes; it ends before :meth:`close` returns. All
    else happens in the calls of the socket, of the leg and of timers.
    """

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
        self._loop = asyncio.get_running_loop()
        self._socket: WebSocket | None = None
        self._take: Callable[[Event], None] | None = None
        self._events: deque[Event] = deque()
        self._delivering = False
        self._due = False
        """Events are going to be delivered without anybody's doing."""
        self._over = False
        self._ready = asyncio.Event()
        """The configuration is confirmed, or the session is over."""
        self._ended = asyncio.Event()
        self._refused: Exception | None = None
        """What the consumer of the events raised."""
        self._control: deque[bytes] = deque()
        self._audio: deque[tuple[float, bytes]] = deque()
        self._audio_bytes = 0
        self._input = dialect.audio
        """The format of the audio that waits."""
        self._flushing = False
        """Audio is going to be sent at the end of the loop's turn."""
        self._odd = b""
        self._waiting: Patience | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.audio_let_go = 0
        """Bytes of the caller's audio that were never sent."""
        self._decode_delta = dialect.decode_delta
        self._conversation = Conversation(config, dialect, epoch, self._emit, self._queue)
        self._runner = asyncio.create_task(self._run(), name=f"{provider}-session")
        self._runner.add_done_callback(_report)

    # -- the seam --------------------------------------------------------------------------------------------

    @property
    def capabilities(self) -> Capabilities:
        """See :class:`providers.base.Session`."""
        return self._conversation.capabilities

    @property
    def busy(self) -> bool:
        """See :class:`providers.base.Session`."""
        return not self._over and self._conversation.busy

    async def run(self, take: Callable[[Event], None]) -> None:
        """See :class:`providers.base.Session`."""
        if self._take is not None:
            raise RuntimeError("a session's events can be taken once, by one consumer")
        self._take = take
        self._deliver()
        await self._ended.wait()
        self._deliver()
        if self._refused is not None:
            raise self._refused

    def send_audio(self, pcm: bytes) -> None:
        """See :class:`providers.base.Session`."""
        if self._over:
            return
        if self._odd or len(pcm) & 1:
            pcm = self._odd + pcm
            whole = len(pcm) & ~1
            pcm, self._odd = pcm[:whole], pcm[whole:]
        if not pcm:
            return
        now = self._loop.time()
        self._audio.append((now, pcm))
        self._audio_bytes += len(pcm)
        self._let_go(now)
        if not self._flushing:
            # At the end of the loop's turn: a loop that is late gets many frames at once, for one message.
            self._flushing = True
            self._loop.call_soon(self._flush)

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
        self._events.clear()
        self._finish()
        if not self._runner.done():
            self._runner.cancel()
            await asyncio.wait({self._runner}, timeout=self._settings.close_timeout_s + 1)

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
        self._due = True  # what this message brings is delivered below, and not by itself
        try:
            delta = self._decode_delta(message)
            if delta is not None:
                self._conversation.receive_audio(delta.response_id, delta.item_id, delta.delta)
            else:
                self._conversation.receive(wire.decode(message))
        except SessionOver as over:
            self._fail(over.code, over.message)
        except wire.MalformedMessage as malformed:
            self._fail("protocol_error", f"the provider sent something that makes no sense: {malformed}")
        except Exception as error:
            log.error("session_fault", exc_info=error)
            self._fail("internal", "the session broke down by a fault of ours")
        else:
            self._arm()
            if self._conversation.ready and not self._ready.is_set():
                self._ready.set()
                self._flush()
        self._deliver()

    def writable(self) -> None:
        """See :class:`providers.websocket.Listener`."""
        self._flush()

    def lost(self, closed: ConnectionClosed) -> None:
        """See :class:`providers.websocket.Listener`."""
        if isinstance(closed.__cause__, Stalled):
            allowed = self._settings.stall_timeout_s
            self._fail("send_stalled", f"the provider took nothing for {allowed:g} s")
        else:
            reason = why(closed)
            words = "the connection to the provider broke" if reason is None else f"the provider {reason}"
            self._fail("went_away", words)

    # -- what the conversation gives out ---------------------------------------------------------------------

    def _emit(self, event: Event) -> None:
        if self._over:
            return
        self._events.append(event)
        if not self._due:
            # Not at once: whoever gave an intent is not through with it.
            self._due = True
            self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        """Give what happened to whoever takes it, in its order, one at a time."""
        if self._delivering:
            return
        self._due = False
        if self._take is None:
            self._hold(len(self._events) >= _MAX_EVENTS)
            return
        self._delivering = self._due = True
        try:
            while self._events:
                event = self._events.popleft()
                # Audio that was interrupted while it waited here must not be played after all.
                if self._conversation.passes(event):
                    if isinstance(event, Ready):
                        self._agree()
                    self._take(event)
        except Exception as error:  # noqa: BLE001 - run() raises it, to the leg's own task
            self._refused = error
            self._events.clear()
            self._finish()
        finally:
            self._delivering = self._due = False
        self._hold(False)

    def _hold(self, on: bool) -> None:
        if self._socket is not None:
            self._socket.hold(on)

    def _queue(self, message: dict[str, Any]) -> None:
        if self._over:
            return
        if len(self._control) >= _MAX_CONTROL:
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
        while self._audio and now - self._audio[0][0] > _STALE_S:
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
        """Nothing goes in or out any more."""
        self._over = True
        self._control.clear()
        self.audio_let_go += self._audio_bytes
        self._audio.clear()
        self._audio_bytes = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._ready.set()
        self._ended.set()

    def _fail(self, code: str, message: str) -> None:
        self._emit(Failed("session", code, message))
        self._finish()

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
            self._fail(*_not_opened(refused))
        finally:
            if going_away is not None:
                going_away.cancel()
            if not self._over:
                self._fail("internal", "the session broke down by a fault of ours")
            if self._socket is not None:
                await self._socket.hang_up()


def _report(runner: asyncio.Task[None]) -> None:
    """A fault of ours is told to the log; to the leg it was a failed session."""
    if not runner.cancelled() and (exc := runner.exception()) is not None:
        log.error("session_fault", exc_info=exc)


def _not_opened(error: BaseException) -> tuple[str, str]:
    """Code and plain words for a connection that could not be opened."""
    if isinstance(error, InvalidStatus):
        return wire.http_refusal(error.response.status_code, bytes(error.response.body or b""))
    if isinstance(error, OSError):
        return "unreachable", f"the provider could not be reached: {error}"
    return "handshake_failed", f"no realtime connection could be opened: {error}"
