"""Checks chains and the rows that follow from them in one pass of the records, as they are kept.

What is read once is checked thrice: against its chain, against what is kept beside it, and, visit by visit,
against the rows of the tables. Here is only found which visits are clear beyond doubt. All others are
compared once more, alone and at one moment, by :mod:`storage.rebuild`, which names what is wrong: a visit
that runs meanwhile, a damaged record, a row that somebody changed. Without I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, Final

from storage.base import StorageRefused
from storage.erasing import PersonalCheck
from storage.projection import CHANGES, TABLES, PassingRows, Row, Told, project
from storage.rebuild import same_row
from visits.audit import Fault, Verifier
from visits.personal import COMMITMENT

AT_ONCE: Final = 100
"""Visits whose rows are read at once."""

_ZERO: Final = "\\u0000"
"""The zero character, as JSON has it."""

_TENANT: Final = itemgetter(1)
"""A record's."""

Kept = Mapping[str, Mapping[str, list[Sequence[Any]]]]
"""Rows as a database has them, by table and visit; a visit's in the order of their key."""


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
        self._begun: dict[str, PassingRows] = {}
        self._ready: dict[str, PassingRows] = {}
        self._compared: set[str] = set()
        self._told = Told()

    def feed(self, rows: Iterable[Sequence[Any]], beside: Iterable[Sequence[Any]]) -> None:
        """The next records, in the order of tenants and numbers, and all that is kept beside any up to there.

        Args:
            rows: as ``storage.records.SEALED`` reads them.
            beside: as ``storage.records.BESIDE`` does, of the same moment.
        """
        kept: dict[str, dict[int, Sequence[Any]]] = {}
        for one in beside:
            kept.setdefault(one[0], {})[one[1]] = one
        for tenant, of_it in groupby(rows, _TENANT):
            if tenant != self._tenant:
                self._turn_to(tenant)
            self._feed_chain(tenant, list(of_it), kept.get(tenant, {}))
        for tenant, left in kept.items():
            self._check_of(tenant).unowned(left)

    def _feed_chain(self, tenant: str, rows: Sequence[Sequence[Any]], kept: dict[int, Sequence[Any]]) -> None:
        """Records of one tenant. Of ``kept`` only that is left which is beside none of them."""
        told, check = self._told, self._check
        told.tenant = tenant
        for (seq, _, visit, at, kind, text, _, _), public in zip(
            rows, self._verifier.feed_stored(rows), strict=True
        ):
            beside = kept.pop(seq, None)
            if public is None:
                self.unclear.add(visit)
                continue
            data: dict[str, Any] | None = public
            zero = _ZERO in text
            if beside is not None:
                data = check.feed(seq, visit, at, kind, beside[2], beside[3], public)
                zero = zero or _ZERO in beside[3]
            elif COMMITMENT in public or not visit:
                data = check.feed(seq, visit, at, kind, None, None, public)
            if not visit or visit in self.unclear:
                continue
            if data is None:
                self.unclear.add(visit)
                continue
            rows_told = self._begun.get(visit)
            if rows_told is None:
                if visit in self._compared:
                    if kind in CHANGES:
                        self.unclear.add(visit)
                    continue
                rows_told = self._begun[visit] = PassingRows()
            rows_told.zeroes = zero
            told.visit, told.at, told.kind, told.data = visit, at, kind, data
            try:
                project(told, seq, rows_told)
            except (StorageRefused, LookupError, TypeError, ValueError, AttributeError):
                self.unclear.add(visit)
                continue
            if kind == "visit.ended":
                self._ready[visit] = self._begun.pop(visit)
                self._compared.add(visit)

    def _turn_to(self, tenant: str) -> None:
        self.end_of_chain()
        self._tenant = tenant
        self._verifier = self.verifiers.setdefault(tenant, Verifier(tenant))
        self._check = self._check_of(tenant)

    def _check_of(self, tenant: str) -> PersonalCheck:
        return self.checks.setdefault(tenant, PersonalCheck(tenant))

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
            if not all(_same(name, rows, kept[name].get(visit, [])) for name, rows in told.tables.items()):
                self.unclear.add(visit)

    def finish(self) -> list[Fault]:
        """The faults of all chains; what is kept beside them is :attr:`checks`' to say."""
        return [fault for chain in sorted(self.verifiers) for fault in self.verifiers[chain].finish()]


def _same(table: str, told: Mapping[tuple[Any, ...], Row], found: list[Sequence[Any]]) -> bool:
    """Whether these are the same rows, and JSON says the same in whichever order of its keys."""
    try:
        expected = [told[key] for key in sorted(told)]
    except TypeError:  # a key of two types: no service wrote that
        return False
    if [tuple(row.values()) for row in expected] == found:
        return True
    columns = TABLES[table].columns
    return len(expected) == len(found) and all(
        same_row(columns, tuple(row.values()), other) for row, other in zip(expected, found, strict=True)
    )


__all__ = ["AT_ONCE", "Kept", "Scan"]
