"""A dishonest model behind the vendors' simulators: it hears by level alone and does as chance has it.

It takes the place of :class:`tests.simulators.brain.Brain`. Mostly it does what a good doorman would, so that
visits get far; now and then it calls what it must not, says other words than it was given, hurries through
what must be heard, or says nothing. What callers are taken to have said comes from chance as well: only the
sound of it is real.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from tests.simulators.brain import (
    RATE,
    Called,
    Heard,
    ReplyEnded,
    SayBegan,
    SayEnded,
    Sentence,
    Sound,
    Thought,
    TurnBegan,
    TurnEnded,
    read_notice,
)
from visits.consent import Reading, classify
from visits.wording import MIN_MS_PER_CHARACTER

LOUD: Final = 300.0
"""RMS from which audio counts as speech: telephone speech has thousands, silence none."""
LONGEST_S: Final = 6.0
"""Nothing that is said lasts longer."""
PIECE_S: Final = 0.1
AHEAD: Final = 4.0
"""So many times faster than it is spoken, sound comes."""

YES: Final = ("Sim, pode entrar.", "Pode liberar.", "Autorizo.", "Pode abrir, sim.")
NO: Final = ("Não autorizo.", "Não pode entrar.", "De jeito nenhum.", "Não.")
OTHER: Final = ("Quem é?", "De que empresa?", "Espera.", "Alô?", "Deixa na portaria.", "O tempo.", "")

_HUM: Final = (
    (6000 * np.sin(2 * np.pi * 300 * np.arange(round(RATE * PIECE_S)) / RATE)).astype("<i2").tobytes()
)

Act = tuple[str, Mapping[str, Any]] | str
"""A call, or something to say."""

_VISIT: Final = {
    "apartment": "501",
    "intent": "visita",
    "visitor_name": "Pedro",
    "resident_name": "Renata Oliveira",
}
_WRONG: Final[Sequence[Act]] = (
    ("authorize_entry", {}),
    ("open_gate", {"now": True}),
    ("call_resident", {"apartment": "9999", "intent": "visita"}),
    ("call_resident", {"apartment": "501", "intent": "assalto"}),
    ("lookup_apartment", {"apartment": [1, {}]}),
    ("lookup_apartment", {}),
)


def visitor_act(chance: random.Random, called_resident: bool) -> Act:
    """What a visitor's model does when it is its turn."""
    luck = chance.random()
    if luck < 0.06:
        return chance.choice(_WRONG)
    if luck < 0.16:
        return "lookup_apartment", {"apartment": "501"}
    if luck < 0.2:
        return chance.choice([("end_call", {}), ("transfer_to_attendant", {})])
    if called_resident:
        return "Um momento, por favor."
    if luck < 0.9:
        return "call_resident", _VISIT
    return "Para qual apartamento?"


def resident_act(chance: random.Random, said: str) -> Act:
    """What a resident's model does, who said that last."""
    luck = chance.random()
    match classify(said):
        case Reading.CONSENT if luck < 0.8:
            return "authorize_entry", {}
        case Reading.REFUSAL if luck < 0.6:
            return "deny_entry", {}
    if luck < 0.25:
        return "authorize_entry", {}  # whatever they said
    if luck < 0.4:
        return "ask_visitor", {"question": "De que empresa ele é?"}
    if luck < 0.5:
        return "connect_parties", {}
    if luck < 0.55:
        return "end_call", {}
    return "O senhor autoriza a entrada?"


def words(chance: random.Random, resident: bool) -> str:
    """What a caller is taken to have said."""
    return chance.choice(YES * 3 + NO + OTHER if resident else YES + OTHER * 2)


class Actor:
    """One conversation. Every choice comes from ``chance``."""

    def __init__(self, chance: random.Random) -> None:
        self.tell: Callable[[Thought], None] = lambda thought: None
        self.wake: Callable[[], None] = lambda: None
        self._chance = chance
        self._loop = asyncio.get_running_loop()
        self._names = itertools.count(1)
        self._resident = False
        self._silence_ms: int | None = None
        self._loud_ms = self._quiet_ms = 0.0
        self._turn = False
        self._last = ""
        """What the caller is taken to have said last."""
        self._called_resident = False
        self._owed: deque[str] = deque()
        """Replies that were asked for, each with the words that it must have; the first is running."""
        self._ahead: deque[Thought] = deque()
        self._closed = False

    def close(self) -> None:
        """Nothing more comes of it."""
        self._closed = True

    # -- what a simulator does -------------------------------------------------------------------------------

    def configure(
        self,
        instructions: str,
        tools: Sequence[Mapping[str, Any]],
        *,
        hint: str = "",
        silence_ms: int | None = None,
    ) -> None:
        """Which leg this is, and whether turns are given to it."""
        self._resident = any(tool["name"] == "authorize_entry" for tool in tools)
        self._silence_ms = silence_ms

    def hear(self, pcm: bytes, rate: int) -> None:
        """More of the caller's audio."""
        samples = np.frombuffer(pcm, "<i2").astype(np.float64)
        if self._silence_ms is None or not len(samples):
            return
        ms = len(samples) * 1000 / rate
        if float(np.sqrt((samples * samples).mean())) >= LOUD:
            self._loud_ms, self._quiet_ms = self._loud_ms + ms, 0.0
            if not self._turn and self._loud_ms >= 60:
                self._turn = True
                self._think(TurnBegan())
        else:
            self._quiet_ms += ms
            if self._quiet_ms >= self._silence_ms:
                self._loud_ms = 0.0
                if self._turn:
                    self._turn = False
                    self._think(TurnEnded())
                    self._hears()

    def turn(self, pcm: bytes, rate: int) -> None:
        """A whole turn of the caller's."""
        self._hears()

    def _hears(self) -> None:
        """Chance says what it was; the words take their time."""
        text = self._last = words(self._chance, self._resident)
        if self._chance.random() < 0.9:
            self._think(Heard(text))
        else:
            self._later(self._chance.uniform(0.1, 1.5), Heard(text))

    def note(self, text: str, role: str = "system") -> None:
        """It takes no notes."""

    def called(self, call: str, name: str, arguments: str) -> None:
        """What another session called."""
        self._called_resident |= name == "call_resident"

    def take_notice(self, text: str) -> str:
        """What it is asked to say word for word, if anything."""
        return read_notice(text).exact

    def answer(self, call: str, output: str) -> None:
        """What came of a call."""

    def heard(self, item: str, ms: int) -> None:
        """Of something that it said so much was heard."""

    def forget(self, item: str) -> None:
        """Something that it said was not heard."""

    def reply(self, exact: str = "") -> None:
        """Have it reply once what it says now is over."""
        self._owed.append(exact)
        if len(self._owed) == 1:
            self._begin()

    def cancel(self) -> None:
        """Nothing more of any reply."""
        self._owed.clear()
        self._ahead.clear()

    # -- what it does ----------------------------------------------------------------------------------------

    def _begin(self) -> None:
        exact = self._owed[0]
        luck = self._chance.random()
        if luck < 0.01:
            return  # it says nothing, ever
        if exact:
            said = exact if luck > 0.04 else "Desculpe, não entendi nada."
            hurried = 0.3 if luck > 0.97 else 1.1
            self._ahead += self._speech(said, len(exact) * MIN_MS_PER_CHARACTER * hurried / 1000)
        elif luck < 0.05:
            pass  # an empty reply
        else:
            act = self._act()
            if isinstance(act, str):
                self._ahead += self._speech(act, len(act) * MIN_MS_PER_CHARACTER / 1000)
            else:
                name, arguments = act
                self._called_resident |= arguments is _VISIT
                self._ahead.append(Called(f"call-{next(self._names)}", name, json.dumps(arguments)))
        self._ahead.append(ReplyEnded())
        self._go_on(self._chance.uniform(0.0, 0.4))

    def _act(self) -> Act:
        if self._resident:
            return resident_act(self._chance, self._last)
        return visitor_act(self._chance, self._called_resident)

    def _speech(self, text: str, seconds: float) -> list[Thought]:
        item = f"say-{next(self._names)}"
        pieces = max(1, round(min(seconds, LONGEST_S) / PIECE_S))
        sound: list[Thought] = [Sound(item, _HUM)] * pieces
        return [SayBegan(item), Sentence(item, text), *sound, SayEnded(item, text)]

    def _go_on(self, after_s: float) -> None:
        self._loop.call_later(after_s, self._next)

    def _next(self) -> None:
        if not self._ahead:
            return  # cancelled meanwhile
        thought = self._ahead.popleft()
        if isinstance(thought, ReplyEnded):
            self._owed.popleft()
        self._think(thought)
        if self._ahead:
            self._go_on(PIECE_S / AHEAD if isinstance(thought, Sound) else 0.0)
        elif isinstance(thought, ReplyEnded) and self._owed:
            self._begin()

    def _later(self, seconds: float, thought: Thought) -> None:
        self._loop.call_later(seconds, self._think, thought)

    def _think(self, thought: Thought) -> None:
        if not self._closed:
            self.tell(thought)
            self.wake()


class Actors:
    """Makes actors, and ends them: in the place of :class:`tests.simulators.brain.Brains`."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._actors: list[Actor] = []

    def new(self) -> Any:
        """One more."""
        actor = Actor(random.Random(self._chance.random()))
        self._actors.append(actor)
        return actor

    def close(self) -> None:
        """No actor does anything any more."""
        for actor in self._actors:
            actor.close()
