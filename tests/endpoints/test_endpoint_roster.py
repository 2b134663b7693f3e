"""The roster of a server's connections: who gives way to whom, and when nobody is left."""

from __future__ import annotations

import asyncio

import pytest

from bridge.endpoints.roster import AT_ONCE, Roster


class Guest:
    def __init__(self, host: str) -> None:
        self.host = host
        self.gave_way = 0

    def give_way(self) -> None:
        self.gave_way += 1


async def test_the_oldest_of_the_busiest_address_gives_way_and_nobody_else() -> None:
    roster: Roster[Guest] = Roster(4)
    caller, first, second, third = guests = [Guest("10.0.0.1"), *(Guest("10.0.0.9") for _ in range(3))]
    for guest in guests:
        roster.arrived(guest)
    assert not any(guest.gave_way for guest in guests), "as many as are allowed"
    roster.arrived(Guest("10.0.0.9"))
    assert [caller.gave_way, first.gave_way, second.gave_way, third.gave_way] == [0, 1, 0, 0]
    roster.left(first)
    roster.arrived(Guest("10.0.0.2"))
    assert [caller.gave_way, first.gave_way, second.gave_way, third.gave_way] == [0, 1, 1, 0]
    assert roster.waiting == 4


async def test_a_call_never_gives_way() -> None:
    roster: Roster[Guest] = Roster(1)
    call = Guest("10.0.0.9")
    roster.arrived(call)
    roster.seated(call)
    for _ in range(5):
        roster.arrived(Guest("10.0.0.9"))
    assert not call.gave_way
    assert (roster.calls, roster.waiting) == (1, 1)
    assert roster.everyone()[0] is call


async def test_new_ones_are_spared_in_a_crowd_until_they_are_new_no_longer() -> None:
    roster: Roster[Guest] = Roster(4, crowd=40, spared_s=0.2)
    guests = [Guest("10.0.0.9") for _ in range(30)]
    for guest in guests:
        roster.arrived(guest)
    assert (roster.waiting, sum(guest.gave_way for guest in guests)) == (30, 0)
    roster.seated(guests[3])
    async with asyncio.timeout(5):
        while roster.waiting > 4:
            await asyncio.sleep(0.01)
    assert [guest.gave_way for guest in guests] == [1] * 3 + [0] + [1] * 22 + [0] * 4, "the oldest went"


async def test_no_more_than_the_crowd_wait_however_new_they_are() -> None:
    roster: Roster[Guest] = Roster(4, crowd=10, spared_s=60)
    elsewhere = Guest("10.0.0.1")
    roster.arrived(elsewhere)
    guests = [Guest("10.0.0.9") for _ in range(30)]
    for guest in guests:
        roster.arrived(guest)
        assert roster.waiting <= 10
    assert [guest.gave_way for guest in guests] == [1] * 21 + [0] * 9
    assert not elsewhere.gave_way
    for guest in (elsewhere, *guests):
        roster.left(guest)
    await asyncio.wait_for(roster.emptied(), 1)


async def test_a_crowd_leaves_a_few_at_a_time() -> None:
    """So that the calls' next 20 ms do not wait for hundreds of farewells."""
    roster: Roster[Guest] = Roster(4, crowd=500, spared_s=0.1)
    guests = [Guest("10.0.0.9") for _ in range(100)]
    for guest in guests:
        roster.arrived(guest)
    gone = 0
    async with asyncio.timeout(10):
        while roster.waiting > 4:
            await asyncio.sleep(0)
            before, gone = gone, sum(guest.gave_way for guest in guests)
            assert gone - before <= AT_ONCE
    assert gone == 96


async def test_it_is_empty_only_when_the_last_has_left() -> None:
    roster: Roster[Guest] = Roster(4)
    await asyncio.wait_for(roster.emptied(), 1)
    waiting, call = Guest("10.0.0.1"), Guest("10.0.0.1")
    roster.arrived(waiting)
    roster.arrived(call)
    roster.seated(call)
    for one in (waiting, call):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(roster.emptied(), 0.01)
        roster.left(one)
    await asyncio.wait_for(roster.emptied(), 1)
    assert roster.everyone() == ()
