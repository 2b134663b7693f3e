"""Whatever a provider does, its visit ends failed and closed, in a stated time, and nobody else notices.

The visitor is told so, in a voice of our own.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from structlog.testing import capture_logs

from providers.failover import ASKED_AGAIN_S, LOOK_S, SILENT_S
from tests.service.doorman import AGREES, ASKS, Cast, Part
from tests.service.household import Household, household, listens, until, with_cast
from tests.simulators.openai_realtime import Faults
from visits.visit import LAST_WORDS_S

AT_ONCE_S = 3.0 + LAST_WORDS_S
CONNECT_S = 5.0 + AT_ONCE_S
SORRY = "Desculpe, tive um problema técnico. Por favor, chame de novo."
STALLED_S = 2 * (SILENT_S + LOOK_S) + ASKED_AGAIN_S + LOOK_S + AT_ONCE_S
"""A session, and the one that takes its place."""


@dataclass(frozen=True)
class Failing:
    """A provider that fails, how long its visit may last at most, and what the log says of it."""

    within_s: float
    code: str
    faults: Faults | None = None
    part: Part | None = None


FAILING = {
    "refuses": Failing(AT_ONCE_S, "key", Faults(refuse=(401, b'{"error":{"code":"invalid_api_key"}}'))),
    "quota": Failing(AT_ONCE_S, "quota", Faults(refuse=(429, b'{"error":{"code":"insufficient_quota"}}'))),
    "never-configures": Failing(CONNECT_S, "timeout", Faults(never_configure=True)),
    "breaks-mid-word": Failing(AT_ONCE_S, "went_away", Faults(cut_after=8, cut="abort")),
    "closes-mid-word": Failing(AT_ONCE_S, "went_away", Faults(cut_after=8, cut="close")),
    "sends-half": Failing(AT_ONCE_S, "protocol_error", Faults(cut_after=8, cut="half")),
    "sends-garbage": Failing(AT_ONCE_S, "protocol_error", Faults(cut_after=8, cut="garbage")),
    "stalls-mid-word": Failing(STALLED_S, "stalled", Faults(cut_after=8, cut="stall")),
    "is-deaf": Failing(STALLED_S, "stalled", Faults(deaf=True)),
    "never-greets": Failing(STALLED_S, "stalled", part=Part(mute="Em que posso ajudar")),
}
LONG = Part(exact_ms=3000)
"""Eight events into a connection this greeting is under way."""


def sockets() -> set[str]:
    """This process's sockets."""
    found = set()
    for entry in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{entry}")
        except FileNotFoundError:
            continue  # the directory's own
        if target.startswith("socket:"):
            found.add(target)
    return found


def working(*names: str) -> list[str]:
    """The tasks that belong to a visit, a leg or a session."""
    return [t.get_name() for t in asyncio.all_tasks() if any(name in t.get_name() for name in names)]


async def fails(house: Household, tenant: str) -> float:
    """A visit to a tenant whose provider fails, and who is told of it; how long it lasted."""
    began, visit = asyncio.get_running_loop().time(), uuid4()
    phone = await house.visit(tenant, listens, visit=visit)
    lasted = asyncio.get_running_loop().time() - began
    assert phone.closed.result().kind == "hangup", tenant  # so that the dialplan can go on
    outcome, reason, opened = await house.outcome(visit)
    assert (outcome, reason, opened) == ("failed", "session_lost", None), tenant
    *_, last = [one.data for one in await house.records(visit) if one.kind == "turn"]
    assert (last["speaker"], last["text"], last["interrupted"]) == ("agent", SORRY, False), tenant
    return lasted


async def test_a_provider_that_fails_ends_its_visit_in_time_and_no_other(tmp_path: Path) -> None:
    before, tasks_before = sockets(), asyncio.all_tasks()
    async with AsyncExitStack() as stack:
        tenants = {}
        for name, failing in FAILING.items():
            cast = await stack.enter_async_context(Cast(failing.part or LONG, faults=failing.faults))
            tenants[name] = with_cast(cast)
        closed = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        hole = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        tenants["unreachable"] = {"base_url": f"http://127.0.0.1:{closed.getsockname()[1]}/v1"}
        tenants["answers-nothing"] = {"base_url": f"http://127.0.0.1:{hole.getsockname()[1]}/v1"}
        closed.close()
        good = await stack.enter_async_context(Cast(Part(ASKS, AGREES)))
        tenants["good"] = with_cast(good)
        house = await stack.enter_async_context(household(tmp_path, tenants))

        limits = {name: failing.within_s for name, failing in FAILING.items()}
        limits |= {"unreachable": AT_ONCE_S, "answers-nothing": CONNECT_S}
        well = uuid4()
        with capture_logs() as logs:
            meanwhile = asyncio.create_task(house.visit("good", visit=well))
            lasted = dict(zip(limits, await asyncio.gather(*(fails(house, n) for n in limits)), strict=True))
            await meanwhile
        assert await house.outcome(well) == ("authorized", "opened", True)
        assert {n: s for n, s in lasted.items() if s > limits[n]} == {}

        refused = [line for line in logs if line["event"] == "session.failed" and line["kind"] == "session"]
        assert sorted(line["tenant"] for line in refused) == sorted(limits), "each is told once"
        codes = {line["tenant"]: line["code"] for line in refused}
        assert {
            name: codes[name] for name, failing in FAILING.items() if failing.code not in codes[name]
        } == {}
        told = [line["event"] for line in logs if line["log_level"] == "error"]
        assert told == ["provider.refused"] * 2, "what a person must put right: the key, the quota"

        await until(lambda: not working("visit", "session-"), what="the end of every task of these visits")
        assert house.service.open_legs() == 0
    await until(lambda: not asyncio.all_tasks() - tasks_before, what="the end of every task")
    assert sockets() - before == set()
