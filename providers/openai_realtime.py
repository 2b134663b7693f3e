"""Sessions with a server that speaks OpenAI's Realtime protocol (GA): connection, tasks, deadlines.

What is said over the connection is :mod:`providers.openai_conversation`'s. The openai SDK opens the
connection (address, authentication); the hot path reads and writes its raw frames. No reconnecting here: a
session that lost its connection is over.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, cast
from urllib.parse import urlsplit

import structlog
from openai import AsyncOpenAI, OpenAIError
from openai.resources.realtime.realtime import AsyncRealtimeConnection, AsyncRealtimeConnectionManager
from openai.types.websocket_connection_options import WebSocketConnectionOptions
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from providers import openai_messages as wire
from providers.base import Capabilities, Event, Failed, GoingAway, Heard, SessionConfig, Speak, ToolCall
from providers.openai_conversation import CAPABILITIES, Conversation, SessionOver
from providers.sequencer import Patience, Waiting

log = structlog.stdlib.get_logger(__name__)

OPENAI_URL = "https://api.openai.com/v1"

_STALE_S = 1.0
"""Audio that waited longer than this is let go: late words are worse than missing ones."""
_MAX_CONTROL = 1000
"""Messages that may wait to be sent; more means that nothing is being sent."""
_MAX_EVENTS = 2000
"""Events that may wait to be taken before we stop reading, so that the server is slowed by TCP."""
_MAX_MESSAGE = 16 * 1024 * 1024
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
        stall_timeout_s: how long the server may refuse to take what we send; seen a fifth later at most.
        audio_ms: the caller's audio waits until there is so much of it, because it is messages that cost, not
            bytes. 0: it goes as it comes.
        session_limit_s: after how long the server ends a session, without a warning of its own; GoingAway
            comes ``going_away_s`` before.
        headers, query: added to the connection's request.
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
    audio_ms: int = 0
    session_limit_s: float = 3600.0
    going_away_s: float = 120.0
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)


class OpenAIProvider:
    """Opens sessions; one client for all of them. ``name`` is the provider's in settings and records."""

    def __init__(self, settings: OpenAISettings, name: str = "openai") -> None:
        self.name = name
        self._settings = settings
        self._client = AsyncOpenAI(
            api_key=settings.api_key, base_url=settings.base_url, default_headers=dict(settings.headers)
        )
        self._options = _connection_options(settings)

    def open(self, config: SessionConfig) -> OpenAISession:
        """See :class:`providers.base.Provider`. Needs a running event loop."""
        manager = self._client.realtime.connect(
            model=self._settings.model,
            extra_query=dict(self._settings.query),
            websocket_connection_options=self._options,
        )
        return OpenAISession(self.name, self._settings, config, manager)


def _connection_options(settings: OpenAISettings) -> WebSocketConnectionOptions:
    """Options of websockets' connect(); the SDK hands on more than its type names."""
    url = urlsplit(settings.base_url)
    options: dict[str, Any] = {
        "max_size": _MAX_MESSAGE,
        "compression": None,  # audio doesn't compress, and deflate costs memory for each leg
        "open_timeout": settings.connect_timeout_s,
        "close_timeout": settings.close_timeout_s / 2,
    }
    if url.scheme in ("https", "wss"):
        # Loading the certificates blocks for tens of milliseconds: once, not for each call.
        options["ssl"] = ssl.create_default_context()
    if _is_loopback(url.hostname or ""):
        options["proxy"] = None  # a proxy of the environment can't reach our own machine
    return cast(WebSocketConnectionOptions, options)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class OpenAISession:
    """See :class:`providers.base.Session`. One task runs it, and ends before :meth:`close` returns."""

    def __init__(
        self,
        provider: str,
        settings: OpenAISettings,
        config: SessionConfig,
        manager: AsyncRealtimeConnectionManager,
        epoch: int = 1,
    ) -> None:
        self._settings = settings
        self._manager = manager
        self._loop = asyncio.get_running_loop()
        self._events: deque[Event] = deque()
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._over = False
        self._consumed = False
        self._control: deque[str] = deque()
        self._audio: deque[tuple[float, bytes]] = deque()
        self._audio_bytes = 0
        self._odd = b""
        self._work = asyncio.Event()
        self._sending_since: float | None = None
        """Since when the server has been given what is being sent; None: nothing is."""
        self._waiting: Patience | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.audio_let_go = 0
        """Bytes of the caller's audio that were never sent."""
        voice = wire.Wire(settings.voice, settings.transcription_model, settings.noise_reduction)
        self._conversation = Conversation(config, voice, epoch, self._emit, self._queue)
        self._runner = asyncio.create_task(self._run(), name=f"{provider}-session")
        self._runner.add_done_callback(_report)

    # -- the seam --------------------------------------------------------------------------------------------

    @property
    def capabilities(self) -> Capabilities:
        """See :class:`providers.base.Session`."""
        return CAPABILITIES

    @property
    def busy(self) -> bool:
        """See :class:`providers.base.Session`."""
        return not self._over and self._conversation.busy

    async def events(self) -> AsyncIterator[Event]:
        """See :class:`providers.base.Session`."""
        if self._consumed:
            raise RuntimeError("a session's events can be taken once, by one consumer")
        self._consumed = True
        while True:
            while self._events:
                event = self._events.popleft()
                if len(self._events) < _MAX_EVENTS:
                    self._room.set()
                # Audio that was interrupted while it waited here must not be played after all.
                if self._conversation.passes(event):
                    yield event
            if self._over:
                return
            self._news.clear()
            await self._news.wait()

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
        if self._audio_bytes >= self._settings.audio_ms * wire.BYTES_PER_MS:
            self._work.set()

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
        self._finish()
        if not self._runner.done():
            self._runner.cancel()
            await asyncio.wait({self._runner}, timeout=self._settings.close_timeout_s + 1)

    # -- what the conversation gives out ---------------------------------------------------------------------

    def _emit(self, event: Event) -> None:
        if self._over:
            return
        self._events.append(event)
        if len(self._events) >= _MAX_EVENTS:
            self._room.clear()
        self._news.set()

    def _queue(self, message: dict[str, Any]) -> None:
        if self._over:
            return
        self._control.append(wire.encode(message))
        self._work.set()

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
        self._news.set()
        self._room.set()

    def _fail(self, code: str, message: str) -> None:
        self._emit(Failed("session", code, message))
        self._finish()

    # -- the session's task ----------------------------------------------------------------------------------

    async def _run(self) -> None:
        """From opening the connection to the end of the session; every way out leaves through here."""
        connection: AsyncRealtimeConnection | None = None
        going_away: asyncio.TimerHandle | None = None
        settings = self._settings
        try:
            async with asyncio.timeout(settings.connect_timeout_s):
                connection = await self._manager.enter()
                await connection.send_raw(wire.encode(self._conversation.open()))
                while not self._conversation.ready:
                    self._take(await connection.recv_bytes())
            going_away = self._loop.call_later(
                max(0.0, settings.session_limit_s - settings.going_away_s),
                self._emit,
                GoingAway(settings.going_away_s),
            )
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read(connection), name="openai-session-reader")
                tasks.create_task(self._write(connection), name="openai-session-writer")
                tasks.create_task(self._watch_the_writer(), name="openai-session-watch")
        except* SessionOver as over:
            first = _leaf(over)
            assert isinstance(first, SessionOver)
            self._fail(first.code, first.message)
        except* wire.MalformedMessage as malformed:
            self._fail(
                "protocol_error", f"the provider sent something that makes no sense: {_leaf(malformed)}"
            )
        except* TimeoutError:
            self._fail("timeout", f"no confirmed configuration after {settings.connect_timeout_s:g} s")
        except* ConnectionClosed as closed:
            self._fail("went_away", _went_away(_leaf(closed)))
        except* (OSError, WebSocketException, OpenAIError) as refused:
            self._fail(*_not_opened(_leaf(refused)))
        finally:
            if going_away is not None:
                going_away.cancel()
            if not self._over:
                self._fail("internal", "the session broke down by a fault of ours")
            if connection is not None:
                await self._hang_up(connection)

    def _take(self, frame: bytes) -> None:
        self._conversation.receive(wire.decode(frame))
        self._arm()

    async def _read(self, connection: AsyncRealtimeConnection) -> None:
        while True:
            self._take(await connection.recv_bytes())
            if not self._room.is_set():
                await self._room.wait()

    async def _write(self, connection: AsyncRealtimeConnection) -> None:
        """Send what waits: messages first (a cancel must overtake audio), then the audio, in one piece."""
        while True:
            await self._work.wait()
            self._work.clear()
            if len(self._control) > _MAX_CONTROL:
                raise SessionOver("send_stalled", f"{len(self._control)} messages wait to be sent")
            self._sending_since = self._loop.time()
            while self._control:
                await connection.send_raw(self._control.popleft())
            self._let_go(self._loop.time())
            if self._audio:
                pcm = b"".join(piece for _, piece in self._audio)
                self._audio.clear()
                self._audio_bytes = 0
                await connection.send_raw(wire.audio_append(pcm))
            self._sending_since = None

    async def _watch_the_writer(self) -> None:
        """Give up a server that takes nothing. A look now and then costs less than a deadline a message."""
        allowed = self._settings.stall_timeout_s
        while True:
            await asyncio.sleep(allowed / 5)
            since = self._sending_since
            if since is not None and self._loop.time() - since >= allowed:
                raise SessionOver("send_stalled", f"the provider took nothing for {allowed:g} s")

    def _let_go(self, now: float) -> None:
        """Drop and count audio that waited too long."""
        while self._audio and now - self._audio[0][0] > _STALE_S:
            late = len(self._audio.popleft()[1])
            self._audio_bytes -= late
            self.audio_let_go += late

    async def _hang_up(self, connection: AsyncRealtimeConnection) -> None:
        try:
            async with asyncio.timeout(self._settings.close_timeout_s):
                await connection.close()
        except (TimeoutError, OSError, WebSocketException) as exc:
            log.info("session_close_incomplete", error=type(exc).__name__)


def _report(runner: asyncio.Task[None]) -> None:
    """A fault of ours is told to the log; to the leg it was a failed session."""
    if not runner.cancelled() and (exc := runner.exception()) is not None:
        log.error("session_fault", exc_info=exc)


def _leaf(error: BaseException) -> BaseException:
    """The first error that is not a group of errors."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _went_away(error: BaseException) -> str:
    received = error.rcvd if isinstance(error, ConnectionClosed) else None
    if received is None:
        return "the connection to the provider broke"
    reason = f" ({received.reason})" if received.reason else ""
    return f"the provider closed the connection with code {received.code}{reason}"


def _not_opened(error: BaseException) -> tuple[str, str]:
    """Code and plain words for a connection that could not be opened, or broke in the transport."""
    if isinstance(error, InvalidStatus):
        return wire.http_refusal(error.response.status_code, bytes(error.response.body or b""))
    if isinstance(error, OSError):
        return "unreachable", f"the provider could not be reached: {error}"
    return "handshake_failed", f"no realtime connection could be opened: {error}"
