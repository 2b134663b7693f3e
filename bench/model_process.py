"""A model server that replays recorded replies: just enough of OpenAI's Realtime protocol (GA).

It listens by level alone: 100 ms of sound begin a turn, 500 ms of quiet end it. To each `response.create` it
replays a recorded reply, in pieces of 200 ms at four times real time, and it stops where it is cancelled.
Nothing is recognised, thought or synthesised, so that the service is what is measured.
"""

from __future__ import annotations

import asyncio
import sys
import time
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
import uvloop
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from bench import media
from bench.children import say, serve_parent

LOUD = 500
"""A piece whose highest sample is above this has sound in it; the recordings' pauses are digital silence."""
BEGIN_MS = 100
"""A mark is shorter."""
END_MS = 500
PIECE_MS = 200
PIECE_BYTES = PIECE_MS * media.MODEL_RATE // 1000 * 2
PIECE_EVERY_S = 0.05
MARKS_APART = media.MODEL_RATE // 10
"""In samples: what is loud sooner after a mark belongs to it."""

Message = dict[str, Any]


class Replayed:
    """One session, and what is known of it for the figures.

    Attributes:
        appends: when each piece of the caller's audio came, and how many samples there were with it.
        marks: the sample at which each mark was found.
        replies: when the first audio of each reply was sent, and the reply's length in bytes.
    """

    def __init__(self, connection: ServerConnection, number: int, voice: Voice) -> None:
        self._connection = connection
        self._number = number
        self._voice = voice
        self._counts: dict[str, int] = {}
        self._reply: asyncio.Task[None] | None = None
        self._response = ""
        self._samples = 0
        self._loud_ms = self._quiet_ms = 0.0
        self._turn = ""
        self.appends: list[tuple[float, int]] = []
        self.marks: list[int] = []
        self.replies: list[tuple[float, int]] = []
        self.counts: dict[str, int] = {}

    async def run(self) -> None:
        """Until the client leaves."""
        await self._send(type="session.created", session={"type": "realtime"})
        try:
            while True:
                message = orjson.loads(await self._connection.recv(decode=False))
                now = time.monotonic()
                kind = message["type"]
                if kind == "input_audio_buffer.append":
                    await self._hear(b64decode(message["audio"]), now)
                    continue
                self.counts[kind] = self.counts.get(kind, 0) + 1
                await self._take(kind, message)
        except ConnectionClosed:
            return
        finally:
            if self._reply is not None:
                self._reply.cancel()

    def log(self) -> Mapping[str, Any]:
        """What the figures are made of."""
        return {
            "appends": self.appends,
            "marks": self.marks,
            "replies": self.replies,
            "messages": self.counts,
        }

    # -- hearing ---------------------------------------------------------------------------------------------

    async def _hear(self, pcm: bytes, now: float) -> None:
        samples = np.frombuffer(pcm, "<i2")
        peak = int(samples.max())
        if peak >= media.MARK_LEVEL and (not self.marks or self._samples - self.marks[-1] >= MARKS_APART):
            self.marks.append(self._samples + int(np.argmax(samples >= media.MARK_LEVEL)))
        self._samples += len(samples)
        self.appends.append((now, self._samples))
        ms = len(samples) * 1000 / media.MODEL_RATE
        loud = peak > LOUD
        self._loud_ms = self._loud_ms + ms if loud else 0.0
        self._quiet_ms = 0.0 if loud else self._quiet_ms + ms
        if not self._turn and self._loud_ms >= BEGIN_MS:
            self._turn = self._id("user")
            await self._send(type="input_audio_buffer.speech_started", audio_start_ms=0, item_id=self._turn)
        elif self._turn and self._quiet_ms >= END_MS:
            await self._turn_ends()

    async def _turn_ends(self) -> None:
        item, self._turn = self._turn, ""
        await self._send(type="input_audio_buffer.speech_stopped", audio_end_ms=0, item_id=item)
        await self._send(type="input_audio_buffer.committed", item_id=item, previous_item_id=None)
        await self._send(
            type="conversation.item.input_audio_transcription.completed",
            item_id=item,
            content_index=0,
            transcript="Boa tarde.",
            usage={"type": "duration", "seconds": 1.0},
        )

    # -- what the client asks --------------------------------------------------------------------------------

    async def _take(self, kind: str, message: Message) -> None:
        match kind:
            case "session.update":
                await self._send(type="session.updated", session=message["session"])
            case "response.create":
                await self._begin(message)
            case "response.cancel":
                await self._cancel(message)
            case "conversation.item.truncate":
                await self._send(
                    type="conversation.item.truncated",
                    item_id=message["item_id"],
                    content_index=0,
                    audio_end_ms=message["audio_end_ms"],
                )
            case "conversation.item.delete":
                await self._send(type="conversation.item.deleted", item_id=message["item_id"])

    async def _refuse(self, message: Message, code: str) -> None:
        error = {"type": "invalid_request_error", "code": code, "message": code}
        await self._send(type="error", error=error | {"event_id": message.get("event_id"), "param": None})

    async def _begin(self, message: Message) -> None:
        if self._reply is not None:
            await self._refuse(message, "conversation_already_has_active_response")
            return
        self._response = self._id("resp")
        metadata = (message.get("response") or {}).get("metadata")
        response = {"id": self._response, "object": "realtime.response", "metadata": metadata}
        await self._send(type="response.created", response=response | {"status": "in_progress", "output": []})
        self._reply = asyncio.create_task(self._say(response), name=f"reply {self._response}")
        self._reply.add_done_callback(_told)

    async def _cancel(self, message: Message) -> None:
        if self._reply is None:
            await self._refuse(message, "response_cancel_not_active")
            return
        self._reply.cancel()
        await asyncio.wait({self._reply})
        await self._done({"id": self._response, "object": "realtime.response", "metadata": None}, "cancelled")

    async def _say(self, response: Message) -> None:
        item = self._id("item")
        ids = {"response_id": response["id"], "item_id": item, "output_index": 0}
        shown = {"id": item, "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        await self._send(
            type="response.output_item.added", response_id=response["id"], output_index=0, item=shown
        )
        pieces, size = self._voice.reply(self._number, len(self.replies))
        for number, piece in enumerate(pieces):
            if number:
                await asyncio.sleep(PIECE_EVERY_S)
            else:
                self.replies.append((time.monotonic(), size))
            await self._send(type="response.output_audio.delta", **ids, content_index=0, delta=piece)
        await self._send(type="response.output_audio.done", **ids, content_index=0)
        text = {"content_index": 0, "transcript": "Um momento, por favor."}
        await self._send(type="response.output_audio_transcript.done", **ids, **text)
        await self._done(response, "completed")

    async def _done(self, response: Message, status: str) -> None:
        self._reply = None
        done = {"status": status, "output": [], "usage": {"total_tokens": 0}}
        await self._send(type="response.done", response=response | done)

    # -- inside ----------------------------------------------------------------------------------------------

    def _id(self, kind: str) -> str:
        self._counts[kind] = self._counts.get(kind, 0) + 1
        return f"{kind}_{self._counts[kind]}"

    async def _send(self, **message: Any) -> None:
        await self._connection.send(orjson.dumps({"event_id": self._id("event"), **message}).decode())


def _told(reply: asyncio.Task[None]) -> None:
    """The client may leave in the middle of a reply; anything else is a fault of ours, for the log."""
    if reply.cancelled() or reply.exception() is None or isinstance(reply.exception(), ConnectionClosed):
        return
    reply.get_loop().call_exception_handler({"message": "a reply broke down", "exception": reply.exception()})


class Voice:
    """The replies, cut and encoded once: sending them should cost little beside the service."""

    def __init__(self, greeting_s: float) -> None:
        """`greeting_s`: how long the greeting is, at least; 0: as short as `media.greeting`."""
        self._greeting = _cut(media.speech(greeting_s) if greeting_s else media.greeting())
        self._replies = [_cut(pcm) for pcm in media.replies()]

    def reply(self, session: int, number: int) -> tuple[list[str], int]:
        """The pieces of a session's reply, and its length in bytes. Number 0 is the greeting."""
        if not number:
            return self._greeting
        return self._replies[(session + number) % len(self._replies)]


def _cut(pcm: bytes) -> tuple[list[str], int]:
    pieces = [pcm[at : at + PIECE_BYTES] for at in range(0, len(pcm), PIECE_BYTES)]
    return [b64encode(piece).decode("ascii") for piece in pieces], len(pcm)


async def run(greeting_s: float) -> None:
    """Serve until the benchmark is through; sessions are numbered in the order in which they came."""
    voice = Voice(greeting_s)
    sessions: list[Replayed] = []

    async def handle(connection: ServerConnection) -> None:
        session = Replayed(connection, len(sessions), voice)
        sessions.append(session)
        await session.run()

    def answer(_: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"sessions": [session.log() for session in sessions], "cpu_s": time.process_time()}

    async with serve(handle, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        say({"url": f"http://127.0.0.1:{port}/v1"})
        await serve_parent(answer)


def main() -> None:
    """`python -m bench.model_process '{"greeting_s": …}'`; started by `bench.run` and `bench.clock`."""
    uvloop.run(run(orjson.loads(sys.argv[1]).get("greeting_s", 0.0)))


if __name__ == "__main__":
    main()
