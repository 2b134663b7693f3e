"""Whatever is heard of an attempt, in whatever order: one end, at most one connection, and no exception."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.dialing.ari_attempt import (
    CAUSES,
    Accepted,
    Answered,
    Attempt,
    Destroyed,
    Dialled,
    Looked,
    Lost,
    Refused,
    Step,
    Thing,
    Unclear,
    read_event,
)
from bridge.dialing.base import DialResult
from visits.events import DialOutcome

THINGS: st.SearchStrategy[Thing] = st.one_of(
    st.just(Accepted()),
    st.just(Answered()),
    st.builds(Destroyed, st.sampled_from([*CAUSES, 0, 31, 58, 127])),
    st.builds(Dialled, st.sampled_from(["", "RINGING", "BUSY", "CONGESTION", "NOANSWER", "ANSWER", "new"])),
    st.builds(Looked, st.booleans(), st.booleans()),
    st.builds(Refused, st.sampled_from([400, 401, 403, 404, 500, 502, 503]), st.just("x: Allocation failed")),
    st.builds(Unclear, st.just("no answer")),
    st.builds(Lost, st.just("gone")),
)


def after(*things: Thing) -> list[Step | DialResult]:
    attempt = Attempt("PJSIP/101")
    return [step for thing in things if (step := attempt.take(thing)) is not None]


def outcome(*things: Thing) -> DialOutcome | None:
    (result,) = after(*things)
    assert isinstance(result, DialResult)
    return result.outcome


@given(st.lists(THINGS, max_size=12))
def test_any_order_of_anything(things: list[Thing]) -> None:
    attempt = Attempt("PJSIP/101")
    steps = [step for thing in things if (step := attempt.take(thing)) is not None]
    results = [step for step in steps if isinstance(step, DialResult)]
    assert len(results) <= 1
    assert all(result.outcome is not None and result.detail for result in results)
    assert steps.count(Step.CONNECT) <= 1
    assert attempt.ended == bool(results)
    if results:
        assert steps[-1] == results[0], "nothing follows the end"
    if attempt.gone:
        assert any(isinstance(thing, Destroyed | Refused | Looked) for thing in things)
    if any(isinstance(thing, Destroyed) for thing in things):
        assert results, "a channel that is gone is an end, whatever came before"
        assert attempt.gone, "and is not hung up again"


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (17, DialOutcome.BUSY), (18, DialOutcome.NO_ANSWER), (19, DialOutcome.NO_ANSWER),
        (16, DialOutcome.NO_ANSWER), (21, DialOutcome.REJECTED), (34, DialOutcome.CONGESTION),
        (42, DialOutcome.CONGESTION), (1, DialOutcome.INVALID), (3, DialOutcome.INVALID),
        (20, DialOutcome.INVALID), (28, DialOutcome.INVALID), (127, DialOutcome.FAILED),
    ],
)  # fmt: skip
def test_the_cause_decides_and_not_the_dial_status(cause: int, expected: DialOutcome) -> None:
    assert outcome(Accepted(), Dialled(""), Dialled("CONGESTION"), Destroyed(cause)) is expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("BUSY", DialOutcome.BUSY), ("CONGESTION", DialOutcome.CONGESTION),
        ("RINGING", DialOutcome.NO_ANSWER), ("CHANUNAVAIL", DialOutcome.INVALID), ("", DialOutcome.FAILED),
    ],
)  # fmt: skip
def test_a_channel_without_a_cause_is_judged_by_its_dial_status(status: str, expected: DialOutcome) -> None:
    """A Local channel whose dialplan says Busy() ends with cause 0."""
    assert outcome(Accepted(), Dialled(""), Dialled(status), Destroyed(0)) is expected


def test_a_channel_that_never_began_to_dial_had_nowhere_to() -> None:
    assert outcome(Accepted(), Destroyed(0)) is DialOutcome.INVALID
    assert outcome(Accepted(), Looked(True, False), Destroyed(0)) is DialOutcome.FAILED, "or it was not heard"


def test_an_answer_before_the_acceptance_counts() -> None:
    assert after(Dialled(""), Answered(), Answered(), Accepted()) == [Step.CONNECT]


def test_the_end_before_the_acceptance_counts() -> None:
    assert outcome(Dialled(""), Destroyed(17), Accepted()) is DialOutcome.BUSY


def test_an_answer_that_was_missed_is_found_by_looking() -> None:
    assert after(Accepted(), Looked(True, True), Answered()) == [Step.CONNECT]


def test_an_end_that_was_missed_is_found_by_looking_but_not_before_the_channel_can_be_there() -> None:
    assert after(Looked(False, False)) == []
    assert outcome(Accepted(), Looked(False, False)) is DialOutcome.FAILED


def test_events_that_stop_after_the_answer_take_nobody_off_the_phone() -> None:
    assert after(Accepted(), Answered(), Lost("gone"), Unclear("late")) == [Step.CONNECT]


def test_no_endpoint_is_invalid_and_other_refusals_are_failures() -> None:
    assert outcome(Refused(500, "answered 500: Allocation failed")) is DialOutcome.INVALID
    assert outcome(Refused(400, "Invalid endpoint")) is DialOutcome.INVALID
    assert outcome(Refused(500, "out of memory")) is DialOutcome.FAILED
    assert outcome(Refused(401, "refused")) is DialOutcome.FAILED


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=9) | st.booleans(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["type", "channel", "peer", "id", "cause", "dialstatus"]), inner
            )
        ),
        max_leaves=12,
    )
    | st.fixed_dictionaries(
        {"type": st.sampled_from(["StasisStart", "ChannelDestroyed", "Dial", "Other"])},
        optional={
            "channel": st.none() | st.fixed_dictionaries({"id": st.text(max_size=3) | st.integers()}),
            "peer": st.none() | st.fixed_dictionaries({"id": st.text(max_size=3)}),
            "cause": st.none() | st.integers() | st.text(max_size=2),
            "dialstatus": st.none() | st.integers() | st.text(max_size=2),
        },
    )
)
def test_no_event_is_too_strange_to_read(message: Any) -> None:
    found = read_event(message)
    assert found is None or isinstance(found[0], str)
