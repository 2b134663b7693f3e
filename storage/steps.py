"""What is asked of a database, without I/O: a step yields statements and is sent their rows.

Every operation of the store is written once, as a step; SQLite's thread and PostgreSQL's connections each
carry the same steps out in their own way.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from storage.base import StorageUnavailable

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


CATALOGUE: Final = "\U0010ffff catalogue"
"""What the catalogue is called among the chains that are locked: behind every tenant, so always the last.

A store's write that names it beside a tenant is a transaction of its own.
"""

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


def insert(table: str, columns: str, rows: Sequence[tuple[Any, ...]]) -> Generator[Asked, Rows, None]:
    """New rows, a hundred in one statement. ``columns``: their names, with spaces between."""
    names = columns.split()
    for first in range(0, len(rows), 100):
        some = rows[first : first + 100]
        places = ", ".join(
            f"({', '.join(f'${row * len(names) + n}' for n in range(1, len(names) + 1))})"
            for row in range(len(some))
        )
        values = tuple(value for row in some for value in row)
        yield Sql(f"INSERT INTO {table} ({', '.join(names)}) VALUES {places}", values, writes=True)


def loaded(text: str) -> Any:
    """JSON out of a column. Raises :class:`StorageUnavailable` where somebody spoilt it."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise StorageUnavailable("corrupt", f"a column holds no JSON, found {text!r:.60}") from error


def escaped(word: str) -> str:
    """A text as it stands, within what a ``LIKE … ESCAPE '\\'`` looks for."""
    for special in ("\\", "%", "_"):
        word = word.replace(special, f"\\{special}")
    return word


def where(conditions: Sequence[tuple[str, Any]], before: int = 0) -> tuple[str, tuple[Any, ...]]:
    """The WHERE of all conditions that have a value, and the values.

    A condition has one ``?`` for each value; a tuple has several values (``x IN ?`` takes any number).
    ``before``: how many values the statement has before these.
    """
    texts: list[str] = []
    values: list[Any] = []
    for text, value in conditions:
        if value is None:
            continue
        if text.endswith(" IN ?"):
            places = ", ".join(f"${before + len(values) + n}" for n in range(1, len(value) + 1))
            # Of nothing it is none: neither database has an empty list.
            texts.append(text.replace("?", f"({places})") if value else "1 = 0")
            values += value
            continue
        for each in value if isinstance(value, tuple) else (value,):
            values.append(each)
            text = text.replace("?", f"${before + len(values)}", 1)
        texts.append(text)
    return (" WHERE " + " AND ".join(texts) if texts else ""), tuple(values)
