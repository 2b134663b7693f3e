"""A site's own system on a real port: it says what it is told to say, and keeps what it was asked."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

HOST = "127.0.0.2"
"""Another address than the doors of the tests have: no tool may speak to what moves a gate."""


@dataclass
class Asked:
    """One request."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Its body."""
        return json.loads(self.body)


@dataclass
class Site:
    """The system. `says` holds raw answers, in order; the last one is said again and again."""

    says: deque[bytes] = field(default_factory=deque)
    asked: list[Asked] = field(default_factory=list)
    port: int = 0
    slow_s: float = 0.0
    at_once: int = 0
    most_at_once: int = 0
    scheme: str = "http"
    host: str = HOST

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{self.scheme}://{self.host}:{self.port}"

    def will_say(self, *answers: bytes) -> None:
        """What it says from now on."""
        self.says = deque(answers)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            head, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines if line)
            original = dict(line.split(": ", 1) for line in lines if line)
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            method, target, _ = head.split(" ")
            self.asked.append(
                Asked(method, target, {name.lower(): value for name, value in original.items()}, body)
            )
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            await asyncio.sleep(self.slow_s)
            said = self.says.popleft() if len(self.says) > 1 else self.says[0]
            if said:
                writer.write(said)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # who asked has gone
        finally:
            self.at_once -= 1
            writer.close()


def answer(document: Any, status: str = "200 OK", kind: str = "application/json", more: str = "") -> bytes:
    """A whole answer."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}"
    return f"{head}Connection: close\r\n\r\n".encode() + body


@asynccontextmanager
async def site(*answers: bytes, tls: ssl.SSLContext | None = None, host: str = HOST) -> AsyncIterator[Site]:
    """A running one."""
    here = Site(deque(answers), scheme="https" if tls else "http", host=host)
    server = await asyncio.start_server(here.serve, host, 0, ssl=tls)
    here.port = server.sockets[0].getsockname()[1]
    try:
        yield here
    finally:
        server.close()
