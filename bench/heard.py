"""`porteiro bench --heard N`: whether the model is told how much of it was really heard, over N barge-ins.

Callers barge into replies at random instants, through the whole service. What the provider was told
(`conversation.item.truncate` at a millisecond; an item deleted: nothing of it was heard) is held against the
frames of that reply that came to the caller's socket: the pilot makes each of them audible, and between two
replies there is silence. Whatever the model server refuses counts as well: like OpenAI's it takes no
truncation of an item that there isn't, and none to more than it has sent.

A machine that is so busy that callers hear replies seconds late still has to be told right: what is compared
are counts of frames, not times.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final

from audio.frames import FRAME_MS
from bench.callers import Log, Manner
from bench.figures import ModelLog, spread
from bench.model_process import PIECE_MS
from bench.run import COOL_DOWN_S, Bench, Plan

BARGE_IN_S: Final = (0.05, 3.0)
"""How long after a reply began to be heard its caller speaks: evenly between these two. Replies last 2.4 to
3.6 s."""
SETTLED_S: Final = 0.4
"""So long after the provider was told, nothing of that reply is on its way to the caller any more."""
ASK_EVERY_S: Final = 2.0
LEAST_PER_CALL_S: Final = 60.0
"""A call that barges in less often than this is not worth waiting for."""
MOST_MS: Final = 20.0
"""One frame."""
RACES: Final = {"response_cancel_not_active"}
"""What is refused where a reply has ended while its cancellation was on the way; it is no word on what was
heard."""


@dataclass(frozen=True, slots=True)
class Position:
    """One barge-in: the milliseconds of the reply that the provider was told of, and that were heard."""

    told_ms: float
    heard_ms: float

    @property
    def off_ms(self) -> float:
        """How far the provider was told wrong; more than was heard is positive."""
        return self.told_ms - self.heard_ms


def positions(log: Log, model: ModelLog) -> list[Position]:
    """Each truncation of one call's session, beside what its caller heard of that reply.

    Replies are heard in the order in which they were sent; one may be sent while another is still heard.
    """
    told = {item: (at, ms) for at, item, ms in model.truncations}
    known = {item for _, item, _ in model.replies}
    found = [Position(ms, 0.0) for item, (_, ms) in told.items() if item not in known]
    place = 0
    """Of the first frame that may be the next reply's."""
    for number, (sent, item, _) in enumerate(model.replies):
        place = max(place, bisect_right(log.arrived, sent))
        if item not in told:
            place = _heard_whole(log, place, _sent_ms(model, number))
            continue
        at, told_ms = told[item]
        later = [other for other, _, _ in model.replies[number + 1 :] if other > at]
        end = bisect_right(log.arrived, min([at + SETTLED_S, *later]))
        found.append(Position(told_ms, sum(log.audible[place:end]) * FRAME_MS))
        place = max(place, end)
    return found


def _sent_ms(model: ModelLog, number: int) -> float:
    """How much of a reply was sent: it may have been cancelled, and all that had come of it heard."""
    whole = model.replies[number][2]
    places = [place for _, reply, place in model.deltas if reply == number]
    return min(whole, max(places, default=0) * 1000 / model.rate + PIECE_MS)


def _heard_whole(log: Log, place: int, ms: float) -> int:
    """The place behind a reply of which all was heard."""
    for _ in range(math.ceil(ms / FRAME_MS)):
        place = log.audible.find(1, place) + 1
        if not place:
            return len(log.audible)
    return place


def measure_heard(count: int, calls: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Run until there were so many barge-ins. `tell` is told, in words, what goes on.

    Raises:
        ValueError: a number that makes no sense.
        ChildError: a process did not do its part.
        CallLost: the service ended a call, or took none, or hears nobody barge in.
    """
    if not 1 <= count <= 100_000:
        raise ValueError(f"heard: found {count}; allowed are 1 to 100000")
    longest = max(LEAST_PER_CALL_S, LEAST_PER_CALL_S * count / calls)
    plan = Plan(calls, min(36_000.0, longest), talk=1.0)
    with Bench(plan, tell, Manner(1.0, barge_every=1, barge_after_s=BARGE_IN_S)) as bench:
        bench.place_all()
        tell(f"waiting for {count} barge-ins …")
        told = 0
        began = bench.now()
        while told < count and bench.now() - began < longest:
            bench.callers.go_on(bench.now() + ASK_EVERY_S)
            bench.model.tell({"count": True})
            told = bench.model.heard()["truncations"]
        took = bench.now() - began
        bench.callers.go_on(bench.now() + COOL_DOWN_S)
        bench.model.tell({})
        sessions = bench.model.heard()["sessions"][1:]
        logs = [caller.log for caller in bench.callers.callers]
        return _result(plan, bench.machine, logs, sessions, took)


def _result(
    plan: Plan,
    machine: Mapping[str, Any],
    logs: Sequence[Log],
    sessions: Sequence[Mapping[str, Any]],
    seconds: float,
) -> dict[str, Any]:
    each = [
        position
        for log, session in zip(logs, sessions, strict=True)
        for position in positions(log, ModelLog.of(session))
    ]
    within = sum(abs(position.off_ms) <= MOST_MS for position in each)
    errors = Counter(code for session in sessions for code in session["errors"])
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": version("porteiro"),
        "machine": machine,
        "calls": plan.calls,
        "seconds": round(seconds, 1),
        "barge_ins": len(each),
        "of_which_nothing_was_heard": sum(position.told_ms == 0 for position in each),
        "off_ms": spread(abs(position.off_ms) for position in each),
        "too_much_at_most_ms": max((position.off_ms for position in each), default=0.0),
        "too_little_at_most_ms": -min((position.off_ms for position in each), default=0.0) + 0.0,
        "within_a_frame": within,
        "heard_ms": spread(position.heard_ms for position in each),
        "provider_errors": dict(errors),
    }


def kept(found: Mapping[str, Any]) -> bool:
    """Whether all were told within a frame, and the provider refused none of it."""
    refused = found["provider_errors"].keys() - RACES
    return 0 < found["barge_ins"] == found["within_a_frame"] and not refused


__all__ = ["Position", "kept", "measure_heard", "positions"]
