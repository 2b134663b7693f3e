"""`porteiro import`: what it shows, what it writes, and that it writes nothing where anything is wrong."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

import pytest

from bridge.cli import main
from bridge.importing.plan import Plan, Problem
from bridge.importing.tenants import TenantDraft, plan_tenants
from bridge.importing.writer import carry_out
from bridge.settings import load
from tests.importing.test_extensions import ramal
from visits.directory import Directory

EXAMPLE = Path(__file__).parents[2] / "data" / "apartamentos.json"
CSV = """\
Apto;Bloco;Morador;Celular;Ramal
101;A;Ana Prado;11 98888-7777;1001
101;A;Bia Prado;;
102;B;João Melo;;1002
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the files that came from elsewhere."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lista.csv").write_bytes(CSV.encode("cp1252"))
    (tmp_path / "ramais_config.json").write_text(json.dumps({"ramais": [ramal()]}), encoding="utf-8")
    return tmp_path


def run(*arguments: str) -> int:
    return main(["import", *arguments])


def kept(home: Path) -> dict[str, bytes]:
    """All files but the lock."""
    files = (each for each in home.rglob("*") if each.is_file() and each.name != ".lock")
    return {str(each.relative_to(home)): each.read_bytes() for each in files}


def residents_found(tenant: str) -> int:
    """How many residents are found, in the directory that the service reads, by their apartment and name."""
    directory = Directory.from_records(json.loads(Path(load().tenants[tenant].directory or "").read_bytes()))
    found = 0
    for home in directory.apartments:
        match = directory.find_apartment(f"apartamento {home.label}")
        assert match.apartment == home
        found += sum(directory.match_resident(home, name).resident == name for name in home.residents)
    return found


def test_a_whole_condominium_comes_in_and_the_service_finds_each_resident(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("ramais_config.json", "lista.csv", "--tenant", "condominio-3") == 0
    assert "+ create 3" in capsys.readouterr().out
    tenant = load().tenants["condominio-3"]
    assert (tenant.visitor_port, tenant.resident_port, tenant.numbers) == (8080, 8081, ("1001",))
    assert residents_found("condominio-3") == 3
    assert not [line for line in load().problems_at_start() if line.startswith("tenants.")]


def test_a_second_time_there_is_nothing_to_do(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("ramais_config.json", "lista.csv", "--tenant", "condominio-3")
    assert run(*arguments) == 0
    before = kept(home)
    assert run(*arguments) == 0
    assert kept(home) == before
    assert "= leave 3" in capsys.readouterr().out


def test_the_old_directory_comes_in_whole(home: Path) -> None:
    (home / "porteiro.toml").write_text('[tenants.jardim]\ndirectory = "own.json"\n', encoding="utf-8")
    assert run(str(EXAMPLE), "--tenant", "jardim") == 0
    assert json.loads((home / "own.json").read_bytes())[0]["residents"][0] == "Ana Beatriz Silva"
    assert residents_found("jardim") == 15


def test_a_dry_run_shows_everything_and_touches_nothing(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = kept(home)
    arguments = ["ramais_config.json", "lista.csv", "--tenant", "condominio-3", "--dry-run"]
    assert run(*arguments, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert [(one["action"], one["name"]) for one in shown["changes"]] == [
        ("create", "101 bloco A"),
        ("create", "102 bloco B"),
        ("create", "condominio-3"),
    ]
    assert shown["written"] is False and shown["problems"] == []
    assert set(shown["files"].values()) == {"write"} and len(shown["files"]) == 2
    assert run(*arguments) == 0
    table = capsys.readouterr().out
    assert "101 bloco A" in table and "Ana Prado, Bia Prado" in table and "nothing was written" in table
    assert kept(home) == before and not (home / "porteiro.d").exists()


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("lista.csv", CSV + "103;;Davi Reis;maria;\n", "lista.csv: linha 5: número 'maria' não reconhecido"),
        ("ramais_config.json", json.dumps({"ramais": [ramal(), ramal(id=2, porta_ia=0)]}), "row 2: porta_ia"),
        (
            "ramais_config.json",
            json.dumps({"ramais": [ramal(), ramal(id=2, condominio_id=4)]}),
            "tenants.condominio-4: directory: ",
        ),
    ],
)
def test_with_one_thing_wrong_nothing_is_written(
    home: Path, capsys: pytest.CaptureFixture[str], name: str, content: str, problem: str
) -> None:
    (home / name).write_text(content, encoding="utf-8")
    before = kept(home)
    assert run("ramais_config.json", "lista.csv", "--tenant", "condominio-3") == 1
    told = capsys.readouterr()
    assert problem in told.err and "nothing was written" in told.out
    assert kept(home) == before


def test_what_the_whole_of_the_settings_refuses_is_a_problem(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = '[service]\nwebsocket_port = 8081\n[tenants.condominio-3]\nname = "Jardim"\n'
    (home / "porteiro.toml").write_text(text, encoding="utf-8")
    assert run("ramais_config.json", "lista.csv", "--tenant", "condominio-3") == 1
    assert (
        "settings: tenants.condominio-3.resident_port: found 8081, which service.web"
        in capsys.readouterr().err
    )
    assert not (home / "directories").exists()


def test_what_was_written_by_hand_counts_first_and_is_said(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "porteiro.toml").write_text("[tenants.jardim]\nvisitor_port = 9000\n", encoding="utf-8")
    assert run("ramais_config.json", "lista.csv", "--tenant", "jardim", "--as", "3=jardim") == 0
    said = "tenants.jardim.visitor_port: porteiro.toml says 9000, which counts before 8080"
    assert said in capsys.readouterr().out
    tenant = load().tenants["jardim"]
    assert (tenant.visitor_port, tenant.resident_port) == (9000, 8081)


def test_a_name_for_nobody_is_said(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("ramais_config.json", "lista.csv", "--tenant", "condominio-3", "--as", "4=jardim")
    assert run(*arguments, "--dry-run") == 0
    assert "--as 4=jardim: there is no such condominium or client" in capsys.readouterr().out


def test_what_is_not_there_any_more_stays_unless_it_is_to_be_replaced(home: Path) -> None:
    assert run("ramais_config.json", "lista.csv", "--tenant", "condominio-3") == 0
    (home / "ramais_config.json").write_text(json.dumps({"ramais": []}), encoding="utf-8")
    assert run("ramais_config.json") == 0
    assert list(load().tenants) == ["condominio-3"]
    assert run("ramais_config.json", "--replace") == 0
    assert list(load().tenants) == []
    assert (home / "directories" / "condominio-3.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lista.csv"], "whose directory is it? Name the tenant: --tenant jardim"),
        (["none.csv", "--tenant", "a"], "none.csv: No such file"),
        (["lista.csv", "lista.csv", "--tenant", "a"], "found a second directory"),
        (["lista.csv", "--config", "none.toml", "--tenant", "a"], "none.toml: no such file"),
        (["ramais_config.json", "--as", "3:jardim"], "--as 3:jardim: allowed is ID=TENANT"),
        (["ramais_config.json", "--first-port", "0"], "--first-port 0: allowed are 1 to 65534"),
        (["ramais_config.json", "--follow"], "--follow takes one database"),
        (["mysql://host/name"], "must be like postgresql://user@host:5432/name"),
        (["postgresql://user:hush@host/name"], "put it in PGPASSWORD"),
    ],
)
def test_a_command_that_can_not_be_meant(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    before = kept(home)
    assert run(*arguments) == 2
    told = capsys.readouterr().err
    assert message in told and "hush" not in told
    assert kept(home) == before


def test_settings_that_are_wrong_already_are_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "porteiro.toml").write_text("[servise]\n", encoding="utf-8")
    assert run("ramais_config.json", "lista.csv", "--tenant", "condominio-3") == 1
    assert "settings: servise: there is no such setting; did you mean service?" in capsys.readouterr().err


def test_two_imports_never_write_at_once(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = home / "porteiro.d"
    folder.mkdir()
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run("lista.csv", "--tenant", "jardim") == 2
    assert "another import is writing" in capsys.readouterr().err
    assert run("lista.csv", "--tenant", "jardim") == 0


# ---- the files ---------------------------------------------------------------------------------------------


def test_a_plan_with_problems_is_not_carried_out(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a plan with problems"):
        carry_out(Plan(problems=(Problem("x", "", "y"),), files={tmp_path / "a": b"1"}))
    assert not list(tmp_path.iterdir())


def test_where_one_file_can_not_be_written_none_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_bytes(b"old")
    sync = os.fsync
    synced: list[int] = []

    def full(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == 2:
            raise OSError(28, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        carry_out(Plan(files={good: b"new", bad: b"new"}))
    assert kept(tmp_path) == {"good.json": b"old"}


def test_a_file_keeps_its_rights_and_a_link_stays_one(tmp_path: Path) -> None:
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    real.write_bytes(b"old")
    real.chmod(0o640)
    link.symlink_to(real)
    carry_out(Plan(files={link: b"new"}))
    assert link.is_symlink() and real.read_bytes() == b"new"
    assert real.stat().st_mode & 0o777 == 0o640


def test_values_of_a_fragment_are_read_as_they_were(home: Path) -> None:
    (home / "directories").mkdir()
    (home / "directories" / "a.json").write_bytes(EXAMPLE.read_bytes())
    text = 'Aspas "", barra \\, acentos ção, \x7f e\nlinhas\u2028\U0001f600'
    settings: dict[str, Any] = {"prompt_extra": text, "numbers": ["1", "2"], "visitor_port": 9000}
    plan = plan_tenants(
        [TenantDraft("a", settings)], "client", home / "porteiro.toml", removing=False, written={}
    )
    carry_out(plan)
    tenant = load().tenants["a"]
    assert (tenant.prompt_extra, tenant.numbers, tenant.visitor_port) == (text, ("1", "2"), 9000)
