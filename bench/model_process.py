"""A model server that replays recorded replies: just enough of OpenAI's Realtime protocol (GA).

It listens by level alone: 100 ms of sound begin a turn, 500 ms of quiet end it. To each `response.create` it
replays a recorded reply, in pieces of 200 ms at four times real time (or as fast as it is asked to), and it
stops where it is cancelled. Nothing is recognised, thought or synthesised, so that the service is what is
measured.

It must cost little beside the service: what callers send is taken out of its message without parsing JSON
and decoded only where it isn't silence, and replies lie encoded in memory. A truncation is checked as
OpenAI's is: an item that there isn't, or more of it than was sent, is an error.
"""

from __future__ import annotations

import asyncio
import sys
import time
from array import array
from base64 import b64encode
from binascii import a2b_base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from audio.frames import TELEPHONE_RATE
from audio.g711 import alaw_decode, alaw_encode, ulaw_decode, ulaw_encode
from bench import media
from bench.children import say, serve_parent, without_garbage

LOUD = 500
"""A piece whose highest sample is above this has sound in it; the recordings' pauses are digital silence."""
BEGIN_MS = 100
"""A mark is shorter."""
END_MS = 500
PIECE_MS = 200
PACE: Final = 4.0
"""How much faster than real time a reply comes."""
MARKS_APART_S = 0.1
"""What is loud sooner after a mark belongs to it."""

APPEND: Final = b'{"type":"input_audio_buffer.append","audio":"'
APPEND_END: Final = b'"}'

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Format:
    """An audio format of the protocol, and how it is told from PCM of 16 bits."""

    name: str
    rate: int
    sample_bytes: int

    def encoded(self, pcm: bytes) -> bytes:
        """Of signed 16-bit samples at this format's rate."""
        match self.name:
            case "audio/pcmu":
                return ulaw_encode(pcm)
            case "audio/pcma":
                return alaw_encode(pcm)
            case _:
                return pcm

    def decoded(self, data: bytes) -> bytes:
        """Signed 16-bit samples."""
        match self.name:
            case "audio/pcmu":
                return ulaw_decode(data)
            case "audio/pcma":
                return alaw_decode(data)
            case _:
                return data


FORMATS: Final = {
    one.name: one
    for one in (
        Format("audio/pcm", media.MODEL_RATE, 2),
        Format("audio/pcmu", TELEPHONE_RATE, 1),
        Format("audio/pcma", TELEPHONE_RATE, 1),
    )
}
PCM: Final = FORMATS["audio/pcm"]


@dataclass(frozen=True, slots=True)
class Reply:
    """A recorded reply, cut and encoded.

    Attributes:
        pieces: each its place in the reply's samples, its milliseconds, and its audio in Base64.
        ms: its length.
    """

    pieces: Sequence[tuple[int, float, bytes]]
    ms: float


class Session(WSListener):
    """One session, and what is known of it for the figures.

    Attributes:
        format: of the caller's audio and of ours.
        append_times, append_samples: when each piece of the caller's audio came, and how many samples there
            were with it.
        marks: the sample at which each mark was found.
        replies: when the first audio of each reply was sent, its item, and its length in milliseconds.
        deltas: when each piece of a reply was sent, the reply's number, and the piece's place in its samples.
        truncations: when the client said so, of which item, and the milliseconds of it that were heard; 0 is
            an item that was to be deleted, of which nothing was.
        errors: what was refused: a code each.
    """

    def __init__(self, number: int, voice: Voice) -> None:
        self._number = number
        self._voice = voice
        self._transport: WSTransport | None = None
        self._loop = asyncio.get_running_loop()
        self._counts: dict[str, int] = {}
        self._reply: _Replaying | None = None
        self._response: Message = {}
        self._parts: list[bytes] = []
        self._samples = 0
        self._loud_ms = self._quiet_ms = 0.0
        self._turn = ""
        self._sent_ms: dict[str, float] = {}
        """Of each item, how much was sent."""
        self.format = PCM
        self.append_times = array("d")
        self.append_samples = array("q")
        self.marks: list[int] = []
        self.replies: list[tuple[float, str, float]] = []
        self.deltas: list[tuple[float, int, int]] = []
        self.truncations: list[tuple[float, str, int]] = []
        self.errors: list[str] = []
        self.counts: dict[str, int] = {}

    # -- picows ----------------------------------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        """The client is there."""
        self._transport = transport
        self.send(type="session.created", session={"type": "realtime"})

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """A message, or a part of one."""
        now = time.monotonic()
        if frame.msg_type is WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
            return
        if frame.msg_type not in (WSMsgType.TEXT, WSMsgType.CONTINUATION):
            return
        data = frame.get_payload_as_bytes()
        if self._parts or not frame.fin:
            self._parts.append(data)
            if not frame.fin:
                return
            data = b"".join(self._parts)
            self._parts.clear()
        if data.startswith(APPEND) and data.endswith(APPEND_END):
            self._hear(data[len(APPEND) : -len(APPEND_END)], now)
            return
        message = orjson.loads(data)
        kind = message["type"]
        if kind == "input_audio_buffer.append":
            self._hear(message["audio"].encode("ascii"), now)
            return
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self._take(kind, message, now)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """The client left."""
        self._transport = None
        if self._reply is not None:
            self._reply.stop()
            self._reply = None
        self._voice.left(self)

    # -- hearing ---------------------------------------------------------------------------------------------

    def _hear(self, coded: bytes, now: float) -> None:
        found = self.format
        peak = 0
        if coded == self._voice.silence(found, len(coded)):
            count = len(coded) // 4 * 3 // found.sample_bytes
        else:
            samples = np.frombuffer(found.decoded(a2b_base64(coded)), "<i2")
            count, peak = len(samples), int(samples.max())
            if peak >= media.MARK_LEVEL and (
                not self.marks or self._samples - self.marks[-1] >= MARKS_APART_S * found.rate
            ):
                self.marks.append(self._samples + int(np.argmax(samples >= media.MARK_LEVEL)))
        self._samples += count
        if self._voice.keeps:
            self.append_times.append(now)
            self.append_samples.append(self._samples)
        ms = count * 1000 / found.rate
        loud = peak > LOUD
        self._loud_ms = self._loud_ms + ms if loud else 0.0
        self._quiet_ms = 0.0 if loud else self._quiet_ms + ms
        if not self._turn and self._loud_ms >= BEGIN_MS:
            self._turn = self.new_id("user")
            self.send(type="input_audio_buffer.speech_started", audio_start_ms=0, item_id=self._turn)
        elif self._turn and self._quiet_ms >= END_MS:
            self._turn_ends()

    def _turn_ends(self) -> None:
        item, self._turn = self._turn, ""
        self.send(type="input_audio_buffer.speech_stopped", audio_end_ms=0, item_id=item)
        self.send(type="input_audio_buffer.committed", item_id=item, previous_item_id=None)
        self.send(
            type="conversation.item.input_audio_transcription.completed",
            item_id=item,
            content_index=0,
            transcript="Boa tarde.",
            usage={"type": "duration", "seconds": 1.0},
        )

    # -- what the client asks --------------------------------------------------------------------------------

    def _take(self, kind: str, message: Message, now: float) -> None:
        match kind:
            case "session.update":
                self._configure(message)
            case "response.create":
                self._begin(message)
            case "response.cancel":
                if self._reply is None:
                    self._refuse(message, "response_cancel_not_active")
                else:
                    self._reply.stop()
                    self.over("cancelled")
            case "conversation.item.truncate":
                self._truncate(message, now)
            case "conversation.item.delete" if message["item_id"] not in self._sent_ms:
                self._refuse(message, "item_delete_invalid_item_id")
            case "conversation.item.delete":
                self.truncations.append((now, message["item_id"], 0))
                self.send(type="conversation.item.deleted", item_id=message["item_id"])

    def _configure(self, message: Message) -> None:
        audio = message["session"].get("audio") or {}
        asked = {
            (audio.get(side) or {}).get("format", {}).get("type", PCM.name) for side in ("input", "output")
        }
        if len(asked) != 1 or not asked <= FORMATS.keys():
            self._refuse(message, "invalid_value")
            return
        self.format = FORMATS[asked.pop()]
        self.send(type="session.updated", session=message["session"])

    def _truncate(self, message: Message, now: float) -> None:
        item, ms = message["item_id"], message["audio_end_ms"]
        if item not in self._sent_ms:
            self._refuse(message, "item_truncate_invalid_item_id")
        elif not 0 <= ms <= self._sent_ms[item]:
            self._refuse(message, "invalid_value")
        else:
            self.truncations.append((now, item, ms))
            self.send(type="conversation.item.truncated", item_id=item, content_index=0, audio_end_ms=ms)

    def _refuse(self, message: Message, code: str) -> None:
        self.errors.append(code)
        error = {"type": "invalid_request_error", "code": code, "message": code}
        self.send(type="error", error=error | {"event_id": message.get("event_id"), "param": None})

    def _begin(self, message: Message) -> None:
        if self._reply is not None:
            self._refuse(message, "conversation_already_has_active_response")
            return
        metadata = (message.get("response") or {}).get("metadata")
        name = self.new_id("resp")
        self._response = {"id": name, "object": "realtime.response", "metadata": metadata}
        response = self._response
        self.send(type="response.created", response=response | {"status": "in_progress", "output": []})
        item = self.new_id("item")
        self._sent_ms[item] = 0.0
        shown = {"id": item, "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        self.send(type="response.output_item.added", response_id=name, output_index=0, item=shown)
        reply = self._voice.reply(self.format, self._number, len(self.replies))
        self._reply = _Replaying(self, name, item, reply, PIECE_MS / 1000 / self._voice.pace)
        self._reply.go_on()

    def delta(self, item: str, reply: Reply, piece: int) -> None:
        """A piece is on its way."""
        now = time.monotonic()
        place, ms, _ = reply.pieces[piece]
        if not piece:
            self.replies.append((now, item, reply.ms))
        self._sent_ms[item] += ms
        if self._voice.keeps:
            self.deltas.append((now, len(self.replies) - 1, place))

    def over(self, status: str) -> None:
        """The response has ended."""
        self._reply = None
        done = {"status": status, "output": [], "usage": {"total_tokens": 0}}
        self.send(type="response.done", response=self._response | done)

    # -- writing ---------------------------------------------------------------------------------------------

    def new_id(self, kind: str) -> str:
        """One that this session has not had."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        return f"{kind}_{self._counts[kind]}"

    def send(self, **message: Any) -> None:
        """A message; nothing, once the client is gone."""
        self.send_raw(orjson.dumps({"event_id": self.new_id("event"), **message}))

    def send_raw(self, message: bytes) -> None:
        """A message that is written already."""
        if self._transport is not None:
            self._transport.send(WSMsgType.TEXT, message)

    def log(self) -> Mapping[str, Any]:
        """What the figures are made of."""
        return {
            "rate": self.format.rate,
            "append_times": self.append_times.tolist(),
            "append_samples": self.append_samples.tolist(),
            "marks": self.marks,
            "replies": self.replies,
            "deltas": self.deltas,
            "truncations": self.truncations,
            "errors": self.errors,
            "messages": self.counts,
        }


class _Replaying:
    """A reply on its way, piece by piece."""

    def __init__(self, session: Session, response: str, item: str, reply: Reply, every_s: float) -> None:
        self._session = session
        self._item = item
        self._reply = reply
        self._every_s = every_s
        self._ids = {"response_id": response, "item_id": item, "output_index": 0, "content_index": 0}
        whole = {"type": "response.output_audio.delta", "event_id": f"delta_{item}", **self._ids}
        self._head = orjson.dumps(whole)[:-1] + b',"delta":"'
        self._piece = 0
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    def go_on(self) -> None:
        """Send the next piece, or the end."""
        if self._piece == len(self._reply.pieces):
            self._end()
            return
        self._session.delta(self._item, self._reply, self._piece)
        self._session.send_raw(self._head + self._reply.pieces[self._piece][2] + b'"}')
        self._piece += 1
        if self._piece == len(self._reply.pieces):
            self._end()
        else:
            self._timer = self._loop.call_at(self._began + self._piece * self._every_s, self.go_on)

    def stop(self) -> None:
        """Nothing more of it comes."""
        if self._timer is not None:
            self._timer.cancel()

    def _end(self) -> None:
        self._session.send(type="response.output_audio.done", **self._ids)
        self._session.send(
            type="response.output_audio_transcript.done", **self._ids, transcript="Um momento, por favor."
        )
        self._session.over("completed")


class Voice:
    """The replies, cut and encoded once for each format; and what all sessions share."""

    def __init__(self, greeting_s: float = 0.0, pace: float = PACE, keeps: bool = True) -> None:
        """
        Args:
            greeting_s: how long the greeting is, at least; 0: as short as `media.greeting`.
            pace: how much faster than real time replies come.
            keeps: what was said and when, for the figures; False where calls come and go for hours.
        """
        self._greeting_s = greeting_s
        self.pace = pace
        self.keeps = keeps
        self.sessions: list[Session] = []
        self._replies: dict[str, list[Reply]] = {}
        self._silence: dict[tuple[str, int], bytes] = {}
        self._left = Counter[str]()
        """Of sessions that have left and are not kept."""

    def session(self) -> Session:
        """The next; sessions are numbered in the order in which they came."""
        session = Session(self._left["sessions"] + len(self.sessions), self)
        self.sessions.append(session)
        return session

    def left(self, session: Session) -> None:
        """Its client is gone."""
        if not self.keeps:
            self._left = self._summed([session])
            self.sessions.remove(session)

    def count(self) -> dict[str, int]:
        """How many sessions, replies and truncations there have been, and errors of each code."""
        return dict(self._summed(self.sessions))

    def _summed(self, sessions: Sequence[Session]) -> Counter[str]:
        found = Counter(self._left)
        for session in sessions:
            found.update(sessions=1, replies=len(session.replies), truncations=len(session.truncations))
            found.update(f"error {code}" for code in session.errors)
        return found

    def reply(self, form: Format, session: int, number: int) -> Reply:
        """A session's reply. Number 0 is the greeting."""
        replies = self._replies.get(form.name)
        if replies is None:
            replies = self._replies[form.name] = self._load(form)
        if not number:
            return replies[0]
        return replies[1 + (session + number) % (len(replies) - 1)]

    def silence(self, form: Format, length: int) -> bytes:
        """What so many bytes of Base64 look like where there is no sound in them."""
        found = self._silence.get((form.name, length))
        if found is None:
            quiet = form.encoded(bytes(2 * (length // 4 * 3 // form.sample_bytes)))
            found = self._silence[form.name, length] = b64encode(quiet)
        return found

    def _load(self, form: Format) -> list[Reply]:
        rate = form.rate
        greeting = media.speech(self._greeting_s, rate) if self._greeting_s else media.greeting(rate)
        return [_cut(pcm, form) for pcm in (greeting, *media.replies(rate))]


def _cut(pcm: bytes, form: Format) -> Reply:
    size = 2 * PIECE_MS * form.rate // 1000
    pieces = [
        (at // 2, len(piece) * 500 / form.rate, b64encode(form.encoded(piece)))
        for at in range(0, len(pcm), size)
        for piece in (pcm[at : at + size],)
    ]
    return Reply(pieces, len(pcm) * 500 / form.rate)


async def run(voice: Voice) -> None:
    """Serve until the benchmark is through.

    `{"count": true}` is answered with how much there has been of everything, and any other question with all
    that was kept.
    """
    voice.reply(PCM, 0, 0)  # encoded before the first call

    def answer(command: Mapping[str, Any]) -> Mapping[str, Any]:
        if "count" in command:
            return voice.count()
        return {"sessions": [session.log() for session in voice.sessions]}

    def listener(_: WSUpgradeRequest) -> WSListener:
        return voice.session()

    without_garbage()
    server = await ws_create_server(listener, "127.0.0.1", 0)
    async with server:
        port = next(iter(server.sockets)).getsockname()[1]
        say({"url": f"http://127.0.0.1:{port}/v1"})
        await serve_parent(answer)


def main() -> None:
    """`python -m bench.model_process '{"pace": …}'`: the arguments are those of :class:`Voice`."""
    uvloop.run(run(Voice(**orjson.loads(sys.argv[1]))))


if __name__ == "__main__":
    main()
