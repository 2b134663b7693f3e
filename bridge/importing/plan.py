"""What an import would do: changes, problems and notes; and the files that carry it out.

Readers and planners fill it. It is carried out as a whole (`writer.py`, or by the database) or, with any
problem, not at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from storage.catalogue import NewSettings
from visits.directory import Apartment

Action = Literal["create", "change", "remove", "leave"]
Kind = Literal["tenant", "apartment"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something can't be taken.

    Attributes:
        source: the file or the table.
        place: where in it, for people: "linha 12", "entry 3", "row 7".
        text: what was found, and what is allowed.
    """

    source: str
    place: str
    text: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.source, self.place, self.text) if part)


@dataclass(frozen=True, slots=True)
class Change:
    """One tenant or one apartment, and what happens to it.

    ``details``: what differs, one line each.
    """

    action: Action
    kind: Kind
    tenant: str
    name: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """All that one import would do.

    ``notes``: what is not taken over, or should be looked at; nothing that keeps it from being carried out.
    ``files``: what each file is to hold, None: it is to go. Files that stay as they are do not appear.
    ``tenants``, ``directories``: likewise what the database is to keep; of a directory the version that was
    seen, and its apartments.
    """

    changes: tuple[Change, ...] = ()
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    files: Mapping[Path, bytes | None] = field(default_factory=dict)
    tenants: Mapping[str, NewSettings] = field(default_factory=dict)
    directories: Mapping[str, tuple[int, tuple[Apartment, ...]]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "changes": [
                {
                    "action": one.action,
                    "kind": one.kind,
                    "tenant": one.tenant,
                    "name": one.name,
                    "details": list(one.details),
                }
                for one in self.changes
            ],
            "problems": [
                {"source": one.source, "place": one.place, "text": one.text} for one in self.problems
            ],
            "notes": list(self.notes),
            "files": {
                str(path): "remove" if content is None else "write" for path, content in self.files.items()
            },
            "database": {
                **{
                    f"tenants.{name}": "remove" if one.content is None else "write"
                    for name, one in self.tenants.items()
                },
                **{f"directories.{name}": "write" for name in self.directories},
            },
        }


def together(plans: Sequence[Plan]) -> Plan:
    """Several plans as one. No two may write the same file, tenant or directory."""
    return Plan(
        tuple(change for plan in plans for change in plan.changes),
        tuple(problem for plan in plans for problem in plan.problems),
        tuple(note for plan in plans for note in plan.notes),
        {path: content for plan in plans for path, content in plan.files.items()},
        {name: one for plan in plans for name, one in plan.tenants.items()},
        {name: one for plan in plans for name, one in plan.directories.items()},
    )


__all__ = ["Action", "Change", "Kind", "Plan", "Problem", "together"]
