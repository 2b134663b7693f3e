"""A conversation in the ElevenLabs Agents protocol, without a connection: messages ↔ events.

Messages of the server go in through :meth:`Conversation.receive`, intents through methods of the same names
as in :class:`providers.base.Session`; what is to be sent and what happened come out through two callables.

What this protocol leaves to us
-------------------------------
* The agent owns the turns: its VAD says when the caller's is over and when the caller interrupts, and the
  end of a turn asks for a reply in any case. A reply that nobody wants is kept from the leg, and the model is
  told that it wasn't heard. One to a turn in doubt waits here until the doubt is settled.
* That a caller began to speak is nowhere told, only what they said. When it was our VAD says.
* Text that asks for a reply interrupts whatever is said, so one thing is asked for at a time, and when what
  was said before will have been played. The agent reports such an interruption like one by the caller.
* Nothing stops a reply but the caller's voice or such a text: of one that was interrupted here alone, the
  rest is let go as it comes.
* The agent corrects what it remembers of a reply that was interrupted, by what it thinks was played. Where it
  thinks of more than was heard, it is told what was heard.
* Responses and items have no names: the next one that begins is the one asked for first. A response is over
  with ``agent_response_complete``; from an agent that doesn't send that, with the text of the next one, or
  once it would have been played and nothing followed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
import structlog

from providers import elevenlabs_messages as wire
from providers.asking import Asked, ToAsk
from providers.base import (
    AudioDelta,
    AudioDone,
    Capabilities,
    Event,
    Failed,
    Heard,
    Interrupted,
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
from providers.formats import AudioFormat
from providers.openai_messages import exact_instructions
from providers.words import words
from visits.wording import long_enough

log = structlog.stdlib.get_logger(__name__)

EPOCH = 1
"""There is one connection."""
_START_S = 8.0
"""So long a reply may take to begin: a language model and a voice, one after the other."""
_PERHAPS_S = 1.5
"""The same where it may have been given already."""
_GAP_S = 0.8
"""A response that would have been played so long ago, and was not continued, is over."""
_STALL_S = 10.0
"""The same from an agent that says itself when a response is over."""
_WORDS_S = 4.0
"""So long after the caller fell silent their words are waited for."""
_YIELD_S = 1.5
"""So long after the caller fell silent nothing else is asked for, while their words are waited for."""
_FLOOR_S = 10.0
"""Nor for longer than this while they speak: a stuck VAD must not swallow a greeting."""
_TOOLS_S = 2.0
"""So long a reply waits for open calls."""
_CORRECTION_S = 1.0
"""So long after a barge-in the agent may take to correct what it remembers."""
_WORDS_MORE = 2
"""By so many words its memory may exceed what was heard: both are estimates."""
_LETTERS_PER_S = 20
"""Nobody speaks faster for long."""

_BEHIND_S = 0.2
"""So much later than it comes a sound may be played."""

Timer = Literal["start", "stall", "floor", "played", "words", "tools", "heard"]


@dataclass(slots=True)
class _Response:
    name: str
    asked: Asked
    began: float
    last: float
    """When something of it came."""
    unasked: bool = False
    item: str = ""
    """Empty: nothing was said yet."""
    received_ms: float = 0.0
    text: str = ""
    called: bool = False
    """It made calls."""
    owes: bool = False
    """Its calls are answered, and what it says to that has not begun."""
    dropped: bool = False
    """The leg interrupted it: nothing more of it is heard."""
    whole: bool = False
    """All of it came."""
    confirmed: bool = False
    """The server said so."""
    cut: bool = False
    """The server interrupted it."""
    corrected: str | None = None
    """What the agent remembers of it, after an interruption."""
    heard: str | None = None
    """What of its text the caller heard, where that was not all; the agent has not been told."""
    kept: list[Event] = field(default_factory=list)

    @property
    def heard_of(self) -> bool:
        """Whether the leg gets what it says."""
        return self.asked.wanted is True and not self.dropped

    @property
    def receipt(self) -> str | None:
        return self.asked.receipts[0] if self.asked.receipts else None


class Conversation:
    """See the module. ``emit`` gets events, ``send`` messages; both at once.

    ``clock`` gives seconds. Whoever owns this calls :meth:`elapse` once :attr:`deadline` has come.
    """

    def __init__(
        self,
        config: SessionConfig,
        voice: str,
        audio: AudioFormat,
        emit: Callable[[Event], None],
        send: Callable[[bytes], None],
        clock: Callable[[], float],
    ) -> None:
        """
        Args:
            voice: empty: the agent's.
            audio: what the caller's and the model's audio are taken to be until the server says it.
        """
        self._config = config
        self._voice = voice
        self._emit = emit
        self._send = send
        self._clock = clock
        self._words = words(config.language)
        self._marker = self._words.note.partition("{")[0].strip()
        """What our own texts in the caller's place begin with."""
        self.ready = False
        self.input = self.output = audio
        """The formats of the caller's and of the model's audio; once ready, as the server confirmed them."""
        self._timers: dict[Timer, float] = {}
        self._count = 0
        self._auto_reply = True
        self._doubt = False
        self._interrupted_in_doubt = False
        self._turn = ""
        """The item of what the caller says, or has said and we have no words of."""
        self._speaking = False
        """Our VAD hears the caller."""
        self._turn_began = self._fell_silent = 0.0
        self._queue = ToAsk()
        self._asked: deque[Asked] = deque()
        self._running: _Response | None = None
        self._last: _Response | None = None
        """The one that ended last: its words, and its correction, may still come."""
        self._played_until = 0.0
        """When all that came will have been played."""
        self._yields = False
        """A text of ours is on its way, over which the agent may say that it was interrupted."""
        self._hushed = False
        """A reply was stopped before it was heard, for a turn of which no words have come yet."""
        self._doubtful: list[_Response] = []
        self._items: dict[str, _Response] = {}
        self._muted: set[str] = set()
        """Items of which nothing more is to be heard."""
        self._cut_until = -1
        """Audio up to this event was interrupted."""
        self._completes = False
        """The agent says when a response is complete."""
        self._calls: dict[str, str] = {}
        """Open calls: id → tool."""
        self._seen: set[str] = set()
        self._reply_owed = False
        """One of the calls that were answered together wants a reply."""
        self._impatient = False

    # -- what is the case ------------------------------------------------------------------------------------

    @property
    def capabilities(self) -> Capabilities:
        """See :class:`providers.base.Session`."""
        return Capabilities(
            input_rate=self.input.rate,
            output_rate=self.output.rate,
            truncation=False,
            exact_speech=False,
            owns_turns=True,
            input_encoding=self.input.encoding,
            output_encoding=self.output.encoding,
        )

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
            case "start":
                asked = self._asked.popleft()
                self._refuse(asked, "failed", "the model did not answer")
                self._wait_for_start()
            case "stall":
                self._stalled(now)
            case "words":
                self._no_words()
            case "tools":
                self._impatient = True
            case "heard":
                self._tell_what_was_heard()
            case "floor" | "played":
                pass  # :meth:`_next` looks at the clock
        self._next()

    def passes(self, event: Event) -> bool:
        """Whether an event that was emitted earlier still counts: audio of what was interrupted doesn't."""
        return not (isinstance(event, AudioDelta | AudioDone) and event.item in self._muted)

    # -- intents ---------------------------------------------------------------------------------------------

    @property
    def has_first_words(self) -> bool:
        """Exact words wait."""
        return bool(self._queue) and self._queue[0].kind == "exact"

    def open(self) -> bytes:
        """The first message of the connection. Exact words that wait become the agent's first message."""
        first = ""
        if self.has_first_words:
            asked = self._queue.popleft()
            self._asked.append(asked)
            first = asked.texts[0]
        return wire.opening(self._config, self._voice, first)

    def caller_began(self) -> None:
        """See :class:`providers.base.TakesTurns`."""
        if self._speaking:
            return
        self._speaking = True
        self._yields = False
        self._timers.pop("words", None)
        if not self._turn:
            self._new_turn()

    def _new_turn(self) -> None:
        self._turn = self._name("turn")
        self._turn_began = self._clock()
        self._emit(SpeechStarted(self._turn))

    def caller_ended(self, quiet_ms: int) -> None:
        """See :class:`providers.base.TakesTurns`. The agent decides by itself what that means."""
        if not self._speaking:
            return
        self._speaking = False
        self._emit(SpeechStopped(self._turn))
        self._fell_silent = self._clock()
        self._timers["words"] = self._fell_silent + _WORDS_S
        self._next()

    @property
    def _floor_until(self) -> float:
        """So long the floor is the caller's."""
        if not self._turn:
            return 0.0
        until = self._turn_began + _FLOOR_S
        return until if self._speaking else min(until, self._fell_silent + _YIELD_S)

    def auto_reply(self, on: bool) -> None:
        """See :class:`providers.base.Session`."""
        self._auto_reply = on
        if not on:
            for asked in self._asked:
                if asked.kind == "turn":
                    asked.wanted = False

    def doubt_turn(self) -> None:
        """See :class:`providers.base.Session`."""
        self._doubt = True

    def settle_turn(self, reply: bool) -> None:
        """See :class:`providers.base.Session`."""
        self._doubt = False
        if self._interrupted_in_doubt:
            self._interrupted_in_doubt = False
            if reply:
                self._emit(Interrupted())
        reply = reply and self._auto_reply
        for asked in self._asked:
            if asked.wanted is None:
                asked.wanted = reply
        for response in self._doubtful:
            response.asked.wanted = reply
            kept, response.kept = response.kept, []
            if reply:
                self._plays(response.received_ms)
            for event in kept:
                if reply:
                    self._emit(event)
                elif isinstance(event, ToolCall) and self._calls.pop(event.id, None) is not None:
                    self._refuse_call(event.id, response)
            if not reply and response.item and response is not self._running:
                self._send(wire.note(self._words.unheard))
        self._doubtful.clear()
        if not self._calls:
            self._timers.pop("tools", None)
            self._impatient = False
        self._next()

    def note(self, text: str) -> None:
        """See :class:`providers.base.Session`."""
        self._send(wire.note(text))

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

    def interrupt(self, heard: Heard | None) -> None:
        """See :class:`providers.base.Session`. What has not begun is not touched."""
        running = self._running
        self._played_until = 0.0
        if heard is not None:
            self._muted |= {heard.item, *heard.dropped}
            self._heard_of(heard)
        if (
            running is not None
            and running.heard_of
            and running.item
            and (heard is None or running.item in self._muted)
        ):
            running.dropped = True
            self._muted.add(running.item)
            if heard is None:
                self._hushed = True
        self._next()

    def answer(self, call: ToolCall, result: Mapping[str, Any], speak: Speak = "now") -> None:
        """See :class:`providers.base.Session`. The agent replies in any case; ``never``: nobody hears it."""
        if call.epoch != EPOCH or self._calls.pop(call.id, None) is None:
            log.warning("tool_answer_dropped", call=call.id, tool=call.name, epoch=call.epoch)
            return
        self._send(wire.tool_result(call.id, result))
        self._reply_owed |= speak != "never"
        self._call_settled()

    # -- the caller's words ----------------------------------------------------------------------------------

    def _caller_said(self, text: str) -> None:
        """The agent's VAD took a turn for over."""
        text = text.strip()
        if text.startswith(self._marker):
            log.warning("own_text_returned")  # what we said in the caller's place is nothing they said
            return
        if not text:
            return
        turn = self._turn or self._name("turn")
        self._turn = ""
        self._hushed = False
        self._timers.pop("words", None)
        self._timers.pop("floor", None)
        self._emit(Transcript("caller", turn, text, final=True))
        if self._speaking:
            self._new_turn()
        # The reply is to the newest turn: what was asked for before is asked for again.
        self._queue.again(self._asked)
        self._asked.clear()
        if self._running is not None:
            self._running.owes = False
        wanted = (None if self._doubt else True) if self._auto_reply else False
        running = self._running
        early = running is not None and running.unasked and not running.dropped
        self._asked.append(Asked("turn", wanted=wanted, perhaps=early))
        self._wait_for_start()

    def _no_words(self) -> None:
        """The caller fell silent, and the agent heard nothing that it would call a turn."""
        self._emit(TranscriptFailed(self._turn, "no words came"))
        self._turn = ""
        if self._hushed:  # for nothing: the agent thinks that it has answered
            self._hushed = False
            self._queue.about(self._words.again)

    # -- what we ask for -------------------------------------------------------------------------------------

    def _next(self) -> None:
        """Ask for the next thing, if it is time for it."""
        running = self._running
        if not self.ready or not self._queue or self._doubtful:
            return
        if running is not None and running.asked.wanted is not False and not running.dropped:
            return
        if any(asked.wanted is not False for asked in self._asked):
            return
        if self._clock() < (until := self._floor_until):
            self._timers["floor"] = until
            return
        if self._clock() < (until := self._played_until):
            self._timers["played"] = until
            return
        if self._queue[0].kind == "exact":
            asked = self._queue.popleft()
            text = exact_instructions(asked.texts[0], self._config.language)
            text = self._words.note.format(text=text)
        elif self._calls and not self._impatient:
            self._timers.setdefault("tools", self._clock() + _TOOLS_S)
            return
        else:
            asked = self._queue.together()
            text = self._words.reply.format(text="\n".join(asked.texts))
        self._asked.clear()  # replies that nobody wants, and that this interrupts before they began
        self._asked.append(asked)
        self._wait_for_start()
        self._yields = not self._speaking
        self._send(wire.user_message(text))

    def _wait_for_start(self) -> None:
        self._timers.pop("start", None)
        if self.ready and self._asked and (self._running is None or not self._running.heard_of):
            wait_s = _PERHAPS_S if self._asked[0].perhaps else _START_S
            self._timers["start"] = self._clock() + wait_s

    def _refuse(self, asked: Asked, status: Literal["incomplete", "failed"], why: str) -> None:
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
        if message.type == "audio":
            if (audio := message.audio_event) is not None:
                self._audio(audio)
            return
        match message.type:
            case "ping" if message.ping_event is not None:
                self._send(wire.pong(message.ping_event.event_id))
            case "conversation_initiation_metadata":
                self._metadata(message.conversation_initiation_metadata_event)
            case "user_transcript" if message.user_transcription_event is not None:
                self._caller_said(message.user_transcription_event.user_transcript)
            case "agent_response" if message.agent_response_event is not None:
                self._agent_said(message.agent_response_event.agent_response.strip())
            case "agent_response_correction" if message.agent_response_correction_event is not None:
                self._corrected(message.agent_response_correction_event)
            case "agent_response_complete":
                self._complete()
            case "interruption" if message.interruption_event is not None:
                self._interrupted(message.interruption_event.event_id)
            case "client_tool_call" if message.client_tool_call is not None:
                self._tool_call(message.client_tool_call)
            case "agent_tool_response" if message.agent_tool_response is not None:
                self._tool_settled(message.agent_tool_response.tool_call_id)
            case "error":
                raise SessionOver(*wire.told(message))
            case "client_error":
                self._emit(Failed("request", *wire.told(message)))
            case _:
                return
        self._next()

    def _metadata(self, metadata: wire.Metadata | None) -> None:
        if metadata is None or self.ready:
            raise MalformedMessage("the conversation's metadata come once, and whole")
        self.input = wire.format_of(metadata.user_input_audio_format)
        self.output = wire.format_of(metadata.agent_output_audio_format)
        self.ready = True
        self._emit(Ready(self.capabilities))
        self._wait_for_start()

    def _audio(self, audio: wire.Audio) -> None:
        """A piece of speech: the hot path."""
        if audio.event_id <= self._cut_until:
            return
        data = audio.audio_base_64
        if not self.ready or len(data) % self.output.sample_bytes:
            raise MalformedMessage(f"{len(data)} bytes of audio that is not in the confirmed format")
        if not data:
            return
        response = self._saying()
        pcm = self.output.decode(data)
        ms = len(pcm) / self.output.pcm_bytes_per_ms
        response.received_ms += ms
        if response.heard_of:
            self._plays(ms)
        if response.item not in self._muted:
            self._out(response, AudioDelta(response.item, pcm))

    def _plays(self, ms: float) -> None:
        """So much more will be played, behind what is."""
        self._played_until = max(self._played_until, self._clock() + _BEHIND_S) + ms / 1000

    def _agent_said(self, text: str) -> None:
        """The whole text of a response; it comes with the first of its audio, or later."""
        if not text:
            return
        running, last = self._running, self._last
        if running is None and last is not None and last.item and not last.text:
            last.text = text
            self._out(last, Transcript("agent", last.item, text, final=True))
            return
        if running is not None and (running.text or (self._asked and not running.heard_of)):
            self._finish(running)
        response = self._saying()
        response.text = text
        self._out(response, Transcript("agent", response.item, text, final=False))

    def _respond(self) -> _Response:
        """The response that what came belongs to; a new one, where none is running."""
        now = self._clock()
        running = self._running
        if running is not None:
            running.last = now
            running.owes = False
            return running
        unasked = not self._asked
        if self._asked:
            asked = self._asked.popleft()
        else:
            asked = Asked("turn", wanted=(None if self._doubt else True) if self._auto_reply else False)
        response = self._running = _Response(self._name("response"), asked, now, now, unasked)
        self._yields = False
        self._timers.pop("start", None)
        self._timers["stall"] = now + _GAP_S
        if asked.wanted is None:
            self._doubtful.append(response)
        self._out(response, ResponseStarted(response.name, response.receipt, also=asked.receipts[1:]))
        return response

    def _saying(self) -> _Response:
        response = self._respond()
        if not response.item:
            response.item = self._name("item")
            self._items[response.item] = response
            self._out(response, ItemStarted(response.name, response.item, response.receipt))
        return response

    def _complete(self) -> None:
        self._completes = True
        running, last = self._running, self._last
        if running is not None:
            running.confirmed = True
            self._finish(running)
        elif last is not None and not last.confirmed:
            last.confirmed = True  # we thought so before
        elif self._asked:
            self._refuse(self._asked.popleft(), "incomplete", "the model said nothing")
            self._wait_for_start()

    def _interrupted(self, event_id: int) -> None:
        """The agent's VAD heard the caller speak over it, or so it thinks; or a text of ours did."""
        self._cut_until = max(self._cut_until, event_id)
        if self._yields:
            self._yields = False
        elif self._doubt:
            self._interrupted_in_doubt = True
        else:
            self._played_until = 0.0
            self._emit(Interrupted())
        running = self._running
        if running is not None and not (running.called and not running.item):
            running.cut = True
            self._finish(running)

    def _stalled(self, now: float) -> None:
        """Whether a response is over that nobody said is."""
        running = self._running
        if running is None:
            return
        played = max(running.began + running.received_ms / 1000, running.last)
        if not running.received_ms or running.owes or self._calls:
            until = running.last + _START_S
        else:
            until = played + (_STALL_S if self._completes else _GAP_S)
        if now < until or (self._calls and running.called):
            self._timers["stall"] = max(until, now + _GAP_S)
            return
        why = ""
        if running.owes or self._completes:
            why = "nothing more came of it"
        elif running.item and not running.received_ms:
            why = "no sound came of it"
        elif running.item and not long_enough(running.text, running.received_ms):
            why = "not all of its sound came"
        running.owes = False
        self._finish(running, why)

    def _finish(self, response: _Response, why: str = "") -> None:
        """A response is over, however it ended."""
        self._running, self._last = None, response
        self._timers.pop("stall", None)
        status: Literal["completed", "cancelled", "incomplete"] = "completed"
        if response.dropped:
            status = "cancelled"
        elif why:
            status = "incomplete"
        elif response.cut:
            status, why = "incomplete", "the provider interrupted it"
        response.whole = status == "completed"
        if response.item:
            if response.whole:
                self._out(response, AudioDone(response.item))
            self._out(response, Transcript("agent", response.item, response.text, final=True))
        done = ResponseDone(response.name, response.receipt, status, {}, why)
        if response.asked.wanted is None:
            response.kept.append(done)
        elif response.asked.wanted:
            self._emit(done)
        elif response.item:
            self._send(wire.note(self._words.unheard))
        if response.owes:
            self._asked.append(Asked("tool", wanted=response.heard_of))
        self._wait_for_start()

    def _out(self, response: _Response, event: Event) -> None:
        if response.asked.wanted is None:
            response.kept.append(event)
        elif response.heard_of:
            self._emit(event)

    # -- what was heard --------------------------------------------------------------------------------------

    def _heard_of(self, heard: Heard) -> None:
        """A barge-in: what the caller didn't hear of an item, the model must not take for said."""
        response = self._items.get(heard.item)
        if response is None or (response.whole and heard.ms >= int(response.received_ms)):
            return
        whole = response.text
        letters = round(len(whole) * heard.ms / max(1.0, response.received_ms))
        if not response.whole:  # the words run ahead of the sound
            letters = min(letters, heard.ms * _LETTERS_PER_S // 1000)
        response.heard = whole if letters >= len(whole) else whole[:letters].rpartition(" ")[0]
        self._timers["heard"] = self._clock() + (0.0 if response.corrected is not None else _CORRECTION_S)

    def _corrected(self, correction: wire.Correction) -> None:
        original = correction.original_agent_response.strip()
        response = self._last
        if self._running is not None and self._running.text == original:
            response = self._running
        if response is None:
            return
        response.corrected = correction.corrected_agent_response.strip()
        if "heard" in self._timers and response.heard is not None:
            del self._timers["heard"]
            self._tell_what_was_heard()

    def _tell_what_was_heard(self) -> None:
        """Tell the model, unless it knows."""
        for response in self._items.values():
            if response.heard is None:
                continue
            said, response.heard = response.heard, None
            remembered = response.corrected if response.corrected is not None else response.text
            if len(remembered.split()) > len(said.split()) + (_WORDS_MORE if response.corrected else 0):
                text = self._words.heard.format(text=said) if said else self._words.unheard
                self._send(wire.note(text))

    # -- tools -----------------------------------------------------------------------------------------------

    def _tool_call(self, call: wire.ToolCallMade) -> None:
        name = call.tool_name
        if not call.expects_response:
            raise SessionOver(
                "tool_misconfigured", f"the agent's tool {name} waits for no response; have it wait for one"
            )
        if call.tool_call_id in self._seen:
            log.warning("tool_call_repeated", call=call.tool_call_id)
            return
        self._seen.add(call.tool_call_id)
        response = self._respond()
        response.called = True
        if response.dropped or response.asked.wanted is False:
            self._refuse_call(call.tool_call_id, response)
            return
        self._calls[call.tool_call_id] = name
        arguments = orjson.dumps(call.parameters).decode()
        self._out(response, ToolCall(call.tool_call_id, name, arguments, EPOCH))

    def _refuse_call(self, call: str, response: _Response) -> None:
        """It was made in a reply that nobody wants: it is not run, and nothing that follows is heard."""
        self._send(wire.tool_result(call, {"status": "refused", "message": self._words.refused}))
        if response is self._running:
            response.owes = True
        else:
            self._asked.append(Asked("tool", wanted=False))
            self._wait_for_start()

    def _tool_settled(self, call: str) -> None:
        """The agent has a result. Of a call that we did not answer, that means that it waits no longer."""
        if self._calls.pop(call, None) is None:
            return
        kept = [one for one in self._doubtful if any(_is_call(event, call) for event in one.kept)]
        for response in kept:
            response.kept = [event for event in response.kept if not _is_call(event, call)]
        if not kept:
            self._emit(ToolCallCancelled(call))
        self._reply_owed = True
        self._call_settled()

    def _call_settled(self) -> None:
        """Once all calls are answered the agent goes on, in the same response or with another."""
        if self._calls:
            return
        self._timers.pop("tools", None)
        self._impatient = False
        wanted, self._reply_owed = self._reply_owed, False
        running = self._running
        if running is not None and running.called and running.heard_of:
            if wanted:
                running.owes = True
                running.last = self._clock()
                return
            self._finish(running)
        self._asked.append(Asked("tool", wanted=wanted))
        self._wait_for_start()
        self._next()

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{kind}_{self._count}"


def _is_call(event: Event, call: str) -> bool:
    return isinstance(event, ToolCall) and event.id == call


__all__ = ["EPOCH", "Conversation"]
