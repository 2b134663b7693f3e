"""Serves the HTTP API on the event loop that runs: uvicorn, without its hands on signals and the log.

Each connection carries one request, and has one deadline for all of it: whoever says nothing, or dribbles,
holds nothing for longer. Only so many are held, since the calls' sockets come out of the same process.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from bridge.endpoints.listening import open_listeners

CONNECTION_S = 10.0
"""From a connection to its end."""
MAX_CONNECTIONS = 64
"""At the same time. One more is closed at once."""
MAX_HEAD_BYTES = 16 * 1024
"""Of a request's line and headers."""
BACKLOG = 64
STOP_S = 2
"""How long requests may take to end once the server stops."""

log = structlog.get_logger(__name__)


class _Connection(H11Protocol):
    """One connection with its deadline."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give it its deadline, or turn it away."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            self._give_up("too_many_connections")
        else:
            self._deadline = self.loop.call_later(CONNECTION_S, self._give_up, "too_slow")

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def _give_up(self, reason: str) -> None:
        peer = f"{self.client[0]}:{self.client[1]}" if self.client else "unknown"
        log.warning("http.connection_closed", reason=reason, peer=peer)
        self.transport.abort()


class HttpServer:
    """Listens for HTTP on one port of some addresses.

    Args:
        app: answers the requests.
        hosts: addresses; IPv4 and IPv6 may be mixed.
        port: 0 takes a free one; :attr:`port` then says which.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str], port: int) -> None:
        self.port = port
        self._hosts = tuple(hosts)
        self._sockets: list[socket.socket] = []
        config: dict[str, Any] = {
            "http": _Connection,
            "ws": "none",
            "loop": "none",
            "lifespan": "off",
            "interface": "asgi3",
            "log_config": None,
            "log_level": "warning",
            "access_log": False,
            "proxy_headers": False,
            "server_header": False,
            "headers": [("connection", "close")],
            "h11_max_incomplete_event_size": MAX_HEAD_BYTES,
            "backlog": BACKLOG,
            "timeout_graceful_shutdown": STOP_S,
        }
        self._server = uvicorn.Server(uvicorn.Config(app, **config))
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: an address can't be listened on; its text names the address and the port.
        """
        self._sockets = await open_listeners(self._hosts, self.port)
        self.port = self._sockets[0].getsockname()[1]
        # What uvicorn's serve() does, less its signal handlers: the process has its own (`porteiro serve`).
        config = self._server.config
        config.load()
        self._server.lifespan = config.lifespan_class(config)
        try:
            await self._server.startup(self._sockets)
        except BaseException:
            for listener in self._sockets:
                listener.close()
            raise
        self._running = asyncio.get_running_loop().create_task(self._server.main_loop(), name="HTTP API")

    async def stop(self) -> None:
        """Take no more requests, and end those that run within seconds. More than once is harmless."""
        if self._running is None:
            return
        running, self._running = self._running, None
        self._server.should_exit = True
        await asyncio.wait({running}, timeout=STOP_S)
        running.cancel()
        await self._server.shutdown(self._sockets)
