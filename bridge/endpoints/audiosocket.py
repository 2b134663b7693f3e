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

from bridge.endpoints.allow_list import AllowList, Network
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
from bridge.endpoints.base import FRAME_BYTES, FRAME_RATE, ClosedKind, LegSink
from bridge.endpoints.connection import Connection
from bridge.endpoints.flow import KEY_S, LEAST_FRAME_S, FloodGuard, SlowReaderGuard
from bridge.endpoints.intake import Intake
from bridge.endpoints.listening import BACKLOG, open_listeners
from bridge.endpoints.roster import Roster
from bridge.log import get_logger

_log = get_logger("audiosocket")

REOPEN_PAUSES_S = (0.0, 0.01, 0.05, 0.2, 0.5)
READ_BYTES = 8 * 1024
"""Read in one turn of the event loop from one connection. Bounds how long a flooding peer keeps the others
waiting: at most 2,000 of the smallest frames, about 2 ms."""


@dataclass(frozen=True, slots=True)
class AudioSocketLimits:
    """What a peer may do, before and during its call. All are security limits."""

    handshake_s: float = 2.0
    """From the connection to its UUID frame."""

    idle_s: float = 30.0
    """Without a byte. Asterisk may send nothing while a call is on hold."""

    waiting: int = 64
    """Connections without a call (no UUID yet, or refused and not yet gone) that are left to their deadline.
    With more, the oldest of the address that has most of them give way: silence cannot keep a caller out."""

    spared_s: float = 0.5
    """For so long a new connection need not give way: a PBX says within milliseconds which call it is …"""

    crowd: int = 2 * BACKLOG
    """… up to so many without a call in all. What one turn of the event loop accepts is read in the next."""

    flood_factor: float = 3.0
    """Audio may come this many times faster than real time …"""

    flood_window_s: float = 4.0
    """… over this long. A network that stalled delivers what it held at once: 12 s of it, by default."""

    write_buffer_bytes: int = 10 * (FRAME_BYTES + 3)
    """Above this much unsent, frames are dropped and counted (beside the kernel's buffer)."""

    slow_reader_s: float = 4.0
    """Of frames dropped, net of those that went out: then the call ends."""

    linger_s: float = 1.0
    """How long a peer has to close after our hang-up frame; then we do."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The call is not taken. ``reason`` goes to the log only: AudioSocket can't carry it."""

    reason: str


class AudioSocketEndpoint(Connection):
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

    def _connected(self) -> bool:
        if self._server.allowed.admits(self.host):
            self._server.roster.arrived(self)
            return True
        self._mark("refused", f"found the address {self.host}; allowed are {self._server.allowed}")
        self._abort()
        return False

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
        self._server.roster.left(self)

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
        answer: LegSink | Refusal | None = Refusal("the service is stopping")
        if not self._server.draining:
            answer = self._guarded(self._server.accept, self)
        if isinstance(answer, Refusal):
            self._end("refused", answer.reason)
        elif answer is not None:
            self._sink = answer
            self._server.roster.seated(self)
            if not self.ended:  # the leg may hang up while it is being made
                self._arm(self._limits.idle_s, self._idle_check)
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

    def give_way(self) -> None:
        """Leave, for a newer connection: this one has no call, and is the oldest where most come from."""
        most = self._limits.waiting
        self._end("refused", f"found more than {most} connections without a call; allowed are {most}")
        self._abort()

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


class AudioSocketServer:
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
        self.intake = intake
        self._endpoint = endpoint
        self.hosts = tuple(hosts)
        self.port = port
        self.allowed = AllowList(allowed)
        self.accept = accept
        self.limits = limits or AudioSocketLimits()
        self.draining = False
        self._servers: list[asyncio.Server] = []
        self.roster: Roster[AudioSocketEndpoint] = Roster(
            self.limits.waiting, crowd=self.limits.crowd, spared_s=self.limits.spared_s
        )
        """Kept by the endpoints: each says when it arrives, has a call, and leaves."""
        self._ports: dict[str, int] = {}

    @property
    def ports(self) -> Mapping[str, int]:
        """The port of each address that is listened on; all the same."""
        return self._ports

    @property
    def calls(self) -> int:
        """Connections that carry a call."""
        return self.roster.calls

    @property
    def waiting(self) -> int:
        """Connections that carry none: no UUID yet, or refused and not yet gone."""
        return self.roster.waiting

    async def start(self) -> None:
        """Listen.

        A machine without IPv6 is no error where ``::`` or ``::1`` stands beside an IPv4 address: one warning.

        Raises:
            OSError: an address can't be listened on; its text names the address and the port.
        """
        loop = asyncio.get_running_loop()
        sockets = await open_listeners(self.hosts, self.port)
        self.port = sockets[0].getsockname()[1]
        for listener in sockets:
            self._servers.append(
                await loop.create_server(lambda: self._endpoint(self), sock=listener, backlog=BACKLOG)
            )
            address = listener.getsockname()
            self._ports[address[0]] = address[1]

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
        for server in self._servers:
            server.close()
        self._servers.clear()

    async def stop(self) -> None:
        """Hang up every call in order, and return once all are gone; bounded by the linger and a second."""
        self.stop_accepting()
        for endpoint in self.roster.everyone():
            endpoint.hang_up()
        try:
            async with asyncio.timeout(self.limits.linger_s + 1):
                await self.roster.emptied()
        except TimeoutError:
            _log.error("audiosocket.stop_late", port=self.port, calls=self.calls, waiting=self.waiting)
