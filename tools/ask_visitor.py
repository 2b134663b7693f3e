"""Put the resident's question to the visitor."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tools.registry import tool
from visits.events import QuestionRequested, Role


@tool(Role.RESIDENT)
def ask_visitor(
    call: str,
    role: Role,
    question: Annotated[
        str, Field(max_length=200, description="The question, in the words to say to the visitor.")
    ],
) -> QuestionRequested:
    """Put a question of the resident's to the visitor, when visit_details does not answer it. The visitor's
    answer is read to the resident when it comes; you say nothing meanwhile."""
    return QuestionRequested(call, question)
