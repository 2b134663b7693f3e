"""A stage on which a visit is played without a host: its clock, its timers, its ids, what it asked for."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from visits import events as e
from visits.directory import Directory
from visits.events import Effect, Event, Role
from visits.visit import State, Visit, VisitRules

V, R = Role.VISITOR, Role.RESIDENT
VISIT_ID = UUID(int=1)
HOUSE: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "data" / "apartamentos.json").read_text(encoding="utf-8")
)
TWO_PHONES = {
    "apartment_number": "601",
    "residents": ["Marta Nunes"],
    "voip_number": ["sip:first@casa", "sip:second@casa"],
}
DIRECTORY = Directory.from_records([*HOUSE, TWO_PHONES])
E = TypeVar("E")


class Stage:
    """Plays events to a visit and keeps all that it asked for."""

    def __init__(self, **rules: Any) -> None:
        self.visit = Visit(VISIT_ID, VisitRules(**rules), DIRECTORY)
        self.now = 0.0
        self.timers: dict[str, float] = {}
        self.told: list[Effect] = []
        self._ids = count(100)
        self._calls = count(1)

    # ---- playing -----------------------------------------------------------------------------------------

    def play(self, *events: Event, after: float = 0.1) -> list[Effect]:
        """What the visit asked for upon these events, each `after` seconds after the one before."""
        told: list[Effect] = []
        for event in events:
            self.now += after
            effects = self.visit.handle(event, now=self.now, fresh=UUID(int=next(self._ids)))
            for effect in effects:
                if isinstance(effect, e.SetTimer):
                    self.timers[effect.name] = self.now + effect.seconds
                elif isinstance(effect, e.StopTimer):
                    self.timers.pop(effect.name, None)
            told += effects
        self.told += told
        return told

    def ring(self, name: str) -> list[Effect]:
        """A timer that is set runs out."""
        due = self.timers.pop(name)
        self.now = max(self.now, due)
        return self.play(e.TimerFired(name), after=0.0)

    def call(self) -> str:
        """The id of a new tool call."""
        return f"call-{next(self._calls)}"

    # ---- the usual scenes --------------------------------------------------------------------------------

    @classmethod
    def collecting(cls, **rules: Any) -> Stage:
        stage = cls(**rules)
        stage.play(e.Started(), e.SentencePlayed(V, "greeting", True))
        return stage

    @classmethod
    def dialing(
        cls,
        apartment: str = "501",
        intent: str = "entrega",
        visitor: str = "Pedro",
        company: str = "",
        **rules: Any,
    ) -> Stage:
        stage = cls.collecting(**rules)
        stage.play(e.CallRequested(stage.call(), apartment, intent, visitor, company=company))
        assert stage.visit.state is State.DIALING
        return stage

    @classmethod
    def answered(cls, **rules: Any) -> Stage:
        stage = cls.dialing(**rules)
        stage.play(e.DialAnswered(stage.attempt))
        assert stage.visit.state is State.CONSULTING
        return stage

    @classmethod
    def briefed(cls, **rules: Any) -> Stage:
        stage = cls.answered(**rules)
        stage.ring("pickup")
        stage.play(e.SentencePlayed(R, "briefing", True), after=8.0)
        stage.now += 0.5
        return stage

    @classmethod
    def connected(cls, **rules: Any) -> Stage:
        stage = cls.briefed(**rules)
        stage.connect()
        stage.play(e.SentencePlayed(V, "connecting", True), e.SentencePlayed(R, "connecting", True))
        assert e.Connect() in stage.told
        return stage

    @classmethod
    def authorized(cls, **rules: Any) -> Stage:
        stage = cls.briefed(**rules)
        stage.says("Sim, pode entrar.")
        stage.authorize()
        assert stage.visit.state is State.AUTHORIZED
        return stage

    @property
    def attempt(self) -> UUID:
        assert self.visit.attempt is not None
        return self.visit.attempt

    def says(self, text: str, item: str = "", *, voiced: bool = True) -> list[Effect]:
        """The resident says something: heard by the local VAD and by the provider, then transcribed."""
        item = item or self.call()
        began = self.now + 0.1
        spoken: list[Event] = [e.SpeechBegan(R), e.TurnBegan(R, item), e.SpeechEnded(R)]
        heard: list[Event] = spoken if voiced else [e.TurnBegan(R, item)]
        return self.play(*heard, e.Said(R, item, text, began, voiced))

    def visitor_says(self, text: str, *, voiced: bool = True) -> list[Effect]:
        item, began = self.call(), self.now + 0.1
        return self.play(e.TurnBegan(V, item), e.Said(V, item, text, began, voiced))

    def authorize(self) -> list[Effect]:
        """The resident's model asks for the gate, and the resident stays quiet."""
        return self.play(e.AuthorizeRequested(self.call())) + self.quiet()

    def quiet(self) -> list[Effect]:
        """Where an authorisation is held for a moment of quiet, that moment passes."""
        return self.ring("hold") if "hold" in self.timers else []

    def connect(self) -> list[Effect]:
        return self.play(e.ConnectRequested(self.call()))

    def deny(self) -> list[Effect]:
        return self.play(e.DenyRequested(self.call(), "não quer"))

    def closes(self) -> None:
        """Every goodbye is heard to its end, every leg that is hung up closes."""
        for role in (V, R):
            if role in self.visit.legs:
                said = [one for one in self.told if isinstance(one, e.SayExactly) and one.role is role]
                self.play(e.SentencePlayed(role, said[-1].tag, True))
                assert any(isinstance(one, e.HangUp) and one.role is role for one in self.told[-3:])
                self.play(e.LegClosed(role, self.visit.attempt if role is R else None, "hung up"))
        assert self.visit.state is State.ENDED

    def at(self, state: State) -> bool:
        """Whether the visit stands there."""
        return self.visit.state is state

    # ---- looking -----------------------------------------------------------------------------------------

    @property
    def opened(self) -> bool:
        return bool(of(self.told, e.OpenGate))

    def ended(self) -> tuple[str, str]:
        """Outcome and reason as the visit's last record has them, after `Finish` came last."""
        assert isinstance(self.told[-1], e.Finish)
        record = of(self.told, e.Record)[-1]
        assert record.kind == "visit.ended"
        assert record.data["outcome"] == self.told[-1].outcome.value
        return record.data["outcome"], record.data["reason"]


def of(effects: Iterable[Effect], kind: type[E]) -> list[E]:
    """The effects of one kind."""
    return [effect for effect in effects if isinstance(effect, kind)]


def said_to(effects: Iterable[Effect], role: Role) -> list[str]:
    """The sentences that a leg is to hear."""
    return [effect.sentence for effect in of(effects, e.SayExactly) if effect.role is role]


def answer(effects: Iterable[Effect]) -> dict[str, Any]:
    """The result of the one tool call that these effects answer."""
    (reply,) = of(effects, e.Reply)
    return dict(reply.result)


def records(effects: Iterable[Effect]) -> list[str]:
    """The kinds of the records among these effects."""
    return [effect.kind for effect in of(effects, e.Record)]
