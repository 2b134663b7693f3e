"""Turns by our VAD in OpenAI's protocol, on a real telephone: what is said goes out, and no silence."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from structlog.testing import capture_logs

from bridge.softphone import load_wav
from tests.service.doorman import AGREES, Cast, Part, Turn, call_resident
from tests.service.household import AUDIO, household, until, with_cast
from tests.simulators.openai_realtime import Reply, Say

SPEECH = load_wav(AUDIO / "v21-leticia.wav")
LOCAL = {"turn_detection": {"kind": "local"}}


async def test_a_visit_is_carried_through_and_its_silence_is_not_sold(tmp_path: Path) -> None:
    async with Cast() as cast:
        with capture_logs() as logs:
            async with household(tmp_path, {"jardim": with_cast(cast, **LOCAL)}) as house:
                visit = uuid4()
                await house.visit("jardim", visit=visit)
                assert await house.outcome(visit) == ("authorized", "opened", True)
                said = [one.data["text"] for one in house.of(visit, "turn")]
        assert "Oi, tudo bem?" in said
        spared = [line for line in logs if line["event"] == "session.silence_spared"]
        assert {line["leg"] for line in spared} == {"visitor", "resident-1"}
        for doorman in cast.doormen:
            assert doorman.violations == []
            assert len(doorman.caller) == sum(map(len, doorman.turns.values())), "nothing but turns was sent"
        sent_s = sum(line["sent_s"] for line in spared)
        assert sent_s < 0.4 * (sent_s + sum(line["spared_s"] for line in spared))


async def test_a_visitor_who_speaks_over_us_is_heard_whole(tmp_path: Path) -> None:
    long_reply = Reply((Say(6000, "Pois não? " * 40),))
    part = Part((Turn("Oi.", long_reply), Turn("É uma visita.", call_resident())), AGREES)
    async with Cast(part) as cast:
        async with household(tmp_path, {"jardim": with_cast(cast, **LOCAL)}) as house:
            visit = uuid4()
            async with house.phone("jardim", visit) as phone:
                await house.greeted(visit)
                await phone.say(AUDIO / "v06-leticia.wav")
                doorman = cast.doormen[0]
                await until(lambda: doorman.turns and len(doorman.items) > 1, what="the long reply")
                await phone.wait_for_speech(timeout_s=10)
                phone.say_nowait(SPEECH)
                await until(lambda: house.of(visit, "barge_in"), 5, "the barge-in")
                await until(lambda: len(doorman.turns) == 2, 10, "the second turn")
                await until(lambda: "dialing" in house.states(visit), 10, "the call to the resident")
            await house.service.visit_over(visit)
        over = list(doorman.turns.values())[1]
        assert len(over) / 48 > len(SPEECH) / 16 * 0.8, "the turn came whole"
        assert len(doorman.truncated) == 1 and doorman.violations == []
