"""End a call."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tools.registry import tool
from visits.events import EndRequested, Role


@tool(Role.VISITOR, Role.RESIDENT)
def end_call(
    call: str,
    role: Role,
    reason: Annotated[str, Field(max_length=200, description="Why, in a few words.")] = "",
) -> EndRequested:
    """End this call when the caller no longer wants anything. The goodbye is said for you."""
    return EndRequested(call, role, reason)
