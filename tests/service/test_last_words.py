"""Where every provider is gone for good callers hear a sentence in our own voice, and then the hang-up."""

from __future__ import annotations

import asyncio
import tomllib
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from structlog.testing import capture_logs

from bridge.http.calls import Registration
from bridge.softphone import Softphone
from bridge.transfer import NOBODY, THEN
from providers.announcer import OwnVoice
from providers.local.speech import RATE, SpeechError
from tests.bridge.test_asterisk_manager import CHANNEL, REFUSED, SET, pbx
from tests.service.doorman import AGREES, ASKS, Cast, Part
from tests.service.household import HELLO, Household, household, listens, until, with_cast
from tests.simulators.openai_realtime import Faults
from visits.visit import LAST_WORDS_S

SENTENCES = tomllib.loads(Path("prompts/sentences.pt-BR.toml").read_text("utf-8"))
WRONG_KEY = (401, b'{"error":{"code":"invalid_api_key"}}')
SECRET = {"AMI_PASSWORD": "s3nh@"}


async def last_turn(house: Household, visit: UUID, leg: str = "visitor") -> dict[str, Any]:
    """What was said last on a leg, as it is on record."""
    turns = [one.data for one in await house.records(visit) if one.kind == "turn" and one.data["leg"] == leg]
    return dict(turns[-1]) if turns else {}


async def told(house: Household, visit: UUID, sentence: str, leg: str = "visitor") -> None:
    """The sentence was heard whole, last of all."""
    last = await last_turn(house, visit, leg)
    assert (last["speaker"], last["text"], last["interrupted"]) == ("agent", SENTENCES[sentence], False)
    assert last["heard_ms"] > 3000


async def hears(phone: Softphone) -> None:
    """Somebody who listens to what comes over the line."""
    await phone.wait_for_speech(timeout_s=10)
    await listens(phone)


@pytest.mark.parametrize("sentence", ["transfer_failed", "goodbye_failed", "goodbye_resident_failed"])
async def test_the_last_words_can_be_said_in_the_time_that_they_have(sentence: str) -> None:
    voice = OwnVoice(None)
    try:
        pcm = await voice.say(SENTENCES[sentence])
    finally:
        voice.close()
    assert len(pcm) / 2 / RATE < LAST_WORDS_S - 0.5


async def test_both_callers_are_told_and_nothing_opens(tmp_path: Path) -> None:
    """In the middle of a consultation, when the network is gone."""
    visit, asked = uuid4(), asyncio.Event()

    async def answers(phone: Softphone) -> None:
        await phone.wait_for_speech(timeout_s=10)
        await until(lambda: house.of(visit, "briefing.played"), what="the briefing")
        asked.set()
        await listens(phone)

    async def visitor(phone: Softphone) -> None:
        await house.greeted(visit)
        await phone.say(HELLO)
        await asked.wait()
        cast.faults.refuse = WRONG_KEY
        for model in cast.doormen:
            await cast.end(model, None)
        await listens(phone)

    async with Cast(Part(ASKS, AGREES)) as cast, household(tmp_path, {"jardim": with_cast(cast)}) as house:
        house.residents[visit] = answers
        phone = await house.visit("jardim", visitor, visit=visit)
        assert phone.closed.result().kind == "hangup"
        assert await house.outcome(visit) == ("failed", "session_lost", None)
        await told(house, visit, "goodbye_failed")
        await told(house, visit, "goodbye_resident_failed", "resident-1")
        kinds = await house.kinds(visit)
        assert "evidence" not in kinds and "gate.requested" not in kinds
        assert kinds.count("briefing.played") == 1
        await until(lambda: not cast.open_connections, what="the end of all connections")


async def test_a_caller_who_hangs_up_does_not_hear_them_out(tmp_path: Path) -> None:
    async with (
        Cast(faults=Faults(refuse=WRONG_KEY)) as cast,
        household(tmp_path, {"jardim": with_cast(cast)}) as house,
    ):
        visit = uuid4()
        async with house.phone("jardim", visit) as phone:
            await phone.wait_for_speech(timeout_s=10)
        assert await house.service.visit_over(visit, 3)
        assert (await last_turn(house, visit)).get("heard_ms", 0) < 3000
        assert (await house.outcome(visit))[:2] == ("failed", "session_lost")


async def test_without_a_voice_of_our_own_the_call_is_hung_up_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def mute(self: OwnVoice, sentence: str) -> bytes:
        raise SpeechError("there is none")

    monkeypatch.setattr(OwnVoice, "say", mute)
    async with (
        Cast(faults=Faults(refuse=WRONG_KEY)) as cast,
        household(tmp_path, {"jardim": with_cast(cast)}) as house,
    ):
        visit = uuid4()
        await house.visit("jardim", listens, visit=visit)
        assert await house.outcome(visit) == ("failed", "session_lost", None)
        assert await last_turn(house, visit) == {}
        assert await lasted_s(house, visit) < 2


async def test_a_voice_that_does_not_come_is_not_waited_for_longer_than_it_may_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(self: OwnVoice, sentence: str) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(OwnVoice, "say", slow)
    monkeypatch.setattr("visits.visit.LAST_WORDS_S", 1.0)
    async with (
        Cast(faults=Faults(refuse=WRONG_KEY)) as cast,
        household(tmp_path, {"jardim": with_cast(cast)}) as house,
    ):
        visit = uuid4()
        await house.visit("jardim", listens, visit=visit)
        assert await house.outcome(visit) == ("failed", "session_lost", None)
        assert 1 < await lasted_s(house, visit) < 3


async def lasted_s(house: Household, visit: UUID) -> float:
    """Seconds from a visit's first record to its last."""
    first, *_, last = await house.records(visit)
    return (datetime.fromisoformat(last.at) - datetime.fromisoformat(first.at)).total_seconds()


@pytest.mark.parametrize("reached", [True, False])
async def test_the_attendant_is_fetched_and_the_visitor_told_so_before_the_hang_up(
    tmp_path: Path, reached: bool
) -> None:
    async with (
        pbx(SET if reached else REFUSED) as (_, here),
        Cast(faults=Faults(refuse=WRONG_KEY)) as cast,
    ):
        own = with_cast(
            cast,
            attendant={"extension": "attendant"},
            manager={"url": f"http://127.0.0.1:{here.port}", "password_env": "AMI_PASSWORD"},
        )
        async with household(tmp_path, {"jardim": own}, environ=SECRET, http_port=0) as house:
            visit = uuid4()
            house.service.register_call(Registration(uuid=visit, tenant="jardim", channel=CHANNEL))
            with capture_logs() as logs:
                phone = await house.visit("jardim", hears, visit=visit)
            assert phone.closed.result().kind == "hangup", "the dialplan goes on with the attendant"
            assert await house.outcome(visit) == ("failed", "session_lost", None)
            await told(house, visit, "transfer_failed" if reached else "goodbye_failed")
            then = [one["Value"] for one in here.asked if one["Variable"] == THEN]
            assert (then == ["attendant"]) is reached and then in (["attendant"], [NOBODY])
            assert [line["ready"] for line in logs if line["event"] == "transfer.answered"] == [reached]
