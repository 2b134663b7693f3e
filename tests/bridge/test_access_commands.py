"""`porteiro operator` and `porteiro key`: who is let in, and that no secret is kept or shown twice."""

from __future__ import annotations

import asyncio
import getpass
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bridge.cli import main
from bridge.http.access import digest
from bridge.passwords import matches
from storage.sqlite import SqliteStorage
from visits.audit import AuditRecord

PASSWORD = "correct horse battery"


class Typed(io.StringIO):
    """Standard input from a file or a pipe."""


class Keyboard(Typed):
    def isatty(self) -> bool:
        return True


class Terminal:
    """Runs commands on one database."""

    def __init__(self, file: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.file = file
        self.capsys = capsys
        self.monkeypatch = monkeypatch

    def run(self, *arguments: str, typed: str = "") -> tuple[int, str, str]:
        """Exit status, standard output, standard error."""
        self.monkeypatch.setattr(sys, "stdin", Typed(typed))
        status = main([*arguments, "--db", str(self.file)])
        said = self.capsys.readouterr()
        return status, said.out, said.err

    def kept(self, login: str = "ana") -> str | None:
        async def look() -> str | None:
            async with await SqliteStorage.open(self.file) as storage:
                found = await storage.catalogue.credentials(login)
                return None if found is None else found[1]

        return asyncio.run(look())

    def records(self) -> list[AuditRecord]:
        async def look() -> list[AuditRecord]:
            async with await SqliteStorage.open(self.file) as storage:
                assert await storage.verify() == []
                return [record async for record in storage.audit()]

        return asyncio.run(look())


@pytest.fixture
def terminal(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    return Terminal(tmp_path / "porteiro.db", capsys, monkeypatch)


def add(terminal: Terminal, *more: str, typed: str = f"{PASSWORD}\n") -> tuple[int, str, str]:
    return terminal.run("operator", "add", "ana", "--role", "admin", *more, typed=typed)


def test_an_operator_is_added_with_a_password_from_standard_input(terminal: Terminal) -> None:
    status, out, _ = add(terminal, "--name", "Ana Prado")
    assert (status, out) == (0, "ana may log in to the console: admin of all condominiums\n")
    assert matches(terminal.kept(), PASSWORD)
    status, out, _ = terminal.run("operator", "list", "--json")
    (one,) = json.loads(out)
    assert status == 0 and (one["login"], one["name"], one["role"]) == ("ana", "Ana Prado", "admin")
    assert "Ana Prado" in terminal.run("operator", "list")[1]
    (record,) = terminal.records()
    assert record.data["by"] == f"command:{getpass.getuser()}"
    assert PASSWORD.encode() not in terminal.file.read_bytes()


@pytest.mark.parametrize("typed", ["", "\n", "short\n", "aaaaaaaaaaaaaaaa\n"])
def test_a_bad_password_adds_nobody(terminal: Terminal, typed: str) -> None:
    status, _, said = add(terminal, typed=typed)
    assert status == 1 and "allowed" in said and (not typed.strip() or typed.strip() not in said)
    assert terminal.records() == []


def test_a_password_is_asked_for_twice_at_a_terminal(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([PASSWORD, "something else entirely", PASSWORD, PASSWORD])
    monkeypatch.setattr(getpass, "getpass", lambda _: next(answers))
    monkeypatch.setattr(sys.modules[__name__], "Typed", Keyboard)
    status, _, said = add(terminal)
    assert status == 1 and "two different" in said and PASSWORD not in said
    assert add(terminal)[0] == 0


def test_the_same_login_twice_is_refused(terminal: Terminal) -> None:
    add(terminal)
    status, _, said = terminal.run("operator", "add", "ANA", "--role", "viewer", typed=f"{PASSWORD}\n")
    assert status == 1 and "already" in said
    with pytest.raises(SystemExit):
        terminal.run("operator", "add", "a b", "--role", "viewer")
    with pytest.raises(SystemExit):
        terminal.run("operator", "add", "bia", "--role", "owner")


def test_an_operator_is_disabled_enabled_and_gets_another_password(terminal: Terminal) -> None:
    add(terminal)
    assert terminal.run("operator", "disable", "ana")[0] == 0
    assert "disabled" in terminal.run("operator", "list")[1]
    assert terminal.run("operator", "enable", "ana")[0] == 0
    assert terminal.run("operator", "password", "ana", typed="another good password\n")[0] == 0
    assert matches(terminal.kept(), "another good password")
    for action in ("disable", "enable", "password"):
        status, _, said = terminal.run("operator", action, "nobody", typed=f"{PASSWORD}\n")
        assert status == 1 and "nobody" in said
    actions = [record.data["action"] for record in terminal.records()]
    assert actions == ["created", "disabled", "enabled", "password"]


def test_a_key_is_shown_once_and_kept_hashed(terminal: Terminal) -> None:
    status, out, _ = terminal.run("key", "create", "PBX", "--role", "pbx", "--tenant", "jardim")
    prefix, id_, secret = out.strip().split("_")
    assert status == 0 and prefix == "porteiro" and len(secret) == 64
    content = terminal.file.read_bytes()
    assert secret.encode() not in content and digest(secret).encode() in content
    status, listed, _ = terminal.run("key", "list", "--json")
    (one,) = json.loads(listed)
    assert (one["id"], one["tenant"], one["holds"], one["scopes"]) == (id_, "jardim", True, None)
    assert secret not in listed and digest(secret) not in listed
    assert secret not in str(terminal.records())
    assert json.loads(terminal.run("key", "list", "--json", "--tenant", "sol")[1]) == []


def test_a_key_is_narrowed_expires_and_is_revoked(terminal: Terminal) -> None:
    narrowed = ("--scope", "visits:read", "--scope", "audit:read", "--days", "30")
    _, out, _ = terminal.run("key", "create", "BI", "--role", "viewer", *narrowed, "--json")
    made = json.loads(out)
    assert made["scopes"] == ["audit:read", "visits:read"] and made["key"].startswith("porteiro_")
    assert made["expires_at"] > made["created_at"]
    status, _, said = terminal.run("key", "create", "x", "--role", "viewer", "--scope", "access:write")
    assert status == 1 and "access:write" in said
    assert terminal.run("key", "revoke", made["id"])[0] == 0
    assert "revoked" in terminal.run("key", "list")[1]
    status, _, said = terminal.run("key", "revoke", "none")
    assert status == 1 and "none" in said
    for wrong in (("--days", "0"), ("--days", "x"), ("--scope", "all"), ("--role", "root")):
        with pytest.raises(SystemExit):
            terminal.run("key", "create", "x", "--role", "viewer", *wrong)


def test_a_database_that_can_not_be_read_is_said(terminal: Terminal) -> None:
    terminal.file.write_bytes(b"not a database" * 100)
    status, _, said = terminal.run("key", "list")
    assert status == 2 and str(terminal.file) in said
