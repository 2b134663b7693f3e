"""An older system's real PostgreSQL: its tables, its notifications, and what follows them."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.cli import main
from bridge.commands.import_ import _database_of, _files_of, keep_in_step
from bridge.importing.database import DatabaseError, connect, look
from bridge.importing.extensions import TABLE_NAMES, drafts_of, read_extensions
from bridge.importing.follow import follow
from bridge.importing.planning import Choices
from bridge.settings import load
from storage.catalogue import SettingsVersion
from storage.sqlite import SqliteStorage
from tests.importing.test_extensions import ramal
from tests.postgres import Postgres
from visits.audit import stamp

EXAMPLE = Path(__file__).parents[2] / "data" / "apartamentos.json"

EXTENSIONS = """
CREATE TABLE extension_ia (
    extension_ia_id serial PRIMARY KEY,
    extension_ia_number varchar(20) NOT NULL,
    extension_ia_return varchar(20),
    extension_ia_ip inet,
    extension_ia_number_port numeric(5) NOT NULL,
    extension_ia_return_port integer NOT NULL,
    condominium_id integer NOT NULL,
    remarks text
);
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('change_record_extension_ia',
        json_build_object('action', TG_OP, 'data', row_to_json(COALESCE(NEW, OLD)))::text);
    RETURN NULL;
END $$;
CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON extension_ia FOR EACH ROW EXECUTE FUNCTION tell();
"""
CLIENTS = """
CREATE TABLE clients (client_id uuid PRIMARY KEY, client_name text NOT NULL, active boolean DEFAULT true);
CREATE TABLE client_sip_numbers (sip_number text PRIMARY KEY, client_id uuid, active boolean DEFAULT true);
CREATE TABLE client_configurations (
    client_id uuid PRIMARY KEY, voice text, temperature float, max_tokens int, instructions text
);
INSERT INTO clients VALUES ('00000000-0000-0000-0000-000000000001', 'Condomínio Jardim', true);
INSERT INTO client_sip_numbers VALUES ('+5511999990001', '00000000-0000-0000-0000-000000000001', true);
INSERT INTO client_configurations SELECT client_id, 'marin', 0.7, 800, 'Sem festas.' FROM clients;
"""
INSERT = """
INSERT INTO extension_ia (extension_ia_number, extension_ia_return, extension_ia_ip, extension_ia_number_port,
    extension_ia_return_port, condominium_id) VALUES ($1, '1002', '10.0.0.5', $2, $3, $4)
"""


@pytest.fixture
async def url(postgres: Postgres) -> str:
    """A database of nobody's."""
    return await postgres.make("template1")


@pytest.fixture
async def older(url: str) -> AsyncIterator[asyncpg.Connection]:
    """The older system at its database."""
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the directories of two condominiums and of a client."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "directories").mkdir()
    for tenant in ("condominio-3", "condominio-4", "condominio-jardim"):
        (tmp_path / "directories" / f"{tenant}.json").write_bytes(EXAMPLE.read_bytes())
    return tmp_path


async def command(*arguments: str) -> int:
    """`porteiro import`, which has an event loop of its own."""
    return await asyncio.to_thread(main, ["import", *arguments])


# ---- one look ----------------------------------------------------------------------------------------------


async def test_extensions_come_in(home: Path, url: str, older: asyncpg.Connection) -> None:
    await older.execute(EXTENSIONS)
    await older.execute(INSERT, "1001", 8080, 8081, 3)
    await older.execute(INSERT, "1003", 8080, 8081, 3)
    await older.execute(INSERT, "2001", 8090, 8091, 4)
    assert await command(url, "--provider", "local") == 0
    tenants = load().tenants
    assert {name: (one.numbers, one.visitor_port, one.resident_port) for name, one in tenants.items()} == {
        "condominio-3": (("1001", "1003"), 8080, 8081),
        "condominio-4": (("2001",), 8090, 8091),
    }


async def test_clients_come_in(
    home: Path, url: str, older: asyncpg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    await older.execute(CLIENTS)
    assert await command(url, "--provider", "openai", "--first-port", "8100") == 0
    tenant = load().tenants["condominio-jardim"]
    assert (tenant.name, tenant.numbers, tenant.voice) == ("Condomínio Jardim", ("+5511999990001",), "marin")
    assert (tenant.visitor_port, tenant.resident_port, tenant.prompt_extra) == (8100, 8101, "Sem festas.")
    assert "temperature 0.7 is not taken over" in capsys.readouterr().out
    assert await command(url, "--provider", "openai", "--json") == 0  # it has its ports by now
    assert json.loads(capsys.readouterr().out)["changes"][0]["action"] == "leave"


async def test_both_at_once_share_no_port(home: Path, url: str, older: asyncpg.Connection) -> None:
    await older.execute(EXTENSIONS + CLIENTS)
    await older.execute(INSERT, "1001", 8100, 8101, 3)
    assert await command(url, "--first-port", "8100") == 0
    assert {one.visitor_port for one in load().tenants.values()} == {8100, 8102}


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ("SELECT 1", "the database has none of the tables extension_ia, clients, client_sip_numbers"),
        ("CREATE TABLE extension_ia (extension_ia_id int)", "has no column extension_ia_number; needed are"),
        ("CREATE TABLE clients (client_id int, client_name text)", "and no table client_sip_numbers"),
    ],
)
async def test_a_database_of_another_kind_is_refused(
    home: Path,
    url: str,
    older: asyncpg.Connection,
    capsys: pytest.CaptureFixture[str],
    tables: str,
    message: str,
) -> None:
    await older.execute(tables)
    assert await command(url) == 2
    assert message in capsys.readouterr().err


async def test_a_wrong_row_is_named_and_nothing_is_written(
    home: Path, url: str, older: asyncpg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    await older.execute(EXTENSIONS)
    await older.execute(INSERT, "1001", 8080, 8081, 3)
    await older.execute(INSERT, "10 01", 8090, 8091, 4)
    assert await command(url) == 1
    assert "extension_ia: row 2: extension_ia_number: found '10 01'" in capsys.readouterr().err
    assert not list((home / "porteiro.d").glob("*.toml"))


async def test_a_database_that_is_not_there_is_told(
    home: Path, capsys: pytest.CaptureFixture[str], postgres: Postgres
) -> None:
    assert await command(postgres.url("no_such_one")) == 2
    assert 'can\'t be reached: database "no_such_one" does not exist' in capsys.readouterr().err
    assert await command("postgresql://reader@127.0.0.1:1/x") == 2
    assert "the database can't be reached" in capsys.readouterr().err


async def test_a_look_never_writes_whatever_stands_in_the_tables_place(
    url: str, older: asyncpg.Connection
) -> None:
    columns = ", ".join(f"0 AS {name}" for name in TABLE_NAMES)
    await older.execute(
        "CREATE TABLE seen (at int);"
        "CREATE FUNCTION noted() RETURNS boolean LANGUAGE sql AS 'INSERT INTO seen VALUES (1); SELECT true';"
        f"CREATE VIEW extension_ia AS SELECT {columns} WHERE noted()"
    )
    connection = await connect(url)
    try:
        with pytest.raises(DatabaseError, match="read-only transaction"):
            await look(connection, ["extension_ia"])
    finally:
        await connection.close()
    with pytest.raises(DatabaseError, match="can't be read: connection is closed"):
        await look(connection, ["extension_ia"])


# ---- in step -----------------------------------------------------------------------------------------------


async def until(holds: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while not holds():
        assert asyncio.get_running_loop().time() < deadline, what
        await asyncio.sleep(0.02)


@asynccontextmanager
async def following(
    url: str, home: Path, said: list[str], *, into_database: bool = False, **timing: Any
) -> AsyncIterator[None]:
    choices = Choices(home / "porteiro.toml", replacing=True)
    write = _database_of(str(choices.config), [url], choices) if into_database else _files_of(choices)
    quick: dict[str, Any] = {"retry_s": [0.05], **timing}
    task = asyncio.create_task(
        follow(url, lambda rows: keep_in_step(rows, write, said.append), said.append, **quick)
    )
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def numbers() -> dict[str, tuple[str, ...]]:
    return {name: tenant.numbers for name, tenant in load().tenants.items()}


async def test_settings_follow_the_table(home: Path, url: str, older: asyncpg.Connection) -> None:
    await older.execute(EXTENSIONS)
    await older.execute(INSERT, "1001", 8080, 8081, 3)
    said: list[str] = []
    async with following(url, home, said):
        await until(lambda: numbers() == {"condominio-3": ("1001",)}, "what is there at the beginning")
        await older.execute(INSERT, "2001", 8090, 8091, 4)
        await until(lambda: "condominio-4" in numbers(), "INSERT")
        await older.execute("UPDATE extension_ia SET extension_ia_number = '1009' WHERE condominium_id = 3")
        await until(lambda: numbers().get("condominio-3") == ("1009",), "UPDATE")
        await older.execute("DELETE FROM extension_ia WHERE condominium_id = 4")
        await until(lambda: list(numbers()) == ["condominio-3"], "DELETE")
    heard = [line for line in said if "of row" in line]
    assert heard == ["INSERT of row 2", "UPDATE of row 1", "DELETE of row 2"]
    assert 'change condominio-3: numbers: ["1001"] → ["1009"]' in said


async def test_the_database_follows_the_table(
    home: Path, url: str, older: asyncpg.Connection, tmp_path: Path
) -> None:
    """And what people set beside it stays; what can't be taken changes nothing."""
    await older.execute(EXTENSIONS)
    await older.execute(INSERT, "1001", 8080, 8081, 3)
    (home / "porteiro.toml").write_text(f'[service]\ndata_dir = "{tmp_path / "data"}"\n')
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "porteiro.db"
    said: list[str] = []

    async def stored() -> dict[str, SettingsVersion]:
        async with await SqliteStorage.open(file) as storage:
            return {one.tenant: one for one in await storage.catalogue.tenants()}

    async def kept(name: str, number: str | None) -> None:
        async with asyncio.timeout(20):
            while True:
                one = (await stored()).get(name)
                if number == (one.content["numbers"][0] if one is not None and one.content else None):
                    return
                await asyncio.sleep(0.05)

    async with following(url, home, said, into_database=True):
        await kept("condominio-3", "1001")
        await older.execute(INSERT, "2001", 8090, 8091, 4)
        await kept("condominio-4", "2001")
        async with await SqliteStorage.open(file) as storage:
            one = (await stored())["condominio-3"]
            assert one.content is not None and one.by == "import:extension"
            content = {**one.content, "greeting": "Bom dia."}
            at = stamp(datetime.now(UTC))
            await storage.catalogue.put_tenant(
                "condominio-3", content, expected=one.version, by="operator:ana", at=at
            )
        await older.execute("UPDATE extension_ia SET extension_ia_number = '1009' WHERE condominium_id = 3")
        await kept("condominio-3", "1009")
        await older.execute("DELETE FROM extension_ia WHERE condominium_id = 4")
        await kept("condominio-4", None)
        await older.execute(INSERT, "bad one", 8190, 8191, 5)
        await until(lambda: any("stay as they are" in line for line in said), "a problem")
        after = await stored()
    assert list(after) == ["condominio-3"]
    assert after["condominio-3"].content is not None
    assert after["condominio-3"].content["greeting"] == "Bom dia."
    assert not (home / "porteiro.d").exists()


async def test_what_changes_while_the_connection_is_lost_is_seen(
    home: Path, url: str, older: asyncpg.Connection, postgres: Postgres
) -> None:
    await older.execute(EXTENSIONS)
    await older.execute(INSERT, "1001", 8080, 8081, 3)
    name = url.rpartition("/")[2]
    others = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}' AND pid <> $1"
    said: list[str] = []
    async with following(url, home, said):
        await until(lambda: "condominio-3" in numbers(), "the beginning")
        admin = await asyncpg.connect(postgres.url("postgres"))
        try:
            await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            await admin.execute(others, older.get_server_pid())
            await until(lambda: sum("trying again" in line for line in said) >= 3, "it tries again")
            await older.execute(INSERT, "2001", 8090, 8091, 4)
            assert "condominio-4" not in numbers()
            await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        finally:
            await admin.close()
        await until(lambda: "condominio-4" in numbers(), "what changed meanwhile")
        await older.execute(INSERT, "2002", 8090, 8091, 4)
        await until(lambda: numbers()["condominio-4"] == ("2001", "2002"), "it listens again")


async def test_what_no_notification_said_is_seen_in_time(
    home: Path, url: str, older: asyncpg.Connection
) -> None:
    await older.execute(EXTENSIONS + "DROP TRIGGER tell ON extension_ia")
    await older.execute(INSERT, "1001", 8080, 8081, 3)
    async with following(url, home, [], look_every_s=0.2):
        await until(lambda: "condominio-3" in numbers(), "the beginning")
        await older.execute(INSERT, "2001", 8090, 8091, 4)
        await until(lambda: "condominio-4" in numbers(), "the next look")


async def test_what_can_not_be_taken_leaves_the_settings_as_they_are(
    home: Path, url: str, older: asyncpg.Connection
) -> None:
    await older.execute(EXTENSIONS)
    await older.execute(INSERT, "1001", 8080, 8081, 3)
    said: list[str] = []
    async with following(url, home, said):
        await until(lambda: "condominio-3" in numbers(), "the beginning")
        await older.execute("SELECT pg_notify('change_record_extension_ia', 'nonsense')")
        await until(lambda: any("can't be read" in line for line in said), "a strange notification")
        await older.execute(INSERT, "5001", 8190, 8191, 5)  # it has no directory
        await until(lambda: any("condominio-5: directory" in line for line in said), "a problem")
        await older.execute("DELETE FROM extension_ia")
        await until(lambda: any("holds no row" in line for line in said), "an empty table")
        assert numbers() == {"condominio-3": ("1001",)}
        await older.execute(INSERT, "2001", 8090, 8091, 4)
        await until(lambda: list(numbers()) == ["condominio-4"], "it goes on")


async def test_the_command_follows_until_it_is_interrupted(
    home: Path, url: str, older: asyncpg.Connection
) -> None:
    await older.execute(EXTENSIONS)
    await older.execute(INSERT, "1001", 8080, 8081, 3)
    arguments = ["-m", "bridge.cli", "import", url, "--follow"]
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    try:
        line = await asyncio.wait_for(process.stderr.readline(), 30)
        assert line.startswith(b"porteiro import: create condominio-3: directory")
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 10) == 130
    finally:
        if process.returncode is None:
            process.kill()
    assert numbers() == {"condominio-3": ("1001",)}


rows = st.lists(
    st.builds(
        lambda number, port, condominium: (number, port, condominium),
        st.sampled_from(["1001", "1002", "bad one"]),
        st.sampled_from([8080, 8090, 0]),
        st.sampled_from([3, 4, 5]),
    ),
    max_size=4,
)


def as_row(id_: int, number: str, port: int, condominium: int) -> dict[str, Any]:
    row = ramal(id=id_, ramal_ia=number, porta_ia=port, porta_retorno=port + 1, condominio_id=condominium)
    return dict(zip(TABLE_NAMES, row.values(), strict=True))


@settings(max_examples=40, deadline=None)
@given(st.lists(rows, max_size=4))
def test_the_settings_are_always_those_of_the_last_table_that_could_be_taken(
    tmp_path_factory: pytest.TempPathFactory, tables: list[list[tuple[str, int, int]]]
) -> None:
    home = tmp_path_factory.mktemp("home")
    (home / "porteiro.toml").touch()
    (home / "directories").mkdir()
    for condominium in (3, 4):  # the fifth has none
        for name in (f"condominio-{condominium}", *(f"condominio-{condominium}-{n}" for n in (1001, 1002))):
            (home / "directories" / f"{name}.json").write_bytes(EXAMPLE.read_bytes())
    choices = Choices(home / "porteiro.toml", replacing=True)
    before: dict[str, Any] = {}
    for table in tables:
        said: list[str] = []
        values = [as_row(n, *one) for n, one in enumerate(table)]
        asyncio.run(keep_in_step(values, _files_of(choices), said.append))
        tenants = load(choices.config, {}).tenants
        after = {name: (one.numbers, one.visitor_port) for name, one in tenants.items()}
        if any("stay as they are" in line for line in said):
            assert after == before
        else:
            drafts = drafts_of(read_extensions(values, TABLE_NAMES, "x").rows, {}, "")
            wanted = {one.id: (one.settings["numbers"], one.settings["visitor_port"]) for one in drafts}
            assert {name: (list(found), port) for name, (found, port) in after.items()} == wanted
        before = after
