"""Hand the visitor over to a person."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tools.registry import tool
from visits.events import AttendantRequested, Role


@tool(Role.VISITOR)
def transfer_to_attendant(
    call: str,
    role: Role,
    reason: Annotated[str, Field(max_length=200, description="Why, in a few words.")] = "",
) -> AttendantRequested:
    """Hand the visitor over to a human attendant, when they ask for one or you cannot help them."""
    return AttendantRequested(call, reason)
