"""A provider that says too much, too often or in no form at all loses its session; nobody else does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.base import (
    AudioDelta,
    AudioDone,
    Event,
    Failed,
    ItemStarted,
    Lost,
    ResponseStarted,
    SessionConfig,
    SpeechStarted,
    ToolCall,
    Transcript,
    TranscriptFailed,
)
from providers.bounds import (
    MAX_ARGUMENTS,
    MAX_CALLS,
    MAX_EVENTS,
    MAX_NAME,
    MAX_REASON,
    MAX_TOOL,
    MAX_WORDS,
    bounded,
)
from providers.conversing import MalformedMessage
from providers.failover import Candidate, FailoverProvider
from tests.simulators.scripted_session import ScriptedProvider, ScriptedSession
from tests.simulators.virtual_time import run_virtually

HUGE = "não " * 500_000
ODD = st.one_of(st.none(), st.integers(), st.lists(st.text(), max_size=2), st.text(max_size=400))


def after(*events: Event) -> tuple[list[Event], ScriptedProvider]:
    """What a leg is told where a provider's first session says all this at once; and the provider."""
    provider = ScriptedProvider("hostile")
    taken: list[Event] = []

    async def story() -> None:
        session = FailoverProvider([Candidate(provider)]).open(SessionConfig("Seja breve.", []))
        running = asyncio.create_task(session.run(taken.append))
        await asyncio.sleep(1)
        for event in events:
            provider.sessions[0]._emit(event)
        await asyncio.sleep(2)
        await session.close()
        await running

    run_virtually(story())
    return taken, provider


def of(kind: type[Event], events: list[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


@pytest.mark.parametrize(
    "events",
    [
        [SpeechStarted(f"turn_{n}") for n in range(MAX_EVENTS + 10)],
        [ToolCall(f"call_{n}", "look", "{}", 1) for n in range(MAX_CALLS + 10)],
        [SpeechStarted("x" * (MAX_NAME + 1))],
        [SpeechStarted(cast(str, 5))],
        [ToolCall("call", cast(str, None), "{}", 1)],
        [ToolCall("call", "look", cast(str, {"a": 1}), 1)],
        [Transcript("caller", "turn", cast(str, None), final=True)],
        [
            ResponseStarted("response", None),
            ItemStarted("response", "item", None),
            *(AudioDelta("item", bytes(48_000 * 10)) for _ in range(40)),
        ],
    ],
    ids=["events", "calls", "long name", "no name", "no tool", "arguments", "no words", "sound"],
)
def test_a_session_that_does_what_none_may_is_replaced(events: list[Event]) -> None:
    taken, provider = after(*events)
    (lost,) = of(Lost, taken)
    assert lost.code == "protocol_error" and len(lost.message) < MAX_REASON
    assert len(provider.sessions) == 2 and provider.sessions[0].closed
    assert len(of(SpeechStarted, taken)) <= MAX_EVENTS and len(of(ToolCall, taken)) <= MAX_CALLS
    assert sum(len(event.pcm) for event in of(AudioDelta, taken)) <= 301 * 48_000


def test_half_of_what_a_resident_said_is_never_taken_for_all() -> None:
    taken, _ = after(SpeechStarted("turn"), Transcript("caller", "turn", "pode " + HUGE, final=True))
    assert of(TranscriptFailed, taken) and not of(Transcript, taken) and not of(Lost, taken)


def test_words_without_end_are_neither_kept_nor_told_to_the_next_session() -> None:
    deltas: list[Event] = [Transcript("agent", "item", "blá " * 1000, final=False) for _ in range(200)]
    begun: list[Event] = [ResponseStarted("response", None), ItemStarted("response", "item", None)]
    call = ToolCall("call", "look" * 1000, HUGE, 1)
    taken, provider = after(*begun, *deltas, call, SpeechStarted(cast(str, 5)))
    assert sum(len(event.text) for event in of(Transcript, taken)) <= MAX_WORDS
    (made,) = of(ToolCall, taken)
    assert (len(made.name), len(made.arguments)) == (MAX_TOOL, MAX_ARGUMENTS)
    following: ScriptedSession = provider.sessions[1]
    assert sum(len(str(line)) for line in following.config.history) < 20_000


def test_what_a_provider_says_of_itself_is_one_short_line() -> None:
    taken, _ = after(Failed("request", "oops", "no\n\tgood " + HUGE))
    (failed,) = of(Failed, taken)
    assert failed.message.startswith("no good ") and len(failed.message) == MAX_REASON


def test_no_arguments_may_be_written_as_null() -> None:
    assert bounded(ToolCall("call", "look", cast(str, None), 1)) == ToolCall("call", "look", "", 1)


@given(ODD, ODD, ODD, st.sampled_from(["call", "words", "item", "turn", "failed"]))
def test_whatever_comes_is_of_its_form_or_malformed(one: Any, two: Any, three: Any, kind: str) -> None:
    make: dict[str, Callable[[], Event]] = {
        "call": lambda: ToolCall(one, two, three, 1),
        "words": lambda: Transcript("caller", one, two, final=True),
        "item": lambda: AudioDone(one),
        "turn": lambda: TranscriptFailed(one, two),
        "failed": lambda: Failed("request", one, two),
    }
    try:
        found = bounded(make[kind]())
    except MalformedMessage:
        assert kind == "failed" or not all(
            isinstance(x, str) and len(x) <= MAX_NAME for x in (one, two, three)
        )
        return
    held = [getattr(found, name) for name in found.__slots__ if name not in ("epoch", "final")]
    assert all(isinstance(value, str) for value in held)
