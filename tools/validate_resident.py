"""Check a resident's name without ever telling one."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tools.registry import tool
from visits.events import Role, ValidationRequested


@tool(Role.VISITOR)
def validate_resident(
    call: str,
    role: Role,
    apartment: Annotated[
        str, Field(max_length=120, description="The apartment that lookup_apartment found.")
    ],
    name: Annotated[
        str, Field(max_length=120, description="The resident's name exactly as the visitor said it.")
    ],
) -> ValidationRequested:
    """Check that a resident lives in an apartment. It never tells who does; neither may you."""
    return ValidationRequested(call, apartment, name)
