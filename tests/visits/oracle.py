"""What really happened in a visit, in the words of the seven rules, by one who knows nothing of the table.

It is told each event before the visit is, and each effect as the visit asks for it; it judges each `OpenGate`
by the rules as they are written at the head of `visits/visit.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from visits import events as e
from visits.consent import Reading, classify
from visits.events import Effect, Event, Role
from visits.visit import State, VisitRules

R, V = Role.RESIDENT, Role.VISITOR
ANSWERS = {"answer_to_resident", "answer_withheld", "back_resident", "not_connected"}


@dataclass
class Turn:
    """One turn of the resident's as it happened, whether or not its words are known."""

    began_as: int
    words: str | None = None
    voiced: bool = False
    began_at: float = 0.0
    otherwise: bool = False
    """Its words were told before, and were no consent."""


@dataclass
class Oracle:
    """What really happened, in the words of the rules."""

    now: float = 0.0
    step: int = 0
    dialled: list[UUID] = field(default_factory=list)
    dialling: UUID | None = None
    resident: UUID | None = None
    """The attempt of the resident's leg, while it is connected."""
    visitor_here: bool = True
    briefing_on_air: bool = False
    heard_briefing_at: float | None = None
    answers_on_air: int = 0
    last_answer_at: float = 0.0
    told_of_connection: set[Role] = field(default_factory=set)
    connecting: bool = False
    """They have been or are being told; what is said from here on is not to the doorman."""
    connected: bool = False
    quiet_since: int | None = None
    """The step at which a moment of quiet was asked for."""
    quiet_broken: bool = False
    our_voice: bool = False
    """The resident hears us, or may still."""
    quiet_covered: bool = False
    """They did, since that moment began: a soft refusal may have been missed."""
    quiet_over: bool = False
    """The event that is judged is the end of that moment."""
    refused_after_order: bool = False
    turns: dict[str, Turn] = field(default_factory=dict)
    vad_speaking: bool = False
    vad_heard: int | None = None
    """The step of the last speech that the local VAD heard while no turn was open."""
    key: str | None = None
    key_of: Role | None = None
    orders: int = 0
    cut: set[Role] = field(default_factory=set)
    """Whose legs a person hung up."""
    asked_to_refuse: bool = False

    def open_turns(self) -> bool:
        return any(turn.words is None and turn.began_as >= 0 for turn in self.turns.values())

    def happens(self, event: Event, now: float, state: State = State.CONSULTING) -> None:
        """Note an event as it comes in, before the visit, which is in this state, has answered it."""
        self.now, self.step, self.key = now, self.step + 1, None
        self.quiet_over = event == e.TimerFired("hold")
        if self.resident and isinstance(event, e.SpeechBegan | e.TurnBegan) and event.role is R:
            self.quiet_broken = True
        if self.resident and isinstance(event, e.OurVoice) and event.role is R:
            self.our_voice = event.on
            self.quiet_covered |= event.on
        if self.orders and self.resident and isinstance(event, e.Said) and event.role is R and event.voiced:
            self.refused_after_order |= classify(event.text) is Reading.REFUSAL
        match event:
            case e.SentencePlayed(role, "connecting", True) if state is State.CONNECTED:
                self.told_of_connection.add(role)
        match event:
            case e.DialAnswered(attempt) if attempt == self.dialling:
                self.resident, self.dialling, self.our_voice = attempt, None, False
            case e.LegClosed(role, attempt):
                if role is V:
                    self.visitor_here = False
                elif attempt == self.resident:
                    self.resident = None
            case e.HungUpByPerson(_, _, None):
                self.cut |= {V, R}
            case e.HungUpByPerson(_, _, meant, attempt) if meant is V or attempt == self.resident:
                self.cut.add(V if meant is V else R)
            case e.DialFailed(attempt) if attempt == self.dialling:
                self.dialling = None
            case e.KeyPressed(role, digit):
                self.key, self.key_of = digit, role
            case e.SpeechBegan(role) if role is R and self.resident:
                self.vad_speaking = True
                if not self.open_turns():
                    self.vad_heard = self.step
            case e.SpeechEnded(role) if role is R:
                self.vad_speaking = False
            case e.TurnBegan() | e.TurnLost() | e.Said() if self.connecting:
                pass  # it is nobody's but theirs
            case e.TurnBegan(role, item) if role is R and self.resident:
                self.turns[item] = Turn(self.step)
            case e.TurnLost(role, item) if role is R and self.resident:
                turn = self.turns.setdefault(item, Turn(self.step))
                turn.words, turn.voiced = None, False
            case e.Said(role, item, text, began, voiced) if role is R and self.resident:
                turn = self.turns.setdefault(item, Turn(self.step))
                turn.otherwise |= turn.words is not None and classify(turn.words) is not Reading.CONSENT
                turn.words, turn.began_at, turn.voiced = text, began, voiced
            case e.SentencePlayed(role, tag, complete) if role is R and self.resident:
                if tag == "briefing" and self.briefing_on_air:
                    self.briefing_on_air = False
                    if complete and self.heard_briefing_at is None:
                        self.heard_briefing_at = now
                elif (
                    tag in ("answer", "back")
                    and self.answers_on_air
                    and not (self.connecting and tag == "back")
                ):
                    self.answers_on_air -= 1
                    self.last_answer_at = now

    def asks_for(self, effect: Effect) -> None:
        """Note what the visit asked for."""
        match effect:
            case e.Dial(attempt):
                self.dialled.append(attempt)
                self.dialling = attempt
            case e.CancelDial(attempt) if attempt == self.dialling:
                self.dialling = None
            case e.SayExactly(role, sentence, _, tag) if role is R:
                self.briefing_on_air |= sentence.startswith("briefing_") and tag == "briefing"
                self.answers_on_air += sentence in ANSWERS
                self.connecting |= sentence == "connecting_resident"
                if tag == "back":
                    self.connecting = False
                    self.turns.clear()
                    self.vad_heard = self.step if self.vad_speaking else None
            case e.Finish():
                self.resident = None
            case e.Connect():
                assert self.told_of_connection == {V, R}, "both hear of it first"
                assert self.heard_briefing_at is not None and self.resident in self.dialled
                assert self.visitor_here and not self.connected
                self.connected = True
            case e.Disconnect():
                assert self.connected, "they were not connected"
                self.connected = False
            case e.SetTimer("hold"):
                self.quiet_since, self.quiet_broken, self.quiet_covered = self.step, False, self.our_voice

    def judge_opening(self, rules: VisitRules) -> str:
        """Hold an `OpenGate` that is asked for now against rules 1 to 6; returns what it rests on."""
        assert self.orders == 0, "rule 1: at most one opening a visit"
        assert not self.cut, "rule 6: a person hung up"
        assert self.resident is not None, "rule 2: the resident's leg is connected"
        assert self.resident in self.dialled, "rule 2: this visit dialled it"
        assert self.visitor_here, "nobody is at the gate"
        assert self.heard_briefing_at is not None, "rule 3: the briefing was played to its end"
        if self.key is not None:
            assert self.key_of is R, "rule 5: the resident's key"
            assert self.key == rules.authorize_key != "", "rule 4: the tenant's key"
            return "key while connected" if self.connecting else "key"
        assert rules.spoken_consent, "rule 4: the key alone authorises"
        assert not self.connecting, "rule 5: what the two say to each other is no evidence"
        assert self.quiet_over, "rule 4: held for a moment of quiet"
        assert self.quiet_since is not None and not self.quiet_broken, "rule 4: they began to speak"
        assert not self.quiet_covered, "rule 4: our own voice covered it"
        assert not self.vad_speaking, "rule 4: they are still speaking"
        last = self._last_turn()
        assert last is not None, "rule 4: something was said"
        assert last.words is not None, "rule 4: what was said last is known"
        assert classify(last.words) is Reading.CONSENT, f"rule 4: the last word is {last.words!r}"
        assert not last.otherwise, "rule 4: it was told in two ways"
        assert last.voiced, "rule 4: the local VAD heard it"
        assert last.began_at >= self.heard_briefing_at, "rule 4: after the briefing"
        assert self.answers_on_air == 0, "rule 5: the visitor's answer is being read"
        assert last.began_at >= self.last_answer_at, "rule 5: it may be the visitor's answer, read out"
        latest_turn = max(turn.began_as for turn in self.turns.values())
        assert self.vad_heard is None or latest_turn > self.vad_heard, "rule 4: speech that nobody wrote down"
        return "voice"

    def judge_order(self, was: State, effects: tuple[Effect, ...]) -> None:
        """Hold what a visit asks for at once, in a state, against rule 7 and the rest of 1 and 2."""
        kinds = [type(effect) for effect in effects]
        if e.OpenGate not in kinds:
            return
        before = effects[: kinds.index(e.OpenGate)]
        records = [one.kind for one in before if isinstance(one, e.Record)]
        assert records[-3:] == ["evidence", "decision", "gate.requested"], "rule 7"
        decision = [one for one in before if isinstance(one, e.Record)][-2]
        assert decision.data["decision"] == "authorized"
        evidence = [one for one in before if isinstance(one, e.Record)][-3]
        assert evidence.data["attempt"] == str(self.resident), "rule 2: the evidence names the leg"
        assert was in (State.CONSULTING, State.CONNECTED), "rule 1"
        assert e.OpenGate not in kinds[kinds.index(e.OpenGate) + 1 :]

    def _last_turn(self) -> Turn | None:
        """The turn that began last, mere noise aside: no words, and no voice either."""
        for turn in sorted(self.turns.values(), key=lambda turn: -turn.began_as):
            if turn.words is None or turn.voiced or classify(turn.words) is not Reading.NOTHING:
                return turn
        return None
