"""What every WebSocket connection of a PBX has: the framing, whole messages, the close, what a peer may do.

The framing is the part of ``websockets`` that does no I/O. Its asyncio connections parse all that the kernel
gives at once, a quarter of a megabyte of the smallest frames, while every other call waits; here it is a few
kilobytes a turn of the event loop. Nothing in a call's path awaits anything, no call needs a task.

Whatever a peer does ends its own call, with one log line, and no other call notices.
"""

from __future__ import annotations

import http
import ssl
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from websockets.client import ClientProtocol
from websockets.frames import Close, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import SEND_EOF, State
from websockets.server import ServerProtocol

from bridge.endpoints.base import FRAME_BYTES, FRAME_RATE, ClosedKind
from bridge.endpoints.connection import Connection
from bridge.endpoints.flow import LEAST_FRAME_S, ControlError, FloodGuard, SlowReaderGuard
from bridge.endpoints.intake import Intake
from bridge.endpoints.server import CallServer, Incoming, PeerLimits

READ_BYTES = 4 * 1024
"""Read in one turn of the event loop from one connection: at most 700 of the smallest frames."""

MAX_REASON_BYTES = 123
"""Of a close frame's reason: a control frame has no more room."""

_CLOSE_CODES: dict[ClosedKind, int] = {
    "local": 1000,
    "protocol_error": 1002,
    "refused": 1008,
    "timeout": 1008,
    "network_error": 1011,
}
"""What a peer is told where we end the call; a flood and a slow reader are cut off."""


@dataclass(frozen=True, slots=True)
class WebsocketLimits(PeerLimits):
    """What a peer may do, before and during its call. All are security limits."""

    handshake_bytes: int = 16 * 1024
    """Of the HTTP request or answer."""

    early_bytes: int = 65_500
    """Of audio that came before the peer said what it is: kept until then."""

    write_buffer_bytes: int = 10 * 700
    """As of every peer; these frames are larger."""

    goodbye_s: float = 0.5
    """How long the last of what was played may take to be heard before we hang up."""

    @property
    def farewell_s(self) -> float:
        """How long the end of a call that we hang up may take."""
        return self.goodbye_s + self.linger_s


class Player(Protocol):
    """Who plays: takes the leg's frames, and knows how much of them was heard."""

    @property
    def frames_sent(self) -> int:
        """Frames of the leg that went out, or wait for the next tick."""

    @property
    def frames_dropped(self) -> int:
        """Frames of the leg that were let go: too many were before them."""

    def play(self, pcm: bytes, now: float) -> Sequence[bytes | str]:
        """Take one frame of the leg's; the messages for the peer."""

    def flush(self, now: float) -> tuple[Sequence[bytes | str], float]:
        """Fall silent: the messages that bring it about, and how many seconds nobody will hear."""


class WebsocketConnection(Connection):
    """One WebSocket connection of a PBX; the subclass knows what its messages mean."""

    def __init__(
        self, wire: ServerProtocol | ClientProtocol, limits: WebsocketLimits, intake: Intake | None = None
    ) -> None:
        super().__init__(
            read_bytes=READ_BYTES, handshake_s=limits.handshake_s, idle_s=limits.idle_s, intake=intake
        )
        self._wire = wire
        self._limits = limits
        self._opcode: Opcode | None = None
        self._message = bytearray()
        self._flood = FloodGuard(limits.flood_factor, limits.flood_window_s)
        self._reader = SlowReaderGuard(limits.slow_reader_s)
        self._down: Player | None = None
        """Once the peer has said what it takes."""
        self._early: list[bytes] = []
        """Audio that came before that."""

    # ---- The subclass's --------------------------------------------------------------------------------

    @abstractmethod
    def _opening(self, event: Request | Response) -> None:
        """The other side's half of the HTTP handshake."""

    @abstractmethod
    def _text(self, message: bytes) -> None:
        """A whole text message. It may raise :class:`ControlError`; so may :meth:`_binary`."""

    @abstractmethod
    def _binary(self, message: bytes) -> None:
        """A whole binary message, while the call runs."""

    def _farewell(self) -> bytes:
        """A text message before the close frame of a call that we hung up; empty: none."""
        return b""

    def _connected(self) -> bool:
        """The socket is there; False where it was turned away."""
        return True

    # ---- Down ------------------------------------------------------------------------------------------

    @property
    def frames_sent(self) -> int:
        """Frames that :meth:`play` wrote."""
        return self._down.frames_sent if self._down else 0

    @property
    def frames_dropped(self) -> int:
        """Frames that :meth:`play` let go: the peer did not read, or would have played them too late."""
        return self._reader.unread + (self._down.frames_dropped if self._down else 0)

    def play(self, frame: bytes) -> None:
        """Send 20 ms of 8 kHz audio; see :meth:`bridge.endpoints.base.Endpoint.play`."""
        if len(frame) != FRAME_BYTES:
            raise ValueError(f"a frame has {FRAME_BYTES} bytes, not {len(frame)}")
        if self._ended is not None or self._transport is None:
            return
        if self._transport.get_write_buffer_size() <= self._limits.write_buffer_bytes:
            if self._down is None:
                return
            for message in self._down.play(frame, self._loop.time()):
                self._say(message)
            self._reader.sent()
        elif not self._reader.forgives():
            self._mark("slow_reader", self._reader.complaint)
            self._abort()

    def flush(self) -> int:
        """Take back what has not been played yet; see :class:`bridge.endpoints.base.TakesBack`."""
        if self._ended is not None or self._down is None:
            return 0
        messages, unheard_s = self._down.flush(self._loop.time())
        for each in messages:
            self._say(each)
        return round(unheard_s * FRAME_RATE)

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
                self._text(message)
            elif not self.ended:
                self._binary(message)
        except ControlError as error:
            self._end("protocol_error", str(error))

    def _keep(self, message: bytes, what: str) -> bool:
        """Keep audio that came before ``what``; False where this ended the call."""
        if not self._counted(LEAST_FRAME_S):
            return False
        self._early.append(message)
        if sum(map(len, self._early)) > self._limits.early_bytes:
            raise ControlError(f"over {self._limits.early_bytes} bytes of audio before {what}", "less")
        return True

    def _counted(self, seconds: float) -> bool:
        """Count ``seconds`` of audio against real time; False where this ended the call."""
        if self._flood.takes(seconds, self._last_byte):
            return True
        self._end("flood", self._flood.complaint)
        return False

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
        """The close frame; the PBX hangs its channel up on it. It closes, or the linger is over."""
        assert self._ended is not None
        if self._wire.state is State.OPEN:
            if self._ended.kind == "local" and (last := self._farewell()):
                self._wire.send_text(last)
            code = 1011 if self._error else _CLOSE_CODES.get(self._ended.kind, 1000)
            self._wire.send_close(code, _reason(self._ended.detail))
        self._write()
        self._arm(self._limits.linger_s, self._abort)


def _reason(detail: str) -> str:
    """What a close frame has room for."""
    return detail.encode()[:MAX_REASON_BYTES].decode(errors="ignore")


# --------------------------------------------------------------------------------------------------------
# The port
# --------------------------------------------------------------------------------------------------------


class IncomingConnection(Incoming, WebsocketConnection):
    """A connection that a PBX made."""

    _serving: ServerProtocol
    """The framing; the server's side of it."""

    def _answer(self, request: Request) -> None:
        """Make a WebSocket of the connection."""
        response = self._serving.accept(request)
        if response.status_code != http.HTTPStatus.SWITCHING_PROTOCOLS:
            self._mark("protocol_error", f"no WebSocket handshake: {self._serving.handshake_exc}")
        if self._serving.eof_sent:  # a close frame came with the request, before our answer
            self._mark("protocol_error", "found frames before our answer; allowed is to wait for it")
            self._abort()
            return
        self._serving.send_response(response)


class WebsocketServer(CallServer):
    """Listens on one port of some addresses; with TLS for ``wss``."""

    stop_late = "websocket.stop_late"
    limits: WebsocketLimits


def tls_of(certificate: Path, key: Path) -> ssl.SSLContext:
    """What a server needs for ``wss``, from PEM files.

    Raises:
        OSError: they can't be read, or are not a certificate and its key.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context
