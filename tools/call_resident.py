"""Have the resident called."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tools.registry import tool
from visits.events import CallRequested, Role


@tool(Role.VISITOR)
def call_resident(
    call: str,
    role: Role,
    apartment: Annotated[
        str, Field(max_length=120, description="The apartment that lookup_apartment found.")
    ],
    intent: Annotated[
        str, Field(max_length=32, description="Why the visitor came: visita, entrega or servico.")
    ],
    visitor_name: Annotated[
        str, Field(max_length=120, description="The visitor's name; empty if not known.")
    ] = "",
    resident_name: Annotated[
        str,
        Field(
            max_length=120,
            description="The resident's name as the visitor said it; empty if the visitor does not know it.",
        ),
    ] = "",
    company: Annotated[
        str,
        Field(
            max_length=120, description="The company that the visitor comes from; empty if none was named."
        ),
    ] = "",
) -> CallRequested:
    """Have the resident called, once everything needed is known. The answer comes at once; the call goes on
    meanwhile, the visitor is told so, and you say nothing until you are told how it ended."""
    return CallRequested(call, apartment, intent, visitor_name, resident_name, company)
