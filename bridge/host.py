"""Runs one visit: feeds what happens to `visits.Visit`, and carries out what it asks for, in its order.

One task takes one thing after the other from one inbox, so no two things ever happen to a visit at once. A
record is durable before the next effect begins; where it can't be made durable the effects after it do not
happen, and the visit is told that it is broken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID, uuid4, uuid5
from zoneinfo import ZoneInfo

import orjson
import structlog

from audio.line import Line
from bridge.announcement import spoken
from bridge.calls import RegisteredCall
from bridge.declared.client import OutsideAnswer, OutsideCall
from bridge.dialing.base import DialOrder
from bridge.endpoints.audio_stream import AudioStreamEndpoint
from bridge.endpoints.base import Endpoint
from bridge.gates.base import GateOrder, HearsRefusals
from bridge.house import Condominium, House
from bridge.leg import (
    BargedIn,
    CallMade,
    FloorGiven,
    Leg,
    Paused,
    Posted,
    Saying,
    SessionBroke,
    SessionReplaced,
    TurnEnded,
)
from bridge.log import bound
from bridge.pbx import Speaks
from bridge.recorder import Recording, RecordingClosed, RecordingFailure
from bridge.tenants import Version
from bridge.watch import Seen
from providers.base import Provider, Session, SessionConfig, ToolCall
from storage.base import StorageError
from tools.registry import DEADLINE_S, Calls, Refused, Repeated
from visits import events as e
from visits.audit import canonical, stamp
from visits.events import Role
from visits.facts import Facts
from visits.visit import State, Visit

DIAL_GRACE_S = 5.0
"""How much longer than the ring time a dialer may take to say how it ended."""
RECORDINGS_S = 3.0
"""How long the end of a visit waits for its recordings' files: the writer comes by every half second."""
COST_S = 15.0
"""So often what a visit has cost so far goes on record: budgets count it, and a crash loses no more."""
SETTLE_S = 3.0
"""How long the end of a visit waits for its sessions to close, and to say what they cost."""
FIRST_WORDS = ("greeting", "transfer_unserved", "goodbye_unserved")
"""Sentences that a visitor hears first, and that tell of a recording where one is made."""
LAST_WORDS_S = 5.0
"""How long the legs of a visit that is over may take to close."""


@dataclass(frozen=True, slots=True)
class _Rang:
    """A timer ran out; an older generation of it was replaced or stopped meanwhile."""

    name: str
    generation: int


@dataclass(frozen=True, slots=True)
class _Overdue:
    """A tool call has not been answered in time."""

    call: str


@dataclass(frozen=True, slots=True)
class _Reckon:
    """It is time to put on record what the visit has cost so far."""


@dataclass(frozen=True, slots=True)
class _FromLeg:
    leg: Leg
    posted: Posted


@dataclass(slots=True)
class _OpenCall:
    leg: Leg
    call: ToolCall
    began: float


@dataclass(frozen=True, slots=True)
class _Noted:
    """Something for the record on which nothing rests."""

    text: str


@dataclass(frozen=True, slots=True)
class _Answered:
    """A tool that the tenant declares has answered: its model is told, and the visit is not."""

    call: str
    answer: OutsideAnswer


class _NotDurable(Exception):
    """A record could not be made durable."""


_OfRecording = RecordingClosed | RecordingFailure
_Thing = e.Event | _FromLeg | _Rang | _Overdue | _Noted | _Answered | _Reckon | _OfRecording


class VisitHost:
    """One running visit."""

    def __init__(
        self,
        house: House,
        place: Condominium,
        endpoint: Endpoint,
        call: RegisteredCall | None = None,
        version: Version | None = None,
    ) -> None:
        """
        Args:
            call: what the PBX said of the visitor's call before it came; None where it said nothing.
            version: of the tenant's settings, for the record.
        """
        self._version = version
        self._house = house
        self.place = place
        self.call = call
        self.channel = call.channel if call is not None else ""
        if place.switchboard is not None and isinstance(endpoint, AudioStreamEndpoint):
            self.channel = str(endpoint.call_id)  # the stream's URL names it
        self._loop = asyncio.get_running_loop()
        self._zero = self._loop.time()
        self.visit = Visit(endpoint.call_id, place.rules(channel=self.channel), place.directory)
        self.id = str(endpoint.call_id)
        self._account = place.account()
        self._reckoned: dict[str, Any] = {}
        """What was put on record last of its cost."""
        self._reckoning: asyncio.TimerHandle | None = None
        self._inbox: asyncio.Queue[_Thing] = asyncio.Queue()
        self._legs: dict[str, Leg] = {}
        self._tapes: dict[str, Recording] = {}
        self._told_of_tapes: set[_OfRecording] = set()
        self._calls: dict[str, Calls] = {}
        self._open_calls: dict[str, _OpenCall] = {}
        self._outside = place.outside.visit()
        self._timers: dict[str, tuple[int, asyncio.TimerHandle]] = {}
        self._generation = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._sessions: dict[str, list[asyncio.Task[None]]] = {}
        """By leg: what takes the events of each of its sessions, and closes it."""
        self._dials: dict[UUID, asyncio.Task[None]] = {}
        self._ringing: UUID | None = None
        """The dial attempt for which a session was opened ahead."""
        self._telling_pbx = asyncio.Lock()
        self._finished = False
        self.log = structlog.get_logger(__name__).bind(tenant=place.id, visit=self.id)
        if call is not None:  # the caller's number is in the audit log alone
            self.log.info("visit.registered", channel=call.channel, dialled=call.dialled)
        self.visitor = self._new_leg(Role.VISITOR, "visitor", None, endpoint)

    # ----------------------------------------------------------------------------------------------------
    # Legs
    # ----------------------------------------------------------------------------------------------------

    def _new_leg(self, role: Role, name: str, attempt: UUID | None, endpoint: Endpoint) -> Leg:
        tape = None
        if self.place.settings.recording.enabled:
            tape = self._house.recorder.start(
                tenant=self.place.id,
                visit=self.id,
                leg=name,
                on_failed=self._inbox.put_nowait,
                on_closed=self._inbox.put_nowait,
            )
            self._tapes[name] = tape
        leg = Leg(
            role=role,
            name=name,
            attempt=attempt,
            endpoint=endpoint,
            clock=self._house.clock,
            visit_started=self._zero,
            ear=self.place.ear(self._house.ears),
            tape=tape,
            account=self._account,
            message_ms=self.place.settings.audio_message_ms,
            silence_s=self.place.settings.limits.silence_s,
            pauses=self.place.settings.backchannels == "pause",
            post=lambda leg, posted: self._inbox.put_nowait(_FromLeg(leg, posted)),
        )
        leg.ids = {"tenant": self.place.id, "visit": self.id, "leg": name}
        leg.log = leg.log.bind(**leg.ids)
        leg.log.info("leg.opened", call_id=str(endpoint.call_id), peer=endpoint.peer)
        self._legs[name] = leg
        self._calls[name] = Calls(self.place.tools, role)
        if self.place.switchboard is not None and isinstance(endpoint, AudioStreamEndpoint):
            endpoint.channel = self.place.switchboard.take(endpoint, ours=role is Role.RESIDENT)
        self._house.clock.add(leg)
        return leg

    def resident_arrived(self, endpoint: Endpoint, attempt: UUID) -> Leg:
        """The leg of a resident whose dial attempt the visit expects (`visit.expects`)."""
        leg = self._new_leg(Role.RESIDENT, self.visit.leg, attempt, endpoint)
        self._inbox.put_nowait(e.DialAnswered(attempt))
        return leg

    def claimed(self, attempt: UUID) -> bool:
        """Whether a leg has come for this attempt already."""
        return any(leg.attempt == attempt for leg in self._legs.values())

    @property
    def open_legs(self) -> int:
        """How many calls this visit holds."""
        return sum(not leg.closed for leg in self._legs.values())

    async def _join(self, leg: Leg, provider: Provider) -> None:
        """Record a leg and join it to a session of its own."""
        data = {
            "leg": leg.name,
            "role": leg.role.value,
            "endpoint": leg.endpoint.kind,
            "peer": leg.endpoint.peer,
            "opened_ms": leg.opened_ms,
        }
        try:
            await self._record("leg.connected", {**data, "provider": provider.name})
        except _NotDurable as error:
            await self._broken(str(error), ())
            return
        config = self._session_config(leg.role)
        ahead = None
        if provider is self.place.provider:
            ahead = self._house.ahead.take(leg.attempt or self.visit.id, config, provider.open)
        leg.log.info("session.joined", opened_ahead=ahead is not None)
        with bound(leg=leg.name):  # the session's own task and its lines belong to this leg
            session = ahead if ahead is not None else provider.open(config)
            await self._run_session(leg, session)

    async def _lend_voice(self, leg: Leg) -> None:
        """Join a leg that has no model to a voice of our own."""
        leg.log.info("session.own_voice")
        self._see("session.own_voice", {"leg": leg.name})
        with bound(leg=leg.name):
            await self._run_session(leg, self._house.announcer.open(self._session_config(leg.role)))

    async def _run_session(self, leg: Leg, session: Session) -> None:
        leg.join(session)
        task = self._spawn(f"leg {leg.name}", leg.run(session))
        self._sessions.setdefault(leg.name, []).append(task)
        # The task must have begun before anything can cancel it: cancelled earlier, it would never reach the
        # `finally` that closes the session, and the provider would go on listening to nobody.
        await asyncio.sleep(0)

    def _session_config(self, role: Role) -> SessionConfig:
        return self.place.session(role, self.visit.facts, self.visit.rules)

    def _open_ahead(self, dial: e.Dial) -> None:
        """Open the session of a resident whose phone is about to ring."""
        provider = self.place.provider
        if provider.opens_ahead:
            self._ringing = dial.attempt
            within_s = self.place.settings.limits.ring_s + DIAL_GRACE_S
            with bound(leg=self.visit.leg):
                config = self._session_config(Role.RESIDENT)
                self._house.ahead.open(dial.attempt, within_s, config, provider.open)

    def _close_unneeded(self) -> None:
        """Close the session of a resident who will not answer any more: busy, too late, or not wanted."""
        if self._ringing is not None and not self.visit.expects(self._ringing):
            self._house.ahead.close(self._ringing)  # none, where its leg has taken it
            self._ringing = None

    def _spawn(self, name: str, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = self._loop.create_task(work, name=f"{name} of visit {self.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # ----------------------------------------------------------------------------------------------------
    # The loop
    # ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """From the ring to the goodbye. Returns when the visit is over and all it held is let go."""
        try:
            await self._begin()
            while not self._finished:
                await self._take(await self._inbox.get())
                self._close_unneeded()
        except asyncio.CancelledError:
            await self._record_quietly("visit.ended", {"outcome": "failed", "reason": "stopped"})
            raise
        except Exception as error:
            self.log.error("visit.failed", error=type(error).__name__, exc_info=error)
            await self._record_quietly("visit.ended", {"outcome": "failed", "reason": type(error).__name__})
        finally:
            await self._let_go()

    async def _begin(self) -> None:
        about: dict[str, object] = {
            "endpoint": self.visitor.endpoint.kind,
            "provider": self.place.provider.name,
            "language": self.place.settings.language,
        }
        if self._version is not None:
            about["settings"] = self._version.as_record()
        if self.call is not None:
            about |= {
                "caller_id": self.call.caller_id,
                "dialled": self.call.dialled,
                "channel": self.call.channel,
            }
            if self.call.tested_by:
                about |= {"test": True, "tested_by": self.call.tested_by}
        try:
            await self._record("visit.started", about)
        except _NotDurable:
            # A full disk, or an id that another visit had: nothing is said or done that can't be on record.
            self._finished = True
            self._see("visit.ended", {"outcome": "failed", "reason": "not_on_record"})
            return
        self._reckon_later()
        # Of a visit that runs, money ends nothing: its resident is called all the same.
        unserved = await self.place.purse.why_closed(self._house.storage, datetime.now(UTC))
        await self._join(self.visitor, self._house.announcer if unserved else self.place.provider)
        at = datetime.now(ZoneInfo(self.place.settings.timezone))
        await self._handle(e.Started(unserved, at))

    async def _take(self, thing: _Thing) -> None:
        match thing:
            case _FromLeg(leg, posted):
                await self._from_leg(leg, posted)
            case _Rang(name, generation):
                if self._timers.get(name, (0, None))[0] == generation:
                    del self._timers[name]
                    await self._handle(e.TimerFired(name))
            case _Overdue(call):
                await self._answer(call, {"status": "error", "message": "no answer in time"}, "now")
            case _Answered(call, answer):
                await self._answer(call, answer.result, "now", answer.about)
            case _Noted(text):
                await self._record_quietly("note", {"text": text})
            case _Reckon():
                await self._record_cost(final=False)
                self._reckon_later()
            case RecordingFailure() | RecordingClosed():
                await self._tell_of_tape(thing)
            case e.DialAnswered():
                await self._handle(thing)
                leg = next(one for one in self._legs.values() if one.attempt == thing.attempt)
                answered = self.visit.state is State.CONSULTING and leg.attempt == self.visit.attempt
                if answered and not leg.closed:
                    await self._join(leg, self.place.provider)
                    await self._note_whose(leg)
                    leg.auto_reply(False)
            case _:
                await self._handle(thing)

    async def _from_leg(self, leg: Leg, posted: Posted) -> None:
        given_up = leg.role is Role.RESIDENT and leg.attempt != self.visit.attempt
        match posted:
            case TurnEnded():
                await self._record_quietly("turn", _turn(leg, posted))
            case BargedIn():
                data = {"speech_to_silence_ms": posted.speech_to_silence_ms, "heard_ms": posted.heard_ms}
                self.log.info("barge_in", leg=leg.name, **data)
                self._see("barge_in", {"leg": leg.name, **data})
            case Paused():
                self._see("pause", {"leg": leg.name, "pause_ms": posted.pause_ms})
            case Saying():
                said = {"leg": leg.name, "speaker": posted.speaker, "text": posted.text}
                self._see("partial", said)
            case FloorGiven():
                self._see("floor", {"leg": leg.name, "role": leg.role.value})
            case SessionBroke():
                await self._record_quietly("session.lost", {"leg": leg.name, **asdict(posted)})
            case SessionReplaced():
                await self._record_quietly("session.replaced", {"leg": leg.name, **asdict(posted)})
            case e.SpeechBegan() | e.SpeechEnded() | e.OurVoice():
                self._see_who_speaks(leg, posted)
                if not given_up:
                    await self._handle(posted)
            case e.LegClosed():
                await self._leg_closed(leg, posted)
            case e.SessionLost():
                await self._handle(posted)
            case _ if given_up:
                pass  # a resident's leg that is not gone yet: no key and no word of it counts (rule 2)
            case CallMade(call):
                await self._call_made(leg, call)
            case _:
                await self._handle(posted)

    def _see_who_speaks(self, leg: Leg, change: e.SpeechBegan | e.SpeechEnded | e.OurVoice) -> None:
        ours = isinstance(change, e.OurVoice)
        on = change.on if isinstance(change, e.OurVoice) else isinstance(change, e.SpeechBegan)
        self._see("speaking", {"leg": leg.name, "who": "agent" if ours else "caller", "on": on})

    async def _leg_closed(self, leg: Leg, closed: e.LegClosed) -> None:
        leg.leave()
        tape = self._tapes.get(leg.name)
        kind, _, detail = closed.reason.partition(": ")
        await self._record_quietly(
            "leg.ended",
            {
                "leg": leg.name,
                "reason": kind,
                "detail": detail,
                "recording": str(tape.relative) if tape is not None else None,
            },
        )
        await self._handle(closed)

    async def _handle(self, event: e.Event) -> None:
        before = self.visit.state
        effects = self.visit.handle(event, now=self._loop.time() - self._zero, fresh=uuid4())
        if self.visit.state is not before:
            self._see("state", {"state": self.visit.state.value})
        for done, effect in enumerate(effects, 1):
            try:
                await self._carry_out(effect)
            except _NotDurable as error:
                await self._broken(str(error), effects[done:])
                return

    async def _broken(self, reason: str, rest: tuple[e.Effect, ...]) -> None:
        """A record was not durable: what should have followed it does not, and the visit ends closed.

        A visit that was ending anyway goes on with that, without records and without the gate.
        """
        broken = e.Broken(f"audit: {reason}", any(isinstance(effect, e.OpenGate) for effect in rest))
        ending = self.visit.handle(broken, now=self._loop.time() - self._zero, fresh=uuid4())
        for effect in ending or rest:
            if not isinstance(effect, e.Record | e.OpenGate):
                await self._carry_out(effect)

    # ----------------------------------------------------------------------------------------------------
    # Effects
    # ----------------------------------------------------------------------------------------------------

    async def _carry_out(self, effect: e.Effect) -> None:
        match effect:
            case e.Record(kind, data):
                await self._record(kind, data)
                if kind == "decision" and data["decision"] == "denied":
                    self._tell_refusal()
            case e.Reply(call, result, speak):
                await self._answer(call, result, speak)
            case e.AskOutside(call, _, tool):
                if (refusal := self._outside.refusal(tool)) is not None:
                    await self._answer(call, refusal, "now")
                else:
                    self._spawn(f"tool {tool}", self._ask_outside(effect))
            case e.SayExactly():
                await self._say(effect)
            case e.Prompt(role, sentence):
                if leg := self._leg(role):
                    leg.prompt(self.place.sentences.say(sentence, self.visit.facts, {}))
            case e.AutoReply(role, on):
                if leg := self._leg(role):
                    leg.auto_reply(on)
            case e.HoldAudio(on):
                self.visitor.hold(self.place.hold if on else None)
            case e.Connect():
                self._connect()
            case e.Disconnect():
                for leg in self._legs.values():
                    leg.disconnect()
            case e.Dial():
                self._open_ahead(effect)
                self._dials[effect.attempt] = self._spawn("dial", self._dial(effect))
            case e.CancelDial(attempt):
                if task := self._dials.get(attempt):
                    task.cancel()
            case e.OpenGate():
                self._spawn("gate", self._open_gate(effect))
            case e.PrepareTransfer(to):
                self._spawn("transfer", self._prepare_transfer(to))
            case e.UndoTransfer():
                self._spawn("transfer undone", self._undo_transfer())
            case e.SetTimer(name, seconds):
                self._set_timer(name, seconds)
            case e.StopTimer(name):
                self._stop_timer(name)
            case e.HangUp(role, attempt):
                self._hang_up(role, attempt)
            case e.Finish():
                self._finished = True

    def _leg(self, role: Role) -> Leg | None:
        """The open leg of a role, of the running attempt."""
        for leg in self._legs.values():
            if leg.role is role and not leg.closed and leg.attempt in (None, self.visit.attempt):
                return leg
        return None

    def _connect(self) -> None:
        """Let visitor and resident hear each other. Who is gone already is reported in the inbox."""
        visitor, resident = self._leg(Role.VISITOR), self._leg(Role.RESIDENT)
        if visitor is not None and resident is not None:
            to_visitor, to_resident = Line(), Line()
            visitor.connect(hears=to_visitor, speaks=to_resident)
            resident.connect(hears=to_resident, speaks=to_visitor)

    async def _say(self, effect: e.SayExactly) -> None:
        leg = self._leg(effect.role)
        if leg is None:
            self._inbox.put_nowait(e.SentencePlayed(effect.role, effect.tag, False))
            return
        sentences, facts = self.place.sentences, self.visit.facts
        if effect.last:
            text = sentences.say_last(effect.sentence, self.visit.outcome, facts, effect.fields)
        else:
            text = sentences.say(effect.sentence, facts, effect.fields)
        recording = self.place.settings.recording
        if recording.enabled:
            notice = recording.notice or sentences.sentences["recording_notice"]
            if effect.sentence in FIRST_WORDS:
                text = f"{text} {notice}"
            elif effect.tag == "briefing":  # a resident's first words; they end with the question
                text = f"{notice} {text}"
        if effect.last and leg.speechless:
            await self._lend_voice(leg)
        leg.say_exactly(text, effect.tag, protected=effect.protected)

    def _hang_up(self, role: Role, attempt: UUID | None) -> None:
        for leg in self._legs.values():
            if leg.role is role and (attempt is None or leg.attempt == attempt):
                leg.hang_up()

    async def _dial(self, dial: e.Dial) -> None:
        limits = self.place.settings.limits
        order = DialOrder(
            dial.attempt,
            self.visit.id,
            self.place.id,
            dial.number,
            self.place.hosts,
            self.place.resident_port,
            limits.ring_s,
        )
        try:
            async with asyncio.timeout(limits.ring_s + DIAL_GRACE_S):
                result = await self.place.dialer.dial(order)
        except TimeoutError:
            self._inbox.put_nowait(
                e.DialFailed(dial.attempt, e.DialOutcome.FAILED, "the dialer gave no answer")
            )
            return
        except Exception as error:
            self.log.error("dial.failed", error=type(error).__name__, exc_info=error)
            detail = type(error).__name__
            self._inbox.put_nowait(e.DialFailed(dial.attempt, e.DialOutcome.FAILED, detail))
            return
        if result.outcome is not None:
            self._inbox.put_nowait(e.DialFailed(dial.attempt, result.outcome, result.detail))

    async def _open_gate(self, effect: e.OpenGate) -> None:
        order = self._gate_order(effect.facts)
        try:
            answer = await self.place.gate.open(order)
        except Exception as error:
            self.log.error("gate.failed", error=type(error).__name__, exc_info=error)
            self._inbox.put_nowait(e.GateAnswered(False, f"error: {type(error).__name__}", unknown=True))
            return
        self.log.info("gate.answered", opened=answer.opened, unknown=answer.unknown, ms=answer.ms)
        self._inbox.put_nowait(e.GateAnswered(answer.opened, answer.detail, answer.unknown))

    async def _prepare_transfer(self, to: str) -> None:
        assert self.place.transfer is not None  # else the visit's rules know of no attendant
        prepare = partial(self.place.transfer.prepare, to=to, speaks=self._announcement())
        trouble = await self._tell_pbx(prepare)
        self.log.info("transfer.answered", ready=not trouble, detail=trouble)
        self._inbox.put_nowait(e.TransferAnswered(not trouble, trouble))

    def _announcement(self) -> Speaks | None:
        """What whoever takes the call over hears first; None where the tenant wants nothing said."""
        attendant = self.place.settings.attendant
        if attendant is None or not attendant.announce:
            return None
        return partial(spoken, self._house.voice, self.place.sentences.announcement(self.visit.facts))

    async def _undo_transfer(self) -> None:
        assert self.place.transfer is not None  # it undoes what was prepared
        trouble = await self._tell_pbx(self.place.transfer.undo)
        self.log.info("transfer.undone", done=not trouble, detail=trouble)
        if trouble:
            text = f"whether the PBX rings the attendant after this call is not known: {trouble}"
            self._inbox.put_nowait(_Noted(text))

    async def _tell_pbx(self, tell: Callable[[str], Awaitable[str]]) -> str:
        """One thing after the other, in the order in which the visit asked: the last one holds."""
        async with self._telling_pbx:
            try:
                return await tell(self.channel)
            except Exception as error:
                self.log.error("transfer.failed", error=type(error).__name__, exc_info=error)
                return f"error: {type(error).__name__}"

    def _gate_order(self, facts: Facts) -> GateOrder:
        return GateOrder(
            self.id,
            self.place.id,
            facts.apartment,
            datetime.now(UTC),
            resident=facts.resident,
            visitor=facts.visitor_name,
            intent=facts.intent.value,
            channel=self.channel,
        )

    def _tell_refusal(self) -> None:
        """Tell a gate that wants to know; the visit does not wait for it."""
        gate = self.place.gate
        if isinstance(gate, HearsRefusals) and self.visit.facts is not None:
            self._spawn("refusal", self._told_of_refusal(gate, self._gate_order(self.visit.facts)))

    async def _told_of_refusal(self, gate: HearsRefusals, order: GateOrder) -> None:
        try:
            detail = await gate.refused(order)
        except Exception as error:
            self.log.error("gate.refusal_not_told", error=type(error).__name__, exc_info=error)
            return
        if detail:
            self._inbox.put_nowait(_Noted(f"the gate's system was told of the refusal: {detail}"))

    async def _note_whose(self, leg: Leg) -> None:
        """A leg that came with the visit's id may be any attempt's: the record says no more than is known."""
        if leg.endpoint.call_id != leg.attempt:
            text = "came with the visit's own id: this attempt's phone, or one of an earlier attempt"
            await self._record_quietly("note", {"leg": leg.name, "text": text})

    # ----------------------------------------------------------------------------------------------------
    # Timers
    # ----------------------------------------------------------------------------------------------------

    def _set_timer(self, name: str, seconds: float) -> None:
        self._stop_timer(name)
        self._generation += 1
        rang = _Rang(name, self._generation)
        self._timers[name] = (self._generation, self._loop.call_later(seconds, self._inbox.put_nowait, rang))

    def _stop_timer(self, name: str) -> None:
        if found := self._timers.pop(name, None):
            found[1].cancel()

    # ----------------------------------------------------------------------------------------------------
    # Tool calls
    # ----------------------------------------------------------------------------------------------------

    async def _call_made(self, leg: Leg, call: ToolCall) -> None:
        key = f"{leg.name}/{call.id}"  # two sessions may number their calls alike
        request = self._calls[leg.name].begin(key, call.name, call.arguments)
        if isinstance(request, Repeated):
            if request.result is not None:
                leg.answer(call, request.result, "never")
            return
        self._open_calls[key] = _OpenCall(leg, call, self._loop.time())
        about = {"leg": leg.name, "call": call.id, "name": call.name, "arguments": understood(call.arguments)}
        if isinstance(request, e.OutsideRequested):
            try:
                await self._record("tool.called", about)
            except _NotDurable:  # what is not on record is not done
                await self._answer(key, {"status": "error", "message": "it can't be put on record"}, "now")
                return
        else:
            await self._record_quietly("tool.called", about)
        if isinstance(request, Refused):
            await self._send_answer(key, request.result, "now")
            return
        self._loop.call_later(DEADLINE_S, self._inbox.put_nowait, _Overdue(key))
        await self._handle(request)

    async def _ask_outside(self, effect: e.AskOutside) -> None:
        """Carry a declared tool's call out. What it answers is its model's, and no event of the visit."""
        call = OutsideCall(
            id=str(uuid5(self.visit.id, effect.call)),
            tool=effect.tool,
            arguments=effect.arguments,
            tenant=self.place.id,
            visit=self.id,
            role=effect.role.value,
            caller=self.call.caller_id if self.call is not None else "",
        )
        try:
            answer = await self._outside.ask(call)
        except Exception as error:
            self.log.error("tool.failed", error=type(error).__name__, exc_info=error)
            about = {"trouble": f"error: {type(error).__name__}"}
            answer = OutsideAnswer({"status": "error", "message": "the service can't be asked now"}, about)
        self._inbox.put_nowait(_Answered(effect.call, answer))

    async def _answer(
        self, key: str, result: Mapping[str, Any], speak: e.Speak, outside: Mapping[str, Any] | None = None
    ) -> None:
        found = self._open_calls.get(key)
        if found is not None and self._calls[found.leg.name].settle(key, result):
            await self._send_answer(key, result, speak, outside)

    async def _send_answer(
        self, key: str, result: Mapping[str, Any], speak: e.Speak, outside: Mapping[str, Any] | None = None
    ) -> None:
        made = self._open_calls.pop(key)
        made.leg.answer(made.call, result, speak)
        await self._record_quietly(
            "tool.answered",
            {
                "leg": made.leg.name,
                "call": made.call.id,
                "name": made.call.name,
                "result": dict(result),
                "ms": round((self._loop.time() - made.began) * 1000, 1),
                "status": str(result.get("status", "ok")),
                **({"outside": dict(outside)} if outside is not None else {}),
            },
        )

    # ----------------------------------------------------------------------------------------------------
    # Records
    # ----------------------------------------------------------------------------------------------------

    async def _record(self, kind: str, data: Mapping[str, Any]) -> None:
        if kind == "visit.ended":  # the last word: what the recordings hold, and the cost, is said before it
            await self._complete_tapes()
            await self._settle()
        try:
            await self._house.storage.append(self.place.id, self.id, stamp(datetime.now(UTC)), kind, data)
        except StorageError as error:
            self.log.error("record.failed", kind=kind, error=type(error).__name__, reason=str(error))
            raise _NotDurable(f"{kind}: {type(error).__name__}") from error
        self._see(kind, data)

    async def _record_quietly(self, kind: str, data: Mapping[str, Any]) -> None:
        """A record on which nothing rests: that it failed is in the log, and the visit goes on."""
        try:
            await self._record(kind, data)
        except _NotDurable:
            self.log.warning("visit.goes_on_without_record", kind=kind)

    def _reckon_later(self) -> None:
        self._reckoning = self._loop.call_later(COST_S, self._inbox.put_nowait, _Reckon())

    async def _record_cost(self, *, final: bool) -> None:
        """Put on record what the visit has cost so far, where that is new."""
        for leg in self._legs.values():
            leg.bill_time()
        data = self._account.bill().data(final=final)
        if data != self._reckoned:
            self._reckoned = data
            await self._record_quietly("visit.cost", data)

    async def _settle(self) -> None:
        """The sessions of closed legs say last what they cost; a session that is left may still cost more."""
        closing = [one for leg, tasks in self._sessions.items() if self._legs[leg].closed for one in tasks]
        if closing:
            await asyncio.wait(closing, timeout=SETTLE_S)
        if not all(task.done() for tasks in self._sessions.values() for task in tasks):
            self._account.cut_short()
        await self._record_cost(final=True)

    async def _complete_tapes(self) -> None:
        """Have the recordings completed, and say in the audit log what they hold."""
        for tape in self._tapes.values():
            tape.close()
        await asyncio.gather(*(tape.finished(RECORDINGS_S) for tape in self._tapes.values()))
        for name, tape in self._tapes.items():
            late = RecordingFailure(name, "slow", "not complete when the visit ended")
            for thing in (tape.failure, tape.result) if tape.failure or tape.result else (late,):
                if thing is not None:
                    await self._tell_of_tape(thing)

    async def _tell_of_tape(self, thing: _OfRecording) -> None:
        if thing not in self._told_of_tapes:  # both its own word and the visit's end lead here
            self._told_of_tapes.add(thing)
            failed = isinstance(thing, RecordingFailure)
            await self._record_quietly("recording.failed" if failed else "recording.closed", asdict(thing))

    def _see(self, kind: str, data: Mapping[str, Any]) -> None:
        at_ms = round((self._loop.time() - self._zero) * 1000, 1)
        seen = Seen(self.id, at_ms, kind, data, self.place.id)
        for watcher in self._house.watchers:
            watcher(seen)

    # ----------------------------------------------------------------------------------------------------
    # The end
    # ----------------------------------------------------------------------------------------------------

    async def end(self, reason: str) -> None:
        """End the visit from outside, closed."""
        self._inbox.put_nowait(e.Broken(reason))

    def hang_up(self, leg: str | None, by: str) -> bool:
        """Have a person hang up a leg, or (None) all of the visit; False where it has no such leg open.

        `visit.hung_up` is on record before anything is hung up, as far as anything can be.
        """
        if leg is None:
            self._inbox.put_nowait(e.HungUpByPerson(by))
            return True
        found = self._legs.get(leg)
        if found is None or found.closed:
            return False
        self._inbox.put_nowait(e.HungUpByPerson(by, leg, found.role, found.attempt))
        return True

    async def _let_go(self) -> None:
        for _, handle in self._timers.values():
            handle.cancel()
        self._timers.clear()
        if self._reckoning is not None:
            self._reckoning.cancel()
        for call in (self.visit.id, self._ringing):
            if call is not None:
                self._house.ahead.close(call)
        for leg in self._legs.values():
            leg.hang_up()
            self._house.clock.discard(leg)
        pending = list(self._tasks)
        for task in pending:
            task.cancel()
        if pending:
            _, late = await asyncio.wait(pending, timeout=LAST_WORDS_S)
            if late:
                self.log.error("visit.tasks_left", tasks=[task.get_name() for task in late])
        for tape in self._tapes.values():
            tape.close()


def understood(arguments: str) -> Any:
    """A model's arguments as JSON, where they are and can be on record as such; the text itself where not."""
    try:
        found = orjson.loads(arguments)
        canonical({"arguments": found})
    except ValueError:  # no JSON; nested too deep
        return arguments
    return found


def _turn(leg: Leg, turn: TurnEnded) -> dict[str, Any]:
    data: dict[str, Any] = {
        "leg": leg.name,
        "speaker": turn.speaker,
        "text": turn.text,
        "started_ms": turn.started_ms,
        "ended_ms": turn.ended_ms,
        "response_ms": turn.response_ms,
        "interrupted": turn.interrupted,
        "heard_ms": turn.heard_ms,
    }
    if turn.speech_to_silence_ms is not None:
        data["speech_to_silence_ms"] = turn.speech_to_silence_ms
    if turn.pauses:
        data["pauses"] = [list(pause) for pause in turn.pauses]
    return data
