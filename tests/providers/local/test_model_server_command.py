"""`porteiro model-server` as the service starts it: a ready line, a tidy end, a clear message."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from openai import AsyncOpenAI
from websockets.exceptions import InvalidStatus

from bridge.model_server import ModelServerProcess
from bridge.settings import Log, ModelServer
from providers.local.models import model_dir
from providers.local.pipeline import PipelineSpec, RecognitionSpec
from tests.providers.local.local_wire import ROOT, client, wide

_START = (
    "import argparse, sys\n"
    "from bridge.commands import model_server, models\n"
    "parser = argparse.ArgumentParser(); subparsers = parser.add_subparsers(required=True)\n"
    "model_server.add_parser(subparsers); models.add_parser(subparsers)\n"
    "arguments = parser.parse_args(); sys.exit(arguments.run(arguments))"
)


async def _start(*arguments: str, **environ: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _START,
        *arguments,
        cwd=ROOT,
        env={**os.environ, **environ},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def _ready(process: asyncio.subprocess.Process) -> str:
    assert process.stdout
    async with asyncio.timeout(60):
        line = json.loads(await process.stdout.readline())
    assert list(line) == ["listening"]
    url: str = line["listening"]
    return url


@pytest.mark.usefixtures("weights")
async def test_it_says_where_it_listens_serves_its_token_alone_and_stops_in_order() -> None:
    process = await _start("model-server", "--threads", "2", PORTEIRO_MODEL_SERVER_TOKEN="segredo")
    url = await _ready(process)
    assert url.startswith("ws://127.0.0.1:")
    sdk = AsyncOpenAI(base_url=url.replace("ws://", "http://"), api_key="segredo")
    async with asyncio.timeout(30), sdk.realtime.connect(model="local") as connection:
        assert (await connection.recv()).type == "session.created"
        process.send_signal(signal.SIGTERM)
        out, logs = await process.communicate()
    await sdk.close()
    assert process.returncode == 0 and out == b""
    assert b"segredo" not in logs and b"Traceback" not in logs
    events = [json.loads(line)["event"] for line in logs.splitlines()]
    assert events[0] == "listening" and "stopping" in events


async def test_its_log_has_the_form_that_the_services_settings_say(weights: Path, tmp_path: Path) -> None:
    with (tmp_path / "model.log").open("w") as to:
        process = ModelServerProcess(ModelServer(threads=1), weights.parent, to, Log(format="pretty"))
        await process.start()
        await process.stop()
    (line,) = [line for line in (tmp_path / "model.log").read_text().splitlines() if "listening" in line]
    assert "[info" in line and not line.startswith("{")


@pytest.mark.usefixtures("weights")
async def test_it_ends_with_its_parent_and_logs_no_words() -> None:
    process = await _start("model-server", "--exit-with-parent", "--threads", "2")
    url = await _ready(process)
    async with client(url) as one:
        item = {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "sou a Zuleica"}],
        }
        await one.send("conversation.item.create", item=item)
        await one.send("session.update", session={"type": "realtime", "instructions": "Fale com Zuleica."})
        await one.hear(wide(np.zeros(800, np.int16)))
        assert (await one.error())["param"] == "session.instructions"
        await one.send("response.cancel")
        assert (await one.error())["code"] == "response_cancel_not_active"
    async with asyncio.timeout(20):
        assert process.stdin
        process.stdin.close()
        _, logs = await process.communicate()
    assert process.returncode == 0
    assert b"Zuleica" not in logs and b"session opened" in logs


async def test_without_the_weights_it_says_how_to_fetch_them(tmp_path: Path) -> None:
    process = await _start("model-server", "--models", str(tmp_path))
    async with asyncio.timeout(30):
        out, error = await process.communicate()
    assert process.returncode == 1 and out == b""
    assert b"porteiro models fetch" in error and b"Traceback" not in error


@pytest.mark.usefixtures("weights")
async def test_a_port_that_is_taken_is_named() -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    process = await _start("model-server", "--port", str(port))
    async with asyncio.timeout(60):
        out, error = await process.communicate()
    server.close()
    await server.wait_closed()
    assert process.returncode == 1 and out == b""
    assert f"127.0.0.1:{port}".encode() in error and b"Traceback" not in error


async def test_fetch_takes_a_folder_and_list_tells_wrong_files(weights: Path, tmp_path: Path) -> None:
    fetch = await _start("models", "fetch", "--from", str(weights), "--models", str(tmp_path))
    out, error = await fetch.communicate()
    assert fetch.returncode == 0, error
    assert f"fetched from {weights}".encode() in out
    (model_dir(tmp_path) / "config.json").write_text("{}")
    listing = await _start("models", "list", "--models", str(tmp_path))
    out, _ = await listing.communicate()
    assert listing.returncode == 1 and b"config.json" in out and b"sha256" in out


async def test_a_pipeline_without_whisper_needs_no_weights_and_no_key_is_on_the_command_line(
    tmp_path: Path,
) -> None:
    recognition = RecognitionSpec(kind="deepgram", base_url="http://127.0.0.1:1", api_key="dg-secret")
    pipelines = {"jardim": PipelineSpec(recognition=recognition)}
    with (tmp_path / "model.log").open("w") as to:
        process = ModelServerProcess(ModelServer(), tmp_path, to, pipelines=pipelines, only_pipelines=True)
        address = await process.start()
        try:
            assert "dg-secret" not in " ".join(process._command())
            async with AsyncOpenAI(base_url=address.base_url, api_key=address.token) as sdk:
                async with asyncio.timeout(20):
                    async with sdk.realtime.connect(model="pipeline/jardim") as connection:
                        assert (await connection.recv()).type == "session.created"
                    for model in ("pipeline/bosque", "local"):
                        with pytest.raises(InvalidStatus, match="404"):
                            await sdk.realtime.connect(model=model).enter()
        finally:
            await process.stop()
    assert "dg-secret" not in (tmp_path / "model.log").read_text()


async def test_pipelines_that_make_no_sense_are_a_clear_message() -> None:
    process = await _start("model-server", "--pipelines-only", PORTEIRO_MODEL_SERVER_PIPELINES='{"a": 1}')
    _, said = await process.communicate()
    assert process.returncode == 1
    assert said.startswith(b"the model server can't start: the pipelines' specifications: a: ")
