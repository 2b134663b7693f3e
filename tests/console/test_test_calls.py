"""Test calls from a real browser: one plays the visitor, in another tab the resident; no real gate moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from playwright.async_api import Page, expect

from tests.chromium import PHONE, Chromium
from tests.console.login import log_in, operator
from tests.console.microphone import microphone
from tests.service.doorman import AGREES, ASKS, Cast, Part
from tests.service.household import Household, household, with_cast

pytestmark = [pytest.mark.chromium, pytest.mark.timeout(300)]

PART = Part(ASKS, AGREES)
REAL_GATE = {"kind": "http", "url": "http://127.0.0.1:9/open"}
"""Whoever asked it would be told that it did not open."""


async def _prepare(page: Page, resident: str) -> UUID:
    """Choose who answers, and come to the visitor's telephone; the visit's id."""
    await page.locator(f"input[name=resident][value={resident}]").check()
    await page.locator("form.card button.primary").click()
    await page.wait_for_url("**/console/test-call/*-*")
    return UUID(page.url.rpartition("/")[2])


async def _ended(page: Page, status: str = "over") -> dict[str, str]:
    """Wait until a telephone's call is over; what its page holds of the visit."""
    await expect(page.locator("#telephone")).to_have_attribute("data-status", status, timeout=90_000)
    data: dict[str, str] = await page.locator("#telephone").evaluate("each => ({...each.dataset})")
    return data


async def _checked(house: Household, visit: UUID, by: str) -> list[Any]:
    """The visit's records, which say that it was a test; nothing real was asked."""
    assert await house.service.visit_over(visit, 20)
    records = await house.records(visit)
    started = records[0].data
    assert (started["test"], started["tested_by"]) == (True, by)
    assert house.orders == []  # the tenant's own dialer
    for each in records:
        if each.kind == "gate.requested":
            assert each.data["gate"] == "record"
    return records


async def test_visitor_and_resident_in_two_tabs(chromium: Chromium, tmp_path: Path) -> None:
    asks = microphone(tmp_path / "asks.wav", 5.0, "v06-leticia")
    agrees = microphone(tmp_path / "agrees.wav", 14.0, "r08-leticia")  # the briefing takes ten seconds
    async with Cast(PART) as cast:
        tenant = with_cast(cast, gate=REAL_GATE, recording={"enabled": True})
        async with household(tmp_path / "data", {"jardim": tenant}, http_port=0) as house:
            await operator(house.service)
            visitor, resident = await chromium.page(asks), await chromium.page(agrees)
            await log_in(visitor, house.service, then="/console/test-call")
            visit = await _prepare(visitor, "browser")
            other_tab = visitor.get_by_role("link", name="Abrir o telefone do morador")
            await log_in(resident, house.service, then=str(await other_tab.get_attribute("href")))
            await expect(resident.locator("#status")).to_have_text("No gancho")
            await expect(resident.locator("#start")).to_be_disabled()

            await visitor.locator("#start").click()
            await expect(visitor.locator("#status")).to_have_text("Em conversa")
            await expect(resident.locator("#status")).to_have_text("Tocando", timeout=60_000)
            await resident.locator("#start").click()
            await expect(resident.locator("#status")).to_have_text("Em conversa")

            told = await _ended(visitor)
            assert (told["decision"], told["outcome"]) == ("authorized", "authorized")
            await _ended(resident)
            said = await visitor.locator("#said li").all_inner_texts()
            assert any("Visitante" in each and "Oi, tudo bem?" in each for each in said)
            assert any("Morador" in each and "Pode liberar." in each for each in said)
            happened = await visitor.locator("#happened").inner_text()
            assert "call_resident" in happened and "Decisão: autorizada" in happened
            assert "Abertura do portão registrada (teste)" in happened
            await expect(visitor.locator("#after a").first).to_have_attribute(
                "href", f"/console/visits/{visit}"
            )
            records = await _checked(house, visit, "operator:ana")
            legs = [each.data for each in records if each.kind == "leg.connected"]
            assert [(leg["role"], leg["endpoint"]) for leg in legs] == [
                ("visitor", "browser"),
                ("resident", "browser"),
            ]
            assert (await house.outcome(visit))[0::2] == ("authorized", True)


@pytest.mark.parametrize(
    ("resident", "policy", "outcome"),
    [
        ("authorizes", "voice", "authorized"),
        ("authorizes", "key", "authorized"),
        ("no_answer", "voice", "unreachable"),
    ],
)
async def test_a_resident_who_is_played(
    resident: str, policy: str, outcome: str, chromium: Chromium, tmp_path: Path
) -> None:
    asks = microphone(tmp_path / "asks.wav", 5.0, "v06-leticia")
    async with Cast(PART) as cast:
        tenant = with_cast(
            cast,
            gate=REAL_GATE,
            limits={"ring_s": 5.0, "dial_attempts": 1},
            consent={"policy": policy},
        )
        async with household(tmp_path / "data", {"jardim": tenant}, http_port=0) as house:
            await operator(house.service, role="reviewer", tenant="jardim")
            page = await chromium.page(asks, PHONE)
            await log_in(page, house.service, then="/console/test-call")
            visit = await _prepare(page, resident)
            await page.locator("#start").click()
            assert (await _ended(page))["outcome"] == outcome
            records = await _checked(house, visit, "operator:ana")
            legs = [each.data["endpoint"] for each in records if each.kind == "leg.connected"]
            evidence = [each.data["by"] for each in records if each.kind == "evidence"]
            assert evidence == ([policy] if resident == "authorizes" else [])
            await page.goto(f"http://127.0.0.1:{house.service.http_port}/console/visits/{visit}")
            assert "Chamada de teste de" in await page.locator("main").inner_text()
            assert legs == ["browser", "simulated"][: len(legs)] and len(legs) == (
                2 if resident == "authorizes" else 1
            )
