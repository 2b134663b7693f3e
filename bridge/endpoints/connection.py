"""What every connection of a PBX has: an address, one timer, one end, one closing log line.

The protocols differ in what bytes mean and in how a call is ended in order; both are the subclass's. Whatever
a leg raises ends its own call, and no other call notices.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, cast
from uuid import UUID

from bridge.endpoints.base import ClosedKind, EndpointClosed, KnowsIds, LegSink, Refusal
from bridge.endpoints.intake import READS, Intake, read_into
from bridge.log import get_logger


class Connection(asyncio.BufferedProtocol, ABC):
    """One connection; its subclass is an :class:`~bridge.endpoints.base.Endpoint`.

    Args:
        read_bytes: read in one turn of the event loop.
        handshake_s: from the connection until it is known to be a call; the subclass then arms another
            deadline.
        idle_s: without a byte, once :meth:`_idle_check` is armed.
        intake: reads the socket while there is a call (:meth:`_read_with_the_tick`). None: the event loop.
    """

    kind: str
    """Names the log's room, and the closing line: ``KIND.closed``."""

    def __init__(
        self, *, read_bytes: int, handshake_s: float, idle_s: float, intake: Intake | None = None
    ) -> None:
        self._intake = intake
        self._descriptor: int | None = None
        """Of the socket while the intake reads it."""
        self._handshake_s = handshake_s
        self._idle_s = idle_s
        self._loop = asyncio.get_running_loop()
        self._read_buffer = bytearray(read_bytes)
        # A view: asyncio's TLS reads a second record into a slice of it, which of a bytearray is a copy.
        self._read_view = memoryview(self._read_buffer)
        self._transport: asyncio.Transport | None = None
        self._call_id: UUID | None = None
        self._sink: LegSink | None = None
        self._ended: EndpointClosed | None = None
        self._reported = False
        self._error: Exception | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._started = self._last_byte = self._loop.time()
        self.host = ""
        self.peer = "unknown"
        self.bytes_received = 0

    @property
    def ended(self) -> bool:
        """The call is over, whether or not the leg has been told yet."""
        return self._ended is not None

    # ---- The subclass's --------------------------------------------------------------------------------

    @property
    @abstractmethod
    def frames_sent(self) -> int:
        """Frames that were written."""

    @property
    @abstractmethod
    def frames_dropped(self) -> int:
        """Frames that were let go."""

    @abstractmethod
    def hang_up(self) -> None:
        """End the call in order; see :meth:`bridge.endpoints.base.Endpoint.hang_up`."""

    @abstractmethod
    def _connected(self) -> bool:
        """The socket is there; False where it was turned away."""

    @abstractmethod
    def _handshake_late(self) -> None:
        """The handshake's deadline has passed."""

    @abstractmethod
    def _end(self, kind: ClosedKind, detail: str) -> None:
        """End the call, in order where it was one."""

    @abstractmethod
    def _particulars(self) -> Mapping[str, object]:
        """What the closing line says beyond what every connection's says."""

    def _seated(self) -> None:
        """A leg took the call."""

    def _left(self) -> None:
        """The socket is gone and everything is told."""

    # ---- The socket ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Check where it comes from, before a byte is read, and give it its deadline."""
        # A cast, not a check: uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        address = self._address(self._transport)
        if address is None:
            self._mark("network_error", "the peer was gone before its address was known")
            self._abort()
            return
        self.host = address[0]
        self.peer = f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
        if self._connected():
            self._arm(self._handshake_s, self._handshake_late)

    def _address(self, transport: asyncio.Transport) -> tuple[Any, ...] | None:
        """Where it comes from: host, port and, with IPv6, more. None: the peer is gone."""
        address: tuple[Any, ...] | None = transport.get_extra_info("peername")
        return address

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go: always the same few kilobytes."""
        return self._read_view

    def _read_with_the_tick(self) -> None:
        """From now on the intake reads the socket, until the call is over."""
        transport = self._transport
        if self._intake is None or self._ended is not None or transport is None:
            return
        if transport.get_extra_info("sslcontext") is not None:
            return
        transport.pause_reading()
        self._descriptor = transport.get_extra_info("socket").fileno()
        self._intake.add(self._descriptor, self._read)

    def _read(self) -> None:
        """There is something to read, or the stream's end: that the event loop is to find itself."""
        for _ in range(READS):
            if self._descriptor is None:
                return
            try:
                count = read_into(self._descriptor, self._read_buffer)
            except OSError:
                count = 0
            if count is None:
                return
            if not count:
                self._read_by_itself()
                return
            self.buffer_updated(count)
            if count < len(self._read_buffer):
                return

    def _read_by_itself(self) -> None:
        """The event loop reads the socket again."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None or self._intake is None or self._transport is None:
            return
        self._intake.discard(descriptor)
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # ---- The leg ---------------------------------------------------------------------------------------

    def _offer(self, accept: Callable[[Any], LegSink | Refusal | None] | None) -> bool:
        """The call is there: ask whether it is taken, and by whom. True where a leg has it now."""
        answer: LegSink | Refusal | None = Refusal("nobody takes calls here")
        if accept is not None:
            answer = self._guarded(accept, self)
        if isinstance(answer, Refusal):
            self._end("refused", answer.reason)
        elif answer is not None:
            self._sink = answer
            self._seated()
            if not self.ended:  # the leg may hang up while it is being made
                self._arm(self._idle_s, self._idle_check)
                return True
        return False

    def _guarded(self, call: Callable[..., Any], *arguments: object) -> Any:
        """Call into the leg; None where it raised. That ends this call; the others must not even notice."""
        try:
            return call(*arguments)
        except Exception as error:  # noqa: BLE001 - the border between calls; reported with its traceback
            self._error = error
            self._end("local", f"our side failed: {type(error).__name__}")
            return None

    # ---- The timer -------------------------------------------------------------------------------------

    def _arm(self, seconds: float, then: Callable[[], None]) -> None:
        """The one timer: the deadline of the state that the connection is in."""
        self._disarm()
        self._timer = self._loop.call_later(seconds, then)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _idle_check(self) -> None:
        """The idle deadline, looked at again only when it may have passed: nothing to do per byte."""
        left = self._idle_s - (self._loop.time() - self._last_byte)
        if left > 0:
            self._arm(left, self._idle_check)
        else:
            self._end("timeout", f"found no byte; allowed is a silence of {self._idle_s:g} s")

    # ---- The end ---------------------------------------------------------------------------------------

    def _mark(self, kind: ClosedKind, detail: str) -> None:
        """Decide how it ended; the first to say so is right. The leg is told on the next turn of the loop."""
        if self._ended is None:
            self._ended = EndpointClosed(kind, detail)
            self._read_by_itself()
            self._loop.call_soon(self._report)

    def _report(self) -> None:
        """Tell the leg, and write the one line of this connection."""
        if self._reported or self._ended is None:
            return
        self._reported = True
        if self._sink is not None:
            self._guarded(self._sink.endpoint_closed, self._ended)
        orderly = self._ended.kind in ("hangup", "local")
        log = get_logger(self.kind).bind(**(self._sink.ids if isinstance(self._sink, KnowsIds) else {}))
        write = log.error if self._error else log.info if orderly else log.warning
        write(
            f"{self.kind}.closed",
            reason=self._ended.kind,
            detail=self._ended.detail,
            call_id=str(self._call_id) if self._call_id else None,
            peer=self.peer,
            **self._particulars(),
            seconds=round(self._loop.time() - self._started, 3),
            frames_sent=self.frames_sent,
            frames_dropped=self.frames_dropped,
            bytes_received=self.bytes_received,
            **({"exc_info": self._error} if self._error else {}),
        )
