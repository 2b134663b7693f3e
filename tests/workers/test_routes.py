"""Which worker a call belongs to, after anything that can happen, against a model of everything."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID, uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bridge.workers.routes import Routes, RoutesError

WORKERS = (1, 2, 3)
TENANTS = ("jardim", "bosque")


@dataclass
class KnownVisit:
    id: UUID
    number: int
    worker: int
    tenant: str
    attempts: list[UUID] = field(default_factory=list)


class RoutesMachine(RuleBasedStateMachine):
    """Workers come and go, calls come and end, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.routes = Routes()
        self.workers: set[int] = set()
        self.visits: list[KnownVisit] = []
        self.legs: dict[int, tuple[int, str]] = {}
        self.coming: dict[UUID, int] = {}
        """Visits that are to begin, and the workers that expect them."""
        self.past: list[UUID] = []
        """Ids that nobody expects any more, or never did."""

    @rule(worker=st.sampled_from(WORKERS))
    def a_worker_joins(self, worker: int) -> None:
        self.routes.joined(worker)
        self.workers.add(worker)

    @rule(worker=st.sampled_from(WORKERS))
    def a_worker_takes_no_more(self, worker: int) -> None:
        self.routes.left(worker)
        self._takes_no_more(worker)

    def _takes_no_more(self, worker: int) -> None:
        self.workers.discard(worker)
        self.coming = {visit: owner for visit, owner in self.coming.items() if owner != worker}

    def _fewest(self) -> set[int]:
        owners = [*(owner for owner, _ in self.legs.values()), *self.coming.values()]
        counts = {each: owners.count(each) for each in self.workers}
        return {each for each, many in counts.items() if many == min(counts.values())}

    @rule()
    def a_visit_is_to_come(self) -> None:
        visit = uuid4()
        fewest = self._fewest()
        worker = self.routes.coming(visit)
        assert worker in fewest if fewest else worker is None
        if worker is not None:
            self.coming[visit] = worker
            assert self.routes.coming(visit) == worker, "who expects it goes on to"

    @precondition(lambda self: self.coming)
    @rule(data=st.data(), tenant=st.sampled_from(TENANTS))
    def it_comes(self, data: st.DataObject, tenant: str) -> None:
        visit = data.draw(st.sampled_from(sorted(self.coming)))
        worker = self.coming.pop(visit)
        assert self.routes.for_visitor(visit) == worker
        number = self.routes.visitor(worker, tenant, visit)
        self.visits.append(KnownVisit(visit, number, worker, tenant))
        self.legs[number] = worker, tenant

    @precondition(lambda self: self.coming)
    @rule(data=st.data())
    def it_does_not_come(self, data: st.DataObject) -> None:
        visit = data.draw(st.sampled_from(sorted(self.coming)))
        del self.coming[visit]
        self.routes.not_coming(visit)

    @rule(worker=st.sampled_from(WORKERS))
    def a_worker_is_lost(self, worker: int) -> None:
        gone = [visit for visit in self.visits if visit.worker == worker]
        assert self.routes.lost(worker) == [visit.id for visit in gone]
        self._takes_no_more(worker)
        self.visits = [visit for visit in self.visits if visit.worker != worker]
        self.legs = {number: leg for number, leg in self.legs.items() if leg[0] != worker}
        self.past += [each for visit in gone for each in (visit.id, *visit.attempts)]

    @rule(tenant=st.sampled_from(TENANTS))
    def a_visitor_comes(self, tenant: str) -> None:
        visit, fewest = uuid4(), self._fewest()
        worker = self.routes.for_visitor(visit)
        if worker is None:
            assert not fewest
            return
        assert worker in fewest
        number = self.routes.visitor(worker, tenant, visit)
        assert number not in self.legs and all(number != each.number for each in self.visits)
        self.visits.append(KnownVisit(visit, number, worker, tenant))
        self.legs[number] = worker, tenant

    @precondition(lambda self: self.visits)
    @rule(data=st.data())
    def a_second_visit_of_an_id_is_refused(self, data: st.DataObject) -> None:
        visit = data.draw(st.sampled_from(self.visits))
        with pytest.raises(RoutesError):
            self.routes.visitor(visit.worker, visit.tenant, visit.id)

    @precondition(lambda self: self.visits)
    @rule(data=st.data())
    def a_resident_is_dialled(self, data: st.DataObject) -> None:
        visit = data.draw(st.sampled_from(self.visits))
        attempt = uuid4()
        self.routes.expects(visit.worker, visit.id, attempt)
        visit.attempts.append(attempt)

    @precondition(lambda self: self.visits)
    @rule(data=st.data(), worker=st.sampled_from(WORKERS))
    def nobody_speaks_of_anothers_visit(self, data: st.DataObject, worker: int) -> None:
        visit = data.draw(st.sampled_from(self.visits))
        if worker != visit.worker:
            with pytest.raises(RoutesError):
                self.routes.expects(worker, visit.id, uuid4())
            with pytest.raises(RoutesError):
                self.routes.visit_over(worker, visit.number)

    @precondition(lambda self: len(self.visits) > 1)
    @rule(data=st.data())
    def an_attempt_is_one_visits_alone(self, data: st.DataObject) -> None:
        one, other = data.draw(st.permutations(self.visits))[:2]
        for taken in (one.id, *one.attempts):
            with pytest.raises(RoutesError):
                self.routes.expects(other.worker, other.id, taken)

    @precondition(lambda self: self.visits)
    @rule(data=st.data())
    def a_resident_comes(self, data: st.DataObject) -> None:
        visit = data.draw(st.sampled_from(self.visits))
        came = data.draw(st.sampled_from([visit.id, *visit.attempts]))
        worker = self.routes.owner(visit.tenant, came)
        assert worker == visit.worker
        if worker not in self.workers:
            with pytest.raises(RoutesError):
                self.routes.resident(worker, visit.tenant)
            return
        self.legs[self.routes.resident(worker, visit.tenant)] = worker, visit.tenant

    @precondition(lambda self: self.legs)
    @rule(data=st.data(), worker=st.sampled_from(WORKERS))
    def a_call_ends(self, data: st.DataObject, worker: int) -> None:
        number = data.draw(st.sampled_from(sorted(self.legs)))
        if worker != self.legs[number][0]:
            with pytest.raises(RoutesError):
                self.routes.leg_gone(worker, number)
            return
        self.routes.leg_gone(worker, number)
        del self.legs[number]
        with pytest.raises(RoutesError):
            self.routes.leg_gone(worker, number)

    @precondition(lambda self: self.visits)
    @rule(data=st.data())
    def a_visit_ends(self, data: st.DataObject) -> None:
        visit = data.draw(st.sampled_from(self.visits))
        self.routes.visit_over(visit.worker, visit.number)
        self.visits.remove(visit)
        self.past += [visit.id, *visit.attempts]
        with pytest.raises(RoutesError):
            self.routes.visit_over(visit.worker, visit.number)

    @invariant()
    def every_id_leads_to_its_visit_and_no_further(self) -> None:
        for visit in self.visits:
            for came in (visit.id, *visit.attempts):
                for tenant in TENANTS:
                    expected = visit.worker if tenant == visit.tenant else None
                    assert self.routes.owner(tenant, came) == expected
        for came in (*self.past, uuid4()):
            assert [self.routes.owner(tenant, came) for tenant in TENANTS] == [None, None]
            assert not self.routes.runs(came)

    @invariant()
    def the_counts_are_right(self) -> None:
        assert self.routes.workers == len(self.workers)
        assert self.routes.visits == len(self.visits)
        assert self.routes.open_legs() == len(self.legs)
        for tenant in TENANTS:
            assert self.routes.open_legs(tenant) == sum(owner == tenant for _, owner in self.legs.values())


TestRoutes = RoutesMachine.TestCase
TestRoutes.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_a_worker_that_is_not_there_gets_no_call() -> None:
    with pytest.raises(RoutesError, match="worker 1"):
        Routes().resident(1, "jardim")
    with pytest.raises(RoutesError, match="worker 1"):
        Routes().visitor(1, "jardim", uuid4())
