"""`porteiro check` and `porteiro health`: what whoever runs the service is told."""

from __future__ import annotations

import argparse
import io
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from bridge.commands import check, health


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "apartamentos.json").write_text(
        json.dumps([{"apartment_number": "101", "residents": ["Ana"], "voip_number": "101"}])
    )
    return tmp_path / "porteiro.toml"


def run_check(config: Path, text: str) -> tuple[int, str]:
    config.write_text(text)
    out = io.StringIO()
    return check.run(argparse.Namespace(config=str(config)), out), out.getvalue()


def test_check_says_that_all_is_well_and_what_will_run(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    code, said = run_check(config, '[tenants.jardim]\ndirectory = "apartamentos.json"\nprovider = "openai"\n')
    assert code == 0
    assert said.startswith(f"{config}: all is well\n")
    assert "jardim (jardim): visitors on port 8080, residents on 8081, provider openai, gate record" in said


def test_check_says_every_problem_of_the_file(config: Path) -> None:
    code, said = run_check(config, "[service]\nmax_calls = 0\nlisten = ['x']\n")
    assert code == 1
    assert said.splitlines()[0] == f"{config}: 2 problems"
    assert len(said.splitlines()) == 3


def test_check_says_what_the_machine_lacks(config: Path) -> None:
    code, said = run_check(
        config, '[service]\nmodels_dir = "none"\n[tenants.jardim]\ndirectory = "none.json"\n'
    )
    assert code == 1
    assert "models_dir" in said and "porteiro models fetch" in said
    assert "none.json: no such file" in said


def test_check_of_no_file_says_so(tmp_path: Path) -> None:
    out = io.StringIO()
    assert check.run(argparse.Namespace(config=str(tmp_path / "no.toml")), out) == 1
    assert "no such file" in out.getvalue()


# ----------------------------------------------------------------------------------------------- health


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def run_health(config: Path, port: int) -> tuple[int, str]:
    config.write_text(
        f'[service]\nlisten = ["0.0.0.0"]\n[tenants.jardim]\ndirectory = "x"\nvisitor_port = {port}\n'
    )
    out = io.StringIO()
    return health.run(argparse.Namespace(config=str(config)), out), out.getvalue()


def test_a_service_that_takes_leave_is_well(config: Path, listener: socket.socket) -> None:
    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            while connection.recv(100):
                pass

    thread = Thread(target=serve)
    thread.start()
    assert run_health(config, listener.getsockname()[1]) == (0, "the service answers\n")
    thread.join()


def test_a_service_that_hangs_is_not_well(
    config: Path, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel accepts for it; that proves nothing."""
    monkeypatch.setattr(health, "ANSWER_S", 0.2)
    code, said = run_health(config, listener.getsockname()[1])
    assert code == 1 and "no answer in 0.2 s" in said


def test_a_service_that_is_not_there_is_not_well(config: Path, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    code, said = run_health(config, port)
    assert code == 1 and f"tenants.jardim: port {port} on 127.0.0.1: Connection refused" in said


def test_settings_that_are_wrong_or_empty_are_not_well(config: Path) -> None:
    for text in ("[service]\nmax_calls = 0\n", ""):
        config.write_text(text)
        assert health.run(argparse.Namespace(config=str(config)), io.StringIO()) == 1
