"""Speech to text by Deepgram's streaming WebSocket (``/v1/listen``): turns go as they are spoken.

Our turn detection says where a turn begins and ends; Deepgram's endpointing is off. Only turns are sent, not
the silence between them: Deepgram bills what it is sent. Where a turn may be over ``Finalize`` asks for its
words, so that they are there when it is.

Deepgram doesn't promise an answer to ``Finalize`` (its documentation says so). What counts is how far along
the stream its final results have come: beyond a turn's last sound, or not yet. Field names are those of
deepgram-sdk's ``listen.v1.types`` (7.17).
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import urlencode, urlsplit

import orjson
import structlog
from websockets.exceptions import ConnectionClosed, WebSocketException

from providers.base import Usage
from providers.formats import PCM16, PCMU, AudioFormat
from providers.local.coding import Outgoing
from providers.local.listening import Expected, Fail, TurnListener, Words
from providers.local.recognition import Recognised, RecognitionError
from providers.local.stage import Bill, StageError, payee, refusal, stage_at
from providers.local.turns import PAUSE_MS, RATE
from providers.tls import system_tls
from providers.websocket import Limits, WebSocket, connect_websocket, is_secure, lost_in_words, not_opened

KEEP_ALIVE_S: Final = 4.0
"""Deepgram closes a connection (NET-0001) that brings neither sound nor ``KeepAlive`` for ten seconds."""
LEAST_CONFIDENCE: Final = 0.5
"""Words that are less sure than this on the mean were not said: in doubt nothing was."""
MAX_TERMS: Final = 60
"""Key terms that are named; Deepgram takes 500 tokens of them."""
RECONNECTS: Final = 3
"""Connections in a minute, beyond which it is given up."""
MISSES: Final = 2
"""Turns in a row without an answer, after which it is given up."""
_ROUNDED_S: Final = 0.02
"""How much less than it is a result's duration may be."""
_NEARLY_ALL_S: Final = 0.4
"""How much of a turn's end may be without a result when the time for it is over."""

Encoding = Literal["linear16", "mulaw"]
_FORMATS: Final[Mapping[Encoding, AudioFormat]] = {"linear16": PCM16, "mulaw": PCMU}

log = structlog.get_logger(room="model_server")


@dataclass(frozen=True, slots=True)
class DeepgramSettings:
    """How to reach it.

    Attributes:
        language: as Deepgram names it.
        encoding: 16 kHz PCM, or the telephone's own µ-law at 8 kHz, a quarter of it.
        words_s: how long the words of a turn may take after its end.
    """

    base_url: str
    api_key: str = field(repr=False)
    model: str = "nova-3"
    language: str = "pt-BR"
    encoding: Encoding = "linear16"
    connect_s: float = 4.0
    words_s: float = 3.0

    def url(self, expected: Expected) -> str:
        """The address of a connection, with all that is configured by it."""
        format = _FORMATS[self.encoding]
        query = [
            ("model", self.model),
            ("language", self.language),
            ("encoding", self.encoding),
            ("sample_rate", str(format.rate)),
            ("channels", "1"),
            ("interim_results", "true"),
            ("punctuate", "true"),
            ("endpointing", "false"),
        ]
        if self.model.startswith("nova-3"):
            query += [("keyterm", term) for term in key_terms(expected.prompt)]
        base = urlsplit(self.base_url)
        scheme = "wss" if base.scheme in ("https", "wss") else "ws"
        return f"{scheme}://{base.netloc}{base.path.rstrip('/')}/v1/listen?{urlencode(query)}"


def key_terms(prompt: str) -> list[str]:
    """The words and short phrases of a prompt, each once."""
    pieces = (piece.strip() for piece in re.split(r"[.,;:!?…\n]+", prompt))
    return list(dict.fromkeys(piece for piece in pieces if piece and len(piece) <= 60))[:MAX_TERMS]


class Deepgram:
    """An account, for all sessions that use it. See :class:`providers.local.listening.Hears`."""

    def __init__(self, settings: DeepgramSettings) -> None:
        self.settings = settings
        self.stage = stage_at("speech recognition", settings.base_url)
        self.limits = Limits(open_s=settings.connect_s, close_s=1.0, ping_s=None)
        self._context = system_tls() if is_secure(settings.base_url) else None

    def listener(self, tasks: asyncio.TaskGroup, fail: Fail, bill: Bill) -> TurnListener:
        """See :class:`providers.local.listening.Hears`. Sound is paid by its seconds, once it is sent."""
        return DeepgramListener(self, tasks, fail, bill)

    async def connect(self, listener: Any, expected: Expected) -> None:
        """Open a connection.

        Raises:
            StageError: there is none.
        """
        headers = {"Authorization": f"Token {self.settings.api_key}"}
        try:
            async with asyncio.timeout(self.settings.connect_s):
                url = self.settings.url(expected)
                await connect_websocket(url, headers, listener, self.limits, self._context)
        except TimeoutError:
            words = f"no connection after {self.settings.connect_s:g} s"
            raise StageError(self.stage, "timeout", words) from None
        except (OSError, WebSocketException) as error:
            raise StageError(self.stage, *not_opened(error, refusal)) from error

    async def check(self) -> None:
        """Open a connection and close it: no sound, nothing to be paid.

        Raises:
            StageError: it can't be opened.
        """
        visitor = _Visitor()
        await self.connect(visitor, Expected())
        if visitor.socket is not None:
            await visitor.socket.hang_up()


class _Visitor:
    """Who only looks whether a connection can be opened."""

    def __init__(self) -> None:
        self.socket: WebSocket | None = None

    def opened(self, socket: WebSocket) -> None:
        self.socket = socket

    def received(self, message: bytes) -> None:
        """Of no interest."""

    def writable(self) -> None:
        """Nothing is sent."""

    def lost(self, closed: ConnectionClosed) -> None:
        """It was to be closed."""


@dataclass(slots=True)
class _Turn:
    """A turn, in the samples of one connection's stream."""

    begin: int
    after: int
    """From where on words are its own: where the last sound was of the turn before."""
    sound: bytearray = field(default_factory=bytearray)
    """As it is sent; kept until the words are there, for the connection that may follow this one."""
    pcm_bytes: int = 0
    """How much was given of it, at 24 kHz."""
    quiet_from: int | None = None
    """Where its last sound was."""
    ended: asyncio.Future[Recognised | RecognitionError | StageError] | None = None
    ended_at: float = 0.0
    finals: list[tuple[float, str, float]] = field(default_factory=list)
    """Words: where they begin in seconds, what they are, how sure they are."""
    interim: list[tuple[float, str, float]] = field(default_factory=list)
    """The same, beyond the final ones, as it may yet be changed."""
    coding: Outgoing | None = None
    deadline: asyncio.TimerHandle | None = None


class DeepgramListener:
    """See :class:`providers.local.listening.TurnListener`, and for the socket
    :class:`providers.websocket.Listener`. Each connection has a generation: what an old one says is past."""

    def __init__(self, account: Deepgram, tasks: asyncio.TaskGroup, fail: Fail, bill: Bill) -> None:
        self._account = account
        self._bill = bill
        self._unpaid = 0
        """Samples that were sent and that nobody was told of."""
        self._tasks = tasks
        self._fail = fail
        self._loop = asyncio.get_running_loop()
        self._format = _FORMATS[account.settings.encoding]
        self._expected: Expected | None = None
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._opened_at: deque[float] = deque()
        self._turns: deque[_Turn] = deque()
        """Those whose words are not there yet; the last one may be running."""
        self._running: _Turn | None = None
        self._sent = 0
        """Samples sent on this connection."""
        self._covered = 0.0
        """How far its final results have come, in seconds."""
        self._heard = 0.0
        """The same with those that may yet be changed."""
        self._after = 0
        """:attr:`_Turn.after` of the next turn."""
        self._keep_alive: asyncio.TimerHandle | None = None
        self._misses = 0
        self._failed: StageError | None = None
        self._closed = False

    # -- what the session tells ------------------------------------------------------------------------------

    def configure(self, expected: Expected) -> None:
        if expected == self._expected:
            return
        self._expected = expected
        self._drop_connection()
        self._connect()

    def began(self) -> None:
        self._forget_running()
        self._running = _Turn(self._sent, self._after, coding=Outgoing(self._format))
        self._turns.append(self._running)

    def more(self, pcm: bytes) -> None:
        turn = self._running
        if turn is None or turn.coding is None or not pcm:
            return
        turn.pcm_bytes += len(pcm)
        self._send_sound(turn, turn.coding.audio(pcm))

    def paused(self, turn: bytes) -> None:
        running = self._running
        if running is None:
            return
        self.more(turn[running.pcm_bytes :])
        running.quiet_from = self._sent - PAUSE_MS * self._format.rate // 1000
        self._send(b'{"type":"Finalize"}')

    def resumed(self) -> None:
        if self._running is not None:
            self._running.quiet_from = None

    def ended(self, turn: bytes) -> Words:
        if self._running is None:
            self.began()
        running, self._running = self._running, None
        assert running is not None and running.coding is not None
        rest = turn[running.pcm_bytes :]
        running.pcm_bytes += len(rest)
        self._send_sound(running, running.coding.audio(rest) + running.coding.rest())
        running.ended, running.ended_at = self._loop.create_future(), self._loop.time()
        if running.quiet_from is None:
            running.quiet_from = self._sent
            self._send(b'{"type":"Finalize"}')
        self._after = running.quiet_from
        running.deadline = self._loop.call_later(self._account.settings.words_s, self._too_late, running)
        if self._failed is not None:
            self._settle(running, self._failed)
        else:
            self._settle_covered()
        return running.ended

    def close(self) -> None:
        self._closed = True
        self._running = None
        while self._turns:
            self._settle(self._turns[0], RecognitionError("the session is over"))
        self._drop_connection()
        if self._connecting is not None:
            self._connecting.cancel()

    # -- what is sent ----------------------------------------------------------------------------------------

    def _send_sound(self, turn: _Turn, sound: bytes) -> None:
        turn.sound += sound
        self._sent += len(sound) // self._format.sample_bytes
        if self._connection is None:
            self._connect()
        elif sound:
            self._unpaid += len(sound) // self._format.sample_bytes
            self._connection.send_sound(sound)
            self._arm_keep_alive()

    def _send(self, message: bytes) -> None:
        if self._connection is not None:
            self._connection.send(message)
            self._arm_keep_alive()

    def _arm_keep_alive(self) -> None:
        if self._keep_alive is not None:
            self._keep_alive.cancel()
        self._keep_alive = self._loop.call_later(KEEP_ALIVE_S, self._send, b'{"type":"KeepAlive"}')

    # -- the connection --------------------------------------------------------------------------------------

    def _connect(self) -> None:
        if self._connecting is None and self._connection is None and not (self._closed or self._failed):
            self._connecting = self._tasks.create_task(self._open(), name="deepgram")

    async def _open(self) -> None:
        """Open a connection and say what is still to be answered; begin anew where the session is another."""
        try:
            expected = self._expected or Expected()
            self._count_connection()
            connection = _Connection(self)
            await self._account.connect(connection, expected)
            self._connecting = None
            if connection.lost_early is not None:
                self._lost(connection, connection.lost_early)
            elif self._closed or expected != (self._expected or Expected()):
                connection.drop()
                self._connect()
            else:
                self._begin_on(connection)
        except StageError as error:
            self._connecting = None
            self._give_up(error)

    def _count_connection(self) -> None:
        now = self._loop.time()
        while self._opened_at and now - self._opened_at[0] > 60:
            self._opened_at.popleft()
        if len(self._opened_at) > RECONNECTS:
            words = f"the connection broke {RECONNECTS} times within a minute"
            raise StageError(self._account.stage, "went_away", words)
        self._opened_at.append(now)

    def _begin_on(self, connection: _Connection) -> None:
        """The stream begins anew: the turns that wait for their words are said again."""
        self._connection = connection
        self._covered, self._heard, self._sent, self._after = 0.0, 0.0, 0, 0
        for turn in self._turns:
            shift = self._sent - turn.begin
            turn.begin, turn.after, turn.finals, turn.interim = self._sent, self._after, [], []
            if turn.quiet_from is not None:
                turn.quiet_from += shift
            connection.send_sound(bytes(turn.sound))
            self._unpaid += len(turn.sound) // self._format.sample_bytes
            self._sent += len(turn.sound) // self._format.sample_bytes
            if turn.quiet_from is not None:
                connection.send(b'{"type":"Finalize"}')
                self._after = turn.quiet_from
        self._arm_keep_alive()

    def lost(self, connection: _Connection, closed: ConnectionClosed) -> None:
        """A connection is over."""
        if connection is self._connection:
            self._lost(connection, closed)

    def _lost(self, connection: _Connection, closed: ConnectionClosed) -> None:
        self._connection = None
        log.warning("recognition.connection_lost", reason=lost_in_words(closed))
        if not self._closed:
            self._connect()

    def _drop_connection(self) -> None:
        if self._keep_alive is not None:
            self._keep_alive.cancel()
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.drop()

    def _give_up(self, error: StageError) -> None:
        if self._failed is not None or self._closed:
            return
        self._failed = error
        self._drop_connection()
        while self._turns and self._turns[0] is not self._running:
            self._settle(self._turns[0], error)
        self._fail(error)

    # -- what comes ------------------------------------------------------------------------------------------

    def received(self, connection: _Connection, message: bytes) -> None:
        """A message of the server."""
        if connection is not self._connection:
            return
        try:
            self._take(orjson.loads(message))
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            words = f"sent something that makes no sense: {error!r}"
            self._give_up(StageError(self._account.stage, "protocol_error", words))

    def _take(self, message: Mapping[str, Any]) -> None:
        kind = message["type"]
        if kind == "Error":
            words = str(message.get("description") or message.get("message") or "no reason given")
            self._give_up(StageError(self._account.stage, "request_refused", words[:200]))
        elif kind == "Results":
            self._take_results(message)

    def _take_results(self, message: Mapping[str, Any]) -> None:
        start, end = float(message["start"]), float(message["start"]) + float(message["duration"])
        (alternative, *_) = message["channel"]["alternatives"]
        words = _words(alternative, start)
        rate, final = self._format.rate, bool(message.get("is_final"))
        for turn in self._turns:
            # Silence between two turns, some of which was sent, holds no words: what seems to begin in it is
            # the next turn's.
            until = turn.quiet_from
            if until is None:
                until = turn.begin + len(turn.sound) // self._format.sample_bytes
            of_it = [word for word in words if turn.after <= word[0] * rate < until]
            turn.finals += of_it if final else []
            turn.interim = [] if final else of_it
        self._heard = max(self._heard, end)
        if final:
            self._covered = max(self._covered, end)
            self._settle_covered()

    def _settle_covered(self) -> None:
        """Give the words of those turns that were heard to their last sound."""
        while self._turns:
            turn = self._turns[0]
            if turn.ended is None or turn.quiet_from is None:
                return
            if (self._covered + _ROUNDED_S) * self._format.rate < max(turn.begin + 1, turn.quiet_from):
                return
            self._misses = 0
            self._settle(turn, self._recognised(turn))

    def _recognised(self, turn: _Turn) -> Recognised:
        words = [*turn.finals, *turn.interim]
        confidence = sum(word[2] for word in words) / len(words) if words else 0.0
        text = " ".join(word[1] for word in words)
        why = f"confidence {confidence:.2f}"
        if confidence < LEAST_CONFIDENCE:
            text, why = "", f"{why}: too little" if words else "no words"
        seconds = turn.pcm_bytes / (2 * RATE)
        return Recognised(text, seconds, self._loop.time() - turn.ended_at, why)

    def _too_late(self, turn: _Turn) -> None:
        """The time for a turn's words is over: what is there counts where it is all of it, or nearly.

        Otherwise they are lost. Another connection may do better; the second time in a row it is given up.
        """
        assert turn.quiet_from is not None
        # Without words only final results say that there were none.
        heard = self._heard if turn.interim else self._covered
        if (heard + _NEARLY_ALL_S) * self._format.rate >= turn.quiet_from > turn.begin:
            self._settle(turn, self._recognised(turn))
            return
        words = f"no words {self._account.settings.words_s:g} s after the end of a turn"
        self._misses += 1
        self._settle(turn, RecognitionError(words))
        if self._misses >= MISSES:
            self._give_up(StageError(self._account.stage, "timeout", words))
            return
        self._drop_connection()
        self._connect()

    def _settle(self, turn: _Turn, result: Recognised | RecognitionError | StageError) -> None:
        self._forget(turn)
        if turn.deadline is not None:
            turn.deadline.cancel()
        if turn.ended is not None and not turn.ended.done():
            turn.ended.set_result(result)

    def _forget_running(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            self._forget(running)
            self._after = self._sent

    def _tell_bill(self) -> None:
        if self._unpaid:
            seconds, self._unpaid = self._unpaid / self._format.rate, 0
            settings = self._account.settings
            self._bill(Usage(payee(settings.base_url), settings.model, "transcription", seconds=seconds))

    def _forget(self, turn: _Turn) -> None:
        self._turns.remove(turn)
        self._tell_bill()


def _words(alternative: Mapping[str, Any], start: float) -> Sequence[tuple[float, str, float]]:
    """The words of a result: where each begins in seconds, as it is written, how sure it is."""
    words = [
        (float(word["start"]), str(word.get("punctuated_word") or word["word"]), float(word["confidence"]))
        for word in alternative["words"]
    ]
    text = str(alternative["transcript"])
    return words if words or not text else [(start, text, float(alternative["confidence"]))]


class _Connection:
    """One connection of a listener's; see :class:`providers.websocket.Listener`."""

    def __init__(self, owner: DeepgramListener) -> None:
        self._owner = owner
        self._socket: WebSocket | None = None
        self.lost_early: ConnectionClosed | None = None
        """It was over before its owner had it."""

    def send(self, message: bytes) -> None:
        if self._socket is not None:
            self._socket.send_text(message)

    def send_sound(self, sound: bytes) -> None:
        if self._socket is not None and sound:
            self._socket.send_binary(sound)

    def drop(self) -> None:
        """Say that no more comes, and go."""
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.send_text(b'{"type":"CloseStream"}')
            socket.transport.close()

    def opened(self, socket: WebSocket) -> None:
        self._socket = socket

    def received(self, message: bytes) -> None:
        self._owner.received(self, message)

    def writable(self) -> None:
        """Nothing waits here: what the server doesn't take, its socket gives up."""

    def lost(self, closed: ConnectionClosed) -> None:
        self.lost_early = closed
        self._owner.lost(self, closed)
