"""Tables on a terminal: what a cell says is shown, and never obeyed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from rich.table import Table
from rich.text import Text

from bridge.showing import safe


def table_of(columns: Sequence[str], rows: Iterable[Iterable[str]], *, right: Collection[str] = ()) -> Table:
    """A table without a frame; the columns named in ``right`` have their cells on that side."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left")
    for row in rows:
        table.add_row(*(Text(safe(cell)) for cell in row))
    return table
