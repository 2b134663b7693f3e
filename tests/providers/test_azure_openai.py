"""Azure OpenAI: the address, who we are, and what its refusals are called."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

from providers import registry
from providers.access import TOKEN_BYTES, Access
from providers.base import Failed, Heard, Ready, ResponseDone, Session, SessionConfig, ToolCall, ToolSpec
from tests.simulators.azure_openai import DEPLOYMENT, AzureSimulator
from tests.simulators.openai_realtime import Call, Faults, Reply, Say
from tests.simulators.talk import Talk, failures

TOOL = ToolSpec("lookup_apartment", "Procura.", {"type": "object", "properties": {}})
CONFIG = SessionConfig(instructions="Você é o porteiro.", tools=[TOOL])
KEY = Access("azure-key", model=DEPLOYMENT)


@asynccontextmanager
async def talking(server: AzureSimulator, access: Access = KEY) -> AsyncIterator[Talk[Session]]:
    """A session with a server; closed at the end."""
    access = replace(access, base_url=access.base_url or server.resource)
    talk = Talk(registry.create("azure-openai", access).open(CONFIG))
    try:
        yield talk
    finally:
        await talk.session.close()
        await talk.end()


@pytest.mark.parametrize("path", ["", "/", "/openai/v1", "/openai/v1/"])
async def test_it_asks_the_deployment_with_the_key_alone(path: str) -> None:
    async with AzureSimulator() as server:
        async with talking(server, replace(KEY, base_url=server.resource + path)) as talk:
            await talk.a(Ready)
        (request,) = server.requests
        assert request.path == f"/openai/v1/realtime?model={DEPLOYMENT}"
        assert request.headers["api-key"] == "azure-key" and "authorization" not in request.headers
        assert server.model.violations == []


async def test_a_token_is_read_anew_for_each_call(tmp_path: Path) -> None:
    file = tmp_path / "token"
    access = Access(token_file=file, model=DEPLOYMENT)
    async with AzureSimulator() as server:
        server.tokens = {"first.token"}
        file.write_text("first.token\n")
        async with talking(server, access) as talk:
            await talk.a(Ready)
        server.tokens = {"second.token"}
        async with talking(server, access) as talk:
            assert [e.code for e in failures(await talk.end())] == ["key_refused"], "it has run out"
        file.write_text("second.token")
        async with talking(server, access) as talk:
            await talk.a(Ready)
        assert [r.headers["authorization"] for r in server.requests] == [
            "Bearer first.token",
            "Bearer first.token",
            "Bearer second.token",
        ]
        assert all("api-key" not in r.headers for r in server.requests)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b'{"accessToken": "x"}', "holds no access token"),
        (b"two\nlines", "holds no access token"),
        ("tóken".encode(), "holds no access token"),
        (b"x" * (TOKEN_BYTES + 1), "holds no access token"),
    ],
)
async def test_a_token_that_is_none_is_told_and_nobody_is_asked(
    content: bytes | None, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    async with (
        AzureSimulator() as server,
        talking(server, Access(token_file=file, model=DEPLOYMENT)) as talk,
    ):
        (failed,) = await talk.end()
        assert isinstance(failed, Failed) and (failed.kind, failed.code) == ("session", "no_token")
        assert str(file) in failed.message and words in failed.message
        assert server.requests == []


@pytest.mark.parametrize(
    ("access", "code", "words"),
    [
        (replace(KEY, api_key="another"), "key_refused", "the key was refused (HTTP 401)"),
        (replace(KEY, model="another"), "unknown_model", "there is no deployment of this name (HTTP 404)"),
        (replace(KEY, voice="francisca"), "unsupported_voice", "the voice is not known there: "),
    ],
)
async def test_what_is_wrong_is_told_apart(access: Access, code: str, words: str) -> None:
    faults = Faults(voices=frozenset({"marin"}))
    async with AzureSimulator(faults=faults) as server, talking(server, access) as talk:
        (failed,) = failures(await talk.end())
        assert failed.code == code and words in failed.message
        assert "another" not in failed.message and "azure-key" not in failed.message


async def test_a_whole_exchange() -> None:
    call = Reply((Say(100, "Vou ver."), Call(call_id="a"), Call(call_id="b")))
    async with AzureSimulator(Reply((Say(5000),)), call) as server, talking(server) as talk:
        server.faults.pace_s = 0.002
        receipt = talk.session.say_exactly("Boa tarde!")
        started: Any = await talk.until(lambda events: [e for e in events if e.type == "audio_delta"])
        talk.session.interrupt(Heard(started[0].item, 20))
        await talk.a(ResponseDone, receipt=receipt, status="cancelled")
        server.model.caller_ends(server.model.caller_starts(), "Apartamento 501.")
        server.kick()
        for name in ("a", "b"):
            talk.session.answer(await talk.a(ToolCall, id=name), {"apartment": name})
        await talk.until(lambda events: sum(isinstance(e, ResponseDone) for e in events) == 3)
        assert server.model.truncated == {started[0].item: 20}
        assert set(server.model.answers) == {"a", "b"}
        assert server.model.violations == []


async def test_the_official_sdk_gets_in() -> None:
    async with AzureSimulator() as server:
        client = AsyncOpenAI(
            base_url=f"{server.resource}/openai/v1", api_key="token", default_headers={"x": "y"}
        )
        server.tokens = {"token"}
        async with client.realtime.connect(model=DEPLOYMENT) as connection:
            assert (await connection.recv()).type == "session.created"
        await client.close()
