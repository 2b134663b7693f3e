"""Joins one endpoint to one session: audio up, audio down, barge-in, and what was really heard.

Two things drive a leg: its endpoint (`audio_in`, `key_pressed`, `endpoint_closed`) and the clock (`tick`),
both synchronous, neither ever waiting; and the session's events, of which `run` has it told. What matters to
the visit is posted to the host as events of `visits/events.py`; the leg decides nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal
from uuid import UUID

import structlog

from audio.frames import TELEPHONE_RATE, bytes_of
from audio.hearing import Ear
from audio.hold import HoldSound
from audio.line import Line
from audio.playout import Flushed, Playout
from audio.resample import Resampler
from audio.utterances import without_pauses
from audio.vad import SpeechOffset, SpeechOnset
from bridge.clock import FRAME_S, Clock
from bridge.costs.account import Account
from bridge.endpoints.base import Endpoint, EndpointClosed, PlaysLater, TakesBack
from bridge.masking import masked
from bridge.overlap import Overlap, Verdict
from bridge.tape import Tape, TapeHead
from providers.base import (
    AudioDelta,
    AudioDone,
    AudioSent,
    BilledByTime,
    Event,
    Failed,
    Heard,
    Interrupted,
    ItemStarted,
    Lost,
    Ready,
    Replaced,
    ResponseDone,
    Session,
    SparesSilence,
    SpeechStarted,
    SpeechStopped,
    TakesTurns,
    ToolCall,
    Transcript,
    TranscriptFailed,
    Usage,
)
from visits import events as visit_events
from visits.backchannel import is_backchannel
from visits.events import Role
from visits.wording import long_enough, said_as_asked

STRAINED_BYTES = bytes_of(60, TELEPHONE_RATE)
"""A message holds at least so much of the caller's audio while the clock is strained."""
FLOOR_FRAMES = 15
"""For how many frames it must have been the caller's turn before that is said: 300 ms."""
VOICE_FRAMES = 20
"""For so many frames after it our voice may still be heard, on its way there or back: 400 ms."""
STALL_S = 45.0
"""A session that owes a reply and gives neither sound nor sign for so long is lost: longer than it takes
itself to find another model, or to say that there is none (`providers/failover.py`)."""
CORROBORATION_S = 1.0
"""How much earlier than the provider's word the local VAD may have heard a turn begin."""
SHOW_S = 0.25
"""So often, at most, those who watch are told what somebody has said so far of a turn."""
SHOWN_LETTERS = 1000
"""The last ones of it."""
ECHOES = 60
"""Frames: 1.2 s, more than any endpoint has them heard later."""
TURNS_KNOWN = 256
"""Turns of which it is remembered when they were said."""


@dataclass(frozen=True, slots=True)
class CallMade:
    """The leg's model called a tool."""

    call: ToolCall


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """One side's say is over; milliseconds since the visit began."""

    speaker: str
    text: str
    started_ms: float
    ended_ms: float
    response_ms: float | None = None
    interrupted: bool = False
    heard_ms: float | None = None
    speech_to_silence_ms: float | None = None
    """Of ours that a barge-in ended: from the caller's first sound until we were silent."""
    pauses: tuple[tuple[float, float], ...] = ()
    """Of ours: when we paused for a sound of the caller's, and for how long."""


@dataclass(frozen=True, slots=True)
class BargedIn:
    """The caller spoke over us and we fell silent."""

    item: str
    speech_to_silence_ms: float
    heard_ms: float


@dataclass(frozen=True, slots=True)
class Paused:
    """The caller made a sound while we spoke, and we paused for so long; then we went on."""

    item: str
    pause_ms: float


@dataclass(frozen=True, slots=True)
class Saying:
    """What somebody has said so far of a turn that is not over; for those who watch."""

    speaker: Literal["caller", "agent"]
    text: str


@dataclass(frozen=True, slots=True)
class FloorGiven:
    """It is the caller's turn now: nothing is being said, and nothing is owed."""


@dataclass(frozen=True, slots=True)
class SessionBroke:
    """The model's session is gone, and another is being opened; the call goes on."""

    provider: str
    reason: str


@dataclass(frozen=True, slots=True)
class SessionReplaced:
    """The call goes on with another session."""

    provider: str
    reason: str


Posted = (
    visit_events.Event
    | CallMade
    | TurnEnded
    | BargedIn
    | Paused
    | Saying
    | FloorGiven
    | SessionBroke
    | SessionReplaced
)


@dataclass(slots=True)
class _Saying:
    """A sentence that was asked for word for word."""

    receipt: str
    tag: str
    text: str
    protected: bool


@dataclass(slots=True)
class _Item:
    """One message of the model's, on its way to the caller's ear."""

    name: str
    response: str
    saying: _Saying | None
    exact: bool
    """Its session says word for word what it is asked for; the one that comes after it may not, or may."""
    text: str = ""
    began: float | None = None
    """When its first frame went out, on the visit's clock."""
    response_ms: float | None = None
    speech_to_silence_ms: float | None = None
    pauses: tuple[tuple[float, float], ...] = ()
    heard_at: float | None = None
    """When its last frame is heard, on the loop's clock; known once that was played."""


@dataclass(slots=True, eq=False)
class _Talk:
    """What the bill must know of a session that the leg talks to, or talked to."""

    session: Session
    ready: bool = False
    """It was up."""
    billed: bool = False
    """Something of it was billed."""


@dataclass(slots=True)
class _Segment:
    """Speech that the local VAD heard, on the visit's clock."""

    began: float
    ended: float | None = None


@dataclass(slots=True)
class _Turn:
    """A caller's turn as the provider hears it."""

    began: float
    ended: float | None = None


@dataclass(frozen=True, slots=True)
class _When:
    """When a turn's words were said, and whether our VAD heard somebody then."""

    began: float
    ended: float
    voiced: bool


class Leg:
    """One phone call of a visit."""

    def __init__(
        self,
        *,
        role: Role,
        name: str,
        attempt: UUID | None,
        endpoint: Endpoint,
        clock: Clock,
        visit_started: float,
        ear: Ear,
        tape: Tape | None,
        account: Account,
        message_ms: int,
        silence_s: float,
        pauses: bool = False,
        post: Callable[[Leg, Posted], None],
    ) -> None:
        """
        Args:
            name: the leg in records: `visitor`, `resident-1`.
            attempt: the dial attempt that a resident's leg answers.
            visit_started: the event loop's time at which the visit began; its clock's zero.
            account: what the session costs goes there.
            message_ms: of the caller's audio, in telephone time, that goes to the session at once.
            silence_s: after so much silence in the caller's turn the host is told.
            pauses: for a short sound of the caller's we only pause (`bridge/overlap.py`). False: whatever
                they say interrupts us.
            post: takes what the visit must know; called from the event loop, must not block.
        """
        self.role = role
        self.name = name
        self.attempt = attempt
        self.endpoint = endpoint
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._zero = visit_started
        self._ear = ear
        self._heard_until = 0.0
        """The visit's time at which the caller's audio came that came last."""
        self._tape = TapeHead(tape) if tape is not None else None
        self._account = account
        self._post = post
        self._silence_frames = round(silence_s / FRAME_S)
        self._playout = Playout()
        self._to_phone: Resampler | None = None
        self._up: Resampler | None = None
        self._rising = b""
        """What the model is to hear and has not been sent: less than a message."""
        self._message_bytes = bytes_of(message_ms, TELEPHONE_RATE)
        self._down: Resampler | None = None
        self._down_item = ""
        self._queue_limit = 0
        """So many samples may wait to be played before pauses are skipped; 0: any."""
        self._session: Session | None = None
        self._talks: list[_Talk] = []
        """Its sessions that are not closed."""
        self._listening: set[asyncio.Task[None]] = set()
        """Who takes what they say."""
        self._told: TakesTurns | None = None
        """The session, where it relies on our VAD for the caller's turns."""
        self._exact_speech = False
        self._sayings: dict[str, _Saying] = {}
        self._items: deque[_Item] = deque()
        self._later = endpoint if isinstance(endpoint, PlaysLater) and endpoint.plays_later else None
        self._echoes: deque[tuple[bytes, bool]] = deque(maxlen=ECHOES)
        """What was played last, where it is heard later."""
        self._taken_back: dict[str, int] = {}
        """Of the item that was flushed last: samples that were played, and that the PBX gave back unheard."""
        self._turns: dict[str, _Turn] = {}
        self._dated: dict[str, _When] = {}
        """Turns whose words have come, or never will: what comes of them later was said no later."""
        self._segments: deque[_Segment] = deque(maxlen=64)
        self._caller_item = ""
        self._caller_words = ""
        """What is known so far of the words of that turn."""
        self._shown_at: dict[str, float] = {}
        self._caller_ended: float | None = None
        self._pauses = pauses
        self._overlap: Overlap | None = None
        """The caller made a sound while we spoke, and it isn't settled what it was."""
        self._paused_at = 0.0
        """When we fell silent for it, on the visit's clock."""
        self._asked = False
        """What we said last was a question."""
        self._replies = True
        """The model answers the caller's turns by itself."""
        self._last_tick = self._loop.time()
        self.opened_ms = self._ms(self._last_tick - visit_started)
        """When it was opened, on the visit's clock: where its recording begins, to a frame."""
        self._idle_frames = 0
        self._owed_frames = 0
        self._spoken = False
        """We have said something on this leg: whoever is called does not speak first about the matter."""
        self._voice = False
        """What we say may be heard on this leg."""
        self._since_voice = 0
        """Frames since it was last said."""
        self._on_hold = False
        self._foreign_bed = False
        """What is heard on hold may hold voices: the model must not hear its echo."""
        self._hears: Line | None = None
        """What the other caller says, while the two are connected."""
        self._speaks: Line | None = None
        """What this caller says to the other."""
        self._closed = False
        self._lost = False
        self._between = False
        """The session has lost its model, and looks for another."""
        self.ids: Mapping[str, str] = {"leg": name}
        """What the log knows this leg by: on its lines, and on its connection's."""
        self.log = structlog.get_logger(__name__).bind(**self.ids)

    @property
    def now(self) -> float:
        """Seconds on the visit's clock."""
        return self._loop.time() - self._zero

    def _ms(self, seconds: float) -> float:
        return round(seconds * 1000, 1)

    # ----------------------------------------------------------------------------------------------------
    # The session
    # ----------------------------------------------------------------------------------------------------

    def join(self, session: Session) -> None:
        """From now on this is the session that the call talks to; `run` reads what it says.

        One that it talked to before is left.
        """
        self.leave()
        self._lost = self._between = False
        self._sayings.clear()  # what the one before owed; receipts are each session's own
        self._turns.clear()
        self._session = session
        self._told = session if isinstance(session, TakesTurns) else None
        self._agree(session)

    @property
    def speechless(self) -> bool:
        """Whether nothing can be said now: no model is there, for good or until another takes over."""
        return self._session is None or self._between

    async def run(self, session: Session) -> None:
        """Take what the session says until it ends, or `leave` ends this; then close it."""
        try:
            await self._talk_to(session)
        except Exception as error:
            self.log.error("leg.failed", error=type(error).__name__, exc_info=error)
            self._lose(type(error).__name__, session)
        else:
            self._lose("the session ended", session)

    async def _talk_to(self, session: Session) -> None:
        talk, task = _Talk(session), asyncio.current_task()
        assert task is not None
        self._talks.append(talk)
        self._listening.add(task)
        try:
            await session.run(partial(self._take, talk))
        finally:
            self._listening.discard(task)
            cut_short = session.busy
            await session.close()
            self._settle(talk, cut_short)
            self._say_what_was_spared(session)

    def leave(self) -> None:
        """Have `run` close the session; one that is being closed already is left to tell its bill."""
        for task in self._listening:
            task.cancel()

    def bill_time(self) -> None:
        """Have the account know what the sessions cost by their time, up to now."""
        for talk in self._talks:
            self._bill_time_of(talk)

    def _bill_time_of(self, talk: _Talk) -> None:
        if isinstance(talk.session, BilledByTime):
            for usage in talk.session.time_billed():
                self._bill(talk, usage)

    def _bill(self, talk: _Talk, usage: Usage) -> None:
        talk.billed = True
        self._account.add(usage)

    def _settle(self, talk: _Talk, cut_short: bool) -> None:
        """The session is closed: what is left of its bill."""
        self._talks.remove(talk)
        self._bill_time_of(talk)
        if cut_short:
            self._account.cut_short()
        if talk.ready and not talk.billed:
            self._account.untold()

    def _say_what_was_spared(self, session: Session) -> None:
        sent = session.audio_sent() if isinstance(session, SparesSilence) else AudioSent(0.0, 0.0)
        if sent.sent_s or sent.spared_s:
            self.log.info(
                "session.silence_spared", sent_s=round(sent.sent_s, 1), spared_s=round(sent.spared_s, 1)
            )

    def _agree(self, session: Session) -> None:
        capabilities = session.capabilities
        self._exact_speech = capabilities.exact_speech
        self._queue_limit = capabilities.queue_limit_ms * TELEPHONE_RATE // 1000
        self._up = Resampler(TELEPHONE_RATE, capabilities.input_rate)
        self._down = None

    def _take(self, talk: _Talk, event: Event) -> None:
        """Called for each event as it comes; see :meth:`providers.base.Session.run`."""
        if isinstance(event, Usage):  # also when the call is over: it is to be paid all the same
            self._bill(talk, event)
        elif isinstance(event, Ready):
            talk.ready = True
        if not self._closed and talk.session is self._session:
            self._on(event)

    def _on(self, event: Event) -> None:
        """Something happened in the session that the leg talks to."""
        match event:
            case AudioDelta():
                self._play(event)
            case AudioDone():
                self._audio_done(event.item)
            case Ready():
                if self._session is not None:
                    self._agree(self._session)
            case ItemStarted():
                self._item_started(event)
            case Transcript(role="agent"):
                self._agent_text(event)
            case Transcript():
                if event.final:
                    self._caller_said(event.item, event.text)
                else:
                    self._caller_is_saying(event.item, event.text)
            case TranscriptFailed():
                self._date(event.item)
                self._post(self, visit_events.TurnLost(self.role, event.item))
                if self._overlap is not None and self._overlap.concerns(event.item):
                    self._give_way(self._overlap.began)  # nobody knows what it was: it gets its answer
            case SpeechStarted():
                self._turn_began(event.item)
            case SpeechStopped():
                if event.item in self._turns:
                    self._turns[event.item].ended = self.now
            case ToolCall():
                self._post(self, CallMade(event))
            case ResponseDone():
                self._response_done(event)
            case Interrupted():
                self._flush()
            case Lost():
                self._break_off(event)
            case Replaced():
                self._between = False
                self._post(self, SessionReplaced(event.provider, masked(event.reason)))
            case Failed():
                self.log.warning("session.failed", kind=event.kind, code=event.code, reason=event.message)
                if event.kind == "session":
                    self._lose(f"{event.code}: {masked(event.message)}")
            case _:
                pass

    def _break_off(self, lost: Lost) -> None:
        """No more comes of what has not ended; sentences among it begin anew, and only that counts."""
        self.log.warning("session.lost", provider=lost.provider, code=lost.code, reason=lost.message)
        self._between = True
        broken_off = [item for item in self._items if not self._playout.ledger(item.name).ended]
        if broken_off:
            self._account.cut_short()
        for item in broken_off:
            if item.saying is not None and item.saying.receipt in lost.again:
                self._sayings[item.saying.receipt] = item.saying
                item.saying = None
            self._playout.abandon(item.name)
        self._retire()
        self._post(self, SessionBroke(lost.provider, f"{lost.code}: {masked(lost.message)}"))

    def _lose(self, reason: str, session: Session | None = None) -> None:
        """The session is gone; the call itself still stands, and stays silent until it joins another one.

        `session`: which one; None: the one that it talks to.
        """
        if self._lost or self._closed or (session is not None and session is not self._session):
            return
        self._lost = True
        self._session = self._told = None
        self._overlap = None
        self._post(self, visit_events.SessionLost(self.role, self.attempt, reason))
        self._playout.flush(force=True)

    # ----------------------------------------------------------------------------------------------------
    # Up: what the caller says
    # ----------------------------------------------------------------------------------------------------

    def audio_in(self, pcm: bytes, rate: int) -> None:
        """The endpoint's audio."""
        if rate != TELEPHONE_RATE:
            if self._to_phone is None:
                self._to_phone = Resampler(rate, TELEPHONE_RATE)
            pcm = self._to_phone.process(pcm)
        if self._tape is not None:
            behind = int((self._loop.time() - self._last_tick) / FRAME_S) - 1
            self._tape.heard(pcm, behind)
        self._heard_until = self.now
        for_model = self._ear.heard(pcm)
        if self._speaks is not None:
            self._speaks.push(pcm)
            for_model = bytes(len(for_model))  # its turn detection needs time to go on, and not to hear it
        self._rise(for_model)

    def _rise(self, pcm: bytes) -> None:
        """To the model, so much at a time as a message is to hold: it is messages that cost, not bytes."""
        if self._session is None or self._up is None:
            return
        self._rising += pcm
        enough = max(self._message_bytes, STRAINED_BYTES) if self._clock.strained else self._message_bytes
        if len(self._rising) >= enough:
            pcm, self._rising = self._rising, b""
            self._session.send_audio(self._up.process(pcm))

    def key_pressed(self, digit: str) -> None:
        """A DTMF key."""
        self._post(self, visit_events.KeyPressed(self.role, digit))

    def _heard_at(self, sample: int) -> float:
        """The visit's time of a sample of the caller's, taken from what was fed since, and when."""
        return self._heard_until - (self._ear.voice.samples_fed - sample) / TELEPHONE_RATE

    def _listen(self) -> None:
        """Take what was found in the caller's audio since the last tick."""
        for change in self._ear.take():
            if isinstance(change, SpeechOnset):
                self._speech_began(change)
            else:
                self._speech_ended(change)

    def _speech_began(self, onset: SpeechOnset) -> None:
        began = self._heard_at(onset.at)
        self._playout.hush_bed(True)
        self._segments.append(_Segment(began))
        if self._told is not None and self._hears is None:
            self._told.caller_began()  # first: what they say goes before what is to be forgotten for it
        if self._hears is None and (self._playout.audible or self._playout.playing is not None):
            self._spoken_over(began)
        self._post(self, visit_events.SpeechBegan(self.role))

    def _speech_ended(self, offset: SpeechOffset) -> None:
        ended = self._heard_at(offset.at)
        self._playout.hush_bed(False)
        self._caller_ended = ended
        if self._segments:
            self._segments[-1].ended = ended
        if self._told is not None:
            self._told.caller_ended(round((self.now - ended) * 1000))
        self._post(self, visit_events.SpeechEnded(self.role))

    # A sound of the caller's while we speak: see bridge/overlap.py.

    def _spoken_over(self, began: float) -> None:
        """Fall silent at once; for good, or for as long as it takes to tell which."""
        overlap = self._overlap
        if not self._pauses or not (overlap is None or overlap.again(began, self.now)):
            self._give_way(began)
        elif self._playout.pause():
            self._overlap = overlap or Overlap(began, self._turns)
            self._paused_at = self._silent_at
            if isinstance(self.endpoint, TakesBack):
                self._playout.take_back(self.endpoint.flush())
            if self._session is not None:
                self._session.doubt_turn()
        else:
            self._give_way(began)  # what is being said can't be paused; what waits behind it goes

    def _weigh(self, overlap: Overlap) -> None:
        """Decide what a sound of the caller's was, where that can be told by now."""
        verdict = overlap.judge(self.now, speech_ms=self._ear.speech_ms, quiet_ms=self._ear.quiet_ms)
        if verdict is Verdict.GIVE_WAY:
            self._give_way(overlap.began)
        elif verdict is Verdict.RESUME:
            self._go_on()
        elif verdict is Verdict.OVER and not self._items:
            self._settle_overlap(reply=self._asked and overlap.answers(self.now))

    def _go_on(self) -> None:
        self._ear.end_now()  # our echo must not keep it speaking, nor go to the model
        self._playout.resume()
        pause_ms = self._ms(self._silent_at - self._paused_at)
        if self._items:
            self._items[0].pauses += ((self._ms(self._paused_at), pause_ms),)
        self._post(self, Paused(self._playout.playing or "", pause_ms))

    def _give_way(self, began: float) -> None:
        """It is a barge-in."""
        self._barge_in(began)
        self._settle_overlap(reply=True)

    def _settle_overlap(self, *, reply: bool) -> None:
        if self._overlap is None:
            return
        self._overlap = None
        self._playout.resume()
        if self._session is not None:
            self._session.settle_turn(reply)

    def _overlap_words(self, overlap: Overlap, item: str, text: str) -> None:
        """The words of a turn that was begun while we spoke."""
        evidence = self.role is Role.RESIDENT and self._replies
        if is_backchannel(text, sounds_only=evidence):
            overlap.backchannel(item, self.now)
        else:
            self._give_way(overlap.began)

    @property
    def _silent_at(self) -> float:
        """When what went out last was over, on the visit's clock."""
        return self._last_tick - self._zero + FRAME_S

    def _barge_in(self, began: float) -> None:
        silent_at = self._paused_at if self._playout.paused else self._silent_at
        speech_to_silence_ms = max(0.0, self._ms(silent_at - began))
        if self._items:
            self._items[0].speech_to_silence_ms = speech_to_silence_ms
        flushed = self._flush()
        if flushed is None or not flushed.played_samples:
            return
        heard_ms = self._ms(flushed.played_samples / TELEPHONE_RATE)
        self._post(self, BargedIn(flushed.item, speech_to_silence_ms, heard_ms))

    def _flush(self) -> Flushed | None:
        """Fall silent, and let the model remember only what was heard."""
        paused = self._playout.paused
        flushed = self._playout.flush()
        if flushed is None:
            return None
        if isinstance(self.endpoint, TakesBack) and not paused:  # then it has given back what it held
            unheard = self.endpoint.flush()
            self._taken_back = {flushed.item: min(unheard, flushed.played_samples)}
            flushed = replace(flushed, played_samples=max(0, flushed.played_samples - unheard))
        if self._session is not None:
            heard = Heard(
                flushed.item, flushed.played_samples * 1000 // TELEPHONE_RATE, flushed.dropped_items
            )
            self._session.interrupt(heard)
        self._retire()
        return flushed

    def _turn_began(self, item: str) -> None:
        self._dated.pop(item, None)
        self._turns[item] = _Turn(self.now)
        self._post(self, visit_events.TurnBegan(self.role, item))
        if self._overlap is not None:
            self._overlap.turn_began(item, self.now)
            if self._playout.paused:
                return
        protected = any(saying.protected for saying in self._sayings.values()) or any(
            one.saying is not None and one.saying.protected for one in self._items
        )
        if self._session is not None and self._session.busy and not self._playout.audible and not protected:
            # A reply that nobody has heard yet answers a turn that wasn't over.
            self._session.interrupt(None)

    def _caller_said(self, item: str, text: str) -> None:
        when = self._dated.get(item) or self._date(item)
        if text.strip():
            self._post(self, TurnEnded("caller", text, self._ms(when.began), self._ms(when.ended)))
        self._post(self, visit_events.Said(self.role, item, text, when.began, when.voiced))
        if self._overlap is not None and self._overlap.concerns(item):
            self._overlap_words(self._overlap, item, text)

    def _caller_is_saying(self, item: str, text: str) -> None:
        """Some words of a turn, as they are recognised. Nothing rests on them."""
        if item != self._caller_item:
            self._caller_item, self._caller_words = item, ""
        self._caller_words = (self._caller_words + text)[-SHOWN_LETTERS:]
        self._show("caller", self._caller_words)

    def _show(self, speaker: Literal["caller", "agent"], text: str) -> None:
        """For those who watch; not with every word, which comes faster than anybody reads."""
        now = self._loop.time()
        if now - self._shown_at.get(speaker, 0.0) >= SHOW_S:
            self._shown_at[speaker] = now
            self._post(self, Saying(speaker, text[-SHOWN_LETTERS:]))

    def _date(self, item: str) -> _When:
        """When a turn was said, for now and for whatever comes of it later.

        A transcript that comes twice would else be taken for what was said last.
        """
        turn = self._turns.pop(item, None) or _Turn(self.now)
        until = turn.ended if turn.ended is not None else self.now
        spoken = [
            one
            for one in self._segments
            if one.began <= until and (one.ended is None or one.ended >= turn.began - CORROBORATION_S)
        ]
        began = min((one.began for one in spoken), default=turn.began)
        ended = max((one.ended for one in spoken if one.ended is not None), default=until)
        when = self._dated[item] = _When(began, max(began, ended), bool(spoken))
        if len(self._dated) > TURNS_KNOWN:
            del self._dated[next(iter(self._dated))]
        return when

    # ----------------------------------------------------------------------------------------------------
    # Down: what the model says
    # ----------------------------------------------------------------------------------------------------

    def say_exactly(self, text: str, tag: str, *, protected: bool) -> None:
        """Have a sentence said word for word; a `SentencePlayed` with the tag follows in any case."""
        if self._session is None:
            self._post(self, visit_events.SentencePlayed(self.role, tag, False))
            return
        receipt = self._session.say_exactly(text)
        self._sayings[receipt] = _Saying(receipt, tag, text, protected)

    def prompt(self, text: str) -> None:
        """Tell the model something and let it speak."""
        if self._session is not None:
            self._session.speak_about(text)

    def answer(self, call: ToolCall, result: Mapping[str, Any], speak: visit_events.Speak) -> None:
        """Answer a tool call of this leg's model."""
        if self._session is not None:
            self._session.answer(call, result, speak)

    def auto_reply(self, on: bool) -> None:
        """Whether the model answers the caller's turns by itself."""
        self._replies = on
        if self._session is not None:
            self._session.auto_reply(on)

    def hold(self, sound: HoldSound | None) -> None:
        """Put the caller on hold: what is heard where nobody speaks, and nobody is waited for; None: no more.

        The sound is played like all else: it is in the recording, and our ear knows it. It is no item's.
        """
        self._on_hold = sound is not None
        self._foreign_bed = sound is not None and sound.foreign
        self._playout.set_bed(sound.pcm if sound is not None else None)

    def connect(self, *, hears: Line, speaks: Line) -> None:
        """From now on this caller talks to another, on two lines, and no more to the model.

        The model hears silence. What it says by itself is not played; sentences that are asked for word for
        word are, in place of the other caller.
        """
        self._flush()
        self._settle_overlap(reply=False)  # what was said is the other's from now on
        if self._told is not None:
            self._told.caller_ended(0)
        self._hears, self._speaks = hears, speaks

    def disconnect(self) -> None:
        """The caller talks to the model again. Does nothing where there was no connection."""
        if self._hears is None:
            return
        line, self._hears, self._speaks = self._hears, None, None
        self._caller_ended = None  # that was said to the other: nobody owed a reply to it
        if self._told is not None and self._ear.speaking:
            self._told.caller_began()
        self.log.info(
            "leg.disconnected",
            gaps=line.gaps,
            dropped_samples=line.dropped_samples,
            key_frames=line.key_frames,
        )

    def _item_started(self, event: ItemStarted) -> None:
        saying = self._sayings.pop(event.receipt, None) if event.receipt is not None else None
        self._items.append(_Item(event.item, event.response, saying, self._exact_speech))
        self._playout.begin(event.item, protected=saying is not None and saying.protected)
        if self._hears is not None and saying is None:
            self._flush()

    def _play(self, event: AudioDelta) -> None:
        if self._down is None or event.item != self._down_item:
            assert self._session is not None
            self._down = Resampler(self._session.capabilities.output_rate, TELEPHONE_RATE, limit=True)
            self._down_item = event.item
        pcm = self._down.process(event.pcm)
        if self._queue_limit and self._playout.pending_samples > self._queue_limit:
            pcm = without_pauses(pcm, TELEPHONE_RATE)  # so that it catches up, and no word is lost
        self._playout.push(event.item, pcm)

    def _audio_done(self, item: str) -> None:
        if self._down is not None and item == self._down_item:
            self._playout.push(item, self._down.flush())
            self._down = None
        self._playout.end(item)

    def _agent_text(self, event: Transcript) -> None:
        for item in self._items:
            if item.name == event.item:
                item.text = event.text if event.final else item.text + event.text
                self._show("agent", item.text)

    def _response_done(self, event: ResponseDone) -> None:
        for item in self._items:
            if item.response == event.response:
                self._playout.abandon(item.name)  # does nothing to one that ended as it should
        saying = self._sayings.pop(event.receipt, None) if event.receipt is not None else None
        if saying is not None:  # nothing of it was ever said
            self._post(self, visit_events.SentencePlayed(self.role, saying.tag, False))
        self._retire()

    def tick(self, skipped: int) -> None:
        """Play the next 20 ms."""
        self._listen()  # first, so that who is interrupted falls silent with this frame
        if self._overlap is not None:
            self._weigh(self._overlap)
        self._last_tick = self._loop.time()
        frame = self._playout.next_frame()
        if self._hears is not None:
            said = self._hears.next_frame()  # also while we say something: it must not come late
            frame = frame if self._playout.audible else said
        self.endpoint.play(frame)
        talk = self._playout.audible or (self._foreign_bed and self._playout.bed_heard)
        if self._later is not None:
            frame_heard, talk_heard = self._heard_now(self._later, frame, talk)
            self._ear.played(frame_heard, skipped, ours=talk_heard)
        else:
            self._ear.played(frame, skipped, ours=talk)
        if self._tape is not None:
            self._tape.played(frame, skipped)
        self._note_voice(skipped)
        if self._items:
            self._follow()
        self._watch_the_floor()

    def _heard_now(self, later: PlaysLater, frame: bytes, talk: bool) -> tuple[bytes, bool]:
        """What the caller hears by now, and whether we are talking in it: their echo is of that."""
        self._echoes.append((frame, talk))
        behind = min(round(later.behind_s / FRAME_S), len(self._echoes) - 1)
        return self._echoes[-1 - behind]

    def _note_voice(self, skipped: int) -> None:
        """Tell the visit when the caller begins to hear us, and when that is over, echo and all."""
        if self._playout.audible:
            self._since_voice = 0 if self._later is None else -round(self._later.behind_s / FRAME_S)
            if not self._voice:
                self._voice = True
                self._post(self, visit_events.OurVoice(self.role, True))
        elif self._voice:
            self._since_voice += 1 + skipped
            if self._since_voice >= VOICE_FRAMES:
                self._voice = False
                self._post(self, visit_events.OurVoice(self.role, False))

    def _follow(self) -> None:
        """Note when an item began to be heard, and when it was over."""
        head = self._items[0]
        if self._playout.audible and head.began is None and self._playout.ledger(head.name).played:
            head.began = self._last_tick - self._zero
            if self._caller_ended is not None and self._caller_ended < head.began:
                head.response_ms = self._ms(head.began - self._caller_ended)
            self._caller_ended = None
        self._retire()

    def _was_heard(self, item: _Item) -> bool:
        """Whether the end of an item that was played has been heard too, where that is later."""
        assert self._later is not None
        if item.heard_at is None:
            item.heard_at = self._loop.time() + self._later.behind_s
        return self._loop.time() >= item.heard_at

    def _retire(self) -> None:
        """Let go of the items that are over: played to the end, abandoned, or flushed."""
        while self._items:
            item = self._items[0]
            account = self._playout.ledger(item.name)
            over = account.flushed or (
                (account.ended or account.abandoned) and account.played >= account.received
            )
            if not over or (self._later is not None and not account.flushed and not self._was_heard(item)):
                return
            self._items.popleft()
            heard_ms = self._ms((account.played - self._taken_back.get(item.name, 0)) / TELEPHONE_RATE)
            if account.played:
                self._spoken = True
                self._asked = item.text.rstrip().endswith("?")
                began = item.began if item.began is not None else self.now
                self._post(
                    self,
                    TurnEnded(
                        "agent",
                        item.text,
                        self._ms(began),
                        self._ms(max(began, self._last_tick - self._zero + FRAME_S)),
                        item.response_ms,
                        account.flushed,
                        heard_ms,
                        item.speech_to_silence_ms if account.flushed else None,
                        item.pauses,
                    ),
                )
            if item.saying is not None:
                complete = account.complete and self._spoken_as_asked(item, item.saying.text, heard_ms)
                self._post(self, visit_events.SentencePlayed(self.role, item.saying.tag, complete))

    def _spoken_as_asked(self, item: _Item, asked: str, heard_ms: float) -> bool:
        """Whether the words were the right ones and the sound long enough to hold them."""
        if not long_enough(asked, heard_ms):
            self.log.info("sentence.too_short", heard_ms=heard_ms, characters=len(asked))
            return False
        return item.exact or said_as_asked(asked, item.text)

    # ----------------------------------------------------------------------------------------------------
    # Whose turn it is
    # ----------------------------------------------------------------------------------------------------

    def _watch_the_floor(self) -> None:
        session = self._session
        if session is None:
            return
        if self._playout.audible:
            self._owed_frames = self._idle_frames = 0
            return
        owed = session.busy or bool(self._sayings)
        # An item that began and never ends is owed its rest: a model can stall in the middle of a word.
        if owed or self._items:
            self._owed_frames += 1
            if self._owed_frames * FRAME_S >= STALL_S:
                self.log.warning("session.stalled", seconds=STALL_S, mid_way=bool(self._items))
                self._lose("stalled: a reply was owed and nothing came")
                return
        else:
            self._owed_frames = 0
        elsewhere = self._on_hold or self._hears is not None
        if owed or self._items or self._turns or self._ear.speaking or elsewhere:
            self._idle_frames = 0
            return
        self._idle_frames += 1
        if self._idle_frames == FLOOR_FRAMES and self._spoken:
            self._post(self, FloorGiven())
        if self._idle_frames % self._silence_frames == 0:
            self._post(self, visit_events.SilenceElapsed(self.role))

    # ----------------------------------------------------------------------------------------------------
    # The end
    # ----------------------------------------------------------------------------------------------------

    def hang_up(self) -> None:
        """End the call; `LegClosed` follows."""
        self.endpoint.hang_up()

    def fail(self, error: Exception) -> None:
        """The clock could not tick this leg: end it."""
        self.log.error("leg.failed", error=type(error).__name__, exc_info=error)
        self._lose(f"our side failed: {type(error).__name__}")  # not the caller's doing: the visit has failed
        self.hang_up()

    def endpoint_closed(self, reason: EndpointClosed) -> None:
        """The call is over."""
        if self._closed:
            return
        self._closed = True
        self._clock.discard(self)
        self._ear.close()
        if self._tape is not None:
            self._tape.close()
        self.log.info("leg.closed", kind=reason.kind, detail=reason.detail)
        self._post(self, visit_events.LegClosed(self.role, self.attempt, f"{reason.kind}: {reason.detail}"))

    @property
    def closed(self) -> bool:
        """Whether the call is over."""
        return self._closed


__all__ = [
    "BargedIn",
    "CallMade",
    "FloorGiven",
    "Leg",
    "Paused",
    "Posted",
    "Saying",
    "SessionBroke",
    "SessionReplaced",
    "TurnEnded",
]
