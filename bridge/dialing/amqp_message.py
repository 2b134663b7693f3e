"""The message of a click-to-call order: a tree of JSON values with `{placeholders}` in its texts. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

PLACEHOLDERS = ("visit", "attempt", "number", "address", "tenant", "license", "timestamp")

CLICK_TO_CALL: Mapping[str, Any] = {
    "data": {"destiny": "IA", "guid": "{visit}", "license": "{license}", "origin": "{number}"},
    "operation": {
        "eventcode": "8001",
        "guid": "cmd-{visit}",
        "msg": "",
        "timestamp": "{timestamp}",
        "type": "clicktocall",
    },
}
"""What click-to-call systems with the queue `api-to-voip1` take."""

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


def placeholders(message: Any) -> set[str]:
    """The names of all placeholders in a message."""
    return {name for text in _texts(message) for name in _PLACEHOLDER.findall(text)}


def check(message: Any) -> None:
    """Refuse a message with a placeholder that nothing fills, or without one that says whom to call.

    Raises:
        ValueError: saying what is allowed.
    """
    names = placeholders(message)
    allowed = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
    if unknown := sorted(names - set(PLACEHOLDERS)):
        raise ValueError(f"the placeholders {allowed}, not {{{unknown[0]}}}")
    if not names & {"number", "address"}:
        raise ValueError("a message that says whom to call: {number} or {address} somewhere in it")
    if not names & {"visit", "attempt"}:
        raise ValueError("a message that says what the call comes back with: {visit} or {attempt} in it")


def fill(message: Any, values: Mapping[str, str | int]) -> Any:
    """The message with its placeholders filled. What is filled in is a JSON text, whatever is in it.

    A text that is one placeholder and nothing else becomes the value itself: a number stays a number.
    """
    if isinstance(message, Mapping):
        return {name: fill(value, values) for name, value in message.items()}
    if isinstance(message, list | tuple):
        return [fill(value, values) for value in message]
    if not isinstance(message, str):
        return message
    if whole := _PLACEHOLDER.fullmatch(message):
        return values[whole[1]]
    return _PLACEHOLDER.sub(lambda match: str(values[match[1]]), message)


def _texts(message: Any) -> Iterator[str]:
    if isinstance(message, str):
        yield message
    elif isinstance(message, Mapping):
        for value in message.values():
            yield from _texts(value)
    elif isinstance(message, list | tuple):
        for value in message:
            yield from _texts(value)
