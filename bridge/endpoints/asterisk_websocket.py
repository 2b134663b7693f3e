"""One connection of Asterisk's WebSocket channel: an endpoint around the control, the media and the framing.

Either side may have connected. Asterisk to us: see ``asterisk_websocket_server.py``. We to Asterisk, for a
channel that was made as ``WebSocket/INCOMING``: :func:`connect_media`.

The framing is the part of ``websockets`` that does no I/O. Its asyncio connections parse all that the kernel
gives at once, a quarter of a megabyte of the smallest frames, while every other call waits; here it is a few
kilobytes a turn of the event loop. Nothing in a call's path awaits anything, no call needs a task.

Whatever a peer does ends its own call, with one log line, and no other call notices.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from uuid import UUID

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidURI
from websockets.frames import Close, Frame, Opcode
from websockets.headers import build_authorization_basic
from websockets.http11 import Request, Response
from websockets.protocol import SEND_EOF, State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from bridge.endpoints.asterisk_websocket_control import (
    BufferingCompleted,
    ChannelError,
    Command,
    ControlError,
    DtmfEnd,
    Event,
    Form,
    MarkProcessed,
    MediaStart,
    MediaXoff,
    MediaXon,
    QueueDrained,
    Status,
    Unknown,
    command,
    parse,
)
from bridge.endpoints.asterisk_websocket_media import (
    MAX_MEDIA_BYTES,
    Downstream,
    pcm_of,
)
from bridge.endpoints.audiosocket import Refusal
from bridge.endpoints.base import FRAME_BYTES, FRAME_RATE, ClosedKind, LegSink
from bridge.endpoints.connection import Connection
from bridge.endpoints.flow import KEY_S, LEAST_FRAME_S, FloodGuard, SlowReaderGuard
from bridge.endpoints.intake import Intake
from bridge.endpoints.listening import BACKLOG

READ_BYTES = 4 * 1024
"""Read in one turn of the event loop from one connection: at most 700 of the smallest frames."""

MAX_MESSAGE_BYTES = MAX_MEDIA_BYTES
"""Of a message, in however many fragments it comes. Protects memory."""

CALL_VARIABLE = "PORTEIRO_CALL"
"""The channel variable that says which call it is."""

LAST_MARK = "goodbye"
"""Behind everything played: when it comes back, the caller has heard it all."""

_CLOSE_CODES: dict[ClosedKind, int] = {
    "local": 1000,
    "protocol_error": 1002,
    "refused": 1008,
    "timeout": 1008,
}
"""What a peer is told where we end the call; a flood and a slow reader are cut off."""


@dataclass(frozen=True, slots=True)
class AsteriskWebsocketLimits:
    """What a peer may do, before and during its call. All are security limits."""

    handshake_s: float = 5.0
    """From the connection to MEDIA_START."""

    handshake_bytes: int = 16 * 1024
    """Of the HTTP request or answer."""

    early_bytes: int = MAX_MEDIA_BYTES
    """Of audio that came before MEDIA_START, which says what it is: kept until then."""

    idle_s: float = 30.0
    """Without a byte. Asterisk may send nothing while a call is on hold."""

    waiting: int = 64
    """Connections without a call that are left to their deadline.
    With more, the oldest of the address that has most of them give way: silence cannot keep a caller out."""

    spared_s: float = 0.5
    """For so long a new connection need not give way: a PBX says within milliseconds which call it is …"""

    crowd: int = 2 * BACKLOG
    """… up to so many without a call in all. What one turn of the event loop accepts is read in the next."""

    flood_factor: float = 3.0
    """Audio may come this many times faster than real time …"""

    flood_window_s: float = 4.0
    """… over this long. A network that stalled delivers what it held at once: 12 s of it, by default."""

    write_buffer_bytes: int = 10 * 700
    """Above this much unsent, frames are dropped and counted (beside the kernel's buffer)."""

    slow_reader_s: float = 4.0
    """Of frames dropped, net of those that went out: then the call ends."""

    goodbye_s: float = 0.5
    """How long the last of what was played may take to be heard before we hang up."""

    linger_s: float = 1.0
    """How long a peer has to close after our close frame; then we do."""


class AsteriskWebsocketEndpoint(Connection):
    """One connection; an :class:`~bridge.endpoints.base.Endpoint` once its MEDIA_START came."""

    kind = "asterisk_websocket"

    def __init__(
        self,
        wire: ServerProtocol | ClientProtocol,
        accept: Accept | None,
        limits: AsteriskWebsocketLimits,
        intake: Intake | None = None,
    ) -> None:
        super().__init__(
            read_bytes=READ_BYTES, handshake_s=limits.handshake_s, idle_s=limits.idle_s, intake=intake
        )
        self._wire = wire
        self._accept = accept
        self._limits = limits
        self._down: Downstream | None = None
        self._form: Form | None = None
        self._opcode: Opcode | None = None
        self._message = bytearray()
        self._early: list[bytes] = []
        self._flood = FloodGuard(limits.flood_factor, limits.flood_window_s)
        self._reader = SlowReaderGuard(limits.slow_reader_s)
        self._channel_errors = 0
        self._channel_error = ""
        self.start: MediaStart | None = None
        """What Asterisk said of the channel: its name and id, by which it can be asked for more."""

    @property
    def call_id(self) -> UUID:
        """What the channel said; only a call that was accepted or refused has one."""
        if self._call_id is None:
            raise RuntimeError("no call has been named yet")
        return self._call_id

    @property
    def frames_sent(self) -> int:
        """Frames that :meth:`play` wrote."""
        return self._down.frames_sent if self._down else 0

    @property
    def frames_dropped(self) -> int:
        """Frames that :meth:`play` let go: the peer did not read, or would have played them too late."""
        return self._reader.unread + (self._down.frames_dropped if self._down else 0)

    # ---- Down ------------------------------------------------------------------------------------------

    def play(self, frame: bytes) -> None:
        """Send 20 ms of 8 kHz audio; see :meth:`bridge.endpoints.base.Endpoint.play`."""
        if len(frame) != FRAME_BYTES:
            raise ValueError(f"a frame has {FRAME_BYTES} bytes, not {len(frame)}")
        if self._ended is not None or self._down is None or self._transport is None:
            return
        if self._transport.get_write_buffer_size() <= self._limits.write_buffer_bytes:
            for message in self._down.play(frame, self._loop.time()):
                self._say(message)
            self._reader.sent()
        elif not self._reader.forgives():
            self._mark("slow_reader", self._reader.complaint)
            self._abort()

    def flush(self) -> int:
        """Take back what Asterisk has not played yet; see :class:`bridge.endpoints.base.TakesBack`."""
        if self._ended is not None or self._down is None:
            return 0
        commands, unheard_s = self._down.flush(self._loop.time())
        for each in commands:
            self._say(each)
        return round(unheard_s * FRAME_RATE)

    def hang_up(self) -> None:
        """End the call behind everything played; see :meth:`bridge.endpoints.base.Endpoint.hang_up`."""
        if self._ended is not None:
            return
        self._mark("local", "hung up by us")
        if self._sink is None or self._form is None or self._down is None:
            self._say_goodbye()
            return
        for message in self._down.rest():
            self._say(message)
        self._say(command(self._form, Command.MARK_MEDIA, LAST_MARK))
        self._arm(self._limits.goodbye_s, self._say_goodbye)

    def _say(self, message: bytes | str) -> None:
        """Send one message, where the connection still takes one."""
        if self._wire.state is not State.OPEN:
            return
        if isinstance(message, str):
            self._wire.send_text(message.encode())
        else:
            self._wire.send_binary(message)
        self._write()

    def _write(self) -> None:
        """Hand the framing's bytes to the socket, in one write."""
        pieces = self._wire.data_to_send()
        if self._transport is None or self._transport.is_closing() or not pieces:
            return
        over = SEND_EOF in pieces
        if data := b"".join(pieces):
            self._transport.write(data)
        if over:
            self._arm(self._limits.linger_s, self._abort)
            if self._transport.can_write_eof():
                try:
                    self._transport.write_eof()
                except OSError:
                    self._abort()  # the peer reset the connection, and the event loop has yet to notice
            else:
                self._transport.close()  # TLS has no half a close

    # ---- Up --------------------------------------------------------------------------------------------

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        self.bytes_received += nbytes
        self._last_byte = self._loop.time()
        if self._wire.state is State.CONNECTING and self.bytes_received > self._limits.handshake_bytes:
            self._end(
                "protocol_error",
                f"found more than {self._limits.handshake_bytes} bytes of HTTP; allowed is a handshake",
            )
            self._abort()
            return
        self._wire.receive_data(bytes(memoryview(self._read_buffer)[:nbytes]))
        for event in self._wire.events_received():
            if isinstance(event, Frame):
                self._frame(event)
            else:
                self._opening(event)
        if self._wire.parser_exc is not None:
            self._mark("protocol_error", f"found {self._wire.parser_exc}; allowed is WebSocket's framing")
        self._write()
        if self._wire.close_expected() and self._timer is None:
            self._arm(self._limits.linger_s, self._abort)

    def eof_received(self) -> bool:
        """The peer closed its side."""
        self._mark("network_error", "the peer closed the connection without a close frame")
        self._wire.receive_eof()
        self._write()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self._mark("network_error", f"the connection broke: {exc or 'closed by the event loop'}")
        self._disarm()
        self._report()
        self._left()

    def _connected(self) -> bool:
        """The socket is there; False where it was turned away."""
        return True

    def _opening(self, event: Request | Response) -> None:
        """The other side's half of the HTTP handshake."""
        raise NotImplementedError

    def _left(self) -> None:
        """The socket is gone and everything is told."""

    # ---- Messages --------------------------------------------------------------------------------------

    def _frame(self, frame: Frame) -> None:
        """One frame; what a message has to say is heard when it is whole."""
        if frame.opcode is Opcode.CLOSE:
            close = self._wire.close_rcvd or Close(1005, "")
            self._mark("hangup", f"the peer closed with code {close.code}")
            return
        if self.ended and self._ended is not None and self._ended.kind != "local":
            return
        if frame.opcode in (Opcode.PING, Opcode.PONG):
            self._counted(LEAST_FRAME_S)
            return
        if frame.opcode is not Opcode.CONT:
            self._opcode = frame.opcode
            self._message.clear()
        self._message += frame.data
        if not frame.fin:
            self._counted(LEAST_FRAME_S)
            return
        message = bytes(self._message)
        self._message.clear()
        try:
            if self._opcode is Opcode.TEXT:
                self._control(message)
            elif not self.ended:
                self._media(message)
        except ControlError as error:
            self._end("protocol_error", str(error))

    def _media(self, message: bytes) -> None:
        if self._down is None or self._sink is None:
            self._early.append(message)
            if not self._counted(LEAST_FRAME_S):
                return
            if sum(map(len, self._early)) > self._limits.early_bytes:
                raise ControlError(
                    f"over {self._limits.early_bytes} bytes of audio before MEDIA_START", "less"
                )
            return
        form = self._down.format
        if self._counted(max(LEAST_FRAME_S, len(message) / (form.rate * form.sample_bytes))) and message:
            self._guarded(self._sink.audio_in, pcm_of(form, message), form.rate)

    def _control(self, message: bytes) -> None:
        form, event = parse(message)
        if self.ended:
            if event == MarkProcessed(LAST_MARK):
                self._say_goodbye()
            return
        if not self._counted(KEY_S if isinstance(event, DtmfEnd) else LEAST_FRAME_S):
            return
        if isinstance(event, MediaStart):
            self._media_start(form, event)
        elif self._down is None:
            raise ControlError("an event before MEDIA_START", "MEDIA_START, the first")
        else:
            self._take(event, self._down)

    def _take(self, event: Event, down: Downstream) -> None:
        match event:
            case DtmfEnd(digit):
                if self._sink is not None:
                    self._guarded(self._sink.key_pressed, digit)
            case MarkProcessed(mark):
                down.played(mark, self._last_byte)
            case MediaXoff():
                down.hold_back(True)
            case MediaXon():
                down.hold_back(False)
            case Status():
                down.paused = event.media_paused
            case ChannelError(text):
                self._channel_errors += 1
                self._channel_error = text
            case BufferingCompleted() | QueueDrained() | Unknown() | MediaStart():
                pass

    def _media_start(self, form: Form, start: MediaStart) -> None:
        """The call is there: ask whether it is taken, and by whom."""
        if self.start is not None:
            raise ControlError("a second MEDIA_START", "one, the first")
        self.start = start
        self._form = form
        self._down = Downstream(start, form)
        if self._call_id is None:
            self._call_id = _call_of(start)
        answer: LegSink | Refusal | None = Refusal("nobody takes calls here")
        if self._accept is not None:
            answer = self._guarded(self._accept, self)
        if isinstance(answer, Refusal):
            self._end("refused", answer.reason)
        elif answer is not None:
            self._sink = answer
            self._seated()
            if not self.ended:  # the leg may hang up while it is being made
                self._say(command(form, Command.ANSWER))
                self._arm(self._limits.idle_s, self._idle_check)
                early, self._early = self._early, []
                for message in early:
                    if not self.ended:
                        self._guarded(answer.audio_in, pcm_of(self._down.format, message), self._rate)
                self._read_with_the_tick()

    @property
    def _rate(self) -> int:
        assert self._down is not None
        return self._down.format.rate

    def _seated(self) -> None:
        """A leg took the call."""

    # ---- Guards ----------------------------------------------------------------------------------------

    def _counted(self, seconds: float) -> bool:
        """Count ``seconds`` of audio against real time; False where this ended the call."""
        if self._flood.takes(seconds, self._last_byte):
            return True
        self._end("flood", self._flood.complaint)
        return False

    def _handshake_late(self) -> None:
        self._end(
            "timeout",
            f"found {self.bytes_received} bytes and no MEDIA_START; "
            f"allowed are {self._limits.handshake_s:g} s",
        )

    # ---- The end ---------------------------------------------------------------------------------------

    def _mark(self, kind: ClosedKind, detail: str) -> None:
        super()._mark(kind, detail)
        self._early.clear()

    def _end(self, kind: ClosedKind, detail: str) -> None:
        """End the call: in order where it was one, at once where there is no connection yet, or too much."""
        if self._ended is not None:
            return
        self._mark(kind, detail)
        if kind == "flood" or self._wire.state is not State.OPEN:
            self._abort()
        else:
            self._say_goodbye()

    def _say_goodbye(self) -> None:
        """The close frame; Asterisk hangs its channel up on it. It closes, or the linger is over."""
        assert self._ended is not None
        if self._wire.state is State.OPEN:
            if self._ended.kind == "local" and self._form is not None:
                self._wire.send_text(command(self._form, Command.HANGUP).encode())
            self._wire.send_close(1011 if self._error else _CLOSE_CODES.get(self._ended.kind, 1000))
        self._write()
        self._arm(self._limits.linger_s, self._abort)

    def _particulars(self) -> Mapping[str, object]:
        return {
            "channel": self.start.channel if self.start else None,
            "format": self.start.format if self.start else None,
            "control": self._form.value if self._form else None,
            **({"channel_errors": self._channel_errors} if self._channel_errors else {}),
            **({"channel_error": self._channel_error} if self._channel_error else {}),
        }


Accept = Callable[[AsteriskWebsocketEndpoint], LegSink | Refusal | None]
"""Called synchronously when MEDIA_START came: the leg that takes the call, or why none does.
None: somebody else has taken the connection over, and this endpoint is over."""


def _call_of(start: MediaStart) -> UUID:
    """The call that a channel names: its variable (inherited ones keep their underscores), or its own id.

    Never the URL: Asterisk 22.10.1 keeps what ``v(…)`` in a dial string adds to it in the connection's shared
    configuration, unlocked. A later call without ``v(…)`` comes with the earlier one's parameters.
    """
    named = {value for key, value in start.variables.items() if key.lstrip("_") == CALL_VARIABLE}
    if len(named) > 1:
        raise ControlError(f"{len(named)} values of {CALL_VARIABLE}", "one")
    try:
        return UUID(named.pop() if named else start.channel_id)
    except ValueError:
        raise ControlError(
            "a channel that names no call",
            f"a UUID in {CALL_VARIABLE}, with control messages in JSON, or as the channel's id",
        ) from None


# --------------------------------------------------------------------------------------------------------
# We connect
# --------------------------------------------------------------------------------------------------------


class ConnectError(ConnectionError):
    """Asterisk could not be reached, or did not give us the channel's media."""


class _OutgoingEndpoint(AsteriskWebsocketEndpoint):
    """Our connection to a channel that waits for it."""

    def __init__(
        self,
        wire: ClientProtocol,
        call_id: UUID,
        accept: Accept,
        limits: AsteriskWebsocketLimits,
        authorization: str,
    ) -> None:
        super().__init__(wire, accept, limits)
        self._call_id = call_id
        self._client = wire
        self._authorization = authorization
        self.taken: asyncio.Future[None] = self._loop.create_future()
        """Done when the leg took the call, or it is over before."""

    def _connected(self) -> bool:
        request = self._client.connect()
        if self._authorization:
            request.headers["Authorization"] = self._authorization
        self._client.send_request(request)
        self._write()
        return True

    def _opening(self, event: Request | Response) -> None:
        if self._client.handshake_exc is not None:
            self._mark("refused", f"Asterisk answered: {self._client.handshake_exc}")

    def _seated(self) -> None:
        if not self.taken.done():
            self.taken.set_result(None)

    def _left(self) -> None:
        if not self.taken.done():
            self.taken.set_result(None)


async def connect_media(
    url: str,
    *,
    call_id: UUID,
    accept: Accept,
    username: str = "",
    password: str = "",
    limits: AsteriskWebsocketLimits | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsteriskWebsocketEndpoint:
    """Fetch the media of a channel that waits for us: one made as ``WebSocket/INCOMING``.

    Args:
        url: ``ws://HOST:8088/media/CONNECTION_ID``; the id is the channel's MEDIA_WEBSOCKET_CONNECTION_ID.
        call_id: what the endpoint is to be known by.
        accept: asked once MEDIA_START came.
        username: and ``password``: for HTTP's basic authentication, where a proxy before Asterisk wants it.
        tls: for ``wss``; None: the system's certificates.

    Returns:
        The endpoint, once its leg has taken the call (which may be over again).

    Raises:
        ConnectError: no connection, no channel of that id, or no MEDIA_START in time.
        ValueError: the URL is none.
    """
    limits = limits or AsteriskWebsocketLimits()
    try:
        place = parse_uri(url)
    except InvalidURI as error:
        raise ValueError(f"not a WebSocket URL: {error}") from None
    endpoint = _OutgoingEndpoint(
        ClientProtocol(place, max_size=MAX_MESSAGE_BYTES),
        call_id,
        accept,
        limits,
        build_authorization_basic(username, password) if username else "",
    )
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(limits.handshake_s):
            await loop.create_connection(
                lambda: endpoint,
                place.host,
                place.port,
                ssl=(tls or ssl.create_default_context()) if place.secure else None,
            )
    except TimeoutError:
        raise ConnectError(f"{place.host}:{place.port} did not answer in {limits.handshake_s:g} s") from None
    except OSError as error:
        raise ConnectError(f"{place.host}:{place.port}: {error}") from error
    await endpoint.taken  # bounded by the endpoint's own handshake deadline and linger
    if endpoint._sink is None:
        assert endpoint._ended is not None
        raise ConnectError(endpoint._ended.detail)
    return endpoint


__all__ = [
    "CALL_VARIABLE",
    "Accept",
    "AsteriskWebsocketEndpoint",
    "AsteriskWebsocketLimits",
    "ConnectError",
    "connect_media",
]
