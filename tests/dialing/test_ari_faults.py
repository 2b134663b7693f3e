"""ARI at its worst: every dial ends with a named outcome, and no phone is left ringing or silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.dialing import ari, ari_connection, ari_rest
from bridge.dialing.ari import AriDialer
from bridge.dialing.ari_connection import AriConnection
from bridge.dialing.ari_rest import AriAddress
from bridge.dialing.base import DialOrder, DialResult
from bridge.settings import AriDialer as AriSettings
from tests.dialing.fake_ari import PASSWORD, USER, Answer, Asked, FakeAri, FakeChannel
from visits.events import DialOutcome


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Patience a tenth as long, so that the tests need not wait for it."""
    with hurried(monkeypatch):
        yield


class hurried:
    """The dialer's deadlines, shortened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch

    def __enter__(self) -> None:
        for module, name, value in (
            (ari, "READY_S", 0.4),
            (ari, "LATE_S", 0.3),
            (ari, "CONNECT_S", 0.3),
            (ari_rest, "REQUEST_S", 0.5),
            (ari_connection, "FIRST_PAUSE_S", 0.02),
            (ari_connection, "LONGEST_PAUSE_S", 0.05),
            (ari_connection, "LOST_S", 0.4),
            (ari_connection, "HANG_UP_PAUSES_S", (0.0, 0.05, 0.1, 0.2, 0.4)),
        ):
            self._patch.setattr(module, name, value)

    def __exit__(self, *_: object) -> None:
        self._patch.undo()


def order(ring_s: float = 2.0, number: str = "101") -> DialOrder:
    return DialOrder(uuid4(), uuid4(), "jardim", number, ("127.0.0.1", "::1"), 8081, ring_s)


@asynccontextmanager
async def dialing(url: str, **own: Any) -> AsyncIterator[AriDialer]:
    """A dialer of its own connection; after it nothing of it may be left."""
    before = asyncio.all_tasks()
    chosen = AriSettings.model_validate(
        {"kind": "ari", "url": url, "password_env": "X", "username": USER, **own}
    )
    dialer = AriDialer(chosen, AriConnection(AriAddress(url, USER, PASSWORD, "porteiro")))
    await dialer.start()
    try:
        yield dialer
    finally:
        async with asyncio.timeout(12):
            await dialer.stop()
        assert {task for task in asyncio.all_tasks() - before if "ari" in repr(task.get_coro())} == set()


async def dial(dialer: AriDialer, what: DialOrder | None = None, within_s: float = 5.0) -> DialResult:
    async with asyncio.timeout(within_s):
        return await dialer.dial(what or order())


async def until(condition: Callable[[], object], timeout_s: float = 3.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


def meddling(method: str, ending: str, answers: list[Answer]) -> Callable[[Asked], Awaitable[Answer | None]]:
    """The first requests of a kind get these answers."""

    async def meddle(asked: Asked) -> Answer | None:
        if asked.method == method and asked.path.endswith(ending) and answers:
            return answers.pop(0)
        return None

    return meddle


def calls(pbx: FakeAri, then: Callable[[str], object], after_s: float = 0.0) -> None:
    """Once a call is made, this happens to it."""

    def on_call(channel: FakeChannel) -> None:
        asyncio.get_running_loop().call_later(after_s, then, channel.id)

    pbx.on_call = on_call


# ------------------------------------------------------------------------------------------- the usual


async def test_an_answered_phone_is_left_to_the_dialplan() -> None:
    async with FakeAri() as pbx, dialing(pbx.url, caller_id="Portaria <9000>") as dialer:
        calls(pbx, pbx.answer)
        what = order(ring_s=7.2)
        assert await dial(dialer, what) == DialResult(None)
        (made,) = pbx.orders("POST", "/channels")
        assert made.query == {
            "endpoint": "PJSIP/101",
            "app": "porteiro",
            "appArgs": f"resident,{what.attempt}",
            "channelId": str(what.attempt),
            "callerId": "Portaria <9000>",
            "timeout": "8",
        }
        assert made.body["variables"] == {
            "ATTEMPT": str(what.attempt),
            "PORTEIRO_APP": "porteiro",
            "PORTEIRO_RESIDENT": "127.0.0.1:8081",
        }
        (sent,) = pbx.orders("POST", "/continue")
        assert sent.query == {"context": "porteiro-resident", "extension": "s", "priority": "1"}
        assert pbx.channels[str(what.attempt)].stage == "AudioSocket"
        assert pbx.orders("DELETE") == []


@pytest.mark.parametrize(
    ("set_", "address"),
    [
        ("10.0.0.5", "10.0.0.5:8081"),
        ("10.0.0.5:9", "10.0.0.5:9"),
        ("[::1]:9", "[::1]:9"),
        ("pbx.lan", "pbx.lan:8081"),
    ],
)
async def test_asterisk_is_told_the_address_where_it_reaches_us(set_: str, address: str) -> None:
    async with FakeAri() as pbx, dialing(pbx.url, audiosocket=set_) as dialer:
        calls(pbx, pbx.answer)
        await dial(dialer)
        assert pbx.orders("POST", "/channels")[0].body["variables"]["PORTEIRO_RESIDENT"] == address


async def test_a_number_that_is_none_is_never_dialled() -> None:
    async with FakeAri() as pbx, dialing(pbx.url) as dialer:
        result = await dial(dialer, order(number="101&PJSIP/0900@trunk"))
        assert result.outcome is DialOutcome.INVALID and "allowed:" in result.detail
        assert pbx.orders("POST") == []


async def test_other_peoples_channels_are_nobodys_business() -> None:
    async with FakeAri() as pbx, dialing(pbx.url) as dialer:
        await until(lambda: pbx.listeners)
        stranger = FakeChannel("1764.7", "porteiro", {}, "Up", "Stasis")
        pbx.channels[stranger.id] = stranger
        ringing = FakeChannel(str(uuid4()), "", {"PORTEIRO_APP": "porteiro-2"})
        pbx.channels[ringing.id] = ringing
        pbx.send({"type": "StasisStart", "args": [], "channel": stranger.shown()})
        pbx.send({"type": "ChannelDestroyed", "cause": 17, "channel": {"id": str(uuid4())}})
        for strange in (
            b"{",
            b"[]",
            b"7",
            {"type": None},
            {"type": "StasisStart"},
            {"type": "Dial", "peer": 7},
        ):
            pbx.send(strange)
        calls(pbx, lambda channel: pbx.end(channel, 17))
        assert (await dial(dialer)).outcome is DialOutcome.BUSY
        pbx.drop_events()
        await until(lambda: len(pbx.orders("GET", "/channels")) == 2)
        await asyncio.sleep(0.1)
        assert set(pbx.channels) == {stranger.id, ringing.id}


# --------------------------------------------------------------------------------------- ARI is unwell


async def test_an_ari_that_is_down_is_an_outcome() -> None:
    async with FakeAri() as pbx:
        url = pbx.url
    async with dialing(url) as dialer:
        result = await dial(dialer)
        assert result.outcome is DialOutcome.FAILED
        assert result.detail == f"ARI at {url} does not answer: Connection refused"


async def test_a_wrong_password_is_an_outcome_and_is_not_shown() -> None:
    async with FakeAri(password="another") as pbx, dialing(pbx.url) as dialer:
        result = await dial(dialer)
        assert result.outcome is DialOutcome.FAILED
        assert result.detail == f"ARI at {pbx.url} refused the user {USER} or its password"
        assert PASSWORD not in result.detail


@pytest.mark.parametrize(
    ("answer", "outcome", "says"),
    [
        (Answer(500, {"error": "Allocation failed"}), DialOutcome.INVALID, "can't dial PJSIP/101"),
        (Answer(400, {"message": "Invalid endpoint"}), DialOutcome.INVALID, "can't dial PJSIP/101"),
        (Answer(500, {"message": "out of memory"}), DialOutcome.FAILED, "answered 500: "),
        (Answer(503), DialOutcome.FAILED, "answered 503"),
        (Answer(401, {"message": "Authentication required"}), DialOutcome.FAILED, "refused the user"),
        (Answer(403, {"message": "Forbidden"}), DialOutcome.FAILED, "only read"),
        (Answer(after_s=9.0), DialOutcome.FAILED, "gave no answer in 0.5 s"),
    ],
)
async def test_an_order_that_is_not_taken(answer: Answer, outcome: DialOutcome, says: str) -> None:
    async with FakeAri() as pbx, dialing(pbx.url) as dialer:
        pbx.meddle = meddling("POST", "/channels", [answer])
        result = await dial(dialer)
        assert result.outcome is outcome and says in result.detail


async def test_an_order_whose_connection_breaks_is_repeated_once_and_calls_once() -> None:
    """The first was carried out, and its answer lost: the second is told 409, and that is well."""
    async with FakeAri() as pbx, dialing(pbx.url) as dialer:
        answers = iter((True, False))

        async def meddle(asked: Asked) -> Answer | None:
            if (asked.method, asked.path) == ("POST", "/channels") and next(answers):
                pbx._usual(asked)
                return Answer(reset=True)
            return None

        pbx.meddle = meddle
        calls(pbx, pbx.answer, after_s=0.1)
        assert await dial(dialer) == DialResult(None)
        assert len(pbx.orders("POST", "/channels")) == 2
        assert len(pbx.channels) == 1


async def test_a_connection_that_breaks_twice_is_an_outcome_and_leaves_no_channel() -> None:
    async with FakeAri() as pbx, dialing(pbx.url) as dialer:

        async def meddle(asked: Asked) -> Answer | None:
            if (asked.method, asked.path) == ("POST", "/channels"):
                pbx._usual(asked)
                return Answer(reset=True)
            return None

        pbx.meddle = meddle
        result = await dial(dialer)
        assert result.outcome is DialOutcome.FAILED and "does not answer" in result.detail
        await until(lambda: not pbx.channels)


async def test_an_order_that_is_carried_out_after_we_gave_it_up_is_hung_up() -> None:
    async with FakeAri() as pbx, dialing(pbx.url) as dialer:
        late: list[Asked] = []

        async def meddle(asked: Asked) -> Answer | None:
            if (asked.method, asked.path) == ("POST", "/channels"):
                late.append(asked)
                await asyncio.sleep(9)
            return None

        pbx.meddle = meddle
        assert (await dial(dialer)).outcome is DialOutcome.FAILED
        await asyncio.sleep(0.02)
        pbx.meddle = None
        pbx._usual(late[0])
        pbx.answer(late[0].query["channelId"])
        await until(lambda: not pbx.channels)


@pytest.mark.parametrize("broken", ["subscription", "continue"])
@pytest.mark.parametrize("answer", [Answer(500), Answer(reset=True), Answer(after_s=9), Answer(409)])
async def test_an_answered_phone_that_cant_be_connected_is_hung_up(broken: str, answer: Answer) -> None:
    async with FakeAri() as pbx, dialing(pbx.url) as dialer:
        pbx.meddle = meddling("POST", f"/{broken}", [answer])
        calls(pbx, pbx.answer)
        result = await dial(dialer)
        assert result.outcome is DialOutcome.FAILED
        assert result.detail.startswith("the phone was answered, but ARI")
        await until(lambda: not pbx.channels)


async def test_a_call_that_ends_before_it_reaches_us_is_a_failure() -> None:
    async with FakeAri() as pbx, dialing(pbx.url) as dialer:
        calls(pbx, pbx.answer)

        async def meddle(asked: Asked) -> Answer | None:
            if asked.path.endswith("/continue"):
                asyncio.get_running_loop().call_later(0.1, pbx.end, asked.path.split("/")[2], 0)
            return None

        pbx.meddle = meddle
        result = await dial(dialer)
        assert result.outcome is DialOutcome.FAILED and "resident port" in result.detail


async def test_an_asterisk_that_never_says_how_it_ended_is_no_answer() -> None:
    async with FakeAri() as pbx, dialing(pbx.url) as dialer:
        result = await dial(dialer, order(ring_s=0.3))
        assert result.outcome is DialOutcome.NO_ANSWER
        await until(lambda: not pbx.channels)


# --------------------------------------------------------------------------------------- events, badly


async def test_events_that_overtake_the_answer_to_the_order() -> None:
    async with FakeAri(after_the_order_s=0.3) as pbx, dialing(pbx.url) as dialer:
        calls(pbx, pbx.answer)
        assert await dial(dialer) == DialResult(None)
        calls(pbx, lambda channel: pbx.end(channel, 21))
        assert (await dial(dialer)).outcome is DialOutcome.REJECTED


async def test_an_event_that_comes_twice_connects_once() -> None:
    def twice(channel: str) -> None:
        pbx.answer(channel)
        pbx.answer(channel)

    async with FakeAri() as pbx, dialing(pbx.url) as dialer:
        calls(pbx, twice)
        assert await dial(dialer) == DialResult(None)
        assert len(pbx.orders("POST", "/continue")) == 1


async def test_events_lost_between_order_and_answer_are_caught_up_with() -> None:
    """Nobody tells us of the answer: we see it when we look again."""

    async def drop_and_answer(channel: str) -> None:
        pbx.drop_events()
        await until(lambda: not pbx.listeners)
        pbx.answer(channel)

    async with FakeAri() as pbx, dialing(pbx.url) as dialer:
        tasks: list[asyncio.Task[None]] = []
        calls(pbx, lambda channel: tasks.append(asyncio.ensure_future(drop_and_answer(channel))))
        assert await dial(dialer) == DialResult(None)
        assert [channel.stage for channel in pbx.channels.values()] == ["AudioSocket"]


async def test_a_call_that_ended_while_events_were_lost_is_a_failure() -> None:
    async def drop_and_end(channel: str) -> None:
        pbx.drop_events()
        await until(lambda: not pbx.listeners)
        pbx.end(channel, 17)

    async with FakeAri() as pbx, dialing(pbx.url) as dialer:
        tasks: list[asyncio.Task[None]] = []
        calls(pbx, lambda channel: tasks.append(asyncio.ensure_future(drop_and_end(channel))), after_s=0.1)
        result = await dial(dialer)
        assert result.outcome is DialOutcome.FAILED and "events" in result.detail


async def test_events_that_do_not_come_back_are_an_outcome_and_the_phone_stops_ringing() -> None:
    def lose(_: str) -> None:
        pbx.refuse_events = 503
        pbx.drop_events()

    async with FakeAri() as pbx, dialing(pbx.url) as dialer:
        calls(pbx, lose, after_s=0.1)
        result = await dial(dialer)
        assert result.outcome is DialOutcome.FAILED and "answered 503" in result.detail
        await until(lambda: not pbx.channels)


async def test_an_asterisk_that_dies_while_it_rings_and_comes_back() -> None:
    async with FakeAri() as pbx, dialing(pbx.url) as dialer:
        ringing = asyncio.ensure_future(dial(dialer))
        await until(lambda: pbx.channels)
        await pbx.stop()
        pbx.channels.clear()
        result = await ringing
        assert result.outcome is DialOutcome.FAILED and "does not answer" in result.detail
        await pbx.start()
        calls(pbx, pbx.answer)
        await until(lambda: pbx.listeners)
        assert await dial(dialer) == DialResult(None)


async def test_a_program_that_takes_our_name_is_told_of_and_not_fought() -> None:
    async with FakeAri() as pbx, dialing(pbx.url) as dialer:
        await until(lambda: pbx.listeners)
        pbx.send({"type": "ApplicationReplaced", "application": "porteiro"})
        await until(lambda: not pbx.listeners)
        result = await dial(dialer)
        assert result.outcome is DialOutcome.FAILED
        assert "another program took the application porteiro" in result.detail
        assert pbx.listeners == 0


# ------------------------------------------------------------------------------------- giving up, orphans


@pytest.mark.parametrize("after_s", [0.0, 0.01, 0.05, 0.15, 0.25, 0.35])
async def test_a_dial_that_is_given_up_hangs_up_whenever_that_is(after_s: float) -> None:
    """Before the order leaves, before it is answered (0.1 s), while it rings, after the answer (0.2 s)."""
    async with FakeAri(after_the_order_s=0.1) as pbx, dialing(pbx.url) as dialer:
        await until(lambda: pbx.listeners)
        calls(pbx, lambda channel: pbx.answer(channel) if channel in pbx.channels else None, after_s=0.2)
        ringing = asyncio.ensure_future(dialer.dial(order()))
        await asyncio.sleep(after_s)
        ringing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ringing
        await asyncio.sleep(0.3)
        assert pbx.channels == {}


async def test_giving_up_is_carried_out_although_asterisk_does_not_answer_at_first() -> None:
    async with FakeAri() as pbx, dialing(pbx.url) as dialer:
        pbx.meddle = meddling("DELETE", "", [Answer(500), Answer(reset=True), Answer(after_s=9)])
        ringing = asyncio.ensure_future(dialer.dial(order()))
        await until(lambda: pbx.channels)
        ringing.cancel()
        await until(lambda: not pbx.channels)


async def test_what_an_earlier_run_left_behind_is_hung_up_and_conversations_are_not() -> None:
    async with FakeAri() as pbx:
        own = {"PORTEIRO_APP": "porteiro"}
        waits = FakeChannel(str(uuid4()), "porteiro", own, "Up", "Stasis")
        rings = FakeChannel(str(uuid4()), "porteiro", own, "Ringing")
        talks = FakeChannel(str(uuid4()), "porteiro", own, "Up", "AudioSocket")
        pbx.channels = {channel.id: channel for channel in (waits, rings, talks)}
        async with dialing(pbx.url):
            await until(lambda: set(pbx.channels) == {talks.id})
            pbx.drop_events()
            await until(lambda: len(pbx.orders("GET", "/channels")) == 2)
            await asyncio.sleep(0.05)
            assert set(pbx.channels) == {talks.id}


async def test_a_phone_that_answers_an_attempt_that_is_over_is_hung_up() -> None:
    async with FakeAri() as pbx, dialing(pbx.url):
        await until(lambda: pbx.orders("GET", "/channels"))
        late = FakeChannel(str(uuid4()), "porteiro", {})
        pbx.channels[late.id] = late
        pbx.answer(late.id)
        await until(lambda: not pbx.channels)


async def test_tenants_share_one_connection_that_ends_with_the_last() -> None:
    async with FakeAri() as pbx:
        connection = AriConnection(AriAddress(pbx.url, USER, PASSWORD, "porteiro"))
        chosen = AriSettings.model_validate({"kind": "ari", "url": pbx.url, "password_env": "X"})
        first, second = AriDialer(chosen, connection), AriDialer(chosen, connection)
        await first.start()
        await second.start()
        await until(lambda: pbx.listeners)
        calls(pbx, pbx.answer)
        results = await asyncio.gather(dial(first), dial(second), dial(first))
        assert list(results) == [DialResult(None)] * 3
        assert pbx.listeners == 1
        await first.stop()
        assert await dial(second) == DialResult(None)
        await second.stop()
        await until(lambda: not pbx.listeners)


# ------------------------------------------------------------------------------------------ any order

HAPPENINGS = st.sampled_from(
    ["answer", "end", "busy", "ringing", "drop", "stranger", "garbage", "accept", "pause", "replay"]
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    happenings=st.lists(HAPPENINGS, max_size=8),
    cancel_after=st.none() | st.integers(0, 8),
    reset=st.booleans(),
    refuse=st.sampled_from([0, 0, 0, 500, 503]),
)
def test_any_order_of_events_ends_every_dial_and_leaves_nothing(
    happenings: list[str], cancel_after: int | None, reset: bool, refuse: int
) -> None:
    asyncio.run(_live_through(happenings, cancel_after, reset, refuse))


async def _live_through(happenings: list[str], cancel_after: int | None, reset: bool, refuse: int) -> None:
    before = asyncio.all_tasks()
    async with FakeAri() as pbx, dialing(pbx.url) as dialer:
        go = asyncio.Event()

        async def meddle(asked: Asked) -> Answer | None:
            if (asked.method, asked.path) != ("POST", "/channels"):
                return None
            if refuse:
                return Answer(refuse, {"error": "Allocation failed"})
            taken = pbx._usual(asked)
            async with asyncio.timeout(1):
                await go.wait()
            return Answer(reset=True) if reset else taken

        pbx.meddle = meddle
        what = order(ring_s=0.5)
        channel = str(what.attempt)
        task = asyncio.ensure_future(dialer.dial(what))
        for number, happening in enumerate(happenings):
            if number == cancel_after:
                task.cancel()
            _happen(pbx, channel, happening, go)
            await asyncio.sleep(0.02 if happening == "pause" else 0.002)
        go.set()
        if cancel_after is not None:
            task.cancel()
        async with asyncio.timeout(4):
            (result,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(result, DialResult):
            assert result.outcome is None or result.detail
        else:
            assert isinstance(result, asyncio.CancelledError) and cancel_after is not None
        await _only_conversations(pbx, result)
    assert asyncio.all_tasks() == before


def _happen(pbx: FakeAri, channel: str, happening: str, go: asyncio.Event) -> None:
    there = channel in pbx.channels
    match happening:
        case "answer" if there and pbx.channels[channel].stage == "AppDial2":
            pbx.answer(channel)
        case "end" if there:
            pbx.end(channel, 17)
        case "busy" | "ringing":
            pbx.dial_event(channel, happening.upper())
        case "drop":
            pbx.drop_events()
        case "stranger":
            pbx.send({"type": "ChannelDestroyed", "cause": 16, "channel": {"id": str(UUID(int=7))}})
        case "garbage":
            pbx.send(b"{]")
        case "accept":
            go.set()
        case "replay":
            pbx.send({"type": "StasisStart", "args": ["resident", channel], "channel": {"id": channel}})


async def _only_conversations(pbx: FakeAri, result: object) -> None:
    """In the end no channel is left but one that was answered and connected."""
    answered = isinstance(result, DialResult) and result.outcome is None
    async with asyncio.timeout(3):
        while pbx.channels and not answered:
            await asyncio.sleep(0.01)
    assert all(one.stage == "AudioSocket" for one in pbx.channels.values())
