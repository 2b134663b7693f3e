"""Tenants, numbers and directories in any order of changes, against plain dictionaries and the rules."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from storage.base import StorageRefused
from storage.catalogue import AlreadyThere, Clash, Conflict, NotThere
from storage.store import SqlStorage
from tests.postgres import Postgres
from tests.storage.places import Place, PostgresPlace, SqlitePlace
from visits.directory import Apartment
from visits.standing import StandingAuthorisation

T = TypeVar("T")
AT = "2026-11-21T13:05:00.000000+00:00"
SAID = {"by": "operator:ana", "at": AT}

tenants = st.sampled_from(("jardim", "sol", "mar"))
seen = st.sampled_from((None, None, 0, 1, 2, 3))
labels = st.sampled_from(("101", "102", "103"))
homes = st.builds(
    lambda number, names, dial, expects: Apartment(
        number, None, names, (dial,), standing=(StandingAuthorisation("Entregas"),) if expects else ()
    ),
    labels,
    st.sampled_from((("Ana Prado",), ("João Melo", "Bia Melo"))),
    st.sampled_from(("1001", "1002")),
    st.booleans(),
)
directories = st.lists(homes, max_size=3, unique_by=lambda home: home.number).map(tuple)
contents = st.fixed_dictionaries(
    {"numbers": st.lists(st.sampled_from(("1", "2", "3")), max_size=2, unique=True)},
    optional={"greeting": st.sampled_from(("Oi", "Olá")), "visitor_port": st.sampled_from((9101, 9102))},
)


class Catalogues(RuleBasedStateMachine):
    """The catalogue, and what it has to hold."""

    make: ClassVar[Callable[[], Awaitable[Place]]]

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.storage = self.do(self.opened())
        self.catalogue = self.storage.catalogue
        self.content: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, int] = {}
        self.homes: dict[str, tuple[Apartment, ...]] = {}
        self.directory_versions: dict[str, int] = {}
        self.counter = 0

    async def opened(self) -> SqlStorage:
        return await (await type(self).make()).open()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def refused(self, work: Coroutine[Any, Any, Any]) -> type[StorageRefused] | None:
        try:
            self.do(work)
        except StorageRefused as error:
            return type(error)
        return None

    def claims(self, content: dict[str, Any]) -> set[str]:
        return {*content["numbers"], *([str(port)] if (port := content.get("visitor_port")) else [])}

    @rule(tenant=tenants, content=contents, expected=seen)
    def put(self, tenant: str, content: dict[str, Any], expected: int | None) -> None:
        now = self.versions[tenant] if tenant in self.content else 0
        others = {each for name, one in self.content.items() if name != tenant for each in self.claims(one)}
        told = self.refused(self.catalogue.put_tenant(tenant, content, expected=expected, **SAID))
        if expected not in (None, now):
            assert told is Conflict
        elif self.content.get(tenant) == content:
            assert told is None
        elif self.claims(content) & others:
            assert told is Clash
        else:
            assert told is None
            self.content[tenant] = content
            self.versions[tenant] = self.versions.get(tenant, 0) + 1
            self.counter += 1

    @rule(tenant=tenants, expected=seen)
    def remove(self, tenant: str, expected: int | None) -> None:
        told = self.refused(self.catalogue.remove_tenant(tenant, expected=expected, **SAID))
        if tenant not in self.content:
            assert told is NotThere
        elif expected not in (None, self.versions[tenant]):
            assert told is Conflict
        else:
            assert told is None
            del self.content[tenant]
            self.versions[tenant] += 1
            self.counter += 1
            if self.homes.get(tenant):
                self.homes[tenant] = ()
                self.directory_versions[tenant] += 1

    def changed(self, tenant: str, homes: tuple[Apartment, ...]) -> None:
        if tenant not in self.homes or self.homes[tenant] != homes:
            self.homes[tenant] = homes
            self.directory_versions[tenant] = self.directory_versions.get(tenant, 0) + 1
            self.counter += 1

    def conflicts(self, tenant: str, expected: int | None) -> bool:
        return expected not in (None, self.directory_versions.get(tenant, 0))

    @rule(tenant=tenants, homes=directories, expected=seen)
    def replace_all(self, tenant: str, homes: tuple[Apartment, ...], expected: int | None) -> None:
        told = self.refused(self.catalogue.replace_directory(tenant, homes, expected=expected, **SAID))
        if self.conflicts(tenant, expected):
            assert told is Conflict
        else:
            assert told is None
            self.changed(tenant, homes)

    @rule(tenant=tenants, home=homes, was=st.one_of(st.just(""), labels), expected=seen)
    def put_one(self, tenant: str, home: Apartment, was: str, expected: int | None) -> None:
        told = self.refused(self.catalogue.put_apartment(tenant, home, was=was, expected=expected, **SAID))
        there = {one.number: one for one in self.homes.get(tenant, ())}
        place = was or home.number
        if self.conflicts(tenant, expected):
            assert told is Conflict
        elif was and was not in there:
            assert told is NotThere
        elif was not in ("", home.number) and home.number in there:
            assert told is AlreadyThere
        else:
            assert told is None
            if place in there:
                self.changed(tenant, tuple(home if one.number == place else one for one in there.values()))
            else:
                self.changed(tenant, (*there.values(), home))

    @rule(tenant=tenants, label=labels, expected=seen)
    def remove_one(self, tenant: str, label: str, expected: int | None) -> None:
        told = self.refused(self.catalogue.remove_apartment(tenant, label, expected=expected, **SAID))
        homes = self.homes.get(tenant, ())
        if self.conflicts(tenant, expected):
            assert told is Conflict
        elif label not in {one.number for one in homes}:
            assert told is NotThere
        else:
            assert told is None
            self.changed(tenant, tuple(one for one in homes if one.number != label))

    @rule(tenant=tenants, label=labels, expected=seen)
    def expect_somebody(self, tenant: str, label: str, expected: int | None) -> None:
        given = StandingAuthorisation("Maria Aparecida")
        work = self.catalogue.put_standing(tenant, label, given, expected=expected, **SAID)
        told = self.refused(work)
        homes = self.homes.get(tenant, ())
        if self.conflicts(tenant, expected):
            assert told is Conflict
        elif label not in {one.number for one in homes}:
            assert told is NotThere
        else:
            assert told is None
            new = (
                replace(one, standing=(*one.standing, given)) if one.number == label else one for one in homes
            )
            self.changed(tenant, tuple(new))

    @rule(tenant=tenants, which=st.integers(0, 5))
    def expect_nobody(self, tenant: str, which: int) -> None:
        listed = self.do(self.catalogue.standing(tenant)).items
        if which < len(listed):
            one = listed[which]
            self.do(self.catalogue.remove_standing(tenant, one.id, expected=None, **SAID))
            place = [each.id for each in listed if each.apartment == one.apartment].index(one.id)
            new = (
                replace(home, standing=home.standing[:place] + home.standing[place + 1 :])
                if home.number == one.apartment
                else home
                for home in self.homes[tenant]
            )
            self.changed(tenant, tuple(new))

    @invariant()
    def all_is_as_it_should_be(self) -> None:
        seen = self.do(self.catalogue.changes_since(0))
        assert {each.tenant: each.content for each in seen.tenants} == self.content
        assert {each.tenant: each.version for each in seen.tenants}.items() <= self.versions.items()
        assert seen.counter == self.counter and seen.directories == self.directory_versions
        for tenant, homes in self.homes.items():
            found = self.do(self.catalogue.directory(tenant))
            assert found is not None and found.directory.apartments == homes
        for number in ("1", "2", "3"):
            owners = [name for name, one in self.content.items() if number in one["numbers"]]
            found_owner = self.do(self.catalogue.owner("number", number))
            assert ([] if found_owner is None else [found_owner]) == owners

    def teardown(self) -> None:
        for tenant, version in self.versions.items():
            told = self.do(self.catalogue.history(tenant, limit=200)).items
            assert [each.version for each in told] == list(range(version, 0, -1))
        assert self.do(self.storage.verify()) == []
        self.do(self.storage.close())
        self.loop.close()


def carry_out(make: Callable[[], Awaitable[Place]], most: int) -> None:
    machine = type("Made", (Catalogues,), {"make": staticmethod(make)})
    few = examples(
        max_examples=most,
        stateful_step_count=20,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    run_state_machine_as_test(machine, settings=few)


def test_any_order_of_changes_on_sqlite() -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = iter(range(10**6))

        async def make() -> Place:
            return SqlitePlace(Path(folder) / f"{next(files)}.db")

        carry_out(make, 40)


@pytest.mark.usefixtures("postgres")
def test_any_order_of_changes_on_postgresql(postgres: Postgres) -> None:
    async def make() -> Place:
        return PostgresPlace(await postgres.make())

    carry_out(make, 6)
