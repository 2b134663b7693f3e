"""One response: from the history to what is said and called, as the protocol's stream of events."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import orjson

from providers.formats import PCM24, AudioFormat
from providers.local.coding import Outgoing
from providers.local.conversation import Item, Spoken, audio_tokens, text_tokens
from providers.local.dialogue.base import Call, CutShort, Say, Used, WrittenCall
from providers.local.speech import RATE, Speaks
from providers.local.spoken import sentences
from providers.local.stage import Bill

_CHUNK_MS: Final = 100
_CHUNK_BYTES: Final = RATE * 2 * _CHUNK_MS // 1000
_HEAD_START_MS: Final = 500
_FASTER: Final = 6.0
"""Audio is sent this many times faster than it plays, after a head start: like the services it stands in for,
it leaves room for a cancellation while it is under way."""

_CHARACTER_MS: Final = 70
"""How long a character of a sentence takes about, while it is not known when its speech will end. Rather
more: of a sentence that was cut off the model should forget a word too many, not remember one too many."""

Status = Literal["in_progress", "completed", "cancelled", "incomplete", "failed"]
Emit = Callable[..., None]


@dataclass(slots=True)
class Response:
    """What was asked for and what has come of it."""

    id: str
    conversation_id: str | None
    """None: out of band, nothing of it is remembered."""
    modality: Literal["audio", "text"]
    max_tokens: int | Literal["inf"]
    voice: str
    speed: float
    format: AudioFormat = PCM24
    metadata: Mapping[str, str] | None = None
    status: Status = "in_progress"
    details: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None
    items: list[Item] = field(default_factory=list)
    open_item: Item | None = None
    """The item that is being streamed."""
    open_part: bool = False
    input_tokens: tuple[int, int] = (0, 0)
    used: Used | None = None
    """What the language model counted, where there is one."""

    @property
    def in_conversation(self) -> bool:
        return self.conversation_id is not None

    def json(self) -> dict[str, Any]:
        """The response as the protocol shows it."""
        return {
            "object": "realtime.response",
            "id": self.id,
            "status": self.status,
            "status_details": self.details,
            "output": [item.json() for item in self.items],
            "conversation_id": self.conversation_id,
            "output_modalities": [self.modality],
            "max_output_tokens": self.max_tokens,
            "audio": {
                "output": {"format": dict(self.format.wire), "voice": self.voice},
            },
            "usage": self.usage,
            "metadata": dict(self.metadata) if self.metadata is not None else None,
        }

    def output_tokens(self) -> tuple[int, int]:
        """(text tokens, audio tokens) that it has given so far."""
        text = audio = 0
        for item in self.items:
            if item.type == "function_call":
                text += text_tokens(item.name + item.arguments)
            elif item.content == "output_audio":
                text += text_tokens(item.heard())
                audio += audio_tokens(item.sent_ms, "agent")
            else:
                text += text_tokens(item.text or "")
        return text, audio

    def count(self) -> None:
        """Set :attr:`usage`: as the language model counted its text, or else by an estimate."""
        (text_in, audio_in), (text_out, audio_out) = self.input_tokens, self.output_tokens()
        cached = 0
        if self.used is not None:
            text_in, text_out, cached = self.used.input, self.used.output, self.used.cached
            audio_in = 0  # it was given text alone
        self.usage = {
            "total_tokens": text_in + audio_in + text_out + audio_out,
            "input_tokens": text_in + audio_in,
            "output_tokens": text_out + audio_out,
            "input_token_details": {
                "text_tokens": text_in,
                "audio_tokens": audio_in,
                "image_tokens": 0,
                "cached_tokens": cached,
                "cached_tokens_details": {"text_tokens": cached, "audio_tokens": 0, "image_tokens": 0},
            },
            "output_token_details": {"text_tokens": text_out, "audio_tokens": audio_out},
        }


class ResponseStream:
    """Sends one response's items as events."""

    def __init__(
        self,
        response: Response,
        speaker: Speaks,
        emit: Emit,
        room: Callable[[], Awaitable[None]],
        new_id: Callable[[str], str],
        remember: Callable[[Item], str | None],
        bill: Bill,
    ) -> None:
        """
        Args:
            emit: sends one event: type, then its fields.
            room: waits until the client has taken enough of what was sent.
            new_id: a fresh id with a prefix.
            remember: adds an item to the conversation and returns the id before it.
            bill: told what is to be paid for speech.
        """
        self._response = response
        self._speaker = speaker
        self._emit = emit
        self._room = room
        self._new_id = new_id
        self._remember = remember
        self._bill = bill
        self._outgoing = Outgoing(response.format)
        self._began = 0.0
        self._sent_ms = 0.0
        self.first_audio = 0.0
        """When the first of it was sent, by the loop's clock; 0: not yet."""
        self._before: str | None = None
        """The conversation's item before the open one."""

    async def send(self, action: Say | Call | WrittenCall) -> None:
        """The next part of the reply. What is said in several parts one after the other is one item.

        Raises:
            CutShort: the response's limit was reached; the open item is left to :meth:`close_open`.
            SpeechError, StageError: the words could not be said; likewise.
        """
        if isinstance(action, Call | WrittenCall):
            self.end()
            self._call(action)
        elif self._response.modality == "text":
            self._write(action.text)
        else:
            await self._speak(action.text)

    def end(self) -> None:
        """All was said: close what is open."""
        item = self._response.open_item
        if item is not None and item.content == "output_audio":
            self._send_audio(item, self._outgoing.rest())
        self.close_open("completed")

    # --------------------------------------------------------------------------------------- a say

    async def _speak(self, text: str) -> None:
        item = self._response.open_item or self._open_message("output_audio")
        for sentence in sentences(text):
            async with aclosing(self._speaker.stream(sentence, self._response.speed, self._bill)) as pieces:
                spoken: Spoken | None = None
                received_ms = 0.0
                async for piece in pieces:
                    spoken = spoken or self._begin_sentence(item, sentence)
                    received_ms += len(piece.pcm) * 1000 / (2 * RATE)
                    spoken.ms = received_ms if piece.last else max(spoken.ms, received_ms)
                    for start in range(0, len(piece.pcm), _CHUNK_BYTES):
                        await self._send_chunk(item, spoken, piece.pcm[start : start + _CHUNK_BYTES])

    def _begin_sentence(self, item: Item, sentence: str) -> Spoken:
        spoken = Spoken(sentence, float(_CHARACTER_MS * len(sentence)))
        item.spoken.append(spoken)
        delta = f" {sentence}" if item.text else sentence
        item.text = f"{item.text}{delta}"
        self._emit("response.output_audio_transcript.delta", **self._at(item), delta=delta)
        self._began = self._began or asyncio.get_running_loop().time()
        return spoken

    def _send_audio(self, item: Item, audio: bytes) -> None:
        if audio:
            self._emit(
                "response.output_audio.delta", **self._at(item), delta=base64.b64encode(audio).decode()
            )

    async def _send_chunk(self, item: Item, spoken: Spoken, chunk: bytes) -> None:
        limit = self._response.max_tokens
        if limit != "inf" and sum(self._response.output_tokens()) >= limit:
            raise CutShort("max_output_tokens")
        spoken.sent_ms += len(chunk) * 1000 / (2 * RATE)
        self._sent_ms += len(chunk) * 1000 / (2 * RATE)
        self.first_audio = self.first_audio or asyncio.get_running_loop().time()
        self._send_audio(item, self._outgoing.audio(chunk))
        await self._room()
        due = self._began + max(0.0, self._sent_ms - _HEAD_START_MS) / 1000 / _FASTER
        await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))

    def _write(self, text: str) -> None:
        item = self._response.open_item or self._open_message("output_text")
        delta = f" {text}" if item.text else text
        item.text = f"{item.text}{delta}"
        self._emit("response.output_text.delta", **self._at(item), delta=delta)

    def _open_message(self, content: Literal["output_audio", "output_text"]) -> Item:
        item = Item(self._new_id("item"), "message", status="in_progress", role="assistant")
        item.content = content
        self._open(item)
        self._response.open_part = True
        self._emit("response.content_part.added", **self._at(item), part=_part(item, ""))
        return item

    # --------------------------------------------------------------------------------------- a call

    def _call(self, call: Call | WrittenCall) -> None:
        item = Item(self._new_id("item"), "function_call", status="in_progress")
        item.call_id, item.name = self._new_id("call"), call.name
        self._open(item)
        written = call.arguments
        item.arguments = written if isinstance(written, str) else orjson.dumps(written).decode()
        where = {key: value for key, value in self._at(item).items() if key != "content_index"}
        self._emit(
            "response.function_call_arguments.delta", **where, call_id=item.call_id, delta=item.arguments
        )
        self._emit(
            "response.function_call_arguments.done",
            **where,
            call_id=item.call_id,
            name=item.name,
            arguments=item.arguments,
        )
        self.close_open("completed")

    # ------------------------------------------------------------------------------------ every item

    def _open(self, item: Item) -> None:
        response = self._response
        response.items.append(item)
        response.open_item = item
        self._emit(
            "response.output_item.added",
            response_id=response.id,
            output_index=len(response.items) - 1,
            item=item.json(),
        )
        if response.in_conversation:
            self._before = self._remember(item)
            self._emit("conversation.item.added", previous_item_id=self._before, item=item.json())

    def close_open(self, status: Literal["completed", "incomplete"]) -> None:
        """Close the item that is being streamed, if any; also when the response is cut off."""
        response = self._response
        item = response.open_item
        if item is None:
            return
        response.open_item = None
        item.status = status
        if response.open_part:
            response.open_part = False
            self._close_part(item)
        self._emit(
            "response.output_item.done",
            response_id=response.id,
            output_index=len(response.items) - 1,
            item=item.json(),
        )
        if response.in_conversation:
            self._emit("conversation.item.done", previous_item_id=self._before, item=item.json())

    def _close_part(self, item: Item) -> None:
        said = item.heard()
        if item.content == "output_audio":
            self._emit("response.output_audio.done", **self._at(item))
            self._emit("response.output_audio_transcript.done", **self._at(item), transcript=said)
        else:
            self._emit("response.output_text.done", **self._at(item), text=said)
        self._emit("response.content_part.done", **self._at(item), part=_part(item, said))

    def _at(self, item: Item) -> dict[str, Any]:
        return {
            "response_id": self._response.id,
            "item_id": item.id,
            "output_index": len(self._response.items) - 1,
            "content_index": 0,
        }


def _part(item: Item, said: str) -> dict[str, str]:
    if item.content == "output_audio":
        return {"type": "audio", "transcript": said}
    return {"type": "text", "text": said}
