"""One connection's conversation: the protocol's state, from client events to server events.

It knows no socket: :meth:`RealtimeSession.handle` takes a client's message, ``send`` is given the server's
events in order. All of it runs on the event loop; recognition and speech have their threads.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import asdict, dataclass
from functools import singledispatchmethod
from typing import Any, Final, Protocol

import structlog

from audio.vad import VadModel
from providers.base import Usage
from providers.formats import PCM24, format_of
from providers.local import protocol
from providers.local.coding import Incoming
from providers.local.conversation import Conversation, Item, item_from, text_tokens
from providers.local.dialogue.base import Began, CutShort, Entry, NewDialogue, Used
from providers.local.listening import DEFAULT_LANGUAGE, Expected, Hears, Words
from providers.local.protocol import (
    FunctionTool,
    ItemReference,
    RequestError,
    ResponseParams,
    ServerVad,
    SessionSettings,
)
from providers.local.recognition import Recognised, RecognitionError
from providers.local.response import Response, ResponseStream
from providers.local.speech import Speaks, SpeechError
from providers.local.stage import StageError
from providers.local.turns import RATE, BufferFull, InputBuffer, Paused, Resumed, Started, Stopped, Vad
from providers.openai_messages import BILLED, SESSION_ERROR

_MIN_COMMIT_MS: Final = 100
_MAX_OUT_OF_BAND: Final = 4
_MAX_ITEMS: Final = 2000
VOICES: Final = ("default",)
"""What ``audio.output.voice`` may be; which voice that is the server's settings say."""


class UnusableInstructions(Exception):
    """The dialogue engine can't answer with the instructions and tools that it was given."""


class Closes(Protocol):
    """Holds connections."""

    async def close(self) -> None:
        """Let them go."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What all sessions share."""

    recogniser: Hears
    speaker: Speaks
    vad: VadModel
    new_dialogue: NewDialogue
    owned: tuple[Closes, ...] = ()
    """What is to be closed when no session comes any more."""


@dataclass(slots=True)
class _Times:
    """When a turn and the reply to it came to each stage, by the loop's clock; 0: not yet, or not at all."""

    turn_ended: float = 0.0
    words: float = 0.0
    asked: float = 0.0
    first_token: float = 0.0
    first_sentence: float = 0.0
    first_audio: float = 0.0

    def shown(self) -> dict[str, int]:
        """Milliseconds for the log, from the turn's end, or where nobody had spoken from the question."""
        began = self.turn_ended or self.asked
        stages = ("words", "first_token", "first_sentence", "first_audio")
        return {f"{name}_ms": round(1000 * (at - began)) for name in stages if (at := getattr(self, name))}


class RealtimeSession:
    """The state of one connection. Not safe from more than one event loop."""

    def __init__(
        self,
        parts: Parts,
        model: str,
        send: Callable[[dict[str, Any]], None],
        room: Callable[[], Awaitable[None]],
        tasks: asyncio.TaskGroup,
    ) -> None:
        """
        Args:
            model: the name that the client asked for.
            send: takes the next server event; it must not block.
            room: waits until the client has read enough of what was sent.
            tasks: owns what runs for this connection.
        """
        self.id = _new_id("sess")
        self._log = structlog.get_logger(room="model_server").bind(session=self.id)
        self._parts = parts
        self._send = send
        self._room = room
        self._tasks = tasks
        self._settings = SessionSettings(type="realtime", model=model)
        self._conversation = Conversation(_new_id("conv"))
        self._input = InputBuffer(parts.vad, _vad(self._settings.audio.input.turn_detection))
        self._incoming = Incoming(PCM24)
        self._turn_item = ""
        """The id that the turn which has begun will have."""
        self._recognising: dict[str, asyncio.Task[None]] = {}
        self._listener = parts.recogniser.listener(tasks, self._give_up, self._billed)
        self._turn_times: _Times | None = None
        """Of the caller's last turn, until a reply is asked for."""
        self._given_up = False
        self._running: dict[str, tuple[Response, ResponseStream, asyncio.Task[None]]] = {}
        self._active: str | None = None
        """The running response of the default conversation."""
        self._spoke = False
        self._idle: asyncio.TimerHandle | None = None
        self._idle_from_ms = 0
        self._dialogue = parts.new_dialogue(self._billed)
        self._told: tuple[str, list[dict[str, Any]]] = ("", [])
        """What the dialogue was configured with; as it begins: nothing."""

    def start(self) -> None:
        """Greet the client with ``session.created``."""
        self._emit("session.created", session=self._shown())

    def close(self) -> None:
        """Let go of the timer and the listener; the tasks end with their group."""
        self._disarm_idle()
        self._listener.close()

    # -------------------------------------------------------------------------------------------- events in

    def handle(self, message: str | bytes) -> None:
        """Take one message of the client. What is wrong with it is answered, never raised."""
        event_id: str | None = None
        try:
            if isinstance(message, bytes):
                raise RequestError("Binary frames are not supported; send JSON text.", code="invalid_event")
            event = protocol.parse(message)
            event_id = event.event_id
            self._on(event)
        except RequestError as error:
            self._error(error, error.event_id or event_id)

    @singledispatchmethod
    def _on(self, event: object) -> None:
        raise TypeError(f"no handler for {type(event).__name__}")

    @_on.register
    def _(self, event: protocol.SessionUpdate) -> None:
        settings = protocol.updated(self._settings, event.session)
        voice = settings.audio.output.voice
        if voice not in VOICES:
            raise RequestError(
                f"Invalid value: '{voice}'. Supported values are: {', '.join(VOICES)}.",
                param="session.audio.output.voice",
            )
        if self._running and settings.audio.output.speed != self._settings.audio.output.speed:
            raise RequestError(
                "The speed can't be changed while a response is in progress.",
                param="session.audio.output.speed",
            )
        if self._running and settings.audio.output.format != self._settings.audio.output.format:
            raise RequestError(
                "The audio format can't be changed while a response is in progress.",
                param="session.audio.output.format",
            )
        self._configure_dialogue(settings)
        if settings.audio.input.format != self._settings.audio.input.format:
            self._incoming = Incoming(format_of(settings.audio.input.format.model_dump()))
        self._settings = settings
        self._input.configure(_vad(settings.audio.input.turn_detection))
        self._listener.configure(_expected(settings.audio.input.transcription))
        self._emit("session.updated", session=self._shown())

    @_on.register
    def _(self, event: protocol.BufferAppend) -> None:
        try:
            found = self._input.append(self._incoming.pcm(event.data()))
        except BufferFull as error:
            raise RequestError(f"The input audio buffer is full: {error}.", code="buffer_full") from error
        for one in found:
            match one:
                case Started():
                    self._speech_started(one)
                case Paused(pcm):
                    self._listener.paused(pcm)
                case Resumed():
                    self._listener.resumed()
                case Stopped():
                    self._speech_stopped(one)
        if self._input.speaking:
            self._listener.more(self._input.fresh())

    @_on.register
    def _(self, event: protocol.BufferCommit) -> None:
        if (held := self._input.held_ms) < _MIN_COMMIT_MS:
            raise RequestError(
                "Error committing input audio buffer: buffer too small. Expected at least "
                f"{_MIN_COMMIT_MS}ms of audio, but buffer only has {held:.2f}ms of audio.",
                code="input_audio_buffer_commit_empty",
            )
        self._commit(self._turn_item or _new_id("item"), self._input.take())

    @_on.register
    def _(self, event: protocol.BufferClear) -> None:
        self._input.clear()
        self._turn_item = ""
        self._emit("input_audio_buffer.cleared")

    @_on.register
    def _(self, event: protocol.ItemCreate) -> None:
        if len(self._conversation) >= _MAX_ITEMS:
            raise RequestError(
                f"The conversation holds {_MAX_ITEMS} items already.", code="conversation_full"
            )
        item = item_from(event.item, _new_id("item"))
        before = self._conversation.add(item, event.previous_item_id)
        self._announce(item, before)

    @_on.register
    def _(self, event: protocol.ItemRetrieve) -> None:
        self._emit("conversation.item.retrieved", item=self._conversation.find(event.item_id).json())

    @_on.register
    def _(self, event: protocol.ItemDelete) -> None:
        self._conversation.delete(event.item_id)
        self._emit("conversation.item.deleted", item_id=event.item_id)

    @_on.register
    def _(self, event: protocol.ItemTruncate) -> None:
        self._conversation.find(event.item_id).truncate(event.audio_end_ms)
        self._emit(
            "conversation.item.truncated",
            item_id=event.item_id,
            content_index=0,
            audio_end_ms=event.audio_end_ms,
        )

    @_on.register
    def _(self, event: protocol.ResponseCreate) -> None:
        self._create_response(event.response)

    @_on.register
    def _(self, event: protocol.ResponseCancel) -> None:
        wanted = event.response_id or self._active
        if wanted is None or wanted not in self._running:
            raise RequestError(
                "Cancellation failed: no active response found"
                + (f" with id {wanted[:64]!r}" if wanted else ""),
                code="response_cancel_not_active",
            )
        self._cancel(wanted, "client_cancelled")

    # --------------------------------------------------------------------------------- the caller's turns

    def _speech_started(self, event: Started) -> None:
        self._turn_item = _new_id("item")
        self._listener.began()
        self._disarm_idle()
        self._emit("input_audio_buffer.speech_started", audio_start_ms=event.at_ms, item_id=self._turn_item)
        detection = self._settings.audio.input.turn_detection
        if detection is not None and detection.interrupt_response and self._active is not None:
            self._cancel(self._active, "turn_detected")

    def _speech_stopped(self, event: Stopped) -> None:
        item_id = self._turn_item
        self._emit("input_audio_buffer.speech_stopped", audio_end_ms=event.at_ms, item_id=item_id)
        self._commit(item_id, event.pcm)
        self._reply_by_itself()

    def _reply_by_itself(self) -> None:
        detection = self._settings.audio.input.turn_detection
        if detection is None or not detection.create_response:
            return
        try:
            self._create_response(ResponseParams(conversation="auto"))
        except RequestError as error:
            # The protocol's own behaviour where interrupt_response is off and a response is running.
            self._error(error, None)

    def _commit(self, item_id: str, pcm: bytes) -> None:
        self._turn_item = ""
        self._turn_times = times = _Times(turn_ended=asyncio.get_running_loop().time())
        self._disarm_idle()
        item = Item(item_id, "message", role="user", content="input_audio", text=None)
        item.audio_ms = len(pcm) * 1000 / (2 * RATE)
        before = self._conversation.add(item)
        self._emit("input_audio_buffer.committed", previous_item_id=before, item_id=item_id)
        self._announce(item, before)
        task = self._tasks.create_task(
            self._recognise(item, self._listener.ended(pcm), times), name=f"recognise {item_id}"
        )
        self._recognising[item_id] = task
        task.add_done_callback(lambda _: self._recognising.pop(item_id, None))

    async def _recognise(self, item: Item, words: Words, times: _Times) -> None:
        """Fill in the item's words and report them, where the session asks for that."""
        wanted = self._settings.audio.input.transcription
        heard = await words
        if isinstance(heard, RecognitionError | StageError):
            item.text = ""
            self._log.warning("recognition failed", item=item.id, error=str(heard))
            if wanted is not None:
                self._emit(
                    "conversation.item.input_audio_transcription.failed",
                    item_id=item.id,
                    content_index=0,
                    error={
                        "type": "server_error",
                        "code": "recognition_failed",
                        "message": str(heard),
                        "param": None,
                    },
                )
            if isinstance(heard, StageError):
                self._give_up(heard)
            return
        times.words = asyncio.get_running_loop().time()
        item.text = heard.text
        self._log_recognised(item, heard)
        if wanted is not None:
            self._emit(
                "conversation.item.input_audio_transcription.completed",
                item_id=item.id,
                content_index=0,
                transcript=heard.text,
                usage={"type": "duration", "seconds": round(heard.seconds, 3)},
            )

    def _log_recognised(self, item: Item, heard: Recognised) -> None:
        # How long and by which rule, never the words: logs hold no transcripts.
        self._log.info(
            "recognised",
            item=item.id,
            seconds=round(heard.seconds, 2),
            took_s=round(heard.took_s, 3),
            characters=len(heard.text),
            rule=heard.why,
        )

    # -------------------------------------------------------------------------------------- the responses

    def _create_response(self, params: ResponseParams) -> None:
        in_conversation = params.conversation == "auto"
        if in_conversation and self._active is not None:
            raise RequestError(
                f"Conversation already has an active response in progress: {self._active}. "
                "Wait until the response is finished before creating a new one.",
                code="conversation_already_has_active_response",
            )
        if not in_conversation and len(self._running) >= _MAX_OUT_OF_BAND:
            raise RequestError("Too many responses are in progress.", code="too_many_responses")
        context = None if params.input is None else self._given_context(params)
        output = self._settings.audio.output
        asked = params.audio.output.format if params.audio is not None else None
        if asked is not None and asked != output.format:
            raise RequestError(
                f"Invalid value: '{asked.type}'. The session's format is '{output.format.type}'.",
                param="response.audio.output.format",
            )
        self._disarm_idle()
        response = Response(
            _new_id("resp"),
            self._conversation.id if in_conversation else None,
            (params.output_modalities or self._settings.output_modalities)[0],
            params.max_output_tokens or self._settings.max_output_tokens,
            output.voice,
            output.speed,
            format_of(output.format.model_dump()),
            params.metadata,
        )
        stream = ResponseStream(
            response,
            self._parts.speaker,
            self._emit,
            self._room,
            _new_id,
            self._conversation.add,
            self._billed,
        )
        times, self._turn_times = self._turn_times or _Times(), None
        times.asked = asyncio.get_running_loop().time()
        self._emit("response.created", response=response.json())
        task = self._tasks.create_task(
            self._respond(response, stream, params, context, times), name=f"respond {response.id}"
        )
        self._running[response.id] = (response, stream, task)
        if in_conversation:
            self._active = response.id

    def _given_context(self, params: ResponseParams) -> list[Item]:
        """The items of ``response.input``, in place of the conversation's."""
        return [
            self._conversation.find(new.id)
            if isinstance(new, ItemReference)
            else item_from(new, _new_id("item"))
            for new in params.input or []
        ]

    async def _respond(
        self,
        response: Response,
        stream: ResponseStream,
        params: ResponseParams,
        context: list[Item] | None,
        times: _Times,
    ) -> None:
        await self._words_are_known()
        items = list(self._conversation) if context is None else context
        history = [entry for item in items if (entry := item.entry()) is not None]
        response.input_tokens = self._context_tokens(items, params)
        try:
            await self._say_reply(response, stream, history, params, times)
        except CutShort as cut:
            stream.close_open("incomplete")
            self._finish(response, "incomplete", {"type": "incomplete", "reason": cut.reason}, times)
        except SpeechError as error:
            self._fail(response, stream, "speech_failed", str(error))
        except UnusableInstructions as error:
            self._fail(response, stream, "unusable_instructions", str(error))
        except StageError as error:
            self._fail(response, stream, error.code, str(error))
            self._give_up(error)
        else:
            stream.end()
            self._finish(response, "completed", None, times)

    async def _say_reply(
        self,
        response: Response,
        stream: ResponseStream,
        history: list[Entry],
        params: ResponseParams,
        times: _Times,
    ) -> None:
        """Each part of the reply as it comes: what follows is written while this is spoken."""
        choice = params.tool_choice or self._settings.tool_choice
        loop = asyncio.get_running_loop()
        try:
            dialogue = self._dialogue
            if params.tools is not None:
                # For this one response: another one, so that the session's own stays as it is.
                dialogue = self._parts.new_dialogue(self._billed)
                dialogue.configure(self._settings.instructions, _tools(params.tools))
            reply = dialogue.reply(
                history, params.instructions, choice if isinstance(choice, str) else choice.name
            )
            async with aclosing(reply) as parts:
                async for part in parts:
                    times.first_token = times.first_token or loop.time()
                    if isinstance(part, Used):
                        response.used = part
                    elif not isinstance(part, Began):
                        times.first_sentence = times.first_sentence or loop.time()
                        await stream.send(part)
        except ValueError as error:
            raise UnusableInstructions(str(error)) from error

    def _fail(self, response: Response, stream: ResponseStream, code: str, message: str) -> None:
        self._log.error("response failed", response=response.id, code=code)
        stream.close_open("incomplete")
        failure = {"type": "server_error", "code": code, "message": message}
        self._finish(response, "failed", {"type": "failed", "error": failure})

    async def _words_are_known(self) -> None:
        """Wait for the turns that are still being recognised: what they said belongs to the history."""
        while waiting := list(self._recognising.values()):
            await asyncio.wait(waiting)
            # The callbacks that empty the dictionary run after this task is woken.
            await asyncio.sleep(0)

    def _context_tokens(self, items: list[Item], params: ResponseParams) -> tuple[int, int]:
        text = text_tokens(params.instructions or self._settings.instructions)
        audio = 0
        for item in items:
            its_text, its_audio = item.tokens()
            text, audio = text + its_text, audio + its_audio
        return text, audio

    def _cancel(self, response_id: str, reason: str) -> None:
        """Stop a response, now: when this returns, its last event is out."""
        response, stream, task = self._running[response_id]
        task.cancel()
        stream.close_open("incomplete")
        self._finish(response, "cancelled", {"type": "cancelled", "reason": reason})

    def _billed(self, usage: Usage) -> None:
        """Say what somebody else is to be paid for: an event of our own, which other clients pass over."""
        self._emit(BILLED, usage=asdict(usage))

    def _give_up(self, error: StageError) -> None:
        """Say once that nothing more can come of this session; the client hangs up."""
        if self._given_up:
            return
        self._given_up = True
        self._log.error("session given up", code=error.code, reason=str(error))
        problem = {"type": SESSION_ERROR, "code": error.code, "message": str(error)}
        self._emit("error", error={**problem, "param": None, "event_id": None})

    def _finish(
        self, response: Response, status: Any, details: dict[str, Any] | None, times: _Times | None = None
    ) -> None:
        response.status, response.details = status, details
        if times is not None:
            times.first_audio = self._running[response.id][1].first_audio
        response.count()
        self._spoke = self._spoke or any(item.sent_ms for item in response.items)
        del self._running[response.id]
        if self._active == response.id:
            self._active = None
        self._emit("response.done", response=response.json())
        self._log.info(
            "response done", response=response.id, status=status, **(times.shown() if times else {})
        )
        if status == "completed" and response.in_conversation:
            self._arm_idle(sum(item.sent_ms for item in response.items))

    # ---------------------------------------------------------------------------------------- idle callers

    def _arm_idle(self, playing_ms: float) -> None:
        detection = self._settings.audio.input.turn_detection
        if detection is None or detection.idle_timeout_ms is None or self._input.speaking:
            return
        self._disarm_idle()
        wait_s = (playing_ms + detection.idle_timeout_ms) / 1000
        self._idle_from_ms = self._input.written_ms + round(playing_ms)
        self._idle = asyncio.get_running_loop().call_later(wait_s, self._idle_over)

    def _disarm_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _idle_over(self) -> None:
        """Nobody spoke for too long: the silence becomes a turn without words, and is replied to."""
        self._idle = None
        if self._active is not None or self._input.speaking:
            return
        now_ms = self._input.written_ms
        item = Item(_new_id("item"), "message", role="user", content="input_audio", text="")
        item.audio_ms = max(0, now_ms - self._idle_from_ms)
        self._emit(
            "input_audio_buffer.timeout_triggered",
            audio_start_ms=min(self._idle_from_ms, now_ms),
            audio_end_ms=now_ms,
            item_id=item.id,
        )
        before = self._conversation.add(item)
        self._emit("input_audio_buffer.committed", previous_item_id=before, item_id=item.id)
        self._announce(item, before)
        self._create_response(ResponseParams(conversation="auto"))

    # ------------------------------------------------------------------------------------------ events out

    def _announce(self, item: Item, before: str | None) -> None:
        self._emit("conversation.item.added", previous_item_id=before, item=item.json())
        self._emit("conversation.item.done", previous_item_id=before, item=item.json())

    def _emit(self, event_type: str, **fields: Any) -> None:
        self._send({"type": event_type, "event_id": _new_id("event"), **fields})

    def _error(self, error: RequestError, event_id: str | None) -> None:
        self._log.info("request refused", code=error.code, param=error.param)
        self._emit(
            "error",
            error={
                "type": "invalid_request_error",
                "code": error.code,
                "message": str(error),
                "param": error.param,
                "event_id": event_id,
            },
        )

    def _shown(self) -> dict[str, Any]:
        return {"object": "realtime.session", "id": self.id, **self._settings.model_dump()}

    def _configure_dialogue(self, settings: SessionSettings) -> None:
        """Hand new instructions and tools over; :class:`RequestError` where the dialogue refuses them."""
        told = settings.instructions, _tools(settings.tools)
        if told == self._told:
            return
        try:
            self._dialogue.configure(*told)
        except ValueError as error:
            raise RequestError(
                f"The dialogue engine can't work with these: {error}", param="session.instructions"
            ) from error
        self._told = told


def _tools(tools: list[FunctionTool]) -> list[dict[str, Any]]:
    return [tool.model_dump() for tool in tools]


def _expected(wanted: protocol.Transcription | None) -> Expected:
    if wanted is None:
        return Expected()
    prompt = " ".join(part for part in (wanted.prompt or "", ", ".join(wanted.keywords or ())) if part)
    return Expected(wanted.language or DEFAULT_LANGUAGE, prompt)


def _vad(detection: ServerVad | None) -> Vad | None:
    if detection is None:
        return None
    return Vad(detection.threshold, detection.prefix_padding_ms, detection.silence_duration_ms)


def _new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(10)}"
