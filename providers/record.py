"""What a conversation was so far, for the session that goes on with it. Bounded; no I/O.

Of our own speech only what was heard counts: what the caller spoke over is cut, what nobody heard is left
out.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

from providers.base import Line, PastCall

MAX_LINES = 100
MAX_CHARACTERS = 12_000
"""About 4000 tokens of Portuguese, what half an hour at a door holds."""
_LETTERS_PER_S = 20
"""Nobody speaks faster for long."""


@dataclass(frozen=True, slots=True)
class _Cut:
    """How much of an item was heard, and how much had come."""

    ms: int
    received_ms: int
    whole: bool

    def of(self, text: str) -> str:
        """The words that were heard, by their share of the sound."""
        letters = len(text) * self.ms // max(1, self.received_ms)
        if not self.whole:  # the words run ahead of the sound
            letters = min(letters, self.ms * _LETTERS_PER_S // 1000)
        return text if letters >= len(text) else text[:letters].rpartition(" ")[0]


@dataclass(slots=True)
class _Entry:
    number: int
    speaker: Literal["caller", "agent", "system"]
    text: str = ""
    written: str = ""
    """Of an item of ours: all its words."""
    cut: _Cut | None = None
    call: PastCall | None = None
    """Where it was a call that has been answered; until then its text stands for it."""


class Record:
    """The lines of one conversation, in the order in which they were said."""

    def __init__(self) -> None:
        self._entries: deque[_Entry] = deque()
        self._characters = 0
        self._items: dict[str, _Entry] = {}
        self._calls: dict[str, _Entry] = {}
        self.count = 0
        """How many lines there ever were."""

    def caller(self, text: str) -> None:
        """The words of a caller's turn."""
        if text.strip():
            self._add("caller", text.strip())

    def system(self, text: str) -> None:
        """What the model was told."""
        self._add("system", text)

    def called(self, call: str, text: str) -> None:
        """A tool was called; ``text`` says so until the answer is known."""
        self._calls[call] = self._add("system", text)

    def answered(self, call: PastCall) -> int:
        """What it answered. Returns which line it is."""
        entry = self._calls.pop(call.id, None) or self._add("system", "")
        entry.call = call
        self._set(entry, f"{call.name}{call.arguments}{call.result}")
        return entry.number

    def agent(self, item: str, text: str, *, final: bool) -> None:
        """Words of ours: more of an item's or, where they are final, all of them."""
        entry = self._of(item)
        entry.written = text if final else entry.written + text
        self._set(entry, entry.cut.of(entry.written) if entry.cut is not None else entry.written)

    def heard(self, item: str, ms: int, received_ms: int, *, whole: bool) -> str:
        """The caller heard so much of an item and no more. Returns the words that are known by now.

        Args:
            received_ms: of the item that came.
            whole: it had ended: its words are no more than its sound.
        """
        entry = self._of(item)
        entry.cut = _Cut(ms, received_ms, whole)
        self._set(entry, entry.cut.of(entry.written))
        return entry.text

    def _of(self, item: str) -> _Entry:
        if item not in self._items:
            self._items[item] = self._add("agent", "")
        return self._items[item]

    def since(self, count: int) -> list[Line | PastCall]:
        """The lines after the first ``count``, the oldest first; without those of which nothing was heard."""
        return [
            one.call or Line(one.speaker, one.text)
            for one in self._entries
            if one.number > count and one.text.strip()
        ]

    def _add(self, speaker: Literal["caller", "agent", "system"], text: str) -> _Entry:
        self.count += 1
        entry = _Entry(self.count, speaker)
        self._entries.append(entry)
        self._set(entry, text)
        return entry

    def _set(self, entry: _Entry, text: str) -> None:
        self._characters += len(text) - len(entry.text)
        entry.text = text
        while len(self._entries) > MAX_LINES or (
            self._characters > MAX_CHARACTERS and len(self._entries) > 1
        ):
            oldest = self._entries.popleft()
            self._characters -= len(oldest.text)
            for names in (self._items, self._calls):
                for name in [name for name, entry in names.items() if entry is oldest]:
                    del names[name]
