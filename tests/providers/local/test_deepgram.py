"""Deepgram's recognition behind the listeners' seam: what is sent, whose words they are, how it fails."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.base import Usage
from providers.local.deepgram import Deepgram, DeepgramListener, DeepgramSettings, _Connection, key_terms
from providers.local.listening import Expected, Words
from providers.local.recognition import Recognised, RecognitionError
from providers.local.stage import StageError
from providers.local.turns import RATE
from tests.simulators.deepgram import KEY, Faults, Simulator

MS = 2 * RATE // 1000
"""Bytes of a millisecond."""


class Ear:
    """A session's listener and what becomes of it."""

    def __init__(self, listener: DeepgramListener) -> None:
        self.listener = listener
        self.failures: list[StageError] = []
        self.bills: list[Usage] = []

    async def turn(self, ms: int = 1000, *, pause_ms: int = 250, close_ms: int = 250) -> Words:
        """A turn as the session tells it: speech, a pause, the silence that closes it."""
        listener, sound = self.listener, b""
        listener.began()
        for _ in range(0, ms + pause_ms, 50):
            sound += bytes(50 * MS)
            listener.more(bytes(50 * MS))
            await asyncio.sleep(0)
        listener.paused(sound)
        await asyncio.sleep(0.05)
        sound += bytes(close_ms * MS)
        listener.more(bytes(close_ms * MS))
        return listener.ended(sound)


@asynccontextmanager
async def ear(server: Simulator, expected: Expected | None = None, **changes: Any) -> AsyncIterator[Ear]:
    account = Deepgram(DeepgramSettings(**{"base_url": server.url, "api_key": KEY, **changes}))
    async with asyncio.timeout(15), asyncio.TaskGroup() as tasks:
        failures, bills = list[StageError](), list[Usage]()
        listener = account.listener(tasks, failures.append, bills.append)
        assert isinstance(listener, DeepgramListener)
        made = Ear(listener)
        made.failures, made.bills = failures, bills
        listener.configure(expected or Expected("pt", "Portaria. Pode liberar. Daner, Giane"))
        try:
            yield made
        finally:
            listener.close()


def text(words: Recognised | RecognitionError | StageError) -> str:
    assert isinstance(words, Recognised), words
    return words.text


@pytest.mark.parametrize("encoding", ["linear16", "mulaw"])
async def test_the_words_of_each_turn_are_its_own_and_silence_is_not_sent(encoding: str) -> None:
    said = ["Bom dia, apartamento 501.", "Sim.", ""]
    async with Simulator(transcripts=deque(said)) as server:
        async with ear(server, encoding=encoding) as one:
            for expected in said:
                words = await (await one.turn())
                assert text(words) == expected
                assert isinstance(words, Recognised) and words.seconds == pytest.approx(1.5)
                await asyncio.sleep(0.05)  # a caller who is silent: nothing is sent
        (query,) = server.queries
        assert query["language"] == ["pt-BR"] and query["endpointing"] == ["false"]
        assert query["keyterm"] == ["Portaria", "Pode liberar", "Daner", "Giane"]
        assert server.seconds == pytest.approx(4.5, abs=0.02)
        assert sum(bill.seconds for bill in one.bills) == pytest.approx(server.seconds, abs=0.02)
        assert {(bill.provider, bill.model, bill.purpose) for bill in one.bills} == {
            ("127.0.0.1", "nova-3", "transcription")
        }
        assert server.texts.count("Finalize") == 3
        assert server.violations == [] and one.failures == []


async def test_words_are_there_when_the_turn_is_over() -> None:
    """They are asked for in the pause that may end it."""
    async with Simulator(transcripts=deque(["Pode liberar."])) as server, ear(server) as one:
        await asyncio.sleep(0.1)
        words = await one.turn()
        assert words.done()
        assert text(words.result()) == "Pode liberar."


async def test_a_pause_that_was_none_loses_no_words() -> None:
    async with Simulator(transcripts=deque(["Não,", "ele não está."])) as server, ear(server) as one:
        await asyncio.sleep(0.1)
        listener = one.listener
        listener.began()
        first = bytes(1250 * MS)
        listener.more(first)
        listener.paused(first)
        listener.resumed()
        listener.more(bytes(1000 * MS))
        listener.paused(first + bytes(1000 * MS))
        assert text(await listener.ended(first + bytes(1250 * MS))) == "Não, ele não está."


async def test_a_turn_that_is_told_at_its_end_alone_is_recognised() -> None:
    """As where the client commits by itself."""
    async with Simulator(transcripts=deque(["Alô?", "Oi."])) as server, ear(server) as one:
        both = [one.listener.ended(bytes(800 * MS)), one.listener.ended(bytes(600 * MS))]
        assert [text(words) for words in await asyncio.gather(*both)] == ["Alô?", "Oi."]
        assert server.violations == []


async def test_a_turn_that_was_none_leaves_its_words_behind() -> None:
    async with Simulator(transcripts=deque(["Sim."])) as server, ear(server) as one:
        one.listener.began()
        one.listener.more(bytes(300 * MS))
        assert text(await (await one.turn())) == "Sim."


async def test_an_answer_that_is_not_marked_counts_and_one_that_never_comes_is_done_without() -> None:
    async with (
        Simulator(transcripts=deque(["Sim."]), faults=Faults(unmarked=True)) as server,
        ear(server) as one,
    ):
        assert text(await (await one.turn())) == "Sim."
    faults = Faults(interim_only=True)
    interim = Simulator(transcripts=deque(["Sim."]), faults=faults)
    async with interim as server, ear(server, words_s=0.3) as one:
        assert text(await (await one.turn())) == "Sim.", "what may yet change is better than nothing"


async def test_what_is_not_sure_was_not_said() -> None:
    simulator = Simulator(transcripts=deque(["Pode liberar."]), faults=Faults(confidence=0.3))
    async with simulator as server, ear(server) as one:
        words = await (await one.turn())
        assert text(words) == ""
        assert isinstance(words, Recognised) and words.why == "confidence 0.30: too little"


async def test_a_connection_that_breaks_costs_no_words() -> None:
    async with Simulator(transcripts=deque(["Pode liberar."]), faults=Faults(close_at=1)) as server:
        async with ear(server) as one:
            assert text(await (await one.turn())) == "Pode liberar."
            assert one.failures == []
        assert len(server.queries) == 2


async def test_silence_is_outlived(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("providers.local.deepgram.KEEP_ALIVE_S", 0.05)
    async with (
        Simulator(transcripts=deque(["Sim."]), faults=Faults(idle_s=0.3)) as server,
        ear(server) as one,
    ):
        await asyncio.sleep(0.8)
        assert text(await (await one.turn())) == "Sim."
        assert len(server.queries) == 1 and server.texts.count("KeepAlive") >= 5


async def test_other_words_to_expect_are_another_connection() -> None:
    async with Simulator(transcripts=deque(["Sim."])) as server, ear(server) as one:
        one.listener.configure(Expected("pt", "Bosque"))
        assert text(await (await one.turn())) == "Sim."
        assert server.queries[-1]["keyterm"] == ["Bosque"]


# ---------------------------------------------------------------------------------------------- how it fails


@pytest.mark.parametrize(
    ("faults", "changes", "code", "words"),
    [
        (Faults(), {"api_key": "x"}, "key_refused", "the key was refused (HTTP 401)"),
        (Faults(), {"model": "nova-9"}, "unknown_model", "the model is not known there"),
        (Faults(refuse=(429, b"")), {}, "rate_limit", "too many requests"),
        (Faults(refuse=(402, b"")), {}, "quota", "credit is used up"),
        (Faults(accept_delay_s=1), {"connect_s": 0.3}, "timeout", "no connection after 0.3 s"),
        (Faults(), {"base_url": "http://127.0.0.1:1"}, "unreachable", "could not be reached"),
    ],
)
async def test_no_connection_is_told_in_plain_words(
    faults: Faults, changes: dict[str, Any], code: str, words: str
) -> None:
    async with Simulator(faults=faults) as server, ear(server, **changes) as one:
        failed = await (await one.turn())
        assert isinstance(failed, StageError) and failed.code == code
        assert [error.code for error in one.failures] == [code], "once, and between turns as well"
        assert str(failed).startswith("speech recognition (127.0.0.1:") and words in str(failed)
        assert KEY not in str(failed)
        again = await (await one.turn())
        assert again is failed


@pytest.mark.parametrize(
    ("faults", "code"),
    [(Faults(garbage_at=1), "protocol_error"), (Faults(error_at=1), "request_refused")],
)
async def test_nonsense_is_the_end(faults: Faults, code: str) -> None:
    async with Simulator(faults=faults) as server, ear(server) as one:
        failed = await (await one.turn())
        assert isinstance(failed, StageError) and failed.code == code


async def test_words_that_never_come_are_lost_and_the_second_time_it_is_given_up() -> None:
    simulator = Simulator(transcripts=deque(["Sim."]), faults=Faults(silent_to=1))
    async with simulator as server, ear(server, words_s=0.3) as one:
        lost = await (await one.turn())
        assert isinstance(lost, RecognitionError), "this turn's words alone"
        server.transcripts.append("Sim.")
        assert text(await (await one.turn())) == "Sim."
        assert len(server.queries) == 2 and one.failures == []
    async with Simulator(faults=Faults(silent=True)) as server, ear(server, words_s=0.2) as one:
        assert isinstance(await (await one.turn()), RecognitionError)
        await (await one.turn())
        assert [error.code for error in one.failures] == ["timeout"]


async def test_a_connection_that_breaks_again_and_again_is_given_up() -> None:
    async with Simulator() as server:
        server.faults = Faults(idle_s=0.05)
        async with ear(server) as one, asyncio.timeout(5):
            while not one.failures:
                await asyncio.sleep(0.02)
            assert one.failures[0].code == "went_away"


async def test_check_opens_a_connection_and_sends_no_sound() -> None:
    async with Simulator() as server:
        await Deepgram(DeepgramSettings(server.url, KEY)).check()
        assert len(server.queries) == 1 and server.seconds == 0
        with pytest.raises(StageError, match="the key was refused"):
            await Deepgram(DeepgramSettings(server.url, "x")).check()


def test_key_terms_are_words_and_short_phrases() -> None:
    assert key_terms("Portaria. Pode liberar.\nDaner, Giane, Daner.") == [
        "Portaria",
        "Pode liberar",
        "Daner",
        "Giane",
    ]
    assert len(key_terms(",".join(map(str, range(500))))) == 60


json_values = st.recursive(
    st.none() | st.booleans() | st.floats(0, 5) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["alternatives", "words", "word", "start", "confidence", "transcript"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {"type": st.sampled_from(["Results", "Metadata", "Error", "Other"])},
            optional={
                "start": json_values,
                "duration": json_values,
                "channel": json_values,
                "is_final": json_values,
            },
        )
        | json_values,
        max_size=5,
    )
)
def test_whatever_comes_is_words_or_a_fault(messages: list[Any]) -> None:
    async def go() -> None:
        async with asyncio.TaskGroup() as tasks:
            failures: list[StageError] = []
            account = Deepgram(DeepgramSettings("http://127.0.0.1:1", KEY))
            listener = account.listener(tasks, failures.append, lambda _: None)
            assert isinstance(listener, DeepgramListener)
            listener.began()
            listener._connection = connection = _Connection(listener)
            for message in messages:
                listener.received(connection, orjson.dumps(message))
            listener.close()
            assert len(failures) <= 1

    asyncio.run(go())
