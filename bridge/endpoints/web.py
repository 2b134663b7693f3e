"""Calls that come over the HTTP port: a WebSocket client on one side, our own AudioSocket on the other.

The client's sound goes the very path of an intercom's: it is spoken, at 8 kHz, into one end of a socket pair
whose other end an AudioSocket server of the tenant's takes for a connection, with its framing, its guards and
its deadlines. So it can be given to a worker like any other call.

:class:`WebLine` is the end that the client's side holds. Whoever sends too fast is held back: what waits to
be said is bounded, and beyond that nothing more is read. Whoever doesn't read loses what is said, and in the
end the call: that the AudioSocket endpoint sees to.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from audio.frames import FRAME_BYTES, FRAME_MS, TELEPHONE_RATE
from audio.resample import Resampler
from bridge.endpoints.audiosocket import AudioSocketEndpoint, AudioSocketServer
from bridge.endpoints.audiosocket_frames import (
    Audio,
    FrameError,
    FrameParser,
    Hangup,
    Side,
    encode_audio,
    encode_key,
    encode_uuid,
)
from bridge.endpoints.listening import SEND_BUFFER_BYTES
from bridge.endpoints.web_messages import RATE

WebKind = Literal["websocket", "browser", "simulated"]
"""What a leg over the HTTP port is, for the audit log: a client, a page of the console, nobody at all."""

FRAME_S = FRAME_MS / 1000
AHEAD_S = 0.2
"""So far ahead of the clock sound is passed on: what the network delivers in clumps is not held back."""
QUEUED_S = 12.0
"""So much more waits for its time; then nothing is read any more. The flood guard allows as much at once."""
STALLED_S = 5.0
"""How long our own side may take nothing."""
READ_BYTES = 4 * 1024
"""Read in one go of what is to be heard: 0.25 s."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a call over the HTTP port comes from."""

    kind: WebKind
    host: str
    port: int


class WebCall(AudioSocketEndpoint):
    """An end of a socket pair that a server takes for a connection. Its other side has asked who may call."""

    def __init__(self, server: AudioSocketServer, origin: Origin) -> None:
        super().__init__(server)
        self.kind = origin.kind
        self._origin = origin

    def _address(self, transport: asyncio.Transport) -> tuple[Any, ...] | None:
        """The client's: our own connection leads nowhere else."""
        return self._origin.host, self._origin.port

    def _connected(self) -> bool:
        self._server.roster.arrived(self)
        return True


async def connect(endpoint: WebCall) -> socket.socket:
    """Give an endpoint its end of a new socket pair; the other end.

    Raises:
        OSError: no file descriptor is left.
    """
    ours, theirs = socket.socketpair()
    try:
        for end in (ours, theirs):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        await asyncio.get_running_loop().connect_accepted_socket(lambda: endpoint, theirs)
    except BaseException:
        ours.close()
        theirs.close()
        raise
    return ours


class NotTakenError(Exception):
    """No call can be taken now; the text says why."""


class LineEnded(ConnectionError):
    """The call is over; nothing more is heard, and nothing more need be said."""


class WebLine:
    """One call, as who is on the client's side of it speaks and hears: 24 kHz PCM."""

    def __init__(self, connection: socket.socket, call_id: UUID) -> None:
        """`connection`: from :func:`connect`; `call_id`: what the call is known by."""
        self._connection = connection
        self._call_id = call_id
        self._to_call = Resampler(RATE, TELEPHONE_RATE)
        self._to_client = Resampler(TELEPHONE_RATE, RATE, limit=True)
        self._parser = FrameParser(Side.PBX)
        self._rest = bytearray()
        self._frames: deque[bytes] = deque()
        self._some = asyncio.Event()
        self._room = asyncio.Event()
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def open(self) -> None:
        """Say which call it is. Once, before anything else."""
        self._reader, self._writer = await asyncio.open_unix_connection(
            sock=self._connection, limit=READ_BYTES
        )
        self._writer.write(encode_uuid(self._call_id))

    async def say(self, pcm: bytes) -> None:
        """Have it said in its time; returns at once, or when there is room for it."""
        self._rest += self._to_call.process(pcm)
        whole = len(self._rest) - len(self._rest) % FRAME_BYTES
        for at in range(0, whole, FRAME_BYTES):
            self._frames.append(encode_audio(bytes(self._rest[at : at + FRAME_BYTES])))
        del self._rest[:whole]
        self._some.set()
        while len(self._frames) * FRAME_S > QUEUED_S:
            self._room.clear()
            await self._room.wait()

    def press(self, key: str) -> None:
        """Press a key: now, and not behind what waits to be said."""
        self._writer.write(encode_key(key))

    async def pump(self) -> None:
        """Pass on what is to be said, in its time. Runs until it is cancelled, or the call is over.

        Raises:
            LineEnded: the call is over, or our side takes nothing any more.
        """
        loop = asyncio.get_running_loop()
        due = loop.time() - AHEAD_S
        while True:
            while not self._frames:
                self._some.clear()
                await self._some.wait()
            due = max(due, loop.time() - AHEAD_S)
            if (early := due - loop.time()) > 0:
                await asyncio.sleep(early)
            due += FRAME_S
            self._writer.write(self._frames.popleft())
            self._room.set()
            try:
                async with asyncio.timeout(STALLED_S):
                    await self._writer.drain()
            except TimeoutError:
                raise LineEnded(f"our own side took nothing for {STALLED_S:g} s") from None
            except OSError as error:
                raise LineEnded(f"our own side is gone: {error}") from None

    async def hear(self) -> bytes:
        """What is said to the caller next.

        Raises:
            LineEnded: the call is over.
        """
        while True:
            try:
                data = await self._reader.read(READ_BYTES)
                frames = self._parser.feed(data)
            except (OSError, FrameError) as error:
                raise LineEnded(f"our own side is gone: {error}") from None
            sound = b"".join(frame.pcm for frame in frames if isinstance(frame, Audio))
            if sound:
                return self._to_client.process(sound)
            if not data or any(isinstance(frame, Hangup) for frame in frames):
                raise LineEnded("hung up")

    def hang_up(self) -> None:
        """Put the phone down. More than once is harmless."""
        self._writer.close()


__all__ = ["LineEnded", "NotTakenError", "Origin", "WebCall", "WebKind", "WebLine", "connect"]
