"""Which worker runs which visit, and which calls it holds: what the front knows of its workers, without I/O.

The worker has the last word on a resident's call (is that attempt still expected, has nobody claimed it):
what stands here only says which worker to ask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID


class RoutesError(ValueError):
    """A worker speaks of what is not its own."""


@dataclass(frozen=True, slots=True)
class _Leg:
    worker: int
    tenant: str


@dataclass(frozen=True, slots=True)
class _Visit:
    id: UUID
    worker: int
    tenant: str


class Routes:
    """Visits, their dial attempts and their calls, by worker.

    Each call that a worker is given has a number, which is never given twice; a visit has that of its
    visitor's call.
    """

    def __init__(self) -> None:
        self._workers: set[int] = set()
        self._last = 0
        self._legs: dict[int, _Leg] = {}
        self._visits: dict[int, _Visit] = {}
        self._coming: dict[UUID, int] = {}
        """Visit that is to begin → the worker that expects it."""
        self._numbers: dict[UUID, int] = {}
        """Visit → its number."""
        self._attempts: dict[UUID, int] = {}
        """Dial attempt → the number of the visit that it belongs to."""

    # ---- Workers ---------------------------------------------------------------------------------------

    def joined(self, worker: int) -> None:
        """A worker takes calls from now on."""
        self._workers.add(worker)

    def left(self, worker: int) -> None:
        """A worker takes no more calls; those that it has may go on."""
        self._workers.discard(worker)
        self._coming = {visit: owner for visit, owner in self._coming.items() if owner != worker}

    def lost(self, worker: int) -> list[UUID]:
        """A worker is gone, and its calls with it. Returns its visits, the oldest first."""
        self.left(worker)
        self._legs = {number: leg for number, leg in self._legs.items() if leg.worker != worker}
        gone = {number: visit for number, visit in self._visits.items() if visit.worker == worker}
        for number in gone:
            self._forget(number)
        return [visit.id for visit in gone.values()]

    @property
    def attempts(self) -> Mapping[UUID, int]:
        """The dial attempts that may come back, and the numbers of their visits."""
        return self._attempts

    @property
    def workers(self) -> int:
        """How many workers take calls."""
        return len(self._workers)

    def least_loaded(self) -> int | None:
        """The worker with the fewest calls, those included that are to come; None where none takes any."""
        legs = dict.fromkeys(sorted(self._workers), 0)
        for worker in (*(leg.worker for leg in self._legs.values()), *self._coming.values()):
            if worker in legs:
                legs[worker] += 1
        return min(legs, key=legs.__getitem__, default=None)

    def coming(self, visit: UUID) -> int | None:
        """A visit is to begin: the worker that expects it from now on; None where none takes calls."""
        worker = self._coming.get(visit)
        if worker is None and (worker := self.least_loaded()) is not None:
            self._coming[visit] = worker
        return worker

    def not_coming(self, visit: UUID) -> None:
        """The visit need not be expected any more."""
        self._coming.pop(visit, None)

    def for_visitor(self, visit: UUID) -> int | None:
        """The worker that expected this visit, and does no more; the one with the fewest calls otherwise."""
        worker = self._coming.pop(visit, None)
        return self.least_loaded() if worker is None else worker

    # ---- Calls -----------------------------------------------------------------------------------------

    def visitor(self, worker: int, tenant: str, visit: UUID) -> int:
        """Give a worker a visitor's call, and with it a visit; the call's number.

        Raises:
            RoutesError: that worker takes none, or such a visit runs.
        """
        if visit in self._numbers:
            raise RoutesError(f"found a second visit {visit}; allowed: one of an id at a time")
        number = self._leg(worker, tenant)
        self._visits[number] = _Visit(visit, worker, tenant)
        self._numbers[visit] = number
        return number

    def resident(self, worker: int, tenant: str) -> int:
        """Give a worker a resident's call; its number.

        Raises:
            RoutesError: that worker takes none.
        """
        return self._leg(worker, tenant)

    def _leg(self, worker: int, tenant: str) -> int:
        if worker not in self._workers:
            raise RoutesError(f"found a call for worker {worker}; allowed: {sorted(self._workers)}")
        self._last += 1
        self._legs[self._last] = _Leg(worker, tenant)
        return self._last

    def owner(self, tenant: str, came: UUID) -> int | None:
        """The worker whose visit of that tenant may expect a resident's call with that id.

        Args:
            came: the id of a dial attempt, or of the visit itself (click-to-call systems can carry no other).
        """
        visit = self._visits.get(self._attempts.get(came) or self._numbers.get(came) or 0)
        return visit.worker if visit is not None and visit.tenant == tenant else None

    # ---- What workers say ------------------------------------------------------------------------------

    def expects(self, worker: int, visit: UUID, attempt: UUID) -> None:
        """A worker's visit is about to have a resident called, who comes back with that id.

        Raises:
            RoutesError: it is not that worker's visit, or the id is another visit's.
        """
        number = self._numbers.get(visit, 0)
        self._own(worker, self._visits.get(number), f"visit {visit}")
        taken = self._attempts.get(attempt) or self._numbers.get(attempt)
        if taken not in (None, number):
            raise RoutesError(f"found the attempt {attempt}, which is another visit's; allowed: a new id")
        self._attempts[attempt] = number

    def leg_gone(self, worker: int, number: int) -> None:
        """A call is over.

        Raises:
            RoutesError: it is not that worker's, or was over already.
        """
        self._own(worker, self._legs.get(number), f"call {number}")
        del self._legs[number]

    def visit_over(self, worker: int, number: int) -> UUID:
        """The visit that began with a call is over; its id.

        Raises:
            RoutesError: it is not that worker's, or was over already.
        """
        found = self._visits.get(number)
        self._own(worker, found, f"visit of call {number}")
        assert found is not None
        self._forget(number)
        return found.id

    @staticmethod
    def _own(worker: int, found: _Leg | _Visit | None, what: str) -> None:
        if found is None or found.worker != worker:
            raise RoutesError(f"found the {what} from worker {worker}; allowed: what it holds")

    def _forget(self, number: int) -> None:
        visit = self._visits.pop(number)
        del self._numbers[visit.id]
        self._attempts = {each: owner for each, owner in self._attempts.items() if owner != number}

    # ---- Counts ----------------------------------------------------------------------------------------

    @property
    def visits(self) -> int:
        """How many visits run."""
        return len(self._visits)

    def runs(self, visit: UUID) -> bool:
        """Whether a visit of this id runs."""
        return visit in self._numbers

    def visits_of(self, tenant: str | None) -> frozenset[UUID]:
        """The visits that run, of one tenant or of all."""
        return frozenset(
            visit.id for visit in self._visits.values() if tenant is None or visit.tenant == tenant
        )

    def runs_at(self, visit: UUID) -> int | None:
        """The worker that runs a visit of this id; None where none runs."""
        found = self._visits.get(self._numbers.get(visit, 0))
        return None if found is None else found.worker

    def open_legs(self, tenant: str | None = None) -> int:
        """Calls that run, of one tenant or of all."""
        return sum(tenant is None or leg.tenant == tenant for leg in self._legs.values())
