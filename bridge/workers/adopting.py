"""A worker's endpoints: connections that the front accepted, and what came on them before they were given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from websockets.protocol import State

from bridge.endpoints.asterisk_websocket import Accept as WebsocketAccept
from bridge.endpoints.asterisk_websocket_server import AsteriskWebsocketServer, IncomingEndpoint
from bridge.endpoints.audio_stream import Accept as StreamAccept
from bridge.endpoints.audio_stream_control import StreamForm
from bridge.endpoints.audio_stream_server import AudioStreamServer, IncomingStream
from bridge.endpoints.audiosocket import AudioSocketEndpoint, AudioSocketServer
from bridge.endpoints.connection import Connection
from bridge.workers.lending import Given
from bridge.workers.messages import Take


class Adopted(Connection):
    """A connection that the front gave to this process.

    Args:
        take: what the front said of it.
        given: its socket is not used here: who makes the endpoint connects the two.
        on_gone: told once that the connection is gone.
    """

    def __init__(self, take: Take, given: Given, on_gone: Callable[[], None]) -> None:
        self.take = take
        self._given = given
        self._on_gone = on_gone
        self._unread: bytearray | None = bytearray(given.raw)
        """Until it begins."""

    def begin(self) -> None:
        """Read what came before the connection was ours. More than once is harmless.

        Not when the connection is made: reading can't be paused there (uvloop begins it right after, whatever
        the protocol said), and a leg's socket is read with the tick.
        """
        unread, self._unread = self._unread, None
        rest = memoryview(unread or b"")
        while rest and not self.ended:
            size = min(len(rest), len(self._read_view))
            self._read_view[:size] = rest[:size]
            rest = rest[size:]
            self.buffer_updated(size)

    def _put_by(self, nbytes: int) -> bool:
        """What comes before :meth:`begin`: it goes behind what came earlier."""
        if self._unread is None:
            return False
        self._unread += self._read_view[:nbytes]
        self.begin()
        return True

    def eof_received(self) -> bool:
        """The peer closed its side; what it said before that still counts."""
        self.begin()
        return bool(super().eof_received())

    def _address(self, transport: asyncio.Transport) -> tuple[Any, ...] | None:
        """The peer's, as the front saw it: with TLS our own connection leads to the front alone."""
        return self._given.host, self._given.port

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        super().connection_lost(exc)
        self._on_gone()


class AdoptedAudioSocket(Adopted, AudioSocketEndpoint):
    """An AudioSocket connection, from its UUID on."""

    def __init__(
        self, server: AudioSocketServer, take: Take, given: Given, on_gone: Callable[[], None]
    ) -> None:
        Adopted.__init__(self, take, given, on_gone)
        AudioSocketEndpoint.__init__(self, server)
        self._port = given.connection.getsockname()[1]

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        if not self._put_by(nbytes):
            super().buffer_updated(nbytes)

    def _particulars(self) -> Mapping[str, object]:
        """With the port at which the front accepted it."""
        return {"port": self._port}


class AdoptedWeb(Adopted, AudioSocketEndpoint):
    """A call over the front's HTTP port. Who may call, the front has asked."""

    def __init__(
        self, server: AudioSocketServer, take: Take, given: Given, on_gone: Callable[[], None]
    ) -> None:
        Adopted.__init__(self, take, given, on_gone)
        AudioSocketEndpoint.__init__(self, server)
        self.kind = take.endpoint

    def _connected(self) -> bool:
        self._server.roster.arrived(self)
        return True

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        if not self._put_by(nbytes):
            super().buffer_updated(nbytes)


class AdoptedWebsocket(Adopted, IncomingEndpoint):
    """A WebSocket connection, from its first frame on."""

    def __init__(
        self,
        server: AsteriskWebsocketServer,
        accept: WebsocketAccept,
        take: Take,
        given: Given,
        on_gone: Callable[[], None],
    ) -> None:
        Adopted.__init__(self, take, given, on_gone)
        IncomingEndpoint.__init__(self, server, State.OPEN)
        self._accept = accept

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        if not self._put_by(nbytes):
            super().buffer_updated(nbytes)


class AdoptedStream(Adopted, IncomingStream):
    """A stream of FreeSWITCH's, from its first frame on. Whose it is, the front has found out."""

    def __init__(
        self,
        server: AudioStreamServer,
        accept: StreamAccept,
        take: Take,
        given: Given,
        on_gone: Callable[[], None],
    ) -> None:
        Adopted.__init__(self, take, given, on_gone)
        IncomingStream.__init__(self, server, State.OPEN)
        self._accept = accept
        self._call_id = take.call_id
        self.form = take.stream or StreamForm()

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        if not self._put_by(nbytes):
            super().buffer_updated(nbytes)
