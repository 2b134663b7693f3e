"""FreeSWITCH's audio stream modules, by their sources: what each sends, refuses and plays, and when.

- ``fork``: mod_audio_fork of jambonz/freeswitch-modules (``lws_glue.cpp``): binary messages are gathered, the
  first time up to 160 ms, then 80 ms at a time (320 samples × 4 and × 2, times the stream's rate over the
  channel's); ``killAudio`` clears what is to be played at the channel's next frame, which then goes out
  without any of it, and what is still being gathered stays.
- ``base64``: voxcom-us/mod_audio_stream (``audio_streamer_glue.cpp``): ``streamAudio`` with raw audio fills
  one buffer of STREAM_BUFFER_SIZE, counted at the stream's rate. While it is full no further message is read
  (the callback sleeps 10 ms at a time, so the next one is there before the next frame is played). A timer
  takes a whole frame of the channel's, or nothing.
- ``binary``: mod_audio_stream 1.0.3, of which there is no source: a buffer without an end, and a timer.
- ``file``: amigniter/mod_audio_stream as it is open: it plays nothing. What the channel plays instead is
  `Stream.source`.

All send the metadata as one text, then L16 in pieces of STREAM_BUFFER_SIZE.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

Kind = Literal["binary", "fork", "base64", "file"]

MAX_METADATA_BYTES = 8192
"""MAX_METADATA_LEN; the modules copy no more than that into a buffer of that size."""
FRAME_S = 0.02
MOST_UNREAD = 50
"""Messages that lie in the socket's buffer before the other side has to wait."""


class Refused(Exception):
    """The module would not do that."""


@dataclass
class Started:
    """``uuid_audio_stream UUID start URL MIX RATE METADATA``, and the channel's variables."""

    url: str
    metadata: str = ""
    mix: str = "mono"
    rate: int = 8000
    buffer_ms: int = 20
    """STREAM_BUFFER_SIZE."""
    channel_rate: int = 8000
    headers: dict[str, str] = field(default_factory=dict)
    """STREAM_EXTRA_HEADERS."""
    plays: bool = True
    """Whether mod_audio_fork was told to play what comes back; else it gathers it for nobody."""
    tls: ssl.SSLContext | None = None
    """As STREAM_TLS_CA_FILE and its like make it."""

    def check(self) -> None:
        if self.mix not in ("mono", "mixed", "stereo"):
            raise Refused(f"invalid mix type: {self.mix}, must be mono, mixed, or stereo")
        if self.rate % 8000 or not self.rate:
            raise Refused(f"invalid sample rate: {self.rate}")
        if not self.url.startswith(("ws://", "wss://")):
            raise Refused(f"invalid websocket uri: {self.url}")
        if len(self.metadata.encode()) >= MAX_METADATA_BYTES:
            raise Refused("the metadata has no room in its buffer")
        if self.buffer_ms % 20 or self.buffer_ms < 20:
            self.buffer_ms = 20  # with a warning in the log

    @property
    def channels(self) -> int:
        return 2 if self.mix == "stereo" else 1


class Stream:
    """A running stream. Its clock is its own: what is late there is made good, as a thread's timer would."""

    def __init__(self, kind: Kind, started: Started, connection: ClientConnection) -> None:
        self.kind = kind
        self.started = started
        self.connection = connection
        self.heard = bytearray()
        """What the channel played, at its own rate, mono: silence where it had nothing."""
        self.heard_at: list[float] = []
        """When each frame of it was played, in seconds of the event loop's clock."""
        self.problems: list[str] = []
        """What came that the module can't use."""
        self.events: list[str] = []
        """Types of the texts that it fired as events."""
        self.to_say = b""
        """The caller's audio, mono, at the stream's rate."""
        self.deepest_ms = 0.0
        """The most that was held."""
        self.cleared_ms: list[float] = []
        """What each killAudio dropped."""
        self.source: Callable[[int], bytes] = lambda size: b""
        """Of the kind ``file``: what else plays on the channel, a frame of so many bytes."""
        self._gathered = b""
        self._threshold = 320 * max(1, started.rate // started.channel_rate) * 4
        self._playout = bytearray()
        self._unread: deque[bytes] = deque()
        """What voxcom's callback has no room for yet."""
        self._read_on = asyncio.Event()
        self._clear = False
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time()
        self._pending = b""
        self._out: list[bytes] = []
        self.tasks = [self._loop.create_task(self._read()), self._loop.create_task(self._run())]

    # ---- What comes ------------------------------------------------------------------------------------

    async def _read(self) -> None:
        with suppress(ConnectionClosed):
            async for message in self.connection:
                self._catch_up()
                if isinstance(message, bytes):
                    self._binary(message)
                else:
                    await self._text(message)
                held = len(self._playout) + len(self._gathered)
                self.deepest_ms = max(self.deepest_ms, held / self.started.channel_rate * 500)

    def _binary(self, message: bytes) -> None:
        if not self.started.plays:
            self.problems.append("sound that nobody plays")
            return
        if self.kind in ("base64", "file"):
            self.problems.append("a binary message")
            return
        if len(message) % 2:
            self.problems.append("half a sample")
            return
        if self.kind == "binary":
            self._playout += self._converted(message)
            return
        self._gathered += message
        if len(self._gathered) < 2 * self._threshold:
            return
        self._threshold = 320 * max(1, self.started.rate // self.started.channel_rate) * 2
        self._playout += self._converted(self._gathered)
        self._gathered = b""

    async def _text(self, message: str) -> None:
        try:
            tree = json.loads(message)
        except ValueError:
            self.problems.append("a text that is no JSON")
            return
        kind = tree.get("type") if isinstance(tree, dict) else None
        if kind == "streamAudio" and self.kind in ("base64", "binary"):
            await self._stream_audio(tree.get("data"))
        elif kind == "killAudio" and self.kind == "fork":
            self._clear = True
        elif self.kind == "fork" and kind not in ("transfer", "disconnect", "error", "json"):
            self.problems.append(f"unsupported msg type {kind}")
        else:
            self.events.append(str(kind))

    async def _stream_audio(self, data: object) -> None:
        if not isinstance(data, dict):
            self.problems.append("no data in streamAudio")
            return
        if data.get("audioDataType") != "raw" or not isinstance(data.get("audioData"), str):
            self.problems.append("unsupported audio type")
            return
        try:
            raw = base64.b64decode(data["audioData"], validate=True)
        except ValueError:
            self.problems.append("base64 decode error")
            return
        if len(raw) % (2 * self.started.channels):
            self.problems.append("half a sample")
            return
        if self.started.channels == 2:  # it plays the left one to the caller
            raw = np.frombuffer(raw, "<i2")[::2].tobytes()
        self._unread.append(self._converted(raw))
        self._fill()
        while len(self._unread) > MOST_UNREAD:
            self._read_on.clear()
            await self._read_on.wait()

    def _fill(self) -> None:
        """The callback goes on, as far as there is room."""
        while self._unread and (room := self._room()):
            pcm = self._unread.popleft()
            self._playout += pcm[:room]
            if pcm[room:]:
                self._unread.appendleft(pcm[room:])
        self._read_on.set()

    def _room(self) -> int:
        if self.kind == "binary":
            return 1 << 30
        # STREAM_BUFFER_SIZE at the stream's rate, though what lies in it has the channel's.
        return max(0, 320 * self.started.rate // 8000 * (self.started.buffer_ms // 20) - len(self._playout))

    def _converted(self, pcm: bytes) -> bytes:
        samples = np.frombuffer(pcm, "<i2")
        if self.started.rate > self.started.channel_rate:
            samples = samples[:: self.started.rate // self.started.channel_rate]
        elif self.started.rate < self.started.channel_rate:
            samples = np.repeat(samples, self.started.channel_rate // self.started.rate)
        return samples.astype("<i2").tobytes()

    # ---- Its clock -------------------------------------------------------------------------------------

    @property
    def _frame(self) -> int:
        return self.started.channel_rate // 50 * 2

    def _catch_up(self) -> None:
        """All that the timers have done by now."""
        while self._due <= self._loop.time():
            self._tick()
            self._due += FRAME_S

    def _tick(self) -> None:
        size = self._frame
        if self._clear:
            self._clear = False
            self.cleared_ms.append(len(self._playout) / self.started.channel_rate * 500)
            self._playout.clear()
            played = b""
        elif self.kind == "file":
            played = self.source(size)
        elif self.kind == "base64" and len(self._playout) < size:
            played = b""  # a whole frame, or nothing
        else:
            played = bytes(self._playout[:size])
            del self._playout[:size]
        self._fill()
        self.heard += played.ljust(size, b"\0")
        self.heard_at.append(self._due)
        self._speak()

    def _speak(self) -> None:
        size = self.started.rate // 50 * 2
        said, self.to_say = self.to_say[:size].ljust(size, b"\0"), self.to_say[size:]
        if self.started.channels == 2:
            both = np.zeros(size, "<i2")
            both[::2] = np.frombuffer(said, "<i2")
            both[1::2] = 777  # what we say, which is not the caller's
            said = both.tobytes()
        self._pending += said
        piece = len(said) * (self.started.buffer_ms // 20)
        if len(self._pending) >= piece:
            self._out.append(self._pending)
            self._pending = b""

    async def _run(self) -> None:
        with suppress(ConnectionClosed):
            while True:
                self._catch_up()
                out, self._out = self._out, []
                for piece in out:
                    await self.connection.send(piece)
                await asyncio.sleep(max(0.0, self._due - self._loop.time()))

    # ---- The channel -----------------------------------------------------------------------------------

    async def send_text(self, text: str) -> None:
        """``uuid_audio_stream UUID send_text TEXT``"""
        await self.connection.send(text)

    async def end(self) -> None:
        """The channel hangs up."""
        await self.connection.close()
        await asyncio.gather(*self.tasks)

    @property
    def closed(self) -> tuple[int | None, str]:
        """Code and reason of the close frame, as the event ``disconnect`` has them."""
        return self.connection.close_code, self.connection.close_reason or ""

    def heard_ms(self, level: int, tolerance: int = 100) -> float:
        """How long a constant level was heard."""
        samples = np.frombuffer(bytes(self.heard), "<i2").astype(np.int32)
        return float((abs(samples - level) < tolerance).sum()) / self.started.channel_rate * 1000

    def heard_as_speech_ms(self) -> float:
        """How long anything was heard."""
        samples = np.frombuffer(bytes(self.heard), "<i2").astype(np.int32)
        frames = samples[: len(samples) // 160 * 160].reshape(-1, 160)
        loud = np.sqrt((frames.astype(float) ** 2).mean(axis=1)) > 100
        return float(loud.sum()) * 160 / self.started.channel_rate * 1000


async def start(kind: Kind, started: Started) -> Stream:
    """Start a stream.

    Raises:
        Refused: the module would not.
        InvalidStatus: it was answered with another HTTP status.
    """
    started.check()
    connection = await connect(
        started.url,
        compression=None,
        subprotocols=[Subprotocol("audio.drachtio.org")] if kind == "fork" else None,
        additional_headers=started.headers,
        user_agent_header=None,
        ssl=started.tls,
    )
    if started.metadata:
        with suppress(ConnectionClosed):  # it may have been sent away already
            await connection.send(started.metadata)
    return Stream(kind, started, connection)
