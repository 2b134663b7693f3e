"""The playout queue against a naive model of it, in any order of any calls.

The model keeps every sample that was ever given to it as (item, number) and moves them one by one. Each
sample that is pushed carries a value of its own, so that what is heard shows where it came from.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from audio.comfort import EDGE_SAMPLES
from audio.frames import FRAME_BYTES, FRAME_SAMPLES, SILENCE, samples_of
from audio.playout import BED_BACK_FRAMES, KEPT_FRAMES, Flushed, Played, Playout

ITEMS = st.sampled_from([f"item{number}" for number in range(6)])
BED_VALUE = -7


@dataclass
class ModelItem:
    protected: bool
    queued: list[int] = field(default_factory=list)
    played: list[int] = field(default_factory=list)
    flushed: list[int] = field(default_factory=list)
    state: str = "open"  # open, ended, abandoned, finished, given up, flushed


class PlayoutMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.playout = Playout()
        self.items: dict[str, ModelItem] = {}
        self.order: list[str] = []
        self.finished: list[str] = []
        self.reported: list[str] = []
        self.heard: list[int] = []
        self.received: dict[str, int] = {}
        self.next_value = 1
        self.bed = False
        self.bed_faded = False
        self.hushed, self.bed_waits = False, 0
        self.paused = False
        self.broken_off = False
        self.given: list[int] = []
        """How long each piece was that was given out of the item at the head, the last ones."""

    # -- the naive model -------------------------------------------------------------------------------

    def _begin(self, name: str, protected: bool = False) -> ModelItem:
        if name not in self.items:
            self.items[name] = ModelItem(protected)
            self.order.append(name)
        item = self.items[name]
        item.protected |= protected and item.state != "flushed"
        return item

    def _settle(self) -> None:
        while self.order:
            item = self.items[self.order[0]]
            if item.queued or item.state == "open":
                return
            name = self.order.pop(0)
            self.given, self.broken_off = [], False
            if item.state == "ended":
                self.finished.append(name)
            item.state = "finished" if item.state == "ended" else "given up"

    def _frame(self) -> list[int] | None:
        """The samples of the next frame; None: the bed, or silence if there is none."""
        if self.paused:
            return [0] * FRAME_SAMPLES
        if not self.order:
            return None
        item = self.items[self.order[0]]
        if len(item.queued) < FRAME_SAMPLES and (item.state == "open" or not item.queued):
            self.broken_off |= bool(item.played)
            return [] if item.played else None
        piece, item.queued = item.queued[:FRAME_SAMPLES], item.queued[FRAME_SAMPLES:]
        item.played += piece
        self.given = [*self.given, len(piece)][-KEPT_FRAMES:]
        self._settle()
        return piece + [0] * (FRAME_SAMPLES - len(piece))

    # -- what can happen -------------------------------------------------------------------------------

    @rule(name=ITEMS, protected=st.booleans())
    def begin(self, name: str, protected: bool) -> None:
        self.playout.begin(name, protected=protected)
        self._begin(name, protected)

    @rule(name=ITEMS, count=st.one_of(st.integers(0, 5), st.integers(100, 700), st.just(FRAME_SAMPLES)))
    def push(self, name: str, count: int) -> None:
        values = [(self.next_value + place) % 30000 + 1 for place in range(count)]
        self.next_value += count
        self.playout.push(name, np.array(values, dtype="<i2").tobytes())
        item = self._begin(name)
        if item.state == "open":
            item.queued += values
            self.received[name] = self.received.get(name, 0) + count

    @rule(name=ITEMS)
    def end(self, name: str) -> None:
        self.playout.end(name)
        item = self._begin(name)
        if item.state == "open":
            item.state = "ended"
        self._settle()

    @rule(name=ITEMS)
    def abandon(self, name: str) -> None:
        self.playout.abandon(name)
        item = self._begin(name)
        if item.state == "open":
            item.state = "abandoned"
        self._settle()

    @rule(frames=st.integers(1, 6))
    def play(self, frames: int) -> None:
        for _ in range(frames):
            playing_before = [len(item.played) for item in self.items.values()]
            was_broken_off, underruns = self.broken_off, self.playout.underruns
            expected = self._frame()
            frame = self.playout.next_frame()
            assert len(frame) == FRAME_BYTES
            moved = playing_before != [len(item.played) for item in self.items.values()]
            assert self.playout.audible == moved
            assert not (moved and self.playout.bed_heard)
            softly = was_broken_off and moved
            if moved:
                self.bed_waits = 0
            if softly:
                self.broken_off = False
            if expected == []:
                self._is_comfort(frame, first=underruns != self.playout.underruns)
            elif expected is not None:
                came = samples_of(frame).tolist()
                if softly:
                    assert all(0 <= value <= true for value, true in zip(came, expected, strict=True))
                    came[:EDGE_SAMPLES] = expected[:EDGE_SAMPLES]
                assert came == expected
                self.heard += [value for value in expected if value]
                self.bed_faded |= moved and self.bed
            elif self.hushed or self.bed_waits:
                assert frame == SILENCE and not self.playout.bed_heard
                self.bed_waits = 0 if self.hushed else self.bed_waits - 1
                self.bed_faded = self.bed
            elif self.bed:
                values = samples_of(frame)
                assert values.min() >= BED_VALUE and values.max() <= 0
                assert self.bed_faded or frame == np.full(FRAME_SAMPLES, BED_VALUE, "<i2").tobytes()
                self.bed_faded = False
            else:
                assert frame == SILENCE

    @rule()
    def pause(self) -> None:
        head = self.items[self.order[0]] if self.order else None
        self.paused = head is not None and bool(head.played) and not head.protected
        assert self.playout.pause() == self.paused

    @rule()
    def resume(self) -> None:
        self.playout.resume()
        self.broken_off |= self.paused
        self.paused = False

    @rule(samples=st.one_of(st.integers(-1, 500), st.integers(500, 6000)))
    def take_back(self, samples: int) -> None:
        back = min(max(0, samples), sum(self.given))
        assert self.playout.take_back(samples) == back
        if back:
            item = self.items[self.order[0]]
            item.played, item.queued = item.played[:-back], item.played[-back:] + item.queued
            self.heard = self.heard[:-back]  # nobody else was heard since
        if samples > 0:
            self.given = []

    def _is_comfort(self, frame: bytes, *, first: bool) -> None:
        """Noise, and at its beginning what was heard last on its way to zero; never anything that queues."""
        wave = np.abs(samples_of(frame).astype(np.int32))
        assert wave[EDGE_SAMPLES if first else 0 :].max() < 250

    @rule(force=st.booleans())
    def flush(self, force: bool) -> None:
        flushed = self.playout.flush(force=force)
        self.paused = False
        dropped = [name for name in self.order if force or not self.items[name].protected]
        if dropped and dropped[0] == self.order[0]:
            self.given, self.broken_off = [], False
        self.order = [name for name in self.order if name not in dropped]
        if not dropped:
            assert flushed is None
            return
        first = self.items[dropped[0]]
        assert flushed == Flushed(
            dropped[0], len(first.played), len(first.played) + len(first.queued), tuple(dropped[1:])
        )
        for name in dropped:
            item = self.items[name]
            item.state = "flushed"
            item.flushed, item.queued = item.queued, []
        assert all(not self.items[name].played for name in flushed.dropped_items)
        self._settle()

    @rule()
    def take_finished(self) -> None:
        taken = self.playout.take_finished()
        assert taken == [Played(name, len(self.items[name].played)) for name in self.finished]
        self.reported += [played.item for played in taken]
        self.finished = []

    @rule(on=st.booleans())
    def set_bed(self, on: bool) -> None:
        self.playout.set_bed(np.full(93, BED_VALUE, "<i2").tobytes() if on else None)
        self.bed, self.bed_faded = on, False

    @rule(on=st.booleans())
    def hush_bed(self, on: bool) -> None:
        self.playout.hush_bed(on)
        if self.hushed and not on:
            self.bed_waits = BED_BACK_FRAMES
        self.hushed = on

    # -- what always holds -----------------------------------------------------------------------------

    @invariant()
    def nothing_is_lost_or_invented(self) -> None:
        for name, item in self.items.items():
            account = self.playout.ledger(name)
            assert account.received == self.received.get(name, 0)
            assert account.received == len(item.played) + len(item.queued) + len(item.flushed)
            assert account.played == len(item.played) <= account.received
            assert account.flushed == (item.state == "flushed")
            assert account.ended == (
                item.state in ("ended", "finished") or (account.flushed and account.ended)
            )
            assert account.complete == (item.state == "finished" and bool(item.played))
            assert account.protected == item.protected
            assert self.playout.over(name) == (item.state != "open" and not item.queued)
        assert self.playout.pending_samples == sum(len(item.queued) for item in self.items.values())

    @invariant()
    def only_the_first_in_line_can_be_half_played(self) -> None:
        half = [name for name in self.order if self.items[name].played]
        assert half in ([], self.order[:1])
        assert self.playout.playing == (half[0] if half else None)

    @invariant()
    def what_was_heard_is_what_was_played_each_once(self) -> None:
        assert len(self.heard) == sum(len(item.played) for item in self.items.values())

    @invariant()
    def each_finished_item_is_reported_once(self) -> None:
        assert len(set(self.reported)) == len(self.reported)


PlayoutMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
TestPlayout = PlayoutMachine.TestCase
