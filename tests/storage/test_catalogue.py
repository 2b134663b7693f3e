"""The catalogue on both databases: what is put is read, what can't be is refused, all of it is on record."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import count
from typing import Any

import asyncpg
import pytest

from storage.base import StorageRefused, StorageUnavailable
from storage.catalogue import (
    DATABASE,
    NOTIFICATIONS,
    AlreadyThere,
    Catalogue,
    Clash,
    Conflict,
    NewSettings,
    NotThere,
    StoredStanding,
)
from storage.store import SqlStorage
from tests.storage.places import Edited, Place, PostgresPlace, Shell
from tests.storage.test_store import Visit, records, whole_visit
from visits.audit import AuditRecord, stamp
from visits.directory import Apartment, Contact, Directory
from visits.hours import Hours
from visits.standing import StandingAuthorisation

START = datetime(2026, 11, 21, 13, 5, tzinfo=UTC)
ANA = "operator:ana"

CLEANER = StandingAuthorisation(
    "Maria Aparecida da Silva", frozenset({1}), Hours(480, 720), date(2026, 12, 31)
)
COURIER = StandingAuthorisation("Entregas Ligeiras", call_resident=False)
APARTMENTS = (
    Apartment("101", None, ("João Pereira", "Marta Pereira"), ("101", "sip:101@pbx")),
    Apartment(
        "102",
        "B",
        ("Renata Albuquerque", "Luís Ângelo Conceição"),
        (),
        (
            Contact("Renata Albuquerque", ("1021", "+5511990000102"), (Hours(1320, 420),)),
            Contact("Luís Ângelo Conceição", ("1022",), do_not_call=True),
        ),
        (CLEANER, COURIER),
    ),
    Apartment("cobertura", None, ("Zélia Duncan",), ("900",)),
)


def at(seconds: float = 0) -> str:
    return stamp(START + timedelta(seconds=seconds))


def settings(**changes: Any) -> dict[str, Any]:
    return {"name": "Condomínio Jardim", "visitor_port": 9101, "resident_port": 9102, **changes}


async def put(
    catalogue: Catalogue, tenant: str = "jardim", expected: int | None = None, **changes: Any
) -> int:
    new = await catalogue.put_tenant(tenant, settings(**changes), expected=expected, by=ANA, at=at())
    return new.version


async def last_record(storage: SqlStorage, tenant: str, kind: str) -> AuditRecord:
    return (await records(storage, tenant=tenant, kinds=[kind]))[-1]


@pytest.fixture
def catalogue(storage: SqlStorage) -> Catalogue:
    return storage.catalogue


# --------------------------------------------------------------------------------------------------------
# Tenants
# --------------------------------------------------------------------------------------------------------


async def test_settings_are_read_as_they_were_put(storage: SqlStorage, catalogue: Catalogue) -> None:
    content = settings(limits={"attempts": 2}, numbers=["+551130000000"], gate={"kind": "record"})
    new = await catalogue.put_tenant("jardim", content, expected=0, by=ANA, at=at())
    assert (new.version, new.content, new.source, new.by, new.at) == (1, content, DATABASE, ANA, at())
    assert await catalogue.tenant("jardim") == new
    assert await catalogue.tenants() == [new]
    assert await catalogue.tenant("other") is None
    record = await last_record(storage, "jardim", "settings.changed")
    assert record.data["digest"] == new.digest and record.data["action"] == "created"
    assert record.data["fields"] == sorted(content) and "+551130000000" not in str(record.data)


async def test_each_version_stays_and_says_what_differs(storage: SqlStorage, catalogue: Catalogue) -> None:
    await put(catalogue, limits={"attempts": 2, "ring_s": 20})
    assert await put(catalogue, limits={"attempts": 3, "ring_s": 20}, greeting="Oi") == 2
    record = await last_record(storage, "jardim", "settings.changed")
    assert record.data["fields"] == ["greeting", "limits.attempts"]
    page = await catalogue.history("jardim", limit=1)
    assert [each.version for each in page.items] == [2]
    page = await catalogue.history("jardim", limit=1, after=page.next)
    assert [each.version for each in page.items] == [1] and page.next is None
    first = await catalogue.version("jardim", 1)
    assert first is not None and first.content is not None and "greeting" not in first.content
    assert await catalogue.version("jardim", 3) is None


async def test_the_same_settings_are_no_new_version(storage: SqlStorage, catalogue: Catalogue) -> None:
    await put(catalogue)
    counter = await catalogue.counter()
    assert await put(catalogue, expected=1) == 1
    assert await catalogue.counter() == counter
    assert len(await records(storage, kinds=["settings.changed"])) == 1


async def test_who_has_seen_another_version_changes_nothing(catalogue: Catalogue) -> None:
    with pytest.raises(Conflict):
        await put(catalogue, expected=1)
    await put(catalogue, expected=0)
    await put(catalogue, expected=1, greeting="Oi")
    with pytest.raises(Conflict) as refused:
        await put(catalogue, expected=1, greeting="Olá")
    assert (refused.value.expected, refused.value.found) == (1, 2)
    with pytest.raises(Conflict):
        await catalogue.remove_tenant("jardim", expected=1, by=ANA, at=at())
    now = await catalogue.tenant("jardim")
    assert (
        now is not None and now.version == 2 and now.content is not None and now.content["greeting"] == "Oi"
    )


async def test_of_two_that_write_at_once_one_is_told(place: Place) -> None:
    async with await place.open() as one, await place.open() as other:
        await put(one.catalogue)
        done = await asyncio.gather(
            put(one.catalogue, expected=1, greeting="a"),
            put(other.catalogue, expected=1, greeting="b"),
            return_exceptions=True,
        )
        assert sorted(type(each).__name__ for each in done) == ["Conflict", "int"] and 2 in done
        assert await one.verify() == []


async def test_a_number_and_a_port_belong_to_one_tenant(catalogue: Catalogue) -> None:
    await put(catalogue, numbers=["+5511", "4002"])
    with pytest.raises(Clash) as refused:
        await put(catalogue, "sol", visitor_port=9102, resident_port=9103)
    assert (refused.value.kind, refused.value.value, refused.value.owner) == ("port", "9102", "jardim")
    free = {"visitor_port": 9201, "resident_port": 9202}
    with pytest.raises(Clash):
        await put(catalogue, "sol", numbers=["4002"], **free)
    assert await catalogue.tenant("sol") is None
    assert await catalogue.owner("number", "4002") == "jardim"
    await put(catalogue, numbers=["+5511"])
    await put(catalogue, "sol", numbers=["4002"], **free)
    assert await catalogue.owner("number", "4002") == "sol"
    await catalogue.remove_tenant("sol", expected=None, by=ANA, at=at())
    assert await catalogue.owner("number", "4002") is None


async def test_two_tenants_that_take_the_same_port_at_once(place: Place) -> None:
    async with await place.open() as one, await place.open() as other:
        done = await asyncio.gather(
            *(put(each.catalogue, f"t{n}") for n, each in enumerate((one, other, one, other))),
            return_exceptions=True,
        )
        assert sorted(type(each).__name__ for each in done) == ["Clash", "Clash", "Clash", "int"]
        assert len(await one.catalogue.tenants()) == 1


async def test_the_database_itself_refuses_a_number_for_two(catalogue: Catalogue, shell: Shell) -> None:
    await put(catalogue)
    with pytest.raises(Edited):
        await shell.run("INSERT INTO numbers (kind, value, tenant) VALUES ('port', '9101', 'jardim')")


async def test_a_tenant_that_was_removed_comes_back_with_its_history(catalogue: Catalogue) -> None:
    await put(catalogue)
    await catalogue.replace_directory("jardim", APARTMENTS, expected=0, by=ANA, at=at())
    gone = await catalogue.remove_tenant("jardim", expected=1, by=ANA, at=at())
    assert (gone.version, gone.content, gone.digest) == (2, None, "")
    assert await catalogue.tenant("jardim") is None and await catalogue.tenants() == []
    empty = await catalogue.directory("jardim")
    assert empty is not None and empty.directory.apartments == () and empty.version == 2
    with pytest.raises(NotThere):
        await catalogue.remove_tenant("jardim", expected=None, by=ANA, at=at())
    assert await put(catalogue, expected=0) == 3
    page = await catalogue.history("jardim")
    assert [each.content is None for each in page.items] == [False, True, False]


async def test_many_changes_are_one(storage: SqlStorage, catalogue: Catalogue) -> None:
    await put(catalogue, numbers=["1"])
    await put(catalogue, "sol", visitor_port=9201, resident_port=9202, numbers=["2"])
    await put(catalogue, "mar", visitor_port=9301, resident_port=9302)
    counter = await catalogue.counter()
    swapped = {
        "jardim": NewSettings(1, settings(numbers=["2"], visitor_port=9201), ANA),
        "sol": NewSettings(1, settings(numbers=["1"], visitor_port=9101, resident_port=9202), "import:x"),
        "mar": NewSettings(1, None, ANA),
        "lua": NewSettings(0, settings(visitor_port=9301, resident_port=9302), ANA),
    }
    said = {"by": ANA, "at": at(1)}
    with pytest.raises(Conflict):
        await catalogue.put_all(swapped, {"lua": (3, APARTMENTS)}, **said)
    assert await catalogue.counter() == counter and await catalogue.owner("number", "1") == "jardim"
    await catalogue.put_all(swapped, {"lua": (0, APARTMENTS)}, **said, source="clients")
    found = await catalogue.tenants()
    assert [(each.tenant, each.by) for each in found] == [("jardim", ANA), ("lua", ANA), ("sol", "import:x")]
    assert await catalogue.owner("number", "1") == "sol" and await catalogue.owner("port", "9301") == "lua"
    assert await apartments(catalogue, "lua") == APARTMENTS
    taken = {"jardim": NewSettings(2, settings(numbers=["1"]), ANA)}
    with pytest.raises(Clash):
        await catalogue.put_all(taken, {}, **said)
    assert await catalogue.owner("number", "2") == "jardim"
    assert await storage.verify() == []


async def test_versions_are_append_only(catalogue: Catalogue, shell: Shell) -> None:
    await put(catalogue)
    for sql in (
        "UPDATE settings_versions SET content = '{}'",
        "DELETE FROM settings_versions",
        "INSERT INTO settings_versions VALUES ('jardim', 1, 'a', 'b', 'c', 'd', 'e')",
        "INSERT INTO settings_versions VALUES ('jardim', 3, 'a', 'b', 'c', 'd', 'e')",
        "UPDATE catalogue_changes SET counter = 0",
    ):
        with pytest.raises(Edited):
            await shell.run(sql)
    assert (await catalogue.history("jardim")).items[0].content == settings()


async def test_no_replace_takes_a_version_away(catalogue: Catalogue, shell: Shell, place: Place) -> None:
    await put(catalogue)
    verb = "INSERT OR REPLACE" if place.dialect == "sqlite" else "INSERT"
    with pytest.raises(Edited):
        await shell.run(f"{verb} INTO settings_versions VALUES ('jardim', 1, 'a', 'b', 'c', 'd', 'e')")
    first = await catalogue.version("jardim", 1)
    assert first is not None and first.content == settings()


async def test_versions_of_the_files_are_noted_once(storage: SqlStorage, catalogue: Catalogue) -> None:
    counter = await catalogue.counter()
    first = await catalogue.note_version("jardim", settings(), "porteiro.toml", at=at())
    assert first.version == 1 and first.source == "porteiro.toml"
    assert await catalogue.note_version("jardim", settings(), "porteiro.toml", at=at(5)) == first
    second = await catalogue.note_version("jardim", settings(greeting="Oi"), "porteiro.toml", at=at(9))
    assert second.version == 2
    assert await catalogue.tenants() == [] and await catalogue.counter() == counter
    assert await put(catalogue, expected=0) == 3  # the tenant moved here
    assert len(await records(storage, tenant="jardim", kinds=["settings.changed"])) == 3


@pytest.mark.parametrize(
    "content", [{"a": float("nan")}, {"a": object()}, {"a": "\ud800"}, {"a": [[[]] * 2] * 3, "b": {1: 2}}]
)
async def test_what_is_not_json_is_no_settings(catalogue: Catalogue, content: dict[str, Any]) -> None:
    with pytest.raises(StorageRefused):
        await catalogue.put_tenant("jardim", content, expected=None, by=ANA, at=at())
    assert await catalogue.tenants() == []


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"])
async def test_a_text_that_no_database_takes_is_refused(catalogue: Catalogue, text: str) -> None:
    with pytest.raises(StorageRefused):
        await put(catalogue, text)
    with pytest.raises(StorageRefused):
        await catalogue.tenant(text)
    with pytest.raises(StorageRefused):
        await catalogue.add_operator(
            "ana", name=text, password_hash="x", role="viewer", tenant=None, by=ANA, at=at()
        )
    with pytest.raises(StorageRefused):
        await catalogue.find_apartments("jardim", text)
    named = Apartment("1", None, (f"Ana {text}",), ("1",))
    for refused in (
        catalogue.replace_directory("jardim", (named,), expected=None, by=ANA, at=at()),
        catalogue.put_apartment("jardim", named, expected=None, by=ANA, at=at()),
    ):
        with pytest.raises(StorageRefused):
            await refused
    assert await put(catalogue) == 1  # and goes on


# --------------------------------------------------------------------------------------------------------
# Changes
# --------------------------------------------------------------------------------------------------------


async def test_changes_are_those_behind_a_counter(catalogue: Catalogue) -> None:
    seen = await catalogue.changes_since(0)
    assert (seen.counter, seen.tenants, seen.removed, seen.directories) == (0, (), (), {})
    await put(catalogue)
    await put(catalogue, "sol", visitor_port=9201, resident_port=9202)
    seen = await catalogue.changes_since(0)
    assert [each.tenant for each in seen.tenants] == ["jardim", "sol"]
    await catalogue.replace_directory("sol", APARTMENTS, expected=None, by=ANA, at=at())
    more = await catalogue.changes_since(seen.counter)
    assert more.tenants == () and more.directories == {"sol": 1}
    await catalogue.remove_tenant("sol", expected=None, by=ANA, at=at())
    more = await catalogue.changes_since(more.counter)
    assert (more.tenants, more.removed, more.directories) == ((), ("sol",), {"sol": 2})
    assert await catalogue.changes_since(more.counter) == type(more)(more.counter)
    # Behind what there is: the database is an older one than was looked at.
    assert await catalogue.changes_since(more.counter + 5) == await catalogue.changes_since(0)


async def test_postgresql_notifies_of_a_change_once_it_is_committed(postgres_url: str) -> None:
    """SQLite notifies nobody: services look at the counter."""
    place = PostgresPlace(postgres_url)
    told: asyncio.Queue[str] = asyncio.Queue()
    listener = await asyncpg.connect(place.url)
    await listener.add_listener(NOTIFICATIONS, lambda *said: told.put_nowait(said[-1]))
    async with await place.open() as storage:
        await put(storage.catalogue)
        assert await asyncio.wait_for(told.get(), 5) == str(await storage.catalogue.counter())
    await listener.close()


# --------------------------------------------------------------------------------------------------------
# Directories
# --------------------------------------------------------------------------------------------------------


async def filled(catalogue: Catalogue, tenant: str = "jardim") -> None:
    await catalogue.replace_directory(tenant, APARTMENTS, expected=None, by=ANA, at=at(), source="a.csv")


async def apartments(catalogue: Catalogue, tenant: str = "jardim") -> tuple[Apartment, ...]:
    found = await catalogue.directory(tenant)
    assert found is not None
    return found.directory.apartments


async def test_a_directory_is_read_as_it_was_put(storage: SqlStorage, catalogue: Catalogue) -> None:
    assert await catalogue.directory("jardim") is None
    await filled(catalogue)
    found = await catalogue.directory("jardim")
    assert found is not None and found.directory == Directory(APARTMENTS)
    assert (found.version, found.by, found.at) == (1, ANA, at())
    assert Directory.from_records(found.directory.records()) == found.directory
    record = await last_record(storage, "jardim", "directory.changed")
    assert (record.data["created"], record.data["source"]) == (3, "a.csv")
    assert record.data["apartments"] == ["101", "102 bloco B", "cobertura"]
    assert "Renata" not in str(record.data) and "Maria" not in str(record.data)


async def test_a_directory_that_is_the_same_stays(storage: SqlStorage, catalogue: Catalogue) -> None:
    await filled(catalogue)
    await filled(catalogue)
    assert await catalogue.directory_versions() == {"jardim": 1}
    assert len(await records(storage, kinds=["directory.changed"])) == 1


async def test_replacing_says_what_came_and_went(storage: SqlStorage, catalogue: Catalogue) -> None:
    await filled(catalogue)
    new = (
        replace(APARTMENTS[0], dial=("777",)),
        Apartment("7", None, ("Ivo Pitanguy",), ("7",)),
        APARTMENTS[1],
    )
    assert await catalogue.replace_directory("jardim", new, expected=1, by=ANA, at=at(1)) == 2
    assert await apartments(catalogue) == new
    data = (await last_record(storage, "jardim", "directory.changed")).data
    assert (data["created"], data["changed"], data["removed"]) == (1, 1, 1)
    assert data["apartments"] == ["7", "101", "cobertura"]
    with pytest.raises(Conflict):
        await catalogue.replace_directory("jardim", APARTMENTS, expected=1, by=ANA, at=at(2))


async def test_a_label_twice_is_refused(catalogue: Catalogue) -> None:
    with pytest.raises(StorageRefused, match="101"):
        await catalogue.replace_directory(
            "jardim", (APARTMENTS[0], APARTMENTS[0]), expected=None, by=ANA, at=at()
        )
    assert await catalogue.directory("jardim") is None


async def test_a_large_directory_is_written_and_read_whole(catalogue: Catalogue) -> None:
    many = tuple(
        Apartment(str(n), "A", (f"Morador Número {n % 7} Silva", "Ana Souza"), (str(1000 + n),))
        for n in range(1, 701)
    )
    await catalogue.replace_directory("jardim", many, expected=None, by=ANA, at=at())
    assert await apartments(catalogue) == many


async def test_one_apartment_is_put_renamed_and_removed(storage: SqlStorage, catalogue: Catalogue) -> None:
    await filled(catalogue)
    said = {"by": ANA, "at": at(1)}
    new = replace(APARTMENTS[0], number="103", residents=("João Pereira",))
    assert await catalogue.put_apartment("jardim", new, was="101", expected=1, **said) == 2
    assert await apartments(catalogue) == (new, *APARTMENTS[1:])
    data = (await last_record(storage, "jardim", "directory.changed")).data
    assert data["apartments"] == ["103", "101"]
    with pytest.raises(AlreadyThere):
        await catalogue.put_apartment(
            "jardim", replace(new, number="cobertura"), was="103", expected=None, **said
        )
    with pytest.raises(NotThere):
        await catalogue.put_apartment("jardim", new, was="999", expected=None, **said)
    with pytest.raises(Conflict):
        await catalogue.put_apartment("jardim", APARTMENTS[0], expected=1, **said)
    assert await catalogue.put_apartment("jardim", APARTMENTS[0], expected=2, **said) == 3
    assert (await apartments(catalogue))[-1] == APARTMENTS[0]
    assert await catalogue.remove_apartment("jardim", "102 bloco B", expected=3, **said) == 4
    with pytest.raises(NotThere):
        await catalogue.remove_apartment("jardim", "102 bloco B", expected=None, **said)
    assert [each.label for each in await apartments(catalogue)] == ["103", "cobertura", "101"]
    assert (await catalogue.standing("jardim")).items == ()


async def test_apartments_are_found_by_what_is_in_them(catalogue: Catalogue) -> None:
    await filled(catalogue)
    await catalogue.replace_directory("sol", APARTMENTS[:1], expected=None, by=ANA, at=at())

    async def labels(text: str, **page: Any) -> list[str]:
        found = await catalogue.find_apartments("jardim", text, **page)
        return [each.apartment.label for each in found.items]

    assert await labels("") == ["101", "102 bloco B", "cobertura"]
    assert await labels("LUIS conceicao") == ["102 bloco B"]
    assert await labels("10") == ["101", "102 bloco B"]
    assert await labels("zÉLIA") == ["cobertura"]
    assert await labels("joão zélia") == []
    assert await labels("%") == [] and await labels("_") == [] and await labels("\\") == []
    first = await catalogue.find_apartments("jardim", limit=2)
    assert first.next is not None
    rest = await catalogue.find_apartments("jardim", limit=2, after=first.next)
    assert [each.apartment for each in (*first.items, *rest.items)] == list(APARTMENTS)
    assert rest.next is None
    one = await catalogue.apartment("jardim", "102 bloco B")
    assert one is not None and one.apartment == APARTMENTS[1]
    assert await catalogue.apartment("jardim", "999") is None
    with pytest.raises(StorageRefused, match="cursor"):
        await catalogue.find_apartments("jardim", after="nonsense")
    with pytest.raises(StorageRefused, match="length"):
        await catalogue.find_apartments("jardim", limit=201)


async def test_rows_that_somebody_spoilt_are_named_and_nothing_else_stops(
    catalogue: Catalogue, shell: Shell
) -> None:
    await filled(catalogue)
    await shell.run("UPDATE residents SET quiet = '[\"noon\"]' WHERE contact = 1")
    with pytest.raises(StorageUnavailable, match="jardim") as refused:
        await catalogue.directory("jardim")
    assert refused.value.reason == "corrupt"
    with pytest.raises(StorageUnavailable):
        await catalogue.remove_apartment("jardim", "102 bloco B", expected=None, by=ANA, at=at())
    assert await put(catalogue) == 1


async def test_standing_authorisations_are_put_and_taken_back(
    storage: SqlStorage, catalogue: Catalogue
) -> None:
    await filled(catalogue)
    said = {"by": ANA, "at": at(1)}
    page = await catalogue.standing("jardim")
    assert [(each.apartment, each.authorisation) for each in page.items] == [
        ("102 bloco B", CLEANER),
        ("102 bloco B", COURIER),
    ]
    kept = page.items[0].id
    one, version = await catalogue.put_standing("jardim", "101", COURIER, expected=1, **said)
    assert version == 2
    data = (await last_record(storage, "jardim", "directory.changed")).data
    assert data["standing"] == one and "Ligeiras" not in str(data)
    until = replace(COURIER, until=date(2026, 11, 22))
    assert await catalogue.put_standing("jardim", "101", until, id=one, expected=2, **said) == (one, 3)
    assert await catalogue.put_standing("jardim", "101", until, id=one, expected=3, **said) == (one, 3)
    page = await catalogue.standing("jardim", "101")
    assert page.items == (StoredStanding("jardim", one, "101", until),)
    with pytest.raises(NotThere):
        await catalogue.put_standing("jardim", "999", COURIER, expected=None, **said)
    with pytest.raises(NotThere):
        await catalogue.put_standing("jardim", "cobertura", COURIER, id=one, expected=None, **said)
    assert await catalogue.remove_standing("jardim", one, expected=3, **said) == 4
    with pytest.raises(NotThere):
        await catalogue.remove_standing("jardim", one, expected=None, **said)
    await catalogue.replace_directory("jardim", APARTMENTS[1:], expected=4, **said)
    assert (await catalogue.standing("jardim")).items[0].id == kept  # the same authorisation, the same id


async def test_standing_authorisations_are_paged(catalogue: Catalogue) -> None:
    await filled(catalogue)
    seen: list[StoredStanding] = []
    after = None
    while True:
        page = await catalogue.standing("jardim", after=after, limit=1)
        seen += page.items
        if (after := page.next) is None:
            break
    assert [each.authorisation for each in seen] == [CLEANER, COURIER]


# --------------------------------------------------------------------------------------------------------
# Operators and keys
# --------------------------------------------------------------------------------------------------------


async def operator(catalogue: Catalogue, login: str = "ana", **changes: Any) -> None:
    values = {
        "name": "Ana",
        "password_hash": "$hash",
        "role": "manager",
        "tenant": None,
        "by": "command:root",
    }
    await catalogue.add_operator(login, **{**values, "at": at(), **changes})


async def test_operators_are_kept_and_their_passwords_never_said(
    storage: SqlStorage, catalogue: Catalogue
) -> None:
    await operator(catalogue)
    await operator(catalogue, "bia", tenant="jardim", role="viewer")
    assert [each.login for each in await catalogue.operators()] == ["ana", "bia"]
    assert [each.login for each in await catalogue.operators("jardim")] == ["bia"]
    found = await catalogue.credentials("ana")
    assert found is not None and found[1] == "$hash" and found[0].role == "manager"
    assert await catalogue.credentials("nobody") is None and await catalogue.operator("nobody") is None
    await catalogue.set_password("ana", "$other", by="command:root", at=at(1))
    with pytest.raises(AlreadyThere):
        await operator(catalogue)
    for login in ("", "Ana", " ana"):
        with pytest.raises(StorageRefused):
            await operator(catalogue, login)
    with pytest.raises(StorageRefused):
        await operator(catalogue, "cris", role="owner")
    said = await records(storage, kinds=["operator.changed"])
    assert [(each.tenant, each.data["login"], each.data["action"]) for each in said] == [
        ("", "ana", "created"),
        ("", "ana", "password"),
        ("jardim", "bia", "created"),
    ]
    assert "$" not in str(said)


async def test_a_session_holds_until_it_ends(catalogue: Catalogue) -> None:
    await operator(catalogue)
    begin = {"at": at(), "expires_at": at(3600)}
    await catalogue.begin_session("h1", "ana", "csrf", **begin)
    found = await catalogue.session("h1", at=at(3599))
    assert found is not None and found.operator.login == "ana" and found.csrf == "csrf"
    assert await catalogue.session("h1", at=at(3600)) is None
    assert await catalogue.session("h2", at=at()) is None
    await catalogue.end_session("h1")
    await catalogue.end_session("h1")
    assert await catalogue.session("h1", at=at()) is None
    with pytest.raises(NotThere):
        await catalogue.begin_session("h3", "nobody", "csrf", **begin)


async def test_sessions_end_with_the_password_and_with_the_operator(
    storage: SqlStorage, catalogue: Catalogue, shell: Shell
) -> None:
    await operator(catalogue)
    begin = {"at": at(), "expires_at": at(3600)}
    await catalogue.begin_session("h1", "ana", "c", **begin)
    await catalogue.set_password("ana", "$new", by=ANA, at=at(1))
    assert await catalogue.session("h1", at=at(2)) is None
    await catalogue.begin_session("h2", "ana", "c", **begin)
    changed = await catalogue.change_operator("ana", disabled=True, by="command:root", at=at(3))
    assert changed.disabled
    assert await catalogue.session("h2", at=at(4)) is None
    with pytest.raises(NotThere):
        await catalogue.begin_session("h3", "ana", "c", **begin)
    await catalogue.change_operator("ana", disabled=False, role="viewer", by="command:root", at=at(5))
    await catalogue.begin_session("h4", "ana", "c", **begin)
    await catalogue.begin_session("h5", "ana", "c", at=at(4000), expires_at=at(5000))
    assert [row["id_hash"] for row in await shell.rows("SELECT id_hash FROM operator_sessions")] == ["h5"]
    with pytest.raises(NotThere):
        await catalogue.change_operator("nobody", disabled=True, by=ANA, at=at())
    said = await records(storage, kinds=["operator.changed"])
    assert [each.data["action"] for each in said] == ["created", "password", "disabled", "enabled"]


async def key(catalogue: Catalogue, id_: str = "k1", **changes: Any) -> Any:
    values: dict[str, Any] = {
        "name": "PBX",
        "role": "pbx",
        "scopes": None,
        "tenant": None,
        "expires_at": None,
    }
    return await catalogue.add_key(id_, "sha-of-it", **{**values, "by": ANA, "at": at(), **changes})


async def test_keys_are_made_used_and_revoked(storage: SqlStorage, catalogue: Catalogue) -> None:
    made = await key(catalogue)
    other = await key(catalogue, "k2", tenant="jardim", scopes={"calls:write", "calls:read"}, at=at(1))
    assert other.scopes == ("calls:read", "calls:write")
    assert await catalogue.key("k1") == (made, "sha-of-it")
    assert await catalogue.key("none") is None
    assert await catalogue.keys() == [other, made] and await catalogue.keys("jardim") == [other]
    with pytest.raises(AlreadyThere):
        await key(catalogue)
    assert made.holds(at(9))
    revoked = await catalogue.revoke_key("k1", by=ANA, at=at(5))
    assert revoked.revoked_at == at(5) and not revoked.holds(at(6))
    assert await catalogue.revoke_key("k1", by=ANA, at=at(6)) == revoked
    with pytest.raises(NotThere):
        await catalogue.revoke_key("none", by=ANA, at=at(6))
    assert (await key(catalogue, "k3", expires_at=at(60))).holds(at(59))
    assert not (await key(catalogue, "k4", expires_at=at(60))).holds(at(60))
    said = await records(storage, kinds=["key.changed"])
    assert [each.data["key"] for each in said if each.data["action"] == "revoked"] == ["k1"]
    assert "sha-of-it" not in str(said)


async def test_the_use_of_a_key_is_noted_once_a_minute(catalogue: Catalogue) -> None:
    made = await key(catalogue)
    counter = await catalogue.counter()

    async def used(seconds: float) -> str | None:
        found = await catalogue.key("k1")
        assert found is not None
        await catalogue.key_used(found[0], at(seconds))
        again = await catalogue.key("k1")
        assert again is not None
        return again[0].used_at

    assert made.used_at is None
    assert await used(10) == at(10)
    assert await used(69) == at(10)
    assert await used(71) == at(71)
    await catalogue.key_used(made, at(80))  # known as it was long ago
    assert await used(81) == at(71)
    assert await catalogue.counter() == counter


# --------------------------------------------------------------------------------------------------------
# Reviews, and the log
# --------------------------------------------------------------------------------------------------------


async def test_the_last_review_counts_and_all_are_on_record(storage: SqlStorage) -> None:
    visit = await whole_visit(storage)
    review = storage.catalogue.review
    await review(visit.id, "wrong", "Abriu sem perguntar", by=ANA, at=at(100))
    await review(visit.id, "right", "", by="operator:bia", at=at(200))
    view = await storage.visit(visit.id)
    assert view is not None and view.review is not None and view.summary.verdict == "right"
    assert (view.review.verdict, view.review.note, view.review.by) == ("right", "", "operator:bia")
    said = await records(storage, visit=visit.id, kinds=["visit.reviewed"])
    assert [each.data["verdict"] for each in said] == ["wrong", "right"]
    with pytest.raises(NotThere):
        await review("00000000-0000-4000-8000-000000000000", "right", "", by=ANA, at=at())
    with pytest.raises(StorageRefused):
        await review(visit.id, "perhaps", "", by=ANA, at=at())  # type: ignore[arg-type]
    assert await storage.verify() == []


async def test_a_review_that_nobody_gave_is_found(storage: SqlStorage, shell: Shell) -> None:
    visit = await whole_visit(storage)
    await storage.catalogue.review(visit.id, "wrong", "", by=ANA, at=at())
    await shell.run("UPDATE reviews SET verdict = 'right'")
    assert [fault.place for fault in await storage.verify()] == ["reviews.verdict"]


async def test_the_log_is_sound_after_all_kinds_of_changes(storage: SqlStorage) -> None:
    catalogue = storage.catalogue
    await put(catalogue)
    await filled(catalogue)
    await operator(catalogue)
    await key(catalogue, tenant="jardim")
    visit = await (await Visit(storage).begin()).decide("denied")
    await catalogue.review(visit.id, "right", "ok", by=ANA, at=at())
    await catalogue.remove_tenant("jardim", expected=None, by=ANA, at=at())
    assert await storage.verify() == []


async def test_many_writers_at_once_neither_wait_for_each_other_nor_lose_anything(place: Place) -> None:
    """Visits are recorded while tenants, directories, operators and keys of several chains change."""
    numbers = count()

    async def change(storage: SqlStorage, tenant: str) -> None:
        catalogue = storage.catalogue
        for _ in range(4):
            n = next(numbers)
            ports = {"visitor_port": 10_000 + 2 * n, "resident_port": 10_001 + 2 * n}
            await put(catalogue, tenant, **ports)
            await catalogue.replace_directory(
                tenant, (replace(APARTMENTS[0], dial=(str(n),)),), expected=None, by=ANA, at=at()
            )
            await key(catalogue, f"k{n}", tenant=tenant)
            await operator(catalogue, f"o{n}", tenant=tenant)
            await catalogue.begin_session(f"s{n}", f"o{n}", "c", at=at(n), expires_at=at(n + 2))

    async def visit(storage: SqlStorage, tenant: str) -> None:
        for _ in range(3):
            await (await Visit(storage, tenant).begin()).decide()

    async with await place.open() as one, await place.open() as other:
        await asyncio.gather(
            *(change(one, f"t{n}") for n in range(3)),
            *(change(other, f"t{n}") for n in range(3)),
            *(visit(each, f"t{n}") for n in range(3) for each in (one, other)),
        )
        assert len(await one.catalogue.operators()) == 24 and len(await one.catalogue.keys()) == 24
        assert await one.catalogue.directory_versions() == {"t0": 8, "t1": 8, "t2": 8}
        assert len(await one.visits()) == 18
        assert await one.verify() == []
