"""Visits by chance with every provider at once, while the providers break in every way that is listed.

One real service on real sockets; a tenant for each provider, which another provider takes over from. Between
each adapter and its simulator is a line that breaks (`tests/conformance/line.py`), behind the simulator an
actor who does as chance has it (`actor.py`), and visitors and residents on telephones are no better.
An oracle that knows nothing of the visit's table holds each visit against the seven rules while it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, TextIO
from unittest.mock import patch
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import structlog

import bridge.host
from bridge.dialing.base import DialOrder
from bridge.dialing.simulated import Answers, Resident, SimulatedDialer
from bridge.service import Service
from bridge.softphone import CallEnded, Softphone
from tests.chaos.actor import Actors, resident_act, visitor_act, words
from tests.conformance.line import Fault, Line, Step
from tests.service.household import AUDIO, settings
from tests.simulators import chat_speech, deepgram, elevenlabs, gemini_live, openai_live
from tests.simulators.azure_openai import DEPLOYMENT
from tests.simulators.elevenlabs_thinking import thinking_elevenlabs
from tests.simulators.gemini_thinking import thinking_gemini
from tests.simulators.openai_live_thinking import thinking_live
from tests.simulators.openai_thinking import thinking_azure, thinking_openai, thinking_voicelive
from tests.visits.judged import Judged

AT_A_TIME: Final = 24
LONGEST_S: Final = 60.0
"""A visit may not last longer, whatever happens."""
TROUBLE_EVERY_S: Final = 2.0
"""On average, on each line."""
EXPECTED: Final = {"provider.refused", "record.failed"}
"""Errors in the log: what a provider refuses, and a disk that is slow on a busy machine."""
OUTCOMES: Final = {"authorized", "denied", "unreachable", "abandoned", "failed"}

SAYS: Final = tuple(
    AUDIO / f"{name}.wav" for name in ("r01-leticia", "r02-grave", "r06-leticia", "v07-grave")
)
"""About a second each."""


@dataclass(frozen=True)
class Vendor:
    """A provider's simulator, and how a tenant of it is set up."""

    simulator: Callable[[Any], Any]
    model: str = ""
    path: Callable[[Any], str] = lambda simulator: str(simulator.url)


VENDORS: Final = {
    "openai": Vendor(thinking_openai),
    "azure-openai": Vendor(thinking_azure, DEPLOYMENT, lambda simulator: str(simulator.resource)),
    "azure-voicelive": Vendor(thinking_voicelive, "gpt-5-mini", lambda simulator: str(simulator.resource)),
    "gemini": Vendor(thinking_gemini),
    "elevenlabs": Vendor(thinking_elevenlabs, elevenlabs.AGENT),
    "openai-live": Vendor(thinking_live),
}
KEYS: Final = {
    "OPENAI_API_KEY": openai_live.KEY,
    "AZURE_OPENAI_API_KEY": "azure-key",
    "AZURE_VOICELIVE_API_KEY": "azure-key",
    "GEMINI_API_KEY": gemini_live.KEY,
    "ELEVENLABS_API_KEY": elevenlabs.KEY,
    "DEEPGRAM_API_KEY": deepgram.KEY,
    "CHAT_KEY": chat_speech.KEY,
}


@dataclass
class Found:
    """What came of all visits."""

    outcomes: Counter[str] = field(default_factory=Counter)
    troubles: Counter[str] = field(default_factory=Counter)
    """What was done to the lines."""
    losses: int = 0
    """Sessions that were lost, and replaced or not."""
    opened: int = 0
    """Gates."""
    faults: list[str] = field(default_factory=list)
    """Whatever must never happen, and did."""
    seconds: float = 0.0


class People:
    """Visitors and residents who do as chance has it."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def resident(self, order: DialOrder) -> Resident:
        """Whoever is called."""
        answers = self._chance.choices([Answers.YES, Answers.BUSY, Answers.NO], [8, 1, 1])[0]
        return Resident(answers, rings_s=self._chance.uniform(0, 0.5), talk=self.resident_talks)

    async def visitor_talks(self, phone: Softphone) -> None:
        """Somebody at the gate."""
        with contextlib.suppress(CallEnded, TimeoutError):
            await self._listen(phone)
            for _ in range(self._chance.randint(1, 3)):
                await phone.say(self._chance.choice(SAYS))
                if self._chance.random() < 0.05:
                    phone.send_key("1")
                if self._chance.random() < 0.07:
                    phone.hang_up()
                await asyncio.sleep(self._chance.uniform(0.5, 4))
            await asyncio.wait({phone.closed}, timeout=self._chance.uniform(8, 20))

    async def resident_talks(self, phone: Softphone) -> None:
        """Somebody who picked up."""
        with contextlib.suppress(CallEnded, TimeoutError):
            await self._listen(phone)
            for _ in range(3):
                luck = self._chance.random()
                if luck < 0.15:
                    phone.send_key(self._chance.choice("1112*"))
                elif luck < 0.22:
                    phone.hang_up()
                elif luck < 0.9:
                    await phone.say(self._chance.choice(SAYS))
                await asyncio.sleep(self._chance.uniform(1, 4))
            await asyncio.wait({phone.closed}, timeout=self._chance.uniform(1, 6))

    async def _listen(self, phone: Softphone) -> None:
        """Hear out what is said first, or speak over it."""
        await phone.wait_for_speech(timeout_s=8)
        if self._chance.random() < 0.75:
            await phone.wait_for_quiet(300, timeout_s=12)
        else:
            await asyncio.sleep(self._chance.uniform(0.1, 1.5))


class Trouble:
    """Breaks one line, and its vendor, for as long as it runs."""

    STEPS: Final[tuple[Fault, ...]] = (
        *("abort", "torn", "half", "garbage", "close", "stall"),
        *("twice", "twice", "late", "late"),
    )
    KINDS: Final = (*STEPS, "cut", "refuse", "slow pong", "deaf", "phantom", "going away")

    def __init__(self, line: Line, simulator: Any, chance: random.Random, found: Found) -> None:
        self._line, self._simulator, self._chance, self._found = line, simulator, chance, found

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._chance.expovariate(1 / TROUBLE_EVERY_S))
            if self._line.open:
                await self._make()

    async def _make(self) -> None:
        kind = self._chance.choice(self.KINDS)
        model: Any = self._simulator.models[-1] if self._simulator.models else None
        match kind:
            case "cut":
                self._line.cut()
            case "refuse":
                self._line.mute = True
                await asyncio.sleep(0.5)
                self._line.mute = False
            case "slow pong":
                self._line.pong_delay_s = self._chance.choice([None, 2.0, 30.0])
            case "deaf":
                self._line.deaf = True
                await asyncio.sleep(self._chance.uniform(0.2, 1))
                self._line.deaf = False
                self._line.cut()  # what was lost in the midst of a frame can't be made good
            case "phantom" if hasattr(model, "phantom"):
                model.phantom()
                self._simulator.kick(model)
            case "going away" if hasattr(model, "go_away"):
                model.go_away(self._chance.uniform(1, 8))
                self._simulator.kick(model)
            case "phantom" | "going away":
                return  # a vendor that knows no such thing
            case _:
                code, reason = self._chance.choice([(1008, "policy"), (1011, "internal"), (1000, "bye")])
                after, by = self._chance.randrange(30), self._chance.randint(1, 5)
                fault = next(step for step in self.STEPS if step == kind)
                self._line.then(Step(fault, after=after, by=by, code=code, reason=reason))
        self._found.troubles[kind] += 1


class Office:
    """The services behind a pipeline: a recogniser, a chat, a voice; all of them break."""

    TROUBLES: Final = ("refused", "stall", "cut", "half", "garbage", "error", "deaf", "mute")

    def __init__(self, chance: random.Random, found: Found) -> None:
        self._chance, self._found = chance, found
        self.ears = deepgram.Simulator(hear=self._hear)
        self.mind = chat_speech.Simulator(think=self._think)

    async def _hear(self, pcm: bytes, encoding: str, rate: int) -> str:
        return words(self._chance, self._chance.random() < 0.5)

    async def _think(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[str]) -> chat_speech.Reply:
        said = [str(message["content"]) for message in messages if message["role"] == "user"]
        if "authorize_entry" in tools:
            act = resident_act(self._chance, said[-1] if said else "")
        else:
            made = [call for message in messages for call in message.get("tool_calls") or ()]
            called = any(call["function"]["name"] == "call_resident" for call in made)
            act = visitor_act(self._chance, called)
        if isinstance(act, str):
            return chat_speech.Reply(act)
        return chat_speech.Reply("", (chat_speech.Call(act[0], json.dumps(act[1])),))

    @property
    def account(self) -> dict[str, Any]:
        """In a tenant's settings."""
        ears, mind = self.ears.url, self.mind.url
        return {
            "provider": "pipeline",
            "pipeline": {
                "recognition": {"kind": "deepgram", "base_url": ears},
                "dialogue": {"kind": "chat", "base_url": mind, "model": "gpt-5-mini", "key_env": "CHAT_KEY"},
                "speech": {"kind": "deepgram", "base_url": ears, "voice": "aura-2-celeste-es"},
            },
        }

    async def trouble(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._chance.expovariate(1 / TROUBLE_EVERY_S))
            kind = self._chance.choice(
                ("refused", "stall", "cut", "half", "garbage", "error", "deaf", "mute")
            )
            mind, ears = self.mind.faults, self.ears.faults
            match kind:
                case "refused":
                    mind.refuse = (429, b'{"error":{"code":"rate_limit_exceeded"}}')
                case "deaf":
                    ears.silent = True
                case "mute":
                    ears.speak_stall = True
                case "stall" | "cut" | "half" | "garbage" | "error":
                    mind.after, mind.then = self._chance.randrange(6), kind
            self._found.troubles[f"pipeline {kind}"] += 1
            await asyncio.sleep(self._chance.uniform(0.2, 1.0))
            mind.refuse = mind.after = None
            ears.silent = ears.speak_stall = False


@asynccontextmanager
async def _vendors(
    actors: Actors, chance: random.Random, found: Found
) -> AsyncIterator[dict[str, dict[str, Any]]]:
    """All simulators behind their lines, and the lines breaking. Gives each one's account in settings."""
    async with AsyncExitStack() as stack:
        accounts: dict[str, dict[str, Any]] = {}
        simulators, troubles = [], []
        for name, vendor in VENDORS.items():
            simulator = await stack.enter_async_context(vendor.simulator(actors))
            line = await stack.enter_async_context(Line())
            address = urlsplit(simulator.url)
            assert address.hostname is not None and address.port is not None
            line.server = (address.hostname, address.port)
            # From here on the simulator names the line where it names itself.
            simulator.url = urlunsplit(address._replace(netloc=f"127.0.0.1:{line.port}"))
            accounts[name] = {"provider": name, "model": vendor.model, "base_url": vendor.path(simulator)}
            simulators.append(simulator)
            troubles.append(
                asyncio.create_task(
                    Trouble(line, simulator, random.Random(chance.random()), found).run(), name="trouble"
                )
            )
        office = Office(random.Random(chance.random()), found)
        await stack.enter_async_context(office.ears)
        await stack.enter_async_context(office.mind)
        accounts["pipeline"] = office.account
        troubles.append(asyncio.create_task(office.trouble(), name="trouble"))
        yield accounts
        for trouble in troubles:
            trouble.cancel()
        await asyncio.wait(troubles)
        for trouble in troubles:
            if not trouble.cancelled() and (fault := trouble.exception()) is not None:
                raise fault
        async with asyncio.timeout(10):
            while any(simulator.open_connections for simulator in simulators):
                await asyncio.sleep(0.05)


def _tenants(accounts: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """One for each provider; the next one in the list takes over (a pipeline for nobody)."""
    names = list(accounts)
    return {
        name: {
            **accounts[name],
            "fallback": [accounts[names[(place + 1) % len(VENDORS)]]],
            "dialer": {"kind": "simulated"},
            "limits": {"ring_s": 5.0, "silence_s": 6, "silence_prompts": 1, "max_visit_s": 45},
        }
        for place, name in enumerate(names)
    }


async def run(
    count: int,
    seed: int,
    folder: Path,
    *,
    log: TextIO,
    at_a_time: int = AT_A_TIME,
    say: Callable[[str], None] = lambda line: None,
) -> Found:
    """So many visits, with the choices of that seed as far as time leaves them the same.

    Args:
        folder: for the audit log.
        log: takes what the model server says.
        at_a_time: so many visits run beside each other.
        say: is told how it goes.

    Returns what came of them; `Found.faults` is empty where all was as it must be.
    """
    chance, found = random.Random(seed), Found()
    before, sockets_before = asyncio.all_tasks(), _sockets()
    asyncio.get_running_loop().set_exception_handler(partial(_nobody_caught, found))
    began = time.monotonic()
    actors, people = Actors(chance), People(chance)
    judged: dict[str, Judged] = {}
    with patch.object(bridge.host, "Visit", Judged.kept_in(judged)), _errors(found):
        async with _vendors(actors, chance, found) as accounts:
            tenants = _tenants(accounts)
            service = Service(
                settings(folder, tenants, KEYS, max_calls=4 * at_a_time, models_dir=str(folder / "none")),
                dialers={name: SimulatedDialer(people.resident) for name in tenants},
                model_log=log,
            )
            await service.start()
            try:
                visits = list(itertools.islice(itertools.cycle(tenants), count))
                places = asyncio.Semaphore(at_a_time)
                await _visit_all(service, visits, places, people, chance, found, judged, say)
            finally:
                await service.stop()
        actors.close()
    found.seconds = time.monotonic() - began
    await _look_for_leaks(before, sockets_before, found)
    return found


async def _visit_all(
    service: Service,
    visits: Sequence[str],
    places: asyncio.Semaphore,
    people: People,
    chance: random.Random,
    found: Found,
    judged: Mapping[str, Judged],
    say: Callable[[str], None],
) -> None:
    done = 0

    async def one(tenant: str) -> None:
        nonlocal done
        async with places:
            await asyncio.sleep(chance.uniform(0, 0.5))
            await _visit(service, tenant, people, found, judged)
        done += 1
        if done % 50 == 0:
            say(f"{done} visits, {found.losses} sessions lost, {len(found.faults)} faults")

    async with asyncio.TaskGroup() as group:
        for tenant in visits:
            group.create_task(one(tenant))
    found.faults += [f"the audit log: {fault}" for fault in await service.storage.verify()]


async def _visit(
    service: Service, tenant: str, people: People, found: Found, judged: Mapping[str, Judged]
) -> None:
    visit = uuid4()
    name = f"{tenant} {visit}"
    with contextlib.suppress(CallEnded):
        async with Softphone("127.0.0.1", service.ports(tenant)[0], visit) as phone:
            try:
                async with asyncio.timeout(LONGEST_S):
                    await people.visitor_talks(phone)
            except TimeoutError:
                found.faults.append(f"{name}: the call lasted {LONGEST_S:g} s")
    if not await service.visit_over(visit, LONGEST_S):
        found.faults.append(f"{name}: it never ended")
        return
    records = [record async for record in service.storage.audit(visit=str(visit))]
    kinds = Counter(record.kind for record in records)
    found.losses += kinds["session.lost"]
    view = await service.storage.visit(str(visit))
    if view is None:
        found.faults.append(f"{name}: it is not on record")
        return
    outcome = view.summary.outcome or ""
    found.outcomes[outcome] += 1
    opened = kinds["gate.requested"]
    found.opened += opened
    one = judged[str(visit)]
    found.faults += [f"{name}: {fault}" for fault in one.faults]
    if outcome not in OUTCOMES:
        found.faults.append(f"{name}: ended as {outcome!r}")
    if opened != one.oracle.orders or opened > 1:
        found.faults.append(f"{name}: the gate was asked {opened} times, ordered {one.oracle.orders} times")
    if opened != (outcome == "authorized"):
        found.faults.append(f"{name}: {outcome}, and the gate was asked {opened} times")
    if records[0].kind != "visit.started" or records[-1].kind != "visit.ended":
        found.faults.append(f"{name}: on record from {records[0].kind} to {records[-1].kind}")


def _nobody_caught(found: Found, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    fault = context.get("exception")
    where = "".join(traceback.format_exception(fault)) if fault is not None else ""
    found.faults.append(f"{context['message']}\n{where}")


@contextmanager
def _errors(found: Found) -> Iterator[None]:
    """Any other error in the log is a fault of ours."""

    def note(logger: Any, level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if level in ("error", "critical", "exception") and event["event"] not in EXPECTED:
            fault = event.get("exc_info")
            trace = traceback.format_exception(fault) if isinstance(fault, BaseException) else ()
            found.faults.append(f"logged: {event}\n{''.join(trace)}")
        return event

    before = structlog.get_config()
    structlog.configure(processors=[note, *before["processors"]])
    try:
        yield
    finally:
        structlog.configure(**before)


def _sockets() -> int:
    """How many this process has open."""
    count = 0
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the directory's own
            count += os.readlink(f"/proc/self/fd/{entry}").startswith("socket:")
    return count


async def _look_for_leaks(before: set[asyncio.Task[Any]], sockets: int, found: Found) -> None:
    """Five seconds for everything to be gone."""
    until = time.monotonic() + 5
    while (left := asyncio.all_tasks() - before) and time.monotonic() < until:
        await asyncio.sleep(0.05)
    found.faults += sorted(f"a task is left: {task.get_name()}" for task in left)
    if (now := _sockets()) > sockets:
        found.faults.append(f"{now - sockets} sockets are left")
