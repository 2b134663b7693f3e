"""`porteiro tenant`: settings come in whole, checked with all others, or not at all; all can be looked up."""

from __future__ import annotations

import asyncio
import getpass
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.cli import main
from bridge.commands.catalogue import Refused
from bridge.commands.tenant import read_settings
from storage.base import Storage
from storage.sqlite import SqliteStorage
from visits.directory import Apartment

FILES = """\
[service]
data_dir = "data"

[tenants.jardim]
name = "Condomínio Jardim"
provider = "openai"
visitor_port = 9301
resident_port = 9302
"""
SOL = """\
name = "Condomínio Sol"
provider = "openai"
visitor_port = 9401
resident_port = 9402
numbers = ["4002"]

[limits]
dial_attempts = 2
"""


class Stdin:
    def __init__(self, content: str) -> None:
        self.buffer = io.BytesIO(content.encode())


class House:
    """A settings file, its database, and somebody who gives commands."""

    def __init__(self, home: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = home
        self.capsys = capsys
        self.monkeypatch = monkeypatch
        self.write("porteiro.toml", FILES)

    def write(self, name: str, text: str) -> str:
        (self.home / name).write_text(text, encoding="utf-8")
        return name

    def run(self, *arguments: str, typed: str = "") -> tuple[int, str, str]:
        """Exit status, standard output, standard error."""
        self.monkeypatch.setattr(sys, "stdin", Stdin(typed))
        status = main(["tenant", *arguments])
        said = self.capsys.readouterr()
        return status, said.out, said.err

    def set(self, text: str = SOL, *more: str, tenant: str = "sol") -> tuple[int, str, str]:
        return self.run("set", tenant, self.write("wanted", text), *more)

    def do(self, work: Any) -> Any:
        async def carry_out() -> Any:
            async with await SqliteStorage.open(self.home / "data" / "porteiro.db") as storage:
                return await work(storage)

        return asyncio.run(carry_out())

    def version(self) -> int:
        found = self.do(lambda storage: storage.catalogue.tenant("sol"))
        return 0 if found is None else int(found.version)


@pytest.fixture
def house(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-a-test")
    return House(tmp_path, capsys, monkeypatch)


def test_a_tenant_is_set_shown_listed_and_removed(house: House) -> None:
    status, said, wrong = house.set()
    assert (status, wrong) == (0, "") and "+ numbers" in said and "sol: version 1" in said
    status, shown, _ = house.run("show", "sol")
    assert status == 0 and json.loads(shown)["limits"] == {"dial_attempts": 2}
    assert house.run("set", "sol", "-", typed=shown)[1].endswith(
        "nothing differs\n"
    )  # what show says, set reads
    rows = json.loads(house.run("list", "--json")[1])
    assert [(row["id"], row["version"]) for row in rows] == [("jardim", None), ("sol", 1)]
    assert rows[0]["kept_in"].endswith("porteiro.toml")
    assert "Condomínio Sol" in house.run("list")[1]
    assert house.run("remove", "sol", "--dry-run")[0] == 0 and house.version() == 1
    assert house.run("remove", "sol")[0] == 0 and house.version() == 0
    assert house.run("show", "sol")[0] == 1 and house.run("remove", "sol")[0] == 1
    history = json.loads(house.run("history", "sol", "--json")[1])
    assert [each["settings"] is None for each in history] == [True, False]
    assert history[1]["by"] == f"command:{getpass.getuser()}"
    assert json.loads(house.run("show", "sol", "--version", "1")[1])["name"] == "Condomínio Sol"
    assert "removed" in house.run("history", "sol")[1]
    assert house.run("history", "mar")[0] == 1


def test_a_dry_run_says_what_differs_and_writes_nothing(house: House) -> None:
    house.set()
    status, said, _ = house.set(SOL.replace("dial_attempts = 2", "dial_attempts = 3"), "--dry-run")
    assert status == 0 and said.splitlines()[0] == "~ limits.dial_attempts: 2 → 3"
    assert "nothing was written" in said and house.version() == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (SOL.replace("9401", "9301"), "9301"),
        (SOL.replace("9402", "9401"), "9401"),
        (SOL + "rings = 2\n", "limits.rings"),
        (SOL.replace("dial_attempts = 2", "dial_attempts = 0"), "limits.dial_attempts"),
        ('directory = "a.json"\n' + SOL, "directory"),
        (SOL.replace('"openai"', '"nobody"'), "provider"),
        ("name = ", "TOML"),
        ("{", "JSON"),
        ("name = 2026-01-01\n", "JSON"),
        ("[tenants.mar]\nname = 'Mar'\n", "mar"),
        ("[tenants]\nsol = 3\n", "no settings"),
        ("", "no settings"),
        ("[1", "TOML"),
    ],
)
def test_what_can_not_be_is_refused_as_a_whole_with_its_field(house: House, text: str, problem: str) -> None:
    house.set()
    for more in ((), ("--dry-run",)):
        status, _, said = house.set(text, *more)
        assert status == 1 and problem in said, said
    assert house.version() == 1


def test_each_problem_has_a_line(house: House) -> None:
    _, _, said = house.set(SOL.replace("dial_attempts = 2", "dial_attempts = 0\nrings = 2"))
    lines = said.splitlines()
    assert len(lines) == 2 and all(line.startswith("porteiro tenant: tenants.sol.limits.") for line in lines)


def test_no_two_tenants_of_the_database_share_a_port_or_a_number(house: House) -> None:
    house.set()
    other = SOL.replace("9401", "9501").replace("9402", "9502")
    status, _, said = house.set(other, tenant="mar")
    assert status == 1 and "4002" in said and "sol" in said
    assert house.set(other.replace("4002", "4003"), tenant="mar")[0] == 0


def test_a_tenant_of_the_files_is_not_set_here(house: House) -> None:
    status, _, said = house.set(tenant="jardim")
    assert status == 1 and "porteiro.toml" in said
    assert house.run("show", "jardim")[0] == 1 and house.run("remove", "jardim")[0] == 1


def test_an_expected_version_that_is_not_there(house: House) -> None:
    assert house.set(SOL, "--expected", "1")[0] == 1
    assert house.set(SOL, "--expected", "0")[0] == 0
    changed = SOL.replace("Sol", "Sol Nascente")
    status, _, said = house.set(changed, "--expected", "0")
    assert status == 1 and "found version 1" in said
    assert house.set(changed, "--expected", "1")[0] == 0


def test_nothing_but_the_answer_is_on_standard_output(house: House) -> None:
    house.set()
    house.monkeypatch.delenv("OPENAI_API_KEY")  # which the tenants need: this is logged
    other = 'provider = "local"\nvisitor_port = 9501\nresident_port = 9502\n'
    _, said, wrong = house.set(other, "--dry-run", tenant="mar")
    assert "settings.refused" not in said and ("settings.refused" in wrong or "OPENAI_API_KEY" in wrong)


def test_a_file_with_just_its_table_is_taken_too(house: House) -> None:
    assert house.set("[tenants.sol]\nname = 'Sol'\nprovider = 'openai'\nvisitor_port = 9401\n")[0] == 0


def test_removing_says_what_goes(house: House) -> None:
    house.set()

    async def fill(storage: Storage) -> int:
        home = Apartment("1", None, ("Ana Prado",), ("1",))
        at = "2026-11-21T13:05:00.000000+00:00"
        return await storage.catalogue.replace_directory("sol", [home], expected=0, by="operator:a", at=at)

    house.do(fill)
    assert "1 apartments" in house.run("remove", "sol", "--dry-run")[1]


def test_files_that_are_not_there_and_too_large_ones(house: House) -> None:
    assert house.run("set", "sol", "missing.toml")[0] == 2
    assert house.set("#" * 300_000)[0] == 1
    for wrong in (("set", "a b", "x"), ("show", "sol", "--version", "x")):
        with pytest.raises(SystemExit):
            house.run(*wrong)


@given(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
def test_any_bytes_are_settings_or_refused(content: bytes) -> None:
    try:
        found = read_settings(content, "sol")
    except Refused:
        return
    assert isinstance(found, dict)
    json.dumps(found, allow_nan=False)
