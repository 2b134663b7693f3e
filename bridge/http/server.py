"""Serves the HTTP API on the event loop that runs: uvicorn, without its hands on signals and the log.

Each connection carries one request. Whoever dribbles its head, or does not take the answer, is cut off; what
is in between has its deadlines in `bounds.py`. Only so many are held: the calls' sockets come out of the same
process.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import h11
import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.h11_impl import H11Protocol

from bridge.endpoints.connection import Connection
from bridge.endpoints.listening import open_listeners
from bridge.endpoints.web_messages import MAX_MESSAGE_BYTES
from bridge.http.sockets import PING_S, Socket

HEAD_S = 10.0
"""From a connection to the end of a request's headers."""
STALL_S = 30.0
"""For the next 64 KiB of an answer to be taken."""
MAX_CONNECTIONS = 256
"""At the same time. Of one more somebody gives way who has not shown who they are."""
MAX_HEAD_BYTES = 16 * 1024
"""Of a request's line and headers."""
BACKLOG = 64
STOP_S = 2
"""How long requests may take to end once the server stops."""

Beside = Mapping[str, Callable[[], Connection]]
"""By the beginning of a path: who has the connections whose first request is for it."""

log = structlog.get_logger(__name__)


class _Connection(H11Protocol):
    """One connection with its deadlines."""

    _deadline: asyncio.TimerHandle | None = None
    _since = 0.0
    _gone = False

    def __init__(self, *arguments: Any, beside: Beside, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._beside = beside
        self._head: bytes | None = b""
        """What came before it was known whose the connection is; None: it is ours."""

    def data_received(self, data: bytes) -> None:
        """Find out by the first bytes whether this is HTTP for the application, or another's connection."""
        if self._head is None:
            super().data_received(data)
            return
        self._head += data
        for prefix, make in self._beside.items():
            line = b"GET " + prefix.encode()
            if self._head.startswith(line):
                self._hand_over(make(), self._head)
                return
            if line.startswith(self._head):
                return
        head, self._head = self._head, None
        super().data_received(head)

    def _hand_over(self, other: Connection, head: bytes) -> None:
        """Give the connection to somebody else, as if it had been theirs from the start."""
        self._moved_on()
        self.connections.discard(self)
        self.transport.pause_reading()  # uvloop goes on as it began: in the way of another kind of protocol
        self.transport.set_protocol(other)
        self.transport.resume_reading()
        other.connection_made(self.transport)
        rest = memoryview(head)
        while rest and not self.transport.is_closing():
            place = other.get_buffer(len(rest))
            size = min(len(rest), len(place))
            place[:size] = rest[:size]
            rest = rest[size:]
            other.buffer_updated(size)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give it its deadline; where there are too many, one of them has to go."""
        super().connection_made(transport)
        self._since = self.loop.time()
        self._must_move_on(HEAD_S)
        if len(self.connections) > MAX_CONNECTIONS:
            self._one_too_many()

    def _one_too_many(self) -> None:
        """The oldest of those who are nobody, at the address that has most of them: who floods us comes from
        few, and keeps neither the PBX nor an operator out."""
        nobodies = [one for one in self.connections if isinstance(one, _Connection) and one.is_nobody]
        hosts = Counter(one.host for one in nobodies)
        busiest = max(hosts, key=hosts.__getitem__)  # we are one of them ourselves
        oldest = min((one for one in nobodies if one.host == busiest), key=lambda one: one._since)
        oldest._give_up("too_many_connections")

    @property
    def host(self) -> str:
        """The address that it comes from."""
        return self.client[0] if self.client else ""

    @property
    def is_nobody(self) -> bool:
        """Whether it has not shown who it is: no whole head so far, or nothing in it that holds."""
        return not self._gone and (self.cycle is None or "porteiro.caller" not in self.cycle.scope)

    def handle_events(self) -> None:
        """What came is read; once the head is whole, the application has its own deadlines."""
        super().handle_events()
        if self.cycle is not None:
            self._moved_on()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """From here on it is a WebSocket, with limits of its own."""
        self._moved_on()
        super().handle_websocket_upgrade(event)

    def pause_writing(self) -> None:
        """Whoever asked does not take the answer as quickly as it is given."""
        super().pause_writing()
        self._must_move_on(STALL_S)

    def resume_writing(self) -> None:
        """They took the most of it."""
        super().resume_writing()
        self._moved_on()

    def on_response_complete(self) -> None:
        """All is said; what the other side has not taken yet does not wait for ever."""
        super().on_response_complete()
        self._must_move_on(STALL_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        super().connection_lost(exc)
        self._moved_on()

    def _must_move_on(self, within_s: float) -> None:
        self._moved_on()
        self._deadline = self.loop.call_later(within_s, self._give_up, "too_slow")

    def _moved_on(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self, reason: str) -> None:
        peer = f"{self.client[0]}:{self.client[1]}" if self.client else "unknown"
        log.warning("http.connection_closed", reason=reason, peer=peer)
        self._gone = True
        self.transport.abort()


class HttpServer:
    """Listens for HTTP on one port of some addresses.

    Args:
        app: answers the requests.
        hosts: addresses; IPv4 and IPv6 may be mixed.
        port: 0 takes a free one; :attr:`port` then says which.
        tls: certificate and key, in PEM; None: the port speaks HTTP in clear.
        beside: others whose connections come to this port as well.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: Sequence[str],
        port: int,
        tls: tuple[Path, Path] | None = None,
        *,
        beside: Beside | None = None,
    ) -> None:
        self.port = port
        self._hosts = tuple(hosts)
        self._sockets: list[socket.socket] = []
        config: dict[str, Any] = {
            "http": partial(_Connection, beside=beside or {}),
            "ws": Socket,
            "ws_max_size": MAX_MESSAGE_BYTES,
            "ws_per_message_deflate": False,
            "ws_ping_interval": PING_S,
            "ws_ping_timeout": PING_S,
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
        if tls is not None:
            config["ssl_certfile"], config["ssl_keyfile"] = tls
        self._server = uvicorn.Server(uvicorn.Config(app, **config))
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            ValueError: the certificate or its key can't be used.
            OSError: an address can't be listened on; its text names the address and the port.
        """
        # What uvicorn's serve() does, less its signal handlers: the process has its own (`porteiro serve`).
        config = self._server.config
        try:
            config.load()
        except OSError as error:
            raise ValueError(str(error)) from error
        self._sockets = await open_listeners(self._hosts, self.port)
        self.port = self._sockets[0].getsockname()[1]
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


def behind_proxies(app: ASGIApp, networks: Sequence[str]) -> ASGIApp:
    """The application, to which whoever a proxy in these networks passes on is who asks."""
    return cast(ASGIApp, ProxyHeadersMiddleware(cast(Any, app), trusted_hosts=list(networks)))
