"""The vendors, one after the other, and whether the tables are to be written."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tests.conformance.stage import Stage
from tests.conformance.stages import STAGES


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-table", action="store_true", help="write the tables of docs/providers.md")


@pytest.fixture(params=STAGES, ids=[stage.name for stage in STAGES])
def vendor(request: pytest.FixtureRequest) -> type[Stage]:
    """Each vendor."""
    found: type[Stage] = request.param
    return found


@pytest.fixture(scope="session", autouse=True)
def nothing_old_is_collected() -> Iterator[None]:
    """Each test collects its own garbage, and not what the vendors' SDKs have brought along."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
