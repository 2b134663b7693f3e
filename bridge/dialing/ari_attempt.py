"""One attempt to call a resident through ARI, as what is heard of it in any order: no I/O.

The outcome is the channel's cause (Q.850, as Asterisk numbers it). A Local channel whose dialplan says Busy()
or Congestion() is destroyed with cause 0 (Asterisk 22.10.1): only there the last `Dial` event has the word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from bridge.dialing.base import DialResult
from visits.events import DialOutcome

CAUSES: Mapping[int, tuple[DialOutcome, str]] = {
    1: (DialOutcome.INVALID, "no such number"),
    2: (DialOutcome.INVALID, "no route to the number"),
    3: (DialOutcome.INVALID, "no route to the phone: it is not registered, or not known"),
    16: (DialOutcome.NO_ANSWER, "hung up before anybody answered"),
    17: (DialOutcome.BUSY, "busy"),
    18: (DialOutcome.NO_ANSWER, "the phone did not react"),
    19: (DialOutcome.NO_ANSWER, "nobody answered"),
    20: (DialOutcome.INVALID, "the phone is not registered"),
    21: (DialOutcome.REJECTED, "the resident rejected the call"),
    22: (DialOutcome.INVALID, "the number has changed"),
    26: (DialOutcome.NO_ANSWER, "answered elsewhere"),
    27: (DialOutcome.CONGESTION, "the phone can't be reached now"),
    28: (DialOutcome.INVALID, "the number is malformed"),
    34: (DialOutcome.CONGESTION, "congestion"),
    38: (DialOutcome.CONGESTION, "the network is out of order"),
    41: (DialOutcome.CONGESTION, "a temporary failure"),
    42: (DialOutcome.CONGESTION, "the exchange is overloaded"),
    44: (DialOutcome.CONGESTION, "the channel is not available"),
}
DIAL_STATUS: Mapping[str, tuple[DialOutcome, str]] = {
    "BUSY": CAUSES[17],
    "CONGESTION": CAUSES[34],
    "NOANSWER": CAUSES[19],
    "CHANUNAVAIL": CAUSES[20],
    "RINGING": CAUSES[16],
    "PROGRESS": CAUSES[16],
    "PROCEEDING": CAUSES[16],
}
"""Asked only where the channel has no cause."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """Asterisk took the order."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Asterisk did not take it."""

    status: int
    text: str


@dataclass(frozen=True, slots=True)
class Unclear:
    """There was no answer: there may be a channel or not."""

    text: str


@dataclass(frozen=True, slots=True)
class Answered:
    """The channel entered our Stasis application."""


@dataclass(frozen=True, slots=True)
class Dialled:
    """A `Dial` event about our channel; the status is empty when it begins."""

    status: str


@dataclass(frozen=True, slots=True)
class Destroyed:
    """The channel is gone."""

    cause: int


@dataclass(frozen=True, slots=True)
class Looked:
    """After the event socket was lost and came back: how the channel stands."""

    there: bool
    waiting: bool
    """In our Stasis application."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The event socket does not come back."""

    text: str


Thing = Accepted | Refused | Unclear | Answered | Dialled | Destroyed | Looked | Lost


class Step(Enum):
    """What the dialer is to do."""

    CONNECT = "connect"
    """The phone was answered: send its channel to our resident port. At most once."""


class Attempt:
    """Folds what is heard; says something at most twice: to connect, and how it ended."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._status: str | None = None
        self._blind = False
        self.accepted = False
        self.answered = False
        self.gone = False
        """There is no channel, or not any more."""
        self.ended = False

    def take(self, thing: Thing) -> Step | DialResult | None:
        """What follows from it; None: nothing."""
        if self.ended:
            self.gone = self.gone or isinstance(thing, Destroyed)
            return None
        step = self._take(thing)
        self.ended = isinstance(step, DialResult)
        return step

    def _take(self, thing: Thing) -> Step | DialResult | None:
        match thing:
            case Accepted():
                self.accepted = True
            case Dialled(status):
                self._status = status or self._status or ""
            case Answered():
                return self._answer()
            case Looked(there, waiting):
                self._blind = True
                if waiting:
                    return self._answer()
                if not there and self.accepted:
                    self.gone = True
                    return self._failed("the call ended while the events of ARI were lost")
            case Destroyed(cause):
                self.gone = True
                return self._destroyed(cause)
            case Refused(status, text):
                return self._refused(status, text)
            case Unclear(text) | Lost(text):
                return None if self.answered else self._failed(text)
        return None

    def _answer(self) -> Step | None:
        if self.answered:
            return None
        self.answered = True
        return Step.CONNECT

    def _destroyed(self, cause: int) -> DialResult:
        if self.answered:
            return self._failed(
                "the phone was answered, and the call ended before it reached the resident port; the log of "
                "Asterisk says whether AudioSocket could connect"
            )
        if cause:
            found = CAUSES.get(cause, (DialOutcome.FAILED, "the call failed"))
            return DialResult(found[0], f"{found[1]} (cause {cause})")
        if self._status:
            found = DIAL_STATUS.get(self._status, (DialOutcome.FAILED, f"the call failed: {self._status}"))
            return DialResult(*found)
        if self._status is None and not self._blind:
            return DialResult(DialOutcome.INVALID, f"Asterisk has nothing to dial at {self._endpoint}")
        return self._failed("the call ended, and Asterisk gave no cause")

    def _refused(self, status: int, text: str) -> DialResult | None:
        if self.answered:
            return None
        no_endpoint = status in (400, 404) or (status == 500 and "allocation failed" in text.lower())
        # Of another refusal (a proxy's 502) nobody knows whether a channel came of it.
        self.gone = no_endpoint or status in (401, 403)
        if no_endpoint:
            return DialResult(
                DialOutcome.INVALID,
                f"Asterisk can't dial {self._endpoint}: it has no such phone, or the phone is not registered",
            )
        return self._failed(text)

    @staticmethod
    def _failed(text: str) -> DialResult:
        return DialResult(DialOutcome.FAILED, text)


def read_event(message: Any) -> tuple[str, Thing] | None:
    """(channel, what happened to it) of one ARI event; None for what says nothing about a call of ours."""
    if not isinstance(message, dict):
        return None
    kind = message.get("type")
    about = message.get("peer" if kind == "Dial" else "channel")
    channel = about.get("id") if isinstance(about, dict) else None
    if not isinstance(channel, str):
        return None
    if kind == "StasisStart":
        return channel, Answered()
    if kind == "Dial":
        return channel, Dialled(str(message.get("dialstatus") or ""))
    if kind == "ChannelDestroyed":
        cause = message.get("cause")
        return channel, Destroyed(cause if isinstance(cause, int) else 0)
    return None
