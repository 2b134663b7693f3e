"""`porteiro serve` as a process: how it drains, stops and comes back, and what its log gives away."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from bridge.softphone import Softphone
from storage.sqlite import SqliteStorage
from tests.service.doorman import Cast, Part
from tests.service.household import ROOT
from tests.service.served import (
    PART,
    PRIVATE,
    Served,
    hears_the_briefing,
    read,
    serving,
    until_consulted,
)


async def a_signal_lets_the_running_visit_end_and_takes_no_other(tmp_path: Path, cast: Cast) -> None:
    visit = uuid4()
    async with serving(tmp_path, cast) as served:
        async with await served.phone(visit) as visitor:
            resident = await until_consulted(served, visitor)
            served.process.send_signal(signal.SIGTERM)
            await served.line("service.draining")
            with pytest.raises(ConnectionError):
                async with await served.phone(uuid4()):
                    pass
            async with resident:  # whom the visit called is still let in
                await hears_the_briefing(resident)
                await resident.say(ROOT / "data" / "audio" / "r03-leticia.wav")
                await asyncio.wait({visitor.closed}, timeout=20)
                assert visitor.closed.result().kind == "hangup"
        assert await served.ends(10) == 0
        assert [line["event"] for line in served.lines()][-1] == "service.stopped"
        check_log(served, visit)
        await check_people(served, tmp_path, visit)
    kinds, last = await read(tmp_path, visit)
    assert kinds.count("gate.answered") == 1
    assert last["outcome"] == "authorized"


async def check_people(served: Served, place: Path, visit: UUID) -> None:
    """What the audit log has of people is in no other; each leg is told first that it is recorded."""
    log = "\n".join(json.dumps(line, ensure_ascii=False) for line in served.lines())
    said: list[str] = []
    first: dict[str, str] = {}
    async with await SqliteStorage.open(place / "data" / "porteiro.db", read_only=True) as storage:
        async for record in storage.audit(visit=str(visit)):
            data = record.data
            if record.kind == "turn" and data["speaker"] == "agent":
                first.setdefault(data["leg"], data["text"])
                assert data["text"] not in log
            elif record.kind in ("turn", "evidence"):
                said.append(data.get("text", ""))
            elif record.kind == "visit.ended":
                said += [data["visitor_name"], data["resident"]]
    words = {word for text in said for word in re.findall(r"\w{4,}", text)}
    assert {"Berenice", "jabuticabas", "Oliveira", "liberar"} <= words
    assert {word for word in words if re.search(rf"\b{word}\b", log, re.IGNORECASE)} == set()
    assert first.keys() == {"visitor", "resident-1"}
    assert all("Esta ligação é gravada." in text for text in first.values())
    for file in (place / "data").rglob("*"):
        assert not file.is_file() or b"a-secret-key" not in file.read_bytes()


def check_log(served: Served, visit: UUID) -> None:
    """The log of a whole visit: ids on its lines, and nothing of what was said or of who said it."""
    text = "\n".join(json.dumps(line, ensure_ascii=False) for line in served.lines())
    told = {word for word in PRIVATE if re.search(rf"\b{word}\b", text, re.IGNORECASE)}
    assert told == set()
    assert "a-secret-key" not in text
    apart = {"service.ready", "service.draining", "service.stopped", "tenant.open", "clock.stood_still"}
    of_visit = [line for line in served.lines() if line["event"] not in apart]
    assert {"leg.closed", "gate.answered", "dial.waiting_for_somebody"} <= {x["event"] for x in of_visit}
    for line in of_visit:
        assert (line["visit"], line["tenant"]) == (str(visit), "jardim"), line
    for event in ("leg.opened", "leg.closed", "audiosocket.closed"):
        assert {line["leg"] for line in of_visit if line["event"] == event} == {"visitor", "resident-1"}
    calls = {line["call_id"] for line in of_visit if line["event"] == "leg.opened"}
    assert calls == {line["call_id"] for line in of_visit if line["event"] == "audiosocket.closed"}


async def a_second_signal_ends_everything_closed(tmp_path: Path, cast: Cast) -> None:
    visit = uuid4()
    async with serving(tmp_path, cast) as served:
        async with await served.phone(visit) as visitor:
            resident = await until_consulted(served, visitor)
            async with resident:
                await hears_the_briefing(resident)
                served.process.send_signal(signal.SIGTERM)
                await served.line("service.draining")
                began = asyncio.get_running_loop().time()
                served.process.send_signal(signal.SIGTERM)
                await asyncio.wait({visitor.closed, resident.closed}, timeout=10)
                assert visitor.closed.result().kind == resident.closed.result().kind == "hangup"
        assert await served.ends(5) == 0
        assert asyncio.get_running_loop().time() - began < 4
    kinds, last = await read(tmp_path, visit)
    assert "gate.requested" not in kinds
    assert (last["outcome"], last["reason"]) == ("failed", "the service stops")


async def a_second_signal_does_not_wait_for_a_model_that_is_stuck(tmp_path: Path, _: Cast) -> None:
    visit = uuid4()
    async with (
        Cast(Part(exact_ms=60_000)) as cast,
        serving(tmp_path, cast) as served,
        await served.phone(visit) as visitor,
    ):
        await visitor.wait_for_speech(timeout_s=15)
        served.process.send_signal(signal.SIGTERM)
        await served.line("service.draining")
        served.process.send_signal(signal.SIGTERM)
        assert await served.ends(15) == 0
        await asyncio.wait({visitor.closed}, timeout=2)
        assert visitor.closed.result().kind == "hangup"
    kinds, last = await read(tmp_path, visit)
    assert kinds[-1] == "visit.ended"
    assert last["outcome"] == "failed"


async def a_kill_leaves_a_visit_that_the_next_start_closes(tmp_path: Path, cast: Cast) -> None:
    visit = uuid4()
    async with serving(tmp_path, cast, "first") as served:
        async with await served.phone(visit) as visitor:
            resident = await until_consulted(served, visitor)
            async with resident:
                await hears_the_briefing(resident)
                served.process.kill()
                await asyncio.wait({visitor.closed, resident.closed}, timeout=5)
                assert not visitor.closed.result().orderly
        await served.ends(5)
    before, _ = await read(tmp_path, visit)
    assert before[-1] != "visit.ended"
    async with serving(tmp_path, cast, "second") as served:
        recovered = await served.line("visits.recovered")
        assert recovered["visits"] == [str(visit)]
        # The old attempt's id is worth nothing to the new process.
        (line,) = served.lines("tenant.open")
        async with Softphone("127.0.0.1", line["resident_port"], resident.call_id) as late:
            await asyncio.wait({late.closed}, timeout=3)
            assert late.closed.result().kind == "hangup"
        served.process.send_signal(signal.SIGTERM)
        assert await served.ends(10) == 0
    kinds, last = await read(tmp_path, visit)
    assert kinds[:-2] == before
    assert kinds[-2:] == ["visit.recovered", "visit.ended"]
    assert last["outcome"] == "failed"
    assert not {"decision", "gate.requested", "gate.answered"} & set(kinds)


async def test_every_way_to_stop(tmp_path: Path) -> None:
    """All at once, each with a process and a provider of its own: most of it is waiting."""
    ways = (
        a_signal_lets_the_running_visit_end_and_takes_no_other,
        a_second_signal_ends_everything_closed,
        a_second_signal_does_not_wait_for_a_model_that_is_stuck,
        a_kill_leaves_a_visit_that_the_next_start_closes,
    )
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:  # the processes end before the casts
        for way in ways:
            place = tmp_path / way.__name__
            place.mkdir()
            cast = await stack.enter_async_context(Cast(PART))
            group.create_task(way(place, cast))
