"""The connection between the front and a worker: whole packets over a Unix socket, with file descriptors.

A pair of SOCK_SEQPACKET sockets (Linux): a packet comes whole or not at all, and the end of one side is seen
at once by the other, however that side ended.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable

from bridge.workers.messages import MAX_BYTES, Message, packed

AT_ONCE = 32
"""Packets that are read in one turn of the event loop: calls' audio waits meanwhile."""
MAX_QUEUED = 10_000
"""Packets that wait for the other side to read."""

OnPacket = Callable[[bytes, "socket.socket | None"], None]


class ChannelError(ConnectionError):
    """The other side is gone, or does not read."""


class Channel:
    """One side's end.

    Args:
        end: its socket, which it closes at the end.
        on_packet: told of each packet, with the connection that came along. Whatever it raises ends the
            channel.
        on_closed: told once that the channel is over, and why; not where :meth:`close` ended it.
    """

    def __init__(self, end: socket.socket, on_packet: OnPacket, on_closed: Callable[[str], None]) -> None:
        end.setblocking(False)
        self._end = end
        self._on_packet = on_packet
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[bytes, socket.socket | None]] = deque()
        self._closed = False
        self._loop.add_reader(end, self._readable)

    @property
    def queued(self) -> int:
        """Packets that the other side has no room for yet."""
        return len(self._queue)

    @property
    def closed(self) -> bool:
        """It is over."""
        return self._closed

    def send(self, message: Message, raw: bytes = b"", given: socket.socket | None = None) -> None:
        """Send a packet, now or as soon as there is room.

        Args:
            given: a connection for the other side. This side's is closed, whatever comes of it.

        Raises:
            ChannelError: the channel is over.
            MessageError: the packet would be too long.
        """
        try:
            packet = packed(message, raw)
            if self._closed or len(self._queue) >= MAX_QUEUED:
                raise ChannelError(
                    "the channel is closed" if self._closed else "the other side does not read"
                )
        except BaseException:
            if given is not None:
                given.close()
            raise
        self._queue.append((packet, given))
        if len(self._queue) == 1:
            self._flush()

    def _flush(self) -> None:
        """Send what waits, as far as there is room."""
        while self._queue:
            packet, given = self._queue[0]
            try:
                if given is None:
                    self._end.send(packet)
                else:
                    socket.send_fds(self._end, [packet], [given.fileno()])
            except BlockingIOError:
                self._loop.add_writer(self._end, self._flush)
                return
            except OSError as error:
                self._over(f"can't be written: {error.strerror}")
                return
            self._queue.popleft()
            if given is not None:
                given.close()
        self._loop.remove_writer(self._end)

    def _readable(self) -> None:
        for _ in range(AT_ONCE):
            try:
                packet, handles, flags, _ = socket.recv_fds(self._end, MAX_BYTES, 1)
            except BlockingIOError:
                return
            except OSError as error:
                self._over(f"can't be read: {error.strerror}")
                return
            given = _received(handles[0]) if handles else None
            if not packet:
                self._over("the other side is gone")
                return
            try:
                if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                    raise ChannelError(f"found a packet of over {MAX_BYTES} bytes, or with several handles")
                self._on_packet(packet, given)
            except Exception as error:  # noqa: BLE001 - the border between processes; who gets it logs it
                if given is not None:
                    given.close()
                self._over(f"{type(error).__name__}: {error}")
                return
            if self._closed:
                return

    def _over(self, why: str) -> None:
        if not self._closed:
            self.close()
            self._on_closed(why)

    def close(self) -> None:
        """End the channel; what waits is not sent. More than once is harmless."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._end)
        self._loop.remove_writer(self._end)
        self._end.close()
        for _, given in self._queue:
            if given is not None:
                given.close()
        self._queue.clear()


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends.

    Raises:
        OSError: this system has no such sockets; Linux has.
    """
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def end_of(handle: int) -> socket.socket:
    """The end that a process was started with."""
    return _received(handle)


def _received(handle: int) -> socket.socket:
    # Python 3.11's recv_fds takes flags and forgets them: MSG_CMSG_CLOEXEC does nothing there.
    os.set_inheritable(handle, False)
    return socket.socket(fileno=handle)
