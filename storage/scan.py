"""Checks chains and the rows that follow from them in one pass of the records, as they are kept.

What is read once is checked thrice: against its chain, against what is kept beside it, and, visit by visit,
against the rows of the tables. Here is only found which visits are clear beyond doubt. All others are
compared once more, alone and at one moment, by :mod:`storage.rebuild`, which names what is wrong: a visit
that runs meanwhile, a damaged record, a row that somebody changed. Without I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from storage.base import StorageRefused
from storage.erasing import PersonalCheck
from storage.projection import CHANGES, TABLES, Told, VisitRows, project
from storage.rebuild import same_row
from visits.audit import Fault, Verifier
from visits.personal import COMMITMENT

AT_ONCE: Final = 100
"""Visits whose rows are read at once."""

_ZERO: Final = "\\u0000"
"""The zero character, as JSON has it."""

Kept = Mapping[str, Mapping[str, list[tuple[Any, ...]]]]
"""Rows as a database has them, by table and visit."""


class Scan:
    """One pass over the chains of some tenants, one after the other."""

    def __init__(self, verifiers: dict[str, Verifier]) -> None:
        """``verifiers``: for chains of which heads are known; the others come with their records."""
        self.verifiers = verifiers
        self.checks: dict[str, PersonalCheck] = {}
        self.unclear: set[str] = set()
        """Visits that are to be compared once more."""
        self._tenant: str | None = None
        self._verifier = Verifier()
        self._check = PersonalCheck("")
        self._begun: dict[str, VisitRows] = {}
        self._ready: dict[str, VisitRows] = {}
        self._compared: set[str] = set()

    def feed(self, row: Sequence[Any]) -> None:
        """The next record, in the order of tenants and numbers; as ``storage.records.RECORD`` reads it."""
        seq, tenant, visit, at, kind, text, _, _, salt, personal = row
        if tenant != self._tenant:
            self._turn_to(tenant)
        public = self._verifier.feed_stored(row)
        if public is None:
            self.unclear.add(visit)
            return
        data: dict[str, Any] | None = public
        if personal is not None or COMMITMENT in public or not visit:
            data = self._check.feed(seq, visit, at, kind, salt, personal, public)
        if not visit or visit in self.unclear:
            return
        if data is None:
            self.unclear.add(visit)
            return
        rows = self._begun.get(visit)
        if rows is None:
            if visit in self._compared:
                if kind in CHANGES:
                    self.unclear.add(visit)
                return
            rows = self._begun[visit] = VisitRows()
        rows.zeroes = _ZERO in text or (personal is not None and _ZERO in personal)
        try:
            project(Told(tenant, visit, at, kind, data), seq, rows)
        except (StorageRefused, LookupError, TypeError, ValueError, AttributeError):
            self.unclear.add(visit)
            return
        if kind == "visit.ended":
            self._ready[visit] = self._begun.pop(visit)
            self._compared.add(visit)

    def _turn_to(self, tenant: str) -> None:
        self.end_of_chain()
        self._tenant = tenant
        self._verifier = self.verifiers.setdefault(tenant, Verifier(tenant))
        self._check = self.checks.setdefault(tenant, PersonalCheck(tenant))

    def end_of_chain(self) -> None:
        """No more records of this tenant: what has not ended is compared as it is."""
        self._ready.update(self._begun)
        self._begun.clear()
        self._compared.clear()

    def ready(self, least: int) -> list[str]:
        """Visits to be compared next, where there are so many."""
        if len(self._ready) < least:
            return []
        return list(islice(self._ready, AT_ONCE))

    def compare(self, visits: Iterable[str], kept: Kept) -> None:
        """Hold these visits against their rows in the database."""
        for visit in visits:
            told = self._ready.pop(visit)
            if visit in self.unclear:
                continue
            for table, rows in told.tables.items():
                expected = [tuple(row.values()) for row in rows.values()]
                found = kept[table].get(visit, [])
                if expected != found and not _same(table, expected, found):
                    self.unclear.add(visit)
                    break

    def finish(self) -> list[Fault]:
        """The faults of all chains; what is kept beside them is :attr:`checks`' to say."""
        return [fault for chain in sorted(self.verifiers) for fault in self.verifiers[chain].finish()]


def _same(table: str, expected: list[tuple[Any, ...]], found: list[tuple[Any, ...]]) -> bool:
    """Whether these are the same rows, in whatever order, and JSON in whichever order of its keys."""
    if len(expected) != len(found):
        return False
    key = [TABLES[table].columns.index(name) for name in TABLES[table].key]
    kept = {tuple([row[at] for at in key]): row for row in found}
    columns = TABLES[table].columns
    for row in expected:
        other = kept.get(tuple([row[at] for at in key]))
        if other is None or not same_row(columns, row, other):
            return False
    return True


__all__ = ["AT_ONCE", "Scan"]
