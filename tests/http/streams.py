"""Reads server-sent events over a real socket, as a browser would; and keys to ask with."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from bridge.http.access import digest, new_key, now, whole_key
from bridge.service import Service
from storage.catalogue import KeyRole


async def key_for(
    service: Service, role: KeyRole, tenant: str | None = None, scopes: tuple[str, ...] | None = None
) -> dict[str, str]:
    """A new key, as a request's headers."""
    id, secret = new_key()
    await service.catalogue.add_key(
        id,
        digest(secret),
        name=f"a {role}",
        role=role,
        scopes=scopes,
        tenant=tenant,
        expires_at=None,
        by="test:keys",
        at=now(),
    )
    return {"Authorization": f"Bearer {whole_key(id, secret)}"}


@dataclass(frozen=True)
class Told:
    """One event."""

    kind: str
    id: str
    data: Any


class Stream:
    """An open stream."""

    def __init__(self, answer: httpx2.Response) -> None:
        self.answer = answer
        self._lines = answer.aiter_lines()

    async def next(self, timeout_s: float = 10.0) -> Told | None:
        """The next event; None: the stream has ended."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(timeout_s):
            async for line in self._lines:
                if not line:
                    if "data" in fields:
                        return Told(fields["event"], fields.get("id", ""), json.loads(fields["data"]))
                    fields = {}
                elif not line.startswith(":"):
                    name, _, value = line.partition(": ")
                    assert name not in fields, "one line a field"
                    fields[name] = value
        return None

    async def beat(self, timeout_s: float = 10.0) -> None:
        """Wait for a comment: nothing has happened, and the stream is open."""
        async with asyncio.timeout(timeout_s):
            async for line in self._lines:
                if line.startswith(":"):
                    return
        raise AssertionError("the stream ended")

    async def until(self, kind: str, timeout_s: float = 20.0) -> Told:
        """The next event of a kind."""
        async with asyncio.timeout(timeout_s):
            while (told := await self.next(timeout_s)) is not None:
                if told.kind == kind:
                    return told
        raise AssertionError(f"the stream ended without {kind}")


@asynccontextmanager
async def follow(
    client: httpx2.AsyncClient, headers: Mapping[str, str], query: str = ""
) -> AsyncIterator[Stream]:
    """Follow `/v1/events`."""
    async with client.stream("GET", f"/v1/events{query}", headers=dict(headers)) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield Stream(answer)
