"""The embedded model server dies in the middle of a word; and recordings that can't be written."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from bridge.softphone import CallEnded
from tests.service.doorman import Cast
from tests.service.household import Household, household, until, with_cast
from visits.visit import LAST_WORDS_S

ENDS_WITHIN_S = 3.0 + LAST_WORDS_S
BACK_WITHIN_S = 60.0


async def hears_it_speak(house: Household, tenant: str) -> None:
    """Call, hear a second of the greeting, and go."""
    visit = uuid4()
    async with house.phone(tenant, visit) as phone:
        await phone.wait_for_speech(timeout_s=20)
        await asyncio.sleep(1.0)
        assert phone.is_hearing_speech
    assert await house.service.visit_over(visit)
    assert (await house.outcome(visit))[0] == "abandoned"


async def test_a_model_server_that_dies_takes_its_own_visits_with_it_and_comes_back(tmp_path: Path) -> None:
    with (tmp_path / "model.log").open("w") as log:
        async with (
            Cast() as cast,
            household(
                tmp_path,
                {"jardim": {"provider": "local"}, "bosque": with_cast(cast)},
                model_log=log,
            ) as house,
        ):
            server = house.service.model_server
            assert server is not None
            first = server.pid
            assert first is not None
            doomed, sound = uuid4(), uuid4()
            async with house.phone("jardim", doomed) as phone:
                await phone.wait_for_speech(timeout_s=20)
                elsewhere = asyncio.create_task(house.visit("bosque", visit=sound))
                await until(lambda: house.of(sound, "leg.connected"))
                assert phone.is_hearing_speech
                with capture_logs() as logs:
                    os.kill(first, signal.SIGKILL)
                    await until(lambda: house.service.not_ready() == ["model_server_down"])
                    await asyncio.wait({phone.closed}, timeout=ENDS_WITHIN_S)
                    assert phone.closed.done(), "the call went on"
                    assert await house.service.visit_over(doomed, 2)
                    await elsewhere
            assert phone.closed.result().kind == "hangup"
            assert await house.outcome(doomed) == ("failed", "session_lost", None)
            assert await house.outcome(sound) == ("authorized", "opened", True)
            about = [line for line in logs if line["log_level"] in ("warning", "error")]
            told = [line["event"] for line in about if line.get("visit") == str(doomed)]
            assert told[-1] == "session.failed" and set(told[:-1]) == {"session.lost"}
            assert [line["event"] for line in about if line["event"].startswith("model_server")] == [
                "model_server.died"
            ]
            assert [line for line in about if line.get("visit") == str(sound)] == []

            # Whoever calls while it is away is told no tales: the call ends, and is on record as failed.
            meanwhile = uuid4()
            if server.pid is None:
                async with house.phone("jardim", meanwhile) as phone:
                    await asyncio.wait({phone.closed}, timeout=8)
                    assert phone.closed.result().kind == "hangup"
                assert await house.service.visit_over(meanwhile)
                assert (await house.outcome(meanwhile))[0] == "failed"

            await until(lambda: server.ready and server.pid != first, BACK_WITHIN_S, "the restart")
            assert house.service.not_ready() == []
            await hears_it_speak(house, "jardim")
        pid = server.pid
        assert pid is None  # it went with the service
    assert "listening" in (tmp_path / "model.log").read_text()  # its log goes where it is told to go


async def test_a_disk_that_is_full_for_recordings_ends_recordings_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite

    def full(handle: int, data: bytes, offset: int) -> int:
        if offset > 8_000:
            raise OSError(28, "No space left on device")
        return real(handle, data, offset)

    monkeypatch.setattr("bridge.recorder.os.pwrite", full)
    async with (
        Cast() as cast,
        household(tmp_path, {"jardim": with_cast(cast, recording={"enabled": True})}) as house,
    ):
        visit = uuid4()
        try:
            phone = await house.visit("jardim", visit=visit)
        except CallEnded:
            pytest.fail("the call ended with its recording")
        assert phone.closed.result().kind == "hangup"
        assert await house.outcome(visit) == ("authorized", "opened", True)
        failed = [record for record in await house.records(visit) if record.kind == "recording.failed"]
        assert {(r.data["leg"], r.data["reason"]) for r in failed} == {
            ("visitor", "full"),
            ("resident-1", "full"),
        }
