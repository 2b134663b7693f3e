"""The demo's visits with every provider: recorded speech, the real service, each adapter over its simulator.

One service, a tenant for each provider. Where speech must be understood the local model server's recognition
and dialogue stand behind the simulators (`tests/simulators/brain.py`); in all else they are as strict as in
their own tests. An oracle holds each visit against the seven rules while it runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import bridge.host
import bridge.model_servers
from bridge.demo.script import Barge, Say, Step
from bridge.demo.stage import DATA, Cast, Stage
from bridge.model_server import ModelServerAddress, ModelServerProcess
from providers import elevenlabs_conversation, failover, gemini_conversation, openai_live_conversation
from tests.service.household import settings, until
from tests.simulators import elevenlabs, gemini_live, openai_live
from tests.simulators.azure_openai import DEPLOYMENT
from tests.simulators.brain import Brains
from tests.simulators.elevenlabs_thinking import thinking_elevenlabs
from tests.simulators.gemini_thinking import thinking_gemini
from tests.simulators.openai_live_thinking import thinking_live
from tests.simulators.openai_thinking import thinking_azure, thinking_openai, thinking_voicelive
from tests.visits.judged import Judged

AT_A_TIME = 5
APART_S = 3.0
"""Between the beginnings of two visits: what their people say is then not recognised at the same moment."""
PATIENCE_S = 40.0
PATIENT = (
    (failover, "SILENT_S"),
    (gemini_conversation, "_START_S"),
    (gemini_conversation, "_WORDS_S"),
    (elevenlabs_conversation, "_START_S"),
    (elevenlabs_conversation, "_WORDS_S"),
    (openai_live_conversation, "_START_S"),
    (openai_live_conversation, "_REPLY_S"),
    (openai_live_conversation, "_WORDS_S"),
)
"""What waits for a vendor's words and replies waits so long here: two busy cores take longer to hear than any
vendor does."""

pytestmark = pytest.mark.timeout(900)


@dataclass(frozen=True)
class Vendor:
    """A provider's simulator, and how a tenant of it is set up.

    Attributes:
        simulator: None: our own model server, which is no simulator.
        resource: the tenant is told the address of a resource.
        own_turns: our VAD says when a turn is over, and not the provider's.
    """

    simulator: Callable[[Brains], Any] | None = None
    model: str = ""
    resource: bool = False
    own_turns: bool = False

    def settings(self, name: str, simulator: Any) -> dict[str, Any]:
        """Of its tenant."""
        tenant: dict[str, Any] = {"provider": name, "model": self.model, "recording": {"enabled": True}}
        if self.own_turns:
            tenant |= {"provider": name.removesuffix(OWN_TURNS), "turn_detection": {"kind": "local"}}
        if simulator is not None:
            tenant["base_url"] = simulator.resource if self.resource else simulator.url
        return tenant


OWN_TURNS = "-own-turns"
VENDORS = {
    "openai": Vendor(thinking_openai),
    f"openai{OWN_TURNS}": Vendor(thinking_openai, own_turns=True),
    "azure-openai": Vendor(thinking_azure, DEPLOYMENT, resource=True),
    "azure-voicelive": Vendor(thinking_voicelive, "gpt-5-mini", resource=True),
    "gemini": Vendor(thinking_gemini),
    "elevenlabs": Vendor(thinking_elevenlabs, elevenlabs.AGENT),
    "openai-live": Vendor(thinking_live),
    "pipeline": Vendor(),
}
KEYS = {
    "OPENAI_API_KEY": openai_live.KEY,
    "AZURE_OPENAI_API_KEY": "azure-key",
    "AZURE_VOICELIVE_API_KEY": "azure-key",
    "GEMINI_API_KEY": gemini_live.KEY,
    "ELEVENLABS_API_KEY": elevenlabs.KEY,
}
AUDIO = DATA / "audio"


@dataclass(frozen=True)
class Scene:
    """Who says what."""

    visitor: Sequence[Step]
    resident: Sequence[Step]


def _say(*names: str) -> list[Step]:
    return [Say(AUDIO / f"{name}.wav") for name in names]


VISITOR = AUDIO / "v04-leticia.wav"
SCENES = {
    "authorized": Scene([Say(VISITOR), *_say("v03-leticia")], _say("r03-leticia")),
    # The visitor interrupts the greeting.
    "denied": Scene([Barge(VISITOR, 1500), *_say("v03-leticia")], _say("r04-leticia")),
}
"""By their outcome. A provider whose recogniser can't be told what to expect understands these as well."""


JUDGED: dict[str, Judged] = {}
"""By the visit's id."""


@dataclass
class Played:
    """What came of all visits."""

    visits: dict[tuple[str, str], Mapping[str, Any]]
    kinds: dict[str, list[str]]
    """The kinds of a visit's records, by its id."""
    violations: dict[str, list[str]]
    """What a vendor would have refused, by provider."""
    refusals: list[str]
    """What the model server refused a brain."""
    left: list[str]
    """Tasks that outlived the service."""


class Shared(ModelServerProcess):
    """The service's own model server, which serves the brains as well."""

    async def start(self) -> ModelServerAddress:
        """See :class:`bridge.model_server.ModelServerProcess`."""
        address = await super().start()
        ADDRESS.get().set_result(address)
        return address


ADDRESS: ContextVar[asyncio.Future[ModelServerAddress]] = ContextVar("address")
"""Of the running service's model server."""


@asynccontextmanager
async def _vendors(brains: Brains) -> AsyncIterator[dict[str, Any]]:
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(vendor.simulator(brains))
            for name, vendor in VENDORS.items()
            if vendor.simulator is not None
        }


async def _play(stage: Stage, played: Played) -> None:
    places, door = asyncio.Semaphore(AT_A_TIME), asyncio.Lock()

    async def play(provider: str, outcome: str) -> None:
        async with places:
            async with door:
                await asyncio.sleep(APART_S)
            scene = SCENES[outcome]
            visit = await stage.play(Cast(scene.visitor, scene.resident), provider)
        audit = stage.service.storage.audit(visit=visit["visit_id"])
        played.visits[provider, outcome] = visit
        played.kinds[visit["visit_id"]] = [record.kind async for record in audit]

    async with asyncio.TaskGroup() as group:
        for outcome in SCENES:
            for provider in VENDORS:
                group.create_task(play(provider, outcome))


async def _play_all(out: Path) -> Played:
    played = Played({}, {}, {}, [], [])
    address: asyncio.Future[ModelServerAddress] = asyncio.get_running_loop().create_future()
    ADDRESS.set(address)
    before = asyncio.all_tasks()
    with (out / "model.log").open("w") as log:
        async with Brains(address) as brains, _vendors(brains) as vendors:
            tenants = {name: each.settings(name, vendors.get(name)) for name, each in VENDORS.items()}
            tenants["brains"] = {"provider": "local"}  # the model server has what they need
            async with Stage(settings(out, tenants, KEYS), log=log) as stage:
                await _play(stage, played)
                await until(lambda: not any(each.open_connections for each in vendors.values()))
                await brains.end()
            played.refusals = brains.refusals
            for name, vendor in vendors.items():
                played.violations[name] = [one for model in vendor.models for one in model.violations]
    played.left = sorted(task.get_name() for task in asyncio.all_tasks() - before)
    return played


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """Every visit with every provider."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bridge.host, "Visit", Judged.kept_in(JUDGED))
        patch.setattr(bridge.model_servers, "ModelServerProcess", Shared)
        for module, name in PATIENT:
            patch.setattr(module, name, PATIENCE_S)
        return asyncio.run(_play_all(tmp_path_factory.mktemp("providers")))


@pytest.mark.parametrize("outcome", SCENES)
@pytest.mark.parametrize("provider", VENDORS)
def test_a_recorded_visit_ends_the_same_with_each_provider(
    provider: str, outcome: str, played: Played
) -> None:
    visit = played.visits[provider, outcome]
    told = "\n".join(f"{turn['leg']} {turn['speaker']}: {turn['text']}" for turn in visit["turns"])
    kinds = played.kinds[visit["visit_id"]]
    opens = outcome == "authorized"
    assert (visit["outcome"], visit["gate_opened"]) == (outcome, opens), told
    assert (visit["intent"], visit["apartment"]) == ("visita", "102"), told
    assert (visit["resident"], visit["visitor_name"]) == ("Carlos Oliveira", "Pedro da Silva"), told
    assert bool(visit["barge_ins"]) is any(isinstance(step, Barge) for step in SCENES[outcome].visitor)
    assert kinds.count("gate.requested") == kinds.count("gate.answered") == opens, "asked once, or never"
    assert "session.lost" not in kinds
    assert visit["audit_ok"]
    judged = JUDGED[visit["visit_id"]]
    assert judged.faults == [] and judged.oracle.orders == opens
    assert judged.oracle.heard_briefing_at is not None


@pytest.mark.parametrize("provider", [name for name, each in VENDORS.items() if each.simulator is not None])
def test_the_vendor_had_no_reason_to_refuse_anything(provider: str, played: Played) -> None:
    assert played.violations[provider] == []


def test_nothing_is_left_and_every_brain_understood_its_simulator(played: Played) -> None:
    assert played.left == []
    assert played.refusals == []
