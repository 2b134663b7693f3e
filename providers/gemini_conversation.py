"""A conversation in the Gemini Live protocol, without a connection: messages ↔ events. It outlives them.

Messages of the server go in through :meth:`Conversation.receive`, intents through methods of the same names
as in :class:`providers.base.Session`; what is to be sent and what happened come out through two callables.

What this protocol leaves to us
-------------------------------
* Where a turn begins and ends is told by our VAD (``activityStart``, ``activityEnd``). The end of a turn asks
  for a reply in any case: one that nobody wanted is kept from the leg, and the model is told that it wasn't
  heard. One to a turn in doubt waits here until the doubt is settled.
* ``activityStart`` stops whatever the model says. So it waits, with the audio, while a reply is being written
  that the leg did not interrupt: a protected sentence, or one that is only paused. Replies are written faster
  than they are spoken, and the wait is bounded.
* Text that asks for a reply interrupts as well, so one thing is asked for at a time. A response ends with
  ``turnComplete``, which may come long after its last audio.
* The model can't be made to forget what nobody heard; it is told what was heard instead.
* Responses and items have no names: the next one that begins is the one asked for first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
import structlog

from providers import gemini_messages as wire
from providers.asking import Asked, ToAsk
from providers.base import (
    AudioDelta,
    AudioDone,
    AudioSent,
    Capabilities,
    Event,
    GoingAway,
    Heard,
    ItemStarted,
    Ready,
    ResponseDone,
    ResponseStarted,
    SessionConfig,
    Speak,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
    ToolCallCancelled,
    Transcript,
    TranscriptFailed,
)
from providers.conversing import MalformedMessage, SessionOver
from providers.openai_messages import exact_instructions
from providers.pre_roll import PreRoll
from providers.usage import gemini_reply
from providers.words import words

log = structlog.stdlib.get_logger(__name__)

CAPABILITIES = Capabilities(
    input_rate=wire.INPUT_RATE,
    output_rate=wire.OUTPUT_RATE,
    truncation=False,
    exact_speech=False,
    owns_turns=False,
    resumption=True,
)
BYTES_PER_MS = wire.OUTPUT_RATE * 2 // 1000
_MAX_HELD = 10 * wire.INPUT_RATE * 2
_HOLD_S = 5.0
"""So long a turn may wait for a reply that is being written."""
_CALL_HOLD_S = 2.0
"""So long a turn waits for a tool: some models close the connection (1008) on audio while a call is open."""
_START_S = 5.0
"""So long what was asked for may take to begin; then it won't come."""
_PERHAPS_S = 1.5
"""The same where it may have been given already."""
_OVER_S = 3.0
"""So long an interrupted reply may take to end."""
_FLOOR_S = 10.0
"""A turn in which something waits to be said is over after that: a stuck VAD must not swallow a greeting."""
_WORDS_S = 3.0
"""So long after a turn its words are waited for."""
_LAST_WORD_S = 0.7
"""So long after a piece of a transcript another one may come; few models say which is the last."""
_REPLIED_S = 0.3
"""The same once the reply to it is complete."""
_LETTERS_PER_S = 20
"""Nobody speaks faster for long."""
_MAX_RECORD = 60

_STALL_S = 10.0
"""A reply of which nothing came for so long is given up; once it is written, so long after it was spoken."""

Timer = Literal["turn_end", "hold", "start", "over", "stall", "floor", "words", "tools"]


@dataclass(slots=True)
class _Turn:
    """One turn of the caller's."""

    item: str
    started: bool = False
    """The server knows of it."""
    over: bool = False
    pieces: list[str] = field(default_factory=list)
    words_by: float = 0.0
    """When its words are taken as they are."""


@dataclass(slots=True)
class _Response:
    name: str
    asked: Asked
    item: str = ""
    """Empty: nothing was said yet."""
    received: int = 0
    last: float = 0.0
    """When something of it came."""
    text: str = ""
    generated: bool = False
    cut: bool = False
    """The server stopped it."""
    dropped: bool = False
    """The leg interrupted it: nothing more of it is heard."""
    told: bool = False
    """``AudioDone`` is out."""
    kept: list[Event] = field(default_factory=list)

    @property
    def heard_of(self) -> bool:
        """Whether the leg gets what it says."""
        return self.asked.wanted is True and not self.dropped

    @property
    def receipt(self) -> str | None:
        return self.asked.receipts[0] if self.asked.receipts else None


@dataclass(slots=True)
class _Batch:
    """Calls that were made together: the last answer asks for the reply to all."""

    open: set[str] = field(default_factory=set)
    reply: bool = False


class Conversation:
    """See the module. ``emit`` gets events, ``send`` messages and whether they are audio; both at once.

    ``clock`` gives seconds. Whoever owns this calls :meth:`elapse` once :attr:`deadline` has come.
    """

    def __init__(
        self,
        config: SessionConfig,
        model: str,
        voice: str,
        emit: Callable[[Event], None],
        send: Callable[[bytes, bool], None],
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._model = model
        self._voice = voice
        self._emit = emit
        self._send = send
        self._clock = clock
        self._words = words(config.language)
        self.epoch = 1
        self.ready = False
        """The connection there is takes messages."""
        self._was_ready = False
        self.handle: str | None = None
        """The newest that the server would resume from."""
        self.going_away = False
        self._timers: dict[Timer, float] = {}
        self._count = 0
        self._auto_reply = True
        self._doubt = False
        self._turn: _Turn | None = None
        self._unworded: deque[_Turn] = deque()
        self._pre_roll = PreRoll(wire.INPUT_RATE * 2 // 1000)
        self._held: deque[bytes] = deque()
        self._held_bytes = 0
        self._queue = ToAsk()
        self._notes: list[str] = []
        self._asked: deque[Asked] = deque()
        self._running: _Response | None = None
        self._last: _Response | None = None
        """The one that ended last: its words may still come."""
        self._stray = False
        """The server stopped something that had not begun; its end is still to come."""
        self._doubtful: list[_Response] = []
        self._items: dict[str, _Response] = {}
        self._muted: set[str] = set()
        """Items of which nothing more is to be heard."""
        self._calls: dict[str, tuple[str, _Batch]] = {}
        self._seen: set[str] = set()
        self._idle_owed = False
        self._impatient = False
        self._usage: Mapping[str, Any] = {}
        self._record: deque[tuple[str, str]] = deque(maxlen=_MAX_RECORD)
        self._past: list[tuple[str, str]] = []
        """What the connection that opens is told of the conversation before it."""
        self._recorded = self._resumed_from = 0
        """How much was ever recorded; how much of it the handle covers."""

    # -- what is the case ------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether a reply is running or owed."""
        running = self._running
        return bool(
            (running is not None and running.asked.wanted is not False and not running.dropped)
            or any(asked.wanted is not False for asked in self._asked)
            or self._queue
            or self._calls
            or self._doubtful
        )

    @property
    def quiet(self) -> bool:
        """Whether nothing is under way: a good moment for another connection."""
        return not (self._running or self._asked or self._turn or self._calls or self._unworded)

    @property
    def deadline(self) -> float | None:
        """When :meth:`elapse` is due."""
        return min(self._timers.values(), default=None)

    def elapse(self) -> None:
        """Do what is due by now."""
        now = self._clock()
        for timer in [name for name, at in self._timers.items() if at <= now]:
            if self._timers.pop(timer, None) is not None:
                self._due(timer, now)

    def _due(self, timer: Timer, now: float) -> None:
        match timer:
            case "turn_end" | "floor":
                self._turn_over()
            case "hold":
                self._start_turn()
            case "start":
                self._refuse(self._asked.popleft(), "failed", "the model did not answer")
                self._wait_for_start()
            case "over":
                if self._running is not None:
                    self._finish(self._running)
            case "stall":
                self._stalled(now)
            case "words":
                while self._unworded and self._unworded[0].words_by <= now:
                    self._words_are_over(self._unworded.popleft())
                self._wait_for_words()
            case "tools":
                self._impatient = True
        self._next()

    # -- connections -----------------------------------------------------------------------------------------

    def open(self) -> bytes:
        """The first message of a connection."""
        self._past = [] if self.handle else list(self._record)
        return wire.setup(self._config, self._model, self._voice, self.handle, history=bool(self._past))

    def forget_handle(self) -> None:
        """The server would not resume: the next connection is told the conversation as text."""
        self.handle = None

    def connection_lost(self) -> None:
        """Nothing more comes from this connection. What it had not begun is asked for anew on the next."""
        self.ready = self.going_away = False
        self.epoch += 1
        for timer in ("hold", "start", "tools"):
            self._timers.pop(timer, None)
        for call in self._calls:
            self._emit(ToolCallCancelled(call))
        owed = bool(self._calls) or self._idle_owed
        self._calls.clear()
        self._idle_owed = self._stray = False
        self._seen.clear()
        if self._running is not None:
            self._finish(self._running, "the connection broke")
        owed |= any(asked.wanted is not False and not asked.receipts for asked in self._asked)
        self._queue.again(self._asked)
        self._asked.clear()
        for turn in self._unworded:
            self._emit(TranscriptFailed(turn.item, "the connection broke"))
        self._unworded.clear()
        self._timers.pop("words", None)
        if self._turn is not None and self._turn.started:
            self._emit(TranscriptFailed(self._turn.item, "the connection broke"))
            self._turn = None if self._turn.over else self._new_turn()
        if owed:
            self._queue.about(self._words.lost)

    def _set_up(self) -> None:
        if self.ready:
            return
        self.ready = True
        if self._past:
            self._send(wire.past(self._past), False)
        elif self.handle and (unknown := self._recorded - self._resumed_from):
            self._send(wire.past(list(self._record)[-unknown:], complete=False), False)
        if not self._was_ready:
            self._was_ready = True
            self._emit(Ready(CAPABILITIES))
        self._try_turn()
        self._next()

    # -- intents ---------------------------------------------------------------------------------------------

    def send_audio(self, pcm: bytes) -> None:
        """See :class:`providers.base.Session`. Whole samples. Nothing is sent while nobody speaks."""
        turn = self._turn
        if turn is None:
            self._pre_roll.keep(pcm)
        elif turn.started:
            self._send_sound(pcm)
        else:
            self._hold(pcm)

    def _hold(self, pcm: bytes) -> None:
        self._held.append(pcm)
        self._held_bytes += len(pcm)
        while self._held_bytes > _MAX_HELD:
            self._held_bytes -= len(self._held.popleft())

    def _send_sound(self, pcm: bytes) -> None:
        self._pre_roll.sent(pcm)
        self._send(wire.audio(pcm), True)

    @property
    def audio_sent(self) -> AudioSent:
        """See :class:`providers.base.SparesSilence`."""
        return self._pre_roll.share

    def caller_began(self) -> None:
        """See :class:`providers.base.TakesTurns`."""
        self._timers.pop("turn_end", None)
        if self._turn is not None:
            self._turn.over = False
            return
        self._turn = self._new_turn()
        for pcm in self._pre_roll.take():
            self._hold(pcm)
        self._try_turn()
        self._next()

    def _new_turn(self) -> _Turn:
        self._held.clear()
        self._held_bytes = 0
        turn = _Turn(self._name("turn"))
        self._emit(SpeechStarted(turn.item))
        return turn

    def caller_ended(self, quiet_ms: int) -> None:
        """See :class:`providers.base.TakesTurns`."""
        if self._turn is None or self._turn.over:
            return
        left_ms = self._config.turn_detection.silence_duration_ms - quiet_ms
        if left_ms > 0:
            self._timers["turn_end"] = self._clock() + left_ms / 1000
        else:
            self._turn_over()

    def auto_reply(self, on: bool) -> None:
        """See :class:`providers.base.Session`."""
        self._auto_reply = on
        if not on:
            for asked in self._asked:
                if asked.kind == "turn" and not asked.receipts:
                    asked.wanted = False

    def doubt_turn(self) -> None:
        """See :class:`providers.base.Session`."""
        self._doubt = True

    def settle_turn(self, reply: bool) -> None:
        """See :class:`providers.base.Session`."""
        self._doubt = False
        reply = reply and self._auto_reply
        for asked in self._asked:
            if asked.wanted is None:
                asked.wanted = reply
        for response in self._doubtful:
            response.asked.wanted = reply
            kept, response.kept = response.kept, []
            for event in kept:
                if reply:
                    self._emit(event)
                elif isinstance(event, ToolCall) and event.id in self._calls:
                    self._refuse_call(event.id, self._calls.pop(event.id)[0])
            if not reply and response.item and response is not self._running:
                self._notes.append(self._words.unheard)
        self._doubtful.clear()
        self._next()

    def note(self, text: str) -> None:
        """See :class:`providers.base.Session`."""
        self._notes.append(text)
        self._next()

    def speak_about(self, text: str) -> str:
        """See :class:`providers.base.Session`."""
        receipt = self._name("receipt")
        self._queue.about(text, receipt)
        self._next()
        return receipt

    def say_exactly(self, text: str) -> str:
        """See :class:`providers.base.Session`."""
        receipt = self._name("receipt")
        self._queue.exact(text, receipt)
        self._next()
        return receipt

    def answer(self, call: ToolCall, result: Mapping[str, Any], speak: Speak = "now") -> None:
        """See :class:`providers.base.Session`."""
        if call.epoch != self.epoch or call.id not in self._calls:
            log.warning("tool_answer_dropped", call=call.id, tool=call.name, epoch=call.epoch)
            return
        name, batch = self._calls.pop(call.id)
        batch.open.discard(call.id)
        batch.reply |= speak == "now"
        self._idle_owed |= speak == "idle"
        reply = (batch.reply and not batch.open) or (self._idle_owed and not self._calls)
        if reply and not self._calls:
            self._idle_owed = False
        self._send(wire.tool_response(call.id, name, result, reply=reply), False)
        self._remember("user", self._words.note.format(text=f"{name}: {orjson.dumps(dict(result)).decode()}"))
        if reply:
            self._asked.append(Asked("tool"))
            self._wait_for_start()
        self._call_settled()

    def interrupt(self, heard: Heard | None) -> None:
        """See :class:`providers.base.Session`."""
        running = self._running
        if heard is not None:
            self._muted |= {name for name, one in self._items.items() if one.asked.wanted is True}
            self._tell_what_was_heard(heard)
        if running is not None and running.heard_of:
            running.dropped = True
            if running.item:
                self._muted.add(running.item)
            self._timers["over"] = self._clock() + _OVER_S
        for asked in list(self._asked):
            if asked.kind != "exact" and asked.wanted is True:
                self._asked.remove(asked)
                self._refuse(asked, "cancelled", "")
        self._wait_for_start()
        self._try_turn()
        self._next()

    def passes(self, event: Event) -> bool:
        """Whether an event that was emitted earlier still counts: audio of what was interrupted doesn't."""
        return not (isinstance(event, AudioDelta | AudioDone) and event.item in self._muted)

    # -- the caller's turns ----------------------------------------------------------------------------------

    @property
    def _writing(self) -> bool:
        """A reply is being written that its beginning would stop, and nobody interrupted."""
        running = self._running
        written = running is None or running.generated or running.cut
        if running is not None and not written and running.asked.wanted is not False and not running.dropped:
            return True
        return any(asked.wanted is not False for asked in self._asked)

    def _try_turn(self) -> None:
        """Begin the caller's turn for the server too, if nothing speaks against it."""
        turn = self._turn
        if turn is None or turn.started or not self.ready:
            return
        if self._writing or self._calls:
            at = self._clock() + (_HOLD_S if self._writing else _CALL_HOLD_S)
            self._timers.setdefault("hold", at)
        else:
            self._start_turn()

    def _start_turn(self) -> None:
        self._timers.pop("hold", None)
        turn = self._turn
        if turn is None or turn.started or not self.ready:
            return
        turn.started = True
        # What had not begun is stopped by this, and asked for again after the turn.
        self._queue.again(self._asked)
        self._asked.clear()
        self._wait_for_start()
        self._send(wire.activity(begins=True), False)
        if self._held:
            self._send_sound(b"".join(self._held))
            self._held.clear()
            self._held_bytes = 0
        if turn.over:
            self._end_turn(turn)

    def _turn_over(self) -> None:
        self._timers.pop("turn_end", None)
        if self._turn is not None:
            self._turn.over = True
            if self._turn.started:
                self._end_turn(self._turn)

    def _end_turn(self, turn: _Turn) -> None:
        """The turn is the model's; what was to be spoken about is part of the same reply."""
        self._timers.pop("floor", None)
        wanted = (None if self._doubt else True) if self._auto_reply else False
        asked = Asked("turn", wanted=wanted)
        if wanted:
            abouts = [one for one in self._queue if one.kind == "about"]
            for one in abouts:
                self._queue.remove(one)
                asked.receipts += one.receipts
                asked.texts += one.texts
            self._notes += asked.texts
        self._tell()
        self._send(wire.activity(begins=False), False)
        self._emit(SpeechStopped(turn.item))
        self._turn = None
        self._asked.append(asked)
        self._wait_for_start()
        turn.words_by = self._clock() + (_LAST_WORD_S if turn.pieces else _WORDS_S)
        self._unworded.append(turn)
        self._wait_for_words()

    def _caller_words(self, said: wire.Transcription) -> None:
        """A piece of what the caller said: of the oldest turn whose words are not complete."""
        turn = self._unworded[0] if self._unworded else self._turn
        if turn is None or not (turn.started or self._unworded):
            if not said.text:
                return
            turn = _Turn(self._name("turn"), started=True, over=True)  # late: no word is lost
            self._unworded.append(turn)
        if said.text:
            turn.pieces.append(said.text)
            self._emit(Transcript("caller", turn.item, said.text, final=False))
            turn.words_by = self._clock() + _LAST_WORD_S
        if turn is not self._turn and said.finished:
            self._words_are_over(self._unworded.popleft())
        self._wait_for_words()

    def _words_are_over(self, turn: _Turn) -> None:
        text = "".join(turn.pieces).strip()
        if text:
            self._remember("user", text)
            self._emit(Transcript("caller", turn.item, text, final=True))
        else:
            self._emit(TranscriptFailed(turn.item, "no words came"))

    def _wait_for_words(self) -> None:
        if self._unworded:
            self._timers["words"] = self._unworded[0].words_by
        else:
            self._timers.pop("words", None)

    # -- what we ask for -------------------------------------------------------------------------------------

    def _next(self) -> None:
        """Tell what is to be told, and ask for the next thing, if it is time for it."""
        running = self._running
        if not self.ready or (
            running is not None and running.asked.wanted is not False and not running.dropped
        ):
            return
        if self._asked or self._doubtful:
            return
        if self._turn is not None:
            if self._queue:
                self._timers.setdefault("floor", self._clock() + _FLOOR_S)
            return
        self._tell()
        if not self._queue:
            return
        if self._queue[0].kind == "exact":
            asked = self._queue.popleft()
            text = exact_instructions(asked.texts[0], self._config.language)
            text = self._words.note.format(text=text)
        elif self._calls and not self._impatient:
            self._timers.setdefault("tools", self._clock() + _CALL_HOLD_S)
            return
        else:
            asked = self._queue.together()
            text = self._words.reply.format(text="\n".join(asked.texts))
            self._remember("user", text)
        self._asked.append(asked)
        self._wait_for_start()
        self._send(wire.text(text, reply=True), False)

    def _tell(self) -> None:
        """The notes that wait."""
        for note in self._notes:
            text = self._words.note.format(text=note)
            self._remember("user", text)
            self._send(wire.text(text, reply=False), False)
        self._notes.clear()

    def _wait_for_start(self) -> None:
        self._timers.pop("start", None)
        if self._asked and self._running is None:
            self._timers["start"] = self._clock() + (_PERHAPS_S if self._asked[0].perhaps else _START_S)

    def _refuse(self, asked: Asked, status: Literal["cancelled", "incomplete", "failed"], why: str) -> None:
        """Nothing will come for this; whoever waits for a receipt learns so."""
        for receipt in asked.receipts:
            self._emit(ResponseDone("", receipt, status, {}, why))

    # -- the server's messages -------------------------------------------------------------------------------

    def receive(self, message: wire.ServerMessage) -> None:
        """Take one message in.

        Raises:
            SessionOver: it ends the session.
            MalformedMessage: it makes no sense.
        """
        if message.setup_complete is not None:
            self._set_up()
        if message.usage_metadata is not None:
            self._usage = message.usage_metadata if isinstance(message.usage_metadata, dict) else {}
            self._emit(gemini_reply("gemini", self._model, message.usage_metadata))
        if message.server_content is not None:
            self._content(message.server_content)
        if message.tool_call is not None:
            self._tool_calls(message.tool_call)
        if message.tool_call_cancellation is not None:
            self._cancelled(message.tool_call_cancellation.ids or [])
        if (
            (update := message.session_resumption_update) is not None
            and update.resumable
            and update.new_handle
        ):
            self.handle, self._resumed_from = update.new_handle, self._recorded
        if message.go_away is not None:
            self.going_away = True
            self._emit(GoingAway(wire.seconds(message.go_away.time_left)))

    def _content(self, content: wire.ServerContent) -> None:
        if content.input_transcription is not None:
            self._caller_words(content.input_transcription)
        if content.model_turn is not None:
            for part in content.model_turn.parts or ():
                if part.inline_data is not None and not part.thought:
                    self._audio(part.inline_data)
        if content.output_transcription is not None and content.output_transcription.text:
            self._agent_words(content.output_transcription.text)
        running = self._running
        if content.generation_complete and running is not None:
            running.generated = True
            self._audio_done(running)
            self._try_turn()
        if content.interrupted:
            if running is None:
                self._stray = True
            else:
                running.cut = True
        if content.turn_complete:
            self._turn_complete(content.turn_complete_reason)

    def _audio(self, blob: wire.Blob) -> None:
        """A piece of speech: the hot path."""
        if blob.mime_type != wire.OUTPUT_MIME:
            raise SessionOver(
                "unsupported_format", f"found {blob.mime_type!r}; allowed is {wire.OUTPUT_MIME}"
            )
        if len(blob.data) & 1:
            raise MalformedMessage(f"{len(blob.data)} bytes are no whole samples")
        response = self._speaking()
        response.received += len(blob.data)
        if blob.data and response.item not in self._muted:
            self._out(response, AudioDelta(response.item, blob.data))

    def _agent_words(self, text: str) -> None:
        last = self._last
        if self._running is None and not self._asked and last is not None and last.item:
            last.text += text  # later than its end
            self._out(last, Transcript("agent", last.item, text, final=False))
            return
        response = self._speaking()
        response.text += text
        self._out(response, Transcript("agent", response.item, text, final=False))

    def _respond(self) -> _Response:
        """The response that what came belongs to; a new one, where none is running."""
        running = self._running
        if running is not None and (running.generated or running.cut):
            self._finish(running)  # its end never came
            running = None
        if running is not None:
            running.last = self._clock()
            if self._asked and self._asked[0].kind == "tool":
                self._asked[0].perhaps = True
            return running
        if self._asked:
            asked = self._asked.popleft()
        else:
            # Not asked for by us. While the caller speaks it is what they spoke over.
            over = self._turn is not None and self._turn.started
            asked = Asked("turn", wanted=self._auto_reply and not over)
        response = self._running = _Response(self._name("response"), asked, last=self._clock())
        self._timers["stall"] = response.last + _STALL_S
        self._stray = False
        self._timers.pop("start", None)
        if asked.wanted is None:
            self._doubtful.append(response)
        receipts = asked.receipts
        self._out(response, ResponseStarted(response.name, response.receipt, also=receipts[1:]))
        return response

    def _speaking(self) -> _Response:
        response = self._respond()
        if not response.item:
            response.item = self._name("item")
            self._items[response.item] = response
            self._out(response, ItemStarted(response.name, response.item, response.receipt))
        return response

    def _audio_done(self, response: _Response) -> None:
        if response.item and not response.told:
            response.told = True
            self._out(response, AudioDone(response.item))

    def _turn_complete(self, reason: str | None) -> None:
        if self._unworded and self._unworded[0].pieces:
            turn = self._unworded[0]
            turn.words_by = min(turn.words_by, self._clock() + _REPLIED_S)
            self._wait_for_words()
        if self._running is not None:
            well = reason in (None, "TURN_COMPLETE_REASON_UNSPECIFIED", "NEED_MORE_INPUT")
            self._finish(self._running, "" if well or reason is None else reason)
        elif self._stray:
            self._stray = False
        elif self._asked:
            self._refuse(self._asked.popleft(), "incomplete", reason or "the model said nothing")
            self._wait_for_start()
        self._try_turn()
        self._next()

    def _stalled(self, now: float) -> None:
        running = self._running
        if running is None:
            return
        spoken_s = running.received / BYTES_PER_MS / 1000 if running.generated else 0.0
        until = running.last + spoken_s + _STALL_S
        if now < until:
            self._timers["stall"] = until
        else:
            self._finish(running, "" if running.generated else "nothing more came of it")

    def _finish(self, response: _Response, why: str = "") -> None:
        """A response is over, however it ended."""
        self._running, self._last = None, response
        self._timers.pop("over", None)
        self._timers.pop("stall", None)
        status: Literal["completed", "cancelled", "incomplete"] = "completed"
        if response.dropped:
            status = "cancelled"
        elif why:
            status = "incomplete"
        elif response.cut and not response.generated:
            status, why = "incomplete", "the provider interrupted it"
        if status == "completed":
            self._audio_done(response)
        if response.item:
            self._out(response, Transcript("agent", response.item, response.text, final=True))
            if response.heard_of and response.text:
                self._remember("model", response.text)
        done = ResponseDone(response.name, response.receipt, status, self._usage, why)
        if response.asked.wanted is None:
            response.kept.append(done)
        elif response.asked.wanted:
            self._emit(done)
        elif response.item:
            self._notes.append(self._words.unheard)
        self._usage = {}
        self._wait_for_start()

    def _out(self, response: _Response, event: Event) -> None:
        if response.asked.wanted is None:
            response.kept.append(event)
        elif response.heard_of:
            self._emit(event)

    # -- tools -----------------------------------------------------------------------------------------------

    def _tool_calls(self, message: wire.ServerToolCall) -> None:
        batch = _Batch()
        for call in message.function_calls or ():
            if call.will_continue or call.partial_args:
                log.warning("tool_call_incomplete", call=call.id, tool=call.name)
            elif call.id in self._seen:
                log.warning("tool_call_repeated", call=call.id)
            else:
                self._seen.add(call.id)
                response = self._respond()
                if response.dropped or response.asked.wanted is False:
                    self._refuse_call(call.id, call.name)
                    continue
                batch.open.add(call.id)
                self._calls[call.id] = (call.name, batch)
                arguments = orjson.dumps(call.args or {}).decode()
                self._out(response, ToolCall(call.id, call.name, arguments, self.epoch))

    def _refuse_call(self, call: str, name: str) -> None:
        """It was made in a reply that nobody wants: it is not run, and nothing is said of it."""
        result = {"status": "refused", "message": self._words.refused}
        self._send(wire.tool_response(call, name, result, reply=False), False)

    def _cancelled(self, calls: list[str]) -> None:
        for call in calls:
            if call not in self._calls:
                continue
            self._calls.pop(call)[1].open.discard(call)
            kept = [one for one in self._doubtful if any(_is_call(event, call) for event in one.kept)]
            for response in kept:
                response.kept = [event for event in response.kept if not _is_call(event, call)]
            if not kept:
                self._emit(ToolCallCancelled(call))
        self._call_settled()

    def _call_settled(self) -> None:
        if not self._calls:
            self._timers.pop("tools", None)
            self._impatient = False
        self._try_turn()
        self._next()

    # -- what the next connection is told --------------------------------------------------------------------

    def _remember(self, role: str, text: str) -> None:
        self._record.append((role, text))
        self._recorded += 1

    def _tell_what_was_heard(self, heard: Heard) -> None:
        """A barge-in: what the caller didn't hear of an item, the model must not take for said."""
        response = self._items.get(heard.item)
        if response is None:
            return
        received_ms = response.received // BYTES_PER_MS
        if response.told and heard.ms >= received_ms:
            return
        whole = response.text.strip()
        letters = len(whole) * heard.ms // max(1, received_ms)
        if not response.generated:  # the words run ahead of the sound
            letters = min(letters, heard.ms * _LETTERS_PER_S // 1000)
        said = whole[:letters].rpartition(" ")[0]
        for at in range(len(self._record) - 1, -1, -1):
            if whole and self._record[at] == ("model", response.text):
                self._record[at] = ("model", said or "…")
                break
        else:
            if said:
                self._remember("model", said)
        self._notes.append(self._words.heard.format(text=said) if said else self._words.unheard)

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{kind}_{self._count}"


def _is_call(event: Event, call: str) -> bool:
    return isinstance(event, ToolCall) and event.id == call


__all__ = ["BYTES_PER_MS", "CAPABILITIES", "Conversation"]
