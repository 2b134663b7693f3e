"""Visitor and resident talk to each other through us: both hear, the models do not, and a key decides.

The two are told apart by tones; each telephone's ear and each leg's recording is asked which of them it got.
"""

from __future__ import annotations

import asyncio
import base64
import wave
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from bridge.softphone import Softphone, load_wav
from providers.formats import PCM_RATE
from tests.service.doorman import AGREES, ASKS, Cast, Doorman, Part, Turn
from tests.service.household import HELLO, Household, household, spoken_by_host, until, with_cast
from tests.simulators.openai_realtime import Call, Message, Reply

VISITOR_HZ, RESIDENT_HZ = 700.0, 1100.0
ENOUGH_S = 0.5
"""Of a tone of four seconds: a loaded machine may lose some, and nothing here rests on how much."""
TALK_S = 4.0
CONNECT = Turn("Deixa eu falar com ele.", Reply((Call("connect_parties", "{}"),)))

Samples = npt.NDArray[np.float64]
Resident = Callable[["Scene", Softphone], Awaitable[None]]


def tone(hz: float, seconds: float) -> bytes:
    """A telephone's tone."""
    at = np.arange(round(seconds * 8000)) / 8000
    return (8000 * np.sin(2 * np.pi * hz * at)).astype("<i2").tobytes()


def seconds_of(hz: float, samples: Samples) -> float:
    """For how long a tone is heard: frames of 20 ms in which it is most of what sounds."""
    frames = samples[: len(samples) // 160 * 160].reshape(-1, 160)
    at = np.arange(160) / 8000
    amplitude = 2 * np.abs(frames @ np.exp(-2j * np.pi * hz * at)) / 160
    return float((amplitude > 4000).sum()) * 0.02


def pcm(raw: bytes | bytearray) -> Samples:
    """Samples as numbers."""
    return np.frombuffer(bytes(raw), "<i2").astype(np.float64)


class Listening(Doorman):
    """A doorman that keeps all that he is given to hear."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.ears = bytearray()

    def _on_input_audio_buffer_append(self, message: Message) -> None:
        self.ears += base64.b64decode(message["audio"])
        super()._on_input_audio_buffer_append(message)

    def heard(self, hz: float) -> float:
        """For how long a tone was given to him."""
        return seconds_of(hz, pcm(self.ears)[:: PCM_RATE // 8000])


class Scene:
    """One visit, of a tenant with a provider of its own."""

    def __init__(self, house: Household, cast: Cast, tenant: str) -> None:
        self.house, self.cast, self.tenant = house, cast, tenant
        self.id = uuid4()
        self.visitor: Softphone
        self.resident: Softphone

    async def play(self, resident: Resident, visitor: Resident | None = None) -> None:
        """From the ring to the end."""

        async def talk(phone: Softphone) -> None:
            self.resident = phone
            await phone.wait_for_speech(timeout_s=15)
            await phone.wait_for_quiet(250, timeout_s=20)
            await phone.say(HELLO)
            await self.seen("parties.connected")
            await resident(self, phone)
            await asyncio.wait({phone.closed})

        self.house.residents[self.id] = talk
        async with self.house.phone(self.tenant, self.id) as phone:
            self.visitor = phone
            await self.house.greeted(self.id)
            await phone.say(HELLO)
            await self.seen("parties.connected", 30)
            if visitor is not None:
                await visitor(self, phone)
            async with asyncio.timeout(60):
                await asyncio.wait({phone.closed})
        assert await self.house.service.visit_over(self.id, 10)
        for doorman in self.doormen:
            assert doorman.violations == []

    @property
    def doormen(self) -> Sequence[Listening]:
        """The two models."""
        return [one for one in self.cast.doormen if isinstance(one, Listening)]

    async def seen(self, kind: str, timeout_s: float = 20.0) -> None:
        """Wait until it is on record."""
        await until(lambda: self.house.of(self.id, kind), timeout_s, kind)

    async def data(self, kind: str) -> list[dict[str, Any]]:
        """What the records of a kind say."""
        return [dict(record.data) for record in await self.house.records(self.id) if record.kind == kind]

    async def recording(self, leg: str) -> tuple[Samples, Samples]:
        """What a leg's recording has: of the caller, and of what the caller heard."""
        (name,) = [one["recording"] for one in await self.data("recording.closed") if one["leg"] == leg]
        root = self.house.service.settings.service.recordings_path
        return await asyncio.to_thread(both_sides, root / name)


def both_sides(path: Path) -> tuple[Samples, Samples]:
    """The two channels of a recording."""
    with wave.open(str(path)) as file:
        assert file.getnchannels() == 2
        both = pcm(file.readframes(file.getnframes())).reshape(-1, 2)
    return both[:, 0], both[:, 1]


async def hears(phone: Softphone, hz: float) -> None:
    """Wait until a telephone has heard enough of a tone."""
    async with asyncio.timeout(20):
        while seconds_of(hz, pcm(phone.heard[-16_000:])) < ENOUGH_S:
            await asyncio.sleep(0.1)


async def talks_and_presses(scene: Scene, phone: Softphone, key: str) -> None:
    """Both talk at once until both have heard the other; once that is quiet the resident presses a key."""
    phone.say_nowait(tone(RESIDENT_HZ, TALK_S))
    scene.visitor.say_nowait(tone(VISITOR_HZ, TALK_S))
    await asyncio.gather(hears(phone, VISITOR_HZ), hears(scene.visitor, RESIDENT_HZ))
    phone.be_silent()
    scene.visitor.be_silent()
    await phone.wait_for_quiet(300, timeout_s=10)
    phone.send_key(key)


def heard_by_each(scene: Scene) -> None:
    """Each heard the other's tone, and not their own."""
    for phone, other, own in (
        (scene.visitor, RESIDENT_HZ, VISITOR_HZ),
        (scene.resident, VISITOR_HZ, RESIDENT_HZ),
    ):
        heard = pcm(phone.heard)
        assert ENOUGH_S <= seconds_of(other, heard) <= TALK_S + 0.02
        assert seconds_of(own, heard) == 0.0


async def authorizes(scene: Scene) -> None:
    await scene.play(lambda s, p: talks_and_presses(s, p, "1"))
    assert await scene.house.outcome(scene.id) == ("authorized", "opened", True)
    heard_by_each(scene)
    for doorman in scene.doormen:
        assert doorman.heard(VISITOR_HZ) == doorman.heard(RESIDENT_HZ) == 0.0, "a model heard them"
    visitor, heard = await scene.recording("visitor")
    assert min(seconds_of(VISITOR_HZ, visitor), seconds_of(RESIDENT_HZ, heard)) >= ENOUGH_S
    resident, heard = await scene.recording("resident-1")
    assert min(seconds_of(RESIDENT_HZ, resident), seconds_of(VISITOR_HZ, heard)) >= ENOUGH_S
    kinds = await scene.house.kinds(scene.id)
    order = ["parties.connected", "parties.ended", "evidence", "decision", "gate.requested", "gate.answered"]
    assert [kind for kind in kinds if kind in order] == order
    (ended,) = await scene.data("parties.ended")
    assert ended["reason"] == "authorized" and ENOUGH_S < ended["seconds"] <= 20
    (evidence,) = await scene.data("evidence")
    assert (evidence["by"], evidence["key"], evidence["attempt"]) == ("key", "1", ended["attempt"])
    tool = [one for one in await scene.data("tool.answered") if one["name"] == "connect_parties"]
    assert [one["status"] for one in tool] == ["connecting"]
    said = spoken_by_host(scene.cast, "resident")
    assert any("Tecle 1 para autorizar, 2 para negar, ou 0 para voltar" in text for text in said)
    assert any("quer falar com você" in text for text in spoken_by_host(scene.cast, "visitor"))


async def denies(scene: Scene) -> None:
    await scene.play(lambda s, p: talks_and_presses(s, p, "2"))
    assert await scene.house.outcome(scene.id) == ("denied", "resident_refused", None)
    heard_by_each(scene)
    assert not await scene.data("gate.requested")


async def comes_back(scene: Scene) -> None:
    """By key, is asked again, and says yes: words count again, and the models hear again."""

    async def back(scene: Scene, phone: Softphone) -> None:
        await talks_and_presses(scene, phone, "0")
        await scene.seen("parties.ended")
        await phone.wait_for_speech(timeout_s=10)
        await phone.wait_for_quiet(400, timeout_s=20)
        before.append(seconds_of(RESIDENT_HZ, pcm(scene.visitor.heard)))
        await phone.say(tone(RESIDENT_HZ, 0.4) + load_wav(HELLO))

    before: list[float] = []
    await scene.play(back)
    assert await scene.house.outcome(scene.id) == ("authorized", "opened", True)
    (evidence,) = await scene.data("evidence")
    assert (evidence["by"], evidence["text"]) == ("voice", "Pode liberar.")
    assert [one["reason"] for one in await scene.data("parties.ended")] == ["resident_key"]
    states = scene.house.states(scene.id)
    assert states[states.index("connected") :][:3] == ["connected", "consulting", "authorized"]
    by_role = {doorman.role: doorman for doorman in scene.doormen}
    assert 0 < by_role["resident"].heard(RESIDENT_HZ) <= 0.42, "what was said to the doorman, and no more"
    assert [seconds_of(RESIDENT_HZ, pcm(scene.visitor.heard))] == before, "the visitor hears it no more"


async def visitor_leaves(scene: Scene) -> None:
    async def leaves(_: Scene, phone: Softphone) -> None:
        await phone.say(tone(VISITOR_HZ, 0.2))
        phone.hang_up()

    async def listens(*_: object) -> None:
        pass

    await scene.play(listens, leaves)
    assert (await scene.house.outcome(scene.id))[:2] == ("abandoned", "visitor_hung_up")
    assert [one["reason"] for one in await scene.data("parties.ended")] == ["visitor_hung_up"]


async def resident_leaves(scene: Scene) -> None:
    async def leaves(_: Scene, phone: Softphone) -> None:
        phone.hang_up()

    await scene.play(leaves)
    assert (await scene.house.outcome(scene.id))[:2] == ("unreachable", "resident_hung_up")
    assert not await scene.data("gate.requested")


async def talks_too_long(scene: Scene) -> None:
    """The end is announced to both, who go on hearing each other afterwards; then the resident is asked."""

    async def talks_on(scene: Scene, phone: Softphone) -> None:
        await until(lambda: said(scene, "resident", "termina em alguns segundos"), 15, "the announcement")
        await phone.wait_for_speech(timeout_s=10)
        await phone.wait_for_quiet(300, timeout_s=10)
        phone.say_nowait(tone(RESIDENT_HZ, TALK_S))
        await hears(scene.visitor, RESIDENT_HZ)
        await scene.seen("parties.ended", 25)
        phone.hang_up()

    await scene.play(talks_on)
    assert said(scene, "visitor", "termina em alguns segundos")
    (ended,) = await scene.data("parties.ended")
    assert ended["reason"] == "time_limit" and ended["seconds"] >= 19.9
    assert (await scene.house.outcome(scene.id))[:2] == ("unreachable", "resident_hung_up")


def said(scene: Scene, role: str, words: str) -> bool:
    """Whether the host said so on a leg."""
    return any(words in text for text in spoken_by_host(scene.cast, role))


NO_ECHO = {"mode": "none"}
"""These telephones have none, and pure tones are nothing to learn an echo's way from."""
LIMITS = {"ring_s": 5.0, "connected_s": 20.0}
SCENES = (authorizes, denies, comes_back, visitor_leaves, resident_leaves, talks_too_long)


async def test_the_two_talk_and_a_key_decides(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        part = Part(ASKS, (CONNECT, *AGREES))
        casts = [await stack.enter_async_context(Cast(part, model=Listening)) for _ in SCENES]
        tenants = {
            f"lane-{n}": with_cast(cast, limits=LIMITS, recording={"enabled": True}, echo=NO_ECHO)
            for n, cast in enumerate(casts)
        }
        house = await stack.enter_async_context(household(tmp_path, tenants))
        async with asyncio.TaskGroup() as group:
            for number, scene in enumerate(SCENES):
                group.create_task(scene(Scene(house, casts[number], f"lane-{number}")))
