"""Who is at the gate."""

from __future__ import annotations

from tools.registry import tool
from visits.events import DetailsRequested, Role


@tool(Role.RESIDENT)
def visit_details(call: str, role: Role) -> DetailsRequested:
    """Who is at the gate: name, errand, company, and whom they came for. Empty text means not known."""
    return DetailsRequested(call)
