"""A service whose database holds two condominiums' weeks, and the people who look at its pages."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import httpx2

from bridge.passwords import hashed
from bridge.service import Service
from storage.base import Storage
from storage.catalogue import Role
from tests.service.household import settings
from visits.audit import stamp

PASSWORD = "correct horse battery"
PEOPLE: Mapping[str, tuple[Role, str | None]] = {
    "ana": ("admin", None),
    "gil": ("manager", "jardim"),
    "rui": ("reviewer", "jardim"),
    "vera": ("viewer", "jardim"),
    "zoe": ("admin", "ipe"),
}
"""Login, role, tenant."""

OUTCOMES = ("authorized",) * 6 + ("denied", "denied", "unreachable", "abandoned", "failed")
NAMES = ("Leticia Ferreira", "Carlos Andrade", "Entregador da Loja", "João Pedro Lima", "Maria das Dores")
RESIDENTS = (("501", "Ana Clara Souza"), ("102 bloco B", "Roberto Nunes"), ("cobertura 2", "Íris Conceição"))


@cache
def password_hash() -> str:
    """Of everybody's password: made once, since it takes its time."""
    return hashed(PASSWORD)


@dataclass
class Furnished:
    """The running service."""

    service: Service

    @property
    def url(self) -> str:
        """Of its HTTP port."""
        return f"http://127.0.0.1:{self.service.http_port}"

    @asynccontextmanager
    async def as_(self, login: str | None, language: str = "pt-BR") -> AsyncIterator[httpx2.AsyncClient]:
        """A browser without scripts, in which somebody has logged in."""
        headers = {"Accept-Language": language}
        async with httpx2.AsyncClient(base_url=self.url, headers=headers, timeout=20) as client:
            if login is not None:
                said = {"name": login, "password": PASSWORD}
                answer = await client.post("/console/login", data=said, headers={"Origin": self.url})
                assert answer.status_code == 303, answer.text
            yield client

    async def send(self, client: httpx2.AsyncClient, path: str, **said: Any) -> httpx2.Response:
        """Send a form of a page: with the token of its session, from the service's own pages."""
        page = await client.get("/console/account")
        (token,) = set(re.findall(r'name="csrf_token" value="([^"]+)"', page.text))
        return await client.post(path, data={"csrf_token": token, **said}, headers={"Origin": self.url})


async def one_visit(storage: Storage, tenant: str, at: datetime, chance: Random, **texts: str) -> str:
    """Write the records of a visit that was; its id. ``texts`` take the place of what people said."""
    visit = str(UUID(int=chance.getrandbits(128), version=4))
    apartment, resident = chance.choice(RESIDENTS)
    told = {"visitor": chance.choice(NAMES), "resident": resident, "said": "Vim trazer uma encomenda"} | texts
    outcome = chance.choice(OUTCOMES)
    ms = 0.0

    async def write(kind: str, **data: Any) -> None:
        await storage.append(tenant, visit, stamp(at + timedelta(milliseconds=ms)), kind, data)

    await write("visit.started", provider=chance.choice(("openai", "gemini")), endpoint="audiosocket")
    await write("leg.connected", leg="visitor", role="visitor", peer="10.0.0.5:4000", provider="openai")
    for number, (speaker, text) in enumerate(
        (("agent", "Bom dia, com quem deseja falar?"), ("caller", told["said"]), ("agent", "Um instante."))
    ):
        ms += 1500
        turn = {"leg": "visitor", "speaker": speaker, "text": text, "started_ms": ms, "ended_ms": ms + 1200}
        if speaker == "agent" and number:
            turn["response_ms"] = chance.lognormvariate(6.7, 0.35)
        await write("turn", **turn)
    call = {"leg": "visitor", "call": "c1", "name": "lookup_apartment"}
    await write("tool.called", **call, arguments={"spoken": apartment, "name": told["visitor"]})
    await write("tool.answered", **call, result={"apartment": apartment}, ms=3.2, status="ok")
    if outcome in ("authorized", "denied", "unreachable"):
        await write(
            "dial.started",
            attempt="resident-1",
            number=1,
            apartment=apartment,
            resident=told["resident"],
        )
    ms += 20_000
    if outcome in ("authorized", "denied"):
        evidence = [{"by": "voice", "text": "Pode deixar entrar" if outcome == "authorized" else "Não"}]
        await write("decision", decision=outcome, evidence=evidence)
    if outcome == "authorized":
        await write("gate.requested", gate="record")
        ms += 300
        await write("gate.answered", opened=True, detail="", ms=240.0)
    cost = {"amount": f"{chance.uniform(0.02, 0.4):.6f}", "usd": "0.05", "currency": "USD"}
    await write("visit.cost", **cost, final=True, complete=True, unknown=[], usage=[])
    ms += 4000
    known = {"visitor_name": told["visitor"], "apartment": apartment, "resident": told["resident"]}
    await write("visit.ended", outcome=outcome, intent="entrega", **known)
    return visit


async def furnish(storage: Storage, visits: int, days: int = 28, **texts: str) -> list[str]:
    """Fill a database with visits of the last weeks; their ids."""
    chance = Random(7)
    now = datetime.now(UTC)
    whens = sorted(
        now - timedelta(days=chance.uniform(0, days), hours=chance.choice((0, 0, 3, 6)))
        for _ in range(visits)
    )
    made: list[str] = []
    for tenant in ("jardim", "ipe"):
        mine = [at for number, at in enumerate(whens) if (number % 3 == 0) == (tenant == "ipe")]
        for first in range(0, len(mine), 16):
            some = mine[first : first + 16]
            made += await asyncio.gather(*(one_visit(storage, tenant, at, chance, **texts) for at in some))
    return made


@asynccontextmanager
async def furnished(
    data: Path, *, visits: int = 0, people: bool = True, texts: Mapping[str, str] | None = None
) -> AsyncIterator[Furnished]:
    """A running service with two condominiums and everybody of :data:`PEOPLE`."""
    tenants: dict[str, dict[str, Any]] = {
        "jardim": {"dialer": {"kind": "manual"}},
        "ipe": {"name": "Edifício Ipê Amarelo", "provider": "gemini", "dialer": {"kind": "manual"}},
    }
    running = Service(settings(data, tenants, {"GEMINI_API_KEY": "a key"}, http_port=0))
    await running.start()
    try:
        at = stamp(datetime.now(UTC))
        for login, (role, tenant) in PEOPLE.items() if people else ():
            await running.catalogue.add_operator(
                login,
                name=login.capitalize(),
                password_hash=password_hash(),
                role=role,
                tenant=tenant,
                by="command:test",
                at=at,
            )
        if visits:
            await furnish(running.storage, visits, 28, **(texts or {}))
        yield Furnished(running)
    finally:
        await running.stop()


__all__ = ["PASSWORD", "PEOPLE", "Furnished", "furnish", "furnished", "one_visit"]
