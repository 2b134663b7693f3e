"""Put a caller through to a department or an extension."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tools.registry import tool
from visits.events import Role, TransferRequested


@tool(Role.VISITOR)
def transfer_call(
    call: str,
    role: Role,
    to: Annotated[
        str,
        Field(max_length=120, description="The department's name or the extension, as the caller said it."),
    ],
) -> TransferRequested:
    """Put the caller through to a department or an extension, when they ask for one. When the answer is
    ambiguous, ask which of the departments it names; when it is not_found, say which there are."""
    return TransferRequested(call, to)
