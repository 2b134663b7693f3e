"""The service's WebSocket port: which tenant, which leg, who may; what a barge-in leaves the model with."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
import orjson
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from bridge.endpoints.asterisk_websocket_media import FULL_FRAMES
from bridge.settings import SettingsError, build
from bridge.softphone import load_wav
from tests.service.doorman import LOWEST, Cast, Part
from tests.service.household import AUDIO, Household, household, until, with_cast

STORY = Part(exact_ms=10_000, piece_ms=200)
SPEECH = load_wav(AUDIO / "v21-leticia.wav")


class Pbx:
    """A channel as chan_websocket has one: a queue, a timer that takes a frame of it every 20 ms, marks.

    It shares the service's event loop, which may be late; its timer is not, as it would not be over there.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.queue: list[bytes | str] = []
        self.heard = bytearray()
        self.flushed: list[int] = []
        """Bytes that each flush dropped."""
        self.deepest = 0
        self.to_say = b""
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time()
        self._to_send: list[bytes | str] = []
        self.tasks = [self._loop.create_task(self._read()), self._loop.create_task(self._run())]

    async def _read(self) -> None:
        with suppress(ConnectionClosed):
            async for message in self.connection:
                self._catch_up()
                if isinstance(message, bytes):
                    self.queue += [message[at : at + 320] for at in range(0, len(message), 320)]
                    self.deepest = max(self.deepest, self._held() // 320)
                    continue
                order = orjson.loads(message)
                if order["command"] == "MARK_MEDIA":
                    self.queue.append(order["correlation_id"])
                if order["command"] == "FLUSH_MEDIA":
                    self.flushed.append(self._held())
                    self.queue.clear()

    def _held(self) -> int:
        return sum(len(each) for each in self.queue if isinstance(each, bytes))

    def _catch_up(self) -> None:
        """All that the timer has done by now."""
        while self._due <= self._loop.time():
            while self.queue and isinstance(self.queue[0], str):
                event = {"event": "MEDIA_MARK_PROCESSED", "correlation_id": self.queue.pop(0)}
                self._to_send.append(orjson.dumps(event).decode())
            taken = self.queue.pop(0) if self.queue else b""
            assert isinstance(taken, bytes)
            self.heard += taken
            self._to_send.append(self.to_say[:320].ljust(320, b"\0"))
            self.to_say = self.to_say[320:]
            self._due += 0.02

    async def _run(self) -> None:
        with suppress(ConnectionClosed):
            while True:
                self._catch_up()
                said, self._to_send = self._to_send, []
                for each in said:
                    await self.connection.send(each)
                await asyncio.sleep(self._due - self._loop.time())

    async def end(self) -> None:
        await self.connection.close()
        await asyncio.gather(*self.tasks)


def start(call_id: UUID) -> str:
    tree = {
        "event": "MEDIA_START",
        "connection_id": "porteiro",
        "channel": "WebSocket/porteiro/0x1",
        "channel_id": "17.1",
        "format": "slin",
        "optimal_frame_size": 320,
        "ptime": 20,
        "channel_variables": {"__PORTEIRO_CALL": str(call_id)},
    }
    return orjson.dumps(tree).decode()


def url(house: Household, path: str) -> str:
    return f"ws://127.0.0.1:{house.service.websocket_port}/asterisk/{path}"


MOST_FLUSHED = math.ceil(FULL_FRAMES) + 1
"""Frames that lie in Asterisk behind one of ours: it gets none while it has over `FULL_FRAMES`."""

MOST_HELD = MOST_FLUSHED + 2
"""Frames that were on their way while its timer found nothing come on top, until a mark says so.

Seven and eight were measured while what our clock made good after a standstill was sent at once: Asterisk's
timer had gone on, so all of it came on top of what is always there, and lay there until the next pause.
"""


async def test_a_visitor_speaks_over_us_and_the_model_remembers_what_was_heard(tmp_path: Path) -> None:
    async with Cast(STORY) as cast:
        tenants = {"jardim": with_cast(cast)}
        async with household(tmp_path, tenants, websocket_port=0) as house:
            for standstill_s in (0.0, 0.12, 0.18):
                visit = uuid4()
                async with connect(url(house, "jardim/visitor"), compression=None) as connection:
                    await connection.send(start(visit))
                    pbx = Pbx(connection)
                    await until(lambda: ours(pbx) > 400, 10, "our voice")  # noqa: B023
                    time.sleep(standstill_s)  # noqa: ASYNC251 - the whole loop: nothing is sent meanwhile
                    await until(lambda: ours(pbx) > 1200, 10, "more of it")  # noqa: B023
                    doorman = cast.doormen[-1]
                    pbx.to_say = SPEECH
                    await until(lambda: doorman.truncated, 10, "the truncation")  # noqa: B023
                    await until(lambda: pbx.flushed, 2, "the flush")  # noqa: B023
                    heard_ms = ours(pbx)
                    await asyncio.sleep(0.3)
                    assert ours(pbx) == heard_ms, "nothing of before the flush is heard behind it"
                    await pbx.end()
                await house.service.visit_over(visit)
                assert pbx.deepest <= MOST_HELD, "a reply of ten seconds waits with us, not there"
                assert 0 < pbx.flushed[0] <= MOST_FLUSHED * 320
                assert abs(float(doorman.truncated["say_1"]) - heard_ms) <= 42, "to two frames"
                (posted,) = house.of(visit, "barge_in")
                turns = [record for record in await house.records(visit) if record.kind == "turn"]
                (turn,) = [record for record in turns if record.data["speaker"] == "agent"]
                assert turn.data["heard_ms"] == posted.data["heard_ms"]


def ours(pbx: Pbx) -> float:
    """Milliseconds of the model's voice that the other side heard."""
    samples = np.frombuffer(bytes(pbx.heard), "<i2").astype(np.int32)
    return float((abs(samples - LOWEST) < 100).sum()) / 8


async def refused(address: str, headers: Mapping[str, str] | None = None) -> int | None:
    """The status or close code that a call is turned away with; None where it is taken."""
    try:
        async with connect(address, compression=None, additional_headers=headers) as connection:
            await connection.send(start(uuid4()))
            await asyncio.wait_for(connection.wait_closed(), 1)
            return connection.close_code
    except InvalidStatus as error:
        return error.response.status_code
    except TimeoutError:
        return None


async def test_a_path_leads_to_one_leg_of_one_tenant_who_has_a_password_of_their_own(tmp_path: Path) -> None:
    environ = {"A_USER": "a", "A_PASSWORD": "of a", "B_USER": "b", "B_PASSWORD": "of b"}
    async with Cast(STORY) as cast:
        tenants = {
            name: with_cast(cast, websocket_username_env=f"{x}_USER", websocket_password_env=f"{x}_PASSWORD")
            for name, x in (("jardim", "A"), ("bosque", "B"))
        }
        async with household(tmp_path, tenants, environ=environ, websocket_port=0) as house:
            a = {"Authorization": "Basic YTpvZiBh"}
            assert await refused(url(house, "jardim/visitor")) == 401
            assert await refused(url(house, "bosque/visitor"), a) == 401
            assert await refused(url(house, "jardim/visitor"), a) is None
            assert await refused(url(house, "jardim/resident"), a) == 1008, "nobody was dialled"
            assert await refused(url(house, "nobody/visitor"), a) == 404
            draining = asyncio.ensure_future(house.service.drain())
            await asyncio.sleep(0.05)
            assert await refused(url(house, "jardim/visitor"), a) == 503
            assert await refused(url(house, "jardim/resident"), a) == 1008, "running visits go on"
            await draining


async def test_without_a_port_there_is_none(tmp_path: Path) -> None:
    async with Cast() as cast, household(tmp_path, {"jardim": with_cast(cast)}) as house:
        assert house.service.websocket_port is None


@pytest.mark.parametrize(
    ("service", "tenant", "found"),
    [
        ({"websocket_certificate": "a.pem"}, {}, "go together"),
        ({}, {"websocket_username_env": "USER_OF_PBX"}, "go together"),
        ({"websocket_port": 8080, "visitor_port": 8080}, {}, "service.websocket_port"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    service: dict[str, object], tenant: dict[str, object], found: str
) -> None:
    tree = {"service": service, "tenants": {"jardim": {"directory": "x.json", **tenant}}}
    with pytest.raises(SettingsError, match=found):
        build(tree)


async def test_a_password_that_is_not_there_keeps_the_service_from_starting(tmp_path: Path) -> None:
    async with Cast() as cast:
        tenant = with_cast(cast, websocket_username_env="NO_USER", websocket_password_env="NO_PASSWORD")
        with pytest.raises(SettingsError, match="NO_PASSWORD"):
            async with household(tmp_path, {"jardim": tenant}, websocket_port=0):
                pass


async def test_a_certificate_that_is_none_is_a_problem_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_text("none")
    pem = str(tmp_path / "x.pem")
    async with Cast() as cast:
        tenants = {"jardim": with_cast(cast)}
        with pytest.raises(SettingsError, match="websocket_certificate"):
            async with household(
                tmp_path, tenants, websocket_port=0, websocket_certificate=pem, websocket_key=pem
            ):
                pass
