"""The engine: takes a session's instructions and tools over, and hands each response to its role's policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from providers.local.dialogue.base import Call, History, Say, exact_words
from providers.local.dialogue.phrases import read_needs, read_phrases
from providers.local.dialogue.resident import MARK as RESIDENT_MARK
from providers.local.dialogue.resident import PHRASES as RESIDENT_PHRASES
from providers.local.dialogue.resident import ResidentPolicy
from providers.local.dialogue.visitor import ERRANDS, FACTS, TRANSFER, VisitorPolicy
from providers.local.dialogue.visitor import MARK as VISITOR_MARK
from providers.local.dialogue.visitor import PHRASES as VISITOR_PHRASES


class Policy(Protocol):
    """One role's way of talking; it keeps nothing between two responses."""

    def respond(self, history: History) -> list[Say | Call]:
        """What comes next after this history."""


class Doorman:
    """See :class:`providers.local.dialogue.base.DialogueEngine`."""

    def __init__(self) -> None:
        self._policy: Policy | None = None

    def configure(self, instructions: str, tools: Sequence[Mapping[str, Any]]) -> None:
        """Take over a session's instructions and tools.

        Raises:
            ValueError: neither role's tools are offered, or both; phrases or data rules are missing. What was
                configured before stays in force.
        """
        names = {str(tool.get("name", "")) for tool in tools}
        on_visitors_leg = VISITOR_MARK in names
        on_residents_leg = RESIDENT_MARK in names
        if on_visitors_leg == on_residents_leg:
            both = "both" if on_visitors_leg else "neither"
            raise ValueError(
                f"the role follows from the tools: one of '{VISITOR_MARK}' (visitor) and '{RESIDENT_MARK}' "
                f"(resident) must be offered; found {both} among {sorted(names)}"
            )
        if on_residents_leg:
            self._policy = ResidentPolicy(read_phrases(instructions, RESIDENT_PHRASES))
        else:
            needs = read_needs(instructions, ERRANDS, FACTS)
            phrases = read_phrases(instructions, VISITOR_PHRASES)
            self._policy = VisitorPolicy(phrases, needs, attendant=TRANSFER in names)

    def respond(
        self, history: History, response_instructions: str | None, tool_choice: str
    ) -> list[Say | Call]:
        """What one response holds.

        Raises:
            ValueError: the session was never configured, and no exact words were asked for.
        """
        exact = exact_words(response_instructions)
        if exact is not None:
            return [Say(exact)] if exact else []
        if self._policy is None:
            raise ValueError("the session has no instructions and tools yet")
        return [part for part in self._policy.respond(history) if _allowed(part, tool_choice)]


def _allowed(part: Say | Call, tool_choice: str) -> bool:
    """``none`` forbids calls; a function's name forbids every other. What was to be said is always said."""
    if isinstance(part, Say) or tool_choice in ("auto", "required"):
        return True
    return part.name == tool_choice
