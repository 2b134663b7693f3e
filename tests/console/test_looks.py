"""The style sheet: small, readable in both schemes, and kept by browsers for good."""

from __future__ import annotations

import re
from pathlib import Path

import httpx2
import pytest
from starlette.applications import Starlette

from bridge.http.console import assets
from bridge.http.console.assets import FOR_GOOD, Assets
from bridge.http.problems import Problem, of_problem

STATIC = Path(assets.__file__).parent / "static"
CSS = (STATIC / "console.css").read_text()
PAIRS = [
    *((ink, ground) for ink in ("ink", "muted", "accent") for ground in ("ground", "card", "sunken")),
    *(
        (kind, ground)
        for kind in ("good", "bad", "warn", "info", "calm")
        for ground in (f"{kind}-soft", "card")
    ),
    ("accent", "accent-soft"),
    ("on-accent", "accent"),
]
AA = 4.5
AA_OF_EDGES = 3.0
"""WCAG 2.2, 1.4.3 and 1.4.11."""


def colours(scheme: str) -> dict[str, str]:
    light, dark = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
    named = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", light))
    return named if scheme == "light" else {**named, **dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", dark))}


def luminance(colour: str) -> float:
    """https://www.w3.org/TR/WCAG22/#dfn-relative-luminance."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read(scheme: str) -> None:
    named = colours(scheme)
    weak = [(a, b, contrast(named[a], named[b])) for a, b in PAIRS if contrast(named[a], named[b]) < AA]
    assert weak == []
    assert contrast(named["strong-line"], named["card"]) >= AA_OF_EDGES


def test_the_style_sheet_is_small() -> None:
    assert len(CSS.encode()) < 25_000


def sent(files: Assets) -> Starlette:
    return Starlette(routes=files.routes(), exception_handlers={Problem: of_problem})


async def test_a_file_is_kept_for_good_under_its_own_digest_only() -> None:
    files = Assets()
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=sent(files)), base_url="http://console"
    ) as client:
        path = files.path("console.css").removeprefix("/console")
        answer = await client.get(path)
        assert (answer.status_code, answer.headers["cache-control"]) == (200, FOR_GOOD)
        assert answer.headers["content-type"] == "text/css; charset=utf-8"
        old = await client.get("/static/0123456789abcdef/console.css")
        assert (old.status_code, old.headers["cache-control"]) == (200, "no-cache")


@pytest.mark.parametrize(
    "name", ["missing.css", "..%2fpage.py", "%2e%2e/page.py", "page.py", "console.css%00"]
)
async def test_nothing_but_the_files_is_sent(name: str) -> None:
    transport = httpx2.ASGITransport(app=sent(Assets()))
    async with httpx2.AsyncClient(transport=transport, base_url="http://console") as client:
        assert (await client.get(f"/static/0123456789abcdef/{name}")).status_code >= 400


def test_every_colour_that_is_used_has_a_name() -> None:
    assert set(re.findall(r"var\(--([\w-]+)\)", CSS)) <= set(re.findall(r"--([\w-]+):", CSS))
