"""The front's endpoints: they find out which call a connection is, and give it to the process it is for.

They are the service's own endpoints, with all their guards, up to the moment at which a leg would take the
call. What came until then goes along, byte by byte. A connection with TLS can't be given away, its keys are
here: the worker gets the end of a socket pair, and what is said is passed on.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass

from bridge.endpoints.asterisk_websocket_server import AsteriskWebsocketServer, IncomingEndpoint
from bridge.endpoints.audio_stream_server import AudioStreamServer, IncomingStream
from bridge.endpoints.audiosocket import AudioSocketEndpoint, AudioSocketServer
from bridge.endpoints.base import EndpointClosed
from bridge.endpoints.connection import Connection
from bridge.endpoints.listening import SEND_BUFFER_BYTES
from bridge.endpoints.web import Origin, WebCall
from bridge.endpoints.websocket_connection import IncomingConnection

RELAY_BYTES = 8 * 1024
"""Passed on from a worker to a TLS connection in one turn of the event loop."""

_HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Given:
    """A connection that is given away."""

    connection: socket.socket
    raw: bytes
    """What came on it that its new owner has to read first."""
    host: str
    port: int


class Lending(Connection):
    """A connection that can be given away, as long as nobody here has its call."""

    def __init__(self) -> None:
        self._came = bytearray()
        """All bytes so far. Bounded: by the first frame, or by the guards of what may come before a call."""

    def give(self, send: Callable[[Given], None]) -> None:
        """Give the connection away: nothing more is read or written here, and no line is logged.

        Args:
            send: brings it to its new owner. Whatever it raises is raised here, and the call is still ours.

        Raises:
            OSError: no file descriptor is left.
        """
        self._send(send)
        self._ended = EndpointClosed("local", "given to a worker")
        self._reported = True
        self._came.clear()
        self._disarm()
        self._part()

    def _send(self, send: Callable[[Given], None]) -> None:
        assert self._transport is not None
        handle = os.dup(self._transport.get_extra_info("socket").fileno())
        send(self._given(socket.socket(fileno=handle)))

    def _given(self, connection: socket.socket) -> Given:
        return Given(connection, self._unread(), self.host, int(self.peer.rpartition(":")[2]))

    def _unread(self) -> bytes:
        return bytes(self._came)

    def _part(self) -> None:
        """Let go of our end; the new owner has its own."""
        self._abort()


class LendingAudioSocket(Lending, AudioSocketEndpoint):
    """An AudioSocket connection of the front's."""

    def __init__(self, server: AudioSocketServer) -> None:
        Lending.__init__(self)
        AudioSocketEndpoint.__init__(self, server)

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        if not self.ended:
            self._came += memoryview(self._read_buffer)[:nbytes]
        super().buffer_updated(nbytes)


class LendingWeb(WebCall, LendingAudioSocket):
    """The front's end of a call over the HTTP port; the client's side notices nothing of the lending."""

    def __init__(self, server: AudioSocketServer, origin: Origin) -> None:
        WebCall.__init__(self, server, origin)


class _LendingWebsocket(Lending, IncomingConnection):
    """A WebSocket connection of the front's, until it is known whose call it is."""

    def __init__(self) -> None:
        Lending.__init__(self)
        self._relay: Relay | None = None

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        if self._relay is not None:
            self._relay.pass_in(memoryview(self._read_buffer)[:nbytes])
            return
        if not self.ended:
            self._came += memoryview(self._read_buffer)[:nbytes]
        super().buffer_updated(nbytes)

    def _unread(self) -> bytes:
        """Without the HTTP request, which has been answered here."""
        return bytes(self._came).partition(_HEAD_END)[2]

    # ---- With TLS --------------------------------------------------------------------------------------

    def _send(self, send: Callable[[Given], None]) -> None:
        assert self._transport is not None
        if self._transport.get_extra_info("sslcontext") is None:
            super()._send(send)
            return
        ours, theirs = socket.socketpair()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        relay = Relay(ours, self._transport)
        try:
            send(self._given(theirs))
        except BaseException:
            relay.stop()
            raise
        self._relay = relay

    def _part(self) -> None:
        if self._relay is None:
            super()._part()
        else:
            self._seated()
            self._relay.start()

    def pause_writing(self) -> None:
        """The peer reads slowly."""
        if self._relay is not None:
            self._relay.hold()

    def resume_writing(self) -> None:
        """It has read."""
        if self._relay is not None:
            self._relay.start()

    def eof_received(self) -> bool:
        """The peer closed its side."""
        if self._relay is None:
            return super().eof_received()
        self._relay.stop()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        if self._relay is not None:
            self._relay.stop()
        super().connection_lost(exc)


class LendingWebsocket(_LendingWebsocket, IncomingEndpoint):
    """A channel of Asterisk's, up to its MEDIA_START."""

    def __init__(self, server: AsteriskWebsocketServer) -> None:
        _LendingWebsocket.__init__(self)
        IncomingEndpoint.__init__(self, server)


class LendingStream(_LendingWebsocket, IncomingStream):
    """A stream of FreeSWITCH's, up to its metadata."""

    def __init__(self, server: AudioStreamServer) -> None:
        _LendingWebsocket.__init__(self)
        IncomingStream.__init__(self, server)


class Relay:
    """Passes on what a worker and a TLS connection say to each other. Either end takes the other along."""

    def __init__(self, ours: socket.socket, transport: asyncio.Transport) -> None:
        ours.setblocking(False)
        self._ours = ours
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._stopped = False
        self._waiting = bytearray()
        """What the peer said and the worker has no room for yet; meanwhile nothing more is read."""

    def start(self) -> None:
        """Begin, or go on, with what the worker says."""
        if not self._stopped:
            self._transport.set_write_buffer_limits(high=SEND_BUFFER_BYTES)
            self._loop.add_reader(self._ours, self._pass_out)

    def hold(self) -> None:
        """The peer does not read: let it wait in the worker, which in the end drops frames."""
        if not self._stopped:
            self._loop.remove_reader(self._ours)

    def pass_in(self, data: memoryview) -> None:
        """What the peer said, to the worker."""
        if self._stopped:
            return
        self._waiting += data
        if len(self._waiting) == len(data):
            self._flush()

    def _flush(self) -> None:
        try:
            sent = self._ours.send(self._waiting)
        except BlockingIOError:
            sent = 0
        except OSError:  # the worker is gone
            self.stop()
            self._transport.abort()
            return
        del self._waiting[:sent]
        if self._waiting:
            self._transport.pause_reading()
            self._loop.add_writer(self._ours, self._flush)
        else:
            self._loop.remove_writer(self._ours)
            self._transport.resume_reading()

    def _pass_out(self) -> None:
        try:
            data = self._ours.recv(RELAY_BYTES)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if data:
            self._transport.write(data)
        else:
            self.stop()
            self._transport.close()

    def stop(self) -> None:
        """The end. More than once is harmless."""
        if not self._stopped:
            self._stopped = True
            self._loop.remove_reader(self._ours)
            self._loop.remove_writer(self._ours)
            self._ours.close()
