"""Find an apartment as the visitor said it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tools.registry import tool
from visits.events import LookupRequested, Role


@tool(Role.VISITOR)
def lookup_apartment(
    call: str,
    role: Role,
    apartment: Annotated[
        str,
        Field(
            max_length=120, description="The apartment as the visitor said it, e.g. '501' or '102 bloco B'."
        ),
    ],
) -> LookupRequested:
    """Check that an apartment exists. Call it as soon as the visitor names one, before anything else. When
    the answer has confirm, the number was guessed by its sound: ask whether it is right before you go on."""
    return LookupRequested(call, apartment)
