"""The WebSocket without tasks, against a server that sends whatever bytes a test wants."""

from __future__ import annotations

import asyncio
import socket as sockets
import ssl
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.utils import accept_key

from providers.websocket import (
    Keys,
    Limits,
    Stalled,
    WebSocket,
    client_frame,
    connect_options,
    is_secure,
    why,
)
from tests.endpoints.audiosocket_parties import on_both_loops, until

LIMITS = Limits(open_s=2, close_s=0.1, stall_s=0.3, ping_s=60)
TEXT, BINARY, CONT, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10


class Notes:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.socket: WebSocket | None = None
        self.messages: list[bytes] = []
        self.resumed = 0
        self.closed: list[ConnectionClosed] = []

    def opened(self, socket: WebSocket) -> None:
        assert self.socket is None and not self.messages
        self.socket = socket

    def received(self, message: bytes) -> None:
        assert self.socket is not None and not self.closed
        self.messages.append(message)

    def writable(self) -> None:
        self.resumed += 1

    def lost(self, closed: ConnectionClosed) -> None:
        self.closed.append(closed)


def frame(opcode: int, payload: bytes = b"", fin: bool = True) -> bytes:
    """A frame as a server sends it."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", opcode | fin << 7, size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", opcode | fin << 7, 126, size)
    else:
        head = struct.pack("!BBQ", opcode | fin << 7, 127, size)
    return head + payload


class Server:
    """Takes the handshake of one client after the other; the rest is the test's."""

    def __init__(self) -> None:
        self.url = ""
        self.readers: list[asyncio.StreamReader] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def met(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        key = next(
            line[19:] for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:")
        )
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept_key(key.decode()).encode() + b"\r\n\r\n"
        )
        self.readers.append(reader)
        self.writers.append(writer)

    async def frame(self) -> tuple[int, bytes]:
        """What the client sent next, unmasked."""
        reader = self.readers[-1]
        async with asyncio.timeout(5):
            first, second = await reader.readexactly(2)
            assert second & 0x80, "a client masks"
            size = second & 0x7F
            if size == 126:
                (size,) = struct.unpack("!H", await reader.readexactly(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", await reader.readexactly(8))
            mask = await reader.readexactly(4)
            payload = await reader.readexactly(size)
        whole = (mask * (size // 4 + 1))[:size]
        return first & 0x0F, bytes(a ^ b for a, b in zip(payload, whole, strict=True))


@asynccontextmanager
async def serving(
    met: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]] | None = None,
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[Server]:
    server = Server()
    clients: list[asyncio.StreamWriter] = []

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clients.append(writer)
        await (met or server.met)(reader, writer)

    listening = await asyncio.start_server(meet, "127.0.0.1", 0, ssl=context)
    scheme = "ws" if context is None else "wss"
    server.url = f"{scheme}://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
    try:
        yield server
    finally:
        listening.close()
        for writer in clients:
            writer.transport.abort()
        await asyncio.sleep(0.01)


@asynccontextmanager
async def talking(
    limits: Limits = LIMITS, before: bytes = b"", context: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[Server, WebSocket, Notes]]:
    """A connection. At the end it is closed, once, and no task of it is left."""
    tasks = asyncio.all_tasks()
    async with serving() as server:
        notes = Notes()
        socket = await opened(server.url, notes, limits)
        await until(lambda: server.writers)
        try:
            yield server, socket, notes
        finally:
            began = time.monotonic()
            await socket.hang_up()
            assert time.monotonic() - began < limits.close_s + 0.5
            await until(lambda: notes.closed)
    assert len(notes.closed) == 1
    left = asyncio.all_tasks() - tasks
    assert not left, left


async def opened(
    url: str, notes: Notes, limits: Limits = LIMITS, context: ssl.SSLContext | None = None
) -> WebSocket:
    found = await connect(url, **connect_options(url, notes, limits, context))
    assert isinstance(found, WebSocket)
    return found


@on_both_loops
async def test_messages_go_both_ways_at_once() -> None:
    async with talking() as (server, socket, notes):
        assert notes.socket is socket
        raw = socket.transport.get_extra_info("socket")
        assert raw.getsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY)
        for size in (0, 1, 125, 126, 65535, 65536, 300_000):
            socket.send_text(b"a" * size)
            assert await server.frame() == (TEXT, b"a" * size)
            server.writers[0].write(frame(TEXT, b"b" * size))
            await until(lambda: notes.messages)
            assert notes.messages == [b"b" * size]
            notes.messages.clear()


@on_both_loops
async def test_what_comes_with_the_handshake_comes_after_it() -> None:
    async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Server.met(server, reader, writer)
        writer.write(frame(TEXT, b"hello") + frame(CLOSE, struct.pack("!H", 1013)))
        writer.close()

    async with serving(met) as server:
        notes = Notes()
        await opened(server.url, notes)
        await until(lambda: notes.closed)
        assert notes.messages == [b"hello"]
        assert why(notes.closed[0]) == "closed the connection with code 1013"


@on_both_loops
async def test_fragments_are_put_together_with_control_frames_between_them() -> None:
    async with talking() as (server, _, notes):
        word = "ação".encode()
        pieces = [frame(TEXT, word[:2], fin=False), frame(PING, b"x"), frame(CONT, word[2:3], fin=False)]
        pieces += [frame(PONG, b"?"), frame(CONT, b"", fin=False), frame(CONT, word[3:])]
        pieces += [frame(BINARY, b"\xff", fin=False), frame(CONT, b"\xfe"), frame(TEXT, b"end")]
        for piece in pieces:
            for byte in piece:
                server.writers[0].write(bytes([byte]))
                await asyncio.sleep(0)
        await until(lambda: len(notes.messages) == 3)
        assert notes.messages == [word, b"\xff\xfe", b"end"]
        assert await server.frame() == (PONG, b"x")


@on_both_loops
async def test_fragments_without_anything_in_them_are_not_kept() -> None:
    """A message's length is limited, and not in how many parts it comes: a server could fill the memory."""
    async with talking() as (server, socket, notes):
        server.writers[0].write(frame(TEXT, b"", fin=False) + frame(CONT, b"", fin=False) * 5000)
        server.writers[0].write(frame(CONT, b"a", fin=False) + frame(CONT, b"", fin=False) * 5000)
        server.writers[0].write(frame(PING, b"x"))
        assert await server.frame() == (PONG, b"x")
        assert len(socket._parts) == 1
        server.writers[0].write(frame(CONT, b""))
        await until(lambda: notes.messages == [b"a"])


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(TEXT, b"\xff\xfe"), 1007),
        (frame(TEXT, b"\xc3", fin=False) + frame(CONT, b""), 1007),
        (frame(CONT, b"x"), 1002),
        (frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002),
        (frame(PING, b"x", fin=False), 1002),
        (frame(PING, b"x" * 126), 1002),
        (frame(3, b"x"), 1002),
        (frame(TEXT | 0x40, b"x"), 1002),
        (struct.pack("!BB", 0x81, 0x81) + b"maskx", 1002),
        (struct.pack("!BBQ", 0x81, 127, 1 << 40), 1009),
        (frame(TEXT, b"x" * 600, fin=False) + frame(CONT, b"x" * 600), 1009),
    ],
)
@on_both_loops
async def test_what_breaks_the_protocol_ends_the_connection_with_the_right_code(
    sent: bytes, code: int
) -> None:
    async with talking(Limits(close_s=0.1, message=1000)) as (server, socket, notes):
        server.writers[0].write(sent + frame(TEXT, b"too late"))
        opcode, payload = await server.frame()
        assert (opcode, int.from_bytes(payload[:2], "big")) == (CLOSE, code)
        socket.send_text(b"nobody listens")
        await until(lambda: notes.closed)
        assert notes.messages == []
        assert (words := why(notes.closed[0])) is not None and "broke the WebSocket protocol" in words


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (struct.pack("!H", 1000), "closed the connection with code 1000"),
        (struct.pack("!H", 1011) + b"overloaded", "closed the connection with code 1011 (overloaded)"),
        (struct.pack("!H", 4001), "closed the connection with code 4001"),
        (b"", "closed the connection with code 1005"),
    ],
)
@on_both_loops
async def test_a_close_is_answered_and_told_with_its_code_and_reason(payload: bytes, words: str) -> None:
    async with talking() as (server, _, notes):
        server.writers[0].write(frame(TEXT, b"last") + frame(CLOSE, payload))
        assert await server.frame() == (CLOSE, payload)
        server.writers[0].close()
        await until(lambda: notes.closed)
        assert notes.messages == [b"last"]
        assert why(notes.closed[0]) == words


@on_both_loops
async def test_a_server_that_says_goodbye_and_stays_is_left() -> None:
    async with talking() as (server, _, notes):
        server.writers[0].write(frame(CLOSE, struct.pack("!H", 1001)))
        await until(lambda: notes.closed, LIMITS.close_s + 0.3)
        assert why(notes.closed[0]) == "closed the connection with code 1001"


@on_both_loops
async def test_a_connection_that_breaks_is_told() -> None:
    async with talking() as (server, socket, notes):
        server.writers[0].write(frame(TEXT, b"whole") + frame(TEXT, b"half a message")[:9])
        await until(lambda: notes.messages)
        server.writers[0].transport.abort()
        await until(lambda: notes.closed)
        assert why(notes.closed[0]) is None
        assert notes.messages == [b"whole"]
        socket.send_text(b"nobody listens")


@on_both_loops
async def test_a_server_that_reads_no_more_is_seen_and_cut() -> None:
    async with talking() as (_, socket, notes):
        while socket.writable:
            socket.send_text(b"x" * 100_000)
            await asyncio.sleep(0)
        began = time.monotonic()
        await until(lambda: notes.closed)
        assert 0.2 < time.monotonic() - began < 1
        assert isinstance(notes.closed[0].__cause__, Stalled) and notes.resumed == 0


@on_both_loops
async def test_a_server_that_reads_late_gets_all_and_we_are_told() -> None:
    async with talking(Limits(close_s=0.1, stall_s=5)) as (server, socket, notes):
        sent = 0
        while socket.writable:
            socket.send_text(b"%06d" % sent * 10_000)
            sent += 1
            await asyncio.sleep(0)
        for number in range(sent):
            assert await server.frame() == (TEXT, b"%06d" % number * 10_000)
        await until(lambda: notes.resumed == 1)
        assert not notes.closed


@on_both_loops
async def test_a_server_is_not_read_while_nobody_has_time() -> None:
    async with talking() as (server, socket, notes):
        socket.hold(True)
        socket.hold(True)
        server.writers[0].write(frame(TEXT, b"x"))
        await asyncio.sleep(0.05)
        assert not notes.messages
        socket.hold(False)
        await until(lambda: notes.messages)


@pytest.mark.parametrize("answers", [True, False])
@on_both_loops
async def test_a_server_that_answers_no_ping_is_gone(answers: bool) -> None:
    async with talking(Limits(close_s=0.1, ping_s=0.1)) as (server, _, notes):
        assert await server.frame() == (PING, b"")
        if answers:
            for _ in range(3):
                server.writers[0].write(frame(PONG))
                assert await server.frame() == (PING, b"")
            assert not notes.closed
        else:
            await until(lambda: notes.closed)
            assert isinstance(notes.closed[0].__cause__, TimeoutError)


@on_both_loops
async def test_a_refusal_has_its_status_and_body() -> None:
    async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 429 Too Many\r\nContent-Length: 7\r\n\r\n")
        await asyncio.sleep(0.02)
        writer.write(b"no more")

    async with serving(met) as server:
        notes = Notes()
        with pytest.raises(InvalidStatus) as refused:
            await opened(server.url, notes)
        assert refused.value.response.status_code == 429 and refused.value.response.body == b"no more"
        assert not notes.closed
        assert notes.socket is None


@on_both_loops
async def test_nobody_is_followed_to_another_address() -> None:
    async with serving() as elsewhere:

        async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            head = f"HTTP/1.1 307 Away\r\nLocation: {elsewhere.url}\r\nContent-Length: 0\r\n\r\n"
            writer.write(head.encode())

        async with serving(met) as server:
            notes = Notes()
            with pytest.raises(InvalidStatus) as refused:
                await opened(server.url, notes)
        assert refused.value.response.status_code == 307
        assert not elsewhere.readers and notes.socket is None


@on_both_loops
async def test_a_slow_or_broken_handshake_is_given_up() -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def broken(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH\r\n\r\n")
        writer.close()

    notes = Notes()
    async with serving(slow) as server:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            await opened(server.url, notes, Limits(open_s=0.2))
        assert time.monotonic() - began < 1
    async with serving(broken) as server:
        with pytest.raises(InvalidMessage):
            await opened(server.url, notes)
    assert not notes.closed
    assert notes.socket is None


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate that nobody signed, for 127.0.0.1, and its key in the same file."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-keyout", "both.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    both = folder / "both.pem"
    both.write_text(both.read_text() + (folder / "cert.pem").read_text())
    return both


@on_both_loops
async def test_tls(certificate: Path) -> None:
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    theirs.load_cert_chain(certificate)
    async with serving(context=theirs) as server:
        assert is_secure(server.url)
        notes = Notes()
        socket = await opened(server.url, notes, context=ssl.create_default_context(cafile=certificate))
        socket.send_text(b"secret")
        await until(lambda: server.readers)
        assert await server.frame() == (TEXT, b"secret")
        server.writers[0].write(frame(TEXT, b"x" * 100_000))
        await until(lambda: notes.messages == [b"x" * 100_000])
        server.writers[0].write(frame(CLOSE, struct.pack("!H", 1000)))
        await until(lambda: notes.closed)


@on_both_loops
async def test_a_certificate_that_is_not_trusted_ends_it(certificate: Path) -> None:
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    theirs.load_cert_chain(certificate)
    async with serving(context=theirs) as server:
        notes = Notes()
        with pytest.raises(ssl.SSLCertVerificationError):
            await opened(server.url, notes, context=ssl.create_default_context())
        assert notes.socket is None and not server.writers


def test_a_proxy_of_the_environment_is_for_others_than_our_own_machine() -> None:
    for url in ("http://127.0.0.1:80/v1", "ws://localhost/v1", "ws://[::1]:9/v1"):
        assert connect_options(url, Notes(), LIMITS, None)["proxy"] is None
    assert "proxy" not in connect_options("wss://api.openai.com/v1", Notes(), LIMITS, None)


@on_both_loops
async def test_through_a_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await server.met(reader, writer)

    async with serving(proxy) as server:
        monkeypatch.setenv("ws_proxy", server.url.replace("ws://", "http://").removesuffix("/v1"))
        monkeypatch.setenv("no_proxy", "")
        notes = Notes()
        socket = await opened("ws://example.invalid/v1", notes)
        assert asked[0].startswith(b"CONNECT example.invalid:80 HTTP/1.1\r\n")
        server.writers[0].write(frame(TEXT, b"hello"))
        await until(lambda: notes.messages == [b"hello"])
        server.writers[0].transport.abort()
        await until(lambda: notes.closed)
        await socket.hang_up()


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 70_001])
@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
def test_a_message_is_framed_as_the_library_frames_it(
    opcode: Opcode, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, payload = b"\x01\x80\xff\x37", bytes(n * 7 % 251 for n in range(size))
    monkeypatch.setattr("secrets.token_bytes", lambda count: key[:count])
    assert client_frame(opcode, payload, key) == Frame(opcode, payload).serialize(mask=True)


def test_no_key_is_used_twice_or_foreseen() -> None:
    first, second = Keys(), Keys()
    given_out = [keys.next() for _ in range(500) for keys in (first, second)]
    assert {len(key) for key in given_out} == {4}
    assert len(set(given_out)) >= 999  # of a thousand by chance, two may be alike once in 8,000 runs


@on_both_loops
async def test_the_reference_implementation_understands_us() -> None:
    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with serve(echo, "127.0.0.1", 0) as server:
        notes = Notes()
        socket = await opened(f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}", notes)
        for number in range(50):
            socket.send_text(b"\xc3\xa3%d" % number * number)
        await until(lambda: len(notes.messages) == 50)
        assert notes.messages == [b"\xc3\xa3%d" % number * number for number in range(50)]
        await socket.hang_up()
        await until(lambda: notes.closed)
        assert notes.closed[0].rcvd is not None and notes.closed[0].rcvd.code == 1000


@given(
    pieces=st.lists(
        st.binary(max_size=40)
        | st.builds(frame, st.sampled_from(range(16)), st.binary(max_size=200), st.booleans()),
        max_size=6,
    )
)
@settings(max_examples=150, deadline=None)
def test_any_bytes_after_the_handshake_do_no_harm(pieces: list[bytes]) -> None:
    faults: list[object] = []

    async def check() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
        async with talking(Limits(close_s=0.02, message=150)) as (server, _, notes):
            for piece in pieces:
                server.writers[0].write(piece)
                await asyncio.sleep(0)
            server.writers[0].close()
            await until(lambda: notes.closed)
            assert all(len(message) <= 150 for message in notes.messages)

    asyncio.run(check())
    assert not faults
