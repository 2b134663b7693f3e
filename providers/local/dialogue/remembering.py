"""What both legs' policies share: reading call results, and telling our own words from the host's."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from providers.local.dialogue.base import Call, CallMade
from visits.words import fold

SILENCE = "[silencio]"
"""How a host's note about a caller who says nothing begins, folded."""

CALL_TRIES = 2
"""A call that failed is made once more, and no oftener without a new word from the caller."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a policy says and calls at one point, and what that will have meant once it was heard.

    Attributes:
        text: the words; empty: nothing is said.
        calls: the tools called.
        asks: what is asked for; empty: nothing.
        question_at: index in ``text`` at which the question begins.
        counts: whether it counts as having asked (a repetition on request does not).
        kind: why it is said, where the policy must know later: ``silence``, ``misheard``, ``wait`` …
    """

    text: str = ""
    calls: tuple[Call, ...] = ()
    asks: str = ""
    question_at: int = 0
    counts: bool = True
    kind: str = ""


NOTHING = Reply()


def answered(output: str) -> Mapping[str, Any]:
    """A tool's result. What is no JSON object is an error like any other: ``{"status": "error"}``."""
    result = _object(output)
    return {"status": "error"} if result is None else result


def arguments(made: CallMade) -> Mapping[str, Any]:
    """The arguments of a call that we made; empty where they can't be read."""
    return _object(made.arguments) or {}


def _object(text: str) -> Mapping[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def text_of(result: Mapping[str, Any], key: str) -> str:
    """A text field of a result on one line; empty where it is missing or no text."""
    value = result.get(key, "")
    return " ".join(value.split()) if isinstance(value, str) else ""


_BARE = re.compile(r"[^\w]+")


def is_ours(heard: str, said: str) -> bool:
    """Whether what was heard is what we said, whole or cut anywhere by a barge-in."""
    begun, whole = (_BARE.sub(" ", fold(text)).strip() for text in (heard, said))
    return bool(begun) and whole.startswith(begun)


def question_heard(heard: str, reply: Reply) -> bool:
    """Whether enough of the question got through: half of it tells a caller what is asked."""
    return len(heard) >= (reply.question_at + len(reply.text)) / 2
