"""Pages by keyset cursors: a page begins behind the last row of the one before it, however far in it is."""

from __future__ import annotations

import binascii
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from storage.base import StorageRefused

T = TypeVar("T")

MAX_PAGE: Final = 200
"""The longest page."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list. ``next``: the cursor of the page after it; None: this is the last."""

    items: tuple[T, ...]
    next: str | None = None


def cursor_of(*key: str | int) -> str:
    """The cursor of the page that begins behind the row of this key."""
    return urlsafe_b64encode(json.dumps(key, separators=(",", ":")).encode()).decode().rstrip("=")


def key_of(cursor: str, *types: type) -> tuple[Any, ...]:
    """The key in a cursor. Raises :class:`StorageRefused` for a text that is no cursor of this list."""
    try:
        key = json.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        key = None
    if (
        not isinstance(key, list)
        or [type(part) for part in key] != list(types)
        or not all(_can_be_kept(part) for part in key if isinstance(part, str))
    ):
        raise StorageRefused(f"a page's cursor: found {cursor!r:.60}; allowed is what `next` of a page says")
    return tuple(key)


def _can_be_kept(text: str) -> bool:
    """Whether a database can hold it at all: no zero character, no half of a surrogate pair."""
    return "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)


def checked_limit(limit: int) -> int:
    """Raises :class:`StorageRefused`."""
    if not 1 <= limit <= MAX_PAGE:
        raise StorageRefused(f"a page's length: found {limit}; allowed are 1 to {MAX_PAGE}")
    return limit


def page_of(rows: Sequence[T], limit: int, key: Callable[[T], tuple[str | int, ...]]) -> Page[T]:
    """The page of rows that were read with more than ``limit`` where there are more."""
    items = tuple(rows[:limit])
    return Page(items, cursor_of(*key(items[-1])) if len(rows) > limit else None)


__all__ = ["MAX_PAGE", "Page", "checked_limit", "cursor_of", "key_of", "page_of"]
