"""A simulated voice model that plays the doorman by a script: OpenAI's protocol, with ears.

It says exact words as they are asked for, hears by level alone when a caller's turn ends, "transcribes" what
the script says and replies as the script says. Its voice is a constant level, another for each item, so that
what a telephone receives tells which item it was, to the sample.
"""

from __future__ import annotations

import base64
import json
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from providers.openai_messages import EXACT_INSTRUCTIONS
from tests.simulators.openai_realtime import (
    Call,
    Faults,
    Message,
    Model,
    Reply,
    Say,
    Simulator,
)
from visits.wording import MIN_MS_PER_CHARACTER

EXACT_BEFORE, EXACT_AFTER = EXACT_INSTRUCTIONS["pt"].split("{text}")
LOWEST, STEP = 2000, 300
"""The level of a model's first item, and by how much each further one is louder."""
HEARD_WHOLE = ("Autoriza a entrada?", "conectar vocês")
"""What is asked for exactly and holds one of these lasts as long as speech at least: more rests on it."""
LOUD = 300.0
"""RMS from which on audio counts as speech: telephone speech has thousands, silence none."""
PAUSE_MS = 400


@dataclass(frozen=True)
class Turn:
    """What a caller is taken to have said, and what the model makes of it."""

    text: str
    reply: Reply


@dataclass(frozen=True)
class Part:
    """What the models of one simulated provider do, by role.

    Attributes:
        exact_ms: how long exact words last; those on which something rests, as long as speech at least.
        rushed: those last no longer than the others, though their transcript says that all was said.
        mute: exact words that hold this text are asked for in vain: nothing ever comes.
    """

    visitor: Sequence[Turn] = ()
    resident: Sequence[Turn] = ()
    exact_ms: int = 300
    rushed: bool = False
    piece_ms: int = 100
    mute: str = "\0"


def call_resident(apartment: str = "501", name: str = "Pedro", resident: str = "Renata Oliveira") -> Reply:
    """The tool call that has a resident called."""
    arguments = {
        "apartment": apartment,
        "intent": "visita",
        "visitor_name": name,
        "resident_name": resident,
    }
    return Reply((Call("call_resident", json.dumps(arguments)),))


def authorize() -> Reply:
    """The tool call that asks for the gate."""
    return Reply((Call("authorize_entry", "{}"),))


ASKS = (Turn("Oi, tudo bem?", call_resident()),)
AGREES = (Turn("Pode liberar.", authorize()),)


@dataclass
class _Ears:
    item: str | None = None
    quiet_ms: float = 0.0
    loud_ms: float = 0.0


class Doorman(Model):
    """See the module."""

    def __init__(self, replies: list[Reply], faults: Faults, part: Part) -> None:
        self.part = part
        self.levels: dict[str, int] = {}
        """Item → the level at which it is heard."""
        self.texts: dict[str, str] = {}
        """Item → its words."""
        self.instructions = ""
        self._turns: deque[Turn] | None = None
        self._owed: deque[Reply] = deque()
        self._create: Message = {}
        self._ears = _Ears()
        super().__init__(replies, faults)

    @property
    def role(self) -> str:
        """Whose leg this is, by the tools that it was given."""
        names = {tool["name"] for tool in self.session.get("tools", ())}
        return "resident" if "authorize_entry" in names else "visitor"

    def _on_session_update(self, message: Message) -> None:
        super()._on_session_update(message)
        self.instructions = message["session"]["instructions"]
        if self.session:
            self._turns = deque(getattr(self.part, self.role))

    # -- ears

    def hear(self, pcm: bytes, rate: int) -> None:
        """The caller's audio."""
        super().hear(pcm, rate)
        if self.manual:
            return
        samples = np.frombuffer(pcm, "<i2").astype(np.float64)
        ms = len(samples) * 1000 / rate
        ears = self._ears
        if float(np.sqrt((samples * samples).mean())) >= LOUD:
            ears.loud_ms, ears.quiet_ms = ears.loud_ms + ms, 0.0
        else:
            ears.quiet_ms += ms
        if ears.item is None and ears.loud_ms >= 60:
            ears.item = self.caller_starts()
        elif ears.quiet_ms >= PAUSE_MS:
            item, self._ears = ears.item, _Ears()
            if item is not None:
                self.caller_ends(item, self._understood())

    def _understood(self) -> str:
        """What the script takes a turn to say; its reply is owed."""
        turn = self._turns.popleft() if self._turns else Turn("Hum.", Reply())
        self._owed.append(turn.reply)
        return turn.text

    def transcribe(self, item: str) -> None:
        """Say what was said in a turn that the client committed."""
        self._transcribed(item, self._understood())

    # -- voice

    def _on_response_create(self, message: Message) -> None:
        self._create = message
        super()._on_response_create(message)

    def start(self, metadata: dict[str, str] | None) -> None:
        """Exact words as asked for; else what the script owes."""
        asked = (self._create.get("response") or {}).get("instructions", "")
        self._create = {}
        if self.part.mute in asked:
            return
        if asked.startswith(EXACT_BEFORE):
            text = asked[len(EXACT_BEFORE) : len(asked) - len(EXACT_AFTER)]
            self.replies.appendleft(Reply((Say(self._lasts_ms(text), text, self.part.piece_ms),)))
        elif self._owed:
            self.replies.appendleft(self._owed.popleft())
        super().start(metadata)

    def _lasts_ms(self, text: str) -> int:
        """How long exact words take to say."""
        if self.part.rushed or not any(mark in text for mark in HEARD_WHOLE):
            return self.part.exact_ms
        spoken = math.ceil(MIN_MS_PER_CHARACTER * len(text) / 20 + 1) * 20
        return max(self.part.exact_ms, spoken)

    def _delta(self, response: str, item: str, ms: int) -> Message:
        message = super()._delta(response, item, ms)
        level = self.levels.setdefault(item, LOWEST + STEP * len(self.levels))
        message["delta"] = base64.b64encode(self.level(level, ms)).decode()
        return message

    @property
    def said(self) -> list[str]:
        """The words of everything that was asked for exactly, in order."""
        found = [(create.get("response") or {}).get("instructions", "") for create in self.creates]
        return [text[len(EXACT_BEFORE) : -len(EXACT_AFTER) or None] for text in found if text]


class Cast(Simulator):
    """A simulated provider whose models all play one part."""

    def __init__(
        self, part: Part | None = None, *, faults: Faults | None = None, model: type[Doorman] = Doorman
    ) -> None:
        self.part = part or Part(ASKS, AGREES)
        super().__init__(faults=faults, make=lambda replies, faults: model(replies, faults, self.part))

    async def __aenter__(self) -> Cast:
        """Serve."""
        await super().__aenter__()
        return self

    @property
    def doormen(self) -> list[Doorman]:
        """Every connection's model, in order."""
        return [model for model in self.models if isinstance(model, Doorman)]
