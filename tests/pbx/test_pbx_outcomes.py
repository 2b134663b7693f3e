"""Whole visits with a SIP telephone at both ends of a real Asterisk: every outcome, in recorded Portuguese.

The visitor calls from the intercom; the resident's telephone is called through ARI. The visits are played a
few at a time, as in tests/e2e. Then the telephones say what they heard: our speech whole, at its level, at
the right times, our goodbye to its end, and then the end of the call.
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

from bridge.demo.stage import DATA
from bridge.softphone import load_wav
from tests.pbx.asterisk import Asterisk, free_port
from tests.pbx.gatehouse import Gatehouse, Leg, recording
from tests.pbx.installation import Installation
from tests.pbx.listening import compare, level, speech
from tests.pbx.phone import Call, Ended, Phone, Picks
from tests.pbx.rtp import BUFFER_S, RATE, Heard
from tests.pbx.yardstick import Yardstick, worst_wait

pytestmark = [pytest.mark.pbx, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(400)]

AT_A_TIME = 4
"""Recognition is the bottleneck: two cores do for so many."""
RING_S = 5.0
"""The least that the settings allow."""
GREETED_S = 5.0
"""From the answer to our first word, on a machine that is busy with the other visits."""
DROPOUT_MS = 40
STILL_S = 0.05
"""A machine that lets a sleeper wait for longer is too busy for its sound to be judged: no service helps
that. The telephone's buffer bears twice as much."""
ALIKE = 0.85
"""Correlation of a half second of speech: G.711 by itself leaves over 0.999, a dropout of 40 ms over this."""
LEVEL_DBOV = (-30.0, -10.0)
"""How loud speech is in the telephone."""
SPOKEN_S = 1.0
"""Of speech in any of our turns that are looked at; where the machine is busy there are pauses in them."""
SILENT_END_S = 1.5
"""A turn's sound ends in silence, and its end is noted later where the machine is busy."""
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
    outcome: str = "unreachable"
    goodbyes: tuple[str, str] = ("", "")
    extension: str = "portaria"
    codec: str = "PCMA"

    @property
    def opens(self) -> bool:
        return self.outcome == "authorized"


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
    "authorised": Scenario("501", DELIVERY, ("r19-grave",), outcome="authorized", goodbyes=LET_IN),
    "the key that authorises": Scenario(
        "102", VISIT, ("key:1",), outcome="authorized", goodbyes=LET_IN, codec="PCMU"
    ),
    "the key that refuses": Scenario("302", SERVICE, ("key:2",), outcome="denied", goodbyes=TURNED_AWAY),
    "denied": Scenario(
        "502", VISIT_502, ("r05-grave",), outcome="denied", goodbyes=TURNED_AWAY, codec="PCMU"
    ),
    "busy": Scenario("999", PARCEL, picks="busy", rings=2, goodbyes=("goodbye_busy", "")),
    "the visitor hangs up": Scenario("501", DELIVERY_LOW, picks="ring", leaves=True, outcome="abandoned"),
    "the resident hangs up": Scenario("102", VISIT_LOW, ("hangup",), goodbyes=("goodbye_undecided", "")),
    "over the WebSocket channel": Scenario(
        "302", SERVICE_LOW, ("r15-leticia",), outcome="authorized", goodbyes=LET_IN, extension="portariaws"
    ),
    "no answer": Scenario("502", VISIT_502_LOW, picks="ring", rings=2, goodbyes=("goodbye_no_answer", "")),
    "rejected": Scenario("999", PARCEL_LOW, picks="reject", rings=2, goodbyes=("goodbye_unreachable", "")),
}

EXTRA = {"apartment_number": "999", "residents": ["Lucas Martins"], "voip_number": "999"}
"""The example's directory has no such apartment; a recording asks for it."""
DIRECTORY = [*json.loads((DATA / "apartamentos.json").read_text(encoding="utf-8")), EXTRA]
NUMBERS = {
    row["apartment_number"]: row["voip_number"].removeprefix("sip:").partition("@")[0] for row in DIRECTORY
}
"""What Asterisk dials, by apartment."""
APARTMENTS = sorted({scenario.apartment for scenario in SCENARIOS.values()})
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
        left: Asterisk's channels of the resident's telephone, after it.
        report: what the audit log says of it.
        legs: our recordings, by role.
    """

    visit: UUID
    zero: float
    call: Call
    rung: Sequence[Call]
    opened: int
    left: Sequence[str]
    report: Mapping[str, Any] = field(default_factory=dict)
    legs: dict[str, Leg] = field(default_factory=dict)

    @property
    def story(self) -> str:
        """Who said what, to look at where it went wrong."""
        return "\n".join(f"{turn['leg']} {turn['speaker']}: {turn['text']}" for turn in self.report["turns"])


class Street:
    """Asterisk, the service, and everybody's telephones."""

    def __init__(self, asterisk: Asterisk, gatehouse: Gatehouse) -> None:
        self.asterisk, self.gatehouse = asterisk, gatehouse
        self.intercoms: dict[str, Phone] = {}
        self.residents: dict[str, Phone] = {}
        self._ringing_in = asyncio.Lock()
        self._apartments = {number: asyncio.Lock() for number in APARTMENTS}
        self._places = asyncio.Semaphore(AT_A_TIME)

    async def play(self, scenario: Scenario) -> Played:
        """One visit from the ring to its end."""
        async with self._apartments[scenario.apartment], self._places:
            phone = self.residents[scenario.apartment]
            phone.picks = scenario.picks
            async with self._ringing_in:  # whose visit it is, the order says
                call = await self.intercoms[scenario.codec].call(scenario.extension)
                await call.wait_answered()
                visit = await self.gatehouse.next_visit()
            rung: list[Call] = []
            resident = asyncio.create_task(self._resident(scenario, phone, visit, call, rung))
            try:
                await self.gatehouse.talk(call, visit, *scenario.visitor)
                await self.gatehouse.ended(visit)
            finally:
                resident.cancel()
                await asyncio.wait({resident})
            if not resident.cancelled():
                resident.result()
            for one in (call, *rung):
                await one.wait_closed(GONE_S)
            return Played(
                visit,
                self.gatehouse.zero[str(visit)],
                call,
                rung,
                self.gatehouse.times(visit, "gate.answered"),
                await self._left(NUMBERS[scenario.apartment]),
            )

    async def look_back(self, played: Played) -> None:
        """What the service has kept of a visit. Only once all are over: running ones would hear the work."""
        played.report = await self.gatehouse.report(played.visit)
        answered = any(one.answered.is_set() for one in played.rung)
        for role in ("visitor", "resident") if answered else ("visitor",):
            played.legs[role] = await self.gatehouse.leg(played.visit, role)

    async def _resident(
        self, scenario: Scenario, phone: Phone, visit: UUID, visitor: Call, rung: list[Call]
    ) -> None:
        """Answers the telephone, as often as it rings."""
        while True:
            call = await phone.incoming.get()
            rung.append(call)
            if scenario.leaves:
                await asyncio.sleep(1.0)
                await visitor.hang_up()
            elif scenario.picks == "answer":
                await self.gatehouse.talk(call, visit, *scenario.resident, role="resident")

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
        ticks: of the yardstick, all the time.
        channels: what Asterisk has left, as it says it.
        database: the audit log.
    """

    visits: Mapping[str, Played | BaseException]
    ticks: Sequence[float]
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
    with (out / "model.log").open("w") as log:
        async with AsyncExitStack() as stack:
            gatehouse = await stack.enter_async_context(
                Gatehouse(
                    out,
                    log,
                    simulated=False,
                    websocket_port=websocket_port,
                    websocket_username_env="WEBSOCKET_USER",
                    websocket_password_env="WEBSOCKET_PASSWORD",
                    directory=str(directory),
                    dialer=ari,
                    limits={"ring_s": RING_S},
                )
            )
            await asterisk.ask(f"dialplan set global PORTEIRO {gatehouse.address}")
            street = Street(asterisk, gatehouse)
            for codec in CODECS:
                phone = Phone(asterisk.sip, "intercom", "change-me-intercom", codec=codec)
                street.intercoms[codec] = await stack.enter_async_context(phone)
            for apartment in APARTMENTS:
                number = NUMBERS[apartment]
                phone = Phone(asterisk.sip, number, f"change-me-{number}", after_s=1.0)
                street.residents[apartment] = await stack.enter_async_context(phone)
            async with Yardstick(out / "ticks") as yardstick:
                found = await asyncio.gather(
                    *(street.play(scenario) for scenario in SCENARIOS.values()), return_exceptions=True
                )
            for played in found:
                if isinstance(played, Played):
                    await street.look_back(played)
            await asterisk.quiet(GONE_S)
            channels = await asterisk.ask("core show channels")
    visits = dict(zip(SCENARIOS, found, strict=True))
    return Evening(visits, yardstick.ticks(), channels, gatehouse.settings.service.database_path)


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


def stalls(call: Call) -> list[tuple[float, float]]:
    """Where two packets came further apart than the telephone's buffer bears: second of the call, and ms."""
    times = [packet.at for packet in call.sound.packets]
    return [(round(b - times[0], 2), round((b - a) * 1000)) for a, b in pairwise(times) if b - a > BUFFER_S]


def moments(heard: Heard) -> list[tuple[float, float]]:
    """Beginning and end of each stretch of speech in the telephone, in monotonic seconds."""
    return [
        (heard.started + span.start / RATE, heard.started + span.end / RATE) for span in speech(heard.samples)
    ]


def spoken(heard: Heard, start: float, end: float) -> float:
    """How many seconds of speech lie between two monotonic seconds."""
    return sum(max(0.0, min(b, end) - max(a, start)) for a, b in moments(heard))


def assert_heard_us(call: Call) -> None:
    """The telephone heard us soon after it was answered, as loud as speech is."""
    heard = call.heard()
    first, _ = moments(heard)[0]
    assert first - call.answered_at < GREETED_S
    assert LEVEL_DBOV[0] < level(heard.samples) < LEVEL_DBOV[1]


def assert_heard_whole(leg: Leg, call: Call) -> None:
    """The telephone heard all that we said, when we said it, as loud as we said it."""
    heard = call.heard()
    ours = compare(leg.played, heard)
    # Our recording begins with the call: its place in what the telephone heard is how late the sound is.
    begun = heard.started + ours.offset / RATE - call.answered_at
    assert -0.1 < begun < 2.0, begun
    assert ours.longest_dropout_ms <= DROPOUT_MS, (ours, heard.late, stalls(call))
    assert ours.worst_likeness > ALIKE, ours
    assert abs(ours.gain_db) < 1, ours


def assert_heard_them(leg: Leg, says: Sequence[str]) -> None:
    """We heard all that a telephone said."""
    for name in says:
        said = np.frombuffer(load_wav(recording(name)), "<i2")
        theirs = compare(said, Heard(leg.heard, 0.0, np.ones(len(leg.heard), np.bool_), 0))
        assert theirs.longest_dropout_ms <= DROPOUT_MS, (name, theirs)
        assert theirs.worst_likeness > ALIKE, (name, theirs)


def our_turns(played: Played, role: str) -> list[Mapping[str, Any]]:
    """What we said on a leg."""
    return [
        turn for turn in played.report["turns"] if turn["leg"].startswith(role) and turn["speaker"] == "agent"
    ]


def assert_heard_turn(played: Played, call: Call, turn: Mapping[str, Any]) -> None:
    """The telephone heard a turn of ours at its time."""
    start, end = (played.zero + turn[edge] / 1000 for edge in ("started_ms", "ended_ms"))
    assert spoken(call.heard(), start, end + 2 * BUFFER_S) > SPOKEN_S, turn


def assert_goodbye(played: Played, role: str, call: Call, sentence: str) -> None:
    """The last that the telephone heard is this sentence, whole; then we hang up."""
    turn = our_turns(played, role)[-1]
    assert turn["text"] == SENTENCES[sentence], played.story
    assert_heard_turn(played, call, turn)
    # As it came: a telephone's buffer of a fixed delay drops what a standstill has made late.
    assert call.sound.last_loud > played.zero + turn["ended_ms"] / 1000 - SILENT_END_S, "its end is missing"
    assert call.closed.result() == Ended("them")


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
    else:
        assert played.call.closed.result() == Ended("us")


def _assert_residents_telephone(scenario: Scenario, played: Played) -> None:
    call = played.rung[-1]
    if scenario.picks != "answer":
        how = {"busy": Ended("us", 486), "reject": Ended("us", 603), "ring": Ended("them", 487)}
        assert [one.closed.result() for one in played.rung] == [how[scenario.picks]] * scenario.rings
        return
    assert_heard_us(call)
    briefing = our_turns(played, "resident")[0]
    assert f"apartamento {scenario.apartment}" in briefing["text"]
    assert_heard_turn(played, call, briefing)
    if scenario.goodbyes[1]:
        assert_goodbye(played, "resident", call, scenario.goodbyes[1])
    else:
        assert call.closed.result() == Ended("us")


@pytest.mark.parametrize("name", SCENARIOS)
async def test_all_that_was_said_is_heard_whole(name: str, evening: Evening) -> None:
    scenario, played = SCENARIOS[name], evening.visit(name)
    end = played.call.sound.packets[-1].at
    if (wait := worst_wait(evening.ticks, played.zero, end)) > STILL_S:
        pytest.skip(f"this machine let a process that only sleeps wait for {wait * 1000:.0f} ms")
    assert_heard_whole(played.legs["visitor"], played.call)
    assert_heard_them(played.legs["visitor"], scenario.visitor)
    if "resident" in played.legs:
        assert_heard_whole(played.legs["resident"], played.rung[-1])
        words = [what for what in scenario.resident if what != "hangup" and not what.startswith("key:")]
        assert_heard_them(played.legs["resident"], words)


async def test_no_channel_is_left(evening: Evening) -> None:
    assert "0 active channels" in evening.channels


async def test_the_audit_log_of_them_all_is_whole(evening: Evening) -> None:
    command = [sys.executable, "-m", "bridge.cli", "audit", "verify", "--db", str(evening.database)]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
