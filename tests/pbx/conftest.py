"""One Asterisk for all of a module's tests; its logs are kept in out/pbx where one of them fails."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from pathlib import Path

import pytest
import pytest_asyncio

from tests.pbx.asterisk import Asterisk
from tests.pbx.installation import Installation, find
from tests.pbx.phone import ATTENDANT, INTERCOM, Phone

KEEP = Path(__file__).resolve().parents[2] / "out" / "pbx"
_failed = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.session.stash[_failed] = True
        if item.parent is not None:
            item.parent.stash[_failed] = True
    return report


@pytest.fixture(scope="session")
def installation() -> Installation:
    """An Asterisk to run; found, or built once."""
    return find()


@pytest.fixture(scope="session")
def _kept() -> Path:
    """Where logs of failed runs go; what an earlier session left there is removed."""
    shutil.rmtree(KEEP, ignore_errors=True)
    KEEP.mkdir(parents=True)
    return KEEP


@pytest.fixture(scope="module")
def run_asterisk(
    installation: Installation, _kept: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Asterisk]]:
    """Starts an Asterisk with these of the dialplan's settings, and a site's own files by their names.

    It is stopped behind the module's last test.
    """
    running: list[Asterisk] = []

    def run(site: Mapping[str, str] | None = None, **settings: str) -> Asterisk:
        asterisk = Asterisk(installation, settings=settings, keep=_kept, site=site or {})
        asterisk.__enter__()
        running.append(asterisk)
        return asterisk

    yield run
    for asterisk in running:
        asterisk.failed |= request.node.stash.get(_failed, False)
        asterisk.__exit__()


@pytest_asyncio.fixture(loop_scope="module")
async def intercom(asterisk: Asterisk) -> AsyncIterator[Phone]:
    """The intercom's telephone, at the module's own `asterisk`."""
    async with Phone(asterisk.sip, *INTERCOM) as phone:
        yield phone


@pytest_asyncio.fixture(loop_scope="module")
async def attendant(asterisk: Asterisk) -> AsyncIterator[Phone]:
    """The attendant's telephone there, which is answered after half a second."""
    async with Phone(asterisk.sip, *ATTENDANT, codec="PCMU", after_s=0.5) as phone:
        yield phone
