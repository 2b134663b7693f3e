"""What workers see on its way to the front: bounded, whole packets, and what is let go is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.watch import Seen
from bridge.workers.messages import MAX_BYTES, MessageError, Saw, for_front, packed
from bridge.workers.sightings import MOST, Sightings, read_batch

VALUES = st.recursive(
    st.none() | st.booleans() | st.text() | st.integers(-(2**70), 2**70) | st.sampled_from(["\0" * 60_000]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
SEEN = st.builds(
    Seen,
    visit=st.uuids().map(str),
    at_ms=st.floats(0, 1e6),
    kind=st.sampled_from(["turn", "state", "partial", "tool.answered"]),
    data=st.dictionaries(st.sampled_from(["leg", "text", "result"]), VALUES),
    tenant=st.sampled_from([f"tenant-{number}" for number in range(60)]),
)


class Outbox:
    """Sightings with a clock that the test turns."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []
        self.flushes = 0
        self.sightings = Sightings(lambda seconds, then: self.due.append(then), self._flush)

    def _flush(self) -> None:
        self.flushes += 1

    def told(self) -> tuple[list[Seen], Counter[str]]:
        """As the front gets it."""
        seen: list[Seen] = []
        dropped: Counter[str] = Counter()
        for lost, raw in self.sightings.batches():
            packet = packed(Saw(dropped=lost), raw)
            assert len(packet) <= MAX_BYTES
            message, rest = for_front(packet)
            assert isinstance(message, Saw)
            dropped.update(message.dropped)
            seen += read_batch(rest)
        return seen, dropped


@settings(max_examples=60, deadline=None)
@given(st.lists(SEEN, max_size=40))
def test_everything_arrives_in_order_or_shortened(things: list[Seen]) -> None:
    box = Outbox()
    for one in things:
        box.sightings.watch(one)
    seen, dropped = box.told()
    assert not dropped
    assert [(one.tenant, one.visit, one.at_ms, one.kind) for one in seen] == [
        (one.tenant, one.visit, one.at_ms, one.kind) for one in things
    ]
    assert list(box.sightings.batches()) == []


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(SEEN, st.integers(1, MOST)), max_size=8))
def test_what_is_let_go_is_counted_by_tenant(bursts: list[tuple[Seen, int]]) -> None:
    box, given_ = Outbox(), Counter[str]()
    for one, times in bursts:
        for _ in range(times):
            box.sightings.watch(Seen(one.visit, one.at_ms, one.kind, {"text": "x"}, one.tenant))
        given_[one.tenant] += times
    assert len(box.due) <= 1, "it waits for one moment"
    seen, dropped = box.told()
    assert len(seen) <= MOST
    assert Counter(one.tenant for one in seen) + dropped == given_


def test_what_is_void_a_moment_later_goes_first() -> None:
    box = Outbox()
    for number in range(MOST):
        box.sightings.watch(Seen("v", number, "partial", {}, "a"))
    for number in range(MOST // 2):
        box.sightings.watch(Seen("v", number, "turn", {}, "a"))
    seen, dropped = box.told()
    assert Counter(one.kind for one in seen) == {"partial": MOST // 2, "turn": MOST // 2}
    assert dropped == {"a": MOST // 2}


def test_it_is_told_once_a_moment() -> None:
    box = Outbox()
    for _ in range(3):
        box.sightings.watch(Seen("v", 0, "turn", {}, "a"))
    assert len(box.due) == 1
    box.due.pop()()
    assert box.flushes == 1
    box.sightings.soon()  # the front did not read
    assert len(box.due) == 1


@pytest.mark.parametrize(
    "raw", [b"{}\n", b"[]\n", b"[1,2,3,4,5]\n", b'["a","v",1,"k",[]]\n', b"x\n", b"\xff\n"]
)
def test_what_is_no_batch_is_refused(raw: bytes) -> None:
    with pytest.raises(MessageError):
        read_batch(raw)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_batch_or_refused(raw: bytes) -> None:
    with suppress(MessageError):
        assert all(isinstance(one, Seen) for one in read_batch(raw))
