"""What the vendors' simulators share: a WebSocket server on loopback, and waiting for what its clients do."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

M = TypeVar("M")


class Serving(ABC, Generic[M]):
    """``async with`` it: serves at ``url``; one model a connection."""

    def __init__(self, path: str = "", tls: ssl.SSLContext | None = None) -> None:
        """``path``: at the end of its address."""
        self._path = path
        self._tls = tls
        self.models: list[M] = []
        self.requests: list[Request] = []
        self.open_connections = 0
        self._wake: dict[int, asyncio.Event] = {}
        self._server: Server | None = None
        self._stopping = asyncio.Event()
        self._news = asyncio.Event()
        self.url = ""

    @abstractmethod
    async def _greet(self, connection: ServerConnection, request: Request) -> Response | None:
        """The answer to a request that opens no conversation; None lets one begin."""

    @abstractmethod
    async def _serve(self, socket: ServerConnection) -> None:
        """One conversation."""

    @property
    def model(self) -> M:
        """The newest connection's model."""
        return self.models[-1]

    def kick(self, model: M | None = None) -> None:
        """Have what somebody put into a model sent; without one, into the newest connection's.

        For simulators whose connections wait for that in ``_wake``.
        """
        self._wake[id(model or self.model)].set()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait (five seconds at most) for what clients make come true."""
        async with asyncio.timeout(5):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def _pause(self, seconds: float) -> None:
        """Wait so long, or until the test is over."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def __aenter__(self) -> Self:
        self._server = await serve(self._serve, "127.0.0.1", 0, process_request=self._greet, ssl=self._tls)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{port}{self._path}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._stopping.set()
        self._server.close()
        await self._server.wait_closed()
