"""Visits by chance with all providers while they break; `python -m tests.chaos --visits 1000` plays more."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.chaos.visits import VENDORS, run
from visits.consent import Reading

pytestmark = pytest.mark.timeout(300)


async def test_no_fault_of_a_provider_opens_a_gate_or_leaves_anything_behind(tmp_path: Path) -> None:
    with (tmp_path / "model.log").open("w") as log:
        found = await run(6 * (len(VENDORS) + 1), 7, tmp_path, log=log)
    assert found.faults == []
    assert sum(found.outcomes.values()) == 6 * (len(VENDORS) + 1)
    assert found.opened and found.losses and len(found.troubles) > 10, "nothing was tried"


async def test_a_visit_that_takes_anything_for_consent_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What watches the visits can see."""
    monkeypatch.setattr("visits.visit.classify", lambda text: Reading.CONSENT)
    with (tmp_path / "model.log").open("w") as log:
        async with asyncio.timeout(200):
            found = await run(4 * (len(VENDORS) + 1), 3, tmp_path, log=log)
    assert any("rule 4" in fault for fault in found.faults), found.outcomes
