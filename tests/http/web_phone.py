"""A client of `/ws/audio/{number}`, as anybody would write one: speaks and hears 24 kHz PCM in real time."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np
import soxr
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from bridge.softphone import load_wav

RATE = 24_000
CHUNK_MS = 40
CHUNK = RATE * CHUNK_MS // 1000 * 2
RECEIVE_BYTES = 16 * 1024
"""The kernel's receive buffer: who reads nothing is noticed soon."""
LOUD = 500
"""Peak from which on something is being said."""


def recording(file: Path) -> bytes:
    """A recording as 24 kHz PCM."""
    narrow = np.frombuffer(load_wav(file), "<i2").astype(np.float64) / 32768
    wide = soxr.resample(narrow, 8000, RATE)
    return bytes(np.clip(np.rint(wide * 32767), -32768, 32767).astype("<i2").tobytes())


class WebPhone:
    """One connection. As an asynchronous context it talks, silence where nothing is to be said."""

    def __init__(
        self, url: str, headers: Mapping[str, str] | None = None, *, base64: bool = False, talks: bool = True
    ) -> None:
        self._url = url
        self._headers = headers
        self._base64 = base64
        self._talks = talks
        self._to_say = bytearray()
        self._tasks: list[asyncio.Task[None]] = []
        self.socket: ClientConnection
        self.heard = bytearray()
        self.texts_of_sound = 0
        self.events: list[dict[str, Any]] = []
        self.over = asyncio.Event()

    async def __aenter__(self) -> Self:
        place = urlsplit(self._url)
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, (place.hostname, place.port))
        self.socket = await connect(
            self._url,
            sock=raw,
            additional_headers=self._headers,
            compression=None,
            max_size=2**20,
            open_timeout=10,
        )
        self._tasks.append(asyncio.create_task(self._hear()))
        if self._talks:
            self.talk()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.socket.close()

    def talk(self) -> None:
        """From now on send sound, silence where nothing is to be said."""
        self._tasks.append(asyncio.create_task(self._talk()))

    def say(self, what: bytes | Path) -> None:
        """Have something said next."""
        self._to_say += recording(what) if isinstance(what, Path) else what

    async def send(self, **message: Any) -> None:
        """Send a text message."""
        await self.socket.send(json.dumps(message))

    async def closed(self, within_s: float = 20.0) -> tuple[int, str]:
        """Wait for the end: the close code and its reason."""
        async with asyncio.timeout(within_s):
            await self.over.wait()
        assert self.socket.close_code is not None
        return self.socket.close_code, self.socket.close_reason or ""

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The events of a type, in order."""
        return [event for event in self.events if event["type"] == kind]

    @property
    def loud_s(self) -> float:
        """For how long something was said to us, in seconds."""
        samples = np.frombuffer(bytes(self.heard), "<i2")
        chunks = samples[: len(samples) // 480 * 480].reshape(-1, 480)
        return float((np.abs(chunks.astype(np.int32)).max(axis=1) > LOUD).sum()) * 0.02

    async def _hear(self) -> None:
        try:
            async for message in self.socket:
                if isinstance(message, bytes):
                    self.heard += message
                    continue
                event = json.loads(message)
                if event["type"] == "audio":
                    self.texts_of_sound += 1
                    self.heard += base64.b64decode(event["audio"], validate=True)
                else:
                    self.events.append(event)
        finally:
            self.over.set()

    async def _talk(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        with contextlib.suppress(ConnectionClosed):
            while True:
                chunk = bytes(self._to_say[:CHUNK]).ljust(CHUNK, b"\0")
                del self._to_say[:CHUNK]
                if self._base64:
                    await self.send(type="audio", audio=base64.b64encode(chunk).decode())
                else:
                    await self.socket.send(chunk)
                due += CHUNK_MS / 1000
                await asyncio.sleep(max(0.0, due - loop.time()))
