"""What can happen to a visit, and what a visit can ask for: the two alphabets of ``visits/visit.py``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal
from uuid import UUID

from visits.facts import Facts


class Role(StrEnum):
    """Whose phone call a leg is."""

    VISITOR = "visitor"
    RESIDENT = "resident"


class DialOutcome(StrEnum):
    """How an attempt to call the resident ended without an answer."""

    BUSY = "busy"
    NO_ANSWER = "no_answer"
    REJECTED = "rejected"
    CONGESTION = "congestion"
    INVALID = "invalid"
    FAILED = "failed"


class Outcome(StrEnum):
    """How a visit ended."""

    AUTHORIZED = "authorized"
    DENIED = "denied"
    UNREACHABLE = "unreachable"
    ABANDONED = "abandoned"
    FAILED = "failed"


# --------------------------------------------------------------------------------------------------------
# Events. `call` is the id of the tool call that asked; its answer is a `Reply` with the same id.
# --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """The visitor's leg is up.

    ``unserved``: why no model may be asked, in a word for the record; empty where one may.
    ``at``: the time by the tenant's own clock, for hours that the directory names; None: not known.
    """

    unserved: str = ""
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class LookupRequested:
    """The visitor's model asks for an apartment, as the visitor said it."""

    call: str
    spoken: str


@dataclass(frozen=True, slots=True)
class ValidationRequested:
    """The visitor's model asks whether somebody lives in an apartment."""

    call: str
    apartment: str
    spoken: str


@dataclass(frozen=True, slots=True)
class CallRequested:
    """The visitor's model asks for the resident to be called."""

    call: str
    apartment: str
    intent: str
    visitor_name: str = ""
    resident_name: str = ""
    company: str = ""


@dataclass(frozen=True, slots=True)
class StatusRequested:
    """The visitor's model asks how far things are."""

    call: str


@dataclass(frozen=True, slots=True)
class DetailsRequested:
    """The resident's model asks who is at the gate."""

    call: str


@dataclass(frozen=True, slots=True)
class QuestionRequested:
    """The resident's model passes a question on to the visitor."""

    call: str
    question: str


@dataclass(frozen=True, slots=True)
class ConnectRequested:
    """The resident's model says that the resident wants to talk to the visitor."""

    call: str


@dataclass(frozen=True, slots=True)
class AuthorizeRequested:
    """The resident's model says that the resident consented. It asks; the evidence decides."""

    call: str


@dataclass(frozen=True, slots=True)
class DenyRequested:
    """The resident's model says that the resident refused."""

    call: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class AttendantRequested:
    """The visitor's model asks for a human attendant."""

    call: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class TransferRequested:
    """The visitor's model asks for a department or an extension, as the visitor said it."""

    call: str
    to: str


@dataclass(frozen=True, slots=True)
class EndRequested:
    """A model asks for its leg to be ended."""

    call: str
    role: Role
    reason: str = ""


@dataclass(frozen=True, slots=True)
class OutsideRequested:
    """A model asks for something by a tool that the tenant declared; ``arguments`` are validated.

    The visit gives leave or doesn't. It is never told what was answered: nothing can rest on that.
    """

    call: str
    role: Role
    tool: str
    arguments: Mapping[str, str | int | float | bool]


@dataclass(frozen=True, slots=True)
class DialAnswered:
    """A resident leg connected with the id that was minted for `attempt`."""

    attempt: UUID


@dataclass(frozen=True, slots=True)
class DialFailed:
    """The dialer gave up on `attempt`."""

    attempt: UUID
    outcome: DialOutcome
    detail: str = ""


@dataclass(frozen=True, slots=True)
class LegClosed:
    """A leg is gone. `attempt` names a resident leg's dial attempt."""

    role: Role
    attempt: UUID | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class HungUpByPerson:
    """Somebody who watches the visit hung up one of its legs, or (``role`` None) all of it.

    Attributes:
        by: who, for the record.
        leg: the leg's name in records; empty: all.
        attempt: names a resident leg's dial attempt.
    """

    by: str
    leg: str = ""
    role: Role | None = None
    attempt: UUID | None = None


@dataclass(frozen=True, slots=True)
class SpeechBegan:
    """The local VAD heard the caller begin."""

    role: Role


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    """The local VAD heard the caller stop."""

    role: Role


@dataclass(frozen=True, slots=True)
class OurVoice:
    """Whether what we say may be heard on this leg, or its echo: it covers a caller who speaks softly."""

    role: Role
    on: bool


@dataclass(frozen=True, slots=True)
class TurnBegan:
    """The provider heard a turn begin; a `Said` or a `TurnLost` of the same item follows."""

    role: Role
    item: str


@dataclass(frozen=True, slots=True)
class Said:
    """The transcript of a caller's turn.

    Attributes:
        began: when the local VAD heard it begin, on the visit's clock (seconds); meaningless if not `voiced`.
        voiced: the local VAD heard speech during the turn.
    """

    role: Role
    item: str
    text: str
    began: float
    voiced: bool


@dataclass(frozen=True, slots=True)
class TurnLost:
    """There will be no transcript of this turn."""

    role: Role
    item: str


@dataclass(frozen=True, slots=True)
class KeyPressed:
    """A caller pressed a DTMF key."""

    role: Role
    digit: str


@dataclass(frozen=True, slots=True)
class SentencePlayed:
    """A `SayExactly` ended: `complete` when the ledger says that it was played to its end, word for word."""

    role: Role
    tag: str
    complete: bool


@dataclass(frozen=True, slots=True)
class SilenceElapsed:
    """It has been the caller's turn for the silence limit, and nothing was said. Comes again each limit."""

    role: Role


@dataclass(frozen=True, slots=True)
class GateAnswered:
    """What the gate said to the one order it got. ``unknown``: it may have opened all the same."""

    opened: bool
    detail: str = ""
    unknown: bool = False


@dataclass(frozen=True, slots=True)
class TransferAnswered:
    """Whether the PBX will ring the attendant once the visitor's leg is hung up; ``detail`` says why not."""

    ready: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class SessionLost:
    """A leg's model is gone for good, or the voice of our own that took its place."""

    role: Role
    attempt: UUID | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A timer that the visit set has run out."""

    name: str


@dataclass(frozen=True, slots=True)
class Broken:
    """The host failed in carrying the visit out (a record that could not be made durable, a bug, a stop).

    ``gate_spared``: the order to the gate was among what could not be carried out; the gate was never asked.
    """

    reason: str
    gate_spared: bool = False


Event = (
    Started
    | LookupRequested
    | ValidationRequested
    | CallRequested
    | StatusRequested
    | DetailsRequested
    | QuestionRequested
    | ConnectRequested
    | AuthorizeRequested
    | DenyRequested
    | AttendantRequested
    | TransferRequested
    | EndRequested
    | OutsideRequested
    | DialAnswered
    | DialFailed
    | LegClosed
    | HungUpByPerson
    | SpeechBegan
    | SpeechEnded
    | OurVoice
    | TurnBegan
    | Said
    | TurnLost
    | KeyPressed
    | SentencePlayed
    | SilenceElapsed
    | GateAnswered
    | TransferAnswered
    | SessionLost
    | TimerFired
    | Broken
)

ToolRequest = (
    LookupRequested
    | ValidationRequested
    | CallRequested
    | StatusRequested
    | DetailsRequested
    | QuestionRequested
    | ConnectRequested
    | AuthorizeRequested
    | DenyRequested
    | AttendantRequested
    | TransferRequested
    | EndRequested
    | OutsideRequested
)


# --------------------------------------------------------------------------------------------------------
# Effects: carried out by the host, in order. A `Record` is durable before the effect after it begins.
# --------------------------------------------------------------------------------------------------------


Speak = Literal["now", "idle", "never"]
"""Whether a model speaks from a tool's answer: at once, when nothing else is being said, or not at all."""


@dataclass(frozen=True, slots=True)
class Record:
    """Append to the audit chain, durably, before anything that follows."""

    kind: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer a tool call."""

    call: str
    result: Mapping[str, Any]
    speak: Speak = "now"


@dataclass(frozen=True, slots=True)
class AskOutside:
    """Carry a declared tool's call out, and answer it. No event follows from what is answered."""

    call: str
    role: Role
    tool: str
    arguments: Mapping[str, str | int | float | bool]


@dataclass(frozen=True, slots=True)
class SayExactly:
    """Have a sentence said, word for word; a `SentencePlayed` with the same tag follows.

    Attributes:
        sentence: its key among the tenant's sentences.
        fields: what fills its placeholders, beside the tenant's name and the visit's facts.
        tag: what `SentencePlayed` will name.
        protected: the caller can't talk over it.
        last: it is this caller's goodbye. Where the leg has no model to say it, a voice of our own does;
            where that fails as well, a `SessionLost` follows.
    """

    role: Role
    sentence: str
    fields: Mapping[str, str]
    tag: str
    protected: bool = False
    last: bool = False


@dataclass(frozen=True, slots=True)
class Prompt:
    """Tell a leg's model something and let it speak."""

    role: Role
    sentence: str


@dataclass(frozen=True, slots=True)
class AutoReply:
    """Whether a leg's model answers the caller's turns by itself."""

    role: Role
    on: bool


@dataclass(frozen=True, slots=True)
class HoldAudio:
    """Whether the visitor hears that the call goes on (ringing) where nobody speaks."""

    on: bool


@dataclass(frozen=True, slots=True)
class Connect:
    """Let visitor and resident hear each other. Their models hear neither, and are not heard."""


@dataclass(frozen=True, slots=True)
class Disconnect:
    """They hear their models again, and each other no more; nothing where they did not."""


@dataclass(frozen=True, slots=True)
class Dial:
    """Call the resident; `attempt` is the id that the resident's leg must come with."""

    attempt: UUID
    apartment: str
    number: str


@dataclass(frozen=True, slots=True)
class CancelDial:
    """Give a running dial up."""

    attempt: UUID


@dataclass(frozen=True, slots=True)
class OpenGate:
    """Open the gate, once."""

    facts: Facts


@dataclass(frozen=True, slots=True)
class PrepareTransfer:
    """Have the PBX ring the attendant once the visitor's leg is hung up; a `TransferAnswered` follows.

    ``to``: the extension to ring in the attendant's place.
    """

    to: str = ""


@dataclass(frozen=True, slots=True)
class UndoTransfer:
    """Have the PBX ring nobody once the visitor's leg is hung up, whatever it was told before."""


@dataclass(frozen=True, slots=True)
class SetTimer:
    """A `TimerFired` with this name follows after so many seconds; setting it anew replaces it."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class StopTimer:
    """Forget a timer."""

    name: str


@dataclass(frozen=True, slots=True)
class HangUp:
    """End a leg, at once."""

    role: Role
    attempt: UUID | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """The visit is over; nothing follows."""

    outcome: Outcome


Effect = (
    Record
    | Reply
    | AskOutside
    | SayExactly
    | Prompt
    | AutoReply
    | HoldAudio
    | Connect
    | Disconnect
    | Dial
    | CancelDial
    | OpenGate
    | PrepareTransfer
    | UndoTransfer
    | SetTimer
    | StopTimer
    | HangUp
    | Finish
)
