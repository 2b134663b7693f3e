"""An Asterisk's REST interface and event socket that can fail in every way a real one can't be made to."""

from __future__ import annotations

import asyncio
import base64
import urllib.parse
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Self

import orjson
from websockets.exceptions import InvalidHandshake
from websockets.http11 import Request as Handshake
from websockets.protocol import State
from websockets.server import ServerProtocol

USER, PASSWORD = "porteiro", "a password"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    method: str
    path: str
    query: dict[str, str]
    body: Any


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server does about it."""

    status: int = 200
    body: Any = None
    after_s: float = 0.0
    reset: bool = False
    """The connection breaks in place of an answer."""


@dataclass(slots=True)
class FakeChannel:
    """A channel, as far as anybody asks."""

    id: str
    app: str
    variables: dict[str, str]
    state: str = "Ring"
    stage: str = "AppDial2"
    """The application that runs: AppDial2 while it rings, Stasis, or AudioSocket once in the dialplan."""

    def shown(self) -> dict[str, Any]:
        """As ARI shows it."""
        data = f"{self.app},resident,{self.id}" if self.stage == "Stasis" else ""
        return {
            "id": self.id,
            "state": self.state,
            "dialplan": {"app_name": self.stage, "app_data": data},
        }


Behaviour = Callable[[Asked], Awaitable[Answer | None]]


@dataclass(slots=True)
class FakeAri:
    """A context: listens on entry. `port` 0: a free one, the same again after a stop and a start."""

    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    channels: dict[str, FakeChannel] = field(default_factory=dict)
    meddle: Behaviour | None = None
    """Asked before the usual answer; None from it: the usual."""
    on_call: Callable[[FakeChannel], None] | None = None
    """A channel was made, and its order is not yet answered."""
    password: str = PASSWORD
    after_the_order_s: float = 0.0
    """How much later than the channel is made the order is answered."""
    refuse_events: int = 0
    """A status with which the event socket is refused."""
    _server: asyncio.Server | None = None
    _sockets: set[tuple[ServerProtocol, asyncio.StreamWriter]] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """As if the process had died: connections are reset."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}/ari"

    @property
    def listeners(self) -> int:
        """Event sockets that are open."""
        return len(self._sockets)

    def orders(self, method: str, ending: str = "") -> list[Asked]:
        """What was asked with a method, of paths that end so."""
        return [one for one in self.asked if one.method == method and one.path.endswith(ending)]

    # ---- What happens in the PBX -------------------------------------------------------------------------

    def send(self, event: Any) -> None:
        """An event to everybody who listens; text goes as it is."""
        text = event if isinstance(event, bytes) else orjson.dumps(event)
        for protocol, writer in tuple(self._sockets):
            protocol.send_text(text)
            _flush(protocol, writer)

    def drop_events(self) -> None:
        """Break the event sockets."""
        for _, writer in tuple(self._sockets):
            writer.transport.abort()

    def dial_event(self, channel: str, status: str) -> None:
        """A Dial event about a channel."""
        self.send({"type": "Dial", "dialstatus": status, "peer": {"id": channel}})

    def answer(self, channel: str) -> None:
        """Somebody picks up."""
        made = self.channels[channel]
        made.state, made.stage = "Up", "Stasis"
        self.send({"type": "StasisStart", "args": ["resident", channel], "channel": made.shown()})

    def end(self, channel: str, cause: int) -> None:
        """The channel is destroyed."""
        self.channels.pop(channel, None)
        self.send({"type": "ChannelDestroyed", "cause": cause, "channel": {"id": channel}})

    # ---- Requests ----------------------------------------------------------------------------------------

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._request(reader, writer):
                pass
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        method, target, _ = lines[0].split(" ")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        url = urllib.parse.urlsplit(target)
        expected = base64.b64encode(f"{USER}:{self.password}".encode()).decode()
        known = headers.get("authorization") == f"Basic {expected}"
        if headers.get("upgrade", "").lower() == "websocket":
            await self._events(head, reader, writer, self.refuse_events or (0 if known else 401))
            return False
        query = dict(urllib.parse.parse_qsl(url.query))
        asked = Asked(method, url.path.removeprefix("/ari"), query, orjson.loads(body) if body else None)
        self.asked.append(asked)
        answer = await self.meddle(asked) if self.meddle else None
        if answer is None:
            answer = self._usual(asked) if known else Answer(401, {"message": "Authentication required"})
        await asyncio.sleep(answer.after_s)
        if answer.reset:
            return False
        content = orjson.dumps(answer.body) if answer.body is not None else b""
        writer.write(b"HTTP/1.1 %d x\r\nContent-Length: %d\r\n\r\n" % (answer.status, len(content)) + content)
        await writer.drain()
        return True

    def _usual(self, asked: Asked) -> Answer:
        parts = asked.path.strip("/").split("/")
        match (asked.method, parts):
            case ("POST", ["channels"]):
                return self._originate(asked)
            case ("GET", ["channels"]):
                return Answer(body=[channel.shown() for channel in self.channels.values()])
            case (_, ["channels", name, *_]) if name not in self.channels:
                return Answer(404, {"message": "Channel not found"})
            case ("GET", ["channels", name]):
                return Answer(body=self.channels[name].shown())
            case ("GET", ["channels", name, "variable"]):
                value = self.channels[name].variables.get(asked.query["variable"])
                return Answer(body={"value": value}) if value else Answer(404, {"message": "not found"})
            case ("DELETE", ["channels", name]):
                self.end(name, 16)
                return Answer(204)
            case ("POST", ["channels", name, "continue"]):
                if self.channels[name].stage != "Stasis":
                    return Answer(409, {"message": "Channel not in Stasis application"})
                self.channels[name].stage = "AudioSocket"
                return Answer(204)
            case ("POST", ["applications", _, "subscription"]):
                return Answer(body={})
        return Answer(404, {"message": "Resource not found"})

    def _originate(self, asked: Asked) -> Answer:
        name = asked.query["channelId"]
        if name in self.channels:
            return Answer(409, {"message": "Channel with given unique ID already exists"})
        self.channels[name] = FakeChannel(name, asked.query["app"], asked.body["variables"])
        shown = self.channels[name].shown()
        if self.on_call is not None:
            self.on_call(self.channels[name])
        return Answer(body=shown, after_s=self.after_the_order_s)

    # ---- Events ------------------------------------------------------------------------------------------

    async def _events(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, refused: int
    ) -> None:
        protocol = ServerProtocol()
        protocol.receive_data(head)
        (handshake,) = protocol.events_received()
        assert isinstance(handshake, Handshake)
        try:
            response = protocol.reject(refused, "no") if refused else protocol.accept(handshake)
        except InvalidHandshake as error:
            raise AssertionError(str(error)) from error
        protocol.send_response(response)
        _flush(protocol, writer)
        if refused:
            return
        member = (protocol, writer)
        self._sockets.add(member)
        try:
            while protocol.state is State.OPEN and (data := await reader.read(4096)):
                protocol.receive_data(data)
                _flush(protocol, writer)
        finally:
            self._sockets.discard(member)


def _flush(protocol: ServerProtocol, writer: asyncio.StreamWriter) -> None:
    for data in protocol.data_to_send():
        if data:
            writer.write(data)
