"""A conversation in the OpenAI Live protocol, without a connection: messages ↔ events.

Messages of the server go in through :meth:`Conversation.receive`, intents through methods of the same names
as in :class:`providers.base.Session`; what is to be sent and what happened come out through two callables.

What this protocol leaves to us
-------------------------------
* The model hears and speaks at once, in one stream that never stops. What it says has no names, no beginning
  and no end there: an utterance is what :mod:`audio.utterances` finds in the stream, and is a response of one
  item. A transcript has times of the session, which is the stream's time.
* Nobody can stop it but the caller. A reply that was interrupted, or that nobody wanted, is kept from the leg
  until it pauses, and the model is told what was not heard.
* What it is asked to say is accepted on its timeline; the next utterance is taken for it. Whether the words
  were the right ones the transcript tells. One thing is asked for at a time.
* When a caller's turn is over our VAD says, for our own sake: the model decides by itself when to speak.
* It has no tools: it delegates to a model beside it, which has. Calls are run once that model's response is
  complete, and it goes on when all of them are answered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import orjson
import structlog

from audio.utterances import LEAD_MS, LOUD_WINDOWS, WINDOW_MS, Utterances
from providers import openai_live_messages as wire
from providers.base import (
    AudioDelta,
    AudioDone,
    Capabilities,
    Event,
    Failed,
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
from providers.formats import AudioFormat, UnknownFormat
from providers.usage import text_reply
from visits.wording import long_enough, said_as_asked

log = structlog.stdlib.get_logger(__name__)

EPOCH: Final = 1
"""There is one connection to a session."""
QUIET_MS: Final = 360
"""So much quiet ends an utterance: more than a comma, less than it takes a caller to answer."""
EXACT_QUIET_MS: Final = 900
"""The same for a sentence that was asked for word for word: it may be two of them."""
SAID_QUIET_MS: Final = 240
"""The same once all its words came, and sound enough for them: whoever answers at once, answers after it."""
MUTED_QUIET_MS: Final = 200
"""The same for one that nobody hears any more: what follows is heard."""
_LATE_MS: Final = 200
"""Speech that waits longer than this to be played is late: the model takes it for heard."""
_GAP_S: Final = 1.5
"""A stream of which nothing came for so long broke off."""
STREAM_S: Final = 5.0
"""A stream that stands still for so long, while the caller's goes on, will not go on either."""
_STEADY_MS: Final = 2000
"""So much silence in a stream, and it is known not to stop between utterances."""
_START_S: Final = 5.0
"""So long what was asked for may take to begin; then it won't come."""
_REPLY_S: Final = 4.0
"""So long after a caller's turn, or a tool's outcome, the model is taken to be about to speak."""
_WORK_S: Final = 5.0
"""The same while the delegated model is at work: it may be longer, and nobody is kept waiting for it."""
_FLOOR_S: Final = 10.0
"""So long what is to be said waits for whoever speaks."""
_WORDS_S: Final = 3.0
"""So long after a turn its words are waited for."""
_LAST_WORD_S: Final = 0.7
"""So long after a piece of a transcript another one may come: nothing says which is the last."""
_COMING_MS: Final = 2000
"""So long words may come before their sound."""
_UNHEARD_MS: Final = 400
"""The model is told what was not heard where it was more than this."""

Timer = Literal["turn_end", "words", "floor", "start", "reply", "work", "gap", "stream"]


@dataclass(slots=True)
class _Turn:
    """One turn of the caller's."""

    item: str
    pieces: list[str] = field(default_factory=list)
    words_by: float = 0.0
    """When its words are taken as they are."""


@dataclass(slots=True)
class _Asked:
    """Something that the model is to say. ``accepted``: it is on its timeline."""

    kind: Literal["exact", "about"]
    receipts: tuple[str, ...]
    texts: tuple[str, ...]
    event_id: str = ""
    accepted: bool = False


@dataclass(slots=True)
class _Reply:
    """One utterance of the model's. ``wanted``: the leg hears of it."""

    name: str
    item: str
    asked: _Asked | None
    wanted: bool
    began_ms: int
    text: str = ""
    dropped: bool = False
    heard_ms: int = 0
    """Where it was dropped."""
    loud_until_ms: int = 0

    @property
    def receipt(self) -> str | None:
        return self.asked.receipts[0] if self.asked is not None else None


@dataclass(slots=True)
class _Work:
    """What one delegation is about. ``working``: the delegated model is at it, and not a tool of ours."""

    wanted: bool
    response: str = ""
    """The one that is running; empty: none."""
    staged: list[wire.FunctionCall] = field(default_factory=list)
    """Calls of a response that is not complete."""
    open: set[str] = field(default_factory=set)
    reply: bool = False
    working: bool = True


class Conversation:
    """See the module. ``clock`` is the event loop's time; :attr:`deadline` is in it."""

    def __init__(
        self,
        config: SessionConfig,
        start: Mapping[str, Any],
        asked: AudioFormat,
        emit: Callable[[Event], None],
        send: Callable[[Mapping[str, Any]], None],
        clock: Callable[[], float],
    ) -> None:
        """
        Args:
            start: the first message, see :func:`providers.openai_live_messages.session_start`.
            asked: the format that it asks for.
        """
        self.start = start
        self._backend_model = str(start["session"]["delegation"]["responses"]["model"])
        self.input = asked
        """The format of both sides; exact once :attr:`ready`."""
        self.ready = False
        self.closed = False
        """The server ended the session."""
        self.expires_at: float | None = None
        """The server's Unix time at which the session ends."""
        self.sent_at = 0.0
        """When audio of the caller's was sent last."""
        self.seconds = 0.0
        """Of the session, as the provider bills them."""
        self._config = config
        self._emit = emit
        self._send = send
        self._clock = clock
        self._words = wire.words(config.language)
        self._timers: dict[Timer, float] = {}
        self._count = 0
        self._stream = Utterances(asked.rate, QUIET_MS)
        self._came_at = 0.0
        """When a piece of the stream came last."""
        self._auto_reply = True
        self._doubt = self._doubted = False
        self._turn: _Turn | None = None
        self._unworded: deque[_Turn] = deque()
        self._queue: deque[_Asked] = deque()
        """What is to be asked for: exact words first."""
        self._sent: _Asked | None = None
        self._notes: deque[str] = deque()
        self._running: _Reply | None = None
        self._last: _Reply | None = None
        self._coming = ""
        """Words that came before their sound."""
        self._coming_until_ms = 0
        self._muted: set[str] = set()
        self._works: dict[str, _Work] = {}
        self._calls: dict[str, tuple[str, _Work]] = {}
        self._seen: set[str] = set()

    # -- what is the case ------------------------------------------------------------------------------------

    @property
    def capabilities(self) -> Capabilities:
        """See :class:`providers.base.Session`."""
        return Capabilities(
            input_rate=self.input.rate,
            output_rate=self.input.rate,
            truncation=False,
            exact_speech=False,
            owns_turns=True,
            input_encoding=self.input.encoding,
            output_encoding=self.input.encoding,
            queue_limit_ms=_LATE_MS,
            history=True,
        )

    @property
    def busy(self) -> bool:
        """Whether a reply is running or owed, as far as that can be known of a model that decides itself."""
        running = self._running
        return bool(
            (running is not None and running.wanted and not running.dropped)
            or self._queue
            or self._sent is not None
            or "reply" in self._timers
            or ("work" in self._timers and any(work.working for work in self._works.values()))
        )

    @property
    def deadline(self) -> float | None:
        """When :meth:`elapse` is due."""
        return min(self._timers.values(), default=None)

    def elapse(self) -> None:
        """Do what is due by now.

        Raises:
            SessionOver: the server's stream stands still.
        """
        now = self._clock()
        for timer in [name for name, at in self._timers.items() if at <= now]:
            if self._timers.pop(timer, None) is not None:
                self._due(timer, now)
        self._next()

    def _due(self, timer: Timer, now: float) -> None:
        match timer:
            case "turn_end":
                self._turn_over()
            case "floor":
                self._ask()
            case "start":
                if self._sent is not None:
                    self._refuse(self._sent, "the model did not say it")
            case "gap":
                self._stream.stop()
                if self._running is not None:
                    self._finish(self._running, "nothing more came of it")
            case "words":
                while self._unworded and self._unworded[0].words_by <= now:
                    self._words_are_over(self._unworded.popleft())
                self._wait_for_words()
            case "stream":
                self._look_at_stream(now)
            case "reply" | "work":
                pass  # busy tells the difference

    def _look_at_stream(self, now: float) -> None:
        if now - self._came_at < STREAM_S:
            self._timers["stream"] = self._came_at + STREAM_S
        elif now - self.sent_at < 1.0:
            raise SessionOver("stalled", f"the provider's audio stands still for {STREAM_S:g} s")
        else:
            self._timers["stream"] = now + 1.0  # it may go by the caller's audio, of which nothing comes

    def passes(self, event: Event) -> bool:
        """Whether an event that waited still counts."""
        return not (isinstance(event, AudioDelta) and event.item in self._muted)

    # -- intents ---------------------------------------------------------------------------------------------

    def caller_began(self) -> None:
        """See :class:`providers.base.TakesTurns`."""
        self._timers.pop("turn_end", None)
        if self._turn is None:
            self._timers.pop("reply", None)
            self._turn = _Turn(self._name("turn"))
            self._emit(SpeechStarted(self._turn.item))

    def caller_ended(self, quiet_ms: int) -> None:
        """See :class:`providers.base.TakesTurns`."""
        if self._turn is None:
            return
        left_ms = self._config.turn_detection.silence_duration_ms - quiet_ms
        if left_ms > 0:
            self._timers["turn_end"] = self._clock() + left_ms / 1000
        else:
            self._turn_over()
            self._next()

    def auto_reply(self, on: bool) -> None:
        """See :class:`providers.base.Session`."""
        self._auto_reply = on
        if not on:
            self._timers.pop("reply", None)

    def doubt_turn(self) -> None:
        """See :class:`providers.base.Session`. What the model makes of it is its own matter."""
        self._doubt = True
        self._doubted = False

    def settle_turn(self, reply: bool) -> None:
        """See :class:`providers.base.Session`."""
        self._doubt = False
        if reply and self._doubted and self._running is None:
            self._expect_reply()
        self._doubted = False

    def note(self, text: str) -> None:
        """See :class:`providers.base.Session`."""
        self._notes.append(self._words.note.format(text=text))
        self._tell()

    def speak_about(self, text: str) -> str:
        """See :class:`providers.base.Session`."""
        receipt = self._name("receipt")
        self._queue.append(_Asked("about", (receipt,), (text,)))
        self._next()
        return receipt

    def say_exactly(self, text: str) -> str:
        """See :class:`providers.base.Session`."""
        receipt = self._name("receipt")
        before = sum(asked.kind == "exact" for asked in self._queue)
        self._queue.insert(before, _Asked("exact", (receipt,), (text,)))
        self._next()
        return receipt

    def answer(self, call: ToolCall, result: Mapping[str, Any], speak: Speak = "now") -> None:
        """See :class:`providers.base.Session`."""
        if call.epoch != EPOCH or call.id not in self._calls:
            log.warning("tool_answer_dropped", call=call.id, tool=call.name, epoch=call.epoch)
            return
        name, work = self._calls.pop(call.id)
        work.open.discard(call.id)
        work.reply |= speak != "never"
        self._send(wire.call_output(self._name("output"), call.id, result))
        if speak == "never":
            said = self._words.result.format(tool=name, text=orjson.dumps(dict(result)).decode())
            self._notes.append(self._words.note.format(text=said))
            self._tell()
        if not work.open and not work.reply:
            # Nobody is to speak about it: the delegated model is not asked to go on.
            self._works = {key: one for key, one in self._works.items() if one is not work}
        self._go_on()

    def interrupt(self, heard: Heard | None) -> None:
        """See :class:`providers.base.Session`. It can't be told to stop; it hears for itself."""
        self._timers.pop("reply", None)
        running = self._running
        named = () if heard is None else (heard.item, *heard.dropped)
        if running is not None and running.wanted and not running.dropped:
            exact = running.asked is not None and running.asked.kind == "exact"
            if not exact or heard is None or running.item in named:
                running.dropped = True
                running.heard_ms = heard.ms if heard is not None and heard.item == running.item else 0
                self._muted.add(running.item)
                self._stream.quiet_ms = MUTED_QUIET_MS
        last = self._last
        if last is not None and last.item in named and last.wanted and not last.dropped:
            last.dropped = True
            last.heard_ms = heard.ms if heard is not None and heard.item == last.item else 0
            self._tell_what_was_heard(last)
        self._next()

    # -- the caller's turns ----------------------------------------------------------------------------------

    def _turn_over(self) -> None:
        turn, self._turn = self._turn, None
        self._timers.pop("turn_end", None)
        if turn is None:
            return
        self._emit(SpeechStopped(turn.item))
        turn.words_by = self._clock() + (_LAST_WORD_S if turn.pieces else _WORDS_S)
        self._unworded.append(turn)
        self._wait_for_words()
        if self._doubt:
            self._doubted = True
        elif self._running is None:
            self._expect_reply()

    def _expect_reply(self) -> None:
        if self._auto_reply:
            self._timers["reply"] = self._clock() + _REPLY_S

    def _caller_words(self, said: wire.Said) -> None:
        """A piece of what the caller said: of the oldest turn whose words are not complete."""
        turn = self._unworded[0] if self._unworded else self._turn
        if turn is None:
            if not said.delta.strip():
                return
            turn = _Turn(self._name("turn"))  # late: no word is lost
            self._emit(SpeechStarted(turn.item))
            self._emit(SpeechStopped(turn.item))
            self._unworded.append(turn)
        turn.pieces.append(said.delta)
        turn.words_by = self._clock() + _LAST_WORD_S
        self._emit(Transcript("caller", turn.item, said.delta, final=False))
        self._wait_for_words()

    def _words_are_over(self, turn: _Turn) -> None:
        text = "".join(turn.pieces).strip()
        if text:
            self._emit(Transcript("caller", turn.item, text, final=True))
        else:
            self._emit(TranscriptFailed(turn.item, "no words came"))

    def _wait_for_words(self) -> None:
        if self._unworded:
            self._timers["words"] = self._unworded[0].words_by
        else:
            self._timers.pop("words", None)

    # -- what the model is told and asked for ----------------------------------------------------------------

    def _next(self) -> None:
        """Ask for the next thing, if it is time for it."""
        if not self.ready or self._sent is not None or not self._queue:
            self._timers.pop("floor", None)
            return
        running = self._running
        if self._turn is not None or (running is not None and running.wanted and not running.dropped):
            self._timers.setdefault("floor", self._clock() + _FLOOR_S)
            return
        self._ask()

    def _ask(self) -> None:
        self._timers.pop("floor", None)
        if self._sent is not None or not self._queue:
            return
        asked = self._queue.popleft()
        if asked.kind == "exact":
            exact = wire.exact(asked.texts[0], self._config.language)
            text = self._words.note.format(text=exact)
        else:
            while self._queue:
                more = self._queue.popleft()
                asked.receipts += more.receipts
                asked.texts += more.texts
            text = self._words.about.format(text="\n".join(asked.texts))
        *before, last = wire.pieces(text)
        for piece in before:
            self._send(wire.append("thinking", self._name("note"), piece))
        asked.event_id = self._name("ask")
        self._send(wire.append("commentary", asked.event_id, last))
        self._sent = asked
        self._timers["start"] = self._clock() + _START_S

    def _tell(self) -> None:
        while self.ready and self._notes:
            for piece in wire.pieces(self._notes.popleft()):
                self._send(wire.append("thinking", self._name("note"), piece))

    def _refuse(self, asked: _Asked, why: str) -> None:
        """What was asked for won't come; whoever waits for a receipt learns so."""
        self._sent = None
        self._timers.pop("start", None)
        for receipt in asked.receipts:
            self._emit(ResponseDone("", receipt, "failed", {}, why))
        self._next()

    # -- the server's messages -------------------------------------------------------------------------------

    def receive(self, frame: bytes) -> None:
        """Take one message in.

        Raises:
            SessionOver: it ends the session.
            MalformedMessage: it makes no sense.
        """
        delta = wire.decode_delta(frame)
        if delta is not None:
            self._audio(delta.delta)
            return
        kind, message = wire.decode(frame)
        match message:
            case wire.Started():
                self._started(message)
            case wire.Said() if kind == "session.input_transcript.delta":
                self._caller_words(message)
            case wire.Said():
                self._agent_words(message)
            case wire.Appended():
                if self._sent is not None and message.client_event_id == self._sent.event_id:
                    self._sent.accepted = True
            case wire.ResponseEvent():
                self._response_event(message)
            case wire.UsageUpdated() | wire.Closed():
                self.seconds = max(self.seconds, message.seconds)
                if isinstance(message, wire.Closed):
                    self.closed = True
                    raise SessionOver(*wire.closed_in_words(message))
            case wire.ErrorEvent():
                self._error(message)
            case wire.Delta():
                self._audio(message.delta)  # a type that came late in its message
            case None:
                pass

    def _started(self, message: wire.Started) -> None:
        if self.ready:
            return
        try:
            self.input = wire.confirmed(message)
        except UnknownFormat as unknown:
            raise SessionOver("unsupported_format", str(unknown)) from unknown
        self._stream = Utterances(self.input.rate, QUIET_MS)
        self.expires_at = message.session.expires_at
        self.ready = True
        self._emit(Ready(self.capabilities))
        self._tell()
        self._next()

    def _error(self, message: wire.ErrorEvent) -> None:
        lasting = wire.lasting_error(message, started=self.ready)
        if lasting is not None:
            raise SessionOver(*lasting)
        error = message.error
        self._emit(Failed("request", error.code or "error", error.message or "no reason was given"))
        if self._sent is not None and error.client_event_id == self._sent.event_id:
            self._refuse(self._sent, f"the provider refused to say it: {error.message}")

    # -- the model's stream ----------------------------------------------------------------------------------

    def _audio(self, data: bytes) -> None:
        """A piece of the stream: the hot path."""
        if not self.ready:
            raise MalformedMessage("audio before the session was started")
        if len(data) % self.input.sample_bytes:
            raise MalformedMessage(f"{len(data)} bytes are no whole samples")
        for found in self._stream.feed(self.input.decode(data)):
            if found == "began":
                self._begin()
            elif found == "ended":
                if self._running is not None:
                    self._finish(self._running)
            elif isinstance(found, bytes):
                self._sound(found)
        self._came_at = self._clock()
        if self._stream.speaking:
            self._timers["gap"] = self._came_at + _GAP_S
        elif "stream" not in self._timers and self._stream.at_ms - self._stream.loud_until_ms >= _STEADY_MS:
            self._timers["stream"] = self._came_at + STREAM_S

    def _begin(self) -> None:
        asked = None
        if self._sent is not None and self._sent.accepted:
            asked, self._sent = self._sent, None
            self._timers.pop("start", None)
        exact = asked is not None and asked.kind == "exact"
        self._stream.quiet_ms = EXACT_QUIET_MS if exact else QUIET_MS
        self._timers.pop("reply", None)
        wanted = asked is not None or self._auto_reply
        began_ms = self._stream.at_ms - LEAD_MS - LOUD_WINDOWS * WINDOW_MS
        reply = _Reply(self._name("response"), self._name("item"), asked, wanted, began_ms)
        self._running = reply
        if wanted:
            also = asked.receipts[1:] if asked is not None else ()
            self._emit(ResponseStarted(reply.name, reply.receipt, also=also))
            self._emit(ItemStarted(reply.name, reply.item, reply.receipt))
        text, self._coming = self._coming, ""
        if text:
            self._say(reply, text)

    def _sound(self, pcm: bytes) -> None:
        reply = self._running
        if reply is not None and reply.wanted and not reply.dropped:
            self._emit(AudioDelta(reply.item, pcm))

    def _agent_words(self, said: wire.Said) -> None:
        running, last = self._running, self._last
        before = running.began_ms if running is not None else self._stream.at_ms
        if last is not None and said.start_ms < min(last.loud_until_ms, before):
            self._say(last, said.delta)  # later than its sound
        elif running is not None:
            self._say(running, said.delta)
            self._may_be_all(running, said)
        else:
            if said.start_ms > self._coming_until_ms + _COMING_MS:
                self._coming = ""  # no sound was ever made of it
            self._coming += said.delta
            self._coming_until_ms = said.end_ms

    def _say(self, reply: _Reply, text: str) -> None:
        reply.text += text
        if reply.wanted:
            self._emit(Transcript("agent", reply.item, text, final=False))

    def _may_be_all(self, reply: _Reply, said: wire.Said) -> None:
        """A sentence of which all words have been spoken, and not only written, ends with less quiet."""
        asked = reply.asked
        if asked is None or asked.kind != "exact" or reply.dropped or said.start_ms > self._stream.at_ms:
            return
        exact, spoken_ms = asked.texts[0], self._stream.loud_until_ms - reply.began_ms
        all_of_it = long_enough(exact, spoken_ms) and said_as_asked(exact, reply.text)
        self._stream.quiet_ms = SAID_QUIET_MS if all_of_it else EXACT_QUIET_MS

    def _finish(self, reply: _Reply, why: str = "") -> None:
        """An utterance is over: it paused, or its stream broke off."""
        self._running, self._last = None, reply
        self._timers.pop("gap", None)
        reply.loud_until_ms = self._stream.loud_until_ms
        if reply.wanted:
            status: Literal["completed", "cancelled", "incomplete"] = "completed"
            if reply.dropped:
                status = "cancelled"
            elif why:
                status = "incomplete"
            self._emit(Transcript("agent", reply.item, reply.text.strip(), final=True))
            if status == "completed":
                self._emit(AudioDone(reply.item))
            usage = {"session_seconds": self.seconds}
            self._emit(ResponseDone(reply.name, reply.receipt, status, usage, why))
        if reply.dropped or not reply.wanted:
            self._tell_what_was_heard(reply)
        self._next()

    def _tell_what_was_heard(self, reply: _Reply) -> None:
        """What a caller didn't hear, the model must not take for said."""
        spoken_ms = reply.loud_until_ms - reply.began_ms
        if spoken_ms - reply.heard_ms <= _UNHEARD_MS:
            return
        whole = reply.text.strip()
        said = whole[: len(whole) * reply.heard_ms // spoken_ms].rpartition(" ")[0]
        self._notes.append(self._words.heard.format(text=said) if said else self._words.unheard)
        self._tell()

    # -- tools -----------------------------------------------------------------------------------------------

    def _response_event(self, message: wire.ResponseEvent) -> None:
        event, key = message.event, message.delegation_id or ""
        kind = event.get("type")
        work = self._works.get(key)
        if work is None:
            if kind not in ("response.created", "response.output_item.done"):
                return
            work = self._works[key] = _Work(wanted=self._auto_reply)
        response = _mapping(event, "response")
        match kind:
            case "response.created":
                work.working = True
                self._timers["work"] = self._clock() + _WORK_S
                work.response = str(response.get("id") or self._name("response"))
                work.wanted = self._auto_reply
                work.staged.clear()
                self._emit(ResponseStarted(work.response, None))
            case "response.output_item.done":
                call = wire.function_call(_mapping(event, "item"))
                if call is not None:
                    work.staged.append(call)
                if not work.response:
                    self._run_calls(work)  # late: its response is complete
            case "response.completed":
                self._run_calls(work)
                self._work_done(key, work, "completed", response)
            case "response.failed" | "response.incomplete" | "response.cancelled":
                self._give_up(work)
                status = kind.removeprefix("response.")
                self._emit(Failed("request", "delegation_failed", f"the delegated response is {status}"))
                self._work_done(key, work, status, response)

    def _run_calls(self, work: _Work) -> None:
        """The response is complete: its calls are meant."""
        for call in work.staged:
            if call.call_id in self._seen:
                log.warning("tool_call_repeated", call=call.call_id)
                continue
            self._seen.add(call.call_id)
            if not work.wanted:
                refused = {"status": "refused", "message": self._words.unheard}
                self._send(wire.call_output(self._name("output"), call.call_id, refused))
                continue
            work.open.add(call.call_id)
            self._calls[call.call_id] = (call.name, work)
            self._emit(ToolCall(call.call_id, call.name, call.arguments, EPOCH))
        work.staged.clear()

    def _go_on(self) -> None:
        """Have the delegated model go on. It is one for all delegations: no call of any may be open."""
        owed = [work for work in self._works.values() if work.reply]
        if self._calls or not owed:
            return
        self._send(wire.response_create(self._name("create")))
        for work in owed:
            work.working, work.reply = True, False
        self._timers["work"] = self._clock() + _WORK_S

    def _give_up(self, work: _Work) -> None:
        """Nobody waits for the answers of its calls any more."""
        work.staged.clear()
        for call in sorted(work.open):
            del self._calls[call]
            self._emit(ToolCallCancelled(call))
        work.open.clear()
        work.reply = False
        self._go_on()

    def _work_done(
        self,
        key: str,
        work: _Work,
        status: Literal["completed", "failed", "incomplete", "cancelled"],
        response: Mapping[str, Any],
    ) -> None:
        usage = _mapping(response, "usage")
        self._emit(ResponseDone(work.response, None, status, usage))
        if usage or status != "failed":  # what failed at once is not billed
            self._emit(text_reply("openai", self._backend_model, usage))
        work.working, work.response = False, ""
        if not work.open:
            self._works.pop(key, None)
            if status == "completed" and work.wanted and self._running is None:
                self._expect_reply()

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{kind}_{self._count}"


def _mapping(message: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = message.get(name)
    return value if isinstance(value, dict) else {}


__all__ = ["EPOCH", "EXACT_QUIET_MS", "MUTED_QUIET_MS", "QUIET_MS", "SAID_QUIET_MS", "Conversation"]
