"""`porteiro import --into database`: the same plan, the same dry run; all of it is in force, or nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from bridge.cli import main
from bridge.importing.into_database import carry_out
from bridge.importing.plan import Plan, Problem
from storage.catalogue import Catalogue, SettingsVersion
from storage.sqlite import SqliteStorage
from tests.importing.test_extensions import ramal
from tests.importing.test_import_command import CSV
from visits.audit import AuditRecord

T = TypeVar("T")
AT = "2026-11-21T13:05:00.000000+00:00"


class Home:
    """A directory with what came from elsewhere, and a database."""

    def __init__(self, place: Path, capsys: Any) -> None:
        self.place = place
        self.capsys = capsys

    def ramais(self, *rows: dict[str, Any]) -> str:
        (self.place / "ramais_config.json").write_text(json.dumps({"ramais": rows}), encoding="utf-8")
        return "ramais_config.json"

    def sheet(self, text: str = CSV) -> str:
        (self.place / "lista.csv").write_bytes(text.encode("cp1252"))
        return "lista.csv"

    def run(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Exit status, and the plan."""
        status = main(["import", "--into", "database", "--json", *arguments])
        said = self.capsys.readouterr()
        return status, json.loads(said.out) if said.out else {"said": said.err}

    def do(self, work: Callable[[Catalogue], Awaitable[T]]) -> T:
        async def carry_out() -> T:
            async with await SqliteStorage.open(self.place / "var" / "porteiro.db") as storage:
                return await work(storage.catalogue)

        return asyncio.run(carry_out())

    def tenants(self) -> dict[str, SettingsVersion]:
        return {one.tenant: one for one in self.do(lambda catalogue: catalogue.tenants())}

    def labels(self, tenant: str) -> list[str]:
        found = self.do(lambda catalogue: catalogue.directory(tenant))
        return [] if found is None else [one.label for one in found.directory.apartments]

    def records(self) -> list[AuditRecord]:
        async def look() -> list[AuditRecord]:
            async with await SqliteStorage.open(self.place / "var" / "porteiro.db") as storage:
                assert await storage.verify() == []
                return [record async for record in storage.audit()]

        return asyncio.run(look())


@pytest.fixture
def home(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-a-test")
    (tmp_path / "porteiro.toml").write_text("[service]\n", encoding="utf-8")
    return Home(tmp_path, capsys)


OURS = ("--provider", "openai")


def test_tenants_and_a_directory_come_in_together(home: Home) -> None:
    ramais, sheet = home.ramais(ramal()), home.sheet()
    command = (ramais, sheet, "--tenant", "condominio-3", *OURS)
    status, plan = home.run(*command, "--dry-run")
    assert status == 0 and not plan["written"] and plan["files"] == {}
    assert home.tenants() == {}
    status, done = home.run(*command)
    assert status == 0 and done == {**plan, "written": True}
    assert set(done["database"].values()) == {"write"}
    (one,) = home.tenants().values()
    assert one.tenant == "condominio-3" and one.content is not None and one.content["provider"] == "openai"
    assert home.labels("condominio-3") == ["101 bloco A", "102 bloco B"]
    assert not (home.place / "porteiro.d").exists() and not (home.place / "directories").exists()
    said = {record.kind: record.data for record in home.records()}
    assert said["settings.changed"]["by"] == "import:extension"
    assert said["directory.changed"]["source"] == f"{ramais}, {sheet}"
    assert "Ana Prado" not in str(said)


def test_the_same_once_more_changes_nothing(home: Home) -> None:
    command = (home.ramais(ramal()), home.sheet(), "--tenant", "condominio-3", *OURS)
    home.run(*command)
    before = home.records()
    status, plan = home.run(*command)
    assert status == 0 and {one["action"] for one in plan["changes"]} == {"leave"}
    assert home.records() == before


def test_what_people_set_beside_it_stays(home: Home) -> None:
    home.run(home.ramais(ramal()), *OURS)
    (one,) = home.tenants().values()
    assert one.content is not None
    own = {**one.content, "greeting": "Oi"}
    home.do(lambda catalogue: catalogue.put_tenant(one.tenant, own, expected=1, by="operator:ana", at=AT))
    status, plan = home.run(home.ramais(ramal(ramal_ia="1099")), *OURS)
    (new,) = home.tenants().values()
    assert status == 0 and new.content is not None and new.content["greeting"] == "Oi"
    assert "1099" in str(plan["changes"]) and "1099" in new.content["numbers"]


def test_what_the_source_has_no_more_goes_where_that_is_asked_for_and_it_is_no_persons(home: Home) -> None:
    both = (
        ramal(),
        ramal(
            id=8, condominio_id=8, ramal_ia="2001", ramal_retorno="2002", porta_ia=9701, porta_retorno=9702
        ),
    )
    third = ramal(
        id=9, condominio_id=9, ramal_ia="3001", ramal_retorno="3002", porta_ia=9801, porta_retorno=9802
    )
    assert home.run(home.ramais(*both, third), *OURS)[0] == 0
    names = set(home.tenants())
    nine = next(name for name in names if name.endswith("9"))
    kept = home.tenants()[nine].content
    assert kept is not None
    home.do(
        lambda catalogue: catalogue.put_tenant(
            nine, {**kept, "greeting": "Oi"}, expected=1, by="operator:ana", at=AT
        )
    )
    assert home.run(home.ramais(ramal()), *OURS)[0] == 0
    assert set(home.tenants()) == names
    status, plan = home.run(home.ramais(ramal()), "--replace", *OURS)
    assert status == 0 and [one["tenant"] for one in plan["changes"] if one["action"] == "remove"] == [
        name for name in sorted(names) if name.endswith("8")
    ]
    assert set(home.tenants()) == {"condominio-3", nine}


def test_two_that_swap_their_ports(home: Home) -> None:
    one, other = (
        ramal(porta_ia=9601, porta_retorno=9602),
        ramal(
            id=8, condominio_id=8, ramal_ia="2001", ramal_retorno="2002", porta_ia=9701, porta_retorno=9702
        ),
    )
    assert home.run(home.ramais(one, other), *OURS)[0] == 0
    swapped = (
        {**one, "porta_ia": 9701, "porta_retorno": 9702},
        {**other, "porta_ia": 9601, "porta_retorno": 9602},
    )
    status, plan = home.run(home.ramais(*swapped), *OURS)
    assert status == 0, plan
    ports = {name: (one.content or {})["visitor_port"] for name, one in home.tenants().items()}
    assert ports == {"condominio-3": 9701, "condominio-8": 9601}


def test_what_clashes_with_another_tenant_is_a_problem_and_nothing_is_written(home: Home) -> None:
    command = (home.ramais(ramal()), home.sheet(), "--tenant", "sol", *OURS)
    other = {"provider": "openai", "visitor_port": ramal()["porta_ia"], "resident_port": 9999}
    home.do(lambda catalogue: catalogue.put_tenant("mar", other, expected=0, by="operator:ana", at=AT))
    for more in ((), ("--dry-run",)):
        status, plan = home.run(*command, *more)
        assert status == 1 and "mar" in str(plan["problems"]) and not plan["written"]
    assert set(home.tenants()) == {"mar"} and home.labels("sol") == []


def test_tenants_of_the_files_are_left_to_the_files(home: Home) -> None:
    (home.place / "d.json").write_text("[]", encoding="utf-8")
    said = '[tenants.condominio-3]\nprovider = "openai"\nvisitor_port = 9901\nresident_port = 9902\n'
    (home.place / "porteiro.toml").write_text(said, encoding="utf-8")
    status, plan = home.run(home.ramais(ramal()), *OURS)
    assert status == 1 and "porteiro.toml" in str(plan["problems"])
    status, plan = home.run(home.sheet(), "--tenant", "condominio-3")  # its directory is the database's
    assert status == 0 and home.labels("condominio-3") == ["101 bloco A", "102 bloco B"]
    (home.place / "porteiro.toml").write_text(said + 'directory = "d.json"\n', encoding="utf-8")
    status, plan = home.run(home.sheet(), "--tenant", "condominio-3")
    assert status == 1 and "d.json" in str(plan["problems"])


def test_a_directory_is_merged_and_replaced_as_in_a_file(home: Home) -> None:
    assert home.run(home.sheet(), "--tenant", "sol")[0] == 0
    more = "Apto;Bloco;Morador;Ramal\n103;C;Caio Reis;1003\n"
    assert home.run(home.sheet(more), "--tenant", "sol")[0] == 0
    assert home.labels("sol") == ["101 bloco A", "102 bloco B", "103 bloco C"]
    assert home.run(home.sheet(more), "--tenant", "sol", "--replace")[0] == 0
    assert home.labels("sol") == ["103 bloco C"]


def test_one_wrong_line_and_nothing_comes_in(home: Home) -> None:
    status, plan = home.run(home.sheet(CSV + "103;C;;1003\n"), "--tenant", "sol")
    assert status == 1 and "linha" in str(plan["problems"]) and home.labels("sol") == []


async def test_a_plan_with_problems_is_never_carried_out(tmp_path: Path) -> None:
    async with await SqliteStorage.open(tmp_path / "a.db") as storage:
        plan = Plan(problems=(Problem("a", "b", "c"),))
        with pytest.raises(ValueError, match="a: b: c"):
            await carry_out(plan, storage.catalogue, by="x", at=AT, source="")
