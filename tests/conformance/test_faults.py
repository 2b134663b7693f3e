"""What becomes of a conversation when its vendor misbehaves: the same for each, in terms of the seam.

The sessions are as the service opens them: behind the failover that stands in for a lost or stalled one
(``providers/failover.py``), which is less patient here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from providers import failover
from providers.base import (
    AudioDone,
    ItemStarted,
    Lost,
    Provider,
    Ready,
    Replaced,
    ResponseDone,
    SpeechStarted,
    ToolCall,
    Transcript,
    TranscriptFailed,
)
from providers.failover import Candidate, FailoverProvider
from tests.conformance.line import Fault, Step
from tests.conformance.stage import CONFIG, Call, Play, Say, Stage, leave, playing
from tests.conformance.stages import STAGES
from tests.conformance.table import Grade, Outcome, shows
from tests.simulators.talk import failures

GREETING = "Boa tarde! Condomínio Jardim das Acácias, com quem deseja falar?"
WORDS = "Apartamento quinhentos e um."
NEWS = "O morador atendeu e está ouvindo."
SCRIPT = ((Say(300, GREETING),),) * 6


@pytest.fixture(autouse=True)
def less_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as a test may take, and not a caller."""
    for name, seconds in {
        "SILENT_S": 2.5,
        "ASKED_AGAIN_S": 0.4,
        "LOOK_S": 0.05,
        "PAUSE_S": 0.1,
        "HARD_S": 0.1,
    }.items():
        monkeypatch.setattr(failover, name, seconds)
    for vendor in STAGES:
        for where, seconds in vendor.waits.items():
            monkeypatch.setattr(where, seconds)


def alone(provider: Provider) -> FailoverProvider:
    """As the service opens sessions of a tenant that has one provider."""
    return FailoverProvider([Candidate(provider)])


def outcome(play: Play) -> Outcome:
    """Whether another session had to take over."""
    assert failures(play.talk.events) == []
    lost = any(isinstance(e, Lost | Replaced) for e in play.talk.events)
    return "replaced" if lost else "goes on"


async def whole_or_told(play: Play, receipt: str) -> None:
    """An exact sentence was said to its end, or whoever asked for it is told that it wasn't."""
    done = await play.done(receipt)
    if done.status != "completed":
        return
    items = [e.item for e in play.talk.events if isinstance(e, ItemStarted) and e.receipt == receipt]
    assert AudioDone(items[-1]) in play.talk.events
    exact = play.session.capabilities.exact_speech
    ms = play.stage.reading_ms(GREETING) if exact else 300
    assert abs(play.ms(items[-1]) - ms) <= 100, "all of it, once"


async def goes_on(play: Play) -> None:
    """Whatever happened, the conversation is as good as new."""
    assert (await play.done(play.session.speak_about(NEWS))).status == "completed"
    await play.idle()


async def mid_sentence(vendor: type[Stage], *steps: Step) -> Outcome:
    """These faults befall a sentence that is being said."""
    found: set[Outcome] = set()
    for step in steps:
        async with playing(vendor, *SCRIPT, through=alone) as play:
            play.stage.line.then(step)
            await whole_or_told(play, play.session.say_exactly(GREETING))
            await goes_on(play)
            assert play.stage.line.done
            found.add(outcome(play))
    return "replaced" if "replaced" in found else "goes on"


@shows("stall")
async def test_a_stall_in_the_middle_of_a_reply_is_noticed(vendor: type[Stage]) -> Outcome:
    return await mid_sentence(vendor, Step("stall", after=0), Step("stall", after=4))


@shows("broken connection")
async def test_a_connection_that_breaks_in_the_middle_of_a_reply(vendor: type[Stage]) -> Outcome:
    return await mid_sentence(vendor, *(Step(how, after=n) for how in ("abort", "torn") for n in (0, 4)))


@shows("close 1008")
async def test_a_close_with_1008(vendor: type[Stage]) -> Outcome:
    return await mid_sentence(vendor, Step("close", after=4, code=1008, reason="Policy violation."))


@shows("close 1011")
async def test_a_close_with_1011(vendor: type[Stage]) -> Outcome:
    return await mid_sentence(
        vendor, *(Step("close", after=n, code=1011, reason="Internal error.") for n in (0, 4))
    )


@shows("half a message")
async def test_half_a_message(vendor: type[Stage]) -> Outcome:
    return await mid_sentence(vendor, *(Step(how, after=n) for how in ("half", "garbage") for n in (0, 4)))


@pytest.mark.parametrize(
    ("fault", "code"),
    [("abort", "went_away"), ("torn", "went_away"), ("close", "went_away"), ("half", "protocol_error")],
)
async def test_without_a_stand_in_a_session_ends_with_one_failure_and_says_no_more(
    vendor: type[Stage], fault: Fault, code: str
) -> None:
    async with playing(vendor, *SCRIPT) as play:
        play.stage.line.then(Step(fault, after=3))
        receipt = play.session.say_exactly(GREETING)
        if play.session.capabilities.resumption and code == "went_away":
            await play.done(receipt)
            await goes_on(play)
            assert failures(play.talk.events) == [] and play.stage.line.connections == 2
            return
        await play.talk.end()
        (failed,) = failures(play.talk.events)
        assert failed.code == code and play.talk.events[-1] is failed and not play.session.busy


@shows("slow pong")
async def test_pings_that_are_answered_late_are_answered(vendor: type[Stage]) -> Outcome:
    ping_s = 0.1

    def pinging(provider: Provider) -> Provider:
        """With pings that a test can wait for, where the vendor is pinged at all."""
        made: Any = provider
        if hasattr(made, "_limits"):
            made._limits = replace(made._limits, ping_s=ping_s)
        return alone(provider)

    async with playing(vendor, *SCRIPT, through=pinging) as play:
        play.stage.line.pong_delay_s = 0.7 * ping_s
        await whole_or_told(play, play.session.say_exactly(GREETING))
        await asyncio.sleep(5 * ping_s)
        await goes_on(play)
        play.stage.line.pong_delay_s = None
        return outcome(play)


@shows("phantom interruption")
async def test_an_interruption_that_nobody_made(vendor: type[Stage]) -> Outcome:
    script = ((Say(3000, GREETING),), *SCRIPT)
    async with playing(vendor, *script, pace_s=0.004, through=alone) as play:
        receipt = play.session.speak_about("Fale bastante.")
        started = await play.talk.a(ItemStarted)
        await play.received(started.item, 300)
        play.stage.phantom()
        done = await play.done(receipt)
        assert done.status in ("completed", "cancelled", "incomplete")
        await goes_on(play)
        return outcome(play)


@shows("empty turn")
async def test_a_turn_without_words_and_a_reply_without_sound(vendor: type[Stage]) -> Outcome:
    async with playing(vendor, (), *SCRIPT, through=alone) as play:
        nothing = await play.done(play.session.speak_about("Fale."))
        assert nothing.status in ("completed", "incomplete", "failed")
        await goes_on(play)
        without_sound = outcome(play)
    async with playing(vendor, *SCRIPT, through=alone) as play:
        await play.speak("")
        turn = (await play.talk.a(SpeechStarted)).item

        def settled(events: list[Any]) -> bool:
            words = [e for e in events if isinstance(e, Transcript) and e.item == turn and e.final]
            assert all(e.text == "" for e in words)
            return bool(words) or any(isinstance(e, TranscriptFailed) and e.item == turn for e in events)

        await play.talk.until(settled)
        await goes_on(play)
        return "replaced" if "replaced" in (outcome(play), without_sound) else "goes on"


@shows("goAway")
async def test_a_connection_that_will_be_closed_is_left_in_time_and_nothing_is_lost(
    vendor: type[Stage],
) -> Outcome:
    def soon(stage: Stage) -> None:
        stage.will_close_in(0.8)

    async with playing(vendor, *SCRIPT, prepare=soon, through=alone) as play:
        line = play.stage.line
        assert (await play.done(play.session.say_exactly("Boa tarde!"))).status == "completed"
        await line.until(lambda: line.connections > 1)
        if not play.session.capabilities.resumption:
            await play.talk.a(Replaced)
        assert not any(isinstance(e, Lost) for e in play.talk.events), "nothing was lost"
        await goes_on(play)
        return outcome(play)


@shows("another format")
async def test_another_format_than_was_asked_for_is_obeyed_or_refused(vendor: type[Stage]) -> Outcome:
    def differently(stage: Stage) -> None:
        stage.confirm_another_format()

    async with playing(vendor, (Say(200),), prepare=differently, ready=False) as play:
        asked = play.session.capabilities
        receipt = play.session.speak_about("Comece.")
        await play.talk.until(
            lambda events: failures(events) or any(isinstance(e, ResponseDone) for e in events)
        )
        if failures(play.talk.events):
            assert failures(play.talk.events)[0].code == "unsupported_format"
            return "ends"
        can = play.session.capabilities
        assert can != asked and Ready(can) in play.talk.events
        (item,) = [e.item for e in play.talk.events if isinstance(e, ItemStarted) and e.receipt == receipt]
        assert abs(play.ms(item) - 200) <= 100
        await play.speak(WORDS)
        await play.replies(2)
        return "goes on"


async def calling(vendor: type[Stage], call: Call, step: Callable[[Stage], Step] | None) -> Outcome:
    """A tool call that a fault befalls is made once, and answered once."""
    async with playing(vendor, (call,), (Say(200, "Achei."),), through=alone) as play:
        if step is not None:
            play.stage.line.then(step(play.stage))
        await play.speak(WORDS)
        made = await play.talk.a(ToolCall)
        play.session.answer(made, {"status": "ok"})
        await play.talk.a(Transcript, role="agent", final=True, text="Achei.")
        await play.idle()
        assert [e for e in play.talk.events if isinstance(e, ToolCall)] == [made]
        assert dict(play.stage.answers) == {made.id: {"status": "ok"}} and play.stage.line.done
        return outcome(play)


@shows("call told twice")
async def test_a_call_that_is_told_twice_is_made_once(vendor: type[Stage]) -> Outcome:
    await calling(vendor, Call(times=2), None)
    return await calling(vendor, Call(), lambda stage: Step("twice", of=stage.is_call))


@shows("late call")
@pytest.mark.parametrize("by", [1, 2, 3])
async def test_a_call_that_comes_after_the_end_of_its_reply_is_made(vendor: type[Stage], by: int) -> Outcome:
    return await calling(vendor, Call(), lambda stage: Step("late", of=stage.is_call, by=by))


@shows("reordered events")
@pytest.mark.parametrize("fault", ["late", "twice"])
async def test_events_in_another_order_break_nothing(vendor: type[Stage], fault: Fault) -> Outcome:
    found: set[Outcome] = set()
    for after in range(8):
        async with playing(vendor, *SCRIPT, through=alone) as play:
            play.stage.line.then(Step(fault, after=after))
            await play.done(play.session.say_exactly(GREETING))
            await goes_on(play)
            found.add(outcome(play))
    return "replaced" if "replaced" in found else "goes on"


# -- one session after the other -----------------------------------------------------------------------------


@shows("lost connection")
async def test_a_conversation_outlives_its_connection(vendor: type[Stage]) -> Grade:
    """The greeting was said, the caller has answered, a tool is open: the connection breaks."""
    script = ((Say(300, GREETING),), (Call("a", "call_resident"),), (Say(200, "Ele atendeu."),))
    async with playing(vendor, *script, through=alone) as play:
        line = play.stage.line
        await play.done(play.session.say_exactly(GREETING))
        await play.speak(WORDS)
        call = await play.talk.a(ToolCall)
        await play.talk.a(Transcript, role="caller", final=True, text=WORDS)
        line.cut()
        await line.until(lambda: line.connections > 1)
        play.session.answer(call, {"status": "answered"})
        await goes_on(play)
        assert dict(play.stage.answers) == {}, "an answer goes to the connection that asked, or to none"
        assert [e for e in play.talk.events if isinstance(e, ToolCall)] == [call]
        resumed = play.session.capabilities.resumption
        told = play.stage.told
        if not resumed:
            assert GREETING in told and WORDS in told and "answered" in told
            assert any(isinstance(e, Replaced) for e in play.talk.events)
        assert failures(play.talk.events) == []
        return "native" if resumed else "emulated"


@shows("failover")
async def test_another_provider_takes_over_in_mid_visit(vendor: type[Stage]) -> Grade:
    """The next one in the list of vendors, so that each of them is left once and takes over once."""
    following = STAGES[(STAGES.index(vendor) + 1) % len(STAGES)]
    second = following(*SCRIPT)
    async with second:

        def both(provider: Provider) -> FailoverProvider:
            return FailoverProvider([Candidate(provider), Candidate(second.provider(), "")])

        async with playing(vendor, *SCRIPT, through=both) as play:
            await play.done(play.session.say_exactly(GREETING))
            await play.speak(WORDS)
            await play.talk.a(Transcript, role="caller", final=True, text=WORDS)
            await play.idle()
            play.stage.line.cut(for_good=True)
            replaced = await play.talk.a(Replaced)
            assert replaced.provider == following.name
            await goes_on(play)
            told = second.told
            assert GREETING in told and WORDS in told and NEWS in told
            assert play.session.capabilities.output_rate > 0
            assert outcome(play) == "replaced"
        assert second.violations == []
        await second.line.until(lambda: not second.line.open)
        return "emulated"


@shows("rate limit")
async def test_one_request_too_many_is_asked_of_the_next_provider(vendor: type[Stage]) -> Outcome:
    following = STAGES[(STAGES.index(vendor) + 1) % len(STAGES)]
    second = following(*SCRIPT)
    async with second:

        def both(provider: Provider) -> FailoverProvider:
            return FailoverProvider([Candidate(provider), Candidate(second.provider(), "")])

        async with playing(vendor, *SCRIPT, through=both) as play:
            await play.done(play.session.say_exactly(GREETING))
            play.stage.limit_rate()
            play.session.speak_about(WORDS)
            replaced = await play.talk.a(Replaced)
            await goes_on(play)
            assert replaced.provider == following.name
            assert GREETING in second.told and WORDS in second.told
            found = outcome(play)
        assert second.violations == []
        await second.line.until(lambda: not second.line.open)
        return found


@pytest.mark.parametrize("why", ["key", "rate", "quota"])
async def test_a_provider_that_refuses_is_passed_over(vendor: type[Stage], why: Any) -> None:
    following = STAGES[(STAGES.index(vendor) + 1) % len(STAGES)]
    second = following(*SCRIPT)
    async with second, vendor() as first:
        first.refuse(why)
        provider = FailoverProvider([Candidate(first.provider()), Candidate(second.provider(), "")])
        asked = 0
        for call in ("first", "second"):
            before = asyncio.all_tasks()
            play = Play(second, provider.open(CONFIG))
            receipt = play.session.say_exactly(GREETING)
            assert (await play.done(receipt)).status == "completed"
            assert failures(play.talk.events) == []
            assert call == "first" or first.line.requests == asked, "it is not asked again at once"
            asked = first.line.requests
            await leave(play, before)
        assert second.violations == []
