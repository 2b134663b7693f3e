"""A provider that vouches for every word of the briefing but sends next to no sound has briefed nobody."""

from pathlib import Path
from uuid import uuid4

from structlog.testing import capture_logs

from tests.service.doorman import AGREES, ASKS, Cast, Part
from tests.service.household import household, with_cast


async def test_words_without_their_sound_are_no_briefing_and_no_key_opens(tmp_path: Path) -> None:
    visit = uuid4()
    async with (
        Cast(Part(ASKS, AGREES, rushed=True)) as cast,
        household(tmp_path, {"jardim": with_cast(cast)}) as house,
    ):
        with capture_logs() as logs:
            await house.visit("jardim", visit=visit)  # the resident presses 1 after the first of them
        assert await house.outcome(visit) == ("unreachable", "briefing_not_heard", None)
        kinds = [record.kind for record in await house.records(visit)]
    assert "briefing.played" not in kinds and "gate.requested" not in kinds
    short = [line for line in logs if line["event"] == "sentence.too_short"]
    assert sum(line["characters"] > 100 and line["heard_ms"] < 1000 for line in short) == 3
