"""How far the visit is."""

from __future__ import annotations

from tools.registry import tool
from visits.events import Role, StatusRequested


@tool(Role.VISITOR)
def visit_status(call: str, role: Role) -> StatusRequested:
    """How far the visit is: whether the resident is being called or asked, and for how many seconds."""
    return StatusRequested(call)
