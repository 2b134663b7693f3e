"""Keep the gate closed."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tools.registry import tool
from visits.events import DenyRequested, Role


@tool(Role.RESIDENT)
def deny_entry(
    call: str,
    role: Role,
    reason: Annotated[str, Field(max_length=200, description="What the resident said, in a few words.")] = "",
) -> DenyRequested:
    """The resident does not want to let this visitor in."""
    return DenyRequested(call, reason)
