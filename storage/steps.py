"""What is asked of a database, without I/O: a step yields statements and is sent their rows.

Every operation of the store is written once, as a step; SQLite's thread and PostgreSQL's connections each
carry the same steps out in their own way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
Rows = Sequence[Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Sql:
    """One statement, in what SQLite and PostgreSQL have in common; its parameters are ``$1``, ``$2`` …"""

    text: str
    values: tuple[Any, ...] = ()
    writes: bool = False


@dataclass(frozen=True, slots=True)
class LockChain:
    """Nobody else appends to this tenant's chain until the transaction is over. Its rows are none."""

    tenant: str


Asked = Sql | LockChain
Step = Generator[Asked, Rows, T]


def carry_out(step: Step[T], execute: Callable[[Asked], Rows]) -> T:
    """Carry a step out; ``execute`` does one statement. Its errors are not the step's to catch."""
    try:
        asked = next(step)
        while True:
            asked = step.send(execute(asked))
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        step.close()


async def carry_out_async(step: Step[T], execute: Callable[[Asked], Awaitable[Rows]]) -> T:
    """The same, where a statement is waited for."""
    try:
        asked = next(step)
        while True:
            asked = step.send(await execute(asked))
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        step.close()


def where(conditions: Sequence[tuple[str, Any]]) -> tuple[str, tuple[Any, ...]]:
    """The WHERE of all conditions that have a value, and the values.

    A condition has one ``?`` for each value; a tuple has several values (``x IN ?`` takes any number).
    """
    texts: list[str] = []
    values: list[Any] = []
    for text, value in conditions:
        if value is None:
            continue
        if text.endswith(" IN ?"):
            places = ", ".join(f"${len(values) + n}" for n in range(1, len(value) + 1))
            # Of nothing it is none: neither database has an empty list.
            texts.append(text.replace("?", f"({places})") if value else "1 = 0")
            values += value
            continue
        for each in value if isinstance(value, tuple) else (value,):
            values.append(each)
            text = text.replace("?", f"${len(values)}", 1)
        texts.append(text)
    return (" WHERE " + " AND ".join(texts) if texts else ""), tuple(values)
