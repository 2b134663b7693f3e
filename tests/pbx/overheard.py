"""What the models gave us to say, and when each frame of ours went out: noted inside our legs.

The first is taken before anything of ours has touched it, so that what a telephone heard can be held against
it; the second says whose fault a gap is, ours or what comes behind us.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import TracebackType
from typing import Self

import numpy as np
import pytest
import soxr

from bridge.clock import FRAME_S
from bridge.leg import Leg
from providers.base import AudioDelta, Event, Transcript
from tests.pbx.rtp import RATE, Samples

Key = tuple[str, str]
"""A visit's id, and a role."""


@dataclass
class Said:
    """One message of a model's, as it came."""

    rate: int
    text: str = ""
    pcm: bytearray = field(default_factory=bytearray)
    came: list[tuple[float, float]] = field(default_factory=list)
    """When each piece came (monotonic second), and the second of the message at which it begins."""

    def late(self, begun: float) -> float:
        """By how many seconds any of it came after it was due, once its first frame was out at `begun`."""
        return max(0.0, *(at - begun - due for at, due in self.came))

    def samples(self, ms: float | None = None) -> Samples:
        """At 8 kHz; the first so many milliseconds."""
        whole = soxr.resample(np.frombuffer(self.pcm, "<i2"), self.rate, RATE, quality="VHQ")
        found: Samples = whole[: None if ms is None else round(ms / 1000 * RATE)]
        return found


class Overheard:
    """A context: inside it all legs are listened to.

    Attributes:
        said: what the model of a leg said, in its order.
        sent: when each frame of a leg's went out (monotonic second), and whether we were speaking.
    """

    def __init__(self) -> None:
        self.said: dict[Key, dict[str, Said]] = {}
        self.sent: dict[Key, list[tuple[float, bool]]] = {}
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> Self:
        """Begin to listen."""
        on, tick = Leg._on, Leg.tick

        def noted_on(leg: Leg, event: Event) -> None:
            self._note(leg, event)
            on(leg, event)

        def noted_tick(leg: Leg, skipped: int) -> None:
            tick(leg, skipped)
            self.sent.setdefault(_key(leg), []).append((time.monotonic(), leg._playout.audible))

        self._patch.setattr(Leg, "_on", noted_on)
        self._patch.setattr(Leg, "tick", noted_tick)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Listen no more."""
        self._patch.undo()

    def _note(self, leg: Leg, event: Event) -> None:
        if not isinstance(event, AudioDelta) and not (
            isinstance(event, Transcript) and event.role == "agent"
        ):
            return
        assert leg._session is not None
        rate = leg._session.capabilities.output_rate
        said = self.said.setdefault(_key(leg), {}).setdefault(event.item, Said(rate))
        if isinstance(event, AudioDelta):
            said.came.append((time.monotonic(), len(said.pcm) / 2 / rate))
            said.pcm += event.pcm
        else:
            said.text = event.text if event.final else said.text + event.text

    def late(self, visit: str, role: str, begin: float, end: float) -> Sequence[float]:
        """By how many seconds frames of ours went out after their place, between two monotonic seconds, while
        we spoke: of each that was late by more than its own length."""
        frames = [frame for frame in self.sent.get((visit, role), []) if begin <= frame[0] <= end]
        gaps = [at - before - FRAME_S for (before, _), (at, ours) in pairwise(frames) if ours]
        return [late for late in gaps if late > FRAME_S]


def _key(leg: Leg) -> Key:
    return leg.ids["visit"], leg.role.value
