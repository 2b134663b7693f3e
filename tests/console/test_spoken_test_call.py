"""A test call on recorded speech: two browsers, their microphones, the local model; and its review."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest
from playwright.async_api import expect

from bridge.demo.stage import stage_settings
from bridge.service import Service
from tests.chromium import PHONE, Chromium
from tests.console.login import log_in, operator
from tests.console.microphone import microphone

pytestmark = [pytest.mark.chromium, pytest.mark.timeout(600)]

LONGEST_MS = 300_000
"""Of the visit: recognition takes long where other tests run beside it."""


async def test_a_spoken_test_call_comes_to_a_decision_and_is_reviewed(
    chromium: Chromium, tmp_path: Path
) -> None:
    """The visitor says once in half a minute who they are; the resident, when the briefing is long over."""
    julia = microphone(tmp_path / "julia.wav", 9.0, "v05-leticia", 18.0)
    fernanda = microphone(tmp_path / "fernanda.wav", 20.0, "r08-leticia", 10.0)
    staged = stage_settings(tmp_path / "data")
    settings = staged.model_copy(update={"service": staged.service.model_copy(update={"http_port": 0})})
    with (tmp_path / "model.log").open("w") as log:
        service = Service(settings, model_log=log)
        await service.start()
        try:
            await operator(service, role="reviewer", tenant="demo")
            visitor = await chromium.page(julia, repeat=True)
            resident = await chromium.page(fernanda, PHONE, repeat=True)
            await log_in(visitor, service, then="/console/test-call")
            await visitor.locator("form.card button.primary").click()
            await visitor.wait_for_url("**/console/test-call/*-*")
            visit = UUID(visitor.url.rpartition("/")[2])
            await log_in(resident, service, then=f"/console/test-call/{visit}/resident")

            await visitor.locator("#start").click()
            await expect(resident.locator("#status")).to_have_text("Tocando", timeout=LONGEST_MS)
            await resident.locator("#start").click()
            telephone = visitor.locator("#telephone")
            await expect(telephone).to_have_attribute("data-status", "over", timeout=LONGEST_MS)
            said = await visitor.locator("#said").inner_text()
            assert await telephone.get_attribute("data-outcome") == "authorized", said
            assert "Fernanda Souza" in said and "201" in said

            assert await service.visit_over(visit, 30)
            await visitor.locator("#after a").first.click()
            await visitor.wait_for_url(f"**/console/visits/{visit}")
            await expect(visitor.locator("main")).to_contain_text("Fernanda Souza")
            await expect(visitor.locator("main")).to_contain_text("Autorizada")
            assert await service.storage.verify() == []
        finally:
            await service.stop()
