"""Let the resident talk to the visitor."""

from __future__ import annotations

from tools.registry import tool
from visits.events import ConnectRequested, Role


@tool(Role.RESIDENT)
def connect_parties(call: str, role: Role) -> ConnectRequested:
    """Connect the resident with the visitor, when the resident asks to talk to them. Both are told first; you
    hear and say nothing meanwhile. The resident comes back to you by a key, or decides by one."""
    return ConnectRequested(call)
