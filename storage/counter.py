"""The counter of the catalogue's changes, by which running services see that there is something new."""

from __future__ import annotations

from storage.steps import Sql, Step


def counter() -> Step[int]:
    """Where it stands."""
    rows = yield Sql("SELECT counter FROM catalogue_changes")
    return int(rows[0][0])


def moved() -> Step[int]:
    """The same, moved on; the catalogue is locked. PostgreSQL notifies those who listen."""
    rows = yield Sql(
        "UPDATE catalogue_changes SET counter = counter + 1 WHERE id = 1 RETURNING counter", writes=True
    )
    return int(rows[0][0])
