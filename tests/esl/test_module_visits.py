"""The visits of tests/pbx over FreeSWITCH: each of them with each module's way of playing.

One simulated FreeSWITCH for each module (tests/simulators), to which one service is connected; every visit
is a tenant's of its own, and some are played at the same time. What a telephone heard is what the module or
the channel has played by its own clock: to it the records are held.
"""

from __future__ import annotations

import asyncio
import json
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args
from uuid import uuid4

import numpy as np
import pytest
import pytest_asyncio

from bridge.softphone import load_wav
from storage.base import TurnView
from tests.pbx.whole import follow
from tests.ports import kept_port
from tests.service.doorman import AGREES, ASKS, LOWEST, Cast, Doorman, Part, Turn
from tests.service.household import AUDIO, ROOT, Household, household, until, with_cast
from tests.simulators.audio_stream import Kind, Stream
from tests.simulators.freeswitch import PASSWORD, Channel, FreeSwitch, Phone
from tests.simulators.openai_realtime import Call, Reply

pytestmark = [pytest.mark.asyncio(loop_scope="module")]

KINDS: tuple[Kind, ...] = get_args(Kind)
AT_A_TIME = 6
"""Visits: half a core's work."""
TO_A_FRAME_MS = 20.0
BARGED_IN_MS = 62.0
"""Between what was heard of a say that was broken off, and what the record has of it: three frames."""
NEAR_S = 1.0
"""So near a say the process may have stood still for it to matter."""
TALK_LOST = 0.1
"""The most of a sentence between two connected callers that may be lost: it goes by two clocks."""
SENTENCES: Mapping[str, Any] = tomllib.loads(
    (ROOT / "prompts" / "sentences.pt-BR.toml").read_text(encoding="utf-8")
)

Stalls = list[tuple[float, float]]
"""When this process stood still, in seconds of the event loop's clock, and for how many milliseconds."""
USUAL = Part(ASKS, AGREES)
Talk = Callable[["Lane"], Awaitable[None]]


def recorded(name: str) -> bytes:
    """A recorded sentence of somebody's."""
    return load_wav(AUDIO / f"{name}.wav")


def tool(name: str, **arguments: str) -> Reply:
    return Reply((Call(name, json.dumps(arguments)),))


# --------------------------------------------------------------------------------------------------------
# The visits
# --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Story:
    """A visit, and how it must end.

    Attributes:
        outcome: outcome, reason, and whether the gate is on record as opened.
        part: what the models make of what they hear.
        says: what the visitor says, once greeted; none: the visitor's part is in `visitor` alone.
        phone: the resident's.
        resident, visitor: what they do further.
        rings: how often the resident's telephone rings.
        goodbyes: the sentences that the visitor and the resident hear last.
        own: how the tenant's settings differ from the others'.
    """

    outcome: tuple[str, str, bool | None]
    part: Part = USUAL
    says: str = "v06-leticia"
    phone: Phone = field(default_factory=Phone)
    resident: Talk | None = None
    visitor: Talk | None = None
    rings: int = 1
    goodbyes: tuple[str, str] = ("", "")
    own: Mapping[str, Any] = field(default_factory=dict)


class Lane:
    """One visit, in a tenant of its own."""

    def __init__(self, name: str, story: Story, switch: FreeSwitch, cast: Cast, stalls: Stalls) -> None:
        self.name, self.story, self.switch, self.cast, self.stalls = name, story, switch, cast, stalls
        self.domain, self.visit = uuid4(), uuid4()
        self.house: Household
        self.visitor: Channel
        self.residents: list[Channel] = []
        self.turns: tuple[TurnView, ...] = ()
        self.began = 0.0
        """In seconds of the event loop's clock."""
        self.dialled: list[str] = []
        """The attempts' ids."""
        self.rang = 0
        self.told: tuple[str | None, str | None, bool | None] = (None, None, None)

    @property
    def number(self) -> str:
        return f"user/1003030@{self.name}.example"

    def settings(self, port: int, sounds: Mapping[str, str]) -> dict[str, Any]:
        """The tenant's."""
        return {
            **with_cast(self.cast),
            "freeswitch": {"domain_uuid": str(self.domain), "playback": self.switch.kind},
            "esl": {"port": self.switch.port, "password_env": "ESL_PASSWORD", **sounds},
            "dialer": {
                "kind": "freeswitch",
                "domain": f"{self.name}.example",
                "stream_url": f"ws://127.0.0.1:{port}",
            },
            "limits": {"ring_s": 5.0, "dial_attempts": max(1, self.story.rings)},
            **self.story.own,
        }

    async def play(self, house: Household, port: int) -> None:
        """From the ring to the end of every channel."""
        self.house = house
        phone = self.story.phone
        self.switch.phones[self.number] = Phone(phone.cause, phone.after_s, self._answered)
        url = f"ws://127.0.0.1:{port}/stream/{self.domain}/{self.visit}"
        said = json.dumps({"caller_id": "1001", "playback": self.switch.kind}, separators=(",", ":"))
        self.began = asyncio.get_running_loop().time()
        self.visitor = await self.switch.call_in(str(self.visit), url, said)
        if self.story.says:
            await house.greeted(self.visit)
            stream_of(self.visitor).to_say = recorded(self.story.says)
        if self.story.visitor is not None:
            await self.story.visitor(self)
        await self.over()

    def _answered(self, channel: Channel) -> None:
        self.residents.append(channel)
        if self.story.resident is not None:
            self.switch.spawn(self.story.resident(self))

    async def over(self) -> None:
        """Wait for the end; look at what is on record."""
        await self.seen("visit.ended", 40)
        assert await self.house.service.visit_over(self.visit, 10)
        records = await self.house.records(self.visit)
        self.dialled = [one.data["attempt"] for one in records if one.kind == "dial.started"]
        mine = [one for one in self.switch.made if one.uuid in (self.visitor.uuid, *self.dialled)]
        await until(lambda: all(one.over.is_set() for one in mine), 5, "the end of every channel")
        self.rang = sum(phone == self.number for phone, _ in self.switch.rang)
        self.told = await self.house.outcome(self.visit)
        view = await self.house.service.storage.visit(str(self.visit))
        assert view is not None
        self.turns = tuple(view.turns)

    async def seen(self, kind: str, timeout_s: float = 20.0) -> None:
        """Wait until it is on record."""
        await until(lambda: self.house.of(self.visit, kind), timeout_s, kind)

    def doorman(self, role: str) -> Doorman:
        """The model of a leg that was spoken on."""
        (found,) = [one for one in self.cast.doormen if one.role == role and one.levels]
        return found

    def stood_still_ms(self, begin: float, end: float) -> float:
        """For how long this process did between two seconds: what is made good of it may be dropped."""
        return sum(ms for at, ms in self.stalls if begin - NEAR_S < at < end + NEAR_S)

    def ours(self, leg: str) -> list[TurnView]:
        """What we said on a leg, by the records."""
        return [turn for turn in self.turns if turn.leg == leg and turn.speaker == "agent"]


def stream_of(channel: Channel) -> Stream:
    assert channel.stream is not None, "its stream has not come"
    return channel.stream


def heard_ms(stream: Stream, level: int) -> float:
    """How long a constant level was heard, and not a sample of speech that passes it by."""
    samples = np.frombuffer(bytes(stream.heard), "<i2").astype(np.int32)
    steady = (abs(samples - level) < 100) & (abs(np.diff(samples, prepend=0)) < 5)
    return float(steady.sum()) / stream.started.channel_rate * 1000


def loud(stream: Stream, last_s: float) -> bool:
    """Whether anything was heard lately."""
    samples = np.frombuffer(bytes(stream.heard[-round(16_000 * last_s) :]), "<i2")
    return bool((abs(samples.astype(np.int32)) > 100).any())


async def sound(stream: Stream) -> None:
    """Wait until something is heard …"""
    await until(lambda: loud(stream, 0.1), 15, "a sound")


async def quiet(stream: Stream, quiet_s: float = 0.3) -> None:
    """… and until nothing has been for so long."""
    async with asyncio.timeout(20):
        while loud(stream, quiet_s):
            await asyncio.sleep(0.02)


async def briefed(lane: Lane) -> Stream:
    """The resident has heard the briefing out; their stream."""
    channel = lane.residents[-1]
    await until(lambda: channel.stream is not None, what="the stream")
    await sound(stream := stream_of(channel))
    await quiet(stream)
    return stream


def says(name: str) -> Talk:
    """A resident who answers in words."""

    async def talk(lane: Lane) -> None:
        (await briefed(lane)).to_say = recorded(name)

    return talk


def presses(key: str) -> Talk:
    """A resident who answers by key; and again, where nothing comes of it.

    On a loaded machine a hole in the sound may look like the briefing's end.
    """

    async def talk(lane: Lane) -> None:
        stream, channel = await briefed(lane), lane.residents[-1]
        while not channel.over.is_set():
            channel.press(key)
            await asyncio.wait(stream.tasks, timeout=3)
            await quiet(stream)

    return talk


async def hangs_up(lane: Lane) -> None:
    await briefed(lane)
    lane.residents[-1].hang_up()


async def leaves_while_it_rings(lane: Lane) -> None:
    await lane.seen("dial.started")
    await until(lambda: lane.number in [phone for phone, _ in lane.switch.rang], what="the call")
    lane.visitor.hang_up()


async def goes_on_without_us(lane: Lane) -> None:
    """The attendant has the call, until the visitor hangs up."""
    await until(lambda: lane.visitor.transferred, 20, "the transfer")
    assert not lane.visitor.over.is_set(), "it goes on, without us"
    lane.visitor.hang_up()


async def talks_to_them(lane: Lane) -> None:
    """The two are connected; the resident lets the visitor in once they have talked."""
    resident, visitor = await briefed(lane), stream_of(lane.visitor)
    resident.to_say = recorded("r06-grave")
    await lane.seen("parties.connected")
    for speaks, hears, name in ((resident, visitor, "r14-grave"), (visitor, resident, "v22-leticia")):
        await quiet(hears)
        before, said = len(hears.heard), recorded(name)
        speaks.to_say = said
        await sound(hears)
        await quiet(hears, 0.8)
        found = follow(np.frombuffer(said, "<i2"), np.frombuffer(bytes(hears.heard[before:]), "<i2"))
        assert found.missing_share <= TALK_LOST and abs(found.gain_db) < 1, (name, found)
    lane.residents[-1].press("1")


async def speaks_over_us(lane: Lane) -> None:
    """In the middle of a greeting of ten seconds."""
    stream = stream_of(lane.visitor)
    await sound(stream)
    await asyncio.sleep(2)
    stream.to_say = recorded("v21-leticia")
    doorman = lane.doorman("visitor")
    await until(lambda: doorman.truncated, 10, "the truncation")
    await asyncio.sleep(0.4)
    heard = heard_ms(stream, LOWEST)
    await asyncio.sleep(0.4)
    assert heard_ms(stream, LOWEST) == heard, "nothing of before is heard behind it"
    bound = BARGED_IN_MS + lane.stood_still_ms(lane.began, asyncio.get_running_loop().time())
    assert abs(float(doorman.truncated["say_1"]) - heard) <= bound, "what the model remembers"
    if lane.visitor.played:
        assert heard > 0.85 * (len(lane.visitor.played) - 1) * 200, "with few holes between the files"
    (posted,) = lane.house.of(lane.visit, "barge_in")
    assert abs(posted.data["heard_ms"] - heard) <= bound, "what is on record"
    lane.visitor.hang_up()


LET_IN = ("goodbye_authorized", "goodbye_resident_authorized")
TURNED_AWAY = ("goodbye_denied", "goodbye_resident_denied")
REFUSES = (Turn("Não, não autorizo a entrada.", tool("deny_entry")),)
CONNECTS = (Turn("Quem é?", tool("connect_parties")),)
WANTS_A_PERSON = (Turn("Eu quero falar com o porteiro.", tool("transfer_to_attendant")),)
WANTS_A_DEPARTMENT = (Turn("Com o financeiro.", tool("transfer_call", to="o financeiro, por favor")),)
RECEPTION = {
    "kind": "reception",
    "directory": None,
    "dialer": {"kind": "simulated"},
    "departments": {"Financeiro": {"extension": "210"}, "Suporte": {"extension": "231"}},
}
RELAY = {"kind": "dtmf", "digits": "#w9", "duration_ms": 50, "gap_ms": 50}
"""The intercom opens by what is played to it."""

STORIES: dict[str, Story] = {
    "no answer": Story(
        ("unreachable", "no_answer", None), phone=Phone(after_s=None), goodbyes=("goodbye_no_answer", "")
    ),
    "connected": Story(
        ("authorized", "opened", True), Part(ASKS, CONNECTS), resident=talks_to_them, goodbyes=LET_IN
    ),
    "authorised": Story(("authorized", "opened", True), resident=says("r03-grave"), goodbyes=LET_IN),
    "the key that authorises": Story(
        ("authorized", "opened", True), resident=presses("1"), goodbyes=LET_IN, own={"gate": RELAY}
    ),
    "denied": Story(
        ("denied", "resident_refused", None),
        Part(ASKS, REFUSES),
        resident=says("r05-grave"),
        goodbyes=TURNED_AWAY,
    ),
    "the key that refuses": Story(
        ("denied", "resident_refused", None), resident=presses("2"), goodbyes=TURNED_AWAY
    ),
    "busy": Story(
        ("unreachable", "busy", None), phone=Phone("USER_BUSY"), rings=2, goodbyes=("goodbye_busy", "")
    ),
    "rejected": Story(
        ("unreachable", "rejected", None),
        phone=Phone("CALL_REJECTED"),
        rings=2,
        goodbyes=("goodbye_unreachable", ""),
    ),
    "the visitor hangs up": Story(
        ("abandoned", "visitor_hung_up", None), phone=Phone(after_s=None), visitor=leaves_while_it_rings
    ),
    "the resident hangs up": Story(
        ("unreachable", "resident_hung_up", None), resident=hangs_up, goodbyes=("goodbye_undecided", "")
    ),
    "barge-in": Story(
        ("abandoned", "visitor_hung_up", None),
        Part(exact_ms=10_000, piece_ms=200),
        says="",
        visitor=speaks_over_us,
        rings=0,
    ),
    "transfer": Story(
        ("unreachable", "attendant", None),
        Part(WANTS_A_PERSON),
        says="v16-leticia",
        visitor=goes_on_without_us,
        rings=0,
        goodbyes=("transfer", ""),
        own={"attendant": {"extension": "9000"}},
    ),
    "put through to a department": Story(
        ("unreachable", "transferred", None),
        Part(WANTS_A_DEPARTMENT),
        visitor=goes_on_without_us,
        rings=0,
        goodbyes=("transfer_elsewhere", ""),
        own=RECEPTION,
    ),
}
"""In this order they take the least time, a few at a time."""


# --------------------------------------------------------------------------------------------------------
# Playing
# --------------------------------------------------------------------------------------------------------


@dataclass
class Evening:
    """Everything that was played with one module.

    Attributes:
        lanes: the visits, by their stories' names.
        failed: what those failed with that did.
        sounds: what is left of the files that the channels played.
    """

    switch: FreeSwitch
    lanes: Mapping[str, Lane]
    failed: Mapping[str, BaseException]
    sounds: list[str]

    def lane(self, name: str) -> Lane:
        """A visit; raises what it failed with."""
        if name in self.failed:
            raise self.failed[name]
        return self.lanes[name]


async def watch(stalls: Stalls) -> None:
    """Note when the event loop was late by more than two frames."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        due += 0.02
        await asyncio.sleep(due - loop.time())
        late_ms = (loop.time() - due) * 1000
        if late_ms > 2 * TO_A_FRAME_MS:
            stalls.append((loop.time(), late_ms))
            due = loop.time()


async def play_all(kind: Kind, folder: Path) -> Evening:
    switch, port, places = FreeSwitch(kind), kept_port(), asyncio.Semaphore(AT_A_TIME)
    (files := folder / "sounds").mkdir()
    sounds = {"sounds": str(files)} if kind == "file" else {}
    stalls: Stalls = []
    watching = asyncio.create_task(watch(stalls))
    await switch.open()
    async with AsyncExitStack() as stack:
        lanes: dict[str, Lane] = {}
        for number, (name, story) in enumerate(STORIES.items()):
            cast = await stack.enter_async_context(Cast(story.part))
            lanes[name] = Lane(f"lane-{number}", story, switch, cast, stalls)
        house = await stack.enter_async_context(
            household(
                folder,
                {lane.name: lane.settings(port, sounds) for lane in lanes.values()},
                environ={"ESL_PASSWORD": PASSWORD},
                simulated=False,
                audio_stream_port=port,
            )
        )
        await until(lambda: switch.listeners == 1, what="the one connection of them all")

        async def played(lane: Lane) -> None:
            async with places:
                await lane.play(house, port)

        found = await asyncio.gather(*map(played, lanes.values()), return_exceptions=True)
        await switch.close()
    watching.cancel()
    await asyncio.wait({watching})
    failed = {
        name: error for name, error in zip(lanes, found, strict=True) if isinstance(error, BaseException)
    }
    return Evening(switch, lanes, failed, [path.name for path in files.iterdir()])


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=KINDS)
async def evening(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Evening]:
    """Every visit, played with one module."""
    yield await play_all(request.param, tmp_path_factory.mktemp("visits"))


# --------------------------------------------------------------------------------------------------------
# What the telephones heard, and what is on record
# --------------------------------------------------------------------------------------------------------


def assert_heard(lane: Lane, role: str, leg: str, channel: Channel, goodbye: str) -> None:
    """What the record has of each say of ours is what was heard of it."""
    doorman, stream, turns = lane.doorman(role), stream_of(channel), lane.ours(leg)
    measured = [heard_ms(stream, level) for level in doorman.levels.values()]
    on_record = [(turn.text, turn.heard_ms, turn.interrupted) for turn in turns]
    assert len(turns) <= len(measured) <= len(turns) + (not goodbye), "none but one that a hang-up cut off"
    for turn, ms in zip(turns, measured, strict=False):
        bound = BARGED_IN_MS if turn.interrupted else TO_A_FRAME_MS
        begin, end = (lane.began + ms / 1000 for ms in (turn.started_ms, turn.ended_ms))
        bound += lane.stood_still_ms(begin, end)
        assert turn.heard_ms is not None
        assert abs(turn.heard_ms - ms) <= bound, (on_record, measured)
    if goodbye:
        assert turns[-1].text.startswith(SENTENCES[goodbye].partition("{")[0]), on_record
        assert not turns[-1].interrupted


@pytest.mark.parametrize("name", STORIES)
async def test_a_visit_over_freeswitch(name: str, evening: Evening) -> None:
    story, lane = STORIES[name], evening.lane(name)
    assert lane.told == story.outcome
    assert lane.rang == story.rings
    assert_heard(lane, "visitor", "visitor", lane.visitor, story.goodbyes[0])
    if lane.residents:
        (resident,) = lane.residents
        assert_heard(lane, "resident", "resident-1", resident, story.goodbyes[1])
        assert [resident.uuid] == lane.dialled, "nobody else's channel is the resident's"
    killed = {one.split(" ")[1] for one in evening.switch.commands if one.startswith("uuid_kill")}
    ended_by_us = bool(story.goodbyes[0]) and not lane.visitor.transferred
    assert (lane.visitor.uuid in killed) is ended_by_us, "the end of a stream ends no call"
    if story.goodbyes[1]:
        assert lane.residents[0].uuid in killed
    for channel in (lane.visitor, *lane.residents):
        assert not stream_of(channel).problems, "the module could use all that we sent"
        assert stream_of(channel).deepest_ms <= 300, "what is long waits with us"
        assert not channel.missing, "every file was there when its turn came"


async def test_what_goes_beside_the_streams(evening: Evening) -> None:
    relay, person, department = (
        evening.lane(name).visitor
        for name in ("the key that authorises", "transfer", "put through to a department")
    )
    assert relay.digits == "#9", "the intercom's own relay opens by them"
    assert (person.transferred, department.transferred) == ("9000", "210")
    assert not [one for one in evening.switch.commands if one.startswith("uuid_bridge")]
    assert not evening.switch.channels and not evening.sounds
