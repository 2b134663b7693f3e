"""Any order of events, answers, crashes and services: what is tried when, by whom, never twice at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.webhooks.delivery import (
    AT_ONCE,
    LEAST_ATTEMPTS,
    LONGEST_PAUSE_S,
    Again,
    Answer,
    GivenUp,
    Lane,
    Taken,
    pause_s,
    verdict,
)
from bridge.webhooks.lease import COUNT_S, TAKE_OVER_S, Lease
from storage.outbox import TOLD, Due, Outgoing
from visits.audit import stamp

START = datetime(2026, 11, 21, tzinfo=UTC)
GIVE_UP = timedelta(hours=1)
REFUSED = Answer(False, "status 503")
DEADLINE_S = 5.0
"""The longest that the database takes to say what is due."""
LONGEST_S = 20.0
"""An attempt: the longest `timeout_s`."""


def outgoing(visit: str = "v", seq: int = 1, attempts: int = 0, since: float = 0.0) -> Outgoing:
    at = stamp(START + timedelta(seconds=since))
    return Outgoing("t", seq, visit, TOLD[(seq - 1) % 3], at, "", attempts, "", None)


# --------------------------------------------------------------------------------------------------------
# One answer
# --------------------------------------------------------------------------------------------------------


@given(st.integers(0, 200), st.floats(0, 10**6), st.floats(0, 1), st.integers(-3600, 10**6))
def test_every_pause_is_within_bounds_and_grows(
    attempts: int, after_s: float, chance: float, age_s: int
) -> None:
    pause = pause_s(attempts, after_s, chance)
    assert 2.5 <= pause <= LONGEST_PAUSE_S
    assert pause >= min(after_s, LONGEST_PAUSE_S)
    assert pause_s(attempts + 1, after_s, chance) >= pause
    now = START + timedelta(seconds=age_s)
    answer = Answer(False, "status 503", after_s=after_s)
    follows = verdict(outgoing(attempts=attempts), answer, now=now, give_up=GIVE_UP, chance=chance)
    if age_s >= 3600 and attempts + 1 >= LEAST_ATTEMPTS:
        assert follows == GivenUp()
    else:
        assert follows == Again(now + timedelta(seconds=pause))
    for wrong in (Taken(), GivenUp()):
        answer = Answer(isinstance(wrong, Taken), "status 410", gone=True)
        assert verdict(outgoing(attempts=attempts), answer, now=now, give_up=GIVE_UP, chance=chance) == wrong


def test_pauses_double_up_to_an_hour() -> None:
    pauses = [pause_s(attempts, 0, 1.0) for attempts in range(12)]
    assert pauses[:3] == [5.0, 10.0, 20.0] and pauses[-1] == 3600.0
    assert all(later in (2 * earlier, 3600.0) for earlier, later in pairwise(pauses))


# --------------------------------------------------------------------------------------------------------
# Two services, one database, a receiver that fails
# --------------------------------------------------------------------------------------------------------


@dataclass
class Row:
    event: Outgoing
    next_at: float = 0.0
    attempts: int = 0
    given_up: bool = False


@dataclass
class Database:
    rows: dict[int, Row] = field(default_factory=dict)
    sender: tuple[str, int] = ("", 0)
    ended: list[tuple[str, int]] = field(default_factory=list)
    """(visit, seq) of what was told or given up, in this order."""

    def due(self, now: float, limit: int) -> list[Due]:
        heads: dict[str, Row] = {}
        for seq in sorted(self.rows):
            row = self.rows[seq]
            if not row.given_up:
                heads.setdefault(row.event.visit, row)
        due = sorted((row.next_at, row.event.seq, row) for row in heads.values() if row.next_at <= now)
        return [Due(replace(row.event, attempts=row.attempts), ()) for _, _, row in due[:limit]]

    def take(self, sender: str, seen: int) -> int | None:
        if self.sender[1] != seen:
            return None
        self.sender = (sender, seen + 1)
        return seen + 1


@dataclass
class Flight:
    event: Outgoing
    answer: Answer
    lands: float


@dataclass
class Service:
    """What a service does with those parts, as `bridge/webhooks/sender.py` does it."""

    name: str
    database: Database
    lane: Lane = field(default_factory=Lane)
    lease: Lease = field(default_factory=Lease)
    flights: list[Flight] = field(default_factory=list)
    read: tuple[float, frozenset[str], list[Due]] | None = None
    """What the database said, and when it was asked."""

    def look(self, now: float) -> None:
        self.lease.see(*self.database.sender, now, me=self.name)
        if self.lease.stale(now) and self.lease.free(now, me=self.name):
            self.lease.counted(self.database.take(self.name, self.lease.beat), now, me=self.name)
        if not self.lease.held:
            return
        self.read = (now, self.lane.visits, self.database.due(now, self.lane.room + self.lane.flying))

    def start(self, now: float, answers: Callable[[], tuple[Answer, float]]) -> None:
        """It has said so: a little later, when something may have landed."""
        began, before, due = self.read or (-DEADLINE_S, frozenset(), [])
        self.read = None
        if now - began >= DEADLINE_S:
            return
        room = self.lane.room
        started = self.lane.start(due, before)
        assert len(started) <= room
        for one in started:
            answer, took = answers()
            self.flights.append(Flight(one.event, answer, now + took))

    def land(self, now: float) -> None:
        for flight in sorted((one for one in self.flights if one.lands <= now), key=lambda one: one.lands):
            self.flights.remove(flight)
            row = self.database.rows.get(flight.event.seq)
            when = START + timedelta(seconds=flight.lands)
            follows = verdict(flight.event, flight.answer, now=when, give_up=GIVE_UP, chance=0.5)
            if row is not None and not row.given_up:
                if isinstance(follows, Again):
                    row.attempts += 1
                    row.next_at = (follows.next_at - START).total_seconds()
                else:
                    self.database.ended.append((row.event.visit, row.event.seq))
                    row.given_up = True
                    if isinstance(follows, Taken):
                        del self.database.rows[flight.event.seq]
                    else:
                        assert flight.answer.gone or flight.event.attempts + 1 >= LEAST_ATTEMPTS
            self.lane.land(flight.event.visit, taken=flight.answer.taken)


ANSWERS = [
    *[Answer(True, "status 200")] * 3,
    *[Answer(False, "status 503")] * 3,
    Answer(False, "status 410", gone=True),
]
STEPS = ["event", "wait", "look", "look", "start", "start", "start"]


@given(st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_each_visits_events_are_told_in_their_order_by_one_service_at_a_time(seed: int) -> None:
    chance = Random(seed)
    database = Database()
    services = [Service("a", database), Service("b", database)]
    came = [0] * 6
    now = 0.0

    def check() -> None:
        flying = [flight.event for one in services for flight in one.flights]
        assert len({event.visit for event in flying}) == len(flying) <= AT_ONCE
        assert sum(bool(one.flights) for one in services) <= 1
        # Nothing is on its way that was told, or given up, or that another of its visit comes before.
        for event in flying:
            assert not database.rows[event.seq].given_up
            assert not any(
                row.event.visit == event.visit and row.event.seq < event.seq and not row.given_up
                for row in database.rows.values()
            )

    def advance(seconds: float) -> None:
        nonlocal now
        now += seconds
        for one in services:
            one.land(now)

    def answers() -> tuple[Answer, float]:
        return chance.choice(ANSWERS), chance.choice((0.0, 0.5, chance.uniform(0, LONGEST_S)))

    for _ in range(200):
        number = chance.randrange(2)
        match chance.choice(STEPS) if chance.random() < 0.99 else "crash":
            case "event":
                visit = chance.randrange(len(came))
                if came[visit] < 3:
                    seq = visit * 3 + came[visit] + 1
                    came[visit] += 1
                    database.rows[seq] = Row(outgoing(f"v{visit}", seq, since=now))
            case "wait":
                advance(chance.choice((0.0, 0.5, 0.5, 5.0, chance.uniform(0, 60))))
            case "look":
                services[number].look(now)
            case "start":
                services[number].start(now, answers)
            case "crash":  # and it is there again at once: what was on its way is sent again
                services[number] = Service(services[number].name, database)
        check()
    # The receiver is well from now on, and the services run.
    for _ in range(500):
        if all(row.given_up for row in database.rows.values()):
            break
        for one in services:
            one.look(now)
            one.start(now, lambda: (Answer(True, "status 200"), 0.0))
            check()
        advance(10)
    assert all(row.given_up for row in database.rows.values())
    for number, count in enumerate(came):
        assert [seq for visit, seq in database.ended if visit == f"v{number}"] == [
            number * 3 + n + 1 for n in range(count)
        ]


# --------------------------------------------------------------------------------------------------------
# Who sends
# --------------------------------------------------------------------------------------------------------


def test_a_service_that_is_gone_is_followed_by_another_and_a_living_one_is_not() -> None:
    database = Database()
    one, other = Service("a", database), Service("b", database)
    for second in range(200):
        one.look(second)
        other.look(second)
        assert one.lease.held and not other.lease.held
    last = 199.0
    seconds = 200.0
    while not other.lease.held:
        other.look(seconds)
        seconds += 1
    assert last + TAKE_OVER_S - 6 <= seconds <= last + TAKE_OVER_S + 2
    one.look(seconds)
    assert not one.lease.held and database.sender[0] == "b"


def test_nobody_takes_over_while_an_event_may_still_be_on_its_way() -> None:
    assert COUNT_S + 2 * DEADLINE_S + LONGEST_S < TAKE_OVER_S
    lease = Lease()
    lease.see("", 0, 0.0, me="a")
    assert (lease.free(0.0, me="a"), lease.stale(0.0), lease.held) == (True, True, False)
    lease.counted(1, 0.0, me="a")
    assert (lease.stale(COUNT_S - 0.1), lease.stale(COUNT_S), lease.held) == (False, True, True)
    lease.counted(None, COUNT_S, me="a")
    assert (lease.stale(COUNT_S), lease.held) == (True, False)


@pytest.mark.parametrize("taken", [True, False])
def test_in_trouble_one_at_a_time_is_tried(taken: bool) -> None:
    lane = Lane()
    due = [Due(outgoing(f"v{n}", n), ()) for n in range(1, 9)]
    assert len(lane.start(due, frozenset())) == AT_ONCE and lane.room == 0
    lane.land("v1", taken=taken)
    assert lane.room == (1 if taken else 0)
    assert lane.visits == {"v2", "v3", "v4"}
    for visit in ("v2", "v3", "v4"):
        lane.land(visit, taken=taken)
    assert len(lane.start(due, frozenset())) == (AT_ONCE if taken else 1)
