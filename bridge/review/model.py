"""What a visit's time line is made of. Times are milliseconds on the visit's clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["visitor", "resident"]


@dataclass(frozen=True, slots=True)
class Lane:
    """One leg: when it was connected, and where its recording is."""

    seq: int
    leg: str
    role: Role
    start_ms: float
    end_ms: float | None
    """None: it still is, as far as the records say."""
    end_seq: int | None
    reason: str | None
    provider: str | None
    endpoint: str | None
    recording_ms: float
    """Where its recording begins."""
    recorded: bool | None
    """Whether there is a recording; None: not known before the leg's end."""
    recording_failed: str | None
    """Why it stopped early."""


@dataclass(frozen=True, slots=True)
class Span:
    """One turn of one side of a leg."""

    seq: int
    leg: str
    role: Role
    speaker: Literal["caller", "agent"]
    text: str
    start_ms: float
    end_ms: float
    response_ms: float | None
    interrupted: bool
    heard_ms: float | None
    backchannel: bool
    """A caller's word for which we paused, and which left us the turn."""
    evidence: bool
    """The decision rests on it."""


@dataclass(frozen=True, slots=True)
class BargeIn:
    """A caller spoke over us and we fell silent."""

    seq: int
    leg: str
    role: Role
    at_ms: float
    speech_to_silence_ms: float | None
    heard_ms: float | None


@dataclass(frozen=True, slots=True)
class Pause:
    """We fell silent for a sound of the caller's, and went on."""

    seq: int
    leg: str
    role: Role
    at_ms: float
    ms: float


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call; without an answer `end_ms`, `ms`, `status` and `result` are None."""

    seq: int
    leg: str
    role: Role
    name: str
    arguments: Any
    at_ms: float
    end_ms: float | None
    result: Any
    ms: float | None
    status: str | None


@dataclass(frozen=True, slots=True)
class Dial:
    """One try to reach the resident."""

    seq: int
    attempt: str
    number: int | None
    apartment: str | None
    at_ms: float
    end_ms: float | None
    outcome: str | None
    detail: str | None
    leg: str | None
    """The leg that it became."""


@dataclass(frozen=True, slots=True)
class Briefing:
    """The resident heard to its end who is there, what for and for whom."""

    seq: int
    attempt: str
    leg: str | None
    at_ms: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the resident said or pressed."""

    seq: int
    attempt: str
    leg: str | None
    role: Role | None
    by: str
    text: str | None
    key: str | None
    reading: str | None
    at_ms: float
    """When it was said or pressed."""
    turn: int | None
    """The number of the turn's record."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided."""

    seq: int
    at_ms: float
    decision: str
    reason: str | None
    evidence: tuple[int, ...]
    """The records of what it rests on."""


@dataclass(frozen=True, slots=True)
class Gate:
    """The order to the gate, and its answer."""

    seq: int
    at_ms: float
    gate: str | None
    end_ms: float | None
    opened: bool | None
    unknown: bool
    detail: str | None


@dataclass(frozen=True, slots=True)
class Stretch:
    """Something that lasted: a stage of the visit, a leg without a session, two callers connected."""

    seq: int
    name: str
    leg: str | None
    start_ms: float
    end_ms: float | None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Cost:
    """What the visit had cost by then."""

    seq: int
    at_ms: float
    amount: str
    currency: str
    complete: bool
    final: bool


@dataclass(frozen=True, slots=True)
class Moment:
    """Anything else that is on record."""

    seq: int
    kind: str
    leg: str | None
    at_ms: float
    detail: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A sentence about what held, by its name; `facts` are the sentence's values.

    `held`: True: the records show it; False: they don't, and they should; None: somebody should look.
    """

    name: str
    held: bool | None
    at_ms: float | None = None
    records: tuple[int, ...] = ()
    facts: Mapping[str, str | float | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Timeline:
    """A visit on one time line."""

    visit: str
    tenant: str
    started_at: str
    settings_version: int | None
    """Of the tenant's settings that it ran with, where they are kept in the database."""
    running: bool
    length_ms: float
    """From the start to the last of what is on record."""
    outcome: str | None
    reason: str | None
    end_ms: float | None
    lanes: tuple[Lane, ...]
    spans: tuple[Span, ...]
    barge_ins: tuple[BargeIn, ...]
    pauses: tuple[Pause, ...]
    calls: tuple[Call, ...]
    dials: tuple[Dial, ...]
    briefings: tuple[Briefing, ...]
    evidence: tuple[Evidence, ...]
    decision: Decision | None
    gate: Gate | None
    stages: tuple[Stretch, ...]
    connected: tuple[Stretch, ...]
    lost: tuple[Stretch, ...]
    """Stretches of a leg without a session: from its loss to the next one."""
    costs: tuple[Cost, ...]
    moments: tuple[Moment, ...]
    rules: tuple[Rule, ...]
    changed: tuple[int, ...]
    """Records whose content does not give their hash: somebody changed them."""
    cut: bool = False
    """There are more records than were looked at."""
    tested_by: str | None = None
    """Whose test call it is, as records name them; None: a call like any other."""
