"""Sessions that are opened before their call comes: each is taken once, or closed, whatever happens when."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.ahead import Ahead
from providers.base import SessionConfig
from providers.failover import Candidate, FailoverProvider, FailoverSession
from tests.simulators.scripted_session import Fate, ScriptedProvider, ScriptedSession
from tests.simulators.virtual_time import run_virtually

CONFIG = SessionConfig(instructions="Você é o porteiro.", tools=[])
OTHER = replace(CONFIG, instructions="Boa noite.")
CALLS = tuple(uuid4() for _ in range(3))
FATES = (Fate(), Fate(opens="refused"), Fate(opens="never"), Fate(leaves_in_s=1.0), Fate(opens_in_s=3.0))
steps = st.one_of(
    st.tuples(st.just("open"), st.sampled_from(CALLS), st.sampled_from([CONFIG, OTHER])),
    st.tuples(st.just("take"), st.sampled_from(CALLS), st.sampled_from([CONFIG, OTHER])),
    st.tuples(st.just("close"), st.sampled_from(CALLS)),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.1, 5.0, 20.0])),
)


def silent(session: ScriptedSession) -> bool:
    """Nothing was asked of it."""
    return not (session.busy or session.told or session.said or session.audio)


@given(st.lists(steps, max_size=30), st.lists(st.sampled_from(FATES), min_size=1, max_size=6))
@settings(max_examples=300, deadline=None)
def test_each_session_is_taken_once_or_closed(walk: list[tuple[Any, ...]], fates: list[Fate]) -> None:
    async def play() -> None:
        ahead, provider = Ahead(), ScriptedProvider("first", *fates)
        taken: list[ScriptedSession] = []
        for step in walk:
            match step:
                case ("open", UUID() as call, SessionConfig() as config):
                    ahead.open(call, 10.0, config, provider.open)
                case ("take", UUID() as call, SessionConfig() as config):
                    found = ahead.take(call, config, provider.open)
                    if found is not None:
                        assert isinstance(found, ScriptedSession) and found not in taken
                        assert found.config == config and not found.over and not found.closed
                        taken.append(found)
                case ("close", UUID() as call):
                    ahead.close(call)
                    assert ahead.take(call, CONFIG, provider.open) is None
                case ("wait", float() as seconds):
                    await asyncio.sleep(seconds)
            alive = [one for one in provider.sessions if not one.over and one not in taken]
            assert len(alive) <= ahead.waiting + len(ahead._closing)
            assert all(silent(one) for one in provider.sessions)
        await ahead.end()
        assert ahead.waiting == 0
        for session in provider.sessions:
            assert session.closed is (session not in taken)

    run_virtually(play())


def test_one_that_nobody_takes_is_closed_when_its_call_is_not_expected_any_more() -> None:
    async def play() -> None:
        ahead, provider = Ahead(), ScriptedProvider("first")
        ahead.open(CALLS[0], 10.0, CONFIG, provider.open)
        await asyncio.sleep(9.9)
        assert [one.closed for one in provider.sessions] == [False]
        await asyncio.sleep(0.2)
        assert [one.closed for one in provider.sessions] == [True]
        assert ahead.take(CALLS[0], CONFIG, provider.open) is None

    run_virtually(play())


def test_one_whose_providers_fail_while_it_waits_says_nothing_and_is_closed_with_all_that_it_opened() -> None:
    async def play() -> None:
        first = ScriptedProvider("first", Fate(leaves_in_s=1.0))
        second = ScriptedProvider("second")
        provider = FailoverProvider([Candidate(first), Candidate(second)], "Desculpe a demora.")
        ahead = Ahead()
        ahead.open(CALLS[0], 60.0, CONFIG, provider.open)
        await asyncio.sleep(40)
        assert len(first.sessions) > 2, "it is replaced as any other"
        ahead.close(CALLS[0])
        await ahead.end()
        sessions = [*first.sessions, *second.sessions]
        assert all(one.closed and silent(one) for one in sessions)

    run_virtually(play())


def test_a_tenant_that_may_fail_over_to_one_that_speaks_by_itself_opens_nothing_ahead() -> None:
    eager = ScriptedProvider("eager")
    eager.opens_ahead = False
    usual = ScriptedProvider("usual")
    assert FailoverProvider([Candidate(usual)]).opens_ahead
    assert not FailoverProvider([Candidate(usual), Candidate(eager)]).opens_ahead


def test_a_session_that_was_taken_is_the_takers_to_close() -> None:
    async def play() -> None:
        ahead, provider = Ahead(), FailoverProvider([Candidate(ScriptedProvider("first"))])
        ahead.open(CALLS[0], 10.0, CONFIG, provider.open)
        await asyncio.sleep(1)
        session = ahead.take(CALLS[0], CONFIG, provider.open)
        assert isinstance(session, FailoverSession)
        await asyncio.sleep(20)
        await ahead.end()
        assert not session.over
        await session.close()

    run_virtually(play())
