"""What understands and speaks behind a vendor's simulator: a session with the local model server.

A simulator speaks its vendor's protocol and scripts nothing: it lets its :class:`Brain` hear the caller,
tells it what the client says, asks it for replies, and puts what comes of that into the vendor's words. The
model server's own protocol stays in here.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from websockets.asyncio.client import ClientConnection, connect

from audio.resample import Resampler
from bridge.model_server import ModelServerAddress
from providers.openai_live_messages import words as live_words
from providers.openai_messages import exact_instructions
from providers.words import words

RATE: Final = 24000
"""Samples per second of what a brain says; what it hears is resampled to that."""
SHORTEST_TURN_MS: Final = 100
"""The model server takes no shorter one."""
OPEN_S: Final = 10.0
LANGUAGE: Final = "pt"

_BENIGN: Final = frozenset({"response_cancel_not_active"})
"""A race and nothing else: a reply was over before the cancellation came."""

Message = dict[str, Any]


# -- what a brain tells --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TurnBegan:
    """The caller begins to speak, by the brain's own ears (not where turns are given to it)."""


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """They are through; the words follow."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What the caller said in the oldest turn that had no words yet. Empty: nothing was understood."""

    text: str


@dataclass(frozen=True, slots=True)
class SayBegan:
    """Something is going to be said."""

    item: str


@dataclass(frozen=True, slots=True)
class Sentence:
    """The next words of what is said; their sound follows."""

    item: str
    text: str


@dataclass(frozen=True, slots=True)
class Sound:
    """PCM at :data:`RATE`, some times faster than it is spoken."""

    item: str
    pcm: bytes


@dataclass(frozen=True, slots=True)
class SayEnded:
    """All of it came."""

    item: str
    text: str


@dataclass(frozen=True, slots=True)
class Called:
    """A function is called; ``arguments`` is JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ReplyEnded:
    """A reply is complete. Of one that was cancelled nothing more is told."""


Thought = TurnBegan | TurnEnded | Heard | SayBegan | Sentence | Sound | SayEnded | Called | ReplyEnded


# -- what it is told in the caller's place -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Notice:
    """A notice of ours, as a model reads it.

    Attributes:
        exact: what is to be said word for word; empty: nothing.
        heard: what of the last reply was heard; None: that is not what it is about.
        note: everything else.
    """

    exact: str = ""
    heard: str | None = None
    note: str = ""


_WORDS: Final = words(LANGUAGE)
_LIVE_WORDS: Final = live_words(LANGUAGE)
MARK: Final = _WORDS.note.removesuffix("{text}")
"""What a notice in the caller's place begins with."""
_REPLY: Final = _WORDS.reply.rpartition("{text}")[2]


def _pattern(*texts: str) -> re.Pattern[str]:
    """One of these, with any text in its place."""
    return re.compile("|".join(re.escape(text).replace(r"\{text\}", "(.*)") for text in texts), re.DOTALL)


_HEARD: Final = _pattern(_WORDS.heard, _LIVE_WORDS.heard)
_UNHEARD: Final = (_WORDS.unheard, _LIVE_WORDS.unheard)
_EXACT: Final = _pattern(exact_instructions("{text}", LANGUAGE))


def read_notice(text: str) -> Notice:
    """What a text in the caller's place is about. With or without the mark of a notice."""
    text = text.removeprefix(MARK).removesuffix(_REPLY)
    if (exact := _EXACT.fullmatch(text)) is not None:
        return Notice(exact=exact[1])
    if (heard := _HEARD.fullmatch(text)) is not None:
        return Notice(heard=next(part for part in heard.groups() if part is not None))
    if text in _UNHEARD:
        return Notice(heard="")
    return Notice(note=text)


# -- the brain -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Reply:
    """One that was asked for; ``item`` is what it says now."""

    create: Message
    item: str = ""
    told: set[str] = field(default_factory=set)
    """Items that somebody knows of."""
    cancelled: bool = False


class Mouth:
    """What a brain says at another rate. One item is one stream."""

    def __init__(self, rate: int) -> None:
        self._down = Resampler(RATE, rate, limit=rate != RATE)

    def say(self, pcm: bytes) -> bytes:
        """What can be heard by now, as PCM."""
        return self._down.process(pcm)

    def rest(self) -> bytes:
        """What was held back, at the end of an item."""
        return self._down.flush()


class Brain:
    """One conversation with the model server.

    Its methods return at once. What comes of them is told by plain calls of :attr:`tell`, and :attr:`wake` is
    called behind each.
    """

    def __init__(self) -> None:
        self.tell: Callable[[Thought], None] = _nobody
        self.wake: Callable[[], None] = _nothing
        self.refusals: list[str] = []
        """What the model server refused, and replies that it failed to give: faults of the simulator's."""
        self._outgoing: asyncio.Queue[Message] = asyncio.Queue()
        self._ears: Resampler | None = None
        self._wanted: deque[_Reply] = deque()
        """Not over, the running one first: the model server has only that."""
        self._asked: deque[_Reply] = deque()
        """The model server was asked for them, and has not begun."""
        self._begun: dict[str, _Reply] = {}
        self._passed_ms: dict[str, float] = {}
        """Of each item that is remembered, how much of it was told."""

    async def run(self, server: Awaitable[ModelServerAddress]) -> None:
        """Talk to the model server, once it is there, until cancelled."""
        address = await server
        url = address.base_url.replace("http", "ws", 1) + "/realtime?model=porteiro"
        key = {"Authorization": f"Bearer {address.token}"}
        async with (
            connect(url, additional_headers=key, open_timeout=OPEN_S, max_size=None) as socket,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(self._speak(socket), name="brain speaks")
            async for frame in socket:
                self._receive(json.loads(frame))
                self.wake()
            raise ConnectionError("the model server closed a brain's connection")

    async def _speak(self, socket: ClientConnection) -> None:
        while True:
            await socket.send(json.dumps(await self._outgoing.get()))

    def _send(self, kind: str, **fields: Any) -> None:
        self._outgoing.put_nowait({"type": kind, **fields})

    # -- what a simulator does -------------------------------------------------------------------------------

    def configure(
        self,
        instructions: str,
        tools: Sequence[Mapping[str, Any]],
        *,
        hint: str = "",
        silence_ms: int | None = None,
    ) -> None:
        """Who it is.

        Args:
            tools: as the OpenAI protocol has them.
            hint: words that a caller may say.
            silence_ms: of the caller's, that ends their turn; None: turns are given to it (:meth:`turn`).
        """
        detection = None
        if silence_ms is not None:
            ours = {"create_response": False, "interrupt_response": False}
            detection = {"type": "server_vad", "silence_duration_ms": silence_ms, **ours}
        listening: Message = {"turn_detection": detection, "transcription": {"language": LANGUAGE}}
        if hint:
            listening["transcription"]["prompt"] = hint
        session = {"type": "realtime", "instructions": instructions, "audio": {"input": listening}}
        self._send("session.update", session=session | {"tools": list(tools)})

    def hear(self, pcm: bytes, rate: int) -> None:
        """More of the caller's audio: one stream, silence included."""
        if self._ears is None or self._ears.from_rate != rate:
            self._ears = Resampler(rate, RATE)
        if heard := self._ears.process(pcm):
            self._send("input_audio_buffer.append", audio=base64.b64encode(heard).decode())

    def turn(self, pcm: bytes, rate: int) -> None:
        """A whole turn of the caller's."""
        if len(pcm) // 2 * 1000 < SHORTEST_TURN_MS * rate:
            self.tell(Heard(""))
            return
        up = Resampler(rate, RATE)
        whole = up.process(pcm) + up.flush()
        for at in range(0, len(whole), RATE * 2):  # a second a message
            piece = base64.b64encode(whole[at : at + RATE * 2]).decode()
            self._send("input_audio_buffer.append", audio=piece)
        self._send("input_audio_buffer.commit")

    def note(self, text: str, role: str = "system") -> None:
        """Tell it something, or what was said before, by it (``assistant``) or the caller (``user``)."""
        part = {"type": "output_text" if role == "assistant" else "input_text", "text": text}
        self._send("conversation.item.create", item={"type": "message", "role": role, "content": [part]})

    def take_notice(self, text: str) -> str:
        """Tell it something in the caller's place; what it is asked to say word for word, if anything."""
        notice = read_notice(text)
        if notice.note:
            self.note(notice.note)
        running = self._wanted[0].item if self._wanted else ""
        over = [item for item in self._passed_ms if item != running]
        if notice.heard is not None and over:
            self.forget(over[-1])
            if notice.heard:
                self.note(notice.heard, "assistant")
        return notice.exact

    def reply(self, exact: str = "") -> None:
        """Have it reply, or say exactly this, once what it says now is over."""
        response: Message = {}
        if exact:
            response = {"instructions": exact_instructions(exact, LANGUAGE), "tool_choice": "none"}
        self._wanted.append(_Reply(response))
        if len(self._wanted) == 1:
            self._ask()

    def _ask(self) -> None:
        self._asked.append(self._wanted[0])
        self._send("response.create", response=self._wanted[0].create)

    def cancel(self) -> None:
        """Nothing more of any reply; of the running one it remembers what was told."""
        if not self._wanted:
            return
        running = self._wanted[0]
        self._wanted.clear()
        running.cancelled = True
        self._send("response.cancel")
        if running.item:
            self.heard(running.item, int(self._passed_ms.get(running.item, 0)))

    def heard(self, item: str, ms: int) -> None:
        """Of something that it said so much was heard, and no more."""
        ms = min(ms, int(self._passed_ms.get(item, 0)))
        if ms <= 0:
            self.forget(item)
            return
        self._passed_ms[item] = ms
        self._send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=ms)

    def forget(self, item: str) -> None:
        """Something that it said was not heard at all."""
        if self._passed_ms.pop(item, None) is not None:
            self._send("conversation.item.delete", item_id=item)

    def called(self, call: str, name: str, arguments: str) -> None:
        """A call that it made in another session."""
        item = {"type": "function_call", "call_id": call, "name": name, "arguments": arguments}
        self._send("conversation.item.create", item=item)

    def answer(self, call: str, output: str) -> None:
        """What came of a call; it goes on when it is asked for a reply."""
        item = {"type": "function_call_output", "call_id": call, "output": output}
        self._send("conversation.item.create", item=item)

    # -- what the model server says --------------------------------------------------------------------------

    def _receive(self, event: Message) -> None:
        match event["type"]:
            case "input_audio_buffer.speech_started":
                self.tell(TurnBegan())
            case "input_audio_buffer.speech_stopped":
                self.tell(TurnEnded())
            case "conversation.item.input_audio_transcription.completed":
                self.tell(Heard(event["transcript"]))
            case "conversation.item.input_audio_transcription.failed":
                self.tell(Heard(""))
            case "response.created":
                self._begun[event["response"]["id"]] = self._asked.popleft()
            case "response.done":
                self._over(self._begun.pop(event["response"]["id"]), event["response"])
            case "error":
                error = event["error"]
                if error["code"] not in _BENIGN:
                    self.refusals.append(error["message"])
            case kind if kind.startswith("response."):
                self._reply_event(kind, event, self._begun[event["response_id"]])

    def _reply_event(self, kind: str, event: Message, reply: _Reply) -> None:
        item = event.get("item") or {}
        if reply.cancelled:
            if kind == "response.output_item.done" and item["id"] not in reply.told:
                self._send("conversation.item.delete", item_id=item["id"])
            return
        match kind:
            case "response.output_item.added" if item["type"] == "message":
                reply.item = item["id"]
                reply.told.add(reply.item)
                self._passed_ms[reply.item] = 0.0
                self.tell(SayBegan(reply.item))
            case "response.output_audio_transcript.delta":
                self.tell(Sentence(reply.item, event["delta"]))
            case "response.output_audio.delta":
                pcm = base64.b64decode(event["delta"])
                self._passed_ms[reply.item] += len(pcm) * 1000 / (2 * RATE)
                self.tell(Sound(reply.item, pcm))
            case "response.output_audio_transcript.done":
                self.tell(SayEnded(reply.item, event["transcript"]))
                reply.item = ""
            case "response.output_item.done" if item["type"] == "function_call":
                reply.told.add(item["id"])
                self.tell(Called(item["call_id"], item["name"], item["arguments"]))

    def _over(self, reply: _Reply, response: Message) -> None:
        if response["status"] in ("failed", "incomplete"):
            self.refusals.append(f"a reply is {response['status']}: {response['status_details']}")
        if reply.cancelled:
            return
        self._wanted.popleft()
        self.tell(ReplyEnded())
        if self._wanted:
            self._ask()


class Brains:
    """``async with Brains(address) as brains``: makes brains, and ends them with the block.

    ``address``: of the model server, which may come later.
    """

    def __init__(self, address: asyncio.Future[ModelServerAddress]) -> None:
        self._address = address
        self._group = asyncio.TaskGroup()
        self._running: list[asyncio.Task[None]] = []
        self._brains: list[Brain] = []

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.end()
        await self._group.__aexit__(kind, error, trace)

    async def end(self) -> None:
        """End those that there are."""
        for running in self._running:
            running.cancel()
        if self._running:
            await asyncio.wait(self._running)

    def new(self) -> Brain:
        """One that connects in the background. Needs a running event loop."""
        brain = Brain()
        self._brains.append(brain)
        self._running.append(self._group.create_task(brain.run(self._address), name="brain"))
        return brain

    @property
    def refusals(self) -> list[str]:
        """Of all of them."""
        return [one for brain in self._brains for one in brain.refusals]


def _nobody(thought: Thought) -> None:
    raise AssertionError(f"nobody was told of {thought}")


def _nothing() -> None:
    """Nobody waits."""
