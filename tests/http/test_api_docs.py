"""What docs/api.md shows runs as it stands."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

from tests.http.people import make_key, served
from tests.ports import free_port

DOCS = Path(__file__).resolve().parents[2] / "docs" / "api.md"


async def test_every_example_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", DOCS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 5
    script = "\n".join(["set -eu", "shopt -s expand_aliases", *blocks])
    # Its ports may be somebody else's here.
    script = script.replace("9080", str(free_port())).replace("9081", str(free_port()))
    async with served(tmp_path / "data") as (service, client):
        environ = {**os.environ, "URL": str(client.base_url), "KEY": await make_key(service, "admin")}
        environ |= {"NO_PROXY": "*"}
        process = await asyncio.create_subprocess_exec(
            "bash",
            "-c",
            script,
            cwd=tmp_path,
            env=environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert process.stdout is not None
        async with asyncio.timeout(120):
            said = (await process.stdout.read()).decode()
            assert await process.wait() == 0, said[-3000:]
        assert '"created":2' in said and '"sound":true' in said and "João Souza" in said
        assert (tmp_path / "audit.csv").read_bytes().startswith(b"\xef\xbb\xbftenant;seq")
        assert await service.storage.verify() == []
