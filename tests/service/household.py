"""A real service with simulated providers, and people on real telephones, for the service's tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO
from uuid import UUID, uuid4

from bridge.dialing.base import Dialer, DialOrder
from bridge.dialing.simulated import Answers, Resident, SimulatedDialer
from bridge.service import Service
from bridge.settings import Settings, build
from bridge.softphone import CallEnded, Softphone
from bridge.watch import Seen
from tests.service.doorman import Cast
from visits.audit import AuditRecord

ROOT = Path(__file__).resolve().parents[2]
AUDIO = ROOT / "data" / "audio"
HELLO = AUDIO / "v06-leticia.wav"
"""1.5 s: "Oi, tudo bem?"."""

Talk = Callable[[Softphone], Awaitable[None]]


def settings(
    data: Path, tenants: Mapping[str, Mapping[str, Any]], environ: Mapping[str, str], **service: Any
) -> Settings:
    """Settings for tenants on free ports; each is told how it differs from the usual one."""
    usual = {
        "name": "Condomínio Jardim das Flores",
        "directory": str(ROOT / "data" / "apartamentos.json"),
        "provider": "openai",
        "dialer": {"kind": "simulated"},
        "limits": {"ring_s": 5.0},
    }
    tree = {
        "service": {
            "data_dir": str(data),
            "visitor_port": 0,
            "resident_port": 0,
            "listen": ["127.0.0.1"],
            "http_port": None,
            **service,
        },
        "tenants": {name: usual | dict(own) for name, own in tenants.items()},
    }
    return build(tree, environ={"OPENAI_API_KEY": "a key", **environ})


async def until(condition: Callable[[], object], timeout_s: float = 10.0, what: str = "it") -> None:
    """Look every few milliseconds until it holds."""
    try:
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"{what} did not come within {timeout_s:g} s") from None


async def presses(phone: Softphone, key: str = "1") -> None:
    """A resident who hears the briefing out, presses a key and listens on."""
    try:
        await phone.wait_for_speech(timeout_s=10)
        await phone.wait_for_quiet(250, timeout_s=20)
        phone.send_key(key)
    except CallEnded:
        return
    await asyncio.wait({phone.closed})


async def listens(phone: Softphone) -> None:
    """Somebody who says nothing."""
    await asyncio.wait({phone.closed})


@dataclass
class Household:
    """The running service, what was seen of its visits, and who answers which visit's calls."""

    service: Service
    seen: list[Seen]
    residents: dict[UUID, Talk] = field(default_factory=dict)
    orders: list[DialOrder] = field(default_factory=list)

    def resident(self, order: DialOrder) -> Resident:
        """Who is called."""
        self.orders.append(order)
        talk = self.residents.get(order.visit, presses)
        return Resident(Answers.YES, rings_s=0.1, talk=talk)

    def of(self, visit: UUID | str, kind: str | None = None) -> list[Seen]:
        """What was seen of a visit."""
        return [one for one in self.seen if one.visit == str(visit) and kind in (None, one.kind)]

    def states(self, visit: UUID) -> list[str]:
        """The states that a visit went through."""
        return [one.data["state"] for one in self.of(visit, "state")]

    def phone(self, tenant: str, visit: UUID) -> Softphone:
        """A visitor's telephone."""
        return Softphone("127.0.0.1", self.service.ports(tenant)[0], visit)

    def resident_phone(self, tenant: str, call: UUID) -> Softphone:
        """A telephone that calls the resident port."""
        return Softphone("127.0.0.1", self.service.ports(tenant)[1], call)

    async def greeted(self, visit: UUID) -> None:
        """Wait until a visit's greeting is over."""
        await until(lambda: "collecting" in self.states(visit), what="the greeting's end")

    async def visit(self, tenant: str, talk: Talk | None = None, *, visit: UUID | None = None) -> Softphone:
        """A whole visit: the visitor says one thing once greeted, and listens until the end."""
        visit = visit or uuid4()
        async with self.phone(tenant, visit) as phone:
            if talk is not None:
                await talk(phone)
            else:
                await self.greeted(visit)
                await phone.say(HELLO)
            async with asyncio.timeout(40):
                await asyncio.wait({phone.closed})
        assert await self.service.visit_over(visit, 10)
        return phone

    async def records(self, visit: UUID | str) -> list[AuditRecord]:
        """A visit's records, in order."""
        return [record async for record in self.service.storage.audit(visit=str(visit))]

    async def kinds(self, visit: UUID | str) -> list[str]:
        """The kinds of a visit's records, in order."""
        return [record.kind for record in await self.records(visit)]

    async def outcome(self, visit: UUID | str) -> tuple[str | None, str | None, bool | None]:
        """Outcome, reason, and whether the gate is on record as opened; the log as a whole verifies."""
        assert await self.service.storage.verify() == []
        view = await self.service.storage.visit(str(visit))
        assert view is not None
        return view.summary.outcome, view.summary.reason, view.summary.gate_opened


@asynccontextmanager
async def household(
    data: Path,
    tenants: Mapping[str, Mapping[str, Any]],
    *,
    dialers: Mapping[str, Dialer] | None = None,
    environ: Mapping[str, str] | None = None,
    model_log: TextIO | None = None,
    simulated: bool = True,
    **service: Any,
) -> AsyncIterator[Household]:
    """A running service; `simulated`: its tenants' phones are, and not those that their settings name."""
    seen: list[Seen] = []

    def see(one: Seen) -> None:
        if one.visit:  # a call that is only registered is no visit yet
            seen.append(one)

    phones: list[Household] = []
    made: dict[str, Dialer] = {
        name: SimulatedDialer(lambda order: phones[0].resident(order)) for name in tenants if simulated
    }
    running = Service(
        settings(data, tenants, environ or {}, **service),
        watchers=(see,),
        dialers=made | dict(dialers or {}),
        model_log=model_log,
    )
    house = Household(running, seen)
    phones.append(house)
    await running.start()
    try:
        yield house
    finally:
        await running.stop()


def with_cast(cast: Cast, **own: Any) -> dict[str, Any]:
    """A tenant whose provider is a simulated one."""
    return {"base_url": cast.url, **own}


def spoken_by_host(cast: Cast, role: str) -> Sequence[str]:
    """All exact words that were asked for on the legs of a role."""
    return [text for doorman in cast.doormen if doorman.role == role for text in doorman.said]
