"""Settings: few lines are enough, and a wrong one is named, with what was found and what is allowed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.settings import Settings, SettingsError, build, load, read_env_file

ROOT = Path(__file__).resolve().parents[2]
DIRECTORY = json.dumps([{"apartment_number": "101", "residents": ["Ana"], "voip_number": "sip:101@x"}])
MINIMAL = '[tenants.jardim]\nname = "Condomínio Jardim"\ndirectory = "apartamentos.json"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "apartamentos.json").write_text(DIRECTORY)
    return tmp_path


def read(folder: Path, text: str, **environ: str) -> Settings:
    (folder / "porteiro.toml").write_text(text, encoding="utf-8")
    return load(folder / "porteiro.toml", environ)


def problems(folder: Path, text: str, **environ: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read(folder, text, **environ)
    return caught.value.problems


# ----------------------------------------------------------------------------------- what is enough


def test_three_lines_are_enough(folder: Path) -> None:
    settings = read(folder, MINIMAL)
    tenant = settings.tenants["jardim"]
    assert (tenant.id, tenant.title, tenant.provider) == ("jardim", "Condomínio Jardim", "local")
    assert (tenant.visitor_port, tenant.resident_port) == (8080, 8081)
    assert tenant.directory == folder / "apartamentos.json"
    assert settings.service.listen == ("127.0.0.1", "::1")
    assert settings.service.database_path == folder / "var" / "porteiro.db"
    assert settings.service.recordings_path == folder / "var" / "recordings"
    assert not tenant.recording.enabled


def test_no_file_at_all_is_settings_without_tenants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load(environ={})
    assert settings.tenants == {}
    assert settings.problems_at_start() == []  # they may be in the database


def test_a_file_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    for arguments in ({"path": tmp_path / "no.toml", "environ": {}},
                      {"environ": {"PORTEIRO_CONFIG": str(tmp_path / "no.toml")}}):  # fmt: skip
        with pytest.raises(SettingsError, match=r"no\.toml: no such file"):
            load(**arguments)


def test_tenants_that_name_no_port_get_the_services(folder: Path) -> None:
    settings = read(folder, "[service]\nvisitor_port = 9000\n" + MINIMAL)
    assert settings.tenants["jardim"].visitor_port == 9000


def test_relative_paths_start_at_the_file(folder: Path) -> None:
    settings = read(folder, '[service]\ndata_dir = "d"\nmodels_dir = "/m"\n' + MINIMAL)
    assert settings.service.database_path == folder / "d" / "porteiro.db"
    assert settings.service.models_path == Path("/m")


def test_nothing_changes_after_the_start(folder: Path) -> None:
    settings = read(folder, MINIMAL)
    with pytest.raises(ValueError, match="frozen"):
        settings.service.max_calls = 3


# -------------------------------------------------------------------------------- the environment


def test_the_environment_wins(folder: Path) -> None:
    settings = read(
        folder,
        "[service]\nmax_calls = 5\n" + MINIMAL,
        PORTEIRO_SERVICE__MAX_CALLS="7",
        PORTEIRO_SERVICE__LISTEN="0.0.0.0, ::",
        PORTEIRO_SERVICE__ALLOWED_PEERS='["10.0.0.0/8"]',
        PORTEIRO_TENANTS__JARDIM__RECORDING__ENABLED="true",
        PORTEIRO_TENANTS__JARDIM__LIMITS__RING_S="12.5",
        PORTEIRO_TENANTS__JARDIM__GREETING="[oi",
        UNRELATED="1",
    )
    tenant = settings.tenants["jardim"]
    assert settings.service.max_calls == 7
    assert settings.service.listen == ("0.0.0.0", "::")
    assert settings.service.allowed_peers == ("10.0.0.0/8",)
    assert tenant.recording.enabled
    assert tenant.limits.ring_s == 12.5
    assert tenant.greeting == "[oi"


def test_a_misspelt_variable_is_not_passed_over(folder: Path) -> None:
    assert problems(folder, MINIMAL, PORTEIRO_SERVCE__MAX_CALLS="7") == [
        "servce: there is no such setting; did you mean service?"
    ]
    (line,) = problems(folder, MINIMAL, PORTEIRO_SERVICE__MAX_CALL="7")
    assert line == "service.max_call: there is no such setting (from PORTEIRO_SERVICE__MAX_CALL); " \
        "did you mean max_calls?"  # fmt: skip


def test_a_wrong_variable_is_named(folder: Path) -> None:
    (line,) = problems(folder, MINIMAL, PORTEIRO_SERVICE__MAX_CALLS="many")
    assert line.startswith(
        "service.max_calls: found 'many' (from PORTEIRO_SERVICE__MAX_CALLS); allowed: a whole number from 1"
    )


def test_a_variable_above_and_below_is_a_contradiction(folder: Path) -> None:
    (line,) = problems(folder, MINIMAL, PORTEIRO_SERVICE="x", PORTEIRO_SERVICE__MAX_CALLS="7")
    assert "PORTEIRO_SERVICE__MAX_CALLS" in line


def test_the_env_file_lies_beneath_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "porteiro.toml").write_text(MINIMAL)
    (folder / ".env").write_text(
        "# mine\nexport PORTEIRO_SERVICE__MAX_CALLS=3\nMY_KEY='a=b'\nOTHER=\"x\"\n\n"
    )
    assert read_env_file(folder / ".env") == {
        "PORTEIRO_SERVICE__MAX_CALLS": "3",
        "MY_KEY": "a=b",
        "OTHER": "x",
    }
    monkeypatch.setenv("OTHER", "y")
    settings = load(folder / "porteiro.toml")
    assert settings.service.max_calls == 3
    assert (settings.secret("MY_KEY"), settings.secret("OTHER"), settings.secret("NONE")) == (
        "a=b",
        "y",
        None,
    )


def test_a_broken_env_file_is_named(folder: Path) -> None:
    (folder / ".env").write_text("FINE=1\nnot a line\n")
    with pytest.raises(SettingsError, match=r"\.env: line 2 is not NAME=value"):
        read_env_file(folder / ".env")


# ------------------------------------------------------------------------------------ what is wrong


def test_everything_wrong_is_said_at_once_each_in_one_line(folder: Path) -> None:
    lines = problems(
        folder,
        """
        [service]
        visiter_port = 3
        max_calls = 0
        listen = ["localhost"]
        allowed_peers = ["10.0.0.0/99"]
        log.format = "jsn"
        [tenants.jardim]
        nam = "x"
        visitor_port = 99999
        provider = "opnai"
        timezone = "America/Sao_Paolo"
        consent = {authorize_key = "5", deny_key = "5"}
        required.visita = ["visitor_name"]
        [tenants.jardim.gate]
        kind = "http"
        url = "http://x/{apartament}"
        bodyy = "3"
        [tenants."B A"]
        directory = "x"
        gate.kind = "foo"
        """,
    )
    assert all("\n" not in line for line in lines)
    expected = [
        "service.listen.0: found 'localhost'; allowed: an IPv4 or IPv6 address",
        "service.allowed_peers.0: found '10.0.0.0/99'; allowed: a network",
        "service.max_calls: found 0; allowed: a whole number from 1 to 10000",
        "service.log.format: found 'jsn'; allowed: 'auto', 'json' or 'pretty' (did you mean 'json'?)",
        "service.visiter_port: there is no such setting; did you mean visitor_port?",
        "tenants.jardim.timezone: found 'America/Sao_Paolo'; allowed: a time zone's name",
        "tenants.jardim.visitor_port: found 99999; allowed: a whole number from 0 to 65535",
        "tenants.jardim.provider: found 'opnai'; allowed: 'local', 'pipeline', 'openai'",
        "tenants.jardim.consent: found a table; allowed: authorize_key and deny_key must be two different",
        "tenants.jardim.required: found a table; allowed: visita must name apartment",
        "tenants.jardim.gate.url: found 'http://x/{apartament}'; allowed: the placeholders {visit}",
        "tenants.jardim.gate.bodyy: there is no such setting; did you mean body?",
        "tenants.jardim.nam: there is no such setting; did you mean name?",
        "tenants.B A: found 'B A'; allowed: text that matches",
        "tenants.B A.gate.kind: found 'foo'; allowed: 'record', 'http', 'amqp', 'dtmf'",
    ]
    for begin in expected:
        assert any(line.startswith(begin) for line in lines), (begin, lines)
    assert len(lines) == len(expected), lines


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[service", "not valid TOML"),
        ("tenants = 3", "tenants: found 3; allowed: a table"),
        ("tenants.jardim = 3", "tenants.jardim: found 3; allowed: a table"),
        ("service = []", "service: found []; allowed:"),
    ],
)
def test_a_file_of_another_shape_is_refused(folder: Path, text: str, said: str) -> None:
    assert any(said in line for line in problems(folder, text))


def test_a_port_belongs_to_one_tenant_and_role(folder: Path) -> None:
    two = MINIMAL + '[tenants.bosque]\ndirectory = "apartamentos.json"\n'
    assert problems(folder, two) == [
        f"tenants.bosque.{role}: found {port}, which tenants.jardim.{role} has; allowed: another port"
        for role, port in (("visitor_port", 8080), ("resident_port", 8081))
    ]
    assert len(problems(folder, MINIMAL + "visitor_port = 9000\nresident_port = 9000\n")) == 1
    settings = read(folder, two + "visitor_port = 8084\nresident_port = 8083\n")
    assert settings.tenants["bosque"].visitor_port == 8084


# ------------------------------------------------------------------------------------------ secrets

SECRET = "sk-very-secret-9f27"


@pytest.mark.parametrize(
    "line",
    [
        f'api_key = "{SECRET}"',
        f'token = "{SECRET}"',
        f'gate = {{kind = "http", url = "http://x/", auth = {{kind = "basic", password = "{SECRET}"}}}}',
        f'gate = {{kind = "http", url = "http://x/", secret = "{SECRET}"}}',
        f'gate = {{kind = "http", url = "http://x/", headers = {{Authorization = "Bearer {SECRET}"}}}}',
        f'gate = {{kind = "http", url = "http://u:{SECRET}@x/"}}',
        f'base_url = "https://u:{SECRET}@x/v1"',
        f'openai_api_key = "{SECRET}"',
    ],
)
def test_a_secret_in_the_file_is_refused_and_not_repeated(folder: Path, line: str) -> None:
    lines = problems(folder, MINIMAL + line + "\n")
    assert len(lines) == 1
    assert SECRET not in lines[0]
    assert "environment" in lines[0] or "headers_env" in lines[0]


def test_a_variable_for_a_secret_that_is_no_variable_name_is_not_repeated(folder: Path) -> None:
    """Somebody put the key itself where the variable's name belongs."""
    lines = problems(folder, MINIMAL + f'api_key_env = "{SECRET}"\n')
    assert len(lines) == 1
    assert SECRET not in lines[0]


def test_secrets_are_in_no_printed_form_of_the_settings(folder: Path) -> None:
    settings = read(folder, MINIMAL + 'api_key_env = "K"\n', K=SECRET)
    assert settings.secret(settings.tenants["jardim"].key_variable) == SECRET
    assert SECRET not in repr(settings) + str(settings) + settings.model_dump_json()


# ------------------------------------------------------------------------------------------ the disk


def test_what_is_missing_on_this_machine_is_said(folder: Path) -> None:
    (folder / "plain").write_text("")
    (folder / "bad.json").write_text('[{"apartment_number": "101"}]')
    text = """
        [service]
        data_dir = "plain"
        models_dir = "models"
        model_server.piper_voice = "voz.onnx"
        [tenants.a]
        directory = "none.json"
        [tenants.b]
        directory = "bad.json"
        provider = "openai"
        visitor_port = 1
        resident_port = 2
        gate = {kind = "http", url = "http://x/", headers_env = {X-Key = "GATE_KEY"}}
    """
    found = read(folder, text).problems_at_start()
    for begin in (
        "service.data_dir: ",
        "service.models_dir: ",
        "service.model_server.piper_voice: ",
        f"tenants.a.directory: {folder}/none.json: no such file",
        f"tenants.b.directory: {folder}/bad.json: ",
        "tenants.b.api_key_env: the environment variable OPENAI_API_KEY is not set",
        "tenants.b.gate.headers_env.X-Key: the environment variable GATE_KEY is not set",
    ):
        assert any(line.startswith(begin) for line in found), (begin, found)


def test_a_set_key_is_no_problem(folder: Path) -> None:
    settings = read(folder, MINIMAL + 'provider = "openai"\n', OPENAI_API_KEY="x")
    assert settings.problems_at_start() == []


# ------------------------------------------------------------------------------------------- for all

TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["service", "tenants", "gate", "kind", "jardim", "listen", "log", "api_key", "id"]
            )
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(tree=st.dictionaries(st.sampled_from(["service", "tenants", "x"]), TREES, max_size=3))
def test_any_tree_is_settings_or_lines_that_say_why_not(tree: dict[str, Any]) -> None:
    try:
        build(tree, base=Path("/"))
    except SettingsError as error:
        problems = error.problems
    else:
        return
    assert problems
    assert all(line.strip() for line in problems)
