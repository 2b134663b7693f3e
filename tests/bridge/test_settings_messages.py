"""A wrong setting is named in the settings' own words, and a secret in it is not repeated."""

from __future__ import annotations

import json
import tomllib
from io import StringIO
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from bridge import log as logs
from bridge.masking import masked
from bridge.settings import SettingsError, build

TENANT = '[tenants.a]\ndirectory = "a.json"\n'


def problems(text: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        build(tomllib.loads(text))
    return caught.value.problems


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            f'{TENANT}gate = {{kind = "htttp", url = "http://x"}}',
            "tenants.a.gate.kind: found 'htttp'; allowed: 'record', 'http'",
        ),
        (f'{TENANT}gate = {{kind = "htttp"}}', "(did you mean 'http'?)"),
        (
            f'{TENANT}gate = {{url = "http://x"}}',
            "tenants.a.gate.kind: not set; it must be given; allowed: 'rec",
        ),
        (
            f'{TENANT}dialer.kind = "arii"',
            "tenants.a.dialer.kind: found 'arii'; allowed: 'manual', 'simulated'",
        ),
        ("[service]\nmax_calls = 0", "service.max_calls: found 0; allowed: a whole number from 1 to 10000"),
        (
            "[service]\nmax_calls = true",
            "service.max_calls: found true; allowed: a whole number from 1 to 10000",
        ),
        (
            "[service]\nwebsocket_port = -1",
            "service.websocket_port: found -1; allowed: a whole number from 0 to 65535",
        ),
        (
            "[service]\nwebsocket_port = false",
            "service.websocket_port: found false; allowed: a whole number from 0",
        ),
        (
            "[service]\nhandshake_s = 0",
            "service.handshake_s: found 0; allowed: a number above 0 and up to 86400",
        ),
        ("[service]\ndrain_s = true", "service.drain_s: found true; allowed: a number from 0 to 3600"),
        (
            f"{TENANT}vad.threshold = 1",
            "tenants.a.vad.threshold: found 1; allowed: a number above 0 and below 1",
        ),
        (
            f"{TENANT}limits.silence_s = true",
            "tenants.a.limits.silence_s: found true; allowed: a number from 2 to 120",
        ),
        ("[service]\nlisten = []", "service.listen: found []; allowed: a list of at least one"),
        ("[service]\nlisten = 5", "service.listen: found 5; allowed: a list"),
        (f"{TENANT}recording = true", "tenants.a.recording: found true; allowed: a table"),
        (
            f'{TENANT}recording.enabled = "maybe"',
            "tenants.a.recording.enabled: found 'maybe'; allowed: true or false",
        ),
        (f"{TENANT}name = 7", "tenants.a.name: found 7; allowed: text"),
    ],
)
def test_what_is_allowed_is_said_in_full(text: str, said: str) -> None:
    (line,) = problems(text)
    assert said in line
    for foreign in ("dictionary", "Value should", "tuple", "instance of", "greater than", "Input"):
        assert foreign not in line


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("ftp://u:hunter2@h/x", "'ftp://…@h/x'"),
        ("ftp://h/x?password=hunter2&door=1&token=hunter2", "'ftp://h/x?password=…&door=1&token=…'"),
        ("http://u:hunter2@h/open?api_key=hunter2", "'http://…@h/open?api_key=…'"),
        ("http://h/x?senha=hunter2&{wrong}", "'http://h/x?senha=…&{wrong}'"),
    ],
)
def test_a_secret_in_a_url_is_not_repeated(url: str, shown: str) -> None:
    for where in (f'gate = {{kind = "http", url = "{url}"}}', f'base_url = "{url}"'):
        if "{wrong}" in url and "base_url" in where:
            continue
        (line,) = problems(TENANT + where)
        assert shown in line and "hunter2" not in line


def test_a_table_with_a_secrets_name_is_a_problem_like_any_other() -> None:
    assert problems("[service]\napi_key = {}")[0].startswith("service.api_key: there is no such setting")
    assert "hunter2" not in "".join(problems('[service]\napi_key = {api_key = "hunter2"}'))


def test_a_secret_in_a_body_is_not_repeated() -> None:
    for body in (
        "user=x&password=hunter2&{wrong}",
        '{\\"a\\": \\"{wrong}\\", \\"password\\": \\"hunter2\\"}',
    ):
        lines = problems(f'{TENANT}gate = {{kind = "http", url = "http://h/", body = "{body}"}}')
        assert lines and "hunter2" not in "".join(lines)


@pytest.mark.parametrize(
    "text", ["http://h/x?door=1&user={username}&password={password}", "a key = b", "key 1: x", "10:30", ""]
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert masked(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Incorrect API key provided: sk-proj-abcdef12345.", "Incorrect API key provided: …"),
        ("header Authorization: Bearer eyJhbGciOi.abcdef.ghi", "header Authorization: Bearer …"),
        ("key AIzaSyD-1234567890 is not valid", "key … is not valid"),
    ],
)
def test_what_looks_like_a_vendors_key_goes_wherever_it_stands(text: str, shown: str) -> None:
    assert masked(text) == shown


@given(
    st.sampled_from(["password", "token", "api_key", "X-Auth-Token", "Senha"]),
    st.text(st.characters(categories=("L", "N")), min_size=4).filter(lambda word: word != "{}"),
    st.text(),
)
def test_no_value_of_a_secrets_name_comes_through(name: str, secret: str, rest: str) -> None:
    word = f"q9{secret}"
    shown = masked(f"http://host/path?door=1&{name}={word}&x={rest}".replace("\n", ""))
    assert f"{name}={word}" not in shown
    assert masked(shown) == shown or word not in masked(shown)


def test_the_log_masks_what_messages_quote() -> None:
    out = StringIO()
    with logs.configure("json", "info", out):
        log: Any = structlog.get_logger("x")
        log.warning("gate.failed", detail="GET http://u:hunter2@h/?token=hunter2 failed")
        try:
            raise OSError("can't reach http://h/?password=hunter2")
        except OSError as error:
            log.error("broke", exc_info=error)
    first, second = (json.loads(line) for line in out.getvalue().splitlines())
    assert first["detail"] == "GET http://…@h/?token=… failed"
    assert "password=…" in second["exception"] and "hunter2" not in out.getvalue()
