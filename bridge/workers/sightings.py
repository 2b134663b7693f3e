"""What is seen in a worker's visits, on its way to the front: in batches, bounded, never at a call's cost.

Where the front does not read, or more happens than a batch may hold, things are let go and counted: first
what is void a moment later, then the oldest.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any, Final

import orjson

from bridge.watch import PASSING, Seen
from bridge.workers.messages import MAX_BYTES, MessageError

MOST: Final = 512
"""So many things wait for the front."""
BATCH_S: Final = 0.1
"""So often they are told."""
MAX_SEEN_BYTES: Final = 32 * 1024
"""Of one thing; a longer one is told without its data's longest parts."""
MAX_BATCH_BYTES: Final = MAX_BYTES - 16 * 1024
"""The message's head goes before it."""
MOST_TENANTS: Final = 40
"""So many are named in a message's head."""


class Sightings:
    """What waits to be told.

    Args:
        later: calls something back after so many seconds.
        flush: has :meth:`batches` sent.
    """

    def __init__(
        self, later: Callable[[float, Callable[[], None]], object], flush: Callable[[], None]
    ) -> None:
        self._later = later
        self._flush = flush
        self._waiting: deque[Seen] = deque()
        self._dropped: Counter[str] = Counter()
        self._due = False

    def watch(self, seen: Seen) -> None:
        """A watcher (`bridge/watch.py`)."""
        if seen.kind in PASSING and len(self._waiting) >= MOST // 2:
            self._dropped[seen.tenant] += 1
            return
        if len(self._waiting) >= MOST:
            self._dropped[self._waiting.popleft().tenant] += 1
        self._waiting.append(seen)
        self.soon()

    def soon(self) -> None:
        """Have what waits told in a moment."""
        if not self._due and (self._waiting or self._dropped):
            self._due = True
            self._later(BATCH_S, self._now)

    def _now(self) -> None:
        self._due = False
        self._flush()

    def batches(self) -> Iterator[tuple[dict[str, int], bytes]]:
        """All that waits, in pieces that a packet holds, each with what was let go before it, by tenant."""
        while self._waiting or self._dropped:
            lines: list[bytes] = []
            room = MAX_BATCH_BYTES
            while self._waiting:
                line = _line(self._waiting[0])
                if len(line) > room:
                    break
                self._waiting.popleft()
                lines.append(line)
                room -= len(line)
            dropped = dict(list(self._dropped.items())[:MOST_TENANTS])
            for tenant in dropped:
                del self._dropped[tenant]
            yield dropped, b"".join(lines)


def _line(seen: Seen) -> bytes:
    """One thing as a line of JSON."""
    try:
        line = orjson.dumps([seen.tenant, seen.visit, seen.at_ms, seen.kind, seen.data])
    except orjson.JSONEncodeError:  # half a surrogate pair in somebody's words; a number of 20 digits
        line = orjson.dumps([seen.tenant, seen.visit, seen.at_ms, seen.kind, _plain(seen)])
    if len(line) > MAX_SEEN_BYTES:
        line = orjson.dumps([seen.tenant, seen.visit, seen.at_ms, seen.kind, _plain(seen)])
    return line + b"\n"


def _plain(seen: Seen) -> dict[str, Any]:
    """Data as far as it is short: what a visit is at can be told from it."""

    def short(value: Any) -> Any:
        if isinstance(value, str):
            return value[:300].encode("utf-8", "replace").decode()
        return value if isinstance(value, float | bool | None) else {"shortened": True}

    return {name: short(value) for name, value in list(seen.data.items())[:20]}


def read_batch(raw: bytes) -> list[Seen]:
    """What a worker told.

    Raises:
        MessageError: it is no such thing.
    """
    return [_seen(line) for line in raw.splitlines()]


def _seen(line: bytes) -> Seen:
    try:
        read = orjson.loads(line)
    except ValueError as error:
        raise MessageError(f"found no sighting ({error}); allowed: JSON") from None
    match read:
        case [str(tenant), str(visit), int() | float() as at_ms, str(kind), dict(data)]:
            return Seen(visit, at_ms, kind, data, tenant)
    raise MessageError("found a sighting of another form; allowed: [tenant, visit, at_ms, kind, data]")


__all__ = ["Sightings", "read_batch"]
