"""Tickets for FreeSWITCH's audio streams, without I/O: a token that holds for one call and a minute.

Whoever routes a call is given one instead of the tenant's token, which then stands in no URL, and so in none
of FreeSWITCH's logs. A ticket is the second of its end and an HMAC-SHA256, under the tenant's token, of that
and of whose it is; nothing is kept of it.
"""

from __future__ import annotations

import base64
import hmac
import re
from hashlib import sha256
from typing import Final
from uuid import UUID

HOLDS_S: Final = 60
"""For so long a call may be on its way from the route to the stream."""

_TICKET: Final = re.compile(r"([0-9]{1,12})\.([A-Za-z0-9_-]{43})")


def ticket(token: str, domain: UUID, call: UUID, *, now: float) -> str:
    """A ticket for one call.

    Args:
        token: the tenant's.
        now: seconds since 1970.
    """
    end = int(now) + HOLDS_S
    return f"{end}.{_seal(token, domain, call, end)}"


def holds(given: str, token: str, domain: UUID, call: UUID, *, now: float) -> bool:
    """Whether what was given is a ticket for this call, and its time is not over."""
    found = _TICKET.fullmatch(given)
    if found is None:
        return False
    end = int(found[1])
    # Compared in a time that does not tell how much of it was right.
    sealed = hmac.compare_digest(found[2], _seal(token, domain, call, end))
    return sealed and now <= end <= now + HOLDS_S + 1


def _seal(token: str, domain: UUID, call: UUID, end: int) -> str:
    said = f"porteiro stream {domain} {call} {end}".encode()
    sealed = hmac.new(token.encode(), said, sha256).digest()
    return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()


__all__ = ["HOLDS_S", "holds", "ticket"]
