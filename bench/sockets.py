"""`python -m bench.sockets`: what a message costs over a WebSocket, by each of the ways to send and take one.

Twenty connections to a server in a process of its own; 50 messages a second on each, as a talking leg's
audio would be, sent on a shared tick. Given is our CPU time for a message, less that of the empty ticks.
Beside our way stand the usual one, with a task each way, and picows.
"""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect
from rich.console import Console
from rich.table import Table
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.utils import accept_key

from bench.children import Child, say, serve_parent
from providers.websocket import Limits, WebSocket, connect_options

CONNECTIONS = 20
EVERY_S = 0.02
SECONDS = 3.0
SENT = b"x" * 2_600
"""40 ms of 24 kHz as base64, and what is around it."""
RECEIVED = 12_850
"""200 ms of it."""

Hang = Callable[[], Awaitable[None]]
Send = Callable[[bytes], None]
Open = Callable[[str, ssl.SSLContext | None, Callable[[int], None]], Awaitable[tuple[Send, Hang]]]
"""Opens a connection; is given what takes the length of each message that comes."""


# -- the server ----------------------------------------------------------------------------------------------


class _Peer(asyncio.Protocol):
    """Takes the handshake and drops what comes after it; sends a message now and then if asked to."""

    def __init__(self) -> None:
        self._request = b""
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no subclass of asyncio's

    def data_received(self, data: bytes) -> None:
        if self._request.endswith(b"\r\n\r\n"):
            return
        self._request += data
        if self._request.endswith(b"\r\n\r\n"):
            self._answer()

    def _answer(self) -> None:
        assert self._transport is not None
        headers = dict(line.split(b": ", 1) for line in self._request.split(b"\r\n")[1:] if line)
        key = next(value for name, value in headers.items() if name.lower() == b"sec-websocket-key")
        self._transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept_key(key.decode()).encode() + b"\r\n\r\n"
        )
        if self._request.startswith(b"GET /receive"):
            self._speak()

    def _speak(self) -> None:
        assert self._transport is not None
        if self._transport.is_closing():
            return
        self._transport.write(b"\x81\x7e" + RECEIVED.to_bytes(2, "big") + b"x" * RECEIVED)
        self._timer = asyncio.get_running_loop().call_later(EVERY_S, self._speak)


async def _serve(certificate: str | None) -> None:
    context = None
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Peer, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    say({"url": f"{'ws' if context is None else 'wss'}://127.0.0.1:{port}"})
    await serve_parent(lambda _: {})


# -- the ways ------------------------------------------------------------------------------------------------


class _Taker:
    """A listener that counts."""

    def __init__(self, take: Callable[[int], None]) -> None:
        self._take = take

    def opened(self, socket: WebSocket) -> None:
        """Nothing to do."""

    def received(self, message: bytes) -> None:
        self._take(len(message))

    def writable(self) -> None:
        """Nothing to do."""

    def lost(self, closed: ConnectionClosed) -> None:
        """Nothing to do."""


async def _ours(url: str, context: ssl.SSLContext | None, take: Callable[[int], None]) -> tuple[Send, Hang]:
    socket = await connect(url, **connect_options(url, _Taker(take), Limits(), context))
    assert isinstance(socket, WebSocket)
    return socket.send_text, socket.hang_up


async def _tasks(url: str, context: ssl.SSLContext | None, take: Callable[[int], None]) -> tuple[Send, Hang]:
    options: dict[str, Any] = {} if context is None else {"ssl": context}
    socket = await connect(url, compression=None, max_size=None, proxy=None, close_timeout=1, **options)
    waiting: list[str] = []
    work = asyncio.Event()

    async def write(socket: ClientConnection) -> None:
        while True:
            await work.wait()
            work.clear()
            while waiting:
                await socket.send(waiting.pop(0))

    async def read(socket: ClientConnection) -> None:
        while True:
            take(len(await socket.recv(decode=False)))

    def send(message: bytes) -> None:
        waiting.append(message.decode())
        work.set()

    tasks = [asyncio.create_task(write(socket)), asyncio.create_task(read(socket))]

    async def hang_up() -> None:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await socket.close()

    return send, hang_up


class _PicowsTaker(WSListener):
    """The same for picows."""

    def __init__(self, take: Callable[[int], None]) -> None:
        super().__init__()
        self._take = take

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Count it, and take it out of the buffer as a user would."""
        self._take(len(frame.get_payload_as_bytes()))


async def _picows(url: str, context: ssl.SSLContext | None, take: Callable[[int], None]) -> tuple[Send, Hang]:
    transport, _ = await ws_connect(lambda: _PicowsTaker(take), url, ssl_context=context)

    async def hang_up() -> None:
        transport.disconnect(graceful=False)
        await transport.wait_disconnected()

    return partial(transport.send, WSMsgType.TEXT), hang_up


# -- the measuring -------------------------------------------------------------------------------------------


async def _cost_us(
    way: Open | None, url: str, context: ssl.SSLContext | None, sending: bool
) -> tuple[float, int]:
    """CPU time in µs over the measured seconds, and the number of messages. No way: empty ticks alone."""
    loop = asyncio.get_running_loop()
    came = 0

    def take(_: int) -> None:
        nonlocal came
        came += 1

    path = "/send" if sending else "/receive"
    opened = [await way(url + path, context, take) for _ in range(CONNECTIONS)] if way is not None else []
    await asyncio.sleep(0.3)
    came, went = 0, 0
    began, due = time.process_time(), loop.time()
    until = due + SECONDS
    while due < until:
        if sending:
            for send, _ in opened:
                send(SENT)
            went += len(opened)
        due += EVERY_S
        await asyncio.sleep(due - loop.time())
    used = time.process_time() - began
    counted = went if sending else came
    await asyncio.gather(*(hang_up() for _, hang_up in opened))
    return used * 1e6, counted


async def _measure(plain: str, tls: str, context: ssl.SSLContext) -> list[dict[str, Any]]:
    ways: dict[str, Open] = {"a task each way": _tasks, "ours": _ours, "picows": _picows}
    idle, _ = await _cost_us(None, plain, None, sending=True)
    rows = []
    for name, way in ways.items():
        row: dict[str, Any] = {"way": name}
        for label, url, given in (("plain", plain, None), ("TLS", tls, context)):
            for sending in (True, False):
                used, count = await _cost_us(way, url, given, sending)
                kind = "send" if sending else "receive"
                row[f"{label} {kind}"] = round((used - idle) / max(1, count), 1)
        rows.append(row)
    return rows


def _certificate(folder: Path) -> Path:
    """A certificate for this machine that nobody signed, with its key in the same file."""
    request = (
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    )
    subject = ("-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
    where = ("-keyout", "key.pem", "-out", "certificate.pem")
    subprocess.run([*request, *subject, *where], cwd=folder, check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_bytes((folder / "key.pem").read_bytes() + (folder / "certificate.pem").read_bytes())
    return both


def measure() -> list[dict[str, Any]]:
    """µs of CPU time for each message, by way.

    Raises:
        ChildError: a server did not do its part.
    """
    with tempfile.TemporaryDirectory(prefix="porteiro-bench-") as name:
        folder = Path(name)
        certificate = _certificate(folder)
        log = folder / "server.log"
        with (
            Child("bench.sockets", {"certificate": None}, log) as plain,
            Child("bench.sockets", {"certificate": str(certificate)}, log) as tls,
        ):
            context = ssl.create_default_context(cafile=certificate)
            return uvloop.run(_measure(plain.ready()["url"], tls.ready()["url"], context))


def main() -> None:
    """With an argument: a server. Without: the figures."""
    if len(sys.argv) > 1:
        given: Mapping[str, Any] = orjson.loads(sys.argv[1])
        uvloop.run(_serve(given["certificate"]))
        return
    rows = measure()
    table = Table("µs a message", box=None, pad_edge=False)
    columns = [column for column in rows[0] if column != "way"]
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(row["way"], *(f"{row[column]:g}" for column in columns))
    Console(highlight=False).print(table)


if __name__ == "__main__":
    main()
