"""Asterisk's own WebSocket channel against our endpoint, a SIP telephone behind a real Asterisk."""

from __future__ import annotations

import asyncio
import base64
import re
import time
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from uuid import UUID, uuid4

import numpy as np
import pytest
import pytest_asyncio
from websockets.asyncio.server import ServerConnection, serve

from audio.frames import SILENCE, level_dbov
from audio.resample import Resampler
from bridge.clock import Clock
from bridge.endpoints.asterisk_websocket import AsteriskWebsocketEndpoint, connect_media
from bridge.endpoints.asterisk_websocket_control import Command, Form, MarkProcessed, Status, command, parse
from bridge.endpoints.asterisk_websocket_server import AsteriskWebsocketServer, Route
from bridge.endpoints.base import EndpointClosed, Refusal
from tests.pbx.asterisk import Asterisk
from tests.pbx.gatehouse import recording, until
from tests.pbx.installation import Installation
from tests.pbx.listening import speech, tone, tone_seconds
from tests.pbx.phone import Call, Phone
from tests.ports import free_port

pytestmark = [pytest.mark.pbx, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(90)]

CREDENTIALS = ("asterisk", "change-me-websocket")
"""As asterisk/websocket_client.conf has them."""

SPEECH_DBOV = -40.0
SILENT_WITHIN_S = 0.25
"""From our flush to the last of it in the telephone: the queues of Asterisk's RTP and the phone's own."""

DIALPLAN = """
[house](+)
exten => _ws-.,1,Answer()
 same => n,Set(_PORTEIRO_CALL=${UUID()})
 same => n,Dial(WebSocket/porteiro/${EXTEN:3},,g)
 same => n,Log(NOTICE,${EXTEN} was ${DIALSTATUS})
 same => n,Hangup()
exten => _stale-.,1,Answer()
 same => n,Dial(WebSocket/porteiro/${EXTEN:6},,g)
 same => n,Hangup()
exten => _raw-.,1,Answer()
 same => n,Dial(WebSocket/raw/${EXTEN:4},,g)
 same => n,Hangup()

[echo]
exten => s,1,Answer()
 same => n,Echo()
"""


class Line:
    """A leg without a model: plays what it has to say, hears, falls silent when it is told to."""

    def __init__(self, endpoint: AsteriskWebsocketEndpoint, clock: Clock) -> None:
        self.endpoint = endpoint
        self.to_say = bytearray()
        self.said: list[float] = []
        self.heard = bytearray()
        self.rate = 0
        self.keys: list[str] = []
        self.closed: list[EndpointClosed] = []
        self.flush_on_speech = False
        self.flushed_at = 0.0
        self.unheard = 0
        self._clock = clock
        clock.add(self)

    def tick(self, skipped: int) -> None:
        frame = bytes(self.to_say[:320]).ljust(320, b"\0") if self.to_say else SILENCE
        del self.to_say[:320]
        self.endpoint.play(frame)

    def fail(self, error: Exception) -> None:
        raise error

    def audio_in(self, pcm: bytes, rate: int) -> None:
        self.heard += pcm
        self.rate = rate
        if self.flush_on_speech and level_dbov(pcm) > SPEECH_DBOV:
            self.flush_on_speech = False
            self.to_say.clear()
            self.unheard = self.endpoint.flush()
            self.flushed_at = time.monotonic()

    def key_pressed(self, digit: str) -> None:
        self.keys.append(digit)

    def endpoint_closed(self, reason: EndpointClosed) -> None:
        self._clock.discard(self)
        self.closed.append(reason)

    def heard_tone(self, hertz: float) -> float:
        """Seconds of a tone in what came."""
        pcm = Resampler(self.rate, 8000).process(bytes(self.heard)) if self.rate else b""
        return tone_seconds(np.frombuffer(pcm, "<i2"), hertz)


class Desk:
    """Takes what comes to our WebSocket port."""

    def __init__(self, port: int) -> None:
        self.refuses = False
        self.lines: list[Line] = []
        self._clock = Clock()
        self.server = AsteriskWebsocketServer(
            ["127.0.0.1"],
            port,
            allowed=[ip_network("127.0.0.0/8")],
            routes={"/asterisk/jardim/visitor": Route(self.accept, CREDENTIALS)},
        )

    async def __aenter__(self) -> Desk:
        self._clock.start()
        await self.server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.stop()
        self._clock.stop()

    def accept(self, endpoint: AsteriskWebsocketEndpoint) -> Line | Refusal:
        if self.refuses:
            return Refusal("the desk is closed")
        self.lines.append(Line(endpoint, self._clock))
        return self.lines[-1]

    async def line(self) -> Line:
        """The newest call's."""
        await until(lambda: bool(self.lines), 10, "a call")
        return self.lines[-1]


@dataclass
class Site:
    """A running Asterisk, and the ports where it looks for us."""

    asterisk: Asterisk
    port: int
    raw_port: int


@pytest.fixture(scope="module")
def site(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The example configuration, with this test's ports."""
    port, raw_port = free_port(), free_port()
    client = (
        f"[porteiro](+)\nuri = ws://127.0.0.1:{port}/asterisk/jardim/visitor\n"
        "[raw]\ntype = websocket_client\nconnection_type = per_call_config\n"
        f"uri = ws://127.0.0.1:{raw_port}/\n"
        "[wrong](porteiro)\npassword = not-this\n"
    )
    extra = {"websocket_client.conf": client, "extensions.conf": DIALPLAN}
    with Asterisk(installation, site=extra, keep=tmp_path_factory.mktemp("asterisk")) as asterisk:
        yield Site(asterisk, port, raw_port)


@pytest_asyncio.fixture(loop_scope="module")
async def desk(site: Site) -> AsyncIterator[Desk]:
    async with Desk(site.port) as desk:
        yield desk
    assert not await site.asterisk.quiet(), "no channel is left in Asterisk"


@pytest_asyncio.fixture(loop_scope="module")
async def intercom(site: Site) -> AsyncIterator[Phone]:
    async with Phone(site.asterisk.sip, "intercom", "change-me-intercom") as phone:
        yield phone


async def connected(intercom: Phone, desk: Desk, options: str) -> tuple[Call, Line]:
    call = await intercom.call(f"ws-{options}")
    await call.wait_answered()
    return call, await desk.line()


async def ari(site: Site, endpoint: str, channel_id: UUID) -> None:
    """Have a channel made that is echoed what it says."""
    query = {"endpoint": endpoint, "channelId": str(channel_id), "context": "echo", "extension": "s"}
    request = urllib.request.Request(
        f"{site.asterisk.ari_url}/channels?{urllib.parse.urlencode(query)}",
        method="POST",
        headers={"Authorization": "Basic " + base64.b64encode(b"porteiro:change-me-ari").decode()},
    )
    await asyncio.to_thread(lambda: urllib.request.urlopen(request, timeout=10).close())


# ---- Asterisk connects to us ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "rate"), [("slin16", 16000), ("slin", 8000), ("alaw", 8000), ("ulaw", 8000)]
)
async def test_sound_and_keys_and_our_hang_up(desk: Desk, intercom: Phone, codec: str, rate: int) -> None:
    call, line = await connected(intercom, desk, f"c({codec})f(json)n")
    line.to_say += tone(700, 1.5)
    await call.say(tone(440, 1.5))
    call.press("7#")
    await until(lambda: line.keys == ["7", "#"], 5, "the keys")
    assert line.rate == rate
    assert line.heard_tone(440) > 1.4
    assert tone_seconds(call.heard().samples, 700) > 1.4
    line.to_say += tone(900, 0.5)
    await until(lambda: not line.to_say, 5, "our last words")
    line.endpoint.hang_up()
    assert (await call.wait_closed()).by == "them"
    assert tone_seconds(call.heard().samples, 900) > 0.44, "they are heard to their end"
    assert [each.kind for each in line.closed] == ["local"]
    assert line.endpoint.frames_dropped == 0


async def test_the_callers_hang_up(desk: Desk, intercom: Phone) -> None:
    call, line = await connected(intercom, desk, "c(slin16)f(json)n")
    await asyncio.sleep(0.3)
    await call.hang_up()
    await until(lambda: bool(line.closed), 5, "the end")
    assert line.closed[0].kind == "hangup"


async def test_what_we_say_comes_out_whole(desk: Desk, intercom: Phone) -> None:
    """Ten seconds of a tone: Asterisk is never without a frame, so nothing is missing in it."""
    call, line = await connected(intercom, desk, "c(slin)f(json)n")
    await asyncio.sleep(0.3)
    line.to_say += tone(500, 10)
    await until(lambda: not line.to_say, 15, "the end of it")
    await asyncio.sleep(0.4)
    (span,) = speech(call.heard().samples)
    assert 9.9 < span.seconds < 10.1
    assert tone_seconds(call.heard().samples, 500) > 9.8
    await call.hang_up()


async def test_ten_seconds_are_queued_and_the_caller_speaks(desk: Desk, intercom: Phone) -> None:
    """The queue is ours, and what Asterisk holds of it is taken back: it falls silent at once."""
    call, line = await connected(intercom, desk, "c(slin16)f(json)n")
    line.to_say += tone(700, 10)
    await until(lambda: tone_seconds(call.heard().samples, 700) > 0.8, 5, "our voice")
    line.flush_on_speech = True
    await call.say(recording("v01-leticia"))
    assert line.flushed_at
    assert 0 < line.unheard <= 800
    heard = call.heard()
    after = heard.between(line.flushed_at + SILENT_WITHIN_S, time.monotonic())
    assert len(after) > 4000 and tone_seconds(after, 700) == 0
    line.to_say += tone(900, 0.5)
    await asyncio.sleep(0.8)
    assert tone_seconds(call.heard().samples, 900) > 0.44, "and it can be spoken to again"
    await call.hang_up()


async def test_a_refused_call_was_never_answered(site: Site, desk: Desk, intercom: Phone) -> None:
    desk.refuses = True
    call = await intercom.call("ws-c(slin)f(json)n")
    assert (await call.wait_closed()).by == "them"
    assert "ws-c(slin)f(json)n was NOANSWER" in site.asterisk.log()


async def test_nobody_there_is_told_to_the_dialplan_quickly(site: Site, intercom: Phone) -> None:
    began = time.monotonic()
    call = await intercom.call("ws-c(alaw)f(json)n")
    assert (await call.wait_closed()).by == "them"
    assert time.monotonic() - began < 5
    assert re.search(r"ws-c\(alaw\)f\(json\)n was (CHANUNAVAIL|CONGESTION|NOANSWER)", site.asterisk.log())


async def _attendant_takes(site: Site, intercom: Phone) -> None:
    """The example's extension: a call that Porteiro does not take is the attendant's."""
    async with Phone(site.asterisk.sip, "attendant", "change-me-attendant", after_s=0.3) as attendant:
        call = await intercom.call("portariaws")
        taken = await attendant.next_call()
        await taken.wait_answered()
        await call.say(tone(500, 1.0))
        await asyncio.sleep(0.3)
        assert tone_seconds(taken.heard().samples, 500) > 0.8
        await call.hang_up()
        assert (await taken.wait_closed()).by == "them"
    assert not await site.asterisk.quiet()


async def test_the_attendant_is_rung_where_nobody_listens(site: Site, intercom: Phone) -> None:
    await _attendant_takes(site, intercom)
    assert "Porteiro did not take the WebSocket call" in site.asterisk.log()


async def test_the_attendant_is_rung_where_the_call_is_refused(
    site: Site, desk: Desk, intercom: Phone
) -> None:
    desk.refuses = True
    await _attendant_takes(site, intercom)


async def test_the_examples_extension_streams_wideband_and_ends_with_us(desk: Desk, intercom: Phone) -> None:
    call = await intercom.call("portariaws")
    line = await desk.line()
    await until(lambda: line.rate == 16000, 5, "sound at 16 kHz")
    await asyncio.sleep(2.5)  # longer than the dialplan's REFUSED_WITHIN: a call that was served
    line.endpoint.hang_up()
    assert (await call.wait_closed()).by == "them"


async def test_a_call_that_its_channel_does_not_name_is_refused(desk: Desk, intercom: Phone) -> None:
    """Asterisk keeps v(…) for the next call on the same connection: it may name the wrong one."""
    call = await intercom.call(f"stale-c(slin)f(json)nv(call={uuid4()})")
    assert (await call.wait_closed()).by == "them"
    assert not desk.lines


async def test_many_at_once_are_each_who_they_say(site: Site, desk: Desk) -> None:
    ids = [uuid4() for _ in range(10)]
    await asyncio.gather(*(ari(site, "WebSocket/porteiro/c(slin)f(plain-text)", each) for each in ids))
    await until(lambda: len(desk.lines) == len(ids), 10, "all calls")
    assert {line.endpoint.call_id for line in desk.lines} == set(ids)
    for number, line in enumerate(desk.lines):
        line.to_say += tone(400 + 100 * number, 1.0)
    await asyncio.sleep(1.8)
    for number, line in enumerate(desk.lines):
        assert line.heard_tone(400 + 100 * number) > 0.9
        line.endpoint.hang_up()
    await until(lambda: all(line.closed for line in desk.lines), 5, "their ends")


async def test_a_wrong_password_is_no_call(site: Site, desk: Desk) -> None:
    await ari(site, "WebSocket/wrong/c(slin)f(plain-text)", uuid4())
    await asyncio.sleep(0.5)
    assert not desk.lines


# ---- Its queue, flushed: in both forms of control ------------------------------------------------------


@asynccontextmanager
async def raw_server(site: Site) -> AsyncIterator[asyncio.Queue[ServerConnection]]:
    """Gives the connections as they are."""
    arrived: asyncio.Queue[ServerConnection] = asyncio.Queue()

    async def handler(connection: ServerConnection) -> None:
        arrived.put_nowait(connection)
        await connection.wait_closed()

    async with serve(handler, "127.0.0.1", site.raw_port, compression=None, max_queue=None):
        yield arrived


@pytest.mark.parametrize("form", Form)
async def test_nothing_that_asterisk_flushed_is_heard(site: Site, intercom: Phone, form: Form) -> None:
    """Ten seconds lie in Asterisk. After FLUSH_MEDIA nothing of them is heard, no mark comes of before."""
    async with raw_server(site) as arrived:
        call = await intercom.call(f"raw-c(slin)f({form.value})")
        await call.wait_answered()
        connection = await asyncio.wait_for(arrived.get(), 5)
        voice, events = tone(700, 10), asyncio.Queue[object]()

        async def read() -> None:
            async for message in connection:
                if isinstance(message, str):
                    spoken, event = parse(message.encode())
                    assert spoken is form
                    events.put_nowait(event)

        reading = asyncio.ensure_future(read())
        await connection.send(command(form, Command.START_MEDIA_BUFFERING))
        for at in range(0, len(voice), 64_000):
            await connection.send(voice[at : at + 64_000])
        await connection.send(command(form, Command.STOP_MEDIA_BUFFERING, "all"))
        await connection.send(command(form, Command.MARK_MEDIA, "never"))
        await until(lambda: tone_seconds(call.heard().samples, 700) > 1, 5, "our voice")
        await connection.send(command(form, Command.GET_STATUS))
        await connection.send(command(form, Command.FLUSH_MEDIA))
        flushed_at = time.monotonic()
        await connection.send(command(form, Command.GET_STATUS))
        await connection.send(command(form, Command.MARK_MEDIA, "behind"))
        await call.say(recording("v01-leticia"))
        assert time.monotonic() - flushed_at > 1.5, "there was time to hear more"
        after = call.heard().between(flushed_at + SILENT_WITHIN_S, time.monotonic())
        assert tone_seconds(after, 700) == 0
        await connection.send(tone(900, 0.5))
        await asyncio.sleep(0.8)
        assert tone_seconds(call.heard().samples, 900) > 0.44, "what came behind the flush is heard"
        seen = [events.get_nowait() for _ in range(events.qsize())]
        before, behind = [each for each in seen if isinstance(each, Status)]
        assert before.queue_length > 300 and behind.queue_length == 0
        assert [each for each in seen if isinstance(each, MarkProcessed)] == [MarkProcessed("behind")]
        await connection.send(command(form, Command.HANGUP))
        assert (await call.wait_closed()).by == "them"
        await reading


# ---- We connect to Asterisk ----------------------------------------------------------------------------


async def test_we_fetch_a_channel_that_waits(site: Site, desk: Desk) -> None:
    channel_id, attempt = uuid4(), uuid4()
    await ari(site, "WebSocket/INCOMING/c(slin16)f(json)n", channel_id)
    (channel,) = await site.asterisk.channels()
    shown = await site.asterisk.ask(f"core show channel {channel.name}")
    found = re.search(r"MEDIA_WEBSOCKET_CONNECTION_ID=(\S+)", shown)
    assert found is not None
    url = f"ws://127.0.0.1:{site.asterisk.ports.http}/media/{found[1]}"
    endpoint = await connect_media(url, call_id=attempt, accept=desk.accept)
    line = await desk.line()
    assert endpoint.call_id == attempt and endpoint.start is not None
    assert endpoint.start.channel_id == str(channel_id)
    await asyncio.sleep(0.3)
    line.to_say += tone(600, 1)
    await asyncio.sleep(1.6)
    assert line.rate == 16000 and line.heard_tone(600) > 0.9
    endpoint.hang_up()
    await until(lambda: bool(line.closed), 5, "the end")
