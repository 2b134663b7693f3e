"""A running service whose settings files are written anew, for the tests of what follows them."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bridge.dialing.simulated import SimulatedDialer
from bridge.service import Service
from bridge.settings import load
from tests.service.household import ROOT, Household, until
from visits.audit import AuditRecord

ENVIRON = {"OPENAI_API_KEY": "a key"}
NAMES = ("jardim", "bosque", "cedro")
"""Tenants whose residents answer as the household says."""


class Folder:
    """A settings file and its fragments."""

    def __init__(self, place: Path, **service: Any) -> None:
        self.place = place
        self.file = place / "porteiro.toml"
        self.fragments = place / "porteiro.d"
        self.fragments.mkdir(parents=True)
        told = {
            "data_dir": str(place / "data"),
            "listen": ["127.0.0.1"],
            "visitor_port": 0,
            "resident_port": 0,
            "http_listen": [],
            **service,
        }
        self.write(self.file, "[service]\n" + lines(told))

    @staticmethod
    def write(file: Path, text: str) -> None:
        """Put a file in another's place, whole."""
        beside = file.with_suffix(".new")
        beside.write_text(text, encoding="utf-8")
        beside.replace(file)

    def tenant(self, name: str, **table: Any) -> None:
        """Write a tenant's fragment."""
        self.write(self.fragments / f"{name}.toml", fragment({name: usual(**table)}))

    def gone(self, name: str) -> None:
        """Take it away."""
        (self.fragments / f"{name}.toml").unlink()


def usual(**own: Any) -> dict[str, Any]:
    """A tenant's table."""
    return {
        "name": "Condomínio Jardim das Flores",
        "directory": str(ROOT / "data" / "apartamentos.json"),
        "provider": "openai",
        "dialer": {"kind": "simulated"},
        "limits": {"ring_s": 5.0},
        **own,
    }


def fragment(tenants: Mapping[str, Mapping[str, Any]]) -> str:
    """A fragment with these tables."""
    return "".join(f"[tenants.{name}]\n{lines(table)}" for name, table in tenants.items())


def lines(table: Mapping[str, Any]) -> str:
    """A table of TOML: its values are written inline."""
    return "".join(f"{name} = {_value(value)}\n" for name, value in table.items())


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{name} = {_value(each)}" for name, each in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)


@asynccontextmanager
async def running(file: Path, environ: Mapping[str, str] = ENVIRON) -> AsyncIterator[Household]:
    """A service with the settings of a file."""
    houses: list[Household] = []
    made = {name: SimulatedDialer(lambda order: houses[0].resident(order)) for name in NAMES}
    house = Household(
        Service(load(file, environ), watchers=(lambda seen: house.seen.append(seen),), dialers=made), []
    )
    houses.append(house)
    await house.service.start()
    try:
        yield house
    finally:
        await house.service.stop()


async def started(house: Household, visit: Any) -> AuditRecord:
    """The first record of a visit."""
    await until(lambda: house.of(visit, "visit.started"), what="the visit")
    return (await house.records(visit))[0]


def handles() -> int:
    """Descriptors that this process has open."""
    return len(os.listdir("/proc/self/fd"))
