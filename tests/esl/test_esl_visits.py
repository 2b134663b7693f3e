"""What FreeSWITCH is asked for in whole visits, and what it is left alone with.

Each visit over each module is in test_module_visits.py.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from bridge.service import Service
from bridge.softphone import load_wav
from tests.endpoints.test_audio_stream_service import DOMAIN
from tests.endpoints.test_audio_stream_visits import quiet
from tests.service.doorman import Cast, Part
from tests.service.household import HELLO, Household, household, settings, until, with_cast
from tests.simulators.audio_stream import Kind
from tests.simulators.freeswitch import PASSWORD, Channel, FreeSwitch, Phone

PHONE = "user/1003030@jardim.example"


@dataclass
class Site:
    """A FreeSWITCH, and a service that it streams to."""

    switch: FreeSwitch
    house: Household
    cast: Cast
    port: int

    def url(self, visit: UUID) -> str:
        """Where a visitor's call is streamed to."""
        return f"ws://127.0.0.1:{self.port}/stream/{DOMAIN}/{visit}"

    async def visitor(self, visit: UUID) -> Channel:
        """A visitor calls, is greeted, and says whom they want."""
        url = self.url(visit)
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
    tmp_path: Path, kind: Kind = "base64", part: Part | None = None, *, sounds: bool = False, **own: Any
) -> AsyncIterator[Site]:
    switch = FreeSwitch(kind)
    await switch.open()
    port = free_port()
    (files := tmp_path / "sounds").mkdir()
    async with Cast(part) as cast:
        tenant = tenant_of(cast, switch, port, files)
        if sounds:
            tenant["esl"]["sounds"] = str(files)
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

    def answered(channel: Channel) -> None:
        channel.switch.spawn(talk(channel))

    return answered


async def test_a_resident_who_was_called_authorizes_by_key(tmp_path: Path) -> None:
    gate = {"kind": "dtmf", "digits": "#w9", "duration_ms": 50, "gap_ms": 50}
    async with site(tmp_path, gate=gate) as at:
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


async def test_a_gate_stays_closed_where_the_call_is_gone(tmp_path: Path) -> None:
    """The digits are played to their end on a channel that is still there, or the gate has not opened."""
    gate = {"kind": "dtmf", "digits": "9", "duration_ms": 500}
    async with site(tmp_path, gate=gate) as at:
        at.switch.phones[PHONE] = Phone(answered=presses("1"))
        visitor = await at.visitor(visit := uuid4())
        await until(lambda: visitor.digits == "9", 20, "the digit")
        visitor.hang_up()
        assert (await at.over(visit))[2] is False


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
