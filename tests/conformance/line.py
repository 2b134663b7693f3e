"""The line between a session and a vendor's simulator: it passes on what both say, and misbehaves on command.

A relay on loopback that knows WebSocket frames (RFC 6455) and nothing of what is in them, so that a fault is
the same for every adapter. What is no WebSocket (a request for a signed address) is passed on as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Literal, Self

Fault = Literal["abort", "torn", "half", "garbage", "close", "stall", "twice", "late"]
"""What becomes of a message of the server's.

``abort``: the connection breaks before it; ``torn``: in the middle of its frame. ``half``: its text ends in
the middle. ``garbage``: other bytes come in its place. ``close``: the server closes before it. ``stall``: it
never comes, and nothing after it. ``twice``: it comes twice. ``late``: after those that follow it.
"""

_TEXT, _BINARY, _CLOSE, _PONG = 1, 2, 8, 10
_LINGER_S = 0.3
"""So long a message that is late waits for another one, and a closed connection for the client's goodbye."""


@dataclass
class Step:
    """One fault. ``after``: so many more messages (that ``of`` is true of) are passed on first.

    Attributes:
        by: how many messages overtake one that is late.
        code, reason: of the close frame.
    """

    fault: Fault
    after: int = 0
    of: Callable[[bytes], bool] | None = None
    by: int = 1
    code: int = 1011
    reason: str = ""


class Line:
    """``async with Line() as line``: serves at ``line.port``, in the place of ``line.server``."""

    def __init__(self) -> None:
        self.server = ("127.0.0.1", 0)
        self.port = 0
        self.connections = 0
        """How many WebSockets there were."""
        self.requests = 0
        """How often anybody called, whatever came of it."""
        self.open = 0
        self.pong_delay_s: float | None = None
        self.deaf = False
        """What a client says reaches nobody any more."""
        self.mute = False
        """Connections are accepted, and nothing is ever said."""
        self._steps: list[Step] = []
        self._listening: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._calls: dict[_Call, asyncio.Task[None]] = {}
        self._news = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._listening = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = self._listening.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._listening is not None
        self._listening.close()
        for task in self._serving:
            task.cancel()
        if self._serving:
            await asyncio.wait(self._serving)
        await self._listening.wait_closed()

    def then(self, step: Step) -> None:
        """The next message that the step fits suffers it."""
        self._steps.append(step)

    def cut(self, *, for_good: bool = False) -> None:
        """Break all connections, now. ``for_good``: no other will be accepted."""
        if for_good:
            assert self._listening is not None
            self._listening.close()
        for call, task in self._calls.items():
            call.cut = "abort"
            task.cancel()

    @property
    def done(self) -> bool:
        """All faults that were asked for have happened."""
        return not self._steps

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait (five seconds at most) for connections to come, go or misbehave."""
        async with asyncio.timeout(5):
            while not condition():
                self._news.clear()
                await self._news.wait()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests += 1
        task = asyncio.create_task(self._serve(reader, writer), name="line")
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream, upwriter = await asyncio.open_connection(*self.server, limit=1 << 24)
        except OSError:
            writer.transport.abort()
            return
        call = _Call(self, upstream, writer)
        self.open += 1
        up = asyncio.create_task(self._up(reader, upwriter), name="line-up")
        down = self._calls[call] = asyncio.create_task(call.run(), name="line-down")
        try:
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            if up.done() and not call.cut:
                await asyncio.wait({down}, timeout=_LINGER_S)  # the server's part of the goodbye
            elif call.cut == "close":
                await asyncio.wait({up}, timeout=_LINGER_S)
        finally:
            for task in (up, down):
                task.cancel()
            await asyncio.wait({up, down})
            del self._calls[call]
            for end in (writer, upwriter):
                if call.cut in ("abort", "torn"):
                    end.transport.abort()
                end.close()
            for end in (writer, upwriter):
                with contextlib.suppress(OSError, asyncio.CancelledError):
                    await end.wait_closed()
            self.open -= 1
            self._news.set()

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if not self.deaf:
                    writer.write(data)
                    await writer.drain()
            writer.write_eof()

    def due(self, message: bytes) -> Step | None:
        """The step that this message suffers."""
        for step in self._steps:
            if step.of is not None and not step.of(message):
                continue
            if step.after:
                step.after -= 1
                return None
            self._steps.remove(step)
            self._news.set()
            return step
        return None

    def connected(self) -> None:
        """A WebSocket was opened."""
        self.connections += 1
        self._news.set()


class _Call:
    """What comes down one connection."""

    def __init__(self, line: Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._line = line
        self._reader = reader
        self._writer = writer
        self._held: deque[tuple[int, bytes]] = deque()
        """Frames that are late, and how many others are to overtake them."""
        self._stalled = False
        self.cut: Fault | None = None

    async def run(self) -> None:
        """Pass on what comes until the server, the client or a fault ends it."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await self._pass_on()

    async def _pass_on(self) -> None:
        if self._line.mute:
            await asyncio.Event().wait()
        answer = await self._reader.readuntil(b"\r\n\r\n")
        self._writer.write(answer)
        if not answer.startswith(b"HTTP/1.1 101"):
            while data := await self._reader.read(1 << 16):
                self._writer.write(data)
            return
        self._line.connected()
        while self.cut is None:
            await self._take(*await self._frame())

    async def _frame(self) -> tuple[bytes, bytes]:
        head = await self._reader.readexactly(2)
        size = head[1] & 0x7F
        if size >= 126:
            more = await self._reader.readexactly(2 if size == 126 else 8)
            head, size = head + more, int.from_bytes(more, "big")
        return head, await self._reader.readexactly(size)

    async def _take(self, head: bytes, payload: bytes) -> None:
        kind, frame = head[0] & 0x0F, head + payload
        if kind == _PONG and self._line.pong_delay_s is not None:
            asyncio.get_running_loop().call_later(self._line.pong_delay_s, self._write, frame)
            return
        if self._stalled and kind in (_TEXT, _BINARY):
            return
        step = self._line.due(payload) if kind in (_TEXT, _BINARY) else None
        if step is None:
            self._write(frame)
            self._let_go()
        else:
            await self._suffer(step, head, payload)
        await self._writer.drain()

    async def _suffer(self, step: Step, head: bytes, payload: bytes) -> None:
        frame = head + payload
        match step.fault:
            case "twice":
                self._write(frame + frame)
            case "late":
                self._held.append((step.by, frame))
                asyncio.get_running_loop().call_later(_LINGER_S, partial(self._let_go, all_of_them=True))
            case "half":
                self._write(_framed(head[0] & 0x0F, payload[: len(payload) // 2]))
            case "garbage":
                self._write(_framed(head[0] & 0x0F, b'{"type":7,"setupComplete":7,"serverContent":7}'))
            case "stall":
                self._stalled = True
            case "close":
                self._write(_framed(_CLOSE, struct.pack("!H", step.code) + step.reason.encode()))
                self.cut = "close"
            case "torn":
                self._write(frame[: len(frame) // 2])
                await self._writer.drain()
                await asyncio.sleep(0.01)
                self.cut = "torn"
            case "abort":
                self.cut = "abort"

    def _let_go(self, *, all_of_them: bool = False) -> None:
        """Frames that were overtaken by as many as they should be."""
        waiting = [(left - 1, frame) for left, frame in self._held]
        self._held = deque(one for one in waiting if one[0] > 0 and not all_of_them)
        for left, frame in waiting:
            if left <= 0 or all_of_them:
                self._write(frame)

    def _write(self, frame: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(frame)


def _framed(kind: int, payload: bytes) -> bytes:
    """A frame as a server sends it: whole, and without a mask."""
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | kind, size))
    elif size < 1 << 16:
        head = struct.pack("!BBH", 0x80 | kind, 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | kind, 127, size)
    return head + payload
