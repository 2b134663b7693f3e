"""A tenant's own system: a real HTTP server that checks each event by the standard's own verifier."""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

from standardwebhooks import Webhook

SECRET = "whsec_" + b64encode(bytes(range(32))).decode()


@dataclass(frozen=True)
class Got:
    """An event that came."""

    id: str
    event: Any
    accepted: bool
    body: bytes

    @property
    def visit(self) -> str:
        return str(self.event["data"]["visit"])


@dataclass
class Receiver:
    """Answers as it is told, 200 else; what it got, in its order."""

    answer: Callable[[str, int], bytes | None] = lambda _id, _number: b"200 OK"
    """Of an event's id and how often it came: a status line's end and further headers; None: never."""
    tls: ssl.SSLContext | None = None
    got: list[Got] = field(default_factory=list)
    more: bytes = b""
    """Sent behind the headers."""
    came: asyncio.Event = field(default_factory=asyncio.Event)
    now: int = 0
    most: int = 0
    """How many requests there were at the same time."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        self._times: dict[str, int] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._over = asyncio.Event()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self._over.set()
        if self._tasks:
            late = (await asyncio.wait(self._tasks, timeout=5))[1]
            assert not late, "a sender left its connection open"
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        port = self._server.sockets[0].getsockname()[1]
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{port}/events?key=of-the-url"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                await self._one(reader, writer)
        finally:
            self.now -= 1
            self._tasks.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert head.startswith("POST /events?key=of-the-url HTTP/1.1\r\n"), head
        lines = [line.split(": ", 1) for line in head.split("\r\n")[1:] if line]
        headers = {name.lower(): value for name, value in lines}
        assert headers["content-type"] == "application/json"
        body = await reader.readexactly(int(headers["content-length"]))
        event = Webhook(SECRET).verify(body, headers)
        id = headers["webhook-id"]
        self._times[id] = self._times.get(id, 0) + 1
        answer = self.answer(id, self._times[id])
        accepted = answer is not None and answer.startswith(b"2")
        if answer is not None:
            writer.write(b"HTTP/1.1 " + answer + b"\r\nConnection: close\r\n\r\n" + self.more)
        self.got.append(Got(id, event, accepted, body))
        self.came.set()
        if answer is None:
            await self._over.wait()
        else:
            await writer.drain()

    async def until(self, holds: Callable[[], object], timeout_s: float = 20.0) -> None:
        """Wait until it holds of what came."""
        async with asyncio.timeout(timeout_s):
            while not holds():
                self.came.clear()
                await self.came.wait()

    @property
    def accepted(self) -> list[Got]:
        """What it took, each event once, in the order of the first time."""
        return list({one.id: one for one in reversed(self.got) if one.accepted}.values())[::-1]
