"""Sessions that can't be opened say why, by the same codes for each vendor; those that end leave nothing."""

from __future__ import annotations

import asyncio

import pytest

from bridge.tenant_provider import look_at_providers
from providers.base import AudioDelta, Failed, Ready, ToolCall
from tests.conformance.stage import CONFIG, Call, Play, Refusal, Reply, Say, Stage, leave, playing
from tests.conformance.table import Grade, shows
from tests.simulators.talk import failures

CODES: dict[Refusal, str] = {
    "key": "key_refused",
    "model": "unknown_model",
    "voice": "unsupported_voice",
    "rate": "rate_limit",
    "quota": "quota",
}


def only_failure(play: Play) -> Failed:
    """The session's one failure, which is the last thing that it tells."""
    (failed,) = failures(play.talk.events)
    assert play.talk.events[-1] is failed
    assert play.stage.key not in failed.message and "wrong-key" not in failed.message
    return failed


@shows("refusals")
async def test_each_refusal_has_its_own_code(vendor: type[Stage]) -> Grade:
    for why, code in CODES.items():
        async with playing(vendor, ready=False, prepare=lambda stage, why=why: stage.refuse(why)) as play:  # type: ignore[misc]
            play.session.say_exactly("Boa tarde!")
            play.session.speak_about("Comece.")
            await play.talk.end()
            assert only_failure(play).code == code, why
            assert vendor.late_refusals or not any(isinstance(e, Ready) for e in play.talk.events)
            assert not play.session.busy
            intents_do_nothing(play)
    return "native"


@pytest.mark.parametrize("why", CODES)
async def test_porteiro_check_says_it_in_one_line(vendor: type[Stage], why: Refusal) -> None:
    async with vendor() as stage:
        stage.refuse(why)
        well, (said,) = await look_at_providers(stage.made())
        assert well == [] and said.startswith("tenants.jardim.") and vendor.name in said
        assert said.endswith(f"({CODES[why]})") and "\n" not in said and "wrong-key" not in said
        await stage.line.until(lambda: not stage.line.open)


async def test_porteiro_check_says_who_takes_us(vendor: type[Stage]) -> None:
    async with vendor() as stage:
        (well,), unwell = await look_at_providers(stage.made())
        assert unwell == [] and well.startswith("jardim: ") and vendor.name in well
        assert stage.violations == []


@shows("refusals")
async def test_nobody_there_is_unreachable(vendor: type[Stage]) -> Grade:
    async with playing(vendor, ready=False, prepare=lambda stage: stage.line.cut(for_good=True)) as play:
        await play.talk.end()
        assert only_failure(play).code == "unreachable"
        return "native"


async def test_a_vendor_that_never_answers_is_given_up(vendor: type[Stage]) -> None:
    def mute(stage: Stage) -> None:
        stage.line.mute = True

    async with playing(vendor, ready=False, prepare=mute) as play:
        play.session.say_exactly("Boa tarde!")
        await play.talk.end()
        assert only_failure(play).code == "timeout"


def intents_do_nothing(play: Play) -> None:
    """After its end a session takes any intent, and does nothing."""
    session, told = play.session, len(play.talk.events)
    session.send_audio(bytes(640))
    session.interrupt(None)
    session.note("Ninguém ouve.")
    session.auto_reply(False)
    session.doubt_turn()
    session.settle_turn(True)
    session.say_exactly("Ninguém ouve.")
    session.speak_about("Ninguém ouve.")
    session.answer(ToolCall("a", "x", "{}", 1), {})
    assert not session.busy and len(play.talk.events) == told


@shows("close")
async def test_a_session_that_is_closed_in_the_middle_of_things_leaves_nothing(vendor: type[Stage]) -> Grade:
    """What is left is looked at by ``playing``."""
    replies: tuple[Reply, ...] = ((Say(2000),), (Call(),))
    for moment in ("opening", "speaking", "calling"):
        script = replies[1:] if moment == "calling" else replies
        async with playing(vendor, *script, pace_s=0.004, ready=moment != "opening") as play:
            if moment == "speaking":
                play.session.speak_about("Fale bastante.")
                await play.talk.a(AudioDelta)
            elif moment == "calling":
                await play.speak("Apartamento quinhentos e um.")
                await play.talk.a(ToolCall)
            await play.session.close()
            await play.session.close()
            told = len(play.talk.events)
            intents_do_nothing(play)
            await asyncio.sleep(0.02)
            assert failures(play.talk.events) == [] and len(play.talk.events) == told
    return "native"


async def test_a_vendor_that_does_not_take_the_goodbye_is_left_in_time(vendor: type[Stage]) -> None:
    """The bound is ``leave``'s."""
    async with vendor() as stage:
        before = asyncio.all_tasks()
        play = Play(stage, stage.provider().open(CONFIG))
        await play.talk.a(Ready)
        stage.line.deaf = True
        play.session.note("Ninguém ouve.")
        await asyncio.sleep(0.02)
        await leave(play, before)
