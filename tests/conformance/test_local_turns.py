"""OpenAI's protocol with turns by our own VAD, held to what every vendor is held to wherever turns matter."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from providers.base import Provider, Session, SessionConfig, TakesTurns, TurnDetection
from tests.conformance import test_abilities as abilities
from tests.conformance import test_faults as faults
from tests.conformance.stage import Stage
from tests.conformance.stages.openai import OpenAI
from tests.simulators import openai_realtime as simulated


class _Understanding(simulated.Model):
    """Takes the next turn that is committed to say what it was told."""

    words = "Boa tarde."

    def transcribe(self, item: str) -> None:
        self._transcribed(item, self.words)


class _OwnTurns:
    """The provider, for a tenant with ``turn_detection.kind = "local"``."""

    def __init__(self, provider: Provider) -> None:
        self.name = provider.name
        self.opens_ahead = provider.opens_ahead
        self._provider = provider

    def open(self, config: SessionConfig) -> Session:
        session = self._provider.open(replace(config, turn_detection=TurnDetection(kind="local")))
        assert isinstance(session, TakesTurns)
        return session


class LocalTurns(OpenAI):
    """The vendor itself, which is told where a turn ends."""

    model = _Understanding

    def provider(self) -> Provider:
        return _OwnTurns(super().provider())

    def caller_will_say(self, words: str) -> None:
        model = self.server.model
        assert isinstance(model, _Understanding)
        model.words = words

    def caller_starts(self) -> None:
        """The client says so itself."""

    def caller_ends(self, words: str) -> None:
        """Likewise."""


less_patient = faults.less_patient
"""As a fixture of this file too."""

Test = Callable[..., Awaitable[Any]]
TESTS: tuple[Test, ...] = (
    abilities.test_the_greeting_is_said_as_it_was_asked_for,
    abilities.test_a_callers_turn_is_answered,
    abilities.test_a_turn_that_the_host_has_taken_is_not_answered,
    abilities.test_a_reply_that_the_caller_speaks_over_stops,
    abilities.test_the_model_remembers_only_what_was_heard,
    abilities.test_a_tool_is_called_once_and_its_answer_is_spoken_about,
    abilities.test_tools_that_are_called_together_are_answered_by_one_reply,
    abilities.test_a_long_tool_returns_at_once_and_its_outcome_is_told_when_it_comes,
    abilities.test_news_that_come_while_something_is_said_wait_for_its_end,
    abilities.test_the_telephones_own_format_goes_both_ways,
    faults.test_a_stall_in_the_middle_of_a_reply_is_noticed,
    faults.test_a_connection_that_breaks_in_the_middle_of_a_reply,
    faults.test_a_connection_that_will_be_closed_is_left_in_time_and_nothing_is_lost,
    faults.test_another_format_than_was_asked_for_is_obeyed_or_refused,
    faults.test_a_conversation_outlives_its_connection,
)


@pytest.mark.parametrize("test", TESTS, ids=[test.__name__.removeprefix("test_") for test in TESTS])
async def test_the_same_with_turns_by_our_vad(test: Test) -> None:
    held: Test = getattr(test, "__wrapped__", test)  # the tables are the vendors' alone
    vendor: type[Stage] = LocalTurns
    assert await held(vendor=vendor) in (None, "native", "emulated", "goes on", "replaced", "ends")
