"""Operators of the console, and how they log in."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from playwright.async_api import Page

from bridge.passwords import hashed
from bridge.service import Service
from storage.catalogue import Role
from visits.audit import stamp

PASSWORD = "uma frase que ninguém adivinha"


async def operator(
    service: Service,
    login: str = "ana",
    role: Role = "admin",
    tenant: str | None = None,
    name: str = "Ana Lima",
) -> str:
    """Add an operator; the login."""
    kept = await asyncio.to_thread(hashed, PASSWORD)
    await service.catalogue.add_operator(
        login,
        name=name,
        password_hash=kept,
        role=role,
        tenant=tenant,
        by="tests",
        at=stamp(datetime.now(UTC)),
    )
    return login


async def log_in(page: Page, service: Service, login: str = "ana", then: str = "/console/") -> None:
    """Log in by the form, and go on to a page."""
    await page.goto(f"http://127.0.0.1:{service.http_port}/console/login?next={then}")
    await page.locator("input[name=name]").fill(login)
    await page.locator("input[name=password]").fill(PASSWORD)
    await page.locator("form button").filter(has_text="Entrar").click()
    await page.wait_for_url(f"**{then}")
