"""Tenants that are kept in the database: new, changed and gone while the service runs, on every service."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from bridge.service import Service
from bridge.settings import load
from storage.address import Database
from storage.catalogue import Catalogue
from storage.opening import open_storage
from storage.postgresql import PostgresStorage
from storage.sqlite import SqliteStorage
from tests.postgres import Postgres
from tests.service.changing import Folder, running, started, usual
from tests.service.doorman import Cast
from tests.service.household import ROOT, Household, spoken_by_host, until
from visits.audit import stamp
from visits.directory import Directory

AT = stamp(datetime(2026, 1, 1, tzinfo=UTC))
BY = "operator:ana"
PEOPLE = Directory.from_records(json.loads((ROOT / "data" / "apartamentos.json").read_bytes()))


def table(**own: Any) -> dict[str, Any]:
    """What is put into the database: the directory is there as well."""
    made = usual(visitor_port=0, resident_port=0, **own)
    del made["directory"]
    return made


async def put(catalogue: Catalogue, name: str, **own: Any) -> None:
    await catalogue.put_tenant(name, table(**own), expected=None, by=BY, at=AT)


async def put_people(catalogue: Catalogue, name: str) -> None:
    await catalogue.replace_directory(name, PEOPLE.apartments, expected=None, by=BY, at=AT)


async def in_force(house: Household, name: str, version: int, what: str) -> float:
    """Wait until a version is; how long that took, in seconds."""
    began = time.monotonic()

    def there() -> bool:
        one = house.service.tenancy.in_force.get(name)
        return one is not None and one.version.number == version

    await until(there, what=what)
    return time.monotonic() - began


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
async def test_a_tenant_of_the_database_comes_changes_and_goes(
    tmp_path: Path, dialect: str, request: pytest.FixtureRequest
) -> None:
    """Changed by another process, as far as the service knows: nobody tells it but the database."""
    url = await _url(request) if dialect == "postgresql" else f"sqlite:///{tmp_path}/own.db"
    folder = Folder(tmp_path / "one", database_url=url)
    async with Cast() as cast, running(folder.file) as house:
        assert house.service.not_ready() == ["no_tenants"]
        other = await (
            PostgresStorage.open(url) if dialect == "postgresql" else SqliteStorage.open(tmp_path / "own.db")
        )
        async with other:
            catalogue = other.catalogue
            await put(catalogue, "jardim", base_url=cast.url, greeting="Bom dia um.")
            assert await in_force(house, "jardim", 1, "the tenant") < 1.0
            assert house.service.not_ready() == []
            await put_people(catalogue, "jardim")
            tenancy = house.service.tenancy
            await until(lambda: tenancy.directory_of("jardim") == PEOPLE, 1.0, "the directory")
            first, second = uuid4(), uuid4()
            await house.visit("jardim", visit=first)
            await put(catalogue, "jardim", base_url=cast.url, greeting="Bom dia dois.")
            assert await in_force(house, "jardim", 2, "the change") < 1.0
            await house.visit("jardim", visit=second)
            for number, visit in enumerate((first, second), 1):
                assert (await house.outcome(visit))[0] == "authorized"
                about = (await started(house, visit)).data
                stored = await catalogue.version("jardim", number)
                assert stored is not None
                assert about["settings"] == {"version": number, "digest": stored.digest}
            await put(catalogue, "jardim", provider="nobody")
            await until(lambda: tenancy.refused, what="the refusal")
            assert tenancy.version_of("jardim").number == 2
            ports = house.service.ports("jardim")
            await catalogue.remove_tenant("jardim", expected=None, by=BY, at=AT)
            await until(lambda: "jardim" not in tenancy.current, 1.0, "its end")
            assert not tenancy.refused
            with pytest.raises(OSError):
                await asyncio.open_connection("127.0.0.1", ports[0])
    said = spoken_by_host(cast, "visitor")
    assert [said.count(text) for text in ("Bom dia um.", "Bom dia dois.")] == [1, 1]


async def _url(request: pytest.FixtureRequest) -> str:
    server: Postgres = request.getfixturevalue("postgres")
    return await server.make()


async def test_two_services_on_one_postgresql_follow_within_a_second(
    tmp_path: Path, postgres_url: str
) -> None:
    folders = [Folder(tmp_path / name, database_url=postgres_url) for name in ("one", "two")]
    async with Cast() as cast, running(folders[0].file) as one, running(folders[1].file) as two:
        catalogue = one.service.catalogue
        await put(catalogue, "jardim", base_url=cast.url)
        await put_people(catalogue, "jardim")
        for number in range(2, 8):
            greeting = f"Bom dia {number}."
            await put(catalogue, "jardim", base_url=cast.url, greeting=greeting)
            began = time.monotonic()
            await asyncio.gather(*(in_force(each, "jardim", number, "the change") for each in (one, two)))
            assert time.monotonic() - began < 1.0
            assert {each.service.tenancy.current["jardim"].greeting for each in (one, two)} == {greeting}
        for house in (one, two):
            visit = uuid4()
            await house.visit("jardim", visit=visit)
            assert (await house.outcome(visit))[0] == "authorized"
            assert dict((await started(house, visit)).data)["settings"]["version"] == 7


async def test_our_own_change_is_in_force_when_it_is_asked_for(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    async with running(folder.file) as house:
        assert await house.service.tenancy.propose({"jardim": table()}) == []
        await put(house.service.catalogue, "jardim")
        await house.service.tenancy.reload()
        assert "jardim" in house.service.tenancy.current


async def test_what_is_proposed_is_held_against_all_there_is(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.tenant("bosque", numbers=["7"], visitor_port=0, resident_port=0)
    async with running(folder.file) as house:
        tenancy = house.service.tenancy
        told: list[str] = []
        for own in (
            {"provider": "nobody"},
            {"numbers": ["7"]},
            {"api_key": "sk-secret"},
            {"directory": "x.json"},
            {"api_key_env": "NOT_SET"},
        ):
            told += await tenancy.propose({"jardim": {**table(), **own}})
        told += await tenancy.propose({"bosque": table()})
        begins = [
            "tenants.jardim.provider: found 'nobody'",
            "tenants.jardim.numbers: found '7', which tenants.bosque has",
            "tenants.jardim.api_key: secrets don't belong in the settings",
            "tenants.jardim.directory: found a file",
            "tenants.jardim.api_key_env: the environment variable NOT_SET is not set",
            "tenants.bosque: found in porteiro.d/bosque.toml and in the database",
        ]
        for begin in begins:
            assert any(line.startswith(begin) for line in told), (begin, told)
        assert len(told) == len(begins), told
        assert await tenancy.propose({"jardim": table(), "cedro": None}) == []
        assert list(tenancy.current) == ["bosque"]


async def test_an_id_in_a_file_and_in_the_database_is_an_error_that_names_both(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.tenant("jardim", greeting="Do arquivo.")
    async with running(folder.file) as house:
        await put(house.service.catalogue, "jardim", greeting="Do banco.")
        tenancy = house.service.tenancy
        await until(lambda: tenancy.refused, what="the refusal")
        (line,) = tenancy.refused["jardim"]
        assert "porteiro.d/jardim.toml and in the database" in line
        assert tenancy.current["jardim"].greeting == "Do arquivo."
        folder.gone("jardim")
        await until(lambda: tenancy.current["jardim"].greeting == "Do banco.", what="the other one")


async def test_a_start_without_the_database_goes_by_the_last_good_copy(
    tmp_path: Path, own_postgres: Postgres
) -> None:
    url = await own_postgres.make()
    folder = Folder(tmp_path, database_url=url)
    copy = tmp_path / "data" / "tenants.last.json"
    async with Cast() as cast:
        folder.tenant("bosque", base_url=cast.url)
        text = (folder.fragments / "bosque.toml").read_text()
        kept = "".join(line for line in text.splitlines(True) if not line.startswith("directory"))
        folder.write(folder.fragments / "bosque.toml", kept)  # its directory is in the database as well
        async with running(folder.file) as house:
            await put_people(house.service.catalogue, "bosque")
            await put_people(house.service.catalogue, "jardim")
            await put(house.service.catalogue, "jardim", base_url=cast.url, api_key_env="OPENAI_API_KEY")
            await until(lambda: "jardim" in house.service.tenancy.current, what="the tenant")
            await until(lambda: copy.exists() and '"jardim"' in copy.read_text(), what="the copy")
            last = house.service.tenancy.version_of("jardim")
        assert copy.stat().st_mode & 0o777 == 0o600
        assert "a key" not in copy.read_text()
        await asyncio.to_thread(own_postgres.kill)
        async with running(folder.file) as house:
            tenancy = house.service.tenancy
            assert set(house.service.warnings()) == {"database_away", "settings_from_copy"}
            assert tenancy.version_of("jardim") == last
            assert tenancy.directory_of("bosque") == tenancy.directory_of("jardim") == PEOPLE
            phone = await house.visit("jardim")
            assert phone.closed.result().kind == "hangup"
            await asyncio.to_thread(own_postgres.start)
            await until(lambda: house.service.warnings() == [], 30, "the database")
            await put(house.service.catalogue, "jardim", base_url=cast.url, greeting="De volta.")
            await until(lambda: tenancy.current["jardim"].greeting == "De volta.", what="the change")
    assert len(spoken_by_host(cast, "visitor")) > 1


async def test_a_copy_that_is_damaged_or_of_another_database_is_not_used(
    tmp_path: Path, own_postgres: Postgres
) -> None:
    url = await own_postgres.make()
    other = await own_postgres.make()
    folder = Folder(tmp_path, database_url=url)
    folder.tenant("bosque")
    async with running(folder.file) as house:
        await put(house.service.catalogue, "jardim")
        await until(lambda: "jardim" in house.service.tenancy.current, what="the tenant")
    await asyncio.to_thread(own_postgres.kill)
    copy = tmp_path / "data" / "tenants.last.json"
    whole = copy.read_text()
    for text in (whole[: len(whole) // 2], whole.replace('"format": 1', '"format": 9'), None):
        if text is None:
            folder.write(folder.file, folder.file.read_text().replace(url, other))
        copy.write_text(whole if text is None else text)
        service = Service(load(folder.file, {"OPENAI_API_KEY": "a key"}))
        await service.start()
        assert list(service.tenancy.current) == ["bosque"]
        assert service.warnings() == ["database_away"]
        await service.stop()


async def test_versions_get_their_numbers_when_the_database_is_back(
    tmp_path: Path, own_postgres: Postgres
) -> None:
    url = await own_postgres.make()
    folder = Folder(tmp_path, database_url=url)
    folder.tenant("jardim")
    await asyncio.to_thread(own_postgres.kill)
    async with running(folder.file) as house:
        tenancy = house.service.tenancy
        assert tenancy.version_of("jardim").number is None
        assert tenancy.version_of("jardim").as_record().keys() == {"digest"}
        await asyncio.to_thread(own_postgres.start)
        await until(lambda: tenancy.version_of("jardim").number == 1, 30, "the number")
    async with await open_storage(Database(url=url)) as storage:
        assert (await storage.catalogue.history("jardim")).items[0].source.endswith("jardim.toml")
