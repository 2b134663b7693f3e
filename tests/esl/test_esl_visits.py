"""Whole visits with FreeSWITCH: it has residents called, plays digits, transfers and hangs up."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from bridge.service import Service
from bridge.softphone import load_wav
from tests.endpoints.test_audio_stream_service import DOMAIN, SPEECH, ours
from tests.endpoints.test_audio_stream_visits import quiet
from tests.service.doorman import ASKS, Cast, Part, Turn
from tests.service.household import HELLO, Household, household, settings, until, with_cast
from tests.service.test_connected_parties import (
    CONNECT,
    ENOUGH_S,
    RESIDENT_HZ,
    TALK_S,
    VISITOR_HZ,
    pcm,
    seconds_of,
    tone,
)
from tests.simulators.audio_stream import Kind, Stream
from tests.simulators.freeswitch import PASSWORD, Channel, FreeSwitch, Phone
from tests.simulators.openai_realtime import Call, Reply

PHONE = "user/1003030@jardim.example"


@dataclass
class Site:
    """A FreeSWITCH, and a service that it streams to."""

    switch: FreeSwitch
    house: Household
    cast: Cast
    port: int

    async def visitor(self, visit: UUID) -> Channel:
        """A visitor calls, is greeted, and says whom they want."""
        url = f"ws://127.0.0.1:{self.port}/stream/{DOMAIN}/{visit}"
        said = json.dumps({"caller_id": "1001", "playback": self.switch.kind}, separators=(",", ":"))
        channel = await self.switch.call_in(str(visit), url, said)
        await self.house.greeted(visit)
        assert channel.stream is not None
        channel.stream.to_say = load_wav(HELLO)
        return channel

    async def over(self, visit: UUID) -> tuple[str | None, str | None, bool | None]:
        """The outcome, once the visit is over and nobody's channel is left."""
        async with asyncio.timeout(40):
            while not self.house.of(visit, "visit.ended"):
                await asyncio.sleep(0.02)
        assert await self.house.service.visit_over(visit, 10)
        await until(lambda: not self.switch.channels, 5, "the end of every channel")
        streams = [channel.stream for channel in self.switch.made if channel.stream is not None]
        assert not [problem for stream in streams for problem in stream.problems]
        return await self.house.outcome(visit)


@asynccontextmanager
async def site(
    tmp_path: Path, kind: Kind = "base64", part: Part | None = None, **own: Any
) -> AsyncIterator[Site]:
    switch = FreeSwitch(kind)
    await switch.open()
    port = free_port()
    (files := tmp_path / "sounds").mkdir()
    async with Cast(part) as cast:
        tenant = tenant_of(cast, switch, port, files)
        environ = {"ESL_PASSWORD": PASSWORD}
        async with household(
            tmp_path, {"jardim": tenant | own}, environ=environ, simulated=False, audio_stream_port=port
        ) as house:
            await until(lambda: switch.listeners == 1, what="the connection")
            try:
                yield Site(switch, house, cast, port)
            finally:
                await switch.close()
        assert [*files.iterdir()] == [] and not [one for each in switch.made for one in each.missing]


def tenant_of(cast: Cast, switch: FreeSwitch, port: int, files: Path) -> dict[str, Any]:
    """A tenant whose calls are all FreeSWITCH's."""
    sounds = {"sounds": str(files)} if switch.kind == "file" else {}
    return with_cast(cast) | {
        "freeswitch": {"domain_uuid": str(DOMAIN), "playback": switch.kind},
        "esl": {"port": switch.port, "password_env": "ESL_PASSWORD", **sounds},
        "dialer": {
            "kind": "freeswitch",
            "domain": "jardim.example",
            "caller_id_name": "Portaria",
            "stream_url": f"ws://127.0.0.1:{port}",
        },
    }


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def presses(digit: str) -> Callable[[Channel], None]:
    """A resident who hears the briefing out and presses a key; and again, where nothing comes of it.

    On a loaded machine a hole in the sound may look like its end.
    """

    async def talk(channel: Channel) -> None:
        await until(lambda: channel.stream is not None, what="the stream")
        stream = channel.stream
        assert stream is not None
        await until(lambda: stream.heard_as_speech_ms() > 0, 15, "the briefing")
        while not channel.over.is_set():
            await quiet(stream)
            channel.press(digit)
            await asyncio.wait(stream.tasks, timeout=3)

    return runs(talk)


def runs(talk: Callable[[Channel], Awaitable[None]]) -> Callable[[Channel], None]:
    """What a phone does once it is answered."""

    def answered(channel: Channel) -> None:
        channel.switch.spawn(talk(channel))

    return answered


@pytest.mark.parametrize("kind", ["binary", "fork", "base64", "file"])
async def test_a_resident_who_was_called_authorizes_by_key(tmp_path: Path, kind: Kind) -> None:
    gate = {"kind": "dtmf", "digits": "#w9", "duration_ms": 50, "gap_ms": 50}
    async with site(tmp_path, kind, gate=gate) as at:
        at.switch.phones[PHONE] = Phone(answered=presses("1"))
        visit = uuid4()
        visitor = await at.visitor(visit)
        assert (await at.over(visit))[::2] == ("authorized", True)
        ((phone, variables),) = at.switch.rang
        assert phone == PHONE and variables["domain_uuid"] == str(DOMAIN)
        assert (
            variables["ignore_early_media"] == "true"
            and variables["origination_caller_id_name"] == "Portaria"
        )
        assert float(variables["originate_timeout"]) == 5
        resident = at.switch.made[1]
        assert (visitor.digits, resident.digits) == ("#9", ""), "the intercom's own relay opens by them"
        (dialled,) = [one for one in await at.house.records(visit) if one.kind == "dial.started"]
        assert resident.uuid == variables["origination_uuid"] == dialled.data["attempt"]
        assert (visitor.cause, resident.cause) == ("NORMAL_CLEARING", "NORMAL_CLEARING"), "by us"
        kills = [one for one in at.switch.commands if one.startswith("uuid_kill")]
        assert {one.split(" ")[1] for one in kills} == {visitor.uuid, resident.uuid}


async def test_a_resident_denies_by_key(tmp_path: Path) -> None:
    async with site(tmp_path) as at:
        at.switch.phones[PHONE] = Phone(answered=presses("2"))
        await at.visitor(visit := uuid4())
        assert (await at.over(visit))[::2] == ("denied", None)


@pytest.mark.parametrize(
    ("phone", "reason"), [(Phone("USER_BUSY"), "busy"), (Phone(after_s=None), "no_answer")]
)
async def test_a_resident_who_is_not_reached(tmp_path: Path, phone: Phone, reason: str) -> None:
    limits = {"ring_s": 5.0, "dial_attempts": 1}
    async with site(tmp_path, limits=limits) as at:
        at.switch.phones[PHONE] = phone
        await at.visitor(visit := uuid4())
        assert await at.over(visit) == ("unreachable", reason, None)


async def test_nobody_is_left_ringing_for_a_visitor_who_has_gone(tmp_path: Path) -> None:
    async with site(tmp_path) as at:
        at.switch.phones[PHONE] = Phone(after_s=None)
        visitor = await at.visitor(visit := uuid4())
        await until(lambda: len(at.switch.made) == 2, 15, "the call")
        visitor.hang_up()
        assert (await at.over(visit))[0] == "abandoned"
        assert at.switch.made[1].cause == "NORMAL_CLEARING" and not at.switch.made[1].up


async def test_a_gate_stays_closed_where_the_call_is_gone(tmp_path: Path) -> None:
    """The digits are played to their end on a channel that is still there, or the gate has not opened."""
    gate = {"kind": "dtmf", "digits": "9", "duration_ms": 500}
    async with site(tmp_path, gate=gate) as at:
        at.switch.phones[PHONE] = Phone(answered=presses("1"))
        visitor = await at.visitor(visit := uuid4())
        await until(lambda: visitor.digits == "9", 20, "the digit")
        visitor.hang_up()
        assert (await at.over(visit))[2] is False


@pytest.mark.parametrize(
    ("call", "extension", "reason"),
    [
        (Call("transfer_to_attendant", "{}"), "9000", "attendant"),
        (Call("transfer_call", '{"to": "a zeladoria, por favor"}'), "9010", "transferred"),
    ],
)
async def test_a_visitor_is_handed_over_to_the_attendant_or_a_department(
    tmp_path: Path, call: Call, extension: str, reason: str
) -> None:
    part = Part((Turn("Quero falar com alguém.", Reply((call,))),))
    people: dict[str, Any] = {
        "attendant": {"extension": "9000"},
        "departments": {"Zeladoria": {"extension": "9010"}},
    }
    async with site(tmp_path, part=part, **people) as at:
        visitor = await at.visitor(visit := uuid4())
        await until(lambda: visitor.transferred, 20, "the transfer")
        assert visitor.transferred == extension and not visitor.over.is_set(), "it goes on, without us"
        visitor.hang_up()
        assert await at.over(visit) == ("unreachable", reason, None)


async def test_a_barge_in_on_files_and_what_the_model_remembers(tmp_path: Path) -> None:
    """Measured by the channel's own clock: what was heard, and what the ledger says of it."""
    part = Part(exact_ms=10_000, piece_ms=200)
    async with site(tmp_path, "file", part=part) as at:
        url = f"ws://127.0.0.1:{at.port}/stream/{DOMAIN}/{(visit := uuid4())}"
        channel = await at.switch.call_in(str(visit), url, '{"playback":"file"}')
        stream = channel.stream
        assert stream is not None
        await until(lambda: ours(stream) > 2000, 15, "our voice")
        doorman = at.cast.doormen[-1]
        stream.to_say = SPEECH
        await until(lambda: doorman.truncated, 10, "the truncation")
        await asyncio.sleep(0.4)
        heard_ms = ours(stream)
        await asyncio.sleep(0.4)
        assert ours(stream) == heard_ms, "nothing of before the barge-in is heard behind it"
        assert abs(float(doorman.truncated["say_1"]) - heard_ms) <= 62, "to three frames"
        assert sum(one.startswith("uuid_break") for one in at.switch.commands) == 1
        assert heard_ms > 0.85 * (len(channel.played) - 1) * 200, "with few holes"
        channel.hang_up()
        await at.over(visit)


@pytest.mark.parametrize("kind", ["base64", "file"])
async def test_both_are_connected_and_the_resident_decides_by_key(tmp_path: Path, kind: Kind) -> None:
    """Through us, and not by ``uuid_bridge``: keys go on to count, by events of the resident's channel."""
    async with site(tmp_path, kind, part=Part(ASKS, (CONNECT,))) as at:
        visit = uuid4()

        async def talk(channel: Channel) -> None:
            await until(lambda: channel.stream is not None, what="the stream")
            resident, visitor = channel.stream, at.switch.made[0]
            assert resident is not None and visitor.stream is not None
            await until(lambda: resident.heard_as_speech_ms() > 0, 15, "the briefing")
            await quiet(resident)
            resident.to_say = load_wav(HELLO)
            await until(lambda: at.house.of(visit, "parties.connected"), 20, "the connection")
            resident.to_say, visitor.stream.to_say = tone(RESIDENT_HZ, TALK_S), tone(VISITOR_HZ, TALK_S)
            await hears(resident, VISITOR_HZ)
            await hears(visitor.stream, RESIDENT_HZ)
            channel.press("1")

        at.switch.phones[PHONE] = Phone(answered=runs(talk))
        await at.visitor(visit)
        assert (await at.over(visit))[::2] == ("authorized", True)
        assert not [one for one in at.switch.commands if one.startswith("uuid_bridge")]


async def hears(stream: Stream, hz: float) -> None:
    """Wait until a telephone has heard enough of a tone."""
    async with asyncio.timeout(20):
        while seconds_of(hz, pcm(stream.heard[-32_000:])) < ENOUGH_S:
            await asyncio.sleep(0.1)


async def test_a_channel_of_another_domain_is_left_alone(tmp_path: Path) -> None:
    """Whoever may stream for one tenant names a channel of another's: nothing is done to that."""
    async with site(tmp_path, attendant={"extension": "9000"}) as at:
        url = f"ws://127.0.0.1:{at.port}/stream/{DOMAIN}/{(visit := uuid4())}"
        other = {"domain_uuid": str(uuid4())}
        channel = await at.switch.call_in(str(visit), url, "{}", other)
        assert channel.stream is not None
        await asyncio.wait(channel.stream.tasks, timeout=10)
        await until(lambda: at.house.of(visit, "visit.ended"), 10, "the end")
        assert str(visit) in at.switch.channels, "it goes on"
        asked = [one.split(" ")[0] for one in at.switch.commands if str(visit) in one]
        assert set(asked) <= {"uuid_audio_stream", "uuid_getvar"}
        channel.hang_up()
        same = {"domain_uuid": str(DOMAIN).upper()}
        url = url.replace(str(visit), str(again := uuid4()))
        (await at.switch.call_in(str(again), url, "{}", same)).hang_up()
        await at.over(again)


async def test_every_worker_has_its_own_connection(tmp_path: Path) -> None:
    switch, port = FreeSwitch("file"), free_port()
    await switch.open()
    (files := tmp_path / "sounds").mkdir()
    switch.phones[PHONE] = Phone(answered=presses("1"))
    async with Cast() as cast:
        tenants = {"jardim": tenant_of(cast, switch, port, files)}
        environ = {"ESL_PASSWORD": PASSWORD}
        service = Service(settings(tmp_path, tenants, environ, workers=2, audio_stream_port=port))
        await service.start()
        try:
            await until(lambda: switch.listeners == 2, what="both connections")
            visits = [uuid4(), uuid4()]
            for visit in visits:
                url = f"ws://127.0.0.1:{port}/stream/{DOMAIN}/{visit}"
                visitor = (await switch.call_in(str(visit), url, '{"playback":"file"}')).stream
                assert visitor is not None
                await until(lambda: visitor.heard_as_speech_ms() > 200, 15, "the greeting")  # noqa: B023
                await quiet(visitor)
                visitor.to_say = load_wav(HELLO)
            for visit in visits:
                assert await ended(service, visit) == "authorized"
            await until(lambda: not switch.channels, 5, "the end of every channel")
            assert len({dialled["origination_uuid"] for _, dialled in switch.rang}) == 2
        finally:
            await service.stop()
            await switch.close()


async def ended(service: Service, visit: UUID) -> str | None:
    """The outcome of a visit that another process runs."""
    async with asyncio.timeout(40):
        while True:
            view = await service.storage.visit(str(visit))
            if view is not None and view.summary.outcome is not None:
                return view.summary.outcome
            await asyncio.sleep(0.1)
