"""A resident port that takes every call, says nothing but silence, and remembers who came."""

from __future__ import annotations

import asyncio
from typing import Self
from uuid import UUID

SILENCE = b"\x10\x01\x40" + bytes(320)
FRAME_S = 0.02


class ResidentPort:
    """A context: listens on loopback on entry."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.calls: dict[UUID, asyncio.StreamWriter] = {}
        """Those that are up."""
        self.came: list[UUID] = []
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._call, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def hang_up(self, call: UUID) -> None:
        """End a call from our side."""
        self.calls[call].write(b"\x00\x00\x00")

    def die(self, call: UUID) -> None:
        """End a call as a process that is killed does."""
        self.calls[call].transport.abort()

    async def _call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        call = UUID(bytes=(await reader.readexactly(19))[3:])
        self.came.append(call)
        self.calls[call] = writer
        speaks = asyncio.create_task(self._speak(writer))
        try:
            while await reader.read(4096):
                pass
        except OSError:
            pass
        finally:
            speaks.cancel()
            del self.calls[call]
            self._tasks.discard(task)
            writer.transport.abort()

    @staticmethod
    async def _speak(writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            writer.write(SILENCE)
            await asyncio.sleep(FRAME_S)
