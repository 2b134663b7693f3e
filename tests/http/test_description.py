"""What OpenAPI says of the resources is so: a machine asks everything that it allows, and what it forbids."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from bridge.http.application import application
from bridge.http.description import describe, resources
from bridge.service import Service
from tests.http.people import make_key, make_tenant, now, served
from tests.service.household import settings

ENDLESS = "/v1/events"
"""An answer that does not end by itself."""
CONFIG = """
[checks]
# Beside what is refused for its form: what contradicts itself, or what there is.
positive_data_acceptance.expected-statuses = [
  "2xx", "400", "401", "403", "404", "409", "412", "416", "422", "428"
]
"""
BELOW_A_TENANT = """
# A tenant that there is: else all that is below one would be 404.
parameters = { "path.tenant" = "bosque" }
"""
LONGEST_S = 240


def described() -> tuple[dict[str, Any], set[tuple[str, str]]]:
    """The description, and the (method, path) of every resource."""
    app = application(Service(settings(Path("/nowhere"), {"jardim": {}}, {})), None)
    return describe(app), {(one.method, one.path) for one in resources(app)}


def test_every_resource_is_described_with_what_it_needs_and_how_it_refuses() -> None:
    description, there = described()
    told = {(method.upper(), path) for path, item in description["paths"].items() for method in item}
    assert told == there
    for path, item in description["paths"].items():
        for method, operation in item.items():
            assert operation.get("description"), (method, path)
            if "security" in operation:
                assert {"401", "403", "429", "503"} <= set(operation["responses"]), (method, path)
            for status, response in operation["responses"].items():
                if int(status) >= 400 and path != "/ready":
                    kinds = set(response["content"])
                    if path.startswith("/api/"):  # beside what the older systems' programs know
                        kinds.discard("application/json")
                    assert kinds == {"application/problem+json"}, (method, path, status)


@pytest.mark.slow
@pytest.mark.timeout(2 * LONGEST_S)
async def test_a_machine_that_asks_everything_finds_nothing_wrong(tmp_path: Path) -> None:
    # With a proxy before it nobody is a program on this machine, which needs no key for some things.
    given: dict[str, Any] = {"http_proxies": ["192.0.2.1"], "log": {"level": "error"}}
    async with served(tmp_path / "data", **given) as (service, client):
        await make_tenant(service, "bosque")
        visit = str(uuid4())
        started = {"endpoint": "test", "provider": "local"}
        await service.storage.append("jardim", visit, now(), "visit.started", started)
        key = await make_key(service, "admin")
        asks = Machine(tmp_path, f"{client.base_url}/v1/openapi.json", key)
        await asks(CONFIG, "--phases", "coverage,fuzzing", "--max-examples", "3")
        # What is forbidden has been tried: here it would be overridden.
        await asks(
            BELOW_A_TENANT + CONFIG, "--phases", "fuzzing", "--max-examples", "5", "--mode", "positive"
        )
        assert await service.storage.verify() == []


@dataclass(frozen=True)
class Machine:
    """Schemathesis, as a process of its own."""

    folder: Path
    url: str
    key: str

    async def __call__(self, config: str, *arguments: str) -> None:
        """Have it ask; what it finds is an error."""
        (self.folder / "schemathesis.toml").write_text(config)
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("st")),
            *("--config-file", str(self.folder / "schemathesis.toml"), "run", self.url),
            *("--header", f"Authorization: Bearer {self.key}", *arguments),
            *("--exclude-path", ENDLESS, "--exclude-path", "/v1/login"),
            *("--seed", "1", "--no-shrink", "--continue-on-failure"),
            *("--request-timeout", "20", "--warnings", "off"),
            cwd=self.folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(LONGEST_S):
                said = (await process.stdout.read()).decode()
                code = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
        assert code == 0 and "No issues found" in said, said[-6000:]
