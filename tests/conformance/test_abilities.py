"""What every adapter's session must be able to do, in terms of the seam (``providers/base.py``)."""

from __future__ import annotations

import asyncio

from bridge.costs.account import KINDS, Account, Currency
from bridge.costs.prices import ANY_MODEL, Price, known_prices
from providers.base import (
    AudioDelta,
    AudioDone,
    BilledByTime,
    Heard,
    ItemStarted,
    Ready,
    ResponseDone,
    ResponseStarted,
    SpeechStarted,
    TakesTurns,
    ToolCall,
    ToolCallCancelled,
    Transcript,
    Usage,
)
from tests.conformance.stage import BROKEN, Call, Play, Say, Stage, playing
from tests.conformance.table import Grade, shows
from tests.simulators.talk import failures

GREETING = "Boa tarde! Condomínio Jardim das Acácias, com quem deseja falar?"
LONG = "O morador pediu que o senhor aguarde na portaria enquanto ele confere a entrega com a família."
WORDS = "Apartamento quinhentos e um."
NEWS = "O morador atendeu e está ouvindo."


async def said_whole(play: Play, receipt: str, text: str, ms: int) -> None:
    """A sentence was said as it was asked for, all of it, and nothing else under its name."""
    done = await play.done(receipt)
    assert done.status == "completed"
    events = play.talk.events
    assert [e.receipt for e in events if isinstance(e, ResponseStarted)].count(receipt) == 1
    (item,) = [e.item for e in events if isinstance(e, ItemStarted) and e.receipt == receipt]
    assert AudioDone(item) in events
    assert abs(play.ms(item) - ms) <= 100
    final = await play.talk.a(Transcript, role="agent", item=item, final=True)
    assert final.text == text


@shows("greeting")
async def test_the_greeting_is_said_as_it_was_asked_for(vendor: type[Stage]) -> Grade:
    """It is asked for before the session is up: while the telephone still rings."""
    async with playing(vendor, (Say(300, GREETING),), ready=False) as play:
        receipt = play.session.say_exactly(GREETING)
        busy = play.session.busy
        assert busy
        await said_whole(play, receipt, GREETING, sound_of(play, GREETING, 300))
        assert isinstance(play.talk.events[0], Ready)
        assert any(GREETING in text for text in (*play.stage.texts, *play.stage.verbatim))
        assert not play.session.busy
        return "native" if any(GREETING in text for text in play.stage.verbatim) else "emulated"


def sound_of(play: Play, text: str, ms: int) -> int:
    """How long a sentence lasts: as scripted, or as the vendor reads it."""
    return play.stage.reading_ms(text) if play.session.capabilities.exact_speech else ms


@shows("exact sentences")
async def test_a_sentence_in_mid_visit_is_said_as_it_was_asked_for(vendor: type[Stage]) -> Grade:
    async with playing(vendor, (Say(300, GREETING),), (Say(400, NEWS),)) as play:
        await play.done(play.session.say_exactly(GREETING))
        receipt = play.session.say_exactly(NEWS)
        await said_whole(play, receipt, NEWS, sound_of(play, NEWS, 400))
        read_out = any(NEWS in text for text in play.stage.verbatim)
        assert read_out or not play.session.capabilities.exact_speech
        return "native" if read_out else "emulated"


@shows("turns")
async def test_a_callers_turn_is_answered(vendor: type[Stage]) -> Grade:
    async with playing(vendor, (Say(300),)) as play:
        said = await play.speak(WORDS)
        (done,) = await play.replies(1)
        assert (done.receipt, done.status) == (None, "completed")
        began = await play.talk.a(SpeechStarted)
        words = await play.talk.a(Transcript, role="caller", final=True)
        assert (words.text, words.item) == (WORDS, began.item)
        (item,) = [e.item for e in play.talk.events if isinstance(e, ItemStarted)]
        assert abs(play.ms(item) - 300) <= 100
        if play.stage.hears_all and play.session.capabilities.input_encoding == "pcm":
            assert said in play.stage.caller
        assert not play.session.busy
        own = play.session.capabilities.owns_turns or not isinstance(play.session, TakesTurns)
        return "native" if own else "emulated"


async def test_a_turn_that_the_host_has_taken_is_not_answered(vendor: type[Stage]) -> None:
    async with playing(vendor, (Say(300),), (Say(300, NEWS),)) as play:
        play.session.auto_reply(False)
        await play.speak(WORDS)
        await play.talk.a(Transcript, role="caller", final=True, text=WORDS)
        receipt = play.session.speak_about(NEWS)
        await play.done(receipt)
        started = [e.receipt for e in play.talk.events if isinstance(e, ResponseStarted)]
        assert started == [receipt], "what nobody wanted is not heard of"


async def interrupted(play: Play, heard_ms: int) -> str:
    """The caller speaks over a long reply, having heard so much of it; returns the item."""
    receipt = play.session.speak_about("Fale bastante.")
    item = (await play.talk.a(AudioDelta)).item
    await play.received(item, heard_ms + 200)
    play.session.interrupt(Heard(item, heard_ms))
    after = len(play.talk.events)
    await play.speak(WORDS)
    done = await play.done(receipt)
    assert done.status in ("cancelled", "incomplete")
    await play.talk.until(
        lambda events: any(isinstance(e, ResponseDone) and e.status == "completed" for e in events)
    )
    late = [e for e in play.talk.events[after:] if isinstance(e, AudioDelta) and e.item == item]
    assert late == [], "what was interrupted is not heard any more"
    return str(item)


@shows("interrupted")
async def test_a_reply_that_the_caller_speaks_over_stops(vendor: type[Stage]) -> Grade:
    async with playing(vendor, (Say(5000, LONG),), (Say(200),), pace_s=0.004) as play:
        await interrupted(play, 600)
        await play.talk.a(Transcript, role="caller", final=True, text=WORDS)
        return "native" if play.stage.stops else "emulated"


@shows("heard position")
async def test_the_model_remembers_only_what_was_heard(vendor: type[Stage]) -> Grade:
    async with playing(vendor, (Say(5000, LONG),), (Say(200),), pace_s=0.004) as play:
        item = await interrupted(play, 2000)
        if play.stage.truncated:
            assert dict(play.stage.truncated) == {item: 2000}
        else:
            await play.done(play.session.speak_about(NEWS))
            assert "O morador pediu" in play.stage.told and LONG not in play.stage.told
        return "native" if play.session.capabilities.truncation else "emulated"


@shows("one tool")
async def test_a_tool_is_called_once_and_its_answer_is_spoken_about(vendor: type[Stage]) -> Grade:
    async with playing(vendor, (Say(100, "Vou ver."), Call()), (Say(200, "Achei."),)) as play:
        await play.speak(WORDS)
        call = await play.talk.a(ToolCall)
        assert call.name == "lookup_apartment"
        assert call.arguments.replace(" ", "") == '{"apartment":"501"}'
        play.session.answer(call, {"status": "ok"})
        play.session.answer(call, {"status": "twice"})
        await play.talk.a(Transcript, role="agent", final=True, text="Achei.")
        await play.idle()
        assert dict(play.stage.answers) == {call.id: {"status": "ok"}}
        assert [e for e in play.talk.events if isinstance(e, ToolCall)] == [call]
        return "native"


@shows("parallel tools")
async def test_tools_that_are_called_together_are_answered_by_one_reply(vendor: type[Stage]) -> Grade:
    calls = (Call("a"), Call("b", "call_resident"))
    async with playing(vendor, calls, (Say(200, "Pronto."),), (Say(200, "De novo."),)) as play:
        await play.speak(WORDS)
        made = [await play.talk.a(ToolCall, name=name) for name in ("lookup_apartment", "call_resident")]
        for call in reversed(made):
            play.session.answer(call, {"of": call.name})
        await play.talk.a(Transcript, role="agent", final=True, text="Pronto.")
        await play.idle()
        assert dict(play.stage.answers) == {call.id: {"of": call.name} for call in made}
        finals = [e.text for e in play.talk.events if isinstance(e, Transcript) and e.final]
        assert "De novo." not in finals, "one reply for both"
        return "native"


@shows("long tool")
async def test_a_long_tool_returns_at_once_and_its_outcome_is_told_when_it_comes(
    vendor: type[Stage],
) -> Grade:
    replies = ((Call("a", "call_resident"),), (Say(200, "Estou ligando."),), (Say(200, "Ele atendeu."),))
    async with playing(vendor, *replies) as play:
        await play.speak(WORDS)
        call = await play.talk.a(ToolCall)
        play.session.answer(call, {"status": "dialing"})
        await play.talk.a(Transcript, role="agent", final=True, text="Estou ligando.")
        receipt = play.session.speak_about(NEWS)
        await play.done(receipt)
        await play.talk.a(Transcript, role="agent", final=True, text="Ele atendeu.")
        await play.idle()
        assert dict(play.stage.answers) == {call.id: {"status": "dialing"}}
        assert any(NEWS in text for text in play.stage.texts)
        assert len([e for e in play.talk.events if isinstance(e, ToolCall)]) == 1
        return "native"


async def test_a_tool_that_needs_no_reply_gets_none(vendor: type[Stage]) -> None:
    replies = ((Call("a", "call_resident"),), (Say(200, "Pois não."),))
    async with playing(vendor, *replies) as play:
        await play.speak(WORDS)
        call = await play.talk.a(ToolCall)
        play.session.answer(call, {"status": "dialing"}, "never")
        receipt = play.session.speak_about(NEWS)
        done = await play.done(receipt)
        assert done.status == "completed"
        assert dict(play.stage.answers) == {call.id: {"status": "dialing"}}


@shows("cost")
async def test_what_a_reply_costs_is_told_and_has_a_price(vendor: type[Stage]) -> Grade:
    async with playing(vendor, (Say(300),)) as play:
        session = play.session
        await play.speak(WORDS)
        await play.replies(1)
        await play.talk.a(Transcript, role="caller", final=True)
        await play.idle()
        await session.close()
        told = [e for e in play.talk.events if isinstance(e, Usage)]
        told += session.time_billed() if isinstance(session, BilledByTime) else ()
    assert {usage.purpose for usage in told} & {"reply", "session"}
    dear = Price.model_validate(dict.fromkeys((*KINDS, "per_minute", "per_1000_characters"), 1_000_000))
    prices = known_prices().before({usage.provider: {ANY_MODEL: dear} for usage in told})
    account = Account(prices, Currency(), vendor.name)
    for usage in told:
        account.add(usage)
    bill = account.bill()
    assert bill.amount > 1 and bill.complete is all(usage.complete for usage in told)
    return "native" if bill.complete else "emulated"


async def test_a_session_that_nobody_used_is_billed_or_costs_nothing(vendor: type[Stage]) -> None:
    """Those that cost nothing may be opened ahead of their call: nobody is there yet who could be billed."""
    async with playing(vendor) as play:
        ahead = play.stage.provider().opens_ahead
        await asyncio.sleep(0.3)
        await play.session.close()
        timed = isinstance(play.session, BilledByTime)
        told = [e for e in play.talk.events if isinstance(e, Usage)]
        told += play.session.time_billed() if isinstance(play.session, BilledByTime) else ()
    assert ahead is not timed
    assert sum(usage.seconds for usage in told) >= 0.3 if timed else told == []


@shows("tool cancelled")
async def test_a_call_that_is_taken_back_is_settled_and_never_answered(vendor: type[Stage]) -> Grade:
    async with playing(vendor, (Call(),), (Say(200, "Deixe estar."),)) as play:
        await play.speak(WORDS)
        call = await play.talk.a(ToolCall)
        play.stage.cancel(call.id)
        await play.talk.a(ToolCallCancelled, id=call.id)
        play.session.answer(call, {"status": "late"})
        await play.done(play.session.speak_about(NEWS))
        await play.idle()
        assert dict(play.stage.answers) == {}
        return "native"


@shows("unknown tool")
async def test_a_tool_that_there_is_not_is_answered_like_any_other(vendor: type[Stage]) -> Grade:
    return await refused(vendor, Call(name="open_the_gate"))


@shows("broken arguments")
async def test_arguments_that_are_no_json_reach_who_checks_them(vendor: type[Stage]) -> Grade:
    return await refused(vendor, Call(arguments=None))


async def refused(vendor: type[Stage], wrong: Call) -> Grade:
    """A call that nothing can be made of is passed on as it is; who answers says so."""
    async with playing(vendor, (wrong,), (Say(200, "Não deu."),)) as play:
        await play.speak(WORDS)
        call = await play.talk.a(ToolCall)
        assert call.name == wrong.name
        assert wrong.arguments is not None or call.arguments == BROKEN
        play.session.answer(call, {"status": "error", "message": "isso não existe"})
        await play.talk.a(Transcript, role="agent", final=True, text="Não deu.")
        assert play.stage.answers[call.id]["status"] == "error" and failures(play.talk.events) == []
        return "native"


@shows("note")
async def test_a_note_is_told_and_asks_for_no_reply(vendor: type[Stage]) -> Grade:
    async with playing(vendor, (Say(200, "Está chovendo."),)) as play:
        play.session.note("Chove lá fora.")
        assert not play.session.busy
        receipt = play.session.speak_about("Fale do tempo.")
        await play.done(receipt)
        assert [e.receipt for e in play.talk.events if isinstance(e, ResponseStarted)] == [receipt]
        assert any("Chove lá fora." in text for text in play.stage.texts)
        return "native"


@shows("news")
async def test_news_are_spoken_about_when_nothing_is_said(vendor: type[Stage]) -> Grade:
    async with playing(vendor, (Say(200, "Ele atendeu."),)) as play:
        receipt = play.session.speak_about(NEWS)
        busy = play.session.busy
        assert busy
        done = await play.done(receipt)
        assert done.status == "completed"
        (item,) = [e.item for e in play.talk.events if isinstance(e, ItemStarted) and e.receipt == receipt]
        final = await play.talk.a(Transcript, role="agent", item=item, final=True)
        assert final.text == "Ele atendeu." and any(NEWS in text for text in play.stage.texts)
        return "native"


@shows("news")
async def test_news_that_come_while_something_is_said_wait_for_its_end(vendor: type[Stage]) -> Grade:
    async with playing(vendor, (Say(1000, LONG),), (Say(200, "Ele atendeu."),), pace_s=0.004) as play:
        first = play.session.speak_about("Fale bastante.")
        await play.talk.a(AudioDelta)
        second = play.session.speak_about(NEWS)
        assert (await play.done(first)).status == "completed"
        assert (await play.done(second)).status == "completed"
        began = [e.receipt for e in play.talk.events if isinstance(e, ResponseStarted)]
        assert began == [first, second]
        return "native"


@shows("news")
async def test_news_that_come_while_a_tool_is_open_are_not_lost(vendor: type[Stage]) -> Grade:
    replies = ((Call(),), (Say(200, "Achei, e ele atendeu."),), (Say(200, "Ele atendeu."),))
    async with playing(vendor, *replies) as play:
        await play.speak(WORDS)
        call = await play.talk.a(ToolCall)
        receipt = play.session.speak_about(NEWS)
        play.session.answer(call, {"status": "ok"})
        assert (await play.done(receipt)).status == "completed"
        await play.idle()
        assert dict(play.stage.answers) == {call.id: {"status": "ok"}}
        assert any(NEWS in text for text in play.stage.texts)
        return "native"


@shows("G.711")
async def test_the_telephones_own_format_goes_both_ways(vendor: type[Stage]) -> Grade:
    def telephone(stage: Stage) -> None:
        stage.changes["provider_format"] = "pcmu"

    async with playing(vendor, (Say(200),), prepare=telephone) as play:
        can = play.session.capabilities
        assert (can.input_rate, can.output_rate) == (8000, 8000)
        assert (can.input_encoding, can.output_encoding) == ("pcmu", "pcmu")
        await play.speak(WORDS)
        await play.replies(1)
        (item,) = [e.item for e in play.talk.events if isinstance(e, ItemStarted)]
        assert abs(play.ms(item) - 200) <= 100
        return "native"
