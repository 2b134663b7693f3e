"""Visits by chance with all providers while they break; `python -m tests.chaos --visits 1000` plays more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.visits import VENDORS, run
from tests.visits.judged import Judged
from tests.visits.visit_stage import Stage
from visits.consent import Reading

pytestmark = pytest.mark.timeout(300)


async def test_no_fault_of_a_provider_opens_a_gate_or_leaves_anything_behind(tmp_path: Path) -> None:
    with (tmp_path / "model.log").open("w") as log:
        found = await run(6 * (len(VENDORS) + 1), 7, tmp_path, log=log, at_a_time=8)
    assert found.faults == []
    assert sum(found.outcomes.values()) == 6 * (len(VENDORS) + 1)
    assert found.opened and found.losses and len(found.troubles) > 10, "nothing was tried"


@pytest.mark.parametrize(("says", "rule"), [("Quem é?", "rule 4"), ("Não pode entrar.", "rule 4")])
def test_a_visit_that_takes_anything_for_consent_is_found_out(
    says: str, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What watches the visits can see."""
    found: dict[str, Judged] = {}
    monkeypatch.setattr("tests.visits.visit_stage.Visit", Judged.kept_in(found))
    monkeypatch.setattr("visits.visit.classify", lambda text: Reading.CONSENT)
    stage = Stage.briefed()
    stage.says(says)
    stage.authorize()
    assert stage.opened
    (judged,) = found.values()
    assert [fault for fault in judged.faults if fault.startswith(rule)]


def test_a_visit_as_it_should_be_is_not() -> None:
    found: dict[str, Judged] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.visits.visit_stage.Visit", Judged.kept_in(found))
        assert Stage.authorized().opened
    (judged,) = found.values()
    assert judged.faults == [] and judged.oracle.orders == 1
