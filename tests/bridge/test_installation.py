"""Any sequence of changes: which tenants are in force and which ports listen is what a model says.

Real ports; visits by name. Nothing is left over when all is done.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import UUID, uuid4

from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.calls import CallRegistry
from bridge.doors import DoorRole, Doors
from bridge.endpoints.audiosocket import AudioSocketServer
from bridge.endpoints.base import Endpoint, LegSink, Refusal
from bridge.installation import Installation
from bridge.model_server import ModelServerAddress
from bridge.model_servers import ModelServers
from bridge.runner import Places, Runner
from bridge.settings import build
from bridge.tenants import Problems, Tenancy, Version
from tests.bridge.kept import Kept
from tests.ports import free_ports, listens

TENANTS = ("a", "b", "c")
BROKEN = "found by nobody"


@dataclass
class Visits:
    """A runner whose visits are names. It refuses a tenant that is called as `BROKEN` says."""

    running: dict[UUID, str] = field(default_factory=dict)
    places: dict[str, Any] = field(default_factory=dict)
    open: int = 0
    """Places that were furnished and not undone or replaced."""

    async def furnish(self, places: Places, models: ModelServerAddress | None) -> Made:
        """See :class:`Runner`."""
        await asyncio.sleep(0)
        problems: Problems = {
            name: ("broken",)
            for name, one in places.items()
            if one is not None and one.one.tenant.name == BROKEN
        }
        self.open += sum(one is not None for one in places.values())
        return Made(self, places, problems)

    def numbered(self, versions: Mapping[str, Version]) -> None:
        """See :class:`Runner`."""

    def visits_of(self, tenant: str | None) -> frozenset[UUID]:
        """See :class:`Runner`."""
        return frozenset(visit for visit, name in self.running.items() if tenant in (None, name))

    def expects(self, tenant: str, endpoint: Endpoint) -> bool:
        """See :class:`Runner`."""
        return self.running.get(endpoint.call_id) == tenant


@dataclass
class Made:
    """See :class:`bridge.runner.Furnished`."""

    visits: Visits
    places: Places
    problems: Problems

    def commit(self) -> None:
        """In force."""
        for name, one in self.places.items():
            if self.visits.places.pop(name, None) is not None:
                self.visits.open -= 1
            if one is not None:
                self.visits.places[name] = one

    async def undo(self) -> None:
        """Not in force."""
        self.visits.open -= sum(one is not None for one in self.places.values())


def make(port: int, accept: Callable[[Endpoint], LegSink | Refusal | None]) -> AudioSocketServer:
    return AudioSocketServer(["127.0.0.1"], port, allowed=(), accept=accept)


def take(role: DoorRole, tenant: str, endpoint: Endpoint) -> Refusal:
    return Refusal("this test takes none")


tables = st.fixed_dictionaries(
    {
        "visitor_port": st.integers(0, 4),
        "resident_port": st.integers(0, 4),
        "name": st.sampled_from(["", "x", BROKEN]),
        "numbers": st.lists(st.sampled_from(["10", "11", "12"]), max_size=2, unique=True),
        "timezone": st.sampled_from(["America/Sao_Paulo", "America/Sao_Paulo", "Nowhere"]),
    }
)
steps = st.one_of(
    st.tuples(st.just("put"), st.dictionaries(st.sampled_from(TENANTS), st.none() | tables, min_size=1)),
    st.tuples(st.just("call"), st.sampled_from(TENANTS)),
    st.tuples(st.just("over"), st.integers(0, 3)),
    st.tuples(st.just("away"), st.booleans()),
)


@dataclass
class Model:
    """What should be."""

    wanted: dict[str, dict[str, Any]] = field(default_factory=dict)
    """As the catalogue says."""
    in_force: dict[str, dict[str, Any]] = field(default_factory=dict)
    visits: dict[UUID, tuple[str, int]] = field(default_factory=dict)
    """Tenant, and the resident port that its residents are called to."""

    def change(self) -> None:
        """What is well comes into force."""
        new = {
            name: table
            for name, table in sorted(self.wanted.items())
            if table != self.in_force.get(name) and not wrong(table)
        }
        gone = [name for name in self.in_force if name not in self.wanted]
        new = dict(sorted(new.items(), key=lambda item: self.wants_more(*item)))
        while True:
            kept = {name: one for name, one in self.in_force.items() if name not in new and name not in gone}
            clashing = clashes(kept, new)
            if not clashing:
                # Only now is it found out what can't be furnished, and what that takes back with it.
                clashing = {name for name, table in new.items() if table["name"] == BROKEN}
            if not clashing:
                break
            new = {name: table for name, table in new.items() if name not in clashing}
        self.in_force = {**kept, **new}

    def wants_more(self, name: str, table: Mapping[str, Any]) -> bool:
        """Whether it wants a port or a number that it has not."""
        old = self.in_force.get(name)
        return old is None or not claims(table) <= claims(old)

    def ports(self) -> set[int]:
        """Which are listened on, of those with a number."""
        own = {table[role] for table in self.in_force.values() for role in ("visitor_port", "resident_port")}
        return (own | {port for _, port in self.visits.values()}) - {0}


def claims(table: Mapping[str, Any]) -> set[Any]:
    return {table["visitor_port"], table["resident_port"], *table["numbers"]}


def wrong(table: Mapping[str, Any]) -> bool:
    """Whether it can't be used whatever the others have."""
    return bool(table["timezone"] == "Nowhere" or table["visitor_port"] == table["resident_port"] != 0)


def clashes(kept: Mapping[str, Any], new: Mapping[str, Any]) -> set[str]:
    """The new ones that want what another has, who came before."""
    ports: dict[int, str] = {}
    numbers: dict[str, str] = {}
    found = set()
    for name, table in {**kept, **new}.items():
        for role in ("visitor_port", "resident_port"):
            if table[role] and ports.setdefault(table[role], name + role) != name + role:
                found.add(name)
        for number in table["numbers"]:
            if numbers.setdefault(number, name) != name:
                found.add(name)
    return found


def handles() -> int:
    return len(os.listdir("/proc/self/fd"))


@given(st.lists(steps, max_size=25))
@settings(max_examples=60, deadline=None)
def test_what_is_in_force_and_listens_is_what_a_model_says(walk: list[tuple[str, Any]]) -> None:
    async def play() -> None:
        numbers = [0, *free_ports(4)]
        kept, visits, model = Kept(), Visits(), Model()
        service = build({"service": {"listen": ["127.0.0.1"]}}, environ={"OPENAI_API_KEY": "a key"})
        tenancy = Tenancy(service)
        doors = Doors(make, take, visits.expects)
        calls = CallRegistry({}, expires_s=60, most=10)
        installation = Installation(
            doors,
            cast(Runner, visits),
            calls,
            ModelServers(service, None),
            tenancy.in_force,
            route=lambda name, one: None,
            unroute=lambda name: None,
        )
        await tenancy.open(kept.as_catalogue())
        tenancy._installer = installation  # without its watch: each change is asked for
        for what, about in walk:
            if what == "put":
                for name, drawn in about.items():
                    table = drawn and {
                        **drawn,
                        "provider": "openai",
                        "visitor_port": numbers[drawn["visitor_port"]],
                        "resident_port": numbers[drawn["resident_port"]],
                    }
                    kept.put(name, table and {**table})
                    model.wanted.pop(name, None)
                    if table is not None:
                        model.wanted[name] = table
            elif what == "call" and about in model.in_force:
                visit = uuid4()
                visits.running[visit] = about
                model.visits[visit] = about, doors.of(about, "resident").port
            elif what == "over" and model.visits:
                visit = list(model.visits)[about % len(model.visits)]
                del visits.running[visit], model.visits[visit]
                installation.over(visit)
            elif what == "away":
                kept.away = about
            if not kept.away:
                model.change()
            await tenancy.reload()
            assert tenancy.in_force.keys() == model.in_force.keys() == set(doors._tenants)
            for name, table in model.in_force.items():
                assert dict(tenancy.in_force[name].table) == table
            assert set(visits.places) == set(model.in_force) and visits.open == len(model.in_force)
            assert {port for port in numbers[1:] if listens(port)} == model.ports() & set(numbers)
            if not kept.away:
                told = {name for name in tenancy.refused if name}
                assert told == {
                    name for name in model.wanted if model.wanted[name] != model.in_force.get(name)
                }
        for visit in list(model.visits):
            del visits.running[visit]
            installation.over(visit)
        await tenancy.stop()
        await doors.stop()
        await installation.stop()
        assert not installation._leftovers
        assert len(asyncio.all_tasks()) == 1

    before = handles()
    asyncio.run(play())
    assert handles() == before
