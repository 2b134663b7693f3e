"""What visits come to, on both databases: held against the same counted by hand."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from itertools import pairwise

from storage.figures import stretches
from storage.store import SqlStorage
from tests.storage.test_store import START, Visit
from visits.audit import stamp


async def visit(storage: SqlStorage, tenant: str, hours: float, outcome: str, *responses: float) -> None:
    one = await Visit(storage, tenant, START + timedelta(hours=hours)).begin()
    for number, response_ms in enumerate(responses):
        turn = {"leg": "visitor", "text": "Bom dia", "started_ms": number, "ended_ms": number + 1}
        await one.write("turn", speaker="agent", response_ms=response_ms, **turn)
        await one.write("turn", speaker="caller", response_ms=9999.0, **turn)
    cost = {"amount": "0.25", "currency": "BRL", "usd": "0.05", "final": True, "complete": True}
    await one.write("visit.cost", unknown=[], usage=[], **cost)
    if outcome:
        await one.write("visit.ended", outcome=outcome)


async def test_figures_are_what_the_visits_come_to(storage: SqlStorage) -> None:
    await visit(storage, "jardim", 0, "authorized", 610.0, 619.9, 1234.0)
    await visit(storage, "jardim", 0.2, "authorized", 615.0)
    await visit(storage, "jardim", 30, "denied")
    await visit(storage, "jardim", 31, "")
    await visit(storage, "ipe", 0, "failed", 300.0)
    await visit(storage, "jardim", 100, "denied", 300.0)
    since, until = stamp(START - timedelta(hours=1)), stamp(START + timedelta(hours=48))

    figures = await storage.figures(("jardim",), since, until)
    assert dict(figures.visits) == {
        ("2026-11-21T13", "authorized"): 2,
        ("2026-11-22T19", "denied"): 1,
        ("2026-11-22T20", ""): 1,
    }
    assert figures.costs["2026-11-21T13", "BRL"] == Decimal("0.5")
    (responses,) = figures.responses.values()
    # Where one is on the edge of a stretch the databases may round it either way.
    assert sum(responses.values()) == 4 and responses[1220] == 1 and set(responses) <= {600, 620, 1220}

    everybody = await storage.figures(None, since, until)
    assert everybody.visits["2026-11-21T13", "failed"] == 1
    assert sum(everybody.visits.values()) == 5
    assert not (await storage.figures((), since, until)).visits


def test_stretches_leave_nothing_out_and_count_nothing_twice() -> None:
    since, until = stamp(START), stamp(START + timedelta(hours=31, seconds=5))
    parts = list(stretches(since, until))
    assert (parts[0][0], parts[-1][1]) == (since, until)
    assert all(end == begin for (_, end), (begin, _) in pairwise(parts))
