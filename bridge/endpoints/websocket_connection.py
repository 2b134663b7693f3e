"""What every WebSocket connection of a PBX has: the framing, whole messages, the close, what a peer may do.

The framing is the part of ``websockets`` that does no I/O. Its asyncio connections parse all that the kernel
gives at once, a quarter of a megabyte of the smallest frames, while every other call waits; here it is a few
kilobytes a turn of the event loop. Nothing in a call's path awaits anything, no call needs a task.

Whatever a peer does ends its own call, with one log line, and no other call notices.
"""

from __future__ import annotations

import asyncio
import http
import ssl
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from websockets.client import ClientProtocol
from websockets.frames import Close, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import SEND_EOF, State
from websockets.server import ServerProtocol

from bridge.endpoints.allow_list import AllowList, Network
from bridge.endpoints.base import FRAME_BYTES, ClosedKind
from bridge.endpoints.connection import Connection
from bridge.endpoints.flow import LEAST_FRAME_S, ControlError, FloodGuard, SlowReaderGuard
from bridge.endpoints.intake import Intake
from bridge.endpoints.listening import BACKLOG, open_listeners
from bridge.endpoints.roster import Roster
from bridge.log import get_logger

READ_BYTES = 4 * 1024
"""Read in one turn of the event loop from one connection: at most 700 of the smallest frames."""

MAX_REASON_BYTES = 123
"""Of a close frame's reason: a control frame has no more room."""

_CLOSE_CODES: dict[ClosedKind, int] = {
    "local": 1000,
    "protocol_error": 1002,
    "refused": 1008,
    "timeout": 1008,
}
"""What a peer is told where we end the call; a flood and a slow reader are cut off."""


@dataclass(frozen=True, slots=True)
class WebsocketLimits:
    """What a peer may do, before and during its call. All are security limits."""

    handshake_s: float = 5.0
    """From the connection until the peer has said which call it is."""

    handshake_bytes: int = 16 * 1024
    """Of the HTTP request or answer."""

    early_bytes: int = 65_500
    """Of audio that came before the peer said what it is: kept until then."""

    idle_s: float = 30.0
    """Without a byte. A PBX may send nothing while a call is on hold."""

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

    @abstractmethod
    def _messages(self, frame: bytes) -> Sequence[bytes | str] | None:
        """What goes out for a frame of the leg's; None: there is no call yet."""

    @abstractmethod
    def hang_up(self) -> None:
        """End the call behind everything played; see :meth:`bridge.endpoints.base.Endpoint.hang_up`."""

    def _farewell(self) -> bytes:
        """A text message before the close frame of a call that we hung up; empty: none."""
        return b""

    def _connected(self) -> bool:
        """The socket is there; False where it was turned away."""
        return True

    def _seated(self) -> None:
        """A leg took the call."""

    def _left(self) -> None:
        """The socket is gone and everything is told."""

    # ---- Down ------------------------------------------------------------------------------------------

    def play(self, frame: bytes) -> None:
        """Send 20 ms of 8 kHz audio; see :meth:`bridge.endpoints.base.Endpoint.play`."""
        if len(frame) != FRAME_BYTES:
            raise ValueError(f"a frame has {FRAME_BYTES} bytes, not {len(frame)}")
        if self._ended is not None or self._transport is None:
            return
        if self._transport.get_write_buffer_size() <= self._limits.write_buffer_bytes:
            messages = self._messages(frame)
            if messages is None:
                return
            for message in messages:
                self._say(message)
            self._reader.sent()
        elif not self._reader.forgives():
            self._mark("slow_reader", self._reader.complaint)
            self._abort()

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

    def _counted(self, seconds: float) -> bool:
        """Count ``seconds`` of audio against real time; False where this ended the call."""
        if self._flood.takes(seconds, self._last_byte):
            return True
        self._end("flood", self._flood.complaint)
        return False

    # ---- The end ---------------------------------------------------------------------------------------

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


class IncomingConnection(WebsocketConnection):
    """A connection that a PBX made; it is in its server's roster from the first moment to the last."""

    def _at(self, server: WebsocketServer, wire: ServerProtocol) -> None:
        """Say whose it is. Before it is connected."""
        self._port = server
        self._serving = wire

    def _connected(self) -> bool:
        if self._port.allowed.admits(self.host):
            self._port.roster.arrived(self)
            return True
        self._mark("refused", f"found the address {self.host}; allowed are {self._port.allowed}")
        self._abort()
        return False

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

    def _seated(self) -> None:
        self._port.roster.seated(self)

    def _left(self) -> None:
        self._port.roster.left(self)

    def give_way(self) -> None:
        """Leave, for a newer connection: this one has no call, and is the oldest where most come from."""
        most = self._limits.waiting
        self._mark("refused", f"found more than {most} connections without a call; allowed are {most}")
        self._abort()


class WebsocketServer(ABC):
    """Listens on one port of some addresses.

    Args:
        hosts: addresses or names. IPv4 and IPv6 may be mixed; ``::`` on its own takes IPv4 as well.
        port: 0 takes a port that is free on all of them; :attr:`port` then says which.
        allowed: the networks that may connect, as an :class:`~bridge.endpoints.allow_list.AllowList` reads
            them.
        limits: what a peer may do.
        tls: for ``wss``; None: ``ws``.
        intake: reads the sockets of calls; whoever gives one runs it at each tick. None: the event loop.
    """

    kind: str
    """Names the log's room."""

    def __init__(
        self,
        hosts: Sequence[str],
        port: int,
        *,
        allowed: Sequence[Network],
        limits: WebsocketLimits,
        tls: ssl.SSLContext | None = None,
        intake: Intake | None = None,
    ) -> None:
        self.intake = intake
        self.hosts = tuple(hosts)
        self.port = port
        self.allowed = AllowList(allowed)
        self.limits = limits
        self._tls = tls
        self._servers: list[asyncio.Server] = []
        self.roster: Roster[IncomingConnection] = Roster(
            limits.waiting, crowd=limits.crowd, spared_s=limits.spared_s
        )
        """Kept by the endpoints: each says when it arrives, has a call, and leaves."""

    @abstractmethod
    def make(self) -> IncomingConnection:
        """What carries a new connection."""

    @property
    def calls(self) -> int:
        """Connections that carry a call."""
        return self.roster.calls

    @property
    def waiting(self) -> int:
        """Connections that carry none: it is not known which call they are, or refused and not yet gone."""
        return self.roster.waiting

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: an address can't be listened on; its text names the address and the port.
        """
        loop = asyncio.get_running_loop()
        sockets = await open_listeners(self.hosts, self.port)
        self.port = sockets[0].getsockname()[1]
        for listener in sockets:
            self._servers.append(
                await loop.create_server(
                    self.make,
                    sock=listener,
                    backlog=BACKLOG,
                    ssl=self._tls,
                    ssl_handshake_timeout=self.limits.handshake_s if self._tls else None,
                )
            )

    def stop_accepting(self) -> None:
        """Take no new call; those that run go on."""
        for server in self._servers:
            server.close()
        self._servers.clear()

    async def stop(self) -> None:
        """Hang up every call in order, and return once all are gone; bounded by the linger and a second."""
        self.stop_accepting()
        for endpoint in self.roster.everyone():
            endpoint.hang_up()
        try:
            async with asyncio.timeout(self.limits.goodbye_s + self.limits.linger_s + 1):
                await self.roster.emptied()
        except TimeoutError:
            get_logger(self.kind).error(
                "websocket.stop_late", port=self.port, calls=self.calls, waiting=self.waiting
            )


def tls_of(certificate: Path, key: Path) -> ssl.SSLContext:
    """What a server needs for ``wss``, from PEM files.

    Raises:
        OSError: they can't be read, or are not a certificate and its key.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context
