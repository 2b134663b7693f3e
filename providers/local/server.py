"""The model server: the OpenAI Realtime protocol over a WebSocket, one session a connection."""

from __future__ import annotations

import asyncio
import hmac
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import orjson
import structlog
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request
from websockets.http11 import Response as HttpResponse

from providers.local.pipeline import PREFIX
from providers.local.session import Parts, RealtimeSession

PATH: Final = "/v1/realtime"
_MAX_MESSAGE: Final = 1 << 20
"""Bytes of one client message: 16 s of audio, or long instructions."""
_MAX_OUTBOX: Final = 16 << 20
"""Bytes that may wait for a client who doesn't read, before the connection is given up."""
_ROOM: Final = 1 << 20

log = structlog.get_logger(room="model_server")


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where and how the server listens."""

    host: str = "127.0.0.1"
    port: int = 0
    """0: any free port."""
    token: str = ""
    """The bearer token that clients must bring; empty: any will do (the server listens on loopback)."""
    max_sessions: int = 64
    ping_s: float = 20.0


class TooSlow(Exception):
    """The client does not read what it is sent."""


class Outbox:
    """Server events in order, between the session, which must not wait, and the socket, which may."""

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def put(self, event: dict[str, Any]) -> None:
        data = orjson.dumps(event)
        self._waiting.append(data)
        self._bytes += len(data)
        self._filled.set()
        if self._bytes > _ROOM:
            self._room.clear()

    async def room(self) -> None:
        """Wait until less than a megabyte waits."""
        await self._room.wait()

    async def drain(self, connection: ServerConnection) -> None:
        """Send what is put, until cancelled.

        Raises:
            TooSlow: more than :data:`_MAX_OUTBOX` bytes wait.
        """
        while True:
            await self._filled.wait()
            while self._waiting:
                if self._bytes > _MAX_OUTBOX:
                    raise TooSlow(f"{self._bytes} bytes are waiting for the client")
                data = self._waiting.popleft()
                self._bytes -= len(data)
                if self._bytes <= _ROOM:
                    self._room.set()
                await connection.send(data, text=True)
            self._filled.clear()


class ModelServer:
    """Accepts connections and runs a session on each."""

    def __init__(
        self, parts: Parts | None, settings: ServerSettings, pipelines: Mapping[str, Parts] | None = None
    ) -> None:
        """
        Args:
            parts: of sessions that name no pipeline; None: there are no such sessions.
            pipelines: the parts of those that do, by the pipeline's name.
        """
        self._parts = parts
        self._pipelines = pipelines or {}
        self._settings = settings
        self._sessions = 0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Listen; yields the base URL for clients, like ``ws://127.0.0.1:43210/v1``.

        On the way out the connections are closed with 1001 (going away), within two seconds.
        """
        settings = self._settings
        server = await serve(
            self._connection,
            settings.host,
            settings.port,
            process_request=self._admit,
            compression=None,
            max_size=_MAX_MESSAGE,
            max_queue=64,
            open_timeout=5,
            close_timeout=2,
            ping_interval=settings.ping_s,
            ping_timeout=settings.ping_s,
            server_header=None,
        )
        try:
            yield base_url(server)
        finally:
            server.close()
            await server.wait_closed()
            for parts in self._pipelines.values():
                for one in parts.owned:
                    await one.close()

    # ----------------------------------------------------------------------------------------- admission

    def _admit(self, connection: ServerConnection, request: Request) -> HttpResponse | None:
        parts = urlsplit(request.path)
        if parts.path != PATH:
            return connection.respond(HTTPStatus.NOT_FOUND, f"There is only {PATH} here.\n")
        if not self._authorized(request):
            return connection.respond(HTTPStatus.UNAUTHORIZED, "The bearer token is missing or wrong.\n")
        model = _model(request)
        if not model:
            return connection.respond(HTTPStatus.BAD_REQUEST, "The parameter 'model' is missing.\n")
        if self._parts_of(model) is None:
            return connection.respond(HTTPStatus.NOT_FOUND, "model_not_found\n")
        if self._sessions >= self._settings.max_sessions:
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "Too many sessions are open.\n")
        return None

    def _parts_of(self, model: str) -> Parts | None:
        if model.startswith(PREFIX):
            return self._pipelines.get(model.removeprefix(PREFIX))
        return self._parts

    def _authorized(self, request: Request) -> bool:
        if not self._settings.token:
            return True
        given = request.headers.get_all("Authorization")
        scheme, _, token = (given[0] if len(given) == 1 else "").partition(" ")
        wanted = self._settings.token.encode()
        return scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), wanted)

    # ---------------------------------------------------------------------------------------- a connection

    async def _connection(self, connection: ServerConnection) -> None:
        if self._sessions >= self._settings.max_sessions:
            await connection.close(1013, "too many sessions")
            return
        self._sessions += 1
        try:
            await self._converse(connection)
        except* TooSlow as slow:
            log.warning("session given up", reason=str(slow.exceptions[0]))
            await connection.close(1008, "the client does not read")
        except* (_Gone, ConnectionClosed):
            pass
        finally:
            self._sessions -= 1

    async def _converse(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        model = _model(connection.request)
        parts = self._parts_of(model)
        assert parts is not None
        outbox = Outbox()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(outbox.drain(connection), name="send")
            session = RealtimeSession(parts, model, outbox.put, outbox.room, tasks)
            session.start()
            log.info("session opened", session=session.id)
            try:
                async for message in connection:
                    session.handle(message)
            finally:
                session.close()
                log.info("session closed", session=session.id)
            # What still runs would be said to nobody; the exception is what cancels it.
            raise _Gone


class _Gone(Exception):
    """The client closed the connection."""


def _model(request: Request) -> str:
    return parse_qs(urlsplit(request.path).query).get("model", [""])[0][:128]


def base_url(server: Server) -> str:
    """The URL that clients append ``/realtime`` to."""
    host, port = server.sockets[0].getsockname()[:2]
    return f"ws://[{host}]:{port}/v1" if ":" in host else f"ws://{host}:{port}/v1"
