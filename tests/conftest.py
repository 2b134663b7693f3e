"""Holds for every test: in CI a skipped test is a failed one.

On a bare machine everything that a test needs is installed by `make test` itself, so whatever skips there
hides a hole. Only a test marked `platform`, which some systems can't run at all, may.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.ports import free_ports

if TYPE_CHECKING:
    from tests.chromium import Chromium
    from tests.postgres import Postgres

# As the service has it (bridge/__init__.py), for those tests too that import nothing of bridge/ before numpy.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Groups of tests run beside each other: that examples are drawn slowly says nothing of what is tested.
settings.register_profile("porteiro", parent=settings(), suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("porteiro")


@pytest.fixture
def provider_there(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A provider that takes the sessions of the tenant `jardim`, as its settings are loaded."""
    from tests.simulators.openai_realtime import Simulator
    from tests.simulators.threads import in_thread

    with in_thread(Simulator()) as server:
        monkeypatch.setenv("PORTEIRO_TENANTS__JARDIM__BASE_URL", server.url)
        yield


@pytest.fixture
def own_ports(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Free ports for settings that name none: a Porteiro may run on this machine's default ones."""
    ports = dict(zip(("visitor_port", "resident_port", "http_port"), free_ports(3), strict=True))
    for name, port in ports.items():
        monkeypatch.setenv(f"PORTEIRO_SERVICE__{name.upper()}", str(port))
    return ports


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL for the whole session; nobody stops it before the end."""
    from tests.postgres import NoPostgres, Postgres

    try:
        server = Postgres()
    except NoPostgres as error:
        pytest.skip(str(error))
    try:
        server.start()
        with ThreadPoolExecutor(1) as pool:  # whoever asks first may be in an event loop already
            pool.submit(lambda: asyncio.run(server.make_template())).result()
        yield server
    finally:
        server.stop()


@pytest.fixture
async def own_postgres() -> AsyncIterator[Postgres]:
    """A PostgreSQL of the test's own, to be stopped and started."""
    from tests.postgres import NoPostgres, Postgres

    try:
        server = await asyncio.to_thread(Postgres)
    except NoPostgres as error:
        pytest.skip(str(error))
    try:
        await asyncio.to_thread(server.start)
        await server.make_template()
        yield server
    finally:
        await asyncio.to_thread(server.stop)


@pytest.fixture
async def postgres_url(postgres: Postgres) -> str:
    """A new, empty database of the newest schema."""
    return await postgres.make()


@pytest.fixture
async def chromium() -> AsyncIterator[Chromium]:
    """A real Chromium; what its pages complain of fails the test."""
    from tests.chromium import Chromium, NoChromium

    try:
        made = await asyncio.to_thread(Chromium)
    except NoChromium as error:
        pytest.skip(str(error))
    async with made:
        yield made


def _skips_fail() -> bool:
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


def _why(report: pytest.TestReport | pytest.CollectReport) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return f"A skip counts as a failure in CI, unless the test is marked `platform`. {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    expected_to_fail = hasattr(report, "wasxfail")
    if report.skipped and _skips_fail() and not expected_to_fail and not item.get_closest_marker("platform"):
        report.longrepr = _why(report)
        report.outcome = "failed"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A module that skips itself whole (`importorskip`)."""
    report = yield
    if report.skipped and _skips_fail():
        report.longrepr = _why(report)
        report.outcome = "failed"
    return report
