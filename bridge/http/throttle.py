"""How soon somebody who guessed wrong may try again; without I/O.

Whoever guesses waits twice as long after each wrong guess. An attempt counts as wrong from its beginning,
until it is known to be right: many at the same time gain nothing.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

FORGOTTEN_S: Final = 3600.0
"""After so long without an attempt nothing is held against anybody."""
MOST: Final = 20_000
"""Names that are kept; the one that was quiet for longest goes first."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How much one name is forgiven.

    Attributes:
        free: wrong attempts without a wait; it is 1 s then, 2 s, 4 s …
        longest_s: and never longer than that.
    """

    free: int
    longest_s: float


ACCOUNT: Final = Patience(free=5, longest_s=60.0)
"""Of an account. Short: who locks another out on purpose locks them out for a minute at most."""
ADDRESS: Final = Patience(free=20, longest_s=900.0)
"""Of an address, whatever accounts it tries."""


@dataclass(slots=True)
class _Record:
    wrong: int = 0
    again_at: float = 0.0
    seen_at: float = 0.0


class Throttle:
    """Counts the attempts of many names.

    Args:
        patience: with each of them.
    """

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._records: OrderedDict[str, _Record] = OrderedDict()

    def wait_s(self, name: str, now: float) -> float:
        """How long until this name may try; 0 where it may now."""
        record = self._records.get(name)
        if record is None or now - record.seen_at > FORGOTTEN_S:
            return 0.0
        return max(0.0, record.again_at - now)

    def tried(self, name: str, now: float) -> None:
        """Note an attempt, as a wrong one."""
        record = self._records.pop(name, None)
        if record is None or now - record.seen_at > FORGOTTEN_S:
            record = _Record()
        record.wrong += 1
        record.seen_at = now
        over = record.wrong - self._patience.free
        # Beyond 2**20 it is the longest anyway, and a float has an end.
        record.again_at = now + min(2.0 ** min(over, 20), self._patience.longest_s) if over >= 0 else 0.0
        self._records[name] = record
        while len(self._records) > MOST:
            self._records.popitem(last=False)

    def right(self, name: str) -> None:
        """The attempt was right: forget the wrong ones before it."""
        self._records.pop(name, None)

    def undone(self, name: str) -> None:
        """The attempt came to nothing, by our own fault: it doesn't count."""
        if (record := self._records.get(name)) is not None:
            record.wrong = max(0, record.wrong - 1)
            record.again_at = 0.0


def address_name(host: str) -> str:
    """What is counted for an address: itself, or the /64 that one customer of IPv6 has to themselves."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
