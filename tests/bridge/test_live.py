"""The hub of running visits: what it shows, what its readers get, and what they lose and are told of."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from uuid import UUID, uuid4

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from bridge.live import (
    KEPT_EVENTS,
    MOST_BYTES,
    QUEUED_EVENTS,
    SHOWN_TURNS,
    TOGETHER_S,
    Hub,
    LiveEvent,
    NoSuchCallError,
    NotAnsweredError,
    Subscription,
    follow_readiness,
)
from bridge.watch import Seen
from visits.audit import KINDS

VISIT = "5f0d9a52-7c51-4f0e-9d43-6a1d2a6f7f10"


def hub(answers: bool = True) -> Hub:
    """A hub whose visits take each order to hang up, or know of none."""
    return Hub(lambda visit, leg, by: answers)


def seen(
    kind: str, data: Mapping[str, object] | None = None, *, visit: str = VISIT, tenant: str = "a"
) -> Seen:
    return Seen(visit, 1.0, kind, data or {}, tenant)


def begun(where: Hub, visit: str = VISIT, tenant: str = "a") -> None:
    where.watch(
        seen("visit.started", {"endpoint": "audiosocket", "provider": "openai"}, visit=visit, tenant=tenant)
    )


def note(number: int, tenant: str = "a") -> Seen:
    return seen("note", {"text": str(number)}, tenant=tenant)


async def all_of(reader: Subscription) -> list[LiveEvent]:
    """What waits."""
    return await reader.take(0.05)


@pytest.fixture(autouse=True, scope="module")
def at_once() -> Iterator[None]:
    """Nobody waits for more to come."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bridge.live.TOGETHER_S", 0.0)
        yield


# ---- What it shows -------------------------------------------------------------------------------------


def test_a_visit_as_it_goes() -> None:
    live = hub()
    begun(live)
    leg = {"leg": "visitor", "role": "visitor", "endpoint": "audiosocket", "peer": "10.0.0.9:5000"}
    live.watch(seen("leg.connected", {**leg, "provider": "openai"}))
    live.watch(seen("state", {"state": "collecting"}))
    live.watch(seen("speaking", {"leg": "visitor", "who": "caller", "on": True}))
    live.watch(seen("partial", {"leg": "visitor", "speaker": "caller", "text": "Entrega para o"}))
    shown = live.visit(VISIT)
    assert shown is not None and shown.state == "collecting" and shown.tenant == "a"
    (visitor,) = shown.legs
    assert (visitor.caller_speaks, visitor.agent_speaks, visitor.caller_says) == (
        True,
        False,
        "Entrega para o",
    )

    said = {"leg": "visitor", "speaker": "caller", "text": "Entrega para o 501.", "started_ms": 1.0}
    live.watch(seen("turn", {**said, "ended_ms": 900.0}))
    live.watch(
        seen("tool.called", {"leg": "visitor", "call": "c1", "name": "lookup_apartment", "arguments": {}})
    )
    answer = {"leg": "visitor", "call": "c1", "name": "lookup_apartment", "result": {"status": "found"}}
    live.watch(seen("tool.answered", {**answer, "ms": 3.0, "status": "ok"}))
    live.watch(seen("dial.started", {"attempt": "x", "apartment": "501", "resident": "Renata"}))
    live.watch(seen("decision", {"decision": "authorized"}))
    live.watch(seen("gate.requested"))
    live.watch(seen("gate.answered", {"opened": False, "unknown": True, "detail": ""}))
    cost = {"amount": "0.12", "currency": "BRL", "complete": True, "final": False}
    live.watch(seen("visit.cost", cost))
    shown = live.visit(VISIT)
    assert shown is not None
    assert shown.legs[0].caller_says == "", "what was said is a turn now"
    assert [turn.text for turn in shown.turns] == ["Entrega para o 501."]
    assert [(call.name, call.status, call.result) for call in shown.tool_calls] == [
        ("lookup_apartment", "ok", {"status": "found"})
    ]
    assert (shown.apartment, shown.resident, shown.decision, shown.gate) == (
        *("501", "Renata", "authorized"),
        "unknown",
    )
    assert (shown.cost, shown.currency, shown.cost_complete) == ("0.12", "BRL", False)
    assert shown.leg("visitor") is not None
    live.watch(seen("leg.ended", {"leg": "visitor", "reason": "hangup"}))
    shown = live.visit(VISIT)
    assert shown is not None and shown.leg("visitor") is None and shown.legs[0].ended == "hangup"
    live.over(UUID(VISIT))
    assert live.visit(VISIT) is None and live.running() == []


def test_tenants_do_not_see_each_other() -> None:
    live = hub()
    begun(live)
    begun(live, str(uuid4()), "b")
    assert [one.tenant for one in live.running("a")] == ["a"]
    assert [one.tenant for one in live.running()] == ["a", "b"]
    assert live.visit(VISIT, "b") is None and live.visit(VISIT, "a") is not None


def test_what_is_shown_is_bounded() -> None:
    live = hub()
    begun(live)
    live.watch(seen("leg.connected", {"leg": "visitor", "role": "visitor"}))
    for number in range(200):
        turn = {"leg": "visitor", "speaker": "caller", "text": "a" * 5000, "started_ms": 1.0, "ended_ms": 2.0}
        live.watch(seen("turn", turn))
        call = {"leg": "visitor", "call": str(number), "name": "x", "arguments": {"text": "b" * 100_000}}
        live.watch(seen("tool.called", call))
        live.watch(seen("leg.connected", {"leg": f"resident-{number}", "role": "resident"}))
    shown = live.visit(VISIT)
    assert shown is not None and len(shown.turns) == SHOWN_TURNS
    assert [leg.name for leg in shown.legs] == ["visitor", *(f"resident-{n}" for n in range(193, 200))]
    size = len(str(shown))
    assert size < 100_000, size


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([*KINDS, "state", "speaking", "partial", "session.own_voice", "provider.state"]),
            st.dictionaries(
                st.sampled_from(["leg", "speaker", "text", "state", "result", "who", "on", "x" * 40]),
                st.recursive(
                    st.none() | st.booleans() | st.text() | st.integers() | st.just("x" * 20_000),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
                    max_leaves=6,
                ),
            ),
        ),
        max_size=20,
    )
)
def test_nothing_that_is_seen_ever_fails_a_visit(things: list[tuple[str, dict[str, object]]]) -> None:
    async def watched() -> None:
        live = hub()
        reader = live.subscribe()
        begun(live)
        for kind, data in things:
            live.watch(seen(kind, data))
        for event in await all_of(reader):
            assert len(event.json) <= MOST_BYTES
            assert isinstance(event.data, dict)

    with capture_logs():  # what can't be shown is in the log; here there is no end of it
        asyncio.run(watched())


# ---- Readers -------------------------------------------------------------------------------------------


async def test_a_reader_gets_what_is_theirs_in_order() -> None:
    live = hub()
    mine, all_tenants, notes = live.subscribe("a"), live.subscribe(), live.subscribe("a", {"state"})
    live.watch(note(1))
    live.watch(note(2, "b"))
    live.watch(seen("state", {"state": "dialing"}))
    live.tell("", "service.readiness", {"ready": True})
    live.tell("", "tenants.changed", {"tenants": ["b"]})
    assert [event.kind for event in await all_of(mine)] == ["note", "state", "service.readiness"]
    assert [event.kind for event in await all_of(all_tenants)] == [
        *("note", "note", "state", "service.readiness", "tenants.changed")
    ]
    (state,) = await all_of(notes)
    assert (state.visit, state.tenant, state.data) == (VISIT, "a", {"at_ms": 1.0, "state": "dialing"})


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2 * QUEUED_EVENTS), max_size=8))
def test_a_slow_reader_loses_the_oldest_and_is_told_how_many(bursts: list[int]) -> None:
    async def read() -> None:
        live = hub()
        reader = live.subscribe("a")
        number, got, lost = 0, [], 0
        for burst in bursts:
            for _ in range(burst):
                live.watch(note(number))
                number += 1
            live.watch(note(-1, "b"))  # another's never counts
            for event in await reader.take(0.01) if burst else []:
                if event.kind == "lost":
                    lost += event.data["count"]
                else:
                    got.append(int(event.data["text"]))
        assert got == sorted(set(got)), "in order, none twice"
        assert len(got) + lost == number, "what is missing is told"
        assert len(reader._waiting) <= QUEUED_EVENTS

    asyncio.run(read())


async def test_what_workers_could_not_tell_is_told_as_lost() -> None:
    live = hub()
    mine, theirs = live.subscribe("a"), live.subscribe("b")
    live.missed("a", 7)
    (lost,) = await all_of(mine)
    assert (lost.kind, lost.data) == ("lost", {"count": 7})
    assert await theirs.take(0.05) == []


async def test_who_comes_back_gets_what_they_missed() -> None:
    live = hub()
    first = live.subscribe("a")
    for number in range(10):
        live.watch(note(number))
        live.watch(seen("speaking", {"leg": "visitor", "who": "caller", "on": True}))
        live.watch(note(100 + number, "b"))
    had = [event for event in await all_of(first) if event.id][4]
    first.close()
    again = live.subscribe("a", after=had.id)
    assert [event.data["text"] for event in await all_of(again)] == ["5", "6", "7", "8", "9"]
    assert live.readers == 1
    for number in range(KEPT_EVENTS - 1):
        live.watch(note(number))
    (*_, last) = [event for event in await all_of(again) if event.id]
    late = live.subscribe("a", after=live._kept[0][1].id)
    missed = await all_of(late)
    assert len(missed) == KEPT_EVENTS - 1 > QUEUED_EVENTS and missed[-1] == last, "all that is kept"


async def test_who_was_away_too_long_or_had_another_run_is_told_of_a_gap() -> None:
    live = hub()
    live.watch(note(0))
    (old,) = [event for _, event in live._kept]
    for number in range(KEPT_EVENTS + 10):
        live.watch(note(number))
    for after in (old.id, "0123456789ab-5", "nonsense", old.id.replace("-1", f"-{10**17}"), old.id + "²"):
        told = await all_of(live.subscribe("a", after=after))
        assert (told[0].kind, told[0].data) == ("lost", {"count": None}), after


async def test_words_that_are_void_a_moment_later_are_not_kept() -> None:
    live = hub()
    reader = live.subscribe("a")
    begun(live)
    live.watch(seen("partial", {"leg": "visitor", "speaker": "caller", "text": "Oi"}))
    started, partial = await all_of(reader)
    assert started.id and not partial.id
    assert [event.kind for _, event in live._kept] == ["visit.started"]


async def test_the_end_of_the_service_ends_every_reader() -> None:
    live = hub()
    reader = live.subscribe()
    waiting = asyncio.create_task(reader.take(30))
    await asyncio.sleep(0)
    live.close()
    assert await asyncio.wait_for(waiting, 1) == []
    assert reader.over and live.readers == 0
    late = live.subscribe()
    assert await asyncio.wait_for(late.take(30), 1) == [] and late.over


async def test_a_hundred_readers_cost_a_call_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """By CPU time: what one visit's second gives to a hundred readers, and to none."""
    monkeypatch.setattr("bridge.live.TOGETHER_S", TOGETHER_S)
    live = hub()
    begun(live)
    events = [note(number) for number in range(20)]

    async def cpu_of_a_second(readers: int) -> float:
        following = [live.subscribe() for _ in range(readers)]
        tasks = [asyncio.create_task(_follow(one)) for one in following]
        await asyncio.sleep(0)
        began = time.process_time()
        for event in events:
            live.watch(event)
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.15)
        spent = time.process_time() - began
        for one in following:
            one.close()
        await asyncio.gather(*tasks)
        return spent

    await cpu_of_a_second(1)
    alone = min([await cpu_of_a_second(0) for _ in range(3)])
    crowd = min([await cpu_of_a_second(100) for _ in range(3)])
    assert crowd - alone < 0.05, (
        f"a twentieth of a second of work at most: {crowd:.3f} s, {alone:.3f} s alone"
    )


async def _follow(reader: Subscription) -> None:
    while not reader.over:
        for event in await reader.take(5):
            orjson.loads(event.json)


# ---- Hanging up ----------------------------------------------------------------------------------------


async def test_a_hang_up_is_done_when_it_is_on_record() -> None:
    live = hub()
    begun(live)
    asked = asyncio.create_task(live.hang_up(UUID(VISIT), "visitor", "operator:ana"))
    await asyncio.sleep(0)
    live.watch(seen("visit.hung_up", {"by": "key:k", "leg": "resident-1"}))
    await asyncio.sleep(0)
    assert not asked.done(), "that was another leg"
    live.watch(seen("visit.hung_up", {"by": "operator:ana", "leg": "visitor"}))
    await asyncio.wait_for(asked, 1)
    shown = live.visit(VISIT)
    assert shown is not None and shown.hung_up_by == "operator:ana"


async def test_a_hang_up_of_what_is_not_there() -> None:
    with pytest.raises(NoSuchCallError):
        await hub(answers=False).hang_up(UUID(VISIT), None, "operator:ana")
    live = hub()
    begun(live)
    asked = asyncio.create_task(live.hang_up(UUID(VISIT), None, "operator:ana"))
    await asyncio.sleep(0)
    live.over(UUID(VISIT))
    with pytest.raises(NoSuchCallError):
        await asked


async def test_a_hang_up_that_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.live.ANSWER_S", 0.05)
    with pytest.raises(NotAnsweredError):
        await hub().hang_up(UUID(VISIT), None, "operator:ana")


# ---- Readiness -----------------------------------------------------------------------------------------


async def test_readiness_is_told_when_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.live.READINESS_S", 0.01)

    class Knows:
        def __init__(self) -> None:
            self.reasons: list[str] = []

        def not_ready(self) -> list[str]:
            return list(self.reasons)

        def warnings(self) -> list[str]:
            return ["database_away"]

    live, knows = hub(), Knows()
    reader = live.subscribe("a")
    following = asyncio.create_task(follow_readiness(live, knows))
    await asyncio.sleep(0.05)
    knows.reasons = ["full"]
    await asyncio.sleep(0.05)
    following.cancel()
    assert [event.data for event in await all_of(reader)] == [
        {"ready": True, "reasons": [], "warnings": ["database_away"]},
        {"ready": False, "reasons": ["full"], "warnings": ["database_away"]},
    ]
