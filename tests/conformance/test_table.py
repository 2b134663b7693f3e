"""The tables of docs/providers.md are the ones that this very run gives."""

from __future__ import annotations

import pytest

from tests.conformance.stages import STAGES
from tests.conformance.table import ABILITIES, COMMON, DOCUMENT, FAULTS, missing, renewed


def test_what_a_stage_declares_is_a_row_of_the_tables() -> None:
    rows = {*ABILITIES, *FAULTS}
    for stage in STAGES:
        assert {*stage.emulated, *stage.beyond, *COMMON} <= rows, stage.name
        assert not {*stage.emulated} & {*stage.beyond}, stage.name


def test_the_documented_tables_are_current(request: pytest.FixtureRequest) -> None:
    if left_out := missing(STAGES):
        pytest.skip(f"only a part of the suite was run: nothing is known of {left_out[0]}")
    document = DOCUMENT.read_text(encoding="utf-8")
    if request.config.getoption("--write-table", default=False):
        DOCUMENT.write_text(renewed(document, STAGES), encoding="utf-8")
    else:
        assert document == renewed(document, STAGES), "run `make conformance`"
