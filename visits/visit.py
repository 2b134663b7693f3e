"""A visit: from the ring to the goodbye, as one table of states and events.

The models *ask*; this file decides. What must always hold, whoever asks and however cleverly:

1. The gate opens at most once a visit, and only on a resident's authorisation given while `consulting`, or
   by key while `connected`.
2. That needs a resident leg which this visit dialled, known by the id minted for that one dial attempt,
   still connected.
3. It needs the briefing (who, what for, to which apartment) to have been *played to its end* on that leg.
4. It needs evidence from that leg after the briefing: words that the local VAD heard being said and that
   `consent.classify` reads as consent, or the tenant's key; where the tenant wants it, that key alone.
   A refusal, a question, a doubt as the last word
   (by when it was said, not by when its transcript came) vetoes the model; so does speech whose words are not
   known, or were told otherwise before, and so does speech that begins while the decision is held for a
   moment of quiet, in which we say nothing either: our own voice would cover a soft "não". Words not
   transcribed in time are asked for again; then the key; then `unreachable`. A refusal that comes after the
   order is told as what it is: too late.
5. Nothing said on the visitor's leg is ever evidence, nor what may be its echo while it is read to the
   resident, nor anything that the two say to each other. What crosses to the models is typed facts
   (`visits/facts.py`), the resident's question and its answer.
6. Silence, noise, time-outs, hang-ups, crashes and errors end closed.
7. What was decided is on record before the gate moves: `Record` comes before `OpenGate`, and the host makes
   each `Record` durable before it goes on to the next effect.

No I/O: `Visit.handle` takes an event, the time and an unused id, and returns the effects, in the order in
which they must happen. The table is at the end of the file; what is not in it does not happen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from visits.consent import Reading, classify
from visits.departments import Departments
from visits.directory import Apartment, Directory
from visits.events import (
    AskOutside,
    AttendantRequested,
    AuthorizeRequested,
    AutoReply,
    Broken,
    CallRequested,
    CancelDial,
    Connect,
    ConnectRequested,
    DenyRequested,
    DetailsRequested,
    Dial,
    DialAnswered,
    DialFailed,
    DialOutcome,
    Disconnect,
    Effect,
    EndRequested,
    Event,
    Finish,
    GateAnswered,
    HangUp,
    HoldAudio,
    HungUpByPerson,
    KeyPressed,
    LegClosed,
    LookupRequested,
    OpenGate,
    OurVoice,
    Outcome,
    OutsideRequested,
    PrepareTransfer,
    Prompt,
    QuestionRequested,
    Record,
    Reply,
    Role,
    Said,
    SayExactly,
    SentencePlayed,
    SessionLost,
    SetTimer,
    SilenceElapsed,
    Speak,
    SpeechBegan,
    SpeechEnded,
    Started,
    StatusRequested,
    StopTimer,
    TimerFired,
    ToolRequest,
    TransferAnswered,
    TransferRequested,
    TurnBegan,
    TurnLost,
    UndoTransfer,
    ValidationRequested,
)
from visits.facts import Facts, Intent, clean_name, clean_sentence
from visits.relay import relay
from visits.standing import fitting


class State(StrEnum):
    """Where a visit stands. The outcome of a visit that is `closing` or `ended` is `Visit.outcome`."""

    GREETING = "greeting"
    COLLECTING = "collecting"
    VALIDATED = "validated"
    DIALING = "dialing"
    CONSULTING = "consulting"
    CONNECTED = "connected"
    """Visitor and resident talk to each other, or are told that they will; a key decides, or comes back."""
    AUTHORIZED = "authorized"
    """Decided and on record; the gate has its order and its answer is awaited."""
    CLOSING = "closing"
    ENDED = "ended"


WITH_MODELS = (State.GREETING, State.COLLECTING, State.VALIDATED, State.DIALING, State.CONSULTING)
BEFORE_DECISION = (*WITH_MODELS, State.CONNECTED)
WITH_VISITOR = (State.GREETING, State.COLLECTING, State.VALIDATED)


@dataclass(frozen=True, slots=True)
class VisitRules:
    """What a tenant may choose. Times in seconds. No choice here can loosen the seven rules."""

    lookup_attempts: int = 3
    """Wrong apartments and wrong names that a visitor may give before the attendant is offered."""
    dial_attempts: int = 2
    ring_s: float = 25.0
    consult_s: float = 120.0
    connected_s: float = 180.0
    """How long visitor and resident may talk to each other."""
    visit_s: float = 300.0
    silence_prompts: int = 2
    """How often a silent caller is spoken to before we give up."""
    transcript_s: float = 3.0
    """How long a model's request waits for the words it rests on."""
    question_s: float = 20.0
    gate_s: float = 20.0
    closing_s: float = 20.0
    still_calling_s: float = 12.0
    pickup_s: float = 1.2
    """How long we wait for the resident's "Alô?" before the briefing."""
    authorize_key: str = "1"
    """The resident's DTMF key; empty: keys do not count."""
    deny_key: str = "2"
    spoken_consent: bool = True
    """Words authorise as well. False: the key alone does; a spoken refusal is one all the same."""
    gate: str = "record"
    """What the gate is, for the record."""
    attendant: bool = False
    """A person can take the visitor's call over: there is one, and the PBX's channel is known."""
    departments: Departments | None = None
    """Where the visitor's call can be put through to; None: nowhere, or its channel is not known."""
    resident_name_for: frozenset[Intent] = frozenset({Intent.VISIT})
    """Errands for which the visitor must know who they came for."""
    visitor_name_for: frozenset[Intent] = frozenset({Intent.VISIT})


@dataclass(frozen=True, slots=True)
class Heard:
    """A turn of the resident's whose words are known."""

    item: str
    text: str
    reading: Reading
    began: float
    voiced: bool


UNCLEAR_LIMIT = 4
"""Requests without evidence that a resident's model may make before the visit gives up."""
BRIEFING_LIMIT = 3
"""Times that the briefing is begun before the visit gives up; from the second on nobody can talk over it."""
OPEN_TURN_S = 8.0
"""After which a turn that the provider began to hear and never ended is asked for again."""
HOLD_S = 0.2
"""How long a resident must be quiet once a spoken authorisation was found good: a "não" that begins then is
heard by the local VAD within it."""
NO_QUIET_S = 10.0
"""How long such an authorisation waits for our own voice to be over; then the model is told to ask again."""
CONNECTING_S = 20.0
"""How long it may take to tell both that they will be connected."""
PARTING_S = 15.0
"""How long before its end a conversation between the two is said to end."""
BACK_S = 30.0
"""What is kept of the visit's time to ask the resident again after that conversation."""
RETURN_KEYS = ("0", "9", "5")
"""The first that does not decide brings a connected resident back to the doorman."""
LAST_COMFORT_S = 5.0
"""So shortly before the ring time is over the visitor is no more told that we are still calling."""
TRANSFER_S = 5.0
"""How long the PBX may take to be told of the attendant; less than a tool call has (`tools.registry`)."""
LAST_WORDS_S = 6.0
"""How long who lost their model is told so in a voice of our own, before they are hung up all the same."""
HANG_UP_S = 5.0
"""How long a leg that was hung up may take to close before the visit ends without it."""
_UNHEARD = None
"""Stands among the turns for speech that the local VAD heard and the provider did not; no item's name."""


class Visit:
    """One visitor's errand."""

    def __init__(self, visit_id: UUID, rules: VisitRules, directory: Directory) -> None:
        self.id = visit_id
        self.rules = rules
        self.directory = directory
        self.state = State.GREETING
        self.outcome: Outcome | None = None
        self.reason = ""
        self._last_reason = ""
        """Why the visitor left, in the model's words."""
        self.facts: Facts | None = None
        self.legs: set[Role] = {Role.VISITOR}
        self.attempt: UUID | None = None
        """The running dial, and then the resident's leg; any other id is a stranger's."""
        self._now = 0.0
        self._fresh = visit_id
        self._failed_lookups = 0
        self._apartment: Apartment | None = None
        self._numbers: tuple[str, ...] = ()
        """What this visit may call, in the order to try."""
        self._began: tuple[float, datetime] | None = None
        """The visit's clock and the tenant's when it began; None where the tenant's is not known."""
        self._attempts = 0
        self._dialing_since = 0.0
        self._ring_until = 0.0
        self._briefings = 0
        self._briefing_on_air = False
        self._briefed_at: float | None = None
        self._answers_on_air = 0
        self._counts_from = 0.0
        """Speech that began earlier is no evidence: the briefing, or the visitor's answer, was being said."""
        self._turns: dict[str | None, Heard | None] = {}
        """The resident's turns in the order in which they began (transcripts come in any); None: no words."""
        self._open_turns: set[str] = set()
        """Those whose words may still come."""
        self._speaking = False
        self._unheard = False
        """The local VAD heard speech that no turn of the provider's covers yet."""
        self._pending: AuthorizeRequested | DenyRequested | None = None
        self._holding = False
        """The pending authorisation was found good, and is held for a moment of quiet."""
        self._our_voice = False
        """The resident hears us: quiet means nothing."""
        self._not_yet = 0
        self._told: set[Role] = set()
        """Who has heard that the two will be connected."""
        self._connected_at: float | None = None
        self._talk_s = 0.0
        """How long the two may talk this time."""
        self._silences = {Role.VISITOR: 0, Role.RESIDENT: 0}
        self._question_put = False
        self._question_at = 0.0
        self._mute: set[Role] = set()
        """Legs whose model is gone for good: nothing more is said on them but the goodbye."""
        self._goodbyes: dict[Role, SayExactly] = {}
        """What is said last on each leg."""
        self._hung_up = False
        self._cut: set[Role] = set()
        """Legs that a person hung up: nothing is said on them any more."""
        self._handing_over: AttendantRequested | TransferRequested | None = None
        """What asked for the attendant, or for a department, while the PBX is being told."""
        self._whom = ""
        """The department or the extension that is rung in the attendant's place."""
        self._promised = False
        """The visitor is told that a person takes the call over."""
        self._unserved = ""
        """Why no model talks with the visitor at all."""
        self._stranded = False
        """A leg's model is gone for good, and the PBX is being told of the attendant because of it."""
        self._gate_ordered = False
        self._gate_opened: bool | None = None
        """What the gate answered; None: nothing yet."""
        self._too_late = False
        """The resident refused after the gate had its order."""
        self._last_words = False
        """The resident is being told so after their goodbye."""

    def handle(self, event: Event, *, now: float, fresh: UUID) -> tuple[Effect, ...]:
        """What follows from an event.

        Args:
            event: what happened.
            now: seconds on the visit's clock; never goes back.
            fresh: an id that was never used; taken where a dial attempt needs one.

        Returns:
            The effects, in the order in which they must happen.
        """
        self._now, self._fresh = now, fresh
        action = TABLE.get((self.state, type(event)))
        if action is not None:
            return tuple(action(self, event))
        if isinstance(event, ToolRequest):
            return (Reply(event.call, {"status": "refused", "reason": f"not_while_{self.state}"}, "never"),)
        return ()

    @property
    def leg(self) -> str:
        """The resident's leg of the running dial attempt, as records name it."""
        return f"resident-{self._attempts}"

    def expects(self, attempt: UUID) -> bool:
        """Whether a resident's call with this id belongs to a dial that is running now."""
        return self.state is State.DIALING and attempt == self.attempt

    # ----------------------------------------------------------------------------------------------------
    # The visitor
    # ----------------------------------------------------------------------------------------------------

    def start(self, event: Started) -> Iterator[Effect]:
        yield SetTimer("visit", self.rules.visit_s)
        self._unserved = event.unserved
        self._began = None if event.at is None else (self._now, event.at)
        if not event.unserved:
            yield SayExactly(Role.VISITOR, "greeting", {}, "greeting")
            return
        self._mute.add(Role.VISITOR)
        if self.rules.attendant:
            self._stranded = True
            yield from self._prepare_transfer()
        else:
            yield from self._without_a_model()

    def greeted(self, event: SentencePlayed) -> Iterator[Effect]:
        if event.tag == "greeting":
            self.state = State.COLLECTING
        yield from ()

    def visitor_turn(self, event: TurnBegan) -> Iterator[Effect]:
        self._silences[event.role] = 0
        yield from ()

    def visitor_silent(self, event: SilenceElapsed) -> Iterator[Effect]:
        if event.role is not Role.VISITOR:
            return
        self._silences[Role.VISITOR] += 1
        if self._silences[Role.VISITOR] <= self.rules.silence_prompts:
            yield Prompt(Role.VISITOR, "visitor_silent_note")
        else:
            yield from self._close(Outcome.ABANDONED, "silent_line", visitor="goodbye_silence")

    def look_up(self, event: LookupRequested) -> Iterator[Effect]:
        if self._exhausted:
            yield Reply(event.call, {"status": "exhausted"})
            return
        match = self.directory.find_apartment(event.spoken)
        if match.apartment is not None:
            unsure = {} if match.exact else {"confirm": True}
            yield Reply(event.call, {"status": "found", "apartment": match.apartment.label, **unsure})
        elif match.status == "ambiguous":
            labels = [apartment.label for apartment in match.candidates]
            yield Reply(event.call, {"status": "ambiguous", "candidates": labels})
        else:
            yield Reply(event.call, self._failed_lookup("not_found"))

    def validate(self, event: ValidationRequested) -> Iterator[Effect]:
        if self._exhausted:
            yield Reply(event.call, {"status": "exhausted"})
            return
        found = self.directory.find_apartment(event.apartment)
        if found.apartment is None:
            yield Reply(event.call, self._failed_lookup("apartment_not_found"))
            return
        match = self.directory.match_resident(found.apartment, event.spoken)
        if match.status == "match":
            self.state = State.VALIDATED
            yield Reply(event.call, {"status": "match"})
        elif match.status == "ambiguous":
            yield Reply(event.call, {"status": "ambiguous"})
        else:
            yield Reply(event.call, self._failed_lookup("no_match"))

    @property
    def _exhausted(self) -> bool:
        return self._failed_lookups >= self.rules.lookup_attempts

    def _failed_lookup(self, status: str) -> Mapping[str, Any]:
        self._failed_lookups += 1
        if self._exhausted:
            return {"status": "exhausted"}
        return {"status": status, "attempts_left": self.rules.lookup_attempts - self._failed_lookups}

    def call_resident(self, event: CallRequested) -> Iterator[Effect]:
        facts = self._facts_of(event)
        if isinstance(facts, str):
            yield Reply(event.call, {"status": "refused", "reason": facts})
            return
        self.facts = facts
        self.state = State.DIALING
        self._dialing_since = self._now
        yield Reply(event.call, {"status": "dialing"}, "never")
        yield from self._heed_the_directory()
        yield SayExactly(Role.VISITOR, "calling", {}, "calling")
        yield HoldAudio(True)
        yield from self._dial()

    def _heed_the_directory(self) -> Iterator[Effect]:
        """Whom to call in which order at this time, and whether the visitor is expected.

        A standing authorisation decides nothing: it is on record, and the resident hears of it.
        """
        assert self._apartment is not None and self.facts is not None
        at = self._local_time
        self._numbers = self._apartment.numbers(self.facts.resident, at)
        held_back = len(self._apartment.every_number(self.facts.resident)) - len(self._numbers)
        if held_back:
            text = f"numbers that are not called now, by quiet hours or do-not-call: {held_back}"
            yield Record("note", {"about": "dial", "text": text})
        expected = at and fitting(self._apartment.standing, (self.facts.visitor_name, self.facts.company), at)
        if expected:
            self.facts = replace(self.facts, standing=clean_name(expected.name))
            yield Record("note", {"about": "standing authorisation", "text": str(expected)})

    @property
    def _local_time(self) -> datetime | None:
        """The tenant's clock now."""
        return self._began and self._began[1] + timedelta(seconds=self._now - self._began[0])

    def _facts_of(self, event: CallRequested) -> Facts | str:
        """The facts that may cross to the resident, or why the resident isn't called."""
        if self._exhausted:
            return "exhausted"
        intent = Intent.read(event.intent)
        if intent is None:
            return "intent_unknown"
        apartment = self.directory.find_apartment(event.apartment).apartment
        if apartment is None:
            self._failed_lookup("not_found")
            return "exhausted" if self._exhausted else "apartment_unknown"
        self._apartment = apartment
        resident = ""
        if event.resident_name.strip():
            match = self.directory.match_resident(apartment, event.resident_name)
            if match.status != "match" or match.resident is None:
                self._failed_lookup("no_match")
                return "exhausted" if self._exhausted else "resident_not_validated"
            resident = match.resident
        elif intent in self.rules.resident_name_for:
            return "resident_name_required"
        name = clean_name(event.visitor_name)
        if not name and intent in self.rules.visitor_name_for:
            return "visitor_name_required"
        return Facts(intent, apartment.label, name, resident, clean_name(event.company))

    def already_dialing(self, event: CallRequested) -> Iterator[Effect]:
        yield Reply(event.call, {"status": "already_dialing"}, "never")

    def status(self, event: StatusRequested) -> Iterator[Effect]:
        seconds = round(self._now - self._dialing_since) if self._attempts else 0
        yield Reply(event.call, {"status": self.state.value, "seconds": seconds})

    def attendant(self, event: AttendantRequested) -> Iterator[Effect]:
        """Nobody is promised before the PBX knows whom to ring; until then the visit goes on."""
        if not self.rules.attendant:
            yield Reply(event.call, {"status": "unavailable"})
        elif self._handing_over is not None:
            yield Reply(event.call, {"status": "pending"}, "never")
        else:
            self._handing_over = event
            if not self._stranded:  # else it is being told already
                yield from self._prepare_transfer()

    def transfer(self, event: TransferRequested) -> Iterator[Effect]:
        """To a department or an extension: only to one that the tenant names."""
        if self.rules.departments is None:
            yield Reply(event.call, {"status": "unavailable"})
            return
        if self._handing_over is not None or self._stranded:
            yield Reply(event.call, {"status": "pending"}, "never")
            return
        match = self.rules.departments.find(event.to)
        if match.status != "found":
            yield Reply(event.call, {"status": match.status, "departments": list(match.candidates)})
            return
        self._handing_over, self._whom = event, match.name or match.extension
        yield from self._prepare_transfer(match.extension)

    def _prepare_transfer(self, to: str = "") -> Iterator[Effect]:
        yield PrepareTransfer(to)
        yield SetTimer("transfer", TRANSFER_S)

    def transfer_answered(self, event: TransferAnswered) -> Iterator[Effect]:
        request, self._handing_over = self._handing_over, None
        elsewhere = isinstance(request, TransferRequested)
        yield StopTimer("transfer")
        if request is None and not self._stranded:  # given up on: the visitor was told that nobody comes
            yield from self._transfer_unused(event)
            return
        self._promised = event.ready
        if request is not None and event.ready:
            yield Reply(request.call, {"status": "transferring"}, "never")
        elif request is not None:
            yield Reply(request.call, {"status": "unavailable"})
        if event.ready:
            yield self._note_transfer(event)
        else:
            yield from self._transfer_unused(event)
        if self._stranded:
            yield from self._without_a_model()
        elif event.ready:
            yield from self._handed_over(elsewhere)

    def _handed_over(self, elsewhere: bool) -> Iterator[Effect]:
        yield from self._close(
            Outcome.UNREACHABLE,
            "transferred" if elsewhere else "attendant",
            visitor="transfer_elsewhere" if elsewhere else "transfer",
            resident="goodbye_resident_visitor_left",
        )

    def transfer_silent(self) -> Iterator[Effect]:
        yield from self.transfer_answered(TransferAnswered(False, "no answer in time"))

    def transfer_answered_late(self, event: TransferAnswered) -> Iterator[Effect]:
        yield from self._transfer_unused(event)

    def _transfer_unused(self, event: TransferAnswered) -> Iterator[Effect]:
        """Nobody's phone rings for a visitor who was let in or turned away, nor where an answer was lost."""
        if not self._promised and Role.VISITOR in self.legs:
            yield UndoTransfer()
        yield self._note_transfer(event)

    def _note_transfer(self, event: TransferAnswered) -> Record:
        ready = "the PBX rings them after this call" if self._promised else "not needed any more"
        how = ready if event.ready else f"can't be: {event.detail}"
        whom, self._whom = self._whom or "the attendant", ""
        return Record("note", {"leg": "visitor", "text": f"transfer to {whom}: {how}"})

    def ask_outside(self, event: OutsideRequested) -> Iterator[Effect]:
        """A tool of the tenant's own changes nothing here, and no answer of its ever comes back here."""
        yield AskOutside(event.call, event.role, event.tool, event.arguments)

    def end(self, event: EndRequested) -> Iterator[Effect]:
        yield Reply(event.call, {"status": "ending"}, "never")
        if event.role is Role.VISITOR:
            self._last_reason = clean_sentence(event.reason)
            yield from self._close(
                Outcome.ABANDONED,
                "visitor_ended",
                visitor="goodbye_abandoned",
                resident="goodbye_resident_visitor_left",
            )
        else:
            yield from self._undecided("resident_ended")

    def time_up(self) -> Iterator[Effect]:
        asked = self.state in (State.DIALING, State.CONSULTING, State.CONNECTED)
        yield from self._close(
            Outcome.UNREACHABLE if asked else Outcome.ABANDONED,
            "time_limit",
            visitor="goodbye_time_limit",
            resident="goodbye_resident_undecided",
        )

    # ----------------------------------------------------------------------------------------------------
    # Calling the resident
    # ----------------------------------------------------------------------------------------------------

    def _dial(self) -> Iterator[Effect]:
        assert self.facts is not None
        if not self._numbers:
            yield from self._unreachable(DialOutcome.INVALID, "the directory has no number to call now")
            return
        number = self._numbers[self._attempts % len(self._numbers)]
        self._attempts += 1
        self.attempt = self._fresh
        yield Record(
            "dial.started",
            {"attempt": str(self.attempt), "number": self._attempts, "apartment": self.facts.apartment},
        )
        yield SetTimer("ring", self.rules.ring_s)
        self._ring_until = self._now + self.rules.ring_s
        yield from self._comfort_later()
        yield Dial(self.attempt, self.facts.apartment, number)

    def dial_failed(self, event: DialFailed) -> Iterator[Effect]:
        if event.attempt == self.attempt:
            yield from self._dial_ended(event.outcome, event.detail)

    def rang_out(self) -> Iterator[Effect]:
        assert self.attempt is not None
        yield CancelDial(self.attempt)
        yield from self._dial_ended(DialOutcome.NO_ANSWER, "the ring time ran out")

    def _dial_ended(self, outcome: DialOutcome, detail: str) -> Iterator[Effect]:
        attempt, self.attempt = self.attempt, None
        yield Record("dial.ended", {"attempt": str(attempt), "outcome": outcome.value, "detail": detail})
        no_other = outcome is DialOutcome.INVALID and self._attempts >= len(self._numbers)
        if no_other or self._attempts >= self.rules.dial_attempts:
            yield from self._unreachable(outcome, detail)
            return
        again = "second_attempt_busy" if outcome is DialOutcome.BUSY else "second_attempt"
        yield SayExactly(Role.VISITOR, again, {}, "second_attempt")
        yield from self._dial()

    def _unreachable(self, outcome: DialOutcome, detail: str) -> Iterator[Effect]:
        sentence = {
            DialOutcome.BUSY: "goodbye_busy",
            DialOutcome.NO_ANSWER: "goodbye_no_answer",
        }.get(outcome, "goodbye_unreachable")
        yield from self._close(Outcome.UNREACHABLE, outcome.value, visitor=sentence)

    def still_calling(self) -> Iterator[Effect]:
        yield SayExactly(Role.VISITOR, "still_calling", {}, "still_calling")
        yield from self._comfort_later()

    def _comfort_later(self) -> Iterator[Effect]:
        """Said when the ringing is all but over, it would only contradict what follows."""
        if self._now + self.rules.still_calling_s <= self._ring_until - LAST_COMFORT_S:
            yield SetTimer("still_calling", self.rules.still_calling_s)
        else:
            yield StopTimer("still_calling")

    def answered(self, event: DialAnswered) -> Iterator[Effect]:
        if event.attempt != self.attempt:
            yield HangUp(Role.RESIDENT, event.attempt)
            return
        self.state = State.CONSULTING
        self.legs.add(Role.RESIDENT)
        self._our_voice = False
        yield StopTimer("ring")
        yield StopTimer("still_calling")
        yield Record("dial.ended", {"attempt": str(self.attempt), "outcome": "answered"})
        yield SayExactly(Role.VISITOR, "resident_answered", {}, "resident_answered")
        yield AutoReply(Role.RESIDENT, False)
        yield SetTimer("consult", self.rules.consult_s)
        yield SetTimer("pickup", self.rules.pickup_s)

    def stranger(self, event: DialAnswered) -> Iterator[Effect]:
        yield HangUp(Role.RESIDENT, event.attempt)

    # ----------------------------------------------------------------------------------------------------
    # The briefing: who, what for, to which apartment; heard to its end before anything counts
    # ----------------------------------------------------------------------------------------------------

    def resident_speaks(self, event: SpeechBegan) -> Iterator[Effect]:
        if event.role is not Role.RESIDENT:
            return
        self._speaking = True
        self._unheard = not self._open_turns
        yield from self._hold_broken()
        if self._waiting_to_brief:
            yield SetTimer("pickup", 3.0)

    def resident_pauses(self, event: SpeechEnded) -> Iterator[Effect]:
        if event.role is not Role.RESIDENT:
            return
        self._speaking = False
        if self._waiting_to_brief:
            yield SetTimer("pickup", 0.3)
        yield from self._settle()

    @property
    def _waiting_to_brief(self) -> bool:
        return self._briefed_at is None and not self._briefing_on_air

    def brief(self) -> Iterator[Effect]:
        if not self._waiting_to_brief:
            return
        if self._briefings >= BRIEFING_LIMIT:
            yield from self._undecided("briefing_not_heard")
            return
        assert self.facts is not None
        self._briefings += 1
        self._briefing_on_air = True
        sentence = f"briefing_{self.facts.intent}"
        sentence += "_name" if self.facts.visitor_name else ""
        sentence += "_company" if self.facts.company else ""
        yield SayExactly(Role.RESIDENT, sentence, {}, "briefing", protected=self._briefings > 1)

    def sentence_played(self, event: SentencePlayed) -> Iterator[Effect]:
        if event.role is Role.RESIDENT and event.tag == "briefing" and self._briefing_on_air:
            self._briefing_on_air = False
            if event.complete:
                self._briefed_at = self._counts_from = self._now
                yield Record("briefing.played", {"attempt": str(self.attempt)})
                yield AutoReply(Role.RESIDENT, True)
                yield from self._only_by_key()
            else:
                yield SetTimer("pickup", 2.5)
        elif event.role is Role.RESIDENT and event.tag in ("answer", "back"):
            self._answer_over()
        elif event.role is Role.VISITOR and event.tag == "question" and self._question_put:
            yield SetTimer("question", self.rules.question_s)

    def _answer_over(self) -> None:
        if self._answers_on_air:
            self._answers_on_air -= 1
            self._counts_from = self._now

    # ----------------------------------------------------------------------------------------------------
    # The evidence
    # ----------------------------------------------------------------------------------------------------

    def turn_began(self, event: TurnBegan) -> Iterator[Effect]:
        self._silences[event.role] = 0
        if event.role is Role.RESIDENT:
            self._unheard = False
            self._open_turns.add(event.item)
            self._turns.pop(event.item, None)
            self._turns[event.item] = None
            yield SetTimer("open_turn", OPEN_TURN_S)
            yield from self._hold_broken()

    def said(self, event: Said) -> Iterator[Effect]:
        if event.role is Role.VISITOR:
            yield from self._visitor_answers(event)
            return
        if event.item not in self._turns:
            self._unheard = False
        self._open_turns.discard(event.item)
        reading = classify(event.text)
        if reading is Reading.NOTHING and event.voiced:
            reading = Reading.UNCLEAR  # somebody spoke and we don't know what: it may have been "não"
        before = self._turns.get(event.item)
        if reading is Reading.CONSENT and before is not None and before.reading is not Reading.CONSENT:
            reading = Reading.UNCLEAR  # of the same words a transcript said otherwise before
        self._turns[event.item] = Heard(event.item, event.text, reading, event.began, event.voiced)
        yield from self._settle()

    def turn_lost(self, event: TurnLost) -> Iterator[Effect]:
        if event.role is Role.RESIDENT:
            self._open_turns.discard(event.item)
            self._turns[event.item] = None
            yield from self._settle()

    def turn_never_ended(self) -> Iterator[Effect]:
        """The provider began to hear a turn and never said what: those words are lost."""
        self._open_turns.clear()
        yield from self._settle()

    def words_too_late(self) -> Iterator[Effect]:
        """What was said last is not known in time: whatever was said before it counts no more."""
        self._open_turns.clear()
        if self._speaking or self._unheard:
            self._unheard = False
            self._turns.pop(_UNHEARD, None)
            self._turns[_UNHEARD] = None
        yield from self._judge_pending()

    @property
    def _words_may_come(self) -> bool:
        """The resident is speaking, or has said something that is not known yet."""
        return bool(self._open_turns) or self._speaking or self._unheard

    def _settle(self) -> Iterator[Effect]:
        """A model's request that waited for words can be judged once no more are to come."""
        if not self._words_may_come:
            yield from self._judge_pending()

    def _judge_pending(self) -> Iterator[Effect]:
        if self._pending is None:
            return
        request, self._pending = self._pending, None
        self._holding = False
        yield StopTimer("words")
        if isinstance(request, AuthorizeRequested):
            yield from self._judge_consent(request)
        else:
            yield from self._judge_refusal(request)

    def _last_word(self, *, known: bool) -> Heard | None:
        """The last thing that the resident said which was not mere noise.

        None where nothing was said; and, unless `known`, where something was said after it that is not known.
        """
        for heard in reversed(self._turns.values()):
            if heard is None and not known:
                return None
            if heard is not None and heard.reading is not Reading.NOTHING:
                return heard
        return None

    def authorize(self, event: AuthorizeRequested) -> Iterator[Effect]:
        if self._briefed_at is not None and self._words_may_come:
            yield from self._wait_for_words(event)
        else:
            yield from self._judge_consent(event)

    def _judge_consent(self, event: AuthorizeRequested) -> Iterator[Effect]:
        consent = self._consent()
        if isinstance(consent, str):
            yield from self._refuse(event, consent)
        elif not self.rules.spoken_consent:
            yield from self._refuse(event, "key_only")
        else:
            yield from self._hold(event)

    def _consent(self) -> Heard | str:
        """The words that authorise, or why there are none."""
        last = self._last_word(known=False)
        if self._briefed_at is None:
            return "no_briefing"
        if last is None:
            return "no_answer"
        if last.reading is not Reading.CONSENT:
            return VETO.get(last.reading, "unclear")
        if not last.voiced or last.began < self._counts_from or self._answers_on_air:
            return "no_answer"
        if self._question_put:
            # "Vou perguntar." "Tá bom.": while the visitor is asked, agreement may be to that.
            return "question"
        return last

    def _hold(self, event: AuthorizeRequested) -> Iterator[Effect]:
        """Found good: it is carried out unless the resident begins to speak within a moment."""
        yield from self._supersede()
        self._pending = event
        self._holding = True
        yield SetTimer("no_quiet", NO_QUIET_S)
        if not self._our_voice:
            yield SetTimer("hold", HOLD_S)

    def _hold_broken(self) -> Iterator[Effect]:
        """What begins to be said now may take the authorisation back: its words are waited for."""
        if self._holding:
            self._holding = False
            yield StopTimer("hold")
            yield SetTimer("words", self.rules.transcript_s)

    def our_voice(self, event: OurVoice) -> Iterator[Effect]:
        """While the resident hears us the quiet is none; it begins when that is over."""
        if event.role is not Role.RESIDENT:
            return
        self._our_voice = event.on
        if self._holding:
            yield StopTimer("hold") if event.on else SetTimer("hold", HOLD_S)

    def never_quiet(self) -> Iterator[Effect]:
        request = self._pending
        if self._holding and isinstance(request, AuthorizeRequested):
            self._pending, self._holding = None, False
            yield StopTimer("hold")
            yield from self._refuse(request, "no_quiet")

    def quiet_held(self) -> Iterator[Effect]:
        request, consent = self._pending, self._consent()
        if not self._holding or self._our_voice or not isinstance(request, AuthorizeRequested):
            return
        self._pending, self._holding = None, False
        if isinstance(consent, str):  # the visitor is being asked something meanwhile
            yield from self._refuse(request, consent)
            return
        yield Reply(request.call, {"status": "authorized"}, "never")
        yield from self._authorized(self._speech(consent))

    def deny(self, event: DenyRequested) -> Iterator[Effect]:
        if self._words_may_come:
            yield from self._wait_for_words(event)
        else:
            yield from self._judge_refusal(event)

    def _judge_refusal(self, event: DenyRequested) -> Iterator[Effect]:
        """A refusal stands even if something unknown came after it: that keeps the gate closed."""
        last = self._last_word(known=True)
        if last is None or (last.reading is not Reading.REFUSAL and self._last_word(known=False) is None):
            yield from self._refuse(event, "no_answer")
        elif last.reading in NO_REFUSAL:
            yield from self._refuse(event, NO_REFUSAL[last.reading])
        else:
            yield Reply(event.call, {"status": "denied"}, "never")
            yield from self._denied(self._speech(last), clean_sentence(event.reason))

    def key(self, event: KeyPressed) -> Iterator[Effect]:
        if event.role is not Role.RESIDENT or not self.rules.authorize_key:
            return
        self._silences[Role.RESIDENT] = 0
        if event.digit == self.rules.deny_key:
            yield from self._denied(self._key(event.digit, Reading.REFUSAL), "key")
        elif event.digit == self.rules.authorize_key and self._briefed_at is not None:
            yield from self._authorized(self._key(event.digit, Reading.CONSENT))

    def _speech(self, said: Heard) -> Mapping[str, Any]:
        return {
            "attempt": str(self.attempt),
            "by": "voice",
            "item": said.item,
            "text": said.text,
            "reading": said.reading.value,
            "began_s": round(said.began, 3),
        }

    def _key(self, digit: str, reading: Reading) -> Mapping[str, Any]:
        return {
            "attempt": str(self.attempt),
            "by": "key",
            "key": digit,
            "reading": reading.value,
            "began_s": round(self._now, 3),
        }

    def _wait_for_words(self, event: AuthorizeRequested | DenyRequested) -> Iterator[Effect]:
        yield from self._supersede()
        self._pending = event
        yield SetTimer("words", self.rules.transcript_s)

    def _supersede(self) -> Iterator[Effect]:
        """What the model asked for before gives way to what it asks for now."""
        if self._pending is not None:
            yield Reply(self._pending.call, {"status": "not_yet", "reason": "superseded"}, "never")
        self._pending, self._holding = None, False

    def _refuse(self, event: AuthorizeRequested | DenyRequested, reason: str) -> Iterator[Effect]:
        self._not_yet += 1
        give_up = self._not_yet >= UNCLEAR_LIMIT
        use_key = self._not_yet >= 2 or reason == "key_only"
        use_key = use_key and bool(self.rules.authorize_key) and self._briefed_at is not None
        speak: Speak = "never" if give_up or use_key else "now"
        # The answer first: a call must not stay open because a note could not be made durable.
        yield Reply(event.call, {"status": "not_yet", "reason": reason}, speak)
        yield Record("note", {"leg": self.leg, "text": f"{type(event).__name__} not granted: {reason}"})
        if give_up:
            yield from self._undecided("unclear")
        elif use_key:
            yield self._use_key()

    def _use_key(self) -> SayExactly:
        keys = {"sim": self.rules.authorize_key, "nao": self.rules.deny_key}
        if not self.rules.spoken_consent:
            return SayExactly(Role.RESIDENT, "key_only", keys, "use_key")
        return SayExactly(Role.RESIDENT, "use_key", keys, "use_key")

    def _only_by_key(self) -> Iterator[Effect]:
        """What a question to the resident leaves out: that no word is the answer."""
        if not self.rules.spoken_consent and self.rules.authorize_key:
            yield self._use_key()

    def resident_silent(self, event: SilenceElapsed) -> Iterator[Effect]:
        if event.role is not Role.RESIDENT or self._briefed_at is None or self._question_put:
            return
        self._silences[Role.RESIDENT] += 1
        silences = self._silences[Role.RESIDENT]
        if silences > self.rules.silence_prompts:
            yield from self._undecided("resident_silent")
        elif self.rules.authorize_key and (
            silences == self.rules.silence_prompts or not self.rules.spoken_consent
        ):
            yield self._use_key()
        else:
            yield Prompt(Role.RESIDENT, "resident_silent_note")

    # ----------------------------------------------------------------------------------------------------
    # Between the two
    # ----------------------------------------------------------------------------------------------------

    def details(self, event: DetailsRequested) -> Iterator[Effect]:
        assert self.facts is not None
        yield Reply(
            event.call,
            {
                "visitor_name": self.facts.visitor_name,
                "intent": self.facts.intent.value,
                "apartment": self.facts.apartment,
                "resident": self.facts.resident,
                "company": self.facts.company,
                **({"expected": self.facts.standing} if self.facts.standing else {}),
            },
        )

    def put_question(self, event: QuestionRequested) -> Iterator[Effect]:
        question = clean_sentence(event.question)
        if self._briefed_at is None or self._question_put or not question or Role.VISITOR not in self.legs:
            yield Reply(event.call, {"status": "refused", "reason": "not_now"})
            return
        self._question_put = True
        self._question_at = self._now
        yield Reply(event.call, {"status": "asked"}, "never")
        yield Record("note", {"leg": "visitor", "text": f"the resident asks: {question}"})
        yield SayExactly(Role.RESIDENT, "asking_visitor", {}, "asking_visitor")
        yield HoldAudio(False)
        yield AutoReply(Role.VISITOR, False)
        yield SayExactly(Role.VISITOR, "question_to_visitor", {"pergunta": question}, "question")
        yield SetTimer("question", self.rules.question_s + 15)  # set anew once the question was heard

    def _visitor_answers(self, event: Said) -> Iterator[Effect]:
        """What the visitor says to the question: speech that began after it was put, and no mere noise."""
        answer = clean_sentence(event.text)
        if not self._question_put or not event.voiced or event.began < self._question_at:
            return
        if not answer or classify(answer) is Reading.NOTHING:
            return
        yield Record("note", {"leg": "visitor", "text": f"the visitor answers: {answer}"})
        yield SayExactly(Role.VISITOR, "thanks_pass_on", {}, "thanks_pass_on")
        yield from self._question_over()
        relayed = relay(event.text)
        if relayed.withheld:
            yield Record("note", {"leg": "visitor", "text": f"not passed on as it was: {relayed.withheld}"})
        # While the visitor's own words are being read out, an echo of them must not become evidence.
        self._answers_on_air += 1
        fields = {"resposta": relayed.text} if relayed.text else {}
        yield SayExactly(
            Role.RESIDENT, "answer_to_resident" if relayed.text else "answer_withheld", fields, "answer"
        )

    def no_answer_to_question(self) -> Iterator[Effect]:
        if not self._question_put:
            return
        yield from self._question_over()
        yield SayExactly(Role.RESIDENT, "visitor_did_not_answer", {}, "no_answer")

    def _question_over(self) -> Iterator[Effect]:
        self._question_put = False
        yield StopTimer("question")
        yield HoldAudio(True)
        yield AutoReply(Role.VISITOR, True)

    # ----------------------------------------------------------------------------------------------------
    # The two talk to each other: told first, decided by key alone, no word of it evidence
    # ----------------------------------------------------------------------------------------------------

    def connect(self, event: ConnectRequested) -> Iterator[Effect]:
        self._talk_s = min(self.rules.connected_s, self.rules.visit_s - self._now - BACK_S)
        if (reason := self._no_connection()) is not None:
            yield Reply(event.call, {"status": "refused", "reason": reason})
            return
        self.state = State.CONNECTED
        self._told.clear()
        yield Reply(event.call, {"status": "connecting"}, "never")
        yield from self._supersede()
        if self._question_put:
            yield from self._question_over()
        for timer in ("consult", "words", "open_turn", "hold", "no_quiet"):
            yield StopTimer(timer)
        yield HoldAudio(False)
        yield AutoReply(Role.VISITOR, False)
        yield AutoReply(Role.RESIDENT, False)
        keys = {"sim": self.rules.authorize_key, "nao": self.rules.deny_key, "volta": self.return_key}
        yield SayExactly(Role.VISITOR, "connecting_visitor", {}, "connecting", protected=True)
        yield SayExactly(Role.RESIDENT, "connecting_resident", keys, "connecting", protected=True)
        yield SetTimer("connecting", CONNECTING_S)

    def _no_connection(self) -> str | None:
        """Why the two can't be connected now; None: they can."""
        if self._briefed_at is None:
            return "no_briefing"
        if not self.rules.authorize_key:
            return "no_keys"  # nobody would hear the resident decide
        if self._handing_over is not None:
            return "transferring"
        return None if self._talk_s > PARTING_S else "no_time"

    @property
    def return_key(self) -> str:
        """The key that brings a connected resident back to the doorman."""
        decide = (self.rules.authorize_key, self.rules.deny_key)
        return next(key for key in RETURN_KEYS if key not in decide)

    def told_of_connection(self, event: SentencePlayed) -> Iterator[Effect]:
        if event.tag == "answer" and event.role is Role.RESIDENT:
            self._answer_over()
        if event.tag != "connecting" or self._connected_at is not None:
            return
        if not event.complete:
            yield from self._back("not_told")
            return
        self._told.add(event.role)
        if len(self._told) == len(Role):
            self._connected_at = self._now
            yield StopTimer("connecting")
            yield Record("parties.connected", {"attempt": str(self.attempt)})
            yield Connect()
            yield SetTimer("parting", self._talk_s - PARTING_S)

    def not_connected(self) -> Iterator[Effect]:
        yield from self._back("not_told")

    def parting_soon(self) -> Iterator[Effect]:
        keys = {"sim": self.rules.authorize_key, "nao": self.rules.deny_key}
        yield SayExactly(Role.VISITOR, "parting_visitor", {}, "parting", protected=True)
        yield SayExactly(Role.RESIDENT, "parting_resident", keys, "parting", protected=True)
        yield SetTimer("connected", PARTING_S)

    def talked_long_enough(self) -> Iterator[Effect]:
        yield from self._back("time_limit")

    def key_while_connected(self, event: KeyPressed) -> Iterator[Effect]:
        if event.role is Role.RESIDENT and event.digit == self.return_key:
            yield from self._back("resident_key")
        else:
            yield from self.key(event)

    def resident_speaks_to_visitor(self, event: SpeechBegan) -> Iterator[Effect]:
        self._speaking |= event.role is Role.RESIDENT
        yield from ()

    def resident_heard_by_visitor(self, event: SpeechEnded) -> Iterator[Effect]:
        self._speaking &= event.role is not Role.RESIDENT
        yield from ()

    def _back(self, reason: str) -> Iterator[Effect]:
        """To the doorman, who asks again; only what the resident says to that counts."""
        asked_again = "not_connected" if self._connected_at is None else "back_resident"
        self.state = State.CONSULTING
        for timer in ("connecting", "parting", "connected"):
            yield StopTimer(timer)
        yield from self._part(reason)
        self._turns.clear()
        self._open_turns.clear()
        self._unheard = self._speaking  # the end of something that was said to the visitor
        self._silences = dict.fromkeys(Role, 0)
        yield SetTimer("consult", self.rules.consult_s)
        yield AutoReply(Role.VISITOR, True)
        yield AutoReply(Role.RESIDENT, True)
        yield HoldAudio(True)
        yield SayExactly(Role.VISITOR, "back_visitor", {}, "back")
        self._answers_on_air += 1
        yield SayExactly(Role.RESIDENT, asked_again, {}, "back", protected=True)
        yield from self._only_by_key()

    def _part(self, reason: str) -> Iterator[Effect]:
        """They hear each other no more, where they did."""
        if self._connected_at is None:
            return
        seconds, self._connected_at = self._now - self._connected_at, None
        yield Disconnect()
        data = {"attempt": str(self.attempt), "reason": reason, "seconds": round(seconds, 3)}
        yield Record("parties.ended", data)

    # ----------------------------------------------------------------------------------------------------
    # The decision, the gate, the goodbye
    # ----------------------------------------------------------------------------------------------------

    def _authorized(self, evidence: Mapping[str, Any]) -> Iterator[Effect]:
        assert self.facts is not None
        self.state = State.AUTHORIZED
        yield from self._part("authorized")
        self._gate_ordered = True
        yield Record("evidence", evidence)
        yield Record("decision", {"decision": "authorized", "evidence": [dict(evidence)]})
        yield Record("gate.requested", {"gate": self.rules.gate})
        yield OpenGate(self.facts)
        yield SetTimer("gate", self.rules.gate_s)
        yield AutoReply(Role.RESIDENT, False)

    def _denied(self, evidence: Mapping[str, Any], reason: str) -> Iterator[Effect]:
        yield Record("evidence", evidence)
        yield Record(
            "decision",
            {"decision": "denied", "evidence": [dict(evidence)], "reason": reason},
        )
        yield from self._close(
            Outcome.DENIED,
            "resident_refused",
            visitor="goodbye_denied",
            resident="goodbye_resident_denied",
        )

    def gate_answered(self, event: GateAnswered) -> Iterator[Effect]:
        if self._gate_opened is not None:
            yield from self.gate_answered_late(event)
            return
        self._gate_opened = event.opened
        yield self._gate_record(event)
        yield from self._after_gate()

    def _gate_record(self, event: GateAnswered) -> Record:
        unknown = {"unknown": True} if event.unknown else {}
        return Record("gate.answered", {"opened": event.opened, "detail": event.detail, **unknown})

    def gate_silent(self) -> Iterator[Effect]:
        detail = "the gate did not answer in time; whether it opened is not known"
        yield from self.gate_answered(GateAnswered(False, detail, unknown=True))

    def _after_gate(self) -> Iterator[Effect]:
        """A visitor who was let in and whose gate did not open gets a person, where there is one."""
        yield StopTimer("gate")
        if not self._gate_opened and self.rules.attendant and Role.VISITOR in self.legs - self._cut:
            yield PrepareTransfer()
            yield SetTimer("transfer", TRANSFER_S)
        else:
            yield from self._tell_gate("gate_failed")

    def transfer_answered_after_gate(self, event: TransferAnswered) -> Iterator[Effect]:
        if self._gate_opened is None:  # it answers what was asked for before the decision
            yield from self._transfer_unused(event)
            return
        self._promised = event.ready and not self._gate_opened
        if self._promised:
            yield self._note_transfer(event)
        else:
            yield from self._transfer_unused(event)
        yield from self._tell_gate("gate_failed_transfer" if event.ready else "gate_failed")

    def transfer_silent_after_gate(self) -> Iterator[Effect]:
        yield from self.transfer_answered_after_gate(TransferAnswered(False, "no answer in time"))

    def _tell_gate(self, failed: str) -> Iterator[Effect]:
        opened = self._gate_opened is True
        resident = "goodbye_resident_authorized" if opened else "gate_failed_resident"
        visitor = "goodbye_authorized" if opened else failed
        if self._too_late:
            resident = self._too_late_sentence
            visitor = "goodbye_taken_back" if opened else failed
        yield from self._close(
            Outcome.AUTHORIZED, "opened" if opened else "gate_failed", visitor=visitor, resident=resident
        )

    # What the resident says or presses once the order is out can't call it back: it is kept, and answered.

    def said_after_order(self, event: Said) -> Iterator[Effect]:
        second_thoughts = classify(event.text) in (Reading.REFUSAL, Reading.WAIT)
        if event.role is Role.RESIDENT and event.voiced and second_thoughts:
            yield from self._refused_too_late(f"said: {event.text}")

    def key_after_order(self, event: KeyPressed) -> Iterator[Effect]:
        if event.role is Role.RESIDENT and event.digit == self.rules.deny_key != "":
            yield from self._refused_too_late(f"key {event.digit}")

    def _refused_too_late(self, how: str) -> Iterator[Effect]:
        if not self._gate_ordered or self._too_late or Role.RESIDENT not in self.legs:
            return
        self._too_late = True
        silent = self._hung_up or Role.RESIDENT in self._mute | self._cut
        if self.state is State.CLOSING and not silent:
            self._last_words = True
            yield SayExactly(Role.RESIDENT, self._too_late_sentence, {}, "too_late", protected=True)
        yield Record("note", {"leg": self.leg, "text": f"refused after the gate had its order: {how}"})

    @property
    def _too_late_sentence(self) -> str:
        if self._gate_opened is None:
            return "too_late_unknown"
        return "too_late_opened" if self._gate_opened else "too_late_failed"

    def gate_answered_late(self, event: GateAnswered) -> Iterator[Effect]:
        """The order was given up on, or the visit broke over it; that the gate opened stays its outcome."""
        if not self._gate_ordered:
            return
        if self._gate_opened is None:
            yield self._gate_record(event)
        else:
            yield Record("note", {"text": f"the gate answered late: opened={event.opened}, {event.detail}"})
        if event.opened and not self._gate_opened:
            self.outcome, self.reason = Outcome.AUTHORIZED, "opened_late"
        self._gate_opened = self._gate_opened or event.opened

    def _undecided(self, reason: str) -> Iterator[Effect]:
        yield from self._close(
            Outcome.UNREACHABLE,
            reason,
            visitor="goodbye_undecided",
            resident="goodbye_resident_undecided",
        )

    def _close(
        self,
        outcome: Outcome,
        reason: str,
        *,
        visitor: str,
        resident: str = "goodbye_resident_undecided",
    ) -> Iterator[Effect]:
        """Say goodbye on each leg that is left, then hang up; the outcome stands from here on.

        Who was hung up by a person hears no goodbye.
        """
        was = self.state
        self.state = State.CLOSING
        self.outcome = outcome
        self.reason = reason
        for timer in ("visit", "still_calling", "ring", "consult", "pickup", "words", "open_turn"):
            yield StopTimer(timer)
        for timer in ("question", "gate", "transfer", "hold", "no_quiet"):
            yield StopTimer(timer)
        for timer in ("connecting", "parting", "connected"):
            yield StopTimer(timer)
        yield from self._part(outcome.value if reason == "resident_refused" else reason)
        if was is State.DIALING and self.attempt is not None:
            yield CancelDial(self.attempt)
        if self._pending is not None:
            yield Reply(self._pending.call, {"status": "refused", "reason": "visit_over"}, "never")
            self._pending, self._holding = None, False
        if self._handing_over is not None:
            yield Reply(self._handing_over.call, {"status": "refused", "reason": "visit_over"}, "never")
            self._handing_over = None
        yield HoldAudio(False)
        if not self.legs:
            yield from self._finish()
            return
        self._hung_up = self.legs <= self._cut
        yield SetTimer("closing", HANG_UP_S if self._hung_up else self.rules.closing_s)
        for role, sentence in ((Role.VISITOR, visitor), (Role.RESIDENT, resident)):
            if role in self.legs & self._cut:
                yield self._hang_up(role)
            elif role in self.legs:
                yield AutoReply(role, False)
                yield self._goodbye(role, sentence)

    def _hang_up(self, role: Role) -> HangUp:
        return HangUp(role, self.attempt if role is Role.RESIDENT else None)

    def _goodbye(self, role: Role, sentence: str, tag: str = "goodbye") -> SayExactly:
        said = self._goodbyes[role] = SayExactly(role, sentence, {}, tag, protected=True, last=True)
        return said

    def goodbye_played(self, event: SentencePlayed) -> Iterator[Effect]:
        if event.role not in self.legs - self._cut:
            return
        more_to_say = self._last_words and event.role is Role.RESIDENT
        last = "too_late" if more_to_say else self._goodbyes[event.role].tag
        if event.tag == last:
            yield self._hang_up(event.role)

    def last_words_too_long(self) -> Iterator[Effect]:
        """Who is told by our own voice that no model is left does not wait for the others' goodbyes."""
        for role in sorted(self._mute & self.legs, reverse=True):
            yield self._hang_up(role)

    def goodbye_too_long(self) -> Iterator[Effect]:
        if self._hung_up:  # and still a leg has not closed: the visit ends without it
            self.legs.clear()
            yield from self._finish()
            return
        self._hung_up = True
        yield SetTimer("closing", HANG_UP_S)
        for role in sorted(self.legs, reverse=True):
            yield self._hang_up(role)

    def _finish(self) -> Iterator[Effect]:
        assert self.outcome is not None
        self.state = State.ENDED
        yield StopTimer("closing")
        yield StopTimer("last_words")
        facts = self.facts
        yield Record(
            "visit.ended",
            {
                "outcome": self.outcome.value,
                "reason": self.reason,
                "intent": facts.intent.value if facts else None,
                "visitor_name": facts.visitor_name if facts else None,
                "apartment": facts.apartment if facts else None,
                "resident": facts.resident if facts else None,
                **({"detail": self._last_reason} if self._last_reason else {}),
            },
        )
        yield Finish(self.outcome)

    # ----------------------------------------------------------------------------------------------------
    # A person hangs up. On record first; whatever comes of it, the gate gets no order any more.
    # ----------------------------------------------------------------------------------------------------

    def hung_up(self, event: HungUpByPerson) -> Iterator[Effect]:
        yield self._hang_up_record(event)
        if not self._cuts(event):
            yield HangUp(Role.RESIDENT, event.attempt)  # a leg that was given up before
            return
        yield from self._no_attendant()
        reason = "hung_up_by_person"
        if Role.VISITOR in self._cut:
            left = "goodbye_resident_visitor_left"
            yield from self._close(Outcome.ABANDONED, reason, visitor="", resident=left)
        else:
            yield from self._undecided(reason)

    def hung_up_after_decision(self, event: HungUpByPerson) -> Iterator[Effect]:
        """The order can't be called back: what the gate answers goes on record, and is told to nobody."""
        yield self._hang_up_record(event)
        if not self._cuts(event):
            yield HangUp(Role.RESIDENT, event.attempt)
            return
        yield from self._no_attendant()
        for role in sorted(self._cut & self.legs, reverse=True):
            yield self._hang_up(role)

    def hung_up_at_goodbye(self, event: HungUpByPerson) -> Iterator[Effect]:
        yield from self.hung_up_after_decision(event)
        if self.legs <= self._cut and not self._hung_up:
            self._hung_up = True
            yield SetTimer("closing", HANG_UP_S)

    def _hang_up_record(self, event: HungUpByPerson) -> Record:
        which = {"leg": event.leg} if event.leg else {}
        return Record("visit.hung_up", {"by": event.by, **which})

    def _cuts(self, event: HungUpByPerson) -> bool:
        """Note which legs of this visit are meant; False: none that it still has."""
        if event.role is Role.RESIDENT and event.attempt != self.attempt:
            return False
        self._cut |= set(Role) if event.role is None else {event.role}
        return True

    def _no_attendant(self) -> Iterator[Effect]:
        """Who was hung up is not put through either; the PBX may have begun to, if it was told before."""
        asked = self._promised or self._stranded or self._handing_over is not None
        if asked and Role.VISITOR in self._cut & self.legs:
            self._promised = False
            yield UndoTransfer()

    # ----------------------------------------------------------------------------------------------------
    # What goes wrong
    # ----------------------------------------------------------------------------------------------------

    def _gone(self, event: LegClosed | SessionLost) -> bool:
        """Whether an event speaks of a leg of this visit, and not of one given up before."""
        return event.role is Role.VISITOR or (event.attempt == self.attempt and Role.RESIDENT in self.legs)

    def leg_closed(self, event: LegClosed) -> Iterator[Effect]:
        if not self._gone(event):
            return
        self.legs.discard(event.role)
        if event.role is Role.VISITOR:
            yield from self._close(
                Outcome.ABANDONED,
                "visitor_hung_up",
                visitor="",
                resident="goodbye_resident_visitor_left",
            )
        else:
            yield from self._undecided("resident_hung_up")

    def leg_closed_after_decision(self, event: LegClosed) -> Iterator[Effect]:
        if self._gone(event):
            self.legs.discard(event.role)
        yield from ()

    def leg_closed_at_goodbye(self, event: LegClosed) -> Iterator[Effect]:
        if self._gone(event):
            self.legs.discard(event.role)
            if not self.legs:
                yield from self._finish()

    def session_lost(self, event: SessionLost) -> Iterator[Effect]:
        if not self._gone(event):
            return
        self._mute.add(event.role)
        yield Record("note", {"leg": event.role.value, "text": f"session lost: {event.reason}"})
        if self._stranded:
            return
        if not self.rules.attendant:
            yield from self._without_a_model()
            return
        # Until the PBX has answered the visit goes on as it may: a resident's key still decides.
        self._stranded = True
        if self._handing_over is None:
            yield from self._prepare_transfer()

    def _without_a_model(self) -> Iterator[Effect]:
        """No model is left for one of the legs; the visitor's call goes to the attendant where it may."""
        if self._unserved:
            sentence = "transfer_unserved" if self._promised else "goodbye_unserved"
            yield from self._close(Outcome.UNREACHABLE, self._unserved, visitor=sentence)
            return
        yield from self._failed("session_lost")

    def _failed(self, reason: str) -> Iterator[Effect]:
        yield from self._close(
            Outcome.FAILED,
            reason,
            visitor="transfer_failed" if self._promised else "goodbye_failed",
            resident="goodbye_resident_failed",
        )
        if self._mute & self.legs:
            yield SetTimer("last_words", LAST_WORDS_S)

    def session_lost_after_decision(self, event: SessionLost) -> Iterator[Effect]:
        if self._gone(event):
            self._mute.add(event.role)
        yield from ()

    def session_lost_at_goodbye(self, event: SessionLost) -> Iterator[Effect]:
        """The goodbye is said once more, by our own voice; who can't be told by that either is hung up."""
        if not self._gone(event):
            return
        unheard = event.role in self._mute | self._cut or event.role not in self.legs
        if unheard or self._hung_up:
            yield HangUp(event.role, event.attempt)
            return
        self._mute.add(event.role)
        sentence = self._goodbyes[event.role].sentence
        if self._last_words and event.role is Role.RESIDENT:
            self._last_words, sentence = False, self._too_late_sentence
        yield self._goodbye(event.role, sentence, "last_words")  # the other one was broken off, and says so
        if self.reason == "session_lost":
            yield SetTimer("last_words", LAST_WORDS_S)

    def broken(self, event: Broken) -> Iterator[Effect]:
        yield from self._failed(event.reason)

    def broken_at_the_gate(self, event: Broken) -> Iterator[Effect]:
        """Each is told what is known: shut where the gate was never asked, or unknown."""
        if event.gate_spared:
            self._gate_ordered = False
            yield from self.broken(event)
            return
        answered = self._gate_opened is not None  # that it did not open: a person was to be fetched
        resident = "gate_failed_resident" if answered else "gate_unknown_resident"
        yield from self._close(
            Outcome.FAILED,
            event.reason,
            visitor="gate_failed" if answered else "gate_unknown",
            resident=self._too_late_sentence if self._too_late else resident,
        )

    def timer(self, event: TimerFired) -> Iterator[Effect]:
        action = TIMERS.get((self.state, event.name))
        if action is not None:
            yield from action(self)


VETO = {Reading.REFUSAL: "refusal", Reading.QUESTION: "question"}
NO_REFUSAL = {
    Reading.CONSENT: "consent_heard",
    Reading.QUESTION: "question",
    Reading.HELLO: "no_answer",
    Reading.WAIT: "wait",
}
"""What a resident may have said last that no model's word turns into a refusal; and how it is told so."""

# --------------------------------------------------------------------------------------------------------
# The table: state × event → what follows
# --------------------------------------------------------------------------------------------------------

Action = Callable[[Visit, Any], Iterator[Effect]]


def _rows(states: tuple[State, ...], rows: Mapping[type, Action]) -> dict[tuple[State, type], Action]:
    return {(state, event): action for state in states for event, action in rows.items()}


TABLE: dict[tuple[State, type], Action] = {
    **_rows(
        BEFORE_DECISION,
        {
            TransferAnswered: Visit.transfer_answered,
            DialAnswered: Visit.stranger,
            LegClosed: Visit.leg_closed,
            HungUpByPerson: Visit.hung_up,
            SessionLost: Visit.session_lost,
            TimerFired: Visit.timer,
            Broken: Visit.broken,
        },
    ),
    **_rows(
        WITH_MODELS,
        {
            StatusRequested: Visit.status,
            AttendantRequested: Visit.attendant,
            TransferRequested: Visit.transfer,
            OutsideRequested: Visit.ask_outside,
            EndRequested: Visit.end,
            TurnBegan: Visit.visitor_turn,
        },
    ),
    **_rows(
        WITH_VISITOR,
        {
            LookupRequested: Visit.look_up,
            ValidationRequested: Visit.validate,
            CallRequested: Visit.call_resident,
            SilenceElapsed: Visit.visitor_silent,
        },
    ),
    (State.GREETING, Started): Visit.start,
    (State.GREETING, SentencePlayed): Visit.greeted,
    (State.DIALING, CallRequested): Visit.already_dialing,
    (State.DIALING, DialAnswered): Visit.answered,
    (State.DIALING, DialFailed): Visit.dial_failed,
    (State.CONSULTING, CallRequested): Visit.already_dialing,
    (State.CONSULTING, SpeechBegan): Visit.resident_speaks,
    (State.CONSULTING, SpeechEnded): Visit.resident_pauses,
    (State.CONSULTING, OurVoice): Visit.our_voice,
    (State.CONSULTING, SentencePlayed): Visit.sentence_played,
    (State.CONSULTING, TurnBegan): Visit.turn_began,
    (State.CONSULTING, Said): Visit.said,
    (State.CONSULTING, TurnLost): Visit.turn_lost,
    (State.CONSULTING, KeyPressed): Visit.key,
    (State.CONSULTING, SilenceElapsed): Visit.resident_silent,
    (State.CONSULTING, DetailsRequested): Visit.details,
    (State.CONSULTING, QuestionRequested): Visit.put_question,
    (State.CONSULTING, ConnectRequested): Visit.connect,
    (State.CONSULTING, AuthorizeRequested): Visit.authorize,
    (State.CONSULTING, DenyRequested): Visit.deny,
    (State.CONNECTED, SentencePlayed): Visit.told_of_connection,
    (State.CONNECTED, KeyPressed): Visit.key_while_connected,
    (State.CONNECTED, SpeechBegan): Visit.resident_speaks_to_visitor,
    (State.CONNECTED, SpeechEnded): Visit.resident_heard_by_visitor,
    (State.CONNECTED, OurVoice): Visit.our_voice,
    (State.AUTHORIZED, Said): Visit.said_after_order,
    (State.AUTHORIZED, KeyPressed): Visit.key_after_order,
    (State.AUTHORIZED, GateAnswered): Visit.gate_answered,
    (State.AUTHORIZED, TransferAnswered): Visit.transfer_answered_after_gate,
    (State.AUTHORIZED, DialAnswered): Visit.stranger,
    (State.AUTHORIZED, LegClosed): Visit.leg_closed_after_decision,
    (State.AUTHORIZED, HungUpByPerson): Visit.hung_up_after_decision,
    (State.AUTHORIZED, SessionLost): Visit.session_lost_after_decision,
    (State.AUTHORIZED, TimerFired): Visit.timer,
    (State.AUTHORIZED, Broken): Visit.broken_at_the_gate,
    (State.CLOSING, Said): Visit.said_after_order,
    (State.CLOSING, KeyPressed): Visit.key_after_order,
    (State.CLOSING, SentencePlayed): Visit.goodbye_played,
    (State.CLOSING, GateAnswered): Visit.gate_answered_late,
    (State.CLOSING, TransferAnswered): Visit.transfer_answered_late,
    (State.CLOSING, DialAnswered): Visit.stranger,
    (State.CLOSING, LegClosed): Visit.leg_closed_at_goodbye,
    (State.CLOSING, HungUpByPerson): Visit.hung_up_at_goodbye,
    (State.CLOSING, SessionLost): Visit.session_lost_at_goodbye,
    (State.CLOSING, TimerFired): Visit.timer,
    (State.ENDED, DialAnswered): Visit.stranger,
}

TIMERS: dict[tuple[State, str], Callable[[Visit], Iterator[Effect]]] = {
    **{(state, "visit"): Visit.time_up for state in BEFORE_DECISION},
    **{(state, "transfer"): Visit.transfer_silent for state in BEFORE_DECISION},
    (State.DIALING, "ring"): Visit.rang_out,
    (State.DIALING, "still_calling"): Visit.still_calling,
    (State.CONSULTING, "pickup"): Visit.brief,
    (State.CONSULTING, "words"): Visit.words_too_late,
    (State.CONSULTING, "open_turn"): Visit.turn_never_ended,
    (State.CONSULTING, "question"): Visit.no_answer_to_question,
    (State.CONSULTING, "hold"): Visit.quiet_held,
    (State.CONSULTING, "no_quiet"): Visit.never_quiet,
    (State.CONSULTING, "consult"): lambda visit: visit._undecided("time_limit"),
    (State.CONNECTED, "connecting"): Visit.not_connected,
    (State.CONNECTED, "parting"): Visit.parting_soon,
    (State.CONNECTED, "connected"): Visit.talked_long_enough,
    (State.AUTHORIZED, "gate"): Visit.gate_silent,
    (State.AUTHORIZED, "transfer"): Visit.transfer_silent_after_gate,
    (State.CLOSING, "last_words"): Visit.last_words_too_long,
    (State.CLOSING, "closing"): Visit.goodbye_too_long,
}
