"""Ask for the gate to be opened."""

from __future__ import annotations

from tools.registry import tool
from visits.events import AuthorizeRequested, Role


@tool(Role.RESIDENT)
def authorize_entry(call: str, role: Role) -> AuthorizeRequested:
    """The resident clearly consented to letting this visitor in. Never call it on a question, a doubt, or
    silence. When the answer is not_yet, ask the resident again, plainly: yes or no."""
    return AuthorizeRequested(call)
