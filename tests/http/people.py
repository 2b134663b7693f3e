"""A service with its HTTP API, and whoever asks it: keys and operators of each role."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import httpx2

from bridge.http.access import digest, new_key, whole_key
from bridge.passwords import hashed
from bridge.service import Service
from storage.catalogue import KeyRole, Role
from tests.service.household import settings
from visits.audit import stamp

PASSWORD = "café com pão de queijo"
HOUSE: dict[str, Any] = {
    "name": "Condomínio Bosque",
    "visitor_port": 0,
    "resident_port": 0,
    "provider": "local",
    "base_url": "ws://127.0.0.1:9",
    "dialer": {"kind": "simulated"},
    "limits": {"max_calls": 3},
}
"""A tenant's settings in the database."""


def now() -> str:
    """The time, as the catalogue takes it."""
    return stamp(datetime.now(UTC))


def in_s(seconds: float) -> str:
    """A time from now."""
    return stamp(datetime.now(UTC) + timedelta(seconds=seconds))


@cache
def password_hash() -> str:
    """What is kept of the password."""
    return hashed(PASSWORD)


async def make_key(
    service: Service,
    role: KeyRole,
    tenant: str | None = None,
    *,
    scopes: tuple[str, ...] | None = None,
    expires_at: str | None = None,
    revoked: bool = False,
) -> str:
    """A key, as it is sent."""
    id, secret = new_key()
    await service.catalogue.add_key(
        id,
        digest(secret),
        name=f"{role} of {tenant}",
        role=role,
        scopes=scopes,
        tenant=tenant,
        expires_at=expires_at,
        by="command:test",
        at=now(),
    )
    if revoked:
        await service.catalogue.revoke_key(id, by="command:test", at=now())
    return whole_key(id, secret)


async def make_operator(service: Service, login: str, role: Role, tenant: str | None = None) -> None:
    """Somebody who logs in with the password."""
    await service.catalogue.add_operator(
        login,
        name=login.title(),
        password_hash=password_hash(),
        role=role,
        tenant=tenant,
        by="command:test",
        at=now(),
    )


async def make_tenant(service: Service, tenant: str, **content: Any) -> None:
    """A tenant in the database."""
    await service.catalogue.put_tenant(tenant, HOUSE | content, expected=0, by="command:test", at=now())


def bearer(key: str) -> dict[str, str]:
    """The headers of whoever has a key."""
    return {"Authorization": f"Bearer {key}"}


@asynccontextmanager
async def served(
    data: Path,
    tenant: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    **changes: Any,
) -> AsyncIterator[tuple[Service, httpx2.AsyncClient]]:
    """A service with a tenant `jardim` of the files, and somebody without a key.

    Args:
        tenant: how the tenant differs from the usual one.
        environ: secrets.
        changes: of the service's settings.
    """
    tree = {"provider": "local", "base_url": "ws://127.0.0.1:9", **(tenant or {})}
    usual = {"http_port": 0, "http_listen": ["127.0.0.1"], **changes}
    one = settings(data, {"jardim": tree}, environ or {}, **usual)
    service = Service(one)
    await service.start()
    try:
        url = f"http://127.0.0.1:{service.http_port}"
        async with httpx2.AsyncClient(base_url=url, timeout=10) as client:
            yield service, client
    finally:
        await service.stop()


async def logged_in(client: httpx2.AsyncClient, login: str, password: str = PASSWORD) -> dict[str, str]:
    """Log in; the cookie stays with the client. The headers of whatever changes something."""
    answer = await client.post("/v1/login", json={"login": login, "password": password})
    assert answer.status_code == 200, answer.text
    return {"X-CSRF-Token": answer.json()["csrf_token"], "Origin": str(client.base_url).rstrip("/")}
