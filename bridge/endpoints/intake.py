"""Reads the sockets of running calls all at once, when the clock ticks, and not each when something comes.

A frame that is read by the event loop costs a wake-up, of which an idle processor charges 75–170 µs; what is
done with it before the next tick is little. So the sockets of calls wait for the tick, and one look says
which of them have something: nothing is read that is not there.

Linux and macOS; a connection under TLS can't be read this way, and stays with the event loop.
"""

from __future__ import annotations

import os
import selectors
from collections.abc import Callable

READS = 16
"""So often one socket is read in a row where each read fills its buffer: a backlog after a standstill."""


class Intake:
    """The sockets that are read with the tick."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def __len__(self) -> int:
        return len(self._selector.get_map())

    def add(self, descriptor: int, read: Callable[[], None]) -> None:
        """From now on `read` is called at a tick at which there is something to read, or the end."""
        self._selector.register(descriptor, selectors.EVENT_READ, read)

    def discard(self, descriptor: int) -> None:
        """No longer. Must come before the descriptor is closed."""
        self._selector.unregister(descriptor)

    def run(self) -> None:
        """Read what there is."""
        for key, _ in self._selector.select(0):
            key.data()

    def close(self) -> None:
        """Nothing is read any more."""
        self._selector.close()


def read_into(descriptor: int, buffer: bytearray) -> int | None:
    """How many bytes came; 0 at the end of the stream, None where there is nothing yet.

    Raises:
        OSError: the connection broke.
    """
    try:
        return os.readv(descriptor, (buffer,))
    except (BlockingIOError, InterruptedError):
        return None
