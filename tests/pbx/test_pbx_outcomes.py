"""Whole visits with a SIP telephone at both ends of a real Asterisk: every outcome, in recorded Portuguese.

The visitor calls from the intercom; the resident's telephone is called through ARI; the attendant's rings
where the visitor wants a person. The visits are played a few at a time, as in tests/e2e. Then the telephones
say what they heard: our speech whole, at its level, at the right times, our goodbye to its end, and then the
end of the call.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
import pytest_asyncio

from bridge.demo.stage import DATA, TENANT
from bridge.softphone import load_wav
from storage.base import TurnView
from tests.pbx.asterisk import Asterisk
from tests.pbx.gatehouse import Gatehouse, Leg, recording, until
from tests.pbx.installation import Installation
from tests.pbx.listening import level, speech
from tests.pbx.overheard import Overheard, Said
from tests.pbx.phone import ATTENDANT, Call, Ended, Phone, Picks
from tests.pbx.rtp import BUFFER_S, FRAME_S, RATE, Heard, Samples
from tests.pbx.whole import follow, in_order
from tests.ports import free_port

pytestmark = [pytest.mark.pbx, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(400)]

AT_A_TIME = 4
"""Recognition is the bottleneck: two cores do for so many."""
GREETING = "Portaria, em que posso ajudar?"
"""A short one: so many calls are played."""
RING_S = 5.0
"""The least that the settings allow."""
GREETED_S = 5.0
"""From the answer to our first word, on a machine that is busy with the other visits."""
DROPOUT_MS = 40
"""The most of our speech that may be lost, put in between or said twice at one place."""
TALK_LOST = 0.1
"""The most of a sentence between two connected callers that may be lost: it goes by two clocks."""
HEARD_WITHIN_S = 3.0
"""How much later than by our clock something may have come: on a busy machine the telephone is late."""
LEVEL_DBOV = (-30.0, -10.0)
"""How loud speech is in the telephone."""
SPOKEN_S = 1.0
"""Of speech in any of our turns that are looked at; where the machine is busy there are pauses in them."""
SILENT_END_S = 1.5
"""A turn's sound ends in silence, and its end is noted later where the machine is busy."""
TOGETHER_S = 30.0
"""For two people to be connected, and for a sentence of the one's to reach the other."""
GONE_S = 5.0
"""For a call's end to reach the other telephone and Asterisk's channels."""

SENTENCES: Mapping[str, Any] = tomllib.loads(
    (Path(__file__).resolve().parents[2] / "prompts" / "sentences.pt-BR.toml").read_text(encoding="utf-8")
)


@dataclass(frozen=True)
class Scenario:
    """A visit, and how it must end.

    Attributes:
        apartment: whose telephone is called; two visits to one apartment are played one behind the other.
        visitor, resident: what they do on their telephones, each when it is their turn.
        picks: what that telephone does when it rings.
        leaves: the visitor hangs up while it rings.
        rings: how often it rings.
        talk: what the visitor and then the other person say to each other, once they are connected: the
            resident, who then presses 1; or the attendant.
        outcome: of the visit.
        goodbyes: the sentences that the visitor and the resident hear last; none where they hung up, or
            never answered.
        extension, codec: how the intercom calls.
    """

    apartment: str
    visitor: Sequence[str]
    resident: Sequence[str] = ()
    picks: Picks = "answer"
    leaves: bool = False
    rings: int = 1
    talk: tuple[str, str] = ("", "")
    outcome: str = "unreachable"
    goodbyes: tuple[str, str] = ("", "")
    extension: str = "portaria"
    codec: str = "PCMA"

    @property
    def opens(self) -> bool:
        return self.outcome == "authorized"

    @property
    def attended(self) -> bool:
        """A person takes the visitor's call over."""
        return self.goodbyes[0] == "transfer"


DELIVERY = ("v01-leticia", "v10-leticia", "v03-leticia")
DELIVERY_LOW = ("v01-grave", "v10-grave", "v03-grave")
VISIT = ("v04-leticia", "v03-leticia")
VISIT_LOW = ("v04-grave", "v03-grave")
SERVICE = ("v08-leticia", "v14-leticia")
SERVICE_LOW = ("v08-grave", "v14-grave")
PARCEL = ("v22-leticia", "v11-leticia", "v14-leticia", "v03-leticia")
PARCEL_LOW = ("v22-grave", "v11-grave", "v14-grave", "v03-grave")
VISIT_502 = ("v20-leticia", "v22-leticia", "v03-leticia")
VISIT_502_LOW = ("v20-grave", "v22-grave", "v03-grave")
LET_IN = ("goodbye_authorized", "goodbye_resident_authorized")
TURNED_AWAY = ("goodbye_denied", "goodbye_resident_denied")

SCENARIOS: dict[str, Scenario] = {
    "transfer": Scenario(
        "", ("v16-leticia",), talk=("v20-grave", "r08-grave"), rings=0, goodbyes=("transfer", "")
    ),
    "the key that refuses": Scenario("302", SERVICE, ("key:2",), outcome="denied", goodbyes=TURNED_AWAY),
    "no answer": Scenario("502", VISIT_502_LOW, picks="ring", rings=2, goodbyes=("goodbye_no_answer", "")),
    "the visitor hangs up": Scenario("501", DELIVERY_LOW, picks="ring", leaves=True, outcome="abandoned"),
    "rejected": Scenario("999", PARCEL_LOW, picks="reject", rings=2, goodbyes=("goodbye_unreachable", "")),
    "the resident hangs up": Scenario("302", SERVICE, ("hangup",), goodbyes=("goodbye_undecided", "")),
    "connected": Scenario(
        "102",
        VISIT_LOW,
        ("talk-to-them",),
        talk=("v22-leticia", "r14-grave"),
        outcome="authorized",
        goodbyes=LET_IN,
    ),
    "the key that authorises": Scenario(
        "102", VISIT, ("key:1",), outcome="authorized", goodbyes=LET_IN, codec="PCMU"
    ),
    "authorised": Scenario("501", DELIVERY, ("r19-grave",), outcome="authorized", goodbyes=LET_IN),
    "busy": Scenario("999", PARCEL, picks="busy", rings=2, goodbyes=("goodbye_busy", "")),
    "denied": Scenario(
        "502", VISIT_502, ("r05-grave",), outcome="denied", goodbyes=TURNED_AWAY, codec="PCMU"
    ),
    "over the WebSocket channel": Scenario(
        "302", SERVICE_LOW, ("r15-leticia",), outcome="authorized", goodbyes=LET_IN, extension="portariaws"
    ),
}
"""In this order they take the least time, a few at a time, those of one apartment one behind the other."""

EXTRA = {"apartment_number": "999", "residents": ["Lucas Martins"], "voip_number": "999"}
"""The example's directory has no such apartment; a recording asks for it."""
DIRECTORY = [*json.loads((DATA / "apartamentos.json").read_text(encoding="utf-8")), EXTRA]
NUMBERS = {
    row["apartment_number"]: row["voip_number"].removeprefix("sip:").partition("@")[0] for row in DIRECTORY
}
"""What Asterisk dials, by apartment."""
APARTMENTS = sorted({scenario.apartment for scenario in SCENARIOS.values() if scenario.apartment})
CODECS = sorted({scenario.codec for scenario in SCENARIOS.values()})

TELEPHONES = "".join(
    f"[{number}](phone)\ncontext = residents\nauth = {number}-auth\naors = {number}\n"
    f"[{number}-auth](password)\nusername = {number}\npassword = change-me-{number}\n"
    f"[{number}](place)\n"
    for number in (NUMBERS[apartment] for apartment in APARTMENTS)
)
"""Of the residents, as the example pjsip.conf has one."""


# --------------------------------------------------------------------------------------------------------
# Playing
# --------------------------------------------------------------------------------------------------------


@dataclass
class Played:
    """A visit that is over.

    Attributes:
        visit: its id.
        zero: the monotonic second at which it began.
        call: the visitor's.
        rung: every time that the resident's telephone rang.
        opened: how often the gate was asked to open.
        left: Asterisk's channels of the telephones that were called, after it.
        theirs: the attendant's call.
        report: what the audit log says of it.
        turns: each side's say, of the same log.
        together: the milliseconds of the visit between which the two were connected.
        legs: our recordings, by role.
        said: what the models said, by role.
    """

    visit: UUID
    zero: float
    call: Call
    rung: Sequence[Call]
    opened: int
    left: Sequence[str]
    theirs: Call | None = None
    report: Mapping[str, Any] = field(default_factory=dict)
    turns: Sequence[TurnView] = ()
    together: Sequence[float] = ()
    legs: dict[str, Leg] = field(default_factory=dict)
    said: dict[str, Sequence[Said]] = field(default_factory=dict)

    @property
    def story(self) -> str:
        """Who said what, to look at where it went wrong."""
        return "\n".join(f"{turn['leg']} {turn['speaker']}: {turn['text']}" for turn in self.report["turns"])


class Street:
    """Asterisk, the service, and everybody's telephones."""

    def __init__(self, asterisk: Asterisk, gatehouse: Gatehouse, overheard: Overheard) -> None:
        self.asterisk, self.gatehouse, self.overheard = asterisk, gatehouse, overheard
        self.intercoms: dict[str, Phone] = {}
        self.residents: dict[str, Phone] = {}
        self.attendant: Phone
        self._ringing_in = asyncio.Lock()
        self._apartments = {number: asyncio.Lock() for number in (*APARTMENTS, "")}
        self._places = asyncio.Semaphore(AT_A_TIME)

    async def play(self, scenario: Scenario) -> Played:
        """One visit from the ring to its end."""
        async with self._apartments[scenario.apartment]:
            async with self._places:
                call, visit, rung = await self._visit(scenario)
            theirs = await self._attended(scenario, call) if scenario.attended else None
            for one in (call, *rung):
                await one.wait_closed(GONE_S)
            called = NUMBERS.get(scenario.apartment, ATTENDANT[0])
            return Played(
                visit,
                self.gatehouse.zero[str(visit)],
                call,
                rung,
                self.gatehouse.times(visit, "gate.answered"),
                await self._left(called),
                theirs,
            )

    async def _visit(self, scenario: Scenario) -> tuple[Call, UUID, list[Call]]:
        """The visit itself: the visitor's call, its id, and the calls of the resident's telephone."""
        async with self._ringing_in:  # whose visit it is, the order says
            call = await self.intercoms[scenario.codec].call(scenario.extension)
            await call.wait_answered()
            visit = await self.gatehouse.next_visit()
        rung: list[Call] = []
        resident = asyncio.create_task(self._resident(scenario, visit, call, rung))
        try:
            await self.gatehouse.talk(call, visit, *scenario.visitor)
            await self.gatehouse.ended(visit)
        finally:
            resident.cancel()
            await asyncio.wait({resident})
        if not resident.cancelled():
            resident.result()
        return call, visit, rung

    async def look_back(self, played: Played) -> None:
        """What the service has kept of a visit. Only once all are over: running ones would hear the work."""
        visit = str(played.visit)
        played.report = await self.gatehouse.report(played.visit)
        view = await self.gatehouse.service.storage.visit(visit)
        assert view is not None
        played.turns = view.turns
        played.together = [
            seen.at_ms
            for seen in self.gatehouse.seen
            if seen.visit == visit and seen.kind in ("parties.connected", "parties.ended")
        ]
        answered = any(one.answered.is_set() for one in played.rung)
        for role in ("visitor", "resident") if answered else ("visitor",):
            played.legs[role] = await self.gatehouse.leg(played.visit, role)
            played.said[role] = list(self.overheard.said[visit, role].values())

    async def _resident(self, scenario: Scenario, visit: UUID, visitor: Call, rung: list[Call]) -> None:
        """Answers the telephone, as often as it rings."""
        if not scenario.apartment:
            return
        phone = self.residents[scenario.apartment]
        phone.picks = scenario.picks
        while True:
            call = await phone.incoming.get()
            rung.append(call)
            if scenario.leaves:
                await asyncio.sleep(1.0)
                await visitor.hang_up()
            elif scenario.picks == "answer":
                await self.gatehouse.talk(call, visit, *scenario.resident, role="resident")
                if scenario.talk[0]:
                    await self._talk_to_them(scenario, visit, visitor, call)

    async def _talk_to_them(self, scenario: Scenario, visit: UUID, visitor: Call, resident: Call) -> None:
        """The two are connected; the resident lets the visitor in once they have talked."""

        def connected() -> bool:
            return self.gatehouse.times(visit, "parties.connected") > 0

        await until(connected, TOGETHER_S, "the connection of the two")
        await self._converse(scenario, visitor, resident)
        resident.press("1")

    async def _attended(self, scenario: Scenario, visitor: Call) -> Call:
        """The attendant answers; the visitor hangs up once the two have talked."""
        theirs = await self.attendant.next_call(TOGETHER_S)
        await theirs.wait_answered()
        await self._converse(scenario, visitor, theirs)
        await visitor.hang_up()
        await theirs.wait_closed(GONE_S)
        return theirs

    async def _converse(self, scenario: Scenario, visitor: Call, other: Call) -> None:
        """First the other, then the visitor; each waits until it has been heard."""
        for says, hears, name in ((other, visitor, scenario.talk[1]), (visitor, other, scenario.talk[0])):
            began = asyncio.get_running_loop().time()
            await says.say(recording(name))
            await hears.wait_for_speech(since=began, timeout_s=TOGETHER_S)
            await hears.wait_for_quiet(timeout_s=TOGETHER_S)

    async def _left(self, number: str) -> list[str]:
        """The channels of a telephone that are still there after a while."""
        end = asyncio.get_running_loop().time() + GONE_S
        while True:
            names = [channel.name for channel in await self.asterisk.channels()]
            left = [name for name in names if name.startswith(f"PJSIP/{number}-")]
            if not left or asyncio.get_running_loop().time() > end:
                return left
            await asyncio.sleep(0.2)


@dataclass
class Evening:
    """Everything that was played.

    Attributes:
        visits: what was played, or what a visit failed with.
        overheard: what the models said, and when our frames went out.
        channels: what Asterisk has left, as it says it.
        database: the audit log.
    """

    visits: Mapping[str, Played | BaseException]
    overheard: Overheard
    channels: str
    database: Path

    def visit(self, name: str) -> Played:
        """A visit; raises what it failed with."""
        played = self.visits[name]
        if isinstance(played, BaseException):
            raise played
        return played


async def _play_all(asterisk: Asterisk, out: Path, websocket_port: int) -> Evening:
    directory = out / "apartamentos.json"
    directory.write_text(json.dumps(DIRECTORY), encoding="utf-8")
    ari = {"kind": "ari", "url": asterisk.ari_url, "password_env": "ARI_PASSWORD"}
    manager = {"url": f"http://127.0.0.1:{asterisk.ports.http}", "password_env": "AMI_PASSWORD"}
    with (out / "model.log").open("w") as log:
        async with AsyncExitStack() as stack:
            gatehouse = await stack.enter_async_context(
                Gatehouse(
                    out,
                    log,
                    simulated=False,
                    websocket_port=websocket_port,
                    http_port=0,
                    websocket_username_env="WEBSOCKET_USER",
                    websocket_password_env="WEBSOCKET_PASSWORD",
                    directory=str(directory),
                    greeting=GREETING,
                    dialer=ari,
                    manager=manager,
                    attendant={"extension": ATTENDANT[0]},
                    limits={"ring_s": RING_S},
                )
            )
            for name, value in (
                ("PORTEIRO", gatehouse.address),
                ("PORTEIRO_API", f"http://127.0.0.1:{gatehouse.service.http_port}"),
                ("PORTEIRO_TENANT", TENANT),
            ):
                await asterisk.ask(f"dialplan set global {name} {value}")
            overheard = stack.enter_context(Overheard())
            street = Street(asterisk, gatehouse, overheard)
            attendant = Phone(asterisk.sip, *ATTENDANT, codec="PCMU", after_s=0.5)
            street.attendant = await stack.enter_async_context(attendant)
            for codec in CODECS:
                phone = Phone(asterisk.sip, "intercom", "change-me-intercom", codec=codec)
                street.intercoms[codec] = await stack.enter_async_context(phone)
            for apartment in APARTMENTS:
                number = NUMBERS[apartment]
                phone = Phone(asterisk.sip, number, f"change-me-{number}", after_s=1.0)
                street.residents[apartment] = await stack.enter_async_context(phone)
            found = await asyncio.gather(
                *(street.play(scenario) for scenario in SCENARIOS.values()), return_exceptions=True
            )
            for played in found:
                if isinstance(played, Played):
                    await street.look_back(played)
            await asterisk.quiet(GONE_S)
            channels = await asterisk.ask("core show channels")
    visits = dict(zip(SCENARIOS, found, strict=True))
    return Evening(visits, overheard, channels, gatehouse.settings.service.locked_path)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def evening(
    installation: Installation, tmp_path_factory: pytest.TempPathFactory, _kept: Path
) -> AsyncIterator[Evening]:
    """Every scenario, played."""
    port = free_port()
    client = f"[porteiro](+)\nuri = ws://127.0.0.1:{port}/asterisk/demo/visitor\n"
    asterisk = Asterisk(
        installation, site={"pjsip.conf": TELEPHONES, "websocket_client.conf": client}, keep=_kept
    )
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("ARI_PASSWORD", "change-me-ari")
        environment.setenv("AMI_PASSWORD", "change-me-ami")
        environment.setenv("WEBSOCKET_USER", "asterisk")
        environment.setenv("WEBSOCKET_PASSWORD", "change-me-websocket")
        await asyncio.to_thread(asterisk.__enter__)
        try:
            yield await _play_all(asterisk, tmp_path_factory.mktemp("outcomes"), port)
        finally:
            await asyncio.to_thread(asterisk.__exit__)


# --------------------------------------------------------------------------------------------------------
# What the telephones heard
# --------------------------------------------------------------------------------------------------------


def moments(heard: Heard) -> list[tuple[float, float]]:
    """Beginning and end of each stretch of speech in the telephone, in monotonic seconds."""
    return [
        (heard.started + span.start / RATE, heard.started + span.end / RATE) for span in speech(heard.samples)
    ]


def spoken(call: Call, start: float, end: float) -> float:
    """How many seconds of speech came between two monotonic seconds: in the packets, not out of a buffer of a
    fixed delay, which drops all that comes after a standstill."""
    came = in_order(call.sound.packets)
    return sum(span.seconds for span in speech(came.samples[came.index(start) : came.index(end)]))


def assert_heard_us(call: Call) -> None:
    """The telephone heard us soon after it was answered, as loud as speech is."""
    heard = call.heard()
    first, _ = moments(heard)[0]
    assert first - call.answered_at < GREETED_S
    assert LEVEL_DBOV[0] < level(heard.samples) < LEVEL_DBOV[1]


def sound_of(name: str) -> Samples:
    """A recording's."""
    return np.frombuffer(load_wav(recording(name)), "<i2")


def assert_heard_whole(evening: Evening, played: Played, role: str, call: Call, *, paced: bool) -> None:
    """The telephone heard all that the model said, once, as loud as it was said; and so did our recording.

    A frame that we left out, sent twice, or sent as silence is our fault, whenever it went. What was not
    there in time is no such frame: on a busy machine the model's sound is late, and silence is put in. A
    standstill is silence in the recording, too.

    Args:
        paced: Asterisk plays by its own clock (its WebSocket channel). Where our frames come late it has
            nothing to play; our pauses become shorter or longer, so that nobody is heard late and words are
            whole. There a word is held to, a pause is not.
    """
    came, leg = in_order(call.sound.packets), played.legs[role]
    said = iter(played.said[role])
    spoken_s = 0.0
    for turn in our_turns(played, role):
        words = next((one for one in said if one.text == turn.text), None)
        assert words is not None, (turn, played.story)
        samples = words.samples(turn.heard_ms if turn.interrupted else None)
        if not speech(samples):
            continue
        at, end = (played.zero + ms / 1000 for ms in (turn.started_ms, turn.ended_ms))
        found = follow(samples, came.samples, came.index(at - 1), came.index(at + HEARD_WITHIN_S))
        ours = evening.overheard.late(str(played.visit), role, at, end)
        late = words.late(at) + (max(ours, default=0.0) if paced else 0.0)
        told = (turn.text, found, f"the model was late by {words.late(at):.3f} s, frames of ours by", ours)
        left_out = found.left_out_of_speech_ms if paced else found.left_out_ms
        put_in = found.put_into_speech_ms if paced else found.put_in_ms
        assert left_out <= DROPOUT_MS and put_in <= DROPOUT_MS + late * 1000, told
        assert abs(found.gain_db) < 1, told
        near = round(HEARD_WITHIN_S * RATE)  # both begin with the call
        kept = follow(samples, leg.played, found.begins - near, found.begins + near)
        assert kept.missing_ms <= DROPOUT_MS and abs(kept.gain_db) < 1, (turn.text, kept)
        spoken_s += found.seconds
    assert spoken_s > SPOKEN_S


def assert_heard_them(leg: Leg, call: Call, says: Sequence[str]) -> None:
    """We heard all that a telephone said; what it was late itself may be silence in between."""
    sent = pairwise(call.sound.said)
    late = max((at - before - FRAME_S for (before, _), (at, frame) in sent if any(frame)), default=0.0)
    for name in says:
        found = follow(sound_of(name), leg.heard)
        assert found.left_out_ms <= DROPOUT_MS, (name, found, late)
        assert found.put_in_ms <= DROPOUT_MS + late * 1000, (name, found, late)


def our_turns(played: Played, role: str) -> list[TurnView]:
    """What we said on a leg."""
    return [turn for turn in played.turns if turn.leg.startswith(role) and turn.speaker == "agent"]


def assert_heard_turn(played: Played, call: Call, turn: TurnView) -> None:
    """The telephone heard a turn of ours at its time."""
    start, end = (played.zero + ms / 1000 for ms in (turn.started_ms, turn.ended_ms))
    assert spoken(call, start, end + 2 * BUFFER_S) > SPOKEN_S, turn


def assert_goodbye(played: Played, role: str, call: Call, sentence: str) -> None:
    """The last that the telephone heard of us is this sentence, whole."""
    turn = our_turns(played, role)[-1]
    assert turn.text == SENTENCES[sentence], played.story
    assert_heard_turn(played, call, turn)
    # As it came: a telephone's buffer of a fixed delay drops what a standstill has made late.
    assert call.sound.last_loud > played.zero + turn.ended_ms / 1000 - SILENT_END_S, "its end is missing"


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_visit_between_two_telephones(name: str, evening: Evening) -> None:
    scenario, played = SCENARIOS[name], evening.visit(name)
    report = played.report
    assert report["outcome"] == scenario.outcome, played.story
    assert report["gate_opened"] is scenario.opens
    assert played.opened == (1 if scenario.opens else 0)
    assert report["audit_ok"]
    assert not played.left
    assert len(played.rung) == scenario.rings
    _assert_visitors_telephone(scenario, played)
    _assert_residents_telephone(scenario, played)


def _assert_visitors_telephone(scenario: Scenario, played: Played) -> None:
    assert_heard_us(played.call)
    assert_heard_turn(played, played.call, our_turns(played, "visitor")[0])
    if scenario.goodbyes[0]:
        assert_goodbye(played, "visitor", played.call, scenario.goodbyes[0])
    by_us = scenario.goodbyes[0] and not scenario.attended
    assert played.call.closed.result() == Ended("them" if by_us else "us")


def _assert_residents_telephone(scenario: Scenario, played: Played) -> None:
    if not scenario.apartment:
        return
    call = played.rung[-1]
    if scenario.picks != "answer":
        how = {"busy": Ended("us", 486), "reject": Ended("us", 603), "ring": Ended("them", 487)}
        assert [one.closed.result() for one in played.rung] == [how[scenario.picks]] * scenario.rings
        return
    assert_heard_us(call)
    briefing = our_turns(played, "resident")[0]
    assert f"apartamento {scenario.apartment}" in briefing.text
    assert_heard_turn(played, call, briefing)
    if scenario.goodbyes[1]:
        assert_goodbye(played, "resident", call, scenario.goodbyes[1])
    assert call.closed.result() == Ended("them" if scenario.goodbyes[1] else "us")


@pytest.mark.parametrize("name", SCENARIOS)
async def test_all_that_was_said_is_heard_whole(name: str, evening: Evening) -> None:
    scenario, played = SCENARIOS[name], evening.visit(name)
    together = scenario.talk if "resident" in played.legs else ("", "")
    paced = scenario.extension == "portariaws"
    assert_heard_whole(evening, played, "visitor", played.call, paced=paced)
    assert_heard_them(played.legs["visitor"], played.call, [*scenario.visitor, *filter(None, together[:1])])
    if "resident" in played.legs:
        call = played.rung[-1]
        assert_heard_whole(evening, played, "resident", call, paced=False)
        words = [what for what in scenario.resident if what != "hangup" and not what.startswith("key:")]
        assert_heard_them(played.legs["resident"], call, [*words, *filter(None, together[1:])])


async def test_connected_callers_hear_each_other_and_nobody_else(evening: Evening) -> None:
    scenario, played = SCENARIOS["connected"], evening.visit("connected")
    began, end = played.together
    resident = played.rung[-1]
    for role, call, sentence in (
        ("visitor", played.call, "connecting_visitor"),
        ("resident", resident, "connecting_resident"),
    ):
        told = [turn for turn in our_turns(played, role) if turn.ended_ms <= began + SILENT_END_S * 1000][-1]
        assert told.text.startswith(SENTENCES[sentence].partition("{")[0]), played.story
        assert_heard_turn(played, call, told)
    for role, call, name in (
        ("visitor", played.call, scenario.talk[1]),
        ("resident", resident, scenario.talk[0]),
    ):
        assert_heard_each_other(call, played.zero + began / 1000, played.zero + end / 1000, name)
        assert follow(sound_of(name), played.legs[role].played).missing_share <= TALK_LOST
    meanwhile = [turn for turn in played.turns if began < turn.started_ms < end]
    assert not meanwhile, "the models say nothing, and hear nothing of it"


async def test_the_visitor_and_the_attendant_hear_each_other_and_nothing_of_us(evening: Evening) -> None:
    scenario, played = SCENARIOS["transfer"], evening.visit("transfer")
    theirs = played.theirs
    assert theirs is not None
    assert played.report["outcome"] == "unreachable" and played.report["audit_ok"]
    assert [call["name"] for call in played.report["tool_calls"]] == ["transfer_to_attendant"]
    for call, name in ((played.call, scenario.talk[1]), (theirs, scenario.talk[0])):
        assert_heard_each_other(call, theirs.answered_at, float("inf"), name)
    assert theirs.closed.result() == Ended("them")


def assert_heard_each_other(call: Call, began: float, end: float, name: str) -> None:
    """Between two monotonic seconds the telephone heard this recording, and nothing else."""
    came = in_order(call.sound.packets)
    heard = came.samples[came.index(began) : came.index(end)]
    found = follow(sound_of(name), heard)
    assert found.missing_share <= TALK_LOST and abs(found.gain_db) < 1, found
    # As many seconds as the recording has, and what its pauses are given by jitter.
    others = sum(span.seconds for span in speech(heard)) - sum(
        span.seconds for span in speech(sound_of(name))
    )
    assert others < 0.3, f"{others:.1f} s of something else"


async def test_no_channel_is_left(evening: Evening) -> None:
    assert "0 active channels" in evening.channels


async def test_the_audit_log_of_them_all_is_whole(evening: Evening) -> None:
    command = [sys.executable, "-m", "bridge.cli", "audit", "verify", "--db", str(evening.database)]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
