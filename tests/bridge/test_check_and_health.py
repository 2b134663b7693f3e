"""`porteiro check` and `porteiro health`: what whoever runs the service is told."""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread

import pytest

from bridge import settings_disk
from bridge.commands import check, health
from storage.sqlite import SqliteStorage
from tests.ports import free_ports
from tests.simulators import elevenlabs, gemini_live, openai_live
from tests.simulators.openai_realtime import Faults, Simulator
from tests.simulators.threads import in_thread
from visits.audit import stamp

pytestmark = pytest.mark.usefixtures("own_ports")


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


@pytest.mark.usefixtures("provider_there")
def test_check_says_that_all_is_well_and_what_will_run(
    config: Path, own_ports: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    code, said = run_check(config, '[tenants.jardim]\ndirectory = "apartamentos.json"\nprovider = "openai"\n')
    assert code == 0
    assert "jardim: openai takes sessions with this key, model and voice" in said
    assert said.startswith(f"{config}: all is well\n")
    visitors, residents = own_ports["visitor_port"], own_ports["resident_port"]
    where = f"visitors on port {visitors}, residents on {residents}"
    assert f"jardim (jardim): {where}, provider openai, gate record" in said


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


@pytest.mark.usefixtures("provider_there")
def test_check_says_that_a_canceller_that_is_wanted_is_not_installed(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    text = '[tenants.jardim]\ndirectory = "apartamentos.json"\nprovider = "openai"\necho.mode = "aec3"\n'
    assert run_check(config, text)[0] == 0
    monkeypatch.setattr(settings_disk, "aec3_available", lambda: False)
    code, said = run_check(config, text)
    assert code == 1
    assert "tenants.jardim.echo.mode: found 'aec3', and the package livekit is not installed" in said


def test_check_of_no_file_says_so(tmp_path: Path) -> None:
    out = io.StringIO()
    assert check.run(argparse.Namespace(config=str(tmp_path / "no.toml")), out) == 1
    assert "no such file" in out.getvalue()


def test_check_without_any_file_says_what_it_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PORTEIRO_CONFIG", raising=False)
    out = io.StringIO()
    assert check.run(argparse.Namespace(config=None), out) == 1
    first = out.getvalue().splitlines()[0]
    where = f"the defaults and the environment (no {tmp_path / 'porteiro.toml'} here)"
    assert first == f"{where}: the settings are well, but 1 thing they need would not work now"
    assert "tenants: none is set" in out.getvalue()
    (tmp_path / "porteiro.toml").write_text("")
    out = io.StringIO()
    assert check.run(argparse.Namespace(config=None), out) == 1
    assert out.getvalue().startswith(f"{tmp_path / 'porteiro.toml'}: the settings are well, but 1 thing")


@pytest.mark.parametrize(
    ("key", "line"),
    [
        (
            "sk-secret\n",
            "holds a line break or another character that can't be seen; allowed: the secret alone",
        ),
        ("sk-secret\r\nX-More: 1", "holds a line break or another character that can't be seen"),
        ("sk\u2014secret", "holds characters that no key has; allowed: ASCII"),
    ],
)
def test_check_says_that_a_key_can_be_none_and_never_what_it_is(
    config: Path, key: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", key)
    with in_thread(Simulator()) as server:
        code, said = run_check(config, f'{TENANT}base_url = "{server.url}"\n')
    assert code == 1
    assert f"  tenants.jardim.api_key_env: the environment variable KEY {line}" in said
    assert "secret\n" not in said and "—secret" not in said and "sk-" not in said


def test_check_repeats_what_a_provider_says_in_one_line_and_no_key_in_it(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", "sk-secret-12345")
    words = "Incorrect API key\n\nprovided: sk-secret-12345. " + "Look there. " * 10_000
    with in_thread(Simulator(faults=Faults(configure_error="odd", configure_words=words))) as server:
        code, said = run_check(config, f'{TENANT}base_url = "{server.url}"\n')
    assert code == 1 and "12345" not in said
    (line,) = [line for line in said.splitlines() if "Incorrect API key" in line]
    assert "Incorrect API key provided: … Look there." in line and line.endswith(" (odd)")
    assert len(line) < 400


@pytest.mark.parametrize(
    ("faults", "line"),
    [
        (Faults(refuse=(401, b"")), "the key was refused (HTTP 401) (key_refused)"),
        (Faults(configure_error="model_not_found"), "the model is not known there: "),
        (Faults(refuse=(429, b'{"error":{"code":"insufficient_quota"}}')), "the account's quota is used up"),
    ],
)
def test_check_says_what_a_provider_has_against_us(
    config: Path, faults: Faults, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", "sk-secret")
    with in_thread(Simulator(faults=faults)) as server:
        code, said = run_check(config, f'{TENANT}base_url = "{server.url}"\n')
    assert code == 1
    assert f"  tenants.jardim.provider: openai: {line}" in said
    assert "sk-secret" not in said


@pytest.mark.parametrize(
    ("setting", "key", "line"),
    [
        ("", "another", "the key was refused (code 1007: API key not valid."),
        ('model = "gemini-9"', gemini_live.KEY, "the model is not known there (code 1008: "),
        ('voice = "Ze"', gemini_live.KEY, "the voice is not known there (code 1007: "),
        ("", gemini_live.KEY, ""),
    ],
)
def test_check_says_what_gemini_has_against_us(
    config: Path, setting: str, key: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes any connection, and says no by closing it."""
    monkeypatch.setenv("GEMINI_API_KEY", key)
    with in_thread(gemini_live.Simulator()) as server:
        table = '[tenants.jardim]\ndirectory = "apartamentos.json"\nprovider = "gemini"\n'
        code, said = run_check(config, f'{table}base_url = "{server.url}"\n{setting}\n')
    assert code == (1 if line else 0)
    assert f"  tenants.jardim.provider: gemini: {line}" in said or not line


@pytest.mark.parametrize(
    ("setting", "key", "line"),
    [
        ("", "another", "the key was refused (HTTP 401) (key_refused)"),
        ('model = "gpt-9"', openai_live.KEY, "the model is not known there: session.model"),
        ('backend_model = "gpt-9"', openai_live.KEY, "the model is not known there: session.delegation."),
        ('voice = "Ze"', openai_live.KEY, "the voice is not known there: session.audio.output.voice"),
        ("", openai_live.KEY, ""),
    ],
)
def test_check_says_what_openai_live_has_against_us(
    config: Path,
    setting: str,
    key: str,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with in_thread(openai_live.Simulator()) as server:
        table = '[tenants.jardim]\ndirectory = "apartamentos.json"\nprovider = "openai-live"\n'
        code, said = run_check(config, f'{table}base_url = "{server.url}"\n{setting}\n')
    assert code == (1 if line else 0)
    assert f"  tenants.jardim.provider: openai-live: {line}" in said or not line
    assert capsys.readouterr() == ("", ""), "no log between the lines"


@pytest.mark.parametrize(
    ("setting", "key", "allowed", "line"),
    [
        ("", "another", elevenlabs.Faults().allowed, "the key was refused (HTTP 401) (key_refused)"),
        ('model = "agent_9"', elevenlabs.KEY, elevenlabs.Faults().allowed, "the agent is not known there"),
        ('voice = "Ze"', elevenlabs.KEY, elevenlabs.Faults().allowed, "the voice is not known there"),
        ("", elevenlabs.KEY, frozenset({"language"}), "the agent does not let a call set its prompt: allow"),
        ("", elevenlabs.KEY, elevenlabs.Faults().allowed, ""),
    ],
)
def test_check_says_what_elevenlabs_has_against_us(
    config: Path, setting: str, key: str, allowed: frozenset[str], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an agent lets a call set is found out by setting it."""
    monkeypatch.setenv("ELEVENLABS_API_KEY", key)
    model = "" if "model" in setting else f'model = "{elevenlabs.AGENT}"\n'
    with in_thread(elevenlabs.Simulator(faults=elevenlabs.Faults(allowed=allowed))) as server:
        table = f'[tenants.jardim]\ndirectory = "apartamentos.json"\nprovider = "elevenlabs"\n{model}'
        code, said = run_check(config, f'{table}base_url = "{server.url}"\n{setting}\n')
    assert code == (1 if line else 0)
    assert f"  tenants.jardim.provider: elevenlabs: {line}" in said or not line
    assert "conversation_signature" not in said


def test_check_says_that_a_provider_is_not_there(
    config: Path, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", "x")
    code, said = run_check(config, f'{TENANT}base_url = "http://127.0.0.1:{unused_tcp_port}/v1"\n')
    assert code == 1
    address = f"127.0.0.1:{unused_tcp_port}"
    assert f"tenants.jardim.provider: openai: the provider could not be reached at {address}: " in said


TENANT = '[tenants.jardim]\ndirectory = "apartamentos.json"\nprovider = "openai"\napi_key_env = "KEY"\n'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no database at all" * 20, "not a database"),
        (b"SQLite format 3\0", "not a database"),
        (b"SQLite format 3\0" + bytes(84), "a database of another program"),
        (
            b"SQLite format 3\0" + bytes(44) + b"\0\0\0\x63" + bytes(4) + b"Prt1" + bytes(28),
            "a newer version",
        ),
        (None, "not a file"),
    ],
)
def test_check_says_that_the_database_is_none(
    config: Path, content: bytes | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", "x")
    file = config.parent / "porteiro.db"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    code, shown = run_check(config, f'[service]\ndatabase = "porteiro.db"\n{TENANT}')
    assert code == 1
    assert f"service.database: {file}: " in shown and said in shown
    assert "allowed: Porteiro's own, or a new file" in shown
    assert {path.name for path in config.parent.iterdir()} == {file.name, config.name, "apartamentos.json"}


async def test_check_takes_a_database_of_ours_as_it_is(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "x")
    database = config.parent / "porteiro.db"
    async with await SqliteStorage.open(database):
        # While it is open its first page is older than the log beside it.
        assert settings_disk.database_problem(database) == ""
    assert settings_disk.database_problem(database) == ""


@pytest.mark.parametrize("place", ["/proc/porteiro", "/proc/self/status/porteiro", "/sys/porteiro/var"])
def test_check_tries_whether_a_place_can_be_written_to(
    config: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also as root, who by the rights of a directory may do anything."""
    monkeypatch.setenv("KEY", "x")
    code, shown = run_check(config, f'[service]\ndata_dir = "{place}"\n{TENANT}')
    assert code == 1
    assert f"service.data_dir: {place.rsplit('/', 1)[0].removesuffix('/porteiro')}" in shown


# ----------------------------------------------------------------------------------------------- health


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def run_health(config: Path, port: int) -> tuple[int, str]:
    config.write_text(
        '[service]\nlisten = ["0.0.0.0"]\nhttp_listen = []\n'
        f'[tenants.jardim]\ndirectory = "x"\nvisitor_port = {port}\n'
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


def test_the_ports_of_the_database_s_tenants_are_asked_too(config: Path, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()

    async def put() -> None:
        (config.parent / "var").mkdir()
        async with await SqliteStorage.open(config.parent / "var" / "porteiro.db") as storage:
            at = stamp(datetime.now(UTC))
            table = {"provider": "local", "visitor_port": port, "resident_port": port + 1}
            for name, said in (("bosque", table), ("broken", {"provider": "nobody"})):
                await storage.catalogue.put_tenant(name, said, expected=None, by="command:x", at=at)

    config.write_text("[service]\nhttp_listen = []\n")
    asyncio.run(put())
    out = io.StringIO()
    assert health.run(argparse.Namespace(config=str(config)), out) == 1
    assert out.getvalue() == f"tenants.bosque: port {port} on 127.0.0.1: Connection refused\n"


def test_settings_that_are_wrong_or_empty_are_not_well(config: Path) -> None:
    for text in ("[service]\nmax_calls = 0\n", ""):
        config.write_text(text)
        assert health.run(argparse.Namespace(config=str(config)), io.StringIO()) == 1


@pytest.mark.usefixtures("provider_there")
def test_check_looks_at_the_tenants_of_the_database_too(
    config: Path, own_ports: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    text = '[tenants.jardim]\ndirectory = "apartamentos.json"\nprovider = "openai"\n'

    async def put(name: str, **table: object) -> None:
        (config.parent / "var").mkdir(exist_ok=True)
        async with await SqliteStorage.open(config.parent / "var" / "porteiro.db") as storage:
            at = stamp(datetime.now(UTC))
            await storage.catalogue.put_tenant(name, table, expected=None, by="command:x", at=at)

    bosque, its_residents = free_ports(2)
    asyncio.run(put("bosque", provider="local", visitor_port=bosque, resident_port=its_residents))
    code, said = run_check(config, text)
    assert code == 0
    assert f"bosque (bosque): visitors on port {bosque}, residents on {its_residents}, provider local" in said
    assert "warning: tenants.bosque.directory: not set, and the database has none" in said
    taken = own_ports["visitor_port"]
    asyncio.run(put("bosque", provider="local", visitor_port=taken, resident_port=its_residents))
    code, said = run_check(config, text)
    assert code == 1
    assert f"tenants.bosque.visitor_port: found {taken}, which tenants.jardim.visitor_port has" in said
