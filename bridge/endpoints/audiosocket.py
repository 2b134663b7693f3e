"""The AudioSocket server: asyncio sockets around the framing, one endpoint a connection.

Asterisk neither paces nor queues what it is sent, and its socket does not block: a short write on its side
ends the call. So this server always keeps reading, keeps next to nothing downstream (a small send buffer;
what does not fit is dropped and counted), and sends each frame in one write with TCP_NODELAY.

Whatever a peer does ends its own call, with one log line, and no other call notices: each connection reads a
few kilobytes a turn of the event loop, holds at most one unfinished frame and one small write buffer, and has
a deadline for its UUID and for its silence.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from bridge.endpoints.allow_list import Network
from bridge.endpoints.audiosocket_frames import (
    HANGUP,
    SLIN8_HEADER,
    Audio,
    CallId,
    Frame,
    FrameError,
    FrameParser,
    Hangup,
    Key,
    PeerError,
)
from bridge.endpoints.base import FRAME_BYTES, FRAME_RATE, ClosedKind, LegSink, Refusal
from bridge.endpoints.flow import KEY_S, LEAST_FRAME_S, FloodGuard, SlowReaderGuard
from bridge.endpoints.intake import Intake
from bridge.endpoints.server import CallServer, Incoming, PeerLimits

REOPEN_PAUSES_S = (0.0, 0.01, 0.05, 0.2, 0.5)
READ_BYTES = 8 * 1024
"""Read in one turn of the event loop from one connection. Bounds how long a flooding peer keeps the others
waiting: at most 2,000 of the smallest frames, about 2 ms."""


@dataclass(frozen=True, slots=True)
class AudioSocketLimits(PeerLimits):
    """What a peer may do, before and during its call. All are security limits."""

    handshake_s: float = 2.0
    """From the connection to its UUID frame."""


class AudioSocketEndpoint(Incoming):
    """One connection of a PBX; an :class:`~bridge.endpoints.base.Endpoint` once its UUID came."""

    kind = "audiosocket"

    def __init__(self, server: AudioSocketServer) -> None:
        self._server = server
        self._limits = server.limits
        super().__init__(
            read_bytes=READ_BYTES,
            handshake_s=self._limits.handshake_s,
            idle_s=self._limits.idle_s,
            intake=server.intake,
        )
        self._at(server)
        self._parser = FrameParser()
        self._flood = FloodGuard(self._limits.flood_factor, self._limits.flood_window_s)
        self._reader = SlowReaderGuard(self._limits.slow_reader_s)
        self._sent = 0

    @property
    def call_id(self) -> UUID:
        """What the PBX sent; only an accepted or refused call has one."""
        if self._call_id is None:
            raise RuntimeError("no UUID frame has come yet")
        return self._call_id

    @property
    def frames_sent(self) -> int:
        """Frames that :meth:`play` wrote."""
        return self._sent

    @property
    def frames_dropped(self) -> int:
        """Frames that :meth:`play` let go, because the peer did not read."""
        return self._reader.unread

    # ---- Down ------------------------------------------------------------------------------------------

    def play(self, frame: bytes) -> None:
        """Send 20 ms of 8 kHz audio in one write; see :meth:`bridge.endpoints.base.Endpoint.play`."""
        if len(frame) != FRAME_BYTES:
            raise ValueError(f"a frame has {FRAME_BYTES} bytes, not {len(frame)}")
        transport = self._transport
        if transport is None or self._ended is not None:
            return
        if transport.get_write_buffer_size() <= self._limits.write_buffer_bytes:
            transport.write(SLIN8_HEADER + frame)
            self._sent += 1
            self._reader.sent()
        elif not self._reader.forgives():
            self._mark("slow_reader", self._reader.complaint)
            transport.abort()

    def hang_up(self) -> None:
        """End the call in order; see :meth:`bridge.endpoints.base.Endpoint.hang_up`."""
        if self._ended is None:
            self._mark("local", "hung up by us")
            self._say_goodbye()

    # ---- Up --------------------------------------------------------------------------------------------

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        self.bytes_received += nbytes
        self._last_byte = self._loop.time()
        if self._ended is not None:
            return  # we said goodbye; reading on keeps our close from resetting the connection
        data = self._read_view[:nbytes]
        sound = self._parser.usual(data)
        if sound is not None:
            self._heard(FRAME_RATE, sound)
            return
        try:
            frames: Sequence[Frame] = self._parser.feed(data)
        except FrameError as error:
            if self._take(error.frames):
                self._end("protocol_error", str(error))
        else:
            self._take(frames)

    def eof_received(self) -> bool:
        """The peer closed: how Asterisk hangs up."""
        if self._ended is None:
            pending = self._parser.pending
            when = "" if self._call_id else " before the UUID frame"
            cut = f", {pending} bytes into a frame" if pending else ""
            self._mark("hangup", f"the peer closed the connection{when}{cut}")
            self._arm(self._limits.linger_s, self._abort)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        if isinstance(exc, ConnectionResetError | BrokenPipeError):
            # Asterisk just closes; with a frame of ours unread in its buffer that is a reset, not an end.
            self._mark("hangup", "the peer reset the connection")
        else:
            self._mark("network_error", f"the connection broke: {exc or 'closed by the event loop'}")
        self._disarm()
        self._report()
        self._left()

    def _take(self, frames: Sequence[Frame]) -> bool:
        """Hand frames on; False once the call is over."""
        for frame in frames:
            if self.ended:
                return False
            match frame:
                case Audio(rate, pcm):
                    self._heard(rate, pcm)
                case Key(digit):
                    if self._too_fast(KEY_S):
                        return False
                    if self._sink is not None:
                        self._guarded(self._sink.key_pressed, digit)
                case CallId(uuid):
                    self._identified(uuid)
                case Hangup():
                    self._end("hangup", "the peer sent a hang-up frame")
                case PeerError():
                    kind: ClosedKind = "hangup" if frame.code == 0x01 else "network_error"
                    self._end(kind, f"the peer reported error 0x{frame.code:02x} ({frame.meaning})")
        return not self.ended

    def _heard(self, rate: int, pcm: bytes) -> None:
        """Audio came."""
        if not self._too_fast(len(pcm) / (2 * rate)) and pcm and self._sink is not None:
            self._guarded(self._sink.audio_in, pcm, rate)

    def _identified(self, call_id: UUID) -> None:
        """The UUID came: ask whether the call is taken, and by whom."""
        self._call_id = call_id
        if self._server.draining:
            self._end("refused", "the service is stopping")
        elif self._offer(self._server.accept):
            self._read_with_the_tick()

    # ---- Guards ----------------------------------------------------------------------------------------

    def _too_fast(self, seconds: float) -> bool:
        """Count ``seconds`` of audio against real time; True where this ended the call."""
        if self._flood.takes(max(seconds, LEAST_FRAME_S), self._last_byte):
            return False
        self._end("flood", self._flood.complaint)
        return True

    def _handshake_late(self) -> None:
        self._end(
            "timeout",
            f"found {self.bytes_received} bytes and no UUID frame; "
            f"allowed are {self._limits.handshake_s:g} s",
        )

    # ---- The end ---------------------------------------------------------------------------------------

    def _end(self, kind: ClosedKind, detail: str) -> None:
        """End the call: in order where it was one, at once where the peer never said which call it is."""
        if self._ended is not None:
            return
        self._mark(kind, detail)
        if self._call_id is None or kind == "flood":
            self._abort()
        else:
            self._say_goodbye()

    def _say_goodbye(self) -> None:
        """The hang-up frame, then half a close: a full one would reset the connection while audio still
        comes, and the peer could lose the frame. We read on until it closes, or the linger is over."""
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(HANGUP)
        try:
            self._transport.write_eof()
        except OSError:
            self._abort()  # ENOTCONN: the peer reset the connection, and the event loop has yet to notice
        else:
            self._arm(self._limits.linger_s, self._abort)

    def _particulars(self) -> Mapping[str, object]:
        return {"port": self._server.port}


Accept = Callable[[AudioSocketEndpoint], LegSink | Refusal | None]
"""Called synchronously when a UUID came: the leg that takes the call, or why none does.
None: somebody else has taken the connection over, and this endpoint is over."""


class AudioSocketServer(CallServer):
    """Listens for AudioSocket on one port of some addresses, and hands each call to ``accept``.

    Args:
        hosts: addresses or names. IPv4 and IPv6 may be mixed; ``::`` on its own takes IPv4 as well.
        port: 0 takes a port that is free on all of them; :attr:`port` then says which.
        allowed: the networks that may connect, as an :class:`~bridge.endpoints.allow_list.AllowList` reads
            them.
        accept: decides on a call; the endpoint that it is given has its ``call_id``. Once it has returned a
            leg, the leg must play a frame every 20 ms (silence where there is nothing to say: Asterisk's
            AudioSocket starves its channel otherwise, bug asterisk#2089).
        limits: what a peer may do.
        intake: reads the sockets of calls; whoever gives one runs it at each tick. None: the event loop.
        endpoint: makes what carries a connection.
    """

    kind = "audiosocket"
    stop_late = "audiosocket.stop_late"

    def __init__(
        self,
        hosts: Sequence[str],
        port: int,
        *,
        allowed: Sequence[Network],
        accept: Accept,
        limits: AudioSocketLimits | None = None,
        intake: Intake | None = None,
        endpoint: Callable[[AudioSocketServer], AudioSocketEndpoint] = AudioSocketEndpoint,
    ) -> None:
        super().__init__(hosts, port, allowed=allowed, limits=limits or AudioSocketLimits(), intake=intake)
        self._endpoint = endpoint
        self.accept = accept
        self.draining = False

    def make(self) -> AudioSocketEndpoint:
        """What carries a new connection."""
        return self._endpoint(self)

    async def reopen(self) -> None:
        """Close the port and listen on it again; the calls that run go on.

        Raises:
            OSError: somebody else has taken it meanwhile; nothing is listened on then.
        """
        self.stop_accepting()
        for pause_s in REOPEN_PAUSES_S:  # an event loop closes a socket some turns after it is told to
            await asyncio.sleep(pause_s)
            with contextlib.suppress(OSError):
                await self.start()
                break
        else:
            await self.start()
        self.draining = False

    def stop_accepting(self) -> None:
        """Take no new call; those that run go on."""
        self.draining = True
        super().stop_accepting()
