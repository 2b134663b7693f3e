"""Pictures of the console's pages for docs/console.md: a real service, demo visits, a real Chromium.

    python -m setup.screenshots [NAME …]

Three visits are played on recorded speech through the local model; a fourth runs while the live page is
taken. Each page is taken as a desk has it and as a telephone has it. All of it takes about four minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO

from playwright.async_api import Page

from bridge.demo.script import step
from bridge.demo.stage import DATA, TENANT, Cast, Stage
from bridge.dialing.simulated import Answers
from bridge.http.access import digest, new_key
from bridge.service import Service
from bridge.settings import Settings, Written
from setup.png import smaller
from storage.catalogue import KeyRole
from tests.chromium import DESKTOP, PHONE, Chromium
from tests.console.login import log_in, operator
from tests.console.microphone import microphone
from visits.audit import stamp
from visits.directory import Directory
from visits.hours import read_hours
from visits.standing import StandingAuthorisation

ROOT: Final = Path(__file__).resolve().parent.parent
PICTURES: Final = ROOT / "docs" / "images" / "console"
STORED: Final = "mirante"
MOST_BYTES: Final = 150_000
TALLEST: Final = {"desktop": 1600, "phone": 1500}
"""CSS pixels; what a page has below that is cut off."""
SIZES: Final = {"desktop": DESKTOP, "phone": PHONE}


@dataclass(frozen=True)
class Shot:
    """One page.

    Attributes:
        path: below `/console`; `{visit}` stands for the visit that was authorized.
        ready: what must be on the page before it is taken.
    """

    name: str
    path: str
    ready: str = "main"


SHOTS: Final = (
    Shot("visits", "/visits"),
    Shot("visit", "/visits/{visit}"),
    Shot("erasure", "/erasure?visit={visit}"),
    Shot("charts", "/charts"),
    Shot("audit", "/audit"),
    Shot("tenants", "/tenants"),
    Shot("tenant", "/tenants/{stored}"),
    Shot("tenant-history", "/tenants/{stored}/history"),
    Shot("directory", "/tenants/{stored}/directory"),
    Shot("directory-import", "/tenants/{stored}/directory/import"),
    Shot("operators", "/operators"),
    Shot("keys", "/keys"),
    Shot("account", "/account"),
    Shot("test-call", "/test-call"),
)


OF_VISITS: Final = ("live", "visits", "visit", "erasure", "charts", "audit")
"""Pages that show visits, which are played before."""


def _settings(data: Path) -> Settings:
    """The demo's tenant, and two beside it that nobody calls."""
    usual: dict[str, Any] = {
        "directory": str(DATA / "apartamentos.json"),
        "recording": {"enabled": True},
        "limits": {"ring_s": 8.0},
        "dialer": {"kind": "simulated"},
    }
    names = {
        TENANT: "Condomínio Jardim das Flores",
        "lago": "Residencial Lago Azul",
        "torre": "Edifício Torre do Parque",
    }
    tree = {
        "service": {
            "data_dir": str(data),
            "visitor_port": 0,
            "resident_port": 0,
            "listen": ["127.0.0.1"],
            "http_port": 0,
        },
        "tenants": {id: usual | {"name": name} for id, name in names.items()},
    }
    return Written(tree, source="porteiro.toml", base=ROOT, environ=os.environ).checked()


def _cast(visitor: Sequence[str], resident: Sequence[str] = (), answers: Answers = Answers.YES) -> Cast:
    def steps(names: Sequence[str]) -> list[Any]:
        return [step(str(DATA / "audio" / f"{name}.wav")) for name in names]

    return Cast(steps(visitor), steps(resident), answers)


async def _furnish(service: Service) -> str:
    """A tenant in the database, with versions, a directory and somebody who is expected; its id."""
    catalogue, by = service.catalogue, "operator:ana"

    def at() -> str:
        return stamp(datetime.now(UTC))

    content: dict[str, Any] = {
        "name": "Residencial Mirante da Serra",
        "numbers": ["4004"],
        "recording": {"enabled": True},
        "prompt_extra": "As entregas ficam na guarita depois das 22 horas.",
    }
    first = await catalogue.put_tenant(STORED, content, expected=None, by=by, at=at())
    content["limits"] = {"ring_s": 30.0, "dial_attempts": 3}
    await catalogue.put_tenant(STORED, content, expected=first.version, by=by, at=at())
    apartments = json.loads((DATA / "apartamentos.json").read_bytes())
    known = Directory.from_records(apartments).apartments
    version = await catalogue.replace_directory(
        STORED, known, expected=None, by=by, at=at(), source="moradores.xlsx"
    )
    cleaner = StandingAuthorisation("Rosa, diarista", days=frozenset({1, 3}), hours=read_hours("08:00-17:00"))
    await catalogue.put_standing(STORED, known[0].label, cleaner, expected=version, by=by, at=at())
    keys: tuple[tuple[str, KeyRole, str | None], ...] = (
        ("Central telefônica", "pbx", None),
        ("Relatório mensal da administradora", "viewer", STORED),
    )
    for name, role, tenant in keys:
        id, secret = new_key()
        await catalogue.add_key(
            id,
            digest(secret),
            name=name,
            role=role,
            scopes=None,
            tenant=tenant,
            expires_at=None,
            by=by,
            at=at(),
        )
    await service.tenancy.reload()
    return STORED


async def _play(stage: Stage) -> dict[str, str]:
    """The visits that the pictures show; the id of the one that was authorized."""
    casts = (
        _cast(("v05-leticia",), ("r15-leticia",)),
        _cast(("v05-leticia",), ("r04-leticia",)),
        _cast(("v02-grave", "v03-grave"), (), Answers.NO),
    )
    told = await asyncio.gather(*(stage.play(cast) for cast in casts))
    opened = next(each["visit_id"] for each in told if each["outcome"] == "authorized")
    return {"visit": str(opened)}


class Studio:
    """Takes the pictures."""

    def __init__(self, service: Service, wanted: Sequence[str]) -> None:
        self._service = service
        self._wanted = wanted
        self._failed: list[str] = []

    def wants(self, name: str) -> bool:
        """Whether this one was asked for."""
        return not self._wanted or name in self._wanted

    async def take(self, page: Page, name: str, size: str) -> None:
        """The page as it stands now."""
        height = await page.evaluate("document.documentElement.scrollHeight")
        width, usual = SIZES[size]
        # The window becomes as tall: else what keeps to its edge would stand in the middle of the picture.
        await page.set_viewport_size({"width": width, "height": max(usual, min(height, TALLEST[size]))})
        png = await asyncio.to_thread(smaller, await page.screenshot(animations="disabled"))
        await page.set_viewport_size({"width": width, "height": usual})
        file = PICTURES / f"{name}-{size}.png"
        file.write_bytes(png)
        print(f"{file.relative_to(ROOT)}: {len(png) / 1000:.0f} kB")
        if len(png) > MOST_BYTES:
            self._failed.append(f"{file.name} has {len(png)} bytes; allowed are {MOST_BYTES}")

    async def pages(self, page: Page, size: str, values: dict[str, str]) -> None:
        """All pages that stand still."""
        for shot in SHOTS:
            if not self.wants(shot.name):
                continue
            answer = await page.goto(self.url(shot.path.format(**values)))
            if answer is None or answer.status != 200:
                self._failed.append(f"{shot.name}: answered {answer.status if answer else 'nothing'}")
                continue
            await page.locator(shot.ready).wait_for()
            await page.wait_for_load_state("networkidle")
            await self.take(page, shot.name, size)

    def url(self, path: str) -> str:
        """A page's address."""
        return f"http://127.0.0.1:{self._service.http_port}/console{path}"

    @property
    def failed(self) -> list[str]:
        """What went wrong."""
        return self._failed


@contextlib.asynccontextmanager
async def _running(stage: Stage) -> AsyncIterator[None]:
    """While a visit runs, and has come to some words."""
    cast = _cast(("v05-leticia",), ("r06-leticia", "r15-grave"))
    visit = asyncio.create_task(stage.play(cast))
    while not any(len(each.turns) >= 3 for each in stage.service.hub.running()):
        if visit.done():
            raise RuntimeError("the visit was over before it could be taken")
        await asyncio.sleep(0.1)
    try:
        yield
    finally:
        await visit


async def _test_call(studio: Studio, chromium: Chromium, home: Path) -> None:
    """The telephones of a test call, in mid-conversation."""
    speaks = microphone(home / "speaks.wav", 9.0, "v05-leticia", 30.0)
    page = await chromium.page(speaks, DESKTOP)
    await log_in(page, studio._service, then="/console/test-call")
    await page.locator("input[name=resident][value=browser]").check()
    await page.locator("form.card button.primary").click()
    await page.wait_for_url("**/console/test-call/*-*")
    resident = await chromium.page(microphone(home / "quiet.wav", 60.0), PHONE)
    await log_in(
        resident, studio._service, then=page.url.partition(str(studio._service.http_port))[2] + "/resident"
    )
    await page.locator("#start").click()
    await resident.locator("#telephone[data-status=ringing]").wait_for(timeout=120_000)
    await studio.take(resident, "test-call-resident", "phone")
    await resident.locator("#start").click()
    await page.locator("#said li", has_text="Morador").first.wait_for(timeout=60_000)
    await studio.take(page, "test-call-visitor", "desktop")
    await page.locator("#hang-up").click()
    await page.locator("#telephone[data-status=over]").wait_for(timeout=60_000)


async def _run(wanted: Sequence[str], log: TextIO) -> int:
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="porteiro-pictures-") as home:
        async with Stage(_settings(Path(home)), log=log) as stage, Chromium() as chromium:
            # A visit can be over before the live page asks for its card.
            chromium.expect(r"/console/live/.* 404 ")
            service = stage.service
            await operator(service)
            await operator(service, "bruno", "reviewer", TENANT, name="Bruno Tavares")
            studio = Studio(service, wanted)
            values = {"stored": await _furnish(service)}
            if any(map(studio.wants, OF_VISITS)):
                values |= await _play(stage)
            pages = {size: await chromium.page(size=SIZES[size]) for size in SIZES}
            for size, page in pages.items():
                await page.goto(studio.url("/login"))
                if studio.wants("login"):
                    await studio.take(page, "login", size)
                await log_in(page, service)
            if studio.wants("live"):
                async with _running(stage):
                    for size, page in pages.items():
                        await page.goto(studio.url("/"))
                        await page.locator("article.call").first.wait_for()
                        await page.wait_for_timeout(1500)
                        await studio.take(page, "live", size)
            for size, page in pages.items():
                await studio.pages(page, size, values)
            if studio.wants("test-call"):
                await _test_call(studio, chromium, Path(home))
            for each in studio.failed:
                print(f"screenshots: {each}", file=sys.stderr)
            return 1 if studio.failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="of the pages; none: all")
    names = parser.parse_args().names
    with open(os.devnull, "w") as log:
        return asyncio.run(_run(names, log))


if __name__ == "__main__":
    sys.exit(main())
