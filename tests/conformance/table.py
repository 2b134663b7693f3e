"""What the suite found out, as the tables of docs/providers.md: adapter × ability, and adapter × fault."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.conformance.stage import Stage

DOCUMENT = Path(__file__).parents[2] / "docs" / "providers.md"
BEGIN, END = "<!-- from make conformance: begin -->", "<!-- end -->"

Grade = Literal["native", "emulated"]

ABILITIES: Mapping[str, str] = {
    "greeting": "The greeting, word for word",
    "exact sentences": "Other sentences, word for word",
    "turns": "The end of a caller's turn, and the reply",
    "interrupted": "A reply that the caller speaks over stops",
    "heard position": "The model remembers what was heard of it",
    "one tool": "A tool call",
    "parallel tools": "Parallel tool calls",
    "long tool": "A tool whose outcome comes later",
    "tool cancelled": "A tool call that is taken back",
    "unknown tool": "A call of a tool that there isn't",
    "broken arguments": "A call with arguments that are no JSON",
    "note": "Something to know, without a reply",
    "news": "Something to speak about: idle, speaking, or with a tool open",
    "G.711": "The telephone's own G.711, nothing resampled",
    "lost connection": "A conversation outlives its connection",
    "failover": "Another provider takes over in mid-visit",
    "cost": "What a reply costs is told",
    "refusals": "Key, model, voice, address, rate and quota are told apart",
    "close": "A session that is closed leaves nothing behind",
}
"""By the names under which tests and stages know them."""

FAULTS: Mapping[str, str] = {
    "stall": "Nothing more comes in the middle of a reply",
    "slow pong": "Pings are answered late",
    "phantom interruption": "It interrupts itself, and nobody spoke",
    "empty turn": "A turn without words, a reply without sound",
    "goAway": "It says that it will close the connection",
    "close 1008": "It closes with 1008",
    "close 1011": "It closes with 1011",
    "broken connection": "The connection breaks, also within a frame",
    "half a message": "Half a message",
    "rate limit": "Too many requests in mid-visit",
    "another format": "Another format than was asked for",
    "call told twice": "A tool call comes twice",
    "late call": "A tool call comes late, after its reply's end",
    "reordered events": "Events in another order, or twice",
}

COMMON: Mapping[str, str] = {
    "failover": "the bridge tells the next provider the conversation as text",
}
"""What we do for all vendors alike."""

Outcome = Literal["goes on", "replaced", "ends"]


@dataclass(frozen=True)
class Cell:
    """What the run has shown of one vendor. ``why``: for a note beneath the table."""

    text: str
    why: str = ""


_CELLS: dict[tuple[str, str], Cell] = {}

Test = Callable[..., Awaitable[str]]


def shows(row: str) -> Callable[[Test], Callable[..., Awaitable[None]]]:
    """A test of every vendor that returns what its column has to say in this row.

    What the vendor's stage declares impossible is written down with its reason, and not tried.
    """
    assert row in ABILITIES or row in FAULTS, row

    def decorate(test: Test) -> Callable[..., Awaitable[None]]:
        @functools.wraps(test)
        async def run(vendor: type[Stage], **fixtures: Any) -> None:
            if row in vendor.beyond:
                _note(row, vendor, Cell("–", vendor.beyond[row]))
                return
            found = await test(vendor=vendor, **fixtures)
            why = vendor.emulated.get(row) or COMMON.get(row, "")
            assert row in FAULTS or (found == "emulated") is bool(why), (
                f"{row}: {found}, and declared: {why!r}"
            )
            _note(row, vendor, Cell(found, why))

        return run

    return decorate


def _note(row: str, vendor: type[Stage], cell: Cell) -> None:
    """One row may have several tests; a worse outcome of any of them counts."""
    key = (row, vendor.name)
    worst = ("–", "native", "emulated", "goes on", "replaced", "ends")
    old = _CELLS.get(key)
    if old is None or worst.index(cell.text) > worst.index(old.text):
        _CELLS[key] = cell


def missing(vendors: Sequence[type[Stage]]) -> list[tuple[str, str]]:
    """Cells of which the run has shown nothing."""
    return [(r, v.name) for r in (*ABILITIES, *FAULTS) for v in vendors if (r, v.name) not in _CELLS]


def tables(vendors: Sequence[type[Stage]]) -> str:
    """Both tables, and the notes beneath them."""
    notes: dict[str, int] = {}
    head = f"| | {' | '.join(vendor.name for vendor in vendors)} |\n|---|{'---|' * len(vendors)}\n"
    parts = []
    for rows in (ABILITIES, FAULTS):
        lines = []
        for row, words in rows.items():
            cells = []
            for vendor in vendors:
                cell = _CELLS[row, vendor.name]
                number = notes.setdefault(cell.why, len(notes) + 1) if cell.why else None
                cells.append(cell.text + (f" <sup>{number}</sup>" if number else ""))
            lines.append(f"| {words} | {' | '.join(cells)} |\n")
        parts.append(head + "".join(lines))
    listed = "".join(f"{number}. {why}\n" for why, number in notes.items())
    return "\n".join((*parts, listed))


def renewed(document: str, vendors: Sequence[type[Stage]]) -> str:
    """docs/providers.md with the tables of this run."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin and end, "docs/providers.md has no place for the tables"
    return f"{before}{BEGIN}\n\n{tables(vendors)}\n{END}{after}"
