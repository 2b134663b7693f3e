"""One connection's conversation in the OpenAI Realtime protocol, without the connection: messages ↔ events.

Messages of the server go in through :meth:`Conversation.receive`, intents through methods of the same names
as in :class:`providers.base.Session`; what is to be sent and what happened come out through two callables.

Who does what: the server's VAD says where a turn ends, or ours does (:mod:`providers.openai_turns`); the
sequencer here says when a response is asked for and cancelled (``create_response`` and ``interrupt_response``
are off). A server that detects the turns hears all audio all the time: a barge-in needs no clearing of its
input buffer and no pre-roll then.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import structlog

from providers import openai_messages as wire
from providers.base import (
    AudioDelta,
    AudioDone,
    AudioSent,
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
    Transcript,
    TranscriptFailed,
)
from providers.conversing import MalformedMessage, SessionOver
from providers.formats import UnknownFormat
from providers.openai_turns import CallerTurns
from providers.sequencer import Action, Cancel, Create, Dropped, Output, Patience, Sequencer
from providers.usage import itemised, realtime_reply, realtime_transcription

log = structlog.stdlib.get_logger(__name__)

_STATUSES: Mapping[str, Any] = {s: s for s in ("completed", "cancelled", "incomplete", "failed")}

Message = dict[str, Any]


@dataclass(slots=True)
class _Item:
    """An assistant message, and how much of its audio came."""

    response: str
    bytes_per_ms: int
    received: int = 0
    """Bytes of PCM."""
    odd: bytes = b""
    """Half a sample, where a delta ended in the middle of one."""
    done: bool = False
    announced: bool = False
    delivered: bool = False
    """Some of its audio was taken out of the events: it may have been heard."""
    forgotten: bool = False
    """We asked the server to delete it."""

    @property
    def received_ms(self) -> int:
        return self.received // self.bytes_per_ms


@dataclass(slots=True)
class _Response:
    tag: str | None = None
    receipts: tuple[str, ...] = ()
    unheard: list[str] = field(default_factory=list)
    """Items that began after the response was interrupted: nobody will hear them."""

    @property
    def receipt(self) -> str | None:
        return self.receipts[0] if self.receipts else None


class Conversation:
    """See the module. ``emit`` gets events, ``send`` gets messages; both return at once."""

    def __init__(
        self,
        config: SessionConfig,
        dialect: wire.Dialect,
        epoch: int,
        emit: Callable[[Event], None],
        send: Callable[[Message], None],
    ) -> None:
        self._config = config
        self._dialect = dialect
        self._epoch = epoch
        self._emit = emit
        self._send = send
        self._sequencer = Sequencer()
        self._events = 0
        self._receipts = 0
        self._responses: dict[str, _Response] = {}
        self._asked: dict[str, Create] = {}
        self._abandoned: list[str] = []
        """Tags that were asked again under others before the server announced anything: the oldest first."""
        self._items: dict[str, _Item] = {}
        self._interrupted: set[str] = set()
        self._interrupted_tags: set[str] = set()
        self._outputs: dict[str, Message] = {}
        self._metadata_returns = False
        self.ready = False
        self.input = self.output = dialect.audio
        """The formats of the caller's and of the model's audio; once ready, as the server confirmed them."""
        self._turns: CallerTurns | None = None
        """Where our VAD detects them."""
        if config.turn_detection.kind == "local":
            self._turns = CallerTurns(self.input, emit, send, self._event_id)

    # -- intents ---------------------------------------------------------------------------------------------

    def open(self) -> Message:
        """The first message of a connection."""
        return self._dialect.session_update(self._config)

    @property
    def capabilities(self) -> Capabilities:
        """See :class:`providers.base.Session`."""
        return Capabilities(
            input_rate=self.input.rate,
            output_rate=self.output.rate,
            truncation=True,
            exact_speech=self._dialect.exact_speech,
            owns_turns=False,
            input_encoding=self.input.encoding,
            output_encoding=self.output.encoding,
            history=True,
            patience_s=self._dialect.patience_s,
        )

    @property
    def busy(self) -> bool:
        """Whether a reply is running or owed."""
        return self._sequencer.busy

    @property
    def patience(self) -> Patience | None:
        """What is waited for that might never come; see :meth:`give_up`."""
        return self._sequencer.patience

    def give_up(self, patience: Patience) -> None:
        """The time for this wait is over."""
        self._act(self._sequencer.give_up(patience))

    def send_audio(self, pcm: bytes) -> None:
        """The caller's audio in whole samples, where our VAD detects the turns."""
        if self._turns is not None:
            self._turns.hear(pcm)

    @property
    def audio_sent(self) -> AudioSent:
        """See :class:`providers.base.SparesSilence`."""
        return self._turns.sent if self._turns is not None else AudioSent(0.0, 0.0)

    def caller_began(self) -> None:
        """See :class:`providers.base.TakesTurns`."""
        if self._turns is not None and self._turns.begin():
            self._act(self._sequencer.caller_speaks())

    def turn_over(self) -> None:
        """The caller has been quiet for as long as ends a turn."""
        match self._turns.end() if self._turns is not None else None:
            case "ended":
                self._act(self._sequencer.turn_ended())
            case "lost":
                self._act(self._sequencer.turn_lost())

    def cut_turn(self) -> None:
        """The caller's turn lasts too long. It is replied to once they are quiet."""
        if self._turns is not None:
            self._turns.cut()

    def auto_reply(self, on: bool) -> None:
        """See :class:`providers.base.Session`."""
        self._act(self._sequencer.auto_reply(on))

    def doubt_turn(self) -> None:
        """See :class:`providers.base.Session`."""
        self._sequencer.doubt_turn()

    def settle_turn(self, reply: bool) -> None:
        """See :class:`providers.base.Session`."""
        self._act(self._sequencer.settle_turn(reply))

    def note(self, text: str) -> None:
        """See :class:`providers.base.Session`."""
        self._send(wire.system_note(self._event_id("note"), text))

    def speak_about(self, text: str) -> str:
        """See :class:`providers.base.Session`."""
        receipt = self._receipt()
        self.note(text)
        self._act(self._sequencer.speak_about(receipt))
        return receipt

    def say_exactly(self, text: str) -> str:
        """See :class:`providers.base.Session`."""
        receipt = self._receipt()
        self._act(self._sequencer.say_exactly(receipt, text))
        return receipt

    def ask_again(self) -> bool:
        """See :class:`providers.base.AsksAgain`."""
        response = self._sequencer.running
        if response is not None and any(item.response == response for item in self._items.values()):
            return False
        actions = self._sequencer.ask_again()
        if not actions:
            return False
        if response is not None:
            self._responses[response].receipts = ()
        # What is not announced yet is told by its tag or its order, and nobody waits for it.
        self._interrupted_tags.update(self._asked)
        self._abandoned.extend(self._asked)
        self._asked.clear()
        self._act(actions)
        return True

    def answer(self, call: ToolCall, result: Mapping[str, Any], speak: Speak = "now") -> None:
        """See :class:`providers.base.Session`."""
        if call.epoch != self._epoch or not self._sequencer.awaits(call.id):
            log.warning("tool_answer_dropped", call=call.id, tool=call.name, epoch=call.epoch)
            return
        self._outputs[call.id] = wire.call_output(self._event_id("output"), call.id, result)
        self._act(self._sequencer.answer(call.id, speak))

    def interrupt(self, heard: Heard | None) -> None:
        """See :class:`providers.base.Session`. Cancel first, then have the rest forgotten."""
        self._act(self._sequencer.interrupt())
        if heard is None:
            running = self._sequencer.running
            undelivered = [n for n, i in self._items.items() if i.response == running and not i.delivered]
            self._delete(undelivered if running in self._interrupted else ())
            return
        self._truncate(heard)
        # Items play in the order they came in: of those after the one that played, nothing was heard.
        names = list(self._items)
        later = names[names.index(heard.item) + 1 :] if heard.item in self._items else []
        self._delete(dict.fromkeys((*heard.dropped, *later)))

    def passes(self, event: Event) -> bool:
        """Whether an event that was emitted earlier still counts: audio of what was interrupted doesn't.

        To be asked when the event is taken out of the queue, once for each.
        """
        if isinstance(event, AudioDelta | AudioDone):
            item = self._items[event.item]
            if item.forgotten or item.response in self._interrupted:
                return False
            item.delivered = True
        return True

    # -- the server's messages -------------------------------------------------------------------------------

    def receive(self, message: Message) -> None:
        """Take one message in. Types that are not known are passed over.

        Raises:
            SessionOver: it ends the session.
            MalformedMessage: it lacks what its type must have.
        """
        handler = self._HANDLERS.get(message["type"])
        if handler is None:
            return
        try:
            handler(self, message)
        except (KeyError, TypeError, AttributeError, ValueError) as exc:
            raise MalformedMessage(f"{message['type']} that lacks what it must have ({exc!r})") from exc

    def _session_updated(self, message: Message) -> None:
        if self.ready:
            return
        try:
            self.input, self.output = self._dialect.confirmed_formats(message["session"])
        except UnknownFormat as unknown:
            raise SessionOver("unsupported_format", str(unknown)) from unknown
        self.ready = True
        for line in self._config.history:
            for item in self._dialect.past(line):
                self._send(wire.item_create(self._event_id("past"), item))
        self._emit(Ready(self.capabilities))
        if self._turns is not None and self._turns.opened(self.input):
            self._act(self._sequencer.caller_speaks())

    def _speech_started(self, message: Message) -> None:
        self._emit(SpeechStarted(message["item_id"]))
        self._act(self._sequencer.caller_speaks())

    def _speech_stopped(self, message: Message) -> None:
        self._emit(SpeechStopped(message["item_id"]))

    def _committed(self, message: Message) -> None:
        if self._turns is not None:
            self._turns.committed(message["item_id"])  # that it was over is known already
        else:
            self._act(self._sequencer.turn_ended())

    def _turn(self, message: Message) -> str:
        """Which of the caller's turns a message is about."""
        item: str = message["item_id"]
        return self._turns.name(item) if self._turns is not None else item

    def _caller_transcript_delta(self, message: Message) -> None:
        self._emit(Transcript("caller", self._turn(message), message.get("delta") or "", final=False))

    def _caller_transcript(self, message: Message) -> None:
        self._emit(Transcript("caller", self._turn(message), message["transcript"], final=True))
        paid = self._dialect.paid
        if paid is not None and paid.transcription_model:
            usage = message.get("usage")
            self._emit(realtime_transcription(paid.provider, paid.transcription_model, usage))

    def _caller_transcript_failed(self, message: Message) -> None:
        error = message.get("error") or {}
        reason = error.get("message") or error.get("code") or "no reason given"
        self._emit(TranscriptFailed(self._turn(message), reason))

    def _response_created(self, message: Message) -> None:
        response = message["response"]
        name, tag = response["id"], (response.get("metadata") or {}).get("create")
        if name in self._responses:
            return  # told twice
        if tag is not None:
            self._metadata_returns = True
        elif self._metadata_returns:
            tag = ""  # not asked for by us
        elif self._abandoned or self._asked:
            tag = next(iter((*self._abandoned, *self._asked)))  # a server that returns no metadata: by order
        if tag in self._abandoned:
            self._abandoned.remove(tag)
        create = self._asked.pop(tag, None) if tag else None
        state = _Response(tag, create.receipts if create else ())
        self._responses[name] = state
        if tag in self._interrupted_tags:
            self._interrupted.add(name)
        self._emit(ResponseStarted(name, state.receipt, also=state.receipts[1:]))
        self._act(self._sequencer.response_created(name, tag))

    def _item_added(self, message: Message) -> None:
        item = message["item"]
        if item["type"] == "message":
            self._begin(message["response_id"], item["id"])

    def _item_done(self, message: Message) -> None:
        item, response = message["item"], message["response_id"]
        if item["type"] != "function_call" or item.get("status") != "completed":
            return
        call = item["call_id"]
        if self._sequencer.call_made(response, call):
            self._emit(ToolCall(call, item["name"], item["arguments"], self._epoch))
        else:
            log.warning("tool_call_repeated", call=call)

    def _audio_delta(self, message: Message) -> None:
        self.receive_audio(message["response_id"], message["item_id"], b64decode(message["delta"]))

    def receive_audio(self, response: str, name: str, audio: bytes) -> None:
        """A piece of an item's speech, in the confirmed format: the hot path beside :meth:`receive`."""
        item = self._items.get(name) or self._begin(response, name)
        if item.odd:
            audio = item.odd + audio
        whole = len(audio) // self.output.sample_bytes * self.output.sample_bytes
        pcm, item.odd = self.output.decode(audio[:whole]), audio[whole:]
        # What was received bounds a truncation, whether it was let through or not.
        item.received += len(pcm)
        if pcm and response not in self._interrupted and not item.forgotten:
            self._emit(AudioDelta(name, pcm))

    def _audio_done(self, message: Message) -> None:
        response, name = message["response_id"], message["item_id"]
        item = self._items.get(name) or self._begin(response, name)
        item.done = True
        if response not in self._interrupted:
            self._emit(AudioDone(name))

    def _agent_transcript_delta(self, message: Message) -> None:
        if message["response_id"] not in self._interrupted:
            self._emit(Transcript("agent", message["item_id"], message["delta"], final=False))

    def _agent_transcript(self, message: Message) -> None:
        name = message["item_id"]
        item = self._items.get(name)
        # Of an interrupted item the text is all that was written, not what was heard: that the ledger knows.
        if item is not None and item.announced and not item.forgotten:
            self._emit(Transcript("agent", name, message["transcript"], final=True))

    def _response_done(self, message: Message) -> None:
        response = message["response"]
        name = response["id"]
        state = self._responses.pop(name, None) or _Response()
        status = _STATUSES.get(response.get("status"), "failed")
        error = (response.get("status_details") or {}).get("error") or {}
        detail = ""
        if status in ("incomplete", "failed"):
            detail = (response.get("status_details") or {}).get("reason") or ""
            detail = detail or ": ".join(filter(None, (error.get("code"), error.get("message"))))
        usage = response.get("usage") or {}
        self._emit(ResponseDone(name, state.receipt, status, usage, detail))
        paid = self._dialect.paid
        if paid is not None and (usage or status != "failed"):  # what failed at once is not billed
            self._emit(realtime_reply(paid.provider, paid.model, usage))
        self._delete(state.unheard)
        if error.get("code") in wire.SESSION_ERRORS:
            raise SessionOver(error["code"], wire.SESSION_ERRORS[error["code"]])
        self._act(self._sequencer.response_done(name))

    def _billed(self, message: Message) -> None:
        self._emit(itemised(message.get("usage")))

    def _error(self, message: Message) -> None:
        error = message["error"]
        code = error.get("code") or error.get("type") or "error"
        text = error.get("message") or code
        cause = error.get("event_id") or ""
        if error.get("type") == wire.SESSION_ERROR:
            raise SessionOver(code, text)
        if code in wire.SESSION_ERRORS:
            raise SessionOver(code, f"{wire.SESSION_ERRORS[code]}: {text}")
        if not self.ready:
            if "voice" in (error.get("param") or ""):
                raise SessionOver("unsupported_voice", f"the voice is not known there: {text}")
            raise SessionOver(code, f"the provider refused the configuration: {text}")
        # A truncation or deletion that came too late changes only what the model remembers.
        benign = code in wire.BENIGN_ERRORS or cause.startswith(("truncate_", "delete_"))
        self._emit(Failed("benign" if benign else "request", code, text))
        if self._turns is not None:
            self._turns.refused(cause, text)
        if code == "response_cancel_not_active":
            self._act(self._sequencer.cancel_refused())
            return
        busy = code == "conversation_already_has_active_response"
        if busy and not cause and (self._abandoned or self._asked):
            cause = next(iter((*self._abandoned, *self._asked)))
        if cause in self._asked or cause.startswith("create_"):
            self._asked.pop(cause, None)
            if cause in self._abandoned:
                self._abandoned.remove(cause)
            for state in self._responses.values():
                if state.tag == cause:  # taken for ours by its order, and wasn't
                    state.receipts = ()
            self._act(self._sequencer.create_refused(cause, busy), text)

    def _warning(self, message: Message) -> None:
        warning = message["warning"]
        self._emit(Failed("benign", warning.get("code") or "warning", warning["message"]))

    _HANDLERS: ClassVar[Mapping[str, Callable[[Conversation, Message], None]]] = {
        "session.updated": _session_updated,
        wire.BILLED: _billed,
        "input_audio_buffer.speech_started": _speech_started,
        "input_audio_buffer.speech_stopped": _speech_stopped,
        "input_audio_buffer.committed": _committed,
        "conversation.item.input_audio_transcription.delta": _caller_transcript_delta,
        "conversation.item.input_audio_transcription.completed": _caller_transcript,
        "conversation.item.input_audio_transcription.failed": _caller_transcript_failed,
        "response.created": _response_created,
        "response.output_item.added": _item_added,
        "response.output_item.done": _item_done,
        "response.output_audio.delta": _audio_delta,
        "response.output_audio.done": _audio_done,
        "response.output_audio_transcript.delta": _agent_transcript_delta,
        "response.output_audio_transcript.done": _agent_transcript,
        "response.done": _response_done,
        "error": _error,
        # The same by the names that they had before the protocol was released: Azure VoiceLive keeps them.
        "response.audio.delta": _audio_delta,
        "response.audio.done": _audio_done,
        "response.audio_transcript.delta": _agent_transcript_delta,
        "response.audio_transcript.done": _agent_transcript,
        "warning": _warning,
    }

    # -- inside ----------------------------------------------------------------------------------------------

    def _act(self, actions: Iterable[Action], why: str = "") -> None:
        """Carry out what the sequencer decided."""
        for action in actions:
            match action:
                case Create(tag, receipts, exact):
                    self._asked[tag] = action
                    receipt = receipts[0] if receipts else None
                    self._send(self._dialect.response_create(tag, receipt, exact, self._config.language))
                case Cancel(response):
                    if response is None:
                        self._interrupted_tags.update(self._asked)
                    else:
                        self._interrupted.add(response)
                    self._send(wire.response_cancel(self._event_id("cancel"), response))
                case Output(call):
                    self._send(self._outputs.pop(call))
                case Dropped(create, cancelled):
                    # Whoever waits for the receipt learns that nothing will come.
                    for receipt in create.receipts:
                        status = _STATUSES["cancelled" if cancelled else "failed"]
                        self._emit(ResponseDone("", receipt, status, {}, why))

    def _begin(self, response: str, name: str) -> _Item:
        """An assistant's item begins; one of an interrupted response is for nobody."""
        item = self._items.get(name)
        if item is None:
            item = self._items[name] = _Item(response, self.output.pcm_bytes_per_ms)
            state = self._responses.get(response) or _Response()
            if response in self._interrupted:
                state.unheard.append(name)
            else:
                item.announced = True
                self._emit(ItemStarted(response, name, state.receipt))
        return item

    def _truncate(self, heard: Heard) -> None:
        item = self._items.get(heard.item)
        if item is None or item.forgotten:
            return
        ms = max(0, min(heard.ms, item.received_ms))
        if ms == 0:
            self._delete((heard.item,))
        elif not (item.done and ms == item.received_ms):  # all of it was heard: nothing to forget
            self._send(wire.item_truncate(self._event_id("truncate"), heard.item, ms))

    def _delete(self, names: Iterable[str]) -> None:
        """Have the model forget items of which nothing was heard; each once."""
        for name in names:
            item = self._items.get(name)
            if item is not None and not item.forgotten:
                item.forgotten = True
                self._send(wire.item_delete(self._event_id("delete"), name))

    def _event_id(self, kind: str) -> str:
        self._events += 1
        return f"{kind}_{self._events}"

    def _receipt(self) -> str:
        self._receipts += 1
        return f"receipt_{self._epoch}_{self._receipts}"
