"""`porteiro check` says whether residents could be called through ARI, and what to do where not."""

from __future__ import annotations

import argparse
import asyncio
import io
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bridge.commands import check
from tests.dialing.fake_ari import PASSWORD, Answer, Asked, FakeAri
from tests.pbx.asterisk import Asterisk
from tests.pbx.installation import find
from tests.ports import free_port

INFO = {"system": {"version": "22.10.1"}}
MODULE = {"name": "app_audiosocket.so", "status": "Running"}
READY = {
    ("GET", "/asterisk/info"): Answer(body=INFO),
    ("GET", "/asterisk/modules/app_audiosocket.so"): Answer(body=MODULE),
}


pytestmark = pytest.mark.usefixtures("own_ports", "provider_there")


def run(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, password: str = PASSWORD, service: str = ""
) -> tuple[int, str]:
    (tmp_path / "directory.json").write_text(
        json.dumps([{"apartment_number": "101", "residents": ["Ana"], "voip_number": "101"}])
    )
    (tmp_path / "porteiro.toml").write_text(
        f'{service}[tenants.jardim]\ndirectory = "directory.json"\nprovider = "openai"\n'
        f'dialer = {{ kind = "ari", url = "{url}", password_env = "ARI_PASSWORD" }}\n'
    )
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    if password:
        monkeypatch.setenv("ARI_PASSWORD", password)
    out = io.StringIO()
    return check.run(argparse.Namespace(config=str(tmp_path / "porteiro.toml")), out), out.getvalue()


def answering(answers: dict[tuple[str, str], Answer]) -> Callable[[Asked], Awaitable[Answer | None]]:
    async def meddle(asked: Asked) -> Answer | None:
        return answers.get((asked.method, asked.path))

    return meddle


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({("GET", "/asterisk/info"): Answer(404)}, "is the path right"),
        ({("GET", "/asterisk/info"): Answer(401)}, "compare [porteiro] in ari.conf"),
        ({("GET", "/asterisk/info"): Answer(body=[7])}, "is the URL right?"),
        ({("GET", "/asterisk/info"): Answer(reset=True)}, "is Asterisk running"),
        ({("DELETE", "/channels/00000000-0000-0000-0000-000000000000"): Answer(403)}, "read_only = no"),
        ({("GET", "/asterisk/modules/app_audiosocket.so"): Answer(404)}, "app_audiosocket"),
        ({("GET", "/asterisk/modules/app_audiosocket.so"): Answer(body={"status": "Not Running"})}, "load"),
    ],
)
async def test_what_is_wrong_is_said_with_what_to_do(
    changed: dict[tuple[str, str], Answer], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with FakeAri(meddle=answering(READY | changed)) as pbx:
        code, said = await asyncio.to_thread(run, tmp_path, pbx.url, monkeypatch)
    assert code == 1
    assert "the settings are well, but 1 thing they need would not work now" in said.splitlines()[0]
    assert said.splitlines()[1].startswith(f"  tenants.jardim.dialer: ARI at {pbx.url}")
    assert says in said
    assert PASSWORD not in said


@pytest.mark.parametrize("answer", [None, Answer(body={"status": "Running"})])
async def test_websocket_channels_are_asked_for_where_there_is_a_port_for_them(
    answer: Answer | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = f"[service]\nwebsocket_port = {free_port()}\n"
    module = {("GET", "/asterisk/modules/chan_websocket.so"): answer or Answer(404)}
    async with FakeAri(meddle=answering(READY | module)) as pbx:
        code, said = await asyncio.to_thread(run, tmp_path, pbx.url, monkeypatch, PASSWORD, service)
        without, _ = await asyncio.to_thread(run, tmp_path, pbx.url, monkeypatch)
    assert code == (1 if answer is None else 0) and without == 0
    lack = "lacks the WebSocket channels that service.websocket_port is for; have Asterisk 22.8 or later"
    assert (lack in said) is (answer is None)


async def test_an_ari_that_is_down_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeAri() as pbx:
        url = pbx.url
    code, said = await asyncio.to_thread(run, tmp_path, url, monkeypatch)
    assert code == 1
    assert "Connection refused; is Asterisk running" in said


def test_a_password_that_is_not_set_is_a_problem_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said = run(tmp_path, "http://127.0.0.1:9/ari", monkeypatch, password="")
    assert code == 1
    assert "tenants.jardim.dialer.password_env: the environment variable ARI_PASSWORD is not set" in said


def test_an_asterisk_elsewhere_must_be_told_where_we_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said = run(tmp_path, "http://10.0.0.9:8088/ari", monkeypatch)
    assert code == 1
    assert "audiosocket" in said and "10.0.0.9" in said


@pytest.mark.pbx
def test_the_example_configuration_of_asterisk_is_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Asterisk(find()) as pbx:
        code, said = run(tmp_path, pbx.ari_url, monkeypatch, "change-me-ari")
        assert code == 0, said
        assert f"jardim: ARI at {pbx.ari_url} answers, Asterisk 22" in said
        code, said = run(tmp_path, pbx.ari_url, monkeypatch, "another")
        assert code == 1
        assert "refused the user porteiro or its password; compare [porteiro] in ari.conf" in said
